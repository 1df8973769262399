//! What there is to show.

use super::master::Master;
use super::{MasterId, Sentinel};
use crate::sentinel::instance::MasterName;
use crate::sentinel::reply::Usable;
use crate::stats::{MasterFigures, PeerFigures, ReplicaFigures, WatchFigures};
use crate::time::Instant;

impl Sentinel {
    /// Returns what is known of every master, for whoever shows it.
    pub fn figures(&self, now: Instant) -> WatchFigures {
        let running = self.scripts.running.len() as u64;
        WatchFigures {
            mode: "own",
            id: self.myid.to_string(),
            is_in_tilt: self.tilt.is_active(),
            scripts_running: running,
            scripts_queued: self.scripts.waiting.len() as u64 + running,
            masters: self
                .each_master()
                .map(|(id, master)| self.figures_of(now, id, master))
                .collect(),
        }
    }

    /// Returns a master that could not be replaced, because too few Sentinels are in sight.
    pub fn short_of_sentinels(&self) -> Option<&MasterName> {
        let is_short = |id: MasterId| {
            let usable = self.usable(id);
            !(usable.reaches_quorum() && usable.reaches_majority())
        };
        self.each_master().find(|(id, _)| is_short(*id)).map(|(_, master)| master.name())
    }

    fn figures_of(&self, now: Instant, id: MasterId, master: &Master) -> MasterFigures {
        let usable = self.usable(id);
        let belief = master.belief();
        let link = self.links.get(master.server.commands);
        let status = if master.agreement.is_down() {
            "odown"
        } else if master.server.watch.is_down() {
            "sdown"
        } else {
            "ok"
        };
        MasterFigures {
            name: master.name().to_string(),
            address: belief.address.to_string(),
            config_epoch: belief.config_epoch.get(),
            status,
            quorum: u64::from(master.quorum()),
            has_quorum: usable.reaches_quorum() && usable.reaches_majority(),
            quorum_text: words_of(usable),
            down_after: master.down_after(),
            failover_timeout: master.failover_timeout(),
            parallel_syncs: u64::from(master.settings.parallel_syncs.get()),
            answered_ago: link.map(|link| now.since(link.pings.acceptable_at)),
            replicas: (master.replicas.values())
                .map(|server| ReplicaFigures {
                    address: server.address.to_string(),
                    is_up: !server.watch.is_down(),
                    offset: server.replica_report().map(|(_, report)| report.offset),
                })
                .collect(),
            peers: (master.peers.iter())
                .filter_map(|(id, address, _)| {
                    let voice = master.voices.get(id)?;
                    let (id, address) = (id.to_string(), address.to_string());
                    Some(PeerFigures { id, address, is_up: !voice.watch.is_down() })
                })
                .collect(),
            reasons: self.reasons(now, id),
        }
    }
}

/// Returns the reply to CKQUORUM as text.
fn words_of(usable: Usable) -> String {
    let mut out = Vec::new();
    usable.encode(&mut out);
    String::from_utf8_lossy(out.get(1..).unwrap_or_default()).trim_end().to_owned()
}
