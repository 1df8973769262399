//! A REDIRECT that clients of a virtual address pass through, as operators have it from times when
//! the proxy could not listen there: without a port it leads to the same port of the host's own
//! address.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod support;

use std::fs::{self, File};
use std::process::Stdio;

use support::lab::{Runtime, program, skip};
use support::segment::{Host, Segment};
use support::{Process, eventually};

const ADDRESS: &str = "10.77.0.100";

const RULE: &str =
    "iptables -w -t nat -A PREROUTING -p tcp -d 10.77.0.100 --dport 6379 -j REDIRECT";

/// A host with the rule, a Redis server on a port of its own, and the process.
struct Node {
    segment: Segment,
    process: Process,
    _redis: Process,
}

impl Node {
    /// Starts it, the pool listening at `listen`; none, with the reason told, where that cannot be.
    fn start(runtime: Runtime, listen: &str) -> Option<Self> {
        let segment = Segment::make()?;
        segment.run(Host::A, RULE);
        if !segment.run(Host::A, "iptables -w -t nat -S PREROUTING").contains("REDIRECT") {
            skip("this kernel has no REDIRECT");
            return None;
        }
        let server = program("redis-server").or_else(|| program("redis-check-rdb")).unwrap();
        // It is a Sentinel or a checker by its name.
        let name = segment.path("redis-server");
        std::os::unix::fs::symlink(server, &name).unwrap();
        let mut redis = segment.command(Host::A, &name.display().to_string());
        redis.args(["--port", "6390", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let redis = redis.stdout(Stdio::null()).current_dir(segment.path("")).spawn().unwrap();
        let redis = Process::new(redis);
        let port = listen.split_once(':').unwrap().1;
        let path = |name: &str| segment.path(name).display().to_string();
        fs::write(
            path("nutcracker.yml"),
            format!(
                "alpha:\n  listen: {listen}\n  redis: true\n  servers:\n   - 127.0.0.1:6390:1 \
                 one\n"
            ),
        )
        .unwrap();
        fs::write(
            path("keepalived.conf"),
            format!(
                "vrrp_instance VI {{\n state BACKUP\n interface e0\n virtual_router_id 51\n \
                 priority 150\n advert_int 0.1\n version 3\n virtual_ipaddress {{\n \
                 {ADDRESS}/24\n }}\n}}\nvirtual_server {ADDRESS} 6379 {{\n protocol TCP\n \
                 real_server 10.77.0.1 {port} {{\n TCP_CHECK {{\n }}\n }}\n}}\n"
            ),
        )
        .unwrap();
        let log = File::create(path("log")).unwrap();
        let mut command = segment.command(Host::A, env!("CARGO_BIN_EXE_ringkeeper"));
        command.args(["run", "--runtime", runtime.name(), "--stats-port", "0", "--control"]);
        command.args([&path("control"), "--nutcracker", &path("nutcracker.yml")]);
        command.args(["--keepalived", &path("keepalived.conf")]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let process = Process::new(command.spawn().unwrap());
        segment.wait_for(Host::A, ADDRESS);
        Some(Self { segment, process, _redis: redis })
    }

    fn log(&self) -> String {
        self.segment.scratch.read("log")
    }

    /// Stores something as a client of the address.
    fn is_served(&self) {
        let at = format!("{ADDRESS}:6379").parse().unwrap();
        let mut client = self.segment.connect(Host::C, at);
        assert_eq!(client.ask(&["SET", "key", "1"]).text(), "OK");
        // A pool does not answer this, a Redis server would.
        assert!(client.ask(&["DBSIZE"]).text().starts_with("ERR"), "past the pool");
    }

    /// Returns how many connections the rule has seen.
    fn seen(&self) -> u32 {
        let counted = self.segment.run(Host::A, "iptables -w -t nat -L PREROUTING -v -n -x");
        let line = counted.lines().find(|line| line.contains("REDIRECT")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

on_every_runtime!(
    a_redirect_to_the_port_that_a_pool_has_does_no_harm,
    a_redirect_past_the_pool_is_told_with_what_removes_it,
);

fn a_redirect_to_the_port_that_a_pool_has_does_no_harm(runtime: Runtime) {
    need!("redis-server", "ip", "iptables");
    for listen in ["0.0.0.0:6379", "10.77.0.1:6379"] {
        let Some(node) = Node::start(runtime, listen) else { return };
        node.is_served();
        assert!(node.seen() > 0, "the rule has seen nobody");
        node.segment.run(Host::A, "iptables -w -t nat -F PREROUTING");
        node.is_served();
        assert!(!node.log().contains("a rule of iptables"), "{}", node.log());
    }
}

fn a_redirect_past_the_pool_is_told_with_what_removes_it(runtime: Runtime) {
    need!("redis-server", "ip", "iptables");
    let Some(mut node) = Node::start(runtime, "0.0.0.0:22121") else { return };
    let command = eventually("the warning", || {
        let log = node.log();
        let (_, command) = log.split_once("remove it: ")?;
        command.split_once('\n').map(|(command, _)| command.to_owned())
    });
    node.segment.run(Host::A, &command);
    let left = node.segment.run(Host::A, "iptables -w -t nat -S PREROUTING");
    assert!(!left.contains("REDIRECT"), "{command}: {left}");
    node.is_served();
    node.process.signal(rustix::process::Signal::TERM);
    assert!(node.process.wait().success());
}
