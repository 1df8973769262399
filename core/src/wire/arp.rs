//! ARP over Ethernet for IPv4. Source: RFC 826; for announcements RFC 5227 section 2.3.

use std::fmt;
use std::net::Ipv4Addr;

use super::ethernet::{Header, Mac, TYPE_ARP};
use super::take;

/// Bytes of a packet without its Ethernet header.
pub const PACKET_BYTES: usize = 28;

/// Ethernet, IPv4, and the sizes of their addresses.
const PREFIX: [u8; 6] = [0x00, 0x01, 0x08, 0x00, 6, 4];

/// What a packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Asks for the owner of the target address.
    Request,
    /// Answers.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// What it does.
    pub operation: Operation,
    /// Hardware address of the sender.
    pub sender_mac: Mac,
    /// Address of the sender.
    pub sender: Ipv4Addr,
    /// Hardware address of the target.
    pub target_mac: Mac,
    /// Address of the target.
    pub target: Ipv4Addr,
}

/// Why bytes are not an ARP packet that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpError {
    /// Shorter than a packet.
    TooShort {
        /// Bytes received.
        received: usize,
    },
    /// Not for Ethernet and IPv4.
    Kind,
    /// Neither a request nor a reply.
    Operation(u16),
}

impl fmt::Display for ArpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { received } => write!(f, "ARP packet of {received} bytes is too short"),
            Self::Kind => f.write_str("ARP packet is not for Ethernet and IPv4"),
            Self::Operation(operation) => write!(f, "ARP operation {operation} is not known"),
        }
    }
}

impl std::error::Error for ArpError {}

impl Arp {
    /// Makes the packet that tells everybody who has an address.
    ///
    /// Sender and target are the address itself, and the target's hardware address is the
    /// broadcast address, as keepalived sends it in requests and replies alike.
    pub const fn gratuitous(operation: Operation, mac: Mac, address: Ipv4Addr) -> Self {
        Self {
            operation,
            sender_mac: mac,
            sender: address,
            target_mac: Mac::BROADCAST,
            target: address,
        }
    }

    /// Tells whether it announces its sender's own address.
    pub fn is_gratuitous(&self) -> bool {
        self.sender == self.target
    }

    /// Reads a packet. What follows it is the padding of the frame.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArpError> {
        let short = ArpError::TooShort { received: bytes.len() };
        let (prefix, rest) = take::<6>(bytes).ok_or(short)?;
        let (operation, rest) = take::<2>(rest).ok_or(short)?;
        let (sender_mac, rest) = take::<6>(rest).ok_or(short)?;
        let (sender, rest) = take::<4>(rest).ok_or(short)?;
        let (target_mac, rest) = take::<6>(rest).ok_or(short)?;
        let (target, _) = take::<4>(rest).ok_or(short)?;
        if prefix != PREFIX {
            return Err(ArpError::Kind);
        }
        let operation = match u16::from_be_bytes(operation) {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => return Err(ArpError::Operation(other)),
        };
        Ok(Self {
            operation,
            sender_mac: Mac(sender_mac),
            sender: Ipv4Addr::from(sender),
            target_mac: Mac(target_mac),
            target: Ipv4Addr::from(target),
        })
    }

    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        out.extend_from_slice(&PREFIX);
        out.extend_from_slice(&operation.to_be_bytes());
        out.extend_from_slice(&self.sender_mac.0);
        out.extend_from_slice(&self.sender.octets());
        out.extend_from_slice(&self.target_mac.0);
        out.extend_from_slice(&self.target.octets());
    }

    /// Appends the packet as a frame to everybody, 42 bytes; the driver pads it.
    pub fn encode_broadcast(&self, out: &mut Vec<u8>) {
        let source = self.sender_mac;
        Header { destination: Mac::BROADCAST, source, ethertype: TYPE_ARP }.encode(out);
        self.encode(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_comes_back_and_damage_has_its_name() {
        let mac = Mac([2, 0x77, 0, 0, 0, 1]);
        let arp = Arp::gratuitous(Operation::Reply, mac, Ipv4Addr::new(10, 77, 0, 100));
        let mut out = Vec::new();
        arp.encode(&mut out);
        assert_eq!(out.len(), PACKET_BYTES);
        assert_eq!(Arp::parse(&out), Ok(arp));
        assert_eq!(Arp::parse(&out[..27]), Err(ArpError::TooShort { received: 27 }));
        out[7] = 3;
        assert_eq!(Arp::parse(&out), Err(ArpError::Operation(3)));
        out[1] = 6;
        assert_eq!(Arp::parse(&out), Err(ArpError::Kind));
    }
}
