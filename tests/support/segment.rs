//! Routers and a listener on a link of their own, in network namespaces.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::lab::{self, Runtime};
use super::resp::{Client, Place};
use super::{Process, Scratch, eventually};

/// Which host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The router of higher priority, 10.77.0.1.
    A,
    /// The other router, 10.77.0.2.
    B,
    /// A neighbour, 10.77.0.9.
    C,
}

impl Host {
    const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    const fn number(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
            Self::C => 9,
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
            Self::C => 'c',
        }
    }
}

/// Which program is the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This product, on a runtime.
    Ours(Runtime),
    /// The genuine keepalived.
    Genuine,
}

/// Hosts on one link, removed at the end.
pub struct Segment {
    prefix: String,
    pub scratch: Scratch,
    capture: Option<Process>,
}

fn ip(arguments: &str) -> std::process::Output {
    Command::new("ip").args(arguments.split_whitespace()).output().unwrap()
}

fn must(arguments: &str) {
    let output = ip(arguments);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {why}");
}

impl Segment {
    /// Makes the link; none, with the reason told, if this machine has no network namespaces.
    pub fn make() -> Option<Self> {
        Self::new().map_err(|why| lab::skip(&format!("no network namespaces: {why}"))).ok()
    }

    /// Makes the link, or tells why this machine cannot.
    fn new() -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("rk{}-{number}", std::process::id());
        let first = ip(&format!("netns add {prefix}x"));
        if !first.status.success() {
            return Err(String::from_utf8_lossy(&first.stderr).trim().to_owned());
        }
        let segment = Self { prefix, scratch: Scratch::new(), capture: None };
        let bridge = segment.prefix.clone() + "x";
        must(&format!(
            "-n {bridge} link add br0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0"
        ));
        must(&format!("-n {bridge} link set br0 up"));
        for host in Host::ALL {
            let (name, letter, number) = (segment.name(host), host.letter(), host.number());
            must(&format!("netns add {name}"));
            must(&format!("-n {name} link set lo up"));
            must(&format!("-n {bridge} link add p{letter} type veth peer name e0 netns {name}"));
            must(&format!("-n {bridge} link set p{letter} master br0 up"));
            segment.run(host, "sysctl -qw net.ipv6.conf.all.accept_dad=0");
            segment.run(host, "sysctl -qw net.ipv6.conf.e0.accept_dad=0");
            must(&format!("-n {name} link set e0 address 02:77:00:00:00:0{number}"));
            must(&format!("-n {name} addr add 10.77.0.{number}/24 dev e0"));
            must(&format!("-n {name} link set e0 up"));
        }
        // Link-local addresses come a moment after the interface.
        eventually("link-local addresses", || {
            let is_there = |&host: &Host| {
                let name = segment.name(host);
                let shown = ip(&format!("-n {name} -6 addr show dev e0 scope link"));
                let text = String::from_utf8_lossy(&shown.stdout).into_owned();
                text.contains("fe80") && !text.contains("tentative")
            };
            Host::ALL.iter().all(is_there).then_some(())
        });
        Ok(segment)
    }

    fn name(&self, host: Host) -> String {
        format!("{}{}", self.prefix, host.letter())
    }

    /// Prepares a program on a host.
    pub fn command(&self, host: Host, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(host), program]).stdin(Stdio::null());
        command
    }

    /// Runs a line of words on a host; returns what it prints.
    pub fn run(&self, host: Host, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.command(host, words.next().unwrap());
        let output = command.args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Connects from a host.
    pub fn connect(&self, host: Host, to: SocketAddr) -> Client {
        let namespace = File::open(format!("/run/netns/{}", self.name(host))).unwrap();
        // A socket stays where the thread that makes it was.
        let there = std::thread::spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            Client::connect(&Place::Tcp(to)).unwrap()
        });
        there.join().unwrap()
    }

    /// Starts a router with a configuration.
    pub fn start(&self, host: Host, kind: Kind, config: &str) -> Process {
        let letter = host.letter();
        let file = format!("{letter}.conf");
        self.scratch.write(&file, config);
        let path = |name: &str| self.scratch.path(name).display().to_string();
        let log = File::create(self.scratch.path(&format!("{letter}.log"))).unwrap();
        let mut command = match kind {
            Kind::Ours(runtime) => {
                let mut command = self.command(host, env!("CARGO_BIN_EXE_ringkeeper"));
                command.args(["run", "--runtime", runtime.name(), "--keepalived", &path(&file)]);
                command
            }
            Kind::Genuine => {
                let mut command = self.command(host, "keepalived");
                command.args(["-n", "-l", "-D", "-P", "-f", &path(&file)]);
                let (pid, child) = (format!("{letter}.pid"), format!("{letter}v.pid"));
                command.args(["-p", &path(&pid), "-r", &path(&child)]);
                command
            }
        };
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Process::new(command.spawn().unwrap())
    }

    /// Returns what a router has logged.
    pub fn log(&self, host: Host) -> String {
        self.scratch.read(&format!("{}.log", host.letter()))
    }

    /// Tells whether a host has an address.
    pub fn has(&self, host: Host, address: &str) -> bool {
        let shown = ip(&format!("-n {} -o addr show to {address}", self.name(host)));
        !shown.stdout.is_empty()
    }

    /// Waits until exactly one of the routers has the address; returns how long it took.
    pub fn wait_for(&self, host: Host, address: &str) -> Duration {
        let since = Instant::now();
        let other = if host == Host::A { Host::B } else { Host::A };
        eventually(&format!("{address} on {host:?} alone"), || {
            (self.has(host, address) && !self.has(other, address)).then_some(())
        });
        since.elapsed()
    }

    /// Cuts or joins a host's cable.
    pub fn set_cable(&self, host: Host, is_joined: bool) {
        let state = if is_joined { "up" } else { "down" };
        must(&format!("-n {}x link set p{} {state}", self.prefix, host.letter()));
    }

    /// Takes a host's interface away, or gives it one as it was.
    pub fn replace_cable(&self, host: Host, is_there: bool) {
        let (name, letter, number) = (self.name(host), host.letter(), host.number());
        let bridge = format!("{}x", self.prefix);
        if !is_there {
            return must(&format!("-n {bridge} link del p{letter}"));
        }
        must(&format!("-n {bridge} link add p{letter} type veth peer name e0 netns {name}"));
        must(&format!("-n {bridge} link set p{letter} master br0 up"));
        must(&format!("-n {name} link set e0 address 02:77:00:00:00:0{number}"));
        must(&format!("-n {name} addr add 10.77.0.{number}/24 dev e0"));
        must(&format!("-n {name} link set e0 up"));
    }

    /// Begins to record what the neighbour sees.
    pub fn record(&mut self) {
        let path = self.scratch.path("seen.pcap");
        let mut command = self.command(Host::C, "tcpdump");
        command.args(["-i", "e0", "-U", "-n", "--immediate-mode", "-w"]).arg(&path);
        // It may not write as the user that it would become.
        command.args(["-Z", "root"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.capture = Some(Process::new(command.spawn().unwrap()));
        eventually("the recording", || fs::metadata(&path).ok().filter(|found| found.len() > 0));
    }

    /// Ends the recording; returns columns of tshark for the packets that a filter lets through.
    pub fn recorded(&mut self, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
        if let Some(mut capture) = self.capture.take() {
            capture.signal(Signal::INT);
            eventually("the end of the recording", || capture.status());
        }
        let mut command = Command::new("tshark");
        command.arg("-r").arg(self.scratch.path("seen.pcap"));
        command.args(["-o", "ip.check_checksum:TRUE", "-Y", filter, "-T", "fields"]);
        for field in fields {
            command.args(["-e", field]);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in [Host::A, Host::B] {
                eprintln!("--- {host:?}\n{}", self.log(host));
            }
        }
        self.capture = None;
        for host in Host::ALL {
            // Nobody stays behind in a namespace without a name.
            let left = ip(&format!("netns pids {}", self.name(host)));
            for pid in String::from_utf8_lossy(&left.stdout).split_whitespace() {
                if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            let _ = ip(&format!("netns del {}", self.name(host)));
        }
        let _ = ip(&format!("netns del {}x", self.prefix));
    }
}

/// Returns the children of a process.
pub fn children(process: u32) -> Vec<Pid> {
    let path = format!("/proc/{process}/task");
    let tasks = fs::read_dir(path).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let numbers: Vec<i32> = lists
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|word| word.parse().ok())
        .collect();
    numbers.into_iter().filter_map(Pid::from_raw).collect()
}
