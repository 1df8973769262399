//! Encryption between a runtime and a worker.
//!
//! [`Tls`] wraps what is driven and is driven in its place: it shakes hands, decrypts what comes
//! before the worker sees it and encrypts what the worker writes. The worker knows nothing of it,
//! except that `Connected` comes after the handshake. One write per connection is in flight on
//! either side of it, and a connection ends with one `Closed` as the border wants.
//!
//! The time of day and random bytes come from the host with [`Ground`].

mod session;
mod setup;
mod talk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use self::session::{Progress, Session, explain};
pub use self::setup::{BadMaterial, ClientAuth, Ground, Identity, Trust, Versions, client, server};
pub use self::talk::{Talk, anybody};
use crate::buf::BufferPool;
use crate::id::{ConnId, ListenerId};
use crate::io::{
    AtCapacity, CloseMode, CloseReason, Deadline, Drive, Endpoint, Event, Input, Output, Parcel,
};
use crate::limits;
use crate::time::Instant;
use crate::timer::Timers;

/// Which connections are encrypted, and how.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Clients of these listeners, and what they are shown; none is encrypted without it.
    pub clients: Option<(BTreeSet<ListenerId>, Arc<ServerConfig>)>,
    /// All connections that the worker asks for.
    pub servers: Option<Arc<ClientConfig>>,
}

/// A failure that the log was told.
#[derive(Debug)]
struct Told {
    reason: String,
    at: Instant,
}

/// What is driven, with encryption before it.
#[derive(Debug)]
pub struct Tls<D> {
    inner: D,
    plan: Plan,
    now: Instant,
    /// Connections that the worker asked for, where to and for how long at most.
    asked: BTreeMap<ConnId, (Endpoint, Duration)>,
    /// Those that could not begin; the worker will hear that they are closed.
    doomed: BTreeSet<ConnId>,
    sessions: BTreeMap<ConnId, Session>,
    dirty: VecDeque<ConnId>,
    /// Those that wait for their turn to shake hands.
    queue: VecDeque<ConnId>,
    handshakes: usize,
    /// When a handshake has to be done.
    timers: Timers<ConnId>,
    told: BTreeMap<String, Told>,
    out: VecDeque<Output>,
    pool: BufferPool,
    plain: Vec<u8>,
}

impl<D: Drive> Tls<D> {
    /// Puts encryption before a worker.
    pub fn new(inner: D, plan: Plan, now: Instant) -> Self {
        Self {
            inner,
            plan,
            now,
            asked: BTreeMap::new(),
            doomed: BTreeSet::new(),
            sessions: BTreeMap::new(),
            dirty: VecDeque::new(),
            queue: VecDeque::new(),
            handshakes: 0,
            timers: Timers::new(),
            told: BTreeMap::new(),
            out: VecDeque::new(),
            pool: BufferPool::default(),
            plain: Vec::new(),
        }
    }

    /// Returns what is behind the encryption.
    pub const fn inner(&self) -> &D {
        &self.inner
    }

    fn begin(&mut self, conn: ConnId, tls: Connection, session: (Endpoint, Option<SocketAddr>)) {
        let (peer, local) = session;
        self.sessions.insert(conn, Session::new(tls, peer, local));
        self.touch(conn);
    }

    fn touch(&mut self, conn: ConnId) {
        if let Some(session) = self.sessions.get_mut(&conn)
            && !session.is_dirty
        {
            session.is_dirty = true;
            self.dirty.push_back(conn);
        }
    }

    fn connected(&mut self, conn: ConnId, local: Option<SocketAddr>) {
        let asked = self.asked.remove(&conn);
        let Some(((peer, limit), config)) = asked.zip(self.plan.servers.clone()) else {
            self.inner.handle(self.now, Input::Connected { conn, local });
            return;
        };
        // Names are not checked, and of an address nothing is said on the wire.
        let ip = match peer {
            Endpoint::Tcp(address) => address.ip(),
            Endpoint::Unix(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        };
        match ClientConnection::new(config, ServerName::from(ip)) {
            Ok(tls) => {
                self.timers.arm(self.now + limit, conn);
                self.begin(conn, tls.into(), (peer, local));
            }
            Err(error) => {
                self.tell(&peer, true, &explain(&error));
                self.doomed.insert(conn);
                self.out.push_back(Output::Close { conn, mode: CloseMode::Abort });
            }
        }
    }

    /// Takes bytes from the wire in, or has them wait if enough hands were shaken in this turn.
    fn received(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(session) = self.sessions.get_mut(&conn) else {
            self.inner.handle(self.now, Input::Received { conn, bytes });
            return;
        };
        if session.is_shaking_hands() {
            let is_queued = !session.waiting.is_empty();
            if is_queued || self.handshakes >= limits::TLS_HANDSHAKES_PER_TURN {
                if session.waiting.len() + bytes.len() > limits::TLS_WAITING_BYTES_MAX {
                    self.fail(conn, "it sends too much before the handshake is done");
                    return;
                }
                session.waiting.extend_from_slice(bytes);
                if !is_queued {
                    self.queue.push_back(conn);
                }
                return;
            }
            self.handshakes += 1;
        }
        self.decrypt(conn, bytes);
    }

    fn decrypt(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        if !session.is_heard() {
            return;
        }
        let local = session.local;
        let mut plain = std::mem::take(&mut self.plain);
        let read = session.read(bytes, &mut plain);
        if matches!(read, Ok(Progress { is_agreed: true, .. })) && conn.is_server() {
            self.inner.handle(self.now, Input::Connected { conn, local });
        }
        // What was said before a mistake was said.
        if !plain.is_empty() && self.is_heard(conn) {
            self.inner.handle(self.now, Input::Received { conn, bytes: &plain });
        }
        plain.clear();
        plain.shrink_to(limits::RECEIVE_BYTES_MAX);
        self.plain = plain;
        match read {
            Ok(progress) if progress.has_ended => self.ended(conn),
            Ok(_) => {}
            Err(error) => self.fail(conn, &explain(&error)),
        }
        self.touch(conn);
    }

    fn is_heard(&self, conn: ConnId) -> bool {
        self.sessions.get(&conn).is_some_and(Session::is_heard)
    }

    fn is_given_up(&self, conn: ConnId) -> bool {
        let session = self.sessions.get(&conn);
        self.doomed.contains(&conn) || session.is_some_and(|session| !session.is_heard())
    }

    fn eof(&mut self, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(&conn) else {
            self.inner.handle(self.now, Input::Eof { conn });
            return;
        };
        if session.end() {
            self.ended(conn);
        }
    }

    /// Passes on that nothing more comes.
    fn ended(&mut self, conn: ConnId) {
        let Some(session) = self.sessions.get(&conn) else { return };
        if session.is_shaking_hands() {
            // Whoever only looks whether the port is open is not worth a word.
            if conn.is_server() {
                self.fail(conn, "it ends the connection during the handshake");
            } else {
                self.abandon(conn);
            }
        } else if session.is_heard() {
            self.inner.handle(self.now, Input::Eof { conn });
        }
    }

    fn sent(&mut self, conn: ConnId, buffer: crate::buf::Buffer) {
        let Some(session) = self.sessions.get_mut(&conn) else {
            self.inner.handle(self.now, Input::Sent { conn, buffer });
            return;
        };
        self.pool.give(buffer);
        let home = session.sent();
        let is_heard = session.is_heard();
        self.touch(conn);
        if let Some(buffer) = home.filter(|_| is_heard) {
            self.inner.handle(self.now, Input::Sent { conn, buffer });
        }
    }

    fn closed(&mut self, conn: ConnId, reason: CloseReason) {
        self.asked.remove(&conn);
        self.doomed.remove(&conn);
        let session = self.sessions.remove(&conn);
        let reason = session.and_then(|session| session.verdict).unwrap_or(reason);
        self.inner.handle(self.now, Input::Closed { conn, reason });
    }

    /// Ends a connection that cannot go on, and says why.
    fn fail(&mut self, conn: ConnId, reason: &str) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        session.give_up();
        let peer = session.peer.clone();
        self.tell(&peer, conn.is_server(), reason);
        self.touch(conn);
    }

    fn abandon(&mut self, conn: ConnId) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.give_up();
            self.touch(conn);
        }
    }

    /// Tells the log, unless it has just heard the same of the same host.
    fn tell(&mut self, peer: &Endpoint, is_server: bool, reason: &str) {
        let (now, key) = (self.now, shown(peer, is_server));
        let is_known = self
            .told
            .get(&key)
            .is_some_and(|told| told.reason == reason && now.since(told.at) < limits::TLS_SILENCE);
        if is_known {
            return;
        }
        if self.told.len() >= limits::TLS_TOLD_MAX {
            self.told.clear();
        }
        self.told.insert(key, Told { reason: reason.to_owned(), at: now });
        let event = Event::TlsFailed { peer: peer.clone(), is_server, reason: reason.to_owned() };
        self.out.push_back(Output::Event(event));
    }

    /// Looks at what the worker wants done. Returns what is to be done on the wire at once.
    fn pass(&mut self, output: Output) -> Option<Output> {
        match output {
            Output::Connect { conn, ref endpoint, timeout, .. } if self.plan.servers.is_some() => {
                self.asked.insert(conn, (endpoint.clone(), timeout));
                Some(output)
            }
            Output::Transmit { conn, buffer } => match self.sessions.get_mut(&conn) {
                None => Some(Output::Transmit { conn, buffer }),
                Some(session) => {
                    if session.is_heard() {
                        session.write(buffer);
                        self.touch(conn);
                    }
                    None
                }
            },
            Output::Close { conn, mode } if !self.doomed.contains(&conn) => {
                let Some(session) = self.sessions.get_mut(&conn) else {
                    return Some(Output::Close { conn, mode });
                };
                let is_at_once = session.close(mode);
                self.touch(conn);
                is_at_once.then_some(Output::Close { conn, mode })
            }
            // On a connection that is given up already nothing may follow.
            Output::PauseRead(conn) | Output::ResumeRead(conn) | Output::Close { conn, .. }
                if self.is_given_up(conn) =>
            {
                None
            }
            // Nobody who is encrypted ends one direction only; a goodbye ends both.
            Output::EndWrite(conn) if self.sessions.contains_key(&conn) => None,
            other @ (Output::Connect { .. }
            | Output::PauseRead(_)
            | Output::ResumeRead(_)
            | Output::Close { .. }
            | Output::EndWrite(_)
            | Output::Release { .. }
            | Output::Resolve { .. }
            | Output::OpenChannel { .. }
            | Output::CloseChannel(_)
            | Output::Datagram { .. }
            | Output::Event(_)
            | Output::Errand(_)
            | Output::Notice { .. }) => Some(other),
        }
    }
}

/// Names whom a failure is about: of a client every connection has another port.
fn shown(peer: &Endpoint, is_server: bool) -> String {
    match peer {
        Endpoint::Tcp(address) if !is_server => address.ip().to_string(),
        Endpoint::Tcp(_) | Endpoint::Unix(_) => peer.to_string(),
    }
}

impl<D: Drive> Drive for Tls<D> {
    fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        self.now = now;
        let config = self.plan.clients.as_ref().filter(|(listeners, _)| listeners.contains(&on));
        let Some((_, config)) = config else { return self.inner.accept(now, on, peer) };
        let config = Arc::clone(config);
        // Before the worker knows of the client, who could not be taken back otherwise.
        let tls = ServerConnection::new(config).map_err(|_| AtCapacity)?;
        let conn = self.inner.accept(now, on, peer.clone())?;
        self.timers.arm(now + limits::TLS_HANDSHAKE_LIMIT, conn);
        self.begin(conn, tls.into(), (peer, None));
        Ok(conn)
    }

    fn adopt(
        &mut self,
        now: Instant,
        on: ListenerId,
        state: &Parcel,
    ) -> Result<ConnId, AtCapacity> {
        // The keys of an encrypted connection stay where they are.
        self.now = now;
        let encrypted = self.plan.clients.as_ref();
        if encrypted.is_some_and(|(listeners, _)| listeners.contains(&on)) {
            return Err(AtCapacity);
        }
        self.inner.adopt(now, on, state)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.now = now;
        match input {
            Input::Connected { conn, local } => self.connected(conn, local),
            Input::Received { conn, bytes } => self.received(conn, bytes),
            Input::Eof { conn } => self.eof(conn),
            Input::Sent { conn, buffer } => self.sent(conn, buffer),
            Input::Closed { conn, reason } => self.closed(conn, reason),
            other @ (Input::Released { .. }
            | Input::Resolved { .. }
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. }
            | Input::Notice(_)
            | Input::Command(_)
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. }) => self.inner.handle(now, other),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        while self.handshakes < limits::TLS_HANDSHAKES_PER_TURN {
            let Some(conn) = self.queue.pop_front() else { break };
            let Some(session) = self.sessions.get_mut(&conn) else { continue };
            let bytes = std::mem::take(&mut session.waiting);
            self.handshakes += 1;
            self.decrypt(conn, &bytes);
        }
        while let Some(conn) = self.timers.pop_due(now) {
            let Some(session) = self.sessions.get_mut(&conn) else { continue };
            if !session.is_shaking_hands() {
                continue;
            }
            session.verdict = Some(CloseReason::ConnectTimedOut);
            self.fail(conn, "the handshake takes too long");
        }
        self.inner.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.out.pop_front() {
                return Some(output);
            }
            if let Some(conn) = self.dirty.pop_front() {
                let Some(session) = self.sessions.get_mut(&conn) else { continue };
                session.is_dirty = false;
                if let Some(output) = session.poll(conn, &mut self.pool) {
                    self.touch(conn);
                    return Some(output);
                }
                continue;
            }
            let Some(output) = self.inner.poll_output() else {
                self.handshakes = 0;
                return None;
            };
            if let Some(output) = self.pass(output) {
                return Some(output);
            }
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let waiting = (!self.queue.is_empty()).then_some(self.now);
        let waiting = waiting.map(|at| Deadline { at, why: "handshakes that wait" });
        let handshake = self.timers.next().map(|(at, _)| Deadline { at, why: "TLS handshake" });
        let all = [waiting, handshake, self.inner.poll_timeout()];
        all.into_iter().flatten().min_by_key(|deadline| deadline.at)
    }
}

#[cfg(test)]
mod tests;
