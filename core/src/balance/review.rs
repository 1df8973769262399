//! What verdicts of checkers lead to: servers up and down, weights, quorums.

use super::notify::Subject;
use super::service::ServerKey;
use super::{Balancer, Place, Stage};
use crate::io::BalanceNews;

/// Largest weight that checkers can make.
const WEIGHT_MAX: i64 = 65_535;

impl Balancer {
    /// Looks at a server whose checker has said something.
    pub(super) fn review(&mut self, key: ServerKey, detail: &str) {
        let Some(Place { service: at, server: Some(place) }) = self.places.get(&key).copied()
        else {
            return;
        };
        let probes = &self.probes;
        let Some(service) = self.services.get_mut(at) else { return };
        let Some(server) = service.servers.get_mut(place) else { return };
        let found = || server.probes.iter().filter_map(|id| probes.get(id));
        let is_up = found().all(|probe| probe.is_up);
        let added: i64 = found().map(|probe| probe.adjustment).sum();
        let weight = (i64::from(server.plan.weight) + added).clamp(0, WEIGHT_MAX);
        let weight = u32::try_from(weight).unwrap_or(0);
        let address = server.address();
        let has_changed = is_up != server.is_up;
        if weight != server.weight {
            server.weight = weight;
            service.picker.forget_layout();
            let news = BalanceNews::Weight { server: address, weight };
            self.effects.news(&service.plan.name, news);
        } else if !has_changed {
            return;
        }
        if has_changed {
            self.turn(at, place, is_up, detail);
        }
        self.review_quorum(at, false);
    }

    /// Takes a server in, or out.
    fn turn(&mut self, at: usize, place: usize, is_up: bool, detail: &str) {
        let now = self.now;
        let Some(service) = self.services.get_mut(at) else { return };
        let Some(server) = service.servers.get_mut(place) else { return };
        server.is_up = is_up;
        service.picker.forget_layout();
        let (key, address) = (server.key, server.address());
        let command = if is_up { &server.plan.notify_up } else { &server.plan.notify_down };
        self.teller.tell(now, Subject::Server(key), command.as_ref(), &mut self.effects);
        let is_inhibited = server.plan.is_inhibited;
        let name = service.plan.name.clone();
        let detail = detail.to_owned();
        if is_up {
            let news = BalanceNews::ServerUp { server: address, detail };
            return self.effects.news(&name, news);
        }
        if let Some(persistent) = &mut service.persistent {
            persistent.forget(key);
        }
        // Otherwise its clients would wait for a server that does not answer.
        let closed = if is_inhibited { 0 } else { self.end_relays_of(key) };
        let news = BalanceNews::ServerDown { server: address, detail, closed };
        self.effects.news(&name, news);
    }

    /// Judges whether enough servers are up.
    pub(super) fn review_quorum(&mut self, at: usize, is_start: bool) {
        let now = self.now;
        self.set_due();
        let Some(service) = self.services.get_mut(at) else { return };
        let is_quorate = service.judge_quorum(is_start);
        if is_quorate == service.is_quorate && !is_start {
            return;
        }
        service.is_quorate = is_quorate;
        let weight = service.live_weight();
        let command = if is_quorate { &service.plan.quorum_up } else { &service.plan.quorum_down };
        // At the start the quorum is not lost, it is only not there yet.
        if is_quorate || !is_start {
            let subject = Subject::Service(service.id);
            self.teller.tell(now, subject, command.as_ref(), &mut self.effects);
            let news = if is_quorate {
                BalanceNews::QuorumGained { weight }
            } else {
                BalanceNews::QuorumLost { weight }
            };
            self.effects.news(&service.plan.name, news);
        }
        let name = service.plan.name.clone();
        let Some(sorry) = &service.sorry else { return self.set_due() };
        let (key, address) = (sorry.key, sorry.address());
        let stays = service.plan.sorry.is_some_and(|sorry| sorry.is_inhibited);
        if !(is_start && is_quorate) {
            let news = BalanceNews::Sorry { server: address, is_serving: !is_quorate };
            self.effects.news(&name, news);
        }
        if is_quorate && !stays && self.stage == Stage::Serving {
            self.end_relays_of(key);
        } else if !is_quorate {
            self.end_live_relays(at);
        }
        self.set_due();
    }

    /// Ends the relays of servers that are up but too few: the one for bad times serves instead.
    fn end_live_relays(&mut self, at: usize) {
        let Some(service) = self.services.get(at) else { return };
        let live =
            service.servers.iter().filter(|server| server.is_up && !server.plan.is_inhibited);
        let keys: Vec<ServerKey> = live.map(|server| server.key).collect();
        for key in keys {
            self.end_relays_of(key);
        }
    }

    /// Tells of servers and quorum as if they were down, where that is wanted: the process ends.
    pub(super) fn tell_omega(&mut self, at: usize) {
        let now = self.now;
        let Some(service) = self.services.get(at) else { return };
        if !service.plan.has_omega {
            return;
        }
        for server in service.servers.iter().filter(|server| server.is_up) {
            let command = server.plan.notify_down.as_ref();
            self.teller.tell(now, Subject::Server(server.key), command, &mut self.effects);
        }
        if service.is_quorate {
            let command = service.plan.quorum_down.as_ref();
            self.teller.tell(now, Subject::Service(service.id), command, &mut self.effects);
        }
    }
}
