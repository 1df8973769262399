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
//! 7. Every `ConnId` ends with exactly one `Closed` (or, after [`Output::Release`], one
//!    `Released`), also after our own [`Output::Close`]; only
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
//! 11. A channel answers its `OpenChannel` with one [`Input::ChannelOpened`]. Before
//!     `handle_timeout` the runtime hands over what waits in every channel, so that a worker that
//!     was not run for a while reads first and then decides. It may leave that out when it is less
//!     than [`LATE`](crate::limits::LATE) late and [`Drive::reads_first`] says no. Datagrams leave in the order of their
//!     outputs, at once or never: one that the kernel does not take is told as
//!     [`Trouble::Unsent`] and dropped.
//! 12. [`Output::EndWrite`] comes when no write is in flight, and no `Transmit` after it. The other
//!     side hears the end of the stream; reading goes on.

mod balance;
mod channel;
mod errand;
mod event;
mod notice;

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::buf::Buffer;
use crate::id::{ChannelId, ConnId, JobId, ListenerId, QueryId, Ticket, WorkerId};
use crate::time::Instant;

pub use self::balance::BalanceNews;
pub use self::channel::{ChannelSpec, RouterNews, Trouble};
pub use self::errand::{Change, Errand, Program};
pub use self::event::{Event, Failure, HoldCause, HoldTally, Limit, Loudness};
pub use self::notice::{Evidence, Health, HealthNews, Notice, ShardCondition, ShardNews, Sighting};

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
        /// Our end of it; `None` for a unix socket.
        local: Option<SocketAddr>,
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
    /// The connection belongs to somebody else: what [`Output::Release`] asked for is done. Its
    /// name will not be heard again.
    Released {
        /// The connection.
        conn: ConnId,
    },
    /// The resolver's answer.
    Resolved {
        /// The question's name.
        query: QueryId,
        /// The addresses in the resolver's order (never empty), or why there are none.
        result: Result<Vec<SocketAddr>, ResolveError>,
    },
    /// What became of an [`Errand::Persist`].
    Persisted {
        /// The errand's name.
        ticket: Ticket,
        /// Durable, or why not. After an error nothing is known of what the file holds.
        result: Result<(), PersistError>,
    },
    /// What became of an [`Errand::Read`].
    FileRead {
        /// The errand's name.
        ticket: Ticket,
        /// What the file holds, or the operating system's words.
        result: Result<Vec<u8>, String>,
    },
    /// A program asked for by [`Errand::Run`] has ended, or could not start.
    Exited {
        /// The program's name.
        job: JobId,
        /// How.
        exit: Exit,
    },
    /// News from another worker.
    Notice(Notice),
    /// The operator wants something.
    Command(Command),
    /// What became of an [`Output::OpenChannel`].
    ChannelOpened {
        /// The channel.
        channel: ChannelId,
        /// Open, or the operating system's error number.
        result: Result<(), i32>,
    },
    /// Something came; lent for the call only.
    Datagram {
        /// The channel.
        channel: ChannelId,
        /// As it came.
        bytes: &'a [u8],
    },
    /// Something is wrong with an open channel.
    Trouble {
        /// The channel.
        channel: ChannelId,
        /// What.
        trouble: Trouble,
    },
}

/// What other threads leave for a worker; the runtime hands it over as an [`Input`].
#[derive(Clone, Debug)]
pub enum Mail {
    /// From the operator.
    Command(Command),
    /// From another worker.
    Notice(Notice),
    /// From the host, about an [`Errand::Persist`].
    Persisted {
        /// The errand's name.
        ticket: Ticket,
        /// As in [`Input::Persisted`].
        result: Result<(), PersistError>,
    },
    /// From the host, about an [`Errand::Read`].
    FileRead {
        /// The errand's name.
        ticket: Ticket,
        /// As in [`Input::FileRead`].
        result: Result<Vec<u8>, String>,
    },
    /// From the host, about an [`Errand::Run`].
    Exited {
        /// The program's name.
        job: JobId,
        /// How it ended.
        exit: Exit,
    },
}

impl Mail {
    /// Tells whether somebody waits for it, so that it must not be dropped however full the
    /// mailbox is. There is at most one for each errand under way, one plan at a time, one for each
    /// shard and turn of the control worker, and one for each change of health.
    pub const fn is_answer(&self) -> bool {
        match self {
            Self::Persisted { .. }
            | Self::FileRead { .. }
            | Self::Exited { .. }
            | Self::Command(Command::Reload { .. })
            | Self::Notice(Notice::Shard(_) | Notice::Health(_)) => true,
            Self::Command(_) | Self::Notice(_) => false,
        }
    }
}

impl From<Mail> for Input<'static> {
    fn from(mail: Mail) -> Self {
        match mail {
            Mail::Command(command) => Self::Command(command),
            Mail::Notice(notice) => Self::Notice(notice),
            Mail::Persisted { ticket, result } => Self::Persisted { ticket, result },
            Mail::FileRead { ticket, result } => Self::FileRead { ticket, result },
            Mail::Exited { job, exit } => Self::Exited { job, exit },
        }
    }
}

/// Why something is not durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistError {
    /// The step that failed and the operating system's words, for the log.
    pub message: String,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It never ran; the operating system's words.
    NotStarted(String),
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Accept nothing new, answer what was read, close, then report [`Event::Drained`].
    Drain {
        /// How long clients may take.
        limit: Duration,
    },
    /// Give every client away by [`Output::Release`] as soon as nothing is under way for it,
    /// accept nothing new, then report [`Event::Drained`].
    HandOver {
        /// How long that may take.
        limit: Duration,
    },
    /// Go on with another plan, then report [`Event::Reloaded`]. Requests under way are answered.
    Reload {
        /// The plan: a `proxy::Plan`, or for virtual routers a `keepalived::Config`.
        plan: Parcel,
        /// How long clients of what the plan does not have any more may take.
        limit: Duration,
    },
}

/// A value that crosses the border unopened: only whoever made it and the machine that it is for
/// know its type, so that the border need not know all machines.
#[derive(Clone)]
pub struct Parcel(Arc<dyn Any + Send + Sync>);

impl Parcel {
    /// Wraps a value up.
    pub fn new<T: Any + Send + Sync>(value: Arc<T>) -> Self {
        Self(value)
    }

    /// Returns the value if it is a `T`.
    pub fn open<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.0).downcast().ok()
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parcel")
    }
}

impl PartialEq for Parcel {
    /// Tells whether both are the same value, not only equal ones.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Parcel {}

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
        /// Our end of it, of the family of `endpoint`; `None` leaves it to the kernel. One that this
        /// host does not have ends the attempt.
        source: Option<IpAddr>,
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
    /// Say that nothing more is sent. What was sent arrives before.
    EndWrite(ConnId),
    /// Stop reading and give the connection away, with what the worker knows of it. No write is in
    /// flight and reading is paused. Decided while outputs are taken, so that `state` has all that
    /// the turn handed over. Answered by `Released`, or by `Closed` if it broke meanwhile; no
    /// `Received` comes any more: bytes that were on their way go with the connection.
    Release {
        /// The connection.
        conn: ConnId,
        /// What the worker knows, a `proxy::ClientState`.
        state: Parcel,
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
    /// Open a channel. Answered by [`Input::ChannelOpened`].
    OpenChannel {
        /// The name that it will have.
        channel: ChannelId,
        /// What it is.
        spec: ChannelSpec,
    },
    /// Close a channel; nothing of it is heard after that.
    CloseChannel(ChannelId),
    /// Send something.
    Datagram {
        /// The channel.
        channel: ChannelId,
        /// Whom to, where the channel does not know it; an IPv6 address with its scope.
        to: Option<SocketAddr>,
        /// What.
        bytes: Vec<u8>,
    },
    /// Something that the operator should know; no answer.
    Event(Event),
    /// Work for the host that is the same on every runtime.
    Errand(Errand),
    /// News for other workers of this process; no answer, and lost if they are too busy to take
    /// it in.
    Notice {
        /// Whom it is for.
        to: Recipient,
        /// What it says.
        notice: Notice,
    },
}

/// Whom a notice is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// One worker.
    Worker(WorkerId),
    /// Every worker with clients, also the one that speaks if it is one.
    Data,
    /// The worker without clients: administration, Sentinel.
    Control,
    /// The worker that has the virtual routers, if there are any.
    Routers,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseMode {
    /// After the write in flight is done. The worker has nothing more to write.
    Flush,
    /// At once; what is in flight may be lost.
    Abort,
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

/// What serves the outputs that are the same on every runtime. Called on the worker's thread: it
/// must not block.
pub trait Host {
    /// Tells the operator.
    fn event(&mut self, event: Event);

    /// Has something done; the answer comes as [`Mail`].
    fn errand(&mut self, errand: Errand);

    /// Passes news on.
    fn notice(&mut self, to: Recipient, notice: Notice);
}

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

    /// Takes in a client that another process gave away, and names its connection; `state` is
    /// that of its [`Output::Release`]. What does not know such clients refuses them.
    ///
    /// # Errors
    ///
    /// [`AtCapacity`] as for [`Drive::accept`].
    fn adopt(
        &mut self,
        now: Instant,
        on: ListenerId,
        state: &Parcel,
    ) -> Result<ConnId, AtCapacity> {
        let _ = (now, on, state);
        Err(AtCapacity)
    }

    /// Takes one input in.
    fn handle(&mut self, now: Instant, input: Input<'_>);

    /// Runs the timers that are due. Early calls do nothing.
    fn handle_timeout(&mut self, now: Instant);

    /// Gives the next effect out, `None` when there is none.
    fn poll_output(&mut self) -> Option<Output>;

    /// Returns when [`Drive::handle_timeout`] wants to be called.
    fn poll_timeout(&self) -> Option<Deadline>;

    /// Tells whether something that is due is decided by what may wait in channels. If not, and if
    /// it is on time, the runtime need not look into each of them before.
    fn reads_first(&self, now: Instant) -> bool {
        let _ = now;
        true
    }
}
