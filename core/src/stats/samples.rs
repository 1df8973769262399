//! Examples of requests, a few a second, so that traffic can be watched at no cost.

use std::collections::VecDeque;

use super::Seen;
use crate::limits::{SAMPLE_INTERVAL, SAMPLES_MAX};
use crate::rng::Rng;
use crate::time::Instant;

/// Requests that are let pass, at most, once an example is due: the first reply of a turn comes
/// from whatever server is read first, and must not be preferred.
const SKIP_MAX: u64 = 64;

/// The last examples of a worker.
#[derive(Debug)]
pub struct Samples {
    seen: VecDeque<Seen>,
    next: u64,
    due_at: Instant,
    skip: u64,
    rng: Rng,
}

impl Samples {
    /// Makes an empty list; which requests become examples follows from the seed.
    pub const fn new(rng: Rng) -> Self {
        Self { seen: VecDeque::new(), next: 0, due_at: Instant::START, skip: 0, rng }
    }

    /// Takes no examples.
    pub fn stop(&mut self) {
        self.due_at = Instant::from_nanos(u64::MAX);
    }

    /// Tells whether the request that is complete now is to be an example.
    #[inline]
    pub fn wants(&mut self, now: Instant) -> bool {
        if now < self.due_at {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        true
    }

    /// Tells whether [`Samples::wants`] has just said yes.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.due_at && self.skip == 0
    }

    /// Keeps an example and numbers it.
    pub fn push(&mut self, now: Instant, mut seen: Seen) {
        seen.number = self.next;
        self.next += 1;
        self.due_at = now + SAMPLE_INTERVAL;
        self.skip = self.rng.below(SKIP_MAX);
        if self.seen.len() >= SAMPLES_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(seen);
    }

    /// Keeps the examples that `keep` wants, which may change them.
    pub fn retain(&mut self, keep: impl FnMut(&mut Seen) -> bool) {
        self.seen.retain_mut(keep);
    }

    /// Returns the examples after a moment (microseconds since 1970), oldest first.
    pub fn after(&self, unix_micros: u64) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(move |seen| seen.unix_micros > unix_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::slow::seen;

    #[test]
    fn at_most_a_hundred_a_second_are_taken_and_the_first_of_a_turn_not_always() {
        let mut samples = Samples::new(Rng::new(3));
        let mut first = 0;
        for turn in 0..1000_u64 {
            let now = Instant::from_nanos(turn * 1_000_000);
            for request in 0..200 {
                if samples.wants(now) {
                    samples.push(now, seen(0, turn));
                    first += u32::from(request == 0);
                }
            }
        }
        assert_eq!(samples.next, 100);
        assert!(first < 20, "{first}");
        assert_eq!(samples.after(899).count(), 10);
    }

    #[test]
    fn old_examples_are_overwritten() {
        let mut samples = Samples::new(Rng::new(3));
        for at in 0..=SAMPLES_MAX as u64 {
            samples.push(Instant::START, seen(0, at));
        }
        assert_eq!(samples.after(0).count(), SAMPLES_MAX);
        assert_eq!(samples.after(0).next().map(|seen| seen.number), Some(1));
    }
}
