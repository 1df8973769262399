//! The start: once everything that can be known is known, and of routers that come later.

use std::net::IpAddr;

use super::setup::change;
use super::{Keeper, Slot, SocketState, Stage, Watched};
use crate::config::keepalived::{Instance, VirtualAddress};
use crate::io::RouterNews;
use crate::vrrp::keeper::checks::Check;
use crate::vrrp::keeper::plan::Follows;
use crate::vrrp::track::Reading;
use crate::wire::netlink::{self, Address, AddressChange};

impl Keeper {
    /// Starts the routers once everything that can be known is known.
    pub(super) fn try_start(&mut self) {
        let is_ready = self.is_settled() && self.framing.is_none() && self.start_at <= self.now;
        if self.stage != Stage::Preparing || !is_ready {
            return;
        }
        self.stage = Stage::Running;
        self.remove_strays();
        self.start_new();
    }

    /// Tells whether everything was opened and made that can be, or has failed.
    fn is_settled(&self) -> bool {
        let is_opening = self.sockets.iter().any(|socket| socket.state == SocketState::Opening);
        let is_building = self.slots.iter().any(|slot| {
            let is_asked = slot.has_asked_above && !slot.has_no_above;
            is_asked && slot.above.is_none() && slot.interface.is_some()
        });
        self.is_listed && !is_opening && !is_building
    }

    /// Starts routers that were not there before, when they have what they need: none of them has
    /// to begin with a fault.
    pub(super) fn start_new(&mut self) {
        if self.stage != Stage::Running || !self.is_settled() {
            return;
        }
        for place in 0..self.slots.len() {
            if let Some(slot) = self.slots.get_mut(place)
                && !std::mem::replace(&mut slot.has_started, true)
            {
                self.start(place);
            }
        }
    }

    /// Removes addresses that a process before us left on interfaces of ours and that no virtual
    /// router has any more: the file has changed since.
    fn remove_strays(&mut self) {
        let is_stray = |one: &&Address| {
            let is_near = |slot: &Slot| {
                slot.interface == Some(one.interface) || slot.above == Some(one.interface)
            };
            let has = |slot: &Slot| slot.addresses().any(|known| known.address == one.address);
            self.slots.iter().any(is_near) && !self.slots.iter().any(has)
        };
        let strays: Vec<Address> = self.kernel.ours().filter(is_stray).copied().collect();
        for stray in strays {
            let Address { interface, address, prefix, .. } = stray;
            self.remove_address(0, interface, address, prefix);
        }
    }

    /// Removes an address that no router has in its file.
    pub(super) fn remove_address(
        &mut self,
        place: usize,
        interface: u32,
        address: IpAddr,
        prefix: u8,
    ) {
        let gone = bare(interface, address, prefix);
        let asked = change(place, format!("remove the address {address}"), true);
        self.ask(asked, |number| netlink::delete_address(number, &gone));
    }

    /// Starts one router.
    pub(super) fn start(&mut self, place: usize) {
        self.keep(place);
        self.first_readings(place);
        if let Some(slot) = self.slots.get_mut(place) {
            let rule = slot.instance.health.as_ref();
            slot.is_ill = rule.is_some_and(|rule| self.health.reading(rule) == Reading::Down);
        }
        self.link_of(place);
        if self.has_residue(place) {
            if let (Some(router), Some(slot)) =
                (self.routers.get_mut(place), self.slots.get_mut(place))
            {
                router.handle_residue();
                slot.holds = true;
            }
            self.is_will_stale = true;
            self.event(place, RouterNews::Adopted);
        }
        if let Some(router) = self.routers.get_mut(place) {
            router.handle_start(self.now);
        }
        self.perform(place);
    }

    /// Tells a router what is known of all that it tracks.
    pub(super) fn first_readings(&mut self, place: usize) {
        let Some(slot) = self.slots.get(place) else { return };
        let follows: Vec<Follows> =
            slot.trackers.iter().map(|tracker| tracker.follows.clone()).collect();
        for follows in follows {
            let Some(slot) = self.slots.get(place) else { return };
            let reading = self.reading(&slot.instance, &follows);
            if reading != Reading::Unknown {
                self.read_in(place, &follows, reading);
            }
        }
    }

    /// Returns what is known of something that an instance tracks.
    pub(super) fn reading(&self, instance: &Instance, follows: &Follows) -> Reading {
        let watched = |list: &[Watched], place: usize| {
            list.get(place).map_or(Reading::Unknown, |watched| watched.reading)
        };
        match follows {
            Follows::Interface(name) => match self.kernel.named(name) {
                Some(link) if link.is_running => Reading::Up,
                Some(_) | None => Reading::Down,
            },
            Follows::Script(place) => match self.checks.get(*place).and_then(Check::is_up) {
                Some(true) => Reading::Up,
                Some(false) => Reading::Down,
                None => Reading::Unknown,
            },
            Follows::File(place) => watched(&self.files, *place),
            Follows::Process(place) => watched(&self.processes, *place),
            Follows::Health => {
                instance.health.as_ref().map_or(Reading::Up, |rule| self.health.reading(rule))
            }
        }
    }

    /// Tells whether all addresses are there and were put there by a process of ours.
    fn has_residue(&self, place: usize) -> bool {
        let Some(slot) = self.slots.get(place) else { return false };
        let is_there = |address: &VirtualAddress| {
            let device = self.device(slot, address);
            device.is_some_and(|device| self.kernel.is_ours(device, address.address))
        };
        slot.addresses().next().is_some() && slot.addresses().all(is_there)
    }
}

/// Names an address that is to be removed.
pub(super) const fn bare(interface: u32, address: IpAddr, prefix: u8) -> AddressChange {
    AddressChange {
        interface,
        address,
        prefix,
        scope: 0,
        label: None,
        broadcast: None,
        has_no_prefix_route: false,
    }
}
