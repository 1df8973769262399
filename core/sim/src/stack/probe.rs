//! Stands at the border of a worker with clients: tells the judge what crosses it, and puts known
//! defects back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{
    AtCapacity, Deadline, Drive, Endpoint, Event, Input, Notice, Output, ShardCondition, ShardNews,
};
use ringkeeper_core::time::Instant;

use super::judge::Judge;
use crate::codec::{Bytes, Parsed, parse_request};

/// A defect to put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A worker does not hear that it may not write any more.
    IgnoresLease,
    /// A worker does not hear that a master was replaced.
    IgnoresSwitch,
    /// A host answers that the address is gone, and keeps it.
    KeepsAddress,
    /// Replicas are not waited for.
    AwaitsNoCopies,
    /// Two clients get each other's replies.
    MixesReplies,
}

/// A worker that is listened to.
pub(crate) struct Probe<D> {
    inner: D,
    host: usize,
    judge: Rc<RefCell<Judge>>,
    mutation: Option<Mutation>,
    /// Servers by connection, and what of a request has left.
    servers: BTreeMap<ConnId, (SocketAddr, Bytes)>,
    /// Taken out of the order.
    later: Option<Output>,
    writes: u64,
    now: Instant,
    /// Bytes that may become the answer to a `WAIT`.
    partial: BTreeMap<ConnId, Vec<u8>>,
}

impl<D: Drive> Probe<D> {
    pub(crate) fn new(
        inner: D,
        host: usize,
        judge: Rc<RefCell<Judge>>,
        mutation: Option<Mutation>,
    ) -> Self {
        judge.borrow_mut().worker_started(host);
        let (servers, now) = (BTreeMap::new(), Instant::START);
        Self {
            inner,
            host,
            judge,
            mutation,
            servers,
            later: None,
            writes: 0,
            now,
            partial: BTreeMap::new(),
        }
    }

    fn is_swallowed(&self, input: &Input<'_>) -> bool {
        let Input::Notice(Notice::Shard(news)) = input else { return false };
        match self.mutation {
            Some(Mutation::IgnoresLease) => news.condition == ShardCondition::Fenced,
            Some(Mutation::IgnoresSwitch) => news.epoch > 0,
            _ => false,
        }
    }

    fn listen(&mut self, input: &Input<'_>) {
        match input {
            Input::Notice(Notice::Shard(news)) => self.judge.borrow_mut().told(self.host, news),
            Input::Closed { conn, .. } => {
                self.servers.remove(conn);
                self.partial.remove(conn);
            }
            _ => {}
        }
    }

    fn passed(&mut self, output: &Output) {
        match output {
            Output::Connect { conn, endpoint: Endpoint::Tcp(to), .. } => {
                self.servers.insert(*conn, (*to, Bytes::default()));
            }
            Output::Transmit { conn, buffer } => {
                let Some((to, bytes)) = self.servers.get_mut(conn) else { return };
                bytes.push(buffer);
                while let Parsed::Whole(words, taken) = parse_request(bytes.as_slice()) {
                    bytes.skip(taken);
                    self.judge.borrow_mut().forwarded(self.host, self.now, *to, &words);
                }
            }
            _ => {}
        }
    }

    /// Two replies that leave one after the other go to each other's clients, now and then.
    fn mix(&mut self, output: Output) -> Output {
        let Output::Transmit { conn, buffer } = output else { return output };
        self.writes += 1;
        if conn.is_server() || !self.writes.is_multiple_of(16) {
            return Output::Transmit { conn, buffer };
        }
        match self.inner.poll_output() {
            Some(Output::Transmit { conn: other, buffer: second }) if !other.is_server() => {
                self.later = Some(Output::Transmit { conn: other, buffer });
                Output::Transmit { conn, buffer: second }
            }
            next => {
                self.later = next;
                Output::Transmit { conn, buffer }
            }
        }
    }

    /// Where nobody has a write, somebody has.
    fn flatter(&mut self, conn: ConnId, bytes: &[u8]) -> Vec<u8> {
        const NOBODY: &[u8] = b":0\r\n";
        let mut all = self.partial.remove(&conn).unwrap_or_default();
        all.extend_from_slice(bytes);
        for at in 0..all.len().saturating_sub(NOBODY.len() - 1) {
            if &all[at..at + NOBODY.len()] == NOBODY {
                all[at + 1] = b'1';
            }
        }
        let kept = (1..NOBODY.len()).rev().find(|len| all.ends_with(&NOBODY[..*len]));
        let tail = all.split_off(all.len() - kept.unwrap_or(0));
        self.partial.insert(conn, tail);
        all
    }

    /// `WAIT` asks for nobody.
    fn hasten(output: &mut Output) {
        const WAIT: &[u8] = b"$4\r\nWAIT\r\n$1\r\n1\r\n";
        if let Output::Transmit { conn, buffer } = output
            && conn.is_server()
        {
            let places = 0..buffer.len().saturating_sub(WAIT.len() - 1);
            let found: Vec<usize> =
                places.filter(|at| &buffer[*at..*at + WAIT.len()] == WAIT).collect();
            for at in found {
                buffer[at + WAIT.len() - 3] = b'0';
            }
        }
    }
}

impl<D: Drive> Drive for Probe<D> {
    fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        self.inner.accept(now, on, peer)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.now = now;
        self.listen(&input);
        if self.is_swallowed(&input) {
            return;
        }
        match (self.mutation, input) {
            (Some(Mutation::IgnoresLease), Input::Notice(Notice::Shard(news))) => {
                let news = ShardNews { valid_until: None, ..news };
                self.inner.handle(now, Input::Notice(Notice::Shard(news)));
            }
            (Some(Mutation::AwaitsNoCopies), Input::Received { conn, bytes })
                if conn.is_server() =>
            {
                let bytes = self.flatter(conn, bytes);
                if !bytes.is_empty() {
                    self.inner.handle(now, Input::Received { conn, bytes: &bytes });
                }
            }
            (_, input) => self.inner.handle(now, input),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.inner.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        let mut output = match self.later.take() {
            Some(output) => output,
            None => self.inner.poll_output()?,
        };
        match self.mutation {
            Some(Mutation::MixesReplies) => output = self.mix(output),
            Some(Mutation::AwaitsNoCopies) => Self::hasten(&mut output),
            _ => {}
        }
        self.passed(&output);
        Some(output)
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.inner.poll_timeout()
    }
}

/// A worker whose events are kept for the case that something goes wrong.
pub(crate) struct Ear<D> {
    inner: D,
    host: usize,
    judge: Rc<RefCell<Judge>>,
}

impl<D: Drive> Ear<D> {
    pub(crate) const fn new(inner: D, host: usize, judge: Rc<RefCell<Judge>>) -> Self {
        Self { inner, host, judge }
    }
}

impl<D: Drive> Drive for Ear<D> {
    fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        self.inner.accept(now, on, peer)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.inner.handle(now, input);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.inner.poll_output()?;
        if let Output::Event(event) = &output {
            if let Event::Check { check, is_up, .. } = event {
                let ill = &mut self.judge.borrow_mut().ill;
                let one = (self.host, check.to_string());
                let _ = if *is_up { ill.remove(&one) } else { ill.insert(one) };
            }
            let line = match event {
                Event::Sentinel { name, message, .. } => format!("{name} {message}"),
                other => format!("{other:?}"),
            };
            self.judge.borrow_mut().note(format!("host {}: {line}", self.host));
        }
        Some(output)
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.inner.poll_timeout()
    }
}
