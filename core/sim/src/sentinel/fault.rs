//! What goes wrong, and when it is over.

use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_core::rng::Rng;

use super::process::NodeId;
use super::world::{Event, Process, State, World};

/// A kind of fault that a run may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A process is killed and started again later.
    Kill,
    /// A machine loses its power and gets it back later.
    Power,
    /// A process is stopped and goes on later.
    Pause,
    /// One direction between two nodes is cut.
    OneWay,
    /// Two nodes do not reach each other.
    Cut,
    /// A group of nodes does not reach the others.
    Partition,
    /// A connection is reset.
    Break,
    /// The wall clock of a Sentinel is set.
    Clock,
    /// Some segments take much longer.
    Tail,
    /// A Sentinel's disk fails or becomes slow.
    Disk,
    /// A server can't write its configuration, comes back empty or loading, or is busy.
    Server,
    /// The masters of all groups fail within moments.
    Masters,
    /// An operator changes a server's role by hand.
    ByHand,
}

/// All kinds.
pub const ALL_FAULTS: [FaultKind; 13] = [
    FaultKind::Kill,
    FaultKind::Power,
    FaultKind::Pause,
    FaultKind::OneWay,
    FaultKind::Cut,
    FaultKind::Partition,
    FaultKind::Break,
    FaultKind::Clock,
    FaultKind::Tail,
    FaultKind::Disk,
    FaultKind::Server,
    FaultKind::Masters,
    FaultKind::ByHand,
];

/// Something that the schedule does to the world.
#[derive(Debug)]
pub(crate) enum Fault {
    Strike,
    Kill(NodeId),
    Pause(NodeId),
    Start(NodeId),
    Resume(NodeId),
    Heal(Vec<(NodeId, NodeId)>),
    NoTail,
    DiskWell(NodeId),
    ServerWell(NodeId),
}

/// What goes wrong in one run.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    pub kinds: Vec<FaultKind>,
    pub pause: Duration,
    pub lasting: Duration,
    pub is_over: bool,
    pub struck: u64,
    /// What may have left a group without anybody who has all of its history: roles changed by
    /// hand, data lost.
    pub losses: u64,
}

impl Schedule {
    /// Draws which faults a seed knows: fewer kinds at once reach deeper than all of them.
    pub(crate) fn draw(rng: &mut Rng, kinds: &[FaultKind]) -> Self {
        let mut kinds = kinds.to_vec();
        if rng.is_one_in(4, 5) {
            let rate = 1 + rng.below(4);
            kinds.retain(|_| rng.is_one_in(rate, 6));
        }
        let pause = Duration::from_millis([300, 1_000, 4_000, 10_000][rng.below(4) as usize]);
        let lasting = Duration::from_millis([800, 3_000, 9_000, 30_000][rng.below(4) as usize]);
        Self { kinds, pause, lasting, is_over: false, struck: 0, losses: 0 }
    }
}

impl World {
    fn draw_nanos(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.rng.below(most.as_nanos() as u64 + 1))
    }

    pub(crate) fn plan_strike(&mut self) {
        if !self.schedule.kinds.is_empty() {
            let after = self.draw_nanos(self.schedule.pause * 2);
            self.agenda.plan(self.now + after, Event::Fault(Fault::Strike));
        }
    }

    pub(crate) fn apply_fault(&mut self, fault: Fault) {
        let is_trouble = matches!(fault, Fault::Kill(_) | Fault::Pause(_));
        if is_trouble && self.schedule.is_over {
            return;
        }
        match fault {
            Fault::Strike => self.strike(),
            Fault::Kill(node) => self.kill(node),
            Fault::Pause(node) => self.pause(node),
            Fault::Start(node) => self.start(node),
            Fault::Resume(node) => self.resume(node),
            Fault::Heal(cuts) => {
                for (from, to) in cuts {
                    self.net_heal(from, to);
                }
            }
            Fault::NoTail => self.paths.tail_one_in = 0,
            Fault::DiskWell(node) => self.set_disk(node, false),
            Fault::ServerWell(node) => {
                if let Process::Server(server) = &mut self.nodes[node].process {
                    server.troubles = Default::default();
                }
            }
        }
    }

    fn pick(&mut self, nodes: &[NodeId]) -> NodeId {
        nodes[self.rng.below(nodes.len() as u64) as usize]
    }

    fn strike(&mut self) {
        if self.schedule.is_over {
            return;
        }
        self.plan_strike();
        let kinds = &self.schedule.kinds;
        let kind = kinds[self.rng.below(kinds.len() as u64) as usize];
        self.schedule.struck += 1;
        let lasting = self.schedule.lasting;
        let end = self.now + self.draw_nanos(lasting);
        let all: Vec<NodeId> =
            (0..self.nodes.len()).filter(|n| !self.nodes[*n].is_observer).collect();
        let node = self.pick(&all);
        let sentinels = self.sentinel_nodes();
        match kind {
            FaultKind::Kill => {
                self.kill(node);
                self.agenda.plan(end, Event::Fault(Fault::Start(node)));
            }
            FaultKind::Power => {
                self.power_off(node);
                self.agenda.plan(end, Event::Fault(Fault::Start(node)));
            }
            FaultKind::Pause => {
                self.pause(node);
                self.agenda.plan(end, Event::Fault(Fault::Resume(node)));
            }
            FaultKind::OneWay | FaultKind::Cut | FaultKind::Partition => {
                let cuts = self.draw_cuts(kind, &all);
                for (from, to) in &cuts {
                    self.net_cut(*from, *to);
                }
                self.agenda.plan(end, Event::Fault(Fault::Heal(cuts)));
            }
            FaultKind::Break => {
                let links = self.nodes[node].links.iter().copied();
                let is_seen = |conn: &usize| {
                    !self.links[*conn].ends.iter().any(|end| self.nodes[end.node].is_observer)
                };
                let open: Vec<_> = links.filter(is_seen).collect();
                if !open.is_empty() {
                    let conn = open[self.rng.below(open.len() as u64) as usize];
                    self.net_break(conn);
                }
            }
            FaultKind::Clock => {
                let node = self.pick(&sentinels);
                let by = self.rng.below(20_000) as i64 - 10_000;
                self.nodes[node].jump_ms += by;
            }
            FaultKind::Tail => {
                self.paths.tail_one_in = 2 + self.rng.below(30);
                self.paths.tail =
                    Duration::from_millis([20, 300, 3_000][self.rng.below(3) as usize]);
                self.agenda.plan(end, Event::Fault(Fault::NoTail));
            }
            FaultKind::Disk => {
                let node = self.pick(&sentinels);
                self.set_disk(node, true);
                self.agenda.plan(end, Event::Fault(Fault::DiskWell(node)));
            }
            FaultKind::Server => self.trouble(end),
            FaultKind::Masters => self.kill_masters(end),
            FaultKind::ByHand => self.by_hand(),
        }
    }

    fn draw_cuts(&mut self, kind: FaultKind, all: &[NodeId]) -> Vec<(NodeId, NodeId)> {
        let (one, other) = (self.pick(all), self.pick(all));
        match kind {
            FaultKind::OneWay => vec![(one, other)],
            FaultKind::Cut => vec![(one, other), (other, one)],
            _ => {
                let side: Vec<NodeId> =
                    all.iter().copied().filter(|_| self.rng.is_one_in(1, 3)).collect();
                let mut cuts = Vec::new();
                for from in &side {
                    for to in all.iter().filter(|to| !side.contains(to)) {
                        cuts.push((*from, *to));
                        cuts.push((*to, *from));
                    }
                }
                cuts
            }
        }
    }

    fn set_disk(&mut self, node: NodeId, is_broken: bool) {
        let is_slow = self.rng.is_one_in(1, 3);
        if is_broken && !is_slow {
            self.checker.disk_failed(node);
        }
        match &mut self.nodes[node].process {
            Process::Genuine(genuine) => {
                genuine.is_disk_broken = is_broken && !is_slow;
                let slow = if is_broken && is_slow { 300 } else { 4 };
                genuine.save_time = Duration::from_millis(slow);
            }
            Process::Ours(ours) => {
                ours.disk.is_broken = is_broken && !is_slow;
                let slow = if is_broken && is_slow { 700 } else { 2 };
                ours.disk.delay = Duration::from_millis(slow);
            }
            Process::Thread(_)
            | Process::Guest(_)
            | Process::Server(_)
            | Process::Observer(_)
            | Process::Stranger(_) => {}
        }
    }

    fn trouble(&mut self, end: ringkeeper_core::time::Instant) {
        let servers = self.server_nodes();
        let node = self.pick(&servers);
        let choice = self.rng.below(4);
        self.schedule.losses += u64::from(choice == 1);
        let loading = Duration::from_millis(self.rng.below(5_000));
        if let Process::Server(server) = &mut self.nodes[node].process {
            match choice {
                0 => server.troubles.cannot_rewrite = true,
                1 => server.troubles.loses_data = true,
                2 => server.troubles.is_busy = true,
                _ => server.troubles.loading = loading,
            }
        }
        self.agenda.plan(end, Event::Fault(Fault::ServerWell(node)));
        if choice == 1 || choice == 3 {
            self.kill(node);
            let after = self.draw_nanos(Duration::from_millis(1_500));
            self.agenda.plan(self.now + after, Event::Fault(Fault::Start(node)));
        }
    }

    /// The masters of all groups die or stop within moments of each other.
    fn kill_masters(&mut self, end: ringkeeper_core::time::Instant) {
        let within = Duration::from_millis([1, 50, 400, 1_500][self.rng.below(4) as usize]);
        let stops = self.rng.is_one_in(1, 3);
        for node in self.server_nodes() {
            let is_master = match &self.nodes[node].process {
                Process::Server(server) => server.takes_writes(),
                _ => false,
            };
            if is_master && self.nodes[node].state == State::Running {
                let at = self.now + self.draw_nanos(within);
                let (fault, relief) = if stops {
                    (Fault::Pause(node), Fault::Resume(node))
                } else {
                    (Fault::Kill(node), Fault::Start(node))
                };
                self.agenda.plan(at, Event::Fault(fault));
                self.agenda.plan(end.max(at), Event::Fault(relief));
            }
        }
    }

    fn by_hand(&mut self) {
        self.schedule.losses += 1;
        let servers = self.server_nodes();
        let node = self.pick(&servers);
        let group: Vec<SocketAddr> = self.group_addresses(node);
        let other = group[self.rng.below(group.len() as u64) as usize];
        let own = self.nodes[node].address;
        let to = (other != own).then_some(other);
        self.order_by_hand(node, to);
    }

    /// Ends every fault.
    pub(crate) fn heal(&mut self) {
        self.schedule.is_over = true;
        self.paths.tail_one_in = 0;
        self.paths.heal_all();
        self.net_again(|_, _| true);
        for node in 0..self.nodes.len() {
            self.set_disk(node, false);
            if let Process::Server(server) = &mut self.nodes[node].process {
                server.troubles = Default::default();
            }
            self.resume(node);
            if !self.stays_dead.contains(&node) {
                self.start(node);
            }
        }
    }
}
