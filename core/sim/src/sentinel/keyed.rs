//! What clients of proxies see of a server: keys, `WAIT`, and writes that are put off.
//!
//! The history of a server is a list of writes, each one word: `A=key=id` appends the write's name
//! to a key, `S=key=id` replaces it. So a value tells every write that made it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringkeeper_core::time::Instant;

use super::process::{Conn, Context, command};
use super::server::{Server, Use, word};
use crate::codec::Reply;
use crate::stack::judge::Judge;

/// Something that waits may be over.
pub(super) const ALARM_KEYED: u64 = 4;

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocked {
    /// Up to where of the history.
    offset: u64,
    copies: usize,
    until: Instant,
}

/// Keys and values of a server, as far as they have been worked out.
#[derive(Default)]
pub(crate) struct Keyed {
    values: BTreeMap<String, String>,
    /// Writes of the history that `values` has.
    folded: usize,
    /// Until when writes are put off.
    paused_until: Option<Instant>,
    /// Who judges what is executed.
    pub judge: Option<Rc<RefCell<Judge>>>,
}

impl Keyed {
    pub(super) fn started(&mut self) {
        self.paused_until = None;
        self.forget();
    }

    /// The history is another one.
    pub(super) fn forget(&mut self) {
        self.values.clear();
        self.folded = 0;
    }

    /// Tells whether a command has to wait until writes are let through again.
    pub(super) fn postpones(&self, words: &[&[u8]], now: Instant) -> bool {
        let is_write = || {
            let name = word(words, 0).to_ascii_uppercase();
            matches!(name.as_str(), "SET" | "APPEND" | "PUBLISH")
        };
        self.paused_until.is_some_and(|until| now < until) && is_write()
    }

    pub(super) fn promoted(&self, address: SocketAddr) {
        if let Some(judge) = &self.judge {
            judge.borrow_mut().promoted(address);
        }
    }

    fn fold(&mut self, data: &[String]) {
        if data.len() < self.folded {
            self.forget();
        }
        for write in &data[self.folded..] {
            let mut parts = write.splitn(3, '=');
            let (Some(how), Some(key), Some(id)) = (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let value = self.values.entry(key.to_owned()).or_default();
            if how == "S" {
                value.clear();
            }
            value.push_str(id);
            value.push(';');
        }
        self.folded = data.len();
    }
}

impl Server {
    fn value(&mut self, key: &str) -> Reply {
        self.keyed.fold(&self.data);
        let value = self.keyed.values.get(key).cloned().unwrap_or_default();
        Reply::Bulk(Some(value.into_bytes()))
    }

    pub(super) fn execute_keyed(
        &mut self,
        conn: Conn,
        name: &str,
        words: &[&[u8]],
        ctx: &mut Context<'_>,
    ) {
        match name {
            "GET" => {
                let value = self.value(&word(words, 1));
                self.reply(&value);
            }
            "MGET" => {
                let keys = (1..words.len()).map(|at| word(words, at));
                let values = keys.collect::<Vec<_>>().iter().map(|key| self.value(key)).collect();
                self.reply(&Reply::Array(Some(values)));
            }
            "SET" | "APPEND" => {
                let (key, id) = (word(words, 1), word(words, 2));
                if let Some(judge) = &self.keyed.judge {
                    judge.borrow_mut().executed(self.address, &key, &id);
                }
                let how = &name[..1];
                self.write(&format!("{how}={key}={id}"), ctx);
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.written = self.offset;
                }
                if name == "SET" {
                    return self.status("OK");
                }
                let Reply::Bulk(Some(value)) = self.value(&key) else { return };
                self.reply(&Reply::Integer(value.len() as i64));
            }
            "WAIT" => self.wait(conn, words, ctx),
            _ => self.error("ERR unknown command"),
        }
    }

    fn wait(&mut self, conn: Conn, words: &[&[u8]], ctx: &mut Context<'_>) {
        let copies = word(words, 1).parse().unwrap_or(0);
        let time = Duration::from_millis(word(words, 2).parse().unwrap_or(0));
        let Some(client) = self.clients.get(&conn) else { return };
        let offset = client.written;
        let count = self.copies(offset);
        if count >= copies {
            return self.reply(&Reply::Integer(count as i64));
        }
        let blocked = Blocked { offset, copies, until: ctx.now + time };
        if let Some(client) = self.clients.get_mut(&conn) {
            client.blocked = Some(blocked);
        }
        self.ask_copies(ctx);
        ctx.wake_in(time, ALARM_KEYED);
    }

    /// Asks the replicas how far they are; not while writes are put off, so that the history ends.
    fn ask_copies(&mut self, ctx: &mut Context<'_>) {
        let is_paused = self.keyed.paused_until.is_some_and(|until| ctx.now < until);
        if !is_paused && self.clients.values().any(|client| client.blocked.is_some()) {
            self.replicate(&["REPLCONF", "GETACK", "*"], ctx);
        }
    }

    /// Counts replicas that have said that they are so far.
    fn copies(&self, offset: u64) -> usize {
        let is_there = |kind: &Use| match kind {
            Use::Replica { acknowledged, .. } => *acknowledged >= offset,
            Use::Normal | Use::PubSub => false,
        };
        self.clients.values().filter(|client| is_there(&client.kind)).count()
    }

    /// Tells the master how far we are.
    pub(super) fn acknowledge(&self, ctx: &mut Context<'_>) {
        if let Some(conn) = self.upstream_conn() {
            ctx.send(conn, command(&["REPLCONF", "ACK", &self.offset.to_string()]));
        }
    }

    /// Replicas have more than before, or time has passed.
    pub(super) fn count_copies(&mut self, ctx: &mut Context<'_>) {
        let waiting = self.clients.iter().filter_map(|(conn, one)| Some((*conn, one.blocked?)));
        for (conn, blocked) in waiting.collect::<Vec<_>>() {
            let count = self.copies(blocked.offset);
            if count < blocked.copies && ctx.now < blocked.until {
                continue;
            }
            if let Some(client) = self.clients.get_mut(&conn) {
                client.blocked = None;
            }
            ctx.send(conn, format!(":{count}\r\n").into_bytes());
            self.serve_all(conn, ctx);
        }
    }

    /// Somebody else is the master: whoever waits is told, and let go.
    pub(super) fn unblock_all(&mut self, ctx: &mut Context<'_>) {
        self.clients.retain(|conn, client| {
            if client.blocked.is_none() {
                return true;
            }
            let text = "-UNBLOCKED force unblock from blocking operation, instance state changed \
                        (master -> replica?)\r\n";
            ctx.send(*conn, text.as_bytes().to_vec());
            ctx.close(*conn);
            false
        });
    }

    /// Puts writes off, or lets them through again.
    pub(super) fn pause_or_not(&mut self, what: &str, words: &[&[u8]], ctx: &mut Context<'_>) {
        match what {
            "PAUSE" => {
                if let Some(judge) = &self.keyed.judge {
                    judge.borrow_mut().note(format!("{} is paused", self.address));
                }
                let time = Duration::from_millis(word(words, 2).parse().unwrap_or(0));
                self.keyed.paused_until = Some(ctx.now + time);
                ctx.wake_in(time, ALARM_KEYED);
            }
            "UNPAUSE" => {
                self.keyed.paused_until = None;
                // After the reply to this one, which stands in the way.
                ctx.wake_in(Duration::ZERO, ALARM_KEYED);
            }
            _ => {}
        }
    }

    /// Looks again at everybody who waits for something.
    pub(super) fn look_again(&mut self, ctx: &mut Context<'_>) {
        self.count_copies(ctx);
        self.ask_copies(ctx);
        for conn in self.clients.keys().copied().collect::<Vec<_>>() {
            self.serve_all(conn, ctx);
        }
    }
}
