//! Finds the keys among a command's arguments.

use super::{Command, Flags, Keys, Special};
use crate::wire::resp::{Span, parse_integer};

/// Why the keys of a call are not known, or the call must not be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyError {
    /// Too few arguments, or a key without its value.
    WrongArity,
    /// The number of keys is no integer.
    KeyCountNotInteger,
    /// The number of keys is zero where at least one is needed.
    NoKeys,
    /// The number of keys is negative.
    KeyCountNegative,
    /// The number of keys is larger than the number of arguments.
    KeyCountTooLarge,
    /// The options are not those of the command.
    Syntax,
    /// As many stream IDs as streams are needed.
    UnbalancedStreams,
    /// BLOCK: it would hold up a connection that other clients share.
    Blocking,
    /// BY or GET with a pattern: they read keys that no argument names. The list of keys is
    /// complete but for those, so a pool of one server may forward the call.
    PatternKeys,
    /// The container has no such subcommand.
    UnknownSubcommand,
    /// The subcommand is about a whole server.
    NotSharded,
}

impl KeyError {
    /// Returns the text after `-ERR `.
    pub fn message(self) -> &'static str {
        match self {
            Self::WrongArity => "wrong number of arguments",
            Self::KeyCountNotInteger => "value is not an integer or out of range",
            Self::NoKeys => "at least 1 input key is needed",
            Self::KeyCountNegative => "Number of keys can't be negative",
            Self::KeyCountTooLarge => "Number of keys can't be greater than number of args",
            Self::Syntax => "syntax error",
            Self::UnbalancedStreams => {
                "Unbalanced list of streams: for each stream key an ID must be specified"
            }
            Self::Blocking => super::Refusal::Blocking.message(),
            Self::PatternKeys => {
                "BY and GET patterns of SORT are not supported by the proxy: they read keys that \
                 may live on other servers; sort in the client, or connect to the server directly"
            }
            Self::UnknownSubcommand => "unknown subcommand",
            Self::NotSharded => super::Refusal::NotSharded.message(),
        }
    }
}

/// Writes every key of a call to `out`, which is cleared first, in the order of the arguments but
/// a destination first.
///
/// `args` are the arguments of `frame`, the name included, as many as the command
/// [accepts](Command::accepts). No keys and no error means that any server will do: a script
/// without keys, or the HELP of a container.
///
/// # Errors
///
/// [`KeyError`]: answer it, forward nothing.
pub fn keys(
    command: &Command,
    frame: &[u8],
    args: &[Span],
    out: &mut Vec<Span>,
) -> Result<(), KeyError> {
    out.clear();
    let call = Call { frame, args };
    match command.keys {
        Keys::None => Ok(()),
        Keys::Range { first, last, step } => call.range(first, last, step, out),
        Keys::Counted { count_at, first, destination } => {
            if destination > 0 {
                call.push(usize::from(destination), out)?;
            }
            let may_be_zero = command.flags.contains(Flags::KEYS_OPTIONAL);
            call.counted(usize::from(count_at), usize::from(first), may_be_zero, out)
        }
        Keys::Special(special) => call.special(special, out),
    }
}

#[derive(Clone, Copy)]
struct Call<'a> {
    frame: &'a [u8],
    args: &'a [Span],
}

impl<'a> Call<'a> {
    fn arg(self, at: usize) -> Option<&'a [u8]> {
        self.args.get(at).map(|span| span.of(self.frame))
    }

    fn is(self, at: usize, word: &str) -> bool {
        self.arg(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    }

    fn push(self, at: usize, out: &mut Vec<Span>) -> Result<(), KeyError> {
        out.push(*self.args.get(at).ok_or(KeyError::WrongArity)?);
        Ok(())
    }

    fn range(self, first: u8, last: i8, step: u8, out: &mut Vec<Span>) -> Result<(), KeyError> {
        let (first, step) = (usize::from(first), usize::from(step.max(1)));
        let end = match usize::try_from(last) {
            Ok(last) => last + 1,
            Err(_) => {
                let from_end = usize::from(last.unsigned_abs()) - 1;
                self.args.len().checked_sub(from_end).ok_or(KeyError::WrongArity)?
            }
        };
        let keys = self.args.get(first..end).ok_or(KeyError::WrongArity)?;
        // A key without its value.
        if keys.is_empty() || (last < 0 && keys.len() % step != 0) {
            return Err(KeyError::WrongArity);
        }
        out.extend(keys.iter().step_by(step));
        Ok(())
    }

    fn counted(
        self,
        count_at: usize,
        first: usize,
        may_be_zero: bool,
        out: &mut Vec<Span>,
    ) -> Result<(), KeyError> {
        let count = self.arg(count_at).ok_or(KeyError::WrongArity)?;
        let count = parse_integer(count).ok_or(KeyError::KeyCountNotInteger)?;
        if count == 0 && !may_be_zero {
            return Err(KeyError::NoKeys);
        }
        let count = usize::try_from(count).map_err(|_| KeyError::KeyCountNegative)?;
        let keys = first
            .checked_add(count)
            .and_then(|end| self.args.get(first..end))
            .ok_or(KeyError::KeyCountTooLarge)?;
        out.extend_from_slice(keys);
        Ok(())
    }

    fn special(self, special: Special, out: &mut Vec<Span>) -> Result<(), KeyError> {
        match special {
            Special::Sort => self.sort(true, out),
            Special::SortRo => self.sort(false, out),
            Special::GeoStore => self.geo_store(out),
            Special::Streams => self.streams(out),
            Special::Object => self.subcommand(OBJECT, out),
            Special::Xinfo => self.subcommand(XINFO, out),
            Special::Xgroup => self.subcommand(XGROUP, out),
            Special::Memory => self.subcommand(MEMORY, out),
        }
    }

    fn sort(self, may_store: bool, out: &mut Vec<Span>) -> Result<(), KeyError> {
        self.push(1, out)?;
        let mut store = None;
        let mut has_patterns = false;
        let mut at = 2;
        while at < self.args.len() {
            if self.is(at, "limit") {
                at += 2;
            } else if self.is(at, "by") || self.is(at, "get") {
                at += 1;
                // Without an asterisk nothing is looked up: BY nosort, GET #.
                has_patterns |= self.arg(at).is_some_and(|pattern| pattern.contains(&b'*'));
            } else if may_store && self.is(at, "store") {
                at += 1;
                // The last one counts.
                store = Some(at);
            }
            at += 1;
        }
        if let Some(at) = store {
            self.push(at, out).map_err(|_| KeyError::Syntax)?;
        }
        if has_patterns { Err(KeyError::PatternKeys) } else { Ok(()) }
    }

    fn geo_store(self, out: &mut Vec<Span>) -> Result<(), KeyError> {
        self.push(1, out)?;
        let mut at = GEO_OPTIONS_AT;
        while at < self.args.len() {
            if self.is(at, "store") || self.is(at, "storedist") {
                at += 1;
                self.push(at, out).map_err(|_| KeyError::Syntax)?;
            }
            at += 1;
        }
        Ok(())
    }

    fn streams(self, out: &mut Vec<Span>) -> Result<(), KeyError> {
        let mut is_blocking = false;
        let mut at = 1;
        loop {
            if self.is(at, "streams") {
                break;
            } else if self.is(at, "count") {
                at += 2;
            } else if self.is(at, "block") {
                is_blocking = true;
                at += 2;
            } else if self.is(at, "group") {
                at += 3;
            } else if self.is(at, "noack") {
                at += 1;
            } else {
                return Err(KeyError::Syntax);
            }
        }
        if is_blocking {
            return Err(KeyError::Blocking);
        }
        let streams = self.args.get(at + 1..).unwrap_or_default();
        if streams.is_empty() {
            return Err(KeyError::Syntax);
        }
        if streams.len() % 2 != 0 {
            return Err(KeyError::UnbalancedStreams);
        }
        out.extend(streams.iter().take(streams.len() / 2));
        Ok(())
    }

    fn subcommand(self, known: Subcommands, out: &mut Vec<Span>) -> Result<(), KeyError> {
        if known.with_key.iter().any(|name| self.is(1, name)) {
            return self.push(2, out);
        }
        if known.whole_server.iter().any(|name| self.is(1, name)) {
            return Err(KeyError::NotSharded);
        }
        if self.is(1, "help") { Ok(()) } else { Err(KeyError::UnknownSubcommand) }
    }
}

/// Options of GEORADIUSBYMEMBER begin here; at this place GEORADIUS has a unit of length, which
/// cannot be mistaken for an option.
const GEO_OPTIONS_AT: usize = 5;

struct Subcommands {
    with_key: &'static [&'static str],
    whole_server: &'static [&'static str],
}

const OBJECT: Subcommands =
    Subcommands { with_key: &["encoding", "freq", "idletime", "refcount"], whole_server: &[] };
const XINFO: Subcommands =
    Subcommands { with_key: &["stream", "groups", "consumers"], whole_server: &[] };
const XGROUP: Subcommands = Subcommands {
    with_key: &["create", "createconsumer", "delconsumer", "destroy", "setid"],
    whole_server: &[],
};
const MEMORY: Subcommands = Subcommands {
    with_key: &["usage"],
    whole_server: &["doctor", "malloc-stats", "purge", "stats"],
};
