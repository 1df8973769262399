//! A pool that is the only server of a virtual address listens there itself.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustix::process::Signal;
use support::lab::{Redis, Runtime};
use support::resp::{Client, Place, Reply};
use support::{Process, Scratch, Successor, eventually, free_port, free_port_on};

/// The program with a pool and a virtual server for it.
struct Lab {
    scratch: Scratch,
    process: Process,
    pool: SocketAddr,
    at: SocketAddr,
    admin: SocketAddr,
}

impl Lab {
    fn start(runtime: Runtime, redis: &Redis) -> Self {
        Self::start_with(runtime, redis, "")
    }

    /// Starts it, `extra` being said of the virtual server.
    fn start_with(runtime: Runtime, redis: &Redis, extra: &str) -> Self {
        Self::start_as(runtime, redis, extra, ("", "1"))
    }

    /// Starts it with so many workers, `limit` being said of the pool.
    fn start_as(
        runtime: Runtime,
        redis: &Redis,
        extra: &str,
        (limit, threads): (&str, &str),
    ) -> Self {
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let pool = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let virtual_ip = [127, 0, 0, 77];
        let at = SocketAddr::from((virtual_ip, free_port_on(virtual_ip.into())));
        let scratch = Scratch::new();
        let lines = redis.line("one");
        scratch.write(
            "nutcracker.yml",
            &format!("alpha:\n  listen: {pool}\n  redis: true\n{limit}  servers:\n{lines}\n"),
        );
        scratch.write("keepalived.conf", &keepalived(at, pool, extra));
        let place = admin.to_string();
        let arguments = [
            "run",
            "--nutcracker",
            "nutcracker.yml",
            "--keepalived",
            "keepalived.conf",
            "--control",
            "control",
            "--admin",
            &place,
            "--runtime",
            runtime.name(),
            "--threads",
            threads,
        ];
        let process = scratch.start("ringkeeper", &arguments);
        let lab = Self { scratch, process, pool, at, admin };
        eventually("the virtual address", || TcpStream::connect(at).ok());
        lab
    }

    fn client(&self) -> Client {
        Client::connect(&Place::Tcp(self.at)).unwrap()
    }

    /// Reads the files again, `extra` being said of the virtual server; waits until a relay is
    /// there or not.
    fn reload(&self, extra: &str, is_relayed: bool) {
        self.scratch.write("keepalived.conf", &keepalived(self.at, self.pool, extra));
        self.process.signal(Signal::HUP);
        eventually("who serves the address", || (self.is_relayed() == is_relayed).then_some(()));
    }

    fn log(&self) -> String {
        self.scratch.read("stderr")
    }

    /// Returns whether the pool has no socket of its own on the virtual address.
    fn is_relayed(&self) -> bool {
        let log = self.log();
        let own = log.rfind(&format!("listening pool=\"alpha\" address={}", self.at));
        log.rfind("clients are relayed") > own
    }

    fn threads(&self) -> BTreeSet<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
        tasks.flatten().filter_map(name).map(|name| name.trim_end().to_owned()).collect()
    }

    fn page(&self, path: &str) -> String {
        let mut stream = eventually("the admin listener", || TcpStream::connect(self.admin).ok());
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn command(&self, words: &[&str]) -> String {
        let words: Vec<&str> = words.iter().copied().chain(["--control", "control"]).collect();
        let output = self.scratch.run("ringkeeper", &words);
        assert!(output.status.success(), "{}", support::stderr(&output));
        support::stdout(&output)
    }
}

fn keepalived(at: SocketAddr, pool: SocketAddr, extra: &str) -> String {
    format!(
        "virtual_server {} {} {{\n delay_loop 3\n lb_algo rr\n lb_kind NAT\n persistence_timeout \
         50\n protocol TCP\n {extra}\n real_server {} {} {{\n TCP_CHECK{{\n connect_timeout 3\n \
         retry 3\n delay_before_retry 3\n }}\n }}\n}}\n",
        at.ip(),
        at.port(),
        pool.ip(),
        pool.port()
    )
}

/// Connects again and again.
struct Caller {
    is_over: Arc<AtomicBool>,
    refused: Arc<AtomicU32>,
    count: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Caller {
    fn start(at: SocketAddr) -> Self {
        let (refused, count) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let is_over = Arc::new(AtomicBool::new(false));
        let shared = (Arc::clone(&is_over), Arc::clone(&refused), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            let (is_over, refused, count) = shared;
            while !is_over.load(Ordering::SeqCst) {
                if TcpStream::connect(at).is_err() {
                    refused.fetch_add(1, Ordering::SeqCst);
                }
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        Self { is_over, refused, count, thread: Some(thread) }
    }

    /// Ends after a few connections more; nobody was refused.
    fn judge(&self) {
        let before = self.count.load(Ordering::SeqCst);
        eventually("more clients", || {
            (self.count.load(Ordering::SeqCst) > before + 5).then_some(())
        });
        let count = self.count.load(Ordering::SeqCst);
        assert_eq!(self.refused.load(Ordering::SeqCst), 0, "of {count}");
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

on_every_runtime!(
    a_pool_has_the_virtual_address_itself_and_no_thread_is_started_for_it,
    a_reload_changes_who_serves_the_address_and_nobody_is_refused,
    a_drained_pool_is_gone_from_the_virtual_address_too,
    figures_of_a_relayed_server_are_shown,
    an_upgrade_passes_the_virtual_address_on_whoever_serves_it,
    clients_of_both_addresses_count_against_one_limit,
);

fn clients_of_both_addresses_count_against_one_limit(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    for threads in ["1", "2"] {
        let limit = ("  client_connections: 2\n", threads);
        let lab = Lab::start_as(runtime, &redis, "", limit);
        let served = |at: SocketAddr| {
            eventually("room for a client", || {
                let mut client = Client::connect(&Place::Tcp(at)).ok()?;
                (client.try_ask(&["SET", "a", "1"]).ok()? == Reply::ok()).then_some(client)
            })
        };
        // Whoever looked whether the address is served may not have left yet.
        let _first = served(lab.pool);
        let second = served(lab.at);
        let third = |at: SocketAddr| Client::connect(&Place::Tcp(at)).unwrap().is_ended();
        assert!(third(lab.at) && third(lab.pool), "{threads} workers");
        drop(second);
        let _other = served(lab.pool);
        assert!(third(lab.at), "{threads} workers");
    }
}

fn a_pool_has_the_virtual_address_itself_and_no_thread_is_started_for_it(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let lab = Lab::start(runtime, &redis);
    let mut client = lab.client();
    assert_eq!(client.ask(&["SET", "a", "1"]), Reply::ok());
    assert_eq!(redis.client().ask(&["GET", "a"]), Reply::bulk("1"));
    let threads = lab.threads();
    assert!(!threads.contains("rk-balance") && !threads.contains("rk-vrrp"), "{threads:?}");
    assert!(!lab.log().contains("memory is"), "{}", lab.log());
}

fn a_reload_changes_who_serves_the_address_and_nobody_is_refused(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let lab = Lab::start(runtime, &redis);
    let mut old = lab.client();
    assert_eq!(old.ask(&["SET", "a", "1"]), Reply::ok());
    let caller = Caller::start(lab.at);
    for _ in 0..3 {
        lab.reload("sorry_server 127.0.0.1 9", true);
        assert_eq!(old.ask(&["GET", "a"]), Reply::bulk("1"), "a client of the pool stays");
        assert_eq!(lab.client().ask(&["GET", "a"]), Reply::bulk("1"));
        lab.reload("", false);
        // Those that are on their way to the relay are lost with it.
        eventually("the pool itself", || {
            let mut client = Client::connect(&Place::Tcp(lab.at)).ok()?;
            (client.try_ask(&["GET", "a"]).ok()? == Reply::bulk("1")).then_some(())
        });
    }
    caller.judge();
    assert_eq!(old.ask(&["GET", "a"]), Reply::bulk("1"));
}

fn a_drained_pool_is_gone_from_the_virtual_address_too(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let lab = Lab::start(runtime, &redis);
    lab.command(&["drain", "pool", "alpha"]);
    eventually("nobody there", || TcpStream::connect(lab.at).err());
    assert!(TcpStream::connect(lab.pool).is_err());
    lab.command(&["undrain", "pool", "alpha"]);
    eventually("the pool again", || TcpStream::connect(lab.at).ok());
    assert_eq!(lab.client().ask(&["SET", "a", "1"]), Reply::ok());
}

fn figures_of_a_relayed_server_are_shown(runtime: Runtime) {
    need!("redis-server", "promtool");
    let redis = Redis::start();
    let lab = Lab::start_with(runtime, &redis, "sorry_server 127.0.0.1 9");
    let mut client = lab.client();
    assert_eq!(client.ask(&["SET", "a", "1"]), Reply::ok());
    let service = format!("virtual_server=\"{}\"", lab.at);
    let server = |at: &str, role: &str| format!("{{{service},server=\"{at}\",role=\"{role}\"}}");
    let real = server(&lab.pool.to_string(), "real");
    let wanted = [
        format!("ringkeeper_balance_quorate{{{service}}} 1"),
        format!("ringkeeper_balance_sorry{{{service}}} 0"),
        format!("ringkeeper_balance_server_up{real} 1"),
        format!("ringkeeper_balance_server_weight{real} 1"),
        format!("ringkeeper_balance_connections{real} 1"),
        // What SET and its answer have.
        format!("ringkeeper_balance_received_bytes_total{real} 27"),
        format!("ringkeeper_balance_sent_bytes_total{real} 5"),
        format!("ringkeeper_balance_connections{} 0", server("127.0.0.1:9", "sorry")),
    ];
    let text = eventually("the figures", || {
        let text = lab.page("/metrics");
        let has = |line: &String| text.lines().any(|known| known == line);
        wanted.iter().all(has).then_some(text)
    });
    let mut judge = std::process::Command::new("promtool");
    judge.args(["check", "metrics"]).stdin(std::process::Stdio::piped());
    let mut judge = judge.stdout(std::process::Stdio::piped()).spawn().unwrap();
    judge.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = judge.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", support::stdout(&output));
    let status: serde_json::Value = serde_json::from_str(&lab.page("/status.json")).unwrap();
    let shown = &status["virtual_servers"][0];
    assert_eq!(shown["name"], lab.at.to_string());
    assert_eq!(shown["servers"][0]["address"], lab.pool.to_string());
    assert_eq!(shown["servers"][0]["is_up"], true);
    assert_eq!(shown["servers"][1]["is_for_bad_times"], true);
    // A second after the end of the connection nothing is left of it.
    drop(client);
    eventually("no connection", || {
        let line = format!("ringkeeper_balance_connections{real} 0");
        lab.page("/metrics").lines().any(|known| known == line).then_some(())
    });
}

fn an_upgrade_passes_the_virtual_address_on_whoever_serves_it(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    for (extra, is_relayed) in [("", false), ("sorry_server 127.0.0.1 9", true)] {
        let mut lab = Lab::start_with(runtime, &redis, extra);
        let mut old = lab.client();
        assert_eq!(old.ask(&["SET", "a", "1"]), Reply::ok());
        let caller = Caller::start(lab.at);
        let mut successor = Successor::default();
        successor.take(&lab.command(&["upgrade"]));
        lab.process.wait();
        caller.judge();
        assert_eq!(lab.client().ask(&["GET", "a"]), Reply::bulk("1"));
        // A relay has a state that cannot be passed on.
        if !is_relayed {
            assert_eq!(old.ask(&["GET", "a"]), Reply::bulk("1"));
        }
    }
}
