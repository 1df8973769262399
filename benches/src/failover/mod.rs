//! Failovers as clients see them: this product beside nutcracker, redis-sentinel, keepalived and a
//! script that joins them, on the same machine and in turns.
//!
//! Each run is a laboratory of its own, the one of `ringkeeper lab`: three nodes, six Redis servers
//! and eight clients that write through the shared address and look for everything that was
//! acknowledged. What is measured here can be had by hand: the commands are printed.

pub mod modes;
pub mod report;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::find;
use crate::targets::{build_ringkeeper, target_folder};
use modes::{Mode, Stack};
use report::Report;

const HELP: &str = "\
cargo bench --bench failover -- [OPTIONS]

Needs redis-server, nutcracker, keepalived, iproute2 and iptables, and root or the right to make
namespaces.

  --rounds N           laboratories of each cell, in turns (default 5)
  --events N           events in each of them (default 4; `replicated` has ten times as many)
  --quick              one laboratory with one event each; for a look, not for a figure
  --modes A,B          of fast, silence, plan, stop, proxy, host-0.01, host-0.1, replicated, cost
                       (default: all)
  --stacks A,B         of uring, tokio, glued (default: all)
  --ringkeeper FILE    this program, not target/release/ringkeeper, and build nothing
";

/// What the command line asks for.
pub struct Options {
    /// Laboratories of each cell.
    pub rounds: usize,
    /// Events in each.
    pub events: usize,
    /// Whether it is only for a look.
    pub is_quick: bool,
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
            rounds: 5,
            events: 4,
            is_quick: false,
            modes: Mode::ALL.to_vec(),
            stacks: Stack::ALL.to_vec(),
            ringkeeper: None,
        };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            let number = |text: String| text.parse().map_err(|_| format!("{name} needs a number"));
            match name.as_str() {
                // Cargo adds it.
                "--bench" => {}
                "--help" | "-h" => return Ok(None),
                "--rounds" => options.rounds = number(value()?)?,
                "--events" => options.events = number(value()?)?,
                "--quick" => (options.rounds, options.events, options.is_quick) = (1, 1, true),
                "--modes" => options.modes = pick(&value()?, &Mode::ALL, |one| one.name())?,
                "--stacks" => options.stacks = pick(&value()?, &Stack::ALL, |one| one.name())?,
                "--ringkeeper" => options.ringkeeper = Some(value()?.into()),
                _ => return Err(format!("unknown option {name}")),
            }
        }
        Ok(Some(options))
    }

    fn events_of(&self, mode: Mode) -> usize {
        // One look at what commands cost is as good as several.
        if mode == Mode::Cost {
            1
        } else if mode == Mode::Replicated && !self.is_quick {
            10 * self.events
        } else {
            self.events
        }
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
    for &mode in &options.modes {
        for round in 0..options.rounds {
            let mut cells: Vec<(Stack, bool)> =
                options.stacks.iter().flat_map(|stack| mode.cells(*stack)).collect();
            let turn = round % cells.len().max(1);
            cells.rotate_left(turn);
            for (stack, is_replicated) in cells {
                let words = words(mode, stack, is_replicated, options.events_of(mode));
                match laboratory(&ringkeeper, &folder, &words) {
                    Ok(seen) => report.add(mode, stack, is_replicated, &seen),
                    Err(error) => report.problem(format!("{words}: {error}")),
                }
            }
        }
        eprintln!("{} is done", mode.name());
    }
    println!("{}", report.finish());
    let file = target_folder().join("failover.json");
    fs::write(&file, report.json())?;
    println!("\neach event: {}", file.display());
    Ok(())
}

/// Returns the words of a run's command.
fn words(mode: Mode, stack: Stack, is_replicated: bool, events: usize) -> String {
    let replicated = if is_replicated { " --replicated 1" } else { "" };
    format!("lab --auto {} --rounds {events}{replicated}{}", mode.words(stack), stack.words())
}

/// Runs a laboratory; returns what it saw.
fn laboratory(ringkeeper: &Path, folder: &Path, words: &str) -> io::Result<Value> {
    eprintln!("ringkeeper {words}");
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
