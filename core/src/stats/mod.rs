//! What a worker counts. Plain integers: a worker counts for itself, and whoever asks adds up what
//! all of them say.

mod balance;
mod head;
mod histogram;
pub mod json;
mod kind;
mod peer;
mod question;
mod routers;
mod samples;
mod sketch;
mod slow;
mod watch;

use std::sync::Arc;

pub use self::balance::{RealServerFigures, ServiceFigures, render as render_balance};
pub use self::head::{HEAD_BYTES, KeyHead};
pub use self::histogram::{BUCKETS, Histogram};
pub use self::kind::{Class, Counters, ErrorKind, LimitKind};
pub use self::peer::Peer;
pub use self::question::{
    Answer, ClientFilter, ClientRow, CommandTimes, PoolFigures, Query, Question, Round,
    ServerFigures, WorkerFigures,
};
pub use self::routers::{RouterFigures, RouterState, render as render_routers};
pub use self::samples::Samples;
pub use self::sketch::{BigValue, FoundKeys, HotKey, KeyWatch};
pub use self::slow::{Seen, SeenRow, SlowLog, newest_first};
pub use self::watch::{Chronicle, MasterFigures, PeerFigures, ReplicaFigures, Told, WatchFigures};

/// What happened at one pool. The first six are named as on twemproxy's statistics port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolStats {
    /// Clients that ended their connection.
    pub client_eof: u64,
    /// Clients whose connection ended in any other way.
    pub client_err: u64,
    /// Clients connected.
    pub client_connections: u64,
    /// Servers taken out of the ring.
    pub server_ejects: u64,
    /// Requests that could not be served.
    pub forward_error: u64,
    /// Parts that requests over several servers were split into.
    pub fragments: u64,
    /// Masters of shards that were replaced by others.
    pub switches: u64,
    /// Times that requests for a shard had to wait for its master.
    pub holds: u64,
    /// Requests that waited for a master and were then sent.
    pub requests_held: u64,
    /// Requests that were sent again to another master, or by another connection.
    pub requests_replayed: u64,
    /// Requests that may or may not have had their effect, because the master was lost.
    pub requests_unknown: u64,
    /// Clients let in.
    pub clients_accepted: u64,
    /// Bytes that clients sent.
    pub client_received_bytes: u64,
    /// Bytes on their way to clients.
    pub client_sent_bytes: u64,
    /// Requests that the proxy answered itself, errors left out.
    pub local_replies: u64,
    /// Requests that got an error of ours, by [`ErrorKind`].
    pub errors: Counters<{ ErrorKind::COUNT }>,
    /// Clients that ran into a bound, by [`LimitKind`].
    pub limits: Counters<{ LimitKind::COUNT }>,
    /// One per server.
    pub servers: Vec<ServerStats>,
    /// How long each command took, by its place in its protocol's table; empty until used.
    pub commands: CommandTimes,
}

impl PoolStats {
    /// Makes the figures of a pool with so many servers.
    pub fn new(servers: usize) -> Self {
        Self { servers: vec![ServerStats::default(); servers], ..Self::default() }
    }

    /// Counts an error of ours.
    #[inline]
    pub fn note_error(&mut self, kind: ErrorKind) {
        self.errors.add(kind as u8);
    }

    /// Adds another worker's figures, those of servers and commands left out.
    pub fn merge(&mut self, other: &Self) {
        self.client_eof += other.client_eof;
        self.client_err += other.client_err;
        self.client_connections += other.client_connections;
        self.server_ejects += other.server_ejects;
        self.forward_error += other.forward_error;
        self.fragments += other.fragments;
        self.switches += other.switches;
        self.holds += other.holds;
        self.requests_held += other.requests_held;
        self.requests_replayed += other.requests_replayed;
        self.requests_unknown += other.requests_unknown;
        self.clients_accepted += other.clients_accepted;
        self.client_received_bytes += other.client_received_bytes;
        self.client_sent_bytes += other.client_sent_bytes;
        self.local_replies += other.local_replies;
        self.errors.merge(&other.errors);
        self.limits.merge(&other.limits);
    }
}

/// What happened at one server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerStats {
    /// Connections that the server ended.
    pub server_eof: u64,
    /// Connections that failed.
    pub server_err: u64,
    /// Requests without a reply in time.
    pub server_timedout: u64,
    /// Connections established.
    pub server_connections: u64,
    /// Microseconds since 1970 of the last ejection, zero when it is in the ring.
    pub server_ejected_at: u64,
    /// Requests queued for the server.
    pub requests: u64,
    /// Their bytes.
    pub request_bytes: u64,
    /// Replies received.
    pub responses: u64,
    /// Their bytes.
    pub response_bytes: u64,
    /// Replies that were errors.
    pub error_replies: u64,
    /// From the queue to the end of the reply, by [`Class`]; made at the first reply.
    pub durations: Option<Box<[Histogram; Class::COUNT]>>,
}

impl ServerStats {
    /// Counts how long a request took.
    #[inline]
    pub fn record(&mut self, class: Class, nanos: u64) {
        let durations = self.durations.get_or_insert_with(Box::default);
        if let Some(histogram) = durations.get_mut(class as usize) {
            histogram.record(nanos);
        }
    }

    /// Adds another worker's figures.
    pub fn merge(&mut self, other: &Self) {
        self.server_eof += other.server_eof;
        self.server_err += other.server_err;
        self.server_timedout += other.server_timedout;
        self.server_connections += other.server_connections;
        self.server_ejected_at = self.server_ejected_at.max(other.server_ejected_at);
        self.requests += other.requests;
        self.request_bytes += other.request_bytes;
        self.responses += other.responses;
        self.response_bytes += other.response_bytes;
        self.error_replies += other.error_replies;
        if let Some(more) = &other.durations {
            let durations = self.durations.get_or_insert_with(Box::default);
            for (histogram, more) in durations.iter_mut().zip(more.iter()) {
                histogram.merge(more);
            }
        }
    }
}

/// What waits at one server at the moment of asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerQueues {
    /// Requests not yet written.
    pub in_queue: u64,
    /// Their bytes.
    pub in_queue_bytes: u64,
    /// Requests written and not yet answered.
    pub out_queue: u64,
    /// Their bytes.
    pub out_queue_bytes: u64,
}

impl ServerQueues {
    /// Adds another worker's.
    pub const fn merge(&mut self, other: Self) {
        self.in_queue += other.in_queue;
        self.in_queue_bytes += other.in_queue_bytes;
        self.out_queue += other.out_queue;
        self.out_queue_bytes += other.out_queue_bytes;
    }
}

/// What is counted beside the plain numbers, and from when on something is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiguresPlan {
    /// Latencies, slow requests and examples are kept at all.
    pub is_on: bool,
    /// A request that takes longer is kept in the slow log; `None` keeps none.
    pub slow_after: Option<std::time::Duration>,
    /// The keys most asked for and the largest values are watched from the start.
    pub is_watching_keys: bool,
}

impl Default for FiguresPlan {
    fn default() -> Self {
        Self {
            is_on: true,
            slow_after: Some(crate::limits::SLOW_AFTER_DEFAULT),
            is_watching_keys: false,
        }
    }
}

/// A name that figures of several workers are matched by.
pub type Name = Arc<str>;
