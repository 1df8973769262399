//! What was measured, as tables and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use super::modes::{Laboratory, Limit, Mode, Stack};
use crate::figures::{ends, median};

/// What is measured of whom; the last is the promise of a replica.
type Cell = (Mode, Stack, bool);

/// All that was measured.
pub struct Report {
    since: Instant,
    load_before: String,
    events: BTreeMap<Cell, Vec<Value>>,
    problems: Vec<String>,
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn number(event: &Value, field: &str) -> Option<f64> {
    event.get(field)?.as_f64()
}

fn numbers(events: &[Value], field: &str) -> Vec<f64> {
    events.iter().filter_map(|event| number(event, field)).collect()
}

fn sum(events: &[Value], field: &str) -> u64 {
    events.iter().filter_map(|event| event.get(field)?.as_u64()).sum()
}

/// Tells whether a promise is kept, if it is one of this product's.
const fn verdict(stack: Stack, is_met: bool) -> &'static str {
    match (stack, is_met) {
        (Stack::Glued, _) => "",
        (Stack::Uring | Stack::Tokio, true) => "met",
        (Stack::Uring | Stack::Tokio, false) => "MISSED",
    }
}

/// Returns what is promised of a time, and whether it was so.
fn judge(mode: Mode, stack: Stack, events: &[Value]) -> (String, String) {
    let field = mode.measure().field();
    let Some(limit) = mode.limit() else { return (String::new(), String::new()) };
    // How far each is beyond what is promised of it.
    let beyond = |event: &Value| {
        let time = number(event, field)?;
        Some(match limit {
            Limit::Median(most) | Limit::Each(most) => time - most,
            Limit::AboveSkew(most) => time - number(event, "skew_ms")? - most,
        })
    };
    let beyond: Vec<f64> = events.iter().filter_map(beyond).collect();
    let late = beyond.iter().filter(|beyond| **beyond > 0.0).count();
    // What did not come about at all was no better.
    let late = late + events.len().saturating_sub(beyond.len());
    let (text, is_met) = match limit {
        Limit::Median(most) => (format!("median {most}"), median(&beyond) <= 0.0),
        Limit::Each(most) => (format!("{most}"), late == 0),
        Limit::AboveSkew(most) => (format!("skew + {most}"), late == 0),
    };
    let mut word = verdict(stack, is_met && !beyond.is_empty()).to_owned();
    if word == "MISSED" && !matches!(limit, Limit::Median(_)) {
        let _ = write!(word, " by {late} of {}", events.len());
    }
    (text, word)
}

impl Report {
    /// Notes how loaded the machine is before anything is measured.
    pub fn begin() -> Self {
        let (since, load_before) = (Instant::now(), load());
        Self { since, load_before, events: BTreeMap::new(), problems: Vec::new() }
    }

    /// Takes in what a laboratory saw.
    pub fn add(&mut self, of: &Laboratory, seen: &Value) {
        let list = |field: &str| seen.get(field).and_then(Value::as_array).cloned();
        for event in list("events").unwrap_or_default() {
            let name = event.get("event").and_then(Value::as_str).unwrap_or_default();
            let Some(mode) = of.mode_of(name) else {
                self.problem(format!("{}: an event that nobody wanted: {name}", of.stack.name()));
                continue;
            };
            if let Some(problem) = event.get("problem").and_then(Value::as_str) {
                self.problem(format!("{} {}: {problem}", mode.name(), of.stack.name()));
            }
            self.events.entry((mode, of.stack, of.is_replicated)).or_default().push(event);
        }
        for problem in list("problems").unwrap_or_default() {
            self.problem(format!("{}: {problem}", of.stack.name()));
        }
    }

    /// Returns of how many events of each of its modes a laboratory has told so far.
    pub fn least(&self, of: &Laboratory) -> usize {
        let count = |mode: &Mode| self.events.get(&(*mode, of.stack, of.is_replicated));
        of.modes.iter().map(|mode| count(mode).map_or(0, Vec::len)).min().unwrap_or_default()
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
        let (before, after, minutes) =
            (&self.load_before, load(), self.since.elapsed().as_secs() / 60);
        let _ = writeln!(
            out,
            "{cores} cores; load of the machine {before} before, {after} after; {minutes} minutes\n"
        );
        let _ = writeln!(
            out,
            "| what happens, what counts | stack | events | median, ms | worst, ms | promised, ms | | \
             failed, median | failed, worst | acknowledged | lost |\n\
             | --- | --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |"
        );
        for (&(mode, stack, _), events) in self.events.iter().filter(|(cell, _)| is_timed(cell)) {
            let times = numbers(events, mode.measure().field());
            let failed = numbers(events, "failed");
            let (limit, word) = judge(mode, stack, events);
            let _ = writeln!(
                out,
                "| {} | {} | {} | {:.1} | {:.1} | {limit} | {word} | {:.0} | {:.0} | {} | {} |",
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
        self.promises(&mut out);
        self.stale(&mut out);
        self.cost(&mut out);
        for problem in &self.problems {
            let _ = writeln!(out, "not as it should be: {problem}");
        }
        out
    }

    /// Writes what is promised beside times.
    fn promises(&self, out: &mut String) {
        let mut lines = String::new();
        let mut line = |promise: &str, mode: Mode, stack: Stack, seen: String, is_met: bool| {
            let (mode, stack, word) = (mode.name(), stack.name(), verdict(stack, is_met));
            let _ = writeln!(lines, "| {promise} | {mode} | {stack} | {seen} | {word} |");
        };
        for (&(mode, stack, _), events) in self.events.iter().filter(|(cell, _)| is_timed(cell)) {
            let (count, failed, lost) = (events.len(), sum(events, "failed"), sum(events, "lost"));
            let acknowledged = sum(events, "acknowledged");
            let lost_of = format!("{lost} of {acknowledged} in {count}");
            match mode {
                Mode::Fast | Mode::Silence | Mode::Replicated => {
                    let under_way = sum(events, "in_flight");
                    let is_more = |one: &&Value| number(one, "failed") > number(one, "in_flight");
                    let more = events.iter().filter(is_more).count();
                    let seen = format!("{failed} of {under_way}; more in {more} of {count} events");
                    line("no more fail than are under way", mode, stack, seen, more == 0);
                    if mode == Mode::Replicated {
                        line("no acknowledged write is lost", mode, stack, lost_of, lost == 0);
                    }
                }
                Mode::Plan => {
                    let seen = format!("{failed} in {count} events");
                    line("no command fails", mode, stack, seen, failed == 0);
                    line("no acknowledged write is lost", mode, stack, lost_of, lost == 0);
                }
                Mode::Stop => {
                    line("no acknowledged write is lost", mode, stack, lost_of, lost == 0);
                }
                Mode::Proxy | Mode::HostQuick | Mode::Host | Mode::Cost => {}
            }
        }
        if !lines.is_empty() {
            let _ = write!(
                out,
                "\n| promised | mode | stack | seen | |\n| --- | --- | --- | ---: | --- |\n{lines}"
            );
        }
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

    fn laboratory(modes: &[Mode], at: usize) -> Laboratory {
        Laboratory::all(modes, &[Stack::Uring]).swap_remove(at)
    }

    #[test]
    fn what_a_laboratory_tells_becomes_a_line() {
        let mut report = Report::begin();
        let event = |time: f64, failed: u64| {
            json!({ "event": "kill a master", "failover_ms": time, "failed": failed, "in_flight": 2,
                    "acknowledged": 500, "lost": 1, "healed": true })
        };
        let seen = json!({ "events": [event(50.0, 2), event(60.0, 4), event(90.0, 2)],
                           "problems": [] });
        let fast = laboratory(&[Mode::Fast], 0);
        report.add(&fast, &seen);
        assert_eq!(report.least(&fast), 3);
        let calm = json!({ "event": "nothing", "write_ms": 0.25, "write_p99_ms": 1.0,
                           "nodes_cpu_ms": 0.05, "servers_cpu_ms": 0.02 });
        report.add(&laboratory(&[Mode::Cost], 1), &json!({ "events": [calm] }));
        let text = report.finish();
        let line = "| uring | 3 | 60.0 | 90.0 | median 80 | met | 2 | 4 | 1500 | 3 |";
        assert!(text.contains(line), "{text}");
        let line = "| fast | uring | 8 of 6; more in 1 of 3 events | MISSED |";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("| uring | 1 | 0.25 | 1.00 | 50.0 | 20.0 |"), "{text}");
        assert!(!text.contains("not as it should be"), "{text}");
    }

    #[test]
    fn a_promise_of_each_event_is_missed_by_one() {
        let event = |time: f64| json!({ "address_ms": time, "skew_ms": 6.25 });
        let all = [event(11.0), event(11.5)];
        let (limit, word) = judge(Mode::Proxy, Stack::Uring, &all);
        assert_eq!((limit.as_str(), word.as_str()), ("skew + 5", "MISSED by 1 of 2"));
        assert_eq!(judge(Mode::Host, Stack::Uring, &all).1, "met");
        assert_eq!(judge(Mode::Proxy, Stack::Glued, &all).1, "");
        assert_eq!(judge(Mode::Fast, Stack::Uring, &all).1, "MISSED", "no time at all");
    }
}
