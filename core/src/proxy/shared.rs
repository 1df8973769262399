//! What serving a request needs besides the client itself: routes, servers, buffers, the outbox.

use std::sync::Arc;
use std::time::Duration;

use crate::buf::BufferPool;
use crate::id::{ConnId, PoolId, ServerId, WorkerId};
use crate::io::{CloseMode, Event, Limit, Output};
use crate::limits::{SCRATCH_ITEMS_KEPT, SCRATCH_TEXT_KEPT, SERVER_CONNECTIONS_MAX, SPLITS_MAX};
use crate::proxy::asked::Asked;
use crate::proxy::client::{Client, Phase};
use crate::proxy::figures::Figures;
use crate::proxy::fragment::Split;
use crate::proxy::outbox::Outbox;
use crate::proxy::plan::{Plan, PoolPlan};
use crate::proxy::replies::Replies;
use crate::proxy::server::{Server, ServerConn, Standing};
use crate::proxy::shard::Shards;
use crate::rng::Rng;
use crate::routing::RouteTable;
use crate::slab::{Slab, SlabKey};
use crate::stats::{LimitKind, PoolStats, Query, ServerStats};
use crate::time::Instant;
use crate::timer::Timers;
use crate::wire::resp::request::{RequestLimits, Span};

/// A timer of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The oldest request of a server connection may have timed out.
    Requests(ConnId),
    /// A server may be connected to again.
    Reconnect(PoolId, ServerId),
    /// An ejected server is to be probed.
    Probe(PoolId, ServerId),
    /// Draining has lasted long enough.
    DrainLimit,
    /// Draining some pools may have lasted long enough.
    PoolDrainLimit,
    /// Answers to a client's question may have been waited for long enough.
    Answers(Query),
    /// Replies of a former master may have been waited for long enough.
    Grace(ConnId),
    /// What was told of a shard's master may be true no longer.
    Lease(PoolId, ServerId),
}

impl Timer {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Requests(_) => "request time-out",
            Self::Reconnect(..) => "reconnect",
            Self::Probe(..) => "probe of an ejected server",
            Self::DrainLimit => "drain limit",
            Self::PoolDrainLimit => "drain limit of a pool",
            Self::Answers(_) => "answers of other workers",
            Self::Grace(_) => "replies of a former master",
            Self::Lease(..) => "end of a lease",
        }
    }
}

/// A pool at work.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) table: RouteTable,
    /// Which servers are in the ring.
    pub(crate) live: Vec<bool>,
    pub(crate) servers: Vec<Server>,
    pub(crate) stats: PoolStats,
    pub(crate) limits: RequestLimits,
    /// The plan has it no more; it lives until its clients are gone.
    pub(crate) is_removed: bool,
    /// Takes no clients; those that are there by then are cut off.
    pub(crate) drains_until: Option<Instant>,
}

impl Pool {
    pub(crate) fn new(plan: &PoolPlan) -> Self {
        let live: Vec<bool> = plan.servers.iter().map(|server| !server.is_drained).collect();
        let stats = PoolStats::new(plan.servers.len());
        Self {
            table: RouteTable::build(&plan.route, &live, 1),
            live,
            servers: plan.servers.iter().map(|server| Server::of(plan, server)).collect(),
            stats,
            limits: Self::limits_of(plan),
            is_removed: false,
            // Drained from the start: there is nobody to wait for.
            drains_until: plan.is_drained.then_some(Instant::START),
        }
    }

    pub(crate) fn limits_of(plan: &PoolPlan) -> RequestLimits {
        RequestLimits {
            bytes_max: plan.request_bytes_max,
            bulk_bytes_max: plan.request_bytes_max,
            ..RequestLimits::AUTHENTICATED
        }
    }

    /// Tells which servers belong into the ring.
    pub(crate) fn live_servers(&self, plan: &PoolPlan) -> Vec<bool> {
        let servers = self.servers.iter().zip(&plan.servers);
        servers
            .map(|(server, plan)| server.standing == Standing::Serving && !plan.is_drained)
            .collect()
    }

    /// Puts a server into the ring or takes it out.
    pub(crate) fn set_standing(&mut self, plan: &PoolPlan, id: ServerId, standing: Standing) {
        let at = usize::from(id.0);
        let Some(server) = self.servers.get_mut(at) else { return };
        server.standing = standing;
        self.live = self.live_servers(plan);
        self.table = self.table.rebuild(&plan.route, &self.live, self.table.epoch() + 1);
    }
}

/// Bytes that all clients together hold.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) input: usize,
    pub(crate) output: usize,
}

/// Memory that is used again from request to request.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) args: Vec<Span>,
    pub(crate) keys: Vec<Span>,
    /// The server of each key, then the part of each key.
    pub(crate) targets: Vec<u16>,
    /// The part of each server, [`u16::MAX`] for none.
    pub(crate) part_of: Vec<u16>,
    pub(crate) text: Vec<u8>,
}

impl Scratch {
    /// Gives back what a request of unusual size needed.
    #[inline]
    pub(crate) fn shrink(&mut self) {
        if self.args.capacity() > SCRATCH_ITEMS_KEPT || self.text.capacity() > SCRATCH_TEXT_KEPT {
            *self = Self::default();
        }
    }
}

/// Tells the generator that picks examples from the worker's own.
const EXAMPLES_SEED: u64 = 0x5eed_0f5a_3b1e_5000;

/// All that clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Which worker this is.
    pub(crate) id: WorkerId,
    pub(crate) plan: Arc<Plan>,
    pub(crate) now: Instant,
    pub(crate) rng: Rng,
    pub(crate) pools: Vec<Pool>,
    pub(crate) conns: Slab<ServerConn>,
    pub(crate) splits: Slab<Split>,
    pub(crate) outbox: Outbox,
    pub(crate) buffers: BufferPool,
    pub(crate) scratch: Scratch,
    pub(crate) timers: Timers<Timer>,
    pub(crate) sums: Sums,
    pub(crate) queries: u32,
    pub(crate) connections_made: u64,
    pub(crate) is_draining: bool,
    pub(crate) figures: Figures,
    pub(crate) asked: Asked,
    pub(crate) shards: Shards,
}

impl Shared {
    pub(crate) fn new(plan: Arc<Plan>, seed: u64, now: Instant) -> Self {
        let pools = plan.pools.iter().map(Pool::new).collect();
        // Not split off: which requests become examples must not shift what else is drawn.
        let figures = Figures::new(&plan.figures, Rng::new(seed ^ EXAMPLES_SEED));
        Self {
            id: WorkerId(0),
            plan,
            now,
            rng: Rng::new(seed),
            pools,
            conns: Slab::new(SERVER_CONNECTIONS_MAX),
            splits: Slab::new(SPLITS_MAX),
            outbox: Outbox::default(),
            buffers: BufferPool::default(),
            scratch: Scratch::default(),
            timers: Timers::new(),
            sums: Sums::default(),
            queries: 0,
            connections_made: 0,
            is_draining: false,
            figures,
            asked: Asked::default(),
            shards: Shards::default(),
        }
    }

    pub(crate) fn pool(&self, id: PoolId) -> Option<(&Pool, &PoolPlan)> {
        let at = usize::from(id.0);
        Some((self.pools.get(at)?, self.plan.pools.get(at)?))
    }

    pub(crate) fn pool_mut(&mut self, id: PoolId) -> Option<(&mut Pool, &PoolPlan)> {
        let at = usize::from(id.0);
        Some((self.pools.get_mut(at)?, self.plan.pools.get(at)?))
    }

    pub(crate) fn server_mut(&mut self, pool: PoolId, id: ServerId) -> Option<&mut Server> {
        self.pools.get_mut(usize::from(pool.0))?.servers.get_mut(usize::from(id.0))
    }

    pub(crate) fn stats_mut(&mut self, pool: PoolId, id: ServerId) -> Option<&mut ServerStats> {
        self.pools.get_mut(usize::from(pool.0))?.stats.servers.get_mut(usize::from(id.0))
    }

    pub(crate) fn timeout_of(&self, pool: PoolId) -> Option<Duration> {
        self.plan.pools.get(usize::from(pool.0))?.timeout
    }

    /// Puts the client on the list of those with something to write.
    #[inline]
    pub(crate) fn mark_dirty(&mut self, client: &mut Client) {
        if !client.is_dirty && !client.is_writing && !client.out.is_empty() {
            client.is_dirty = true;
            self.outbox.dirty_clients.push(client.id);
        }
    }

    /// Puts the client on the list of those whose input should be looked at again.
    #[inline]
    pub(crate) fn mark_ready(&mut self, client: &mut Client) {
        if !client.is_ready {
            client.is_ready = true;
            self.outbox.ready.push(client.id);
        }
    }

    /// Brings the sums up to date with what the client holds.
    #[inline]
    pub(crate) fn count(&mut self, client: &mut Client) {
        let (input, output) = (client.input.len(), client.unsent_bytes());
        self.sums.input = (self.sums.input + input).saturating_sub(client.counted_input);
        self.sums.output = (self.sums.output + output).saturating_sub(client.counted_output);
        client.counted_input = input;
        client.counted_output = output;
    }
}

/// The table key of a connection's name.
#[inline]
pub(crate) const fn key_of(conn: ConnId) -> SlabKey {
    SlabKey { index: conn.index(), generation: conn.generation() }
}

impl Shared {
    /// Returns the bytes of unsent replies that end a client.
    #[inline]
    pub(crate) fn output_max(&self, client: &Client) -> usize {
        self.plan
            .pools
            .get(usize::from(client.pool.0))
            .map_or(usize::MAX, |pool| pool.client_output_bytes_max)
    }

    /// Does what follows from a reply to a client.
    #[inline]
    pub(crate) fn after_reply(&mut self, client: &mut Client) {
        client.is_blocked = false;
        self.mark_dirty(client);
        self.count(client);
        if client.needs_look() {
            self.mark_ready(client);
        }
    }

    /// Stops reading from a client.
    pub(crate) fn pause(&mut self, client: &mut Client) {
        if !client.is_paused && client.phase != Phase::Closing {
            client.is_paused = true;
            self.outbox.push(Output::PauseRead(client.id));
        }
    }

    /// Ends a client's connection at once. What servers still owe it is dropped as it comes.
    pub(crate) fn abort_client(&mut self, client: &mut Client) {
        if client.phase != Phase::Closing {
            client.phase = Phase::Closing;
            self.release(client);
            self.outbox.close(client.id, CloseMode::Abort);
        }
    }

    /// Ends a client's connection when everything owed has left.
    pub(crate) fn close_if_settled(&mut self, client: &mut Client) {
        let is_ending = client.phase == Phase::Finishing
            || (client.phase == Phase::Open && client.is_at_eof && !client.is_blocked);
        if is_ending && client.is_settled() {
            client.phase = Phase::Closing;
            self.release(client);
            self.outbox.close(client.id, CloseMode::Flush);
        }
    }

    /// Ends a client that went over a limit.
    pub(crate) fn cut_off(&mut self, client: &mut Client, limit: Limit) {
        self.outbox.event(Event::ClientOverLimit { pool: client.pool, limit });
        if let Some((pool, _)) = self.pool_mut(client.pool) {
            pool.stats.limits.add(LimitKind::from(limit) as u8);
        }
        self.abort_client(client);
    }

    /// Gives a client's memory back before its connection is gone.
    fn release(&mut self, client: &mut Client) {
        self.buffers.give(std::mem::take(&mut client.out));
        self.buffers.give(std::mem::take(&mut client.input));
        client.input_start = 0;
        client.kept_bytes = 0;
        client.replies = Replies::default();
        self.count(client);
    }
}
