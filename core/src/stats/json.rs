//! The line of the statistics port, with twemproxy's keys in twemproxy's order.

use std::fmt::Write as _;

use super::{PoolFigures, ServerFigures};
use crate::wire::json::quote;

/// What stands at the top of the line.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// The host's name.
    pub source: &'a str,
    /// Our version.
    pub version: &'a str,
    /// Seconds since the start.
    pub uptime: u64,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Connections of either kind made so far.
    pub total_connections: u64,
    /// Connections of either kind open, listeners included.
    pub curr_connections: u64,
}

/// Writes the line.
pub fn stats_line(header: &Header<'_>, pools: &[PoolFigures]) -> String {
    let mut out = String::with_capacity(1024);
    out.push_str("{\"service\":\"nutcracker\", \"source\":");
    quote(&mut out, header.source);
    out.push_str(", \"version\":");
    quote(&mut out, header.version);
    number(&mut out, "uptime", header.uptime);
    number(&mut out, "timestamp", header.timestamp);
    number(&mut out, "total_connections", header.total_connections);
    number(&mut out, "curr_connections", header.curr_connections);
    for pool in pools {
        write_pool(&mut out, pool);
    }
    out.push_str("}\n");
    out
}

fn write_pool(out: &mut String, pool: &PoolFigures) {
    out.push_str(", ");
    quote(out, &pool.name);
    let stats = &pool.stats;
    // Writing to a String can't fail.
    let _ = write!(out, ": {{\"client_eof\":{}", stats.client_eof);
    number(out, "client_err", stats.client_err);
    number(out, "client_connections", stats.client_connections);
    number(out, "server_ejects", stats.server_ejects);
    number(out, "forward_error", stats.forward_error);
    number(out, "fragments", stats.fragments);
    for server in &pool.servers {
        write_server(out, server);
    }
    out.push('}');
}

fn write_server(out: &mut String, server: &ServerFigures) {
    out.push_str(", ");
    quote(out, &server.name);
    let (stats, queues) = (&server.stats, server.queues);
    let _ = write!(out, ": {{\"server_eof\":{}", stats.server_eof);
    number(out, "server_err", stats.server_err);
    number(out, "server_timedout", stats.server_timedout);
    number(out, "server_connections", stats.server_connections);
    number(out, "server_ejected_at", stats.server_ejected_at);
    number(out, "requests", stats.requests);
    number(out, "request_bytes", stats.request_bytes);
    number(out, "responses", stats.responses);
    number(out, "response_bytes", stats.response_bytes);
    number(out, "in_queue", queues.in_queue);
    number(out, "in_queue_bytes", queues.in_queue_bytes);
    number(out, "out_queue", queues.out_queue);
    number(out, "out_queue_bytes", queues.out_queue_bytes);
    out.push('}');
}

fn number(out: &mut String, name: &str, value: u64) {
    let _ = write!(out, ", \"{name}\":{value}");
}
