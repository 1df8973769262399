//! Connections between the worker and the servers.

use std::collections::VecDeque;
use std::time::Duration;

use ringkeeper_core::id::ConnId;
use ringkeeper_core::io::{CloseReason, Drive, Endpoint, Input, ShardCondition};
use ringkeeper_core::time::Instant;

use crate::Check;
use crate::codec::{Bytes, Parsed, Reply, encode_reply, parse_request};
use crate::failover::node::{Verdict, is_write};
use crate::failover::world::{NODES, World};

/// One connection.
#[derive(Debug)]
pub(crate) struct Wire {
    pub shard: usize,
    pub node: usize,
    /// When the attempt ends.
    connects_at: Option<Instant>,
    /// On their way to the server.
    pub inbound: Bytes,
    /// On their way back.
    outbound: Bytes,
    writing: Option<Vec<u8>>,
    pub is_closing: bool,
    /// The server's end is gone; in order, or by a reset.
    pub ended: Option<CloseReason>,
    is_eof_told: bool,
    /// A `WAIT` that is not answered: how many copies of how much of the log, and until when.
    waits: VecDeque<(usize, i64, Instant)>,
    /// Length of the log after the last write by this connection.
    written: usize,
}

impl Wire {
    pub(crate) fn transmit(&mut self, buffer: Vec<u8>) -> Check {
        if self.writing.is_some() || self.connects_at.is_some() || self.is_closing {
            return Err("a write that may not be".into());
        }
        self.inbound.push(&buffer);
        self.writing = Some(buffer);
        Ok(())
    }
}

impl World {
    pub(crate) fn connect(&mut self, conn: ConnId, endpoint: &Endpoint) -> Check {
        let Endpoint::Tcp(address) = endpoint else { return Err("a strange address".into()) };
        let std::net::IpAddr::V4(ip) = address.ip() else { return Err("a strange address".into()) };
        let [_, _, shard, node] = ip.octets();
        let delay = Duration::from_nanos(50_000 + self.rng.below(1_500_000));
        let wire = Wire {
            shard: usize::from(shard),
            node: usize::from(node) - 1,
            connects_at: Some(self.now + delay),
            inbound: Bytes::default(),
            outbound: Bytes::default(),
            writing: None,
            is_closing: false,
            ended: None,
            is_eof_told: false,
            waits: VecDeque::new(),
            written: 0,
        };
        self.wires.insert(conn, wire);
        Ok(())
    }

    /// Nothing may leave for a server that is not the master by the newest news, and nothing that
    /// is to wait.
    pub(crate) fn check_fence(&self, conn: ConnId, bytes: &[u8]) -> Check {
        let Some(wire) = self.wires.get(&conn) else { return Ok(()) };
        let told = &self.shards[wire.shard];
        let mut rest = bytes;
        let mut has_write = false;
        while let Parsed::Whole(words, taken) = parse_request(rest) {
            has_write |= is_write(&words[0]);
            rest = &rest[taken..];
        }
        if wire.node != told.told_node {
            return Err(format!("{} was written to a former master", bytes.escape_ascii()));
        }
        match told.condition {
            ShardCondition::Serving => Ok(()),
            ShardCondition::Suspected | ShardCondition::Moving => {
                Err(format!("{} was not held", bytes.escape_ascii()))
            }
            ShardCondition::Fenced if has_write || self.setup.is_strict => {
                Err(format!("{} passed a fence", bytes.escape_ascii()))
            }
            ShardCondition::Fenced => Ok(()),
        }
    }

    pub(crate) fn hand_over_wire(&mut self, machine: &mut dyn Drive, conn: ConnId) {
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        if wire.is_closing {
            self.wires.remove(&conn);
            return machine.handle(now, Input::Closed { conn, reason: CloseReason::Requested });
        }
        if let Some(at) = wire.connects_at {
            if at > now {
                return;
            }
            wire.connects_at = None;
            let (shard, node) = (wire.shard, wire.node);
            if let Some(reason) = self.refusal(shard, node) {
                self.wires.remove(&conn);
                return machine.handle(now, Input::Closed { conn, reason });
            }
            return machine.handle(now, Input::Connected { conn, local: None });
        }
        if wire.writing.is_some() && self.rng.is_one_in(1, 2) {
            let buffer = wire.writing.take().unwrap_or_default();
            return machine.handle(now, Input::Sent { conn, buffer });
        }
        let is_reset = wire.ended == Some(CloseReason::Reset);
        if is_reset && self.rng.is_one_in(1, 2) {
            wire.outbound.clear();
        }
        if !wire.outbound.is_empty() {
            let most = wire.outbound.len();
            let len = if self.rng.is_one_in(1, 2) {
                most
            } else {
                1 + self.rng.below(most as u64) as usize
            };
            let bytes = wire.outbound.as_slice()[..len].to_vec();
            wire.outbound.skip(len);
            return machine.handle(now, Input::Received { conn, bytes: &bytes });
        }
        match wire.ended {
            Some(CloseReason::Reset) => {
                self.wires.remove(&conn);
                machine.handle(now, Input::Closed { conn, reason: CloseReason::Reset });
            }
            Some(_) if !wire.is_eof_told => {
                wire.is_eof_told = true;
                machine.handle(now, Input::Eof { conn });
            }
            Some(_) | None => {}
        }
    }

    /// Lets every server that runs do something.
    pub(crate) fn work_nodes(&mut self) -> Check {
        let conns: Vec<ConnId> = self.wires.keys().copied().collect();
        for conn in conns {
            if self.rng.is_one_in(2, 3) {
                self.work(conn).map_err(|what| self.at(&what))?;
            }
        }
        Ok(())
    }

    fn work(&mut self, conn: ConnId) -> Check {
        let Some(wire) = self.wires.get_mut(&conn) else { return Ok(()) };
        let (shard, at) = (wire.shard, wire.node);
        let node = &mut self.nodes[shard][at];
        if node.is_dead || node.is_hung || wire.ended.is_some() || wire.connects_at.is_some() {
            return Ok(());
        }
        // What has not arrived by the time that the worker closes is lost.
        if wire.is_closing && self.rng.is_one_in(1, 2) {
            wire.inbound.clear();
        }
        for _ in 0..=self.rng.below(6) {
            self.answer_waits(conn);
            let Some(wire) = self.wires.get_mut(&conn) else { return Ok(()) };
            if !wire.waits.is_empty() {
                return Ok(());
            }
            let Parsed::Whole(words, taken) = parse_request(wire.inbound.as_slice()) else {
                return Ok(());
            };
            let node = &mut self.nodes[shard][at];
            let before = node.log.len();
            match node.execute(self.now, &words)? {
                Verdict::Later => return Ok(()),
                Verdict::Reply(reply) => {
                    wire.inbound.skip(taken);
                    let mut bytes = Vec::new();
                    encode_reply(&reply, &mut bytes);
                    wire.outbound.push(&bytes);
                    if node.log.len() > before {
                        wire.written = node.log.len();
                    }
                    let written = node.log[before..].to_vec();
                    let is_current = self.shards[shard].master == at;
                    for op in written {
                        self.judge.executed(shard, &op, is_current)?;
                    }
                }
                Verdict::Wait { copies, until } => {
                    wire.inbound.skip(taken);
                    wire.waits.push_back((wire.written, copies, until));
                }
            }
        }
        Ok(())
    }

    fn answer_waits(&mut self, conn: ConnId) {
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        let Some((written, copies, until)) = wire.waits.front().copied() else { return };
        let shard = &self.shards[wire.shard];
        let is_current = shard.master == wire.node;
        let nodes = &self.nodes[wire.shard];
        let has = |node: usize| {
            let of = &nodes[node];
            let follows = is_current && node != wire.node && !of.is_master && !of.is_dead;
            follows && of.log.len() >= written
        };
        let count = (0..NODES).filter(|node| has(*node)).count() as i64;
        if count >= copies || self.now >= until {
            wire.waits.pop_front();
            let mut bytes = Vec::new();
            encode_reply(&Reply::Integer(count), &mut bytes);
            wire.outbound.push(&bytes);
        }
    }
}
