//! A new configuration while the virtual routers run: only what differs is touched.

use std::net::IpAddr;

use super::super::fsm::Phase;
use super::setup::change;
use super::{Keeper, Stage};
use crate::config::keepalived::{Config, Instance, VirtualAddress};
use crate::io::RouterNews;
use crate::wire::netlink;

/// Tells whether two instances are the same virtual router.
fn is_same(one: &Instance, other: &Instance) -> bool {
    one.name == other.name
        && one.interface == other.interface
        && one.vrid == other.vrid
        && one.family == other.family
        && one.virtual_mac == other.virtual_mac
}

impl Keeper {
    /// Takes a configuration over. Routers that stay keep their state, their timers and their
    /// sockets; those that are gone say goodbye; new ones start.
    pub fn replace(&mut self, now: crate::time::Instant, config: Config) {
        self.now = now;
        self.has_turned = true;
        if matches!(self.stage, Stage::Stopping(_) | Stage::Over) {
            return;
        }
        let is_running = self.stage == Stage::Running;
        self.remove_gone(&config);
        self.replace_watched(config);
        for instance in self.config.instances.clone() {
            let known = self.slots.iter().position(|slot| is_same(&slot.instance, &instance));
            match known {
                Some(place) => self.replace_slot(place, instance),
                None => {
                    self.add_slot(instance);
                    let place = self.slots.len().saturating_sub(1);
                    if self.is_listed {
                        self.find_interface(place);
                    }
                }
            }
        }
        self.make_groups();
        if is_running {
            // Those that are new start with the sockets of the others; whoever needs a new one
            // begins with a fault until it is open.
            for place in 0..self.slots.len() {
                if self.routers.get(place).is_some_and(|one| one.phase() == Phase::Init) {
                    self.start(place);
                }
            }
        }
        self.is_will_stale = true;
    }

    fn remove_gone(&mut self, config: &Config) {
        for place in (0..self.slots.len()).rev() {
            let is_gone = self.slots.get(place).is_some_and(|slot| {
                !config.instances.iter().any(|instance| is_same(&slot.instance, instance))
            });
            if !is_gone {
                continue;
            }
            if let Some(router) = self.routers.get_mut(place) {
                router.handle_stop(self.now);
            }
            self.perform(place);
            self.remove_above(place);
            self.routers.remove(place);
            self.slots.remove(place);
        }
    }

    fn replace_watched(&mut self, config: Config) {
        if self.config.files != config.files || self.config.processes != config.processes {
            let channels: Vec<_> =
                self.files.iter().chain(&self.processes).map(|watched| watched.channel).collect();
            for channel in channels {
                self.forget(channel);
            }
            (self.files, self.processes) = (Vec::new(), Vec::new());
            self.config = config;
            self.make_watched();
            self.make_checks();
            return;
        }
        let are_checks_same = self.config.scripts == config.scripts
            && self.config.global.script_user == config.global.script_user;
        self.config = config;
        if !are_checks_same {
            self.make_checks();
        }
    }

    /// Gives a router that stays its new settings, and the kernel the difference of addresses.
    fn replace_slot(&mut self, place: usize, instance: Instance) {
        let Some(router) = self.routers.get(place) else { return };
        let source = instance.source.unwrap_or_else(|| router.settings().rules.source);
        let (settings, trackers) = self.settings_of(&instance, source);
        let is_same = *router.settings() == settings;
        let replaced = match self.routers.get_mut(place) {
            Some(router) if !is_same => router.replace(settings),
            Some(_) | None => Ok(()),
        };
        if let Err(error) = replaced {
            return self.event(place, RouterNews::Unusable(error.to_string()));
        }
        let old: Vec<_> = match self.slots.get(place) {
            Some(slot) if slot.holds => slot
                .addresses()
                .filter_map(|one| Some((self.device(slot, one)?, one.address, one.prefix)))
                .collect(),
            Some(_) | None => Vec::new(),
        };
        let mut routes = Vec::new();
        if let Some(slot) = self.slots.get_mut(place) {
            routes.clone_from(&slot.instance.routes);
            (slot.instance, slot.trackers) = (instance, trackers);
        }
        self.open_sockets(place);
        self.first_readings(place);
        self.remove_old(place, &old);
        let Some(slot) = self.slots.get(place) else { return };
        let is_new =
            |address: &VirtualAddress| !old.iter().any(|(_, known, _)| *known == address.address);
        if slot.holds && (slot.addresses().any(is_new) || slot.instance.routes != routes) {
            self.add_addresses(place);
            self.announce(place, 1);
        }
    }

    fn remove_old(&mut self, place: usize, old: &[(u32, IpAddr, u8)]) {
        for &(interface, address, prefix) in old {
            let stays = self
                .slots
                .get(place)
                .is_some_and(|slot| slot.addresses().any(|one| one.address == address));
            if stays {
                continue;
            }
            let gone = netlink::AddressChange {
                interface,
                address,
                prefix,
                scope: 0,
                label: None,
                broadcast: None,
                has_no_prefix_route: false,
            };
            let asked = change(place, format!("remove the address {address}"), true);
            self.ask(asked, |number| netlink::delete_address(number, &gone));
        }
    }
}
