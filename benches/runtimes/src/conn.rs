//! One connection, and the table of all of them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Poll, Waker};

use ringkeeper_core::buf::Buffer;
use ringkeeper_core::id::ConnId;
use ringkeeper_core::io::{CloseMode, CloseReason};

use crate::Stream;

/// One connection, shared by its reader, its writer and the driver.
pub(crate) struct Conn<S> {
    pub(crate) id: ConnId,
    pub(crate) stream: S,
    /// The next write, from `Transmit` until the writer takes it.
    next: RefCell<Option<Buffer>>,
    is_paused: Cell<bool>,
    /// Why it ends, once it does.
    end: Cell<Option<CloseReason>>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
    /// The reader and the writer, as long as they run.
    tasks: Cell<u8>,
}

impl<S: Stream> Conn<S> {
    pub(crate) fn new(id: ConnId, stream: S) -> Self {
        Self {
            id,
            stream,
            next: RefCell::default(),
            is_paused: Cell::new(false),
            end: Cell::new(None),
            reader: RefCell::default(),
            writer: RefCell::default(),
            tasks: Cell::new(2),
        }
    }

    /// Leaves a write for the writer.
    pub(crate) fn transmit(&self, buffer: Buffer) {
        let before = self.next.replace(Some(buffer));
        debug_assert!(before.is_none(), "one write in flight per connection");
        wake(&self.writer);
    }

    pub(crate) fn set_paused(&self, is_paused: bool) {
        self.is_paused.set(is_paused);
        if !is_paused {
            wake(&self.reader);
        }
    }

    /// Ends it as the worker asks.
    pub(crate) fn close(&self, mode: CloseMode) {
        match mode {
            // The writer shuts the socket down when it has written what is there.
            CloseMode::Flush => self.set_end(CloseReason::Requested),
            CloseMode::Abort => self.fail(CloseReason::Requested),
        }
    }

    /// Ends it at once; the first reason counts.
    pub(crate) fn fail(&self, reason: CloseReason) {
        self.next.take();
        self.stream.shutdown(Shutdown::Both);
        self.set_end(reason);
    }

    fn set_end(&self, reason: CloseReason) {
        if self.end.get().is_none() {
            self.end.set(Some(reason));
        }
        wake(&self.writer);
        wake(&self.reader);
    }

    /// Tells whether it is about to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.end.get().is_some()
    }

    /// Notes that one of its tasks has ended; the last one hears why the connection ends.
    pub(crate) fn leave(&self) -> Option<CloseReason> {
        self.tasks.set(self.tasks.get() - 1);
        let is_last = self.tasks.get() == 0;
        is_last.then(|| self.end.get().unwrap_or(CloseReason::Requested))
    }

    /// Waits while the worker wants no bytes.
    pub(crate) async fn wait_until_wanted(&self) {
        poll_fn(|cx| {
            if !self.is_paused.get() || self.is_ending() {
                return Poll::Ready(());
            }
            self.reader.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Waits for the next write; none at the end.
    pub(crate) async fn next_write(&self) -> Option<Buffer> {
        poll_fn(|cx| {
            let next = self.next.take();
            if next.is_some() || self.is_ending() {
                return Poll::Ready(next);
            }
            // The writer waits here far more often than it changes.
            let mut writer = self.writer.borrow_mut();
            if !writer.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *writer = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = &*waker.borrow() {
        waker.wake_by_ref();
    }
}

/// What is known of a name that the worker issued.
pub(crate) enum Entry<S> {
    /// On its way to a server.
    Connecting(ConnId),
    /// Established.
    Open(Rc<Conn<S>>),
}

impl<S> Entry<S> {
    fn id(&self) -> ConnId {
        match self {
            Self::Connecting(id) => *id,
            Self::Open(conn) => conn.id,
        }
    }
}

/// The connections by their slot; clients and servers have ranges of their own.
pub(crate) struct Table<S> {
    clients: Vec<Option<Entry<S>>>,
    servers: Vec<Option<Entry<S>>>,
}

impl<S> Table<S> {
    pub(crate) const fn new() -> Self {
        Self { clients: Vec::new(), servers: Vec::new() }
    }

    pub(crate) fn insert(&mut self, entry: Entry<S>) {
        let (range, index) = self.locate(entry.id());
        if index >= range.len() {
            range.resize_with(index + 1, || None);
        }
        if let Some(place) = range.get_mut(index) {
            *place = Some(entry);
        }
    }

    pub(crate) fn open(&mut self, id: ConnId) -> Option<&Rc<Conn<S>>> {
        let (range, index) = self.locate(id);
        match range.get(index)?.as_ref()? {
            Entry::Open(conn) if conn.id == id => Some(conn),
            Entry::Open(_) | Entry::Connecting(_) => None,
        }
    }

    /// Forgets the attempt of that name; false if there is none any more.
    pub(crate) fn take_attempt(&mut self, id: ConnId) -> bool {
        let (range, index) = self.locate(id);
        let Some(place) = range.get_mut(index) else { return false };
        place.take_if(|entry| matches!(entry, Entry::Connecting(other) if *other == id)).is_some()
    }

    pub(crate) fn remove(&mut self, id: ConnId) {
        let (range, index) = self.locate(id);
        if let Some(place) = range.get_mut(index) {
            place.take_if(|entry| entry.id() == id);
        }
    }

    fn locate(&mut self, id: ConnId) -> (&mut Vec<Option<Entry<S>>>, usize) {
        let range = if id.is_server() { &mut self.servers } else { &mut self.clients };
        (range, id.index() as usize)
    }
}

/// Translates what ended a connection or an attempt to connect.
pub(crate) fn close_reason(error: &io::Error) -> CloseReason {
    if error.kind() == io::ErrorKind::TimedOut {
        return CloseReason::ConnectTimedOut;
    }
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => CloseReason::Refused,
        Some(libc::ECONNRESET | libc::ECONNABORTED | libc::EPIPE) => CloseReason::Reset,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => {
            CloseReason::Unreachable
        }
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL) => {
            CloseReason::OutOfResources
        }
        Some(number) => CloseReason::Other(number),
        None => CloseReason::Other(libc::EIO),
    }
}
