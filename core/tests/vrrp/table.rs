//! Every event in every state, printed and compared with `vectors/vrrp/state_table.txt`.
//!
//! `UPDATE_VECTORS=1` writes the file again.

use std::fmt::Write as _;
use std::time::Duration;

use ringkeeper_core::time::Instant;
use ringkeeper_core::vrrp::fsm::next;
use ringkeeper_core::vrrp::track::{Reading, TrackerId, Weight};
use ringkeeper_core::vrrp::{Cause, Phase, VirtualRouter};

use crate::router::{actions, at, hear, settings};

type Event = (&'static str, fn(&mut VirtualRouter, Instant));

const EVENTS: [Event; 21] = [
    ("start after a good result", |router, now| {
        router.handle_reading(now, TrackerId(0), Reading::Up);
        router.handle_start(now);
    }),
    ("start after a bad result", |router, now| {
        router.handle_reading(now, TrackerId(0), Reading::Down);
        router.handle_start(now);
    }),
    ("start", |router, now| router.handle_start(now)),
    ("stop", |router, now| router.handle_stop(now)),
    ("timer", |router, _| {
        if let Some(due) = router.poll_timeout() {
            router.handle_timeout(due);
        }
    }),
    ("nothing", |_, _| {}),
    ("timer, very late", |router, now| router.handle_timeout(now + Duration::from_secs(9))),
    ("advert 0", |router, now| {
        let _ = hear(router, now, 2, 0);
    }),
    ("advert lower", |router, now| {
        let _ = hear(router, now, 2, 100);
    }),
    ("advert equal, lower address", |router, now| {
        let _ = hear(router, now, 2, 150);
    }),
    ("advert equal, higher address", |router, now| {
        let _ = hear(router, now, 4, 150);
    }),
    ("advert higher", |router, now| {
        let _ = hear(router, now, 2, 200);
    }),
    ("advert of our own", |router, now| {
        let _ = hear(router, now, 3, 200);
    }),
    ("link down", |router, now| router.handle_link(now, false)),
    ("link up", |router, now| router.handle_link(now, true)),
    ("tracker down", |router, now| {
        router.handle_reading(now, TrackerId(0), Reading::Down);
    }),
    ("tracker up", |router, now| router.handle_reading(now, TrackerId(0), Reading::Up)),
    ("weighted tracker down", |router, now| {
        router.handle_reading(now, TrackerId(1), Reading::Down);
    }),
    ("address lost", |router, now| router.handle_address_lost(now)),
    ("demote", |router, now| router.handle_demote(now, Duration::from_secs(5))),
    ("what it is there for is ill", |router, now| {
        router.handle_reading(now, TrackerId(1), Reading::Down);
        router.handle_unwell(now);
    }),
];

/// Brings a router of priority 150 at 10.77.0.3 into a state.
fn in_phase(phase: Phase) -> (VirtualRouter, Instant) {
    let mut settings = settings(3, 150);
    settings.trackers = [0, -20].map(|weight| Weight::new(weight).unwrap()).to_vec();
    let mut router = VirtualRouter::new(settings).unwrap();
    let mut now = at(0);
    if phase != Phase::Init {
        router.handle_reading(now, TrackerId(0), Reading::Up);
        router.handle_start(now);
    }
    if phase == Phase::Active {
        now = router.poll_timeout().unwrap();
        router.handle_timeout(now);
    }
    if phase == Phase::Fault {
        router.handle_link(now, false);
    }
    actions(&mut router);
    assert_eq!(router.phase(), phase);
    (router, now + Duration::from_millis(10))
}

fn print() -> String {
    let mut out = String::from("where a cause leads\n");
    for from in Phase::ALL {
        for why in Cause::ALL {
            if let Some(to) = next(from, why) {
                writeln!(out, "{from:?} + {why:?} -> {to:?}").unwrap();
            }
        }
    }
    out.push_str("\nwhat an event does, and when the next timer is due\n");
    for phase in Phase::ALL {
        for (name, event) in EVENTS {
            let (mut router, now) = in_phase(phase);
            let before = router.poll_timeout();
            event(&mut router, now);
            // The end of the turn.
            router.handle_timeout(now);
            write!(out, "{phase:?}, {name}: {:?}", router.phase()).unwrap();
            if router.phase() != phase {
                write!(out, " ({:?})", router.last_cause().unwrap()).unwrap();
            }
            match router.poll_timeout() {
                timer if timer == before => {}
                None => out.push_str(", timer off"),
                Some(due) if due < now => out.push_str(", timer earlier"),
                Some(due) => {
                    write!(out, ", timer in {} us", due.since(now).as_micros()).unwrap();
                }
            }
            for action in actions(&mut router) {
                write!(out, "; {action:?}").unwrap();
            }
            out.push('\n');
        }
    }
    out
}

#[test]
fn the_state_table_is_the_recorded_one() {
    let printed = print();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/vrrp/state_table.txt");
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::write(path, &printed).unwrap();
    }
    let recorded = std::fs::read_to_string(path).unwrap();
    for (printed, recorded) in printed.lines().zip(recorded.lines()) {
        assert_eq!(printed, recorded);
    }
    assert_eq!(printed.lines().count(), recorded.lines().count());
}

#[test]
fn every_state_can_be_reached_and_left() {
    for phase in Phase::ALL {
        let reached = Phase::ALL.iter().any(|&from| {
            from != phase && Cause::ALL.iter().any(|&why| next(from, why) == Some(phase))
        });
        let left = Cause::ALL.iter().any(|&why| next(phase, why).is_some_and(|to| to != phase));
        assert!(reached && left, "{phase:?}");
    }
    for why in Cause::ALL {
        assert!(Phase::ALL.iter().any(|&from| next(from, why).is_some()), "{why:?}");
    }
}
