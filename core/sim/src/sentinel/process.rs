//! What a simulated process sees of the world, and what it may do to it.

use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_core::id::{ChannelId, JobId, Ticket};
use ringkeeper_core::io::{CloseReason, Exit, Mail, Notice, Output, PersistError, Recipient};
use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;

use crate::codec::{push_bulk, push_head};

/// Names a connection; both ends know it by the same name.
pub(crate) type Conn = usize;

/// Names a process and the machine that it runs on.
pub(crate) type NodeId = usize;

/// Something that happens to a process.
#[derive(Debug)]
pub(crate) enum Happening {
    /// It runs, for the first time or again.
    Started,
    /// An alarm of its own; the number says which.
    Woken(u64),
    Accepted {
        conn: Conn,
        from: SocketAddr,
    },
    Connected(Conn),
    Received {
        conn: Conn,
        bytes: Vec<u8>,
    },
    Gone {
        conn: Conn,
        why: CloseReason,
    },
    /// The kernel took a write whole; only asked for by machines of the border.
    Sent(Conn),
    /// The machine asked for the end of a connection, and here it is.
    Ended(Conn),
    Persisted {
        ticket: Ticket,
        result: Result<(), PersistError>,
    },
    Exited {
        job: JobId,
        exit: Exit,
    },
    /// From another thread of the same process, or from its operator.
    Mail(Mail),
    /// The kernel has opened a channel.
    Opened(ChannelId),
    /// Something came on a channel.
    Datagram {
        channel: ChannelId,
        bytes: Vec<u8>,
    },
}

/// Something that a process does.
#[derive(Debug)]
pub(crate) enum Effect {
    Connect {
        conn: Conn,
        to: SocketAddr,
    },
    Send {
        conn: Conn,
        bytes: Vec<u8>,
    },
    Close {
        conn: Conn,
    },
    /// In the process's own time.
    Wake {
        at: Instant,
        alarm: u64,
    },
    /// Like [`Effect::Wake`], in the time of the world.
    Later {
        after: Duration,
        happening: Happening,
    },
    /// News for other threads of the same process.
    Notify {
        to: Recipient,
        notice: Notice,
    },
    /// Something that only the kernel does: about a channel.
    Kernel(Output),
    /// An event as a Sentinel publishes it.
    Tell {
        channel: String,
        payload: String,
    },
}

/// The hands of a process.
pub(crate) struct Context<'a> {
    /// Monotonic, in the process's own time: it may run fast or slow.
    pub now: Instant,
    /// The wall clock, milliseconds; it may jump.
    pub wall_ms: i64,
    pub address: SocketAddr,
    pub rng: &'a mut Rng,
    pub effects: &'a mut Vec<Effect>,
    pub next_conn: &'a mut Conn,
    /// How long the process does nothing else, as if it waited for its disk.
    pub busy: Duration,
    /// Something else has happened already, so that it belongs to the same turn.
    pub has_more: bool,
}

impl Context<'_> {
    pub(crate) fn connect(&mut self, to: SocketAddr) -> Conn {
        let conn = *self.next_conn;
        *self.next_conn += 1;
        self.effects.push(Effect::Connect { conn, to });
        conn
    }

    pub(crate) fn send(&mut self, conn: Conn, bytes: Vec<u8>) {
        self.effects.push(Effect::Send { conn, bytes });
    }

    pub(crate) fn close(&mut self, conn: Conn) {
        self.effects.push(Effect::Close { conn });
    }

    pub(crate) fn wake_in(&mut self, after: Duration, alarm: u64) {
        let at = self.now + after;
        self.effects.push(Effect::Wake { at, alarm });
    }

    pub(crate) fn tell(&mut self, channel: &str, payload: String) {
        self.effects.push(Effect::Tell { channel: channel.to_owned(), payload });
    }
}

/// Writes a command.
pub(crate) fn command(words: &[&str]) -> Vec<u8> {
    // A word's length takes less than eight bytes, and so do the ends of its lines.
    let mut out = Vec::with_capacity(words.iter().map(|word| word.len() + 12).sum::<usize>() + 12);
    push_head(b'*', words.len(), &mut out);
    for word in words {
        push_bulk(word.as_bytes(), &mut out);
    }
    out
}

/// Reads an address of two words.
pub(crate) fn address(ip: &str, port: &str) -> Option<SocketAddr> {
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

/// Splits a text that has so many parts, no more and no fewer.
pub(crate) fn split<const COUNT: usize>(text: &str, by: char) -> Option<[&str; COUNT]> {
    let mut parts = text.split(by);
    let mut found = [""; COUNT];
    for place in &mut found {
        *place = parts.next()?;
    }
    parts.next().is_none().then_some(found)
}
