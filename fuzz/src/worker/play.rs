//! Carries the steps out and watches what the worker does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_core::id::{ConnId, ListenerId, QueryId};
use ringkeeper_core::io::{
    CloseReason, Command, Drive, Endpoint, Event, Input, Output, ResolveError,
};
use ringkeeper_core::limits::RECEIVE_BYTES_MAX;
use ringkeeper_core::node::Worker;
use ringkeeper_core::time::Instant;

use super::memcache;
use super::speech::{self, LARGE_BYTES, Tag, contains};
use super::steps::{Ask, OUTPUT_BYTES_MAX, Op, Setup, Step};
use super::wire::{Client, Server};

/// Outputs of one turn; more is a loop.
const OUTPUTS_MAX: usize = 20_000;

/// Turns until nothing follows from what the worker said; more is a loop.
const TURNS_MAX: usize = 2_000;

/// Timers within one span of time; more is a busy loop.
const TIMERS_MAX: usize = 5_000;

/// Bytes of one write to a client: what may wait before it is cut off or no longer served, and
/// the replies that one look can add.
const WRITE_BYTES_MAX: usize = 1024 * 1024 + OUTPUT_BYTES_MAX + 32 * LARGE_BYTES;

/// `Received` after `PauseRead`.
const READS_AFTER_PAUSE: usize = 4;

const TICK: Duration = Duration::from_millis(4);

/// What says that a request never left.
const NOT_SENT: &[u8] = b"the request was not sent";

/// What the runtime says in the next turn because of this one.
#[derive(Clone, Copy, Debug)]
enum Reaction {
    Sent(ConnId),
    Connected(ConnId),
    Closed(ConnId),
}

struct Play {
    setup: Setup,
    worker: Worker,
    now: Instant,
    clients: BTreeMap<ConnId, Client>,
    servers: BTreeMap<ConnId, Server>,
    /// Names whose `Closed` was said.
    ended: BTreeSet<ConnId>,
    queries: VecDeque<QueryId>,
    reactions: VecDeque<Reaction>,
    /// `Close` was said, `Closed` not yet.
    unclosed: Vec<ConnId>,
    is_close_slow: bool,
    is_connect_quick: bool,
    /// A server has sent garbage: replies have their form and number, and nothing more is known.
    is_garbled: bool,
    is_draining: bool,
    is_drained: bool,
    /// The last request of a client that a server, named by its port, has read.
    read_by: BTreeMap<(u32, u16), u32>,
    /// Keys of requests that a server has read.
    written: BTreeSet<Vec<u8>>,
    /// Keys of requests of which a client was told that they were not sent.
    unsent: BTreeSet<Vec<u8>>,
    clients_made: u32,
}

/// Plays the steps against a new worker, then makes everything well, and panics when a promise
/// is broken.
pub fn play(setup: &Setup, steps: &[Step]) {
    let mut play = Play {
        setup: *setup,
        worker: Worker::new(setup.plan(), 1, Instant::START),
        now: Instant::START,
        clients: BTreeMap::new(),
        servers: BTreeMap::new(),
        ended: BTreeSet::new(),
        queries: VecDeque::new(),
        reactions: VecDeque::new(),
        unclosed: Vec::new(),
        is_close_slow: false,
        is_connect_quick: false,
        is_garbled: false,
        is_draining: false,
        is_drained: false,
        read_by: BTreeMap::new(),
        written: BTreeSet::new(),
        unsent: BTreeSet::new(),
        clients_made: 0,
    };
    play.turn();
    for step in steps {
        play.step(step.op);
        if !step.is_joined {
            play.turn();
        }
    }
    play.turn();
    play.settle();
}

fn pick<T>(map: &mut BTreeMap<ConnId, T>, which: u8) -> Option<&mut T> {
    let at = usize::from(which) % map.len().max(1);
    map.values_mut().nth(at)
}

impl Play {
    fn step(&mut self, op: Op) {
        match op {
            Op::Accept => self.accept(),
            Op::Ask { client, ask, bytes } => {
                self.ask(client, ask, 1);
                self.send(client, bytes);
            }
            Op::Pipeline { client, ask, more } => {
                let is_large = matches!(
                    ask,
                    Ask::GetLarge { .. } | Ask::SetLarge { .. } | Ask::MgetLarge { .. }
                );
                self.ask(client, ask, 1 + u32::from(more % if is_large { 4 } else { 32 }));
                self.send(client, u8::MAX);
            }
            Op::Send { client, bytes } => self.send(client, bytes),
            Op::Raw { client, bytes, length } => self.send_raw(client, &bytes, length),
            Op::Eof { client } => self.client_eof(client),
            Op::Lose { client } => {
                if let Some(id) = pick(&mut self.clients, client).map(|client| client.wire.id) {
                    self.closed(id, CloseReason::Reset);
                }
            }
            Op::Connected { server } => {
                if let Some(id) = pick(&mut self.servers, server).map(|server| server.wire.id) {
                    self.connected(id);
                }
            }
            Op::Fail { server, reason } => self.fail(server, reason),
            Op::ServerEof { server } => self.server_eof(server),
            Op::Answer { server, count, bytes, manner } => {
                self.answer(server, count, bytes, manner);
            }
            Op::Garbage { server, bytes } => self.garbage(server, &bytes),
            Op::Unasked { server, is_large } => self.unasked(server, is_large),
            Op::Hold { is_server, which } => self.hold(is_server, which, true),
            Op::Release { is_server, which } => self.hold(is_server, which, false),
            Op::Pass { ticks } => self.pass(TICK * u32::from(ticks)),
            Op::Drain { ticks } => self.drain(TICK * u32::from(ticks)),
            Op::Resolved { addresses } => self.resolved(addresses),
            Op::SlowClose(is_slow) => {
                self.is_close_slow = is_slow;
                if !is_slow {
                    self.close_all();
                }
            }
            Op::QuickConnect(is_quick) => self.is_connect_quick = is_quick,
        }
    }

    fn accept(&mut self) {
        let peer = Endpoint::Tcp(([127, 0, 0, 1], 4000).into());
        let is_memcache = self.setup.is_memcache;
        let Ok(id) = self.worker.accept(self.now, ListenerId(0), peer) else {
            assert!(self.is_draining, "there is room for a client");
            return;
        };
        assert!(!self.is_draining, "a client let in while draining");
        assert!(!id.is_server() && !self.ended.contains(&id), "{id:?} is a new client's name");
        let previous = self.clients.insert(id, Client::new(id, self.clients_made, is_memcache));
        assert!(previous.is_none(), "{id:?} is taken");
        self.clients_made += 1;
    }

    fn ask(&mut self, client: u8, ask: Ask, count: u32) {
        let Some(client) = pick(&mut self.clients, client) else { return };
        if client.has_eof {
            return;
        }
        for _ in 0..count {
            let asked = match self.setup.is_memcache {
                true => memcache::ask(ask, client.number, client.asked),
                false => speech::ask(ask, client.number, client.asked),
            };
            client.asked += 1;
            client.to_send.extend(asked.request);
            if !asked.is_silent {
                client.expected.push_back(asked.expected);
            }
        }
    }

    fn send(&mut self, client: u8, bytes: u8) {
        let Some(client) = pick(&mut self.clients, client) else { return };
        let cut = if bytes == u8::MAX { client.to_send.len() } else { usize::from(bytes) };
        let piece: Vec<u8> = client.to_send.drain(..cut.min(client.to_send.len())).collect();
        let id = client.wire.id;
        self.client_says(id, piece);
    }

    /// Lets a client's bytes arrive; what a paused socket does not take waits.
    fn client_says(&mut self, id: ConnId, mut bytes: Vec<u8>) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.has_eof {
            return;
        }
        while !bytes.is_empty() {
            if client.wire.is_paused {
                client.wire.reads_after_pause += 1;
                if client.wire.reads_after_pause > READS_AFTER_PAUSE {
                    bytes.append(&mut client.to_send);
                    client.to_send = bytes;
                    return;
                }
            }
            let rest = bytes.split_off(bytes.len().min(RECEIVE_BYTES_MAX));
            self.worker.handle(self.now, Input::Received { conn: id, bytes: &bytes });
            bytes = rest;
        }
    }

    fn send_raw(&mut self, client: u8, bytes: &[u8; 6], length: u8) {
        let Some(client) = pick(&mut self.clients, client) else { return };
        client.is_raw = true;
        let length = 1 + usize::from(length) % bytes.len();
        let id = client.wire.id;
        self.client_says(id, bytes[..length].to_vec());
    }

    fn client_eof(&mut self, client: u8) {
        let Some(client) = pick(&mut self.clients, client) else { return };
        if !std::mem::replace(&mut client.has_eof, true) {
            self.worker.handle(self.now, Input::Eof { conn: client.wire.id });
        }
    }

    fn connected(&mut self, id: ConnId) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        if !std::mem::replace(&mut server.is_connected, true) {
            self.worker.handle(self.now, Input::Connected { conn: id, local: None });
        }
    }

    fn fail(&mut self, server: u8, reason: u8) {
        const REASONS: [CloseReason; 6] = [
            CloseReason::Refused,
            CloseReason::Reset,
            CloseReason::ConnectTimedOut,
            CloseReason::Unreachable,
            CloseReason::OutOfResources,
            CloseReason::Other(71),
        ];
        let Some(server) = pick(&mut self.servers, server) else { return };
        let reason = match server.is_connected {
            true => CloseReason::Reset,
            false => REASONS[usize::from(reason) % REASONS.len()],
        };
        let id = server.wire.id;
        self.closed(id, reason);
    }

    /// Says `Closed`, once.
    fn closed(&mut self, id: ConnId, reason: CloseReason) {
        if self.clients.remove(&id).is_none() && self.servers.remove(&id).is_none() {
            return;
        }
        assert!(self.ended.insert(id));
        self.worker.handle(self.now, Input::Closed { conn: id, reason });
    }

    fn close_all(&mut self) {
        for id in std::mem::take(&mut self.unclosed) {
            self.closed(id, CloseReason::Requested);
        }
    }

    fn server_eof(&mut self, server: u8) {
        let Some(server) = pick(&mut self.servers, server) else { return };
        if server.can_send() {
            server.has_eof = true;
            self.worker.handle(self.now, Input::Eof { conn: server.wire.id });
        }
    }

    fn answer(&mut self, server: u8, count: u8, bytes: u8, manner: u8) {
        let Some(server) = pick(&mut self.servers, server) else { return };
        if !server.can_send() || server.is_garbled {
            return;
        }
        for _ in 0..=count {
            server.decide(manner % 8 == 7);
        }
        let cut = match usize::from(bytes) {
            255 => server.to_send.len(),
            // Large replies are cut around the size from which on they leave in pieces.
            above @ 200.. => 30_000 + 200 * (above - 200),
            bytes => bytes,
        };
        let piece: Vec<u8> = server.to_send.drain(..cut.min(server.to_send.len())).collect();
        let id = server.wire.id;
        self.server_says(id, &piece);
    }

    fn server_says(&mut self, id: ConnId, bytes: &[u8]) {
        for piece in bytes.chunks(RECEIVE_BYTES_MAX) {
            self.worker.handle(self.now, Input::Received { conn: id, bytes: piece });
        }
    }

    fn garbage(&mut self, server: u8, bytes: &[u8]) {
        let Some(server) = pick(&mut self.servers, server) else { return };
        if !server.can_send() {
            return;
        }
        server.is_garbled = true;
        self.is_garbled = true;
        let id = server.wire.id;
        self.server_says(id, bytes);
    }

    fn unasked(&mut self, server: u8, is_large: bool) {
        let Some(server) = pick(&mut self.servers, server) else { return };
        let is_quiet = server.owed.is_empty() && server.to_send.is_empty();
        if !server.can_send() || server.is_garbled || !is_quiet {
            return;
        }
        server.is_garbled = true;
        let id = server.wire.id;
        if is_large {
            let head = if self.setup.is_memcache { "VALUE unasked 0 " } else { "$" };
            let mut begun = format!("{head}{}\r\nunasked", 2 * LARGE_BYTES).into_bytes();
            begun.resize(LARGE_BYTES, b'x');
            self.server_says(id, &begun);
        } else {
            let line: &[u8] = if self.setup.is_memcache { b"STORED\r\n" } else { b"+unasked\r\n" };
            self.server_says(id, line);
        }
    }

    fn hold(&mut self, is_server: bool, which: u8, holds: bool) {
        let wire = if is_server {
            pick(&mut self.servers, which).map(|server| &mut server.wire)
        } else {
            pick(&mut self.clients, which).map(|client| &mut client.wire)
        };
        let Some(wire) = wire else { return };
        wire.holds = holds;
        if !holds {
            let id = wire.id;
            self.sent(id);
        }
    }

    fn sent(&mut self, id: ConnId) {
        let client = self.clients.get_mut(&id).map(|client| &mut client.wire);
        let wire = client.or_else(|| self.servers.get_mut(&id).map(|server| &mut server.wire));
        let Some(wire) = wire.filter(|wire| !wire.holds) else { return };
        if let Some(buffer) = wire.in_write.take() {
            self.worker.handle(self.now, Input::Sent { conn: id, buffer });
        }
    }

    fn drain(&mut self, limit: Duration) {
        if !std::mem::replace(&mut self.is_draining, true) {
            self.worker.handle(self.now, Input::Command(Command::Drain { limit }));
        }
    }

    fn resolved(&mut self, addresses: u8) {
        let Some(query) = self.queries.pop_front() else { return };
        let addresses: Vec<SocketAddr> =
            (0..addresses % 3).map(|last| ([127, 0, 0, 2 + last], 100).into()).collect();
        let result = if addresses.is_empty() { Err(ResolveError::NotFound) } else { Ok(addresses) };
        self.worker.handle(self.now, Input::Resolved { query, result });
    }

    /// Lets time pass, stopping at each timer.
    fn pass(&mut self, time: Duration) {
        self.turn();
        let until = self.now + time;
        for _ in 0..TIMERS_MAX {
            match self.worker.poll_timeout() {
                Some(deadline) if deadline.at <= until => self.now = self.now.max(deadline.at),
                Some(_) | None => {
                    self.now = until;
                    return;
                }
            }
            self.turn();
        }
        panic!("timers without end: {:?}", self.worker.poll_timeout());
    }

    /// Runs turns until nothing follows any more.
    fn turn(&mut self) {
        for _ in 0..TURNS_MAX {
            if self.worker.poll_timeout().is_some_and(|deadline| deadline.at <= self.now) {
                self.worker.handle_timeout(self.now);
                let next = self.worker.poll_timeout();
                assert!(next.is_none_or(|next| next.at > self.now), "{next:?} was due");
            }
            let mut outputs = 0;
            while let Some(output) = self.worker.poll_output() {
                outputs += 1;
                assert!(outputs < OUTPUTS_MAX, "outputs without end: {output:?}");
                self.take(output);
            }
            if self.reactions.is_empty() {
                return;
            }
            for reaction in std::mem::take(&mut self.reactions) {
                match reaction {
                    Reaction::Sent(id) => self.sent(id),
                    Reaction::Connected(id) => self.connected(id),
                    Reaction::Closed(id) => self.closed(id, CloseReason::Requested),
                }
            }
        }
        panic!("turns without end");
    }

    fn take(&mut self, output: Output) {
        match output {
            Output::Connect { conn, endpoint, .. } => self.connect(conn, &endpoint),
            Output::Transmit { conn, buffer } if conn.is_server() => {
                self.server_hears(conn, &buffer);
                let server = self.servers.get_mut(&conn).unwrap();
                server.wire.transmit(buffer);
                self.reactions.push_back(Reaction::Sent(conn));
            }
            Output::Transmit { conn, buffer } => {
                self.client_hears(conn, &buffer);
                let client = self.clients.get_mut(&conn).unwrap();
                client.wire.transmit(buffer);
                self.reactions.push_back(Reaction::Sent(conn));
            }
            Output::PauseRead(conn) => self.client_named(conn).wire.set_paused(true),
            Output::ResumeRead(conn) => {
                assert!(!self.is_draining, "reading goes on while draining");
                self.client_named(conn).wire.set_paused(false);
            }
            Output::Release { conn, .. } => panic!("{conn:?} is given away unasked"),
            Output::EndWrite(conn) => panic!("the proxy closes no half of {conn:?}"),
            Output::Close { conn, .. } => {
                match self.servers.get_mut(&conn) {
                    Some(server) => server.wire.close(),
                    None => self.client_named(conn).wire.close(),
                }
                match self.is_close_slow {
                    true => self.unclosed.push(conn),
                    false => self.reactions.push_back(Reaction::Closed(conn)),
                }
            }
            Output::Resolve { query, host, .. } => {
                assert_eq!(host, "a.example");
                assert!(!self.queries.contains(&query));
                self.queries.push_back(query);
            }
            Output::Event(Event::Drained) => {
                assert!(self.is_draining && self.clients.is_empty(), "drained too early");
                assert!(!std::mem::replace(&mut self.is_drained, true), "drained twice");
            }
            Output::Event(_) => {}
            Output::Errand(errand) => panic!("the proxy has no errands, but gave {errand:?}"),
            Output::Notice { notice, .. } => panic!("the only worker told {notice:?}"),
            Output::OpenChannel { .. } | Output::CloseChannel(_) | Output::Datagram { .. } => {
                panic!("the proxy has no channels")
            }
        }
    }

    fn client_named(&mut self, id: ConnId) -> &mut Client {
        match self.clients.get_mut(&id) {
            Some(client) => client,
            None => panic!("{id:?} is no open connection of a client"),
        }
    }

    fn connect(&mut self, id: ConnId, endpoint: &Endpoint) {
        assert!(id.is_server() && !self.ended.contains(&id), "{id:?} is a new server's name");
        let Endpoint::Tcp(address) = endpoint else { panic!("no server has a Unix socket") };
        let server = Server::new(id, address.port(), &self.setup);
        assert!(self.servers.insert(id, server).is_none(), "{id:?} is taken");
        if self.is_connect_quick {
            self.reactions.push_back(Reaction::Connected(id));
        }
    }

    /// Looks at requests on their way to a server: whole, in each client's order, never twice,
    /// and none that its client was told had not been sent.
    fn server_hears(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(server) = self.servers.get_mut(&id) else {
            panic!("a write to {id:?}, which is closed");
        };
        assert!(server.is_connected, "a write to {id:?} before it is connected");
        let port = server.port;
        for args in server.take(bytes) {
            let tags = args.iter().skip(1).filter_map(|arg| Some((Tag::of(arg)?, arg)));
            let is_set = args.first().is_some_and(|name| name == b"SET");
            let mut serial = None;
            for (tag, key) in tags {
                let asker = self.clients.values().find(|client| client.number == tag.client);
                if asker.is_some_and(|client| client.is_raw) {
                    continue;
                }
                if is_set {
                    assert_eq!(args.get(2), Some(&speech::value_of(key)), "the value of a SET");
                }
                assert!(self.written.insert(key.clone()), "{} twice", key.escape_ascii());
                assert!(!self.unsent.contains(key), "{} after all", key.escape_ascii());
                serial = Some(tag);
            }
            let Some(tag) = serial else { continue };
            let last = self.read_by.insert((tag.client, port), tag.serial);
            assert!(last.is_none_or(|last| last < tag.serial), "{tag:?} after {last:?}");
        }
    }

    fn client_hears(&mut self, id: ConnId, bytes: &[u8]) {
        assert!(bytes.len() <= WRITE_BYTES_MAX, "{} bytes waited for a client", bytes.len());
        let is_garbled = self.is_garbled;
        let replies = self.client_named(id).take(bytes);
        if !is_garbled {
            self.client_named(id).check_partial();
        }
        for (frame, expected) in replies {
            let Some(expected) = expected.filter(|_| !is_garbled) else { continue };
            expected.check(&frame);
            if let Some(key) = expected.only_key()
                && speech::is_error(&frame)
                && contains(&frame, NOT_SENT)
            {
                let is_written = self.written.contains(key);
                assert!(!is_written, "{} was sent", key.escape_ascii());
                self.unsent.insert(key.to_vec());
            }
        }
    }

    /// Makes everything well, and expects everything to become well: no request is forgotten, no
    /// client that has ended its side stays, nobody stays paused.
    fn settle(&mut self) {
        self.is_close_slow = false;
        self.is_connect_quick = true;
        self.close_all();
        self.turn();
        for _ in 0..400 {
            self.make_well();
            if self.is_well() {
                break;
            }
        }
        self.pass(Duration::from_secs(2));
        self.make_well();
        for client in self.clients.values() {
            let id = client.wire.id;
            assert!(client.is_raw || client.expected.is_empty(), "{id:?} waits for ever");
            assert!(client.to_send.is_empty() || client.has_eof, "{id:?} is never read again");
            assert!(!client.has_eof, "{id:?} has ended and stays");
        }
        if self.is_draining {
            assert!(self.is_drained, "drained at last");
        }
    }

    fn is_well(&self) -> bool {
        let has_all = |client: &Client| {
            // One that has ended its side is well when it is gone.
            (client.is_raw || client.expected.is_empty())
                && client.to_send.is_empty()
                && !client.has_eof
        };
        self.clients.values().all(has_all)
    }

    fn make_well(&mut self) {
        while !self.queries.is_empty() {
            self.resolved(1);
            self.turn();
        }
        let clients: Vec<ConnId> = self.clients.keys().copied().collect();
        for id in clients {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            client.wire.holds = false;
            self.sent(id);
            if let Some(client) = self.clients.get_mut(&id)
                && !client.wire.is_paused
            {
                let rest = std::mem::take(&mut client.to_send);
                self.client_says(id, rest);
            }
            self.turn();
        }
        let servers: Vec<ConnId> = self.servers.keys().copied().collect();
        for id in servers {
            self.make_server_well(id);
            self.turn();
        }
        self.pass(Duration::from_millis(20));
    }

    fn make_server_well(&mut self, id: ConnId) {
        self.connected(id);
        let Some(server) = self.servers.get_mut(&id) else { return };
        if server.is_garbled {
            self.closed(id, CloseReason::Reset);
            return;
        }
        server.wire.holds = false;
        self.sent(id);
        self.turn();
        let Some(server) = self.servers.get_mut(&id) else { return };
        if server.can_send() {
            while !server.owed.is_empty() {
                server.decide(false);
            }
            let rest = std::mem::take(&mut server.to_send);
            self.server_says(id, &rest);
        }
    }
}
