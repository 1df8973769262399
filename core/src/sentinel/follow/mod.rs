//! Follows Sentinels of others: asks all of them where masters are, hears what they publish, and
//! tells the workers with clients what the latest election says.
//!
//! Each Sentinel has two connections, one for questions and one for what it publishes. Whatever is
//! published about a shard has that Sentinel asked at once, because only an answer tells the
//! election; all are asked again every period. So one that was cut off and is behind pulls nobody
//! back, and one that is ahead is enough.

mod opinion;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use self::opinion::Opinion;
use self::wire::{Wire, key_of};
use crate::buf::BufferPool;
use crate::config::nutcracker::Secret;
use crate::id::{ConnId, QueryId};
use crate::io::{
    self, CloseReason, Deadline, Input, Loudness, Notice, Output, Recipient, ResolveError,
    ShardCondition, ShardNews,
};
use crate::rng::Rng;
use crate::sentinel::instance::{Address, MasterName};
use crate::sentinel::names::{NameBase, Table};
use crate::sentinel::role::bulk;
use crate::time::Instant;
use crate::wire::resp::{array_elements, encode};

/// Sentinels that are followed at most; the rest is not asked.
pub const FOLLOWED_MAX: usize = 32;

/// How often every Sentinel is asked about every shard, if it publishes nothing.
const POLL: Duration = Duration::from_secs(1);

/// Shards that are asked about in one period; with more the period is longer.
const SHARDS_PER_POLL: usize = 50;

/// A connection on which nothing came for so long, though something was asked, is made anew.
const SILENCE: Duration = Duration::from_secs(3);

/// How often workers are told again what they know, for those that began later.
const REPEAT: Duration = Duration::from_secs(1);

/// How long the address of a name is taken to be right while nothing fails.
const NAME_AGE: Duration = Duration::from_secs(30);

/// What is heard of. The names are those of Redis 7.0 and Valkey.
const CHANNELS: [&str; 13] = [
    "+switch-master",
    "+sdown",
    "-sdown",
    "+odown",
    "-odown",
    "+failover-state-select-slave",
    "+failover-state-reconf-slaves",
    "+promoted-slave",
    "+failover-end",
    "+failover-end-for-timeout",
    "-failover-abort-not-elected",
    "-failover-abort-no-good-slave",
    "-failover-abort-slave-timeout",
];

/// What a follower begins with.
#[derive(Clone, Debug)]
pub struct FollowSetup {
    /// The shards, by the Sentinels' names of their masters.
    pub shards: Vec<MasterName>,
    /// The Sentinels; at most [`FOLLOWED_MAX`] of them are asked.
    pub sentinels: Vec<Address>,
    /// With the password, if the Sentinels want one.
    pub user: Option<String>,
    /// The Sentinels' password.
    pub password: Option<Secret>,
    /// Without answers of more than half of the Sentinels for so long, workers are told not to
    /// write; `None`: they never are.
    pub fence: Option<Duration>,
    /// Where its names begin, if it shares a worker.
    pub names: NameBase,
}

/// What a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Ignored,
    /// GET-MASTER-ADDR-BY-NAME.
    Address(usize),
    /// MASTER.
    Master(usize),
}

/// Which connection of a Sentinel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Questions,
    Events,
}

/// A Sentinel that is followed.
#[derive(Debug)]
struct Followed {
    address: Address,
    /// Where a name was found, and when.
    found: Option<(Instant, IpAddr)>,
    query: Option<QueryId>,
    questions: Wire<Expect>,
    events: Wire<()>,
    polled_at: Option<Instant>,
    /// When it last answered about a shard.
    answered_at: Option<Instant>,
    /// The election of each shard as it said a moment ago, until the address follows.
    half: BTreeMap<usize, u64>,
}

/// A shard.
#[derive(Debug)]
struct Shard {
    name: MasterName,
    shown: Arc<str>,
    /// By Sentinel.
    opinions: Vec<Opinion>,
    known: Option<(u64, SocketAddr)>,
    latest: Option<ShardNews>,
    told_at: Option<Instant>,
}

/// Names of hosts that masters are told by.
#[derive(Debug, Default)]
struct Hosts {
    found: BTreeMap<String, (Instant, IpAddr)>,
    asked: BTreeMap<QueryId, String>,
}

/// The machine.
#[derive(Debug)]
pub struct Follower {
    user: Option<String>,
    password: Option<Secret>,
    fence: Option<Duration>,
    started: Instant,
    rng: Rng,
    sentinels: Vec<Followed>,
    shards: Vec<Shard>,
    names: BTreeMap<MasterName, usize>,
    hosts: Hosts,
    conns: Table<(usize, Side)>,
    query_base: u32,
    next_query: u32,
    /// Shards whose news may be others.
    dirty: BTreeSet<usize>,
    /// When all are looked at again.
    sweep_at: Instant,
    is_fenced: bool,
    deadline: Option<Instant>,
    pool: BufferPool,
    out: VecDeque<Output>,
}

impl Follower {
    /// Begins to follow. All that is done follows from the setup, the seed and the inputs.
    pub fn new(setup: FollowSetup, seed: u64, now: Instant) -> Self {
        let FollowSetup { shards, sentinels, user, password, fence, names } = setup;
        let count = sentinels.len().min(FOLLOWED_MAX);
        let followed = |address| Followed {
            address,
            found: None,
            query: None,
            questions: Wire::new(now),
            events: Wire::new(now),
            polled_at: None,
            answered_at: None,
            half: BTreeMap::new(),
        };
        let shard = |name: MasterName| Shard {
            shown: Arc::from(name.as_str()),
            name,
            opinions: vec![Opinion::default(); count],
            known: None,
            latest: None,
            told_at: None,
        };
        let by_name = shards.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
        let mut follower = Self {
            user,
            password,
            fence,
            started: now,
            rng: Rng::new(seed),
            sentinels: sentinels.into_iter().take(count).map(followed).collect(),
            shards: shards.into_iter().map(shard).collect(),
            names: by_name,
            hosts: Hosts::default(),
            // Old ones may still be on their way out while new ones are made.
            conns: Table::new(count * 4, names.conn),
            query_base: names.query,
            next_query: 0,
            dirty: BTreeSet::new(),
            sweep_at: now,
            is_fenced: false,
            deadline: None,
            pool: BufferPool::default(),
            out: VecDeque::new(),
        };
        follower.review(now);
        follower
    }

    /// Returns how many of the Sentinels answer questions, and how many there are.
    pub fn reachable(&self) -> (usize, usize) {
        let open = self.sentinels.iter().filter(|one| one.questions.is_open()).count();
        (open, self.sentinels.len())
    }

    /// Returns what is known of each shard.
    pub fn news(&self) -> impl Iterator<Item = &ShardNews> {
        self.shards.iter().filter_map(|shard| shard.latest.as_ref())
    }

    /// Takes one input in.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Connected { conn, .. } => self.connected(now, conn),
            Input::Received { conn, bytes } => self.received(now, conn, bytes),
            Input::Eof { conn } => self.cut(conn),
            Input::Sent { conn, buffer } => {
                self.pool.give(buffer);
                self.with_wire(conn, |wire| wire.sent(conn), |wire| wire.sent(conn));
            }
            Input::Closed { conn, reason } => self.closed(now, conn, reason),
            Input::Resolved { query, result } => self.resolved(now, query, result),
            // A sighting is no reason to ask: Sentinels publish what they find out.
            Input::Notice(_) | Input::Command(_) => {}
            Input::Released { .. }
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. }
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. } => debug_assert!(false, "an answer to what was never asked"),
        }
        self.review(now);
    }

    /// Runs the timers that are due. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|at| at <= now) {
            self.review(now);
        }
    }

    /// Returns the next effect, `None` when there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.out.pop_front() {
            return Some(output);
        }
        for one in &mut self.sentinels {
            let output = one.questions.poll_transmit(&mut self.pool);
            if let Some(output) = output.or_else(|| one.events.poll_transmit(&mut self.pool)) {
                return Some(output);
            }
        }
        None
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.deadline.map(|at| Deadline { at, why: "ask Sentinels" })
    }

    /// Does what is due, and finds out when something will be.
    fn review(&mut self, now: Instant) {
        let mut due = now + POLL;
        for at in 0..self.sentinels.len() {
            due = due.min(self.tend(now, at));
        }
        let is_fenced = self.is_cut_off(now);
        if is_fenced != self.is_fenced || self.sweep_at <= now {
            self.is_fenced = is_fenced;
            self.sweep_at = now + REPEAT;
            self.dirty.extend(0..self.shards.len());
        }
        while let Some(at) = self.dirty.pop_first() {
            self.sweep_at = self.sweep_at.min(self.review_news(now, at));
        }
        due = due.min(self.sweep_at);
        if let Some(at) = self.cut_off_at(now) {
            due = due.min(at);
        }
        self.deadline = Some(due.max(now + Duration::from_micros(100)));
    }

    fn tend(&mut self, now: Instant, at: usize) -> Instant {
        let mut due = now + POLL;
        for side in [Side::Questions, Side::Events] {
            let Some(one) = self.sentinels.get(at) else { return due };
            let waits = match side {
                Side::Questions => one.questions.waits_until(),
                Side::Events => one.events.waits_until(),
            };
            match waits {
                Some(until) if until <= now => self.connect(now, at, side),
                Some(until) => due = due.min(until),
                None => {}
            }
        }
        let period = POLL * u32::try_from(self.shards.len() / SHARDS_PER_POLL + 1).unwrap_or(1);
        // Who may write only while it hears them has to ask in time.
        let period = self.fence.map_or(period, |fence| period.min(fence / 3));
        let Some(one) = self.sentinels.get_mut(at) else { return due };
        if !one.questions.is_open() {
            return due;
        }
        let is_owed = !one.questions.expected.is_empty();
        if is_owed && now.since(one.questions.heard_at) > SILENCE {
            self.out.extend(one.questions.cut());
            self.out.extend(one.events.cut());
            return due;
        }
        let poll_at = one.polled_at.map_or(now, |at| at + period);
        if poll_at > now || is_owed {
            return due.min(poll_at.max(now + period / 10));
        }
        one.polled_at = Some(now);
        // On the line of events a PING keeps whoever is between us from forgetting it.
        one.events.send(None, |out| encode::request(out, &[b"PING"]));
        for shard in 0..self.shards.len() {
            self.ask(at, shard);
        }
        due
    }

    /// Asks one Sentinel about one shard. The election first: an address that is newer than it is
    /// corrected by the next answer, one that is older would be believed.
    fn ask(&mut self, at: usize, shard: usize) {
        let Some(name) = self.shards.get(shard).map(|shard| shard.name.clone()) else { return };
        let Some(one) = self.sentinels.get_mut(at) else { return };
        let words: [&[u8]; 3] = [b"SENTINEL", b"MASTER", name.as_str().as_bytes()];
        let wire = &mut one.questions;
        wire.send(Some(Expect::Master(shard)), |out| encode::request(out, &words));
        let words: [&[u8]; 3] = [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.as_str().as_bytes()];
        wire.send(Some(Expect::Address(shard)), |out| encode::request(out, &words));
    }

    fn connect(&mut self, now: Instant, at: usize, side: Side) {
        let Some(one) = self.sentinels.get_mut(at) else { return };
        let port = one.address.port();
        let found = one.found.filter(|(when, _)| now.since(*when) < NAME_AGE).map(|(_, ip)| ip);
        let Some(ip) = one.address.host().parse::<IpAddr>().ok().or(found) else {
            if one.query.is_none() {
                let host = one.address.host().to_owned();
                let query = self.take_query();
                if let Some(one) = self.sentinels.get_mut(at) {
                    one.query = Some(query);
                }
                self.out.push_back(Output::Resolve { query, host, port });
            }
            // Until the name is found, or tried again.
            self.put_off(now, at, side);
            return;
        };
        let Some(key) = self.conns.insert((at, side)) else {
            self.put_off(now, at, side);
            return;
        };
        let conn = ConnId::server(key.index, key.generation);
        let to = SocketAddr::new(ip, port);
        let Some(one) = self.sentinels.get_mut(at) else { return };
        let output = match side {
            Side::Questions => one.questions.connecting(conn, to),
            Side::Events => one.events.connecting(conn, to),
        };
        self.out.push_back(output);
    }

    fn take_query(&mut self) -> QueryId {
        self.next_query = self.next_query.wrapping_add(1) % (1 << 24);
        QueryId(self.query_base.saturating_add(1 + self.next_query))
    }

    fn put_off(&mut self, now: Instant, at: usize, side: Side) {
        let Some(one) = self.sentinels.get_mut(at) else { return };
        let rng = &mut self.rng;
        match side {
            Side::Questions => one.questions.put_off(now, |most| rng.below(most)),
            Side::Events => one.events.put_off(now, |most| rng.below(most)),
        }
    }

    fn with_wire<T>(
        &mut self,
        conn: ConnId,
        questions: impl FnOnce(&mut Wire<Expect>) -> T,
        events: impl FnOnce(&mut Wire<()>) -> T,
    ) -> Option<T> {
        let (at, side) = *self.conns.get(key_of(conn))?;
        let one = self.sentinels.get_mut(at)?;
        Some(match side {
            Side::Questions => questions(&mut one.questions),
            Side::Events => events(&mut one.events),
        })
    }

    fn connected(&mut self, now: Instant, conn: ConnId) {
        let is_wanted = self.with_wire(
            conn,
            |wire| wire.connected(now, conn),
            |wire| wire.connected(now, conn),
        );
        let Some((at, side)) = self.conns.get(key_of(conn)).copied() else { return };
        if is_wanted != Some(true) {
            return;
        }
        let auth = self.password.as_ref().map(|password| {
            let mut words = vec!["AUTH".to_owned()];
            words.extend(self.user.clone());
            words.push(password.expose().to_owned());
            words
        });
        let Some(one) = self.sentinels.get_mut(at) else { return };
        let greet = |out: &mut Vec<u8>| {
            if let Some(words) = &auth {
                let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
                encode::request(out, &words);
            }
        };
        match side {
            Side::Questions => {
                one.questions.send(auth.as_ref().map(|_| Expect::Ignored), greet);
                let words: [&[u8]; 3] = [b"CLIENT", b"SETNAME", b"ringkeeper"];
                let wire = &mut one.questions;
                wire.send(Some(Expect::Ignored), |out| encode::request(out, &words));
                one.polled_at = None;
            }
            Side::Events => {
                one.events.send(None, greet);
                let words = std::iter::once("SUBSCRIBE").chain(CHANNELS);
                let words: Vec<&[u8]> = words.map(str::as_bytes).collect();
                one.events.send(None, |out| encode::request(out, &words));
                // What was published before that was not heard.
                one.polled_at = None;
            }
        }
    }

    fn cut(&mut self, conn: ConnId) {
        let close = self.with_wire(conn, Wire::cut, Wire::cut).flatten();
        self.out.extend(close);
    }

    fn closed(&mut self, now: Instant, conn: ConnId, reason: CloseReason) {
        let Some((at, side)) = self.conns.remove(key_of(conn)) else { return };
        self.put_off(now, at, side);
        let Some(one) = self.sentinels.get_mut(at) else { return };
        one.half.clear();
        if reason != CloseReason::Requested {
            // Its name may be found elsewhere now.
            one.found = None;
        }
        for shard in &mut self.shards {
            if let Some(opinion) = shard.opinions.get_mut(at) {
                opinion.fade();
            }
        }
    }

    fn resolved(
        &mut self,
        now: Instant,
        query: QueryId,
        result: Result<Vec<SocketAddr>, ResolveError>,
    ) {
        let ip = result.ok().and_then(|found| found.first().map(SocketAddr::ip));
        if let Some(host) = self.hosts.asked.remove(&query) {
            if let Some(ip) = ip {
                self.hosts.found.insert(host, (now, ip));
            }
            // Whoever told the name is asked again.
            for one in &mut self.sentinels {
                one.polled_at = None;
            }
            return;
        }
        let Some(one) = self.sentinels.iter_mut().find(|one| one.query == Some(query)) else {
            return;
        };
        one.query = None;
        let host = one.address.host().to_owned();
        match ip {
            Some(ip) => {
                one.found = Some((now, ip));
                if one.questions.waits_until().is_some() {
                    one.questions = Wire::new(now);
                }
                if one.events.waits_until().is_some() {
                    one.events = Wire::new(now);
                }
            }
            None => self.note(format!("Failed to resolve hostname '{host}' of a Sentinel")),
        }
    }

    fn note(&mut self, message: String) {
        let loudness = Loudness::Warning;
        self.out.push_back(Output::Event(io::Event::Sentinel { loudness, name: "", message }));
    }

    fn received(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        let Some((at, side)) = self.conns.get(key_of(conn)).copied() else { return };
        let frames = self.with_wire(
            conn,
            |wire| wire.received(now, conn, bytes),
            |wire| wire.received(now, conn, bytes),
        );
        let Some(Some(frames)) = frames else {
            self.cut(conn);
            return;
        };
        for frame in frames {
            match side {
                Side::Events => self.published(now, at, &frame),
                Side::Questions => {
                    let one = self.sentinels.get_mut(at);
                    let Some(expect) = one.and_then(|one| one.questions.expected.pop_front())
                    else {
                        self.cut(conn);
                        return;
                    };
                    self.answered(now, at, expect, &frame);
                }
            }
        }
    }

    fn answered(&mut self, now: Instant, at: usize, expect: Expect, frame: &[u8]) {
        match expect {
            Expect::Ignored => {}
            Expect::Master(shard) => self.take_in_master(now, at, shard, frame),
            Expect::Address(shard) => self.take_in_address(now, at, shard, frame),
        }
    }

    fn take_in_master(&mut self, now: Instant, at: usize, shard: usize, frame: &[u8]) {
        let said = MasterReply::parse(frame);
        let address = said.as_ref().and_then(|said| self.find(now, &said.address));
        let Some(one) = self.sentinels.get_mut(at) else { return };
        one.half.remove(&shard);
        // It may not watch this one, or want a password.
        let Some(said) = said else { return };
        one.answered_at = Some(now);
        one.questions.is_well();
        one.half.insert(shard, said.epoch);
        let opinion = self.shards.get_mut(shard).and_then(|shard| shard.opinions.get_mut(at));
        let Some(opinion) = opinion else { return };
        let of = |is_so: bool| address.filter(|_| is_so);
        opinion.down = of(said.is_down);
        opinion.surely_down = of(said.is_surely_down);
        if !said.is_failing_over {
            opinion.moving = None;
        }
        self.dirty.insert(shard);
    }

    fn take_in_address(&mut self, now: Instant, at: usize, shard: usize, frame: &[u8]) {
        let Some(epoch) = self.sentinels.get_mut(at).and_then(|one| one.half.remove(&shard)) else {
            return;
        };
        let Some(mut parts) = array_elements(frame) else { return };
        let mut next = || parts.next().and_then(bulk);
        let (Some(host), Some(port)) = (next(), next()) else { return };
        let Ok(address) = Address::parse(host, port) else { return };
        let Some(address) = self.find(now, &address) else { return };
        let opinion = self.shards.get_mut(shard).and_then(|shard| shard.opinions.get_mut(at));
        if let Some(opinion) = opinion {
            opinion.said = Some((now, epoch, address));
        }
        self.dirty.insert(shard);
    }

    /// Returns where an address is; a name that is not known, or not for sure, is looked up.
    fn find(&mut self, now: Instant, address: &Address) -> Option<SocketAddr> {
        let (host, port) = (address.host(), address.port());
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(SocketAddr::new(ip, port));
        }
        let known = self.hosts.found.get(host).copied();
        let is_fresh = known.is_some_and(|(at, _)| now.since(at) < NAME_AGE);
        let is_asked = self.hosts.asked.values().any(|asked| asked == host);
        if !is_fresh && !is_asked && self.hosts.asked.len() < HOSTS_ASKED_MAX {
            let query = self.take_query();
            self.hosts.asked.insert(query, host.to_owned());
            self.out.push_back(Output::Resolve { query, host: host.to_owned(), port });
        }
        known.map(|(_, ip)| SocketAddr::new(ip, port))
    }

    /// Takes in what a Sentinel publishes: which shard it is about, and at once what can be known
    /// without asking.
    fn published(&mut self, now: Instant, at: usize, frame: &[u8]) {
        let Some(mut parts) = array_elements(frame) else { return };
        let mut next = || parts.next().and_then(bulk);
        if next() != Some(b"message") {
            return;
        }
        let (Some(channel), Some(text)) = (next(), next()) else { return };
        let Ok(text) = std::str::from_utf8(text) else { return };
        let words: Vec<&str> = text.split(' ').collect();
        let (name, address) = match *words {
            [name, _, _, _, _] if channel == b"+switch-master" => (name, None),
            ["master", name, host, port, ..] => {
                (name, Address::parse(host.as_bytes(), port.as_bytes()).ok())
            }
            // Of a replica: only its promotion matters.
            [_, _, _, _, "@", name, ..] if channel == b"+promoted-slave" => (name, None),
            _ => return,
        };
        let shard = MasterName::new(name).and_then(|name| self.names.get(&name).copied());
        let Some(shard) = shard else { return };
        let address = address.and_then(|address| self.find(now, &address));
        let opinion = self.shards.get_mut(shard).and_then(|shard| shard.opinions.get_mut(at));
        let Some(opinion) = opinion else { return };
        match channel {
            b"+sdown" => opinion.down = address,
            b"-sdown" => opinion.down = None,
            b"+odown" => opinion.surely_down = address,
            b"-odown" => opinion.surely_down = None,
            // It leads. If nobody said that the master is down, an operator wants it elsewhere.
            b"+failover-state-select-slave" => opinion.moving = address,
            _ => opinion.moving = None,
        }
        self.dirty.insert(shard);
        self.ask(at, shard);
    }

    /// Finds out what workers should know of a shard; returns when they are told again.
    fn review_news(&mut self, now: Instant, at: usize) -> Instant {
        let is_fenced = self.is_fenced;
        let Some(shard) = self.shards.get_mut(at) else { return now + REPEAT };
        shard.known = opinion::latest(shard.known, &shard.opinions);
        let Some((epoch, address)) = shard.known else { return now + REPEAT };
        let condition = if is_fenced {
            ShardCondition::Fenced
        } else {
            opinion::condition(address, &shard.opinions)
        };
        let news = ShardNews {
            shard: Arc::clone(&shard.shown),
            epoch,
            address,
            condition,
            valid_until: None,
        };
        let is_news = shard.latest.as_ref() != Some(&news);
        let repeat_at = shard.told_at.map_or(now, |at| at + REPEAT);
        if !is_news && repeat_at > now {
            return repeat_at;
        }
        shard.latest = Some(news.clone());
        shard.told_at = Some(now);
        self.out.push_back(Output::Notice { to: Recipient::Data, notice: Notice::Shard(news) });
        now + REPEAT
    }

    /// Returns since when fewer than a majority have been heard.
    fn last_majority(&self) -> Instant {
        let mut heard: Vec<Instant> =
            self.sentinels.iter().map(|one| one.answered_at.unwrap_or(self.started)).collect();
        heard.sort_unstable_by(|one, other| other.cmp(one));
        heard.get(self.sentinels.len() / 2).copied().unwrap_or(self.started)
    }

    fn is_cut_off(&self, now: Instant) -> bool {
        self.fence.is_some_and(|lease| now.since(self.last_majority()) > lease)
    }

    /// Returns when we will be cut off if nobody answers until then.
    fn cut_off_at(&self, now: Instant) -> Option<Instant> {
        let at = self.last_majority() + self.fence? + Duration::from_nanos(1);
        Some(at).filter(|at| *at > now)
    }
}

/// Names that are looked up at once; a Sentinel that tells more is not believed.
const HOSTS_ASKED_MAX: usize = 64;

/// The fields of a reply to `SENTINEL MASTER` that matter.
#[derive(Debug, PartialEq, Eq)]
struct MasterReply {
    /// Whom it watches. The leader of a fail-over shows the former master until it is over, under
    /// the new election already.
    address: Address,
    epoch: u64,
    is_down: bool,
    is_surely_down: bool,
    is_failing_over: bool,
}

impl MasterReply {
    fn parse(frame: &[u8]) -> Option<Self> {
        let mut parts = array_elements(frame)?;
        let (mut host, mut port, mut epoch, mut flags) = (None, None, None, None);
        while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
            let value = bulk(value);
            match bulk(key)? {
                b"ip" => host = value,
                b"port" => port = value,
                b"config-epoch" => epoch = value,
                b"flags" => flags = value,
                _ => {}
            }
        }
        let flags = std::str::from_utf8(flags?).ok()?;
        let has = |flag: &str| flags.split(',').any(|one| one == flag);
        Some(Self {
            address: Address::parse(host?, port?).ok()?,
            epoch: std::str::from_utf8(epoch?).ok()?.parse().ok()?,
            is_down: has("s_down"),
            is_surely_down: has("o_down"),
            is_failing_over: has("failover_in_progress"),
        })
    }
}
