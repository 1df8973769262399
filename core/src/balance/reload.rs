//! Another plan: virtual servers are matched by name, real ones by address, checkers by what they
//! do. What matches goes on as if nothing had happened.

use std::sync::Arc;

use super::persist::Persistent;
use super::plan::Plan;
use super::probe::{Probe, ProbeId};
use super::scheduler::Picker;
use super::service::{Server, ServerKey, Service};
use super::{Balancer, Place};
use crate::config::keepalived::{Checker, RealServer, VirtualServer};

impl Balancer {
    /// Goes on with a plan; the first one too.
    pub(super) fn take_over(&mut self, plan: Arc<Plan>) {
        self.effects.user.clone_from(&plan.user);
        self.effects.cover.clone_from(&plan.cover.0);
        let mut old = std::mem::take(&mut self.services);
        let mut fresh = Vec::new();
        let mut gone = Vec::new();
        for (at, wanted) in plan.services.iter().enumerate() {
            let found = old.iter().position(|service| service.plan.name == wanted.name);
            let service = match found.map(|place| old.swap_remove(place)) {
                Some(known) => self.change(known, wanted, &mut gone),
                None => {
                    fresh.push(at);
                    self.begin(wanted)
                }
            };
            self.services.push(service);
        }
        gone.extend(
            old.into_iter().flat_map(|service| service.servers.into_iter().chain(service.sorry)),
        );
        self.plan = plan;
        self.lay_out();
        for server in &gone {
            self.drop_relays_of(server.key);
            for id in &server.probes {
                if let Some(mut probe) = self.probes.remove(id) {
                    probe.stop(&mut self.effects);
                }
            }
        }
        for at in 0..self.services.len() {
            self.review_all(at);
            self.review_quorum(at, fresh.contains(&at));
        }
        self.set_due();
    }

    fn begin(&mut self, wanted: &VirtualServer) -> Service {
        let mut service = Service::new(self.next_service, wanted.clone());
        self.next_service += 1;
        for real in &wanted.servers {
            let server = self.begin_server(real);
            service.servers.push(server);
        }
        service.sorry = wanted.sorry.map(|sorry| self.begin_sorry(sorry.address));
        service
    }

    fn key(&mut self) -> ServerKey {
        let key = ServerKey(self.next_key);
        self.next_key += 1;
        key
    }

    fn begin_server(&mut self, real: &RealServer) -> Server {
        let mut server = Server::new(self.key(), real.clone());
        for checker in &real.checkers {
            let id = self.begin_probe(server.key, real.weight, checker);
            server.probes.push(id);
        }
        server.is_up = !real.checkers.iter().any(|checker| checker.starts_down);
        server
    }

    fn begin_sorry(&mut self, address: std::net::SocketAddr) -> Server {
        let real = RealServer {
            address,
            weight: 1,
            is_inhibited: false,
            upper: 0,
            lower: 0,
            notify_up: None,
            notify_down: None,
            checkers: Vec::new(),
        };
        Server::new(self.key(), real)
    }

    fn begin_probe(&mut self, server: ServerKey, base: u32, checker: &Checker) -> ProbeId {
        let id = ProbeId(self.next_probe);
        self.next_probe += 1;
        let mut probe = Probe::new(id, server, checker.clone(), self.now, &mut self.rng);
        probe.base = base;
        self.probes.insert(id, probe);
        id
    }

    /// Changes a virtual server that stays.
    fn change(
        &mut self,
        mut service: Service,
        wanted: &VirtualServer,
        gone: &mut Vec<Server>,
    ) -> Service {
        let is_same_choice = |known: &VirtualServer| {
            (known.scheduler, known.hashes_port, known.falls_back)
                == (wanted.scheduler, wanted.hashes_port, wanted.falls_back)
        };
        if !is_same_choice(&service.plan) {
            service.picker = Picker::new(wanted.scheduler, wanted.hashes_port, wanted.falls_back);
        }
        service.picker.forget_layout();
        match (&mut service.persistent, wanted.persistence) {
            (Some(known), Some(rule)) => known.set_rule(rule),
            (known, rule) => *known = rule.map(Persistent::new),
        }
        let mut old = std::mem::take(&mut service.servers);
        for real in &wanted.servers {
            let found = old.iter().position(|server| server.plan.address == real.address);
            let server = match found.map(|place| old.swap_remove(place)) {
                Some(known) => self.change_server(known, real),
                None => self.begin_server(real),
            };
            service.servers.push(server);
        }
        gone.append(&mut old);
        let known = service.sorry.take();
        service.sorry = match (known, wanted.sorry) {
            (Some(known), Some(sorry)) if known.address() == sorry.address => Some(known),
            (known, sorry) => {
                gone.extend(known);
                sorry.map(|sorry| self.begin_sorry(sorry.address))
            }
        };
        service.plan = wanted.clone();
        service
    }

    /// Changes a server that stays: checkers that do the same as before know what they knew.
    fn change_server(&mut self, mut server: Server, real: &RealServer) -> Server {
        let mut old = std::mem::take(&mut server.probes);
        for checker in &real.checkers {
            let is_it = |id: &ProbeId| {
                self.probes.get(id).is_some_and(|probe| {
                    probe.plan.check == checker.check
                        && probe.plan.address == checker.address
                        && probe.plan.timing == checker.timing
                })
            };
            let found = old.iter().position(is_it).map(|place| old.swap_remove(place));
            let id = match found {
                Some(id) => id,
                None => {
                    let id = self.begin_probe(server.key, real.weight, checker);
                    // Nothing speaks against a server that was up.
                    if let Some(probe) = self.probes.get_mut(&id) {
                        probe.is_up = server.is_up;
                    }
                    id
                }
            };
            if let Some(probe) = self.probes.get_mut(&id) {
                probe.base = real.weight;
            }
            server.probes.push(id);
        }
        for id in old {
            if let Some(mut probe) = self.probes.remove(&id) {
                server.keep_count(probe.attempts, probe.failed);
                probe.stop(&mut self.effects);
            }
        }
        server.plan = real.clone();
        server.judge_load();
        server
    }

    /// Notes where each server is.
    fn lay_out(&mut self) {
        self.places.clear();
        for (at, service) in self.services.iter().enumerate() {
            for (place, server) in service.servers.iter().enumerate() {
                let place = Place { service: at, server: Some(place) };
                self.places.insert(server.key, place);
            }
            if let Some(sorry) = &service.sorry {
                self.places.insert(sorry.key, Place { service: at, server: None });
            }
        }
    }

    fn review_all(&mut self, at: usize) {
        let keys: Vec<ServerKey> = self
            .services
            .get(at)
            .map(|service| service.servers.iter().map(|server| server.key).collect())
            .unwrap_or_default();
        for key in keys {
            self.review(key, "the configuration has changed");
        }
    }
}
