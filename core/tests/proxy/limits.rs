//! Bounds: what a client may make us hold, and what happens beyond.

use std::time::Duration;

use ringkeeper_core::io::{Command, Event, Input, Limit};
use ringkeeper_core::limits::SERVER_REPLIES_MAX;

use crate::harness::{Harness, request};

const ONE: &str = "
p:
  listen: 127.0.0.1:22121
  redis: true
  servers:
    - 127.0.0.1:1:1 a
";

#[test]
fn a_client_that_never_reads_is_asked_for_sixteen_replies_and_no_more() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.hold(client);
    h.send(client, request(&["GET", "big"]).repeat(300));
    let server = h.server("127.0.0.1:1");
    assert_eq!(h.take(server).matches("GET").count(), 16);
    let reply = format!("$1048576\r\n{}\r\n", "x".repeat(1_048_576));
    for _ in 0..16 {
        for piece in reply.as_bytes().chunks(65_536) {
            h.send(server, piece);
        }
    }
    h.pass(Duration::from_secs(60));
    assert_eq!(h.take(server), "", "nothing more is asked for");
    assert!(!h.is_closed(client));
}

#[test]
fn a_client_that_stops_reading_after_a_while_is_asked_for_little_more() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["GET", "big"]).repeat(300));
    let server = h.server("127.0.0.1:1");
    let reply = format!("$1048576\r\n{}\r\n", "x".repeat(1_048_576));
    // The sockets' buffers take the first four replies, then nothing moves any more.
    let mut due = h.take(server).matches("GET").count();
    let mut sent = 0;
    while due > 0 {
        if sent == 4 {
            h.hold(client);
        }
        for piece in reply.as_bytes().chunks(20_000) {
            h.send(server, piece);
        }
        sent += 1;
        due = due - 1 + h.take(server).matches("GET").count();
    }
    assert!(sent <= 4 + 16 + 1, "{sent} replies were asked for");
    assert!(!h.is_closed(client));
}

#[test]
fn a_client_that_reads_gets_three_hundred_replies_of_a_mebibyte() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["GET", "big"]).repeat(300));
    let server = h.server("127.0.0.1:1");
    let reply = format!("$1048576\r\n{}\r\n", "x".repeat(1_048_576));
    let (mut asked, mut got) = (0, 0);
    loop {
        let due = h.take(server).matches("GET").count();
        if due == 0 {
            break;
        }
        asked += due;
        for _ in 0..due {
            for piece in reply.as_bytes().chunks(65_536) {
                h.send(server, piece);
            }
            got += h.take(client).len();
        }
    }
    assert_eq!(asked, 300);
    assert_eq!(got, 300 * reply.len());
}

#[test]
fn the_window_opens_for_a_client_that_reads() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    let mut widest = 0;
    for _ in 0..12 {
        h.send(client, request(&["GET", "x"]).repeat(2000));
        let server = h.server("127.0.0.1:1");
        loop {
            let due = h.take(server).matches("GET").count();
            widest = widest.max(due);
            if due == 0 {
                break;
            }
            h.send(server, "$-1\r\n".repeat(due));
        }
        assert_eq!(h.take(client), "$-1\r\n".repeat(2000));
    }
    assert!(widest <= 1024, "{widest}");
    assert!(widest >= 512, "{widest}");
}

#[test]
fn a_client_that_may_not_be_served_is_not_read() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["SET", "k", &"v".repeat(8000)]).repeat(40));
    assert!(h.wires[&client].is_paused);
    let server = h.server("127.0.0.1:1");
    h.send(server, "+OK\r\n".repeat(16));
    h.send(server, "+OK\r\n".repeat(24));
    assert_eq!(h.take(client), "+OK\r\n".repeat(40));
    assert!(!h.wires[&client].is_paused);
}

#[test]
fn unread_replies_beyond_the_limit_end_the_client() {
    let mut h =
        Harness::new(&ONE.replace("redis: true", "redis: true\n  client_output_bytes_max: 100000"));
    let (slow, quick) = (h.client(), h.client());
    h.hold(slow);
    h.send(slow, request(&["GET", "x"]).repeat(10));
    h.send(quick, request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    let reply = format!("$30000\r\n{}\r\n", "x".repeat(30_000));
    h.send(server, reply.repeat(10) + "$1\r\nq\r\n");
    assert!(h.is_closed(slow));
    assert_eq!(h.take(quick), "$1\r\nq\r\n");
    assert!(h.events.iter().any(|event| {
        matches!(event, Event::ClientOverLimit { limit: Limit::ClientOutput, .. })
    }));
}

#[test]
fn a_request_that_is_too_large_is_refused_as_soon_as_it_is_announced() {
    let mut h = Harness::new(&ONE.replace("redis: true", "redis: true\n  request_bytes_max: 2000"));
    let client = h.client();
    h.send(client, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3000\r\n");
    assert!(h.take(client).starts_with("-ERR Protocol error"));
    assert!(h.is_closed(client));
}

#[test]
fn before_auth_little_is_taken() {
    let mut h = Harness::new(&ONE.replace("redis: true", "redis: true\n  redis_auth: pw"));
    let client = h.client();
    h.send(client, "*11\r\n");
    assert_eq!(h.take(client), "-ERR Protocol error: unauthenticated multibulk length\r\n");
    let client = h.client();
    h.send(client, "*2\r\n$4\r\nAUTH\r\n$20000\r\n");
    assert_eq!(h.take(client), "-ERR Protocol error: unauthenticated bulk length\r\n");
    assert!(h.is_closed(client));
}

#[test]
fn a_full_pool_takes_nobody_until_somebody_leaves() {
    let mut h = Harness::new(&ONE.replace("redis: true", "redis: true\n  client_connections: 2"));
    let first = h.client();
    let _second = h.client();
    assert!(h.try_client().is_none());
    h.eof(first);
    assert!(h.is_closed(first));
    assert!(h.try_client().is_some());
}

#[test]
fn clients_wait_when_a_servers_queue_is_full_and_nothing_is_lost() {
    let mut h = Harness::new(ONE);
    let clients: Vec<_> = (0..8).map(|_| h.client()).collect();
    h.send(clients[0], request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.take(server);
    h.hold(server);
    let big = request(&["SET", "k", &"v".repeat(3 * 1024 * 1024)]);
    for client in &clients {
        h.send(*client, &big);
    }
    h.send(server, "$-1\r\n");
    let mut written = 0;
    for _ in 0..20 {
        written += h.take(server).matches("SET").count();
        h.release(server);
        h.hold(server);
    }
    written += h.take(server).matches("SET").count();
    assert_eq!(written, 8);
    h.send(server, "+OK\r\n".repeat(8));
    assert_eq!(h.take(clients[0]), "$-1\r\n+OK\r\n");
    for client in &clients[1..] {
        assert_eq!(h.take(*client), "+OK\r\n");
    }
}

#[test]
fn a_client_that_waits_for_a_place_in_the_queue_gets_it_when_the_replies_come() {
    const FILLING: usize = SERVER_REPLIES_MAX / 16;
    let mut h = Harness::new(ONE);
    let clients: Vec<_> = (0..FILLING).map(|_| h.client()).collect();
    let last = h.client();
    let requests = request(&["GET", "x"]).repeat(16);
    for client in &clients {
        h.send(*client, &requests);
    }
    let server = h.server("127.0.0.1:1");
    h.take(server);
    h.send(last, request(&["GET", "last"]));
    assert_eq!(h.take(server), "", "the queue is full");
    h.send(server, "$-1\r\n".repeat(SERVER_REPLIES_MAX));
    assert_eq!(h.take(server), request(&["GET", "last"]));
    h.send(server, "$1\r\nx\r\n");
    assert_eq!(h.take(last), "$1\r\nx\r\n");
}

#[test]
fn draining_answers_what_was_read_and_then_closes() {
    let mut h = Harness::new(ONE);
    let (busy, idle) = (h.client(), h.client());
    h.send(busy, request(&["GET", "x"]));
    h.input(Input::Command(Command::Drain { limit: Duration::from_secs(5) }));
    assert!(h.is_closed(idle));
    assert!(!h.is_closed(busy));
    assert!(h.try_client().is_none());
    let server = h.server("127.0.0.1:1");
    h.send(server, "$1\r\nx\r\n");
    assert_eq!(h.take(busy), "$1\r\nx\r\n");
    assert!(h.is_closed(busy));
    assert_eq!(h.events.last(), Some(&Event::Drained));
}

#[test]
fn draining_has_a_limit() {
    let mut h = Harness::new(ONE);
    let stuck = h.client();
    h.send(stuck, request(&["GET", "x"]));
    h.input(Input::Command(Command::Drain { limit: Duration::from_secs(5) }));
    h.pass(Duration::from_secs(6));
    assert!(h.is_closed(stuck));
    assert_eq!(h.events.last(), Some(&Event::Drained));
}
