//! The states of a virtual router, and the one place that changes them.
//!
//! Source: RFC 9568 section 6.4, with the state Fault and the rules of keepalived 2.2.7.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use super::announce::{Announcer, Plan};
use super::timing::{active_down, skew};
use super::track::{Reading, TrackerId, Tracking, Weight};
use crate::limits;
use crate::time::Instant;
use crate::wire::vrrp::{AdvertInterval, Priority};

/// When a router of higher priority takes over from a lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preempt {
    /// When the lower one's last advert has aged.
    #[default]
    Always,
    /// Only when the lower one falls silent. It does not protect a router that is Active.
    Never,
    /// So long after the first advert of the lower one.
    After(Duration),
}

/// What the machine goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The configured priority, not zero.
    pub priority: Priority,
    /// Time between our own adverts.
    pub interval: AdvertInterval,
    /// Where our adverts come from; the higher address wins a tie.
    pub source: IpAddr,
    /// When it takes over from a lower priority.
    pub preempt: Preempt,
    /// Adverts missed before it takes over; all routers of the link must agree.
    pub down_adverts: NonZeroU8,
    /// Whether a last advert tells the one who outranks us that we were Active.
    pub adverts_before_yielding: bool,
    /// Whether adverts of lower priority are answered by one of ours: RFC 9568 section 6.4.3.
    pub answers_lower: bool,
    /// Whether neighbours must learn our own address after a fault, since unicast needs it.
    pub announces_source: bool,
    /// Whether it may become Active only together with its group.
    pub is_grouped: bool,
    /// Whether weights of trackers count.
    pub uses_weights: bool,
    /// When neighbours are told.
    pub announce: Plan,
}

/// A state, without what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Not started, or waiting for the first result of a tracker.
    Init,
    /// Another router has the addresses, or soon will.
    Backup,
    /// This router has the addresses.
    Active,
    /// This router must not have the addresses.
    Fault,
}

impl Phase {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Init, Self::Backup, Self::Active, Self::Fault];
}

/// Why a state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It was started.
    Started,
    /// It was started and owns the addresses.
    StartedAsOwner,
    /// The Active router was silent for too long, or left.
    ActiveDown,
    /// All members of its group may be Active.
    GroupTookOver,
    /// A router of higher priority, or of the same and a higher address, is Active.
    Outranked,
    /// A member of its group is no longer Active.
    GroupYielded,
    /// Somebody keeps removing the addresses.
    AddressLost,
    /// The operator wants another router to be Active.
    Demoted,
    /// What the process has the addresses for is not well.
    Unwell,
    /// The interface, its address, a tracker or the group failed.
    FaultFound,
    /// All that failed is well again.
    FaultCleared,
    /// The same, and it owns the addresses.
    FaultClearedAsOwner,
    /// It was stopped.
    Stopped,
}

impl Cause {
    /// Returns what an operator reads.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::StartedAsOwner => "started as the owner of the addresses",
            Self::ActiveDown => "the Active router is silent or has left",
            Self::GroupTookOver => "its whole group takes over",
            Self::Outranked => "a router of higher rank is Active",
            Self::GroupYielded => "another of its group is no longer Active",
            Self::AddressLost => "somebody keeps removing the addresses",
            Self::Demoted => "demoted by the operator",
            Self::Unwell => "what it has the addresses for is not well",
            Self::FaultFound => "an interface, address, tracker or member of its group failed",
            Self::FaultCleared => "what failed is well again",
            Self::FaultClearedAsOwner => "what failed is well again, and it owns the addresses",
            Self::Stopped => "stopped",
        }
    }

    /// All causes.
    pub const ALL: [Self; 13] = [
        Self::Started,
        Self::StartedAsOwner,
        Self::ActiveDown,
        Self::GroupTookOver,
        Self::Outranked,
        Self::GroupYielded,
        Self::AddressLost,
        Self::Demoted,
        Self::Unwell,
        Self::FaultFound,
        Self::FaultCleared,
        Self::FaultClearedAsOwner,
        Self::Stopped,
    ];

    /// Returns the adverts of priority zero that an Active router sends when it leaves for this.
    const fn goodbyes(self) -> u8 {
        match self {
            // Nobody sends another after a fault, and one can get lost. keepalived sends two.
            Self::FaultFound => 2,
            Self::AddressLost | Self::Demoted | Self::Unwell | Self::Stopped => 1,
            // The one who outranks us is Active already.
            Self::Outranked | Self::GroupYielded => 0,
            Self::Started
            | Self::StartedAsOwner
            | Self::ActiveDown
            | Self::GroupTookOver
            | Self::FaultCleared
            | Self::FaultClearedAsOwner => 0,
        }
    }
}

/// The state table: where a cause leads from a state; none where it cannot occur.
pub const fn next(from: Phase, why: Cause) -> Option<Phase> {
    match (from, why) {
        (Phase::Init, Cause::Started) => Some(Phase::Backup),
        (Phase::Init, Cause::StartedAsOwner) => Some(Phase::Active),
        (Phase::Backup, Cause::ActiveDown | Cause::GroupTookOver) => Some(Phase::Active),
        (
            Phase::Active,
            Cause::Outranked
            | Cause::GroupYielded
            | Cause::AddressLost
            | Cause::Demoted
            | Cause::Unwell,
        ) => Some(Phase::Backup),
        (Phase::Init | Phase::Backup | Phase::Active, Cause::FaultFound) => Some(Phase::Fault),
        (Phase::Fault, Cause::FaultCleared) => Some(Phase::Backup),
        (Phase::Fault, Cause::FaultClearedAsOwner) => Some(Phase::Active),
        (Phase::Backup | Phase::Active | Phase::Fault, Cause::Stopped) => Some(Phase::Init),
        (Phase::Init, _) | (Phase::Backup, _) | (Phase::Active, _) | (Phase::Fault, _) => None,
    }
}

/// What the world is told through scripts, pipes and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification {
    /// It became Active.
    Active,
    /// It became a backup.
    Backup,
    /// It has a fault.
    Fault,
    /// It was stopped.
    Stop,
    /// It stays Active against a router of lower priority that was Active too.
    LowerPriorityHeard,
    /// Its effective priority changed.
    Priority(Priority),
}

/// What must be done, in this order.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send an advert to everybody concerned.
    SendAdvert(Priority),
    /// Put the virtual addresses on the interface, those that are not advertised included.
    AddAddresses,
    /// Take them off, whoever put them there.
    RemoveAddresses,
    /// Tell neighbours who has the virtual addresses, this many times.
    Announce {
        /// Copies for every address, the addresses taking turns.
        copies: u8,
    },
    /// Tell neighbours who has the address that adverts come from.
    AnnounceSource,
    /// Tell the world.
    Notify(Notification),
}

/// An advert of another router that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its priority; zero when it leaves.
    pub priority: Priority,
    /// Who sent it.
    pub sender: IpAddr,
    /// Its interval.
    pub interval: AdvertInterval,
}

#[derive(Debug)]
enum State {
    Init { is_started: bool },
    Backup(Backup),
    Active(Active),
    Fault,
}

#[derive(Debug)]
struct Backup {
    /// When it takes over.
    due: Instant,
    /// Interval of the Active router; ours until one was heard.
    interval: AdvertInterval,
    /// Who is Active.
    active: Option<Heard>,
    delay: PreemptDelay,
    /// Whether it would be Active if its group were.
    wants_active: bool,
    is_reading_on: bool,
    /// Whether the addresses are there from a process before us.
    holds_addresses: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PreemptDelay {
    Idle,
    Until(Instant),
}

#[derive(Debug)]
struct Active {
    /// When the next advert is due.
    due: Instant,
    /// When the last one was sent.
    sent: Instant,
    /// When something was heard that is answered by an advert at the end of the turn.
    answer_at: Option<Instant>,
    /// Whether what was heard claimed the addresses.
    is_contested: bool,
    is_reading_on: bool,
    reinstated: u32,
    reinstated_since: Instant,
}

/// A virtual router's states, timers and effects. It knows no packets.
#[derive(Debug)]
pub struct Machine {
    rules: Rules,
    tracking: Tracking,
    state: State,
    last_cause: Option<Cause>,
    effective: Priority,
    announcer: Announcer,
    actions: VecDeque<Action>,
    adopts: bool,
}

impl Machine {
    /// Makes a machine that waits for its start.
    pub fn new(rules: Rules, tracking: Tracking) -> Self {
        let effective = rules.priority;
        let (announcer, actions) = (Announcer::default(), VecDeque::new());
        let state = State::Init { is_started: false };
        let adopts = false;
        Self { rules, tracking, state, last_cause: None, effective, announcer, actions, adopts }
    }

    /// Returns the state.
    pub const fn phase(&self) -> Phase {
        match self.state {
            State::Init { .. } => Phase::Init,
            State::Backup(_) => Phase::Backup,
            State::Active(_) => Phase::Active,
            State::Fault => Phase::Fault,
        }
    }

    /// Returns why the state is what it is; none before the first change.
    pub const fn last_cause(&self) -> Option<Cause> {
        self.last_cause
    }

    /// Returns the priority that counts.
    pub const fn priority(&self) -> Priority {
        self.effective
    }

    /// Returns who is Active as far as a backup knows.
    pub const fn active_router(&self) -> Option<Heard> {
        match &self.state {
            State::Backup(backup) => backup.active,
            State::Init { .. } | State::Active(_) | State::Fault => None,
        }
    }

    /// Tells whether it is Active or only waits for its group.
    pub const fn wants_active(&self) -> bool {
        match &self.state {
            State::Active(_) => true,
            State::Backup(backup) => backup.wants_active,
            State::Init { .. } | State::Fault => false,
        }
    }

    /// Tells whether something of its own is at fault, not only its group.
    pub fn has_own_fault(&self) -> bool {
        self.tracking.has_own_fault()
    }

    /// Tells it before its start that a process before us has left the addresses on the interface.
    /// They stay there while it listens for one interval and its skew; if nobody else is Active it
    /// takes over without a hole, and if somebody is they go.
    pub const fn handle_residue(&mut self) {
        self.adopts = matches!(self.state, State::Init { .. });
    }

    /// Takes another address to send from.
    pub const fn set_source(&mut self, source: IpAddr) {
        self.rules.source = source;
    }

    /// Takes other rules over, and trackers with what is known of them. The state changes only if
    /// these demand it.
    pub fn replace(
        &mut self,
        now: Instant,
        rules: Rules,
        weights: impl IntoIterator<Item = Weight>,
        readings: &[Reading],
    ) {
        self.rules = rules;
        self.tracking.replace(weights, readings);
        self.evaluate(now);
    }

    /// Starts it. A delay after boot is kept by calling this later.
    pub fn handle_start(&mut self, now: Instant) {
        if let State::Init { is_started } = &mut self.state {
            *is_started = true;
            self.evaluate(now);
        }
    }

    /// Stops it, on every way out that is under our control.
    pub fn handle_stop(&mut self, now: Instant) {
        match self.phase() {
            Phase::Init => self.state = State::Init { is_started: false },
            Phase::Backup | Phase::Active | Phase::Fault => self.transition(now, Cause::Stopped),
        }
    }

    /// Takes in what a tracker says.
    pub fn handle_reading(&mut self, now: Instant, tracker: TrackerId, reading: Reading) {
        self.tracking.set(tracker, reading);
        self.evaluate(now);
    }

    /// Takes in whether the interface carries frames.
    pub fn handle_link(&mut self, now: Instant, is_up: bool) {
        self.tracking.set_link(is_up);
        self.evaluate(now);
    }

    /// Takes in whether the interface has the address that adverts come from.
    pub fn handle_source(&mut self, now: Instant, is_present: bool) {
        self.tracking.set_source(is_present);
        self.evaluate(now);
    }

    /// Takes in whether another member of the group has a fault.
    pub fn handle_group_fault(&mut self, now: Instant, has_fault: bool) {
        self.tracking.set_group_fault(has_fault);
        self.evaluate(now);
    }

    /// Makes it Active with its group, if it wants to be.
    pub fn handle_group_active(&mut self, now: Instant) {
        if matches!(&self.state, State::Backup(backup) if backup.wants_active) {
            self.transition(now, Cause::GroupTookOver);
        }
    }

    /// Makes it a backup with its group.
    pub fn handle_group_yield(&mut self, now: Instant) {
        if self.phase() == Phase::Active {
            self.transition(now, Cause::GroupYielded);
        }
    }

    /// Makes an Active router leave, and stay a backup for at least `hold` unless nobody else
    /// takes over meanwhile and it is asked again.
    pub fn handle_demote(&mut self, now: Instant, hold: Duration) {
        if self.phase() == Phase::Active {
            self.transition(now, Cause::Demoted);
            if let State::Backup(backup) = &mut self.state {
                backup.due = backup.due.max(now + hold);
            }
        }
    }

    /// Makes an Active router leave at once, since another can do what this one cannot. Its
    /// priority has been lowered by a reading before, so that it comes back only if there is nobody
    /// else.
    pub fn handle_unwell(&mut self, now: Instant) {
        if self.phase() == Phase::Active {
            self.transition(now, Cause::Unwell);
        }
    }

    /// Takes in that somebody removed a virtual address. It is put back and announced.
    ///
    /// Deviates from keepalived, which leaves at once and returns when nobody took over: a few
    /// milliseconds without an address are better than a fail-over.
    pub fn handle_address_lost(&mut self, now: Instant) {
        let State::Active(active) = &mut self.state else { return };
        if now.since(active.reinstated_since) >= limits::VRRP_REINSTATE_WINDOW {
            active.reinstated = 0;
            active.reinstated_since = now;
        }
        active.reinstated += 1;
        if active.reinstated > limits::VRRP_REINSTATEMENTS_MAX {
            return self.transition(now, Cause::AddressLost);
        }
        self.actions.push_back(Action::AddAddresses);
        self.actions.push_back(Action::Announce { copies: 1 });
    }

    /// Takes an advert in.
    pub fn handle_heard(&mut self, now: Instant, heard: Heard) {
        match &self.state {
            State::Init { .. } | State::Fault => {}
            State::Backup(_) => self.hear_as_backup(now, heard),
            State::Active(_) => self.hear_as_active(now, heard),
        }
    }

    /// Does what is due. Calls that come early do nothing.
    ///
    /// All adverts that wait must have been taken in before: a machine that was not run for a
    /// while decides by the latest ones.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.state {
            State::Init { .. } | State::Fault => {}
            State::Backup(_) => self.expire_as_backup(now),
            State::Active(_) => self.expire_as_active(now),
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Init { .. } | State::Fault => None,
            State::Backup(backup) => Some(backup.due),
            // Everything else waits for what is read meanwhile.
            State::Active(active) if active.is_reading_on => Some(active.due),
            State::Active(active) => {
                let answer = active.answer_at;
                let announce = self.announcer.next(&self.rules.announce);
                [Some(active.due), answer, announce].into_iter().flatten().min()
            }
        }
    }

    /// Tells whether nothing is due but the next advert of an Active router that nobody contests:
    /// what waits to be heard does not change it.
    pub fn is_beat(&self, now: Instant) -> bool {
        let State::Active(active) = &self.state else { return false };
        let announce = self.announcer.next(&self.rules.announce);
        !active.is_reading_on && active.answer_at.is_none() && announce.is_none_or(|at| at > now)
    }

    /// Returns what must be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn down(&self, interval: AdvertInterval) -> Duration {
        active_down(self.effective, interval, self.rules.down_adverts)
    }

    /// Draws the consequences of what is tracked.
    fn evaluate(&mut self, now: Instant) {
        self.update_priority();
        let has_fault = self.tracking.has_fault();
        let is_owner = self.rules.priority.is_owner();
        match self.state {
            State::Init { is_started: false } => {}
            State::Init { .. } if has_fault => self.transition(now, Cause::FaultFound),
            State::Init { .. } if self.tracking.is_pending() => {}
            State::Init { .. } if is_owner && !self.rules.is_grouped => {
                self.transition(now, Cause::StartedAsOwner);
            }
            State::Init { .. } => self.transition(now, Cause::Started),
            State::Backup(_) | State::Active(_) => {
                if has_fault {
                    self.transition(now, Cause::FaultFound);
                }
            }
            State::Fault if has_fault => {}
            State::Fault if is_owner && !self.rules.is_grouped => {
                self.transition(now, Cause::FaultClearedAsOwner);
            }
            State::Fault => self.transition(now, Cause::FaultCleared),
        }
    }

    fn update_priority(&mut self) {
        let before = self.effective;
        self.effective = match self.rules.uses_weights {
            true => self.tracking.effective(self.rules.priority),
            false => self.rules.priority,
        };
        if self.effective == before {
            return;
        }
        if let State::Backup(backup) = &mut self.state {
            // keepalived moves a running timer by the difference of the skews.
            let (old, new) = (skew(before, backup.interval), skew(self.effective, backup.interval));
            let nanos = backup.due.as_nanos();
            let less = u64::try_from(old.as_nanos()).unwrap_or(u64::MAX);
            backup.due = Instant::from_nanos(nanos.saturating_sub(less)) + new;
        }
        self.actions.push_back(Action::Notify(Notification::Priority(self.effective)));
    }

    fn hear_as_backup(&mut self, now: Instant, heard: Heard) {
        let (effective, adverts) = (self.effective, self.rules.down_adverts);
        let State::Backup(backup) = &mut self.state else { return };
        if heard.priority != Priority::LEAVING && std::mem::take(&mut backup.holds_addresses) {
            self.actions.push_back(Action::RemoveAddresses);
        }
        if heard.priority == Priority::LEAVING {
            // RFC 9568 section 6.4.2: the Active router leaves; the highest of us goes first.
            backup.due = now + skew(effective, backup.interval);
            backup.is_reading_on = false;
            backup.active = None;
            return;
        }
        let is_lower = heard.priority < effective;
        let counts = match (is_lower, self.rules.preempt, backup.delay) {
            (false, ..) => {
                backup.delay = PreemptDelay::Idle;
                true
            }
            (true, Preempt::Never, _) => true,
            (true, Preempt::Always, _) => false,
            (true, Preempt::After(delay), PreemptDelay::Idle) => {
                backup.delay = PreemptDelay::Until(now + delay);
                true
            }
            (true, Preempt::After(_), PreemptDelay::Until(end)) => now < end,
        };
        backup.active = Some(heard);
        if !counts {
            // The timer runs on: RFC 9568 section 6.4.2 discards the advert.
            return;
        }
        backup.interval = heard.interval;
        backup.due = now + active_down(effective, heard.interval, adverts);
        backup.wants_active = false;
        backup.is_reading_on = false;
    }

    fn hear_as_active(&mut self, now: Instant, heard: Heard) {
        let rank = (heard.priority, heard.sender).cmp(&(self.effective, self.rules.source));
        let State::Active(active) = &mut self.state else { return };
        if heard.sender == self.rules.source {
            // Two routers with one address, or our own packet on its way back: no rank decides.
            return;
        }
        if heard.priority == Priority::LEAVING {
            active.answer_at = active.answer_at.or(Some(now));
        } else if rank.is_gt() {
            self.transition(now, Cause::Outranked);
            self.hear_as_backup(now, heard);
        } else {
            active.answer_at = active.answer_at.or(Some(now));
            active.is_contested = true;
        }
    }

    fn expire_as_backup(&mut self, now: Instant) {
        let interval = self.rules.interval.duration();
        let State::Backup(backup) = &mut self.state else { return };
        if now < backup.due {
            return;
        }
        // Late by an interval: an advert of the Active router may wait to be read.
        let is_late = now.since(backup.due) >= backup.interval.duration();
        if is_late && !backup.is_reading_on {
            backup.is_reading_on = true;
            backup.due = now + limits::VRRP_LATE_READ;
        } else if self.rules.is_grouped {
            backup.wants_active = true;
            backup.due = now + interval;
        } else {
            self.transition(now, Cause::ActiveDown);
        }
    }

    fn expire_as_active(&mut self, now: Instant) {
        let interval = self.rules.interval;
        // The quickest of all possible backups has taken over after this silence.
        let silence = active_down(Priority::BACKUP_MAX, interval, self.rules.down_adverts);
        let State::Active(active) = &mut self.state else { return };
        let is_due = active.due <= now;
        let is_late = now.since(active.sent) >= silence;
        if is_late && !active.is_reading_on {
            active.is_reading_on = true;
            active.due = now + limits::VRRP_LATE_READ;
            return;
        }
        if active.is_reading_on && !is_due {
            return;
        }
        if active.answer_at.is_some() || is_due {
            let was_late = std::mem::take(&mut active.is_reading_on);
            let was_contested = std::mem::take(&mut active.is_contested);
            let answers = active.answer_at.take().is_some();
            let is_silenced = was_contested && !self.rules.answers_lower && !is_due;
            if answers && !is_silenced || is_due {
                // Keeps the beat unless it was lost.
                let kept = active.due + interval.duration();
                active.due = if is_due && kept > now { kept } else { now + interval.duration() };
                active.sent = now;
                self.actions.push_back(Action::SendAdvert(self.effective));
            }
            if was_contested || was_late {
                let quiet = interval.duration() * 2;
                let copies = self.announcer.contested(now, quiet, &self.rules.announce);
                self.announce(copies);
            }
            if was_contested {
                self.actions.push_back(Action::Notify(Notification::LowerPriorityHeard));
            }
        }
        let copies = self.announcer.poll_due(now, &self.rules.announce);
        self.announce(copies);
    }

    fn announce(&mut self, copies: u8) {
        if copies > 0 {
            self.actions.push_back(Action::Announce { copies });
        }
    }

    /// Changes the state: what leaving the old one takes, then what entering the new one takes.
    fn transition(&mut self, now: Instant, why: Cause) {
        let from = self.phase();
        let Some(to) = next(from, why) else {
            debug_assert!(false, "{why:?} cannot occur in {from:?}");
            return;
        };
        match from {
            Phase::Active => self.leave_active(why),
            Phase::Init if to == Phase::Backup && self.adopts => {}
            // A process before us may have left them there.
            Phase::Init if to != Phase::Active => self.actions.push_back(Action::RemoveAddresses),
            Phase::Backup if to != Phase::Active && self.holds_addresses() => {
                self.actions.push_back(Action::RemoveAddresses);
            }
            Phase::Init | Phase::Backup | Phase::Fault => {}
        }
        self.last_cause = Some(why);
        let notification = match to {
            Phase::Init => {
                self.state = State::Init { is_started: false };
                Notification::Stop
            }
            Phase::Backup => {
                self.enter_backup(now, why);
                Notification::Backup
            }
            Phase::Active => {
                self.enter_active(now);
                Notification::Active
            }
            Phase::Fault => {
                self.state = State::Fault;
                Notification::Fault
            }
        };
        self.actions.push_back(Action::Notify(notification));
    }

    fn leave_active(&mut self, why: Cause) {
        if why == Cause::Outranked && self.rules.adverts_before_yielding {
            self.actions.push_back(Action::SendAdvert(self.effective));
        }
        for _ in 0..why.goodbyes() {
            self.actions.push_back(Action::SendAdvert(Priority::LEAVING));
        }
        self.announcer.stop();
        self.actions.push_back(Action::RemoveAddresses);
    }

    fn enter_backup(&mut self, now: Instant, why: Cause) {
        if why == Cause::FaultCleared && self.rules.announces_source {
            self.actions.push_back(Action::AnnounceSource);
        }
        let interval = self.rules.interval;
        // An owner that waits for its group wants the addresses at once.
        let is_owner_first =
            self.rules.priority.is_owner() && matches!(why, Cause::Started | Cause::FaultCleared);
        let holds_addresses = std::mem::take(&mut self.adopts) && why == Cause::Started;
        let wait = if is_owner_first {
            Duration::ZERO
        } else if holds_addresses {
            // Whoever is Active speaks within an interval.
            interval.duration() + skew(self.effective, interval)
        } else {
            self.down(interval)
        };
        self.state = State::Backup(Backup {
            due: now + wait,
            interval,
            active: None,
            delay: PreemptDelay::Idle,
            wants_active: false,
            is_reading_on: false,
            holds_addresses,
        });
    }

    const fn holds_addresses(&self) -> bool {
        matches!(&self.state, State::Backup(Backup { holds_addresses: true, .. }))
    }

    fn enter_active(&mut self, now: Instant) {
        // The advert first: other backups stop waiting while the addresses are still on the way.
        self.actions.push_back(Action::SendAdvert(self.effective));
        self.actions.push_back(Action::AddAddresses);
        self.announcer.start(now, &self.rules.announce);
        let copies = self.announcer.poll_due(now, &self.rules.announce);
        self.announce(copies);
        self.state = State::Active(Active {
            due: now + self.rules.interval.duration(),
            sent: now,
            answer_at: None,
            is_contested: false,
            is_reading_on: false,
            reinstated: 0,
            reinstated_since: now,
        });
    }
}
