//! Quorums of our Sentinels and genuine ones: masters die, stop and come back.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use rustix::process::Signal;

use support::eventually;
use support::lab::Runtime;
use support::quorum::{Make, NAME, Quorum, Watcher};

on_every_runtime!(
    a_killed_master_is_replaced_and_becomes_a_replica_when_it_returns,
    a_killed_master_is_replaced_in_quorums_with_genuine_sentinels,
    a_stopped_master_is_replaced_and_follows_when_it_goes_on,
    a_quorum_of_five_with_three_genuine_survives_the_loss_of_two,
    a_restarted_sentinel_remembers_who_it_is_and_what_it_knew,
    genuine_sentinels_take_over_our_files_and_we_theirs,
);

/// Silence after which a master is down, in quorums of ours.
const DOWN_AFTER_MS: u32 = 1000;

/// The same beside genuine Sentinels. They connect to a new master within about a second, and with
/// less patience than that take it for dead and fail over again.
const MIXED_DOWN_AFTER_MS: u32 = 3000;

fn makes(runtime: Runtime, ours: usize, genuine: usize) -> Vec<Make> {
    let mut makes = vec![Make::Ours(runtime); ours];
    makes.extend(vec![Make::Genuine; genuine]);
    makes
}

fn kill_and_return(quorum: &mut Quorum) {
    let old = quorum.servers[0].place.port();
    quorum.servers[0].kill();
    let (new, _) = quorum.wait_for_switch(old);
    assert!(quorum.servers[0].run(), "the old master starts again, as a master");
    quorum.wait_until_settled(new);
    for watcher in &quorum.watchers {
        let file = watcher.file();
        let port = quorum.servers[new].place.port();
        let line = format!("sentinel monitor {NAME} 127.0.0.1 {port} ");
        assert!(file.contains(&line), "{file}");
    }
}

fn a_killed_master_is_replaced_and_becomes_a_replica_when_it_returns(runtime: Runtime) {
    need!("redis-server");
    let mut quorum = Quorum::start(&makes(runtime, 3, 0), DOWN_AFTER_MS);
    kill_and_return(&mut quorum);
    assert_eq!(quorum.attempts(), 1, "{}", quorum.logs());
}

fn a_killed_master_is_replaced_in_quorums_with_genuine_sentinels(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    for (ours, genuine) in [(2, 1), (1, 2)] {
        let mut quorum = Quorum::start(&makes(runtime, ours, genuine), MIXED_DOWN_AFTER_MS);
        kill_and_return(&mut quorum);
    }
}

fn a_stopped_master_is_replaced_and_follows_when_it_goes_on(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    let quorum = Quorum::start(&makes(runtime, 2, 1), MIXED_DOWN_AFTER_MS);
    let old = quorum.servers[0].place.port();
    quorum.servers[0].signal(Signal::STOP);
    let (new, _) = quorum.wait_for_switch(old);
    quorum.servers[0].signal(Signal::CONT);
    quorum.wait_until_settled(new);
}

fn a_quorum_of_five_with_three_genuine_survives_the_loss_of_two(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    let mut quorum = Quorum::start(&makes(runtime, 2, 3), MIXED_DOWN_AFTER_MS);
    // One of ours and a genuine one are gone for good; they count as voters all the same.
    quorum.watchers[4].kill();
    quorum.watchers[0].kill();
    quorum.watchers.remove(4);
    quorum.watchers.remove(0);
    kill_and_return(&mut quorum);
}

fn a_restarted_sentinel_remembers_who_it_is_and_what_it_knew(runtime: Runtime) {
    need!("redis-server");
    let mut quorum = Quorum::start(&makes(runtime, 3, 0), DOWN_AFTER_MS);
    let before = quorum.watchers[0].ask(&["SENTINEL", "MYID"]);
    quorum.watchers[0].kill();
    let old = quorum.servers[0].place.port();
    quorum.servers[0].kill();
    let absent = quorum.watchers.remove(0);
    let (new, _) = quorum.wait_for_switch(old);
    quorum.watchers.insert(0, absent);
    // It comes back believing in the old master, and hears better.
    quorum.watchers[0].run();
    assert_eq!(quorum.watchers[0].ask(&["SENTINEL", "MYID"]), before);
    assert!(quorum.servers[0].run());
    quorum.wait_until_settled(new);
    eventually(&format!("all know the same election; {}", quorum.logs()), || {
        let epochs: Vec<String> = quorum.watchers.iter().map(|w| w.field("config-epoch")).collect();
        epochs.iter().all(|epoch| *epoch == epochs[0]).then_some(())
    });
}

fn genuine_sentinels_take_over_our_files_and_we_theirs(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    let mut quorum = Quorum::start(&makes(runtime, 2, 1), MIXED_DOWN_AFTER_MS);
    kill_and_return(&mut quorum);
    let port = quorum.watchers[0].master_port();
    let master = quorum.servers.iter().position(|s| s.place.port() == port).unwrap();
    for watcher in &mut quorum.watchers {
        let id = watcher.ask(&["SENTINEL", "MYID"]);
        let epoch = watcher.field("config-epoch");
        watcher.kill();
        watcher.make = match watcher.make {
            Make::Ours(_) => Make::Genuine,
            Make::Genuine => Make::Ours(runtime),
        };
        watcher.run();
        assert_eq!(watcher.ask(&["SENTINEL", "MYID"]), id);
        assert_eq!(watcher.field("config-epoch"), epoch);
        assert_eq!(watcher.field("num-other-sentinels"), "2");
        assert_eq!(watcher.field("num-slaves"), "2");
    }
    quorum.wait_until_complete();
    let old = quorum.servers[master].place.port();
    quorum.servers[master].kill();
    let (new, _) = quorum.wait_for_switch(old);
    assert!(quorum.servers[master].run());
    eventually("the one that returned is told", || {
        let reply = quorum.servers[master].client().try_ask(&["INFO", "replication"]).ok()?;
        reply.text().contains("role:slave").then_some(())
    });
    quorum.wait_until_settled(new);
    assert!(quorum.watchers.iter().map(Watcher::log).all(|log| !log.contains("FATAL")));
    // Whoever leads, nobody begins again within the time that a repetition would take.
    let attempts = quorum.attempts();
    std::thread::sleep(Duration::from_millis(u64::from(DOWN_AFTER_MS)));
    assert_eq!(quorum.attempts(), attempts, "{}", quorum.logs());
}
