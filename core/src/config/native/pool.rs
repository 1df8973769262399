//! One pool of the file.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use super::super::diagnostic::{Collector, Place, quoted};
use super::super::failover::{Failover, Fence, Replay};
use super::super::nutcracker::advice::{self, Advice, Form};
use super::super::nutcracker::{
    Address, Directive, Listen, ListenAddress, Pool, Secret, Server, address,
};
use super::super::yaml::{Content, NodeId};
use super::section::{Entry, OFF, Section};
use super::{POOL_TIMEOUT_DEFAULT, keys};
use crate::distribution::Distribution;
use crate::hash::Hash;
use crate::limits;
use crate::routing::{HashTag, server_order};

/// A pool as far as it could be read.
pub(super) struct Draft {
    /// Where it listens, and where that is written; also of a pool with errors.
    pub(super) listen: Option<(Listen, Range<usize>)>,
    /// The file of its password, and where that is written.
    pub(super) auth_file: Option<(String, Place)>,
    /// The pool. It may hold defaults in place of faulty values, which were reported.
    pub(super) pool: Option<Pool>,
    /// What the file has about its servers.
    pub(super) notes: Vec<ServerNote>,
}

/// What the file has about a server beside what it is.
pub(super) struct ServerNote {
    /// Its name.
    pub(super) name: String,
    /// Where it is.
    pub(super) span: Range<usize>,
    /// Where its pool is.
    pub(super) pool_span: Range<usize>,
    /// Nobody is to follow it, whatever its name.
    pub(super) is_unwatched: bool,
}

/// Makes a pool in which only the mandatory is set.
pub(super) fn default_pool(name: &str, listen: Listen) -> Pool {
    Pool {
        name: name.to_owned(),
        listen,
        hash: Hash::Fnv1a_64,
        hash_tag: None,
        distribution: Distribution::Ketama,
        timeout: Some(POOL_TIMEOUT_DEFAULT),
        backlog: 512,
        client_connections: None,
        tcpkeepalive: true,
        reuseport: false,
        redis: true,
        redis_auth: None,
        redis_db: 0,
        preconnect: false,
        auto_eject_hosts: false,
        server_connections: NonZeroU32::MIN,
        server_retry_timeout: Duration::from_secs(30),
        server_failure_limit: NonZeroU32::MIN.saturating_add(1),
        request_bytes_max: limits::REQUEST_BYTES_DEFAULT,
        client_output_bytes_max: limits::CLIENT_OUTPUT_BYTES_DEFAULT,
        server_connect_timeout: Duration::from_millis(u64::from(
            limits::SERVER_CONNECT_TIMEOUT_MS_DEFAULT,
        )),
        failover: Failover::default(),
        servers: Vec::new(),
    }
}

/// Reads the keys below a pool's name and reports what is wrong with them.
pub(super) fn read(name: &str, section: &Section<'_>, out: &mut Collector<'_>) -> Draft {
    if section.entry("listen").is_none() {
        report_missing(section, name, "listen", "\"listen: host:port\"", out);
    }
    let listen = section.listen("listen", out);
    // Without a listen value the pool is dropped below.
    let placeholder = listen.clone().map_or_else(nowhere, |(listen, _)| listen);
    let mut pool = default_pool(name, placeholder);
    routing(&mut pool, section, out);
    clients(&mut pool, section, out);
    server_side(&mut pool, section, out);
    failover(&mut pool, section, out);
    let auth_file = credentials(&mut pool, section, out);
    let mut unwatched = Vec::new();
    let servers = servers(name, section, &mut unwatched, out);
    let advice = Advice { pool: &pool, servers: &servers, form: Form::Native };
    // Advice is about these two, which are called alike in both files.
    let place = |directive: Directive| {
        let is_eject = directive == Directive::AutoEjectHosts;
        section.place(if is_eject { "auto_eject_hosts" } else { "distribution" })
    };
    let warnings = advice.warnings(place, out);
    warnings.into_iter().for_each(|warning| out.report(warning));
    let notes = servers
        .iter()
        .map(|(server, span)| ServerNote {
            name: server.name.clone(),
            span: span.clone(),
            pool_span: section.place("auto_eject_hosts"),
            is_unwatched: unwatched.contains(&server.name),
        })
        .collect();
    pool.servers = servers.into_iter().map(|(server, _)| server).collect();
    pool.servers.sort_by(|a, b| server_order(&a.name, &b.name));
    let pool = (listen.is_some() && !pool.servers.is_empty()).then_some(pool);
    Draft { listen, auth_file, pool, notes }
}

fn routing(pool: &mut Pool, section: &Section<'_>, out: &mut Collector<'_>) {
    let protocols = [("redis", true), ("memcached", false)];
    pool.redis = section.choice("protocol", protocols, out).unwrap_or(pool.redis);
    let hashes = Hash::ALL.map(|hash| (hash.name(), hash));
    pool.hash = section.choice("hash", hashes, out).unwrap_or(pool.hash);
    let distributions = Distribution::ALL.map(|each| (each.name(), each));
    pool.distribution =
        section.choice("distribution", distributions, out).unwrap_or(pool.distribution);
    if section.is_off("hash_tag") {
        return;
    }
    let Some((text, span)) = section.text("hash_tag", out) else { return };
    pool.hash_tag = HashTag::parse(text);
    if pool.hash_tag.is_none() {
        let message = format!("{} is not a hash tag", quoted(text));
        let error = out.error("invalid-hash-tag", &span, message);
        out.report(error.expected(
            "two characters, the one before the tag and the one after, as in \"{}\"; or off",
        ));
    }
}

fn clients(pool: &mut Pool, section: &Section<'_>, out: &mut Collector<'_>) {
    let most = limits::CONFIG_NUMBER_MAX;
    if section.is_off("timeout") {
        pool.timeout = None;
    } else {
        let timeout = section.time("timeout", Duration::from_millis(1), out);
        pool.timeout = timeout.or(pool.timeout);
    }
    pool.backlog = section.number("backlog", 0..=most, out).unwrap_or(pool.backlog);
    pool.client_connections =
        section.number_or_off("client_connections", 1..=most, out).and_then(NonZeroU32::new);
    pool.tcpkeepalive = section.boolean("tcp_keepalive", pool.tcpkeepalive, out);
    pool.reuseport = section.boolean("reuseport", pool.reuseport, out);
    let smallest = u64::from(limits::CONFIG_BYTES_LIMIT_MIN);
    let mut size = |key, largest: u32, default| {
        let size = section.size(key, smallest..=u64::from(largest), out);
        size.and_then(|size| u32::try_from(size).ok()).unwrap_or(default)
    };
    pool.request_bytes_max =
        size("request_bytes_max", limits::REQUEST_BYTES_MAX, pool.request_bytes_max);
    pool.client_output_bytes_max =
        size("client_output_bytes_max", most, pool.client_output_bytes_max);
}

fn server_side(pool: &mut Pool, section: &Section<'_>, out: &mut Collector<'_>) {
    let most = limits::CONFIG_NUMBER_MAX;
    pool.preconnect = section.boolean("preconnect", pool.preconnect, out);
    pool.auto_eject_hosts = section.boolean("auto_eject_hosts", pool.auto_eject_hosts, out);
    let mut count = |key, default| {
        section.number(key, 1..=most, out).and_then(NonZeroU32::new).unwrap_or(default)
    };
    pool.server_connections = count("server_connections", pool.server_connections);
    pool.server_failure_limit = count("server_failure_limit", pool.server_failure_limit);
    let retry = section.time("server_retry_timeout", Duration::ZERO, out);
    pool.server_retry_timeout = retry.unwrap_or(pool.server_retry_timeout);
    let connect = section.time("server_connect_timeout", Duration::from_millis(1), out);
    pool.server_connect_timeout = connect.unwrap_or(pool.server_connect_timeout);
}

/// Reads what happens while a shard changes its master.
fn failover(pool: &mut Pool, section: &Section<'_>, out: &mut Collector<'_>) {
    let failover = &mut pool.failover;
    if section.is_off("hold") {
        failover.hold = None;
    } else {
        let hold = section.time("hold", Duration::from_millis(1), out);
        failover.hold = hold.or(failover.hold);
    }
    let (least, most) = (limits::HOLD_BYTES_MIN, limits::CONFIG_NUMBER_MAX);
    let bytes = section.size("hold_bytes", least..=u64::from(most), out);
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    failover.hold_bytes = bytes.unwrap_or(failover.hold_bytes);
    failover.replay = section.choice("replay", Replay::ALL, out).unwrap_or(failover.replay);
    failover.fence = section.choice("fence", Fence::ALL, out).unwrap_or(failover.fence);
    let copies = section.number_or_off("replicated", 1..=limits::REPLICATED_MAX, out);
    failover.replicated = copies.and_then(NonZeroU32::new);
    let timeout = section.time("replicated_timeout", Duration::from_millis(1), out);
    failover.replicated_timeout = timeout.unwrap_or(failover.replicated_timeout);
}

/// Reads password and database; returns the file that holds the password.
fn credentials(
    pool: &mut Pool,
    section: &Section<'_>,
    out: &mut Collector<'_>,
) -> Option<(String, Place)> {
    if !pool.redis {
        for key in ["redis_auth", "redis_auth_file", "redis_db"] {
            if section.entry(key).is_some() && !section.is_off(key) {
                let message = format!("{} is for pools of Redis servers only", quoted(key));
                let error = out.error("redis-key-without-redis", &section.place(key), message);
                out.report(error.hint("leave it out, or write \"protocol: redis\""));
            }
        }
    }
    let database = section.number("redis_db", 0..=limits::CONFIG_NUMBER_MAX, out);
    pool.redis_db = database.unwrap_or(pool.redis_db);
    // No message of this key may show its value.
    pool.redis_auth = section.text("redis_auth", out).map(|(text, _)| Secret::new(text));
    if section.is_off("redis_auth_file") {
        return None;
    }
    let (path, span) = section.text("redis_auth_file", out)?;
    if section.entry("redis_auth").is_some() {
        let message = "\"redis_auth_file\" stands beside \"redis_auth\"";
        let first = out.place(&section.place("redis_auth"));
        let error = out.error("two-passwords", &section.place("redis_auth_file"), message);
        out.report(error.related(first, "one of the two is enough"));
    }
    Some((path.to_owned(), out.place(&span)))
}

/// Reads the list of servers, in the order of the file.
fn servers(
    name: &str,
    section: &Section<'_>,
    unwatched: &mut Vec<String>,
    out: &mut Collector<'_>,
) -> Vec<(Server, Range<usize>)> {
    const WHAT: &str = "\"servers:\" and a list below: \"- host:port\", or \"- name: …\" with \
                        \"address: host:port\"";
    let Some(Entry { key, value }) = section.entry("servers").cloned() else {
        report_missing(section, name, "servers", WHAT, out);
        return Vec::new();
    };
    let node = section.document.node(value);
    let Some(Content::Sequence(items)) = node.map(|node| &node.content) else {
        if section.is_complete {
            let message = "\"servers\" has no list of servers";
            out.report(out.error("servers-not-a-list", &key, message).expected(WHAT));
        }
        return Vec::new();
    };
    if items.is_empty() {
        out.report(out.error("servers-not-a-list", &key, "the list is empty").expected(WHAT));
    }
    let mut servers: Vec<(Server, Range<usize>)> = Vec::new();
    let mut names: BTreeMap<String, Range<usize>> = BTreeMap::new();
    for &item in items {
        let Some((server, span)) = server(section, item, unwatched, out) else { continue };
        if let Some(first) = names.get(&server.name) {
            let (pool, name) = (quoted(name), quoted(&server.name));
            let message = format!("the pool {pool} has two servers with the name {name}");
            let first = out.place(first);
            out.report(out.error("duplicate-server", &span, message).related(first, "first here"));
            continue;
        }
        names.insert(server.name.clone(), span.clone());
        servers.push((server, span));
    }
    if servers.len() > limits::SERVERS_PER_POOL_MAX {
        let message = format!("the pool has more than {} servers", limits::SERVERS_PER_POOL_MAX);
        out.report(out.error("too-many-servers", &key, message));
    }
    servers
}

/// Reads a server: its address alone, or name, address and weight.
fn server(
    pool: &Section<'_>,
    item: NodeId,
    unwatched: &mut Vec<String>,
    out: &mut Collector<'_>,
) -> Option<(Server, Range<usize>)> {
    let node = pool.document.node(item)?;
    if let Content::Scalar(text) = &node.content
        && !text.is_empty()
    {
        let span = node.span.clone();
        let address = server_address(text, &span, out)?;
        return Some((
            Server {
                name: text.clone(),
                is_named: false,
                address,
                weight: NonZeroU32::MIN,
                shard: None,
                literal: text.clone(),
            },
            span,
        ));
    }
    let span = pool.document.span(item);
    if matches!(&node.content, Content::Scalar(_)) {
        out.report(out.error("empty-value", &span, "a server is empty"));
        return None;
    }
    let section = Section::read(pool.document, "servers", span, item, keys::SERVER, out)?;
    let name = named(&section, out);
    let weight = section.number("weight", 1..=limits::CONFIG_NUMBER_MAX, out);
    if section.entry("address").is_none() && section.is_complete {
        let error = out.error("missing-address", &section.span, "the server has no address");
        out.report(error.expected("\"address: host:port\", or the path of a Unix socket"));
    }
    let (text, address_span) = section.text("address", out)?;
    let address = server_address(text, &address_span, out)?;
    let shard = section.text("shard", out);
    // The name of its master is its place on the ring, unless it has a name for that.
    let of_shard = shard.filter(|&(text, _)| text != OFF);
    let of_shard = of_shard.map(|(text, span)| (text.to_owned(), span));
    let name = name.or_else(|| of_shard.clone());
    let is_named = name.is_some();
    let (name, span) = name.unwrap_or_else(|| (text.to_owned(), address_span));
    let weight = weight.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    if section.is_off("shard") {
        unwatched.push(name.clone());
    }
    let shard = of_shard.map(|(text, _)| text);
    Some((Server { name, is_named, address, weight, shard, literal: text.to_owned() }, span))
}

/// Reads a server's name. An empty one is a name too: twemproxy has it, and it is a place.
fn named(section: &Section<'_>, out: &mut Collector<'_>) -> Option<(String, Range<usize>)> {
    let node = section.document.node(section.entry("name")?.value)?;
    match &node.content {
        // In quotation marks; a key without any value is a slip.
        Content::Scalar(text) if text.is_empty() && !node.span.is_empty() => {
            let message = "the server has an empty name";
            out.report(out.warning("empty-server-name", &node.span, message));
            Some((String::new(), node.span.clone()))
        }
        Content::Scalar(_) | Content::Mapping(_) | Content::Sequence(_) | Content::Alias => {
            section.text("name", out).map(|(text, span)| (text.to_owned(), span))
        }
    }
}

fn server_address(text: &str, span: &Range<usize>, out: &mut Collector<'_>) -> Option<Address> {
    if text.starts_with('/') {
        return Some(Address::Unix(text.to_owned()));
    }
    let Some(at) = address::parse_host_port(text) else {
        let message = format!("{} is not the address of a server", quoted(text));
        let mut error = out
            .error("invalid-server", span, message)
            .expected("\"host:port\" with a port from 1 to 65535, or the path of a Unix socket");
        if let Some((line, name)) = text.split_once(' ')
            && line.matches(':').count() > 1
        {
            // A line of nutcracker.yml.
            let address = line.rsplit_once(':').map_or(line, |(address, _)| address);
            error = error.hint(format!("write \"name: {name}\" and \"address: {address}\""));
        }
        out.report(error);
        return None;
    };
    let address = Address::Tcp(at);
    let warning = advice::no_host(&address, span, out);
    warning.into_iter().for_each(|warning| out.report(warning));
    Some(address)
}

fn report_missing(
    section: &Section<'_>,
    pool: &str,
    key: &'static str,
    what: &str,
    out: &mut Collector<'_>,
) {
    // Behind a syntax error the key may well be there.
    if !section.is_complete {
        return;
    }
    let code = if key == "listen" { "missing-listen" } else { "missing-servers" };
    let message = format!("the pool {} has no {}", quoted(pool), quoted(key));
    out.report(out.error(code, &section.span, message).expected(what));
}

/// A listen value for a pool that has none and is dropped for it.
fn nowhere() -> Listen {
    let address = ListenAddress::Unix { path: String::new(), mode: None };
    Listen { literal: String::new(), address }
}
