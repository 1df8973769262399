//! Whole hosts on a link: the joined machine, a kernel made of memory, a guardian, and operators
//! who remove addresses, pull cables, reload, pause and kill.
//!
//! Liveness: when that has stopped, each address is on exactly one host and stays there. Safety:
//! whoever is not running its virtual router has no address of it, unless its guardian died with
//! it.
#![allow(clippy::wildcard_enum_match_arm, reason = "what is not expected fails the test")]

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use ringkeeper_core::config::keepalived;
use ringkeeper_core::id::ChannelId;
use ringkeeper_core::io::{ChannelSpec, Command, Event, Input, Output, Trouble};
use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;
use ringkeeper_core::vrrp::Phase;
use ringkeeper_core::vrrp::keeper::{Keeper, Order, Will};
use ringkeeper_core::wire::ethernet::Mac;
use ringkeeper_core::wire::netlink::{self, AddressChange, Message, News};

const VIRTUAL: [&str; 2] = ["10.77.0.100", "10.77.0.101"];
const FAULTS_END: Duration = Duration::from_secs(20);
/// Three intervals and the skew of the lowest priority.
const MASTER_DOWN: Duration = Duration::from_millis(400);

struct Host {
    number: usize,
    keeper: Option<Keeper>,
    addresses: BTreeMap<IpAddr, u8>,
    open: BTreeMap<ChannelId, ChannelSpec>,
    will: Will,
    is_cut: bool,
    paused_until: Option<Instant>,
    /// What came and was not read, by channel.
    waiting: VecDeque<(ChannelId, Vec<u8>)>,
    has_more: bool,
}

struct Link {
    now: Instant,
    rng: Rng,
    hosts: Vec<Host>,
    flying: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sent: u64,
    loss: u64,
}

fn config(number: usize, has_more: bool) -> keepalived::Config {
    let priority = [100, 150, 150, 200][number % 4];
    let more = if has_more { VIRTUAL[1] } else { "" };
    let text = format!(
        "vrrp_instance VI {{\n interface e0\n virtual_router_id 51\n priority {priority}\n \
         version 3\n advert_int 0.1\n virtual_ipaddress {{\n {}/24\n }}\n \
         virtual_ipaddress_excluded {{\n {more}\n }}\n}}\n",
        VIRTUAL[0]
    );
    keepalived::parse(&text, "host").config.unwrap()
}

fn change(address: IpAddr) -> AddressChange {
    AddressChange {
        interface: 2,
        address,
        prefix: 24,
        scope: 0,
        label: None,
        broadcast: None,
        has_no_prefix_route: false,
    }
}

/// An address in the kernel's words.
fn told(address: IpAddr, origin: u8) -> Vec<u8> {
    let mut message = netlink::add_address(0, &change(address));
    let at = message.len() - 4;
    message[at] = origin;
    message
}

fn link_told(is_running: bool) -> Vec<u8> {
    let mut message = netlink::add_virtual_link(0, "e0", 1, Mac([2, 0x77, 0, 0, 0, 1]));
    message[20..24].copy_from_slice(&2_u32.to_ne_bytes());
    message[24..28].copy_from_slice(&u32::to_ne_bytes(if is_running { 0x41 } else { 1 }));
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
    fn new(number: usize) -> Self {
        let own: IpAddr = [10, 77, 0, number as u8 + 1].into();
        Self {
            number,
            keeper: None,
            addresses: BTreeMap::from([(own, 0)]),
            open: BTreeMap::new(),
            will: Will::default(),
            is_cut: false,
            paused_until: None,
            waiting: VecDeque::new(),
            has_more: false,
        }
    }

    fn channel(&self, is_it: impl Fn(&ChannelSpec) -> bool) -> Option<ChannelId> {
        self.open.iter().find(|(_, spec)| is_it(spec)).map(|(channel, _)| *channel)
    }

    fn monitor(&self) -> Option<ChannelId> {
        self.channel(|spec| matches!(spec, ChannelSpec::Netlink { groups } if *groups != 0))
    }

    fn query(&self) -> Option<ChannelId> {
        self.channel(|spec| matches!(spec, ChannelSpec::Netlink { groups: 0 }))
    }

    /// Carries a request out, as a kernel does: at once, the answers wait to be read.
    fn request(&mut self, bytes: &[u8]) {
        let Some(Message { request, news }) = netlink::messages(bytes).next() else { return };
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let (mut list, mut monitored) = (Vec::new(), None);
        match (kind, news) {
            (18, _) => {
                list = link_told(!self.is_cut);
                list.extend(answer(3, request, 0));
            }
            (22, _) => {
                let all = self.addresses.iter();
                all.for_each(|(&address, &origin)| list.extend(told(address, origin)));
                list.extend(answer(3, request, 0));
            }
            (_, News::Address(one)) => {
                self.addresses.insert(one.address, netlink::ORIGIN);
                monitored = Some(told(one.address, netlink::ORIGIN));
                list = answer(2, request, 0);
            }
            (_, News::AddressGone(one)) => {
                let errno = match self.addresses.remove(&one.address) {
                    Some(_) => 0,
                    None => netlink::EADDRNOTAVAIL,
                };
                monitored = (errno == 0).then(|| netlink::delete_address(0, &change(one.address)));
                list = answer(2, request, errno);
            }
            other => panic!("{other:?}"),
        }
        if let (Some(monitor), Some(news)) = (self.monitor(), monitored) {
            self.waiting.push_back((monitor, news));
        }
        if let Some(query) = self.query() {
            self.waiting.push_back((query, list));
        }
    }

    fn is_running(&self) -> bool {
        self.keeper.is_some() && self.paused_until.is_none()
    }

    fn phase(&self) -> Option<Phase> {
        self.keeper.as_ref().and_then(|keeper| keeper.phases().next()).map(|one| one.1)
    }

    fn has(&self, address: &str) -> bool {
        self.addresses.contains_key(&address.parse().unwrap())
    }
}

impl Link {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = 2 + rng.below(3) as usize;
        let hosts = (0..count).map(Host::new).collect();
        Self { now: Instant::START, rng, hosts, flying: BTreeMap::new(), sent: 0, loss: 0 }
    }

    fn boot(&mut self, number: usize) {
        let now = self.now;
        let host = &mut self.hosts[number];
        if host.keeper.is_none() {
            host.open.clear();
            host.waiting.clear();
            host.paused_until = None;
            host.keeper = Some(Keeper::new(config(number, host.has_more), true, now));
            self.turn(number);
        }
    }

    /// One turn: everything that waits is read, then timers, then effects; again while effects
    /// bring answers.
    fn turn(&mut self, number: usize) {
        for _ in 0..1000 {
            let now = self.now;
            let host = &mut self.hosts[number];
            let Some(keeper) = &mut host.keeper else { return };
            while let Some((channel, bytes)) = host.waiting.pop_front() {
                if host.open.contains_key(&channel) {
                    keeper.handle(now, Input::Datagram { channel, bytes: &bytes });
                }
            }
            if keeper.poll_timeout().is_some_and(|deadline| deadline.at <= now) {
                keeper.handle_timeout(now);
            }
            let mut outputs = Vec::new();
            while let Some(output) = keeper.poll_output() {
                outputs.push(output);
            }
            if outputs.is_empty() && self.hosts[number].waiting.is_empty() {
                return;
            }
            for output in outputs {
                self.perform(number, output);
            }
        }
        panic!("a turn without end");
    }

    fn perform(&mut self, number: usize, output: Output) {
        let now = self.now;
        let host = &mut self.hosts[number];
        match output {
            Output::OpenChannel { channel, spec } => {
                host.open.insert(channel, spec);
                let keeper = host.keeper.as_mut().unwrap();
                keeper.handle(now, Input::ChannelOpened { channel, result: Ok(()) });
            }
            Output::CloseChannel(channel) => drop(host.open.remove(&channel)),
            Output::Datagram { channel, bytes, .. } => match host.open.get(&channel) {
                Some(ChannelSpec::Netlink { .. }) => host.request(&bytes),
                Some(ChannelSpec::RawIp { .. }) => self.send(number, &bytes),
                Some(ChannelSpec::Guardian) => host.will = Will::parse(&bytes).unwrap(),
                Some(ChannelSpec::Frames { .. }) => {}
                Some(ChannelSpec::Resets) => {
                    let answer = Order::parse(&bytes).unwrap().answer().to_vec();
                    host.waiting.push_back((channel, answer));
                }
                other => panic!("sent to {other:?}"),
            },
            Output::Event(Event::Drained) => host.keeper = None,
            Output::Event(_) => {}
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, from: usize, packet: &[u8]) {
        for to in 0..self.hosts.len() {
            let is_cut = self.hosts[from].is_cut || self.hosts[to].is_cut;
            let is_lost = self.loss > 0 && self.rng.is_one_in(1, self.loss);
            if to != from && !is_cut && !is_lost {
                let delay = Duration::from_micros(100 + self.rng.below(4000));
                self.sent += 1;
                self.flying.insert((self.now + delay, self.sent), (to, packet.to_vec()));
            }
        }
    }

    fn run(&mut self, until: Instant) {
        for _ in 0..1_000_000 {
            let timers = self.hosts.iter().filter_map(|host| {
                let due = host.keeper.as_ref()?.poll_timeout().map(|deadline| deadline.at);
                let due = host.paused_until.or(due)?;
                Some((due.max(self.now), host.number))
            });
            let timer = timers.min();
            let packet = self.flying.keys().next().map(|&(at, _)| at);
            let next = [timer.map(|(at, _)| at), packet].into_iter().flatten().min();
            let Some(next) = next.filter(|&next| next <= until) else {
                self.now = until;
                return;
            };
            self.now = next;
            let number = if packet == Some(next) {
                let (_, (to, bytes)) = self.flying.pop_first().unwrap();
                let host = &mut self.hosts[to];
                if let Some(raw) = host.channel(|one| matches!(one, ChannelSpec::RawIp { .. })) {
                    host.waiting.push_back((raw, bytes));
                }
                to
            } else {
                let number = timer.unwrap().1;
                self.hosts[number].paused_until = None;
                number
            };
            if self.hosts[number].is_running() {
                self.turn(number);
            }
        }
        panic!("time does not pass");
    }

    /// The process dies; its guardian does what is left, unless it dies too.
    fn kill(&mut self, number: usize, has_guardian: bool) {
        let host = &mut self.hosts[number];
        if host.keeper.take().is_none() {
            return;
        }
        host.open.clear();
        host.waiting.clear();
        host.paused_until = None;
        let will = std::mem::take(&mut host.will);
        if has_guardian {
            for request in &will.requests {
                self.hosts[number].request(request);
            }
            for goodbye in &will.goodbyes {
                self.send(number, &goodbye.bytes);
            }
            assert!(VIRTUAL.iter().all(|one| !self.hosts[number].has(one)), "left behind");
        }
    }

    fn monitored(&mut self, number: usize, news: Vec<u8>) {
        if let Some(monitor) = self.hosts[number].monitor() {
            self.hosts[number].waiting.push_back((monitor, news));
        }
        if self.hosts[number].is_running() {
            self.turn(number);
        }
    }

    fn set_cable(&mut self, number: usize, is_cut: bool) {
        if self.hosts[number].is_cut != is_cut {
            self.hosts[number].is_cut = is_cut;
            self.monitored(number, link_told(!is_cut));
        }
    }

    fn inject_fault(&mut self) {
        let number = self.rng.below(self.hosts.len() as u64) as usize;
        let now = self.now;
        match self.rng.below(11) {
            0 => self.loss = [0, 2, 3, 10][self.rng.below(4) as usize],
            1 => self.loss = 0,
            2 => self.set_cable(number, true),
            3 => self.set_cable(number, false),
            4 => self.kill(number, true),
            5 => self.kill(number, false),
            6 | 7 => self.boot(number),
            8 if self.hosts[number].is_running() => {
                let pause = Duration::from_millis(self.rng.below(2000));
                self.hosts[number].paused_until = Some(now + pause);
            }
            9 => {
                let address = VIRTUAL[self.rng.below(2) as usize].parse().unwrap();
                if self.hosts[number].addresses.remove(&address).is_some() {
                    self.monitored(number, netlink::delete_address(0, &change(address)));
                }
            }
            10 if self.hosts[number].is_running() => self.reload_or_leave(number),
            _ => {}
        }
    }

    fn reload_or_leave(&mut self, number: usize) {
        let now = self.now;
        let host = &mut self.hosts[number];
        let keeper = host.keeper.as_mut().unwrap();
        if self.rng.is_one_in(1, 2) {
            host.has_more = !host.has_more;
            keeper.replace(now, config(number, host.has_more));
        } else {
            let limit = Duration::ZERO;
            keeper.handle(now, Input::Command(Command::Drain { limit }));
        }
        self.turn(number);
        if self.hosts[number].keeper.is_none() {
            assert!(VIRTUAL.iter().all(|one| !self.hosts[number].has(one)), "left behind");
        }
    }

    fn stop_faults(&mut self) {
        self.loss = 0;
        for number in 0..self.hosts.len() {
            self.hosts[number].paused_until = None;
            self.set_cable(number, false);
            self.boot(number);
            let now = self.now;
            let host = &mut self.hosts[number];
            host.has_more = true;
            host.keeper.as_mut().unwrap().replace(now, config(number, true));
            self.turn(number);
        }
    }

    fn holders(&self, address: &str) -> Vec<usize> {
        self.hosts.iter().filter(|host| host.has(address)).map(|host| host.number).collect()
    }
}

fn simulate(seed: u64) {
    let mut link = Link::new(seed);
    for number in 0..link.hosts.len() {
        link.boot(number);
    }
    let end = Instant::START + FAULTS_END;
    let mut time = Instant::START;
    while time < end {
        link.run(time);
        link.inject_fault();
        time += Duration::from_millis(1 + link.rng.below(400));
    }
    link.stop_faults();
    // What somebody keeps removing is given up for a master-down time.
    let settled = link.now + MASTER_DOWN * 3 + Duration::from_secs(2);
    link.run(settled);
    let winner = link.holders(VIRTUAL[0]);
    let phases: Vec<_> = link.hosts.iter().map(Host::phase).collect();
    assert_eq!(winner.len(), 1, "{winner:?} of {phases:?}");
    assert_eq!(link.holders(VIRTUAL[1]), winner, "addresses move together");
    for beat in 1..20 {
        link.run(settled + Duration::from_millis(beat * 100));
        assert_eq!(link.holders(VIRTUAL[0]), winner);
    }
    assert_eq!(link.hosts[winner[0]].phase(), Some(Phase::Active));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn each_address_is_on_one_host_whatever_happened_before(seed in any::<u64>()) {
        simulate(seed);
    }
}

#[test]
fn each_address_is_on_one_host_for_the_first_seeds() {
    for seed in 0..50 {
        simulate(seed);
    }
}

/// A guardian that dies takes no address along.
#[test]
fn a_guardian_that_dies_alone_changes_nothing() {
    let mut link = Link::new(1);
    link.boot(0);
    link.run(Instant::START + Duration::from_secs(1));
    assert!(link.hosts[0].has(VIRTUAL[0]));
    let guardian = link.hosts[0].channel(|spec| *spec == ChannelSpec::Guardian).unwrap();
    let (now, host) = (link.now, &mut link.hosts[0]);
    host.will = Will::default();
    let trouble = Trouble::Ended(0);
    host.keeper.as_mut().unwrap().handle(now, Input::Trouble { channel: guardian, trouble });
    link.run(now + Duration::from_millis(10));
    assert!(link.hosts[0].has(VIRTUAL[0]) && !link.hosts[0].will.is_empty());
}
