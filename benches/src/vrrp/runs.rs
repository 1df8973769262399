//! The runs: a pair of routers, something that happens to the first one, and what is seen.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use super::Options;
use super::capture::{self, Takeover};
use super::lab::{ADDRESS, Extras, Job, Kind, Lab, Mode, wait};
use super::probe::now_ns;
use super::report::{Cost, Quiet, Report, Run};
use crate::process::metered;

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
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::KillAll,
        Self::KillParent,
        Self::KillVrrp,
        Self::LinkDown,
        Self::Terminate,
        Self::Stop,
        Self::Track1,
        Self::Track2,
        Self::Drain,
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
        }
    }

    /// Seconds between checks of the service.
    pub const fn check_every(self) -> u32 {
        match self {
            Self::Track1 => 1,
            Self::Track2 => 2,
            Self::KillAll
            | Self::KillParent
            | Self::KillVrrp
            | Self::LinkDown
            | Self::Terminate
            | Self::Stop
            | Self::Drain => 0,
        }
    }

    /// Whether the second router only has silence to go by.
    pub const fn is_silent(self) -> bool {
        matches!(self, Self::KillAll | Self::LinkDown | Self::Stop)
    }
}

/// How long an undisturbed pair is watched.
#[derive(Clone, Copy, Debug)]
pub struct Calm {
    /// Seconds with programs that take all cores.
    pub loaded: u64,
    /// Seconds of counting what it costs.
    pub counted: u64,
}

impl Calm {
    /// For a figure.
    pub const FULL: Self = Self { loaded: 60, counted: 20 };
    /// For a look.
    pub const QUICK: Self = Self { loaded: 5, counted: 5 };
}

/// Programs that take all the time that they get.
const HOGS: usize = 8;

/// Runs of the cell that shows how exact the timers are.
const EXACT_RUNS: usize = 40;

/// Makes all runs, kinds taking turns.
pub fn takeovers(lab: &Lab, options: &Options, report: &mut Report) -> io::Result<()> {
    for &mode in &options.modes {
        for &scenario in &options.scenarios {
            let is_exact = scenario == Scenario::KillAll && options.runs >= 20;
            let runs = if is_exact { options.runs.max(EXACT_RUNS) } else { options.runs };
            for number in 0..runs {
                let mut kinds = options.kinds.clone();
                let turn = number % kinds.len().max(1);
                kinds.rotate_left(turn);
                for kind in kinds {
                    match takeover(lab, kind, mode, scenario, number) {
                        Ok(run) => report.add(kind, mode, scenario, run),
                        Err(error) => report.problem(format!(
                            "{} {} {} run {number}: {error}",
                            mode.name,
                            scenario.name(),
                            kind.name()
                        )),
                    }
                }
            }
            report.progress(mode, scenario);
        }
    }
    Ok(())
}

/// Waits until the first router has the address and the second has heard it.
fn settle(lab: &Lab, mode: Mode) -> io::Result<()> {
    wait("the first router's address", Duration::from_secs(15), || lab.has("a") && !lab.has("b"))?;
    std::thread::sleep(mode.interval() + Duration::from_millis(300));
    Ok(())
}

fn takeover(
    lab: &Lab,
    kind: Kind,
    mode: Mode,
    scenario: Scenario,
    number: usize,
) -> io::Result<Run> {
    let is_ours = kind != Kind::Genuine;
    let is_drain = scenario == Scenario::Drain;
    let check_every = if is_drain && !is_ours { 1 } else { scenario.check_every() };
    let extras = Extras { check_every, has_pool: is_drain && is_ours };
    for letter in ["a", "b"] {
        let _ = lab.ip(letter, &format!("addr del {ADDRESS}/24 dev e0"));
    }
    let _ = lab.ip("c", "neigh flush all");
    let mut service = lab.probe("a", "serve", None)?;
    let _others = [
        lab.probe("b", "serve", None)?,
        lab.probe("a", "echo A", None)?,
        lab.probe("b", "echo B", None)?,
    ];
    let first = lab.router("a", kind, mode, extras)?;
    std::thread::sleep(Duration::from_millis(300));
    let _second = lab.router("b", kind, mode, extras)?;
    settle(lab, mode)?;
    let recorder = lab.record("b", "b.pcap")?;
    let mut asking = lab.probe("c", "ask 12", Some("answers"))?;
    wait("an answer", Duration::from_secs(10), || first_answer(lab, 'A', 0).is_some())?;
    // At any phase of the timers, the same for every kind.
    let phase = mode.interval() + Duration::from_secs(u64::from(check_every));
    let part = (number as u32 * 7 + 3) % 20;
    std::thread::sleep(Duration::from_millis(100) + phase * part / 20);
    let since = now_ns();
    happen(lab, scenario, &first, &mut service)?;
    let answered = wait("the second router's answer", Duration::from_secs(9), || {
        first_answer(lab, 'B', since).is_some()
    });
    std::thread::sleep(Duration::from_millis(50));
    if scenario == Scenario::LinkDown {
        lab.ip("x", "link set pa up")?;
    }
    let left = lab.has("a");
    let _ = kill_process(recorder.pid(), Signal::INT);
    let _ = kill_process(asking.pid(), Signal::KILL);
    asking.wait();
    answered?;
    std::thread::sleep(Duration::from_millis(20));
    let adverts = capture::adverts(&lab.path("b.pcap"))?;
    let seen = capture::takeover(&adverts, 1, 2);
    let answer = first_answer(lab, 'B', since).unwrap_or(since);
    let Some(Takeover { waited_ms, after_goodbye }) = seen else {
        return Err(io::Error::other("no takeover was recorded"));
    };
    let answer_ms = (answer - since) as f64 / 1e6;
    Ok(Run { answer_ms, waited_ms, after_goodbye, left })
}

fn happen(lab: &Lab, scenario: Scenario, first: &Job, service: &mut Job) -> io::Result<()> {
    let family = first.family();
    let kill = |signal| kill_process(first.pid(), signal).map_err(io::Error::from);
    match scenario {
        Scenario::KillAll => {
            // Stopped first: a child of either program speaks when its parent dies.
            kill(Signal::STOP)?;
            for pid in family.iter().rev() {
                let _ = kill_process(*pid, Signal::KILL);
            }
            Ok(())
        }
        Scenario::KillParent => kill(Signal::KILL),
        Scenario::KillVrrp => {
            let victim = if first.is_ours() {
                first.pid()
            } else {
                family.last().copied().unwrap_or_else(|| first.pid())
            };
            kill_process(victim, Signal::KILL).map_err(io::Error::from)
        }
        Scenario::LinkDown => lab.ip("x", "link set pa down").map(drop),
        Scenario::Terminate => kill(Signal::TERM),
        Scenario::Stop => {
            for pid in family {
                kill_process(pid, Signal::STOP)?;
            }
            Ok(())
        }
        Scenario::Drain if first.is_ours() => lab.tell("a", "drain node"),
        Scenario::Track1 | Scenario::Track2 | Scenario::Drain => {
            kill_process(service.pid(), Signal::KILL)?;
            service.wait();
            Ok(())
        }
    }
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

/// Watches undisturbed pairs: under load, and for what they cost.
pub fn calm(lab: &Lab, options: &Options, calm: Calm, report: &mut Report) -> io::Result<()> {
    for &kind in &options.kinds {
        let mode = Mode::ALL[2];
        let first = lab.router("a", kind, mode, Extras::default())?;
        std::thread::sleep(Duration::from_millis(300));
        let second = lab.router("b", kind, mode, Extras::default())?;
        settle(lab, mode)?;
        let spent = |job: &Job| -> u64 {
            let each = job.family().into_iter();
            each.filter_map(|pid| metered(pid.as_raw_nonzero().get().unsigned_abs()).ok())
                .map(|metered| metered.cpu_ns)
                .sum()
        };
        let before = (now_ns(), spent(&first), spent(&second));
        std::thread::sleep(Duration::from_secs(calm.counted));
        let window = (now_ns() - before.0) as f64;
        report.cost(Cost {
            kind,
            active: (spent(&first) - before.1) as f64 / window,
            backup: (spent(&second) - before.2) as f64 / window,
        });
        let recorder = lab.record("b", "calm.pcap")?;
        let hogs: Vec<Job> =
            (0..HOGS).map(|_| lab.probe("c", "burn", None)).collect::<io::Result<_>>()?;
        std::thread::sleep(Duration::from_secs(calm.loaded));
        drop(hogs);
        let _ = kill_process(recorder.pid(), Signal::INT);
        std::thread::sleep(Duration::from_millis(100));
        let adverts = capture::adverts(&lab.path("calm.pcap"))?;
        let spurious = adverts
            .windows(2)
            .filter(|pair| pair[0].from == 1 && pair[1].from == 2 && pair[1].priority > 0)
            .count();
        let times: Vec<f64> =
            adverts.iter().filter(|seen| seen.from == 1).map(|seen| seen.at_ms).collect();
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        report.quiet(Quiet { kind, seconds: calm.loaded, spurious, longest });
    }
    Ok(())
}
