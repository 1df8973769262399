//! What clients see when servers are slow, dead or mad.

use std::time::Duration;

use ringkeeper_core::io::{CloseReason, Event, Failure, Input, ResolveError};
use ringkeeper_core::limits::REPLY_DEPTH_MAX;
use ringkeeper_core::proxy::Policy;

use crate::harness::{Harness, request};

const ONE: &str = "
p:
  listen: 127.0.0.1:22121
  redis: true
  timeout: 300
  servers:
    - 127.0.0.1:1:1 a
";

const EJECTING: &str = "
p:
  listen: 127.0.0.1:22121
  redis: true
  distribution: modula
  auto_eject_hosts: true
  server_failure_limit: 2
  server_retry_timeout: 1000
  timeout: 300
  servers:
    - 127.0.0.1:1:1 a
    - 127.0.0.1:2:1 b
";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_time_out_fails_its_request_and_not_the_neighbours() {
    let mut h = Harness::new(ONE);
    let clients: Vec<_> = (0..3).map(|_| h.client()).collect();
    h.send(clients[0], request(&["GET", "x"]));
    h.pass(ms(100));
    h.send(clients[1], request(&["GET", "y"]));
    let server = h.server("127.0.0.1:1");
    h.pass(ms(150));
    h.send(server, "$1\r\n");
    h.pass(ms(50));
    assert!(h.take(clients[0]).starts_with("-ERR Connection timed out"));
    assert_eq!(h.take(clients[1]), "");
    // The late reply is matched to its request and dropped; the next one is the neighbour's.
    h.send(server, "X\r\n$1\r\nY\r\n");
    assert_eq!(h.take(clients[0]), "");
    assert_eq!(h.take(clients[1]), "$1\r\nY\r\n");
    h.send(clients[2], request(&["GET", "z"]));
    assert_eq!(h.connects.len(), 1, "a server that answers late keeps its connection");
}

#[test]
fn a_reply_that_comes_slowly_has_time_as_long_as_it_comes() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.send(server, format!("$100000\r\n{}", "x".repeat(50_000)));
    h.pass(ms(200));
    h.send(server, "x".repeat(25_000));
    h.pass(ms(200));
    assert!(!h.is_closed(client), "400 ms after the request, 200 ms after the last bytes");
    h.send(server, "x".repeat(25_000) + "\r\n");
    assert_eq!(h.take(client).len(), "$100000\r\n".len() + 100_000 + 2);

    h.send(client, request(&["GET", "x"]));
    h.send(server, format!("$100000\r\n{}", "x".repeat(50_000)));
    h.pass(ms(350));
    assert!(h.is_closed(client), "half of a reply cannot be followed by an error");
}

#[test]
fn a_silent_connection_is_replaced_while_its_requests_keep_their_own_time_outs() {
    let mut h = Harness::new(ONE);
    let (one, two, three) = (h.client(), h.client(), h.client());
    h.send(one, request(&["GET", "x"]));
    h.pass(ms(200));
    h.send(two, request(&["GET", "y"]));
    h.pass(ms(101));
    assert!(h.take(one).starts_with("-ERR Connection timed out"));
    assert_eq!(h.take(two), "", "its own time is not over");
    h.pass(ms(40));
    h.send(three, request(&["GET", "z"]));
    assert_eq!(h.connects.len(), 2, "new requests get a new connection");
    // What the second client sends next must not overtake what it sent before.
    h.send(two, request(&["SET", "y", "1"]));
    let (old, new) = (h.connects[0].0, h.connects[1].0);
    h.take(old);
    assert_eq!(h.take(new), request(&["GET", "z"]));
    h.pass(ms(160));
    assert!(h.take(two).starts_with("-ERR Connection timed out"));
    assert_eq!(h.take(new), request(&["SET", "y", "1"]));
    assert!(h.is_closed(old));
}

#[test]
fn a_refused_connection_fails_what_waits_and_says_that_nothing_was_sent() {
    let mut h = Harness::new(ONE);
    h.is_connecting_at_once = false;
    let client = h.client();
    h.send(client, request(&["SET", "x", "1"]) + &request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.lose(server, CloseReason::Refused);
    let replies = h.take(client);
    let expected = "-ERR Connection refused (server a; the request was not sent)\r\n";
    assert_eq!(replies, expected.repeat(2));
    assert_eq!(
        h.events.first(),
        Some(&Event::ServerDown {
            pool: ringkeeper_core::id::PoolId(0),
            server: ringkeeper_core::id::ServerId(0),
            failure: Failure::Refused
        })
    );
}

#[test]
fn requests_fail_at_once_between_attempts_and_an_attempt_follows_by_itself() {
    let mut h = Harness::new(ONE);
    h.is_connecting_at_once = false;
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.lose(server, CloseReason::Refused);
    h.take(client);
    h.send(client, request(&["GET", "x"]));
    assert!(h.take(client).starts_with("-ERR Connection refused"));
    assert_eq!(h.connects.len(), 1);
    h.pass(ms(20));
    assert_eq!(h.connects.len(), 2, "somebody asked, so it is tried again");
    let server = h.server("127.0.0.1:1");
    h.connect(server);
    h.send(client, request(&["GET", "x"]));
    h.send(server, "$-1\r\n");
    assert_eq!(h.take(client), "$-1\r\n");
    assert!(h.events.iter().any(|event| matches!(event, Event::ServerUp { .. })));
}

#[test]
fn the_wait_between_attempts_grows_and_is_bounded() {
    let mut h = Harness::new(ONE);
    h.is_connecting_at_once = false;
    let client = h.client();
    for _ in 0..2_000 {
        h.send(client, request(&["GET", "x"]));
        h.take(client);
        if let Some((conn, _)) = h.connects.last().cloned()
            && !h.is_closed(conn)
        {
            h.lose(conn, CloseReason::Refused);
        }
        h.pass(ms(10));
    }
    // 20 s: a few quick attempts, then one in 250..=500 ms.
    assert!((40..=100).contains(&h.connects.len()), "{}", h.connects.len());
}

#[test]
fn a_lost_connection_says_that_the_outcome_is_unknown() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["SET", "x", "1"]));
    let server = h.server("127.0.0.1:1");
    h.eof(server);
    assert_eq!(
        h.take(client),
        "-ERR unknown (server a; whether the request took effect is unknown)\r\n"
    );
    assert!(h.is_closed(server));
}

#[test]
fn an_idle_connection_that_the_server_closes_is_no_failure() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.send(server, "$-1\r\n");
    h.eof(server);
    assert!(h.events.is_empty(), "{:?}", h.events);
    h.send(client, request(&["GET", "x"]));
    assert_eq!(h.connects.len(), 2);
}

#[test]
fn the_servers_own_errors_pass_through() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    for error in ["-LOADING Redis is loading\r\n", "-OOM no\r\n", "-BUSY x\r\n", "-READONLY x\r\n"]
    {
        h.send(client, request(&["GET", "x"]));
        let server = h.server("127.0.0.1:1");
        h.send(server, error);
        assert_eq!(h.take(client), error);
    }
    assert_eq!(h.connects.len(), 1);
}

#[test]
fn a_reply_that_nobody_asked_for_ends_the_connection_and_misleads_nobody() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.send(server, "+A\r\n+stray\r\n");
    assert_eq!(h.take(client), "+A\r\n");
    assert!(h.is_closed(server));
    h.send(client, request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.send(server, "+B\r\n");
    assert_eq!(h.take(client), "+B\r\n");
}

#[test]
fn garbage_from_a_server_fails_its_requests() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["GET", "x"]) + &request(&["GET", "y"]));
    let server = h.server("127.0.0.1:1");
    h.send(server, "HTTP/1.1 400 Bad Request\r\n");
    assert_eq!(h.take(client).matches("-ERR Invalid argument").count(), 2);
    assert!(h.is_closed(server));
}

#[test]
fn a_reply_deeper_than_any_server_can_make_counts_as_garbage() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    let deep = "*1\r\n".repeat(REPLY_DEPTH_MAX);
    h.send(server, &deep);
    assert!(!h.is_closed(server));
    h.send(server, "*1\r\n");
    assert!(h.is_closed(server));
}

#[test]
fn a_server_that_dies_within_a_large_reply_ends_that_client_only() {
    let mut h = Harness::new(ONE);
    let (big, small) = (h.client(), h.client());
    h.send(big, request(&["GET", "big"]));
    h.send(small, request(&["GET", "small"]));
    let server = h.server("127.0.0.1:1");
    h.send(server, format!("$1000000\r\n{}", "x".repeat(60_000)));
    h.send(server, "x".repeat(60_000));
    assert_eq!(h.take(big).len(), 120_000 + 10, "it leaves as it comes");
    h.lose(server, CloseReason::Reset);
    assert!(h.is_closed(big), "half a reply cannot be followed by an error");
    assert!(h.take(small).starts_with("-ERR Connection reset by peer"));
    assert!(!h.is_closed(small));
}

#[test]
fn servers_are_ejected_at_the_limit_and_return_only_after_a_probe() {
    let mut h = Harness::with_policy(EJECTING, Policy::NUTCRACKER);
    h.is_connecting_at_once = false;
    let client = h.client();
    // The empty key belongs to the first server.
    let get = request(&["GET", ""]);
    for attempt in 0..2 {
        h.send(client, &get);
        let server = h.server("127.0.0.1:1");
        h.lose(server, CloseReason::Refused);
        assert_eq!(h.take(client), "-ERR Connection refused\r\n", "attempt {attempt}");
        h.pass(ms(150));
    }
    h.send(client, &get);
    let other = h.server("127.0.0.1:2");
    h.connect(other);
    h.send(other, "$-1\r\n");
    assert_eq!(h.take(client), "$-1\r\n", "the other server has the keys");
    let before = h.connects.len();
    h.pass(ms(1000));
    assert_eq!(h.connects.len(), before + 1, "a probe");
    let probe = h.server("127.0.0.1:1");
    h.lose(probe, CloseReason::Refused);
    h.send(client, &get);
    h.send(other, "$-1\r\n");
    assert_eq!(h.take(client), "$-1\r\n", "a dead server is not put back");
    h.pass(ms(1000));
    let probe = h.server("127.0.0.1:1");
    h.connect(probe);
    assert_eq!(h.take(probe), request(&["PING"]));
    h.send(client, &get);
    h.send(other, "$-1\r\n");
    h.take(client);
    h.send(probe, "+PONG\r\n");
    h.send(client, &get);
    assert_eq!(h.take(probe), get, "back in the ring");
    assert!(h.events.iter().any(|event| matches!(event, Event::Returned { .. })));
}

#[test]
fn a_restart_of_a_server_with_many_connections_counts_once() {
    let config = EJECTING.replace("timeout: 300", "server_connections: 4");
    let mut h = Harness::new(&config);
    let clients: Vec<_> = (0..4).map(|_| h.client()).collect();
    for client in &clients {
        h.send(*client, request(&["GET", ""]));
    }
    for (conn, _) in h.connects.clone() {
        h.lose(conn, CloseReason::Reset);
    }
    assert!(!h.events.iter().any(|event| matches!(event, Event::Ejected { .. })));
}

#[test]
fn with_every_server_ejected_requests_fail_at_once() {
    let mut h = Harness::with_policy(EJECTING, Policy::NUTCRACKER);
    h.is_connecting_at_once = false;
    let client = h.client();
    for _ in 0..6 {
        h.send(client, request(&["GET", ""]));
        if let Some((conn, _)) = h.connects.last().cloned()
            && !h.is_closed(conn)
        {
            h.lose(conn, CloseReason::Refused);
        }
        assert_eq!(h.take(client), "-ERR Connection refused\r\n");
        h.pass(ms(100));
    }
    let ejected = h.events.iter().filter(|event| matches!(event, Event::Ejected { .. })).count();
    assert_eq!(ejected, 2);
}

#[test]
fn host_names_are_looked_up_whenever_a_connection_is_made() {
    let mut h = Harness::new(&ONE.replace("127.0.0.1:1:1 a", "db.example:6379:1 a"));
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    assert_eq!(h.queries.len(), 1);
    let query = h.queries[0].0;
    let addresses = vec![([10, 0, 0, 1], 6379).into(), ([10, 0, 0, 2], 6379).into()];
    h.is_connecting_at_once = false;
    h.input(Input::Resolved { query, result: Ok(addresses) });
    let first = h.server("10.0.0.1:6379");
    h.lose(first, CloseReason::Refused);
    let second = h.server("10.0.0.2:6379");
    h.connect(second);
    assert_eq!(h.take(second), request(&["GET", "x"]), "the next address is tried");
    h.send(second, "$-1\r\n");
    assert_eq!(h.take(client), "$-1\r\n");
    h.eof(second);
    h.send(client, request(&["GET", "x"]));
    assert_eq!(h.queries.len(), 2, "looked up again");
    let query = h.queries[1].0;
    h.input(Input::Resolved { query, result: Err(ResolveError::Temporary) });
    assert!(h.take(client).starts_with("-ERR Host is down"));
}

#[test]
fn servers_are_greeted_before_the_first_request() {
    let config = ONE.replace("timeout: 300", "redis_auth: pw\n  redis_db: 3");
    let mut h = Harness::new(&config);
    let client = h.client();
    h.send(client, request(&["AUTH", "pw"]) + &request(&["GET", "x"]));
    assert_eq!(h.take(client), "+OK\r\n");
    let server = h.server("127.0.0.1:1");
    assert_eq!(h.take(server), request(&["AUTH", "pw"]) + &request(&["SELECT", "3"]));
    h.send(server, "+OK\r\n");
    assert_eq!(h.take(server), "");
    h.send(server, "+OK\r\n");
    assert_eq!(h.take(server), request(&["GET", "x"]));
}

#[test]
fn a_refused_greeting_is_told_to_the_client_and_nothing_is_written_to_the_wrong_database() {
    let mut h = Harness::new(&ONE.replace("timeout: 300", "redis_db: 99"));
    let client = h.client();
    h.send(client, request(&["SET", "x", "1"]));
    let server = h.server("127.0.0.1:1");
    assert_eq!(h.take(server), request(&["SELECT", "99"]));
    h.send(server, "-ERR DB index is out of range\r\n");
    assert_eq!(h.take(client), "-ERR DB index is out of range\r\n");
    assert_eq!(h.take(server), "");
    assert!(h.is_closed(server));
    assert!(h.events.iter().any(|event| matches!(event, Event::GreetingRefused { .. })));
}

#[test]
fn a_server_without_a_password_serves_a_pool_that_has_one() {
    let mut h = Harness::new(&ONE.replace("timeout: 300", "redis_auth: pw"));
    let client = h.client();
    h.send(client, request(&["AUTH", "pw"]) + &request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.take(server);
    h.send(server, "-ERR AUTH called without any password configured\r\n");
    assert_eq!(h.take(server), request(&["GET", "x"]));
    h.send(server, "$-1\r\n");
    assert_eq!(h.take(client), "+OK\r\n$-1\r\n");
}

#[test]
fn servers_are_connected_at_start_when_the_pool_says_so() {
    let config = ONE.replace("timeout: 300", "preconnect: true\n  server_connections: 2");
    let h = Harness::new(&config);
    assert_eq!(h.connects.len(), 2);
}

#[test]
fn the_beginning_of_a_reply_that_nobody_asked_for_ends_the_connection() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.send(server, "$-1\r\n");
    assert_eq!(h.take(client), "$-1\r\n");
    // In one turn with the next request, which has not left yet: large enough to be passed on.
    let next = request(&["GET", "y"]);
    let begun = format!("$80000\r\n{}", "x".repeat(40_000));
    h.send_together(&[(client, next.as_bytes()), (server, begun.as_bytes())]);
    let reply = h.take(client);
    assert!(reply.starts_with("-ERR Invalid argument") && reply.contains("not sent"), "{reply}");
    assert!(h.is_closed(server) && !h.is_closed(client));
}

#[test]
fn a_request_that_times_out_before_it_is_sent_is_never_sent() {
    let mut h = Harness::new(ONE);
    let (first, second) = (h.client(), h.client());
    h.send(first, request(&["GET", "a"]));
    let server = h.server("127.0.0.1:1");
    h.hold(server);
    h.send(server, "$-1\r\n");
    h.send(first, request(&["GET", "b"]).repeat(2));
    h.send(second, request(&["SET", "k", "late"]));
    h.pass(ms(200));
    h.send(server, "$-1\r\n");
    h.send(second, request(&["GET", "in-time"]));
    h.take(server);
    h.pass(ms(100));
    assert!(h.take(second).contains("the request was not sent"));
    h.release(server);
    assert_eq!(h.take(server), request(&["GET", "in-time"]));
    h.send(server, "$-1\r\n$1\r\nx\r\n");
    assert_eq!(h.take(second), "$1\r\nx\r\n");
}

#[test]
fn requests_of_a_connection_that_was_replaced_while_it_tried_its_addresses_fail() {
    let config = ONE.replace("127.0.0.1:1:1 a", "a.example:1:1 a");
    let mut h = Harness::new(&config);
    h.is_connecting_at_once = false;
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    let query = h.queries[0].0;
    let addresses = vec![([127, 0, 0, 2], 1).into(), ([127, 0, 0, 3], 1).into()];
    h.input(Input::Resolved { query, result: Ok(addresses) });
    h.pass(ms(200));
    h.send(client, request(&["GET", "y"]));
    h.pass(ms(100));
    assert!(h.take(client).starts_with("-ERR Connection timed out"));
    let connecting = h.server("127.0.0.2:1");
    h.lose(connecting, CloseReason::Refused);
    assert!(h.take(client).starts_with("-ERR Connection refused"));
}

#[test]
fn a_push_in_pieces_is_dropped_and_a_large_one_ends_the_connection() {
    let mut h = Harness::new(ONE);
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.send(server, "$-1\r\n>1\r\n$3\r\na");
    h.send(client, request(&["GET", "y"]));
    h.send(server, "bc\r\n$1\r\nY\r\n");
    assert_eq!(h.take(client), "$-1\r\n$1\r\nY\r\n");
    h.send(client, request(&["GET", "z"]));
    h.send(server, format!(">1\r\n$80000\r\n{}", "x".repeat(40_000)));
    assert!(h.take(client).starts_with("-ERR Invalid argument"));
    assert!(h.is_closed(server) && !h.is_closed(client));
}
