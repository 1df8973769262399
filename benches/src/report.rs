//! What was measured, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::data::Protocol;
use crate::load::Sample;
use crate::targets::Kind;
use crate::workload::{
    FIGURES_AIM, FIGURES_MUST, MEMCACHED, PAIR_AIM, PAIR_MUST, REAL, SATURATED, TOKIO_AIM,
    TOKIO_MUST, Workload,
};

/// Share of its core below which a proxy was not the bottleneck.
const SATURATED_SHARE_MIN: f64 = 0.93;
/// Share of the window that a proxy or its load may have waited for its core undoubted.
pub const DISTURBED_SHARE_MAX: f64 = 0.02;

/// Which servers stand behind the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placement {
    /// Fake servers in the generator's thread: the proxy is the bottleneck.
    Saturated,
    /// As saturated, in memcached's protocol.
    Memcached,
    /// Two real servers: the load's core is the bottleneck.
    Real,
    /// As saturated, both cores by turns: to the load, then to the proxy.
    Turns,
}

impl Placement {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::Saturated, Self::Memcached, Self::Real, Self::Turns];

    /// Those that need no telling.
    pub const USUAL: [Self; 3] = [Self::Saturated, Self::Memcached, Self::Real];

    /// The name in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Saturated => "saturated",
            Self::Memcached => "memcached",
            Self::Real => "real",
            Self::Turns => "turns",
        }
    }

    /// Whether fake servers keep the proxy busy without a pause.
    pub fn is_saturated(self) -> bool {
        matches!(self, Self::Saturated | Self::Memcached)
    }

    /// What is spoken.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Saturated | Self::Real | Self::Turns => Protocol::Resp,
            Self::Memcached => Protocol::Memcached,
        }
    }

    /// Its workloads.
    pub fn workloads(self) -> &'static [Workload] {
        match self {
            Self::Saturated | Self::Turns => &SATURATED,
            Self::Memcached => &MEMCACHED,
            Self::Real => &REAL,
        }
    }
}

/// One target, one workload, one round.
struct Cell {
    cpu_us: f64,
    rate: f64,
    busy: f64,
    waited: f64,
    load_busy: f64,
    load_waited: f64,
    latency: Histogram<u64>,
}

/// All that was measured.
#[derive(Default)]
pub struct Report {
    /// By placement, workload and target: one entry per round.
    cells: BTreeMap<(Placement, &'static str, &'static str), BTreeMap<usize, Cell>>,
    /// Targets from the command line, as they came.
    others: Vec<Kind>,
    /// What could not be measured, and why.
    pub problems: Vec<String>,
}

/// The middle of some numbers, and the ends.
#[derive(Clone, Copy, Debug)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut numbers: Vec<f64>) -> Option<Self> {
        numbers.sort_by(f64::total_cmp);
        let (least, most) = (*numbers.first()?, *numbers.last()?);
        let middle = numbers.len() / 2;
        let median = if numbers.len() % 2 == 1 {
            numbers[middle]
        } else {
            f64::midpoint(numbers[middle - 1], numbers[middle])
        };
        Some(Self { median, least, most })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.least, "max": self.most })
    }
}

impl Report {
    /// Takes in one run.
    pub fn add(
        &mut self,
        round: usize,
        at: Placement,
        workload: &Workload,
        kind: Kind,
        sample: Sample,
    ) {
        if !Kind::ALL.contains(&kind) && !self.others.contains(&kind) {
            self.others.push(kind);
        }
        let (requests, window) = (sample.requests.max(1) as f64, sample.window.as_secs_f64());
        let cell = Cell {
            cpu_us: sample.metered.cpu_ns as f64 / 1e3 / requests,
            rate: sample.requests as f64 / window,
            busy: sample.metered.cpu_ns as f64 / 1e9 / window,
            waited: sample.metered.wait_ns as f64 / 1e9 / window,
            load_busy: sample.load.cpu_ns as f64 / 1e9 / window,
            load_waited: sample.load.wait_ns as f64 / 1e9 / window,
            latency: sample.latency,
        };
        self.cells.entry((at, workload.name, kind.name())).or_default().insert(round, cell);
    }

    /// Every target in the order of the tables.
    fn kinds(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().chain(self.others.iter().copied())
    }

    fn rounds(&self, at: Placement, workload: &Workload, kind: Kind) -> Vec<(usize, &Cell)> {
        let rounds = self.cells.get(&(at, workload.name, kind.name()));
        rounds.into_iter().flatten().map(|(round, cell)| (*round, cell)).collect()
    }

    /// CPU per request as a multiple of another target's in the same round.
    fn ratio(&self, at: Placement, workload: &Workload, kind: Kind, over: Kind) -> Option<Spread> {
        let others = self.cells.get(&(at, workload.name, over.name()))?;
        let ratios = self.rounds(at, workload, kind).into_iter().filter_map(|(round, cell)| {
            let other = others.get(&round)?;
            (other.cpu_us > 0.0).then(|| cell.cpu_us / other.cpu_us)
        });
        Spread::of(ratios.collect())
    }

    /// The tables for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for at in Placement::ALL {
            if !self.cells.keys().any(|(placement, ..)| *placement == at) {
                continue;
            }
            let about = match at {
                Placement::Saturated => "fake servers, the proxy is the bottleneck",
                Placement::Memcached => "memcached's protocol, fake servers",
                Placement::Real => "two real servers, the load side is the bottleneck",
                Placement::Turns => "fake servers, both cores by turns",
            };
            let _ = writeln!(text, "\n== {}: {about}", at.name());
            for workload in at.workloads() {
                self.write_workload(&mut text, at, workload);
            }
        }
        self.write_verdicts(&mut text);
        self.write_shared(&mut text);
        for problem in &self.problems {
            let _ = writeln!(text, "problem: {problem}");
        }
        text
    }

    fn write_workload(&self, text: &mut String, at: Placement, workload: &Workload) {
        let lines: Vec<String> =
            self.kinds().filter_map(|kind| self.line(at, workload, kind)).collect();
        if lines.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n{}: {}", workload.name, workload.about);
        let _ = writeln!(
            text,
            "  {:<17}{:>9} {:<16}{:>8} {:<14}{:>9} {:>8}{:>9}{:>9}{:>7}{:>7}{:>7}{:>7}",
            "target",
            "CPU us",
            "(min..max)",
            "ratio",
            "(min..max)",
            "krps",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "busy",
            "waited",
            "load",
            "waited"
        );
        for line in lines {
            text.push_str(&line);
        }
    }

    fn line(&self, at: Placement, workload: &Workload, kind: Kind) -> Option<String> {
        let rounds = self.rounds(at, workload, kind);
        let spread = |field: fn(&Cell) -> f64| {
            Spread::of(rounds.iter().map(|(_, cell)| field(cell)).collect())
        };
        let (cpu, rate) = (spread(|cell| cell.cpu_us)?, spread(|cell| cell.rate)?);
        let (busy, waited) = (spread(|cell| cell.busy)?, spread(|cell| cell.waited)?);
        let latency = merged(&rounds);
        let us = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1e3;
        let mut line = format!("  {kind:<17}");
        if kind == Kind::Direct {
            let _ = write!(line, "{:>9} {:<16}{:>8} {:<14}", "-", "", "-", "");
        } else {
            let ends = format!("({:.3}..{:.3})", cpu.least, cpu.most);
            let _ = write!(line, "{:>9.3} {ends:<16}", cpu.median);
            let ratio = self.ratio(at, workload, kind, Kind::Nutcracker);
            let ends = ratio.map(|ratio| format!("({:.3}..{:.3})", ratio.least, ratio.most));
            let ratio =
                ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.3}", ratio.median));
            let _ = write!(line, "{ratio:>8} {:<14}", ends.unwrap_or_default());
        }
        let _ = write!(line, "{:>9.1} ", rate.median / 1e3);
        let _ = write!(line, "{:>8.1}{:>9.1}{:>9.1}", us(0.5), us(0.99), us(0.999));
        if kind != Kind::Direct {
            let _ = write!(line, "{:>6.0}%{:>6.1}%", busy.median * 100.0, waited.median * 100.0);
        } else {
            let _ = write!(line, "{:>7}{:>7}", "-", "-");
        }
        let (load, delayed) =
            (spread(|cell| cell.load_busy)?.median, spread(|cell| cell.load_waited)?.median);
        let _ = write!(line, "{:>6.0}%{:>6.1}%", load * 100.0, delayed * 100.0);
        // By turns everybody waits.
        if kind != Kind::Direct && at != Placement::Turns {
            if at.is_saturated() && busy.median < SATURATED_SHARE_MIN {
                line.push_str("  not saturated");
            }
            if waited.median > DISTURBED_SHARE_MAX
                || at.is_saturated() && delayed > DISTURBED_SHARE_MAX
            {
                line.push_str("  disturbed");
            }
        }
        line.push('\n');
        Some(line)
    }

    fn write_verdicts(&self, text: &mut String) {
        let verdicts = self.verdicts();
        if verdicts.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n== limits (CPU per request, saturated)");
        for verdict in verdicts {
            let _ = writeln!(
                text,
                "  {:<2} {:<30}{:>7.3}   must {:.2} {:<7} aim {:.2} {}",
                verdict.workload,
                verdict.what,
                verdict.ratio,
                verdict.must,
                met(verdict.ratio <= verdict.must),
                verdict.aim,
                met(verdict.ratio <= verdict.aim)
            );
        }
    }

    /// What it costs to have load and servers on the same cores, next to a core of one's own.
    fn write_shared(&self, text: &mut String) {
        let pairs = [
            (Kind::NutcrackerApart, Kind::Nutcracker),
            (Kind::UringApart, Kind::Uring),
            (Kind::TokioApart, Kind::Tokio),
            (Kind::NutcrackerBeside, Kind::Nutcracker),
            (Kind::UringBeside, Kind::Uring),
            (Kind::UringPairBeside, Kind::UringBeside),
        ];
        let at = Placement::Saturated;
        let mut lines = String::new();
        for workload in at.workloads() {
            for (two, one) in pairs {
                if let Some(Spread { median, least, most }) = self.ratio(at, workload, two, one) {
                    let (workload, what) = (workload.name, format!("{two} / {one}"));
                    let _ = writeln!(
                        lines,
                        "  {workload:<2} {what:<30}{median:>7.3} ({least:.3}..{most:.3})"
                    );
                }
            }
        }
        if !lines.is_empty() {
            let _ = write!(text, "\n== cores with the load on them / a core of its own\n{lines}");
        }
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let at = Placement::Saturated;
        for workload in at.workloads() {
            let ratio = self.ratio(at, workload, Kind::Uring, Kind::Nutcracker);
            if let (Some(ratio), Some(must), Some(aim)) = (ratio, workload.must, workload.aim) {
                let what = "io_uring / nutcracker";
                let (workload, ratio) = (workload.name, ratio.median);
                verdicts.push(Verdict { workload, what, ratio, must, aim });
            }
            if let Some(ratio) = self.ratio(at, workload, Kind::Uring, Kind::UringBare) {
                let (workload, what, ratio) = (workload.name, "figures on / off", ratio.median);
                let (must, aim) = (FIGURES_MUST, FIGURES_AIM);
                verdicts.push(Verdict { workload, what, ratio, must, aim });
            }
            if let Some(ratio) = self.ratio(at, workload, Kind::Tokio, Kind::Uring) {
                let (workload, what, ratio) = (workload.name, "tokio / io_uring", ratio.median);
                let (must, aim) = (TOKIO_MUST, TOKIO_AIM);
                verdicts.push(Verdict { workload, what, ratio, must, aim });
            }
            for (pair, other, what) in [
                (Kind::UringPair, Kind::Uring, "two io_uring workers / 1"),
                (Kind::TokioPair, Kind::Tokio, "two tokio workers / 1"),
                (Kind::UringPair, Kind::UringApart, "two io_uring w. / 1 + 1"),
                (Kind::TokioPair, Kind::TokioApart, "two tokio w. / 1 + 1"),
            ] {
                if let Some(ratio) = self.ratio(at, workload, pair, other) {
                    let (workload, ratio) = (workload.name, ratio.median);
                    let (must, aim) = (PAIR_MUST, PAIR_AIM);
                    verdicts.push(Verdict { workload, what, ratio, must, aim });
                }
            }
        }
        let at = Placement::Turns;
        for workload in at.workloads() {
            for (pair, one, what) in [
                (Kind::UringPair, Kind::Uring, "two io_uring w. / 1, by turns"),
                (Kind::TokioPair, Kind::Tokio, "two tokio w. / 1, by turns"),
            ] {
                if let Some(ratio) = self.ratio(at, workload, pair, one) {
                    let (workload, ratio) = (workload.name, ratio.median);
                    let (must, aim) = (PAIR_MUST, PAIR_AIM);
                    verdicts.push(Verdict { workload, what, ratio, must, aim });
                }
            }
        }
        verdicts
    }

    /// Everything, for programs.
    pub fn json(&self, facts: &Value) -> Value {
        let mut cells = Vec::new();
        for at in Placement::ALL {
            for workload in at.workloads() {
                for kind in self.kinds() {
                    cells.extend(self.cell_json(at, workload, kind));
                }
            }
        }
        let limits: Vec<Value> = self.verdicts().iter().map(Verdict::json).collect();
        json!({ "facts": facts, "cells": cells, "limits": limits, "problems": self.problems })
    }

    fn cell_json(&self, at: Placement, workload: &Workload, kind: Kind) -> Option<Value> {
        let rounds = self.rounds(at, workload, kind);
        let spread = |field: fn(&Cell) -> f64| {
            Spread::of(rounds.iter().map(|(_, cell)| field(cell)).collect())
        };
        let latency = merged(&rounds);
        let each: Vec<Value> = rounds
            .iter()
            .map(|(round, cell)| {
                json!({
                    "round": round, "cpu_us": cell.cpu_us, "requests_per_s": cell.rate,
                    "busy": cell.busy, "waited": cell.waited,
                    "load_busy": cell.load_busy, "load_waited": cell.load_waited,
                    "p50_ns": cell.latency.value_at_quantile(0.5),
                    "p99_ns": cell.latency.value_at_quantile(0.99),
                    "p999_ns": cell.latency.value_at_quantile(0.999),
                })
            })
            .collect();
        Some(json!({
            "placement": at.name(), "workload": workload.name, "about": workload.about,
            "target": kind.name(),
            "cpu_us": spread(|cell| cell.cpu_us)?.json(),
            "requests_per_s": spread(|cell| cell.rate)?.json(),
            "busy": spread(|cell| cell.busy)?.json(),
            "waited": spread(|cell| cell.waited)?.json(),
            "load_busy": spread(|cell| cell.load_busy)?.json(),
            "load_waited": spread(|cell| cell.load_waited)?.json(),
            "ratio": self.ratio(at, workload, kind, Kind::Nutcracker).map(Spread::json),
            "p50_ns": latency.value_at_quantile(0.5),
            "p99_ns": latency.value_at_quantile(0.99),
            "p999_ns": latency.value_at_quantile(0.999),
            "rounds": each,
        }))
    }
}

struct Verdict {
    workload: &'static str,
    what: &'static str,
    ratio: f64,
    must: f64,
    aim: f64,
}

impl Verdict {
    fn json(&self) -> Value {
        json!({
            "workload": self.workload, "what": self.what, "ratio": self.ratio,
            "must": self.must, "must_met": self.ratio <= self.must,
            "aim": self.aim, "aim_met": self.ratio <= self.aim,
        })
    }
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}

fn merged(rounds: &[(usize, &Cell)]) -> Histogram<u64> {
    let mut all = Histogram::new(3).expect("three digits are allowed");
    for (_, cell) in rounds {
        all.add(&cell.latency).expect("the sum resizes itself");
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_is_between() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 3.0]).expect("numbers");
        assert_eq!((spread.median, spread.least, spread.most), (2.5, 1.0, 4.0));
        assert!(Spread::of(Vec::new()).is_none());
    }
}
