//! A fleet of Sentinels with the servers that they watch, from one seed.
//!
//! Sentinels are ours, or a faithful [model](genuine) of the genuine ones with their defects, or
//! both in one quorum. All of them speak real bytes over a [network](net) that cuts, delays and
//! breaks; the [servers](server) replicate asynchronously and change their roles as told. A
//! [checker] reads along and holds everybody to the promises:
//!
//! | rule | promise |
//! | --- | --- |
//! | S1 | one vote per Sentinel, master and election, also across crashes |
//! | S2 | one leader per master and election, elected by a majority in that election |
//! | S3 | configuration epochs never go back, also not in a crash, and are never ahead of the current epoch |
//! | S4 | one address per master and configuration epoch, ever |
//! | S5 | only a leader promotes, one server per election; others are sent where the sender believes the master to be |
//! | S6 | nobody starts a fail-over without seeing the master down and being told so by enough peers |
//! | S7 | nobody acts in TILT |
//! | S8 | where leases are lent, no two addresses of a master are written to at a time |
//! | S9 | what a crash leaves on the disk can be read |
//! | D1 | nobody promotes a former master that came back by itself |
//! | L1 | in the end all agree where each master is |
//! | L2 | in the end each group has one master, which all others follow |
//! | L3 | a dead master is replaced in time |
//! | L4 | nothing starts where nothing is wrong |
//! | L5 | many masters that fail together are all replaced |

pub(crate) mod checker;
mod fault;
mod fleet;
mod genuine;
mod keyed;
mod keys;
mod mutation;
pub(crate) mod net;
mod observer;
pub(crate) mod ours;
pub(crate) mod process;
pub(crate) mod server;
mod slots;
mod stranger;
mod tap;
pub(crate) mod world;

pub use checker::{Breach, Told};
pub use fault::{ALL_FAULTS, FaultKind};
pub use fleet::{Command, Ending, Failure, Fleet, Member, Plan, Report};
pub use genuine::{Defects, Watched};
pub use mutation::Mutation;
pub use ours::{Boot, Make};
