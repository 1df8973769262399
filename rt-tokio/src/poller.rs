//! The poller that watches every socket, itself watched by tokio.
//!
//! A socket registered with tokio costs an entry of its own, aligned to two cache lines, and a
//! waker: more than all that the worker keeps of an idle client. Here a socket costs the kernel's
//! entry and a few flags; tokio sees one descriptor that is readable when any socket is ready.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mio::event::{Event, Source as Socket};
use mio::{Events, Interest, Token};
use ringkeeper_core::limits::BATCH_MAX;
use tokio::io::unix::AsyncFd;

/// The lowest token of a listener; below are the slots of connections, which have 24 bits.
const LISTENERS_FROM: usize = 1 << 24;

/// Whose socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// The connection in this slot.
    Conn(u32),
    /// The listener at this position.
    Listener(u16),
}

impl Watched {
    const fn token(self) -> Token {
        match self {
            Self::Conn(slot) => Token(slot as usize),
            Self::Listener(index) => Token(LISTENERS_FROM + index as usize),
        }
    }

    fn from_token(Token(token): Token) -> Option<Self> {
        match token.checked_sub(LISTENERS_FROM) {
            Some(index) => u16::try_from(index).ok().map(Self::Listener),
            None => u32::try_from(token).ok().map(Self::Conn),
        }
    }
}

/// What has changed about a socket since it was last told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness {
    /// A read gives bytes, the end, or the error.
    pub(crate) can_read: bool,
    /// A write gives room or the error; an attempt to connect has ended.
    pub(crate) can_write: bool,
    /// Behind whatever is left to read is the end or an error.
    pub(crate) is_over: bool,
}

impl Readiness {
    fn of(event: &Event) -> Self {
        let (is_error, is_read_closed) = (event.is_error(), event.is_read_closed());
        Self {
            can_read: event.is_readable() || is_read_closed || is_error,
            can_write: event.is_writable() || event.is_write_closed() || is_error,
            is_over: is_read_closed || is_error,
        }
    }
}

/// Watches sockets for changes: each is told once, and again only after something new has come.
#[derive(Debug)]
pub(crate) struct Poller {
    inner: AsyncFd<mio::Poll>,
    events: Events,
}

impl Poller {
    /// Makes a poller; must run inside the tokio runtime that is to watch it.
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of types whose descriptor may change or \
                  close; mio's poller owns one for as long as it lives"
    )]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            inner: AsyncFd::with_interest(mio::Poll::new()?, tokio::io::Interest::READABLE)?,
            events: Events::with_capacity(BATCH_MAX),
        })
    }

    /// Starts to watch a socket. What it is ready for already is told as well.
    pub(crate) fn watch(&self, socket: &mut impl Socket, owner: Watched) -> io::Result<()> {
        let interest = match owner {
            Watched::Conn(_) => Interest::READABLE | Interest::WRITABLE,
            Watched::Listener(_) => Interest::READABLE,
        };
        self.inner.get_ref().registry().register(socket, owner.token(), interest)
    }

    /// Stops watching, before the socket is closed: a child process that is just starting may
    /// hold a copy of the descriptor, and the kernel would go on telling of a slot that has
    /// somebody else in it.
    pub(crate) fn forget(&self, socket: &mut impl Socket) {
        // It was watched, so there is nothing that could fail but a bug.
        let result = self.inner.get_ref().registry().deregister(socket);
        debug_assert!(result.is_ok(), "{result:?}");
    }

    /// Takes at most `BATCH_MAX` changes without sleeping; returns how many there were.
    pub(crate) fn take(&mut self, mut tell: impl FnMut(Watched, Readiness)) -> io::Result<usize> {
        match self.inner.get_mut().poll(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            result => result?,
        }
        let mut count = 0;
        for event in &self.events {
            count += 1;
            if let Some(owner) = Watched::from_token(event.token()) {
                tell(owner, Readiness::of(event));
            }
        }
        Ok(count)
    }

    /// Asks for a wake-up when a change comes. Ready once per change and sometimes in vain:
    /// [`Poller::take`] says whether there is anything.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error means that the runtime is going down; then it does not matter.
        if let Ok(mut guard) = ready!(self.inner.poll_read_ready(cx)) {
            // Before the changes are taken: one that comes in between makes it ready again.
            guard.clear_ready();
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_connections_and_listeners_apart() {
        for owner in [
            Watched::Conn(0),
            Watched::Conn((1 << 24) - 1),
            Watched::Listener(0),
            Watched::Listener(u16::MAX),
        ] {
            assert_eq!(Watched::from_token(owner.token()), Some(owner));
        }
        assert_eq!(Watched::from_token(Token(usize::MAX)), None);
    }
}
