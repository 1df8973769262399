//! Reads along what Sentinels say, so that every promise can be held against their own words.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ringkeeper_core::time::Instant;

use super::net::{CALLED, CALLER};
use super::process::{Conn, NodeId, address};
use super::server::word;
use super::world::{Process, World};
use crate::codec::{Bytes, Parsed, Reply, scan_reply, scan_request};

/// A command as it left a Sentinel.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub at: Instant,
    pub from: NodeId,
    pub to: NodeId,
    pub conn: Conn,
    pub words: Vec<String>,
}

/// The question whether a master is down.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub about: Option<SocketAddr>,
    pub epoch: u64,
    pub run_id: String,
}

/// A peer's answer to it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub ask: Ask,
    pub is_down: bool,
    pub leader: String,
    pub epoch: u64,
}

/// What flies over one connection that a Sentinel made.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    is_to_peer: bool,
    requests: Bytes,
    replies: Bytes,
    /// What the called end has not answered; nothing where the question does not matter.
    unanswered: VecDeque<Option<Ask>>,
    sent_bytes: u64,
    arrived_bytes: u64,
    /// Answers and where in the stream they end.
    flying: VecDeque<(u64, Answer)>,
}

impl World {
    const fn is_sentinel(&self, node: NodeId) -> bool {
        matches!(self.nodes.as_slice()[node].process, Process::Genuine(_) | Process::Ours(_))
    }

    pub(crate) fn tap_for(&self, from: NodeId, to: NodeId) -> Option<Box<Tap>> {
        let tap = Tap { is_to_peer: self.is_sentinel(to), ..Tap::default() };
        self.is_sentinel(from).then(|| Box::new(tap))
    }

    /// Tells whether somebody is in step with a server.
    fn is_followed(&self, node: NodeId) -> bool {
        let address = self.nodes[node].address;
        self.nodes.iter().any(|node| {
            matches!(&node.process, Process::Server(server)
                if server.follows() == Some(address) && server.is_in_step())
        })
    }

    /// One end has written.
    pub(crate) fn tap_sent(&mut self, at: Instant, conn: Conn, side: usize, bytes: &[u8]) {
        let link = &mut self.links[conn];
        let (from, to) = (link.ends[CALLER].node, link.ends[CALLED].node);
        let Some(tap) = link.tap.as_deref_mut() else { return };
        if side == CALLER {
            tap.requests.push(bytes);
            let mut is_promotion = false;
            while let Parsed::Whole(words, used) = scan_request(tap.requests.as_slice()) {
                let ask = ask(&words);
                if let Some(log) = &mut self.wire_log {
                    let words = (0..words.len()).map(|index| word(&words, index).into()).collect();
                    log.push(Line { at, from, to, conn, words });
                }
                self.checker.said(at, from, to, &words, ask.as_ref());
                is_promotion |= words[0] == b"SLAVEOF"
                    && words.get(1).is_some_and(|to| to.eq_ignore_ascii_case(b"no"));
                if tap.is_to_peer {
                    tap.unanswered.push_back(ask);
                }
                tap.requests.skip(used);
            }
            if is_promotion
                && let Process::Server(server) = &self.nodes[to].process
                && server.is_stale_master(self.now)
                && !self.is_followed(to)
            {
                self.checker.promoted_stale(at, from, to);
            }
            return;
        }
        if !tap.is_to_peer {
            return;
        }
        tap.replies.push(bytes);
        tap.sent_bytes += bytes.len() as u64;
        while let Parsed::Whole(reply, used) = scan_reply(tap.replies.as_slice()) {
            let ask = tap.unanswered.pop_front().flatten();
            let answer = ask.and_then(|ask| answer(ask, &reply));
            tap.replies.skip(used);
            let Some(answer) = answer else { continue };
            self.checker.answered(at, to, from, &answer);
            let end = tap.sent_bytes - tap.replies.len() as u64;
            tap.flying.push_back((end, answer));
        }
    }

    /// A process takes in what has arrived.
    pub(crate) fn tap_heard(&mut self, conn: Conn, by: NodeId, count: usize) {
        let link = &mut self.links[conn];
        let (from, to) = (link.ends[CALLER].node, link.ends[CALLED].node);
        let Some(tap) = &mut link.tap else { return };
        if by != from || !tap.is_to_peer {
            return;
        }
        tap.arrived_bytes += count as u64;
        while let Some((_, answer)) = tap.flying.pop_front_if(|(end, _)| *end <= tap.arrived_bytes)
        {
            self.checker.heard(self.now, from, to, &answer);
        }
    }
}

fn ask(words: &[&[u8]]) -> Option<Ask> {
    if words.len() != 6 || !words[1].eq_ignore_ascii_case(b"is-master-down-by-addr") {
        return None;
    }
    let about = address(&word(words, 2), &word(words, 3));
    Some(Ask { about, epoch: word(words, 4).parse().unwrap_or(0), run_id: word(words, 5).into() })
}

fn answer(ask: Ask, reply: &Reply<&[u8]>) -> Option<Answer> {
    let Reply::Array(Some(items)) = reply else { return None };
    let [Reply::Integer(down), Reply::Bulk(Some(leader)), Reply::Integer(epoch)] = &items[..]
    else {
        return None;
    };
    let leader = String::from_utf8_lossy(leader).into_owned();
    Some(Answer { ask, is_down: *down == 1, leader, epoch: u64::try_from(*epoch).unwrap_or(0) })
}
