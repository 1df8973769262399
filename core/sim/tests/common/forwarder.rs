//! A plain forwarder: one connection per server, one queue per connection, requests of one key.
//! Right by default; each [`Bug`] breaks one promise that the simulator must notice.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{
    AtCapacity, CloseMode, Command, Deadline, Drive, Endpoint, Event, Input, Output,
};
use ringkeeper_core::time::Instant;

use super::{Frame, scan_reply, scan_request};

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// Replies leave in the order in which servers send them.
    WrongOrder,
    /// One reply in a hundred is forgotten.
    LostReply,
    /// One reply in a hundred comes twice.
    DuplicateReply,
    /// One reply in a hundred goes to another client.
    WrongClient,
    /// A second write starts before the first is done.
    TwoWrites,
    /// A write of nothing.
    EmptyTransmit,
    /// A write after Close.
    TransmitAfterClose,
    /// A deadline that has always just passed.
    BusyLoop,
    /// Requests are sent again when their connection broke, although they may have happened.
    Retries,
    /// A key goes to any server.
    RandomServer,
    /// The second of two equal questions is answered from memory.
    Cache,
    /// Writes are acknowledged before they happen.
    EarlyAck,
    /// A hung server is waited for forever.
    NoTimeout,
    /// A client that has said goodbye is kept.
    KeepsGone,
    /// A client's request is passed on before it is whole.
    CutThrough,
    /// What a client does not read is stored without end.
    Hoards,
    /// Good clients are closed when a server fails.
    ClosesOnError,
    /// A half-closed client does not get its replies.
    IgnoresHalfClose,
    /// The work of a timer is done whenever it is called.
    EagerTimeout,
    /// A broken scanner: what follows garbage is passed on.
    SkipsGarbage,
    /// A slot is used again before the runtime let go of it.
    EarlyReuse,
    /// A panic.
    Panics,
}

const TIMEOUT: Duration = Duration::from_millis(300);
const HELD_BYTES_MAX: usize = 256 * 1024;
const INPUT_BYTES_MAX: usize = 1024 * 1024;
const WINDOW: usize = 16;

enum Slot {
    Waiting { is_get: bool },
    Ready(Vec<u8>),
}

struct Client {
    input: Vec<u8>,
    slots: VecDeque<Slot>,
    first_slot: u64,
    /// Bytes in slots and `out`.
    held: usize,
    out: Vec<u8>,
    is_writing: bool,
    is_ended: bool,
    is_failed: bool,
    is_closing: bool,
    is_paused: bool,
}

struct Pending {
    client: ConnId,
    slot: u64,
    at: Instant,
    request: Vec<u8>,
}

#[derive(Default)]
struct Server {
    conn: Option<ConnId>,
    is_open: bool,
    is_closing: bool,
    is_writing: bool,
    out: Vec<u8>,
    input: Vec<u8>,
    queue: VecDeque<Pending>,
}

/// The machine.
pub(crate) struct Forwarder {
    bug: Bug,
    endpoints: Vec<Endpoint>,
    servers: Vec<Server>,
    clients: BTreeMap<ConnId, Client>,
    outputs: VecDeque<Output>,
    issued: u32,
    replies: u64,
    cache: BTreeMap<Vec<u8>, Vec<u8>>,
    is_draining: bool,
}

impl Forwarder {
    pub(crate) fn new(endpoints: Vec<Endpoint>, bug: Bug) -> Self {
        Self {
            bug,
            servers: endpoints.iter().map(|_| Server::default()).collect(),
            endpoints,
            clients: BTreeMap::new(),
            outputs: VecDeque::new(),
            issued: 0,
            replies: 0,
            cache: BTreeMap::new(),
            is_draining: false,
        }
    }

    fn pick(&self, key: &[u8]) -> usize {
        let seed = if self.bug == Bug::RandomServer { self.issued as usize } else { 7 };
        let hash = key.iter().fold(seed, |hash, byte| hash.wrapping_mul(31) + *byte as usize);
        let hash = if self.bug == Bug::RandomServer { hash + self.replies as usize } else { hash };
        hash % self.servers.len()
    }

    fn take_requests(&mut self, now: Instant, conn: ConnId) {
        while let Some(client) = self.clients.get_mut(&conn) {
            if client.is_failed || client.is_closing {
                return;
            }
            let is_full = client.slots.len() >= WINDOW || client.held > HELD_BYTES_MAX;
            if is_full && self.bug != Bug::Hoards {
                return;
            }
            let (frame, words) = scan_request(&client.input);
            let taken = match frame {
                Frame::Whole(taken) => taken,
                Frame::Partial => {
                    let enough = self.bug == Bug::CutThrough && words.len() > 1;
                    if enough && client.is_ended {
                        let mut request = std::mem::take(&mut client.input);
                        request.extend_from_slice(b"\r\n");
                        let server = self.pick(&request[words[1].clone()]);
                        self.forward(now, conn, server, request, false);
                    }
                    return;
                }
                Frame::Broken => {
                    client.is_failed = true;
                    client.slots.push_back(Slot::Ready(b"-ERR protocol error\r\n".to_vec()));
                    return;
                }
            };
            let request: Vec<u8> = client.input.drain(..taken).collect();
            let name = request[words[0].clone()].to_ascii_uppercase();
            let local: Option<&[u8]> = match name.as_slice() {
                b"PING" => Some(b"+PONG\r\n"),
                b"SET" if words.len() != 3 => Some(b"-ERR wrong number of arguments\r\n"),
                b"NOTACMD" => Some(b"-ERR unknown command\r\n"),
                b"SET" if self.bug == Bug::EarlyAck => Some(b"+OK\r\n"),
                _ => None,
            };
            if let Some(reply) = local {
                client.slots.push_back(Slot::Ready(reply.to_vec()));
                if self.bug != Bug::EarlyAck || name != b"SET" || words.len() != 3 {
                    continue;
                }
            }
            let key = request[words[1].clone()].to_vec();
            if self.bug == Bug::Cache
                && name == b"GET"
                && let Some(reply) = self.cache.get(&key)
            {
                client.slots.push_back(Slot::Ready(reply.clone()));
                continue;
            }
            let server = self.pick(&key);
            self.forward(now, conn, server, request, local.is_some());
        }
    }

    fn forward(
        &mut self,
        now: Instant,
        conn: ConnId,
        at: usize,
        request: Vec<u8>,
        is_answered: bool,
    ) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let slot = if is_answered {
            u64::MAX
        } else {
            let (_, words) = scan_request(&request);
            let is_get = words
                .first()
                .is_some_and(|name| request[name.clone()].eq_ignore_ascii_case(b"GET"));
            client.slots.push_back(Slot::Waiting { is_get });
            client.first_slot + client.slots.len() as u64 - 1
        };
        let server = &mut self.servers[at];
        server.out.extend_from_slice(&request);
        server.queue.push_back(Pending { client: conn, slot, at: now, request });
        self.pump_server(at);
    }

    fn pump_server(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let Some(conn) = server.conn else {
            if server.queue.is_empty() {
                return;
            }
            let conn = ConnId::server(at as u32, self.issued);
            self.issued += 1;
            server.conn = Some(conn);
            let endpoint = self.endpoints[at].clone();
            self.outputs.push_back(Output::Connect {
                conn,
                endpoint,
                timeout: TIMEOUT,
                source: None,
            });
            return;
        };
        let may_write = !server.is_writing || self.bug == Bug::TwoWrites;
        if server.is_open && !server.is_closing && may_write && !server.out.is_empty() {
            server.is_writing = true;
            let buffer = std::mem::take(&mut server.out);
            self.outputs.push_back(Output::Transmit { conn, buffer });
        }
    }

    fn take_replies(&mut self, at: usize) {
        loop {
            let server = &mut self.servers[at];
            if server.input.is_empty() || server.is_closing {
                return;
            }
            match scan_reply(&server.input, 0) {
                Frame::Whole(taken) => {
                    let reply: Vec<u8> = server.input.drain(..taken).collect();
                    match server.queue.pop_front() {
                        Some(pending) => self.answer(&pending, reply),
                        None => return self.close_server(at),
                    }
                }
                Frame::Partial => return,
                Frame::Broken if self.bug == Bug::SkipsGarbage => server.input.clear(),
                Frame::Broken => return self.close_server(at),
            }
        }
    }

    fn close_server(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let Some(conn) = server.conn else { return };
        if !server.is_closing {
            server.is_closing = true;
            self.outputs.push_back(Output::Close { conn, mode: CloseMode::Abort });
        }
        let queue = std::mem::take(&mut server.queue);
        server.out.clear();
        server.input.clear();
        if self.bug == Bug::Retries {
            for mut pending in queue {
                pending.at += TIMEOUT;
                server.out.extend_from_slice(&pending.request);
                server.queue.push_back(pending);
            }
            return;
        }
        for pending in queue {
            if self.bug == Bug::ClosesOnError {
                self.close_client(pending.client);
            } else {
                self.answer(&pending, b"-ERR server failed\r\n".to_vec());
            }
        }
    }

    fn close_client(&mut self, conn: ConnId) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if !client.is_closing {
            client.is_closing = true;
            self.outputs.push_back(Output::Close { conn, mode: CloseMode::Abort });
        }
    }

    fn answer(&mut self, pending: &Pending, reply: Vec<u8>) {
        self.replies += 1;
        let is_hundredth = self.replies.is_multiple_of(100);
        if self.bug == Bug::Panics && self.replies == 500 {
            panic!("a bug on purpose");
        }
        if self.bug == Bug::LostReply && is_hundredth {
            return;
        }
        let mut conn = pending.client;
        if self.bug == Bug::WrongClient && is_hundredth {
            let other = self.clients.iter().find(|(other, client)| {
                **other != conn && matches!(client.slots.front(), Some(Slot::Waiting { .. }))
            });
            conn = other.map_or(conn, |(other, _)| *other);
        }
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let place =
            if conn == pending.client { pending.slot.wrapping_sub(client.first_slot) } else { 0 };
        let place = match self.bug {
            Bug::WrongOrder => client
                .slots
                .iter()
                .position(|slot| matches!(slot, Slot::Waiting { .. }))
                .map_or(u64::MAX, |place| place as u64),
            _ => place,
        };
        let Some(slot) = client.slots.get_mut(place as usize) else { return };
        if let Slot::Waiting { is_get: true } = slot {
            let (_, words) = scan_request(&pending.request);
            if self.bug == Bug::Cache && reply.starts_with(b"$") {
                self.cache.insert(pending.request[words[1].clone()].to_vec(), reply.clone());
            }
        }
        client.held += reply.len();
        let reply = match self.bug {
            Bug::DuplicateReply if is_hundredth => [reply.clone(), reply].concat(),
            _ => reply,
        };
        *slot = Slot::Ready(reply);
        self.pump_client(conn);
    }

    fn pump_client(&mut self, conn: ConnId) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        while let Some(Slot::Ready(reply)) = client.slots.front() {
            client.out.extend_from_slice(reply);
            client.slots.pop_front();
            client.first_slot += 1;
        }
        if client.is_closing {
            return;
        }
        let is_full = client.input.len() > INPUT_BYTES_MAX;
        if is_full && !client.is_paused && self.bug != Bug::Hoards {
            client.is_paused = true;
            self.outputs.push_back(Output::PauseRead(conn));
        } else if client.is_paused && !is_full {
            client.is_paused = false;
            self.outputs.push_back(Output::ResumeRead(conn));
        }
        let is_over = client.slots.is_empty()
            && client.out.is_empty()
            && !client.is_writing
            && (client.is_failed || client.is_ended);
        if is_over && self.bug == Bug::EmptyTransmit {
            self.outputs.push_back(Output::Transmit { conn, buffer: Vec::new() });
        }
        let is_hasty = client.is_ended && self.bug == Bug::IgnoresHalfClose;
        if (is_over && self.bug != Bug::KeepsGone) || is_hasty {
            client.is_closing = true;
            self.outputs.push_back(Output::Close { conn, mode: CloseMode::Flush });
            if self.bug == Bug::TransmitAfterClose {
                self.outputs.push_back(Output::Transmit { conn, buffer: b"bye".to_vec() });
            }
        } else if !client.is_writing && !client.out.is_empty() {
            client.is_writing = true;
            let buffer = std::mem::take(&mut client.out);
            self.outputs.push_back(Output::Transmit { conn, buffer });
        }
        if self.is_draining && self.clients[&conn].slots.is_empty() {
            self.drain_client(conn);
        }
    }

    fn drain_client(&mut self, conn: ConnId) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if !client.is_closing && !client.is_writing && client.slots.is_empty() {
            client.is_closing = true;
            self.outputs.push_back(Output::Close { conn, mode: CloseMode::Flush });
        }
    }

    fn forget(&mut self, conn: ConnId) {
        self.outputs.retain(|output| match output {
            Output::Transmit { conn: of, .. } | Output::Close { conn: of, .. } => *of != conn,
            Output::PauseRead(of) | Output::ResumeRead(of) => *of != conn,
            _ => true,
        });
    }

    fn server_of(&self, conn: ConnId) -> usize {
        conn.index() as usize
    }

    fn closed(&mut self, conn: ConnId) {
        self.forget(conn);
        if conn.is_server() {
            let at = self.server_of(conn);
            self.close_server(at);
            self.forget(conn);
            let queue = std::mem::take(&mut self.servers[at].queue);
            let out = std::mem::take(&mut self.servers[at].out);
            self.servers[at] = Server { queue, out, ..Server::default() };
            self.pump_server(at);
        } else {
            self.clients.remove(&conn);
            if self.is_draining && self.clients.is_empty() {
                self.outputs.push_back(Output::Event(Event::Drained));
            }
        }
    }

    fn sent(&mut self, now: Instant, conn: ConnId, len: usize) {
        if conn.is_server() {
            let at = self.server_of(conn);
            self.servers[at].is_writing = false;
            self.pump_server(at);
            return;
        }
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.is_writing = false;
        client.held = client.held.saturating_sub(len);
        self.take_requests(now, conn);
        self.pump_client(conn);
    }

    fn expire(&mut self, now: Instant) {
        for at in 0..self.servers.len() {
            let first = self.servers[at].queue.front();
            let is_late = self.bug == Bug::EagerTimeout && first.is_some();
            if is_late || first.is_some_and(|first| first.at + TIMEOUT <= now) {
                self.close_server(at);
            }
        }
    }
}

impl Drive for Forwarder {
    fn accept(&mut self, _: Instant, _: ListenerId, _: Endpoint) -> Result<ConnId, AtCapacity> {
        if self.is_draining {
            return Err(AtCapacity);
        }
        let index = if self.bug == Bug::EarlyReuse { self.issued % 4 } else { self.issued };
        let conn = ConnId::client(index, self.issued);
        self.issued += 1;
        self.clients.insert(
            conn,
            Client {
                input: Vec::new(),
                slots: VecDeque::new(),
                first_slot: 0,
                held: 0,
                out: Vec::new(),
                is_writing: false,
                is_ended: false,
                is_failed: false,
                is_closing: false,
                is_paused: false,
            },
        );
        Ok(conn)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Connected { conn, .. } => {
                let at = self.server_of(conn);
                self.servers[at].is_open = true;
                self.pump_server(at);
            }
            Input::Received { conn, bytes } if conn.is_server() => {
                let at = self.server_of(conn);
                self.servers[at].input.extend_from_slice(bytes);
                self.take_replies(at);
            }
            Input::Received { conn, bytes } => {
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.input.extend_from_slice(bytes);
                }
                self.take_requests(now, conn);
                self.pump_client(conn);
            }
            Input::Eof { conn } if conn.is_server() => {
                let at = self.server_of(conn);
                self.close_server(at);
            }
            Input::Eof { conn } => {
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.is_ended = true;
                }
                self.take_requests(now, conn);
                self.pump_client(conn);
            }
            Input::Sent { conn, buffer } => self.sent(now, conn, buffer.len()),
            Input::Closed { conn, .. } => self.closed(conn),
            Input::Notice(notice) => panic!("{notice:?}"),
            Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. }
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. }
            | Input::Command(Command::Reload { .. } | Command::HandOver { .. }) => {
                panic!("{input:?}")
            }
            Input::Command(Command::Drain { .. }) => {
                self.is_draining = true;
                let clients: Vec<ConnId> = self.clients.keys().copied().collect();
                for conn in clients {
                    self.drain_client(conn);
                }
                if self.clients.is_empty() {
                    self.outputs.push_back(Output::Event(Event::Drained));
                }
            }
            Input::Resolved { .. } | Input::Released { .. } => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.bug != Bug::NoTimeout {
            self.expire(now);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        if self.bug == Bug::BusyLoop && self.replies > 100 {
            return Some(Deadline { at: Instant::START, why: "nothing" });
        }
        if self.bug == Bug::NoTimeout {
            return None;
        }
        let oldest = self.servers.iter().filter_map(|server| server.queue.front());
        let at = oldest.map(|pending| pending.at + TIMEOUT).min()?;
        Some(Deadline { at, why: "request timeout" })
    }
}
