//! Sentinel: notices that a master is down, agrees with its peers who acts, and promotes a replica.
//!
//! Here are the parts that decide, each a value with explicit inputs and outputs and `now` as an
//! argument; they hold no sockets and know nothing of one another:
//!
//! - bytes and values: [`info`], [`role`], [`hello`], [`ask`], [`event`], [`reply`];
//! - what is believed of an instance: [`instance`], [`peers`], [`down`], [`tilt`];
//! - who may act: [`election`], with what has to be durable first in [`state`];
//! - what is done: [`select`], [`failover`], [`reconf`].
//!
//! [`machine`] joins them. [`follow`] is for hosts without a Sentinel of their own: it believes those
//! of others.
//!
//! On the wire it is Redis Sentinel of 7.0. Where a rule of the genuine program is known to break
//! its own promises, the safer rule is used and marked with `Deviates:`.

pub mod ask;
pub mod down;
pub mod election;
pub mod event;
pub mod failover;
pub mod follow;
pub mod hello;
pub mod info;
pub mod instance;
pub mod machine;
mod names;
pub mod peers;
pub mod reconf;
pub mod reply;
pub mod role;
pub mod select;
pub mod state;
pub mod tilt;

pub use self::names::NameBase;
