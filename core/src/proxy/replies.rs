//! The replies that one client is owed, in the order of its requests.

use std::collections::VecDeque;

use crate::buf::{Buffer, BufferPool};
use crate::limits::{REPLY_SLOTS_KEPT, STASH_COMPACT_BYTES};

/// A request's place in the client's order; wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sequence(u32);

/// What the proxy knows of one owed reply.
#[derive(Clone, Copy, Debug)]
enum Slot {
    /// A server owes it; `via` is the slot of the server connection.
    Waiting { via: u32 },
    /// Several servers owe parts of it.
    Split,
    /// It is here, but an earlier one is not: bytes of the stash.
    Stashed { start: u32, len: u32 },
    /// Its beginning has left already, the rest follows as it comes.
    Streaming { via: u32 },
}

/// The queue of owed replies. Replies that come early wait in one buffer, the stash, so that a
/// reply out of turn costs one copy and no allocation.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    slots: VecDeque<Slot>,
    /// Sequence of the front slot.
    first: u32,
    /// Stashed slots; the stash is emptied when there are none.
    stashed: u32,
    stash: Buffer,
    /// Bytes of the stash that still wait.
    stashed_bytes: usize,
}

impl Replies {
    /// Returns how many replies are owed.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Tells whether nothing is owed.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the bytes that wait for an earlier reply.
    pub(crate) const fn stashed_bytes(&self) -> usize {
        self.stashed_bytes
    }

    /// Appends a reply that the server connection in slot `via` owes.
    pub(crate) fn push_waiting(&mut self, via: u32) -> Sequence {
        self.push(Slot::Waiting { via })
    }

    /// Appends a reply that will be joined from several.
    pub(crate) fn push_split(&mut self) -> Sequence {
        self.push(Slot::Split)
    }

    fn push(&mut self, slot: Slot) -> Sequence {
        let at = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push_back(slot);
        Sequence(self.first.wrapping_add(at))
    }

    /// Appends a reply that is known at once: it goes straight to `out` when nothing is owed.
    pub(crate) fn push_ready(&mut self, reply: &[u8], out: &mut Buffer, pool: &mut BufferPool) {
        if self.slots.is_empty() {
            append(out, pool, reply);
            return;
        }
        let slot = self.stash(reply, pool);
        self.slots.push_back(slot);
    }

    /// Tells whether `sequence` is the next reply to leave.
    pub(crate) fn is_next(&self, sequence: Sequence) -> bool {
        sequence.0 == self.first && !self.slots.is_empty()
    }

    /// Returns the place after the newest request.
    pub(crate) fn end(&self) -> Sequence {
        let len = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        Sequence(self.first.wrapping_add(len))
    }

    /// Tells whether every request before `place` has been answered in full.
    pub(crate) fn has_passed(&self, place: Sequence) -> bool {
        // Places wrap; at most PIPELINE_MAX lie ahead of the first.
        self.first.wrapping_sub(place.0) < u32::MAX / 2
    }

    /// Notes that another server connection owes the reply of `sequence`, that in slot `via`.
    pub(crate) fn move_to(&mut self, sequence: Sequence, via: u32) {
        let at = sequence.0.wrapping_sub(self.first) as usize;
        if let Some(slot @ Slot::Waiting { .. }) = self.slots.get_mut(at) {
            *slot = Slot::Waiting { via };
        }
    }

    /// Tells whether a reply is owed through the server connection in slot `via`; a reply that
    /// is still to be joined counts, since its parts may be.
    pub(crate) fn is_owed_through(&self, via: u32) -> bool {
        self.slots.iter().any(|slot| match slot {
            Slot::Waiting { via: by } | Slot::Streaming { via: by } => *by == via,
            Slot::Split => true,
            Slot::Stashed { .. } => false,
        })
    }

    /// Takes the whole reply of `sequence`: it leaves to `out` if it is its turn, with those that
    /// waited for it, else it waits.
    #[inline]
    pub(crate) fn complete(
        &mut self,
        sequence: Sequence,
        reply: &[u8],
        out: &mut Buffer,
        pool: &mut BufferPool,
    ) {
        if self.is_next(sequence) {
            append(out, pool, reply);
            self.pop_front(out, pool);
            return;
        }
        let slot = self.stash(reply, pool);
        let at = sequence.0.wrapping_sub(self.first) as usize;
        if let Some(place) = self.slots.get_mut(at) {
            *place = slot;
        }
    }

    /// Sends a piece of the next reply ahead of its end. `sequence` must be next.
    pub(crate) fn stream(
        &mut self,
        sequence: Sequence,
        via: u32,
        piece: &[u8],
        out: &mut Buffer,
        pool: &mut BufferPool,
    ) {
        debug_assert!(self.is_next(sequence), "only the next reply may leave in pieces");
        append(out, pool, piece);
        if let Some(front) = self.slots.front_mut() {
            *front = Slot::Streaming { via };
        }
    }

    /// Tells whether the beginning of `sequence`'s reply has left already.
    pub(crate) fn is_streaming(&self, sequence: Sequence) -> bool {
        self.is_next(sequence) && matches!(self.slots.front(), Some(Slot::Streaming { .. }))
    }

    fn pop_front(&mut self, out: &mut Buffer, pool: &mut BufferPool) {
        self.slots.pop_front();
        self.first = self.first.wrapping_add(1);
        while let Some(Slot::Stashed { start, len }) = self.slots.front().copied() {
            let range = start as usize..start as usize + len as usize;
            append(out, pool, self.stash.get(range).unwrap_or_default());
            self.stashed -= 1;
            self.stashed_bytes -= len as usize;
            self.slots.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        if self.stashed == 0 && self.stash.capacity() > 0 {
            pool.give(std::mem::take(&mut self.stash));
        }
    }

    fn stash(&mut self, reply: &[u8], pool: &mut BufferPool) -> Slot {
        if self.stash.len() > STASH_COMPACT_BYTES && self.stash.len() / 2 > self.stashed_bytes {
            self.compact();
        }
        let start = u32::try_from(self.stash.len()).unwrap_or(u32::MAX);
        let len = u32::try_from(reply.len()).unwrap_or(u32::MAX);
        append(&mut self.stash, pool, reply);
        self.stashed += 1;
        self.stashed_bytes += reply.len();
        Slot::Stashed { start, len }
    }

    /// Closes the holes that replies left behind which were sent already.
    fn compact(&mut self) {
        let mut packed = Buffer::with_capacity(self.stashed_bytes);
        for slot in &mut self.slots {
            if let Slot::Stashed { start, len } = slot {
                let range = *start as usize..*start as usize + *len as usize;
                let at = u32::try_from(packed.len()).unwrap_or(u32::MAX);
                packed.extend_from_slice(self.stash.get(range).unwrap_or_default());
                *start = at;
            }
        }
        self.stash = packed;
    }

    /// Gives memory back after a busy time; for a queue that owes nothing.
    pub(crate) fn shrink(&mut self) {
        if self.slots.is_empty() && self.slots.capacity() > REPLY_SLOTS_KEPT {
            self.slots = VecDeque::new();
        }
    }
}

/// Appends to a buffer that is taken from the pool when it has no memory yet.
#[inline]
pub(crate) fn append(buffer: &mut Buffer, pool: &mut BufferPool, bytes: &[u8]) {
    if buffer.capacity() == 0 {
        *buffer = pool.take();
    }
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_leave_in_the_order_of_the_requests() {
        let (mut replies, mut out, mut pool) =
            (Replies::default(), Buffer::new(), BufferPool::default());
        let first = replies.push_waiting(1);
        let second = replies.push_waiting(2);
        replies.push_ready(b"local", &mut out, &mut pool);
        replies.complete(second, b"two", &mut out, &mut pool);
        assert!(out.is_empty());
        assert_eq!(replies.stashed_bytes(), 8);
        replies.complete(first, b"one", &mut out, &mut pool);
        assert_eq!(out, b"onetwolocal");
        assert!(replies.is_empty());
        assert_eq!(replies.stashed_bytes(), 0);
    }

    #[test]
    fn a_stash_that_never_empties_is_compacted() {
        let (mut replies, mut out, mut pool) =
            (Replies::default(), Buffer::new(), BufferPool::default());
        let reply = vec![b'x'; STASH_COMPACT_BYTES / 4];
        let mut late = replies.push_waiting(0);
        for _ in 0..100 {
            let early = replies.push_waiting(0);
            replies.complete(early, &reply, &mut out, &mut pool);
            let next_late = replies.push_waiting(0);
            let next_early = replies.push_waiting(0);
            replies.complete(next_early, &reply, &mut out, &mut pool);
            replies.complete(late, b"late", &mut out, &mut pool);
            late = next_late;
        }
        assert!(!replies.is_empty(), "the last early reply still waits");
        assert!(replies.stash.len() <= 2 * STASH_COMPACT_BYTES, "{}", replies.stash.len());
        replies.complete(late, b"late", &mut out, &mut pool);
        assert!(replies.is_empty());
        assert_eq!(out.len(), 200 * reply.len() + 101 * 4);
    }
}
