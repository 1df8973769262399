//! Takes in what servers and peers answer.

use std::net::SocketAddr;

use super::links::{Expect, LinkId, Node, Owner, Reception};
use super::master::Master;
use super::say::Said;
use super::{MasterId, Sentinel};
use crate::id::{ConnId, QueryId};
use crate::io::{CloseReason, ResolveError};
use crate::sentinel::ask::Answer;
use crate::sentinel::down::{Asked, Pong};
use crate::sentinel::event::{Event, Plain};
use crate::sentinel::failover::{Input, State};
use crate::sentinel::hello::CHANNEL;
use crate::sentinel::info::{Info, RoleReport};
use crate::sentinel::instance::{Address, Role, RunId};
use crate::sentinel::peers::Way;
use crate::sentinel::role::bulk;
use crate::time::Instant;
use crate::wire::resp::{array_elements, encode};

impl Sentinel {
    /// Introduces us, all at once, without waiting for answers.
    pub(super) fn link_connected(&mut self, now: Instant, conn: ConnId, local: Option<SocketAddr>) {
        let Some(id) = self.links.connected(now, conn, local) else { return };
        let Some(owner) = self.links.get(id).map(|link| link.owner) else { return };
        let auth = self.auth_command(owner);
        let client = self.renamed(owner, "CLIENT");
        let kind = if owner.is_channel() { "pubsub" } else { "cmd" };
        let short = self.myid.as_str().get(..8).unwrap_or_default();
        let name = format!("sentinel-{short}-{kind}");
        let expect = || (!owner.is_channel()).then_some(Expect::Ignored);
        if let Some(words) = auth {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            self.links.send(id, expect(), |out| encode::request(out, &words));
        }
        let words: [&[u8]; 3] = [client.as_bytes(), b"SETNAME", name.as_bytes()];
        self.links.send(id, expect(), |out| encode::request(out, &words));
        if owner.is_channel() {
            let subscribe = self.renamed(owner, "SUBSCRIBE");
            let words: [&[u8]; 2] = [subscribe.as_bytes(), CHANNEL.as_bytes()];
            self.links.send(id, None, |out| encode::request(out, &words));
            self.mark_owner(owner);
            return;
        }
        self.send_ping(now, id);
        if let Owner::Peer(peer) = owner {
            // It may be another program by now.
            if let Some(known) = self.peer_links.get_mut(&peer) {
                known.is_leaseless = false;
            }
            // A peer counts once it says who it is where it says that it is.
            let words: [&[u8]; 2] = [b"SENTINEL", b"MYID"];
            self.links.send(id, Some(Expect::MyId), |out| encode::request(out, &words));
        }
        if let Owner::Commands(master, node) = owner
            && let Some(master) = self.masters.get_mut(&master)
            && let Some(server) = master.server_mut(node)
        {
            server.is_refused = false;
            server.published_at = None;
        }
        self.each_watch(owner, |watch| watch.handle_connected(now));
        self.mark_owner(owner);
    }

    fn auth_command(&self, owner: Owner) -> Option<Vec<String>> {
        let words = |user: Option<&String>, password: &str, name: String| {
            let mut words = vec![name];
            words.extend(user.cloned());
            words.push(password.to_owned());
            words
        };
        let auth = self.renamed(owner, "AUTH");
        match owner {
            Owner::Commands(id, _) | Owner::Channel(id, _) => {
                let settings = &self.masters.get(&id)?.settings;
                let password = settings.auth_pass.as_ref()?;
                Some(words(settings.auth_user.as_ref(), password.expose(), auth))
            }
            Owner::Peer(_) => match (&self.globals.sentinel_pass, &self.globals.server.requirepass)
            {
                (Some(password), _) => {
                    Some(words(self.globals.sentinel_user.as_ref(), password.expose(), auth))
                }
                (None, Some(password)) => Some(words(None, password.expose(), auth)),
                (None, None) => None,
            },
        }
    }

    pub(super) fn link_eof(&mut self, conn: ConnId) {
        // Nothing more will be answered; the runtime tells the end when we end our side.
        self.out.push_back(crate::io::Output::Close { conn, mode: crate::io::CloseMode::Abort });
    }

    pub(super) fn link_closed(&mut self, now: Instant, conn: ConnId, reason: CloseReason) {
        let Some(loss) = self.links.closed(now, conn, reason) else { return };
        let is_refused = matches!(reason, CloseReason::Refused | CloseReason::Reset)
            // Our own end, after theirs.
            || (reason == CloseReason::Requested && loss.was_open);
        if let Owner::Commands(id, node) = loss.owner
            && let Some(master) = self.masters.get_mut(&id)
            && let Some(server) = master.server_mut(node)
        {
            let is_first = is_refused && !server.is_refused;
            server.is_refused |= is_refused;
            if is_first && node == Node::Master && master.is_fast_down {
                self.suspect(now, id);
            }
        }
        self.lost(now, loss.owner, loss.was_open);
    }

    pub(super) fn resolved(
        &mut self,
        _now: Instant,
        query: QueryId,
        result: Result<Vec<SocketAddr>, ResolveError>,
    ) {
        if let Some((_, owner, address)) = self.links.resolved(query) {
            match result.ok().and_then(|found| found.first().map(SocketAddr::ip)) {
                Some(ip) => {
                    self.found_hosts.insert(address.host().to_owned(), ip);
                }
                None => self.note(format!("Failed to resolve hostname '{}'", address.host())),
            }
            self.mark_owner(owner);
        }
    }

    pub(super) fn link_received(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        let mut heard = match self.links.received(now, conn, bytes) {
            Reception::Nobody => return,
            Reception::Garbage(id) => {
                self.cut(now, id);
                return;
            }
            Reception::Frames(heard) => heard,
        };
        let (link, owner) = (heard.link, heard.owner);
        while let Some(frame) = heard.next() {
            match owner {
                Owner::Channel(_, node) => self.channel_said(now, node, frame),
                Owner::Commands(..) | Owner::Peer(_) => {
                    // An answer to nothing, or the link was cut by what came before.
                    let Some(expect) = self.links.expected(link) else { break };
                    self.answered(now, link, owner, expect, frame);
                }
            }
        }
        self.links.give_back(heard);
    }

    fn channel_said(&mut self, now: Instant, node: Node, frame: &[u8]) {
        let Some(mut elements) = array_elements(frame) else { return };
        let mut next = || elements.next().and_then(bulk);
        if next() != Some(b"message") || next() != Some(CHANNEL.as_bytes()) {
            return;
        }
        let Some(message) = next() else { return };
        let way = match node {
            Node::Master => Way::Master,
            Node::Replica(at) => Way::Replica(usize::try_from(at).unwrap_or(usize::MAX)),
        };
        self.hear(now, way, message);
    }

    fn answered(&mut self, now: Instant, link: LinkId, owner: Owner, expect: Expect, frame: &[u8]) {
        match (expect, owner) {
            // What was not taken is told again when it is time.
            (Expect::Ignored | Expect::Published, _) => {}
            (Expect::Pong, _) => self.handle_pong(now, link, owner, frame),
            (Expect::Info, Owner::Commands(id, node)) => self.handle_info(now, id, node, frame),
            (Expect::Answer(id, asked), Owner::Peer(peer)) => {
                self.handle_answer(now, id, peer, &asked, frame);
            }
            (Expect::MyId, Owner::Peer(peer)) => self.handle_myid(now, peer, frame),
            (Expect::Promise(id, epoch, at), Owner::Peer(peer)) => {
                self.handle_promise(now, id, peer, (epoch, at), frame);
            }
            (Expect::Left(id, epoch), Owner::Peer(peer)) => {
                self.handle_left(now, id, peer, epoch, frame);
            }
            (Expect::Paused, Owner::Commands(id, _)) => self.handle_paused(now, id, frame),
            (
                Expect::Info
                | Expect::Answer(..)
                | Expect::MyId
                | Expect::Paused
                | Expect::Promise(..)
                | Expect::Left(..),
                Owner::Commands(..) | Owner::Channel(..) | Owner::Peer(_),
            ) => {}
        }
    }

    fn handle_pong(&mut self, now: Instant, id: LinkId, owner: Owner, frame: &[u8]) {
        let pong = Pong::of(frame);
        if let Some(link) = self.links.get_mut(id) {
            link.pings.answered_at = now;
            if pong.is_acceptable() {
                link.pings.acceptable_at = now;
                link.pings.waiting_since = None;
            }
        }
        let mut has_edge = false;
        self.each_watch(owner, |watch| {
            watch.handle_pong(now, pong);
            has_edge |= watch.is_down();
        });
        if let Owner::Commands(id, node) = owner {
            if pong == Pong::Serving
                && let Some(server) = self.masters.get_mut(&id).and_then(|m| m.server_mut(node))
            {
                server.is_rebooted = false;
            }
            if pong == Pong::Busy {
                self.kill_script(id, node);
            }
            self.mark(id);
        } else if has_edge {
            self.mark_owner(owner);
        } else if let Owner::Peer(peer) = owner {
            // One master is enough to arm the timer of the next PING.
            let first = self.masters.iter().find(|(_, m)| m.voices.contains_key(&peer));
            if let Some(id) = first.map(|(id, _)| *id) {
                self.mark(id);
            }
        }
    }

    /// Ends a script that blocks a server which is down for it, once.
    fn kill_script(&mut self, id: MasterId, node: Node) {
        let script = self.renamed(Owner::Commands(id, node), "SCRIPT");
        let Some(server) = self.masters.get_mut(&id).and_then(|m| m.server_mut(node)) else {
            return;
        };
        if !server.watch.is_down() || server.is_kill_sent {
            return;
        }
        server.is_kill_sent = true;
        let link = server.commands;
        let words: [&[u8]; 2] = [script.as_bytes(), b"KILL"];
        self.links.send(link, Some(Expect::Ignored), |out| encode::request(out, &words));
    }

    fn handle_myid(&mut self, now: Instant, peer: RunId, frame: &[u8]) {
        let Some(said) = bulk(frame).and_then(RunId::parse) else { return };
        if let Some(known) = self.peer_links.get_mut(&peer) {
            known.verified = Some(said);
        }
        if said != peer {
            return;
        }
        let ids: Vec<MasterId> = self.masters.keys().copied().collect();
        for id in ids {
            let Some(master) = self.masters.get_mut(&id) else { continue };
            if !master.voices.contains_key(&peer) || master.peers.is_proven(&peer) {
                continue;
            }
            let mut found = Vec::new();
            master.peers.handle_verified(&peer, &mut found);
            let (name, electors) = (master.name().clone(), master.peers.electors());
            self.elections.handle_peers(&name, electors);
            for output in found {
                self.heard(now, id, output);
            }
            self.mark(id);
        }
    }

    fn handle_answer(
        &mut self,
        now: Instant,
        id: MasterId,
        peer: RunId,
        asked: &Asked,
        frame: &[u8],
    ) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        let Some(voice) = master.voices.get_mut(&peer) else { return };
        voice.is_asked = false;
        let Ok(answer) = Answer::parse(frame) else { return };
        voice.answer = Some((now, answer));
        if let Some(leader) = answer.leader {
            voice.vote = (Some(leader), answer.epoch);
        }
        master.agreement.handle_answer(now, peer, asked, answer.is_down);
        let name = master.name().clone();
        self.elections.handle_answer(&name, peer, &answer);
        self.mark(id);
    }

    fn handle_info(&mut self, now: Instant, id: MasterId, node: Node, frame: &[u8]) {
        let master = self.masters.get_mut(&id);
        let Some(server) = master.and_then(|master| master.server_mut(node)) else { return };
        let asked = server.info_asked.take();
        let text = info_content(frame);
        let Some((text, info)) = text.and_then(|text| Some((text, Info::parse(text).ok()?))) else {
            server.info_refused = Some(now);
            self.mark(id);
            return;
        };
        self.mark(id);
        if let Some(server) = self.masters.get_mut(&id).and_then(|m| m.server_mut(node)) {
            server.info_refused = None;
            server.info_of = asked;
            server.info_text.clear();
            server.info_text.extend_from_slice(text);
        }
        self.take_in_run(now, id, node, &info);
        self.take_in_role(now, id, node, &info);
        let Some(master) = self.masters.get_mut(&id) else { return };
        if node == Node::Master && info.role.role() == Role::Master && !info.is_loading {
            let is_new = master.lineage.replid != info.history.replid;
            master.lineage = info.history;
            if is_new {
                self.store.want();
            }
        }
        if let Some(server) = master.server_mut(node) {
            note_followed(now, server, &info);
            server.info = Some((now, info));
        }
        if let Node::Replica(at) = node {
            self.replica_reported(id, at);
        } else {
            self.take_in_replicas(now, id);
        }
        self.catch_up(now, id);
    }

    fn take_in_run(&mut self, now: Instant, id: MasterId, node: Node, info: &Info) {
        let Some(run_id) = info.run_id else { return };
        let Some(master) = self.masters.get_mut(&id) else { return };
        let best = master.replicas.values().filter_map(super::master::Server::history);
        let best = best.max_by_key(|history| history.offset);
        let has_patience = master.settings.reboot_down_after_ms > 0;
        let Some(server) = master.server_mut(node) else { return };
        let is_other = server.run_id.is_some_and(|before| before != run_id);
        server.run_id = Some(run_id);
        let _ = server.watch.handle_run(now, run_id, info.history, best);
        if is_other {
            server.is_restarted = true;
            server.is_rebooted = node == Node::Master && has_patience;
            self.say_plain(id, Plain::Reboot, node);
        }
    }

    fn take_in_role(&mut self, now: Instant, id: MasterId, node: Node, info: &Info) {
        let role = info.role.role();
        let expected = if node == Node::Master { Role::Master } else { Role::Replica };
        let Some(master) = self.masters.get_mut(&id) else { return };
        let Some(server) = master.server_mut(node) else { return };
        server.watch.handle_role(now, role);
        server.is_former_master &= role == Role::Master;
        if server.role == role {
            return;
        }
        server.role = role;
        server.role_since = now;
        if role == Role::Replica {
            server.follows_since = now;
        }
        let is_expected = role == expected;
        let Some(subject) = self.masters.get(&id).and_then(|m| m.subject(node)) else { return };
        let said = Said::of(&Event::RoleChange { subject, role, is_expected });
        self.say(Some(id), said);
    }

    /// A replica that was told to become the master may say that it is.
    fn replica_reported(&mut self, id: MasterId, at: u32) {
        let Some(master) = self.masters.get(&id) else { return };
        let Some(server) = master.replicas.get(&at) else { return };
        let is_awaited = matches!(master.failover.state(), State::WaitPromotion(_));
        if is_awaited && server.role == Role::Master && !self.tilt.is_active() {
            let address = server.address.clone();
            self.inbox.push_back((id, Input::SaysMaster(address)));
        }
    }

    /// Takes in the replicas that the master lists.
    fn take_in_replicas(&mut self, now: Instant, id: MasterId) {
        let Some(master) = self.masters.get(&id) else { return };
        let Some((_, info)) = &master.server.info else { return };
        let RoleReport::Master { replicas, .. } = &info.role else { return };
        let unknown = |address: &&Address| {
            master.find_replica(address).is_none() && !master.server.address.is_same(address)
        };
        let unknown: Vec<Address> = replicas.iter().filter(unknown).cloned().collect();
        for address in unknown {
            let Some(master) = self.masters.get_mut(&id) else { return };
            let added = master.add_replica(now, id, address, &self.periods, &mut self.links);
            if let Some(at) = added {
                self.say_plain(id, Plain::Slave, Node::Replica(at));
                self.store.want();
            }
        }
    }

    pub(super) fn each_master(&self) -> impl Iterator<Item = (MasterId, &Master)> {
        self.names.values().filter_map(|id| Some((*id, self.masters.get(id)?)))
    }
}

/// Notes since when a replica follows the master that it follows.
fn note_followed(now: Instant, server: &mut super::master::Server, info: &Info) {
    let RoleReport::Replica(new) = &info.role else { return };
    let old = server.replica_report().and_then(|(_, report)| report.master.clone());
    let is_same = match (&old, &new.master) {
        (Some(old), Some(new)) => old.is_same(new),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    if !is_same {
        server.follows_since = now;
    }
}

/// Returns the text of a reply to INFO, as a bulk or as verbatim text.
fn info_content(frame: &[u8]) -> Option<&[u8]> {
    if let Some(text) = bulk(frame) {
        return Some(text);
    }
    let body = frame.strip_prefix(b"=")?.strip_suffix(b"\r\n")?;
    let line = memchr::memmem::find(body, b"\r\n")?;
    body.get(line + 2..)?.get(4..)
}
