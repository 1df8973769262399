//! One connection, and the table of all of them.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::task::Poll;

use mio::net::{TcpStream, UnixStream};
use ringkeeper_core::buf::Buffer;
use ringkeeper_core::id::ConnId;
use socket2::{SockRef, Socket};

use crate::poller::{Poller, Readiness, Watched};

/// Reads that a flushing close makes to throw away what the other side had still sent: closing
/// with unread bytes resets the connection, and a reset can overtake the last reply. A peer that
/// keeps sending is reset after that.
const DISCARDED_READS_MAX: usize = 4;

/// A non-blocking stream socket.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A unix stream socket.
    Unix(UnixStream),
}

impl Stream {
    fn watch(&mut self, poller: &Poller, owner: Watched) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => poller.watch(stream, owner),
            Self::Unix(stream) => poller.watch(stream, owner),
        }
    }

    fn forget(&mut self, poller: &Poller) {
        match self {
            Self::Tcp(stream) => poller.forget(stream),
            Self::Unix(stream) => poller.forget(stream),
        }
    }

    /// Tells how an attempt to connect ended; pending when it has not, whatever the poller said.
    fn poll_connected(&self) -> Poll<io::Result<()>> {
        let error = match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        };
        if let Err(error) | Ok(Some(error)) = error {
            return Poll::Ready(Err(error));
        }
        let Self::Tcp(stream) = self else { return Poll::Ready(Ok(())) };
        match (stream.local_addr(), stream.peer_addr()) {
            // An attempt on a port of the ephemeral range that nobody listens on may be given
            // that very port as its own, and then reaches itself.
            (Ok(local), Ok(peer)) if local == peer => {
                Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)))
            }
            (_, Err(error)) if error.kind() == io::ErrorKind::NotConnected => Poll::Pending,
            // Gone again already: reading says how.
            (_, _) => Poll::Ready(Ok(())),
        }
    }

    /// Returns our end. `None` for a unix socket.
    fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(space),
            Self::Unix(stream) => stream.read(space),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
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
    unwritten: Option<Box<Unwritten>>,
    /// A read may give something.
    can_read: bool,
    /// A write may give something.
    can_write: bool,
    /// The end or an error comes behind the bytes, so that a short read is not the last.
    is_over: bool,
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
    /// Nothing until the poller says so.
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
    /// The rest waits until the poller says so.
    Blocked,
    /// The connection is broken.
    Failed(io::Error),
}

impl Conn {
    /// Makes a connection around a socket that is established or, with `is_connecting`, on its
    /// way there.
    pub(crate) const fn new(id: ConnId, stream: Stream, is_connecting: bool) -> Self {
        Self {
            id,
            stream,
            unwritten: None,
            // The poller tells what is there when it starts to watch.
            can_read: false,
            can_write: !is_connecting,
            is_over: false,
            is_connecting,
            is_paused: false,
            has_eof: false,
            is_closing: false,
            is_queued: false,
        }
    }

    /// Has the socket watched.
    pub(crate) fn watch(&mut self, poller: &Poller) -> io::Result<()> {
        self.stream.watch(poller, Watched::Conn(self.id.slot()))
    }

    /// Ends that; must come before it is dropped, if it was watched.
    pub(crate) fn forget(&mut self, poller: &Poller) {
        self.stream.forget(poller);
    }

    /// Takes note of what the poller tells.
    pub(crate) const fn note(&mut self, ready: Readiness) {
        self.can_read |= ready.can_read;
        self.can_write |= ready.can_write;
        self.is_over |= ready.is_over;
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
        self.can_read && !(self.is_connecting || self.is_paused || self.has_eof || self.is_closing)
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
        if !self.can_write {
            return Poll::Pending;
        }
        let poll = self.stream.poll_connected();
        self.is_connecting = poll.is_pending();
        self.can_write = poll.is_ready();
        poll
    }

    /// Reads once into `space`.
    pub(crate) fn read(&mut self, space: &mut [u8]) -> ReadResult {
        match self.stream.read(space) {
            Ok(0) => {
                self.has_eof = true;
                ReadResult::Eof
            }
            Ok(count) => {
                // Less than there was room for is all there was; what comes later is told again.
                // Holds for epoll and kqueue, and others have no descriptor for tokio to watch.
                self.can_read = count == space.len() || self.is_over;
                ReadResult::Bytes(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.can_read = false;
                ReadResult::Blocked
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => ReadResult::Again,
            Err(error) => ReadResult::Failed(error),
        }
    }

    /// Starts the one write in flight.
    pub(crate) fn write(&mut self, buffer: Buffer) -> WriteResult {
        debug_assert!(self.unwritten.is_none(), "one write in flight per connection");
        let mut written = 0;
        match self.write_from(&buffer, &mut written) {
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
        match self.write_from(buffer, written) {
            Poll::Ready(Ok(())) => WriteResult::Done(unwritten.buffer),
            Poll::Ready(Err(error)) => WriteResult::Failed(error),
            Poll::Pending => {
                self.unwritten = Some(unwritten);
                WriteResult::Blocked
            }
        }
    }

    /// Says that nothing more is sent.
    pub(crate) fn end_write(&self) -> io::Result<()> {
        debug_assert!(self.unwritten.is_none(), "a write is in flight");
        self.stream.shutdown_write()
    }

    /// Has the other side reset when the socket is closed: what it has not read must not stay in
    /// the kernel for minutes.
    pub(crate) fn set_reset(&self) {
        let linger = Some(std::time::Duration::ZERO);
        // A socket that takes no options is broken and as good as reset.
        let _ = match &self.stream {
            Stream::Tcp(stream) => SockRef::from(stream).set_linger(linger),
            Stream::Unix(stream) => SockRef::from(stream).set_linger(linger),
        };
    }

    /// Takes the socket out. Nobody watches it any more.
    pub(crate) fn into_socket(self) -> Socket {
        debug_assert!(self.unwritten.is_none(), "a write is in flight");
        match self.stream {
            Stream::Tcp(stream) => Socket::from(OwnedFd::from(stream)),
            Stream::Unix(stream) => Socket::from(OwnedFd::from(stream)),
        }
    }

    /// Writes from `written` on until the kernel has everything or wants no more.
    fn write_from(&mut self, buffer: &[u8], written: &mut usize) -> Poll<io::Result<()>> {
        // An attempt under way would take the bytes for the wrong answer: they wait for it.
        while self.can_write && !self.is_connecting {
            let rest = buffer.get(*written..).unwrap_or_default();
            if rest.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match self.stream.write(rest) {
                Ok(count) => {
                    *written += count;
                    // As with reads: what did not fit is room that will be told of.
                    self.can_write = count == rest.len();
                    if self.can_write {
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.can_write = false,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Pending
    }

    /// Ends a connection whose bytes should arrive: nothing unread may turn the end into a reset.
    pub(crate) fn finish(mut self, space: &mut [u8]) {
        if self.has_eof || self.is_connecting {
            return;
        }
        // Whatever fails here, the descriptor is closed next.
        if self.stream.shutdown_write().is_err() {
            return;
        }
        for _ in 0..DISCARDED_READS_MAX {
            match self.stream.read(space) {
                Ok(count) if count == space.len() => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

// An idle client is one of these beside what the worker keeps.
const _: () = assert!(cfg!(debug_assertions) || size_of::<Option<Conn>>() <= 40);

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
