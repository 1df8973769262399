//! Requests that clients make up.

use ringkeeper_core::rng::Rng;

use crate::checker::{Tag, make_value};
use crate::codec::encode_request;
use crate::memcache::{self, Form};
use crate::scenario::{Verb, Workload};

/// What a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Verb(Verb),
    Auth,
    /// Not a request, or not one that is served.
    Garbage,
    /// A request that broke off.
    Torn,
}

/// A request and what the checker must know of it.
#[derive(Debug)]
pub(crate) struct Request {
    pub ask: Ask,
    pub keys: Vec<Vec<u8>>,
    /// Per key: its value carries a tag.
    pub tagged: Vec<bool>,
    pub bytes: Vec<u8>,
    /// How its reply is to be read; of no meaning where RESP is spoken.
    pub form: Form,
}

/// What no proxy can take for a request.
const GARBAGE: [&[u8]; 8] = [
    b"*1\r\n:5\r\n",
    b"*3\r\n$-2\r\n",
    b"*2\r\n$3\r\nGET\r\n$x\r\n",
    b"*99999999999999999999\r\n",
    b"*1\r\n$4\r\nPINGxx",
    b"*2\r\n$3\r\nGET\r\n$99999999999999999999\r\n",
    b"*2\r\n$7\r\nNOTACMD\r\n$1\r\nx\r\n",
    b"*2\r\n$3\r\nSET\r\n$4\r\nk0:1\r\n",
];

/// Who asks, and with which number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub client: u32,
    pub pool: usize,
    pub seq: u64,
    pub is_memcache: bool,
}

impl Request {
    pub(crate) fn auth(password: &[u8]) -> Self {
        let mut bytes = Vec::new();
        encode_request(&[b"AUTH".to_vec(), password.to_vec()], &mut bytes);
        Self { ask: Ask::Auth, keys: Vec::new(), tagged: Vec::new(), bytes, form: Form::Line }
    }

    pub(crate) fn garbage(rng: &mut Rng, is_memcache: bool) -> Self {
        let garbage: &[&[u8]] = if is_memcache { &memcache::GARBAGE } else { &GARBAGE };
        let bytes = garbage[rng.below(garbage.len() as u64) as usize].to_vec();
        Self::new(Ask::Garbage, bytes, Form::Line)
    }

    pub(crate) const fn new(ask: Ask, bytes: Vec<u8>, form: Form) -> Self {
        Self { ask, keys: Vec::new(), tagged: Vec::new(), bytes, form }
    }

    /// Draws a request for as large a reply as there is, which can be nobody else's.
    pub(crate) fn draw_large(rng: &mut Rng, asker: Asker, load: &Workload) -> Self {
        let Asker { client, pool, seq, .. } = asker;
        let len = load.value_bytes_max / 2 + rng.below(load.value_bytes_max / 2 + 1);
        let key = format!("e{pool}:{client}.{seq}.{len}").into_bytes();
        let (mut bytes, mut form) = (Vec::new(), Form::Line);
        if asker.is_memcache {
            let items = [(key.clone(), None)];
            form = memcache::encode_request(rng, Verb::Echo, false, &items, &mut bytes);
        } else {
            encode_request(&[b"GET".to_vec(), key.clone()], &mut bytes);
        }
        let mut request = Self::new(Ask::Verb(Verb::Echo), bytes, form);
        request.keys.push(key);
        request.tagged.push(false);
        request
    }

    /// Draws a request to a memcached.
    fn draw_memcache(rng: &mut Rng, asker: Asker, load: &Workload) -> Self {
        let drawn = load.verbs[rng.below(load.verbs.len() as u64) as usize];
        let is_silent = drawn == Verb::Append;
        let verb = if matches!(drawn, Verb::Append | Verb::Mset) { Verb::Set } else { drawn };
        let count = match verb {
            Verb::Ping => 0,
            Verb::Mget => 1 + rng.below(load.keys_max),
            _ => 1,
        };
        let mut items = Vec::new();
        let mut tagged = Vec::new();
        for index in 0..count as usize {
            let key = memcache::tame_key(draw_key(rng, asker, verb, load));
            let tag = Tag { client: asker.client, seq: asker.seq, index };
            let value =
                (verb == Verb::Set).then(|| make_value(tag, draw_len(rng, load.value_bytes_max)));
            tagged.push(value.as_deref().and_then(Tag::parse) == Some(tag));
            items.push((key, value));
        }
        let mut bytes = Vec::new();
        let form = memcache::encode_request(rng, verb, is_silent, &items, &mut bytes);
        let keys = items.into_iter().map(|(key, _)| key).collect();
        Self { keys, tagged, ..Self::new(Ask::Verb(verb), bytes, form) }
    }

    /// Draws a request.
    pub(crate) fn draw(rng: &mut Rng, asker: Asker, load: &Workload) -> Self {
        if asker.is_memcache {
            return Self::draw_memcache(rng, asker, load);
        }
        let verb = load.verbs[rng.below(load.verbs.len() as u64) as usize];
        let count = match verb {
            Verb::Ping => 0,
            Verb::Del | Verb::Unlink | Verb::Touch | Verb::Mget | Verb::Mset => {
                1 + rng.below(load.keys_max)
            }
            _ => 1,
        };
        let mut words = vec![name(rng, verb)];
        let mut keys = Vec::new();
        let mut tagged = Vec::new();
        for index in 0..count as usize {
            let key = draw_key(rng, asker, verb, load);
            words.push(key.clone());
            let mut is_tagged = false;
            if matches!(verb, Verb::Set | Verb::Mset | Verb::Append) {
                let most = match verb {
                    Verb::Append => 200,
                    _ => load.value_bytes_max,
                };
                let tag = Tag { client: asker.client, seq: asker.seq, index };
                let value = make_value(tag, draw_len(rng, most));
                is_tagged = Tag::parse(&value) == Some(tag);
                words.push(value);
            }
            keys.push(key);
            tagged.push(is_tagged);
        }
        let mut bytes = Vec::new();
        encode_request(&words, &mut bytes);
        Self { keys, tagged, ..Self::new(Ask::Verb(verb), bytes, Form::Line) }
    }
}

/// Draws a length: mostly small, sometimes none, rarely the largest.
fn draw_len(rng: &mut Rng, most: u64) -> usize {
    let bound = match rng.below(32) {
        0 | 1 => 1,
        2..=22 => 64,
        23..=29 => 1200,
        30 => 17_000,
        _ => most + 1,
    };
    rng.below(bound.min(most + 1)) as usize
}

/// Spells a command's name in one of the ways that clients do.
fn name(rng: &mut Rng, verb: Verb) -> Vec<u8> {
    let text = match verb {
        Verb::Get | Verb::Echo => "get",
        Verb::Set => "set",
        Verb::Append => "append",
        Verb::Incr => "incr",
        Verb::Strlen => "strlen",
        Verb::Exists => "exists",
        Verb::Del => "del",
        Verb::Unlink => "unlink",
        Verb::Touch => "touch",
        Verb::Mget => "mget",
        Verb::Mset => "mset",
        Verb::Ping => "ping",
    };
    let mut name = text.as_bytes().to_vec();
    match rng.below(3) {
        0 => name.make_ascii_uppercase(),
        1 => name.iter_mut().step_by(2).for_each(|byte| byte.make_ascii_uppercase()),
        _ => {}
    }
    name
}

/// Draws a key of the kind that the command works on.
fn draw_key(rng: &mut Rng, asker: Asker, verb: Verb, load: &Workload) -> Vec<u8> {
    let Asker { client, pool, seq, .. } = asker;
    match verb {
        Verb::Incr => return format!("n{pool}:{}", rng.below(5)).into_bytes(),
        Verb::Echo => {
            let len = draw_len(rng, load.value_bytes_max);
            return format!("e{pool}:{client}.{seq}.{len}").into_bytes();
        }
        Verb::Append => return format!("a{pool}:{}", rng.below(20)).into_bytes(),
        Verb::Strlen | Verb::Del | Verb::Get if rng.is_one_in(1, 4) => {
            return format!("a{pool}:{}", rng.below(20)).into_bytes();
        }
        _ => {}
    }
    match rng.below(16) {
        0..=5 => format!("k{pool}:{}", rng.below(6)).into_bytes(),
        6..=10 => format!("k{pool}:{}", rng.below(5_000)).into_bytes(),
        11..=13 => format!("k{pool}:c{client}.{}", rng.below(4)).into_bytes(),
        14 => {
            let number = rng.below(200);
            let mut key = format!("k{pool}:long{number}.").into_bytes();
            key.resize(key.len() + number as usize * 3, b'x');
            key
        }
        _ => {
            let mut key = format!("k{pool}:").into_bytes();
            key.extend_from_slice(b"\r\n$3\r\n\0\xff ");
            key.push(rng.below(256) as u8);
            key
        }
    }
}
