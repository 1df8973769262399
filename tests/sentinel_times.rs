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

use support::eventually;
use support::lab::{Redis, Runtime};
use support::quorum::{Make, NAME, Quorum, Watcher, start_servers};
use support::resp::{Client, Reply};

fn runs() -> usize {
    std::env::var("RINGKEEPER_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// Events that every fail-over has.
const STEPS: [&str; 7] = [
    "+sdown master",
    "+odown",
    "+try-failover",
    "+vote-for-leader",
    "+elected",
    "+promoted-slave",
    "+switch-master",
];

/// Masters that are watched at once.
const MASTERS: usize = 100;

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

/// Masters with a replica each, and three Sentinels that watch them all.
struct Herd {
    groups: Vec<Vec<Redis>>,
    watchers: Vec<Watcher>,
}

/// What the master of a group is called.
fn name_of(group: usize) -> String {
    if group == 0 { NAME.to_owned() } else { format!("m{group}") }
}

impl Herd {
    /// Starts all of it; each `setting` is a word and a value of SENTINEL SET. Returns when each
    /// Sentinel knows each replica and each peer.
    fn start(masters: usize, settings: &[[&str; 2]]) -> Self {
        let mut groups: Vec<Vec<Redis>> = Vec::new();
        // Some at a time: one after the other takes minutes.
        while groups.len() < masters {
            let count = (masters - groups.len()).min(8);
            let started: Vec<_> = std::thread::scope(|scope| {
                let all: Vec<_> = (0..count).map(|_| scope.spawn(|| start_servers(1))).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            groups.extend(started);
        }
        let ours = Make::Ours(Runtime::Uring);
        let watchers: Vec<Watcher> =
            (0..3).map(|_| Watcher::start(ours, &groups[0][0], 2, "")).collect();
        for watcher in &watchers {
            let mut client = watcher.client();
            for (at, group) in groups.iter().enumerate() {
                let (name, port) = (name_of(at), group[0].place.port().to_string());
                if at > 0 {
                    let monitor = ["SENTINEL", "MONITOR", &name, "127.0.0.1", &port, "2"];
                    assert_eq!(client.ask(&monitor), Reply::ok());
                }
                for [word, value] in settings {
                    assert_eq!(client.ask(&["SENTINEL", "SET", &name, word, value]), Reply::ok());
                }
            }
        }
        let herd = Self { groups, watchers };
        herd.wait_until_complete();
        herd
    }

    fn wait_until_complete(&self) {
        for watcher in &self.watchers {
            let mut client = watcher.client();
            for group in 0..self.groups.len() {
                let name = name_of(group);
                eventually(&format!("{name} is known whole"), || {
                    let items = client.ask(&["SENTINEL", "MASTER", &name]);
                    let items = items.items();
                    let has = |field: &str, value: &str| {
                        let at = items.iter().position(|item| item.text() == field).unwrap();
                        items[at + 1].text() == value
                    };
                    let knows = has("num-slaves", "1") && has("num-other-sentinels", "2");
                    (knows && has("flags", "master")).then_some(())
                });
            }
        }
    }

    /// Tells when each step of the last fail-overs was first and last taken, by the logs.
    fn tell_steps(&self) {
        for (at, watcher) in self.watchers.iter().enumerate() {
            let log = watcher.log();
            for step in STEPS {
                let lines: Vec<&str> = log.lines().filter(|line| line.contains(step)).collect();
                let time = |line: &&str| line.split_whitespace().nth(4).unwrap().to_owned();
                let last = &lines[lines.len().saturating_sub(MASTERS)..];
                let (first, last) = (last.first().map(time), last.last().map(time));
                eprintln!("{at} {step:16} {:4} from {first:?} to {last:?}", lines.len());
            }
        }
    }

    /// Kills the masters of some groups at once; returns how long it took until every Sentinel
    /// named the replica of each.
    fn kill_masters(&self, groups: std::ops::Range<usize>) -> Duration {
        let mut clients: Vec<Client> = self.watchers.iter().map(Watcher::client).collect();
        let names: Vec<String> = groups.clone().map(name_of).collect();
        let start = Instant::now();
        for group in groups.clone() {
            self.groups[group][0].signal(Signal::KILL);
        }
        for client in &mut clients {
            for (group, name) in groups.clone().zip(&names) {
                let new = self.groups[group][1].place.port().to_string();
                let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name];
                while client.ask(&ask).items()[1].text() != new {
                    assert!(start.elapsed() < Duration::from_secs(30), "no fail-over of {name}");
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        start.elapsed()
    }
}

#[test]
#[ignore = "measures; starts 200 Redis servers"]
fn a_hundred_masters_that_die_at_once_are_replaced_within_twice_the_time_of_one() {
    need!("redis-server");
    const SINGLE: usize = 5;
    let herd = Herd::start(SINGLE + MASTERS, &[["down-after-milliseconds", "1000"]]);
    let mut single: Vec<Duration> =
        (0..SINGLE).map(|group| herd.kill_masters(group..group + 1)).collect();
    single.sort();
    let spent = || herd.watchers.iter().map(|w| used(w.id())).collect::<Vec<_>>();
    let before = spent();
    let all = herd.kill_masters(SINGLE..SINGLE + MASTERS);
    let spent: Vec<_> = spent().iter().zip(before).map(|(after, before)| *after - before).collect();
    let attempts: usize =
        herd.watchers.iter().map(|w| w.log().matches("+promoted-slave").count()).sum();
    eprintln!(
        "one master: {single:?}; {MASTERS} at once: {all:?}; {attempts} attempts; processor time of \
         each Sentinel meanwhile: {spent:?}"
    );
    herd.tell_steps();
    assert_eq!(attempts, SINGLE + MASTERS, "one attempt for each death");
    assert!(all <= single[SINGLE / 2] * 2, "{all:?}");
}

#[test]
#[ignore = "measures; starts 200 Redis servers"]
fn watching_a_hundred_masters_costs_two_percent_and_20_mb() {
    need!("redis-server");
    let herd = Herd::start(MASTERS, &[]);
    // What was new to the Sentinels is on disk and told by now.
    std::thread::sleep(Duration::from_secs(15));
    let process = herd.watchers[0].id();
    let (before, start) = (used(process), Instant::now());
    std::thread::sleep(Duration::from_secs(20));
    let share = (used(process) - before).as_secs_f64() / start.elapsed().as_secs_f64();
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let (kib, own) = (field("VmRSS"), field("RssAnon"));
    eprintln!(
        "{MASTERS} masters: {:.2} % of a core, {kib} KiB, of which {own} KiB are its own",
        share * 100.0
    );
    assert!(share <= 0.02, "{share}");
    assert!(kib <= 20 * 1024, "{kib}");
}
