//! The loop: what the kernel has goes to the drive, what the drive wants goes to the kernel.

mod channels;
mod close;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::Sender;
use std::time::Duration;

use socket2::Socket;

use ringkeeper_core::buf::Buffer;
use ringkeeper_core::id::{ChannelId, ConnId, ListenerId, QueryId};
use ringkeeper_core::io::{
    CloseMode, CloseReason, Drive, Endpoint, Host, Input, Output, Parcel, ResolveError,
};
use ringkeeper_core::limits::{BATCH_MAX, READS_IN_FLIGHT};
use ringkeeper_core::time::Instant;

use self::channels::ChannelNews;
use crate::Listener;
use crate::buffer::Chunk;
use crate::datagram::Channels;
use crate::mailbox::{Handed, Item, Mailbox};
use crate::resolver::Resolver;
use crate::ring::{Completion, Options, Ring};
use crate::socket;
use crate::stash::{Next, Stash};
use crate::table::{Phase, Receive, Table};

/// Longest sleep. Nothing depends on it; a lost wake-up would show as this delay instead of as a
/// standstill.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// How long a listener rests after the kernel had no descriptor or memory for a client. Accepting
/// at once again would fail again and take the processor from the clients that are there.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Drives `drive` on the current thread until [`Message::Stop`](crate::Message::Stop), with the best ring that the
/// kernel gives. The drive's clock starts at `start`; `host` serves what is not the runtime's
/// business.
///
/// After that everything in flight is cancelled and reaped and every socket is closed; the drive
/// hears nothing of it.
///
/// # Errors
///
/// When there is no ring to be had ([`probe`](crate::probe()) says why), or it breaks down.
pub fn run<D: Drive>(
    drive: D,
    start: std::time::Instant,
    listeners: Vec<Listener>,
    mailbox: Mailbox,
    host: impl Host,
) -> io::Result<()> {
    let (ring, _) = Ring::best()?;
    Driver::new(ring, drive, start, listeners, mailbox, host)?.run()
}

/// Like [`run`], with a ring made to measure.
///
/// # Errors
///
/// Like [`run`]; nothing smaller is tried.
pub fn run_with<D: Drive>(
    options: Options,
    drive: D,
    start: std::time::Instant,
    listeners: Vec<Listener>,
    mailbox: Mailbox,
    host: impl Host,
) -> io::Result<()> {
    let ring = Ring::new(&options)?;
    Driver::new(ring, drive, start, listeners, mailbox, host)?.run()
}

/// How a connection has ended.
#[derive(Clone, Copy, Debug)]
enum End {
    Closed(CloseReason),
    Released,
}

/// A listener and when it may accept again.
struct Listening {
    listener: Listener,
    rests_until: Option<Instant>,
    /// Closed as soon as its accept has come back; dropped then.
    closing: Option<Sender<()>>,
}

struct Driver<D, H> {
    // Before the sockets: the ring cancels what is in flight on them when it is dropped.
    ring: Ring,
    drive: D,
    host: H,
    table: Table,
    /// By position; `None` where one was closed.
    listeners: Vec<Option<Listening>>,
    mailbox: Mailbox,
    has_mail: bool,
    resolver: Resolver,
    /// Questions that the resolver had no room for.
    unasked: VecDeque<QueryId>,
    /// When connects time out; those that have ended meanwhile are skipped.
    connects: BinaryHeap<Reverse<(Instant, ConnId)>>,
    channels: Channels,
    /// Channels that are to be looked at.
    readable: VecDeque<ChannelId>,
    /// What became of channels and is still to be told.
    channel_news: VecDeque<(ChannelId, ChannelNews)>,
    /// Where datagrams are read to; empty until there is a channel.
    space: Vec<u8>,
    /// Connections that are gone and whose `Closed` is still to be told.
    ended: VecDeque<(ConnId, End)>,
    /// Connections that are being given away: what the worker knows of them, and what came late.
    releasing: BTreeMap<ConnId, (Parcel, Vec<u8>)>,
    /// Where connections go that are given away.
    releases: Option<Sender<Handed>>,
    stash: Stash,
    /// Connections that read again and have bytes in the stash.
    resumed: VecDeque<ConnId>,
    start: std::time::Instant,
    now: Instant,
    is_stopping: bool,
}

impl<D: Drive, H: Host> Driver<D, H> {
    fn new(
        mut ring: Ring,
        drive: D,
        start: std::time::Instant,
        listeners: Vec<Listener>,
        mut mailbox: Mailbox,
        host: H,
    ) -> io::Result<Self> {
        ring.poll_wake(mailbox.wake());
        let mut driver = Self {
            ring,
            drive,
            host,
            table: Table::default(),
            listeners: Vec::new(),
            resolver: Resolver::new(mailbox.sender()),
            channels: Channels::new(mailbox.take_opener()),
            readable: VecDeque::new(),
            channel_news: VecDeque::new(),
            space: Vec::new(),
            mailbox,
            has_mail: false,
            unasked: VecDeque::new(),
            connects: BinaryHeap::new(),
            ended: VecDeque::new(),
            releasing: BTreeMap::new(),
            releases: None,
            stash: Stash::default(),
            resumed: VecDeque::new(),
            start,
            now: Instant::from_duration(start.elapsed()),
            is_stopping: false,
        };
        listeners.into_iter().try_for_each(|listener| driver.listen(listener))?;
        Ok(driver)
    }

    fn run(mut self) -> io::Result<()> {
        // The drive may want something before anything has happened.
        self.take_outputs();
        while !self.is_stopping {
            let timeout = self.timeout();
            self.ring.enter(timeout)?;
            self.now = Instant::from_duration(self.start.elapsed()).max(self.now);
            self.give_inputs();
            self.expire();
            if let Some(deadline) = self.drive.poll_timeout()
                && deadline.at <= self.now
            {
                if self.must_read_channels(deadline.at) {
                    self.read_channels();
                }
                self.drive.handle_timeout(self.now);
            }
            self.take_outputs();
        }
        // Dropping the ring would do the same; here it is said.
        self.ring.quiesce();
        Ok(())
    }

    /// Returns how long the kernel may let us wait.
    fn timeout(&self) -> Duration {
        let is_busy = self.ring.has_batch()
            || self.has_mail
            || !self.ended.is_empty()
            || !self.readable.is_empty()
            || !self.channel_news.is_empty()
            || !self.unasked.is_empty()
            || !self.resumed.is_empty();
        if is_busy {
            return Duration::ZERO;
        }
        let mut timeout = SLEEP_MAX;
        if let Some(deadline) = self.drive.poll_timeout() {
            timeout = timeout.min(deadline.at - self.now);
        }
        if let Some(Reverse((at, _))) = self.connects.peek() {
            timeout = timeout.min(*at - self.now);
        }
        for at in self.listeners.iter().flatten().filter_map(|listening| listening.rests_until) {
            timeout = timeout.min(at - self.now);
        }
        timeout
    }

    // Inputs.

    /// Tells the drive at most `BATCH_MAX` inputs.
    ///
    /// A step is at most one input. Steps are counted and not inputs: a receive that found no
    /// buffer is none, and may fail again and again until the next `enter` offers the buffers.
    fn give_inputs(&mut self) {
        for _ in 0..BATCH_MAX {
            if let Some((conn, end)) = self.ended.pop_front() {
                self.tell(match end {
                    End::Closed(reason) => Input::Closed { conn, reason },
                    End::Released => Input::Released { conn },
                });
            } else if let Some(conn) = self.resumed.pop_front() {
                self.tell_stashed(conn);
            } else if let Some(query) = self.unasked.pop_front() {
                self.tell(Input::Resolved { query, result: Err(ResolveError::Temporary) });
            } else if let Some((channel, news)) = self.channel_news.pop_front() {
                self.tell_channel(channel, news);
            } else if self.has_mail {
                self.read_mail();
            } else if let Some(completion) = self.ring.next() {
                self.handle_completion(completion);
            } else {
                break;
            }
        }
        self.read_readable();
    }

    fn tell(&mut self, input: Input<'_>) {
        self.drive.handle(self.now, input);
    }

    fn handle_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Received { conn, chunk, result, has_more } => {
                self.handle_received(conn, chunk, result, has_more);
            }
            Completion::Sent { conn, buffer, offset, result } => {
                self.handle_sent(conn, buffer, offset, result);
            }
            Completion::Accepted { listener, result, has_more } => {
                self.handle_accepted(listener, result, has_more);
            }
            Completion::Connected { conn, result } => self.handle_connected(conn, result),
            Completion::Cancelled { conn, result } => self.handle_cancelled(conn, result),
            Completion::Readable { channel, has_more } => self.note_readable(channel, has_more),
            Completion::Woken { has_more } => {
                self.mailbox.hush();
                self.has_mail = true;
                if !has_more {
                    self.ring.poll_wake(self.mailbox.wake());
                }
            }
        }
    }

    fn handle_received(&mut self, conn: ConnId, chunk: Option<Chunk>, result: i32, has_more: bool) {
        let Some(connection) = self.table.get_mut(conn) else {
            debug_assert!(false, "a receive outlived its connection");
            return self.give_back(chunk);
        };
        if !has_more {
            connection.receive = Receive::Idle;
        }
        if connection.phase == Phase::Releasing {
            return self.handle_late(conn, chunk, has_more);
        }
        if connection.phase != Phase::Open {
            // The worker has closed it: nobody wants the bytes, and their end changes nothing.
            self.give_back(chunk);
            if !has_more {
                self.settle(conn);
            }
            return;
        }
        if let Some(chunk) = chunk {
            if !connection.is_reading || connection.is_stashed {
                self.tell_late(conn, chunk);
            } else {
                // Field by field, because the bytes stay lent from the ring.
                let bytes = self.ring.bytes(&chunk);
                self.drive.handle(self.now, Input::Received { conn, bytes });
                self.ring.give_back(chunk);
            }
        } else {
            match result.saturating_neg() {
                0 => self.handle_eof(conn),
                // No buffer was free, or we cancelled it: neither is the connection's fault.
                libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                errno => return self.end(conn, socket::reason(errno)),
            }
        }
        if !has_more {
            self.arm(conn);
        }
    }

    /// Keeps what comes of a connection that is being given away. Its end or failure is told by
    /// the socket to whoever gets it.
    fn handle_late(&mut self, conn: ConnId, chunk: Option<Chunk>, has_more: bool) {
        if let Some(chunk) = chunk {
            if let Some((_, late)) = self.releasing.get_mut(&conn) {
                late.extend_from_slice(self.ring.bytes(&chunk));
            }
            self.ring.give_back(chunk);
        }
        if !has_more {
            self.settle(conn);
        }
    }

    /// Gives a connection away as soon as the kernel has nothing of it.
    fn release(&mut self, conn: ConnId, state: Parcel) {
        if self.releases.is_none() {
            return self.close(conn, CloseMode::Flush);
        }
        let Some(connection) = self.table.get_mut(conn) else { return };
        if connection.phase != Phase::Open {
            return;
        }
        connection.phase = Phase::Releasing;
        connection.is_reading = false;
        let mut late = Vec::new();
        if connection.is_stashed {
            while let Next::Bytes(bytes) = self.stash.next(conn) {
                late.extend_from_slice(bytes);
            }
            self.stash.forget(conn);
            connection.is_stashed = false;
        }
        let is_armed = connection.receive == Receive::Armed;
        if is_armed {
            connection.receive = Receive::Cancelling;
        }
        self.releasing.insert(conn, (state, late));
        if is_armed {
            self.ring.cancel_receive(conn);
        }
        self.settle(conn);
    }

    fn finish_release(&mut self, conn: ConnId) {
        let Some((state, late)) = self.releasing.remove(&conn) else { return };
        let Some(socket) = self.table.remove(conn) else { return };
        let handed = Handed { socket, state, late };
        let is_taken = self.releases.as_ref().is_some_and(|to| to.send(handed).is_ok());
        let end = if is_taken { End::Released } else { End::Closed(CloseReason::Requested) };
        self.ended.push_back((conn, end));
    }

    fn give_back(&mut self, chunk: Option<Chunk>) {
        if let Some(chunk) = chunk {
            self.ring.give_back(chunk);
        }
    }

    /// Hands over bytes that were received before the kernel heard of the pause, or keeps them if
    /// the worker has had as many as it must expect.
    fn tell_late(&mut self, conn: ConnId, chunk: Chunk) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        if connection.is_stashed || usize::from(connection.late) >= READS_IN_FLIGHT {
            connection.is_stashed = true;
            self.stash.push(conn, self.ring.bytes(&chunk));
        } else {
            connection.late += 1;
            let bytes = self.ring.bytes(&chunk);
            self.drive.handle(self.now, Input::Received { conn, bytes });
        }
        self.ring.give_back(chunk);
    }

    fn handle_eof(&mut self, conn: ConnId) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        connection.is_eof = true;
        if connection.is_stashed {
            self.stash.push_eof(conn);
        } else {
            self.tell(Input::Eof { conn });
        }
    }

    /// Hands over the next of what the stash holds of a connection that reads again.
    fn tell_stashed(&mut self, conn: ConnId) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        if !connection.is_reading || connection.phase != Phase::Open {
            return;
        }
        match self.stash.next(conn) {
            Next::Bytes(bytes) => {
                self.drive.handle(self.now, Input::Received { conn, bytes });
                self.resumed.push_front(conn);
                return;
            }
            Next::Eof => {
                connection.is_stashed = false;
                self.tell(Input::Eof { conn });
            }
            Next::Nothing => connection.is_stashed = false,
        }
        self.arm(conn);
    }

    fn handle_sent(&mut self, conn: ConnId, buffer: Buffer, offset: usize, result: i32) {
        let Some(connection) = self.table.get_mut(conn) else {
            debug_assert!(false, "a send outlived its connection");
            return;
        };
        connection.is_sending = false;
        if matches!(connection.phase, Phase::Closing(_)) {
            return self.settle(conn);
        }
        let errno = match usize::try_from(result) {
            Ok(len) => {
                let offset = offset + len;
                if offset < buffer.len() {
                    return self.send(conn, buffer, offset);
                }
                if connection.phase == Phase::Flushing {
                    return self.end(conn, CloseReason::Requested);
                }
                return self.tell(Input::Sent { conn, buffer });
            }
            Err(_) => result.saturating_neg(),
        };
        match errno {
            libc::EINTR | libc::EAGAIN => self.send(conn, buffer, offset),
            errno => self.end(conn, socket::reason(errno)),
        }
    }

    fn handle_accepted(&mut self, position: usize, result: Result<Socket, i32>, has_more: bool) {
        let Some(Some(listening)) = self.listeners.get_mut(position) else { return };
        let mut rests = false;
        match result {
            Ok(socket) => {
                let id = listening.listener.id;
                self.accept(id, socket);
            }
            Err(
                libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EPROTO | libc::ECANCELED,
            ) => {}
            Err(_) => rests = true,
        }
        if has_more {
            return;
        }
        if let Some(Some(listening)) = self.listeners.get_mut(position) {
            if listening.closing.is_some() {
                self.finish_listening(position);
            } else if rests {
                listening.rests_until = Some(self.now + ACCEPT_REST);
            } else {
                self.ring.accept(position, &listening.listener.socket);
            }
        }
    }

    /// Offers a client to the worker.
    fn accept(&mut self, listener: ListenerId, socket: Socket) {
        // A client that is gone already has no address, and nothing to ask.
        if let Some(peer) = socket::peer(&socket)
            && let Ok(conn) = self.drive.accept(self.now, listener, peer)
        {
            self.admit(conn, socket);
        }
    }

    /// Begins to take clients from a listener.
    fn listen(&mut self, listener: Listener) -> io::Result<()> {
        socket::prepare_listener(&listener.socket, listener.tcp_keepalive)?;
        let position = self.listeners.iter().position(Option::is_none);
        let position = position.unwrap_or(self.listeners.len());
        self.ring.accept(position, &listener.socket);
        let listening = Listening { listener, rests_until: None, closing: None };
        match self.listeners.get_mut(position) {
            Some(free) => *free = Some(listening),
            None => self.listeners.push(Some(listening)),
        }
        Ok(())
    }

    /// Stops to take clients from a listener; those that wait there come in first.
    fn unlisten(&mut self, id: ListenerId, done: Sender<()>) {
        let mut listeners = self.listeners.iter_mut().enumerate();
        let found = listeners.find_map(|(position, place)| {
            let listening = place.as_mut()?;
            (listening.listener.id == id && listening.closing.is_none())
                .then_some((position, listening))
        });
        let Some((position, listening)) = found else { return };
        listening.closing = Some(done);
        let is_resting = listening.rests_until.take().is_some();
        // What the kernel has accepted already is handed over in the order of the mail.
        self.take_waiting(position);
        if is_resting {
            self.finish_listening(position);
        } else {
            self.ring.cancel_accept(position);
        }
    }

    /// Takes the clients that wait at a listener.
    fn take_waiting(&mut self, position: usize) {
        while let Some(Some(listening)) = self.listeners.get(position)
            && let Ok((socket, _)) = listening.listener.socket.accept()
        {
            let id = listening.listener.id;
            if socket.set_nonblocking(true).is_ok() {
                self.accept(id, socket);
            }
        }
    }

    /// Closes a listener that no operation names any more.
    fn finish_listening(&mut self, position: usize) {
        self.take_waiting(position);
        if let Some(place) = self.listeners.get_mut(position) {
            *place = None;
        }
    }

    fn admit(&mut self, conn: ConnId, socket: Socket) {
        if self.table.insert(conn, socket, Phase::Open).is_err() {
            debug_assert!(false, "{conn:?} was given out twice");
            return;
        }
        self.arm(conn);
    }

    fn handle_connected(&mut self, conn: ConnId, result: i32) {
        let Some(connection) = self.table.get_mut(conn) else {
            debug_assert!(false, "a connect outlived its connection");
            return;
        };
        connection.is_connecting = false;
        if connection.phase != Phase::Connecting {
            return self.settle(conn);
        }
        connection.phase = Phase::Open;
        if result < 0 {
            return self.end(conn, socket::connect_reason(result.saturating_neg()));
        }
        let local = connection.socket().and_then(socket::local);
        self.tell(Input::Connected { conn, local });
        self.arm(conn);
    }

    fn read_mail(&mut self) {
        if self.mailbox.is_stopped() {
            self.is_stopping = true;
            self.has_mail = false;
            return;
        }
        match self.mailbox.take() {
            None => self.has_mail = false,
            Some(Item::Mail(mail)) => self.tell(mail.into()),
            Some(Item::Resolved { query, result }) => {
                self.tell(Input::Resolved { query, result });
            }
            // A listener that takes no options can't be one; the host has opened it.
            Some(Item::Listen(listener)) => drop(self.listen(listener)),
            Some(Item::Unlisten(id, done)) => self.unlisten(id, done),
            Some(Item::Client { listener, socket, state }) => {
                if socket.set_nonblocking(true).is_err() {
                    return;
                }
                let Some(state) = state else { return self.accept(listener, socket) };
                if let Ok(conn) = self.drive.adopt(self.now, listener, &state) {
                    self.admit(conn, socket);
                }
            }
            Some(Item::Releases(to)) => self.releases = Some(to),
        }
    }

    /// Runs the runtime's own timers.
    fn expire(&mut self) {
        while let Some(Reverse((at, conn))) = self.connects.peek().copied() {
            if at > self.now {
                break;
            }
            self.connects.pop();
            let phase = self.table.get_mut(conn).map(|connection| connection.phase);
            if phase == Some(Phase::Connecting) {
                self.end(conn, CloseReason::ConnectTimedOut);
            }
        }
        for (position, listening) in self.listeners.iter_mut().enumerate() {
            let Some(listening) = listening else { continue };
            if listening.rests_until.take_if(|at| *at <= self.now).is_some() {
                self.ring.accept(position, &listening.listener.socket);
            }
        }
    }

    // Outputs.

    fn take_outputs(&mut self) {
        while let Some(output) = self.drive.poll_output() {
            match output {
                Output::Transmit { conn, buffer } => self.transmit(conn, buffer),
                Output::Connect { conn, endpoint, timeout, source } => {
                    self.connect(conn, &endpoint, source, timeout);
                }
                Output::PauseRead(conn) => self.pause(conn),
                Output::ResumeRead(conn) => self.resume(conn),
                Output::Close { conn, mode } => self.close(conn, mode),
                Output::Release { conn, state } => self.release(conn, state),
                Output::EndWrite(conn) => self.end_write(conn),
                Output::Resolve { query, host, port } => {
                    if !self.resolver.ask(query, host, port) {
                        self.unasked.push_back(query);
                    }
                }
                Output::Event(event) => self.host.event(event),
                Output::Errand(errand) => self.host.errand(errand),
                Output::Notice { to, notice } => self.host.notice(to, notice),
                Output::OpenChannel { channel, spec } => self.open_channel(channel, &spec),
                Output::CloseChannel(channel) => self.close_channel(channel),
                Output::Datagram { channel, to, bytes } => self.send_datagram(channel, to, &bytes),
            }
        }
    }

    fn transmit(&mut self, conn: ConnId, buffer: Buffer) {
        // Not found: it has ended, and `Closed` is on its way to the worker.
        let Some(connection) = self.table.get_mut(conn) else { return };
        if connection.phase != Phase::Open {
            return;
        }
        debug_assert!(!connection.is_sending, "two writes at once on {conn:?}");
        debug_assert!(!buffer.is_empty(), "an empty write on {conn:?}");
        self.send(conn, buffer, 0);
    }

    fn send(&mut self, conn: ConnId, buffer: Buffer, offset: usize) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        connection.is_sending = true;
        if let Some(socket) = connection.socket() {
            self.ring.send(conn, socket, buffer, offset);
        }
    }

    fn connect(
        &mut self,
        conn: ConnId,
        endpoint: &Endpoint,
        source: Option<IpAddr>,
        timeout: Duration,
    ) {
        let (socket, address) = match socket::prepare(endpoint, source) {
            Ok(prepared) => prepared,
            Err(reason) => return self.ended.push_back((conn, End::Closed(reason))),
        };
        if self.table.insert(conn, socket, Phase::Connecting).is_err() {
            debug_assert!(false, "{conn:?} was given out twice");
            return;
        }
        let Some(connection) = self.table.get_mut(conn) else { return };
        if let Some(socket) = connection.socket() {
            self.ring.connect(conn, socket, address);
            self.connects.push(Reverse((self.now + timeout, conn)));
        }
    }

    fn pause(&mut self, conn: ConnId) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        connection.is_reading = false;
        connection.late = 0;
        if connection.receive == Receive::Armed {
            connection.receive = Receive::Cancelling;
            self.ring.cancel_receive(conn);
        }
    }

    fn resume(&mut self, conn: ConnId) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        connection.is_reading = true;
        if connection.is_stashed {
            self.resumed.push_back(conn);
        } else {
            self.arm(conn);
        }
    }

    /// Starts to receive, unless it is not wanted, not possible, or going on already. While a
    /// cancellation is under way nothing is done here: the last completion comes here again.
    fn arm(&mut self, conn: ConnId) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        let can_start = connection.phase == Phase::Open
            && connection.receive == Receive::Idle
            && connection.is_reading
            && !connection.is_stashed
            && !connection.is_eof;
        if !can_start {
            return;
        }
        connection.receive = Receive::Armed;
        if let Some(socket) = connection.socket() {
            self.ring.receive(conn, socket);
        }
    }

    // Endings.

    /// Ends a connection: at once if nothing is in flight, else as soon as it has come back.
    fn end(&mut self, conn: ConnId, reason: CloseReason) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        connection.phase = match connection.phase {
            Phase::Open | Phase::Connecting => Phase::Closing(reason),
            // Nothing is sent any more, and what the receive says is the next owner's.
            Phase::Releasing => return,
            // The worker asked first.
            Phase::Flushing => Phase::Closing(CloseReason::Requested),
            Phase::Closing(_) => return,
        };
        if connection.in_flight() == 0 {
            self.settle(conn);
        } else {
            self.cancel(conn);
        }
    }

    fn cancel(&mut self, conn: ConnId) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        connection.cancelled = connection.in_flight();
        if let Some(socket) = connection.socket() {
            self.ring.cancel_socket(conn, socket);
        }
    }

    /// Closes the socket of an ending connection if the kernel has nothing of it any more.
    fn settle(&mut self, conn: ConnId) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        if connection.in_flight() > 0 {
            return;
        }
        if connection.phase == Phase::Releasing {
            return self.finish_release(conn);
        }
        let Phase::Closing(reason) = connection.phase else { return };
        if connection.is_stashed {
            self.stash.forget(conn);
        }
        self.table.remove(conn);
        self.ended.push_back((conn, End::Closed(reason)));
    }

    /// A cancellation was carried out. It may have missed an operation that was just being worked
    /// on; then it is tried again.
    fn handle_cancelled(&mut self, conn: ConnId, result: i32) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        match connection.phase {
            Phase::Closing(_) => {
                if result < i32::from(connection.cancelled) {
                    self.cancel(conn);
                }
            }
            Phase::Open | Phase::Flushing | Phase::Connecting | Phase::Releasing => {
                if result < 0 && connection.receive == Receive::Cancelling {
                    connection.receive = Receive::Armed;
                    if !connection.is_reading {
                        connection.receive = Receive::Cancelling;
                        self.ring.cancel_receive(conn);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
