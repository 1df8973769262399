//! The simulator judged by machines that are known to be right, and by ones that are known not
//! to be.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may stop where it broke"
)]

mod common;

use std::time::Duration;

use common::forwarder::{Bug, Forwarder};
use common::ponger::Ponger;
use ringkeeper_sim::{Failure, FaultKind, Pool, Report, Scenario, Simulation, Verb};

/// What the forwarder can do: it does not split requests, so those of several keys have one.
fn forwarded(seed: u64, mut scenario: Scenario) -> Scenario {
    scenario.workload.keys_max = 1;
    scenario.client_backlog_bytes_max = Some(4 * 1024 * 1024);
    scenario.safety = Duration::from_millis(800);
    if seed % 8 == 1 {
        scenario.reply_within = Some(Duration::from_millis(2500));
    }
    if scenario.reply_within.is_some() {
        scenario.safety = Duration::from_secs(4);
    }
    scenario.settle = Duration::from_secs(2);
    scenario
}

fn forward(seed: u64, scenario: Scenario, bug: Bug) -> Result<Report, Box<Failure>> {
    let endpoints = scenario.pools[0].servers.clone();
    Simulation::new(seed, forwarded(seed, scenario)).run(Forwarder::new(endpoints, bug))
}

#[test]
fn a_machine_that_answers_by_itself_passes() {
    for seed in 0..20 {
        let mut scenario = Scenario::calm(vec![Pool::plain(0, 1)]);
        scenario.workload.verbs = vec![Verb::Ping];
        let report = Simulation::new(seed, scenario)
            .run(Ponger::default())
            .unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(report.requests, report.replies);
        assert!(report.requests > 100);
    }
}

#[test]
fn a_right_forwarder_passes_in_calm() {
    for seed in 0..30 {
        let scenario = Scenario::calm(vec![Pool::plain(0, 3)]);
        let report =
            forward(seed, scenario, Bug::None).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(report.errors, 0);
        assert_eq!(report.requests, report.replies);
    }
}

#[test]
fn a_right_forwarder_passes_every_storm() {
    let mut faults = 0;
    for seed in 0..60 {
        let mut scenario = Scenario::harsh(vec![Pool::plain(0, 3)]);
        scenario.drains = seed % 2 == 0;
        let report =
            forward(seed, scenario, Bug::None).unwrap_or_else(|failure| panic!("{failure}"));
        faults += report.faults;
    }
    assert!(faults > 400);
}

#[test]
fn a_seed_repeats_itself() {
    let run = || forward(7, Scenario::harsh(vec![Pool::plain(0, 3)]), Bug::None);
    assert_eq!(run().ok(), run().ok());
    let fail = || forward(3, Scenario::harsh(vec![Pool::plain(0, 3)]), Bug::WrongOrder);
    let (one, two) = (
        fail().err().map(|failure| failure.to_string()),
        fail().err().map(|failure| failure.to_string()),
    );
    assert_eq!(one, two);
}

/// Runs seeds until the bug shows, and returns what the simulator said.
fn catch(bug: Bug) -> String {
    for seed in 0..60 {
        let pools = vec![Pool::plain(0, 3)];
        let scenario = if seed % 2 == 0 { Scenario::calm(pools) } else { Scenario::harsh(pools) };
        let mut scenario = scenario;
        if bug == Bug::NoTimeout {
            // Only who hangs until the end shows who would wait until the end.
            scenario.faults = vec![FaultKind::Hang];
            scenario.reply_within = Some(Duration::from_millis(2500));
        }
        if let Err(failure) = forward(seed, scenario, bug) {
            println!("{bug:?}: seed {seed}: {}", failure.what);
            return failure.what.clone();
        }
    }
    panic!("{bug:?} was not noticed");
}

macro_rules! noticed {
    ($($name:ident: $bug:ident => $($said:literal)|+;)*) => {
        $(#[test]
        fn $name() {
            let what = catch(Bug::$bug);
            assert!([$($said),+].iter().any(|said| what.contains(said)), "said instead: {what}");
        })*
    };
}

noticed! {
    replies_in_the_wrong_order_are_noticed: WrongOrder => "got";
    a_lost_reply_is_noticed: LostReply => "never answered";
    a_reply_that_comes_twice_is_noticed: DuplicateReply => "got";
    a_reply_to_the_wrong_client_is_noticed: WrongClient => "got";
    two_writes_in_flight_are_noticed: TwoWrites => "two writes in flight";
    an_empty_write_is_noticed: EmptyTransmit => "empty Transmit";
    a_write_after_close_is_noticed: TransmitAfterClose => "after Close" | "does not exist";
    a_busy_loop_is_noticed: BusyLoop => "busy loop";
    a_repeated_write_is_noticed: Retries => "twice" | "got";
    a_key_on_two_servers_is_noticed: RandomServer => "another one";
    an_answer_from_memory_is_noticed: Cache => "did not have this value" | "no server was asked";
    a_write_acknowledged_early_is_noticed: EarlyAck => "never took effect" | "no server was asked";
    waiting_forever_is_noticed: NoTimeout => "has waited longer";
    a_client_that_is_kept_after_its_end_is_noticed: KeepsGone => "not closed" | "still held";
    a_request_passed_on_before_its_end_is_noticed: CutThrough => "never sent whole" | "a server was sent";
    hoarding_for_a_deaf_client_is_noticed: Hoards => "are held for";
    closing_a_good_client_is_noticed: ClosesOnError => "was closed";
    closing_a_half_closed_client_early_is_noticed: IgnoresHalfClose => "was closed" | "after Close";
    work_in_an_early_timeout_is_noticed: EagerTimeout => "early handle_timeout" | "got the error";
    reading_on_after_garbage_is_noticed: SkipsGarbage => "got" | "never answered" | "not served";
    a_slot_used_too_early_is_noticed: EarlyReuse => "has the slot";
    a_panic_is_noticed: Panics => "a bug on purpose";
}
