//! The worker's side of the border's contract where inputs cross its own decisions.

use std::time::Duration;

use ringkeeper_core::io::{CloseReason, Command, Drive, Input, Output};

use crate::harness::{Harness, request};

const ONE: &str = "
p:
  listen: 127.0.0.1:22121
  redis: true
  servers:
    - 127.0.0.1:1:1 a
";

/// Takes the outputs without acting on them.
fn outputs(h: &mut Harness) -> Vec<Output> {
    std::iter::from_fn(|| h.worker.poll_output()).collect()
}

fn drain(h: &mut Harness) {
    let command = Command::Drain { limit: Duration::from_secs(10) };
    h.worker.handle(h.now, Input::Command(command));
}

#[test]
fn draining_says_nothing_about_a_connection_after_its_close() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.worker.handle(h.now, Input::Received { conn: client, bytes: b"*1\r\n$4\r\nQUIT\r\n" });
    let said = outputs(&mut h);
    assert!(matches!(said.last(), Some(Output::Transmit { .. })), "{said:?}");
    h.worker.handle(h.now, Input::Sent { conn: client, buffer: Vec::new() });
    let said = outputs(&mut h);
    assert!(matches!(said.as_slice(), [Output::Close { .. }]), "{said:?}");
    drain(&mut h);
    assert!(outputs(&mut h).is_empty());
}

#[test]
fn a_paused_client_is_not_paused_again_and_draining_lets_nobody_read_on() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["SET", "k", &"v".repeat(8000)]).repeat(40));
    assert!(h.wires[&client].is_paused);
    drain(&mut h);
    assert!(outputs(&mut h).is_empty(), "it is paused already");
    let server = h.server("127.0.0.1:1");
    h.send(server, "+OK\r\n".repeat(16));
    assert!(h.wires[&client].is_paused);
    h.send(server, "+OK\r\n".repeat(24));
    assert_eq!(h.take(client), "+OK\r\n".repeat(40));
    assert!(h.is_closed(client));
}

#[test]
fn nothing_is_said_about_a_client_that_closed_in_the_same_turn() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.worker.handle(h.now, Input::Received { conn: client, bytes: b"*1\r\n$x\r\n" });
    drain(&mut h);
    h.worker.handle(h.now, Input::Closed { conn: client, reason: CloseReason::Reset });
    let said = outputs(&mut h);
    assert!(matches!(said.as_slice(), [Output::Event(_)]), "only that it is drained: {said:?}");
}

#[test]
fn a_server_that_closed_in_the_same_turn_is_not_greeted() {
    let config = ONE.replace("redis: true", "redis: true\n  redis_auth: secret");
    let mut h = Harness::new(&config);
    h.is_connecting_at_once = false;
    let client = h.client();
    h.send(client, request(&["AUTH", "secret"]) + &request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.worker.handle(h.now, Input::Connected { conn: server, local: None });
    h.worker.handle(h.now, Input::Closed { conn: server, reason: CloseReason::Reset });
    let said = outputs(&mut h);
    let to_server = |output: &Output| match output {
        Output::Transmit { conn, .. }
        | Output::Close { conn, .. }
        | Output::Release { conn, .. } => *conn == server,
        Output::Connect { .. }
        | Output::PauseRead(_)
        | Output::ResumeRead(_)
        | Output::EndWrite(_)
        | Output::Resolve { .. }
        | Output::Event(_)
        | Output::Errand(_)
        | Output::Notice { .. }
        | Output::OpenChannel { .. }
        | Output::CloseChannel(_)
        | Output::Datagram { .. } => false,
    };
    assert!(!said.iter().any(to_server), "{said:?}");
}
