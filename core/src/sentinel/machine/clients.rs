//! Whoever asks us: clients, operators and peers.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::Sentinel;
use crate::buf::{Buffer, BufferPool};
use crate::id::ConnId;
use crate::io::{AtCapacity, CloseMode, Endpoint, Output};
use crate::limits;
use crate::sentinel::names::Table;
use crate::sentinel::reply::Protocol;
use crate::slab::SlabKey;
use crate::time::Instant;
use crate::wire::resp::{RequestLimits, RequestScan, RequestScanner, Span, encode, encode_inline};

/// Names a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientKey(pub(super) SlabKey);

impl ClientKey {
    pub(super) const fn conn(self) -> ConnId {
        ConnId::client(self.0.index, self.0.generation)
    }

    const fn of(conn: ConnId) -> Self {
        Self(SlabKey { index: conn.index(), generation: conn.generation() })
    }
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    /// Counts clients; what CLIENT ID tells.
    pub(super) id: u64,
    pub(super) peer: Endpoint,
    pub(super) since: Instant,
    pub(super) active_at: Instant,
    pub(super) name: String,
    pub(super) user: String,
    pub(super) protocol: Protocol,
    pub(super) is_authenticated: bool,
    pub(super) channels: BTreeSet<Vec<u8>>,
    pub(super) patterns: BTreeSet<Vec<u8>>,
    pub(super) last_command: String,
    input: Vec<u8>,
    scanner: RequestScanner,
    pub(super) out: Buffer,
    is_writing: bool,
    is_dirty: bool,
    /// A reply is owed that does not depend on the client; what it sends meanwhile waits.
    pub(super) is_waiting: bool,
    /// It gets what it is owed, then it is closed.
    pub(super) is_closing: bool,
    is_closed: bool,
    has_ended: bool,
}

impl Client {
    pub(super) fn is_subscriber(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }
}

/// All clients.
#[derive(Debug)]
pub(super) struct Clients {
    slab: Table<Client>,
    dirty: VecDeque<ClientKey>,
    last_id: u64,
    pub(super) commands: u64,
    /// Effects other than writes, in order.
    out: VecDeque<Output>,
    spans: Vec<Span>,
}

impl Clients {
    /// `base` is the first index of their names.
    pub(super) const fn new(base: u32) -> Self {
        Self {
            slab: Table::new(limits::SENTINEL_CLIENTS_MAX, base),
            dirty: VecDeque::new(),
            last_id: 0,
            commands: 0,
            out: VecDeque::new(),
            spans: Vec::new(),
        }
    }

    pub(super) fn accept(
        &mut self,
        now: Instant,
        peer: Endpoint,
        needs_password: bool,
    ) -> Result<ConnId, AtCapacity> {
        let id = self.last_id + 1;
        let key = self.slab.insert(Client {
            id,
            peer,
            since: now,
            active_at: now,
            name: String::new(),
            user: "default".to_owned(),
            protocol: Protocol::Resp2,
            is_authenticated: !needs_password,
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            last_command: "NULL".to_owned(),
            input: Vec::new(),
            scanner: RequestScanner::default(),
            out: Buffer::new(),
            is_writing: false,
            is_dirty: false,
            is_waiting: false,
            is_closing: false,
            is_closed: false,
            has_ended: false,
        });
        let key = ClientKey(key.ok_or(AtCapacity)?);
        self.last_id = id;
        Ok(key.conn())
    }

    pub(super) const fn last_id(&self) -> u64 {
        self.last_id
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    pub(super) const fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn get(&self, key: ClientKey) -> Option<&Client> {
        self.slab.get(key.0)
    }

    pub(super) fn get_mut(&mut self, key: ClientKey) -> Option<&mut Client> {
        self.slab.get_mut(key.0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ClientKey, &Client)> {
        self.slab.iter().map(|(key, client)| (ClientKey(key), client))
    }

    /// Has what was written to a client leave.
    pub(super) fn touch(&mut self, key: ClientKey) {
        let Some(client) = self.slab.get_mut(key.0) else { return };
        if client.out.len() > limits::SENTINEL_CLIENT_OUTPUT_BYTES_MAX {
            client.out.clear();
            self.abort(key);
            return;
        }
        if !client.is_dirty {
            client.is_dirty = true;
            self.dirty.push_back(key);
        }
    }

    /// Closes a client at once.
    pub(super) fn abort(&mut self, key: ClientKey) {
        let Some(client) = self.slab.get_mut(key.0) else { return };
        if !client.is_closed {
            client.is_closed = true;
            client.is_closing = true;
            self.out.push_back(Output::Close { conn: key.conn(), mode: CloseMode::Abort });
        }
    }

    /// Closes a client once it has got everything.
    pub(super) fn close(&mut self, key: ClientKey) {
        if let Some(client) = self.slab.get_mut(key.0) {
            client.is_closing = true;
            self.touch(key);
        }
    }

    pub(super) fn close_all(&mut self) {
        let keys: Vec<ClientKey> = self.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.close(key);
        }
    }

    pub(super) fn ended(&mut self, conn: ConnId) {
        let key = ClientKey::of(conn);
        let Some(client) = self.slab.get_mut(key.0) else { return };
        client.has_ended = true;
        if !client.is_waiting {
            self.close(key);
        }
    }

    pub(super) fn sent(&mut self, conn: ConnId) {
        let key = ClientKey::of(conn);
        if let Some(client) = self.slab.get_mut(key.0) {
            client.is_writing = false;
            self.touch(key);
        }
    }

    fn remove(&mut self, conn: ConnId) {
        // What was to end it is a name too many.
        self.out.retain(|output| !matches!(output, Output::Close { conn: of, .. } if *of == conn));
        self.slab.remove(ClientKey::of(conn).0);
    }

    pub(super) fn poll_output(&mut self, pool: &mut BufferPool) -> Option<Output> {
        if let Some(output) = self.out.pop_front() {
            return Some(output);
        }
        while let Some(key) = self.dirty.pop_front() {
            let Some(client) = self.slab.get_mut(key.0) else { continue };
            client.is_dirty = false;
            if client.is_closed || client.is_writing {
                continue;
            }
            if !client.out.is_empty() {
                client.is_writing = true;
                let buffer = std::mem::replace(&mut client.out, pool.take());
                return Some(Output::Transmit { conn: key.conn(), buffer });
            }
            if client.is_closing && !client.is_waiting {
                client.is_closed = true;
                return Some(Output::Close { conn: key.conn(), mode: CloseMode::Flush });
            }
        }
        None
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// The reply is written.
    Done,
    /// It comes later.
    Waits,
    /// The reply is written, and it is the last.
    Close,
}

impl Sentinel {
    pub(super) fn client_received(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        let key = ClientKey::of(conn);
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.is_closing {
            return;
        }
        client.input.extend_from_slice(bytes);
        self.serve(now, key);
        let Some(client) = self.clients.get_mut(key) else { return };
        // Only a client that waits collects; nobody pipelines that much to a Sentinel.
        if client.input.len() > limits::SENTINEL_REQUEST_BYTES_MAX * 2 {
            self.clients.abort(key);
        }
    }

    pub(super) fn client_closed(&mut self, conn: ConnId) {
        self.clients.remove(conn);
    }

    /// Serves whole requests, until one has to wait.
    pub(super) fn serve(&mut self, now: Instant, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let mut input = std::mem::take(&mut client.input);
        let mut spans = std::mem::take(&mut self.clients.spans);
        let mut from = 0;
        while let Some(client) = self.clients.get_mut(key) {
            if client.is_waiting || client.is_closing {
                break;
            }
            let limits = request_limits(client.is_authenticated);
            let rest = input.get(from..).unwrap_or_default();
            match client.scanner.scan(rest, &limits, &mut spans) {
                Ok(RequestScan::Incomplete) => break,
                Ok(RequestScan::Empty { len }) => from += len,
                Ok(RequestScan::Complete { len }) => {
                    let args: Vec<&[u8]> = spans.iter().map(|span| span.of(rest)).collect();
                    self.serve_one(now, key, &args);
                    from += len;
                }
                Ok(RequestScan::Inline { len, line_len }) => {
                    let line = rest.get(..line_len).unwrap_or_default();
                    self.serve_inline(now, key, line);
                    from += len;
                }
                Err(error) => {
                    error.encode_message(&mut client.out);
                    self.clients.close(key);
                }
            }
        }
        input.drain(..from);
        self.clients.spans = spans;
        if let Some(client) = self.clients.get_mut(key) {
            client.input = input;
        }
        self.clients.touch(key);
    }

    fn serve_inline(&mut self, now: Instant, key: ClientKey, line: &[u8]) {
        let mut frame = Vec::new();
        let mut spans = Vec::new();
        let limits = RequestLimits::AUTHENTICATED;
        match encode_inline(line, &mut frame) {
            Ok(0) => {}
            Ok(_) => {
                let scan = RequestScanner::default().scan(&frame, &limits, &mut spans);
                if matches!(scan, Ok(RequestScan::Complete { .. })) {
                    let args: Vec<&[u8]> = spans.iter().map(|span| span.of(&frame)).collect();
                    self.serve_one(now, key, &args);
                }
            }
            Err(error) => {
                if let Some(client) = self.clients.get_mut(key) {
                    error.encode_message(&mut client.out);
                }
                self.clients.close(key);
            }
        }
    }

    fn serve_one(&mut self, now: Instant, key: ClientKey, args: &[&[u8]]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.active_at = now;
        self.clients.commands += 1;
        let mut out = self.pool.take();
        let served = self.command(now, key, args, &mut out);
        let Some(client) = self.clients.get_mut(key) else { return };
        client.out.extend_from_slice(&out);
        self.pool.give(out);
        match served {
            Served::Done => {}
            Served::Waits => client.is_waiting = true,
            Served::Close => self.clients.close(key),
        }
    }

    /// Writes the reply that a client waited for, and serves what came behind.
    pub(super) fn client_answered(
        &mut self,
        now: Instant,
        key: ClientKey,
        write: impl FnOnce(&mut Buffer),
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        write(&mut client.out);
        // An answer may come before the request is done with.
        client.is_waiting = false;
        if client.has_ended {
            self.clients.close(key);
            return;
        }
        self.serve(now, key);
    }

    /// Tells a client that its change is durable, or is not.
    pub(super) fn client_saved(&mut self, now: Instant, key: ClientKey, is_durable: bool) {
        self.client_answered(now, key, |out| {
            if is_durable {
                encode::simple(out, "OK");
            } else {
                encode::error(out, "ERR Failed to save config file. Check server logs.");
            }
        });
    }
}

const fn request_limits(is_authenticated: bool) -> RequestLimits {
    let base = if is_authenticated {
        RequestLimits::AUTHENTICATED
    } else {
        RequestLimits::UNAUTHENTICATED
    };
    let most = limits::SENTINEL_REQUEST_BYTES_MAX;
    let bytes_max = if base.bytes_max < most { base.bytes_max } else { most };
    RequestLimits { bytes_max, ..base }
}

/// Returns whole seconds.
pub(super) const fn seconds(time: Duration) -> u64 {
    time.as_secs()
}
