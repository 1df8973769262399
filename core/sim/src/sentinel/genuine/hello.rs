//! What Sentinels tell each other of themselves and of their masters.

use std::net::SocketAddr;

use super::super::process::{Context, address, split};
use super::Genuine;
use super::table::Id;

impl Genuine {
    /// Believes a hello.
    pub(super) fn hello(&mut self, payload: &str, ctx: &mut Context<'_>) {
        let Some([ip, port, run_id, epoch, name, master_ip, master_port, config_epoch]) =
            split(payload, ',')
        else {
            return;
        };
        let Some(master) = self.master_by_name(name) else { return };
        let (Some(from), Some(at)) = (address(ip, port), address(master_ip, master_port)) else {
            return;
        };
        let (Ok(epoch), Ok(config_epoch)) = (epoch.parse::<u64>(), config_epoch.parse::<u64>())
        else {
            return;
        };
        let known = self.instances[master].peers.iter().copied().find(|peer| {
            self.instances[*peer].name == run_id && self.instances[*peer].address == from
        });
        let peer = known.unwrap_or_else(|| self.meet(master, run_id, from, ctx));
        if epoch > self.current_epoch {
            self.current_epoch = epoch;
            self.save(ctx);
            ctx.tell("+new-epoch", epoch.to_string());
        }
        let old = &self.instances[master];
        let is_newer = old.config_epoch < config_epoch
            || (self.defects.believes_equal_epochs && old.config_epoch == config_epoch);
        if is_newer {
            let (from, name) = (old.address, old.name.clone());
            self.instances[master].config_epoch = config_epoch;
            if from != at {
                self.event(peer, "+config-update-from", "", ctx);
                let (old, new) = ((from.ip(), from.port()), (at.ip(), at.port()));
                let payload = format!("{name} {} {} {} {}", old.0, old.1, new.0, new.1);
                ctx.tell("+switch-master", payload);
                self.change_address(master, at, ctx);
            }
        }
        self.instances[peer].last_hello = ctx.wall_ms;
    }

    pub(super) fn master_by_name(&self, name: &str) -> Option<Id> {
        self.masters.iter().copied().find(|id| self.instances[*id].name == name)
    }

    /// Takes in a peer that was not known under this address.
    fn meet(&mut self, master: Id, run_id: &str, at: SocketAddr, ctx: &mut Context<'_>) -> Id {
        let moved = self.forget_peers(master, ctx, |peer| peer.0 == run_id);
        if moved {
            let behind = format!(" ip {} port {} for {run_id}", at.ip(), at.port());
            self.event(master, "+sentinel-address-switch", &behind, ctx);
        } else {
            let other = self.instances[master].peers.iter().copied();
            let other = other.into_iter().find(|peer| self.instances[*peer].address == at);
            if let Some(other) = other {
                self.event(other, "+sentinel-invalid-addr", "", ctx);
                let old = self.instances[other].name.clone();
                for master in self.masters.clone() {
                    self.forget_peers(master, ctx, |peer| peer.0 == old);
                }
            }
        }
        let peer = self.create_peer(master, run_id, at, ctx);
        if !moved {
            self.event(peer, "+sentinel", "", ctx);
        }
        self.save(ctx);
        peer
    }

    fn forget_peers(
        &mut self,
        master: Id,
        ctx: &mut Context<'_>,
        is_meant: impl Fn((&str, SocketAddr)) -> bool,
    ) -> bool {
        let peers = self.instances[master].peers.clone();
        let (gone, kept): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| {
            let peer = &self.instances[*peer];
            is_meant((&peer.name, peer.address))
        });
        self.instances[master].peers = kept;
        for peer in &gone {
            self.release(*peer, ctx);
        }
        !gone.is_empty()
    }

    /// Has the news of a master told with the next tick.
    pub(super) fn force_hello(&mut self, master: Id) {
        let one = &self.instances[master];
        let all = [vec![master], one.replicas.clone(), one.peers.clone()].concat();
        for id in all {
            let one = &mut self.instances[id];
            one.last_pub = one.last_pub.saturating_sub(super::PUBLISH_PERIOD + 1);
        }
    }
}
