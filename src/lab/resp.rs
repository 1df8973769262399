//! A small client of Redis' protocol, which waits for each reply.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes of the longest string that is believed.
const BULK_BYTES_MAX: usize = 1 << 20;

/// Bytes of the longest line.
const LINE_BYTES_MAX: u64 = 4096;

/// Items of the longest list.
const ITEMS_MAX: usize = 4096;

/// How deep lists may stand in lists; what is asked here has two levels.
const DEPTH_MAX: usize = 4;

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A status, a string or a number.
    Text(String),
    /// An error.
    Error(String),
    /// Nothing.
    Nil,
    /// A list.
    List(Vec<Self>),
}

impl Reply {
    /// Returns the text; empty if it is none.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Error(text) => text,
            Self::Nil | Self::List(_) => "",
        }
    }

    /// Returns the list; empty if it is none.
    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            Self::Text(_) | Self::Error(_) | Self::Nil => &[],
        }
    }
}

/// One connection.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects; both connecting and each reply may take a time.
    ///
    /// # Errors
    ///
    /// Nobody is there in time.
    pub(super) fn connect(at: SocketAddr, connect: Duration, reply: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&at, connect)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(reply))?;
        stream.set_write_timeout(Some(reply))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks and waits for the reply.
    ///
    /// # Errors
    ///
    /// The connection ended, the reply is late, or it is none.
    pub(super) fn ask(&mut self, words: &[&str]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.reply(DEPTH_MAX)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let stream = self.stream.by_ref();
        stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Reads one reply; lists of more than `depth` levels are refused.
    fn reply(&mut self, depth: usize) -> io::Result<Reply> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(bad)?;
        match kind {
            "+" | ":" => Ok(Reply::Text(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            "$" | "*" if rest == "-1" => Ok(Reply::Nil),
            "$" => {
                let len: usize = rest.parse().map_err(|_| bad())?;
                if len > BULK_BYTES_MAX {
                    return Err(bad());
                }
                let mut bytes = vec![0; len + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(len);
                Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
            "*" => {
                let count: usize = rest.parse().map_err(|_| bad())?;
                if count > ITEMS_MAX || depth == 0 {
                    return Err(bad());
                }
                (0..count)
                    .map(|_| self.reply(depth - 1))
                    .collect::<io::Result<_>>()
                    .map(Reply::List)
            }
            _ => Err(bad()),
        }
    }
}

/// Asks once, on a connection of its own.
///
/// # Errors
///
/// Nobody is there in time, or what came is no reply.
pub(super) fn ask(at: SocketAddr, words: &[&str]) -> io::Result<Reply> {
    let (connect, reply) = (Duration::from_millis(200), Duration::from_millis(1000));
    Client::connect(at, connect, reply)?.ask(words)
}

/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of the longest page.
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// Fetches a page by HTTP.
///
/// # Errors
///
/// Nobody is there, or answers too late.
pub(super) fn page(at: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answer(bytes: &'static [u8]) -> io::Result<Reply> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 14];
            stream.read_exact(&mut asked).unwrap();
            stream.write_all(bytes).unwrap();
        });
        let second = Duration::from_secs(10);
        let reply = Client::connect(at, second, second).unwrap().ask(&["PING"]);
        server.join().unwrap();
        reply
    }

    #[test]
    fn replies_of_every_kind_are_read() {
        let text = |text: &str| Reply::Text(text.to_owned());
        assert_eq!(answer(b"+PONG\r\n").unwrap(), text("PONG"));
        assert_eq!(answer(b":7\r\n").unwrap(), text("7"));
        assert_eq!(answer(b"$3\r\na\r\n\r\n").unwrap(), text("a\r\n"));
        assert_eq!(answer(b"$-1\r\n").unwrap(), Reply::Nil);
        assert_eq!(answer(b"-ERR no\r\n").unwrap(), Reply::Error("ERR no".to_owned()));
        let list = Reply::List(vec![text("a"), Reply::List(vec![Reply::Nil])]);
        assert_eq!(answer(b"*2\r\n+a\r\n*1\r\n$-1\r\n").unwrap(), list);
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for bytes in [&b"hello\r\n"[..], b"+cut", b"$99999999\r\n", b"*99999\r\n", b"\r\n", b""] {
            assert!(answer(bytes).is_err(), "{bytes:?}");
        }
        assert!(answer(b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n+deep\r\n").is_err());
    }
}
