//! From a `keepalived.conf` to running virtual servers.
//!
//! Their worker has a thread of its own at normal priority. Sockets are bound whether or not this
//! host has the virtual address: it may come at any moment, and must never be here without them.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ringkeeper_core::balance::{CoverPlan, Listening, Plan};
use ringkeeper_core::config::keepalived::Config;
use ringkeeper_core::id::ListenerId;
use ringkeeper_core::io::{Command, Errand, Event, Host, Mail, Notice, Parcel, Recipient};
use ringkeeper_core::node::balance::BalanceWorker;
use ringkeeper_core::tls::{self, Versions};
use socket2::{Domain, Protocol, Socket, Type};

use crate::host::alarm::{Alarm, Watched};
use crate::host::channels::Channels;
use crate::host::errands::Errands;
use crate::host::events;
use crate::host::listen::allow_absence;
use crate::host::routers::Line;
use crate::host::runtime::{Listener, Selected, Sender};
use crate::host::sockets::Inherited;
use crate::host::{self, reason, signal};

/// Connections that may wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4096;

/// How long the worker may take to leave.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);

/// What the worker asks of the rest of the process.
struct Desk {
    errands: Errands,
    is_drained: Arc<AtomicBool>,
    line: Option<Line>,
}

impl Host for Desk {
    fn event(&mut self, event: Event) {
        match event {
            Event::Balance { service, news } => events::balance::log(&service, &news),
            Event::Drained => {
                self.is_drained.store(true, Ordering::Release);
                signal::call_for_attention();
            }
            Event::Reloaded(_) => tracing::info!("virtual servers follow the new configuration"),
            Event::ServerDown { .. }
            | Event::ServerUp { .. }
            | Event::ServerSilent { .. }
            | Event::Ejected { .. }
            | Event::Returned { .. }
            | Event::Switched { .. }
            | Event::HoldBegan { .. }
            | Event::HoldEnded { .. }
            | Event::GreetingRefused { .. }
            | Event::ServerProtocolError { .. }
            | Event::ClientRefused { .. }
            | Event::ClientOverLimit { .. }
            | Event::Router { .. }
            | Event::Check { .. }
            | Event::ChannelFailed { .. }
            | Event::TlsFailed { .. }
            | Event::Exit { .. }
            | Event::Sentinel { .. } => {}
        }
    }

    fn errand(&mut self, errand: Errand) {
        self.errands.take(errand);
    }

    fn notice(&mut self, _: Recipient, notice: Notice) {
        if let Some(line) = &self.line {
            line.pass_back(notice);
        }
    }
}

/// The virtual servers, on a thread of their own.
pub(crate) struct Running {
    thread: JoinHandle<io::Result<()>>,
    alarm: Arc<Alarm>,
    sender: Sender,
    plan: Arc<Plan>,
    /// Further handles on its sockets.
    sockets: BTreeMap<ListenerId, (SocketAddr, Socket)>,
    is_drained: Arc<AtomicBool>,
}

/// Starts the virtual servers of a configuration; none if it has none. `lent` are sockets that
/// listen already: one at the right place is used. `line` is where figures are told.
///
/// # Errors
///
/// A socket cannot be opened, or the system refuses threads or descriptors.
pub(crate) fn start(
    config: &Config,
    selected: Selected,
    lent: &[Inherited],
    line: Option<Line>,
) -> anyhow::Result<Option<Running>> {
    if config.virtual_servers.is_empty() {
        return Ok(None);
    }
    if let Err(error) = host::raise_descriptor_limit() {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
    let plan = Arc::new(plan(config, None));
    let listeners = open(&plan, &BTreeMap::new(), lent)?;
    let sockets = handles(&plan, &listeners)?;
    for service in &plan.services {
        let servers: Vec<_> = service.servers.iter().map(|one| one.address.to_string()).collect();
        tracing::info!(service = service.name, "virtual server for {}", servers.join(" "));
    }
    let seed = host::seed().context("no seed for the virtual servers")?;
    let now = ringkeeper_core::time::Instant::START;
    let mut worker = BalanceWorker::new(Arc::clone(&plan), seed, now);
    if line.is_some() {
        worker = worker.with_figures();
    }
    let running = spawn(selected, worker, listeners, plan, line);
    let running = running.context("the virtual servers' thread could not start")?;
    Ok(Some(Running { sockets, ..running }))
}

fn plan(config: &Config, before: Option<&Plan>) -> Plan {
    let mut plan = Plan::new(config, before);
    if plan.cover.0.is_none() && plan.has_encrypted_checks() {
        match tls::anybody(&host::tls::ground(Versions::default())) {
            Ok(cover) => plan.cover = CoverPlan(Some(cover)),
            Err(error) => tracing::error!("encrypted checks fail: {error}"),
        }
    }
    plan
}

/// Opens the sockets of a plan that are not known yet.
fn open(
    plan: &Plan,
    known: &BTreeMap<ListenerId, SocketAddr>,
    lent: &[Inherited],
) -> anyhow::Result<Vec<Listener>> {
    let wanted = plan.listeners.iter().filter(|one| !known.contains_key(&one.id));
    let open = |one: &Listening| {
        let place = one.at.to_string();
        let found = lent.iter().find(|known| known.place == place);
        let socket = match found {
            Some(known) => known.socket.try_clone(),
            None => listen(one.at),
        };
        let socket = socket.with_context(|| {
            format!("the virtual server on {} cannot be listened on: is the port in use?", one.at)
        })?;
        tracing::info!(address = %one.at, "clients are relayed");
        Ok(Listener { id: one.id, socket, tcp_keepalive: true })
    };
    wanted.map(open).collect()
}

/// Keeps further handles on sockets, for whoever needs their places later.
fn handles(
    plan: &Plan,
    listeners: &[Listener],
) -> anyhow::Result<BTreeMap<ListenerId, (SocketAddr, Socket)>> {
    let handle = |listener: &Listener| {
        let at = plan.listeners.iter().find(|one| one.id == listener.id).map(|one| one.at);
        let socket = listener.socket.try_clone().context("no descriptor for a listener");
        at.map(|at| socket.map(|socket| (listener.id, (at, socket))))
    };
    listeners.iter().filter_map(handle).collect()
}

/// Opens a listening socket on an address that this host need not have.
pub(crate) fn listen(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    allow_absence(&socket, at)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn spawn(
    selected: Selected,
    worker: BalanceWorker,
    listeners: Vec<Listener>,
    plan: Arc<Plan>,
    line: Option<Line>,
) -> io::Result<Running> {
    let start = Instant::now();
    let is_drained = Arc::new(AtomicBool::new(false));
    let mut channels = Channels::default();
    let alarm = Alarm::new(line.clone());
    let (thread, sender) = match selected {
        #[cfg(feature = "uring")]
        Selected::Uring => {
            let (sender, mut mailbox) = rt_uring::mailbox()?;
            mailbox.set_opener(rt_uring::Opener::new(move |spec| channels.open(spec)));
            let sender = Sender::Uring(sender);
            let desk = Watched::new(desk(&sender, &is_drained, line)?, Arc::clone(&alarm));
            let run = move || rt_uring::run(worker, start, Vec::new(), mailbox, desk);
            (thread(&alarm, run)?, sender)
        }
        Selected::Tokio => {
            let (sender, mut mailbox) = rt_tokio::mailbox()?;
            mailbox.set_opener(rt_tokio::Opener::new(move |spec| channels.open(spec)));
            let sender = Sender::Tokio(sender);
            let desk = Watched::new(desk(&sender, &is_drained, line)?, Arc::clone(&alarm));
            let run = move || rt_tokio::run(worker, start, Vec::new(), mailbox, desk);
            (thread(&alarm, run)?, sender)
        }
    };
    listeners.into_iter().for_each(|listener| sender.listen(listener));
    Ok(Running { thread, alarm, sender, plan, sockets: BTreeMap::new(), is_drained })
}

fn desk(sender: &Sender, is_drained: &Arc<AtomicBool>, line: Option<Line>) -> io::Result<Desk> {
    let answers = sender.clone();
    let errands = Errands::start(move |answer: Mail| answers.mail(answer))?;
    Ok(Desk { errands, is_drained: Arc::clone(is_drained), line })
}

fn thread(
    alarm: &Arc<Alarm>,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let alarm = Arc::clone(alarm);
    std::thread::Builder::new().name("rk-balance".to_owned()).spawn(move || alarm.run(body))
}

impl Running {
    /// Tells whether the thread has ended without being asked to.
    pub(crate) fn has_ended(&self) -> bool {
        self.alarm.has_ended()
    }

    /// Returns further handles on all sockets.
    pub(crate) fn sockets(&self) -> Vec<Inherited> {
        let copy = |(at, socket): &(SocketAddr, Socket)| {
            let (place, name) = (at.to_string(), None);
            socket.try_clone().ok().map(|socket| Inherited { place, name, socket })
        };
        self.sockets.values().filter_map(copy).collect()
    }

    /// Has another configuration taken over; if one of its sockets cannot be had nothing changes.
    /// `lent` are sockets that listen already.
    pub(crate) fn reload(&mut self, config: &Config, lent: &[Inherited]) {
        let plan = Arc::new(plan(config, Some(&self.plan)));
        let known = |plan: &Plan| -> BTreeMap<ListenerId, SocketAddr> {
            plan.listeners.iter().map(|one| (one.id, one.at)).collect()
        };
        let (before, after) = (known(&self.plan), known(&plan));
        let opened = open(&plan, &before, lent);
        let opened = opened.and_then(|all| Ok((handles(&plan, &all)?, all)));
        let (handles, listeners) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                return tracing::error!("{error:#}; the virtual servers stay as they are");
            }
        };
        let parcel = Parcel::new(Arc::clone(&plan));
        let command = Command::Reload { plan: parcel, limit: Duration::ZERO };
        self.sender.mail(Mail::Command(command));
        listeners.into_iter().for_each(|listener| self.sender.listen(listener));
        for id in before.keys().filter(|id| !after.contains_key(id)) {
            drop(self.sender.unlisten(*id));
        }
        self.sockets.retain(|id, _| after.contains_key(id));
        self.sockets.extend(handles);
        self.plan = plan;
    }

    /// Leaves: clients are closed, programs told; then the thread is ended.
    pub(crate) fn leave(self) {
        self.alarm.expect_end();
        self.sender.mail(Mail::Command(Command::Drain { limit: Duration::ZERO }));
        let since = Instant::now();
        while !self.is_drained.load(Ordering::Acquire) && !self.alarm.has_ended() {
            if since.elapsed() > LEAVE_LIMIT {
                tracing::error!("the virtual servers do not leave in time");
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.sender.stop();
        match self.thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!("the virtual servers' thread ended: {}", reason(&error));
            }
            Err(_) => tracing::error!("the virtual servers' thread panicked"),
        }
    }
}
