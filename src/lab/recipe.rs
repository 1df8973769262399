//! What a deployment is made of.

use std::num::NonZeroU32;
use std::time::Duration;

use super::network::Host;
use crate::host::runtime::Choice;

/// Names of the shards: of the servers on the ring, and of the masters for the Sentinels.
pub(super) const SHARDS: [&str; 2] = ["one", "two"];

/// The nodes, of which the first has the highest priority.
pub(super) const NODES: [Host; 3] = [Host::Node(0), Host::Node(1), Host::Node(2)];

/// The servers of each shard, of which the first begins as the master.
pub(super) const SERVERS: [[Host; 3]; 2] = [
    [Host::Server(0), Host::Server(1), Host::Server(2)],
    [Host::Server(3), Host::Server(4), Host::Server(5)],
];

/// A genuine program that stands in a deployment of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// redis-sentinel; the node follows the Sentinels.
    Sentinel,
    /// keepalived.
    Keepalived,
}

/// What can be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// What drives the nodes' sockets.
    pub(crate) runtime: Choice,
    /// Genuine programs that the last node runs in place of ours.
    pub(crate) peers: Vec<Peer>,
    /// Whether every node runs what this product replaces: nutcracker, redis-sentinel, keepalived,
    /// and a script that tells the first what the second has decided.
    pub(crate) is_glued: bool,
    /// On how many replicas a write is before it is acknowledged.
    pub(crate) replicated: Option<NonZeroU32>,
    /// How long a silent master is believed to live.
    pub(crate) down_after: Duration,
    /// Whether a refused connection is enough.
    pub(crate) has_fast_down: bool,
    /// From one announcement of the shared address to the next; hundredths of a second.
    pub(crate) advert: Duration,
}

impl Recipe {
    /// Tells whether a node runs a genuine program in place of ours.
    pub(super) fn has(&self, node: Host, peer: Peer) -> bool {
        self.is_glued || NODES.last() == Some(&node) && self.peers.contains(&peer)
    }

    /// Tells whether what was acknowledged has to survive the loss of a master: it does if every
    /// voter knows of the promise.
    pub(super) fn keeps_promise(&self) -> bool {
        let is_known = !self.is_glued && !self.peers.contains(&Peer::Sentinel);
        self.replicated.is_some() && is_known
    }
}
