//! Times of the virtual routers, side by side with keepalived: how long clients wait for a takeover,
//! how exact its timers are, whether an undisturbed pair stays undisturbed under load, and what it
//! costs.
//!
//! Everything happens in network namespaces that are made and removed here. The protocol's timers
//! are keepalived's and the same for everybody.

pub mod calm;
pub mod capture;
pub mod lab;
pub mod probe;
pub mod report;
pub mod runs;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use crate::process::find;
use crate::targets::{build_ringkeeper, target_folder};
use calm::Calm;
use lab::{Kind, Lab, Mode};
use runs::Scenario;

pub use probe::PROBE;

const HELP: &str = "\
cargo bench --bench vrrp -- [OPTIONS]

Needs root (or `unshare -Urnm` with a tmpfs on /run), ip, tcpdump, keepalived, and python3 for
`worker`.

  --runs N             runs of each cell, interleaved (default 20; the first line of `silence`
                       has 40)
  --lanes N            labs of two routers and a client each that are at work at a time (default 4);
                       load and cost are measured with one when they are done
  --quick              3 runs, short looks at load and cost; for a look, not for a figure
  --modes A,B          of v2-1, v3-0.1, v3-0.01 (default: all)
  --scenarios A,B      of kill9-all, kill9-parent, kill9-vrrp, linkdown, sigterm, sigstop, track1,
                       track2, drain, worker (default: all); none for none
  --kinds A,B          of uring, tokio, keepalived (default: uring, keepalived)
  --no-calm            leave out load and cost
  --ringkeeper FILE    this program, not target/release/ringkeeper, and build nothing
";

/// Labs at work at a time, if nothing else is said: two cores are idle for most of the time then.
const LANES: usize = 4;

/// More would measure each other.
const LANES_MAX: usize = 16;

/// What the command line asks for.
pub struct Options {
    /// Runs of each cell.
    pub runs: usize,
    /// Labs at work at a time.
    pub lanes: usize,
    /// Protocols and timers.
    pub modes: Vec<Mode>,
    /// What happens.
    pub scenarios: Vec<Scenario>,
    /// To whom.
    pub kinds: Vec<Kind>,
    /// How long undisturbed pairs are watched; none: not at all.
    pub calm: Option<Calm>,
    /// Another program than the release build.
    pub ringkeeper: Option<PathBuf>,
}

fn pick<T: Copy>(
    text: &str,
    all: &[T],
    name: impl Fn(&T) -> &'static str,
) -> Result<Vec<T>, String> {
    let one = |word: &str| {
        let found = all.iter().find(|one| name(one) == word).copied();
        found.ok_or_else(|| format!("there is no {word}"))
    };
    if text == "none" { Ok(Vec::new()) } else { text.split(',').map(one).collect() }
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            runs: 20,
            lanes: LANES,
            modes: Mode::ALL.to_vec(),
            scenarios: Scenario::ALL.to_vec(),
            kinds: vec![Kind::Uring, Kind::Genuine],
            calm: Some(Calm::FULL),
            ringkeeper: None,
        };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                // Cargo adds it.
                "--bench" => {}
                "--help" | "-h" => return Ok(None),
                "--runs" => {
                    options.runs = value()?.parse().map_err(|_| "--runs needs a number")?;
                }
                "--lanes" => {
                    options.lanes = value()?.parse().map_err(|_| "--lanes needs a number")?;
                    if !(1..=LANES_MAX).contains(&options.lanes) {
                        return Err(format!("--lanes needs a number from 1 to {LANES_MAX}"));
                    }
                }
                "--quick" => (options.runs, options.calm) = (3, Some(Calm::QUICK)),
                "--modes" => options.modes = pick(&value()?, &Mode::ALL, |one| one.name)?,
                "--scenarios" => {
                    options.scenarios = pick(&value()?, &Scenario::ALL, |one| one.name())?;
                }
                "--kinds" => options.kinds = pick(&value()?, &Kind::ALL, |one| one.name())?,
                "--no-calm" => options.calm = None,
                "--ringkeeper" => options.ringkeeper = Some(value()?.into()),
                _ => return Err(format!("unknown option {name}")),
            }
        }
        Ok(Some(options))
    }
}

/// Runs one of the programs that belong into a namespace.
pub fn probe(words: &[String]) -> ExitCode {
    probe::main(words)
}

/// Runs the benchmark with the options of the command line; prints tables, writes JSON.
pub fn main() -> Result<(), String> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        println!("{HELP}");
        return Ok(());
    };
    run(&options).map_err(|error| error.to_string())
}

fn run(options: &Options) -> io::Result<()> {
    let mut needed = vec!["ip", "tcpdump", "keepalived"];
    if options.scenarios.contains(&Scenario::Worker) {
        needed.push("python3");
    }
    let missing: Vec<&str> = needed.into_iter().filter(|name| find(name).is_none()).collect();
    if !missing.is_empty() {
        return Err(io::Error::other(format!("needed and not here: {}", missing.join(", "))));
    }
    let ringkeeper = match &options.ringkeeper {
        Some(path) => path.canonicalize()?,
        None => {
            build_ringkeeper()?;
            target_folder().join("release/ringkeeper")
        }
    };
    let folder = target_folder().join("vrrp-bench");
    let hands = Arc::new(Mutex::new(()));
    let report = Mutex::new(report::Report::begin());
    {
        let make = |number| Lab::new(&folder, &ringkeeper, number, &hands);
        let labs = (0..options.lanes).map(make).collect::<io::Result<Vec<_>>>()?;
        runs::takeovers(&labs, options, &report)?;
    }
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(calm) = options.calm {
        let lab = Lab::new(&folder, &ringkeeper, options.lanes, &hands)?;
        calm::calm(&lab, options, calm, &mut report)?;
    }
    let text = report.finish();
    println!("{text}");
    let file = target_folder().join("vrrp.json");
    std::fs::write(&file, report.json())?;
    println!("\neach run: {}", file.display());
    Ok(())
}
