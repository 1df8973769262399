//! What the kernel has: interfaces and addresses, as far as it has told.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::wire::ethernet::Mac;
use crate::wire::netlink::{
    ADDRESS_DUPLICATE, ADDRESS_SECONDARY, ADDRESS_TENTATIVE, Address, Link, ORIGIN,
};
use crate::wire::vrrp::Family;

/// Interfaces and addresses.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    links: BTreeMap<u32, Link>,
    /// Each with its place in the kernel's order: the first of an interface is its main one.
    addresses: BTreeMap<(u32, IpAddr), (u64, Address)>,
    next: u64,
}

impl Kernel {
    /// Takes an interface in; returns it as it was.
    pub(super) fn link(&mut self, link: Link) -> Option<Link> {
        self.links.insert(link.index, link)
    }

    pub(super) fn link_gone(&mut self, index: u32) {
        self.links.remove(&index);
        self.addresses.retain(|&(interface, _), _| interface != index);
    }

    pub(super) fn address(&mut self, address: Address) {
        let key = (address.interface, address.address);
        let place = self.addresses.get(&key).map_or(self.next, |known| known.0);
        self.next = self.next.wrapping_add(1);
        self.addresses.insert(key, (place, address));
    }

    pub(super) fn address_gone(&mut self, address: &Address) {
        self.addresses.remove(&(address.interface, address.address));
    }

    /// Forgets all addresses, since a new list is on its way; returns them.
    pub(super) fn forget_addresses(&mut self) -> Vec<Address> {
        std::mem::take(&mut self.addresses).into_values().map(|(_, address)| address).collect()
    }

    pub(super) fn named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    pub(super) fn mac(&self, index: u32) -> Option<Mac> {
        self.links.get(&index).and_then(|link| link.mac)
    }

    pub(super) fn is_running(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|link| link.is_running)
    }

    /// Tells whether an interface has an address.
    pub(super) fn has(&self, interface: u32, address: IpAddr) -> bool {
        self.addresses.contains_key(&(interface, address))
    }

    /// Tells whether any interface has an address.
    pub(super) fn has_anywhere(&self, address: IpAddr) -> bool {
        self.addresses.keys().any(|&(_, known)| known == address)
    }

    /// Tells whether a process of ours put the address there.
    pub(super) fn is_ours(&self, interface: u32, address: IpAddr) -> bool {
        let known = self.addresses.get(&(interface, address));
        known.is_some_and(|(_, address)| address.origin == ORIGIN)
    }

    /// Returns all addresses that a process of ours put somewhere.
    pub(super) fn ours(&self) -> impl Iterator<Item = &Address> {
        let all = self.addresses.values().map(|(_, address)| address);
        all.filter(|address| address.origin == ORIGIN)
    }

    /// Returns the bits of the network that an address is there with.
    pub(super) fn prefix(&self, interface: u32, address: IpAddr) -> Option<u8> {
        self.addresses.get(&(interface, address)).map(|(_, address)| address.prefix)
    }

    /// Returns the address of an interface that adverts come from: the first one of IPv4, the
    /// link-local one of IPv6; not one of `virtual_addresses`.
    pub(super) fn source(
        &self,
        interface: u32,
        family: Family,
        virtual_addresses: &[IpAddr],
    ) -> Option<IpAddr> {
        let fits = |(_, address): &&(u64, Address)| {
            let is_usable = match address.address {
                IpAddr::V4(_) => family == Family::V4,
                IpAddr::V6(one) => family == Family::V6 && one.is_unicast_link_local(),
            };
            address.interface == interface
                && is_usable
                && address.flags & (ADDRESS_TENTATIVE | ADDRESS_DUPLICATE) == 0
                && address.origin != ORIGIN
                && !virtual_addresses.contains(&address.address)
        };
        let all = self.addresses.values().filter(fits);
        let best = all.min_by_key(|(place, one)| (one.flags & ADDRESS_SECONDARY, *place));
        best.map(|(_, address)| address.address)
    }
}
