//! Counters of one worker. Plain integers: a worker counts for itself, whoever asks adds up.

pub mod json;

/// What happened at one pool. Names as on twemproxy's statistics port.
#[derive(Clone, Debug, Default)]
pub struct PoolStats {
    /// Clients that ended their connection.
    pub client_eof: u64,
    /// Clients whose connection ended in any other way.
    pub client_err: u64,
    /// Clients connected.
    pub client_connections: u64,
    /// Servers taken out of the ring.
    pub server_ejects: u64,
    /// Requests that could not be served.
    pub forward_error: u64,
    /// Parts that requests over several servers were split into.
    pub fragments: u64,
    /// One per server.
    pub servers: Vec<ServerStats>,
}

/// What happened at one server.
#[derive(Clone, Debug, Default)]
pub struct ServerStats {
    /// Connections that the server ended.
    pub server_eof: u64,
    /// Connections that failed.
    pub server_err: u64,
    /// Requests without a reply in time.
    pub server_timedout: u64,
    /// Connections established.
    pub server_connections: u64,
    /// Microseconds since 1970 of the last ejection, zero when it is in the ring.
    pub server_ejected_at: u64,
    /// Requests queued for the server.
    pub requests: u64,
    /// Their bytes.
    pub request_bytes: u64,
    /// Replies received.
    pub responses: u64,
    /// Their bytes.
    pub response_bytes: u64,
}

/// What waits at one server at the moment of asking.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerQueues {
    /// Requests not yet written.
    pub in_queue: u64,
    /// Their bytes.
    pub in_queue_bytes: u64,
    /// Requests written and not yet answered.
    pub out_queue: u64,
    /// Their bytes.
    pub out_queue_bytes: u64,
}
