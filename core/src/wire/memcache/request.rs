//! Finds the end of a client's request, and its words, in a buffer that may end anywhere.

use super::Verb;
use super::meta::Flags;
use crate::limits::{
    MEMCACHE_GAT_BYTES_MAX, MEMCACHE_KEY_BYTES_MAX, MEMCACHE_LINE_BYTES_MAX,
    MEMCACHE_META_WORDS_MAX, REQUEST_ARGS_MAX,
};
use crate::wire::resp::{Span, is_cross_protocol};

/// What a request may be at most, and what a key may have in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// The whole request, bytes. At most 4 GiB, whatever it says.
    pub bytes_max: usize,
    /// Control characters are taken in keys, except those that end a line or a string.
    pub takes_control: bool,
}

/// What a look at the buffer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestScan {
    /// The request goes on beyond the buffer.
    Incomplete,
    /// A whole request of `len` bytes; its words are in `words`, the name first, `noreply` left
    /// out.
    Complete {
        /// Bytes to consume.
        len: usize,
        /// What is known about it.
        request: Request,
    },
    /// A line that is no request. Its value, if it has one that can be told, follows as
    /// [`RequestScan::Skipped`].
    Refused {
        /// Bytes to consume.
        len: usize,
        /// What to say about it.
        error: LineError,
        /// It asks for no reply: nothing is to be said.
        is_silent: bool,
    },
    /// `len` bytes that belong to a request that was refused.
    Skipped {
        /// Bytes to consume.
        len: usize,
    },
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The command.
    pub verb: Verb,
    /// The value, without its line end.
    pub value: Option<Span>,
    /// `noreply` was said.
    pub is_noreply: bool,
    /// The flag `q` of a meta command was said: the server answers or not, as it sees fit.
    pub is_quiet: bool,
    /// The key is in base64.
    pub is_base64: bool,
    /// The bytes are the request's only form: what [`Request::encode`] would write.
    pub is_canonical: bool,
}

impl Request {
    /// Appends the request in its only form, without `noreply`.
    pub fn encode(&self, frame: &[u8], words: &[Span], out: &mut Vec<u8>) {
        for (at, word) in words.iter().enumerate() {
            if at > 0 {
                out.push(b' ');
            }
            out.extend_from_slice(word.of(frame));
        }
        out.extend_from_slice(b"\r\n");
        if let Some(value) = self.value {
            out.extend_from_slice(value.of(frame));
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Why a line is no request. The next line is read as if nothing had happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// No command, or one with the wrong number of words.
    Unknown,
    /// A key, number or length that is none.
    BadFormat,
    /// The value is longer or shorter than announced.
    BadChunk,
    /// The value is larger than the proxy stores.
    TooLarge,
    /// A time that is none.
    BadTime,
    /// More flags than memcached takes.
    TooManyFlags,
    /// A command that manages one server.
    Admin,
}

impl LineError {
    /// Returns the whole reply, in memcached's words where it has any.
    pub const fn reply(self) -> &'static str {
        match self {
            Self::Unknown => "ERROR\r\n",
            Self::BadFormat => "CLIENT_ERROR bad command line format\r\n",
            Self::BadChunk => "CLIENT_ERROR bad data chunk\r\n",
            Self::TooLarge => "SERVER_ERROR object too large for cache\r\n",
            Self::BadTime => "CLIENT_ERROR invalid exptime argument\r\n",
            Self::TooManyFlags => "CLIENT_ERROR options flags too long\r\n",
            Self::Admin => {
                "CLIENT_ERROR not supported by the proxy: this command manages one server; \
                 connect to it directly\r\n"
            }
        }
    }
}

/// Why the connection cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// A line without an end.
    LineTooLong,
    /// memcached's binary protocol, which is not served. Closed without a reply.
    Binary,
    /// An HTTP request: a browser was made to talk to this port. Closed without a reply.
    CrossProtocol,
}

/// Remembers how far an unfinished request was checked. Lives in every idle client.
///
/// The buffer given to [`scan`](Self::scan) always begins where the last request ended and only
/// grows until something is to be consumed. No byte of a value is looked at, no byte of a line
/// searched twice.
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
    /// The line is good; the request has `len` bytes.
    Value { len: usize },
    /// `left` bytes of a refused value, then everything up to the end of a line.
    Skip { left: u64 },
}

const _: () = assert!(size_of::<RequestScanner>() <= 16);

/// A line that may be a request; `value_bytes` when a value has to follow.
struct Head {
    request: Request,
    value_bytes: Option<u64>,
}

/// A line that is no request.
struct Refusal {
    error: LineError,
    is_silent: bool,
    /// The length of the value that follows, when it can be told.
    value_bytes: Option<u64>,
}

impl Refusal {
    const fn new(error: LineError) -> Self {
        Self { error, is_silent: false, value_bytes: None }
    }
}

impl RequestScanner {
    /// Makes a scanner in the middle of a refused value of which `left` bytes are still to come.
    pub const fn skipping(left: u64) -> Self {
        Self { progress: Progress::Skip { left } }
    }

    /// Returns how many bytes of a refused value are still to come; none outside of one.
    pub const fn skips(&self) -> Option<u64> {
        match self.progress {
            Progress::Skip { left } => Some(left),
            Progress::Fresh | Progress::Line { .. } | Progress::Value { .. } => None,
        }
    }

    /// Looks for a request at the start of `buf`.
    ///
    /// `words` is meaningful after [`RequestScan::Complete`] only. The result does not depend on
    /// how the bytes were cut, except that errors come as soon as they are certain and skipped
    /// bytes as they come.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: reply where there is something to say, then close.
    #[inline]
    pub fn scan(
        &mut self,
        buf: &[u8],
        limits: &RequestLimits,
        words: &mut Vec<Span>,
    ) -> Result<RequestScan, RequestError> {
        match self.progress {
            Progress::Fresh => self.scan_line(buf, 0, limits, words),
            Progress::Line { searched } => self.scan_line(buf, searched, limits, words),
            Progress::Value { len } if buf.len() < len => Ok(RequestScan::Incomplete),
            Progress::Value { .. } => self.scan_line(buf, 0, limits, words),
            Progress::Skip { left } => Ok(self.skip(buf, left)),
        }
    }

    /// Whether bytes of an unfinished request were seen.
    pub const fn is_started(&self) -> bool {
        !matches!(self.progress, Progress::Fresh)
    }

    #[inline]
    fn scan_line(
        &mut self,
        buf: &[u8],
        searched: usize,
        limits: &RequestLimits,
        words: &mut Vec<Span>,
    ) -> Result<RequestScan, RequestError> {
        if buf.first() == Some(&0x80) {
            return Err(RequestError::Binary);
        }
        let found = memchr::memchr(b'\n', buf.get(searched..).unwrap_or_default());
        let end = found.map_or(buf.len(), |at| searched + at);
        if end >= MEMCACHE_LINE_BYTES_MAX && end >= line_bytes_max(buf, limits) {
            return Err(RequestError::LineTooLong);
        }
        if found.is_none() {
            self.progress =
                if buf.is_empty() { Progress::Fresh } else { Progress::Line { searched: end } };
            return Ok(RequestScan::Incomplete);
        }
        let line = buf.get(..end).unwrap_or_default();
        let (line, has_return) = match line {
            [line @ .., b'\r'] => (line, true),
            line => (line, false),
        };
        self.progress = Progress::Fresh;
        let next = end + 1;
        match parse(line, limits, words) {
            Ok(mut head) => {
                head.request.is_canonical &= has_return;
                self.take_value(buf, next, head, limits)
            }
            Err(refusal) if is_cross_protocol_line(refusal.error, line, words) => {
                Err(RequestError::CrossProtocol)
            }
            Err(Refusal { error, is_silent, value_bytes }) => {
                if let Some(left) = value_bytes {
                    self.progress = Progress::Skip { left };
                }
                Ok(RequestScan::Refused { len: next, error, is_silent })
            }
        }
    }

    /// Finds the value of a good line, which begins at `start`.
    #[inline]
    fn take_value(
        &mut self,
        buf: &[u8],
        start: usize,
        head: Head,
        limits: &RequestLimits,
    ) -> Result<RequestScan, RequestError> {
        let mut request = head.request;
        let Some(bytes) = head.value_bytes else {
            return Ok(RequestScan::Complete { len: start, request });
        };
        let bytes_max = limits.bytes_max.min(u32::MAX as usize);
        let end = usize::try_from(bytes).ok().and_then(|bytes| start.checked_add(bytes));
        let Some(end) = end.filter(|end| end.saturating_add(2) <= bytes_max) else {
            self.progress = Progress::Skip { left: bytes };
            let is_silent = request.is_noreply;
            return Ok(RequestScan::Refused { len: start, error: LineError::TooLarge, is_silent });
        };
        match buf.get(end..end + 2) {
            Some(b"\r\n") => {
                request.value = Some(span(start, end - start));
                Ok(RequestScan::Complete { len: end + 2, request })
            }
            Some(_) => {
                self.progress = Progress::Skip { left: 0 };
                let is_silent = request.is_noreply;
                Ok(RequestScan::Refused { len: end, error: LineError::BadChunk, is_silent })
            }
            None => {
                self.progress = Progress::Value { len: end + 2 };
                Ok(RequestScan::Incomplete)
            }
        }
    }

    /// Passes over a refused value and the rest of the line it ends in.
    #[cold]
    fn skip(&mut self, buf: &[u8], left: u64) -> RequestScan {
        if buf.is_empty() {
            return RequestScan::Incomplete;
        }
        let value = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let found = memchr::memchr(b'\n', buf.get(value..).unwrap_or_default());
        if let Some(at) = found {
            self.progress = Progress::Fresh;
            return RequestScan::Skipped { len: value + at + 1 };
        }
        self.progress = Progress::Skip { left: left - value as u64 };
        RequestScan::Skipped { len: buf.len() }
    }
}

/// Returns how long a line may be that begins as `buf` does, its line feed included.
#[cold]
fn line_bytes_max(buf: &[u8], limits: &RequestLimits) -> usize {
    if buf.starts_with(b"get ") || buf.starts_with(b"gets ") {
        limits.bytes_max.min(u32::MAX as usize)
    } else if buf.starts_with(b"gat ") || buf.starts_with(b"gats ") {
        MEMCACHE_GAT_BYTES_MAX
    } else {
        MEMCACHE_LINE_BYTES_MAX
    }
}

#[cold]
fn is_cross_protocol_line(error: LineError, line: &[u8], words: &[Span]) -> bool {
    error == LineError::Unknown
        && words.first().is_some_and(|name| is_cross_protocol(token(line, name)))
}

fn span(start: usize, len: usize) -> Span {
    // Requests are shorter than 4 GiB.
    let narrow = |value| u32::try_from(value).unwrap_or(u32::MAX);
    Span { start: narrow(start), len: narrow(len) }
}

/// Returns the bytes of a word.
#[inline]
pub(super) fn token<'a>(line: &'a [u8], word: &Span) -> &'a [u8] {
    word.of(line)
}

/// Takes a line apart and judges it.
#[inline]
fn parse(line: &[u8], limits: &RequestLimits, words: &mut Vec<Span>) -> Result<Head, Refusal> {
    let split = split(line, words);
    let is_clean = !split.has_end && (!split.has_control || limits.takes_control);
    let name = words.first().map(|name| token(line, name)).unwrap_or_default();
    let Some(verb) = Verb::lookup(name) else { return Err(Refusal::new(LineError::Unknown)) };
    let request = Request {
        verb,
        value: None,
        is_noreply: false,
        is_quiet: false,
        is_base64: false,
        is_canonical: split.word_bytes + words.len() == line.len() + 1,
    };
    let mut head = match verb {
        Verb::Get | Verb::Gets => parse_keys(line, words, 1, request),
        Verb::Gat | Verb::Gats => parse_keys(line, words, 2, request),
        Verb::Set | Verb::Add | Verb::Replace | Verb::Append | Verb::Prepend => {
            parse_storage(line, words, 5, request)
        }
        Verb::Cas => parse_storage(line, words, 6, request),
        Verb::Incr | Verb::Decr | Verb::Touch => parse_keyed(line, words, 3..=3, request),
        Verb::Delete => parse_keyed(line, words, 2..=3, request),
        Verb::MetaGet | Verb::MetaDelete | Verb::MetaArithmetic | Verb::MetaDebug => {
            parse_meta(line, words, 2, request)
        }
        Verb::MetaSet => parse_meta(line, words, 3, request),
        Verb::FlushAll => parse_flush(line, words, request),
        Verb::Verbosity => parse_verbosity(line, words, request),
        Verb::MetaNoop | Verb::Version | Verb::Stats | Verb::Quit => {
            Ok(Head { request, value_bytes: None })
        }
        Verb::Admin => Err(Refusal::new(LineError::Admin)),
    }?;
    if !is_clean {
        let (is_silent, value_bytes) = (head.request.is_noreply, head.value_bytes);
        return Err(Refusal { error: LineError::BadFormat, is_silent, value_bytes });
    }
    head.request.is_canonical &= !head.request.is_noreply;
    Ok(head)
}

/// What splitting found besides the words.
struct SplitLine {
    word_bytes: usize,
    /// A control character.
    has_control: bool,
    /// One that ends a line or a string for somebody.
    has_end: bool,
}

#[inline]
fn split(line: &[u8], words: &mut Vec<Span>) -> SplitLine {
    words.clear();
    let mut found = SplitLine { word_bytes: 0, has_control: false, has_end: false };
    let mut start = 0;
    for (at, &byte) in line.iter().enumerate() {
        if byte > b' ' && byte != 0x7f {
            continue;
        }
        if byte == b' ' {
            if at > start {
                words.push(span(start, at - start));
                found.word_bytes += at - start;
            }
            start = at + 1;
        } else {
            found.has_control = true;
            found.has_end |= matches!(byte, b'\r' | 0);
        }
    }
    if line.len() > start {
        words.push(span(start, line.len() - start));
        found.word_bytes += line.len() - start;
    }
    found
}

/// Takes `noreply` off the end when there are more words than `at_least`, the fewest that the
/// command has without it.
fn take_noreply(line: &[u8], words: &mut Vec<Span>, at_least: usize) -> bool {
    let is_said =
        words.len() > at_least && words.last().is_some_and(|last| token(line, last) == b"noreply");
    if is_said {
        words.pop();
    }
    is_said
}

const fn is_key(word: &Span) -> bool {
    word.len as usize <= MEMCACHE_KEY_BYTES_MAX
}

fn parse_keys(
    line: &[u8],
    words: &[Span],
    first: usize,
    request: Request,
) -> Result<Head, Refusal> {
    let keys = words.get(first..).unwrap_or_default();
    if keys.is_empty() {
        return Err(Refusal::new(LineError::Unknown));
    }
    // As many as a request of Redis may have.
    if !keys.iter().all(is_key) || words.len() > REQUEST_ARGS_MAX as usize {
        return Err(Refusal::new(LineError::BadFormat));
    }
    if first == 2 && words.get(1).and_then(|time| parse_i32(token(line, time))).is_none() {
        return Err(Refusal::new(LineError::BadTime));
    }
    Ok(Head { request, value_bytes: None })
}

/// `name key flags exptime bytes [version] [noreply]`, `count` words without the last.
fn parse_storage(
    line: &[u8],
    words: &mut Vec<Span>,
    count: usize,
    mut request: Request,
) -> Result<Head, Refusal> {
    let word = |words: &[Span], at: usize| words.get(at).map_or(&b""[..], |span| token(line, span));
    let value_bytes = parse_length(word(words, 4));
    let is_silent = take_noreply(line, words, count);
    request.is_noreply = is_silent;
    if words.len() != count {
        return Err(Refusal { error: LineError::Unknown, is_silent: false, value_bytes });
    }
    // All that makes memcached refuse the line, because it would not pass over the value then.
    let is_good = words.get(1).is_some_and(is_key)
        && parse_u64(word(words, 2)).is_some_and(|flags| flags <= u64::from(u32::MAX))
        && parse_i32(word(words, 3)).is_some()
        && value_bytes.is_some()
        && (count == 5 || parse_u64(word(words, 5)).is_some());
    if is_good {
        Ok(Head { request, value_bytes })
    } else {
        Err(Refusal { error: LineError::BadFormat, is_silent, value_bytes })
    }
}

/// A command with one key and so many words; what the others mean is the server's affair, since
/// they are on the line.
fn parse_keyed(
    line: &[u8],
    words: &mut Vec<Span>,
    count: std::ops::RangeInclusive<usize>,
    mut request: Request,
) -> Result<Head, Refusal> {
    request.is_noreply = take_noreply(line, words, *count.start());
    if !count.contains(&words.len()) {
        return Err(Refusal::new(LineError::Unknown));
    }
    if !words.get(1).is_some_and(is_key) {
        let is_silent = request.is_noreply;
        return Err(Refusal { error: LineError::BadFormat, is_silent, value_bytes: None });
    }
    Ok(Head { request, value_bytes: None })
}

/// A meta command whose flags begin at `first`.
fn parse_meta(
    line: &[u8],
    words: &[Span],
    first: usize,
    mut request: Request,
) -> Result<Head, Refusal> {
    let refuse = |error, value_bytes| Err(Refusal { error, is_silent: false, value_bytes });
    let Some(key) = words.get(1) else { return refuse(LineError::Unknown, None) };
    let length = if first == 3 { words.get(2) } else { None };
    let value_bytes = length.and_then(|length| parse_length(token(line, length)));
    if !is_key(key) || (first == 3 && value_bytes.is_none()) {
        return refuse(LineError::BadFormat, value_bytes);
    }
    if words.len() > MEMCACHE_META_WORDS_MAX {
        return refuse(LineError::TooManyFlags, value_bytes);
    }
    let flags = Flags::of(line, words.get(first..).unwrap_or_default());
    request.is_quiet = flags.is_quiet;
    request.is_base64 = flags.is_base64;
    Ok(Head { request, value_bytes })
}

fn parse_flush(line: &[u8], words: &mut Vec<Span>, mut request: Request) -> Result<Head, Refusal> {
    request.is_noreply = take_noreply(line, words, 1);
    let is_silent = request.is_noreply;
    match words.as_slice() {
        [_] => Ok(Head { request, value_bytes: None }),
        [_, delay] if parse_i32(token(line, delay)).is_some() => {
            Ok(Head { request, value_bytes: None })
        }
        [_, _] => Err(Refusal { error: LineError::BadTime, is_silent, value_bytes: None }),
        _ => Err(Refusal::new(LineError::Unknown)),
    }
}

fn parse_verbosity(
    line: &[u8],
    words: &mut Vec<Span>,
    mut request: Request,
) -> Result<Head, Refusal> {
    request.is_noreply = take_noreply(line, words, 1);
    let is_silent = request.is_noreply;
    match words.as_slice() {
        [_, level] if parse_u64(token(line, level)).is_some() => {
            Ok(Head { request, value_bytes: None })
        }
        [_, _] => Err(Refusal { error: LineError::BadFormat, is_silent, value_bytes: None }),
        _ => Err(Refusal { error: LineError::Unknown, is_silent, value_bytes: None }),
    }
}

#[inline]
fn parse_u64(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    let mut value = 0_u64;
    for &byte in word {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

#[inline]
fn parse_i32(word: &[u8]) -> Option<i32> {
    let (is_negative, digits) = match word {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let value = i64::try_from(parse_u64(digits)?).ok()?;
    i32::try_from(if is_negative { -value } else { value }).ok()
}

/// Longest value that memcached can be told of: it counts a value and its line end in 31 bits.
const VALUE_BYTES_MAX: u64 = i32::MAX.unsigned_abs() as u64 - 2;

/// Reads the length of a value.
#[inline]
fn parse_length(word: &[u8]) -> Option<u64> {
    parse_u64(word).filter(|bytes| *bytes <= VALUE_BYTES_MAX)
}

#[cfg(test)]
mod tests;
