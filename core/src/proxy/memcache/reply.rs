//! What of a reply's way differs from that of Redis'.

use super::BARRIER;
use crate::id::ConnId;
use crate::proxy::Proxy;
use crate::proxy::client::Phase;
use crate::proxy::server::{ReplyTo, ServerConn, Stage};
use crate::proxy::shared::key_of;
use crate::slab::SlabKey;
use crate::wire::resp::ReplyScan;

/// The answer to [`BARRIER`].
const BARRIER_REPLY: &[u8] = b"MN\r\n";

const _: () = assert!(BARRIER.len() == BARRIER_REPLY.len());

impl Proxy {
    /// Takes bytes from a memcached.
    pub(crate) fn memcache_received(&mut self, key: SlabKey, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(conn) = self.shared.conns.get_mut(key) else { return };
            if conn.stage == Stage::Closing {
                return;
            }
            match conn.memcache.advance(rest) {
                Ok(ReplyScan::Complete { len }) => {
                    let (piece, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
                    rest = after;
                    if !self.take_reply(key, piece) {
                        return;
                    }
                }
                Ok(ReplyScan::Incomplete) => return self.reply_incomplete(key, rest),
                Err(_) => return self.give_up_babbler(key),
            }
        }
    }

    /// Takes the end of a reply. Returns false when the connection is given up.
    #[inline]
    fn take_reply(&mut self, key: SlabKey, piece: &[u8]) -> bool {
        let Some(conn) = self.shared.conns.get_mut(key) else { return false };
        let front = conn.in_flight.front().filter(|_| conn.stage == Stage::Ready);
        match front.map(|request| request.to) {
            None
            | Some(
                ReplyTo::Client { .. }
                | ReplyTo::Split { .. }
                | ReplyTo::Silent { .. }
                | ReplyTo::Nobody
                | ReplyTo::Copies,
            ) => self.reply_complete(key, piece),
            Some(to @ (ReplyTo::Quiet { .. } | ReplyTo::QuietNobody)) => {
                if conn.is_asked() && is_barrier(conn, piece) {
                    let _ = conn.pop_in_flight();
                    let via = conn.id;
                    self.keep_quiet(to, via);
                }
                self.reply_complete(key, piece)
            }
            Some(ReplyTo::Barrier) if is_barrier(conn, piece) => self.reply_complete(key, piece),
            Some(ReplyTo::Barrier) => {
                self.give_up_babbler(key);
                false
            }
            Some(ReplyTo::Store { .. }) => {
                let is_lost = begins_with_error(conn, piece);
                let is_alive = self.reply_complete(key, piece);
                if is_alive && is_lost {
                    // It does not know the command and takes the value for others.
                    self.give_up_babbler(key);
                }
                is_alive && !is_lost
            }
        }
    }

    /// Lets a quiet command be over without a reply.
    fn keep_quiet(&mut self, to: ReplyTo, via: ConnId) {
        self.deliver(to, b"", via, false);
        if let ReplyTo::Quiet { conn, .. } = to
            && let Some(client) = self.clients.get_mut(key_of(conn))
            && client.phase != Phase::Closing
            && client.out.is_empty()
            && !client.is_writing
        {
            // Nothing will be written that could do it.
            client.widen();
        }
    }

    /// Notes that a request is over that wanted no reply.
    pub(crate) fn silent_done(&mut self, conn: ConnId) {
        let Some(client) = self.clients.get_mut(key_of(conn)) else { return };
        client.silent = client.silent.saturating_sub(1);
        if client.phase != Phase::Closing {
            self.shared.after_reply(client);
        }
    }
}

/// Whether the reply that ends with `piece` answers [`BARRIER`].
fn is_barrier(conn: &ServerConn, piece: &[u8]) -> bool {
    !conn.is_streaming
        && conn.partial.len() + piece.len() == BARRIER_REPLY.len()
        && BARRIER_REPLY.starts_with(&conn.partial)
        && BARRIER_REPLY.ends_with(piece)
}

/// Whether the reply that ends with `piece` says that the command is not known.
fn begins_with_error(conn: &ServerConn, piece: &[u8]) -> bool {
    !conn.is_streaming && conn.partial.iter().chain(piece).take(5).eq(b"ERROR".iter())
}
