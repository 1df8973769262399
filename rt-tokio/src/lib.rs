//! Drives the core on tokio: the portable runtime.
//!
//! One [`run`] is one worker on one thread: a `current_thread` tokio runtime with a single future
//! that owns every connection. One poller of our own watches the sockets and tokio the poller: a
//! socket that tokio watched by itself would cost more memory than an idle client may. tokio has
//! the sleep, the timer and the threads of the resolver. A turn reads whatever is ready, lets the worker speak, and only then writes, so that a connection gets one write per
//! turn however many requests the turn brought. [`ringkeeper_core::io`] holds the contract.
#![forbid(unsafe_code)]

mod conn;
mod connect;
mod datagram;
mod driver;
mod listen;
mod mailbox;
mod poller;
mod ready;
mod resolve;

use std::io;
use std::time::Instant;

use ringkeeper_core::id::ListenerId;
use ringkeeper_core::io::{Drive, Host};
use ringkeeper_core::limits::BATCH_MAX;
use tokio::task::coop::unconstrained;

pub use datagram::Opener;
pub use mailbox::{Handed, Mailbox, MailboxSender, Message, Stopped, mailbox};

/// Threads for the resolver's blocking calls. A name server that does not answer holds one of
/// them for several seconds; further questions wait.
const RESOLVER_THREADS_MAX: usize = 4;

/// A listening socket that the host opened.
#[derive(Debug)]
pub struct Listener {
    /// What the worker calls it.
    pub id: ListenerId,
    /// Bound, listening and non-blocking; TCP or unix.
    pub socket: socket2::Socket,
    /// Whether accepted TCP connections send keepalive probes.
    pub tcp_keepalive: bool,
}

/// Drives `drive` on this thread until [`Message::Stop`] arrives; every connection and listener
/// is closed then.
///
/// `start` is the zero of the worker's clock; `host` serves what is not the runtime's business.
/// The thread must not belong to another tokio runtime.
///
/// # Errors
///
/// The kernel refuses the runtime's own descriptors or to say which sockets are ready, or a
/// listener is not what its description says. Once running, errors belong to a connection and end there.
pub fn run<D: Drive>(
    drive: D,
    start: Instant,
    listeners: Vec<Listener>,
    mailbox: Mailbox,
    host: impl Host,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_io_events_per_tick(BATCH_MAX)
        .max_blocking_threads(RESOLVER_THREADS_MAX)
        .build()?;
    // Unconstrained: tokio's budget of operations per poll would cut a turn in the middle;
    // BATCH_MAX bounds it already.
    let result = runtime.block_on(unconstrained(async {
        driver::Driver::new(drive, start, listeners, mailbox, host).await?.run().await
    }));
    // A resolver thread may hang in its system call; nobody waits for it.
    runtime.shutdown_background();
    result
}
