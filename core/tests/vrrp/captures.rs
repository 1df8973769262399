//! Every frame of the captures is read, and written again byte for byte.

use std::collections::BTreeMap;

use ringkeeper_core::wire::arp::{Arp, Operation};
use ringkeeper_core::wire::ethernet::{Header, Mac, TYPE_ARP, TYPE_IPV4, TYPE_IPV6};
use ringkeeper_core::wire::ip::{
    CLASS_CONTROL, Ipv4Header, Ipv6Header, PROTOCOL_AH, PROTOCOL_ICMPV6, PROTOCOL_VRRP, Path,
};
use ringkeeper_core::wire::ndp::NeighbourAdvert;
use ringkeeper_core::wire::vrrp::{
    self, Advert, Auth, Dialect, Family, PacketError, Password, Version, Vrid, VrrpError,
};

use crate::pcap::frames;

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    AdvertV2,
    AdvertV3,
    AdvertV6,
    AuthHeader,
    GratuitousArp,
    OtherArp,
    NeighbourAdvert,
    /// IGMP reports and router solicitations of the kernel.
    Kernel,
}

fn ipv4(ethernet: Header, packet: &[u8]) -> (Kind, Vec<u8>) {
    let mut again = Vec::new();
    ethernet.encode(&mut again);
    let (header, received) = match vrrp::parse_ipv4(packet) {
        Ok(parsed) => parsed,
        Err(PacketError::Vrrp(VrrpError::AuthHeader)) => return (Kind::AuthHeader, Vec::new()),
        Err(PacketError::Protocol(2)) => return (Kind::Kernel, Vec::new()),
        Err(error) => panic!("{error}: {packet:02x?}"),
    };
    assert_eq!((header.ttl, header.class), (vrrp::TTL, CLASS_CONTROL));
    assert_eq!(received.advert.vrid, Vrid::new(51).unwrap());
    received.advert.encode_ipv4(&header, received.dialect.unwrap_or_default(), &mut again);
    match received.advert.version() {
        Version::V2 => {
            assert_eq!(received.dialect, None);
            (Kind::AdvertV2, again)
        }
        Version::V3 => {
            assert_eq!(received.dialect, Some(Dialect::PseudoHeader));
            (Kind::AdvertV3, again)
        }
    }
}

fn ipv6(ethernet: Header, packet: &[u8]) -> (Kind, Vec<u8>) {
    let (header, message) = Ipv6Header::parse(packet).unwrap();
    let path = Path::V6 { source: header.source, destination: header.destination };
    let mut again = Vec::new();
    match header.next_header {
        PROTOCOL_VRRP => {
            let received = Advert::parse(message, &path).unwrap();
            ethernet.encode(&mut again);
            header.encode(message.len(), &mut again);
            received.advert.encode(&path, Dialect::default(), &mut again);
            (Kind::AdvertV6, again)
        }
        PROTOCOL_ICMPV6 if message[0] == 136 => {
            let advert = NeighbourAdvert::parse(message, &path).unwrap();
            advert.encode_all_nodes(&mut again);
            (Kind::NeighbourAdvert, again)
        }
        _ => (Kind::Kernel, Vec::new()),
    }
}

fn arp(ethernet: Header, packet: &[u8]) -> (Kind, Vec<u8>) {
    let arp = Arp::parse(packet).unwrap();
    let mut again = Vec::new();
    if arp.is_gratuitous() {
        let made = Arp::gratuitous(Operation::Request, ethernet.source, arp.sender);
        made.encode_broadcast(&mut again);
        return (Kind::GratuitousArp, again);
    }
    ethernet.encode(&mut again);
    arp.encode(&mut again);
    (Kind::OtherArp, again)
}

fn check(name: &str) -> BTreeMap<Kind, usize> {
    let mut kinds = BTreeMap::new();
    for (at, frame) in frames(name).iter().enumerate() {
        let (ethernet, packet) = Header::parse(frame).unwrap();
        let (kind, again) = match ethernet.ethertype {
            TYPE_IPV4 => ipv4(ethernet, packet),
            TYPE_IPV6 => ipv6(ethernet, packet),
            TYPE_ARP => arp(ethernet, packet),
            other => panic!("{name} {at}: ethertype {other:04x}"),
        };
        if !matches!(kind, Kind::AuthHeader | Kind::Kernel) {
            assert_eq!(&again, frame, "{name}, frame {at}");
        }
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

#[test]
fn every_captured_frame_is_read_and_written_byte_for_byte() {
    use Kind::*;
    let expected: [(&str, &[(Kind, usize)]); 10] = [
        ("v2-ah.pcap", &[(AuthHeader, 7), (GratuitousArp, 10), (Kernel, 7)]),
        ("v2-none-2vips.pcap", &[(AdvertV2, 7), (GratuitousArp, 20), (Kernel, 7)]),
        ("v2-pass.pcap", &[(AdvertV2, 12), (GratuitousArp, 15), (Kernel, 13)]),
        ("v2-unicast.pcap", &[(AdvertV2, 7), (GratuitousArp, 10), (OtherArp, 2), (Kernel, 3)]),
        ("v3-ipv4-0.01.pcap", &[(AdvertV3, 350), (GratuitousArp, 10), (Kernel, 6)]),
        ("v3-ipv4-0.5.pcap", &[(AdvertV3, 12), (GratuitousArp, 10), (Kernel, 11)]),
        ("v3-ipv4-csum-as-v2.pcap", &[(AdvertV3, 6), (GratuitousArp, 10), (Kernel, 8)]),
        ("v3-ipv6-0.5.pcap", &[(AdvertV6, 20), (NeighbourAdvert, 30)]),
        ("v3-unicast.pcap", &[(AdvertV3, 12), (GratuitousArp, 10), (OtherArp, 2)]),
        ("v3-vmac.pcap", &[(AdvertV3, 12), (GratuitousArp, 10), (Kernel, 7)]),
    ];
    for (name, kinds) in expected {
        assert_eq!(check(name), kinds.iter().copied().collect(), "{name}");
    }
}

#[test]
fn the_password_of_a_capture_is_the_configured_one() {
    for frame in frames("v2-pass.pcap") {
        if let Ok((_, received)) = vrrp::parse_ipv4(&frame[14..]) {
            assert_eq!(received.advert.auth, Auth::Password(Password::new(b"s3cret")));
        }
    }
}

#[test]
fn a_virtual_mac_in_a_capture_is_the_one_that_we_would_use() {
    let mac = Mac::virtual_router(Family::V4, Vrid::new(51).unwrap());
    let mut seen = 0;
    for frame in frames("v3-vmac.pcap") {
        let (ethernet, packet) = Header::parse(&frame).unwrap();
        let is_ours = match ethernet.ethertype {
            TYPE_IPV4 => {
                Ipv4Header::parse(packet).is_ok_and(|(ip, _)| ip.protocol == PROTOCOL_VRRP)
            }
            TYPE_ARP => true,
            _ => false,
        };
        if is_ours {
            assert_eq!(ethernet.source, mac);
            seen += 1;
        }
    }
    assert_eq!(seen, 22);
}

#[test]
fn an_authentication_header_is_refused_by_name() {
    let packets: Vec<Vec<u8>> = frames("v2-ah.pcap");
    let of_ah = |frame: &&Vec<u8>| frame[12..14] == [8, 0] && frame[14 + 9] == PROTOCOL_AH;
    for frame in packets.iter().filter(of_ah) {
        let error = vrrp::parse_ipv4(&frame[14..]).unwrap_err();
        assert_eq!(error, PacketError::Vrrp(VrrpError::AuthHeader));
        assert!(error.to_string().contains("AH"));
    }
}
