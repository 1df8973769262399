//! INFO, ROLE, hello and the question about a master, as genuine programs send them.

use std::time::Duration;

use ringkeeper_core::sentinel::ask::{Answer, Ask};
use ringkeeper_core::sentinel::hello::Hello;
use ringkeeper_core::sentinel::info::{Info, MasterLink, RoleReport};
use ringkeeper_core::sentinel::instance::RunId;
use ringkeeper_core::sentinel::role::{LinkState, RoleReply};
use ringkeeper_core::wire::resp::array_elements;

use crate::recorded::{WIRE, peer_lines};

const INFO_MASTER: &[u8] = include_bytes!("../vectors/sentinel/info-redis-7.0.15-master.txt");
const INFO_REPLICA: &[u8] = include_bytes!("../vectors/sentinel/info-redis-7.0.15-replica.txt");
const INFO_LINK_DOWN: &[u8] =
    include_bytes!("../vectors/sentinel/info-redis-7.0.15-replica-link-down.txt");
const INFO_NEVER_SYNCED: &[u8] =
    include_bytes!("../vectors/sentinel/info-redis-7.0.15-replica-never-synced.txt");
const INFO_PROMOTED: &[u8] = include_bytes!("../vectors/sentinel/info-redis-7.0.15-promoted.txt");
const ROLE_MASTER: &[u8] = include_bytes!("../vectors/sentinel/role-redis-7.0.15-master.bin");
const ROLE_REPLICA: &[u8] = include_bytes!("../vectors/sentinel/role-redis-7.0.15-replica.bin");
const ROLE_REPLICA_DOWN: &[u8] =
    include_bytes!("../vectors/sentinel/role-redis-7.0.15-replica-down.bin");

const REPLID: &[u8] = b"899c613f3e78e61940618c49323d5b993ca2208e";

#[test]
fn info_of_a_master_lists_its_replicas() {
    let info = Info::parse(INFO_MASTER).unwrap();
    let RoleReport::Master { replicas, replicas_dropped } = &info.role else { panic!() };
    assert_eq!(replicas.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:27902"]);
    assert_eq!(*replicas_dropped, 0);
    assert!(info.run_id.is_some() && !info.is_loading);
    assert_eq!((info.history.replid, info.history.replid2), (RunId::parse(REPLID), None));
    assert_eq!((info.history.offset, info.history.second_offset), (50, None));
}

#[test]
fn info_of_a_replica_tells_how_it_follows() {
    let link = |text| {
        let info = Info::parse(text).unwrap();
        let RoleReport::Replica(report) = info.role else { panic!() };
        assert_eq!(report.master.unwrap().to_string(), "127.0.0.1:27901");
        assert_eq!((report.priority, report.is_announced), (100, true));
        (report.link, report.offset)
    };
    assert_eq!(link(INFO_REPLICA), (MasterLink::Up, 50));
    assert_eq!(link(INFO_LINK_DOWN), (MasterLink::Down(Duration::from_secs(3)), 50));
    assert_eq!(link(INFO_NEVER_SYNCED), (MasterLink::NeverUp, 1));
}

#[test]
fn a_promoted_replica_keeps_the_history_of_its_master() {
    let history = Info::parse(INFO_PROMOTED).unwrap().history;
    assert!(history.includes(RunId::parse(REPLID).unwrap()));
    assert_ne!(history.replid, RunId::parse(REPLID));
    assert_eq!(history.second_offset, Some(51));
    let never = Info::parse(INFO_NEVER_SYNCED).unwrap().history;
    assert!(!never.includes(RunId::parse(REPLID).unwrap()));
}

#[test]
fn role_replies_are_read() {
    let RoleReply::Master { offset, replicas } = RoleReply::parse(ROLE_MASTER).unwrap() else {
        panic!()
    };
    assert_eq!(offset, 50);
    assert_eq!(replicas[0].0.to_string(), "127.0.0.1:27902");
    assert_eq!(replicas[0].1, 50);
    let replica = |frame| match RoleReply::parse(frame).unwrap() {
        RoleReply::Replica { master, link, offset } => (master.to_string(), link, offset),
        RoleReply::Master { .. } | RoleReply::Sentinel(_) => panic!("no replica"),
    };
    let master = || "127.0.0.1:27901".to_owned();
    assert_eq!(replica(ROLE_REPLICA), (master(), LinkState::Connected, Some(50)));
    assert_eq!(replica(ROLE_REPLICA_DOWN), (master(), LinkState::Connect, None));
    assert_eq!(
        RoleReply::parse(b"*2\r\n$8\r\nsentinel\r\n*1\r\n$8\r\nmymaster\r\n").unwrap(),
        RoleReply::Sentinel(vec!["mymaster".to_owned()])
    );
}

#[test]
fn every_recorded_hello_is_written_byte_by_byte() {
    let mark = "\"PUBLISH\" \"__sentinel__:hello\" \"";
    let hellos: Vec<&str> = WIRE
        .lines()
        .filter_map(|line| line.split_once(mark))
        .map(|(_, text)| text.trim_end_matches('"'))
        .collect();
    assert!(hellos.len() > 20);
    for text in hellos {
        assert_eq!(Hello::parse(text.as_bytes()).unwrap().encode(), text);
    }
}

#[test]
fn what_is_published_to_a_peer_is_what_a_genuine_sentinel_publishes() {
    let mut seen = 0;
    for bytes in peer_lines(false) {
        if !bytes.starts_with(b"*3\r\n$7\r\nPUBLISH") {
            continue;
        }
        let payload = bytes.split(|byte| *byte == b'\n').nth(6).unwrap();
        let hello = Hello::parse(payload.strip_suffix(b"\r").unwrap()).unwrap();
        let mut out = Vec::new();
        hello.encode_publish(&mut out);
        assert_eq!(out, bytes);
        seen += 1;
    }
    assert!(seen >= 5);
}

#[test]
fn the_question_about_a_master_and_its_answer_are_those_of_the_wire_log() {
    let asks: Vec<Vec<u8>> = peer_lines(false)
        .into_iter()
        .filter(|bytes| bytes.starts_with(b"*6\r\n$8\r\nSENTINEL"))
        .collect();
    assert_eq!(asks.len(), 2);
    for bytes in asks {
        let args: Vec<&[u8]> = array_elements(&bytes)
            .unwrap()
            .map(|frame| frame.split(|byte| *byte == b'\n').nth(1).unwrap())
            .map(|line| line.strip_suffix(b"\r").unwrap())
            .collect();
        let ask = Ask::parse(&args[2..]).unwrap();
        assert_eq!(ask.address.to_string(), "127.0.0.1:25501");
        assert_eq!(ask.candidate, None);
        let mut out = Vec::new();
        ask.encode(&mut out);
        // The log holds what came in one read, so a hello may follow.
        assert!(bytes.starts_with(&out));
    }
    let answers: Vec<Vec<u8>> =
        peer_lines(true).into_iter().filter(|bytes| bytes.starts_with(b"*3")).collect();
    assert_eq!(answers.len(), 2);
    for bytes in answers {
        let answer = Answer::parse(&bytes).unwrap();
        assert_eq!(answer, Answer { is_down: true, ..Answer::UNKNOWN });
        let mut out = Vec::new();
        answer.encode(&mut out);
        assert_eq!(out, bytes);
    }
}
