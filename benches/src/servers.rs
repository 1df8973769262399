//! Fake servers: they answer at the least possible cost and live in the generator's thread.
//!
//! They share the generator's event queue, so that one core carries the whole load side and the
//! other core the proxy alone. They know GET, SET, MGET, PING and little else.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::fd::AsFd;
use rustix::net::sockopt::set_tcp_congestion;

use crate::data::{Frames, KEY_BYTES, Seen, parse_key};
use crate::memcached;

/// Unsent bytes above which a connection is no longer read.
const UNSENT_BYTES_MAX: usize = 4 << 20;

/// Most arguments in one request.
const ARGUMENTS_MAX: usize = 64;

/// One connection from a proxy to a fake server.
pub struct Peer {
    stream: TcpStream,
    /// The front of a request whose end has not come.
    carry: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    /// Reading stopped although the socket may hold more.
    is_paused: bool,
}

/// What has been counted by all fake servers since they started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Commands answered, also the fragments of a split request.
    pub commands: u64,
    /// Requests that were malformed or carried a value other than the one due.
    pub faults: u64,
}

/// Listens on a free loopback port.
pub fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    choose_reno(&listener);
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Switches a socket of the load side to the cheapest congestion control.
///
/// Nothing is congested on loopback, and one that paces (bbr) spends the load's core on timers.
/// The sockets of the programs under test keep what the system gives them.
pub fn choose_reno(socket: impl AsFd) {
    // Without it the load is only a little dearer.
    let _ = set_tcp_congestion(socket, "reno");
}

impl Peer {
    /// Takes over an accepted connection.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, carry: Vec::new(), out: Vec::new(), sent: 0, is_paused: false })
    }

    /// The socket, to register it.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads, answers and writes as far as the socket goes; false when the connection ended.
    ///
    /// The event queue is edge-triggered: a short read tells that the socket is empty.
    pub fn handle_ready(
        &mut self,
        frames: &Frames,
        scratch: &mut [u8],
        counts: &mut Counts,
    ) -> io::Result<bool> {
        self.flush()?;
        loop {
            self.is_paused = self.out.len() - self.sent > UNSENT_BYTES_MAX;
            if self.is_paused {
                return Ok(true);
            }
            let size = match self.stream.read(scratch) {
                Ok(0) => return Ok(false),
                Ok(size) => size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Ok(false),
            };
            self.handle_bytes(frames, &scratch[..size], counts);
            self.flush()?;
            if size < scratch.len() {
                break;
            }
        }
        Ok(true)
    }

    fn handle_bytes(&mut self, frames: &Frames, bytes: &[u8], counts: &mut Counts) {
        if self.carry.is_empty() {
            let used = answer_all(frames, bytes, &mut self.out, counts);
            self.carry.extend_from_slice(&bytes[used..]);
        } else {
            self.carry.extend_from_slice(bytes);
            let used = answer_all(frames, &self.carry, &mut self.out, counts);
            self.carry.drain(..used);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(size) => self.sent += size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The next read tells that the connection is gone.
                Err(_) => self.sent = self.out.len(),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }
}

/// Answers every whole request at the front of `bytes`; returns how many bytes they took.
pub fn answer_all(frames: &Frames, bytes: &[u8], out: &mut Vec<u8>, counts: &mut Counts) -> usize {
    let mut used = 0;
    let mut ends = [(0usize, 0usize); ARGUMENTS_MAX];
    loop {
        // Whoever asks in memcached's protocol begins with a letter.
        if bytes.get(used).is_some_and(u8::is_ascii_lowercase) {
            match memcached::answer(frames, &bytes[used..], out, counts) {
                Some(0) => return used,
                Some(size) => used += size,
                None => {
                    counts.faults += 1;
                    out.extend_from_slice(b"ERROR\r\n");
                    return bytes.len();
                }
            }
            continue;
        }
        match parse_request(&bytes[used..], &mut ends) {
            Parsed::Part => return used,
            Parsed::Whole { arguments, bytes: size } => {
                counts.commands += 1;
                answer(frames, &bytes[used..used + size], &ends[..arguments], out, counts);
                used += size;
            }
            Parsed::Malformed => {
                counts.faults += 1;
                out.extend_from_slice(b"-ERR Protocol error\r\n");
                return bytes.len();
            }
        }
    }
}

enum Parsed {
    Part,
    Whole { arguments: usize, bytes: usize },
    Malformed,
}

fn parse_request(bytes: &[u8], arguments: &mut [(usize, usize)]) -> Parsed {
    let Some((count, mut at)) = parse_header(bytes, 0, b'*') else { return Parsed::Part };
    if count == 0 || count > arguments.len() {
        return Parsed::Malformed;
    }
    for argument in &mut arguments[..count] {
        let Some((size, start)) = parse_header(bytes, at, b'$') else { return Parsed::Part };
        if size == usize::MAX {
            return Parsed::Malformed;
        }
        at = start + size + 2;
        if at > bytes.len() {
            return Parsed::Part;
        }
        if bytes[at - 2..at] != *b"\r\n" {
            return Parsed::Malformed;
        }
        *argument = (start, start + size);
    }
    Parsed::Whole { arguments: count, bytes: at }
}

/// Reads `*N\r\n` or `$N\r\n`; a wrong character is told by an impossible number.
fn parse_header(bytes: &[u8], at: usize, mark: u8) -> Option<(usize, usize)> {
    if *bytes.get(at)? != mark {
        return Some((usize::MAX, at));
    }
    let mut number = 0usize;
    let mut at = at + 1;
    loop {
        match *bytes.get(at)? {
            digit @ b'0'..=b'9' if number < 1 << 30 => {
                number = number * 10 + usize::from(digit - b'0');
            }
            b'\r' => {
                bytes.get(at + 1)?;
                return Some((number, at + 2));
            }
            _ => return Some((usize::MAX, at)),
        }
        at += 1;
    }
}

fn answer(
    frames: &Frames,
    request: &[u8],
    arguments: &[(usize, usize)],
    out: &mut Vec<u8>,
    counts: &mut Counts,
) {
    let argument = |at: usize| &request[arguments[at].0..arguments[at].1];
    let name = argument(0);
    if name.eq_ignore_ascii_case(b"GET") && arguments.len() == 2 {
        write_value(frames, argument(1), out);
    } else if name.eq_ignore_ascii_case(b"SET") && arguments.len() == 3 {
        // From the length on: the check is made on the value as a bulk string.
        let header = header_start(request, arguments[2].0);
        if !is_value_due(frames, argument(1), &request[header..]) {
            counts.faults += 1;
        }
        out.extend_from_slice(b"+OK\r\n");
    } else if name.eq_ignore_ascii_case(b"MGET") && arguments.len() > 1 {
        out.extend_from_slice(format!("*{}\r\n", arguments.len() - 1).as_bytes());
        for at in 1..arguments.len() {
            write_value(frames, argument(at), out);
        }
    } else if name.eq_ignore_ascii_case(b"PING") {
        out.extend_from_slice(b"+PONG\r\n");
    } else {
        out.extend_from_slice(b"-ERR unknown command\r\n");
    }
}

fn write_value(frames: &Frames, key: &[u8], out: &mut Vec<u8>) {
    let frame = parse_key(key).and_then(|(letter, number)| frames.frame(letter, number));
    match (frame, <&[u8; KEY_BYTES]>::try_from(key)) {
        (Some(frame), Ok(key)) => frame.write(key, out),
        _ => out.extend_from_slice(b"$-1\r\n"),
    }
}

fn header_start(request: &[u8], value: usize) -> usize {
    request[..value].iter().rposition(|byte| *byte == b'$').unwrap_or(0)
}

fn is_value_due(frames: &Frames, key: &[u8], bulk: &[u8]) -> bool {
    let frame = parse_key(key).and_then(|(letter, number)| frames.frame(letter, number));
    match (frame, <&[u8; KEY_BYTES]>::try_from(key)) {
        (Some(frame), Ok(key)) => frame.check(key, bulk, false) == Seen::Whole(bulk.len()),
        _ => true, // A key that is none of ours carries any value.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(bytes: &[u8]) -> (usize, Vec<u8>, Counts) {
        let (mut out, mut counts) = (Vec::new(), Counts::default());
        let used = answer_all(&Frames::new(), bytes, &mut out, &mut counts);
        (used, out, counts)
    }

    #[test]
    fn a_cut_request_waits() {
        let request = b"*2\r\n$3\r\nget\r\n$10\r\na:00000001\r\n";
        for cut in 0..request.len() {
            assert_eq!(answers(&request[..cut]).0, 0);
        }
        let (used, out, counts) = answers(request);
        assert_eq!((used, out.len()), (request.len(), 5 + 64 + 2));
        assert_eq!((counts.commands, counts.faults), (1, 0));
    }

    #[test]
    fn a_set_of_another_value_is_a_fault() {
        let mut request = b"*3\r\n$3\r\nSET\r\n$10\r\na:00000001\r\n".to_vec();
        let frames = Frames::new();
        frames.frame(b'a', 1).expect("space").write(b"a:00000001", &mut request);
        assert_eq!(answers(&request).2.faults, 0);
        let at = request.len() - 20;
        request[at] ^= 1;
        let (_, out, counts) = answers(&request);
        assert_eq!((out.as_slice(), counts.faults), (b"+OK\r\n".as_slice(), 1));
    }

    #[test]
    fn other_bytes_are_a_fault() {
        assert_eq!(answers(b"PING\r\n").2.faults, 1);
        assert_eq!(answers(b"*1\r\n$4\r\nPING\r\n").1, b"+PONG\r\n");
    }
}
