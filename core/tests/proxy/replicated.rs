//! Pools whose writes are answered when replicas have them.

use std::num::NonZeroU32;
use std::time::Duration;

use ringkeeper_core::io::{CloseReason, ShardCondition};

use crate::harness::{Harness, request};
use crate::hold::{followed, key_at, tell};

const OLD: &str = "127.0.0.1:1";

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
