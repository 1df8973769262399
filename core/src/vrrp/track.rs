//! What the health of other things does to a virtual router: its priority, or a fault.

use crate::wire::vrrp::Priority;

/// Largest weight of a tracker, and smallest with the sign changed: from the highest priority to
/// the lowest. A value of a tracked file that lowers the priority further is a fault.
pub const WEIGHT_MAX: i16 = 253;

/// What a tracker is worth, -253 to 253. Zero: its failure is a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight(i16);

impl Weight {
    /// Makes a weight; none outside -253 to 253.
    pub const fn new(weight: i16) -> Option<Self> {
        if weight >= -WEIGHT_MAX && weight <= WEIGHT_MAX { Some(Self(weight)) } else { None }
    }

    /// Returns the number.
    pub const fn get(self) -> i16 {
        self.0
    }
}

/// Names a tracker of one virtual router: its place in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrackerId(pub usize);

/// What a tracker says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// Nothing yet. A tracker without weight keeps its router from starting.
    #[default]
    Unknown,
    /// All is well.
    Up,
    /// It failed.
    Down,
    /// The number in a tracked file, which is multiplied by the weight.
    Value(i32),
}

impl Reading {
    /// Returns it with success and failure in each other's place, if they are to change.
    #[must_use]
    pub const fn turned(self, is_reversed: bool) -> Self {
        match self {
            Self::Up if is_reversed => Self::Down,
            Self::Down if is_reversed => Self::Up,
            Self::Value(value) if is_reversed => Self::Value(value.saturating_neg()),
            Self::Unknown | Self::Up | Self::Down | Self::Value(_) => self,
        }
    }
}

/// All that is tracked for one virtual router.
#[derive(Clone, Debug, Default)]
pub struct Tracking {
    trackers: Vec<(Weight, Reading)>,
    is_link_down: bool,
    is_source_lost: bool,
    has_group_fault: bool,
}

impl Tracking {
    /// Makes trackers that have not said anything.
    pub fn new(weights: impl IntoIterator<Item = Weight>) -> Self {
        let trackers = weights.into_iter().map(|weight| (weight, Reading::Unknown)).collect();
        Self { trackers, ..Self::default() }
    }

    /// Takes a reading in. One of an unknown tracker is ignored.
    pub fn set(&mut self, tracker: TrackerId, reading: Reading) {
        if let Some((_, current)) = self.trackers.get_mut(tracker.0) {
            *current = reading;
        }
    }

    /// Takes other trackers over, with their readings.
    pub fn replace(&mut self, weights: impl IntoIterator<Item = Weight>, readings: &[Reading]) {
        let readings = readings.iter().copied().chain(std::iter::repeat(Reading::Unknown));
        self.trackers = weights.into_iter().zip(readings).collect();
    }

    /// Takes in whether the interface carries frames.
    pub fn set_link(&mut self, is_up: bool) {
        self.is_link_down = !is_up;
    }

    /// Takes in whether the interface has the address that adverts are sent from.
    pub fn set_source(&mut self, is_present: bool) {
        self.is_source_lost = !is_present;
    }

    /// Takes in whether another member of the group has a fault.
    pub fn set_group_fault(&mut self, has_fault: bool) {
        self.has_group_fault = has_fault;
    }

    /// Tells whether something of this router's own is at fault.
    pub fn has_own_fault(&self) -> bool {
        let fails = |&(weight, reading): &(Weight, Reading)| match reading {
            Reading::Unknown | Reading::Up => false,
            Reading::Down => weight.0 == 0,
            Reading::Value(value) if weight.0 == 0 => value != 0,
            Reading::Value(_) => points(weight, reading) < -i64::from(WEIGHT_MAX),
        };
        self.is_link_down || self.is_source_lost || self.trackers.iter().any(fails)
    }

    /// Tells whether the router must not take part.
    pub fn has_fault(&self) -> bool {
        self.has_group_fault || self.has_own_fault()
    }

    /// Tells whether a tracker whose failure would be a fault has not said anything yet.
    pub fn is_pending(&self) -> bool {
        self.trackers.iter().any(|&(weight, reading)| weight.0 == 0 && reading == Reading::Unknown)
    }

    /// Returns the priority that counts: the configured one and all weights, 1 to 254. An owner's
    /// is never changed.
    pub fn effective(&self, base: Priority) -> Priority {
        if base.is_owner() {
            return base;
        }
        let sum: i64 = self.trackers.iter().map(|&(weight, reading)| points(weight, reading)).sum();
        let priority = sum.saturating_add(i64::from(base.get()));
        let (low, high) = (Priority::MIN.get(), Priority::BACKUP_MAX.get());
        let clamped = priority.clamp(i64::from(low), i64::from(high));
        Priority(u8::try_from(clamped).unwrap_or(low))
    }
}

/// Returns what a reading adds: a positive weight rewards health, a negative one punishes failure.
fn points(weight: Weight, reading: Reading) -> i64 {
    let weight = i64::from(weight.0);
    match reading {
        Reading::Unknown => 0,
        Reading::Up => weight.max(0),
        Reading::Down => weight.min(0),
        Reading::Value(value) => weight.saturating_mul(i64::from(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracking(weights: &[i16]) -> Tracking {
        Tracking::new(weights.iter().map(|&weight| Weight::new(weight).unwrap()))
    }

    #[test]
    fn positive_weights_reward_and_negative_ones_punish() {
        let mut tracking = tracking(&[20, -30]);
        assert_eq!(tracking.effective(Priority(100)), Priority(100));
        tracking.set(TrackerId(0), Reading::Up);
        tracking.set(TrackerId(1), Reading::Up);
        assert_eq!(tracking.effective(Priority(100)), Priority(120));
        tracking.set(TrackerId(0), Reading::Down);
        tracking.set(TrackerId(1), Reading::Down);
        assert_eq!(tracking.effective(Priority(100)), Priority(70));
        assert!(!tracking.has_fault() && !tracking.is_pending());
    }

    #[test]
    fn priorities_stay_between_1_and_254_and_an_owner_stays_an_owner() {
        let mut tracking = tracking(&[253, 253]);
        tracking.set(TrackerId(0), Reading::Up);
        assert_eq!(tracking.effective(Priority(100)), Priority(254));
        tracking.set(TrackerId(0), Reading::Value(i32::MIN));
        assert_eq!(tracking.effective(Priority(100)), Priority(1));
        assert_eq!(tracking.effective(Priority::OWNER), Priority::OWNER);
    }

    #[test]
    fn a_tracker_without_weight_makes_a_fault_and_keeps_the_start_waiting() {
        let mut tracking = tracking(&[0]);
        assert!(tracking.is_pending() && !tracking.has_fault());
        tracking.set(TrackerId(0), Reading::Down);
        assert!(!tracking.is_pending() && tracking.has_fault());
        tracking.set(TrackerId(0), Reading::Value(0));
        assert!(!tracking.has_fault());
        tracking.set(TrackerId(0), Reading::Value(-1));
        assert!(tracking.has_fault());
        tracking.set(TrackerId(7), Reading::Down);
    }

    #[test]
    fn a_file_that_takes_more_than_all_priority_is_a_fault() {
        let mut tracking = tracking(&[1]);
        tracking.set(TrackerId(0), Reading::Value(-253));
        assert!(!tracking.has_fault());
        tracking.set(TrackerId(0), Reading::Value(-254));
        assert!(tracking.has_fault());
    }

    #[test]
    fn weights_have_a_range() {
        assert_eq!(Weight::new(254), None);
        assert_eq!(Weight::new(-253).map(Weight::get), Some(-253));
    }
}
