//! What is left to do when this process dies: goodbyes to be sent, addresses to be removed.
//!
//! It is made ready before it is needed and handed to a guardian process, which outlives us.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A packet that says goodbye.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The interface that it leaves from.
    pub interface: u32,
    /// Where it comes from.
    pub source: IpAddr,
    /// Hop limit of IPv6.
    pub ttl: u8,
    /// Whom it is for.
    pub to: IpAddr,
    /// The packet: with its header for IPv4, without for IPv6.
    pub bytes: Vec<u8>,
}

/// What a guardian does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Will {
    /// Sent first, so that another router goes on at once.
    pub goodbyes: Vec<Goodbye>,
    /// Requests to the kernel's netlink.
    pub requests: Vec<Vec<u8>>,
}

impl Will {
    /// Tells whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.goodbyes.is_empty() && self.requests.is_empty()
    }

    /// Returns the bytes to hand over.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        count(self.goodbyes.len(), &mut out);
        for goodbye in &self.goodbyes {
            out.extend(goodbye.interface.to_be_bytes());
            out.push(goodbye.ttl);
            address(goodbye.source, &mut out);
            address(goodbye.to, &mut out);
            count(goodbye.bytes.len(), &mut out);
            out.extend(&goodbye.bytes);
        }
        count(self.requests.len(), &mut out);
        for request in &self.requests {
            count(request.len(), &mut out);
            out.extend(request);
        }
        out
    }

    /// Reads what [`Will::encode`] made; none if it is something else.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut will = Self::default();
        for _ in 0..take_count(&mut rest)? {
            let interface = u32::from_be_bytes(take(&mut rest)?);
            let [ttl] = take(&mut rest)?;
            let source = take_address(&mut rest)?;
            let to = take_address(&mut rest)?;
            let bytes = take_bytes(&mut rest)?;
            will.goodbyes.push(Goodbye { interface, source, ttl, to, bytes });
        }
        for _ in 0..take_count(&mut rest)? {
            will.requests.push(take_bytes(&mut rest)?);
        }
        rest.is_empty().then_some(will)
    }
}

pub(super) fn count(number: usize, out: &mut Vec<u8>) {
    // Lists and packets of a few thousand at most.
    out.extend(u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
}

pub(super) fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            out.push(4);
            out.extend(address.octets());
        }
        IpAddr::V6(address) => {
            out.push(6);
            out.extend(address.octets());
        }
    }
}

pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

pub(super) fn take_count(rest: &mut &[u8]) -> Option<u16> {
    take(rest).map(u16::from_be_bytes)
}

fn take_bytes(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::from(take_count(rest)?);
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head.to_vec())
}

pub(super) fn take_address(rest: &mut &[u8]) -> Option<IpAddr> {
    match take(rest)? {
        [4] => take(rest).map(|octets: [u8; 4]| Ipv4Addr::from(octets).into()),
        [6] => take(rest).map(|octets: [u8; 16]| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn will() -> Will {
        let goodbye = |source: &str, to: &str| Goodbye {
            interface: 3,
            source: source.parse().unwrap(),
            ttl: 255,
            to: to.parse().unwrap(),
            bytes: vec![1, 2, 3],
        };
        Will {
            goodbyes: vec![goodbye("10.0.0.1", "224.0.0.18"), goodbye("fe80::1", "ff02::12")],
            requests: vec![vec![9; 40], Vec::new()],
        }
    }

    #[test]
    fn a_will_survives_the_way() {
        assert_eq!(Will::parse(&will().encode()), Some(will()));
        assert!(Will::parse(&Will::default().encode()).unwrap().is_empty());
    }

    #[test]
    fn what_is_cut_or_goes_on_is_no_will() {
        let mut bytes = will().encode();
        for end in 0..bytes.len() {
            assert_eq!(Will::parse(&bytes[..end]), None, "{end}");
        }
        bytes.push(0);
        assert_eq!(Will::parse(&bytes), None);
    }
}
