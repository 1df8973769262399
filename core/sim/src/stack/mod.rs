//! A whole deployment from one seed: clients, three nodes, two shards and the network between them.
//!
//! A node is what a host runs: a worker with clients, one that watches masters and one with the
//! virtual routers, composed as in the product and read from the same file. Each is a thread of its
//! own, which hears from the others a moment later; their host has a kernel with addresses and a
//! guardian. Servers replicate asynchronously, clients know nothing but the address that moves.
//! Every seed draws a [`Scenario`]; every step is watched:
//!
//! | rule | promise |
//! | --- | --- |
//! | S4 | one address per master and configuration epoch, whoever is told |
//! | S8 | no worker passes a write on to a server that is not the master by all it was told, nor while it was told to wait or that it may not write; with `fence: strict` none after another server was promoted, on any host, although clocks run 1 % fast or slow |
//! | C1 | a reply is to its request: nobody sees another client's, or what was never written there |
//! | C2 | every request is answered once, or its connection ends |
//! | C3 | what is said not to have been sent has no effect; nothing takes effect twice; what one connection wrote stands in its order; a key stays in its shard |
//! | C4 | with `replicated: 1` what was acknowledged is there in the end |
//! | C5 | planned failovers lose nothing and fail nothing, but that the outcome of a `replicated` write may be unknown |
//! | V1 | of two hosts that hear each other one has the address |
//! | H | when faults end: one host has the address, each shard has one master that all others follow, every worker sends there, and then no request fails |

pub(crate) mod client;
pub(crate) mod estate;
pub(crate) mod judge;
pub(crate) mod kernel;
pub(crate) mod node;
mod plan;
mod probe;
mod run;
mod storm;

pub use plan::{Scenario, Weather};
pub use probe::Mutation;
pub use run::{Failure, Report, run};
