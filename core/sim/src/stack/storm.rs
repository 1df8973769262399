//! What goes wrong, and when it is over.

use std::time::Duration;

use ringkeeper_core::io::{Command, Health, HealthNews, Mail, Notice, Parcel};
use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;

use super::node::POOL;
use super::plan::{HOSTS, SERVERS, SHARDS, Weather};
use super::run::Deployment;
use crate::sentinel::process::NodeId;
use crate::sentinel::world::State;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    KillHost,
    PowerHost,
    PauseHost,
    KillServer,
    PowerServer,
    PauseServer,
    KillMaster,
    PauseMaster,
    Cut,
    OneWay,
    Island,
    Break,
    Tail,
    Planned,
    Drain,
    Leave,
}

const KINDS: [Kind; 16] = [
    Kind::KillHost,
    Kind::PowerHost,
    Kind::PauseHost,
    Kind::KillServer,
    Kind::PowerServer,
    Kind::PauseServer,
    Kind::KillMaster,
    Kind::PauseMaster,
    Kind::Cut,
    Kind::OneWay,
    Kind::Island,
    Kind::Break,
    Kind::Tail,
    Kind::Planned,
    Kind::Drain,
    Kind::Leave,
];

/// Something that is done to the deployment at its time.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Strike,
    StartHost(usize),
    StopHost(usize),
    ResumeHost(usize),
    StartServer(NodeId),
    ResumeServer(NodeId),
    Heal(Vec<(NodeId, NodeId)>),
    NoTail,
    Undrain(usize),
}

/// What goes wrong in one run.
#[derive(Debug)]
pub(super) struct Storm {
    kinds: Vec<Kind>,
    pause: Duration,
    lasting: Duration,
    pub is_over: bool,
    pub struck: u64,
    /// When each shard may lose a server again, where promises are about how many fail together.
    spared_until: [Instant; SHARDS.len()],
    /// When each shard was last to be moved by plan.
    asked_for: [Instant; SHARDS.len()],
}

impl Storm {
    /// Draws which faults a seed knows: fewer kinds at once reach deeper than all of them.
    pub(super) fn draw(rng: &mut Rng, weather: Weather) -> Self {
        let mut kinds = match weather {
            Weather::Storm => KINDS.to_vec(),
            Weather::Planned => vec![Kind::Planned],
        };
        if weather == Weather::Storm && rng.is_one_in(4, 5) {
            let rate = 1 + rng.below(4);
            kinds.retain(|_| rng.is_one_in(rate, 6));
        }
        let mut one_of = |all: &[u64]| all[rng.below(all.len() as u64) as usize];
        let pause = Duration::from_millis(one_of(&[300, 1_000, 3_000]));
        let lasting = Duration::from_millis(one_of(&[600, 2_500, 8_000]));
        let spared_until = [Instant::START; SHARDS.len()];
        let asked_for = spared_until;
        Self { kinds, pause, lasting, is_over: false, struck: 0, spared_until, asked_for }
    }
}

impl Deployment {
    fn below(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.world.rng.below(most.as_nanos() as u64 + 1))
    }

    pub(super) fn plan_strike(&mut self) {
        if !self.storm.kinds.is_empty() {
            let after = self.below(self.storm.pause * 2);
            self.deeds.plan(self.world.now + after, Deed::Strike);
        }
    }

    pub(super) fn commit(&mut self, deed: Deed) {
        self.judge.borrow_mut().note(format!("{deed:?}"));
        match deed {
            Deed::Strike => self.strike(),
            Deed::StartHost(host) => self.start_host(host),
            Deed::StopHost(host) => {
                self.world.kill_host(host, true);
                if self.storm.is_over {
                    self.start_host(host);
                }
            }
            Deed::ResumeHost(host) => self.resume_host(host),
            Deed::StartServer(node) => self.world.start(node),
            Deed::ResumeServer(node) => self.world.resume(node),
            Deed::Heal(cuts) => {
                for (from, to) in cuts {
                    self.world.net_heal(from, to);
                }
            }
            Deed::NoTail => self.world.paths.tail_one_in = 0,
            Deed::Undrain(host) => self.drain(host, false),
        }
    }

    fn strike(&mut self) {
        if self.storm.is_over {
            return;
        }
        self.plan_strike();
        let kind = self.storm.kinds[self.world.rng.below(self.storm.kinds.len() as u64) as usize];
        self.storm.struck += 1;
        let lasting = self.storm.lasting;
        let end = self.world.now + self.below(lasting);
        self.judge.borrow_mut().note(format!("{kind:?}"));
        let host = self.world.rng.below(HOSTS as u64) as usize;
        match kind {
            Kind::KillHost => {
                let has_guardian = self.world.rng.is_one_in(3, 4);
                self.world.kill_host(host, has_guardian);
                self.deeds.plan(end, Deed::StartHost(host));
            }
            Kind::PowerHost => {
                self.world.power_off_host(host);
                self.deeds.plan(end, Deed::StartHost(host));
            }
            Kind::PauseHost => {
                for thread in self.world.estate.hosts[host].threads() {
                    self.world.pause(thread);
                }
                self.deeds.plan(end, Deed::ResumeHost(host));
            }
            Kind::KillServer | Kind::PowerServer | Kind::PauseServer => {
                let shard = self.world.rng.below(SHARDS.len() as u64) as usize;
                let node = self.servers[shard][self.world.rng.below(SERVERS as u64) as usize];
                self.strike_server(kind, shard, node, end);
            }
            Kind::KillMaster | Kind::PauseMaster => {
                let shard = self.world.rng.below(SHARDS.len() as u64) as usize;
                let kind = match kind {
                    Kind::KillMaster => Kind::KillServer,
                    _ => Kind::PauseServer,
                };
                if let Some(node) = self.master(shard) {
                    self.strike_server(kind, shard, node, end);
                }
            }
            Kind::Cut | Kind::OneWay | Kind::Island => {
                let cuts = self.draw_cuts(kind);
                for (from, to) in &cuts {
                    self.world.net_cut(*from, *to);
                }
                self.deeds.plan(end, Deed::Heal(cuts));
            }
            Kind::Break => {
                let node = self.world.rng.below(self.world.nodes.len() as u64) as usize;
                let open: Vec<_> = self.world.nodes[node].links.iter().copied().collect();
                if !open.is_empty() {
                    let conn = open[self.world.rng.below(open.len() as u64) as usize];
                    self.world.net_break(conn);
                }
            }
            Kind::Tail => {
                self.world.paths.tail_one_in = 2 + self.world.rng.below(30);
                self.world.paths.tail =
                    Duration::from_millis([20, 300, 2_000][self.world.rng.below(3) as usize]);
                self.deeds.plan(end, Deed::NoTail);
            }
            Kind::Planned => {
                let shard = self.world.rng.below(SHARDS.len() as u64) as usize;
                let is_settled = self.judge.borrow().agreed(HOSTS, SHARDS[shard]).is_ok();
                // An operator looks first, and does not ask twice at once.
                let is_early =
                    self.world.now < self.storm.asked_for[shard] + Duration::from_secs(2);
                if !is_settled || !self.is_settled(shard) || is_early {
                    return;
                }
                self.storm.asked_for[shard] = self.world.now;
                let shard = SHARDS[shard];
                let to = self.world.nodes[self.world.estate.hosts[host].control].address;
                *self.errand.borrow_mut() = Some((to, shard.to_owned()));
            }
            Kind::Drain => {
                self.drain(host, true);
                self.deeds.plan(end, Deed::Undrain(host));
            }
            Kind::Leave => self.leave(host, end),
        }
    }

    fn strike_server(&mut self, kind: Kind, shard: usize, node: NodeId, end: Instant) {
        // Copies that fail together with their master are more than was promised.
        if self.scenario.is_replicated {
            if self.world.now < self.storm.spared_until[shard] || !self.is_settled(shard) {
                return;
            }
            self.storm.spared_until[shard] = end + Duration::from_secs(2);
        }
        match kind {
            Kind::PowerServer => self.world.power_off(node),
            Kind::PauseServer => {
                self.world.pause(node);
                return self.deeds.plan(end, Deed::ResumeServer(node));
            }
            _ => self.world.kill(node),
        }
        self.deeds.plan(end, Deed::StartServer(node));
    }

    /// All machines, each with the nodes that are one machine together.
    fn machines(&self) -> Vec<Vec<NodeId>> {
        let hosts = self.world.estate.hosts.iter().map(|host| host.threads().to_vec());
        let servers = self.servers.iter().flatten().map(|node| vec![*node]);
        let clients = std::iter::once(self.clients.clone());
        hosts.chain(servers).chain(clients).collect()
    }

    fn draw_cuts(&mut self, kind: Kind) -> Vec<(NodeId, NodeId)> {
        let machines = self.machines();
        let mut pick = || machines[self.world.rng.below(machines.len() as u64) as usize].clone();
        let (one, other) = (pick(), pick());
        let mut cuts = Vec::new();
        let mut cut = |from: &[NodeId], to: &[NodeId], is_both: bool| {
            for from in from {
                for to in to {
                    cuts.push((*from, *to));
                    if is_both {
                        cuts.push((*to, *from));
                    }
                }
            }
        };
        match kind {
            Kind::OneWay if one != other => cut(&one, &other, false),
            Kind::OneWay => {}
            Kind::Island => {
                let inside: Vec<bool> =
                    machines.iter().map(|_| self.world.rng.is_one_in(1, 3)).collect();
                for (from, _) in machines.iter().zip(&inside).filter(|(_, inside)| **inside) {
                    for (to, _) in machines.iter().zip(&inside).filter(|(_, inside)| !**inside) {
                        cut(from, to, true);
                    }
                }
            }
            _ if one != other => cut(&one, &other, true),
            _ => {}
        }
        cuts
    }

    fn resume_host(&mut self, host: usize) {
        for thread in self.world.estate.hosts[host].threads() {
            self.world.resume(thread);
        }
    }

    /// The operator wants no clients on a host, or wants them again.
    fn drain(&mut self, host: usize, is_drained: bool) {
        let [routers, control, worker] = self.world.estate.hosts[host].threads();
        // One that stands still hears of it later; one that starts again knows of nothing.
        let state = self.world.nodes[worker].state;
        if state == State::Dead || is_drained && state == State::Paused {
            return;
        }
        let ill = Health::Ill { why: "it is drained".into() };
        let health = if is_drained { ill } else { Health::Well };
        let news = HealthNews { source: format!("pool {POOL}").into(), health };
        let told = Mail::Notice(Notice::Health(news));
        let files = self.world.files(control);
        let Ok(plan) = self.nodes[host].plan(&files, is_drained) else { return };
        let plan = Parcel::new(std::sync::Arc::new(plan));
        let limit = Duration::from_secs(5);
        let change = Mail::Command(Command::Reload { plan, limit });
        let now = self.world.now;
        // The address leaves first, and comes back last.
        if is_drained {
            self.world.mail(now, control, routers, told);
            self.world.mail(now + Duration::from_millis(1), control, worker, change);
        } else {
            self.world.mail(now, control, worker, change);
            self.world.mail(now + Duration::from_millis(1), control, routers, told);
        }
    }

    /// A node leaves on purpose: the address first, then the clients, then the process.
    fn leave(&mut self, host: usize, end: Instant) {
        let [routers, control, worker] = self.world.estate.hosts[host].threads();
        if self.world.nodes[worker].state != State::Running {
            return;
        }
        let limit = Duration::from_millis(800);
        let now = self.world.now;
        let leave = Mail::Command(Command::Drain { limit });
        self.world.mail(now, control, routers, leave.clone());
        self.world.mail(now + Duration::from_millis(1), control, worker, leave);
        let gone = now + Duration::from_secs(1);
        self.deeds.plan(gone, Deed::StopHost(host));
        self.deeds.plan(gone.max(end), Deed::StartHost(host));
    }

    fn start_host(&mut self, host: usize) {
        self.judge.borrow_mut().ill.retain(|(of, _)| *of != host);
        self.world.start_host(host);
    }

    /// Ends every fault.
    pub(super) fn heal(&mut self) {
        self.storm.is_over = true;
        self.world.paths.tail_one_in = 0;
        self.world.paths.heal_all();
        // What is on its way where nothing was cut is late for nobody's sake.
        if self.scenario.weather == Weather::Storm {
            self.world.net_again(|_, _| true);
        }
        for node in self.servers.clone().into_iter().flatten() {
            self.world.resume(node);
            self.world.start(node);
        }
        for host in 0..HOSTS {
            self.resume_host(host);
            if self.world.nodes[self.world.estate.hosts[host].worker].state == State::Dead {
                self.start_host(host);
            }
        }
    }
}
