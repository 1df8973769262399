//! A new configuration while the virtual routers run: only what differs is touched.

use std::net::IpAddr;
use std::time::Duration;

use super::setup::change;
use super::start::bare;
use super::{Keeper, Slot, Stage};
use crate::config::keepalived::{Config, Fifo, Instance, VirtualAddress};
use crate::io::{ChannelSpec, Errand, Output, RouterNews};
use crate::limits;
use crate::vrrp::track::Reading;
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
        self.begin_turn(now);
        if matches!(self.stage, Stage::Stopping(_) | Stage::Over) {
            return;
        }
        self.remove_gone(&config);
        let fifos = std::mem::take(&mut self.config.global.fifos);
        self.replace_watched(config);
        self.replace_fifos(&fifos);
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
            if let (Some(slot), Some(router)) =
                (self.slots.get_mut(place), self.routers.get_mut(place))
            {
                slot.is_deleted = true;
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

    /// Closes pipes that are gone and opens those that are new; whoever reads one that stays reads
    /// on.
    fn replace_fifos(&mut self, before: &[Fifo]) {
        let mut readers: Vec<_> = before.iter().zip(std::mem::take(&mut self.handlers)).collect();
        for fifo in self.config.global.fifos.clone() {
            let known = readers.iter().position(|(known, _)| **known == fifo);
            let reader = known.map_or((None, self.now), |place| readers.remove(place).1);
            self.handlers.push(reader);
            self.channel(ChannelSpec::Fifo { path: fifo.path });
        }
        for (gone, (job, _)) in readers {
            let signal = limits::SIGTERM;
            let kill = job.map(|job| Output::Errand(Errand::Kill { job, signal }));
            self.outputs.extend(kill);
            if self.config.global.fifos.iter().any(|fifo| fifo.path == gone.path) {
                continue;
            }
            let spec = ChannelSpec::Fifo { path: gone.path.clone() };
            let found = self.sockets.iter().find(|socket| socket.spec == spec);
            if let Some(channel) = found.map(|socket| socket.channel) {
                self.forget(channel);
            }
        }
    }

    /// Gives a router that stays its new settings, and the kernel the difference of addresses.
    fn replace_slot(&mut self, place: usize, instance: Instance) {
        let Some(router) = self.routers.get(place) else { return };
        let source = instance.source.unwrap_or_else(|| router.settings().rules.source);
        let (settings, trackers) = self.settings_of(&instance, source);
        let is_same = *router.settings() == settings
            && self.slots.get(place).is_some_and(|slot| slot.trackers == trackers);
        let readings: Vec<Reading> = trackers
            .iter()
            .map(|one| self.reading(&instance, &one.follows).turned(one.is_reversed))
            .collect();
        let is_ill = instance.health.as_ref().map(|rule| self.health.reading(rule));
        let replaced = match self.routers.get_mut(place) {
            Some(router) if !is_same => router.replace(self.now, settings, &readings),
            Some(_) | None => Ok(()),
        };
        if let Err(error) = replaced {
            return self.event(place, RouterNews::Unusable(error.to_string()));
        }
        let (old, old_routes) = match self.slots.get(place).filter(|slot| slot.holds) {
            Some(slot) => (
                slot.addresses().filter_map(|one| self.held(slot, one)).collect::<Vec<_>>(),
                slot.instance.routes.iter().map(|one| self.route_change(slot, one)).collect(),
            ),
            None => (Vec::new(), Vec::new()),
        };
        if let Some(slot) = self.slots.get_mut(place) {
            (slot.instance, slot.trackers) = (instance, trackers);
            slot.is_ill = is_ill == Some(Reading::Down);
        }
        self.perform(place);
        self.open_sockets(place);
        let Some(slot) = self.slots.get(place).filter(|slot| slot.holds) else { return };
        let new: Vec<_> = slot.addresses().filter_map(|one| self.held(slot, one)).collect();
        let routes: Vec<_> =
            slot.instance.routes.iter().map(|one| self.route_change(slot, one)).collect();
        for route in old_routes.iter().filter(|route| !routes.contains(route)) {
            let asked = change(place, "remove a route".to_owned(), true);
            self.ask(asked, |number| netlink::delete_route(number, route));
        }
        let mut gone = Vec::new();
        for &(interface, address, prefix) in old.iter().filter(|one| !new.contains(one)) {
            if new.iter().any(|one| one.1 == address) {
                // The address stays, and so do its clients.
                self.remove_address(place, interface, address, prefix);
            } else {
                gone.push(bare(interface, address, prefix));
            }
        }
        if !gone.is_empty() {
            self.begin_parting(place, gone, Vec::new(), Duration::ZERO);
        }
        if new.iter().any(|one| !old.contains(one)) || routes != old_routes {
            self.add_addresses(place);
            self.announce(place, 1);
        }
    }

    /// Returns an address as the kernel has it when it is held.
    fn held(&self, slot: &Slot, one: &VirtualAddress) -> Option<(u32, IpAddr, u8)> {
        Some((self.device(slot, one)?, one.address, one.prefix))
    }
}
