//! From a configuration to a running worker, and the main thread's life after that.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringkeeper_core::admin::{AdminRole, Facts};
use ringkeeper_core::config::native::{self, Limits, Settings};
use ringkeeper_core::config::nutcracker::{Config, Pool};
use ringkeeper_core::io::{Command, Health, HealthNews, Notice};
use ringkeeper_core::node::{ControlRole, compose};
use ringkeeper_core::proxy::{ListenerRole, Plan, Policy};
use ringkeeper_core::stats::FiguresPlan;

use crate::host::acceptor::Share;
use crate::host::admin::AdminLaunch;
use crate::host::changes::{differences, for_the_next_start};
use crate::host::control::{Answer, Control};
use crate::host::drained::{Drained, Target};
use crate::host::fleet::Fleet;
use crate::host::listen::{self, Address, OpenError, Request};
use crate::host::log::Log;
use crate::host::masters::MastersLaunch;
use crate::host::memory::Trimmer;
use crate::host::notify::{self, Watchdog};
use crate::host::routers::Routers;
use crate::host::runtime::{self, Choice, Listener};
use crate::host::signal::{Persona, Signal, Signals};
use crate::host::sockets::{self, Fresh, Serves, Sockets};
use crate::host::store::Store;
use crate::host::takeover::{self, Legacy, Takeover};
use crate::host::{self, pulse, sys};

/// Workers that `auto` starts at most. A proxy is rarely the bottleneck beyond that, and each
/// worker has connections of its own to every server.
const THREADS_AUTO_MAX: u16 = 8;

/// Workers that may be asked for.
const THREADS_MAX: NonZeroU16 = NonZeroU16::new(256).unwrap();

/// The release of twemproxy whose behaviour is offered under the name `nutcracker`; also what the
/// statistics name then.
pub(crate) const NUTCRACKER_VERSION: &str = "0.5.0";

/// Descriptors kept for the log, the runtime and whatever libraries open; twemproxy's number.
const DESCRIPTORS_RESERVED: u64 = 32;

/// Room for fewer clients than this is worth a warning.
const CLIENTS_FEW: u32 = 1000;

/// How much longer than its clients the worker may take to say that it is done.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// What the service manager shows.
const SERVING: &str = "serving clients";

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

/// How many workers serve clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// As many as the process may use processors, at most [`THREADS_AUTO_MAX`].
    Auto,
    /// So many.
    Count(NonZeroU16),
}

impl Threads {
    fn count(self) -> u16 {
        match self {
            Self::Count(count) => count.get(),
            Self::Auto => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                u16::try_from(cores).unwrap_or(u16::MAX).min(THREADS_AUTO_MAX)
            }
        }
    }
}

impl FromStr for Threads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse() {
            Ok(count) if count <= THREADS_MAX => Ok(Self::Count(count)),
            Ok(_) | Err(_) => Err(format!("write a number from 1 to {THREADS_MAX}, or auto")),
        }
    }
}

/// What reading the configuration gave.
pub(crate) struct Reading {
    /// The configuration, if it has no error.
    pub(crate) config: Option<Config>,
    /// What is to be said about it, for people; empty when all is well.
    pub(crate) text: String,
    /// What it says about the process.
    pub(crate) settings: Settings,
}

/// Reads the configuration again, and leaves in the log what is to be said about it.
pub(crate) type Reread = Box<dyn Fn() -> Reading>;

/// What to start.
pub(crate) struct Launch {
    /// The pools.
    pub(crate) config: Config,
    /// Reads them again.
    pub(crate) reread: Reread,
    /// The name that decides on details.
    pub(crate) persona: Persona,
    /// Which runtime.
    pub(crate) runtime: Choice,
    /// How many workers.
    pub(crate) threads: Threads,
    /// Where twemproxy's figures are; none: nowhere.
    pub(crate) stats: Option<Stats>,
    /// Where the rest is, and what is counted.
    pub(crate) admin: AdminLaunch,
    /// What the file says about the process. Options may have said otherwise above.
    pub(crate) settings: Settings,
    /// How the operator reaches the running process; none for a persona that has no such way.
    pub(crate) control: Option<Control>,
    /// The process that this one replaces.
    pub(crate) takeover: Option<Takeover>,
    /// Who knows where the masters of shards are.
    pub(crate) masters: Option<MastersLaunch>,
    /// Virtual routers, at work already.
    pub(crate) routers: Option<Routers>,
}

/// The service at work, as the main thread has it.
pub(crate) struct Service {
    fleet: Fleet,
    sockets: Sockets,
    store: Store,
    persona: Persona,
    reread: Reread,
    config: Config,
    drained: Drained,
    host: HostFacts,
    /// What the file said about the process when it began.
    settings: Settings,
    control: Option<Control>,
    takeover: Option<Takeover>,
    masters: Option<MastersLaunch>,
    routers: Option<Routers>,
    /// Another process has taken over.
    is_replaced: bool,
}

/// Opens everything and starts the workers.
///
/// # Errors
///
/// What could not be opened, why, and what to do.
pub(crate) fn start(launch: Launch) -> anyhow::Result<Service> {
    sys::tune_allocator();
    let descriptors = match host::raise_descriptor_limit() {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!("the limit of open files stays as it is: {error}");
            None
        }
    };
    let (selected, reason) = runtime::select(launch.runtime)?;
    let known = launch.masters.as_ref().map(MastersLaunch::known).transpose()?;
    let Legacy { sockets: inherited, drained, predecessors } = match &launch.takeover {
        Some(takeover) => takeover.legacy()?,
        None => Legacy::of_manager(),
    };
    let host = HostFacts {
        figures: launch.admin.figures,
        masters: known.unwrap_or_default(),
        predecessors,
        ..HostFacts::new(
            launch.persona,
            descriptors,
            launch.threads.count(),
            launch.settings.limits,
        )
    };
    let store = Store::new(&inherited);
    let mut sockets = Sockets::inheriting(inherited);
    let mut routers = launch.routers;
    let direct = routers.as_mut().map(|routers| routers.part(&launch.config)).unwrap_or_default();
    let change = sockets.prepare(&launch.config, &direct, |pool| !drained.has_pool(&pool.name))?;
    let mut fresh = sockets.commit(change);
    if let Some(stats) = &launch.stats {
        fresh.extend(open_stats(stats, &mut sockets)?);
    }
    fresh.extend(launch.admin.open(&mut sockets)?);
    let mut encryption = None;
    if let Some(masters) = &launch.masters {
        let (opened, with) = masters.open(&mut sockets, !launch.config.pools.is_empty())?;
        fresh.extend(opened);
        encryption = with;
    }
    let lent = sockets.take_inherited();
    for listener in &fresh {
        let at = listen::endpoint(&listener.listener.socket)?;
        match &listener.serves {
            Serves::Pool(pool) => tracing::info!(pool, address = %at, "listening"),
            // Said already.
            Serves::Fixed(ControlRole::Sentinel) => {}
            Serves::Fixed(ControlRole::Admin(AdminRole::Stats)) => {
                tracing::info!(address = %at, "statistics are served");
            }
            Serves::Fixed(ControlRole::Admin(AdminRole::Http { .. })) => {
                tracing::info!(address = %at, "metrics and administration are served");
            }
        }
    }
    let plan = host.plan(&launch.config, sockets.roles(&launch.config), &drained);
    host.warn_if_few_clients(&plan);
    let facts = Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        stats_version: plan.version.clone(),
        host_name: plan.host_name.clone(),
        process_id: plan.process_id,
        started_unix_seconds: plan.started_unix_seconds,
        backend: selected.name().to_owned(),
        backend_reason: reason,
        listeners: u64::try_from(fresh.len()).unwrap_or(u64::MAX),
    };
    // A process that is being replaced watches until it has given everything away.
    let masters = launch.masters.as_ref().filter(|_| launch.takeover.is_none());
    let watch = masters.map(MastersLaunch::plan).transpose()?;
    let has_routers = routers.is_some();
    let fixed = sockets.fixed();
    let control = launch.admin.plan(facts, host.threads, fixed, watch, has_routers);
    let line = routers.as_ref().map(Routers::line).unwrap_or_default();
    let fleet = Fleet::start(selected, &Arc::new(plan), host.threads, (control, encryption), line)?;
    for fresh in fresh {
        match fresh.serves {
            Serves::Fixed(_) => fleet.listen_control(fresh.listener),
            Serves::Pool(pool) => fleet.listen(share(&launch.config, &pool, fresh.listener)),
        }
    }
    // When all listen: an address must not come without those who serve it.
    if let Some(routers) = &mut routers {
        routers.begin(lent)?;
    }
    let mut takeover = launch.takeover;
    if let Some(takeover) = &mut takeover {
        takeover.begin(&fleet, &sockets, &launch.config)?;
    }
    if fleet.len() > 1 {
        tracing::info!(threads = fleet.len(), "workers share the clients");
    }
    if let Some(control) = &launch.control {
        tracing::info!(path = %control.path().display(), "commands are taken");
    }
    Ok(Service {
        fleet,
        sockets,
        store,
        persona: launch.persona,
        reread: launch.reread,
        config: launch.config,
        drained,
        host,
        settings: launch.settings,
        control: launch.control,
        takeover,
        masters: launch.masters,
        routers,
        is_replaced: false,
    })
}

/// Returns a listener with what its pool may have.
fn share(config: &Config, pool: &str, listener: Listener) -> Share {
    let found = config.pools.iter().find(|one| one.name == pool);
    let clients_max = found.and_then(|pool| pool.client_connections).map(NonZeroU32::get);
    Share { listener, pool: pool.into(), clients_max }
}

fn policy(persona: Persona) -> Policy {
    match persona {
        Persona::Nutcracker => Policy::NUTCRACKER,
        Persona::Ringkeeper => Policy::RINGKEEPER,
    }
}

/// What only the system knows, and what does not change while the process lives.
struct HostFacts {
    persona: Persona,
    host_name: String,
    started_unix_seconds: u64,
    descriptors: Option<u64>,
    threads: u16,
    figures: FiguresPlan,
    predecessors: u16,
    /// As the configuration in use has them.
    limits: Limits,
    /// Where the masters of shards were when the process started.
    masters: BTreeMap<String, SocketAddr>,
}

impl HostFacts {
    fn new(persona: Persona, descriptors: Option<u64>, threads: u16, limits: Limits) -> Self {
        let system = rustix::system::uname();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            persona,
            host_name: system.nodename().to_string_lossy().into_owned(),
            started_unix_seconds: now.as_secs(),
            descriptors,
            threads,
            figures: FiguresPlan::default(),
            predecessors: 0,
            limits,
            masters: BTreeMap::new(),
        }
    }

    /// Makes the plan of one worker.
    fn plan(&self, config: &Config, roles: Vec<ListenerRole>, drained: &Drained) -> Plan {
        let mut config = config.clone();
        compose::settle(&mut config, &self.masters);
        let mut plan = Plan::new(&config, policy(self.persona));
        plan.listeners = roles;
        plan.host_name.clone_from(&self.host_name);
        plan.started_unix_seconds = self.started_unix_seconds;
        plan.process_id = std::process::id();
        plan.workers = self.threads;
        plan.figures = self.figures;
        plan.predecessors = self.predecessors;
        plan.version = match self.persona {
            Persona::Nutcracker => NUTCRACKER_VERSION.to_owned(),
            Persona::Ringkeeper => env!("CARGO_PKG_VERSION").to_owned(),
        };
        drained.apply(&mut plan);
        // What is meant for the process is shared out evenly, as the clients are.
        let threads = usize::from(self.threads);
        plan.clients_input_bytes_max = self.limits.clients_input_bytes_max / threads;
        plan.clients_output_bytes_max = self.limits.clients_output_bytes_max / threads;
        plan.clients_max = self.clients_max(&plan);
        plan
    }

    /// Returns how many clients are wanted and the descriptors leave room for, per worker.
    fn clients_max(&self, plan: &Plan) -> u32 {
        let threads = u64::from(self.threads);
        let asked_for = self.limits.clients_max.map_or(plan.clients_max, |most| {
            most.get().div_ceil(u32::from(self.threads)).min(plan.clients_max)
        });
        let Some(descriptors) = self.descriptors else { return asked_for };
        let servers: u64 = plan
            .pools
            .iter()
            .map(|pool| {
                let count = u64::try_from(pool.servers.len()).unwrap_or(u64::MAX);
                // One set for each protocol, RESP2 and RESP3, of each worker.
                let sets = threads.saturating_mul(2);
                count.saturating_mul(u64::from(pool.server_connections)).saturating_mul(sets)
            })
            .fold(0, u64::saturating_add);
        let left = descriptors.saturating_sub(servers).saturating_sub(DESCRIPTORS_RESERVED);
        asked_for.min(u32::try_from(left / threads).unwrap_or(u32::MAX))
    }

    fn warn_if_few_clients(&self, plan: &Plan) {
        let clients_max = u64::from(plan.clients_max) * u64::from(self.threads);
        if let Some(descriptors) = self.descriptors
            && clients_max < u64::from(CLIENTS_FEW)
            && self.limits.clients_max.is_none()
        {
            tracing::warn!(
                clients_max,
                open_files_max = descriptors,
                "the limit of open files leaves room for few clients; raise it (LimitNOFILE=, \
                 ulimit -n)"
            );
        }
    }
}

/// Returns what is wrong with the host names that pools listen on.
pub(crate) fn unresolved_listeners(config: &Config) -> Vec<OpenError> {
    let requests = config.pools.iter().map(sockets::request);
    requests.filter_map(|request| listen::check_name(&request).err()).collect()
}

fn open_stats(stats: &Stats, sockets: &mut Sockets) -> anyhow::Result<Option<Fresh>> {
    let request = Request {
        purpose: "statistics".to_owned(),
        address: Address::Tcp { host: stats.host.clone(), port: stats.port },
        backlog: STATS_BACKLOG,
        reuseport: false,
    };
    match sockets.open_fixed(request, ControlRole::Admin(AdminRole::Stats)) {
        Ok(fresh) => Ok(Some(fresh)),
        Err(error) if stats.required => Err(error),
        Err(error) => {
            tracing::warn!("running without statistics: {error}");
            Ok(None)
        }
    }
}

impl Service {
    /// Reads the configuration again and goes on with it; returns what to tell the operator.
    ///
    /// # Errors
    ///
    /// What is wrong; nothing has changed then.
    fn reload(&mut self) -> Result<String, String> {
        notify::reloading();
        let are_routers_good = self.routers.as_mut().is_none_or(Routers::read_again);
        let result = self.read_again();
        let result = result.and_then(|text| match are_routers_good {
            true => Ok(text),
            false => Err(format!(
                "{text}error: the file of the virtual routers has errors, which the log tells; \
                 their old configuration stays in use\n"
            )),
        });
        notify::ready(SERVING);
        result
    }

    fn read_again(&mut self) -> Result<String, String> {
        let Reading { config, mut text, settings } = (self.reread)();
        let Some(config) = config else {
            tracing::error!("the configuration has errors: the old one stays in use");
            self.fleet.note_reload(false);
            // Said in the log; what the routers' file says may be used all the same.
            let _ = self.change(self.config.clone(), self.drained.clone());
            return Err(text);
        };
        let limits = std::mem::replace(&mut self.host.limits, settings.limits);
        match self.change(config, self.drained.clone()) {
            Ok(summary) => {
                tracing::info!("configuration is read again: {summary}");
                self.fleet.note_reload(true);
                if let Some(later) = for_the_next_start(&self.settings, &settings) {
                    tracing::warn!("{later}");
                    text.push_str(&format!("warning: {later}\n"));
                }
                Ok(format!("{text}configuration is read again: {summary}\n"))
            }
            Err(problem) => {
                self.host.limits = limits;
                tracing::error!("the old configuration stays in use: {problem}");
                self.fleet.note_reload(false);
                Err(format!("{text}error: {problem}; the old configuration stays in use\n"))
            }
        }
    }

    /// Drains something, or takes it up again; returns what to tell the operator.
    ///
    /// # Errors
    ///
    /// There is no such thing, or nothing can be listened on again; nothing has changed then.
    fn drain(&mut self, is_drain: bool, words: &[String]) -> Result<String, String> {
        let target = Target::parse(words, &self.config).map_err(|problem| problem + "\n")?;
        let mut drained = self.drained.clone();
        drained.set(&target, is_drain);
        let pools = self.config.pools.iter().map(|pool| &pool.name);
        let changed: Vec<String> = pools
            .filter(|name| drained.has_pool(name) != self.drained.has_pool(name))
            .cloned()
            .collect();
        // First, so that new clients find another host from the first moment on.
        if is_drain {
            self.tell_routers(&changed, is_drain);
        }
        self.change(self.config.clone(), drained)
            .map_err(|problem| format!("error: {problem}; nothing has changed\n"))?;
        if !is_drain {
            self.tell_routers(&changed, is_drain);
        }
        let done = if is_drain { "is drained" } else { "is taken up again" };
        tracing::info!("{target} {done}");
        Ok(format!("{target} {done}\n"))
    }

    /// Tells the virtual routers which pools take no clients from here on, or take them again.
    fn tell_routers(&self, pools: &[String], is_drain: bool) {
        let Some(routers) = &self.routers else { return };
        let line = routers.line();
        for pool in pools {
            let ill = Health::Ill { why: "it is drained".into() };
            let health = if is_drain { ill } else { Health::Well };
            let source = format!("pool {pool}").into();
            line.pass(&Notice::Health(HealthNews { source, health }));
        }
    }

    /// Goes on with another configuration; returns what is different.
    fn change(&mut self, config: Config, drained: Drained) -> Result<String, String> {
        let mut direct = Vec::new();
        if let Some(routers) = &mut self.routers {
            direct = routers.part(&config);
            self.sockets.lend(routers.sockets());
        }
        let is_wanted = |pool: &Pool| !drained.has_pool(&pool.name);
        let change = self.sockets.prepare(&config, &direct, is_wanted);
        drop(self.sockets.take_inherited());
        let change = match change {
            Ok(change) => change,
            Err(error) => {
                if let Some(routers) = &mut self.routers {
                    routers.forget();
                }
                return Err(format!("{error:#}"));
            }
        };
        // Whoever relays there from here on.
        let lent = self.sockets.at_other_addresses(&direct);
        let plan = self.host.plan(&config, change.roles.clone(), &drained);
        self.host.warn_if_few_clients(&plan);
        for id in &change.closed {
            self.fleet.unlisten(*id);
        }
        let result = self.fleet.reload(&Arc::new(plan), self.host.limits.drain_timeout);
        let fresh = self.sockets.commit(change);
        for fresh in fresh {
            let Serves::Pool(pool) = fresh.serves else { continue };
            if let Ok(at) = listen::endpoint(&fresh.listener.socket) {
                tracing::info!(pool, address = %at, "listening");
            }
            self.fleet.listen(share(&config, &pool, fresh.listener));
        }
        if let Some(routers) = &mut self.routers {
            routers.apply(&lent);
        }
        drop(lent);
        for pool in &config.pools {
            for id in self.sockets.of_pool(&pool.name) {
                let clients_max = pool.client_connections.map(NonZeroU32::get);
                self.fleet.limit(id, &pool.name, clients_max);
            }
        }
        if let Err(late) = result {
            tracing::warn!(workers = late, "some workers have not taken the change up yet");
        }
        self.store.sync(self.sockets.places());
        let summary = differences(&self.config, &config);
        self.config = config;
        self.drained = drained;
        Ok(summary)
    }

    /// Does what was asked for at the control socket.
    fn obey(&mut self) {
        while let Some(asked) = self.control.as_ref().and_then(Control::next) {
            let words: Vec<&str> = asked.words.iter().map(String::as_str).collect();
            let result = match words.as_slice() {
                ["reload"] => self.reload(),
                ["drain", ..] => self.drain(true, asked.words.get(1..).unwrap_or_default()),
                ["upgrade"] => self.upgrade(),
                ["undrain", ..] => self.drain(false, asked.words.get(1..).unwrap_or_default()),
                _ => Err("error: this version knows no such command\n".to_owned()),
            };
            asked.answer(match result {
                Ok(text) => Answer { is_ok: true, text },
                Err(text) => Answer { is_ok: false, text },
            });
        }
    }
}

impl Service {
    /// Opens the way for commands once the predecessor has closed its own.
    fn finish_takeover(&mut self) {
        if let Some(control) = self.takeover.as_mut().and_then(Takeover::finish) {
            self.control = control;
            self.takeover = None;
            // Before, the service manager listened to the old process only.
            notify::ready(SERVING);
            self.store.sync(self.sockets.places());
            self.watch();
        }
    }

    /// Begins to watch the masters, once the predecessor does so no more.
    fn watch(&self) {
        let Some(masters) = &self.masters else { return };
        match masters.plan() {
            Ok(plan) => self.fleet.watch(plan),
            Err(error) => tracing::error!("nobody watches the masters: {error:#}"),
        }
    }

    /// Lets another process take over; returns what to tell the operator.
    ///
    /// # Errors
    ///
    /// The other process does not come to serving; nothing has changed then.
    fn upgrade(&mut self) -> Result<String, String> {
        if let Some(routers) = &self.routers {
            self.sockets.lend(routers.sockets());
        }
        let begun = takeover::begin_upgrade(&self.sockets, &self.drained, self.host.predecessors);
        drop(self.sockets.take_inherited());
        let replaced = begun.map_err(|problem| {
            tracing::error!("no other process takes over: {problem}");
            format!("error: no other process takes over: {problem}; its log may tell more\n")
        })?;
        // The other one votes with the same state, and begins when it is alone.
        self.fleet.stop_watching();
        // From here on the other one is to say that all is well.
        notify::main_pid(replaced.id());
        for id in self.sockets.ids() {
            self.fleet.unlisten(id);
        }
        self.sockets = Sockets::default();
        let result = replaced.hand_over(&mut self.fleet);
        self.control = None;
        self.is_replaced = true;
        if let Some(routers) = &mut self.routers {
            routers.hand_over();
        }
        match result.and_then(|()| replaced.finish()) {
            Ok(clients) => {
                let text = format!("process {} has taken over {clients} clients", replaced.id());
                tracing::info!("{text}");
                Ok(text + "\n")
            }
            Err(error) => {
                tracing::error!("the other process failed while it took over: {error}");
                Err(format!("error: the other process failed while it took over: {error}\n"))
            }
        }
    }
}

/// Obeys signals and commands until the end of the process; returns its exit code.
pub(crate) fn supervise(mut service: Service, log: &Log, signals: &Signals) -> ExitCode {
    let mut trimmer = Trimmer::new();
    let mut watchdog = Watchdog::new();
    notify::ready(SERVING);
    if service.takeover.is_none() {
        service.store.sync(service.sockets.places());
    }
    let mut draining_since: Option<Instant> = None;
    let mut looked_at = Instant::now();
    loop {
        let limit = service.host.limits.drain_timeout;
        let is_over = draining_since.is_some_and(|since| since.elapsed() > limit + DRAIN_GRACE);
        if service.fleet.is_drained() || is_over {
            return farewell(service.fleet.stop(), log);
        }
        if service.fleet.has_ended() {
            // First: another host is to have the clients before this one has put itself in order.
            if let Some(routers) = &mut service.routers {
                routers.begin_leaving();
            }
            return failure(service.fleet.stop());
        }
        service.finish_takeover();
        service.obey();
        if let Some(routers) = &mut service.routers {
            routers.look(Instant::now());
        }
        if service.is_replaced {
            log.signal("another process has taken over, ending");
            return match service.fleet.stop() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failure(Err(error)),
            };
        }
        watchdog.feed(Instant::now(), service.fleet.is_turning());
        let patience = trimmer.until_next_look().min(pulse::LOOK_EVERY).min(watchdog.patience());
        let signal = match signals.wait(patience) {
            Ok(signal) => signal,
            Err(error) => return failure(Err(error)),
        };
        trimmer.look();
        if looked_at.elapsed() >= pulse::LOOK_EVERY {
            looked_at = Instant::now();
            service.fleet.look(looked_at);
            log.tell_what_was_lost();
        }
        let Some(signal) = signal else { continue };
        match (service.persona, signal) {
            (_, Signal::Attention) => {}
            (Persona::Nutcracker, Signal::Interrupt) => {
                log.signal("signal 2 (SIGINT) received, exiting");
                // At once and with 1, as twemproxy does: clients are not waited for.
                std::process::exit(1);
            }
            (_, Signal::Interrupt | Signal::Terminate) if draining_since.is_some() => {
                log.signal(&format!("{} again, closing everything", signal.name()));
                return farewell(service.fleet.stop(), log);
            }
            (_, Signal::Interrupt | Signal::Terminate) => {
                log.signal(&format!(
                    "{} received: no new clients, those connected have {} to finish",
                    signal.name(),
                    native::format_time(limit)
                ));
                notify::stopping("letting clients finish");
                draining_since = Some(Instant::now());
                // First, so that clients that come from now on are another host's.
                if let Some(routers) = &mut service.routers {
                    routers.begin_leaving();
                }
                service.fleet.command(&Command::Drain { limit });
            }
            (persona, Signal::Hangup) => {
                hang_up(log);
                if persona == Persona::Ringkeeper {
                    // Said in the log.
                    let _ = service.reload();
                }
            }
            (Persona::Nutcracker, Signal::User1) => {
                steer_log(signal, log);
                let _ = service.reload();
            }
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

fn hang_up(log: &Log) {
    log.signal("signal 1 (SIGHUP) received, reopening log file");
    if let Err(error) = log.reopen() {
        tracing::error!("reopening log file failed, the old one stays in use: {error}");
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
