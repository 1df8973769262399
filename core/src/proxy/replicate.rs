//! Writes that are answered when enough replicas have them.
//!
//! A connection that carries such writes sends what has collected and `WAIT` behind it, and nothing
//! more until the `WAIT` is answered: one group at a time. The replies of the group are withheld
//! until then. With enough replicas they are passed on; with too few every write of the group gets
//! an error that says that its outcome is unknown, for the master has it and may keep it. An error
//! of the server's is no promise and passes at once.
//!
//! What is withheld counts as unread by the client that it is for, so it is in the same budgets as
//! any reply: a client that has too much of it is closed, and what it is owed is dropped.

use crate::buf::{Buffer, BufferPool};
use crate::id::{ConnId, PoolId};
use crate::io::{Failure, Limit};
use crate::limits::WITHHELD_PACK_BYTES;
use crate::proxy::Proxy;
use crate::proxy::client::{Client, Phase};
use crate::proxy::figures::Tag;
use crate::proxy::replies::append;
use crate::proxy::request::{Outcome, mark_dirty_server};
use crate::proxy::server::{InFlight, ReplyTo, ServerConn};
use crate::proxy::shared::{Shared, key_of};
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
    /// Length of the replies when it was last looked who waits for them.
    packed_bytes: usize,
}

impl Group {
    /// Withholds a reply.
    fn keep(&mut self, to: ReplyTo, reply: &[u8], buffers: &mut BufferPool) {
        append(&mut self.replies, buffers, reply);
        self.writes.push((to, reply.len()));
    }

    /// Tells whether it is worth a look who waits still: so much has come since the last.
    fn should_pack(&self) -> bool {
        self.replies.len() > WITHHELD_PACK_BYTES.max(self.packed_bytes.saturating_mul(2))
    }

    /// Drops what nobody waits for any more. So at most twice of what clients are charged for is
    /// held, beyond [`WITHHELD_PACK_BYTES`].
    fn pack(&mut self, is_awaited: impl Fn(ReplyTo) -> bool) {
        let mut packed = Buffer::new();
        let mut at = 0;
        for (to, len) in &mut self.writes {
            let reply = self.replies.get(at..at + *len).unwrap_or_default();
            at += *len;
            if is_awaited(*to) {
                packed.extend_from_slice(reply);
            } else {
                *len = 0;
            }
        }
        self.packed_bytes = packed.len();
        self.replies = packed;
    }

    fn take(&mut self) -> (Vec<(ReplyTo, usize)>, Buffer) {
        self.packed_bytes = 0;
        (std::mem::take(&mut self.writes), std::mem::take(&mut self.replies))
    }
}

impl Shared {
    /// Returns whose request a reply belongs to.
    fn asker_of(&self, to: ReplyTo) -> Option<ConnId> {
        match to {
            ReplyTo::Client { conn, .. }
            | ReplyTo::Store { conn, .. }
            | ReplyTo::Quiet { conn, .. }
            | ReplyTo::Silent { conn } => Some(conn),
            ReplyTo::Split { split, .. } => Some(self.splits.get(split)?.client),
            ReplyTo::Nobody | ReplyTo::QuietNobody | ReplyTo::Barrier | ReplyTo::Copies => None,
        }
    }

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
        if request.to.is_wanted() {
            let is_awaited = self.charge(request.to, whole.len());
            if let Some(conn) = self.shared.conns.get_mut(key) {
                let reply = if is_awaited { &*whole } else { &[] };
                conn.group.keep(request.to, reply, &mut self.shared.buffers);
            }
            self.pack_group(key);
        } else if matches!(request.to, ReplyTo::Copies) {
            let copies = parse_integer_reply(&whole).unwrap_or(0);
            self.end_group(key, copies);
        }
        self.shared.buffers.give(whole);
    }

    /// Looks at a reply to be withheld whose end has not come: if nobody waits for it, or it is
    /// more than its client may leave unread, its bytes are dropped as they come.
    pub(crate) fn withhold_beginning(&mut self, key: SlabKey, to: ReplyTo) {
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        let kept = conn.partial.len();
        if let Some(client) = self.awaiting(to) {
            let limit = self.shared.output_max(client);
            if client.unsent_bytes().saturating_add(kept) <= limit {
                return;
            }
            self.cut_off_asker(to);
        }
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        conn.is_streaming = true;
        conn.streamed_bytes += kept;
        let partial = std::mem::take(&mut conn.partial);
        self.shared.buffers.give(partial);
    }

    /// Returns the client that waits for a reply.
    fn awaiting(&self, to: ReplyTo) -> Option<&Client> {
        let client = self.clients.get(key_of(self.shared.asker_of(to)?))?;
        (client.phase != Phase::Closing).then_some(client)
    }

    fn cut_off_asker(&mut self, to: ReplyTo) {
        let Some(asker) = self.shared.asker_of(to) else { return };
        if let Some(client) = self.clients.get_mut(key_of(asker)) {
            self.shared.cut_off(client, Limit::ClientOutput);
        }
    }

    /// Counts a withheld reply among what its client has not read. Returns false when nobody waits
    /// for it, or nobody does any more because it was too much.
    fn charge(&mut self, to: ReplyTo, bytes: usize) -> bool {
        let Some(client) = self.awaiting(to) else { return false };
        if client.unsent_bytes().saturating_add(bytes) > self.shared.output_max(client) {
            self.cut_off_asker(to);
            return false;
        }
        self.change_kept(to, |kept| kept + bytes);
        true
    }

    fn change_kept(&mut self, to: ReplyTo, change: impl FnOnce(usize) -> usize) {
        let Some(asker) = self.shared.asker_of(to) else { return };
        let Some(client) = self.clients.get_mut(key_of(asker)) else { return };
        if client.phase != Phase::Closing {
            client.kept_bytes = change(client.kept_bytes);
            self.shared.count(client);
        }
    }

    fn pack_group(&mut self, key: SlabKey) {
        let Some(conn) = self.shared.conns.get_mut(key) else { return };
        if conn.group.should_pack() {
            let mut group = std::mem::take(&mut conn.group);
            group.pack(|to| self.awaiting(to).is_some());
            if let Some(conn) = self.shared.conns.get_mut(key) {
                conn.group = group;
            }
        }
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
        let (writes, replies) = conn.group.take();
        let mut at = 0;
        for (to, len) in writes {
            self.change_kept(to, |kept| kept.saturating_sub(len));
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
        let (writes, replies) = group.take();
        let count = writes.len() as u64;
        self.shared.buffers.give(replies);
        for (to, len) in writes {
            self.change_kept(to, |kept| kept.saturating_sub(len));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_is_not_kept_for_long() {
        let mut group = Group::default();
        let mut buffers = BufferPool::default();
        let of = |index| {
            let conn = ConnId::client(index, 0);
            ReplyTo::Client { conn, sequence: crate::proxy::replies::Sequence::default() }
        };
        let is_first =
            |to| matches!(to, ReplyTo::Client { conn, .. } if conn == ConnId::client(0, 0));
        let reply = vec![b'x'; 10_000];
        let mut most = 0;
        for turn in 0..1_000 {
            group.keep(of(turn % 100), &reply, &mut buffers);
            if group.should_pack() {
                group.pack(is_first);
            }
            most = most.max(group.replies.len());
        }
        assert!(most <= WITHHELD_PACK_BYTES + reply.len(), "{most}");
        group.pack(is_first);
        let (writes, replies) = group.take();
        assert_eq!(writes.len(), 1_000, "everybody is told something");
        assert_eq!(replies.len(), 10 * reply.len());
        assert_eq!(writes.iter().map(|(_, len)| *len).sum::<usize>(), replies.len());
    }
}
