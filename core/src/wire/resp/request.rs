//! Finds the end of a client's request, and its arguments, in a buffer that may end anywhere.

use crate::limits::{
    BULK_BYTES_MAX, INLINE_BYTES_MAX, REQUEST_ARGS_MAX, REQUEST_BYTES_DEFAULT,
    UNAUTHENTICATED_ARGS_MAX, UNAUTHENTICATED_BULK_BYTES_MAX, UNAUTHENTICATED_REQUEST_BYTES_MAX,
};
use crate::wire::resp::number::{LengthLine, length_line};

/// A stretch of a frame, relative to the frame's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Bytes.
    pub len: u32,
}

impl Span {
    /// Returns the bytes that the span names, empty when `frame` is not the frame it came from.
    #[inline]
    pub fn of(self, frame: &[u8]) -> &[u8] {
        let start = self.start as usize;
        frame.get(start..start.saturating_add(self.len as usize)).unwrap_or_default()
    }
}

/// What a request may be at most. Exceeding any of them ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// The whole request, bytes. At most 4 GiB, whatever it says.
    pub bytes_max: usize,
    /// Arguments, the command's name included.
    pub args_max: u32,
    /// One argument, bytes.
    pub bulk_bytes_max: usize,
    /// An inline request, bytes, without its line feed.
    pub inline_bytes_max: usize,
    /// Whether the client has done what it must before anything else; chooses between
    /// "unauthenticated" and "invalid" in the error.
    pub is_authenticated: bool,
}

impl RequestLimits {
    /// For clients that need no AUTH or have done it.
    pub const AUTHENTICATED: Self = Self {
        bytes_max: REQUEST_BYTES_DEFAULT as usize,
        args_max: REQUEST_ARGS_MAX,
        bulk_bytes_max: BULK_BYTES_MAX,
        inline_bytes_max: INLINE_BYTES_MAX,
        is_authenticated: true,
    };

    /// For clients that still have to AUTH.
    pub const UNAUTHENTICATED: Self = Self {
        bytes_max: UNAUTHENTICATED_REQUEST_BYTES_MAX,
        args_max: UNAUTHENTICATED_ARGS_MAX,
        bulk_bytes_max: UNAUTHENTICATED_BULK_BYTES_MAX,
        inline_bytes_max: INLINE_BYTES_MAX,
        is_authenticated: false,
    };
}

/// What a look at the buffer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestScan {
    /// The request goes on beyond the buffer.
    Incomplete,
    /// A whole request of `len` bytes; its arguments are in `args`, at least one.
    Complete {
        /// Bytes of the frame.
        len: usize,
    },
    /// A whole inline request with at least one word, for
    /// [`encode_inline`](crate::wire::resp::encode_inline).
    Inline {
        /// Bytes to consume, the line end included.
        len: usize,
        /// Bytes of the line itself.
        line_len: usize,
    },
    /// `len` bytes that Redis ignores without a reply: `*0`, `*-1` or a blank line.
    Empty {
        /// Bytes to consume.
        len: usize,
    },
}

/// Why the bytes are no request. The connection cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The argument count is no canonical number or too large.
    InvalidMultibulkLength,
    /// An argument does not begin with `$` but with this byte.
    ExpectedBulk(u8),
    /// An argument's length is no canonical number or too large.
    InvalidBulkLength,
    /// An argument is longer or shorter than announced.
    MissingLineEnd,
    /// An inline request without an end.
    InlineTooBig,
    /// More arguments than a client may send before AUTH.
    UnauthenticatedMultibulkLength,
    /// A longer argument than a client may send before AUTH.
    UnauthenticatedBulkLength,
    /// An inline request with an open quote, or text right after a closing one.
    UnbalancedQuotes,
    /// The whole request is larger than the proxy stores.
    RequestTooLarge,
    /// An HTTP request: a browser or an HTTP client was made to talk to this port. Closed without
    /// a reply, as Redis does.
    CrossProtocol,
}

impl RequestError {
    /// Returns the text for the client, after `-ERR Protocol error: `.
    ///
    /// Where Redis has the same complaint it is in Redis' words, except that the byte of
    /// [`RequestError::ExpectedBulk`] is left to [`RequestError::encode_message`].
    pub fn message(self) -> &'static str {
        match self {
            Self::InvalidMultibulkLength => "invalid multibulk length",
            Self::ExpectedBulk(_) => "expected '$'",
            Self::InvalidBulkLength => "invalid bulk length",
            Self::MissingLineEnd => "expected CRLF after bulk",
            Self::InlineTooBig => "too big inline request",
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::RequestTooLarge => "request too large",
            Self::CrossProtocol => "HTTP request on a Redis port",
        }
    }

    /// Appends the whole error reply, with the offending byte where Redis names it.
    pub fn encode_message(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"-ERR Protocol error: ");
        out.extend_from_slice(self.message().as_bytes());
        if let Self::ExpectedBulk(byte) = self {
            let shown = if matches!(byte, b'\r' | b'\n') { b' ' } else { byte };
            out.extend_from_slice(&[b',', b' ', b'g', b'o', b't', b' ', b'\'', shown, b'\'']);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Remembers how far an unfinished request was checked. Lives in every idle client.
///
/// The buffer given to [`scan`](Self::scan) always begins at the frame's start and only grows
/// until a frame is complete. No argument is looked at twice and no byte inside an argument once;
/// at most one cut length line is read again.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestScanner {
    progress: Progress,
}

#[derive(Clone, Copy, Debug, Default)]
enum Progress {
    #[default]
    Fresh,
    /// No line feed in the first `searched` bytes.
    Line { searched: usize },
    /// `left` arguments to come, the first one's `$` at `at`.
    Header { at: usize, left: u32 },
    /// `left` arguments to come, the first one's data ends at `at`.
    BulkEnd { at: usize, left: u32 },
}

const _: () = assert!(size_of::<RequestScanner>() <= 40);

impl RequestScanner {
    /// Looks for a whole request at the start of `buf`.
    ///
    /// `args` is cleared and then meaningful after [`RequestScan::Complete`] only. After anything
    /// but `Incomplete` the scanner is ready for the next frame. The result does not depend on how
    /// the bytes were cut, except that errors come as soon as they are certain.
    ///
    /// Deviates: Redis skips the two bytes after an argument unseen and takes any byte after a
    /// carriage return for a line feed; here both must be CRLF.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: reply, then close.
    #[inline]
    pub fn scan(
        &mut self,
        buf: &[u8],
        limits: &RequestLimits,
        args: &mut Vec<Span>,
    ) -> Result<RequestScan, RequestError> {
        args.clear();
        match self.progress {
            Progress::Fresh => self.scan_start(buf, limits, args),
            Progress::Line { .. } | Progress::Header { .. } | Progress::BulkEnd { .. } => {
                self.resume(buf, limits, args)
            }
        }
    }

    /// Whether bytes of an unfinished frame were seen beyond its first line.
    pub fn is_started(&self) -> bool {
        !matches!(self.progress, Progress::Fresh)
    }

    #[inline]
    fn scan_start(
        &mut self,
        buf: &[u8],
        limits: &RequestLimits,
        args: &mut Vec<Span>,
    ) -> Result<RequestScan, RequestError> {
        let tail = match buf {
            [b'*', tail @ ..] => tail,
            [] => return Ok(RequestScan::Incomplete),
            _ => return self.scan_line(buf, 0, limits),
        };
        let (value, len) = match length_line(tail) {
            LengthLine::Complete { value, len } => (value, len),
            LengthLine::Partial => return Ok(RequestScan::Incomplete),
            LengthLine::Invalid => return scan_negative_count(tail),
        };
        if value == 0 {
            return Ok(RequestScan::Empty { len: 1 + len });
        }
        let count = match u32::try_from(value) {
            Ok(count) if count <= limits.args_max => count,
            Ok(count) if !limits.is_authenticated && count <= REQUEST_ARGS_MAX => {
                return Err(RequestError::UnauthenticatedMultibulkLength);
            }
            _ => return Err(RequestError::InvalidMultibulkLength),
        };
        self.walk::<true>(buf, 1 + len, count, limits, args)
    }

    /// Goes from argument to argument, beginning with the `$` at `at`.
    #[inline]
    fn walk<const COLLECT: bool>(
        &mut self,
        buf: &[u8],
        at: usize,
        mut left: u32,
        limits: &RequestLimits,
        args: &mut Vec<Span>,
    ) -> Result<RequestScan, RequestError> {
        let bytes_max = limits.bytes_max.min(u32::MAX as usize);
        let bulk_bytes_max = limits.bulk_bytes_max.min(bytes_max) as u64;
        let mut rest = buf.get(at..).unwrap_or_default();
        loop {
            let header = buf.len() - rest.len();
            let tail = match rest {
                [b'$', tail @ ..] => tail,
                [] => return self.suspend(Progress::Header { at: header, left }),
                [other, ..] => return Err(RequestError::ExpectedBulk(*other)),
            };
            let (value, len) = match length_line(tail) {
                LengthLine::Complete { value, len } => (value, len),
                LengthLine::Partial => return self.suspend(Progress::Header { at: header, left }),
                LengthLine::Invalid => return Err(RequestError::InvalidBulkLength),
            };
            if value > bulk_bytes_max {
                return Err(bulk_too_long(value, limits));
            }
            #[expect(clippy::cast_possible_truncation, reason = "at most bulk_bytes_max, a usize")]
            let value = value as usize;
            let start = header + 1 + len;
            let end = start + value;
            if end + 2 > bytes_max {
                return Err(RequestError::RequestTooLarge);
            }
            rest = match tail.get(len + value..) {
                Some([b'\r', b'\n', next @ ..]) => next,
                None | Some([] | [b'\r']) => {
                    return self.suspend(Progress::BulkEnd { at: end, left });
                }
                Some(_) => return Err(RequestError::MissingLineEnd),
            };
            if COLLECT {
                #[expect(clippy::cast_possible_truncation, reason = "at most bytes_max, 32 bits")]
                let span = Span { start: start as u32, len: value as u32 };
                args.push(span);
            }
            left -= 1;
            if left == 0 {
                return Ok(RequestScan::Complete { len: end + 2 });
            }
        }
    }

    #[cold]
    fn resume(
        &mut self,
        buf: &[u8],
        limits: &RequestLimits,
        args: &mut Vec<Span>,
    ) -> Result<RequestScan, RequestError> {
        let found = match self.progress {
            Progress::Fresh => return self.scan_start(buf, limits, args),
            Progress::Line { searched } => return self.scan_line(buf, searched, limits),
            Progress::Header { at, left } => self.walk::<false>(buf, at, left, limits, args)?,
            Progress::BulkEnd { at, left } => match buf.get(at..) {
                None | Some([] | [b'\r']) => return Ok(RequestScan::Incomplete),
                Some([b'\r', b'\n', ..]) if left <= 1 => RequestScan::Complete { len: at + 2 },
                Some([b'\r', b'\n', ..]) => {
                    self.walk::<false>(buf, at + 2, left - 1, limits, args)?
                }
                Some(_) => return Err(RequestError::MissingLineEnd),
            },
        };
        if !matches!(found, RequestScan::Complete { .. }) {
            return Ok(found);
        }
        // The arguments of a cut request are collected at its end, so that an idle client keeps
        // no list. This goes by the lengths, not by the bytes.
        self.progress = Progress::Fresh;
        args.clear();
        self.scan_start(buf, limits, args)
    }

    #[cold]
    fn suspend(&mut self, progress: Progress) -> Result<RequestScan, RequestError> {
        self.progress = progress;
        Ok(RequestScan::Incomplete)
    }

    #[cold]
    fn scan_line(
        &mut self,
        buf: &[u8],
        searched: usize,
        limits: &RequestLimits,
    ) -> Result<RequestScan, RequestError> {
        let found = memchr::memchr(b'\n', buf.get(searched..).unwrap_or_default());
        let line_end = found.map_or(buf.len(), |offset| searched + offset);
        if line_end > limits.inline_bytes_max {
            return Err(RequestError::InlineTooBig);
        }
        if found.is_none() {
            return self.suspend(Progress::Line { searched: buf.len() });
        }
        self.progress = Progress::Fresh;
        let len = line_end + 1;
        let line = buf.get(..line_end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(|byte| super::inline::is_space(*byte)) {
            return Ok(RequestScan::Empty { len });
        }
        Ok(RequestScan::Inline { len, line_len: line.len() })
    }
}

/// Redis ignores a request with a negative number of arguments.
#[cold]
fn scan_negative_count(tail: &[u8]) -> Result<RequestScan, RequestError> {
    let [b'-', digits @ ..] = tail else {
        return Err(RequestError::InvalidMultibulkLength);
    };
    match length_line(digits) {
        LengthLine::Complete { value: 1..=0x7fff_ffff, len } => {
            Ok(RequestScan::Empty { len: 2 + len })
        }
        LengthLine::Partial => Ok(RequestScan::Incomplete),
        LengthLine::Complete { .. } | LengthLine::Invalid => {
            Err(RequestError::InvalidMultibulkLength)
        }
    }
}

#[cold]
fn bulk_too_long(value: u64, limits: &RequestLimits) -> RequestError {
    if value > BULK_BYTES_MAX as u64 {
        RequestError::InvalidBulkLength
    } else if !limits.is_authenticated {
        RequestError::UnauthenticatedBulkLength
    } else if value > limits.bytes_max as u64 {
        RequestError::RequestTooLarge
    } else {
        RequestError::InvalidBulkLength
    }
}

#[cfg(test)]
mod tests;
