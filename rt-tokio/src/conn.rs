//! One connection, and the table of all of them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use ringkeeper_core::buf::Buffer;
use ringkeeper_core::id::ConnId;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Reads that a flushing close makes to throw away what the other side had still sent: closing
/// with unread bytes resets the connection, and a reset can overtake the last reply. A peer that
/// keeps sending is reset after that.
const DISCARDED_READS_MAX: usize = 4;

/// A stream socket that tokio watches.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A unix stream socket.
    Unix(UnixStream),
}

impl Stream {
    /// Returns what the kernel holds against a connection attempt.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        }
    }

    /// Returns our end. `None` for a unix socket.
    fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Tells whether a TCP socket has reached itself: an attempt on a port of the ephemeral range
    /// that nobody listens on may be given that very port as its own.
    pub(crate) fn is_self_connected(&self) -> bool {
        match self {
            Self::Tcp(stream) => match (stream.local_addr(), stream.peer_addr()) {
                (Ok(local), Ok(peer)) => local == peer,
                (Err(_), _) | (_, Err(_)) => false,
            },
            Self::Unix(_) => false,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// Writes from `written` on until the kernel has everything or wants no more.
    fn poll_write_all(
        &mut self,
        waker: &Waker,
        buffer: &[u8],
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(waker);
        while let Some(rest) = buffer.get(*written..)
            && !rest.is_empty()
        {
            match ready!(self.poll_write(&mut cx, rest)) {
                Ok(count) => *written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    fn try_read(&self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(space),
            Self::Unix(stream) => stream.try_read(space),
        }
    }

    fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).shutdown(std::net::Shutdown::Write),
            Self::Unix(stream) => SockRef::from(stream).shutdown(std::net::Shutdown::Write),
        }
    }
}

/// A write that the kernel did not take whole.
#[derive(Debug)]
struct Unwritten {
    buffer: Buffer,
    written: usize,
}

/// One connection. Small, because most of them idle: what only a busy one needs is boxed.
#[derive(Debug)]
pub(crate) struct Conn {
    id: ConnId,
    stream: Stream,
    /// Puts our slot into the ready queue.
    waker: Waker,
    unwritten: Option<Box<Unwritten>>,
    is_connecting: bool,
    is_paused: bool,
    has_eof: bool,
    is_closing: bool,
    is_queued: bool,
}

/// What a read gave.
#[derive(Debug)]
pub(crate) enum ReadResult {
    /// So many bytes are in the buffer; there may be more in the kernel.
    Bytes(usize),
    /// The other side sends nothing more.
    Eof,
    /// Nothing until the waker says so.
    Blocked,
    /// Interrupted; ask again.
    Again,
    /// The connection is broken.
    Failed(io::Error),
}

/// What a write gave.
#[derive(Debug)]
pub(crate) enum WriteResult {
    /// The kernel has every byte.
    Done(Buffer),
    /// The rest waits until the waker says so.
    Blocked,
    /// The connection is broken.
    Failed(io::Error),
}

impl Conn {
    /// Makes a connection around a socket that is established or, with `is_connecting`, on its
    /// way there.
    pub(crate) const fn new(id: ConnId, stream: Stream, waker: Waker, is_connecting: bool) -> Self {
        Self {
            id,
            stream,
            waker,
            unwritten: None,
            is_connecting,
            is_paused: false,
            has_eof: false,
            is_closing: false,
            is_queued: false,
        }
    }

    /// Returns the worker's name for it.
    pub(crate) const fn id(&self) -> ConnId {
        self.id
    }

    /// Returns our end. `None` for a unix socket.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.stream.local_address()
    }

    /// Tells whether the attempt to connect is still under way.
    pub(crate) const fn is_connecting(&self) -> bool {
        self.is_connecting
    }

    /// Tells whether the worker asked for a flushing close.
    pub(crate) const fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Tells whether a write is in flight.
    pub(crate) const fn is_writing(&self) -> bool {
        self.unwritten.is_some()
    }

    /// Tells whether the worker wants bytes and there may be some.
    pub(crate) const fn wants_read(&self) -> bool {
        !(self.is_connecting || self.is_paused || self.has_eof || self.is_closing)
    }

    /// Stops or starts reading.
    pub(crate) const fn set_paused(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// Closes as soon as the write in flight is done.
    pub(crate) const fn set_closing(&mut self) {
        self.is_closing = true;
    }

    /// Notes that the slot waits for another look in the next turn; tells whether it did not yet.
    pub(crate) const fn set_queued(&mut self) -> bool {
        !std::mem::replace(&mut self.is_queued, true)
    }

    /// Notes that the slot is being looked at.
    pub(crate) const fn clear_queued(&mut self) {
        self.is_queued = false;
    }

    /// Asks how the attempt to connect went.
    pub(crate) fn poll_connect(&mut self) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(&self.waker);
        match self.stream.poll_write_ready(&mut cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
        }
        match self.stream.take_error() {
            Err(error) | Ok(Some(error)) => return Poll::Ready(Err(error)),
            Ok(None) => {}
        }
        if self.stream.is_self_connected() {
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)));
        }
        self.is_connecting = false;
        Poll::Ready(Ok(()))
    }

    /// Reads once into `space`.
    pub(crate) fn read(&mut self, space: &mut [u8]) -> ReadResult {
        let mut cx = Context::from_waker(&self.waker);
        let mut buf = ReadBuf::new(space);
        match self.stream.poll_read(&mut cx, &mut buf) {
            Poll::Pending => ReadResult::Blocked,
            Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                self.has_eof = true;
                ReadResult::Eof
            }
            Poll::Ready(Ok(())) => ReadResult::Bytes(buf.filled().len()),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {
                ReadResult::Again
            }
            Poll::Ready(Err(error)) => ReadResult::Failed(error),
        }
    }

    /// Asks for the waker when bytes come; false when a read is worth trying already.
    pub(crate) fn is_read_blocked(&self) -> bool {
        self.stream.poll_read_ready(&mut Context::from_waker(&self.waker)).is_pending()
    }

    /// Starts the one write in flight.
    pub(crate) fn write(&mut self, buffer: Buffer) -> WriteResult {
        debug_assert!(self.unwritten.is_none(), "one write in flight per connection");
        let mut written = 0;
        // An attempt under way would take the bytes for the wrong answer: they wait for it.
        let poll = if self.is_connecting {
            Poll::Pending
        } else {
            self.stream.poll_write_all(&self.waker, &buffer, &mut written)
        };
        match poll {
            Poll::Ready(Ok(())) => WriteResult::Done(buffer),
            Poll::Ready(Err(error)) => WriteResult::Failed(error),
            Poll::Pending => {
                self.unwritten = Some(Box::new(Unwritten { buffer, written }));
                WriteResult::Blocked
            }
        }
    }

    /// Goes on with the write in flight.
    pub(crate) fn resume_write(&mut self) -> WriteResult {
        let Some(mut unwritten) = self.unwritten.take() else { return WriteResult::Blocked };
        let Unwritten { buffer, written } = &mut *unwritten;
        match self.stream.poll_write_all(&self.waker, buffer, written) {
            Poll::Ready(Ok(())) => WriteResult::Done(unwritten.buffer),
            Poll::Ready(Err(error)) => WriteResult::Failed(error),
            Poll::Pending => {
                self.unwritten = Some(unwritten);
                WriteResult::Blocked
            }
        }
    }

    /// Ends a connection whose bytes should arrive: nothing unread may turn the end into a reset.
    pub(crate) fn finish(self, space: &mut [u8]) {
        if self.has_eof || self.is_connecting {
            return;
        }
        // Whatever fails here, the descriptor is closed next.
        if self.stream.shutdown_write().is_err() {
            return;
        }
        for _ in 0..DISCARDED_READS_MAX {
            match self.stream.try_read(space) {
                Ok(count) if count == space.len() => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// The connections of one worker by their slot. Clients and servers have ranges of their own, so
/// each range is a dense vector.
#[derive(Debug, Default)]
pub(crate) struct ConnTable {
    clients: Vec<Option<Conn>>,
    servers: Vec<Option<Conn>>,
}

impl ConnTable {
    /// Takes a connection in under its name.
    pub(crate) fn insert(&mut self, conn: Conn) {
        let (range, index) = self.locate(conn.id);
        if index >= range.len() {
            range.resize_with(index + 1, || None);
        }
        if let Some(place) = range.get_mut(index) {
            debug_assert!(place.is_none(), "a slot is free only after Closed");
            *place = Some(conn);
        }
    }

    /// Returns the connection of that name, not a later one in the same slot.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        let (range, index) = self.locate(id);
        range.get_mut(index)?.as_mut().filter(|conn| conn.id == id)
    }

    /// Returns whoever is in the slot.
    pub(crate) fn slot_mut(&mut self, slot: u32) -> Option<&mut Conn> {
        let (range, index) = self.locate(ConnId::from_bits(u64::from(slot)));
        range.get_mut(index)?.as_mut()
    }

    /// Takes the connection of that name out.
    pub(crate) fn remove(&mut self, id: ConnId) -> Option<Conn> {
        let (range, index) = self.locate(id);
        range.get_mut(index)?.take_if(|conn| conn.id == id)
    }

    fn locate(&mut self, id: ConnId) -> (&mut Vec<Option<Conn>>, usize) {
        let range = if id.is_server() { &mut self.servers } else { &mut self.clients };
        (range, id.index() as usize)
    }
}
