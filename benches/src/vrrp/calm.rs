//! Undisturbed pairs: what they cost beside the least that their work costs, and how they stand
//! load.

use std::io;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use super::Options;
use super::capture;
use super::lab::{Extras, Job, Kind, Lab, Mode, wait};
use super::probe::now_ns;
use super::report::{Quiet, Report};
use super::runs::{CALM, Pair};
use crate::process::metered;

/// How long an undisturbed pair is watched.
#[derive(Clone, Copy, Debug)]
pub struct Calm {
    /// Seconds with programs that take all cores.
    pub loaded: u64,
    /// Rounds of counting what it costs, all parties taking turns.
    pub rounds: usize,
    /// Seconds of counting in each.
    pub counted: u64,
}

impl Calm {
    /// For a figure.
    pub const FULL: Self = Self { loaded: 60, rounds: 7, counted: 4 };
    /// For a look.
    pub const QUICK: Self = Self { loaded: 5, rounds: 2, counted: 2 };
}

/// Whose cost is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// A router's.
    Router(Kind),
    /// A loop's that sleeps and does what nobody can leave out: what it takes is what this machine
    /// asks for it, whatever the program.
    Least {
        /// Whether it sends the advert, as to a router that hears it. Else it only sleeps.
        sends: bool,
    },
}

impl Party {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Router(kind) => kind.name(),
            Self::Least { sends: true } => "sleep and send alone",
            Self::Least { sends: false } => "sleep alone",
        }
    }

    /// Starts it, and waits until it does what it does all the time. Nobody records it then: that
    /// would be work of the one who sends.
    fn start(self, lab: &Lab) -> io::Result<(Job, Option<Job>)> {
        let limit = Duration::from_secs(10);
        match self {
            Self::Router(kind) => {
                let pair = Pair::start(lab, kind, Mode::ALL[2], Extras::default(), RECORD)?;
                let (first, second) = pair.unrecorded();
                Ok((first, Some(second)))
            }
            Self::Least { sends: true } => {
                let second = lab.least("b", "hear")?;
                let mut recorder = lab.record("b", RECORD)?;
                let seen = lab.recorded(RECORD);
                let first = lab.least("a", "beat send")?;
                wait("an advert", limit, || lab.recorded(RECORD) > seen)?;
                let _ = kill_process(recorder.pid(), Signal::INT);
                recorder.wait();
                std::thread::sleep(CALM);
                Ok((first, Some(second)))
            }
            Self::Least { sends: false } => {
                let first = lab.least("a", "beat")?;
                std::thread::sleep(CALM);
                Ok((first, None))
            }
        }
    }
}

/// Shares of a core at 0.01 s, one for each round.
pub struct Cost {
    /// Whose.
    pub party: Party,
    /// The one's that sends.
    pub active: Vec<f64>,
    /// The one's that hears; empty where there is none.
    pub backup: Vec<f64>,
}

/// Programs that take all the time that they get.
const HOGS: usize = 8;

const RECORD: &str = "calm.pcap";

/// Time on a core of a program and all that came of it, nanoseconds.
fn spent(job: &Job) -> u64 {
    let each = job.family().into_iter();
    each.filter_map(|pid| metered(pid.as_raw_nonzero().get().unsigned_abs()).ok())
        .map(|metered| metered.cpu_ns)
        .sum()
}

/// Watches undisturbed pairs: for what they cost, and under load. Nothing else happens meanwhile.
pub fn calm(lab: &Lab, options: &Options, calm: Calm, report: &mut Report) -> io::Result<()> {
    let mut costs: Vec<Cost> = parties(options)
        .map(|party| Cost { party, active: Vec::new(), backup: Vec::new() })
        .collect();
    for _ in 0..calm.rounds {
        for cost in &mut costs {
            count(lab, calm, cost)?;
        }
        // Whoever was first is last the next time.
        costs.rotate_left(1);
    }
    for party in parties(options) {
        report.costs.extend(costs.extract_if(.., |cost| cost.party == party));
    }
    for &kind in &options.kinds {
        report.quiets.push(load(lab, kind, calm)?);
    }
    Ok(())
}

fn parties(options: &Options) -> impl Iterator<Item = Party> {
    let least = [true, false].map(|sends| Party::Least { sends });
    options.kinds.iter().map(|&kind| Party::Router(kind)).chain(least)
}

/// Counts what one of them costs.
fn count(lab: &Lab, calm: Calm, cost: &mut Cost) -> io::Result<()> {
    lab.clean()?;
    let (mut first, mut second) = cost.party.start(lab)?;
    let all = |first: &Job, second: &Option<Job>| (spent(first), second.as_ref().map(spent));
    let (since, before) = (now_ns(), all(&first, &second));
    std::thread::sleep(Duration::from_secs(calm.counted));
    let (after, window) = (all(&first, &second), (now_ns() - since) as f64);
    if first.has_ended() || second.as_mut().is_some_and(Job::has_ended) {
        return Err(io::Error::other(format!("{} has ended", cost.party.name())));
    }
    cost.active.push((after.0 - before.0) as f64 / window);
    let heard = after.1.zip(before.1).map(|(after, before)| (after - before) as f64 / window);
    cost.backup.extend(heard);
    Ok(())
}

/// Watches a pair beside programs that take all that they get.
fn load(lab: &Lab, kind: Kind, calm: Calm) -> io::Result<Quiet> {
    lab.clean()?;
    let mut pair = Pair::start(lab, kind, Mode::ALL[2], Extras::default(), RECORD)?;
    let hogs: Vec<Job> =
        (0..HOGS).map(|_| lab.probe("c", "burn", None)).collect::<io::Result<_>>()?;
    std::thread::sleep(Duration::from_secs(calm.loaded));
    drop(hogs);
    let adverts: Vec<capture::Seen> = pair.adverts(lab, RECORD)?;
    let spurious = adverts
        .windows(2)
        .filter(|pair| pair[0].from == 1 && pair[1].from == 2 && pair[1].priority > 0)
        .count();
    let times: Vec<f64> =
        adverts.iter().filter(|seen| seen.from == 1).map(|seen| seen.at_ms).collect();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    // Ours says so; keepalived was told a priority, and is as the system lets it be.
    let is_realtime = kind == Kind::Genuine || lab.log("b").contains("thread is real-time");
    Ok(Quiet { kind, seconds: calm.loaded, spurious, longest, is_realtime })
}
