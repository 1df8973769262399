//! memcached clients and servers.

use std::time::Duration;

use ringkeeper_core::id::ConnId;
use ringkeeper_core::io::{CloseReason, Command, Event, Input};
use ringkeeper_core::proxy::Policy;

use crate::harness::Harness;

const TWO: &str = "
p:
  listen: 127.0.0.1:22121
  hash: fnv1a_64
  distribution: modula
  timeout: 400
  servers:
    - 127.0.0.1:1:1 a
    - 127.0.0.1:2:1 b
";

const A: &str = "127.0.0.1:1";
const B: &str = "127.0.0.1:2";

/// Keys that `TWO` puts on the first server and on the second, so many of each.
fn keys(count: usize) -> (Vec<String>, Vec<String>) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for number in 0.. {
        let key = format!("k{number}");
        let mut hash = 0x8422_2325_u32;
        for byte in key.bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x1b3);
        }
        let side = if hash.is_multiple_of(2) { &mut a } else { &mut b };
        if side.len() < count {
            side.push(key);
        }
        if a.len() == count && b.len() == count {
            return (a, b);
        }
    }
    unreachable!()
}

/// One client, and a key of each server.
fn start() -> (Harness, ConnId, String, String) {
    let mut h = Harness::new(TWO);
    let client = h.client();
    let (a, b) = keys(1);
    (h, client, a[0].clone(), b[0].clone())
}

#[test]
fn requests_reach_the_server_of_their_key_as_they_were_sent() {
    let (mut h, client, a, b) = start();
    let to_a = format!("set {a} 5 -1 3\r\nabc\r\nincr {a} 1\r\ntouch {a} 0\r\ngat 0 {a}\r\n");
    let to_b = format!("gets {b}\r\ncas {b} 0 0 1 9\r\nx\r\ndelete {b}\r\nmg {b} v\r\nme {b}\r\n");
    h.send(client, to_a.clone() + &to_b);
    let (first, second) = (h.server(A), h.server(B));
    assert_eq!((h.take(first), h.take(second)), (to_a, to_b));
}

#[test]
fn replies_leave_in_the_order_of_the_requests() {
    let (mut h, client, a, b) = start();
    h.send(client, format!("get {a}\r\nget {b}\r\nmn\r\nset {a} 0 0 0\r\n\r\n"));
    let (first, second) = (h.server(A), h.server(B));
    h.send(second, "END\r\n");
    assert_eq!(h.take(client), "");
    h.send(first, format!("VALUE {a} 0 5\r\nEND\r\n\r\nEND\r\nSTORED\r\n"));
    assert_eq!(
        h.take(client),
        format!("VALUE {a} 0 5\r\nEND\r\n\r\nEND\r\nEND\r\nMN\r\nSTORED\r\n")
    );
}

#[test]
fn any_cut_of_the_bytes_gives_the_same_conversation() {
    let (_, _, a, b) = start();
    let requests = format!(
        "set {a} 0 0 4 noreply\r\n\r\n\r\n\r\nget {a} {b}\r\nset {a} x 0 3\r\nabc\r\nmg {b} v q\r\nmn\r\n"
    );
    for step in 1..requests.len() {
        let (mut h, client, ..) = start();
        for piece in requests.as_bytes().chunks(step) {
            h.send(client, piece);
        }
        let (first, second) = (h.server(A), h.server(B));
        let to_a = format!("set {a} 0 0 4\r\n\r\n\r\n\r\nget {a}\r\n");
        assert_eq!(h.take(first), to_a, "cut at every {step}");
        assert_eq!(h.take(second), format!("get {b}\r\nmg {b} v q\r\nmn\r\n"));
        for piece in
            format!("STORED\r\nVALUE {a} 0 4\r\n\r\n\r\n\r\nEND\r\n").as_bytes().chunks(step)
        {
            h.send(first, piece);
        }
        for piece in b"END\r\nMN\r\n".chunks(step) {
            h.send(second, piece);
        }
        let expected = format!(
            "VALUE {a} 0 4\r\n\r\n\r\n\r\nEND\r\nCLIENT_ERROR bad command line format\r\nMN\r\n"
        );
        assert_eq!(h.take(client), expected, "cut at every {step}");
    }
}

#[test]
fn values_are_joined_in_the_order_of_the_keys() {
    let (mut h, client, ..) = start();
    let (a, b) = keys(3);
    h.send(client, format!("gets {} {} {} {} {} {}\r\n", b[0], a[0], a[1], b[1], a[2], b[0]));
    let (first, second) = (h.server(A), h.server(B));
    assert_eq!(h.take(first), format!("gets {} {} {}\r\n", a[0], a[1], a[2]));
    assert_eq!(h.take(second), format!("gets {} {} {}\r\n", b[0], b[1], b[0]));
    let value = |key: &str| format!("VALUE {key} 0 2 7\r\n\r\n\r\n");
    h.send(second, value(&b[0]) + &value(&b[0]) + "END\r\n");
    assert_eq!(h.take(client), "");
    h.send(first, value(&a[1]) + &value(&a[2]) + "END\r\n");
    let expected = value(&b[0]) + &value(&a[1]) + &value(&a[2]) + &value(&b[0]) + "END\r\n";
    assert_eq!(h.take(client), expected);
}

#[test]
fn keys_of_one_server_are_asked_for_as_they_came() {
    let (mut h, client, ..) = start();
    let (a, _) = keys(3);
    h.send(client, format!("get {} {}\r\n", a[0], a[1]));
    h.send(client, format!(" gat  5 {}   {}\n", a[0], a[1]));
    let first = h.server(A);
    let expected = format!("get {0} {1}\r\ngat 5 {0} {1}\r\n", a[0], a[1]);
    assert_eq!(h.take(first), expected);
}

#[test]
fn a_server_is_never_sent_a_long_line_but_of_get() {
    let (mut h, client, ..) = start();
    let (a, b) = keys(1000);
    let all: Vec<&str> = a.iter().chain(&b).map(String::as_str).collect();
    h.send(client, format!("gats 100 {}\r\n", all.join(" ")));
    for (server, keys) in [(h.server(A), &a), (h.server(B), &b)] {
        let text = h.take(server);
        assert!(text.lines().count() > 2 && text.ends_with("\r\n"));
        let mut asked = Vec::new();
        for line in text.split_terminator("\r\n") {
            assert!(line.len() + 2 <= 2048);
            asked.extend(line.strip_prefix("gats 100 ").unwrap().split(' '));
            let keys = line.split(' ').skip(2);
            let values: String = keys.map(|key| format!("VALUE {key} 0 1 1\r\nx\r\n")).collect();
            h.send(server, values + "END\r\n");
        }
        assert!(asked.iter().eq(keys.iter()));
    }
    let values: String = all.iter().map(|key| format!("VALUE {key} 0 1 1\r\nx\r\n")).collect();
    assert_eq!(h.take(client), values + "END\r\n");
}

#[test]
fn an_error_of_one_part_is_the_reply() {
    let (mut h, client, a, b) = start();
    for (error, shown) in [
        ("SERVER_ERROR out of memory\r\n", "SERVER_ERROR out of memory\r\n"),
        ("STORED\r\n", "SERVER_ERROR a server answered a part of the request strangely\r\n"),
    ] {
        h.send(client, format!("get {a} {b}\r\nmn\r\n"));
        let (first, second) = (h.server(A), h.server(B));
        h.send(second, error);
        h.send(first, "END\r\n");
        assert_eq!(h.take(client), format!("{shown}MN\r\n"));
    }
}

#[test]
fn noreply_is_served_without_a_word_and_waits_for_nothing() {
    let (mut h, client, a, b) = start();
    h.send(client, format!("set {a} 0 0 1 noreply\r\nx\r\nget {b}\r\nincr {a} 1 noreply\r\n"));
    let (first, second) = (h.server(A), h.server(B));
    assert_eq!(h.take(first), format!("set {a} 0 0 1\r\nx\r\nincr {a} 1\r\n"));
    h.send(second, "END\r\n");
    assert_eq!(h.take(client), "END\r\n", "although the first server has not answered");
    h.send(first, "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
    h.send(client, format!("get {a}\r\n"));
    h.send(first, "END\r\n");
    assert_eq!(h.take(client), "END\r\n", "replies that nobody wants shift nobody's");
}

#[test]
fn a_client_that_said_noreply_and_left_has_its_requests_carried_out() {
    let mut h = Harness::new(TWO);
    h.is_connecting_at_once = false;
    let client = h.client();
    let (a, _) = keys(1);
    h.send(client, format!("set {} 0 0 1 noreply\r\nx\r\nquit\r\n", a[0]));
    let server = h.server(A);
    assert!(!h.is_closed(client), "a drain must not end before the request has left");
    h.connect(server);
    assert_eq!(h.take(server), format!("set {} 0 0 1\r\nx\r\n", a[0]));
    h.send(server, "STORED\r\n");
    assert!(h.is_closed(client));
    assert_eq!(h.take(client), "");
}

#[test]
fn noreply_to_a_server_that_fails_says_nothing() {
    let (mut h, client, a, b) = start();
    h.send(client, format!("set {a} 0 0 1 noreply\r\nx\r\n"));
    let server = h.server(A);
    h.lose(server, CloseReason::Reset);
    // At once after a failure there is no attempt.
    h.send(client, format!("set {a} 0 0 1 noreply\r\nx\r\nget {b}\r\n"));
    let other = h.server(B);
    h.send(other, "END\r\n");
    assert_eq!(h.take(client), "END\r\n");
    h.eof(client);
    assert!(h.is_closed(client), "nothing is under way");
}

#[test]
fn noreply_that_times_out_says_nothing_and_its_late_reply_goes_to_nobody() {
    let (mut h, client, a, _) = start();
    h.send(client, format!("set {a} 0 0 1 noreply\r\nx\r\n"));
    let server = h.server(A);
    h.pass(Duration::from_millis(300));
    h.send(client, format!("get {a}\r\n"));
    h.pass(Duration::from_millis(200));
    h.send(server, "STORED\r\nEND\r\n");
    assert_eq!(h.take(client), "END\r\n");
    h.eof(client);
    assert!(h.is_closed(client));
}

#[test]
fn a_client_can_have_so_many_requests_without_reply_under_way() {
    let (mut h, client, a, _) = start();
    let set = format!("set {a} 0 0 1 noreply\r\nx\r\n");
    h.send(client, set.repeat(3000));
    let server = h.server(A);
    let stored = h.take(server).matches("set").count();
    assert_eq!(stored, 1024);
    for _ in 0..40 {
        h.send(client, set.repeat(1000));
        if h.wires[&client].is_paused {
            break;
        }
    }
    assert!(h.wires[&client].is_paused, "what it sends meanwhile is not read for ever");
    let mut answered = 0;
    let mut due = stored;
    while due > 0 {
        h.send(server, "STORED\r\n".repeat(due));
        answered += due;
        due = h.take(server).matches("set").count();
    }
    assert!(answered >= 4000 && !h.wires[&client].is_paused, "{answered}");
    assert_eq!(h.take(client), "");
}

#[test]
fn quiet_commands_say_what_the_server_says_and_no_more() {
    let (mut h, client, a, b) = start();
    let request =
        format!("mg {a} v q O1\r\nmg {b} v q O2\r\nms {a} 1 q\r\nx\r\nmd {b} q O3\r\nmn\r\n");
    h.send(client, request);
    let (first, second) = (h.server(A), h.server(B));
    assert_eq!(h.take(first), format!("mg {a} v q O1\r\nmn\r\nms {a} 1 q\r\nx\r\nmn\r\n"));
    assert_eq!(h.take(second), format!("mg {b} v q O2\r\nmn\r\nmd {b} q O3\r\nmn\r\n"));
    h.send(second, "VA 4 O2\r\nMN\r\n\r\nMN\r\nNF O3\r\nMN\r\n");
    assert_eq!(h.take(client), "");
    h.send(first, "MN\r\nMN\r\n");
    assert_eq!(h.take(client), "VA 4 O2\r\nMN\r\n\r\nNF O3\r\nMN\r\n");
}

#[test]
fn many_quiet_commands_pass_although_nothing_is_ever_said() {
    let (mut h, client, a, _) = start();
    h.send(client, format!("md {a} q\r\n").repeat(2000) + "mn\r\n");
    let server = h.server(A);
    let mut rounds = 0;
    loop {
        let due = h.take(server).matches("mn\r\n").count();
        if due == 0 {
            break;
        }
        rounds += 1;
        h.send(server, "MN\r\n".repeat(due));
    }
    assert_eq!(h.take(client), "MN\r\n");
    assert!(rounds < 20, "the window opens: {rounds} rounds");
}

#[test]
fn a_quiet_command_that_times_out_shifts_nobody() {
    for late in ["MN\r\n", "VA 1\r\nx\r\nMN\r\n"] {
        let (mut h, client, a, _) = start();
        h.send(client, format!("mg {a} v q\r\n"));
        let server = h.server(A);
        h.pass(Duration::from_millis(300));
        h.send(client, format!("get {a}\r\n"));
        h.pass(Duration::from_millis(200));
        let error = h.take(client);
        assert!(error.starts_with("SERVER_ERROR Connection timed out"), "{error}");
        h.send(server, format!("{late}END\r\n"));
        assert_eq!(h.take(client), "END\r\n");
    }
}

#[test]
fn a_key_in_base64_has_the_server_of_the_key() {
    let (mut h, client, a, b) = start();
    // "k0" and so on: two letters, one padding.
    for (key, at) in [(a, A), (b, B)] {
        let bits = key.bytes().fold(0_u32, |bits, byte| (bits << 8) | u32::from(byte)) << 2;
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        assert_eq!(key.len(), 2);
        let encoded: String = [12, 6, 0]
            .iter()
            .map(|shift| char::from(digits[(bits >> shift) as usize & 63]))
            .collect();
        let request = format!("mg {encoded}= b v\r\n");
        h.send(client, request.clone());
        let server = h.server(at);
        assert_eq!(h.take(server), request);
        h.send(server, "EN\r\n");
        assert_eq!(h.take(client), "EN\r\n");
    }
    h.send(client, "mg a b v\r\n");
    assert_eq!(h.take(client), "CLIENT_ERROR error decoding key\r\n");
}

#[test]
fn a_server_that_does_not_know_ms_is_given_up() {
    let (mut h, client, a, _) = start();
    let other = h.client();
    h.send(client, format!("ms {a} 4\r\nget \r\n"));
    h.send(other, format!("get {a}\r\n"));
    let server = h.server(A);
    h.send(server, "ERROR\r\nERROR\r\nEND\r\n");
    assert_eq!(h.take(client), "ERROR\r\n");
    let error = h.take(other);
    assert!(error.starts_with("SERVER_ERROR Invalid argument (server a; whether"), "{error}");
    assert!(h.is_closed(server));
}

#[test]
fn everybody_is_told_to_flush_and_one_failure_is_told() {
    let (mut h, client, a, _) = start();
    h.send(client, "flush_all 10\r\nverbosity 1\r\nflush_all noreply\r\n");
    let (first, second) = (h.server(A), h.server(B));
    for server in [first, second] {
        assert_eq!(h.take(server), "flush_all 10\r\nverbosity 1\r\nflush_all\r\n");
    }
    h.send(first, "OK\r\nOK\r\nOK\r\n");
    assert_eq!(h.take(client), "");
    h.send(second, "OK\r\nCLIENT_ERROR no\r\nOK\r\n");
    assert_eq!(h.take(client), "OK\r\nCLIENT_ERROR no\r\n");

    h.lose(first, CloseReason::Reset);
    h.send(client, format!("get {a}\r\n"));
    let first = h.server(A);
    h.lose(first, CloseReason::Refused);
    h.take(client);
    h.send(client, "flush_all\r\n");
    assert_eq!(h.take(second), "flush_all\r\n", "whoever can be reached is flushed");
    h.send(second, "OK\r\n");
    let error = h.take(client);
    assert!(
        error.starts_with("SERVER_ERROR Connection refused (server a; the request was"),
        "{error}"
    );
}

#[test]
fn failures_are_worded_as_by_twemproxy_under_its_name() {
    let mut h = Harness::with_policy(TWO, Policy::NUTCRACKER);
    let client = h.client();
    let (a, b) = keys(1);
    h.send(client, format!("get {}\r\n", a[0]));
    let server = h.server(A);
    h.lose(server, CloseReason::Refused);
    assert_eq!(h.take(client), "SERVER_ERROR Connection refused\r\n");
    h.send(client, format!("get {} {}\r\nmn\r\n", a[0], b[0]));
    assert_eq!(h.take(client), "SERVER_ERROR Connection refused\r\nMN\r\n");
    h.send(client, format!("get {}\r\n", b[0]));
    h.pass(Duration::from_millis(400));
    assert_eq!(h.take(client), "SERVER_ERROR Connection timed out\r\n");
    assert!(!h.is_closed(client));
}

#[test]
fn bad_lines_are_answered_and_the_stream_stays_in_step() {
    for policy in [Policy::NUTCRACKER, Policy::RINGKEEPER] {
        let mut h = Harness::with_policy(TWO, policy);
        let client = h.client();
        h.send(
            client,
            "GET k\r\n\r\nset k 0 0 3\r\nabcdef\r\nset k y 0 4\r\nget\n\r\nslabs\r\nmn\r\n",
        );
        assert_eq!(
            h.take(client),
            "ERROR\r\nERROR\r\nCLIENT_ERROR bad data chunk\r\nCLIENT_ERROR bad command line \
             format\r\nCLIENT_ERROR not supported by the proxy: this command manages one server; \
             connect to it directly\r\nMN\r\n"
        );
        assert!(h.connects.is_empty());
        let long = "x".repeat(3000);
        h.send(client, format!("mn\r\n{long}"));
        assert_eq!(h.take(client), "MN\r\nCLIENT_ERROR line too long\r\n");
        assert!(h.is_closed(client));
        let client = h.client();
        h.send(client, b"\x80\x00\x00\x00");
        assert!(h.is_closed(client), "the binary protocol");
    }
}

#[test]
fn control_characters_pass_under_twemproxys_name_only() {
    for (policy, passes) in [(Policy::NUTCRACKER, true), (Policy::RINGKEEPER, false)] {
        let mut h = Harness::with_policy(TWO, policy);
        let client = h.client();
        h.send(client, "get a\x01b\r\n");
        assert_eq!(h.connects.len() == 1, passes);
        let refusal = if passes { "" } else { "CLIENT_ERROR bad command line format\r\n" };
        assert_eq!(h.take(client), refusal);
    }
}

#[test]
fn a_value_above_the_limit_is_passed_over_and_never_stored() {
    let mut h = Harness::new(&TWO.replace("timeout: 400", "request_bytes_max: 4096"));
    let client = h.client();
    h.send(client, "set k 0 0 1000000\r\n");
    assert_eq!(h.take(client), "SERVER_ERROR object too large for cache\r\n");
    for _ in 0..1000 {
        h.send(client, [b'\n'; 1000]);
    }
    h.send(client, "\r\nset k 0 0 1000000 noreply\r\n");
    h.send(client, [b'x'; 1_000_000]);
    h.send(client, "\r\nmn\r\n");
    assert_eq!(h.take(client), "MN\r\n");
    assert!(h.connects.is_empty());
}

#[test]
fn stats_are_the_proxys_own_and_quit_ends_behind_what_is_owed() {
    let (mut h, client, a, _) = start();
    h.send(client, format!("get {a}\r\nstats\r\nstats items\r\nversion\r\nquit\r\nmn\r\n"));
    let server = h.server(A);
    assert!(!h.is_closed(client));
    h.send(server, "END\r\n");
    let other = h.connects.iter().map(|(conn, _)| *conn).find(|conn| *conn != server);
    h.send(other.unwrap_or(server), "VERSION 1.6.18\r\n");
    let reply = h.take(client);
    assert!(reply.starts_with("END\r\nSTAT pid 0\r\n"), "{reply}");
    // All workers are asked at the end of the turn, so the request behind it is counted too.
    assert!(reply.contains("STAT server:a:requests 2\r\n"), "{reply}");
    assert!(reply.contains("END\r\nCLIENT_ERROR only stats"), "{reply}");
    assert!(reply.ends_with("VERSION 1.6.18\r\n"), "{reply}");
    assert!(h.is_closed(client));
}

#[test]
fn an_ejected_server_is_asked_for_its_version_before_it_returns() {
    let config = TWO.replace(
        "timeout: 400",
        "timeout: 400\n  auto_eject_hosts: true\n  server_failure_limit: 1\n  \
         server_retry_timeout: 1000",
    );
    let mut h = Harness::new(&config);
    h.is_connecting_at_once = false;
    let client = h.client();
    let (a, _) = keys(1);
    h.send(client, format!("get {}\r\n", a[0]));
    let server = h.server(A);
    h.lose(server, CloseReason::Refused);
    assert!(h.events.iter().any(|event| matches!(event, Event::Ejected { .. })));
    h.pass(Duration::from_millis(1000));
    for (answer, returns) in
        [("ERROR Too many open connections\r\n", false), ("VERSION 1\r\n", true)]
    {
        let probe = h.server(A);
        h.connect(probe);
        assert_eq!(h.take(probe), "version\r\n");
        h.send(probe, answer);
        let is_back = h.events.iter().any(|event| matches!(event, Event::Returned { .. }));
        assert_eq!(is_back, returns, "{answer}");
        h.pass(Duration::from_millis(1000));
    }
}

#[test]
fn no_database_is_selected_on_a_memcached() {
    let mut h = Harness::new(&TWO.replace("timeout: 400", "redis_db: 3"));
    let client = h.client();
    h.send(client, "get k\r\n");
    let server = h.connects[0].0;
    assert_eq!(h.take(server), "get k\r\n");
}

#[test]
fn a_large_value_leaves_in_pieces_and_a_slow_reader_holds_nobody() {
    let (mut h, client, a, _) = start();
    let other = h.client();
    h.hold(client);
    h.send(client, format!("get {a}\r\n").repeat(300));
    h.send(other, format!("get {a}\r\n"));
    let server = h.server(A);
    let asked = h.take(server).matches("get").count();
    assert!(asked < 20, "the slow client's window is {asked}");
    let value = format!("VALUE {a} 0 1100000\r\n{}\r\nEND\r\n", "x".repeat(1_100_000));
    for _ in 0..asked - 1 {
        for piece in value.as_bytes().chunks(60_000) {
            h.send(server, piece);
        }
    }
    h.send(server, "END\r\n");
    assert_eq!(h.take(other), "END\r\n");
    assert_eq!(h.take(server), "", "nothing more is asked for on its behalf");
}

#[test]
fn a_client_that_never_reads_is_closed_at_its_limit() {
    let mut h = Harness::new(&TWO.replace("timeout: 400", "client_output_bytes_max: 100000"));
    let client = h.client();
    let (a, _) = keys(1);
    h.hold(client);
    h.send(client, format!("mg {} v\r\n", a[0]).repeat(16));
    let server = h.server(A);
    for _ in 0..16 {
        h.send(server, format!("VA 20000\r\n{}\r\n", "x".repeat(20_000)));
    }
    assert!(h.is_closed(client));
    assert!(h.events.iter().any(|event| matches!(event, Event::ClientOverLimit { .. })));
    assert!(!h.is_closed(server));
}

#[test]
fn a_half_sent_value_of_a_dead_server_ends_the_client_and_a_cut_reply_does_not() {
    let (mut h, client, a, _) = start();
    h.send(client, format!("get {a}\r\n"));
    let server = h.server(A);
    h.send(server, format!("VALUE {a} 0 100000\r\n{}", "x".repeat(50_000)));
    h.input(Input::Eof { conn: server });
    assert!(h.is_closed(client));

    let (mut h, client, a, _) = start();
    h.send(client, format!("get {a}\r\n"));
    let server = h.server(A);
    h.send(server, format!("VALUE {a} 0 100\r\nxxx"));
    h.input(Input::Eof { conn: server });
    let error = h.take(client);
    assert!(error.starts_with("SERVER_ERROR unknown (server a; whether"), "{error}");
    assert!(!h.is_closed(client));
}

#[test]
fn a_client_is_handed_over_when_what_it_wanted_no_reply_to_is_over() {
    let (mut h, client, a, _) = start();
    h.send(client, format!("set {a} 0 0 1 noreply\r\nx\r\nset k x 0 3\r\na"));
    let limit = Duration::from_secs(30);
    h.input(Input::Command(Command::HandOver { limit }));
    assert!(h.released.is_empty());
    let server = h.server(A);
    h.send(server, "STORED\r\n");
    let [(conn, state)] = h.released.as_slice() else { panic!("{:?}", h.released) };
    assert_eq!((*conn, state.skips), (client, Some(2)), "the rest of a refused value is known");
}

#[test]
fn clients_of_a_pool_that_changes_its_protocol_finish_and_new_ones_speak_the_other() {
    let (mut h, client, a, _) = start();
    h.send(client, format!("get {a}\r\n"));
    h.reload(&TWO.replace("timeout: 400", "timeout: 400\n  redis: true"));
    assert!(!h.is_closed(client));
    let server = h.server(A);
    h.send(server, "END\r\n");
    assert_eq!(h.take(client), "END\r\n");
    assert!(h.is_closed(client));
    let client = h.client();
    h.send(client, "*1\r\n$4\r\nPING\r\n");
    assert_eq!(h.take(client), "+PONG\r\n");
}
