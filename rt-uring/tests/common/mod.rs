//! Small machines to drive, a wrapper that checks the border's contract at every step, and a
//! thread that runs them.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses its own part of this")]

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{
    AtCapacity, CloseMode, CloseReason, Command, Deadline, Drive, Endpoint, Errand, Event, Host,
    Input, Mail, Notice, Output, Recipient,
};
use ringkeeper_core::limits::{BATCH_MAX, READS_IN_FLIGHT, RECEIVE_BYTES_MAX};
use ringkeeper_core::time::Instant;
use rt_uring::{Buffers, Listener, MailboxSender, Message, Options};
use socket2::{Domain, SockAddr, Socket, Type};

/// Longest that a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Tells whether the test can run here, and says why not.
pub fn is_suitable() -> bool {
    match rt_uring::probe() {
        Ok(_) => true,
        Err(why) => {
            println!("skipped: {why}");
            false
        }
    }
}

/// Rings that take every path: incremental, plain, and so few buffers that they run out.
pub fn variants() -> Vec<Options> {
    let buffers = |count, size, is_incremental| Options {
        buffers: Buffers { count, size, is_incremental },
        ..Options::default()
    };
    let mut variants = vec![buffers(256, 4096, false), buffers(2, 100, false)];
    if rt_uring::probe().is_ok_and(|capabilities| capabilities.buffers.is_incremental) {
        variants.push(Options::default());
        variants.push(buffers(2, 100, true));
        variants.push(Options { entries: 2, ..Options::default() });
    }
    variants
}

/// What the drive was told, for the test to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Accepted(ConnId, Endpoint),
    Connected(ConnId),
    Received(ConnId, Vec<u8>),
    Eof(ConnId),
    Sent(ConnId, usize),
    Closed(ConnId, CloseReason),
    Resolved(u32, Result<Vec<SocketAddr>, ringkeeper_core::io::ResolveError>),
    /// The test's own signal, see [`Running::signal`].
    Signal(u64),
    TimedOut,
}

/// What a machine may do: outputs, and names for connections that it makes.
#[derive(Default)]
pub struct Hands {
    pub outputs: VecDeque<Output>,
    pub deadline: Option<Instant>,
    names: Names,
}

#[derive(Default)]
struct Names {
    generations: Vec<u32>,
    free: Vec<u32>,
    taken: usize,
}

impl Names {
    fn take(&mut self) -> (u32, u32) {
        self.taken += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.generations.push(0);
            u32::try_from(self.generations.len()).unwrap() - 1
        });
        (index, self.generations[index as usize])
    }

    fn give(&mut self, conn: ConnId) {
        self.taken -= 1;
        self.generations[conn.index() as usize] += 1;
        self.free.push(conn.index());
    }
}

impl Hands {
    pub fn connect(&mut self, endpoint: Endpoint, timeout: Duration) -> ConnId {
        let (index, generation) = self.names.take();
        let conn = ConnId::server(index, generation);
        self.outputs.push_back(Output::Connect { conn, endpoint, timeout, source: None });
        conn
    }

    pub fn transmit(&mut self, conn: ConnId, bytes: &[u8]) {
        self.outputs.push_back(Output::Transmit { conn, buffer: bytes.to_vec() });
    }

    pub fn close(&mut self, conn: ConnId, mode: CloseMode) {
        self.outputs.push_back(Output::Close { conn, mode });
    }
}

/// A machine for a test: sees and acts.
pub trait Machine: Send + 'static {
    /// How many connections it takes.
    const CONNECTIONS_MAX: usize = 10_000;

    fn see(&mut self, now: Instant, seen: &Seen, hands: &mut Hands);
}

impl<F: FnMut(Instant, &Seen, &mut Hands) + Send + 'static> Machine for F {
    fn see(&mut self, now: Instant, seen: &Seen, hands: &mut Hands) {
        self(now, seen, hands);
    }
}

/// Where a connection is in its life, as the contract has it.
#[derive(Default)]
struct Life {
    is_connecting: bool,
    is_eof: bool,
    is_closing: bool,
    is_sending: bool,
    reads_after_pause: Option<usize>,
}

/// Drives a machine and panics at the first breach of the contract, ours or the machine's.
struct Checked<M> {
    machine: M,
    hands: Hands,
    lives: HashMap<ConnId, Life>,
    log: Sender<Seen>,
    inputs: usize,
    last: Instant,
    is_logging: bool,
}

impl<M: Machine> Checked<M> {
    fn clock(&mut self, now: Instant) {
        assert!(now >= self.last, "the clock went back");
        self.last = now;
        self.inputs += 1;
        assert!(self.inputs <= BATCH_MAX, "too many inputs in a turn");
    }

    fn see(&mut self, seen: Seen) {
        self.machine.see(self.last, &seen, &mut self.hands);
        if self.is_logging || !matches!(seen, Seen::Received(..) | Seen::Sent(..)) {
            let _ = self.log.send(seen);
        }
    }

    /// Checks an input and copies it.
    fn check(&mut self, input: Input<'_>) -> Seen {
        match input {
            Input::Connected { conn, .. } => {
                let life = self.lives.get_mut(&conn).expect("a known connection");
                assert!(life.is_connecting, "connected twice");
                life.is_connecting = false;
                Seen::Connected(conn)
            }
            Input::Received { conn, bytes } => {
                let life = self.lives.get_mut(&conn).expect("a known connection");
                assert!(!life.is_connecting && !life.is_eof);
                assert!(!bytes.is_empty() && bytes.len() <= RECEIVE_BYTES_MAX);
                if let Some(reads) = &mut life.reads_after_pause {
                    *reads += 1;
                    assert!(*reads <= READS_IN_FLIGHT, "too much after a pause");
                }
                Seen::Received(conn, bytes.to_vec())
            }
            Input::Eof { conn } => {
                let life = self.lives.get_mut(&conn).expect("a known connection");
                assert!(!life.is_eof && !life.is_connecting);
                life.is_eof = true;
                Seen::Eof(conn)
            }
            Input::Sent { conn, buffer } => {
                let life = self.lives.get_mut(&conn).expect("a known connection");
                assert!(life.is_sending, "nothing was to be sent");
                life.is_sending = false;
                Seen::Sent(conn, buffer.len())
            }
            Input::Closed { conn, reason } => {
                let life = self.lives.remove(&conn).expect("closed once");
                assert!(life.is_closing || reason != CloseReason::Requested);
                self.hands.names.give(conn);
                Seen::Closed(conn, reason)
            }
            Input::Resolved { query, result } => Seen::Resolved(query.0, result),
            Input::Command(Command::Drain { limit }) => {
                Seen::Signal(u64::try_from(limit.as_nanos()).unwrap())
            }
            Input::Notice(notice) => panic!("{notice:?}"),
            Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. }
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. }
            | Input::Released { .. }
            | Input::Command(Command::Reload { .. } | Command::HandOver { .. }) => {
                panic!("{input:?}")
            }
        }
    }
}

impl<M: Machine> Drive for Checked<M> {
    fn accept(
        &mut self,
        now: Instant,
        _on: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        self.clock(now);
        if self.hands.names.taken >= M::CONNECTIONS_MAX {
            return Err(AtCapacity);
        }
        let (index, generation) = self.hands.names.take();
        let conn = ConnId::client(index, generation);
        self.lives.insert(conn, Life::default());
        self.see(Seen::Accepted(conn, peer));
        Ok(conn)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.clock(now);
        let seen = self.check(input);
        // Between `Close` and `Closed` the worker ignores what still comes.
        let is_late = match &seen {
            Seen::Received(conn, _) | Seen::Eof(conn) | Seen::Sent(conn, _) => {
                self.lives[conn].is_closing
            }
            _ => false,
        };
        if !is_late {
            self.see(seen);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        assert!(now >= self.last);
        self.last = now;
        if self.hands.deadline.take_if(|at| *at <= now).is_some() {
            self.see(Seen::TimedOut);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.inputs = 0;
        let output = self.hands.outputs.pop_front()?;
        match &output {
            Output::Connect { conn, .. } => {
                self.lives.insert(*conn, Life { is_connecting: true, ..Life::default() });
            }
            Output::Transmit { conn, buffer } => {
                // The machine may not have heard of the end yet.
                if let Some(life) = self.lives.get_mut(conn) {
                    assert!(!life.is_sending && !buffer.is_empty());
                    life.is_sending = true;
                }
            }
            Output::PauseRead(conn) => {
                if let Some(life) = self.lives.get_mut(conn) {
                    life.reads_after_pause = Some(0);
                }
            }
            Output::ResumeRead(conn) => {
                if let Some(life) = self.lives.get_mut(conn) {
                    life.reads_after_pause = None;
                }
            }
            Output::Close { conn, .. } => {
                if let Some(life) = self.lives.get_mut(conn) {
                    life.is_closing = true;
                }
            }
            Output::Release { .. }
            | Output::EndWrite(_)
            | Output::Resolve { .. }
            | Output::Event(_)
            | Output::Errand(_)
            | Output::Notice { .. }
            | Output::OpenChannel { .. }
            | Output::CloseChannel(_)
            | Output::Datagram { .. } => {}
        }
        Some(output)
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.hands.deadline.map(|at| Deadline { at, why: "test" })
    }
}

/// A runtime on a thread of its own.
pub struct Running {
    pub mailbox: MailboxSender,
    pub log: Receiver<Seen>,
    pub address: SocketAddr,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// Runs the machine behind one TCP listener.
pub fn start(options: Option<Options>, machine: impl Machine) -> Running {
    let (listener, address) = listen();
    start_with(options, machine, vec![listener], address, true)
}

pub fn start_with(
    options: Option<Options>,
    machine: impl Machine,
    listeners: Vec<Listener>,
    address: SocketAddr,
    is_logging: bool,
) -> Running {
    let (sender, mailbox) = rt_uring::mailbox().unwrap();
    let (log, seen) = mpsc::channel();
    let drive = Checked {
        machine,
        hands: Hands::default(),
        lives: HashMap::new(),
        log,
        inputs: 0,
        last: Instant::START,
        is_logging,
    };
    let thread = std::thread::spawn(move || {
        let start = std::time::Instant::now();
        match options {
            Some(options) => rt_uring::run_with(options, drive, start, listeners, mailbox, Deaf),
            None => rt_uring::run(drive, start, listeners, mailbox, Deaf),
        }
    });
    Running { mailbox: sender, log: seen, address, thread: Some(thread) }
}

impl Running {
    /// Waits for what `choose` is looking for; what it does not want is dropped.
    pub fn wait<T>(&self, mut choose: impl FnMut(&Seen) -> Option<T>) -> T {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let rest = end.saturating_duration_since(std::time::Instant::now());
            let seen = self.log.recv_timeout(rest).expect("it happens while the test has patience");
            if let Some(found) = choose(&seen) {
                return found;
            }
        }
    }

    pub fn wait_closed(&self) -> (ConnId, CloseReason) {
        self.wait(|seen| match seen {
            Seen::Closed(conn, reason) => Some((*conn, *reason)),
            _ => None,
        })
    }

    pub fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// Lets the machine see [`Seen::Signal`].
    pub fn signal(&self, number: u64) {
        let limit = Duration::from_nanos(number);
        self.mailbox.send(Message::Mail(Mail::Command(Command::Drain { limit }))).unwrap();
    }

    pub fn stop(mut self) {
        self.mailbox.send(Message::Stop).unwrap();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let _ = self.mailbox.send(Message::Stop);
        let result = thread.join();
        if !std::thread::panicking() {
            result.unwrap().unwrap();
        }
    }
}

pub fn listen() -> (Listener, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    socket.listen(1024).unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (Listener { id: ListenerId(0), socket, tcp_keepalive: true }, address)
}

/// Bytes that tell where they were.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect()
}

/// Sends back what it gets, stops reading from a client that does not take it, and closes after
/// the end of the stream.
#[derive(Default)]
pub struct Echo {
    conns: HashMap<ConnId, EchoConn>,
}

#[derive(Default)]
struct EchoConn {
    waiting: Vec<u8>,
    is_sending: bool,
    is_paused: bool,
    is_eof: bool,
}

impl Echo {
    pub const HIGH: usize = 256 * 1024;
    pub const LOW: usize = 64 * 1024;

    fn flush(&mut self, conn: ConnId, hands: &mut Hands) {
        let Some(echo) = self.conns.get_mut(&conn) else { return };
        if !echo.is_sending && !echo.waiting.is_empty() {
            echo.is_sending = true;
            let buffer = std::mem::take(&mut echo.waiting);
            hands.outputs.push_back(Output::Transmit { conn, buffer });
        }
        if echo.is_eof && !echo.is_sending && echo.waiting.is_empty() {
            hands.close(conn, CloseMode::Flush);
            self.conns.remove(&conn);
            return;
        }
        if !echo.is_paused && echo.waiting.len() > Self::HIGH {
            echo.is_paused = true;
            hands.outputs.push_back(Output::PauseRead(conn));
        } else if echo.is_paused && echo.waiting.len() < Self::LOW {
            echo.is_paused = false;
            hands.outputs.push_back(Output::ResumeRead(conn));
        }
    }
}

impl Machine for Echo {
    fn see(&mut self, _now: Instant, seen: &Seen, hands: &mut Hands) {
        match seen {
            Seen::Accepted(conn, _) => {
                self.conns.insert(*conn, EchoConn::default());
            }
            Seen::Received(conn, bytes) => {
                if let Some(echo) = self.conns.get_mut(conn) {
                    echo.waiting.extend_from_slice(bytes);
                    assert!(
                        echo.waiting.len() <= Self::HIGH + (READS_IN_FLIGHT + BATCH_MAX) * 65536
                    );
                }
                self.flush(*conn, hands);
            }
            Seen::Eof(conn) => {
                if let Some(echo) = self.conns.get_mut(conn) {
                    echo.is_eof = true;
                }
                self.flush(*conn, hands);
            }
            Seen::Sent(conn, _) => {
                if let Some(echo) = self.conns.get_mut(conn) {
                    echo.is_sending = false;
                }
                self.flush(*conn, hands);
            }
            Seen::Closed(conn, _) => {
                self.conns.remove(conn);
            }
            Seen::Connected(_) | Seen::Resolved(..) | Seen::Signal(_) | Seen::TimedOut => {}
        }
    }
}

/// A host that hears everything and does nothing.
struct Deaf;

impl Host for Deaf {
    fn event(&mut self, _: Event) {}
    fn errand(&mut self, _: Errand) {}
    fn notice(&mut self, _: Recipient, _: Notice) {}
}
