//! One process in the place of several: the old files together, as they are, and as one file.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::Path;

use support::lab::Runtime;
use support::quorum::start_servers;
use support::resp::{Client, Place, Reply};
use support::{Scratch, eventually, free_port, stderr, stdout};

/// Reads a file of the tutorial's deployment.
fn tutorial(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tutorial").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// Puts the tutorial's files into a place.
fn copied() -> Scratch {
    let scratch = Scratch::new();
    for name in ["nutcracker.yml", "sentinel.conf", "keepalived-a.conf", "keepalived-b.conf"] {
        scratch.write(name, &tutorial(name));
    }
    scratch
}

#[test]
fn a_check_of_the_tutorials_files_tells_its_two_weaknesses() {
    let scratch = copied();
    let output = scratch.run("ringkeeper", &["check", "nutcracker.yml", "sentinel.conf"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stderr(&output);
    // Keys that would move, a vote that nobody wins, and a shard that is looked for elsewhere.
    for code in ["unnamed-server", "two-voters", "eject-replicated"] {
        assert!(told.contains(code), "{code} in\n{told}");
    }
    assert!(told.contains("run a third Sentinel"), "{told}");
    assert!(stdout(&output).contains("together: 1 remarks"), "{}", stdout(&output));
}

#[test]
fn files_that_do_not_fit_together_are_an_error() {
    let scratch = copied();
    let clash = tutorial("sentinel.conf").replace("port 26379", "port 22121");
    scratch.write("sentinel.conf", &clash);
    let arguments = ["check", "--format", "json", "nutcracker.yml", "sentinel.conf"];
    let output = scratch.run("ringkeeper", &arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("duplicate-listen"), "{}", stdout(&output));
}

#[test]
fn the_tutorials_files_become_one_that_says_the_same() {
    let scratch = copied();
    let arguments = [
        "import",
        "nutcracker.yml",
        "--sentinel",
        "sentinel.conf",
        "--keepalived",
        "keepalived-a.conf",
    ];
    let output = scratch.run("ringkeeper", &arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    scratch.write("ringkeeper.yml", &text);
    let output = scratch.run("ringkeeper", &["check", "ringkeeper.yml"]);
    assert_eq!(output.status.code(), Some(0), "{}\n{text}", stderr(&output));
    let keys: Vec<String> = (0..50).map(|number| format!("key:{number}")).collect();
    let route = |file: &str| {
        let mut arguments = vec!["route", "-c", file];
        arguments.extend(keys.iter().map(String::as_str));
        stdout(&scratch.run("ringkeeper", &arguments))
    };
    assert_eq!(route("nutcracker.yml"), route("ringkeeper.yml"));
    for word in ["shard: nutcracker_a", "keepalived-a.conf", "Was true."] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
}

on_every_runtime!(the_old_files_run_together_as_they_are);

fn the_old_files_run_together_as_they_are(runtime: Runtime) {
    need!("redis-server");
    let shards = [start_servers(1), start_servers(1)];
    let local = |text: &str| {
        let mut text = text.to_owned();
        for (host, servers) in ["192.168.223.128", "192.168.223.131"].iter().zip(&shards) {
            let port = servers[0].place.port();
            text = text.replace(&format!("{host}:6379"), &format!("127.0.0.1:{port}"));
            text = text.replace(&format!("{host} 6379"), &format!("127.0.0.1 {port}"));
        }
        text
    };
    let hosts: Vec<_> = (0..3)
        .map(|_| {
            let scratch = Scratch::new();
            let [pool, sentinel, admin] = [(); 3].map(|()| free_port());
            let pools = local(&tutorial("nutcracker.yml"));
            let pools = pools.replace("0.0.0.0:22121", &format!("127.0.0.1:{pool}"));
            scratch.write("nutcracker.yml", &pools);
            let watch = local(&tutorial("sentinel.conf"));
            let watch = watch.replace("port 26379", &format!("port {sentinel}\nbind 127.0.0.1"));
            scratch.write("sentinel.conf", &watch);
            let admin = format!("127.0.0.1:{admin}");
            let arguments = [
                "run",
                "--nutcracker",
                "nutcracker.yml",
                "--sentinel",
                "sentinel.conf",
                "--runtime",
                runtime.name(),
                "--admin",
                &admin,
                "--stats-port",
                "0",
            ];
            let process = scratch.start("ringkeeper", &arguments);
            let place = |port: u16| Place::Tcp(([127, 0, 0, 1], port).into());
            (scratch, process, place(pool), place(sentinel), admin, (pools, watch))
        })
        .collect();
    for (scratch, _, _, sentinel, ..) in &hosts {
        for name in ["nutcracker_a", "nutcracker_b"] {
            eventually(&format!("all know all: {}", scratch.read("stderr")), || {
                let mut client = Client::connect(sentinel).ok()?;
                let usable = client.try_ask(&["SENTINEL", "CKQUORUM", name]).ok()?;
                let replicas = client.try_ask(&["SENTINEL", "REPLICAS", name]).ok()?;
                let is_complete = usable.text().starts_with("OK 3 usable");
                (is_complete && replicas.items().len() == 1).then_some(())
            });
        }
    }
    let (scratch, _, pool, sentinel, admin, (pools, watch)) = &hosts[0];
    let mut client = Client::connect(pool).unwrap();
    let keys: Vec<String> = (0..40).map(|number| format!("key:{number}")).collect();
    for key in &keys {
        assert_eq!(client.ask(&["SET", key, "before"]), Reply::ok());
    }
    let old = shards[0][0].place.port();
    let mut asker = Client::connect(sentinel).unwrap();
    assert_eq!(asker.ask(&["SENTINEL", "FAILOVER", "nutcracker_a"]), Reply::ok());
    let new = eventually("the master has moved", || {
        let reply = asker.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "nutcracker_a"]);
        let port = reply.items()[1].text();
        (port != old.to_string()).then_some(port)
    });
    assert_eq!(new, shards[0][1].place.port().to_string());
    for key in &keys {
        assert_eq!(client.ask(&["GET", key]).text(), "before", "no key has moved");
        assert_eq!(client.ask(&["SET", key, "after"]), Reply::ok(), "{}", scratch.read("stderr"));
    }
    // The server's place on the ring is what it was.
    let status = stdout(&scratch.run("ringkeeper", &["status", "--admin", admin]));
    assert!(status.contains(&format!("server 127.0.0.1:{old}: up")), "{status}");
    assert!(status.contains(&format!("serving at 127.0.0.1:{new}")), "{status}");
    assert_eq!(scratch.read("nutcracker.yml"), *pools, "the files are only read");
    assert_eq!(scratch.read("sentinel.conf"), *watch);
}
