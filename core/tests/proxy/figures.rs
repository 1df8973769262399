//! What the proxy counts, and what it says of itself to clients and other workers.
#![allow(clippy::wildcard_enum_match_arm, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use ringkeeper_core::id::{ConnId, WorkerId};
use ringkeeper_core::io::{CloseReason, Input, Notice, Recipient};
use ringkeeper_core::limits::ANSWER_DEADLINE;
use ringkeeper_core::stats::{
    Answer, Class, ClientFilter, ErrorKind, FoundKeys, LimitKind, Query, Question, SeenRow,
    WorkerFigures,
};

use crate::harness::{Harness, request};

const POOL: &str = "alpha:\n  listen: 127.0.0.1:1\n  redis: true\n  timeout: 1000\n  \
    client_connections: 3\n  servers:\n   - 127.0.0.1:11:1 one\n";

/// Asks the worker as another one would, and returns its answer.
fn ask(harness: &mut Harness, question: Question) -> Answer {
    let (from, query) = (Recipient::Control, Query(77));
    harness.input(Input::Notice(Notice::Question { from, query, question }));
    let (to, notice) = harness.notices.pop().expect("an answer");
    assert_eq!(to, Recipient::Control);
    match notice {
        Notice::Answer { from, query, answer } => {
            assert_eq!((from, query), (WorkerId(0), Query(77)));
            answer
        }
        _ => panic!("{notice:?}"),
    }
}

fn figures(harness: &mut Harness) -> Arc<WorkerFigures> {
    match ask(harness, Question::Figures) {
        Answer::Figures(mut all) => all.pop().expect("this worker's"),
        other => panic!("{other:?}"),
    }
}

/// Tells whether the only server is failing, and lets the worker look after it.
fn is_failing(harness: &mut Harness) -> bool {
    match ask(harness, Question::Health) {
        Answer::Figures(all) => all[0].pools[0].servers[0].is_failing,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_nobody_asks_for_is_looked_after_for_virtual_routers() {
    let mut h = Harness::new(POOL);
    h.is_connecting_at_once = false;
    assert_eq!(figures(&mut h).pools.len(), 1);
    assert_eq!(h.connects.len(), 0, "figures alone connect to nobody");
    assert!(!is_failing(&mut h));
    let server = h.server("127.0.0.1:11");
    h.connect(server);
    assert!(!is_failing(&mut h));
    assert_eq!(h.connects.len(), 1, "one connection tells enough");

    // The end of an idle connection is no failure, but the next attempt may be.
    h.eof(server);
    assert!(!is_failing(&mut h));
    assert_eq!(h.connects.len(), 2);
    let server = h.server("127.0.0.1:11");
    h.lose(server, CloseReason::Refused);
    assert!(is_failing(&mut h));
    h.pass(Duration::from_millis(500));
    assert!(is_failing(&mut h));

    // It is back when it answers, not when it accepts.
    let server = h.server("127.0.0.1:11");
    h.connect(server);
    assert_eq!(h.take(server), request(&["PING"]));
    assert!(is_failing(&mut h));
    h.send(server, "+PONG\r\n");
    assert!(!is_failing(&mut h));
}

fn seen(harness: &mut Harness, question: Question) -> Vec<SeenRow> {
    match ask(harness, question) {
        Answer::Seen(rows) => rows,
        other => panic!("{other:?}"),
    }
}

fn keys(harness: &mut Harness) -> Option<FoundKeys> {
    match ask(harness, Question::Keys) {
        Answer::Keys(found) => found,
        other => panic!("{other:?}"),
    }
}

/// Sends a request and lets the server answer after `wait`.
fn exchange(harness: &mut Harness, client: ConnId, args: &[&str], wait: Duration, reply: &str) {
    harness.send(client, request(args));
    harness.pass(wait);
    let server = harness.server("127.0.0.1:11");
    harness.send(server, reply);
    assert_eq!(harness.take(client), reply);
}

const MILLI: Duration = Duration::from_millis(1);

#[test]
fn requests_are_counted_by_server_class_and_command() {
    let mut harness = Harness::new(POOL);
    let client = harness.client();
    exchange(&mut harness, client, &["get", "k"], MILLI, "$1\r\nv\r\n");
    exchange(&mut harness, client, &["set", "k", "v"], 3 * MILLI, "+OK\r\n");
    exchange(&mut harness, client, &["set", "k", "v"], 3 * MILLI, "-ERR no\r\n");
    exchange(&mut harness, client, &["eval", "x", "0"], MILLI, ":1\r\n");
    harness.send(client, request(&["ping"]));
    harness.send(client, request(&["nonsense"]));
    let figures = figures(&mut harness);
    let pool = &figures.pools[0];
    assert_eq!((&*pool.name, pool.stats.clients_accepted), ("alpha", 1));
    assert_eq!(pool.stats.local_replies, 1);
    assert_eq!(pool.stats.errors.all()[ErrorKind::BadRequest as usize], 1);
    let sent = ["get k", "set k v", "set k v", "eval x 0", "ping", "nonsense"];
    let sent: usize =
        sent.map(|line| request(&line.split(' ').collect::<Vec<_>>()).len()).iter().sum();
    assert_eq!(pool.stats.client_received_bytes, sent as u64);
    let server = &pool.servers[0];
    assert!(server.is_in_ring && !server.is_failing);
    assert_eq!((server.stats.requests, server.stats.error_replies), (4, 1));
    let durations = server.stats.durations.as_deref().expect("replies came");
    let counts = Class::ALL.map(|class| durations[class as usize].count());
    assert_eq!(counts, [1, 2, 1]);
    assert_eq!(durations[Class::Write as usize].sum(), 6 * MILLI);
    let commands: Vec<_> = pool.commands.iter().map(|(name, of)| (*name, of.count())).collect();
    assert_eq!(commands, [("eval", 1), ("get", 1), ("set", 2)]);
}

#[test]
fn errors_and_limits_are_counted_by_kind() {
    let mut harness = Harness::new(POOL);
    let client = harness.client();
    harness.send(client, request(&["get", "k"]));
    harness.pass(Duration::from_secs(1));
    assert!(harness.take(client).contains("timed out"));
    harness.client();
    harness.client();
    assert_eq!(harness.try_client(), None);
    let broken = harness.wires.keys().copied().find(|conn| !conn.is_server() && *conn != client);
    harness.send(broken.expect("another client"), "*1\r\n$x\r\n");
    let figures = figures(&mut harness);
    let stats = &figures.pools[0].stats;
    assert_eq!(stats.errors.all()[ErrorKind::TimedOut as usize], 1);
    assert_eq!(stats.errors.all()[ErrorKind::ClientProtocol as usize], 1);
    assert_eq!(stats.errors.all().iter().sum::<u64>(), 2);
    assert_eq!(stats.limits.all()[LimitKind::Clients as usize], 1);
    assert!(figures.pools[0].servers[0].is_failing);
}

#[test]
fn slow_requests_are_told_newest_first_with_who_asked() {
    let mut harness = Harness::new(POOL);
    let client = harness.client();
    harness.send(client, request(&["client", "setname", "web"]));
    harness.take(client);
    exchange(&mut harness, client, &["get", "fast"], 9 * MILLI, "$-1\r\n");
    exchange(&mut harness, client, &["set", "slow", "value"], 10 * MILLI, "+OK\r\n");
    harness.send(client, request(&["get", "late"]));
    harness.pass(Duration::from_secs(1));
    harness.take(client);
    harness.send(client, request(&["slowlog", "len"]));
    assert_eq!(harness.take(client), ":2\r\n");
    harness.send(client, request(&["slowlog", "get", "1"]));
    let reply = harness.take(client);
    assert!(reply.starts_with("*1\r\n*6\r\n:1\r\n:1700000001\r\n:1000000\r\n"), "{reply}");
    assert!(reply.contains("$3\r\nget\r\n$4\r\nlate\r\n"), "{reply}");
    assert!(reply.ends_with("$14\r\n127.0.0.1:4000\r\n$3\r\nweb\r\n"), "{reply}");
    let rows = seen(&mut harness, Question::Slow(None));
    assert_eq!(rows.iter().map(|row| row.command).collect::<Vec<_>>(), ["get", "set"]);
    assert_eq!((rows[0].reply_bytes, rows[1].reply_bytes), (0, 5), "the first got no reply");
    assert_eq!(&*rows[1].server, "one");
    harness.send(client, request(&["slowlog", "reset"]));
    harness.send(client, request(&["slowlog", "len"]));
    assert_eq!(harness.take(client), "+OK\r\n:0\r\n");
}

#[test]
fn the_latency_histogram_has_the_form_of_redis() {
    let mut harness = Harness::new(POOL);
    let client = harness.client();
    exchange(&mut harness, client, &["get", "k"], MILLI, "$-1\r\n");
    exchange(&mut harness, client, &["get", "k"], 3 * MILLI, "$-1\r\n");
    exchange(&mut harness, client, &["set", "k", "v"], MILLI, "+OK\r\n");
    harness.send(client, request(&["latency", "histogram", "GET"]));
    let expected = "*2\r\n$3\r\nget\r\n*4\r\n$5\r\ncalls\r\n:2\r\n$14\r\nhistogram_usec\r\n\
        *4\r\n:1024\r\n:1\r\n:4096\r\n:2\r\n";
    assert_eq!(harness.take(client), expected);
    harness.send(client, request(&["latency", "doctor"]));
    assert!(harness.take(client).starts_with("-ERR the proxy's LATENCY takes HISTOGRAM"));
}

#[test]
fn clients_are_listed_and_killed_by_address_and_by_number() {
    let mut harness = Harness::new(POOL);
    let (client, other) = (harness.client(), harness.client());
    harness.send(other, request(&["client", "setname", "worker"]));
    harness.send(other, request(&["client", "id"]));
    let reply = harness.take(other);
    let id = reply.rsplit(':').next().expect("a number").trim().to_owned();
    harness.pass(Duration::from_secs(5));
    harness.send(client, request(&["client", "list"]));
    let list = harness.take(client);
    let row = list.lines().find(|line| line.contains("name=worker")).expect("the other");
    assert!(row.starts_with(&format!("id={id} addr=127.0.0.1:4000 name=worker age=4 idle=4 ")));
    assert!(row.contains(" cmd=client ") && row.contains(" pool=alpha "), "{row}");
    assert_eq!(list.lines().filter(|line| line.starts_with("id=")).count(), 2);
    harness.send(client, request(&["client", "info"]));
    assert!(harness.take(client).contains(" idle=0 "));
    harness.send(client, request(&["client", "kill", "id", &id]));
    assert_eq!(harness.take(client), ":1\r\n");
    assert!(harness.is_closed(other) && !harness.is_closed(client));
    harness.send(client, request(&["client", "kill", "10.9.9.9:1"]));
    assert_eq!(harness.take(client), "-ERR No such client\r\n");
    harness.send(client, request(&["client", "kill", "id", "x"]));
    assert_eq!(harness.take(client), "-ERR client-id should be greater than 0\r\n");
}

#[test]
fn a_client_that_kills_itself_gets_its_reply_first() {
    let mut harness = Harness::new(POOL);
    let client = harness.client();
    harness.send(client, request(&["client", "kill", "127.0.0.1:4000"]));
    assert_eq!(harness.take(client), "+OK\r\n");
    assert!(harness.is_closed(client));
}

#[test]
fn an_answer_waits_for_its_turn() {
    let mut harness = Harness::new(POOL);
    let client = harness.client();
    let mut both = request(&["get", "k"]);
    both.push_str(&request(&["slowlog", "len"]));
    both.push_str(&request(&["ping"]));
    harness.send(client, both);
    assert_eq!(harness.take(client), "");
    let server = harness.server("127.0.0.1:11");
    harness.send(server, "$-1\r\n");
    assert_eq!(harness.take(client), "$-1\r\n:0\r\n+PONG\r\n");
}

/// A worker that is one of two.
fn one_of_two() -> Harness {
    Harness::with_edited(POOL, |plan| plan.workers = 2)
}

fn take_question(harness: &mut Harness) -> (Query, Question) {
    match harness.notices.pop().expect("a question") {
        (Recipient::Data, Notice::Question { from, query, question }) => {
            assert_eq!(from, Recipient::Worker(WorkerId(0)));
            (query, question)
        }
        other => panic!("{other:?}"),
    }
}

fn answer(harness: &mut Harness, worker: u16, query: Query, answer: Answer) {
    let from = WorkerId(worker);
    harness.input(Input::Notice(Notice::Answer { from, query, answer }));
}

#[test]
fn what_all_workers_say_is_added_up() {
    let mut harness = one_of_two();
    let client = harness.client();
    harness.send(client, request(&["client", "kill", "maxage", "100"]));
    let (query, question) = take_question(&mut harness);
    let filter = ClientFilter { except: Some(1), age_min: Some(100), ..ClientFilter::default() };
    assert_eq!(question, Question::Kill(Some("alpha".into()), filter));
    answer(&mut harness, 1, query, Answer::Done(3));
    answer(&mut harness, 1, query, Answer::Done(3));
    assert_eq!(harness.take(client), "", "one worker has answered twice, the other not yet");
    answer(&mut harness, 0, query, Answer::Done(2));
    assert_eq!(harness.take(client), ":5\r\n");
}

#[test]
fn a_worker_that_does_not_answer_is_not_waited_for() {
    let mut harness = one_of_two();
    let client = harness.client();
    harness.send(client, request(&["client", "list"]));
    let (query, _) = take_question(&mut harness);
    answer(&mut harness, 0, query, Answer::Clients(Vec::new()));
    harness.pass(ANSWER_DEADLINE - MILLI);
    assert_eq!(harness.take(client), "");
    harness.pass(MILLI);
    assert_eq!(harness.take(client), "$0\r\n\r\n");
    harness.send(client, request(&["client", "list"]));
    let (late, _) = take_question(&mut harness);
    harness.pass(ANSWER_DEADLINE);
    assert!(harness.take(client).starts_with("-ERR no worker has answered in time"));
    answer(&mut harness, 1, late, Answer::Clients(Vec::new()));
    assert_eq!(harness.take(client), "");
}

#[test]
fn an_answer_for_a_client_that_left_is_dropped() {
    let mut harness = one_of_two();
    let client = harness.client();
    harness.send(client, request(&["info"]));
    let (query, _) = take_question(&mut harness);
    harness.lose(client, CloseReason::Reset);
    answer(&mut harness, 0, query, Answer::Figures(Vec::new()));
    answer(&mut harness, 1, query, Answer::Figures(Vec::new()));
}

#[test]
fn hot_keys_and_big_values_are_found_while_they_are_watched() {
    let mut harness = Harness::new(POOL);
    let client = harness.client();
    exchange(&mut harness, client, &["get", "before"], MILLI, "$-1\r\n");
    assert_eq!(keys(&mut harness), None);
    assert_eq!(ask(&mut harness, Question::WatchKeys(true)), Answer::Done(1));
    for _ in 0..3 {
        exchange(&mut harness, client, &["get", "often"], MILLI, "$-1\r\n");
    }
    exchange(&mut harness, client, &["get", "large"], MILLI, "$9\r\nlarge one\r\n");
    let found = keys(&mut harness).expect("watched");
    let hot: Vec<_> = found.hot.iter().map(|hot| (hot.key.to_string(), hot.count)).collect();
    assert_eq!(hot, [("often".to_owned(), 3), ("large".to_owned(), 1)]);
    assert_eq!(found.big[0].key.to_string(), "often", "its request is longest");
    assert_eq!(ask(&mut harness, Question::WatchKeys(false)), Answer::Done(1));
    assert_eq!(keys(&mut harness), None);
}

#[test]
fn examples_of_requests_are_kept() {
    let mut harness = Harness::new(POOL);
    let client = harness.client();
    for _ in 0..200 {
        exchange(&mut harness, client, &["get", "k"], MILLI, "$-1\r\n");
    }
    let rows = seen(&mut harness, Question::Samples(0));
    // At most one in 10 ms, and then up to 63 pass.
    assert!((3..=20).contains(&rows.len()), "{}", rows.len());
    assert_eq!((rows[0].command, &*rows[0].pool, rows[0].duration), ("get", "alpha", MILLI));
    let last = rows.last().expect("some").unix_micros;
    assert!(seen(&mut harness, Question::Samples(last)).is_empty());
}

#[test]
fn nothing_but_plain_numbers_is_kept_when_figures_are_off() {
    let mut harness = Harness::with_edited(POOL, |plan| {
        plan.figures.is_on = false;
        plan.figures.is_watching_keys = true;
    });
    let client = harness.client();
    exchange(&mut harness, client, &["get", "k"], 20 * MILLI, "$-1\r\n");
    let figures = figures(&mut harness);
    assert_eq!(figures.pools[0].servers[0].stats.responses, 1);
    assert_eq!(figures.pools[0].servers[0].stats.durations, None);
    assert!(seen(&mut harness, Question::Slow(None)).is_empty());
    assert!(seen(&mut harness, Question::Samples(0)).is_empty());
    assert_eq!(keys(&mut harness), None);
}

#[test]
fn info_sums_up_the_pool() {
    let mut harness = Harness::new(POOL);
    let client = harness.client();
    exchange(&mut harness, client, &["get", "k"], MILLI, "$-1\r\n");
    harness.send(client, request(&["info"]));
    let text = harness.take(client);
    for line in [
        "workers:1",
        "workers_answering:1",
        "connected_clients:1",
        "total_commands_processed:2",
        "pool_name:alpha",
        "server0:name=one,in_ring=1,requests=1,replies=1,timeouts=0",
    ] {
        assert!(text.contains(&format!("{line}\r\n")), "{line} in {text}");
    }
}

#[test]
fn memcached_commands_are_counted_by_their_own_names() {
    let mut harness = Harness::new(&POOL.replace("redis: true", "redis: false"));
    let client = harness.client();
    for (request, reply) in [
        ("set k 0 0 1\r\nv\r\n", "STORED\r\n"),
        ("get k\r\n", "VALUE k 0 1\r\nv\r\nEND\r\n"),
        ("get k\r\n", "SERVER_ERROR out of memory\r\n"),
    ] {
        harness.send(client, request);
        harness.pass(20 * MILLI);
        let server = harness.server("127.0.0.1:11");
        harness.send(server, reply);
        assert_eq!(harness.take(client), reply);
    }
    harness.send(client, "nonsense\r\n");
    let figures = figures(&mut harness);
    let pool = &figures.pools[0];
    let commands: Vec<_> = pool.commands.iter().map(|(name, of)| (*name, of.count())).collect();
    assert_eq!(commands, [("get", 2), ("set", 1)]);
    let server = &pool.servers[0].stats;
    assert_eq!(server.error_replies, 1);
    let durations = server.durations.as_deref().expect("replies came");
    assert_eq!(Class::ALL.map(|class| durations[class as usize].count()), [2, 1, 0]);
    assert_eq!(pool.stats.errors.all()[ErrorKind::BadRequest as usize], 1);
    let rows = seen(&mut harness, Question::Slow(None));
    assert_eq!((rows[0].command, rows[0].key.to_string()), ("get", "k".to_owned()));
}
