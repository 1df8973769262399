//! One server: its connections, its health, and the queue of replies that each connection owes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::buf::Buffer;
use crate::id::{ConnId, PoolId, QueryId, ServerId};
use crate::io::Failure;
use crate::limits::{
    RECONNECT_DELAY_MAX, RECONNECT_DELAY_MIN, SERVER_OUTPUT_BYTES_MAX, SERVER_REPLIES_MAX,
};
use crate::proxy::figures::Tag;
use crate::proxy::plan::{PoolPlan, ServerPlan};
use crate::proxy::replicate::Group;
use crate::proxy::replies::Sequence;
use crate::proxy::resend::SentLog;
use crate::proxy::shard::Following;
use crate::rng::Rng;
use crate::slab::SlabKey;
use crate::stats::KeyHead;
use crate::time::Instant;
use crate::wire::memcache;
use crate::wire::resp::reply::ReplyScanner;

/// Who gets a server's reply.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReplyTo {
    /// A client, as the reply to one of its requests.
    Client { conn: ConnId, sequence: Sequence },
    /// A split request, as the reply of its part.
    Split { split: SlabKey, part: u16 },
    /// Nobody any more: the request timed out, and the reply is dropped when it comes.
    Nobody,
    /// A client that said `noreply`: it is told nothing, whatever the reply is.
    Silent { conn: ConnId },
    /// A client of memcached's `ms`: a server that does not know the command takes the value for
    /// commands.
    Store { conn: ConnId, sequence: Sequence },
    /// A client of a quiet meta command: there may be no reply, which the next entry shows.
    Quiet { conn: ConnId, sequence: Sequence },
    /// As `Quiet`, for nobody any more.
    QuietNobody,
    /// Nobody: the reply to the `mn` behind a quiet command.
    Barrier,
    /// The writes before it, whose replies wait for this one: how many replicas have them.
    Copies,
}

impl ReplyTo {
    /// Returns what becomes of the entry when its request has timed out.
    pub(crate) const fn orphaned(self) -> Self {
        match self {
            Self::Client { .. }
            | Self::Split { .. }
            | Self::Nobody
            | Self::Silent { .. }
            | Self::Store { .. } => Self::Nobody,
            Self::Quiet { .. } | Self::QuietNobody => Self::QuietNobody,
            Self::Barrier => Self::Barrier,
            Self::Copies => Self::Copies,
        }
    }
}

impl ReplyTo {
    /// Tells whether it stands for a request that somebody waits for, or sent without wanting a
    /// reply; not one that has been given up, nor what was added by us.
    #[inline]
    pub(crate) const fn is_wanted(self) -> bool {
        !matches!(self, Self::Nobody | Self::QuietNobody | Self::Barrier | Self::Copies)
    }
}

/// A request that a server has been sent, or will be with the next write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    pub(crate) to: ReplyTo,
    /// When the request was queued: the start of its time-out.
    pub(crate) queued_at: Instant,
    /// The request's length, for the statistics.
    pub(crate) bytes: u32,
    pub(crate) tag: Tag,
    /// The beginning of its first argument, so that it can be named if it turns out to be slow.
    pub(crate) key: KeyHead,
}

// One cache line: it is written and read once per request.
const _: () = assert!(size_of::<InFlight>() <= 64);

/// How far a connection to a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The host name is being looked up.
    Resolving(QueryId),
    /// The socket is being connected.
    Connecting,
    /// Nothing is under way: requests wait for the moment or the news that let it be connected.
    Waiting,
    /// `AUTH` and `SELECT` are under way: this many replies are due before the first request, that
    /// to `AUTH` first.
    Greeting { replies_due: u8, is_auth_due: bool },
    /// Requests are sent.
    Ready,
    /// `Close` was said; `Closed` is awaited.
    Closing,
}

/// One connection to a server.
#[derive(Debug)]
pub(crate) struct ServerConn {
    pub(crate) id: ConnId,
    pub(crate) pool: PoolId,
    pub(crate) server: ServerId,
    /// Its place among the server's connections.
    pub(crate) lane: usize,
    pub(crate) stage: Stage,
    /// No longer chosen for requests: it has been silent for a whole time-out. It lives until
    /// each of its requests is answered or timed out.
    pub(crate) is_retiring: bool,
    /// Retiring because the plan has changed, for no fault of its server: it goes on to be
    /// established if it is not.
    pub(crate) is_relieved: bool,
    /// Speaks RESP3.
    pub(crate) is_resp3: bool,
    /// Made to see whether an ejected server is back.
    pub(crate) is_probe: bool,
    pub(crate) is_writing: bool,
    pub(crate) is_dirty: bool,
    pub(crate) is_timer_armed: bool,
    /// Addresses that are left to try.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Requests waiting for the next write.
    pub(crate) out: Buffer,
    /// How many of `in_flight`, from the back, are still in `out`.
    pub(crate) queued: usize,
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) in_flight_bytes: u64,
    /// How many of `in_flight`, from the front, have timed out.
    pub(crate) timed_out: usize,
    pub(crate) scanner: ReplyScanner,
    /// Follows the replies instead of `scanner` when the server is a memcached.
    pub(crate) memcache: memcache::ReplyScanner,
    pub(crate) is_memcache: bool,
    /// The beginning of a reply whose end has not come.
    pub(crate) partial: Buffer,
    /// The current reply leaves in pieces; `partial` stays empty.
    pub(crate) is_streaming: bool,
    /// Bytes of the current reply that have gone ahead.
    pub(crate) streamed_bytes: usize,
    pub(crate) received_at: Instant,
    /// Clients that wait for room in this connection's queue.
    pub(crate) waiters: Vec<ConnId>,
    /// Followed or replicated: writes and replies need a closer look.
    pub(crate) is_watched: bool,
    /// Its server is a shard whose master the Sentinels name, and requests may wait for it.
    pub(crate) is_followed: bool,
    /// Nothing is written: the shard has no master, or the connection is at its end.
    pub(crate) is_held: bool,
    /// Carries writes whose replies wait for replicas.
    pub(crate) is_replicated: bool,
    /// Replies need a closer look.
    pub(crate) belief: Belief,
    /// Where it leads; of followed servers.
    pub(crate) address: Option<SocketAddr>,
    /// Bytes of `out` from which on no request is added without a closer look.
    pub(crate) out_bytes_max: usize,
    /// Requests under way, in case that they have to be sent again; of followed servers.
    pub(crate) sent: SentLog,
    /// Most bytes of them.
    pub(crate) sent_bytes_max: usize,
    /// When requests that had waited could go at last.
    pub(crate) released_at: Instant,
    /// The writes that wait for their replicas.
    pub(crate) group: Group,
}

/// How much the replies of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Belief {
    /// They are passed on.
    Full,
    /// The shard has another master: that a write was refused is believed, that it was taken is
    /// not.
    Replaced,
    /// The server said that it is a replica: what it says to reads is not passed on either.
    Replica,
}

impl ServerConn {
    pub(crate) fn new(
        id: ConnId,
        pool: PoolId,
        server: ServerId,
        lane: usize,
        now: Instant,
    ) -> Self {
        Self {
            id,
            pool,
            server,
            lane,
            stage: Stage::Connecting,
            is_retiring: false,
            is_relieved: false,
            is_resp3: false,
            is_probe: false,
            is_writing: false,
            is_dirty: false,
            is_timer_armed: false,
            addresses: Vec::new(),
            out: Buffer::new(),
            queued: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            timed_out: 0,
            scanner: ReplyScanner::default(),
            memcache: memcache::ReplyScanner::default(),
            is_memcache: false,
            partial: Buffer::new(),
            is_streaming: false,
            streamed_bytes: 0,
            received_at: now,
            waiters: Vec::new(),
            is_watched: false,
            is_followed: false,
            is_held: false,
            is_replicated: false,
            belief: Belief::Full,
            address: None,
            out_bytes_max: SERVER_OUTPUT_BYTES_MAX,
            sent: SentLog::default(),
            sent_bytes_max: 0,
            released_at: Instant::START,
            group: Group::default(),
        }
    }

    /// Tells whether another address is worth trying. A connection that retires because it was
    /// silent has a successor: its requests fail instead.
    pub(crate) const fn may_move_on(&self) -> bool {
        !self.addresses.is_empty() && (!self.is_retiring || self.is_relieved)
    }

    /// Tells whether another request may be queued; if not, clients wait.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight.len() < SERVER_REPLIES_MAX && self.out.len() < self.out_bytes_max
    }

    /// Tells whether clients that wait are worth waking: one place at a time would wake all of
    /// them for each reply.
    pub(crate) fn has_room_again(&self) -> bool {
        self.in_flight.len() <= SERVER_REPLIES_MAX / 2 && self.has_room()
    }

    /// Tells whether the server owes a reply to a request that it was sent.
    #[inline]
    pub(crate) fn is_asked(&self) -> bool {
        self.queued < self.in_flight.len()
    }

    /// Forgets the oldest `count` requests that have not been sent.
    pub(crate) fn drop_unsent(&mut self, count: usize) {
        let count = count.min(self.queued);
        let start = self.in_flight.len() - self.queued;
        let bytes: u64 =
            self.in_flight.drain(start..start + count).map(|one| u64::from(one.bytes)).sum();
        self.queued -= count;
        self.in_flight_bytes -= bytes;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.out.drain(..bytes.min(self.out.len()));
    }

    /// Returns how many bytes of the current reply are still to come at least.
    pub(crate) fn announced_bytes_left(&self) -> u64 {
        if self.is_memcache {
            self.memcache.announced_bytes_left()
        } else {
            self.scanner.announced_bytes_left()
        }
    }

    /// Tells whether requests wait for a master.
    pub(crate) fn is_waiting(&self) -> bool {
        self.is_held || (self.is_followed && self.stage != Stage::Ready)
    }

    /// Tells whether requests may leave now.
    pub(crate) fn can_write(&self) -> bool {
        self.stage == Stage::Ready
            && !self.is_writing
            && !self.is_held
            && !self.group.is_pending
            && !self.out.is_empty()
    }

    /// Returns since when the request at `at` of the queue waits for a sign of its server: the
    /// reply that has begun to leave for its client waits since its last bytes came.
    pub(crate) fn waiting_since(&self, at: usize) -> Option<Instant> {
        let queued_at = self.in_flight.get(at)?.queued_at.max(self.released_at);
        let is_streaming = at == 0 && self.is_streaming;
        Some(if is_streaming { self.received_at.max(queued_at) } else { queued_at })
    }

    /// Takes out the request whose reply is complete.
    #[inline]
    pub(crate) fn pop_in_flight(&mut self) -> Option<InFlight> {
        let request = self.in_flight.pop_front()?;
        self.in_flight_bytes -= u64::from(request.bytes);
        self.timed_out = self.timed_out.saturating_sub(1);
        if self.is_followed {
            self.sent.pop(request.bytes as usize);
        }
        Some(request)
    }
}

/// Whether a server is in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// In the ring.
    Serving,
    /// Out of the ring until it answers a probe.
    Ejected,
}

/// One server of a pool.
#[derive(Debug)]
pub(crate) struct Server {
    /// The connections by lane; `None` where none is open. The first half speaks RESP2, the
    /// second RESP3.
    pub(crate) lanes: Vec<Option<ConnId>>,
    /// Connections that are retiring.
    pub(crate) retiring: Vec<ConnId>,
    pub(crate) standing: Standing,
    /// Failures since the last reply.
    pub(crate) failures: u32,
    /// Why the last attempt failed, told to requests that come before the next.
    pub(crate) last_failure: Option<Failure>,
    /// No attempt before this moment.
    pub(crate) retry_at: Instant,
    /// A request has failed since the last attempt: the next one need not wait for another.
    pub(crate) is_wanted: bool,
    /// Requests need a closer look before they get a connection.
    pub(crate) is_gated: bool,
    /// Connections for each protocol.
    pub(crate) connections: u32,
    /// What is known of its master, if the Sentinels name it.
    pub(crate) following: Option<Box<Following>>,
    retry_delay: Duration,
}

impl Server {
    pub(crate) fn new(connections: u32) -> Self {
        Self {
            lanes: vec![None; connections as usize * 2],
            is_gated: false,
            connections,
            following: None,
            retiring: Vec::new(),
            standing: Standing::Serving,
            failures: 0,
            last_failure: None,
            retry_at: Instant::START,
            is_wanted: false,
            retry_delay: Duration::ZERO,
        }
    }

    /// Picks the lane for a client. A client always gets the same one for its protocol, so that
    /// its requests to this server take effect in the order in which it sent them.
    #[inline]
    pub(crate) fn lane_of(&self, client: ConnId, is_resp3: bool) -> usize {
        let connections = self.connections as usize;
        let lane = if connections == 1 { 0 } else { client.index() as usize % connections.max(1) };
        if is_resp3 { connections + lane } else { lane }
    }

    /// Returns the lane for a connection that only looks whether the server can be reached, and
    /// whether it must answer first; none if there is nothing to learn, or not yet.
    pub(crate) fn lane_to_look_after(&self, now: Instant) -> Option<(usize, bool)> {
        let is_failing = self.last_failure.is_some();
        // One that is ejected is probed anyway, and the Sentinels tell when a shard's master is there.
        let is_due = self.standing == Standing::Serving
            && !self.must_wait(now)
            && (now >= self.retry_at || !is_failing);
        if !is_due || (!is_failing && self.lanes.iter().any(Option::is_some)) {
            return None;
        }
        // The second half speaks RESP3; few pools ever need it.
        let mut lanes = self.lanes.iter().take(self.connections as usize);
        Some((lanes.position(Option::is_none)?, is_failing))
    }

    /// Tells whether the connection in `lane` speaks RESP3.
    pub(crate) fn is_resp3(&self, lane: usize) -> bool {
        (lane / (self.connections as usize).max(1)) % 2 == 1
    }

    /// Makes a server of this pool at work.
    pub(crate) fn of(pool: &PoolPlan, server: &ServerPlan) -> Self {
        let mut at_work = Self::new(pool.server_connections);
        at_work.follow(pool, server);
        at_work
    }

    /// Tells whether the connection in `lane` carries writes whose replies wait for replicas.
    pub(crate) fn is_replicated(&self, lane: usize) -> bool {
        lane >= self.connections as usize * 2
    }

    /// Makes room for new connections; the old ones are to retire.
    /// With `forgets`, what is known of the server's health is forgotten, for it is about another
    /// address.
    pub(crate) fn disconnect(&mut self, connections: u32, forgets: bool) {
        let fresh = Self::new(connections);
        if forgets {
            let (retiring, following) = (std::mem::take(&mut self.retiring), self.following.take());
            *self = Self { retiring, following, ..fresh };
        } else {
            (self.lanes, self.connections) = (fresh.lanes, connections);
        }
    }

    /// Forgets the failures of another address.
    pub(crate) fn forgive(&mut self) {
        self.failures = 0;
        self.is_wanted = false;
        self.connected();
    }

    /// Notes a failed attempt: the next one waits twice as long, with jitter so that many
    /// proxies do not knock in step.
    pub(crate) fn back_off(&mut self, now: Instant, failure: Failure, rng: &mut Rng) {
        self.last_failure = Some(failure);
        let doubled = self.retry_delay * 2;
        self.retry_delay = doubled.clamp(RECONNECT_DELAY_MIN, RECONNECT_DELAY_MAX);
        let nanos = u64::try_from(self.retry_delay.as_nanos()).unwrap_or(u64::MAX);
        let jittered = nanos / 2 + rng.below(nanos / 2 + 1);
        self.retry_at = now + Duration::from_nanos(jittered);
    }

    /// Notes that a connection is established.
    pub(crate) fn connected(&mut self) {
        self.last_failure = None;
        self.retry_delay = Duration::ZERO;
        self.retry_at = Instant::START;
    }
}
