//! A client that speaks RESP2 and knows nothing of the product's own code.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a reply may take; far longer than any time-out that a test sets.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a proxy or server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Place {
    /// Returns the port of a TCP address.
    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp(at) => at.port(),
            Self::Unix(path) => panic!("{} has no port", path.display()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(SocketAddr::V4(at)) => write!(f, "{at}"),
            // twemproxy's form has no brackets.
            Self::Tcp(SocketAddr::V6(at)) => write!(f, "{}:{}", at.ip(), at.port()),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A reply, as a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Self>),
    NullArray,
}

impl Reply {
    pub fn ok() -> Self {
        Self::Simple("OK".to_owned())
    }

    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(bytes.as_ref().to_vec())
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Returns the text of an error, a status or a bulk.
    pub fn text(&self) -> String {
        match self {
            Self::Simple(text) | Self::Error(text) => text.clone(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("no text: {other:?}"),
        }
    }

    pub fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            other => panic!("no array: {other:?}"),
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{text}"),
            Self::Error(text) => write!(f, "-{text}"),
            Self::Integer(number) => write!(f, ":{number}"),
            Self::Bulk(bytes) if bytes.len() > 80 => write!(f, "${} bytes", bytes.len()),
            Self::Bulk(bytes) => write!(f, "${}", bytes.escape_ascii()),
            Self::Null => write!(f, "$-1"),
            Self::Array(items) => f.debug_list().entries(items).finish(),
            Self::NullArray => write!(f, "*-1"),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection to a proxy or a server.
pub struct Client {
    stream: Stream,
    /// What was received and not yet taken.
    buffer: Vec<u8>,
    taken: usize,
}

impl Client {
    pub fn connect(place: &Place) -> io::Result<Self> {
        let stream = match place {
            Place::Tcp(at) => {
                let stream = TcpStream::connect_timeout(at, PATIENCE)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Place::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        let client = Self { stream, buffer: Vec::new(), taken: 0 };
        client.set_patience(PATIENCE);
        Ok(client)
    }

    pub fn from_stream(stream: TcpStream) -> Self {
        let client = Self { stream: Stream::Tcp(stream), buffer: Vec::new(), taken: 0 };
        client.set_patience(PATIENCE);
        client
    }

    fn set_patience(&self, patience: Duration) {
        let patience = Some(patience.max(Duration::from_millis(1)));
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(patience),
            Stream::Unix(stream) => stream.set_read_timeout(patience),
        }
        .unwrap();
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Says that nothing more will be sent; the other side may have ended before.
    pub fn end_sending(&mut self) {
        let _ = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    fn read_some(&mut self) -> io::Result<usize> {
        if self.taken > 0 && self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
        }
        let start = self.buffer.len();
        self.buffer.resize(start + 64 * 1024, 0);
        let result = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut self.buffer[start..]),
            Stream::Unix(stream) => stream.read(&mut self.buffer[start..]),
        };
        self.buffer.truncate(start + result.as_ref().map_or(0, |count| *count));
        match result {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            other => other,
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        loop {
            let rest = &self.buffer[self.taken..];
            if let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&rest[..end]).into_owned();
                self.taken += end + 2;
                return Ok(line);
            }
            self.read_some()?;
        }
    }

    /// Reads one line, and returns it without its end.
    pub fn line(&mut self) -> io::Result<String> {
        self.read_line()
    }

    fn read_bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() - self.taken < count + 2 {
            self.read_some()?;
        }
        let bytes = self.buffer[self.taken..self.taken + count].to_vec();
        let end = &self.buffer[self.taken + count..self.taken + count + 2];
        assert_eq!(end, b"\r\n", "a bulk ends with its line");
        self.taken += count + 2;
        Ok(bytes)
    }

    /// Reads one reply.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let line = self.read_line()?;
        let (kind, rest) = line.split_at(1);
        let number = || rest.parse::<i64>().unwrap_or_else(|_| panic!("not a reply: {line:?}"));
        Ok(match kind {
            "+" => Reply::Simple(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(number()),
            "$" => match usize::try_from(number()) {
                Ok(count) => Reply::Bulk(self.read_bytes(count)?),
                Err(_) => Reply::Null,
            },
            "*" => match usize::try_from(number()) {
                Ok(count) => {
                    let items: io::Result<_> = (0..count).map(|_| self.reply()).collect();
                    Reply::Array(items?)
                }
                Err(_) => Reply::NullArray,
            },
            _ => panic!("not a reply: {line:?}"),
        })
    }

    /// Sends one command and waits for its reply.
    pub fn try_ask<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Reply> {
        self.send(&request(arguments))?;
        self.reply()
    }

    /// Sends one command and waits for its reply; the connection must live.
    pub fn ask<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Reply {
        self.try_ask(arguments).unwrap_or_else(|error| {
            let command = String::from_utf8_lossy(arguments[0].as_ref()).into_owned();
            panic!("no reply to {command}: {error}")
        })
    }

    /// Returns what comes until the connection ends or nothing came for `quiet`; an end is written
    /// ` <CLOSED>`, a reset ` <RST>`.
    pub fn all_within(&mut self, quiet: Duration) -> String {
        self.set_patience(quiet);
        let ending = loop {
            match self.read_some() {
                Ok(_) => {}
                Err(error) => break error.kind(),
            }
        };
        self.set_patience(PATIENCE);
        let text = String::from_utf8_lossy(&self.buffer[self.taken..]).into_owned();
        self.taken = self.buffer.len();
        match ending {
            ErrorKind::UnexpectedEof => text + " <CLOSED>",
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => text + " <RST>",
            _ => text,
        }
    }

    /// Returns what comes, as soon as it is as long as `expected`, or the connection ends.
    pub fn as_long_as(&mut self, expected: &str) -> String {
        let is_ending = expected.ends_with('>');
        let wanted =
            expected.len() - if is_ending { " <CLOSED>".len().min(expected.len()) } else { 0 };
        let deadline = Instant::now() + PATIENCE;
        while !is_ending && self.buffer.len() - self.taken < wanted && Instant::now() < deadline {
            if self.read_some().is_err() {
                break;
            }
        }
        let quiet = if is_ending { PATIENCE } else { Duration::from_millis(2) };
        self.all_within(quiet)
    }

    /// Whether the other side ends the connection, in one way or the other.
    pub fn is_ended(&mut self) -> bool {
        self.all_within(PATIENCE).ends_with('>')
    }
}

/// Encodes a command.
pub fn request<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
