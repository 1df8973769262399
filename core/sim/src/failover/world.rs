//! Everything around the worker, and the loop that moves time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{CloseReason, Drive, Endpoint, Input, Output};
use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;

use crate::Check;
use crate::codec::{Bytes, Parsed, encode_request, parse_reply};
use crate::failover::control::Shard;
use crate::failover::judge::{Judge, Record, Verb};
use crate::failover::node::{Node, WriteId};
use crate::failover::wires::Wire;
use crate::failover::{SHARDS, Setup, Tally};

/// Servers of one shard.
pub(crate) const NODES: usize = 3;
/// How long faults may happen.
const STORM: Duration = Duration::from_secs(3);
/// How long everybody may take afterwards: longer than the hold, a time-out and a connection.
const CALM: Duration = Duration::from_secs(8);
/// Keys that all clients share.
const KEYS: u64 = 12;
/// Requests without a reply that one client may have.
const PENDING_MAX: usize = 24;

pub(crate) struct Client {
    pub conn: ConnId,
    pub pending: VecDeque<u64>,
    pub input: Bytes,
    /// Sent and not yet handed over.
    pub outbound: Bytes,
    pub writing: Option<Vec<u8>>,
}

pub(crate) struct World {
    pub now: Instant,
    pub rng: Rng,
    pub setup: Setup,
    pub shards: Vec<Shard>,
    /// By shard and place.
    pub nodes: Vec<[Node; NODES]>,
    pub wires: BTreeMap<ConnId, Wire>,
    pub clients: Vec<Client>,
    pub judge: Judge,
    pub is_calm: bool,
    pub tally: Tally,
}

impl World {
    pub(crate) fn new(seed: u64, setup: Setup) -> Self {
        let mut nodes: Vec<[Node; NODES]> = SHARDS.iter().map(|_| Default::default()).collect();
        nodes.iter_mut().for_each(|of| of[0].is_master = true);
        let judge = Judge::new(setup);
        Self {
            now: Instant::from_nanos(1),
            rng: Rng::new(seed ^ 0xfa11),
            setup,
            shards: SHARDS.iter().map(|name| Shard::new(name)).collect(),
            nodes,
            wires: BTreeMap::new(),
            clients: Vec::new(),
            judge,
            is_calm: false,
            tally: Tally::default(),
        }
    }

    pub(crate) fn run(&mut self, machine: &mut dyn Drive) -> Result<Tally, String> {
        let clients = 1 + self.rng.below(5);
        for number in 0..clients {
            let peer = Endpoint::Tcp(([192, 168, 0, 1], 20_000 + number as u16).into());
            let conn = machine.accept(self.now, ListenerId(0), peer);
            let conn = conn.map_err(|_| "a client was refused")?;
            let (pending, input) = (VecDeque::new(), Bytes::default());
            let outbound = Bytes::default();
            self.clients.push(Client { conn, pending, input, outbound, writing: None });
            self.judge.records.push(Vec::new());
        }
        for shard in 0..SHARDS.len() {
            self.tell(machine, shard);
        }
        let storm = self.now + STORM;
        while self.now < storm {
            self.step(machine)?;
        }
        self.is_calm = true;
        let calm = self.now + CALM;
        while self.now < calm {
            self.step(machine)?;
        }
        self.judge.judge_end().map_err(|what| self.at(&what))?;
        self.probe(machine)?;
        let [done, not_sent, unknown, failed] = self.judge.counts;
        let requests = self.judge.records.iter().map(|of| of.len() as u64).sum();
        Ok(Tally { requests, done, not_sent, unknown, failed, ..self.tally })
    }

    pub(crate) fn at(&self, what: &str) -> String {
        format!("at {:.6}s: {what}", self.now.since(Instant::START).as_secs_f64())
    }

    /// After everything is well again every request succeeds.
    fn probe(&mut self, machine: &mut dyn Drive) -> Check {
        let failed = self.judge.counts;
        for client in 0..self.clients.len() {
            for _ in 0..8 {
                self.client_asks(client);
            }
        }
        let until = self.now + Duration::from_secs(4);
        while self.now < until {
            self.step(machine)?;
        }
        self.judge.judge_end().map_err(|what| self.at(&what))?;
        if self.judge.counts[1..] != failed[1..] {
            return Err(self.at("requests fail although everything is well again"));
        }
        Ok(())
    }

    fn step(&mut self, machine: &mut dyn Drive) -> Check {
        let most = if self.rng.is_one_in(1, 8) { 4_000_000 } else { 300_000 };
        self.now += Duration::from_nanos(1 + self.rng.below(most));
        if !self.is_calm {
            for client in 0..self.clients.len() {
                if self.rng.is_one_in(1, 6) {
                    for _ in 0..=self.rng.below(4) {
                        self.client_asks(client);
                    }
                }
            }
        }
        self.govern(machine);
        for shard in 0..SHARDS.len() {
            self.replicate(shard);
        }
        self.work_nodes()?;
        self.hand_over(machine)?;
        if machine.poll_timeout().is_some_and(|deadline| deadline.at <= self.now) {
            machine.handle_timeout(self.now);
        }
        while let Some(output) = machine.poll_output() {
            self.apply(output).map_err(|what| self.at(&what))?;
        }
        Ok(())
    }

    fn client_asks(&mut self, client: usize) {
        if self.clients[client].pending.len() >= PENDING_MAX {
            return;
        }
        let seq = self.judge.records[client].len() as u64;
        let verb = [Verb::Get, Verb::Get, Verb::Mget, Verb::Append, Verb::Set, Verb::Mset]
            [self.rng.below(6) as usize];
        let name = match verb {
            Verb::Get => "GET",
            Verb::Mget => "MGET",
            Verb::Append => "APPEND",
            Verb::Set => "SET",
            Verb::Mset => "MSET",
        };
        let count = if matches!(verb, Verb::Mget | Verb::Mset) { 3 } else { 1 };
        let mut words = vec![name.as_bytes().to_vec()];
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let first = self.rng.below(KEYS);
        for nth in 0..count {
            let key = format!("k{}", (first + nth * 5) % KEYS).into_bytes();
            words.push(key.clone());
            if !matches!(verb, Verb::Get | Verb::Mget) {
                words.push(WriteId { client, seq }.text());
            }
            keys.push(key);
        }
        let mut bytes = Vec::new();
        encode_request(&words, &mut bytes);
        self.judge.records[client].push(Record { verb, keys, fate: None });
        self.clients[client].pending.push_back(seq);
        self.clients[client].outbound.push(&bytes);
    }

    /// Hands over what has come, in any order and in any pieces.
    fn hand_over(&mut self, machine: &mut dyn Drive) -> Check {
        for client in 0..self.clients.len() {
            let own = &mut self.clients[client];
            if own.writing.is_some() && self.rng.is_one_in(1, 2) {
                let buffer = own.writing.take().unwrap_or_default();
                machine.handle(self.now, Input::Sent { conn: own.conn, buffer });
            }
            let own = &mut self.clients[client];
            if !own.outbound.is_empty() {
                let len = self.rng.below(own.outbound.len() as u64 + 1) as usize;
                let len = if self.rng.is_one_in(1, 2) { own.outbound.len() } else { len.max(1) };
                let bytes = own.outbound.as_slice()[..len].to_vec();
                own.outbound.skip(len);
                machine.handle(self.now, Input::Received { conn: own.conn, bytes: &bytes });
            }
        }
        let conns: Vec<ConnId> = self.wires.keys().copied().collect();
        for conn in conns {
            if self.rng.is_one_in(2, 3) {
                self.hand_over_wire(machine, conn);
            }
        }
        Ok(())
    }

    fn apply(&mut self, output: Output) -> Check {
        match output {
            Output::Connect { conn, endpoint, .. } => self.connect(conn, &endpoint),
            Output::Transmit { conn, buffer } if conn.is_server() => {
                self.check_fence(conn, &buffer)?;
                let wire = self.wires.get_mut(&conn).ok_or("a write to nobody")?;
                wire.transmit(buffer)
            }
            Output::Transmit { conn, buffer } => self.client_reads(conn, buffer),
            Output::Close { conn, .. } if conn.is_server() => {
                if let Some(wire) = self.wires.get_mut(&conn) {
                    wire.is_closing = true;
                }
                Ok(())
            }
            Output::Close { .. } => Err("a client's connection was closed".into()),
            Output::PauseRead(_) | Output::ResumeRead(_) | Output::Event(_) => Ok(()),
            Output::Notice { .. } => Ok(()),
            other => Err(format!("an output that has no place here: {other:?}")),
        }
    }

    fn client_reads(&mut self, conn: ConnId, buffer: Vec<u8>) -> Check {
        let client = self.clients.iter().position(|client| client.conn == conn);
        let client = client.ok_or("a reply to nobody")?;
        let own = &mut self.clients[client];
        if own.writing.is_some() {
            return Err("two writes in flight".into());
        }
        own.input.push(&buffer);
        own.writing = Some(buffer);
        loop {
            let own = &mut self.clients[client];
            if own.input.is_empty() {
                return Ok(());
            }
            match parse_reply(own.input.as_slice()) {
                Parsed::Whole(reply, taken) => {
                    own.input.skip(taken);
                    let seq = own.pending.pop_front().ok_or("a reply to no request")?;
                    self.judge.replied(client, seq, &reply)?;
                }
                Parsed::Needs(_) => return Ok(()),
                Parsed::Broken(why) => return Err(format!("client {client} was sent {why}")),
            }
        }
    }

    /// Returns why a connection to this server fails, if it does.
    pub(crate) fn refusal(&self, shard: usize, node: usize) -> Option<CloseReason> {
        self.nodes[shard][node].is_dead.then_some(CloseReason::Refused)
    }
}
