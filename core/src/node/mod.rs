//! The workers: what a runtime drives, made of machines that do not know each other.

mod control;
mod health;
mod wiring;

pub mod balance;
pub mod compose;
pub mod sentinel;
pub mod vrrp;

use std::sync::Arc;

pub use self::control::{Control, ControlPlan, ControlRole, WatchPlan};

use crate::id::{ConnId, ListenerId, WorkerId};
use crate::io::{AtCapacity, Deadline, Drive, Endpoint, Input, Output, Parcel};
use crate::proxy::{ClientState, Plan, Proxy};
use crate::time::Instant;

/// One thread's logic.
#[derive(Debug)]
pub struct Worker {
    proxy: Proxy,
}

impl Worker {
    /// Makes a worker. Its whole behaviour follows from the plan, the seed and the inputs.
    pub fn new(plan: Arc<Plan>, seed: u64, now: Instant) -> Self {
        Self { proxy: Proxy::new(plan, seed, now) }
    }

    /// Says which of the workers this is; the first, unless told.
    #[must_use]
    pub fn with_id(self, id: WorkerId) -> Self {
        Self { proxy: self.proxy.with_id(id) }
    }
}

impl Drive for Worker {
    fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        self.proxy.accept(now, on, &peer)
    }

    fn adopt(
        &mut self,
        now: Instant,
        on: ListenerId,
        state: &Parcel,
    ) -> Result<ConnId, AtCapacity> {
        let state = state.open::<ClientState>().ok_or(AtCapacity)?;
        self.proxy.adopt(now, on, &state)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.proxy.handle(now, input);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.proxy.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.proxy.poll_output()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.proxy.poll_timeout()
    }
}
