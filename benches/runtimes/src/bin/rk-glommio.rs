//! The core on glommio 0.9.
//!
//! What this runtime cannot do, and a loop of our own does: it reads and writes with plain `recv`
//! and `send` and uses its ring only to learn that a socket is ready (one single-shot poll for
//! each wait, armed again after each read); no multishot accept or receive, no provided buffers,
//! no send through the ring, no task-run flags (its bundled C library predates them). Each
//! executor has three rings, a timer for preemption, and refuses to start with less than 512 KiB
//! of lockable memory. In its favour: one read buffer serves every connection, as a read only
//! fills it when there are bytes.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};
use glommio::{GlommioError, LocalExecutorBuilder, Placement};
use ringkeeper_core::buf::Buffer;
use ringkeeper_core::limits::RECEIVE_BYTES_MAX;
use ringkeeper_runtimes::{Driver, Runtime, Stream, load};

thread_local! {
    /// The one read buffer; taken out while its bytes are lent.
    static SPACE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

struct Glommio;

struct GlommioStream(RefCell<TcpStream>);

impl Runtime for Glommio {
    type Stream = GlommioStream;
    type Listener = TcpListener;

    fn listen(address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address).map_err(io_error)
    }

    async fn accept(listener: &TcpListener) -> io::Result<(GlommioStream, SocketAddr)> {
        let stream = listener.accept().await.map_err(io_error)?;
        let peer = stream.peer_addr().map_err(io_error)?;
        stream.set_nodelay(true).map_err(io_error)?;
        Ok((GlommioStream(RefCell::new(stream)), peer))
    }

    async fn connect(address: SocketAddr, timeout: Duration) -> io::Result<GlommioStream> {
        let stream = TcpStream::connect_timeout(address, timeout).await.map_err(io_error)?;
        stream.set_nodelay(true).map_err(io_error)?;
        Ok(GlommioStream(RefCell::new(stream)))
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        // The plain spawn runs a task at once; into a queue, even the current one, it waits.
        let queue = glommio::executor().current_task_queue();
        if let Ok(task) = glommio::spawn_local_into(task, queue) {
            task.detach();
        }
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static {
        glommio::timer::sleep(duration)
    }
}

impl Stream for GlommioStream {
    async fn read(&self, take: impl FnOnce(&[u8])) -> io::Result<usize> {
        let mut take = Some(take);
        poll_fn(|cx| {
            let mut space = SPACE.take();
            space.resize(RECEIVE_BYTES_MAX, 0);
            let result = Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, &mut space);
            if let Poll::Ready(Ok(count)) = result
                && let Some(bytes) = space.get(..count).filter(|bytes| !bytes.is_empty())
                && let Some(take) = take.take()
            {
                take(bytes);
            }
            SPACE.set(space);
            result
        })
        .await
    }

    async fn write_all(&self, buffer: Buffer) -> (io::Result<()>, Buffer) {
        let mut written = 0;
        let result = poll_fn(|cx| self.poll_write_all(cx, &buffer, &mut written)).await;
        (result, buffer)
    }

    fn shutdown(&self, how: Shutdown) {
        // Ready at once, whatever the signature says; an error means that nobody is there.
        let stream = self.0.borrow();
        let mut shutdown = Box::pin(stream.shutdown(how));
        let _ = shutdown.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
}

impl GlommioStream {
    fn poll_write_all(
        &self,
        cx: &mut Context<'_>,
        buffer: &[u8],
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = buffer.get(*written..).filter(|rest| !rest.is_empty()) {
            *written += ready!(Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, rest))?;
        }
        Poll::Ready(Ok(()))
    }
}

fn io_error(error: GlommioError<()>) -> io::Error {
    error.into()
}

fn main() -> ExitCode {
    let result = load().and_then(|host| {
        let executor = LocalExecutorBuilder::new(Placement::Unbound).make().map_err(io_error)?;
        executor.run(Driver::<Glommio>::run(host))
    });
    if let Err(error) = result {
        eprintln!("rk-glommio: {error}");
    }
    // Serving ends by a signal only.
    ExitCode::FAILURE
}
