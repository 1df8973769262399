//! The nodes, the agenda, and what moves both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_core::io::CloseReason;
use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;

use super::checker::Checker;
use super::fault::{Fault, Schedule};
use super::genuine::Genuine;
use super::net::{Link, Paths};
use super::observer::Observer;
use super::ours::Ours;
use super::process::{Conn, Context, Effect, Happening, NodeId};
use super::server::Server;
use super::stranger::Stranger;
use crate::clock::Agenda;
use crate::stack::estate::Estate;

/// The wall clock at the start of every run, milliseconds.
const WALL_START_MS: i64 = 1_700_000_000_000;

#[derive(Debug)]
pub(crate) enum Event {
    Syn { conn: Conn },
    Arrive { conn: Conn, end: usize },
    Wake { node: NodeId, incarnation: u32, alarm: u64 },
    Later { node: NodeId, incarnation: u32, happening: Happening },
    Drain { node: NodeId },
    Fault(Fault),
    Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    /// Stopped by a signal: the kernel goes on accepting for it.
    Paused,
    /// Not there: connections are refused.
    Dead,
}

#[allow(clippy::large_enum_variant, reason = "few, and moved never")]
pub(crate) enum Process {
    Server(Server),
    Genuine(Genuine),
    Ours(Ours),
    Observer(Observer),
    Stranger(Stranger),
    /// One thread of a whole node.
    Thread(Ours),
    /// Somebody else, who knows what it does.
    Guest(Box<dyn Guest>),
}

/// A process that the world knows nothing about.
pub(crate) trait Guest {
    fn handle(&mut self, happening: Happening, ctx: &mut Context<'_>);
}

/// A machine with one process.
pub(crate) struct Node {
    pub address: SocketAddr,
    pub process: Process,
    pub state: State,
    /// A machine without power answers nothing at all.
    pub is_powered: bool,
    /// It sees everything at once and is never cut off.
    pub is_observer: bool,
    pub incarnation: u32,
    pub links: BTreeSet<Conn>,
    /// How much faster its clock runs, millionths.
    pub drift_ppm: i64,
    /// How far its wall clock was set, milliseconds.
    pub jump_ms: i64,
    inbox: VecDeque<Happening>,
    busy_until: Instant,
    rng: Rng,
}

impl Node {
    /// Returns what its monotonic clock shows at `at`.
    pub(crate) fn local(&self, at: Instant) -> Instant {
        scale(at, 1_000_000 + self.drift_ppm, 1_000_000, 0)
    }

    /// Returns when its monotonic clock shows `local`, rounded up.
    fn global(&self, local: Instant) -> Instant {
        let rate = 1_000_000 + self.drift_ppm;
        scale(local, 1_000_000, rate, rate - 1)
    }

    /// Returns what its wall clock shows when the other one shows `local`.
    const fn wall_ms(&self, local: Instant) -> i64 {
        WALL_START_MS + (local.as_nanos() / 1_000_000) as i64 + self.jump_ms
    }
}

fn scale(at: Instant, numerator: i64, denominator: i64, add: i64) -> Instant {
    // All of it is positive, and fits in one word for the first two hours.
    let product = at.as_nanos().checked_mul(numerator as u64);
    if let Some(sum) = product.and_then(|product| product.checked_add(add as u64)) {
        return Instant::from_nanos(sum / denominator as u64);
    }
    let nanos = (i128::from(at.as_nanos()) * i128::from(numerator) + i128::from(add))
        / i128::from(denominator);
    Instant::from_nanos(nanos as u64)
}

pub(crate) struct World {
    pub now: Instant,
    pub agenda: Agenda<Event>,
    pub rng: Rng,
    pub nodes: Vec<Node>,
    pub by_address: BTreeMap<SocketAddr, NodeId>,
    pub links: Vec<Link>,
    /// Attempts to connect that nobody hears.
    pub held: Vec<Conn>,
    pub paths: Paths,
    pub checker: Checker,
    pub schedule: Schedule,
    /// Nodes that do not come back when the faults end.
    pub stays_dead: BTreeSet<NodeId>,
    /// Servers by the master that they began with.
    pub groups: Vec<Vec<NodeId>>,
    pub steps: u64,
    /// Whole nodes, of which several processes are threads.
    pub estate: Estate,
    /// Every command of a Sentinel, if somebody wants them.
    pub wire_log: Option<Vec<super::tap::Line>>,
    effects: Vec<Effect>,
    writes: u64,
}

impl World {
    pub(crate) fn new(seed: u64, checker: Checker, latency: Duration, nodes: usize) -> Self {
        Self {
            now: Instant::START,
            agenda: Agenda::new(),
            rng: Rng::new(seed),
            nodes: Vec::new(),
            by_address: BTreeMap::new(),
            links: Vec::new(),
            held: Vec::new(),
            paths: Paths::new(nodes, latency),
            checker,
            schedule: Schedule::default(),
            stays_dead: BTreeSet::new(),
            groups: Vec::new(),
            steps: 0,
            estate: Estate::default(),
            wire_log: None,
            effects: Vec::new(),
            writes: 0,
        }
    }

    /// Adds a node that is off.
    pub(crate) fn add(&mut self, address: SocketAddr, process: Process) -> NodeId {
        let is_observer = matches!(process, Process::Observer(_));
        let rng = self.rng.split();
        self.nodes.push(Node {
            address,
            process,
            state: State::Dead,
            is_powered: true,
            is_observer,
            incarnation: 0,
            links: BTreeSet::new(),
            drift_ppm: 0,
            jump_ms: 0,
            inbox: VecDeque::new(),
            busy_until: Instant::START,
            rng,
        });
        self.by_address.insert(address, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// Does what is next, unless that is after `until`; says whether there was something.
    pub(crate) fn step(&mut self, until: Instant) -> bool {
        if self.agenda.next_at().is_none_or(|at| at > until) {
            self.now = self.now.max(until);
            return false;
        }
        let Some((at, event)) = self.agenda.take() else { return false };
        self.now = at;
        self.steps += 1;
        match event {
            Event::Syn { conn } => self.net_syn(conn),
            Event::Arrive { conn, end } => self.net_arrive(conn, end),
            Event::Wake { node, incarnation, alarm } => {
                if self.nodes[node].incarnation == incarnation {
                    self.deliver(node, Happening::Woken(alarm));
                }
            }
            Event::Later { node, incarnation, happening } => {
                if self.nodes[node].incarnation == incarnation {
                    self.deliver(node, happening);
                }
            }
            Event::Drain { node } => self.drain(node),
            Event::Fault(fault) => self.apply_fault(fault),
            Event::Write => self.write(),
        }
        true
    }

    /// Lets something happen to a process, as soon as it has time for it.
    pub(crate) fn deliver(&mut self, id: NodeId, happening: Happening) {
        let node = &mut self.nodes[id];
        if node.state == State::Dead {
            return;
        }
        let is_busy = self.now < node.busy_until || node.state == State::Paused;
        if is_busy || !node.inbox.is_empty() {
            if node.inbox.is_empty() && node.state == State::Running {
                self.agenda.plan(node.busy_until, Event::Drain { node: id });
            }
            node.inbox.push_back(happening);
            return;
        }
        self.run(id, happening);
    }

    fn drain(&mut self, id: NodeId) {
        loop {
            let node = &mut self.nodes[id];
            if node.state != State::Running {
                return;
            }
            if self.now < node.busy_until {
                if !node.inbox.is_empty() {
                    self.agenda.plan(node.busy_until, Event::Drain { node: id });
                }
                return;
            }
            let Some(happening) = node.inbox.pop_front() else { return };
            self.run(id, happening);
        }
    }

    /// Tells whether the process still holds the connection that `happening` is about, and lets
    /// go of it where it ends.
    fn is_heard(&mut self, id: NodeId, happening: &Happening) -> bool {
        let (conn, is_end) = match happening {
            Happening::Accepted { conn, .. }
            | Happening::Connected(conn)
            | Happening::Received { conn, .. } => (*conn, false),
            Happening::Gone { conn, .. } => (*conn, true),
            _ => return true,
        };
        let link = &mut self.links[conn];
        let side = usize::from(link.ends[0].node != id);
        if link.ends[side].is_gone {
            return false;
        }
        if is_end {
            link.ends[side].is_gone = true;
            self.nodes[id].links.remove(&conn);
        }
        true
    }

    fn run(&mut self, id: NodeId, happening: Happening) {
        let is_heard = self.is_heard(id, &happening);
        if !is_heard && !matches!(self.nodes[id].process, Process::Thread(_)) {
            return;
        }
        if let (Happening::Received { conn, bytes }, true) = (&happening, is_heard) {
            self.tap_heard(*conn, id, bytes.len());
        }
        let mut effects = std::mem::take(&mut self.effects);
        let mut next_conn = self.links.len();
        let node = &mut self.nodes[id];
        let now = node.local(self.now);
        let mut context = Context {
            now,
            wall_ms: node.wall_ms(now),
            address: node.address,
            rng: &mut node.rng,
            effects: &mut effects,
            next_conn: &mut next_conn,
            busy: Duration::ZERO,
            has_more: !node.inbox.is_empty(),
        };
        match &mut node.process {
            Process::Server(server) => server.handle(happening, &mut context),
            Process::Genuine(genuine) => genuine.handle(happening, &mut context),
            Process::Ours(ours) => ours.handle(happening, &mut context),
            Process::Observer(observer) => observer.handle(happening, &mut context),
            Process::Stranger(stranger) => stranger.handle(happening, &mut context),
            Process::Thread(thread) if is_heard => thread.handle(happening, &mut context),
            Process::Thread(thread) => thread.pass_over(&mut context),
            Process::Guest(guest) => guest.handle(happening, &mut context),
        }
        let at = self.now + context.busy;
        node.busy_until = at;
        for effect in effects.drain(..) {
            self.apply(at, id, effect);
        }
        self.effects = effects;
    }

    fn apply(&mut self, at: Instant, id: NodeId, effect: Effect) {
        let incarnation = self.nodes[id].incarnation;
        match effect {
            Effect::Connect { conn, to } => self.net_connect(at, conn, id, to),
            Effect::Send { conn, bytes } => self.net_send(at, id, conn, bytes),
            Effect::Close { conn } => self.net_close(at, id, conn, CloseReason::Requested),
            Effect::Wake { at: local, alarm } => {
                let at = self.nodes[id].global(local).max(at);
                self.agenda.plan(at, Event::Wake { node: id, incarnation, alarm });
            }
            Effect::Later { after, happening } => {
                self.agenda.plan(at + after, Event::Later { node: id, incarnation, happening });
            }
            Effect::Notify { to, notice } => self.notify(at, id, to, &notice),
            Effect::Kernel(output) => self.ask_kernel(at, id, output),
            Effect::Tell { channel, payload } => {
                if matches!(self.nodes[id].process, Process::Thread(_)) {
                    assert_ne!(channel, "!unreadable", "{payload}");
                    return;
                }
                let sentinel = match &self.nodes[id].process {
                    Process::Observer(observer) => observer.about(),
                    _ => id,
                };
                self.checker.told(self.now, sentinel, &channel, &payload);
            }
        }
    }

    /// Starts a process, for the first time or again.
    pub(crate) fn start(&mut self, id: NodeId) {
        let now = self.now;
        let node = &mut self.nodes[id];
        if node.state != State::Dead {
            return;
        }
        node.incarnation += 1;
        node.state = State::Running;
        node.is_powered = true;
        node.inbox.clear();
        node.busy_until = now;
        self.deliver(id, Happening::Started);
        self.checker.started(now, id);
        if self.has_broken_disk(id) {
            self.checker.disk_failed(id);
        }
        let is_its = |node: &Node| matches!(&node.process, Process::Observer(observer) if observer.about() == id);
        if let Some(observer) = self.nodes.iter().position(is_its) {
            self.deliver(observer, Happening::Woken(0));
        }
        // Machines that had fallen silent answer again, if only by a reset.
        self.net_again(|_, to| to == id);
    }

    fn has_broken_disk(&self, id: NodeId) -> bool {
        match &self.nodes[id].process {
            Process::Genuine(genuine) => genuine.is_disk_broken,
            Process::Ours(ours) => ours.disk.is_broken,
            Process::Thread(_)
            | Process::Guest(_)
            | Process::Server(_)
            | Process::Observer(_)
            | Process::Stranger(_) => false,
        }
    }

    /// Ends a process as a kill does: its kernel closes what it had open.
    pub(crate) fn kill(&mut self, id: NodeId) {
        if self.nodes[id].state == State::Dead {
            return;
        }
        self.nodes[id].state = State::Dead;
        for conn in std::mem::take(&mut self.nodes[id].links) {
            self.net_close(self.now, id, conn, CloseReason::Reset);
        }
        self.checker.died(id);
        self.crashed(id);
    }

    /// Takes a machine's power away: nobody is told.
    pub(crate) fn power_off(&mut self, id: NodeId) {
        if self.nodes[id].state == State::Dead {
            return;
        }
        let node = &mut self.nodes[id];
        node.state = State::Dead;
        node.is_powered = false;
        for conn in std::mem::take(&mut node.links) {
            let link = &self.links[conn];
            if link.ends.iter().any(|end| self.nodes[end.node].is_observer) {
                self.net_close(self.now, id, conn, CloseReason::Reset);
                continue;
            }
            let link = &mut self.links[conn];
            let side = usize::from(link.ends[0].node != id);
            link.ends[side].is_gone = true;
        }
        self.checker.died(id);
        self.crashed(id);
    }

    pub(crate) fn pause(&mut self, id: NodeId) {
        if self.nodes[id].state == State::Running {
            self.nodes[id].state = State::Paused;
            self.checker.stopped(id);
        }
    }

    pub(crate) fn resume(&mut self, id: NodeId) {
        if self.nodes[id].state == State::Paused {
            self.nodes[id].state = State::Running;
            self.checker.went_on(self.now, id);
            self.agenda.plan(self.now, Event::Drain { node: id });
        }
    }

    /// Clients write to whoever takes it.
    fn write(&mut self) {
        self.writes += 1;
        let bytes = format!("w{}", self.writes);
        for id in 0..self.nodes.len() {
            let node = &mut self.nodes[id];
            if node.state != State::Running {
                continue;
            }
            if matches!(&node.process, Process::Server(server) if server.takes_writes()) {
                self.with_server(id, |server, context| server.write(&bytes, context));
            }
        }
        let after = Duration::from_nanos(50_000_000 + self.rng.below(200_000_000));
        self.agenda.plan(self.now + after, Event::Write);
    }

    /// Changes a server's role past all Sentinels.
    pub(crate) fn order_by_hand(&mut self, id: NodeId, to: Option<SocketAddr>) {
        if self.nodes[id].state == State::Running {
            self.with_server(id, |server, context| server.set_master(to, context));
        }
    }

    pub(crate) fn sentinel_nodes(&self) -> Vec<NodeId> {
        let is_one = |process: &Process| matches!(process, Process::Genuine(_) | Process::Ours(_));
        (0..self.nodes.len()).filter(|node| is_one(&self.nodes[*node].process)).collect()
    }

    pub(crate) fn server_nodes(&self) -> Vec<NodeId> {
        self.groups.concat()
    }

    /// Returns where the servers of the same group are.
    pub(crate) fn group_addresses(&self, node: NodeId) -> Vec<SocketAddr> {
        let group = self.groups.iter().find(|group| group.contains(&node));
        group.into_iter().flatten().map(|node| self.nodes[*node].address).collect()
    }

    fn crashed(&mut self, id: NodeId) {
        if let Process::Ours(ours) | Process::Thread(ours) = &mut self.nodes[id].process {
            ours.crash(&mut self.rng);
        }
    }

    fn with_server(&mut self, id: NodeId, act: impl FnOnce(&mut Server, &mut Context<'_>)) {
        let mut effects = std::mem::take(&mut self.effects);
        let mut next_conn = self.links.len();
        let node = &mut self.nodes[id];
        let now = node.local(self.now);
        let mut context = Context {
            now,
            wall_ms: node.wall_ms(now),
            address: node.address,
            rng: &mut node.rng,
            effects: &mut effects,
            next_conn: &mut next_conn,
            busy: Duration::ZERO,
            has_more: false,
        };
        if let Process::Server(server) = &mut node.process {
            act(server, &mut context);
        }
        for effect in effects.drain(..) {
            self.apply(self.now, id, effect);
        }
        self.effects = effects;
    }
}
