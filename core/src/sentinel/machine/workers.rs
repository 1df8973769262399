//! Tells the workers with clients where masters are, and takes in what they have seen of them.
//!
//! Whatever changes a master has it reviewed, and at the end of each review it is known what
//! workers should know. What changed leaves once, at the end of the turn.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::links::Node;
use super::master::Master;
use super::monitor::Due;
use super::{MasterId, Sentinel};
use crate::io::{Evidence, Notice, Output, Recipient, ShardCondition, ShardNews, Sighting};
use crate::sentinel::failover::State;
use crate::sentinel::instance::{Address, MasterName};
use crate::time::Instant;

/// How often workers are told again what they know, for those that began later.
const REPEAT: Duration = Duration::from_secs(1);

/// How soon it is looked again whether what was begun elsewhere came to nothing.
const MOVING_LOOK: Duration = Duration::from_millis(100);

/// A master is looked at no more often than this because of what workers have seen.
const SIGHTING_PERIOD: Duration = Duration::from_millis(10);

/// What workers are told of one master.
#[derive(Debug)]
pub(super) struct News {
    shard: Arc<str>,
    latest: Option<ShardNews>,
    told_at: Option<Instant>,
    sighted_at: Option<Instant>,
}

impl News {
    pub(super) fn new(name: &MasterName) -> Self {
        Self { shard: Arc::from(name.as_str()), latest: None, told_at: None, sighted_at: None }
    }

    pub(super) const fn latest(&self) -> Option<&ShardNews> {
        self.latest.as_ref()
    }
}

impl Sentinel {
    /// Finds out what workers should know of a master, and when they are told again.
    pub(super) fn review_news(&mut self, now: Instant, id: MasterId, due: &mut Due) {
        if !self.tells_workers {
            return;
        }
        let Some(master) = self.masters.get(&id) else { return };
        let belief = master.latest_belief();
        // A name that was not found yet is looked up by its connection, which marks the master.
        let news = match self.socket_address(belief.address) {
            Some(address) => {
                let is = condition(now, master, due);
                let (condition, valid_until) = self.fenced(now, id, is, due);
                let shard = Arc::clone(&master.news.shard);
                let epoch = belief.config_epoch.get();
                Some(ShardNews { shard, epoch, address, condition, valid_until })
            }
            None => self.stranded(id),
        };
        let Some(news) = news else { return };
        let is_news = master.news.latest.as_ref() != Some(&news);
        let repeat_at = master.news.told_at.map(|at| at + REPEAT);
        if let Some(at) = repeat_at.filter(|at| !is_news && *at > now) {
            due.at(at);
            return;
        }
        due.at(now + REPEAT);
        if let Some(master) = self.masters.get_mut(&id) {
            master.news.latest = Some(news);
            master.news.told_at = Some(now);
        }
        self.news.insert(id);
    }

    /// Returns what workers are to be told, once for each master and turn.
    pub(super) fn poll_news(&mut self) -> Option<Output> {
        while let Some(id) = self.news.pop_first() {
            let news = self.masters.get(&id).and_then(|master| master.news.latest.clone());
            if let Some(news) = news {
                return Some(Output::Notice { to: Recipient::Data, notice: Notice::Shard(news) });
            }
        }
        None
    }

    fn socket_address(&self, address: &Address) -> Option<SocketAddr> {
        let ip = address.host().parse::<IpAddr>().ok().or_else(|| self.now_or_found(address));
        Some(SocketAddr::new(ip?, address.port()))
    }

    /// Takes in what a worker has seen of a master: a reason to look at once, never a verdict.
    pub(super) fn sighted(&mut self, now: Instant, sighting: &Sighting) {
        let Some(id) = self.find(sighting.shard.as_bytes()) else { return };
        let Some(master) = self.masters.get(&id) else { return };
        // Of a former master it says nothing that matters.
        if self.socket_address(&master.server.address) != Some(sighting.address) {
            return;
        }
        let last = master.news.sighted_at;
        if last.is_some_and(|at| now.since(at) < SIGHTING_PERIOD) {
            return;
        }
        let (commands, is_fast_down) = (master.server.commands, master.is_fast_down);
        if let Some(master) = self.masters.get_mut(&id) {
            master.news.sighted_at = Some(now);
            master.server.wants_info |= sighting.evidence == Evidence::ReadOnly;
        }
        match sighting.evidence {
            Evidence::Refused | Evidence::Reset => {
                self.links.hasten(now, commands, SIGHTING_PERIOD);
                let is_owed = self.links.get(commands);
                let is_owed = is_owed.is_none_or(|link| link.pings.waiting_since.is_some());
                if !is_owed {
                    self.send_ping(now, commands);
                }
                if is_fast_down {
                    // The replicas are asked already when our own connection shows the same.
                    self.ask_replicas(id);
                }
            }
            Evidence::ReadOnly => {}
        }
        self.mark(id);
    }

    /// Has all replicas asked for INFO without waiting for their period.
    pub(super) fn ask_replicas(&mut self, id: MasterId) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        for replica in master.replicas.values_mut() {
            replica.wants_info = true;
        }
    }
}

/// Returns how the master is, by where it is believed to be.
fn condition(now: Instant, master: &Master, due: &mut Due) -> ShardCondition {
    if master.learnt.is_some() {
        return ShardCondition::Serving;
    }
    let state = master.failover.state();
    if let Some(chosen) = state.announced() {
        // Others may move on before the last replica has told us that it follows.
        if master.lease.is_moving(now, chosen.epoch) {
            due.at(now + MOVING_LOOK);
            return ShardCondition::Moving;
        }
        let promoted = master.promoted().and_then(|at| master.server(Node::Replica(at)));
        let is_down = promoted.is_some_and(|server| server.watch.is_down() || server.is_refused);
        return if is_down { ShardCondition::Suspected } else { ShardCondition::Serving };
    }
    if master.is_forced && *state != State::None {
        return ShardCondition::Moving;
    }
    // Where nobody can take over there is nothing to wait for.
    let is_suspected = master.server.watch.is_down() || master.server.is_refused;
    if is_suspected && !master.replicas.is_empty() {
        return ShardCondition::Suspected;
    }
    if master.lease.is_moving(now, master.config_epoch) {
        due.at(now + MOVING_LOOK);
        return ShardCondition::Moving;
    }
    ShardCondition::Serving
}
