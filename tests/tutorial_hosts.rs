//! The tutorial's deployment on its own addresses: its files as they are, on two hosts in network
//! namespaces, six genuine Redis servers, and clients who know only the virtual address.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use support::lab::{self, Runtime, program};
use support::{Process, Scratch, eventually};

const VIRTUAL: &str = "192.168.223.136";

/// Hosts by the letters of their namespaces, with their addresses: two with everything, one with
/// the replicas, one with the clients.
const HOSTS: [(char, &[u8]); 4] =
    [('a', &[128]), ('b', &[131]), ('d', &[129, 130, 132, 133]), ('c', &[1])];

/// A server and whose replica it is, by the last number of the address.
const SERVERS: [(char, u8, Option<u8>); 6] = [
    ('a', 128, None),
    ('b', 131, None),
    ('d', 129, Some(128)),
    ('d', 130, Some(128)),
    ('d', 132, Some(131)),
    ('d', 133, Some(131)),
];

fn ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    output.status.success()
}

fn must(arguments: &str) {
    assert!(ip(arguments), "ip {arguments}");
}

struct Deployment {
    prefix: String,
    scratch: Scratch,
    servers: Vec<Process>,
}

impl Deployment {
    fn make() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("rkt{}-{number}", std::process::id());
        if !ip(&format!("netns add {prefix}x")) {
            lab::skip("no network namespaces");
            return None;
        }
        let mut made = Self { prefix, scratch: Scratch::new(), servers: Vec::new() };
        let bridge = made.prefix.clone() + "x";
        must(&format!("-n {bridge} link add br0 type bridge stp_state 0 forward_delay 0"));
        must(&format!("-n {bridge} link set br0 up"));
        for (letter, addresses) in HOSTS {
            let name = made.name(letter);
            must(&format!("netns add {name}"));
            must(&format!("-n {name} link set lo up"));
            must(&format!("-n {bridge} link add p{letter} type veth peer name eth0 netns {name}"));
            must(&format!("-n {bridge} link set p{letter} master br0 up"));
            for address in addresses {
                must(&format!("-n {name} addr add 192.168.223.{address}/24 dev eth0"));
            }
            must(&format!("-n {name} link set eth0 up"));
        }
        let binary = program("redis-server").or_else(|| program("redis-check-rdb")).unwrap();
        // It is a checker by its name.
        std::os::unix::fs::symlink(binary, made.scratch.path("redis-server")).unwrap();
        for (letter, number, master) in SERVERS {
            let server = made.start_server(letter, number, master);
            made.servers.push(server);
        }
        Some(made)
    }

    fn name(&self, letter: char) -> String {
        format!("{}{letter}", self.prefix)
    }

    fn command(&self, letter: char, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(letter)]).arg(program.as_ref());
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, letter: char, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.command(letter, words.next().unwrap());
        let output = command.args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn start_server(&self, letter: char, number: u8, master: Option<u8>) -> Process {
        let address = format!("192.168.223.{number}");
        let mut command = self.command(letter, self.scratch.path("redis-server"));
        command.args(["--port", "6379", "--bind", &address, "--save", "", "--appendonly", "no"]);
        command.args(["--repl-diskless-sync-delay", "0", "--protected-mode", "no"]);
        // Several share a host.
        command.args(["--replica-announce-ip", &address]);
        let folder = self.scratch.path(&number.to_string());
        fs::create_dir_all(&folder).unwrap();
        command.current_dir(folder);
        if let Some(master) = master {
            command.args(["--replicaof", &format!("192.168.223.{master}"), "6379"]);
        }
        let log = File::create(self.scratch.path(&format!("redis-{number}.log"))).unwrap();
        let process = Process::new(command.stdout(log).spawn().unwrap());
        eventually("a Redis server", || {
            (self.run(letter, &format!("redis-cli -h {address} ping")) == "PONG").then_some(())
        });
        process
    }

    /// Copies the tutorial's files for one host; what its script calls does nothing here.
    fn files(&self, letter: char) -> PathBuf {
        let folder = self.scratch.path(&letter.to_string());
        fs::create_dir_all(folder.join("bin")).unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tutorial");
        for file in fs::read_dir(from).unwrap().flatten() {
            fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
        for name in ["killall", "nutcracker"] {
            let path = folder.join("bin").join(name);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    fn start(&self, letter: char, runtime: Runtime) -> Process {
        let folder = self.files(letter);
        let path = std::env::var("PATH").unwrap_or_default();
        let log = File::create(self.scratch.path(&format!("{letter}.log"))).unwrap();
        let mut command = self.command(letter, env!("CARGO_BIN_EXE_ringkeeper"));
        command.args(["run", "--runtime", runtime.name(), "--nutcracker", "nutcracker.yml"]);
        command.args(["--sentinel", "sentinel.conf", "--control", "control"]);
        command.args(["--keepalived", &format!("keepalived-{letter}.conf")]);
        command.env("PATH", format!("{}/bin:{path}", folder.display()));
        command.current_dir(&folder).stdout(log.try_clone().unwrap()).stderr(log);
        Process::new(command.spawn().unwrap())
    }

    fn has(&self, letter: char) -> bool {
        !self.run(letter, &format!("ip -o addr show to {VIRTUAL}")).is_empty()
    }

    /// Waits until the virtual address is on one host alone.
    fn wait_for(&self, letter: char) {
        let other = if letter == 'a' { 'b' } else { 'a' };
        eventually(&format!("{VIRTUAL} on {letter} alone"), || {
            (self.has(letter) && !self.has(other)).then_some(())
        });
    }

    /// Asks as a client of the virtual address.
    fn ask(&self, words: &str) -> String {
        self.run('c', &format!("redis-cli -h {VIRTUAL} -p 6379 {words}"))
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for letter in ['a', 'b'] {
                eprintln!("--- {letter}\n{}", self.scratch.read(&format!("{letter}.log")));
            }
        }
        self.servers.clear();
        for (letter, _) in HOSTS {
            // Nobody stays behind in a namespace without a name.
            let output = Command::new("ip").args(["netns", "pids", &self.name(letter)]).output();
            let left = output.map(|output| output.stdout).unwrap_or_default();
            for pid in String::from_utf8_lossy(&left).split_whitespace() {
                if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            let _ = ip(&format!("netns del {}", self.name(letter)));
        }
        let _ = ip(&format!("netns del {}x", self.prefix));
    }
}

on_every_runtime!(
    the_tutorials_files_run_as_they_are_and_the_pool_has_the_virtual_address,
    a_redirect_to_the_pools_port_does_no_harm,
);

fn the_tutorials_files_run_as_they_are_and_the_pool_has_the_virtual_address(runtime: Runtime) {
    need!("redis-server", "redis-cli", "ip", "ss");
    let Some(hosts) = Deployment::make() else { return };
    let mut a = hosts.start('a', runtime);
    hosts.wait_for('a');
    let _b = hosts.start('b', runtime);
    eventually("the other host is a backup", || {
        hosts.scratch.read("b.log").contains("BACKUP").then_some(())
    });
    // Keys that differ at their end only are neighbours on the ring, by the tutorial's hash.
    for number in 0..20 {
        assert_eq!(hosts.ask(&format!("set {number}of-many-keys {number}")), "OK");
    }
    // Both shards have their share, so it was the pool that answered.
    for (letter, master) in [('a', 128), ('b', 131)] {
        let size = hosts.run(letter, &format!("redis-cli -h 192.168.223.{master} dbsize"));
        assert!(size.parse::<u32>().unwrap() > 0, "{size:?} keys on {master}");
    }
    // No hop: the process listens on the address and has no connection to itself.
    let sockets = hosts.run('a', "ss -Htan");
    assert!(sockets.contains(&format!("{VIRTUAL}:6379")), "{sockets}");
    let hops = sockets.lines().filter(|line| line.contains(":22121") && !line.contains("LISTEN"));
    assert_eq!(hops.count(), 0, "{sockets}");
    // Replicas are found by the Sentinels and the keys are there whatever host is left.
    a.signal(Signal::KILL);
    a.wait();
    hosts.wait_for('b');
    for number in 0..20 {
        eventually("a key by the other host", || {
            (hosts.ask(&format!("get {number}of-many-keys")) == number.to_string()).then_some(())
        });
    }
    // And back, by priority.
    let _a = hosts.start('a', runtime);
    hosts.wait_for('a');
    assert_eq!(hosts.ask("get 7of-many-keys"), "7");
}

fn a_redirect_to_the_pools_port_does_no_harm(runtime: Runtime) {
    need!("redis-server", "redis-cli", "ip", "iptables");
    let Some(hosts) = Deployment::make() else { return };
    let rule = format!(
        "iptables -w -t nat -A PREROUTING -p tcp -d {VIRTUAL} --dport 6379 -j REDIRECT --to-ports \
         22121"
    );
    hosts.run('a', &rule);
    if !hosts.run('a', "iptables -w -t nat -S PREROUTING").contains("22121") {
        return lab::skip("this kernel has no REDIRECT");
    }
    let _a = hosts.start('a', runtime);
    hosts.wait_for('a');
    for number in 0..20 {
        assert_eq!(hosts.ask(&format!("set {number}of-many-keys {number}")), "OK");
    }
    let counted = hosts.run('a', "iptables -w -t nat -L PREROUTING -v -n -x");
    let line = counted.lines().find(|line| line.contains("REDIRECT")).unwrap();
    let packets: u32 = line.split_whitespace().next().unwrap().parse().unwrap();
    assert!(packets >= 20, "the rule has seen nobody: {counted}");
    for number in 0..20 {
        assert_eq!(hosts.ask(&format!("get {number}of-many-keys")), number.to_string());
    }
    // Without the rule the pool is at the same address.
    hosts.run('a', "iptables -w -t nat -F PREROUTING");
    assert_eq!(hosts.ask("get 7of-many-keys"), "7");
}
