//! Shards that lose, change and fence their masters, and clients that must not notice more than
//! they are told: a worker between clients, model servers and the news of a control worker, all
//! under one seed.
//!
//! Judged are: every request is answered once, no client's connection ends, effects of a client
//! have the order in which it sent them, nothing but reads is done twice, a write whose outcome is
//! not known says so, what is said not to be sent was not, nothing leaves for a master that the
//! worker was told not to use, and with `replicated` nothing that was acknowledged is lost.

mod control;
mod judge;
mod mutant;
mod node;
mod wires;
mod world;

pub use mutant::{Mutant, Mutation};

use ringkeeper_core::io::Drive;

/// What a run is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// Masters are only replaced by plan; then no request may fail.
    pub is_planned: bool,
    /// The pool waits for one replica; then no acknowledged write may be lost.
    pub is_replicated: bool,
    /// The pool sends idempotent writes again.
    pub is_idempotent: bool,
    /// The pool holds reads too while it is fenced.
    pub is_strict: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Those that succeeded.
    pub done: u64,
    /// Those that were said not to be sent.
    pub not_sent: u64,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// Reads that failed otherwise.
    pub failed: u64,
    /// Masters that were replaced.
    pub switches: u64,
}

/// Names of the shards; the first server of each has the address `10.0.SHARD.1:6379`.
pub const SHARDS: [&str; 2] = ["alpha", "beta"];

/// Runs one seed.
///
/// # Errors
///
/// The first promise that was broken.
pub fn run(seed: u64, setup: Setup, machine: &mut dyn Drive) -> Result<Tally, String> {
    world::World::new(seed, setup).run(machine)
}
