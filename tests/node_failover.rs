//! One process for all: pools whose shards have masters and replicas, and the Sentinel that
//! replaces a master, against real servers. Clients keep their connections.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use support::lab::{Redis, Runtime};
use support::quorum::{Make, NAME, Watcher, start_servers};
use support::resp::{Client, Place, Reply};
use support::{Process, Scratch, Successor, eventually, free_port};

/// The shards' names: the Sentinels' names of their masters, and their place on the ring.
const SHARDS: [&str; 2] = [NAME, "other"];

/// Two shards: each a master with two replicas.
fn shards() -> Vec<Vec<Redis>> {
    SHARDS.iter().map(|_| start_servers(2)).collect()
}

/// One process.
struct Node {
    process: Process,
    scratch: Scratch,
    pool: Place,
    sentinel: Place,
    admin: u16,
}

fn local(port: u16) -> Place {
    Place::Tcp(([127, 0, 0, 1], port).into())
}

impl Node {
    /// Starts a node; `section` are lines of its section `sentinel`.
    fn start(runtime: Runtime, shards: &[Vec<Redis>], section: &str) -> Self {
        let [pool, sentinel, admin] = [(); 3].map(|()| free_port());
        let servers: String = SHARDS
            .iter()
            .zip(shards)
            .map(|(name, servers)| {
                let port = servers[0].place.port();
                format!("      - {{name: {name}, address: '127.0.0.1:{port}'}}\n")
            })
            .collect();
        // What is not of the section stands in the pool.
        let (section, fence) = match section.split_once("fence: ") {
            Some((section, fence)) => (section, format!("    fence: {fence}")),
            None => (section, String::new()),
        };
        let section = section.replace("PORT", &sentinel.to_string());
        let scratch = Scratch::new();
        let text = format!(
            "runtime: {}\ncontrol: control.sock\nadmin:\n  listen: 127.0.0.1:{admin}\nstats:\n  \
             listen: off\nsentinel:\n{section}pools:\n  alpha:\n    listen: 127.0.0.1:{pool}\n{fence}    \
             servers:\n{servers}",
            runtime.name()
        );
        scratch.write("ringkeeper.yml", &text);
        let process = scratch.start("ringkeeper", &["run", "-c", "ringkeeper.yml"]);
        let node = Self { process, scratch, pool: local(pool), sentinel: local(sentinel), admin };
        eventually(&format!("a node serves: {}", node.log()), || {
            Client::connect(&node.pool).ok()?.try_ask(&["PING"]).ok()
        });
        node
    }

    fn log(&self) -> String {
        self.scratch.read("stderr")
    }

    fn client(&self) -> Client {
        Client::connect(&self.pool).unwrap()
    }

    /// Asks the Sentinel.
    fn ask(&self, words: &[&str]) -> Reply {
        Client::connect(&self.sentinel).unwrap().ask(words)
    }

    fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.page("/status.json")).unwrap()
    }

    /// Returns where routing has a shard's master, and since which epoch.
    fn route(&self, shard: &str) -> Option<(String, u64)> {
        let status = self.status();
        let shards = status["shards"].as_array()?;
        let found = shards.iter().find(|one| one["name"] == shard)?;
        Some((found["address"].as_str()?.to_owned(), found["epoch"].as_u64()?))
    }
}

/// The lines of a node that is a Sentinel itself.
const OWN: &str = "  mode: own\n  listen: 127.0.0.1:PORT\n  hosts: [a, b, c]\n  down_after: 1 s\n  \
                   failover_timeout: 6 s\n";

/// Starts three nodes with Sentinels of their own, and waits until all know all.
fn own_quorum(runtime: Runtime, shards: &[Vec<Redis>], more: &str) -> Vec<Node> {
    let section = format!("{OWN}{more}");
    let nodes: Vec<Node> = (0..3).map(|_| Node::start(runtime, shards, &section)).collect();
    for node in &nodes {
        for shard in SHARDS {
            eventually(&format!("all are known: {}", node.log()), || {
                let usable = node.ask(&["SENTINEL", "CKQUORUM", shard]);
                let replicas = node.ask(&["SENTINEL", "REPLICAS", shard]);
                let is_complete = usable.text().starts_with("OK 3 usable");
                (is_complete && replicas.items().len() == 2).then_some(())
            });
        }
    }
    nodes
}

/// Returns a key of the shard whose master is `server`.
fn key_of(client: &mut Client, server: &Redis) -> String {
    (0..1000)
        .map(|number| format!("key:{number}"))
        .find(|key| {
            // On a busy machine a node may lose sight of the others for a moment.
            eventually("a write", || (client.ask(&["SET", key, "0"]) == Reply::ok()).then_some(()));
            server.keys().contains(key.as_bytes())
        })
        .unwrap()
}

/// What became of writes that were made one after the other over one connection.
#[derive(Debug, Default)]
struct Tally {
    failed: Vec<String>,
    /// Writes that were refused because the node had lost sight of the others.
    cut_off: u64,
    /// The last value that was acknowledged.
    last: u64,
    longest: Duration,
}

/// Writes rising values until `is_done`, which is asked after each; whatever happens, the
/// connection is the same.
fn write_until(
    client: &mut Client,
    key: &str,
    tally: &mut Tally,
    mut is_done: impl FnMut(&Tally) -> bool,
) {
    let start = Instant::now();
    loop {
        let value = tally.last + 1;
        let begin = Instant::now();
        let reply = client.try_ask(&["SET", key, &value.to_string()]);
        let reply = reply.expect("the client keeps its connection");
        tally.longest = tally.longest.max(begin.elapsed());
        if reply == Reply::ok() {
            tally.last = value;
        } else if reply.text().contains("is cut off") {
            // Refused before it was sent, since the machine is so busy that the others are silent.
            tally.cut_off += 1;
        } else {
            tally.failed.push(reply.text());
        }
        if is_done(tally) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{tally:?}");
    }
}

fn master_of(node: &Node, shard: &str) -> u16 {
    let reply = node.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", shard]);
    reply.items()[1].text().parse().unwrap()
}

on_every_runtime!(
    a_process_is_pools_and_sentinel_and_says_so,
    a_killed_master_is_replaced_under_its_clients,
    a_planned_failover_fails_nothing,
    a_master_that_comes_back_gets_no_writes,
    genuine_sentinels_are_followed,
    an_upgraded_process_is_the_same_sentinel,
    a_witness_votes_and_has_no_pools,
    a_process_that_stood_still_writes_nothing_to_a_former_master,
);

fn an_upgraded_process_is_the_same_sentinel(runtime: Runtime) {
    need!("redis-server");
    let shards = shards();
    let nodes = own_quorum(runtime, &shards, "");
    let mut client = nodes[0].client();
    let key = key_of(&mut client, &shards[0][0]);
    let id = nodes[0].ask(&["SENTINEL", "MYID"]);
    let control = nodes[0].scratch.path("control.sock").display().to_string();
    let output = nodes[0].scratch.run("ringkeeper", &["upgrade", "--control", &control]);
    assert!(output.status.success(), "{}\n{}", support::stderr(&output), nodes[0].log());
    let mut successor = Successor::default();
    successor.take(&support::stdout(&output));
    eventually(&format!("it watches again: {}", nodes[0].log()), || {
        let mut sentinel = Client::connect(&nodes[0].sentinel).ok()?;
        let is_same = sentinel.try_ask(&["SENTINEL", "MYID"]).ok()? == id;
        let usable = sentinel.try_ask(&["SENTINEL", "CKQUORUM", NAME]).ok()?;
        (is_same && usable.text().starts_with("OK 3 usable")).then_some(())
    });
    // Whoever leads tells the hosts of its peers to hold requests first, so it has to reach them.
    eventually("the others reach it again", || {
        let peers = nodes[1].ask(&["SENTINEL", "SENTINELS", NAME]);
        let is_reached = |peer: &Reply| {
            let flags = peer.items().chunks(2).find(|pair| pair[0].text() == "flags");
            flags.is_some_and(|pair| pair[1].text() == "sentinel")
        };
        (peers.items().len() == 2 && peers.items().iter().all(is_reached)).then_some(())
    });
    // The client has come along, and follows a switch.
    let old = shards[0][0].place.port();
    assert_eq!(nodes[1].ask(&["SENTINEL", "FAILOVER", NAME]), Reply::ok());
    let mut tally = Tally::default();
    write_until(&mut client, &key, &mut tally, |tally| {
        let route = nodes[0].route(NAME);
        let has_moved = route.is_some_and(|(at, _)| !at.ends_with(&format!(":{old}")));
        has_moved && tally.last > 100
    });
    assert!(tally.failed.is_empty(), "{tally:?}\n{}", nodes[0].log());
}

fn a_witness_votes_and_has_no_pools(runtime: Runtime) {
    need!("redis-server");
    let shards = shards();
    let [sentinel, admin] = [(); 2].map(|()| free_port());
    let master = shards[0][0].place.port();
    let scratch = Scratch::new();
    let text = format!(
        "runtime: {}\nadmin: {{listen: '127.0.0.1:{admin}'}}\nstats: {{listen: off}}\nsentinel:\n  \
         mode: own\n  listen: 127.0.0.1:{sentinel}\n  hosts: [a, b, c]\n  masters:\n    {NAME}: \
         {{address: '127.0.0.1:{master}'}}\n",
        runtime.name()
    );
    scratch.write("ringkeeper.yml", &text);
    let _process = scratch.start("ringkeeper", &["run", "-c", "ringkeeper.yml"]);
    let master = eventually(&format!("it answers: {}", scratch.read("stderr")), || {
        let mut client = Client::connect(&local(sentinel)).ok()?;
        let reply = client.try_ask(&["SENTINEL", "REPLICAS", NAME]).ok()?;
        (reply.items().len() == 2).then(|| client.ask(&["SENTINEL", "MASTERS"]))
    });
    assert_eq!(master.items().len(), 1);
}

fn a_process_is_pools_and_sentinel_and_says_so(runtime: Runtime) {
    need!("redis-server");
    let shards = shards();
    let nodes = own_quorum(runtime, &shards, "");
    let mut client = nodes[0].client();
    for (shard, servers) in SHARDS.iter().zip(&shards) {
        key_of(&mut client, &servers[0]);
        let at = format!("127.0.0.1:{}", servers[0].place.port());
        eventually("routing is told", || (nodes[0].route(shard)? == (at.clone(), 0)).then_some(()));
    }
    let status = nodes[0].status();
    let master = &status["sentinel"]["masters"][0];
    assert_eq!(master["status"], "ok");
    assert_eq!(master["has_quorum"], true);
    assert_eq!(master["peers"].as_array().unwrap().len(), 2);
    let metrics = nodes[0].page("/metrics");
    for line in [
        "redis_sentinel_masters 2",
        "redis_sentinel_tilt 0",
        &format!("redis_sentinel_master_sentinels{{master_name=\"{NAME}\""),
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    let admin = format!("127.0.0.1:{}", nodes[0].admin);
    let shown = nodes[0].scratch.run("ringkeeper", &["status", "--admin", &admin]);
    let shown = support::stdout(&shown);
    assert!(
        shown.contains("ready") && shown.contains(&format!("shard {NAME}: serving")),
        "{shown}"
    );
    let json = nodes[0].scratch.run("ringkeeper", &["status", "--json", "--admin", &admin]);
    let json: Value = serde_json::from_str(&support::stdout(&json)).unwrap();
    assert_eq!(json["is_ready"], true);
    let arguments = ["explain", "failover", "other", "--admin", &admin];
    let why = support::stdout(&nodes[0].scratch.run("ringkeeper", &arguments));
    assert!(why.contains("no fail-over is under way") && !why.contains(NAME), "{why}");
}

fn a_killed_master_is_replaced_under_its_clients(runtime: Runtime) {
    need!("redis-server");
    let mut shards = shards();
    let nodes = own_quorum(runtime, &shards, "  fast_down: true\n");
    let mut client = nodes[0].client();
    let key = key_of(&mut client, &shards[0][0]);
    let other = key_of(&mut client, &shards[1][0]);
    let mut tally = Tally::default();
    write_until(&mut client, &key, &mut tally, |tally| tally.last >= 100);
    let old = shards[0][0].place.port();
    shards[0][0].kill();
    let before = tally.last;
    write_until(&mut client, &key, &mut tally, |tally| tally.last > before + 100);
    // At most the one that was under way.
    assert!(tally.failed.len() <= 1, "{tally:?}\n{}", nodes[0].log());
    // Requests follow a switch at once, answers about it once it is on disk.
    eventually("the switch is told", || (master_of(&nodes[0], NAME) != old).then_some(()));
    assert_eq!(client.ask(&["GET", &key]).text(), tally.last.to_string());
    let mut on_other = Tally::default();
    write_until(&mut client, &other, &mut on_other, |tally| tally.last >= 1);
    assert!(on_other.failed.is_empty(), "the other shard goes on: {on_other:?}");
    // All nodes know.
    for node in &nodes {
        let mut client = node.client();
        eventually("every node has the value", || {
            (client.ask(&["GET", &key]).text() == tally.last.to_string()).then_some(())
        });
        let (address, epoch) = node.route(NAME).unwrap();
        assert!(epoch > 0 && !address.ends_with(&format!(":{old}")), "{address} {epoch}");
    }
    let status = nodes[0].status();
    let shards = status["shards"].as_array().unwrap();
    let moved = shards.iter().find(|one| one["name"] == NAME).unwrap();
    assert!(moved["last_switch_unix_micros"].as_u64().is_some(), "{status}");
}

fn a_planned_failover_fails_nothing(runtime: Runtime) {
    need!("redis-server");
    let shards = shards();
    let nodes = own_quorum(runtime, &shards, "");
    let mut client = nodes[0].client();
    let key = key_of(&mut client, &shards[0][0]);
    let old = shards[0][0].place.port();
    let mut tally = Tally::default();
    write_until(&mut client, &key, &mut tally, |tally| tally.last >= 100);
    assert_eq!(nodes[1].ask(&["SENTINEL", "FAILOVER", NAME]), Reply::ok());
    let mut behind = 0;
    write_until(&mut client, &key, &mut tally, |tally| {
        if behind == 0 && master_of(&nodes[0], NAME) != old {
            behind = tally.last;
        }
        behind > 0 && tally.last > behind + 100
    });
    assert!(tally.failed.is_empty(), "{tally:?}\n{}", nodes[0].log());
    let new = master_of(&nodes[0], NAME);
    let new = shards[0].iter().find(|server| server.place.port() == new).unwrap();
    assert_eq!(new.client().ask(&["GET", &key]).text(), tally.last.to_string());
}

fn a_master_that_comes_back_gets_no_writes(runtime: Runtime) {
    need!("redis-server");
    let shards = shards();
    let nodes = own_quorum(runtime, &shards, "");
    let mut client = nodes[0].client();
    let key = key_of(&mut client, &shards[0][0]);
    let mut tally = Tally::default();
    write_until(&mut client, &key, &mut tally, |tally| tally.last >= 10);
    let old = shards[0][0].place.port();
    shards[0][0].signal(Signal::STOP);
    let before = tally.last;
    write_until(&mut client, &key, &mut tally, |tally| tally.last > before + 100);
    eventually("the switch is told", || (master_of(&nodes[0], NAME) != old).then_some(()));
    shards[0][0].signal(Signal::CONT);
    // Until it follows the new master, as it is told to.
    let begin = tally.last;
    write_until(&mut client, &key, &mut tally, |tally| {
        let role = shards[0][0].client().try_ask(&["INFO", "replication"]);
        let is_replica = role.is_ok_and(|role| role.text().contains("role:slave"));
        is_replica && tally.last > begin + 100
    });
    // One may have been under way when it stopped.
    assert!(tally.failed.len() <= 1, "{tally:?}\n{}", nodes[0].log());
    assert_eq!(client.ask(&["GET", &key]).text(), tally.last.to_string());
    let new = master_of(&nodes[0], NAME);
    let new = shards[0].iter().find(|server| server.place.port() == new).unwrap();
    assert_eq!(new.client().ask(&["GET", &key]).text(), tally.last.to_string());
}

fn genuine_sentinels_are_followed(runtime: Runtime) {
    need!("redis-server", "redis-sentinel");
    let mut shards = shards();
    let second = shards[1][0].place.port();
    let lines = format!(
        "sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 6000\n\
         sentinel monitor {} 127.0.0.1 {second} 2\n",
        SHARDS[1]
    );
    let watchers: Vec<Watcher> =
        (0..3).map(|_| Watcher::start(Make::Genuine, &shards[0][0], 2, &lines)).collect();
    for watcher in &watchers {
        eventually("all are known", || {
            let usable = watcher.ask(&["SENTINEL", "CKQUORUM", NAME]);
            let is_complete = usable.text().starts_with("OK 3 usable");
            (is_complete && watcher.field("num-slaves") == "2").then_some(())
        });
    }
    let addresses: Vec<String> =
        watchers.iter().map(|one| format!("'127.0.0.1:{}'", one.place.port())).collect();
    let section = format!("  mode: follow\n  follow: [{}]\n", addresses.join(", "));
    let node = Node::start(runtime, &shards, &section);
    let mut client = node.client();
    let key = key_of(&mut client, &shards[0][0]);
    let old = format!("127.0.0.1:{}", shards[0][0].place.port());
    eventually("the master is known", || (node.route(NAME)?.0 == old).then_some(()));
    let mut tally = Tally::default();
    write_until(&mut client, &key, &mut tally, |tally| tally.last >= 100);
    shards[0][0].kill();
    let before = tally.last;
    write_until(&mut client, &key, &mut tally, |tally| tally.last > before + 100);
    assert!(tally.failed.len() <= 1, "{tally:?}\n{}", node.log());
    assert_ne!(node.route(NAME).unwrap().0, old);
}

fn a_process_that_stood_still_writes_nothing_to_a_former_master(runtime: Runtime) {
    need!("redis-server");
    let shards = shards();
    let nodes = own_quorum(runtime, &shards, "fence: strict\n");
    let mut client = nodes[0].client();
    let key = key_of(&mut client, &shards[0][0]);
    let old = shards[0][0].place.port();
    eventually("it may write", || (client.ask(&["SET", &key, "1"]) == Reply::ok()).then_some(()));
    // The process and the master stand still, and the others replace the master.
    nodes[0].process.signal(Signal::STOP);
    shards[0][0].signal(Signal::STOP);
    eventually(&format!("it is replaced: {}", nodes[1].log()), || {
        (master_of(&nodes[1], NAME) != old && master_of(&nodes[2], NAME) != old).then_some(())
    });
    client.send(&support::resp::request(&["SET", &key, "2"])).unwrap();
    // Both go on: the old master takes writes, and the worker may be the first thread to run.
    shards[0][0].signal(Signal::CONT);
    nodes[0].process.signal(Signal::CONT);
    let reply = client.reply().unwrap();
    assert_eq!(reply, Reply::ok(), "{}", nodes[0].log());
    let new = master_of(&nodes[1], NAME);
    let new = shards[0].iter().find(|server| server.place.port() == new).unwrap();
    assert_eq!(new.client().ask(&["GET", &key]).text(), "2");
}
