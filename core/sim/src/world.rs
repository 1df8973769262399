//! Everything around the machine, and the loop that moves time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringkeeper_core::id::{ConnId, QueryId};
use ringkeeper_core::io::{CloseReason, Command, Drive};
use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;

use crate::Check;
use crate::checker::Checker;
use crate::clock::Agenda;
use crate::fault::{Injector, Relief};
use crate::net::{Link, Phase, Side};
use crate::redis::Server;
use crate::runtime::Pace;
use crate::scenario::{Failure, Report, Scenario};
use crate::trace::{Line, Trace};
use crate::workload::Client;

/// Events of one run; more is a simulation that does not end.
const STEPS_MAX: u64 = 40_000_000;

/// How long the machine may take to let go of clients that have left.
const FAREWELL: Duration = Duration::from_secs(5);

/// Between two plans, at most.
const RELOAD_PAUSE_MAX_NANOS: u64 = 30_000_000;

/// What the agenda holds.
#[derive(Debug)]
pub(crate) enum Event {
    Turn,
    Arrive {
        link: usize,
        to: Side,
    },
    Written {
        link: usize,
    },
    /// Something about the link may have become due for the machine.
    Notice {
        link: usize,
    },
    ConnectDone {
        link: usize,
        result: Result<(), CloseReason>,
    },
    Answer {
        query: QueryId,
        host: String,
        port: u16,
    },
    ClientWake {
        client: usize,
        epoch: u64,
    },
    ClientRead {
        client: usize,
        link: usize,
    },
    ServerRead {
        server: usize,
        link: usize,
    },
    Strike,
    Reload,
    Relieve(Relief),
    Stage(Stage),
}

/// The parts of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Faults happen; nothing wrong may happen.
    Safety,
    /// No more faults; errors are still forgiven.
    Settling,
    /// Everybody must be served well.
    Probing,
    /// Everybody leaves.
    Draining,
    /// Nothing may be left.
    Over,
}

pub(crate) struct World {
    pub now: Instant,
    pub step: u64,
    pub rng: Rng,
    pub scenario: Scenario,
    pub stage: Stage,
    pub agenda: Agenda<Event>,
    pub links: Vec<Link>,
    /// Links that may have something for the machine.
    pub ready: BTreeSet<usize>,
    /// Names that the machine issued and was not told the end of.
    pub conns: BTreeMap<ConnId, usize>,
    pub slots: BTreeMap<u32, ConnId>,
    pub names_used: BTreeSet<ConnId>,
    /// Clients for whom the machine received replies in this turn.
    pub credited: BTreeSet<usize>,
    pub pace: Pace,
    pub command: Option<Command>,
    pub is_drained: bool,
    pub clients: Vec<Client>,
    pub servers: Vec<Server>,
    pub injector: Injector,
    pub checker: Checker,
    pub trace: Trace,
    pub report: Report,
}

impl World {
    pub(crate) fn new(seed: u64, scenario: Scenario) -> Self {
        let mut rng = Rng::new(seed);
        let mut servers = Vec::new();
        for (pool, plan) in scenario.pools.iter().enumerate() {
            for endpoint in &plan.servers {
                servers.push(Server::new(pool, endpoint.clone()));
            }
        }
        let pools = scenario.pools.len();
        let clients = (0..scenario.clients as usize)
            .map(|index| Client::new(index % pools, rng.split()))
            .collect();
        Self {
            now: Instant::from_nanos(1_000_000),
            step: 0,
            injector: Injector::new(&mut rng, &scenario),
            checker: Checker::new(&scenario),
            rng,
            trace: Trace::new(scenario.trace_lines),
            scenario,
            stage: Stage::Safety,
            agenda: Agenda::new(),
            links: Vec::new(),
            ready: BTreeSet::new(),
            conns: BTreeMap::new(),
            slots: BTreeMap::new(),
            names_used: BTreeSet::new(),
            credited: BTreeSet::new(),
            pace: Pace::default(),
            command: None,
            is_drained: false,
            clients,
            servers,
            report: Report::default(),
        }
    }

    pub(crate) fn run<D: Drive>(&mut self, seed: u64, machine: &mut D) -> Result<Report, Failure> {
        match self.play(machine) {
            Ok(()) => {
                self.report.end = self.now;
                self.report.replies = self.checker.replies;
                self.report.errors = self.checker.errors;
                self.report.lost = self.checker.lost;
                self.report.effects = self.checker.effects;
                Ok(self.report)
            }
            Err(what) => Err(self.failure(seed, what)),
        }
    }

    pub(crate) fn failure(&self, seed: u64, what: String) -> Failure {
        Failure { seed, step: self.step, at: self.now, what, trace: self.trace.render() }
    }

    pub(crate) fn note(&mut self, note: String) {
        self.trace.push(self.now, Line::Note(note));
    }

    fn play<D: Drive>(&mut self, machine: &mut D) -> Check {
        for client in 0..self.clients.len() {
            self.client_plan_wake(client, Duration::from_millis(20));
        }
        self.plan_strike();
        self.plan_reload();
        self.agenda.plan(self.now + self.scenario.safety, Event::Stage(Stage::Settling));
        // The machine may want to connect or resolve before anybody comes.
        self.plan_turn(self.now);
        while let Some((at, event)) = self.agenda.take() {
            self.now = at;
            self.step += 1;
            if self.step > STEPS_MAX {
                return Err("the simulation does not end".into());
            }
            self.happen(machine, event)?;
            if self.stage == Stage::Over {
                return Ok(());
            }
        }
        Err("nothing is left to happen".into())
    }

    fn happen<D: Drive>(&mut self, machine: &mut D, event: Event) -> Check {
        match event {
            Event::Turn => self.turn(machine),
            Event::Arrive { link, to } => self.arrive(link, to),
            Event::Written { link } => {
                self.written(link);
                Ok(())
            }
            Event::Notice { link } => {
                self.wake_runtime(link);
                Ok(())
            }
            Event::ConnectDone { link, result } => {
                if self.links[link].phase == Phase::Connecting {
                    self.links[link].phase = Phase::Connected(result);
                    self.server_connected(link);
                    self.wake_runtime(link);
                }
                Ok(())
            }
            Event::Answer { query, host, port } => {
                self.pace.answers.push((query, host, port));
                self.plan_turn(self.now);
                Ok(())
            }
            Event::ClientWake { client, epoch } => self.client_wake(client, epoch),
            Event::ClientRead { client, link } => self.client_read_due(client, link),
            Event::ServerRead { server, link } => self.server_read(server, link),
            Event::Strike => self.strike(),
            Event::Reload => {
                self.reload();
                Ok(())
            }
            Event::Relieve(relief) => self.relieve(&relief),
            Event::Stage(stage) => self.enter(stage),
        }
    }

    fn plan_reload(&mut self) {
        if self.scenario.plans.is_empty() {
            return;
        }
        let delay = Duration::from_nanos(self.rng.below(RELOAD_PAUSE_MAX_NANOS));
        self.agenda.plan(self.now + delay, Event::Reload);
    }

    fn reload(&mut self) {
        if self.stage != Stage::Safety {
            return;
        }
        self.plan_reload();
        let at = self.rng.below(self.scenario.plans.len() as u64) as usize;
        let plan = self.scenario.plans[at].clone();
        self.note(format!("!! plan {at}"));
        self.report.reloads += 1;
        self.command = Some(Command::Reload { plan, limit: Duration::from_secs(1) });
        self.plan_turn(self.now);
    }

    fn enter(&mut self, stage: Stage) -> Check {
        if stage <= self.stage {
            return Ok(());
        }
        self.note(format!("== {stage:?}"));
        match stage {
            Stage::Safety => {}
            Stage::Settling => {
                self.clients_check_timely()?;
                self.stage = stage;
                self.heal()?;
                self.checker.mark_healed();
                self.clients_calm_down()?;
                self.agenda.plan(self.now + self.scenario.settle, Event::Stage(Stage::Probing));
            }
            Stage::Probing => {
                self.checker.check_answered()?;
                self.clients_check_settled()?;
                self.stage = stage;
                self.checker.stop_forgiving();
                self.clients_start_probing();
                self.agenda.plan(self.now + self.scenario.liveness, Event::Stage(Stage::Draining));
            }
            Stage::Draining => {
                self.clients_check_probed()?;
                self.stage = stage;
                if self.scenario.drains {
                    self.command = Some(Command::Drain { limit: Duration::from_secs(1) });
                    self.plan_turn(self.now);
                } else {
                    self.clients_leave();
                }
                self.agenda.plan(self.now + FAREWELL, Event::Stage(Stage::Over));
            }
            Stage::Over => {
                if let Some(client) = self.conns.keys().find(|conn| !conn.is_server()) {
                    return Err(format!("{client:?} has left long ago and is still held"));
                }
                if self.scenario.drains && !self.is_drained {
                    return Err("Drain was never answered by Drained".into());
                }
                self.stage = stage;
            }
        }
        Ok(())
    }
}
