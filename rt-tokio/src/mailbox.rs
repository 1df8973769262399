//! How other threads reach a worker.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use ringkeeper_core::id::ListenerId;
use ringkeeper_core::io::{Mail, Parcel};
use ringkeeper_core::limits::MAIL_MAX;
use socket2::Socket;

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

/// What lies in the queue.
#[derive(Debug)]
pub(crate) enum Item {
    Mail(Mail),
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

/// Sends messages to one worker; clones send to the same one.
#[derive(Clone, Debug)]
pub struct MailboxSender {
    shared: Arc<Mutex<Shared>>,
}

/// The worker's end, given to [`run`](crate::run).
#[derive(Debug)]
pub struct Mailbox {
    shared: Arc<Mutex<Shared>>,
    opener: Opener,
}

#[derive(Debug, Default)]
struct Shared {
    items: VecDeque<Item>,
    // Not in the queue: a stop must never be dropped nor wait behind mail.
    stop: bool,
    waker: Option<Waker>,
    is_gone: bool,
}

impl Shared {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
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

/// What was in the mailbox.
pub(crate) struct Content {
    pub(crate) items: VecDeque<Item>,
    pub(crate) stop: bool,
}

/// Makes a mailbox and its first sender.
///
/// # Errors
///
/// None on this runtime; the signature is the one of the runtimes that need a descriptor.
pub fn mailbox() -> io::Result<(MailboxSender, Mailbox)> {
    let shared = Arc::new(Mutex::new(Shared::default()));
    Ok((
        MailboxSender { shared: Arc::clone(&shared) },
        Mailbox { shared, opener: Opener::default() },
    ))
}

impl MailboxSender {
    /// Leaves `message` for the worker and wakes it; never waits for the worker. A stop always
    /// arrives, and before anything that still waits. Mail above [`MAIL_MAX`] is dropped unless
    /// somebody waits for it; listeners never are.
    ///
    /// # Errors
    ///
    /// [`Stopped`] when there is nobody to read it.
    pub fn send(&self, message: Message) -> Result<(), Stopped> {
        let mut shared = lock(&self.shared);
        if shared.is_gone {
            return Err(Stopped);
        }
        match message {
            Message::Mail(mail) if shared.items.len() < MAIL_MAX || mail.is_answer() => {
                shared.items.push_back(Item::Mail(mail));
            }
            Message::Mail(_) => return Ok(()),
            Message::Listen(listener) => shared.items.push_back(Item::Listen(listener)),
            Message::Unlisten(id, done) => shared.items.push_back(Item::Unlisten(id, done)),
            Message::Releases(to) => shared.items.push_back(Item::Releases(to)),
            Message::Stop => shared.stop = true,
        }
        shared.wake();
        Ok(())
    }

    /// Makes the worker take a turn, even if there is nothing to do.
    pub fn nudge(&self) {
        lock(&self.shared).wake();
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
        let mut shared = lock(&self.shared);
        if shared.is_gone || shared.items.len() >= MAIL_MAX {
            return Err(socket);
        }
        shared.items.push_back(Item::Client { listener, socket, state });
        shared.wake();
        Ok(())
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

    /// Takes what is there.
    pub(crate) fn take(&self) -> Content {
        let mut shared = lock(&self.shared);
        Content { items: std::mem::take(&mut shared.items), stop: shared.stop }
    }

    /// Names whom to wake for later messages.
    pub(crate) fn set_waker(&self, waker: Waker) {
        lock(&self.shared).waker = Some(waker);
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.waker = None;
        shared.is_gone = true;
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // No caller's code runs under the lock, so a poisoned one holds a sound value.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
