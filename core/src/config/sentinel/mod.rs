//! Sentinel's `sentinel.conf`, read in place, and written back with what was learnt.
//!
//! The file has two authors: the operator, and the Sentinel that keeps its state in it. Reading
//! keeps both; [`rewrite`] changes the lines whose meaning changed and leaves every other byte,
//! comments, blank lines and order included, as it was.
//!
//! Source: Redis 7.0 and Valkey, as their users see them.
//!
//! Deviates:
//! - numbers are whole decimal numbers, where Redis takes the digits at the start of anything;
//! - names of masters and hosts hold no commas and spaces, which would break hellos and events;
//! - hosts are not resolved here, and scripts are not looked for: both are the host's to report;
//! - directives of an ordinary server that mean nothing to us are tolerated with a warning;
//! - only `sentinel …` lines are ever rewritten;
//! - Valkey's `primary-reboot-down-after-period` is read and written back in Redis' spelling, which
//!   both can read.

mod build;
mod item;
mod line;
mod rewrite;
mod server;
mod statement;
pub(crate) mod value;

use std::net::IpAddr;
use std::num::NonZeroU32;

use super::diagnostic::{Collector, Diagnostic};
use super::text;

pub use self::rewrite::{Rewriter, rewrite};
pub use self::value::{Address, AddressError, Epoch, MasterName, RunId};
pub use super::nutcracker::Secret;

/// Where a Sentinel listens if the file does not say.
pub const PORT_DEFAULT: u16 = 26379;

/// `down-after-milliseconds` of a master that has none.
pub const DOWN_AFTER_MS_DEFAULT: u64 = 30_000;

/// `failover-timeout` of a master that has none, milliseconds.
pub const FAILOVER_TIMEOUT_MS_DEFAULT: u64 = 180_000;

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
    /// What concerns the process and not the protocol.
    pub server: Server,
    /// Names this Sentinel; none before its first start.
    pub myid: Option<RunId>,
    /// The latest election that it knows of.
    pub current_epoch: Epoch,
    /// Whether scripts may only be set in the file. Default yes.
    pub deny_scripts_reconfig: bool,
    /// Whether names may stand where addresses do. Default no.
    pub resolve_hostnames: bool,
    /// Whether names are told to others as names. Default no.
    pub announce_hostnames: bool,
    /// What peers should call our host.
    pub announce_ip: Option<String>,
    /// What peers should take for our port; none is the one that is listened on.
    pub announce_port: Option<u16>,
    /// Whom to be at other Sentinels.
    pub sentinel_user: Option<String>,
    /// The password at other Sentinels.
    pub sentinel_pass: Option<Secret>,
    /// The masters in the order of the file; their names differ. At most
    /// [`MASTERS_MAX`](crate::limits::MASTERS_MAX).
    pub masters: Vec<Master>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: Server::default(),
            myid: None,
            current_epoch: Epoch::ZERO,
            deny_scripts_reconfig: true,
            resolve_hostnames: false,
            announce_hostnames: false,
            announce_ip: None,
            announce_port: None,
            sentinel_user: None,
            sentinel_pass: None,
            masters: Vec::new(),
        }
    }
}

/// Directives of an ordinary server that a Sentinel heeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Where to listen; none is [`PORT_DEFAULT`], 0 nowhere.
    pub port: Option<u16>,
    /// Addresses to listen on; none is all of them. A dash before one means that it may be missing.
    pub bind: Vec<String>,
    /// Where connections to servers and peers come from; none leaves it to the kernel.
    pub bind_source: Option<IpAddr>,
    /// The working directory.
    pub dir: Option<String>,
    /// Where the log goes; none is standard output.
    pub logfile: Option<String>,
    /// Whether to leave the terminal.
    pub daemonize: bool,
    /// Where the process' number goes.
    pub pidfile: Option<String>,
    /// The password of clients, and of peers without one of their own.
    pub requirepass: Option<Secret>,
    /// Encryption.
    pub tls: Tls,
    /// The file that has the users instead.
    pub aclfile: Option<String>,
    /// Users, in the order of the file; their names differ.
    pub users: Vec<User>,
}

/// A user and the rules about what it may do, which whoever applies them judges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its rules, in order.
    pub rules: Vec<String>,
}

/// Directives about encryption. The files are read by the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Where to listen for encrypted connections; none or 0 is nowhere.
    pub port: Option<u16>,
    /// Whether connections to servers and peers are encrypted. Default no.
    pub replication: bool,
    /// What is asked of clients. Default yes.
    pub auth_clients: AuthClients,
    /// Our certificate.
    pub cert_file: Option<String>,
    /// Its key.
    pub key_file: Option<String>,
    /// Our certificate at servers and peers, if it is another one.
    pub client_cert_file: Option<String>,
    /// Its key.
    pub client_key_file: Option<String>,
    /// Who is trusted.
    pub ca_cert_file: Option<String>,
    /// A folder with such files.
    pub ca_cert_dir: Option<String>,
    /// Versions, as the file names them; empty is all that are spoken here.
    pub protocols: Vec<String>,
}

/// `tls-auth-clients`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthClients {
    /// A certificate that is trusted.
    #[default]
    Yes,
    /// Nothing.
    No,
    /// If there is a certificate it has to be trusted.
    Optional,
}

/// What the file says about one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// Its name.
    pub name: MasterName,
    /// Where it is, and how many must agree.
    pub monitor: Monitor,
    /// Silence after which it, its replicas and its peers count as down, milliseconds.
    pub down_after_ms: u64,
    /// What bounds a fail-over, milliseconds.
    pub failover_timeout_ms: u64,
    /// Replicas that may follow a new master at the same time.
    pub parallel_syncs: NonZeroU32,
    /// What to run at events. Empty is none.
    pub notification_script: Option<String>,
    /// What to run when the master moves.
    pub client_reconfig_script: Option<String>,
    /// The password at the master and its replicas.
    pub auth_pass: Option<Secret>,
    /// The user there.
    pub auth_user: Option<String>,
    /// How long a master that restarted may take to serve, milliseconds; 0 is no bound.
    pub reboot_down_after_ms: u64,
    /// The election that gave it its address.
    pub config_epoch: Epoch,
    /// The latest election that we voted in for it.
    pub leader_epoch: Epoch,
    /// Its replicas; they differ. At most [`REPLICAS_PER_MASTER_MAX`](crate::limits::REPLICAS_PER_MASTER_MAX).
    pub known_replicas: Vec<Address>,
    /// Who else watches it; their IDs differ. At most [`PEERS_PER_MASTER_MAX`](crate::limits::PEERS_PER_MASTER_MAX).
    pub known_sentinels: Vec<KnownSentinel>,
    /// What commands are called there.
    pub renamed_commands: Vec<RenamedCommand>,
}

impl Master {
    /// Makes a master with nothing but defaults.
    pub const fn new(name: MasterName, monitor: Monitor) -> Self {
        Self {
            name,
            monitor,
            down_after_ms: DOWN_AFTER_MS_DEFAULT,
            failover_timeout_ms: FAILOVER_TIMEOUT_MS_DEFAULT,
            parallel_syncs: NonZeroU32::MIN,
            notification_script: None,
            client_reconfig_script: None,
            auth_pass: None,
            auth_user: None,
            reboot_down_after_ms: 0,
            config_epoch: Epoch::ZERO,
            leader_epoch: Epoch::ZERO,
            known_replicas: Vec::new(),
            known_sentinels: Vec::new(),
            renamed_commands: Vec::new(),
        }
    }
}

/// Where a master is, and how many must agree that it is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Its address.
    pub address: Address,
    /// Sentinels that must see it down.
    pub quorum: NonZeroU32,
}

/// A peer that the file remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSentinel {
    /// Where it is.
    pub address: Address,
    /// Its name.
    pub run_id: RunId,
}

/// A command that has another name on the servers of one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenamedCommand {
    /// Its own name, in any case.
    pub from: String,
    /// What it is called there.
    pub to: String,
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
/// Time and memory are bounded by [`CONFIG_BYTES_MAX`](crate::limits::CONFIG_BYTES_MAX) and the limits of masters,
/// replicas and peers.
pub fn parse(name: &str, text: &str) -> Parsed {
    if let Err(diagnostics) = text::check_size(name, text) {
        return Parsed { config: None, diagnostics };
    }
    let mut out = Collector::new(text);
    let config = build::read(text, &mut out);
    let config = if out.has_errors() { None } else { Some(config) };
    Parsed { config, diagnostics: out.finish() }
}

#[cfg(test)]
mod tests;
