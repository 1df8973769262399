//! TILT: a process that was stopped decides nothing until what it sees is fresh again.

use std::time::Duration;

use crate::time::Instant;

/// A gap between two looks at the clock that is longer means that the process did not run.
pub const TRIGGER: Duration = Duration::from_secs(2);

/// How long nothing is decided after the last such gap, unless configured otherwise: three PING
/// periods, so that whoever is alive has answered.
///
/// Deviates: genuine Sentinels decide nothing for 30 s, because a wall clock that was set wrong
/// tells nothing about what is true now. Here only the process stood still, silence from before it
/// ran again does not count, and a fresh PING has to go unanswered for the whole down-after.
pub const PERIOD: Duration = Duration::from_secs(3);

/// What changed at a look at the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A gap was seen, for the first time or again; it was so long. Deadlines that passed during
    /// it say nothing and have to be moved by it.
    Entered {
        /// How long the process did not run.
        stalled: Duration,
        /// Whether decisions were made until it happened.
        is_new: bool,
    },
    /// Decisions are made again.
    Left,
}

/// Whether decisions are made.
///
/// Deviates: genuine Sentinels look at the wall clock, so that a correction of it blinds them; the
/// clock here is monotonic, so only a stopped process does.
#[derive(Clone, Copy, Debug)]
pub struct Tilt {
    last: Instant,
    since: Option<Instant>,
    count: u64,
    trigger: Duration,
    period: Duration,
}

impl Tilt {
    /// Begins with decisions being made.
    pub const fn new(now: Instant, trigger: Duration, period: Duration) -> Self {
        Self { last: now, since: None, count: 0, trigger, period }
    }

    /// Looks at the clock. To be called at every turn, and more often than the trigger: a timer
    /// belongs to it, see [`deadline`](Self::deadline).
    pub fn observe(&mut self, now: Instant) -> Option<Change> {
        let gap = now.since(self.last);
        self.last = self.last.max(now);
        if gap > self.trigger {
            let is_new = self.since.is_none();
            self.since = Some(now);
            self.count += u64::from(is_new);
            return Some(Change::Entered { stalled: gap, is_new });
        }
        if self.since.is_some_and(|since| now.since(since) > self.period) {
            self.since = None;
            return Some(Change::Left);
        }
        None
    }

    /// Whether nothing may be decided.
    pub const fn is_active(&self) -> bool {
        self.since.is_some()
    }

    /// Returns for how long, none while decisions are made.
    pub fn active_for(&self, now: Instant) -> Option<Duration> {
        self.since.map(|since| now.since(since))
    }

    /// Returns how often it began.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns when the clock has to be looked at again at the latest.
    pub fn deadline(&self) -> Instant {
        self.last + self.trigger / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_stopped_process_decides_nothing_until_the_period_is_over() {
        let mut tilt = Tilt::new(at(0), TRIGGER, Duration::from_secs(5));
        assert_eq!(tilt.observe(at(2000)), None);
        let stalled = Duration::from_millis(2001);
        assert_eq!(tilt.observe(at(4001)), Some(Change::Entered { stalled, is_new: true }));
        assert!(tilt.is_active());
        assert_eq!(tilt.observe(at(6001)), None);
        // Another gap begins the period anew.
        let stalled = Duration::from_millis(2999);
        assert_eq!(tilt.observe(at(9000)), Some(Change::Entered { stalled, is_new: false }));
        for ms in [10_000, 12_000, 14_000] {
            assert_eq!(tilt.observe(at(ms)), None);
        }
        assert_eq!(tilt.active_for(at(14_000)), Some(Duration::from_secs(5)));
        assert_eq!(tilt.observe(at(14_001)), Some(Change::Left));
        assert!(!tilt.is_active());
        assert_eq!(tilt.count(), 1);
    }

    #[test]
    fn the_deadline_comes_before_the_trigger() {
        let tilt = Tilt::new(at(100), TRIGGER, PERIOD);
        assert!(tilt.deadline().since(at(100)) < TRIGGER);
    }
}
