//! The kernel's list of TCP connections, and how one of them is reset.
//!
//! Source: `linux/sock_diag.h`, `linux/inet_diag.h`, `net/tcp_states.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::request::{FLAG_DUMP, request};
use super::{FAMILY_V4, FAMILY_V6, HEADER_BYTES, TYPE_DONE, TYPE_ERROR, half, number, word};

/// What is asked for, and what the answers are.
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;

const PROTOCOL_TCP: u8 = 6;

/// Bits of the states in which the other end believes that somebody is here: established, both
/// waits of an end that we began, and the one of an end that it began.
const STATES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8;

/// Bytes of what names a connection: ports, addresses, interface, cookie.
const NAME_BYTES: usize = 48;

/// Where the own address stands in a name, behind the two ports.
const OWN_ADDRESS_AT: usize = 4;

/// Names a connection that cannot be; the kernel looks for it by its cookie, too.
const NOBODY: [u8; NAME_BYTES] = [0; NAME_BYTES];

/// An IP version, of those that have a list of connections each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Sockets of IPv4.
    V4,
    /// Sockets of IPv6, which may have connections of IPv4.
    V6,
}

impl Family {
    const fn number(self) -> u8 {
        match self {
            Self::V4 => FAMILY_V4,
            Self::V6 => FAMILY_V6,
        }
    }
}

/// A connection as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    family: u8,
    name: [u8; NAME_BYTES],
    /// Its address on this host.
    pub own: IpAddr,
}

/// What the kernel says about its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One of them.
    Connection(Connection),
    /// The list is complete.
    Done,
    /// A request was refused (an error number), or carried out (0).
    Result(i32),
    /// Something else.
    Other,
}

/// Asks for all connections in which the other end believes that somebody is here.
pub fn dump_connections(request_number: u32, family: Family) -> Vec<u8> {
    let body = body(family.number(), &NOBODY);
    request(request_number, BY_FAMILY, FLAG_DUMP, &body)
}

/// Resets a connection: the other end is told at once. Only a failure is answered.
pub fn reset_connection(request_number: u32, connection: &Connection) -> Vec<u8> {
    request(request_number, DESTROY, 0, &body(connection.family, &connection.name))
}

/// Asks to reset a connection that is not there: the answer tells whether the kernel has the
/// request (ENOENT) or not.
pub fn probe_reset(request_number: u32) -> Vec<u8> {
    request(request_number, DESTROY, 0, &body(FAMILY_V4, &NOBODY))
}

fn body(family: u8, name: &[u8; NAME_BYTES]) -> Vec<u8> {
    let mut body = vec![family, PROTOCOL_TCP, 0, 0];
    body.extend(STATES.to_ne_bytes());
    body.extend(name);
    body
}

/// Reads the answers of one datagram. What is cut short ends them.
pub fn answers(bytes: &[u8]) -> Answers<'_> {
    Answers { rest: bytes }
}

/// The answers of one datagram.
#[derive(Clone, Debug)]
pub struct Answers<'a> {
    rest: &'a [u8],
}

impl Iterator for Answers<'_> {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        let length = usize::try_from(word(self.rest, 0)?).ok()?;
        let kind = half(self.rest, 4)?;
        let body = self.rest.get(HEADER_BYTES..length)?;
        self.rest = self.rest.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
        let answer = match kind {
            TYPE_DONE => Some(Answer::Done),
            TYPE_ERROR => number(body).map(|error| Answer::Result(error.saturating_neg())),
            BY_FAMILY => connection(body).map(Answer::Connection),
            _ => None,
        };
        Some(answer.unwrap_or(Answer::Other))
    }
}

fn connection(body: &[u8]) -> Option<Connection> {
    let family = *body.first()?;
    let name: [u8; NAME_BYTES] = *body.get(4..)?.first_chunk()?;
    let own = name.get(OWN_ADDRESS_AT..)?;
    let own = match family {
        FAMILY_V4 => Ipv4Addr::from(*own.first_chunk::<4>()?).into(),
        FAMILY_V6 => IpAddr::from(Ipv6Addr::from(*own.first_chunk::<16>()?)).to_canonical(),
        _ => return None,
    };
    Some(Connection { family, name, own })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes the kernel's message about a connection.
    fn told(family: u8, own: &[u8]) -> Vec<u8> {
        let mut body = vec![family, 1, 0, 0];
        body.extend([0x1a, 0xeb, 0x30, 0x39]);
        body.extend(own);
        body.resize(4 + NAME_BYTES, 7);
        body.extend([0; 20]);
        request(1, BY_FAMILY, 0, &body)
    }

    fn connections(bytes: &[u8]) -> Vec<Connection> {
        let one = |answer| match answer {
            Answer::Connection(one) => Some(one),
            Answer::Done | Answer::Result(_) | Answer::Other => None,
        };
        answers(bytes).filter_map(one).collect()
    }

    #[test]
    fn a_connection_is_known_by_its_address_on_this_host() {
        let mut bytes = told(FAMILY_V4, &[10, 0, 0, 9]);
        let mapped: Ipv6Addr = "::ffff:10.0.0.8".parse().unwrap();
        bytes.extend(told(FAMILY_V6, &mapped.octets()));
        let six: Ipv6Addr = "fd77::1".parse().unwrap();
        bytes.extend(told(FAMILY_V6, &six.octets()));
        let own: Vec<String> = connections(&bytes).iter().map(|one| one.own.to_string()).collect();
        assert_eq!(own, ["10.0.0.9", "10.0.0.8", "fd77::1"]);
    }

    #[test]
    fn a_reset_names_the_connection_as_the_kernel_did() {
        let bytes = told(FAMILY_V4, &[10, 0, 0, 9]);
        let [one] = connections(&bytes).try_into().unwrap();
        let reset = reset_connection(2, &one);
        assert_eq!(reset.len(), HEADER_BYTES + 56);
        assert_eq!(half(&reset, 4), Some(DESTROY));
        assert_eq!(reset[HEADER_BYTES..HEADER_BYTES + 2], [FAMILY_V4, PROTOCOL_TCP]);
        assert_eq!(reset[HEADER_BYTES + 8..], bytes[HEADER_BYTES + 4..HEADER_BYTES + 52]);
    }

    #[test]
    fn ends_refusals_and_cut_messages_are_told_apart() {
        let mut bytes = request(1, TYPE_DONE, 0, &[0; 4]);
        bytes.extend(request(1, TYPE_ERROR, 0, &(-2_i32).to_ne_bytes()));
        bytes.extend(request(1, BY_FAMILY, 0, &[FAMILY_V4; 8]));
        let expected = [Answer::Done, Answer::Result(2), Answer::Other];
        assert_eq!(answers(&bytes).collect::<Vec<_>>(), expected);
        let whole = told(FAMILY_V4, &[10, 0, 0, 9]);
        for end in 0..whole.len() {
            assert_eq!(answers(&whole[..end]).next(), None, "{end}");
        }
    }
}
