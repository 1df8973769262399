//! One client's connection: what it sent that is not yet served, what it is owed, and how much of
//! both it may have.

use crate::buf::{Buffer, BufferPool};
use crate::id::{ConnId, PoolId};
use crate::limits::{
    CLIENT_INPUT_PAUSE_BYTES, CLIENT_INPUT_RESUME_BYTES, CLIENT_UNSENT_PAUSE_BYTES, PIPELINE_MAX,
    PIPELINE_START, WINDOW_BYTES,
};
use crate::proxy::figures::Ticks;
use crate::proxy::replies::{Replies, Sequence};
use crate::stats::Peer;
use crate::time::Instant;
use crate::wire::memcache;
use crate::wire::resp::request::RequestScanner;

/// How far a client's connection is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Requests are taken.
    Open,
    /// Nothing more is taken; what is owed is still sent, then the connection closes.
    Finishing,
    /// `Close` was said; `Closed` is awaited and everything else ignored.
    Closing,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: ConnId,
    /// What `CLIENT ID` says: never another client's, and the same after an upgrade.
    pub(crate) number: u64,
    pub(crate) pool: PoolId,
    pub(crate) phase: Phase,
    /// The client has said all it will say; requests that came before are still served.
    pub(crate) is_at_eof: bool,
    pub(crate) is_authenticated: bool,
    /// The client has asked for RESP3; its requests go over connections that speak it.
    pub(crate) is_resp3: bool,
    /// The client speaks memcached's protocol.
    pub(crate) is_memcache: bool,
    /// A write is in flight.
    pub(crate) is_writing: bool,
    /// In the outbox' list of connections with something to write.
    pub(crate) is_dirty: bool,
    /// In the list of clients whose carried-over input should be looked at.
    pub(crate) is_ready: bool,
    pub(crate) is_paused: bool,
    /// Is given away to another process as soon as nothing is under way for it.
    pub(crate) is_leaving: bool,
    /// Waits for room in a server's queue or for an older connection to come to its end.
    pub(crate) is_blocked: bool,
    /// The server connection on whose list of waiters this client is.
    pub(crate) waiting_on: Option<ConnId>,
    /// Requests that may be under way at once.
    window: u16,
    /// The window opens further once everything before this request has left.
    widen_at: Sequence,
    /// Recent size of large replies, bytes: keeps window times size bounded.
    reply_bytes: u32,
    /// Received and not yet served; starts with a frame at `input_start`.
    pub(crate) input: Buffer,
    pub(crate) input_start: usize,
    pub(crate) scanner: RequestScanner,
    pub(crate) memcache: memcache::RequestScanner,
    /// Requests under way that want no reply.
    pub(crate) silent: u32,
    pub(crate) replies: Replies,
    /// Replies on their way to the next write.
    pub(crate) out: Buffer,
    /// Bytes of the write in flight.
    pub(crate) writing_bytes: usize,
    /// Bytes of parts of replies that wait for the other parts.
    pub(crate) kept_bytes: usize,
    /// What the worker's sums hold for this client.
    pub(crate) counted_input: usize,
    pub(crate) counted_output: usize,
    /// The name given by `CLIENT SETNAME`.
    pub(crate) name: Option<Box<[u8]>>,
    pub(crate) peer: Peer,
    pub(crate) came_at: Ticks,
    /// When it last sent something.
    pub(crate) heard_at: Ticks,
    /// Place of its last command in the table, [`u8::MAX`] before the first.
    pub(crate) last_command: u8,
}

impl Client {
    pub(crate) fn new(
        id: ConnId,
        pool: PoolId,
        is_authenticated: bool,
        peer: Peer,
        now: Instant,
    ) -> Self {
        Self {
            id,
            number: 0,
            pool,
            phase: Phase::Open,
            is_at_eof: false,
            is_authenticated,
            is_resp3: false,
            is_memcache: false,
            is_writing: false,
            is_dirty: false,
            is_ready: false,
            is_paused: false,
            is_leaving: false,
            is_blocked: false,
            waiting_on: None,
            window: PIPELINE_START,
            widen_at: Sequence::default(),
            reply_bytes: 0,
            input: Buffer::new(),
            input_start: 0,
            scanner: RequestScanner::default(),
            memcache: memcache::RequestScanner::default(),
            silent: 0,
            replies: Replies::default(),
            out: Buffer::new(),
            writing_bytes: 0,
            kept_bytes: 0,
            counted_input: 0,
            counted_output: 0,
            name: None,
            peer,
            came_at: Ticks::of(now),
            heard_at: Ticks::of(now),
            last_command: u8::MAX,
        }
    }

    /// Returns the replies' bytes that have not left: waiting for their turn, for the next write,
    /// or in the write.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.out.len() + self.writing_bytes + self.replies.stashed_bytes() + self.kept_bytes
    }

    /// Returns the bytes received and not yet served.
    pub(crate) fn waiting_input(&self) -> &[u8] {
        self.input.get(self.input_start..).unwrap_or_default()
    }

    /// Tells whether another request may be taken. A client that does not read what it gets has
    /// no room: nothing more is asked for on its behalf.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.phase == Phase::Open
            && self.replies.len() < usize::from(self.window)
            && self.unsent_bytes() < CLIENT_UNSENT_PAUSE_BYTES
    }

    /// Keeps what could not be served yet.
    pub(crate) fn keep(&mut self, bytes: &[u8], pool: &mut BufferPool) {
        if !bytes.is_empty() {
            super::replies::append(&mut self.input, pool, bytes);
        }
    }

    /// Drops the first `served` bytes of the waiting input.
    pub(crate) fn consume(&mut self, served: usize, pool: &mut BufferPool) {
        self.input_start += served;
        if self.input_start >= self.input.len() {
            pool.give(std::mem::take(&mut self.input));
            self.input_start = 0;
        } else if self.input_start > self.input.len() / 2 {
            self.input.drain(..self.input_start);
            self.input_start = 0;
        }
    }

    /// Tells whether reading should stop: the client sends faster than it may be served. An
    /// unfinished request is not a reason, since only reading finishes it.
    pub(crate) fn should_pause(&self) -> bool {
        !self.is_paused
            && (!self.has_room() || self.is_blocked)
            && self.waiting_input().len() >= CLIENT_INPUT_PAUSE_BYTES
    }

    /// Tells whether reading should go on. At the end of what a client says there is nothing to
    /// read, and after a drain nothing that should be.
    pub(crate) fn should_resume(&self) -> bool {
        self.is_paused
            && self.phase == Phase::Open
            && !self.is_at_eof
            && !self.is_leaving
            && (self.waiting_input().len() < CLIENT_INPUT_RESUME_BYTES
                || (self.has_room() && !self.is_blocked))
    }

    /// Notes the size of a reply, which bounds the window: `window × size` stays within
    /// [`WINDOW_BYTES`].
    #[inline]
    pub(crate) fn note_reply(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes > self.reply_bytes {
            self.reply_bytes = bytes;
            let fitting = WINDOW_BYTES / bytes.max(1) as usize;
            let fitting = u16::try_from(fitting).unwrap_or(u16::MAX).max(1);
            self.window = self.window.min(fitting);
        } else {
            self.reply_bytes -= self.reply_bytes >> 4;
        }
    }

    /// Opens the window further when the replies to a whole window have left the socket. To be
    /// called when nothing is left to write.
    pub(crate) fn widen(&mut self) {
        if !self.replies.has_passed(self.widen_at) {
            return;
        }
        self.widen_at = self.replies.end();
        let fitting = WINDOW_BYTES / (self.reply_bytes.max(1) as usize);
        let fitting = u16::try_from(fitting).unwrap_or(u16::MAX).max(1);
        self.window = self.window.saturating_mul(2).min(PIPELINE_MAX).min(fitting);
    }

    /// Tells whether something may be done for the client once replies have come or left: serve
    /// what it sent before, or close.
    #[inline]
    pub(crate) fn needs_look(&self) -> bool {
        !self.input.is_empty()
            || self.is_at_eof
            || self.is_leaving
            || self.phase == Phase::Finishing
    }

    /// Tells whether nothing is under way for this client.
    pub(crate) fn is_settled(&self) -> bool {
        self.replies.is_empty() && self.out.is_empty() && !self.is_writing && self.silent == 0
    }
}

// An idle client is a slot of the worker's table, at most a few reply slots and what the runtime
// keeps; together they have to stay below 512 bytes.
const _: () = assert!(size_of::<Client>() <= 304);
