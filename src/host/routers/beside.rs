//! Virtual routers and virtual servers beside pools: started again if their thread ends, and left in order whatever
//! way the process ends.

use std::time::{Duration, Instant};

use ringkeeper_core::config::keepalived::Config;
use ringkeeper_core::config::nutcracker::Config as Pools;
use ringkeeper_core::io::Command;

use super::Line;
use crate::host::direct;
use crate::host::redirect::Redirects;
use crate::host::runtime::Choice;
use crate::host::sockets::{Direct, Inherited};
use crate::host::vrrp::{self, Launch};

/// How long after its end the thread is started again; twice as long each time it does not last.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// The longest wait for the next start.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Who has run for so long has lasted.
const LASTING: Duration = Duration::from_secs(60);

/// Reads the configuration again; none if it has errors, which it has told.
pub(crate) type Reread = Box<dyn Fn() -> Option<Config>>;

/// Virtual routers and virtual servers beside pools. Dropped, they leave in order.
pub(crate) struct Routers {
    running: Option<vrrp::Running>,
    line: Line,
    reread: Reread,
    /// What the file says.
    config: Config,
    /// What it said when it was read again, until that is in use.
    pending: Option<Config>,
    /// What of it is served here, without virtual servers that a pool is itself.
    served: Config,
    /// The same for what is to be in use next.
    next: Option<Config>,
    /// Who might take clients elsewhere.
    redirects: Redirects,
    runtime: Choice,
    started: Instant,
    /// When the thread is started again, and how long was waited for that.
    retry: Option<Instant>,
    wait: Duration,
    is_leaving: bool,
}

impl Routers {
    /// Makes them; [`Routers::begin`] starts them.
    pub(crate) fn new(config: Config, runtime: Choice, reread: Reread) -> Self {
        Self {
            running: None,
            line: Line::default(),
            reread,
            served: config.clone(),
            next: None,
            config,
            pending: None,
            redirects: Redirects::default(),
            runtime,
            started: Instant::now(),
            retry: None,
            wait: RETRY_MIN,
            is_leaving: false,
        }
    }

    /// Returns the virtual addresses at which pools are to listen themselves. The rest is in use
    /// after [`Routers::begin`] or [`Routers::apply`].
    pub(crate) fn part(&mut self, pools: &Pools) -> Vec<Direct> {
        let mut config = self.pending.as_ref().unwrap_or(&self.config).clone();
        self.redirects = Redirects::new(&config.virtual_servers, pools);
        let (direct, relayed) = direct::part(std::mem::take(&mut config.virtual_servers), pools);
        config.virtual_servers = relayed;
        self.next = Some(config);
        direct
    }

    /// Starts them. `lent` are sockets that listen already, for virtual servers at their places.
    ///
    /// # Errors
    ///
    /// The system refuses threads or descriptors.
    pub(crate) fn begin(&mut self, lent: Vec<Inherited>) -> anyhow::Result<()> {
        if let Some(next) = self.next.take() {
            self.served = next;
        }
        let (config, runtime) = (self.served.clone(), self.runtime);
        let line = Some(self.line.clone());
        let running = vrrp::start(Launch { config, runtime, has_guardian: true, line, lent })?;
        self.connect(&running);
        self.redirects.look();
        (self.running, self.started) = (Some(running), Instant::now());
        Ok(())
    }

    fn connect(&self, running: &vrrp::Running) {
        if let Some(post) = running.post() {
            self.line.connect(post);
        }
    }

    /// Returns the way to them.
    pub(crate) fn line(&self) -> Line {
        self.line.clone()
    }

    /// Looks after their thread: one that has ended without being asked to is started again. Its
    /// guardian has said goodbye by then.
    pub(crate) fn look(&mut self, now: Instant) {
        if self.is_leaving {
            return;
        }
        if self.running.as_ref().is_some_and(vrrp::Running::has_ended) {
            self.line.cut();
            if let Some(running) = self.running.take() {
                // It tells why.
                let _ = running.leave();
            }
            let has_lasted = now.saturating_duration_since(self.started) >= LASTING;
            self.wait = if has_lasted { RETRY_MIN } else { (self.wait * 2).min(RETRY_MAX) };
            self.retry = Some(now + self.wait);
            tracing::error!(
                again_in_s = self.wait.as_secs(),
                "the virtual routers' thread ended unasked: another host has the addresses, or \
                 nobody; the pools are served on"
            );
        }
        if self.retry.is_some_and(|at| at <= now) {
            self.retry = None;
            self.start_again();
        }
    }

    fn start_again(&mut self) {
        match self.begin(Vec::new()) {
            Ok(()) => tracing::warn!("the virtual routers run again"),
            Err(error) => {
                self.wait = (self.wait * 2).min(RETRY_MAX);
                self.retry = Some(Instant::now() + self.wait);
                let again_in_s = self.wait.as_secs();
                tracing::error!(again_in_s, "the virtual routers are not started: {error:#}");
            }
        }
    }

    /// Reads their configuration again; tells whether it may be used.
    pub(crate) fn read_again(&mut self) -> bool {
        self.pending = (self.reread)();
        if self.pending.is_none() {
            tracing::error!("the old configuration of the virtual routers stays in use");
        }
        self.pending.is_some()
    }

    /// Returns further handles on the sockets of virtual servers.
    pub(crate) fn sockets(&self) -> Vec<Inherited> {
        self.running.as_ref().map(vrrp::Running::sockets).unwrap_or_default()
    }

    /// Goes on with what was parted last. `lent` are sockets that listen already.
    pub(crate) fn apply(&mut self, lent: &[Inherited]) {
        let pending = self.pending.take();
        let is_read = pending.is_some();
        self.config = pending.unwrap_or_else(|| std::mem::take(&mut self.config));
        let Some(next) = self.next.take() else { return };
        if is_read {
            self.redirects.look();
        }
        if !is_read && next == self.served {
            return;
        }
        self.served = next;
        if let Some(mut running) = self.running.take() {
            let was_reached = running.post().is_some();
            running.reload(self.served.clone(), lent);
            if !was_reached {
                self.connect(&running);
            }
            self.running = Some(running);
        }
    }

    /// Forgets what was read again: it can not be used.
    pub(crate) fn forget(&mut self) {
        (self.pending, self.next) = (None, None);
    }

    /// Lets them leave while the rest of the process goes on: goodbyes are said at once.
    pub(crate) fn begin_leaving(&mut self) {
        self.is_leaving = true;
        if let Some(running) = &self.running {
            running.begin_leaving();
        }
    }

    /// Lets another process of this host have the addresses, which stay: nothing is said to other
    /// hosts.
    pub(crate) fn hand_over(&mut self) {
        self.is_leaving = true;
        self.line.cut();
        if let Some(running) = self.running.take() {
            let _ = running.end(&Command::HandOver { limit: Duration::ZERO });
        }
    }
}

impl Drop for Routers {
    fn drop(&mut self) {
        self.line.cut();
        if let Some(running) = self.running.take() {
            let _ = running.leave();
        }
    }
}
