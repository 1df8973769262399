//! What the process serves decides on its virtual addresses: hosts in network namespaces, each with a
//! pool, a Redis server of its own and a virtual router.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs::File;
use std::net::SocketAddr;

use rustix::process::Signal;

use support::lab::{Runtime, program};
use support::resp::{Client, request};
use support::segment::{Host, Kind, Segment};
use support::{Process, eventually};

const ADDRESS: &str = "10.77.0.100";

/// A host at work.
struct Node {
    host: Host,
    process: Process,
    redis: Option<Process>,
}

impl Node {
    /// Starts a Redis server and the process on a host.
    fn start(segment: &Segment, host: Host, runtime: Runtime) -> Self {
        let redis = Some(start_redis(segment, host));
        let (letter, priority) = if host == Host::A { ('a', 150) } else { ('b', 100) };
        let path = |name: &str| segment.path(&format!("{letter}.{name}")).display().to_string();
        let pools = format!(
            "runtime: {}\ncontrol: {}\nadmin: {{listen: off}}\nstats: {{listen: off}}\nlimits: \
             {{drain_timeout: 10 s}}\npools:\n  alpha:\n    listen: 0.0.0.0:22121\n    preconnect: \
             true\n    server_retry_timeout: 100 ms\n    servers:\n      - {{name: one, address: \
             '127.0.0.1:6379'}}\n",
            runtime.name(),
            path("sock")
        );
        let routers = format!(
            "vrrp_instance VI {{\n state BACKUP\n interface e0\n virtual_router_id 51\n priority \
             {priority}\n advert_int 0.1\n version 3\n virtual_ipaddress {{\n {ADDRESS}/24\n }}\n}}\n"
        );
        std::fs::write(path("yml"), pools).unwrap();
        std::fs::write(path("keepalived"), routers).unwrap();
        let log = File::create(path("log")).unwrap();
        let mut command = segment.command(host, env!("CARGO_BIN_EXE_ringkeeper"));
        command.args(["run", "-c", &path("yml"), "--keepalived", &path("keepalived")]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Self { host, process: Process::new(command.spawn().unwrap()), redis }
    }

    /// Gives the running process a command.
    fn tell(&self, segment: &Segment, words: &str) {
        let letter = if self.host == Host::A { 'a' } else { 'b' };
        let socket = segment.path(&format!("{letter}.sock"));
        let line =
            format!("{} {words} --control {}", env!("CARGO_BIN_EXE_ringkeeper"), socket.display());
        let told = segment.run(self.host, &line);
        assert!(told.contains("node"), "{told}");
    }
}

fn start_redis(segment: &Segment, host: Host) -> Process {
    let server = program("redis-server").or_else(|| program("redis-check-rdb")).unwrap();
    // It is a Sentinel or a checker by its name.
    let name = segment.path("redis-server");
    let _ = std::os::unix::fs::symlink(server, &name);
    let mut command = segment.command(host, &name.display().to_string());
    command.args(["--port", "6379", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let log = File::create(segment.path(&format!("redis-{host:?}.log"))).unwrap();
    command.stdout(log).current_dir(segment.path(""));
    let process = Process::new(command.spawn().unwrap());
    eventually("a server listens", || {
        segment.run(host, "ss -Hltn").contains("127.0.0.1:6379").then_some(())
    });
    process
}

/// Starts a host, waits until it has the address, then another one that has not.
fn pair(segment: &Segment, runtime: Runtime) -> (Node, Node) {
    let a = Node::start(segment, Host::A, runtime);
    segment.wait_for(Host::A, ADDRESS);
    let b = Node::start(segment, Host::B, runtime);
    eventually("the other host is a backup", || {
        std::fs::read_to_string(segment.path("b.log")).unwrap().contains("BACKUP").then_some(())
    });
    (a, b)
}

fn entry() -> SocketAddr {
    format!("{ADDRESS}:22121").parse().unwrap()
}

/// Nobody retransmits anything for them: a connection that nobody ends would stay for hours.
struct Clients {
    idle: Client,
    /// Waits for a reply that does not come.
    waiting: Client,
}

impl Clients {
    /// Connects to the virtual address, which `host` has.
    fn of(segment: &Segment, host: Host) -> Self {
        let mut idle = segment.connect(Host::C, entry());
        assert_eq!(idle.ask(&["SET", "key", "1"]).text(), "OK");
        let mut waiting = segment.connect(Host::C, entry());
        assert_eq!(waiting.ask(&["GET", "key"]).text(), "1");
        let mut redis = segment.connect(host, "127.0.0.1:6379".parse().unwrap());
        assert_eq!(redis.ask(&["CLIENT", "PAUSE", "600000", "WRITE"]).text(), "OK");
        waiting.send(&request(&["SET", "key", "2"])).unwrap();
        // A server that has the request is as far as it gets.
        eventually("the request waits", || {
            redis.ask(&["INFO", "clients"]).text().contains("blocked_clients:1").then_some(())
        });
        Self { idle, waiting }
    }

    /// They have heard that the address is another host's, and find it there.
    fn judge(mut self, segment: &Segment) {
        assert!(self.idle.is_ended(), "who has nothing to send would never learn of it");
        assert!(self.waiting.is_ended(), "who waits for a reply would wait for ever");
        let mut again = segment.connect(Host::C, entry());
        assert_eq!(again.ask(&["SET", "key", "3"]).text(), "OK");
    }
}

on_every_runtime!(
    an_address_goes_where_clients_can_be_served,
    clients_of_a_killed_host_are_told_at_once,
    clients_of_a_drained_host_are_told,
    clients_of_a_host_that_ends_are_told,
    clients_of_a_host_with_an_ill_pool_are_told,
    clients_are_told_when_a_better_host_comes_and_those_of_other_addresses_stay,
    clients_of_a_relay_are_told,
);

fn an_address_goes_where_clients_can_be_served(runtime: Runtime) {
    need!("redis-server", "ss");
    let Some(segment) = Segment::make() else { return };
    let mut a = Node::start(&segment, Host::A, runtime);
    segment.wait_for(Host::A, ADDRESS);
    let mut b = Node::start(&segment, Host::B, runtime);
    eventually("the other host is a backup", || {
        std::fs::read_to_string(segment.path("b.log")).unwrap().contains("BACKUP").then_some(())
    });

    // A host that is taken out of service.
    a.tell(&segment, "drain node");
    segment.wait_for(Host::B, ADDRESS);
    a.tell(&segment, "undrain node");
    segment.wait_for(Host::A, ADDRESS);

    // A pool that can reach no server, and reaches it again, though no client asks.
    a.redis = None;
    segment.wait_for(Host::B, ADDRESS);
    a.redis = Some(start_redis(&segment, Host::A));
    segment.wait_for(Host::A, ADDRESS);
    a.redis = None;
    segment.wait_for(Host::B, ADDRESS);

    // A host that ends leaves the address to whoever is left, whatever that one thinks of itself.
    b.process.signal(Signal::TERM);
    segment.wait_for(Host::A, ADDRESS);
    assert!(b.process.wait().success());
}

fn clients_of_a_killed_host_are_told_at_once(runtime: Runtime) {
    need!("redis-server", "ss");
    let Some(segment) = Segment::make() else { return };
    let (a, _b) = pair(&segment, runtime);
    let clients = Clients::of(&segment, Host::A);
    a.process.signal(Signal::KILL);
    segment.wait_for(Host::B, ADDRESS);
    clients.judge(&segment);
}

fn clients_of_a_drained_host_are_told(runtime: Runtime) {
    need!("redis-server", "ss");
    let Some(segment) = Segment::make() else { return };
    let (a, _b) = pair(&segment, runtime);
    let clients = Clients::of(&segment, Host::A);
    a.tell(&segment, "drain node");
    segment.wait_for(Host::B, ADDRESS);
    clients.judge(&segment);
}

fn clients_of_a_host_that_ends_are_told(runtime: Runtime) {
    need!("redis-server", "ss");
    let Some(segment) = Segment::make() else { return };
    let (mut a, _b) = pair(&segment, runtime);
    let clients = Clients::of(&segment, Host::A);
    a.process.signal(Signal::TERM);
    segment.wait_for(Host::B, ADDRESS);
    clients.judge(&segment);
    assert!(a.process.wait().success());
}

/// The pool does not close its clients: it has to serve again as soon as it can.
fn clients_of_a_host_with_an_ill_pool_are_told(runtime: Runtime) {
    need!("redis-server", "ss");
    let Some(segment) = Segment::make() else { return };
    let (mut a, _b) = pair(&segment, runtime);
    let mut idle = segment.connect(Host::C, entry());
    assert_eq!(idle.ask(&["SET", "key", "1"]).text(), "OK");
    a.redis = None;
    segment.wait_for(Host::B, ADDRESS);
    assert!(idle.is_ended(), "who has nothing to send would never learn of it");
    let mut again = segment.connect(Host::C, entry());
    assert_eq!(again.ask(&["SET", "key", "3"]).text(), "OK");
}

fn clients_are_told_when_a_better_host_comes_and_those_of_other_addresses_stay(runtime: Runtime) {
    need!("redis-server", "ss");
    let Some(segment) = Segment::make() else { return };
    let _b = Node::start(&segment, Host::B, runtime);
    segment.wait_for(Host::B, ADDRESS);
    let mut other = segment.connect(Host::C, "10.77.0.2:22121".parse().unwrap());
    assert_eq!(other.ask(&["SET", "mine", "1"]).text(), "OK");
    let clients = Clients::of(&segment, Host::B);
    let _a = Node::start(&segment, Host::A, runtime);
    segment.wait_for(Host::A, ADDRESS);
    clients.judge(&segment);
    assert_eq!(other.ask(&["PING"]).text(), "PONG");
}

/// Starts virtual routers with a virtual server, which is no pool of the process.
fn start_relay(segment: &Segment, host: Host, runtime: Runtime, priority: u8) -> Process {
    let config = format!(
        "vrrp_instance VI {{\n state BACKUP\n interface e0\n virtual_router_id 51\n priority \
         {priority}\n advert_int 0.1\n version 3\n virtual_ipaddress {{\n {ADDRESS}/24\n \
         }}\n}}\nvirtual_server {ADDRESS} 22121 {{\n lb_algo rr\n lb_kind NAT\n protocol TCP\n \
         real_server 127.0.0.1 6379 {{\n }}\n}}\n"
    );
    segment.start(host, Kind::Ours(runtime), &config)
}

fn clients_of_a_relay_are_told(runtime: Runtime) {
    need!("redis-server", "ss");
    let Some(segment) = Segment::make() else { return };
    let _servers = (start_redis(&segment, Host::A), start_redis(&segment, Host::B));
    let _b = start_relay(&segment, Host::B, runtime, 100);
    segment.wait_for(Host::B, ADDRESS);
    let clients = Clients::of(&segment, Host::B);
    let _a = start_relay(&segment, Host::A, runtime, 150);
    segment.wait_for(Host::A, ADDRESS);
    clients.judge(&segment);
}
