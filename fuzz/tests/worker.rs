//! Scripts for the worker's target: situations that a fuzzer takes long to find.

use ringkeeper_fuzz::worker::{Ask, Op, Setup, Step, play};

/// Each operation is a turn of its own.
fn alone(ops: &[Op]) -> Vec<Step> {
    ops.iter().map(|op| Step { is_joined: false, op: *op }).collect()
}

/// All operations but the last are told in one turn.
fn joined(ops: &[Op]) -> Vec<Step> {
    let last = ops.len() - 1;
    ops.iter().enumerate().map(|(at, op)| Step { is_joined: at < last, op: *op }).collect()
}

fn get(client: u8, key: u8) -> Op {
    Op::Ask { client, ask: Ask::Get { key }, bytes: 255 }
}

fn answer_all(server: u8) -> Op {
    Op::Answer { server, count: 255, bytes: 255, manner: 0 }
}

#[test]
fn a_reply_that_nobody_asked_for_never_reaches_the_next_to_ask() {
    let mut steps = alone(&[Op::QuickConnect(true), Op::Accept, get(0, 0), answer_all(0)]);
    steps.extend(joined(&[get(0, 1), Op::Unasked { server: 0, is_large: true }]));
    steps.extend(alone(&[get(0, 2), answer_all(0)]));
    play(&Setup::default(), &steps);
}

#[test]
fn a_server_that_speaks_before_it_is_asked_misleads_nobody() {
    let steps = alone(&[
        Op::QuickConnect(true),
        Op::Accept,
        get(0, 0),
        answer_all(0),
        Op::Unasked { server: 0, is_large: true },
        get(0, 1),
        get(0, 2),
        answer_all(0),
    ]);
    play(&Setup::default(), &steps);
}

#[test]
fn requests_that_wait_for_a_second_address_are_not_forgotten() {
    let setup = Setup { is_named: true, has_timeout: true, ..Setup::default() };
    let steps = alone(&[
        Op::Accept,
        get(0, 0),
        Op::Resolved { addresses: 2 },
        Op::Pass { ticks: 10 },
        get(0, 1),
        Op::Pass { ticks: 3 },
        Op::Fail { server: 0, reason: 0 },
        get(0, 2),
    ]);
    play(&setup, &steps);
}

#[test]
fn a_request_that_is_said_not_to_have_been_sent_is_not_sent_later() {
    let setup = Setup { has_timeout: true, ..Setup::default() };
    let steps = alone(&[
        Op::QuickConnect(true),
        Op::Accept,
        Op::Accept,
        get(0, 0),
        answer_all(0),
        Op::Hold { is_server: true, which: 0 },
        Op::Pipeline { client: 0, ask: Ask::Get { key: 0 }, more: 3 },
        get(1, 1),
        Op::Pass { ticks: 2 },
        Op::Answer { server: 0, count: 0, bytes: 255, manner: 0 },
        Op::Pass { ticks: 11 },
        Op::Release { is_server: true, which: 0 },
        answer_all(0),
    ]);
    play(&setup, &steps);
}

#[test]
fn splits_joined_from_servers_that_fail_and_answer_leave_nobody_waiting() {
    for failing in 0..3 {
        let steps = alone(&[
            Op::QuickConnect(true),
            Op::Accept,
            Op::Accept,
            Op::Pipeline { client: 0, ask: Ask::MgetLarge { key: 0 }, more: 3 },
            Op::Pipeline { client: 1, ask: Ask::Mset { key: 1, more: 3 }, more: 7 },
            Op::Hold { is_server: false, which: 0 },
            answer_all(0),
            Op::Fail { server: failing, reason: 0 },
            Op::Lose { client: failing % 2 },
            answer_all(1),
            Op::Pass { ticks: 200 },
        ]);
        play(&Setup { servers: 2, is_modula: true, ..Setup::default() }, &steps);
    }
}

#[test]
fn draining_in_the_middle_of_everything_comes_to_its_end() {
    let setup = Setup { servers: 1, has_two_lanes: true, ..Setup::default() };
    let steps = alone(&[
        Op::QuickConnect(true),
        Op::SlowClose(true),
        Op::Accept,
        Op::Accept,
        Op::Accept,
        Op::Pipeline { client: 0, ask: Ask::SetLarge { key: 0 }, more: 3 },
        Op::Ask { client: 1, ask: Ask::Quit, bytes: 255 },
        Op::Ask { client: 2, ask: Ask::Get { key: 3 }, bytes: 9 },
        Op::Drain { ticks: 50 },
        Op::Drain { ticks: 50 },
        Op::Accept,
        answer_all(0),
        Op::Pass { ticks: 60 },
    ]);
    play(&setup, &steps);
}

#[test]
fn a_large_reply_that_takes_longer_than_the_time_out_is_waited_for_while_it_comes() {
    let setup = Setup { has_timeout: true, ..Setup::default() };
    let piece = |bytes| Op::Answer { server: 0, count: 0, bytes, manner: 0 };
    let mut ops = vec![Op::QuickConnect(true), Op::Accept];
    ops.push(Op::Pipeline { client: 0, ask: Ask::GetLarge { key: 0 }, more: 3 });
    ops.extend([piece(220), Op::Pass { ticks: 10 }]);
    for _ in 0..8 {
        ops.extend([piece(190), Op::Pass { ticks: 10 }]);
    }
    play(&setup, &alone(&ops));
}

/// The same situations in memcached's words.
fn memcached() -> Setup {
    Setup { servers: 2, is_modula: true, is_memcache: true, ..Setup::default() }
}

#[test]
fn every_request_of_memcached_gets_its_own_reply() {
    let all = [
        Ask::Get { key: 0 },
        Ask::GetLarge { key: 1 },
        Ask::Set { key: 2 },
        Ask::SetLarge { key: 3 },
        Ask::Mget { key: 0, more: 3 },
        Ask::MgetLarge { key: 1 },
        Ask::Mset { key: 2, more: 2 },
        Ask::Del { key: 0, more: 0 },
        Ask::Exists { key: 1, more: 0 },
        Ask::Ping,
        Ask::Echo,
        Ask::Auth { is_right: true },
        Ask::ClientId,
        Ask::Unknown,
        Ask::InlinePing,
        Ask::Reset,
        Ask::Quit,
    ];
    let mut ops = vec![Op::QuickConnect(true), Op::Accept, Op::Accept];
    for (at, ask) in (0..).zip(all) {
        ops.push(Op::Ask { client: 0, ask, bytes: 11 * at });
        ops.push(Op::Pipeline { client: 1, ask, more: at });
        ops.extend([answer_all(at % 3), Op::Pass { ticks: 1 }, answer_all((at + 1) % 3)]);
    }
    play(&memcached(), &alone(&ops));
}

#[test]
fn joined_values_of_memcached_survive_servers_that_fail_or_refuse() {
    for failing in 0..3 {
        let steps = alone(&[
            Op::QuickConnect(true),
            Op::Accept,
            Op::Accept,
            Op::Pipeline { client: 0, ask: Ask::MgetLarge { key: 0 }, more: 3 },
            Op::Pipeline { client: 1, ask: Ask::Mset { key: 1, more: 3 }, more: 7 },
            Op::Pipeline { client: 1, ask: Ask::ClientId, more: 1 },
            Op::Answer { server: 0, count: 0, bytes: 220, manner: 0 },
            Op::Answer { server: 1, count: 3, bytes: 255, manner: 7 },
            Op::Fail { server: failing, reason: 0 },
            Op::Lose { client: failing % 2 },
            answer_all(1),
            Op::Pass { ticks: 200 },
        ]);
        play(&memcached(), &steps);
    }
}

#[test]
fn a_reply_of_memcached_that_nobody_asked_for_misleads_nobody() {
    for is_large in [false, true] {
        let steps = alone(&[
            Op::QuickConnect(true),
            Op::Accept,
            get(0, 0),
            answer_all(0),
            Op::Unasked { server: 0, is_large },
            get(0, 1),
            get(0, 2),
            answer_all(0),
        ]);
        play(&Setup { is_memcache: true, ..Setup::default() }, &steps);
    }
}
