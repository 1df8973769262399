//! The virtual routers of the file, in keepalived's model: `vrrp`, and below it a router's name.
//!
//! Three keys are mandatory. What differs from keepalived's defaults on purpose: version 3; with
//! `peers` only these are heard, and only from the next hop; whoever is told of transitions runs as
//! a user that is named; neighbours are told again where the addresses are after a second and every
//! five.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use super::super::diagnostic::{Collector, quoted};
use super::super::keepalived::{
    Announcing, ChecksumForm, Command, Config, HealthEffect, HealthRule, Instance, ListCheck,
    Notify, Peer, Preempt, Tracked, Tracks, User, VirtualAddress, VirtualMac,
};
use super::super::yaml::{Content, Document, NodeId};
use super::section::Section;
use super::value::{format_time, parse_time};
use super::{keys, scalar};
use crate::wire::vrrp::{AdvertInterval, Auth, Family, Priority, TTL, Version, Vrid};

/// Longest time before preemption; keepalived's bound.
const PREEMPT_DELAY_MAX: Duration = Duration::from_secs(1000);

/// Addresses that fit into an advert.
const ADDRESSES_MAX: usize = 255;

/// From a router's first announcements to its second ones. They come soon, because the first may not
/// be the last word: a router of higher rank that hears others and that nobody hears claims the
/// addresses when another takes over, and where neighbours believe it they reach nobody. Such a one
/// gives the addresses up when it knows that it is cut off, usually within a second.
const ANNOUNCED_AGAIN: Duration = Duration::from_secs(1);

/// From one of the later announcements to the next, for neighbours that missed all before, such as
/// those behind a switch that was not ready.
const ANNOUNCED_EVERY: Duration = Duration::from_secs(5);

/// How long a claim of a router of lower priority lasts before it is answered once more. A little
/// longer than [`ANNOUNCED_AGAIN`]: whoever is still well by then is heard, and who claims is deaf.
const CLAIM_MAX: Duration = Duration::from_millis(1100);

/// Reads the routers below `vrrp`, which is at `span`; reports what is wrong with them.
pub(super) fn read(
    document: &Document,
    span: &Range<usize>,
    body: NodeId,
    out: &mut Collector<'_>,
) -> Config {
    let mut config = Config::default();
    // Nobody's program is run whose path others could change.
    config.global.has_script_security = true;
    let content = document.node(body).map(|node| &node.content);
    let Some(Content::Mapping(entries)) = content else {
        let error = out.error("no-routers", span, "\"vrrp\" holds no virtual router");
        out.report(error.expected("a router's name and a colon, indented below"));
        return config;
    };
    let mut names: BTreeMap<&str, Range<usize>> = BTreeMap::new();
    for &(key, value) in entries {
        let span = document.span(key);
        let Some(name) = scalar(document, key).filter(|name| !name.is_empty()) else {
            let message = "a virtual router's name is not a word";
            out.report(out.error("key-not-a-word", &span, message));
            continue;
        };
        if let Some(first) = names.get(name) {
            let message = format!("the virtual router {} is here a second time", quoted(name));
            let first = out.place(first);
            let error = out.error("duplicate-router", &span, message);
            out.report(error.related(first, "first here"));
            continue;
        }
        names.insert(name, span.clone());
        let Some(section) = Section::read(document, name, span, value, keys::ROUTER, out) else {
            continue;
        };
        if let Some(instance) = router(name, &section, out) {
            check_unique(&config, &instance, &section, out);
            config.instances.push(instance);
        }
    }
    config
}

/// Two routers with one number on one link take each other for themselves.
fn check_unique(
    config: &Config,
    instance: &Instance,
    section: &Section<'_>,
    out: &mut Collector<'_>,
) {
    let is_same = |one: &&Instance| {
        (one.vrid, one.family, one.interface.as_str())
            == (instance.vrid, instance.family, instance.interface.as_str())
    };
    if let Some(other) = config.instances.iter().find(is_same) {
        let message = format!(
            "the virtual routers {} and {} have the same id on the same interface",
            quoted(&other.name),
            quoted(&instance.name)
        );
        out.report(out.error("duplicate-router-id", &section.place("id"), message));
    }
}

fn missing(
    section: &Section<'_>,
    name: &str,
    key: &'static str,
    expected: &str,
    out: &mut Collector<'_>,
) {
    if section.is_complete && section.entry(key).is_none() {
        let message = format!("the virtual router {} has no {}", quoted(name), quoted(key));
        let error = out.error("missing-key", &section.span, message);
        out.report(error.expected(expected));
    }
}

fn router(name: &str, section: &Section<'_>, out: &mut Collector<'_>) -> Option<Instance> {
    missing(section, name, "interface", "\"interface: eth0\"", out);
    missing(section, name, "id", "\"id: 51\", the same number on all hosts", out);
    missing(section, name, "addresses", "\"addresses: 192.0.2.10/24\"", out);
    let interface = section.text("interface", out).map(|(text, _)| text.to_owned());
    let vrid = section.number("id", 1..=255, out);
    let vrid = vrid.and_then(|number| u8::try_from(number).ok()).and_then(Vrid::new);
    let addresses = addresses(section, out);
    let family = Family::of(addresses.first()?.address);
    let priority = section.number("priority", 1..=255, out).unwrap_or(100);
    let priority = Priority(u8::try_from(priority).unwrap_or(100));
    let interval = interval(section, family, out);
    let peers = peers(section, family, out);
    let source = match section.is_off("source") {
        true => None,
        false => section.text("source", out).and_then(|(text, span)| ip(text, &span, out)),
    };
    let notify = notify(section, out);
    let vrid = vrid?;
    let virtual_mac = section.boolean("virtual_mac", false, out).then(|| VirtualMac {
        name: format!("vrrp.{vrid}"),
        // An advert to a peer leaves from where the peer is.
        sends_below: !peers.is_empty(),
    });
    Some(Instance {
        name: name.to_owned(),
        span: section.span.clone(),
        interface: interface?,
        vrid,
        family,
        priority,
        interval,
        addresses,
        excluded: Vec::new(),
        routes: Vec::new(),
        auth: Auth::None,
        preempt: preempt(section, out),
        source,
        group: None,
        checks_source: !peers.is_empty(),
        peers,
        unicast_ttl: TTL,
        lists: ListCheck::Told,
        tracks_source: false,
        tracks_primary: true,
        down_adverts: 3,
        adverts_before_yielding: true,
        answers_lower: true,
        announcing: Announcing {
            delay: ANNOUNCED_AGAIN,
            refresh: ANNOUNCED_EVERY,
            lower_delay: Some(CLAIM_MAX),
            ..Announcing::default()
        },
        tracks: tracks(section, out),
        notify,
        virtual_mac,
        checksum: ChecksumForm::Learned,
        health: health(section, out),
    })
}

fn ip(text: &str, span: &Range<usize>, out: &mut Collector<'_>) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        let message = format!("{} is no IP address", quoted(text));
        out.report(out.error("not-an-address", span, message));
    }
    address
}

fn addresses(section: &Section<'_>, out: &mut Collector<'_>) -> Vec<VirtualAddress> {
    let span = section.place("addresses");
    let mut list: Vec<VirtualAddress> = Vec::new();
    for word in section.words("addresses", out) {
        let (address, bits) = word.split_once('/').unwrap_or((&word, ""));
        let Some(address) = ip(address, &span, out) else { continue };
        let host: u8 = if address.is_ipv4() { 32 } else { 128 };
        let prefix = if bits.is_empty() { Some(host) } else { bits.parse().ok() };
        let Some(prefix) = prefix.filter(|&bits| bits <= host) else {
            let message = format!("{} is no size of a network", quoted(bits));
            out.report(out.error("not-a-prefix", &span, message));
            continue;
        };
        if list.first().is_some_and(|first| first.address.is_ipv4() != address.is_ipv4()) {
            let message = "a virtual router has addresses of one family only";
            let error = out.error("mixed-families", &span, message);
            out.report(error.hint("make a second virtual router for the others"));
            continue;
        }
        if list.iter().any(|known| known.address == address) {
            let message = format!("{address} is here a second time");
            out.report(out.error("duplicate-address", &span, message));
            continue;
        }
        list.push(VirtualAddress {
            address,
            prefix,
            device: None,
            label: None,
            broadcast: None,
            scope: 0,
            is_untracked: false,
            has_no_prefix_route: false,
        });
    }
    if list.len() > ADDRESSES_MAX {
        let message = format!("{} addresses do not fit into an advert", list.len());
        out.report(out.error("too-many-addresses", &span, message));
        list.truncate(ADDRESSES_MAX);
    }
    list
}

fn interval(section: &Section<'_>, family: Family, out: &mut Collector<'_>) -> AdvertInterval {
    let is_old = section.number("version", 2..=3, out) == Some(2);
    if is_old && family == Family::V6 {
        let message = "version 2 does not carry IPv6";
        out.report(out.error("version-2-with-ipv6", &section.place("version"), message));
    }
    let usual = Duration::from_secs(1);
    let time = section.time("interval", Duration::from_millis(10), out).unwrap_or(usual);
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let made = match is_old {
        true if millis.is_multiple_of(1000) => {
            u8::try_from(millis / 1000).ok().and_then(AdvertInterval::seconds)
        }
        false if millis.is_multiple_of(10) => {
            u16::try_from(millis / 10).ok().and_then(AdvertInterval::centiseconds)
        }
        true | false => None,
    };
    made.unwrap_or_else(|| {
        let expected = match is_old {
            true => "whole seconds, up to 255 s",
            false => "whole hundredths of a second, 10 ms to 40950 ms",
        };
        let message = format!("an interval of {} cannot be advertised", format_time(time));
        let error = out.error("invalid-interval", &section.place("interval"), message);
        out.report(error.expected(expected));
        AdvertInterval::centiseconds(100).unwrap_or(FALLBACK)
    })
}

/// What stands in for an interval that was reported.
const FALLBACK: AdvertInterval = AdvertInterval::Seconds(std::num::NonZeroU8::MIN);

fn peers(section: &Section<'_>, family: Family, out: &mut Collector<'_>) -> Vec<Peer> {
    let span = section.place("peers");
    let mut peers: Vec<Peer> = Vec::new();
    for word in section.words("peers", out) {
        let Some(address) = ip(&word, &span, out) else { continue };
        if Family::of(address) != family || address.is_multicast() || address.is_unspecified() {
            let message = format!("{address} cannot be a peer of this virtual router");
            out.report(out.error("invalid-peer", &span, message));
        } else if peers.iter().any(|known| known.address == address) {
            let message = format!("{address} is here a second time");
            out.report(out.error("duplicate-peer", &span, message));
        } else {
            // Nothing that was forwarded counts.
            peers.push(Peer { address, ttl: TTL..=TTL });
        }
    }
    if peers.len() > crate::limits::VRRP_PEERS_MAX {
        let message = format!("{} peers are too many", peers.len());
        out.report(out.error("too-many-peers", &span, message));
    }
    peers
}

fn preempt(section: &Section<'_>, out: &mut Collector<'_>) -> Preempt {
    match section.text("preempt", out) {
        None | Some(("true", _)) => Preempt::Always,
        Some(("false", _)) => Preempt::Never,
        Some((text, span)) => match parse_time(text) {
            Ok(delay) if delay <= PREEMPT_DELAY_MAX => Preempt::After(delay),
            Ok(_) | Err(_) => {
                let message = format!("\"preempt\" is {}", quoted(text));
                let error = out.error("invalid-preempt", &span, message);
                out.report(error.expected("true, false, or a time up to 1000 s to wait before"));
                Preempt::Always
            }
        },
    }
}

fn tracks(section: &Section<'_>, out: &mut Collector<'_>) -> Tracks {
    let names = section.words("track_interfaces", out);
    let tracked = |name| Tracked { name, weight: None, is_reversed: false };
    Tracks { interfaces: names.into_iter().map(tracked).collect(), ..Tracks::default() }
}

fn health(section: &Section<'_>, out: &mut Collector<'_>) -> Option<HealthRule> {
    let effects =
        [("leave", Some(HealthEffect::Leave)), ("fault", Some(HealthEffect::Fault)), ("off", None)];
    let effect = section.choice("health", effects, out).unwrap_or(Some(HealthEffect::Leave))?;
    let sources = section.entry("health_of").map(|_| section.words("health_of", out));
    Some(HealthRule { sources, effect })
}

fn notify(section: &Section<'_>, out: &mut Collector<'_>) -> Notify {
    let Some((path, span)) = section.text("notify", out) else { return Notify::default() };
    let user = section.text("notify_user", out).map(|(user, _)| user.to_owned());
    if user.is_none() {
        let message = "a program is to be run, and nobody is named to run it";
        let error = out.error("missing-key", &section.place("notify"), message);
        out.report(error.expected("\"notify_user: NAME\" beside it"));
    }
    if !path.starts_with('/') {
        let message = format!("{} is no absolute path", quoted(path));
        out.report(out.error("relative-path", &span, message));
    }
    let user = user.map(|name| User { name, group: None });
    let command = Command { argv: vec![path.to_owned()], user, span };
    Notify { any: Some(command), ..Notify::default() }
}

/// Writes virtual routers as the section of a `ringkeeper.yml`, with a comment for what it cannot
/// say.
pub fn write_routers(config: &Config) -> String {
    let mut out = String::from("vrrp:\n");
    for one in &config.instances {
        write_router(&mut out, one);
    }
    let lost = [
        (
            "scripts that are tracked: \"health\" follows what this process serves",
            !config.scripts.is_empty(),
        ),
        ("files that are tracked", !config.files.is_empty()),
        ("programs that are tracked", !config.processes.is_empty()),
        ("groups", !config.groups.is_empty()),
        ("pipes for transitions", !config.global.fifos.is_empty()),
        ("virtual servers", !config.virtual_servers.is_empty()),
    ];
    for (what, _) in lost.iter().filter(|(_, is_lost)| *is_lost) {
        let _ = writeln!(out, "  # Not taken over: {what}. `--keepalived FILE` knows them.");
    }
    out
}

/// A word as a quoted scalar of YAML.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn list(words: impl Iterator<Item = String>) -> String {
    format!("[{}]", words.map(|word| quote(&word)).collect::<Vec<_>>().join(", "))
}

fn write_router(out: &mut String, one: &Instance) {
    let mut line = |text: String| {
        let _ = writeln!(out, "    {text}");
    };
    let addresses = one.addresses.iter().map(|each| format!("{}/{}", each.address, each.prefix));
    let head = [
        format!("interface: {}", quote(&one.interface)),
        format!("id: {}", one.vrid),
        format!("addresses: {}", list(addresses)),
    ];
    head.into_iter().for_each(&mut line);
    if one.priority != Priority::DEFAULT {
        line(format!("priority: {}", one.priority));
    }
    if one.interval.version() == Version::V2 {
        line("version: 2".to_owned());
    }
    if one.interval.duration() != Duration::from_secs(1) {
        line(format!("interval: {}", format_time(one.interval.duration())));
    }
    match one.preempt {
        Preempt::Always => {}
        Preempt::Never => line("preempt: false".to_owned()),
        Preempt::After(delay) => line(format!("preempt: {}", format_time(delay))),
    }
    if let Some(source) = one.source {
        line(format!("source: {}", quote(&source.to_string())));
    }
    if !one.peers.is_empty() {
        line(format!("peers: {}", list(one.peers.iter().map(|peer| peer.address.to_string()))));
    }
    if one.virtual_mac.is_some() {
        line("virtual_mac: true".to_owned());
    }
    if !one.tracks.interfaces.is_empty() {
        let names = one.tracks.interfaces.iter().map(|tracked| tracked.name.clone());
        line(format!("track_interfaces: {}", list(names)));
    }
    let lost = [
        ("a password: whoever is on the link can read it", one.auth != Auth::None),
        ("addresses that are not advertised", !one.excluded.is_empty()),
        ("routes", !one.routes.is_empty()),
        ("programs that are notified: \"notify\" and \"notify_user\"", one.notify.has_command()),
        ("another multicast group", one.group.is_some()),
    ];
    for (what, _) in lost.iter().filter(|(_, is_lost)| *is_lost) {
        line(format!("# Not taken over: {what}."));
    }
    // Names come first, written last so that what is below them could borrow the text.
    let at = out.rfind("    interface: ").unwrap_or(out.len());
    out.insert_str(at, &format!("  {}:\n", quote(&one.name)));
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::config::keepalived;

    fn routers(text: &str) -> Result<Config, Vec<String>> {
        let pools = "pools:\n  a:\n    listen: 127.0.0.1:1\n    servers: [\"127.0.0.1:2\"]\n";
        let parsed = parse("ringkeeper.yml", &format!("{pools}{text}"));
        match parsed.config {
            Some(_) => Ok(parsed.settings.vrrp.unwrap()),
            None => Err(parsed.diagnostics.iter().map(|one| one.code.to_owned()).collect()),
        }
    }

    #[test]
    fn three_keys_make_a_router() {
        let text =
            "vrrp:\n  main:\n    interface: eth0\n    id: 51\n    addresses: 192.0.2.10/24\n";
        let config = routers(text).unwrap();
        let [one] = config.instances.as_slice() else { panic!("{config:?}") };
        assert_eq!(
            (one.name.as_str(), one.interface.as_str(), one.vrid.get()),
            ("main", "eth0", 51)
        );
        assert_eq!((one.priority, one.interval.version()), (Priority(100), Version::V3));
        assert_eq!(one.interval.duration(), Duration::from_secs(1));
        assert_eq!(
            (one.addresses[0].address, one.addresses[0].prefix),
            ([192, 0, 2, 10].into(), 24)
        );
        assert!(config.global.has_script_security && !one.checks_source);
        assert!(one.health.as_ref().unwrap().leaves());
    }

    #[test]
    fn neighbours_are_told_again_soon_where_the_addresses_are() {
        let text =
            "vrrp:\n  main:\n    interface: eth0\n    id: 51\n    addresses: 192.0.2.10/24\n";
        let announcing = routers(text).unwrap().instances.remove(0).announcing;
        let Announcing { delay, refresh, lower_delay, .. } = announcing;
        // Whoever claimed the addresses meanwhile, unheard, may have them at its neighbours until
        // then, and what clients say is lost.
        assert!(delay <= Duration::from_secs(1), "{delay:?}");
        // Who is well has the last word against somebody who is deaf.
        assert!(lower_delay.is_some_and(|it| it > delay && it < delay * 2), "{lower_delay:?}");
        // For those who missed all that.
        assert!(!refresh.is_zero() && refresh <= Duration::from_secs(5), "{refresh:?}");
    }

    #[test]
    fn peers_are_heard_from_their_addresses_and_the_next_hop_only() {
        let text = "vrrp:\n  main:\n    interface: eth0\n    id: 51\n    addresses: [\"2001:db8::10/64\"]\n    \
                    interval: 100 ms\n    peers: [\"fe80::2\"]\n    preempt: 5 s\n    health: fault\n    \
                    health_of: [pool a]\n";
        let config = routers(text).unwrap();
        let one = &config.instances[0];
        assert!(one.checks_source);
        assert_eq!(one.peers[0].ttl, 255..=255);
        assert_eq!(one.preempt, Preempt::After(Duration::from_secs(5)));
        let rule = one.health.clone().unwrap();
        assert_eq!(
            (rule.effect, rule.names("pool a"), rule.names("pool b")),
            (HealthEffect::Fault, true, false)
        );
    }

    #[test]
    fn mistakes_have_names() {
        let router = |text: &str| {
            let head =
                "vrrp:\n  main:\n    interface: eth0\n    id: 51\n    addresses: 192.0.2.10/24\n";
            routers(&format!("{head}    {text}\n")).unwrap_err().join(" ")
        };
        for (text, code) in [
            ("interval: 15 ms", "invalid-interval"),
            ("interval: 60 s", "invalid-interval"),
            ("version: 2\n    interval: 100 ms", "invalid-interval"),
            ("priority: 0", "number-out-of-range"),
            ("peers: [\"fe80::1\"]", "invalid-peer"),
            ("peers: [somebody]", "not-an-address"),
            ("preempt: maybe", "invalid-preempt"),
            ("notify: /bin/true", "missing-key"),
            ("notify: true\n    notify_user: nobody", "relative-path"),
            ("virtual_router_id: 51", "unknown-key"),
        ] {
            assert_eq!(router(text), code, "{text}");
        }
        let twice = "vrrp:\n  a: {interface: e, id: 1, addresses: 192.0.2.1}\n  \
                     b: {interface: e, id: 1, addresses: 192.0.2.2}\n";
        assert_eq!(routers(twice).unwrap_err(), ["duplicate-router-id"]);
        assert_eq!(routers("vrrp: {a: {}}\n").unwrap_err(), ["missing-key"; 3]);
        let mixed = "vrrp: {a: {interface: e, id: 1, addresses: [192.0.2.1, \"2001:db8::1\"]}}\n";
        assert_eq!(routers(mixed).unwrap_err(), ["mixed-families"]);
    }

    #[test]
    fn what_is_imported_is_read_again() {
        let text = "vrrp_instance VI_1 {\n interface e0\n virtual_router_id 51\n priority 150\n version 3\n \
                    advert_int 0.1\n nopreempt\n unicast_src_ip 10.0.0.1\n unicast_peer {\n 10.0.0.2\n }\n \
                    virtual_ipaddress {\n 10.0.0.100/24\n }\n virtual_ipaddress_excluded {\n 10.0.0.101/24\n }\n}\n";
        let original = keepalived::parse(text, "host").config.unwrap();
        let written = write_routers(&original);
        assert!(
            written.contains("# Not taken over: addresses that are not advertised."),
            "{written}"
        );
        let again = routers(&written).unwrap();
        let (one, other) = (&original.instances[0], &again.instances[0]);
        assert_eq!(one.name, other.name);
        assert_eq!(
            (one.vrid, one.priority, one.interval),
            (other.vrid, other.priority, other.interval)
        );
        assert_eq!(
            (&one.addresses, one.preempt, one.source),
            (&other.addresses, other.preempt, other.source)
        );
        assert_eq!(one.peers[0].address, other.peers[0].address);
    }
}
