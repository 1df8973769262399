//! The machine: joins the parts, talks to servers, peers and clients, and says what has to be done.
//!
//! State has owners: [`links`] the connections, [`master`] what is known of one master,
//! [`store`] what has to become durable, [`clients`] who asks us, [`scripts`] what runs. The
//! files beside them say what is done: [`monitor`] looks after servers and peers, [`replies`] takes
//! their answers in, [`hellos`] tells and hears where masters are, [`lead`] carries a fail-over
//! out, [`repair`] brings strays back, [`commands`] and [`settings`] answer clients, [`workers`]
//! tells routing.
//!
//! Whatever comes in marks the masters that it concerns, and each marked one is reviewed once:
//! everything that is due is done, and the earliest moment at which something will be due without
//! news becomes a timer. So nothing waits for a tick.

mod acl;
mod acl_command;
mod acl_file;
mod ask;
mod catalog;
mod clients;
mod commands;
mod copies;
mod explain;
mod figures;
mod hellos;
mod help;
mod info_text;
mod journal;
mod lead;
mod lease;
mod links;
mod master;
mod monitor;
mod ordinary;
mod periods;
mod pubsub;
mod repair;
mod replies;
mod say;
mod scripts;
mod settings;
mod setup;
mod snapshot;
mod store;
mod tables;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use self::acl::Users;
use self::acl_command::RefusedLog;
use self::clients::{ClientKey, Clients};
use self::links::Links;
use self::master::Master;
use self::monitor::Rota;

pub use self::lease::{Fence, LEASE_MAX};
pub use self::periods::{PING_PERIOD_MIN, Periods};
use self::scripts::Scripts;
pub use self::setup::{DamagedState, Keeping, Process, Setup};
use self::store::Store;
use super::election::{AskId, Elections};
use super::failover::{self, State};
use super::instance::{Address, MasterName, RunId};
use super::tilt::{Change, Tilt};
use crate::buf::BufferPool;
use crate::config::sentinel::Config;
use crate::id::{ConnId, ListenerId, Ticket};
use crate::io::{AtCapacity, Command, Deadline, Endpoint, Event, Input, Notice, Output};
use crate::rng::Rng;
pub use crate::sentinel::names::NameBase;
use crate::time::Instant;
use crate::timer::Timers;

/// Names a master; never used again, so that what was asked for one that is gone finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MasterId(u32);

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// One Sentinel.
#[derive(Debug)]
pub struct Sentinel {
    started: Instant,
    process: Process,
    myid: RunId,
    /// What concerns the Sentinel itself. Its masters are not in it.
    globals: Config,
    periods: Periods,
    rng: Rng,
    tilt: Tilt,
    masters: BTreeMap<MasterId, Master>,
    names: BTreeMap<MasterName, MasterId>,
    next_master: u32,
    links: Links,
    peer_links: BTreeMap<RunId, tables::PeerLink>,
    /// Where host names were last found.
    found_hosts: BTreeMap<String, IpAddr>,
    elections: Elections,
    asks: BTreeMap<AskId, ClientKey>,
    next_ask: u64,
    store: Store,
    users: Users,
    refused: RefusedLog,
    /// Clients that wait for the file with users.
    acl_wishes: BTreeMap<Ticket, ClientKey>,
    clients: Clients,
    scripts: Scripts,
    /// Somebody else has our ID; no votes until the process is started anew.
    is_id_copied: bool,
    failure: commands::SimulatedFailure,
    /// What fail-overs are to take in, in order.
    inbox: VecDeque<(MasterId, failover::Input)>,
    dirty: BTreeSet<MasterId>,
    timers: Timers<MasterId>,
    /// Only used within a review, and kept for the next.
    rota: Rota,
    pool: BufferPool,
    out: VecDeque<Output>,
    /// Clients are to be answered and closed, then the process may end.
    is_stopping: bool,
    /// Whether workers with clients are told where masters are.
    tells_workers: bool,
    fence: Fence,
    /// Tells our words about leases from those of an earlier process.
    life: u64,
    /// Masters of which they are to be told in this turn.
    news: BTreeSet<MasterId>,
}

impl Sentinel {
    /// Begins to watch what the configuration says. All that is done follows from the setup, the
    /// seed and the inputs.
    pub fn new(setup: Setup, seed: u64, now: Instant) -> Self {
        let mut rng = Rng::new(seed);
        let durable = setup.durable();
        // Looked at when the file was read; without users nobody would be let in.
        let users = setup.read_users().unwrap_or_default();
        let Setup {
            mut config,
            keeping,
            process,
            fast_down,
            min_copies,
            names,
            tells_workers,
            fence,
            ..
        } = setup;
        let myid = *config.myid.get_or_insert_with(|| setup::draw_id(&mut rng));
        let periods = Periods::default();
        let source = config.server.bind_source;
        let masters = std::mem::take(&mut config.masters);
        let mut sentinel = Self {
            started: now,
            process,
            myid,
            elections: Elections::new(now, myid, &durable, rng.next_u64()),
            globals: config,
            periods,
            rng,
            tilt: Tilt::new(now, periods.tilt_trigger, periods.tilt_period),
            masters: BTreeMap::new(),
            names: BTreeMap::new(),
            next_master: 0,
            links: Links::new(names, source),
            peer_links: BTreeMap::new(),
            found_hosts: BTreeMap::new(),
            asks: BTreeMap::new(),
            next_ask: 0,
            store: Store::new(keeping, names.ticket),
            users,
            refused: RefusedLog::new(),
            acl_wishes: BTreeMap::new(),
            clients: Clients::new(names.conn),
            scripts: Scripts { last_job: names.job, ..Scripts::default() },
            is_id_copied: false,
            failure: commands::SimulatedFailure::default(),
            inbox: VecDeque::new(),
            dirty: BTreeSet::new(),
            timers: Timers::new(),
            rota: Rota::default(),
            pool: BufferPool::default(),
            out: VecDeque::new(),
            is_stopping: false,
            tells_workers,
            fence,
            life: 0,
            news: BTreeSet::new(),
        };
        sentinel.life = sentinel.rng.next_u64() >> 1;
        sentinel.note(format!("Sentinel ID is {myid}"));
        for settings in masters {
            sentinel.monitor(now, settings);
        }
        for master in sentinel.masters.values_mut() {
            master.is_fast_down = fast_down.contains(master.name());
            master.recall(&durable);
            master.min_copies = min_copies.get(master.name()).copied().unwrap_or(0);
        }
        // The first start has an ID to keep, and the others check that they can still write.
        sentinel.store.want();
        sentinel.settle(now);
        sentinel
    }

    /// Returns our ID.
    pub const fn myid(&self) -> RunId {
        self.myid
    }

    /// Takes a client in.
    ///
    /// # Errors
    ///
    /// [`AtCapacity`] when there are too many.
    pub fn accept(
        &mut self,
        now: Instant,
        _: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        if self.is_stopping {
            return Err(AtCapacity);
        }
        let needs_password = !self.users.lets_everybody_in();
        self.clients.accept(now, peer, needs_password)
    }

    /// Takes one input in.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.look_at_clock(now);
        match input {
            Input::Connected { conn, local } => self.link_connected(now, conn, local),
            Input::Received { conn, bytes } if conn.is_server() => {
                self.link_received(now, conn, bytes);
            }
            Input::Received { conn, bytes } => self.client_received(now, conn, bytes),
            Input::Eof { conn } if conn.is_server() => self.link_eof(conn),
            Input::Eof { conn } => self.clients.ended(conn),
            Input::Sent { conn, buffer } => {
                self.pool.give(buffer);
                if conn.is_server() { self.links.sent(conn) } else { self.clients.sent(conn) }
            }
            Input::Closed { conn, reason } if conn.is_server() => {
                // What was to end it is a name too many.
                let is_about =
                    |out: &Output| matches!(out, Output::Close { conn: of, .. } if *of == conn);
                self.out.retain(|output| !is_about(output));
                self.link_closed(now, conn, reason);
            }
            Input::Closed { conn, .. } | Input::Released { conn } => self.client_closed(conn),
            Input::Resolved { query, result } => self.resolved(now, query, result),
            Input::Persisted { ticket, result } => self.persisted(now, ticket, result),
            Input::FileRead { ticket, result } => self.file_read(now, ticket, result),
            Input::Exited { job, exit } => self.script_ended(now, job, exit),
            Input::Notice(Notice::Sighting(sighting)) => self.sighted(now, &sighting),
            // The plan of the proxy is not a Sentinel's business.
            Input::Notice(_) | Input::Command(Command::Reload { .. }) => {}
            Input::Command(Command::Drain { .. } | Command::HandOver { .. }) => self.stop(),
            Input::ChannelOpened { .. } | Input::Datagram { .. } | Input::Trouble { .. } => {
                debug_assert!(false, "a Sentinel has no channels");
            }
        }
        self.settle(now);
    }

    /// Runs the timers that are due. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.look_at_clock(now);
        self.elections.handle_timeout(now);
        while let Some((at, id)) = self.timers.next().filter(|(at, _)| *at <= now) {
            let _ = self.timers.pop_due(now);
            // A review since may have found that nothing is due yet, and armed a later one.
            if let Some(master) = self.masters.get_mut(&id).filter(|m| m.armed == Some(at)) {
                master.armed = None;
                self.dirty.insert(id);
            }
        }
        self.scripts_due(now);
        if self.store.is_due(now) {
            self.store.want();
        }
        self.settle(now);
    }

    /// Returns the next effect, `None` when there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(news) = self.poll_news() {
            return Some(news);
        }
        if let Some(output) = self.out.pop_front() {
            return Some(output);
        }
        if let Some(transmit) = self.links.poll_transmit(&mut self.pool) {
            return Some(transmit);
        }
        if let Some(output) = self.clients.poll_output(&mut self.pool) {
            return Some(output);
        }
        if self.is_stopping && self.clients.is_empty() {
            self.is_stopping = false;
            return Some(Output::Event(Event::Drained));
        }
        None
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let tilt = Deadline { at: self.tilt.deadline(), why: "look at the clock" };
        let master = self.timers.next().map(|(at, _)| Deadline { at, why: "review of a master" });
        let election = self.elections.poll_timeout();
        let election = election.map(|at| Deadline { at, why: "election" });
        let script = self.scripts.next_due(&self.periods);
        let script = script.map(|at| Deadline { at, why: "script" });
        let store = self.store.retry_at().map(|at| Deadline { at, why: "writing again" });
        let all = [Some(tilt), master, election, script, store];
        all.into_iter().flatten().min_by_key(|deadline| deadline.at)
    }

    fn look_at_clock(&mut self, now: Instant) {
        match self.tilt.observe(now) {
            Some(Change::Entered { is_new, .. }) => {
                if is_new {
                    self.say_own(&super::event::Event::TiltEntered);
                }
                for master in self.masters.values_mut() {
                    for (_, server) in master.servers_mut() {
                        server.watch.handle_stall(now);
                    }
                    for voice in master.voices.values_mut() {
                        voice.watch.handle_stall(now);
                    }
                }
                self.give_up_standing();
                self.dirty.extend(self.masters.keys().copied());
            }
            Some(Change::Left) => {
                self.say_own(&super::event::Event::TiltExited);
                self.dirty.extend(self.masters.keys().copied());
            }
            None => {}
        }
    }

    /// Ends what no server was told of yet: others may have decided while we stood still.
    fn give_up_standing(&mut self) {
        for (id, master) in &self.masters {
            let is_early = match master.failover.state() {
                State::WaitStart | State::SelectSlave { .. } | State::SendSlaveofNoone(_) => true,
                State::None
                | State::WaitPromotion(_)
                | State::Commit(_)
                | State::ReconfSlaves(_)
                | State::UpdateConfig(_) => false,
            };
            if is_early {
                self.inbox.push_back((*id, failover::Input::Superseded));
            }
        }
    }

    /// Goes on until nothing is left to be done without news.
    fn settle(&mut self, now: Instant) {
        // Each round acts on what the one before found out; a fail-over takes some ten.
        for _ in 0..SETTLE_ROUNDS_MAX {
            self.drain_elections(now);
            while let Some((id, input)) = self.inbox.pop_front() {
                self.lead(now, id, input);
                self.drain_elections(now);
            }
            let Some(id) = self.dirty.pop_first() else {
                if self.flush_store(now) {
                    continue;
                }
                self.start_scripts(now);
                return;
            };
            self.review(now, id);
        }
        debug_assert!(false, "the machine does not come to rest");
    }

    /// Refuses new clients and closes those that are there.
    fn stop(&mut self) {
        self.is_stopping = true;
        self.clients.close_all();
    }

    fn mark(&mut self, id: MasterId) {
        self.dirty.insert(id);
    }

    fn now_or_found(&self, address: &Address) -> Option<IpAddr> {
        self.found_hosts.get(address.host()).copied()
    }
}

/// Rounds of [`Sentinel::settle`] after which something is wrong.
const SETTLE_ROUNDS_MAX: usize = 100_000;
