//! Quorums of our Sentinels and genuine ones whose packets are lost in one direction or both, in
//! network namespaces: one master in the end, all agree, and the files say so.
//!
//! `RINGKEEPER_PARTITIONS=all` tries every number of genuine Sentinels, and quorums of five.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::lab::{Runtime, program};
use support::net::Net;
use support::{Process, Scratch};

on_every_runtime!(
    a_master_that_nobody_hears_is_replaced_and_follows_when_it_is_heard_again,
    a_master_that_hears_and_is_not_heard_is_replaced,
    one_sentinel_alone_that_does_not_hear_the_master_replaces_nobody,
);

/// What the master is called.
const NAME: &str = "mymaster";

/// Hosts with a server; the first begins as the master.
const SERVERS: usize = 3;

/// How long anything may take: a genuine Sentinel looks for a lost connection for 15 s, and asks
/// for INFO each 10 s.
const PATIENCE: Duration = Duration::from_secs(90);

/// Silence after which a master is down; see `sentinel_quorum.rs` for why it is that long.
const DOWN_AFTER_MS: u32 = 3000;

/// Servers and Sentinels on hosts of their own.
struct Field {
    // They end before their hosts.
    processes: Vec<Process>,
    scratch: Scratch,
    hosts: usize,
    net: Net,
}

impl Field {
    /// Starts everything, the last `genuine` Sentinels being genuine, and waits until all know all.
    fn start(runtime: Runtime, hosts: usize, genuine: usize) -> Option<Self> {
        let net = Net::make(hosts)?;
        let mut field = Self { processes: Vec::new(), scratch: Scratch::new(), hosts, net };
        for host in 0..SERVERS {
            field.serve(host);
        }
        // Sentinels ask for INFO each 10 s; the first answer is to name all replicas.
        field.wait("the replicas follow", |field| {
            field.role(0).contains(&format!("connected_slaves:{}", SERVERS - 1))
        });
        for host in 0..hosts {
            let is_genuine = host >= hosts - genuine;
            field.watch(host, (!is_genuine).then_some(runtime));
        }
        field.wait("all know all", |field| {
            (0..hosts).all(|host| {
                field.field(host, "num-slaves") == (SERVERS - 1).to_string()
                    && field.field(host, "num-other-sentinels") == (hosts - 1).to_string()
                    && field.field(host, "flags") == "master"
                    && field.ask(host, &["SENTINEL", "CKQUORUM", NAME]).starts_with("OK")
            })
        });
        Some(field)
    }

    fn spawn(&mut self, host: usize, name: &str, program: &str, words: &[&str], runtime: &str) {
        let log = File::create(self.scratch.path(&format!("{name}{host}.log"))).unwrap();
        let mut command = self.net.command(host, program);
        command.args(words).current_dir(self.scratch.path("")).env("RINGKEEPER_RUNTIME", runtime);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.processes.push(Process::new(command.spawn().unwrap()));
    }

    fn serve(&mut self, host: usize) {
        let server = self.scratch.path("redis-server");
        if !server.exists() {
            let genuine = program("redis-server").or_else(|| program("redis-check-rdb")).unwrap();
            std::os::unix::fs::symlink(genuine, &server).unwrap();
        }
        let mut words = vec!["--port", "6379", "--save", "", "--protected-mode", "no"];
        words.extend(["--repl-diskless-sync-delay", "0"]);
        let master = Net::address(0);
        if host > 0 {
            words.extend(["--replicaof", &master, "6379"]);
        }
        self.spawn(host, "server", &server.display().to_string(), &words, "");
    }

    fn watch(&mut self, host: usize, runtime: Option<Runtime>) {
        let file = format!("s{host}.conf");
        let quorum = self.hosts / 2 + 1;
        let text = format!(
            "port 26379\nprotected-mode no\nsentinel monitor {NAME} {} 6379 {quorum}\nsentinel \
             down-after-milliseconds {NAME} {DOWN_AFTER_MS}\nsentinel failover-timeout {NAME} 6000\n",
            Net::address(0)
        );
        self.scratch.write(&file, &text);
        let binary = match runtime {
            Some(_) => self.scratch.path("redis-sentinel"),
            None => program("redis-sentinel").unwrap(),
        };
        let binary = binary.display().to_string();
        self.spawn(host, "sentinel", &binary, &[&file], runtime.map_or("", Runtime::name));
    }

    fn cli(&self, host: usize, port: &str, words: &[&str]) -> String {
        let all = [&["5", "redis-cli", "-p", port][..], words].concat();
        self.net.run(host, "timeout", &all).trim().to_owned()
    }

    fn ask(&self, host: usize, words: &[&str]) -> String {
        self.cli(host, "26379", words)
    }

    fn field(&self, host: usize, name: &str) -> String {
        let text = self.ask(host, &["SENTINEL", "MASTER", NAME]);
        let mut lines = text.lines();
        lines.find(|line| *line == name);
        lines.next().unwrap_or_default().to_owned()
    }

    /// Returns which host a Sentinel says has the master.
    fn master(&self, host: usize) -> Option<usize> {
        let text = self.ask(host, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
        let address = text.lines().next().unwrap_or_default().to_owned();
        (0..SERVERS).find(|host| Net::address(*host) == address)
    }

    fn role(&self, host: usize) -> String {
        self.cli(host, "6379", &["INFO", "replication"])
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            let logs = || {
                let log = |host| self.scratch.read(&format!("sentinel{host}.log"));
                (0..self.hosts).map(log).collect::<Vec<_>>().join("\n---\n")
            };
            assert!(start.elapsed() < PATIENCE, "waited in vain: {what}; {}", logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until all of some Sentinels say that the same server, which is not the first, is the
    /// master; returns it.
    fn switched(&self, hosts: &[usize]) -> usize {
        let agreed = |field: &Self| {
            let masters: BTreeSet<_> = hosts.iter().map(|host| field.master(*host)).collect();
            let only = masters.first().copied().flatten().filter(|host| *host != 0);
            only.filter(|_| masters.len() == 1)
        };
        self.wait("they switch", |field| agreed(field).is_some());
        agreed(self).unwrap()
    }

    /// Waits until there is one master, everybody follows it and every Sentinel says so, also in
    /// its file.
    fn settled(&self) {
        let all: Vec<usize> = (0..self.hosts).collect();
        let new = self.switched(&all);
        let follows = format!("master_host:{}", Net::address(new));
        self.wait("one master, and all others follow it", |field| {
            (0..SERVERS).all(|host| {
                let role = field.role(host);
                let is_linked = role.contains(&follows) && role.contains("master_link_status:up");
                if host == new { role.contains("role:master") } else { is_linked }
            })
        });
        self.wait("all agree, and nobody is down", |field| {
            let epochs: BTreeSet<String> =
                all.iter().map(|host| field.field(*host, "config-epoch")).collect();
            let is_well = |host: &usize| {
                field.master(*host) == Some(new) && field.field(*host, "flags") == "master"
            };
            epochs.len() == 1 && all.iter().all(is_well)
        });
        let epoch = self.field(0, "config-epoch");
        for host in all {
            let file = self.scratch.read(&format!("s{host}.conf"));
            let quorum = self.hosts / 2 + 1;
            let place = format!("sentinel monitor {NAME} {} 6379 {quorum}", Net::address(new));
            let since = format!("sentinel config-epoch {NAME} {epoch}");
            for line in [&place, &since] {
                assert!(file.lines().any(|known| known.trim() == line), "{line} in {file}");
            }
            let checked = self.scratch.run("ringkeeper", &["check", &format!("s{host}.conf")]);
            assert!(support::stdout(&checked).contains(": ok"), "{}", support::stdout(&checked));
        }
    }
}

/// Returns quorums and how many of each are genuine.
fn fleets(first: (usize, usize)) -> Vec<(usize, usize)> {
    let wants_all = std::env::var("RINGKEEPER_PARTITIONS").is_ok_and(|word| word == "all");
    let all = [3, 5].into_iter().flat_map(|hosts| (1..hosts).map(move |genuine| (hosts, genuine)));
    if wants_all { all.collect() } else { vec![first] }
}

fn a_master_that_nobody_hears_is_replaced_and_follows_when_it_is_heard_again(runtime: Runtime) {
    need!("redis-server", "redis-sentinel", "redis-cli", "ip", "iptables");
    for (hosts, genuine) in fleets((3, 1)) {
        let Some(field) = Field::start(runtime, hosts, genuine) else { return };
        for other in 1..hosts {
            field.net.lose(0, other);
            field.net.lose(other, 0);
        }
        let others: Vec<usize> = (1..hosts).collect();
        let new = field.switched(&others);
        // Whoever is alone elects nobody.
        assert_eq!(field.master(0), Some(0));
        field.net.heal();
        field.settled();
        assert_eq!(field.master(0), Some(new));
    }
}

fn a_master_that_hears_and_is_not_heard_is_replaced(runtime: Runtime) {
    need!("redis-server", "redis-sentinel", "redis-cli", "ip", "iptables");
    for (hosts, genuine) in fleets((3, 2)) {
        let Some(field) = Field::start(runtime, hosts, genuine) else { return };
        (1..hosts).for_each(|other| field.net.lose(0, other));
        let others: Vec<usize> = (1..hosts).collect();
        field.switched(&others);
        field.net.heal();
        field.settled();
    }
}

fn one_sentinel_alone_that_does_not_hear_the_master_replaces_nobody(runtime: Runtime) {
    need!("redis-server", "redis-sentinel", "redis-cli", "ip", "iptables");
    for (hosts, genuine) in fleets((5, 2)) {
        let Some(field) = Field::start(runtime, hosts, genuine) else { return };
        // Host 3 has no server: it only watches.
        let deaf = hosts.min(4) - 1;
        field.net.lose(0, deaf);
        field.wait("it counts the master as down", |field| {
            field.field(deaf, "flags").contains("s_down")
        });
        assert!(!field.field(deaf, "flags").contains("o_down"));
        field.net.heal();
        field.wait("it hears it again", |field| field.field(deaf, "flags") == "master");
        for host in 0..hosts {
            assert_eq!(field.master(host), Some(0));
            assert_eq!(field.field(host, "config-epoch"), "0");
            let log = field.scratch.read(&format!("sentinel{host}.log"));
            assert!(!log.contains("+try-failover"), "{log}");
        }
    }
}
