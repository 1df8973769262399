//! Judges a virtual router as a whole.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use super::super::diagnostic::quoted;
use super::grammar::Word;
use super::instance::Draft;
use super::model::{
    Config, Group, HealthRule, Instance, ListCheck, Preempt, Tracks, VirtualAddress, VirtualMac,
};
use super::reader::Reader;
use crate::wire::vrrp::{AdvertInterval, Auth, Centiseconds, Family, Priority, Vrid};

/// Bytes of an interface's name, as the kernel has it.
const INTERFACE_NAME_BYTES_MAX: usize = 15;

impl Reader<'_, '_> {
    /// Makes a virtual router of its block, unless something is missing.
    pub(super) fn finish(&mut self, mut draft: Draft<'_>) {
        let name = draft.name;
        let span = &name.span;
        let family = self.family(&mut draft);
        self.check_reach(&mut draft, family);
        let interface = draft.interface.take();
        if interface.is_none() {
            self.error("missing-interface", span, "the router has no interface");
        }
        if draft.vrid.is_none() {
            self.error("missing-virtual-router-id", span, "the router has no virtual_router_id");
        }
        self.check_addresses(&draft);
        let default = if draft.is_master { Priority::OWNER } else { Priority::DEFAULT };
        let priority = draft.priority.unwrap_or(default);
        self.check_weights(&draft, priority);
        let preempt = self.preempt(&draft, priority);
        let interval = self.interval(&draft);
        let auth = match draft.auth.take() {
            Some((_, span)) if draft.version == 3 => {
                self.warn("auth-in-version-3", &span, "version 3 has no authentication, ignored");
                Auth::None
            }
            Some((auth, _)) => auth,
            None => Auth::None,
        };
        let (Some(interface), Some(vrid)) = (interface, draft.vrid) else { return };
        self.check_unique(&interface, vrid, family, span);
        let virtual_mac = self.virtual_mac(&mut draft, vrid);
        let group = draft.group.or(match family {
            Family::V4 => self.defaults.group_v4,
            Family::V6 => self.defaults.group_v6,
        });
        let mut announcing = draft.announcing;
        if draft.is_strict {
            announcing.lower_repeat = Some(0);
        }
        self.config.instances.push(Instance {
            name: name.text.clone(),
            span: name.span.clone(),
            interface,
            vrid,
            family,
            priority,
            interval,
            addresses: plain(draft.addresses),
            excluded: plain(draft.excluded),
            routes: draft.routes,
            auth,
            preempt,
            source: draft.source,
            group,
            peers: draft.peers.into_iter().map(|(peer, _)| peer).collect(),
            unicast_ttl: draft.unicast_ttl,
            checks_source: draft.checks_source,
            lists: if draft.skips_list_check { ListCheck::Skipped } else { ListCheck::Told },
            tracks_source: draft.tracks_source,
            tracks_primary: draft.tracks_primary,
            down_adverts: draft.down_adverts,
            adverts_before_yielding: draft.adverts_before_yielding,
            answers_lower: draft.answers_lower && !draft.is_strict,
            announcing,
            tracks: draft.tracks,
            notify: draft.notify,
            virtual_mac,
            checksum: draft.checksum,
            health: Some(HealthRule::default()),
        });
    }

    fn check_addresses(&mut self, draft: &Draft<'_>) {
        let (span, message) = (&draft.name.span, "the router has no address");
        match draft.addresses.is_empty() {
            true if draft.version == 3 => self.error("missing-address", span, message),
            true => self.warn("missing-address", span, message),
            false => {}
        }
    }

    fn check_reach(&mut self, draft: &mut Draft<'_>, family: Family) {
        if family == Family::V6 {
            if let Some(span) = draft.version_span.take().filter(|_| draft.version == 2) {
                let message = "version 2 does not carry IPv6, version 3 is used";
                self.warn("version-ignored", &span, message);
            }
            draft.version = 3;
            self.check_link_local(draft);
        }
        let Some(span) = draft.unicast_span.take() else { return };
        if draft.peers.is_empty() {
            let message = "unicast without peers, multicast is used";
            self.warn("unicast-without-peers", &span, message);
        } else if draft.is_strict {
            self.warn("unicast-in-strict-mode", &span, "strict mode knows no unicast");
        }
    }

    fn check_unique(&mut self, interface: &str, vrid: Vrid, family: Family, span: &Range<usize>) {
        let key = (interface.to_owned(), vrid, family);
        if let Some(other) = self.seen.insert(key, span.clone()) {
            let message = format!("virtual router {vrid} is on {} twice", quoted(interface));
            let place = self.collector.place(&other);
            let error = self.collector.error("duplicate-virtual-router", span, message);
            self.collector.report(error.related(place, "it is here already"));
        }
    }

    fn virtual_mac(&mut self, draft: &mut Draft<'_>, vrid: Vrid) -> Option<VirtualMac> {
        let sends_below = draft.sends_below;
        let Some(name) = draft.virtual_mac.take() else {
            if sends_below {
                let message = "vmac_xmit_base without use_vmac, ignored";
                self.warn("vmac-missing", &draft.name.span, message);
            }
            return None;
        };
        let name = name.unwrap_or_else(|| format!("vrrp.{}", vrid.get()));
        if name.len() > INTERFACE_NAME_BYTES_MAX {
            let message = "the interface's name is too long, the usual one is used";
            self.warn("vmac-name", &draft.name.span, message);
            return Some(VirtualMac { name: format!("vrrp.{}", vrid.get()), sends_below });
        }
        if !draft.peers.is_empty() && !sends_below {
            let message = "unicast cannot leave from a virtual MAC; it leaves from the interface";
            self.warn("vmac-with-unicast", &draft.name.span, message);
            return Some(VirtualMac { name, sends_below: true });
        }
        Some(VirtualMac { name, sends_below })
    }

    /// The first address decides; what is of another family is ignored.
    fn family(&mut self, draft: &mut Draft<'_>) -> Family {
        let first = draft.addresses.first().map(|(address, _)| address.address);
        let family = first.or(draft.source).map_or(Family::V4, Family::of);
        let mut strangers = Vec::new();
        draft.addresses.retain(|(address, span)| {
            let fits = Family::of(address.address) == family;
            if !fits {
                strangers.push(span.clone());
            }
            fits
        });
        draft.peers.retain(|(peer, span)| {
            let fits = Family::of(peer.address) == family;
            if !fits {
                strangers.push(span.clone());
            }
            fits
        });
        for span in strangers {
            self.warn("mixed-families", &span, "the address is of another family, ignored");
        }
        if draft.source.is_some_and(|source| Family::of(source) != family) {
            let message = "the source address is of another family, ignored";
            self.warn("source-family", &draft.name.span, message);
            draft.source = None;
        }
        draft.group = draft.group.filter(|&group| Family::of(group) == family);
        let is_self = |peer: &super::model::Peer| Some(peer.address) == draft.source;
        if draft.peers.iter().any(|(peer, _)| is_self(peer)) {
            let message = "one of the peers is the router itself";
            self.warn("peer-is-self", &draft.name.span, message);
        }
        family
    }

    /// RFC 9568 section 5.2.9: the first IPv6 address is the link-local one.
    fn check_link_local(&mut self, draft: &Draft<'_>) {
        let Some((first, span)) = draft.addresses.first() else { return };
        let is_link_local = match first.address {
            IpAddr::V4(_) => true,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if !is_link_local {
            let message = "the first IPv6 address should be link-local";
            self.warn("first-address-not-link-local", span, message);
        }
    }

    /// An owner's priority is never changed, so weights do nothing; nor do they where a backup
    /// never takes over from whoever is Active.
    fn check_weights(&mut self, draft: &Draft<'_>, priority: Priority) {
        if !has_weight(&self.config, &draft.tracks) {
            return;
        }
        let span = &draft.name.span;
        if priority.is_owner() {
            let message = "weights do not change priority 255, ignored";
            self.warn("weight-of-owner", span, message);
        }
        if let Some(span) = &draft.never {
            let message = "with nopreempt a weight never moves the addresses: a backup waits until \
                           the Active router is silent";
            let hint = "track without a weight, so that failure is a fault, or drop nopreempt";
            self.advise("weight-with-nopreempt", span, message, hint);
        }
    }

    /// Weights of a member would part it from its group.
    pub(super) fn check_group_weights(&mut self, group: &Group, name: &Word) {
        let has = |instance: &&Instance| {
            group.members.contains(&instance.name) && has_weight(&self.config, &instance.tracks)
        };
        if self.config.instances.iter().any(|instance| has(&instance)) {
            let message = "weights of members of a group do not count";
            let hint = "sync_group_tracking_weight makes them count";
            self.advise("weight-in-group", &name.span, message, hint);
        }
    }

    fn preempt(&mut self, draft: &Draft<'_>, priority: Priority) -> Preempt {
        match (&draft.never, &draft.delay) {
            (Some(span), _) if priority.is_owner() => {
                self.warn("nopreempt-of-owner", span, "priority 255 always preempts, ignored");
                Preempt::Always
            }
            (Some(span), _) if draft.is_master => {
                let message = "nopreempt does not work with state MASTER, ignored";
                self.advise("nopreempt-of-master", span, message, "write state BACKUP");
                Preempt::Always
            }
            (Some(_), Some((_, span))) => {
                self.warn("delay-without-preemption", span, "nopreempt needs no delay, ignored");
                Preempt::Never
            }
            (Some(_), None) => Preempt::Never,
            (None, Some((_, span))) if draft.is_master => {
                let message = "preempt_delay does not work with state MASTER, ignored";
                self.warn("delay-of-master", span, message);
                Preempt::Always
            }
            (None, &Some((delay, _))) if !delay.is_zero() => Preempt::After(delay),
            (None, _) => Preempt::Always,
        }
    }

    /// Rounds the interval to the unit of the version.
    fn interval(&mut self, draft: &Draft<'_>) -> AdvertInterval {
        let (unit, max) = if draft.version == 3 {
            (10_000, u64::from(Centiseconds::MAX))
        } else {
            (1_000_000, u64::from(u8::MAX))
        };
        // Half a unit goes up, and nothing becomes zero.
        let units = ((draft.micros + unit / 2) / unit).clamp(1, max);
        if units * unit != draft.micros {
            let used = Duration::from_micros(units * unit);
            let message =
                format!("the interval does not fit version {}, {used:?} is used", draft.version);
            self.warn("interval-rounded", &draft.micros_span, message);
        }
        let made = if draft.version == 3 {
            u16::try_from(units).ok().and_then(AdvertInterval::centiseconds)
        } else {
            u8::try_from(units).ok().and_then(AdvertInterval::seconds)
        };
        // Clamped: from 1 to the largest that fits.
        made.unwrap_or(AdvertInterval::Seconds(std::num::NonZeroU8::MIN))
    }
}

/// Tells whether something tracked has a weight.
fn has_weight(config: &Config, tracks: &Tracks) -> bool {
    let script = |name: &str| config.scripts.iter().find(|script| script.name == name);
    let process = |name: &str| config.processes.iter().find(|process| process.name == name);
    let is_set = |weight: Option<i16>| weight.is_some_and(|weight| weight != 0);
    tracks
        .scripts
        .iter()
        .any(|one| is_set(one.weight.or_else(|| script(&one.name).map(|script| script.weight))))
        || tracks.processes.iter().any(|one| {
            is_set(one.weight.or_else(|| process(&one.name).map(|process| process.weight)))
        })
        || tracks.interfaces.iter().any(|one| is_set(one.weight))
        || !tracks.files.is_empty()
}

fn plain(list: Vec<(VirtualAddress, Range<usize>)>) -> Vec<VirtualAddress> {
    list.into_iter().map(|(address, _)| address).collect()
}
