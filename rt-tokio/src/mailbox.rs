//! How other threads reach a worker.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use ringkeeper_core::io::Command;

/// Commands that wait for the worker; further ones are dropped. An operator sends a few in a
/// lifetime and a turn takes microseconds, so only a runaway caller gets here.
const COMMANDS_MAX: usize = 256;

/// What another thread may send to a running worker.
#[derive(Clone, Debug)]
pub enum Message {
    /// For the worker.
    Command(Command),
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
}

#[derive(Debug, Default)]
struct Shared {
    commands: VecDeque<Command>,
    // Not in the queue: a stop must never be dropped nor wait behind commands.
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
pub(crate) struct Mail {
    pub(crate) commands: VecDeque<Command>,
    pub(crate) stop: bool,
}

/// Makes a mailbox and its first sender.
///
/// # Errors
///
/// None on this runtime; the signature is the one of the runtimes that need a descriptor.
pub fn mailbox() -> io::Result<(MailboxSender, Mailbox)> {
    let shared = Arc::new(Mutex::new(Shared::default()));
    Ok((MailboxSender { shared: Arc::clone(&shared) }, Mailbox { shared }))
}

impl MailboxSender {
    /// Leaves `message` for the worker and wakes it; never waits for the worker. A stop always
    /// arrives, and before any command that still waits; a command too many is dropped.
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
            Message::Command(command) if shared.commands.len() < COMMANDS_MAX => {
                shared.commands.push_back(command);
            }
            Message::Command(_) => return Ok(()),
            Message::Stop => shared.stop = true,
        }
        if let Some(waker) = &shared.waker {
            waker.wake_by_ref();
        }
        Ok(())
    }
}

impl Mailbox {
    /// Takes what is there.
    pub(crate) fn take(&self) -> Mail {
        let mut shared = lock(&self.shared);
        Mail { commands: std::mem::take(&mut shared.commands), stop: shared.stop }
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
