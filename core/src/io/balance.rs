//! What is told of virtual servers.

use std::net::SocketAddr;

/// What happened to a virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BalanceNews {
    /// A server gets connections again, or for the first time.
    ServerUp {
        /// Which.
        server: SocketAddr,
        /// How that was found out.
        detail: String,
    },
    /// A server gets no connections any more.
    ServerDown {
        /// Which.
        server: SocketAddr,
        /// How that was found out.
        detail: String,
        /// Connections to it that were closed.
        closed: usize,
    },
    /// A server's weight was changed by what checks it.
    Weight {
        /// Which.
        server: SocketAddr,
        /// The new weight.
        weight: u32,
    },
    /// A live server did not take a client's connection; the next one was tried.
    Unreachable {
        /// Which.
        server: SocketAddr,
    },
    /// Enough servers are up.
    QuorumGained {
        /// Weight of live servers.
        weight: u32,
    },
    /// Too few servers are up.
    QuorumLost {
        /// Weight of live servers.
        weight: u32,
    },
    /// Whether the server for bad times serves now.
    Sorry {
        /// Which.
        server: SocketAddr,
        /// Whether.
        is_serving: bool,
    },
    /// A client found nobody to serve it; more within a second are counted only.
    ClientRefused {
        /// Clients since the last such news, this one included.
        clients: u64,
    },
    /// A program that was to be told of something failed.
    ProgramFailed {
        /// Which.
        program: String,
        /// How.
        detail: String,
    },
}
