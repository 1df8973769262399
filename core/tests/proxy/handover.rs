//! Clients that go on in another process.

use std::time::Duration;

use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{Command, Drive, Event, Input, Parcel};
use ringkeeper_core::proxy::ClientState;

use crate::harness::{Harness, Wire, request};

const ONE: &str = "
p:
  listen: 127.0.0.1:22121
  redis: true
  servers:
    - 127.0.0.1:1:1 a
";

const SECRET: &str = "
p:
  listen: 127.0.0.1:22121
  redis: true
  redis_auth: secret
  servers:
    - 127.0.0.1:1:1 a
";

fn hand_over(h: &mut Harness) {
    let limit = Duration::from_secs(30);
    h.input(Input::Command(Command::HandOver { limit }));
}

fn adopt(h: &mut Harness, state: &ClientState) -> ConnId {
    let state = Parcel::new(std::sync::Arc::new(state.clone()));
    let conn = h.worker.adopt(h.now, ListenerId(0), &state).expect("there is room");
    h.wires.insert(conn, Wire::default());
    h.pump();
    conn
}

#[test]
fn an_idle_client_goes_at_once_with_the_beginning_of_its_request() {
    let mut old = Harness::new(ONE);
    let client = old.client();
    old.send(client, request(&["CLIENT", "SETNAME", "me"]));
    let whole = request(&["GET", "x"]);
    let (first, rest) = whole.split_at(11);
    old.send(client, first);
    hand_over(&mut old);
    let released = old.released.clone();
    let [(conn, state)] = released.as_slice() else { panic!("{released:?}") };
    assert_eq!(*conn, client);
    assert_eq!(state.input, first.as_bytes());
    assert!(old.events.contains(&Event::Drained));
    assert!(old.try_client().is_none(), "nobody comes in any more");

    let mut new = Harness::new(ONE);
    let client = adopt(&mut new, state);
    new.send(client, rest);
    let server = new.server("127.0.0.1:1");
    assert_eq!(new.take(server), whole);
    new.send(server, "$1\r\n1\r\n");
    new.send(client, request(&["CLIENT", "GETNAME"]));
    assert_eq!(new.take(client), "$1\r\n1\r\n$2\r\nme\r\n");
}

#[test]
fn a_client_goes_when_its_replies_have_left_and_not_before() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.take(server);
    hand_over(&mut h);
    assert!(h.wires[&client].is_paused);
    // The runtime had taken this before it heard of the pause.
    h.send(client, request(&["GET", "y"]));
    assert!(h.take(server).contains('y'), "what was read is served here");
    assert!(h.released.is_empty());
    h.hold(client);
    h.send(server, "$1\r\nX\r\n$1\r\nY\r\n");
    assert!(h.released.is_empty(), "the write is in flight");
    h.release(client);
    assert_eq!(h.take(client), "$1\r\nX\r\n$1\r\nY\r\n");
    assert_eq!(h.released.len(), 1);
    assert!(h.released[0].1.input.is_empty());
    assert!(h.events.contains(&Event::Drained));
}

#[test]
fn bytes_that_come_in_the_same_turn_go_with_the_client() {
    let whole = request(&["GET", "x"]);
    let (first, rest) = whole.split_at(11);
    let (second, third) = rest.split_at(4);
    let mut h = Harness::new(ONE);
    let client = h.client();
    let limit = Duration::from_secs(30);
    // A turn hands over all its inputs before it takes an output.
    h.worker.handle(h.now, Input::Command(Command::HandOver { limit }));
    for part in [first, second, third] {
        let bytes = part.as_bytes();
        h.worker.handle(h.now, Input::Received { conn: client, bytes });
    }
    h.pump();
    let server = h.server("127.0.0.1:1");
    assert_eq!(h.take(server), whole, "what was read is served here");
    h.send(server, "$1\r\n1\r\n");
    assert_eq!(h.take(client), "$1\r\n1\r\n");
    assert_eq!(h.released.len(), 1);
}

#[test]
fn who_has_been_let_in_need_not_ask_again() {
    let mut old = Harness::new(SECRET);
    let (known, stranger) = (old.client(), old.client());
    old.send(known, request(&["AUTH", "secret"]));
    old.send(known, request(&["HELLO", "3"]));
    hand_over(&mut old);
    let state = |conn| old.released.iter().find(|(name, _)| *name == conn).unwrap().1.clone();
    let (known, stranger) = (state(known), state(stranger));
    assert!(known.is_authenticated && known.is_resp3);

    let mut new = Harness::new(SECRET);
    let (known, stranger) = (adopt(&mut new, &known), adopt(&mut new, &stranger));
    new.send(stranger, request(&["GET", "x"]));
    assert!(new.take(stranger).starts_with("-NOAUTH"));
    new.send(known, request(&["GET", "x"]));
    let server = new.server("127.0.0.1:1");
    assert!(new.take(server).contains("HELLO"), "over a connection that speaks RESP3");
}

#[test]
fn the_rest_of_a_value_that_memcached_refuses_is_swallowed_by_the_new_process() {
    let text = ONE.replace("redis: true", "request_bytes_max: 1024");
    let mut old = Harness::new(&text);
    let client = old.client();
    old.send(client, "set k 0 0 5000\r\n");
    assert!(old.take(client).starts_with("SERVER_ERROR"));
    old.send(client, "x".repeat(1000));
    hand_over(&mut old);
    let state = old.released[0].1.clone();
    assert_eq!(state.skips, Some(4000));
    let mut new = Harness::new(&text);
    let client = adopt(&mut new, &state);
    new.send(client, format!("{}\r\nget k\r\n", "x".repeat(4000)));
    let server = new.server("127.0.0.1:1");
    assert_eq!(new.take(server), "get k\r\n");
    new.send(server, "END\r\n");
    assert_eq!(new.take(client), "END\r\n");
}

#[test]
fn who_has_said_its_last_word_is_answered_by_the_old_process() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    h.eof(client);
    hand_over(&mut h);
    let server = h.server("127.0.0.1:1");
    h.send(server, "$1\r\n1\r\n");
    assert_eq!(h.take(client), "$1\r\n1\r\n");
    assert!(h.is_closed(client));
    assert!(h.released.is_empty());
    assert!(h.events.contains(&Event::Drained));
}

#[test]
fn who_does_not_read_is_cut_off_at_the_limit() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.hold(client);
    h.send(client, request(&["PING"]));
    hand_over(&mut h);
    h.pass(Duration::from_secs(29));
    assert!(!h.is_closed(client));
    h.pass(Duration::from_secs(2));
    assert!(h.is_closed(client) && h.released.is_empty());
    assert!(h.events.contains(&Event::Drained));
}
