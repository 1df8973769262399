//! A deployment, how a run goes, and what comes out of it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use ringkeeper_core::time::Instant;

use super::client::{Client, Operator, Pace};
use super::estate::Host;
use super::judge::{Judge, Rules};
use super::kernel::Kernel;
use super::node::Node;
use super::plan::{HOSTS, SERVERS, SHARDS, Scenario, Weather, server_address};
use super::probe::Mutation;
use super::storm::{Deed, Storm};
use crate::clock::Agenda;
use crate::sentinel::checker::Checker;
use crate::sentinel::ours::{Make, Ours};
use crate::sentinel::process::NodeId;
use crate::sentinel::server::Server;
use crate::sentinel::world::{Process, State, World};

/// Where clients find the deployment.
const VIRTUAL: ([u8; 4], u16) = ([10, 77, 0, 100], 6379);

/// Servers start before whoever watches them.
const HEAD_START: Duration = Duration::from_millis(1_500);

/// Within that time everything is well at the start.
const SETTLES: Duration = Duration::from_secs(30);

/// Within that time everything is well again: what was ill time and again has to be well for up to
/// a minute before it counts.
const HEALS: Duration = Duration::from_secs(150);

/// How long all has to stay well before it counts.
const STAYS: Duration = Duration::from_secs(3);

/// Longer than a client has patience: nobody waits for what was lost before.
const CALMS: Duration = Duration::from_secs(10);

/// How long no request may fail, then.
const PROBES: Duration = Duration::from_secs(3);

/// How often what lasts is looked at.
const LOOKS: Duration = Duration::from_millis(20);

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Requests of clients.
    pub requests: u64,
    /// Those that succeeded.
    pub done: u64,
    /// Those that were not sent.
    pub not_sent: u64,
    /// Those whose outcome nobody knows.
    pub unknown: u64,
    /// Those whose connection ended.
    pub cut: u64,
    /// Acknowledged writes that were lost.
    pub lost: u64,
    /// Masters that workers were told of.
    pub switches: u64,
    /// Faults.
    pub faults: u64,
    /// Events of the simulation.
    pub steps: u64,
    /// From the end of the faults until all was well.
    pub recovered: Duration,
}

/// A run that broke a promise.
#[derive(Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was broken.
    pub what: String,
    /// What happened before.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

pub(super) struct Deployment {
    pub scenario: Scenario,
    pub world: World,
    pub judge: Rc<RefCell<Judge>>,
    pub errand: Rc<RefCell<Option<(SocketAddr, String)>>>,
    pub nodes: Vec<Rc<Node>>,
    pub servers: Vec<Vec<NodeId>>,
    pub clients: Vec<NodeId>,
    pub storm: Storm,
    pub deeds: Agenda<Deed>,
    pace: Rc<Cell<Pace>>,
    looks_at: Instant,
    /// Since when two hosts that hear each other both have the address.
    both_since: BTreeMap<(usize, usize), Instant>,
}

/// Does a whole run: start, faults, recovery, a time in which nothing fails.
///
/// # Errors
///
/// The first promise that was broken, with what happened before it.
pub fn run(seed: u64, scenario: &Scenario) -> Result<Report, Box<Failure>> {
    let mut deployment = Deployment::new(seed, scenario.clone());
    let judge = Rc::clone(&deployment.judge);
    let outcome = catch_unwind(AssertUnwindSafe(|| deployment.run_through()));
    let what = match outcome {
        Ok(Ok(report)) => return Ok(report),
        Ok(Err(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
            format!("panic: {}", text.unwrap_or_default())
        }
    };
    let trace = judge.try_borrow().map(|judge| judge.trace.iter().cloned().collect());
    Err(Box::new(Failure { seed, what, trace: trace.unwrap_or_default() }))
}

impl Deployment {
    fn new(seed: u64, scenario: Scenario) -> Self {
        let count = HOSTS * 3 + SHARDS.len() * SERVERS + scenario.clients + 1;
        let checker = Checker::new(2, false, false);
        let mut world = World::new(seed ^ 0x7a11, checker, scenario.latency, count);
        world.paths.split_one_in = 8;
        // Later than a packet only where something may fail at all.
        world.estate.wakes_within = match scenario.weather {
            Weather::Storm => Duration::from_millis(2),
            Weather::Planned => scenario.latency / 2,
        };
        let mut shards = BTreeMap::new();
        for (shard, name) in SHARDS.iter().enumerate() {
            for server in 0..SERVERS {
                shards.insert(server_address(shard, server), (*name).to_owned());
            }
        }
        let rules = Rules {
            fence: scenario.fence,
            keeps_acknowledged: scenario.is_replicated,
            must_succeed: false,
        };
        let judge = Rc::new(RefCell::new(Judge::new(rules, shards)));
        let storm = Storm::draw(&mut world.rng, scenario.weather);
        let mut deployment = Self {
            scenario,
            world,
            judge,
            errand: Rc::default(),
            nodes: Vec::new(),
            servers: Vec::new(),
            clients: Vec::new(),
            storm,
            deeds: Agenda::new(),
            pace: Rc::new(Cell::new(Pace::Busy)),
            looks_at: Instant::START,
            both_since: BTreeMap::new(),
        };
        (0..HOSTS).for_each(|host| deployment.add_host(host));
        (0..SHARDS.len()).for_each(|shard| deployment.add_shard(shard));
        deployment.add_clients();
        deployment
    }

    fn drift(&mut self) -> i64 {
        if self.scenario.has_drift { self.world.rng.below(20_001) as i64 - 10_000 } else { 0 }
    }

    fn add_host(&mut self, host: usize) {
        let node = Rc::new(Node::new(host, &self.scenario));
        let mutation = self.scenario.mutation;
        let drift = self.drift();
        let mut add = |port: u16, make: Make| {
            let mut thread = Ours::new(make, BTreeMap::new(), None);
            thread.takes_all = true;
            let address = ([10, 0, host as u8, 1], port).into();
            let id = self.world.add(address, Process::Thread(thread));
            self.world.nodes[id].drift_ppm = drift;
            id
        };
        let control = add(26_379, node.control(host, &self.judge));
        let worker = add(6_379, node.worker(host, &self.judge, mutation));
        let routers = add(112, node.routers(host, &self.judge));
        let mut kernel = Kernel::new([10, 77, 0, host as u8 + 1].into());
        kernel.keeps_addresses = mutation == Some(Mutation::KeepsAddress);
        self.world.estate.hosts.push(Host { control, worker, routers, kernel });
        self.nodes.push(node);
    }

    fn add_shard(&mut self, shard: usize) {
        let mut servers = Vec::new();
        for server in 0..SERVERS {
            let address = server_address(shard, server);
            let of = (server > 0).then(|| server_address(shard, 0));
            let mut model = Server::new(&mut self.world.rng, address, of);
            model.keyed.judge = Some(Rc::clone(&self.judge));
            let node = self.world.add(address, Process::Server(model));
            self.world.nodes[node].drift_ppm = self.drift();
            servers.push(node);
        }
        self.servers.push(servers);
    }

    fn add_clients(&mut self) {
        let to = SocketAddr::from(VIRTUAL);
        self.world.estate.address = Some(to);
        for number in 0..self.scenario.clients {
            let pace = Rc::clone(&self.pace);
            let client = Client::new(number as u64, to, pace, Rc::clone(&self.judge));
            let address = ([10, 2, 0, number as u8 + 1], 1).into();
            self.clients.push(self.world.add(address, Process::Guest(Box::new(client))));
        }
        let (errand, judge) = (Rc::clone(&self.errand), Rc::clone(&self.judge));
        let operator = Operator { errand, judge, words: Vec::new() };
        let operator =
            self.world.add(([10, 2, 1, 1], 1).into(), Process::Guest(Box::new(operator)));
        self.clients.push(operator);
    }

    fn run_through(&mut self) -> Result<Report, String> {
        for server in self.servers.concat() {
            self.world.start(server);
        }
        self.run_for(HEAD_START)?;
        for host in 0..HOSTS {
            let after = Duration::from_nanos(self.world.rng.below(400_000_000));
            self.run_for(after)?;
            self.world.start_host(host);
        }
        self.await_well(SETTLES)?;
        for client in self.clients.clone() {
            self.world.start(client);
        }
        self.judge.borrow_mut().rules.must_succeed = self.scenario.weather == Weather::Planned;
        self.plan_strike();
        self.run_for(self.scenario.storm)?;
        self.judge.borrow_mut().note("the faults end");
        self.heal();
        let recovered = self.await_well(HEALS)?;
        self.run_for(CALMS)?;
        self.judge.borrow_mut().note("from here on nothing fails");
        self.judge.borrow_mut().all_is_well(true);
        self.run_for(PROBES)?;
        self.pace.set(Pace::Quiet);
        self.run_for(CALMS)?;
        self.judge.borrow_mut().all_is_well(false);
        self.is_well().map_err(|what| format!("H: it did not stay well: {what}"))?;
        self.finish(recovered)
    }

    fn finish(&mut self, recovered: Duration) -> Result<Report, String> {
        let mut kept: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for name in SHARDS {
            let address = self.judge.borrow().agreed(HOSTS, name)?;
            let data = self.server(self.world.by_address[&address]).data.iter().cloned();
            kept.insert(name.to_owned(), data.collect());
        }
        let mut judge = self.judge.borrow_mut();
        let homes: BTreeMap<String, String> = kept
            .values()
            .flatten()
            .filter_map(|write| write.split('=').nth(1))
            .filter_map(|key| Some((key.to_owned(), judge.home(key)?.to_owned())))
            .collect();
        let has = |key: &str, id: &str| {
            let home = homes.get(key).and_then(|shard| kept.get(shard));
            home.is_some_and(|writes| writes.contains(&format!("A={key}={id}")))
        };
        let lost = judge.judge_end(has);
        if let Some(what) = judge.breach.take() {
            return Err(what);
        }
        let [done, not_sent, unknown, cut] = judge.counts;
        Ok(Report {
            requests: judge.requests(),
            done,
            not_sent,
            unknown,
            cut,
            lost,
            switches: judge.switches,
            faults: self.storm.struck,
            steps: self.world.steps,
            recovered,
        })
    }

    /// Lets time pass, up to the first promise that is broken.
    fn run_for(&mut self, time: Duration) -> Result<(), String> {
        let until = self.world.now + time;
        loop {
            let deed = self.deeds.next_at().filter(|at| *at <= until);
            let next = [deed, Some(self.looks_at), Some(until)].into_iter().flatten().min();
            let next = next.unwrap_or(until).max(self.world.now);
            loop {
                let at = self.world.agenda.next_at().filter(|at| *at <= next);
                self.judge.borrow_mut().now = at.unwrap_or(next);
                let is_busy = self.world.step(next);
                if let Some(what) = self.judge.borrow_mut().breach.take() {
                    return Err(what);
                }
                if !is_busy {
                    break;
                }
            }
            if deed == Some(next)
                && let Some((_, deed)) = self.deeds.take()
            {
                self.commit(deed);
            }
            if next >= self.looks_at {
                self.looks_at = next + LOOKS;
                self.look()?;
            }
            if next >= until {
                return Ok(());
            }
        }
    }

    /// V1: of two hosts that hear each other one has the address.
    fn look(&mut self) -> Result<(), String> {
        let is_running = |world: &World, host: usize| {
            world.nodes[world.estate.hosts[host].routers].state == State::Running
        };
        let routers: Vec<NodeId> = self.world.estate.hosts.iter().map(|one| one.routers).collect();
        let longest = self.scenario.interval * 4 + Duration::from_secs(1);
        for first in 0..HOSTS {
            for second in first + 1..HOSTS {
                let (one, other) = (routers[first], routers[second]);
                let paths = &self.world.paths;
                let hear = paths.tail_one_in == 0
                    && !paths.is_cut(one, other)
                    && !paths.is_cut(other, one);
                let both = [first, second]
                    .iter()
                    .all(|host| is_running(&self.world, *host) && self.world.holds(*host));
                if !(hear && both) {
                    self.both_since.remove(&(first, second));
                    continue;
                }
                let now = self.world.now;
                let since = *self.both_since.entry((first, second)).or_insert(now);
                if now.since(since) > longest {
                    let time = now.since(since);
                    return Err(format!("V1: {first} and {second} have the address for {time:?}"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn server(&self, node: NodeId) -> &Server {
        match &self.world.nodes[node].process {
            Process::Server(server) => server,
            _ => panic!("node {node} is no server"),
        }
    }

    /// Returns a master of a shard that runs.
    pub(super) fn master(&self, shard: usize) -> Option<NodeId> {
        self.servers[shard].iter().copied().find(|node| {
            self.world.nodes[*node].state == State::Running && self.server(*node).takes_writes()
        })
    }

    /// Tells whether all servers of a shard run and follow one of them.
    pub(super) fn is_settled(&self, shard: usize) -> bool {
        let Some(master) = self.master(shard) else { return false };
        let address = self.world.nodes[master].address;
        self.follows_all(shard, address).is_ok()
    }

    fn follows_all(&self, shard: usize, master: SocketAddr) -> Result<(), String> {
        for node in &self.servers[shard] {
            let one = &self.world.nodes[*node];
            let server = self.server(*node);
            let is_well = one.state == State::Running
                && match one.address == master {
                    true => server.takes_writes(),
                    false => server.follows() == Some(master) && server.is_in_step(),
                };
            if !is_well {
                return Err(format!("{:?} {}", one.state, server.sketch()));
            }
        }
        Ok(())
    }

    /// Tells whether all is as it should be, or what is not.
    fn is_well(&self) -> Result<(), String> {
        let holders: Vec<usize> = (0..HOSTS).filter(|host| self.world.holds(*host)).collect();
        if holders != [0] {
            return Err(format!("the address is at {holders:?}"));
        }
        // Who is ill keeps the address while all are, and leaves it to the first who is well.
        if let Some((host, what)) = self.judge.borrow().ill.first() {
            return Err(format!("{what} of host {host} is ill"));
        }
        for (shard, name) in SHARDS.iter().enumerate() {
            let address = self.judge.borrow().agreed(HOSTS, name)?;
            self.follows_all(shard, address)?;
        }
        Ok(())
    }

    /// Waits until all is well and stays so; returns how long that took.
    fn await_well(&mut self, bound: Duration) -> Result<Duration, String> {
        let start = self.world.now;
        let mut well_since = None;
        loop {
            self.run_for(Duration::from_millis(200))?;
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
                        return Err(format!("H: {what}"));
                    }
                }
            }
        }
    }
}
