//! What is written down: the settings, and what was learnt since.

use super::Sentinel;
use super::master::Master;
use crate::config::sentinel::{self as config, Config, KnownSentinel};
use crate::sentinel::failover::State;
use crate::sentinel::instance::{Address, Epoch};
use crate::sentinel::state::{Lineage, Record};

impl Sentinel {
    /// Returns the configuration as a file should say it.
    pub(super) fn snapshot(&self) -> Config {
        let mut config = self.globals.clone();
        config.myid = Some(self.myid);
        config.current_epoch = self.elections.current_epoch();
        config.masters = self
            .names
            .values()
            .filter_map(|id| self.masters.get(id))
            .map(|master| self.snapshot_of(master))
            .collect();
        config
    }

    /// Returns what else must not be forgotten, for which a configuration has no words.
    pub(super) fn records(&self) -> Vec<Record> {
        let masters = self.names.values().filter_map(|id| self.masters.get(id));
        let mut records = Vec::new();
        for master in masters {
            let name = master.name().clone();
            if let (Some(leader), epoch) = self.elections.vote(&name) {
                records.push(Record::Vote { master: name.clone(), epoch, leader });
            }
            if let Some(replid) = master.lineage.replid {
                let (_, epoch) = durable_belief(master);
                let lineage = Lineage { epoch, replid, earlier: master.lineage.replid2 };
                records.push(Record::Lineage { master: name, lineage });
            }
        }
        records
    }

    fn snapshot_of(&self, master: &Master) -> config::Master {
        let mut known = master.settings.clone();
        let (address, config_epoch) = durable_belief(master);
        known.leader_epoch = self.elections.vote(master.name()).1;
        known.config_epoch = config_epoch;
        // A new master is no replica, and the one before it will be.
        known.known_replicas = master
            .replicas
            .values()
            .map(|replica| &replica.address)
            .map(|replica| if replica.is_same(address) { &master.server.address } else { replica })
            .cloned()
            .collect();
        known.monitor.address = address.clone();
        known.known_sentinels = master
            .peers
            .iter()
            .map(|(id, address, _)| KnownSentinel { address: address.clone(), run_id: *id })
            .collect();
        known
    }
}

/// Returns where the master is to be after a crash: the new place from the moment on that it is
/// being written down.
fn durable_belief(master: &Master) -> (&Address, Epoch) {
    if let Some(learnt) = &master.learnt {
        return (&learnt.address, learnt.epoch);
    }
    match master.failover.state() {
        State::Commit(chosen) | State::ReconfSlaves(chosen) | State::UpdateConfig(chosen) => {
            (&chosen.replica, chosen.epoch)
        }
        State::None
        | State::WaitStart
        | State::SelectSlave { .. }
        | State::SendSlaveofNoone(_)
        | State::WaitPromotion(_) => (&master.server.address, master.config_epoch),
    }
}
