//! What a run consists of, and what comes out of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringkeeper_core::id::ListenerId;
use ringkeeper_core::io::{Endpoint, Parcel};
use ringkeeper_core::time::Instant;

/// One pool of servers behind one listener.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The listener whose clients this pool serves.
    pub listener: ListenerId,
    /// Where the model servers listen; unique over all pools.
    pub servers: Vec<Endpoint>,
    /// What clients and the machine must say to AUTH.
    pub password: Option<Vec<u8>>,
    /// The database in which every effect must happen.
    pub database: u32,
    /// Whether keys may move to another server while one is ejected.
    pub ejects: bool,
    /// Whether clients and servers speak memcached's protocol; else Redis'.
    pub is_memcache: bool,
}

impl Pool {
    /// Makes a plain pool of `servers` servers; `number` chooses listener and addresses.
    pub fn plain(number: u8, servers: u8) -> Self {
        let server = |index| {
            Endpoint::Tcp(SocketAddr::new(
                IpAddr::from([10, 0, number, index + 1]),
                6379 + u16::from(index),
            ))
        };
        Self {
            listener: ListenerId(u16::from(number)),
            servers: (0..servers).map(server).collect(),
            password: None,
            database: 0,
            ejects: false,
            is_memcache: false,
        }
    }
}

/// How one session of a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Sends a pipeline, reads the replies, thinks, goes on.
    Steady,
    /// Sends the next pipeline without waiting for the replies of the last one.
    Burst,
    /// Reads a little, then waits.
    Slow,
    /// Sends and never reads.
    Deaf,
    /// Leaves with replies due.
    Quitter,
    /// Leaves in the middle of a request.
    Torn,
    /// Says that it sends nothing more, then waits for its replies.
    HalfCloser,
    /// Sends what is not a request after some that are.
    Vandal,
}

/// A command that clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// GET of a shared key.
    Get,
    /// GET of a key whose value follows from client and request, so that a reply of somebody
    /// else is told apart.
    Echo,
    /// SET of a value that names client and request.
    Set,
    /// APPEND of a value that names client and request.
    Append,
    /// INCR of a counter.
    Incr,
    /// STRLEN of a shared key.
    Strlen,
    /// EXISTS of one key.
    Exists,
    /// DEL of one or more keys.
    Del,
    /// UNLINK of one or more keys.
    Unlink,
    /// TOUCH of one or more keys.
    Touch,
    /// MGET of one or more keys.
    Mget,
    /// MSET of one or more keys.
    Mset,
    /// PING, answered by whoever likes to.
    Ping,
}

/// What clients do.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The kinds of session, drawn evenly; repeat one to make it more likely.
    pub profiles: Vec<Profile>,
    /// The commands, drawn evenly.
    pub verbs: Vec<Verb>,
    /// Most requests that a client sends at once.
    pub pipeline_max: u64,
    /// Most keys of one request that may have several.
    pub keys_max: u64,
    /// Largest value, bytes.
    pub value_bytes_max: u64,
    /// How long a client thinks between pipelines, at most.
    pub think_max: Duration,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A server reads and answers nothing for a while; its kernel still accepts.
    Hang,
    /// A server dies: its connections end, new ones are refused, later it is back with its data.
    Stop,
    /// A server's network is gone: silence, and connecting times out.
    Blackhole,
    /// A link is silent for a while.
    Cut,
    /// A connection to a server is reset.
    ServerReset,
    /// A connection to a client is reset.
    ClientReset,
    /// A server ends a connection in order.
    ServerClose,
    /// A server sends half a reply and dies.
    HalfReply,
    /// A server sends what is not a reply.
    Garbage,
    /// A server sends a reply too many.
    ExtraReply,
    /// A server answers with errors for a while.
    ErrorReplies,
    /// A server takes its time over each request for a while.
    Sluggish,
    /// The runtime does not run for a while.
    Stall,
}

impl FaultKind {
    /// Every kind there is.
    pub const ALL: [Self; 13] = [
        Self::Hang,
        Self::Stop,
        Self::Blackhole,
        Self::Cut,
        Self::ServerReset,
        Self::ClientReset,
        Self::ServerClose,
        Self::HalfReply,
        Self::Garbage,
        Self::ExtraReply,
        Self::ErrorReplies,
        Self::Sluggish,
        Self::Stall,
    ];
}

/// A whole run: first faults and load (nothing wrong may happen), then quiet (everything must
/// come right within a bound).
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The pools; a client belongs to one.
    pub pools: Vec<Pool>,
    /// Clients over all pools.
    pub clients: u32,
    /// What they do.
    pub workload: Workload,
    /// What may go wrong; each seed uses some of it. Empty: nothing, and then no error is
    /// forgiven.
    pub faults: Vec<FaultKind>,
    /// How much time lies between two faults, on average; none: each seed draws it, and it is short.
    pub faults_every: Option<Duration>,
    /// Plans that the machine is given while faults happen, drawn evenly, a `proxy::Plan` each.
    /// Empty: it keeps the one that it began with.
    pub plans: Vec<Parcel>,
    /// Names that the resolver knows; one may stand here several times. An address where no
    /// server is configured refuses connections.
    pub hosts: Vec<(String, IpAddr)>,
    /// How long faults may happen.
    pub safety: Duration,
    /// How long after the last fault errors are still forgiven; then every old request must have
    /// its answer.
    pub settle: Duration,
    /// How long the last requests may take, which all must succeed.
    pub liveness: Duration,
    /// How long a client that reads may wait for an answer, also from servers that are dead; if
    /// bounded. Judged when the faults end, so `safety` must be longer.
    pub reply_within: Option<Duration>,
    /// Largest buffer of one transmission, bytes.
    pub transmit_bytes_max: usize,
    /// Most reply bytes that the machine may hold back for one connected client, if bounded.
    /// Replies that come after their request timed out count as held although they are dropped,
    /// so a tight bound needs a scenario without time-outs.
    pub client_backlog_bytes_max: Option<usize>,
    /// Whether the machine may close a client that did nothing wrong when a server fails.
    pub closes_on_failure: bool,
    /// Length of a reply, bytes, from which on the machine may pass it on in pieces; a server that
    /// dies in the middle of one then costs the client its connection.
    pub streamed_reply_bytes: Option<usize>,
    /// Lines that a failure shows of what happened last.
    pub trace_lines: usize,
    /// Whether the run ends with [`Command::Drain`](ringkeeper_core::io::Command::Drain).
    pub drains: bool,
}

impl Scenario {
    /// A calm run: good clients, no faults; every reply must be right and none an error.
    pub fn calm(pools: Vec<Pool>) -> Self {
        Self {
            pools,
            clients: 8,
            workload: Workload {
                profiles: vec![Profile::Steady, Profile::Burst, Profile::Slow, Profile::HalfCloser],
                verbs: vec![
                    Verb::Get,
                    Verb::Echo,
                    Verb::Set,
                    Verb::Append,
                    Verb::Incr,
                    Verb::Strlen,
                    Verb::Exists,
                    Verb::Del,
                    Verb::Unlink,
                    Verb::Touch,
                    Verb::Mget,
                    Verb::Mset,
                    Verb::Ping,
                ],
                pipeline_max: 40,
                keys_max: 8,
                value_bytes_max: 70 * 1024,
                think_max: Duration::from_millis(40),
            },
            faults: Vec::new(),
            faults_every: None,
            plans: Vec::new(),
            hosts: Vec::new(),
            safety: Duration::from_secs(2),
            settle: Duration::from_secs(5),
            liveness: Duration::from_secs(5),
            reply_within: None,
            transmit_bytes_max: 256 * 1024 * 1024,
            client_backlog_bytes_max: None,
            closes_on_failure: false,
            streamed_reply_bytes: None,
            trace_lines: 120,
            drains: false,
        }
    }

    /// A hard run: every kind of client and every kind of fault.
    pub fn harsh(pools: Vec<Pool>) -> Self {
        let mut scenario = Self::calm(pools);
        scenario.workload.profiles = vec![
            Profile::Steady,
            Profile::Steady,
            Profile::Steady,
            Profile::Burst,
            Profile::Slow,
            Profile::Deaf,
            Profile::Quitter,
            Profile::Torn,
            Profile::HalfCloser,
            Profile::Vandal,
        ];
        scenario.faults = FaultKind::ALL.to_vec();
        scenario
    }
}

/// What a run did; a report of zeros would be a test of nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Turns of the runtime.
    pub turns: u64,
    /// Inputs handed to the machine.
    pub inputs: u64,
    /// Outputs taken from it.
    pub outputs: u64,
    /// Sessions of clients.
    pub sessions: u64,
    /// Requests that clients sent whole.
    pub requests: u64,
    /// Right replies.
    pub replies: u64,
    /// Error replies.
    pub errors: u64,
    /// Requests whose connection ended before their reply.
    pub lost: u64,
    /// Commands that servers executed.
    pub effects: u64,
    /// Faults injected.
    pub faults: u64,
    /// Plans that the machine went on with.
    pub reloads: u64,
    /// Largest number of reply bytes held back for one client.
    pub backlog_bytes_max: usize,
    /// Largest transmission, bytes.
    pub transmit_bytes_max: usize,
    /// When the run was over.
    pub end: Instant,
}

/// A broken promise, and how to see it again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// The event at which it showed.
    pub step: u64,
    /// The virtual time.
    pub at: Instant,
    /// What is wrong.
    pub what: String,
    /// What happened last, oldest first.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        write!(
            f,
            "seed {} step {} at {:.6}s: {}\nreplay: RINGKEEPER_SEED={} (and the same test)",
            self.seed,
            self.step,
            self.at.since(Instant::START).as_secs_f64(),
            self.what,
            self.seed,
        )
    }
}

impl std::error::Error for Failure {}
