//! The lines that hold an address: `listen` and the items of `servers`.
//!
//! twemproxy reads both from their end, so that IPv6 addresses need no brackets.

use std::num::NonZeroU32;

use super::number::{self, Number};
use super::{Address, HostPort, ListenAddress};
use crate::limits;

/// Default port of memcached; a server there is named by its host alone, as in libmemcached.
const MEMCACHED_PORT: u16 = 11211;

/// What is wrong with a `listen` value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum ListenError {
    Format,
    Port,
    EmptyHost,
    PathTooLong,
    Mode,
}

/// What is surprising about a `listen` value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum ListenSurprise {
    /// The mode has letters or ends with some; twemproxy reads this octal number from it.
    Mode(u32),
    /// The port overflows to this one.
    PortWraps(u16),
}

/// Reads a `listen` value, which is not empty.
pub(in crate::config) fn parse_listen(
    text: &str,
) -> Result<(ListenAddress, Option<ListenSurprise>), ListenError> {
    if text.starts_with('/') {
        let (path, mode) = match text.rsplit_once(' ') {
            None => (text, None),
            Some((path, mode)) => (path, Some(mode)),
        };
        let octal = mode.map(octal_prefix).transpose()?;
        if path.len() > limits::UNIX_PATH_BYTES_MAX {
            return Err(ListenError::PathTooLong);
        }
        let surprise = match octal {
            Some(Octal { value, is_whole: false }) => Some(ListenSurprise::Mode(value)),
            Some(Octal { is_whole: true, .. }) | None => None,
        };
        // twemproxy changes no permissions when the mode is 0.
        let mode = octal.map(|octal| octal.value).filter(|&mode| mode != 0);
        return Ok((ListenAddress::Unix { path: path.to_owned(), mode }, surprise));
    }
    let (host, port) = text.rsplit_once(':').ok_or(ListenError::Format)?;
    let (port, is_wrapped) = parse_port(port).ok_or(ListenError::Port)?;
    if host.is_empty() {
        return Err(ListenError::EmptyHost);
    }
    let address = HostPort { host: without_brackets(host).to_owned(), port };
    let surprise = is_wrapped.then_some(ListenSurprise::PortWraps(port));
    Ok((ListenAddress::Tcp(address), surprise))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Octal {
    value: u32,
    is_whole: bool,
}

/// Reads the octal number that a word starts with, as C's `strtol` does: perhaps a sign, then
/// digits, and what follows is ignored.
fn octal_prefix(word: &str) -> Result<Octal, ListenError> {
    let trimmed = word.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
    let (is_negative, digits) = match trimmed.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let count = digits.iter().take_while(|byte| (b'0'..=b'7').contains(byte)).count();
    let mut value: i64 = 0;
    for &digit in digits.iter().take(count) {
        let digit = i64::from(digit - b'0');
        value = value
            .checked_mul(8)
            .and_then(|value| value.checked_add(digit))
            .ok_or(ListenError::Mode)?;
    }
    if is_negative {
        value = -value;
    }
    // The result goes through 32 bits before it is compared.
    let value = u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX);
    if value > 0o777 {
        return Err(ListenError::Mode);
    }
    Ok(Octal { value, is_whole: count > 0 && count == word.len() })
}

/// What is wrong with an item of `servers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerError {
    Format,
    Weight,
    ZeroWeight,
    Port,
}

/// An item of `servers` and what is surprising about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerLine {
    pub(super) name: String,
    pub(super) is_named: bool,
    pub(super) address: Address,
    pub(super) weight: NonZeroU32,
    /// Whether the weight as written overflows to this one.
    pub(super) is_weight_wrapped: bool,
    /// Whether the port as written overflows to this one.
    pub(super) is_port_wrapped: bool,
}

/// Reads an item of `servers`, which is not empty.
///
/// From the end: a name behind the last space, a weight behind the last colon before it, a port
/// behind the last colon before that unless the item starts with a slash.
pub(super) fn parse_server(text: &str) -> Result<ServerLine, ServerError> {
    let (line, name) = match text.rsplit_once(' ') {
        None => (text, None),
        Some((line, name)) => (line, Some(name)),
    };
    let (place, weight) = line.rsplit_once(':').ok_or(ServerError::Format)?;
    let is_unix = text.starts_with('/');
    let tcp = match (is_unix, place.rsplit_once(':')) {
        // twemproxy takes a colon in a path for the one before a port, and gives up.
        (true, Some(_)) | (false, None) => return Err(ServerError::Format),
        (true, None) => None,
        (false, Some(tcp)) => Some(tcp),
    };
    let weight = number::parse(weight).map_err(|_| ServerError::Weight)?;
    let Number { wrapped, is_wrapped: is_weight_wrapped, .. } = weight;
    let weight = NonZeroU32::new(wrapped).ok_or(ServerError::ZeroWeight)?;
    let is_named = name.is_some();
    let Some((host, port)) = tcp else {
        let derived = format!("{place}:");
        return Ok(ServerLine {
            name: name.map_or(derived, str::to_owned),
            is_named,
            address: Address::Unix(place.to_owned()),
            weight,
            is_weight_wrapped,
            is_port_wrapped: false,
        });
    };
    let (port, is_port_wrapped) = parse_port(port).ok_or(ServerError::Port)?;
    let derived = if port == MEMCACHED_PORT { host } else { place };
    Ok(ServerLine {
        name: name.unwrap_or(derived).to_owned(),
        is_named,
        address: Address::Tcp(HostPort { host: without_brackets(host).to_owned(), port }),
        weight,
        is_weight_wrapped,
        is_port_wrapped,
    })
}

/// Reads `host:port` from its end, a host in brackets without them. The host may be empty.
pub(in crate::config) fn parse_host_port(text: &str) -> Option<HostPort> {
    let (host, port) = text.rsplit_once(':')?;
    match parse_port(port)? {
        (port, false) => Some(HostPort { host: without_brackets(host).to_owned(), port }),
        (_, true) => None,
    }
}

/// Reads a port and tells whether it overflowed.
fn parse_port(text: &str) -> Option<(u16, bool)> {
    let number = number::parse(text).ok()?;
    let port = u16::try_from(number.wrapped).ok().filter(|&port| port != 0)?;
    Some((port, number.is_wrapped))
}

/// Takes the brackets off an IPv6 address. Only the address loses them: a server's name is the text
/// as it is written, which twemproxy hashes.
fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .filter(|inner| inner.contains(':'))
        .unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> (String, Address, u32) {
        let line = parse_server(text).unwrap();
        (line.name, line.address, line.weight.get())
    }

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp(HostPort { host: host.to_owned(), port })
    }

    #[test]
    fn a_server_without_a_name_is_called_by_its_address_as_written() {
        assert_eq!(server("h:6379:1"), ("h:6379".into(), tcp("h", 6379), 1));
        assert_eq!(server("h:06379:2"), ("h:06379".into(), tcp("h", 6379), 2));
        assert_eq!(server("h:11211:3"), ("h".into(), tcp("h", 11211), 3));
        assert_eq!(server("h:011211:3"), ("h".into(), tcp("h", 11211), 3));
        assert_eq!(server("::1:6379:1"), ("::1:6379".into(), tcp("::1", 6379), 1));
        assert_eq!(server("[::1]:6379:1"), ("[::1]:6379".into(), tcp("::1", 6379), 1));
        assert_eq!(server("/s.sock:1"), ("/s.sock:".into(), Address::Unix("/s.sock".into()), 1));
    }

    #[test]
    fn a_name_stands_behind_the_last_space() {
        assert_eq!(server("h:1:1 a:b"), ("a:b".into(), tcp("h", 1), 1));
        assert_eq!(server("h x:1:1 a"), ("a".into(), tcp("h x", 1), 1));
        assert_eq!(server("h:1:1 "), (String::new(), tcp("h", 1), 1));
        assert_eq!(server("/s:1 n"), ("n".into(), Address::Unix("/s".into()), 1));
    }

    #[test]
    fn a_bad_server_line_names_its_first_fault() {
        let cases = [
            ("h", ServerError::Format),
            ("h:1", ServerError::Format),
            (" ", ServerError::Format),
            ("/a:b:1", ServerError::Format),
            ("h x:1:1", ServerError::Format),
            ("h:1:x", ServerError::Weight),
            ("h:1:", ServerError::Weight),
            ("h:1:+1", ServerError::Weight),
            ("h:1:1 a b", ServerError::Weight),
            ("h:1:1\ta", ServerError::Weight),
            ("h:1:0", ServerError::ZeroWeight),
            ("h:1:4294967296", ServerError::ZeroWeight),
            ("h:0:1", ServerError::Port),
            ("h::1", ServerError::Port),
            ("h:65536:1", ServerError::Port),
        ];
        for (text, error) in cases {
            assert_eq!(parse_server(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_listen_value_is_read_from_its_end() {
        let tcp = |host: &str, port| {
            Ok((ListenAddress::Tcp(HostPort { host: host.to_owned(), port }), None))
        };
        assert_eq!(parse_listen("0.0.0.0:1"), tcp("0.0.0.0", 1));
        assert_eq!(parse_listen("::1:22121"), tcp("::1", 22121));
        assert_eq!(parse_listen("[::1]:22121"), tcp("::1", 22121));
        assert_eq!(parse_listen("h"), Err(ListenError::Format));
        assert_eq!(parse_listen("h:"), Err(ListenError::Port));
        assert_eq!(parse_listen("h:65536"), Err(ListenError::Port));
        assert_eq!(parse_listen(":1"), Err(ListenError::EmptyHost));
    }

    #[test]
    fn the_mode_of_a_socket_is_read_as_c_reads_octal() {
        let read = |text: &str| match parse_listen(text) {
            Ok((ListenAddress::Unix { path, mode }, surprise)) => Ok((path, mode, surprise)),
            Ok((ListenAddress::Tcp(_), _)) => panic!("{text:?} is a path"),
            Err(error) => Err(error),
        };
        let odd = |mode| Some(ListenSurprise::Mode(mode));
        assert_eq!(read("/l"), Ok(("/l".into(), None, None)));
        assert_eq!(read("/l 0666"), Ok(("/l".into(), Some(0o666), None)));
        assert_eq!(read("/l 0"), Ok(("/l".into(), None, None)));
        assert_eq!(read("/l 678"), Ok(("/l".into(), Some(0o67), odd(0o67))));
        assert_eq!(read("/l abc"), Ok(("/l".into(), None, odd(0))));
        assert_eq!(read("/l "), Ok(("/l".into(), None, odd(0))));
        assert_eq!(read("/l a 600"), Ok(("/l a".into(), Some(0o600), None)));
        assert_eq!(read("/l -1"), Err(ListenError::Mode));
        assert_eq!(read("/l 7777"), Err(ListenError::Mode));
        assert_eq!(read(&format!("/l {}", "7".repeat(30))), Err(ListenError::Mode));
        assert_eq!(read(&format!("/{}", "l".repeat(107))), Err(ListenError::PathTooLong));
    }
}
