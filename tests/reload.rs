//! Another configuration while clients are being served, against genuine Redis servers.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fmt::Write as _;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustix::process::Signal;

use support::lab::{Kind, Proxy, Redis, Runtime};
use support::resp::{Client, Place, Reply, request};
use support::{eventually, free_port, stderr, stdout};

on_every_runtime!(
    reloads_under_load_lose_nothing,
    reloads_under_load_lose_nothing_with_two_workers,
    a_bad_file_changes_nothing_and_says_why,
    pools_come_and_go_by_a_signal,
    what_is_drained_is_left_alone_until_it_is_taken_up_again,
    by_its_old_name_the_program_reads_again_at_usr1,
);

/// A pool's lines.
fn pool(name: &str, listen: &Place, options: &str, servers: &[(&Redis, &str)]) -> String {
    let mut text = format!("{name}:\n  listen: {listen}\n  redis: true\n");
    for option in options.split(';').filter(|option| !option.is_empty()) {
        let _ = writeln!(text, "  {option}");
    }
    text.push_str("  servers:\n");
    for (redis, name) in servers {
        let _ = writeln!(text, "{}", redis.line(name));
    }
    text
}

fn place() -> Place {
    Place::Tcp(([127, 0, 0, 1], free_port()).into())
}

/// Clients that pipeline without a pause and check every reply.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

const DEPTH: usize = 8;

impl Load {
    fn start(at: &Place, clients: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..clients)
            .map(|number| {
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                let mut client = Client::connect(at).unwrap();
                std::thread::spawn(move || {
                    let mut round = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        Self::round(&mut client, number, round);
                        round += 1;
                        done.fetch_add(DEPTH as u64, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Self { stop, done, threads }
    }

    /// Asks for a reply that only this request can have, from whichever server has the key.
    fn round(client: &mut Client, number: usize, round: u64) {
        let token = |at: usize| format!("client {number} round {round} request {at}");
        let mut bytes = Vec::new();
        for at in 0..DEPTH {
            let key = format!("key{}", (number * 31 + at * 7) as u64 + round % 1000);
            bytes.extend(request(&["EVAL", "return ARGV[1]", "1", &key, &token(at)]));
        }
        client.send(&bytes).unwrap();
        for at in 0..DEPTH {
            assert_eq!(client.reply().unwrap(), Reply::bulk(token(at)));
        }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until every client has been through a round since now, most likely.
    fn wait_for_some(&self) {
        let before = self.done();
        let wanted = (self.threads.len() * DEPTH) as u64;
        eventually("the load goes on", || {
            let is_broken = self.threads.iter().any(JoinHandle::is_finished);
            (is_broken || self.done() >= before + wanted).then_some(())
        });
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("each request gets its own reply, and no connection ends");
        }
    }
}

/// How often the configuration changes; `./check --long` sets 1000.
fn reloads() -> usize {
    let wanted = std::env::var("RINGKEEPER_RELOADS").ok();
    wanted.map_or(50, |text| text.parse().expect("a number of reloads"))
}

fn reload(proxy: &Proxy) -> std::process::Output {
    proxy.scratch.run("ringkeeper", &["reload"])
}

fn reloads_under_load_lose_nothing(runtime: Runtime) {
    reload_under_load(Kind::Ringkeeper(runtime));
}

fn reloads_under_load_lose_nothing_with_two_workers(runtime: Runtime) {
    reload_under_load(Kind::Threaded(runtime, 2));
}

fn reload_under_load(kind: Kind) {
    need!("redis-server");
    let (a, b, c) = (Redis::start(), Redis::start(), Redis::start());
    let first = format!("  redis: true\n  servers:\n{}\n{}", a.line("a"), b.line("b"));
    let proxy = Proxy::start_as(kind, &first);
    let at = proxy.place.clone();
    let other = place();
    let plans = [
        pool("alpha", &at, "", &[(&a, "a"), (&b, "b"), (&c, "c")]),
        pool("alpha", &at, "timeout: 20000;distribution: modula", &[(&a, "a"), (&c, "c")]),
        // The servers change places: the same names elsewhere.
        pool("alpha", &at, "server_connections: 2", &[(&b, "a"), (&a, "b")]),
        pool("alpha", &at, "preconnect: true", &[(&c, "c")]) + &pool("x", &other, "", &[(&b, "b")]),
        pool("alpha", &at, "", &[(&a, "a"), (&b, "b")]),
    ];
    let load = Load::start(&at, 6);
    let count = reloads();
    for number in 0..count {
        proxy.scratch.write("alpha.yml", &plans[number % plans.len()]);
        let output = reload(&proxy);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stdout(&output).contains("changed alpha"), "{}", stdout(&output));
        if number % plans.len() == 3 {
            let mut client = Client::connect(&other).unwrap();
            assert_eq!(client.ask(&["PING"]), Reply::Simple("PONG".to_owned()));
        }
        load.wait_for_some();
    }
    let done = load.done();
    load.finish();
    assert!(done as usize > count * DEPTH);
    let log = proxy.scratch.read("stderr");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

fn a_bad_file_changes_nothing_and_says_why(runtime: Runtime) {
    need!("redis-server");
    let a = Redis::start();
    let lines = format!("  redis: true\n  servers:\n{}", a.line("a"));
    let proxy = Proxy::start(runtime, &lines);
    let mut client = proxy.client();
    assert_eq!(client.ask(&["SET", "k", "v"]), Reply::ok());

    proxy.scratch.write("alpha.yml", "alpha:\n  listen: 127.0.0.1:1\n  hash: sha1\n");
    let output = reload(&proxy);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("alpha.yml") && said.contains("sha1"), "{said}");
    proxy.scratch.wait_for("stderr", "the old one stays in use");
    proxy.process.signal(Signal::HUP);
    eventually("the signal is answered in the log", || {
        (proxy.scratch.read("stderr").matches("the old one stays in use").count() == 2)
            .then_some(())
    });

    // A good file for an address that is taken.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = Place::Tcp(taken.local_addr().unwrap());
    let text = pool("alpha", &proxy.place, "", &[(&a, "a")]) + &pool("x", &there, "", &[(&a, "a")]);
    proxy.scratch.write("alpha.yml", &text);
    let output = reload(&proxy);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    let port = there.port().to_string();
    assert!(said.contains(&port) && said.contains("stays in use"), "{said}");

    assert_eq!(client.ask(&["GET", "k"]), Reply::bulk("v"));
    assert_eq!(proxy.client().ask(&["GET", "k"]), Reply::bulk("v"));
    drop(taken);
    assert!(reload(&proxy).status.success(), "the same file is good once the address is free");
    assert_eq!(Client::connect(&there).unwrap().ask(&["GET", "k"]), Reply::bulk("v"));
    assert_eq!(client.ask(&["GET", "k"]), Reply::bulk("v"));
}

fn pools_come_and_go_by_a_signal(runtime: Runtime) {
    need!("redis-server");
    let a = Redis::start();
    let proxy = Proxy::start(runtime, &format!("  redis: true\n  servers:\n{}", a.line("a")));
    let (there, base) = (place(), pool("alpha", &proxy.place, "", &[(&a, "a")]));
    let mut stays = proxy.client();
    for _ in 0..3 {
        proxy.scratch.write("alpha.yml", &(base.clone() + &pool("x", &there, "", &[(&a, "a")])));
        proxy.process.signal(Signal::HUP);
        let mut client = eventually("the new pool listens", || Client::connect(&there).ok());
        assert_eq!(client.ask(&["SET", "k", "v"]), Reply::ok());
        proxy.scratch.write("alpha.yml", &base);
        proxy.process.signal(Signal::HUP);
        assert_eq!(client.all_within(std::time::Duration::from_secs(20)), " <CLOSED>");
        eventually("nobody listens", || Client::connect(&there).is_err().then_some(()));
        assert_eq!(stays.ask(&["GET", "k"]), Reply::bulk("v"));
    }
    assert!(proxy.stats()["x"].is_null());
}

fn what_is_drained_is_left_alone_until_it_is_taken_up_again(runtime: Runtime) {
    need!("redis-server");
    let (a, b) = (Redis::start(), Redis::start());
    let lines = format!("  redis: true\n  servers:\n{}\n{}", a.line("a"), b.line("b"));
    let proxy = Proxy::start(runtime, &lines);
    let run = |arguments: &[&str]| proxy.scratch.run("ringkeeper", arguments);
    let fill = |client: &mut Client| {
        for number in 0..50 {
            assert_eq!(client.ask(&["SET", &format!("k{number}"), "v"]), Reply::ok());
        }
    };
    let mut client = proxy.client();
    let output = run(&["drain", "server", "alpha", "b"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "server b of pool alpha is drained\n");
    fill(&mut client);
    assert_eq!((a.keys().len(), b.keys().len()), (50, 0));
    assert!(reload(&proxy).status.success());
    fill(&mut client);
    assert_eq!(b.keys().len(), 0, "reading the file again does not end a drain");
    assert!(run(&["undrain", "server", "alpha", "b"]).status.success());
    fill(&mut client);
    assert!(!b.keys().is_empty());

    assert!(run(&["drain", "pool", "alpha"]).status.success());
    assert_eq!(client.all_within(std::time::Duration::from_secs(20)), " <CLOSED>");
    eventually("nobody listens", || Client::connect(&proxy.place).is_err().then_some(()));
    assert!(run(&["undrain", "pool", "alpha"]).status.success());
    fill(&mut eventually("the pool listens", || Client::connect(&proxy.place).ok()));

    let output = run(&["drain", "pool", "beta"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("there is alpha"), "{}", stderr(&output));
    assert!(run(&["drain", "node"]).status.success());
    eventually("nobody listens", || Client::connect(&proxy.place).is_err().then_some(()));
    assert!(run(&["undrain", "node"]).status.success());
    eventually("the pool listens", || Client::connect(&proxy.place).ok());
}

fn by_its_old_name_the_program_reads_again_at_usr1(runtime: Runtime) {
    need!("redis-server");
    let a = Redis::start();
    let lines = format!("  redis: true\n  servers:\n{}", a.line("a"));
    let proxy = Proxy::start_as(Kind::Nutcracker(runtime), &lines);
    let there = place();
    let text = pool("alpha", &proxy.place, "", &[(&a, "a")]) + &pool("x", &there, "", &[(&a, "a")]);
    proxy.scratch.write("alpha.yml", &text);
    proxy.process.signal(Signal::HUP);
    proxy.scratch.wait_for("log", "reopening log file");
    assert!(Client::connect(&there).is_err(), "twemproxy's signal only opens the log again");
    proxy.process.signal(Signal::USR1);
    let mut client = eventually("the new pool listens", || Client::connect(&there).ok());
    assert_eq!(client.ask(&["SET", "k", "v"]), Reply::ok());
}
