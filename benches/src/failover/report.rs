//! What was measured, as tables and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

use super::modes::{Mode, Stack};
use crate::figures::{ends, median};

/// What is measured of whom; the last is the promise of a replica.
type Cell = (Mode, Stack, bool);

/// All that was measured.
pub struct Report {
    load_before: String,
    events: BTreeMap<Cell, Vec<Value>>,
    problems: Vec<String>,
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn numbers(events: &[Value], field: &str) -> Vec<f64> {
    events.iter().filter_map(|event| event.get(field)?.as_f64()).collect()
}

fn sum(events: &[Value], field: &str) -> u64 {
    events.iter().filter_map(|event| event.get(field)?.as_u64()).sum()
}

impl Report {
    /// Notes how loaded the machine is before anything is measured.
    pub fn begin() -> Self {
        Self { load_before: load(), events: BTreeMap::new(), problems: Vec::new() }
    }

    /// Takes in what a laboratory saw.
    pub fn add(&mut self, mode: Mode, stack: Stack, is_replicated: bool, seen: &Value) {
        let list = |field: &str| seen.get(field).and_then(Value::as_array).cloned();
        for event in list("events").unwrap_or_default() {
            if let Some(problem) = event.get("problem").and_then(Value::as_str) {
                self.problem(format!("{} {}: {problem}", mode.name(), stack.name()));
            }
            self.events.entry((mode, stack, is_replicated)).or_default().push(event);
        }
        for problem in list("problems").unwrap_or_default() {
            self.problem(format!("{} {}: {problem}", mode.name(), stack.name()));
        }
    }

    /// Takes in what went wrong.
    pub fn problem(&mut self, problem: String) {
        eprintln!("{problem}");
        self.problems.push(problem);
    }

    /// Writes the tables.
    pub fn finish(&self) -> String {
        let mut out = String::new();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let (before, after) = (&self.load_before, load());
        let _ =
            writeln!(out, "{cores} cores; load of the machine {before} before, {after} after\n");
        let _ = writeln!(
            out,
            "| what happens, what counts | stack | events | median, ms | worst, ms | limit, ms | \
             failed, median | failed, worst | acknowledged | lost |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
        );
        for (&(mode, stack, _), events) in self.events.iter().filter(|(cell, _)| is_timed(cell)) {
            let times = numbers(events, mode.measure().field());
            let failed = numbers(events, "failed");
            let ours = mode.limit_ms().filter(|_| stack != Stack::Glued);
            let limit = ours.map_or_else(String::new, |limit| format!("{limit}"));
            let _ = writeln!(
                out,
                "| {} | {} | {} | {:.1} | {:.1} | {limit} | {:.0} | {:.0} | {} | {} |",
                mode.title(),
                stack.name(),
                times.len(),
                median(&times),
                ends(&times).1,
                median(&failed),
                ends(&failed).1,
                sum(events, "acknowledged"),
                sum(events, "lost"),
            );
        }
        self.stale(&mut out);
        self.cost(&mut out);
        for problem in &self.problems {
            let _ = writeln!(out, "not as it should be: {problem}");
        }
        out
    }

    fn stale(&self, out: &mut String) {
        let stopped = self.events.iter().filter(|((mode, ..), _)| *mode == Mode::Stop);
        for (index, ((_, stack, _), events)) in stopped.enumerate() {
            if index == 0 {
                let _ = writeln!(
                    out,
                    "\nSomebody who writes to the former master itself, every 10 ms from when it \
                     goes on\n\n| stack | events | acknowledged, median | lost, median | lost, \
                     worst |\n| --- | ---: | ---: | ---: | ---: |"
                );
            }
            let taken = numbers(events, "stale_acknowledged");
            let lost = numbers(events, "stale_lost");
            let _ = writeln!(
                out,
                "| {} | {} | {:.0} | {:.0} | {:.0} |",
                stack.name(),
                taken.len(),
                median(&taken),
                median(&lost),
                ends(&lost).1
            );
        }
    }

    fn cost(&self, out: &mut String) {
        let calm = self.events.iter().filter(|((mode, ..), _)| *mode == Mode::Cost);
        for (index, ((_, stack, is_replicated), events)) in calm.enumerate() {
            if index == 0 {
                let _ = writeln!(
                    out,
                    "\nEight clients, one command every 4 ms each; medians\n\n| stack | \
                     replicated | a write, ms | 99 %, ms | CPU of all nodes, us per command | of \
                     all servers |\n| --- | --- | ---: | ---: | ---: | ---: |"
                );
            }
            let middle = |field: &str| median(&numbers(events, field));
            let _ = writeln!(
                out,
                "| {} | {} | {:.2} | {:.2} | {:.1} | {:.1} |",
                stack.name(),
                if *is_replicated { "1" } else { "off" },
                middle("write_ms"),
                middle("write_p99_ms"),
                middle("nodes_cpu_ms") * 1000.0,
                middle("servers_cpu_ms") * 1000.0,
            );
        }
    }

    /// Writes each event.
    pub fn json(&self) -> String {
        let cells = self.events.iter().map(|((mode, stack, is_replicated), events)| {
            json!({ "mode": mode.name(), "stack": stack.name(), "replicated": is_replicated,
                    "events": events })
        });
        let cells: Vec<Value> = cells.collect();
        json!({ "load_before": self.load_before, "cells": cells, "problems": self.problems })
            .to_string()
    }
}

fn is_timed((mode, ..): &Cell) -> bool {
    *mode != Mode::Cost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_laboratory_tells_becomes_a_line() {
        let mut report = Report::begin();
        let event = |time: f64, failed: u64| {
            json!({ "failover_ms": time, "failed": failed, "acknowledged": 500, "lost": 1,
                    "healed": true })
        };
        let seen = json!({ "events": [event(50.0, 2), event(60.0, 4), event(90.0, 2)],
                           "problems": [] });
        report.add(Mode::Fast, Stack::Uring, false, &seen);
        let calm = json!({ "write_ms": 0.25, "write_p99_ms": 1.0, "nodes_cpu_ms": 0.05,
                           "servers_cpu_ms": 0.02 });
        report.add(Mode::Cost, Stack::Tokio, true, &json!({ "events": [calm] }));
        let text = report.finish();
        let line = "| uring | 3 | 60.0 | 90.0 | 80 | 2 | 4 | 1500 | 3 |";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("| tokio | 1 | 0.25 | 1.00 | 50.0 | 20.0 |"), "{text}");
        assert!(!text.contains("not as it should be"), "{text}");
    }
}
