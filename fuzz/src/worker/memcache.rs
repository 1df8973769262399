//! What clients ask and servers answer in memcached's words. Keys are those of `speech.rs`, and so
//! is the value of each; every key is there.

use ringkeeper_core::wire::memcache::{RequestLimits, RequestScan, RequestScanner, Verb};

use super::speech::{Asked, Expected, KEYS, Tag, value_of};
use super::steps::Ask;

const LIMITS: RequestLimits = RequestLimits { bytes_max: 64 * 1024 * 1024, takes_control: true };

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
        Ask::Get { key: place } => line("get", "", vec![key(place, 0, "")]),
        Ask::GetLarge { key: place } => line("get", "", vec![key(place, 0, "L")]),
        Ask::Set { key: place } => set(key(place, 0, ""), ""),
        Ask::SetLarge { key: place } => set(key(place, 0, "L"), ""),
        Ask::Mget { key, more } => line("get", "", several(key, more, "")),
        Ask::MgetLarge { key } => line("get", "", several(key, 2, "L")),
        Ask::Mset { key, more } => line("gets", "", several(key, more, "")),
        Ask::Del { key: place, .. } => line("delete", "", vec![key(place, 0, "")]),
        Ask::Exists { key: place, .. } => line("incr", " 1", vec![key(place, 0, "")]),
        Ask::Echo => line("mg", " v", vec![key(0, 0, "")]),
        // Nothing is kept quiet about: every key is there.
        Ask::InlinePing => line("mg", " v q", vec![key(1, 0, "")]),
        Ask::Ping => line("mn", "", Vec::new()),
        Ask::ClientId => line("flush_all", "", Vec::new()),
        Ask::Reset => line("version", "", Vec::new()),
        Ask::Auth { is_right } => {
            Asked { is_silent: true, ..set(key(u8::from(is_right), 0, ""), " noreply") }
        }
        Ask::Quit => Asked { is_silent: true, ..line("quit", "", Vec::new()) },
        Ask::Unknown => {
            let mut asked = line("nosuch", "", vec![key(0, 0, "")]);
            asked.expected.reply = Some(b"only an error".to_vec());
            asked
        }
    }
}

fn line(name: &str, rest: &str, keys: Vec<Vec<u8>>) -> Asked {
    let mut request = name.as_bytes().to_vec();
    for key in &keys {
        request.push(b' ');
        request.extend_from_slice(key);
    }
    request.extend_from_slice(rest.as_bytes());
    request.extend_from_slice(b"\r\n");
    asked(request, keys)
}

fn set(key: Vec<u8>, rest: &str) -> Asked {
    let value = value_of(&key);
    let mut request = [b"set ".as_slice(), &key].concat();
    request.extend_from_slice(format!(" 0 0 {}{rest}\r\n", value.len()).as_bytes());
    request.extend_from_slice(&value);
    request.extend_from_slice(b"\r\n");
    asked(request, vec![key])
}

fn asked(request: Vec<u8>, keys: Vec<Vec<u8>>) -> Asked {
    let is_known = request.split(|byte| *byte == b' ').next() != Some(b"nosuch");
    let reply = is_known.then(|| hear(&request).1.reply);
    // Which server answers it is nobody's business.
    let reply = reply.filter(|_| !request.starts_with(b"quit"));
    Asked { request, expected: Expected { reply, keys }, is_silent: false }
}

/// A request as a server has read it.
pub(super) struct Heard {
    /// The command, its keys, and the value if there is one; in the words of Redis where the checks
    /// know them.
    pub(super) args: Vec<Vec<u8>>,
    pub(super) reply: Vec<u8>,
    /// The error that it may answer with instead.
    pub(super) refusal: Vec<u8>,
}

/// Reads the first request of what the worker wrote, and returns its length: there are whole,
/// well-formed requests and nothing else.
pub(super) fn hear(bytes: &[u8]) -> (usize, Heard) {
    let mut words = Vec::new();
    let scan = RequestScanner::default().scan(bytes, &LIMITS, &mut words);
    let Ok(RequestScan::Complete { len, request }) = scan else {
        let start = &bytes[..bytes.len().min(80)];
        panic!("{scan:?} in what a server gets: {}", start.escape_ascii());
    };
    let frame = &bytes[..len];
    let words: Vec<&[u8]> = words.iter().map(|word| word.of(frame)).collect();
    let verb = request.verb;
    let keys = match verb.is_retrieval() {
        true => words.get(verb.key_at()..).unwrap_or_default(),
        false => words.get(verb.key_at()..verb.key_at() + 1).unwrap_or_default(),
    };
    let name = if verb == Verb::Set { "SET" } else { verb.name() };
    let mut args = vec![name.as_bytes().to_vec()];
    args.extend(keys.iter().map(|key| key.to_vec()));
    args.extend(request.value.map(|value| value.of(frame).to_vec()));
    let named = keys.iter().find(|key| Tag::of(key).is_some()).copied().unwrap_or_default();
    let refusal = [b"SERVER_ERROR no ".as_slice(), named, b"\r\n"].concat();
    (len, Heard { args, reply: reply(verb, keys), refusal })
}

/// What a server says to a request.
fn reply(verb: Verb, keys: &[&[u8]]) -> Vec<u8> {
    let first = keys.first().copied().unwrap_or_default();
    let mut reply = Vec::new();
    match verb {
        Verb::Get | Verb::Gets | Verb::Gat | Verb::Gats => {
            let has_cas = matches!(verb, Verb::Gets | Verb::Gats);
            for key in keys {
                let value = value_of(key);
                reply.extend_from_slice(b"VALUE ");
                reply.extend_from_slice(key);
                let cas = if has_cas { " 7" } else { "" };
                reply.extend_from_slice(format!(" 0 {}{cas}\r\n", value.len()).as_bytes());
                reply.extend_from_slice(&value);
                reply.extend_from_slice(b"\r\n");
            }
            reply.extend_from_slice(b"END\r\n");
        }
        Verb::MetaGet => {
            let value = value_of(first);
            reply.extend_from_slice(format!("VA {}\r\n", value.len()).as_bytes());
            reply.extend_from_slice(&value);
            reply.extend_from_slice(b"\r\n");
        }
        Verb::Incr | Verb::Decr => {
            let number = Tag::of(first).map_or(1, Tag::number);
            reply.extend_from_slice(format!("{number}\r\n").as_bytes());
        }
        Verb::Delete => reply.extend_from_slice(b"DELETED\r\n"),
        Verb::Touch => reply.extend_from_slice(b"TOUCHED\r\n"),
        Verb::MetaNoop => reply.extend_from_slice(b"MN\r\n"),
        Verb::MetaDebug => reply.extend_from_slice(b"EN\r\n"),
        Verb::MetaSet | Verb::MetaDelete | Verb::MetaArithmetic => {
            reply.extend_from_slice(b"HD\r\n");
        }
        Verb::Version => reply.extend_from_slice(b"VERSION 1\r\n"),
        Verb::FlushAll | Verb::Verbosity => reply.extend_from_slice(b"OK\r\n"),
        Verb::Set | Verb::Add | Verb::Replace | Verb::Append | Verb::Prepend | Verb::Cas => {
            reply.extend_from_slice(b"STORED\r\n");
        }
        // Answered by the proxy.
        Verb::Stats | Verb::Quit | Verb::Admin => {}
    }
    reply
}
