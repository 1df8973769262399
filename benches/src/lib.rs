//! The side-by-side benchmark against the peers, and what it is made of.
//!
//! `versus` measures CPU per request, throughput and latency; `memory` measures resident memory.
//! All start the programs under test as child processes. The first two drive them over loopback
//! only; `vrrp`, which measures takeovers of virtual routers, has network namespaces of its own, and
//! `failover`, which measures what clients see of failovers, those of `ringkeeper lab`.
//! A benchmark that meets its own mistake has nothing to measure, so it stops at once: the lints
//! that keep panics away from input paths are off in this package.
#![forbid(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation
)]

pub mod balancer;
pub mod data;
pub mod failover;
pub mod figures;
pub mod load;
pub mod memcached;
pub mod memory;
pub mod process;
pub mod report;
pub mod servers;
pub mod targets;
pub mod turns;
pub mod versus;
pub mod vrrp;
pub mod workload;
