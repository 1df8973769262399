//! What the machines of the virtual routers ask for, done.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use super::super::fsm::{Action, Notification, Phase};
use super::guard::{Goodbye, Will};
use super::notify::{self, Subject, Told};
use super::setup::change;
use super::{Keeper, Slot, Stage};
use crate::config::keepalived::{Route, VirtualAddress};
use crate::id::{ChannelId, JobId};
use crate::io::{ChannelSpec, Errand, Event, Output, RouterNews};
use crate::limits;
use crate::time::Instant;
use crate::wire::arp::{Arp, Operation};
use crate::wire::ndp::NeighbourAdvert;
use crate::wire::netlink::{self, AddressChange, RouteChange};
use crate::wire::vrrp::Priority;

/// Announcements that wait for their turn, by channel.
#[derive(Debug, Default)]
pub(super) struct Pacers {
    queues: BTreeMap<ChannelId, Pacer>,
}

#[derive(Debug)]
struct Pacer {
    waiting: VecDeque<(Vec<u8>, Duration)>,
    next: Instant,
}

impl Pacers {
    /// Takes a frame in that is followed by nothing for `gap`; gives it back if it may leave now.
    fn push(
        &mut self,
        now: Instant,
        channel: ChannelId,
        frame: Vec<u8>,
        gap: Duration,
    ) -> Option<Vec<u8>> {
        let is_waiting = self.queues.get(&channel).is_some_and(|pacer| !pacer.waiting.is_empty());
        if gap.is_zero() && !is_waiting {
            return Some(frame);
        }
        let pacer = self
            .queues
            .entry(channel)
            .or_insert_with(|| Pacer { waiting: VecDeque::new(), next: now });
        if pacer.waiting.is_empty() && pacer.next <= now {
            pacer.next = now + gap;
            return Some(frame);
        }
        if pacer.waiting.len() < limits::ANNOUNCEMENTS_WAITING_MAX {
            pacer.waiting.push_back((frame, gap));
        }
        None
    }

    fn poll(&mut self, now: Instant) -> Option<(ChannelId, Vec<u8>)> {
        let due = |pacer: &Pacer| pacer.next <= now && !pacer.waiting.is_empty();
        let (&channel, pacer) = self.queues.iter_mut().find(|(_, pacer)| due(pacer))?;
        let (frame, gap) = pacer.waiting.pop_front()?;
        pacer.next = now + gap;
        Some((channel, frame))
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let waiting = self.queues.values().filter(|pacer| !pacer.waiting.is_empty());
        waiting.map(|pacer| pacer.next).min()
    }
}

/// Returns an address to send to; one of a link's own has to name the link.
const fn target(address: IpAddr, interface: u32) -> SocketAddr {
    match address {
        IpAddr::V4(address) => SocketAddr::V4(SocketAddrV4::new(address, 0)),
        IpAddr::V6(address) => SocketAddr::V6(SocketAddrV6::new(address, 0, 0, interface)),
    }
}

impl Keeper {
    /// Does what a router asks for.
    pub(super) fn perform(&mut self, place: usize) {
        while let Some(action) = self.routers.get_mut(place).and_then(|one| one.poll_action()) {
            match action {
                Action::SendAdvert(priority) => self.send_advert(place, priority),
                Action::AddAddresses => self.add_addresses(place),
                Action::RemoveAddresses => self.part(place),
                Action::Announce { copies } => self.announce(place, copies),
                Action::AnnounceSource => self.announce_source(place),
                Action::Notify(notification) => self.notify(place, notification),
            }
        }
    }

    fn send_advert(&mut self, place: usize, priority: Priority) {
        let Some(slot) = self.slots.get(place) else { return };
        let Some(channel) = slot.sends else { return };
        let interface = slot.interface.unwrap_or(0);
        let Some(router) = self.routers.get_mut(place) else { return };
        let mut number = 0;
        while let Some(to) = router.settings().destination(number) {
            number += 1;
            let mut bytes = Vec::with_capacity(64);
            router.encode_advert(priority, to, &mut bytes);
            if let Some(slot) = self.slots.get_mut(place) {
                slot.tally.sent += 1;
                slot.tally.goodbyes_sent += u64::from(priority == Priority::LEAVING);
            }
            let to = Some(target(to, interface));
            self.outputs.push_back(Output::Datagram { channel, to, bytes });
        }
    }

    // Addresses and routes.

    pub(super) fn address_change(
        &self,
        slot: &Slot,
        one: &VirtualAddress,
    ) -> Option<AddressChange> {
        Some(AddressChange {
            interface: self.device(slot, one)?,
            address: one.address,
            prefix: one.prefix,
            scope: one.scope,
            label: one.label.clone(),
            broadcast: one.broadcast,
            has_no_prefix_route: one.has_no_prefix_route,
        })
    }

    pub(super) fn route_change(&self, slot: &Slot, route: &Route) -> RouteChange {
        let interface = match &route.device {
            Some(name) => self.kernel.named(name).map(|link| link.index),
            None if route.via.is_none() => slot.home(),
            None => None,
        };
        RouteChange {
            destination: route.destination,
            via: route.via,
            interface,
            source: route.source,
            metric: route.metric,
            table: route.table,
            scope: route.scope,
            is_onlink: route.is_onlink,
        }
    }

    pub(super) fn add_addresses(&mut self, place: usize) {
        self.keep(place);
        let Some(slot) = self.slots.get(place) else { return };
        let changes: Vec<_> =
            slot.addresses().filter_map(|one| self.address_change(slot, one)).collect();
        let routes: Vec<_> =
            slot.instance.routes.iter().map(|one| self.route_change(slot, one)).collect();
        for one in &changes {
            let what = format!("add the address {}/{}", one.address, one.prefix);
            self.ask(change(place, what, false), |number| netlink::add_address(number, one));
        }
        for one in &routes {
            let (network, bits) = one.destination;
            let what = format!("add the route to {network}/{bits}");
            self.ask(change(place, what, false), |number| netlink::add_route(number, one));
        }
        if let Some(slot) = self.slots.get_mut(place) {
            slot.holds = true;
        }
        self.is_will_stale = true;
    }

    /// Removes what is there from somebody before us.
    pub(super) fn remove_addresses(&mut self, place: usize) {
        let Some(slot) = self.slots.get(place) else { return };
        let changes = slot.addresses().filter_map(|one| self.address_change(slot, one));
        let is_there = |one: &AddressChange| self.kernel.has(one.interface, one.address);
        let changes: Vec<_> = changes.filter(is_there).collect();
        self.take_off(place, &[], &changes);
        self.is_will_stale = true;
    }

    /// Has the kernel remove routes and addresses.
    pub(super) fn take_off(
        &mut self,
        place: usize,
        routes: &[RouteChange],
        addresses: &[AddressChange],
    ) {
        for one in routes.iter().rev() {
            let what = "remove a route".to_owned();
            self.ask(change(place, what, true), |number| netlink::delete_route(number, one));
        }
        for one in addresses {
            // What is there may be of another network than what the file says.
            let there = self.kernel.prefix(one.interface, one.address);
            let one = AddressChange { prefix: there.unwrap_or(one.prefix), ..one.clone() };
            let what = format!("remove the address {}", one.address);
            self.ask(change(place, what, true), |number| netlink::delete_address(number, &one));
        }
    }

    /// Has addresses put back that somebody removed.
    pub(super) fn reinstate(&mut self) {
        for place in 0..self.slots.len() {
            let lost = self.slots.get_mut(place).and_then(|slot| slot.lost.take());
            let Some(address) = lost else { continue };
            let Some(slot) = self.slots.get(place) else { return };
            let is_back = slot.addresses().filter(|one| one.address == address).any(|one| {
                self.device(slot, one).is_some_and(|device| self.kernel.has(device, address))
            });
            let is_active = self.routers.get(place).map(|one| one.phase()) == Some(Phase::Active);
            if is_back || !slot.holds || !is_active {
                continue;
            }
            self.event(place, RouterNews::AddressLost(address));
            if let Some(router) = self.routers.get_mut(place) {
                router.handle_address_lost(self.now);
            }
            self.perform(place);
        }
    }

    // Neighbours.

    pub(super) fn announce(&mut self, place: usize, copies: u8) {
        let Some(slot) = self.slots.get(place) else { return };
        let gaps = (slot.instance.announcing.arp_gap, slot.instance.announcing.neighbour_gap);
        let targets: Vec<(u32, IpAddr)> = slot
            .addresses()
            .filter_map(|one| Some((self.device(slot, one)?, one.address)))
            .collect();
        for _ in 0..copies {
            for &(device, address) in &targets {
                self.announce_one(place, device, address, gaps);
            }
        }
    }

    fn announce_source(&mut self, place: usize) {
        let (Some(slot), Some(router)) = (self.slots.get(place), self.routers.get(place)) else {
            return;
        };
        let source = router.settings().rules.source;
        if let Some(interface) = slot.interface {
            self.announce_one(place, interface, source, (Duration::ZERO, Duration::ZERO));
        }
    }

    fn announce_one(
        &mut self,
        place: usize,
        device: u32,
        address: IpAddr,
        gaps: (Duration, Duration),
    ) {
        let Some(mac) = self.kernel.mac(device) else { return };
        let channel = self.frames(place, device);
        if let Some(slot) = self.slots.get_mut(place) {
            slot.tally.announced += 1;
        }
        let mut frame = Vec::with_capacity(96);
        let gap = match address {
            IpAddr::V4(address) => {
                Arp::gratuitous(Operation::Request, mac, address).encode_broadcast(&mut frame);
                gaps.0
            }
            IpAddr::V6(address) => {
                NeighbourAdvert::unsolicited(address, mac, false).encode_all_nodes(&mut frame);
                gaps.1
            }
        };
        if let Some(bytes) = self.pacers.push(self.now, channel, frame, gap) {
            self.outputs.push_back(Output::Datagram { channel, to: None, bytes });
        }
    }

    pub(super) fn pace(&mut self) {
        while let Some((channel, bytes)) = self.pacers.poll(self.now) {
            self.outputs.push_back(Output::Datagram { channel, to: None, bytes });
        }
    }

    // News.

    fn notify(&mut self, place: usize, notification: Notification) {
        let (told, state) = match notification {
            Notification::Active => (Some(Told::Active), "MASTER"),
            Notification::Backup => (Some(Told::Backup), "BACKUP"),
            Notification::Fault => (Some(Told::Fault), "FAULT"),
            Notification::Stop => (Some(Told::Stop), "STOP"),
            Notification::LowerPriorityHeard => (Some(Told::LowerPriority), "MASTER_RX_LOWER_PRI"),
            Notification::Priority(_) => (None, ""),
        };
        let Some(router) = self.routers.get(place) else { return };
        let (phase, priority) = (router.phase(), router.priority().get());
        let cause = router.last_cause().map_or("", |cause| cause.text());
        let Some(slot) = self.slots.get_mut(place) else { return };
        let has_changed = slot.phase != phase;
        if has_changed {
            slot.tally.changed(slot.phase, phase);
            slot.phase = phase;
            slot.told.clear();
        }
        // A reload that removes a router tells a fault, or that it is deleted where that is asked
        // for. As keepalived.
        let (told, state) = match (told, slot.is_deleted, &slot.instance.notify.deleted) {
            (Some(Told::Stop), true, Some(_)) => (Some(Told::Deleted), "DELETED"),
            (Some(Told::Stop), true, None) => (Some(Told::Fault), "FAULT"),
            _ => (told, state),
        };
        let news = match notification {
            Notification::Priority(priority) => RouterNews::Priority(priority.get()),
            Notification::LowerPriorityHeard => RouterNews::LowerPriority,
            Notification::Active
            | Notification::Backup
            | Notification::Fault
            | Notification::Stop => RouterNews::State { state, cause, priority },
        };
        let name = slot.instance.name.clone();
        let subject = Subject { kind: "INSTANCE", name: &name, priority };
        if let Some(told) = told {
            let user = self.config.global.script_user.as_ref();
            self.notifier.tell(slot.queue, &slot.instance.notify, &subject, told, user);
        }
        let line = match (told, phase) {
            (Some(_), _) => Some(notify::line(&subject, state)),
            (None, Phase::Active) => Some(notify::line(&subject, "MASTER_PRIORITY")),
            (None, Phase::Backup) => Some(notify::line(&subject, "BACKUP_PRIORITY")),
            (None, Phase::Init | Phase::Fault) => None,
        };
        self.event(place, news);
        if has_changed {
            self.figures_changed();
        }
        if let Some(line) = line {
            self.write_line(&line);
        }
    }

    fn write_line(&mut self, line: &[u8]) {
        let fifos = self.sockets.iter().filter(|one| matches!(one.spec, ChannelSpec::Fifo { .. }));
        let lines = fifos.map(|one| Output::Datagram {
            channel: one.channel,
            to: None,
            bytes: line.to_vec(),
        });
        self.outputs.extend(lines);
    }

    pub(super) fn settle_groups(&mut self) {
        if self.stage != Stage::Running {
            return;
        }
        for number in 0..self.groups.len() {
            let Some(slot) = self.groups.get_mut(number) else { return };
            slot.group.settle(self.now, &mut self.routers);
            for place in slot.members.clone() {
                self.perform(place);
            }
            self.tell_group(number);
        }
    }

    fn tell_group(&mut self, number: usize) {
        let Some(slot) = self.groups.get_mut(number) else { return };
        let mut phases =
            slot.members.iter().filter_map(|&place| self.routers.get(place)).map(|one| one.phase());
        let told = if slot.group.is_active() {
            Told::Active
        } else if phases.any(|phase| phase == Phase::Fault) {
            Told::Fault
        } else {
            Told::Backup
        };
        if slot.told == Some(told) {
            return;
        }
        slot.told = Some(told);
        let queue = slot.queue;
        let Some(group) = self.config.groups.get(number) else { return };
        let subject = Subject { kind: "GROUP", name: &group.name, priority: 0 };
        let user = self.config.global.script_user.as_ref();
        self.notifier.tell(queue, &group.notify, &subject, told, user);
        let line = notify::line(&subject, told.text());
        self.write_line(&line);
    }

    pub(super) fn start_programs(&mut self) {
        loop {
            let job = JobId(self.next_job);
            let Some(errand) = self.notifier.poll(self.now, || job) else { break };
            self.next_job += 1;
            self.outputs.push_back(Output::Errand(errand));
        }
        if self.stage != Stage::Running {
            return;
        }
        for number in 0..self.handlers.len() {
            let is_due =
                self.handlers.get(number).is_some_and(|&(job, at)| job.is_none() && at <= self.now);
            let fifo = self.config.global.fifos.get(number).cloned();
            let Some((fifo, handler)) =
                fifo.filter(|_| is_due).and_then(|fifo| Some((fifo.path, fifo.handler?)))
            else {
                continue;
            };
            let user = self.config.global.script_user.as_ref();
            let program = notify::program(&handler, &[&fifo], user);
            let job = self.job();
            if let Some(handler) = self.handlers.get_mut(number) {
                handler.0 = Some(job);
            }
            self.outputs.push_back(Output::Errand(Errand::Run { job, program }));
        }
    }

    pub(super) fn next_handler(&self) -> Option<Instant> {
        let fifos = self.config.global.fifos.iter();
        let waiting = self.handlers.iter().zip(fifos);
        let waiting = waiting.filter(|((job, _), fifo)| job.is_none() && fifo.handler.is_some());
        waiting.map(|(&(_, at), _)| at).min().filter(|_| self.stage == Stage::Running)
    }

    // The guardian.

    /// Hands over what is left to do if this process dies now.
    pub(super) fn hand_will_over(&mut self) {
        let guardian = self.sockets.iter().find(|one| one.spec == ChannelSpec::Guardian);
        let Some(channel) = guardian.map(|one| one.channel) else { return };
        if !self.is_open(Some(channel)) {
            return;
        }
        let bytes = self.make_will().encode();
        if bytes != self.will {
            self.will.clone_from(&bytes);
            self.outputs.push_back(Output::Datagram { channel, to: None, bytes });
        }
    }

    fn make_will(&mut self) -> Will {
        let mut will = Will::default();
        for (slot, router) in self.slots.iter().zip(&mut self.routers) {
            let (true, Some(below)) = (slot.holds, slot.interface) else { continue };
            let sends_below = slot.instance.virtual_mac.as_ref().is_none_or(|one| one.sends_below);
            let interface = if sends_below { below } else { slot.above.unwrap_or(below) };
            if router.phase() == Phase::Active {
                let source = router.settings().rules.source;
                for to in router.settings().destinations() {
                    let mut bytes = Vec::new();
                    router.encode_advert(Priority::LEAVING, to, &mut bytes);
                    let ttl = router.ttl();
                    will.goodbyes.push(Goodbye { interface, source, ttl, to, bytes });
                }
            }
        }
        for slot in self.slots.iter().filter(|slot| slot.holds) {
            for one in slot.addresses().filter_map(|one| self.address_change(slot, one)) {
                will.requests.push(netlink::delete_address(1, &one));
            }
            for one in &slot.instance.routes {
                will.requests.push(netlink::delete_route(1, &self.route_change(slot, one)));
            }
        }
        will.requests.extend(self.requests_of_partings());
        will
    }

    // The end.

    /// Leaves: goodbyes, addresses away, programs told.
    pub(super) fn stop(&mut self) {
        if matches!(self.stage, Stage::Stopping(_) | Stage::Over) {
            return;
        }
        self.stage = Stage::Stopping(self.now + notify::STOP_PATIENCE);
        for place in 0..self.routers.len() {
            if let Some(router) = self.routers.get_mut(place) {
                router.handle_stop(self.now);
            }
            self.perform(place);
        }
        for place in 0..self.slots.len() {
            self.remove_above(place);
        }
        for job in self.handlers.iter().filter_map(|&(job, _)| job) {
            let signal = limits::SIGTERM;
            self.outputs.push_back(Output::Errand(Errand::Kill { job, signal }));
        }
        let until = self.now + notify::STOP_PATIENCE;
        self.stage = Stage::Stopping(until.max(self.partings_end().unwrap_or(until)));
    }

    /// Runs the last program when the addresses are gone.
    pub(super) fn close_frame(&mut self) {
        let is_time = matches!(self.stage, Stage::Stopping(_)) && self.partings.is_empty();
        if !is_time || std::mem::replace(&mut self.has_closed_frame, true) {
            return;
        }
        let framed = self.run_shutdown();
        if !framed.is_zero() {
            let patience = framed + limits::SCRIPT_KILL_DELAY;
            self.stage = Stage::Stopping(self.now + patience.max(notify::STOP_PATIENCE));
        }
    }

    /// Ends without a word to other hosts: a process of this one goes on with the addresses, which
    /// stay.
    pub(super) fn hand_over(&mut self) {
        if matches!(self.stage, Stage::Stopping(_) | Stage::Over) {
            return;
        }
        for slot in &mut self.slots {
            slot.holds = false;
        }
        self.finish();
    }

    pub(super) fn finish(&mut self) {
        self.finish_partings();
        self.stage = Stage::Over;
        self.hand_will_over();
        self.outputs.push_back(Output::Event(Event::Drained));
    }
}
