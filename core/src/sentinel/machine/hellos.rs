//! Tells where masters are, and hears it.

use std::time::Duration;

use super::links::{Expect, LinkId, Node, Owner};
use super::master::{Learnt, Master, Server};
use super::monitor::{Due, renamed};
use super::say::Said;
use super::store::Waiter;
use super::{MasterId, Sentinel};
use crate::sentinel::event::{Event, Plain};
use crate::sentinel::failover::Input;
use crate::sentinel::hello::{CHANNEL, Hello};
use crate::sentinel::instance::{Address, Epoch, Role, RunId};
use crate::sentinel::peers::{self, Way};
use crate::time::Instant;
use crate::wire::resp::encode;

/// How long hellos of a peer that an operator had us forget are not heard: others may still spread
/// what they hold.
pub(super) const TOMBSTONE: Duration = Duration::from_secs(300);

impl Sentinel {
    /// Whether it is time to tell a server's subscribers.
    pub(super) fn wants_hello(
        &self,
        now: Instant,
        master: &Master,
        node: Node,
        server: &Server,
        due: &mut Due,
    ) -> bool {
        // A master whose writes are paused puts this off, and with it the end of the pause.
        if node == Node::Master && master.planned.is_some() {
            return false;
        }
        let at = server.published_at.map(|at| at + self.periods.publish);
        if let Some(at) = at.filter(|at| now < *at) {
            due.about(at, self.periods.publish);
            return false;
        }
        true
    }

    /// Tells a server's subscribers.
    pub(super) fn tell_server(
        &mut self,
        now: Instant,
        id: MasterId,
        node: Node,
        link: LinkId,
        due: &mut Due,
    ) {
        if !self.publish_hello(link, Owner::Commands(id, node), id) {
            return;
        }
        if let Some(server) = self.masters.get_mut(&id).and_then(|m| m.server_mut(node)) {
            server.published_at = Some(now);
        }
        due.about(now + self.periods.publish, self.periods.publish);
    }

    /// Tells a peer, if it is time.
    pub(super) fn tell_peer(
        &mut self,
        now: Instant,
        id: MasterId,
        peer: &RunId,
        link: LinkId,
        due: &mut Due,
    ) {
        let voice = self.masters.get(&id).and_then(|master| master.voices.get(peer));
        let Some(voice) = voice else { return };
        let at = voice.published_at.map(|at| at + self.periods.publish);
        if let Some(at) = at.filter(|at| now < *at) {
            due.about(at, self.periods.publish);
            return;
        }
        if !self.publish_hello(link, Owner::Peer(*peer), id) {
            return;
        }
        if let Some(voice) = self.masters.get_mut(&id).and_then(|m| m.voices.get_mut(peer)) {
            voice.published_at = Some(now);
        }
        due.about(now + self.periods.publish, self.periods.publish);
    }

    fn publish_hello(&mut self, link: LinkId, owner: Owner, id: MasterId) -> bool {
        let Some(known) = self.links.get(link).filter(|link| link.is_open()) else { return false };
        if known.pending() >= self.pending_max(owner) {
            return false;
        }
        let local = known.local_ip().map(|ip| ip.to_string());
        let Some(host) = self.globals.announce_ip.clone().or(local) else { return false };
        let Ok(from) = Address::new(&host, self.announced_port()) else { return false };
        let Some(master) = self.masters.get(&id) else { return false };
        let belief = master.belief();
        let hello = Hello {
            from,
            run_id: self.myid,
            current_epoch: self.elections.current_epoch(),
            master: master.name().clone(),
            address: self.announced(belief.address),
            config_epoch: belief.config_epoch,
        };
        let name = renamed(&self.masters, owner, "PUBLISH");
        let text = hello.encode();
        let words: [&[u8]; 3] = [name.as_bytes(), CHANNEL.as_bytes(), text.as_bytes()];
        self.links.send(link, Some(Expect::Published), |out| encode::request(out, &words))
    }

    /// Has everybody told about a master at once.
    pub(super) fn tell_all(&mut self, id: MasterId) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        for (_, server) in master.servers_mut() {
            server.published_at = None;
        }
        for voice in master.voices.values_mut() {
            voice.published_at = None;
        }
        self.mark(id);
    }

    /// Returns an address as others are told it: by number unless names are wanted.
    pub(super) fn announced(&self, address: &Address) -> Address {
        if self.globals.announce_hostnames {
            return address.clone();
        }
        let found = self.now_or_found(address).map(|ip| ip.to_string());
        found
            .and_then(|ip| Address::new(&ip, address.port()).ok())
            .unwrap_or_else(|| address.clone())
    }

    /// Whether two addresses are the same place, by name or by where the name was found.
    pub(super) fn is_same_place(&self, one: &Address, other: &Address) -> bool {
        let by_number = |address: &Address| {
            let ip = self.now_or_found(address).map(|ip| ip.to_string());
            ip.and_then(|ip| Address::new(&ip, address.port()).ok())
        };
        one.is_same(other)
            || by_number(one).is_some_and(|one| one.is_same(other))
            || by_number(other).is_some_and(|other| other.is_same(one))
    }

    /// Takes in a message about some master.
    pub(super) fn hear(&mut self, now: Instant, way: Way, message: &[u8]) {
        let Ok(hello) = Hello::parse(message) else { return };
        if hello.run_id == self.myid {
            self.hear_own(&hello);
            return;
        }
        let Some(id) = self.names.get(&hello.master).copied() else { return };
        let Some(master) = self.masters.get_mut(&id) else { return };
        if master.forgotten.get(&hello.run_id).is_some_and(|at| now.since(*at) < TOMBSTONE) {
            return;
        }
        let mut found = Vec::new();
        let belief = peers::Belief {
            address: &master.belief().address.clone(),
            config_epoch: master.belief().config_epoch,
        };
        master.peers.handle_hello(now, way, &hello, belief, self.periods.publish, &mut found);
        if let Some(voice) = master.voices.get_mut(&hello.run_id) {
            voice.told = Some((now, hello.config_epoch, hello.address.clone()));
        }
        // It may be what a stray waits for.
        if master.replicas.values().any(|one| one.role == Role::Master || one.is_restarted) {
            self.dirty.insert(id);
        }
        for output in found {
            self.heard(now, id, output);
        }
    }

    /// Our own hellos come back by every channel; from elsewhere they are not ours.
    fn hear_own(&mut self, hello: &Hello) {
        let is_ours = |host: &str| hello.from.host() == host;
        let is_port = hello.from.port() == self.announced_port();
        let is_known = match &self.globals.announce_ip {
            Some(host) => is_ours(host),
            // Any address of this host may be ours.
            None => true,
        };
        if is_port && is_known || self.is_id_copied {
            return;
        }
        self.is_id_copied = true;
        let from = &hello.from;
        self.note(format!(
            "Another Sentinel at {from} uses our ID; give it one of its own. No votes until then"
        ));
    }

    pub(super) fn heard(&mut self, now: Instant, id: MasterId, output: peers::Output) {
        match output {
            peers::Output::Added(peer, address) => {
                self.hear_of_peer(now, id, peer, &address);
                self.say_peer(id, Plain::Sentinel, &peer, &address);
            }
            peers::Output::Moved(peer, address) => self.peer_moved(now, id, peer, &address),
            peers::Output::Replaced(peer, address) => {
                self.say_peer(id, Plain::SentinelInvalidAddress, &peer, &address);
                let everywhere: Vec<MasterId> = self.masters.keys().copied().collect();
                for master in everywhere {
                    self.forget_peer(master, &peer);
                }
            }
            peers::Output::Refused(_) => {}
            peers::Output::CopiedId(_) => self.is_id_copied = true,
            peers::Output::Epoch(epoch) => self.elections.handle_epoch(epoch),
            peers::Output::ConfigUpdate { from, epoch, address } => {
                self.config_update(now, id, from, epoch, address);
            }
            peers::Output::Conflict { from, address } => self.conflict(id, &from, &address),
        }
    }

    fn peer_moved(&mut self, now: Instant, id: MasterId, peer: RunId, address: &Address) {
        let Some(master) = self.masters.get(&id) else { return };
        if let Some(subject) = master.subject(Node::Master) {
            let said = Said::of(&Event::SentinelAddressSwitch(subject, address, &peer));
            self.say(Some(id), said);
        }
        self.link_peer(now, &peer, address);
        let mut updated = 0;
        for (other, master) in &mut self.masters {
            if *other != id && master.peers.relocate(&peer, address) {
                updated += 1;
            }
        }
        if updated > 0
            && let Some(subject) = self.masters.get(&id).and_then(|m| m.subject(Node::Master))
        {
            let said = Said::of(&Event::SentinelAddressUpdate(subject, updated));
            self.say(Some(id), said);
        }
        self.store.want();
        self.mark(id);
    }

    /// Takes in that a master is elsewhere since a later election. We say so to others once it is
    /// durable, so that nobody hears of the old place from us after a crash; routing in our own
    /// process ends with it and follows at once.
    fn config_update(
        &mut self,
        now: Instant,
        id: MasterId,
        from: RunId,
        epoch: Epoch,
        address: Address,
    ) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        if master.learnt.as_ref().is_some_and(|learnt| learnt.epoch >= epoch) {
            return;
        }
        master.learnt = Some(Learnt { from, epoch, address });
        self.lead(now, id, Input::Superseded);
        self.store.want_for(Waiter::Learnt(id, epoch));
        self.mark(id);
    }

    /// Goes on with what was learnt, which is durable, or cannot be: where the master is was
    /// decided by others, and clients have to be told.
    pub(super) fn learn(&mut self, now: Instant, id: MasterId, epoch: Epoch) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        // Something later may be on its way to the disk already.
        let Some(learnt) = master.learnt.take_if(|learnt| learnt.epoch == epoch) else { return };
        let Learnt { from, address, .. } = learnt;
        let (from, address) = (&from, &address);
        let old = master.server.address.clone();
        let peer = master.peers.address(from).cloned();
        if self.is_same_place(&old, address) {
            if let Some(master) = self.masters.get_mut(&id) {
                master.config_epoch = epoch;
                master.agreement.handle_switch(&old, epoch);
            }
            self.mark(id);
            return;
        }
        if let Some(peer) = peer {
            self.say_peer(id, Plain::ConfigUpdateFrom, from, &peer);
        }
        self.say_switch(id, &old, address);
        self.run_reconfig_script(id, false, &old, address);
        self.switch(now, id, address, epoch);
    }

    pub(super) fn say_switch(&mut self, id: MasterId, from: &Address, to: &Address) {
        let Some(master) = self.masters.get(&id) else { return };
        let said = Said::of(&Event::SwitchMaster { master: master.name(), from, to });
        self.say(Some(id), said);
    }

    /// Only a fresh election can settle which of two addresses is right.
    fn conflict(&mut self, id: MasterId, from: &RunId, address: &Address) {
        let Some(master) = self.masters.get(&id) else { return };
        if master.has_conflict || self.is_same_place(address, master.belief().address) {
            return;
        }
        let text = format!(
            "{from} says that {} is at {address}, and we say {}, both since election {}",
            master.name(),
            master.belief().address,
            master.belief().config_epoch
        );
        if let Some(master) = self.masters.get_mut(&id) {
            master.has_conflict = true;
        }
        self.note(text);
    }
}
