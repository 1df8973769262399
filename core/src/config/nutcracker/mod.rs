//! twemproxy's `nutcracker.yml`, read in place: what twemproxy accepts is accepted and means the
//! same, what it refuses is refused, with the place and the reason of every mistake.
//!
//! Source: twemproxy 0.5, as its users see it.
//!
//! Deviates, each because the file can only be a mistake or because the rule helps nobody:
//! - `reuseport` is known, as in twemproxy's later versions, and so are the directives of our own
//!   (`request_bytes_max`, `client_output_bytes_max`, `server_connect_timeout`) and our own hashes;
//! - a listen host that does not resolve is the host's to report, for nothing is resolved here;
//! - IPv6 addresses may stand in brackets;
//! - a tab may stand behind the dash of a list and before a comment;
//! - the line breaks U+0085, U+2028 and U+2029 of YAML 1.1 are refused wherever they are;
//! - `client_connections` limits, where twemproxy reads and forgets it;
//! - only `servers` may be a list, and only once; twemproxy takes one list under any directive, and
//!   more `servers` beside a list;
//! - numbers that twemproxy wraps to 32 bits are kept, up to 2147483647, where they are limits or
//!   times, and wrapped as twemproxy wraps them where they decide where data is (weights, ports,
//!   databases) or how many connections there are.

pub(super) mod address;
pub(super) mod advice;
mod directive;
mod number;
pub(super) mod pool;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use super::diagnostic::{Collector, Diagnostic, quoted};
use super::failover::Failover;
use super::text;
use super::yaml::{Content, Document, Fault, NodeId};
use crate::distribution::Distribution;
use crate::hash::Hash;
use crate::routing::{HashTag, RouteServer, RouteSpec, server_order};

pub use self::directive::Directive;

/// What a file says, as far as it can be understood.
#[derive(Debug)]
pub struct Parsed {
    /// The configuration; some exactly when no diagnostic is an error.
    pub config: Option<Config>,
    /// Every error and warning, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The pools, the shorter name first, then bytewise; their names differ. At least one.
    pub pools: Vec<Pool>,
}

/// Servers that share a distribution, and how clients reach them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Where clients connect.
    pub listen: Listen,
    /// Hashes keys. Default `fnv1a_64`.
    pub hash: Hash,
    /// Which part of a key is hashed; none hashes all of it.
    pub hash_tag: Option<HashTag>,
    /// Chooses the server of a hash. Default `ketama`.
    pub distribution: Distribution,
    /// How long a request may take; none waits forever.
    pub timeout: Option<Duration>,
    /// Connections that may wait to be accepted. Default 512.
    pub backlog: u32,
    /// Clients at a time; none sets no limit of its own.
    pub client_connections: Option<NonZeroU32>,
    /// Whether idle clients are probed by TCP.
    pub tcpkeepalive: bool,
    /// Whether several listeners share the port.
    pub reuseport: bool,
    /// Whether the servers speak Redis' protocol; else memcached's.
    pub redis: bool,
    /// The password that clients give and servers take.
    pub redis_auth: Option<Secret>,
    /// The database of each server connection. Default 0.
    pub redis_db: u32,
    /// Whether server connections are opened at start.
    pub preconnect: bool,
    /// Whether a server that keeps failing leaves the distribution for a while.
    pub auto_eject_hosts: bool,
    /// Connections to each server. Default 1.
    pub server_connections: NonZeroU32,
    /// How long an ejected server stays out. Default 30 s.
    pub server_retry_timeout: Duration,
    /// Failures in a row that eject a server. Default 2.
    pub server_failure_limit: NonZeroU32,
    /// Bytes of the largest request. Default 64 MiB, at most 512 MiB. twemproxy does not have it.
    pub request_bytes_max: u32,
    /// Bytes of replies that one client may leave unread. Default 256 MiB. twemproxy does not have
    /// it.
    pub client_output_bytes_max: u32,
    /// How long connecting to a server may take. Default 1 s. twemproxy does not have it.
    pub server_connect_timeout: Duration,
    /// What happens while a shard changes its master. twemproxy does not have it.
    pub failover: Failover,
    /// The servers in the order that decides routing, [`server_order`]; their names differ. At
    /// least one, at most [`SERVERS_PER_POOL_MAX`](crate::limits::SERVERS_PER_POOL_MAX).
    pub servers: Vec<Server>,
}

impl Pool {
    /// Returns what the routes of the pool depend on; its servers are in the order of
    /// [`servers`](Self::servers).
    pub fn route_spec(&self) -> RouteSpec {
        let servers = self
            .servers
            .iter()
            .map(|server| RouteServer { name: server.name.clone(), weight: server.weight })
            .collect();
        RouteSpec {
            hash: self.hash,
            hash_tag: self.hash_tag,
            distribution: self.distribution,
            servers,
        }
    }
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// As it stands in the file.
    pub literal: String,
    /// What it means.
    pub address: ListenAddress,
}

impl Listen {
    /// Tells whether both cannot be listened on at once: they are the same, or one is every address
    /// and the port of the other. Names are not resolved.
    pub fn clashes_with(&self, other: &Self) -> bool {
        match (&self.address, &other.address) {
            (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => {
                let is_all = |host: &str| matches!(host, "0.0.0.0" | "::" | "*");
                let hosts = [one, other].map(|at| at.host.as_str());
                one.port == other.port && (one.host == other.host || hosts.into_iter().any(is_all))
            }
            (ListenAddress::Unix { path, .. }, ListenAddress::Unix { path: other, .. }) => {
                path == other
            }
            (ListenAddress::Tcp(_), ListenAddress::Unix { .. })
            | (ListenAddress::Unix { .. }, ListenAddress::Tcp(_)) => false,
        }
    }
}

/// What a pool listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP port.
    Tcp(HostPort),
    /// A Unix socket.
    Unix {
        /// Its path, absolute, at most [`UNIX_PATH_BYTES_MAX`](crate::limits::UNIX_PATH_BYTES_MAX) bytes.
        path: String,
        /// Its permissions, 1..=0o777; none leaves what the process' mask gives.
        mode: Option<u32>,
    },
}

/// A name or address and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets. Not resolved.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

/// One server of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// What places it in the distribution: the name that the file gives it, else `host:port` as
    /// written, else just `host` when the port is 11211, else the path of a Unix socket with a
    /// colon behind it, for so twemproxy has it.
    pub name: String,
    /// Whether the file gives it a name. Without one its keys move when its address changes.
    pub is_named: bool,
    /// Where it is.
    pub address: Address,
    /// Its share of the keys.
    pub weight: NonZeroU32,
    /// The Sentinels' name for the master that it is; none: nobody follows it. twemproxy does not
    /// have it.
    pub shard: Option<String>,
    /// As it stands in the file.
    pub literal: String,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A TCP port.
    Tcp(HostPort),
    /// The path of a Unix socket.
    Unix(String),
}

/// A password. Shows itself only when asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(in crate::config) String);

impl Secret {
    /// Takes a password in.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// Returns the password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(<redacted>)")
    }
}

/// Reads a file that is not known to be UTF-8 yet.
pub fn parse_bytes(name: &str, bytes: &[u8]) -> Parsed {
    match text::from_bytes(name, bytes) {
        Ok(text) => parse(name, text),
        Err(diagnostics) => Parsed { config: None, diagnostics },
    }
}

/// Reads a file. `name` only appears in messages.
///
/// Time and memory are bounded by [`CONFIG_BYTES_MAX`](crate::limits::CONFIG_BYTES_MAX) and
/// [`CONFIG_NODES_MAX`](crate::limits::CONFIG_NODES_MAX).
pub fn parse(name: &str, text: &str) -> Parsed {
    if let Err(diagnostics) = text::check_size(name, text) {
        return Parsed { config: None, diagnostics };
    }
    let document = Document::read(text);
    let mut out = Collector::new(text);
    let pools = read_document(name, &document, &mut out);
    let config = if out.has_errors() { None } else { Some(Config { pools }) };
    Parsed { config, diagnostics: out.finish() }
}

fn read_document(name: &str, document: &Document, out: &mut Collector<'_>) -> Vec<Pool> {
    for refused in &document.refused {
        let message = format!("{} is not allowed in this file", refused.what);
        let error = out
            .error("disallowed-token", &refused.span, message)
            .expected("one document of plain \"key: value\" lines and \"- item\" lists");
        out.report(error);
    }
    if let Some(error) = &document.error {
        report_syntax(error, out);
    }
    let Some(root) = document.root else {
        if document.error.is_none() && document.refused.is_empty() {
            let message = format!("{} holds no pool", quoted(name));
            let error = out
                .error("no-document", &(0..0), message)
                .expected("a pool: its name and a colon, and its directives below");
            out.report(error);
        }
        return Vec::new();
    };
    if document.documents > 1 && document.refused.is_empty() {
        let message = "the file holds more than one document";
        out.report(out.error("many-documents", &document.span(root), message));
    }
    match document.node(root).map(|node| &node.content) {
        Some(Content::Mapping(entries)) => read_pools(document, entries, out),
        Some(Content::Scalar(_) | Content::Sequence(_) | Content::Alias) | None => {
            let span = document.span(root);
            let error = out
                .error("root-not-a-mapping", &span, "this is not a pool")
                .expected("a pool: its name and a colon, and its directives below");
            out.report(error);
            Vec::new()
        }
    }
}

pub(super) fn report_syntax(error: &super::yaml::SyntaxError, out: &mut Collector<'_>) {
    let code = match error.fault {
        Fault::Syntax => "yaml-syntax",
        Fault::TooManyNodes => "file-too-complex",
        Fault::TooDeep => "nested-too-deep",
    };
    let mut diagnostic = out.error(code, &error.span, error.message.as_str());
    diagnostic.hint = error.hint.map(str::to_owned);
    out.report(diagnostic);
}

fn read_pools(
    document: &Document,
    entries: &[(NodeId, NodeId)],
    out: &mut Collector<'_>,
) -> Vec<Pool> {
    let mut names: BTreeMap<&str, Range<usize>> = BTreeMap::new();
    let mut listens: BTreeMap<String, (&str, Range<usize>)> = BTreeMap::new();
    let mut pools = Vec::new();
    for &(key, value) in entries {
        let span = document.span(key);
        let Some(Content::Scalar(name)) = document.node(key).map(|node| &node.content) else {
            let error = out.error("key-not-a-word", &span, "a pool's name is not a word");
            out.report(error);
            continue;
        };
        if name.is_empty() {
            out.report(out.error("pool-name-empty", &span, "a pool has an empty name"));
        }
        if let Some(first) = names.get(name.as_str()) {
            let message = format!("the pool {} is here a second time", quoted(name));
            let first = out.place(first);
            let error = out.error("duplicate-pool", &span, message);
            out.report(error.related(first, "first here"));
        } else {
            names.insert(name, span.clone());
        }
        let draft = pool::read(document, name, &span, value, out);
        if let Some((literal, span)) = draft.listen {
            if let Some((other, first)) = listens.get(&literal) {
                let (name, other) = (quoted(name), quoted(other));
                let message = format!("the pools {other} and {name} listen on the same address");
                let first = out.place(first);
                let error = out.error("duplicate-listen", &span, message);
                out.report(error.related(first, "first here"));
            } else {
                listens.insert(literal, (name, span));
            }
        }
        pools.extend(draft.pool);
    }
    pools.sort_by(|a, b| server_order(&a.name, &b.name));
    pools
}

#[cfg(test)]
mod tests;
