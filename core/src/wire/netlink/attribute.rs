//! What follows the fixed part of a message: kind, length and value, again and again.

use super::half;

pub(super) const LINK_ADDRESS: u16 = 1;
pub(super) const LINK_NAME: u16 = 3;
pub(super) const LINK_MTU: u16 = 4;
pub(super) const LINK_BELOW: u16 = 5;
pub(super) const LINK_INFO: u16 = 18;
pub(super) const LINK_INFO_KIND: u16 = 1;
pub(super) const LINK_INFO_DATA: u16 = 2;
pub(super) const LINK_MACVLAN_MODE: u16 = 1;

pub(super) const ADDRESS_ADDRESS: u16 = 1;
pub(super) const ADDRESS_LOCAL: u16 = 2;
pub(super) const ADDRESS_LABEL: u16 = 3;
pub(super) const ADDRESS_BROADCAST: u16 = 4;
pub(super) const ADDRESS_LIFETIME: u16 = 6;
pub(super) const ADDRESS_FLAGS: u16 = 8;
pub(super) const ADDRESS_ORIGIN: u16 = 11;

pub(super) const ROUTE_DESTINATION: u16 = 1;
pub(super) const ROUTE_INTERFACE: u16 = 4;
pub(super) const ROUTE_GATEWAY: u16 = 5;
pub(super) const ROUTE_METRIC: u16 = 6;
pub(super) const ROUTE_SOURCE: u16 = 7;
pub(super) const ROUTE_TABLE: u16 = 15;

/// Bits of a kind that say how its value is made.
const KIND_MASK: u16 = 0x3fff;

const HEADER_BYTES: usize = 4;

/// The attributes of a message. What is cut short ends them.
pub(super) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(half(self.rest, 0)?);
        let kind = half(self.rest, 2)? & KIND_MASK;
        let value = self.rest.get(HEADER_BYTES..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Appends an attribute. A value too long to be told is left out.
pub(super) fn push(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let Ok(length) = u16::try_from(HEADER_BYTES + value.len()) else { return };
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}
