//! Finds the end of a server's reply in a stream that comes in pieces.

use crate::limits::{MEMCACHE_REPLY_LINE_BYTES_MAX, REPLY_BULK_BYTES_MAX};
use crate::wire::resp::ReplyScan;

/// Why the bytes are no reply. The server's connection cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// A line longer than [`MEMCACHE_REPLY_LINE_BYTES_MAX`].
    LineTooLong,
    /// A line feed without a carriage return, or something else where CRLF belongs.
    MissingLineEnd,
    /// A line that memcached does not say.
    UnknownLine,
    /// The head of a value without a length, or with one above [`REPLY_BULK_BYTES_MAX`].
    InvalidLength,
    /// Something else between values than a value, the end or an error.
    Interrupted,
}

/// Follows one reply after the other through chunks of any size.
///
/// A reply is one line; or a line `VA` and its value; or any number of lines `VALUE`, each with its
/// value, and the line that ends them.
#[derive(Clone, Debug, Default)]
pub struct ReplyScanner {
    state: State,
    /// At least one `VALUE` of this reply has come.
    is_in_values: bool,
    /// The beginning of a cut line; bounded by the longest line.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// A line comes.
    #[default]
    Line,
    /// Bytes of a value.
    Value { left: u64 },
    /// The carriage return after a value.
    Return,
    /// The line feed after a value.
    Feed,
}

/// What a line says about what follows it.
enum Next {
    /// The reply ends with it.
    End,
    /// A value of this many bytes; with `is_one_of`, more lines after it.
    Value { bytes: u64, is_one_of: bool },
}

impl ReplyScanner {
    /// Follows the reply through `chunk`.
    ///
    /// After `Complete` the scanner is ready for the next reply, which begins in the same chunk
    /// at `len`. An empty chunk is `Incomplete` and changes nothing. The result does not depend on
    /// how the bytes were cut, except that errors come as soon as they are certain.
    ///
    /// # Errors
    ///
    /// [`ReplyError`]; the scanner is of no further use.
    #[inline]
    pub fn advance(&mut self, chunk: &[u8]) -> Result<ReplyScan, ReplyError> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let is_end;
            (rest, is_end) = match self.state {
                State::Line => self.take_line(rest)?,
                State::Value { left } => (self.take_value(left, rest), false),
                State::Return | State::Feed => self.take_line_end(rest)?,
            };
            if is_end {
                self.is_in_values = false;
                return Ok(ReplyScan::Complete { len: chunk.len() - rest.len() });
            }
        }
        Ok(ReplyScan::Incomplete)
    }

    /// Whether a reply has begun and not ended.
    pub fn is_started(&self) -> bool {
        self.is_in_values || !self.held.is_empty() || !matches!(self.state, State::Line)
    }

    /// Returns how many bytes at least are still to come, by the lengths announced so far.
    pub const fn announced_bytes_left(&self) -> u64 {
        match self.state {
            State::Value { left } => left + 2,
            State::Line | State::Return | State::Feed => 0,
        }
    }

    #[inline]
    fn take_line<'a>(&mut self, rest: &'a [u8]) -> Result<(&'a [u8], bool), ReplyError> {
        let Some(end) = memchr::memchr(b'\n', rest) else {
            self.hold(rest)?;
            return Ok((&[], false));
        };
        let (line, after) = rest.split_at_checked(end + 1).unwrap_or((rest, &[]));
        let next = if self.held.is_empty() && line.len() <= MEMCACHE_REPLY_LINE_BYTES_MAX {
            judge(line, self.is_in_values)?
        } else {
            self.hold(line)?;
            let next = judge(&self.held, self.is_in_values)?;
            self.held.clear();
            next
        };
        match next {
            Next::End => Ok((after, true)),
            Next::Value { bytes, is_one_of } => {
                self.is_in_values = is_one_of;
                self.state = if bytes == 0 { State::Return } else { State::Value { left: bytes } };
                Ok((after, false))
            }
        }
    }

    #[cold]
    fn hold(&mut self, piece: &[u8]) -> Result<(), ReplyError> {
        if self.held.len() + piece.len() > MEMCACHE_REPLY_LINE_BYTES_MAX {
            return Err(ReplyError::LineTooLong);
        }
        self.held.extend_from_slice(piece);
        Ok(())
    }

    #[inline]
    fn take_value<'a>(&mut self, left: u64, rest: &'a [u8]) -> &'a [u8] {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let left = left - taken as u64;
        self.state = if left == 0 { State::Return } else { State::Value { left } };
        rest.get(taken..).unwrap_or_default()
    }

    #[inline]
    fn take_line_end<'a>(&mut self, rest: &'a [u8]) -> Result<(&'a [u8], bool), ReplyError> {
        let (after, is_over) = match (self.state, rest) {
            (State::Return, [b'\r', b'\n', after @ ..]) | (State::Feed, [b'\n', after @ ..]) => {
                (after, true)
            }
            (State::Return, [b'\r', after @ ..]) if after.is_empty() => (after, false),
            _ => return Err(ReplyError::MissingLineEnd),
        };
        self.state = if is_over { State::Line } else { State::Feed };
        Ok((after, is_over && !self.is_in_values))
    }
}

/// Judges a whole line, its end included.
#[inline]
fn judge(line: &[u8], is_in_values: bool) -> Result<Next, ReplyError> {
    let line = line.strip_suffix(b"\r\n").ok_or(ReplyError::MissingLineEnd)?;
    if line == b"END" {
        return Ok(Next::End);
    }
    if let Some(head) = line.strip_prefix(b"VALUE ") {
        return Ok(Next::Value { bytes: length(head, 2)?, is_one_of: true });
    }
    if is_in_values {
        // Memory may run out between two values.
        let is_error = line.starts_with(b"SERVER_ERROR") || line.starts_with(b"CLIENT_ERROR");
        return if is_error { Ok(Next::End) } else { Err(ReplyError::Interrupted) };
    }
    if let Some(head) = line.strip_prefix(b"VA ") {
        return Ok(Next::Value { bytes: length(head, 0)?, is_one_of: false });
    }
    if is_known(line) { Ok(Next::End) } else { Err(ReplyError::UnknownLine) }
}

/// Tells whether a line is something that memcached says on its own. Nothing else may pass: it
/// would be taken for the reply to the next request.
#[inline]
fn is_known(line: &[u8]) -> bool {
    let (word, rest) = match memchr::memchr(b' ', line) {
        Some(end) => line.split_at(end),
        None => (line, &b""[..]),
    };
    match word {
        b"STORED" | b"NOT_STORED" | b"DELETED" | b"TOUCHED" | b"NOT_FOUND" | b"EXISTS" | b"OK" => {
            rest.is_empty()
        }
        b"HD" | b"EN" | b"NF" | b"NS" | b"EX" | b"MN" | b"ME" | b"VERSION" => true,
        // The last with a colon when a command is switched off.
        b"SERVER_ERROR" | b"CLIENT_ERROR" | b"ERROR" | b"ERROR:" => true,
        // A counter; older servers fill its place up with spaces.
        digits => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
    }
}

/// Reads the length that follows `skipped` words.
#[inline]
fn length(head: &[u8], skipped: usize) -> Result<u64, ReplyError> {
    let word = head.split(|byte| *byte == b' ').nth(skipped).unwrap_or_default();
    let mut value = 0_u64;
    for &byte in word {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(ReplyError::InvalidLength);
        }
        value = value * 10 + u64::from(digit);
        if value > REPLY_BULK_BYTES_MAX {
            return Err(ReplyError::InvalidLength);
        }
    }
    if word.is_empty() { Err(ReplyError::InvalidLength) } else { Ok(value) }
}

/// Returns the key of the `VALUE` block at the start of `reply`, and the block's length; `None` at
/// the end of the values.
pub fn value_block(reply: &[u8]) -> Option<(&[u8], usize)> {
    let head = reply.strip_prefix(b"VALUE ")?;
    let line_end = memchr::memchr(b'\n', head)?;
    let line = head.get(..line_end)?.strip_suffix(b"\r")?;
    let bytes = usize::try_from(length(line, 2).ok()?).ok()?;
    let key = line.split(|byte| *byte == b' ').next()?;
    let len = (b"VALUE ".len() + line_end + 1).checked_add(bytes)?.checked_add(2)?;
    (len <= reply.len()).then_some((key, len))
}

#[cfg(test)]
mod tests;
