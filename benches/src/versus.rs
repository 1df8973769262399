//! The side-by-side run: options, rounds, order.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::load::{Engine, Plan, Sample};
use crate::process::{LOAD_CPU, Priority, pin, raise_file_limit, settle, wait_for_quiet};
use crate::report::{DISTURBED_SHARE_MAX, Placement, Report};
use crate::targets::{Kind, RealServers, Target, build_ringkeeper, target_folder, version};
use crate::turns::Turns;
use crate::workload::Workload;

/// Servers behind every proxy.
const SERVERS: usize = 2;
/// How long a cell waits for other programs to leave the cores alone.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most requests in one run, whatever the time.
const REQUESTS_MAX: u64 = 50_000_000;

const HELP: &str = "\
cargo bench --bench versus -- [OPTIONS]

  --rounds N           rounds (default 7)
  --quick              3 rounds of 0.25 s; for a look, not for a figure
  --window SECONDS     measured time per cell (default 0.7)
  --only a,c,b,...     these workloads only
  --targets A,B        of nutcracker, uring, uring-bare (--figures off), tokio, direct (default:
                       all of these), and uring-2, tokio-2: two workers on both cores;
                       uring-apart, tokio-apart: two processes of one worker there;
                       nutcracker-apart: two nutcrackers there; uring-beside, uring-2-beside,
                       nutcracker-beside: one worker, two, and nutcracker on the load's core
  --target-command NAME=COMMAND
                       one more target; {conf} in the command is the configuration file, which
                       it must serve as nutcracker would (again for each further one)
  --placement NAME     saturated, memcached or real (default: all of these), or turns: as
                       saturated, with both cores by turns to the load and to the proxy, for
                       uring, uring-2, tokio and tokio-2 (needs the right to real-time priority)
  --tries N            tries for a cell that other programs disturbed (default 3)
  --spin               the generator polls instead of sleeping
  --priority           nice -20 for load, servers and proxies alike, against other programs
                       on the same cores (needs the right to it)
  --no-build           take target/release/ringkeeper as it is
";

struct Options {
    rounds: usize,
    window: Duration,
    only: Option<Vec<String>>,
    targets: Vec<Kind>,
    placements: Vec<Placement>,
    tries: usize,
    spin: bool,
    priority: bool,
    build: bool,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            rounds: 7,
            window: Duration::from_millis(700),
            only: None,
            targets: Kind::ALL.to_vec(),
            placements: Placement::USUAL.to_vec(),
            tries: 3,
            spin: false,
            priority: false,
            build: true,
        };
        let mut arguments = arguments;
        let mut others = Vec::new();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                // Cargo adds it.
                "--bench" => {}
                "--help" | "-h" => return Ok(None),
                "--quick" => {
                    options.rounds = 3;
                    options.window = Duration::from_millis(250);
                }
                "--rounds" => options.rounds = number(&name, &value()?, 1.0, 1000.0)? as usize,
                "--window" => {
                    let seconds = number(&name, &value()?, 0.05, 60.0)?;
                    options.window = Duration::from_secs_f64(seconds);
                }
                "--only" => {
                    options.only = Some(value()?.split(',').map(str::to_owned).collect());
                }
                "--targets" => options.targets = kinds(&value()?)?,
                "--target-command" => others.push(Kind::parse_other(&value()?)?),
                "--placement" => options.placements = vec![placement(&value()?)?],
                "--tries" => options.tries = number(&name, &value()?, 1.0, 20.0)? as usize,
                "--spin" => options.spin = true,
                "--priority" => options.priority = true,
                "--no-build" => options.build = false,
                _ => return Err(format!("unknown option {name}")),
            }
        }
        // Beside those of --targets, wherever that stands.
        options.targets.extend(others);
        Ok(Some(options))
    }
}

fn number(name: &str, text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{name} needs a number from {least} to {most}"))
}

fn kinds(text: &str) -> Result<Vec<Kind>, String> {
    let kind = |name: &str| {
        let found = Kind::NAMED.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("unknown target {name}"))
    };
    text.split(',').map(kind).collect()
}

fn placement(text: &str) -> Result<Placement, String> {
    Placement::ALL
        .into_iter()
        .find(|placement| placement.name() == text)
        .ok_or_else(|| format!("unknown placement {text}"))
}

/// Runs the benchmark with the options of the command line; prints tables, writes JSON.
pub fn main() -> Result<(), String> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        println!("{HELP}");
        return Ok(());
    };
    run(options).map_err(|error| error.to_string())
}

fn run(mut options: Options) -> io::Result<()> {
    if std::thread::available_parallelism()?.get() < 2 {
        return Err(io::Error::other("two cores are needed: one for the load, one for the proxy"));
    }
    raise_file_limit(4096)?;
    let mut report = Report::default();
    if options.build && options.targets.iter().any(|kind| kind.is_ringkeeper()) {
        build_ringkeeper()?;
    }
    pin(LOAD_CPU)?;
    let _priority = options.priority.then(Priority::raise).transpose()?;
    let folder = target_folder().join("versus");
    fs::create_dir_all(&folder)?;
    let mut engine = Engine::new(SERVERS)?;
    engine.spin = options.spin;
    let mut real = None;
    if options.placements.contains(&Placement::Real) {
        real = Some(RealServers::start(SERVERS, &folder, engine.frames())?);
    }
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        for placement in options.placements.clone() {
            engine.speak(placement.protocol());
            let servers = match (placement, &mut real) {
                (Placement::Real, Some(real)) => {
                    real.check_alive()?;
                    real.addresses.clone()
                }
                _ => engine.addresses(),
            };
            let targets = start(&mut options.targets, &servers, &folder, &mut engine, &mut report)?;
            engine.turns = (placement == Placement::Turns).then(Turns::begin).transpose()?;
            run_round(round, placement, &options, targets, &mut engine, &mut report)?;
            engine.turns = None;
        }
    }
    write(&options, &report)
}

/// Starts every target afresh; one that does not start is left out from then on.
fn start(
    kinds: &mut Vec<Kind>,
    servers: &[std::net::SocketAddr],
    folder: &std::path::Path,
    engine: &mut Engine,
    report: &mut Report,
) -> io::Result<Vec<Target>> {
    let mut targets = Vec::new();
    for kind in kinds.clone() {
        match Target::start(kind, servers, folder, engine) {
            Ok(target) => targets.push(target),
            Err(error) => {
                eprintln!("{kind} is left out: {error}");
                report.problems.push(format!("{kind} is left out: {error}"));
                kinds.retain(|other| *other != kind);
            }
        }
    }
    if targets.is_empty() {
        return Err(io::Error::other("nothing to measure"));
    }
    Ok(targets)
}

fn run_round(
    round: usize,
    placement: Placement,
    options: &Options,
    mut targets: Vec<Target>,
    engine: &mut Engine,
    report: &mut Report,
) -> io::Result<()> {
    let mut workloads = placement.workloads().to_vec();
    if let Some(only) = &options.only {
        workloads.retain(|workload| only.iter().any(|name| name == workload.name));
    }
    // Another order each time, so that no target always follows the same one.
    let (by_round, targets_count) = (round % workloads.len().max(1), targets.len());
    workloads.rotate_left(by_round);
    targets.rotate_left(round % targets_count);
    let plan = Plan {
        warm_up: Duration::from_millis(100),
        window: options.window,
        requests_max: REQUESTS_MAX,
    };
    for workload in &workloads {
        for target in &targets {
            let tries = if placement.is_saturated() { options.tries } else { 1 };
            match run_undisturbed(tries, workload, target, plan, engine) {
                Ok(sample) => report.add(round, placement, workload, target.kind, sample),
                Err(error) => {
                    let (name, kind) = (workload.name, target.kind);
                    let problem = format!("round {round}, {name}, {kind}: {error}");
                    eprintln!("{problem}");
                    report.problems.push(problem);
                }
            }
        }
    }
    Ok(())
}

/// Measures again when other programs took the cores, and keeps the least disturbed run.
///
/// Only the waiting time decides, never the result.
fn run_undisturbed(
    tries: usize,
    workload: &Workload,
    target: &Target,
    plan: Plan,
    engine: &mut Engine,
) -> io::Result<Sample> {
    let mut best: Option<Sample> = None;
    for _ in 0..tries {
        wait_for_quiet(PATIENCE, &mut |time| engine.pump(time))?;
        let result = engine.run(workload, &target.addresses, plan, &|| target.metered());
        for id in target.ids() {
            // Closing hundreds of clients must not run into the next measurement.
            settle(id, Duration::from_millis(300), &mut |time| engine.pump(time))?;
        }
        let sample = result?;
        if best.as_ref().is_none_or(|best| sample.disturbance() < best.disturbance()) {
            best = Some(sample);
        }
        if best.as_ref().is_some_and(|best| best.disturbance() <= DISTURBED_SHARE_MAX) {
            break;
        }
    }
    best.ok_or_else(|| io::Error::other("no try"))
}

fn write(options: &Options, report: &Report) -> io::Result<()> {
    println!("{}", report.table());
    let versions: Vec<String> = [Kind::Nutcracker, Kind::Uring].map(version).to_vec();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let facts = json!({
        "rounds": options.rounds, "window_s": options.window.as_secs_f64(),
        "spin": options.spin, "priority": options.priority, "versions": versions, "kernel": kernel.trim(),
        "cpu": cpu_model(),
    });
    let file: PathBuf = target_folder().join("versus.json");
    fs::write(&file, serde_json::to_string_pretty(&report.json(&facts))?)?;
    println!("written: {}", file.display());
    Ok(())
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split(':').nth(1)).unwrap_or_default().trim().to_owned()
}
