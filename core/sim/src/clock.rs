//! Virtual time: what happens when, and in which order when it happens at once.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use ringkeeper_core::time::Instant;

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
    order: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Events in the order of their time; of the same time, in the order of their planning, so that
/// a run follows from its seed alone.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    planned: u64,
}

impl<E> Agenda<E> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), planned: 0 }
    }

    /// Plans `event` for `at`.
    pub(crate) fn plan(&mut self, at: Instant, event: E) {
        self.heap.push(Reverse(Entry { at, order: self.planned, event }));
        self.planned += 1;
    }

    /// Tells when the next event is.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.0.at)
    }

    /// Takes the next event.
    pub(crate) fn take(&mut self) -> Option<(Instant, E)> {
        self.heap.pop().map(|entry| (entry.0.at, entry.0.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_the_same_moment_keep_the_order_of_their_planning() {
        let mut agenda = Agenda::new();
        agenda.plan(Instant::from_nanos(5), 'b');
        agenda.plan(Instant::from_nanos(5), 'c');
        agenda.plan(Instant::from_nanos(1), 'a');
        let order: String = std::iter::from_fn(|| agenda.take()).map(|(_, event)| event).collect();
        assert_eq!(order, "abc");
    }
}
