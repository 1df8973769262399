//! The promises of a whole deployment, held against what clients, servers and workers do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_core::config::failover::Fence;
use ringkeeper_core::io::{ShardCondition, ShardNews};
use ringkeeper_core::time::Instant;

use crate::codec::Reply;

/// Lines that are kept for a failure.
const TRACE: usize = 160;

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Mget,
    Append,
    Set,
}

impl Verb {
    pub(crate) const fn is_write(self) -> bool {
        matches!(self, Self::Append | Self::Set)
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    /// An error said that it was not sent, or that a server refused it.
    NotSent,
    /// An error said that nobody knows.
    Unknown,
    /// Its connection ended before.
    Cut,
}

/// Which request: of whom, over which of his connections, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub client: u64,
    pub seq: u64,
    pub conn: u64,
}

impl Id {
    pub(crate) fn text(self) -> String {
        format!("{}.{}.{}", self.client, self.seq, self.conn)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(str::parse);
        let mut next = || parts.next()?.ok();
        Some(Self { client: next()?, seq: next()?, conn: next()? })
    }
}

#[derive(Debug)]
struct Record {
    verb: Verb,
    keys: Vec<String>,
    fate: Option<Fate>,
    at: Instant,
}

/// What a worker was told of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    epoch: u64,
    address: SocketAddr,
    condition: ShardCondition,
    /// By the host's clock.
    until: Option<Instant>,
}

/// What the judge expects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub fence: Fence,
    /// What was acknowledged has to be there in the end.
    pub keeps_acknowledged: bool,
    /// Nothing may fail at all, except that the outcome of a write is unknown whose copies were not
    /// counted when its master was replaced.
    pub must_succeed: bool,
}

/// Watches a deployment.
pub(crate) struct Judge {
    pub now: Instant,
    pub rules: Rules,
    /// The first promise that was broken.
    pub breach: Option<String>,
    pub trace: VecDeque<String>,
    records: BTreeMap<(u64, u64), Record>,
    executed: BTreeSet<Id>,
    /// Which shard a server belongs to.
    shards: BTreeMap<SocketAddr, String>,
    /// Which shard a key belongs to.
    homes: BTreeMap<String, String>,
    /// By host and shard.
    told: BTreeMap<(usize, String), Told>,
    /// When each server was made a master by somebody's order.
    promoted: BTreeMap<SocketAddr, Instant>,
    /// By shard and epoch: where the master is, and the last write that was passed on there.
    writes: BTreeMap<(String, u64), (SocketAddr, Option<Instant>)>,
    /// From then on every request succeeds.
    well_since: Option<Instant>,
    pub counts: [u64; 4],
    pub switches: u64,
    /// By host: what of its own it says is ill, for which it leaves the address to others.
    pub ill: BTreeSet<(usize, String)>,
}

impl Judge {
    pub(crate) fn new(rules: Rules, shards: BTreeMap<SocketAddr, String>) -> Self {
        Self {
            now: Instant::START,
            rules,
            breach: None,
            trace: VecDeque::new(),
            records: BTreeMap::new(),
            executed: BTreeSet::new(),
            shards,
            homes: BTreeMap::new(),
            told: BTreeMap::new(),
            promoted: BTreeMap::new(),
            writes: BTreeMap::new(),
            well_since: None,
            counts: [0; 4],
            switches: 0,
            ill: BTreeSet::new(),
        }
    }

    pub(crate) fn note(&mut self, line: impl Into<String>) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        let at = self.now.since(Instant::START).as_secs_f64();
        self.trace.push_back(format!("{at:>11.6} {}", line.into()));
    }

    pub(crate) fn broken(&mut self, what: String) {
        self.note(format!("BROKEN: {what}"));
        self.breach.get_or_insert(what);
    }

    // Clients.

    pub(crate) fn asked(&mut self, id: Id, verb: Verb, keys: Vec<String>) {
        let record = Record { verb, keys, fate: None, at: self.now };
        self.records.insert((id.client, id.seq), record);
    }

    /// The connection that a request went by has ended.
    pub(crate) fn cut(&mut self, id: Id) {
        let at = self.records.get(&(id.client, id.seq)).map(|record| record.at);
        let is_wrong = self.rules.must_succeed
            || self.well_since.is_some_and(|since| at.is_some_and(|at| at >= since));
        if is_wrong {
            self.broken(format!("the connection of {id:?} ended where nothing is wrong"));
        }
        self.decide(id, Fate::Cut);
    }

    fn decide(&mut self, id: Id, fate: Fate) {
        let Some(record) = self.records.get_mut(&(id.client, id.seq)) else { return };
        if record.fate.replace(fate).is_some() {
            return self.broken(format!("{id:?} has two fates"));
        }
        self.counts[fate as usize] += 1;
    }

    pub(crate) fn replied(&mut self, id: Id, reply: &Reply) {
        let Some(record) = self.records.get(&(id.client, id.seq)) else { return };
        let (verb, keys, at) = (record.verb, record.keys.clone(), record.at);
        let fate = match (verb, reply) {
            (_, Reply::Error(text)) => self.judge_error(id, verb, &String::from_utf8_lossy(text)),
            (Verb::Get, Reply::Bulk(Some(value))) => {
                self.judge_value(id, &keys[0], value);
                Fate::Done
            }
            (Verb::Mget, Reply::Array(Some(items))) if items.len() == keys.len() => {
                for (key, item) in keys.iter().zip(items) {
                    match item {
                        Reply::Bulk(Some(value)) => self.judge_value(id, key, value),
                        _ => self.broken(format!("{id:?} was answered {item:?}")),
                    }
                }
                Fate::Done
            }
            (Verb::Append, Reply::Integer(_)) => Fate::Done,
            (Verb::Set, Reply::Status(text)) if text == b"OK" => Fate::Done,
            _ => return self.broken(format!("{id:?}, a {verb:?}, was answered {reply:?}")),
        };
        if fate == Fate::Done && verb.is_write() && !self.executed.contains(&id) {
            self.broken(format!("{id:?} was acknowledged and never executed"));
        }
        let must_succeed =
            self.rules.must_succeed || self.well_since.is_some_and(|since| at >= since);
        let is_excused =
            fate == Fate::Unknown && self.rules.keeps_acknowledged && self.well_since.is_none();
        if fate != Fate::Done && must_succeed && !is_excused {
            self.broken(format!("{id:?} failed where nothing is wrong: {reply:?}"));
        }
        self.decide(id, fate);
    }

    fn judge_error(&mut self, id: Id, verb: Verb, words: &str) -> Fate {
        self.note(format!("{id:?} {verb:?}: {words}"));
        if words.starts_with("MASTERDOWN") || words.starts_with("READONLY") {
            return Fate::NotSent;
        }
        if words.starts_with("UNKNOWN") {
            if !verb.is_write() {
                self.broken(format!("{id:?}, a read, has an unknown outcome: {words}"));
            }
            return Fate::Unknown;
        }
        if verb.is_write() && !words.contains("was not sent") {
            // What a server says of itself had no effect.
            if !words.starts_with("LOADING") {
                self.broken(format!("{id:?} has an outcome that is not known: {words}"));
            }
        }
        Fate::NotSent
    }

    /// A value has only writes to this key, each once, and those of one connection in their order.
    fn judge_value(&mut self, id: Id, key: &str, value: &[u8]) {
        let text = String::from_utf8_lossy(value).into_owned();
        let mut last: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        let mut problem = None;
        for part in text.split_terminator(';') {
            let Some(write) = Id::parse(part) else {
                problem = Some("what nobody wrote");
                break;
            };
            let record = self.records.get(&(write.client, write.seq));
            if record.is_none_or(|record| record.keys[0] != key || !record.verb.is_write()) {
                problem = Some("what was written elsewhere");
            }
            let before = last.insert((write.client, write.conn), write.seq);
            if before.is_some_and(|before| before >= write.seq) {
                problem = Some("writes out of order");
            }
        }
        if let Some(problem) = problem {
            self.broken(format!("{id:?} finds in {key} {problem}: {text}"));
        }
    }

    /// From here on nothing may fail; returns whether it was so already.
    pub(crate) fn all_is_well(&mut self, is_well: bool) {
        self.well_since = is_well.then_some(self.now);
    }

    // Servers.

    /// A client's write was executed.
    pub(crate) fn executed(&mut self, server: SocketAddr, key: &str, id: &str) {
        let Some(id) = Id::parse(id) else {
            return self.broken(format!("{server} executes {id}, which nobody sent"));
        };
        let shard = self.shards.get(&server).cloned().unwrap_or_default();
        let home = self.homes.entry(key.to_owned()).or_insert_with(|| shard.clone());
        if *home != shard {
            self.broken(format!("{key} has moved to {shard}"));
        }
        if !self.executed.insert(id) {
            self.broken(format!("{id:?} was executed twice"));
        }
    }

    /// A server became a master by order.
    pub(crate) fn promoted(&mut self, server: SocketAddr) {
        self.note(format!("{server} is promoted"));
        self.promoted.insert(server, self.now);
    }

    // Workers.

    /// The worker of a host was started: it knows nothing.
    pub(crate) fn worker_started(&mut self, host: usize) {
        self.told.retain(|(of, _), _| *of != host);
    }

    /// A worker was told of a shard.
    pub(crate) fn told(&mut self, host: usize, news: &ShardNews) {
        let ShardNews { epoch, address, condition, valid_until: until, .. } = *news;
        let told = Told { epoch, address, condition, until };
        let key = (host, news.shard.to_string());
        let known = self.told.get(&key).copied();
        if known.is_some_and(|known| told.epoch < known.epoch) {
            return;
        }
        if known.map(|known| Told { until, ..known }) != Some(told) {
            self.note(format!(
                "host {host}: {} is at {} since {}, {:?}",
                news.shard, told.address, told.epoch, told.condition
            ));
        }
        self.told.insert(key, told);
        let shard = news.shard.to_string();
        let fresh = !self.writes.contains_key(&(shard.clone(), told.epoch));
        let (at, _) =
            *self.writes.entry((shard.clone(), told.epoch)).or_insert((told.address, None));
        if at != told.address {
            let what = format!("S4: {shard} is at {at} and {} in {}", told.address, told.epoch);
            return self.broken(what);
        }
        if fresh {
            self.switches += 1;
            self.judge_overlap(&shard, told.epoch, told.address);
        }
    }

    /// S8 where leases are lent: nobody wrote to a former master after its successor was made one.
    fn judge_overlap(&mut self, shard: &str, epoch: u64, address: SocketAddr) {
        let Some(since) = self.promoted.get(&address).copied() else { return };
        let before = self.writes.range((shard.to_owned(), 0)..(shard.to_owned(), epoch));
        let late = before
            .filter_map(|((_, old), (at, last))| Some((*old, *at, (*last)?)))
            .find(|(_, at, last)| *at != address && *last > since);
        if let (Fence::Strict, Some((old, at, last))) = (self.rules.fence, late) {
            let late = last.since(since);
            self.broken(format!(
                "S8: {shard} was written to at {at} in {old}, {late:?} after {address} was promoted \
                 for {epoch}"
            ));
        }
    }

    /// A worker passes something on to a server.
    pub(crate) fn forwarded(
        &mut self,
        host: usize,
        local: Instant,
        to: SocketAddr,
        words: &[Vec<u8>],
    ) {
        let is_write =
            [&b"SET"[..], b"APPEND"].iter().any(|name| words[0].eq_ignore_ascii_case(name));
        if !is_write || self.rules.fence == Fence::Off {
            return;
        }
        let Some(shard) = self.shards.get(&to).cloned() else {
            return self.broken(format!("host {host} writes to {to}, which is nobody"));
        };
        let is_strict = self.rules.fence == Fence::Strict;
        let Some(told) = self.told.get(&(host, shard.clone())).copied() else {
            if is_strict {
                self.broken(format!("S8: host {host} writes to {shard} before it knows anything"));
            }
            return;
        };
        if told.address != to {
            let what = format!("S8: host {host} writes to {to}, and was told of {told:?}");
            return self.broken(what);
        }
        if told.condition != ShardCondition::Serving {
            return self.broken(format!("S8: host {host} writes to {to} while it is {told:?}"));
        }
        if told.until.is_some_and(|until| until < local) {
            let what = format!("S8: host {host} writes to {to} after its lease: {told:?}");
            return self.broken(what);
        }
        let later = self.writes.range((shard.clone(), told.epoch + 1)..(shard.clone(), u64::MAX));
        let newer = later
            .map(|((_, epoch), (at, _))| (*epoch, *at))
            .find(|(_, at)| *at != to && self.promoted.contains_key(at));
        if let (true, Some((epoch, at))) = (is_strict, newer) {
            self.broken(format!(
                "S8: host {host} writes to {to} in {} although {shard} is at {at} since {epoch}",
                told.epoch
            ));
        }
        if let Some((_, last)) = self.writes.get_mut(&(shard, told.epoch)) {
            *last = Some(self.now);
        }
    }

    /// Tells whether all hosts are told the same of a shard, and that it serves.
    pub(crate) fn agreed(&self, hosts: usize, shard: &str) -> Result<SocketAddr, String> {
        let of = |host| self.told.get(&(host, shard.to_owned())).copied();
        let all: Vec<Option<Told>> = (0..hosts).map(of).collect();
        match all[0] {
            Some(first)
                if first.condition == ShardCondition::Serving
                    && all.iter().all(|told| {
                        told.is_some_and(|told| Told { until: first.until, ..told } == first)
                    }) =>
            {
                Ok(first.address)
            }
            _ => Err(format!("workers are told of {shard}: {all:?}")),
        }
    }

    // The end.

    /// Everything is over: nothing waits, nothing that was not sent has happened, and what was
    /// promised to be kept is there. `has` tells whether the master of a key's shard has a write.
    pub(crate) fn judge_end(&mut self, has: impl Fn(&str, &str) -> bool) -> u64 {
        let mut lost = 0;
        let mut problems = Vec::new();
        for ((client, seq), record) in &self.records {
            let executed = self.executed.range(
                Id { client: *client, seq: *seq, conn: 0 }..Id {
                    client: *client,
                    seq: seq + 1,
                    conn: 0,
                },
            );
            let executed = executed.copied().next();
            match record.fate {
                None => problems.push(format!("{client}.{seq} was never answered")),
                Some(Fate::NotSent) if executed.is_some() => {
                    problems.push(format!("{client}.{seq} was not sent, and took effect"));
                }
                Some(Fate::Done) if record.verb == Verb::Append => {
                    let id = executed.map(Id::text).unwrap_or_default();
                    if !has(&record.keys[0], &id) {
                        lost += 1;
                        if self.rules.keeps_acknowledged || self.rules.must_succeed {
                            problems.push(format!("{client}.{seq} was acknowledged and is lost"));
                        }
                    }
                }
                Some(_) => {}
            }
        }
        if let Some(first) = problems.into_iter().next() {
            self.broken(first);
        }
        lost
    }

    /// Returns the shard of a key, if anybody ever wrote it.
    pub(crate) fn home(&self, key: &str) -> Option<&str> {
        self.homes.get(key).map(String::as_str)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.records.len() as u64
    }

    /// Returns how long a request has been waiting.
    pub(crate) fn waits(&self, id: Id) -> Duration {
        let record = self.records.get(&(id.client, id.seq));
        record.map_or(Duration::ZERO, |record| self.now.since(record.at))
    }
}
