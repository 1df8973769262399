//! Connections to servers and peers: who they belong to, what was asked on them, what came back.
//!
//! A link outlives its connections. It has one connection at a time, and what was asked on a
//! connection that ended is not answered any more.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::MasterId;
use crate::buf::{Buffer, BufferPool};
use crate::id::{ConnId, QueryId};
use crate::io::{CloseMode, CloseReason, Endpoint, Output};
use crate::limits;
use crate::sentinel::down::Asked;
use crate::sentinel::instance::{Address, Epoch, RunId};
use crate::sentinel::names::{NameBase, Table};
use crate::slab::{Slab, SlabKey};
use crate::time::Instant;
use crate::wire::resp::{ReplyScan, ReplyScanner};

/// Numbers of questions to the resolver, before they begin anew.
const QUERIES: u32 = 1 << 24;

/// Names a link; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkId(SlabKey);

/// Names no link: it is what one too many would be called.
const NOBODY: LinkId = LinkId(SlabKey { index: u32::MAX, generation: u32::MAX });

/// Which server of a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    /// The master itself.
    Master,
    /// One of its replicas, by its place in the master's table.
    Replica(u32),
}

/// Whom a link belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Commands to a server.
    Commands(MasterId, Node),
    /// Hellos from a server.
    Channel(MasterId, Node),
    /// Commands to a peer, for all masters that it watches with us.
    Peer(RunId),
}

impl Owner {
    pub(super) const fn is_channel(self) -> bool {
        matches!(self, Self::Channel(..))
    }
}

/// What a reply will be the answer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// Something whose answer changes nothing.
    Ignored,
    /// PING.
    Pong,
    /// INFO.
    Info,
    /// PUBLISH of a hello.
    Published,
    /// Whether a master is down.
    Answer(MasterId, Asked),
    /// Who the peer is.
    MyId,
    /// CLIENT PAUSE.
    Paused,
    /// A promise to us, for which election, and when it was asked for.
    Promise(MasterId, Epoch, Instant),
    /// How long the peer is bound by promises, asked for by the leader of an election.
    Left(MasterId, Epoch),
}

/// The PINGs of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pings {
    /// The first that is not answered acceptably.
    pub(super) waiting_since: Option<Instant>,
    /// The last one.
    pub(super) sent_at: Instant,
    /// The last answer.
    pub(super) answered_at: Instant,
    /// The last acceptable answer.
    pub(super) acceptable_at: Instant,
}

#[derive(Debug)]
enum Stage {
    Idle,
    Resolving(QueryId),
    Connecting(ConnId),
    Open { conn: ConnId, since: Instant, local: Option<SocketAddr> },
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) owner: Owner,
    address: Address,
    stage: Stage,
    tried_at: Option<Instant>,
    /// When the last attempt was refused or the connection reset; none after it was made.
    pub(super) refused_at: Option<Instant>,
    heard_at: Instant,
    expected: VecDeque<Expect>,
    out: Buffer,
    is_writing: bool,
    is_dirty: bool,
    scanner: ReplyScanner,
    partial: Vec<u8>,
    scanned: usize,
    pub(super) pings: Pings,
}

impl Link {
    fn conn(&self) -> Option<ConnId> {
        match self.stage {
            Stage::Idle | Stage::Resolving(_) => None,
            Stage::Connecting(conn) | Stage::Open { conn, .. } => Some(conn),
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open { .. })
    }

    pub(super) const fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// Returns since when it stands.
    pub(super) const fn open_since(&self) -> Option<Instant> {
        match self.stage {
            Stage::Open { since, .. } => Some(since),
            Stage::Idle | Stage::Resolving(_) | Stage::Connecting(_) => None,
        }
    }

    /// Returns our end of it.
    pub(super) fn local_ip(&self) -> Option<IpAddr> {
        match self.stage {
            Stage::Open { local, .. } => local.map(|address| address.ip()),
            Stage::Idle | Stage::Resolving(_) | Stage::Connecting(_) => None,
        }
    }

    /// Returns when something came last; what it was does not matter.
    pub(super) const fn heard_at(&self) -> Instant {
        self.heard_at
    }

    pub(super) const fn tried_at(&self) -> Option<Instant> {
        self.tried_at
    }

    pub(super) fn pending(&self) -> usize {
        self.expected.len()
    }

    pub(super) const fn address(&self) -> &Address {
        &self.address
    }
}

/// Whole frames of one link, lent out while they are worked on.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) link: LinkId,
    pub(super) owner: Owner,
    data: Vec<u8>,
    ends: Vec<usize>,
    at: usize,
    from: usize,
}

impl Heard {
    /// Returns the next frame.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let end = *self.ends.get(self.at)?;
        let frame = self.data.get(self.from..end)?;
        self.at += 1;
        self.from = end;
        Some(frame)
    }
}

/// What became of bytes that came.
#[derive(Debug)]
pub(super) enum Reception {
    /// The connection is not ours any more.
    Nobody,
    /// Perhaps some frames; to be given back.
    Frames(Heard),
    /// It is no Redis; the link has to be cut.
    Garbage(LinkId),
}

/// Why a connection ended, and whose it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    pub(super) owner: Owner,
    pub(super) was_open: bool,
}

/// All links of a Sentinel.
#[derive(Debug)]
pub(super) struct Links {
    links: Slab<Link>,
    conns: Table<LinkId>,
    queries: BTreeMap<QueryId, LinkId>,
    next_query: u32,
    query_base: u32,
    /// Where connections come from; none leaves it to the kernel.
    source: Option<IpAddr>,
    dirty: VecDeque<LinkId>,
    spare_ends: Vec<usize>,
}

const fn conn_id(key: SlabKey) -> ConnId {
    ConnId::server(key.index, key.generation)
}

const fn key_of(conn: ConnId) -> SlabKey {
    SlabKey { index: conn.index(), generation: conn.generation() }
}

impl Links {
    pub(super) const fn new(base: NameBase, source: Option<IpAddr>) -> Self {
        Self {
            // As many as masters, replicas and peers need, which have limits of their own.
            links: Slab::new(usize::MAX),
            conns: Table::new(limits::SERVER_CONNECTIONS_MAX, base.conn),
            queries: BTreeMap::new(),
            next_query: 0,
            query_base: base.query,
            source,
            dirty: VecDeque::new(),
            spare_ends: Vec::new(),
        }
    }

    /// Makes a link that is not connected.
    pub(super) fn open(&mut self, now: Instant, owner: Owner, address: Address) -> LinkId {
        let pings = Pings {
            waiting_since: Some(now),
            sent_at: Instant::START,
            answered_at: now,
            acceptable_at: now,
        };
        let link = Link {
            owner,
            address,
            stage: Stage::Idle,
            tried_at: None,
            refused_at: None,
            heard_at: now,
            expected: VecDeque::new(),
            out: Buffer::new(),
            is_writing: false,
            is_dirty: false,
            scanner: ReplyScanner::default(),
            partial: Vec::new(),
            scanned: 0,
            pings,
        };
        self.links.insert_with(|_| link).map_or(NOBODY, LinkId)
    }

    pub(super) fn get(&self, id: LinkId) -> Option<&Link> {
        self.links.get(id.0)
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id.0)
    }

    pub(super) fn is_open(&self, id: LinkId) -> bool {
        self.get(id).is_some_and(Link::is_open)
    }

    /// Begins to connect. Answered by [`connected`](Self::connected) or [`closed`](Self::closed).
    pub(super) fn connect(
        &mut self,
        now: Instant,
        id: LinkId,
        known_ip: Option<IpAddr>,
        timeout: Duration,
        out: &mut VecDeque<Output>,
    ) {
        let Some(link) = self.links.get_mut(id.0) else { return };
        if !link.is_idle() {
            return;
        }
        link.tried_at = Some(now);
        let port = link.address.port();
        let ip = link.address.host().parse::<IpAddr>().ok().or(known_ip);
        let Some(ip) = ip else {
            self.next_query = self.next_query.wrapping_add(1) % QUERIES;
            let query = QueryId(self.query_base.saturating_add(1 + self.next_query));
            link.stage = Stage::Resolving(query);
            self.queries.insert(query, id);
            out.push_back(Output::Resolve { query, host: link.address.host().to_owned(), port });
            return;
        };
        let Some(key) = self.conns.insert(id) else { return };
        let conn = conn_id(key);
        link.stage = Stage::Connecting(conn);
        let endpoint = Endpoint::Tcp(SocketAddr::new(ip, port));
        out.push_back(Output::Connect { conn, endpoint, timeout, source: self.source });
    }

    /// Lets a link that is not connected try again at once, unless it did a moment ago.
    pub(super) fn hasten(&mut self, now: Instant, id: LinkId, least: Duration) {
        if let Some(link) = self.links.get_mut(id.0).filter(|link| link.is_idle()) {
            link.tried_at = link.tried_at.filter(|at| now.since(*at) < least);
        }
    }

    /// Takes in where a name is. Returns whose it was: the next attempt may use it.
    pub(super) fn resolved(&mut self, query: QueryId) -> Option<(LinkId, Owner, Address)> {
        let id = self.queries.remove(&query)?;
        let link = self.links.get_mut(id.0)?;
        if !matches!(link.stage, Stage::Resolving(current) if current == query) {
            return None;
        }
        link.stage = Stage::Idle;
        Some((id, link.owner, link.address.clone()))
    }

    /// Takes in that a connection stands.
    pub(super) fn connected(
        &mut self,
        now: Instant,
        conn: ConnId,
        local: Option<SocketAddr>,
    ) -> Option<LinkId> {
        let id = *self.conns.get(key_of(conn))?;
        let link = self.links.get_mut(id.0)?;
        if link.conn() != Some(conn) {
            return None;
        }
        link.stage = Stage::Open { conn, since: now, local };
        link.heard_at = now;
        link.refused_at = None;
        Some(id)
    }

    /// Takes in bytes.
    pub(super) fn received(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) -> Reception {
        let found = self.conns.get(key_of(conn)).copied();
        let Some((id, link)) = found.and_then(|id| Some((id, self.links.get_mut(id.0)?))) else {
            return Reception::Nobody;
        };
        if link.conn() != Some(conn) {
            return Reception::Nobody;
        }
        link.heard_at = now;
        link.partial.extend_from_slice(bytes);
        let mut ends = std::mem::take(&mut self.spare_ends);
        loop {
            let rest = link.partial.get(link.scanned..).unwrap_or_default();
            match link.scanner.advance(rest) {
                Ok(ReplyScan::Complete { len }) => {
                    link.scanned += len;
                    ends.push(link.scanned);
                }
                Ok(ReplyScan::Incomplete) => {
                    link.scanned = link.partial.len();
                    break;
                }
                Err(_) => return Reception::Garbage(id),
            }
        }
        if link.partial.len() > limits::SENTINEL_REPLY_BYTES_MAX {
            return Reception::Garbage(id);
        }
        let data = std::mem::take(&mut link.partial);
        Reception::Frames(Heard { link: id, owner: link.owner, data, ends, at: 0, from: 0 })
    }

    /// Takes frames back; what is no whole frame yet stays.
    pub(super) fn give_back(&mut self, heard: Heard) {
        let Heard { link, mut data, mut ends, .. } = heard;
        if let Some(link) = self.links.get_mut(link.0)
            && link.is_open()
        {
            let done = ends.last().copied().unwrap_or(0);
            data.drain(..done);
            link.scanned = link.scanned.saturating_sub(done);
            link.partial = data;
        }
        ends.clear();
        self.spare_ends = ends;
    }

    /// Returns what the next reply of a link answers; none when nothing was asked.
    pub(super) fn expected(&mut self, id: LinkId) -> Option<Expect> {
        self.links.get_mut(id.0)?.expected.pop_front()
    }

    /// Appends a request, and notes what its reply answers. Returns false when nothing stands that
    /// it could be sent on.
    pub(super) fn send(
        &mut self,
        id: LinkId,
        expect: Option<Expect>,
        write: impl FnOnce(&mut Buffer),
    ) -> bool {
        let Some(link) = self.links.get_mut(id.0).filter(|link| link.is_open()) else {
            return false;
        };
        write(&mut link.out);
        link.expected.extend(expect);
        if !link.is_dirty {
            link.is_dirty = true;
            self.dirty.push_back(id);
        }
        true
    }

    /// Returns the next write.
    pub(super) fn poll_transmit(&mut self, pool: &mut BufferPool) -> Option<Output> {
        while let Some(id) = self.dirty.pop_front() {
            let Some(link) = self.links.get_mut(id.0) else { continue };
            link.is_dirty = false;
            let Stage::Open { conn, .. } = link.stage else { continue };
            if link.is_writing || link.out.is_empty() {
                continue;
            }
            link.is_writing = true;
            let buffer = std::mem::replace(&mut link.out, pool.take());
            return Some(Output::Transmit { conn, buffer });
        }
        None
    }

    /// Takes in that a write is done.
    pub(super) fn sent(&mut self, conn: ConnId) {
        let Some(id) = self.conns.get(key_of(conn)).copied() else { return };
        let Some(link) = self.links.get_mut(id.0) else { return };
        if link.conn() != Some(conn) {
            return;
        }
        link.is_writing = false;
        if !link.out.is_empty() && !link.is_dirty {
            link.is_dirty = true;
            self.dirty.push_back(id);
        }
    }

    /// Ends the connection of a link, which may connect again.
    pub(super) fn cut(&mut self, id: LinkId, out: &mut VecDeque<Output>) {
        let Some(link) = self.links.get_mut(id.0) else { return };
        if let Some(conn) = link.conn() {
            out.push_back(Output::Close { conn, mode: CloseMode::Abort });
        }
        link.reset();
    }

    /// Ends a link for good.
    pub(super) fn remove(&mut self, id: LinkId, out: &mut VecDeque<Output>) {
        self.cut(id, out);
        self.links.remove(id.0);
    }

    /// Takes in that a connection is gone. Returns whose it was, unless we cut it ourselves.
    pub(super) fn closed(
        &mut self,
        now: Instant,
        conn: ConnId,
        reason: CloseReason,
    ) -> Option<Loss> {
        let id = self.conns.remove(key_of(conn))?;
        let link = self.links.get_mut(id.0)?;
        if link.conn() != Some(conn) {
            return None;
        }
        let was_open = link.is_open();
        link.reset();
        if matches!(reason, CloseReason::Refused | CloseReason::Reset) {
            link.refused_at = Some(now);
        }
        Some(Loss { owner: link.owner, was_open })
    }
}

impl Link {
    fn reset(&mut self) {
        self.stage = Stage::Idle;
        self.expected.clear();
        self.out.clear();
        self.is_writing = false;
        self.scanner = ReplyScanner::default();
        self.partial.clear();
        self.scanned = 0;
    }
}
