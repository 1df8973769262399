//! Requests that go to several servers: values, joined in the order of the keys, and what is told
//! to all.

use std::sync::Arc;

use super::{Call, has_silent_room};
use crate::buf::Buffer;
use crate::id::{ConnId, ServerId};
use crate::io::Failure;
use crate::limits::MEMCACHE_LINE_BYTES_MAX;
use crate::proxy::client::Client;
use crate::proxy::fragment::{Joint, Split};
use crate::proxy::replies::append;
use crate::proxy::request::{Flow, Lane, Outcome};
use crate::proxy::server::ReplyTo;
use crate::proxy::shared::{Shared, key_of};
use crate::wire::memcache::Verb;

const TOO_MANY: &[u8] = b"SERVER_ERROR too many split requests are under way; try again\r\n";

/// One line to one server, which is a share of a request.
#[derive(Clone, Copy, Debug)]
struct Part {
    conn: ConnId,
    bytes: usize,
}

/// A server that has some of the keys.
#[derive(Clone, Copy, Debug)]
struct Target {
    conn: ConnId,
    /// The part that keys are being added to.
    part: Option<usize>,
}

impl Shared {
    /// Serves `get` and its kin: as it came when one server has all keys.
    #[inline]
    pub(super) fn retrieve(&mut self, client: &mut Client, call: Call<'_>) -> Flow {
        let first = call.request.verb.key_at();
        let server = self.route(client.pool, call.word(first));
        if call.words.len() == first + 1 {
            return self.forward_call(client, server, call);
        }
        self.retrieve_several(client, call, server)
    }

    fn retrieve_several(
        &mut self,
        client: &mut Client,
        call: Call<'_>,
        server: Option<ServerId>,
    ) -> Flow {
        let Some(first) = server else { return self.forward_call(client, None, call) };
        let is_one_target = self.pool(client.pool).is_some_and(|(_, plan)| plan.is_one_target());
        let mut targets = std::mem::take(&mut self.scratch.targets);
        targets.clear();
        let mut is_together = true;
        for key in call.words.iter().skip(call.request.verb.key_at()) {
            let server = if is_one_target {
                first
            } else {
                self.route(client.pool, key.of(call.frame)).unwrap_or(first)
            };
            is_together &= server == first;
            targets.push(server.0);
        }
        let is_short = line_bytes_max(call.request.verb) >= call.frame.len();
        let flow = if is_together && is_short {
            self.forward_call(client, server, call)
        } else {
            self.gather(client, call, &mut targets)
        };
        self.scratch.targets = targets;
        flow
    }

    /// Asks each server for its keys; `targets` has the server of each key.
    fn gather(&mut self, client: &mut Client, call: Call<'_>, targets: &mut [u16]) -> Flow {
        let mut lanes = Vec::with_capacity(8);
        if let Err(flow) = self.find_lanes(client, call, targets, &mut lanes) {
            return flow;
        }
        if self.splits.is_full() {
            self.reply(client, TOO_MANY);
            return Flow::Next;
        }
        let mut parts = Vec::with_capacity(lanes.len());
        self.write_parts(call, targets, &mut lanes, &mut parts);
        let mut names = Buffer::with_capacity(call.frame.len());
        for key in call.words.iter().skip(call.request.verb.key_at()) {
            names.extend_from_slice(key.of(call.frame));
            names.push(b' ');
        }
        let (joint, count) = (Joint::Values { names }, parts.len());
        let order = targets.to_vec();
        let split = self.splits.insert_with(|_| Split::new(client, joint, count, order, count));
        let Some(split) = split else { return Flow::Next };
        for (number, part) in parts.iter().enumerate() {
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            let to = ReplyTo::Split { split, part: number };
            self.queue(part.conn, to, part.bytes, call.mark());
        }
        if let Some((pool, _)) = self.pool_mut(client.pool) {
            pool.stats.fragments += count as u64;
        }
        Flow::Next
    }

    /// Finds the connection to each server among `targets`, and turns each server into its place
    /// among those. Nothing is sent unless every server can be reached.
    fn find_lanes(
        &mut self,
        client: &mut Client,
        call: Call<'_>,
        targets: &mut [u16],
        lanes: &mut Vec<Target>,
    ) -> Result<(), Flow> {
        let mut place_of = std::mem::take(&mut self.scratch.part_of);
        let servers = self.pool(client.pool).map_or(0, |(_, plan)| plan.servers.len());
        place_of.clear();
        place_of.resize(servers, u16::MAX);
        let mut result = Ok(());
        for target in targets.iter_mut() {
            let server = ServerId(*target);
            let Some(place) = place_of.get_mut(usize::from(server.0)) else { continue };
            if *place == u16::MAX {
                *place = u16::try_from(lanes.len()).unwrap_or(u16::MAX);
                match self.lane(client, server, call.mark().tag) {
                    Lane::Open(conn) => lanes.push(Target { conn, part: None }),
                    Lane::Busy => result = Err(Flow::Wait),
                    Lane::Failed(failure) => {
                        self.fail_unsent(client, Some(server), failure);
                        result = Err(Flow::Next);
                    }
                }
            }
            if result.is_err() {
                break;
            }
            *target = *place;
        }
        self.scratch.part_of = place_of;
        result
    }

    /// Appends the keys to the connections' buffers, in lines that a server takes, and turns the
    /// place of each key's server into the key's part.
    fn write_parts(
        &mut self,
        call: Call<'_>,
        targets: &mut [u16],
        lanes: &mut [Target],
        parts: &mut Vec<Part>,
    ) {
        let verb = call.request.verb;
        let most = line_bytes_max(verb);
        let keys = call.words.iter().skip(verb.key_at());
        for (key, target) in keys.zip(targets) {
            let key = key.of(call.frame);
            let Some(lane) = lanes.get_mut(usize::from(*target)) else { continue };
            let Some(conn) = self.conns.get_mut(key_of(lane.conn)) else { continue };
            let open = lane.part.and_then(|at| parts.get(at)).map(|part| part.bytes);
            if open.is_none_or(|bytes| bytes + key.len() + 3 > most) {
                if let Some(part) = lane.part.and_then(|at| parts.get_mut(at)) {
                    conn.out.extend_from_slice(b"\r\n");
                    part.bytes += 2;
                }
                append(&mut conn.out, &mut self.buffers, verb.name().as_bytes());
                let mut bytes = verb.name().len();
                if verb.key_at() == 2 {
                    conn.out.push(b' ');
                    conn.out.extend_from_slice(call.word(1));
                    bytes += 1 + call.word(1).len();
                }
                lane.part = Some(parts.len());
                parts.push(Part { conn: lane.conn, bytes });
            }
            conn.out.push(b' ');
            conn.out.extend_from_slice(key);
            let at = lane.part.unwrap_or_default();
            if let Some(part) = parts.get_mut(at) {
                part.bytes += 1 + key.len();
            }
            *target = u16::try_from(at).unwrap_or(u16::MAX);
        }
        for lane in lanes {
            let Some(conn) = self.conns.get_mut(key_of(lane.conn)) else { continue };
            if let Some(part) = lane.part.and_then(|at| parts.get_mut(at)) {
                conn.out.extend_from_slice(b"\r\n");
                part.bytes += 2;
            }
        }
    }

    /// Sends a request to every server of the pool, also to those that are ejected, but not to
    /// those that the operator drained. Those that can be reached get it; the reply is an error
    /// when not all are.
    pub(super) fn tell_all(&mut self, client: &mut Client, call: Call<'_>) -> Flow {
        if !has_silent_room(client, call) {
            return Flow::Wait;
        }
        let plan = Arc::clone(&self.plan);
        let servers =
            plan.pools.get(usize::from(client.pool.0)).map_or(&[][..], |pool| &pool.servers);
        let mut lanes = Vec::with_capacity(servers.len());
        let mut failed: Option<(ServerId, Failure)> = None;
        for (id, server) in (0..=u16::MAX).map(ServerId).zip(servers) {
            if server.is_drained {
                continue;
            }
            match self.lane(client, id, call.mark().tag) {
                Lane::Open(conn) => lanes.push(conn),
                Lane::Busy => return Flow::Wait,
                Lane::Failed(failure) => failed = Some((id, failure)),
            }
        }
        if lanes.is_empty() || call.request.is_noreply {
            for conn in &lanes {
                client.silent += 1;
                self.send_call(*conn, ReplyTo::Silent { conn: client.id }, call);
            }
            match failed {
                Some((server, failure)) => self.fail_call(client, Some(server), failure, call),
                None if lanes.is_empty() => self.fail_call(client, None, Failure::Refused, call),
                None => {}
            }
            return Flow::Next;
        }
        let due = lanes.len();
        let split = self.splits.insert_with(|_| Split::new(client, Joint::Ok, due, Vec::new(), 0));
        let Some(split) = split else {
            self.reply(client, TOO_MANY);
            return Flow::Next;
        };
        if let Some((server, failure)) = failed {
            let mut text = std::mem::take(&mut self.scratch.text);
            let outcome = Outcome::NotSent;
            self.write_failure(&mut text, client.pool, Some(server), failure, outcome);
            if let Some(split) = self.splits.get_mut(split) {
                split.fail(&text);
            }
            self.scratch.text = text;
        }
        for (part, conn) in lanes.iter().enumerate() {
            let part = u16::try_from(part).unwrap_or(u16::MAX);
            self.send_call(*conn, ReplyTo::Split { split, part }, call);
        }
        Flow::Next
    }
}

/// Returns how long a line with this command may be for a server.
const fn line_bytes_max(verb: Verb) -> usize {
    if matches!(verb, Verb::Gat | Verb::Gats) { MEMCACHE_LINE_BYTES_MAX } else { usize::MAX }
}
