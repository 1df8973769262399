//! The proxy under seeded faults: as many seeds as fit into the time.
//!
//! `RINGKEEPER_SEED=n` runs one seed again, `RINGKEEPER_SEEDS=10000` that many,
//! `RINGKEEPER_SIM_SECONDS=s` gives more or less than the usual time, `RINGKEEPER_SURVEY=1` lists
//! all failures instead of stopping at the first, `RINGKEEPER_TRACE=n` shows more of what led to
//! one, and the configuration.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop where it broke"
)]

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ringkeeper_core::config::nutcracker;
use ringkeeper_core::id::PoolId;
use ringkeeper_core::io::{Endpoint, Parcel};
use ringkeeper_core::limits::STREAM_REPLY_BYTES;
use ringkeeper_core::node::Worker;
use ringkeeper_core::proxy::{ListenerRole, Plan, Policy};
use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;
use ringkeeper_sim::{Failure, Pool, Profile, Report, Scenario, Seeds, Simulation, Summary};

/// What the resolver knows.
type Hosts = Vec<(String, IpAddr)>;

/// Draws pools, and the configuration that describes them.
fn draw_pools(rng: &mut Rng) -> (Vec<Pool>, Hosts, String) {
    let mut hosts = Hosts::new();
    let mut pools = Vec::new();
    let mut text = String::new();
    for number in 0..1 + rng.below(2) as u8 {
        let servers = 1 + rng.below(5) as u8;
        let mut pool = Pool::plain(number, servers);
        let distribution = ["ketama", "modula"][rng.below(2) as usize];
        // Longer than an address, a greeting and a request take on the slowest link.
        let timeout_ms = [150, 300, 1000][rng.below(3) as usize];
        let connections = 1 + rng.below(3);
        writeln!(text, "p{number}:").unwrap();
        writeln!(text, "  listen: 127.0.0.1:{}", 22000 + u16::from(number)).unwrap();
        pool.is_memcache = rng.is_one_in(1, 3);
        let is_redis = !pool.is_memcache;
        writeln!(text, "  redis: {is_redis}\n  distribution: {distribution}").unwrap();
        writeln!(text, "  timeout: {timeout_ms}\n  server_connections: {connections}").unwrap();
        writeln!(text, "  preconnect: {}", rng.is_one_in(1, 2)).unwrap();
        if is_redis && rng.is_one_in(1, 4) {
            pool.password = Some(b"secret".to_vec());
            writeln!(text, "  redis_auth: secret").unwrap();
        }
        if is_redis && rng.is_one_in(1, 4) {
            pool.database = 3;
            writeln!(text, "  redis_db: 3").unwrap();
        }
        if rng.is_one_in(1, 3) {
            pool.ejects = true;
            writeln!(text, "  auto_eject_hosts: true\n  server_retry_timeout: 400").unwrap();
        }
        let is_named = rng.is_one_in(1, 4);
        writeln!(text, "  servers:").unwrap();
        for (index, server) in pool.servers.iter().enumerate() {
            let Endpoint::Tcp(address) = server else { continue };
            if !is_named {
                writeln!(text, "   - {address}:1 s{index}").unwrap();
                continue;
            }
            let host = format!("s{index}.p{number}.test");
            if rng.is_one_in(1, 3) {
                // An address that leads nowhere comes first.
                hosts.push((host.clone(), IpAddr::from([10, 9, number, index as u8])));
            }
            writeln!(text, "   - {host}:{}:1 s{index}", address.port()).unwrap();
            hosts.push((host, address.ip()));
        }
        pools.push(pool);
    }
    (pools, hosts, text)
}

/// Draws plans that keep every key where it is and change what else may change. Half of the seeds
/// keep the plan that they began with.
fn draw_plans(seed: u64, first: &Plan) -> Vec<Parcel> {
    let mut rng = Rng::new(seed ^ 0x7e10ad);
    if rng.is_one_in(1, 2) {
        return Vec::new();
    }
    let plans = (0..4).map(|_| {
        let mut plan = first.clone();
        for pool in &mut plan.pools {
            if rng.is_one_in(1, 2) {
                pool.server_connections = 1 + rng.below(3) as u32;
            }
            pool.is_preconnecting = rng.is_one_in(1, 2);
            pool.failure_limit = 1 + rng.below(3) as u32;
        }
        if rng.is_one_in(1, 2) {
            // A pool that sorts before the others and comes and goes: every position changes.
            let mut other = plan.pools[0].clone();
            other.name = "0".to_owned();
            other.is_preconnecting = false;
            plan.pools.insert(0, other);
            for role in &mut plan.listeners {
                if let ListenerRole::Pool(PoolId(at)) = role {
                    *at += 1;
                }
            }
        }
        Parcel::new(Arc::new(plan))
    });
    plans.collect()
}

fn run(seed: u64, make: fn(Vec<Pool>) -> Scenario) -> Result<Report, Box<Failure>> {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let (pools, hosts, text) = draw_pools(&mut rng);
    let parsed = nutcracker::parse("sim.yml", &text);
    let config = parsed.config.unwrap_or_else(|| panic!("{text}\n{:?}", parsed.diagnostics));
    let mut scenario = make(pools);
    scenario.hosts = hosts;
    if let Some(lines) = std::env::var("RINGKEEPER_TRACE").ok().and_then(|text| text.parse().ok()) {
        scenario.trace_lines = lines;
        println!("{text}");
    }
    let policy = if rng.is_one_in(1, 5) {
        // Its users expect that a failed MGET ends the connection.
        scenario.closes_on_failure = true;
        Policy::NUTCRACKER
    } else {
        Policy::RINGKEEPER
    };
    let mut plan = Plan::new(&config, policy);
    scenario.streamed_reply_bytes = Some(STREAM_REPLY_BYTES);
    // Short runs try more configurations, long ones go deeper.
    scenario.safety = Duration::from_millis([100, 300, 1000][rng.below(3) as usize]);
    if rng.is_one_in(1, 40) {
        // Long enough to see that even dead servers are not waited for.
        scenario.safety = Duration::from_secs(10);
        scenario.reply_within = Some(Duration::from_secs(6));
    }
    scenario.clients = 1 + rng.below(12) as u32;
    scenario.drains = rng.is_one_in(1, 2);
    if rng.is_one_in(1, 4) {
        for pool in &mut plan.pools {
            pool.client_output_bytes_max = 1 << 20;
        }
        let has_faults = !scenario.faults.is_empty();
        scenario.client_backlog_bytes_max = Some(if has_faults { 64 << 20 } else { 2 << 20 });
        if !has_faults {
            // Whoever never reads keeps servers busy, which is no reason to fail the others.
            scenario.workload.profiles.push(Profile::Deaf);
            plan.pools.iter_mut().for_each(|pool| pool.timeout = None);
        }
    }
    scenario.plans = draw_plans(seed, &plan);
    let worker = Worker::new(Arc::new(plan), seed, Instant::START);
    Simulation::new(seed, scenario).run(worker)
}

fn run_all(name: &str, first: u64, seconds: u64, make: fn(Vec<Pool>) -> Scenario) {
    let seeds = Seeds::from_environment(first, Duration::from_secs(seconds));
    // A survey goes on after a failure and tells what each seed says.
    let is_survey = std::env::var_os("RINGKEEPER_SURVEY").is_some();
    let summary: Summary = seeds
        .run(|seed| {
            if is_survey {
                // A machine that never returns is found by the last of these lines.
                eprintln!("{name}: seed {seed}");
            }
            match run(seed, make) {
                Err(failure) if is_survey => {
                    println!("{name}: seed {seed} at {:?}: {}", failure.at, failure.what);
                    Ok(Report::default())
                }
                outcome => outcome,
            }
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    println!("{name}: {summary:?}");
}

#[test]
fn the_proxy_serves_good_clients_without_a_single_error() {
    run_all("calm", 0, 6, Scenario::calm);
}

#[test]
fn the_proxy_survives_every_storm_and_serves_well_after_it() {
    run_all("harsh", 1_000_000, 14, Scenario::harsh);
}
