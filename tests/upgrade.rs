//! Another process takes over while clients are being served, against genuine Redis servers.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Signal, test_kill_process};

use support::lab::{Kind, Proxy, Redis, Runtime};
use support::resp::{Client, Place, Reply, request};
use support::{Successor, eventually, stderr, stdout};

on_every_runtime!(
    pipelining_clients_do_not_notice_upgrades,
    pipelining_clients_of_two_workers_do_not_notice_upgrades,
    what_a_connection_was_told_goes_with_it,
    what_is_known_of_a_client_goes_with_it,
    what_the_operator_has_drained_stays_drained,
    a_process_that_can_not_serve_does_not_take_over,
    listening_sockets_of_the_service_manager_are_used,
);

/// Requests that each client has under way.
const DEPTH: usize = 8;

/// Threads that play the clients; each has its share of them, all with requests under way.
const THREADS: usize = 4;

/// How often the process is replaced; the environment may say otherwise.
fn upgrades() -> usize {
    let wanted = std::env::var("RINGKEEPER_UPGRADES").ok();
    wanted.map_or(100, |text| text.parse().expect("a number of upgrades"))
}

/// Replaces the process; returns how many clients the new one took over.
fn upgrade(proxy: &Proxy, current: &mut Successor) -> usize {
    let output = proxy.scratch.run("ringkeeper", &["upgrade"]);
    let log = || proxy.scratch.read("stderr");
    assert!(output.status.success(), "{}{}", stderr(&output), log());
    let before = current.id();
    let clients = current.take(&stdout(&output));
    if let Some(before) = before {
        eventually("the old process ends", || {
            // Nobody may be there to hear of its end: then it stays in the list as a ghost.
            let state = format!("/proc/{}/stat", before.as_raw_nonzero());
            let state = std::fs::read_to_string(state).unwrap_or_default();
            let is_ghost = state.contains(") Z ");
            (is_ghost || test_kill_process(before).is_err()).then_some(())
        });
    }
    clients
}

/// Clients that always have requests under way, the last of them half sent.
struct Load {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(at: &Place, clients: usize) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..THREADS)
            .map(|thread| {
                let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
                let mut clients: Vec<Client> =
                    (0..clients / THREADS).map(|_| Client::connect(at).unwrap()).collect();
                std::thread::spawn(move || {
                    let mut round = 0;
                    while !stop.load(Ordering::Relaxed) {
                        Self::round(&mut clients, thread, round);
                        round += 1;
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Self { stop, rounds, threads }
    }

    fn round(clients: &mut [Client], thread: usize, round: u64) {
        let token = |client: usize, at: usize| format!("{thread}/{client}/{round}/{at}");
        let mut rests = Vec::new();
        for (number, client) in clients.iter_mut().enumerate() {
            let mut bytes = Vec::new();
            for at in 0..DEPTH {
                let key = format!("key{}", number * 7 + at);
                let token = token(number, at);
                bytes.extend(request(&["EVAL", "return ARGV[1]", "1", &key, &token]));
            }
            let rest = bytes.split_off(bytes.len() - 9);
            client.send(&bytes).expect("the connection lives");
            rests.push(rest);
        }
        for (number, (client, rest)) in clients.iter_mut().zip(rests).enumerate() {
            client.send(&rest).expect("the connection lives");
            for at in 0..DEPTH {
                let reply = client.reply().expect("the connection lives");
                assert_eq!(reply, Reply::bulk(token(number, at)));
            }
        }
    }

    fn wait_for_some(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        eventually("the load goes on", || {
            let is_broken = self.threads.iter().any(JoinHandle::is_finished);
            let done = self.rounds.load(Ordering::Relaxed) - before;
            (is_broken || done >= THREADS as u64).then_some(())
        });
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("each request gets its own reply, and no connection ends");
        }
    }
}

fn pipelining_clients_do_not_notice_upgrades(runtime: Runtime) {
    upgrade_under_load(Kind::Ringkeeper(runtime));
}

fn pipelining_clients_of_two_workers_do_not_notice_upgrades(runtime: Runtime) {
    upgrade_under_load(Kind::Threaded(runtime, 2));
}

fn upgrade_under_load(kind: Kind) {
    need!("redis-server");
    let (a, b) = (Redis::start(), Redis::start());
    let lines = format!("  redis: true\n  servers:\n{}\n{}", a.line("a"), b.line("b"));
    let mut proxy = Proxy::start_as(kind, &lines);
    let load = Load::start(&proxy.place, 200);
    load.wait_for_some();
    let mut current = Successor::default();
    for number in 0..upgrades() {
        assert_eq!(upgrade(&proxy, &mut current), 200, "upgrade {number}");
        if number == 0 {
            assert_eq!(proxy.process.wait().code(), Some(0));
        }
        assert_eq!(proxy.client().ask(&["PING"]), Reply::Simple("PONG".to_owned()));
        load.wait_for_some();
    }
    load.finish();
    let log = proxy.scratch.read("stderr");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

fn what_a_connection_was_told_goes_with_it(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start_with([127, 0, 0, 1].into(), &["--requirepass", "secret"]);
    let lines = format!("  redis: true\n  redis_auth: secret\n  servers:\n{}", redis.line("a"));
    let folder = support::Scratch::new();
    let place = Place::Unix(folder.path("alpha.sock"));
    let proxy = Proxy::try_start(Kind::Ringkeeper(runtime), place, "0660", &lines).unwrap();
    let mut client = proxy.client();
    assert_eq!(client.ask(&["AUTH", "secret"]), Reply::ok());
    assert_eq!(client.ask(&["CLIENT", "SETNAME", "me"]), Reply::ok());
    let mut stranger = proxy.client();
    let whole = request(&["SET", "k", "v"]);
    let (first, rest) = whole.split_at(7);
    client.send(first).unwrap();
    let mut current = Successor::default();
    assert_eq!(upgrade(&proxy, &mut current), 2);
    client.send(rest).unwrap();
    assert_eq!(client.reply().unwrap(), Reply::ok());
    assert_eq!(client.ask(&["CLIENT", "GETNAME"]), Reply::bulk("me"));
    assert!(stranger.ask(&["GET", "k"]).text().starts_with("NOAUTH"));
    let mut newcomer = proxy.client();
    assert_eq!(newcomer.ask(&["AUTH", "secret"]), Reply::ok());
    assert_eq!(newcomer.ask(&["GET", "k"]), Reply::bulk("v"));
    // The new process takes commands at the same place.
    assert!(proxy.scratch.run("ringkeeper", &["reload"]).status.success());
}

fn what_is_known_of_a_client_goes_with_it(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let lines = format!("  redis: true\n  servers:\n{}", redis.line("a"));
    let proxy = Proxy::start_as(Kind::Threaded(runtime, 2), &lines);
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    let number = |client: &mut Client| match client.ask(&["CLIENT", "ID"]) {
        Reply::Integer(number) => number,
        other => panic!("no number: {other:?}"),
    };
    let before: Vec<i64> = clients.iter_mut().map(number).collect();
    let row = |client: &mut Client| client.ask(&["CLIENT", "INFO"]).text();
    let age = |client: &mut Client| -> u64 {
        let row = row(client);
        let age = row.split(' ').find_map(|part| part.strip_prefix("age="));
        age.unwrap().parse().unwrap()
    };
    eventually("a client is there for two seconds", || (age(&mut clients[0]) >= 2).then_some(()));
    let mut current = Successor::default();
    for _ in 0..2 {
        // The newcomer of the round before may not have been missed yet.
        let taken = upgrade(&proxy, &mut current);
        assert!((4..=5).contains(&taken), "{taken} clients");
        let after: Vec<i64> = clients.iter_mut().map(number).collect();
        assert_eq!(after, before, "a client keeps its number");
        assert!(age(&mut clients[0]) >= 2, "and its age: {}", row(&mut clients[0]));
        let mut newcomer = proxy.client();
        let id = number(&mut newcomer);
        assert!(!before.contains(&id), "{id} is taken by one of {before:?}");
    }
    // By its old number it is found by the worker that has it now.
    let kill = ["CLIENT", "KILL", "ID", &before[1].to_string()].map(str::to_owned);
    assert_eq!(clients[0].ask(&kill), Reply::Integer(1));
    assert!(clients[1].try_ask(&["PING"]).is_err());
}

fn what_the_operator_has_drained_stays_drained(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let dead = Place::Tcp(([127, 0, 0, 1], 1).into());
    let other = support::free_port();
    let line = redis.line("a");
    let lines = format!(
        "  redis: true\n  servers:\n{line}\n{}\nbeta:\n  listen: 127.0.0.1:{other}\n  redis: \
         true\n  servers:\n{line}",
        support::lab::server_line(&dead, "dead")
    );
    let proxy = Proxy::start(runtime, &lines);
    let command = |words: &[&str]| {
        let output = proxy.scratch.run("ringkeeper", words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    };
    command(&["drain", "server", "alpha", "dead"]);
    command(&["drain", "pool", "beta"]);
    let at = Place::Tcp(([127, 0, 0, 1], other).into());
    let is_as_it_was = || {
        assert!(Client::connect(&at).is_err(), "the pool takes no clients");
        let mut client = proxy.client();
        for number in 0..20 {
            let key = format!("k{number}");
            assert_eq!(client.ask(&["SET", &key, "v"]), Reply::ok(), "one server has all keys");
        }
    };
    is_as_it_was();
    let mut current = Successor::default();
    for _ in 0..2 {
        upgrade(&proxy, &mut current);
        is_as_it_was();
    }
    command(&["undrain", "pool", "beta"]);
    assert_eq!(Client::connect(&at).unwrap().ask(&["GET", "k1"]), Reply::bulk("v"));
}

/// Puts a descriptor where service managers put them, and becomes another program.
const GIVE: &str = "
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')
os.execv(sys.argv[2], sys.argv[2:])
";

/// As a service manager does that keeps the port open while nobody serves it.
fn listening_sockets_of_the_service_manager_are_used(runtime: Runtime) {
    need!("redis-server", "python3");
    let redis = Redis::start();
    let opened = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = opened.local_addr().unwrap();
    let mut early = Client::connect(&Place::Tcp(at)).unwrap();
    early.send(&request(&["SET", "k", "v"])).unwrap();
    rustix::io::fcntl_setfd(&opened, rustix::io::FdFlags::empty()).unwrap();
    let scratch = support::Scratch::new();
    let text = format!("a:\n  listen: {at}\n  redis: true\n  servers:\n{}\n", redis.line("a"));
    scratch.write("a.yml", &text);
    let mut command = std::process::Command::new(support::lab::program("python3").unwrap());
    command.args(["-c", GIVE, &opened.as_raw_fd().to_string()]).arg(scratch.path("ringkeeper"));
    command.args(["run", "-c", "a.yml", "--stats-port", "0", "--runtime", runtime.name()]);
    command.current_dir(scratch.path("")).env("RUNTIME_DIRECTORY", scratch.path(""));
    command.stderr(std::fs::File::create(scratch.path("stderr")).unwrap());
    let mut process = support::Process::new(command.spawn().unwrap());
    drop(opened);
    assert_eq!(early.reply().unwrap(), Reply::ok(), "it had connected before anybody served");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0), "{}", scratch.read("stderr"));
}

fn a_process_that_can_not_serve_does_not_take_over(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let lines = format!("  redis: true\n  servers:\n{}", redis.line("a"));
    let mut proxy = Proxy::start(runtime, &lines);
    let mut client = proxy.client();
    assert_eq!(client.ask(&["SET", "k", "v"]), Reply::ok());
    let good = proxy.scratch.read("alpha.yml");
    proxy.scratch.write("alpha.yml", "alpha:\n  hash: sha1\n");
    let output = proxy.scratch.run("ringkeeper", &["upgrade"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no other process takes over"), "{}", stderr(&output));
    assert_eq!(proxy.process.status(), None);
    assert_eq!(client.ask(&["GET", "k"]), Reply::bulk("v"));
    assert_eq!(proxy.client().ask(&["GET", "k"]), Reply::bulk("v"));
    proxy.scratch.write("alpha.yml", &good);
    let mut current = Successor::default();
    assert_eq!(upgrade(&proxy, &mut current), 1);
    assert_eq!(client.ask(&["GET", "k"]), Reply::bulk("v"));
    current.signal(Signal::TERM);
    assert_eq!(client.all_within(Duration::from_secs(20)), " <CLOSED>");
}
