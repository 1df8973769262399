//! Masters and peers come, go and move.

use std::time::Duration;

use super::links::{LinkId, Node, Owner};
use super::master::{Master, Server, Voice, kind_of, patience};
use super::say::Said;
use super::{MasterId, Sentinel};
use crate::config::sentinel as config;
use crate::sentinel::down::{Agreement, Pong, Watch};
use crate::sentinel::event::{Event, Plain};
use crate::sentinel::failover::{Input, State};
use crate::sentinel::instance::{Address, Epoch, RunId};
use crate::time::Instant;

/// The connection to a peer, for all masters that it watches with us.
#[derive(Debug)]
pub(super) struct PeerLink {
    pub(super) link: LinkId,
    /// Who it said it was when we asked there.
    pub(super) verified: Option<RunId>,
    /// It does not know of leases, as genuine ones do not.
    pub(super) is_leaseless: bool,
}

impl Sentinel {
    /// Watches a master from here on.
    pub(super) fn monitor(&mut self, now: Instant, settings: config::Master) {
        self.next_master += 1;
        let id = MasterId(self.next_master);
        let name = settings.name.clone();
        self.elections.add_master(&name);
        let own = self.own_addresses();
        let mut master =
            Master::new(now, id, settings, self.myid, own, &self.periods, &mut self.links);
        let peers: Vec<(RunId, Address)> =
            master.peers.iter().map(|(id, address, _)| (*id, address.clone())).collect();
        // Nobody knows when that was.
        master.lease.bind(now, self.elections.vote(&name).1);
        self.names.insert(name, id);
        self.masters.insert(id, master);
        for (peer, address) in peers {
            self.link_peer(now, &peer, &address);
        }
        if let Some(master) = self.masters.get(&id)
            && let Some(subject) = master.subject(Node::Master)
        {
            let said = Said::of(&Event::Monitor(subject, master.quorum()));
            self.say(Some(id), said);
        }
        self.mark(id);
    }

    /// Watches a master no longer.
    pub(super) fn unmonitor(&mut self, id: MasterId) {
        self.say_plain(id, Plain::MonitorEnded, Node::Master);
        let Some(master) = self.masters.remove(&id) else { return };
        self.names.remove(master.name());
        self.elections.finish(master.name());
        for server in std::iter::once(&master.server).chain(master.replicas.values()) {
            self.links.remove(server.commands, &mut self.out);
            self.links.remove(server.channel, &mut self.out);
        }
        self.drop_unused_peers();
    }

    /// Where our own hellos come from, as far as the configuration tells.
    fn own_addresses(&self) -> Vec<Address> {
        let port = self.announced_port();
        let host = self.globals.announce_ip.as_deref();
        host.and_then(|host| Address::new(host, port).ok()).into_iter().collect()
    }

    pub(super) fn announced_port(&self) -> u16 {
        let tls = &self.globals.server.tls;
        let encrypted = tls.port.filter(|port| *port != 0 && tls.replication);
        self.globals.announce_port.or(encrypted).unwrap_or(self.process.port)
    }

    /// Makes sure that there is a connection to a peer, and that it goes to this address.
    pub(super) fn link_peer(&mut self, now: Instant, peer: &RunId, address: &Address) {
        let known = self.peer_links.get(peer).map(|known| known.link);
        if let Some(link) = known {
            let is_there = self.links.get(link).is_some_and(|l| l.address().is_same(address));
            if is_there {
                return;
            }
            self.links.remove(link, &mut self.out);
        }
        let link = self.links.open(now, Owner::Peer(*peer), address.clone());
        self.peer_links.insert(*peer, PeerLink { link, verified: None, is_leaseless: false });
    }

    /// Ends connections to peers that watch nothing with us any more.
    pub(super) fn drop_unused_peers(&mut self) {
        let masters = &self.masters;
        let is_used = |peer: &RunId| masters.values().any(|m| m.voices.contains_key(peer));
        let unused: Vec<RunId> =
            self.peer_links.keys().filter(|peer| !is_used(peer)).copied().collect();
        for peer in unused {
            if let Some(known) = self.peer_links.remove(&peer) {
                self.links.remove(known.link, &mut self.out);
            }
        }
    }

    /// Forgets a peer of one master.
    pub(super) fn forget_peer(&mut self, id: MasterId, peer: &RunId) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        master.peers.forget(peer);
        master.agreement.forget(peer);
        master.voices.remove(peer);
        let (name, electors) = (master.name().clone(), master.peers.electors());
        self.elections.handle_peers(&name, electors);
        self.drop_unused_peers();
        self.store.want();
        self.mark(id);
    }

    /// Takes over that a master is elsewhere since an election. Connections to its servers stay,
    /// whatever they are now.
    pub(super) fn switch(&mut self, now: Instant, id: MasterId, to: &Address, epoch: Epoch) {
        let grace = self.periods.ping;
        let Some(master) = self.masters.get_mut(&id) else { return };
        if master.server.address.is_same(to) {
            master.config_epoch = epoch;
            return;
        }
        let settled = patience(&master.settings, &self.periods, Duration::ZERO);
        let patience = patience(&master.settings, &self.periods, grace);
        let links = &mut self.links;
        let new = match master.find_replica(to).and_then(|at| master.replicas.remove(&at)) {
            Some(server) => server,
            None => Server::new(now, links, id, Node::Master, to.clone(), patience),
        };
        let mut old = std::mem::replace(&mut master.server, new);
        old.is_former_master = true;
        master.server.is_former_master = false;
        let at = master.take_place();
        master.replicas.insert(at, old);
        master.config_epoch = epoch;
        master.agreement.handle_switch(to, epoch);
        master.down_at = None;
        master.has_conflict = false;
        master.circle_since = None;
        master.stands_at = None;
        master.attempts = 0;
        master.waits_for_replica = false;
        master.reconfiguration = None;
        for (node, server) in master.servers_mut() {
            let patience = if node == Node::Master { patience } else { settled };
            let (commands, channel) = (server.commands, server.channel);
            if let Some(link) = links.get_mut(commands) {
                link.owner = Owner::Commands(id, node);
                let mut watch = Watch::new(now, kind_of(node), patience);
                // It answered a moment ago, or has the whole patience from here on.
                if link.is_open() {
                    watch.handle_connected(now);
                    if now.since(link.pings.acceptable_at) < patience.down_after {
                        watch.handle_pong(now, Pong::Serving);
                    }
                }
                if let Some(run_id) = server.run_id {
                    let _ =
                        watch.handle_run(now, run_id, server.history().unwrap_or_default(), None);
                }
                server.watch = watch;
            }
            if let Some(link) = links.get_mut(channel) {
                link.owner = Owner::Channel(id, node);
            }
            server.role_since = now;
            server.follows_since = now;
            server.is_rebooted = false;
            server.is_restarted = false;
            server.is_kill_sent = false;
            server.wants_info = true;
            server.published_at = None;
        }
        master.server.watch.handle_role(now, master.server.role);
        let replicas: Vec<u32> = master.replicas.keys().copied().collect();
        for at in replicas {
            self.say_plain(id, Plain::Slave, Node::Replica(at));
        }
        self.store.want();
        self.mark(id);
    }

    /// Forgets replicas and peers because an operator says so; they are found again.
    pub(super) fn reset(&mut self, now: Instant, id: MasterId) {
        self.lead(now, id, Input::Superseded);
        let Some(master) = self.masters.get_mut(&id) else { return };
        let replicas = std::mem::take(&mut master.replicas);
        for server in replicas.values().chain(std::iter::once(&master.server)) {
            self.links.remove(server.commands, &mut self.out);
            self.links.remove(server.channel, &mut self.out);
        }
        let address = master.server.address.clone();
        let patience = patience(&master.settings, &self.periods, self.periods.ping);
        let (run_id, info) = (master.server.run_id, master.server.info.take());
        let text = std::mem::take(&mut master.server.info_text);
        master.server =
            Server::new(now, &mut self.links, id, Node::Master, address.clone(), patience);
        master.server.run_id = run_id;
        master.server.info = info;
        master.server.info_text = text;
        master.server.wants_info = true;
        for peer in std::mem::take(&mut master.voices).into_keys() {
            master.peers.forget(&peer);
        }
        master.agreement = Agreement::new(address, master.config_epoch);
        master.down_at = None;
        master.stands_at = None;
        master.attempts = 0;
        master.waits_for_replica = false;
        let (name, electors) = (master.name().clone(), master.peers.electors());
        self.elections.handle_peers(&name, electors);
        self.drop_unused_peers();
        self.say_plain(id, Plain::ResetMaster, Node::Master);
        self.mark(id);
    }

    /// Takes a peer in, if it is new to this master.
    pub(super) fn hear_of_peer(
        &mut self,
        now: Instant,
        id: MasterId,
        peer: RunId,
        address: &Address,
    ) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        let patience = patience(&master.settings, &self.periods, Duration::ZERO);
        master.voices.insert(peer, Voice::new(now, patience));
        let (name, electors) = (master.name().clone(), master.peers.electors());
        self.elections.handle_peers(&name, electors);
        self.link_peer(now, &peer, address);
        let known = self.peer_links.get(&peer);
        let verified = known.and_then(|known| known.verified);
        let link = known.and_then(|known| self.links.get(known.link));
        let pings = link.filter(|link| link.is_open()).map(|link| link.pings);
        let mut found = Vec::new();
        if let Some(master) = self.masters.get_mut(&id) {
            if let (Some(pings), Some(voice)) = (pings, master.voices.get_mut(&peer)) {
                voice.watch.handle_connected(now);
                if pings.waiting_since.is_none() {
                    voice.watch.handle_pong(now, Pong::Serving);
                }
            }
            if verified == Some(peer) {
                master.peers.handle_verified(&peer, &mut found);
            }
        }
        for output in found {
            self.heard(now, id, output);
        }
        self.store.want();
        self.mark(id);
    }

    /// Applies changed settings to everything that was made with the old ones.
    pub(super) fn apply_settings(&mut self, id: MasterId) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        let patience = patience(&master.settings, &self.periods, Duration::ZERO);
        for (_, server) in master.servers_mut() {
            server.watch.set_patience(patience);
        }
        for voice in master.voices.values_mut() {
            voice.watch.set_patience(patience);
        }
        let timeout = master.failover_timeout();
        master.failover.set_timeout(timeout);
        self.store.want();
        self.mark(id);
    }

    /// Whether a fail-over of this master is under way.
    pub(super) fn is_failing_over(&self, id: MasterId) -> bool {
        self.masters.get(&id).is_some_and(|master| *master.failover.state() != State::None)
    }

    /// Cuts all connections to a master's servers, for new credentials.
    pub(super) fn reconnect_servers(&mut self, now: Instant, id: MasterId) {
        let Some(master) = self.masters.get(&id) else { return };
        let servers = std::iter::once(&master.server).chain(master.replicas.values());
        let links: Vec<LinkId> = servers.flat_map(|s| [s.commands, s.channel]).collect();
        for link in links {
            self.cut(now, link);
        }
    }
}
