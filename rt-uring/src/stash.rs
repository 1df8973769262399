//! Bytes that the kernel had received before it heard of a pause, beyond what the contract lets
//! the runtime hand over ([`READS_IN_FLIGHT`](ringkeeper_core::limits::READS_IN_FLIGHT)).
//!
//! Rare: it takes small buffers and a fast sender. Bounded by the buffer ring, because the
//! cancellation goes out with the very next system call.

use ringkeeper_core::id::ConnId;
use ringkeeper_core::limits::RECEIVE_BYTES_MAX;

/// What one paused connection has left.
#[derive(Debug)]
struct Held {
    conn: ConnId,
    /// In the order of the stream.
    bytes: Vec<u8>,
    /// Bytes that were handed over already.
    told: usize,
    /// Whether the end of stream follows the bytes.
    is_eof: bool,
}

/// The next of what is held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    /// Bytes; ask again.
    Bytes(&'a [u8]),
    /// The end of the stream; nothing more is held.
    Eof,
    /// Nothing more is held.
    Nothing,
}

/// The held bytes of all paused connections.
#[derive(Debug, Default)]
pub(crate) struct Stash {
    // A list: it is empty almost always, and short otherwise.
    held: Vec<Held>,
}

impl Stash {
    /// Adds bytes behind what is held of the connection.
    pub(crate) fn push(&mut self, conn: ConnId, bytes: &[u8]) {
        // A copy: the ring's buffer must go back to the kernel, or other connections starve.
        self.entry(conn).bytes.extend_from_slice(bytes);
    }

    /// Remembers that the stream ends behind what is held.
    pub(crate) fn push_eof(&mut self, conn: ConnId) {
        self.entry(conn).is_eof = true;
    }

    /// Gives the next of what is held of the connection, at most [`RECEIVE_BYTES_MAX`] bytes.
    pub(crate) fn next(&mut self, conn: ConnId) -> Next<'_> {
        let Some(position) = self.held.iter().position(|held| held.conn == conn) else {
            return Next::Nothing;
        };
        let is_done = self.held.get(position).is_none_or(|held| held.told >= held.bytes.len());
        if is_done {
            let held = self.held.swap_remove(position);
            return if held.is_eof { Next::Eof } else { Next::Nothing };
        }
        let Some(held) = self.held.get_mut(position) else { return Next::Nothing };
        let rest = held.bytes.get(held.told..).unwrap_or_default();
        let bytes = rest.get(..RECEIVE_BYTES_MAX).unwrap_or(rest);
        held.told += bytes.len();
        Next::Bytes(bytes)
    }

    /// Forgets what is held of the connection.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.held.retain(|held| held.conn != conn);
    }

    fn entry(&mut self, conn: ConnId) -> &mut Held {
        let position = self.held.iter().position(|held| held.conn == conn);
        let position = position.unwrap_or_else(|| {
            self.held.push(Held { conn, bytes: Vec::new(), told: 0, is_eof: false });
            self.held.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "the position was found or made just above")]
        &mut self.held[position]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_bytes_come_out_in_order_and_in_lawful_pieces() {
        let mut stash = Stash::default();
        let (conn, other) = (ConnId::client(1, 0), ConnId::client(2, 0));
        stash.push(conn, &[1; RECEIVE_BYTES_MAX]);
        stash.push(other, b"other");
        stash.push(conn, b"end");
        stash.push_eof(conn);
        assert_eq!(stash.next(conn), Next::Bytes(&[1; RECEIVE_BYTES_MAX]));
        assert_eq!(stash.next(conn), Next::Bytes(b"end"));
        assert_eq!(stash.next(conn), Next::Eof);
        assert_eq!(stash.next(conn), Next::Nothing);
        stash.forget(other);
        assert_eq!(stash.next(other), Next::Nothing);
    }
}
