//! Virtual routers in strange orders, and judged by strangers: paused, robbed of their interface,
//! beside pools, spoken to by liars. In network namespaces, beside genuine keepalived.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod support;

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use support::lab::Runtime;
use support::segment::{Host, Kind, Segment};
use support::{Process, eventually};

const ADDRESS: &str = "10.77.0.100";

/// The release of scapy that the tests were written for.
const SCAPY: &str = "scapy==2.8.0";

const POOLS: &str =
    "alpha:\n  listen: 0.0.0.0:22121\n  redis: true\n  servers:\n   - 127.0.0.1:9009:1 one\n";

/// A server that answers whoever asks whether it is there, and never a GET.
const SILENT: &str = r#"
import socket, threading
def serve(conn):
    while data := conn.recv(4096):
        if b"GET" in data:
            print("asked", flush=True)
        else:
            conn.sendall(b"+PONG\r\n")
server = socket.create_server(("127.0.0.1", 9009))
print("listens", flush=True)
while True:
    threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
"#;

/// A client that waits for it.
const PATIENT: &str = r#"
import socket, time
client = socket.create_connection(("127.0.0.1", 22121))
client.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n")
time.sleep(60)
"#;

/// A router of version 3 at 0.1 s, or of version 2 at 1 s.
fn config(host: Host, version: u8, extra: &str, top: &str) -> String {
    let priority = if host == Host::A { 150 } else { 100 };
    let interval = if version == 2 { "1" } else { "0.1" };
    format!(
        "global_defs {{\n router_id {host:?}\n vrrp_version {version}\n script_user root\n}}\n{top}\
         vrrp_instance VI {{\n state BACKUP\n interface e0\n virtual_router_id 51\n priority \
         {priority}\n advert_int {interval}\n virtual_ipaddress {{\n {ADDRESS}/24\n }}\n{extra}}}\n"
    )
}

fn leave(mut router: Process) {
    router.signal(Signal::TERM);
    eventually("the end of a router", || router.status());
}

/// Starts pools and a router in one process.
fn with_pools(segment: &Segment, runtime: Runtime) -> Process {
    segment.scratch.write("pools.yml", POOLS);
    segment.scratch.write("a.conf", &config(Host::A, 3, "", ""));
    let log = std::fs::File::create(segment.path("a.log")).unwrap();
    let mut command = segment.command(Host::A, env!("CARGO_BIN_EXE_ringkeeper"));
    command.args(["run", "--runtime", runtime.name(), "-c"]).arg(segment.path("pools.yml"));
    command.arg("--keepalived").arg(segment.path("a.conf"));
    command.arg("--control").arg(segment.path("control"));
    command.stdout(log.try_clone().unwrap()).stderr(log);
    Process::new(command.spawn().unwrap())
}

/// Runs a script on the host of the pools; what it prints goes into a file.
fn python(segment: &Segment, script: &str, output: &str) -> Process {
    let output = std::fs::File::create(segment.path(output)).unwrap();
    let mut command = segment.command(Host::A, "python3");
    command.args(["-c", script]).stdout(output).stderr(Stdio::null());
    Process::new(command.spawn().unwrap())
}

/// Adverts of priority zero that the neighbour has recorded, and from whom.
fn goodbyes(segment: &mut Segment) -> Vec<Vec<String>> {
    segment.recorded("vrrp.prio == 0", &["ip.src"])
}

fn adverts_with_an_authentication_header_are_refused_by_name(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(mut segment) = Segment::make() else { return };
    let secret = " authentication {\n auth_type AH\n auth_pass s3cret\n }\n";
    let _b = segment.start(Host::B, Kind::Genuine, &config(Host::B, 2, secret, ""));
    segment.record();
    let _a = segment.start(Host::A, Kind::Ours(runtime), &config(Host::A, 2, "", ""));
    eventually("the refusal", || {
        segment.log(Host::A).contains("authentication header (AH) is not supported").then_some(())
    });
    let log = segment.log(Host::A);
    assert!(log.contains("10.77.0.2") && log.contains("auth-header"), "{log}");
    // Another one of the kind, which is not told.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(segment.log(Host::A).matches("auth-header").count(), 1);
    let seen = segment.recorded("ah && ip.src == 10.77.0.2", &["ah.spi"]);
    assert!(!seen.is_empty(), "keepalived sent none");
}

fn virtual_macs_move_with_the_address(runtime: Runtime, extra: &str, first: Kind, second: Kind) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(mut segment) = Segment::make() else { return };
    let sends_below = extra.contains("vmac_xmit_base");
    segment.record();
    let a = segment.start(Host::A, first, &config(Host::A, 3, extra, ""));
    segment.wait_for(Host::A, ADDRESS);
    let _b = segment.start(Host::B, second, &config(Host::B, 3, extra, ""));
    let links = segment.run(Host::A, "ip -o link show type macvlan");
    assert!(links.contains("00:00:5e:00:01:33"), "{links}");
    // Whoever asks is told the virtual MAC.
    segment.run(Host::C, &format!("ping -c 1 -W 2 {ADDRESS}"));
    eventually("the backup", || segment.log(Host::B).contains("BACKUP").then_some(()));
    // Ten adverts of each are enough to judge.
    std::thread::sleep(Duration::from_secs(1));
    a.signal(Signal::KILL);
    if first == Kind::Ours(runtime) {
        // Its guardian takes the address away, or two hosts would answer for one MAC.
        segment.wait_for(Host::B, ADDRESS);
    } else {
        eventually("the takeover", || segment.has(Host::B, ADDRESS).then_some(()));
    }
    std::thread::sleep(Duration::from_secs(1));
    let arp = "arp.isgratuitous == 1 || arp.opcode == 2";
    let arp = format!("({arp}) && arp.src.proto_ipv4 == {ADDRESS}");
    let told = segment.recorded(&arp, &["eth.src", "arp.src.hw_mac"]);
    assert!(told.len() > 5);
    for one in &told {
        assert_eq!(one, &["00:00:5e:00:01:33", "00:00:5e:00:01:33"]);
    }
    let adverts = segment.recorded("vrrp", &["eth.src", "vrrp.checksum.status", "ip.src"]);
    for from in ["10.77.0.1", "10.77.0.2"] {
        let count = adverts.iter().filter(|advert| advert[2] == from).count();
        assert!(count > 5, "{count} adverts of {from} in {adverts:?}");
    }
    for advert in &adverts {
        assert_eq!(advert[0] == "00:00:5e:00:01:33", !sends_below, "{advert:?}");
        assert_eq!(advert[1], "1");
    }
}

fn a_virtual_mac_over_keepalived(runtime: Runtime) {
    virtual_macs_move_with_the_address(runtime, " use_vmac\n", Kind::Ours(runtime), Kind::Genuine);
}

fn a_virtual_mac_under_keepalived(runtime: Runtime) {
    virtual_macs_move_with_the_address(runtime, " use_vmac\n", Kind::Genuine, Kind::Ours(runtime));
}

fn a_virtual_mac_with_adverts_from_below(runtime: Runtime) {
    let extra = " use_vmac\n vmac_xmit_base\n";
    virtual_macs_move_with_the_address(runtime, extra, Kind::Ours(runtime), Kind::Genuine);
}

/// Takes every advert and announcement apart, makes it again without its checksum, and compares.
const JUDGE: &str = r#"
import sys
from scapy.all import ARP, Ether, IP, IPv6, rdpcap
from scapy.layers.inet6 import ICMPv6ND_NA
from scapy.layers.vrrp import VRRP, VRRPv3
counts = {}
for packet in rdpcap(sys.argv[1]):
    raw = bytes(packet)
    for layer in (VRRPv3, VRRP, ICMPv6ND_NA, ARP):
        if layer in packet:
            break
    else:
        continue
    if layer is ARP and packet.psrc != packet.pdst:
        continue
    again = Ether(raw)
    if layer in (VRRP, VRRPv3):
        del again[layer].chksum
    if layer is ICMPv6ND_NA:
        del again[layer].cksum
    if IP in again:
        del again[IP].chksum
        del again[IP].len
    assert bytes(again) == raw, (layer, raw.hex(), bytes(again).hex())
    counts[layer.__name__] = counts.get(layer.__name__, 0) + 1
print(" ".join(f"{name}={counts[name]}" for name in sorted(counts)))
"#;

fn scapy_makes_the_same_packets(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark", "python3");
    let Some(scapy) = support::python::package(SCAPY) else { return };
    let Some(mut segment) = Segment::make() else { return };
    segment.record();
    for version in [2, 3] {
        let a = segment.start(Host::A, Kind::Ours(runtime), &config(Host::A, version, "", ""));
        segment.wait_for(Host::A, ADDRESS);
        leave(a);
    }
    let sixth = config(Host::A, 3, "", "").replace(&format!("{ADDRESS}/24"), "fe80::77:100/64");
    let a = segment.start(Host::A, Kind::Ours(runtime), &sixth);
    segment.wait_for(Host::A, "fe80::77:100");
    leave(a);
    segment.recorded("vrrp", &["frame.number"]);
    segment.scratch.write("judge.py", JUDGE);
    let mut command = std::process::Command::new("python3");
    command.arg(segment.path("judge.py")).arg(segment.path("seen.pcap"));
    let output = command.env("PYTHONPATH", scapy).output().unwrap();
    let (told, why) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{why}");
    for kind in ["ARP=", "ICMPv6ND_NA=", "VRRP=", "VRRPv3="] {
        assert!(told.contains(kind), "{told}");
    }
}

/// Sends five of each kind of advert that must not count.
const LIAR: &str = r#"
import struct
from scapy.all import Ether, IP, Raw, sendp
def total(data):
    if len(data) % 2:
        data += b"\0"
    value = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while value >> 16:
        value = (value & 0xffff) + (value >> 16)
    return ~value & 0xffff
def message(start=0x31, vrid=51, priority=200, count=1, extra=b"", damage=0, interval=10):
    body = struct.pack("!BBBBH", start, vrid, priority, count, interval)
    addresses = bytes([10, 77, 0, 100]) + extra
    checksum = total(body + b"\0\0" + addresses) ^ damage
    return body + struct.pack("!H", checksum) + addresses
def send(load, ttl=255, to="224.0.0.18", mac="01:00:5e:00:00:12"):
    packet = Ether(dst=mac) / IP(src="10.77.0.9", dst=to, proto=112, ttl=ttl) / Raw(load)
    sendp([packet] * 5, iface="e0", verbose=False)
send(message(damage=1))
send(message(), ttl=64)
send(message(start=0x51))
send(message(start=0x32))
send(message(extra=b"\1\2\3\4"))
send(message(interval=0))
send(struct.pack("!BBBBBBH", 0x21, 51, 200, 1, 0, 1, total(struct.pack("!BBBBBBH", 0x21, 51, 200, 1, 0, 1, 0) + bytes([10, 77, 0, 100]) + b"\0" * 8)) + bytes([10, 77, 0, 100]) + b"\0" * 8)
send(message(), to="10.77.0.1", mac="02:77:00:00:00:01")
send(message(vrid=77, damage=1))
"#;

fn liars_are_named_once_and_change_nothing(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark", "python3");
    let Some(scapy) = support::python::package(SCAPY) else { return };
    let Some(segment) = Segment::make() else { return };
    let _a = segment.start(Host::A, Kind::Ours(runtime), &config(Host::A, 3, "", ""));
    segment.wait_for(Host::A, ADDRESS);
    segment.scratch.write("liar.py", LIAR);
    let mut liar = segment.command(Host::C, "python3");
    let output = liar.arg(segment.path("liar.py")).env("PYTHONPATH", scapy).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let kinds = ["checksum", "ttl", "version", "type", "length", "interval", "unicast"];
    eventually("every kind", || {
        let log = segment.log(Host::A);
        let is_told = |kind: &str| {
            log.contains(&format!("kind=\"{kind}\"")) || log.contains(&format!("kind={kind}"))
        };
        kinds.iter().all(|kind| is_told(kind)).then_some(())
    });
    let log = segment.log(Host::A);
    let told = log.matches("an advert does not count").count();
    assert_eq!(told, kinds.len(), "{log}");
    assert!(segment.has(Host::A, ADDRESS), "a liar took the address away");
}

fn a_router_that_was_paused_reads_first_and_does_not_storm(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(mut segment) = Segment::make() else { return };
    let a = segment.start(Host::A, Kind::Ours(runtime), &config(Host::A, 3, "", ""));
    segment.wait_for(Host::A, ADDRESS);
    let _b = segment.start(Host::B, Kind::Genuine, &config(Host::B, 3, "", ""));
    eventually("the backup", || segment.log(Host::B).contains("BACKUP").then_some(()));
    segment.record();
    // Some of its adverts before the pause, or the pause is not seen in the recording.
    std::thread::sleep(Duration::from_millis(500));
    a.signal(Signal::STOP);
    eventually("the takeover", || segment.has(Host::B, ADDRESS).then_some(()));
    // Twenty of its adverts wait for who was paused.
    std::thread::sleep(Duration::from_secs(2));
    a.signal(Signal::CONT);
    segment.wait_for(Host::A, ADDRESS);
    std::thread::sleep(Duration::from_secs(1));
    let adverts = segment.recorded("vrrp", &["frame.time_epoch", "ip.src"]);
    let times = |from: &str| -> Vec<f64> {
        let of = adverts.iter().filter(|one| one[1] == from);
        of.map(|one| one[0].parse().unwrap()).collect()
    };
    let ours = times("10.77.0.1");
    let pause = ours.windows(2).position(|pair| pair[1] - pair[0] > 1.0);
    let pause = pause.unwrap_or_else(|| panic!("no pause in {adverts:?}"));
    let back = ours[pause + 1];
    let soon = ours.iter().filter(|&&at| at >= back && at < back + 0.05).count();
    assert!(soon <= 2, "{soon} adverts at once");
    let filter = "arp.isgratuitous == 1 && eth.src == 02:77:00:00:00:01";
    let announced = segment.recorded(filter, &["frame.time_epoch"]);
    let after = announced.iter().filter(|one| one[0].parse::<f64>().unwrap() >= back - 0.01);
    // Five when the claims are heard, five when they end, and the five that are due five seconds
    // after it became Active, if the machine is slow. One burst a claim would be a hundred.
    assert!(after.clone().count() <= 15, "{} announcements", after.count());
}

fn an_interface_that_goes_and_comes_back_is_taken_up_again(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(segment) = Segment::make() else { return };
    let _a = segment.start(Host::A, Kind::Ours(runtime), &config(Host::A, 3, "", ""));
    segment.wait_for(Host::A, ADDRESS);
    let _b = segment.start(Host::B, Kind::Genuine, &config(Host::B, 3, "", ""));
    segment.replace_cable(Host::A, false);
    eventually("the takeover", || segment.has(Host::B, ADDRESS).then_some(()));
    assert!(segment.log(Host::A).contains("FAULT"));
    segment.replace_cable(Host::A, true);
    segment.wait_for(Host::A, ADDRESS);
}

fn a_reload_moves_routes_and_prefixes(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(segment) = Segment::make() else { return };
    let routes =
        " virtual_routes {\n 10.99.1.0/24 via 10.77.0.9\n 10.99.2.0/24 via 10.77.0.9\n }\n";
    let a = segment.start(Host::A, Kind::Ours(runtime), &config(Host::A, 3, routes, ""));
    segment.wait_for(Host::A, ADDRESS);
    let has = |route: &str| segment.run(Host::A, "ip route show").contains(route);
    eventually("the routes", || (has("10.99.1.0/24") && has("10.99.2.0/24")).then_some(()));
    let fewer = " virtual_routes {\n 10.99.2.0/24 via 10.77.0.9\n }\n";
    let text =
        config(Host::A, 3, fewer, "").replace(&format!("{ADDRESS}/24"), &format!("{ADDRESS}/32"));
    segment.scratch.write("a.conf", &text);
    a.signal(Signal::HUP);
    eventually("the end of a route", || (!has("10.99.1.0/24")).then_some(()));
    assert!(has("10.99.2.0/24"));
    let shown = || segment.run(Host::A, &format!("ip -o addr show to {ADDRESS}"));
    eventually("the other prefix", || {
        let shown = shown();
        (shown.contains("/32") && !shown.contains("/24")).then_some(())
    });
    assert!(!segment.log(Host::A).contains("somebody removed"), "{}", segment.log(Host::A));
    leave(a);
    assert!(!has("10.99.2.0/24") && shown().is_empty());
}

fn what_is_removed_by_a_reload_is_told_as_deleted(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(segment) = Segment::make() else { return };
    let path = |name: &str| segment.path(name).display().to_string();
    let script = "#!/bin/sh\necho \"$@\" >> \"$(dirname \"$0\")/told\"\n";
    segment.scratch.write("tell", script);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(segment.path("tell"), mode).unwrap();
    let tell = path("tell");
    let framing = format!(
        "global_defs {{\n startup_script \"{tell} first\"\n shutdown_script \"{tell} last\"\n}}\n"
    );
    let extra = format!(" notify_deleted \"{tell} gone\"\n notify \"{tell}\"\n");
    let a = segment.start(Host::A, Kind::Ours(runtime), &config(Host::A, 3, &extra, &framing));
    segment.wait_for(Host::A, ADDRESS);
    let other = config(Host::A, 3, "", &framing).replace("vrrp_instance VI", "vrrp_instance VJ");
    segment.scratch.write("a.conf", &other.replace("router_id 51", "router_id 52"));
    a.signal(Signal::HUP);
    let deleted = "INSTANCE VI DELETED 150";
    eventually("what is told", || segment.scratch.read("told").contains(deleted).then_some(()));
    segment.wait_for(Host::A, ADDRESS);
    leave(a);
    let told = segment.scratch.read("told");
    let expected =
        ["first", "INSTANCE VI BACKUP 150", "INSTANCE VI MASTER 150", "gone", deleted, "last"];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

fn a_tracked_program_is_missed_at_once(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(segment) = Segment::make() else { return };
    std::fs::copy("/bin/sleep", segment.path("rk-tracked")).unwrap();
    let run = || {
        let program = segment.path("rk-tracked").display().to_string();
        Process::new(segment.command(Host::A, &program).arg("1000").spawn().unwrap())
    };
    let first = run();
    let top = format!(
        "vrrp_track_process worker {{\n process {}\n}}\n",
        segment.path("rk-tracked").display()
    );
    let tracks = " track_process {\n worker\n }\n";
    let _a = segment.start(Host::A, Kind::Ours(runtime), &config(Host::A, 3, tracks, &top));
    segment.wait_for(Host::A, ADDRESS);
    let _b = segment.start(Host::B, Kind::Genuine, &config(Host::B, 3, "", ""));
    eventually("the backup", || segment.log(Host::B).contains("BACKUP").then_some(()));
    first.signal(Signal::KILL);
    drop(first);
    // After the skew; its silence would be noticed no sooner than after 361 ms.
    segment.wait_for(Host::B, ADDRESS);
    let _second = run();
    segment.wait_for(Host::A, ADDRESS);
}

fn beside_pools_the_address_leaves_before_the_clients_do(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark", "python3");
    let Some(mut segment) = Segment::make() else { return };
    // Before the pool, which would be ill without it and give the address away.
    let _server = python(&segment, SILENT, "told");
    eventually("the server", || segment.scratch.read("told").contains("listens").then_some(()));
    let mut a = with_pools(&segment, runtime);
    segment.wait_for(Host::A, ADDRESS);
    let _b = segment.start(Host::B, Kind::Genuine, &config(Host::B, 3, "", ""));
    eventually("the backup", || segment.log(Host::B).contains("BACKUP").then_some(()));
    segment.record();
    // Somebody who keeps the process busy with leaving.
    let _client = python(&segment, PATIENT, "untold");
    eventually("the question", || segment.scratch.read("told").contains("asked").then_some(()));
    a.signal(Signal::TERM);
    segment.wait_for(Host::B, ADDRESS);
    assert!(a.status().is_none(), "it still serves who is connected");
    a.signal(Signal::TERM);
    eventually("the end", || a.status());
    assert_eq!(goodbyes(&mut segment), [["10.77.0.1"]]);
}

fn beside_pools_the_routers_are_read_again_too(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(segment) = Segment::make() else { return };
    let a = with_pools(&segment, runtime);
    segment.wait_for(Host::A, ADDRESS);
    let more = " virtual_ipaddress_excluded {\n 10.77.0.101/24\n }\n";
    segment.scratch.write("a.conf", &config(Host::A, 3, more, ""));
    a.signal(Signal::HUP);
    segment.wait_for(Host::A, "10.77.0.101");
    segment.scratch.write("a.conf", "vrrp_instance {\n");
    a.signal(Signal::HUP);
    eventually("the refusal", || {
        let text = "the old configuration of the virtual routers stays in use";
        segment.log(Host::A).contains(text).then_some(())
    });
    assert!(segment.has(Host::A, ADDRESS) && segment.has(Host::A, "10.77.0.101"));
    leave(a);
    assert!(!segment.has(Host::A, ADDRESS));
}

fn an_upgrade_keeps_the_address_and_says_nothing(runtime: Runtime) {
    need!("keepalived", "ip", "tcpdump", "tshark");
    let Some(mut segment) = Segment::make() else { return };
    let mut a = with_pools(&segment, runtime);
    segment.wait_for(Host::A, ADDRESS);
    let _b = segment.start(Host::B, Kind::Genuine, &config(Host::B, 3, "", ""));
    eventually("the backup", || segment.log(Host::B).contains("BACKUP").then_some(()));
    segment.record();
    let log = std::fs::File::create(segment.path("monitor")).unwrap();
    let mut monitor = segment.command(Host::A, "ip");
    let monitor = Process::new(monitor.args(["monitor", "address"]).stdout(log).spawn().unwrap());
    let mut upgrade = segment.command(Host::A, env!("CARGO_BIN_EXE_ringkeeper"));
    let output =
        upgrade.args(["upgrade", "--control"]).arg(segment.path("control")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    eventually("the end of the first", || a.status());
    eventually("the second, Active", || {
        let states = segment.log(Host::A).matches("enters state MASTER").count();
        (states >= 2).then_some(())
    });
    // Longer than the backup waits.
    std::thread::sleep(Duration::from_millis(600));
    drop(monitor);
    let seen = segment.scratch.read("monitor");
    assert!(!seen.contains("Deleted"), "{seen}");
    assert!(segment.has(Host::A, ADDRESS) && !segment.has(Host::B, ADDRESS));
    assert_eq!(goodbyes(&mut segment), Vec::<Vec<String>>::new());
}

on_every_runtime!(
    adverts_with_an_authentication_header_are_refused_by_name,
    a_virtual_mac_over_keepalived,
    a_virtual_mac_under_keepalived,
    a_virtual_mac_with_adverts_from_below,
    scapy_makes_the_same_packets,
    liars_are_named_once_and_change_nothing,
    a_router_that_was_paused_reads_first_and_does_not_storm,
    an_interface_that_goes_and_comes_back_is_taken_up_again,
    a_reload_moves_routes_and_prefixes,
    what_is_removed_by_a_reload_is_told_as_deleted,
    a_tracked_program_is_missed_at_once,
    beside_pools_the_address_leaves_before_the_clients_do,
    beside_pools_the_routers_are_read_again_too,
    an_upgrade_keeps_the_address_and_says_nothing,
);
