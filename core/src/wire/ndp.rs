//! Neighbour advertisements. Source: RFC 4861 sections 4.4 and 7.2.6.

use std::fmt;
use std::net::Ipv6Addr;

use super::ethernet::{self, Mac, TYPE_IPV6};
use super::ip::{Ipv6Header, PROTOCOL_ICMPV6, Path};
use super::take;

/// All nodes on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Bytes of the message, its option included.
pub const MESSAGE_BYTES: usize = MESSAGE_LENGTH as usize;
const MESSAGE_LENGTH: u32 = 32;

const TYPE_ADVERTISEMENT: u8 = 136;
const OPTION_TARGET_MAC: u8 = 2;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// Tells who has an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourAdvert {
    /// The address.
    pub target: Ipv6Addr,
    /// Who has it.
    pub mac: Mac,
    /// Whether the sender forwards packets.
    pub is_router: bool,
    /// Whether somebody asked.
    pub is_solicited: bool,
    /// Whether receivers shall forget what they knew.
    pub is_override: bool,
}

/// Why bytes are not a neighbour advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdpError {
    /// Shorter than a message.
    TooShort {
        /// Bytes received.
        received: usize,
    },
    /// Another kind of ICMPv6 message.
    Type(u8),
    /// A code other than zero.
    Code(u8),
    /// The checksum is wrong.
    Checksum,
    /// An option of length zero, or longer than the message.
    Option,
    /// No option tells the hardware address.
    NoMac,
}

impl fmt::Display for NdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { received } => {
                write!(f, "neighbour advertisement of {received} bytes is too short")
            }
            Self::Type(kind) => write!(f, "ICMPv6 type {kind} is not a neighbour advertisement"),
            Self::Code(code) => write!(f, "neighbour advertisement has code {code}"),
            Self::Checksum => f.write_str("neighbour advertisement has a wrong checksum"),
            Self::Option => f.write_str("neighbour advertisement has a malformed option"),
            Self::NoMac => f.write_str("neighbour advertisement tells no hardware address"),
        }
    }
}

impl std::error::Error for NdpError {}

impl NeighbourAdvert {
    /// Makes the advertisement that nobody asked for and everybody shall believe.
    pub const fn unsolicited(target: Ipv6Addr, mac: Mac, is_router: bool) -> Self {
        Self { target, mac, is_router, is_solicited: false, is_override: true }
    }

    /// Reads a message that came along this path. Options other than the hardware address are
    /// skipped.
    pub fn parse(message: &[u8], path: &Path) -> Result<Self, NdpError> {
        let short = NdpError::TooShort { received: message.len() };
        let (head, rest) = take::<8>(message).ok_or(short)?;
        let (target, mut options) = take::<16>(rest).ok_or(short)?;
        let [kind, code, _, _, flags, _, _, _] = head;
        if kind != TYPE_ADVERTISEMENT {
            return Err(NdpError::Type(kind));
        }
        if code != 0 {
            return Err(NdpError::Code(code));
        }
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        if !path.pseudo_header(PROTOCOL_ICMPV6, length).plus(message).is_valid() {
            return Err(NdpError::Checksum);
        }
        let mut mac = None;
        while let Some((&[option, words], _)) = options.split_first_chunk::<2>() {
            let bytes = usize::from(words) * 8;
            let (value, rest) =
                options.split_at_checked(bytes).filter(|_| bytes > 0).ok_or(NdpError::Option)?;
            if let (OPTION_TARGET_MAC, [_, _, address @ ..]) = (option, value) {
                mac = address.first_chunk::<6>().map(|&address| Mac(address)).or(mac);
            }
            options = rest;
        }
        Ok(Self {
            target: Ipv6Addr::from(target),
            mac: mac.ok_or(NdpError::NoMac)?,
            is_router: flags & FLAG_ROUTER != 0,
            is_solicited: flags & FLAG_SOLICITED != 0,
            is_override: flags & FLAG_OVERRIDE != 0,
        })
    }

    /// Appends the message with its checksum for this path.
    pub fn encode(&self, path: &Path, out: &mut Vec<u8>) {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(self.is_router, FLAG_ROUTER)
            | flag(self.is_solicited, FLAG_SOLICITED)
            | flag(self.is_override, FLAG_OVERRIDE);
        let target = self.target.octets();
        let [a, b, c, d, e, g] = self.mac.0;
        let option = [OPTION_TARGET_MAC, 1, a, b, c, d, e, g];
        let sum = path
            .pseudo_header(PROTOCOL_ICMPV6, MESSAGE_LENGTH)
            .plus(&[TYPE_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0])
            .plus(&target)
            .plus(&option);
        let [s0, s1] = sum.finish().to_be_bytes();
        out.extend_from_slice(&[TYPE_ADVERTISEMENT, 0, s0, s1, flags, 0, 0, 0]);
        out.extend_from_slice(&target);
        out.extend_from_slice(&option);
    }

    /// Appends the whole frame to all nodes: 86 bytes, sent from the address itself.
    pub fn encode_all_nodes(&self, out: &mut Vec<u8>) {
        let destination = Mac::of_group_v6(ALL_NODES);
        ethernet::Header { destination, source: self.mac, ethertype: TYPE_IPV6 }.encode(out);
        let header = Ipv6Header {
            class: 0,
            flow: 0,
            // RFC 4861 section 7.1.2: receivers drop any other hop limit.
            hop_limit: 255,
            next_header: PROTOCOL_ICMPV6,
            source: self.target,
            destination: ALL_NODES,
        };
        header.encode(MESSAGE_BYTES, out);
        self.encode(&Path::V6 { source: self.target, destination: ALL_NODES }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_and_damage_has_its_name() {
        let target = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x77, 0x100);
        let path = Path::V6 { source: target, destination: ALL_NODES };
        let advert = NeighbourAdvert::unsolicited(target, Mac([2, 0x77, 0, 0, 0, 1]), false);
        let mut out = Vec::new();
        advert.encode(&path, &mut out);
        assert_eq!(out.len(), MESSAGE_BYTES);
        assert_eq!(NeighbourAdvert::parse(&out, &path), Ok(advert));
        assert_eq!(
            NeighbourAdvert::parse(&out[..23], &path),
            Err(NdpError::TooShort { received: 23 })
        );
        for (at, byte, error) in
            [(0, 135, NdpError::Type(135)), (1, 1, NdpError::Code(1)), (9, 1, NdpError::Checksum)]
        {
            let mut damaged = out.clone();
            damaged[at] = byte;
            assert_eq!(NeighbourAdvert::parse(&damaged, &path), Err(error));
        }
        // An option of length zero, with the sum kept: 0201 + 0277 = 0000 + 0478.
        let mut endless = out.clone();
        endless[24..26].copy_from_slice(&[0x00, 0x00]);
        endless[26..28].copy_from_slice(&[0x04, 0x78]);
        assert_eq!(NeighbourAdvert::parse(&endless, &path), Err(NdpError::Option));
    }
}
