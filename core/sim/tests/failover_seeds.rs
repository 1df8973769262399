//! Shards that lose, change and fence their masters under a worker, as many seeds as fit into the
//! time; and workers with a fault, which the judge has to find. For the environment see
//! `proxy_seeds.rs`.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may stop where it broke")]

use std::fmt::Write;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ringkeeper_core::config::failover::{Fence, Replay};
use ringkeeper_core::config::nutcracker;
use ringkeeper_core::node::Worker;
use ringkeeper_core::proxy::{Plan, Policy};
use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;
use ringkeeper_sim::Seeds;
use ringkeeper_sim::failover::{self, Mutant, Mutation, SHARDS, Setup, Tally};

fn plan(seed: u64, setup: Setup) -> Plan {
    let mut rng = Rng::new(seed ^ 0xc0f1);
    let mut text = String::from("p:\n  listen: 127.0.0.1:22121\n  redis: true\n");
    let connections = 1 + rng.below(2);
    writeln!(text, "  timeout: 2000\n  server_connections: {connections}\n  servers:")
        .expect("text");
    for (at, name) in SHARDS.iter().enumerate() {
        writeln!(text, "    - 10.0.{at}.1:6379:1 {name}").expect("text");
    }
    let parsed = nutcracker::parse("sim.yml", &text);
    let config = parsed.config.unwrap_or_else(|| panic!("{text}\n{:?}", parsed.diagnostics));
    let mut plan = Plan::new(&config, Policy::RINGKEEPER);
    for pool in &mut plan.pools {
        for server in &mut pool.servers {
            server.shard = Some(Arc::from(server.name.as_str()));
        }
        pool.failover.hold = Some(Duration::from_secs(3));
        if setup.is_idempotent {
            pool.failover.replay = Replay::Idempotent;
        }
        if setup.is_strict {
            pool.failover.fence = Fence::Strict;
        }
        if setup.is_replicated {
            pool.failover.replicated = NonZeroU32::new(1);
            pool.failover.replicated_timeout = Duration::from_millis(200);
        }
    }
    plan
}

fn worker(seed: u64, setup: Setup) -> Worker {
    Worker::new(Arc::new(plan(seed, setup)), seed, Instant::START)
}

fn run_all(name: &str, first: u64, setup: Setup) -> Tally {
    let seeds = Seeds::from_environment(first, Duration::from_secs(3));
    let mut sum = Tally::default();
    let outcome = seeds.each(|seed| {
        let tally = failover::run(seed, setup, &mut worker(seed, setup))
            .map_err(|what| format!("seed {seed} {what} ({setup:?})"))?;
        sum.requests += tally.requests;
        sum.done += tally.done;
        sum.not_sent += tally.not_sent;
        sum.unknown += tally.unknown;
        sum.failed += tally.failed;
        sum.switches += tally.switches;
        Ok::<(), String>(())
    });
    let seeds = outcome.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{name}: {seeds} seeds, {sum:?}");
    sum
}

#[test]
fn what_clients_see_of_failovers_is_what_happened() {
    let setup = Setup::default();
    let sum = run_all("reads are sent again", 0, setup);
    assert!(sum.switches > 0 && sum.unknown > 0 && sum.done > sum.requests / 2, "{sum:?}");
}

#[test]
fn idempotent_writes_are_sent_again_in_order() {
    run_all("idempotent", 10_000, Setup { is_idempotent: true, ..Setup::default() });
}

#[test]
fn a_strict_fence_lets_nothing_pass() {
    run_all("strict", 20_000, Setup { is_strict: true, ..Setup::default() });
}

#[test]
fn planned_failovers_fail_no_request() {
    let sum = run_all("planned", 30_000, Setup { is_planned: true, ..Setup::default() });
    assert_eq!(sum.done, sum.requests, "{sum:?}");
}

#[test]
fn replicated_writes_that_were_acknowledged_are_never_lost() {
    let sum = run_all("replicated", 40_000, Setup { is_replicated: true, ..Setup::default() });
    assert!(sum.unknown > 0 && sum.done > sum.requests / 2, "{sum:?}");
}

#[test]
fn the_judge_finds_workers_with_a_fault() {
    let plain = Setup::default();
    let replicated = Setup { is_replicated: true, ..plain };
    let planted = [
        (Mutation::Deaf, plain),
        (Mutation::Careless, plain),
        (Mutation::Stutter, plain),
        (Mutation::Optimist, plain),
        (Mutation::Mute, plain),
        (Mutation::Hasty, replicated),
    ];
    for (mutation, setup) in planted {
        let found = (0..40).find_map(|seed| {
            let mut mutant = Mutant::new(worker(seed, setup), mutation);
            failover::run(seed, setup, &mut mutant).err().map(|what| (seed, what))
        });
        let Some((seed, what)) = found else { panic!("{mutation:?} is not found") };
        println!("{mutation:?} is found by seed {seed}: {what}");
    }
}
