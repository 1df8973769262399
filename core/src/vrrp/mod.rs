//! The machine that keeps a virtual address on exactly one router of a link.
//!
//! [`VirtualRouter`] is one virtual router on one interface: it takes adverts that were read
//! ([`wire::vrrp`](crate::wire::vrrp)), what trackers found and the time, and gives [`Action`]s.
//! [`fsm`] holds the states and the one place that changes them, [`accept`] decides which adverts
//! count, [`timing`] the intervals, [`announce`] when neighbours are told, [`track`] what health
//! does to the priority, [`group`] which virtual routers move together. [`keeper`] joins
//! all of a host with its kernel, scripts and files.
//!
//! Source: RFC 9568 section 6, and keepalived 2.2.7 where operators rely on it.

pub mod accept;
pub mod announce;
pub mod fsm;
pub mod group;
pub mod instance;
pub mod keeper;
pub mod timing;
pub mod track;

pub use accept::{Accepted, Refusal};
pub use fsm::{Action, Cause, Notification, Phase, Preempt, Rules};
pub use group::SyncGroup;
pub use instance::{Settings, SettingsError, VirtualRouter};
pub use keeper::Keeper;
