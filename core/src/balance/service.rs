//! A virtual server and its real ones: who is up, who is full, whether they are enough.

use std::net::SocketAddr;

use super::persist::Persistent;
use super::probe::ProbeId;
use super::scheduler::{Candidate, Picker};
use crate::config::keepalived::{RealServer, VirtualServer};
use crate::time::Instant;

/// Names a real server of a virtual one; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerKey(pub u32);

/// A real server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) key: ServerKey,
    pub(super) plan: RealServer,
    pub(super) probes: Vec<ProbeId>,
    pub(super) is_up: bool,
    /// Its weight with what its checkers add.
    pub(super) weight: u32,
    pub(super) connections: u32,
    /// Whether it has had its upper bound of connections and not yet fallen below the lower one.
    pub(super) is_full: bool,
    /// Connections since the start.
    pub(super) total: u64,
    /// Bytes of clients and bytes for them, of relays that have ended and of others up to the last
    /// count.
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Attempts of checkers that are gone, and those that failed.
    pub(super) checks: u64,
    pub(super) checks_failed: u64,
}

impl Server {
    pub(super) const fn new(key: ServerKey, plan: RealServer) -> Self {
        let weight = plan.weight;
        Self {
            key,
            plan,
            probes: Vec::new(),
            is_up: true,
            weight,
            connections: 0,
            is_full: false,
            total: 0,
            received: 0,
            sent: 0,
            checks: 0,
            checks_failed: 0,
        }
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.plan.address
    }

    /// Counts a connection.
    pub(super) const fn opened(&mut self) {
        self.connections = self.connections.saturating_add(1);
        self.total = self.total.saturating_add(1);
        self.judge_load();
    }

    /// Counts what relays have moved, bytes.
    pub(super) const fn count(&mut self, received: u64, sent: u64) {
        self.received = self.received.saturating_add(received);
        self.sent = self.sent.saturating_add(sent);
    }

    /// Keeps what was counted of a checker that goes.
    pub(super) const fn keep_count(&mut self, attempts: u64, failed: u64) {
        self.checks = self.checks.saturating_add(attempts);
        self.checks_failed = self.checks_failed.saturating_add(failed);
    }

    /// Counts the end of one.
    pub(super) const fn closed(&mut self) {
        self.connections = self.connections.saturating_sub(1);
        self.judge_load();
    }

    /// Without a lower bound three quarters of the upper one are it. As IPVS.
    pub(super) const fn judge_load(&mut self) {
        let (upper, lower) = (self.plan.upper as u64, self.plan.lower as u64);
        let count = self.connections as u64;
        if upper > 0 && count >= upper {
            self.is_full = true;
        } else if upper == 0
            || (lower > 0 && count < lower)
            || (lower == 0 && count * 4 < upper * 3)
        {
            self.is_full = false;
        }
    }

    pub(super) fn candidate(&self, tried: &[ServerKey]) -> Candidate {
        Candidate {
            address: self.address(),
            weight: self.weight,
            connections: self.connections,
            is_up: self.is_up,
            is_free: !self.is_full && !tried.contains(&self.key),
        }
    }
}

/// A virtual server.
#[derive(Debug)]
pub(super) struct Service {
    /// Names it, also over reloads.
    pub(super) id: u32,
    pub(super) plan: VirtualServer,
    pub(super) servers: Vec<Server>,
    pub(super) sorry: Option<Server>,
    pub(super) picker: Picker,
    pub(super) persistent: Option<Persistent>,
    /// Whether enough servers are up.
    pub(super) is_quorate: bool,
    /// Clients that found nobody, since that was told, and when it was.
    pub(super) refused: u64,
    /// The same since the start.
    pub(super) refused_in_all: u64,
    pub(super) refused_told: Option<Instant>,
}

impl Service {
    pub(super) fn new(id: u32, plan: VirtualServer) -> Self {
        let picker = Picker::new(plan.scheduler, plan.hashes_port, plan.falls_back);
        let persistent = plan.persistence.map(Persistent::new);
        Self {
            id,
            plan,
            servers: Vec::new(),
            sorry: None,
            picker,
            persistent,
            is_quorate: false,
            refused: 0,
            refused_in_all: 0,
            refused_told: None,
        }
    }

    /// Returns the weight of all servers that are up.
    pub(super) fn live_weight(&self) -> u32 {
        let live = self.servers.iter().filter(|server| server.is_up);
        live.fold(0, |sum, server| sum.saturating_add(server.weight))
    }

    /// Tells whether enough servers are up; between the bounds nothing changes. At the start the
    /// quorum itself is the bound.
    pub(super) fn judge_quorum(&self, is_start: bool) -> bool {
        let (quorum, slack) = (self.plan.quorum, self.plan.hysteresis);
        let weight = self.live_weight();
        if is_start {
            weight >= quorum
        } else if self.is_quorate {
            weight > 0 && weight >= quorum.saturating_sub(slack)
        } else {
            weight >= quorum.saturating_add(slack)
        }
    }

    /// Tells whether the server for bad times serves.
    pub(super) const fn is_sorry(&self) -> bool {
        !self.is_quorate && self.sorry.is_some()
    }

    /// Returns all servers, the one for bad times last.
    pub(super) fn all(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().chain(&self.sorry)
    }
}
