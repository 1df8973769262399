//! The command line and the configuration.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ringkeeper_core::config::nutcracker::{self, ListenAddress};
use ringkeeper_core::node::Worker;
use ringkeeper_core::proxy::{Plan, Policy};
use ringkeeper_core::time::Instant;

/// A worker and where its pools listen, pool `n` at position `n`.
pub struct Host {
    /// The worker.
    pub worker: Worker,
    /// The zero of its clock.
    pub start: std::time::Instant,
    /// Where clients connect.
    pub listens: Vec<SocketAddr>,
    /// What follows the file on the command line.
    pub options: Vec<String>,
}

/// Reads the file that the command line names first.
///
/// # Errors
///
/// No file, a file that cannot be read or has errors, or an address that is no IP address.
pub fn load() -> io::Result<Host> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or_else(|| io::Error::other("usage: PROGRAM FILE [OPTION]"))?;
    let parsed = nutcracker::parse_bytes(&file, &std::fs::read(&file)?);
    let Some(config) = parsed.config else {
        let messages: Vec<String> = parsed.diagnostics.into_iter().map(|d| d.message).collect();
        return Err(io::Error::other(format!("{file}: {}", messages.join("; "))));
    };
    let listens = config.pools.iter().map(|pool| address(&pool.listen.address));
    let listens = listens.collect::<io::Result<Vec<SocketAddr>>>()?;
    // As `ringkeeper run` behaves, so that both do the same work.
    let plan = Plan::new(&config, Policy::RINGKEEPER);
    // Only the spread of a random distribution follows from the seed.
    let worker = Worker::new(Arc::new(plan), u64::from(std::process::id()), Instant::START);
    let start = std::time::Instant::now();
    Ok(Host { worker, start, listens, options: arguments.collect() })
}

fn address(listen: &ListenAddress) -> io::Result<SocketAddr> {
    let problem = || io::Error::other("only IP addresses are listened on here");
    match listen {
        ListenAddress::Tcp(at) => {
            at.host.parse().map(|ip| SocketAddr::new(ip, at.port)).map_err(|_| problem())
        }
        ListenAddress::Unix { .. } => Err(problem()),
    }
}
