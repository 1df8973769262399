//! Hosts on one link: network namespaces on a bridge, or, where there are none, addresses of the
//! loopback interface.
#![cfg(target_os = "linux")]

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::host::sys;

/// Clients' port at the address that nodes share, and every server's.
pub(super) const REDIS_PORT: u16 = 6379;

/// The Sentinels' port.
pub(super) const SENTINEL_PORT: u16 = 26379;

/// The port of metrics, status and the page.
pub(super) const ADMIN_PORT: u16 = 22280;

/// Where administrators' programs are, which are not in everybody's search path.
const MORE_PATHS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// One host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    /// A host with a ringkeeper, from 0.
    Node(u8),
    /// A host with a Redis server, from 0.
    Server(u8),
}

impl Host {
    /// Returns its name, counted from 1.
    pub(super) fn name(self) -> String {
        match self {
            Self::Node(at) => format!("node-{}", at + 1),
            Self::Server(at) => format!("redis-{}", at + 1),
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Node(at) => 1 + at,
            Self::Server(at) => 11 + at,
        }
    }
}

/// Which way packets are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The host hears nothing.
    In,
    /// Nobody hears the host.
    Out,
}

/// What joins the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each host is a network namespace on a bridge.
    Namespaces,
    /// Each host is an address of the loopback interface; no cable can be cut and no address moves.
    Loopback,
}

/// The link and who is on it.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) kind: Kind,
    /// The first three numbers of every address.
    base: [u8; 3],
}

impl Network {
    /// Makes the link and its hosts. With namespaces the process must be alone in namespaces of its
    /// own for the network and for mounts; both end with it.
    ///
    /// # Errors
    ///
    /// The system refuses; the text says what.
    pub(super) fn make(kind: Kind, hosts: &[Host]) -> io::Result<Self> {
        if kind == Kind::Loopback {
            // Other laboratories may run beside this one.
            let [low, high, ..] = std::process::id().to_le_bytes();
            return Ok(Self { kind, base: [127, 64 | (high & 63), low] });
        }
        let network = Self { kind, base: [10, 78, 0] };
        make_run()?;
        ip("link set lo up")?;
        ip("link add br0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0")?;
        ip("link set br0 up")?;
        ip(&format!("addr add {}/24 dev br0", network.at(254)))?;
        for &host in hosts {
            let (name, number) = (host.name(), host.number());
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("link add p-{name} type veth peer name e0 netns {name}"))?;
            ip(&format!("link set p-{name} master br0 up"))?;
            ip(&format!("-n {name} link set e0 address 02:78:00:00:00:{number:02x}"))?;
            ip(&format!("-n {name} addr add {}/24 dev e0", network.address(host)))?;
            ip(&format!("-n {name} link set e0 up"))?;
        }
        Ok(network)
    }

    const fn at(&self, number: u8) -> Ipv4Addr {
        let [a, b, c] = self.base;
        Ipv4Addr::new(a, b, c, number)
    }

    /// Returns where a host is.
    pub(super) const fn address(&self, host: Host) -> Ipv4Addr {
        self.at(host.number())
    }

    /// Returns the address that the nodes share; none is shared on the loopback interface.
    pub(super) fn shared(&self) -> Option<Ipv4Addr> {
        (self.kind == Kind::Namespaces).then(|| self.at(100))
    }

    /// Returns a port of a host.
    pub(super) fn socket(&self, host: Host, port: u16) -> SocketAddr {
        SocketAddrV4::new(self.address(host), port).into()
    }

    /// Returns where clients go, the best first.
    pub(super) fn entries(&self, nodes: &[Host], port: u16) -> Vec<SocketAddr> {
        match self.shared() {
            Some(shared) => vec![SocketAddrV4::new(shared, port).into()],
            None => nodes.iter().map(|&node| self.socket(node, port)).collect(),
        }
    }

    /// Prepares a program on a host.
    pub(super) fn command(&self, host: Host, program: &Path) -> Command {
        let mut command = match self.kind {
            Kind::Namespaces => {
                let mut command = tool("ip");
                command.args(["netns", "exec", &host.name()]);
                command
            }
            // Namespaces end with us; here each program has to be told.
            Kind::Loopback => {
                let mut command = tool("setpriv");
                command.args(["--pdeathsig", "KILL"]);
                command
            }
        };
        command.arg(program).stdin(Stdio::null());
        sys::unblock_in(&mut command);
        command
    }

    /// Cuts or joins a host's cable.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub(super) fn set_cable(&self, host: Host, is_joined: bool) -> io::Result<()> {
        let state = if is_joined { "up" } else { "down" };
        ip(&format!("link set p-{} {state}", host.name()))
    }

    /// Prepares to cut a host's cable, so that it takes no time when it is to happen.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub(super) fn prepare_cut(host: Host) -> io::Result<Prepared> {
        let mut command = tool("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let line = format!("link set p-{} down\n", host.name());
        Ok(Prepared { child: command.spawn()?, line })
    }

    /// Begins or ends to drop a host's packets in one direction.
    ///
    /// # Errors
    ///
    /// The system refuses, or iptables is missing.
    pub(super) fn set_one_way(&self, host: Host, way: Way, is_cut: bool) -> io::Result<()> {
        let verb = if is_cut { "-I" } else { "-D" };
        let (chain, interface) = match way {
            Way::In => ("INPUT", "-i"),
            Way::Out => ("OUTPUT", "-o"),
        };
        let mut command = self.command(host, Path::new("iptables"));
        command.args(["-w", "5", verb, chain, interface, "e0", "-j", "DROP"]);
        run(command)
    }

    /// Takes the shared address from a host, if it has it.
    pub(super) fn remove_shared(&self, host: Host) {
        if let Some(shared) = self.shared() {
            let _ = ip(&format!("-n {} addr del {shared}/24 dev e0", host.name()));
        }
    }

    /// Tells which of the hosts has the shared address; none if nobody, or more than one, has it.
    pub(super) fn holder(&self, nodes: &[Host]) -> Option<Host> {
        let shared = self.shared()?.to_string();
        let has = |node: &&Host| {
            let mut command = tool("ip");
            command.args(["-n", &node.name(), "-o", "addr", "show", "to", &shared]);
            command.output().is_ok_and(|output| !output.stdout.is_empty())
        };
        let mut holders = nodes.iter().filter(has);
        let first = holders.next()?;
        holders.next().is_none().then_some(*first)
    }
}

/// A program that runs and waits for the word.
pub(super) struct Prepared {
    child: Child,
    line: String,
}

impl Prepared {
    /// Has it do what it is there for, and waits for its end.
    ///
    /// # Errors
    ///
    /// It fails; the text has what it said.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if let Some(mut input) = self.child.stdin.take() {
            input.write_all(self.line.as_bytes())?;
        }
        let output = self.child.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("ip {}: {}", self.line.trim(), said.trim())))
    }
}

/// Hides what the host has in /run: names of namespaces and locks are our own there.
fn make_run() -> io::Result<()> {
    let mut command = tool("mount");
    command.args(["-t", "tmpfs", "tmpfs", "/run"]);
    run(command)?;
    std::fs::create_dir_all("/run/netns")
}

fn ip(arguments: &str) -> io::Result<()> {
    let mut command = tool("ip");
    command.args(arguments.split_whitespace());
    run(command)
}

/// Prepares a program of the system.
pub(super) fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:{MORE_PATHS}")).stdin(Stdio::null());
    command
}

/// Runs a program to its end.
///
/// # Errors
///
/// It cannot be started, or it fails; the text has what it said.
pub(super) fn run(mut command: Command) -> io::Result<()> {
    let output = command.output().map_err(|error| {
        io::Error::other(format!("{}: {error}", command.get_program().to_string_lossy()))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    let program = command.get_program().to_string_lossy();
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {}: {}", words.join(" "), said.trim())))
}
