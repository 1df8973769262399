//! Drives the core on runtimes that do not ship, so that the choice of runtime can be measured
//! again at any time.
//!
//! The worker is the product's own; [`Driver`] keeps the contract of [`ringkeeper_core::io`]
//! with tasks of an async runtime; [`Runtime`] is the little that glommio and tokio-uring do
//! differently. Both run on one thread, with two tasks per connection: one reads and hands what it
//! got straight to the worker, one writes. A further task ends the turn. Executors run woken tasks
//! first come, first served, so it runs behind every reader that was ready with the first one, and
//! a connection gets one write for all that the turn made for it.
//!
//! Left out, because no benchmark asks for it: unix sockets, host names, the statistics port,
//! draining, signals (the process ends when it is killed), keepalive. Everything else that the
//! contract asks for is there: time-outs, flushing and aborting closes, half-closed clients,
//! paused reads, one `Closed` for every connection.

mod conn;
mod driver;
mod host;

use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use ringkeeper_core::buf::Buffer;

pub use driver::Driver;
pub use host::{Host, load};

/// Bytes that a read of a client's socket asks for, where the runtime needs a buffer for each
/// connection as long as the read waits.
pub const CLIENT_READ_BYTES: usize = 16 * 1024;
/// The same for a server's socket: there are few of them and they carry every client's replies.
pub const SERVER_READ_BYTES: usize = 64 * 1024;

/// What a runtime does in its own way.
pub trait Runtime: Sized + 'static {
    /// A connection.
    type Stream: Stream;
    /// A listening socket.
    type Listener: 'static;

    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// The system refuses the address.
    fn listen(address: SocketAddr) -> io::Result<Self::Listener>;

    /// Takes a client.
    fn accept(
        listener: &Self::Listener,
    ) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>>;

    /// Connects to a server; an attempt that takes longer than `timeout` ends with
    /// [`io::ErrorKind::TimedOut`].
    fn connect(
        address: SocketAddr,
        timeout: Duration,
    ) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Runs `task` beside the others. It must not run before this function returns: the caller
    /// may be in the middle of a turn.
    fn spawn(task: impl Future<Output = ()> + 'static);

    /// Ends after `duration`.
    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static;
}

/// A connection; one task reads from it while another one writes.
pub trait Stream: 'static {
    /// Waits for bytes and lends them to `take`; 0 is the end of the stream, without a call.
    fn read(&self, take: impl FnOnce(&[u8])) -> impl Future<Output = io::Result<usize>>;

    /// Writes the whole buffer and gives it back.
    fn write_all(&self, buffer: Buffer) -> impl Future<Output = (io::Result<()>, Buffer)>;

    /// Ends one or both directions at once; reads and writes that wait come back.
    fn shutdown(&self, how: Shutdown);
}
