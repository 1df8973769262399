//! What is counted of the virtual routers, for whoever shows it.

use std::sync::Arc;
use std::time::Duration;

use super::super::fsm::Phase;
use super::Keeper;
use crate::config::keepalived::VirtualAddress;
use crate::io::{Notice, Output, Recipient};
use crate::stats::{RouterFigures, RouterState};
use crate::time::Instant;

/// How often figures are told at most, unless a state changes.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// When figures are told; there is no timer of its own, since a router that is at work has others.
#[derive(Debug, Default)]
pub(super) struct Telling {
    is_wanted: bool,
    told: Option<Instant>,
    has_changed: bool,
}

impl Telling {
    /// Returns from when on the next turn tells figures.
    pub(super) fn next(&self) -> Option<Instant> {
        let next = self.told.map_or(Instant::START, |told| told + TELL_EVERY);
        self.is_wanted.then_some(next)
    }
}

/// What is counted of one router, besides what is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) received: u64,
    pub(super) goodbyes_received: u64,
    pub(super) sent: u64,
    pub(super) goodbyes_sent: u64,
    pub(super) announced: u64,
    became_active: u64,
    left_active: u64,
}

impl Tally {
    /// Takes a change of state in.
    pub(super) fn changed(&mut self, from: Phase, to: Phase) {
        self.became_active += u64::from(to == Phase::Active);
        self.left_active += u64::from(from == Phase::Active);
    }
}

impl Keeper {
    /// Tells the control worker the figures from now on.
    pub fn tell_figures(&mut self) {
        self.telling.is_wanted = true;
        self.ahead = None;
    }

    /// Notes that a state has changed.
    pub(super) fn figures_changed(&mut self) {
        self.telling.has_changed = true;
    }

    /// Tells the figures if it is time to.
    pub(super) fn settle_figures(&mut self) {
        let is_due = self.telling.told.is_none_or(|told| self.now.since(told) >= TELL_EVERY);
        if !self.telling.is_wanted || !(is_due || self.telling.has_changed) {
            return;
        }
        (self.telling.told, self.telling.has_changed) = (Some(self.now), false);
        let notice = Notice::Routers(Arc::from(self.figures()));
        self.outputs.push_back(Output::Notice { to: Recipient::Control, notice });
    }

    /// Returns the figures of all virtual routers.
    pub fn figures(&self) -> Vec<RouterFigures> {
        let pairs = self.slots.iter().zip(&self.routers);
        let figures = pairs.map(|(slot, router)| {
            let addresses = |list: &[VirtualAddress]| list.iter().map(|one| one.address).collect();
            let Tally { received, goodbyes_received, sent, goodbyes_sent, .. } = slot.tally;
            let Tally { announced, became_active, left_active, .. } = slot.tally;
            RouterFigures {
                name: slot.instance.name.clone(),
                interface: slot.instance.interface.clone(),
                vrid: slot.instance.vrid.get(),
                state: match router.phase() {
                    Phase::Init => RouterState::Init,
                    Phase::Backup => RouterState::Backup,
                    Phase::Active => RouterState::Active,
                    Phase::Fault => RouterState::Fault,
                },
                priority: router.priority().get(),
                addresses: addresses(&slot.instance.addresses),
                excluded: addresses(&slot.instance.excluded),
                received,
                goodbyes_received,
                sent,
                goodbyes_sent,
                announced,
                became_active,
                left_active,
                refused: slot.refused.iter().map(|(&kind, &count)| (kind, count)).collect(),
            }
        });
        figures.collect()
    }
}
