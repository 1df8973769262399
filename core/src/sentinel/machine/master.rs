//! What is known of one master: the server that it is, its replicas, who else watches it, and what
//! is being done about it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lease::Lease;
use super::links::{LinkId, Links, Node, Owner};
use super::periods::Periods;
use super::workers::News;
use super::{MasterId, ms};
use crate::config::sentinel as config;
use crate::sentinel::ask::Answer;
use crate::sentinel::down::{Agreement, Patience, Watch};
use crate::sentinel::event::{Subject, Who};
use crate::sentinel::failover::{Failover, State};
use crate::sentinel::info::{History, Info, RoleReport};
use crate::sentinel::instance::{Address, Epoch, Flag, Flags, Kind, MasterName, Role, RunId};
use crate::sentinel::peers::{Belief, Peers};
use crate::sentinel::reconf::{Progress, Reconfiguration};
use crate::sentinel::select::Selection;
use crate::sentinel::state::Durable;
use crate::time::Instant;

/// A master or a replica.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: Address,
    pub(super) watch: Watch,
    pub(super) commands: LinkId,
    pub(super) channel: LinkId,
    pub(super) run_id: Option<RunId>,
    /// The last INFO that could be understood.
    pub(super) info: Option<(Instant, Info)>,
    /// When the last INFO that could be understood was asked for.
    pub(super) info_of: Option<Instant>,
    /// The last INFO as it came.
    pub(super) info_text: Vec<u8>,
    /// When INFO was asked for; none while no answer is awaited.
    pub(super) info_asked: Option<Instant>,
    /// When INFO was answered with something else, if it was so the last time.
    pub(super) info_refused: Option<Instant>,
    /// Whether INFO is wanted without waiting for its period.
    pub(super) wants_info: bool,
    pub(super) published_at: Option<Instant>,
    pub(super) role: Role,
    pub(super) role_since: Instant,
    /// When a replica last began to follow another master.
    pub(super) follows_since: Instant,
    /// When it was last subjectively down, and when it came up.
    pub(super) down_until: Option<Instant>,
    pub(super) is_kill_sent: bool,
    pub(super) is_rebooted: bool,
    /// Whether the connection was refused or reset since it last stood.
    pub(super) is_refused: bool,
    /// Whether it started anew since the last switch and has not followed the master since: then
    /// it follows what its file says.
    pub(super) is_restarted: bool,
    /// Whether it was the master before and has not said since that it follows anybody.
    pub(super) is_former_master: bool,
    /// When it was last told whom to follow without being asked.
    pub(super) repaired_at: Option<Instant>,
}

impl Server {
    pub(super) fn new(
        now: Instant,
        links: &mut Links,
        master: MasterId,
        node: Node,
        address: Address,
        patience: Patience,
    ) -> Self {
        let kind = kind_of(node);
        let commands = links.open(now, Owner::Commands(master, node), address.clone());
        let channel = links.open(now, Owner::Channel(master, node), address.clone());
        Self {
            address,
            watch: Watch::new(now, kind, patience),
            commands,
            channel,
            run_id: None,
            info: None,
            info_of: None,
            info_text: Vec::new(),
            info_asked: None,
            info_refused: None,
            wants_info: false,
            published_at: None,
            role: if kind == Kind::Master { Role::Master } else { Role::Replica },
            role_since: now,
            follows_since: now,
            down_until: None,
            is_kill_sent: false,
            is_rebooted: false,
            is_refused: false,
            is_restarted: false,
            is_former_master: false,
            repaired_at: None,
        }
    }

    /// Returns what it says of itself as a replica, and when.
    pub(super) fn replica_report(
        &self,
    ) -> Option<(Instant, &crate::sentinel::info::ReplicaReport)> {
        let (at, info) = self.info.as_ref()?;
        match &info.role {
            RoleReport::Replica(report) => Some((*at, report)),
            RoleReport::Master { .. } => None,
        }
    }

    pub(super) fn history(&self) -> Option<History> {
        self.info.as_ref().map(|(_, info)| info.history)
    }
}

pub(super) const fn kind_of(node: Node) -> Kind {
    match node {
        Node::Master => Kind::Master,
        Node::Replica(_) => Kind::Replica,
    }
}

/// What is known of a peer with regard to one master.
#[derive(Debug)]
pub(super) struct Voice {
    pub(super) watch: Watch,
    pub(super) published_at: Option<Instant>,
    /// When it was last asked about the master.
    pub(super) asked_at: Option<Instant>,
    /// Whether its answer is awaited.
    pub(super) is_asked: bool,
    /// Its last answer about the master where it is.
    pub(super) answer: Option<(Instant, Answer)>,
    /// Its last vote.
    pub(super) vote: (Option<RunId>, Epoch),
    /// Where it says that the master is, since which election, and when it said so.
    pub(super) told: Option<(Instant, Epoch, Address)>,
}

impl Voice {
    pub(super) fn new(now: Instant, patience: Patience) -> Self {
        Self {
            watch: Watch::new(now, Kind::Sentinel, patience),
            published_at: None,
            asked_at: None,
            is_asked: false,
            answer: None,
            vote: (None, Epoch::ZERO),
            told: None,
        }
    }
}

/// A fail-over that an operator asked for while the master serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Planned {
    /// Writes on the master are being stopped, for the replica's sake.
    Pausing { replica: Address, until: Instant },
    /// They are stopped; the replica has to reach this offset.
    CatchingUp { replica: Address, offset: Option<u64>, since: Instant, until: Instant },
    /// It has.
    Ready,
}

/// Where a master is by a later election that others told of, until it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Learnt {
    /// Who told of it.
    pub(super) from: RunId,
    pub(super) epoch: Epoch,
    pub(super) address: Address,
}

/// One master.
#[derive(Debug)]
pub(super) struct Master {
    /// The settings. What is learnt stands beside it, not in it.
    pub(super) settings: config::Master,
    pub(super) server: Server,
    pub(super) config_epoch: Epoch,
    /// What is being written down, and not told before.
    pub(super) learnt: Option<Learnt>,
    pub(super) replicas: BTreeMap<u32, Server>,
    next_replica: u32,
    pub(super) peers: Peers,
    pub(super) voices: BTreeMap<RunId, Voice>,
    pub(super) agreement: Agreement,
    pub(super) down_at: Option<Instant>,
    pub(super) failover: Failover,
    pub(super) failover_state_at: Instant,
    /// Since when it is known to follow itself by way of its replicas.
    pub(super) circle_since: Option<Instant>,
    pub(super) reconfiguration: Option<Reconfiguration>,
    pub(super) is_forced: bool,
    pub(super) planned: Option<Planned>,
    /// The replica to be told that it is the master, once it can be.
    pub(super) promote: Option<Address>,
    /// Since when a replica is to be chosen.
    pub(super) selecting_since: Option<Instant>,
    /// When the first of those who see the same would stand for election; none while there is no
    /// cause.
    pub(super) stands_at: Option<Instant>,
    /// Elections in a row that led nowhere.
    pub(super) attempts: u32,
    /// Whether nobody was fit at the last attempt, so that the next one waits for somebody.
    pub(super) waits_for_replica: bool,
    /// What the last choice found, for whoever asks.
    pub(super) last_selection: Option<Selection>,
    /// The histories that the last master continued.
    pub(super) lineage: History,
    /// The earliest timer that is armed for it.
    pub(super) armed: Option<Instant>,
    /// Whether a refused connection, confirmed by others, is enough.
    pub(super) is_fast_down: bool,
    /// How many replicas have what clients were told is written; 0 promises nothing.
    pub(super) min_copies: u32,
    /// Whether two addresses are told for one election.
    pub(super) has_conflict: bool,
    /// Peers that an operator had us forget, and when; their hellos are not heard for a while.
    pub(super) forgotten: BTreeMap<RunId, Instant>,
    /// What workers with clients are told.
    pub(super) news: News,
    /// Who may write to it, and until when.
    pub(super) lease: Lease,
}

pub(super) fn patience(
    settings: &config::Master,
    periods: &Periods,
    connect_grace: Duration,
) -> Patience {
    Patience {
        down_after: ms(settings.down_after_ms),
        role_grace: periods.info * 2,
        reboot_down_after: (settings.reboot_down_after_ms > 0)
            .then(|| ms(settings.reboot_down_after_ms)),
        connect_grace,
    }
}

impl Master {
    /// Takes over what was known of the history before a restart, if it is that of this master.
    pub(super) fn recall(&mut self, durable: &Durable) {
        let known = durable.masters.get(self.name()).and_then(|known| known.lineage);
        if let Some(known) = known.filter(|known| known.epoch == self.config_epoch) {
            let (replid, replid2) = (Some(known.replid), known.earlier);
            self.lineage = History { replid, replid2, ..History::default() };
        }
    }

    pub(super) fn new(
        now: Instant,
        id: MasterId,
        settings: config::Master,
        myid: RunId,
        own: Vec<Address>,
        periods: &Periods,
        links: &mut Links,
    ) -> Self {
        let patience = patience(&settings, periods, Duration::ZERO);
        let address = settings.monitor.address.clone();
        let server = Server::new(now, links, id, Node::Master, address.clone(), patience);
        let remembered = settings.known_sentinels.iter().map(|p| (p.run_id, p.address.clone()));
        let peers = Peers::new(myid, own, remembered);
        let config_epoch = settings.config_epoch;
        let mut master = Self {
            server,
            config_epoch,
            learnt: None,
            replicas: BTreeMap::new(),
            next_replica: 0,
            voices: peers.iter().map(|(id, ..)| (*id, Voice::new(now, patience))).collect(),
            peers,
            agreement: Agreement::new(address, config_epoch),
            down_at: None,
            failover: Failover::new(now, ms(settings.failover_timeout_ms)),
            failover_state_at: now,
            circle_since: None,
            reconfiguration: None,
            is_forced: false,
            planned: None,
            promote: None,
            selecting_since: None,
            stands_at: None,
            attempts: 0,
            waits_for_replica: false,
            last_selection: None,
            lineage: History::default(),
            armed: None,
            is_fast_down: false,
            min_copies: 0,
            has_conflict: false,
            forgotten: BTreeMap::new(),
            news: News::new(&settings.name),
            lease: Lease::default(),
            settings,
        };
        for replica in master.settings.known_replicas.clone() {
            master.add_replica(now, id, replica, periods, links);
        }
        master
    }

    /// Adds a replica that is not known; returns its place.
    pub(super) fn add_replica(
        &mut self,
        now: Instant,
        id: MasterId,
        address: Address,
        periods: &Periods,
        links: &mut Links,
    ) -> Option<u32> {
        let is_full = self.replicas.len() >= crate::limits::REPLICAS_PER_MASTER_MAX;
        if is_full || self.find_replica(&address).is_some() || self.server.address.is_same(&address)
        {
            return None;
        }
        let at = self.take_place();
        let patience = patience(&self.settings, periods, Duration::ZERO);
        let server = Server::new(now, links, id, Node::Replica(at), address, patience);
        self.replicas.insert(at, server);
        Some(at)
    }

    /// Returns a place in the table of replicas that nobody had.
    pub(super) const fn take_place(&mut self) -> u32 {
        self.next_replica = self.next_replica.wrapping_add(1);
        self.next_replica
    }

    pub(super) const fn name(&self) -> &MasterName {
        &self.settings.name
    }

    pub(super) fn find_replica(&self, address: &Address) -> Option<u32> {
        let mut found = self.replicas.iter().filter(|(_, s)| s.address.is_same(address));
        found.next().map(|(at, _)| *at)
    }

    pub(super) fn server(&self, node: Node) -> Option<&Server> {
        match node {
            Node::Master => Some(&self.server),
            Node::Replica(at) => self.replicas.get(&at),
        }
    }

    pub(super) fn server_mut(&mut self, node: Node) -> Option<&mut Server> {
        match node {
            Node::Master => Some(&mut self.server),
            Node::Replica(at) => self.replicas.get_mut(&at),
        }
    }

    /// Returns the master itself, then its replicas in the order of their places.
    pub(super) fn servers(&self) -> impl Iterator<Item = (Node, &Server)> {
        let replicas = self.replicas.iter().map(|(at, server)| (Node::Replica(*at), server));
        std::iter::once((Node::Master, &self.server)).chain(replicas)
    }

    /// Like [`servers`](Self::servers), for changing them.
    pub(super) fn servers_mut(&mut self) -> impl Iterator<Item = (Node, &mut Server)> {
        let replicas = self.replicas.iter_mut().map(|(at, server)| (Node::Replica(*at), server));
        std::iter::once((Node::Master, &mut self.server)).chain(replicas)
    }

    /// Returns where clients and peers are sent, and the election that says so.
    pub(super) fn belief(&self) -> Belief<'_> {
        match self.failover.state().announced() {
            Some(chosen) => Belief { address: &chosen.replica, config_epoch: chosen.epoch },
            None => Belief { address: &self.server.address, config_epoch: self.config_epoch },
        }
    }

    /// Returns where the master is by the latest election that we know of, whether or not others
    /// may be told.
    pub(super) fn latest_belief(&self) -> Belief<'_> {
        match &self.learnt {
            Some(learnt) => Belief { address: &learnt.address, config_epoch: learnt.epoch },
            None => self.belief(),
        }
    }

    /// Returns the place of the replica that is being promoted.
    pub(super) fn promoted(&self) -> Option<u32> {
        self.failover.state().chosen().and_then(|chosen| self.find_replica(&chosen.replica))
    }

    pub(super) fn subject(&self, node: Node) -> Option<Subject<'_>> {
        let server = self.server(node)?;
        Some(Subject {
            who: match node {
                Node::Master => Who::Master,
                Node::Replica(_) => Who::Replica,
            },
            address: &server.address,
            master: self.name(),
            master_address: &self.server.address,
        })
    }

    pub(super) const fn quorum(&self) -> u32 {
        self.settings.monitor.quorum.get()
    }

    pub(super) const fn down_after(&self) -> Duration {
        ms(self.settings.down_after_ms)
    }

    pub(super) const fn failover_timeout(&self) -> Duration {
        ms(self.settings.failover_timeout_ms)
    }

    /// Whether a replica may be told to follow this master: it says that it is one and serves.
    pub(super) fn looks_sane(&self, now: Instant, info_period: Duration) -> bool {
        let fresh = |at: Instant| now.since(at) < info_period * 2;
        self.server.role == Role::Master
            && !self.server.watch.is_down()
            && !self.agreement.is_down()
            && self.server.info.as_ref().is_some_and(|(at, _)| fresh(*at))
    }

    /// Returns the flags of a server as replies show them.
    pub(super) fn flags(&self, node: Node, links: &Links) -> Flags {
        let Some(server) = self.server(node) else { return Flags::EMPTY };
        let mut flags = Flags::EMPTY;
        let mut set = |is_set: bool, flag: Flag| {
            if is_set {
                flags = flags.with(flag);
            }
        };
        set(server.watch.is_down(), Flag::SubjectivelyDown);
        set(server.is_kill_sent, Flag::ScriptKillSent);
        set(server.is_rebooted, Flag::MasterReboot);
        let is_whole = links.is_open(server.commands) && links.is_open(server.channel);
        set(!is_whole, Flag::Disconnected);
        match node {
            Node::Master => {
                set(self.agreement.is_down(), Flag::ObjectivelyDown);
                set(*self.failover.state() != State::None, Flag::FailoverInProgress);
                set(self.is_forced, Flag::ForceFailover);
            }
            Node::Replica(at) => {
                set(self.promoted() == Some(at), Flag::Promoted);
                let progress = self.reconfiguration.as_ref();
                match progress.and_then(|all| all.progress(&server.address)) {
                    Some(Progress::Sent(_)) => set(true, Flag::ReconfSent),
                    Some(Progress::InProgress) => set(true, Flag::ReconfInProgress),
                    Some(Progress::Done) => set(true, Flag::ReconfDone),
                    None => {}
                }
            }
        }
        flags
    }

    /// Returns what a command is called on this master's servers.
    pub(super) fn renamed<'a>(&'a self, command: &'a str) -> &'a str {
        let renamed = &self.settings.renamed_commands;
        let found = renamed.iter().find(|known| known.from.eq_ignore_ascii_case(command));
        found.map_or(command, |known| &known.to)
    }
}
