//! The requests that took long, newest first, as Redis' `SLOWLOG` keeps them.

use std::collections::VecDeque;
use std::time::Duration;

use super::KeyHead;
use crate::id::{PoolId, ServerId};
use crate::limits::SLOW_ENTRIES_MAX;

/// A request that was seen: slow, or picked as an example.
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
    /// The beginning of its first key.
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

    /// Returns the entries of a pool, newest first.
    pub fn of_pool(&self, pool: Option<PoolId>) -> impl Iterator<Item = &Seen> {
        self.entries.iter().filter(move |seen| pool.is_none_or(|pool| seen.pool == pool))
    }

    /// Forgets the entries of a pool, or all; numbers go on.
    pub fn reset(&mut self, pool: Option<PoolId>) {
        self.entries.retain(|seen| pool.is_some_and(|pool| seen.pool != pool));
    }
}

/// Puts the entries of several workers into one order, newest first, and keeps `most`.
pub fn newest_first(entries: &mut Vec<Seen>, most: usize) {
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
        client: String::from("127.0.0.1:5"),
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
            log.push(seen(u16::from(at % 2 == 1), at));
        }
        let all: Vec<u64> = log.of_pool(None).map(|seen| seen.number).collect();
        assert_eq!(all.len(), SLOW_ENTRIES_MAX);
        assert_eq!(all.first(), Some(&(SLOW_ENTRIES_MAX as u64 + 2)));
        assert_eq!(all.last(), Some(&3));
        assert_eq!(log.of_pool(Some(PoolId(1))).count(), SLOW_ENTRIES_MAX / 2);
    }

    #[test]
    fn a_pool_forgets_its_own_entries_only_and_numbers_go_on() {
        let mut log = SlowLog::default();
        log.push(seen(0, 1));
        log.push(seen(1, 2));
        log.reset(Some(PoolId(0)));
        assert_eq!(log.of_pool(None).count(), 1);
        log.reset(None);
        log.push(seen(0, 3));
        assert_eq!(log.of_pool(None).next().map(|seen| seen.number), Some(2));
    }

    #[test]
    fn entries_of_several_workers_are_ordered_by_time() {
        let mut all = vec![seen(0, 5), seen(0, 1), seen(0, 9)];
        newest_first(&mut all, 2);
        assert_eq!(all.iter().map(|seen| seen.unix_micros).collect::<Vec<_>>(), [9, 5]);
    }
}
