//! What the service manager is told: ready, reloading, alive, ending. Without a manager that wants
//! to know, nothing happens.
//!
//! Source: sd_notify(3), sd_watchdog_enabled(3).

use std::time::{Duration, Instant};

/// Says that the service takes clients, and what it does.
pub(crate) fn ready(status: &str) {
    send(&State::Ready, Some(status));
}

/// Says that the configuration is being read again; [`ready`] ends this.
pub(crate) fn reloading() {
    send(&State::Reloading, None);
}

/// Says that the service ends, and why or how.
pub(crate) fn stopping(status: &str) {
    send(&State::Stopping, Some(status));
}

/// Says that another process is the service from here on.
pub(crate) fn main_pid(process: u32) {
    send(&State::MainPid(process), None);
}

/// Lets the service manager know, often enough, that every worker turns; when one does not, it is
/// told nothing, and restarts the service after the time that its unit sets.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// How often to tell; `None`: nobody wants to know.
    every: Option<Duration>,
    told_at: Option<Instant>,
}

impl Watchdog {
    /// Finds out what the service manager wants.
    pub(crate) fn new() -> Self {
        // A third of the time leaves room for two looks that come late.
        Self { every: watchdog().map(|limit| limit / 3), told_at: None }
    }

    /// Returns how long the caller may wait until the next [`feed`](Self::feed).
    pub(crate) fn patience(&self) -> Duration {
        self.every.unwrap_or(Duration::MAX)
    }

    /// Tells the service manager if it is time and if all is well.
    pub(crate) fn feed(&mut self, now: Instant, is_well: bool) {
        if self.is_due(now, is_well) {
            send(&State::Alive, None);
        }
    }

    fn is_due(&mut self, now: Instant, is_well: bool) -> bool {
        let Some(every) = self.every else { return false };
        // Waiting for `patience` wakes up a little early or late.
        let is_early =
            self.told_at.is_some_and(|told_at| now.saturating_duration_since(told_at) < every / 2);
        if is_early || !is_well {
            return false;
        }
        self.told_at = Some(now);
        true
    }
}

enum State {
    Ready,
    Reloading,
    Stopping,
    Alive,
    MainPid(u32),
}

#[cfg(target_os = "linux")]
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}

#[cfg(target_os = "linux")]
fn send(state: &State, status: Option<&str>) {
    use sd_notify::NotifyState;

    let mut states = match state {
        State::Ready => vec![NotifyState::Ready],
        State::Reloading => {
            let mut states = vec![NotifyState::Reloading];
            // The manager compares it with what `Ready` comes after.
            states.extend(NotifyState::monotonic_usec_now());
            states
        }
        State::Stopping => vec![NotifyState::Stopping],
        State::Alive => vec![NotifyState::Watchdog],
        State::MainPid(process) => vec![NotifyState::MainPid(*process)],
    };
    // One line: a line break would begin another assignment.
    let status = status.map(|status| status.replace(['\n', '\r'], " "));
    states.extend(status.as_deref().map(NotifyState::Status));
    if let Err(error) = sd_notify::notify(&states) {
        tracing::debug!("the service manager can't be told: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn watchdog() -> Option<Duration> {
    None
}

#[cfg(not(target_os = "linux"))]
fn send(state: &State, _status: Option<&str>) {
    match state {
        State::Ready | State::Reloading | State::Stopping | State::Alive => {}
        State::MainPid(process) => tracing::debug!(process, "no service manager is told"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_told_in_time_and_only_when_all_is_well() {
        let mut watchdog = Watchdog { every: Some(Duration::from_secs(1)), told_at: None };
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert!(watchdog.is_due(at(0), true));
        assert!(!watchdog.is_due(at(400), true));
        assert!(watchdog.is_due(at(990), true));
        assert!(!watchdog.is_due(at(2000), false));
        assert!(watchdog.is_due(at(2100), true));
        let mut unwatched = Watchdog { every: None, told_at: None };
        assert!(!unwatched.is_due(at(0), true));
    }
}
