//! Virtual routers on a link in network namespaces, beside genuine keepalived: who has the
//! address, and whether others find our packets good.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod support;

use std::net::IpAddr;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use support::lab::Runtime;
use support::segment::{Host, Kind, Segment, children};
use support::{Process, eventually};

const ADDRESS: &str = "10.77.0.100";

/// How a pair of routers is configured.
#[derive(Clone, Copy)]
struct Shape {
    version: u8,
    interval: &'static str,
    is_unicast: bool,
    is_v6: bool,
}

const V3: Shape = Shape { version: 3, interval: "0.1", is_unicast: false, is_v6: false };

impl Shape {
    const fn address(self) -> &'static str {
        if self.is_v6 { "fd77::100" } else { ADDRESS }
    }

    fn config(self, host: Host, extra: &str) -> String {
        let (priority, me, peer) = if host == Host::A { (150, 1, 2) } else { (100, 2, 1) };
        let address = |number: u8| match self.is_v6 {
            true => format!("fe80::77:ff:fe00:{number}"),
            false => format!("10.77.0.{number}"),
        };
        let unicast = match self.is_unicast {
            true => format!(
                "unicast_src_ip {}\n unicast_peer {{\n {}\n }}\n",
                address(me),
                address(peer)
            ),
            false => String::new(),
        };
        let addresses =
            if self.is_v6 { "fe80::77:100/64\n fd77::100/64" } else { "10.77.0.100/24" };
        let Self { version, interval, .. } = self;
        format!(
            "global_defs {{\n router_id {host:?}\n vrrp_version {version}\n script_user root\n \
             enable_script_security\n}}\nvrrp_instance VI {{\n state BACKUP\n interface e0\n \
             virtual_router_id 51\n priority {priority}\n advert_int {interval}\n {unicast} \
             virtual_ipaddress {{\n {addresses}\n }}\n{extra}}}\n"
        )
    }
}

/// Makes a pair whose first router has the address.
fn pair(segment: &Segment, shape: Shape, first: Kind, second: Kind) -> (Process, Process) {
    let a = segment.start(Host::A, first, &shape.config(Host::A, ""));
    segment.wait_for(Host::A, shape.address());
    let b = segment.start(Host::B, second, &shape.config(Host::B, ""));
    // It has to hear the other and to stay a backup.
    eventually("the backup", || segment.log(Host::B).contains("BACKUP").then_some(()));
    (a, b)
}

fn leave(mut router: Process) {
    router.signal(Signal::TERM);
    eventually("the end of a router", || router.status());
}

/// Takeover at a shutdown, preemption at the return, and takeover when the cable is cut.
fn takes_turns(shape: Shape, first: Kind, second: Kind) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(mut segment) = Segment::make() else { return };
    segment.record();
    let (a, b) = pair(&segment, shape, first, second);
    assert!(!segment.has(Host::B, shape.address()), "two have the address");
    leave(a);
    segment.wait_for(Host::B, shape.address());
    let a = segment.start(Host::A, first, &shape.config(Host::A, ""));
    segment.wait_for(Host::A, shape.address());
    segment.set_cable(Host::A, false);
    segment.wait_for(Host::B, shape.address());
    segment.set_cable(Host::A, true);
    segment.wait_for(Host::A, shape.address());
    leave(b);
    leave(a);
    assert!(!segment.has(Host::A, shape.address()), "the address is left behind");
    judge(&mut segment, shape);
}

/// Lets tshark judge every advert and announcement that the neighbour saw.
fn judge(segment: &mut Segment, shape: Shape) {
    let source = if shape.is_v6 { "ipv6.src" } else { "ip.src" };
    let hops = if shape.is_v6 { "ipv6.hlim" } else { "ip.ttl" };
    let fields = ["vrrp.version", "vrrp.prio", hops, "vrrp.checksum.status", source];
    if !shape.is_unicast {
        let adverts = segment.recorded("vrrp", &fields);
        assert!(adverts.len() >= 5, "few adverts: {}", adverts.len());
        let mut goodbyes = 0;
        for advert in &adverts {
            assert_eq!(advert[0], shape.version.to_string(), "{advert:?}");
            assert_eq!((advert[2].as_str(), advert[3].as_str()), ("255", "1"), "{advert:?}");
            goodbyes += usize::from(advert[1] == "0");
        }
        assert!(goodbyes >= 2, "goodbyes: {goodbyes}");
    }
    let announced = match shape.is_v6 {
        true => segment.recorded("icmpv6.type == 136", &["icmpv6.nd.na.target_address"]),
        false => segment.recorded("arp.isgratuitous == 1", &["arp.src.proto_ipv4"]),
    };
    let wanted: IpAddr = shape.address().parse().unwrap();
    let count = announced.iter().filter(|one| one[0].parse() == Ok(wanted)).count();
    assert!(count >= 5, "announcements: {count} of {announced:?}");
    let wrong = segment
        .recorded("ip.checksum.status == 0 || icmpv6.checksum.status == 0", &["frame.number"]);
    assert_eq!(wrong, Vec::<Vec<String>>::new(), "bad checksums");
}

fn ours_over_genuine_by_multicast(runtime: Runtime) {
    takes_turns(V3, Kind::Ours(runtime), Kind::Genuine);
}

fn genuine_over_ours_by_multicast(runtime: Runtime) {
    takes_turns(V3, Kind::Genuine, Kind::Ours(runtime));
}

fn ours_over_ours(runtime: Runtime) {
    takes_turns(V3, Kind::Ours(runtime), Kind::Ours(runtime));
}

fn ours_over_genuine_in_version_2(runtime: Runtime) {
    takes_turns(Shape { version: 2, interval: "1", ..V3 }, Kind::Ours(runtime), Kind::Genuine);
}

fn genuine_over_ours_in_version_2(runtime: Runtime) {
    takes_turns(Shape { version: 2, interval: "1", ..V3 }, Kind::Genuine, Kind::Ours(runtime));
}

fn ours_over_genuine_by_unicast(runtime: Runtime) {
    takes_turns(Shape { is_unicast: true, ..V3 }, Kind::Ours(runtime), Kind::Genuine);
}

fn genuine_over_ours_by_unicast(runtime: Runtime) {
    takes_turns(Shape { is_unicast: true, ..V3 }, Kind::Genuine, Kind::Ours(runtime));
}

fn ours_over_genuine_on_ipv6(runtime: Runtime) {
    takes_turns(Shape { is_v6: true, ..V3 }, Kind::Ours(runtime), Kind::Genuine);
}

fn genuine_over_ours_on_ipv6(runtime: Runtime) {
    takes_turns(Shape { is_v6: true, ..V3 }, Kind::Genuine, Kind::Ours(runtime));
}

/// Skew of priority 100 at 0.1 s is 61 ms; whoever has to wait for silence waits 361 ms at least.
fn a_killed_daemon_says_goodbye_through_its_guardian(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(mut segment) = Segment::make() else { return };
    segment.record();
    let (a, _b) = pair(&segment, V3, Kind::Ours(runtime), Kind::Genuine);
    let guardian = children(a.id());
    assert_eq!(guardian.len(), 1, "one guardian");
    // It outlasts what is meant for the daemon.
    kill_process(guardian[0], Signal::TERM).unwrap();
    a.signal(Signal::KILL);
    segment.wait_for(Host::B, ADDRESS);
    eventually("the guardian's end", || {
        rustix::process::test_kill_process(guardian[0]).is_err().then_some(())
    });
    let adverts = segment.recorded("vrrp", &["frame.time_epoch", "ip.src", "vrrp.prio"]);
    let first = adverts.iter().position(|one| one[1] == "10.77.0.2").unwrap();
    let [goodbye, claim] = [&adverts[first - 1], &adverts[first]];
    assert_eq!((goodbye[1].as_str(), goodbye[2].as_str()), ("10.77.0.1", "0"));
    let at = |advert: &Vec<String>| advert[0].parse::<f64>().unwrap();
    let waited = at(claim) - at(goodbye);
    assert!((0.055..0.2).contains(&waited), "waited {waited} s after the goodbye");
}

fn a_killed_guardian_is_replaced(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(segment) = Segment::make() else { return };
    let (a, _b) = pair(&segment, V3, Kind::Ours(runtime), Kind::Genuine);
    let first = children(a.id());
    kill_process(first[0], Signal::KILL).unwrap();
    let second = eventually("another guardian", || {
        children(a.id()).into_iter().find(|child| *child != first[0])
    });
    assert!(segment.has(Host::A, ADDRESS), "nothing else happened");
    // It has to have its will; an instant after its start is soon enough.
    eventually("its sockets", || {
        let folder = format!("/proc/{}/fd", second.as_raw_nonzero());
        (std::fs::read_dir(folder).map_or(0, Iterator::count) >= 5).then_some(())
    });
    a.signal(Signal::KILL);
    segment.wait_for(Host::B, ADDRESS);
}

fn an_address_that_somebody_removes_is_put_back(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(mut segment) = Segment::make() else { return };
    segment.record();
    let (_a, _b) = pair(&segment, V3, Kind::Ours(runtime), Kind::Genuine);
    segment.run(Host::A, "ip addr del 10.77.0.100/24 dev e0");
    segment.wait_for(Host::A, ADDRESS);
    segment.log(Host::A);
    let goodbyes = segment.recorded("vrrp.prio == 0", &["ip.src"]);
    assert_eq!(goodbyes, Vec::<Vec<String>>::new(), "nobody left for it");
}

fn addresses_left_by_a_crash_are_adopted_without_a_hole(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(segment) = Segment::make() else { return };
    let a = segment.start(Host::A, Kind::Ours(runtime), &V3.config(Host::A, ""));
    segment.wait_for(Host::A, ADDRESS);
    let guardian = children(a.id());
    a.signal(Signal::STOP);
    kill_process(guardian[0], Signal::KILL).unwrap();
    a.signal(Signal::KILL);
    drop(a);
    assert!(segment.has(Host::A, ADDRESS), "the crash left it");
    let log = std::fs::File::create(segment.path("monitor")).unwrap();
    let mut monitor = segment.command(Host::A, "ip");
    let monitor = Process::new(monitor.args(["monitor", "address"]).stdout(log).spawn().unwrap());
    let a = segment.start(Host::A, Kind::Ours(runtime), &V3.config(Host::A, ""));
    eventually("its return", || segment.log(Host::A).contains("MASTER").then_some(()));
    drop(monitor);
    let seen = segment.scratch.read("monitor");
    assert!(!seen.contains("Deleted"), "{seen}");
    assert!(segment.log(Host::A).contains("earlier run"));
    leave(a);
    assert!(!segment.has(Host::A, ADDRESS));
}

fn a_reload_adds_and_removes_addresses_without_a_gap(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(mut segment) = Segment::make() else { return };
    let a = segment.start(Host::A, Kind::Ours(runtime), &V3.config(Host::A, ""));
    segment.wait_for(Host::A, ADDRESS);
    segment.record();
    let more = V3.config(Host::A, " virtual_ipaddress_excluded {\n 10.77.0.101/24\n }\n");
    segment.scratch.write("a.conf", &more);
    a.signal(Signal::HUP);
    segment.wait_for(Host::A, "10.77.0.101");
    segment.scratch.write("a.conf", &V3.config(Host::A, ""));
    a.signal(Signal::HUP);
    eventually("the old addresses", || (!segment.has(Host::A, "10.77.0.101")).then_some(()));
    assert!(segment.has(Host::A, ADDRESS));
    segment.scratch.write("a.conf", "vrrp_instance {\n");
    a.signal(Signal::HUP);
    eventually("the refusal", || segment.log(Host::A).contains("stays in use").then_some(()));
    let adverts = segment.recorded("vrrp", &["frame.time_epoch", "vrrp.prio"]);
    let times: Vec<f64> = adverts.iter().map(|one| one[0].parse().unwrap()).collect();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!(adverts.iter().all(|one| one[1] == "150") && longest < 0.15, "gap of {longest} s");
    leave(a);
}

fn a_service_that_dies_takes_its_router_down(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(segment) = Segment::make() else { return };
    let script = "vrrp_script alive {\n script \"</dev/tcp/127.0.0.1/22121\"\n interval 0.2\n}\n";
    let config = V3.config(Host::A, " track_script {\n alive\n }\n");
    let service = || {
        let mut command = segment.command(Host::A, env!("CARGO_BIN_EXE_ringkeeper"));
        command.args(["run", "-c"]).arg(segment.path("ok.yml")).args(["--stats-port", "0"]);
        Process::new(command.stderr(std::process::Stdio::null()).spawn().unwrap())
    };
    segment.scratch.write(
        "ok.yml",
        "alpha:\n  listen: 127.0.0.1:22121\n  redis: true\n  servers:\n   - 127.0.0.1:1:1 one\n",
    );
    let first = service();
    let _a = segment.start(Host::A, Kind::Ours(runtime), &format!("{script}{config}"));
    segment.wait_for(Host::A, ADDRESS);
    let _b = segment.start(Host::B, Kind::Genuine, &V3.config(Host::B, ""));
    first.signal(Signal::KILL);
    segment.wait_for(Host::B, ADDRESS);
    assert!(segment.log(Host::A).contains("check fails"));
    let _second = service();
    segment.wait_for(Host::A, ADDRESS);
}

fn transitions_are_told_in_their_order(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(segment) = Segment::make() else { return };
    let path = |name: &str| segment.path(name).display().to_string();
    let script = "#!/bin/sh\necho \"$@\" >> \"$(dirname \"$0\")/told\"\n";
    segment.scratch.write("tell", script);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(segment.path("tell"), mode).unwrap();
    let extra = format!(" notify_master \"{} up\"\n notify \"{}\"\n", path("tell"), path("tell"));
    let config = V3.config(Host::A, &extra).replace(" enable_script_security\n", "");
    let fifo = format!("global_defs {{\n vrrp_notify_fifo {}\n", path("fifo"));
    let config = config.replacen("global_defs {\n", &fifo, 1);
    let a = segment.start(Host::A, Kind::Ours(runtime), &config);
    eventually("the pipe", || segment.path("fifo").exists().then_some(()));
    let mut reader = segment.command(Host::A, "cat");
    let lines = std::fs::File::create(segment.path("lines")).unwrap();
    let _reader = Process::new(reader.arg(segment.path("fifo")).stdout(lines).spawn().unwrap());
    segment.wait_for(Host::A, ADDRESS);
    let up = ["INSTANCE VI BACKUP 150", "up", "INSTANCE VI MASTER 150"];
    eventually("what is told", || (segment.scratch.read("told").lines().eq(up)).then_some(()));
    leave(a);
    let all: Vec<&str> = up.into_iter().chain(["INSTANCE VI STOP 150"]).collect();
    let told = segment.scratch.read("told");
    assert_eq!(told.lines().collect::<Vec<_>>(), all);
    let expected = "INSTANCE \"VI\" MASTER 150\nINSTANCE \"VI\" STOP 150\n";
    eventually("the lines of the pipe", || {
        segment.scratch.read("lines").ends_with(expected).then_some(())
    });
}

fn a_healed_partition_costs_few_announcements(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(mut segment) = Segment::make() else { return };
    let (_a, _b) = pair(&segment, V3, Kind::Ours(runtime), Kind::Genuine);
    // The backup hears nothing for a while and becomes Active too.
    segment.run(Host::B, "iptables -I INPUT -p 112 -j DROP");
    if segment.run(Host::B, "iptables -S INPUT").lines().count() < 2 {
        return support::lab::skip("no packet filter in namespaces");
    }
    eventually("two Active routers", || segment.has(Host::B, ADDRESS).then_some(()));
    segment.record();
    segment.run(Host::B, "iptables -F INPUT");
    segment.wait_for(Host::A, ADDRESS);
    // keepalived's second burst would come five seconds later; ours ends at once.
    std::thread::sleep(Duration::from_secs(6));
    let filter = "arp.isgratuitous == 1 && eth.src == 02:77:00:00:00:01";
    let count = segment.recorded(filter, &["frame.number"]).len();
    assert!(count <= 10, "{count} announcements");
}

on_every_runtime!(
    ours_over_genuine_by_multicast,
    genuine_over_ours_by_multicast,
    ours_over_ours,
    ours_over_genuine_in_version_2,
    genuine_over_ours_in_version_2,
    ours_over_genuine_by_unicast,
    genuine_over_ours_by_unicast,
    ours_over_genuine_on_ipv6,
    genuine_over_ours_on_ipv6,
    a_killed_daemon_says_goodbye_through_its_guardian,
    a_killed_guardian_is_replaced,
    an_address_that_somebody_removes_is_put_back,
    addresses_left_by_a_crash_are_adopted_without_a_hole,
    a_reload_adds_and_removes_addresses_without_a_gap,
    a_service_that_dies_takes_its_router_down,
    transitions_are_told_in_their_order,
    a_healed_partition_costs_few_announcements,
);
