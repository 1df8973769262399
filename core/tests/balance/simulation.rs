//! Many clients and servers with faults from one seed: servers die with a word or without, checks
//! come and go, both sides read slowly, and whoever likes breaks off.
//!
//! Every byte tells whose it is and where in its stream it stands, so one that is lost, doubled or
//! misdelivered is found at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringkeeper_core::balance::Plan;
use ringkeeper_core::buf::Buffer;
use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{
    BalanceNews, CloseMode, CloseReason, Drive, Endpoint, Event, Input, Output,
};
use ringkeeper_core::limits;
use ringkeeper_core::node::balance::BalanceWorker;
use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;

use crate::lab::{Mood, plan, server, text};

/// Bytes that come at once, at most.
const CHUNK_MAX: u64 = 16 * 1024;

/// Chunks that still come after a pause; a runtime may have more under way.
const LATE_MAX: u8 = 2;

/// What one direction may hold: what is allowed to wait, and what was under way already.
const HELD_MAX: usize = limits::RELAY_WAITING_BYTES + 3 * 16 * 1024;

/// How long there are faults and new clients, and how long all may take after that.
const STORM: Duration = Duration::from_secs(20);
const CALM: Duration = Duration::from_secs(60);

const SERVERS: [u8; 3] = [1, 2, 3];
const CLIENTS: u64 = 60;

const CHECK: &str = "TCP_CHECK {\n connect_timeout 1\n retry 1\n delay_before_retry 0.2\n \
                     delay_loop 0.5\n warmup 0\n }";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Comes,
    Fault,
    Heals(u8),
    /// A connection is made, or not any more.
    Answers(ConnId),
    GivesUp(ConnId),
    Says(ConnId),
    Takes(ConnId),
    Breaks(ConnId),
}

/// One connection as its other end has it.
#[derive(Debug)]
struct Wire {
    /// Whose it is: a client's from the start, a server's when it has heard who speaks.
    id: Option<u32>,
    to: Option<u8>,
    is_slow: bool,
    is_open: bool,
    is_gone: bool,
    said: usize,
    /// All that it will say.
    total: usize,
    has_ended: bool,
    is_talking: bool,
    is_paused: bool,
    extra: u8,
    heard: Vec<u8>,
    taking: Option<Buffer>,
    is_told: bool,
    closed: Option<CloseMode>,
}

/// What happened, so that a run which tests nothing is noticed.
#[derive(Clone, Copy, Debug, Default)]
struct Summary {
    whole: u32,
    cut: u32,
    turned_away: u32,
    faults: u32,
    verdicts: u32,
    kept: u32,
    pauses: u32,
}

struct World {
    seed: u64,
    rng: Rng,
    now: Instant,
    worker: BalanceWorker,
    wires: BTreeMap<ConnId, Wire>,
    due: BTreeMap<(Instant, u64), Step>,
    steps: u64,
    moods: BTreeMap<u8, Mood>,
    /// Whatever may have moved clients away from a server.
    stains: BTreeMap<u8, u32>,
    /// Which server a client's address had last, and how stained that was.
    last: BTreeMap<u8, (u8, u32)>,
    is_persistent: bool,
    clients: u32,
    came: u64,
    summary: Summary,
}

/// What one end says: who speaks, then bytes that tell their place.
#[expect(clippy::cast_possible_truncation, reason = "only the low bits are wanted")]
fn byte(id: u32, is_client: bool, at: usize) -> u8 {
    if let Some(byte) = id.to_le_bytes().get(at) {
        return *byte;
    }
    let salt = if is_client { 17 } else { 101 };
    (id as usize * 31 + at * 13 + (at >> 8) * 7 + salt) as u8
}

/// How much one end says in all.
fn total(id: u32, is_client: bool) -> usize {
    let mut rng = Rng::new(u64::from(id) * 2 + u64::from(is_client));
    let most = if rng.is_one_in(1, 4) { 600_000 } else { 20_000 };
    4 + usize::try_from(rng.below(most)).unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let schedulers = ["rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "mh"];
        let scheduler = schedulers[usize::try_from(rng.below(8)).unwrap()];
        let is_persistent = rng.is_one_in(1, 3);
        let persistence = if is_persistent { "persistence_timeout 100" } else { "" };
        let body = format!("lb_algo {scheduler}\n {persistence}");
        let plan: Arc<Plan> = Arc::new(plan(&text(&body, &[CHECK; 3]), None));
        let worker = BalanceWorker::new(plan, rng.next_u64(), Instant::START);
        let mut world = Self {
            seed,
            rng,
            now: Instant::START,
            worker,
            wires: BTreeMap::new(),
            due: BTreeMap::new(),
            steps: 0,
            moods: SERVERS.map(|number| (number, Mood::Takes)).into(),
            stains: SERVERS.map(|number| (number, 0)).into(),
            last: BTreeMap::new(),
            is_persistent,
            clients: 0,
            came: 0,
            summary: Summary::default(),
        };
        world.settle();
        for _ in 0..CLIENTS {
            world.schedule_within(STORM, Step::Comes);
        }
        for _ in 0..12 {
            world.schedule_within(STORM, Step::Fault);
        }
        world
    }

    fn schedule(&mut self, after: Duration, step: Step) {
        self.steps += 1;
        self.due.insert((self.now + after, self.steps), step);
    }

    fn schedule_within(&mut self, most: Duration, step: Step) {
        let micros = u64::try_from(most.as_micros()).unwrap();
        let after = Duration::from_micros(self.rng.below(micros.max(1)));
        self.schedule(after, step);
    }

    fn run(mut self) -> Summary {
        let end = Instant::START + STORM + CALM;
        loop {
            let step = self.due.keys().next().map(|(at, _)| *at);
            let timer = self.worker.poll_timeout().map(|deadline| deadline.at);
            let Some(next) = step.into_iter().chain(timer).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if timer.is_some_and(|at| at <= self.now) {
                self.worker.handle_timeout(self.now);
                self.settle();
            } else if let Some((_, step)) = self.due.pop_first() {
                self.step(step);
            }
        }
        self.judge_end();
        self.summary
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Comes => self.client_comes(),
            Step::Fault => self.fault(),
            Step::Heals(number) => drop(self.moods.insert(number, Mood::Takes)),
            Step::Answers(conn) => self.answers(conn),
            Step::GivesUp(conn) => {
                if self.wires[&conn].closed.is_none() && !self.wires[&conn].is_open {
                    self.end(conn, CloseReason::ConnectTimedOut);
                }
            }
            Step::Says(conn) => self.says(conn),
            Step::Takes(conn) => self.takes(conn),
            Step::Breaks(conn) => {
                let wire = &self.wires[&conn];
                if wire.closed.is_none() && !wire.is_gone {
                    self.end(conn, CloseReason::Reset);
                }
            }
        }
    }

    fn client_comes(&mut self) {
        self.came += 1;
        let number = u8::try_from(self.rng.below(6)).unwrap();
        let port = 1024 + u16::try_from(self.came).unwrap();
        let peer = Endpoint::Tcp(SocketAddr::from(([192, 168, 0, number], port)));
        let Ok(conn) = self.worker.accept(self.now, ListenerId(0), peer) else {
            self.summary.turned_away += 1;
            return self.settle();
        };
        let id = u32::from(number) << 24 | self.clients;
        self.clients += 1;
        let mut wire = self.wire(None);
        (wire.id, wire.is_open, wire.total) = (Some(id), true, total(id, true));
        self.wires.insert(conn, wire);
        self.talk(conn);
        if self.rng.is_one_in(1, 12) {
            self.schedule_within(Duration::from_secs(2), Step::Breaks(conn));
        }
        self.settle();
    }

    fn wire(&mut self, to: Option<u8>) -> Wire {
        Wire {
            id: None,
            to,
            is_slow: self.rng.is_one_in(1, 6),
            is_open: false,
            is_gone: false,
            said: 0,
            total: 0,
            has_ended: false,
            is_talking: false,
            is_paused: false,
            extra: 0,
            heard: Vec::new(),
            taking: None,
            is_told: false,
            closed: None,
        }
    }

    /// One server stops taking connections; some lose those that they have.
    fn fault(&mut self) {
        self.summary.faults += 1;
        let number = SERVERS[usize::try_from(self.rng.below(3)).unwrap()];
        *self.stains.get_mut(&number).unwrap() += 1;
        let is_silent = self.rng.is_one_in(1, 2);
        let mood = if is_silent { Mood::IsSilent } else { Mood::Refuses };
        self.moods.insert(number, mood);
        self.schedule_within(Duration::from_secs(4), Step::Heals(number));
        if is_silent {
            return;
        }
        let mine = |(_, wire): &(&ConnId, &Wire)| {
            wire.to == Some(number) && wire.is_open && wire.closed.is_none()
        };
        let links: Vec<ConnId> = self.wires.iter().filter(mine).map(|(conn, _)| *conn).collect();
        for link in links {
            // Closing one may have closed another.
            if self.wires[&link].closed.is_none() {
                self.end(link, CloseReason::Reset);
            }
        }
    }

    fn is_silent(&self, conn: ConnId) -> bool {
        let to = self.wires[&conn].to;
        to.is_some_and(|number| self.moods[&number] == Mood::IsSilent)
    }

    fn answers(&mut self, conn: ConnId) {
        let wire = &self.wires[&conn];
        if wire.closed.is_some() {
            return;
        }
        let number = wire.to.unwrap();
        match self.moods[&number] {
            Mood::Takes => {
                self.wires.get_mut(&conn).unwrap().is_open = true;
                self.give(Input::Connected { conn, local: None });
            }
            Mood::Refuses => self.end(conn, CloseReason::Refused),
            // It gives up in the end.
            Mood::IsSilent => {}
        }
    }

    /// Lets one end say what is next.
    fn says(&mut self, conn: ConnId) {
        if self.is_silent(conn) {
            return self.schedule(Duration::from_millis(100), Step::Says(conn));
        }
        let chunk = usize::try_from(1 + self.rng.below(CHUNK_MAX)).unwrap();
        let wire = self.wires.get_mut(&conn).unwrap();
        wire.is_talking = false;
        let is_stopped = wire.is_paused && wire.extra >= LATE_MAX;
        if wire.closed.is_some() || wire.is_gone || wire.has_ended || is_stopped {
            return;
        }
        wire.extra += u8::from(wire.is_paused);
        if wire.said == wire.total {
            wire.has_ended = true;
            return self.give(Input::Eof { conn });
        }
        let (id, is_client) = (wire.id.unwrap(), wire.to.is_none());
        let until = (wire.said + chunk).min(wire.total);
        let bytes: Vec<u8> = (wire.said..until).map(|at| byte(id, is_client, at)).collect();
        wire.said = until;
        self.give(Input::Received { conn, bytes: &bytes });
        self.judge_held(id, is_client);
        self.talk(conn);
    }

    /// Makes an end say more, soon.
    fn talk(&mut self, conn: ConnId) {
        let wire = self.wires.get_mut(&conn).unwrap();
        if wire.is_talking || wire.closed.is_some() || wire.id.is_none() {
            return;
        }
        wire.is_talking = true;
        let most = if wire.is_slow { 30 } else { 3 };
        self.schedule_within(Duration::from_millis(most), Step::Says(conn));
    }

    /// Lets the kernel take what is being written.
    fn takes(&mut self, conn: ConnId) {
        if self.is_silent(conn) {
            return self.schedule(Duration::from_millis(100), Step::Takes(conn));
        }
        let wire = self.wires.get_mut(&conn).unwrap();
        let Some(buffer) = wire.taking.take() else { return };
        if !wire.is_gone {
            self.give(Input::Sent { conn, buffer });
        }
    }

    /// Ends a connection from outside. Whoever is on its other side hears of it at once.
    fn end(&mut self, conn: ConnId, reason: CloseReason) {
        let wire = self.wires.get_mut(&conn).unwrap();
        let (id, was_open) = (wire.id, wire.is_open);
        (wire.is_gone, wire.is_open) = (true, false);
        wire.closed = Some(CloseMode::Abort);
        let is_client = wire.to.is_none();
        // Who was not taken goes elsewhere, for whatever reason.
        if let Some(number) = wire.to.filter(|_| !was_open) {
            *self.stains.get_mut(&number).unwrap() += 1;
        }
        self.give(Input::Closed { conn, reason });
        if let Some(id) = id.filter(|_| was_open) {
            let others = self.wires.values().filter(|wire| {
                wire.id == Some(id) && wire.to.is_none() != is_client && wire.closed.is_none()
            });
            assert_eq!(
                others.count(),
                0,
                "seed {}: {conn:?} ended and its other side hangs",
                self.seed
            );
        }
    }

    fn give(&mut self, input: Input<'_>) {
        self.worker.handle(self.now, input);
        self.settle();
    }

    fn settle(&mut self) {
        let mut closed = Vec::new();
        let mut down = Vec::new();
        loop {
            while let Some(output) = self.worker.poll_output() {
                self.perform(output, &mut closed, &mut down);
            }
            let Some(conn) = closed.pop() else { break };
            self.worker.handle(self.now, Input::Closed { conn, reason: CloseReason::Requested });
        }
        for number in down {
            let hangs =
                |wire: &&Wire| wire.to == Some(number) && wire.is_open && wire.closed.is_none();
            let left = self.wires.values().filter(hangs).count();
            assert_eq!(left, 0, "seed {}: connections to a dead server go on", self.seed);
        }
    }

    fn open(&mut self, conn: ConnId, what: &str) -> &mut Wire {
        let seed = self.seed;
        let wire = self.wires.get_mut(&conn).unwrap_or_else(|| panic!("seed {seed}: {what}"));
        assert!(wire.closed.is_none(), "seed {seed}: {what} for {conn:?}, which is closed");
        wire
    }

    fn perform(&mut self, output: Output, closed: &mut Vec<ConnId>, down: &mut Vec<u8>) {
        match output {
            Output::Connect { conn, endpoint: Endpoint::Tcp(to), timeout, .. } => {
                let number = SERVERS.into_iter().find(|&number| server(number) == to);
                let wire = self.wire(number);
                self.wires.insert(conn, wire);
                self.schedule_within(Duration::from_millis(5), Step::Answers(conn));
                self.schedule(timeout, Step::GivesUp(conn));
            }
            Output::Transmit { conn, buffer } => self.hears(conn, buffer),
            Output::PauseRead(conn) => {
                let wire = self.open(conn, "PauseRead");
                assert!(!std::mem::replace(&mut wire.is_paused, true));
                wire.extra = 0;
                self.summary.pauses += 1;
            }
            Output::ResumeRead(conn) => {
                let wire = self.open(conn, "ResumeRead");
                assert!(std::mem::replace(&mut wire.is_paused, false));
                self.talk(conn);
            }
            Output::EndWrite(conn) => {
                let wire = self.open(conn, "EndWrite");
                assert!(wire.taking.is_none() && !wire.is_told);
                wire.is_told = true;
            }
            Output::Close { conn, mode } => {
                let seed = self.seed;
                let wire = self.open(conn, "Close");
                (wire.closed, wire.is_open) = (Some(mode), false);
                if wire.to.is_none() && mode == CloseMode::Flush {
                    let id = wire.id.unwrap();
                    let is_whole = wire.heard.len() == total(id, false);
                    assert!(is_whole, "seed {seed}: client {id} lacks the end of its answer");
                    self.summary.whole += 1;
                } else if wire.to.is_none() {
                    self.summary.cut += 1;
                }
                closed.push(conn);
            }
            Output::Event(Event::Balance { news, .. }) => {
                if let BalanceNews::ServerDown { server: at, .. } = news {
                    let number = SERVERS.into_iter().find(|&number| server(number) == at).unwrap();
                    *self.stains.get_mut(&number).unwrap() += 1;
                    self.summary.verdicts += 1;
                    down.push(number);
                }
            }
            other => panic!("seed {}: not expected here: {other:?}", self.seed),
        }
    }

    /// Takes what is written to one end, and holds it to what the other end said.
    fn hears(&mut self, conn: ConnId, buffer: Buffer) {
        let seed = self.seed;
        let wire = self.open(conn, "Transmit");
        assert!(wire.is_open && wire.taking.is_none() && !wire.is_told && !buffer.is_empty());
        let is_server = wire.to.is_some();
        let at = wire.heard.len();
        wire.heard.extend_from_slice(&buffer);
        let is_news = wire.id.is_none() && wire.heard.len() >= 4;
        if is_news {
            let head = wire.heard.first_chunk::<4>().unwrap();
            let id = u32::from_le_bytes(*head);
            (wire.id, wire.total) = (Some(id), total(id, false));
        }
        if let Some(id) = wire.id {
            for (place, &found) in wire.heard.iter().enumerate().skip(at) {
                let said = byte(id, is_server, place);
                assert_eq!(
                    found, said,
                    "seed {seed}: byte {place} of {id}, to a server: {is_server}"
                );
            }
        }
        let most = if wire.is_slow { 800 } else { 4 };
        wire.taking = Some(buffer);
        self.schedule_within(Duration::from_millis(most), Step::Takes(conn));
        if is_news {
            self.judge_persistence(conn);
            self.talk(conn);
        }
    }

    /// A client's address stays with its server as long as nothing happened to that.
    fn judge_persistence(&mut self, link: ConnId) {
        let wire = &self.wires[&link];
        let (to, id) = (wire.to.unwrap(), wire.id.unwrap());
        let [.., address] = id.to_le_bytes();
        let stain = self.stains[&to];
        if let Some((before, stained)) = self.last.insert(address, (to, stain))
            && self.is_persistent
            && self.stains[&before] == stained
        {
            // Connections that were begun before may be late.
            let is_late = to != before && self.moods.values().any(|mood| *mood != Mood::Takes);
            assert!(to == before || is_late, "seed {}: {address} went to {to}", self.seed);
            self.summary.kept += u32::from(to == before);
        }
    }

    /// Little is held of what one end has said.
    fn judge_held(&self, id: u32, is_client: bool) {
        let side = |is_server: bool| {
            self.wires.values().find(|wire| {
                wire.id == Some(id) && wire.to.is_some() == is_server && wire.closed.is_none()
            })
        };
        let Some(from) = side(!is_client) else { return };
        let passed = side(is_client).map_or(0, |wire| wire.heard.len());
        let held = from.said - passed;
        assert!(held <= HELD_MAX, "seed {}: {held} bytes are held", self.seed);
    }

    fn judge_end(&mut self) {
        let seed = self.seed;
        let left = self.worker.balancer().clients();
        assert_eq!(left, 0, "seed {seed}: clients are left");
        let figures: Vec<_> = self.worker.balancer().figures().collect();
        assert!(
            figures.iter().all(|one| one.connections == 0 && one.is_up),
            "seed {seed}: {figures:?}"
        );
        // A check may be under way.
        let spoken = |wire: &&Wire| wire.to.is_some() && wire.id.is_some();
        for wire in self.wires.values().filter(spoken) {
            assert!(wire.closed.is_some(), "seed {seed}: a connection to a server is left");
            let Some(id) = wire.id.filter(|_| wire.closed == Some(CloseMode::Flush)) else {
                continue;
            };
            assert_eq!(wire.heard.len(), total(id, true), "seed {seed}: the server lacks the end");
        }
    }
}

#[test]
fn no_byte_is_lost_or_misdelivered_and_nobody_hangs_whatever_dies() {
    let seeds = std::env::var("RINGKEEPER_SEEDS").ok().and_then(|count| count.parse().ok());
    let only = std::env::var("RINGKEEPER_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let many = seeds.unwrap_or(40);
    let range = only.map_or(0..many, |seed| seed..seed + 1);
    let mut sum = Summary::default();
    for seed in range.clone() {
        let one = World::new(seed).run();
        sum.whole += one.whole;
        sum.cut += one.cut;
        sum.turned_away += one.turned_away;
        sum.faults += one.faults;
        sum.verdicts += one.verdicts;
        sum.kept += one.kept;
        sum.pauses += one.pauses;
    }
    println!("{} seeds: {sum:?}", range.end - range.start);
    // Otherwise nothing was tried.
    if only.is_none() {
        assert!(sum.whole > 0 && sum.cut > 0 && sum.verdicts > 0, "{sum:?}");
        assert!(sum.kept > 0 && sum.pauses > 0, "{sum:?}");
    }
}
