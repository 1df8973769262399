//! What clients ask and servers answer.
//!
//! A key is `{k2}c1r7i0`: routed by `k2`, asked for by client 1 in its request 7, and the first
//! of that request's keys. A large one ends in `L`. The value, the status and the number that a
//! server answers with follow from the key alone, so that a reply to somebody else's request is
//! recognised whatever it is.

use ringkeeper_core::wire::resp::encode;

use super::steps::{Ask, PASSWORD};

/// Values of large keys, bytes: above what the proxy keeps whole.
pub(super) const LARGE_BYTES: usize = 40_000;

/// Distinct places on the ring.
pub(super) const KEYS: u8 = 5;

/// A request on its way, and what may come back.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Vec<u8>,
    pub(super) expected: Expected,
    /// Nothing comes back.
    pub(super) is_silent: bool,
}

/// What a client waits for.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// The reply, unless it is an error; none when any will do.
    pub(super) reply: Option<Vec<u8>>,
    pub(super) keys: Vec<Vec<u8>>,
}

impl Expected {
    /// Panics unless `frame` answers this request.
    pub(super) fn check(&self, frame: &[u8]) {
        if is_error(frame) {
            let names_nobody = !frame.windows(2).any(|two| two == b"{k");
            let names_us = self.keys.iter().any(|key| contains(frame, key));
            assert!(names_nobody || names_us, "another's error: {}", frame.escape_ascii());
            return;
        }
        let Some(reply) = &self.reply else { return };
        let (got, wanted) = (shown(frame), shown(reply));
        assert!(frame == reply, "got {got}, wanted {wanted}");
    }

    /// Panics unless a reply to this request may begin with `partial`.
    pub(super) fn check_beginning(&self, partial: &[u8]) {
        let fits = |reply: &Vec<u8>| reply.starts_with(partial);
        let is_ours = is_error(partial) || ERRORS.iter().any(|error| error.starts_with(partial));
        let is_ours = is_ours || self.reply.as_ref().is_none_or(fits);
        assert!(is_ours, "the beginning of another's reply: {}", shown(partial));
    }

    /// Returns the key of a request that has only one.
    pub(super) fn only_key(&self) -> Option<&[u8]> {
        match self.keys.as_slice() {
            [key] => Some(key),
            _ => None,
        }
    }
}

/// What errors begin with, memcached's after Redis'.
const ERRORS: [&[u8]; 4] = [b"-", b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR"];

/// Tells whether a reply is an error. No other reply of either protocol begins like one.
pub(super) fn is_error(reply: &[u8]) -> bool {
    ERRORS.iter().any(|error| reply.starts_with(error))
}

fn shown(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(80)];
    format!("\"{}\" ({} bytes)", start.escape_ascii(), bytes.len())
}

pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Words a request of client `client`, its `serial`th.
pub(super) fn ask(ask: Ask, client: u32, serial: u32) -> Asked {
    let key = |place: u8, at: u32, size: &str| {
        format!("{{k{}}}c{client}r{serial}i{at}{size}", place % KEYS).into_bytes()
    };
    let several = |place: u8, more: u8, size: &str| -> Vec<Vec<u8>> {
        let places = (0..=more % 4).map(|step| place.wrapping_add(step));
        places.zip(0..).map(|(place, at)| key(place, at, size)).collect()
    };
    match ask {
        Ask::Get { key: place } => get(key(place, 0, "")),
        Ask::GetLarge { key: place } => get(key(place, 0, "L")),
        Ask::Set { key: place } => set(key(place, 0, "")),
        Ask::SetLarge { key: place } => set(key(place, 0, "L")),
        Ask::Mget { key, more } => with_keys(b"MGET", several(key, more, "")),
        Ask::MgetLarge { key } => with_keys(b"MGET", several(key, 2, "L")),
        Ask::Mset { key, more } => mset(several(key, more, "")),
        Ask::Del { key, more } => with_keys(b"DEL", several(key, more, "")),
        Ask::Exists { key, more } => with_keys(b"EXISTS", several(key, more, "")),
        Ask::Ping => plain(&[b"PING"], Some(b"+PONG\r\n")),
        Ask::Echo => {
            let text = key(0, 0, "");
            let mut reply = Vec::new();
            encode::bulk(&mut reply, &text);
            plain(&[b"ECHO", &text], Some(&reply))
        }
        Ask::Auth { is_right } => {
            let password = if is_right { PASSWORD } else { "wrong" };
            plain(&[b"AUTH", password.as_bytes()], Some(b"+OK\r\n"))
        }
        Ask::ClientId => plain(&[b"CLIENT", b"ID"], None),
        Ask::Unknown => {
            let text = key(0, 0, "");
            let mut asked = plain(&[b"NOSUCH", &text], Some(b"only an error"));
            asked.expected.keys.push(text);
            asked
        }
        Ask::InlinePing => {
            let mut asked = plain(&[], Some(b"+PONG\r\n"));
            asked.request = b"PING\r\n".to_vec();
            asked
        }
        Ask::Quit => plain(&[b"QUIT"], Some(b"+OK\r\n")),
        Ask::Reset => plain(&[b"RESET"], Some(b"+RESET\r\n")),
    }
}

fn plain(args: &[&[u8]], reply: Option<&[u8]>) -> Asked {
    let mut request = Vec::new();
    encode::request(&mut request, args);
    let expected = Expected { reply: reply.map(<[u8]>::to_vec), keys: Vec::new() };
    Asked { request, expected, is_silent: false }
}

fn get(key: Vec<u8>) -> Asked {
    with_keys(b"GET", vec![key])
}

fn set(key: Vec<u8>) -> Asked {
    let value = value_of(&key);
    of_args(&[b"SET", &key, &value], vec![key.clone()])
}

fn with_keys(name: &[u8], keys: Vec<Vec<u8>>) -> Asked {
    let mut args = vec![name];
    args.extend(keys.iter().map(Vec::as_slice));
    of_args(&args, keys.clone())
}

fn mset(keys: Vec<Vec<u8>>) -> Asked {
    let values: Vec<Vec<u8>> = keys.iter().map(|key| value_of(key)).collect();
    let mut args: Vec<&[u8]> = vec![b"MSET"];
    for (key, value) in keys.iter().zip(&values) {
        args.extend([key.as_slice(), value]);
    }
    of_args(&args, keys.clone())
}

fn of_args(args: &[&[u8]], keys: Vec<Vec<u8>>) -> Asked {
    let mut asked = plain(args, Some(&answer(args)));
    asked.expected.keys = keys;
    asked
}

/// What a server says to a request.
pub(super) fn answer(args: &[&[u8]]) -> Vec<u8> {
    let mut reply = Vec::new();
    let (name, rest) = args.split_first().map_or((&[][..], args), |(name, rest)| (*name, rest));
    match (name, rest) {
        (b"GET", [key]) => encode::bulk(&mut reply, &value_of(key)),
        (b"SET", [key, ..]) if Tag::of(key).is_some() => {
            encode::simple(&mut reply, &String::from_utf8_lossy(key));
        }
        (b"MGET", keys) => {
            encode::array_header(&mut reply, keys.len());
            for key in keys {
                encode::bulk(&mut reply, &value_of(key));
            }
        }
        (b"DEL" | b"EXISTS", keys) => {
            let number = |key: &&[u8]| Tag::of(key).map_or(1, Tag::number);
            encode::integer(&mut reply, keys.iter().map(number).sum());
        }
        (b"PING", []) => encode::simple(&mut reply, "PONG"),
        _ => encode::simple(&mut reply, "OK"),
    }
    reply
}

/// The error that a server may answer with instead.
pub(super) fn refusal(args: &[&[u8]]) -> Vec<u8> {
    let named = args.iter().find(|arg| Tag::of(arg).is_some()).copied().unwrap_or_default();
    let mut reply = Vec::new();
    encode::error(&mut reply, &format!("ERR no {}", String::from_utf8_lossy(named)));
    reply
}

/// Returns the value that a key has everywhere and always.
pub(super) fn value_of(key: &[u8]) -> Vec<u8> {
    let mut value = [b"v:", key].concat();
    if key.last() == Some(&b'L') {
        value.resize(LARGE_BYTES, b'x');
    }
    value
}

/// Whose key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) client: u32,
    pub(super) serial: u32,
    at: u32,
}

impl Tag {
    /// Reads a key of ours.
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?;
        let rest = text.strip_prefix("{k")?.split_once("}c")?.1;
        let (client, rest) = rest.split_once('r')?;
        let (serial, at) = rest.split_once('i')?;
        let at = at.strip_suffix('L').unwrap_or(at);
        Some(Self {
            client: client.parse().ok()?,
            serial: serial.parse().ok()?,
            at: at.parse().ok()?,
        })
    }

    pub(super) fn number(self) -> i64 {
        (i64::from(self.client) << 24) + (i64::from(self.serial) << 4) + i64::from(self.at) + 1
    }
}
