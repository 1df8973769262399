//! Looks after servers and peers: connects, pings, asks for INFO, tells hellos, and judges.

use std::collections::BTreeMap;
use std::time::Duration;

use super::links::{Expect, LinkId, Node, Owner};
use super::master::{Master, Server};
use super::say::Said;
use super::tables::PeerLink;
use super::{MasterId, Sentinel};
use crate::limits::SENTINEL_PENDING_MAX;
use crate::sentinel::down::{CommonEdge, Edge};
use crate::sentinel::event::{Event, Plain};
use crate::sentinel::failover::{Input, State};
use crate::sentinel::info::{MasterLink, RoleReport};
use crate::sentinel::instance::RunId;
use crate::time::Instant;
use crate::wire::resp::encode;

/// Shortest wait between attempts to connect.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// How often a replica that is to become the master is asked whether it is.
const WATCH_PERIOD: Duration = Duration::from_millis(25);

/// How often a replica is asked whether it has caught up with a master whose writes are stopped:
/// clients wait for that.
const CATCH_UP_PERIOD: Duration = Duration::from_millis(2);

/// The longest that anything waits for others that are due a little later.
const GRID_MAX: Duration = Duration::from_millis(50);

/// The earliest of some moments at which something is due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Due(Option<Instant>);

impl Due {
    pub(super) fn at(&mut self, at: Instant) {
        self.0 = Some(self.0.map_or(at, |known| known.min(at)));
    }

    /// Like [`at`](Self::at), for what is done again and again: it may be up to a twentieth of its
    /// period late, so that what many masters need is done at one moment, in one turn.
    pub(super) fn about(&mut self, at: Instant, period: Duration) {
        let grid = u64::try_from((period / 20).min(GRID_MAX).as_nanos()).unwrap_or(1).max(1);
        self.at(Instant::from_nanos(at.as_nanos().div_ceil(grid).saturating_mul(grid)));
    }

    pub(super) fn maybe(&mut self, at: Option<Instant>) {
        if let Some(at) = at {
            self.at(at);
        }
    }
}

/// What the steps of one review share.
#[derive(Clone, Copy, Debug)]
struct Round {
    now: Instant,
    id: MasterId,
    down_after: Duration,
    /// How often each instance is pinged.
    ping: Duration,
}

/// A server and its two connections.
#[derive(Clone, Copy, Debug)]
struct Place {
    node: Node,
    commands: LinkId,
    channel: LinkId,
}

/// Who is looked after in a review, in order.
#[derive(Debug, Default)]
pub(super) struct Rota {
    servers: Vec<Place>,
    peers: Vec<(RunId, LinkId)>,
}

impl Rota {
    fn fill(&mut self, master: &Master, peer_links: &BTreeMap<RunId, PeerLink>) {
        self.servers.clear();
        self.servers.extend(master.servers().map(|(node, server)| {
            let (commands, channel) = (server.commands, server.channel);
            Place { node, commands, channel }
        }));
        let link = |peer: &RunId| Some((*peer, peer_links.get(peer)?.link));
        self.peers.clear();
        self.peers.extend(master.voices.keys().filter_map(link));
    }
}

impl Sentinel {
    /// Does everything that is due for one master, and arms a timer for what will be.
    pub(super) fn review(&mut self, now: Instant, id: MasterId) {
        let Some(master) = self.masters.get(&id) else { return };
        let ping = self.periods.ping_period(master.down_after());
        let round = Round { now, id, down_after: master.down_after(), ping };
        // Nearly every input ends here, so the lists are kept from one review to the next.
        let mut rota = std::mem::take(&mut self.rota);
        rota.fill(master, &self.peer_links);
        let mut due = Due::default();
        for place in &rota.servers {
            self.tend_server(round, *place, &mut due);
        }
        for (peer, link) in &rota.peers {
            self.tend_peer(round, peer, *link, &mut due);
        }
        self.rota = rota;
        if !self.tilt.is_active() {
            self.judge(now, id, &mut due);
            self.ask_peers(now, id, &mut due);
            // What others decided since comes first.
            if self.masters.get(&id).is_some_and(|master| master.learnt.is_none()) {
                self.consider_failover(now, id, &mut due);
                self.repair(now, id, &mut due);
            }
        }
        self.keep_lease(now, id, &mut due);
        self.review_news(now, id, &mut due);
        self.arm(now, id, due);
    }

    fn arm(&mut self, now: Instant, id: MasterId, due: Due) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        let Some(at) = due.0 else { return };
        // What is due at once but could not be done waits for a moment, lest it spins.
        let at = at.max(now + Duration::from_micros(100));
        if master.armed.is_none_or(|armed| at < armed) {
            master.armed = Some(at);
            self.timers.arm(at, id);
        }
    }

    /// Looks after the two connections of a server.
    fn tend_server(&mut self, round: Round, place: Place, due: &mut Due) {
        let Round { now, id, down_after, ping } = round;
        let Place { node, commands, channel } = place;
        self.connect(now, commands, ping, due);
        if self.links.is_open(commands) {
            self.connect(now, channel, ping, due);
        }
        self.cut_stuck(now, commands, channel, down_after, due);
        self.ping(now, commands, ping, due);
        let Some(master) = self.masters.get(&id) else { return };
        let Some(server) = master.server(node) else { return };
        let wants_info = self.wants_info(now, master, node, server, due);
        let wants_hello = self.wants_hello(now, master, node, server, due);
        if wants_info {
            self.send_info(now, id, node, commands);
        }
        if wants_hello {
            self.tell_server(now, id, node, commands, due);
        }
    }

    fn tend_peer(&mut self, round: Round, peer: &RunId, link: LinkId, due: &mut Due) {
        let Round { now, id, down_after, ping } = round;
        self.connect(now, link, ping, due);
        self.cut_stuck(now, link, link, down_after, due);
        self.ping(now, link, ping, due);
        self.tell_peer(now, id, peer, link, due);
    }

    /// Connects a link that is not, if the last attempt is long enough ago.
    fn connect(&mut self, now: Instant, id: LinkId, period: Duration, due: &mut Due) {
        let Some(link) = self.links.get(id) else { return };
        if !link.is_idle() {
            return;
        }
        let wait = period.clamp(RETRY_MIN, self.periods.ping.max(RETRY_MIN));
        if let Some(at) = link.tried_at().map(|at| at + wait).filter(|at| *at > now) {
            due.at(at);
            return;
        }
        let ip = self.now_or_found(link.address());
        let timeout = (period * 5).clamp(wait, Duration::from_secs(5));
        self.links.connect(now, id, ip, timeout, &mut self.out);
        due.at(now + wait);
    }

    /// Cuts connections on which nothing comes any more though the other side may be well.
    fn cut_stuck(
        &mut self,
        now: Instant,
        commands: LinkId,
        channel: LinkId,
        down_after: Duration,
        due: &mut Due,
    ) {
        let least = self.periods.min_link_reconnect;
        if let Some(link) = self.links.get(commands)
            && let Some(since) = link.open_since()
            && let Some(waiting) = link.pings.waiting_since
        {
            let half = down_after / 2;
            let at = (since + least).max(waiting + half).max(link.heard_at() + half);
            if now > at { self.cut(now, commands) } else { due.at(at + Duration::from_nanos(1)) }
        }
        let silence = self.periods.publish * 3;
        if channel != commands
            && let Some(link) = self.links.get(channel)
            && let Some(since) = link.open_since()
        {
            let at = (since + least).max(link.heard_at() + silence);
            if now > at { self.cut(now, channel) } else { due.at(at + Duration::from_nanos(1)) }
        }
    }

    /// Pings if the last answer is old, and the last question too.
    fn ping(&mut self, now: Instant, id: LinkId, period: Duration, due: &mut Due) {
        let Some(link) = self.links.get(id).filter(|link| link.is_open()) else { return };
        let at = (link.pings.answered_at + period).max(link.pings.sent_at + period / 2);
        if now < at {
            due.about(at, period);
            return;
        }
        due.at(now + period / 2);
        if link.pending() < self.pending_max(link.owner) {
            self.send_ping(now, id);
        }
    }

    pub(super) fn send_ping(&mut self, now: Instant, id: LinkId) {
        let Some(owner) = self.links.get(id).map(|link| link.owner) else { return };
        let name = renamed(&self.masters, owner, "PING");
        if !self.links.send(id, Some(Expect::Pong), |out| encode::request(out, &[name.as_bytes()]))
        {
            return;
        }
        if let Some(link) = self.links.get_mut(id) {
            link.pings.sent_at = now;
            link.pings.waiting_since.get_or_insert(now);
        }
        self.each_watch(owner, |watch| watch.handle_ping_sent(now));
    }

    /// Calls `change` for every watch that a link informs.
    pub(super) fn each_watch(
        &mut self,
        owner: Owner,
        mut change: impl FnMut(&mut crate::sentinel::down::Watch),
    ) {
        match owner {
            Owner::Commands(id, node) => {
                let master = self.masters.get_mut(&id);
                if let Some(server) = master.and_then(|master| master.server_mut(node)) {
                    change(&mut server.watch);
                }
            }
            Owner::Peer(peer) => {
                for master in self.masters.values_mut() {
                    if let Some(voice) = master.voices.get_mut(&peer) {
                        change(&mut voice.watch);
                    }
                }
            }
            Owner::Channel(..) => {}
        }
    }

    /// Marks every master that a link belongs to.
    pub(super) fn mark_owner(&mut self, owner: Owner) {
        match owner {
            Owner::Commands(id, _) | Owner::Channel(id, _) => self.mark(id),
            Owner::Peer(peer) => {
                let with = self.masters.iter().filter(|(_, m)| m.voices.contains_key(&peer));
                self.dirty.extend(with.map(|(id, _)| *id));
            }
        }
    }

    pub(super) fn renamed(&self, owner: Owner, command: &str) -> String {
        renamed(&self.masters, owner, command).to_owned()
    }

    /// Returns how many replies a link may owe before periodic commands wait.
    pub(super) fn pending_max(&self, owner: Owner) -> usize {
        match owner {
            Owner::Commands(..) | Owner::Channel(..) => SENTINEL_PENDING_MAX,
            Owner::Peer(_) => SENTINEL_PENDING_MAX * self.masters.len().max(1),
        }
    }

    /// Returns how often a server is asked for INFO.
    fn info_period(&self, master: &Master, node: Node, server: &Server) -> Duration {
        let soon = self.periods.info.min(self.periods.ping);
        // What it says of its history counts once it has loaded its data, and nobody could replace it
        // before that is known.
        if server.info.as_ref().is_some_and(|(_, info)| info.is_loading)
            || master.circle_since.is_some()
        {
            return soon;
        }
        let Node::Replica(at) = node else { return self.periods.info };
        let is_promoted = master.promoted() == Some(at);
        match master.failover.state() {
            State::WaitPromotion(_) | State::Commit(_) if is_promoted => return WATCH_PERIOD,
            State::SendSlaveofNoone(_) if is_promoted && master.planned.is_some() => {
                return CATCH_UP_PERIOD;
            }
            State::ReconfSlaves(_) => return WATCH_PERIOD * 4,
            State::None
            | State::WaitStart
            | State::SelectSlave { .. }
            | State::SendSlaveofNoone(_)
            | State::WaitPromotion(_)
            | State::Commit(_)
            | State::UpdateConfig(_) => {}
        }
        let is_suspected = master.is_fast_down && master.server.is_refused;
        if master.planned.is_some() || (is_suspected && !master.agreement.is_down()) {
            return WATCH_PERIOD;
        }
        let is_link_down =
            server.replica_report().is_some_and(|(_, r)| matches!(r.link, MasterLink::Down(_)));
        let is_busy = *master.failover.state() != State::None || master.server.watch.is_down();
        if is_busy || is_link_down { soon } else { self.periods.info }
    }

    /// Whether a server is to be asked for INFO.
    fn wants_info(
        &self,
        now: Instant,
        master: &Master,
        node: Node,
        server: &Server,
        due: &mut Due,
    ) -> bool {
        let Some(link) = self.links.get(server.commands).filter(|link| link.is_open()) else {
            return false;
        };
        // One question at a time; a connection that does not answer is given up by the pings.
        if server.info_asked.is_some() || link.pending() >= SENTINEL_PENDING_MAX {
            return false;
        }
        let period = self.info_period(master, node, server);
        let last = server.info.as_ref().map(|(at, _)| *at);
        let at = match (server.info_refused, last) {
            // It is busy or loads its data, and its history may be another one since.
            (Some(refused), _) => refused + period.min(self.periods.ping),
            (None, Some(last)) if !server.wants_info => last + period,
            (None, Some(_) | None) => now,
        };
        if now < at {
            due.about(at, period);
            return false;
        }
        true
    }

    pub(super) fn send_info(&mut self, now: Instant, id: MasterId, node: Node, link: LinkId) {
        let name = renamed(&self.masters, Owner::Commands(id, node), "INFO");
        let is_sent = self
            .links
            .send(link, Some(Expect::Info), |out| encode::request(out, &[name.as_bytes()]));
        let master = self.masters.get_mut(&id);
        if let Some(server) = master.and_then(|master| master.server_mut(node))
            && is_sent
        {
            server.info_asked = Some(now);
            server.wants_info = false;
        }
    }

    /// Finds out who is down, and tells.
    fn judge(&mut self, now: Instant, id: MasterId, due: &mut Due) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        let mut servers = Vec::new();
        for (node, server) in master.servers_mut() {
            servers.extend(server.watch.evaluate(now).map(|edge| (node, edge)));
            due.maybe(server.watch.deadline());
        }
        let mut peers = Vec::new();
        for (peer, voice) in &mut master.voices {
            peers.extend(voice.watch.evaluate(now).map(|edge| (*peer, edge)));
            due.maybe(voice.watch.deadline());
        }
        for (node, edge) in servers {
            self.tell_edge(now, id, node, edge);
        }
        for (peer, edge) in peers {
            let address = self.masters.get(&id).and_then(|master| master.peers.address(&peer));
            let Some(address) = address.cloned() else { continue };
            let plain = match edge {
                Edge::Down(_) => Plain::SubjectivelyDown,
                Edge::Up => Plain::SubjectivelyUp,
            };
            self.say_peer(id, plain, &peer, &address);
        }
        self.judge_together(now, id, due);
    }

    fn tell_edge(&mut self, now: Instant, id: MasterId, node: Node, edge: Edge) {
        match edge {
            Edge::Down(_) => {
                self.say_plain(id, Plain::SubjectivelyDown, node);
                if node == Node::Master {
                    self.suspect(now, id);
                }
            }
            Edge::Up => {
                let master = self.masters.get_mut(&id);
                if let Some(server) = master.and_then(|master| master.server_mut(node)) {
                    server.is_kill_sent = false;
                    server.down_until = Some(now);
                }
                self.say_plain(id, Plain::SubjectivelyUp, node);
            }
        }
    }

    /// Asks everybody for what will be needed if it is true that the master is down.
    pub(super) fn suspect(&mut self, now: Instant, id: MasterId) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        master.agreement.handle_suspicion(now);
        for replica in master.replicas.values_mut() {
            replica.wants_info = true;
        }
        for voice in master.voices.values_mut() {
            voice.asked_at = None;
            // What is on its way was asked before.
            voice.is_asked = false;
        }
        self.mark(id);
    }

    fn judge_together(&mut self, now: Instant, id: MasterId, due: &mut Due) {
        let age_max = self.periods.ask * 5;
        let Some(master) = self.masters.get_mut(&id) else { return };
        let quorum = master.quorum();
        let is_down = master.server.watch.is_down() || is_fast_down(master, now);
        let edge = master.agreement.evaluate(now, is_down, age_max, quorum);
        if master.agreement.is_down() {
            // Answers grow old without news.
            due.at(now + age_max);
        }
        match edge {
            Some(CommonEdge::Down(tally)) => {
                master.down_at = Some(now);
                let Some(subject) = master.subject(Node::Master) else { return };
                let said = Said::of(&Event::ObjectivelyDown(subject, tally.agree, quorum));
                self.say(Some(id), said);
            }
            Some(CommonEdge::Up) => {
                master.down_at = None;
                master.stands_at = None;
                self.say_plain(id, Plain::ObjectivelyUp, Node::Master);
                self.inbox.push_back((id, Input::MasterIsBack));
            }
            None => {}
        }
    }

    /// Cuts a connection and takes in that it is gone.
    pub(super) fn cut(&mut self, now: Instant, id: LinkId) {
        let Some(owner) = self.links.get(id).map(|link| link.owner) else { return };
        self.links.cut(id, &mut self.out);
        self.lost(now, owner, true);
    }

    /// Takes in that a connection is gone, and with it every answer that was awaited.
    pub(super) fn lost(&mut self, _now: Instant, owner: Owner, was_open: bool) {
        if let Owner::Commands(id, node) = owner {
            let master = self.masters.get_mut(&id);
            if let Some(server) = master.and_then(|master| master.server_mut(node)) {
                server.info_asked = None;
                server.wants_info |= was_open;
            }
        }
        if let Owner::Peer(peer) = owner {
            for master in self.masters.values_mut() {
                if let Some(voice) = master.voices.get_mut(&peer) {
                    voice.is_asked = false;
                }
            }
        }
        self.each_watch(owner, |watch| watch.handle_disconnected());
        self.mark_owner(owner);
    }
}

/// Returns what a command is called where a link goes.
pub(super) fn renamed<'a>(
    masters: &'a BTreeMap<MasterId, Master>,
    owner: Owner,
    command: &'a str,
) -> &'a str {
    match owner {
        Owner::Commands(id, _) | Owner::Channel(id, _) => {
            masters.get(&id).map_or(command, |master| master.renamed(command))
        }
        Owner::Peer(_) => command,
    }
}

/// Whether a connection that was refused or reset counts, because every replica that can be
/// reached has lost the master too.
pub(super) fn is_fast_down(master: &Master, now: Instant) -> bool {
    if !master.is_fast_down || !master.server.is_refused {
        return false;
    }
    let mut has_witness = false;
    for replica in master.replicas.values() {
        let Some((at, info)) = &replica.info else { continue };
        if replica.watch.is_down() || now.since(*at) > Duration::from_secs(1) {
            continue;
        }
        match &info.role {
            RoleReport::Replica(report) if report.link == MasterLink::Up => return false,
            RoleReport::Replica(_) => has_witness = true,
            RoleReport::Master { .. } => {}
        }
    }
    has_witness
}
