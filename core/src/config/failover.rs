//! What a pool does while one of its shards changes its master, and how sure its writes are.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::limits::{HOLD_BYTES_DEFAULT, HOLD_DEFAULT, REPLICATED_TIMEOUT_DEFAULT};

/// How a pool treats the shards whose master the Sentinels name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// How long a request may wait for a master; none: it fails at once, and nothing is sent again.
    pub hold: Option<Duration>,
    /// Bytes of requests that may wait, and as many that are remembered to be sent again.
    pub hold_bytes: usize,
    /// What is sent again when a master is lost with requests under way.
    pub replay: Replay,
    /// What happens when this host must not trust what it knows of a master.
    pub fence: Fence,
    /// Replicas that must have a write before its client hears of it; none: no replica.
    pub replicated: Option<NonZeroU32>,
    /// How long they may take.
    pub replicated_timeout: Duration,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            hold: Some(HOLD_DEFAULT),
            hold_bytes: HOLD_BYTES_DEFAULT,
            replay: Replay::Reads,
            fence: Fence::BestEffort,
            replicated: None,
            replicated_timeout: REPLICATED_TIMEOUT_DEFAULT,
        }
    }
}

/// What is sent again when a master is lost with requests under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// What only reads.
    Reads,
    /// Also writes that leave the same behind, and say the same, when they happen twice.
    Idempotent,
}

impl Replay {
    /// All, with their names in the configuration.
    pub const ALL: [(&'static str, Self); 2] =
        [("reads", Self::Reads), ("idempotent", Self::Idempotent)];
}

/// What happens when this host must not trust what it knows of a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Nothing: requests go where they went.
    Off,
    /// Writes are refused, reads go on.
    BestEffort,
    /// Reads and writes wait, also before the first news of the master.
    Strict,
}

impl Fence {
    /// All, with their names in the configuration.
    pub const ALL: [(&'static str, Self); 3] =
        [("off", Self::Off), ("best-effort", Self::BestEffort), ("strict", Self::Strict)];
}
