//! Ringkeeper's protocols as pure state machines.
//!
//! Nothing in this package opens a socket, reads a clock, starts a thread or draws a random
//! number of its own: time and chance are arguments, effects are values. A runtime (`rt-uring`,
//! `rt-tokio` or the simulator) drives a machine through the border in [`io`].
//!
//! Imports point downward only: `node → proxy | vrrp → routing, command, config, stats →
//! distribution, hash, wire → buf, timer, slab, id, io, time, rng, limits`; `tests/tidy.rs` holds
//! the rule.
#![forbid(unsafe_code)]

pub mod admin;
pub mod balance;
pub mod buf;
pub mod command;
pub mod config;
pub mod distribution;
pub mod hash;
pub mod id;
pub mod io;
pub mod limits;
pub mod node;
pub mod proxy;
pub mod rng;
pub mod routing;
pub mod sentinel;
pub mod slab;
pub mod stats;
pub mod time;
pub mod timer;
pub mod tls;
pub mod vrrp;
pub mod wire;
