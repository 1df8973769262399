//! From the configuration to settings.

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use super::super::announce::{Burst, Plan};
use super::super::fsm::{Preempt, Rules};
use super::super::instance::{ChecksumRule, Lists, Peer, Reach, Settings};
use super::super::timing::DOWN_ADVERTS_DEFAULT;
use super::super::track::{WEIGHT_MAX, Weight};
use crate::config::keepalived::{
    self as config, Announcing, ChecksumForm, Config, Group, HealthEffect, Instance, Tracked,
};
use crate::wire::vrrp::{Dialect, Family};

/// What a tracker of a virtual router follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// The script at this place.
    Script(usize),
    /// The interface of this name.
    Interface(String),
    /// The file at this place.
    File(usize),
    /// The program at this place.
    Process(usize),
    /// What else is in this process.
    Health,
}

/// A tracker of a virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tracker {
    pub(super) follows: Follows,
    pub(super) is_reversed: bool,
    weight: Weight,
}

/// Returns all trackers of a virtual router, its group's included.
pub(super) fn trackers(
    config: &Config,
    instance: &Instance,
    group: Option<&Group>,
) -> Vec<Tracker> {
    let mut list: Vec<Tracker> = Vec::new();
    let mut push = |follows, tracked: &Tracked, weight: i16, is_reversed: bool| {
        let is_reversed = is_reversed != tracked.is_reversed;
        let limited = tracked.weight.unwrap_or(weight).clamp(-WEIGHT_MAX, WEIGHT_MAX);
        let weight = Weight::new(limited).unwrap_or_default();
        if !list.iter().any(|known| known.follows == follows) {
            list.push(Tracker { follows, is_reversed, weight });
        }
    };
    for tracks in std::iter::once(&instance.tracks).chain(group.map(|group| &group.tracks)) {
        for tracked in &tracks.scripts {
            let place = config.scripts.iter().position(|script| script.name == tracked.name);
            if let Some((place, script)) =
                place.and_then(|place| Some((place, config.scripts.get(place)?)))
            {
                push(Follows::Script(place), tracked, script.weight, script.is_reversed);
            }
        }
        for tracked in &tracks.interfaces {
            push(Follows::Interface(tracked.name.clone()), tracked, 0, false);
        }
        for tracked in &tracks.files {
            let place = config.files.iter().position(|file| file.name == tracked.name);
            if let Some((place, file)) =
                place.and_then(|place| Some((place, config.files.get(place)?)))
            {
                push(Follows::File(place), tracked, file.weight, file.is_reversed);
            }
        }
        for tracked in &tracks.processes {
            let place = config.processes.iter().position(|one| one.name == tracked.name);
            if let Some((place, process)) =
                place.and_then(|place| Some((place, config.processes.get(place)?)))
            {
                push(Follows::Process(place), tracked, process.weight, process.is_reversed);
            }
        }
    }
    if let Some(rule) = &instance.health {
        let has_weights = group.is_none_or(|one| one.uses_weights) && !instance.priority.is_owner();
        let weight = match rule.effect {
            HealthEffect::Leave if has_weights => -WEIGHT_MAX,
            HealthEffect::Weight(weight) => weight.clamp(-WEIGHT_MAX, WEIGHT_MAX),
            HealthEffect::Leave | HealthEffect::Fault => 0,
        };
        let weight = Weight::new(weight).unwrap_or_default();
        list.push(Tracker { follows: Follows::Health, is_reversed: false, weight });
    }
    list
}

/// Returns the settings of a virtual router that sends from `source`.
pub(super) fn settings(
    instance: &Instance,
    group: Option<&Group>,
    trackers: &[Tracker],
    source: IpAddr,
) -> Settings {
    let addresses: Vec<IpAddr> = instance.addresses.iter().map(|address| address.address).collect();
    let mut settings = Settings::new(instance.vrid, instance.interval, source, &addresses);
    let rules: &mut Rules = &mut settings.rules;
    rules.priority = instance.priority;
    rules.preempt = match instance.preempt {
        config::Preempt::Always => Preempt::Always,
        config::Preempt::Never => Preempt::Never,
        config::Preempt::After(delay) => Preempt::After(delay),
    };
    rules.down_adverts = NonZeroU8::new(instance.down_adverts).unwrap_or(DOWN_ADVERTS_DEFAULT);
    rules.adverts_before_yielding = instance.adverts_before_yielding;
    rules.answers_lower = instance.answers_lower;
    rules.announces_source = !instance.peers.is_empty();
    rules.is_grouped = group.is_some();
    rules.uses_weights = group.is_none_or(|group| group.uses_weights);
    rules.announce = announce(&instance.announcing);
    settings.auth = instance.auth;
    // Lists that differ are taken and told: to refuse them makes two routers Active.
    settings.lists = Lists::Any;
    settings.checksum = match instance.checksum {
        ChecksumForm::Learned => ChecksumRule::Learned(Dialect::PseudoHeader),
        ChecksumForm::Plain => ChecksumRule::Fixed(Dialect::Plain),
        ChecksumForm::Group => ChecksumRule::Fixed(Dialect::GroupPseudoHeader),
    };
    settings.trackers = trackers.iter().map(|tracker| tracker.weight).collect();
    settings.reach = if instance.peers.is_empty() {
        let usual = match instance.family {
            Family::V4 | Family::V6 => instance.family.group(),
        };
        Reach::Multicast { group: instance.group.unwrap_or(usual) }
    } else {
        let peer = |peer: &config::Peer| Peer { address: peer.address, ttl: peer.ttl.clone() };
        Reach::Unicast {
            peers: instance.peers.iter().map(peer).collect(),
            ttl: instance.unicast_ttl,
            checks_source: instance.checks_source,
        }
    };
    settings
}

/// keepalived's schedule in ours.
fn announce(announcing: &Announcing) -> Plan {
    let mut bursts = vec![Burst { after: Duration::ZERO, copies: announcing.repeat }];
    if !announcing.delay.is_zero() {
        bursts.push(Burst { after: announcing.delay, copies: announcing.repeat });
    }
    Plan {
        bursts,
        refresh: Burst { after: announcing.refresh, copies: announcing.refresh_repeat },
        contested_copies: announcing.lower_repeat.unwrap_or(announcing.repeat),
        contested_delay: announcing.lower_delay.unwrap_or(announcing.delay),
    }
}
