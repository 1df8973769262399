//! How the things of this process are that the virtual routers have their addresses for.
//!
//! Being ill counts at once. Being well again counts after a while, and after longer each time it
//! did not last, so that addresses do not wander to and fro.

use std::sync::Arc;
use std::time::Duration;

use super::Keeper;
use super::plan::Follows;
use crate::config::keepalived::HealthRule;
use crate::io::{Event, Health, HealthNews, Output};
use crate::limits;
use crate::time::Instant;
use crate::vrrp::track::Reading;

/// One of them.
#[derive(Debug)]
struct Source {
    name: Arc<str>,
    /// As it counts.
    is_well: bool,
    /// When it will count as well again; none while it is ill, or counts as well already.
    due: Option<Instant>,
    /// How long it must be well the next time.
    hold: Duration,
    /// When it last counted as well again.
    returned: Option<Instant>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sources {
    list: Vec<Source>,
}

/// What changed for those who follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    name: Arc<str>,
    is_well: bool,
    detail: String,
}

impl Sources {
    /// Takes news in.
    fn take(&mut self, now: Instant, news: HealthNews) -> Option<Change> {
        let HealthNews { source: name, health } = news;
        let known = self.list.iter().position(|one| one.name == name);
        let Some(place) = known else {
            if health == Health::Gone || self.list.len() >= limits::VRRP_HEALTH_SOURCES_MAX {
                return None;
            }
            let hold = limits::VRRP_HEALTH_HOLD;
            let fresh = Source { name, is_well: true, due: None, hold, returned: None };
            self.list.push(fresh);
            let place = self.list.len().saturating_sub(1);
            return self.list.get_mut(place).and_then(|one| one.take(now, health));
        };
        if health == Health::Gone {
            let gone = self.list.remove(place);
            let detail = "there is no such thing any more".to_owned();
            return (!gone.is_well).then_some(Change { name, is_well: true, detail });
        }
        self.list.get_mut(place).and_then(|one| one.take(now, health))
    }

    /// Lets those count as well whose time has come.
    fn poll(&mut self, now: Instant) -> Option<Change> {
        let is_due = |one: &&mut Source| one.due.is_some_and(|due| due <= now);
        let source = self.list.iter_mut().find(is_due)?;
        (source.is_well, source.due, source.returned) = (true, None, Some(now));
        let detail = format!("well for {} s", source.hold.as_secs());
        Some(Change { name: Arc::clone(&source.name), is_well: true, detail })
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.list.iter().filter_map(|one| one.due).min()
    }

    /// Tells whether all is well that a rule names.
    pub(super) fn reading(&self, rule: &HealthRule) -> Reading {
        let is_ill = |one: &Source| !one.is_well && rule.names(&one.name);
        if self.list.iter().any(is_ill) { Reading::Down } else { Reading::Up }
    }
}

impl Source {
    fn take(&mut self, now: Instant, health: Health) -> Option<Change> {
        match health {
            Health::Gone => None,
            Health::Well => {
                if !self.is_well && self.due.is_none() {
                    self.due = Some(now + self.hold);
                }
                None
            }
            Health::Ill { why } => {
                self.due = None;
                if !std::mem::take(&mut self.is_well) {
                    return None;
                }
                let calm = limits::VRRP_HEALTH_CALM;
                self.hold = match self.returned {
                    Some(at) if now.since(at) < calm => {
                        (self.hold * 2).min(limits::VRRP_HEALTH_HOLD_MAX)
                    }
                    Some(_) | None => limits::VRRP_HEALTH_HOLD,
                };
                let (name, detail) = (Arc::clone(&self.name), why.to_string());
                Some(Change { name, is_well: false, detail })
            }
        }
    }
}

impl Keeper {
    /// Takes in how something is, and draws the consequences.
    pub(super) fn health_told(&mut self, news: HealthNews) {
        if let Some(change) = self.health.take(self.now, news) {
            self.health_changed(change);
        }
    }

    /// Lets things count as well that have been so for long enough.
    pub(super) fn settle_health(&mut self) {
        while let Some(change) = self.health.poll(self.now) {
            self.health_changed(change);
        }
    }

    fn health_changed(&mut self, change: Change) {
        let Change { name, is_well, detail } = change;
        let event = Event::Check { check: name.to_string(), is_up: is_well, detail };
        self.outputs.push_back(Output::Event(event));
        for place in 0..self.slots.len() {
            self.follow_health(place);
        }
    }

    /// Tells a router how what it follows is; makes it leave if that is new and it should.
    fn follow_health(&mut self, place: usize) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        let Some(rule) = &slot.instance.health else { return };
        let reading = self.health.reading(rule);
        let was_ill = std::mem::replace(&mut slot.is_ill, reading == Reading::Down);
        if slot.is_ill == was_ill {
            return;
        }
        let leaves = slot.is_ill && rule.leaves();
        self.read_in(place, &Follows::Health, reading);
        if leaves {
            if let Some(router) = self.routers.get_mut(place) {
                router.handle_unwell(self.now);
            }
            self.perform(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    fn tell(sources: &mut Sources, now: u64, health: Health) -> Option<bool> {
        let source = Arc::from("pool alpha");
        sources.take(at(now), HealthNews { source, health }).map(|change| change.is_well)
    }

    fn ill() -> Health {
        Health::Ill { why: Arc::from("no server answers") }
    }

    #[test]
    fn being_ill_counts_at_once_and_being_well_after_a_while() {
        let mut sources = Sources::default();
        assert_eq!(tell(&mut sources, 0, Health::Well), None);
        assert_eq!(tell(&mut sources, 5, ill()), Some(false));
        assert_eq!(tell(&mut sources, 6, ill()), None);
        assert_eq!(tell(&mut sources, 7, Health::Well), None);
        assert_eq!(sources.next(), Some(at(8)));
        assert_eq!(sources.poll(at(7)), None);
        assert!(sources.poll(at(8)).is_some_and(|change| change.is_well));
        assert_eq!(sources.next(), None);
    }

    #[test]
    fn each_relapse_doubles_the_wait_up_to_a_bound_and_calm_forgets() {
        let mut sources = Sources::default();
        let (mut now, mut waits) = (0, Vec::new());
        for _ in 0..9 {
            now += 1;
            assert_eq!(tell(&mut sources, now, ill()), Some(false));
            tell(&mut sources, now, Health::Well);
            let due = sources.next().unwrap();
            waits.push(due.since(at(now)).as_secs());
            now += due.since(at(now)).as_secs();
            assert!(sources.poll(due).is_some());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        tell(&mut sources, now + 60, ill());
        tell(&mut sources, now + 60, Health::Well);
        assert_eq!(sources.next(), Some(at(now + 61)));
    }

    #[test]
    fn a_thing_that_is_gone_makes_nobody_ill() {
        let mut sources = Sources::default();
        assert_eq!(tell(&mut sources, 0, Health::Gone), None);
        assert_eq!(tell(&mut sources, 0, ill()), Some(false));
        assert_eq!(tell(&mut sources, 1, Health::Gone), Some(true));
        assert_eq!(sources.reading(&HealthRule::default()), Reading::Up);
    }
}
