//! Virtual routers beside pools: started again if their thread ends, and left in order whatever
//! way the process ends.

use std::time::{Duration, Instant};

use ringkeeper_core::config::keepalived::Config;
use ringkeeper_core::io::Command;

use super::Line;
use crate::host::runtime::Choice;
use crate::host::vrrp::{self, Launch};

/// How long after its end the thread is started again; twice as long each time it does not last.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// The longest wait for the next start.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Who has run for so long has lasted.
const LASTING: Duration = Duration::from_secs(60);

/// Reads the configuration again; none if it has errors, which it has told.
pub(crate) type Reread = Box<dyn Fn() -> Option<Config>>;

/// Virtual routers beside pools. Dropped, they leave in order.
pub(crate) struct Routers {
    running: Option<vrrp::Running>,
    line: Line,
    reread: Reread,
    /// What is in use.
    config: Config,
    runtime: Choice,
    started: Instant,
    /// When the thread is started again, and how long was waited for that.
    retry: Option<Instant>,
    wait: Duration,
    is_leaving: bool,
}

impl Routers {
    /// Starts them.
    ///
    /// # Errors
    ///
    /// The system refuses threads or descriptors.
    pub(crate) fn start(config: Config, runtime: Choice, reread: Reread) -> anyhow::Result<Self> {
        let line = Line::default();
        let told = Some(line.clone());
        let launch = Launch { config: config.clone(), runtime, has_guardian: true, line: told };
        let running = vrrp::start(launch)?;
        line.connect(running.post());
        Ok(Self {
            running: Some(running),
            line,
            reread,
            config,
            runtime,
            started: Instant::now(),
            retry: None,
            wait: RETRY_MIN,
            is_leaving: false,
        })
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
            self.start_again(now);
        }
    }

    fn start_again(&mut self, now: Instant) {
        let (config, runtime) = (self.config.clone(), self.runtime);
        let line = Some(self.line.clone());
        match vrrp::start(Launch { config, runtime, has_guardian: true, line }) {
            Ok(running) => {
                tracing::warn!("the virtual routers run again");
                self.line.connect(running.post());
                (self.running, self.started) = (Some(running), now);
            }
            Err(error) => {
                self.wait = (self.wait * 2).min(RETRY_MAX);
                self.retry = Some(now + self.wait);
                let again_in_s = self.wait.as_secs();
                tracing::error!(again_in_s, "the virtual routers are not started: {error:#}");
            }
        }
    }

    /// Reads their configuration again; tells whether it is in use.
    pub(crate) fn reload(&mut self) -> bool {
        let Some(config) = (self.reread)() else {
            tracing::error!("the old configuration of the virtual routers stays in use");
            return false;
        };
        self.config = config.clone();
        if let Some(running) = &mut self.running {
            running.reload(config);
        }
        true
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
