//! One connection to a Sentinel: it is made, made again, and brings whole frames.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::buf::{Buffer, BufferPool};
use crate::id::ConnId;
use crate::io::{CloseMode, Endpoint, Output};
use crate::limits;
use crate::slab::SlabKey;
use crate::time::Instant;
use crate::wire::resp::{ReplyScan, ReplyScanner};

/// The first wait before another attempt; it doubles each time.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long an attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) const fn key_of(conn: ConnId) -> SlabKey {
    SlabKey { index: conn.index(), generation: conn.generation() }
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is under way until then.
    Waiting(Instant),
    Connecting(ConnId),
    Open(ConnId),
    /// We ended it.
    Closing(ConnId),
}

/// One connection. `E` says what a reply is the answer to.
#[derive(Debug)]
pub(super) struct Wire<E> {
    stage: Stage,
    retry: Duration,
    pub(super) heard_at: Instant,
    pub(super) expected: VecDeque<E>,
    out: Buffer,
    is_writing: bool,
    scanner: ReplyScanner,
    partial: Vec<u8>,
    scanned: usize,
}

impl<E> Wire<E> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            stage: Stage::Waiting(now),
            retry: RETRY_FIRST,
            heard_at: now,
            expected: VecDeque::new(),
            out: Buffer::new(),
            is_writing: false,
            scanner: ReplyScanner::default(),
            partial: Vec::new(),
            scanned: 0,
        }
    }

    /// Returns when it is to be connected, if that is what it waits for.
    pub(super) const fn waits_until(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waiting(until) => Some(until),
            Stage::Connecting(_) | Stage::Open(_) | Stage::Closing(_) => None,
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Waits a little longer than last time, with some chance in it.
    pub(super) fn put_off(&mut self, now: Instant, chance: impl FnOnce(u64) -> u64) {
        let nanos = u64::try_from(self.retry.as_nanos()).unwrap_or(u64::MAX);
        let wait = self.retry / 2 + Duration::from_nanos(chance(nanos.max(1)));
        self.retry = (self.retry * 2).min(RETRY_MAX);
        self.reset();
        self.stage = Stage::Waiting(now + wait);
    }

    pub(super) const fn connecting(&mut self, conn: ConnId, to: SocketAddr) -> Output {
        self.stage = Stage::Connecting(conn);
        let endpoint = Endpoint::Tcp(to);
        Output::Connect { conn, endpoint, timeout: CONNECT_TIMEOUT, source: None }
    }

    /// Takes in that it stands; returns whether it is wanted.
    pub(super) fn connected(&mut self, now: Instant, conn: ConnId) -> bool {
        if self.stage != Stage::Connecting(conn) {
            return false;
        }
        self.stage = Stage::Open(conn);
        self.heard_at = now;
        true
    }

    /// Takes in that the other side makes sense: the next failure is the first again.
    pub(super) const fn is_well(&mut self) {
        self.retry = RETRY_FIRST;
    }

    pub(super) fn send(&mut self, expect: Option<E>, write: impl FnOnce(&mut Buffer)) {
        if self.is_open() {
            write(&mut self.out);
            self.expected.extend(expect);
        }
    }

    pub(super) fn poll_transmit(&mut self, pool: &mut BufferPool) -> Option<Output> {
        let Stage::Open(conn) = self.stage else { return None };
        if self.is_writing || self.out.is_empty() {
            return None;
        }
        self.is_writing = true;
        Some(Output::Transmit { conn, buffer: std::mem::replace(&mut self.out, pool.take()) })
    }

    pub(super) fn sent(&mut self, conn: ConnId) {
        if self.stage == Stage::Open(conn) {
            self.is_writing = false;
        }
    }

    /// Takes in bytes; returns whole frames, or `None` where what came is no Redis.
    pub(super) fn received(
        &mut self,
        now: Instant,
        conn: ConnId,
        bytes: &[u8],
    ) -> Option<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        if self.stage != Stage::Open(conn) {
            return Some(frames);
        }
        self.heard_at = now;
        self.partial.extend_from_slice(bytes);
        loop {
            let rest = self.partial.get(self.scanned..).unwrap_or_default();
            match self.scanner.advance(rest) {
                Ok(ReplyScan::Complete { len }) => {
                    let whole = self.scanned + len;
                    frames.push(self.partial.drain(..whole).collect());
                    self.scanned = 0;
                }
                Ok(ReplyScan::Incomplete) => break,
                Err(_) => return None,
            }
        }
        self.scanned = self.partial.len();
        (self.partial.len() <= limits::SENTINEL_REPLY_BYTES_MAX).then_some(frames)
    }

    /// Ends the connection; the next one is made once its end is told.
    pub(super) fn cut(&mut self) -> Option<Output> {
        let (Stage::Open(conn) | Stage::Connecting(conn)) = self.stage else { return None };
        self.reset();
        self.stage = Stage::Closing(conn);
        Some(Output::Close { conn, mode: CloseMode::Abort })
    }

    fn reset(&mut self) {
        self.expected.clear();
        self.out.clear();
        self.is_writing = false;
        self.scanner = ReplyScanner::default();
        self.partial.clear();
        self.scanned = 0;
    }
}
