//! Hosts on one link, in network namespaces, between which packets can be lost in either
//! direction.
#![cfg(target_os = "linux")]

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use super::lab;

/// Hosts on one link, removed at the end. Host 0 has the address 10.78.0.1, and so on.
pub struct Net {
    prefix: String,
    hosts: usize,
}

fn ip(arguments: &str) -> std::process::Output {
    Command::new("ip").args(arguments.split_whitespace()).output().unwrap()
}

fn must(arguments: &str) {
    let output = ip(arguments);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {why}");
}

impl Net {
    /// Makes the link; none, with the reason told, if this machine has no network namespaces or
    /// cannot lose packets in them.
    pub fn make(hosts: usize) -> Option<Self> {
        Self::new(hosts).map_err(|why| lab::skip(&format!("no partitions: {why}"))).ok()
    }

    fn new(hosts: usize) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("rkn{}-{number}", std::process::id());
        let first = ip(&format!("netns add {prefix}x"));
        if !first.status.success() {
            return Err(String::from_utf8_lossy(&first.stderr).trim().to_owned());
        }
        let net = Self { prefix, hosts };
        let bridge = format!("{}x", net.prefix);
        must(&format!("-n {bridge} link add br0 type bridge stp_state 0 forward_delay 0"));
        must(&format!("-n {bridge} link set br0 up"));
        for host in 0..hosts {
            let (name, address) = (net.name(host), Self::address(host));
            must(&format!("netns add {name}"));
            must(&format!("-n {name} link set lo up"));
            must(&format!("-n {bridge} link add p{host} type veth peer name e0 netns {name}"));
            must(&format!("-n {bridge} link set p{host} master br0 up"));
            must(&format!("-n {name} addr add {address}/24 dev e0"));
            must(&format!("-n {name} link set e0 up"));
        }
        let mut probe = net.command(0, "iptables");
        let probe = probe.args(["-w", "-L", "INPUT", "-n"]).output();
        let probe = probe.map_err(|error| error.to_string())?;
        if !probe.status.success() {
            return Err(String::from_utf8_lossy(&probe.stderr).trim().to_owned());
        }
        Ok(net)
    }

    fn name(&self, host: usize) -> String {
        format!("{}h{host}", self.prefix)
    }

    pub fn address(host: usize) -> String {
        format!("10.78.0.{}", host + 1)
    }

    /// Prepares a program on a host.
    pub fn command(&self, host: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(host), program]).stdin(Stdio::null());
        command
    }

    /// Runs a program on a host; returns what it prints.
    pub fn run(&self, host: usize, program: &str, arguments: &[&str]) -> String {
        let output = self.command(host, program).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn filter(&self, action: &str, from: usize, to: usize) {
        let from = Self::address(from);
        let output = self
            .command(to, "iptables")
            .args(["-w", action, "INPUT", "-s", &from, "-j", "DROP"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Loses what one host sends to another, without a word to either.
    pub fn lose(&self, from: usize, to: usize) {
        self.filter("-A", from, to);
    }

    /// Loses nothing any more.
    pub fn heal(&self) {
        for host in 0..self.hosts {
            let output = self.command(host, "iptables").args(["-w", "-F", "INPUT"]).output();
            assert!(output.unwrap().status.success());
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for host in 0..self.hosts {
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
