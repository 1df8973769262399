//! What can happen to a worker, small enough for a fuzzer to spell.

use std::fmt::Write as _;
use std::sync::Arc;

use arbitrary::Arbitrary;
use ringkeeper_core::config::nutcracker;
use ringkeeper_core::proxy::{Plan, Policy};

/// The pool and the policy of a run.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one line of the configuration")]
pub struct Setup {
    /// Servers less one, modulo three.
    pub servers: u8,
    /// `distribution: modula`.
    pub is_modula: bool,
    /// `auto_eject_hosts: true`, after one failure.
    pub is_ejecting: bool,
    /// `redis_auth`.
    pub has_password: bool,
    /// `timeout: 50`.
    pub has_timeout: bool,
    /// `server_connections: 2`.
    pub has_two_lanes: bool,
    /// [`Policy::NUTCRACKER`].
    pub is_nutcracker: bool,
    /// The first server has a host name.
    pub is_named: bool,
    /// `preconnect: true`.
    pub is_preconnecting: bool,
    /// memcached's protocol on both sides; not spelled, but given by the target.
    #[arbitrary(default)]
    pub is_memcache: bool,
}

/// The password of the pools that have one.
pub(super) const PASSWORD: &str = "secret";

/// `client_output_bytes_max`: a few large replies.
pub(super) const OUTPUT_BYTES_MAX: usize = 100_000;

impl Setup {
    /// Tells whether the pool has a password, which memcached's do not.
    pub(super) const fn has_password(&self) -> bool {
        self.has_password && !self.is_memcache
    }

    pub(super) fn plan(&self) -> Arc<Plan> {
        let mut text = format!(
            "p:\n  listen: 127.0.0.1:1\n  redis: {}\n  hash_tag: \"{{}}\"\n  \
             client_output_bytes_max: {OUTPUT_BYTES_MAX}\n  server_retry_timeout: 100\n  \
             server_failure_limit: 1\n",
            !self.is_memcache
        );
        let lines = [
            (self.is_modula, "distribution: modula"),
            (self.is_ejecting, "auto_eject_hosts: true"),
            (self.has_password(), "redis_auth: secret"),
            (self.has_timeout, "timeout: 50"),
            (self.has_two_lanes, "server_connections: 2"),
            (self.is_preconnecting, "preconnect: true"),
        ];
        for (_, line) in lines.iter().filter(|(is_wanted, _)| *is_wanted) {
            let _ = writeln!(text, "  {line}");
        }
        text.push_str("  servers:\n");
        for server in 0..=self.servers % 3 {
            let host = if self.is_named && server == 0 { "a.example" } else { "127.0.0.1" };
            let _ = writeln!(text, "  - {host}:{}:1 s{server}", 100 + u32::from(server));
        }
        let parsed = nutcracker::parse("fuzz.yml", &text);
        let config = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        let policy = if self.is_nutcracker { Policy::NUTCRACKER } else { Policy::RINGKEEPER };
        Arc::new(Plan::new(&config, policy))
    }
}

/// One thing that happens.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Step {
    /// The worker is told before it is asked what it wants: the next step is in the same turn.
    pub is_joined: bool,
    /// What.
    pub op: Op,
}

/// What happens. A number that names a client or a server connection counts modulo those that
/// there are; a number of bytes is a cut, and 255 is no cut.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Op {
    /// A client connects.
    Accept,
    /// A client decides on a request, and sends so many bytes of what it has decided on.
    Ask {
        /// The client.
        client: u8,
        /// The request.
        ask: Ask,
        /// The cut.
        bytes: u8,
    },
    /// A client decides on several requests of one kind and sends them at once.
    Pipeline {
        /// The client.
        client: u8,
        /// The request.
        ask: Ask,
        /// How many more than one, modulo 32.
        more: u8,
    },
    /// A client sends more of what it has decided on.
    Send {
        /// The client.
        client: u8,
        /// The cut.
        bytes: u8,
    },
    /// A client sends anything.
    Raw {
        /// The client.
        client: u8,
        /// What.
        bytes: [u8; 6],
        /// How much of it, less one, modulo 6.
        length: u8,
    },
    /// A client sends nothing more.
    Eof {
        /// The client.
        client: u8,
    },
    /// A client's connection is gone.
    Lose {
        /// The client.
        client: u8,
    },
    /// A connection to a server is established.
    Connected {
        /// The connection.
        server: u8,
    },
    /// A connection to a server fails, before or after it is established.
    Fail {
        /// The connection.
        server: u8,
        /// Which reason.
        reason: u8,
    },
    /// A server sends nothing more.
    ServerEof {
        /// The connection.
        server: u8,
    },
    /// A server decides on replies, and sends so many bytes of what it has decided on.
    Answer {
        /// The connection.
        server: u8,
        /// How many replies, less one.
        count: u8,
        /// The cut.
        bytes: u8,
        /// One in eight is an error.
        manner: u8,
    },
    /// A server sends anything.
    Garbage {
        /// The connection.
        server: u8,
        /// What.
        bytes: [u8; 4],
    },
    /// A server that owes nothing sends a reply.
    Unasked {
        /// The connection.
        server: u8,
        /// It is large and its end does not come.
        is_large: bool,
    },
    /// The socket of a connection is full from the next write on.
    Hold {
        /// A server connection, else a client.
        is_server: bool,
        /// Which.
        which: u8,
    },
    /// The socket of a connection has room again.
    Release {
        /// A server connection, else a client.
        is_server: bool,
        /// Which.
        which: u8,
    },
    /// Time passes.
    Pass {
        /// How much, in 4 ms.
        ticks: u8,
    },
    /// The operator drains the worker.
    Drain {
        /// The limit, in 4 ms.
        ticks: u8,
    },
    /// A host name is looked up.
    Resolved {
        /// How many addresses, modulo 3.
        addresses: u8,
    },
    /// The runtime takes its time with `Closed` from now on, or not.
    SlowClose(bool),
    /// Connections to servers are established at once from now on, or not.
    QuickConnect(bool),
}

/// A request.
#[derive(Arbitrary, Clone, Copy, Debug)]
#[allow(missing_docs, reason = "named after the commands")]
pub enum Ask {
    Get { key: u8 },
    GetLarge { key: u8 },
    Set { key: u8 },
    SetLarge { key: u8 },
    Mget { key: u8, more: u8 },
    MgetLarge { key: u8 },
    Mset { key: u8, more: u8 },
    Del { key: u8, more: u8 },
    Exists { key: u8, more: u8 },
    Ping,
    Echo,
    Auth { is_right: bool },
    ClientId,
    Unknown,
    InlinePing,
    Quit,
    Reset,
}
