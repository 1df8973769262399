//! What clients of shards that fail over may see.

use std::collections::{BTreeMap, BTreeSet};

use crate::Check;
use crate::codec::Reply;
use crate::failover::Setup;
use crate::failover::node::{Op, WriteId};

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Mget,
    Append,
    Set,
    Mset,
}

/// A request and what became of it.
#[derive(Debug)]
pub(crate) struct Record {
    pub verb: Verb,
    pub keys: Vec<Vec<u8>>,
    /// Its reply, if it came: whether it was a success.
    pub fate: Option<Fate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    /// An error said that it was not sent, or a server refused it.
    NotSent,
    Unknown,
    /// Another error.
    Failed,
}

/// The judge.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// By client.
    pub records: Vec<Vec<Record>>,
    /// How often each write was executed.
    executed: BTreeMap<WriteId, u64>,
    /// When each write was executed for the first time, by key.
    begun: BTreeMap<(WriteId, Vec<u8>), u64>,
    /// Writes that a master had and its successor has not.
    lost: BTreeSet<WriteId>,
    /// Writes that a read of the same client saw that was sent before them: it was sent again.
    foreseen: BTreeSet<WriteId>,
    tick: u64,
    may_repeat_sets: bool,
    may_fail: bool,
    keeps_acknowledged: bool,
    /// The shard of each key.
    homes: BTreeMap<Vec<u8>, usize>,
    pub counts: [u64; 4],
}

impl Judge {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            may_repeat_sets: setup.is_idempotent,
            may_fail: !setup.is_planned,
            keeps_acknowledged: setup.is_replicated,
            ..Self::default()
        }
    }

    /// A master executed a write.
    pub(crate) fn executed(&mut self, shard: usize, op: &Op, is_current: bool) -> Check {
        self.tick += 1;
        let home = *self.homes.entry(op.key.clone()).or_insert(shard);
        if home != shard {
            return Err(format!("key {} has moved", op.key.escape_ascii()));
        }
        self.begun.entry((op.id, op.key.clone())).or_insert(self.tick);
        let count = self.executed.entry(op.id).or_insert(0);
        *count += 1;
        let record = &self.records[op.id.client][op.id.seq as usize];
        let most = record.keys.len() as u64;
        let may_repeat = self.may_repeat_sets && record.verb != Verb::Append;
        if *count > most && !may_repeat {
            return Err(format!("{:?} was executed {count} times", op.id));
        }
        if !is_current {
            self.lost.insert(op.id);
        }
        Ok(())
    }

    /// A master was replaced.
    pub(crate) fn replaced(&mut self, old: &[Op], new: &[Op]) {
        let kept: BTreeSet<WriteId> = new.iter().map(|op| op.id).collect();
        self.lost.extend(old.iter().map(|op| op.id).filter(|id| !kept.contains(id)));
    }

    /// A client got a reply.
    pub(crate) fn replied(&mut self, client: usize, seq: u64, reply: &Reply) -> Check {
        let Record { verb, keys, .. } = &self.records[client][seq as usize];
        let (verb, keys) = (*verb, keys.clone());
        let fate = match (verb, reply) {
            (_, Reply::Error(text)) => self.judge_error(verb, text)?,
            (Verb::Get, Reply::Bulk(Some(value))) => {
                self.judge_value(client, seq, &keys[0], value)?;
                Fate::Done
            }
            (Verb::Mget, Reply::Array(Some(items))) if items.len() == keys.len() => {
                for (key, item) in keys.iter().zip(items) {
                    let Reply::Bulk(Some(value)) = item else {
                        return Err("a strange item".into());
                    };
                    self.judge_value(client, seq, key, value)?;
                }
                Fate::Done
            }
            (Verb::Append, Reply::Integer(_)) => Fate::Done,
            (Verb::Set | Verb::Mset, Reply::Status(text)) if text == b"OK" => Fate::Done,
            _ => return Err(format!("a {verb:?} was answered {reply:?}")),
        };
        let id = WriteId { client, seq };
        let is_write = !matches!(verb, Verb::Get | Verb::Mget);
        if fate == Fate::Done && is_write && !self.executed.contains_key(&id) {
            return Err(format!("{id:?} was acknowledged and never executed"));
        }
        self.counts[fate as usize] += 1;
        self.records[client][seq as usize].fate = Some(fate);
        Ok(())
    }

    fn judge_error(&self, verb: Verb, text: &[u8]) -> Result<Fate, String> {
        let words = String::from_utf8_lossy(text);
        if !self.may_fail {
            return Err(format!("a {verb:?} failed in a planned failover: {words}"));
        }
        let is_read = matches!(verb, Verb::Get | Verb::Mget);
        if words.starts_with("MASTERDOWN") || words.starts_with("READONLY") {
            return Ok(Fate::NotSent);
        }
        if words.starts_with("UNKNOWN") {
            if is_read {
                return Err(format!("a read has an unknown outcome: {words}"));
            }
            return Ok(Fate::Unknown);
        }
        if !is_read && !words.contains("was not sent") {
            return Err(format!("a write has an outcome that is not known: {words}"));
        }
        Ok(if is_read { Fate::Failed } else { Fate::NotSent })
    }

    /// A value has nobody's writes in another order than they were sent, and everything of its
    /// reader's that he was told of.
    fn judge_value(&mut self, client: usize, seq: u64, key: &[u8], value: &[u8]) -> Check {
        let writes = WriteId::parse_all(value);
        let mut last: BTreeMap<usize, u64> = BTreeMap::new();
        for id in &writes {
            if last.insert(id.client, id.seq).is_some_and(|before| before >= id.seq) {
                return Err(format!("writes of client {} are out of order", id.client));
            }
            if id.client == client && id.seq > seq {
                self.foreseen.insert(*id);
            }
        }
        let own = self.records[client][..seq as usize].iter().enumerate().rev();
        let is_told = |record: &Record| {
            let is_write = !matches!(record.verb, Verb::Get | Verb::Mget);
            is_write && record.fate == Some(Fate::Done) && record.keys.iter().any(|of| of == key)
        };
        let Some((at, _)) = own.into_iter().find(|(_, record)| is_told(record)) else {
            return Ok(());
        };
        let id = WriteId { client, seq: at as u64 };
        if writes.contains(&id) || self.lost.contains(&id) {
            return Ok(());
        }
        let when = |id: &WriteId| self.begun.get(&(*id, key.to_vec())).copied().unwrap_or(0);
        let is_replaced = writes.first().is_some_and(|first| when(first) >= when(&id));
        if is_replaced || self.may_repeat_sets {
            return Ok(());
        }
        let verb = |seq: u64| self.records[client][seq as usize].verb;
        let what = (verb(seq), verb(id.seq), when(&id), writes.first().map(when));
        let value = value.escape_ascii();
        let key = key.escape_ascii();
        Err(format!(
            "client {client} request {seq} for {key} does not see its own {id:?} in {value}: {what:?}"
        ))
    }

    /// The run is over: nothing waits, nothing that was not sent has happened, and nothing that was
    /// promised to be kept is lost.
    pub(crate) fn judge_end(&self) -> Check {
        for (client, records) in self.records.iter().enumerate() {
            for (seq, record) in (0..).zip(records) {
                let id = WriteId { client, seq };
                let what = format!("{id:?} {:?}", record.verb);
                match record.fate {
                    None => return Err(format!("{what} was never answered")),
                    // Reads that are sent again may see what was under way behind them.
                    Some(fate)
                        if self.foreseen.contains(&id)
                            && fate != Fate::Unknown
                            && !self.may_repeat_sets =>
                    {
                        return Err(format!("{what} was seen by a read that was sent before it"));
                    }
                    // Of a split write one part may be sent and the other not.
                    Some(Fate::NotSent)
                        if record.verb != Verb::Mset && self.executed.contains_key(&id) =>
                    {
                        return Err(format!("{what} was said not to be sent and took effect"));
                    }
                    Some(Fate::Done) if self.keeps_acknowledged && self.lost.contains(&id) => {
                        return Err(format!("{what} was acknowledged and is lost"));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }
}
