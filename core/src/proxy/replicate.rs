//! Writes that are answered when enough replicas have them.
//!
//! A connection that carries such writes sends what has collected and `WAIT` behind it, and nothing
//! more until the `WAIT` is answered: one group at a time. The replies of the group are withheld
//! until then. With enough replicas they are passed on; with too few every write of the group gets
//! an error that says that its outcome is unknown, for the master has it and may keep it. An error
//! of the server's is no promise and passes at once.

use crate::buf::Buffer;
use crate::id::PoolId;
use crate::io::Failure;
use crate::proxy::Proxy;
use crate::proxy::figures::Tag;
use crate::proxy::request::{Outcome, mark_dirty_server};
use crate::proxy::server::{InFlight, ReplyTo, ServerConn};
use crate::proxy::shared::Shared;
use crate::slab::SlabKey;
use crate::stats::{Class, KeyHead};
use crate::wire::resp::encode;
use crate::wire::resp::reply::parse_integer_reply;

/// The writes of one connection that wait for their replicas.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// `WAIT` is under way: nothing else is sent.
    pub(crate) is_pending: bool,
    /// Whose replies are withheld, each with its length.
    writes: Vec<(ReplyTo, usize)>,
    replies: Buffer,
}

impl Shared {
    /// Notes what is about to leave for a shard, in case that it has to be sent again, and puts
    /// `WAIT` behind it where replicas are waited for.
    pub(crate) fn note_write(&mut self, key: SlabKey, buffer: &mut Buffer) {
        let Some(conn) = self.conns.get(key) else { return };
        if conn.is_replicated {
            self.close_group(key, buffer);
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.is_followed {
            conn.sent.note(buffer, conn.in_flight.len(), conn.sent_bytes_max);
        }
    }

    /// Puts `WAIT` behind the writes that are about to leave.
    fn close_group(&mut self, key: SlabKey, buffer: &mut Buffer) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(plan) = self.plan.pools.get(usize::from(conn.pool.0)) else { return };
        let Some(copies) = plan.failover.replicated else { return };
        let timeout = plan.failover.replicated_timeout.as_millis().to_string();
        let before = buffer.len();
        encode::request(buffer, &[b"WAIT", copies.to_string().as_bytes(), timeout.as_bytes()]);
        let bytes = u32::try_from(buffer.len() - before).unwrap_or(u32::MAX);
        conn.in_flight.push_back(InFlight {
            to: ReplyTo::Copies,
            queued_at: now,
            bytes,
            tag: Tag { command: u8::MAX, class: Class::Other },
            key: KeyHead::EMPTY,
        });
        conn.in_flight_bytes += u64::from(bytes);
        conn.group.is_pending = true;
    }
}

impl Proxy {
    /// Keeps the reply to a write until its replicas are known to have it; or takes the number of
    /// those that do.
    pub(crate) fn withhold(&mut self, key: SlabKey, piece: &[u8]) {
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        let mut whole = std::mem::take(&mut conn.partial);
        whole.extend_from_slice(piece);
        let Some(request) = conn.pop_in_flight() else { return };
        self.count_reply(key, &request, whole.len(), false);
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        if request.to.is_wanted() {
            conn.group.replies.extend_from_slice(&whole);
            conn.group.writes.push((request.to, whole.len()));
        } else if matches!(request.to, ReplyTo::Copies) {
            let copies = parse_integer_reply(&whole).unwrap_or(0);
            self.end_group(key, copies);
        }
        self.shared.buffers.give(whole);
    }

    fn end_group(&mut self, key: SlabKey, copies: i64) {
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        conn.group.is_pending = false;
        mark_dirty_server(&mut self.shared.outbox.dirty_servers, conn);
        let (pool, via) = (conn.pool, conn.id);
        if copies < self.copies_of(pool) {
            return self.fail_group(key, Failure::TooFewCopies);
        }
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        let writes = std::mem::take(&mut conn.group.writes);
        let replies = std::mem::take(&mut conn.group.replies);
        let mut at = 0;
        for (to, len) in writes {
            self.deliver(to, replies.get(at..at + len).unwrap_or_default(), via, false);
            at += len;
        }
        self.shared.buffers.give(replies);
    }

    fn copies_of(&self, pool: PoolId) -> i64 {
        let plan = self.shared.plan.pools.get(usize::from(pool.0));
        let copies = plan.and_then(|plan| plan.failover.replicated);
        copies.map_or(0, |copies| i64::from(copies.get()))
    }

    /// Tells everybody whose write waits for replicas that its outcome is unknown.
    pub(crate) fn fail_group(&mut self, key: SlabKey, failure: Failure) {
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        let ServerConn { pool, server, group, .. } = conn;
        let (pool, server) = (*pool, *server);
        group.replies.clear();
        let writes = std::mem::take(&mut group.writes);
        let count = writes.len() as u64;
        for (to, _) in writes {
            self.fail_request(key, to, failure, Outcome::Unknown, false);
        }
        if count == 0 {
            return;
        }
        if let Some((pool, _)) = self.shared.pool_mut(pool) {
            pool.stats.requests_unknown += count;
        }
        if let Some(tally) = self.shared.tally(pool, server) {
            tally.unknown += count;
        }
    }
}
