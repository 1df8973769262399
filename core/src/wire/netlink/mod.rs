//! The few messages of the kernel's routing netlink that addresses and routes need, and those that
//! reset connections.
//!
//! Numbers are in the byte order of the machine: they never leave it. Source: `linux/netlink.h`,
//! `linux/rtnetlink.h`, `linux/if_addr.h`, `linux/if_link.h`.

mod attribute;
mod request;
pub mod sockets;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ethernet::Mac;
use attribute::Attributes;

pub use request::{
    AddressChange, RouteChange, add_address, add_route, add_virtual_link, delete_address,
    delete_link, delete_route, dump_addresses, dump_links, set_link_up,
};

/// Group of news about interfaces: a bit of a socket's address.
pub const GROUP_LINK: u32 = 1;
/// Group of news about IPv4 addresses.
pub const GROUP_IPV4_ADDRESS: u32 = 0x10;
/// Group of news about IPv6 addresses.
pub const GROUP_IPV6_ADDRESS: u32 = 0x100;

/// What we write on addresses and routes of ours, so that a later process knows them: the number
/// of the protocol VRRP. Kernels before 5.18 keep none for addresses.
pub const ORIGIN: u8 = 112;

/// An address that was asked for a moment ago and may be in use by others.
pub const ADDRESS_TENTATIVE: u32 = 0x40;
/// An address that others use.
pub const ADDRESS_DUPLICATE: u32 = 0x08;
/// Not the first IPv4 address of its network on its interface.
pub const ADDRESS_SECONDARY: u32 = 0x01;

/// Error number: there is one already.
pub const EEXIST: i32 = 17;
/// Error number: there is no such interface.
pub const ENODEV: i32 = 19;
/// Error number: there is no such route.
pub const ESRCH: i32 = 3;
/// Error number: there is no such address.
pub const EADDRNOTAVAIL: i32 = 99;

const HEADER_BYTES: usize = 16;

const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;

const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;

const LINK_UP: u32 = 1;
const LINK_RUNNING: u32 = 0x40;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is up and carries frames.
    pub is_running: bool,
    /// Its MAC, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// The largest packet, bytes; zero if it is not told.
    pub mtu: u32,
    /// The interface that it lies on.
    pub below: Option<u32>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Bits of its network.
    pub prefix: u8,
    /// Bits such as [`ADDRESS_TENTATIVE`].
    pub flags: u32,
    /// Who put it there; zero if nobody says so.
    pub origin: u8,
}

/// What the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// An interface is there, or is changed.
    Link(Link),
    /// An interface is gone.
    LinkGone(u32),
    /// An address is there, or is changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A list is complete; or with an error number, is not.
    Done(i32),
    /// A request was carried out (0), or not (an error number).
    Answer(i32),
    /// Something that nobody here wants to know.
    Other,
}

/// A message with the number of the request that it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The request; zero for news that came unasked.
    pub request: u32,
    /// What it says.
    pub news: News,
}

/// Reads the messages of one datagram. What is cut short ends them; a message that makes no sense
/// is [`News::Other`].
pub fn messages(bytes: &[u8]) -> Messages<'_> {
    Messages { rest: bytes }
}

/// The messages of one datagram.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl Iterator for Messages<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let length = usize::try_from(word(self.rest, 0)?).ok()?;
        let kind = half(self.rest, 4)?;
        let request = word(self.rest, 8)?;
        let body = self.rest.get(HEADER_BYTES..length)?;
        // The next one begins at a multiple of four.
        self.rest = self.rest.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
        Some(Message { request, news: news(kind, body).unwrap_or(News::Other) })
    }
}

fn news(kind: u16, body: &[u8]) -> Option<News> {
    Some(match kind {
        TYPE_ERROR => News::Answer(number(body)?.saturating_neg()),
        TYPE_DONE => News::Done(number(body).unwrap_or(0).saturating_neg()),
        NEW_LINK => News::Link(link(body)?),
        DELETE_LINK => News::LinkGone(word(body, 4)?),
        NEW_ADDRESS => News::Address(address(body)?),
        DELETE_ADDRESS => News::AddressGone(address(body)?),
        _ => News::Other,
    })
}

fn link(body: &[u8]) -> Option<Link> {
    let index = word(body, 4)?;
    let flags = word(body, 8)?;
    let mut link = Link {
        index,
        name: String::new(),
        is_running: flags & (LINK_UP | LINK_RUNNING) == LINK_UP | LINK_RUNNING,
        mac: None,
        mtu: 0,
        below: None,
    };
    for (kind, value) in Attributes::new(body.get(16..)?) {
        match kind {
            attribute::LINK_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            attribute::LINK_NAME => link.name = text(value),
            attribute::LINK_MTU => link.mtu = word(value, 0).unwrap_or(0),
            attribute::LINK_BELOW => link.below = word(value, 0),
            _ => {}
        }
    }
    Some(link)
}

fn address(body: &[u8]) -> Option<Address> {
    let (&family, &prefix, &flags) = (body.first()?, body.get(1)?, body.get(2)?);
    let interface = word(body, 4)?;
    let (mut local, mut other, mut flags, mut origin) = (None, None, u32::from(flags), 0);
    for (kind, value) in Attributes::new(body.get(8..)?) {
        match kind {
            // Of a link between two points this is the other end.
            attribute::ADDRESS_ADDRESS => other = ip(family, value),
            attribute::ADDRESS_LOCAL => local = ip(family, value),
            attribute::ADDRESS_FLAGS => flags = word(value, 0).unwrap_or(flags),
            attribute::ADDRESS_ORIGIN => origin = value.first().copied().unwrap_or(0),
            _ => {}
        }
    }
    let address = local.or(other)?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    (prefix <= bits).then_some(Address { interface, address, prefix, flags, origin })
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        FAMILY_V4 => <[u8; 4]>::try_from(value).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
        FAMILY_V6 => <[u8; 16]>::try_from(value).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

fn text(value: &[u8]) -> String {
    let end = memchr::memchr(0, value).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

fn number(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests;
