//! IPv4 and IPv6 headers, as raw and packet sockets need them.
//!
//! A raw IPv4 socket gives the header with each packet and takes ours. A raw IPv6 socket does
//! neither; its header is for packet sockets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Checksum;
use super::take;

/// The protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// The protocol number of the authentication header. Source: RFC 4302.
pub const PROTOCOL_AH: u8 = 51;
/// The protocol number of VRRP.
pub const PROTOCOL_VRRP: u8 = 112;

/// The type of service, or traffic class, of adverts: internetwork control.
pub const CLASS_CONTROL: u8 = 0xc0;

/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER_BYTES: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_HEADER_BYTES: usize = 40;

/// Smallest payload of an Ethernet frame, bytes. Shorter packets are padded on the link, and some
/// drivers hand the padding up.
const ETHERNET_PAYLOAD_MIN: usize = 46;

const IHL_PLAIN: u8 = 0x45;
const FLAG_DONT_FRAGMENT: u16 = 0x4000;
const FRAGMENT_MASK: u16 = 0x3fff;

/// The two ends of a packet, of one address family by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// IPv4.
    V4 {
        /// From whom.
        source: Ipv4Addr,
        /// To whom.
        destination: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// From whom.
        source: Ipv6Addr,
        /// To whom.
        destination: Ipv6Addr,
    },
}

impl Path {
    /// Joins two addresses; none if their families differ.
    pub const fn new(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4 { source, destination }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6 { source, destination }),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    /// Returns from whom.
    pub const fn source(&self) -> IpAddr {
        match *self {
            Self::V4 { source, .. } => IpAddr::V4(source),
            Self::V6 { source, .. } => IpAddr::V6(source),
        }
    }

    /// Returns to whom.
    pub const fn destination(&self) -> IpAddr {
        match *self {
            Self::V4 { destination, .. } => IpAddr::V4(destination),
            Self::V6 { destination, .. } => IpAddr::V6(destination),
        }
    }

    /// Starts a checksum with the pseudo header. Source: RFC 8200 section 8.1, for IPv4 RFC 9293
    /// section 3.1.
    #[expect(clippy::cast_possible_truncation, reason = "both halves of a 32-bit length")]
    pub fn pseudo_header(&self, protocol: u8, length: u32) -> Checksum {
        let sum = match self {
            Self::V4 { source, destination } => {
                Checksum::new().plus(&source.octets()).plus(&destination.octets())
            }
            Self::V6 { source, destination } => {
                Checksum::new().plus(&source.octets()).plus(&destination.octets())
            }
        };
        sum.plus_word((length >> 16) as u16).plus_word(length as u16).plus_word(u16::from(protocol))
    }
}

/// Why bytes are not a usable IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpError {
    /// Shorter than its header.
    TooShort {
        /// Bytes received.
        received: usize,
    },
    /// Not the version that it should be.
    Version(u8),
    /// The header says that it is shorter than a header.
    HeaderLength(u8),
    /// The length in the header is not what was received.
    Length {
        /// Bytes that the header tells.
        told: usize,
        /// Bytes received.
        received: usize,
    },
    /// The checksum of the header is wrong.
    HeaderChecksum,
    /// A piece of a packet. The kernel puts pieces together, so this is none of ours.
    Fragment,
}

impl fmt::Display for IpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { received } => write!(f, "packet of {received} bytes has no IP header"),
            Self::Version(version) => write!(f, "IP version {version} is not the expected one"),
            Self::HeaderLength(words) => write!(f, "IP header of {words} words is too short"),
            Self::Length { told, received } => {
                write!(f, "IP length is {told} bytes, {received} were received")
            }
            Self::HeaderChecksum => f.write_str("IP header checksum is wrong"),
            Self::Fragment => f.write_str("packet is a fragment"),
        }
    }
}

impl std::error::Error for IpError {}

/// An IPv4 header. Options are skipped when received and never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header {
    /// Type of service.
    pub class: u8,
    /// Names the packet. A raw socket replaces zero by a number of the kernel's.
    pub identification: u16,
    /// Whether routers may not cut it.
    pub dont_fragment: bool,
    /// Hops left.
    pub ttl: u8,
    /// What follows, such as [`PROTOCOL_VRRP`].
    pub protocol: u8,
    /// From whom.
    pub source: Ipv4Addr,
    /// To whom.
    pub destination: Ipv4Addr,
}

impl Ipv4Header {
    /// Splits a packet into its header and its payload. The padding of short Ethernet frames is
    /// cut off.
    pub fn parse(packet: &[u8]) -> Result<(Self, &[u8]), IpError> {
        let received = packet.len();
        let short = IpError::TooShort { received };
        let (first, _) = packet.split_first().ok_or(short)?;
        if first >> 4 != 4 {
            return Err(IpError::Version(first >> 4));
        }
        let words = first & 0x0f;
        if words < IHL_PLAIN & 0x0f {
            return Err(IpError::HeaderLength(words));
        }
        let (header, rest) = packet.split_at_checked(usize::from(words) * 4).ok_or(short)?;
        let (&plain, _) = header.split_first_chunk::<IPV4_HEADER_BYTES>().ok_or(short)?;
        let [_, class, l0, l1, i0, i1, f0, f1, ttl, protocol, _, _, addresses @ ..] = plain;
        let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
        let told = usize::from(u16::from_be_bytes([l0, l1]));
        let is_padded = told < received && received <= ETHERNET_PAYLOAD_MIN;
        let payload = told.checked_sub(header.len()).and_then(|bytes| rest.get(..bytes));
        let payload = payload.filter(|_| told == received || is_padded);
        let payload = payload.ok_or(IpError::Length { told, received })?;
        if !Checksum::new().plus(header).is_valid() {
            return Err(IpError::HeaderChecksum);
        }
        let flags = u16::from_be_bytes([f0, f1]);
        if flags & FRAGMENT_MASK != 0 {
            return Err(IpError::Fragment);
        }
        let header = Self {
            class,
            identification: u16::from_be_bytes([i0, i1]),
            dont_fragment: flags & FLAG_DONT_FRAGMENT != 0,
            ttl,
            protocol,
            source: Ipv4Addr::new(s0, s1, s2, s3),
            destination: Ipv4Addr::new(d0, d1, d2, d3),
        };
        Ok((header, payload))
    }

    /// Appends the header of a packet with a payload of this many bytes. The length of a longer
    /// payload than a packet holds saturates.
    pub fn encode(&self, payload_bytes: usize, out: &mut Vec<u8>) {
        let length = u16::try_from(payload_bytes.saturating_add(IPV4_HEADER_BYTES));
        let [l0, l1] = length.unwrap_or(u16::MAX).to_be_bytes();
        let [i0, i1] = self.identification.to_be_bytes();
        let flags = if self.dont_fragment { FLAG_DONT_FRAGMENT } else { 0 };
        let [f0, f1] = flags.to_be_bytes();
        let start = [IHL_PLAIN, self.class, l0, l1, i0, i1, f0, f1, self.ttl, self.protocol];
        let (source, destination) = (self.source.octets(), self.destination.octets());
        let sum = Checksum::new().plus(&start).plus(&source).plus(&destination).finish();
        out.extend_from_slice(&start);
        out.extend_from_slice(&sum.to_be_bytes());
        out.extend_from_slice(&source);
        out.extend_from_slice(&destination);
    }
}

/// An IPv6 header without extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Header {
    /// Traffic class.
    pub class: u8,
    /// Flow label, 20 bits; higher ones are not sent.
    pub flow: u32,
    /// Hops left.
    pub hop_limit: u8,
    /// What follows, such as [`PROTOCOL_VRRP`].
    pub next_header: u8,
    /// From whom.
    pub source: Ipv6Addr,
    /// To whom.
    pub destination: Ipv6Addr,
}

impl Ipv6Header {
    /// Splits a packet into its header and its payload. Source: RFC 8200 section 3.
    pub fn parse(packet: &[u8]) -> Result<(Self, &[u8]), IpError> {
        let received = packet.len();
        let short = IpError::TooShort { received };
        let (start, rest) = take::<8>(packet).ok_or(short)?;
        let [v, c, f0, f1, l0, l1, next_header, hop_limit] = start;
        if v >> 4 != 6 {
            return Err(IpError::Version(v >> 4));
        }
        let (source, rest) = take::<16>(rest).ok_or(short)?;
        let (destination, rest) = take::<16>(rest).ok_or(short)?;
        let bytes = usize::from(u16::from_be_bytes([l0, l1]));
        let told = bytes + IPV6_HEADER_BYTES;
        let is_padded = told < received && received <= ETHERNET_PAYLOAD_MIN;
        let payload = rest.get(..bytes).filter(|_| told == received || is_padded);
        let payload = payload.ok_or(IpError::Length { told, received })?;
        let header = Self {
            class: v << 4 | c >> 4,
            flow: u32::from_be_bytes([0, c & 0x0f, f0, f1]),
            hop_limit,
            next_header,
            source: Ipv6Addr::from(source),
            destination: Ipv6Addr::from(destination),
        };
        Ok((header, payload))
    }

    /// Appends the header of a packet with a payload of this many bytes. The length of a longer
    /// payload than a packet holds saturates.
    pub fn encode(&self, payload_bytes: usize, out: &mut Vec<u8>) {
        let length = u16::try_from(payload_bytes).unwrap_or(u16::MAX);
        let start = 6 << 28 | u32::from(self.class) << 20 | self.flow & 0x000f_ffff;
        out.extend_from_slice(&start.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&[self.next_header, self.hop_limit]);
        out.extend_from_slice(&self.source.octets());
        out.extend_from_slice(&self.destination.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Ipv4Header = Ipv4Header {
        class: CLASS_CONTROL,
        identification: 1,
        dont_fragment: false,
        ttl: 255,
        protocol: PROTOCOL_VRRP,
        source: Ipv4Addr::new(10, 77, 0, 1),
        destination: Ipv4Addr::new(224, 0, 0, 18),
    };

    fn packet() -> Vec<u8> {
        let mut out = Vec::new();
        HEADER.encode(4, &mut out);
        out.extend_from_slice(b"data");
        out
    }

    #[test]
    fn padding_of_a_short_frame_is_cut_off_and_other_excess_is_refused() {
        let mut padded = packet();
        padded.resize(46, 0);
        assert_eq!(Ipv4Header::parse(&padded), Ok((HEADER, &b"data"[..])));
        padded.resize(47, 0);
        assert_eq!(Ipv4Header::parse(&padded), Err(IpError::Length { told: 24, received: 47 }));
    }

    #[test]
    fn every_damage_to_a_header_has_its_name() {
        let cases: [(usize, u8, IpError); 4] = [
            (0, 0x65, IpError::Version(6)),
            (0, 0x44, IpError::HeaderLength(4)),
            (3, 23, IpError::Length { told: 23, received: 24 }),
            (8, 254, IpError::HeaderChecksum),
        ];
        for (at, byte, error) in cases {
            let mut bytes = packet();
            bytes[at] = byte;
            // A length below what was received is padding.
            if at == 3 {
                assert_eq!(Ipv4Header::parse(&bytes), Err(IpError::HeaderChecksum));
            } else {
                assert_eq!(Ipv4Header::parse(&bytes), Err(error));
            }
        }
        assert_eq!(Ipv4Header::parse(&packet()[..19]), Err(IpError::TooShort { received: 19 }));
        assert_eq!(Ipv4Header::parse(&[]), Err(IpError::TooShort { received: 0 }));
    }

    #[test]
    fn a_fragment_is_refused() {
        let mut bytes = packet();
        bytes[6] = 0x20;
        bytes[10..12].copy_from_slice(&[0, 0]);
        let sum = Checksum::new().plus(&bytes[..20]).finish();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(Ipv4Header::parse(&bytes), Err(IpError::Fragment));
    }

    #[test]
    fn an_ipv6_header_comes_back() {
        let header = Ipv6Header {
            class: CLASS_CONTROL,
            flow: 0x0c_35a9,
            hop_limit: 255,
            next_header: PROTOCOL_VRRP,
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::UNSPECIFIED,
        };
        let mut out = Vec::new();
        header.encode(2, &mut out);
        out.extend_from_slice(b"ab");
        assert_eq!(Ipv6Header::parse(&out), Ok((header, &b"ab"[..])));
        assert_eq!(Ipv6Header::parse(&out[..39]), Err(IpError::TooShort { received: 39 }));
        assert_eq!(Ipv6Header::parse(&out[..41]), Err(IpError::Length { told: 42, received: 41 }));
    }
}
