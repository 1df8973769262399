//! `virtual_server`, `virtual_server_group` and `real_server`: what their statements mean.
//!
//! What only the kernel's IPVS has (firewall marks, UDP, ways of forwarding) is told by name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use super::super::diagnostic::quoted;
use super::checker::{Checker, Defaults};
use super::grammar::{Statement, Word};
use super::model::Command;
use super::reader::{Reader, block};
use crate::limits;

/// How a server is chosen for a connection. Names and rules are those of Linux' IPVS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduler {
    /// One after the other.
    RoundRobin,
    /// One after the other, the heavier more often.
    WeightedRoundRobin,
    /// The one with the fewest connections.
    LeastConnection,
    /// The one with the fewest connections for its weight. keepalived's default.
    #[default]
    WeightedLeastConnection,
    /// By the client's address.
    SourceHash,
    /// By the client's address, so that few clients move when servers come and go.
    Maglev,
    /// By the address that the client called.
    DestinationHash,
    /// The one that would have the fewest connections for its weight with this one more.
    ShortestExpectedDelay,
    /// An idle one, else as [`Scheduler::ShortestExpectedDelay`].
    NeverQueue,
    /// The heaviest.
    FailOver,
    /// The heaviest until it has as many connections as its weight, then the next.
    Overflow,
    /// The better of two that are drawn.
    TwoChoices,
}

/// Clients stay with the server that they had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// How long after the last connection. Default 360 s.
    pub timeout: Duration,
    /// Leading bits of an IPv4 client's address that count. Default 32.
    pub bits_v4: u8,
    /// Leading bits of an IPv6 client's address that count. Default 128.
    pub bits_v6: u8,
}

/// Who serves when too few others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sorry {
    /// Where it is.
    pub address: SocketAddr,
    /// Whether its connections stay when the others are back: `sorry_server_inhibit`.
    pub is_inhibited: bool,
}

/// A server behind a virtual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServer {
    /// Where it is.
    pub address: SocketAddr,
    /// Its share, 0 to 65535; at 0 it gets nothing new. Default 1.
    pub weight: u32,
    /// Whether it keeps its connections when it is down: `inhibit_on_failure`.
    pub is_inhibited: bool,
    /// Connections from which on it gets none; 0 for no bound: `uthreshold`.
    pub upper: u32,
    /// Connections below which it gets some again: `lthreshold`.
    pub lower: u32,
    /// What is told when it comes up.
    pub notify_up: Option<Command>,
    /// What is told when it goes down.
    pub notify_down: Option<Command>,
    /// What finds out how it is; all must be content.
    pub checkers: Vec<Checker>,
}

/// An address whose connections are spread over servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualServer {
    /// Its name for people: address and port, or the group's name.
    pub name: String,
    /// Where its name stands in the text.
    pub span: Range<usize>,
    /// Where clients come to; never empty.
    pub listen: Vec<SocketAddr>,
    /// How a server is chosen.
    pub scheduler: Scheduler,
    /// Whether the client's port is hashed too: `sh-port`, `mh-port`.
    pub hashes_port: bool,
    /// Whether a hash that hits a server without room goes to another: `sh-fallback`,
    /// `mh-fallback`.
    pub falls_back: bool,
    /// Whether clients stay with their server.
    pub persistence: Option<Persistence>,
    /// The servers; never empty.
    pub servers: Vec<RealServer>,
    /// Who serves when too few do.
    pub sorry: Option<Sorry>,
    /// Weight of live servers that is enough. Default 1.
    pub quorum: u32,
    /// How far from the quorum the weight must be to change the verdict. Default 0.
    pub hysteresis: u32,
    /// What is told when the quorum is reached.
    pub quorum_up: Option<Command>,
    /// What is told when it is lost.
    pub quorum_down: Option<Command>,
    /// Whether the end of the process is told as the end of servers and quorum: `omega`.
    pub has_omega: bool,
    /// Whether servers are told who the client is, by version 2 of the PROXY protocol. A keyword
    /// of our own: `proxy_protocol`.
    pub sends_proxy: bool,
}

impl VirtualServer {
    /// Returns every program that may be run.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        let servers = self.servers.iter().flat_map(|server| {
            let told = [&server.notify_up, &server.notify_down].into_iter().flatten();
            told.chain(server.checkers.iter().filter_map(Checker::command))
        });
        [&self.quorum_up, &self.quorum_down].into_iter().flatten().chain(servers)
    }
}

/// Keywords of `virtual_server` that are read.
const SERVER: &[&str] = &[
    "delay_loop",
    "lb_algo",
    "lvs_sched",
    "lb_kind",
    "lvs_method",
    "persistence_timeout",
    "persistence_granularity",
    "protocol",
    "real_server",
    "sorry_server",
    "sorry_server_inhibit",
    "quorum",
    "hysteresis",
    "quorum_up",
    "quorum_down",
    "alpha",
    "omega",
    "virtualhost",
    "retry",
    "delay_before_retry",
    "warmup",
    "connect_timeout",
    "inhibit_on_failure",
    "sh-port",
    "sh-fallback",
    "mh-port",
    "mh-fallback",
    "flag-1",
    "flag-2",
    "proxy_protocol",
];

/// Keywords of `virtual_server` that keepalived knows and that do nothing here.
const SERVER_UNUSED: &[&str] = &[
    "persistence_engine",
    "ops",
    "hashed",
    "flag-3",
    "ha_suspend",
    "smtp_alert",
    "snmp_name",
    "ip_family",
    "sorry_server_lvs_method",
];

/// Keywords of `real_server` that are read.
const REAL: &[&str] = &[
    "weight",
    "lvs_method",
    "uthreshold",
    "lthreshold",
    "notify_up",
    "notify_down",
    "virtualhost",
    "alpha",
    "retry",
    "delay_before_retry",
    "warmup",
    "delay_loop",
    "connect_timeout",
    "inhibit_on_failure",
];

/// Keywords of `real_server` that keepalived knows and that do nothing here.
const REAL_UNUSED: &[&str] = &["smtp_alert", "snmp_name"];

/// Where a virtual server is, as its head says.
struct Head {
    name: String,
    listen: Vec<SocketAddr>,
}

/// What is known of a virtual server while its block is read.
struct Draft {
    made: VirtualServer,
    defaults: Defaults,
    protocol: Option<Word>,
    sorry: Option<SocketAddr>,
    is_sorry_inhibited: bool,
}

impl Reader<'_, '_> {
    /// Reads all virtual servers.
    pub(super) fn virtual_servers(&mut self, statements: &[Statement]) {
        let named = |keyword: &'static str| {
            statements.iter().filter(move |statement| statement.keyword.text == keyword)
        };
        let groups: Vec<&Statement> = named("virtual_server_group").collect();
        for statement in named("virtual_server") {
            let Some(head) = self.head(statement, &groups) else { continue };
            self.virtual_server(statement, head);
        }
    }

    fn head(&mut self, statement: &Statement, groups: &[&Statement]) -> Option<Head> {
        let span = &statement.keyword.span;
        let Some(first) = statement.arguments.first() else {
            self.warn("missing-address", span, "the virtual server has no address, ignored");
            return None;
        };
        let second = statement.arguments.get(1);
        match (first.text.as_str(), second) {
            ("fwmark", _) => {
                let message = "firewall marks are the kernel's: this virtual server is not served";
                self.warn("fwmark-not-served", &first.span, message);
                None
            }
            ("group", Some(name)) => {
                let is_it = |group: &&&Statement| {
                    group.arguments.first().is_some_and(|word| word.text == name.text)
                };
                let Some(group) = groups.iter().find(is_it) else {
                    let message = format!("there is no group {}, ignored", quoted(&name.text));
                    self.warn("unknown-server-group", &name.span, message);
                    return None;
                };
                let listen = self.group_addresses(group);
                Some(Head { name: name.text.clone(), listen })
            }
            _ => {
                let listen = self.endpoint(statement.arguments.get(..2).unwrap_or(&[]), first)?;
                Some(Head { name: listen.to_string(), listen: vec![listen] })
            }
        }
    }

    /// Reads an address and its port.
    fn endpoint(&mut self, words: &[Word], first: &Word) -> Option<SocketAddr> {
        let ip = self.address(first)?;
        let Some(port) = words.get(1) else {
            let message = "all ports of an address cannot be served: name one; ignored";
            self.warn("missing-port", &first.span, message);
            return None;
        };
        self.port(port).map(|port| SocketAddr::new(ip, port))
    }

    pub(super) fn port(&mut self, word: &Word) -> Option<u16> {
        let port = word.text.parse::<u16>().ok().filter(|port| *port > 0);
        if port.is_none() {
            let message = format!("{} is not a port, ignored", quoted(&word.text));
            self.warn("invalid-port", &word.span, message);
        }
        port
    }

    fn group_addresses(&mut self, group: &Statement) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        for item in block(group) {
            let first = &item.keyword;
            if first.text == "fwmark" {
                let message = "firewall marks are the kernel's: this one is not served";
                self.warn("fwmark-not-served", &first.span, message);
                continue;
            }
            let Some(port) = item.arguments.first() else {
                let message = "all ports of an address cannot be served: name one; ignored";
                self.warn("missing-port", &first.span, message);
                continue;
            };
            let Some(port) = self.port(port) else { continue };
            let Some(range) = range(&first.text) else {
                let message = format!("{} is no address, ignored", quoted(&first.text));
                self.warn("invalid-address", &first.span, message);
                continue;
            };
            if all.len() + range.len() > limits::VIRTUAL_ADDRESSES_MAX {
                let message = "the group has too many addresses; these are ignored";
                self.warn("too-many-addresses", &first.span, message);
                continue;
            }
            all.extend(range.into_iter().map(|ip| SocketAddr::new(ip, port)));
        }
        all
    }

    fn virtual_server(&mut self, statement: &Statement, head: Head) {
        let span = statement.arguments.first().map_or(0..0, |word| word.span.clone());
        let mut draft = Draft {
            made: VirtualServer {
                name: head.name,
                span,
                listen: head.listen,
                scheduler: Scheduler::default(),
                hashes_port: false,
                falls_back: false,
                persistence: None,
                servers: Vec::new(),
                sorry: None,
                quorum: 1,
                hysteresis: 0,
                quorum_up: None,
                quorum_down: None,
                has_omega: false,
                sends_proxy: false,
            },
            defaults: Defaults::default(),
            protocol: None,
            sorry: None,
            is_sorry_inhibited: false,
        };
        // First all that servers start from: a server may stand before it.
        for inner in block(statement) {
            self.server_keyword(&mut draft, inner);
        }
        for inner in block(statement).iter().filter(|inner| inner.keyword.text == "real_server") {
            if let Some(server) = self.real_server(inner, &draft.defaults) {
                draft.made.servers.push(server);
            }
        }
        self.finish_server(draft);
    }

    fn server_keyword(&mut self, draft: &mut Draft, inner: &Statement) {
        let made = &mut draft.made;
        let first = inner.arguments.first();
        match inner.keyword.text.as_str() {
            "real_server" => {}
            "lb_algo" | "lvs_sched" => {
                made.scheduler = self.scheduler(inner).unwrap_or(made.scheduler);
            }
            "lb_kind" | "lvs_method" => self.method(inner),
            "persistence_timeout" => {
                let seconds = match first {
                    Some(_) => self.number(inner, 1..=2_678_400, "it is ignored"),
                    None => Some(360),
                };
                if let Some(seconds) = seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
                    let mut set = made.persistence.unwrap_or(PERSISTENCE);
                    set.timeout = Duration::from_secs(seconds);
                    made.persistence = Some(set);
                }
            }
            "persistence_granularity" => self.granularity(made, inner),
            "protocol" => draft.protocol = first.cloned(),
            "sorry_server" => {
                let address = first.and_then(|first| {
                    self.endpoint(inner.arguments.get(..2).unwrap_or(&[]), first)
                });
                draft.sorry = address;
            }
            "sorry_server_inhibit" => draft.is_sorry_inhibited = self.flag(inner),
            "quorum" => made.quorum = self.small_count(inner, 1).unwrap_or(1),
            "hysteresis" => made.hysteresis = self.small_count(inner, 0).unwrap_or(0),
            "quorum_up" => made.quorum_up = self.command(inner),
            "quorum_down" => made.quorum_down = self.command(inner),
            "omega" => made.has_omega = self.flag(inner),
            "sh-port" | "mh-port" | "flag-2" => made.hashes_port = true,
            "sh-fallback" | "mh-fallback" | "flag-1" => made.falls_back = true,
            "proxy_protocol" => made.sends_proxy = self.proxy_version(inner),
            other if SERVER_UNUSED.contains(&other) => self.unused(&inner.keyword),
            _ => {
                if !self.default_keyword(&mut draft.defaults, inner) {
                    self.unknown(&inner.keyword, SERVER.iter().copied());
                }
            }
        }
    }

    fn proxy_version(&mut self, inner: &Statement) -> bool {
        match inner.arguments.first().map(|word| word.text.as_str()) {
            None | Some("2" | "v2") => true,
            Some("off") => false,
            Some(_) => {
                let message = "only version 2 of the PROXY protocol is spoken, ignored";
                self.warn("proxy-version", &inner.keyword.span, message);
                false
            }
        }
    }

    /// Reads a number that must fit 31 bits.
    pub(super) fn small_count(&mut self, inner: &Statement, least: i64) -> Option<u32> {
        let number = self.number(inner, least..=i64::from(i32::MAX), "the default is used");
        number.and_then(|number| u32::try_from(number).ok())
    }

    fn scheduler(&mut self, inner: &Statement) -> Option<Scheduler> {
        let word = inner.arguments.first().unwrap_or(&inner.keyword);
        Some(match word.text.as_str() {
            "rr" => Scheduler::RoundRobin,
            "wrr" => Scheduler::WeightedRoundRobin,
            "lc" => Scheduler::LeastConnection,
            "wlc" => Scheduler::WeightedLeastConnection,
            "sh" => Scheduler::SourceHash,
            "mh" => Scheduler::Maglev,
            "dh" => Scheduler::DestinationHash,
            "sed" => Scheduler::ShortestExpectedDelay,
            "nq" => Scheduler::NeverQueue,
            "fo" => Scheduler::FailOver,
            "ovf" => Scheduler::Overflow,
            "twos" => Scheduler::TwoChoices,
            "lblc" | "lblcr" => {
                let message = "lblc and lblcr are for caches; wlc is used";
                self.warn("scheduler-replaced", &word.span, message);
                Scheduler::WeightedLeastConnection
            }
            _ => {
                let message = format!("there is no scheduler {}, ignored", quoted(&word.text));
                let hint = "rr wrr lc wlc sh mh dh sed nq fo ovf twos";
                self.advise("unknown-scheduler", &word.span, message, hint);
                return None;
            }
        })
    }

    /// How packets would be forwarded: connections are relayed instead, which is most like NAT.
    fn method(&mut self, inner: &Statement) {
        let word = inner.arguments.first().unwrap_or(&inner.keyword);
        match word.text.as_str() {
            "NAT" => {}
            "DR" | "TUN" => {
                let message = format!("{} has no effect: connections are relayed", word.text);
                let hint = "servers answer this host, not the client; no address on their side";
                self.advise("method-without-effect", &word.span, message, hint);
            }
            _ => {
                let message = format!("there is no method {}, ignored", quoted(&word.text));
                self.warn("unknown-method", &word.span, message);
            }
        }
    }

    fn granularity(&mut self, made: &mut VirtualServer, inner: &Statement) {
        let word = inner.arguments.first().unwrap_or(&inner.keyword);
        let mut set = made.persistence.unwrap_or(PERSISTENCE);
        if let Ok(mask) = word.text.parse::<Ipv4Addr>() {
            let bits = mask.to_bits();
            // A mask is ones and then zeros.
            if bits.leading_ones() + bits.trailing_zeros() == 32 || bits == u32::MAX {
                set.bits_v4 = u8::try_from(bits.leading_ones()).unwrap_or(32);
                made.persistence = Some(set);
                return;
            }
        } else if let Some(bits) = word.text.parse::<u8>().ok().filter(|bits| *bits <= 128) {
            set.bits_v6 = bits;
            made.persistence = Some(set);
            return;
        }
        let message = format!("{} is no mask, ignored", quoted(&word.text));
        self.warn("invalid-mask", &word.span, message);
    }

    fn real_server(&mut self, statement: &Statement, defaults: &Defaults) -> Option<RealServer> {
        let Some(first) = statement.arguments.first() else {
            let message = "the real server has no address, ignored";
            self.warn("missing-address", &statement.keyword.span, message);
            return None;
        };
        let address = self.endpoint(statement.arguments.get(..2).unwrap_or(&[]), first)?;
        let mut defaults = defaults.clone();
        let mut server = RealServer {
            address,
            weight: 1,
            is_inhibited: false,
            upper: 0,
            lower: 0,
            notify_up: None,
            notify_down: None,
            checkers: Vec::new(),
        };
        for inner in block(statement) {
            match inner.keyword.text.as_str() {
                "weight" => server.weight = self.server_weight(inner),
                "lvs_method" => self.method(inner),
                "uthreshold" => server.upper = self.small_count(inner, 0).unwrap_or(0),
                "lthreshold" => server.lower = self.small_count(inner, 0).unwrap_or(0),
                "notify_up" => server.notify_up = self.command(inner),
                "notify_down" => server.notify_down = self.command(inner),
                other if super::checker::is_checker(other) => {}
                other if REAL_UNUSED.contains(&other) => self.unused(&inner.keyword),
                _ => {
                    if !self.default_keyword(&mut defaults, inner) {
                        let known = REAL.iter().chain(super::checker::CHECKERS).copied();
                        self.unknown(&inner.keyword, known);
                    }
                }
            }
        }
        server.is_inhibited = defaults.is_inhibited;
        for inner in block(statement) {
            if super::checker::is_checker(&inner.keyword.text) {
                server.checkers.extend(self.checker(inner, &defaults, address));
            }
        }
        if server.checkers.is_empty() {
            let message = "nothing checks this server: it counts as up, whatever happens to it";
            self.advise("no-checker", &first.span, message, "add TCP_CHECK { }");
        }
        Some(server)
    }

    fn server_weight(&mut self, inner: &Statement) -> u32 {
        let word = inner.arguments.first().unwrap_or(&inner.keyword);
        let weight = word.text.parse::<u32>().ok().filter(|weight| *weight <= 65_535);
        weight.unwrap_or_else(|| {
            let message = format!("{} is no weight from 0 to 65535; 1 is used", quoted(&word.text));
            self.warn("server-weight-out-of-range", &word.span, message);
            1
        })
    }

    fn finish_server(&mut self, draft: Draft) {
        let Draft { mut made, protocol, sorry, is_sorry_inhibited, .. } = draft;
        let span = made.span.clone();
        match protocol.as_ref().map(|word| (word.text.as_str(), word)) {
            Some(("TCP" | "tcp", _)) => {}
            Some((other, word)) => {
                let message =
                    format!("{} is not balanced: this virtual server is not served", quoted(other));
                return self.warn("protocol-not-served", &word.span, message);
            }
            None => {
                let message = "no protocol is named: TCP is served, keepalived would take UDP";
                self.advise("missing-protocol", &span, message, "add: protocol TCP");
            }
        }
        if made.listen.is_empty() {
            let message = "the virtual server has no address, ignored";
            return self.warn("missing-address", &span, message);
        }
        if made.servers.is_empty() {
            let message = "the virtual server has no real servers, ignored";
            return self.warn("no-real-servers", &span, message);
        }
        made.sorry = sorry.map(|address| Sorry { address, is_inhibited: is_sorry_inhibited });
        let weights = made.servers.iter().map(|server| server.weight);
        let total = weights.fold(0, u32::saturating_add);
        if made.quorum > total.max(1) {
            let message = format!(
                "the quorum {} is more than all weights together; {} is used",
                made.quorum,
                total.max(1)
            );
            self.warn("quorum-too-large", &span, message);
            made.quorum = total.max(1);
        }
        if made.hysteresis >= made.quorum && made.hysteresis > 0 {
            let message = "the hysteresis is not below the quorum; 0 is used";
            self.warn("hysteresis-too-large", &span, message);
            made.hysteresis = 0;
        }
        let all = &self.config.virtual_servers;
        let twice = all.iter().flat_map(|one| &one.listen).find(|at| made.listen.contains(at));
        if let Some(twice) = twice {
            let message = format!("{twice} is a virtual server already, ignored");
            return self.warn("duplicate-virtual-server", &span, message);
        }
        self.config.virtual_servers.push(made);
    }
}

const PERSISTENCE: Persistence =
    Persistence { timeout: Duration::from_secs(360), bits_v4: 32, bits_v6: 128 };

/// Reads an address, `A-B` with a last part or a whole address, or `A/BITS`.
fn range(text: &str) -> Option<Vec<IpAddr>> {
    if let Some((low, high)) = text.split_once('-') {
        let low: IpAddr = low.parse().ok()?;
        let last = match (low, high.parse::<IpAddr>()) {
            (_, Ok(high)) => high,
            (IpAddr::V4(low), Err(_)) => {
                let [a, b, c, _] = low.octets();
                IpAddr::from([a, b, c, high.parse().ok()?])
            }
            (IpAddr::V6(low), Err(_)) => {
                let mut parts = low.segments();
                *parts.last_mut()? = u16::from_str_radix(high, 16).ok()?;
                IpAddr::from(parts)
            }
        };
        return between(low, last);
    }
    if let Some((ip, bits)) = text.split_once('/') {
        let ip: IpAddr = ip.parse().ok()?;
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let free = width - bits.parse::<u32>().ok().filter(|bits| *bits <= width)?;
        let count = 1_u128.checked_shl(free)?;
        let low = number(ip) & !(count - 1);
        return between(address(ip, low)?, address(ip, low + (count - 1))?);
    }
    Some(vec![text.parse().ok()?])
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn address(like: IpAddr, number: u128) -> Option<IpAddr> {
    match like {
        IpAddr::V4(_) => u32::try_from(number).ok().map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(_) => Some(std::net::Ipv6Addr::from_bits(number).into()),
    }
}

/// Returns all addresses from one to another; none if they are too many or in the wrong order.
fn between(low: IpAddr, high: IpAddr) -> Option<Vec<IpAddr>> {
    if low.is_ipv4() != high.is_ipv4() {
        return None;
    }
    let count = number(high).checked_sub(number(low))?;
    if count >= u128::try_from(limits::VIRTUAL_ADDRESSES_MAX).ok()? {
        return None;
    }
    (number(low)..=number(high)).map(|number| address(low, number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_addresses_are_read() {
        let shown = |text: &str| {
            let list = range(text).unwrap_or_default();
            let words: Vec<_> = list.iter().map(ToString::to_string).collect();
            words.join(" ")
        };
        assert_eq!(shown("10.0.0.1"), "10.0.0.1");
        assert_eq!(shown("10.0.0.254-255"), "10.0.0.254 10.0.0.255");
        assert_eq!(shown("10.0.0.255-10.0.1.1"), "10.0.0.255 10.0.1.0 10.0.1.1");
        assert_eq!(shown("10.0.0.9/30"), "10.0.0.8 10.0.0.9 10.0.0.10 10.0.0.11");
        assert_eq!(shown("fe80::1-3"), "fe80::1 fe80::2 fe80::3");
        for wrong in ["10.0.0.2-1", "10.0.0.0/8", "::/0", "x", "10.0.0.1-fe80::1", "1.2.3.4/33"] {
            assert_eq!(shown(wrong), "", "{wrong}");
        }
    }
}
