//! What a fleet consists of, how a run goes, and what comes out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ringkeeper_core::time::Instant;

use super::checker::{Breach, Checker, Told};
use super::fault::{FaultKind, Schedule};
use super::genuine::{Defects, Genuine, Watched};
use super::mutation::Mutation;
use super::observer::Observer;
use super::ours::{Make, Ours};
use super::process::NodeId;
use super::server::{Server, hex_id};
use super::stranger::Stranger;
use super::tap::Line;
use super::world::{Event, Process, State, World};

/// Where one of our Sentinels finds its configuration.
const CONFIG: &str = "sentinel.conf";

/// Servers start before whoever watches them.
const HEAD_START: Duration = Duration::from_millis(1_500);

/// How long all has to stay well before it counts.
const STAYS: Duration = Duration::from_secs(4);

/// Three periods of hellos: whoever says none for so long is not there.
const HELLO_WITHIN: Duration = Duration::from_secs(6);

/// One Sentinel of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The model of the genuine one.
    Genuine(Defects),
    /// Ours, perhaps with a defect put back at its border.
    Ours(Option<Mutation>),
}

/// What a run consists of.
#[derive(Clone)]
pub struct Plan {
    /// The Sentinels.
    pub members: Vec<Member>,
    /// How many masters they watch.
    pub masters: usize,
    /// Replicas of each master.
    pub replicas: usize,
    /// How many Sentinels have to see a master down.
    pub quorum: u32,
    /// When an instance counts as down.
    pub down_after: Duration,
    /// How long steps of a fail-over may take.
    pub failover_timeout: Duration,
    /// One way between two nodes.
    pub latency: Duration,
    /// Up to how much longer one in ten segments takes; nothing is wrong with that.
    pub tail: Duration,
    /// What may go wrong.
    pub faults: Vec<FaultKind>,
    /// How long faults are injected.
    pub storm: Duration,
    /// How long it may take afterwards until all is well.
    pub bound: Duration,
    /// Makes our machines.
    pub make: Option<Make>,
    /// Whether the last Sentinel is told that the first replica is the master.
    pub disagrees: bool,
    /// Whether breaches of genuine Sentinels are failures too.
    pub blames_all: bool,
    /// Whether our machines lend each other leases, so that no two addresses are written to.
    pub is_strict: bool,
    /// Keeps all events.
    pub is_recording: bool,
}

impl Plan {
    /// A fleet of these members, with one master that has two replicas, and no faults.
    pub fn calm(members: Vec<Member>) -> Self {
        Self {
            quorum: members.len() as u32 / 2 + 1,
            members,
            masters: 1,
            replicas: 2,
            down_after: Duration::from_secs(1),
            failover_timeout: Duration::from_secs(10),
            latency: Duration::from_micros(30),
            tail: Duration::ZERO,
            faults: Vec::new(),
            storm: Duration::from_secs(40),
            bound: Duration::from_secs(150),
            make: None,
            disagrees: false,
            blames_all: false,
            is_strict: false,
            is_recording: false,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All is well.
    Well,
    /// It did not get there, which is no fault of ours: there are genuine Sentinels, or nobody
    /// was left who has all of a group's history.
    Unwell,
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// Events of the simulation.
    pub steps: u64,
    /// Faults injected.
    pub faults: u64,
    /// Fail-overs that were started.
    pub tries: u64,
    /// Switches that were published.
    pub switches: u64,
    /// Fail-overs that were given up.
    pub aborts: u64,
    /// Promises broken by Sentinels that are known to do that, by rule.
    pub shipped: BTreeMap<&'static str, u64>,
    /// From the end of the faults until all was well.
    pub recovered: Duration,
    /// From the death of all masters until all were replaced.
    pub replaced: Duration,
}

/// A run that broke a promise.
#[derive(Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was broken.
    pub breach: Breach,
    /// The events before it.
    pub told: Vec<Told>,
    /// How the nodes were left.
    pub nodes: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |at: Instant| at.since(Instant::START).as_secs_f64();
        for told in self.told.iter().rev().take(120).rev() {
            let Told { at, sentinel, channel, payload } = told;
            writeln!(f, "{:>11.4} sentinel {sentinel} {channel} {payload}", seconds(*at))?;
        }
        for node in &self.nodes {
            writeln!(f, "            {node}")?;
        }
        let Breach { at, rule, what } = &self.breach;
        write!(f, "seed {} at {:.4}: {rule}: {what}", self.seed, seconds(*at))
    }
}

/// A command that a Sentinel sent.
#[derive(Clone, Debug)]
pub struct Command {
    /// When.
    pub at: Instant,
    /// Which Sentinel, by its number.
    pub from: usize,
    /// Where to.
    pub to: SocketAddr,
    /// Which connection.
    pub conn: usize,
    /// What.
    pub words: Vec<String>,
}

/// A fleet in a world of its own.
pub struct Fleet {
    seed: u64,
    plan: Plan,
    world: World,
    sentinels: Vec<NodeId>,
    /// By group: the servers, the first master first.
    groups: Vec<Vec<NodeId>>,
}

impl Fleet {
    /// Builds the fleet of a seed; nothing runs yet.
    pub fn new(seed: u64, plan: Plan) -> Self {
        let is_ours = |member: &Member| matches!(member, Member::Ours(_));
        let is_uniform = plan.blames_all || plan.members.iter().all(is_ours);
        let mut checker = Checker::new(plan.quorum, is_uniform, plan.is_recording);
        checker.blames_all = plan.blames_all;
        checker.disagrees = plan.disagrees;
        checker.is_strict = plan.is_strict;
        // And one more for a stranger.
        let nodes = plan.masters * (plan.replicas + 1) + plan.members.len() * 2 + 1;
        let mut world = World::new(seed, checker, plan.latency, nodes);
        if plan.tail > Duration::ZERO {
            (world.paths.tail_one_in, world.paths.tail) = (10, plan.tail);
        }
        let mut groups = Vec::new();
        for group in 0..plan.masters {
            let address = |index: usize| {
                let ip = [10, 1, group as u8, index as u8 + 1];
                SocketAddr::new(IpAddr::from(ip), 6379)
            };
            let mut servers = Vec::new();
            for index in 0..=plan.replicas {
                let of = (index > 0).then(|| address(0));
                let server = Server::new(&mut world.rng, address(index), of);
                servers.push(world.add(address(index), Process::Server(server)));
            }
            let named: Vec<_> =
                servers.iter().map(|node| (*node, world.nodes[*node].address)).collect();
            world.checker.add_master(&format!("m{group}"), &named);
            groups.push(servers);
        }
        let mut fleet = Self { seed, plan, world, sentinels: Vec::new(), groups };
        for number in 0..fleet.plan.members.len() {
            fleet.add_sentinel(number);
        }
        fleet.world.groups.clone_from(&fleet.groups);
        fleet.launch();
        fleet
    }

    fn add_sentinel(&mut self, number: usize) {
        let address = SocketAddr::from(([10, 0, 0, number as u8 + 1], 26379));
        let is_last = number + 1 == self.plan.members.len();
        let watched = self.watched(usize::from(self.plan.disagrees && is_last));
        let member = self.plan.members[number];
        let world = &mut self.world;
        let (process, run_id) = match member {
            Member::Genuine(defects) => {
                let genuine = Genuine::new(&mut world.rng, address, watched, defects);
                let run_id = genuine.my_id.clone();
                (Process::Genuine(genuine), run_id)
            }
            Member::Ours(mutation) => {
                let run_id = hex_id(&mut world.rng);
                let text = config(&run_id, address, &watched);
                let files = BTreeMap::from([(PathBuf::from(CONFIG), text.into_bytes())]);
                let Some(make) = self.plan.make.clone() else {
                    panic!("our Sentinels need somebody to make them")
                };
                (Process::Ours(Ours::new(make, files, mutation)), run_id)
            }
        };
        let is_ours = matches!(process, Process::Ours(_));
        let node = world.add(address, process);
        if !self.plan.faults.is_empty() {
            world.nodes[node].drift_ppm = world.rng.below(20_000) as i64 - 10_000;
        }
        world.checker.add_sentinel(node, &run_id, is_ours);
        self.sentinels.push(node);
        if is_ours {
            let ears = SocketAddr::from(([10, 0, 1, number as u8 + 1], 1));
            let observer = world.add(ears, Process::Observer(Observer::new(node, address)));
            world.start(observer);
        }
    }

    /// What the file says; of each group, `server` is the master.
    fn watched(&self, server: usize) -> Vec<Watched> {
        let watch = |group: usize| Watched {
            name: format!("m{group}"),
            address: self.world.nodes[self.groups[group][server]].address,
            quorum: self.plan.quorum,
            down_after: self.plan.down_after,
            failover_timeout: self.plan.failover_timeout,
            parallel_syncs: 1,
        };
        (0..self.plan.masters).map(watch).collect()
    }

    fn launch(&mut self) {
        for group in self.groups.clone() {
            for server in group {
                self.world.start(server);
            }
        }
        self.world.agenda.plan(Instant::START + Duration::from_millis(500), Event::Write);
        self.run_for(HEAD_START);
        for node in self.sentinels.clone() {
            let after = Duration::from_nanos(self.world.rng.below(400_000_000));
            self.run_for(after / 3);
            self.world.start(node);
        }
    }

    /// Lets time pass; stops early where a promise is broken.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.world.now + time;
        while self.world.checker.failure.is_none() && self.world.step(until) {
            self.world.checker.judge_orders(self.world.now);
        }
    }

    /// Returns the time of the world.
    pub const fn now(&self) -> Instant {
        self.world.now
    }

    /// Kills the master of a group; returns its place in the group.
    pub fn kill_master(&mut self, group: usize) -> Option<usize> {
        let index = self.master_of(group)?;
        self.world.kill(self.groups[group][index]);
        Some(index)
    }

    /// Stops the master of a group as a signal does.
    pub fn stop_master(&mut self, group: usize) -> Option<usize> {
        let index = self.master_of(group)?;
        self.world.pause(self.groups[group][index]);
        Some(index)
    }

    /// Lets somebody introduce itself to the first Sentinel as a peer; returns its address.
    pub fn introduce_stranger(&mut self) -> SocketAddr {
        let world = &mut self.world;
        let address = SocketAddr::from(([10, 0, 2, 1], 26379));
        let first = world.nodes[self.sentinels[0]].address;
        let master = world.nodes[self.groups[0][0]].address;
        let run_id = hex_id(&mut world.rng);
        let hello = format!(
            "{},{},{run_id},0,m0,{},{},0",
            address.ip(),
            address.port(),
            master.ip(),
            master.port()
        );
        let node = world.add(address, Process::Stranger(Stranger::new(first, hello)));
        world.start(node);
        address
    }

    fn master_of(&self, group: usize) -> Option<usize> {
        self.groups[group].iter().position(|node| {
            self.world.nodes[*node].state == State::Running && self.server(*node).takes_writes()
        })
    }

    fn server(&self, node: NodeId) -> &Server {
        match &self.world.nodes[node].process {
            Process::Server(server) => server,
            _ => panic!("node {node} is no server"),
        }
    }

    /// Returns what was published, if it is recorded.
    pub fn told(&self) -> &[Told] {
        &self.world.checker.told
    }

    /// Begins to record the commands that Sentinels send.
    pub fn record_commands(&mut self) {
        self.world.wire_log = Some(Vec::new());
    }

    /// Returns the commands that Sentinels sent, in their order.
    pub fn commands(&self) -> Vec<Command> {
        let number = |node| self.sentinels.iter().position(|one| *one == node).unwrap_or(0);
        let lines = self.world.wire_log.iter().flatten();
        let command = |line: &Line| Command {
            at: line.at,
            from: number(line.from),
            to: self.world.nodes[line.to].address,
            conn: line.conn,
            words: line.words.clone(),
        };
        lines.map(command).collect()
    }

    /// Returns the first promise that was broken.
    pub fn breach(&self) -> Option<&Breach> {
        self.world.checker.failure.as_ref()
    }

    /// Tells whether all is well in all groups: the Sentinels that run agree where the master is,
    /// it is one, and whoever else runs follows it.
    pub fn is_well(&self) -> Result<(), String> {
        for (group, servers) in self.groups.iter().enumerate() {
            let mut beliefs = BTreeSet::new();
            for node in &self.sentinels {
                if self.world.nodes[*node].state == State::Running {
                    let last = self.world.checker.last_hello(*node).unwrap_or_default();
                    if self.world.now.since(last) > HELLO_WITHIN {
                        return Err("L1: somebody says no hellos".into());
                    }
                    beliefs.insert(self.world.checker.belief(*node, group));
                }
            }
            let mut all = beliefs.iter();
            let (Some(Some((_, address))), None) = (all.next(), all.next()) else {
                return Err(format!("L1: master {group} is believed to be {beliefs:?}"));
            };
            for node in self.sentinels.iter().filter(|_| self.plan.is_strict) {
                let is_running = self.world.nodes[*node].state == State::Running;
                if is_running && self.world.checker.writes(*node, group) != Some(*address) {
                    return Err(format!("L1: node {node} may not write to {address}"));
                }
            }
            for node in servers {
                let one = &self.world.nodes[*node];
                let server = self.server(*node);
                if one.address == *address {
                    if one.state != State::Running || !server.takes_writes() {
                        return Err(format!("L3: master {group} is at {address}, which is none"));
                    }
                } else if one.state == State::Running
                    && (server.follows() != Some(*address) || !server.is_in_step())
                {
                    let follows = server.follows();
                    return Err(format!("L2: {} follows {follows:?} of {address}", one.address));
                }
            }
        }
        Ok(())
    }

    /// Waits until all is well and stays so; returns how long that took.
    fn await_well(&mut self, bound: Duration) -> Result<Duration, String> {
        let start = self.world.now;
        let mut well_since = None;
        loop {
            self.run_for(Duration::from_millis(250));
            if self.breach().is_some() {
                return Err(String::new());
            }
            match self.is_well() {
                Ok(()) => {
                    let since = *well_since.get_or_insert(self.world.now);
                    if self.world.now.since(since) >= STAYS {
                        return Ok(since.since(start));
                    }
                }
                Err(what) => {
                    well_since = None;
                    if self.world.now.since(start) > bound {
                        return Err(what);
                    }
                }
            }
        }
    }

    /// Does a whole run: faults, recovery, the death of all masters at once, recovery.
    ///
    /// # Errors
    ///
    /// The first promise that was broken, with the events before it.
    pub fn run(seed: u64, plan: Plan) -> Result<Report, Box<Failure>> {
        let outcome = Self::new(seed, plan.clone()).run_through();
        match outcome {
            Err(_) if !plan.is_recording => {
                Self::new(seed, Plan { is_recording: true, ..plan }).run_through()
            }
            outcome => outcome,
        }
    }

    fn run_through(mut self) -> Result<Report, Box<Failure>> {
        let settle = Duration::from_nanos(4_000_000_000 + self.world.rng.below(8_000_000_000));
        self.run_for(settle);
        let faults = self.plan.faults.clone();
        if !faults.is_empty() {
            self.world.schedule = Schedule::draw(&mut self.world.rng, &faults);
        }
        self.world.plan_strike();
        self.run_for(self.plan.storm);
        if faults.is_empty() && self.world.checker.tries > 0 {
            return self.fail("L4", "a fail-over started where nothing was wrong".into());
        }
        self.world.heal();
        let mut ending = Ending::Well;
        let mut replaced = Duration::ZERO;
        let bound = self.plan.bound;
        let recovered = match self.await_well(bound) {
            Ok(time) => time,
            Err(what) => {
                ending = self.unwell(&what)?;
                bound
            }
        };
        if ending == Ending::Well {
            for group in 0..self.groups.len() {
                self.kill_master(group);
                let after = Duration::from_nanos(self.world.rng.below(400_000_000));
                self.run_for(after / self.groups.len() as u32);
            }
            replaced = match self.await_well(bound) {
                Ok(time) => time,
                Err(what) => {
                    ending = self.unwell(&what)?;
                    bound
                }
            };
        }
        if self.breach().is_some() {
            self.unwell("")?;
        }
        let checker = &self.world.checker;
        Ok(Report {
            ending,
            steps: self.world.steps,
            faults: self.world.schedule.struck,
            tries: checker.tries,
            switches: checker.switches,
            aborts: checker.aborts,
            shipped: checker.shipped.clone(),
            recovered,
            replaced,
        })
    }

    /// It did not get well: whose fault is that?
    fn unwell(&mut self, what: &str) -> Result<Ending, Box<Failure>> {
        let is_ours = |member: &Member| matches!(member, Member::Ours(_));
        let is_blamed = self.plan.blames_all || self.plan.members.iter().all(is_ours);
        // Where nobody has all of a group's history, nobody may be promoted.
        let has_losses = self.world.schedule.losses > 0;
        if self.breach().is_none() && (!is_blamed || has_losses) {
            return Ok(Ending::Unwell);
        }
        let (rule, text) = what.split_once(": ").unwrap_or(("L", what));
        let rule = match rule {
            "L1" => "L1",
            "L2" => "L2",
            _ => "L3",
        };
        self.fail(rule, text.to_owned()).map(|_: Report| Ending::Unwell)
    }

    fn fail<T>(&mut self, rule: &'static str, what: String) -> Result<T, Box<Failure>> {
        let checker = &mut self.world.checker;
        let now = self.world.now;
        let breach = checker.failure.take().unwrap_or(Breach { at: now, rule, what });
        let told = std::mem::take(&mut checker.told);
        let nodes =
            self.world.nodes.iter().enumerate().filter_map(|(id, node)| match &node.process {
                Process::Server(server) => Some(format!("{:?} {}", node.state, server.sketch())),
                _ => {
                    let last = self.world.checker.last_hello(id)?.since(Instant::START);
                    Some(format!("{:?} {}, last hello at {last:?}", node.state, node.address))
                }
            });
        Err(Box::new(Failure { seed: self.seed, breach, told, nodes: nodes.collect() }))
    }
}

/// Writes the file that one of our Sentinels starts from.
fn config(run_id: &str, address: SocketAddr, watched: &[Watched]) -> String {
    let mut text = format!("port {}\nsentinel myid {run_id}\n", address.port());
    let ip = address.ip();
    text.push_str(&format!("sentinel announce-ip {ip}\nbind-source-addr {ip}\n"));
    for one in watched {
        let (name, ip, port) = (&one.name, one.address.ip(), one.address.port());
        text.push_str(&format!(
            "sentinel monitor {name} {ip} {port} {}\n\
             sentinel down-after-milliseconds {name} {}\n\
             sentinel failover-timeout {name} {}\n\
             sentinel parallel-syncs {name} {}\n",
            one.quorum,
            one.down_after.as_millis(),
            one.failover_timeout.as_millis(),
            one.parallel_syncs
        ));
    }
    text
}
