//! What happens to masters, and what the worker is told of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringkeeper_core::io::{CloseReason, Drive, Input, Notice, ShardCondition, ShardNews};
use ringkeeper_core::time::Instant;

use crate::failover::world::{NODES, World};

/// What is under way for a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// All is well.
    Calm,
    /// The master is dead or hangs; nobody has said so.
    Struck,
    /// The worker was told to wait.
    Told,
    /// Another server is the master; the worker has not been told.
    Promoted,
    /// The worker was told; the former master has not.
    Switched,
    /// A false alarm or a fence.
    Alarm,
}

/// A shard as the Sentinels see it.
#[derive(Debug)]
pub(crate) struct Shard {
    name: Arc<str>,
    pub epoch: u64,
    /// The server that is the master.
    pub master: usize,
    /// The server that the worker was told of.
    pub told_node: usize,
    pub condition: ShardCondition,
    phase: Phase,
    is_planned: bool,
    former: usize,
    next_at: Instant,
    /// Replicas get nothing until then.
    lags_until: Instant,
}

impl Shard {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            epoch: 0,
            master: 0,
            told_node: 0,
            condition: ShardCondition::Serving,
            phase: Phase::Calm,
            is_planned: false,
            former: 0,
            next_at: Instant::START,
            lags_until: Instant::START,
        }
    }
}

/// Returns where a server is.
fn address(shard: usize, node: usize) -> SocketAddr {
    ([10, 0, shard as u8, node as u8 + 1], 6379).into()
}

impl World {
    /// Tells the worker what is known of a shard.
    pub(crate) fn tell(&mut self, machine: &mut dyn Drive, shard: usize) {
        let of = &self.shards[shard];
        let (epoch, condition) = (of.epoch, of.condition);
        let news = ShardNews {
            shard: Arc::clone(&of.name),
            epoch,
            address: address(shard, of.told_node),
            condition,
            valid_until: None,
        };
        machine.handle(self.now, Input::Notice(Notice::Shard(news)));
        if epoch > 0 && self.rng.is_one_in(1, 3) {
            // Somebody who has missed it all.
            let node = self.rng.below(NODES as u64) as usize;
            let news = ShardNews {
                shard: Arc::clone(&self.shards[shard].name),
                epoch: epoch - 1,
                address: address(shard, node),
                condition: ShardCondition::Serving,
                valid_until: None,
            };
            machine.handle(self.now, Input::Notice(Notice::Shard(news)));
        }
    }

    fn tell_condition(&mut self, machine: &mut dyn Drive, shard: usize, condition: ShardCondition) {
        self.shards[shard].condition = condition;
        self.tell(machine, shard);
    }

    /// Lets replicas take over what their master has, now and then and not all of it.
    pub(crate) fn replicate(&mut self, shard: usize) {
        let master = self.shards[shard].master;
        let lags = self.shards[shard].lags_until > self.now;
        if lags || self.nodes[shard][master].is_dead || self.nodes[shard][master].is_hung {
            return;
        }
        for node in 0..NODES {
            let is_follower = node != master && !self.nodes[shard][node].is_dead;
            if !is_follower || self.nodes[shard][node].is_master || !self.rng.is_one_in(1, 3) {
                continue;
            }
            let have = self.nodes[shard][node].log.len();
            let all = self.nodes[shard][master].log.len();
            if self.nodes[shard][master].log.get(..have)
                != Some(self.nodes[shard][node].log.as_slice())
            {
                let log = self.nodes[shard][master].log.clone();
                self.nodes[shard][node].copy(&log);
                continue;
            }
            let mut end = have + self.rng.below((all - have) as u64 + 1) as usize;
            let log = &self.nodes[shard][master].log;
            // A command comes whole or not at all.
            while end > have && end < all && log[end - 1].id == log[end].id {
                end += 1;
            }
            let ops = log[have..end].to_vec();
            ops.into_iter().for_each(|op| self.nodes[shard][node].apply(op));
        }
    }

    /// Moves every shard on.
    pub(crate) fn govern(&mut self, machine: &mut dyn Drive) {
        for shard in 0..self.shards.len() {
            if self.shards[shard].next_at > self.now {
                continue;
            }
            let pause = Duration::from_nanos(self.rng.below(120_000_000));
            self.shards[shard].next_at = self.now + pause;
            match self.shards[shard].phase {
                Phase::Calm if self.is_calm => {}
                Phase::Calm => self.strike(machine, shard),
                Phase::Struck => {
                    // Some only hear of the result.
                    if self.rng.is_one_in(3, 4) {
                        self.tell_condition(machine, shard, ShardCondition::Suspected);
                    }
                    self.shards[shard].phase = Phase::Told;
                }
                Phase::Told => self.promote(shard),
                Phase::Promoted => {
                    let of = &mut self.shards[shard];
                    of.epoch += 1;
                    of.told_node = of.master;
                    of.phase = Phase::Switched;
                    self.tell_condition(machine, shard, ShardCondition::Serving);
                    self.tally.switches += 1;
                }
                Phase::Switched => self.demote(shard),
                Phase::Alarm => {
                    self.tell_condition(machine, shard, ShardCondition::Serving);
                    self.shards[shard].phase = Phase::Calm;
                }
            }
        }
    }

    fn strike(&mut self, machine: &mut dyn Drive, shard: usize) {
        let master = self.shards[shard].master;
        let kind = if self.setup.is_planned { 4 + self.rng.below(2) } else { self.rng.below(8) };
        self.shards[shard].is_planned = kind == 5;
        self.shards[shard].phase = Phase::Struck;
        match kind {
            0 | 1 => {
                self.nodes[shard][master].is_dead = true;
                self.drop_wires(shard, master, true);
            }
            2 => self.nodes[shard][master].is_hung = true,
            3 => {
                self.drop_wires(shard, master, false);
                self.shards[shard].phase = Phase::Calm;
            }
            4 => {
                self.tell_condition(machine, shard, ShardCondition::Suspected);
                self.shards[shard].phase = Phase::Alarm;
            }
            5 => {
                self.tell_condition(machine, shard, ShardCondition::Moving);
                self.nodes[shard][master].is_paused = true;
                self.shards[shard].phase = Phase::Told;
            }
            6 => {
                self.shards[shard].lags_until = self.now + Duration::from_millis(600);
                self.shards[shard].phase = Phase::Calm;
            }
            _ => {
                self.tell_condition(machine, shard, ShardCondition::Fenced);
                self.shards[shard].phase = Phase::Alarm;
            }
        }
    }

    /// Makes the replica that has most the master.
    fn promote(&mut self, shard: usize) {
        let former = self.shards[shard].master;
        if self.shards[shard].is_planned {
            let log = self.nodes[shard][former].log.clone();
            (0..NODES)
                .filter(|node| *node != former)
                .for_each(|node| self.nodes[shard][node].copy(&log));
        }
        let others = (0..NODES).filter(|node| *node != former && !self.nodes[shard][*node].is_dead);
        let Some(next) = others.max_by_key(|node| self.nodes[shard][*node].log.len()) else {
            return;
        };
        let (old, new) =
            (self.nodes[shard][former].log.clone(), self.nodes[shard][next].log.clone());
        self.judge.replaced(&old, &new);
        self.nodes[shard][next].is_master = true;
        let of = &mut self.shards[shard];
        (of.former, of.master, of.phase) = (former, next, Phase::Promoted);
        if of.is_planned {
            // It is told at once; what it put off it refuses.
            self.nodes[shard][former].is_master = false;
            self.nodes[shard][former].is_paused = false;
            of.next_at = self.now + Duration::from_nanos(self.rng.below(3_000_000));
        }
    }

    /// Tells the former master, or starts it again.
    fn demote(&mut self, shard: usize) {
        let (former, master) = (self.shards[shard].former, self.shards[shard].master);
        let log = self.nodes[shard][master].log.clone();
        let node = &mut self.nodes[shard][former];
        (node.is_dead, node.is_hung, node.is_master, node.is_paused) = (false, false, false, false);
        node.copy(&log);
        self.shards[shard].phase = Phase::Calm;
    }

    /// Ends every connection to a server: it died, or they were cut.
    fn drop_wires(&mut self, shard: usize, node: usize, is_death: bool) {
        for wire in self.wires.values_mut() {
            if wire.shard != shard || wire.node != node || wire.ended.is_some() {
                continue;
            }
            let is_reset = self.rng.is_one_in(1, 2);
            wire.ended = Some(if is_reset { CloseReason::Reset } else { CloseReason::Requested });
            if is_death || is_reset || self.rng.is_one_in(1, 2) {
                wire.inbound.clear();
            }
        }
    }
}
