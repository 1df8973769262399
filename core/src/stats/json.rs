//! The line of the statistics port, with twemproxy's keys in twemproxy's order.

use std::fmt::Write as _;

use super::{PoolStats, ServerQueues, ServerStats};

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

/// Writes the line, piece by piece, in the order of the calls.
#[derive(Debug)]
pub struct StatsLine(String);

impl StatsLine {
    /// Begins the line.
    pub fn new(header: &Header<'_>) -> Self {
        let mut line = Self(String::with_capacity(1024));
        line.0.push_str("{\"service\":\"nutcracker\", \"source\":");
        line.text(header.source);
        line.0.push_str(", \"version\":");
        line.text(header.version);
        line.number("uptime", header.uptime);
        line.number("timestamp", header.timestamp);
        line.number("total_connections", header.total_connections);
        line.number("curr_connections", header.curr_connections);
        line
    }

    /// Begins a pool.
    pub fn pool(&mut self, name: &str, stats: &PoolStats) {
        self.0.push_str(", ");
        self.text(name);
        self.0.push_str(": {\"client_eof\":");
        let _ = write!(self.0, "{}", stats.client_eof);
        self.number("client_err", stats.client_err);
        self.number("client_connections", stats.client_connections);
        self.number("server_ejects", stats.server_ejects);
        self.number("forward_error", stats.forward_error);
        self.number("fragments", stats.fragments);
    }

    /// Adds a server to the pool that was begun last.
    pub fn server(&mut self, name: &str, stats: &ServerStats, queues: ServerQueues) {
        self.0.push_str(", ");
        self.text(name);
        self.0.push_str(": {\"server_eof\":");
        let _ = write!(self.0, "{}", stats.server_eof);
        self.number("server_err", stats.server_err);
        self.number("server_timedout", stats.server_timedout);
        self.number("server_connections", stats.server_connections);
        self.number("server_ejected_at", stats.server_ejected_at);
        self.number("requests", stats.requests);
        self.number("request_bytes", stats.request_bytes);
        self.number("responses", stats.responses);
        self.number("response_bytes", stats.response_bytes);
        self.number("in_queue", queues.in_queue);
        self.number("in_queue_bytes", queues.in_queue_bytes);
        self.number("out_queue", queues.out_queue);
        self.number("out_queue_bytes", queues.out_queue_bytes);
        self.0.push('}');
    }

    /// Ends the pool that was begun last.
    pub fn end_pool(&mut self) {
        self.0.push('}');
    }

    /// Ends the line.
    pub fn finish(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }

    fn number(&mut self, name: &str, value: u64) {
        let _ = write!(self.0, ", \"{name}\":{value}");
    }

    fn text(&mut self, text: &str) {
        self.0.push('"');
        for character in text.chars() {
            match character {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                control if control < ' ' => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(control));
                }
                plain => self.0.push(plain),
            }
        }
        self.0.push('"');
    }
}
