//! Scenarios of the proxy through the border, in virtual time.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop where it broke"
)]

mod border;
mod commands;
mod failures;
mod figures;
mod found;
mod handover;
mod harness;
mod hold;
mod limits;
mod memcache;
mod order;
mod reload;
mod replicated;
