//! From a `keepalived.conf` to running virtual routers, and the main thread's life after that.
//!
//! Their worker has a thread of its own, the only one with real-time priority. It does no file,
//! name or log work: a second thread does that for it.
#![cfg(target_os = "linux")]

use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ringkeeper_core::config::keepalived::{Config, Scheduling};
use ringkeeper_core::io::{Command, Errand, Event, Host, Mail, Notice, Parcel, Recipient};
use ringkeeper_core::node::vrrp::VrrpWorker;
use rustix::mm::MlockAllFlags;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::host::alarm::Alarm;
use crate::host::balance;
use crate::host::channels::Channels;
use crate::host::errands::Errands;
use crate::host::events::routers;
use crate::host::log::Log;
use crate::host::routers::{Line, Post};
use crate::host::runtime::{self, Choice, Selected};
use crate::host::signal::{self, Signal, Signals};
use crate::host::sockets::Inherited;
use crate::host::{reason, sys};

/// Real-time priority where the file names none: above what is usual, below the kernel's own
/// threads.
const REALTIME_DEFAULT: u8 = 50;

/// Longest time without a system call while real-time, where the file names none. A turn takes
/// microseconds; a loop without end must not take the machine along.
const RUNTIME_MAX_DEFAULT: Duration = Duration::from_secs(1);

/// How often the main thread looks around without being called.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the worker may take to leave.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);

/// What to start.
pub(crate) struct Launch {
    /// What the file says.
    pub(crate) config: Config,
    /// Which runtime.
    pub(crate) runtime: Choice,
    /// Whether a process is to say goodbye if this one dies.
    pub(crate) has_guardian: bool,
    /// Where figures are told; none: nowhere.
    pub(crate) line: Option<Line>,
    /// Sockets that listen already, for virtual servers at their places.
    pub(crate) lent: Vec<Inherited>,
}

/// Work that the worker's thread does not do itself.
enum Work {
    Event(Event),
    Errand(Errand),
}

/// What the worker asks of the rest of the process.
struct Desk {
    work: mpsc::Sender<Work>,
    is_drained: Arc<AtomicBool>,
    line: Option<Line>,
}

impl Host for Desk {
    fn event(&mut self, event: Event) {
        if event == Event::Drained {
            self.is_drained.store(true, Ordering::Release);
            signal::call_for_attention();
        }
        let _ = self.work.send(Work::Event(event));
    }

    fn errand(&mut self, errand: Errand) {
        let _ = self.work.send(Work::Errand(errand));
    }

    fn notice(&mut self, _: Recipient, notice: Notice) {
        if let Some(line) = &self.line {
            line.pass_back(notice);
        }
    }
}

/// The virtual routers, on a thread of their own.
struct Thread {
    handle: JoinHandle<io::Result<()>>,
    alarm: Arc<Alarm>,
    post: Post,
    is_drained: Arc<AtomicBool>,
    /// How long it may take to leave.
    patience: Duration,
}

/// Virtual routers and virtual servers, each on a thread of their own.
pub(crate) struct Running {
    /// Virtual routers, where the file has any.
    routers: Option<Thread>,
    /// Virtual servers, where it has any.
    balance: Option<balance::Running>,
    selected: Selected,
    has_guardian: bool,
    line: Option<Line>,
}

/// Starts what the configuration has of virtual routers and virtual servers.
///
/// # Errors
///
/// The system refuses threads or descriptors.
pub(crate) fn start(launch: Launch) -> anyhow::Result<Running> {
    let Launch { config, runtime, has_guardian, line, lent } = launch;
    sys::tune_allocator();
    let (selected, _) = runtime::select(runtime)?;
    // Before the routers: an address must not come without those who serve it.
    let balance = balance::start(&config, selected, &lent, line.clone())?;
    let mut running = Running { routers: None, balance, selected, has_guardian, line };
    if needs_routers(&config) {
        running.routers = Some(running.start_routers(config)?);
    }
    Ok(running)
}

/// Tells whether there is work for the routers' thread. Virtual servers alone need no real-time
/// thread, no locked memory and no guardian.
fn needs_routers(config: &Config) -> bool {
    let framed = [&config.global.startup, &config.global.shutdown];
    !config.instances.is_empty() || framed.into_iter().any(Option::is_some)
}

/// Keeps pages in memory, so that nothing waits for a disk.
fn lock_memory() {
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    match rustix::mm::mlockall(flags) {
        Ok(()) => tracing::info!("memory is locked"),
        Err(error) => {
            let why = reason(&error.into());
            tracing::warn!("memory is not locked: {why}; grant CAP_IPC_LOCK or LimitMEMLOCK=");
        }
    }
}

/// Gives the calling thread its priority.
fn take_priority(scheduling: &Scheduling) {
    let priority = scheduling.realtime.unwrap_or(REALTIME_DEFAULT);
    let limit = scheduling.runtime_max.unwrap_or(RUNTIME_MAX_DEFAULT);
    let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
    // Before the priority, so that there is no moment without the limit.
    let bound = Rlimit { current: Some(micros), maximum: Some(micros.saturating_mul(2)) };
    if let Err(error) = setrlimit(Resource::Rttime, bound) {
        tracing::warn!("no limit of real-time work: {}", reason(&error.into()));
    }
    match sys::set_realtime(priority) {
        Ok(()) => tracing::info!(priority, "the virtual routers' thread is real-time"),
        Err(error) => {
            let why = reason(&error);
            tracing::warn!(
                "the virtual routers' thread is not real-time: {why}; under load adverts may be \
                 late, grant CAP_SYS_NICE or LimitRTPRIO="
            );
            if let Some(nice) = scheduling.nice {
                let _ = rustix::process::setpriority_process(None, i32::from(nice));
            }
        }
    }
}

/// Serves a worker's events and errands at normal priority.
fn serve(work: &mpsc::Receiver<Work>, errands: &Errands) {
    while let Ok(work) = work.recv() {
        match work {
            Work::Event(event) => routers::log(&event),
            Work::Errand(errand) => errands.take(errand),
        }
    }
}

fn desk(
    line: Option<Line>,
    post: impl Fn(Mail) + Send + Sync + 'static,
) -> io::Result<(Desk, Arc<AtomicBool>)> {
    let (sender, receiver) = mpsc::channel();
    let errands = Errands::start(post)?;
    std::thread::Builder::new()
        .name("rk-vrrp-desk".to_owned())
        .spawn(move || serve(&receiver, &errands))?;
    let is_drained = Arc::new(AtomicBool::new(false));
    Ok((Desk { work: sender, is_drained: Arc::clone(&is_drained), line }, is_drained))
}

fn spawn(
    selected: Selected,
    worker: VrrpWorker,
    scheduling: Scheduling,
    patience: Duration,
    line: Option<Line>,
) -> io::Result<Thread> {
    let start = Instant::now();
    let mut channels = Channels::default();
    // Who would be told is this thread itself; its guardian says goodbye.
    let alarm = Alarm::new(None);
    match selected {
        #[cfg(feature = "uring")]
        Selected::Uring => {
            let (sender, mut mailbox) = rt_uring::mailbox()?;
            mailbox.set_opener(rt_uring::Opener::new(move |spec| channels.open(spec)));
            let mail = sender.clone();
            let (desk, is_drained) = desk(line, move |answer| {
                let _ = mail.send(rt_uring::Message::Mail(answer));
            })?;
            let run = move || rt_uring::run(worker, start, Vec::new(), mailbox, desk);
            let handle = thread(scheduling, &alarm, run)?;
            let post: Post = Arc::new(move |mail| {
                let message = mail.map_or(rt_uring::Message::Stop, rt_uring::Message::Mail);
                let _ = sender.send(message);
            });
            Ok(Thread { handle, alarm, post, is_drained, patience })
        }
        Selected::Tokio => {
            let (sender, mut mailbox) = rt_tokio::mailbox()?;
            mailbox.set_opener(rt_tokio::Opener::new(move |spec| channels.open(spec)));
            let mail = sender.clone();
            let (desk, is_drained) = desk(line, move |answer| {
                let _ = mail.send(rt_tokio::Message::Mail(answer));
            })?;
            let run = move || rt_tokio::run(worker, start, Vec::new(), mailbox, desk);
            let handle = thread(scheduling, &alarm, run)?;
            let post: Post = Arc::new(move |mail| {
                let message = mail.map_or(rt_tokio::Message::Stop, rt_tokio::Message::Mail);
                let _ = sender.send(message);
            });
            Ok(Thread { handle, alarm, post, is_drained, patience })
        }
    }
}

fn thread(
    scheduling: Scheduling,
    alarm: &Arc<Alarm>,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let alarm = Arc::clone(alarm);
    std::thread::Builder::new().name("rk-vrrp".to_owned()).spawn(move || {
        alarm.run(|| {
            take_priority(&scheduling);
            body()
        })
    })
}

impl Thread {
    /// Waits until a command that ends the work has been obeyed.
    fn wait(&self) {
        let since = Instant::now();
        while !self.is_drained.load(Ordering::Acquire) && !self.alarm.has_ended() {
            if since.elapsed() > self.patience {
                tracing::error!("the virtual routers do not leave in time");
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        (self.post)(None);
    }
}

impl Running {
    fn start_routers(&self, config: Config) -> anyhow::Result<Thread> {
        lock_memory();
        let scheduling = config.global.scheduling.clone();
        let shutdown = config.global.shutdown.as_ref();
        let patience = LEAVE_LIMIT + shutdown.map_or(Duration::ZERO, |framed| framed.limit);
        let names: Vec<_> = config.instances.iter().map(|one| one.name.as_str()).collect();
        tracing::info!("virtual routers: {}", names.join(" "));
        let now = ringkeeper_core::time::Instant::START;
        let mut worker = VrrpWorker::new(config, self.has_guardian, now);
        if self.line.is_some() {
            worker = worker.with_figures();
        }
        let thread = spawn(self.selected, worker, scheduling, patience, self.line.clone());
        thread.context("the virtual routers' thread could not start")
    }

    /// Tells whether a thread has ended without being asked to.
    pub(crate) fn has_ended(&self) -> bool {
        self.routers.as_ref().is_some_and(|thread| thread.alarm.has_ended())
            || self.balance.as_ref().is_some_and(balance::Running::has_ended)
    }

    /// Has another configuration taken over. `lent` are sockets that listen already, for virtual
    /// servers at their places.
    pub(crate) fn reload(&mut self, config: Config, lent: &[Inherited]) {
        match &mut self.balance {
            Some(balance) => balance.reload(&config, lent),
            None => match balance::start(&config, self.selected, lent, self.line.clone()) {
                Ok(started) => self.balance = started,
                Err(error) => tracing::error!("{error:#}"),
            },
        }
        let Some(routers) = &self.routers else {
            if needs_routers(&config) {
                match self.start_routers(config) {
                    Ok(thread) => self.routers = Some(thread),
                    Err(error) => tracing::error!("{error:#}"),
                }
            }
            return;
        };
        let plan = Parcel::new(Arc::new(config));
        let limit = Duration::ZERO;
        (routers.post)(Some(Mail::Command(Command::Reload { plan, limit })));
    }

    /// Returns further handles on the sockets of virtual servers.
    pub(crate) fn sockets(&self) -> Vec<Inherited> {
        self.balance.as_ref().map(balance::Running::sockets).unwrap_or_default()
    }

    /// Returns how the routers' worker is reached from any thread, if there is one.
    pub(crate) fn post(&self) -> Option<Post> {
        self.routers.as_ref().map(|thread| Arc::clone(&thread.post))
    }

    /// Has goodbyes said, addresses removed and programs told, without waiting for it.
    pub(crate) fn begin_leaving(&self) {
        if let Some(routers) = &self.routers {
            (routers.post)(Some(Mail::Command(Command::Drain { limit: LEAVE_LIMIT })));
        }
    }

    /// Leaves: goodbyes are said, addresses removed, programs told; then the threads are ended.
    pub(crate) fn leave(self) -> ExitCode {
        self.end(&Command::Drain { limit: LEAVE_LIMIT })
    }

    /// Gives a command that ends the work, and ends the threads when it has been obeyed.
    pub(crate) fn end(self, command: &Command) -> ExitCode {
        let Self { routers, balance, .. } = self;
        if let Some(routers) = &routers {
            (routers.post)(Some(Mail::Command(command.clone())));
            routers.wait();
        }
        // After the goodbyes: the next router has the addresses by now.
        if let Some(balance) = balance {
            balance.leave();
        }
        match routers.map(|routers| routers.handle.join()) {
            Some(Ok(Ok(()))) | None => ExitCode::SUCCESS,
            Some(Ok(Err(error))) => {
                tracing::error!("the virtual routers' thread ended: {}", reason(&error));
                ExitCode::FAILURE
            }
            Some(Err(_)) => ExitCode::FAILURE,
        }
    }
}

/// Obeys signals until the end of the process; returns its exit code. `read` reads the
/// configuration again; none if it has errors, which it has told.
pub(crate) fn supervise(
    mut running: Running,
    log: &Log,
    signals: &Signals,
    read: impl Fn() -> Option<Config>,
) -> ExitCode {
    loop {
        if running.has_ended() {
            tracing::error!("the thread of virtual routers, or of virtual servers, ended unasked");
            let _ = running.leave();
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
            Some(signal @ (Signal::Interrupt | Signal::Terminate)) => {
                log.signal(&format!("{} received, leaving", signal.name()));
                return running.leave();
            }
            Some(Signal::Hangup) => {
                log.signal("signal 1 (SIGHUP) received, reading the configuration again");
                let _ = log.reopen();
                match read() {
                    Some(config) => running.reload(config, &[]),
                    None => tracing::error!("the old configuration stays in use"),
                }
            }
            Some(Signal::Louder) => drop(log.louder()),
            Some(Signal::Quieter) => drop(log.quieter()),
            Some(Signal::Attention | Signal::User1 | Signal::User2) | None => {}
        }
    }
}
