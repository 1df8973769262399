//! What a seed stands for.

use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_core::config::failover::Fence;
use ringkeeper_core::rng::Rng;

use super::probe::Mutation;

/// Nodes of the deployment.
pub(crate) const HOSTS: usize = 3;
/// Its shards.
pub(crate) const SHARDS: [&str; 2] = ["one", "two"];
/// Servers of each shard.
pub(crate) const SERVERS: usize = 3;

/// Returns where a server is.
pub(crate) fn server_address(shard: usize, server: usize) -> SocketAddr {
    ([10, 1, shard as u8, server as u8 + 1], 6379).into()
}

/// What happens to a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Anything.
    Storm,
    /// Masters are moved by an operator; nothing is wrong.
    Planned,
}

/// What a seed stands for.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What hosts do that can't know who is master.
    pub fence: Fence,
    /// Whether clients hear of their writes when one replica has them.
    pub is_replicated: bool,
    /// What happens.
    pub weather: Weather,
    /// When a server counts as down.
    pub down_after: Duration,
    /// How long steps of a failover may take.
    pub failover_timeout: Duration,
    /// Whether a refused connection is enough.
    pub is_fast_down: bool,
    /// Time between adverts.
    pub interval: Duration,
    /// One way between two machines.
    pub latency: Duration,
    /// Connections of a worker to each server.
    pub connections: u64,
    /// Clients.
    pub clients: usize,
    /// How long faults happen.
    pub storm: Duration,
    /// Whether clocks run fast and slow.
    pub has_drift: bool,
    /// A defect that is put back.
    pub mutation: Option<Mutation>,
}

impl Scenario {
    /// Draws the scenario of a seed; who asks decides on what is promised.
    pub fn draw(seed: u64, fence: Fence, is_replicated: bool, weather: Weather) -> Self {
        let mut rng = Rng::new(seed ^ 0x57ac);
        let mut one_of = |all: &[u64]| all[rng.below(all.len() as u64) as usize];
        Self {
            fence,
            is_replicated,
            weather,
            down_after: Duration::from_millis(one_of(&[500, 1_000, 2_000])),
            failover_timeout: Duration::from_millis(one_of(&[4_000, 10_000])),
            is_fast_down: one_of(&[0, 1]) == 1,
            interval: Duration::from_millis(one_of(&[100, 100, 1_000])),
            latency: Duration::from_micros(one_of(&[30, 300, 3_000])),
            connections: one_of(&[1, 1, 2]),
            clients: one_of(&[1, 3, 5]) as usize,
            storm: Duration::from_secs(one_of(&[8, 15, 30])),
            has_drift: true,
            mutation: None,
        }
    }
}
