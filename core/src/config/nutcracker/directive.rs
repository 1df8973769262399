//! The directives of a pool.

/// A directive of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Directive {
    /// `listen`
    Listen,
    /// `hash`
    Hash,
    /// `hash_tag`
    HashTag,
    /// `distribution`
    Distribution,
    /// `timeout`
    Timeout,
    /// `backlog`
    Backlog,
    /// `client_connections`
    ClientConnections,
    /// `tcpkeepalive`
    TcpKeepalive,
    /// `reuseport`
    ReusePort,
    /// `redis`
    Redis,
    /// `redis_auth`
    RedisAuth,
    /// `redis_db`
    RedisDb,
    /// `preconnect`
    Preconnect,
    /// `auto_eject_hosts`
    AutoEjectHosts,
    /// `server_connections`
    ServerConnections,
    /// `server_retry_timeout`
    ServerRetryTimeout,
    /// `server_failure_limit`
    ServerFailureLimit,
    /// `servers`
    Servers,
    /// `request_bytes_max`, our own
    RequestBytesMax,
    /// `client_output_bytes_max`, our own
    ClientOutputBytesMax,
    /// `server_connect_timeout`, our own
    ServerConnectTimeout,
}

impl Directive {
    /// Every directive, ours last.
    pub const ALL: [Self; 21] = [
        Self::Listen,
        Self::Hash,
        Self::HashTag,
        Self::Distribution,
        Self::Timeout,
        Self::Backlog,
        Self::ClientConnections,
        Self::TcpKeepalive,
        Self::ReusePort,
        Self::Redis,
        Self::RedisAuth,
        Self::RedisDb,
        Self::Preconnect,
        Self::AutoEjectHosts,
        Self::ServerConnections,
        Self::ServerRetryTimeout,
        Self::ServerFailureLimit,
        Self::Servers,
        Self::RequestBytesMax,
        Self::ClientOutputBytesMax,
        Self::ServerConnectTimeout,
    ];

    /// Returns the word in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Hash => "hash",
            Self::HashTag => "hash_tag",
            Self::Distribution => "distribution",
            Self::Timeout => "timeout",
            Self::Backlog => "backlog",
            Self::ClientConnections => "client_connections",
            Self::TcpKeepalive => "tcpkeepalive",
            Self::ReusePort => "reuseport",
            Self::Redis => "redis",
            Self::RedisAuth => "redis_auth",
            Self::RedisDb => "redis_db",
            Self::Preconnect => "preconnect",
            Self::AutoEjectHosts => "auto_eject_hosts",
            Self::ServerConnections => "server_connections",
            Self::ServerRetryTimeout => "server_retry_timeout",
            Self::ServerFailureLimit => "server_failure_limit",
            Self::Servers => "servers",
            Self::RequestBytesMax => "request_bytes_max",
            Self::ClientOutputBytesMax => "client_output_bytes_max",
            Self::ServerConnectTimeout => "server_connect_timeout",
        }
    }

    /// Finds a directive by its word, which is case-sensitive.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|directive| directive.name() == name)
    }
}
