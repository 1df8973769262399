//! The model of the genuine Sentinel against what the genuine program was seen to send.
//!
//! `vectors/sentinel/wire-log.txt` was recorded with one master, two replicas and three genuine
//! Sentinels, the first of which was told of a fourth peer; the master was killed after five
//! seconds. Ports name the Sentinels there, and an instance's role its link.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail as tests do"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_sim::sentinel::{Command, Defects, Fleet, Member, Plan};

/// When the master was killed, after the stranger had introduced itself.
const KILLED: Duration = Duration::from_millis(5006);

/// Seeds that are tried until one has the phases of the recording.
const SEEDS: u64 = 1_000;

/// A link: which Sentinel, to what.
type Name = (usize, String);

/// A command with everything left out that differs from run to run.
type Sent = String;

/// Leaves out addresses and identifiers.
fn plain(words: &[String]) -> Sent {
    match words.first().map(String::as_str) {
        Some("PUBLISH") => {
            let fields: Vec<&str> = words[2].split(',').collect();
            assert_eq!(fields.len(), 8);
            format!("PUBLISH {} with epochs {} {}", words[1], fields[3], fields[7])
        }
        Some("SENTINEL") => format!("SENTINEL {} {} {}", words[1], words[4], words[5]),
        Some("CLIENT") => {
            let name = &words[2];
            format!("CLIENT SETNAME sentinel-{}", &name[name.len() - 3..])
        }
        _ => words.join(" "),
    }
}

/// Reads a stream of commands as the recording escapes it.
fn unescape(text: &str) -> Vec<Vec<String>> {
    let mut commands: Vec<Vec<String>> = Vec::new();
    let mut left = 0;
    for line in text.split("\\r\\n") {
        if let Some(count) = line.strip_prefix('*').and_then(|n| n.parse::<usize>().ok())
            && left == 0
        {
            commands.push(Vec::new());
            left = count;
        } else if !line.starts_with('$') && left > 0 {
            commands.last_mut().unwrap().push(line.to_owned());
            left -= 1;
        }
    }
    commands
}

/// Reads the recording: by link, what was sent.
fn recorded() -> BTreeMap<Name, Vec<Sent>> {
    let text = include_str!("vectors/sentinel/wire-log.txt");
    let log = text.split("####").next().unwrap();
    let mut by_port: BTreeMap<(String, String), Vec<Vec<String>>> = BTreeMap::new();
    let mut links: BTreeMap<Name, Vec<Sent>> = BTreeMap::new();
    for line in log.lines() {
        let mut words = line.split_whitespace();
        let (Some(_), Some(to)) = (words.next(), words.next()) else { continue };
        let rest: Vec<&str> = words.collect();
        if to == "peer" && rest[0].starts_with('*') {
            let sent = unescape(&rest.join(" "));
            let link = links.entry((0, "peer".into())).or_default();
            link.extend(sent.iter().map(|words| plain(words)));
        } else if rest[0] == "[0" {
            let words = rest[2..].iter().map(|word| word.trim_matches('"').to_owned()).collect();
            by_port.entry((to.to_owned(), rest[1].to_owned())).or_default().push(words);
        }
    }
    for ((to, from), commands) in by_port {
        // A master passes hellos on to its replicas; nobody of ours sends these.
        if from.ends_with(":25501]") {
            continue;
        }
        let hello = commands.iter().find(|words| words[0] == "PUBLISH").unwrap();
        let port = hello[2].split(',').nth(1).unwrap();
        let number = port.parse::<usize>().unwrap() - 25511;
        let sent = commands.iter().map(|words| plain(words)).collect();
        links.insert((number, to), sent);
    }
    links
}

/// Does in the simulator what was done for the recording.
fn simulated(seed: u64) -> Option<BTreeMap<Name, Vec<Sent>>> {
    let genuine = Member::Genuine(Defects::SHIPPED);
    let plan = Plan {
        is_recording: true,
        failover_timeout: Duration::from_secs(180),
        ..Plan::calm(vec![genuine; 3])
    };
    let mut fleet = Fleet::new(seed, plan);
    fleet.run_for(Duration::from_millis(11_000 + seed * 7_919 % 20_000));
    fleet.record_commands();
    let peer = fleet.introduce_stranger();
    fleet.run_for(KILLED);
    fleet.kill_master(0).unwrap();
    fleet.run_for(Duration::from_millis(12_600) - KILLED);
    let promoted = fleet.told().iter().find(|told| told.channel == "+promoted-slave")?;
    let promoted: Vec<&str> = promoted.payload.split(' ').collect();
    let promoted = SocketAddr::new(promoted[2].parse().unwrap(), promoted[3].parse().unwrap());
    let first = SocketAddr::from(([10, 1, 0, 1], 6379));
    let mut links: BTreeMap<Name, Vec<Sent>> = BTreeMap::new();
    for Command { from, to, words, .. } in fleet.commands() {
        let role = match to {
            _ if to == peer => "peer",
            _ if to == first => "master",
            _ if to == promoted => "replica1",
            SocketAddr::V4(at) if at.ip().octets()[1] == 1 => "replica2",
            SocketAddr::V4(_) | SocketAddr::V6(_) => continue,
        };
        links.entry((from, role.into())).or_default().push(plain(&words));
    }
    Some(links)
}

/// Tells whether the simulated Sentinel `ours` sent on all its links what `genuine` did on its.
fn is_same(
    recorded: &BTreeMap<Name, Vec<Sent>>,
    genuine: usize,
    simulated: &BTreeMap<Name, Vec<Sent>>,
    ours: usize,
) -> bool {
    recorded.iter().filter(|((number, _), _)| *number == genuine).all(|((_, role), sent)| {
        simulated.get(&(ours, role.clone())).is_some_and(|said| said.starts_with(sent))
    })
}

#[test]
fn the_recording_is_understood() {
    let links = recorded();
    assert_eq!(links.len(), 10, "{:?}", links.keys());
    let peer = &links[&(0, "peer".to_owned())];
    assert_eq!(peer[..2], ["CLIENT SETNAME sentinel-cmd", "PING"]);
    assert!(peer.contains(&"SENTINEL is-master-down-by-addr 0 *".to_owned()));
    assert!(peer.contains(&"PUBLISH __sentinel__:hello with epochs 1 1".to_owned()));
}

#[test]
fn the_same_commands_leave_in_the_same_order_on_every_link() {
    let recorded = recorded();
    let mut seen = [0_u64; 3];
    let mut tried = 0;
    // Which phases the periods of a Sentinel have is chance, so it takes some seeds until one has
    // those of the recording, on all links of a Sentinel at once.
    while seen.contains(&0) && tried < SEEDS {
        tried += 1;
        let Some(simulated) = simulated(tried) else { continue };
        // Only the first knows the stranger; the other two are alike.
        for (genuine, ours) in [(0, 0), (1, 1), (1, 2), (2, 1), (2, 2)] {
            seen[genuine] += u64::from(is_same(&recorded, genuine, &simulated, ours));
        }
    }
    println!("after {tried} seeds: {seen:?}");
    assert!(!seen.contains(&0), "{seen:?}");
}
