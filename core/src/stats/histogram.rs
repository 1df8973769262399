//! How long requests took: counts in buckets whose width grows with the time.
//!
//! A bucket is an eighth of its power of two, so a time read back from the histogram is at most
//! an eighth too long. All histograms have the same buckets, so adding two of them up loses
//! nothing, and their memory is fixed.

use std::time::Duration;

/// Bits of a time that choose the bucket inside its power of two.
const LINEAR_BITS: u32 = 3;
const LINEAR: u64 = 1 << LINEAR_BITS;

/// Shortest time that is told from zero, nanoseconds. The clock is sampled once per turn, so
/// anything finer would be noise.
const UNIT_NANOS: u64 = 1000;

/// Longest time with a bucket of its own, as a power of two of microseconds: 67 s. What took
/// longer shares the last bucket.
const LONGEST_BITS: u32 = 26;

/// How many buckets there are.
pub const BUCKETS: usize = ((LONGEST_BITS - LINEAR_BITS + 1) as usize + 1) << LINEAR_BITS;

/// Counts of times by bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    count: u64,
    sum_nanos: u64,
    max_nanos: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], count: 0, sum_nanos: 0, max_nanos: 0 }
    }
}

impl Histogram {
    /// Counts one time.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        if let Some(count) = self.counts.get_mut(bucket_of(nanos)) {
            *count += 1;
        }
        self.count += 1;
        self.sum_nanos = self.sum_nanos.saturating_add(nanos);
        self.max_nanos = self.max_nanos.max(nanos);
    }

    /// Adds the counts of another one.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
        self.max_nanos = self.max_nanos.max(other.max_nanos);
    }

    /// Returns how many times were counted.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns the times' sum; saturates after 584 years.
    pub const fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }

    /// Returns the longest time, exactly.
    pub const fn max(&self) -> Duration {
        Duration::from_nanos(self.max_nanos)
    }

    /// Returns how many times lie in buckets that end at `bound` or below. Exact where a bucket
    /// ends at the bound, as at every power of two of microseconds.
    pub fn count_within(&self, bound: Duration) -> u64 {
        let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        let within = self.counts.iter().enumerate().take_while(|(at, _)| end_of(*at) <= bound);
        within.map(|(_, count)| count).sum()
    }

    /// Returns a time that `share` (0 to 1) of the counted ones did not pass: the end of their
    /// bucket, at most an eighth above the truth, and never above the longest.
    pub fn quantile(&self, share: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a count; the cast saturates, and a rank off by one in 2^53 is fine"
        )]
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(end_of(at).min(self.max_nanos));
            }
        }
        self.max()
    }
}

/// Returns the bucket of a time. Below eight units each unit has its own.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "below the number of buckets")]
const fn bucket_of(nanos: u64) -> usize {
    let units = nanos / UNIT_NANOS;
    if units < LINEAR {
        return units as usize;
    }
    let power = u64::BITS - 1 - units.leading_zeros();
    let shift = power - LINEAR_BITS;
    let inside = (units >> shift) & (LINEAR - 1);
    let at = ((shift as u64 + 1) << LINEAR_BITS) + inside;
    if at < BUCKETS as u64 { at as usize } else { BUCKETS - 1 }
}

/// Returns the first nanosecond after a bucket; the last bucket has no end.
const fn end_of(at: usize) -> u64 {
    if at + 1 >= BUCKETS {
        return u64::MAX;
    }
    let next = at as u64 + 1;
    if next < LINEAR {
        return next * UNIT_NANOS;
    }
    let shift = (next >> LINEAR_BITS) - 1;
    (((next & (LINEAR - 1)) | LINEAR) << shift) * UNIT_NANOS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_a_bucket_that_is_at_most_an_eighth_wide() {
        let mut nanos = 0_u64;
        while nanos < UNIT_NANOS << LONGEST_BITS {
            let at = bucket_of(nanos);
            let start = if at == 0 { 0 } else { end_of(at - 1) };
            assert!(start <= nanos && nanos < end_of(at), "{nanos} in {start}..{}", end_of(at));
            assert!((end_of(at) - start) <= (start >> 3).max(UNIT_NANOS), "{nanos}");
            nanos += (nanos >> 5).max(77);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn bounds_at_powers_of_two_are_exact() {
        let mut histogram = Histogram::default();
        for nanos in [0, 999, 1000, 1999, 2000, 1_023_999, 1_024_000, u64::MAX] {
            histogram.record(nanos);
        }
        assert_eq!(histogram.count_within(Duration::from_micros(1)), 2);
        assert_eq!(histogram.count_within(Duration::from_micros(2)), 4);
        assert_eq!(histogram.count_within(Duration::from_micros(1024)), 6);
        assert_eq!(histogram.count_within(Duration::from_secs(67)), 7);
        assert_eq!(histogram.count(), 8);
    }

    #[test]
    fn quantiles_are_at_most_an_eighth_too_long_and_the_longest_is_exact() {
        let mut histogram = Histogram::default();
        for millis in 1..=1000 {
            histogram.record(millis * 1_000_000);
        }
        for (share, truth) in [(0.5, 500_u64), (0.9, 900), (0.99, 990)] {
            let got = u64::try_from(histogram.quantile(share).as_nanos()).unwrap();
            let truth = truth * 1_000_000;
            assert!(got >= truth && got <= truth + truth / 8, "{share}: {got}");
        }
        assert_eq!(histogram.quantile(1.0), Duration::from_secs(1));
        assert_eq!(histogram.max(), Duration::from_secs(1));
        assert_eq!(Histogram::default().quantile(0.99), Duration::ZERO);
    }

    #[test]
    fn adding_up_workers_gives_what_one_would_have_counted() {
        let (mut one, mut other, mut both) =
            (Histogram::default(), Histogram::default(), Histogram::default());
        for at in 0..5000_u64 {
            let nanos = at * at * 37;
            if at % 3 == 0 { &mut one } else { &mut other }.record(nanos);
            both.record(nanos);
        }
        one.merge(&other);
        assert_eq!(one, both);
    }
}
