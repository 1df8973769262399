//! A follower of several Sentinels, at its border and in virtual time. What the Sentinels say is
//! what genuine ones were recorded to say, with other numbers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use ringkeeper_core::config::nutcracker::Secret;
use ringkeeper_core::id::{ConnId, QueryId};
use ringkeeper_core::io::{
    CloseReason, Endpoint, Input, Notice, Output, Recipient, ShardCondition, ShardNews,
};
use ringkeeper_core::sentinel::NameBase;
use ringkeeper_core::sentinel::follow::{FollowSetup, Follower};
use ringkeeper_core::sentinel::instance::{Address, MasterName};
use ringkeeper_core::time::Instant;

use crate::recorded::{REDIS, VALKEY, reply};

const OLD: &str = "127.0.0.1:28100";
const NEW: &str = "127.0.0.1:28101";

struct Bench {
    follower: Follower,
    now: Instant,
    connects: VecDeque<(ConnId, SocketAddr)>,
    /// By Sentinel: the connections for questions and for events.
    open: Vec<(Option<ConnId>, Option<ConnId>)>,
    wrote: Vec<(ConnId, String)>,
    queries: Vec<(QueryId, String)>,
    closed: Vec<ConnId>,
    news: Vec<ShardNews>,
}

fn setup(sentinels: &[&str]) -> FollowSetup {
    let address = |text: &&str| {
        let (host, port) = text.rsplit_once(':').unwrap();
        Address::new(host, port.parse().unwrap()).unwrap()
    };
    FollowSetup {
        shards: vec![MasterName::new("mymaster").unwrap()],
        sentinels: sentinels.iter().map(address).collect(),
        user: None,
        password: None,
        fence: None,
        names: NameBase { conn: 100, query: 500, ..NameBase::default() },
    }
}

fn sentinel(at: usize) -> String {
    format!("10.0.0.{}:26379", at + 1)
}

impl Bench {
    fn new(setup: FollowSetup) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let count = setup.sentinels.len();
        let mut bench = Self {
            follower: Follower::new(setup, 5, now),
            now,
            connects: VecDeque::new(),
            open: vec![(None, None); count],
            wrote: Vec::new(),
            queries: Vec::new(),
            closed: Vec::new(),
            news: Vec::new(),
        };
        bench.take();
        bench
    }

    /// A follower of three Sentinels that all answer.
    fn of_three(fence: Option<Duration>) -> Self {
        let names = [sentinel(0), sentinel(1), sentinel(2)];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut bench = Self::new(FollowSetup { fence, ..setup(&names) });
        bench.connect();
        bench
    }

    fn take(&mut self) {
        while let Some(output) = self.follower.poll_output() {
            match output {
                Output::Connect { conn, endpoint: Endpoint::Tcp(to), .. } => {
                    self.connects.push_back((conn, to));
                }
                Output::Transmit { conn, buffer } => {
                    let text = String::from_utf8_lossy(&buffer).into_owned();
                    self.wrote.push((conn, text));
                    self.follower.handle(self.now, Input::Sent { conn, buffer });
                }
                Output::Close { conn, .. } => {
                    self.closed.push(conn);
                    let reason = CloseReason::Requested;
                    self.follower.handle(self.now, Input::Closed { conn, reason });
                }
                Output::Resolve { query, host, .. } => self.queries.push((query, host)),
                Output::Notice { to: Recipient::Data, notice: Notice::Shard(news) } => {
                    self.news.push(news);
                }
                Output::Event(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn input(&mut self, input: Input<'_>) {
        self.follower.handle(self.now, input);
        self.take();
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(deadline) = self.follower.poll_timeout().filter(|d| d.at <= until) {
            self.now = self.now.max(deadline.at);
            self.follower.handle_timeout(self.now);
            self.take();
        }
        self.now = until;
    }

    /// Lets every connection come about that is asked for.
    fn connect(&mut self) {
        while let Some((conn, at)) = self.connects.pop_front() {
            let SocketAddr::V4(v4) = at else { panic!("{at}") };
            let index = usize::from(v4.ip().octets()[3]) - 1;
            self.wrote.clear();
            self.input(Input::Connected { conn, local: None });
            let greeting: String = self.sent_on(conn);
            if greeting.contains("SUBSCRIBE") {
                self.open[index].1 = Some(conn);
            } else {
                self.open[index].0 = Some(conn);
                self.input(Input::Received { conn, bytes: b"+OK\r\n" });
            }
        }
    }

    fn sent_on(&self, conn: ConnId) -> String {
        self.wrote.iter().filter(|(to, _)| *to == conn).map(|(_, text)| text.as_str()).collect()
    }

    /// One Sentinel answers one question about the shard.
    fn answer(&mut self, at: usize, epoch: u64, address: &str, flags: &str) {
        let bytes = answer(REDIS, epoch, OLD, address, flags);
        let conn = self.open[at].0.unwrap();
        self.input(Input::Received { conn, bytes: &bytes });
    }

    fn publish(&mut self, at: usize, channel: &str, text: &str) {
        let bytes = format!(
            "*3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n${}\r\n{text}\r\n",
            channel.len(),
            text.len()
        );
        let conn = self.open[at].1.unwrap();
        self.input(Input::Received { conn, bytes: bytes.as_bytes() });
    }

    fn latest(&self) -> (u64, String, ShardCondition) {
        let news = self.news.last().unwrap();
        (news.epoch, news.address.to_string(), news.condition)
    }
}

/// Returns the recorded replies to both questions, with other values.
fn answer(transcript: &str, epoch: u64, shown: &str, address: &str, flags: &str) -> Vec<u8> {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let recorded = reply(transcript, "SENTINEL MASTER mymaster", 0);
    let tokens: Vec<&str> = recorded.split(' ').collect();
    let mut bytes = format!("{}\r\n", tokens[0]);
    let (host, port) = shown.rsplit_once(':').unwrap();
    for pair in tokens[1..].chunks(4) {
        let [_, key, _, value] = pair else { continue };
        let value = match *key {
            "ip" => host.to_owned(),
            "port" => port.to_owned(),
            "flags" => flags.to_owned(),
            "config-epoch" => epoch.to_string(),
            _ => (*value).to_owned(),
        };
        bytes.push_str(&bulk(key));
        bytes.push_str(&bulk(&value));
    }
    let (host, port) = address.rsplit_once(':').unwrap();
    bytes.push_str(&format!("*2\r\n{}{}", bulk(host), bulk(port)));
    bytes.into_bytes()
}

#[test]
fn replies_of_redis_and_valkey_are_understood() {
    for (transcript, port) in [(REDIS, 28100), (VALKEY, 28200)] {
        let mut bench = Bench::new(setup(&[&sentinel(0)]));
        bench.connect();
        let bytes = answer(transcript, 0, &format!("127.0.0.1:{port}"), OLD, "master");
        let conn = bench.open[0].0.unwrap();
        // In pieces, as a network may bring it.
        for piece in bytes.chunks(7) {
            bench.input(Input::Received { conn, bytes: piece });
        }
        assert_eq!(bench.latest(), (0, OLD.to_owned(), ShardCondition::Serving));
        assert_eq!(&*bench.news[0].shard, "mymaster");
    }
}

#[test]
fn every_sentinel_is_asked_and_listened_to() {
    let mut given = setup(&[&sentinel(0)]);
    given.user = Some("proxy".to_owned());
    given.password = Some(Secret::new("secret"));
    let mut bench = Bench::new(given);
    bench.connect();
    assert!(bench.open[0].0.is_some() && bench.open[0].1.is_some(), "{:?}", bench.open);
    assert_eq!(bench.open[0].0.unwrap().index() / 100, 1);
    bench.wrote.clear();
    bench.pass(Duration::from_secs(4));
    // Nobody answered, so it is tried again; what is sent first are the credentials.
    assert!(!bench.closed.is_empty());
    bench.pass(Duration::from_secs(1));
    let (conn, _) = bench.connects[0];
    bench.connect();
    let _ = conn;
    let auth = "*3\r\n$4\r\nAUTH\r\n$5\r\nproxy\r\n$6\r\nsecret\r\n";
    assert!(bench.wrote.iter().all(|(_, text)| text.starts_with(auth)), "{:?}", bench.wrote);
}

#[test]
fn the_highest_election_wins_and_one_that_is_behind_pulls_nobody_back() {
    let mut bench = Bench::of_three(None);
    bench.answer(0, 4, OLD, "master");
    assert_eq!(bench.latest(), (4, OLD.to_owned(), ShardCondition::Serving));
    bench.answer(1, 5, NEW, "master");
    assert_eq!(bench.latest(), (5, NEW.to_owned(), ShardCondition::Serving));
    let told = bench.news.len();
    bench.answer(2, 4, OLD, "master");
    assert_eq!(bench.news.len(), told);
    // Also when the one that was ahead is gone.
    let (questions, _) = bench.open[1];
    let reason = CloseReason::Reset;
    bench.input(Input::Closed { conn: questions.unwrap(), reason });
    bench.pass(Duration::from_millis(1_500));
    assert_eq!(bench.latest(), (5, NEW.to_owned(), ShardCondition::Serving));
}

#[test]
fn a_switch_that_is_published_has_its_sentinel_asked_at_once() {
    let mut bench = Bench::of_three(None);
    for at in 0..3 {
        bench.answer(at, 4, OLD, "master");
    }
    bench.wrote.clear();
    bench.publish(2, "+switch-master", "mymaster 127.0.0.1 28100 127.0.0.1 28101");
    let asked = bench.sent_on(bench.open[2].0.unwrap());
    assert!(asked.contains("GET-MASTER-ADDR-BY-NAME"), "{asked}");
    assert_eq!(bench.latest().1, OLD);
    bench.answer(2, 5, NEW, "master");
    assert_eq!(bench.latest(), (5, NEW.to_owned(), ShardCondition::Serving));
}

#[test]
fn requests_wait_while_most_see_the_master_down_and_go_on_with_the_new_one() {
    let mut bench = Bench::of_three(None);
    for at in 0..3 {
        bench.answer(at, 4, OLD, "master");
    }
    let down = "master mymaster 127.0.0.1 28100";
    bench.publish(0, "+sdown", down);
    assert_eq!(bench.latest().2, ShardCondition::Serving);
    bench.publish(1, "+sdown", down);
    assert_eq!(bench.latest().2, ShardCondition::Suspected);
    bench.publish(1, "-sdown", down);
    assert_eq!(bench.latest().2, ShardCondition::Serving);
    bench.publish(1, "+odown", &format!("{down} #quorum 2/2"));
    assert_eq!(bench.latest().2, ShardCondition::Suspected);
    // The leader still shows the old one, which is down, under the new election.
    let bytes = answer(REDIS, 5, OLD, NEW, "s_down,o_down,master,failover_in_progress");
    let conn = bench.open[1].0.unwrap();
    // What it was asked before, and because of each event.
    for _ in 0..4 {
        bench.input(Input::Received { conn, bytes: &bytes });
    }
    assert_eq!(bench.latest(), (5, NEW.to_owned(), ShardCondition::Serving));
}

#[test]
fn a_planned_failover_is_told_as_one() {
    let mut bench = Bench::of_three(None);
    for at in 0..3 {
        bench.answer(at, 4, OLD, "master");
    }
    bench.publish(0, "+failover-state-select-slave", "master mymaster 127.0.0.1 28100");
    assert_eq!(bench.latest().2, ShardCondition::Moving);
    bench.publish(0, "-failover-abort-no-good-slave", "master mymaster 127.0.0.1 28100");
    assert_eq!(bench.latest().2, ShardCondition::Serving);
}

#[test]
fn who_is_cut_off_from_most_sentinels_is_fenced_until_they_answer_again() {
    let fence = Duration::from_secs(2);
    let mut bench = Bench::of_three(Some(fence));
    for at in 0..3 {
        bench.answer(at, 4, OLD, "master");
    }
    for _ in 0..4 {
        bench.pass(Duration::from_millis(1_100));
        bench.answer(0, 4, OLD, "master");
        bench.answer(1, 4, OLD, "master");
    }
    assert_eq!(bench.latest().2, ShardCondition::Serving);
    bench.pass(Duration::from_millis(1_100));
    bench.answer(0, 4, OLD, "master");
    bench.pass(Duration::from_millis(910));
    assert_eq!(bench.latest().2, ShardCondition::Fenced);
    bench.answer(1, 4, OLD, "master");
    assert_eq!(bench.latest().2, ShardCondition::Serving);
}

#[test]
fn names_of_sentinels_and_of_masters_are_looked_up() {
    let mut bench = Bench::new(setup(&["sentinel-1:26379"]));
    assert!(bench.connects.is_empty());
    assert_eq!(bench.queries.len(), 1, "{:?}", bench.queries);
    let (query, host) = bench.queries.remove(0);
    assert_eq!((host.as_str(), query.0 > 500), ("sentinel-1", true));
    bench.input(Input::Resolved { query, result: Ok(vec!["10.0.0.1:26379".parse().unwrap()]) });
    bench.connect();
    bench.answer(0, 1, "db-7:28100", "master");
    assert!(bench.news.is_empty());
    let (query, host) = bench.queries.remove(0);
    assert_eq!(host, "db-7");
    let result = Ok(vec!["10.1.0.7:28100".parse().unwrap()]);
    bench.input(Input::Resolved { query, result });
    bench.answer(0, 1, "db-7:28100", "master");
    assert_eq!(bench.latest(), (1, "10.1.0.7:28100".to_owned(), ShardCondition::Serving));
}

#[test]
fn who_cannot_be_reached_is_tried_again_ever_more_rarely() {
    let mut bench = Bench::new(setup(&[&sentinel(0)]));
    let mut attempts = Vec::new();
    for _ in 0..60 {
        while let Some((conn, _)) = bench.connects.pop_front() {
            attempts.push(bench.now);
            bench.input(Input::Closed { conn, reason: CloseReason::Refused });
        }
        bench.pass(Duration::from_millis(500));
    }
    assert!((8..60).contains(&attempts.len()), "{}", attempts.len());
    assert_eq!(bench.follower.reachable(), (0, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_that_comes_in_ends_the_follower(
        script in prop::collection::vec(
            (0..8_u8, prop::collection::vec(any::<u8>(), 1..60), 0..2_000_u64), 1..40,
        ),
    ) {
        let mut bench = Bench::of_three(Some(Duration::from_secs(1)));
        for (what, bytes, ms) in script {
            bench.connect();
            let at = usize::from(what) % 3;
            let (questions, events) = bench.open[at];
            let conn = if ms % 2 == 0 { questions } else { events };
            let Some(conn) = conn.filter(|conn| !bench.closed.contains(conn)) else { continue };
            match what {
                0..=2 => bench.input(Input::Received { conn, bytes: &bytes }),
                3..=4 => bench.answer_if_open(at, ms),
                5 => bench.input(Input::Eof { conn }),
                _ => {
                    bench.closed.push(conn);
                    bench.input(Input::Closed { conn, reason: CloseReason::Reset });
                }
            }
            bench.pass(Duration::from_millis(ms));
        }
    }
}

impl Bench {
    fn answer_if_open(&mut self, at: usize, epoch: u64) {
        if self.open[at].0.is_some_and(|conn| !self.closed.contains(&conn)) {
            self.answer(at, epoch, NEW, "master");
        }
    }
}
