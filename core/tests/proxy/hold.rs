//! Shards whose master is suspected, lost, replaced or fenced.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringkeeper_core::config::failover::{Fence, Replay};
use ringkeeper_core::id::ConnId;
use ringkeeper_core::io::{
    CloseReason, Event, Evidence, HoldCause, HoldTally, Input, Notice, ShardCondition, ShardNews,
};
use ringkeeper_core::proxy::{Plan, PoolPlan};
use ringkeeper_core::time::Instant;

use crate::harness::{Harness, request};

use ShardCondition::{Fenced, Moving, Serving, Suspected};

pub(crate) const TWO: &str = "
p:
  listen: 127.0.0.1:22121
  redis: true
  distribution: modula
  hash: fnv1a_64
  timeout: 5000
  servers:
    - 127.0.0.1:1:1 a
    - 127.0.0.1:2:1 b
";

const OLD: &str = "127.0.0.1:1";
const NEW: &str = "127.0.0.1:9";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Makes every server of every pool the shard of its name.
pub(crate) fn follow(plan: &mut Plan) {
    for pool in &mut plan.pools {
        for server in &mut pool.servers {
            server.shard = Some(Arc::from(server.name.as_str()));
        }
    }
}

pub(crate) fn followed(edit: impl Fn(&mut PoolPlan)) -> Harness {
    Harness::with_edited(TWO, |plan| {
        follow(plan);
        plan.pools.iter_mut().for_each(edit);
    })
}

pub(crate) fn tell(h: &mut Harness, epoch: u64, address: &str, condition: ShardCondition) {
    tell_until(h, epoch, address, condition, None);
}

fn tell_until(
    h: &mut Harness,
    epoch: u64,
    address: &str,
    condition: ShardCondition,
    valid_until: Option<Instant>,
) {
    let address: SocketAddr = address.parse().expect("an address");
    let news = ShardNews { shard: Arc::from("a"), epoch, address, condition, valid_until };
    h.input(Input::Notice(Notice::Shard(news)));
}

/// Tells that the other shard is well.
fn tell_of_the_other(h: &mut Harness) {
    let news = ShardNews {
        shard: Arc::from("b"),
        epoch: 0,
        address: "127.0.0.1:2".parse().expect("an address"),
        condition: Serving,
        valid_until: None,
    };
    h.input(Input::Notice(Notice::Shard(news)));
}

/// Returns a key of the server at `address`.
pub(crate) fn key_at(h: &mut Harness, address: &str, nth: usize) -> String {
    let client = h.client();
    let mut found = 0;
    for number in 0..200 {
        let key = format!("k{number}");
        h.send(client, request(&["EXISTS", &key]));
        let server = h.server(h.connects.last().expect("a connection").1.clone().as_str());
        let _ = server;
        let to: Vec<ConnId> = h.connects.iter().map(|(conn, _)| *conn).collect();
        for conn in to {
            if h.take(conn).is_empty() {
                continue;
            }
            h.send(conn, ":0\r\n");
            let at = h.connects.iter().find(|(known, _)| *known == conn).expect("known").1.clone();
            if at == address {
                found += 1;
                if found > nth {
                    h.take(client);
                    h.eof(client);
                    return key;
                }
            }
        }
        h.take(client);
    }
    panic!("no key is at {address}");
}

fn events(h: &Harness, is_wanted: impl Fn(&Event) -> bool) -> usize {
    h.events.iter().filter(|event| is_wanted(event)).count()
}

#[test]
fn a_switch_moves_requests_in_the_same_turn_and_touches_no_client() {
    let mut h = followed(|_| ());
    key_at(&mut h, "127.0.0.1:2", 0);
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    let old = h.server(OLD);
    tell(&mut h, 1, NEW, Serving);
    assert!(h.is_closed(old), "nothing was under way");
    h.send(client, request(&["GET", &key]));
    let new = h.server(NEW);
    assert_eq!(h.take(new), request(&["GET", &key]));
    h.send(new, "$1\r\nv\r\n");
    assert_eq!(h.take(client), "$1\r\nv\r\n");
    assert!(!h.is_closed(client));
    assert_eq!(events(&h, |event| matches!(event, Event::Switched { epoch: 1, .. })), 1);
    assert!(!h.is_closed(h.server("127.0.0.1:2")), "the other shard is not concerned");
}

#[test]
fn news_of_a_lower_epoch_change_nothing() {
    let mut h = followed(|_| ());
    let key = key_at(&mut h, OLD, 0);
    tell(&mut h, 5, NEW, Serving);
    tell(&mut h, 4, "127.0.0.1:8", Serving);
    tell(&mut h, 4, OLD, Suspected);
    tell(&mut h, 5, "127.0.0.1:7", Serving);
    let client = h.client();
    h.send(client, request(&["GET", &key]));
    let new = h.server(NEW);
    assert_eq!(h.take(new), request(&["GET", &key]));
    assert!(h.connects.iter().all(|(_, to)| !to.ends_with(":8") && !to.ends_with(":7")));
}

#[test]
fn a_switch_survives_a_reload_whose_plan_has_the_old_address() {
    let mut h = followed(|_| ());
    let key = key_at(&mut h, OLD, 0);
    tell(&mut h, 3, NEW, Serving);
    let client = h.client();
    h.send(client, request(&["GET", &key]));
    let new = h.server(NEW);
    h.send(new, "$1\r\nv\r\n");
    h.take(client);
    h.reload_with(TWO, |plan| {
        follow(plan);
        plan.pools[0].failure_limit = 7;
    });
    assert!(!h.is_closed(new), "the address is what it was");
    h.take(new);
    h.send(client, request(&["GET", &key]));
    assert_eq!(h.take(new), request(&["GET", &key]));
    h.send(new, "$1\r\nv\r\n");
    // A plan that follows nobody goes by its own address, and one that follows again by the news.
    h.reload(TWO);
    h.send(client, request(&["GET", &key]));
    let back = h.server(OLD);
    assert_eq!(h.take(back), request(&["GET", &key]));
    h.send(back, "$1\r\nv\r\n");
    h.reload_with(TWO, follow);
    h.take(client);
    h.send(client, request(&["GET", &key]));
    let again = h.server(NEW);
    assert_eq!(h.take(again), request(&["GET", &key]));
}

#[test]
fn requests_wait_from_suspicion_to_switch_and_then_go_to_the_new_master() {
    let mut h = followed(|_| ());
    let (key, other) = (key_at(&mut h, OLD, 0), key_at(&mut h, "127.0.0.1:2", 0));
    let client = h.client();
    tell(&mut h, 0, OLD, Suspected);
    h.send(client, request(&["SET", &key, "1"]) + &request(&["GET", &other]));
    let (old, second) = (h.server(OLD), h.server("127.0.0.1:2"));
    assert_eq!(h.take(old), "");
    assert_eq!(h.take(second), request(&["GET", &other]), "the other shard is served");
    h.send(second, "$1\r\nx\r\n");
    h.pass(ms(6000));
    assert_eq!(h.take(client), "", "longer than the time-out, and nothing is due yet");
    tell(&mut h, 1, NEW, Serving);
    let new = h.server(NEW);
    assert_eq!(h.take(new), request(&["SET", &key, "1"]));
    h.send(new, "+OK\r\n");
    assert_eq!(h.take(client), "+OK\r\n$1\r\nx\r\n");
    let ended = h.events.iter().find_map(|event| {
        if let Event::HoldEnded { tally, .. } = event { Some(*tally) } else { None }
    });
    let expected = HoldTally { time: ms(6000), held: 1, ..HoldTally::default() };
    assert_eq!(ended, Some(expected));
    let began =
        |event: &Event| matches!(event, Event::HoldBegan { why: HoldCause::Told(Suspected), .. });
    assert_eq!(events(&h, began), 1);
}

#[test]
fn a_false_alarm_lets_what_waited_go_by_the_same_connection() {
    let mut h = followed(|_| ());
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    h.send(client, request(&["SET", &key, "1"]));
    tell(&mut h, 0, OLD, Suspected);
    h.send(client, request(&["SET", &key, "2"]));
    let old = h.server(OLD);
    assert_eq!(h.take(old), request(&["SET", &key, "1"]));
    h.send(old, "+OK\r\n");
    assert_eq!(h.take(client), "+OK\r\n", "the server was alive, and its reply counts");
    tell(&mut h, 0, OLD, Serving);
    assert_eq!(h.take(old), request(&["SET", &key, "2"]));
    h.send(old, "+OK\r\n");
    assert_eq!(h.take(client), "+OK\r\n");
}

#[test]
fn who_waits_too_long_is_told_that_nothing_was_sent() {
    let mut h = followed(|pool| pool.failover.hold = Some(ms(700)));
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    tell(&mut h, 0, OLD, Suspected);
    h.send(client, request(&["SET", &key, "1"]));
    h.pass(ms(650));
    assert_eq!(h.take(client), "");
    h.pass(ms(100));
    let expected = "-MASTERDOWN the shard has no master (server a; the request was not sent)\r\n";
    assert_eq!(h.take(client), expected);
    tell(&mut h, 1, NEW, Serving);
    assert!(h.connects.iter().all(|(_, to)| to != NEW), "nobody waits any more");
    h.send(client, request(&["SET", &key, "2"]));
    let new = h.server(NEW);
    assert_eq!(h.take(new), request(&["SET", &key, "2"]));
}

#[test]
fn more_than_may_wait_is_refused_at_once() {
    let mut h = followed(|pool| pool.failover.hold_bytes = 40_000);
    let key = key_at(&mut h, OLD, 0);
    tell(&mut h, 0, OLD, Suspected);
    let value = "x".repeat(1000);
    let mut refused = 0;
    for _ in 0..100 {
        let client = h.client();
        h.send(client, request(&["SET", &key, &value]));
        refused += usize::from(h.take(client).starts_with("-MASTERDOWN"));
    }
    assert!((55..=65).contains(&refused), "{refused}: 40 of some 1030 bytes fit");
}

#[test]
fn reads_under_way_are_sent_again_and_writes_are_said_to_be_unknown() {
    let mut h = followed(|_| ());
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    let pipeline = [
        request(&["GET", &key]),
        request(&["SET", &key, "1"]),
        request(&["GET", &key]),
        request(&["INCR", "n"]),
    ];
    let old = h.server(OLD);
    h.is_connecting_at_once = false;
    h.send(client, pipeline[..3].concat());
    assert_eq!(h.take(old), pipeline[..3].concat());
    h.lose(old, CloseReason::Reset);
    let sighted = h.notices.iter().any(
        |(_, notice)| matches!(notice, Notice::Sighting(seen) if seen.evidence == Evidence::Reset),
    );
    assert!(sighted, "the Sentinel hears of it");
    assert_eq!(h.take(client), "", "the first reply is not there yet");
    // The connection that is made at once finds nobody.
    h.pass(ms(20));
    let next = h.server(OLD);
    assert_ne!(next, old);
    h.lose(next, CloseReason::Refused);
    tell(&mut h, 0, OLD, Suspected);
    tell(&mut h, 1, NEW, Serving);
    let new = h.server(NEW);
    h.connect(new);
    assert_eq!(h.take(new), [pipeline[0].as_str(), pipeline[2].as_str()].concat());
    h.send(new, "$1\r\na\r\n$1\r\nb\r\n");
    assert_eq!(
        h.take(client),
        "$1\r\na\r\n-UNKNOWN Connection reset by peer (server a; whether the request took \
         effect is unknown)\r\n$1\r\nb\r\n"
    );
}

#[test]
fn idempotent_writes_are_sent_again_where_the_pool_wants_it() {
    let mut h = followed(|pool| pool.failover.replay = Replay::Idempotent);
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    h.send(client, request(&["SET", &key, "1"]) + &request(&["APPEND", &key, "2"]));
    tell(&mut h, 0, OLD, Suspected);
    tell(&mut h, 1, NEW, Serving);
    let new = h.server(NEW);
    assert_eq!(h.take(new), request(&["SET", &key, "1"]));
    h.send(new, "+OK\r\n");
    let replies = h.take(client);
    assert!(replies.starts_with("+OK\r\n-UNKNOWN the shard has another master"), "{replies}");
}

#[test]
fn a_reply_of_a_former_master_is_not_passed_on() {
    let mut h = followed(|_| ());
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    h.send(client, request(&["SET", &key, "1"]));
    let old = h.server(OLD);
    tell(&mut h, 0, OLD, Moving);
    tell(&mut h, 1, NEW, Serving);
    assert!(!h.is_closed(old), "it may still refuse the write");
    // What the client sends meanwhile must not overtake the write.
    h.send(client, request(&["GET", &key]));
    assert!(h.connects.iter().all(|(_, to)| to != NEW));
    h.send(old, "+OK\r\n");
    let replies = h.take(client);
    assert!(replies.starts_with("-UNKNOWN the shard has another master"), "{replies}");
    assert!(h.is_closed(old));
    let new = h.server(NEW);
    assert_eq!(h.take(new), request(&["GET", &key]));
}

#[test]
fn news_of_the_new_master_do_not_end_the_wait_for_what_the_former_one_refuses() {
    let mut h = followed(|_| ());
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    h.send(client, request(&["SET", &key, "1"]));
    let old = h.server(OLD);
    tell(&mut h, 0, OLD, Moving);
    tell(&mut h, 1, NEW, Serving);
    tell(&mut h, 1, NEW, Suspected);
    tell(&mut h, 1, NEW, Serving);
    tell(&mut h, 1, NEW, Serving);
    assert!(!h.is_closed(old), "it may still refuse the write");
    h.send(old, "-READONLY You can't write against a read only replica.\r\n");
    let new = h.server(NEW);
    assert_eq!(h.take(new), request(&["SET", &key, "1"]));
    h.send(new, "+OK\r\n");
    assert_eq!(h.take(client), "+OK\r\n");
}

#[test]
fn a_former_master_that_says_nothing_is_not_waited_for_long() {
    let mut h = followed(|_| ());
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    h.send(client, request(&["SET", &key, "1"]) + &request(&["GET", &key]));
    let old = h.server(OLD);
    tell(&mut h, 0, OLD, Moving);
    tell(&mut h, 1, NEW, Serving);
    h.pass(ms(499));
    assert_eq!(h.take(client), "");
    h.pass(ms(2));
    assert!(h.is_closed(old));
    let new = h.server(NEW);
    assert_eq!(h.take(new), request(&["GET", &key]));
    assert!(h.take(client).starts_with("-UNKNOWN"));
}

#[test]
fn writes_that_a_replica_refused_are_sent_to_the_master_and_nothing_overtakes_them() {
    let mut h = followed(|_| ());
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    let pipeline =
        [request(&["SET", &key, "1"]), request(&["GET", &key]), request(&["SET", &key, "2"])];
    let old = h.server(OLD);
    h.send(client, pipeline.concat());
    tell(&mut h, 0, OLD, Moving);
    h.send(client, request(&["GET", &key]));
    let refusal = "-READONLY You can't write against a read only replica.\r\n";
    h.send(old, refusal);
    let sighted = h.notices.iter().any(|(_, notice)| {
        matches!(notice, Notice::Sighting(seen) if seen.evidence == Evidence::ReadOnly)
    });
    assert!(sighted);
    h.send(old, format!("$1\r\n0\r\n{refusal}"));
    assert_eq!(h.take(client), "", "nothing was answered");
    assert!(h.is_closed(old));
    tell(&mut h, 1, NEW, Serving);
    let new = h.server(NEW);
    assert_eq!(h.take(new), pipeline.concat() + &request(&["GET", &key]));
    h.send(new, "+OK\r\n$1\r\n1\r\n+OK\r\n$1\r\n2\r\n");
    assert_eq!(h.take(client), "+OK\r\n$1\r\n1\r\n+OK\r\n$1\r\n2\r\n");
}

#[test]
fn a_server_that_stays_a_replica_is_not_asked_for_ever() {
    let mut h = followed(|pool| pool.failover.hold = Some(ms(1000)));
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    h.send(client, request(&["SET", &key, "1"]));
    let mut asked = 0;
    for _ in 0..300 {
        let to = h.server(OLD);
        if !h.is_closed(to) && h.take(to).contains("SET") {
            asked += 1;
            h.send(to, "-READONLY You can't write against a read only replica.\r\n");
        }
        h.pass(ms(5));
    }
    assert!((5..=15).contains(&asked), "{asked}: once in 100 ms");
    assert!(h.take(client).starts_with("-MASTERDOWN") || h.take(client).starts_with("-UNKNOWN"));
}

#[test]
fn an_own_sight_of_a_lost_master_holds_without_any_news() {
    let mut h = followed(|pool| pool.failover.hold = Some(ms(2000)));
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    let old = h.server(OLD);
    h.is_connecting_at_once = false;
    h.eof(old);
    h.send(client, request(&["SET", &key, "1"]));
    let attempt = h.server(OLD);
    h.lose(attempt, CloseReason::Refused);
    h.send(client, request(&["SET", &key, "2"]));
    assert_eq!(h.take(client), "", "both wait");
    h.pass(ms(30));
    let attempt = h.server(OLD);
    h.connect(attempt);
    assert_eq!(h.take(attempt), request(&["SET", &key, "1"]) + &request(&["SET", &key, "2"]));
    let ended =
        |event: &Event| matches!(event, Event::HoldEnded { tally: HoldTally { held: 2, .. }, .. });
    assert_eq!(events(&h, ended), 1);
}

#[test]
fn a_split_request_is_answered_although_one_of_its_masters_is_replaced() {
    let mut h = followed(|_| ());
    let (here, there) = (key_at(&mut h, OLD, 0), key_at(&mut h, "127.0.0.1:2", 0));
    let client = h.client();
    h.send(
        client,
        request(&["MGET", &here, &there]) + &request(&["MSET", &here, "1", &there, "2"]),
    );
    let second = h.server("127.0.0.1:2");
    h.send(second, "*1\r\n$1\r\nb\r\n+OK\r\n");
    let old = h.server(OLD);
    h.send(old, "*1\r\n$1\r\n");
    tell(&mut h, 0, OLD, Suspected);
    tell(&mut h, 1, NEW, Serving);
    let new = h.server(NEW);
    assert_eq!(h.take(new), request(&["MGET", &here]));
    let replies = h.take(client);
    assert_eq!(replies, "", "the read comes first");
    h.send(new, "*1\r\n$1\r\na\r\n");
    let replies = h.take(client);
    assert!(replies.starts_with("*2\r\n$1\r\na\r\n$1\r\nb\r\n-UNKNOWN"), "{replies}");
}

#[test]
fn a_best_effort_fence_refuses_writes_and_lets_reads_pass() {
    let mut h = followed(|_| ());
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    let old = h.server(OLD);
    // A write that has not left yet is refused too.
    h.hold(old);
    h.send(client, request(&["GET", &key]));
    h.send(client, request(&["SET", &key, "0"]) + &request(&["GET", &key]));
    tell(&mut h, 0, OLD, Fenced);
    h.send(client, request(&["SET", &key, "1"]) + &request(&["GET", &key]));
    h.release(old);
    assert_eq!(h.take(old), request(&["GET", &key]).repeat(3));
    h.send(old, "$1\r\nv\r\n".repeat(3));
    let refusal = "-MASTERDOWN this proxy is cut off and does not write (server a; the request \
                   was not sent)\r\n";
    let read = "$1\r\nv\r\n";
    assert_eq!(h.take(client), [read, refusal, read, refusal, read].concat());
    tell(&mut h, 0, OLD, Serving);
    h.send(client, request(&["SET", &key, "2"]));
    assert_eq!(h.take(old), request(&["SET", &key, "2"]));
}

#[test]
fn a_strict_fence_without_waiting_refuses_while_a_master_moves() {
    let mut h = followed(|pool| {
        pool.failover.fence = Fence::Strict;
        pool.failover.hold = None;
    });
    tell(&mut h, 0, OLD, Serving);
    tell_of_the_other(&mut h);
    let key = key_at(&mut h, OLD, 0);
    let (client, old) = (h.client(), h.server(OLD));
    for condition in [Moving, Suspected] {
        tell(&mut h, 0, OLD, condition);
        h.send(client, request(&["SET", &key, "1"]));
        assert_eq!(h.take(old), "");
        assert!(h.take(client).starts_with('-'), "{condition:?}");
    }
    tell(&mut h, 0, OLD, Serving);
    h.send(client, request(&["SET", &key, "1"]));
    assert_eq!(h.take(old), request(&["SET", &key, "1"]));
}

#[test]
fn a_lease_ends_by_the_clock_of_the_worker_also_for_what_came_in_the_same_turn() {
    let mut h = followed(|pool| pool.failover.fence = Fence::Strict);
    tell(&mut h, 0, OLD, Serving);
    tell_of_the_other(&mut h);
    let key = key_at(&mut h, OLD, 0);
    let (client, old) = (h.client(), h.server(OLD));
    let first = Some(h.later(ms(200)));
    tell_until(&mut h, 0, OLD, Serving, first);
    h.pass(ms(150));
    let second = Some(h.later(ms(200)));
    tell_until(&mut h, 0, OLD, Serving, second);
    h.pass(ms(150));
    h.send(client, request(&["SET", &key, "1"]));
    assert_eq!(h.take(old), request(&["SET", &key, "1"]), "it was made longer meanwhile");
    h.send(old, "+OK\r\n");
    assert_eq!(h.take(client), "+OK\r\n");
    // The process stands still. The client's request is read before the timers run.
    h.stand_still(ms(300), client, request(&["SET", &key, "2"]));
    assert_eq!(h.take(old), "");
    // What was told before lay in the mailbox.
    tell_until(&mut h, 0, OLD, Serving, second);
    assert_eq!(h.take(old), "");
    let third = Some(h.later(ms(200)));
    tell_until(&mut h, 1, NEW, Serving, third);
    let new = h.server(NEW);
    assert_eq!(h.take(new), request(&["SET", &key, "2"]));
    assert_eq!(h.take(old), "");
}

#[test]
fn a_strict_fence_holds_everything_also_before_the_first_news() {
    let mut h = followed(|pool| pool.failover.fence = Fence::Strict);
    let client = h.client();
    h.send(client, request(&["GET", "x"]));
    assert!(h.connects.is_empty());
    tell(&mut h, 0, OLD, Serving);
    tell_of_the_other(&mut h);
    let to = h.connects[0].0;
    assert_eq!(h.take(to), request(&["GET", "x"]));
    h.send(to, "$-1\r\n");
    h.take(client);
    let key = key_at(&mut h, OLD, 0);
    let old = h.server(OLD);
    tell(&mut h, 0, OLD, Fenced);
    h.send(client, request(&["GET", &key]) + &request(&["SET", &key, "1"]));
    assert_eq!(h.take(old), "");
    tell(&mut h, 0, OLD, Serving);
    assert_eq!(h.take(old), request(&["GET", &key]) + &request(&["SET", &key, "1"]));
}

#[test]
fn without_a_fence_a_cut_off_proxy_goes_on() {
    let mut h = followed(|pool| pool.failover.fence = Fence::Off);
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    tell(&mut h, 0, OLD, Fenced);
    h.send(client, request(&["SET", &key, "1"]));
    let old = h.server(OLD);
    assert_eq!(h.take(old), request(&["SET", &key, "1"]));
}

#[test]
fn without_hold_requests_fail_as_ever_and_a_switch_still_moves_them() {
    let mut h = followed(|pool| pool.failover.hold = None);
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    tell(&mut h, 0, OLD, Suspected);
    h.send(client, request(&["GET", &key]));
    let old = h.server(OLD);
    assert_eq!(h.take(old), request(&["GET", &key]));
    tell(&mut h, 1, NEW, Serving);
    assert!(h.take(client).starts_with("-ERR the shard has another master"));
    h.send(client, request(&["GET", &key]));
    let new = h.server(NEW);
    assert_eq!(h.take(new), request(&["GET", &key]));
}

#[test]
fn a_large_reply_that_has_begun_to_leave_is_finished_by_the_former_master() {
    let mut h = followed(|_| ());
    let key = key_at(&mut h, OLD, 0);
    let client = h.client();
    h.send(client, request(&["GET", &key]) + &request(&["GET", &key]));
    let old = h.server(OLD);
    h.send(old, format!("$100000\r\n{}", "x".repeat(50_000)));
    tell(&mut h, 0, OLD, Suspected);
    tell(&mut h, 1, NEW, Serving);
    h.pass(ms(300));
    h.send(old, "x".repeat(25_000));
    h.pass(ms(300));
    assert!(!h.is_closed(client), "it goes on coming");
    h.send(old, "x".repeat(25_000) + "\r\n$1\r\ny\r\n");
    let replies = h.take(client);
    assert!(replies.ends_with("x\r\n$1\r\ny\r\n"), "a read sent before is answered from before");
    assert!(h.is_closed(old));
}
