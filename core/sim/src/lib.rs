//! A seeded simulator that drives a [`Drive`] machine in virtual time.
//!
//! One seed chooses everything: when bytes arrive and in which pieces, what clients ask, which
//! server fails and how. A run has two parts: first faults and load, during which nothing wrong
//! may happen (safety); then the faults stop, and within a bound everybody must be served well
//! again (liveness). The same seed gives the same run.
//!
//! The simulator plays three roles: the runtime (which holds the machine to its side of the
//! contract in [`ringkeeper_core::io`] and is as awkward as its own side allows), the clients and
//! the servers. A checker that sees all three sides judges every reply.
#![forbid(unsafe_code)]
// A test tool: a broken assumption of its own should stop it at once, where it broke.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm
)]

mod checker;
mod clock;
mod codec;
pub mod failover;
mod fault;
mod memcache;
mod net;
mod redis;
mod request;
mod runtime;
mod scenario;
mod seeds;
pub mod sentinel;
pub mod stack;
mod trace;
mod workload;
mod world;

use ringkeeper_core::io::Drive;

pub use scenario::{Failure, FaultKind, Pool, Profile, Report, Scenario, Verb, Workload};
pub use seeds::{Seeds, Summary};
use world::World;

/// What a check says: nothing, or what is wrong.
type Check<T = ()> = Result<T, String>;

/// One run: a seed and a scenario.
pub struct Simulation {
    seed: u64,
    world: World,
}

impl Simulation {
    /// Prepares the run of `seed`.
    pub fn new(seed: u64, scenario: Scenario) -> Self {
        Self { seed, world: World::new(seed, scenario) }
    }

    /// Drives `machine` to the end of the run.
    ///
    /// # Errors
    ///
    /// The first promise that was broken.
    pub fn run<D: Drive>(mut self, mut machine: D) -> Result<Report, Box<Failure>> {
        let seed = self.seed;
        let world = &mut self.world;
        // A panic of the machine is a failure with a trace like any other.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.run(seed, &mut machine)
        }));
        outcome
            .unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
                let what = format!("panic: {}", text.unwrap_or_default());
                Err(self.world.failure(seed, what))
            })
            .map_err(Box::new)
    }
}
