//! Every event of the recorded logs, written by us.

use ringkeeper_core::sentinel::event::{Event, Level, Plain, Subject, Who};
use ringkeeper_core::sentinel::instance::{Address, Epoch, MasterName, RunId};

use crate::recorded::{REDIS, VALKEY, section};

/// Returns mark, name and payload of each event in a log.
fn logged(transcript: &str) -> Vec<(&str, &str, &str)> {
    section(transcript, "log")
        .lines()
        .filter_map(|line| {
            let mut words = line.splitn(7, ' ');
            let mark = words.nth(5)?;
            let text = words.next()?;
            let (name, payload) = text.split_once(' ')?;
            name.starts_with(['+', '-']).then_some((mark, name, payload))
        })
        .collect()
}

fn address(host: &str, port: &str) -> Address {
    Address::parse(host.as_bytes(), port.as_bytes()).unwrap()
}

const fn mark(level: Level) -> &'static str {
    match level {
        Level::Verbose => "-",
        Level::Notice => "*",
        Level::Warning => "#",
    }
}

/// Rebuilds an event from the words of its payload and writes it.
fn rebuilt(name: &str, payload: &str) -> (&'static str, &'static str, String) {
    let words: Vec<&str> = payload.split(' ').collect();
    let shown = |event: Event<'_>| (mark(event.level()), event.channel(), event.to_string());
    match (name, words.as_slice()) {
        ("+new-epoch", [epoch]) => shown(Event::NewEpoch(Epoch::parse(epoch.as_bytes()).unwrap())),
        ("+vote-for-leader", [id, epoch]) => {
            let id = RunId::parse(id.as_bytes()).unwrap();
            shown(Event::VoteForLeader(&id, Epoch::parse(epoch.as_bytes()).unwrap()))
        }
        ("+switch-master", [master, host, port, to_host, to_port]) => shown(Event::SwitchMaster {
            master: &MasterName::new(master).unwrap(),
            from: &address(host, port),
            to: &address(to_host, to_port),
        }),
        (_, [kind, id, host, port, rest @ ..]) => {
            let own = address(host, port);
            let run_id = RunId::parse(id.as_bytes());
            let who = match (*kind, &run_id) {
                ("master", _) => Who::Master,
                ("slave", _) => Who::Replica,
                (_, Some(id)) => Who::Sentinel(id),
                _ => panic!("{payload}"),
            };
            let (master, master_address, rest) = match rest {
                ["@", name, host, port, rest @ ..] => (*name, address(host, port), rest),
                rest => (*id, own.clone(), rest),
            };
            let master = MasterName::new(master).unwrap();
            let subject =
                Subject { who, address: &own, master: &master, master_address: &master_address };
            match (name, rest) {
                ("+monitor", ["quorum", quorum]) => {
                    shown(Event::Monitor(subject, quorum.parse().unwrap()))
                }
                ("+set", [option, values @ ..]) => shown(Event::Set(subject, option, values)),
                (name, []) => {
                    let plain = Plain::ALL.into_iter().find(|plain| plain.channel() == name);
                    shown(Event::Plain(plain.unwrap(), subject))
                }
                _ => panic!("{payload}"),
            }
        }
        _ => panic!("{payload}"),
    }
}

#[test]
fn every_logged_event_has_our_name_payload_and_level() {
    for transcript in [REDIS, VALKEY] {
        let events = logged(transcript);
        assert!(events.len() >= 20, "{events:?}");
        for (mark, name, payload) in events {
            assert_eq!(rebuilt(name, payload), (mark, name, payload.to_owned()));
        }
    }
}

#[test]
fn no_two_events_share_a_channel() {
    let mut channels = Plain::ALL.map(Plain::channel).to_vec();
    channels.sort_unstable();
    channels.dedup();
    assert_eq!(channels.len(), Plain::ALL.len());
}
