//! The sharding proxy as a state machine.
//!
//! ```text
//! client bytes ─▶ request.rs ─▶ routing ─▶ queue of one server connection ─▶ server
//!                  │  fragment.rs (several servers)      connect.rs (its life)
//!                  │  local.rs (our own answers)
//!                  │  memcache/ (what is particular to memcached's protocol)
//! client ◀─ replies.rs (order of the requests) ◀─ reply.rs ◀─ server bytes
//! ```
//!
//! Requests are parsed where the runtime lends them; a whole frame is copied once, into the
//! buffer of the server connection that carries it, and its reply once, into the client's. What
//! is collected during a turn leaves in one write per connection, servers before clients.

mod asked;
mod client;
mod connect;
mod figures;
mod fragment;
mod handover;
mod hold;
mod local;
mod memcache;
mod outbox;
mod plan;
mod reload;
mod replicate;
mod replies;
mod reply;
mod request;
mod resend;
mod server;
mod shard;
mod shared;

use std::sync::Arc;

use crate::buf::Buffer;
use crate::id::{ConnId, ListenerId, PoolId, ServerId, WorkerId};
use crate::io::{
    AtCapacity, CloseReason, Command, Deadline, Endpoint, Event, Failure, Input, Limit, Output,
};
use crate::slab::{Slab, SlabKey};
use crate::stats::{LimitKind, Peer, ServerQueues};
use crate::time::Instant;

use self::client::{Client, Phase};
use self::figures::Ticks;
pub use self::handover::ClientState;
pub use self::plan::{Address, ListenerRole, Plan, Policy, PoolPlan, ServerPlan};
use self::request::{Flow, mark_dirty_server};
use self::server::Stage;
use self::shared::{Shared, Timer, key_of};

/// The proxy of one worker: its clients, and all that they share.
#[derive(Debug)]
pub struct Proxy {
    clients: Slab<Client>,
    shared: Shared,
    /// Memory for the text of one failure.
    failure_text: Vec<u8>,
    has_said_drained: bool,
}

impl Proxy {
    /// Makes the proxy; connects to the servers of pools that want it at start.
    pub fn new(plan: Arc<Plan>, seed: u64, now: Instant) -> Self {
        let clients_max = plan.clients_max.min(ConnId::INDEX_MAX) as usize;
        let mut shared = Shared::new(plan, seed, now);
        let plan = Arc::clone(&shared.plan);
        for (pool, pool_plan) in (0..=u16::MAX).zip(&plan.pools) {
            for (server, _) in (0..=u16::MAX).zip(&pool_plan.servers) {
                shared.preconnect(PoolId(pool), ServerId(server));
            }
        }
        Self {
            clients: Slab::new(clients_max),
            shared,
            failure_text: Vec::new(),
            has_said_drained: false,
        }
    }

    /// Says which of the workers this is; the first, unless told.
    #[must_use]
    pub fn with_id(mut self, id: WorkerId) -> Self {
        self.shared.id = id;
        self
    }

    /// Takes a new connection in.
    ///
    /// # Errors
    ///
    /// [`AtCapacity`] when the pool or the worker is full, or draining.
    pub fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        peer: &Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        self.shared.now = now;
        let role = self.shared.plan.listeners.get(usize::from(on.0)).copied();
        match role {
            Some(ListenerRole::Pool(pool)) if !self.shared.is_draining => {
                self.accept_client(pool, peer.into())
            }
            Some(ListenerRole::Pool(_) | ListenerRole::Nobody) | None => Err(AtCapacity),
        }
    }

    fn accept_client(&mut self, id: PoolId, peer: Peer) -> Result<ConnId, AtCapacity> {
        let now = self.shared.now;
        let Some((pool, plan)) = self.shared.pool_mut(id) else { return Err(AtCapacity) };
        if pool.drains_until.is_some() {
            return Err(AtCapacity);
        }
        let connected = pool.stats.client_connections;
        if plan.clients_max.is_some_and(|most| connected >= u64::from(most)) {
            pool.stats.limits.add(LimitKind::Clients as u8);
            self.shared.outbox.event(Event::ClientRefused { pool: id });
            return Err(AtCapacity);
        }
        let (is_authenticated, is_memcache) = (plan.auth.is_none(), plan.is_memcache);
        let number = self.shared.next_client_number();
        let key = self.clients.insert_with(|key| {
            let name = ConnId::client(key.index, key.generation);
            let mut client = Client::new(name, id, is_authenticated, peer, now);
            client.number = number;
            client.is_memcache = is_memcache;
            client
        });
        let Some(key) = key else {
            if let Some((pool, _)) = self.shared.pool_mut(id) {
                pool.stats.limits.add(LimitKind::Clients as u8);
            }
            self.shared.outbox.event(Event::ClientRefused { pool: id });
            return Err(AtCapacity);
        };
        if let Some((pool, _)) = self.shared.pool_mut(id) {
            pool.stats.client_connections += 1;
            pool.stats.clients_accepted += 1;
        }
        self.shared.connections_made += 1;
        Ok(ConnId::client(key.index, key.generation))
    }

    /// Takes one input in.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.shared.now = now;
        match input {
            Input::Received { conn, bytes } if conn.is_server() => {
                self.server_received(conn, bytes);
                self.keep_output_budget();
            }
            Input::Received { conn, bytes } => self.client_received(conn, bytes),
            Input::Sent { conn, buffer } if conn.is_server() => self.server_sent(conn, buffer),
            Input::Sent { conn, buffer } => self.client_sent(conn, buffer),
            Input::Connected { conn, .. } => self.shared.connected(key_of(conn)),
            Input::Eof { conn } if conn.is_server() => self.server_eof(conn),
            Input::Eof { conn } => self.client_eof(conn),
            Input::Closed { conn, reason } if conn.is_server() => self.server_closed(conn, reason),
            Input::Closed { conn, reason } => self.client_closed(conn, reason),
            Input::Resolved { query, result } => {
                if let Some(key) = self.shared.resolved(query, result) {
                    self.fail_conn(key, Failure::Unresolved);
                }
            }
            Input::Command(Command::Drain { limit }) => self.drain(now + limit),
            Input::Released { conn } => self.client_closed(conn, CloseReason::Requested),
            Input::Command(Command::HandOver { limit }) => self.hand_over(limit),
            Input::Command(Command::Reload { plan, limit }) => {
                if let Some(plan) = plan.open::<Plan>() {
                    self.reload(&plan, limit);
                }
            }
            Input::Notice(notice) => self.noticed(notice),
            Input::Persisted { .. } | Input::FileRead { .. } | Input::Exited { .. } => {
                debug_assert!(false, "an answer to an errand that the proxy never gives");
            }
            Input::ChannelOpened { .. } | Input::Datagram { .. } | Input::Trouble { .. } => {
                debug_assert!(false, "the proxy has no channels");
            }
        }
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.shared.now = now;
        while let Some(timer) = self.shared.timers.pop_due(now) {
            match timer {
                Timer::Requests(conn) => self.time_requests_out(key_of(conn)),
                Timer::Reconnect(pool, server) => self.shared.reconnect(pool, server),
                Timer::Probe(pool, server) => self.shared.probe(pool, server),
                Timer::DrainLimit => self.abort_all(),
                Timer::PoolDrainLimit => self.end_pool_drains(),
                Timer::Answers(query) => self.end_question(query),
                Timer::Grace(conn) => self.end_grace(key_of(conn)),
                Timer::Lease(pool, server) => self.review_lease(pool, server),
            }
        }
    }

    /// Gives the next effect out: first what was decided, then requests to servers, then replies
    /// to clients.
    pub fn poll_output(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.shared.outbox.pop() {
                return Some(output);
            }
            if let Some(id) = self.shared.outbox.woken.pop() {
                self.wake(id);
            } else if let Some(id) = self.shared.outbox.ready.pop() {
                self.look_again(id);
            } else if self.shared.asked.has_fresh() {
                self.put_question();
            } else if let Some(id) = self.shared.outbox.dirty_servers.pop() {
                if let Some(output) = self.transmit_to_server(id) {
                    return Some(output);
                }
            } else if let Some(id) = self.shared.outbox.dirty_clients.pop() {
                if let Some(output) = self.transmit_to_client(id) {
                    return Some(output);
                }
            } else {
                return None;
            }
        }
    }

    /// Returns when a timer is due.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.shared.timers.next().map(|(at, timer)| Deadline { at, why: timer.name() })
    }

    fn transmit_to_server(&mut self, id: ConnId) -> Option<Output> {
        let conn = self.shared.conns.get_mut(key_of(id))?;
        conn.is_dirty = false;
        if !conn.can_write() {
            return None;
        }
        conn.is_writing = true;
        conn.queued = 0;
        let mut buffer = std::mem::take(&mut conn.out);
        if conn.is_watched {
            self.shared.note_write(key_of(id), &mut buffer);
        }
        Some(Output::Transmit { conn: id, buffer })
    }

    fn transmit_to_client(&mut self, id: ConnId) -> Option<Output> {
        let client = self.clients.get_mut(key_of(id))?;
        client.is_dirty = false;
        if client.phase == Phase::Closing || client.is_writing || client.out.is_empty() {
            return None;
        }
        client.is_writing = true;
        client.writing_bytes = client.out.len();
        let buffer = std::mem::take(&mut client.out);
        if let Some(pool) = self.shared.pools.get_mut(usize::from(client.pool.0)) {
            pool.stats.client_sent_bytes += buffer.len() as u64;
        }
        Some(Output::Transmit { conn: id, buffer })
    }

    fn client_received(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(key_of(id)) else { return };
        if client.phase != Phase::Open {
            return;
        }
        let shared = &mut self.shared;
        client.heard_at = Ticks::of(shared.now);
        if let Some(pool) = shared.pools.get_mut(usize::from(client.pool.0)) {
            pool.stats.client_received_bytes += bytes.len() as u64;
        }
        if client.input.is_empty() && !client.is_blocked {
            let (served, flow) = shared.serve_all(client, bytes);
            shared.follow(client, flow);
            if client.phase == Phase::Open {
                client.keep(bytes.get(served..).unwrap_or_default(), &mut shared.buffers);
            }
        } else {
            client.keep(bytes, &mut shared.buffers);
            serve_waiting(shared, client);
        }
        if client.is_leaving {
            shared.mark_ready(client);
        }
        self.finish_look(key_of(id));
    }

    /// Serves what a client sent before there was room for it.
    fn look_again(&mut self, id: ConnId) {
        let Some(client) = self.clients.get_mut(key_of(id)) else { return };
        client.is_ready = false;
        serve_waiting(&mut self.shared, client);
        self.finish_look(key_of(id));
        // Only here, where outputs are taken: what the same turn still hands over of a client that
        // has left already would be lost.
        if let Some(client) = self.clients.get_mut(key_of(id))
            && client.is_leaving
        {
            self.shared.release_if_settled(client);
        }
    }

    fn wake(&mut self, id: ConnId) {
        let Some(client) = self.clients.get_mut(key_of(id)) else { return };
        client.is_blocked = false;
        client.waiting_on = None;
        self.shared.mark_ready(client);
    }

    /// Does what follows from a look at a client's input: reading stops or goes on, the
    /// connection may be at its end, the budgets are kept.
    #[inline]
    fn finish_look(&mut self, key: SlabKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let shared = &mut self.shared;
        if client.should_pause() {
            shared.pause(client);
        } else if client.should_resume() {
            client.is_paused = false;
            shared.outbox.push(Output::ResumeRead(client.id));
        }
        shared.close_if_settled(client);
        shared.count(client);
        if shared.sums.input > shared.plan.clients_input_bytes_max {
            self.cut_off_largest(Limit::ClientsInput, |client| client.counted_input);
        }
        self.keep_output_budget();
    }

    /// Ends clients until what servers sent for all of them fits into its budget.
    #[inline]
    fn keep_output_budget(&mut self) {
        while self.shared.sums.output > self.shared.plan.clients_output_bytes_max {
            if !self.cut_off_largest(Limit::ClientsOutput, |client| client.counted_output) {
                return;
            }
        }
    }

    /// Ends the client that holds most of an exhausted budget. Returns false when there is none.
    #[cold]
    fn cut_off_largest(&mut self, limit: Limit, held: impl Fn(&Client) -> usize) -> bool {
        // One that is closed already holds at most what is being written to it.
        let open = self.clients.iter().filter(|(_, client)| client.phase != Phase::Closing);
        let largest = open.max_by_key(|(_, client)| held(client)).map(|(key, _)| key);
        let Some(client) = largest.and_then(|key| self.clients.get_mut(key)) else { return false };
        if held(client) == 0 {
            return false;
        }
        self.shared.cut_off(client, limit);
        true
    }

    fn client_sent(&mut self, id: ConnId, buffer: Buffer) {
        self.shared.buffers.give(buffer);
        let Some(client) = self.clients.get_mut(key_of(id)) else { return };
        let shared = &mut self.shared;
        client.is_writing = false;
        client.writing_bytes = 0;
        if client.phase == Phase::Closing {
            return;
        }
        if client.out.is_empty() {
            client.widen();
            client.replies.shrink();
        } else {
            shared.mark_dirty(client);
        }
        shared.count(client);
        if client.needs_look() {
            shared.mark_ready(client);
        }
    }

    fn client_eof(&mut self, id: ConnId) {
        let Some(client) = self.clients.get_mut(key_of(id)) else { return };
        client.is_at_eof = true;
        if let Some((pool, _)) = self.shared.pool_mut(client.pool) {
            pool.stats.client_eof += 1;
        }
        self.shared.mark_ready(client);
    }

    fn client_closed(&mut self, id: ConnId, _reason: CloseReason) {
        let Some(mut client) = self.clients.remove(key_of(id)) else { return };
        if client.phase != Phase::Closing {
            self.shared.abort_client(&mut client);
        }
        self.shared.outbox.forget(id);
        if let Some((pool, _)) = self.shared.pool_mut(client.pool) {
            pool.stats.client_connections = pool.stats.client_connections.saturating_sub(1);
            if !client.is_at_eof {
                pool.stats.client_err += 1;
            }
            self.rest_if_drained(client.pool);
        }
        self.say_if_drained();
    }

    fn server_sent(&mut self, id: ConnId, buffer: Buffer) {
        self.shared.buffers.give(buffer);
        let key = key_of(id);
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        conn.is_writing = false;
        mark_dirty_server(&mut self.shared.outbox.dirty_servers, conn);
        if !conn.waiters.is_empty() && conn.has_room() {
            self.shared.wake_waiters(key);
        }
    }

    fn server_eof(&mut self, id: ConnId) {
        let key = key_of(id);
        let Some(conn) = self.shared.conns.get(key) else { return };
        if conn.stage == Stage::Closing {
            return;
        }
        let (pool, server) = (conn.pool, conn.server);
        if let Some(stats) = self.shared.stats_mut(pool, server) {
            stats.server_eof += 1;
            stats.server_connections = stats.server_connections.saturating_sub(1);
        }
        self.fail_conn(key, Failure::ServerClosed);
    }

    fn server_closed(&mut self, id: ConnId, reason: CloseReason) {
        let key = key_of(id);
        let Some(conn) = self.shared.conns.get(key) else { return };
        if conn.stage != Stage::Closing {
            let (pool, server) = (conn.pool, conn.server);
            if conn.stage == Stage::Connecting && conn.may_move_on() {
                let Some(conn) = self.shared.conns.remove(key) else { return };
                self.shared.try_next_address(conn);
                return;
            }
            let was_established = conn.stage != Stage::Connecting;
            if let Some(stats) = self.shared.stats_mut(pool, server) {
                stats.server_err += 1;
                if was_established {
                    stats.server_connections = stats.server_connections.saturating_sub(1);
                }
            }
            self.fail_conn(key, Failure::from(reason));
        }
        self.shared.outbox.forget(id);
        self.shared.conns.remove(key);
    }

    fn drain(&mut self, limit: Instant) {
        self.shared.is_draining = true;
        self.shared.timers.arm(limit, Timer::DrainLimit);
        let open: Vec<SlabKey> = self.clients.iter().map(|(key, _)| key).collect();
        for key in open {
            self.let_finish(key);
        }
        self.say_if_drained();
    }

    fn abort_all(&mut self) {
        let open: Vec<SlabKey> = self.clients.iter().map(|(key, _)| key).collect();
        for key in open {
            if let Some(client) = self.clients.get_mut(key) {
                self.shared.abort_client(client);
            }
        }
    }

    fn say_if_drained(&mut self) {
        if self.shared.is_draining && self.clients.is_empty() && !self.has_said_drained {
            self.has_said_drained = true;
            self.shared.outbox.event(Event::Drained);
        }
    }

    fn queues(&self, pool: usize, servers: usize) -> Vec<ServerQueues> {
        let mut queues = vec![ServerQueues::default(); servers];
        for (_, conn) in self.shared.conns.iter() {
            if usize::from(conn.pool.0) != pool {
                continue;
            }
            let Some(sum) = queues.get_mut(usize::from(conn.server.0)) else { continue };
            let unsent = conn.out.len() as u64;
            sum.in_queue += conn.queued as u64;
            sum.in_queue_bytes += unsent;
            sum.out_queue += (conn.in_flight.len() - conn.queued) as u64;
            sum.out_queue_bytes += conn.in_flight_bytes.saturating_sub(unsent);
        }
        queues
    }
}

/// Serves the carried-over input of a client that has room again.
fn serve_waiting(shared: &mut Shared, client: &mut Client) {
    if client.phase != Phase::Open || client.is_blocked || client.input.is_empty() {
        return;
    }
    let input = std::mem::take(&mut client.input);
    let waiting = input.get(client.input_start..).unwrap_or_default();
    let (served, flow) = shared.serve_all(client, waiting);
    client.input = input;
    client.consume(served, &mut shared.buffers);
    shared.follow(client, flow);
    if flow == Flow::Finish {
        shared.buffers.give(std::mem::take(&mut client.input));
        client.input_start = 0;
    }
}
