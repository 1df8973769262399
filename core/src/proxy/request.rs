//! From a request's bytes to a server's queue.

use crate::command::{self, Command, KeyError, Keys, Treatment};
use crate::id::{ConnId, PoolId, ServerId};
use crate::io::Failure;
use crate::proxy::client::{Client, Phase};
use crate::proxy::figures::{Mark, Tag, class_of, head_of};
use crate::proxy::memcache;
use crate::proxy::replies::append;
use crate::proxy::server::{InFlight, ReplyTo, ServerConn};
use crate::proxy::shared::{Shared, Timer, key_of};
use crate::stats::{Class, ErrorKind};
use crate::time::Instant;
use crate::wire::resp::encode;
use crate::wire::resp::request::{RequestError, RequestLimits, RequestScan, Span};

/// What becomes of the client after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The request is taken.
    Next,
    /// Nothing was done; try the same request again later.
    Wait,
    /// The request is taken and was the last: send what is owed, then close.
    Finish,
    /// Close at once, with nothing more sent.
    Abort,
}

/// Whether a server saw a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was never written: it has had no effect.
    NotSent,
    /// It was written: it may have had its effect.
    Unknown,
    /// It was written, and has no effect whatever became of it.
    Harmless,
}

/// A request, taken apart.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) frame: &'a [u8],
    pub(crate) args: &'a [Span],
    pub(crate) tag: Tag,
}

impl<'a> Request<'a> {
    /// Makes a request whose command has not been looked up.
    pub(crate) const fn new(frame: &'a [u8], args: &'a [Span]) -> Self {
        Self { frame, args, tag: Tag { command: u8::MAX, class: Class::Other } }
    }

    /// Returns what is kept of it.
    #[inline]
    pub(crate) fn mark(&self) -> Mark<'a> {
        Mark { tag: self.tag, argument: self.arg(1) }
    }

    /// Returns the argument at `at`, the name being the first; empty when there is none.
    #[inline]
    pub(crate) fn arg(&self, at: usize) -> &'a [u8] {
        self.args.get(at).map_or(&[], |span| span.of(self.frame))
    }
}

/// Where a request's server is to be reached.
pub(crate) enum Lane {
    /// By this connection, which has room.
    Open(ConnId),
    /// Not now: the client waits.
    Busy,
    /// Not at all.
    Failed(Failure),
}

impl Shared {
    /// Serves the requests at the start of `bytes`, as many as the client has room for. Returns
    /// how many bytes were served and what becomes of the client.
    pub(crate) fn serve_all(&mut self, client: &mut Client, bytes: &[u8]) -> (usize, Flow) {
        if client.is_memcache {
            return self.serve_all_memcache(client, bytes);
        }
        let mut args = std::mem::take(&mut self.scratch.args);
        let mut served = 0;
        let mut flow = Flow::Next;
        while flow == Flow::Next && client.has_room() {
            let rest = bytes.get(served..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let limits = self.limits_for(client);
            match client.scanner.scan(rest, &limits, &mut args) {
                Ok(RequestScan::Incomplete) => break,
                Ok(RequestScan::Complete { len }) => {
                    let frame = rest.get(..len).unwrap_or_default();
                    flow = self.serve(client, Request::new(frame, &args));
                    if flow != Flow::Wait {
                        served += len;
                    }
                }
                Ok(RequestScan::Inline { len, line_len }) => {
                    let line = rest.get(..line_len).unwrap_or_default();
                    flow = self.serve_inline(client, line, &mut args);
                    if flow != Flow::Wait {
                        served += len;
                    }
                }
                Ok(RequestScan::Empty { len }) => {
                    served += len;
                    if !self.plan.policy.has_inline {
                        flow = Flow::Abort;
                    }
                }
                Err(error) => flow = self.reject_bytes(client, error),
            }
        }
        self.scratch.args = args;
        self.scratch.shrink();
        (served, flow)
    }

    #[inline]
    fn limits_for(&self, client: &Client) -> RequestLimits {
        match self.pools.get(usize::from(client.pool.0)) {
            Some(pool) if client.is_authenticated => pool.limits,
            _ => RequestLimits::UNAUTHENTICATED,
        }
    }

    fn serve_inline(&mut self, client: &mut Client, line: &[u8], args: &mut Vec<Span>) -> Flow {
        if !self.plan.policy.has_inline {
            return Flow::Abort;
        }
        let mut frame = Vec::new();
        if let Err(error) = crate::wire::resp::encode_inline(line, &mut frame) {
            return self.reject_bytes(client, error);
        }
        let limits = self.limits_for(client);
        let mut scanner = crate::wire::resp::request::RequestScanner::default();
        match scanner.scan(&frame, &limits, args) {
            Ok(RequestScan::Complete { .. }) => self.serve(client, Request::new(&frame, args)),
            Ok(_) => Flow::Next,
            Err(error) => self.reject_bytes(client, error),
        }
    }

    /// Answers bytes that are no request. The stream cannot be read on.
    fn reject_bytes(&mut self, client: &mut Client, error: RequestError) -> Flow {
        self.note_error(client, ErrorKind::ClientProtocol);
        if self.plan.policy.is_bad_request_fatal || error == RequestError::CrossProtocol {
            return Flow::Abort;
        }
        self.reply_with(client, |text| error.encode_message(text));
        Flow::Finish
    }

    /// Serves one request.
    #[inline]
    fn serve(&mut self, client: &mut Client, request: Request<'_>) -> Flow {
        let name = request.arg(0);
        let Some((place, command)) = command::lookup_at(name) else {
            return self.refuse_unknown(client, request);
        };
        client.last_command = place;
        let request = Request { tag: Tag { command: place, class: class_of(command) }, ..request };
        if !command.accepts(request.args.len()) {
            return self.refuse_with(client, |text| command::encode_wrong_arity(command, text));
        }
        if !client.is_authenticated && !command.is_allowed_before_auth() {
            self.ask_for_password(client);
            return Flow::Next;
        }
        match command.treatment {
            Treatment::Forward => self.forward(client, command, request),
            Treatment::Split(kind) => self.split(client, kind, request),
            Treatment::Local(local) => self.answer(client, local, request),
            Treatment::AnyServer => self.forward_to_any(client, request),
            Treatment::Refuse(refusal) => {
                self.refuse(client, &[b"ERR ", refusal.message().as_bytes()])
            }
        }
    }

    /// Counts a request that the proxy answers itself.
    pub(crate) fn note_local(&mut self, client: &Client) {
        if let Some((pool, _)) = self.pool_mut(client.pool) {
            pool.stats.local_replies += 1;
        }
    }

    /// Counts a request that gets an error of ours.
    pub(crate) fn note_error(&mut self, client: &Client, kind: ErrorKind) {
        if let Some((pool, _)) = self.pool_mut(client.pool) {
            pool.stats.note_error(kind);
        }
    }

    fn ask_for_password(&mut self, client: &mut Client) {
        self.note_error(client, ErrorKind::Unauthenticated);
        // Redis' sentence has a full stop, twemproxy's has none.
        let reply: &[u8] = if self.plan.policy.is_bad_request_fatal {
            b"-NOAUTH Authentication required\r\n"
        } else {
            b"-NOAUTH Authentication required.\r\n"
        };
        self.reply(client, reply);
    }

    fn refuse_unknown(&mut self, client: &mut Client, request: Request<'_>) -> Flow {
        if crate::wire::resp::is_cross_protocol(request.arg(0)) {
            self.note_error(client, ErrorKind::ClientProtocol);
            return Flow::Abort;
        }
        if !client.is_authenticated && !self.plan.policy.is_bad_request_fatal {
            self.ask_for_password(client);
            return Flow::Next;
        }
        self.refuse_with(client, |text| command::encode_unknown(request.frame, request.args, text))
    }

    /// Answers a request that is well formed and cannot be served; the connection lives, except
    /// where the policy says otherwise.
    pub(crate) fn refuse(&mut self, client: &mut Client, message: &[&[u8]]) -> Flow {
        self.refuse_with(client, |text| encode::error_parts(text, message))
    }

    fn refuse_with(&mut self, client: &mut Client, encode: impl FnOnce(&mut Vec<u8>)) -> Flow {
        self.note_error(client, ErrorKind::BadRequest);
        if self.plan.policy.is_bad_request_fatal {
            return Flow::Abort;
        }
        self.reply_with(client, encode);
        Flow::Next
    }

    pub(crate) fn reply_error(&mut self, client: &mut Client, message: &[&[u8]]) {
        self.reply_with(client, |text| encode::error_parts(text, message));
    }

    /// Gives a reply that is encoded on the spot its place in the client's order.
    pub(crate) fn reply_with(&mut self, client: &mut Client, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut text = std::mem::take(&mut self.scratch.text);
        text.clear();
        encode(&mut text);
        self.reply(client, &text);
        self.scratch.text = text;
        self.scratch.shrink();
    }

    /// Gives a reply of our own its place in the client's order.
    pub(crate) fn reply(&mut self, client: &mut Client, reply: &[u8]) {
        client.replies.push_ready(reply, &mut client.out, &mut self.buffers);
        self.mark_dirty(client);
    }

    /// Sends a request to the one server that has all its keys.
    #[inline]
    fn forward(&mut self, client: &mut Client, command: &Command, request: Request<'_>) -> Flow {
        if let Keys::Range { first: 1, last: 1, .. } = command.keys {
            let server = self.route(client.pool, request.arg(1));
            return self.forward_to(client, server, request.frame, request.mark());
        }
        self.forward_keys(client, command, request)
    }

    /// Like [`Shared::forward`] for commands with several keys: they have to be on one server.
    fn forward_keys(
        &mut self,
        client: &mut Client,
        command: &Command,
        request: Request<'_>,
    ) -> Flow {
        let is_one_target = self.pool(client.pool).is_some_and(|(_, plan)| plan.is_one_target());
        let mut keys = std::mem::take(&mut self.scratch.keys);
        keys.clear();
        let found = command::keys(command, request.frame, request.args, &mut keys);
        let flow = match found {
            Ok(()) => self.forward_if_together(client, command, request, &keys, is_one_target),
            Err(KeyError::PatternKeys) if is_one_target => {
                self.forward_if_together(client, command, request, &keys, true)
            }
            Err(error) => self.refuse(client, &[b"ERR ", error.message().as_bytes()]),
        };
        self.scratch.keys = keys;
        flow
    }

    fn forward_if_together(
        &mut self,
        client: &mut Client,
        command: &Command,
        request: Request<'_>,
        keys: &[Span],
        is_one_target: bool,
    ) -> Flow {
        let Some(first) = keys.first() else {
            return self.forward_to_any(client, request);
        };
        let server = self.route(client.pool, first.of(request.frame));
        if !is_one_target {
            for key in keys.iter().skip(1) {
                if self.route(client.pool, key.of(request.frame)) != server {
                    let parts: [&[u8]; 3] = [
                        b"CROSSSLOT Keys of '",
                        command.name.as_bytes(),
                        b"' are on different servers of this pool; give them a common hash tag",
                    ];
                    self.note_error(client, ErrorKind::BadRequest);
                    self.reply_error(client, &parts);
                    return Flow::Next;
                }
            }
        }
        self.forward_to(client, server, request.frame, request.mark())
    }

    /// Sends a request that has no key to the server that twemproxy would choose.
    pub(crate) fn forward_to_any(&mut self, client: &mut Client, request: Request<'_>) -> Flow {
        let server = self.any_server(client.pool);
        self.forward_to(client, server, request.frame, request.mark())
    }

    /// Returns the server for what has no key: the one that twemproxy would choose.
    pub(crate) fn any_server(&mut self, pool: PoolId) -> Option<ServerId> {
        let pool = self.pools.get(usize::from(pool.0))?;
        pool.table.route(b"placeholder", &mut self.rng)
    }

    #[inline]
    pub(crate) fn route(&mut self, pool: PoolId, key: &[u8]) -> Option<ServerId> {
        if let Some(keys) = &mut self.figures.keys {
            keys.note_key(pool, key);
        }
        let pool = self.pools.get(usize::from(pool.0))?;
        pool.table.route(key, &mut self.rng)
    }

    #[inline]
    pub(crate) fn forward_to(
        &mut self,
        client: &mut Client,
        server: Option<ServerId>,
        frame: &[u8],
        mark: Mark<'_>,
    ) -> Flow {
        let Some(server) = server else {
            self.fail_unsent(client, None, Failure::Refused);
            return Flow::Next;
        };
        match self.lane(client, server, mark.tag) {
            Lane::Open(id) => {
                let Some(conn) = self.conns.get_mut(key_of(id)) else { return Flow::Wait };
                let sequence = client.replies.push_waiting(id.slot());
                append(&mut conn.out, &mut self.buffers, frame);
                let to = ReplyTo::Client { conn: client.id, sequence };
                self.queue(id, to, frame.len(), mark);
                Flow::Next
            }
            Lane::Busy => Flow::Wait,
            Lane::Failed(failure) => {
                self.fail_unsent(client, Some(server), failure);
                Flow::Next
            }
        }
    }

    /// Finds the connection that carries this client's requests to `server`; opens it if need be.
    #[inline]
    pub(crate) fn lane(&mut self, client: &mut Client, id: ServerId, tag: Tag) -> Lane {
        let Some(server) = self
            .pools
            .get(usize::from(client.pool.0))
            .and_then(|pool| pool.servers.get(usize::from(id.0)))
        else {
            return Lane::Failed(Failure::Refused);
        };
        // Order before speed: what this client sent by an older connection has to be settled
        // before a newer one may carry its next request to the same server.
        if !server.retiring.is_empty()
            && (client.silent > 0
                || server.retiring.iter().any(|old| client.replies.is_owed_through(old.slot())))
        {
            client.is_blocked = true;
            return Lane::Busy;
        }
        if server.is_gated {
            return self.gated_lane(client, id, tag);
        }
        let lane = server.lane_of(client.id, client.is_resp3);
        let open = server.lanes.get(lane).copied().flatten();
        self.open_lane(client, id, lane, open)
    }

    /// Takes the connection that is `open` in a lane, if it has room; makes one if there is none.
    #[inline]
    pub(crate) fn open_lane(
        &mut self,
        client: &mut Client,
        id: ServerId,
        lane: usize,
        open: Option<ConnId>,
    ) -> Lane {
        let open = match open {
            Some(conn) => conn,
            None => match self.open_on_demand(client.pool, id, lane) {
                Ok(conn) => conn,
                Err(failure) => return Lane::Failed(failure),
            },
        };
        match self.conns.get_mut(key_of(open)) {
            Some(conn) if conn.has_room() => Lane::Open(open),
            Some(conn) if conn.is_waiting() => {
                if self.make_room(open) {
                    Lane::Open(open)
                } else {
                    Lane::Failed(Failure::NoMaster)
                }
            }
            Some(conn) => {
                client.is_blocked = true;
                if client.waiting_on != Some(open) {
                    client.waiting_on = Some(open);
                    conn.waiters.push(client.id);
                }
                Lane::Busy
            }
            None => Lane::Failed(Failure::Refused),
        }
    }

    /// Notes a request whose bytes were appended to the connection's buffer.
    #[inline]
    pub(crate) fn queue(&mut self, id: ConnId, to: ReplyTo, bytes: usize, mark: Mark<'_>) {
        let now = self.now;
        let key = head_of(&self.figures, mark.argument);
        let Some(conn) = self.conns.get_mut(key_of(id)) else { return };
        let length = u32::try_from(bytes).unwrap_or(u32::MAX);
        conn.in_flight.push_back(InFlight {
            to,
            queued_at: now,
            bytes: length,
            tag: mark.tag,
            key,
        });
        conn.in_flight_bytes += u64::from(length);
        conn.queued += 1;
        let (pool, server, is_timer_armed) = (conn.pool, conn.server, conn.is_timer_armed);
        mark_dirty_server(&mut self.outbox.dirty_servers, conn);
        if !is_timer_armed {
            self.arm_requests(id, now);
        }
        if let Some(stats) = self.stats_mut(pool, server) {
            stats.requests += 1;
            stats.request_bytes += u64::from(length);
        }
    }

    /// Arms the request timer for the first request of a queue.
    fn arm_requests(&mut self, id: ConnId, now: Instant) {
        let Some(conn) = self.conns.get(key_of(id)) else { return };
        let Some(patience) = self.patience(conn) else { return };
        self.timers.arm(now + patience, Timer::Requests(id));
        if let Some(conn) = self.conns.get_mut(key_of(id)) {
            conn.is_timer_armed = true;
        }
    }

    /// Answers a request that no server will see.
    pub(crate) fn fail_unsent(
        &mut self,
        client: &mut Client,
        server: Option<ServerId>,
        failure: Failure,
    ) {
        let mut text = std::mem::take(&mut self.scratch.text);
        self.write_failure(&mut text, client.pool, server, failure, Outcome::NotSent);
        self.reply(client, &text);
        self.scratch.text = text;
    }

    /// Words a failure: twemproxy's text, and where the policy wants it, which server, and whether
    /// the request may have had its effect.
    pub(crate) fn write_failure(
        &mut self,
        text: &mut Vec<u8>,
        pool: PoolId,
        server: Option<ServerId>,
        failure: Failure,
        outcome: Outcome,
    ) {
        text.clear();
        let is_detailed = self.plan.policy.has_detailed_errors;
        let Some((pool, plan)) = self.pool_mut(pool) else { return };
        pool.stats.forward_error += 1;
        pool.stats.note_error(failure.into());
        let message = failure.message().as_bytes();
        let words: &[u8] = match outcome {
            Outcome::NotSent => b"; the request was not sent)",
            Outcome::Unknown => b"; whether the request took effect is unknown)",
            Outcome::Harmless => b"; the request was sent and only reads)",
        };
        let name = server.and_then(|id| plan.servers.get(usize::from(id.0)));
        if plan.is_memcache {
            let details = is_detailed.then(|| (name.map(|server| &*server.name), words));
            return memcache::write_failure(text, message, details);
        }
        let shard = server.and_then(|id| plan.servers.get(usize::from(id.0))?.shard.as_ref());
        let is_special = shard.is_some() || failure == Failure::TooFewCopies;
        let code: &[u8] = match (failure, outcome) {
            (Failure::NoMaster | Failure::Fenced, Outcome::NotSent) => b"MASTERDOWN ",
            (_, Outcome::Unknown) if is_special => b"UNKNOWN ",
            _ if !is_detailed => return encode::error_parts(text, &[b"ERR ", message]),
            _ => b"ERR ",
        };
        match name {
            Some(server) => encode::error_parts(
                text,
                &[code, message, b" (server ", server.name.as_bytes(), words],
            ),
            None => encode::error_parts(
                text,
                &[b"ERR ", message, b" (no server of the pool is in the ring", words],
            ),
        }
    }

    /// Acts on what became of a client after its requests. Returns whether it lives on.
    pub(crate) fn follow(&mut self, client: &mut Client, flow: Flow) {
        match flow {
            Flow::Next | Flow::Wait => {}
            Flow::Finish => {
                client.phase = Phase::Finishing;
                self.pause(client);
            }
            Flow::Abort => self.abort_client(client),
        }
    }
}

/// Puts a server connection on the list of those with something to write.
#[inline]
pub(crate) fn mark_dirty_server(dirty: &mut Vec<ConnId>, conn: &mut ServerConn) {
    if !conn.is_dirty && conn.can_write() {
        conn.is_dirty = true;
        dirty.push(conn.id);
    }
}
