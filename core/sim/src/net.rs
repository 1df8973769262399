//! The virtual network: links of two pipes that cut, delay, fill up, fall silent and break.

use std::collections::VecDeque;
use std::time::Duration;

use ringkeeper_core::buf::Buffer;
use ringkeeper_core::id::ConnId;
use ringkeeper_core::io::{CloseMode, CloseReason};
use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;

use crate::Check;
use crate::codec::Bytes;
use crate::world::{Event, World};

/// Most pieces into which one write is cut; the rest goes in one piece.
const PIECES_MAX: usize = 12;

#[derive(Debug)]
pub(crate) enum Segment {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// Who reads from a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Machine,
    Peer,
}

/// One direction of a link: what flies, what has arrived, and how much fits in between.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    flying: VecDeque<(Instant, Segment)>,
    flying_bytes: usize,
    last_arrival: Instant,
    /// What has arrived and was not read.
    pub readable: Bytes,
    /// The writer sends nothing more, and all of it is here.
    pub is_ended: bool,
    /// The connection broke.
    pub is_reset: bool,
    /// The writer has said that it is done; nothing may follow.
    pub is_shut: bool,
    capacity: usize,
}

impl Pipe {
    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.flying_bytes + self.readable.len())
    }
}

/// How a link cuts what is written into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grain {
    Whole,
    Halves,
    Crumbs,
}

impl Grain {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        match rng.below(4) {
            0 => Self::Crumbs,
            1 => Self::Halves,
            _ => Self::Whole,
        }
    }

    /// Draws the length of the next piece of `len` bytes; never zero unless `len` is.
    pub(crate) fn cut(self, rng: &mut Rng, len: usize) -> usize {
        let below = |rng: &mut Rng, bound: usize| rng.below(bound as u64) as usize;
        match self {
            _ if len <= 1 => len,
            Self::Whole if rng.is_one_in(7, 8) => len,
            Self::Whole | Self::Halves => 1 + below(rng, len),
            Self::Crumbs => (1 + below(rng, 8)).min(len),
        }
    }
}

/// The far end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Client(usize),
    Server(usize),
}

/// The machine's end of a link, as the runtime sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A client waits in the backlog of the listener.
    Backlog,
    /// The machine wants it; nothing is known yet.
    Connecting,
    /// The runtime knows how connecting ended, the machine does not.
    Connected(Result<(), CloseReason>),
    Open,
    /// The machine asked for the end.
    Closing(CloseMode),
    /// The machine has been told of the end.
    Closed,
}

/// A transmission that the kernel has not taken whole, or whose end was not reported.
#[derive(Debug)]
pub(crate) struct Write {
    pub buffer: Buffer,
    pub taken: usize,
    /// The runtime may report it.
    pub is_reportable: bool,
}

/// A stream connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub peer: Peer,
    pub conn: Option<ConnId>,
    pub phase: Phase,
    /// Peer to machine.
    pub inbound: Pipe,
    /// Machine to peer.
    pub outbound: Pipe,
    /// What the peer wants to send and found no room for.
    pub unsent: Bytes,
    /// The peer wants to end its direction after `unsent`.
    pub wants_fin: bool,
    /// The peer has closed its socket: whatever arrives there is answered with a reset.
    pub is_peer_gone: bool,
    pub write: Option<Write>,
    /// `Some(n)`: paused, and `n` more reads were already under way.
    pub paused: Option<usize>,
    pub is_eof_told: bool,
    pub is_cut: bool,
    /// Replies on it may have shifted: nobody can tell any more whose they are.
    pub is_tainted: bool,
    /// When the last cut was over.
    pub healed_at: Instant,
    /// A fault ended it, so its client must not blame the machine.
    pub is_broken_by_fault: bool,
    /// Of a server: which client each stretch of bytes on their way to the machine is for, as far
    /// as that can be known, in order.
    pub meant_for: VecDeque<(Option<usize>, usize)>,
    /// Of a client: reply bytes that the machine received for it.
    pub owed_bytes: usize,
    /// Bytes that the kernel took from the machine.
    pub taken_bytes: usize,
    grain: Grain,
    pub read_grain: Grain,
    latency: Duration,
    jitter_nanos: u64,
    sent_delay_nanos: u64,
}

impl Link {
    pub(crate) fn new(rng: &mut Rng, peer: Peer, phase: Phase) -> Self {
        let latency_us = if rng.is_one_in(1, 4) { 1 + rng.below(8_000) } else { 20 };
        let jitter_us = if rng.is_one_in(1, 4) { 2_000 } else { 50 };
        // A small window on a long way would be slower than any request timeout.
        let is_near = latency_us + jitter_us < 100;
        let capacity = |rng: &mut Rng| match rng.below(4) {
            0 if is_near => 512 + rng.below(4 * 1024) as usize,
            1 if is_near => 16 * 1024,
            _ => 256 * 1024,
        };
        let sent_delay_us = if rng.is_one_in(1, 4) { 3_000 } else { 20 };
        Self {
            peer,
            conn: None,
            phase,
            inbound: Pipe { capacity: capacity(rng), ..Pipe::default() },
            outbound: Pipe { capacity: capacity(rng), ..Pipe::default() },
            unsent: Bytes::default(),
            wants_fin: false,
            is_peer_gone: false,
            write: None,
            paused: None,
            is_eof_told: false,
            is_cut: false,
            is_tainted: false,
            healed_at: Instant::START,
            is_broken_by_fault: false,
            meant_for: VecDeque::new(),
            owed_bytes: 0,
            taken_bytes: 0,
            grain: Grain::draw(rng),
            read_grain: Grain::draw(rng),
            latency: Duration::from_micros(latency_us),
            jitter_nanos: jitter_us * 1000,
            sent_delay_nanos: sent_delay_us * 1000,
        }
    }

    /// Tells whether both ends still hold the connection.
    pub(crate) const fn is_alive(&self) -> bool {
        !matches!(self.phase, Phase::Closed | Phase::Closing(_) | Phase::Connected(Err(_)))
            && !self.is_peer_gone
            && !self.inbound.is_reset
    }

    const fn pipe(&mut self, to: Side) -> &mut Pipe {
        match to {
            Side::Machine => &mut self.inbound,
            Side::Peer => &mut self.outbound,
        }
    }
}

impl World {
    /// Puts a segment on its way; arrival keeps the order of sending.
    fn fly(&mut self, link: usize, to: Side, segment: Segment) {
        let end = &mut self.links[link];
        let delay = end.latency + Duration::from_nanos(self.rng.below(end.jitter_nanos));
        let pipe = end.pipe(to);
        if pipe.is_shut {
            return;
        }
        let at = (self.now + delay).max(pipe.last_arrival);
        pipe.last_arrival = at;
        match &segment {
            Segment::Bytes(bytes) => pipe.flying_bytes += bytes.len(),
            Segment::Fin | Segment::Reset => pipe.is_shut = true,
        }
        pipe.flying.push_back((at, segment));
        self.agenda.plan(at, Event::Arrive { link, to });
    }

    /// Sends as much of `bytes` as there is room for, in pieces, and returns how much that is.
    fn fly_bytes(&mut self, link: usize, to: Side, bytes: &[u8]) -> usize {
        let grain = self.links[link].grain;
        let room = self.links[link].pipe(to).room().min(bytes.len());
        let mut at = 0;
        for piece in 0..=PIECES_MAX {
            if at == room {
                break;
            }
            let rest = room - at;
            let len = if piece == PIECES_MAX { rest } else { grain.cut(&mut self.rng, rest) };
            self.fly(link, to, Segment::Bytes(bytes[at..at + len].to_vec()));
            at += len;
        }
        room
    }

    /// Sends `bytes` from the peer, now or as soon as they fit.
    pub(crate) fn peer_send(&mut self, link: usize, bytes: &[u8]) {
        if self.links[link].is_peer_gone || self.links[link].wants_fin {
            return;
        }
        self.links[link].unsent.push(bytes);
        self.pump_peer(link);
    }

    /// Sends from a server what is meant for the client at the other end of `client`, if known.
    pub(crate) fn server_send(&mut self, link: usize, bytes: &[u8], client: Option<usize>) {
        self.links[link].meant_for.push_back((client, bytes.len()));
        self.peer_send(link, bytes);
    }

    /// The machine received `count` bytes from a server: whose replies were they?
    pub(crate) fn attribute(&mut self, link: usize, mut count: usize) {
        while count > 0 {
            let Some((client, len)) = self.links[link].meant_for.front_mut() else { return };
            let part = count.min(*len);
            *len -= part;
            count -= part;
            let (client, is_over) = (*client, *len == 0);
            if is_over {
                self.links[link].meant_for.pop_front();
            }
            if let Some(client) = client {
                self.links[client].owed_bytes += part;
                self.credited.insert(client);
            }
        }
    }

    /// After a turn, the machine holds no more than it may for any client that it keeps.
    pub(crate) fn check_backlogs(&mut self) -> Check {
        for link in std::mem::take(&mut self.credited) {
            let end = &self.links[link];
            if end.phase != Phase::Open {
                continue;
            }
            let backlog = end.owed_bytes.saturating_sub(end.taken_bytes);
            self.report.backlog_bytes_max = self.report.backlog_bytes_max.max(backlog);
            if self.scenario.client_backlog_bytes_max.is_some_and(|most| backlog > most) {
                return Err(format!("{backlog} reply bytes are held for {:?}", end.conn));
            }
        }
        Ok(())
    }

    /// Ends the peer's direction after what it still has to send.
    pub(crate) fn peer_finish(&mut self, link: usize) {
        self.links[link].wants_fin = true;
        self.pump_peer(link);
    }

    /// Closes the peer's socket in order: what it sent arrives, what comes is not wanted.
    pub(crate) fn peer_close(&mut self, link: usize) {
        let end = &mut self.links[link];
        end.unsent.clear();
        end.wants_fin = true;
        end.is_peer_gone = true;
        end.outbound.readable.clear();
        self.fly(link, Side::Machine, Segment::Fin);
        self.pump_machine(link);
    }

    /// Breaks the connection from the peer's end.
    pub(crate) fn peer_reset(&mut self, link: usize) {
        let end = &mut self.links[link];
        end.unsent.clear();
        end.is_peer_gone = true;
        end.outbound.readable.clear();
        // A reset may follow an end of stream.
        end.inbound.is_shut = false;
        self.fly(link, Side::Machine, Segment::Reset);
        self.pump_machine(link);
    }

    /// Moves what the peer has to send into the pipe.
    pub(crate) fn pump_peer(&mut self, link: usize) {
        if self.links[link].is_peer_gone {
            return;
        }
        let unsent = std::mem::take(&mut self.links[link].unsent);
        let taken = self.fly_bytes(link, Side::Machine, unsent.as_slice());
        let end = &mut self.links[link];
        end.unsent = unsent;
        end.unsent.skip(taken);
        if end.unsent.is_empty() && end.wants_fin {
            self.fly(link, Side::Machine, Segment::Fin);
        }
    }

    /// Moves the machine's write in flight into the pipe.
    pub(crate) fn pump_machine(&mut self, link: usize) {
        let Some(mut write) = self.links[link].write.take() else { return };
        if write.taken < write.buffer.len() {
            let taken = self.fly_bytes(link, Side::Peer, &write.buffer[write.taken..]);
            write.taken += taken;
            self.links[link].taken_bytes += taken;
            if write.taken == write.buffer.len() {
                let delay = self.rng.below(self.links[link].sent_delay_nanos);
                let at = self.now + Duration::from_nanos(delay);
                self.agenda.plan(at, Event::Written { link });
            }
        }
        self.links[link].write = Some(write);
    }

    /// The kernel took the whole write a moment ago; the runtime learns of it.
    pub(crate) fn written(&mut self, link: usize) {
        if let Some(write) = &mut self.links[link].write
            && write.taken == write.buffer.len()
        {
            write.is_reportable = true;
            if self.links[link].phase == Phase::Closing(CloseMode::Flush) {
                self.fly(link, Side::Peer, Segment::Fin);
            }
            self.wake_runtime(link);
        }
    }

    /// The machine closes its end.
    pub(crate) fn machine_close(&mut self, link: usize, mode: CloseMode) {
        let end = &mut self.links[link];
        let is_written = end.write.as_ref().is_none_or(|write| write.is_reportable);
        match mode {
            CloseMode::Abort => {
                end.outbound.is_shut = false;
                self.fly(link, Side::Peer, Segment::Reset);
            }
            CloseMode::Flush if is_written => self.fly(link, Side::Peer, Segment::Fin),
            CloseMode::Flush => {}
        }
    }

    /// Takes in what has arrived by now at one end of a link.
    pub(crate) fn arrive(&mut self, link: usize, to: Side) -> Check {
        if self.links[link].is_cut {
            return Ok(());
        }
        let now = self.now;
        let is_unwanted = match to {
            Side::Machine => self.links[link].phase == Phase::Closed,
            Side::Peer => self.links[link].is_peer_gone,
        };
        let mut got_bytes = false;
        let pipe = self.links[link].pipe(to);
        while pipe.flying.front().is_some_and(|(at, _)| *at <= now) {
            match pipe.flying.pop_front() {
                Some((_, Segment::Bytes(bytes))) => {
                    pipe.flying_bytes -= bytes.len();
                    got_bytes = true;
                    if !is_unwanted {
                        pipe.readable.push(&bytes);
                    }
                }
                Some((_, Segment::Fin)) => pipe.is_ended = true,
                Some((_, Segment::Reset)) => pipe.is_reset = true,
                None => {}
            }
        }
        if to == Side::Machine {
            self.wake_runtime(link);
            return Ok(());
        }
        if is_unwanted {
            // A closed socket answers data with a reset.
            if got_bytes && !self.links[link].inbound.is_reset {
                self.links[link].inbound.is_shut = false;
                self.fly(link, Side::Machine, Segment::Reset);
            }
            self.pump_machine(link);
            return Ok(());
        }
        match self.links[link].peer {
            Peer::Client(client) => self.client_readable(client, link),
            Peer::Server(server) => {
                self.server_readable(server, link);
                Ok(())
            }
        }
    }

    /// The peer has read `count` bytes; there is room again.
    pub(crate) fn peer_has_read(&mut self, link: usize, count: usize) {
        self.links[link].outbound.readable.skip(count);
        self.pump_machine(link);
    }

    /// Cuts or heals a link. What was sent meanwhile arrives when it heals.
    pub(crate) fn set_cut(&mut self, link: usize, is_cut: bool) -> Check {
        self.links[link].is_cut = is_cut;
        if !is_cut {
            self.links[link].healed_at = self.now;
            self.arrive(link, Side::Machine)?;
            self.arrive(link, Side::Peer)?;
        }
        Ok(())
    }
}
