//! How other threads reach a worker.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use ringkeeper_core::io::Mail;
use ringkeeper_core::limits::MAIL_MAX;

use crate::datagram::Opener;

/// What another thread may send to a running worker.
#[derive(Clone, Debug)]
pub enum Message {
    /// For the worker.
    Mail(Mail),
    /// For the runtime: close everything and return from [`run`](crate::run).
    Stop,
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
    mail: VecDeque<Mail>,
    // Not in the queue: a stop must never be dropped nor wait behind mail.
    stop: bool,
    waker: Option<Waker>,
    is_gone: bool,
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
    pub(crate) mail: VecDeque<Mail>,
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
    /// arrives, and before any mail that still waits. Mail above
    /// [`MAIL_MAX`] is dropped unless the worker waits for it.
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
            Message::Mail(mail) if shared.mail.len() < MAIL_MAX || mail.is_answer() => {
                shared.mail.push_back(mail);
            }
            Message::Mail(_) => return Ok(()),
            Message::Stop => shared.stop = true,
        }
        if let Some(waker) = &shared.waker {
            waker.wake_by_ref();
        }
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
        Content { mail: std::mem::take(&mut shared.mail), stop: shared.stop }
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
