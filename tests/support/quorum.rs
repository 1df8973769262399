//! A replicated Redis and the Sentinels that watch it, genuine ones and ours.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::lab::{Redis, Runtime, program};
use super::resp::{Client, Place, Reply};
use super::{Process, Scratch, eventually};

/// What the master is called.
pub const NAME: &str = "mymaster";

/// Whose Sentinel it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Ours(Runtime),
    Genuine,
}

/// One Sentinel.
pub struct Watcher {
    pub make: Make,
    pub place: Place,
    pub scratch: Scratch,
    process: Option<Process>,
}

impl Watcher {
    /// Writes a file that watches `master` and starts the Sentinel; `lines` are added to it.
    pub fn start(make: Make, master: &Redis, quorum: usize, lines: &str) -> Self {
        Self::start_at(make, master.place.port(), quorum, lines)
    }

    /// The same for the master at a port.
    pub fn start_at(make: Make, port: u16, quorum: usize, lines: &str) -> Self {
        let place = Place::Tcp(super::lab::free_address(Ipv4Addr::LOCALHOST.into()));
        let scratch = Scratch::new();
        let text = format!(
            "port {}\nbind 127.0.0.1\nsentinel monitor {NAME} 127.0.0.1 {port} {quorum}\n{lines}\n",
            place.port()
        );
        scratch.write("sentinel.conf", &text);
        let mut watcher = Self { make, place, scratch, process: None };
        watcher.run();
        watcher
    }

    /// Starts the Sentinel, or starts it again, with its file as it is.
    pub fn run(&mut self) {
        let mut command = match self.make {
            Make::Ours(runtime) => {
                let mut command = Command::new(self.scratch.path("redis-sentinel"));
                command.env("RINGKEEPER_RUNTIME", runtime.name());
                command
            }
            Make::Genuine => Command::new(program("redis-sentinel").unwrap()),
        };
        // What a killed process had open may be closed a moment after its end.
        let Place::Tcp(at) = &self.place else { panic!("Sentinels listen on TCP") };
        eventually("the port is free", || std::net::TcpListener::bind(at).ok());
        let log = fs::OpenOptions::new().create(true).append(true).open(self.scratch.path("log"));
        let log = log.unwrap();
        command.arg("sentinel.conf").current_dir(self.scratch.path("")).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(Process::new(command.spawn().unwrap()));
        eventually(&format!("a Sentinel answers: {}", self.scratch.read("log")), || {
            Client::connect(&self.place).ok()?.try_ask(&["PING"]).ok()
        });
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    pub fn id(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// Returns the exit status, none while it runs.
    pub fn status(&mut self) -> Option<std::process::ExitStatus> {
        self.process.as_mut().unwrap().status()
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.place).unwrap()
    }

    pub fn ask(&self, words: &[&str]) -> Reply {
        self.client().ask(words)
    }

    /// Returns the port where it says that the master is.
    pub fn master_port(&self) -> u16 {
        let reply = self.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
        reply.items()[1].text().parse().unwrap()
    }

    /// Returns a field of SENTINEL MASTER.
    pub fn field(&self, name: &str) -> String {
        let reply = self.ask(&["SENTINEL", "MASTER", NAME]);
        let items = reply.items();
        let at = items.iter().position(|item| item.text() == name);
        at.map(|at| items[at + 1].text()).unwrap_or_default()
    }

    pub fn file(&self) -> String {
        self.scratch.read("sentinel.conf")
    }

    pub fn log(&self) -> String {
        self.scratch.read("log")
    }
}

/// A master with replicas, and Sentinels.
pub struct Quorum {
    pub servers: Vec<Redis>,
    pub watchers: Vec<Watcher>,
}

impl Quorum {
    /// Starts everything and waits until all know all. The first server is the master.
    pub fn start(makes: &[Make], down_after_ms: u32) -> Self {
        Self::start_with(makes, 2, down_after_ms, "")
    }

    pub fn start_with(makes: &[Make], replicas: usize, down_after_ms: u32, lines: &str) -> Self {
        let servers = start_servers(replicas);
        let lines = format!(
            "sentinel down-after-milliseconds {NAME} {down_after_ms}\n\
             sentinel failover-timeout {NAME} 6000\n{lines}"
        );
        let quorum = makes.len() / 2 + 1;
        let watchers: Vec<Watcher> =
            makes.iter().map(|make| Watcher::start(*make, &servers[0], quorum, &lines)).collect();
        let all = Self { servers, watchers };
        all.wait_until_complete();
        all
    }

    /// Waits until every Sentinel knows every replica and every other Sentinel.
    pub fn wait_until_complete(&self) {
        let (replicas, others) = (self.servers.len() - 1, self.watchers.len() - 1);
        for watcher in &self.watchers {
            eventually("all are known", || {
                let knows = watcher.field("num-slaves") == replicas.to_string()
                    && watcher.field("num-other-sentinels") == others.to_string();
                let usable = watcher.ask(&["SENTINEL", "CKQUORUM", NAME]);
                let all = format!("OK {} usable", others + 1);
                let agree = usable.text().starts_with(&all) && watcher.field("flags") == "master";
                (knows && agree).then_some(())
            });
        }
    }

    /// Waits until every Sentinel sends clients to the same server, which is not the one at
    /// `old`; returns its position and how long it took.
    pub fn wait_for_switch(&self, old: u16) -> (usize, Duration) {
        let start = Instant::now();
        let port = eventually(&format!("all switch; {}", self.logs()), || {
            let ports: Vec<u16> = self.watchers.iter().map(Watcher::master_port).collect();
            let first = ports[0];
            (first != old && ports.iter().all(|port| *port == first)).then_some(first)
        });
        let took = start.elapsed();
        let is_it = |server: &Redis| server.place.port() == port;
        (self.servers.iter().position(is_it).unwrap(), took)
    }

    /// Waits until one server is the master, the others that run follow it, and every Sentinel
    /// sees it so.
    pub fn wait_until_settled(&self, master: usize) {
        let port = self.servers[master].place.port();
        let follows = format!("master_port:{port}\r\nmaster_link_status:up");
        for (at, server) in self.servers.iter().enumerate() {
            eventually(&format!("server {at} follows {port}; {}", self.logs()), || {
                // Connections to a server end when it changes sides.
                let reply = server.client().try_ask(&["INFO", "replication"]).ok()?;
                let text = reply.text();
                let is_master = text.contains("role:master");
                if at == master { is_master } else { text.contains(&follows) }.then_some(())
            });
        }
        for watcher in &self.watchers {
            eventually(&format!("all see it so; {}", self.logs()), || {
                let is_up = watcher.field("flags") == "master";
                (watcher.master_port() == port && is_up).then_some(())
            });
        }
    }

    /// Returns what all Sentinels logged.
    pub fn logs(&self) -> String {
        let all = self.watchers.iter().map(|w| format!("{:?}:\n{}", w.make, w.log()));
        all.collect::<Vec<_>>().join("\n")
    }

    /// Returns how many fail-overs came as far as a promotion. Of several who stand for election at
    /// once only one gets there.
    pub fn attempts(&self) -> usize {
        self.watchers.iter().map(|w| w.log().matches("+promoted-slave").count()).sum()
    }
}

/// Starts a master and its replicas, in step.
pub fn start_servers(replicas: usize) -> Vec<Redis> {
    let fast = ["--repl-diskless-sync-delay", "0"];
    let master = Redis::start_with(Ipv4Addr::LOCALHOST.into(), &fast);
    let port = master.place.port().to_string();
    let options = ["--replicaof", "127.0.0.1", &port, fast[0], fast[1]];
    let mut servers = vec![master];
    servers.extend((0..replicas).map(|_| Redis::start_with(Ipv4Addr::LOCALHOST.into(), &options)));
    for server in &servers[1..] {
        eventually("a replica is in step", || {
            let text = server.client().ask(&["INFO", "replication"]).text();
            text.contains("master_link_status:up").then_some(())
        });
    }
    servers
}
