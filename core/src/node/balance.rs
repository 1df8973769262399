//! A worker with nothing but virtual servers.

use std::sync::Arc;

use crate::balance::{Balancer, Plan};
use crate::id::{ConnId, ListenerId};
use crate::io::{AtCapacity, Deadline, Drive, Endpoint, Input, Output};
use crate::time::Instant;

/// One thread's logic: all virtual servers of this process.
#[derive(Debug)]
pub struct BalanceWorker {
    balancer: Balancer,
}

impl BalanceWorker {
    /// Makes a worker. Its whole behaviour follows from the plan, the seed and the inputs.
    pub fn new(plan: Arc<Plan>, seed: u64, now: Instant) -> Self {
        Self { balancer: Balancer::new(plan, seed, now) }
    }

    /// Returns the worker, which tells the control worker its figures.
    #[must_use]
    pub fn with_figures(mut self) -> Self {
        self.balancer.tell_figures();
        self
    }

    /// Returns the machine, to be looked at.
    pub const fn balancer(&self) -> &Balancer {
        &self.balancer
    }
}

impl Drive for BalanceWorker {
    fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        self.balancer.accept(now, on, &peer)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.balancer.handle(now, input);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.balancer.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.balancer.poll_output()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.balancer.poll_timeout()
    }
}
