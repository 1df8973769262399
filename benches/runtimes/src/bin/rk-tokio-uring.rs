//! The core on tokio-uring 0.5.
//!
//! What this runtime cannot do, and a loop of our own does: every receive is single-shot and owns
//! a buffer of its own for as long as it waits, so an idle client costs one (no multishot, no
//! provided buffers, no direct descriptors); accept is single-shot too. The ring's descriptor
//! sits in tokio's epoll, so a turn that sleeps costs an `epoll_wait` besides the
//! `io_uring_enter`, and tokio runs at most 61 tasks before it looks at its descriptors again,
//! which can cut a turn of several hundred clients. The ring has no task-run flags by default;
//! `--coop` sets IORING_SETUP_COOP_TASKRUN through the crate's builder, the best it can do.
//! An attempt to connect that runs out of time is left to the kernel.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use ringkeeper_core::buf::Buffer;
use ringkeeper_runtimes::{CLIENT_READ_BYTES, Driver, Runtime, SERVER_READ_BYTES, Stream, load};
use socket2::{Domain, Protocol, Socket, Type};
use tokio_uring::net::{TcpListener, TcpStream};

/// Entries of the submission queue, as many as the product's own loop asks for.
const RING_ENTRIES: u32 = 1024;

struct TokioUring;

struct UringStream {
    stream: TcpStream,
    /// The read buffer; with the kernel while a read waits.
    space: Cell<Vec<u8>>,
}

impl UringStream {
    fn new(stream: TcpStream, read_bytes: usize) -> Self {
        Self { stream, space: Cell::new(Vec::with_capacity(read_bytes)) }
    }
}

impl Runtime for TokioUring {
    type Stream = UringStream;
    type Listener = TcpListener;

    fn listen(address: SocketAddr) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // Handed down to every accepted socket.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        Ok(TcpListener::from_std(socket.into()))
    }

    async fn accept(listener: &TcpListener) -> io::Result<(UringStream, SocketAddr)> {
        let (stream, peer) = listener.accept().await?;
        Ok((UringStream::new(stream, CLIENT_READ_BYTES), peer))
    }

    async fn connect(address: SocketAddr, timeout: Duration) -> io::Result<UringStream> {
        let stream = tokio::time::timeout(timeout, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(UringStream::new(stream, SERVER_READ_BYTES))
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        tokio_uring::spawn(task);
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static {
        tokio::time::sleep(duration)
    }
}

impl Stream for UringStream {
    async fn read(&self, take: impl FnOnce(&[u8])) -> io::Result<usize> {
        let (result, mut space) = self.stream.read(self.space.take()).await;
        if let Ok(count) = result
            && let Some(bytes) = space.get(..count).filter(|bytes| !bytes.is_empty())
        {
            take(bytes);
        }
        space.clear();
        self.space.set(space);
        result
    }

    async fn write_all(&self, buffer: Buffer) -> (io::Result<()>, Buffer) {
        self.stream.write_all(buffer).await
    }

    fn shutdown(&self, how: Shutdown) {
        // An error means that nobody is there any more.
        let _ = self.stream.shutdown(how);
    }
}

fn main() -> ExitCode {
    let result = load().and_then(|host| {
        let mut ring = tokio_uring::uring_builder();
        if host.options.iter().any(|option| option == "--coop") {
            ring.setup_coop_taskrun();
        }
        let mut builder = tokio_uring::builder();
        builder.entries(RING_ENTRIES).uring_builder(&ring);
        builder.start(Driver::<TokioUring>::run(host))
    });
    if let Err(error) = result {
        eprintln!("rk-tokio-uring: {error}");
    }
    // Serving ends by a signal only.
    ExitCode::FAILURE
}
