//! The readers of what comes to virtual routers: adverts, announcements, the kernel's netlink and
//! keepalived.conf, on any bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringkeeper_core::config::diagnostic::Severity;
use ringkeeper_core::config::{keepalived, render};
use ringkeeper_core::time::Instant;
use ringkeeper_core::vrrp::accept::Arrival;
use ringkeeper_core::vrrp::keeper::Will;
use ringkeeper_core::vrrp::{Settings, VirtualRouter};
use ringkeeper_core::wire::arp::Arp;
use ringkeeper_core::wire::ip::{Ipv6Header, Path};
use ringkeeper_core::wire::ndp::NeighbourAdvert;
use ringkeeper_core::wire::netlink;
use ringkeeper_core::wire::vrrp::{Advert, AdvertInterval, Dialect, Vrid, parse_ipv4};

/// Adverts of both families: what is read is written byte for byte, and a router takes it.
pub(crate) fn adverts(data: &[u8]) {
    if let Ok((header, received)) = parse_ipv4(data) {
        let path = Path::V4 { source: header.source, destination: header.destination };
        again(&received.advert, received.dialect, &path);
        let arrival = Arrival { received, path, ttl: header.ttl };
        hear(&arrival, IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)));
    }
    if let Ok((header, message)) = Ipv6Header::parse(data) {
        let path = Path::V6 { source: header.source, destination: header.destination };
        if let Ok(received) = Advert::parse(message, &path) {
            again(&received.advert, received.dialect, &path);
            let arrival = Arrival { received, path, ttl: header.hop_limit };
            hear(&arrival, IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)));
        }
    }
}

fn again(advert: &Advert<'_>, dialect: Option<Dialect>, path: &Path) {
    let mut bytes = Vec::new();
    let dialect = dialect.unwrap_or(Dialect::PseudoHeader);
    advert.encode(path, dialect, &mut bytes);
    let read = Advert::parse(&bytes, path).unwrap();
    assert_eq!(read.advert.priority, advert.priority);
    assert_eq!(read.advert.interval, advert.interval);
    assert_eq!(read.advert.addresses.len(), advert.addresses.len());
}

fn hear(arrival: &Arrival<'_>, source: IpAddr) {
    let advert = &arrival.received.advert;
    let interval = AdvertInterval::centiseconds(100).unwrap();
    let vrid = Vrid::new(advert.vrid.get()).unwrap();
    let mut router = VirtualRouter::new(Settings::new(vrid, interval, source, &[])).unwrap();
    router.handle_start(Instant::START);
    let _ = router.handle_advert(Instant::START, arrival);
    let mut now = Instant::START;
    for _ in 0..20 {
        while router.poll_action().is_some() {}
        let Some(due) = router.poll_timeout() else { return };
        now = now.max(due);
        router.handle_timeout(now);
        let _ = router.handle_advert(now, arrival);
    }
}

/// ARP packets and neighbour adverts.
pub(crate) fn neighbours(data: &[u8]) {
    if let Ok(arp) = Arp::parse(data) {
        let mut bytes = Vec::new();
        arp.encode(&mut bytes);
        assert_eq!(Arp::parse(&bytes), Ok(arp));
    }
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let path = Path::V6 { source: Ipv6Addr::LOCALHOST, destination: all };
    if let Ok(advert) = NeighbourAdvert::parse(data, &path) {
        let mut bytes = Vec::new();
        advert.encode(&path, &mut bytes);
        assert_eq!(NeighbourAdvert::parse(&bytes, &path), Ok(advert));
    }
}

/// The kernel's answers, and what a guardian is told.
pub(crate) fn netlink(data: &[u8]) {
    let count = netlink::messages(data).count();
    assert!(count <= data.len() / 16 + 1);
    if let Some(will) = Will::parse(data) {
        assert_eq!(Will::parse(&will.encode()), Some(will));
    }
}

/// keepalived.conf, with a file that it includes: there is a configuration exactly when there is
/// no error, and every place is in a text.
pub(crate) fn keepalived_conf(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let root = keepalived::Source { name: "main".to_owned(), text: text.to_owned() };
    let assembled = keepalived::assemble(root, &mut |pattern, _| keepalived::Matches {
        sources: match pattern {
            "other" => vec![keepalived::Source {
                name: "other".to_owned(),
                text: "vrrp_script a {\n script /bin/true\n".to_owned(),
            }],
            _ => Vec::new(),
        },
        unreadable: Vec::new(),
    });
    let parsed = keepalived::parse(assembled.text(), "host");
    let has_errors = parsed.diagnostics.iter().any(|one| one.severity == Severity::Error);
    assert_eq!(parsed.config.is_none(), has_errors);
    for (source, list) in assembled.by_source(parsed.diagnostics) {
        for one in &list {
            assert!(source.text.get(one.span.clone()).is_some(), "{one:?}");
        }
        let _ = render::human(&source.name, &source.text, &list, false);
        let _ = render::json(&source.name, &list);
    }
}
