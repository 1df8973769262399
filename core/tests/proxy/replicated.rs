//! Pools whose writes are answered when replicas have them.

use std::num::NonZeroU32;
use std::time::Duration;

use ringkeeper_core::id::ConnId;
use ringkeeper_core::io::{CloseReason, Event, Limit, ShardCondition};

use crate::harness::{Harness, request};
use crate::hold::{TWO, follow, followed, key_at, tell};

const OLD: &str = "127.0.0.1:1";
const OTHER: &str = "127.0.0.1:2";

fn replicated(copies: u32) -> Harness {
    followed(|pool| {
        pool.failover.replicated = NonZeroU32::new(copies);
        pool.failover.replicated_timeout = Duration::from_millis(250);
    })
}

fn wait(copies: &str) -> String {
    request(&["WAIT", copies, "250"])
}

#[test]
fn writes_are_answered_when_enough_replicas_have_them() {
    let mut h = replicated(2);
    let key = key_at(&mut h, OLD, 0);
    let reads = h.server(OLD);
    let (one, two) = (h.client(), h.client());
    h.send_together(&[
        (one, request(&["SET", &key, "1"]).as_bytes()),
        (two, request(&["INCR", &key]).as_bytes()),
    ]);
    let writes = h.server(OLD);
    assert_ne!(writes, reads, "a connection of their own");
    assert_eq!(
        h.take(writes),
        request(&["SET", &key, "1"]) + &request(&["INCR", &key]) + &wait("2")
    );
    h.send(writes, "+OK\r\n:2\r\n");
    assert_eq!(h.take(one) + &h.take(two), "");
    // The next group waits for this one; a read of somebody else waits for nobody.
    h.send(one, request(&["SET", &key, "3"]));
    h.send(two, request(&["GET", &key]));
    assert_eq!(h.take(writes), "");
    assert_eq!(h.take(reads), "", "a client's reads wait for its own writes");
    let three = h.client();
    h.send(three, request(&["GET", &key]));
    assert_eq!(h.take(reads), request(&["GET", &key]));
    h.send(writes, ":2\r\n");
    assert_eq!(h.take(one), "+OK\r\n");
    assert_eq!(h.take(two), ":2\r\n");
    assert_eq!(h.take(writes), request(&["SET", &key, "3"]) + &wait("2"));
    assert_eq!(h.take(reads), request(&["GET", &key]));
    // A write waits for the reads that its client sent before.
    h.send(three, request(&["SET", &key, "4"]));
    h.send(writes, "+OK\r\n:2\r\n");
    assert_eq!(h.take(writes), "");
    h.send(reads, "$1\r\n3\r\n");
    assert_eq!(h.take(writes), request(&["SET", &key, "4"]) + &wait("2"));
}

#[test]
fn too_few_replicas_are_told_and_never_an_ok() {
    let mut h = replicated(2);
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    h.send(client, request(&["SET", &key, "1"]) + &request(&["LPUSH", &key, "x"]));
    let writes = h.server(OLD);
    h.send(writes, "+OK\r\n-WRONGTYPE Operation against a key\r\n:1\r\n");
    assert_eq!(
        h.take(client),
        "-UNKNOWN too few replicas have the write in time (server a; whether the request took \
         effect is unknown)\r\n-WRONGTYPE Operation against a key\r\n"
    );
    h.send(client, request(&["SET", &key, "2"]));
    h.take(writes);
    h.send(writes, "+OK\r\n-ERR WAIT cannot be used with replica instances\r\n");
    assert!(h.take(client).starts_with("-UNKNOWN"));
    h.send(client, request(&["SET", &key, "3"]));
    assert!(h.take(writes).contains("SET"), "it goes on");
}

#[test]
fn a_master_that_dies_before_the_replicas_confirmed_leaves_the_outcome_unknown() {
    let mut h = replicated(1);
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    h.send(client, request(&["SET", &key, "1"]) + &request(&["SET", &key, "2"]));
    let writes = h.server(OLD);
    h.send(writes, "+OK\r\n");
    h.is_connecting_at_once = false;
    h.lose(writes, CloseReason::Reset);
    let replies = h.take(client);
    assert_eq!(replies.matches("-UNKNOWN Connection reset").count(), 2, "{replies}");
    h.send(client, request(&["SET", &key, "3"]));
    tell(&mut h, 0, OLD, ShardCondition::Suspected);
    tell(&mut h, 1, "127.0.0.1:9", ShardCondition::Serving);
    let new = h.server("127.0.0.1:9");
    h.connect(new);
    assert_eq!(h.take(new), request(&["SET", &key, "3"]) + &wait("1"));
    h.send(new, "+OK\r\n:1\r\n");
    assert_eq!(h.take(client), "+OK\r\n");
}

#[test]
fn a_master_that_hangs_in_the_wait_does_not_hold_its_clients_for_ever() {
    let mut h = replicated(1);
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    h.send(client, request(&["SET", &key, "1"]));
    let writes = h.server(OLD);
    h.send(writes, "+OK\r\n");
    h.pass(Duration::from_secs(4));
    assert_eq!(h.take(client), "");
    h.pass(Duration::from_secs(2));
    assert!(h.take(client).starts_with("-UNKNOWN too few replicas"));
}

fn bulk(bytes: usize) -> String {
    format!("${bytes}\r\n{}\r\n", "x".repeat(bytes))
}

fn over(h: &Harness, which: Limit) -> usize {
    let is_it =
        |event: &&Event| matches!(event, Event::ClientOverLimit { limit, .. } if *limit == which);
    h.events.iter().filter(is_it).count()
}

/// As `replicated(1)`, with bounds for what one client and all together may leave unread.
fn bounded(one: usize, all: usize) -> Harness {
    Harness::with_edited(TWO, |plan| {
        follow(plan);
        plan.clients_output_bytes_max = all;
        for pool in &mut plan.pools {
            pool.client_output_bytes_max = one;
            pool.failover.replicated = NonZeroU32::new(1);
            pool.failover.replicated_timeout = Duration::from_millis(250);
        }
    })
}

#[test]
fn replies_that_are_withheld_count_as_unread_by_their_client() {
    let mut h = bounded(100_000, usize::MAX);
    let key = key_at(&mut h, OLD, 0);
    let (greedy, modest) = (h.client(), h.client());
    let swap = request(&["GETSET", &key, "1"]);
    h.send_together(&[(greedy, swap.repeat(5).as_bytes()), (modest, swap.as_bytes())]);
    let writes = h.server(OLD);
    h.take(writes);
    h.send(writes, bulk(30_000).repeat(3));
    assert!(!h.is_closed(greedy));
    h.send(writes, bulk(30_000));
    assert!(h.is_closed(greedy), "four replies are more than it may leave unread");
    assert_eq!(over(&h, Limit::ClientOutput), 1);
    // What is still to come for it is nobody's; everybody else is answered as ever.
    h.send(writes, bulk(30_000) + &bulk(10) + ":1\r\n");
    assert_eq!(h.take(modest), bulk(10));
    h.send(modest, &swap);
    assert_eq!(h.take(writes), swap + &wait("1"));
}

#[test]
fn a_reply_that_is_too_large_to_be_withheld_ends_its_client_only() {
    let mut h = bounded(100_000, usize::MAX);
    let key = key_at(&mut h, OLD, 0);
    let (greedy, modest) = (h.client(), h.client());
    let swap = request(&["GETSET", &key, "1"]);
    h.send_together(&[(greedy, swap.as_bytes()), (modest, swap.as_bytes())]);
    let writes = h.server(OLD);
    h.take(writes);
    let large = bulk(500_000);
    let mut pieces = large.as_bytes().chunks(20_000);
    pieces.by_ref().take(4).for_each(|piece| h.send(writes, piece));
    assert!(!h.is_closed(greedy));
    pieces.by_ref().take(2).for_each(|piece| h.send(writes, piece));
    assert!(h.is_closed(greedy));
    pieces.for_each(|piece| h.send(writes, piece));
    h.send(writes, bulk(10) + ":1\r\n");
    assert_eq!(h.take(modest), bulk(10));
    assert!(!h.is_closed(writes));
}

#[test]
fn what_one_client_is_owed_counts_until_it_has_left() {
    let mut h = bounded(100_000, 100_000);
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    for turn in 0..10 {
        h.send(client, request(&["GETSET", &key, "1"]));
        let writes = h.server(OLD);
        h.take(writes);
        // Neither groups that succeed nor those that fail leave anything behind.
        h.send(writes, bulk(90_000) + if turn % 2 == 0 { ":1\r\n" } else { ":0\r\n" });
        let reply = h.take(client);
        assert_eq!(reply.starts_with("$90000"), turn % 2 == 0, "{reply:.60}");
    }
    assert!(!h.is_closed(client));
}

/// Has fifty clients wait for a `WAIT` with a reply of 100 kB each, in a budget of a megabyte;
/// returns those that are still there.
fn fifty(h: &mut Harness, via: &str, ask: &str, reply: &str) -> Vec<ConnId> {
    let clients: Vec<ConnId> = (0..50).map(|_| h.client()).collect();
    let all: Vec<(ConnId, &[u8])> =
        clients.iter().map(|client| (*client, ask.as_bytes())).collect();
    h.send_together(&all);
    let server = h.server(via);
    h.take(server);
    // Nobody sends anything meanwhile.
    for _ in 0..50 {
        reply.as_bytes().chunks(50_000).for_each(|piece| h.send(server, piece));
    }
    let left: Vec<ConnId> = clients.into_iter().filter(|client| !h.is_closed(*client)).collect();
    assert_eq!(over(h, Limit::ClientsOutput), 50 - left.len());
    assert!((1..=10).contains(&left.len()), "{} may be owed more than a megabyte", left.len());
    left
}

#[test]
fn withheld_replies_of_many_clients_have_a_budget_together() {
    let mut h = bounded(usize::MAX, 1_000_000);
    let key = key_at(&mut h, OLD, 0);
    let left = fifty(&mut h, OLD, &request(&["GETSET", &key, "1"]), &bulk(100_000));
    let writes = h.server(OLD);
    h.send(writes, ":1\r\n");
    for client in left {
        assert_eq!(h.take(client), bulk(100_000));
    }
}

#[test]
fn large_replies_behind_withheld_ones_have_a_budget_together() {
    let mut h = bounded(usize::MAX, 1_000_000);
    let key = key_at(&mut h, OLD, 0);
    let (one, two) = (key_at(&mut h, OTHER, 0), key_at(&mut h, OTHER, 1));
    let client = h.client();
    h.send(client, request(&["SET", &key, "1"]));
    let writes = h.server(OLD);
    h.take(writes);
    h.send(writes, "+OK\r\n:1\r\n");
    assert_eq!(h.take(client), "+OK\r\n");
    let ask = request(&["SET", &key, "1"]) + &request(&["MGET", &one, &two]);
    let reply = "*2\r\n".to_owned() + &bulk(50_000).repeat(2);
    let left = fifty(&mut h, OTHER, &ask, &reply);
    h.send(writes, "+OK\r\n".repeat(50) + ":1\r\n");
    for client in left {
        assert_eq!(h.take(client), "+OK\r\n".to_owned() + &reply);
    }
}
