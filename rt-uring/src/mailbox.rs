//! How other threads reach a worker: a queue, and an event descriptor that wakes the ring.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;

use rustix::event::{EventfdFlags, eventfd};

use ringkeeper_core::id::QueryId;
use ringkeeper_core::io::{Command, ResolveError};

/// What a worker can be told from outside.
#[derive(Clone, Debug)]
pub enum Message {
    /// The operator wants something.
    Command(Command),
    /// End [`run`](crate::run) at once; connections are closed without a farewell.
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

/// What lies in the queue: messages from outside and the resolver's answers.
#[derive(Debug)]
pub(crate) enum Mail {
    Message(Message),
    Resolved { query: QueryId, result: Result<Vec<std::net::SocketAddr>, ResolveError> },
}

/// The worker's end.
#[derive(Debug)]
pub struct Mailbox {
    queue: mpsc::Receiver<Mail>,
    sender: MailboxSender,
}

/// The end for everybody else.
#[derive(Clone, Debug)]
pub struct MailboxSender {
    queue: mpsc::Sender<Mail>,
    wake: Arc<OwnedFd>,
}

/// Makes a mailbox. The worker's end may move to the worker's thread.
///
/// # Errors
///
/// When the process has no descriptor left.
pub fn mailbox() -> io::Result<(MailboxSender, Mailbox)> {
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, queue) = mpsc::channel();
    let sender = MailboxSender { queue: sender, wake };
    Ok((sender.clone(), Mailbox { queue, sender }))
}

impl MailboxSender {
    /// Puts a message in and wakes the worker.
    ///
    /// # Errors
    ///
    /// [`Stopped`] when there is nobody to read it.
    pub fn send(&self, message: Message) -> Result<(), Stopped> {
        self.post(Mail::Message(message))
    }

    pub(crate) fn post(&self, mail: Mail) -> Result<(), Stopped> {
        self.queue.send(mail).map_err(|_| Stopped)?;
        // The only error that a full counter can give (`EAGAIN`) means that it is awake already.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        Ok(())
    }
}

impl Mailbox {
    /// Returns the descriptor that becomes readable when there is mail.
    pub(crate) fn wake(&self) -> &OwnedFd {
        &self.sender.wake
    }

    /// Returns another sending end, for the runtime's own threads.
    pub(crate) fn sender(&self) -> MailboxSender {
        self.sender.clone()
    }

    /// Makes the descriptor quiet again; before the queue is read, so that nothing is missed.
    pub(crate) fn hush(&self) {
        let _ = rustix::io::read(&*self.sender.wake, &mut [0_u8; 8]);
    }

    /// Takes the next mail, if there is any.
    pub(crate) fn take(&self) -> Option<Mail> {
        self.queue.try_recv().ok()
    }
}
