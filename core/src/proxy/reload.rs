//! Another plan while requests are under way.
//!
//! What the old and the new plan have in common goes on as if nothing had happened: pools are
//! matched by name, their servers by name and then by address. A server connection that no longer
//! fits (its server is gone or elsewhere, the password or the database is another) takes no new
//! requests, waits for the replies that it owes, and closes. The clients of a pool that is gone
//! get what they asked for, and then they close.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::id::{PoolId, ServerId};
use crate::io::{Endpoint, Event, Parcel};
use crate::limits::SERVERS_PER_POOL_MAX;
use crate::proxy::Proxy;
use crate::proxy::client::Phase;
use crate::proxy::plan::{Address, Plan, PoolPlan};
use crate::proxy::server::{Server, Stage, Standing};
use crate::proxy::shard::Shards;
use crate::proxy::shared::{Pool, Timer, key_of};
use crate::slab::SlabKey;
use crate::stats::ServerStats;

/// The server of a connection whose server is in no plan any more.
const NO_SERVER: ServerId = ServerId(u16::MAX);

const _: () = assert!(SERVERS_PER_POOL_MAX <= NO_SERVER.0 as usize, "it names no server");

/// What becomes of a server of the old plan.
#[derive(Clone, Copy, Debug)]
enum ServerFate {
    /// It goes on at this place, its connections with it.
    Kept(ServerId),
    /// It goes on at this place by new connections.
    Reconnected(ServerId),
    /// The plan has it no more.
    Gone,
}

/// What becomes of a pool of the old plan.
#[derive(Debug)]
enum PoolFate {
    /// It goes on at this place.
    Kept { at: PoolId, servers: Vec<ServerFate> },
    /// The plan has it no more; it is at this place until its clients are gone.
    Leaving { at: PoolId },
    /// The plan has it no more, and nothing is left of it.
    Gone,
}

/// What becomes of everything that is named by its position in the old plan.
#[derive(Debug)]
struct Fates(Vec<PoolFate>);

impl Fates {
    fn pool(&self, old: PoolId) -> Option<PoolId> {
        match self.0.get(usize::from(old.0))? {
            PoolFate::Kept { at, .. } | PoolFate::Leaving { at } => Some(*at),
            PoolFate::Gone => None,
        }
    }

    fn server(&self, pool: PoolId, old: ServerId) -> Option<(PoolId, ServerFate)> {
        match self.0.get(usize::from(pool.0))? {
            PoolFate::Kept { at, servers } => {
                let fate = servers.get(usize::from(old.0)).copied();
                Some((*at, fate.unwrap_or(ServerFate::Gone)))
            }
            PoolFate::Leaving { at } => Some((*at, ServerFate::Kept(old))),
            PoolFate::Gone => None,
        }
    }

    fn timer(&self, timer: Timer) -> Option<Timer> {
        let moved = |pool, server| match self.server(pool, server)? {
            (pool, ServerFate::Kept(id) | ServerFate::Reconnected(id)) => Some((pool, id)),
            (_, ServerFate::Gone) => None,
        };
        match timer {
            Timer::Reconnect(pool, server) => {
                moved(pool, server).map(|(pool, server)| Timer::Reconnect(pool, server))
            }
            Timer::Probe(pool, server) => {
                moved(pool, server).map(|(pool, server)| Timer::Probe(pool, server))
            }
            Timer::Lease(pool, server) => {
                moved(pool, server).map(|(pool, server)| Timer::Lease(pool, server))
            }
            Timer::Requests(_)
            | Timer::DrainLimit
            | Timer::PoolDrainLimit
            | Timer::Answers(_)
            | Timer::Grace(_) => Some(timer),
        }
    }
}

impl Proxy {
    /// Goes on with another plan. Clients of pools that are removed or drained have `limit` to
    /// take what they are owed.
    pub(crate) fn reload(&mut self, plan: &Arc<Plan>, limit: Duration) {
        let (fates, fresh) = self.swap_pools(plan);
        self.clients.set_len_max(plan.clients_max.min(crate::id::ConnId::INDEX_MAX) as usize);
        self.shared.timers.rename(|timer| fates.timer(timer));
        self.move_conns(&fates);
        self.move_clients(&fates);
        self.rename_seen(|pool, server| match fates.server(pool, server)? {
            (pool, ServerFate::Kept(id) | ServerFate::Reconnected(id)) => Some((pool, id)),
            (_, ServerFate::Gone) => None,
        });
        // Before anything is opened or closed: whoever reads the events needs the names for them.
        self.shared.outbox.event(Event::Reloaded(Parcel::new(Arc::clone(&self.shared.plan))));
        self.follow_again();
        for (pool, server) in fresh {
            self.shared.preconnect(pool, server);
        }
        self.drain_pools(limit);
    }

    /// Puts the new plan's pools in place of the old ones. Returns what became of those, and the
    /// servers that have no connections yet.
    fn swap_pools(&mut self, plan: &Arc<Plan>) -> (Fates, Vec<(PoolId, ServerId)>) {
        let used = self.used_pools();
        let before = Arc::clone(&self.shared.plan);
        let old = std::mem::take(&mut self.shared.pools);
        let mut by_name = BTreeMap::new();
        for (from, (pool, plan)) in old.iter().zip(&before.pools).enumerate() {
            if !pool.is_removed {
                by_name.insert(plan.name.as_str(), from);
            }
        }
        let mut old: Vec<Option<Pool>> = old.into_iter().map(Some).collect();
        let mut fates: Vec<PoolFate> = old.iter().map(|_| PoolFate::Gone).collect();
        let mut pools = Vec::with_capacity(plan.pools.len());
        let mut fresh = Vec::new();
        for (at, pool_plan) in (0..=u16::MAX).map(PoolId).zip(&plan.pools) {
            let from = by_name.get(pool_plan.name.as_str()).copied();
            let known = from.and_then(|from| {
                let plan_before = before.pools.get(from)?;
                let pool = old.get_mut(from).filter(|_| plan_before.can_become(pool_plan))?;
                Some((from, plan_before, pool.take()?))
            });
            let Some((from, plan_before, mut pool)) = known else {
                fresh.extend(pool_plan.server_ids().map(|id| (at, id)));
                pools.push(Pool::new(pool_plan));
                continue;
            };
            let servers = pool.adapt(plan_before, pool_plan, &self.shared.shards);
            let kept: BTreeSet<u16> = servers.iter().filter_map(|fate| fate.kept()).collect();
            let is_fresh = |id: &ServerId| !kept.contains(&id.0);
            fresh.extend(pool_plan.server_ids().filter(is_fresh).map(|id| (at, id)));
            pools.push(pool);
            if let Some(fate) = fates.get_mut(from) {
                *fate = PoolFate::Kept { at, servers };
            }
        }
        let mut leaving = Vec::new();
        for (from, pool) in old.into_iter().enumerate() {
            let at = u16::try_from(pools.len()).map(PoolId);
            let (Some(mut pool), Some(plan), Ok(at)) = (pool, before.pools.get(from), at) else {
                continue;
            };
            if used.contains(&from)
                && let Some(fate) = fates.get_mut(from)
            {
                pool.is_removed = true;
                pools.push(pool);
                leaving.push(plan.clone());
                *fate = PoolFate::Leaving { at };
            }
        }
        self.shared.pools = pools;
        self.shared.plan = if leaving.is_empty() {
            Arc::clone(plan)
        } else {
            let mut plan = Plan::clone(plan);
            plan.pools.extend(leaving);
            Arc::new(plan)
        };
        (Fates(fates), fresh)
    }

    /// Returns the positions of pools that have clients or server connections.
    fn used_pools(&self) -> BTreeSet<usize> {
        let clients = self.clients.iter().map(|(_, client)| client.pool);
        let conns = self.shared.conns.iter().map(|(_, conn)| conn.pool);
        clients.chain(conns).map(|pool| usize::from(pool.0)).collect()
    }

    fn move_conns(&mut self, fates: &Fates) {
        let keys: Vec<SlabKey> = self.shared.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(conn) = self.shared.conns.get_mut(key) else { continue };
            let Some((pool, fate)) = fates.server(conn.pool, conn.server) else { continue };
            conn.pool = pool;
            match fate {
                ServerFate::Kept(server) => conn.server = server,
                ServerFate::Reconnected(server) => {
                    conn.server = server;
                    self.retire_quietly(key);
                }
                ServerFate::Gone => {
                    conn.server = NO_SERVER;
                    self.retire_quietly(key);
                }
            }
        }
    }

    /// Takes a connection out of use for no fault of its server, and closes it once it owes
    /// nothing.
    fn retire_quietly(&mut self, key: SlabKey) {
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        if conn.stage == Stage::Closing {
            return;
        }
        conn.is_probe = false;
        conn.is_relieved |= !conn.is_retiring;
        self.shared.take_out_of_use(key);
        self.close_if_spent(key);
    }

    fn move_clients(&mut self, fates: &Fates) {
        let keys: Vec<SlabKey> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(client) = self.clients.get_mut(key) else { continue };
            if let Some(pool) = fates.pool(client.pool) {
                client.pool = pool;
            }
        }
    }

    /// Lets the clients of pools that are removed or drained finish, and takes up again what is no
    /// longer drained.
    fn drain_pools(&mut self, limit: Duration) {
        let until = self.shared.now + limit;
        let plan = Arc::clone(&self.shared.plan);
        let mut draining = BTreeSet::new();
        for (at, (pool, plan)) in (0..).zip(self.shared.pools.iter_mut().zip(&plan.pools)) {
            if !plan.is_drained && !pool.is_removed {
                pool.drains_until = None;
                continue;
            }
            draining.insert(PoolId(at));
            if pool.drains_until.is_none() {
                pool.drains_until = Some(until);
                self.shared.timers.arm(until, Timer::PoolDrainLimit);
            }
        }
        if draining.is_empty() {
            return;
        }
        let keys: Vec<SlabKey> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(client) = self.clients.get(key) else { continue };
            if draining.contains(&client.pool) {
                self.let_finish(key);
            }
        }
        for pool in draining {
            self.rest_if_drained(pool);
        }
    }

    /// Treats a client as if it had said that it sends nothing more: what was read is served.
    pub(crate) fn let_finish(&mut self, key: SlabKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.phase == Phase::Closing {
            return;
        }
        client.is_at_eof = true;
        self.shared.pause(client);
        self.shared.mark_ready(client);
    }

    /// Closes the server connections of a drained pool whose last client is gone.
    pub(crate) fn rest_if_drained(&mut self, id: PoolId) {
        let Some(pool) = self.shared.pools.get(usize::from(id.0)) else { return };
        if pool.drains_until.is_none() || pool.stats.client_connections > 0 {
            return;
        }
        let conns = self.shared.conns.iter().filter(|(_, conn)| conn.pool == id);
        let keys: Vec<SlabKey> = conns.map(|(key, _)| key).collect();
        for key in keys {
            self.retire_quietly(key);
        }
    }

    /// Ends the clients of drained pools that have had their time.
    pub(crate) fn end_pool_drains(&mut self) {
        let keys: Vec<SlabKey> = self.clients.iter().map(|(key, _)| key).collect();
        let now = self.shared.now;
        for key in keys {
            let Some(client) = self.clients.get_mut(key) else { continue };
            let pool = self.shared.pools.get(usize::from(client.pool.0));
            let is_over = pool.and_then(|pool| pool.drains_until).is_some_and(|at| at <= now);
            if is_over {
                self.shared.abort_client(client);
            }
        }
    }
}

impl ServerFate {
    /// Returns the place of a server that has its connections.
    const fn kept(&self) -> Option<u16> {
        match self {
            Self::Kept(id) => Some(id.0),
            Self::Reconnected(_) | Self::Gone => None,
        }
    }
}

impl PoolPlan {
    fn server_ids(&self) -> impl Iterator<Item = ServerId> + use<> {
        let count = u16::try_from(self.servers.len()).unwrap_or(u16::MAX);
        (0..count).map(ServerId)
    }

    /// Tells whether clients of this pool may go on as clients of that one.
    const fn can_become(&self, other: &Self) -> bool {
        self.is_memcache == other.is_memcache
    }
}

impl Pool {
    /// Makes of the pool at work by one plan the pool at work by another. Returns what became of
    /// its servers.
    fn adapt(&mut self, before: &PoolPlan, after: &PoolPlan, shards: &Shards) -> Vec<ServerFate> {
        if before == after {
            return before.server_ids().map(ServerFate::Kept).collect();
        }
        let reconnects = before.auth != after.auth
            || before.database != after.database
            || before.lanes() != after.lanes()
            || before.server_connections != after.server_connections;
        let mut servers: Vec<Option<Server>> =
            std::mem::take(&mut self.servers).into_iter().map(Some).collect();
        let mut stats = std::mem::take(&mut self.stats.servers);
        let mut fates = vec![ServerFate::Gone; servers.len()];
        let origins = origins(before, after);
        for ((id, plan), origin) in after.server_ids().zip(&after.servers).zip(origins) {
            let known = origin.and_then(|from| {
                let server = servers.get_mut(from)?.take()?;
                Some((from, server, stats.get_mut(from).map(std::mem::take)))
            });
            let Some((from, mut server, stats)) = known else {
                self.servers.push(Server::of(after, plan));
                self.stats.servers.push(ServerStats::default());
                continue;
            };
            let moves = before.servers.get(from).is_none_or(|old| {
                let told = shards.address_of(plan).map(|to| Address::Fixed(Endpoint::Tcp(to)));
                server.address(old) != told.unwrap_or_else(|| plan.address.clone())
            });
            let fate = if reconnects || moves || plan.is_drained {
                server.disconnect(after.server_connections, moves);
                ServerFate::Reconnected(id)
            } else {
                ServerFate::Kept(id)
            };
            if let Some(place) = fates.get_mut(from) {
                *place = fate;
            }
            server.follow(after, plan);
            if !after.is_ejecting {
                server.standing = Standing::Serving;
            }
            let mut stats = stats.unwrap_or_default();
            if server.standing == Standing::Serving {
                stats.server_ejected_at = 0;
            }
            self.servers.push(server);
            self.stats.servers.push(stats);
        }
        self.limits = Self::limits_of(after);
        let live = self.live_servers(after);
        if before.route != after.route || live != self.live {
            self.table = self.table.rebuild(&after.route, &live, self.table.epoch() + 1);
            self.live = live;
        }
        fates
    }
}

/// Returns for each server of `after` which one of `before` it is: that of the same name, else one
/// at the same address whose name is in use no more.
fn origins(before: &PoolPlan, after: &PoolPlan) -> Vec<Option<usize>> {
    let names: BTreeMap<&str, usize> =
        (0..).zip(&before.servers).map(|(from, server)| (server.name.as_str(), from)).collect();
    let mut origins: Vec<Option<usize>> =
        after.servers.iter().map(|server| names.get(server.name.as_str()).copied()).collect();
    let mut is_taken = vec![false; before.servers.len()];
    for from in origins.iter().flatten() {
        if let Some(is_taken) = is_taken.get_mut(*from) {
            *is_taken = true;
        }
    }
    for (origin, server) in origins.iter_mut().zip(&after.servers) {
        if origin.is_some() {
            continue;
        }
        let found = before.servers.iter().zip(&mut is_taken).enumerate();
        let found = found
            .into_iter()
            .find(|(_, (old, is_taken))| !**is_taken && old.address == server.address);
        if let Some((from, (_, is_taken))) = found {
            *is_taken = true;
            *origin = Some(from);
        }
    }
    origins
}

impl crate::proxy::shared::Shared {
    /// Opens the connections of a server whose pool wants them before they are needed.
    pub(crate) fn preconnect(&mut self, id: PoolId, server: ServerId) {
        let Some((pool, plan)) = self.pool(id) else { return };
        let is_drained =
            plan.servers.get(usize::from(server.0)).is_none_or(|server| server.is_drained);
        let lanes = pool.servers.get(usize::from(server.0)).map(|server| &server.lanes);
        if !plan.is_preconnecting || plan.is_drained || is_drained {
            return;
        }
        let Some(lanes) = lanes else { return };
        // The second half speaks RESP3; few pools ever need it.
        let empty: Vec<usize> = (0..plan.server_connections as usize)
            .filter(|lane| lanes.get(*lane).is_some_and(Option::is_none))
            .collect();
        for lane in empty {
            let _ = self.open(id, server, lane, false);
        }
    }

    /// Takes a connection out of use; it lives until each of its requests is answered or timed
    /// out. Returns whether it was in use.
    pub(crate) fn take_out_of_use(&mut self, key: SlabKey) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return false };
        debug_assert_eq!(key, key_of(conn.id), "a connection is named after its slot");
        if conn.is_retiring {
            return false;
        }
        conn.is_retiring = true;
        let (pool, server, lane, id) = (conn.pool, conn.server, conn.lane, conn.id);
        self.detach(pool, server, lane, id);
        if let Some(server) = self.server_mut(pool, server) {
            server.retiring.push(id);
        }
        self.wake_waiters(key);
        true
    }
}
