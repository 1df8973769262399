//! Failovers as clients see them: this product beside nutcracker, redis-sentinel, keepalived and a
//! script that joins them, on the same machine and in turns.
//!
//! Each run is a laboratory, the one of `ringkeeper lab`: three nodes, six Redis servers and eight
//! clients that write through the shared address and look for everything that was acknowledged. What
//! wants the same settings happens in one laboratory, in turns; each event begins when all has healed
//! of the one before. What is measured here can be had by hand: the commands are printed.

pub mod modes;
pub mod report;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::process::find;
use crate::targets::{build_ringkeeper, target_folder};
use modes::{Laboratory, Mode, Stack};
use report::Report;

const HELP: &str = "\
cargo bench --bench failover -- [OPTIONS]

Needs redis-server, nutcracker, keepalived, iproute2 and iptables, and root or the right to make
namespaces.

  --events N           events of each kind and stack (default 10)
  --rounds N           laboratories that they are spread over, in which the stacks take turns (default 2)
  --quick              one event of each kind; for a look, not for a figure
  --only A,B           of fast, silence, plan, stop, proxy, host-0.01, host-0.1, replicated, cost
                       (default: all); also --modes
  --stacks A,B         of uring, tokio, glued (default: all)
  --ringkeeper FILE    this program, not target/release/ringkeeper, and build nothing
";

/// Laboratories that make up for what others did not come to, because something did not heal.
const REPEATS_MAX: usize = 2;

/// What the command line asks for.
pub struct Options {
    /// Laboratories of each kind.
    pub rounds: usize,
    /// Events of each mode and stack, in all of them together.
    pub events: usize,
    /// What is measured.
    pub modes: Vec<Mode>,
    /// Of whom.
    pub stacks: Vec<Stack>,
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
    text.split(',').map(one).collect()
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            rounds: 2,
            events: 10,
            modes: Mode::ALL.to_vec(),
            stacks: Stack::ALL.to_vec(),
            ringkeeper: None,
        };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            let number = |text: String| match text.parse::<usize>() {
                Ok(number) if number > 0 => Ok(number),
                Ok(_) | Err(_) => Err(format!("{name} needs a number")),
            };
            match name.as_str() {
                // Cargo adds it.
                "--bench" => {}
                "--help" | "-h" => return Ok(None),
                "--rounds" => options.rounds = number(value()?)?,
                "--events" => options.events = number(value()?)?,
                "--quick" => (options.rounds, options.events) = (1, 1),
                "--only" | "--modes" => {
                    options.modes = pick(&value()?, &Mode::ALL, |one| one.name())?
                }
                "--stacks" => options.stacks = pick(&value()?, &Stack::ALL, |one| one.name())?,
                "--ringkeeper" => options.ringkeeper = Some(value()?.into()),
                _ => return Err(format!("unknown option {name}")),
            }
        }
        Ok(Some(options))
    }
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
    let needed = ["redis-server", "nutcracker", "keepalived", "ip", "iptables"];
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
    let folder = target_folder().join("failover-bench");
    fs::create_dir_all(&folder)?;
    // Names of sockets must not be long.
    let folder = folder.canonicalize()?;
    let mut report = Report::begin();
    let mut laboratories = Laboratory::all(&options.modes, &options.stacks);
    for round in 1..=options.rounds + REPEATS_MAX {
        // After the last round what is still missing is made up for.
        let wanted = (options.events * round).div_ceil(options.rounds).min(options.events);
        for one in &laboratories {
            let missing = wanted.saturating_sub(report.least(one));
            if missing > 0 {
                measure(&ringkeeper, &folder, one, missing, &mut report);
            }
        }
        // Whoever was first is last in the next round.
        if !laboratories.is_empty() {
            laboratories.rotate_left(1);
        }
    }
    println!("{}", report.finish());
    let file = target_folder().join("failover.json");
    fs::write(&file, report.json())?;
    println!("\neach event: {}", file.display());
    Ok(())
}

/// Runs a laboratory and takes in what it saw.
fn measure(program: &Path, folder: &Path, one: &Laboratory, rounds: usize, report: &mut Report) {
    let words = one.command(rounds);
    eprintln!("ringkeeper {words}");
    let since = Instant::now();
    match laboratory(program, folder, &words) {
        Ok(seen) => report.add(one, &seen),
        Err(error) => report.problem(format!("{words}: {error}")),
    }
    eprintln!("  {} s", since.elapsed().as_secs());
}

/// Runs a laboratory; returns what it saw.
fn laboratory(ringkeeper: &Path, folder: &Path, words: &str) -> io::Result<Value> {
    let (place, result) = (folder.join("lab"), folder.join("result.json"));
    let _ = fs::remove_file(&result);
    let mut command = Command::new(ringkeeper);
    command.args(words.split_whitespace()).args(["--network", "namespaces", "--port", "0"]);
    command.arg("--folder").arg(place).arg("--json").arg(&result).stdin(Stdio::null());
    let output = command.output()?;
    // Also when something has not healed there is a result, which says so.
    let text = fs::read_to_string(&result)
        .map_err(|_| io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))?;
    serde_json::from_str(&text).map_err(io::Error::other)
}
