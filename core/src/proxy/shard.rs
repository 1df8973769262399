//! Servers that are shards: who their master is, by the Sentinels' word, and whether requests may
//! go there.
//!
//! A shard keeps its name and its place in the ring; news change its address and its gate. What the
//! gate does to requests is in `hold.rs`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::failover::{Failover, Fence};
use crate::id::{ConnId, PoolId, ServerId};
use crate::io::{
    Endpoint, Event, Evidence, Failure, HoldCause, HoldTally, Notice, Output, Recipient,
    ShardCondition, ShardNews, Sighting,
};
use crate::limits::{SERVER_OUTPUT_BYTES_MAX, SHARDS_MAX, SIGHTING_PAUSE};
use crate::proxy::Proxy;
use crate::proxy::plan::{Address, PoolPlan, ServerPlan};
use crate::proxy::request::mark_dirty_server;
use crate::proxy::server::{Belief, Server, Stage};
use crate::proxy::shared::{Shared, Timer, key_of};
use crate::slab::SlabKey;
use crate::time::Instant;

/// Which requests may go to a shard's master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// All.
    Open,
    /// Reads; writes are refused.
    ReadsOnly,
    /// None: they wait.
    Shut,
}

/// A time in which requests for a shard wait.
#[derive(Debug)]
pub(crate) struct Episode {
    since: Instant,
    pub(crate) tally: HoldTally,
}

/// What is known of a shard's master.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) shard: Arc<str>,
    /// The master, by the highest epoch that was told.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) condition: Option<ShardCondition>,
    /// When that it serves is over, unless it is said again.
    valid_until: Option<Instant>,
    /// Whether a timer is armed for that.
    is_lease_timed: bool,
    pub(crate) gate: Gate,
    pub(crate) episode: Option<Episode>,
    sighted: Option<(Evidence, Instant)>,
}

impl Following {
    /// Tells whether news say nothing new but how long it goes on like this.
    fn is_told_longer(&self, now: Instant, news: &ShardNews) -> bool {
        news.valid_until.is_some_and(|until| until > now)
            && self.condition == Some(news.condition)
            && self.address == Some(news.address)
    }
}

/// Returns how a master is by our own clock: news may have lain about while the process stood
/// still.
fn condition_at(now: Instant, news: &ShardNews) -> ShardCondition {
    let is_over = news.valid_until.is_some_and(|until| until <= now);
    if is_over && news.condition == ShardCondition::Serving {
        return ShardCondition::Fenced;
    }
    news.condition
}

/// The newest news of each shard, also of those that no pool has now.
#[derive(Debug, Default)]
pub(crate) struct Shards(BTreeMap<Arc<str>, ShardNews>);

impl Shards {
    /// Takes news in. Returns whether they are new: of a higher epoch, or about the same master.
    fn learn(&mut self, news: &ShardNews) -> bool {
        match self.0.get(&news.shard) {
            Some(known) if news.epoch < known.epoch => return false,
            // One epoch has one master: whoever says otherwise is not believed.
            Some(known) if news.epoch == known.epoch && news.address != known.address => {
                return false;
            }
            Some(_) => {}
            None if self.0.len() >= SHARDS_MAX => return false,
            None => {}
        }
        self.0.insert(Arc::clone(&news.shard), news.clone());
        true
    }

    /// Returns where the master of `server` is by the newest news.
    pub(crate) fn address_of(&self, server: &ServerPlan) -> Option<SocketAddr> {
        Some(self.0.get(server.shard.as_ref()?)?.address)
    }
}

fn gate_of(failover: &Failover, condition: Option<ShardCondition>) -> Gate {
    match (condition, failover.fence) {
        (None, Fence::Strict) => Gate::Shut,
        (None | Some(ShardCondition::Serving), _) => Gate::Open,
        (Some(ShardCondition::Suspected | ShardCondition::Moving), _) => {
            // Nobody has a lease then, so a strict fence lets nothing through even if nothing waits.
            let is_shut = failover.hold.is_some() || failover.fence == Fence::Strict;
            if is_shut { Gate::Shut } else { Gate::Open }
        }
        (Some(ShardCondition::Fenced), Fence::Off) => Gate::Open,
        (Some(ShardCondition::Fenced), Fence::BestEffort) => Gate::ReadsOnly,
        (Some(ShardCondition::Fenced), Fence::Strict) => Gate::Shut,
    }
}

impl Server {
    /// Does what a plan says about following: of a shard that has the same name as before, what is
    /// known stays.
    pub(crate) fn follow(&mut self, pool: &PoolPlan, server: &ServerPlan) {
        self.lanes.resize(pool.lanes() as usize, None);
        let known = self.following.take();
        let shard = server.shard.as_ref().filter(|_| !pool.is_memcache);
        self.following = shard.map(|shard| match known {
            Some(known) if known.shard == *shard => known,
            Some(_) | None => Box::new(Following {
                shard: Arc::clone(shard),
                address: None,
                condition: None,
                valid_until: None,
                is_lease_timed: false,
                gate: Gate::Open,
                episode: None,
                sighted: None,
            }),
        });
        let gate = self.following.as_mut().map_or(Gate::Open, |following| {
            following.gate = gate_of(&pool.failover, following.condition);
            following.gate
        });
        self.is_gated = gate != Gate::Open || pool.waits_for_replicas();
    }

    /// Returns whether requests may go to its master.
    pub(crate) fn gate(&self) -> Gate {
        self.following.as_ref().map_or(Gate::Open, |following| following.gate)
    }

    /// Returns where it is: by the Sentinels' word, else by the plan.
    pub(crate) fn address(&self, plan: &ServerPlan) -> Address {
        let told = self.following.as_ref().and_then(|following| following.address);
        told.map_or_else(|| plan.address.clone(), |address| Address::Fixed(Endpoint::Tcp(address)))
    }

    /// Returns all its connections, those at their end first: what they carry is older.
    fn conns(&self) -> Vec<ConnId> {
        let lanes = self.lanes.iter().flatten();
        self.retiring.iter().chain(lanes).copied().collect()
    }

    /// Tells whether a new connection has to wait before it is made.
    pub(crate) fn must_wait(&self, now: Instant) -> bool {
        self.following.is_some()
            && (self.gate() == Gate::Shut || (self.last_failure.is_some() && now < self.retry_at))
    }
}

impl Proxy {
    /// Takes news of a shard's master.
    pub(crate) fn shard_news(&mut self, news: &ShardNews) {
        if !self.shared.shards.learn(news) {
            return;
        }
        let now = self.shared.now;
        for (pool, server) in self.shared.followers(&news.shard) {
            match self.shared.following_mut(pool, server) {
                Some(following) if following.is_told_longer(now, news) => {
                    following.valid_until = news.valid_until;
                    self.shared.time_lease(pool, server);
                }
                Some(_) | None => self.take_news(pool, server, news),
            }
        }
    }

    /// Applies what was told before to the servers of a new plan.
    pub(crate) fn follow_again(&mut self) {
        let known: Vec<ShardNews> = self.shared.shards.0.values().cloned().collect();
        for news in known {
            for (pool, server) in self.shared.followers(&news.shard) {
                self.take_news(pool, server, &news);
            }
        }
    }

    fn take_news(&mut self, pool: PoolId, id: ServerId, news: &ShardNews) {
        let (plan, now) = (Arc::clone(&self.shared.plan), self.shared.now);
        let Some(pool_plan) = plan.pools.get(usize::from(pool.0)) else { return };
        let Some(server_plan) = pool_plan.servers.get(usize::from(id.0)) else { return };
        let Some(server) = self.shared.server_mut(pool, id) else { return };
        let before = server.address(server_plan);
        let Some(following) = &mut server.following else { return };
        let was = following.condition.replace(condition_at(now, news));
        following.valid_until = news.valid_until;
        following.address = Some(news.address);
        server.follow(pool_plan, server_plan);
        let conns = server.conns();
        let is_elsewhere = |conn: &ConnId| {
            let conn = self.shared.conns.get(key_of(*conn));
            conn.is_some_and(|conn| match conn.stage {
                Stage::Waiting | Stage::Closing => false,
                Stage::Resolving(_) => true,
                Stage::Connecting | Stage::Greeting { .. } | Stage::Ready => {
                    conn.address != Some(news.address)
                }
            })
        };
        let elsewhere: Vec<ConnId> = conns.into_iter().filter(is_elsewhere).collect();
        let moves = match before {
            Address::Fixed(endpoint) => endpoint != Endpoint::Tcp(news.address),
            // A name leads wherever its connections are.
            Address::Named { .. } => !elsewhere.is_empty(),
        };
        if moves {
            if let Some(server) = self.shared.server_mut(pool, id) {
                server.forgive();
            }
            if let Some((at_work, _)) = self.shared.pool_mut(pool) {
                at_work.stats.switches += 1;
            }
            let (epoch, address) = (news.epoch, news.address);
            self.shared.outbox.event(Event::Switched { pool, server: id, epoch, address });
        }
        let is_planned = was == Some(ShardCondition::Moving);
        for conn in elsewhere {
            self.supersede(key_of(conn), is_planned);
        }
        self.shared.time_lease(pool, id);
        self.apply_gate(pool, id);
    }

    /// Shuts the gate of a shard whose lease is over by our own clock. Timers run before anything
    /// of the turn leaves, so a worker that stood still sends nothing that it should not.
    pub(crate) fn review_lease(&mut self, pool: PoolId, id: ServerId) {
        let (plan, now) = (Arc::clone(&self.shared.plan), self.shared.now);
        let Some(pool_plan) = plan.pools.get(usize::from(pool.0)) else { return };
        let Some(server_plan) = pool_plan.servers.get(usize::from(id.0)) else { return };
        let Some(server) = self.shared.server_mut(pool, id) else { return };
        let Some(following) = &mut server.following else { return };
        following.is_lease_timed = false;
        let Some(until) = following.valid_until else { return };
        if following.condition != Some(ShardCondition::Serving) {
            return;
        }
        if until > now {
            self.shared.time_lease(pool, id);
            return;
        }
        following.condition = Some(ShardCondition::Fenced);
        server.follow(pool_plan, server_plan);
        self.apply_gate(pool, id);
    }

    /// Lets the gate take effect on the connections that there are.
    fn apply_gate(&mut self, pool: PoolId, id: ServerId) {
        let now = self.shared.now;
        let Some(server) = self.shared.server_mut(pool, id) else { return };
        let (gate, conns) = (server.gate(), server.conns());
        let has_hold = self.shared.hold_of(pool).is_some();
        if gate == Gate::Shut && has_hold {
            let cause = self.shared.cause(pool, id);
            self.shared.begin_hold(pool, id, cause);
        }
        for conn in conns {
            let key = key_of(conn);
            let Some(conn) = self.shared.conns.get_mut(key) else { continue };
            if conn.belief != Belief::Full || conn.stage == Stage::Closing {
                continue;
            }
            match gate {
                Gate::Shut if !has_hold => self.refuse_unsent(key, false),
                Gate::Shut => {
                    conn.is_held = true;
                    conn.out_bytes_max = conn.out_bytes_max.min(conn.out.len());
                    self.shared.rearm_requests(key);
                }
                Gate::Open | Gate::ReadsOnly => {
                    if gate == Gate::ReadsOnly {
                        self.refuse_unsent(key, true);
                    }
                    let Some(conn) = self.shared.conns.get_mut(key) else { continue };
                    if conn.is_held && conn.stage == Stage::Ready {
                        conn.released_at = now;
                        conn.out_bytes_max = SERVER_OUTPUT_BYTES_MAX;
                        let waited = conn.queued as u64;
                        conn.is_held = false;
                        mark_dirty_server(&mut self.shared.outbox.dirty_servers, conn);
                        self.shared.note_released(pool, id, waited);
                        self.shared.rearm_requests(key);
                    }
                    if let Some(conn) = self.shared.conns.get_mut(key) {
                        conn.is_held = false;
                    }
                }
            }
            self.shared.wake_waiters(key);
        }
        self.shared.start_waiting(pool, id);
        self.shared.end_hold_if_over(pool, id);
    }
}

impl Shared {
    /// Returns the servers whose master is called `shard`.
    fn followers(&self, shard: &str) -> Vec<(PoolId, ServerId)> {
        let mut found = Vec::new();
        for (pool, plan) in (0..=u16::MAX).zip(&self.plan.pools) {
            for (server, plan) in (0..=u16::MAX).zip(&plan.servers) {
                if plan.shard.as_deref() == Some(shard) {
                    found.push((PoolId(pool), ServerId(server)));
                }
            }
        }
        found
    }

    /// Arms the timer for the end of a lease. One is enough: it looks how long the lease is then.
    fn time_lease(&mut self, pool: PoolId, id: ServerId) {
        let Some(following) = self.following_mut(pool, id) else { return };
        let Some(until) = following.valid_until.filter(|_| !following.is_lease_timed) else {
            return;
        };
        following.is_lease_timed = true;
        self.timers.arm(until, Timer::Lease(pool, id));
    }

    fn following_mut(&mut self, pool: PoolId, id: ServerId) -> Option<&mut Following> {
        self.server_mut(pool, id)?.following.as_deref_mut()
    }

    /// Returns what the tally of the time without a master goes to, if there is such a time.
    pub(crate) fn tally(&mut self, pool: PoolId, id: ServerId) -> Option<&mut HoldTally> {
        self.following_mut(pool, id)?.episode.as_mut().map(|episode| &mut episode.tally)
    }

    /// Says why requests for a shard wait.
    fn cause(&self, pool: PoolId, id: ServerId) -> HoldCause {
        let server = self.pool(pool).and_then(|(pool, _)| pool.servers.get(usize::from(id.0)));
        let Some(server) = server else { return HoldCause::Unknown };
        let following = server.following.as_ref();
        match following.map(|following| (following.gate, following.condition)) {
            Some((Gate::Shut, Some(condition))) => HoldCause::Told(condition),
            Some(_) | None => server.last_failure.map_or(HoldCause::Unknown, HoldCause::Lost),
        }
    }

    /// Notes that requests for a shard wait.
    pub(crate) fn begin_hold(&mut self, pool: PoolId, id: ServerId, why: HoldCause) {
        let since = self.now;
        let Some(following) = self.following_mut(pool, id) else { return };
        if following.episode.is_some() {
            return;
        }
        following.episode = Some(Episode { since, tally: HoldTally::default() });
        if let Some((at_work, _)) = self.pool_mut(pool) {
            at_work.stats.holds += 1;
        }
        self.outbox.event(Event::HoldBegan { pool, server: id, why });
    }

    /// As [`Shared::begin_hold`], for the reason that is known.
    pub(crate) fn begin_hold_for_cause(&mut self, pool: PoolId, id: ServerId) {
        let cause = self.cause(pool, id);
        self.begin_hold(pool, id, cause);
    }

    /// Notes that requests that had waited may go.
    pub(crate) fn note_released(&mut self, pool: PoolId, id: ServerId, waited: u64) {
        let Some(tally) = self.tally(pool, id) else { return };
        tally.held += waited;
        if let Some((at_work, _)) = self.pool_mut(pool) {
            at_work.stats.requests_held += waited;
        }
    }

    /// Ends the time of waiting when the gate is open and nothing waits behind it.
    pub(crate) fn end_hold_if_over(&mut self, pool: PoolId, id: ServerId) {
        let now = self.now;
        let Some(server) = self.server_mut(pool, id) else { return };
        let has_episode = server.following.as_ref().is_some_and(|of| of.episode.is_some());
        if !has_episode || server.gate() == Gate::Shut {
            return;
        }
        let conns = server.conns();
        let waits = |conn: &ConnId| {
            let conn = self.conns.get(key_of(*conn));
            conn.is_some_and(|conn| conn.is_waiting() && !conn.in_flight.is_empty())
        };
        if conns.iter().any(waits) {
            return;
        }
        let episode = self.following_mut(pool, id).and_then(|following| following.episode.take());
        let Some(Episode { since, mut tally }) = episode else { return };
        tally.time = now.since(since);
        self.outbox.event(Event::HoldEnded { pool, server: id, tally });
    }

    /// Connects what waits to be connected, as soon as it may.
    pub(crate) fn start_waiting(&mut self, pool: PoolId, id: ServerId) {
        let now = self.now;
        let Some(server) = self.server_mut(pool, id) else { return };
        if server.gate() == Gate::Shut {
            return;
        }
        let conns = server.conns();
        let is_waiting = |conn: &ConnId| {
            self.conns.get(key_of(*conn)).is_some_and(|conn| conn.stage == Stage::Waiting)
        };
        let waiting: Vec<SlabKey> =
            conns.iter().filter(|conn| is_waiting(conn)).map(|conn| key_of(*conn)).collect();
        if waiting.is_empty() {
            return;
        }
        let Some(server) = self.server_mut(pool, id) else { return };
        if server.must_wait(now) {
            self.want(pool, id);
            return;
        }
        for key in waiting {
            self.start(key);
        }
    }

    /// Arms the timer for the next attempt to connect.
    pub(crate) fn want(&mut self, pool: PoolId, id: ServerId) {
        let Some(server) = self.server_mut(pool, id) else { return };
        if server.is_wanted || server.last_failure.is_none() {
            return;
        }
        server.is_wanted = true;
        let at = server.retry_at;
        self.timers.arm(at, Timer::Reconnect(pool, id));
    }

    /// Returns the connections in a server's lanes.
    pub(crate) fn lanes_of(&self, pool: PoolId, id: ServerId) -> Vec<ConnId> {
        let server = self.pool(pool).and_then(|(pool, _)| pool.servers.get(usize::from(id.0)));
        server.map_or_else(Vec::new, |server| server.lanes.iter().flatten().copied().collect())
    }

    /// Tells the Sentinel that a connection to a master failed, if it says something about it.
    pub(crate) fn sight_loss(
        &mut self,
        pool: PoolId,
        id: ServerId,
        address: Option<SocketAddr>,
        failure: Failure,
    ) {
        let evidence = match failure {
            Failure::Refused => Evidence::Refused,
            Failure::Reset | Failure::ServerClosed => Evidence::Reset,
            Failure::TimedOut
            | Failure::Protocol
            | Failure::Unresolved
            | Failure::Unreachable
            | Failure::Greeting
            | Failure::OutOfResources
            | Failure::NoMaster
            | Failure::Fenced
            | Failure::Replaced
            | Failure::TooFewCopies => return,
        };
        if let Some(address) = address {
            self.sight(pool, id, address, evidence);
        }
    }

    /// Tells the Sentinel what was seen of a shard's master.
    pub(crate) fn sight(
        &mut self,
        pool: PoolId,
        id: ServerId,
        address: SocketAddr,
        evidence: Evidence,
    ) {
        let now = self.now;
        let Some(following) = self.following_mut(pool, id) else { return };
        let is_old = following.address.is_some_and(|known| known != address);
        let is_said = following
            .sighted
            .is_some_and(|(said, at)| said == evidence && now < at + SIGHTING_PAUSE);
        if is_old || is_said {
            return;
        }
        following.sighted = Some((evidence, now));
        let shard = Arc::clone(&following.shard);
        let notice = Notice::Sighting(Sighting { shard, address, evidence });
        self.outbox.push(Output::Notice { to: Recipient::Control, notice });
    }
}
