//! What the product promises of these times, beside what was measured.

use std::fmt::Write as _;

use super::{Report, deviations, exact};
use crate::figures::{difference, ends, median};
use crate::vrrp::calm::{Cost, Party};
use crate::vrrp::lab::{Kind, Mode};
use crate::vrrp::runs::Scenario;

/// Of the waits for silence, how many have to be exact.
const EXACT_SHARE: f64 = 0.95;

/// Runs from which on these are figures; fewer are a look.
const RUNS_MIN: usize = 20;

/// From the death of the first process to the answer, milliseconds: who says goodbye for it, and
/// the wait after that.
const GUARDIAN_MS: f64 = 12.0;

/// How much longer than the skew time an order to end takes, milliseconds.
const ORDER_MS: f64 = 3.0;

/// How much longer than the skew time it takes when what is served is drained or dies.
const SERVICE_MS: f64 = 5.0;

/// The most of a core that a router takes.
const CORE_SHARE: f64 = 0.003;

/// One promise to one kind of router.
struct Line {
    what: String,
    kind: Kind,
    limit: String,
    measured: String,
    is_met: bool,
}

impl Report {
    /// Writes which promises are kept, for what was measured of them.
    pub(super) fn promises(&self, out: &mut String) {
        let ours = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Genuine);
        let lines: Vec<Line> = ours.flat_map(|kind| self.promises_of(kind)).collect();
        if lines.is_empty() {
            return;
        }
        let _ = writeln!(
            out,
            "\nPromises (less than {RUNS_MIN} runs are a look, no figure)\n\n\
             | promise | router | limit | measured | |\n| --- | --- | --- | --- | --- |"
        );
        for Line { what, kind, limit, measured, is_met } in lines {
            let verdict = if is_met { "met" } else { "MISSED" };
            let kind = kind.name();
            let _ = writeln!(out, "| {what} | {kind} | {limit} | {measured} | {verdict} |");
        }
    }

    fn promises_of(&self, kind: Kind) -> Vec<Line> {
        let mut lines: Vec<Line> =
            Mode::ALL.into_iter().filter_map(|mode| self.exactness_of(mode, kind)).collect();
        lines.extend(self.medians_of(kind));
        let quick = Mode::ALL[2];
        let skew = quick.skew_ms();
        let limits = [
            (Scenario::KillParent, GUARDIAN_MS),
            (Scenario::Terminate, skew + ORDER_MS),
            (Scenario::Drain, skew + SERVICE_MS),
            (Scenario::Worker, skew + SERVICE_MS),
        ];
        let times = limits.into_iter();
        lines.extend(
            times.filter_map(|(scenario, limit)| self.time_of(quick, scenario, kind, limit)),
        );
        lines.extend(self.calm_of(kind));
        lines
    }

    fn exactness_of(&self, mode: Mode, kind: Kind) -> Option<Line> {
        let runs = self.runs.get(&(mode, Scenario::KillAll, kind))?;
        let off = deviations(mode, Scenario::KillAll, runs);
        let good = exact(&off);
        // A run whose wait can't be counted is one that was not exact.
        let share = good as f64 / runs.len() as f64;
        Some(Line {
            what: format!("{}: wait for silence is the RFC's", mode.name),
            kind,
            limit: "within 2 ms in 95 % of runs".to_owned(),
            measured: format!("{good} of {}", runs.len()),
            is_met: share >= EXACT_SHARE,
        })
    }

    fn medians_of(&self, kind: Kind) -> Option<Line> {
        let cells: Vec<(Mode, Scenario)> = self
            .runs
            .keys()
            .filter(|&&(mode, scenario, one)| {
                one == kind && self.runs.contains_key(&(mode, scenario, Kind::Genuine))
            })
            .map(|&(mode, scenario, _)| (mode, scenario))
            .collect();
        let slower: Vec<String> = cells
            .iter()
            .filter(|&&(mode, scenario)| {
                let answers = |kind| self.answers(mode, scenario, kind);
                difference(&answers(kind), &answers(Kind::Genuine)).0 > 0.0
            })
            .map(|(mode, scenario)| format!("{} {}", mode.name, scenario.name()))
            .collect();
        if cells.is_empty() {
            return None;
        }
        let measured = match slower.as_slice() {
            [] => format!("in none of {}", cells.len()),
            some => format!("in {} of {}: {}", some.len(), cells.len(), some.join(", ")),
        };
        Some(Line {
            what: "answers are slower than keepalived's".to_owned(),
            kind,
            limit: "in no cell, beyond the interval of 95 %".to_owned(),
            measured,
            is_met: slower.is_empty(),
        })
    }

    fn time_of(&self, mode: Mode, scenario: Scenario, kind: Kind, limit: f64) -> Option<Line> {
        let answers = self.answers(mode, scenario, kind);
        if answers.is_empty() {
            return None;
        }
        let (middle, (_, most)) = (median(&answers), ends(&answers));
        let within = answers.iter().filter(|answer| **answer <= limit).count();
        Some(Line {
            what: format!("{} {}: median of answers", mode.name, scenario.name()),
            kind,
            limit: format!("{limit:.1} ms"),
            measured: format!(
                "{middle:.1} ms, {within} of {} within, most {most:.1}",
                answers.len()
            ),
            is_met: middle <= limit,
        })
    }

    fn calm_of(&self, kind: Kind) -> Vec<Line> {
        let cost_of = |party| self.costs.iter().find(|cost| cost.party == party);
        let share = |cost: &Cost| match cost.backup.as_slice() {
            [] => median(&cost.active),
            backup => median(&cost.active).max(median(backup)),
        };
        let least = cost_of(Party::Least { sends: true }).map_or(0.0, share);
        let cost = cost_of(Party::Router(kind)).map(|cost| Line {
            what: "undisturbed at 0.01 s: the larger share of a core".to_owned(),
            kind,
            limit: format!("{:.1} %", CORE_SHARE * 100.0),
            measured: format!(
                "{:.3} %, of which sleep and send alone take {:.3}",
                share(cost) * 100.0,
                least * 100.0
            ),
            is_met: share(cost) <= CORE_SHARE,
        });
        let quiet = self.quiets.iter().find(|quiet| quiet.kind == kind).map(|quiet| {
            let granted = if quiet.is_realtime { "" } else { ", real-time not granted" };
            Line {
                what: format!("8 hogs for {} s: takeovers that nothing called for", quiet.seconds),
                kind,
                limit: "0".to_owned(),
                measured: format!("{}{granted}", quiet.spurious),
                is_met: quiet.spurious == 0,
            }
        });
        cost.into_iter().chain(quiet).collect()
    }
}
