//! From a configuration to a running worker, and the main thread's life after that.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use ringkeeper_core::config::nutcracker::{Config, ListenAddress, Pool};
use ringkeeper_core::id::ListenerId;
use ringkeeper_core::io::Command;
use ringkeeper_core::node::Worker;
use ringkeeper_core::proxy::{ListenerRole, Plan, Policy};

use crate::host::events::EventLog;
use crate::host::listen::{self, Address, OpenError, Request};
use crate::host::log::Log;
use crate::host::memory::Trimmer;
use crate::host::runtime::{self, Choice, Listener, Running};
use crate::host::signal::{Persona, Signal, Signals};
use crate::host::{self, sys};

/// The release of twemproxy whose behaviour is offered under the name `nutcracker`; also what the
/// statistics name then.
pub(crate) const NUTCRACKER_VERSION: &str = "0.5.0";

/// Descriptors kept for the log, the runtime and whatever libraries open; twemproxy's number.
const DESCRIPTORS_RESERVED: u64 = 32;

/// Room for fewer clients than this is worth a warning.
const CLIENTS_FEW: u32 = 1000;

/// How long clients may take to finish after the first SIGINT or SIGTERM.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// How much longer than [`DRAIN_LIMIT`] the worker may take to say that it is done.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// Connections that may wait to be accepted on the statistics port.
const STATS_BACKLOG: i32 = 64;

/// Where the statistics port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Host name or address.
    pub(crate) host: String,
    /// Port; 0 lets the system choose.
    pub(crate) port: u16,
    /// Whether the service must not start without it.
    pub(crate) required: bool,
}

/// What to start.
pub(crate) struct Launch {
    /// The pools.
    pub(crate) config: Config,
    /// The name that decides on details.
    pub(crate) persona: Persona,
    /// Which runtime.
    pub(crate) runtime: Choice,
    /// Where the figures are.
    pub(crate) stats: Stats,
}

/// Opens everything and starts the worker.
///
/// # Errors
///
/// What could not be opened, why, and what to do.
pub(crate) fn start(launch: Launch) -> anyhow::Result<Running> {
    sys::tune_allocator();
    let descriptors = match host::raise_descriptor_limit() {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!("the limit of open files stays as it is: {error}");
            None
        }
    };
    let selected = runtime::select(launch.runtime)?;
    let mut plan = Plan::new(&launch.config, policy(launch.persona));
    let mut listeners = open_pools(&launch.config)?;
    if let Some(listener) = open_stats(&launch.stats, listeners.len())? {
        plan.listeners.push(ListenerRole::Stats);
        listeners.push(listener);
    }
    describe_host(&mut plan, launch.persona, descriptors);
    let seed = host::seed().context("no seed for the worker")?;
    let plan = Arc::new(plan);
    let mut events = EventLog::new(Arc::clone(&plan));
    let worker = Worker::new(plan, seed, ringkeeper_core::time::Instant::START);
    runtime::start(selected, worker, Instant::now(), listeners, move |event| events.log(event))
        .context("the worker's thread could not start")
}

fn policy(persona: Persona) -> Policy {
    match persona {
        Persona::Nutcracker => Policy::NUTCRACKER,
        Persona::Ringkeeper => Policy::RINGKEEPER,
    }
}

/// Fills in what only the system knows.
fn describe_host(plan: &mut Plan, persona: Persona, descriptors: Option<u64>) {
    let system = rustix::system::uname();
    plan.host_name = system.nodename().to_string_lossy().into_owned();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    plan.started_unix_seconds = now.as_secs();
    plan.process_id = std::process::id();
    plan.version = match persona {
        Persona::Nutcracker => NUTCRACKER_VERSION.to_owned(),
        Persona::Ringkeeper => env!("CARGO_PKG_VERSION").to_owned(),
    };
    let Some(descriptors) = descriptors else { return };
    let servers: u64 = plan
        .pools
        .iter()
        .map(|pool| {
            let count = u64::try_from(pool.servers.len()).unwrap_or(u64::MAX);
            // One set for each protocol, RESP2 and RESP3.
            count.saturating_mul(u64::from(pool.server_connections)).saturating_mul(2)
        })
        .fold(0, u64::saturating_add);
    let left = descriptors.saturating_sub(servers).saturating_sub(DESCRIPTORS_RESERVED);
    plan.clients_max = plan.clients_max.min(u32::try_from(left).unwrap_or(u32::MAX));
    if plan.clients_max < CLIENTS_FEW {
        tracing::warn!(
            clients_max = plan.clients_max,
            open_files_max = descriptors,
            "the limit of open files leaves room for few clients; raise it (LimitNOFILE=, ulimit -n)"
        );
    }
}

/// Returns what is wrong with the host names that pools listen on.
pub(crate) fn unresolved_listeners(config: &Config) -> Vec<OpenError> {
    config.pools.iter().filter_map(|pool| listen::check_name(&request(pool)).err()).collect()
}

fn request(pool: &Pool) -> Request {
    Request {
        purpose: format!("pool '{}'", pool.name),
        address: listen_address(pool),
        backlog: i32::try_from(pool.backlog).unwrap_or(i32::MAX),
        reuseport: pool.reuseport,
    }
}

fn open_pools(config: &Config) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::with_capacity(config.pools.len());
    for (id, pool) in (0_u16..).zip(&config.pools) {
        let socket = listen::open(&request(pool))?;
        let at = listen::endpoint(&socket)?;
        tracing::info!(pool = pool.name, address = %at, "listening");
        listeners.push(Listener { id: ListenerId(id), socket, tcp_keepalive: pool.tcpkeepalive });
    }
    Ok(listeners)
}

/// Returns where a pool listens, in the host's terms.
fn listen_address(pool: &Pool) -> Address {
    match &pool.listen.address {
        ListenAddress::Tcp(at) => Address::Tcp { host: at.host.clone(), port: at.port },
        ListenAddress::Unix { path, mode } => Address::Unix { path: path.into(), mode: *mode },
    }
}

fn open_stats(stats: &Stats, position: usize) -> anyhow::Result<Option<Listener>> {
    let request = Request {
        purpose: "statistics".to_owned(),
        address: Address::Tcp { host: stats.host.clone(), port: stats.port },
        backlog: STATS_BACKLOG,
        reuseport: false,
    };
    match listen::open(&request) {
        Ok(socket) => {
            let at = listen::endpoint(&socket)?;
            tracing::info!(address = %at, "statistics are served");
            let id = ListenerId(u16::try_from(position).context("too many pools")?);
            Ok(Some(Listener { id, socket, tcp_keepalive: false }))
        }
        Err(error) if stats.required => Err(error.into()),
        Err(error) => {
            tracing::warn!("running without statistics: {error}");
            Ok(None)
        }
    }
}

/// Obeys signals until the end of the process; returns its exit code.
pub(crate) fn supervise(
    running: Running,
    persona: Persona,
    log: &Log,
    signals: &Signals,
) -> ExitCode {
    let mut trimmer = Trimmer::new();
    let mut draining_since: Option<Instant> = None;
    loop {
        let is_over =
            draining_since.is_some_and(|since| since.elapsed() > DRAIN_LIMIT + DRAIN_GRACE);
        if running.is_drained() || is_over {
            return farewell(running.stop(), log);
        }
        if running.has_ended() {
            return failure(running.stop());
        }
        let mut patience = trimmer.until_next_look();
        if draining_since.is_some() {
            patience = patience.min(DRAIN_GRACE);
        }
        let signal = match signals.wait(patience) {
            Ok(signal) => signal,
            Err(error) => return failure(Err(error)),
        };
        trimmer.look();
        let Some(signal) = signal else { continue };
        match (persona, signal) {
            (_, Signal::Attention) => {}
            (Persona::Nutcracker, Signal::Interrupt) => {
                log.signal("signal 2 (SIGINT) received, exiting");
                // At once and with 1, as twemproxy does: clients are not waited for.
                std::process::exit(1);
            }
            (_, Signal::Interrupt | Signal::Terminate) if draining_since.is_some() => {
                log.signal(&format!("{} again, closing everything", signal.name()));
                return farewell(running.stop(), log);
            }
            (_, Signal::Interrupt | Signal::Terminate) => {
                log.signal(&format!(
                    "{} received: no new clients, those connected have {} s to finish",
                    signal.name(),
                    DRAIN_LIMIT.as_secs()
                ));
                draining_since = Some(Instant::now());
                running.command(Command::Drain { limit: DRAIN_LIMIT });
            }
            (_, Signal::Hangup) => hang_up(persona, log),
            (_, Signal::Louder | Signal::Quieter | Signal::User1 | Signal::User2) => {
                steer_log(signal, log);
            }
        }
    }
}

fn farewell(result: io::Result<()>, log: &Log) -> ExitCode {
    match result {
        Ok(()) => {
            log.signal("all clients are gone, ending");
            ExitCode::SUCCESS
        }
        Err(error) => failure(Err(error)),
    }
}

/// Reports a worker that ended unasked.
fn failure(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => tracing::error!("the worker ended without being asked to"),
        Err(error) => tracing::error!("the worker ended: {error}"),
    }
    ExitCode::FAILURE
}

fn hang_up(persona: Persona, log: &Log) {
    log.signal("signal 1 (SIGHUP) received, reopening log file");
    if let Err(error) = log.reopen() {
        tracing::error!("reopening log file failed, the old one stays in use: {error}");
    }
    if persona == Persona::Ringkeeper {
        log.signal(
            "the configuration is not read again; to apply a changed one, check it with \
             `ringkeeper check FILE` and restart the service",
        );
    }
}

fn steer_log(signal: Signal, log: &Log) {
    let head = format!("signal {} ({}) received", signal.number(), signal.name());
    match signal {
        Signal::Louder => {
            log.signal(&format!("{head}, up logging level"));
            if let Some(level) = log.louder() {
                log.signal(&format!("up log level to {level}"));
            }
        }
        Signal::Quieter => {
            log.signal(&format!("{head}, down logging level"));
            if let Some(level) = log.quieter() {
                log.signal(&format!("down log level to {level}"));
            }
        }
        Signal::User1
        | Signal::User2
        | Signal::Hangup
        | Signal::Interrupt
        | Signal::Terminate
        | Signal::Attention => log.signal(&head),
    }
}
