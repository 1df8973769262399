//! Known defects, put back by a switch at the border: each has to be found within the ordinary
//! number of seeds, or the faults are too tame and the checks too lenient.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail as tests do"
)]

mod fleet;

use std::time::Duration;

use ringkeeper_core::rng::Rng;
use ringkeeper_sim::sentinel::{Defects, FaultKind, Fleet, Member, Mutation, Plan};

/// The ordinary number of seeds: what a run of all seeds tries within its time.
const SEEDS: u64 = 300;

/// Draws a run in which the defect has a chance to show.
fn draw(seed: u64, member: Member, masters: usize, faults: &[FaultKind]) -> Plan {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut plan = Plan::calm(vec![member; 3]);
    plan.make = Some(fleet::make());
    plan.blames_all = true;
    plan.masters = masters;
    plan.replicas = 1 + rng.below(2) as usize;
    plan.down_after = Duration::from_millis([500, 1_000][rng.below(2) as usize]);
    plan.failover_timeout = Duration::from_millis(4_000);
    plan.latency = Duration::from_micros([30, 5_000, 20_000][rng.below(3) as usize]);
    plan.faults = faults.to_vec();
    plan.storm = Duration::from_secs(30);
    plan
}

/// Returns the first seed that breaks one of `rules`.
fn find(rules: &[&str], plan: impl Fn(u64) -> Plan) -> Option<(u64, String)> {
    for seed in 0..SEEDS {
        if let Err(failure) = Fleet::run(seed, plan(seed))
            && rules.contains(&failure.breach.rule)
        {
            return Some((seed, format!("{}: {}", failure.breach.rule, failure.breach.what)));
        }
    }
    None
}

fn assert_found(rules: &[&str], plan: impl Fn(u64) -> Plan) {
    let found = find(rules, plan);
    println!("{found:?}");
    assert!(found.is_some(), "not found in {SEEDS} seeds");
}

/// Holds that the switch makes the difference: without it, the same runs break nothing.
fn assert_ours_is_found(mutation: Mutation, rules: &[&str], plan: impl Fn(u64, Member) -> Plan) {
    for seed in 0..SEEDS / 30 {
        if let Err(failure) = Fleet::run(seed, plan(seed, Member::Ours(None))) {
            assert!(!rules.contains(&failure.breach.rule), "without the defect: {failure}");
        }
    }
    assert_found(rules, |seed| plan(seed, Member::Ours(Some(mutation))));
}

const STORM: &[FaultKind] =
    &[FaultKind::Kill, FaultKind::Masters, FaultKind::Cut, FaultKind::Tail, FaultKind::Pause];

#[test]
fn the_model_without_defects_keeps_its_safety() {
    for seed in 0..20 {
        let plan = draw(seed, Member::Genuine(Defects::NONE), 3, STORM);
        if let Err(failure) = Fleet::run(seed, plan) {
            // It may still be late, and act on what it should know better.
            assert!(!["S1", "S2", "S4", "D1"].contains(&failure.breach.rule), "{failure}");
        }
    }
}

#[test]
fn votes_counted_for_the_wrong_election_are_found() {
    let member = Member::Genuine(Defects { counts_wrong_epoch: true, ..Defects::NONE });
    assert_found(&["S2", "S4"], |seed| draw(seed, member, 5, STORM));
}

#[test]
fn confirmations_of_the_old_address_are_found() {
    let member = Member::Genuine(Defects { keeps_confirmations: true, ..Defects::NONE });
    assert_found(&["S6"], |seed| draw(seed, member, 1, STORM));
}

#[test]
fn votes_that_could_not_be_saved_are_found() {
    let member = Member::Genuine(Defects { votes_unsaved: true, ..Defects::NONE });
    let faults = [FaultKind::Disk, FaultKind::Kill, FaultKind::Masters, FaultKind::Cut];
    assert_found(&["S1", "S2"], |seed| draw(seed, member, 1, &faults));
}

#[test]
fn answers_before_the_disk_are_found() {
    let member = Member::Genuine(Defects { answers_before_disk: true, ..Defects::NONE });
    let faults = [FaultKind::Kill, FaultKind::Masters, FaultKind::Cut, FaultKind::Pause];
    assert_found(&["S1", "S2"], |seed| draw(seed, member, 1, &faults));
}

#[test]
fn voters_that_are_forgotten_when_dead_are_found() {
    let member = Member::Genuine(Defects { forgets_dead_voters: true, ..Defects::NONE });
    let faults = [FaultKind::Partition, FaultKind::Kill, FaultKind::Masters];
    let plan = |seed| Plan { quorum: 1, ..draw(seed, member, 1, &faults) };
    assert_found(&["S2"], plan);
}

#[test]
fn hellos_of_the_same_epoch_that_are_believed_are_found() {
    let member = Member::Genuine(Defects { believes_equal_epochs: true, ..Defects::NONE });
    assert_found(&["S4"], |seed| Plan { disagrees: true, ..draw(seed, member, 1, STORM) });
}

#[test]
fn a_stale_master_that_is_promoted_is_found() {
    let member = Member::Genuine(Defects { promotes_stale_master: true, ..Defects::NONE });
    assert_found(&["D1"], |seed| draw(seed, member, 1, STORM));
}

#[test]
fn ours_that_counts_votes_for_the_wrong_election_is_found() {
    // It takes elections of several masters that overlap, and so a slow network.
    let faults = [FaultKind::Masters, FaultKind::Tail];
    let plan = |seed, member| Plan {
        latency: Duration::from_millis(20),
        storm: Duration::from_secs(20),
        ..draw(seed, member, 5, &faults)
    };
    assert_ours_is_found(Mutation::CountsWrongEpoch, &["S2", "S4"], plan);
}

#[test]
fn ours_that_answers_before_the_disk_is_found() {
    let faults = [FaultKind::Kill, FaultKind::Masters, FaultKind::Cut, FaultKind::Pause];
    let plan = |seed, member| draw(seed, member, 1, &faults);
    assert_ours_is_found(Mutation::AnswersBeforeDisk, &["S1", "S2", "S3"], plan);
}

#[test]
fn ours_that_does_not_notice_a_failing_disk_is_found() {
    // Two have to stand in one election, which those who stand apart do only where words take long.
    let faults = [
        FaultKind::Disk,
        FaultKind::Kill,
        FaultKind::Masters,
        FaultKind::Partition,
        FaultKind::Cut,
        FaultKind::Tail,
        FaultKind::Pause,
    ];
    let plan = |seed, member| Plan {
        latency: Duration::from_millis(100),
        ..draw(seed, member, 1, &faults)
    };
    assert_ours_is_found(Mutation::VotesUnsaved, &["S1", "S2"], plan);
}

#[test]
fn ours_that_forgets_voters_is_found() {
    let faults = [FaultKind::Partition, FaultKind::Kill, FaultKind::Masters];
    let plan = |seed, member| Plan { quorum: 1, ..draw(seed, member, 1, &faults) };
    assert_ours_is_found(Mutation::ForgetsVoters, &["S2"], plan);
}

#[test]
fn ours_that_promises_leases_to_everybody_is_found() {
    let plan = |seed, member| Plan {
        make: Some(fleet::make_strict()),
        is_strict: true,
        ..draw(seed, member, 1, STORM)
    };
    assert_ours_is_found(Mutation::PromisesAlways, &["S8"], plan);
}

#[test]
fn ours_whose_workers_do_not_know_when_a_lease_ends_is_found() {
    // A host stands still, somebody else gets the master, and its proxies are the first to go on.
    let faults = [FaultKind::Pause, FaultKind::Masters, FaultKind::Cut];
    let plan = |seed, member| Plan {
        make: Some(fleet::make_strict()),
        is_strict: true,
        ..draw(seed, member, 1, &faults)
    };
    assert_ours_is_found(Mutation::HidesEnds, &["S8"], plan);
}

#[test]
fn ours_that_believes_hellos_of_the_same_epoch_is_found() {
    let plan = |seed, member| Plan { disagrees: true, ..draw(seed, member, 1, STORM) };
    assert_ours_is_found(Mutation::BelievesEqualEpochs, &["S4"], plan);
}
