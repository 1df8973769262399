//! From a server's bytes to the client that asked.

use crate::buf::Buffer;
use crate::id::ConnId;
use crate::io::Failure;
use crate::io::{Event, Limit};
use crate::limits::STREAM_REPLY_BYTES;
use crate::proxy::Proxy;
use crate::proxy::client::Phase;
use crate::proxy::hold::may_be_dead;
use crate::proxy::memcache;
use crate::proxy::request::Outcome;
use crate::proxy::server::{Belief, InFlight, ReplyTo, Stage};
use crate::proxy::shared::key_of;
use crate::slab::SlabKey;
use crate::wire::resp::reply::ReplyScan;

impl Proxy {
    /// Takes bytes from a server.
    pub(crate) fn server_received(&mut self, id: ConnId, bytes: &[u8]) {
        let key = key_of(id);
        let now = self.shared.now;
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(conn) = self.shared.conns.get_mut(key) else { return };
            if conn.stage == Stage::Closing {
                return;
            }
            conn.received_at = now;
            if conn.is_memcache {
                return self.memcache_received(key, rest);
            }
            match conn.scanner.advance(rest) {
                Ok(ReplyScan::Complete { len }) => {
                    let (piece, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
                    rest = after;
                    if !self.reply_complete(key, piece) {
                        return;
                    }
                }
                Ok(ReplyScan::Incomplete) => {
                    self.reply_incomplete(key, rest);
                    return;
                }
                Err(_) => {
                    self.give_up_babbler(key);
                    return;
                }
            }
        }
    }

    /// Gives up a connection by which came what is no reply, or a reply to nothing: either the
    /// server is no Redis, or replies are out of step.
    pub(crate) fn give_up_babbler(&mut self, key: SlabKey) {
        let Some(conn) = self.shared.conns.get(key) else { return };
        let (pool, server) = (conn.pool, conn.server);
        self.shared.outbox.event(Event::ServerProtocolError { pool, server });
        self.fail_conn(key, Failure::Protocol);
    }

    /// Takes the end of a reply. Returns false when the connection is given up.
    #[inline]
    pub(crate) fn reply_complete(&mut self, key: SlabKey, piece: &[u8]) -> bool {
        let Some(conn) = self.shared.conns.get_mut(key) else { return false };
        let was_streaming = std::mem::take(&mut conn.is_streaming);
        let streamed = std::mem::take(&mut conn.streamed_bytes);
        if conn.stage != Stage::Ready {
            return self.greeting_reply(key, piece);
        }
        let first = conn.partial.first().or_else(|| piece.first());
        if first == Some(&b'>') && !was_streaming {
            // A push of RESP3 answers no request. Nothing that the proxy sends asks for one.
            conn.partial.clear();
            return true;
        }
        if !conn.is_asked() {
            self.give_up_babbler(key);
            return false;
        }
        if conn.is_watched
            && (first == Some(&b'-') || conn.belief != Belief::Full || conn.is_replicated)
        {
            conn.streamed_bytes = streamed;
            return self.odd_reply(key, piece, was_streaming);
        }
        self.finish_reply(key, piece, was_streaming, streamed)
    }

    /// Passes the reply to the oldest request on.
    #[inline]
    pub(crate) fn finish_reply(
        &mut self,
        key: SlabKey,
        piece: &[u8],
        was_streaming: bool,
        streamed: usize,
    ) -> bool {
        let Some(conn) = self.shared.conns.get_mut(key) else { return false };
        let via = conn.id;
        let Some(request) = conn.pop_in_flight() else { return false };
        let is_memcache = conn.is_memcache;
        let partial = std::mem::take(&mut conn.partial);
        let start = if partial.is_empty() { piece } else { &partial };
        let is_error = !was_streaming && start.first() == Some(&b'-');
        let is_error = is_error || (is_memcache && memcache::is_error(start));
        self.count_reply(key, &request, streamed + partial.len() + piece.len(), is_error);
        if partial.is_empty() {
            self.deliver(request.to, piece, via, was_streaming);
        } else {
            let mut whole = partial;
            whole.extend_from_slice(piece);
            self.deliver(request.to, &whole, via, was_streaming);
            self.shared.buffers.give(whole);
        }
        self.close_if_spent(key);
        true
    }

    fn greeting_reply(&mut self, key: SlabKey, piece: &[u8]) -> bool {
        let Some(conn) = self.shared.conns.get_mut(key) else { return false };
        if !matches!(conn.stage, Stage::Greeting { .. }) {
            return false;
        }
        let mut reply = std::mem::take(&mut conn.partial);
        reply.extend_from_slice(piece);
        let is_welcome = self.shared.greeted(key, &reply);
        if !is_welcome {
            self.refuse_queue(key, &reply);
            self.fail_conn(key, Failure::Greeting);
        }
        self.shared.buffers.give(reply);
        is_welcome
    }

    /// Gives the server's own refusal to the requests that wait behind the greeting.
    fn refuse_queue(&mut self, key: SlabKey, reply: &[u8]) {
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        let via = conn.id;
        let requests = std::mem::take(&mut conn.in_flight);
        (conn.queued, conn.timed_out, conn.in_flight_bytes) = (0, 0, 0);
        for request in requests {
            self.deliver(request.to, reply, via, false);
        }
    }

    #[inline]
    pub(crate) fn count_reply(
        &mut self,
        key: SlabKey,
        request: &InFlight,
        bytes: usize,
        is_error: bool,
    ) {
        let Some(conn) = self.shared.conns.get(key) else { return };
        let at = (conn.pool, conn.server);
        let (pool, server) = (conn.pool, usize::from(conn.server.0));
        let has_waiters = !conn.waiters.is_empty() && conn.has_room_again();
        let Some(pool) = self.shared.pools.get_mut(usize::from(pool.0)) else { return };
        if let Some(stats) = pool.stats.servers.get_mut(server) {
            stats.responses += 1;
            stats.response_bytes += bytes as u64;
            stats.error_replies += u64::from(is_error);
        }
        if let Some(server) = pool.servers.get_mut(server) {
            server.failures = 0;
        }
        // One that timed out was counted then.
        if request.to.is_wanted() {
            self.note_done(request, at, bytes as u64);
        }
        if has_waiters {
            self.shared.wake_waiters(key);
        }
    }

    /// Keeps the beginning of a reply, or lets it go ahead to the client whose turn it is.
    pub(crate) fn reply_incomplete(&mut self, key: SlabKey, piece: &[u8]) {
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        let via = conn.id;
        let is_push =
            !conn.is_streaming && conn.partial.first().or_else(|| piece.first()) == Some(&b'>');
        let is_ready = conn.stage == Stage::Ready;
        let is_out_of_place = if is_push || !is_ready {
            // Pushes and replies to a greeting are kept whole, so they have to be small.
            conn.partial.len() + piece.len() >= STREAM_REPLY_BYTES
        } else {
            // Its end would be taken for the reply to the next request.
            !conn.is_asked()
        };
        if is_out_of_place {
            self.give_up_babbler(key);
            return;
        }
        let next = if is_ready { conn.in_flight.front().copied() } else { None };
        super::replies::append(&mut conn.partial, &mut self.shared.buffers, piece);
        let kept = conn.partial.len();
        if kept < STREAM_REPLY_BYTES && !conn.is_streaming {
            return;
        }
        let Some(InFlight { to, .. }) = next else { return };
        if conn.is_replicated {
            return self.withhold_beginning(key, to);
        }
        let partial = std::mem::take(&mut conn.partial);
        // What is announced counts like what has come: the window closes before it is too late.
        let announced = usize::try_from(conn.announced_bytes_left()).unwrap_or(usize::MAX);
        let expected = conn.streamed_bytes.saturating_add(kept).saturating_add(announced);
        let left = self.stream(to, partial, via, expected);
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        match left {
            Some(kept) => conn.partial = kept,
            None => {
                conn.is_streaming = true;
                conn.streamed_bytes += kept;
            }
        }
    }

    /// Lets a piece of a reply go ahead. Gives the piece back when it has to wait: for an earlier
    /// reply, or for the parts of the other servers.
    fn stream(
        &mut self,
        to: ReplyTo,
        piece: Buffer,
        via: ConnId,
        expected: usize,
    ) -> Option<Buffer> {
        let kept_bytes = piece.len();
        match to {
            ReplyTo::Client { conn, sequence }
            | ReplyTo::Store { conn, sequence }
            | ReplyTo::Quiet { conn, sequence } => {
                let shared = &mut self.shared;
                let client = self.clients.get_mut(key_of(conn));
                if let Some(client) = client.filter(|client| client.phase != Phase::Closing) {
                    let limit = shared.output_max(client);
                    client.note_reply(expected);
                    if client.unsent_bytes() + kept_bytes > limit {
                        shared.cut_off(client, Limit::ClientOutput);
                    } else if client.replies.is_next(sequence) {
                        let via = via.slot();
                        client.replies.stream(
                            sequence,
                            via,
                            &piece,
                            &mut client.out,
                            &mut shared.buffers,
                        );
                        shared.mark_dirty(client);
                        shared.count(client);
                    } else {
                        return Some(piece);
                    }
                }
            }
            ReplyTo::Split { split, .. } => {
                let client = self.shared.splits.get(split).map(|split| split.client);
                let client = client.and_then(|conn| self.clients.get_mut(key_of(conn)));
                if let Some(client) = client.filter(|client| client.phase != Phase::Closing) {
                    let limit = self.shared.output_max(client);
                    if client.unsent_bytes() + kept_bytes <= limit {
                        return Some(piece);
                    }
                    self.shared.cut_off(client, Limit::ClientOutput);
                }
            }
            ReplyTo::Nobody
            | ReplyTo::Silent { .. }
            | ReplyTo::QuietNobody
            | ReplyTo::Barrier
            | ReplyTo::Copies => {}
        }
        // Whoever asked is gone: the bytes are dropped as they come, never kept.
        self.shared.buffers.give(piece);
        None
    }

    /// Gives a whole reply, or with `is_rest` its last piece, to whoever asked.
    #[inline]
    pub(crate) fn deliver(&mut self, to: ReplyTo, reply: &[u8], via: ConnId, is_rest: bool) {
        match to {
            ReplyTo::Client { conn, sequence }
            | ReplyTo::Store { conn, sequence }
            | ReplyTo::Quiet { conn, sequence } => {
                let Some(client) = self.clients.get_mut(key_of(conn)) else { return };
                if client.phase == Phase::Closing {
                    return;
                }
                let shared = &mut self.shared;
                debug_assert!(
                    !is_rest || client.replies.is_streaming(sequence),
                    "a reply that began to leave is the next one"
                );
                if client.unsent_bytes() > shared.output_max(client) {
                    shared.cut_off(client, Limit::ClientOutput);
                    return;
                }
                client.replies.complete(sequence, reply, &mut client.out, &mut shared.buffers);
                if !is_rest {
                    client.note_reply(reply.len());
                }
                shared.after_reply(client);
            }
            ReplyTo::Split { split, part } => self.deliver_part(split, part, reply, via, is_rest),
            ReplyTo::Silent { conn } => self.silent_done(conn),
            ReplyTo::Nobody | ReplyTo::QuietNobody | ReplyTo::Barrier | ReplyTo::Copies => {}
        }
    }

    fn deliver_part(&mut self, key: SlabKey, part: u16, reply: &[u8], _via: ConnId, is_rest: bool) {
        let Some(split) = self.shared.splits.get_mut(key) else { return };
        let client_key = key_of(split.client);
        let client = self.clients.get_mut(client_key);
        let client = client.filter(|client| client.phase != Phase::Closing && !is_rest);
        let Some(client) = client else {
            // Nobody waits for it: count it off, keep nothing.
            if split.skip_part() {
                self.shared.take_split(key);
            }
            return;
        };
        let is_last = split.take_part(part, reply);
        if !is_last {
            client.kept_bytes += reply.len();
            if client.unsent_bytes() > self.shared.output_max(client) {
                self.shared.cut_off(client, Limit::ClientOutput);
            }
            self.shared.count(client);
            return;
        }
        let Some(mut split) = self.shared.take_split(key) else { return };
        client.kept_bytes = client.kept_bytes.saturating_sub(split.kept_bytes());
        let mut joined = self.shared.buffers.take();
        split.join(&mut joined);
        let buffers = &mut self.shared.buffers;
        client.replies.complete(split.sequence, &joined, &mut client.out, buffers);
        client.note_reply(joined.len());
        buffers.give(joined);
        self.shared.after_reply(client);
    }

    /// Gives up a connection: every request on it fails, and the socket closes.
    pub(crate) fn fail_conn(&mut self, key: SlabKey, failure: Failure) {
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        let (pool, server, lane, id) = (conn.pool, conn.server, conn.lane, conn.id);
        let was_retiring = conn.is_retiring;
        let (is_followed, address) = (conn.is_followed, conn.address);
        let had_purpose = !conn.in_flight.is_empty()
            || conn.is_probe
            || matches!(
                conn.stage,
                Stage::Resolving(_) | Stage::Connecting | Stage::Greeting { .. }
            );
        self.shared.detach(pool, server, lane, id);
        if had_purpose && !was_retiring {
            self.shared.server_failed(pool, server, failure);
        }
        if may_be_dead(failure) {
            self.shared.sight_loss(pool, server, address, failure);
        }
        if is_followed && may_be_dead(failure) {
            self.salvage(key, failure);
        } else {
            self.fail_requests(key, failure);
        }
        self.shared.wake_waiters(key);
        self.shared.shut(key);
    }

    /// Fails every request of a connection that has not timed out already.
    pub(crate) fn fail_requests(&mut self, key: SlabKey, failure: Failure) {
        self.fail_group(key, failure);
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        let is_streaming = std::mem::take(&mut conn.is_streaming);
        conn.streamed_bytes = 0;
        let requests = std::mem::take(&mut conn.in_flight);
        let unsent = if conn.stage == Stage::Ready { conn.queued } else { requests.len() };
        (conn.queued, conn.timed_out, conn.in_flight_bytes) = (0, 0, 0);
        conn.sent.clear();
        let out = std::mem::take(&mut conn.out);
        let partial = std::mem::take(&mut conn.partial);
        let sent = requests.len().saturating_sub(unsent);
        for (at, request) in requests.into_iter().enumerate() {
            let outcome = if at < sent { Outcome::Unknown } else { Outcome::NotSent };
            self.fail_request(key, request.to, failure, outcome, at == 0 && is_streaming);
        }
        self.shared.buffers.give(out);
        self.shared.buffers.give(partial);
    }

    /// Answers one request with an error; when half of its reply has left already, no error can
    /// follow, and the client's connection closes instead.
    pub(crate) fn fail_request(
        &mut self,
        key: SlabKey,
        to: ReplyTo,
        failure: Failure,
        outcome: Outcome,
        is_half_sent: bool,
    ) {
        let Some(conn) = self.shared.conns.get(key) else { return };
        let (pool, server, via) = (conn.pool, conn.server, conn.id);
        if let ReplyTo::Silent { conn } = to {
            if let Some((pool, _)) = self.shared.pool_mut(pool) {
                pool.stats.forward_error += 1;
            }
            self.silent_done(conn);
            return;
        }
        if !to.is_wanted() {
            return;
        }
        if is_half_sent {
            if let ReplyTo::Client { conn, sequence }
            | ReplyTo::Store { conn, sequence }
            | ReplyTo::Quiet { conn, sequence } = to
                && let Some(client) = self.clients.get_mut(key_of(conn))
                && client.replies.is_streaming(sequence)
            {
                self.shared.abort_client(client);
            } else {
                self.deliver(to, b"", via, true);
            }
            return;
        }
        let mut text = std::mem::take(&mut self.failure_text);
        self.shared.write_failure(&mut text, pool, Some(server), failure, outcome);
        self.deliver(to, &text, via, false);
        self.failure_text = text;
    }

    /// Closes a retiring connection when nothing is left that could be answered by it.
    pub(crate) fn close_if_spent(&mut self, key: SlabKey) {
        let Some(conn) = self.shared.conns.get(key) else { return };
        if conn.is_retiring && conn.timed_out >= conn.in_flight.len() {
            let (pool, server, lane, id) = (conn.pool, conn.server, conn.lane, conn.id);
            self.shared.detach(pool, server, lane, id);
            self.fail_requests(key, Failure::TimedOut);
            self.shared.shut(key);
        }
    }

    /// Fails the requests of a connection that have waited too long, and only those.
    pub(crate) fn time_requests_out(&mut self, key: SlabKey) {
        let now = self.shared.now;
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        conn.is_timer_armed = false;
        if conn.stage == Stage::Closing {
            return;
        }
        let (pool, server) = (conn.pool, conn.server);
        let may_retire = !conn.is_held && conn.stage != Stage::Waiting;
        let is_watched = conn.is_watched;
        let Some(conn) = self.shared.conns.get(key) else { return };
        let Some(timeout) = self.shared.patience(conn) else { return };
        let mut unsent = 0;
        loop {
            let Some(conn) = self.shared.conns.get_mut(key) else { return };
            let at = conn.timed_out + unsent;
            let is_sent = at < conn.in_flight.len() - conn.queued;
            let is_streaming = at == 0 && conn.is_streaming;
            let silent_since = conn.received_at;
            let Some(waiting_since) = conn.waiting_since(at) else { break };
            if waiting_since + timeout > now {
                break;
            }
            let Some(request) = conn.in_flight.get_mut(at) else { break };
            if is_streaming {
                // Half of the reply has left; without its other half the stream is broken.
                self.fail_conn(key, Failure::TimedOut);
                return;
            }
            let late = *request;
            let orphaned = request.to.orphaned();
            let to = std::mem::replace(&mut request.to, orphaned);
            let is_silent = may_retire
                && silent_since < request.queued_at + timeout
                && silent_since <= request.queued_at;
            let outcome = if is_sent {
                conn.timed_out += 1;
                Outcome::Unknown
            } else {
                unsent += 1;
                Outcome::NotSent
            };
            if let Some(stats) = self.shared.stats_mut(pool, server) {
                stats.server_timedout += 1;
            }
            if to.is_wanted() {
                self.note_done(&late, (pool, server), 0);
            }
            if is_watched {
                self.expire_watched(key, &late, outcome);
            } else {
                self.fail_request(key, to, Failure::TimedOut, outcome, false);
            }
            if is_silent {
                self.shared.retire(key);
            }
        }
        if unsent > 0 {
            // Their clients were told that they were not sent, so they must not be.
            if let Some(conn) = self.shared.conns.get_mut(key) {
                conn.drop_unsent(unsent);
            }
            self.shared.wake_waiters(key);
        }
        self.close_if_spent(key);
        if self.shared.conns.get(key).is_some_and(|conn| !conn.is_timer_armed) {
            self.shared.rearm_requests(key);
        }
    }
}
