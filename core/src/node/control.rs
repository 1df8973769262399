//! The worker without clients of pools: what watches and steers the others.
//!
//! Its machines are optional, and each owns its connections: which one a connection belongs to
//! follows from its listener and then from its name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::health::Overseer;
use super::wiring::{self, Hearer, Overheard};
use crate::admin::{Admin, AdminPlan, AdminRole};
use crate::id::{ConnId, ListenerId};
use crate::io::{
    AtCapacity, Command, Deadline, Drive, Endpoint, Event, Input, Notice, Output, Parcel,
};
use crate::limits::ADMIN_CONNECTIONS_MAX;
use crate::sentinel::follow::{FollowSetup, Follower};
use crate::sentinel::machine::{Sentinel, Setup};
use crate::stats::{MasterFigures, WatchFigures};
use crate::time::Instant;

/// What a listener of the control worker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRole {
    /// Figures and administration.
    Admin(AdminRole),
    /// Clients of the Sentinel and its peers.
    Sentinel,
}

/// What the control worker does.
#[derive(Clone, Debug, Default)]
pub struct ControlPlan {
    /// What each of its listeners is for.
    pub listeners: BTreeMap<ListenerId, ControlRole>,
    /// The admin listener and the statistics port.
    pub admin: Option<Arc<AdminPlan>>,
    /// How it knows where the masters of shards are.
    pub watch: Option<WatchPlan>,
    /// Workers with clients, if virtual routers are to know how they are.
    pub overseen: Option<u16>,
}

/// How it is known where the masters of shards are. Also what [`Command::Reload`] carries to the
/// control worker: it begins to watch then.
#[derive(Clone, Debug)]
pub enum WatchPlan {
    /// By a Sentinel of this process.
    Own {
        /// What it begins with.
        setup: Box<Setup>,
        /// Its chance.
        seed: u64,
    },
    /// By Sentinels that others run.
    Follow {
        /// What it begins with.
        setup: Box<FollowSetup>,
        /// Its chance.
        seed: u64,
    },
}

/// Whoever knows where masters are.
#[derive(Debug)]
enum Watcher {
    Own(Box<Sentinel>),
    Follow(Box<Follower>),
}

impl Watcher {
    fn handle(&mut self, now: Instant, input: Input<'_>) {
        match self {
            Self::Own(sentinel) => sentinel.handle(now, input),
            Self::Follow(follower) => follower.handle(now, input),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Own(sentinel) => sentinel.handle_timeout(now),
            Self::Follow(follower) => follower.handle_timeout(now),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        match self {
            Self::Own(sentinel) => sentinel.poll_output(),
            Self::Follow(follower) => follower.poll_output(),
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        match self {
            Self::Own(sentinel) => sentinel.poll_timeout(),
            Self::Follow(follower) => follower.poll_timeout(),
        }
    }

    /// Returns a shard whose master could move without our knowing, or could not be replaced,
    /// because too few Sentinels are in sight.
    fn short_of(&self) -> Option<String> {
        match self {
            Self::Own(sentinel) => sentinel.short_of_sentinels().map(ToString::to_string),
            Self::Follow(follower) => {
                let (up, all) = follower.reachable();
                (up * 2 <= all).then(|| format!("any shard, {up} of {all}"))
            }
        }
    }

    fn figures(&self, now: Instant) -> WatchFigures {
        match self {
            Self::Own(sentinel) => sentinel.figures(now),
            Self::Follow(follower) => {
                let (up, all) = follower.reachable();
                let text = format!("{up} of {all} Sentinels answer");
                WatchFigures {
                    mode: "follow",
                    masters: (follower.news())
                        .map(|news| MasterFigures {
                            name: news.shard.to_string(),
                            address: news.address.to_string(),
                            config_epoch: news.epoch,
                            status: "ok",
                            has_quorum: up * 2 > all,
                            quorum_text: text.clone(),
                            reasons: vec![
                                format!("master {} is at {}", news.shard, news.address),
                                text.clone(),
                                "whoever runs those Sentinels decides; ask them for more"
                                    .to_owned(),
                            ],
                            ..MasterFigures::default()
                        })
                        .collect(),
                    ..WatchFigures::default()
                }
            }
        }
    }
}

/// The control thread's logic.
#[derive(Debug)]
pub struct Control {
    listeners: BTreeMap<ListenerId, ControlRole>,
    admin: Option<Admin>,
    watcher: Option<Watcher>,
    overseer: Option<Overseer>,
    /// The moment of the last input.
    now: Instant,
}

/// First index of the connections that are not the admin machine's.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const BASE: u32 = ADMIN_CONNECTIONS_MAX as u32;

/// Tells whether a connection belongs to the admin machine.
const fn is_admin(conn: ConnId) -> bool {
    conn.index() < BASE
}

impl Control {
    /// Makes the worker; its behaviour follows from the plan and the inputs.
    pub fn new(plan: ControlPlan, now: Instant) -> Self {
        let ControlPlan { listeners, admin, watch, overseen } = plan;
        let overseer = overseen.map(|workers| Overseer::new(workers, now));
        let admin = admin.map(|plan| Admin::new(plan, now));
        let mut control = Self { listeners, admin, watcher: None, overseer, now };
        if let Some(watch) = watch {
            control.begin_to_watch(now, watch);
        }
        control
    }

    fn begin_to_watch(&mut self, now: Instant, plan: WatchPlan) {
        // A second Sentinel with the same state would vote twice.
        if self.watcher.is_some() {
            return;
        }
        match plan {
            WatchPlan::Own { mut setup, seed } => {
                setup.names.conn = BASE;
                setup.tells_workers = true;
                self.watcher = Some(Watcher::Own(Box::new(Sentinel::new(*setup, seed, now))));
            }
            WatchPlan::Follow { mut setup, seed } => {
                setup.names.conn = BASE;
                self.watcher = Some(Watcher::Follow(Box::new(Follower::new(*setup, seed, now))));
            }
        }
    }

    fn handle_command(&mut self, now: Instant, command: &Command) {
        match command {
            Command::Reload { plan, .. } => {
                if let Some(plan) = plan.open::<WatchPlan>() {
                    self.begin_to_watch(now, WatchPlan::clone(&plan));
                }
            }
            // Clients of pools have time to finish, and until then somebody watches their masters.
            Command::Drain { .. } => {}
            // Whoever takes over will vote with the same state.
            Command::HandOver { .. } => self.watcher = None,
        }
    }

    fn handle_notice(&mut self, now: Instant, notice: Notice) {
        match wiring::hearer(&notice) {
            Hearer::Admin => {
                let notice = self.overseen(notice);
                let (Some(admin), Some(notice)) = (&mut self.admin, notice) else { return };
                match notice {
                    Notice::Answer { from, query, answer } => {
                        show_watch(admin, self.watcher.as_ref(), now);
                        admin.answered(now, query, from, answer);
                    }
                    Notice::ConfigRead { is_good } => admin.note_reload(now, is_good),
                    Notice::Routers(figures) => admin.note_routers(figures),
                    Notice::Balance(figures) => admin.note_balance(figures),
                    Notice::Question { .. }
                    | Notice::Shard(_)
                    | Notice::Sighting(_)
                    | Notice::Health(_) => {}
                }
            }
            Hearer::Watch => {
                if let Some(watcher) = &mut self.watcher {
                    watcher.handle(now, Input::Notice(notice));
                }
            }
            Hearer::Nobody => {}
        }
    }

    /// Takes answers that are not the admin machine's out.
    fn overseen(&mut self, notice: Notice) -> Option<Notice> {
        match (&mut self.overseer, notice) {
            (Some(overseer), Notice::Answer { from, query, answer }) => {
                let answer = overseer.answered(query, from, answer)?;
                Some(Notice::Answer { from, query, answer })
            }
            (_, notice) => Some(notice),
        }
    }

    fn handle_admin(&mut self, now: Instant, input: Input<'_>) {
        let Some(admin) = &mut self.admin else { return };
        match input {
            Input::Received { conn, bytes } => admin.received(now, conn, bytes),
            Input::Eof { conn } => admin.eof(now, conn),
            Input::Sent { conn, buffer } => admin.sent(now, conn, buffer),
            Input::Closed { conn, .. } | Input::Released { conn } => admin.closed(now, conn),
            Input::Connected { .. }
            | Input::Notice(_)
            | Input::Command(_)
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. }
            | Input::Resolved { .. }
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. } => {
                debug_assert!(false, "an answer to what was never asked: {input:?}");
            }
        }
    }

    fn handle_watch(&mut self, now: Instant, input: Input<'_>) {
        // What comes for one that has retired comes too late.
        if let Some(watcher) = &mut self.watcher {
            watcher.handle(now, input);
        }
    }

    /// Lets others of this worker know what a machine says; returns what the host is to know.
    fn overhear(&mut self, output: Output) -> Option<Output> {
        match wiring::overheard(&output) {
            Overheard::Nothing => {}
            Overheard::Chronicle => {
                if let Output::Event(Event::Sentinel { name, message, .. }) = &output
                    && let Some(admin) = &mut self.admin
                {
                    admin.note_event(self.now, name, message);
                }
            }
            Overheard::Retired => return None,
        }
        if let Output::Notice { notice: Notice::Shard(news), .. } = &output {
            if let Some(admin) = &mut self.admin {
                admin.note_shard(self.now, news);
            }
            if let Some(overseer) = &mut self.overseer {
                overseer.note_shard(news);
            }
        }
        Some(output)
    }
}

/// Gives the admin machine what there is to show, if somebody waits for it.
fn show_watch(admin: &mut Admin, watcher: Option<&Watcher>, now: Instant) {
    if admin.is_asked()
        && let Some(watcher) = watcher
    {
        admin.note_watch(watcher.figures(now));
    }
}

impl Drive for Control {
    fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        match *self.listeners.get(&on).ok_or(AtCapacity)? {
            ControlRole::Admin(role) => self.admin.as_mut().ok_or(AtCapacity)?.accept(now, role),
            ControlRole::Sentinel => match &mut self.watcher {
                Some(Watcher::Own(sentinel)) => sentinel.accept(now, on, peer),
                Some(Watcher::Follow(_)) | None => Err(AtCapacity),
            },
        }
    }

    fn adopt(&mut self, _: Instant, _: ListenerId, _: &Parcel) -> Result<ConnId, AtCapacity> {
        // Its clients are not handed over: they ask again.
        Err(AtCapacity)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.now = now;
        match input {
            Input::Received { conn, .. }
            | Input::Eof { conn }
            | Input::Sent { conn, .. }
            | Input::Closed { conn, .. }
            | Input::Released { conn } => {
                if is_admin(conn) {
                    self.handle_admin(now, input);
                } else {
                    self.handle_watch(now, input);
                }
            }
            Input::Notice(notice) => self.handle_notice(now, notice),
            Input::Command(command) => self.handle_command(now, &command),
            Input::Connected { .. }
            | Input::Resolved { .. }
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. } => self.handle_watch(now, input),
            Input::ChannelOpened { .. } | Input::Datagram { .. } | Input::Trouble { .. } => {
                debug_assert!(false, "an answer to what was never asked: {input:?}");
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if let Some(watcher) = &mut self.watcher {
            watcher.handle_timeout(now);
        }
        if let Some(overseer) = &mut self.overseer {
            let short_of = self.watcher.as_ref().and_then(Watcher::short_of);
            overseer.handle_timeout(now, short_of);
        }
        if let Some(admin) = &mut self.admin {
            show_watch(admin, self.watcher.as_ref(), now);
            admin.handle_timeout(now);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        while let Some(output) = self.watcher.as_mut().and_then(Watcher::poll_output) {
            if let Some(output) = self.overhear(output) {
                return Some(output);
            }
        }
        if let Some(output) = self.overseer.as_mut().and_then(Overseer::poll_output) {
            return Some(output);
        }
        self.admin.as_mut()?.poll_output()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let watcher = self.watcher.as_ref().and_then(Watcher::poll_timeout);
        let admin = self.admin.as_ref().and_then(Admin::poll_timeout);
        let overseer = self.overseer.as_ref().map(Overseer::poll_timeout);
        [watcher, overseer, admin].into_iter().flatten().min_by_key(|deadline| deadline.at)
    }
}
