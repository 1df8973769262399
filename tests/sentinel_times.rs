//! How long fail-overs take, and what watching costs. They measure, so they are run by name on a
//! machine that does nothing else:
//!
//! ```sh
//! cargo test --release --test sentinel_times -- --ignored --nocapture --test-threads 1
//! ```
//!
//! `RINGKEEPER_RUNS` is how often a master dies in each (default 20).
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::lab::Runtime;
use support::quorum::{Make, NAME, Quorum, Watcher, start_servers};
use support::resp::{Client, Reply};

fn runs() -> usize {
    std::env::var("RINGKEEPER_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// How a master goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    Stopped,
}

/// Asks all until all name another port than `old`, with connections that stand.
fn time_until_all_switched(clients: &mut [Client], old: u16, since: Instant) -> Duration {
    for client in clients {
        loop {
            let reply = client.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
            if reply.items()[1].text() != old.to_string() {
                break;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "no fail-over");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    since.elapsed()
}

/// Lets the master go away again and again; returns how long each fail-over took, in order.
fn measure(fault: Fault, down_after_ms: u32, fast: bool) -> (Vec<Duration>, usize) {
    let makes = [Make::Ours(Runtime::Uring); 3];
    let mut quorum = Quorum::start(&makes, down_after_ms);
    if fast {
        for watcher in &quorum.watchers {
            let set = ["SENTINEL", "SET", NAME, "fast-down", "yes"];
            assert_eq!(watcher.ask(&set), Reply::ok());
        }
    }
    let mut times = Vec::new();
    for run in 0..runs() {
        // At another phase of every period each time.
        std::thread::sleep(Duration::from_millis(500 + 37 * (run as u64 % 30)));
        let old = quorum.watchers[0].master_port();
        let master = quorum.servers.iter().position(|s| s.place.port() == old).unwrap();
        let mut clients: Vec<Client> = quorum.watchers.iter().map(Watcher::client).collect();
        let start = Instant::now();
        match fault {
            Fault::Killed => quorum.servers[master].kill(),
            Fault::Stopped => quorum.servers[master].signal(Signal::STOP),
        }
        times.push(time_until_all_switched(&mut clients, old, start));
        match fault {
            Fault::Killed => assert!(quorum.servers[master].run()),
            Fault::Stopped => quorum.servers[master].signal(Signal::CONT),
        }
        let port = quorum.watchers[0].master_port();
        let new = quorum.servers.iter().position(|s| s.place.port() == port).unwrap();
        quorum.wait_until_settled(new);
        quorum.wait_until_complete();
    }
    times.sort();
    let attempts = quorum.attempts();
    let median = times[times.len() / 2];
    let worst = *times.last().unwrap();
    eprintln!(
        "{fault:?}, down-after {down_after_ms} ms, fast-down {fast}: median {median:?}, worst \
         {worst:?} of {}, {attempts} attempts",
        times.len()
    );
    (times, attempts)
}

#[test]
#[ignore = "measures; run it by name on an idle machine"]
fn a_killed_master_is_replaced_everywhere_within_1150_ms_at_down_after_1000() {
    need!("redis-server");
    let (times, attempts) = measure(Fault::Killed, 1000, false);
    assert!(times.iter().all(|time| *time <= Duration::from_millis(1150)), "{times:?}");
    assert_eq!(attempts, times.len(), "one attempt for each death");
}

#[test]
#[ignore = "measures; run it by name on an idle machine"]
fn a_refused_connection_is_enough_with_fast_down() {
    need!("redis-server");
    let (times, _) = measure(Fault::Killed, 5000, true);
    assert!(times[times.len() / 2] <= Duration::from_millis(60), "{times:?}");
    assert!(times.iter().all(|time| *time <= Duration::from_millis(150)), "{times:?}");
}

#[test]
#[ignore = "measures; run it by name on an idle machine"]
fn a_stopped_master_is_replaced_within_350_ms_at_down_after_200() {
    need!("redis-server");
    let (times, _) = measure(Fault::Stopped, 200, false);
    assert!(times.iter().all(|time| *time <= Duration::from_millis(350)), "{times:?}");
}

/// Processor time that a process has used.
fn used(process: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
#[ignore = "measures; starts 200 Redis servers"]
fn watching_a_hundred_masters_costs_two_percent_and_20_mb() {
    need!("redis-server");
    const MASTERS: usize = 100;
    let groups: Vec<_> = (0..MASTERS).map(|_| start_servers(1)).collect();
    let watchers: Vec<Watcher> =
        (0..3).map(|_| Watcher::start(Make::Ours(Runtime::Uring), &groups[0][0], 2, "")).collect();
    for watcher in &watchers {
        let mut client = watcher.client();
        for (at, group) in groups.iter().enumerate().skip(1) {
            let (name, port) = (format!("m{at}"), group[0].place.port().to_string());
            let monitor = ["SENTINEL", "MONITOR", &name, "127.0.0.1", &port, "2"];
            assert_eq!(client.ask(&monitor), Reply::ok());
        }
    }
    std::thread::sleep(Duration::from_secs(15));
    let process = watchers[0].id();
    let (before, start) = (used(process), Instant::now());
    std::thread::sleep(Duration::from_secs(20));
    let share = (used(process) - before).as_secs_f64() / start.elapsed().as_secs_f64();
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    eprintln!("{MASTERS} masters: {:.2} % of a core, {kib} KiB", share * 100.0);
    assert!(share <= 0.02, "{share}");
    assert!(kib <= 20 * 1024, "{kib}");
}
