//! The requests that took long, newest first, as Redis' `SLOWLOG` keeps them.

use std::collections::VecDeque;
use std::time::Duration;

use super::{KeyHead, Name, Peer};
use crate::id::{PoolId, ServerId, WorkerId};
use crate::limits::SLOW_ENTRIES_MAX;

/// A request that was seen: slow, or picked as an example. Names are looked up when somebody asks,
/// so that keeping it allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Counts up from zero in each worker; `SLOWLOG` shows it as the entry's name.
    pub number: u64,
    /// When its reply was complete, microseconds since 1970.
    pub unix_micros: u64,
    /// From the moment it was queued for its server to the end of the reply.
    pub duration: Duration,
    /// The pool.
    pub pool: PoolId,
    /// The server that answered, or should have.
    pub server: ServerId,
    /// The command's place in its protocol's table.
    pub command: u8,
    /// The beginning of its first argument, as a rule its key.
    pub key: KeyHead,
    /// Length of the request, bytes.
    pub request_bytes: u32,
    /// Length of the reply, bytes; zero if none came.
    pub reply_bytes: u64,
    /// Who asked; `None` if the client is gone.
    pub client: Option<Peer>,
    /// The name that the client gave itself.
    pub client_name: Option<Box<[u8]>>,
}

/// A request that was seen, with names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRow {
    /// Which worker saw it; it numbers what it sees.
    pub worker: WorkerId,
    /// Counts up in each worker.
    pub number: u64,
    /// When its reply was complete, microseconds since 1970.
    pub unix_micros: u64,
    /// How long it took.
    pub duration: Duration,
    /// The pool.
    pub pool: Name,
    /// The server.
    pub server: Name,
    /// The command.
    pub command: &'static str,
    /// The beginning of its first argument.
    pub key: KeyHead,
    /// Length of the request, bytes.
    pub request_bytes: u32,
    /// Length of the reply, bytes; zero if none came.
    pub reply_bytes: u64,
    /// Who asked; empty if the client is gone.
    pub client: String,
    /// The name that the client gave itself.
    pub client_name: Option<Box<[u8]>>,
}

/// The last slow requests of a worker. Bounded: an old entry leaves for a new one.
#[derive(Debug, Default)]
pub struct SlowLog {
    entries: VecDeque<Seen>,
    next: u64,
}

impl SlowLog {
    /// Adds an entry and numbers it.
    pub fn push(&mut self, mut seen: Seen) {
        seen.number = self.next;
        self.next += 1;
        if self.entries.len() >= SLOW_ENTRIES_MAX {
            self.entries.pop_back();
        }
        self.entries.push_front(seen);
    }

    /// Returns the entries, newest first.
    pub fn entries(&self) -> impl Iterator<Item = &Seen> {
        self.entries.iter()
    }

    /// Keeps the entries that `keep` wants, which may change them; numbers go on. Returns how many
    /// are gone.
    pub fn retain(&mut self, keep: impl FnMut(&mut Seen) -> bool) -> u64 {
        let before = self.entries.len();
        self.entries.retain_mut(keep);
        (before - self.entries.len()) as u64
    }
}

/// Puts the entries of several workers into one order, newest first, and keeps `most`.
pub fn newest_first(entries: &mut Vec<SeenRow>, most: usize) {
    entries.sort_by(|one, other| {
        (other.unix_micros, other.number).cmp(&(one.unix_micros, one.number))
    });
    entries.truncate(most);
}

#[cfg(test)]
pub(crate) fn seen(pool: u16, unix_micros: u64) -> Seen {
    Seen {
        number: 0,
        unix_micros,
        duration: Duration::from_millis(20),
        pool: PoolId(pool),
        server: ServerId(0),
        command: 0,
        key: KeyHead::of(b"key"),
        request_bytes: 20,
        reply_bytes: 5,
        client: None,
        client_name: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_come_first_and_the_oldest_leave() {
        let mut log = SlowLog::default();
        for at in 0..SLOW_ENTRIES_MAX as u64 + 3 {
            log.push(seen(0, at));
        }
        let all: Vec<u64> = log.entries().map(|seen| seen.number).collect();
        assert_eq!(all.len(), SLOW_ENTRIES_MAX);
        assert_eq!(all.first(), Some(&(SLOW_ENTRIES_MAX as u64 + 2)));
        assert_eq!(all.last(), Some(&3));
    }

    #[test]
    fn numbers_go_on_after_entries_were_forgotten() {
        let mut log = SlowLog::default();
        log.push(seen(0, 1));
        log.push(seen(1, 2));
        assert_eq!(log.retain(|seen| seen.pool != PoolId(0)), 1);
        assert_eq!(log.entries().count(), 1);
        log.push(seen(0, 3));
        assert_eq!(log.entries().next().map(|seen| seen.number), Some(2));
    }
}
