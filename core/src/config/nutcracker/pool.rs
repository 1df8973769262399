//! One pool: its directives to typed values.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use super::super::diagnostic::{Collector, Diagnostic, quoted};
use super::super::failover::Failover;
use super::super::suggest;
use super::super::yaml::{Content, Document, NodeId};
use super::address::{self, ListenError, ListenSurprise, ServerError, ServerLine};
use super::advice::{self, Advice, Form};
use super::number::{self, NotANumber};
use super::{Directive, Listen, ListenAddress, Pool, Secret, Server};
use crate::distribution::Distribution;
use crate::hash::Hash;
use crate::limits;
use crate::routing::{HashTag, server_order};

/// A pool as far as it could be read.
pub(super) struct Draft {
    /// The listen value as written, and where; also of a pool with errors.
    pub(super) listen: Option<(String, Range<usize>)>,
    /// The pool. It may hold defaults in place of faulty values, which were reported.
    pub(super) pool: Option<Pool>,
}

/// Reads the directives below a pool's name and reports what is wrong with them.
pub(super) fn read(
    document: &Document,
    name: &str,
    name_span: &Range<usize>,
    body: NodeId,
    out: &mut Collector<'_>,
) -> Draft {
    let node = document.node(body);
    let Some(Content::Mapping(entries)) = node.map(|node| &node.content) else {
        let message = format!("the pool {} has no directives", quoted(name));
        let error = out
            .error("pool-not-a-mapping", name_span, message)
            .expected("directives such as \"listen: host:port\", indented below the name");
        out.report(error);
        return Draft { listen: None, pool: None };
    };
    let is_complete = node.is_some_and(|node| node.is_complete);
    let found = directives(document, entries, out);
    Reader { document, name, name_span, is_complete, found, out }.read()
}

/// Where a directive and its value are.
#[derive(Clone)]
struct Entry {
    key: Range<usize>,
    value: NodeId,
}

/// Sorts a pool's entries by directive and reports keys that are none or come twice.
fn directives(
    document: &Document,
    entries: &[(NodeId, NodeId)],
    out: &mut Collector<'_>,
) -> BTreeMap<Directive, Entry> {
    let mut found: BTreeMap<Directive, Entry> = BTreeMap::new();
    for &(key, value) in entries {
        let span = document.span(key);
        let Some(Content::Scalar(word)) = document.node(key).map(|node| &node.content) else {
            out.report(out.error("key-not-a-word", &span, "a directive is not a word"));
            continue;
        };
        let Some(directive) = Directive::from_name(word) else {
            let names = Directive::ALL.map(Directive::name);
            let message = format!("{} is not a directive", quoted(word));
            let error = out
                .error("unknown-directive", &span, message)
                .did_you_mean(suggest::nearest(word, names));
            out.report(error);
            if is_mapping(document, value) {
                report_depth(document, value, out);
            }
            continue;
        };
        if let Some(first) = found.get(&directive) {
            let first = out.place(&first.key);
            let message = format!("{} is here a second time", quoted(word));
            let error = out.error("duplicate-directive", &span, message);
            out.report(error.related(first, "first here"));
            continue;
        }
        found.insert(directive, Entry { key: span, value });
    }
    found
}

fn is_mapping(document: &Document, id: NodeId) -> bool {
    matches!(document.node(id).map(|node| &node.content), Some(Content::Mapping(_)))
}

fn report_depth(document: &Document, id: NodeId, out: &mut Collector<'_>) {
    let span = document.span(id);
    let message = "this is nested deeper than a pool's directives";
    out.report(out.error("nested-too-deep", &span, message));
}

/// Which reading of an overflowing number is used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overflow {
    /// The number as written, up to the largest: limits and times.
    Saturates,
    /// What twemproxy makes of it: what decides where data is.
    Wraps,
}

struct Reader<'a, 'c> {
    document: &'a Document,
    name: &'a str,
    name_span: &'a Range<usize>,
    is_complete: bool,
    found: BTreeMap<Directive, Entry>,
    out: &'a mut Collector<'c>,
}

impl<'a> Reader<'a, '_> {
    fn read(mut self) -> Draft {
        let listen = self.listen();
        let draft_listen = listen.clone().map(|(listen, span)| (listen.literal, span));
        let redis = self.boolean(Directive::Redis);
        let auto_eject_hosts = self.boolean(Directive::AutoEjectHosts);
        let mut pool = Pool {
            name: self.name.to_owned(),
            // Without a listen value the pool is dropped below.
            listen: listen.clone().map_or_else(nowhere, |(listen, _)| listen),
            hash: self.hash(),
            hash_tag: self.hash_tag(),
            distribution: self.distribution(),
            timeout: self.milliseconds(Directive::Timeout, 0).filter(|time| !time.is_zero()),
            backlog: self.number(Directive::Backlog, Overflow::Wraps).unwrap_or(512),
            client_connections: self.client_connections(),
            tcpkeepalive: self.boolean(Directive::TcpKeepalive),
            reuseport: self.boolean(Directive::ReusePort),
            redis,
            redis_auth: self.redis_auth(redis),
            redis_db: self.redis_db(redis),
            preconnect: self.boolean(Directive::Preconnect),
            auto_eject_hosts,
            server_connections: self.server_connections(),
            server_retry_timeout: self
                .milliseconds(Directive::ServerRetryTimeout, 30_000)
                .unwrap_or_default(),
            server_failure_limit: self.server_failure_limit(),
            request_bytes_max: self.bytes_max(
                Directive::RequestBytesMax,
                limits::REQUEST_BYTES_DEFAULT,
                limits::REQUEST_BYTES_MAX,
            ),
            client_output_bytes_max: self.bytes_max(
                Directive::ClientOutputBytesMax,
                limits::CLIENT_OUTPUT_BYTES_DEFAULT,
                limits::CONFIG_NUMBER_MAX,
            ),
            server_connect_timeout: self.server_connect_timeout(),
            failover: Failover::default(),
            servers: Vec::new(),
        };
        let servers = self.servers();
        let key = |directive| self.key(directive);
        let advice = Advice { pool: &pool, servers: &servers, form: Form::Nutcracker };
        let found = advice.warnings(key, self.out);
        found.into_iter().for_each(|warning| self.out.report(warning));
        pool.servers = servers.into_iter().map(|(server, _)| server).collect();
        pool.servers.sort_by(|a, b| server_order(&a.name, &b.name));
        let pool = (listen.is_some() && !pool.servers.is_empty()).then_some(pool);
        Draft { listen: draft_listen, pool }
    }

    /// Returns the text of a directive that has one, and where it is.
    fn text(&mut self, directive: Directive) -> Option<(&'a str, Range<usize>)> {
        let Entry { key, value } = self.found.get(&directive)?.clone();
        let node = self.document.node(value)?;
        match &node.content {
            Content::Scalar(text) if !text.is_empty() => Some((text, node.span.clone())),
            Content::Scalar(_) => {
                let message = format!("{} has no value", quoted(directive.name()));
                let error = self.out.error("empty-value", &key, message);
                self.out.report(error.hint("leave the directive out to get its default"));
                None
            }
            Content::Sequence(_) => {
                let message = format!("{} takes one value, not a list", quoted(directive.name()));
                self.out.report(self.out.error("unexpected-list", &key, message));
                None
            }
            Content::Mapping(_) => {
                report_depth(self.document, value, self.out);
                None
            }
            // Reported among the tokens that are not allowed.
            Content::Alias => None,
        }
    }

    fn boolean(&mut self, directive: Directive) -> bool {
        let Some((text, span)) = self.text(directive) else { return false };
        match text {
            "true" => true,
            "false" => false,
            other => {
                let meant = match other.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "1" | "y" | "true" => Some("true"),
                    "no" | "off" | "0" | "n" | "false" => Some("false"),
                    other => suggest::nearest(other, ["true", "false"]),
                };
                let name = quoted(directive.name());
                let message = format!("{name} is {}, which is not a boolean", quoted(other));
                let error = self
                    .out
                    .error("not-a-boolean", &span, message)
                    .expected("true or false, in lower case")
                    .did_you_mean(meant);
                self.out.report(error);
                false
            }
        }
    }

    /// Reads a number and warns when it overflows.
    fn number(&mut self, directive: Directive, overflow: Overflow) -> Option<u32> {
        let (text, span) = self.text(directive)?;
        let name = quoted(directive.name());
        let number = match number::parse(text) {
            Ok(number) => number,
            Err(fault) => {
                let (code, problem) = match fault {
                    NotANumber::Word => ("not-a-number", "is not a number"),
                    NotANumber::TooLarge => ("number-out-of-range", "is too large"),
                };
                let message = format!("{name} is {}, which {problem}", quoted(text));
                let largest = limits::CONFIG_NUMBER_MAX;
                let mut error = self
                    .out
                    .error(code, &span, message)
                    .expected(format!("digits only, 0 to {largest}"));
                if text.starts_with('-') {
                    error = error.hint("leave the directive out to get its default");
                }
                self.out.report(error);
                return None;
            }
        };
        let used = match overflow {
            Overflow::Saturates => number.written,
            Overflow::Wraps => number.wrapped,
        };
        if number.is_wrapped {
            let message = format!(
                "{name} does not fit twemproxy's 32-bit numbers: twemproxy would have used {}, \
                 and {used} is used here",
                number.wrapped
            );
            self.out.report(self.out.warning("number-wraps", &span, message));
        }
        Some(used)
    }

    fn milliseconds(&mut self, directive: Directive, default: u32) -> Option<Duration> {
        let number = self.number(directive, Overflow::Saturates).unwrap_or(default);
        Some(Duration::from_millis(u64::from(number)))
    }

    /// Reads one of our own sizes, which are never out of range silently.
    fn bytes_max(&mut self, directive: Directive, default: u32, largest: u32) -> u32 {
        let smallest = limits::CONFIG_BYTES_LIMIT_MIN;
        self.bounded(directive, default, smallest, largest, "bytes")
    }

    fn server_connect_timeout(&mut self) -> Duration {
        let default = limits::SERVER_CONNECT_TIMEOUT_MS_DEFAULT;
        let directive = Directive::ServerConnectTimeout;
        let largest = limits::CONFIG_NUMBER_MAX;
        let number = self.bounded(directive, default, 1, largest, "milliseconds");
        Duration::from_millis(u64::from(number))
    }

    fn bounded(
        &mut self,
        directive: Directive,
        default: u32,
        smallest: u32,
        largest: u32,
        unit: &str,
    ) -> u32 {
        let Some((text, span)) = self.text(directive) else { return default };
        let number = number::parse(text);
        let value = match number {
            Ok(number) if !number.is_wrapped => Some(number.written),
            Ok(_) | Err(_) => None,
        };
        if let Some(value) = value.filter(|value| (smallest..=largest).contains(value)) {
            return value;
        }
        let (code, problem) = match number {
            Err(NotANumber::Word) => ("not-a-number", "is not a number"),
            Ok(_) | Err(NotANumber::TooLarge) => ("number-out-of-range", "is out of range"),
        };
        let name = quoted(directive.name());
        let message = format!("{name} is {}, which {problem}", quoted(text));
        let error = self
            .out
            .error(code, &span, message)
            .expected(format!("digits only, {smallest} to {largest} {unit}"));
        self.out.report(error);
        default
    }

    fn client_connections(&mut self) -> Option<NonZeroU32> {
        let number = self.number(Directive::ClientConnections, Overflow::Saturates)?;
        let most = NonZeroU32::new(number)?;
        let key = self.key(Directive::ClientConnections);
        let message = format!(
            "\"client_connections\" limits the pool to {most} clients here; twemproxy \
                     reads the number and ignores it"
        );
        self.out.report(self.out.warning("client-connections-limits", &key, message));
        Some(most)
    }

    fn server_connections(&mut self) -> NonZeroU32 {
        let directive = Directive::ServerConnections;
        let Some(number) = self.number(directive, Overflow::Wraps) else { return NonZeroU32::MIN };
        NonZeroU32::new(number).unwrap_or_else(|| {
            let key = self.key(directive);
            let message = "\"server_connections\" is 0, so no server could be reached";
            let error = self.out.error("server-connections-zero", &key, message);
            self.out.report(error.expected("at least 1"));
            NonZeroU32::MIN
        })
    }

    fn server_failure_limit(&mut self) -> NonZeroU32 {
        let directive = Directive::ServerFailureLimit;
        let default = NonZeroU32::MIN.saturating_add(1);
        let Some(number) = self.number(directive, Overflow::Saturates) else { return default };
        NonZeroU32::new(number).unwrap_or_else(|| {
            let key = self.key(directive);
            let message = "\"server_failure_limit\" is 0, which means the same as 1";
            self.out.report(self.out.warning("failure-limit-zero", &key, message));
            NonZeroU32::MIN
        })
    }

    fn hash(&mut self) -> Hash {
        let Some((text, span)) = self.text(Directive::Hash) else { return Hash::Fnv1a_64 };
        Hash::from_name(text).unwrap_or_else(|| {
            let names = Hash::ALL.map(Hash::name);
            let message = format!("{} is not a hash", quoted(text));
            let error = self
                .out
                .error("unknown-hash", &span, message)
                .expected(format!("one of {}", names.join(", ")))
                .did_you_mean(suggest::nearest(text, names));
            self.out.report(error);
            Hash::Fnv1a_64
        })
    }

    fn distribution(&mut self) -> Distribution {
        let Some((text, span)) = self.text(Directive::Distribution) else {
            return Distribution::Ketama;
        };
        Distribution::from_name(text).unwrap_or_else(|| {
            let names = Distribution::ALL.map(Distribution::name);
            let message = format!("{} is not a distribution", quoted(text));
            let error = self
                .out
                .error("unknown-distribution", &span, message)
                .expected(format!("one of {}", names.join(", ")))
                .did_you_mean(suggest::nearest(text, names));
            self.out.report(error);
            Distribution::Ketama
        })
    }

    fn hash_tag(&mut self) -> Option<HashTag> {
        let (text, span) = self.text(Directive::HashTag)?;
        let tag = HashTag::parse(text);
        if tag.is_none() {
            let message = format!("{} is not a hash tag", quoted(text));
            let error = self
                .out
                .error("invalid-hash-tag", &span, message)
                .expected("two characters, the one before the tag and the one after, as in \"{}\"");
            self.out.report(error);
        }
        tag
    }

    fn redis_auth(&mut self, redis: bool) -> Option<Secret> {
        // No message of this directive may show its value.
        let (text, _) = self.text(Directive::RedisAuth)?;
        if !redis {
            let key = self.key(Directive::RedisAuth);
            let message = "\"redis_auth\" is for pools of Redis servers only";
            let error = self.out.error("redis-auth-without-redis", &key, message);
            self.out.report(error.hint("add \"redis: true\" if the servers speak Redis' protocol"));
        }
        Some(Secret(text.to_owned()))
    }

    fn redis_db(&mut self, redis: bool) -> u32 {
        let Some(number) = self.number(Directive::RedisDb, Overflow::Wraps) else { return 0 };
        if !redis {
            let key = self.key(Directive::RedisDb);
            let message = "\"redis_db\" is ignored, because the pool has no \"redis: true\"";
            self.out.report(self.out.warning("redis-db-ignored", &key, message));
        }
        number
    }

    fn listen(&mut self) -> Option<(Listen, Range<usize>)> {
        if !self.found.contains_key(&Directive::Listen) {
            self.report_missing(Directive::Listen, "missing-listen", "\"listen: host:port\"");
            return None;
        }
        let (text, span) = self.text(Directive::Listen)?;
        let (address, surprise) = match address::parse_listen(text) {
            Ok(parsed) => parsed,
            Err(error) => {
                let error = listen_error(error, text, &span, self.out);
                self.out.report(error);
                return None;
            }
        };
        match surprise {
            None => {}
            Some(ListenSurprise::Mode(0)) => {
                let message = "the permissions are not an octal number, so none are set";
                self.out.report(self.out.warning("listen-mode-not-octal", &span, message));
            }
            Some(ListenSurprise::Mode(mode)) => {
                let message =
                    format!("the permissions are read as {mode:#o}: the octal digits end there");
                self.out.report(self.out.warning("listen-mode-not-octal", &span, message));
            }
            Some(ListenSurprise::PortWraps(port)) => {
                let message = format!("the port is too large and wraps to {port}, as in twemproxy");
                self.out.report(self.out.warning("number-wraps", &span, message));
            }
        }
        Some((Listen { literal: text.to_owned(), address }, span))
    }

    /// Reads the list of servers, in the order of the file.
    fn servers(&mut self) -> Vec<(Server, Range<usize>)> {
        let Some(entry) = self.found.get(&Directive::Servers).cloned() else {
            let what = "\"servers:\" and a list below, one \"- host:port:weight name\" each";
            self.report_missing(Directive::Servers, "missing-servers", what);
            return Vec::new();
        };
        let node = self.document.node(entry.value);
        let Some(Content::Sequence(items)) = node.map(|node| &node.content) else {
            if node.is_some_and(|node| node.is_complete) || self.is_complete {
                let error = self
                    .out
                    .error("servers-not-a-list", &entry.key, "\"servers\" has no list of servers")
                    .expected("lines with \"- host:port:weight name\" below it");
                self.out.report(error);
            }
            return Vec::new();
        };
        let mut servers: Vec<(Server, Range<usize>)> = Vec::new();
        let mut names: BTreeMap<String, Range<usize>> = BTreeMap::new();
        for &item in items {
            let Some((server, span)) = self.server(item) else { continue };
            if let Some(first) = names.get(&server.name) {
                let first = self.out.place(first);
                let (pool, name) = (quoted(self.name), quoted(&server.name));
                let message = format!("the pool {pool} has two servers with the name {name}");
                let error = self.out.error("duplicate-server", &span, message);
                self.out.report(error.related(first, "first here"));
                continue;
            }
            names.insert(server.name.clone(), span.clone());
            servers.push((server, span));
        }
        if servers.len() > limits::SERVERS_PER_POOL_MAX {
            let most = limits::SERVERS_PER_POOL_MAX;
            let message = format!("the pool has more than {most} servers");
            self.out.report(self.out.error("too-many-servers", &entry.key, message));
        }
        servers
    }

    fn server(&mut self, item: NodeId) -> Option<(Server, Range<usize>)> {
        let node = self.document.node(item)?;
        let text = match &node.content {
            Content::Scalar(text) => text,
            Content::Mapping(_) | Content::Sequence(_) => {
                report_depth(self.document, item, self.out);
                return None;
            }
            Content::Alias => return None,
        };
        let span = node.span.clone();
        if text.is_empty() {
            self.out.report(self.out.error("empty-value", &span, "a server is empty"));
            return None;
        }
        let line = match address::parse_server(text) {
            Ok(line) => line,
            Err(error) => {
                let error = server_error(error, text, &span, self.out);
                self.out.report(error);
                return None;
            }
        };
        self.warn_about_server(&line, &span);
        let ServerLine { name, is_named, address, weight, .. } = line;
        Some((Server { name, is_named, address, weight, shard: None, literal: text.clone() }, span))
    }

    fn warn_about_server(&mut self, line: &ServerLine, span: &Range<usize>) {
        if line.is_weight_wrapped || line.is_port_wrapped {
            let what = if line.is_port_wrapped { "port" } else { "weight" };
            let message = format!("the {what} is too large and wraps, as in twemproxy");
            self.out.report(self.out.warning("number-wraps", span, message));
        }
        if line.name.is_empty() {
            let message = "the space at the end gives the server an empty name";
            self.out.report(self.out.warning("empty-server-name", span, message));
        }
        let no_host = advice::no_host(&line.address, span, self.out);
        no_host.into_iter().for_each(|warning| self.out.report(warning));
    }

    fn report_missing(&mut self, directive: Directive, code: &'static str, what: &str) {
        // Behind a syntax error the directive may well be there.
        if !self.is_complete {
            return;
        }
        let name = quoted(directive.name());
        let message = format!("the pool {} has no {name}", quoted(self.name));
        let error = self.out.error(code, self.name_span, message);
        self.out.report(error.expected(what));
    }

    /// Returns where a directive's word is; the pool's name when it is left out.
    fn key(&self, directive: Directive) -> Range<usize> {
        self.found.get(&directive).map_or_else(|| self.name_span.clone(), |entry| entry.key.clone())
    }
}

/// A listen value for a pool that has none and is dropped for it.
fn nowhere() -> Listen {
    let address = ListenAddress::Unix { path: String::new(), mode: None };
    Listen { literal: String::new(), address }
}

/// Says what is wrong with a listen value.
pub(in crate::config) fn listen_error(
    error: ListenError,
    text: &str,
    span: &Range<usize>,
    out: &Collector<'_>,
) -> Diagnostic {
    const FORMAT: &str = "\"host:port\", or \"/path\" and octal permissions";
    let text = quoted(text);
    let (code, message, expected) = match error {
        ListenError::Format => ("invalid-listen", format!("{text} has no port"), FORMAT),
        ListenError::Port => (
            "invalid-listen-port",
            format!("{text} does not end with a port"),
            "\"host:port\" with a port from 1 to 65535",
        ),
        ListenError::EmptyHost => (
            "listen-host-empty",
            format!("{text} has no host before the port"),
            "an address, such as 0.0.0.0 for all IPv4 addresses of the machine",
        ),
        ListenError::PathTooLong => (
            "listen-path-too-long",
            "the path is too long for a Unix socket".to_owned(),
            "at most 107 bytes",
        ),
        ListenError::Mode => (
            "invalid-listen-mode",
            format!("{text} does not end with permissions"),
            "an octal number up to 0777",
        ),
    };
    out.error(code, span, message).expected(expected)
}

fn server_error(
    error: ServerError,
    text: &str,
    span: &Range<usize>,
    out: &Collector<'_>,
) -> Diagnostic {
    const FORMAT: &str = "\"host:port:weight name\" or \"/path:weight name\"; the name may be left \
                          out";
    let shown = quoted(text);
    match error {
        ServerError::Format => {
            let diagnostic = out.error("invalid-server", span, format!("{shown} is not a server"));
            // Most often only the weight is missing.
            let with_weight = format!("{text}:1");
            let hint = address::parse_server(&with_weight)
                .is_ok()
                .then(|| format!("add a weight: {}", quoted(&with_weight)));
            let diagnostic = diagnostic.expected(FORMAT);
            match hint {
                Some(hint) => diagnostic.hint(hint),
                None => diagnostic,
            }
        }
        ServerError::Weight => {
            let message = format!("{shown} has a weight that is not a number");
            let diagnostic = out.error("invalid-server-weight", span, message).expected(FORMAT);
            if text.matches(' ').count() > 1 {
                return diagnostic.hint("a name cannot hold a space");
            }
            diagnostic
        }
        ServerError::ZeroWeight => out
            .error("zero-server-weight", span, format!("{shown} has the weight 0"))
            .expected("a weight of at least 1")
            .hint("take the line out to have no keys on the server"),
        ServerError::Port => out
            .error("invalid-server-port", span, format!("{shown} has no valid port"))
            .expected("a port from 1 to 65535"),
    }
}
