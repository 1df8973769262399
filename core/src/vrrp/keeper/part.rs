//! Giving addresses up without leaving their clients behind.
//!
//! Nothing leaves from an address that is gone, so whoever waits for a reply would wait for ever:
//! connections are reset before. And whoever connects while nobody has the address is not refused
//! but unheard, and tries again after a second: so an address that another router is about to take
//! stays until that one is heard, or has had the time for it.

use std::net::IpAddr;
use std::time::Duration;

use super::super::fsm::{Cause, Phase};
use super::guard::{address, count, take, take_address, take_count};
use super::setup::change;
use super::{Keeper, Slot};
use crate::id::ChannelId;
use crate::io::Output;
use crate::limits;
use crate::time::Instant;
use crate::wire::netlink::{self, AddressChange, RouteChange};
use crate::wire::vrrp::Vrid;

/// Has every TCP connection reset whose address on this host is one of these. Answered when that is
/// done, or cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Names the answer.
    pub number: u32,
    /// Which addresses.
    pub addresses: Vec<IpAddr>,
}

impl Order {
    /// Returns the bytes to hand over.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.number.to_be_bytes().to_vec();
        count(self.addresses.len(), &mut out);
        for one in &self.addresses {
            address(*one, &mut out);
        }
        out
    }

    /// Reads what [`Order::encode`] made; none if it is something else.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let number = u32::from_be_bytes(take(&mut rest)?);
        let addresses = (0..take_count(&mut rest)?).map(|_| take_address(&mut rest));
        let addresses = addresses.collect::<Option<_>>()?;
        rest.is_empty().then_some(Self { number, addresses })
    }

    /// Returns the bytes of the answer.
    pub const fn answer(&self) -> [u8; 4] {
        self.number.to_be_bytes()
    }
}

/// What of a router is on its way off the host.
#[derive(Debug)]
pub(super) struct Parting {
    /// The router's place when it began, for what may be said about it.
    place: usize,
    /// Where another router of the same number is heard.
    heard: Option<(ChannelId, Vrid)>,
    addresses: Vec<AddressChange>,
    routes: Vec<RouteChange>,
    /// The interface that goes with them.
    above: Option<u32>,
    /// When it goes on, whatever was heard.
    due: Instant,
    /// The order that is being carried out; none while the addresses stay.
    order: Option<u32>,
}

impl Keeper {
    /// Gives up what a router has.
    pub(super) fn part(&mut self, place: usize) {
        let Some(slot) = self.slots.get(place) else { return };
        if !slot.holds {
            return self.remove_addresses(place);
        }
        let addresses = slot.addresses().filter_map(|one| self.address_change(slot, one)).collect();
        let routes = slot.instance.routes.iter().map(|one| self.route_change(slot, one)).collect();
        let wait = self.linger(place, slot);
        if let Some(slot) = self.slots.get_mut(place) {
            (slot.holds, slot.lost) = (false, None);
        }
        self.begin_parting(place, addresses, routes, wait);
    }

    /// Gives addresses and routes up; they stay for `wait` if nobody else is heard.
    pub(super) fn begin_parting(
        &mut self,
        place: usize,
        addresses: Vec<AddressChange>,
        routes: Vec<RouteChange>,
        wait: Duration,
    ) {
        let slot = self.slots.get(place);
        let heard = slot.and_then(|slot| Some((slot.hears?, slot.instance.vrid)));
        let due = self.now + wait;
        let parting = Parting { place, heard, addresses, routes, above: None, due, order: None };
        self.partings.push(parting);
        self.is_will_stale = true;
    }

    /// Returns how long a router's addresses may stay: no longer than the slowest of those who heard
    /// its goodbye takes. Where there was none, another has them or nobody will come.
    ///
    /// Deviates from RFC 9568 section 6.4.3, after which a router that has left accepts nothing.
    fn linger(&self, place: usize, slot: &Slot) -> Duration {
        let Some(router) = self.routers.get(place) else { return Duration::ZERO };
        let has_left = match router.last_cause() {
            Some(Cause::Stopped | Cause::Demoted | Cause::Unwell) => !slot.is_deleted,
            // Nobody is reached through an interface that is down.
            Some(Cause::FaultFound) => {
                slot.interface.is_some_and(|one| self.kernel.is_running(one))
            }
            Some(
                Cause::Started
                | Cause::StartedAsOwner
                | Cause::ActiveDown
                | Cause::GroupTookOver
                | Cause::Outranked
                | Cause::GroupYielded
                | Cause::AddressLost
                | Cause::FaultCleared
                | Cause::FaultClearedAsOwner,
            )
            | None => false,
        };
        if !has_left || !self.is_open(self.resets) || slot.phase != Phase::Active {
            return Duration::ZERO;
        }
        router.settings().rules.interval.duration().min(limits::VRRP_LINGER_MAX)
    }

    /// Takes in that another router has the addresses.
    pub(super) fn successor_heard(&mut self, channel: ChannelId, vrid: Vrid) {
        let is_waiting =
            |one: &&mut Parting| one.order.is_none() && one.heard == Some((channel, vrid));
        for parting in self.partings.iter_mut().filter(is_waiting) {
            parting.due = parting.due.min(self.now);
        }
    }

    /// Leaves a router what it has again, or what was left by a process before us.
    pub(super) fn keep(&mut self, place: usize) {
        if self.partings.is_empty() {
            return;
        }
        let Some(slot) = self.slots.get(place) else { return };
        let place_of = |one| Some((self.device(slot, one)?, one.address));
        let addresses: Vec<(u32, IpAddr)> = slot.addresses().filter_map(place_of).collect();
        let routes: Vec<RouteChange> =
            slot.instance.routes.iter().map(|one| self.route_change(slot, one)).collect();
        for parting in &mut self.partings {
            parting.addresses.retain(|one| !addresses.contains(&(one.interface, one.address)));
            parting.routes.retain(|one| !routes.contains(one));
        }
    }

    /// Goes on with those whose time has come.
    pub(super) fn settle_partings(&mut self) {
        let resets = self.resets.filter(|_| self.is_open(self.resets));
        let (due, waiting) = std::mem::take(&mut self.partings)
            .into_iter()
            .partition::<Vec<_>, _>(|one| one.due <= self.now || one.addresses.is_empty());
        self.partings = waiting;
        for mut parting in due {
            match resets {
                Some(channel) if parting.order.is_none() && !parting.addresses.is_empty() => {
                    let number = self.next_order;
                    self.next_order = self.next_order.wrapping_add(1);
                    let addresses = parting.addresses.iter().map(|one| one.address).collect();
                    let bytes = Order { number, addresses }.encode();
                    self.outputs.push_back(Output::Datagram { channel, to: None, bytes });
                    parting.order = Some(number);
                    parting.due = self.now + limits::VRRP_RESETS_TIME;
                    self.partings.push(parting);
                }
                Some(_) | None => self.finish_parting(&parting),
            }
        }
    }

    /// Takes in that an order is carried out.
    pub(super) fn order_done(&mut self, bytes: &[u8]) {
        let Some(number) = bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)) else {
            return;
        };
        let found = self.partings.iter().position(|one| one.order == Some(number));
        if let Some(found) = found {
            let parting = self.partings.remove(found);
            self.finish_parting(&parting);
        }
    }

    fn finish_parting(&mut self, parting: &Parting) {
        self.take_off(parting.place, &parting.routes, &parting.addresses);
        if let Some(index) = parting.above {
            self.remove_link(parting.place, index);
        }
        self.is_will_stale = true;
    }

    /// Goes through with all of them at once.
    pub(super) fn finish_partings(&mut self) {
        for parting in std::mem::take(&mut self.partings) {
            self.finish_parting(&parting);
        }
    }

    /// Removes the interface that was made for a router, when nothing on it is needed any more.
    pub(super) fn remove_above(&mut self, place: usize) {
        let Some(slot) = self.slots.get(place) else { return };
        let Some(index) = slot.above.filter(|_| slot.instance.virtual_mac.is_some()) else {
            return;
        };
        let is_on = |one: &&mut Parting| one.addresses.iter().any(|one| one.interface == index);
        match self.partings.iter_mut().find(is_on) {
            Some(parting) => parting.above = Some(index),
            None => self.remove_link(place, index),
        }
    }

    fn remove_link(&mut self, place: usize, index: u32) {
        let asked = change(place, "remove its interface".to_owned(), true);
        self.ask(asked, |number| netlink::delete_link(number, index));
    }

    /// Returns when the next of them goes on.
    pub(super) fn next_parting(&self) -> Option<Instant> {
        self.partings.iter().map(|one| one.due).min()
    }

    /// Returns when all of them are over at the latest.
    pub(super) fn partings_end(&self) -> Option<Instant> {
        let last = self.partings.iter().map(|one| one.due).max();
        last.map(|due| due + limits::VRRP_RESETS_TIME * 2)
    }

    /// Returns the requests to the kernel that are left to be made for them.
    pub(super) fn requests_of_partings(&self) -> impl Iterator<Item = Vec<u8>> {
        self.partings.iter().flat_map(|one| {
            let addresses = one.addresses.iter().map(|one| netlink::delete_address(1, one));
            addresses.chain(one.routes.iter().map(|one| netlink::delete_route(1, one)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_the_way_and_nothing_else_is_one() {
        let addresses = ["10.0.0.1", "fd77::1"].map(|one| one.parse().unwrap()).to_vec();
        let order = Order { number: 7, addresses };
        let mut bytes = order.encode();
        assert_eq!(Order::parse(&bytes), Some(order.clone()));
        for end in 0..bytes.len() {
            assert_eq!(Order::parse(&bytes[..end]), None, "{end}");
        }
        bytes.push(0);
        assert_eq!(Order::parse(&bytes), None);
        assert_eq!(order.answer(), [0, 0, 0, 7]);
    }
}
