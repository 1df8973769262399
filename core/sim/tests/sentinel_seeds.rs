//! Fleets of Sentinels under seeded faults: ours, genuine ones, and both in one quorum.

mod fleet;

use std::collections::BTreeMap;
use std::time::Duration;

use ringkeeper_core::rng::Rng;
use ringkeeper_sim::sentinel::{ALL_FAULTS, Defects, Ending, FaultKind, Fleet, Member, Plan};

/// Draws the circumstances of a run with these members.
fn draw(seed: u64, members: Vec<Member>, masters: usize) -> Plan {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut plan = Plan::calm(members);
    plan.make = Some(fleet::make());
    plan.masters = masters;
    plan.replicas = 1 + rng.below(2) as usize;
    plan.down_after = Duration::from_millis([500, 1_000, 3_000][rng.below(3) as usize]);
    plan.failover_timeout = Duration::from_millis([4_000, 10_000][rng.below(2) as usize]);
    plan.latency = Duration::from_micros([30, 300, 5_000][rng.below(3) as usize]);
    plan.faults = ALL_FAULTS.to_vec();
    plan.faults.retain(|kind| *kind != FaultKind::ByHand);
    plan.storm = Duration::from_secs([10, 30, 60][rng.below(3) as usize]);
    plan
}

/// Adds up what the runs of some seeds did.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "printed")]
struct Sum {
    seeds: u64,
    steps: u64,
    faults: u64,
    tries: u64,
    switches: u64,
    aborts: u64,
    unwell: u64,
    recovered_max: Duration,
    replaced_max: Duration,
    shipped: BTreeMap<&'static str, u64>,
}

fn run_all(seeds: std::ops::Range<u64>, make: impl Fn(u64) -> Plan) -> Sum {
    let mut sum = Sum::default();
    for seed in seeds {
        let report = Fleet::run(seed, make(seed)).unwrap_or_else(|failure| panic!("{failure}"));
        sum.seeds += 1;
        sum.steps += report.steps;
        sum.faults += report.faults;
        sum.tries += report.tries;
        sum.switches += report.switches;
        sum.aborts += report.aborts;
        sum.unwell += u64::from(report.ending == Ending::Unwell);
        sum.recovered_max = sum.recovered_max.max(report.recovered);
        sum.replaced_max = sum.replaced_max.max(report.replaced);
        for (rule, count) in report.shipped {
            *sum.shipped.entry(rule).or_default() += count;
        }
    }
    sum
}

#[test]
fn genuine_sentinels_alone_survive_storms_mostly() {
    for masters in [1, 5, 20] {
        let genuine = Member::Genuine(Defects::SHIPPED);
        let count = 60 / masters as u64 + 5;
        let begun = std::time::Instant::now();
        let sum = run_all(0..count, |seed| draw(seed, vec![genuine; 3], masters));
        println!("{masters} masters: {sum:?} {:?}", begun.elapsed());
    }
}

#[test]
fn ours_alone_do_nothing_where_nothing_is_wrong() {
    let members = vec![Member::Ours(None); 3];
    let sum = run_all(0..5, |seed| Plan {
        faults: Vec::new(),
        is_recording: true,
        ..draw(seed, members.clone(), 1)
    });
    println!("{sum:?}");
}

#[test]
fn ours_alone_survive_storms() {
    let members = vec![Member::Ours(None); 3];
    let one = std::env::var("RINGKEEPER_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in one.map_or(0..300, |seed: u64| seed..seed + 1) {
        match Fleet::run(seed, draw(seed, members.clone(), 1)) {
            Ok(_) => {}
            Err(failure) => {
                if one.is_some() {
                    println!("{failure}")
                } else {
                    println!("{seed} FAIL {:?} {}", failure.breach.rule, failure.breach.what)
                }
            }
        }
    }
}
