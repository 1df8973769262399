//! Requests with keys on several servers: split into one part per server, joined in the order of
//! the keys.

use crate::buf::Buffer;
use crate::command::Split as SplitKind;
use crate::id::{ConnId, ServerId};
use crate::proxy::client::Client;
use crate::proxy::figures::Tag;
use crate::proxy::memcache;
use crate::proxy::replies::{Sequence, append};
use crate::proxy::request::{Flow, Lane, Request};
use crate::proxy::server::ReplyTo;
use crate::proxy::shared::{Shared, key_of};
use crate::slab::SlabKey;
use crate::wire::memcache::value_block;
use crate::wire::resp::encode;
use crate::wire::resp::reply::{ReplyScan, ReplyScanner, is_error, parse_integer_reply};
use crate::wire::resp::request::Span;

/// How the parts' replies become one.
#[derive(Debug)]
pub(crate) enum Joint {
    /// As the replies of Redis to a command.
    Resp(SplitKind),
    /// memcached's values, in the order of these keys, which are separated by spaces.
    Values {
        /// The keys.
        names: Buffer,
    },
    /// memcached's `OK`, when every server says so.
    Ok,
}

impl Joint {
    fn is_error(&self, reply: &[u8]) -> bool {
        match self {
            Self::Resp(_) => is_error(reply),
            Self::Values { .. } | Self::Ok => memcache::is_error(reply),
        }
    }

    /// Writes the error that stands for a reply of another form than the command calls for.
    fn encode_strange(&self, out: &mut Buffer) {
        match self {
            Self::Resp(_) => {
                encode::error(out, "ERR a server answered a part of the request strangely");
            }
            Self::Values { .. } | Self::Ok => out.extend_from_slice(memcache::STRANGE),
        }
    }
}

/// A request that several servers answer together.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) client: ConnId,
    pub(crate) sequence: Sequence,
    joint: Joint,
    /// Parts whose reply has not come.
    due: usize,
    /// The first error that a part brought; it becomes the reply.
    error: Option<Buffer>,
    sum: i64,
    kept: usize,
    /// The part of each key, in the order of the keys; for `MGET` and memcached's values.
    order: Vec<u16>,
    /// The replies that came, by part; for `MGET` and memcached's values.
    parts: Vec<PartReply>,
}

#[derive(Debug, Default)]
struct PartReply {
    bytes: Buffer,
    /// Where the next element begins.
    at: usize,
}

/// One server's share of a request that is being split.
#[derive(Clone, Copy, Debug)]
struct Share {
    conn: ConnId,
    keys: usize,
    /// Length of the connection's buffer before the part was appended.
    start: usize,
}

impl Split {
    /// Makes a request of `due` parts that begins with nothing. `order` and `parts` are of use for
    /// values only.
    pub(crate) fn new(
        client: &mut Client,
        joint: Joint,
        due: usize,
        order: Vec<u16>,
        parts: usize,
    ) -> Self {
        Self {
            client: client.id,
            sequence: client.replies.push_split(),
            joint,
            due,
            error: None,
            sum: 0,
            kept: 0,
            order,
            parts: (0..parts).map(|_| PartReply::default()).collect(),
        }
    }

    /// Notes an error; the first becomes the reply.
    pub(crate) fn fail(&mut self, error: &[u8]) {
        self.error.get_or_insert_with(|| error.to_vec());
    }

    /// Returns the replies' bytes that were counted as kept: of all parts but the last.
    pub(crate) const fn kept_bytes(&self) -> usize {
        self.kept
    }

    /// Counts a part off without looking at its reply. Returns whether it was the last.
    pub(crate) fn skip_part(&mut self) -> bool {
        self.due = self.due.saturating_sub(1);
        self.parts.clear();
        self.due == 0
    }

    /// Takes one part's reply. Returns whether it was the last.
    pub(crate) fn take_part(&mut self, part: u16, reply: &[u8]) -> bool {
        self.due = self.due.saturating_sub(1);
        if self.due > 0 {
            self.kept += reply.len();
        }
        if self.joint.is_error(reply) {
            self.fail(reply);
        } else if !self.take_good(part, reply) {
            let mut error = Buffer::new();
            self.joint.encode_strange(&mut error);
            self.fail(&error);
        }
        self.due == 0
    }

    /// Returns false when the reply does not have the form that the command calls for.
    fn take_good(&mut self, part: u16, reply: &[u8]) -> bool {
        let kind = match &self.joint {
            Joint::Resp(kind) => *kind,
            Joint::Values { .. } => {
                let Some(place) = self.parts.get_mut(usize::from(part)) else { return false };
                place.bytes.clear();
                place.bytes.extend_from_slice(reply);
                return reply.ends_with(b"END\r\n");
            }
            Joint::Ok => return reply == b"OK\r\n",
        };
        match kind {
            SplitKind::Mget => {
                let Some(place) = self.parts.get_mut(usize::from(part)) else { return false };
                let Some(header) = reply.iter().position(|byte| *byte == b'\n') else {
                    return false;
                };
                place.bytes.clear();
                place.bytes.extend_from_slice(reply);
                place.at = header + 1;
                reply.first() == Some(&b'*')
            }
            SplitKind::Mset => reply.first() == Some(&b'+'),
            SplitKind::Del | SplitKind::Unlink | SplitKind::Touch | SplitKind::Exists => {
                match parse_integer_reply(reply) {
                    Some(count) => {
                        self.sum = self.sum.saturating_add(count);
                        true
                    }
                    None => false,
                }
            }
        }
    }

    /// Writes the reply to the whole request.
    pub(crate) fn join(&mut self, out: &mut Buffer) {
        if let Some(error) = &self.error {
            out.extend_from_slice(error);
            return;
        }
        let kind = match &self.joint {
            Joint::Resp(kind) => *kind,
            Joint::Values { names } => {
                return join_values(names, &self.order, &mut self.parts, out);
            }
            Joint::Ok => return out.extend_from_slice(b"OK\r\n"),
        };
        match kind {
            SplitKind::Mget => self.join_elements(out),
            SplitKind::Mset => encode::simple(out, "OK"),
            SplitKind::Del | SplitKind::Unlink | SplitKind::Touch | SplitKind::Exists => {
                encode::integer(out, self.sum);
            }
        }
    }

    fn join_elements(&mut self, out: &mut Buffer) {
        let start = out.len();
        encode::array_header(out, self.order.len());
        for part in &self.order {
            let element = self.parts.get_mut(usize::from(*part)).and_then(PartReply::next);
            if let Some(element) = element {
                out.extend_from_slice(element);
            } else {
                out.truncate(start);
                encode::error(out, "ERR a server answered MGET with too few values");
                return;
            }
        }
    }
}

/// Writes the values that came in the order of the keys, then their end. A key without a value is
/// left out; one that is named twice comes twice, as from one server.
fn join_values(names: &[u8], order: &[u16], parts: &mut [PartReply], out: &mut Buffer) {
    for (name, part) in names.split(|byte| *byte == b' ').zip(order) {
        let Some(part) = parts.get_mut(usize::from(*part)) else { continue };
        if let Some(block) = part.next_value(name) {
            out.extend_from_slice(block);
        }
    }
    out.extend_from_slice(b"END\r\n");
}

impl PartReply {
    /// Takes the next value if it is that of `name`.
    fn next_value(&mut self, name: &[u8]) -> Option<&[u8]> {
        let rest = self.bytes.get(self.at..)?;
        let (key, len) = value_block(rest)?;
        if key != name {
            return None;
        }
        self.at += len;
        rest.get(..len)
    }

    fn next(&mut self) -> Option<&[u8]> {
        let rest = self.bytes.get(self.at..)?;
        match ReplyScanner::default().advance(rest) {
            Ok(ReplyScan::Complete { len }) => {
                self.at += len;
                rest.get(..len)
            }
            Ok(ReplyScan::Incomplete) | Err(_) => None,
        }
    }
}

impl Shared {
    /// Serves a command that may be split: as it is when one server has all keys.
    pub(crate) fn split(
        &mut self,
        client: &mut Client,
        kind: SplitKind,
        request: Request<'_>,
    ) -> Flow {
        let step = if kind == SplitKind::Mset { 2 } else { 1 };
        let keys = request.args.len() - 1;
        if kind == SplitKind::Mset && !keys.is_multiple_of(2) {
            return self.refuse(client, &[b"ERR wrong number of arguments for 'mset' command"]);
        }
        let is_one_target = self.pool(client.pool).is_some_and(|(_, plan)| plan.is_one_target());
        let first = self.route(client.pool, request.arg(1));
        if is_one_target || keys == step {
            return self.forward_to(client, first, request.frame, request.mark());
        }
        let mut targets = std::mem::take(&mut self.scratch.targets);
        targets.clear();
        let mut is_together = true;
        let mut has_route = true;
        for span in request.args.iter().skip(1).step_by(step) {
            let server = self.route(client.pool, span.of(request.frame));
            is_together &= server == first;
            has_route &= server.is_some();
            targets.push(server.map_or(u16::MAX, |id| id.0));
        }
        let flow = if is_together || !has_route {
            self.forward_to(client, first, request.frame, request.mark())
        } else {
            self.split_over(client, kind, request, &mut targets)
        };
        self.scratch.targets = targets;
        flow
    }

    /// Splits a request whose keys have the servers `targets`.
    fn split_over(
        &mut self,
        client: &mut Client,
        kind: SplitKind,
        request: Request<'_>,
        targets: &mut [u16],
    ) -> Flow {
        let mut shares = Vec::with_capacity(8);
        if let Err(flow) = self.share_out(client, request.tag, targets, &mut shares) {
            return flow;
        }
        let order = if kind == SplitKind::Mget { targets.to_vec() } else { Vec::new() };
        let parts = if kind == SplitKind::Mget { shares.len() } else { 0 };
        let due = shares.len();
        let key =
            self.splits.insert_with(|_| Split::new(client, Joint::Resp(kind), due, order, parts));
        let Some(key) = key else {
            self.reply_error(client, &[b"ERR too many split requests are under way; try again"]);
            return Flow::Next;
        };
        self.write_shares(kind, request, targets, &mut shares);
        for (part, share) in shares.iter().enumerate() {
            let part = u16::try_from(part).unwrap_or(u16::MAX);
            let end = self.conns.get(key_of(share.conn)).map_or(share.start, |conn| conn.out.len());
            let to = ReplyTo::Split { split: key, part };
            self.queue(share.conn, to, end - share.start, request.mark());
        }
        if let Some((pool, _)) = self.pool_mut(client.pool) {
            pool.stats.fragments += due as u64;
        }
        Flow::Next
    }

    /// Turns the server of each key into its part, and finds each part's connection. Nothing is
    /// sent unless every part can be.
    fn share_out(
        &mut self,
        client: &mut Client,
        tag: Tag,
        targets: &mut [u16],
        shares: &mut Vec<Share>,
    ) -> Result<(), Flow> {
        let mut part_of = std::mem::take(&mut self.scratch.part_of);
        let mut result = Ok(());
        let servers = self.pool(client.pool).map_or(0, |(_, plan)| plan.servers.len());
        part_of.clear();
        part_of.resize(servers, u16::MAX);
        for target in targets.iter_mut() {
            let Some(part) = part_of.get_mut(usize::from(*target)) else { continue };
            if *part == u16::MAX {
                *part = u16::try_from(shares.len()).unwrap_or(u16::MAX);
                match self.lane(client, ServerId(*target), tag) {
                    Lane::Open(conn) => {
                        let start = self.conns.get(key_of(conn)).map_or(0, |conn| conn.out.len());
                        shares.push(Share { conn, keys: 0, start });
                    }
                    Lane::Busy => {
                        result = Err(Flow::Wait);
                        break;
                    }
                    Lane::Failed(failure) => {
                        self.fail_unsent(client, Some(ServerId(*target)), failure);
                        result = Err(Flow::Next);
                        break;
                    }
                }
            }
            if let Some(share) = shares.get_mut(usize::from(*part)) {
                share.keys += 1;
            }
            *target = *part;
        }
        self.scratch.part_of = part_of;
        result
    }

    /// Appends each part to its connection's buffer. The arguments' bytes are copied as they
    /// came, length lines included.
    fn write_shares(
        &mut self,
        kind: SplitKind,
        request: Request<'_>,
        parts: &[u16],
        shares: &mut [Share],
    ) {
        let step = if kind == SplitKind::Mset { 2 } else { 1 };
        let frame = request.frame;
        let end_of = |span: &Span| span.start as usize + span.len as usize + 2;
        let name_end = request.args.first().map_or(0, end_of);
        let name_start =
            frame.iter().position(|byte| *byte == b'\n').map_or(0, |line_end| line_end + 1);
        let name = frame.get(name_start..name_end).unwrap_or_default();
        for share in shares.iter() {
            let Some(conn) = self.conns.get_mut(key_of(share.conn)) else { continue };
            append(&mut conn.out, &mut self.buffers, &[]);
            encode::array_header(&mut conn.out, 1 + share.keys * step);
            conn.out.extend_from_slice(name);
        }
        let mut start = name_end;
        let arguments = request.args.get(1..).unwrap_or_default();
        for (group, part) in arguments.chunks(step).zip(parts) {
            let end = group.last().map_or(start, end_of);
            if let Some(share) = shares.get(usize::from(*part))
                && let Some(conn) = self.conns.get_mut(key_of(share.conn))
            {
                conn.out.extend_from_slice(frame.get(start..end).unwrap_or_default());
            }
            start = end;
        }
    }

    /// Takes a split request out of the table.
    pub(crate) fn take_split(&mut self, key: SlabKey) -> Option<Split> {
        self.splits.remove(key)
    }
}
