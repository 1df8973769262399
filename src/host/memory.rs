//! Gives the memory of a burst back to the system.

use std::time::{Duration, Instant};

use crate::host::sys;

/// How often the main thread looks. With one round of patience after a trim without gain, a
/// burst's memory is gone within 8 s of its end.
const LOOK_EVERY: Duration = Duration::from_secs(4);

/// Growth over the smallest size seen that is worth a trim, bytes. A trim holds the allocator's
/// lock, so small gains are left alone.
const WORTHWHILE_BYTES: u64 = 8 * 1024 * 1024;

/// Watches the size of the process between two looks.
#[derive(Debug)]
pub(crate) struct Trimmer {
    last: Instant,
    /// Smallest resident size seen, bytes.
    floor: u64,
    /// The last trim gained nothing: wait one round before the next.
    is_patient: bool,
}

impl Trimmer {
    /// Starts with the present size as the smallest.
    pub(crate) fn new() -> Self {
        Self { last: Instant::now(), floor: resident_bytes().unwrap_or(0), is_patient: false }
    }

    /// Returns how long until there is something to look at.
    pub(crate) fn until_next_look(&self) -> Duration {
        LOOK_EVERY.saturating_sub(self.last.elapsed())
    }

    /// Looks if it is time, and trims if that may gain something.
    pub(crate) fn look(&mut self) {
        if self.last.elapsed() < LOOK_EVERY {
            return;
        }
        self.last = Instant::now();
        let Some(before) = resident_bytes() else { return };
        if !self.should_trim(before) {
            return;
        }
        sys::trim_heap();
        let after = resident_bytes().unwrap_or(before);
        self.note(before, after);
    }

    fn should_trim(&mut self, resident: u64) -> bool {
        self.floor = self.floor.min(resident);
        if resident < self.floor.saturating_add(WORTHWHILE_BYTES) {
            self.is_patient = false;
            return false;
        }
        !std::mem::take(&mut self.is_patient)
    }

    fn note(&mut self, before: u64, after: u64) {
        let gained = before.saturating_sub(after);
        self.is_patient = gained < WORTHWHILE_BYTES;
        self.floor = self.floor.min(after);
        if gained >= WORTHWHILE_BYTES {
            tracing::debug!(gained_bytes = gained, resident_bytes = after, "gave memory back");
        }
    }
}

/// Returns the bytes of the process that are in memory, `None` where the system does not say.
#[cfg(target_os = "linux")]
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(not(target_os = "linux"))]
fn resident_bytes() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn growth_is_trimmed_and_a_useless_trim_waits_a_round() {
        let mut trimmer = Trimmer { last: Instant::now(), floor: 4 * MIB, is_patient: false };
        assert!(!trimmer.should_trim(5 * MIB));
        assert!(trimmer.should_trim(100 * MIB));
        trimmer.note(100 * MIB, 100 * MIB);
        assert!(!trimmer.should_trim(100 * MIB));
        assert!(trimmer.should_trim(100 * MIB));
        trimmer.note(100 * MIB, 5 * MIB);
        assert!(!trimmer.should_trim(5 * MIB));
    }

    #[test]
    fn the_size_of_this_process_is_known_on_linux() {
        assert_eq!(resident_bytes().is_some(), cfg!(target_os = "linux"));
    }
}
