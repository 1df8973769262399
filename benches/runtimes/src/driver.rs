//! Turns of inputs, timers and outputs, made of tasks.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{CloseReason, Drive, Endpoint, Input, Output, ResolveError};
use ringkeeper_core::limits::BATCH_MAX;
use ringkeeper_core::node::Worker;
use ringkeeper_core::time::Instant;

use crate::conn::{Conn, Entry, Table, close_reason};
use crate::{Host, Runtime, Stream};

/// How long a listener rests when the kernel has no descriptor for another connection.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
/// A timer may be late by this much; a deadline that moves by less does not touch it.
const TIMER_SLACK: Duration = Duration::from_millis(1);
/// How long the timer sleeps when the worker has no deadline.
const FAR: Duration = Duration::from_secs(60);
/// Reads that a flushing close makes to throw away what the other side had still sent: closing
/// with unread bytes resets the connection, and a reset can overtake the last reply.
const DISCARDED_READS_MAX: usize = 4;

/// One worker on one runtime. Never borrowed over an `await` nor over a call that runs tasks.
pub struct Driver<R: Runtime> {
    worker: RefCell<Worker>,
    table: RefCell<Table<R::Stream>>,
    start: std::time::Instant,
    now: Cell<Instant>,
    /// Inputs of the turn so far; none means that no turn is open.
    inputs: Cell<usize>,
    /// The task that ends turns.
    speaker: RefCell<Option<Waker>>,
    timer: RefCell<Option<Waker>>,
    /// When the timer goes off.
    timer_at: Cell<Instant>,
    is_timer_moved: Cell<bool>,
}

impl<R: Runtime> Driver<R> {
    /// Serves clients for ever.
    ///
    /// # Errors
    ///
    /// The system refuses a listening socket.
    pub async fn run(host: Host) -> io::Result<()> {
        let Host { worker, start, listens, options: _ } = host;
        let driver = Rc::new(Self {
            worker: RefCell::new(worker),
            table: RefCell::new(Table::new()),
            start,
            now: Cell::new(Instant::START),
            inputs: Cell::new(0),
            speaker: RefCell::default(),
            timer: RefCell::default(),
            timer_at: Cell::new(Instant::START),
            is_timer_moved: Cell::new(false),
        });
        for (index, address) in (0..=u16::MAX).zip(listens) {
            let listener = R::listen(address)?;
            R::spawn(Rc::clone(&driver).accept_clients(ListenerId(index), listener));
        }
        R::spawn(Rc::clone(&driver).speak());
        R::spawn(Rc::clone(&driver).keep_time());
        // What the worker wants before its first input: connections to its servers.
        driver.sample_clock();
        driver.end_turn();
        pending().await
    }

    fn sample_clock(&self) {
        self.now.set(Instant::from_duration(self.start.elapsed()));
    }

    /// Tells the worker something; the first input of a turn reads the clock and calls the
    /// speaker, the last one that fits ends the turn here.
    fn handle(self: &Rc<Self>, input: Input<'_>) {
        self.count_input();
        self.worker.borrow_mut().handle(self.now.get(), input);
        if self.inputs.get() >= BATCH_MAX {
            self.end_turn();
        }
    }

    fn count_input(&self) {
        let inputs = self.inputs.get();
        if inputs == 0 {
            self.sample_clock();
            if let Some(speaker) = &*self.speaker.borrow() {
                speaker.wake_by_ref();
            }
        }
        self.inputs.set(inputs + 1);
    }

    /// Ends a turn each time one has begun.
    async fn speak(self: Rc<Self>) {
        poll_fn(|cx| {
            let mut speaker = self.speaker.borrow_mut();
            if !speaker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *speaker = Some(cx.waker().clone());
            }
            drop(speaker);
            if self.inputs.get() > 0 {
                self.end_turn();
            }
            Poll::<()>::Pending
        })
        .await;
    }

    /// Timers, then outputs.
    fn end_turn(self: &Rc<Self>) {
        self.inputs.set(0);
        let mut worker = self.worker.borrow_mut();
        if worker.poll_timeout().is_some_and(|deadline| deadline.at <= self.now.get()) {
            worker.handle_timeout(self.now.get());
        }
        drop(worker);
        loop {
            let output = self.worker.borrow_mut().poll_output();
            let Some(output) = output else { break };
            self.perform(output);
        }
        let deadline = self.worker.borrow().poll_timeout();
        if deadline.is_some_and(|deadline| deadline.at + TIMER_SLACK < self.timer_at.get()) {
            self.is_timer_moved.set(true);
            if let Some(timer) = &*self.timer.borrow() {
                timer.wake_by_ref();
            }
        }
    }

    fn perform(self: &Rc<Self>, output: Output) {
        match output {
            Output::Transmit { conn, buffer } => self.with(conn, |conn| conn.transmit(buffer)),
            // Pools leave their end of it to the kernel.
            Output::Connect { conn, endpoint, timeout, source: _ } => {
                self.connect(conn, endpoint, timeout);
            }
            Output::PauseRead(conn) => self.with(conn, |conn| conn.set_paused(true)),
            Output::ResumeRead(conn) => self.with(conn, |conn| conn.set_paused(false)),
            Output::Release { conn, .. } => eprintln!("not given away: {conn:?}"),
            Output::EndWrite(conn) => eprintln!("not ended: {conn:?}"),
            Output::Close { conn, mode } => {
                if self.table.borrow_mut().take_attempt(conn) {
                    // The attempt goes on in the kernel and nobody waits for it.
                    self.handle(Input::Closed { conn, reason: CloseReason::Requested });
                }
                self.with(conn, |conn| conn.close(mode));
            }
            Output::Resolve { query, .. } => {
                self.handle(Input::Resolved { query, result: Err(ResolveError::NotFound) });
            }
            Output::Event(event) => eprintln!("{event:?}"),
            Output::Errand(errand) => eprintln!("not done: {errand:?}"),
            Output::Notice { notice, .. } => eprintln!("not passed on: {notice:?}"),
                Output::OpenChannel { .. } | Output::CloseChannel(_) | Output::Datagram { .. } => {
                    panic!("the proxy has no channels")
                }
        }
    }

    /// Does something with an established connection; one that broke meanwhile has its `Closed`
    /// on the way.
    fn with(&self, id: ConnId, act: impl FnOnce(&Conn<R::Stream>)) {
        let conn = self.table.borrow_mut().open(id).map(Rc::clone);
        if let Some(conn) = conn.filter(|conn| !conn.is_ending()) {
            act(&conn);
        }
    }

    fn connect(self: &Rc<Self>, id: ConnId, endpoint: Endpoint, timeout: Duration) {
        let address = match endpoint {
            Endpoint::Tcp(address) => address,
            Endpoint::Unix(_) => {
                let reason = CloseReason::NotFound;
                return self.handle(Input::Closed { conn: id, reason });
            }
        };
        self.table.borrow_mut().insert(Entry::Connecting(id));
        let driver = Rc::clone(self);
        R::spawn(async move {
            let result = R::connect(address, timeout).await;
            if !driver.table.borrow_mut().take_attempt(id) {
                return;
            }
            match result {
                Ok(stream) => {
                    driver.open(id, stream);
                    driver.handle(Input::Connected { conn: id, local: None });
                }
                Err(error) => {
                    let reason = close_reason(&error);
                    driver.handle(Input::Closed { conn: id, reason });
                }
            }
        });
    }

    async fn accept_clients(self: Rc<Self>, on: ListenerId, listener: R::Listener) {
        loop {
            let Ok((stream, peer)) = R::accept(&listener).await else {
                R::sleep(ACCEPT_BACK_OFF).await;
                continue;
            };
            self.count_input();
            let peer = Endpoint::Tcp(peer);
            let result = self.worker.borrow_mut().accept(self.now.get(), on, peer);
            // A worker at capacity: dropping the socket closes it.
            let Ok(id) = result else { continue };
            self.open(id, stream);
        }
    }

    fn open(self: &Rc<Self>, id: ConnId, stream: R::Stream) {
        let conn = Rc::new(Conn::new(id, stream));
        self.table.borrow_mut().insert(Entry::Open(Rc::clone(&conn)));
        R::spawn(Rc::clone(self).read(Rc::clone(&conn)));
        R::spawn(Rc::clone(self).write(conn));
    }

    async fn read(self: Rc<Self>, conn: Rc<Conn<R::Stream>>) {
        let id = conn.id;
        let mut discarded = 0;
        while discarded < DISCARDED_READS_MAX {
            conn.wait_until_wanted().await;
            let take = |bytes: &[u8]| {
                if !conn.is_ending() {
                    self.handle(Input::Received { conn: id, bytes });
                }
            };
            match conn.stream.read(take).await {
                Ok(0) => {
                    if !conn.is_ending() {
                        self.handle(Input::Eof { conn: id });
                    }
                    break;
                }
                Ok(_) => discarded += usize::from(conn.is_ending()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    conn.fail(close_reason(&error));
                    break;
                }
            }
        }
        self.leave(&conn);
    }

    async fn write(self: Rc<Self>, conn: Rc<Conn<R::Stream>>) {
        while let Some(buffer) = conn.next_write().await {
            let (result, buffer) = conn.stream.write_all(buffer).await;
            if let Err(error) = result {
                conn.fail(close_reason(&error));
                break;
            }
            self.handle(Input::Sent { conn: conn.id, buffer });
        }
        conn.stream.shutdown(Shutdown::Both);
        self.leave(&conn);
    }

    fn leave(self: &Rc<Self>, conn: &Rc<Conn<R::Stream>>) {
        if let Some(reason) = conn.leave() {
            self.table.borrow_mut().remove(conn.id);
            self.handle(Input::Closed { conn: conn.id, reason });
        }
    }

    /// Opens a turn whenever a deadline is reached.
    async fn keep_time(self: Rc<Self>) {
        loop {
            let deadline = self.worker.borrow().poll_timeout();
            self.sample_clock();
            let far = self.now.get() + FAR;
            let at = deadline.map_or(far, |deadline| deadline.at.min(far));
            self.timer_at.set(at);
            let mut sleep = Box::pin(R::sleep(at.since(self.now.get())));
            poll_fn(|cx| {
                self.timer.replace(Some(cx.waker().clone()));
                if self.is_timer_moved.take() { Poll::Ready(()) } else { sleep.as_mut().poll(cx) }
            })
            .await;
            self.sample_clock();
            self.end_turn();
        }
    }
}
