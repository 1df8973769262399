//! Both ends of each connection, and what the contract of the border allows on it.

use std::collections::VecDeque;

use ringkeeper_core::buf::Buffer;
use ringkeeper_core::id::ConnId;
use ringkeeper_core::wire::memcache as memcache_wire;
use ringkeeper_core::wire::resp::{
    ReplyScan, ReplyScanner, RequestLimits, RequestScan, RequestScanner,
};

use super::memcache;
use super::speech::{Expected, answer, refusal};
use super::steps::Setup;

/// The runtime's side of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) id: ConnId,
    /// The write whose `Sent` has not been said.
    pub(super) in_write: Option<Buffer>,
    /// The socket is full: `Sent` waits.
    pub(super) holds: bool,
    /// The worker has said `Close`.
    pub(super) is_closing: bool,
    pub(super) is_paused: bool,
    pub(super) reads_after_pause: usize,
}

impl Wire {
    pub(super) fn new(id: ConnId) -> Self {
        Self {
            id,
            in_write: None,
            holds: false,
            is_closing: false,
            is_paused: false,
            reads_after_pause: 0,
        }
    }

    pub(super) fn transmit(&mut self, buffer: Buffer) {
        let id = self.id;
        assert!(!self.is_closing, "a write after Close on {id:?}");
        assert!(!buffer.is_empty(), "an empty write on {id:?}");
        assert!(self.in_write.is_none(), "two writes in flight on {id:?}");
        self.in_write = Some(buffer);
    }

    pub(super) fn close(&mut self) {
        assert!(!self.is_closing, "two Close for {:?}", self.id);
        self.is_closing = true;
    }

    pub(super) fn set_paused(&mut self, is_paused: bool) {
        let id = self.id;
        assert!(!self.is_closing, "a pause or its end after Close on {id:?}");
        assert_ne!(self.is_paused, is_paused, "reading stops or goes on twice on {id:?}");
        self.is_paused = is_paused;
        self.reads_after_pause = 0;
    }
}

/// A client, as itself.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) wire: Wire,
    /// Its number among all clients of the run.
    pub(super) number: u32,
    /// It has sent bytes that nobody planned: only the form of its replies is known.
    pub(super) is_raw: bool,
    pub(super) has_eof: bool,
    /// Decided on and not yet sent.
    pub(super) to_send: Vec<u8>,
    pub(super) asked: u32,
    pub(super) expected: VecDeque<Expected>,
    scanner: Replies,
    partial: Vec<u8>,
}

/// Finds the ends of replies in a client's protocol.
#[derive(Debug)]
enum Replies {
    Redis(ReplyScanner),
    Memcache(memcache_wire::ReplyScanner),
    /// A client that says anything may be told what the scanner of servers' replies does not know.
    Unknown,
}

impl Replies {
    fn advance(&mut self, bytes: &[u8]) -> Result<ReplyScan, String> {
        match self {
            Self::Redis(scanner) => scanner.advance(bytes).map_err(|error| format!("{error:?}")),
            Self::Memcache(scanner) => scanner.advance(bytes).map_err(|error| format!("{error:?}")),
            Self::Unknown => Ok(ReplyScan::Incomplete),
        }
    }
}

impl Client {
    pub(super) fn new(id: ConnId, number: u32, is_memcache: bool) -> Self {
        let scanner = match is_memcache {
            true => Replies::Memcache(memcache_wire::ReplyScanner::default()),
            false => Replies::Redis(ReplyScanner::default()),
        };
        Self {
            wire: Wire::new(id),
            number,
            is_raw: false,
            has_eof: false,
            to_send: Vec::new(),
            asked: 0,
            expected: VecDeque::new(),
            scanner,
            partial: Vec::new(),
        }
    }

    /// Panics when the beginning of a reply is that of another one.
    pub(super) fn check_partial(&self) {
        if self.is_raw || self.partial.is_empty() {
            return;
        }
        let Some(expected) = self.expected.front() else {
            panic!("the beginning of a reply to nothing on {:?}", self.wire.id);
        };
        expected.check_beginning(&self.partial);
    }

    /// Takes what the worker wrote. Returns each whole reply with the request that it answers;
    /// without one when nobody knows what the client asked.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<(Vec<u8>, Option<Expected>)> {
        let mut replies = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.scanner.advance(rest) {
                Ok(ReplyScan::Incomplete) => {
                    self.partial.extend_from_slice(rest);
                    break;
                }
                Ok(ReplyScan::Complete { len }) => {
                    let mut frame = std::mem::take(&mut self.partial);
                    frame.extend_from_slice(&rest[..len]);
                    rest = &rest[len..];
                    let expected = self.expected.pop_front();
                    let id = self.wire.id;
                    assert!(self.is_raw || expected.is_some(), "a reply to nothing on {id:?}");
                    replies.push((frame, expected.filter(|_| !self.is_raw)));
                }
                Err(_) if self.is_raw && matches!(self.scanner, Replies::Memcache(_)) => {
                    self.scanner = Replies::Unknown;
                }
                Err(error) => panic!("{error} in what {:?} gets", self.wire.id),
            }
        }
        replies
    }
}

/// A request that a server has read, and its two answers.
#[derive(Debug)]
pub(super) struct Owed {
    reply: Vec<u8>,
    refusal: Vec<u8>,
}

/// One connection to a server, from the server's end.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) wire: Wire,
    /// Which server: the port is what differs.
    pub(super) port: u16,
    pub(super) is_connected: bool,
    pub(super) has_eof: bool,
    /// What it says is no longer what it was asked for.
    pub(super) is_garbled: bool,
    pub(super) owed: VecDeque<Owed>,
    /// Decided on and not yet sent.
    pub(super) to_send: Vec<u8>,
    is_introduced: bool,
    is_memcache: bool,
    scanner: RequestScanner,
    written: Vec<u8>,
}

impl Server {
    pub(super) fn new(id: ConnId, port: u16, setup: &Setup) -> Self {
        Self {
            wire: Wire::new(id),
            port,
            is_connected: false,
            has_eof: false,
            is_garbled: false,
            owed: VecDeque::new(),
            to_send: Vec::new(),
            is_introduced: !setup.has_password(),
            is_memcache: setup.is_memcache,
            scanner: RequestScanner::default(),
            written: Vec::new(),
        }
    }

    /// Tells whether it may speak.
    pub(super) fn can_send(&self) -> bool {
        self.is_connected && !self.has_eof
    }

    /// Reads what the worker wrote: whole, well-formed requests and nothing else, `AUTH` first
    /// and alone. Returns the requests' arguments.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
        if self.is_memcache {
            return self.take_memcache(bytes);
        }
        self.written.extend_from_slice(bytes);
        let mut requests = Vec::new();
        let mut spans = Vec::new();
        let mut start = 0;
        while start < self.written.len() {
            let rest = &self.written[start..];
            let scan = self.scanner.scan(rest, &RequestLimits::AUTHENTICATED, &mut spans);
            let Ok(RequestScan::Complete { len }) = scan else {
                panic!("{scan:?} in what a server gets");
            };
            let args: Vec<&[u8]> = spans.iter().map(|span| span.of(rest)).collect();
            let is_auth = args.first() == Some(&&b"AUTH"[..]);
            assert_ne!(is_auth, self.is_introduced, "AUTH first, and once");
            self.is_introduced = true;
            self.owed.push_back(Owed { reply: answer(&args), refusal: refusal(&args) });
            requests.push(args.iter().map(|arg| arg.to_vec()).collect());
            start += len;
        }
        self.written.clear();
        requests
    }

    fn take_memcache(&mut self, bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut requests = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (len, heard) = memcache::hear(rest);
            rest = &rest[len..];
            self.owed.push_back(Owed { reply: heard.reply, refusal: heard.refusal });
            requests.push(heard.args);
        }
        requests
    }

    /// Decides on the next reply.
    pub(super) fn decide(&mut self, is_refusal: bool) {
        let Some(owed) = self.owed.pop_front() else { return };
        self.to_send.extend(if is_refusal { owed.refusal } else { owed.reply });
    }
}
