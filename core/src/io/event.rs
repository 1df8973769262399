//! What happened, for the log and for whoever composes machines.

use std::net::SocketAddr;
use std::time::Duration;

use super::{BalanceNews, CloseReason, Endpoint, Parcel, RouterNews, ShardCondition};
use crate::id::{PoolId, ServerId};

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
    /// A shard has another master: requests go there from now on.
    Switched {
        /// The pool.
        pool: PoolId,
        /// The server, which is the shard.
        server: ServerId,
        /// The epoch in which it became the master.
        epoch: u64,
        /// Where it is.
        address: SocketAddr,
    },
    /// Requests for a shard begin to wait.
    HoldBegan {
        /// The pool.
        pool: PoolId,
        /// The server.
        server: ServerId,
        /// Why.
        why: HoldCause,
    },
    /// Requests for a shard wait no more.
    HoldEnded {
        /// The pool.
        pool: PoolId,
        /// The server.
        server: ServerId,
        /// How long they have waited at most, and what became of them.
        tally: HoldTally,
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
    /// The plan of a [`Command::Reload`] is at work; what follows names pools and servers by it.
    Reloaded(
        /// The plan as the worker has it, a `proxy::Plan`: behind the pools of the one that it was
        /// given there may be some that are gone and still have clients.
        Parcel,
    ),
    /// All clients are gone after [`Command::Drain`].
    Drained,
    /// Something about a virtual server.
    Balance {
        /// Its name.
        service: String,
        /// What.
        news: BalanceNews,
    },
    /// Something about a virtual router.
    Router {
        /// Its name.
        router: String,
        /// What.
        news: RouterNews,
    },
    /// A check of something tracked came to another result.
    Check {
        /// Its name.
        check: String,
        /// Whether it succeeds.
        is_up: bool,
        /// How it ended.
        detail: String,
    },
    /// A channel could not be opened or has ended; it will be tried again.
    ChannelFailed {
        /// What it is for.
        purpose: &'static str,
        /// The operating system's error number; zero if its other end is gone.
        errno: i32,
    },
    /// A connection could not be encrypted, or not any longer; it is closed.
    TlsFailed {
        /// Who is at the other end.
        peer: Endpoint,
        /// Whether we connected to it.
        is_server: bool,
        /// What went wrong.
        reason: String,
    },
    /// The process is to end at once: a client said SHUTDOWN, or asked for a crash.
    Exit {
        /// What it returns.
        code: u8,
    },
    /// What a Sentinel tells, in the words of its protocol.
    Sentinel {
        /// How loud it is.
        loudness: Loudness,
        /// The event's name, which is the channel of its subscribers; empty for what only the log
        /// is told.
        name: &'static str,
        /// What it says.
        message: String,
    },
}

/// Why requests for a shard wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldCause {
    /// The Sentinels say so.
    Told(ShardCondition),
    /// Nothing is known of its master yet, and the pool must know.
    Unknown,
    /// Its master could not be reached.
    Lost(Failure),
    /// Its master says that it is a replica.
    ReadOnly,
}

/// What became of the requests for a shard in a time without a master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldTally {
    /// How long that was.
    pub time: Duration,
    /// Requests that waited and were then sent.
    pub held: u64,
    /// Those among them that had been sent before.
    pub replayed: u64,
    /// Requests whose outcome is unknown.
    pub unknown: u64,
    /// Requests that were refused because they waited too long, or too many waited.
    pub refused: u64,
}

/// How loud what a Sentinel tells is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loudness {
    /// `-` in the log.
    Verbose,
    /// `*` in the log.
    Notice,
    /// `#` in the log.
    Warning,
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
    /// The shard had no master for longer than requests may wait, or more waited than may.
    NoMaster,
    /// This host must not write to the shard's master.
    Fenced,
    /// The shard has another master by now.
    Replaced,
    /// Too few replicas had the write in time.
    TooFewCopies,
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
            Self::NoMaster => "the shard has no master",
            Self::Fenced => "this proxy is cut off and does not write",
            Self::Replaced => "the shard has another master by now",
            Self::TooFewCopies => "too few replicas have the write in time",
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
