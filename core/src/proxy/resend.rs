//! What may be sent to a server a second time, and the bytes to do so.

use crate::buf::Buffer;
use crate::command::{self, Command, Flags};
use crate::config::failover::Replay;
use crate::limits::POOLED_BUFFER_BYTES_MAX;
use crate::wire::resp::request::{RequestLimits, RequestScan, RequestScanner, Span};

/// The bytes of the requests that one connection has been sent and owes replies to.
///
/// A buffer that is being written belongs to the runtime and does not come home when the
/// connection ends, so this is a copy: one for each write, however many requests are in it.
#[derive(Debug, Default)]
pub(crate) struct SentLog {
    bytes: Buffer,
    /// Where the oldest request begins.
    start: usize,
    /// How many requests from the front have no bytes here: they would have gone over the bound.
    missing: usize,
}

impl SentLog {
    /// Notes a write; `sent` requests have no reply, those of the write among them. Forgets all of
    /// them rather than hold more than `most` bytes.
    pub(crate) fn note(&mut self, write: &[u8], sent: usize, most: usize) {
        if self.bytes.len() - self.start + write.len() > most {
            self.bytes = Buffer::new();
            self.start = 0;
            self.missing = sent;
            return;
        }
        if self.start > 0 && self.start >= self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(write);
    }

    /// Takes the oldest request out, which has `len` bytes.
    #[inline]
    pub(crate) fn pop(&mut self, len: usize) {
        if self.missing > 0 {
            self.missing -= 1;
            return;
        }
        self.start += len;
        debug_assert!(self.start <= self.bytes.len(), "requests are as long as they were");
        if self.start >= self.bytes.len() {
            self.start = 0;
            if self.bytes.capacity() > POOLED_BUFFER_BYTES_MAX {
                self.bytes = Buffer::new();
            } else {
                self.bytes.clear();
            }
        }
    }

    /// Returns the oldest request, which has `len` bytes; none if they were too many to keep.
    pub(crate) fn front(&self, len: usize) -> Option<&[u8]> {
        if self.missing > 0 {
            return None;
        }
        self.bytes.get(self.start..self.start + len)
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Tells whether the command at this place of the table may change data, or do anything else than
/// read it. What is not known to read is taken for a write.
pub(crate) fn may_write(place: u8) -> bool {
    command::all()
        .get(usize::from(place))
        .is_none_or(|command| command.may_write() || !command.flags.contains(Flags::READONLY))
}

/// Tells whether a request whose outcome is not known may be sent again.
pub(crate) fn may_repeat(place: u8, frame: &[u8], replay: Replay) -> bool {
    if !may_write(place) {
        return true;
    }
    let command = command::all().get(usize::from(place));
    replay == Replay::Idempotent && command.is_some_and(|command| is_idempotent(command, frame))
}

/// Tells whether a write leaves the same behind and says the same when it happens twice.
///
/// `DEL`, `HSET`, `SADD` and their like leave the same behind and say something else the second
/// time: who takes a lock by their reply would be told that it is not his. What counts, appends,
/// pops, moves or runs a script does more the second time.
fn is_idempotent(command: &Command, frame: &[u8]) -> bool {
    match command.name {
        // They say OK whatever was there. A time to live begins anew.
        "setex" | "psetex" | "mset" | "hmset" => true,
        "set" => is_plain_set(frame),
        _ => false,
    }
}

/// Tells whether a `SET` neither asks what was there nor depends on it.
fn is_plain_set(frame: &[u8]) -> bool {
    let mut args: Vec<Span> = Vec::new();
    let mut limits = RequestLimits::AUTHENTICATED;
    (limits.bytes_max, limits.bulk_bytes_max) = (usize::MAX, usize::MAX);
    let scan = RequestScanner::default().scan(frame, &limits, &mut args);
    let Ok(RequestScan::Complete { .. }) = scan else { return false };
    let options = args.get(3..).unwrap_or_default();
    !options.iter().any(|option| {
        let word = option.of(frame);
        [&b"nx"[..], b"xx", b"get"].iter().any(|other| word.eq_ignore_ascii_case(other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::lookup_at;
    use crate::wire::resp::encode;

    fn repeats(words: &[&str], replay: Replay) -> bool {
        let mut frame = Vec::new();
        let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        encode::request(&mut frame, &bytes);
        let (place, _) = lookup_at(bytes[0]).expect("a command");
        may_repeat(place, &frame, replay)
    }

    #[test]
    fn reads_are_repeated_and_writes_only_where_the_pool_wants_it_and_nobody_can_tell() {
        for words in [&["GET", "k"][..], &["MGET", "a", "b"], &["ZRANGE", "k", "0", "1"]] {
            assert!(repeats(words, Replay::Reads), "{words:?}");
        }
        let idempotent = [
            &["SET", "k", "v"][..],
            &["set", "k", "nx"],
            &["SET", "k", "v", "EX", "5"],
            &["SETEX", "k", "5", "v"],
            &["MSET", "a", "1"],
            &["HMSET", "h", "f", "v"],
        ];
        for words in idempotent {
            assert!(!repeats(words, Replay::Reads), "{words:?}");
            assert!(repeats(words, Replay::Idempotent), "{words:?}");
        }
        let others = [
            &["SET", "k", "v", "NX"][..],
            &["SET", "k", "v", "get"],
            &["SET", "k", "v", "EX", "5", "Xx"],
            &["DEL", "k"],
            &["INCR", "k"],
            &["APPEND", "k", "v"],
            &["EVAL", "return 1", "1", "k"],
            &["LPUSH", "k", "v"],
            &["GETDEL", "k"],
            &["SPOP", "k"],
        ];
        for words in others {
            assert!(!repeats(words, Replay::Idempotent), "{words:?}");
        }
    }

    #[test]
    fn the_log_gives_back_what_was_sent_and_forgets_what_is_too_much() {
        let mut log = SentLog::default();
        log.note(b"aabbb", 2, 10);
        assert_eq!(log.front(2), Some(&b"aa"[..]));
        log.pop(2);
        log.note(b"cccc", 2, 10);
        assert_eq!(log.front(3), Some(&b"bbb"[..]));
        log.note(b"dddd", 3, 10);
        assert_eq!(log.front(3), None, "eleven bytes are too many");
        (0..3).for_each(|_| log.pop(3));
        log.note(b"ee", 1, 10);
        assert_eq!(log.front(2), Some(&b"ee"[..]));
    }
}
