//! RESP as the far ends speak it: clients encode requests and read replies, servers the reverse.
//!
//! Deliberately not the scanner of the core: an oracle that shares code with what it judges is
//! blind to that code's faults.

use std::fmt;
use std::ops::Deref;

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

/// A reply as a client sees it; its texts are its own, or stand where they were read.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Reply<B = Vec<u8>> {
    Status(B),
    Error(B),
    Integer(i64),
    Bulk(Option<B>),
    Array(Option<Vec<Self>>),
}

impl<B: AsRef<[u8]>> fmt::Debug for Reply<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(text) => write!(f, "+{}", text.as_ref().escape_ascii()),
            Self::Error(text) => write!(f, "-{}", text.as_ref().escape_ascii()),
            Self::Integer(number) => write!(f, ":{number}"),
            Self::Bulk(None) => write!(f, "$nil"),
            Self::Bulk(Some(value)) => {
                let value = value.as_ref();
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
    // Nearly all are lengths of one to three digits.
    if text.len() <= 3 && !text.is_empty() && text.iter().all(u8::is_ascii_digit) {
        return Some(text.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')));
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads the body of a bulk string of `length` bytes at `from`.
fn bulk(bytes: &[u8], from: usize, length: usize) -> Parsed<&[u8]> {
    let end = from + length;
    if bytes.len() < end + 2 {
        return Parsed::Needs(end + 2);
    }
    if &bytes[end..end + 2] != b"\r\n" {
        return Parsed::Broken("a bulk string that does not end where it says");
    }
    Parsed::Whole(&bytes[from..end], end + 2)
}

/// Words of a request that are kept without the allocator; more than Sentinels say at once.
const FEW: usize = 6;

/// The words of one request, where they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words<'a> {
    few: [&'a [u8]; FEW],
    count: usize,
    /// All of them, if they are more.
    many: Vec<&'a [u8]>,
}

impl<'a> Words<'a> {
    fn push(&mut self, word: &'a [u8]) {
        if self.count < FEW {
            self.few[self.count] = word;
        } else {
            if self.many.is_empty() {
                self.many.extend_from_slice(&self.few);
            }
            self.many.push(word);
        }
        self.count += 1;
    }
}

impl<'a> Deref for Words<'a> {
    type Target = [&'a [u8]];

    fn deref(&self) -> &[&'a [u8]] {
        if self.count <= FEW { &self.few[..self.count] } else { &self.many }
    }
}

/// Reads one request: an array of bulk strings.
pub(crate) fn parse_request(bytes: &[u8]) -> Parsed<Vec<Vec<u8>>> {
    match scan_request(bytes) {
        Parsed::Whole(words, used) => {
            Parsed::Whole(words.iter().map(|word| word.to_vec()).collect(), used)
        }
        Parsed::Needs(more) => Parsed::Needs(more),
        Parsed::Broken(why) => Parsed::Broken(why),
    }
}

/// Like [`parse_request`], and leaves the words where they are.
pub(crate) fn scan_request(bytes: &[u8]) -> Parsed<Words<'_>> {
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
    let mut words = Words::default();
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

/// Like [`parse_reply`], and leaves the texts where they are.
pub(crate) fn scan_reply(bytes: &[u8]) -> Parsed<Reply<&[u8]>> {
    reply_at(bytes, 0, 0)
}

fn reply_at<'a, B: From<&'a [u8]>>(bytes: &'a [u8], from: usize, depth: usize) -> Parsed<Reply<B>> {
    let (head, next) = match line(bytes, from) {
        Parsed::Whole(head, next) => (head, next),
        Parsed::Needs(more) => return Parsed::Needs(more),
        Parsed::Broken(why) => return Parsed::Broken(why),
    };
    let Some((kind, text)) = head.split_first() else {
        return Parsed::Broken("an empty line");
    };
    match kind {
        b'+' => Parsed::Whole(Reply::Status(text.into()), next),
        b'-' => Parsed::Whole(Reply::Error(text.into()), next),
        b':' => match number(text) {
            Some(value) => Parsed::Whole(Reply::Integer(value), next),
            None => Parsed::Broken("an integer that is none"),
        },
        b'$' if text == b"-1" => Parsed::Whole(Reply::Bulk(None), next),
        b'*' if text == b"-1" => Parsed::Whole(Reply::Array(None), next),
        b'$' => match number(text).and_then(|length| usize::try_from(length).ok()) {
            Some(length) => match bulk(bytes, next, length) {
                Parsed::Whole(value, next) => Parsed::Whole(Reply::Bulk(Some(value.into())), next),
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

fn array_at<'a, B: From<&'a [u8]>>(
    bytes: &'a [u8],
    from: usize,
    count: usize,
    depth: usize,
) -> Parsed<Reply<B>> {
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
    push_head(b'*', words.len(), out);
    for word in words {
        push_bulk(word, out);
    }
}

/// Writes a bulk string.
pub(crate) fn push_bulk(word: &[u8], out: &mut Vec<u8>) {
    push_head(b'$', word.len(), out);
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

/// Writes the line that begins an array or a bulk string.
pub(crate) fn push_head(kind: u8, count: usize, out: &mut Vec<u8>) {
    out.push(kind);
    push_number(count as u64, out);
    out.extend_from_slice(b"\r\n");
}

/// Writes a number in decimal digits.
pub(crate) fn push_number(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
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
        Reply::Integer(value) => {
            out.extend_from_slice(if *value < 0 { b":-" } else { b":" });
            push_number(value.unsigned_abs(), out);
        }
        Reply::Bulk(None) => out.extend_from_slice(b"$-1"),
        Reply::Bulk(Some(value)) => {
            push_head(b'$', value.len(), out);
            out.extend_from_slice(value);
        }
        Reply::Array(None) => out.extend_from_slice(b"*-1"),
        Reply::Array(Some(items)) => {
            push_head(b'*', items.len(), out);
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
    fn words_of_a_request_stay_where_they_are_however_many_they_are() {
        for count in 1..2 * FEW {
            let words: Vec<Vec<u8>> = (0..count).map(|at| vec![b'w'; 3 * at]).collect();
            let mut bytes = Vec::new();
            encode_request(&words, &mut bytes);
            let Parsed::Whole(found, used) = scan_request(&bytes) else { panic!("not whole") };
            assert_eq!(
                (found.to_vec(), used),
                (words.iter().map(Vec::as_slice).collect(), bytes.len())
            );
        }
    }

    #[test]
    fn numbers_are_written_in_decimal_digits() {
        for value in [0, 9, 10, 999, 1_000, i64::MAX, i64::MIN, -1] {
            let mut out = Vec::new();
            encode_reply(&Reply::Integer(value), &mut out);
            assert_eq!(out, format!(":{value}\r\n").into_bytes());
            assert_eq!(parse_reply(&out), Parsed::Whole(Reply::Integer(value), out.len()));
        }
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
