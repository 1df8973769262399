//! A Sentinel among servers and peers that answer at once: what it costs, and leases.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_core::id::ConnId;
use ringkeeper_core::io::{CloseReason, Input, ShardCondition};
use ringkeeper_core::sentinel::machine::{Fence, Setup};
use ringkeeper_core::wire::resp::{RequestLimits, RequestScan, RequestScanner};

use crate::machine::{Bench, ME, PEER};

/// Peers listen there; everybody else is a server, and one with an odd port a master.
const PEER_PORT: u16 = 26_380;

/// All servers have one history.
const REPLID: &str = "master_replid:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n";

struct Lively {
    bench: Bench,
    at: BTreeMap<ConnId, SocketAddr>,
    /// What the peer answers to a wish for a lease; none is silence.
    promises: Option<&'static str>,
    /// Moments at which something was done.
    wakes: usize,
    /// Whether the peer is silent from the question on what it promised.
    stalls: bool,
    /// What it does not answer.
    stalled: Vec<(ConnId, String)>,
    /// Everything that was said.
    said: String,
    /// The port of the replica that was told to be a master.
    promoted: Option<u16>,
    /// How long an answer is on its way.
    latency: Duration,
}

impl Lively {
    fn new(setup: Setup) -> Self {
        let bench = Bench::with(setup);
        let mut lively = Self {
            bench,
            at: BTreeMap::new(),
            promises: Some(":1"),
            wakes: 0,
            stalls: false,
            stalled: Vec::new(),
            said: String::new(),
            promoted: None,
            latency: Duration::ZERO,
        };
        lively.bench.save(true);
        lively.respond();
        lively
    }

    /// Lets time pass, and everybody answer.
    fn live(&mut self, time: Duration) {
        let until = self.bench.now + time;
        while let Some(deadline) = self.bench.worker_deadline().filter(|at| *at <= until) {
            let step = deadline.since(self.bench.now);
            self.bench.pass(step);
            self.wakes += 1;
            self.respond();
        }
        let rest = until.since(self.bench.now);
        self.bench.pass(rest);
        self.respond();
    }

    fn respond(&mut self) {
        loop {
            self.bench.save(true);
            let made = self.bench.connect();
            self.at.extend(made);
            let mut writes = std::mem::take(&mut self.bench.writes);
            writes.iter().for_each(|(_, text)| self.said.push_str(text));
            if !self.stalls {
                writes.splice(0..0, self.stalled.drain(..));
            }
            if writes.is_empty() {
                return;
            }
            if !self.latency.is_zero() {
                self.bench.pass(self.latency);
            }
            for (conn, text) in writes {
                let Some(at) = self.at.get(&conn).copied() else { continue };
                let is_asked = text.contains("LEFT") || !self.stalled.is_empty();
                if self.stalls && at.port() == PEER_PORT && is_asked {
                    self.stalled.push((conn, text));
                    continue;
                }
                let replies = self.replies(at, text.as_bytes());
                let is_open = !self.bench.closed.contains(&conn);
                if is_open && !replies.is_empty() {
                    self.bench.input(Input::Received { conn, bytes: replies.as_bytes() });
                }
            }
        }
    }

    fn replies(&mut self, at: SocketAddr, mut bytes: &[u8]) -> String {
        let mut spans = Vec::new();
        let mut replies = String::new();
        while let Ok(RequestScan::Complete { len }) =
            RequestScanner::default().scan(bytes, &RequestLimits::AUTHENTICATED, &mut spans)
        {
            let words: Vec<String> = spans
                .iter()
                .map(|span| String::from_utf8_lossy(span.of(bytes)).into_owned())
                .collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            replies.push_str(&self.reply(at, &words));
            bytes = &bytes[len..];
        }
        replies
    }

    fn reply(&mut self, at: SocketAddr, words: &[&str]) -> String {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let port = at.port();
        match *words {
            ["PING"] => "+PONG\r\n".to_owned(),
            ["PUBLISH", ..] => ":1\r\n".to_owned(),
            ["SUBSCRIBE", ..] => String::new(),
            // As from a server before 6.2: then nobody waits for the replica to have everything.
            ["CLIENT", "PAUSE", ..] => "-ERR Unknown subcommand 'PAUSE'\r\n".to_owned(),
            ["SLAVEOF", "NO", "ONE"] => {
                self.promoted = Some(port);
                "+QUEUED\r\n".to_owned()
            }
            ["INFO"] if port % 2 == 1 || self.promoted == Some(port) => {
                bulk(&format!("role:master\r\n{REPLID}"))
            }
            ["INFO"] => bulk(&format!(
                "role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:{}\r\n\
                 master_link_status:up\r\nslave_priority:100\r\nslave_repl_offset:1\r\n{REPLID}",
                port - 1
            )),
            ["SENTINEL", "MYID"] => bulk(PEER),
            ["SENTINEL", "LEASE", _, "KEEP", ..] => match self.promises {
                Some(text) => format!("{text}\r\n"),
                None => ":0\r\n".to_owned(),
            },
            ["SENTINEL", "LEASE", ..] => ":0\r\n".to_owned(),
            // It votes for whoever asks.
            ["SENTINEL", "is-master-down-by-addr", _, _, epoch, id] if id != "*" => {
                format!("*3\r\n:0\r\n{}:{epoch}\r\n", bulk(id))
            }
            ["SENTINEL", ..] => "*3\r\n:0\r\n$1\r\n*\r\n:0\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        }
    }

    fn condition(&self) -> ShardCondition {
        self.bench.news.last().unwrap().condition
    }
}

/// One master with two replicas and one peer.
fn two_replicas() -> Setup {
    let text = format!(
        "sentinel myid {ME}\nsentinel monitor m0 127.0.0.1 7001 2\n\
         sentinel down-after-milliseconds m0 30000\n\
         sentinel known-replica m0 127.0.0.1 7002\nsentinel known-replica m0 127.0.0.1 7004\n\
         sentinel known-sentinel m0 127.0.0.1 {PEER_PORT} {PEER}\n"
    );
    let setup = Setup::from_text("s.conf".into(), &text).unwrap();
    Setup { tells_workers: true, ..setup }
}

fn setup(masters: u16, down_after: u32) -> Setup {
    let mut text = format!("sentinel myid {ME}\n");
    for index in 0..masters {
        let port = 7001 + index * 2;
        text.push_str(&format!(
            "sentinel monitor m{index} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds m{index} {down_after}\n\
             sentinel known-replica m{index} 127.0.0.1 {}\n\
             sentinel known-sentinel m{index} 127.0.0.1 {PEER_PORT} {PEER}\n",
            port + 1
        ));
    }
    Setup::from_text("s.conf".into(), &text).unwrap()
}

#[test]
fn a_hundred_idle_masters_are_looked_after_in_few_turns() {
    let mut all = Lively::new(setup(100, 30_000));
    all.live(Duration::from_secs(15));
    all.wakes = 0;
    all.live(Duration::from_secs(10));
    assert_eq!(all.bench.heard("+sdown"), 0);
    // Two hundred servers are pinged every second.
    assert!(all.wakes <= 25 * 10, "{} turns in ten seconds", all.wakes);
}

/// One master under strict leases of 200 ms, and one peer.
fn strict() -> Lively {
    let mut setup = setup(1, 30_000);
    setup.tells_workers = true;
    setup.fence = Fence::Strict(Duration::from_millis(200));
    Lively::new(setup)
}

#[test]
fn nobody_writes_before_a_majority_promises() {
    let mut one = strict();
    assert_eq!(one.condition(), ShardCondition::Fenced);
    // What was promised before the start is over only then.
    one.live(Duration::from_millis(1_900));
    assert_eq!(one.condition(), ShardCondition::Fenced);
    one.live(Duration::from_millis(300));
    assert_eq!(one.condition(), ShardCondition::Serving);
    one.live(Duration::from_secs(3));
    assert!(one.bench.news.iter().rev().take(3).all(|n| n.condition == ShardCondition::Serving));
}

#[test]
fn a_lease_that_is_not_promised_again_runs_out() {
    let mut one = strict();
    one.live(Duration::from_secs(3));
    one.promises = None;
    one.live(Duration::from_millis(100));
    assert_eq!(one.condition(), ShardCondition::Serving);
    one.live(Duration::from_millis(120));
    assert_eq!(one.condition(), ShardCondition::Fenced);
    one.promises = Some(":1");
    one.live(Duration::from_millis(80));
    assert_eq!(one.condition(), ShardCondition::Serving);
}

#[test]
fn beside_genuine_ones_it_is_enough_to_hear_them() {
    let mut one = strict();
    one.promises = Some("-ERR unknown subcommand 'LEASE'. Try SENTINEL HELP.");
    one.live(Duration::from_millis(500));
    assert_eq!(one.condition(), ShardCondition::Serving);
}

#[test]
fn who_hears_no_majority_for_most_of_down_after_is_fenced() {
    let mut setup = setup(1, 1_000);
    setup.tells_workers = true;
    setup.fence = Fence::BestEffort;
    let mut one = Lively::new(setup);
    one.live(Duration::from_secs(2));
    assert_eq!(one.condition(), ShardCondition::Serving);
    // The peer is gone, the servers are not.
    one.at.retain(|_, at| at.port() != PEER_PORT);
    one.live(Duration::from_millis(500));
    assert_eq!(one.condition(), ShardCondition::Serving);
    one.live(Duration::from_millis(500));
    assert_eq!(one.condition(), ShardCondition::Fenced);
}

#[test]
fn who_was_promised_to_is_promised_nothing_else_and_a_vote_ends_promises() {
    let mut one = strict();
    let client = one.bench.client();
    let keep =
        |serial: u32| format!("SENTINEL LEASE m0 KEEP {PEER} 9 {serial} 0 127.0.0.1 7001 200");
    // It does not know yet what it promised before it was started.
    assert_eq!(one.bench.ask(client, &keep(1)), ":0\r\n");
    one.live(Duration::from_millis(2_100));
    assert_eq!(one.bench.ask(client, &keep(2)), ":1\r\n");
    let other = format!("SENTINEL LEASE m0 KEEP {PEER} 9 3 4 127.0.0.1 7002 200");
    assert_eq!(one.bench.ask(client, &other), ":0\r\n");
    // Words that were held up give nothing back.
    assert_eq!(one.bench.ask(client, &format!("SENTINEL LEASE m0 GIVE {PEER} 9 1")), ":1\r\n");
    assert_eq!(one.bench.ask(client, &format!("SENTINEL LEASE m0 GIVE {PEER} 8 7")), ":1\r\n");
    let left = one.bench.ask(client, "SENTINEL LEASE m0 LEFT 1");
    let left: u32 = left.trim_start_matches(':').trim_end().parse().unwrap();
    assert!((190..=204).contains(&left), "{left}");
    // Who was asked that promises nothing more, and requests wait for the switch.
    assert_eq!(one.bench.ask(client, &keep(4)), ":0\r\n");
    one.live(Duration::from_millis(10));
    assert_eq!(one.condition(), ShardCondition::Moving);
    assert_eq!(
        one.bench.ask(client, "SENTINEL LEASE m0 SELL"),
        "-ERR Unknown words of a lease\r\n"
    );
    let unknown = one.bench.ask(client, "SENTINEL LEASE m9 LEFT 1");
    assert_eq!(unknown, "-ERR No such master with that name\r\n");
}

/// Begins a planned failover while peers do not answer.
fn planned_beside_silent_peers() -> Lively {
    let mut setup = setup(1, 30_000);
    setup.tells_workers = true;
    let mut one = Lively::new(setup);
    one.live(Duration::from_secs(3));
    one.said.clear();
    one.stalls = true;
    let client = one.bench.client();
    assert_eq!(one.bench.ask(client, "SENTINEL FAILOVER m0"), "+OK\r\n");
    one.respond();
    one
}

#[test]
fn writes_are_paused_for_a_planned_failover_once_the_hosts_of_peers_hold() {
    let mut one = planned_beside_silent_peers();
    one.live(Duration::from_millis(100));
    assert!(one.said.contains("LEFT") && !one.said.contains("PAUSE"), "{}", one.said);
    assert_eq!(one.condition(), ShardCondition::Moving);
    one.stalls = false;
    one.live(Duration::from_millis(30));
    assert!(one.said.contains("PAUSE"), "{}", one.said);
}

#[test]
fn a_peer_that_does_not_answer_holds_a_planned_failover_up_only_for_a_moment() {
    let mut one = planned_beside_silent_peers();
    one.live(Duration::from_millis(300));
    assert!(one.said.contains("PAUSE"), "{}", one.said);
}

#[test]
fn requests_wait_while_somebody_else_moves_a_master_that_was_moved_a_moment_ago() {
    let mut one = Lively::new(two_replicas());
    one.live(Duration::from_secs(3));
    let client = one.bench.client();
    assert_eq!(one.bench.ask(client, "SENTINEL FAILOVER m0"), "+OK\r\n");
    one.respond();
    one.live(Duration::from_millis(700));
    // It is at its new place, and the other replica has not said that it follows there.
    let told = one.bench.news.last().unwrap();
    assert_eq!((told.epoch, Some(told.address.port())), (1, one.promoted));
    assert_eq!(one.condition(), ShardCondition::Serving);
    let count =
        |one: &Lively| (one.bench.heard("+switch-master"), one.bench.heard("+failover-end"));
    assert_eq!(count(&one), (1, 0), "{:?}", one.bench.events);
    // The peer was elected since.
    one.bench.ask(client, "SENTINEL LEASE m0 LEFT 2");
    one.respond();
    assert_eq!(one.condition(), ShardCondition::Moving);
    one.live(Duration::from_millis(800));
    assert_eq!(one.condition(), ShardCondition::Moving);
    // Nothing comes of it.
    one.live(Duration::from_millis(400));
    assert_eq!(one.condition(), ShardCondition::Serving);
    assert_eq!(count(&one), (1, 0), "{:?}", one.bench.events);
}

#[test]
fn a_planned_failover_waits_for_answers_and_for_no_timer() {
    let mut setup = setup(1, 30_000);
    setup.tells_workers = true;
    let mut one = Lively::new(setup);
    one.live(Duration::from_secs(3));
    one.said.clear();
    one.latency = Duration::from_micros(100);
    let began = one.bench.now;
    let client = one.bench.client();
    assert_eq!(one.bench.ask(client, "SENTINEL FAILOVER m0"), "+OK\r\n");
    while !one.said.contains("NO\r\n$3\r\nONE") {
        assert!(one.bench.now.since(began) < Duration::from_millis(2), "{}", one.said);
        one.respond();
        one.bench.pass(one.latency);
    }
}

#[test]
fn a_refused_connection_gives_the_lease_back_at_once() {
    let mut one = strict();
    one.live(Duration::from_secs(3));
    let master = one.at.iter().find(|(_, at)| at.port() == 7001).map(|(conn, _)| *conn);
    one.bench.writes.clear();
    one.bench.input(Input::Closed { conn: master.unwrap(), reason: CloseReason::Reset });
    assert_eq!(one.condition(), ShardCondition::Suspected);
    let all: String = one.bench.writes.iter().map(|(_, text)| text.as_str()).collect();
    assert!(all.contains("GIVE"), "{all}");
    one.live(Duration::from_millis(400));
    assert_eq!(one.condition(), ShardCondition::Serving);
}

#[test]
fn a_promise_of_copies_is_kept_by_not_promoting_when_too_few_are_seen() {
    let text = |copies: u32| {
        format!(
            "sentinel myid {ME}\nsentinel monitor m 127.0.0.1 7001 1\n\
             sentinel down-after-milliseconds m 1000\n\
             sentinel known-replica m 127.0.0.1 7002\nsentinel known-replica m 127.0.0.1 7004\n\
             # ringkeeper min-copies m {copies}\n"
        )
    };
    for copies in [1, 2] {
        let setup = Setup::from_text("s.conf".into(), &text(copies)).unwrap();
        let mut one = Lively::new(setup);
        one.live(Duration::from_secs(1));
        // The master and one of the replicas fall silent.
        one.at.retain(|_, at| at.port() == 7002);
        one.live(Duration::from_secs(4));
        assert_eq!(one.bench.heard("+odown"), 1);
        // With one copy it may be the one on the replica that nobody sees.
        let is_promoted = one.bench.heard("+selected-slave") > 0;
        assert_eq!(is_promoted, copies == 2, "{copies}: {:?}", one.bench.events);
    }
}
