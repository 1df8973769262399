//! What seeded runs found, as scenarios.

use std::sync::Arc;
use std::time::Duration;

use ringkeeper_core::config::nutcracker;
use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{CloseReason, Command, Drive, Endpoint, Input, Output};
use ringkeeper_core::node::Worker;
use ringkeeper_core::proxy::{Plan, Policy};
use ringkeeper_core::time::Instant;

use crate::harness::{Harness, request};

const ONE: &str = "
p:
  listen: 127.0.0.1:22121
  redis: true
  timeout: 300
  servers:
    - 127.0.0.1:1:1 a
";

fn worker() -> Worker {
    let parsed = nutcracker::parse("test.yml", ONE);
    let config = parsed.config.expect("a good configuration");
    Worker::new(Arc::new(Plan::new(&config, Policy::RINGKEEPER)), 1, Instant::START)
}

fn accept(worker: &mut Worker) -> ConnId {
    let peer = Endpoint::Tcp(([127, 0, 0, 1], 4000).into());
    worker.accept(Instant::START, ListenerId(0), peer).expect("there is room")
}

fn outputs(worker: &mut Worker) -> Vec<Output> {
    std::iter::from_fn(|| worker.poll_output()).collect()
}

#[test]
fn a_large_reply_may_take_longer_than_the_time_out_as_long_as_it_comes() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["GET", "big"]));
    let server = h.server("127.0.0.1:1");
    h.send(server, format!("$180000\r\n{}", "x".repeat(60_000)));
    for _ in 0..2 {
        h.pass(Duration::from_millis(200));
        h.send(server, "x".repeat(60_000));
    }
    h.send(server, "\r\n");
    assert_eq!(h.take(client).len(), 180_000 + 11);
    assert!(!h.is_closed(client));
}

#[test]
fn what_waits_on_a_connection_that_was_given_up_while_connecting_gets_its_error() {
    let mut h = Harness::new(&ONE.replace("127.0.0.1:1:1", "two.example:1:1"));
    h.is_connecting_at_once = false;
    let (first, second) = (h.client(), h.client());
    h.send(first, request(&["GET", "x"]));
    let query = h.queries[0].0;
    let addresses = vec![([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 1).into()];
    h.input(Input::Resolved { query, result: Ok(addresses) });
    h.pass(Duration::from_millis(200));
    h.send(second, request(&["GET", "x"]));
    h.pass(Duration::from_millis(150));
    assert!(h.take(first).starts_with("-ERR Connection timed out"));
    let server = h.server("10.0.0.1:1");
    h.lose(server, CloseReason::ConnectTimedOut);
    h.pass(Duration::from_secs(1));
    assert!(h.take(second).starts_with("-ERR Connection timed out"));
}

#[test]
fn nothing_is_said_about_a_connection_that_closed_in_the_turn_in_which_it_was_given_up() {
    let mut worker = worker();
    let now = Instant::START;
    let client = accept(&mut worker);
    let bytes = request(&["GET", "x"]);
    worker.handle(now, Input::Received { conn: client, bytes: bytes.as_bytes() });
    let Some(Output::Connect { conn: server, .. }) = worker.poll_output() else {
        panic!("a request wants a connection");
    };
    worker.handle(now, Input::Connected { conn: server, local: None });
    let _ = outputs(&mut worker);
    worker.handle(now, Input::Eof { conn: server });
    worker.handle(now, Input::Closed { conn: server, reason: CloseReason::Reset });
    let said = outputs(&mut worker);
    assert!(
        !said.iter().any(|output| matches!(output, Output::Close { conn, .. } if *conn == server)),
        "{said:?}"
    );
}

#[test]
fn a_drain_pauses_each_client_once_and_none_that_is_closing() {
    let mut worker = worker();
    let now = Instant::START;
    let (protesting, leaving) = (accept(&mut worker), accept(&mut worker));
    worker.handle(now, Input::Received { conn: protesting, bytes: b"*1\r\n:5\r\n" });
    worker.handle(now, Input::Eof { conn: leaving });
    let before = outputs(&mut worker);
    worker.handle(now, Input::Command(Command::Drain { limit: Duration::from_secs(1) }));
    let said: Vec<Output> = before.into_iter().chain(outputs(&mut worker)).collect();
    let pauses = |of: ConnId| {
        said.iter()
            .filter(|output| matches!(output, Output::PauseRead(conn) if *conn == of))
            .count()
    };
    assert_eq!(pauses(protesting), 1, "{said:?}");
    assert_eq!(pauses(leaving), 0, "{said:?}");
}
