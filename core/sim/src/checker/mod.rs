//! What clients may see, judged against what the servers did.
//!
//! The simulation is one thread, so every send, effect and reply has its place in one sequence
//! (a tick). A reply is right when it is the reply to this request and reports a state that its
//! key had between the sending of the request and the reply; a write that was answered has
//! happened exactly once in that time; a write that was not may happen once, also late.

mod history;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringkeeper_core::time::Instant;

use crate::Check;
use crate::codec::Reply;
use crate::request::{Ask, Asker, Request};
use crate::scenario::{Scenario, Verb};

pub(crate) use history::Change;
use history::Histories;
use value::synthetic_tag;
pub(crate) use value::{Digest, Tag, make_value, synthetic_value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waiting,
    Succeeded,
    Failed,
    Lost,
}

/// The effect of a write on one key.
#[derive(Clone, Copy, Debug)]
struct Applied {
    tick: u64,
    server: usize,
    len: usize,
}

/// Per server: a tick.
type Floors = Vec<(usize, u64)>;

/// One request and what became of it.
#[derive(Debug)]
struct Record {
    ask: Ask,
    keys: Vec<Vec<u8>>,
    pool: usize,
    link: usize,
    sent: u64,
    sent_at: Instant,
    fate: Fate,
    /// Per key: the value carried a tag, so its effect is recognized.
    tagged: Vec<bool>,
    /// Per key: when and where the write happened, and the length of the value after it.
    applied: Vec<Option<Applied>>,
    /// A later request of the same client took effect on the same key before this one.
    is_overtaken: bool,
}

/// The judge.
#[derive(Debug)]
pub(crate) struct Checker {
    tick: u64,
    requests: Vec<Vec<Record>>,
    histories: Histories,
    /// Per client, server and key: the last write that took effect. Between servers there is no
    /// order: an ejection moves keys while writes are under way.
    order: BTreeMap<(u32, usize, Vec<u8>), (u64, usize)>,
    /// Per client, key and server: the tick of the last write that was answered.
    floors: BTreeMap<(u32, Vec<u8>), Floors>,
    /// Counter values that were given out, and the last one per client.
    counts_given: BTreeSet<(Vec<u8>, i64)>,
    counts_seen: BTreeMap<(u32, Vec<u8>), i64>,
    taints_open: u32,
    taint_last_end: u64,
    /// Errors are forgiven for requests sent before this tick.
    forgives_before: u64,
    healed: u64,
    pub replies: u64,
    pub errors: u64,
    pub lost: u64,
    pub effects: u64,
}

impl Checker {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            tick: 1,
            requests: (0..scenario.clients).map(|_| Vec::new()).collect(),
            histories: Histories::new(scenario),
            order: BTreeMap::new(),
            floors: BTreeMap::new(),
            counts_given: BTreeSet::new(),
            counts_seen: BTreeMap::new(),
            taints_open: 0,
            taint_last_end: 0,
            forgives_before: if scenario.faults.is_empty() { 0 } else { u64::MAX },
            healed: 0,
            replies: 0,
            errors: 0,
            lost: 0,
            effects: 0,
        }
    }

    const fn step(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    pub(crate) const fn taint_begins(&mut self) {
        self.taints_open += 1;
    }

    pub(crate) const fn taint_ends(&mut self) {
        self.taints_open -= 1;
        self.taint_last_end = self.step();
    }

    /// Tells whether replies since `tick` may have been anybody's.
    pub(crate) const fn is_tainted_since(&self, tick: u64) -> bool {
        self.taints_open > 0 || self.taint_last_end > tick
    }

    /// From here on an error is a failure.
    pub(crate) const fn stop_forgiving(&mut self) {
        self.forgives_before = self.step();
    }

    pub(crate) const fn tick(&self) -> u64 {
        self.tick
    }

    /// Returns the number that the next request of `client` will have.
    pub(crate) fn next_seq(&self, client: u32) -> u64 {
        self.requests[client as usize].len() as u64
    }

    /// A client sent a request; its number is the one that [`Checker::next_seq`] told.
    pub(crate) fn sent(&mut self, now: Instant, asker: Asker, link: usize, request: Request) {
        let sent = self.step();
        let Request { ask, keys, tagged, .. } = request;
        let applied = vec![None; keys.len()];
        let fate = Fate::Waiting;
        self.requests[asker.client as usize].push(Record {
            ask,
            keys,
            pool: asker.pool,
            link,
            sent,
            sent_at: now,
            fate,
            tagged,
            applied,
            is_overtaken: false,
        });
    }

    /// The connection ended before the reply.
    pub(crate) fn lost(&mut self, client: u32, seq: u64) {
        self.lost += 1;
        self.requests[client as usize][seq as usize].fate = Fate::Lost;
    }

    /// Returns the connection on which the request that a made-up key names waits, if it does.
    pub(crate) fn waiting_link(&self, key: &[u8]) -> Option<usize> {
        let tag = synthetic_tag(key)?;
        let record = self.requests.get(tag.client as usize)?.get(tag.seq as usize)?;
        (record.fate == Fate::Waiting).then_some(record.link)
    }

    /// What the request asks.
    pub(crate) fn ask(&self, client: u32, seq: u64) -> Ask {
        self.requests[client as usize][seq as usize].ask
    }

    /// A server executed a command on one key.
    pub(crate) fn effect(
        &mut self,
        server: usize,
        pool: usize,
        key: &[u8],
        change: &Change<'_>,
    ) -> Check {
        self.effects += 1;
        let tick = self.step();
        self.histories.effect(tick, server, pool, key, change)?;
        let Change::Wrote { argument, after } = change else { return Ok(()) };
        let Some(tag) = Tag::parse(argument) else { return Ok(()) };
        self.apply(tick, tag, server, key, after.len)
    }

    /// The write that `tag` names has taken effect.
    fn apply(&mut self, tick: u64, tag: Tag, server: usize, key: &[u8], len: usize) -> Check {
        let name = || format!("write {} of client {}", tag.seq, tag.client);
        let record = self
            .requests
            .get_mut(tag.client as usize)
            .and_then(|list| list.get_mut(tag.seq as usize));
        let Some(record) = record else { return Err(format!("{} was never sent", name())) };
        let Some(applied) = record.applied.get_mut(tag.index) else {
            return Err(format!("{} has no value {}", name(), tag.index));
        };
        if record.keys[tag.index] != key {
            return Err(format!("{} landed on another key", name()));
        }
        if record.ask == Ask::Torn {
            return Err(format!("{} took effect but was never sent whole", name()));
        }
        if applied.is_some() {
            return Err(format!("{} took effect twice", name()));
        }
        *applied = Some(Applied { tick, server, len });
        let place = (tag.seq, tag.index);
        let last = self.order.entry((tag.client, server, key.to_vec())).or_insert(place);
        if *last > place {
            record.is_overtaken = true;
        } else {
            *last = place;
        }
        Ok(())
    }

    /// A client got a reply to its request.
    pub(crate) fn reply(&mut self, client: u32, seq: u64, reply: &Reply) -> Check {
        let tick = self.step();
        let record = &mut self.requests[client as usize][seq as usize];
        assert_eq!(record.fate, Fate::Waiting, "a request is answered once");
        let sent = record.sent;
        let ask = record.ask;
        if let Reply::Error(text) = reply {
            record.fate = Fate::Failed;
            self.errors += 1;
            if ask == Ask::Garbage || self.is_tainted_since(sent) || sent < self.forgives_before {
                return Ok(());
            }
            let text = text.escape_ascii();
            return Err(format!("client {client} request {seq} {ask:?} got the error '{text}'"));
        }
        record.fate = Fate::Succeeded;
        self.replies += 1;
        if self.is_tainted_since(sent) {
            // Whose reply this is, nobody can know.
            self.requests[client as usize][seq as usize].fate = Fate::Failed;
            return Ok(());
        }
        self.judge(client, seq, reply, tick).map_err(|why| {
            let keys: Vec<String> = self.requests[client as usize][seq as usize]
                .keys
                .iter()
                .map(|key| key.escape_ascii().to_string())
                .collect();
            format!("client {client} request {seq} {ask:?} {keys:?} got {reply:?}: {why}")
        })
    }

    fn judge(&mut self, client: u32, seq: u64, reply: &Reply, tick: u64) -> Check {
        let record = &self.requests[client as usize][seq as usize];
        let (sent, pool) = (record.sent, record.pool);
        let touches = !matches!(record.ask, Ask::Verb(Verb::Ping) | Ask::Auth);
        for key in record.keys.iter().filter(|_| touches) {
            self.histories.check_touched(pool, key, sent)?;
        }
        match (record.ask, reply) {
            (Ask::Auth, Reply::Status(text)) if text == b"OK" => Ok(()),
            (Ask::Verb(Verb::Ping), Reply::Status(text)) if text == b"PONG" => Ok(()),
            (Ask::Verb(Verb::Get), Reply::Bulk(value)) => {
                self.judge_value(client, &record.keys[0], value.as_deref(), sent, tick)
            }
            (Ask::Verb(Verb::Echo), Reply::Bulk(Some(value))) => {
                if synthetic_value(&record.keys[0]).as_ref() == Some(value) {
                    Ok(())
                } else {
                    Err("the value of another request".into())
                }
            }
            (Ask::Verb(Verb::Mget), Reply::Array(Some(items)))
                if items.len() == record.keys.len() =>
            {
                for (key, item) in record.keys.iter().zip(items) {
                    let Reply::Bulk(value) = item else { return Err("not a value".into()) };
                    self.judge_value(client, key, value.as_deref(), sent, tick)?;
                }
                Ok(())
            }
            (Ask::Verb(Verb::Strlen), Reply::Integer(len)) => {
                let key = &record.keys[0];
                let low = self.floor(client, key, sent);
                let fits = |state: Option<Digest>| {
                    i64::try_from(state.map_or(0, |digest| digest.len)) == Ok(*len)
                };
                self.histories
                    .find(key, &low, tick, fits)
                    .ok_or_else(|| "a length it never had".into())
            }
            (
                Ask::Verb(Verb::Exists | Verb::Del | Verb::Unlink | Verb::Touch),
                Reply::Integer(count),
            ) => self.judge_count(client, seq, *count, tick),
            (Ask::Verb(Verb::Set | Verb::Mset), Reply::Status(text)) if text == b"OK" => {
                self.judge_write(client, seq, None)
            }
            (Ask::Verb(Verb::Append), Reply::Integer(len)) => {
                self.judge_write(client, seq, Some(*len))
            }
            (Ask::Verb(Verb::Incr), Reply::Integer(count)) => {
                self.judge_counter(client, seq, *count, tick)
            }
            _ => Err("a reply of the wrong kind".into()),
        }
    }

    /// Returns the earliest tick, by server, whose state a request of `client` sent at `sent` may
    /// report: not before its own last write there.
    fn floor(&self, client: u32, key: &[u8], sent: u64) -> impl Fn(usize) -> u64 {
        let own = self.floors.get(&(client, key.to_vec()));
        move |server| {
            let own = own.and_then(|own| own.iter().find(|(at, _)| *at == server));
            own.map_or(sent, |(_, tick)| (*tick).max(sent))
        }
    }

    fn judge_value(
        &self,
        client: u32,
        key: &[u8],
        value: Option<&[u8]>,
        sent: u64,
        tick: u64,
    ) -> Check {
        let low = self.floor(client, key, sent);
        let seen = value.map(Digest::of);
        match self.histories.find(key, &low, tick, |state| state == seen) {
            Some(()) => Ok(()),
            None => Err(format!("key {} did not have this value then", key.escape_ascii())),
        }
    }

    fn judge_count(&self, client: u32, seq: u64, count: i64, tick: u64) -> Check {
        let record = &self.requests[client as usize][seq as usize];
        let (mut least, mut most) = (0, 0);
        for key in &record.keys {
            let low = self.floor(client, key, record.sent);
            let may_exist = self.histories.find(key, &low, tick, |state| state.is_some()).is_some();
            let may_miss = self.histories.find(key, &low, tick, |state| state.is_none()).is_some();
            least += i64::from(!may_miss);
            most += i64::from(may_exist);
        }
        // A key that is named twice exists once for DEL; the lower bound is that of TOUCH.
        let distinct = record.keys.iter().collect::<BTreeSet<_>>().len();
        if distinct < record.keys.len() {
            least = 0;
        }
        if (least..=most).contains(&count) {
            return Ok(());
        }
        Err(format!("not within {least}..={most}"))
    }

    /// An answered write has happened, once, in the order of the client's writes.
    fn judge_write(&mut self, client: u32, seq: u64, len: Option<i64>) -> Check {
        let record = &self.requests[client as usize][seq as usize];
        if record.is_overtaken {
            return Err("a later write of the same client took effect before it".into());
        }
        for (index, key) in record.keys.iter().enumerate() {
            match record.applied[index] {
                None if record.tagged[index] => return Err("the write never took effect".into()),
                None => {}
                Some(effect) if len.is_some_and(|len| i64::try_from(effect.len) != Ok(len)) => {
                    return Err(format!("its effect made a length of {}", effect.len));
                }
                Some(effect) => {
                    let floors = self.floors.entry((client, key.clone())).or_default();
                    floors.retain(|(server, _)| *server != effect.server);
                    floors.push((effect.server, effect.tick));
                }
            }
        }
        Ok(())
    }

    fn judge_counter(&mut self, client: u32, seq: u64, count: i64, tick: u64) -> Check {
        let record = &self.requests[client as usize][seq as usize];
        let key = &record.keys[0];
        if !self.histories.counted(key, count, record.sent, tick) {
            return Err("the counter did not reach this value then".into());
        }
        if !self.counts_given.insert((key.clone(), count)) && !self.histories.may_repeat {
            return Err("this count was given to somebody else".into());
        }
        let last = self.counts_seen.insert((client, key.clone()), count);
        if last.is_some_and(|last| last >= count) && !self.histories.may_repeat {
            return Err("counts of one client go backwards".into());
        }
        Ok(())
    }

    /// Tells whether the reply to a request may have at least `least` bytes.
    pub(crate) fn may_be_long(&self, client: u32, seq: u64, least: usize) -> bool {
        let record = &self.requests[client as usize][seq as usize];
        let longest = |key: &Vec<u8>| {
            let made_up = synthetic_value(key).map_or(0, |value| value.len());
            // What stands around it: memcached repeats the key.
            made_up.max(self.histories.longest(key)) + 64 + key.len()
        };
        let reads = matches!(record.ask, Ask::Verb(Verb::Get | Verb::Echo | Verb::Mget));
        reads && record.keys.iter().map(longest).sum::<usize>() >= least
    }

    /// The last fault is over.
    pub(crate) const fn mark_healed(&mut self) {
        self.healed = self.step();
    }

    /// No request may wait longer than `limit` on a connection that is `sound`.
    pub(crate) fn check_timely(
        &self,
        now: Instant,
        limit: Duration,
        sound: impl Fn(usize) -> bool,
    ) -> Check {
        for (client, list) in self.requests.iter().enumerate() {
            for (seq, record) in list.iter().enumerate() {
                let is_late = record.fate == Fate::Waiting && record.sent_at + limit < now;
                if is_late && matches!(record.ask, Ask::Verb(_)) && sound(record.link) {
                    let ask = record.ask;
                    return Err(format!(
                        "client {client} request {seq} {ask:?} has waited longer than {limit:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// No request from the time of the faults may be waiting any more.
    pub(crate) fn check_answered(&self) -> Check {
        for (client, list) in self.requests.iter().enumerate() {
            for (seq, record) in list.iter().enumerate() {
                let is_due = !matches!(record.ask, Ask::Torn | Ask::Garbage);
                if record.fate == Fate::Waiting && is_due && record.sent < self.healed {
                    let ask = record.ask;
                    return Err(format!(
                        "client {client} request {seq} {ask:?} was never answered"
                    ));
                }
            }
        }
        Ok(())
    }
}
