//! The turn of Active routers that nobody disturbs: their adverts and nothing else.
//!
//! At an interval of 0.01 s it comes a hundred times a second, each time after other programs have
//! had the caches. What it costs is the code and the data that it touches, so it goes past
//! everything that cannot be due.

use super::Keeper;
use crate::io::Deadline;
use crate::time::Instant;
use crate::vrrp::instance::VirtualRouter;

/// What is known of the next turn since the last one has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ahead {
    /// When there is something to do.
    next: Option<Deadline>,
    /// When there is something to do besides what routers do by themselves.
    rest: Option<Deadline>,
    /// When figures are to be told.
    telling: Option<Instant>,
}

impl Keeper {
    /// Looks ahead when everything of a turn is done.
    pub(super) fn look_ahead(&self) -> Ahead {
        let rest = self.rest_timeout();
        Ahead { next: self.next_with(rest), rest, telling: self.telling.next() }
    }

    /// Returns when there is something to do.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let Some(ahead) = self.ahead else { return self.next_with(self.rest_timeout()) };
        debug_assert_eq!(ahead, self.look_ahead(), "something changed between two turns");
        ahead.next
    }

    fn next_with(&self, rest: Option<Deadline>) -> Option<Deadline> {
        let routers = self.routers.iter().filter_map(VirtualRouter::poll_timeout).min();
        let routers = routers.map(|at| Deadline { at, why: "vrrp" });
        [routers, rest].into_iter().flatten().min_by_key(|deadline| deadline.at)
    }

    /// Tells whether something that is due is decided by what may wait to be heard: everything but
    /// the adverts of Active routers that nobody contests.
    pub fn reads_first(&self, now: Instant) -> bool {
        let Some(Ahead { rest, telling, .. }) = self.ahead else { return true };
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let decides = |one: &VirtualRouter| is_due(one.poll_timeout()) && !one.is_beat(now);
        is_due(rest.map(|one| one.at)) || is_due(telling) || self.routers.iter().any(decides)
    }

    /// Sends the adverts that are due; tells whether that was all that there was to do.
    pub(super) fn beat(&mut self, now: Instant) -> bool {
        if self.reads_first(now) {
            return false;
        }
        self.now = now;
        for place in 0..self.routers.len() {
            if let Some(router) = self.routers.get_mut(place)
                && router.poll_timeout().is_some_and(|due| due <= now)
            {
                router.handle_timeout(now);
                self.perform(place);
            }
        }
        if let Some(ahead) = self.ahead {
            self.ahead = Some(Ahead { next: self.next_with(ahead.rest), ..ahead });
        }
        true
    }
}
