//! The network between the nodes: connections that are made, refused, cut, delayed and broken.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_core::io::CloseReason;
use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;

use super::process::{Conn, Happening, NodeId};
use super::tap::Tap;
use super::world::{Event, State, World};

/// The end of a link that asked for it.
pub(crate) const CALLER: usize = 0;
/// The end of a link that was asked.
pub(crate) const CALLED: usize = 1;

#[derive(Debug)]
pub(crate) enum Segment {
    Opened,
    Bytes(Vec<u8>),
    /// The other end has gone.
    Over(CloseReason),
}

/// One end of a link and what flies to it.
#[derive(Debug)]
pub(crate) struct End {
    pub node: NodeId,
    /// The process does not hold it any more.
    pub is_gone: bool,
    flying: VecDeque<(Instant, Segment)>,
    last_arrival: Instant,
}

/// A stream connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub ends: [End; 2],
    pub is_open: bool,
    /// To an address that moves between nodes.
    pub is_virtual: bool,
    /// What the caller sends does not arrive any more: the address is elsewhere.
    pub is_stranded: bool,
    /// Written before the connection was established.
    early: Vec<u8>,
    pub tap: Option<Box<Tap>>,
}

/// What lies between the nodes, each direction by itself.
#[derive(Debug)]
pub(crate) struct Paths {
    nodes: usize,
    cut: Vec<u32>,
    latency: Duration,
    pub jitter: Duration,
    /// One in so many segments takes much longer; zero for none.
    pub tail_one_in: u64,
    pub tail: Duration,
    /// One in so many writes is cut in two; zero for none.
    pub split_one_in: u64,
}

impl Paths {
    pub(crate) fn new(nodes: usize, latency: Duration) -> Self {
        Self {
            nodes,
            cut: vec![0; nodes * nodes],
            latency,
            jitter: latency,
            tail_one_in: 0,
            tail: Duration::ZERO,
            split_one_in: 0,
        }
    }

    const fn index(&self, from: NodeId, to: NodeId) -> usize {
        from * self.nodes + to
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut[self.index(from, to)] > 0
    }

    pub(crate) fn heal_all(&mut self) {
        self.cut.fill(0);
    }

    pub(crate) fn draw(&self, rng: &mut Rng) -> Duration {
        let mut delay =
            self.latency + Duration::from_nanos(rng.below(self.jitter.as_nanos() as u64));
        if self.tail_one_in > 0 && rng.is_one_in(1, self.tail_one_in) {
            delay += Duration::from_nanos(rng.below(self.tail.as_nanos() as u64));
        }
        delay
    }
}

impl World {
    /// Starts a connection from `from` to whoever listens at `to`.
    pub(crate) fn net_connect(&mut self, at: Instant, conn: Conn, from: NodeId, to: SocketAddr) {
        assert_eq!(conn, self.links.len(), "connections are named in order");
        let is_virtual = self.estate.is_virtual(to);
        let called = match is_virtual {
            true => self.find_virtual(from),
            false => self.by_address.get(&to).copied(),
        };
        let end = |node| End {
            node,
            is_gone: false,
            flying: VecDeque::new(),
            last_arrival: Instant::START,
        };
        let target = called.unwrap_or(from);
        let tap = called.and_then(|called| self.tap_for(from, called));
        let ends = [end(from), end(target)];
        self.links.push(Link {
            ends,
            is_open: false,
            is_virtual,
            is_stranded: false,
            early: Vec::new(),
            tap,
        });
        self.nodes[from].links.insert(conn);
        match called {
            Some(_) => {
                let is_observer = self.nodes[from].is_observer;
                let delay = if is_observer {
                    Duration::from_nanos(1)
                } else {
                    self.paths.draw(&mut self.rng)
                };
                self.agenda.plan(at + delay, Event::Syn { conn });
            }
            // Nobody answers to the question who has it.
            None if is_virtual => {}
            None => self.fly(at, conn, CALLER, Segment::Over(CloseReason::Unreachable)),
        }
    }

    pub(crate) fn net_syn(&mut self, conn: Conn) {
        let (from, to) = (self.links[conn].ends[CALLER].node, self.links[conn].ends[CALLED].node);
        if self.links[conn].ends[CALLER].is_gone {
            return;
        }
        let is_heard = self.nodes[from].is_observer
            || !self.paths.is_cut(from, to)
                && self.nodes[to].is_powered
                && (!self.links[conn].is_virtual || self.has_virtual(to));
        if !is_heard {
            self.held.push(conn);
            return;
        }
        if self.nodes[to].state == State::Dead {
            self.links[conn].ends[CALLED].is_gone = true;
            self.fly(self.now, conn, CALLER, Segment::Over(CloseReason::Refused));
            return;
        }
        self.nodes[to].links.insert(conn);
        self.links[conn].is_open = true;
        self.fly(self.now, conn, CALLER, Segment::Opened);
        // Every connection comes from a port of its own.
        let address =
            SocketAddr::new(self.nodes[from].address.ip(), 32_768 + (conn % 28_000) as u16);
        self.deliver(to, Happening::Accepted { conn, from: address });
    }

    /// Puts a segment on its way to one end.
    fn fly(&mut self, at: Instant, conn: Conn, end: usize, segment: Segment) {
        let (from, to) = (self.links[conn].ends[1 - end].node, self.links[conn].ends[end].node);
        let delay = if self.nodes[from].is_observer || self.nodes[to].is_observer {
            Duration::from_nanos(1)
        } else {
            self.paths.draw(&mut self.rng)
        };
        let target = &mut self.links[conn].ends[end];
        let arrival = (at + delay).max(target.last_arrival);
        target.last_arrival = arrival;
        target.flying.push_back((arrival, segment));
        self.agenda.plan(arrival, Event::Arrive { conn, end });
    }

    pub(crate) fn net_send(&mut self, at: Instant, from: NodeId, conn: Conn, bytes: Vec<u8>) {
        let link = &mut self.links[conn];
        let side = usize::from(link.ends[CALLER].node != from);
        if link.ends[side].is_gone {
            return;
        }
        self.tap_sent(at, conn, side, &bytes);
        let link = &mut self.links[conn];
        if !link.is_open || (side == CALLER && !link.early.is_empty()) {
            link.early.extend_from_slice(&bytes);
            return;
        }
        self.fly_bytes(at, conn, 1 - side, bytes);
    }

    fn fly_bytes(&mut self, at: Instant, conn: Conn, end: usize, mut bytes: Vec<u8>) {
        let odds = self.paths.split_one_in;
        if odds > 0 && bytes.len() > 1 && self.rng.is_one_in(1, odds) {
            let rest = bytes.split_off(1 + self.rng.below(bytes.len() as u64 - 1) as usize);
            self.fly(at, conn, end, Segment::Bytes(bytes));
            bytes = rest;
        }
        self.fly(at, conn, end, Segment::Bytes(bytes));
    }

    /// A process lets go of its end.
    pub(crate) fn net_close(&mut self, at: Instant, from: NodeId, conn: Conn, why: CloseReason) {
        let link = &mut self.links[conn];
        let side = usize::from(link.ends[CALLER].node != from);
        if std::mem::replace(&mut link.ends[side].is_gone, true) {
            return;
        }
        link.ends[side].flying.clear();
        self.nodes[from].links.remove(&conn);
        if !self.links[conn].ends[1 - side].is_gone {
            self.fly(at, conn, 1 - side, Segment::Over(why));
        }
    }

    pub(crate) fn net_arrive(&mut self, conn: Conn, end: usize) {
        let (from, to) = (self.links[conn].ends[1 - end].node, self.links[conn].ends[end].node);
        loop {
            let target = &mut self.links[conn].ends[end];
            if target.flying.front().is_none_or(|(at, _)| *at > self.now)
                || self.paths.is_cut(from, to)
            {
                return;
            }
            if !self.nodes[to].is_powered {
                return;
            }
            let Some((_, segment)) = target.flying.pop_front() else { return };
            if end == CALLED && self.links[conn].is_stranded {
                continue;
            }
            let target = &mut self.links[conn].ends[end];
            if target.is_gone {
                // Whoever is gone answers with a reset.
                if matches!(segment, Segment::Bytes(_)) && !self.links[conn].ends[1 - end].is_gone {
                    self.fly(self.now, conn, 1 - end, Segment::Over(CloseReason::Reset));
                }
                continue;
            }
            match segment {
                Segment::Opened => {
                    let early = std::mem::take(&mut self.links[conn].early);
                    if !early.is_empty() {
                        self.fly_bytes(self.now, conn, CALLED, early);
                    }
                    self.deliver(to, Happening::Connected(conn));
                }
                Segment::Bytes(bytes) => {
                    self.deliver(to, Happening::Received { conn, bytes });
                }
                Segment::Over(why) => {
                    self.deliver(to, Happening::Gone { conn, why });
                }
            }
        }
    }

    /// Cuts one direction between two nodes; cuts add up.
    pub(crate) fn net_cut(&mut self, from: NodeId, to: NodeId) {
        let index = self.paths.index(from, to);
        self.paths.cut[index] += 1;
    }

    /// Takes one cut back. What was sent meanwhile comes late.
    pub(crate) fn net_heal(&mut self, from: NodeId, to: NodeId) {
        let index = self.paths.index(from, to);
        self.paths.cut[index] = self.paths.cut[index].saturating_sub(1);
        if self.paths.cut[index] == 0 {
            self.net_again(|one, two| (one, two) == (from, to));
        }
    }

    /// The kernels send again what got lost.
    pub(crate) fn net_again(&mut self, is_on: impl Fn(NodeId, NodeId) -> bool) {
        for conn in 0..self.links.len() {
            for end in [CALLER, CALLED] {
                let link = &self.links[conn];
                if link.ends[end].flying.is_empty()
                    || !is_on(link.ends[1 - end].node, link.ends[end].node)
                {
                    continue;
                }
                let at = self.now + Duration::from_nanos(self.rng.below(200_000_000));
                let target = &mut self.links[conn].ends[end];
                let at = at.max(target.last_arrival);
                target.last_arrival = at;
                for (arrival, _) in &mut target.flying {
                    *arrival = (*arrival).max(at);
                }
                self.agenda.plan(at, Event::Arrive { conn, end });
            }
        }
        let held = std::mem::take(&mut self.held);
        for conn in held {
            let link = &self.links[conn];
            if is_on(link.ends[CALLER].node, link.ends[CALLED].node) {
                let at = self.now + Duration::from_nanos(self.rng.below(1_000_000_000));
                self.agenda.plan(at, Event::Syn { conn });
            } else {
                self.held.push(conn);
            }
        }
    }

    /// The address that a caller uses is elsewhere: it learns that when it sends something.
    pub(crate) fn net_strand(&mut self, conn: Conn) {
        let link = &mut self.links[conn];
        if std::mem::replace(&mut link.is_stranded, true) || link.ends[CALLER].is_gone {
            return;
        }
        let after = Duration::from_nanos(self.rng.below(200_000_000));
        self.fly(self.now + after, conn, CALLER, Segment::Over(CloseReason::Reset));
    }

    /// Breaks a connection in the middle: both ends learn of it.
    pub(crate) fn net_break(&mut self, conn: Conn) {
        if !self.links[conn].is_open {
            return;
        }
        for end in [CALLER, CALLED] {
            if !self.links[conn].ends[end].is_gone {
                self.fly(self.now, conn, end, Segment::Over(CloseReason::Reset));
            }
        }
    }
}
