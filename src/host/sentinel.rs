//! From a `sentinel.conf` to a running Sentinel, and the main thread's life after that.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use ringkeeper_core::config::sentinel::{Config, PORT_DEFAULT, RunId};
use ringkeeper_core::id::ListenerId;
use ringkeeper_core::io::{Drive, Errand, Event, Host, Mail, Notice, Recipient};
use ringkeeper_core::node::sentinel::SentinelWorker;
use ringkeeper_core::sentinel::machine::{Process, Setup};
use ringkeeper_core::tls::Tls;

use crate::host::errands::{self, Errands};
use crate::host::events;
use crate::host::listen::{self, Address, Request};
use crate::host::log::Log;
use crate::host::reason;
use crate::host::runtime::{self, Choice, Listener, Selected};
use crate::host::signal::{self, Signal, Signals};
use crate::host::{self, sys, tls};

/// Connections that may wait to be accepted. As Redis' `tcp-backlog`.
const BACKLOG: i32 = 511;

/// How often the main thread looks around without being called.
const PATIENCE: Duration = Duration::from_secs(1);

/// No exit code was asked for.
const RUNNING: i32 = -1;

/// What to start.
pub(crate) struct Launch {
    /// What the file says, and where what is learnt goes.
    pub(crate) setup: Setup,
    /// Which runtime.
    pub(crate) runtime: Choice,
}

/// What the Sentinel asks of the rest of the process.
struct Desk {
    errands: Errands,
    exit: Arc<AtomicI32>,
}

impl Host for Desk {
    fn event(&mut self, event: Event) {
        match event {
            Event::Sentinel { loudness, name, message } => events::say(loudness, name, &message),
            Event::TlsFailed { peer, is_server, reason } => {
                events::tls_failed(&peer, is_server, &reason);
            }
            Event::Exit { code } => {
                self.exit.store(i32::from(code), Ordering::Release);
                signal::call_for_attention();
            }
            Event::Drained => {
                self.exit.store(0, Ordering::Release);
                signal::call_for_attention();
            }
            other @ (Event::Reloaded(_)
            | Event::ServerDown { .. }
            | Event::ServerUp { .. }
            | Event::ServerSilent { .. }
            | Event::Ejected { .. }
            | Event::Returned { .. }
            | Event::GreetingRefused { .. }
            | Event::ServerProtocolError { .. }
            | Event::Switched { .. }
            | Event::HoldBegan { .. }
            | Event::HoldEnded { .. }
            | Event::ClientRefused { .. }
            | Event::ClientOverLimit { .. }
            | Event::Router { .. }
            | Event::Balance { .. }
            | Event::Check { .. }
            | Event::ChannelFailed { .. }) => {
                debug_assert!(false, "a Sentinel has no pools, but gave {other:?}");
            }
        }
    }

    fn errand(&mut self, errand: Errand) {
        self.errands.take(errand);
    }

    fn notice(&mut self, _: Recipient, notice: Notice) {
        debug_assert!(false, "a Sentinel alone has nobody to tell, but told {notice:?}");
    }
}

/// A Sentinel on a thread of its own.
pub(crate) struct Running {
    thread: JoinHandle<io::Result<()>>,
    stop: Box<dyn Fn() + Send>,
    exit: Arc<AtomicI32>,
}

/// Opens everything and starts the Sentinel.
///
/// # Errors
///
/// What could not be opened, why, and what to do.
pub(crate) fn start(launch: Launch) -> anyhow::Result<Running> {
    sys::tune_allocator();
    if let Err(error) = host::raise_descriptor_limit() {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
    let (selected, _) = runtime::select(launch.runtime)?;
    let setup = identify(with_users(launch.setup)?)?;
    let server = &setup.config.server;
    let mut listeners = Vec::new();
    open(&setup.config, server.port.unwrap_or(PORT_DEFAULT), &mut listeners)?;
    let plain = listeners.len();
    open(&setup.config, server.tls.port.unwrap_or(0), &mut listeners)?;
    let encrypted: BTreeSet<ListenerId> =
        listeners.iter().skip(plain).map(|listener| listener.id).collect();
    let encryption = tls::plan(&server.tls, encrypted).context("TLS can't be used")?;
    let seed = host::seed().context("no seed for the Sentinel")?;
    let start = ringkeeper_core::time::Instant::START;
    let worker = SentinelWorker::new(setup, seed, start);
    match encryption {
        Some(plan) => spawn(selected, Tls::new(worker, plan, start), listeners),
        None => spawn(selected, worker, listeners),
    }
    .context("the Sentinel's thread could not start")
}

/// Reads the file with the users, where the configuration names one.
///
/// # Errors
///
/// It can't be read, or what is wrong with it.
pub(crate) fn with_users(setup: Setup) -> anyhow::Result<Setup> {
    let Some(name) = setup.config.server.aclfile.clone() else { return Ok(setup) };
    let text = errands::read(Path::new(&name));
    let text = text.with_context(|| format!("Error loading ACLs, opening file '{name}'"))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let wrong = |why| anyhow::anyhow!("Aborting Redis startup because of ACL errors: {why}");
    setup.with_users(text).map_err(wrong)
}

/// Adds what is told of the process.
///
/// # Errors
///
/// The system's source of entropy can't be read.
pub(crate) fn identify(mut setup: Setup) -> anyhow::Result<Setup> {
    let port = setup.config.server.port.unwrap_or(PORT_DEFAULT);
    let tls_port = setup.config.server.tls.port.unwrap_or(0);
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    setup.process = Process {
        run_id: RunId::from_random(random_bits().context("no ID for this run")?),
        id: std::process::id(),
        port: if port == 0 { tls_port } else { port },
        executable: std::env::current_exe()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        os: operating_system(),
        unix_micros_at_start: u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX),
        ..setup.process
    };
    Ok(setup)
}

fn random_bits() -> io::Result<[u8; 20]> {
    let mut bits = [0; 20];
    for chunk in bits.chunks_mut(8) {
        let drawn = host::seed()?.to_le_bytes();
        chunk.iter_mut().zip(drawn).for_each(|(bit, byte)| *bit = byte);
    }
    Ok(bits)
}

fn operating_system() -> String {
    let system = rustix::system::uname();
    format!(
        "{} {} {}",
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
        system.machine().to_string_lossy()
    )
}

/// Returns the sockets that the file wants for a port, and whether each may be missing; port 0 wants
/// none.
pub(crate) fn wanted(config: &Config, port: u16) -> Vec<(bool, Request)> {
    if port == 0 {
        return Vec::new();
    }
    let defaults = ["*".to_owned(), "-::*".to_owned()];
    let wanted = if config.server.bind.is_empty() { &defaults[..] } else { &config.server.bind };
    let request = |host: &String| {
        let (is_optional, host) = match host.strip_prefix('-') {
            Some(host) => (true, host),
            None => (false, host.as_str()),
        };
        let host = match host {
            "*" => "0.0.0.0",
            "::*" => "::",
            host => host,
        };
        let request = Request {
            purpose: "the Sentinel".to_owned(),
            address: Address::Tcp { host: host.to_owned(), port },
            backlog: BACKLOG,
            reuseport: false,
        };
        (is_optional, request)
    };
    wanted.iter().map(request).collect()
}

/// Opens the sockets that the file wants for a port.
fn open(config: &Config, port: u16, listeners: &mut Vec<Listener>) -> anyhow::Result<()> {
    for (is_optional, request) in wanted(config, port) {
        match listen::open(&request) {
            Ok(socket) => {
                let id = ListenerId(u16::try_from(listeners.len()).context("too many addresses")?);
                listeners.push(Listener { id, socket, tcp_keepalive: true });
            }
            Err(error) if is_optional => tracing::debug!("{error}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn spawn<D: Drive + Send + 'static>(
    selected: Selected,
    worker: D,
    listeners: Vec<Listener>,
) -> io::Result<Running> {
    let exit = Arc::new(AtomicI32::new(RUNNING));
    let code = Arc::clone(&exit);
    let start = Instant::now();
    match selected {
        #[cfg(all(feature = "uring", target_os = "linux"))]
        Selected::Uring => {
            let (sender, mailbox) = rt_uring::mailbox()?;
            let mail = sender.clone();
            let errands = Errands::start(move |answer: Mail| {
                let _ = mail.send(rt_uring::Message::Mail(answer));
            })?;
            let desk = Desk { errands, exit: code };
            let listeners = listeners
                .into_iter()
                .map(|Listener { id, socket, tcp_keepalive }| rt_uring::Listener {
                    id,
                    socket,
                    tcp_keepalive,
                })
                .collect();
            let thread = thread(move || rt_uring::run(worker, start, listeners, mailbox, desk))?;
            let stop = Box::new(move || {
                let _ = sender.send(rt_uring::Message::Stop);
            });
            Ok(Running { thread, stop, exit })
        }
        Selected::Tokio => {
            let (sender, mailbox) = rt_tokio::mailbox()?;
            let mail = sender.clone();
            let errands = Errands::start(move |answer: Mail| {
                let _ = mail.send(rt_tokio::Message::Mail(answer));
            })?;
            let desk = Desk { errands, exit: code };
            let listeners = listeners
                .into_iter()
                .map(|Listener { id, socket, tcp_keepalive }| rt_tokio::Listener {
                    id,
                    socket,
                    tcp_keepalive,
                })
                .collect();
            let thread = thread(move || rt_tokio::run(worker, start, listeners, mailbox, desk))?;
            let stop = Box::new(move || {
                let _ = sender.send(rt_tokio::Message::Stop);
            });
            Ok(Running { thread, stop, exit })
        }
    }
}

fn thread(
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name("rk-sentinel".to_owned()).spawn(move || {
        // Also when `body` panics, so that the main thread does not wait for nobody.
        struct Farewell;
        impl Drop for Farewell {
            fn drop(&mut self) {
                signal::call_for_attention();
            }
        }
        let _farewell = Farewell;
        body()
    })
}

/// Obeys signals until the end of the process; returns its exit code.
pub(crate) fn supervise(running: Running, log: &Log, signals: &Signals) -> ExitCode {
    let Running { thread, stop, exit } = running;
    loop {
        let code = exit.load(Ordering::Acquire);
        if code != RUNNING {
            stop();
            let _ = thread.join();
            return ExitCode::from(u8::try_from(code).unwrap_or(1));
        }
        if thread.is_finished() {
            match thread.join() {
                Ok(Err(error)) => tracing::error!("the Sentinel ended: {}", reason(&error)),
                Ok(Ok(())) | Err(_) => tracing::error!("the Sentinel ended unasked"),
            }
            return ExitCode::FAILURE;
        }
        let signal = match signals.wait(PATIENCE) {
            Ok(signal) => signal,
            Err(error) => {
                tracing::error!("signals can't be received: {}", reason(&error));
                return ExitCode::FAILURE;
            }
        };
        match signal {
            // What must not be forgotten is durable before anybody hears of it.
            Some(Signal::Interrupt | Signal::Terminate) => {
                tracing::warn!("User requested shutdown...");
                stop();
                let _ = thread.join();
                tracing::warn!("Sentinel is now ready to exit, bye bye...");
                return ExitCode::SUCCESS;
            }
            Some(Signal::Hangup) => {
                if let Err(error) = log.reopen() {
                    tracing::error!("the log can't be opened again: {}", reason(&error));
                }
            }
            Some(
                Signal::Attention
                | Signal::User1
                | Signal::User2
                | Signal::Louder
                | Signal::Quieter,
            )
            | None => {}
        }
    }
}

/// Returns why a file could not be rewritten, if that can be told beforehand.
///
/// # Errors
///
/// The operating system's words.
pub(crate) fn check_writable(path: &Path) -> io::Result<()> {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK)?;
    Ok(())
}
