//! Whole deployments under seeded faults, as many seeds as fit into the time; and deployments with a
//! defect, which have to be found. For the environment see `proxy_seeds.rs`.
#![allow(clippy::panic, reason = "a test may stop where it broke")]

use std::time::Duration;

use ringkeeper_core::config::failover::Fence;
use ringkeeper_sim::Seeds;
use ringkeeper_sim::stack::{self, Mutation, Report, Scenario, Weather};

/// Runs as many seeds as the environment says, or as fit into the time.
fn run_all(name: &str, first: u64, draw: impl Fn(u64) -> Scenario) -> Report {
    let is_survey = std::env::var_os("RINGKEEPER_SURVEY").is_some();
    let seeds = Seeds::from_environment(first, Duration::from_secs(8));
    let mut sum = Report::default();
    let count = seeds.each(|seed| {
        let report = match stack::run(seed, &draw(seed)) {
            Ok(report) => report,
            Err(failure) if is_survey => {
                println!("{name}: seed {seed}: {}", failure.what);
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        sum.requests += report.requests;
        sum.done += report.done;
        sum.not_sent += report.not_sent;
        sum.unknown += report.unknown;
        sum.cut += report.cut;
        sum.lost += report.lost;
        sum.switches += report.switches;
        sum.faults += report.faults;
        sum.steps += report.steps;
        sum.recovered = sum.recovered.max(report.recovered);
        Ok(())
    });
    let count = count.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    println!("{name}: {count} seeds, {sum:?}");
    sum
}

#[test]
fn everything_heals_and_nobody_is_lied_to() {
    run_all("best-effort", 0, |seed| {
        Scenario::draw(seed, Fence::BestEffort, false, Weather::Storm)
    });
}

#[test]
fn no_old_master_is_written_to_while_leases_are_lent() {
    run_all("strict", 1_000_000, |seed| Scenario::draw(seed, Fence::Strict, false, Weather::Storm));
}

#[test]
fn what_was_acknowledged_by_a_replica_too_is_kept() {
    run_all("replicated", 2_000_000, |seed| {
        let fence = if seed % 2 == 0 { Fence::BestEffort } else { Fence::Strict };
        Scenario::draw(seed, fence, true, Weather::Storm)
    });
}

#[test]
fn planned_failovers_fail_nothing_and_lose_nothing() {
    let sum = run_all("planned", 3_000_000, |seed| {
        let fence = if seed % 2 == 0 { Fence::BestEffort } else { Fence::Strict };
        Scenario::draw(seed, fence, seed % 4 > 1, Weather::Planned)
    });
    assert_eq!(sum.done + sum.unknown, sum.requests, "{sum:?}");
    assert_eq!(sum.lost, 0, "{sum:?}");
}

#[test]
fn seeds_that_found_something_find_it_no_more() {
    let strict = |seed| Scenario::draw(seed, Fence::Strict, false, Weather::Storm);
    let planned = |seed, fence| Scenario::draw(seed, fence, false, Weather::Planned);
    let all = [
        // A switch was taken for a fence, and every host gave the address up.
        (3_000_011, planned(3_000_011, Fence::Strict)),
        // News that came after a switch ended the wait for what the former master refuses.
        (3_000_114, planned(3_000_114, Fence::BestEffort)),
        // A hello to a master whose writes were paused put off the end of the pause.
        (3_000_137, planned(3_000_137, Fence::Strict)),
        // The end of the faults held up for 170 ms what was on its way, where there were no faults.
        (3_000_147, Scenario::draw(3_000_147, Fence::Strict, true, Weather::Planned)),
        // A Sentinel named a connection whose end it had been told.
        (53, strict(53)),
        // A process of the model whose last news after a stop was of a connection that was gone slept
        // for ever.
        (1_000_281, strict(1_000_281)),
        // All hosts were ill, and who had the address all the same was to leave it soon.
        (1_186, Scenario::draw(1_186, Fence::BestEffort, false, Weather::Storm)),
    ];
    for (seed, scenario) in all {
        if let Err(failure) = stack::run(seed, &scenario) {
            panic!("{failure}");
        }
    }
}

/// Holds that the switch makes the difference: without it the same seeds break nothing.
fn assert_found(mutation: Mutation, rules: &[&str], draw: impl Fn(u64) -> Scenario) {
    let found = (0..300).find_map(|seed| {
        let scenario = Scenario { mutation: Some(mutation), ..draw(seed) };
        stack::run(seed, &scenario).err().map(|failure| (seed, failure.what))
    });
    let Some((seed, what)) = found else { panic!("{mutation:?} is not found") };
    println!("{mutation:?} is found by seed {seed}: {what}");
    assert!(rules.iter().any(|rule| what.contains(rule)), "{what}");
    if let Err(failure) = stack::run(seed, &draw(seed)) {
        panic!("without {mutation:?}: {failure}");
    }
}

#[test]
fn a_lease_that_is_ignored_is_found() {
    let draw = |seed| Scenario::draw(seed, Fence::Strict, false, Weather::Storm);
    assert_found(Mutation::IgnoresLease, &["S8"], draw);
}

#[test]
fn a_switch_that_is_ignored_is_found() {
    let draw = |seed| Scenario::draw(seed, Fence::BestEffort, false, Weather::Storm);
    // It writes to the former master, it holds requests for too long, or it refuses them after all.
    let rules = ["S8", "H:", "failed where nothing is wrong: -MASTERDOWN"];
    assert_found(Mutation::IgnoresSwitch, &rules, draw);
}

#[test]
fn an_address_that_is_not_given_up_is_found() {
    let draw = |seed| Scenario::draw(seed, Fence::BestEffort, false, Weather::Storm);
    assert_found(Mutation::KeepsAddress, &["V1", "the address is at"], draw);
}

#[test]
fn replicas_that_are_not_awaited_are_found() {
    let draw = |seed| Scenario::draw(seed, Fence::BestEffort, true, Weather::Storm);
    assert_found(Mutation::AwaitsNoCopies, &["acknowledged and is lost"], draw);
}

#[test]
fn replies_that_are_mixed_up_are_found() {
    let draw = |seed| Scenario::draw(seed, Fence::BestEffort, false, Weather::Storm);
    assert_found(Mutation::MixesReplies, &["finds in", "was answered", "is told"], draw);
}
