//! Serving memcached's text protocol: what of a request's way differs from that of Redis'.
//!
//! A server is never asked to be silent in a way that would leave a request without an answer of
//! its own, because replies are told apart by their order alone:
//!
//! * `noreply` is left out of what is sent, and the reply is dropped when it comes. The client is
//!   told nothing and waits for nothing, also when the request fails.
//! * A quiet meta command (flag `q`) is sent as it is, because which outcomes it keeps quiet about
//!   is the server's affair and differs between releases; an `mn` behind it tells whether there
//!   was a reply.

mod gather;
mod reply;
mod stats;

use crate::id::{ConnId, PoolId, ServerId};
use crate::io::Failure;
use crate::limits::{MEMCACHE_KEY_BYTES_MAX, SILENT_REQUESTS_MAX};
use crate::proxy::client::Client;
use crate::proxy::figures::{Mark, tag_of};
use crate::proxy::replies::append;
use crate::proxy::request::{Flow, Lane};
use crate::proxy::server::ReplyTo;
use crate::proxy::shared::{Shared, key_of};
use crate::stats::ErrorKind;
use crate::wire::memcache::{
    LineError, Request, RequestError, RequestLimits, RequestScan, Verb, decode_key,
};
use crate::wire::resp::Span;

/// What is said when the parts of a reply don't fit together.
pub(super) const STRANGE: &[u8] =
    b"SERVER_ERROR a server answered a part of the request strangely\r\n";

/// What is asked behind a quiet command.
const BARRIER: &[u8] = b"mn\r\n";

/// Whether a whole reply is an error.
pub(super) fn is_error(reply: &[u8]) -> bool {
    [&b"ERROR"[..], b"SERVER_ERROR", b"CLIENT_ERROR"].iter().any(|error| reply.starts_with(error))
}

/// Words a failure; `details` are the server, if there is one, and what is known of the outcome.
pub(super) fn write_failure(
    text: &mut Vec<u8>,
    message: &[u8],
    details: Option<(Option<&str>, &[u8])>,
) {
    text.extend_from_slice(b"SERVER_ERROR ");
    text.extend_from_slice(message);
    match details {
        Some((Some(server), outcome)) => {
            text.extend_from_slice(b" (server ");
            text.extend_from_slice(server.as_bytes());
            text.extend_from_slice(outcome);
        }
        Some((None, outcome)) => {
            text.extend_from_slice(b" (no server of the pool is in the ring");
            text.extend_from_slice(outcome);
        }
        None => {}
    }
    text.extend_from_slice(b"\r\n");
}

/// A request, taken apart.
#[derive(Clone, Copy)]
struct Call<'a> {
    request: Request,
    frame: &'a [u8],
    words: &'a [Span],
}

impl<'a> Call<'a> {
    /// Returns the word at `at`, the name being the first; empty when there is none.
    #[inline]
    fn word(&self, at: usize) -> &'a [u8] {
        self.words.get(at).map_or(&[], |word| word.of(self.frame))
    }

    /// Returns what is kept of it.
    #[inline]
    fn mark(&self) -> Mark<'a> {
        let verb = self.request.verb;
        let argument = if verb.key_at() == 0 { &[] } else { self.word(verb.key_at()) };
        Mark { tag: tag_of(verb), argument }
    }

    /// Appends what a server is to get.
    fn write(&self, out: &mut Vec<u8>) {
        if self.request.is_canonical {
            out.extend_from_slice(self.frame);
        } else {
            self.request.encode(self.frame, self.words, out);
        }
    }
}

impl Shared {
    /// As [`Shared::serve_all`] for a client of memcached's protocol.
    pub(super) fn serve_all_memcache(
        &mut self,
        client: &mut Client,
        bytes: &[u8],
    ) -> (usize, Flow) {
        let mut words = std::mem::take(&mut self.scratch.args);
        let limits = self.memcache_limits(client.pool);
        let mut served = 0;
        let mut flow = Flow::Next;
        while flow == Flow::Next && client.has_room() {
            let rest = bytes.get(served..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match client.memcache.scan(rest, &limits, &mut words) {
                Ok(RequestScan::Incomplete) => break,
                Ok(RequestScan::Complete { len, request }) => {
                    let frame = rest.get(..len).unwrap_or_default();
                    flow = self.serve_memcache(client, Call { request, frame, words: &words });
                    if flow != Flow::Wait {
                        served += len;
                    }
                }
                Ok(RequestScan::Refused { len, error, is_silent }) => {
                    self.note_error(client, ErrorKind::BadRequest);
                    if !is_silent {
                        self.reply(client, error.reply().as_bytes());
                    }
                    served += len;
                }
                Ok(RequestScan::Skipped { len }) => served += len,
                Err(RequestError::LineTooLong) => {
                    self.note_error(client, ErrorKind::ClientProtocol);
                    self.reply(client, b"CLIENT_ERROR line too long\r\n");
                    flow = Flow::Finish;
                }
                Err(RequestError::Binary | RequestError::CrossProtocol) => {
                    self.note_error(client, ErrorKind::ClientProtocol);
                    flow = Flow::Abort;
                }
            }
        }
        self.scratch.args = words;
        self.scratch.shrink();
        (served, flow)
    }

    fn memcache_limits(&self, pool: PoolId) -> RequestLimits {
        RequestLimits {
            bytes_max: self.pools.get(usize::from(pool.0)).map_or(0, |pool| pool.limits.bytes_max),
            takes_control: self.plan.policy.takes_control_in_keys,
        }
    }

    #[inline]
    fn serve_memcache(&mut self, client: &mut Client, call: Call<'_>) -> Flow {
        client.last_command = tag_of(call.request.verb).command;
        match call.request.verb {
            Verb::Get | Verb::Gets | Verb::Gat | Verb::Gats => self.retrieve(client, call),
            Verb::Set
            | Verb::Add
            | Verb::Replace
            | Verb::Append
            | Verb::Prepend
            | Verb::Cas
            | Verb::Incr
            | Verb::Decr
            | Verb::Touch
            | Verb::Delete => {
                let server = self.route(client.pool, call.word(1));
                self.forward_call(client, server, call)
            }
            Verb::MetaGet
            | Verb::MetaSet
            | Verb::MetaDelete
            | Verb::MetaArithmetic
            | Verb::MetaDebug => self.forward_meta(client, call),
            Verb::MetaNoop => {
                self.note_local(client);
                self.reply(client, b"MN\r\n");
                Flow::Next
            }
            Verb::Version => {
                let server = self.any_server(client.pool);
                self.forward_call(client, server, call)
            }
            Verb::FlushAll | Verb::Verbosity => self.tell_all(client, call),
            Verb::Stats => self.answer_stats(client, call),
            Verb::Quit => Flow::Finish,
            Verb::Admin => {
                self.note_error(client, ErrorKind::BadRequest);
                self.reply(client, LineError::Admin.reply().as_bytes());
                Flow::Next
            }
        }
    }

    fn forward_meta(&mut self, client: &mut Client, call: Call<'_>) -> Flow {
        let mut key = call.word(1);
        let mut room = [0; MEMCACHE_KEY_BYTES_MAX];
        if call.request.is_base64 {
            // The same key has the same server in either spelling.
            let Some(decoded) = decode_key(key, &mut room) else {
                self.reply(client, b"CLIENT_ERROR error decoding key\r\n");
                return Flow::Next;
            };
            key = decoded;
        }
        let server = self.route(client.pool, key);
        self.forward_call(client, server, call)
    }

    /// Sends a request to one server.
    #[inline]
    fn forward_call(
        &mut self,
        client: &mut Client,
        server: Option<ServerId>,
        call: Call<'_>,
    ) -> Flow {
        let Request { verb, is_quiet, is_canonical, .. } = call.request;
        if is_canonical && !is_quiet && verb != Verb::MetaSet {
            return self.forward_to(client, server, call.frame, call.mark());
        }
        self.forward_rewritten(client, server, call)
    }

    fn forward_rewritten(
        &mut self,
        client: &mut Client,
        server: Option<ServerId>,
        call: Call<'_>,
    ) -> Flow {
        if !has_silent_room(client, call) {
            return Flow::Wait;
        }
        let Some(server) = server else {
            self.fail_call(client, None, Failure::Refused, call);
            return Flow::Next;
        };
        match self.lane(client, server, tag_of(call.request.verb)) {
            Lane::Open(id) => {
                if call.request.is_noreply {
                    client.silent += 1;
                    self.send_call(id, ReplyTo::Silent { conn: client.id }, call);
                    return Flow::Next;
                }
                let (conn, sequence) = (client.id, client.replies.push_waiting(id.slot()));
                if call.request.is_quiet {
                    self.send_call(id, ReplyTo::Quiet { conn, sequence }, call);
                    self.send_bytes(id, ReplyTo::Barrier, BARRIER);
                } else if call.request.verb == Verb::MetaSet {
                    self.send_call(id, ReplyTo::Store { conn, sequence }, call);
                } else {
                    self.send_call(id, ReplyTo::Client { conn, sequence }, call);
                }
                Flow::Next
            }
            Lane::Busy => Flow::Wait,
            Lane::Failed(failure) => {
                self.fail_call(client, Some(server), failure, call);
                Flow::Next
            }
        }
    }

    fn send_call(&mut self, id: ConnId, to: ReplyTo, call: Call<'_>) {
        let Some(conn) = self.conns.get_mut(key_of(id)) else { return };
        append(&mut conn.out, &mut self.buffers, &[]);
        let start = conn.out.len();
        call.write(&mut conn.out);
        let bytes = conn.out.len() - start;
        self.queue(id, to, bytes, call.mark());
    }

    fn send_bytes(&mut self, id: ConnId, to: ReplyTo, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(key_of(id)) else { return };
        append(&mut conn.out, &mut self.buffers, bytes);
        let mark = Mark { tag: tag_of(Verb::MetaNoop), argument: &[] };
        self.queue(id, to, bytes.len(), mark);
    }

    /// Answers a request that no server will see, if it wants an answer.
    fn fail_call(
        &mut self,
        client: &mut Client,
        server: Option<ServerId>,
        failure: Failure,
        call: Call<'_>,
    ) {
        if !call.request.is_noreply {
            return self.fail_unsent(client, server, failure);
        }
        if let Some((pool, _)) = self.pool_mut(client.pool) {
            pool.stats.forward_error += 1;
            pool.stats.note_error(failure.into());
        }
    }
}

/// Tells whether the client may have another request without a reply under way; if not, it waits
/// until one is over.
fn has_silent_room(client: &mut Client, call: Call<'_>) -> bool {
    if call.request.is_noreply && client.silent >= SILENT_REQUESTS_MAX {
        client.is_blocked = true;
        return false;
    }
    true
}
