//! What workers with clients are told of masters, and what their sightings do.

use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_core::id::ConnId;
use ringkeeper_core::io::{
    CloseReason, Evidence, Input, Notice, ShardCondition, ShardNews, Sighting,
};
use ringkeeper_core::sentinel::machine::{NameBase, Setup};

use crate::machine::{Bench, ME, PEER};

const MASTER: &str = "127.0.0.1:7000";
const REPLICA: &str = "127.0.0.1:7001";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A Sentinel that tells workers, with one replica and one peer.
fn bench(more: &str) -> Bench {
    let text = format!(
        "sentinel myid {ME}\nsentinel monitor m 127.0.0.1 7000 2\n\
         sentinel down-after-milliseconds m 1000\nsentinel known-replica m 127.0.0.1 7001\n\
         sentinel known-sentinel m 127.0.0.1 26380 {PEER}\n{more}"
    );
    let mut setup = Setup::from_text("s.conf".into(), &text).unwrap();
    setup.tells_workers = true;
    setup.names = NameBase { conn: 64, query: 1000, ticket: 1 << 32, job: 1 << 32 };
    let mut bench = Bench::with(setup);
    bench.save(true);
    bench
}

/// Connects everybody, and has the servers answer PING; returns the connection to the master.
fn serving(bench: &mut Bench) -> ConnId {
    let mut master = None;
    for (conn, at) in bench.connect() {
        // The first to a server is for commands.
        if at == address(MASTER) && master.is_none() {
            master = Some(conn);
        }
        bench.input(Input::Received { conn, bytes: b"+OK\r\n+PONG\r\n" });
    }
    master.unwrap()
}

fn latest(bench: &Bench) -> (u64, SocketAddr, ShardCondition) {
    let ShardNews { epoch, address, condition, .. } = bench.news.last().unwrap();
    (*epoch, *address, *condition)
}

#[test]
fn workers_are_told_at_the_start_and_again_every_second() {
    let mut bench = bench("sentinel config-epoch m 3\n");
    assert_eq!(latest(&bench), (3, address(MASTER), ShardCondition::Serving));
    serving(&mut bench);
    assert_eq!((bench.news.len(), &*bench.news[0].shard), (1, "m"));
    bench.pass(Duration::from_millis(999));
    assert_eq!(bench.news.len(), 1);
    bench.pass(Duration::from_millis(2));
    assert_eq!(bench.news.len(), 2);
    assert_eq!(bench.news[0], bench.news[1]);
}

#[test]
fn a_drop_in_tells_nobody() {
    let mut bench = Bench::new("");
    bench.save(true);
    bench.pass(Duration::from_secs(3));
    assert!(bench.news.is_empty(), "{:?}", bench.news);
}

#[test]
fn a_refused_connection_is_a_suspicion_until_it_stands_again() {
    let mut bench = bench("");
    let master = serving(&mut bench);
    bench.input(Input::Closed { conn: master, reason: CloseReason::Reset });
    assert_eq!(latest(&bench), (0, address(MASTER), ShardCondition::Suspected));
    bench.pass(Duration::from_millis(300));
    serving(&mut bench);
    assert_eq!(latest(&bench), (0, address(MASTER), ShardCondition::Serving));
}

#[test]
fn silence_is_a_suspicion_once_the_master_is_subjectively_down() {
    let mut bench = bench("");
    serving(&mut bench);
    bench.pass(Duration::from_millis(900));
    assert_eq!(latest(&bench).2, ShardCondition::Serving);
    bench.pass(Duration::from_millis(400));
    assert_eq!(bench.heard("+sdown"), 3);
    assert_eq!(latest(&bench).2, ShardCondition::Suspected);
}

#[test]
fn a_switch_that_is_heard_of_is_told_in_the_same_turn() {
    let mut bench = bench("");
    serving(&mut bench);
    let client = bench.client();
    let hello = format!("127.0.0.1,26380,{PEER},7,m,127.0.0.1,7001,7");
    bench.ask(client, &format!("PUBLISH __sentinel__:hello {hello}"));
    assert_eq!(latest(&bench), (7, address(REPLICA), ShardCondition::Serving));
    // Others are told what cannot be forgotten.
    assert_eq!(bench.heard("+switch-master"), 0);
    let text = bench.ask(client, "SENTINEL get-master-addr-by-name m");
    assert!(text.contains("7000"), "{text}");
    bench.save(true);
    assert_eq!(bench.heard("+switch-master"), 1);
    let text = bench.ask(client, "SENTINEL get-master-addr-by-name m");
    assert!(text.contains("7001"), "{text}");
    assert_eq!(latest(&bench), (7, address(REPLICA), ShardCondition::Serving));
}

#[test]
fn a_planned_failover_is_told_before_anything_stops() {
    let mut bench = bench("");
    for (conn, at) in bench.connect() {
        bench.input(Input::Received { conn, bytes: b"+OK\r\n+PONG\r\n" });
        let role = if at == address(MASTER) {
            "role:master\r\nslave0:ip=127.0.0.1,port=7001,state=online,offset=1,lag=0\r\n"
        } else {
            "role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:7000\r\n\
             master_link_status:up\r\nslave_priority:100\r\nslave_repl_offset:1\r\n"
        };
        let info = format!("${}\r\n{role}\r\n", role.len());
        bench.input(Input::Received { conn, bytes: info.as_bytes() });
    }
    let client = bench.client();
    assert_eq!(bench.ask(client, "SENTINEL FAILOVER m"), "+OK\r\n");
    assert_eq!(latest(&bench).2, ShardCondition::Moving);
    assert!(bench.writes.iter().all(|(_, text)| !text.contains("PAUSE")), "{:?}", bench.writes);
}

#[test]
fn what_a_worker_saw_has_the_master_asked_at_once_and_decides_nothing() {
    let mut bench = bench("");
    let master = serving(&mut bench);
    bench.pass(Duration::from_millis(50));
    bench.writes.clear();
    let sighting = |at: &str| Sighting {
        shard: "m".into(),
        address: address(at),
        evidence: Evidence::Refused,
    };
    bench.input(Input::Notice(Notice::Sighting(sighting(REPLICA))));
    assert_eq!(bench.got(master), "");
    bench.input(Input::Notice(Notice::Sighting(sighting(MASTER))));
    assert!(bench.got(master).ends_with("PING\r\n"), "{}", bench.got(master));
    // A flood of them is no flood of questions.
    bench.writes.clear();
    bench.input(Input::Notice(Notice::Sighting(sighting(MASTER))));
    assert_eq!(bench.got(master), "");
    assert_eq!(latest(&bench).2, ShardCondition::Serving);
}

#[test]
fn names_begin_where_they_were_told_to() {
    let mut bench = bench("");
    let client = bench.client();
    assert_eq!(client, ConnId::client(64, 0));
    assert_eq!(bench.ask(client, "PING"), "+PONG\r\n");
    let (conn, _) = bench.connect()[0];
    assert_eq!(conn, ConnId::server(64, 0));
    let base = NameBase { conn: 64, ..NameBase::default() };
    assert!(base.has_conn(conn) && base.has_conn(client));
    bench.ask(client, "SENTINEL SET m quorum 1");
    assert!(bench.files.iter().all(|(ticket, _)| ticket.0 > 1 << 32), "{:?}", bench.files);
}
