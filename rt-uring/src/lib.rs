//! Drives a [`Drive`](ringkeeper_core::io::Drive) on io_uring.
//!
//! One thread, one ring, one drive: [`run`] takes the current thread and keeps it until
//! [`Message::Stop`]. Every turn is one `io_uring_enter` that submits what the worker wanted and
//! waits for what the kernel has; sockets are read by multishot receives into one small ring of
//! buffers, so an idle connection holds no memory for bytes.
//!
//! [`probe`] tells first whether this kernel and this process may do so at all, and in the
//! operator's words what to change if not.
#![cfg(target_os = "linux")]

mod buffer;
mod datagram;
mod driver;
mod mailbox;
mod op;
mod probe;
mod resolver;
mod ring;
mod socket;
mod stash;
mod table;

use socket2::Socket;

use ringkeeper_core::id::ListenerId;

pub use datagram::Opener;
pub use driver::{run, run_with};
pub use mailbox::{Handed, Mailbox, MailboxSender, Message, Stopped, mailbox};
pub use probe::{Capabilities, Unsuitable, probe};
pub use ring::{Buffers, Options};

/// A socket that clients connect to.
#[derive(Debug)]
pub struct Listener {
    /// The name that the worker knows it by.
    pub id: ListenerId,
    /// Bound, listening and non-blocking.
    pub socket: Socket,
    /// Whether accepted sockets send keepalive probes.
    pub tcp_keepalive: bool,
}
