//! The runs: a pair of routers, something that happens to the first one, and what is seen.

use std::fs;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::Options;
use super::capture::{self, Seen, Takeover};
use super::lab::{Ender, Extras, Job, Kind, Lab, Mode, wait};
use super::probe::now_ns;
use super::report::{Lanes, Report, Run};
use crate::process::{busy_and_all_ticks, own_ticks};

/// What happens to the first router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// All its processes are killed, so that nobody can say anything.
    KillAll,
    /// Its first process is killed.
    KillParent,
    /// The process that has the routers is killed: with us the first one, as there is no other.
    KillVrrp,
    /// Its cable is pulled.
    LinkDown,
    /// It is told to end.
    Terminate,
    /// All its processes are stopped, as those of a machine that is paused.
    Stop,
    /// The service that it tracks is killed; it looks every second.
    Track1,
    /// It looks every two seconds.
    Track2,
    /// The pool behind its virtual server is drained; with keepalived, which has no such word, the
    /// service is killed that it looks at every second.
    Drain,
    /// The thread that serves the pool behind its virtual server dies; with keepalived, which has
    /// none, the service is killed that it looks at every second.
    Worker,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::KillAll,
        Self::KillParent,
        Self::KillVrrp,
        Self::LinkDown,
        Self::Terminate,
        Self::Stop,
        Self::Track1,
        Self::Track2,
        Self::Drain,
        Self::Worker,
    ];

    /// Its name in tables and options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KillAll => "kill9-all",
            Self::KillParent => "kill9-parent",
            Self::KillVrrp => "kill9-vrrp",
            Self::LinkDown => "linkdown",
            Self::Terminate => "sigterm",
            Self::Stop => "sigstop",
            Self::Track1 => "track1",
            Self::Track2 => "track2",
            Self::Drain => "drain",
            Self::Worker => "worker",
        }
    }

    /// What routers of a kind are to do for it besides.
    fn extras(self, kind: Kind) -> Extras {
        let is_served = matches!(self, Self::Drain | Self::Worker);
        let has_pool = is_served && kind != Kind::Genuine;
        let check_every = match self {
            Self::Track1 => 1,
            Self::Track2 => 2,
            Self::Drain | Self::Worker => u32::from(!has_pool),
            Self::KillAll
            | Self::KillParent
            | Self::KillVrrp
            | Self::LinkDown
            | Self::Terminate
            | Self::Stop => 0,
        };
        Extras { check_every, has_pool }
    }

    /// Whether the second router only has silence to go by.
    pub const fn is_silent(self) -> bool {
        matches!(self, Self::KillAll | Self::LinkDown | Self::Stop)
    }
}

/// How much later each lab begins than the one before, so that they do not go in step. Rounds take
/// different times, so they do not fall into step later.
const STAGGER: Duration = Duration::from_millis(1100);

/// How long a pair is left alone before anything is asked of it.
pub(super) const CALM: Duration = Duration::from_millis(300);

/// The thread that serves pools.
const WORKER: &str = "rk-data-0";

/// Runs of the cell that shows how exact the timers are.
const EXACT_RUNS: usize = 40;

/// One run of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Protocol and timer.
    pub mode: Mode,
    /// What happens.
    pub scenario: Scenario,
    /// Which of the rounds of its cell; it decides at which phase of the timers it happens.
    pub number: usize,
}

/// Returns all rounds in the order in which they are begun.
pub fn rounds(options: &Options) -> Vec<Round> {
    let mut rounds = Vec::new();
    for &mode in &options.modes {
        for &scenario in &options.scenarios {
            let is_exact = scenario == Scenario::KillAll && options.runs >= 20;
            let runs = if is_exact { options.runs.max(EXACT_RUNS) } else { options.runs };
            rounds.extend((0..runs).map(|number| Round { mode, scenario, number }));
        }
    }
    rounds
}

/// Makes all runs, kinds taking turns. Rounds are dealt out to the labs in turn, each with all of its
/// kinds, so that what the labs do to each other is the same for every kind.
pub fn takeovers(labs: &[Lab], options: &Options, report: &Mutex<Report>) -> io::Result<()> {
    let rounds = rounds(options);
    lock(report).expect(&rounds);
    let (since, before, own_before) = (Instant::now(), busy_and_all_ticks()?, own_ticks()?);
    let work = |lane: usize, lab: &Lab| -> io::Result<()> {
        std::thread::sleep(STAGGER * u32::try_from(lane).unwrap_or(0));
        let mut service = lab.serve("a")?;
        let _other = lab.serve("b")?;
        for &round in rounds.iter().skip(lane).step_by(labs.len()) {
            let mut kinds = options.kinds.clone();
            let turn = round.number % kinds.len().max(1);
            kinds.rotate_left(turn);
            for kind in kinds {
                let run = takeover(lab, kind, round, &mut service);
                lock(report).add(kind, round, run);
            }
            lock(report).done(round);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let lanes = labs.iter().enumerate();
        let threads: Vec<_> =
            lanes.map(|(lane, lab)| scope.spawn(move || work(lane, lab))).collect();
        let joined = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a lane panicked")))
        });
        joined.collect::<io::Result<Vec<()>>>()
    })?;
    let after = busy_and_all_ticks()?;
    let share = |ticks: u64| ticks as f64 / (after.1 - before.1).max(1) as f64;
    lock(report).note_lanes(Lanes {
        count: labs.len(),
        own: share(own_ticks()? - own_before),
        all: share(after.0 - before.0),
        lasted: since.elapsed(),
    });
    Ok(())
}

fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two routers, the first of which has the address; what the second sees is recorded.
pub(super) struct Pair {
    first: Job,
    second: Job,
    recorder: Job,
}

impl Pair {
    /// Starts them, and waits until the second one counts on the first.
    pub(super) fn start(
        lab: &Lab,
        kind: Kind,
        mode: Mode,
        extras: Extras,
        record: &str,
    ) -> io::Result<Self> {
        let limit = Duration::from_secs(15);
        let hands = lab.hands();
        let first = lab.router("a", kind, mode, extras)?;
        drop(hands);
        wait("the first router", limit, || lab.is_backup("a"))?;
        let hands = lab.hands();
        let second = lab.router("b", kind, mode, extras)?;
        let recorder = lab.record("b", record)?;
        drop(hands);
        wait("the second router", limit, || lab.is_backup("b"))?;
        wait("the first router's address", limit, || lab.has("a") && !lab.has("b"))?;
        let seen = lab.recorded(record);
        wait("an advert", limit, || lab.recorded(record) > seen)?;
        // What they do once after their start, such as making a guardian, is over then.
        std::thread::sleep(CALM);
        Ok(Self { first, second, recorder })
    }

    /// Ends the recording; returns what is in it.
    pub(super) fn adverts(&mut self, lab: &Lab, record: &str) -> io::Result<Vec<Seen>> {
        let _ = kill_process(self.recorder.pid(), Signal::INT);
        self.recorder.wait();
        capture::adverts(&lab.path(record))
    }

    /// Ends the recording; the routers go on.
    pub(super) fn unrecorded(mut self) -> (Job, Job) {
        let _ = kill_process(self.recorder.pid(), Signal::INT);
        self.recorder.wait();
        (self.first, self.second)
    }
}

const RECORD: &str = "b.pcap";

fn takeover(lab: &Lab, kind: Kind, round: Round, service: &mut Job) -> io::Result<Run> {
    let Round { mode, scenario, number } = round;
    let extras = scenario.extras(kind);
    let hands = lab.hands();
    lab.clean()?;
    if service.has_ended() {
        *service = lab.serve("a")?;
    }
    drop(hands);
    let mut pair = Pair::start(lab, kind, mode, extras, RECORD)?;
    let hands = lab.hands();
    let mut asking = lab.probe("c", "ask 20", Some("answers"))?;
    let dies = scenario == Scenario::Worker && extras.has_pool;
    let mut ender = dies.then(|| Ender::new(pair.first.pid(), WORKER)).transpose()?;
    drop(hands);
    wait("an answer", Duration::from_secs(10), || first_answer(lab, 'A', 0).is_some())?;
    // At any phase of the timers, the same for every kind.
    let phase = mode.interval() + Duration::from_secs(u64::from(extras.check_every));
    let part = (number as u32 * 7 + 3) % 20;
    std::thread::sleep(Duration::from_millis(100) + phase * part / 20);
    let since = happen(lab, scenario, &pair.first, ender.as_mut(), service)?;
    let answered = wait("the second router's answer", Duration::from_secs(9), || {
        first_answer(lab, 'B', since).is_some()
    });
    std::thread::sleep(Duration::from_millis(50));
    if scenario == Scenario::LinkDown {
        lab.ip("x", "link set pa up")?;
    }
    let left = lab.has("a");
    let _ = kill_process(asking.pid(), Signal::KILL);
    asking.wait();
    answered?;
    let seen = capture::takeover(&pair.adverts(lab, RECORD)?, 1, 2);
    let answer = first_answer(lab, 'B', since).unwrap_or(since);
    let Some(Takeover { waited_ms, after_goodbye }) = seen else {
        return Err(io::Error::other("no takeover was recorded"));
    };
    let answer_ms = (answer - since) as f64 / 1e6;
    Ok(Run { answer_ms, waited_ms, after_goodbye, left })
}

/// Lets it happen; returns when, nanoseconds of the clock that all processes share.
fn happen(
    lab: &Lab,
    scenario: Scenario,
    first: &Job,
    ender: Option<&mut Ender>,
    service: &mut Job,
) -> io::Result<i64> {
    let family = first.family();
    let since = now_ns();
    let kill = |signal| kill_process(first.pid(), signal).map_err(io::Error::from);
    match (scenario, ender) {
        (_, Some(ender)) => return ender.end(),
        (Scenario::KillAll, None) => {
            // Stopped first: a child of either program speaks when its parent dies.
            kill(Signal::STOP)?;
            for pid in family.iter().rev() {
                let _ = kill_process(*pid, Signal::KILL);
            }
        }
        (Scenario::KillParent, None) => kill(Signal::KILL)?,
        (Scenario::KillVrrp, None) => {
            let victim = if first.is_ours() {
                first.pid()
            } else {
                family.last().copied().unwrap_or_else(|| first.pid())
            };
            kill_process(victim, Signal::KILL)?;
        }
        (Scenario::LinkDown, None) => drop(lab.ip("x", "link set pa down")?),
        (Scenario::Terminate, None) => kill(Signal::TERM)?,
        (Scenario::Stop, None) => {
            for pid in family {
                kill_process(pid, Signal::STOP)?;
            }
        }
        (Scenario::Drain, None) if first.is_ours() => lab.tell("a", "drain node")?,
        (Scenario::Track1 | Scenario::Track2 | Scenario::Drain | Scenario::Worker, None) => {
            kill_process(service.pid(), Signal::KILL)?;
            service.wait();
        }
    }
    Ok(since)
}

/// Returns when the first answer by a router came that was sent for after `since`.
fn first_answer(lab: &Lab, letter: char, since: i64) -> Option<i64> {
    let text = fs::read_to_string(lab.path("answers")).ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split(' ');
        let came: i64 = words.next()?.parse().ok()?;
        let _asked = words.next()?;
        (words.next()? == letter.to_string() && came > since).then_some(came)
    })
}
