//! How other threads reach a worker.

use std::collections::VecDeque;
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
}

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
    /// Leaves `message` for the worker and wakes it. Never blocks on the worker; does nothing
    /// when the worker is gone.
    pub fn send(&self, message: Message) {
        let mut shared = lock(&self.shared);
        match message {
            Message::Command(command) if shared.commands.len() < COMMANDS_MAX => {
                shared.commands.push_back(command);
            }
            Message::Command(_) => return,
            Message::Stop => shared.stop = true,
        }
        if let Some(waker) = &shared.waker {
            waker.wake_by_ref();
        }
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
        lock(&self.shared).waker = None;
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // No caller's code runs under the lock, so a poisoned one holds a sound value.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
