//! memcached's protocol as the far ends speak it, and a model memcached.
//!
//! The model does to its data what the model Redis does, so that the same checker judges both:
//! `mg key s` asks for a length, `mg key` whether a key is there, and `incr` begins at nothing.

use ringkeeper_core::rng::Rng;

use crate::Check;
use crate::codec::{Parsed, Reply};
use crate::scenario::Verb;
use crate::world::World;

/// How the reply to a request is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line, or a line and its value.
    Line,
    /// Values and their end.
    Values,
    /// Nothing or a line with its value, then the answer to the `mn` behind it.
    Quiet,
    /// There is none.
    Silent,
}

/// What no memcached client may say.
pub(crate) const GARBAGE: [&[u8]; 7] = [
    b"bogus\r\n",
    b"\r\n",
    b"get\r\n",
    b"set k0:1 0 0 x\r\n",
    b"set k0:1 x 0 3\r\nabc\r\n",
    b"set k0:1 0 0 3\r\nabcdef\r\n",
    b"\x80\x00\x00\x00",
];

/// What no memcached says.
pub(crate) const SERVER_GARBAGE: [&[u8]; 7] = [
    b"?what\r\n",
    b"\x00\x01\x02\x03",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"VALUE k 0 3\r\nabcde\r\n",
    b"VALUE k 0 x\r\n",
    b"VA 99999999999999999999\r\n",
    b"+OK\r\n",
];

/// Replies that break off.
pub(crate) const HALVES: [&[u8]; 4] =
    [b"VALUE k 0 10\r\nabc", b"VALUE k 0 1\r\nx\r\n", b"STO", b"VA"];

/// Replies that nobody asked for.
pub(crate) const STRAYS: [&[u8]; 5] =
    [b"STORED\r\n", b"END\r\n", b"MN\r\n", b"1\r\n", b"SERVER_ERROR stray\r\n"];

/// A key that memcached takes, made of any.
pub(crate) fn tame_key(mut key: Vec<u8>) -> Vec<u8> {
    key.truncate(250);
    for byte in &mut key {
        if *byte <= b' ' || *byte == 0x7f {
            *byte = b'_';
        }
    }
    key
}

/// Writes a request in one of the ways that clients do. `items` are keys and their values.
pub(crate) fn encode_request(
    rng: &mut Rng,
    verb: Verb,
    is_silent: bool,
    items: &[(Vec<u8>, Option<Vec<u8>>)],
    out: &mut Vec<u8>,
) -> Form {
    let (key, value) = items.first().cloned().unwrap_or_default();
    let mut line = |words: &[&[u8]]| {
        out.extend_from_slice(&words.join(&b' '));
        out.extend_from_slice(b"\r\n");
    };
    match verb {
        Verb::Set | Verb::Mset | Verb::Append => {
            let value = value.unwrap_or_default();
            let length = value.len().to_string();
            let mut words: Vec<&[u8]> = vec![b"set", &key, b"7", b"-1", length.as_bytes()];
            words[3] = if rng.is_one_in(1, 2) { b"0" } else { b"100" };
            if is_silent {
                words.push(b"noreply");
            }
            line(&words);
            out.extend_from_slice(&value);
            out.extend_from_slice(b"\r\n");
            if is_silent { Form::Silent } else { Form::Line }
        }
        Verb::Get | Verb::Echo => match rng.below(4) {
            0 => {
                line(&[b"mg", &key, b"v"]);
                Form::Line
            }
            1 => {
                line(&[b"mg", &key, b"v", b"q"]);
                line(&[b"mn"]);
                Form::Quiet
            }
            2 => {
                line(&[b"gets", &key]);
                Form::Values
            }
            _ => {
                line(&[b"get", &key]);
                Form::Values
            }
        },
        Verb::Mget => {
            let mut words: Vec<&[u8]> = vec![b"get"];
            words.extend(items.iter().map(|(key, _)| key.as_slice()));
            line(&words);
            Form::Values
        }
        Verb::Incr => {
            line(&[b"incr", &key, b"1"]);
            Form::Line
        }
        Verb::Del => {
            line(&[b"delete", &key]);
            Form::Line
        }
        Verb::Unlink => {
            line(&[b"md", &key]);
            Form::Line
        }
        Verb::Touch => {
            line(&[b"touch", &key, b"0"]);
            Form::Line
        }
        Verb::Exists => {
            line(&[b"mg", &key]);
            Form::Line
        }
        Verb::Strlen => {
            line(&[b"mg", &key, b"s"]);
            Form::Line
        }
        Verb::Ping => {
            line(&[b"mn"]);
            Form::Line
        }
    }
}

/// Returns the words of the line at `from`, and where the next one starts.
fn words(bytes: &[u8], from: usize) -> Parsed<Vec<&[u8]>> {
    let rest = &bytes[from.min(bytes.len())..];
    match rest.iter().position(|byte| *byte == b'\n') {
        Some(end) if end > 0 && rest[end - 1] == b'\r' => {
            Parsed::Whole(rest[..end - 1].split(|byte| *byte == b' ').collect(), from + end + 1)
        }
        Some(_) => Parsed::Broken("a line feed without a carriage return"),
        None if rest.len() > 64 * 1024 => Parsed::Broken("a line without an end"),
        None => Parsed::Needs(bytes.len() + 1),
    }
}

fn length(word: Option<&&[u8]>) -> Option<usize> {
    std::str::from_utf8(word?).ok()?.parse().ok()
}

/// Reads the value of `length` bytes at `from`.
fn value(bytes: &[u8], from: usize, length: usize) -> Parsed<Vec<u8>> {
    let end = from + length;
    if bytes.len() < end + 2 {
        return Parsed::Needs(end + 2);
    }
    if &bytes[end..end + 2] != b"\r\n" {
        return Parsed::Broken("a value that does not end where it says");
    }
    Parsed::Whole(bytes[from..end].to_vec(), end + 2)
}

/// Reads one request, as strictly as it should come; a value is the last word.
pub(crate) fn parse_request(bytes: &[u8]) -> Parsed<Vec<Vec<u8>>> {
    let (line, next) = match words(bytes, 0) {
        Parsed::Whole(line, next) => (line, next),
        Parsed::Needs(more) => return Parsed::Needs(more),
        Parsed::Broken(why) => return Parsed::Broken(why),
    };
    if line.iter().any(|word| word.is_empty()) {
        return Parsed::Broken("more than one space between two words");
    }
    let mut owned: Vec<Vec<u8>> = line.iter().map(|word| word.to_vec()).collect();
    if line[0] != b"set" {
        return Parsed::Whole(owned, next);
    }
    if line.len() != 5 {
        return Parsed::Broken("a set with other words");
    }
    let Some(length) = length(line.get(4)) else { return Parsed::Broken("a set without a length") };
    match value(bytes, next, length) {
        Parsed::Whole(value, next) => {
            owned.push(value);
            Parsed::Whole(owned, next)
        }
        Parsed::Needs(more) => Parsed::Needs(more),
        Parsed::Broken(why) => Parsed::Broken(why),
    }
}

/// Reads the reply to a request of this form about these keys, as Redis would have put it.
pub(crate) fn parse_reply(
    bytes: &[u8],
    form: Form,
    verb: Option<Verb>,
    keys: &[Vec<u8>],
) -> Parsed<Reply> {
    let (line, next) = match words(bytes, 0) {
        Parsed::Whole(line, next) => (line, next),
        Parsed::Needs(more) => return Parsed::Needs(more),
        Parsed::Broken(why) => return Parsed::Broken(why),
    };
    if matches!(line[0], b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR") {
        let error = Reply::Error(bytes[..next - 2].to_vec());
        return if form == Form::Quiet {
            barrier(bytes, next, error)
        } else {
            Parsed::Whole(error, next)
        };
    }
    match form {
        Form::Values => values(bytes, verb, keys),
        Form::Quiet if line[0] == b"MN" => Parsed::Whole(Reply::Bulk(None), next),
        Form::Quiet => match meta_value(bytes, &line, next) {
            Parsed::Whole(reply, next) => barrier(bytes, next, reply),
            other => other,
        },
        Form::Line if line[0] == b"VA" => meta_value(bytes, &line, next),
        Form::Line | Form::Silent => one_line(&line, verb)
            .map_or(Parsed::Broken("another reply"), |reply| Parsed::Whole(reply, next)),
    }
}

/// Reads the answer to an `mn` behind a reply.
fn barrier(bytes: &[u8], from: usize, reply: Reply) -> Parsed<Reply> {
    match words(bytes, from) {
        Parsed::Whole(line, next) if line[0] == b"MN" => Parsed::Whole(reply, next),
        Parsed::Whole(..) => Parsed::Broken("something else than MN"),
        Parsed::Needs(more) => Parsed::Needs(more),
        Parsed::Broken(why) => Parsed::Broken(why),
    }
}

fn meta_value(bytes: &[u8], line: &[&[u8]], next: usize) -> Parsed<Reply> {
    let Some(length) = length(line.get(1)).filter(|_| line[0] == b"VA") else {
        return Parsed::Broken("no value");
    };
    match value(bytes, next, length) {
        Parsed::Whole(value, next) => Parsed::Whole(Reply::Bulk(Some(value)), next),
        Parsed::Needs(more) => Parsed::Needs(more),
        Parsed::Broken(why) => Parsed::Broken(why),
    }
}

/// Reads values up to their end; they have to be those of `keys`, in their order.
fn values(bytes: &[u8], verb: Option<Verb>, keys: &[Vec<u8>]) -> Parsed<Reply> {
    let (mut items, mut at) = (Vec::new(), 0);
    let mut keys = keys.iter();
    loop {
        let (line, next) = match words(bytes, at) {
            Parsed::Whole(line, next) => (line, next),
            Parsed::Needs(more) => return Parsed::Needs(more),
            Parsed::Broken(why) => return Parsed::Broken(why),
        };
        if line[0] == b"END" {
            items.extend(keys.map(|_| Reply::Bulk(None)));
            let reply = match (verb, items.len()) {
                (Some(Verb::Mget), _) => Reply::Array(Some(items)),
                (_, 1) => items.remove(0),
                _ => return Parsed::Broken("no values were asked for"),
            };
            return Parsed::Whole(reply, next);
        }
        let Some(length) = length(line.get(3)).filter(|_| line[0] == b"VALUE" && line[2] == b"7")
        else {
            return Parsed::Broken("neither a value nor the end");
        };
        loop {
            match keys.next() {
                Some(key) if key == line[1] => break,
                Some(_) => items.push(Reply::Bulk(None)),
                None => return Parsed::Broken("a value out of its order"),
            }
        }
        match value(bytes, next, length) {
            Parsed::Whole(value, next) => {
                items.push(Reply::Bulk(Some(value)));
                at = next;
            }
            Parsed::Needs(more) => return Parsed::Needs(more),
            Parsed::Broken(why) => return Parsed::Broken(why),
        }
    }
}

fn one_line(line: &[&[u8]], verb: Option<Verb>) -> Option<Reply> {
    let integer = |value| Some(Reply::Integer(value));
    match (verb?, line) {
        (Verb::Set, [b"STORED"]) => Some(Reply::Status(b"OK".to_vec())),
        (Verb::Ping, [b"MN"]) => Some(Reply::Status(b"PONG".to_vec())),
        (Verb::Get | Verb::Echo, [b"EN"]) => Some(Reply::Bulk(None)),
        (Verb::Del, [b"DELETED"]) | (Verb::Unlink | Verb::Exists, [b"HD"]) => integer(1),
        (Verb::Touch, [b"TOUCHED"]) => integer(1),
        (Verb::Del | Verb::Touch, [b"NOT_FOUND"]) | (Verb::Unlink, [b"NF"]) => integer(0),
        (Verb::Exists | Verb::Strlen, [b"EN"]) => integer(0),
        (Verb::Strlen, [b"HD", size]) => {
            integer(std::str::from_utf8(size.strip_prefix(b"s")?).ok()?.parse().ok()?)
        }
        (Verb::Incr, [count]) => integer(std::str::from_utf8(count).ok()?.parse().ok()?),
        _ => None,
    }
}

impl World {
    /// Executes a request on a model memcached and writes its reply.
    pub(crate) fn server_memcache(
        &mut self,
        server: usize,
        words: &[Vec<u8>],
        out: &mut Vec<u8>,
    ) -> Check {
        let line: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        match line.as_slice() {
            [b"mn"] => {
                out.extend_from_slice(b"MN\r\n");
                return Ok(());
            }
            [b"version"] => {
                out.extend_from_slice(b"VERSION 1.6.0\r\n");
                return Ok(());
            }
            _ => {}
        }
        if self.servers[server].error.is_some() && self.rng.is_one_in(1, 2) {
            out.extend_from_slice(b"SERVER_ERROR out of memory storing object\r\n");
            return Ok(());
        }
        match line.as_slice() {
            [name @ (b"get" | b"gets"), keys @ ..] if !keys.is_empty() => {
                let Reply::Array(Some(items)) = self.server_data(server, b"MGET", &words[1..])?
                else {
                    return Err("MGET is an array".into());
                };
                for (key, item) in words[1..].iter().zip(items) {
                    let Reply::Bulk(Some(value)) = item else { continue };
                    let version = if *name == b"gets" { " 12345" } else { "" };
                    out.extend_from_slice(b"VALUE ");
                    out.extend_from_slice(key);
                    out.extend_from_slice(format!(" 7 {}{version}\r\n", value.len()).as_bytes());
                    out.extend_from_slice(&value);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"END\r\n");
            }
            [b"mg", _, flags @ ..] => {
                let is_quiet = flags.contains(&&b"q"[..]);
                match self.server_data(server, b"GET", &words[1..2])? {
                    Reply::Bulk(Some(value)) if flags.contains(&&b"v"[..]) => {
                        out.extend_from_slice(format!("VA {}\r\n", value.len()).as_bytes());
                        out.extend_from_slice(&value);
                        out.extend_from_slice(b"\r\n");
                    }
                    Reply::Bulk(Some(value)) if flags.contains(&&b"s"[..]) => {
                        out.extend_from_slice(format!("HD s{}\r\n", value.len()).as_bytes());
                    }
                    Reply::Bulk(Some(_)) => out.extend_from_slice(b"HD\r\n"),
                    _ if is_quiet => {}
                    _ => out.extend_from_slice(b"EN\r\n"),
                }
            }
            [b"set", key, b"7", b"0" | b"100", _, value] => {
                self.server_data(server, b"SET", &[key.to_vec(), value.to_vec()])?;
                out.extend_from_slice(b"STORED\r\n");
            }
            [b"incr", key, b"1"] => {
                let Reply::Integer(count) = self.server_data(server, b"INCR", &[key.to_vec()])?
                else {
                    return Err("INCR is a number".into());
                };
                out.extend_from_slice(format!("{count}\r\n").as_bytes());
            }
            [b"delete" | b"md", key] | [b"touch", key, b"0"] => {
                let name: &[u8] = if line[0] == b"touch" { b"TOUCH" } else { b"DEL" };
                let count = self.server_data(server, name, &[key.to_vec()])?;
                let is_there = count == Reply::Integer(1);
                out.extend_from_slice(match (line[0], is_there) {
                    (b"md", true) => b"HD\r\n",
                    (b"md", false) => b"NF\r\n",
                    (b"touch", true) => b"TOUCHED\r\n",
                    (_, true) => b"DELETED\r\n",
                    (_, false) => b"NOT_FOUND\r\n",
                });
            }
            _ => {
                let text = line.join(&b' ');
                return Err(format!("a memcached was sent {}", text.escape_ascii()));
            }
        }
        Ok(())
    }
}
