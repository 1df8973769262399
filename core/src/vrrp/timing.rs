//! The intervals of the protocol, in whole microseconds as keepalived counts them.

use std::num::NonZeroU8;
use std::time::Duration;

use crate::wire::vrrp::{AdvertInterval, Priority};

/// Adverts that a backup misses before it takes over, if nothing else is configured.
pub const DOWN_ADVERTS_DEFAULT: NonZeroU8 = NonZeroU8::new(3).unwrap();

/// Returns the time by which a backup of lower priority waits longer.
///
/// Version 2 counts in seconds whatever the interval is: RFC 3768 section 6.1. Version 3 counts in
/// parts of the Active router's interval: RFC 9568 section 6.1.
pub const fn skew(priority: Priority, interval: AdvertInterval) -> Duration {
    let below = 256 - priority.get() as u64;
    let micros = match interval {
        AdvertInterval::Seconds(_) => below * 1_000_000 / 256,
        // 10 ms / 256, cancelled down.
        AdvertInterval::Centiseconds(number) => below * number.get() as u64 * 625 / 16,
    };
    Duration::from_micros(micros)
}

/// Returns how long a backup waits for the Active router before it takes over.
///
/// `adverts` is 3 unless all routers of the link agree on another number.
pub fn active_down(priority: Priority, interval: AdvertInterval, adverts: NonZeroU8) -> Duration {
    interval.duration() * u32::from(adverts.get()) + skew(priority, interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(interval: Option<AdvertInterval>) -> u128 {
        active_down(Priority(100), interval.unwrap(), DOWN_ADVERTS_DEFAULT).as_micros()
    }

    #[test]
    fn a_backup_of_priority_100_waits_as_long_as_keepalived() {
        assert_eq!(down(AdvertInterval::seconds(1)), 3_609_375);
        assert_eq!(down(AdvertInterval::centiseconds(100)), 3_609_375);
        assert_eq!(down(AdvertInterval::centiseconds(10)), 360_937);
        assert_eq!(down(AdvertInterval::centiseconds(1)), 36_093);
    }

    #[test]
    fn version_2_skews_by_parts_of_a_second_and_version_3_of_the_interval() {
        let seconds = AdvertInterval::seconds(10).unwrap();
        assert_eq!(skew(Priority(100), seconds), Duration::from_micros(609_375));
        let centiseconds = AdvertInterval::centiseconds(1000).unwrap();
        assert_eq!(skew(Priority(100), centiseconds), Duration::from_micros(6_093_750));
        assert_eq!(skew(Priority(254), centiseconds), Duration::from_micros(78_125));
        let longest = AdvertInterval::centiseconds(4095).unwrap();
        assert_eq!(skew(Priority(0), longest), Duration::from_micros(40_950_000));
    }
}
