//! Runs small machines on the runtime over real sockets, and holds the runtime to the contract of
//! the border while they run.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part of it")]

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{
    AtCapacity, CloseMode, CloseReason, Deadline, Drive, Endpoint, Errand, Event, Host, Input,
    Notice, Output, Recipient,
};
use ringkeeper_core::limits::{BATCH_MAX, RECEIVE_BYTES_MAX};
use ringkeeper_core::time::Instant;
use rt_tokio::{Listener, MailboxSender, Message};

/// Nothing in these tests takes that long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a machine does; the harness around it names the connections.
pub trait Machine {
    fn accept(&mut self, _: &mut Outbox, _: ConnId, _: ListenerId) -> Result<(), AtCapacity> {
        Ok(())
    }
    fn start(&mut self, _: &mut Outbox) {}
    fn handle(&mut self, out: &mut Outbox, now: Instant, input: Input<'_>);
    fn handle_timeout(&mut self, _: &mut Outbox, _: Instant) {}
    fn timeout(&self) -> Option<Instant> {
        None
    }
}

/// What a machine wants done, and the rules that it must keep itself.
#[derive(Default)]
pub struct Outbox {
    queue: VecDeque<Output>,
    conns: HashMap<ConnId, State>,
    free: HashMap<bool, Vec<u32>>,
    used: HashMap<bool, u32>,
    generation: u32,
}

#[derive(Clone, Copy, Default)]
struct State {
    is_connecting: bool,
    is_writing: bool,
    has_eof: bool,
    is_closed_by_us: bool,
}

impl Outbox {
    fn name(&mut self, is_server: bool) -> ConnId {
        let used = self.used.entry(is_server).or_default();
        let index = self.free.entry(is_server).or_default().pop().unwrap_or_else(|| {
            *used += 1;
            *used - 1
        });
        self.generation += 1;
        let generation = self.generation;
        let id = if is_server {
            ConnId::server(index, generation)
        } else {
            ConnId::client(index, generation)
        };
        let state = State { is_connecting: is_server, ..State::default() };
        assert!(self.conns.insert(id, state).is_none());
        id
    }

    pub fn connect(&mut self, endpoint: Endpoint, timeout: Duration) -> ConnId {
        let conn = self.name(true);
        self.queue.push_back(Output::Connect { conn, endpoint, timeout, source: None });
        conn
    }

    /// Transmits unless a write is in flight; gives the buffer back then.
    pub fn transmit(&mut self, conn: ConnId, buffer: Vec<u8>) -> Result<(), Vec<u8>> {
        let Some(state) = self.conns.get_mut(&conn) else { return Err(buffer) };
        if state.is_writing || state.is_connecting || buffer.is_empty() {
            return Err(buffer);
        }
        state.is_writing = true;
        self.queue.push_back(Output::Transmit { conn, buffer });
        Ok(())
    }

    pub fn close(&mut self, conn: ConnId, mode: CloseMode) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.is_closed_by_us = true;
            self.queue.push_back(Output::Close { conn, mode });
        }
    }

    pub fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }
}

/// Checks every input against the contract before the machine sees it.
pub struct Harness<M> {
    machine: M,
    out: Outbox,
    now: Instant,
    inputs: usize,
}

impl<M: Machine> Harness<M> {
    fn new(mut machine: M) -> Self {
        let mut out = Outbox::default();
        machine.start(&mut out);
        Self { machine, out, now: Instant::START, inputs: 0 }
    }

    fn check_clock(&mut self, now: Instant) {
        assert!(now >= self.now, "the clock went back");
        self.now = now;
    }

    fn check(&mut self, input: &Input<'_>) {
        let conns = &mut self.out.conns;
        match input {
            Input::Connected { conn, .. } => {
                let state = conns.get_mut(conn).expect("Connected after Closed");
                assert!(std::mem::replace(&mut state.is_connecting, false), "Connected twice");
            }
            Input::Received { conn, bytes } => {
                let state = conns.get(conn).expect("Received after Closed");
                assert!(!state.is_connecting && !state.has_eof);
                assert!((1..=RECEIVE_BYTES_MAX).contains(&bytes.len()));
            }
            Input::Eof { conn } => {
                let state = conns.get_mut(conn).expect("Eof after Closed");
                assert!(!std::mem::replace(&mut state.has_eof, true), "Eof twice");
            }
            Input::Sent { conn, buffer } => {
                let state = conns.get_mut(conn).expect("Sent after Closed");
                assert!(std::mem::replace(&mut state.is_writing, false), "Sent without a write");
                assert!(!buffer.is_empty(), "the buffer comes home as it left");
            }
            Input::Closed { conn, reason } => {
                let state = conns.remove(conn).expect("Closed twice");
                assert!(!state.is_closed_by_us || *reason == CloseReason::Requested);
                self.out.free.entry(conn.is_server()).or_default().push(conn.index());
            }
            Input::Resolved { result, .. } => {
                assert!(result.as_ref().map_or(true, |addresses| !addresses.is_empty()));
            }
            Input::Command(_)
            | Input::Released { .. }
            | Input::Notice(_)
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. }
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. } => {}
        }
    }
}

impl<M: Machine> Drive for Harness<M> {
    fn accept(&mut self, now: Instant, on: ListenerId, _: Endpoint) -> Result<ConnId, AtCapacity> {
        self.check_clock(now);
        let id = self.out.name(false);
        self.machine.accept(&mut self.out, id, on).inspect_err(|AtCapacity| {
            self.out.conns.remove(&id);
            self.out.free.entry(false).or_default().push(id.index());
        })?;
        Ok(id)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.check_clock(now);
        self.inputs += 1;
        assert!(self.inputs <= BATCH_MAX, "a turn has a bound");
        self.check(&input);
        // Between Close and Closed the worker ignores what still comes.
        let is_ignored = match &input {
            Input::Received { conn, .. } | Input::Eof { conn } | Input::Sent { conn, .. } => {
                self.out.conns.get(conn).is_some_and(|state| state.is_closed_by_us)
            }
            Input::Connected { .. }
            | Input::Closed { .. }
            | Input::Released { .. }
            | Input::Resolved { .. }
            | Input::Command(_)
            | Input::Notice(_)
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. }
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. } => false,
        };
        if !is_ignored {
            self.machine.handle(&mut self.out, now, input);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.check_clock(now);
        self.machine.handle_timeout(&mut self.out, now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.out.queue.pop_front();
        if output.is_none() {
            self.inputs = 0;
        }
        output
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.machine.timeout().map(|at| Deadline { at, why: "test" })
    }
}

/// Sends every byte back; after the end of the stream, what is left, then closes.
#[derive(Default)]
pub struct Echo {
    pub conns: HashMap<ConnId, EchoConn>,
}

#[derive(Default)]
pub struct EchoConn {
    waiting: Vec<u8>,
    is_writing: bool,
    has_eof: bool,
    is_paused: bool,
}

/// Bytes that the echo holds for one client before it stops reading from it.
pub const ECHO_HELD_MAX: usize = 256 * 1024;

impl Echo {
    fn advance(&mut self, out: &mut Outbox, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.is_writing && !conn.waiting.is_empty() {
            out.transmit(id, std::mem::take(&mut conn.waiting)).unwrap();
            conn.is_writing = true;
        }
        if !conn.is_writing && conn.has_eof {
            out.close(id, CloseMode::Flush);
        }
        let is_full = conn.waiting.len() > ECHO_HELD_MAX;
        if is_full != conn.is_paused {
            conn.is_paused = is_full;
            out.push(if is_full { Output::PauseRead(id) } else { Output::ResumeRead(id) });
        }
    }
}

impl Machine for Echo {
    fn accept(&mut self, _: &mut Outbox, id: ConnId, _: ListenerId) -> Result<(), AtCapacity> {
        self.conns.insert(id, EchoConn::default());
        Ok(())
    }

    fn handle(&mut self, out: &mut Outbox, _: Instant, input: Input<'_>) {
        match input {
            Input::Received { conn, bytes } => {
                let held = self.conns.get_mut(&conn).unwrap();
                held.waiting.extend_from_slice(bytes);
                // What was on its way when the pause was asked for: the contract bounds it.
                assert!(held.waiting.len() <= ECHO_HELD_MAX + 64 * RECEIVE_BYTES_MAX);
                self.advance(out, conn);
            }
            Input::Eof { conn } => {
                self.conns.get_mut(&conn).unwrap().has_eof = true;
                self.advance(out, conn);
            }
            Input::Sent { conn, .. } => {
                self.conns.get_mut(&conn).unwrap().is_writing = false;
                self.advance(out, conn);
            }
            Input::Closed { conn, .. } => {
                self.conns.remove(&conn);
            }
            Input::Connected { .. }
            | Input::Released { .. }
            | Input::Resolved { .. }
            | Input::Command(_)
            | Input::Notice(_)
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. }
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. } => {}
        }
    }
}

/// A machine made of one function, for tests that need a few lines.
pub struct Script<F>(pub F);

impl<F: FnMut(&mut Outbox, Instant, Input<'_>)> Machine for Script<F> {
    fn handle(&mut self, out: &mut Outbox, now: Instant, input: Input<'_>) {
        (self.0)(out, now, input);
    }
}

/// Like [`Script`], with something to do before the first input.
pub struct Started<S, F>(pub Option<S>, pub F);

impl<S: FnOnce(&mut Outbox), F: FnMut(&mut Outbox, Instant, Input<'_>)> Machine for Started<S, F> {
    fn start(&mut self, out: &mut Outbox) {
        if let Some(start) = self.0.take() {
            start(out);
        }
    }

    fn handle(&mut self, out: &mut Outbox, now: Instant, input: Input<'_>) {
        (self.1)(out, now, input);
    }
}

/// A worker on a thread of its own; stops when dropped.
pub struct Running {
    pub address: SocketAddr,
    pub path: PathBuf,
    pub mailbox: MailboxSender,
    thread: Option<JoinHandle<io::Result<()>>>,
    directory: PathBuf,
}

impl Running {
    /// Starts the machine that `make` makes, listening on a loopback port (listener 0) and on a
    /// unix socket (listener 1).
    pub fn start<M: Machine>(make: impl FnOnce() -> M + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let directory = fresh_directory();
        let path = directory.join("listener.sock");
        let unix = UnixListener::bind(&path).unwrap();
        let listeners = vec![
            Listener { id: ListenerId(0), socket: listener.into(), tcp_keepalive: true },
            Listener { id: ListenerId(1), socket: unix.into(), tcp_keepalive: false },
        ];
        for listener in &listeners {
            listener.socket.set_nonblocking(true).unwrap();
        }
        let (sender, mailbox) = rt_tokio::mailbox().unwrap();
        let thread = std::thread::spawn(move || {
            let start = std::time::Instant::now();
            rt_tokio::run(Harness::new(make()), start, listeners, mailbox, Deaf)
        });
        Self { address, path, mailbox: sender, thread: Some(thread), directory }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn stop(mut self) {
        self.join().unwrap().unwrap();
    }

    fn join(&mut self) -> std::thread::Result<io::Result<()>> {
        // A worker that has panicked refuses; join tells.
        let _ = self.mailbox.send(Message::Stop);
        self.thread.take().map_or(Ok(Ok(())), JoinHandle::join)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let result = self.join();
        let _ = std::fs::remove_dir_all(&self.directory);
        if !std::thread::panicking() {
            result.expect("the machine panicked").unwrap();
        }
    }
}

/// Makes a directory that no other test uses.
pub fn fresh_directory() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("rt-tokio-{}-{number}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Makes bytes in which a swapped or lost piece shows.
#[allow(clippy::cast_possible_truncation, reason = "at most 254")]
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251 + at / 251 % 5) as u8).collect()
}

/// Writes everything in pieces of the given sizes, in turn.
pub fn write_in_pieces(stream: &mut impl Write, bytes: &[u8], sizes: &[usize]) {
    let mut rest = bytes;
    for size in sizes.iter().copied().cycle() {
        if rest.is_empty() {
            return;
        }
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        stream.write_all(piece).unwrap();
        rest = behind;
    }
}

pub fn read_exactly(stream: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

pub fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A channel for what a machine wants to tell its test.
pub fn reports<T>() -> (Sender<T>, Receiver<T>) {
    channel()
}

pub fn tcp(address: SocketAddr) -> Endpoint {
    Endpoint::Tcp(address)
}

pub fn unix(path: &Path) -> Endpoint {
    Endpoint::Unix(path.to_owned())
}

/// A host that hears everything and does nothing.
struct Deaf;

impl Host for Deaf {
    fn event(&mut self, _: Event) {}
    fn errand(&mut self, _: Errand) {}
    fn notice(&mut self, _: Recipient, _: Notice) {}
}
