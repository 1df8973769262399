//! A client that knows nothing but the address that moves.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringkeeper_core::time::Instant;

use super::judge::{Id, Judge, Verb};
use crate::codec::{Bytes, Parsed, encode_request, parse_reply};
use crate::sentinel::process::{Conn, Context, Happening};
use crate::sentinel::world::Guest;

/// How long a client waits for a connection.
const CONNECT: Duration = Duration::from_secs(1);

/// How long a client waits for a reply: longer than the hold and a time-out together.
const PATIENCE: Duration = Duration::from_secs(9);

/// Requests without a reply that one client may have.
const PENDING_MAX: usize = 16;

const ALARM_TURN: u64 = 1;

/// What all clients do at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// They ask.
    Busy,
    /// They wait for what they are owed.
    Quiet,
}

pub(crate) struct Client {
    number: u64,
    to: SocketAddr,
    pace: Rc<Cell<Pace>>,
    judge: Rc<RefCell<Judge>>,
    conn: Option<Conn>,
    since: Instant,
    is_open: bool,
    /// Connections so far.
    conns: u64,
    seq: u64,
    pending: VecDeque<Id>,
    input: Bytes,
}

impl Client {
    pub(crate) fn new(
        number: u64,
        to: SocketAddr,
        pace: Rc<Cell<Pace>>,
        judge: Rc<RefCell<Judge>>,
    ) -> Self {
        Self {
            number,
            to,
            pace,
            judge,
            conn: None,
            since: Instant::START,
            is_open: false,
            conns: 0,
            seq: 0,
            pending: VecDeque::new(),
            input: Bytes::default(),
        }
    }

    fn turn(&mut self, ctx: &mut Context<'_>) {
        let most = if ctx.rng.is_one_in(1, 6) { 250_000_000 } else { 50_000_000 };
        let after = Duration::from_nanos(1_000_000 + ctx.rng.below(most));
        ctx.wake_in(after, ALARM_TURN);
        let Some(conn) = self.conn else {
            self.conn = Some(ctx.connect(self.to));
            self.since = ctx.now;
            self.conns += 1;
            return;
        };
        let waits = self.pending.front().map(|id| self.judge.borrow().waits(*id));
        let is_late = waits.is_some_and(|time| time > PATIENCE);
        if is_late || !self.is_open && ctx.now.since(self.since) > CONNECT {
            ctx.close(conn);
            return self.gone();
        }
        if self.is_open && self.pace.get() == Pace::Busy {
            let mut bytes = Vec::new();
            for _ in 0..=ctx.rng.below(3) {
                if self.pending.len() < PENDING_MAX {
                    self.ask(&mut bytes, ctx);
                }
            }
            if !bytes.is_empty() {
                ctx.send(conn, bytes);
            }
        }
    }

    fn ask(&mut self, bytes: &mut Vec<u8>, ctx: &mut Context<'_>) {
        let id = Id { client: self.number, seq: self.seq, conn: self.conns };
        self.seq += 1;
        let place = ctx.rng.below(4);
        // Values stay short: there are other keys every second.
        let second = ctx.now.since(Instant::START).as_secs();
        let own = format!("p{second}.{}.{}", self.number, place % 2);
        let shared = format!("a{second}.{place}");
        let (verb, name, keys) = match ctx.rng.below(10) {
            0..3 => (Verb::Append, "APPEND", vec![shared]),
            3 => (Verb::Append, "APPEND", vec![own]),
            4 => (Verb::Set, "SET", vec![format!("s{place}")]),
            5 => (Verb::Get, "GET", vec![own]),
            6 => (Verb::Get, "GET", vec![format!("s{place}")]),
            7 | 8 => (Verb::Get, "GET", vec![shared]),
            _ => (Verb::Mget, "MGET", vec![shared, own, format!("s{place}")]),
        };
        let mut words = vec![name.as_bytes().to_vec()];
        words.extend(keys.iter().map(|key| key.as_bytes().to_vec()));
        if verb.is_write() {
            words.push(id.text().into_bytes());
        }
        encode_request(&words, bytes);
        self.judge.borrow_mut().asked(id, verb, keys);
        self.pending.push_back(id);
    }

    fn received(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
        while !self.input.is_empty() {
            match parse_reply(self.input.as_slice()) {
                Parsed::Whole(reply, taken) => {
                    self.input.skip(taken);
                    let mut judge = self.judge.borrow_mut();
                    match self.pending.pop_front() {
                        Some(id) => judge.replied(id, &reply),
                        None => {
                            let what = format!("client {} is told {reply:?}", self.number);
                            judge.broken(what);
                        }
                    }
                }
                Parsed::Needs(_) => return,
                Parsed::Broken(why) => {
                    let what = format!("client {} was sent {why}", self.number);
                    return self.judge.borrow_mut().broken(what);
                }
            }
        }
    }

    fn gone(&mut self) {
        self.conn = None;
        self.is_open = false;
        self.input.clear();
        let mut judge = self.judge.borrow_mut();
        for id in std::mem::take(&mut self.pending) {
            judge.cut(id);
        }
    }
}

impl Guest for Client {
    fn handle(&mut self, happening: Happening, ctx: &mut Context<'_>) {
        match happening {
            Happening::Started | Happening::Woken(_) => self.turn(ctx),
            Happening::Connected(conn) if self.conn == Some(conn) => self.is_open = true,
            Happening::Received { conn, bytes } if self.conn == Some(conn) => self.received(&bytes),
            Happening::Gone { conn, .. } if self.conn == Some(conn) => self.gone(),
            Happening::Connected(_)
            | Happening::Received { .. }
            | Happening::Gone { .. }
            | Happening::Accepted { .. }
            | Happening::Sent(_)
            | Happening::Ended(_)
            | Happening::Persisted { .. }
            | Happening::Exited { .. }
            | Happening::Mail(_)
            | Happening::Opened(_)
            | Happening::Datagram { .. } => {}
        }
    }
}

/// Somebody who tells a Sentinel to move a master.
pub(crate) struct Operator {
    /// Whom to ask next, and for which master.
    pub errand: Rc<RefCell<Option<(SocketAddr, String)>>>,
    pub judge: Rc<RefCell<Judge>>,
    pub words: Vec<u8>,
}

impl Guest for Operator {
    fn handle(&mut self, happening: Happening, ctx: &mut Context<'_>) {
        match happening {
            Happening::Started | Happening::Woken(_) => {
                ctx.wake_in(Duration::from_millis(20), ALARM_TURN);
                if let Some((to, shard)) = self.errand.borrow_mut().take() {
                    ctx.connect(to);
                    let words = ["SENTINEL", "FAILOVER", &shard];
                    self.words = crate::sentinel::process::command(&words);
                }
            }
            Happening::Connected(conn) => ctx.send(conn, self.words.clone()),
            Happening::Received { conn, bytes } => {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                self.judge.borrow_mut().note(format!("the operator is told {text}"));
                ctx.close(conn);
            }
            Happening::Gone { .. }
            | Happening::Accepted { .. }
            | Happening::Sent(_)
            | Happening::Ended(_)
            | Happening::Persisted { .. }
            | Happening::Exited { .. }
            | Happening::Mail(_)
            | Happening::Opened(_)
            | Happening::Datagram { .. } => {}
        }
    }
}
