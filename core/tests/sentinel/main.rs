//! Sentinel's parts against what genuine Sentinels and servers were recorded to say.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests fail as tests do"
)]

mod config;
mod events;
mod follow;
mod lively;
mod machine;
mod recorded;
mod replies;
mod state;
mod wire;
mod workers;
