//! A client, its server, and the bytes between them.

use std::net::SocketAddr;

use super::effects::{Owner, key_of};
use super::scheduler::Caller;
use super::service::ServerKey;
use super::{Balancer, Place};
use crate::buf::Buffer;
use crate::id::ConnId;
use crate::io::{AtCapacity, BalanceNews, CloseMode, CloseReason, Output};
use crate::limits;
use crate::slab::SlabKey;
use crate::time::Instant;
use crate::wire::proxy;

/// One of the two ends of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// One end: its connection, and what is to be written there.
#[derive(Debug)]
struct Half {
    conn: ConnId,
    /// What waits behind the write in flight.
    out: Buffer,
    /// Whether it may be written to.
    is_open: bool,
    is_sending: bool,
    is_dirty: bool,
    /// Whether its reading is paused.
    is_paused: bool,
    /// Whether it sends nothing more.
    has_eof: bool,
    /// Whether it was told that nothing more is sent there.
    is_told: bool,
}

impl Half {
    const fn new(conn: ConnId, is_open: bool) -> Self {
        Self {
            conn,
            out: Buffer::new(),
            is_open,
            is_sending: false,
            is_dirty: false,
            is_paused: false,
            has_eof: false,
            is_told: false,
        }
    }

    const fn is_drained(&self) -> bool {
        self.out.is_empty() && !self.is_sending
    }
}

/// A client's connection and its server's.
#[derive(Debug)]
pub(super) struct Relay {
    client_address: SocketAddr,
    called: SocketAddr,
    /// The server that it is counted for; none once it ends.
    pub(super) server: Option<ServerKey>,
    /// Servers that did not take it.
    tried: Vec<ServerKey>,
    client: Half,
    server_half: Half,
    /// Whether both ends are being closed.
    is_closing: bool,
    /// When the last bytes came.
    heard: Instant,
    /// Bytes that came from the client and from the server, and are not counted yet.
    moved: (u64, u64),
}

impl Relay {
    /// Returns where bytes of a side come from and where they go to.
    const fn ends(&mut self, from: Side) -> (&mut Half, &mut Half) {
        match from {
            Side::Client => (&mut self.client, &mut self.server_half),
            Side::Server => (&mut self.server_half, &mut self.client),
        }
    }

    /// Returns what is to be counted; from then on it is.
    pub(super) fn take_moved(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.moved)
    }

    const fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server_half,
        }
    }
}

/// Empty buffers for the next use.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    free: Vec<Buffer>,
    bytes: usize,
}

impl Buffers {
    fn take(&mut self) -> Buffer {
        let buffer = self.free.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    fn give(&mut self, mut buffer: Buffer) {
        let capacity = buffer.capacity();
        let is_usual = capacity <= 2 * limits::RELAY_TURN_BYTES;
        if capacity > 0 && is_usual && self.bytes + capacity <= limits::POOLED_BYTES_MAX {
            buffer.clear();
            self.bytes += capacity;
            self.free.push(buffer);
        }
    }
}

impl Balancer {
    /// Takes a client in and connects to a server for it.
    pub(super) fn open(
        &mut self,
        service: usize,
        client: SocketAddr,
        called: SocketAddr,
    ) -> Result<ConnId, AtCapacity> {
        let Some(server) = self.choose(service, &Caller { client, called }, &[]) else {
            self.refuse(service);
            return Err(AtCapacity);
        };
        let now = self.now;
        let nobody = ConnId::server(ConnId::INDEX_MAX, u32::MAX);
        let key = self.relays.insert_with(|key| Relay {
            client_address: client,
            called,
            server: None,
            tried: Vec::new(),
            client: Half::new(ConnId::client(key.index, key.generation), true),
            server_half: Half::new(nobody, false),
            is_closing: false,
            heard: now,
            moved: (0, 0),
        });
        let key = key.ok_or(AtCapacity)?;
        if !self.connect(key, server) {
            self.relays.remove(key);
            return Err(AtCapacity);
        }
        let sends_proxy =
            self.services.get(service).is_some_and(|service| service.plan.sends_proxy);
        if sends_proxy && let Some(relay) = self.relays.get_mut(key) {
            proxy::encode(client, called, &mut relay.server_half.out);
        }
        Ok(ConnId::client(key.index, key.generation))
    }

    /// Counts a client that found nobody, and tells it at most once a second.
    fn refuse(&mut self, service: usize) {
        let now = self.now;
        let Some(service) = self.services.get_mut(service) else { return };
        service.refused = service.refused.saturating_add(1);
        service.refused_in_all = service.refused_in_all.saturating_add(1);
        let is_quiet = service
            .refused_told
            .is_some_and(|told| now.since(told) < std::time::Duration::from_secs(1));
        if !is_quiet {
            service.refused_told = Some(now);
            let clients = std::mem::take(&mut service.refused);
            self.effects.news(&service.plan.name, BalanceNews::ClientRefused { clients });
        }
    }

    /// Chooses a server for a client; none if nobody can take it.
    fn choose(&mut self, at: usize, caller: &Caller, tried: &[ServerKey]) -> Option<ServerKey> {
        let now = self.now;
        let service = self.services.get_mut(at)?;
        if service.is_sorry() {
            let sorry = service.sorry.as_ref().map(|server| server.key);
            return sorry.filter(|key| !tried.contains(key));
        }
        let known = service.persistent.as_ref();
        if let Some(key) = known.and_then(|known| known.find(now, caller.client.ip())) {
            let fits = |server: &&super::service::Server| {
                server.key == key && server.is_up && !server.is_full && !tried.contains(&key)
            };
            if service.servers.iter().any(|server| fits(&server)) {
                return Some(key);
            }
        }
        self.candidates.clear();
        self.candidates.extend(service.servers.iter().map(|server| server.candidate(tried)));
        let chosen = if tried.is_empty() {
            service.picker.pick(&self.candidates, caller, &mut self.rng)
        } else {
            service.picker.pick_again(&self.candidates, caller, &mut self.rng)
        };
        service.servers.get(chosen?).map(|server| server.key)
    }

    /// Begins the connection of a relay to a server, and counts it there.
    fn connect(&mut self, key: SlabKey, server: ServerKey) -> bool {
        let now = self.now;
        let Some(Place { service, server: place }) = self.places.get(&server).copied() else {
            return false;
        };
        let Some(service) = self.services.get_mut(service) else { return false };
        let target = match place {
            Some(place) => service.servers.get_mut(place),
            None => service.sorry.as_mut(),
        };
        let (Some(target), Some(relay)) = (target, self.relays.get_mut(key)) else { return false };
        let timeout = limits::RELAY_CONNECT_TIMEOUT;
        let Some(conn) = self.effects.connect(Owner::Relay(key), target.address(), timeout) else {
            return false;
        };
        target.opened();
        relay.server = Some(server);
        relay.server_half.conn = conn;
        if let (Some(persistent), Some(_)) = (&mut service.persistent, place) {
            persistent.opened(now, relay.client_address.ip(), server);
        }
        true
    }

    /// Counts a relay off its server.
    fn discount(&mut self, key: SlabKey) -> Option<ServerKey> {
        let now = self.now;
        let relay = self.relays.get_mut(key)?;
        let server = relay.server.take()?;
        let Place { service, server: place } = *self.places.get(&server)?;
        let service = self.services.get_mut(service)?;
        let target = match place {
            Some(place) => service.servers.get_mut(place),
            None => service.sorry.as_mut(),
        };
        let (received, sent) = relay.take_moved();
        if let Some(target) = target {
            target.closed();
            target.count(received, sent);
        }
        if let Some(persistent) = &mut service.persistent {
            persistent.closed(now, relay.client_address.ip(), server);
        }
        Some(server)
    }

    pub(super) fn relay_connected(&mut self, key: SlabKey) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        relay.server_half.is_open = true;
        relay.heard = self.now;
        self.resume(key, Side::Client);
        self.write(key, Side::Server);
        self.pass_end(key, Side::Client);
    }

    pub(super) fn relay_received(&mut self, key: SlabKey, from: Side, bytes: &[u8]) {
        let now = self.now;
        let Some(relay) = self.relays.get_mut(key) else { return };
        if relay.is_closing {
            return;
        }
        relay.heard = now;
        let moved = match from {
            Side::Client => &mut relay.moved.0,
            Side::Server => &mut relay.moved.1,
        };
        *moved = moved.saturating_add(bytes.len() as u64);
        let (source, target) = relay.ends(from);
        if target.out.capacity() == 0 {
            target.out = self.buffers.take();
        }
        // One copy: the bytes are lent by the runtime and must outlive the call.
        target.out.extend_from_slice(bytes);
        let is_idle = target.is_open && !target.is_sending;
        let most = if is_idle { limits::RELAY_TURN_BYTES } else { limits::RELAY_WAITING_BYTES };
        if target.out.len() >= most && !source.is_paused && !source.has_eof {
            source.is_paused = true;
            self.effects.push(Output::PauseRead(source.conn));
        }
        if is_idle && !target.is_dirty {
            target.is_dirty = true;
            self.dirty.push_back((key, from.other()));
        }
    }

    /// Has what waits for a side written.
    fn write(&mut self, key: SlabKey, side: Side) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        let is_closing = relay.is_closing;
        let half = relay.half(side);
        let can = half.is_open && !half.is_sending && !half.is_dirty && !is_closing;
        if can && !half.out.is_empty() {
            half.is_dirty = true;
            self.dirty.push_back((key, side));
        }
    }

    /// Gives the next write out.
    pub(super) fn poll_write(&mut self) -> Option<Output> {
        while let Some((key, side)) = self.dirty.pop_front() {
            let Some(relay) = self.relays.get_mut(key) else { continue };
            let is_closing = relay.is_closing;
            let half = relay.half(side);
            half.is_dirty = false;
            if is_closing || half.out.is_empty() {
                continue;
            }
            half.is_sending = true;
            let buffer = std::mem::take(&mut half.out);
            return Some(Output::Transmit { conn: half.conn, buffer });
        }
        None
    }

    pub(super) fn relay_sent(&mut self, key: SlabKey, side: Side, buffer: Buffer) {
        self.buffers.give(buffer);
        let Some(relay) = self.relays.get_mut(key) else { return };
        if relay.is_closing {
            return;
        }
        relay.half(side).is_sending = false;
        self.write(key, side);
        self.resume(key, side.other());
        self.pass_end(key, side.other());
    }

    /// Reads a side again whose bytes have found room.
    fn resume(&mut self, key: SlabKey, side: Side) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        let (source, target) = relay.ends(side);
        if source.is_paused && target.out.len() <= limits::RELAY_WAITING_BYTES {
            source.is_paused = false;
            if !source.has_eof {
                self.effects.push(Output::ResumeRead(source.conn));
            }
        }
    }

    pub(super) fn relay_ended(&mut self, key: SlabKey, from: Side) {
        let now = self.now;
        let Some(relay) = self.relays.get_mut(key) else { return };
        if relay.is_closing {
            return;
        }
        relay.heard = now;
        let (source, target) = relay.ends(from);
        source.has_eof = true;
        if !target.has_eof {
            let client = relay.client.conn;
            self.half_closed.arm(now + limits::RELAY_HALF_CLOSED_MAX, client);
        }
        self.pass_end(key, from);
    }

    /// Passes the end of what a side sends on, once all of it was written; both ends close when
    /// neither sends any more.
    fn pass_end(&mut self, key: SlabKey, from: Side) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        let (source, target) = relay.ends(from);
        if !source.has_eof || target.is_told || !target.is_open || !target.is_drained() {
            return;
        }
        target.is_told = true;
        if target.has_eof && source.is_told {
            return self.finish(key);
        }
        let conn = target.conn;
        self.effects.push(Output::EndWrite(conn));
    }

    /// Closes both ends: all was said.
    fn finish(&mut self, key: SlabKey) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        relay.is_closing = true;
        let (client, server) = (relay.client.conn, relay.server_half.conn);
        self.effects.push(Output::Close { conn: client, mode: CloseMode::Flush });
        self.effects.close_link(server, CloseMode::Flush);
        self.discount(key);
    }

    /// Resets both ends.
    pub(super) fn abort(&mut self, key: SlabKey) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        if relay.is_closing {
            return;
        }
        relay.is_closing = true;
        let (client, server) = (relay.client.conn, relay.server_half.conn);
        self.effects.push(Output::Close { conn: client, mode: CloseMode::Abort });
        self.effects.close_link(server, CloseMode::Abort);
        self.discount(key);
    }

    /// Takes in that a client is gone, by itself or because it was closed.
    pub(super) fn client_closed(&mut self, key: SlabKey) {
        self.discount(key);
        let Some(relay) = self.relays.remove(key) else { return };
        if !relay.is_closing {
            // It broke the connection; its server hears the same.
            self.effects.close_link(relay.server_half.conn, CloseMode::Abort);
        }
        self.buffers.give(relay.client.out);
        self.buffers.give(relay.server_half.out);
        self.go_on_leaving();
    }

    /// Takes in that the connection to a server is gone.
    pub(super) fn server_closed(&mut self, key: SlabKey, reason: CloseReason) {
        let Some(relay) = self.relays.get_mut(key) else { return };
        if relay.is_closing {
            return;
        }
        if relay.server_half.is_open {
            return self.abort(key);
        }
        self.try_next(key, Some(reason));
    }

    /// Goes on with the next server for a client that one has not taken; with a reason that is
    /// told and looked into.
    fn try_next(&mut self, key: SlabKey, reason: Option<CloseReason>) {
        let Some(failed) = self.discount(key) else { return };
        let Some(place) = self.places.get(&failed).copied() else { return self.abort(key) };
        if reason.is_some() {
            self.look_into(failed, place);
        }
        let Some(relay) = self.relays.get_mut(key) else { return };
        let mut tried = std::mem::take(&mut relay.tried);
        tried.push(failed);
        let caller = Caller { client: relay.client_address, called: relay.called };
        let next = self.choose(place.service, &caller, &tried);
        if let Some(relay) = self.relays.get_mut(key) {
            relay.tried = tried;
        }
        if !next.is_some_and(|next| self.connect(key, next)) {
            self.refuse(place.service);
            self.abort(key);
        }
    }

    /// Tells of a server that did not take a client, and has it checked.
    fn look_into(&mut self, server: ServerKey, place: Place) {
        let now = self.now;
        let Some(service) = self.services.get(place.service) else { return };
        let Some(found) = service.all().find(|one| one.key == server) else { return };
        let address = found.address();
        let mut is_news = false;
        for id in &found.probes {
            if let Some(probe) = self.probes.get_mut(id) {
                is_news |= probe.hurry(now);
            }
        }
        if is_news || found.probes.is_empty() {
            let news = BalanceNews::Unreachable { server: address };
            self.effects.news(&service.plan.name, news);
        }
        self.set_due();
    }

    /// Ends the relays of a server that is down or gone. Clients that it had not taken yet go on
    /// to the next one. Returns how many were closed.
    pub(super) fn end_relays_of(&mut self, server: ServerKey) -> usize {
        let mine = |(key, relay): (SlabKey, &Relay)| (relay.server == Some(server)).then_some(key);
        let keys: Vec<SlabKey> = self.relays.iter().filter_map(mine).collect();
        let mut closed = 0;
        for key in keys {
            let Some(relay) = self.relays.get_mut(key) else { continue };
            if relay.server_half.is_open {
                self.abort(key);
                closed += 1;
            } else {
                let conn = relay.server_half.conn;
                self.effects.close_link(conn, CloseMode::Abort);
                self.try_next(key, None);
            }
        }
        closed
    }

    /// Ends the relays of a server that the plan does not have any more.
    pub(super) fn drop_relays_of(&mut self, server: ServerKey) {
        for persistent in self.services.iter_mut().filter_map(|one| one.persistent.as_mut()) {
            persistent.forget(server);
        }
        let mine = |(key, relay): (SlabKey, &Relay)| (relay.server == Some(server)).then_some(key);
        let keys: Vec<SlabKey> = self.relays.iter().filter_map(mine).collect();
        keys.into_iter().for_each(|key| self.abort(key));
    }

    /// Ends a half-closed relay that has been silent for too long.
    pub(super) fn look_at_half_closed(&mut self, conn: ConnId) {
        let Some(relay) = self.relays.get_mut(key_of(conn)) else { return };
        let due = relay.heard + limits::RELAY_HALF_CLOSED_MAX;
        if due <= self.now {
            self.abort(key_of(conn));
        } else {
            self.half_closed.arm(due, conn);
        }
    }
}
