//! The machine on a kernel made of memory: what it asks for is carried out and told back.
#![allow(clippy::wildcard_enum_match_arm, reason = "what is not expected fails the test")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::config::keepalived;
use crate::io::{CloseReason, Errand, Exit};
use crate::wire::netlink::{AddressChange, Message, add_address, delete_address};

const VIRTUAL: &str = "10.77.0.100";

fn config(text: &str) -> Config {
    let parsed = keepalived::parse(text, "host");
    parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
}

fn usual(extra: &str, top: &str) -> Config {
    config(&format!(
        "{top}\nvrrp_instance VI {{\n interface e0\n virtual_router_id 51\n priority 150\n version 3\n \
         advert_int 0.1\n virtual_ipaddress {{\n {VIRTUAL}/24\n }}\n{extra}}}\n"
    ))
}

/// One host: the machine, its kernel, and what left it.
struct Host {
    keeper: Keeper,
    now: Instant,
    addresses: BTreeMap<IpAddr, u8>,
    monitor: Option<ChannelId>,
    query: Option<ChannelId>,
    guardian: Option<ChannelId>,
    open: BTreeMap<ChannelId, ChannelSpec>,
    adverts: Vec<(Instant, Vec<u8>)>,
    frames: usize,
    wills: Vec<Will>,
    events: Vec<Event>,
    errands: Vec<Errand>,
    connects: Vec<crate::id::ConnId>,
    lines: String,
    refused: Option<i32>,
    /// Interfaces with a virtual MAC that were asked for.
    above_asked: usize,
    /// Routes added and removed.
    routes: (usize, usize),
    /// Who has had connections reset, and whether that is answered.
    orders: Vec<Order>,
    is_deaf: bool,
    links_removed: usize,
}

fn change(address: &str) -> AddressChange {
    AddressChange {
        interface: 2,
        address: address.parse().unwrap(),
        prefix: 24,
        scope: 0,
        label: None,
        broadcast: None,
        has_no_prefix_route: false,
    }
}

/// News of a link, in the kernel's words.
fn link(is_running: bool) -> Vec<u8> {
    let mut message =
        netlink::add_virtual_link(0, "e0", 1, crate::wire::ethernet::Mac([2, 0x77, 0, 0, 0, 1]));
    message[20..24].copy_from_slice(&2_u32.to_ne_bytes());
    let flags: u32 = if is_running { 0x41 } else { 1 };
    message[24..28].copy_from_slice(&flags.to_ne_bytes());
    message
}

fn answer(kind: u16, request: u32, errno: i32) -> Vec<u8> {
    let mut bytes = 20_u32.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0, 0]);
    bytes.extend(request.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend((-errno).to_ne_bytes());
    bytes
}

impl Host {
    fn new(config: Config, left: &[&str]) -> Self {
        let mut host = Self {
            keeper: Keeper::new(config, true, Instant::START),
            now: Instant::START,
            addresses: BTreeMap::new(),
            monitor: None,
            query: None,
            guardian: None,
            open: BTreeMap::new(),
            adverts: Vec::new(),
            frames: 0,
            wills: Vec::new(),
            events: Vec::new(),
            errands: Vec::new(),
            connects: Vec::new(),
            lines: String::new(),
            refused: None,
            above_asked: 0,
            routes: (0, 0),
            orders: Vec::new(),
            is_deaf: false,
            links_removed: 0,
        };
        host.addresses.insert("10.77.0.1".parse().unwrap(), 0);
        for address in left {
            host.addresses.insert(address.parse().unwrap(), netlink::ORIGIN);
        }
        host.turn();
        host
    }

    fn input(&mut self, input: Input<'_>) {
        self.keeper.handle(self.now, input);
        self.turn();
    }

    fn monitored(&mut self, bytes: &[u8]) {
        let channel = self.monitor.unwrap();
        self.input(Input::Datagram { channel, bytes });
    }

    /// Does what is wanted until nothing is.
    fn turn(&mut self) {
        while let Some(output) = self.keeper.poll_output() {
            match output {
                Output::OpenChannel { channel, spec } => self.open(channel, spec),
                Output::CloseChannel(channel) => drop(self.open.remove(&channel)),
                Output::Datagram { channel, bytes, .. } => self.send(channel, bytes),
                Output::Event(event) => self.events.push(event),
                Output::Errand(errand) => self.errands.push(errand),
                Output::Connect { conn, .. } => self.connects.push(conn),
                Output::Close { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn open(&mut self, channel: ChannelId, spec: ChannelSpec) {
        match &spec {
            ChannelSpec::Netlink { groups: 0 } => self.query = Some(channel),
            ChannelSpec::Netlink { .. } => self.monitor = Some(channel),
            ChannelSpec::Guardian => self.guardian = Some(channel),
            _ => {}
        }
        let is_raw = matches!(spec, ChannelSpec::RawIp { .. });
        if let Some(errno) = self.refused.filter(|_| is_raw) {
            return self.input(Input::ChannelOpened { channel, result: Err(errno) });
        }
        self.open.insert(channel, spec);
        self.input(Input::ChannelOpened { channel, result: Ok(()) });
    }

    fn send(&mut self, channel: ChannelId, bytes: Vec<u8>) {
        match self.open.get(&channel) {
            Some(ChannelSpec::Netlink { .. }) => self.request(&bytes),
            Some(ChannelSpec::RawIp { .. }) => self.adverts.push((self.now, bytes)),
            Some(ChannelSpec::Frames { .. }) => self.frames += 1,
            Some(ChannelSpec::Guardian) => self.wills.push(Will::parse(&bytes).unwrap()),
            Some(ChannelSpec::Resets) => {
                let order = Order::parse(&bytes).unwrap();
                let answer = order.answer();
                self.orders.push(order);
                if !self.is_deaf {
                    self.input(Input::Datagram { channel, bytes: &answer });
                }
            }
            Some(ChannelSpec::Fifo { .. }) => self.lines += &String::from_utf8(bytes).unwrap(),
            other => panic!("sent to {other:?}"),
        }
    }

    /// What a kernel does with a request.
    fn request(&mut self, bytes: &[u8]) {
        let Message { request, news } = netlink::messages(bytes).next().unwrap();
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let query = self.query.unwrap();
        match (kind, news) {
            (18, _) => {
                let mut list = link(true);
                list.extend(answer(3, request, 0));
                self.input(Input::Datagram { channel: query, bytes: &list });
            }
            (22, _) => {
                let mut list = Vec::new();
                for (address, origin) in &self.addresses {
                    let mut one = add_address(0, &change(&address.to_string()));
                    if *origin == 0 {
                        // The origin is the last byte that says something.
                        let at = one.len() - 4;
                        one[at] = 0;
                    }
                    list.extend(one);
                }
                list.extend(answer(3, request, 0));
                self.input(Input::Datagram { channel: query, bytes: &list });
            }
            (_, News::Address(address)) => {
                let is_new = self.addresses.insert(address.address, netlink::ORIGIN).is_none();
                let errno = if is_new { 0 } else { netlink::EEXIST };
                if is_new {
                    self.monitored(bytes);
                }
                self.input(Input::Datagram { channel: query, bytes: &answer(2, request, errno) });
            }
            (_, News::AddressGone(address)) => {
                let was_there = self.addresses.remove(&address.address).is_some();
                if was_there {
                    self.monitored(bytes);
                }
                let errno = if was_there { 0 } else { netlink::EADDRNOTAVAIL };
                self.input(Input::Datagram { channel: query, bytes: &answer(2, request, errno) });
            }
            (16, _) => {
                self.above_asked += 1;
                self.input(Input::Datagram { channel: query, bytes: &answer(2, request, 0) });
            }
            (17, _) => {
                self.links_removed += 1;
                self.input(Input::Datagram { channel: query, bytes: &answer(2, request, 0) });
            }
            (24 | 25, _) => {
                self.routes.0 += usize::from(kind == 24);
                self.routes.1 += usize::from(kind == 25);
                self.input(Input::Datagram { channel: query, bytes: &answer(2, request, 0) });
            }
            other => panic!("{other:?}"),
        }
    }

    /// Lets the interface with the virtual MAC come or go.
    fn above_is(&mut self, is_there: bool) {
        let mac = crate::wire::ethernet::Mac([0, 0, 0x5e, 0, 1, 51]);
        let mut message = netlink::add_virtual_link(0, "vrrp.51", 2, mac);
        message[20..24].copy_from_slice(&3_u32.to_ne_bytes());
        message[24..28].copy_from_slice(&0x41_u32.to_ne_bytes());
        if !is_there {
            message[4..6].copy_from_slice(&17_u16.to_ne_bytes());
        }
        self.monitored(&message);
    }

    /// Lets time pass.
    fn run(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        let mut turns = 0;
        while let Some(deadline) = self.keeper.poll_timeout().filter(|one| one.at <= until) {
            turns += 1;
            assert!(turns < 10_000, "a timer that never ends: {}", deadline.why);
            self.now = deadline.at.max(self.now);
            self.keeper.handle_timeout(self.now);
            self.turn();
        }
        self.now = until;
    }

    fn phase(&self) -> Phase {
        self.keeper.phases().next().unwrap().1
    }

    fn has(&self, address: &str) -> bool {
        self.addresses.contains_key(&address.parse().unwrap())
    }

    fn goodbyes(&self) -> usize {
        self.adverts.iter().filter(|(_, bytes)| bytes[22] == 0).count()
    }

    /// Lets an advert of another router come in.
    fn hear(&mut self, priority: u8) {
        let (_, mut packet) = self.adverts.last().cloned().unwrap_or_else(|| (self.now, advert()));
        packet[15] = 2;
        packet[22] = priority;
        // Sums made anew: of the header, then of the message with its pseudo header.
        packet[10..12].fill(0);
        let sum = crate::wire::checksum::Checksum::new().plus(&packet[..20]).finish();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet[26..28].fill(0);
        let plain = crate::wire::checksum::Checksum::new().plus(&packet[20..]).finish();
        packet[26..28].copy_from_slice(&plain.to_be_bytes());
        let is_raw = |spec: &ChannelSpec| matches!(spec, ChannelSpec::RawIp { .. });
        let channel = *self.open.iter().find(|(_, spec)| is_raw(spec)).unwrap().0;
        self.input(Input::Datagram { channel, bytes: &packet });
    }
}

/// An advert of version 3 for the router 51.
fn advert() -> Vec<u8> {
    vec![
        0x45, 0xc0, 0, 0x20, 0, 1, 0, 0, 0xff, 0x70, 0, 0, 10, 77, 0, 2, 0xe0, 0, 0, 0x12, 0x31,
        51, 100, 1, 0, 10, 0, 0, 10, 77, 0, 100,
    ]
}

#[test]
fn a_router_alone_takes_the_address_and_gives_it_back_when_it_stops() {
    let mut host = Host::new(usual("", ""), &[]);
    assert_eq!(host.phase(), Phase::Backup);
    host.run(400);
    assert_eq!(host.phase(), Phase::Active);
    assert!(host.has(VIRTUAL));
    assert_eq!(host.frames, 5);
    let will = host.wills.last().unwrap();
    assert_eq!((will.goodbyes.len(), will.requests.len()), (1, 1));
    assert_eq!(will.goodbyes[0].bytes[22], 0, "priority zero");
    host.input(Input::Command(Command::Drain { limit: Duration::ZERO }));
    assert_eq!(host.goodbyes(), 1);
    host.run(99);
    assert!(host.has(VIRTUAL), "another may take it over until then");
    host.run(1);
    assert!(!host.has(VIRTUAL) && host.has("10.77.0.1"));
    assert!(host.wills.last().unwrap().is_empty());
    assert_eq!(host.events.last(), Some(&Event::Drained));
}

#[test]
fn nothing_leaves_without_reading_first_but_adverts_that_nobody_contests() {
    let mut host = Host::new(usual("", ""), &[]);
    let due = |host: &Host| host.keeper.poll_timeout().unwrap().at;
    assert!(host.keeper.reads_first(due(&host)), "a backup decides");
    host.run(400);
    assert!(host.keeper.reads_first(host.now + Duration::from_secs(6)), "announcements are due");
    host.run(5600);
    assert!(!host.keeper.reads_first(due(&host)));
    let (sent, since) = (host.adverts.len(), host.now);
    host.run(1000);
    assert_eq!((host.adverts.len() - sent, host.now.since(since).as_millis()), (10, 1000));

    host.hear(100);
    assert!(host.keeper.reads_first(due(&host)), "another claims the addresses");
    host.run(1000);
    assert!(!host.keeper.reads_first(due(&host)));

    let sent = host.adverts.len();
    host.now += Duration::from_secs(1);
    host.keeper.handle_timeout(host.now);
    host.turn();
    assert_eq!(host.adverts.len(), sent, "others had the time to take over");
    assert!(host.keeper.reads_first(due(&host)));
}

#[test]
fn figures_are_told_once_a_second_while_adverts_leave() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(6000);
    host.keeper.tell_figures();
    let mut told = 0;
    for _ in 0..30 {
        host.now = host.keeper.poll_timeout().unwrap().at;
        host.keeper.handle_timeout(host.now);
        while let Some(output) = host.keeper.poll_output() {
            match output {
                Output::Notice { .. } => told += 1,
                Output::Datagram { channel, bytes, .. } => host.send(channel, bytes),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(told, 3);
}

#[test]
fn an_address_that_somebody_removes_comes_back_at_once_but_not_forever() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(400);
    for _ in 0..limits::VRRP_REINSTATEMENTS_MAX {
        host.addresses.remove(&VIRTUAL.parse::<IpAddr>().unwrap());
        host.monitored(&delete_address(0, &change(VIRTUAL)));
        assert!(host.has(VIRTUAL) && host.phase() == Phase::Active);
    }
    host.addresses.remove(&VIRTUAL.parse::<IpAddr>().unwrap());
    host.monitored(&delete_address(0, &change(VIRTUAL)));
    assert_eq!((host.phase(), host.has(VIRTUAL), host.goodbyes()), (Phase::Backup, false, 1));
}

#[test]
fn what_a_crash_left_is_adopted_unless_another_is_active() {
    let mut host = Host::new(usual("", ""), &[VIRTUAL]);
    assert!(host.has(VIRTUAL) && host.phase() == Phase::Backup);
    host.run(150);
    assert_eq!(host.phase(), Phase::Active);
    assert!(host.has(VIRTUAL));

    let mut host = Host::new(usual("", ""), &[VIRTUAL]);
    host.run(50);
    host.hear(200);
    assert!(!host.has(VIRTUAL));
    host.run(150);
    assert_eq!(host.phase(), Phase::Backup);
}

#[test]
fn what_others_put_there_is_removed_at_the_start() {
    let mut host = Host::new(usual("", ""), &[]);
    host.addresses.insert(VIRTUAL.parse().unwrap(), 0);
    // The same file on a host that had the address before.
    let addresses = host.addresses.clone();
    let mut other = Host::new(usual("", "global_defs {\n vrrp_startup_delay 1\n}"), &[]);
    other.addresses = addresses;
    other.keeper.list_again();
    other.turn();
    other.run(1100);
    assert!(!other.has(VIRTUAL) && other.phase() == Phase::Backup);
}

#[test]
fn a_cable_that_is_pulled_is_a_fault_and_its_return_a_new_start() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(400);
    host.monitored(&link(false));
    assert_eq!((host.phase(), host.has(VIRTUAL), host.goodbyes()), (Phase::Fault, false, 2));
    host.monitored(&link(true));
    assert_eq!(host.phase(), Phase::Backup);
    host.run(400);
    assert!(host.has(VIRTUAL));
}

#[test]
fn a_socket_that_cannot_be_opened_is_a_fault_and_is_tried_again() {
    let mut host = Host::new(usual("", "global_defs {\n vrrp_startup_delay 0.001\n}"), &[]);
    assert_eq!(host.phase(), Phase::Init);
    let raw =
        *host.open.iter().find(|(_, spec)| matches!(spec, ChannelSpec::RawIp { .. })).unwrap().0;
    host.refused = Some(1);
    host.input(Input::Trouble { channel: raw, trouble: Trouble::Ended(1) });
    host.run(10);
    assert_eq!(host.phase(), Phase::Fault, "it could not hear anybody");
    host.refused = None;
    host.run(2500);
    assert_eq!(host.phase(), Phase::Active);
}

#[test]
fn a_check_without_weight_decides_whether_the_router_takes_part() {
    let script = "vrrp_script alive {\n script \"</dev/tcp/127.0.0.1/22121\"\n interval 1\n}";
    let mut host = Host::new(usual(" track_script {\n alive\n }\n", script), &[]);
    host.run(1);
    assert_eq!(host.phase(), Phase::Init, "nothing is known yet");
    let conn = host.connects.pop().unwrap();
    host.input(Input::Connected { conn, local: None });
    assert_eq!(host.phase(), Phase::Backup);
    host.run(1200);
    assert_eq!(host.phase(), Phase::Active);
    let conn = host.connects.pop().unwrap();
    host.input(Input::Closed { conn, reason: CloseReason::Refused });
    assert_eq!((host.phase(), host.goodbyes()), (Phase::Fault, 2));
    host.hear(100);
    assert!(!host.has(VIRTUAL));
}

#[test]
fn programs_are_told_in_order_and_pipes_get_lines() {
    let mut host = Host::new(
        usual(" notify /bin/tell\n", "global_defs {\n vrrp_notify_fifo /run/fifo\n}"),
        &[],
    );
    host.run(400);
    let words = |errand: &Errand| match errand {
        Errand::Run { job, program } => {
            (*job, String::from_utf8(program.argv.join(&b' ')).unwrap())
        }
        other => panic!("{other:?}"),
    };
    let (job, first) = words(&host.errands[0]);
    assert_eq!((first.as_str(), host.errands.len()), ("/bin/tell INSTANCE VI BACKUP 150", 1));
    host.input(Input::Exited { job, exit: Exit::Code(0) });
    assert_eq!(words(&host.errands[1]).1, "/bin/tell INSTANCE VI MASTER 150");
    assert_eq!(host.lines, "INSTANCE \"VI\" BACKUP 150\nINSTANCE \"VI\" MASTER 150\n");
}

#[test]
fn a_tracked_file_moves_the_priority() {
    let top = "vrrp_track_file f {\n file /run/f\n weight 10\n}";
    let mut host = Host::new(usual(" track_file {\n f\n }\n", top), &[]);
    let is_file = |spec: &ChannelSpec| matches!(spec, ChannelSpec::WatchFile { .. });
    let channel = *host.open.iter().find(|(_, spec)| is_file(spec)).unwrap().0;
    for (text, priority) in [("3\n", 180), ("-100", 1), ("what", 150), ("", 150)] {
        host.input(Input::Datagram { channel, bytes: text.as_bytes() });
        assert_eq!(host.keeper.phases().next().unwrap().2, priority, "{text}");
    }
    host.input(Input::Datagram { channel, bytes: b"-1000" });
    assert_eq!(host.phase(), Phase::Fault);
}

#[test]
fn a_reload_keeps_the_state_and_gives_the_kernel_the_difference() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(400);
    let sent = host.adverts.len();
    let more = usual(" virtual_ipaddress_excluded {\n 10.77.0.101/24\n }\n", "");
    host.keeper.replace(host.now, more);
    host.turn();
    assert!(host.has("10.77.0.101") && host.has(VIRTUAL) && host.phase() == Phase::Active);
    host.keeper.replace(host.now, usual("", ""));
    host.turn();
    assert!(!host.has("10.77.0.101") && host.has(VIRTUAL));
    assert_eq!(host.adverts.len(), sent, "nobody has to know");
    host.keeper.replace(host.now, config("global_defs {\n}\n"));
    host.turn();
    assert_eq!((host.has(VIRTUAL), host.goodbyes()), (false, 1));
}

#[test]
fn a_guardian_that_dies_is_asked_for_again_and_gets_its_will() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(400);
    let (channel, wills) = (host.guardian.unwrap(), host.wills.len());
    host.input(Input::Trouble { channel, trouble: Trouble::Ended(0) });
    host.run(1);
    assert_eq!(host.wills.len(), wills + 1);
    assert!(!host.wills.last().unwrap().is_empty());
}

#[test]
fn adverts_that_do_not_count_are_counted_and_told_once() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(400);
    let is_raw = |spec: &ChannelSpec| matches!(spec, ChannelSpec::RawIp { .. });
    let channel = *host.open.iter().find(|(_, spec)| is_raw(spec)).unwrap().0;
    host.events.clear();
    for _ in 0..10 {
        host.input(Input::Datagram { channel, bytes: &advert()[..20] });
    }
    assert_eq!(host.keeper.refusals().collect::<Vec<_>>(), [("VI", "ip-header", 10)]);
    assert_eq!(host.events.len(), 1);
}

#[test]
fn members_of_a_group_move_together() {
    let instance = |name: &str, number: u8| {
        format!(
            "vrrp_instance {name} {{\n interface e0\n virtual_router_id {number}\n version 3\n \
             advert_int 0.1\n virtual_ipaddress {{\n 10.77.0.10{number}/24\n }}\n}}\n"
        )
    };
    let text =
        instance("A", 1) + &instance("B", 2) + "vrrp_sync_group G {\n group {\n A\n B\n }\n}\n";
    let mut host = Host::new(config(&text), &[]);
    host.run(600);
    let phases: Vec<_> = host.keeper.phases().map(|(_, phase, _)| phase).collect();
    assert_eq!(phases, [Phase::Active, Phase::Active]);
    assert!(host.has("10.77.0.101") && host.has("10.77.0.102"));
    host.monitored(&link(false));
    let phases: Vec<_> = host.keeper.phases().map(|(_, phase, _)| phase).collect();
    assert_eq!(phases, [Phase::Fault, Phase::Fault]);
    assert!(!host.has("10.77.0.101") && !host.has("10.77.0.102"));
}

fn health(source: &str, health: crate::io::Health) -> Input<'static> {
    let source = source.into();
    Input::Notice(Notice::Health(crate::io::HealthNews { source, health }))
}

fn ill() -> crate::io::Health {
    crate::io::Health::Ill { why: "no server answers".into() }
}

#[test]
fn an_ill_pool_makes_its_router_leave_in_the_same_turn() {
    let mut host = Host::new(usual("", ""), &[]);
    host.input(health("pool alpha", crate::io::Health::Well));
    host.run(1000);
    host.input(health("pool alpha", ill()));
    assert_eq!((host.phase(), host.goodbyes()), (Phase::Backup, 1));
    assert_eq!(host.adverts.last().unwrap().0, host.now);
    // Another takes over, of lower priority: it is left alone.
    for _ in 0..20 {
        host.hear(100);
        host.run(100);
    }
    assert_eq!(host.phase(), Phase::Backup);
    host.input(health("pool alpha", crate::io::Health::Well));
    for _ in 0..8 {
        host.hear(100);
        host.run(100);
    }
    assert_eq!(host.phase(), Phase::Backup, "it must be well for a second");
    for _ in 0..8 {
        host.hear(100);
        host.run(100);
    }
    assert_eq!(host.phase(), Phase::Active);
}

#[test]
fn who_is_ill_has_the_addresses_if_nobody_else_does() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(1000);
    host.input(health("pool alpha", ill()));
    host.run(500);
    assert_eq!((host.phase(), host.goodbyes()), (Phase::Active, 1));
    assert_eq!(host.adverts.last().unwrap().1[22], 1, "its priority");
    // It leaves for each thing that falls ill, not again and again for one.
    host.input(health("pool alpha", ill()));
    host.input(health("pool beta", ill()));
    host.keeper.replace(host.now, usual(" garp_master_repeat 2\n", ""));
    host.turn();
    assert_eq!((host.phase(), host.goodbyes()), (Phase::Active, 1));
    host.input(health("pool alpha", crate::io::Health::Gone));
    assert_eq!(host.keeper.phases().next().unwrap().2, 1);
    host.input(health("pool beta", crate::io::Health::Gone));
    assert_eq!(host.keeper.phases().next().unwrap().2, 150);
}

#[test]
fn a_reload_in_a_fault_does_not_end_it_for_a_moment() {
    let scripts =
        "vrrp_script one {\n script /bin/one\n}\nvrrp_script two {\n script /bin/two\n}\n";
    let tracks = " track_script {\n one\n two\n }\n";
    let mut host = Host::new(usual(tracks, scripts), &[]);
    host.run(1);
    let jobs: Vec<_> = host
        .errands
        .iter()
        .filter_map(|errand| match errand {
            Errand::Run { job, .. } => Some(*job),
            _ => None,
        })
        .collect();
    assert_eq!(jobs.len(), 2);
    host.input(Input::Exited { job: jobs[0], exit: Exit::Code(0) });
    host.input(Input::Exited { job: jobs[1], exit: Exit::Code(1) });
    assert_eq!(host.phase(), Phase::Fault);
    let told = host.events.len();
    host.keeper.replace(host.now, usual(&format!("{tracks} garp_master_repeat 2\n"), scripts));
    host.turn();
    assert_eq!((host.phase(), host.events.len()), (Phase::Fault, told));
}

#[test]
fn a_priority_that_a_reload_changes_counts_at_once() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(1000);
    let text = "vrrp_instance VI {\n interface e0\n virtual_router_id 51\n priority 90\n version 3\n \
                advert_int 0.1\n virtual_ipaddress {\n 10.77.0.100/24\n }\n}\n";
    host.keeper.replace(host.now, config(text));
    host.turn();
    host.run(150);
    assert_eq!(host.adverts.last().unwrap().1[22], 90);
}

#[test]
fn a_process_that_hands_over_leaves_the_addresses_and_says_nothing() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(1000);
    host.input(Input::Command(Command::HandOver { limit: Duration::ZERO }));
    assert!(host.has(VIRTUAL));
    assert_eq!(host.goodbyes(), 0);
    assert!(host.wills.last().unwrap().is_empty(), "its guardian has nothing to do");
    assert_eq!(host.events.last(), Some(&Event::Drained));
}

#[test]
fn an_interface_with_a_virtual_mac_that_somebody_deletes_is_made_again() {
    let asked = |host: &Host| -> usize {
        let refused = |event: &&Event| {
            matches!(event, Event::Router { news: RouterNews::ChangeFailed { what, .. }, .. }
                if what.starts_with("add the interface"))
        };
        host.events.iter().filter(refused).count()
    };
    let mut host = Host::new(usual(" use_vmac\n", ""), &[]);
    assert_eq!((asked(&host), host.above_asked), (0, 1));
    host.above_is(true);
    host.run(1000);
    assert_eq!(host.phase(), Phase::Active);
    host.above_is(false);
    assert_eq!((host.phase(), host.above_asked), (Phase::Fault, 2));
    host.above_is(true);
    host.run(1000);
    assert_eq!(host.phase(), Phase::Active);
}

#[test]
fn a_router_that_a_reload_adds_does_not_begin_with_a_fault() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(1000);
    let second = "vrrp_instance VJ {\n interface e0\n virtual_router_id 52\n version 2\n \
                  virtual_ipaddress {\n 10.77.0.150/24\n }\n}\n";
    host.keeper.replace(host.now, usual("", second));
    host.turn();
    host.run(10);
    let states: Vec<_> = host
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Router { router, news: RouterNews::State { state, .. } } if router == "VJ" => {
                Some(*state)
            }
            _ => None,
        })
        .collect();
    assert_eq!(states, ["BACKUP"]);
}

#[test]
fn a_reload_takes_routes_and_prefixes_over_and_keeps_what_checks_know() {
    let script = "vrrp_script one {\n script /bin/one\n}\n";
    let text = |routes: &str, interval: u32| {
        usual(
            &format!(" track_script {{\n one\n }}\n virtual_routes {{\n{routes}\n }}\n"),
            &script.replace("}", &format!(" interval {interval}\n}}")),
        )
    };
    let both = "10.99.1.0/24 via 10.77.0.9\n10.99.2.0/24 via 10.77.0.9";
    let mut host = Host::new(text(both, 1), &[]);
    host.run(1);
    host.input(Input::Exited { job: JobId(1), exit: Exit::Code(0) });
    host.run(500);
    assert_eq!((host.phase(), host.routes), (Phase::Active, (2, 0)));
    host.keeper.replace(host.now, text("10.99.2.0/24 via 10.77.0.9", 5));
    host.turn();
    assert_eq!((host.phase(), host.goodbyes()), (Phase::Active, 0));
    // The one that stays is asked for again, which does no harm.
    assert_eq!(host.routes, (3, 1));
}

#[test]
fn what_frames_everything_is_waited_for_but_not_for_ever() {
    let top = "global_defs {\n startup_script /bin/first\n shutdown_script /bin/last\n \
               shutdown_script_timeout 3\n}\n";
    let ran = |host: &Host, word: &str| {
        host.errands.iter().any(|errand| {
            matches!(errand, Errand::Run { program, .. } if program.argv[0] == word.as_bytes())
        })
    };
    let mut host = Host::new(usual("", top), &[]);
    assert!(ran(&host, "/bin/first"));
    host.run(5000);
    assert_eq!(host.phase(), Phase::Init, "it is waited for");
    host.input(Input::Exited { job: JobId(1), exit: Exit::Code(0) });
    host.run(1000);
    assert_eq!(host.phase(), Phase::Active);
    host.input(Input::Command(Command::Drain { limit: Duration::ZERO }));
    assert!(!ran(&host, "/bin/last") && host.has(VIRTUAL));
    host.hear(100);
    assert!(ran(&host, "/bin/last") && !host.has(VIRTUAL));
    assert_ne!(host.events.last(), Some(&Event::Drained));
    host.run(2900);
    assert_ne!(host.events.last(), Some(&Event::Drained));
    host.run(5000);
    assert!(host.events.contains(&Event::Drained), "not for ever");
}

#[test]
fn what_a_reload_removes_is_told_as_deleted_where_that_is_asked_for() {
    for (extra, word) in [("", "FAULT"), (" notify_deleted /bin/gone\n", "DELETED")] {
        let pipe = "global_defs {\n vrrp_notify_fifo /run/pipe\n}\n";
        let mut host = Host::new(usual(extra, pipe), &[]);
        host.run(1000);
        host.keeper.replace(host.now, config(pipe));
        host.turn();
        assert!(host.lines.ends_with(&format!("INSTANCE \"VI\" {word} 150\n")), "{}", host.lines);
        assert_eq!(host.goodbyes(), 1);
    }
}

#[test]
fn an_address_stays_until_its_next_router_is_heard_and_its_clients_are_told_first() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(1000);
    host.input(health("pool alpha", ill()));
    assert_eq!((host.phase(), host.goodbyes()), (Phase::Backup, 1));
    assert!(host.has(VIRTUAL), "who connects meanwhile must not be unheard");
    let will = host.wills.last().unwrap();
    assert_eq!((will.goodbyes.len(), will.requests.len()), (0, 1), "somebody has to remove it");
    host.run(60);
    host.hear(0);
    assert!(host.has(VIRTUAL) && host.orders.is_empty(), "who leaves has taken nothing over");
    host.is_deaf = true;
    host.hear(100);
    let addresses: Vec<IpAddr> = vec![VIRTUAL.parse().unwrap()];
    let order = Order { number: 1, addresses };
    assert_eq!(host.orders, std::slice::from_ref(&order));
    assert!(host.has(VIRTUAL), "nothing can be said from an address that is gone");
    let is_resets = |spec: &ChannelSpec| matches!(spec, ChannelSpec::Resets);
    let channel = *host.open.iter().find(|(_, spec)| is_resets(spec)).unwrap().0;
    host.input(Input::Datagram { channel, bytes: &[0, 0, 0, 9] });
    assert!(host.has(VIRTUAL), "that was not the answer");
    host.input(Input::Datagram { channel, bytes: &order.answer() });
    assert!(!host.has(VIRTUAL));
    assert!(host.wills.last().unwrap().is_empty());
    host.input(Input::Datagram { channel, bytes: &order.answer() });
    host.hear(100);
    assert_eq!(host.orders.len(), 1);
}

#[test]
fn an_address_goes_without_an_answer_and_at_once_where_another_has_it() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(1000);
    host.is_deaf = true;
    host.hear(200);
    assert_eq!((host.phase(), host.orders.len()), (Phase::Backup, 1));
    host.run(14);
    assert!(host.has(VIRTUAL));
    host.run(1);
    assert!(!host.has(VIRTUAL));
}

#[test]
fn an_address_that_nobody_takes_over_is_left_for_a_moment_and_taken_again() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(1000);
    host.input(health("pool alpha", ill()));
    host.run(100);
    assert_eq!((host.has(VIRTUAL), host.orders.len()), (false, 1));
    host.run(400);
    assert_eq!((host.phase(), host.has(VIRTUAL)), (Phase::Active, true));
    // Nothing that is left over removes it later.
    host.run(1000);
    assert!(host.has(VIRTUAL));
}

#[test]
fn without_the_means_to_reset_an_address_goes_in_the_same_turn() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(1000);
    let is_resets = |spec: &ChannelSpec| matches!(spec, ChannelSpec::Resets);
    let channel = *host.open.iter().find(|(_, spec)| is_resets(spec)).unwrap().0;
    host.input(Input::Trouble { channel, trouble: Trouble::Ended(0) });
    host.input(health("pool alpha", ill()));
    assert_eq!((host.phase(), host.has(VIRTUAL)), (Phase::Backup, false));
}

#[test]
fn a_reload_that_gives_an_address_to_another_router_takes_it_from_nobody() {
    let mut host = Host::new(usual("", ""), &[]);
    host.run(1000);
    host.is_deaf = true;
    let text = "vrrp_instance OTHER {\n interface e0\n virtual_router_id 52\n priority 150\n \
                version 3\n advert_int 0.1\n virtual_ipaddress {\n 10.77.0.100/24\n }\n}\n";
    host.keeper.replace(host.now, config(text));
    host.turn();
    host.run(1000);
    assert!(host.has(VIRTUAL) && host.phase() == Phase::Active);
}

#[test]
fn an_interface_with_a_virtual_mac_goes_after_the_addresses_on_it() {
    let mut host = Host::new(usual(" use_vmac\n", ""), &[]);
    host.above_is(true);
    host.run(1000);
    host.is_deaf = true;
    host.input(Input::Command(Command::Drain { limit: Duration::ZERO }));
    host.hear(100);
    let (orders, removed) = (host.orders.len(), host.links_removed);
    assert_eq!((orders, removed, host.has(VIRTUAL)), (1, 0, true));
    host.run(15);
    assert_eq!((host.links_removed, host.has(VIRTUAL)), (1, false));
    assert_eq!(host.events.last(), Some(&Event::Drained));
}
