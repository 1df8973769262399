//! What is printed about events, and what goes into a file for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use ringkeeper_core::wire::json::Json;

use super::events::{Outcome, Stale};
use super::traffic::{Counts, Verdict};

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) network: &'static str,
    pub(super) outcomes: Vec<Outcome>,
    /// Of the whole run.
    pub(super) counts: Counts,
    pub(super) verdict: Verdict,
    /// Replies with a value that was never written there.
    pub(super) wrong: u64,
    /// Errors that clients got.
    pub(super) errors: BTreeMap<String, u64>,
    /// Faults of a chaos run.
    pub(super) faults: u64,
    /// The longest that a client waited in it.
    pub(super) pause: Duration,
    /// What is wrong beside what events say.
    pub(super) problems: Vec<String>,
}

fn ms(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0..1000 => format!("{micros} us"),
        1000..10_000 => format!("{}.{} ms", micros / 1000, micros / 100 % 10),
        10_000.. => format!("{} ms", micros / 1000),
    }
}

impl Outcome {
    /// Returns one line about it.
    pub(super) fn line(&self) -> String {
        let mut parts = Vec::new();
        if let Some(time) = self.failover {
            parts.push(format!("failover {}", ms(time)));
        }
        if let Some(time) = self.reached {
            parts.push(format!("address {}", ms(time)));
        }
        parts.push(format!("pause {}", ms(self.pause)));
        match self.in_flight {
            Some(count) => {
                parts.push(format!("failed {} of {count} under way", self.counts.failed));
            }
            None => parts.push(format!("failed {}", self.counts.failed)),
        }
        parts.push(format!("held {}", self.counts.held));
        parts.push(format!("lost {}", self.verdict.lost));
        if let Some(stale) = self.stale {
            let Stale { acknowledged, lost } = stale;
            parts.push(format!("former master took {acknowledged} and lost {lost}"));
        }
        if let (Some([median, most]), Some(cost)) = (self.latency, self.cost) {
            let (nodes, servers) = (ms(cost.nodes), ms(cost.servers));
            parts.push(format!(
                "a write takes {} (99 %: {}) and costs nodes {nodes}, servers {servers}",
                ms(median),
                ms(most)
            ));
        }
        parts.push(format!("whole after {}", ms(self.whole_after)));
        let verdict = match &self.problem {
            None => "healed".to_owned(),
            Some(why) => format!("NOT HEALED: {why}"),
        };
        format!("{:<24}{:<28}{}; {verdict}", self.event.name(), self.target, parts.join(", "))
    }
}

impl Report {
    /// Tells whether all that happened has healed.
    pub(super) fn is_good(&self) -> bool {
        self.problems.is_empty() && self.outcomes.iter().all(|one| one.problem.is_none())
    }

    fn times(&self, of: impl Fn(&Outcome) -> Option<Duration>) -> String {
        let times: Vec<String> = self.outcomes.iter().filter_map(of).map(ms).collect();
        match times.is_empty() {
            true => "none".to_owned(),
            false => times.join(", "),
        }
    }

    /// Returns the summary, in lines.
    pub(super) fn summary(&self) -> String {
        let Counts { sent, answered, failed, held } = self.counts;
        let Verdict { checked, lost, unread } = self.verdict;
        let mut text = format!(
            "\ncommands      {sent} sent, {answered} answered, {failed} failed, {held} held\n\
             writes        {checked} acknowledged and read back, {lost} lost, {unread} not read\n\
             failovers     {}\naddress       {}\n",
            self.times(|one| one.failover),
            self.times(|one| one.reached),
        );
        if self.faults > 0 {
            let (faults, pause) = (self.faults, ms(self.pause));
            text.push_str(&format!("faults        {faults}; the longest pause {pause}\n"));
        }
        for (error, count) in &self.errors {
            text.push_str(&format!("error         {count} x {error}\n"));
        }
        for problem in &self.problems {
            text.push_str(&format!("PROBLEM       {problem}\n"));
        }
        text.push_str(if self.is_good() { "all healed\n" } else { "NOT all healed\n" });
        text
    }

    /// Returns all of it as JSON.
    pub(super) fn json(&self) -> String {
        let mut json = Json::default();
        json.object(|json| {
            json.key("healed").boolean(self.is_good());
            json.key("network").text(self.network);
            counts(json, self.counts);
            writes(json, self.verdict);
            json.key("wrong").number(self.wrong);
            json.key("faults").number(self.faults);
            json.key("pause_ms").millis(self.pause);
            json.key("errors").object(|json| {
                for (error, count) in &self.errors {
                    json.key(error).number(*count);
                }
            });
            json.key("problems").array(|json| {
                for problem in &self.problems {
                    json.text(problem);
                }
            });
            json.key("events").array(|json| {
                for outcome in &self.outcomes {
                    json.object(|json| event(json, outcome));
                }
            });
        });
        json.finish() + "\n"
    }
}

fn counts(json: &mut Json, counts: Counts) {
    json.key("sent").number(counts.sent);
    json.key("answered").number(counts.answered);
    json.key("failed").number(counts.failed);
    json.key("held").number(counts.held);
}

fn writes(json: &mut Json, verdict: Verdict) {
    json.key("acknowledged").number(verdict.checked);
    json.key("lost").number(verdict.lost);
    json.key("unread").number(verdict.unread);
}

fn event(json: &mut Json, of: &Outcome) {
    json.key("event").text(of.event.name());
    json.key("target").text(&of.target);
    if let Some(time) = of.failover {
        json.key("failover_ms").millis(time);
    }
    if let Some(time) = of.reached {
        json.key("address_ms").millis(time);
    }
    if let Some(time) = of.skew {
        json.key("skew_ms").millis(time);
    }
    if let Some(count) = of.in_flight {
        json.key("in_flight").number(count);
    }
    json.key("pause_ms").millis(of.pause);
    json.key("whole_after_ms").millis(of.whole_after);
    counts(json, of.counts);
    writes(json, of.verdict);
    if let Some([median, most]) = of.latency {
        json.key("write_ms").millis(median);
        json.key("write_p99_ms").millis(most);
    }
    if let Some(cost) = of.cost {
        json.key("nodes_cpu_ms").millis(cost.nodes);
        json.key("servers_cpu_ms").millis(cost.servers);
    }
    if let Some(stale) = of.stale {
        json.key("stale_acknowledged").number(stale.acknowledged);
        json.key("stale_lost").number(stale.lost);
    }
    json.key("healed").boolean(of.problem.is_none());
    if let Some(why) = &of.problem {
        json.key("problem").text(why);
    }
}

#[cfg(test)]
mod tests {
    use super::super::events::Event;
    use super::*;

    fn outcome(problem: Option<&str>) -> Outcome {
        Outcome {
            event: Event::KillMaster,
            target: "redis-1".to_owned(),
            failover: Some(Duration::from_micros(34_567)),
            reached: None,
            skew: None,
            in_flight: Some(3),
            pause: Duration::from_micros(1_234),
            counts: Counts { sent: 10, answered: 9, failed: 1, held: 2 },
            verdict: Verdict { checked: 7, lost: 1, unread: 0 },
            whole_after: Duration::from_secs(2),
            problem: problem.map(str::to_owned),
            latency: None,
            cost: None,
            stale: None,
        }
    }

    #[test]
    fn a_line_tells_what_was_measured_and_whether_it_healed() {
        let line = outcome(None).line();
        assert!(
            line.contains("failover 34 ms, pause 1.2 ms, failed 1 of 3 under way, held 2, lost 1"),
            "{line}"
        );
        assert!(line.ends_with("whole after 2000 ms; healed"), "{line}");
        assert!(!line.contains("address"), "{line}");
        let line = outcome(Some("nobody answers")).line();
        assert!(line.ends_with("NOT HEALED: nobody answers"), "{line}");
    }

    #[test]
    fn a_report_is_good_only_if_everything_healed() {
        let mut report = Report { outcomes: vec![outcome(None)], ..Report::default() };
        assert!(report.is_good() && report.summary().ends_with("\nall healed\n"));
        report.outcomes.push(outcome(Some("why")));
        assert!(!report.is_good() && report.summary().ends_with("NOT all healed\n"));
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["healed"], false);
        assert_eq!(json["events"][0]["failover_ms"], 34.567);
        assert_eq!(json["events"][1]["problem"], "why");
        report.outcomes.pop();
        report.problems.push("a wrong reply".to_owned());
        assert!(!report.is_good());
    }
}
