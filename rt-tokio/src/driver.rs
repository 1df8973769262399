//! The loop: turns of inputs, timers and outputs, and the sleep between them.

use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::Poll;
use std::time::Duration;

use ringkeeper_core::buf::Buffer;
use ringkeeper_core::id::{ChannelId, ConnId, ListenerId};
use ringkeeper_core::io::{
    ChannelSpec, CloseMode, CloseReason, Drive, Endpoint, Host, Input, Output, Parcel, Trouble,
};
use ringkeeper_core::limits::{BATCH_MAX, LATE, RECEIVE_BYTES_MAX};
use ringkeeper_core::time::Instant;
use tokio::time::Sleep;

use crate::Listener;
use crate::conn::{Conn, ConnTable, ReadResult, Stream, WriteResult};
use crate::connect::{self, close_reason, connect_reason};
use crate::datagram::{Channels, Look};
use crate::listen::{self, Accepted, Acceptor};
use crate::mailbox::{Content, Handed, Item, Mailbox};
use crate::poller::{Poller, Readiness, Watched};
use crate::ready::{ReadyQueue, Source};
use crate::resolve::{Answer, Resolver};

/// Clients that one listener takes in one turn; the rest of the backlog waits for the next one, so
/// that a storm of connections does not starve the established ones.
const ACCEPTS_PER_TURN_MAX: usize = 64;

/// Full buffers that one connection may give in one turn, before others have had theirs.
const READS_PER_LOOK: usize = 4;

/// Datagrams that one channel may give in one turn, before others have had theirs.
const DATAGRAMS_PER_LOOK: usize = 64;
/// Turns that are taken while there is something to do before tokio has the thread: its tasks, the
/// resolver's among them, wait for no more than a few milliseconds, and a busy worker does not ask
/// two pollers every time.
const TURNS_MAX: u32 = 8;

/// Ready sockets of a worker with little to do: it goes to sleep after the turn, while a busy one
/// finds more if it asks again, and is spared the way through tokio.
const FEW: usize = 1;

/// A timer may be late by this much: tokio's own granularity. A deadline that moves by less does
/// not touch the timer.
const TIMER_SLACK: Duration = Duration::from_millis(1);

/// Where a deadline beyond the range of the system's clock is put.
const FAR: Duration = Duration::from_secs(3600);

/// What has happened already and the worker does not know yet.
#[derive(Debug)]
enum Completion {
    Sent(ConnId, Buffer),
    Closed(ConnId, CloseReason),
    Released(ConnId),
    Answer(Answer),
    ChannelOpened(ChannelId, Result<(), i32>),
    Trouble(ChannelId, Trouble),
    Item(Item),
}

/// What follows a turn.
enum Next {
    /// Something is left to do; look at the sockets and go on.
    Again,
    /// Sleep until woken.
    Wait,
    /// Stop was asked for.
    Stop,
}

/// One worker and everything that the kernel holds for it.
pub(crate) struct Driver<D, H> {
    drive: D,
    host: H,
    clock: std::time::Instant,
    now: Instant,
    mailbox: Mailbox,
    /// By position; `None` where one was closed.
    acceptors: Vec<Option<Acceptor>>,
    conns: ConnTable,
    /// When attempts to connect run out of time.
    attempts: BTreeSet<(Instant, ConnId)>,
    resolver: Resolver,
    channels: Channels,
    poller: Poller,
    /// What other threads and tasks have for the worker.
    queue: Arc<ReadyQueue>,
    /// What is being worked off, and how far.
    batch: Vec<Source>,
    batch_next: usize,
    /// Sources that are ready or were left with something to do, for the next turn.
    again: Vec<Source>,
    completions: VecDeque<Completion>,
    space: Box<[u8]>,
    timer: Pin<Box<Sleep>>,
    /// When the timer goes off; never later than the next deadline plus the slack.
    timer_at: Option<Instant>,
    is_timer_new: bool,
    is_stopping: bool,
    /// Where connections go that are given away.
    releases: Option<Sender<Handed>>,
}

impl<D: Drive, H: Host> Driver<D, H> {
    /// Takes everything over; must run inside the tokio runtime.
    pub(crate) async fn new(
        drive: D,
        clock: std::time::Instant,
        listeners: Vec<Listener>,
        mut mailbox: Mailbox,
        host: H,
    ) -> io::Result<Self> {
        let queue = ReadyQueue::new(poll_fn(|cx| Poll::Ready(cx.waker().clone())).await);
        // Nothing has been polled yet, so nothing would wake us: look at each once.
        let again = vec![Source::Mailbox];
        mailbox.set_waker(queue.waker(Source::Mailbox));
        let mut driver = Self {
            drive,
            host,
            clock,
            now: Instant::START,
            channels: Channels::new(mailbox.take_opener()),
            mailbox,
            acceptors: Vec::new(),
            conns: ConnTable::default(),
            attempts: BTreeSet::new(),
            resolver: Resolver::new(queue.waker(Source::Resolver)),
            poller: Poller::new()?,
            queue,
            batch: Vec::new(),
            batch_next: 0,
            again,
            completions: VecDeque::new(),
            space: vec![0; RECEIVE_BYTES_MAX].into_boxed_slice(),
            timer: Box::pin(tokio::time::sleep(FAR)),
            timer_at: None,
            is_timer_new: false,
            is_stopping: false,
            releases: None,
        };
        listeners.into_iter().try_for_each(|listener| driver.listen(listener))?;
        Ok(driver)
    }

    /// Runs until stopped.
    ///
    /// # Errors
    ///
    /// The kernel refuses to say which sockets are ready.
    pub(crate) async fn run(&mut self) -> io::Result<()> {
        let (mut found, mut turns_left) = (0, TURNS_MAX);
        loop {
            match self.turn() {
                Next::Stop => return Ok(()),
                Next::Wait if found <= FEW => {
                    self.wait().await;
                    turns_left = TURNS_MAX;
                }
                Next::Wait | Next::Again if turns_left == 0 => {
                    // Deferred by tokio until it has looked after its own descriptors.
                    tokio::task::yield_now().await;
                    turns_left = TURNS_MAX;
                }
                Next::Wait | Next::Again => turns_left -= 1,
            }
            found = self.look()?;
        }
    }

    /// Asks the poller which sockets are ready and puts them into the next turn; returns
    /// how many there were.
    fn look(&mut self) -> io::Result<usize> {
        let Self { poller, conns, again, .. } = self;
        poller.take(|owner, ready: Readiness| match owner {
            Watched::Conn(slot) => {
                let Some(conn) = conns.slot_mut(slot) else { return };
                conn.note(ready);
                if conn.set_queued() {
                    again.push(Source::Conn(slot));
                }
            }
            Watched::Listener(index) => again.push(Source::Listener(index)),
        })
    }

    /// Inputs, then timers, then outputs: every read of the turn comes before any write, so that
    /// a connection gets one write for all that the turn made for it.
    fn turn(&mut self) -> Next {
        self.now = Instant::from_duration(self.clock.elapsed());
        self.expire_attempts();
        self.wake_rested_acceptors();
        let is_worked_off = self.handle_inputs();
        if self.is_stopping {
            return Next::Stop;
        }
        if let Some(deadline) = self.drive.poll_timeout()
            && deadline.at <= self.now
        {
            let is_late = self.now - deadline.at >= LATE;
            if is_late || !is_worked_off || self.drive.reads_first(self.now) {
                self.read_channels();
            }
            self.drive.handle_timeout(self.now);
        }
        self.perform_outputs();
        // The kernel takes most writes at once. Their buffers go home before the sleep, and what
        // the worker has to say to that leaves too.
        if !self.completions.is_empty() {
            self.handle_completions(BATCH_MAX);
            self.perform_outputs();
        }
        if is_worked_off && self.again.is_empty() && self.completions.is_empty() {
            Next::Wait
        } else {
            Next::Again
        }
    }

    /// Hands over at most `BATCH_MAX` inputs; tells whether that was all.
    fn handle_inputs(&mut self) -> bool {
        let mut left = self.handle_completions(BATCH_MAX);
        // What an earlier turn could not finish goes first: nobody waits more than once.
        left = self.work_off_batch(left);
        if self.batch_next < self.batch.len() {
            return false;
        }
        self.batch.clear();
        self.batch_next = 0;
        self.queue.take(&mut self.batch);
        self.batch.append(&mut self.again);
        self.work_off_batch(left);
        self.batch_next == self.batch.len()
    }

    /// Looks at no more than `left` sources of the batch; returns how many could still follow.
    fn work_off_batch(&mut self, mut left: usize) -> usize {
        while left > 0
            && let Some(source) = self.batch.get(self.batch_next).copied()
        {
            self.batch_next += 1;
            left -= 1;
            match source {
                Source::Conn(slot) => left -= self.handle_conn(slot, left),
                Source::Listener(index) => self.handle_listener(index),
                Source::Mailbox => self.handle_mail(),
                Source::Resolver => self.handle_answers(),
                Source::Channel(channel) => self.handle_channel(channel),
            }
        }
        left
    }

    /// Tells the worker what became of its writes and connections; returns how many inputs could
    /// still follow of `left`.
    fn handle_completions(&mut self, mut left: usize) -> usize {
        while left > 0
            && let Some(completion) = self.completions.pop_front()
        {
            left -= 1;
            let input = match completion {
                Completion::Sent(conn, buffer) => Input::Sent { conn, buffer },
                Completion::Closed(conn, reason) => Input::Closed { conn, reason },
                Completion::Released(conn) => Input::Released { conn },
                Completion::Answer(Answer { query, result }) => Input::Resolved { query, result },
                Completion::ChannelOpened(channel, result) => {
                    Input::ChannelOpened { channel, result }
                }
                Completion::Trouble(channel, trouble) => Input::Trouble { channel, trouble },
                Completion::Item(Item::Mail(mail)) => mail.into(),
                Completion::Item(item) => {
                    self.handle_item(item);
                    continue;
                }
            };
            self.drive.handle(self.now, input);
        }
        left
    }

    /// Goes on with whatever the connection in `slot` waits for. One input may come of it and up
    /// to `extra` more; returns how many of those came.
    fn handle_conn(&mut self, slot: u32, extra: usize) -> usize {
        // Closed while its waker was in the queue, or somebody else by now: then in vain.
        let Some(conn) = self.conns.slot_mut(slot) else { return 0 };
        conn.clear_queued();
        let id = conn.id();
        if conn.is_connecting() {
            let result = match conn.poll_connect() {
                Poll::Pending => return 0,
                Poll::Ready(result) => result,
            };
            self.attempts.retain(|(_, attempt)| *attempt != id);
            if let Err(error) = result {
                self.fail(id, connect_reason(&error));
                return 0;
            }
            let local = conn.local_address();
            self.drive.handle(self.now, Input::Connected { conn: id, local });
            // One input per look, as the turn counts them.
            self.look_again(id);
            return 0;
        }
        if conn.is_writing() {
            match conn.resume_write() {
                WriteResult::Blocked => {}
                WriteResult::Done(buffer) => {
                    self.completions.push_back(Completion::Sent(id, buffer));
                    if conn.is_closing() {
                        self.finish(id);
                        return 0;
                    }
                }
                WriteResult::Failed(error) => {
                    self.fail(id, close_reason(&error));
                    return 0;
                }
            }
        }
        self.read(id, extra)
    }

    /// Reads what has come, again while the buffer is filled: large replies then cost a turn for
    /// several buffers, not for each. Returns how many reads there were beyond the first.
    fn read(&mut self, id: ConnId, extra: usize) -> usize {
        let most = extra.min(READS_PER_LOOK - 1);
        for reads in 0..=most {
            let Some(conn) = self.conns.get_mut(id) else { return reads };
            if !conn.wants_read() {
                return reads;
            }
            match conn.read(&mut self.space) {
                ReadResult::Blocked => {}
                ReadResult::Again => self.look_again(id),
                ReadResult::Bytes(count) => {
                    let bytes = self.space.get(..count).unwrap_or_default();
                    self.drive.handle(self.now, Input::Received { conn: id, bytes });
                    let is_full = count == self.space.len();
                    if is_full && reads < most {
                        continue;
                    }
                    // The worker may have ended it.
                    if self.conns.get_mut(id).is_some_and(|conn| conn.wants_read()) {
                        self.look_again(id);
                    }
                }
                ReadResult::Eof => self.drive.handle(self.now, Input::Eof { conn: id }),
                ReadResult::Failed(error) => self.fail(id, close_reason(&error)),
            }
            return reads;
        }
        most
    }

    fn handle_listener(&mut self, index: u16) {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            let acceptor = self.acceptors.get_mut(usize::from(index)).and_then(Option::as_mut);
            let Some(acceptor) = acceptor else { return };
            match acceptor.accept(self.now) {
                Accepted::Blocked => return,
                Accepted::Again => {}
                Accepted::Client(stream, peer) => {
                    let listener = acceptor.id();
                    self.admit(listener, stream, peer);
                }
            }
        }
        self.again.push(Source::Listener(index));
    }

    fn admit(&mut self, listener: ListenerId, stream: Stream, peer: Endpoint) {
        // A worker at capacity: dropping the socket closes it.
        let Ok(id) = self.drive.accept(self.now, listener, peer) else { return };
        self.insert(Conn::new(id, stream, false));
    }

    fn handle_mail(&mut self) {
        let Content { items, stop } = self.mailbox.take();
        self.is_stopping = stop;
        self.completions.extend(items.into_iter().map(Completion::Item));
    }

    /// Does what the runtime itself was told.
    fn handle_item(&mut self, item: Item) {
        match item {
            Item::Mail(mail) => self.drive.handle(self.now, mail.into()),
            // Its descriptor is one too many for the kernel: the host's clients will tell.
            Item::Listen(listener) => drop(self.listen(listener)),
            // Dropped when it is done.
            Item::Unlisten(id, _done) => self.unlisten(id),
            Item::Client { listener, socket, state: None } => {
                if let Ok((stream, peer)) = listen::stream(socket) {
                    self.admit(listener, stream, peer);
                }
            }
            Item::Client { listener, socket, state: Some(state) } => {
                if let Ok((stream, _)) = listen::stream(socket)
                    && let Ok(id) = self.drive.adopt(self.now, listener, &state)
                {
                    self.insert(Conn::new(id, stream, false));
                }
            }
            Item::Releases(to) => self.releases = Some(to),
        }
    }

    /// Begins to take clients from a listener.
    fn listen(&mut self, listener: Listener) -> io::Result<()> {
        let free = self.acceptors.iter().position(Option::is_none);
        let place = free.unwrap_or(self.acceptors.len());
        let index = u16::try_from(place).map_err(io::Error::other)?;
        let acceptor = Acceptor::new(listener, index, &self.poller)?;
        match self.acceptors.get_mut(place) {
            Some(free) => *free = Some(acceptor),
            None => self.acceptors.push(Some(acceptor)),
        }
        Ok(())
    }

    /// Takes the clients that the kernel has accepted for a listener, then closes it.
    fn unlisten(&mut self, id: ListenerId) {
        let mine = |place: &&mut Option<Acceptor>| place.as_ref().is_some_and(|a| a.id() == id);
        let Some(mut acceptor) = self.acceptors.iter_mut().find(mine).and_then(Option::take) else {
            return;
        };
        acceptor.forget(&self.poller);
        while let Some((stream, peer)) = acceptor.take_waiting() {
            self.admit(id, stream, peer);
        }
    }

    fn handle_answers(&mut self) {
        self.completions.extend(self.resolver.take().into_iter().map(Completion::Answer));
    }

    /// Hands over what waits in every channel, announced or not.
    fn read_channels(&mut self) {
        let mut position = 0;
        while let Some(channel) = self.channels.at(position) {
            position += 1;
            self.read_channel(channel);
        }
    }

    /// Reads a channel that became readable, and has it announced again.
    fn handle_channel(&mut self, channel: ChannelId) {
        let is_empty = self.read_channel(channel);
        if !is_empty || self.channels.arm(channel) {
            self.again.push(Source::Channel(channel));
        }
    }

    /// Hands over what waits in a channel; tells whether that was all.
    fn read_channel(&mut self, channel: ChannelId) -> bool {
        for _ in 0..DATAGRAMS_PER_LOOK {
            let trouble = match self.channels.read(channel, &mut self.space) {
                Look::Blocked => return true,
                Look::Bytes(count) => {
                    let bytes = self.space.get(..count).unwrap_or_default();
                    self.drive.handle(self.now, Input::Datagram { channel, bytes });
                    continue;
                }
                Look::Lost => Trouble::Lost,
                Look::Ended(errno) => Trouble::Ended(errno),
            };
            self.drive.handle(self.now, Input::Trouble { channel, trouble });
        }
        false
    }

    fn open_channel(&mut self, channel: ChannelId, spec: &ChannelSpec) {
        let source = Source::Channel(channel);
        let result = self.channels.open(channel, spec, self.queue.waker(source));
        self.completions.push_back(Completion::ChannelOpened(channel, result));
        self.again.push(source);
    }

    fn perform_outputs(&mut self) {
        while let Some(output) = self.drive.poll_output() {
            match output {
                Output::Transmit { conn, buffer } => self.transmit(conn, buffer),
                Output::Connect { conn, endpoint, timeout, source } => {
                    self.connect(conn, &endpoint, source, timeout);
                }
                Output::PauseRead(conn) => {
                    if let Some(conn) = self.conns.get_mut(conn) {
                        conn.set_paused(true);
                    }
                }
                Output::ResumeRead(id) => {
                    if let Some(conn) = self.conns.get_mut(id) {
                        conn.set_paused(false);
                        // What came meanwhile was told in vain.
                        self.look_again(id);
                    }
                }
                Output::Close { conn, mode } => self.close(conn, mode),
                Output::Release { conn, state } => self.release(conn, state),
                Output::EndWrite(conn) => self.end_write(conn),
                Output::Resolve { query, host, port } => self.resolver.ask(query, host, port),
                Output::Event(event) => self.host.event(event),
                Output::Errand(errand) => self.host.errand(errand),
                Output::Notice { to, notice } => self.host.notice(to, notice),
                Output::OpenChannel { channel, spec } => self.open_channel(channel, &spec),
                Output::CloseChannel(channel) => self.channels.close(channel),
                Output::Datagram { channel, to, bytes } => {
                    if let Err(errno) = self.channels.send(channel, to, &bytes) {
                        let trouble = Trouble::Unsent(errno);
                        self.completions.push_back(Completion::Trouble(channel, trouble));
                    }
                }
            }
        }
    }

    fn transmit(&mut self, id: ConnId, buffer: Buffer) {
        // Broken in this very turn: Closed is on its way and answers the write.
        let Some(conn) = self.conns.get_mut(id) else { return };
        match conn.write(buffer) {
            WriteResult::Blocked => {}
            WriteResult::Done(buffer) => self.completions.push_back(Completion::Sent(id, buffer)),
            WriteResult::Failed(error) => self.fail(id, close_reason(&error)),
        }
    }

    fn connect(
        &mut self,
        id: ConnId,
        endpoint: &Endpoint,
        source: Option<IpAddr>,
        timeout: Duration,
    ) {
        match connect::start(endpoint, source) {
            Ok(stream) => {
                self.insert(Conn::new(id, stream, true));
                self.attempts.insert((self.now + timeout, id));
            }
            Err(error) => {
                self.completions.push_back(Completion::Closed(id, connect_reason(&error)));
            }
        }
    }

    /// Takes a connection in. A kernel that won't watch it has ended it.
    fn insert(&mut self, mut conn: Conn) {
        let id = conn.id();
        match conn.watch(&self.poller) {
            Ok(()) => self.conns.insert(conn),
            Err(error) => {
                self.completions.push_back(Completion::Closed(id, close_reason(&error)));
            }
        }
    }

    /// Takes a connection out.
    fn remove(&mut self, id: ConnId) -> Option<Conn> {
        let mut conn = self.conns.remove(id)?;
        conn.forget(&self.poller);
        Some(conn)
    }

    fn end_write(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Err(error) = conn.end_write() {
            self.fail(id, close_reason(&error));
        }
    }

    fn close(&mut self, id: ConnId, mode: CloseMode) {
        // Unknown: it broke before the worker could hear of it, and Closed is on its way.
        let Some(conn) = self.conns.get_mut(id) else { return };
        match mode {
            CloseMode::Flush if conn.is_writing() && !conn.is_connecting() => conn.set_closing(),
            CloseMode::Flush => self.finish(id),
            CloseMode::Abort => {
                conn.set_closing();
                conn.set_reset();
                self.fail(id, CloseReason::Requested);
            }
        }
    }

    /// Gives a connection away. Nothing of it is under way: reads and writes end where they begin.
    fn release(&mut self, id: ConnId, state: Parcel) {
        if self.releases.is_none() {
            return self.finish(id);
        }
        let Some(conn) = self.remove(id) else { return };
        let handed = Handed { socket: conn.into_socket(), state, late: Vec::new() };
        let is_taken = self.releases.as_ref().is_some_and(|to| to.send(handed).is_ok());
        self.completions.push_back(if is_taken {
            Completion::Released(id)
        } else {
            Completion::Closed(id, CloseReason::Requested)
        });
    }

    /// Ends a connection with nothing more to write.
    fn finish(&mut self, id: ConnId) {
        if let Some(conn) = self.remove(id) {
            self.attempts.retain(|(_, attempt)| *attempt != id);
            conn.finish(&mut self.space);
            self.completions.push_back(Completion::Closed(id, CloseReason::Requested));
        }
    }

    /// Ends a connection at once; what was in flight is dropped.
    fn fail(&mut self, id: ConnId, reason: CloseReason) {
        if let Some(conn) = self.remove(id) {
            self.attempts.retain(|(_, attempt)| *attempt != id);
            let reason = if conn.is_closing() { CloseReason::Requested } else { reason };
            self.completions.push_back(Completion::Closed(id, reason));
        }
    }

    /// Puts the connection into the next turn, once.
    fn look_again(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && conn.set_queued()
        {
            self.again.push(Source::Conn(id.slot()));
        }
    }

    fn expire_attempts(&mut self) {
        while let Some((at, id)) = self.attempts.first().copied()
            && at <= self.now
        {
            self.attempts.pop_first();
            self.fail(id, CloseReason::ConnectTimedOut);
        }
    }

    fn wake_rested_acceptors(&mut self) {
        for (index, acceptor) in (0..=u16::MAX).zip(&mut self.acceptors) {
            if acceptor.as_mut().is_some_and(|acceptor| acceptor.wake_if_rested(self.now)) {
                self.again.push(Source::Listener(index));
            }
        }
    }

    /// Sleeps until a socket or another source is ready, or the next deadline.
    async fn wait(&mut self) {
        self.set_timer();
        let mut has_slept = false;
        poll_fn(|cx| {
            // Polling leaves our waker with the timer; it stays there until the timer goes off.
            if std::mem::take(&mut self.is_timer_new) && self.timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if self.poller.poll_ready(cx).is_ready() {
                return Poll::Ready(());
            }
            if std::mem::replace(&mut has_slept, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Makes sure that the timer goes off at the next deadline. It is left alone when it goes off
    /// earlier: the deadlines of a busy worker move ahead with every turn, and one wake-up too
    /// many per time-out is cheaper than moving the timer along.
    fn set_timer(&mut self) {
        let resting = self.acceptors.iter().flatten().filter_map(Acceptor::retry_at);
        let deadline = self.drive.poll_timeout().map(|deadline| deadline.at);
        let attempt = self.attempts.first().map(|(at, _)| *at);
        let Some(at) = resting.chain(deadline).chain(attempt).min() else { return };
        if self.timer_at.is_some_and(|timer_at| timer_at > self.now && timer_at <= at + TIMER_SLACK)
        {
            return;
        }
        self.timer_at = Some(at);
        self.is_timer_new = true;
        let at =
            self.clock.checked_add(at.since(Instant::START)).unwrap_or_else(|| self.clock + FAR);
        self.timer.as_mut().reset(at.into());
    }
}
