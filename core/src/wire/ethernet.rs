//! Ethernet headers and addresses, as packet sockets carry them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::take;
use super::vrrp::{Family, Vrid};

/// Bytes of an Ethernet header.
pub const HEADER_BYTES: usize = 14;

/// The type of a frame that holds IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// The type of a frame that holds ARP.
pub const TYPE_ARP: u16 = 0x0806;
/// The type of a frame that holds IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Returns the address that a virtual router uses on links where hosts shall not notice a
    /// change of router. Source: RFC 9568 section 7.3.
    pub const fn virtual_router(family: Family, vrid: Vrid) -> Self {
        let block = match family {
            Family::V4 => 0x01,
            Family::V6 => 0x02,
        };
        Self([0x00, 0x00, 0x5e, 0x00, block, vrid.get()])
    }

    /// Returns where frames to an IPv4 multicast group go. Source: RFC 1112 section 6.4.
    pub const fn of_group_v4(group: Ipv4Addr) -> Self {
        let [_, b, c, d] = group.octets();
        Self([0x01, 0x00, 0x5e, b & 0x7f, c, d])
    }

    /// Returns where frames to an IPv6 multicast group go. Source: RFC 2464 section 7.
    pub const fn of_group_v6(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Who sends a frame to whom, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// What follows, such as [`TYPE_ARP`].
    pub ethertype: u16,
}

impl Header {
    /// Splits a frame into its header and what follows; none if it is too short.
    pub fn parse(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (destination, rest) = take::<6>(frame)?;
        let (source, rest) = take::<6>(rest)?;
        let (ethertype, rest) = take::<2>(rest)?;
        let ethertype = u16::from_be_bytes(ethertype);
        Some((Self { destination: Mac(destination), source: Mac(source), ethertype }, rest))
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.destination.0);
        out.extend_from_slice(&self.source.0);
        out.extend_from_slice(&self.ethertype.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_virtual_routers_have_their_addresses() {
        let v4 = Mac::of_group_v4(Ipv4Addr::new(224, 0, 0, 18));
        assert_eq!(v4.to_string(), "01:00:5e:00:00:12");
        let v6 = Mac::of_group_v6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12));
        assert_eq!(v6.to_string(), "33:33:00:00:00:12");
        let vrid = Vrid::new(51).unwrap();
        assert_eq!(Mac::virtual_router(Family::V4, vrid).to_string(), "00:00:5e:00:01:33");
        assert_eq!(Mac::virtual_router(Family::V6, vrid).to_string(), "00:00:5e:00:02:33");
    }

    #[test]
    fn a_short_frame_has_no_header() {
        assert_eq!(Header::parse(&[0; 13]), None);
        assert!(Header::parse(&[0; 14]).is_some_and(|(_, rest)| rest.is_empty()));
    }
}
