//! Every word that a `ringkeeper.yml` may have before a colon.

/// Keys at the top of the file.
pub(super) const TOP: &[&str] = &[
    "threads", "runtime", "control", "admin", "stats", "figures", "log", "limits", "sentinel",
    "vrrp", "pools",
];

/// Keys of `admin`.
pub(super) const ADMIN: &[&str] = &["listen", "token_file", "host_names"];

/// Keys of `stats`.
pub(super) const STATS: &[&str] = &["listen"];

/// Keys of `figures`.
pub(super) const FIGURES: &[&str] = &["enabled", "slow_after", "watch_keys"];

/// Keys of `log`.
pub(super) const LOG: &[&str] = &["level", "format", "file"];

/// Keys of `limits`.
pub(super) const LIMITS: &[&str] =
    &["clients_max", "clients_input_bytes_max", "clients_output_bytes_max", "drain_timeout"];

/// Keys of `sentinel`.
pub(super) const SENTINEL: &[&str] = &[
    "mode",
    "listen",
    "announce",
    "hosts",
    "state",
    "user",
    "password_file",
    "quorum",
    "down_after",
    "failover_timeout",
    "parallel_syncs",
    "fast_down",
    "auth_user",
    "auth_password_file",
    "follow",
    "masters",
];

/// Keys of a master.
pub(super) const MASTER: &[&str] = &[
    "address",
    "quorum",
    "down_after",
    "failover_timeout",
    "parallel_syncs",
    "fast_down",
    "auth_user",
    "auth_password_file",
    "notification_script",
    "client_reconfig_script",
];

/// Keys of a virtual router.
pub(super) const ROUTER: &[&str] = &[
    "interface",
    "id",
    "addresses",
    "priority",
    "interval",
    "version",
    "source",
    "peers",
    "preempt",
    "health",
    "health_of",
    "track_interfaces",
    "notify",
    "notify_user",
    "virtual_mac",
];

/// Keys of a pool. What means the same as in twemproxy has the same name.
pub(super) const POOL: &[&str] = &[
    "listen",
    "protocol",
    "hash",
    "hash_tag",
    "distribution",
    "timeout",
    "backlog",
    "client_connections",
    "tcp_keepalive",
    "reuseport",
    "redis_auth",
    "redis_auth_file",
    "redis_db",
    "preconnect",
    "auto_eject_hosts",
    "server_connections",
    "server_connect_timeout",
    "server_retry_timeout",
    "server_failure_limit",
    "request_bytes_max",
    "client_output_bytes_max",
    "hold",
    "hold_bytes",
    "replay",
    "fence",
    "replicated",
    "replicated_timeout",
    "servers",
];

/// Keys of a server.
pub(super) const SERVER: &[&str] = &["name", "shard", "address", "weight"];

/// Words that people bring from other files, and what to write instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("redis", "write \"protocol: redis\" or \"protocol: memcached\""),
    ("workers", "write \"threads\""),
    ("pool", "write \"pools\", and below it a pool's name"),
    ("port", "the port stands behind the host: \"host:port\""),
    ("monitor", "write \"masters\", and below it a master's name"),
    ("host", "write \"address: host:port\""),
    ("virtual_router_id", "write \"id\""),
    ("advert_int", "write \"interval\""),
    ("virtual_ipaddress", "write \"addresses\""),
    ("unicast_peer", "write \"peers\""),
    ("nopreempt", "write \"preempt: false\""),
];

/// Returns what to write instead of a word that other files have.
pub(super) fn elsewhere(word: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(other, _)| *other == word).map(|(_, hint)| *hint)
}

/// Returns every key with those above it, such as `log.level`; `*` stands for a pool's name and for
/// an item of a list.
pub fn keys() -> impl Iterator<Item = String> {
    let sections: [(&str, &[&str]); 11] = [
        ("", TOP),
        ("admin.", ADMIN),
        ("stats.", STATS),
        ("figures.", FIGURES),
        ("log.", LOG),
        ("limits.", LIMITS),
        ("sentinel.", SENTINEL),
        ("sentinel.masters.*.", MASTER),
        ("vrrp.*.", ROUTER),
        ("pools.*.", POOL),
        ("pools.*.servers.*.", SERVER),
    ];
    sections
        .into_iter()
        .flat_map(|(above, keys)| keys.iter().map(move |key| format!("{above}{key}")))
}
