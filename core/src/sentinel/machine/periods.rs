//! The times that `SENTINEL DEBUG` shows and changes.

use std::time::Duration;

use crate::config::sentinel::{DOWN_AFTER_MS_DEFAULT, FAILOVER_TIMEOUT_MS_DEFAULT};
use crate::sentinel::{reconf, tilt};

/// How often things are done, and how long they may take. They start over with the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Periods {
    /// INFO to healthy servers.
    pub info: Duration,
    /// Longest PING period, and shortest wait between attempts to connect.
    pub ping: Duration,
    /// Longest wait between questions to a peer; five of them and an answer is forgotten.
    pub ask: Duration,
    /// Hellos to each instance.
    pub publish: Duration,
    /// Of masters that are monitored from here on and say nothing else.
    pub default_down_after: Duration,
    /// Of masters that are monitored from here on and say nothing else.
    pub default_failover_timeout: Duration,
    /// A longer gap means that the process did not run.
    pub tilt_trigger: Duration,
    /// How long nothing is decided after it.
    pub tilt_period: Duration,
    /// How long a replica may take to say that it follows the new master.
    pub slave_reconf_timeout: Duration,
    /// A younger connection is not given up as stuck.
    pub min_link_reconnect: Duration,
    /// How long a candidate tries.
    pub election_timeout: Duration,
    /// How long a script may run.
    pub script_max_runtime: Duration,
    /// The first wait before a script runs again; it doubles each time.
    pub script_retry_delay: Duration,
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

impl Default for Periods {
    fn default() -> Self {
        Self {
            info: ms(10_000),
            ping: ms(1000),
            ask: ms(1000),
            publish: ms(2000),
            default_down_after: ms(DOWN_AFTER_MS_DEFAULT),
            default_failover_timeout: ms(FAILOVER_TIMEOUT_MS_DEFAULT),
            tilt_trigger: tilt::TRIGGER,
            tilt_period: tilt::PERIOD,
            slave_reconf_timeout: reconf::SENT_TIMEOUT,
            min_link_reconnect: ms(15_000),
            election_timeout: ms(10_000),
            script_max_runtime: ms(60_000),
            script_retry_delay: ms(30_000),
        }
    }
}

impl Periods {
    /// Returns every name, as genuine Sentinels spell and order them, and its value.
    pub const fn all(&self) -> [(&'static str, Duration); 13] {
        [
            ("INFO-PERIOD", self.info),
            ("PING-PERIOD", self.ping),
            ("ASK-PERIOD", self.ask),
            ("PUBLISH-PERIOD", self.publish),
            ("DEFAULT-DOWN-AFTER", self.default_down_after),
            ("DEFAULT-FAILOVER-TIMEOUT", self.default_failover_timeout),
            ("TILT-TRIGGER", self.tilt_trigger),
            ("TILT-PERIOD", self.tilt_period),
            ("SLAVE-RECONF-TIMEOUT", self.slave_reconf_timeout),
            ("MIN-LINK-RECONNECT-PERIOD", self.min_link_reconnect),
            ("ELECTION-TIMEOUT", self.election_timeout),
            ("SCRIPT-MAX-RUNTIME", self.script_max_runtime),
            ("SCRIPT-RETRY-DELAY", self.script_retry_delay),
        ]
    }

    /// Returns the value of a name in any case, for changing it.
    pub fn by_name(&mut self, name: &[u8]) -> Option<&mut Duration> {
        Some(match name.to_ascii_lowercase().as_slice() {
            b"info-period" => &mut self.info,
            b"ping-period" => &mut self.ping,
            b"ask-period" => &mut self.ask,
            b"publish-period" => &mut self.publish,
            b"default-down-after" => &mut self.default_down_after,
            b"default-failover-timeout" => &mut self.default_failover_timeout,
            b"tilt-trigger" => &mut self.tilt_trigger,
            b"tilt-period" => &mut self.tilt_period,
            b"slave-reconf-timeout" => &mut self.slave_reconf_timeout,
            b"min-link-reconnect-period" => &mut self.min_link_reconnect,
            b"election-timeout" => &mut self.election_timeout,
            b"script-max-runtime" => &mut self.script_max_runtime,
            b"script-retry-delay" => &mut self.script_retry_delay,
            _ => return None,
        })
    }

    /// Returns how often an instance is pinged: often enough that five answers are missed before
    /// it is down, and at most every 10 ms.
    ///
    /// Deviates: genuine Sentinels ping at most once a second, so that with a shorter down-after
    /// one slow answer condemns.
    pub fn ping_period(&self, down_after: Duration) -> Duration {
        (down_after / 5).max(PING_PERIOD_MIN).min(self.ping.max(PING_PERIOD_MIN))
    }
}

/// Shortest PING period, whatever down-after is.
pub const PING_PERIOD_MIN: Duration = ms(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_period_has_a_name_that_finds_it() {
        let mut periods = Periods::default();
        for (name, value) in Periods::default().all() {
            assert_eq!(periods.by_name(name.to_lowercase().as_bytes()), Some(&mut value.clone()));
        }
        assert_eq!(periods.by_name(b"nosuch"), None);
    }

    #[test]
    fn pings_come_five_times_as_often_as_patience_ends_within_bounds() {
        let periods = Periods::default();
        assert_eq!(periods.ping_period(ms(1000)), ms(200));
        assert_eq!(periods.ping_period(ms(30_000)), ms(1000));
        assert_eq!(periods.ping_period(ms(1)), ms(10));
    }
}
