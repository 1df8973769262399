//! Virtual servers: connections to an address are relayed to one of several servers, which are
//! checked.
//!
//! ```text
//! keepalived.conf ─► Plan ─► Balancer ─┬─ Service: who is up, quorum, Picker, Persistent
//!                                      ├─ Relay: a client, its server, bytes both ways
//!                                      ├─ Probe: looks at one server, says how it is
//!                                      └─ Teller: runs notify_up, quorum_down and the like
//! ```
//!
//! A relay holds at most some 64 KiB for each direction and then stops reading the faster side. A
//! server that goes down takes its connections along at once, so that nobody waits for it.

mod effects;
mod figures;
mod notify;
pub mod persist;
mod plan;
pub mod probe;
mod relay;
mod reload;
mod review;
pub mod scheduler;
mod service;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use self::plan::{CoverPlan, Listening, Plan, part};
pub use self::service::ServerKey;

use self::effects::{Effects, JobOwner, Owner};
use self::figures::Telling;
use self::notify::Teller;
use self::probe::ProbeId;
use self::relay::{Buffers, Relay, Side};
use self::service::Service;
use crate::id::{ConnId, ListenerId};
use crate::io::{AtCapacity, BalanceNews, Command, Deadline, Endpoint, Event, Input, Output};
use crate::limits;
use crate::rng::Rng;
use crate::slab::{Slab, SlabKey};
use crate::time::Instant;
use crate::timer::Timers;

/// Where a server is in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    service: usize,
    /// None is the server for bad times.
    server: Option<usize>,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    /// Clients may go on until this moment, programs a little longer.
    Leaving(Instant),
    /// The last programs run until this moment.
    Telling(Instant),
    Over,
}

/// All virtual servers of a process.
#[derive(Debug)]
pub struct Balancer {
    plan: Arc<Plan>,
    rng: Rng,
    now: Instant,
    stage: Stage,
    services: Vec<Service>,
    places: BTreeMap<ServerKey, Place>,
    probes: BTreeMap<ProbeId, probe::Probe>,
    /// When the next checker or program wants something.
    next_due: Option<Instant>,
    /// Relays with one direction closed, and when they are looked at.
    half_closed: Timers<ConnId>,
    relays: Slab<Relay>,
    /// Sides with something to write.
    dirty: VecDeque<(SlabKey, Side)>,
    buffers: Buffers,
    teller: Teller,
    effects: Effects,
    telling: Telling,
    next_key: u32,
    next_probe: u32,
    next_service: u32,
    /// Used again for every choice.
    candidates: Vec<scheduler::Candidate>,
}

/// What is known of a real server, for figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerFigures<'a> {
    /// Name of the virtual server.
    pub service: &'a str,
    /// Where it is.
    pub address: std::net::SocketAddr,
    /// Whether it is up.
    pub is_up: bool,
    /// Its weight.
    pub weight: u32,
    /// Its connections.
    pub connections: u32,
    /// Its connections since the start.
    pub total: u64,
}

impl Balancer {
    /// Makes a balancer. Its whole behaviour follows from the plan, the seed and the inputs.
    pub fn new(plan: Arc<Plan>, seed: u64, now: Instant) -> Self {
        let mut balancer = Self {
            rng: Rng::new(seed),
            now,
            stage: Stage::Serving,
            services: Vec::new(),
            places: BTreeMap::new(),
            probes: BTreeMap::new(),
            next_due: None,
            half_closed: Timers::new(),
            relays: Slab::new(limits::RELAYS_MAX),
            dirty: VecDeque::new(),
            buffers: Buffers::default(),
            teller: Teller::default(),
            effects: Effects::new(None),
            telling: Telling::default(),
            next_key: 0,
            next_probe: 0,
            next_service: 0,
            candidates: Vec::new(),
            plan: Arc::default(),
        };
        balancer.take_over(plan);
        balancer
    }

    /// Returns what is known of every real server.
    pub fn figures(&self) -> impl Iterator<Item = ServerFigures<'_>> {
        self.services.iter().flat_map(|service| {
            service.all().map(|server| ServerFigures {
                service: &service.plan.name,
                address: server.address(),
                is_up: server.is_up,
                weight: server.weight,
                connections: server.connections,
                total: server.total,
            })
        })
    }

    /// Returns how many clients are connected.
    pub const fn clients(&self) -> usize {
        self.relays.len()
    }

    /// Takes a client in.
    ///
    /// # Errors
    ///
    /// No server can take it, or there are too many.
    pub fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        peer: &Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        self.now = now;
        self.telling.is_stale = true;
        let Endpoint::Tcp(client) = *peer else { return Err(AtCapacity) };
        let (service, called) = self.plan.find(on).ok_or(AtCapacity)?;
        if self.stage != Stage::Serving {
            return Err(AtCapacity);
        }
        self.open(service, client, called)
    }

    /// Takes one input in.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.now = now;
        self.telling.is_stale = true;
        match input {
            Input::Received { conn, bytes } => self.received(conn, bytes),
            Input::Sent { conn, buffer } => self.sent(conn, buffer),
            Input::Eof { conn } => self.ended(conn),
            Input::Connected { conn, .. } => self.connected(conn),
            Input::Closed { conn, reason } => self.closed(conn, reason),
            Input::ChannelOpened { channel, result } => {
                if let Some(id) = self.effects.channel_owner(channel) {
                    self.probe(id, |probe, effects| probe.opened(now, channel, result, effects));
                }
            }
            Input::Datagram { channel, bytes } => {
                if let Some(id) = self.effects.channel_owner(channel) {
                    self.probe(id, |probe, effects| probe.datagram(now, channel, bytes, effects));
                }
            }
            Input::Trouble { channel, trouble } => {
                if let Some(id) = self.effects.channel_owner(channel) {
                    self.probe(id, |probe, effects| probe.trouble(now, channel, trouble, effects));
                }
            }
            Input::Exited { job, exit } => match self.effects.forget_job(job) {
                Some(JobOwner::Probe(id)) => {
                    self.probe(id, |probe, _| probe.exited(now, job, &exit));
                    self.teller.go_on(now, &mut self.effects);
                }
                Some(JobOwner::Teller) => {
                    let failed = self.teller.exited(job, &exit);
                    self.teller.go_on(now, &mut self.effects);
                    if let Some((program, detail)) = failed {
                        self.effects.news("", BalanceNews::ProgramFailed { program, detail });
                    }
                    self.set_due();
                    self.go_on_leaving();
                }
                None => {}
            },
            Input::Command(Command::Drain { limit } | Command::HandOver { limit }) => {
                self.leave(limit);
            }
            Input::Command(Command::Reload { plan, .. }) => {
                let opened = plan.open::<Plan>();
                debug_assert!(opened.is_some(), "a plan that is for another machine");
                if let Some(opened) = opened {
                    self.take_over(opened);
                    self.effects.push(Output::Event(Event::Reloaded(plan)));
                }
            }
            Input::Released { .. }
            | Input::Resolved { .. }
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Notice(_) => {}
        }
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        while let Some(conn) = self.half_closed.pop_due(now) {
            self.look_at_half_closed(conn);
        }
        if self.next_due.is_some_and(|at| at <= now) {
            self.telling.is_stale = true;
            let due = |probe: &&probe::Probe| probe.next().is_some_and(|at| at <= now);
            let due: Vec<ProbeId> =
                self.probes.values().filter(due).map(|probe| probe.id).collect();
            for id in due {
                self.probe(id, |probe, effects| probe.handle_timeout(now, effects));
            }
            self.teller.handle_timeout(now, &mut self.effects);
            self.set_due();
        }
        self.go_on_leaving();
        self.settle_figures();
    }

    /// Gives the next effect out, `None` when there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.effects.outputs.pop_front().or_else(|| self.poll_write())
    }

    /// Returns when [`Balancer::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let leaving = match self.stage {
            Stage::Leaving(at) | Stage::Telling(at) => Some((at, "the end of balancing")),
            Stage::Serving | Stage::Over => None,
        };
        let due = self.next_due.map(|at| (at, "a server's check"));
        let half_closed = self.half_closed.next().map(|(at, _)| (at, "a half-closed connection"));
        let figures = self.telling.next().map(|at| (at, "figures"));
        let (at, why) = [leaving, due, half_closed, figures].into_iter().flatten().min()?;
        Some(Deadline { at, why })
    }

    /// Lets a checker do something, and takes its verdict.
    fn probe(
        &mut self,
        id: ProbeId,
        act: impl FnOnce(&mut probe::Probe, &mut Effects) -> Option<probe::Verdict>,
    ) {
        let Some(probe) = self.probes.get_mut(&id) else { return };
        let server = probe.server;
        let verdict = act(probe, &mut self.effects);
        self.set_due();
        if let Some(verdict) = verdict {
            self.review(server, &verdict.detail);
        }
    }

    fn set_due(&mut self) {
        let probes = self.probes.values().filter_map(probe::Probe::next);
        self.next_due = probes.chain(self.teller.next()).min();
    }

    /// Returns whose a connection is: a relay's side or a checker.
    fn find(&self, conn: ConnId) -> Option<Found> {
        if !conn.is_server() {
            return Some(Found::Relay(effects::key_of(conn), Side::Client));
        }
        match self.effects.owner(conn)? {
            Owner::Relay(key) => Some(Found::Relay(key, Side::Server)),
            Owner::Probe(id) => Some(Found::Probe(id)),
            Owner::Nobody => None,
        }
    }

    fn connected(&mut self, conn: ConnId) {
        let now = self.now;
        match self.find(conn) {
            Some(Found::Relay(key, _)) => self.relay_connected(key),
            Some(Found::Probe(id)) => {
                self.probe(id, |probe, effects| probe.connected(now, conn, effects));
            }
            None => {}
        }
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8]) {
        let now = self.now;
        match self.find(conn) {
            Some(Found::Relay(key, side)) => self.relay_received(key, side, bytes),
            Some(Found::Probe(id)) => {
                self.probe(id, |probe, effects| probe.received(now, conn, Some(bytes), effects));
            }
            None => {}
        }
    }

    fn ended(&mut self, conn: ConnId) {
        let now = self.now;
        match self.find(conn) {
            Some(Found::Relay(key, side)) => self.relay_ended(key, side),
            Some(Found::Probe(id)) => {
                self.probe(id, |probe, effects| probe.received(now, conn, None, effects));
            }
            None => {}
        }
    }

    fn sent(&mut self, conn: ConnId, buffer: crate::buf::Buffer) {
        match self.find(conn) {
            Some(Found::Relay(key, side)) => self.relay_sent(key, side, buffer),
            Some(Found::Probe(id)) => self.probe(id, |probe, effects| probe.sent(conn, effects)),
            None => {}
        }
    }

    fn closed(&mut self, conn: ConnId, reason: crate::io::CloseReason) {
        let now = self.now;
        self.effects.forget(conn);
        if !conn.is_server() {
            return self.client_closed(effects::key_of(conn));
        }
        match self.effects.forget_link(conn) {
            Some(Owner::Relay(key)) => self.server_closed(key, reason),
            Some(Owner::Probe(id)) => {
                self.probe(id, |probe, effects| probe.closed(now, conn, reason, effects));
            }
            Some(Owner::Nobody) | None => {}
        }
    }

    // The end.

    /// Takes nobody in any more. Clients have until the limit; with `omega` programs are told.
    fn leave(&mut self, limit: Duration) {
        if self.stage == Stage::Serving {
            self.stage = Stage::Leaving(self.now + limit);
            self.go_on_leaving();
        }
    }

    fn go_on_leaving(&mut self) {
        if let Stage::Leaving(until) = self.stage
            && (self.relays.is_empty() || until <= self.now)
        {
            self.stop_everything();
            self.stage = Stage::Telling(self.now + limits::BALANCE_STOP_PATIENCE);
        }
        if let Stage::Telling(until) = self.stage
            && (self.teller.is_idle() && self.relays.is_empty() || until <= self.now)
        {
            self.stage = Stage::Over;
            self.effects.push(Output::Event(Event::Drained));
        }
    }

    fn stop_everything(&mut self) {
        let relays: Vec<SlabKey> = self.relays.iter().map(|(key, _)| key).collect();
        for key in relays {
            self.abort(key);
        }
        for probe in self.probes.values_mut() {
            probe.stop(&mut self.effects);
        }
        self.probes.clear();
        for at in 0..self.services.len() {
            self.tell_omega(at);
        }
        self.set_due();
    }
}

/// Whose a connection is.
#[derive(Clone, Copy, Debug)]
enum Found {
    Relay(SlabKey, Side),
    Probe(ProbeId),
}
