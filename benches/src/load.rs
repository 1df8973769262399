//! The load generator: one thread, one edge-triggered event queue, closed loop.
//!
//! Every client sends `depth` requests in one write, waits for all their replies, checks each of
//! them byte for byte where it matters, and sends the next ones. The latency of a request runs
//! from just before that write to the moment its whole reply has been read. The fake servers are
//! driven by the same queue. Nothing here connects to anything but loopback.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::Timespec;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::data::{Frames, KEY_BYTES, Protocol, SMALL, Seen, Space, VALUE_BYTES_MAX, key};
use crate::memcached;
use crate::process;
use crate::servers::{self, Counts, Peer};
use crate::turns::Turns;
use crate::workload::{Requests, Workload};

/// Bytes that one read of a fake server takes at most.
const SCRATCH_BYTES: usize = 256 << 10;
/// Events taken from the queue at once.
const EVENTS_MAX: usize = 1024;
/// Longest latency that the histogram can hold, in nanoseconds; longer ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// How long replies may be outstanding after the last request before a run has failed.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// Every how many replies the whole pattern is compared.
const EVERY_BYTE_PERIOD: u64 = 64;

const KIND_SHIFT: u32 = 32;
const KIND_LISTENER: u64 = 0;
const KIND_PEER: u64 = 1;
const KIND_CLIENT: u64 = 2;

/// How long a run takes and when it stops.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Load before the measured window.
    pub warm_up: Duration,
    /// The measured window.
    pub window: Duration,
    /// Requests in all after which the run stops early.
    pub requests_max: u64,
}

/// What one run measured in its window.
pub struct Sample {
    /// Requests whose replies came in the window.
    pub requests: u64,
    /// Commands that the fake servers answered in the window.
    pub commands: u64,
    /// The window as it came out.
    pub window: Duration,
    /// What the meter counted in the window.
    pub metered: Metered,
    /// The same of the generator and its fake servers.
    pub load: Metered,
    /// Latencies in nanoseconds.
    pub latency: Histogram<u64>,
}

impl Sample {
    /// The larger share of the window that the target or the load waited for its core.
    pub fn disturbance(&self) -> f64 {
        let waited = self.metered.wait_ns.max(self.load.wait_ns);
        waited as f64 / 1e9 / self.window.as_secs_f64().max(1e-9)
    }
}

/// CPU time and waiting time of a program, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metered {
    /// On a CPU, user and kernel.
    pub cpu_ns: u64,
    /// Runnable, but waiting for a CPU: shows disturbance by other programs.
    pub wait_ns: u64,
}

impl Metered {
    fn since(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            wait_ns: self.wait_ns.saturating_sub(earlier.wait_ns),
        }
    }
}

/// The generator with its fake servers.
pub struct Engine {
    queue: OwnedFd,
    frames: Rc<Frames>,
    protocol: Protocol,
    listeners: Vec<(TcpListener, SocketAddr)>,
    peers: Vec<Option<Peer>>,
    counts: Counts,
    clients: Vec<Client>,
    events: Vec<epoll::Event>,
    scratch: Vec<u8>,
    random: u64,
    /// Poll instead of sleeping when nothing is ready.
    pub spin: bool,
    /// Both cores by turns, where load and program are not to share them.
    pub turns: Option<Turns>,
}

/// What the clients of a run share.
struct Flow<'a> {
    frames: &'a Frames,
    protocol: Protocol,
    requests: Requests,
    space: Space,
    depth: usize,
    random: &'a mut u64,
    is_open: bool,
    is_measured: bool,
    done: u64,
    latency: Histogram<u64>,
    begun: Instant,
    checked: u64,
    /// Memory for the keys of one MGET.
    numbers: Vec<u32>,
}

#[derive(Clone, Copy)]
enum Due {
    Ok,
    /// memcached's word for it.
    Stored,
    Array(usize),
    /// The end of memcached's values.
    End,
    /// The value of a key; `ends` when the request is complete with it.
    Value {
        number: u32,
        ends: bool,
    },
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    parsed: usize,
    out: Vec<u8>,
    sent: usize,
    due: Vec<Due>,
    next: usize,
    sent_ns: u64,
}

impl Engine {
    /// Starts this many fake servers on free ports.
    pub fn new(servers: usize) -> io::Result<Self> {
        let queue = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut listeners = Vec::new();
        for at in 0..servers {
            let (listener, address) = servers::listen()?;
            let data = epoll::EventData::new_u64((KIND_LISTENER << KIND_SHIFT) | at as u64);
            epoll::add(&queue, &listener, data, epoll::EventFlags::IN)?;
            listeners.push((listener, address));
        }
        Ok(Self {
            queue,
            frames: Rc::new(Frames::new()),
            protocol: Protocol::Resp,
            listeners,
            peers: Vec::new(),
            counts: Counts::default(),
            clients: Vec::new(),
            events: Vec::with_capacity(EVENTS_MAX),
            scratch: vec![0; SCRATCH_BYTES],
            random: 0x9e37_79b9_7f4a_7c15,
            spin: false,
            turns: None,
        })
    }

    /// Where the fake servers listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(_, address)| *address).collect()
    }

    /// The frames that the fake servers answer with.
    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    /// Chooses what clients speak from now on; the fake servers answer in whatever they are asked.
    pub fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.frames = Rc::new(Frames::of(protocol));
    }

    /// What clients speak.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What the fake servers counted so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Lets the fake servers work for a while.
    pub fn pump(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            self.turn(None, left.min(Duration::from_millis(20)))?;
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// Asks the target for one key until it answers rightly or the time is over.
    pub fn wait_until_ready(&mut self, target: SocketAddr, limit: Duration) -> io::Result<()> {
        let end = Instant::now() + limit;
        loop {
            let problem = match self.probe(target) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if Instant::now() > end {
                return Err(io::Error::other(format!("{target} is not ready: {problem}")));
            }
            self.pump(Duration::from_millis(5))?;
        }
    }

    fn probe(&mut self, target: SocketAddr) -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(1))?;
        let key = key(SMALL.letter, 1);
        let mut request = Vec::new();
        match self.protocol {
            Protocol::Resp => write_get(&key, &mut request),
            Protocol::Memcached => memcached::write_get(SMALL.letter, &[1], &mut request),
        }
        stream.write_all(&request)?;
        stream.set_nonblocking(true)?;
        let (mut reply, mut size) = ([0; 256], 0);
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            self.pump(Duration::from_millis(1))?;
            match stream.read(&mut reply[size..]) {
                Ok(0) => return Err(io::Error::other("closed")),
                Ok(more) => size += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            let frame = self.frames.frame(SMALL.letter, 1).expect("a known space");
            match frame.check(&key, &reply[..size], true) {
                Seen::Part => {}
                Seen::Whole(_) => return Ok(()),
                Seen::Wrong => {
                    let text = String::from_utf8_lossy(&reply[..size.min(80)]).into_owned();
                    return Err(io::Error::other(format!("answered {text:?}")));
                }
            }
        }
        Err(io::Error::other("no reply"))
    }

    /// Drives one workload at a target and measures it; clients are dealt out over its addresses.
    ///
    /// `meter` is read at both ends of the window. Ends with an error as soon as one reply is not
    /// the one due.
    pub fn run(
        &mut self,
        workload: &Workload,
        target: &[SocketAddr],
        plan: Plan,
        meter: &dyn Fn() -> io::Result<Metered>,
    ) -> io::Result<Sample> {
        let result = self.run_clients(workload, target, plan, meter);
        // Closing takes the sockets out of the event queue.
        self.clients.clear();
        result
    }

    fn run_clients(
        &mut self,
        workload: &Workload,
        target: &[SocketAddr],
        plan: Plan,
        meter: &dyn Fn() -> io::Result<Metered>,
    ) -> io::Result<Sample> {
        self.connect(workload, target)?;
        let faults = self.counts.faults;
        let mut random = self.random;
        let frames = Rc::clone(&self.frames);
        let mut flow = Flow::new(&frames, self.protocol, workload, &mut random)?;
        for at in 0..self.clients.len() {
            self.clients[at].refill(&mut flow)?;
        }
        let warm_up_end = Instant::now() + plan.warm_up;
        self.drive(&mut flow, warm_up_end, plan.requests_max)?;

        let load = process::metered(std::process::id())?;
        let before = (meter()?, self.counts.commands, flow.done);
        let begin = Instant::now();
        flow.is_measured = true;
        self.drive(&mut flow, begin + plan.window, plan.requests_max)?;
        let (window, after) = (begin.elapsed(), meter()?);
        let load = process::metered(std::process::id())?.since(load);
        let (commands, done) = (self.counts.commands, flow.done);
        flow.is_measured = false;

        flow.is_open = false;
        self.drain(&mut flow)?;
        let latency = flow.latency;
        self.random = random;
        if self.counts.faults != faults {
            return Err(io::Error::other("a fake server received a wrong request"));
        }
        Ok(Sample {
            requests: done - before.2,
            commands: commands - before.1,
            window,
            metered: after.since(before.0),
            load,
            latency,
        })
    }

    fn connect(&mut self, workload: &Workload, target: &[SocketAddr]) -> io::Result<()> {
        let is_here = target.iter().all(|address| address.ip().is_loopback());
        assert!(is_here, "load goes to this machine only");
        for (at, address) in (0..workload.clients).zip(target.iter().cycle()) {
            let stream = TcpStream::connect_timeout(address, Duration::from_secs(5))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            servers::choose_reno(&stream);
            let data = epoll::EventData::new_u64((KIND_CLIENT << KIND_SHIFT) | at as u64);
            epoll::add(&self.queue, &stream, data, edge_triggered())?;
            self.clients.push(Client::new(stream, workload));
            if at % 64 == 63 {
                self.pump(Duration::from_millis(1))?;
            }
        }
        Ok(())
    }

    fn drive(&mut self, flow: &mut Flow<'_>, end: Instant, requests_max: u64) -> io::Result<()> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || flow.done >= requests_max {
                return Ok(());
            }
            if let Some(turns) = self.turns.take() {
                let result = self.take_turn(&turns, flow);
                self.turns = Some(turns);
                result?;
            } else {
                self.turn(Some(flow), left.min(Duration::from_millis(20)))?;
            }
        }
    }

    /// Does all that there is to do with both cores, then leaves them.
    fn take_turn(&mut self, turns: &Turns, flow: &mut Flow<'_>) -> io::Result<()> {
        turns.take()?;
        while self.turn(Some(flow), Duration::ZERO)? > 0 {}
        turns.leave();
        Ok(())
    }

    fn drain(&mut self, flow: &mut Flow<'_>) -> io::Result<()> {
        let end = Instant::now() + DRAIN_TIME_MAX;
        while self.clients.iter().any(|client| client.next < client.due.len()) {
            if Instant::now() > end {
                return Err(io::Error::other("replies did not come"));
            }
            self.turn(Some(flow), Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// Waits for something to do, at most this long; returns how much it was.
    fn turn(&mut self, mut flow: Option<&mut Flow<'_>>, time: Duration) -> io::Result<usize> {
        // Whole milliseconds take the older, cheaper system call.
        let ms = if self.spin { 0 } else { time.as_millis() as i64 };
        let timeout = Timespec { tv_sec: ms / 1000, tv_nsec: (ms % 1000) * 1_000_000 };
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let space = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.queue, space, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let result = events.iter().try_for_each(|event| self.handle_event(event, &mut flow));
        let count = events.len();
        self.events = events;
        result.map(|()| count)
    }

    fn handle_event(
        &mut self,
        event: &epoll::Event,
        flow: &mut Option<&mut Flow<'_>>,
    ) -> io::Result<()> {
        let data = event.data.u64();
        let at = (data & 0xffff_ffff) as usize;
        match (data >> KIND_SHIFT, flow) {
            (KIND_PEER, _) => self.handle_peer(at),
            (KIND_CLIENT, Some(flow)) => self.clients[at].handle_ready(flow),
            (KIND_LISTENER, _) => self.accept(at),
            _ => Ok(()),
        }
    }

    /// Takes in all that wait: while clients connect, few turns pass, and a full backlog would make
    /// the next connect wait for a turn that only comes after it.
    fn accept(&mut self, at: usize) -> io::Result<()> {
        loop {
            let stream = match self.listeners[at].0.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let peer = Peer::new(stream)?;
            let slot = self.peers.iter().position(Option::is_none).unwrap_or(self.peers.len());
            let data = epoll::EventData::new_u64((KIND_PEER << KIND_SHIFT) | slot as u64);
            epoll::add(&self.queue, peer.stream(), data, edge_triggered())?;
            if slot == self.peers.len() {
                self.peers.push(None);
            }
            self.peers[slot] = Some(peer);
        }
    }

    fn handle_peer(&mut self, at: usize) -> io::Result<()> {
        let Some(peer) = &mut self.peers[at] else { return Ok(()) };
        if !peer.handle_ready(&self.frames, &mut self.scratch, &mut self.counts)? {
            self.peers[at] = None;
        }
        Ok(())
    }
}

/// Both directions, told only on a change: no system call to switch writing on and off.
fn edge_triggered() -> epoll::EventFlags {
    epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET
}

impl<'a> Flow<'a> {
    fn new(
        frames: &'a Frames,
        protocol: Protocol,
        workload: &Workload,
        random: &'a mut u64,
    ) -> io::Result<Self> {
        let latency = Histogram::new_with_bounds(100, LATENCY_NS_MAX, 3)
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self {
            frames,
            protocol,
            requests: workload.requests,
            space: workload.space,
            depth: workload.depth,
            random,
            is_open: true,
            is_measured: false,
            done: 0,
            latency,
            begun: Instant::now(),
            checked: 0,
            numbers: Vec::new(),
        })
    }

    fn now_ns(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    fn random_below(&mut self, limit: u64) -> u64 {
        random_below(self.random, limit)
    }
}

/// A number below `limit`; xorshift64*, the high half scaled.
fn random_below(state: &mut u64, limit: u64) -> u64 {
    let mut x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    ((x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) * limit) >> 32
}

impl Client {
    fn new(stream: TcpStream, workload: &Workload) -> Self {
        let value = workload.space.sizes.iter().copied().max().unwrap_or(0) + 40;
        let values = match workload.requests {
            Requests::Get | Requests::GetAndSet(_) => 1,
            Requests::Mget(keys) => keys,
        };
        // Room for one byte more than is due, so that a surplus is seen.
        let room = workload.depth * (values * value + 16) + 1;
        assert!(room <= 64 * (VALUE_BYTES_MAX + 32), "too large a window per client");
        Self {
            stream,
            input: vec![0; room],
            filled: 0,
            parsed: 0,
            out: Vec::new(),
            sent: 0,
            due: Vec::new(),
            next: 0,
            sent_ns: 0,
        }
    }

    fn handle_ready(&mut self, flow: &mut Flow<'_>) -> io::Result<()> {
        self.flush()?;
        loop {
            let room = self.input.len() - self.filled;
            if room == 0 {
                return Err(self.wrong());
            }
            let size = match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err(io::Error::other("the target closed a client")),
                Ok(size) => size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.filled += size;
            let done = self.check(flow)?;
            if done > 0 {
                flow.done += done;
                if flow.is_measured {
                    let latency = flow.now_ns().saturating_sub(self.sent_ns);
                    flow.latency.saturating_record_n(latency, done);
                }
            }
            if self.next == self.due.len() {
                if self.parsed != self.filled {
                    return Err(self.wrong());
                }
                self.filled = 0;
                self.parsed = 0;
                if flow.is_open {
                    self.refill(flow)?;
                }
            }
            if size < room {
                return Ok(());
            }
        }
    }

    /// Checks what has come; returns how many requests are complete with it.
    fn check(&mut self, flow: &mut Flow<'_>) -> io::Result<u64> {
        let mut done = 0;
        while let Some(due) = self.due.get(self.next) {
            let seen = &self.input[self.parsed..self.filled];
            let (result, ends) = match *due {
                Due::Ok => (check_exactly(b"+OK\r\n", seen), true),
                Due::Stored => (check_exactly(b"STORED\r\n", seen), true),
                Due::End => (check_exactly(b"END\r\n", seen), true),
                Due::Array(size) => (check_exactly(format!("*{size}\r\n").as_bytes(), seen), false),
                Due::Value { number, ends } => {
                    let Some(frame) = flow.frames.frame(flow.space.letter, number) else {
                        return Err(self.wrong());
                    };
                    flow.checked += 1;
                    let every_byte = flow.checked.is_multiple_of(EVERY_BYTE_PERIOD);
                    (frame.check(&key(flow.space.letter, number), seen, every_byte), ends)
                }
            };
            match result {
                Seen::Part => break,
                Seen::Wrong => return Err(self.wrong()),
                Seen::Whole(size) => self.parsed += size,
            }
            self.next += 1;
            done += u64::from(ends);
        }
        Ok(done)
    }

    fn wrong(&self) -> io::Error {
        let seen = &self.input[self.parsed..self.filled.min(self.parsed + 80)];
        io::Error::other(format!("a wrong reply: {:?}", String::from_utf8_lossy(seen)))
    }

    /// Writes the next requests of this client.
    fn refill(&mut self, flow: &mut Flow<'_>) -> io::Result<()> {
        self.due.clear();
        self.next = 0;
        for _ in 0..flow.depth {
            self.write_request(flow);
        }
        self.sent_ns = flow.now_ns();
        self.flush()
    }

    fn write_request(&mut self, flow: &mut Flow<'_>) {
        let keys = u64::from(flow.space.keys);
        let number = flow.random_below(keys) as u32;
        let chance = flow.random_below(100);
        if flow.protocol == Protocol::Memcached {
            return self.write_memcached(flow, number, chance);
        }
        match flow.requests {
            Requests::GetAndSet(share) if chance < share => {
                let Some(frame) = flow.frames.frame(flow.space.letter, number) else { return };
                write_set(&key(flow.space.letter, number), frame, &mut self.out);
                self.due.push(Due::Ok);
            }
            Requests::Get | Requests::GetAndSet(_) => {
                write_get(&key(flow.space.letter, number), &mut self.out);
                self.due.push(Due::Value { number, ends: true });
            }
            Requests::Mget(count) => {
                let numbers = &mut flow.numbers;
                numbers.clear();
                for _ in 0..count {
                    numbers.push(random_below(flow.random, keys) as u32);
                }
                write_mget(flow.space.letter, numbers, &mut self.out);
                self.due.push(Due::Array(count));
                self.due.extend(
                    (1..)
                        .zip(numbers.iter())
                        .map(|(at, number)| Due::Value { number: *number, ends: at == count }),
                );
            }
        }
    }

    fn write_memcached(&mut self, flow: &mut Flow<'_>, number: u32, chance: u64) {
        let letter = flow.space.letter;
        flow.numbers.clear();
        match flow.requests {
            Requests::GetAndSet(share) if chance < share => {
                let Some(frame) = flow.frames.frame(letter, number) else { return };
                memcached::write_set(&key(letter, number), frame, &mut self.out);
                self.due.push(Due::Stored);
                return;
            }
            Requests::Get | Requests::GetAndSet(_) => flow.numbers.push(number),
            Requests::Mget(count) => {
                for _ in 0..count {
                    let number = random_below(flow.random, u64::from(flow.space.keys)) as u32;
                    flow.numbers.push(number);
                }
            }
        }
        memcached::write_get(letter, &flow.numbers, &mut self.out);
        let values = flow.numbers.iter().map(|number| Due::Value { number: *number, ends: false });
        self.due.extend(values);
        self.due.push(Due::End);
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(size) => self.sent += size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }
}

fn check_exactly(due: &[u8], seen: &[u8]) -> Seen {
    let size = due.len().min(seen.len());
    if seen[..size] != due[..size] {
        Seen::Wrong
    } else if size < due.len() {
        Seen::Part
    } else {
        Seen::Whole(size)
    }
}

fn write_bulk(key: &[u8; KEY_BYTES], out: &mut Vec<u8>) {
    out.extend_from_slice(b"$10\r\n");
    out.extend_from_slice(key);
    out.extend_from_slice(b"\r\n");
}

/// Appends a GET.
pub fn write_get(key: &[u8; KEY_BYTES], out: &mut Vec<u8>) {
    out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
    write_bulk(key, out);
}

/// Appends an MGET of these keys.
pub fn write_mget(letter: u8, numbers: &[u32], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n$4\r\nMGET\r\n", numbers.len() + 1).as_bytes());
    for number in numbers {
        write_bulk(&key(letter, *number), out);
    }
}

/// Appends a SET of the value that belongs to the key.
pub fn write_set(key: &[u8; KEY_BYTES], frame: &crate::data::Frame, out: &mut Vec<u8>) {
    out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
    write_bulk(key, out);
    frame.write(key, out);
}
