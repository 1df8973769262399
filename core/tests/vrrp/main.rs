//! VRRP against what genuine keepalived 2.2.7 sends and accepts, and in simulated time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail as tests do"
)]

mod captures;
mod hosts;
mod pcap;
mod router;
mod scenarios;
mod simulation;
mod table;
mod verdicts;
