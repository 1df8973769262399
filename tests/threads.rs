//! Several workers, each on a thread of its own.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;

use support::eventually;
use support::lab::{Kind, Proxy, Redis, Runtime};
use support::resp::{Client, Place, Reply};

on_every_runtime!(
    four_clients_on_two_workers_are_two_each,
    four_clients_of_a_unix_socket_on_two_workers_are_two_each,
    clients_that_go_make_room_on_their_worker,
    the_limit_of_clients_is_that_of_all_workers_together,
    #[cfg(target_os = "linux")]
    a_worker_that_does_not_turn_is_reported_and_the_others_serve,
);

/// Tells over which connection each key came to the server: each worker has its own.
fn connections_of(redis: &Redis, clients: &mut [Client], round: &str) -> Vec<String> {
    let mut monitor = redis.client();
    assert_eq!(monitor.ask(&["MONITOR"]), Reply::ok());
    let mut from = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        let key = format!("{round}-{number}");
        client.ask(&["GET", &key]);
        // `1700000000.000000 [0 127.0.0.1:4711] "GET" "key"`
        let line = loop {
            let line = monitor.reply().unwrap().text();
            if line.contains(&key) {
                break line;
            }
        };
        let address = line.split(['[', ']']).nth(1).unwrap();
        from.push(address.split(' ').nth(1).unwrap().to_owned());
    }
    from
}

/// Counts how often each appears, fewest first.
fn counts(from: &[String]) -> Vec<usize> {
    let mut counts = BTreeMap::new();
    for one in from {
        *counts.entry(one).or_insert(0) += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    counts
}

fn pool(redis: &Redis, more: &str) -> String {
    format!("  redis: true\n{more}  servers:\n{}", redis.line("a"))
}

fn four_clients_on_two_workers_are_two_each(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let proxy = Proxy::start_as(Kind::Threaded(runtime, 2), &pool(&redis, ""));
    let mut clients = Vec::new();
    for each in [2, 4, 6] {
        clients.extend((0..4).map(|_| proxy.client()));
        let from = connections_of(&redis, &mut clients, &format!("r{each}"));
        assert_eq!(counts(&from), [each, each], "{from:?}");
    }
}

fn four_clients_of_a_unix_socket_on_two_workers_are_two_each(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let folder = support::Scratch::new();
    let place = Place::Unix(folder.path("alpha.sock"));
    let kind = Kind::Threaded(runtime, 2);
    let proxy = Proxy::try_start(kind, place, "0666", &pool(&redis, "")).unwrap();
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    let from = connections_of(&redis, &mut clients, "unix");
    assert_eq!(counts(&from), [2, 2], "{from:?}");
}

fn clients_that_go_make_room_on_their_worker(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let proxy = Proxy::start_as(Kind::Threaded(runtime, 2), &pool(&redis, ""));
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    let from = connections_of(&redis, &mut clients, "first");
    let one = from[0].clone();
    // Everybody on one worker leaves; as many newcomers take their places.
    let mut number = 0;
    clients.retain(|_| {
        number += 1;
        from[number - 1] != one
    });
    assert_eq!(clients.len(), 3);
    eventually("the worker has noticed", || {
        let mut all: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
        let from = connections_of(&redis, &mut all, "again");
        from.iter().all(|address| *address == one).then_some(())
    });
}

fn the_limit_of_clients_is_that_of_all_workers_together(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let lines = pool(&redis, "  client_connections: 5\n");
    let proxy = Proxy::start_as(Kind::Threaded(runtime, 2), &lines);
    let mut clients: Vec<Client> = (0..5).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask(&["PING"]), Reply::Simple("PONG".to_owned()));
    }
    for _ in 0..5 {
        let mut late = proxy.client();
        assert!(late.try_ask(&["PING"]).is_err(), "the sixth is refused");
    }
    clients.pop();
    eventually("there is room again", || proxy.client().try_ask(&["PING"]).ok());
}

/// Stops one thread of a process, until it is told to go on.
#[cfg(target_os = "linux")]
const FREEZE: &str = include_str!("support/freeze.py");

#[cfg(target_os = "linux")]
fn a_worker_that_does_not_turn_is_reported_and_the_others_serve(runtime: Runtime) {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    need!("redis-server", "python3");
    let redis = Redis::start();
    let proxy = Proxy::start_as(Kind::Threaded(runtime, 2), &pool(&redis, ""));
    let mut clients: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask(&["SET", "k", "v"]), Reply::ok());
    }
    let tasks = format!("/proc/{}/task", proxy.process.id());
    let thread = std::fs::read_dir(tasks).unwrap().find_map(|task| {
        let task = task.unwrap();
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        (name.trim() == "rk-data-1").then(|| task.file_name().into_string().unwrap())
    });
    let mut command = Command::new(support::lab::program("python3").unwrap());
    command.args(["-c", FREEZE, &thread.unwrap()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut freezer = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(freezer.stdout.take().unwrap()).read_line(&mut said).unwrap();
    if said.starts_with("refused") {
        freezer.wait().unwrap();
        support::lab::skip(&format!("a thread can't be stopped: {said}"));
        return;
    }
    proxy.scratch.wait_for("stderr", "a worker does not turn");
    // Newcomers get a worker that turns, however many it has.
    for _ in 0..6 {
        let mut client = proxy.client();
        assert_eq!(client.ask(&["GET", "k"]), Reply::bulk("v"));
        clients.push(client);
    }
    let log = proxy.scratch.read("stderr");
    assert!(log.contains("worker=1") && log.contains("stalled_ms="), "{log}");
    drop(freezer.stdin.take());
    assert!(freezer.wait().unwrap().success());
    proxy.scratch.wait_for("stderr", "the worker turns again");
    for client in &mut clients {
        assert_eq!(client.ask(&["GET", "k"]), Reply::bulk("v"));
    }
    let quiet = clients[0].all_within(std::time::Duration::from_millis(1));
    assert_eq!(quiet, "");
}
