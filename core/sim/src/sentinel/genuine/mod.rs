//! A model of the genuine Sentinel of Redis 7.0, its defects included.
//!
//! Everything follows what the genuine program does and when: a timer that redraws its own period,
//! one pass over all instances per tick, decisions nowhere else but in the tick and in the
//! handling of replies and hellos. It is no code of ours that ships; it exists because ours has
//! to be safe beside it.

mod elect;
mod failover;
mod hello;
mod info;
mod link;
mod serve;
mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_core::rng::Rng;

use self::link::Owner;
use self::serve::Caller;
use self::table::{Id, Instance, Kind, Link, State};
use super::process::{Conn, Context, Happening};

/// Milliseconds of the wall clock, as the genuine program takes all its time.
type Ms = i64;

const INFO_PERIOD: Ms = 10_000;
const PING_PERIOD: Ms = 1_000;
const ASK_PERIOD: Ms = 1_000;
const PUBLISH_PERIOD: Ms = 2_000;
const TILT_TRIGGER: Ms = 2_000;
const TILT_PERIOD: Ms = 30_000;
const RECONF_TIMEOUT: Ms = 10_000;
const LINK_AGE_MIN: Ms = 15_000;
const ELECTION_TIMEOUT: Ms = 10_000;
const MAX_DESYNC: u64 = 1_000;
const PENDING_MAX: usize = 100;
const HELLO: &str = "__sentinel__:hello";

const ALARM_TICK: u64 = 1;

/// The known defects of the genuine program, each of which can be repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defects {
    /// Votes are counted if they are of the latest election of all, not of the one's own.
    pub counts_wrong_epoch: bool,
    /// What peers said of the old address counts against the new master, which is contacted late.
    pub keeps_confirmations: bool,
    /// A vote is given although it could not be saved.
    pub votes_unsaved: bool,
    /// A server that says that it is a master may be chosen as a replica to promote.
    pub promotes_stale_master: bool,
    /// Only peers that seem to be up count as voters. Not a defect of the genuine program.
    pub forgets_dead_voters: bool,
    /// A hello of the same configuration epoch is believed. Not a defect of the genuine program.
    pub believes_equal_epochs: bool,
    /// Answers leave before what they say is on disk. Not a defect of the genuine program.
    pub answers_before_disk: bool,
}

impl Defects {
    /// What the genuine program ships.
    pub const SHIPPED: Self = Self {
        counts_wrong_epoch: true,
        keeps_confirmations: true,
        votes_unsaved: true,
        promotes_stale_master: true,
        ..Self::NONE
    };

    /// All repaired.
    pub const NONE: Self = Self {
        counts_wrong_epoch: false,
        keeps_confirmations: false,
        votes_unsaved: false,
        promotes_stale_master: false,
        forgets_dead_voters: false,
        believes_equal_epochs: false,
        answers_before_disk: false,
    };
}

/// A master as its configuration file describes it.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Its name.
    pub name: String,
    /// Where it is at first.
    pub address: SocketAddr,
    /// How many have to see it down.
    pub quorum: u32,
    /// When it counts as down.
    pub down_after: Duration,
    /// How long steps of a fail-over may take.
    pub failover_timeout: Duration,
    /// How many replicas are redirected at a time.
    pub parallel_syncs: u32,
}

/// What a master's lines in the file say besides.
#[derive(Clone, Debug)]
struct SavedMaster {
    address: SocketAddr,
    config_epoch: u64,
    leader_epoch: u64,
    replicas: Vec<SocketAddr>,
    sentinels: Vec<(String, SocketAddr)>,
}

/// The state lines of the file.
#[derive(Clone, Debug, Default)]
struct Saved {
    current_epoch: u64,
    masters: BTreeMap<String, SavedMaster>,
}

/// The model of one genuine Sentinel.
pub(crate) struct Genuine {
    pub my_id: String,
    pub defects: Defects,
    /// The file cannot be written.
    pub is_disk_broken: bool,
    address: SocketAddr,
    watched: Vec<Watched>,
    saved: Saved,
    /// How long a save takes at most.
    pub save_time: Duration,
    current_epoch: u64,
    masters: Vec<Id>,
    instances: Vec<Instance>,
    links: Vec<Link>,
    owners: BTreeMap<Conn, Owner>,
    callers: BTreeMap<Conn, Caller>,
    is_tilted: bool,
    tilt_start: Ms,
    previous_tick: Ms,
}

impl Genuine {
    pub(crate) fn new(
        rng: &mut Rng,
        address: SocketAddr,
        watched: Vec<Watched>,
        defects: Defects,
    ) -> Self {
        Self {
            my_id: super::server::hex_id(rng),
            defects,
            is_disk_broken: false,
            address,
            watched,
            saved: Saved::default(),
            save_time: Duration::from_millis(4),
            current_epoch: 0,
            masters: Vec::new(),
            instances: Vec::new(),
            links: Vec::new(),
            owners: BTreeMap::new(),
            callers: BTreeMap::new(),
            is_tilted: false,
            tilt_start: 0,
            previous_tick: 0,
        }
    }

    pub(crate) fn handle(&mut self, happening: Happening, ctx: &mut Context<'_>) {
        match happening {
            Happening::Started => self.started(ctx),
            Happening::Woken(_) => self.tick(ctx),
            Happening::Accepted { conn, .. } => {
                self.callers.insert(conn, Caller::default());
            }
            Happening::Connected(conn) => self.link_connected(conn),
            Happening::Received { conn, bytes } => {
                if self.callers.contains_key(&conn) {
                    self.serve(conn, &bytes, ctx);
                } else {
                    self.link_received(conn, &bytes, ctx);
                }
            }
            Happening::Gone { conn, .. } => {
                self.callers.remove(&conn);
                self.link_gone(conn);
            }
            Happening::Sent(_)
            | Happening::Ended(_)
            | Happening::Persisted { .. }
            | Happening::Exited { .. }
            | Happening::Mail(_)
            | Happening::Opened(_)
            | Happening::Datagram { .. } => {}
        }
    }

    fn started(&mut self, ctx: &mut Context<'_>) {
        self.masters.clear();
        self.instances.clear();
        self.links.clear();
        self.owners.clear();
        self.callers.clear();
        self.is_tilted = false;
        self.previous_tick = ctx.wall_ms;
        let saved = self.saved.clone();
        self.current_epoch = saved.current_epoch;
        for watched in self.watched.clone() {
            let known = saved.masters.get(&watched.name);
            let address = known.map_or(watched.address, |known| known.address);
            let id = self.create_master(&watched, address, ctx);
            let Some(known) = known else { continue };
            self.instances[id].config_epoch = known.config_epoch;
            self.instances[id].leader_epoch = known.leader_epoch;
            for replica in &known.replicas {
                self.create_replica(id, *replica, ctx);
            }
            for (run_id, address) in &known.sentinels {
                self.create_peer(id, run_id, *address, ctx);
            }
        }
        // The order of a dictionary is anybody's guess.
        for index in (1..self.masters.len()).rev() {
            self.masters.swap(index, ctx.rng.below(index as u64 + 1) as usize);
        }
        for id in self.masters.clone() {
            let quorum = self.instances[id].quorum;
            self.event(id, "+monitor", &format!(" quorum {quorum}"), ctx);
        }
        ctx.wake_in(Duration::from_millis(1), ALARM_TICK);
    }

    /// Draws when the next pass is due: the timer runs 10 to 19 times a second.
    fn plan_tick(ctx: &mut Context<'_>) {
        let period = 1_000_000 / (10 + ctx.rng.below(10));
        ctx.wake_in(Duration::from_micros(period), ALARM_TICK);
    }

    fn tick(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.wall_ms;
        let gap = now - self.previous_tick;
        if !(0..=TILT_TRIGGER).contains(&gap) {
            self.is_tilted = true;
            self.tilt_start = now;
            ctx.tell("+tilt", "#tilt mode entered".into());
        }
        self.previous_tick = now;
        let mut to_switch = None;
        for id in self.masters.clone() {
            self.visit(id, ctx);
            for replica in self.instances[id].replicas.clone() {
                self.visit(replica, ctx);
            }
            for peer in self.instances[id].peers.clone() {
                self.visit(peer, ctx);
            }
            if self.instances[id].state == State::UpdateConfig {
                to_switch = Some(id);
            }
        }
        if let Some(id) = to_switch {
            self.switch_to_promoted(id, ctx);
        }
        Self::plan_tick(ctx);
    }

    fn visit(&mut self, id: Id, ctx: &mut Context<'_>) {
        self.reconnect(id, ctx);
        self.send_periodic(id, ctx);
        if self.is_tilted {
            if ctx.wall_ms - self.tilt_start < TILT_PERIOD {
                return;
            }
            self.is_tilted = false;
            ctx.tell("-tilt", "#tilt mode exited".into());
        }
        self.check_subjectively_down(id, ctx);
        if self.instances[id].kind == Kind::Master {
            self.check_objectively_down(id, ctx);
            if self.start_failover_if_needed(id, ctx) {
                self.ask_peers(id, true, ctx);
            }
            self.failover_step(id, ctx);
            self.ask_peers(id, false, ctx);
        }
    }

    /// Publishes an event about an instance, with what follows its description.
    fn event(&self, id: Id, name: &str, behind: &str, ctx: &mut Context<'_>) {
        let text = self.describe(id);
        ctx.tell(name, format!("{text}{behind}"));
    }

    fn describe(&self, id: Id) -> String {
        let one = &self.instances[id];
        let (ip, port) = (one.address.ip(), one.address.port());
        let own = format!("{} {} {ip} {port}", one.kind.word(), one.name);
        match one.master {
            None => own,
            Some(master) => {
                let master = &self.instances[master];
                let (ip, port) = (master.address.ip(), master.address.port());
                format!("{own} @ {} {ip} {port}", master.name)
            }
        }
    }

    /// Rewrites the file, which takes the time of two fsyncs on the only thread; says whether
    /// that worked.
    fn save(&mut self, ctx: &mut Context<'_>) -> bool {
        ctx.busy += Duration::from_nanos(ctx.rng.below(self.save_time.as_nanos() as u64));
        if self.is_disk_broken {
            return false;
        }
        self.saved.current_epoch = self.current_epoch;
        for id in &self.masters {
            let master = &self.instances[*id];
            let address = self.current_address(master);
            // While the chosen replica is not the master yet, the old master stands in for it.
            let replicas = master.replicas.iter().map(|replica| self.instances[*replica].address);
            let replicas =
                replicas.map(|replica| if replica == address { master.address } else { replica });
            let peers = master.peers.iter().map(|peer| &self.instances[*peer]);
            let saved = SavedMaster {
                address,
                config_epoch: master.config_epoch,
                leader_epoch: master.leader_epoch,
                replicas: replicas.collect(),
                sentinels: peers.map(|peer| (peer.name.clone(), peer.address)).collect(),
            };
            self.saved.masters.insert(master.name.clone(), saved);
        }
        true
    }
}
