//! Finds the end of a server's reply in a stream that comes in pieces.

use super::number::{LengthLine, length_line, parse_integer};
use crate::limits::{REPLY_BULK_BYTES_MAX, REPLY_DEPTH_KEPT, REPLY_DEPTH_MAX, REPLY_ELEMENTS_MAX};

/// What a reply is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplyKind {
    /// `+`
    Simple,
    /// `-`
    Error,
    /// `:`
    Integer,
    /// `$`
    Bulk,
    /// `*`
    Array,
    /// `_`, RESP3
    Null,
    /// `,`, RESP3
    Double,
    /// `#`, RESP3
    Boolean,
    /// `!`, RESP3
    BulkError,
    /// `=`, RESP3
    Verbatim,
    /// `(`, RESP3
    BigNumber,
    /// `%`, RESP3
    Map,
    /// `~`, RESP3
    Set,
    /// `>`, RESP3: not an answer to a request.
    Push,
    /// `|`, RESP3: comes before the value that it describes, in the same frame.
    Attribute,
}

impl ReplyKind {
    /// Returns the kind that begins with `first`.
    #[inline]
    pub fn from_byte(first: u8) -> Option<Self> {
        Some(match first {
            b'+' => Self::Simple,
            b'-' => Self::Error,
            b':' => Self::Integer,
            b'$' => Self::Bulk,
            b'*' => Self::Array,
            b'_' => Self::Null,
            b',' => Self::Double,
            b'#' => Self::Boolean,
            b'!' => Self::BulkError,
            b'=' => Self::Verbatim,
            b'(' => Self::BigNumber,
            b'%' => Self::Map,
            b'~' => Self::Set,
            b'>' => Self::Push,
            b'|' => Self::Attribute,
            _ => return None,
        })
    }

    /// Returns the kind of a whole or cut frame, `None` when it is empty or no reply.
    #[inline]
    pub fn of(frame: &[u8]) -> Option<Self> {
        frame.first().copied().and_then(Self::from_byte)
    }
}

/// What a look at a chunk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyScan {
    /// The whole chunk belongs to a frame that goes on.
    Incomplete,
    /// The frame ends within the chunk.
    Complete {
        /// Bytes of this chunk that belong to it, from the chunk's start.
        len: usize,
    },
}

/// Why the bytes are no reply. The server's connection cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// No type begins with this byte.
    UnknownType(u8),
    /// A length or integer is not canonical, or out of range.
    InvalidNumber,
    /// A length in the streamed form of RESP3, which no Redis sends.
    Streamed,
    /// A bulk longer than [`REPLY_BULK_BYTES_MAX`].
    BulkTooLong,
    /// A line longer than [`REPLY_BULK_BYTES_MAX`].
    LineTooLong,
    /// More elements than [`REPLY_ELEMENTS_MAX`].
    TooManyElements,
    /// Aggregates in one another deeper than [`REPLY_DEPTH_MAX`].
    TooDeep,
    /// Something else where CRLF belongs, or a line feed or carriage return alone.
    MissingLineEnd,
    /// A boolean other than `t` and `f`, or a null with a value.
    InvalidValue,
}

/// Follows one reply after the other through chunks of any size.
///
/// One counter finds the end: a frame has ended when as many elements have as were announced. How
/// deep it is follows from the same counter: it is back at what it was, less one, when an aggregate
/// ends, so a leaf costs one comparison and an aggregate one entry of a bounded stack.
#[derive(Clone, Debug, Default)]
pub struct ReplyScanner {
    /// Elements of this frame that have not ended, the one being read included; 0 between frames.
    left: u64,
    /// What is left when the innermost open aggregate ends; 0 outside of any.
    floor: u64,
    /// Floors of the aggregates around it, outermost first.
    floors: Vec<u64>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// A type byte comes.
    #[default]
    Start,
    /// Digits of a length or integer.
    Number(Number),
    /// The line feed after a number.
    NumberEnd(Number),
    /// The rest of a line, `len` bytes of which were seen.
    Line { len: u64 },
    /// The line feed after a line.
    LineEnd,
    /// `t` or `f`.
    Boolean,
    /// The carriage return of a value without further bytes.
    Return,
    /// Bytes of a bulk.
    Bulk { left: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Number {
    kind: u8,
    is_negative: bool,
    digits: u8,
    value: u64,
}

impl ReplyScanner {
    /// Follows the frame through `chunk`.
    ///
    /// After `Complete` the scanner is ready for the next frame, which begins in the same chunk
    /// at `len`. An empty chunk is `Incomplete` and changes nothing. The result does not depend on
    /// how the bytes were cut.
    ///
    /// # Errors
    ///
    /// [`ReplyError`]; the scanner is of no further use.
    #[inline]
    pub fn advance(&mut self, chunk: &[u8]) -> Result<ReplyScan, ReplyError> {
        if self.left == 0 {
            if let Some(Element { len, following: 0 }) = whole_element(chunk) {
                return Ok(ReplyScan::Complete { len });
            }
            if chunk.is_empty() {
                return Ok(ReplyScan::Incomplete);
            }
            self.left = 1;
        }
        self.advance_slowly(chunk)
    }

    /// Whether a frame has begun and not ended.
    #[inline]
    pub fn is_started(&self) -> bool {
        self.left != 0
    }

    /// Returns how many bytes at least are still to come, by the lengths announced so far.
    pub fn announced_bytes_left(&self) -> u64 {
        match self.state {
            State::Bulk { left } => left + 2,
            State::Start
            | State::Number(_)
            | State::NumberEnd(_)
            | State::Line { .. }
            | State::LineEnd
            | State::Boolean
            | State::Return => 0,
        }
    }

    fn advance_slowly(&mut self, chunk: &[u8]) -> Result<ReplyScan, ReplyError> {
        let mut rest = chunk;
        while !rest.is_empty() {
            rest = match self.state {
                State::Start => match whole_element(rest) {
                    Some(Element { len, following }) => {
                        self.end_element(following)?;
                        rest.get(len..).unwrap_or_default()
                    }
                    None => self.start_element(rest)?,
                },
                State::Bulk { left: left @ 1.. } => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    self.state = State::Bulk { left: left - taken as u64 };
                    rest.get(taken..).unwrap_or_default()
                }
                State::Line { len } => self.follow_line(len, rest)?,
                State::Bulk { left: 0 }
                | State::Number(_)
                | State::NumberEnd(_)
                | State::LineEnd
                | State::Boolean
                | State::Return => self.take_byte(rest)?,
            };
            if self.left == 0 {
                return Ok(ReplyScan::Complete { len: chunk.len() - rest.len() });
            }
        }
        Ok(ReplyScan::Incomplete)
    }

    /// Takes the type byte of an element that is cut or unusual.
    fn start_element<'a>(&mut self, rest: &'a [u8]) -> Result<&'a [u8], ReplyError> {
        let Some((&kind, tail)) = rest.split_first() else { return Ok(rest) };
        self.state = match ReplyKind::from_byte(kind).ok_or(ReplyError::UnknownType(kind))? {
            ReplyKind::Simple | ReplyKind::Error | ReplyKind::Double | ReplyKind::BigNumber => {
                State::Line { len: 0 }
            }
            ReplyKind::Null => State::Return,
            ReplyKind::Boolean => State::Boolean,
            ReplyKind::Integer
            | ReplyKind::Bulk
            | ReplyKind::Array
            | ReplyKind::BulkError
            | ReplyKind::Verbatim
            | ReplyKind::Map
            | ReplyKind::Set
            | ReplyKind::Push
            | ReplyKind::Attribute => {
                State::Number(Number { kind, is_negative: false, digits: 0, value: 0 })
            }
        };
        Ok(tail)
    }

    fn follow_line<'a>(&mut self, len: u64, rest: &'a [u8]) -> Result<&'a [u8], ReplyError> {
        let end = memchr::memchr2(b'\r', b'\n', rest);
        let len = len + end.unwrap_or(rest.len()) as u64;
        if len > REPLY_BULK_BYTES_MAX {
            return Err(ReplyError::LineTooLong);
        }
        let Some(end) = end else {
            self.state = State::Line { len };
            return Ok(&[]);
        };
        match rest.get(end..) {
            Some([b'\r', tail @ ..]) => {
                self.state = State::LineEnd;
                Ok(tail)
            }
            _ => Err(ReplyError::MissingLineEnd),
        }
    }

    fn take_byte<'a>(&mut self, rest: &'a [u8]) -> Result<&'a [u8], ReplyError> {
        let Some((&byte, tail)) = rest.split_first() else { return Ok(rest) };
        match (self.state, byte) {
            (State::Number(number), _) => self.state = number.take(byte)?,
            (State::NumberEnd(number), b'\n') => self.end_number(number)?,
            (State::LineEnd, b'\n') => self.end_element(0)?,
            (State::Boolean, b't' | b'f') => self.state = State::Return,
            (State::Boolean, _) => return Err(ReplyError::InvalidValue),
            (State::Return | State::Bulk { .. }, b'\r') => self.state = State::LineEnd,
            (State::Return, _) => return Err(ReplyError::InvalidValue),
            _ => return Err(ReplyError::MissingLineEnd),
        }
        Ok(tail)
    }

    fn end_number(&mut self, number: Number) -> Result<(), ReplyError> {
        match number.kind {
            b':' => self.end_element(0),
            b'$' | b'*' if number.is_negative => self.end_element(0),
            b'$' | b'!' | b'=' => {
                if number.value > REPLY_BULK_BYTES_MAX {
                    return Err(ReplyError::BulkTooLong);
                }
                self.state = State::Bulk { left: number.value };
                Ok(())
            }
            kind => self.end_element(following(kind, number.value)),
        }
    }

    /// A leaf or the head of an aggregate has ended, and `following` elements were announced.
    #[inline]
    fn end_element(&mut self, following: u64) -> Result<(), ReplyError> {
        self.state = State::Start;
        self.left -= 1;
        if following > 0 {
            return self.open(following);
        }
        if self.left == self.floor {
            self.close();
        }
        Ok(())
    }

    /// An aggregate with at least one element begins.
    fn open(&mut self, following: u64) -> Result<(), ReplyError> {
        if self.floors.len() >= REPLY_DEPTH_MAX {
            return Err(ReplyError::TooDeep);
        }
        self.floors.push(self.floor);
        self.floor = self.left;
        self.left = self.left.saturating_add(following);
        if self.left > REPLY_ELEMENTS_MAX {
            return Err(ReplyError::TooManyElements);
        }
        Ok(())
    }

    /// The innermost open aggregate has ended, and with it those whose last element it was.
    fn close(&mut self) {
        while self.left == self.floor
            && let Some(floor) = self.floors.pop()
        {
            self.floor = floor;
        }
        if self.left == 0 && self.floors.capacity() > REPLY_DEPTH_KEPT {
            self.floors = Vec::new();
        }
    }
}

impl Number {
    /// Takes one byte of the line after the type.
    fn take(mut self, byte: u8) -> Result<State, ReplyError> {
        let is_integer = self.kind == b':';
        match byte {
            b'0'..=b'9' => {
                if self.digits > 0 && self.value == 0 {
                    return Err(ReplyError::InvalidNumber);
                }
                let digit = u64::from(byte - b'0');
                let value = self.value.checked_mul(10).and_then(|value| value.checked_add(digit));
                self.value = value.ok_or(ReplyError::InvalidNumber)?;
                // Twenty digits overflow the value before the counter.
                self.digits += 1;
                let max = if is_integer {
                    i64::MAX.unsigned_abs() + u64::from(self.is_negative)
                } else if self.is_negative {
                    1
                } else {
                    LENGTH_MAX
                };
                if self.value > max || (self.is_negative && self.value == 0) {
                    return Err(ReplyError::InvalidNumber);
                }
                Ok(State::Number(self))
            }
            b'-' if self.digits == 0
                && !self.is_negative
                && matches!(self.kind, b':' | b'$' | b'*') =>
            {
                self.is_negative = true;
                Ok(State::Number(self))
            }
            b'\r' if self.digits > 0 => Ok(State::NumberEnd(self)),
            b'?' if self.digits == 0 && !is_integer => Err(ReplyError::Streamed),
            _ => Err(ReplyError::InvalidNumber),
        }
    }
}

/// Largest length or count that is looked at further; ten digits.
const LENGTH_MAX: u64 = 9_999_999_999;

struct Element {
    len: usize,
    following: u64,
}

/// Returns the first element of `bytes` if it is complete and of a usual form.
///
/// This is a short cut only: whatever it declines is judged byte by byte, and both must agree.
#[inline]
fn whole_element(bytes: &[u8]) -> Option<Element> {
    let leaf = |len| Some(Element { len, following: 0 });
    match *bytes {
        [b'$', ref tail @ ..] => match length_line(tail) {
            LengthLine::Complete { value, len } if value <= REPLY_BULK_BYTES_MAX => {
                let end = len + usize::try_from(value).ok()?;
                matches!(tail.get(end..), Some([b'\r', b'\n', ..])).then_some(())?;
                leaf(1 + end + 2)
            }
            LengthLine::Invalid if tail.starts_with(b"-1\r\n") => leaf(5),
            LengthLine::Complete { .. } | LengthLine::Partial | LengthLine::Invalid => None,
        },
        [b'+', b'O', b'K', b'\r', b'\n', ..] => leaf(5),
        [b':', digit, b'\r', b'\n', ..] if digit.is_ascii_digit() => leaf(4),
        [b':', ref tail @ ..] => {
            let digits = tail.iter().take(21).position(|byte| *byte == b'\r')?;
            parse_integer(tail.get(..digits)?)?;
            (tail.get(digits + 1) == Some(&b'\n')).then_some(())?;
            leaf(1 + digits + 2)
        }
        [kind @ (b'*' | b'%' | b'~' | b'>' | b'|'), ref tail @ ..] => match length_line(tail) {
            LengthLine::Complete { value, len } => {
                Some(Element { len: 1 + len, following: following(kind, value) })
            }
            LengthLine::Partial | LengthLine::Invalid => None,
        },
        _ => None,
    }
}

/// Returns how many elements follow the head of an aggregate in the same frame.
#[inline]
fn following(kind: u8, count: u64) -> u64 {
    match kind {
        b'%' => count.saturating_mul(2),
        // The value that the attribute describes comes after it.
        b'|' => count.saturating_mul(2).saturating_add(1),
        _ => count,
    }
}

/// Whether a frame is an error reply.
#[inline]
pub fn is_error(reply: &[u8]) -> bool {
    matches!(reply, [b'-' | b'!', ..])
}

/// Returns the value of a whole integer reply, `None` for any other.
pub fn parse_integer_reply(reply: &[u8]) -> Option<i64> {
    let [b':', digits @ .., b'\r', b'\n'] = reply else { return None };
    parse_integer(digits)
}

/// Returns the elements of a whole array reply, `None` for any other and for the null array.
pub fn array_elements(reply: &[u8]) -> Option<ArrayElements<'_>> {
    let [b'*', tail @ ..] = reply else { return None };
    let LengthLine::Complete { value, len } = length_line(tail) else { return None };
    Some(ArrayElements { count: usize::try_from(value).ok()?, rest: tail.get(len..)? })
}

/// The elements of an array, each a whole frame.
#[derive(Clone, Debug)]
pub struct ArrayElements<'a> {
    count: usize,
    rest: &'a [u8],
}

impl ArrayElements<'_> {
    /// Returns how many elements the array says are left. Fewer may come if the frame is cut.
    pub fn announced(&self) -> usize {
        self.count
    }
}

impl<'a> Iterator for ArrayElements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.count = self.count.checked_sub(1)?;
        let found = ReplyScanner::default().advance(self.rest);
        let Ok(ReplyScan::Complete { len }) = found else {
            self.count = 0;
            return None;
        };
        let (element, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(element)
    }
}

#[cfg(test)]
mod tests;
