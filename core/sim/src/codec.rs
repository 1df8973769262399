//! RESP as the far ends speak it: clients encode requests and read replies, servers the reverse.
//!
//! Deliberately not the scanner of the core: an oracle that shares code with what it judges is
//! blind to that code's faults.

use std::fmt;

/// Bytes in a queue, readable as one slice.
#[derive(Debug, Default)]
pub(crate) struct Bytes {
    stored: Vec<u8>,
    start: usize,
}

impl Bytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.stored[self.start..]
    }

    pub(crate) const fn len(&self) -> usize {
        self.stored.len() - self.start
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.start == self.stored.len() {
            self.clear();
        } else if self.start > 64 * 1024 {
            self.stored.drain(..self.start);
            self.start = 0;
        }
        self.stored.extend_from_slice(bytes);
    }

    pub(crate) fn skip(&mut self, count: usize) {
        self.start += count;
        assert!(self.start <= self.stored.len(), "skipped what is not there");
    }

    pub(crate) fn clear(&mut self) {
        self.stored.clear();
        self.start = 0;
    }
}

/// A reply as a client sees it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Status(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Option<Vec<Self>>),
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(text) => write!(f, "+{}", text.escape_ascii()),
            Self::Error(text) => write!(f, "-{}", text.escape_ascii()),
            Self::Integer(number) => write!(f, ":{number}"),
            Self::Bulk(None) => write!(f, "$nil"),
            Self::Bulk(Some(value)) => {
                let head = &value[..value.len().min(40)];
                write!(f, "${} {}", value.len(), head.escape_ascii())
            }
            Self::Array(None) => write!(f, "*nil"),
            Self::Array(Some(items)) => f.debug_list().entries(items).finish(),
        }
    }
}

/// What stands at the front of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<T> {
    /// A value and the bytes that it takes.
    Whole(T, usize),
    /// Not before so many bytes are there.
    Needs(usize),
    /// Never, with the reason.
    Broken(&'static str),
}

/// Returns the line at `from` and where the next one starts.
fn line(bytes: &[u8], from: usize) -> Parsed<&[u8]> {
    let rest = &bytes[from.min(bytes.len())..];
    match rest.iter().position(|byte| *byte == b'\n') {
        Some(0) => Parsed::Broken("a line feed without a carriage return"),
        Some(end) if rest[end - 1] != b'\r' => {
            Parsed::Broken("a line feed without a carriage return")
        }
        Some(end) => Parsed::Whole(&rest[..end - 1], from + end + 1),
        None if rest.len() > 64 * 1024 => Parsed::Broken("a line without an end"),
        None => Parsed::Needs(bytes.len() + 1),
    }
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads the body of a bulk string of `length` bytes at `from`.
fn bulk(bytes: &[u8], from: usize, length: usize) -> Parsed<Vec<u8>> {
    let end = from + length;
    if bytes.len() < end + 2 {
        return Parsed::Needs(end + 2);
    }
    if &bytes[end..end + 2] != b"\r\n" {
        return Parsed::Broken("a bulk string that does not end where it says");
    }
    Parsed::Whole(bytes[from..end].to_vec(), end + 2)
}

/// Reads one request: an array of bulk strings.
pub(crate) fn parse_request(bytes: &[u8]) -> Parsed<Vec<Vec<u8>>> {
    let (head, mut at) = match line(bytes, 0) {
        Parsed::Whole(head, next) => (head, next),
        Parsed::Needs(more) => return Parsed::Needs(more),
        Parsed::Broken(why) => return Parsed::Broken(why),
    };
    let count = match head.split_first() {
        Some((b'*', count)) => number(count),
        _ => return Parsed::Broken("a request that is not an array"),
    };
    let Some(count) = count.and_then(|count| usize::try_from(count).ok()).filter(|n| *n > 0) else {
        return Parsed::Broken("an array without a good length");
    };
    let mut words = Vec::new();
    for _ in 0..count {
        let (head, body) = match line(bytes, at) {
            Parsed::Whole(head, next) => (head, next),
            Parsed::Needs(more) => return Parsed::Needs(more),
            Parsed::Broken(why) => return Parsed::Broken(why),
        };
        let length = match head.split_first() {
            Some((b'$', length)) => number(length).and_then(|length| usize::try_from(length).ok()),
            _ => return Parsed::Broken("an argument that is not a bulk string"),
        };
        let Some(length) = length else {
            return Parsed::Broken("a bulk string without a good length");
        };
        match bulk(bytes, body, length) {
            Parsed::Whole(word, next) => {
                words.push(word);
                at = next;
            }
            Parsed::Needs(more) => return Parsed::Needs(more),
            Parsed::Broken(why) => return Parsed::Broken(why),
        }
    }
    Parsed::Whole(words, at)
}

/// Reads one reply of RESP2.
pub(crate) fn parse_reply(bytes: &[u8]) -> Parsed<Reply> {
    reply_at(bytes, 0, 0)
}

fn reply_at(bytes: &[u8], from: usize, depth: usize) -> Parsed<Reply> {
    let (head, next) = match line(bytes, from) {
        Parsed::Whole(head, next) => (head, next),
        Parsed::Needs(more) => return Parsed::Needs(more),
        Parsed::Broken(why) => return Parsed::Broken(why),
    };
    let Some((kind, text)) = head.split_first() else {
        return Parsed::Broken("an empty line");
    };
    match kind {
        b'+' => Parsed::Whole(Reply::Status(text.to_vec()), next),
        b'-' => Parsed::Whole(Reply::Error(text.to_vec()), next),
        b':' => match number(text) {
            Some(value) => Parsed::Whole(Reply::Integer(value), next),
            None => Parsed::Broken("an integer that is none"),
        },
        b'$' if text == b"-1" => Parsed::Whole(Reply::Bulk(None), next),
        b'*' if text == b"-1" => Parsed::Whole(Reply::Array(None), next),
        b'$' => match number(text).and_then(|length| usize::try_from(length).ok()) {
            Some(length) => match bulk(bytes, next, length) {
                Parsed::Whole(value, next) => Parsed::Whole(Reply::Bulk(Some(value)), next),
                Parsed::Needs(more) => Parsed::Needs(more),
                Parsed::Broken(why) => Parsed::Broken(why),
            },
            None => Parsed::Broken("a bulk string without a good length"),
        },
        b'*' if depth < 4 => match number(text).and_then(|count| usize::try_from(count).ok()) {
            Some(count) => array_at(bytes, next, count, depth),
            None => Parsed::Broken("an array without a good length"),
        },
        _ => Parsed::Broken("a reply of no known type"),
    }
}

fn array_at(bytes: &[u8], from: usize, count: usize, depth: usize) -> Parsed<Reply> {
    let mut items = Vec::new();
    let mut at = from;
    for _ in 0..count {
        match reply_at(bytes, at, depth + 1) {
            Parsed::Whole(item, next) => {
                items.push(item);
                at = next;
            }
            Parsed::Needs(more) => return Parsed::Needs(more),
            Parsed::Broken(why) => return Parsed::Broken(why),
        }
    }
    Parsed::Whole(Reply::Array(Some(items)), at)
}

/// Writes a request as an array of bulk strings.
pub(crate) fn encode_request(words: &[Vec<u8>], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes a reply.
pub(crate) fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Status(text) => {
            out.push(b'+');
            out.extend_from_slice(text);
        }
        Reply::Error(text) => {
            out.push(b'-');
            out.extend_from_slice(text);
        }
        Reply::Integer(value) => out.extend_from_slice(format!(":{value}").as_bytes()),
        Reply::Bulk(None) => out.extend_from_slice(b"$-1"),
        Reply::Bulk(Some(value)) => {
            out.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
            out.extend_from_slice(value);
        }
        Reply::Array(None) => out.extend_from_slice(b"*-1"),
        Reply::Array(Some(items)) => {
            out.extend_from_slice(format!("*{}\r\n", items.len()).as_bytes());
            for item in items {
                encode_reply(item, out);
            }
            return;
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_only_with_its_last_byte() {
        let mut bytes = Vec::new();
        let words = vec![b"SET".to_vec(), b"a\r\nb".to_vec(), Vec::new()];
        encode_request(&words, &mut bytes);
        for end in 0..bytes.len() {
            assert!(matches!(parse_request(&bytes[..end]), Parsed::Needs(more) if more > end));
        }
        assert_eq!(parse_request(&bytes), Parsed::Whole(words, bytes.len()));
    }

    #[test]
    fn every_kind_of_reply_survives_the_wire() {
        let reply = Reply::Array(Some(vec![
            Reply::Status(b"OK".to_vec()),
            Reply::Error(b"ERR no".to_vec()),
            Reply::Integer(-7),
            Reply::Bulk(None),
            Reply::Bulk(Some(b"\r\n".to_vec())),
            Reply::Array(None),
        ]));
        let mut bytes = Vec::new();
        encode_reply(&reply, &mut bytes);
        for end in 0..bytes.len() {
            assert!(matches!(parse_reply(&bytes[..end]), Parsed::Needs(_)));
        }
        assert_eq!(parse_reply(&bytes), Parsed::Whole(reply, bytes.len()));
    }

    #[test]
    fn a_wrong_length_is_broken() {
        assert!(matches!(parse_reply(b"$3\r\nabcde\r\n"), Parsed::Broken(_)));
        assert!(matches!(parse_reply(b"%1\r\n"), Parsed::Broken(_)));
        assert!(matches!(parse_request(b"*1\r\n:1\r\n"), Parsed::Broken(_)));
    }
}
