//! What is counted of the virtual servers, for whoever shows it.

use std::sync::Arc;
use std::time::Duration;

use super::service::Server;
use super::{Balancer, Place};
use crate::io::{Notice, Output, Recipient};
use crate::stats::{RealServerFigures, ServiceFigures};
use crate::time::Instant;

/// How often figures are told at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// When figures are told.
#[derive(Debug, Default)]
pub(super) struct Telling {
    is_wanted: bool,
    told: Option<Instant>,
    /// Whether anything happened since.
    pub(super) is_stale: bool,
}

impl Telling {
    /// Returns when they are due.
    pub(super) fn next(&self) -> Option<Instant> {
        let is_due = self.is_wanted && self.is_stale;
        is_due.then(|| self.told.map_or(Instant::START, |told| told + TELL_EVERY))
    }
}

impl Balancer {
    /// Tells the control worker the figures from now on.
    pub fn tell_figures(&mut self) {
        self.telling = Telling { is_wanted: true, told: None, is_stale: true };
    }

    /// Tells the figures if it is time to.
    pub(super) fn settle_figures(&mut self) {
        if self.telling.next().is_none_or(|due| due > self.now) {
            return;
        }
        (self.telling.told, self.telling.is_stale) = (Some(self.now), false);
        let figures = Arc::from(self.service_figures());
        let notice = Notice::Balance(figures);
        self.effects.push(Output::Notice { to: Recipient::Control, notice });
    }

    /// Returns the figures of all virtual servers.
    pub fn service_figures(&mut self) -> Vec<ServiceFigures> {
        self.count_bytes();
        let services = self.services.iter().map(|service| {
            let real = service.servers.iter().map(|server| self.server_figures(server, false));
            let sorry = service.sorry.iter().map(|server| self.server_figures(server, true));
            ServiceFigures {
                name: service.plan.name.clone(),
                is_quorate: service.is_quorate,
                is_sorry: service.is_sorry(),
                refused: service.refused_in_all,
                servers: real.chain(sorry).collect(),
            }
        });
        services.collect()
    }

    fn server_figures(&self, server: &Server, is_for_bad_times: bool) -> RealServerFigures {
        let probes = || server.probes.iter().filter_map(|id| self.probes.get(id));
        RealServerFigures {
            address: server.address(),
            is_for_bad_times,
            is_up: server.is_up,
            weight: server.weight,
            connections: server.connections,
            total: server.total,
            received: server.received,
            sent: server.sent,
            checks: server.checks + probes().map(|probe| probe.attempts).sum::<u64>(),
            checks_failed: server.checks_failed + probes().map(|probe| probe.failed).sum::<u64>(),
        }
    }

    /// Counts for servers what relays have moved.
    fn count_bytes(&mut self) {
        for relay in self.relays.values_mut() {
            let (received, sent) = relay.take_moved();
            let server = relay.server.and_then(|key| self.places.get(&key));
            let Some(Place { service, server }) = server.copied() else { continue };
            let Some(service) = self.services.get_mut(service) else { continue };
            let server = match server {
                Some(place) => service.servers.get_mut(place),
                None => service.sorry.as_mut(),
            };
            if let Some(server) = server {
                server.count(received, sent);
            }
        }
    }
}
