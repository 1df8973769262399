//! The model of the genuine Sentinel against what the genuine program was measured to do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail as tests do"
)]

use std::sync::LazyLock;
use std::time::Duration;

use ringkeeper_core::time::Instant;
use ringkeeper_sim::sentinel::{Defects, Fleet, Member, Plan};

/// Runs for each figure; a run takes some milliseconds.
const RUNS: u64 = 200;

/// Milliseconds from the signal to what a fleet of three published.
#[derive(Debug, Default)]
struct Times {
    sdown: Vec<f64>,
    odown: Vec<f64>,
    elected: Vec<f64>,
    promoted: Vec<f64>,
    switch_first: Vec<f64>,
    switch_last: Vec<f64>,
    twice: u64,
}

/// A master that is killed while a second's silence counts as down.
static KILLED: LazyLock<Times> = LazyLock::new(|| measure(Duration::from_secs(1), false));

fn plan() -> Plan {
    let genuine = Member::Genuine(Defects::SHIPPED);
    Plan {
        failover_timeout: Duration::from_secs(180),
        is_recording: true,
        ..Plan::calm(vec![genuine; 3])
    }
}

fn measure(down_after: Duration, stops: bool) -> Times {
    let mut times = Times::default();
    for seed in 0..RUNS {
        let mut fleet = Fleet::new(seed, Plan { down_after, ..plan() });
        fleet.run_for(Duration::from_millis(12_000 + seed * 5));
        let start = fleet.now();
        if stops {
            fleet.stop_master(0).unwrap();
        } else {
            fleet.kill_master(0).unwrap();
        }
        fleet.run_for(down_after + Duration::from_secs(12));
        let when = |channel: &str| {
            let told = fleet.told().iter().filter(|told| {
                told.at > start
                    && told.channel == channel
                    && (channel != "+sdown" || told.payload.starts_with("master"))
            });
            let after = |at: Instant| at.since(start).as_secs_f64() * 1000.0;
            told.map(|told| after(told.at)).collect::<Vec<_>>()
        };
        let first = |channel, into: &mut Vec<f64>| into.extend(when(channel).first());
        first("+sdown", &mut times.sdown);
        first("+odown", &mut times.odown);
        first("+elected-leader", &mut times.elected);
        first("+promoted-slave", &mut times.promoted);
        let switches = when("+switch-master");
        assert!(
            switches.len() >= 3,
            "seed {seed}: {switches:?} {:#?}",
            fleet
                .told()
                .iter()
                .filter(|t| t.at > start)
                .map(|t| format!(
                    "{:?} {} {} {}",
                    t.at.since(start),
                    t.sentinel,
                    t.channel,
                    t.payload
                ))
                .collect::<Vec<_>>()
        );
        times.switch_first.push(switches[0]);
        times.switch_last.push(switches[2]);
        times.twice += u64::from(when("+promoted-slave").len() > 1);
    }
    times
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Holds the medians to those of section "Sentinel alone" of the measurements, within 15 %.
fn assert_close(times: &Times, expected: [f64; 6]) {
    let measured = [
        ("+sdown", &times.sdown),
        ("+odown", &times.odown),
        ("+elected-leader", &times.elected),
        ("+promoted-slave", &times.promoted),
        ("first +switch-master", &times.switch_first),
        ("last +switch-master", &times.switch_last),
    ];
    let mut far = Vec::new();
    for ((name, values), expected) in measured.into_iter().zip(expected) {
        let median = median(values);
        println!("{name}: {median:.0} ms, the genuine program {expected:.0} ms");
        if (median / expected - 1.0).abs() > 0.15 {
            far.push(name);
        }
    }
    assert!(far.is_empty(), "not within 15 %: {far:?}");
}

#[test]
fn a_killed_master_is_replaced_as_fast_as_by_genuine_sentinels() {
    assert_close(&KILLED, [1047.0, 1158.0, 1212.0, 2170.0, 2228.0, 3319.0]);
}

#[test]
fn a_second_fail_over_follows_as_often_as_with_genuine_sentinels() {
    let share = KILLED.twice as f64 / RUNS as f64;
    println!("a second fail-over in {:.1} % of {RUNS} runs", share * 100.0);
    assert!((0.05..=0.30).contains(&share), "{share}");
}

#[test]
fn a_longer_patience_and_a_stopped_master_take_as_long_as_with_genuine_sentinels() {
    let times = measure(Duration::from_secs(5), false);
    assert_close(&times, [5048.0, 5152.0, 5208.0, 6194.0, 6278.0, 7302.0]);
    // Five measurements each, spread over the second of the PING's period: only the order of
    // events and the range can be compared.
    let times = measure(Duration::from_secs(1), true);
    let (sdown, switch) = (median(&times.sdown), median(&times.switch_first));
    println!("stopped: +sdown {sdown:.0} ms, first +switch-master {switch:.0} ms");
    assert!((1087.0..=1911.0).contains(&sdown), "{sdown}");
    assert!((2325.0..=3250.0).contains(&switch), "{switch}");
}
