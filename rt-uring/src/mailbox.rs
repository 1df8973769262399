//! How other threads reach a worker: a queue, and an event descriptor that wakes the ring.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, sync_channel};

use rustix::event::{EventfdFlags, eventfd};

use socket2::Socket;

use ringkeeper_core::id::{ListenerId, QueryId};
use ringkeeper_core::io::{Mail, Parcel, ResolveError};
use ringkeeper_core::limits::MAIL_MAX;

use crate::Listener;
use crate::datagram::Opener;

/// A client that the worker gave away, with all that there is of it.
#[derive(Debug)]
pub struct Handed {
    /// Its socket; nothing is in flight on it.
    pub socket: Socket,
    /// What the worker knows of it.
    pub state: Parcel,
    /// Bytes that were received and that the worker has not seen.
    pub late: Vec<u8>,
}

/// What another thread may send to a running worker.
#[derive(Debug)]
pub enum Message {
    /// For the worker.
    Mail(Mail),
    /// For the runtime: take clients from this listener, too. It is used after the mail that was
    /// sent before it was handled.
    Listen(Listener),
    /// For the runtime: take the clients that wait at this listener already, then close it. What
    /// is sent after it is handled after that. The sender is dropped when nobody can come in there
    /// any more.
    Unlisten(ListenerId, Sender<()>),
    /// For the runtime: whoever the worker gives away goes there.
    Releases(Sender<Handed>),
    /// For the runtime: close everything and return from [`run`](crate::run).
    Stop,
}

/// The worker does not run any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the worker has stopped")
    }
}

impl std::error::Error for Stopped {}

/// What the resolver says.
pub(crate) type Answer = Result<Vec<SocketAddr>, ResolveError>;

/// What lies in the queue.
#[derive(Debug)]
pub(crate) enum Item {
    Mail(Mail),
    Resolved {
        query: QueryId,
        result: Answer,
    },
    Listen(Listener),
    Unlisten(ListenerId, Sender<()>),
    /// With `state` from another process, else just accepted.
    Client {
        listener: ListenerId,
        socket: Socket,
        state: Option<Parcel>,
    },
    Releases(Sender<Handed>),
}

/// The worker's end.
#[derive(Debug)]
pub struct Mailbox {
    queue: Receiver<Item>,
    sender: MailboxSender,
    opener: Opener,
}

/// The end for everybody else.
#[derive(Clone, Debug)]
pub struct MailboxSender {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wake: OwnedFd,
    // Not in the queue: a stop must neither be dropped nor wait.
    is_stopped: AtomicBool,
    is_gone: AtomicBool,
}

/// Makes a mailbox. The worker's end may move to the worker's thread.
///
/// # Errors
///
/// When the process has no descriptor left.
pub fn mailbox() -> io::Result<(MailboxSender, Mailbox)> {
    let shared = Arc::new(Shared {
        wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        is_stopped: AtomicBool::new(false),
        is_gone: AtomicBool::new(false),
    });
    let (sender, queue) = sync_channel(MAIL_MAX);
    let sender = MailboxSender { queue: sender, shared };
    Ok((sender.clone(), Mailbox { queue, sender, opener: Opener::default() }))
}

impl MailboxSender {
    /// Puts a message in and wakes the worker. A stop always arrives, and before what still lies
    /// there. Mail above [`MAIL_MAX`] is dropped, except what somebody waits for: for room for
    /// that and for listeners the caller waits, so it is not for a worker's own thread.
    ///
    /// # Errors
    ///
    /// [`Stopped`] when there is nobody to read it.
    pub fn send(&self, message: Message) -> Result<(), Stopped> {
        if self.shared.is_gone.load(Ordering::Acquire) {
            return Err(Stopped);
        }
        match message {
            Message::Stop => self.shared.is_stopped.store(true, Ordering::Release),
            Message::Mail(mail) if mail.is_answer() => {
                self.queue.send(Item::Mail(mail)).map_err(|_| Stopped)?;
            }
            Message::Mail(mail) => match self.queue.try_send(Item::Mail(mail)) {
                Ok(()) | Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => return Err(Stopped),
            },
            Message::Listen(listener) => {
                self.queue.send(Item::Listen(listener)).map_err(|_| Stopped)?;
            }
            Message::Releases(to) => self.queue.send(Item::Releases(to)).map_err(|_| Stopped)?,
            Message::Unlisten(id, done) => {
                self.queue.send(Item::Unlisten(id, done)).map_err(|_| Stopped)?;
            }
        }
        self.wake();
        Ok(())
    }

    /// Gives the worker a client that was accepted elsewhere; never waits.
    ///
    /// # Errors
    ///
    /// The socket comes back when the mailbox is full or the worker has stopped.
    pub fn admit(&self, listener: ListenerId, socket: Socket) -> Result<(), Socket> {
        self.offer(listener, socket, None)
    }

    /// Gives the worker a client of another process; never waits.
    ///
    /// # Errors
    ///
    /// The socket comes back when the mailbox is full or the worker has stopped.
    pub fn adopt(&self, listener: ListenerId, socket: Socket, state: Parcel) -> Result<(), Socket> {
        self.offer(listener, socket, Some(state))
    }

    fn offer(
        &self,
        listener: ListenerId,
        socket: Socket,
        state: Option<Parcel>,
    ) -> Result<(), Socket> {
        if self.shared.is_gone.load(Ordering::Acquire) {
            return Err(socket);
        }
        match self.queue.try_send(Item::Client { listener, socket, state }) {
            Ok(()) => {
                self.wake();
                Ok(())
            }
            Err(TrySendError::Full(item) | TrySendError::Disconnected(item)) => match item {
                Item::Client { socket, .. } => Err(socket),
                Item::Mail(_)
                | Item::Resolved { .. }
                | Item::Listen(_)
                | Item::Unlisten(..)
                | Item::Releases(_) => Ok(()),
            },
        }
    }

    /// Brings an answer; waits while the mailbox is full, so not for the worker's own thread.
    pub(crate) fn answer(&self, query: QueryId, result: Answer) -> Result<(), Stopped> {
        self.queue.send(Item::Resolved { query, result }).map_err(|_| Stopped)?;
        self.wake();
        Ok(())
    }

    /// Makes the worker take a turn, even if there is nothing to do.
    pub fn nudge(&self) {
        self.wake();
    }

    fn wake(&self) {
        // The only error that a full counter can give (`EAGAIN`) means that it is awake already.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }
}

impl Mailbox {
    /// Lets the worker have channels: `opener` opens them, on the worker's thread.
    pub fn set_opener(&mut self, opener: Opener) {
        self.opener = opener;
    }

    pub(crate) fn take_opener(&mut self) -> Opener {
        std::mem::take(&mut self.opener)
    }

    /// Returns the descriptor that becomes readable when there is mail.
    pub(crate) fn wake(&self) -> &OwnedFd {
        &self.sender.shared.wake
    }

    /// Returns another sending end, for the runtime's own threads.
    pub(crate) fn sender(&self) -> MailboxSender {
        self.sender.clone()
    }

    /// Makes the descriptor quiet again; before the queue is read, so that nothing is missed.
    pub(crate) fn hush(&self) {
        let _ = rustix::io::read(&self.sender.shared.wake, &mut [0_u8; 8]);
    }

    /// Tells whether the worker shall stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.sender.shared.is_stopped.load(Ordering::Acquire)
    }

    /// Takes the next mail, if there is any.
    pub(crate) fn take(&self) -> Option<Item> {
        self.queue.try_recv().ok()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.sender.shared.is_gone.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringkeeper_core::io::Command;

    use super::*;

    #[test]
    fn a_stop_arrives_although_the_queue_is_full() {
        let (sender, mailbox) = mailbox().unwrap();
        for _ in 0..2 * MAIL_MAX {
            let command = Command::Drain { limit: Duration::ZERO };
            sender.send(Message::Mail(Mail::Command(command))).unwrap();
        }
        assert!(!mailbox.is_stopped());
        sender.send(Message::Stop).unwrap();
        assert!(mailbox.is_stopped());
        let count = std::iter::from_fn(|| mailbox.take()).count();
        assert_eq!(count, MAIL_MAX);
        drop(mailbox);
        assert_eq!(sender.send(Message::Stop), Err(Stopped));
    }
}
