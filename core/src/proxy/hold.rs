//! Requests that wait for a shard's master, and those that are sent again.
//!
//! A request that waits lies where every request lies that has not left: in the buffer of its lane's
//! connection, with an entry in the queue of replies. Such a connection is not made yet
//! ([`Stage::Waiting`]), or is held. So the order of requests is the order of one queue, whether it
//! moves or not, and a healthy shard costs nothing.
//!
//! When a connection is lost or its server replaced, what it carried goes through
//! [`Proxy::salvage`], in order: what may be sent again is queued anew, the rest gets its error. A
//! client's errors are queued before anything of what it sent later leaves.

use std::time::Duration;

use crate::config::failover::Replay;
use crate::id::{ConnId, PoolId, ServerId};
use crate::io::{Evidence, Failure, HoldCause};
use crate::limits::{HOLD_STEP_BYTES, SERVER_OUTPUT_BYTES_MAX, SIGHTING_PAUSE, SWITCH_GRACE};
use crate::proxy::Proxy;
use crate::proxy::client::Client;
use crate::proxy::figures::Tag;
use crate::proxy::replies::append;
use crate::proxy::request::{Lane, Outcome, mark_dirty_server};
use crate::proxy::resend::{may_repeat, may_write};
use crate::proxy::server::{Belief, InFlight, ReplyTo, ServerConn, Stage};
use crate::proxy::shard::Gate;
use crate::proxy::shared::{Shared, Timer, key_of};
use crate::slab::SlabKey;

/// Where a request is queued anew.
#[derive(Clone, Copy)]
struct Home {
    pool: PoolId,
    server: ServerId,
    is_resp3: bool,
    is_replicated: bool,
}

impl Home {
    const fn of(conn: &ServerConn) -> Self {
        Self {
            pool: conn.pool,
            server: conn.server,
            is_resp3: conn.is_resp3,
            is_replicated: conn.is_replicated,
        }
    }
}

/// Tells whether the failure may mean that the master is gone; if not, waiting for another one does
/// not help.
pub(crate) const fn may_be_dead(failure: Failure) -> bool {
    match failure {
        Failure::Refused
        | Failure::TimedOut
        | Failure::Reset
        | Failure::ServerClosed
        | Failure::Unresolved
        | Failure::Unreachable
        | Failure::OutOfResources => true,
        Failure::Protocol
        | Failure::Greeting
        | Failure::NoMaster
        | Failure::Fenced
        | Failure::Replaced
        | Failure::TooFewCopies => false,
    }
}

/// Says what an error leaves open about a request that was sent.
pub(crate) fn outcome_of(tag: Tag) -> Outcome {
    if may_write(tag.command) { Outcome::Unknown } else { Outcome::Harmless }
}

impl Shared {
    /// Returns how long requests of the pool may wait for a master.
    pub(crate) fn hold_of(&self, pool: PoolId) -> Option<Duration> {
        self.plan.pools.get(usize::from(pool.0))?.failover.hold
    }

    /// Returns how long the requests of a connection may wait: for a reply, or for a master.
    pub(crate) fn patience(&self, conn: &ServerConn) -> Option<Duration> {
        if conn.is_waiting() {
            return self.hold_of(conn.pool);
        }
        self.timeout_of(conn.pool)
    }

    /// Finds the connection for a request of a client whose server is not simply open.
    #[cold]
    pub(crate) fn gated_lane(&mut self, client: &mut Client, id: ServerId, tag: Tag) -> Lane {
        let writes = may_write(tag.command);
        let has_hold = self.hold_of(client.pool).is_some();
        let Some(server) = self.server_mut(client.pool, id) else {
            return Lane::Failed(Failure::Refused);
        };
        match server.gate() {
            Gate::ReadsOnly if writes => return Lane::Failed(Failure::Fenced),
            Gate::Shut if !has_hold => return Lane::Failed(Failure::NoMaster),
            Gate::Open | Gate::ReadsOnly | Gate::Shut => {}
        }
        let kinds = server.lanes.len() / (server.connections as usize).max(1);
        let mut lane = server.lane_of(client.id, client.is_resp3);
        if kinds > 2 {
            // Writes that wait for replicas have connections of their own, and what a client sends
            // by one kind waits for what it sent by the other.
            let apart = server.connections as usize * 2;
            let (own, other) = if writes { (lane + apart, lane) } else { (lane, lane + apart) };
            lane = own;
            let other = server.lanes.get(other).copied().flatten();
            if other.is_some_and(|conn| client.replies.is_owed_through(conn.slot())) {
                client.is_blocked = true;
                return Lane::Busy;
            }
        }
        let open = server.lanes.get(lane).copied().flatten();
        self.open_lane(client, id, lane, open)
    }

    /// Lets more requests wait on a connection, unless all of the pool together are too many.
    #[cold]
    pub(crate) fn make_room(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get(key_of(id)) else { return false };
        let (pool, server) = (conn.pool, conn.server);
        let Some((_, plan)) = self.pool(pool) else { return false };
        let most = plan.failover.hold_bytes;
        let waiting = self.conns.iter().filter(|(_, conn)| conn.pool == pool && conn.is_waiting());
        let sum: usize = waiting.map(|(_, conn)| conn.out.len()).sum();
        if let Some(conn) = self.conns.get_mut(key_of(id))
            && sum < most
        {
            conn.out_bytes_max = conn.out.len() + HOLD_STEP_BYTES.min(most - sum);
            if conn.has_room() {
                return true;
            }
        }
        if let Some(tally) = self.tally(pool, server) {
            tally.refused += 1;
        }
        false
    }

    /// Notes that a connection of a followed server is ready: what waited may go, if the gate lets
    /// it.
    pub(crate) fn ready_after_wait(&mut self, key: SlabKey) {
        let now = self.now;
        let Some(conn) = self.conns.get(key) else { return };
        let (pool, id) = (conn.pool, conn.server);
        let gate = self.server_mut(pool, id).map_or(Gate::Open, |server| server.gate());
        let Some(conn) = self.conns.get_mut(key) else { return };
        if gate == Gate::Shut {
            conn.is_held = true;
            return;
        }
        conn.released_at = now;
        conn.out_bytes_max = SERVER_OUTPUT_BYTES_MAX;
        let waited = conn.queued as u64;
        self.note_released(pool, id, waited);
        self.rearm_requests(key);
        self.wake_waiters(key);
        self.end_hold_if_over(pool, id);
    }
}

impl Proxy {
    /// Takes a connection to a master that has been replaced out of use. After a planned failover,
    /// and while a reply is passed on in pieces, replies are waited for a little: what the former
    /// master refuses because it is a replica had no effect.
    pub(crate) fn supersede(&mut self, key: SlabKey, is_planned: bool) {
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        // Of one that was replaced before, replies are waited for already.
        if conn.stage == Stage::Closing || conn.belief == Belief::Replaced {
            return;
        }
        let is_graceful = (is_planned || conn.is_streaming) && conn.is_asked();
        if is_graceful && conn.stage == Stage::Ready {
            self.let_pass(key, Belief::Replaced);
        } else {
            self.end_conn(key, Failure::Replaced);
        }
    }

    /// Sends nothing more by a connection and waits a little for the replies that it owes.
    fn let_pass(&mut self, key: SlabKey, belief: Belief) {
        let until = self.shared.now + SWITCH_GRACE;
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        if conn.belief != Belief::Replica {
            conn.belief = belief;
        }
        conn.is_held = true;
        let id = conn.id;
        self.shared.timers.arm(until, Timer::Grace(id));
        self.shared.take_out_of_use(key);
        self.fail_group(key, Failure::Replaced);
    }

    /// Ends the wait for the replies of a connection, unless one is passed on in pieces and goes on
    /// coming.
    pub(crate) fn end_grace(&mut self, key: SlabKey) {
        let now = self.shared.now;
        let Some(conn) = self.shared.conns.get(key) else { return };
        if conn.belief == Belief::Full || conn.stage == Stage::Closing {
            return;
        }
        let (id, silent_from) = (conn.id, conn.received_at + SWITCH_GRACE);
        if conn.is_streaming && silent_from > now {
            self.shared.timers.arm(silent_from, Timer::Grace(id));
            return;
        }
        self.end_conn(key, Failure::Replaced);
    }

    /// Closes a connection; what it carried is queued anew or fails.
    fn end_conn(&mut self, key: SlabKey, failure: Failure) {
        let Some(conn) = self.shared.conns.get(key) else { return };
        let (pool, server, lane, id) = (conn.pool, conn.server, conn.lane, conn.id);
        self.shared.detach(pool, server, lane, id);
        self.salvage(key, failure);
        self.shared.wake_waiters(key);
        self.shared.shut(key);
    }

    /// Empties a connection, oldest request first: what has had no effect, or may have it twice, is
    /// queued anew; everything else gets its error.
    pub(crate) fn salvage(&mut self, key: SlabKey, failure: Failure) {
        self.fail_group(key, failure);
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        let (home, is_followed) = (Home::of(conn), conn.is_followed);
        let is_streaming = std::mem::take(&mut conn.is_streaming);
        conn.streamed_bytes = 0;
        let requests = std::mem::take(&mut conn.in_flight);
        let unsent = if conn.stage == Stage::Ready { conn.queued } else { requests.len() };
        (conn.queued, conn.timed_out, conn.in_flight_bytes) = (0, 0, 0);
        let (out, partial) = (std::mem::take(&mut conn.out), std::mem::take(&mut conn.partial));
        let mut log = std::mem::take(&mut conn.sent);
        let replay = self.replay_of(home.pool);
        let count = requests.len().saturating_sub(unsent);
        let mut at_out = 0;
        for (at, request) in requests.into_iter().enumerate() {
            let len = request.bytes as usize;
            let is_sent = at < count;
            let frame = if is_sent { log.front(len) } else { out.get(at_out..at_out + len) };
            let is_lost = at == 0 && is_streaming;
            let may_go = |frame: &&[u8]| {
                !is_sent || replay.is_some_and(|it| may_repeat(request.tag.command, frame, it))
            };
            match frame.filter(|frame| !is_lost && may_go(frame)) {
                Some(frame) => self.queue_again(key, home, &request, frame, is_sent, failure),
                None => {
                    let outcome = if is_sent { outcome_of(request.tag) } else { Outcome::NotSent };
                    self.note_unknown(home, outcome, request.to);
                    self.fail_request(key, request.to, failure, outcome, is_lost);
                }
            }
            if is_sent && is_followed {
                log.pop(len);
            } else {
                at_out += len;
            }
        }
        self.shared.buffers.give(out);
        self.shared.buffers.give(partial);
    }

    fn replay_of(&self, pool: PoolId) -> Option<Replay> {
        let failover = &self.shared.plan.pools.get(usize::from(pool.0))?.failover;
        failover.hold.map(|_| failover.replay)
    }

    /// Fails a request that has waited too long, for a reply or for a master.
    pub(crate) fn expire_watched(&mut self, key: SlabKey, late: &InFlight, outcome: Outcome) {
        let Some(conn) = self.shared.conns.get(key) else { return };
        let (home, is_waiting) = (Home::of(conn), conn.is_waiting());
        if matches!(late.to, ReplyTo::Copies) {
            return self.fail_group(key, Failure::TooFewCopies);
        }
        if outcome == Outcome::NotSent && is_waiting {
            if let Some(tally) = self.shared.tally(home.pool, home.server) {
                tally.refused += 1;
            }
            return self.fail_request(key, late.to, Failure::NoMaster, outcome, false);
        }
        let is_sent = outcome != Outcome::NotSent;
        let outcome = if is_sent { outcome_of(late.tag) } else { outcome };
        self.note_unknown(home, outcome, late.to);
        self.fail_request(key, late.to, Failure::TimedOut, outcome, false);
    }

    fn note_unknown(&mut self, home: Home, outcome: Outcome, to: ReplyTo) {
        if outcome != Outcome::Unknown || !to.is_wanted() {
            return;
        }
        if let Some((pool, _)) = self.shared.pool_mut(home.pool) {
            pool.stats.requests_unknown += 1;
        }
        if let Some(tally) = self.shared.tally(home.pool, home.server) {
            tally.unknown += 1;
        }
    }

    /// Queues a request on the connection that its client's requests take now; `key` is the one that
    /// carried it.
    fn queue_again(
        &mut self,
        key: SlabKey,
        home: Home,
        request: &InFlight,
        frame: &[u8],
        was_sent: bool,
        failure: Failure,
    ) {
        if !request.to.is_wanted() {
            return;
        }
        if let Err(why) = self.try_queue_again(home, request, frame, failure) {
            let outcome = if was_sent { outcome_of(request.tag) } else { Outcome::NotSent };
            self.note_unknown(home, outcome, request.to);
            return self.fail_request(key, request.to, why, outcome, false);
        }
        if was_sent {
            if let Some((pool, _)) = self.shared.pool_mut(home.pool) {
                pool.stats.requests_replayed += 1;
            }
            if let Some(tally) = self.shared.tally(home.pool, home.server) {
                tally.replayed += 1;
            }
        }
    }

    fn try_queue_again(
        &mut self,
        home: Home,
        request: &InFlight,
        frame: &[u8],
        failure: Failure,
    ) -> Result<(), Failure> {
        let now = self.shared.now;
        let hold = self.shared.hold_of(home.pool);
        // However often it is sent, it waits no longer than it may.
        if hold.is_some_and(|hold| request.queued_at + hold <= now) {
            return Err(Failure::NoMaster);
        }
        let at_work = self.shared.pools.get(usize::from(home.pool.0));
        let server = at_work.and_then(|pool| pool.servers.get(usize::from(home.server.0)));
        let Some(server) = server else { return Err(failure) };
        match server.gate() {
            Gate::ReadsOnly if may_write(request.tag.command) => return Err(Failure::Fenced),
            Gate::Shut if hold.is_none() => return Err(Failure::NoMaster),
            Gate::Open | Gate::ReadsOnly | Gate::Shut => {}
        }
        let client = match request.to {
            ReplyTo::Client { conn, .. } => conn,
            ReplyTo::Split { split, .. } => match self.shared.splits.get(split) {
                Some(split) => split.client,
                None => return Ok(()),
            },
            ReplyTo::Nobody
            | ReplyTo::Silent { .. }
            | ReplyTo::Store { .. }
            | ReplyTo::Quiet { .. }
            | ReplyTo::QuietNobody
            | ReplyTo::Barrier
            | ReplyTo::Copies => return Err(failure),
        };
        let mut lane = server.lane_of(client, home.is_resp3);
        if home.is_replicated {
            lane += server.connections as usize * 2;
        }
        let id = match server.lanes.get(lane).copied() {
            Some(Some(conn)) => conn,
            Some(None) => self.shared.open_on_demand(home.pool, home.server, lane)?,
            None => return Err(failure),
        };
        let shared = &mut self.shared;
        let Some(conn) = shared.conns.get_mut(key_of(id)) else { return Err(failure) };
        append(&mut conn.out, &mut shared.buffers, frame);
        // The queue is in the order of time, which time-outs rely on.
        let youngest = conn.in_flight.back().map_or(request.queued_at, |last| last.queued_at);
        let queued_at = request.queued_at.max(youngest);
        conn.in_flight.push_back(InFlight { queued_at, ..*request });
        conn.in_flight_bytes += u64::from(request.bytes);
        conn.queued += 1;
        let is_timer_armed = conn.is_timer_armed;
        mark_dirty_server(&mut shared.outbox.dirty_servers, conn);
        if !is_timer_armed {
            shared.rearm_requests(key_of(id));
        }
        if let ReplyTo::Client { conn, sequence } = request.to
            && let Some(client) = self.clients.get_mut(key_of(conn))
        {
            client.replies.move_to(sequence, id.slot());
        }
        Ok(())
    }

    /// Refuses the requests of a connection that have not left: all, or only writes.
    pub(crate) fn refuse_unsent(&mut self, key: SlabKey, only_writes: bool) {
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        let sent = if conn.stage == Stage::Ready { conn.in_flight.len() - conn.queued } else { 0 };
        let unsent = conn.in_flight.split_off(sent);
        let out = std::mem::take(&mut conn.out);
        conn.queued = 0;
        let mut at = 0;
        for request in unsent {
            let end = at + request.bytes as usize;
            let Some(conn) = self.shared.conns.get_mut(key) else { return };
            if only_writes && !may_write(request.tag.command) {
                let frame = out.get(at..end).unwrap_or_default();
                append(&mut conn.out, &mut self.shared.buffers, frame);
                conn.in_flight.push_back(request);
                conn.queued += 1;
            } else {
                conn.in_flight_bytes -= u64::from(request.bytes);
                let why = if only_writes { Failure::Fenced } else { Failure::NoMaster };
                self.fail_request(key, request.to, why, Outcome::NotSent, false);
            }
            at = end;
        }
        self.shared.buffers.give(out);
    }

    /// Takes a reply that needs a closer look. Returns false when the connection is given up.
    #[cold]
    pub(crate) fn odd_reply(&mut self, key: SlabKey, piece: &[u8], was_streaming: bool) -> bool {
        let Some(conn) = self.shared.conns.get_mut(key) else { return false };
        let Some(request) = conn.in_flight.front().copied() else { return false };
        if matches!(request.to, ReplyTo::Copies) {
            self.withhold(key, piece);
            return self.go_on(key);
        }
        let start = if conn.partial.is_empty() { piece } else { &conn.partial };
        let is_error = !was_streaming && start.first() == Some(&b'-');
        let is_refused = is_error && refuses_writes(conn, start, piece);
        let home = Home::of(conn);
        let writes = may_write(request.tag.command);
        let is_wanted = request.to.is_wanted();
        let has_no_effect = if writes { is_refused } else { conn.belief == Belief::Replica };
        if has_no_effect && is_wanted && !was_streaming {
            let frame = conn.sent.front(request.bytes as usize).map(<[u8]>::to_vec);
            if let Some(frame) = frame {
                if writes {
                    self.demote(key);
                }
                return self.take_back(key, home, piece, &frame);
            }
        }
        let Some(conn) = self.shared.conns.get_mut(key) else { return false };
        let streamed = std::mem::take(&mut conn.streamed_bytes);
        match conn.belief {
            Belief::Replaced | Belief::Replica if writes && is_wanted && !is_error => {
                self.drop_reply(key, piece);
                self.note_unknown(home, Outcome::Unknown, request.to);
                self.fail_request(
                    key,
                    request.to,
                    Failure::Replaced,
                    Outcome::Unknown,
                    was_streaming,
                );
                return self.go_on(key);
            }
            Belief::Full if home.is_replicated && !is_error => {
                self.withhold(key, piece);
                return self.go_on(key);
            }
            Belief::Full | Belief::Replaced | Belief::Replica => {}
        }
        self.finish_reply(key, piece, was_streaming, streamed) && self.go_on(key)
    }

    /// Drops the reply to the oldest request and queues that anew.
    fn take_back(&mut self, key: SlabKey, home: Home, piece: &[u8], frame: &[u8]) -> bool {
        let Some(request) = self.drop_reply(key, piece) else { return false };
        self.queue_again(key, home, &request, frame, true, Failure::NoMaster);
        self.go_on(key)
    }

    /// Takes the oldest request out and forgets its reply.
    pub(crate) fn drop_reply(&mut self, key: SlabKey, piece: &[u8]) -> Option<InFlight> {
        let conn = self.shared.conns.get_mut(key)?;
        let request = conn.pop_in_flight()?;
        let partial = std::mem::take(&mut conn.partial);
        let bytes = partial.len() + piece.len();
        self.shared.buffers.give(partial);
        self.count_reply(key, &request, bytes, true);
        Some(request)
    }

    /// Notes that a server is a replica: nothing more is sent to it for a while, and what it says to
    /// reads behind a refused write is not passed on, so that nothing overtakes that write.
    fn demote(&mut self, key: SlabKey) {
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        if conn.belief != Belief::Full {
            // Its reads are behind a write that is now sent elsewhere.
            conn.belief = Belief::Replica;
            return;
        }
        let (pool, id, address) = (conn.pool, conn.server, conn.address);
        self.let_pass(key, Belief::Replica);
        if let Some(address) = address {
            self.shared.sight(pool, id, address, Evidence::ReadOnly);
        }
        let retry_at = self.shared.now + SIGHTING_PAUSE;
        if let Some(server) = self.shared.server_mut(pool, id) {
            server.last_failure = Some(Failure::Replaced);
            server.retry_at = retry_at;
        }
        self.shared.begin_hold(pool, id, HoldCause::ReadOnly);
        // The other connections lead to the same replica.
        let others = self.shared.lanes_of(pool, id);
        for other in others {
            self.hold_for_replica(key_of(other));
        }
    }

    /// Holds what has not left by a connection to a replica, until its replies have said so too.
    fn hold_for_replica(&mut self, key: SlabKey) {
        let Some(conn) = self.shared.conns.get(key) else { return };
        if conn.stage == Stage::Ready && conn.is_asked() {
            self.let_pass(key, Belief::Replica);
        } else if matches!(conn.stage, Stage::Ready | Stage::Connecting | Stage::Greeting { .. }) {
            self.end_conn(key, Failure::Replaced);
        }
    }

    /// Ends a connection of which nothing more is expected. Returns whether it lives on.
    fn go_on(&mut self, key: SlabKey) -> bool {
        let Some(conn) = self.shared.conns.get(key) else { return false };
        if conn.stage == Stage::Closing {
            return false;
        }
        let asked = conn.in_flight.len().saturating_sub(conn.queued);
        let is_owed = conn.in_flight.iter().take(asked).any(|request| request.to.is_wanted());
        if conn.belief != Belief::Full && !is_owed {
            self.end_conn(key, Failure::Replaced);
            return false;
        }
        true
    }
}

/// Tells whether an error says that the server takes no writes because it is a replica.
fn refuses_writes(conn: &ServerConn, start: &[u8], piece: &[u8]) -> bool {
    const WORD: &[u8] = b"-READONLY";
    if conn.partial.is_empty() {
        return start.starts_with(WORD);
    }
    let mut both = conn.partial.iter().chain(piece);
    WORD.iter().all(|byte| both.next() == Some(byte))
}
