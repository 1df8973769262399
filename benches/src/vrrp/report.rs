//! What was measured, as tables and as JSON.

mod promises;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};

use super::calm::Cost;
use super::lab::{Kind, Mode};
use super::runs::{Round, Scenario};
use crate::figures::{difference, ends, interval, median};

/// How far the wait for silence may be from the RFC's, milliseconds.
const EXACT_MS: f64 = 2.0;

/// One takeover.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// From what happened to the second router's first answer at the client.
    pub answer_ms: f64,
    /// From the last advert to the first of the second router, as that one saw it.
    pub waited_ms: f64,
    /// Whether a goodbye was said.
    pub after_goodbye: bool,
    /// Whether the first router still had the address at the end.
    pub left: bool,
}

/// An undisturbed pair under load.
pub struct Quiet {
    /// Which program.
    pub kind: Kind,
    /// How long it was watched.
    pub seconds: u64,
    /// Takeovers that nothing called for.
    pub spurious: usize,
    /// The longest time between two adverts, milliseconds.
    pub longest: f64,
    /// Whether it ran with the priority that it asks for.
    pub is_realtime: bool,
}

/// How the runs were made.
pub struct Lanes {
    /// Labs at work at a time.
    pub count: usize,
    /// Of the time of all cores, how much this program and what it started used.
    pub own: f64,
    /// How much was used by whomever.
    pub all: f64,
    /// How long it took.
    pub lasted: Duration,
}

/// All that was measured.
pub struct Report {
    load_before: String,
    lanes: Option<Lanes>,
    /// Rounds of each cell that are still to come.
    left: BTreeMap<(Mode, Scenario), usize>,
    runs: BTreeMap<(Mode, Scenario, Kind), Vec<Run>>,
    /// What undisturbed pairs cost.
    pub costs: Vec<Cost>,
    /// How they stood the load.
    pub quiets: Vec<Quiet>,
    problems: Vec<String>,
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// How long the second router has to wait by the RFC, milliseconds.
fn wanted_ms(mode: Mode, scenario: Scenario) -> f64 {
    if scenario.is_silent() { mode.down_ms() } else { mode.skew_ms() }
}

/// By how much it waited longer than that.
fn deviations(mode: Mode, scenario: Scenario, runs: &[Run]) -> Vec<f64> {
    let counted = runs.iter().filter(|run| run.after_goodbye != scenario.is_silent());
    counted.map(|run| run.waited_ms - wanted_ms(mode, scenario)).collect()
}

/// How many of them count as exact.
fn exact(deviations: &[f64]) -> usize {
    deviations.iter().filter(|off| off.abs() <= EXACT_MS).count()
}

impl Report {
    /// Notes how loaded the machine is before anything is measured.
    pub fn begin() -> Self {
        Self {
            load_before: load(),
            lanes: None,
            left: BTreeMap::new(),
            runs: BTreeMap::new(),
            costs: Vec::new(),
            quiets: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Notes what is going to be done.
    pub fn expect(&mut self, rounds: &[Round]) {
        for round in rounds {
            *self.left.entry((round.mode, round.scenario)).or_default() += 1;
        }
    }

    /// Takes in one run, or why it could not be measured.
    pub fn add(&mut self, kind: Kind, round: Round, run: io::Result<Run>) {
        let Round { mode, scenario, number } = round;
        match run {
            Ok(run) => self.runs.entry((mode, scenario, kind)).or_default().push(run),
            Err(error) => {
                let (mode, scenario) = (mode.name, scenario.name());
                let problem = format!("{mode} {scenario} {} run {number}: {error}", kind.name());
                eprintln!("{problem}");
                self.problems.push(problem);
            }
        }
    }

    /// Says how far it is, after each cell.
    pub fn done(&mut self, round: Round) {
        let Round { mode, scenario, .. } = round;
        let Some(left) = self.left.get_mut(&(mode, scenario)) else { return };
        *left = left.saturating_sub(1);
        if *left == 0 {
            eprintln!("{} {} is done, load {}", mode.name, scenario.name(), load());
        }
    }

    /// Notes how the runs were made.
    pub fn note_lanes(&mut self, lanes: Lanes) {
        self.lanes = Some(lanes);
    }

    fn answers(&self, mode: Mode, scenario: Scenario, kind: Kind) -> Vec<f64> {
        let runs = self.runs.get(&(mode, scenario, kind));
        runs.into_iter().flatten().map(|run| run.answer_ms).collect()
    }

    /// Writes the tables.
    pub fn finish(&self) -> String {
        let mut out = String::new();
        let (before, after) = (&self.load_before, load());
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let _ = writeln!(out, "{cores} cores; load of the machine {before} before, {after} after");
        if let Some(Lanes { count, own, all, lasted }) = &self.lanes {
            let _ = writeln!(
                out,
                "{count} labs at a time used {:.0} % of the cores, {:.0} % with everybody else, for \
                 {:.1} minutes",
                own * 100.0,
                all * 100.0,
                lasted.as_secs_f64() / 60.0
            );
        }
        out.push('\n');
        let _ = writeln!(
            out,
            "From what happened to the second router's first answer at the client, ms\n\n\
             | mode | what | router | runs | median | 95 % | least | most | address left |\n\
             | --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: |"
        );
        for (&(mode, scenario, kind), runs) in &self.runs {
            let answers = self.answers(mode, scenario, kind);
            let (low, high) = interval(&answers);
            let (least, most) = ends(&answers);
            let left = runs.iter().filter(|run| run.left).count();
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {:.1} | {low:.1} to {high:.1} | {least:.1} | {most:.1} | \
                 {left} |",
                mode.name,
                scenario.name(),
                kind.name(),
                runs.len(),
                median(&answers)
            );
        }
        self.compare(&mut out);
        self.exactness(&mut out);
        self.calm(&mut out);
        self.promises(&mut out);
        for problem in &self.problems {
            let _ = writeln!(out, "not measured: {problem}");
        }
        out
    }

    fn compare(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\nDifference of the medians to keepalived's, ms; below zero is quicker\n\n\
             | mode | what | router | difference | 95 % | |\n| --- | --- | --- | ---: | --- | --- |"
        );
        for &(mode, scenario, kind) in self.runs.keys().filter(|(.., kind)| *kind != Kind::Genuine)
        {
            let ours = self.answers(mode, scenario, kind);
            let theirs = self.answers(mode, scenario, Kind::Genuine);
            if ours.is_empty() || theirs.is_empty() {
                continue;
            }
            let (low, high) = difference(&ours, &theirs);
            let verdict = if low > 0.0 {
                "slower"
            } else if high < 0.0 {
                "quicker"
            } else {
                "no difference"
            };
            let _ = writeln!(
                out,
                "| {} | {} | {} | {:.1} | {low:.1} to {high:.1} | {verdict} |",
                mode.name,
                scenario.name(),
                kind.name(),
                median(&ours) - median(&theirs)
            );
        }
    }

    fn exactness(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\nFrom the last advert that the second router saw to its first, less what the RFC \
             says, ms\n\n\
             | mode | what | router | RFC | median | most | within 2 ms |\n\
             | --- | --- | --- | ---: | ---: | ---: | ---: |"
        );
        for (&(mode, scenario, kind), runs) in &self.runs {
            let wanted = wanted_ms(mode, scenario);
            let off = deviations(mode, scenario, runs);
            if off.is_empty() {
                continue;
            }
            let good = exact(&off);
            let most = off.iter().copied().fold(0.0, |most: f64, off| most.max(off.abs()));
            let _ = writeln!(
                out,
                "| {} | {} | {} | {wanted:.2} | {:+.2} | {most:.2} | {good} of {} |",
                mode.name,
                scenario.name(),
                kind.name(),
                median(&off),
                off.len()
            );
        }
    }

    fn calm(&self, out: &mut String) {
        if self.costs.is_empty() {
            return;
        }
        let rounds = self.costs.first().map_or(0, |cost| cost.active.len());
        let _ = writeln!(
            out,
            "\nAn undisturbed pair at 0.01 s, % of a core, {rounds} rounds\n\n\
             | router | Active | least | most | us for each advert | backup |\n\
             | --- | ---: | ---: | ---: | ---: | ---: |"
        );
        for Cost { party, active, backup } in &self.costs {
            let (middle, (least, most)) = (median(active), ends(active));
            let backup = match backup.as_slice() {
                [] => "–".to_owned(),
                some => format!("{:.3}", median(some) * 100.0),
            };
            let _ = writeln!(
                out,
                "| {} | {:.3} | {:.3} | {:.3} | {:.0} | {backup} |",
                party.name(),
                middle * 100.0,
                least * 100.0,
                most * 100.0,
                middle * 1e3 * f64::from(Mode::ALL[2].interval_ms)
            );
        }
        let _ = writeln!(
            out,
            "\nThe same with 8 programs that take all they get\n\n\
             | router | seconds | spurious takeovers | longest gap between adverts, ms |\n\
             | --- | ---: | ---: | ---: |"
        );
        for Quiet { kind, seconds, spurious, longest, .. } in &self.quiets {
            let _ = writeln!(out, "| {} | {seconds} | {spurious} | {longest:.1} |", kind.name());
        }
    }

    /// Writes each run.
    pub fn json(&self) -> String {
        let cells = self.runs.iter().map(|((mode, scenario, kind), runs)| {
            let runs: Vec<Value> = runs
                .iter()
                .map(|run| {
                    json!({ "answer_ms": run.answer_ms, "waited_ms": run.waited_ms,
                            "after_goodbye": run.after_goodbye, "left": run.left })
                })
                .collect();
            json!({ "mode": mode.name, "what": scenario.name(), "router": kind.name(),
                    "runs": runs })
        });
        let costs = self.costs.iter().map(|cost| {
            json!({ "router": cost.party.name(), "active": cost.active, "backup": cost.backup })
        });
        let quiets = self.quiets.iter().map(|quiet| {
            json!({ "router": quiet.kind.name(), "seconds": quiet.seconds,
                    "spurious": quiet.spurious, "longest_ms": quiet.longest,
                    "is_realtime": quiet.is_realtime })
        });
        let cells: Vec<Value> = cells.collect();
        let (costs, quiets): (Vec<Value>, Vec<Value>) = (costs.collect(), quiets.collect());
        let lanes = self.lanes.as_ref().map(|lanes| {
            json!({ "count": lanes.count, "own": lanes.own, "all": lanes.all,
                    "seconds": lanes.lasted.as_secs_f64() })
        });
        json!({ "load_before": self.load_before, "lanes": lanes, "cells": cells, "costs": costs,
                "quiets": quiets, "problems": self.problems })
        .to_string()
    }
}
