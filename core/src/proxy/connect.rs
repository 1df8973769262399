//! The life of a connection to a server: opened on demand, greeted, lost, retired; and what its
//! failures mean for the server's place in the ring.

use std::net::SocketAddr;

use crate::id::{ConnId, PoolId, QueryId, ServerId};
use crate::io::Failure;
use crate::io::{CloseMode, Endpoint, Event, Output, ResolveError};
use crate::proxy::plan::Address;
use crate::proxy::request::mark_dirty_server;
use crate::proxy::server::{ServerConn, Stage, Standing};
use crate::proxy::shared::{Shared, Timer, key_of};
use crate::slab::SlabKey;
use crate::wire::resp::encode;

impl Shared {
    /// Opens a connection because a request wants it, unless the last attempt failed a moment
    /// ago.
    pub(crate) fn open_on_demand(
        &mut self,
        pool: PoolId,
        id: ServerId,
        lane: usize,
    ) -> Result<ConnId, Failure> {
        let now = self.now;
        let Some(server) = self.server_mut(pool, id) else { return Err(Failure::Refused) };
        let waits = server.following.is_some() && self.hold_of(pool).is_some();
        let Some(server) = self.server_mut(pool, id) else { return Err(Failure::Refused) };
        if let Some(failure) = server.last_failure
            && now < server.retry_at
            && !waits
        {
            if !server.is_wanted {
                server.is_wanted = true;
                let at = server.retry_at;
                self.timers.arm(at, Timer::Reconnect(pool, id));
            }
            return Err(failure);
        }
        self.open(pool, id, lane, false).ok_or(Failure::OutOfResources)
    }

    /// Starts a connection; requests may be queued on it at once.
    pub(crate) fn open(
        &mut self,
        pool: PoolId,
        id: ServerId,
        lane: usize,
        is_probe: bool,
    ) -> Option<ConnId> {
        let now = self.now;
        let is_memcache = self.pool(pool).is_some_and(|(_, plan)| plan.is_memcache);
        let server = self.server_mut(pool, id)?;
        let (is_resp3, is_replicated) = (server.is_resp3(lane), server.is_replicated(lane));
        let (is_shard, must_wait) = (server.following.is_some(), server.must_wait(now));
        let plan = self.plan.pools.get(usize::from(pool.0))?;
        let is_followed = is_shard && plan.failover.hold.is_some();
        let (sent_bytes_max, must_wait) = (plan.sent_bytes_max(), is_followed && must_wait);
        let key = self.conns.insert_with(|key| {
            let name = ConnId::server(key.index, key.generation);
            let mut conn = ServerConn::new(name, pool, id, lane, now);
            conn.is_probe = is_probe;
            conn.is_memcache = is_memcache;
            conn.is_resp3 = is_resp3;
            (conn.is_followed, conn.is_replicated) = (is_followed, is_replicated);
            (conn.is_watched, conn.sent_bytes_max) = (is_followed || is_replicated, sent_bytes_max);
            if must_wait {
                // Nothing is taken in before all that waits has been looked at.
                (conn.stage, conn.out_bytes_max) = (Stage::Waiting, 0);
            }
            conn
        })?;
        let name = ConnId::server(key.index, key.generation);
        if let Some(place) = self.server_mut(pool, id).and_then(|server| server.lanes.get_mut(lane))
        {
            *place = Some(name);
        }
        if must_wait {
            self.begin_hold_for_cause(pool, id);
            self.want(pool, id);
        } else {
            self.start(key);
        }
        Some(name)
    }

    /// Looks the address up, or connects.
    pub(crate) fn start(&mut self, key: SlabKey) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(plan) = self.plan.pools.get(usize::from(conn.pool.0)) else { return };
        let Some(server) = plan.servers.get(usize::from(conn.server.0)) else { return };
        let at_work = self.pools.get(usize::from(conn.pool.0));
        let at_work = at_work.and_then(|pool| pool.servers.get(usize::from(conn.server.0)));
        let address = at_work.map_or_else(|| server.address.clone(), |at| at.address(server));
        match address {
            Address::Fixed(endpoint) => {
                conn.stage = Stage::Connecting;
                if let Endpoint::Tcp(address) = endpoint {
                    conn.address = Some(address);
                }
                let (id, timeout) = (conn.id, plan.connect_timeout);
                self.outbox.push(Output::Connect { conn: id, endpoint, timeout, source: None });
            }
            Address::Named { host, port } => {
                self.queries = self.queries.wrapping_add(1);
                let query = QueryId(self.queries);
                conn.stage = Stage::Resolving(query);
                self.outbox.push(Output::Resolve { query, host, port });
            }
        }
    }

    /// Takes the resolver's answer. Returns the connection to fail when there is no address.
    pub(crate) fn resolved(
        &mut self,
        query: QueryId,
        result: Result<Vec<SocketAddr>, ResolveError>,
    ) -> Option<SlabKey> {
        let key = self
            .conns
            .iter()
            .find(|(_, conn)| conn.stage == Stage::Resolving(query))
            .map(|(key, _)| key)?;
        match result {
            Ok(mut addresses) if !addresses.is_empty() => {
                // The last is tried first: the resolver's order, reversed.
                addresses.reverse();
                let conn = self.conns.get_mut(key)?;
                conn.addresses = addresses;
                self.connect_next(key);
                None
            }
            Ok(_) | Err(_) => Some(key),
        }
    }

    /// Connects to the next address that is left. Returns false when there is none.
    fn connect_next(&mut self, key: SlabKey) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return false };
        let Some(address) = conn.addresses.pop() else { return false };
        conn.stage = Stage::Connecting;
        conn.address = Some(address);
        let (id, pool) = (conn.id, conn.pool);
        let Some(plan) = self.plan.pools.get(usize::from(pool.0)) else { return false };
        let endpoint = Endpoint::Tcp(address);
        let timeout = plan.connect_timeout;
        self.outbox.push(Output::Connect { conn: id, endpoint, timeout, source: None });
        true
    }

    /// Goes on with another address under another name, because a name ends with its `Closed`.
    /// Returns false when there is no other address.
    pub(crate) fn try_next_address(&mut self, conn: ServerConn) -> Option<ServerConn> {
        if !conn.may_move_on() {
            return Some(conn);
        }
        let old = conn.id;
        let mut carried = Some(conn);
        let key = self.conns.insert_with(|key| {
            let mut conn = match carried.take() {
                Some(conn) => conn,
                None => {
                    ServerConn::new(old, PoolId(0), ServerId(0), 0, crate::time::Instant::START)
                }
            };
            conn.id = ConnId::server(key.index, key.generation);
            conn.is_timer_armed = false;
            conn
        });
        let Some(key) = key else { return carried };
        let conn = self.conns.get(key)?;
        let (pool, id, lane, name) = (conn.pool, conn.server, conn.lane, conn.id);
        let is_retiring = conn.is_retiring;
        if let Some(server) = self.server_mut(pool, id) {
            if is_retiring {
                server.retiring.iter_mut().filter(|one| **one == old).for_each(|one| *one = name);
            } else if let Some(place) = server.lanes.get_mut(lane) {
                *place = Some(name);
            }
        }
        self.rearm_requests(key);
        self.connect_next(key);
        None
    }

    /// Arms the request timer for the oldest request that has not timed out.
    pub(crate) fn rearm_requests(&mut self, key: SlabKey) {
        let Some(conn) = self.conns.get(key) else { return };
        // By the same clock as the check itself: an alarm in the past would ring for ever.
        let (Some(since), Some(timeout)) =
            (conn.waiting_since(conn.timed_out), self.patience(conn))
        else {
            return;
        };
        let (at, id) = (since + timeout, conn.id);
        self.timers.arm(at, Timer::Requests(id));
        if let Some(conn) = self.conns.get_mut(key) {
            conn.is_timer_armed = true;
        }
    }

    /// Takes the news that a connection is established: introduces us, or lets requests go.
    pub(crate) fn connected(&mut self, key: SlabKey) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.stage != Stage::Connecting {
            return;
        }
        let (pool, server, id) = (conn.pool, conn.server, conn.id);
        let Some(plan) = self.plan.pools.get(usize::from(pool.0)) else { return };
        let is_resp3 = conn.is_resp3;
        let mut greeting = self.buffers.take();
        let mut replies_due = 0;
        if let Some(password) = &plan.auth {
            encode::request(&mut greeting, &[b"AUTH", password]);
            replies_due += 1;
        }
        let is_auth_due = replies_due > 0;
        if is_resp3 {
            encode::request(&mut greeting, &[b"HELLO", b"3"]);
            replies_due += 1;
        }
        if plan.database > 0 {
            let database = plan.database.to_string();
            encode::request(&mut greeting, &[b"SELECT", database.as_bytes()]);
            replies_due += 1;
        }
        if conn.is_probe {
            if conn.is_memcache {
                greeting.extend_from_slice(b"version\r\n");
            } else {
                encode::request(&mut greeting, &[b"PING"]);
            }
            replies_due += 1;
        }
        conn.received_at = self.now;
        if replies_due == 0 {
            self.buffers.give(greeting);
            self.let_requests_go(key);
        } else {
            conn.stage = Stage::Greeting { replies_due, is_auth_due };
            conn.is_writing = true;
            self.outbox.push(Output::Transmit { conn: id, buffer: greeting });
        }
        self.connections_made += 1;
        if let Some(stats) = self.stats_mut(pool, server) {
            stats.server_connections += 1;
        }
    }

    /// Takes a reply to the greeting. Returns false when the server refuses us.
    pub(crate) fn greeted(&mut self, key: SlabKey, reply: &[u8]) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return true };
        let Stage::Greeting { replies_due, is_auth_due } = conn.stage else { return true };
        let (pool, server) = (conn.pool, conn.server);
        // The only greeting of a memcached is the probe's `version`.
        let is_refusal = if conn.is_memcache {
            !reply.starts_with(b"VERSION")
        } else {
            reply.first() == Some(&b'-')
        };
        if is_refusal {
            let text = reply.strip_prefix(b"-").unwrap_or(reply);
            let text = String::from_utf8_lossy(text);
            let message = text.trim_end().to_owned();
            self.outbox.event(Event::GreetingRefused { pool, server, message });
            // A server without a password refuses AUTH and serves all the same; one with another
            // password tells each request so. A refused SELECT would write to another database.
            if !is_auth_due {
                return false;
            }
        }
        let Some(conn) = self.conns.get_mut(key) else { return true };
        if replies_due > 1 {
            conn.stage = Stage::Greeting { replies_due: replies_due - 1, is_auth_due: false };
        } else {
            self.let_requests_go(key);
        }
        true
    }

    /// Marks the connection usable, and its server back in the ring if it was being probed.
    fn let_requests_go(&mut self, key: SlabKey) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.stage = Stage::Ready;
        let (pool, id, was_probe) = (conn.pool, conn.server, conn.is_probe);
        conn.is_probe = false;
        let is_followed = conn.is_followed;
        let server = self.server_mut(pool, id);
        let was_failing = server.as_ref().is_some_and(|server| server.last_failure.is_some());
        if let Some(server) = server {
            server.connected();
        }
        if is_followed {
            self.ready_after_wait(key);
            self.start_waiting(pool, id);
        }
        if let Some(conn) = self.conns.get_mut(key) {
            mark_dirty_server(&mut self.outbox.dirty_servers, conn);
        }
        let Some(server) = self.server_mut(pool, id) else { return };
        let standing = server.standing;
        if was_probe && standing == Standing::Ejected {
            self.set_standing(pool, id, Standing::Serving);
            self.outbox.event(Event::Returned { pool, server: id });
        } else if was_failing {
            self.outbox.event(Event::ServerUp { pool, server: id });
        }
    }

    fn set_standing(&mut self, pool: PoolId, id: ServerId, standing: Standing) {
        let ejected_at = match standing {
            Standing::Serving => 0,
            Standing::Ejected => self.unix_micros(),
        };
        let Some((at_work, plan)) = self.pool_mut(pool) else { return };
        at_work.set_standing(plan, id, standing);
        if let Some(stats) = self.stats_mut(pool, id) {
            stats.server_ejected_at = ejected_at;
        }
    }

    /// Returns microseconds since 1970.
    pub(crate) fn unix_micros(&self) -> u64 {
        self.plan.started_unix_seconds * 1_000_000 + self.now.as_nanos() / 1_000
    }

    /// Forgets the connection as a way to its server; its slot lives on until `Closed`.
    pub(crate) fn detach(&mut self, pool: PoolId, id: ServerId, lane: usize, conn: ConnId) {
        let Some(server) = self.server_mut(pool, id) else { return };
        if let Some(place) = server.lanes.get_mut(lane)
            && *place == Some(conn)
        {
            *place = None;
        }
        server.retiring.retain(|other| *other != conn);
    }

    /// Counts a failure against a server, and ejects it at the limit.
    ///
    /// Deviates: twemproxy counts each closed connection, so that a restart of a server with
    /// several connections ejects it. Here one incident counts once: what fails after the first
    /// failure and before the next attempt is the same incident.
    pub(crate) fn server_failed(&mut self, pool: PoolId, id: ServerId, failure: Failure) {
        let (now, mut rng) = (self.now, self.rng.split());
        let Some(server) = self.server_mut(pool, id) else { return };
        if server.last_failure.is_some() && now < server.retry_at {
            return;
        }
        let is_news = server.last_failure.is_none();
        server.failures += 1;
        let failures = server.failures;
        let standing = server.standing;
        server.back_off(now, failure, &mut rng);
        if is_news {
            self.outbox.event(Event::ServerDown { pool, server: id, failure });
        }
        let Some((_, plan)) = self.pool(pool) else { return };
        // A shard stays where it is: its replicas have its data, the other shards don't.
        let is_shard =
            plan.servers.get(usize::from(id.0)).is_some_and(|server| server.shard.is_some());
        let (limit, is_ejecting, retry) =
            (plan.failure_limit, plan.is_ejecting && !is_shard, plan.retry_timeout);
        if is_ejecting && failures >= limit && standing == Standing::Serving {
            self.set_standing(pool, id, Standing::Ejected);
            if let Some((at_work, _)) = self.pool_mut(pool) {
                at_work.stats.server_ejects += 1;
            }
            self.timers.arm(now + retry, Timer::Probe(pool, id));
            self.outbox.event(Event::Ejected { pool, server: id, failures });
        }
    }

    /// Connects again to a server that requests have asked for meanwhile.
    pub(crate) fn reconnect(&mut self, pool: PoolId, id: ServerId) {
        let is_drained = self.is_drained(pool, id);
        let Some(server) = self.server_mut(pool, id) else { return };
        let is_out = is_drained || server.standing == Standing::Ejected;
        if !std::mem::take(&mut server.is_wanted) || is_out {
            return;
        }
        if server.following.is_some() && self.hold_of(pool).is_some() {
            return self.start_waiting(pool, id);
        }
        let Some(server) = self.server_mut(pool, id) else { return };
        if server.lanes.first().is_some_and(Option::is_none) {
            let _ = self.open(pool, id, 0, false);
        }
    }

    /// Connects to servers that have no connection, or failed the last time. One that is idle may
    /// close its connections without having failed, and one that failed is tried again only when
    /// a request wants it: without clients, neither would tell whether it can be reached.
    pub(crate) fn look_after_servers(&mut self) {
        if self.is_draining {
            return;
        }
        let now = self.now;
        let mut found = Vec::new();
        for ((at, pool), plan) in (0..).map(PoolId).zip(&self.pools).zip(&self.plan.pools) {
            if plan.is_drained || pool.is_removed {
                continue;
            }
            let servers = (0..).map(ServerId).zip(&pool.servers).zip(&plan.servers);
            found.extend(servers.filter_map(|((id, server), plan)| {
                if plan.is_drained {
                    return None;
                }
                server.lane_to_look_after(now).map(|(lane, is_probe)| (at, id, lane, is_probe))
            }));
        }
        for (pool, server, lane, is_probe) in found {
            let _ = self.open(pool, server, lane, is_probe);
        }
    }

    /// Sees whether an ejected server is back.
    pub(crate) fn probe(&mut self, pool: PoolId, id: ServerId) {
        let Some((at_work, plan)) = self.pool(pool) else { return };
        let (retry, connect_timeout) = (plan.retry_timeout, plan.connect_timeout);
        let Some(server) = at_work.servers.get(usize::from(id.0)) else { return };
        if server.standing != Standing::Ejected {
            return;
        }
        let now = self.now;
        if self.is_drained(pool, id) {
            self.timers.arm(now + retry.max(connect_timeout), Timer::Probe(pool, id));
            return;
        }
        let probing = server.lanes.first().copied().flatten();
        match probing.and_then(|conn| self.conns.get_mut(key_of(conn))) {
            // Its requests are older than the ejection, or the last probe hangs: start afresh.
            Some(conn) if conn.in_flight.is_empty() && conn.stage != Stage::Closing => {
                let (key, lane) = (key_of(conn.id), conn.lane);
                let name = conn.id;
                self.shut(key);
                self.detach(pool, id, lane, name);
                let _ = self.open(pool, id, 0, true);
            }
            Some(_) => {}
            None => {
                let _ = self.open(pool, id, 0, true);
            }
        }
        self.timers.arm(now + retry.max(connect_timeout), Timer::Probe(pool, id));
    }

    fn is_drained(&self, pool: PoolId, id: ServerId) -> bool {
        self.pool(pool)
            .and_then(|(_, plan)| plan.servers.get(usize::from(id.0)))
            .is_none_or(|server| server.is_drained)
    }

    /// Says `Close`; what the connection still owes must have been dealt with.
    pub(crate) fn shut(&mut self, key: SlabKey) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let id = conn.id;
        if matches!(conn.stage, Stage::Resolving(_) | Stage::Waiting) {
            // The runtime has never heard of it.
            self.conns.remove(key);
            return;
        }
        conn.stage = Stage::Closing;
        self.outbox.close(id, CloseMode::Abort);
    }

    /// Takes a silent connection out of use. Its requests keep their own time-outs.
    pub(crate) fn retire(&mut self, key: SlabKey) {
        let Some(conn) = self.conns.get(key) else { return };
        let (pool, server) = (conn.pool, conn.server);
        if !self.take_out_of_use(key) {
            return;
        }
        self.outbox.event(Event::ServerSilent { pool, server });
        self.server_failed(pool, server, Failure::TimedOut);
    }

    /// Lets the clients look again that wait for room in this connection's queue.
    pub(crate) fn wake_waiters(&mut self, key: SlabKey) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        self.outbox.woken.append(&mut conn.waiters);
    }
}
