//! The worker that has the virtual routers and nothing else: it must never wait behind clients.

use crate::config::keepalived::Config;
use crate::id::{ConnId, ListenerId};
use crate::io::{AtCapacity, Deadline, Drive, Endpoint, Input, Output};
use crate::time::Instant;
use crate::vrrp::Keeper;

/// One thread's logic: all virtual routers of this host.
#[derive(Debug)]
pub struct VrrpWorker {
    keeper: Keeper,
}

impl VrrpWorker {
    /// Makes a worker. Its whole behaviour follows from the configuration and the inputs.
    pub fn new(config: Config, has_guardian: bool, now: Instant) -> Self {
        Self { keeper: Keeper::new(config, has_guardian, now) }
    }

    /// Returns the worker, which tells the control worker its figures.
    #[must_use]
    pub fn with_figures(mut self) -> Self {
        self.keeper.tell_figures();
        self
    }

    /// Returns the machine, to be looked at.
    pub const fn keeper(&self) -> &Keeper {
        &self.keeper
    }
}

impl Drive for VrrpWorker {
    fn accept(&mut self, _: Instant, _: ListenerId, _: Endpoint) -> Result<ConnId, AtCapacity> {
        // It has no clients.
        Err(AtCapacity)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.keeper.handle(now, input);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.keeper.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.keeper.poll_output()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.keeper.poll_timeout()
    }

    fn reads_first(&self, now: Instant) -> bool {
        self.keeper.reads_first(now)
    }
}
