//! What the proxy is to do: the configuration in the shape that the hot path wants.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::failover::Failover;
use crate::config::nutcracker::{
    Address as AddressConfig, Config, Pool as PoolConfig, Server as ServerConfig,
};
use crate::distribution::Distribution;
use crate::io::Endpoint;
use crate::limits::{CLIENTS_INPUT_BYTES_MAX, CLIENTS_OUTPUT_BYTES_MAX};
use crate::routing::RouteSpec;
use crate::stats::FiguresPlan;

/// How the proxy behaves where twemproxy's users and everybody else expect different things. One
/// code path reads it; there are not two proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A request that cannot be served because it is bad (unknown command, wrong number of
    /// arguments, connection commands that twemproxy lacks) closes the connection without a
    /// reply and without the replies still due; otherwise it gets an error and the connection
    /// lives. A memcached client always gets an error, as from memcached.
    pub is_bad_request_fatal: bool,
    /// Inline commands and empty requests are taken.
    pub has_inline: bool,
    /// `QUIT` is answered with `+OK` before the connection closes.
    pub has_quit_reply: bool,
    /// Errors name the server and say whether the outcome is known.
    pub has_detailed_errors: bool,
    /// Keys of memcached clients may have control characters: memcached's protocol forbids them,
    /// twemproxy and memcached itself let them pass.
    pub takes_control_in_keys: bool,
}

impl Policy {
    /// As twemproxy: called by the name `nutcracker`.
    pub const NUTCRACKER: Self = Self {
        is_bad_request_fatal: true,
        has_inline: false,
        has_quit_reply: false,
        has_detailed_errors: false,
        takes_control_in_keys: true,
    };

    /// As Redis' own clients expect: called by the name `ringkeeper`.
    pub const RINGKEEPER: Self = Self {
        is_bad_request_fatal: false,
        has_inline: true,
        has_quit_reply: true,
        has_detailed_errors: true,
        takes_control_in_keys: false,
    };
}

/// Where a server is, before any name is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Known already.
    Fixed(Endpoint),
    /// A host name: looked up whenever a connection is made.
    Named {
        /// The host name.
        host: String,
        /// The port.
        port: u16,
    },
}

/// One server of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPlan {
    /// Its identity on the ring.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// The operator took it out of the ring.
    pub is_drained: bool,
    /// The Sentinels' name for the master that this server is; `None`: it is followed by nobody and
    /// stays where it is. Keys are placed by `name`, whatever the shard is called.
    pub shard: Option<Arc<str>>,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolPlan {
    /// The pool's name: its identity when the plan changes.
    pub name: String,
    /// Clients and servers speak memcached's protocol; else Redis'.
    pub is_memcache: bool,
    /// The operator wants no clients here.
    pub is_drained: bool,
    /// Hash, distribution, names and weights.
    pub route: RouteSpec,
    /// The servers, in the order of `route.servers`.
    pub servers: Vec<ServerPlan>,
    /// How long a request may wait for its reply; `None`: for ever.
    pub timeout: Option<Duration>,
    /// How long connecting to a server may take.
    pub connect_timeout: Duration,
    /// Connections to each server.
    pub server_connections: u32,
    /// Most clients; `None`: only the worker's own bound.
    pub clients_max: Option<u32>,
    /// What clients must say and what servers are told.
    pub auth: Option<Vec<u8>>,
    /// The database that server connections select.
    pub database: u32,
    /// Connect to the servers at start.
    pub is_preconnecting: bool,
    /// Take a failing server out of the ring.
    pub is_ejecting: bool,
    /// Failures in a row after which a server is ejected; at least 1.
    pub failure_limit: u32,
    /// How long an ejected server stays out before it is probed.
    pub retry_timeout: Duration,
    /// Largest request, bytes.
    pub request_bytes_max: usize,
    /// Unsent replies of one client, bytes, after which it is closed.
    pub client_output_bytes_max: usize,
    /// What happens while a shard changes its master.
    pub failover: Failover,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerRole {
    /// Clients of the pool at this position.
    Pool(crate::id::PoolId),
    /// Nobody: it was closed when the plan changed.
    Nobody,
}

/// All that a worker needs to know at its birth.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Behaviour by name.
    pub policy: Policy,
    /// The pools, in twemproxy's order.
    pub pools: Vec<PoolPlan>,
    /// What each [`ListenerId`](crate::id::ListenerId) serves, by its number.
    pub listeners: Vec<ListenerRole>,
    /// Most clients of this worker: what is left of the descriptors.
    pub clients_max: u32,
    /// Bytes of unfinished and waiting requests of all clients together.
    pub clients_input_bytes_max: usize,
    /// Bytes of unsent replies of all clients together.
    pub clients_output_bytes_max: usize,
    /// The host's name, for the statistics.
    pub host_name: String,
    /// Seconds since 1970 at [`Instant::START`](crate::time::Instant::START).
    pub started_unix_seconds: u64,
    /// The version that the statistics name.
    pub version: String,
    /// The process, for `INFO`.
    pub process_id: u32,
    /// Workers with clients; questions go to all of them.
    pub workers: u16,
    /// Processes that have handed their clients on, one to the next, the last of them to this one.
    /// Keeps the numbers of clients apart.
    pub predecessors: u16,
    /// What is counted beside the plain numbers. Of the plan at start; later ones do not change it.
    pub figures: FiguresPlan,
}

impl Plan {
    /// Makes the plan for the pools of `config`, listener `n` serving pool `n`. The caller sets
    /// what depends on the host.
    pub fn new(config: &Config, policy: Policy) -> Self {
        let pools: Vec<PoolPlan> = config.pools.iter().map(PoolPlan::new).collect();
        let count = u16::try_from(pools.len()).unwrap_or(u16::MAX);
        let listeners = (0..count).map(|id| ListenerRole::Pool(crate::id::PoolId(id))).collect();
        Self {
            policy,
            pools,
            listeners,
            clients_max: crate::id::ConnId::INDEX_MAX,
            clients_input_bytes_max: CLIENTS_INPUT_BYTES_MAX,
            clients_output_bytes_max: CLIENTS_OUTPUT_BYTES_MAX,
            host_name: String::from("localhost"),
            started_unix_seconds: 0,
            version: String::from(env!("CARGO_PKG_VERSION")),
            process_id: 0,
            workers: 1,
            predecessors: 0,
            figures: FiguresPlan::default(),
        }
    }
}

impl PoolPlan {
    fn new(pool: &PoolConfig) -> Self {
        Self {
            name: pool.name.clone(),
            is_memcache: !pool.redis,
            is_drained: false,
            route: pool.route_spec(),
            servers: pool.servers.iter().map(ServerPlan::new).collect(),
            timeout: pool.timeout,
            connect_timeout: pool.server_connect_timeout,
            server_connections: pool.server_connections.get(),
            clients_max: pool.client_connections.map(NonZeroU32::get),
            auth: pool.redis_auth.as_ref().map(|secret| secret.expose().as_bytes().to_vec()),
            // twemproxy passes over the database of a pool for memcached.
            database: if pool.redis { pool.redis_db } else { 0 },
            is_preconnecting: pool.preconnect,
            is_ejecting: pool.auto_eject_hosts,
            failure_limit: pool.server_failure_limit.get(),
            retry_timeout: pool.server_retry_timeout,
            request_bytes_max: pool.request_bytes_max as usize,
            client_output_bytes_max: pool.client_output_bytes_max as usize,
            failover: pool.failover.clone(),
        }
    }

    /// Tells whether writes are answered when replicas have them. memcached has none.
    pub(crate) const fn waits_for_replicas(&self) -> bool {
        self.failover.replicated.is_some() && !self.is_memcache
    }

    /// Returns how many connections to each server there may be: for each protocol, and where
    /// replicas are waited for again as many that carry writes.
    pub(crate) const fn lanes(&self) -> u32 {
        let kinds = if self.waits_for_replicas() { 4 } else { 2 };
        self.server_connections.saturating_mul(kinds)
    }

    /// Returns the bytes of requests under way that one connection may remember, so that all of
    /// the pool together remember no more than it may.
    pub(crate) fn sent_bytes_max(&self) -> usize {
        let followed = self.servers.iter().filter(|server| server.shard.is_some()).count();
        let connections = followed.saturating_mul(self.lanes() as usize).max(1);
        if self.failover.hold.is_some() { self.failover.hold_bytes / connections } else { 0 }
    }

    /// Tells whether any server may answer any key, so that nothing is split.
    pub(crate) fn is_one_target(&self) -> bool {
        self.servers.len() == 1 || self.route.distribution == Distribution::Random
    }
}

impl ServerPlan {
    fn new(server: &ServerConfig) -> Self {
        let address = match &server.address {
            AddressConfig::Unix(path) => Address::Fixed(Endpoint::Unix(PathBuf::from(path))),
            AddressConfig::Tcp(at) => match at.host.parse::<IpAddr>() {
                Ok(ip) => Address::Fixed(Endpoint::Tcp(SocketAddr::new(ip, at.port))),
                Err(_) => Address::Named { host: at.host.clone(), port: at.port },
            },
        };
        let shard = server.shard.as_deref().map(Arc::from);
        Self { name: server.name.clone(), address, is_drained: false, shard }
    }
}
