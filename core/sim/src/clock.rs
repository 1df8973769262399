//! Virtual time: what happens when, and in which order when it happens at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ringkeeper_core::time::Instant;

/// Events in the order of their time; of the same time, in the order of their planning, so that
/// a run follows from its seed alone.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    /// When, in which order, and where the event stands: entries move a lot, and events are large.
    heap: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    planned: u64,
}

impl<E> Agenda<E> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), planned: 0 }
    }

    /// Plans `event` for `at`.
    pub(crate) fn plan(&mut self, at: Instant, event: E) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.events[slot as usize] = Some(event);
                slot
            }
            None => {
                self.events.push(Some(event));
                (self.events.len() - 1) as u32
            }
        };
        self.heap.push(Reverse((at, self.planned, slot)));
        self.planned += 1;
    }

    /// Tells when the next event is.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.0.0)
    }

    /// Takes the next event.
    pub(crate) fn take(&mut self) -> Option<(Instant, E)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        Some((at, self.events[slot as usize].take()?))
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
