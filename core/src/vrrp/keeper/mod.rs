//! All virtual routers of a host, and what they share: the kernel's interfaces and addresses,
//! sockets, trackers, groups, and who is told.
//!
//! Nothing here waits: the kernel is asked and answers by netlink, scripts are run by the host,
//! files and programs are watched through channels.

mod beat;
mod checks;
mod effects;
mod figures;
mod framing;
mod guard;
mod health;
mod kernel;
mod notify;
mod part;
mod plan;
mod reload;
mod setup;
mod start;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use super::accept::Arrival;
use super::fsm::Phase;
use super::group::SyncGroup;
use super::instance::VirtualRouter;
use super::track::{Reading, TrackerId};
use crate::config::keepalived::{Config, Instance};
use crate::id::{ChannelId, JobId};
use crate::io::{
    ChannelSpec, Command, Deadline, Event, Input, Notice, Output, RouterNews, Trouble,
};
use crate::limits;
use crate::time::Instant;
use crate::wire::ip::{Ipv6Header, Path};
use crate::wire::netlink::{self, News};
use crate::wire::vrrp::{self, Advert, Priority, Received};
use checks::{Check, Verdict};
use kernel::Kernel;
use notify::{Notifier, QueueId, Told};
use plan::{Follows, Tracker};

pub use guard::{Goodbye, Will};
pub use part::Order;

/// What the whole is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Interfaces and addresses are being listed, sockets opened.
    Preparing,
    /// The virtual routers run.
    Running,
    /// They have stopped; programs are told until this moment.
    Stopping(Instant),
    /// Nothing is left to do.
    Over,
}

/// A channel and what it is for.
#[derive(Debug)]
struct Socket {
    channel: ChannelId,
    spec: ChannelSpec,
    state: SocketState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketState {
    Opening,
    Open,
    /// It failed, and is opened again then.
    Failed(Instant),
}

/// A virtual router's place in the host.
#[derive(Debug)]
struct Slot {
    instance: Instance,
    trackers: Vec<Tracker>,
    /// The interface.
    interface: Option<u32>,
    /// The interface of its own on top of it, where there is one.
    above: Option<u32>,
    /// Whether the interface above was asked for.
    has_asked_above: bool,
    /// Whether the kernel refused it.
    has_no_above: bool,
    sends: Option<ChannelId>,
    hears: Option<ChannelId>,
    /// Where adverts with an authentication header come, to be refused by name.
    overhears: Option<ChannelId>,
    /// Its queue of programs to be told.
    queue: QueueId,
    /// Whether it was started.
    has_started: bool,
    /// Whether a reload removes it.
    is_deleted: bool,
    /// Whether its addresses are asked for and not removed since.
    holds: bool,
    /// Whether an address was removed by somebody else in this turn.
    lost: Option<IpAddr>,
    tally: figures::Tally,
    /// Adverts that did not count, by kind.
    refused: BTreeMap<&'static str, u64>,
    /// Kinds that were told since the state changed.
    told: BTreeSet<&'static str>,
    phase: Phase,
    /// Whether something of this process that it follows is ill.
    is_ill: bool,
}

/// A group and its place among the slots.
#[derive(Debug)]
struct GroupSlot {
    members: Vec<usize>,
    group: SyncGroup,
    name: String,
    told: Option<Told>,
    queue: QueueId,
}

/// A tracked file or program.
#[derive(Debug)]
struct Watched {
    channel: ChannelId,
    reading: Reading,
    /// A change that must last until then.
    pending: Option<(Instant, Reading)>,
}

/// What a request to the kernel was about.
#[derive(Clone, Debug)]
enum Asked {
    Links,
    Addresses,
    /// An interface of its own for a router.
    Above {
        slot: usize,
        name: String,
    },
    Change {
        slot: usize,
        what: String,
        is_removal: bool,
    },
}

/// All virtual routers of a host.
#[derive(Debug)]
pub struct Keeper {
    config: Config,
    has_guardian: bool,
    stage: Stage,
    now: Instant,
    start_at: Instant,
    routers: Vec<VirtualRouter>,
    slots: Vec<Slot>,
    groups: Vec<GroupSlot>,
    checks: Vec<Check>,
    files: Vec<Watched>,
    processes: Vec<Watched>,
    health: health::Sources,
    notifier: Notifier,
    kernel: Kernel,
    sockets: Vec<Socket>,
    monitor: Option<ChannelId>,
    query: Option<ChannelId>,
    /// Who resets connections.
    resets: Option<ChannelId>,
    /// What is on its way off the host.
    partings: Vec<part::Parting>,
    next_order: u32,
    asked: BTreeMap<u32, Asked>,
    is_listed: bool,
    /// Addresses that were there before a new list was asked for.
    stale: Vec<netlink::Address>,
    next_request: u32,
    next_channel: u32,
    next_job: u64,
    pacers: effects::Pacers,
    will: Vec<u8>,
    has_turned: bool,
    /// What is ahead; none within a turn.
    ahead: Option<beat::Ahead>,
    /// Whether the list of what the guardian has to do may have changed.
    is_will_stale: bool,
    /// Programs that read pipes, by the place of the pipe; and when one is to be started.
    handlers: Vec<(Option<JobId>, Instant)>,
    /// The program that is run before the start, or behind the end.
    framing: Option<framing::Framing>,
    /// Whether the last program was run, or there is none.
    has_closed_frame: bool,
    telling: figures::Telling,
    next_check: u32,
    outputs: VecDeque<Output>,
}

impl Keeper {
    /// Makes all virtual routers of a configuration. With a guardian, a process is asked for that
    /// says goodbye if this one dies.
    pub fn new(config: Config, has_guardian: bool, now: Instant) -> Self {
        let start_at = now + config.global.startup_delay;
        let mut keeper = Self {
            config,
            has_guardian,
            stage: Stage::Preparing,
            now,
            start_at,
            routers: Vec::new(),
            slots: Vec::new(),
            groups: Vec::new(),
            checks: Vec::new(),
            files: Vec::new(),
            processes: Vec::new(),
            health: health::Sources::default(),
            notifier: Notifier::default(),
            kernel: Kernel::default(),
            sockets: Vec::new(),
            monitor: None,
            query: None,
            resets: None,
            partings: Vec::new(),
            next_order: 1,
            asked: BTreeMap::new(),
            is_listed: false,
            stale: Vec::new(),
            next_request: 1,
            next_channel: 1,
            next_job: 1,
            pacers: effects::Pacers::default(),
            will: Vec::new(),
            has_turned: false,
            ahead: None,
            is_will_stale: false,
            handlers: Vec::new(),
            framing: None,
            has_closed_frame: false,
            telling: figures::Telling::default(),
            next_check: 0,
            outputs: VecDeque::new(),
        };
        keeper.set_up();
        keeper
    }

    /// Returns the states, by the names of the virtual routers.
    pub fn phases(&self) -> impl Iterator<Item = (&str, Phase, u8)> {
        self.slots.iter().zip(&self.routers).map(|(slot, router)| {
            (slot.instance.name.as_str(), router.phase(), router.priority().get())
        })
    }

    /// Returns adverts that did not count, by virtual router and kind.
    pub fn refusals(&self) -> impl Iterator<Item = (&str, &'static str, u64)> {
        self.slots.iter().flat_map(|slot| {
            slot.refused.iter().map(|(&kind, &count)| (slot.instance.name.as_str(), kind, count))
        })
    }

    /// Takes one input in.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.begin_turn(now);
        match input {
            Input::Datagram { channel, bytes } => self.datagram(channel, bytes),
            Input::ChannelOpened { channel, result } => self.opened(channel, result),
            Input::Trouble { channel, trouble } => self.trouble(channel, trouble),
            Input::Exited { job, exit } => {
                if let Some(handler) = self.handlers.iter_mut().find(|one| one.0 == Some(job)) {
                    *handler = (None, now + limits::CHANNEL_RETRY);
                } else if self.framing_exited(job, &exit) {
                    // Whoever waited for it goes on at the end of the turn.
                } else if !self.notifier.exited(job, &exit) {
                    self.judge(|check| (None, check.exited(job, &exit)));
                }
            }
            Input::Connected { conn, .. } => self.judge(|check| check.connected(conn)),
            Input::Closed { conn, reason } => {
                self.judge(|check| (None, check.closed(conn, reason)));
            }
            Input::Resolved { query, result } => {
                self.judge(|check| check.resolved(query, &result));
            }
            Input::Command(Command::Drain { .. }) => self.stop(),
            Input::Command(Command::HandOver { .. }) => self.hand_over(),
            Input::Command(Command::Reload { plan, .. }) => {
                let config = plan.open::<Config>();
                debug_assert!(config.is_some(), "a plan that is for another machine");
                if let Some(config) = config {
                    self.replace(now, Config::clone(&config));
                    self.outputs.push_back(Output::Event(Event::Reloaded(plan)));
                }
            }
            // Checks send nothing and want nothing but the connection.
            Input::Received { .. }
            | Input::Eof { .. }
            | Input::Sent { .. }
            | Input::Released { .. } => {}
            Input::Notice(Notice::Health(news)) => self.health_told(news),
            Input::Notice(_) | Input::Persisted { .. } | Input::FileRead { .. } => {}
        }
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.beat(now) {
            return;
        }
        self.begin_turn(now);
        self.reopen();
        self.try_start();
        for place in 0..self.routers.len() {
            if let Some(router) = self.routers.get_mut(place)
                && router.poll_timeout().is_some_and(|due| due <= now)
            {
                router.handle_timeout(now);
                self.perform(place);
            }
        }
        self.run_checks();
        self.settle_watched();
        self.settle_health();
        self.limit_framing();
        self.pace();
        if let Stage::Stopping(until) = self.stage
            && until <= now
        {
            self.finish();
        }
    }

    /// Returns when there is something to do besides what the routers do by themselves.
    fn rest_timeout(&self) -> Option<Deadline> {
        let checks = match self.stage {
            Stage::Running | Stage::Preparing if self.is_listed => {
                self.checks.iter().filter_map(Check::next).min()
            }
            Stage::Running | Stage::Preparing | Stage::Stopping(_) | Stage::Over => None,
        };
        let checks = checks.map(|at| Deadline { at, why: "check" });
        let rest = [
            self.notifier.next(),
            self.pacers.next(),
            self.next_reopen(),
            self.next_watched(),
            self.health.next(),
            self.framing.as_ref().and_then(framing::Framing::next),
            self.next_handler(),
            self.next_parting(),
            match self.stage {
                Stage::Preparing if self.start_at > self.now => Some(self.start_at),
                Stage::Stopping(until) => Some(until),
                Stage::Preparing | Stage::Running | Stage::Over => None,
            },
        ];
        let rest = rest.into_iter().flatten().min().map(|at| Deadline { at, why: "keeper" });
        [checks, rest].into_iter().flatten().min_by_key(|deadline| deadline.at)
    }

    pub(super) const fn begin_turn(&mut self, now: Instant) {
        self.now = now;
        (self.has_turned, self.ahead) = (true, None);
    }

    /// Gives the next effect out.
    pub fn poll_output(&mut self) -> Option<Output> {
        if std::mem::take(&mut self.has_turned) {
            self.end_turn();
            self.ahead = Some(self.look_ahead());
        }
        self.outputs.pop_front()
    }

    /// Draws the consequences of all that a turn brought.
    fn end_turn(&mut self) {
        self.try_start();
        self.start_new();
        self.reinstate();
        self.settle_groups();
        self.start_programs();
        self.settle_figures();
        self.settle_partings();
        self.close_frame();
        if std::mem::take(&mut self.is_will_stale) {
            self.hand_will_over();
        }
        if let Stage::Stopping(_) = self.stage
            && self.notifier.is_idle()
            && self.framing.is_none()
            && self.partings.is_empty()
        {
            self.finish();
        }
    }

    fn job(&mut self) -> JobId {
        let job = JobId(self.next_job);
        self.next_job += 1;
        job
    }

    fn event(&mut self, slot: usize, news: RouterNews) {
        let Some(slot) = self.slots.get(slot) else { return };
        let router = slot.instance.name.clone();
        self.outputs.push_back(Output::Event(Event::Router { router, news }));
    }

    // Datagrams.

    fn datagram(&mut self, channel: ChannelId, bytes: &[u8]) {
        if Some(channel) == self.monitor || Some(channel) == self.query {
            for message in netlink::messages(bytes) {
                self.kernel_news(message.request, message.news);
            }
            return;
        }
        let Some(socket) = self.sockets.iter().find(|socket| socket.channel == channel) else {
            return;
        };
        match &socket.spec {
            ChannelSpec::RawIp { .. } => self.packet_v4(channel, bytes),
            ChannelSpec::Overhear { .. } => self.packet_v6(channel, bytes),
            ChannelSpec::WatchFile { .. } => self.file_changed(channel, bytes),
            ChannelSpec::WatchProcess { .. } => self.processes_changed(channel, bytes),
            ChannelSpec::Resets => self.order_done(bytes),
            ChannelSpec::Frames { .. }
            | ChannelSpec::Netlink { .. }
            | ChannelSpec::Fifo { .. }
            | ChannelSpec::Udp { .. }
            | ChannelSpec::Ping { .. }
            | ChannelSpec::Guardian => {}
        }
    }

    fn packet_v4(&mut self, channel: ChannelId, bytes: &[u8]) {
        match vrrp::parse_ipv4(bytes) {
            Ok((header, received)) => {
                let path = Path::V4 { source: header.source, destination: header.destination };
                self.advert(channel, &Arrival { received, path, ttl: header.ttl });
            }
            Err(error) => {
                let (source, vrid) = vrrp::peek_ipv4(bytes);
                let source = source.map(IpAddr::V4);
                self.malformed(channel, (source, vrid), error.kind(), &error);
            }
        }
    }

    fn packet_v6(&mut self, channel: ChannelId, bytes: &[u8]) {
        let (header, message) = match Ipv6Header::parse(bytes) {
            Ok(parsed) => parsed,
            Err(error) => return self.malformed(channel, (None, None), "ip-header", &error),
        };
        let path = Path::V6 { source: header.source, destination: header.destination };
        match Advert::parse(message, &path) {
            Ok(received) => {
                self.advert(channel, &Arrival { received, path, ttl: header.hop_limit });
            }
            Err(error) => {
                let from = (Some(path.source()), message.get(1).copied());
                self.malformed(channel, from, error.kind(), &error);
            }
        }
    }

    /// Counts what is no advert against the router that it names, or against everybody who hears
    /// the channel if it names none.
    fn malformed(
        &mut self,
        channel: ChannelId,
        (source, vrid): (Option<IpAddr>, Option<u8>),
        kind: &'static str,
        error: &dyn std::fmt::Display,
    ) {
        for place in 0..self.slots.len() {
            let concerns = self.slots.get(place).is_some_and(|slot| {
                [slot.hears, slot.overhears].contains(&Some(channel))
                    && vrid.is_none_or(|vrid| vrid == slot.instance.vrid.get())
            });
            if concerns {
                self.refuse(place, kind, || match source {
                    Some(source) => format!("from {source}: {error}"),
                    None => error.to_string(),
                });
            }
        }
    }

    fn advert(&mut self, channel: ChannelId, arrival: &Arrival<'_>) {
        let Received { advert, .. } = &arrival.received;
        let vrid = advert.vrid;
        let is_it = |slot: &Slot| slot.hears == Some(channel) && slot.instance.vrid == vrid;
        let Some(place) = self.slots.iter().position(is_it) else { return };
        let Some(router) = self.routers.get_mut(place) else { return };
        // Ours on its way back: a packet socket and a hub both show it.
        if arrival.path.source() == router.settings().rules.source {
            return;
        }
        let is_leaving = arrival.received.advert.priority == Priority::LEAVING;
        match router.handle_advert(self.now, arrival) {
            Ok(accepted) => {
                if !is_leaving {
                    self.successor_heard(channel, vrid);
                }
                if let Some(slot) = self.slots.get_mut(place) {
                    slot.tally.received += 1;
                    slot.tally.goodbyes_received += u64::from(is_leaving);
                }
                if accepted.addresses_differ {
                    let from = arrival.path.source();
                    let is_new = self.count(place, "addresses-differ");
                    if is_new {
                        self.event(place, RouterNews::AddressesDiffer { from });
                    }
                }
            }
            Err(refusal) => {
                let source = arrival.path.source();
                self.refuse(place, refusal.kind(), || format!("from {source}: {refusal}"));
            }
        }
        self.perform(place);
    }

    /// Counts something of a kind; tells whether it is the first since the state changed.
    fn count(&mut self, place: usize, kind: &'static str) -> bool {
        let Some(slot) = self.slots.get_mut(place) else { return false };
        let count = slot.refused.entry(kind).or_default();
        *count = count.saturating_add(1);
        slot.told.insert(kind)
    }

    fn refuse(&mut self, place: usize, kind: &'static str, message: impl FnOnce() -> String) {
        if self.count(place, kind) {
            self.event(place, RouterNews::Refused { kind, message: message() });
        }
    }

    // Trackers.

    fn run_checks(&mut self) {
        if !self.is_listed || !matches!(self.stage, Stage::Running | Stage::Preparing) {
            return;
        }
        for place in 0..self.checks.len() {
            let job = JobId(self.next_job);
            if let Some(check) = self.checks.get_mut(place)
                && let Some(output) = check.handle_timeout(self.now, || job)
            {
                self.next_job += 1;
                self.outputs.push_back(output);
            }
        }
        while let Some(errand) = self.notifier.poll_kill(self.now) {
            self.outputs.push_back(Output::Errand(errand));
        }
    }

    /// Lets the check that an answer belongs to judge it.
    fn judge(&mut self, mut take: impl FnMut(&mut Check) -> (Option<Output>, Option<Verdict>)) {
        for place in 0..self.checks.len() {
            let Some(check) = self.checks.get_mut(place) else { return };
            let (output, verdict) = take(check);
            let name = check.script.name.clone();
            self.outputs.extend(output);
            if let Some(Verdict { is_up, detail }) = verdict {
                let event = Event::Check { check: name, is_up, detail };
                self.outputs.push_back(Output::Event(event));
                let reading = if is_up { Reading::Up } else { Reading::Down };
                self.read(&Follows::Script(place), reading);
            }
        }
    }

    /// Passes a reading on to all who follow it.
    fn read(&mut self, follows: &Follows, reading: Reading) {
        for place in 0..self.slots.len() {
            self.read_in(place, follows, reading);
        }
    }

    fn read_in(&mut self, place: usize, follows: &Follows, reading: Reading) {
        let Some(slot) = self.slots.get(place) else { return };
        let found = slot.trackers.iter().position(|tracker| tracker.follows == *follows);
        let Some(id) = found else { return };
        let is_reversed = slot.trackers.get(id).is_some_and(|tracker| tracker.is_reversed);
        let reading = reading.turned(is_reversed);
        if let Some(router) = self.routers.get_mut(place) {
            router.handle_reading(self.now, TrackerId(id), reading);
        }
        self.perform(place);
    }

    fn file_changed(&mut self, channel: ChannelId, bytes: &[u8]) {
        let found = self.files.iter().position(|watched| watched.channel == channel);
        let Some(place) = found else { return };
        // As keepalived: what is no number counts as zero.
        let text = String::from_utf8_lossy(bytes);
        let value = text.trim().parse::<i32>().unwrap_or(0);
        let reading = Reading::Value(value);
        if let Some(watched) = self.files.get_mut(place) {
            watched.reading = reading;
        }
        self.read(&Follows::File(place), reading);
    }

    fn processes_changed(&mut self, channel: ChannelId, bytes: &[u8]) {
        let found = self.processes.iter().position(|watched| watched.channel == channel);
        let Some(place) = found else { return };
        let Some(process) = self.config.processes.get(place) else { return };
        let count = String::from_utf8_lossy(bytes).trim().parse::<u32>().unwrap_or(0);
        let reading = if count >= process.quorum { Reading::Up } else { Reading::Down };
        let delay = process.delay;
        let Some(watched) = self.processes.get_mut(place) else { return };
        if watched.reading == reading {
            watched.pending = None;
        } else if watched.reading == Reading::Unknown || delay.is_zero() {
            (watched.reading, watched.pending) = (reading, None);
            self.read(&Follows::Process(place), reading);
        } else if watched.pending.is_none() {
            watched.pending = Some((self.now + delay, reading));
        }
    }

    fn settle_watched(&mut self) {
        for place in 0..self.processes.len() {
            let now = self.now;
            if let Some(watched) = self.processes.get_mut(place)
                && let Some((_, reading)) = watched.pending.take_if(|(due, _)| *due <= now)
            {
                watched.reading = reading;
                self.read(&Follows::Process(place), reading);
            }
        }
    }

    fn next_watched(&self) -> Option<Instant> {
        let pending = self.processes.iter().filter_map(|watched| watched.pending);
        pending.map(|(due, _)| due).min()
    }

    // Channels.

    fn trouble(&mut self, channel: ChannelId, trouble: Trouble) {
        match trouble {
            Trouble::Lost => {
                if Some(channel) == self.monitor || Some(channel) == self.query {
                    self.list_again();
                }
            }
            Trouble::Unsent(errno) => self.unsent(channel, errno),
            Trouble::Ended(errno) => self.fail(channel, errno),
        }
    }

    fn unsent(&mut self, channel: ChannelId, errno: i32) {
        for place in 0..self.slots.len() {
            let is_it = self.slots.get(place).is_some_and(|slot| slot.sends == Some(channel));
            if is_it && self.count(place, "unsent") {
                self.event(place, RouterNews::Unsent(errno));
            }
        }
    }

    fn kernel_news(&mut self, request: u32, news: News) {
        match news {
            News::Link(link) => self.link_changed(link),
            News::LinkGone(index) => self.link_gone(index),
            News::Address(address) => {
                self.kernel.address(address);
                self.source_changed(address.interface);
            }
            News::AddressGone(address) => self.address_gone(&address),
            News::Done(_) => self.list_done(request),
            News::Answer(errno) => self.answered(request, errno),
            News::Other => {}
        }
    }
}

#[cfg(test)]
mod tests;
