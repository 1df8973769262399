//! Timers as data: a heap of (moment, key) with lazy cancellation.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Instant;

/// A heap of moments. An owner that no longer wants its timer simply ignores it when it fires, or
/// arms it again for the true moment: the usual request time-out then costs one entry per
/// connection and time-out, not one per request.
#[derive(Debug)]
pub struct Timers<K> {
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Ord + Copy> Timers<K> {
    /// Makes a heap without timers.
    pub const fn new() -> Self {
        Self { heap: BinaryHeap::new() }
    }

    /// Arms a timer.
    pub fn arm(&mut self, at: Instant, key: K) {
        self.heap.push(Reverse((at, key)));
    }

    /// Takes the earliest timer out if it is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let Reverse((at, key)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        Some(key)
    }

    /// Gives each timer the key that `rename` returns, and drops those that it returns none for.
    pub fn rename(&mut self, mut rename: impl FnMut(K) -> Option<K>) {
        let entries = std::mem::take(&mut self.heap).into_vec();
        let renamed = |Reverse((at, key))| rename(key).map(|key| Reverse((at, key)));
        self.heap = entries.into_iter().filter_map(renamed).collect();
    }

    /// Returns the earliest timer.
    pub fn next(&self) -> Option<(Instant, K)> {
        self.heap.peek().map(|Reverse(entry)| *entry)
    }
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_the_order_of_their_moments() {
        let mut timers = Timers::new();
        timers.arm(Instant::from_nanos(30), 'b');
        timers.arm(Instant::from_nanos(10), 'a');
        assert_eq!(timers.pop_due(Instant::from_nanos(9)), None);
        assert_eq!(timers.next(), Some((Instant::from_nanos(10), 'a')));
        assert_eq!(timers.pop_due(Instant::from_nanos(30)), Some('a'));
        assert_eq!(timers.pop_due(Instant::from_nanos(30)), Some('b'));
        assert_eq!(timers.pop_due(Instant::from_nanos(99)), None);
    }
}
