//! Subscribers: who hears which events.

use super::clients::{Client, ClientKey, Clients, Served};
use crate::limits;
use crate::sentinel::reply::Protocol;
use crate::wire::resp::encode;

impl Clients {
    /// Tells every subscriber of the event.
    pub(super) fn publish(&mut self, channel: &str, text: &str) {
        let name = channel.as_bytes();
        let hearers: Vec<ClientKey> =
            self.iter().filter(|(_, c)| c.is_subscriber()).map(|(key, _)| key).collect();
        for key in hearers {
            let Some(client) = self.get_mut(key) else { continue };
            if client.is_closing {
                continue;
            }
            if client.channels.contains(name) {
                push(client, 3, "message");
                encode::bulk(&mut client.out, name);
                encode::bulk(&mut client.out, text.as_bytes());
            }
            let patterns: Vec<Vec<u8>> =
                client.patterns.iter().filter(|glob| is_match(glob, name)).cloned().collect();
            for pattern in patterns {
                push(client, 4, "pmessage");
                encode::bulk(&mut client.out, &pattern);
                encode::bulk(&mut client.out, name);
                encode::bulk(&mut client.out, text.as_bytes());
            }
            self.touch(key);
        }
    }

    /// SUBSCRIBE and PSUBSCRIBE.
    pub(super) fn subscribe(
        &mut self,
        key: ClientKey,
        names: &[&[u8]],
        is_pattern: bool,
        out: &mut Vec<u8>,
    ) -> Served {
        let Some(client) = self.get_mut(key) else { return Served::Done };
        let word = if is_pattern { "psubscribe" } else { "subscribe" };
        for name in names {
            let held = client.channels.len() + client.patterns.len();
            if held >= limits::SENTINEL_SUBSCRIPTIONS_MAX {
                encode::error(out, "ERR too many subscriptions");
                return Served::Close;
            }
            let list = if is_pattern { &mut client.patterns } else { &mut client.channels };
            list.insert(name.to_vec());
            confirm(client, word, Some(name), out);
        }
        Served::Done
    }

    /// UNSUBSCRIBE and PUNSUBSCRIBE; without names of everything.
    pub(super) fn unsubscribe(
        &mut self,
        key: ClientKey,
        names: &[&[u8]],
        is_pattern: bool,
        out: &mut Vec<u8>,
    ) {
        let Some(client) = self.get_mut(key) else { return };
        let word = if is_pattern { "punsubscribe" } else { "unsubscribe" };
        let list = if is_pattern { &mut client.patterns } else { &mut client.channels };
        let all: Vec<Vec<u8>> = if names.is_empty() {
            list.iter().cloned().collect()
        } else {
            names.iter().map(|name| name.to_vec()).collect()
        };
        if all.is_empty() {
            confirm(client, word, None, out);
        }
        for name in all {
            let list = if is_pattern { &mut client.patterns } else { &mut client.channels };
            list.remove(&name);
            confirm(client, word, Some(&name), out);
        }
    }
}

fn header(protocol: Protocol, out: &mut Vec<u8>, count: usize) {
    match protocol {
        Protocol::Resp2 => encode::array_header(out, count),
        Protocol::Resp3 => {
            out.push(b'>');
            encode::decimal(out, count as u64);
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn push(client: &mut Client, count: usize, word: &str) {
    header(client.protocol, &mut client.out, count);
    encode::bulk(&mut client.out, word.as_bytes());
}

fn confirm(client: &Client, word: &str, name: Option<&[u8]>, out: &mut Vec<u8>) {
    header(client.protocol, out, 3);
    encode::bulk(out, word.as_bytes());
    match (name, client.protocol) {
        (Some(name), _) => encode::bulk(out, name),
        (None, Protocol::Resp2) => encode::null_bulk(out),
        (None, Protocol::Resp3) => out.extend_from_slice(b"_\r\n"),
    }
    let held = client.channels.len() + client.patterns.len();
    encode::integer(out, i64::try_from(held).unwrap_or(i64::MAX));
}

/// Whether a text matches a pattern of Redis: `*`, `?`, `[…]` with ranges and `^`, and a backslash
/// before what is to be taken as it is.
///
/// Takes at most the product of the two lengths: only the last star is tried again.
pub(super) fn is_match(pattern: &[u8], text: &[u8]) -> bool {
    let (mut rest, mut left) = (pattern, text);
    let mut again: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', tail @ ..] = rest {
            again = Some((tail, left));
            rest = tail;
            continue;
        }
        let is_end = left.is_empty();
        if rest.is_empty() && is_end {
            return true;
        }
        if let Some((tail, after)) = one(rest, left) {
            (rest, left) = (tail, after);
            continue;
        }
        // The last star takes one more.
        let Some((tail, [_, after @ ..])) = again else { return false };
        again = Some((tail, after));
        (rest, left) = (tail, after);
    }
}

/// Matches one element of a pattern against one byte.
fn one<'p, 't>(pattern: &'p [u8], text: &'t [u8]) -> Option<(&'p [u8], &'t [u8])> {
    let (byte, after) = text.split_first()?;
    match pattern {
        [b'?', tail @ ..] => Some((tail, after)),
        [b'[', class @ ..] => {
            let (is_in, tail) = in_class(class, *byte);
            is_in.then_some((tail, after))
        }
        [b'\\', literal, tail @ ..] | [literal, tail @ ..] => {
            (literal == byte).then_some((tail, after))
        }
        [] => None,
    }
}

/// Whether a byte is in the class that begins behind `[`, and what follows the class.
fn in_class(class: &[u8], byte: u8) -> (bool, &[u8]) {
    let (is_negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut is_in = false;
    loop {
        match rest {
            [] => return (is_in != is_negated, rest),
            [b']', tail @ ..] => return (is_in != is_negated, tail),
            [b'\\', literal, tail @ ..] => {
                is_in |= *literal == byte;
                rest = tail;
            }
            [first, b'-', last, tail @ ..] => {
                let (low, high) = (first.min(last), first.max(last));
                is_in |= (*low..=*high).contains(&byte);
                rest = tail;
            }
            [literal, tail @ ..] => {
                is_in |= *literal == byte;
                rest = tail;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_match;

    #[test]
    fn patterns_match_as_in_redis() {
        let cases = [
            ("*", "", true),
            ("*", "+sdown", true),
            ("+s*", "+sdown", true),
            ("*down", "+odown", true),
            ("+?down", "+odown", true),
            ("+[so]down", "+odown", true),
            ("+[^s]down", "+sdown", false),
            ("+[a-p]down", "+odown", true),
            ("[-+]*", "-sdown", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a*b*c", "aXbXXc", true),
            ("a*b*c", "aXbXX", false),
            ("", "", true),
            ("", "a", false),
            ("?", "", false),
            ("[", "[", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(is_match(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_cost_little() {
        let pattern = "*a".repeat(200);
        let text = "b".repeat(10_000);
        assert!(!is_match(pattern.as_bytes(), text.as_bytes()));
    }
}
