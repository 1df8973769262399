//! The border between a worker and the runtime that drives it.
//!
//! # Contract
//!
//! 1. The clock is sampled once per batch and never goes back. [`Instant`] is ours: nanoseconds
//!    since start, no `now()`.
//! 2. A turn: at most [`BATCH_MAX`](crate::limits::BATCH_MAX) inputs, `handle_timeout` if due,
//!    `poll_output` until `None`, `poll_timeout`, sleep.
//! 3. One write in flight per connection, answered once by [`Input::Sent`] (the buffer comes
//!    home) or [`Input::Closed`]. Replies and requests that arrive meanwhile coalesce into the
//!    next write: order and memory are bounded by construction, and this batching is where the
//!    speed comes from.
//! 4. [`ConnId`] = 24-bit index + 32-bit generation, issued by the worker; a late completion finds
//!    nobody. The top byte of an io_uring `user_data` stays free for the operation.
//! 5. After [`Output::PauseRead`] up to [`READS_IN_FLIGHT`](crate::limits::READS_IN_FLIGHT) more
//!    `Received` may come. `Received` is never empty; end of stream is [`Input::Eof`] (a
//!    half-closed client still gets its replies), end of connection is [`Input::Closed`].
//! 6. Runtimes match [`Output`] without a wildcard. The worker never blocks and does work bounded
//!    by its input.
//! 7. Every `ConnId` ends with exactly one `Closed`, also after our own [`Output::Close`]; only
//!    then is its slot free. Between `Close` and `Closed` the worker ignores what still comes, and
//!    a buffer in flight may be dropped.
//! 8. `Sent` means that every byte of the buffer was taken by the kernel; short writes are the
//!    runtime's business.
//! 9. A connection made by `accept` may be read from and written to at once. One made by
//!    [`Output::Connect`] answers with [`Input::Connected`] first, or `Closed` with the reason;
//!    nothing is transmitted before that.
//! 10. No output names a connection whose `Closed` was handed over. `PauseRead` and `ResumeRead`
//!     alternate, the first being a pause. After `Close` with [`CloseMode::Flush`] only a `Close`
//!     with [`CloseMode::Abort`] may follow, after that nothing.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::buf::Buffer;
use crate::id::{ConnId, ListenerId, PoolId, QueryId, ServerId};
use crate::time::Instant;

/// Where a stream socket is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An IPv4 or IPv6 address and port.
    Tcp(SocketAddr),
    /// A path in the file system; empty for the unnamed end of a client.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// What tells the worker something.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection asked for by [`Output::Connect`] is established.
    Connected {
        /// The connection.
        conn: ConnId,
    },
    /// Bytes came; never empty. They are lent for the call only.
    Received {
        /// The connection.
        conn: ConnId,
        /// A slice of the runtime's own buffer.
        bytes: &'a [u8],
    },
    /// The other side sends nothing more; it may still read.
    Eof {
        /// The connection.
        conn: ConnId,
    },
    /// The write is done; the buffer comes home.
    Sent {
        /// The connection.
        conn: ConnId,
        /// The buffer of the [`Output::Transmit`].
        buffer: Buffer,
    },
    /// The connection is gone, for whatever reason; its name will not be heard again.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
    /// The resolver's answer.
    Resolved {
        /// The question's name.
        query: QueryId,
        /// The addresses in the resolver's order (never empty), or why there are none.
        result: Result<Vec<SocketAddr>, ResolveError>,
    },
    /// The operator wants something.
    Command(Command),
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The worker asked for it.
    Requested,
    /// The other side refused the connection.
    Refused,
    /// The other side reset the connection.
    Reset,
    /// Nothing came back while connecting.
    ConnectTimedOut,
    /// No route, network down, unreachable.
    Unreachable,
    /// The file of a unix socket is missing or not a socket.
    NotFound,
    /// The kernel refused for want of descriptors, ports or memory.
    OutOfResources,
    /// Any other error number of the operating system.
    Other(i32),
}

/// Why a host name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveError {
    /// The name does not exist or has no address.
    NotFound,
    /// The resolver did not answer; asking again may help.
    Temporary,
}

/// What an operator may ask of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Accept nothing new, answer what was read, close, then report [`Event::Drained`].
    Drain {
        /// How long clients may take.
        limit: Duration,
    },
}

/// What the worker wants done.
#[derive(Debug)]
#[must_use]
pub enum Output {
    /// Connect to `endpoint`; no answer within `timeout` is [`CloseReason::ConnectTimedOut`].
    Connect {
        /// The name that the connection will have.
        conn: ConnId,
        /// Where to.
        endpoint: Endpoint,
        /// How long the attempt may take.
        timeout: Duration,
    },
    /// Write the whole buffer. Never empty, never while another write of `conn` is in flight.
    Transmit {
        /// The connection.
        conn: ConnId,
        /// What to write.
        buffer: Buffer,
    },
    /// Stop reading from the connection.
    PauseRead(ConnId),
    /// Read again.
    ResumeRead(ConnId),
    /// End the connection. Answered by `Closed`.
    Close {
        /// The connection.
        conn: ConnId,
        /// How.
        mode: CloseMode,
    },
    /// Look up a host name without blocking anybody. Answered by `Resolved`.
    Resolve {
        /// The question's name.
        query: QueryId,
        /// The host name.
        host: String,
        /// The port to put into the addresses.
        port: u16,
    },
    /// Something that the operator should know; no answer.
    Event(Event),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseMode {
    /// After the write in flight is done. The worker has nothing more to write.
    Flush,
    /// At once; what is in flight may be lost.
    Abort,
}

/// Something that happened, for the log and for whoever composes machines.
///
/// Values, not sentences: the host writes the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A server began to fail.
    ServerDown {
        /// The pool.
        pool: PoolId,
        /// The server.
        server: ServerId,
        /// How.
        failure: Failure,
    },
    /// A server that failed is connected again.
    ServerUp {
        /// The pool.
        pool: PoolId,
        /// The server.
        server: ServerId,
    },
    /// A server said nothing for a whole time-out; its connection is replaced.
    ServerSilent {
        /// The pool.
        pool: PoolId,
        /// The server.
        server: ServerId,
    },
    /// A server was taken out of the ring.
    Ejected {
        /// The pool.
        pool: PoolId,
        /// The server.
        server: ServerId,
        /// Failures in a row.
        failures: u32,
    },
    /// An ejected server answered a probe and is in the ring again.
    Returned {
        /// The pool.
        pool: PoolId,
        /// The server.
        server: ServerId,
    },
    /// A server refused `AUTH`, `SELECT` or the probe's `PING`.
    GreetingRefused {
        /// The pool.
        pool: PoolId,
        /// The server.
        server: ServerId,
        /// The server's words.
        message: String,
    },
    /// A server sent what is no reply, or a reply that nobody asked for.
    ServerProtocolError {
        /// The pool.
        pool: PoolId,
        /// The server.
        server: ServerId,
    },
    /// A client was not let in: the pool or the worker is full.
    ClientRefused {
        /// The pool.
        pool: PoolId,
    },
    /// A client was cut off.
    ClientOverLimit {
        /// The pool.
        pool: PoolId,
        /// The limit that it went over.
        limit: Limit,
    },
    /// All clients are gone after [`Command::Drain`].
    Drained,
}

/// A bound that a client can go over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Its own unsent replies: `client_output_bytes_max` of the pool.
    ClientOutput,
    /// All clients' unfinished and waiting requests together; it held most.
    ClientsInput,
    /// All clients' unsent replies together; it held most.
    ClientsOutput,
}

/// Why requests to a server fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection was refused, or no server is in the ring.
    Refused,
    /// No reply, or no connection, in time.
    TimedOut,
    /// The server reset the connection.
    Reset,
    /// The server closed the connection.
    ServerClosed,
    /// The server sent what is no reply.
    Protocol,
    /// The host name has no address.
    Unresolved,
    /// The server cannot be reached.
    Unreachable,
    /// The server refused `AUTH` or `SELECT`.
    Greeting,
    /// This host lacks descriptors, ports or memory.
    OutOfResources,
}

impl Failure {
    /// Returns the text that follows `-ERR `, as twemproxy words it: the operating system's.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Refused => "Connection refused",
            Self::TimedOut => "Connection timed out",
            Self::Reset => "Connection reset by peer",
            Self::ServerClosed => "unknown",
            Self::Protocol => "Invalid argument",
            Self::Unresolved => "Host is down",
            Self::Unreachable => "No route to host",
            Self::Greeting => "Server refused AUTH or SELECT",
            Self::OutOfResources => "Cannot allocate memory",
        }
    }
}

impl From<CloseReason> for Failure {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Requested => Self::ServerClosed,
            CloseReason::Refused | CloseReason::NotFound => Self::Refused,
            CloseReason::Reset | CloseReason::Other(_) => Self::Reset,
            CloseReason::ConnectTimedOut => Self::TimedOut,
            CloseReason::Unreachable => Self::Unreachable,
            CloseReason::OutOfResources => Self::OutOfResources,
        }
    }
}

/// A moment at which a worker wants to be called, and which timer asked for it, so that a busy
/// loop names its culprit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// The timer's name.
    pub why: &'static str,
}

/// The worker has no room for another connection of this kind; close the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtCapacity;

/// What a runtime drives. The one implementation that ships is
/// `node::Worker`; runtimes are tested with smaller ones.
pub trait Drive {
    /// Takes a new client in and names its connection.
    ///
    /// # Errors
    ///
    /// [`AtCapacity`] when the listener's pool is full or draining; the runtime closes the socket.
    fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity>;

    /// Takes one input in.
    fn handle(&mut self, now: Instant, input: Input<'_>);

    /// Runs the timers that are due. Early calls do nothing.
    fn handle_timeout(&mut self, now: Instant);

    /// Gives the next effect out, `None` when there is none.
    fn poll_output(&mut self) -> Option<Output>;

    /// Returns when [`Drive::handle_timeout`] wants to be called.
    fn poll_timeout(&self) -> Option<Deadline>;
}
