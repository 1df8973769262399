//! Model servers: one shard's master and its replicas, with replication that lags.

use std::collections::BTreeMap;

use ringkeeper_core::time::Instant;

use crate::codec::Reply;

/// A write: who sent it and its number among his requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WriteId {
    pub client: usize,
    pub seq: u64,
}

impl WriteId {
    pub(crate) fn text(self) -> Vec<u8> {
        format!("{}.{};", self.client, self.seq).into_bytes()
    }

    /// Reads every write that a value names.
    pub(crate) fn parse_all(value: &[u8]) -> Vec<Self> {
        let text = String::from_utf8_lossy(value);
        let parse = |part: &str| {
            let (client, seq) = part.split_once('.')?;
            Some(Self { client: client.parse().ok()?, seq: seq.parse().ok()? })
        };
        text.split_terminator(';').filter_map(parse).collect()
    }
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub key: Vec<u8>,
    pub id: WriteId,
    /// It replaced what was there.
    pub is_set: bool,
}

/// One server.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub is_dead: bool,
    pub is_hung: bool,
    /// Takes writes, whatever others think of it.
    pub is_master: bool,
    /// Writes are put off, as by CLIENT PAUSE.
    pub is_paused: bool,
    pub log: Vec<Op>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a server does with a request.
pub(crate) enum Verdict {
    Reply(Reply),
    /// Nothing yet, and nothing behind it either.
    Later,
    /// Answer when so many replicas have the log, or at this moment.
    Wait {
        copies: i64,
        until: Instant,
    },
}

impl Node {
    pub(crate) fn apply(&mut self, op: Op) {
        let value = self.values.entry(op.key.clone()).or_default();
        if op.is_set {
            value.clear();
        }
        value.extend_from_slice(&op.id.text());
        self.log.push(op);
    }

    /// Becomes a copy of another server.
    pub(crate) fn copy(&mut self, other: &[Op]) {
        if self.log.as_slice() == other {
            return;
        }
        self.log.clear();
        self.values.clear();
        other.iter().for_each(|op| self.apply(op.clone()));
    }

    pub(crate) fn value(&self, key: &[u8]) -> Vec<u8> {
        self.values.get(key).cloned().unwrap_or_default()
    }

    /// Executes a request; what it wrote stands at the end of the log.
    pub(crate) fn execute(&mut self, now: Instant, words: &[Vec<u8>]) -> Result<Verdict, String> {
        let name = words[0].to_ascii_uppercase();
        let is_write = is_write(&name);
        if is_write && self.is_paused && self.is_master {
            return Ok(Verdict::Later);
        }
        if is_write && !self.is_master {
            let text = b"READONLY You can't write against a read only replica.".to_vec();
            return Ok(Verdict::Reply(Reply::Error(text)));
        }
        let read = |node: &Self, key: &Vec<u8>| Reply::Bulk(Some(node.value(key)));
        let reply = match name.as_slice() {
            b"GET" => read(self, &words[1]),
            b"MGET" => Reply::Array(Some(words[1..].iter().map(|key| read(self, key)).collect())),
            b"APPEND" | b"SET" | b"MSET" => {
                for pair in words[1..].chunks(2) {
                    let id = *WriteId::parse_all(&pair[1]).first().ok_or("a value of nobody")?;
                    let is_set = name != b"APPEND";
                    self.apply(Op { key: pair[0].clone(), id, is_set });
                }
                if name == b"APPEND" {
                    Reply::Integer(self.value(&words[1]).len() as i64)
                } else {
                    Reply::Status(b"OK".to_vec())
                }
            }
            b"WAIT" => {
                let number = |at: usize| String::from_utf8_lossy(&words[at]).parse::<u64>();
                let copies = number(1).map_err(|_| "WAIT for what?")? as i64;
                let time = number(2).map_err(|_| "WAIT for how long?")?;
                let until = now + std::time::Duration::from_millis(time);
                return Ok(Verdict::Wait { copies, until });
            }
            _ => return Err(format!("a server was sent {}", name.escape_ascii())),
        };
        Ok(Verdict::Reply(reply))
    }
}

/// Tells whether a command writes.
pub(crate) fn is_write(name: &[u8]) -> bool {
    [&b"APPEND"[..], b"SET", b"MSET"].iter().any(|write| name.eq_ignore_ascii_case(write))
}
