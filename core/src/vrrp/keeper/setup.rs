//! Finding interfaces, opening sockets, starting; and following what changes later.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::fsm::Phase;
use super::super::group::SyncGroup;
use super::super::instance::{Reach, Settings, VirtualRouter};
use super::super::track::Reading;
use super::notify::QueueId;
use super::plan::{self, Follows};
use super::{Asked, GroupSlot, Keeper, Slot, Socket, SocketState, Stage, Watched};
use crate::config::keepalived::{Instance, VirtualAddress};
use crate::id::ChannelId;
use crate::io::{ChannelSpec, Event, Output, RouterNews};
use crate::limits;
use crate::time::Instant;
use crate::vrrp::keeper::checks::Check;
use crate::wire::ethernet::Mac;
use crate::wire::ip::{PROTOCOL_AH, PROTOCOL_VRRP};
use crate::wire::netlink::{
    self, Address, GROUP_IPV4_ADDRESS, GROUP_IPV6_ADDRESS, GROUP_LINK, Link,
};
use crate::wire::vrrp::{Family, TTL, Version};

/// What the name of a check may be: its connections are named by it.
const CHECK_MASK: u32 = 0x00ff_ffff;

/// Where a router is said to send from while its interface has no address.
pub(super) const fn nowhere(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

impl Slot {
    pub(super) fn new(instance: Instance, trackers: Vec<plan::Tracker>, queue: QueueId) -> Self {
        Self {
            instance,
            trackers,
            interface: None,
            above: None,
            has_asked_above: false,
            has_no_above: false,
            sends: None,
            hears: None,
            overhears: None,
            queue,
            has_started: false,
            is_deleted: false,
            tally: super::figures::Tally::default(),
            holds: false,
            lost: None,
            refused: std::collections::BTreeMap::new(),
            told: std::collections::BTreeSet::new(),
            phase: Phase::Init,
            is_ill: false,
        }
    }

    /// Returns all addresses that come and go with the router.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &VirtualAddress> {
        self.instance.addresses.iter().chain(&self.instance.excluded)
    }

    /// Returns the interface of the addresses that name none.
    pub(super) const fn home(&self) -> Option<u32> {
        if self.instance.virtual_mac.is_some() { self.above } else { self.interface }
    }
}

impl Keeper {
    /// Makes everything of the configuration and asks for what is needed.
    pub(super) fn set_up(&mut self) {
        let groups = GROUP_LINK | GROUP_IPV4_ADDRESS | GROUP_IPV6_ADDRESS;
        self.monitor = Some(self.channel(ChannelSpec::Netlink { groups }));
        self.query = Some(self.channel(ChannelSpec::Netlink { groups: 0 }));
        self.resets = Some(self.channel(ChannelSpec::Resets));
        if self.has_guardian {
            self.channel(ChannelSpec::Guardian);
        }
        for fifo in self.config.global.fifos.clone() {
            self.channel(ChannelSpec::Fifo { path: fifo.path });
            self.handlers.push((None, self.now));
        }
        self.run_startup();
        self.make_watched();
        for instance in self.config.instances.clone() {
            self.add_slot(instance);
        }
        self.make_groups();
        self.make_checks();
    }

    /// Makes the checks of the file. Those that are as they were go on; of those that changed, what
    /// is known stays until it is known better.
    pub(super) fn make_checks(&mut self) {
        let user = self.config.global.script_user.clone();
        let mut before = std::mem::take(&mut self.checks);
        for script in self.config.scripts.clone() {
            let known = before.iter().position(|check| check.script.name == script.name);
            let known = known.map(|place| before.remove(place));
            let check = match known {
                Some(check) if check.is_same(&script, user.as_ref()) => check,
                known => {
                    let id = self.next_check;
                    self.next_check = self.next_check.wrapping_add(1) & CHECK_MASK;
                    let is_up = known.as_ref().and_then(Check::is_up);
                    before.extend(known);
                    Check::new(script, id, user.clone(), self.now).knowing(is_up)
                }
            };
            self.checks.push(check);
        }
        self.outputs.extend(before.into_iter().filter_map(Check::end));
    }

    pub(super) fn make_watched(&mut self) {
        let bytes_max = limits::TRACKED_FILE_BYTES_MAX;
        let watch = |channel| Watched { channel, reading: Reading::Unknown, pending: None };
        for path in self.config.files.iter().map(|file| file.path.clone()).collect::<Vec<_>>() {
            let channel = self.channel(ChannelSpec::WatchFile { path, bytes_max });
            self.files.push(watch(channel));
        }
        let programs: Vec<_> =
            self.config.processes.iter().map(|process| process.program.clone()).collect();
        for program in programs {
            let channel = self.channel(ChannelSpec::WatchProcess { program });
            self.processes.push(watch(channel));
        }
    }

    pub(super) fn make_groups(&mut self) {
        let place = |name: &String| self.slots.iter().position(|slot| slot.instance.name == *name);
        let places: Vec<Vec<usize>> = self
            .config
            .groups
            .iter()
            .map(|group| group.members.iter().filter_map(place).collect())
            .collect();
        let mut before = std::mem::take(&mut self.groups);
        for (number, members) in places.into_iter().enumerate() {
            let Some(name) = self.config.groups.get(number).map(|group| group.name.clone()) else {
                return;
            };
            let known = before.iter().position(|slot| slot.name == name);
            let known = known.map(|place| before.remove(place));
            let is_active = |&member: &usize| {
                self.routers.get(member).is_some_and(|one| one.phase() == Phase::Active)
            };
            // A group that stays and is Active is not told so again.
            let was_active = known.as_ref().is_some_and(|slot| slot.group.is_active());
            let group =
                SyncGroup::resumed(members.clone(), was_active && members.iter().all(is_active));
            let told = known.as_ref().and_then(|slot| slot.told);
            let queue = known.map_or_else(|| self.notifier.queue(), |slot| slot.queue);
            self.groups.push(GroupSlot { members, group, name, told, queue });
        }
    }

    /// Returns settings and trackers of an instance that sends from `source`.
    pub(super) fn settings_of(
        &self,
        instance: &Instance,
        source: IpAddr,
    ) -> (Settings, Vec<plan::Tracker>) {
        let group = self.config.groups.iter().find(|one| one.members.contains(&instance.name));
        let trackers = plan::trackers(&self.config, instance, group);
        (plan::settings(instance, group, &trackers, source), trackers)
    }

    /// Adds a virtual router; one whose settings cannot be used is told and left out.
    pub(super) fn add_slot(&mut self, instance: Instance) {
        let source = instance.source.unwrap_or_else(|| nowhere(instance.family));
        let (settings, trackers) = self.settings_of(&instance, source);
        match VirtualRouter::new(settings) {
            Ok(router) => {
                self.routers.push(router);
                let queue = self.notifier.queue();
                self.slots.push(Slot::new(instance, trackers, queue));
            }
            Err(error) => {
                let news = RouterNews::Unusable(error.to_string());
                let router = instance.name;
                self.outputs.push_back(Output::Event(Event::Router { router, news }));
            }
        }
    }

    // Channels.

    /// Returns the channel of a kind, opened if there is none yet.
    pub(super) fn channel(&mut self, spec: ChannelSpec) -> ChannelId {
        let is_shared = !matches!(spec, ChannelSpec::Netlink { .. });
        let known = self.sockets.iter().find(|socket| is_shared && socket.spec == spec);
        if let Some(socket) = known {
            return socket.channel;
        }
        let channel = ChannelId(self.next_channel);
        self.next_channel += 1;
        self.outputs.push_back(Output::OpenChannel { channel, spec: spec.clone() });
        self.sockets.push(Socket { channel, spec, state: SocketState::Opening });
        channel
    }

    pub(super) fn is_open(&self, channel: Option<ChannelId>) -> bool {
        let found = self.sockets.iter().find(|socket| Some(socket.channel) == channel);
        found.is_some_and(|socket| socket.state == SocketState::Open)
    }

    pub(super) fn opened(&mut self, channel: ChannelId, result: Result<(), i32>) {
        if let Err(errno) = result {
            return self.fail(channel, errno);
        }
        let Some(socket) = self.sockets.iter_mut().find(|socket| socket.channel == channel) else {
            return;
        };
        socket.state = SocketState::Open;
        match &socket.spec {
            ChannelSpec::Guardian => {
                self.will.clear();
                self.is_will_stale = true;
            }
            ChannelSpec::Netlink { .. } => {
                if self.is_open(self.monitor) && self.is_open(self.query) {
                    self.list_again();
                }
            }
            ChannelSpec::RawIp { .. } | ChannelSpec::Overhear { .. } => self.links_settled(),
            ChannelSpec::Frames { .. }
            | ChannelSpec::Fifo { .. }
            | ChannelSpec::WatchFile { .. }
            | ChannelSpec::WatchProcess { .. }
            | ChannelSpec::Udp { .. }
            | ChannelSpec::Ping { .. }
            | ChannelSpec::Resets => {}
        }
    }

    /// Takes in that a channel could not be opened, or has ended.
    pub(super) fn fail(&mut self, channel: ChannelId, errno: i32) {
        let retry = self.now + limits::CHANNEL_RETRY;
        let now = self.now;
        let Some(socket) = self.sockets.iter_mut().find(|socket| socket.channel == channel) else {
            return;
        };
        let was_open = socket.state == SocketState::Open;
        let is_guardian = socket.spec == ChannelSpec::Guardian;
        // A guardian that was killed is missed at once.
        let at = if is_guardian && was_open { now } else { retry };
        socket.state = SocketState::Failed(at);
        let purpose = match &socket.spec {
            ChannelSpec::RawIp { .. } => "socket for adverts",
            ChannelSpec::Overhear { .. } => "socket for adverts of IPv6",
            ChannelSpec::Frames { .. } => "socket for announcements",
            ChannelSpec::Netlink { .. } => "netlink socket",
            ChannelSpec::Fifo { .. } => "pipe for notifications",
            ChannelSpec::WatchFile { .. } => "watch of a tracked file",
            ChannelSpec::WatchProcess { .. } => "watch of a tracked process",
            ChannelSpec::Udp { .. } | ChannelSpec::Ping { .. } => "socket",
            ChannelSpec::Resets => "thread that resets connections",
            ChannelSpec::Guardian => "guardian process",
        };
        if was_open {
            self.outputs.push_back(Output::CloseChannel(channel));
        }
        self.outputs.push_back(Output::Event(Event::ChannelFailed { purpose, errno }));
        self.links_settled();
    }

    pub(super) fn reopen(&mut self) {
        for socket in &mut self.sockets {
            if let SocketState::Failed(at) = socket.state
                && at <= self.now
            {
                socket.state = SocketState::Opening;
                let (channel, spec) = (socket.channel, socket.spec.clone());
                self.outputs.push_back(Output::OpenChannel { channel, spec });
            }
        }
    }

    pub(super) fn next_reopen(&self) -> Option<Instant> {
        let failed = self.sockets.iter().filter_map(|socket| match socket.state {
            SocketState::Failed(at) => Some(at),
            SocketState::Opening | SocketState::Open => None,
        });
        failed.min()
    }

    /// Closes a channel for good.
    pub(super) fn forget(&mut self, channel: ChannelId) {
        let was_open = self.is_open(Some(channel));
        self.sockets.retain(|socket| socket.channel != channel);
        if was_open {
            self.outputs.push_back(Output::CloseChannel(channel));
        }
    }

    // The kernel's lists.

    pub(super) fn ask(&mut self, asked: Asked, make: impl FnOnce(u32) -> Vec<u8>) {
        let Some(channel) = self.query else { return };
        let request = self.next_request;
        self.next_request = self.next_request.checked_add(1).unwrap_or(1);
        self.asked.insert(request, asked);
        let bytes = make(request);
        self.outputs.push_back(Output::Datagram { channel, to: None, bytes });
    }

    /// Asks for everything: at the start, and when news were lost.
    pub(super) fn list_again(&mut self) {
        self.asked.retain(|_, asked| matches!(asked, Asked::Change { .. } | Asked::Above { .. }));
        self.stale.append(&mut self.kernel.forget_addresses());
        self.ask(Asked::Links, netlink::dump_links);
    }

    pub(super) fn list_done(&mut self, request: u32) {
        match self.asked.remove(&request) {
            Some(Asked::Links) => self.ask(Asked::Addresses, netlink::dump_addresses),
            Some(Asked::Addresses) => {
                self.is_listed = true;
                for place in 0..self.slots.len() {
                    self.find_interface(place);
                }
                for address in std::mem::take(&mut self.stale) {
                    if !self.kernel.has(address.interface, address.address) {
                        self.address_gone(&address);
                    }
                }
                self.links_settled();
            }
            Some(Asked::Change { .. } | Asked::Above { .. }) | None => {}
        }
    }

    pub(super) fn answered(&mut self, request: u32, errno: i32) {
        let Some(asked) = self.asked.remove(&request) else { return };
        let is_fine = match (&asked, errno) {
            (_, 0) => true,
            (Asked::Change { is_removal: true, .. }, errno) => {
                matches!(errno, netlink::EADDRNOTAVAIL | netlink::ENODEV | netlink::ESRCH)
            }
            (_, errno) => errno == netlink::EEXIST,
        };
        match asked {
            Asked::Change { slot, what, .. } if !is_fine => {
                self.event(slot, RouterNews::ChangeFailed { what, errno });
            }
            Asked::Above { slot, name } if !is_fine => {
                if let Some(slot) = self.slots.get_mut(slot) {
                    slot.has_no_above = true;
                }
                let what = format!("add the interface {name}");
                self.event(slot, RouterNews::ChangeFailed { what, errno });
            }
            Asked::Change { .. } | Asked::Above { .. } => {}
            Asked::Links | Asked::Addresses if errno != 0 => self.list_again(),
            Asked::Links | Asked::Addresses => {}
        }
    }

    // Interfaces.

    pub(super) fn link_changed(&mut self, link: Link) {
        let (index, name, is_running) = (link.index, link.name.clone(), link.is_running);
        let before = self.kernel.link(link);
        if !self.is_listed {
            return;
        }
        // One that was renamed is new by its name.
        let is_new = before.as_ref().is_none_or(|before| before.name != name);
        for place in 0..self.slots.len() {
            let Some(slot) = self.slots.get(place) else { return };
            let is_above =
                slot.instance.virtual_mac.as_ref().is_some_and(|above| above.name == name);
            if is_new && (slot.instance.interface == name || is_above) {
                self.find_interface(place);
            } else if is_new && self.holds_on(place, index) {
                // Its addresses went with the interface that it was before.
                self.add_addresses(place);
                self.announce(place, 1);
            }
        }
        if before.is_none_or(|before| before.is_running != is_running) {
            let reading = if is_running { Reading::Up } else { Reading::Down };
            self.read(&Follows::Interface(name), reading);
            self.link_settled(index);
        }
    }

    /// Tells whether a router has an address on an interface other than its own.
    fn holds_on(&self, place: usize, index: u32) -> bool {
        let Some(slot) = self.slots.get(place).filter(|slot| slot.holds) else { return false };
        slot.addresses().any(|one| one.device.is_some() && self.device(slot, one) == Some(index))
    }

    pub(super) fn link_gone(&mut self, index: u32) {
        let gone: Vec<_> = self
            .sockets
            .iter()
            .filter(|socket| match socket.spec {
                ChannelSpec::RawIp { interface, .. }
                | ChannelSpec::Overhear { interface, .. }
                | ChannelSpec::Frames { interface, .. } => interface == index,
                ChannelSpec::Netlink { .. }
                | ChannelSpec::Fifo { .. }
                | ChannelSpec::WatchFile { .. }
                | ChannelSpec::WatchProcess { .. }
                | ChannelSpec::Udp { .. }
                | ChannelSpec::Ping { .. }
                | ChannelSpec::Resets
                | ChannelSpec::Guardian => false,
            })
            .map(|socket| socket.channel)
            .collect();
        for channel in gone {
            self.forget(channel);
        }
        self.kernel.link_gone(index);
        for slot in &mut self.slots {
            if slot.interface == Some(index) {
                (slot.interface, slot.sends) = (None, None);
                (slot.hears, slot.overhears) = (None, None);
            }
            if slot.above == Some(index) || slot.interface.is_none() {
                // One that lay on it went with it, or is on its way to.
                (slot.above, slot.sends) = (None, None);
                (slot.has_asked_above, slot.has_no_above) = (false, false);
            }
        }
        for place in 0..self.slots.len() {
            let lacks = |slot: &Slot| slot.above.is_none() && slot.instance.virtual_mac.is_some();
            let is_there = |slot: &Slot| slot.interface.is_some() && lacks(slot);
            let is_at_work = matches!(self.stage, Stage::Preparing | Stage::Running);
            if is_at_work && self.slots.get(place).is_some_and(is_there) {
                self.find_interface(place);
            }
        }
        self.links_settled();
    }

    /// Finds a router's interface by its name, its address, and opens what it needs.
    pub(super) fn find_interface(&mut self, place: usize) {
        let Some(slot) = self.slots.get(place) else { return };
        let Some(link) = self.kernel.named(&slot.instance.interface) else { return };
        let interface = link.index;
        let (vrid, family) = (slot.instance.vrid, slot.instance.family);
        let above = slot.instance.virtual_mac.clone();
        let has_asked = slot.has_asked_above;
        if let Some(slot) = self.slots.get_mut(place) {
            slot.interface = Some(interface);
        }
        if let Some(above) = above {
            match self.kernel.named(&above.name).map(|link| (link.index, link.is_running)) {
                Some((index, is_running)) => {
                    if let Some(slot) = self.slots.get_mut(place) {
                        slot.above = Some(index);
                    }
                    if !is_running {
                        let asked = change(place, format!("set {} up", above.name), false);
                        self.ask(asked, |number| netlink::set_link_up(number, index));
                    }
                }
                None if !has_asked => {
                    if let Some(slot) = self.slots.get_mut(place) {
                        slot.has_asked_above = true;
                    }
                    let mac = Mac::virtual_router(family, vrid);
                    let asked = Asked::Above { slot: place, name: above.name.clone() };
                    self.ask(asked, |number| {
                        netlink::add_virtual_link(number, &above.name, interface, mac)
                    });
                }
                None => {}
            }
        }
        self.find_source(place);
        self.open_sockets(place);
    }

    fn find_source(&mut self, place: usize) {
        let Some(slot) = self.slots.get(place) else { return };
        let Some(interface) = slot.interface else { return };
        let virtual_addresses: Vec<IpAddr> =
            slot.addresses().map(|address| address.address).collect();
        let family = slot.instance.family;
        let (source, is_present) = match slot.instance.source {
            Some(source) if slot.instance.tracks_source => {
                (source, self.kernel.has_anywhere(source))
            }
            Some(source) => (source, true),
            None => match self.kernel.source(interface, family, &virtual_addresses) {
                Some(source) => (source, true),
                None => (nowhere(family), false),
            },
        };
        let Some(router) = self.routers.get_mut(place) else { return };
        let before = router.settings().rules.source;
        if is_present && before != source {
            router.set_source(source);
            // The socket of IPv6 is bound to its address.
            if family == Family::V6 {
                self.open_sockets(place);
            }
            self.is_will_stale = true;
        }
        if let Some(router) = self.routers.get_mut(place) {
            router.handle_source(self.now, is_present);
        }
        self.perform(place);
    }

    /// Takes in that the addresses of an interface have changed.
    pub(super) fn source_changed(&mut self, interface: u32) {
        if !self.is_listed {
            return;
        }
        for place in 0..self.slots.len() {
            let concerns = self.slots.get(place).is_some_and(|slot| {
                slot.interface == Some(interface) || slot.instance.tracks_source
            });
            if concerns {
                self.find_source(place);
            }
        }
    }

    /// Opens the sockets that a router sends and hears through.
    pub(super) fn open_sockets(&mut self, place: usize) {
        let (Some(slot), Some(router)) = (self.slots.get(place), self.routers.get(place)) else {
            return;
        };
        let Some(interface) = slot.interface else { return };
        let family = slot.instance.family;
        let source = router.settings().rules.source;
        let router_version = router.settings().rules.interval.version();
        let sends_below = slot.instance.virtual_mac.as_ref().is_none_or(|above| above.sends_below);
        let from = if sends_below { Some(interface) } else { slot.above };
        let group = match &router.settings().reach {
            Reach::Multicast { group } => Some(*group),
            Reach::Unicast { .. } => None,
        };
        let ttl = router.ttl();
        let raw = |interface| {
            // Headers of IPv4 are ours, so its sockets need not differ by address.
            let (source, ttl) = match family {
                Family::V4 => (nowhere(family), TTL),
                Family::V6 => (source, ttl),
            };
            ChannelSpec::RawIp { protocol: PROTOCOL_VRRP, interface, source, group, ttl }
        };
        if family == Family::V6 && source == nowhere(family) {
            return;
        }
        let sends = from.map(|from| self.channel(raw(from)));
        let hears = match family {
            Family::V4 => self.channel(raw(interface)),
            Family::V6 => {
                let protocol = PROTOCOL_VRRP;
                self.channel(ChannelSpec::Overhear { protocol, interface })
            }
        };
        // An advert with an authentication header is a packet of another protocol.
        let overhears = (router_version == Version::V2).then(|| {
            let (protocol, source, ttl) = (PROTOCOL_AH, nowhere(family), TTL);
            self.channel(ChannelSpec::RawIp { protocol, interface, source, group, ttl })
        });
        if let Some(slot) = self.slots.get_mut(place) {
            (slot.sends, slot.hears, slot.overhears) = (sends, Some(hears), overhears);
        }
        for device in self.devices(place) {
            self.frames(place, device);
        }
    }

    /// Returns the channel for announcements on an interface.
    pub(super) fn frames(&mut self, place: usize, device: u32) -> ChannelId {
        let slot = self.slots.get(place);
        let below = slot.filter(|slot| slot.above == Some(device)).and_then(|slot| slot.interface);
        self.channel(ChannelSpec::Frames { interface: device, below })
    }

    /// Returns the interfaces that a router's addresses are on.
    fn devices(&self, place: usize) -> Vec<u32> {
        let Some(slot) = self.slots.get(place) else { return Vec::new() };
        let mut devices: Vec<u32> =
            slot.addresses().filter_map(|address| self.device(slot, address)).collect();
        devices.sort_unstable();
        devices.dedup();
        devices
    }

    /// Returns the interface that an address is on.
    pub(super) fn device(&self, slot: &Slot, address: &VirtualAddress) -> Option<u32> {
        match &address.device {
            Some(name) => self.kernel.named(name).map(|link| link.index),
            None => slot.home(),
        }
    }

    /// Tells a router whether it can send and hear.
    pub(super) fn link_of(&mut self, place: usize) {
        let Some(slot) = self.slots.get(place) else { return };
        let is_running = slot.interface.is_some_and(|interface| self.kernel.is_running(interface));
        let is_usable = slot.interface.is_some()
            && (is_running || !slot.instance.tracks_primary)
            && self.is_open(slot.sends)
            && self.is_open(slot.hears);
        if let Some(router) = self.routers.get_mut(place) {
            router.handle_link(self.now, is_usable);
        }
        self.perform(place);
    }

    fn link_settled(&mut self, index: u32) {
        for place in 0..self.slots.len() {
            let concerns = self
                .slots
                .get(place)
                .is_some_and(|slot| slot.interface == Some(index) || slot.above == Some(index));
            if concerns {
                self.find_source(place);
                self.link_of(place);
            }
        }
    }

    pub(super) fn links_settled(&mut self) {
        if self.is_listed && self.stage == Stage::Running {
            for place in 0..self.slots.len() {
                self.link_of(place);
            }
        }
    }

    /// Takes in that an address is gone; whether it is to be put back is decided at the end of the
    /// turn, when all news were read.
    pub(super) fn address_gone(&mut self, address: &Address) {
        self.kernel.address_gone(address);
        let is_it = |keeper: &Self, slot: &Slot| {
            slot.addresses().any(|one| {
                one.address == address.address
                    && !one.is_untracked
                    && keeper.device(slot, one) == Some(address.interface)
            })
        };
        let found = self.slots.iter().position(|slot| slot.holds && is_it(self, slot));
        if let Some(place) = found {
            if let Some(slot) = self.slots.get_mut(place) {
                slot.lost = Some(address.address);
            }
        } else {
            self.source_changed(address.interface);
        }
    }
}

/// Names a change for what may be said about it.
pub(super) const fn change(slot: usize, what: String, is_removal: bool) -> Asked {
    Asked::Change { slot, what, is_removal }
}
