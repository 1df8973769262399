//! Another plan while requests are under way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use ringkeeper_core::id::ConnId;
use ringkeeper_core::io::{CloseReason, Event, Input};
use ringkeeper_core::proxy::Plan;

use crate::harness::{Harness, request};

/// Writes a configuration: pools with their options and servers, `port name`.
fn config(pools: &[(&str, &str, &[&str])]) -> String {
    let mut text = String::new();
    for (at, (name, options, servers)) in pools.iter().enumerate() {
        let _ = write!(text, "{name}:\n  listen: 127.0.0.1:{}\n  redis: true\n", 22121 + at);
        for option in options.split(';').filter(|option| !option.is_empty()) {
            let _ = writeln!(text, "  {option}");
        }
        text.push_str("  servers:\n");
        for server in *servers {
            let (port, name) = server.split_once(' ').unwrap();
            let _ = writeln!(text, "   - 127.0.0.1:{port}:1 {name}");
        }
    }
    text
}

fn one(options: &str, servers: &[&str]) -> String {
    config(&[("p", options, servers)])
}

/// Finds a key of the server at `address`: sends GETs until one arrives there.
fn key_of(h: &mut Harness, client: ConnId, address: &str) -> String {
    for number in 0.. {
        let key = format!("key{number}");
        h.send(client, request(&["GET", &key]));
        let connects = h.connects.clone();
        for (conn, at) in connects {
            if h.take(conn).contains(&key) {
                h.send(conn, "$-1\r\n");
                h.take(client);
                if at == address {
                    return key;
                }
            }
        }
    }
    unreachable!("each server has a key");
}

#[test]
fn what_is_the_same_in_both_plans_goes_on_as_if_nothing_had_happened() {
    let mut h = Harness::new(&config(&[("pool", "", &["1 a", "2 b"])]));
    let client = h.client();
    let key = key_of(&mut h, client, "127.0.0.1:1");
    let connects = h.connects.len();
    let server = h.server("127.0.0.1:1");
    h.send(client, request(&["GET", &key]));
    h.take(server);
    // The new pool's shorter name puts it first, so that every position changes.
    h.reload(&config(&[("pool", "", &["1 a", "2 b"]), ("q", "", &["3 c"])]));
    h.send(server, "$3\r\nold\r\n");
    assert_eq!(h.take(client), "$3\r\nold\r\n");
    h.send(client, request(&["GET", &key]));
    assert!(h.take(server).contains(&key));
    assert_eq!(h.connects.len(), connects, "no connection was made again");
    assert!(!h.is_closed(server) && !h.is_closed(client));
    assert!(h.events.iter().any(|event| matches!(event, Event::Reloaded(_))));
    let other = h.client_of(0).unwrap();
    h.send(other, request(&["GET", "x"]));
    let third = h.server("127.0.0.1:3");
    assert!(h.take(third).contains("GET"), "the new pool is at work");
}

#[test]
fn a_removed_server_answers_what_it_was_asked_and_then_its_connection_closes() {
    let mut h = Harness::new(&one("distribution: modula", &["1 a", "2 b"]));
    let client = h.client();
    let key = key_of(&mut h, client, "127.0.0.1:2");
    let (kept, removed) = (h.server("127.0.0.1:1"), h.server("127.0.0.1:2"));
    h.hold(removed);
    h.send(client, request(&["GET", &key]));
    h.send(client, request(&["GET", &key]));
    h.reload(&one("distribution: modula", &["1 a"]));
    assert!(!h.is_closed(removed), "two replies are owed");
    h.release(removed);
    assert_eq!(h.take(removed).matches(&key).count(), 2, "what was accepted is sent");
    h.send(client, request(&["GET", &key]));
    assert!(h.take(kept).contains(&key), "new requests go to who is left");
    h.send(removed, "$1\r\n1\r\n");
    h.send(kept, "$1\r\n3\r\n");
    assert!(!h.is_closed(removed));
    h.send(removed, "$1\r\n2\r\n");
    assert_eq!(h.take(client), "$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n");
    assert!(h.is_closed(removed));
    assert!(!h.is_closed(kept));
    assert!(!h.events.iter().any(|event| matches!(event, Event::ServerDown { .. })));
}

#[test]
fn requests_that_wait_for_a_removed_server_to_be_reached_are_sent_when_it_is() {
    let mut h = Harness::new(&one("redis_auth: secret", &["1 a"]));
    h.is_connecting_at_once = false;
    let client = h.client();
    h.send(client, request(&["AUTH", "secret"]));
    h.send(client, request(&["GET", "x"]));
    h.take(client);
    let server = h.server("127.0.0.1:1");
    h.reload(&one("redis_auth: secret", &["2 b"]));
    h.connect(server);
    assert!(h.take(server).contains("AUTH"));
    h.send(server, "+OK\r\n");
    assert!(h.take(server).contains("GET"));
    h.send(server, "$1\r\n1\r\n");
    assert_eq!(h.take(client), "$1\r\n1\r\n");
    assert!(h.is_closed(server));
}

#[test]
fn a_connection_that_is_not_needed_any_more_still_tries_every_address_for_what_it_has() {
    let text = |connections: u32| {
        let text = one(&format!("server_connections: {connections}"), &["1 a"]);
        text.replace("127.0.0.1:1:1", "a.test:1:1")
    };
    let mut h = Harness::new(&text(1));
    h.is_connecting_at_once = false;
    let client = h.client();
    h.send(client, request(&["SET", "x", "1"]));
    let addresses = ["10.0.0.1:1", "10.0.0.2:1"].map(|at| at.parse().unwrap());
    let query = h.queries[0].0;
    h.input(Input::Resolved { query, result: Ok(addresses.to_vec()) });
    let first = h.server("10.0.0.1:1");
    h.reload(&text(2));
    h.send(client, request(&["GET", "x"]));
    h.lose(first, CloseReason::Refused);
    let second = h.server("10.0.0.2:1");
    h.connect(second);
    assert!(h.take(second).contains("SET"));
    assert_eq!(h.queries.len(), 1, "the GET waits for the SET");
    h.send(second, "+OK\r\n");
    assert_eq!(h.take(client), "+OK\r\n");
    assert!(h.is_closed(second));
    assert_eq!(h.queries.len(), 2, "then it gets a connection of its own");
}

#[test]
fn a_removed_server_that_dies_fails_its_requests_and_nobody_is_blamed() {
    let mut h = Harness::new(&one("", &["1 a"]));
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.reload(&one("", &["2 b"]));
    h.lose(server, CloseReason::Reset);
    let reply = h.take(client);
    assert!(reply.starts_with("-ERR Connection reset by peer"), "{reply}");
    assert!(!h.events.iter().any(|event| matches!(event, Event::ServerDown { .. })));
    h.send(client, request(&["GET", "x"]));
    let second = h.server("127.0.0.1:2");
    assert!(h.take(second).contains("GET"));
}

#[test]
fn a_server_that_moves_keeps_its_keys_and_the_order_of_each_client() {
    let mut h = Harness::new(&one("", &["1 a", "2 b"]));
    let client = h.client();
    let key = key_of(&mut h, client, "127.0.0.1:1");
    let old = h.server("127.0.0.1:1");
    h.send(client, request(&["SET", &key, "1"]));
    h.reload(&one("", &["3 a", "2 b"]));
    h.send(client, request(&["GET", &key]));
    assert!(h.connects.iter().all(|(_, at)| at != "127.0.0.1:3"), "the SET comes first");
    let other = h.client();
    h.send(other, request(&["GET", &key]));
    let new = h.server("127.0.0.1:3");
    assert!(h.take(new).contains(&key), "who is owed nothing does not wait");
    h.send(old, "+OK\r\n");
    assert!(h.is_closed(old));
    assert!(h.take(new).contains(&key));
    h.send(new, "$1\r\n1\r\n$1\r\n1\r\n");
    assert_eq!(h.take(client), "+OK\r\n$1\r\n1\r\n");
    assert_eq!(h.take(other), "$1\r\n1\r\n");
}

#[test]
fn a_server_that_only_changes_its_name_keeps_its_connection() {
    let mut h = Harness::new(&one("", &["1 a", "2 b"]));
    let client = h.client();
    key_of(&mut h, client, "127.0.0.1:1");
    key_of(&mut h, client, "127.0.0.1:2");
    let connects = h.connects.len();
    h.reload(&one("", &["1 renamed", "2 b"]));
    key_of(&mut h, client, "127.0.0.1:1");
    key_of(&mut h, client, "127.0.0.1:2");
    assert_eq!(h.connects.len(), connects);
}

#[test]
fn another_password_replaces_the_connections() {
    let mut h = Harness::new(&one("", &["1 a"]));
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    let old = h.server("127.0.0.1:1");
    h.reload(&one("redis_auth: secret", &["1 a"]));
    h.send(old, "$1\r\n1\r\n");
    assert!(h.is_closed(old));
    h.send(client, request(&["GET", "x"]));
    let new = h.server("127.0.0.1:1");
    assert_ne!(old, new);
    assert!(h.take(new).contains("secret"));
    assert_eq!(h.take(client), "$1\r\n1\r\n", "who was let in stays");
}

#[test]
fn clients_of_a_removed_pool_get_what_they_asked_for_and_then_close() {
    let two: &[(&str, &str, &[&str])] = &[("p", "", &["1 a"]), ("q", "", &["2 b"])];
    let mut h = Harness::new(&config(two));
    let (idle, busy, other) =
        (h.client_of(1).unwrap(), h.client_of(1).unwrap(), h.client_of(0).unwrap());
    let stuck = h.client_of(1).unwrap();
    h.hold(stuck);
    h.send(stuck, request(&["PING"]));
    h.send(busy, request(&["GET", "x"]));
    let server = h.server("127.0.0.1:2");
    h.reload(&config(&[("p", "", &["1 a"])]));
    assert!(h.is_closed(idle));
    assert!(!h.is_closed(busy) && !h.is_closed(other) && !h.is_closed(stuck));
    assert_eq!(h.client_of(1), None);
    h.send(server, "$1\r\n1\r\n");
    assert_eq!(h.take(busy), "$1\r\n1\r\n");
    assert!(h.is_closed(busy));
    assert!(!h.is_closed(server), "one client is left");
    h.pass(Duration::from_secs(6));
    assert!(h.is_closed(stuck), "it has had its time");
    assert!(h.is_closed(server));
    assert!(!h.is_closed(other));
    // The name may come back at once; it is another pool then.
    h.reload(&config(two));
    assert!(h.client_of(1).is_some());
}

#[test]
fn an_ejected_server_is_probed_wherever_the_new_plan_has_it() {
    let options = "auto_eject_hosts: true;server_failure_limit: 1;server_retry_timeout: 1000";
    let mut h = Harness::new(&one(options, &["1 a", "2 b"]));
    let client = h.client();
    let key = key_of(&mut h, client, "127.0.0.1:2");
    h.send(client, request(&["GET", &key]));
    let lost = h.server("127.0.0.1:2");
    h.lose(lost, CloseReason::Reset);
    assert!(h.events.iter().any(|event| matches!(event, Event::Ejected { .. })));
    // `0` sorts before `b`, so that b moves.
    h.reload(&one(options, &["1 a", "2 b", "3 0"]));
    h.take(client);
    h.pass(Duration::from_millis(1100));
    let probe = h.server("127.0.0.1:2");
    assert_ne!(probe, lost);
    assert!(h.take(probe).contains("PING"));
    h.send(probe, "+PONG\r\n");
    assert!(h.events.iter().any(|event| matches!(event, Event::Returned { .. })));
}

#[test]
fn without_ejecting_an_ejected_server_is_back_at_once() {
    let options = "auto_eject_hosts: true;server_failure_limit: 1";
    let mut h = Harness::new(&one(options, &["1 a", "2 b"]));
    let client = h.client();
    let key = key_of(&mut h, client, "127.0.0.1:2");
    h.send(client, request(&["GET", &key]));
    let lost = h.server("127.0.0.1:2");
    h.lose(lost, CloseReason::Reset);
    h.reload(&one("", &["1 a", "2 b"]));
    h.pass(Duration::from_secs(2));
    h.send(client, request(&["GET", &key]));
    let again = h.server("127.0.0.1:2");
    assert_ne!(again, lost);
    assert!(h.take(again).contains(&key));
}

#[test]
fn a_drained_server_gets_no_keys_until_it_is_taken_up_again() {
    let servers: &[&str] = &["1 a", "2 b"];
    let drain = |plan: &mut Plan| plan.pools[0].servers[1].is_drained = true;
    let mut h = Harness::new(&one("", servers));
    let client = h.client();
    let key = key_of(&mut h, client, "127.0.0.1:2");
    let (a, b) = (h.server("127.0.0.1:1"), h.server("127.0.0.1:2"));
    h.send(client, request(&["GET", &key]));
    h.reload_with(&one("", servers), drain);
    assert!(!h.is_closed(b));
    h.send(b, "$1\r\n1\r\n");
    assert!(h.is_closed(b), "it has answered and is left alone");
    h.send(client, request(&["GET", &key]));
    assert!(h.take(a).contains(&key));
    // The file is read again: the operator's word stands.
    h.reload_with(&one("timeout: 400", servers), drain);
    h.send(a, "$1\r\n1\r\n");
    h.reload(&one("timeout: 400", servers));
    h.send(client, request(&["GET", &key]));
    let back = h.server("127.0.0.1:2");
    assert!(h.take(back).contains(&key));
}

#[test]
fn a_drained_pool_lets_its_clients_finish_and_may_be_taken_up_again() {
    let text = one("", &["1 a"]);
    let mut h = Harness::new(&text);
    let (idle, busy) = (h.client(), h.client());
    h.send(busy, request(&["GET", "x"]));
    let server = h.server("127.0.0.1:1");
    h.reload_with(&text, |plan| plan.pools[0].is_drained = true);
    assert!(h.is_closed(idle) && !h.is_closed(busy));
    assert!(h.try_client().is_none());
    h.send(server, "$1\r\n1\r\n");
    assert_eq!(h.take(busy), "$1\r\n1\r\n");
    assert!(h.is_closed(busy) && h.is_closed(server));
    h.reload(&text);
    let client = h.client();
    h.pass(Duration::from_secs(10));
    assert!(!h.is_closed(client), "the limit was that of the drain");
}

#[test]
fn another_distribution_routes_anew_and_nothing_under_way_is_lost() {
    let mut h = Harness::new(&one("distribution: modula", &["1 a", "2 b", "3 c"]));
    let client = h.client();
    for number in 0..20 {
        h.send(client, request(&["GET", &format!("k{number}")]));
        h.reload(&one(
            if number % 2 == 0 { "distribution: ketama" } else { "distribution: modula" },
            &["1 a", "2 b", "3 c"],
        ));
        answer(&mut h);
    }
    assert_eq!(h.take(client), (0..20).map(|n| reply(&format!("k{n}"))).collect::<String>());
    assert_eq!(h.connects.len(), 3, "connections are the same all along");
}

/// What a server says to `GET key`.
fn reply(key: &str) -> String {
    format!("${}\r\n{key}\r\n", key.len())
}

#[test]
fn any_number_of_plans_leaves_each_request_with_its_own_reply() {
    let mut chance = 88_172_645_463_325_252_u64;
    let mut draw = move |below: usize| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        usize::try_from(chance % below as u64).unwrap()
    };
    let plans = [
        one("", &["1 a", "2 b", "3 c"]),
        one("", &["1 a", "3 c"]),
        one("", &["4 a", "2 b", "3 c"]),
        one("server_connections: 2", &["1 a", "2 b", "3 c"]),
        one("distribution: modula;timeout: 60000", &["1 x", "2 b"]),
        config(&[("0", "", &["9 z"]), ("p", "", &["1 a", "2 b"])]),
        config(&[("p", "preconnect: true", &["2 a", "1 b"]), ("other", "", &["9 z"])]),
    ];
    let mut h = Harness::new(&plans[0]);
    let clients: Vec<ConnId> = (0..5).map(|_| h.client()).collect();
    let mut expected: BTreeMap<ConnId, String> = BTreeMap::new();
    for step in 0..3000 {
        let client = clients[draw(clients.len())];
        match draw(8) {
            0 => h.reload(&plans[draw(plans.len())]),
            1 | 2 => answer(&mut h),
            3 => {
                let keys = [format!("{step}m"), format!("{}m", step + 7), "zz".to_owned()];
                h.send(client, request(&["MGET", &keys[0], &keys[1], &keys[2]]));
                let text: String = keys.iter().map(|key| reply(key)).collect();
                *expected.entry(client).or_default() += &format!("*3\r\n{text}");
                answer(&mut h);
            }
            _ => {
                let key = format!("key{step}");
                h.send(client, request(&["GET", &key]));
                *expected.entry(client).or_default() += &reply(&key);
            }
        }
    }
    for _ in 0..50 {
        answer(&mut h);
    }
    for client in clients {
        assert!(!h.is_closed(client));
        assert_eq!(h.take(client), expected.remove(&client).unwrap_or_default());
    }
}

/// Lets every server answer all requests that it has got.
fn answer(h: &mut Harness) {
    let connects = h.connects.clone();
    for (conn, _) in connects {
        if h.is_closed(conn) {
            continue;
        }
        let text = h.take(conn);
        let mut replies = String::new();
        for frame in text.split('*').skip(1) {
            let words: Vec<&str> = frame.split("\r\n").skip(2).step_by(2).collect();
            let keys = words.iter().skip(1).filter(|key| !key.is_empty());
            if words[0] == "MGET" {
                let _ = write!(replies, "*{}\r\n", keys.clone().count());
            }
            keys.for_each(|key| replies += &reply(key));
        }
        if !replies.is_empty() {
            h.send(conn, replies);
        }
    }
}
