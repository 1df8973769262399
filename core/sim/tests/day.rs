//! A day of virtual time: what the worker keeps in memory does not grow.
//!
//! Every byte that is allocated while the worker is being called is the worker's, until it is freed:
//! slabs, buffers, queues, timers, tables and whatever else there may be. Buffers that leave with a
//! write and are not given back, because their connection ends, are counted off.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_types,
    reason = "a test may stop where it broke"
)]

use std::alloc::System;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringkeeper_core::config::nutcracker;
use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{AtCapacity, Deadline, Drive, Endpoint, Input, Output};
use ringkeeper_core::limits::STREAM_REPLY_BYTES;
use ringkeeper_core::node::Worker;
use ringkeeper_core::proxy::{Plan, Policy};
use ringkeeper_core::time::Instant;
use ringkeeper_sim::{Pool, Scenario, Simulation};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const HOURS: usize = 24;

const HOUR: Duration = Duration::from_secs(3600);

/// Bytes by which the worker may be larger at the end than after the first hours: pooled buffers keep
/// the largest size that they have had, and come to it slowly.
const SLACK_BYTES: i64 = 96 * 1024;

/// What all allocations of this process are counted together, so only one test may run.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn live_bytes() -> i64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as i64 - stats.bytes_deallocated as i64
}

/// What one hour was like, bytes.
#[derive(Clone, Copy, Debug)]
struct Hour {
    least: i64,
    most: i64,
}

/// A machine and what it has in memory.
struct Measured<D> {
    machine: D,
    bytes: i64,
    /// Buffers that the runtime has, by their connection.
    lent: BTreeMap<ConnId, i64>,
    hours: Arc<Mutex<Vec<Hour>>>,
}

impl<D: Drive> Measured<D> {
    fn new(make: impl FnOnce() -> D, hours: Arc<Mutex<Vec<Hour>>>) -> Self {
        let before = live_bytes();
        let machine = make();
        Self { machine, bytes: live_bytes() - before, lent: BTreeMap::new(), hours }
    }

    fn within<T>(&mut self, work: impl FnOnce(&mut D) -> T) -> T {
        let before = live_bytes();
        let result = work(&mut self.machine);
        self.bytes += live_bytes() - before;
        result
    }

    fn note(&mut self, now: Instant) {
        let hour = (now.as_nanos() / HOUR.as_nanos() as u64) as usize;
        let mut hours = self.hours.lock().unwrap();
        let bytes = self.bytes;
        if hours.len() <= hour {
            hours.resize(hour + 1, Hour { least: bytes, most: bytes });
        }
        let hour = &mut hours[hour];
        (hour.least, hour.most) = (hour.least.min(bytes), hour.most.max(bytes));
    }
}

impl<D: Drive> Drive for Measured<D> {
    fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        self.within(|machine| machine.accept(now, on, peer))
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        match &input {
            Input::Sent { conn, .. } => {
                self.lent.remove(conn);
            }
            // What was in the write went with the connection.
            Input::Closed { conn, .. } => self.bytes -= self.lent.remove(conn).unwrap_or(0),
            _ => {}
        }
        self.within(|machine| machine.handle(now, input));
        self.note(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.within(|machine| machine.handle_timeout(now));
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.within(Drive::poll_output);
        if let Some(Output::Transmit { conn, buffer }) = &output {
            self.lent.insert(*conn, buffer.capacity() as i64);
        }
        output
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.machine.poll_timeout()
    }
}

/// Two pools, of which one speaks memcached's protocol.
fn pools() -> (Vec<Pool>, Arc<Plan>) {
    let mut pools = vec![Pool::plain(0, 3), Pool::plain(1, 2)];
    pools[1].is_memcache = true;
    let mut text = String::new();
    for (number, pool) in pools.iter_mut().enumerate() {
        pool.ejects = true;
        writeln!(
            text,
            "p{number}:\n  listen: 127.0.0.1:{}\n  redis: {}\n  timeout: 1000\n  \
             auto_eject_hosts: true\n  server_retry_timeout: 2000\n  servers:",
            22000 + number,
            !pool.is_memcache
        )
        .unwrap();
        for (index, server) in pool.servers.iter().enumerate() {
            writeln!(text, "   - {server}:1 s{index}").unwrap();
        }
    }
    let parsed = nutcracker::parse("day.yml", &text);
    let config = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    (pools, Arc::new(Plan::new(&config, Policy::RINGKEEPER)))
}

/// Lives through a day, and returns what each hour was like.
fn day<D: Drive>(seed: u64, mut scenario: Scenario, make: impl FnOnce() -> D) -> Vec<Hour> {
    scenario.streamed_reply_bytes = Some(STREAM_REPLY_BYTES);
    scenario.clients = 24;
    scenario.safety = HOUR * HOURS as u32;
    scenario.workload.think_max = Duration::from_secs(60);
    scenario.workload.pipeline_max = 12;
    scenario.workload.value_bytes_max = 4096;
    let hours = Arc::new(Mutex::new(Vec::new()));
    let machine = Measured::new(make, Arc::clone(&hours));
    let report =
        Simulation::new(seed, scenario).run(machine).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{report:?}");
    assert!(report.requests > 50_000, "{report:?}");
    let hours = hours.lock().unwrap();
    hours[..HOURS].to_vec()
}

/// Holds the second half of the day against the hours before it, the first of which fills pools and
/// makes what is made when it is first needed.
fn check_flat(hours: &[Hour]) {
    for (hour, Hour { least, most }) in hours.iter().enumerate() {
        println!("hour {hour:2}: {least:8} to {most:8} bytes");
    }
    let (early, late) = hours[1..].split_at(HOURS / 2 - 1);
    let least = |hours: &[Hour]| hours.iter().map(|hour| hour.least).min().unwrap();
    let most = |hours: &[Hour]| hours.iter().map(|hour| hour.most).max().unwrap();
    assert!(least(late) <= least(early) + SLACK_BYTES, "at rest it grows");
    assert!(most(late) <= 2 * most(early) + SLACK_BYTES, "at its height it grows");
}

#[test]
fn a_calm_day_leaves_the_memory_flat() {
    let _alone = alone();
    let (pools, plan) = pools();
    check_flat(&day(1, Scenario::calm(pools), || Worker::new(plan, 1, Instant::START)));
}

#[test]
fn a_day_of_faults_leaves_the_memory_flat() {
    let _alone = alone();
    let (pools, plan) = pools();
    let mut scenario = Scenario::harsh(pools);
    scenario.faults_every = Some(Duration::from_secs(60));
    scenario.settle = Duration::from_secs(30);
    check_flat(&day(2, scenario, || Worker::new(plan, 2, Instant::START)));
}

/// A machine that keeps a little of each connection.
struct Leaking(Worker, Vec<Vec<u8>>);

impl Drive for Leaking {
    fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        self.1.push(vec![0; 64]);
        self.0.accept(now, on, peer)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.0.handle(now, input);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.0.poll_output()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.0.poll_timeout()
    }
}

#[test]
fn a_leak_of_a_few_bytes_per_client_is_noticed() {
    let _alone = alone();
    let (pools, plan) = pools();
    let make = || Leaking(Worker::new(plan, 3, Instant::START), Vec::new());
    let hours = day(3, Scenario::calm(pools), make);
    assert!(std::panic::catch_unwind(|| check_flat(&hours)).is_err());
}
