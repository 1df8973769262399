//! What is asked of the kernel. Each request is a datagram of its own and is answered by its
//! number, which is not zero.

use std::net::IpAddr;

use super::attribute::{self, push};
use super::{
    DELETE_ADDRESS, DELETE_LINK, DELETE_ROUTE, FAMILY_V4, FAMILY_V6, GET_ADDRESS, GET_LINK,
    HEADER_BYTES, LINK_UP, NEW_ADDRESS, NEW_LINK, NEW_ROUTE, ORIGIN,
};
use crate::wire::ethernet::Mac;

const FLAG_REQUEST: u16 = 1;
const FLAG_ANSWER: u16 = 4;
pub(super) const FLAG_DUMP: u16 = 0x300;
const FLAG_REPLACE: u16 = 0x100;
const FLAG_CREATE: u16 = 0x400;

/// No search for others that use the address: whoever has the virtual router's addresses now is
/// about to be told, and a second without them is what is to be avoided.
const ADDRESS_NO_SEARCH: u32 = 0x02;
const ADDRESS_NO_PREFIX_ROUTE: u32 = 0x200;

const TABLE_MAIN: u32 = 254;
const ROUTE_UNICAST: u8 = 1;
const ROUTE_ON_LINK: u32 = 4;
const SCOPE_LINK: u8 = 253;

const MACVLAN_PRIVATE: u32 = 1;

/// An address to be added or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressChange {
    /// The interface.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Bits of its network.
    pub prefix: u8,
    /// Its scope, as the kernel numbers them.
    pub scope: u8,
    /// Its label.
    pub label: Option<String>,
    /// Its broadcast address.
    pub broadcast: Option<IpAddr>,
    /// Whether no route for its network comes with it.
    pub has_no_prefix_route: bool,
}

/// A route to be added or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// Its network.
    pub destination: (IpAddr, u8),
    /// Next router.
    pub via: Option<IpAddr>,
    /// Interface.
    pub interface: Option<u32>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Metric.
    pub metric: Option<u32>,
    /// Table; none means the main one.
    pub table: Option<u32>,
    /// Scope; none means the usual one.
    pub scope: Option<u8>,
    /// Whether the next router is taken to be on the link.
    pub is_onlink: bool,
}

const fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 }
}

fn octets(address: IpAddr, out: &mut Vec<u8>, kind: u16) {
    match address {
        IpAddr::V4(address) => push(out, kind, &address.octets()),
        IpAddr::V6(address) => push(out, kind, &address.octets()),
    }
}

/// Makes a request of its body.
pub(super) fn request(number: u32, kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((flags | FLAG_REQUEST).to_ne_bytes());
    out.extend(number.to_ne_bytes());
    out.extend(0_u32.to_ne_bytes());
    out.extend(body);
    out
}

/// Asks for all interfaces.
pub fn dump_links(number: u32) -> Vec<u8> {
    request(number, GET_LINK, FLAG_DUMP, &[0; 16])
}

/// Asks for all addresses of both families.
pub fn dump_addresses(number: u32) -> Vec<u8> {
    request(number, GET_ADDRESS, FLAG_DUMP, &[0; 8])
}

fn address_body(change: &AddressChange) -> Vec<u8> {
    let mut body = vec![family(change.address), change.prefix, 0, change.scope];
    body.extend(change.interface.to_ne_bytes());
    octets(change.address, &mut body, attribute::ADDRESS_LOCAL);
    octets(change.address, &mut body, attribute::ADDRESS_ADDRESS);
    body
}

/// Adds an address, marked as ours. One that is there already is no error of ours: the answer is
/// [`EEXIST`](super::EEXIST) for IPv4.
pub fn add_address(number: u32, change: &AddressChange) -> Vec<u8> {
    let mut body = address_body(change);
    if let Some(broadcast) = change.broadcast {
        octets(broadcast, &mut body, attribute::ADDRESS_BROADCAST);
    }
    if let Some(label) = &change.label {
        let mut label = label.clone().into_bytes();
        label.push(0);
        push(&mut body, attribute::ADDRESS_LABEL, &label);
    }
    let mut flags = 0;
    if change.address.is_ipv6() {
        flags |= ADDRESS_NO_SEARCH;
    }
    if change.has_no_prefix_route {
        flags |= ADDRESS_NO_PREFIX_ROUTE;
    }
    push(&mut body, attribute::ADDRESS_FLAGS, &u32::to_ne_bytes(flags));
    push(&mut body, attribute::ADDRESS_ORIGIN, &[ORIGIN]);
    if change.address.is_ipv6() && change.prefix == 128 {
        // Valid forever and never preferred: nobody's connections begin at it.
        let lifetime: [u32; 4] = [0, u32::MAX, 0, 0];
        let bytes: Vec<u8> = lifetime.iter().flat_map(|word| word.to_ne_bytes()).collect();
        push(&mut body, attribute::ADDRESS_LIFETIME, &bytes);
    }
    request(number, NEW_ADDRESS, FLAG_ANSWER | FLAG_CREATE | FLAG_REPLACE, &body)
}

/// Removes an address.
pub fn delete_address(number: u32, change: &AddressChange) -> Vec<u8> {
    request(number, DELETE_ADDRESS, FLAG_ANSWER, &address_body(change))
}

fn route_body(change: &RouteChange, is_new: bool) -> Vec<u8> {
    let (destination, prefix) = change.destination;
    let table = change.table.unwrap_or(TABLE_MAIN);
    let on_link = if is_new && change.is_onlink { ROUTE_ON_LINK } else { 0 };
    let usual = if change.via.is_none() && destination.is_ipv4() { SCOPE_LINK } else { 0 };
    let scope = change.scope.unwrap_or(usual);
    // A table beyond eight bits stands in an attribute.
    let short_table = u8::try_from(table).unwrap_or(0);
    let mut body = vec![family(destination), prefix, 0, 0, short_table, ORIGIN, scope];
    body.push(ROUTE_UNICAST);
    body.extend(on_link.to_ne_bytes());
    if prefix > 0 {
        octets(destination, &mut body, attribute::ROUTE_DESTINATION);
    }
    if let Some(interface) = change.interface {
        push(&mut body, attribute::ROUTE_INTERFACE, &interface.to_ne_bytes());
    }
    if let Some(via) = change.via {
        octets(via, &mut body, attribute::ROUTE_GATEWAY);
    }
    if let Some(source) = change.source {
        octets(source, &mut body, attribute::ROUTE_SOURCE);
    }
    if let Some(metric) = change.metric {
        push(&mut body, attribute::ROUTE_METRIC, &metric.to_ne_bytes());
    }
    push(&mut body, attribute::ROUTE_TABLE, &table.to_ne_bytes());
    body
}

/// Adds a route, marked as ours.
pub fn add_route(number: u32, change: &RouteChange) -> Vec<u8> {
    let flags = FLAG_ANSWER | FLAG_CREATE | FLAG_REPLACE;
    request(number, NEW_ROUTE, flags, &route_body(change, true))
}

/// Removes a route.
pub fn delete_route(number: u32, change: &RouteChange) -> Vec<u8> {
    request(number, DELETE_ROUTE, FLAG_ANSWER, &route_body(change, false))
}

fn link_body(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body
}

/// Adds an interface with a MAC of its own on top of another, one that its neighbours on the same
/// interface cannot reach.
pub fn add_virtual_link(number: u32, name: &str, below: u32, mac: Mac) -> Vec<u8> {
    let mut body = link_body(0, 0);
    let mut name = name.as_bytes().to_vec();
    name.push(0);
    push(&mut body, attribute::LINK_NAME, &name);
    push(&mut body, attribute::LINK_ADDRESS, &mac.0);
    push(&mut body, attribute::LINK_BELOW, &below.to_ne_bytes());
    let mut data = Vec::new();
    push(&mut data, attribute::LINK_MACVLAN_MODE, &MACVLAN_PRIVATE.to_ne_bytes());
    let mut info = Vec::new();
    push(&mut info, attribute::LINK_INFO_KIND, b"macvlan");
    push(&mut info, attribute::LINK_INFO_DATA, &data);
    push(&mut body, attribute::LINK_INFO, &info);
    request(number, NEW_LINK, FLAG_ANSWER | FLAG_CREATE | 0x200, &body)
}

/// Sets an interface up.
pub fn set_link_up(number: u32, index: u32) -> Vec<u8> {
    request(number, NEW_LINK, FLAG_ANSWER, &link_body(index, LINK_UP))
}

/// Removes an interface.
pub fn delete_link(number: u32, index: u32) -> Vec<u8> {
    request(number, DELETE_LINK, FLAG_ANSWER, &link_body(index, 0))
}
