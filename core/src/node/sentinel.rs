//! A worker with nothing but a Sentinel.

use crate::id::{ConnId, ListenerId};
use crate::io::{AtCapacity, Deadline, Drive, Endpoint, Input, Output};
use crate::sentinel::machine::{Sentinel, Setup};
use crate::time::Instant;

/// One Sentinel, driven by itself.
#[derive(Debug)]
pub struct SentinelWorker {
    sentinel: Sentinel,
}

impl SentinelWorker {
    /// Makes a worker. Its whole behaviour follows from the setup, the seed and the inputs.
    pub fn new(setup: Setup, seed: u64, now: Instant) -> Self {
        Self { sentinel: Sentinel::new(setup, seed, now) }
    }

    /// Returns the machine, for looking at.
    pub const fn sentinel(&self) -> &Sentinel {
        &self.sentinel
    }
}

impl Drive for SentinelWorker {
    fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        self.sentinel.accept(now, on, peer)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.sentinel.handle(now, input);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.sentinel.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.sentinel.poll_output()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.sentinel.poll_timeout()
    }
}
