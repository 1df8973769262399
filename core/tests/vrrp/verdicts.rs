//! The verdict on 41 crafted adverts against that of genuine keepalived 2.2.7.

use ringkeeper_core::vrrp::accept::Arrival;
use ringkeeper_core::vrrp::instance::{Lists, Peer, Reach};
use ringkeeper_core::vrrp::{Phase, Settings};
use ringkeeper_core::wire::ip::Path;
use ringkeeper_core::wire::vrrp::{self, AdvertInterval, Auth, Password};

use crate::router::{active, at, host, settings};

/// An advert made by hand, apart from our own encoder.
#[derive(Clone)]
struct Craft {
    source: [u8; 4],
    destination: [u8; 4],
    ttl: u8,
    start: u8,
    vrid: u8,
    priority: u8,
    count: u8,
    interval: [u8; 2],
    addresses: Vec<[u8; 4]>,
    /// Authentication data of version 2, or bytes too many.
    tail: Vec<u8>,
    has_pseudo_header: bool,
    checksum_damage: u16,
}

fn v3() -> Craft {
    Craft {
        source: [10, 77, 0, 2],
        destination: [224, 0, 0, 18],
        ttl: 255,
        start: 0x31,
        vrid: 51,
        priority: 200,
        count: 1,
        interval: [0, 10],
        addresses: vec![[10, 77, 0, 100]],
        tail: Vec::new(),
        has_pseudo_header: true,
        checksum_damage: 0,
    }
}

fn v2() -> Craft {
    let tail = vec![0; 8];
    Craft { start: 0x21, interval: [0, 1], tail, has_pseudo_header: false, ..v3() }
}

fn pass(word: &[u8]) -> Craft {
    let mut tail = word.to_vec();
    tail.resize(8, 0);
    Craft { interval: [1, 1], tail, ..v2() }
}

fn unicast(source: u8, ttl: u8) -> Craft {
    Craft { source: [10, 77, 0, source], destination: [10, 77, 0, 1], ttl, ..v3() }
}

fn with_addresses(base: Craft, last: &[u8]) -> Craft {
    let addresses = last.iter().map(|&last| [10, 77, 0, last]).collect();
    Craft { count: last.len() as u8, addresses, ..base }
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn packet(craft: &Craft) -> Vec<u8> {
    let mut message = vec![craft.start, craft.vrid, craft.priority, craft.count];
    message.extend(craft.interval);
    message.extend([0, 0]);
    message.extend(craft.addresses.iter().flatten());
    message.extend(&craft.tail);
    let mut summed = message.clone();
    if craft.has_pseudo_header {
        summed = [&craft.source[..], &craft.destination, &[0, 112, 0]].concat();
        summed.push(message.len() as u8);
        summed.extend(&message);
    }
    let checksum = sum(&summed) ^ craft.checksum_damage;
    message[6..8].copy_from_slice(&checksum.to_be_bytes());
    let length = (20 + message.len()) as u8;
    let mut packet = vec![0x45, 0xc0, 0, length, 0, 1, 0, 0, craft.ttl, 112, 0, 0];
    packet.extend(craft.source);
    packet.extend(craft.destination);
    let header = sum(&packet);
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    packet.extend(message);
    packet
}

/// The sections of the table, what we are in each, and each advert with our reason to refuse it;
/// an empty reason means that it counts.
type Section = (&'static str, Settings, Vec<(&'static str, Craft, &'static str)>);

fn version_3() -> Section {
    let damaged = Craft { checksum_damage: 0x5500, ..v3() };
    let own = Craft { source: [10, 77, 0, 1], ..v3() };
    let type_2 = Craft { start: 0x32, has_pseudo_header: false, ..v3() };
    let truncated = Craft { addresses: Vec::new(), ..v3() };
    let plain = Craft { has_pseudo_header: false, ..v3() };
    let cases = vec![
        ("valid prio 200", v3(), ""),
        ("valid prio 100 from higher IP .2", Craft { priority: 100, ..v3() }, ""),
        (
            "valid prio 100 from lower IP .0.0",
            Craft { priority: 100, source: [10, 77, 0, 0], ..v3() },
            "",
        ),
        ("valid prio 50 (lower)", Craft { priority: 50, ..v3() }, ""),
        ("prio 0", Craft { priority: 0, ..v3() }, ""),
        ("ttl 254", Craft { ttl: 254, ..v3() }, "Ttl(254)"),
        ("checksum without pseudo header (RFC 9568)", plain, ""),
        ("bad checksum", damaged, "Vrrp(Checksum)"),
        ("version 2 packet", v2(), "Version(V2)"),
        ("unknown vrid 52", Craft { vrid: 52, ..v3() }, "Vrid(Vrid(52))"),
        ("type 2", type_2, "Vrrp(Type(2))"),
        ("advert interval 100 cs (mismatch)", Craft { interval: [0, 100], ..v3() }, ""),
        ("reserved bits set", Craft { interval: [0xf0, 10], ..v3() }, ""),
        ("2 addresses", with_addresses(v3(), &[100, 101]), ""),
        ("wrong address", with_addresses(v3(), &[99]), ""),
        ("0 addresses", with_addresses(v3(), &[]), ""),
        (
            "count says 1, no address in packet",
            truncated,
            "Vrrp(TooShort { received: 8, expected: 12 })",
        ),
        (
            "4 bytes trailing in IP payload",
            Craft { tail: vec![0; 4], ..v3() },
            "Vrrp(TooLong { received: 16, expected: 12 })",
        ),
        ("prio 255", Craft { priority: 255, ..v3() }, ""),
        ("unicast destination 10.77.0.1", unicast(2, 255), "Unicast"),
        ("source = own address 10.77.0.1 prio 200", own, "OwnAddress"),
        ("off-link source 192.0.2.9", Craft { source: [192, 0, 2, 9], ..v3() }, ""),
    ];
    ("v3 advert_int 0.1 MASTER prio 100 at 10.77.0.1", settings(1, 100), cases)
}

fn version_2() -> Section {
    let damaged = Craft { checksum_damage: 0x5500, ..v2() };
    let v3_packet = Craft { interval: [0, 100], ..v3() };
    let auth_type = |kind| Craft { interval: [kind, 1], ..v2() };
    let auth = "AuthType { ours: 0, theirs: 1 }";
    let cases = vec![
        ("bad checksum", damaged, "Vrrp(Checksum)"),
        ("ttl 254", Craft { ttl: 254, ..v2() }, "Ttl(254)"),
        ("version 3 packet", v3_packet, "Version(V3)"),
        ("advert interval 2", Craft { interval: [0, 2], ..v2() }, "Interval(Seconds(2))"),
        ("authtype 1 with password", pass(b"s3cret"), auth),
        ("authtype 2 in vrrp without AH", auth_type(2), "Vrrp(AuthHeader)"),
        ("authtype 9", auth_type(9), "Vrrp(AuthType(9))"),
        ("type 2", Craft { start: 0x22, ..v2() }, "Vrrp(Type(2))"),
        ("2 addresses", with_addresses(v2(), &[100, 101]), ""),
        ("wrong address", with_addresses(v2(), &[99]), ""),
        ("valid prio 200", v2(), ""),
    ];
    ("v2 advert_int 1 no auth MASTER prio 100", settings_v2(), cases)
}

fn settings_v2() -> Settings {
    let mut settings = settings(1, 100);
    settings.rules.interval = AdvertInterval::seconds(1).unwrap();
    settings
}

fn settings_unicast(checks_source: bool) -> Settings {
    let peers = vec![Peer { address: host(2), ttl: 0..=255 }];
    let mut settings = settings(1, 100);
    settings.reach = Reach::Unicast { peers, ttl: 255, checks_source };
    settings
}

fn others() -> Vec<Section> {
    let mut with_password = settings_v2();
    with_password.auth = Auth::Password(Password::new(b"s3cret"));
    let mut skipping = settings(1, 100);
    skipping.lists = Lists::SameOfNewSenders;
    let addresses = "Addresses { ours: 1, theirs: 1 }";
    vec![
        (
            "v2 PASS s3cret MASTER prio 100",
            with_password,
            vec![
                ("no auth", v2(), "AuthType { ours: 1, theirs: 0 }"),
                ("wrong password", pass(b"other"), "Password"),
                ("right password", pass(b"s3cret"), ""),
            ],
        ),
        (
            "v3 vrrp_strict-like skip_check_adv_addr",
            skipping,
            vec![("wrong address", with_addresses(v3(), &[99]), addresses)],
        ),
        (
            "v3 unicast_peer 10.77.0.2",
            settings_unicast(false),
            vec![
                ("multicast prio 200", v3(), "Multicast"),
                ("unicast prio 200 ttl 64", unicast(2, 64), ""),
                ("unicast from non-peer 10.77.0.7", unicast(7, 255), ""),
            ],
        ),
        (
            "v3 unicast_peer + check_unicast_src",
            settings_unicast(true),
            vec![("unicast from non-peer 10.77.0.7", unicast(7, 255), "Stranger(10.77.0.7)")],
        ),
    ]
}

/// Where our verdict differs, and why.
const DIFFERENCES: [(&str, &str); 4] = [
    (
        "checksum without pseudo header (RFC 9568)",
        "both forms are taken, so that routers of other vendors are heard",
    ),
    ("2 addresses", "told and not refused, as keepalived 2.4.3: refusing makes two routers Active"),
    ("wrong address", "the same"),
    ("0 addresses", "the same"),
];

/// Gives an advert to an Active router; returns keepalived's word for what came of it, and why.
fn verdict(settings: &Settings, craft: &Craft) -> (&'static str, String) {
    let (mut router, since) = active(settings.clone());
    assert_eq!(router.phase(), Phase::Active);
    let packet = packet(craft);
    let reason = match vrrp::parse_ipv4(&packet) {
        Err(error) => format!("{error:?}"),
        Ok((header, received)) => {
            let path = Path::V4 { source: header.source, destination: header.destination };
            let arrival = Arrival { received, path, ttl: header.ttl };
            let now = since + at(50).since(at(0));
            router.handle_advert(now, &arrival).err().map_or_else(String::new, |refusal| {
                assert!(!refusal.to_string().is_empty());
                format!("{refusal:?}")
            })
        }
    };
    let word = if router.phase() == Phase::Active { "KEEPS MASTER" } else { "YIELDS" };
    (word, reason)
}

/// Reads the table: section, verdict, advert.
fn table() -> Vec<(String, String, String)> {
    let text = include_str!("../vectors/vrrp/rxprobe-2.2.7.txt");
    let mut rows = Vec::new();
    let mut section = "";
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        } else if let Some((word, name)) = line.get(2..15).zip(line.get(16..74)) {
            rows.push((section.to_owned(), word.trim().to_owned(), name.trim().to_owned()));
        }
    }
    rows
}

#[test]
fn each_crafted_advert_gets_keepalived_s_verdict_or_a_reasoned_one() {
    let mut sections = vec![version_3(), version_2()];
    sections.extend(others());
    let rows = table();
    assert_eq!(rows.len(), 41);
    let mut differing = Vec::new();
    for (section, expected, name) in &rows {
        let (_, settings, cases) =
            sections.iter().find(|(title, ..)| title == section).expect(section);
        let (_, craft, reason) = cases.iter().find(|(case, ..)| case == name).expect(name);
        let (word, why) = verdict(settings, craft);
        assert_eq!(why, *reason, "{section}: {name}");
        if word != expected {
            differing.push(name.as_str());
        }
    }
    let named = |name: &&str| DIFFERENCES.iter().any(|(difference, _)| difference == name);
    assert!(differing.iter().all(named), "{differing:?}");
    assert_eq!(differing.len(), 6, "{differing:?}");
}

#[test]
fn where_lists_must_be_the_same_only_the_checksum_differs_from_keepalived() {
    let mut sections = vec![version_3(), version_2()];
    for (_, settings, _) in &mut sections {
        settings.lists = Lists::Same;
    }
    for (section, expected, name) in &table() {
        let Some((_, settings, cases)) = sections.iter().find(|(title, ..)| title == section)
        else {
            continue;
        };
        let (_, craft, _) = cases.iter().find(|(case, ..)| case == name).unwrap();
        let (word, why) = verdict(settings, craft);
        let is_same = word == expected;
        assert_eq!(is_same, !name.contains("RFC 9568"), "{section}: {name}: {why}");
    }
}
