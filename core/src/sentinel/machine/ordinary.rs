//! The commands that every Redis knows, as far as a Sentinel serves them.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::Sentinel;
use super::catalog::{self, Entry, command_command};
use super::clients::{Client, ClientKey, Served, seconds};
use crate::io::{Endpoint, Event, Output};
use crate::limits;
use crate::sentinel::hello::CHANNEL;
use crate::sentinel::instance::MasterName;
use crate::sentinel::peers::Way;
use crate::sentinel::reply::{Protocol, encode_role};
use crate::time::Instant;
use crate::wire::resp::encode;

/// The version of Redis whose replies these are.
pub(super) const REDIS_VERSION: &str = "7.0.15";

/// Tells that a command was called with too few or too many words.
pub(super) fn arity_error(out: &mut Vec<u8>, name: &str) {
    encode::error(out, &format!("ERR wrong number of arguments for '{name}' command"));
}

/// Tells that a command has no such part.
pub(super) fn unknown_subcommand(out: &mut Vec<u8>, command: &str, sub: &[u8]) {
    let shown = sub.get(..128).unwrap_or(sub);
    let help = format!("'. Try {command} HELP.");
    encode::error_parts(out, &[b"ERR unknown subcommand '", shown, help.as_bytes()]);
}

impl Sentinel {
    /// Serves one command.
    pub(super) fn command(
        &mut self,
        now: Instant,
        key: ClientKey,
        args: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Served {
        let [name, rest @ ..] = args else { return Served::Done };
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let found = catalog::resolve(&[name.as_bytes()]);
        let Some((_, Entry { name: known, arity, .. })) = found else {
            unknown_command(args, out);
            return Served::Done;
        };
        let count = i64::try_from(args.len()).unwrap_or(i64::MAX);
        if (*arity > 0 && count != *arity) || count < arity.abs() {
            arity_error(out, known);
            return Served::Done;
        }
        let Some(client) = self.clients.get_mut(key) else { return Served::Done };
        client.last_command.clear();
        client.last_command.push_str(known);
        let is_open = matches!(*known, "auth" | "hello");
        if !client.is_authenticated && !is_open {
            encode::error(out, "NOAUTH Authentication required.");
            return Served::Done;
        }
        if self.refuse(now, key, args, out) {
            return Served::Done;
        }
        let Some(client) = self.clients.get(key) else { return Served::Done };
        let in_subscription = ["ping", "subscribe", "unsubscribe", "psubscribe", "punsubscribe"];
        let is_bound = client.is_subscriber() && client.protocol == Protocol::Resp2;
        if is_bound && !in_subscription.contains(known) {
            let text = format!(
                "ERR Can't execute '{known}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / \
                 QUIT / RESET are allowed in this context"
            );
            encode::error(out, &text);
            return Served::Done;
        }
        self.dispatch(now, key, known, rest, out)
    }

    fn dispatch(
        &mut self,
        now: Instant,
        key: ClientKey,
        name: &str,
        rest: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Served {
        match name {
            "ping" => self.ping_command(key, rest, out),
            "sentinel" => return self.sentinel_command(now, key, rest, out),
            "subscribe" => return self.clients.subscribe(key, rest, false, out),
            "psubscribe" => return self.clients.subscribe(key, rest, true, out),
            "unsubscribe" => self.clients.unsubscribe(key, rest, false, out),
            "punsubscribe" => self.clients.unsubscribe(key, rest, true, out),
            "publish" => self.publish_command(now, rest, out),
            "info" => {
                let text = self.info_text(now, rest);
                self.verbatim(key, &text, out);
            }
            "role" => {
                let names: Vec<&MasterName> = self.names.keys().collect();
                encode_role(names.into_iter(), out);
            }
            "client" => return self.client_command(now, key, rest, out),
            "shutdown" => return self.shutdown_command(rest, out),
            "auth" => self.authenticate(now, key, rest, out),
            "hello" => self.hello_command(now, key, rest, out),
            "acl" => return self.acl_command(now, key, rest, out),
            "command" => command_command(rest, self.protocol(key), out),
            _ => debug_assert!(false, "{name} is listed and not served"),
        }
        Served::Done
    }

    pub(super) fn protocol(&self, key: ClientKey) -> Protocol {
        self.clients.get(key).map_or(Protocol::Resp2, |client| client.protocol)
    }

    /// Writes a text that people read.
    pub(super) fn verbatim(&self, key: ClientKey, text: &str, out: &mut Vec<u8>) {
        match self.protocol(key) {
            Protocol::Resp2 => encode::bulk(out, text.as_bytes()),
            Protocol::Resp3 => {
                out.push(b'=');
                encode::decimal(out, text.len() as u64 + 4);
                out.extend_from_slice(b"\r\ntxt:");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    fn ping_command(&self, key: ClientKey, rest: &[&[u8]], out: &mut Vec<u8>) {
        let is_bound = self
            .clients
            .get(key)
            .is_some_and(|client| client.is_subscriber() && client.protocol == Protocol::Resp2);
        match rest {
            [] | [_] if is_bound => {
                encode::array_header(out, 2);
                encode::bulk(out, b"pong");
                encode::bulk(out, rest.first().copied().unwrap_or_default());
            }
            [] => encode::simple(out, "PONG"),
            [text] => encode::bulk(out, text),
            _ => arity_error(out, "ping"),
        }
    }

    fn publish_command(&mut self, now: Instant, rest: &[&[u8]], out: &mut Vec<u8>) {
        let [channel, message] = rest else { return };
        if *channel != CHANNEL.as_bytes() {
            let text = "ERR Only HELLO messages are accepted by Sentinel instances.";
            encode::error(out, text);
            return;
        }
        self.hear(now, Way::Direct, message);
        encode::integer(out, 1);
    }

    fn shutdown_command(&mut self, rest: &[&[u8]], out: &mut Vec<u8>) -> Served {
        let known = ["nosave", "save", "now", "force", "abort"];
        let is_known = |word: &&[u8]| known.iter().any(|k| word.eq_ignore_ascii_case(k.as_bytes()));
        let wants = |what: &[u8]| rest.iter().any(|word| word.eq_ignore_ascii_case(what));
        let contradicts =
            (wants(b"save") && wants(b"nosave")) || (wants(b"abort") && rest.len() > 1);
        if !rest.iter().all(is_known) || contradicts {
            encode::error(out, "ERR syntax error");
            return Served::Done;
        }
        if wants(b"abort") {
            encode::error(out, "ERR No shutdown in progress.");
            return Served::Done;
        }
        self.out.push_back(Output::Event(Event::Exit { code: 0 }));
        Served::Close
    }

    fn client_command(
        &mut self,
        now: Instant,
        key: ClientKey,
        rest: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Served {
        let [sub, rest @ ..] = rest else { return Served::Done };
        let word = String::from_utf8_lossy(sub).to_ascii_lowercase();
        let protocol = self.protocol(key);
        let Some(client) = self.clients.get_mut(key) else { return Served::Done };
        match (word.as_str(), rest) {
            ("id", []) => encode::integer(out, i64::try_from(client.id).unwrap_or(i64::MAX)),
            ("getname", []) if client.name.is_empty() => null(protocol, out),
            ("getname", []) => encode::bulk(out, client.name.as_bytes()),
            ("setname", [name]) => {
                if set_name(client, name, out) {
                    encode::simple(out, "OK");
                }
            }
            ("info", []) => {
                let text = format!("{}\n", self.describe(now, key));
                self.verbatim(key, &text, out);
            }
            ("list", _) => {
                let keys: Vec<ClientKey> = self.clients.iter().map(|(key, _)| key).collect();
                let lines = keys.iter().map(|key| format!("{}\n", self.describe(now, *key)));
                let text: String = lines.collect();
                self.verbatim(key, &text, out);
            }
            ("kill", _) => return self.client_kill(key, rest, out),
            ("reply", [mode]) if mode.eq_ignore_ascii_case(b"on") => encode::simple(out, "OK"),
            ("no-evict", [_]) | ("pause", [_] | [_, _]) | ("unpause", []) => {
                encode::simple(out, "OK");
            }
            ("unblock", [_] | [_, _]) => encode::integer(out, 0),
            ("getredir", []) => encode::integer(out, -1),
            ("help", []) => super::help::encode(&super::help::CLIENT, out),
            (
                "id" | "getname" | "setname" | "info" | "no-evict" | "pause" | "unpause"
                | "unblock" | "getredir" | "help" | "reply",
                _,
            ) => arity_error(out, &format!("client|{word}")),
            _ => unknown_subcommand(out, "CLIENT", sub),
        }
        Served::Done
    }

    fn client_kill(&mut self, key: ClientKey, rest: &[&[u8]], out: &mut Vec<u8>) -> Served {
        let is_old_form = rest.len() == 1;
        let doomed: Vec<ClientKey> = self
            .clients
            .iter()
            .filter(|(other, client)| is_killed(client, *other == key, rest))
            .map(|(key, _)| key)
            .collect();
        if is_old_form && doomed.is_empty() {
            encode::error(out, "ERR No such client");
            return Served::Done;
        }
        if is_old_form {
            encode::simple(out, "OK");
        } else {
            encode::integer(out, i64::try_from(doomed.len()).unwrap_or(i64::MAX));
        }
        let mut is_own = false;
        for other in doomed {
            if other == key { is_own = true } else { self.clients.abort(other) }
        }
        if is_own { Served::Close } else { Served::Done }
    }

    /// Returns the line of CLIENT LIST.
    pub(super) fn describe(&self, now: Instant, key: ClientKey) -> String {
        let Some(client) = self.clients.get(key) else { return String::new() };
        let peer = match &client.peer {
            Endpoint::Tcp(address) => address.to_string(),
            Endpoint::Unix(path) => format!("{}:0", path.display()),
        };
        let local = SocketAddr::from(([0, 0, 0, 0], self.process.port));
        let flags = if client.is_subscriber() { "P" } else { "N" };
        let resp = match client.protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        let mut line =
            format!("id={} addr={peer} laddr={local} fd=0 name={}", client.id, client.name);
        let (age, idle) = (now.since(client.since), now.since(client.active_at));
        let _ = write!(line, " age={} idle={} flags={flags} db=0", seconds(age), seconds(idle));
        let _ = write!(line, " sub={} psub={}", client.channels.len(), client.patterns.len());
        let _ = write!(line, " ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0");
        let _ = write!(line, " rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r");
        let _ =
            write!(line, " cmd={} user={} redir=-1 resp={resp}", client.last_command, client.user);
        line
    }
}

pub(super) fn null(protocol: Protocol, out: &mut Vec<u8>) {
    match protocol {
        Protocol::Resp2 => encode::null_bulk(out),
        Protocol::Resp3 => out.extend_from_slice(b"_\r\n"),
    }
}

/// Whether CLIENT KILL means this client.
fn is_killed(client: &Client, is_own: bool, rest: &[&[u8]]) -> bool {
    let peer = match &client.peer {
        Endpoint::Tcp(address) => address.to_string(),
        Endpoint::Unix(path) => format!("{}:0", path.display()),
    };
    if let [address] = rest {
        return *address == peer.as_bytes();
    }
    let mut skips_own = true;
    let is_meant = rest.chunks(2).all(|pair| match pair {
        [option, value] => match option.to_ascii_lowercase().as_slice() {
            b"id" => *value == client.id.to_string().as_bytes(),
            b"addr" => *value == peer.as_bytes(),
            b"user" => *value == client.user.as_bytes(),
            b"type" => match value.to_ascii_lowercase().as_slice() {
                b"normal" => !client.is_subscriber(),
                b"pubsub" => client.is_subscriber(),
                _ => false,
            },
            b"skipme" => {
                skips_own = !value.eq_ignore_ascii_case(b"no");
                true
            }
            _ => false,
        },
        _ => false,
    });
    is_meant && !(is_own && skips_own)
}

pub(super) fn set_name(client: &mut Client, name: &[u8], out: &mut Vec<u8>) -> bool {
    let is_printable = name.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if !is_printable || name.len() > limits::CLIENT_NAME_BYTES_MAX {
        let text = "ERR Client names cannot contain spaces, newlines or special characters.";
        encode::error(out, text);
        return false;
    }
    client.name = String::from_utf8_lossy(name).into_owned();
    true
}

pub(super) fn encode_hello(client: &Client, out: &mut Vec<u8>) {
    let version = match client.protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    };
    match client.protocol {
        Protocol::Resp2 => encode::array_header(out, 12),
        Protocol::Resp3 => encode::map_header(out, 6),
    }
    for (name, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        encode::bulk(out, name.as_bytes());
        encode::bulk(out, value.as_bytes());
    }
    encode::bulk(out, b"proto");
    encode::integer(out, version);
    encode::bulk(out, b"id");
    encode::integer(out, i64::try_from(client.id).unwrap_or(i64::MAX));
    encode::bulk(out, b"mode");
    encode::bulk(out, b"sentinel");
    encode::bulk(out, b"modules");
    encode::array_header(out, 0);
}

fn unknown_command(args: &[&[u8]], out: &mut Vec<u8>) {
    let [name, rest @ ..] = args else { return };
    let mut text = b"ERR unknown command '".to_vec();
    text.extend_from_slice(name.get(..128).unwrap_or(name));
    text.extend_from_slice(b"', with args beginning with: ");
    let mut shown = Vec::new();
    for argument in rest {
        if shown.len() >= 128 {
            break;
        }
        let room = 128 - shown.len();
        shown.push(b'\'');
        shown.extend_from_slice(argument.get(..room).unwrap_or(argument));
        shown.extend_from_slice(b"' ");
    }
    text.extend_from_slice(&shown);
    encode::error_parts(out, &[&text]);
}
