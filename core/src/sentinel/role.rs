//! The reply to ROLE: what a server is, in one short answer.

use super::instance::{Address, AddressError};
use crate::limits;
use crate::wire::resp::{ReplyScan, ReplyScanner, array_elements, is_error, parse_integer_reply};

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleReply {
    /// A master.
    Master {
        /// Bytes of its history.
        offset: u64,
        /// Its replicas and the bytes that each has acknowledged.
        replicas: Vec<(Address, u64)>,
    },
    /// A replica.
    Replica {
        /// Whom it follows.
        master: Address,
        /// How far the connection there is.
        link: LinkState,
        /// Bytes of the master's history that it has; none before the first.
        offset: Option<u64>,
    },
    /// A Sentinel, with the names of its masters.
    Sentinel(Vec<String>),
}

/// How far a replica's connection to its master is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It has not begun.
    None,
    /// It will connect.
    Connect,
    /// It is connecting.
    Connecting,
    /// It is introducing itself.
    Handshake,
    /// It takes the data over.
    Sync,
    /// It follows.
    Connected,
    /// It says something that no known server says.
    Unknown,
}

/// Why a frame is no answer to ROLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleError {
    /// Not one whole frame.
    Incomplete,
    /// The server refused, for instance because it wants a password.
    Refused,
    /// Not an array that begins with a word.
    Shape,
    /// A role that is not known.
    UnknownRole,
    /// Elements are missing.
    TooShort,
    /// An offset that is no number.
    Offset,
    /// A master or replica without an address.
    Address(AddressError),
    /// More replicas than [`limits::REPLICAS_PER_MASTER_MAX`].
    TooManyReplicas,
}

impl RoleReply {
    /// Reads a whole frame.
    ///
    /// # Errors
    ///
    /// The first part that is wrong.
    pub fn parse(frame: &[u8]) -> Result<Self, RoleError> {
        match ReplyScanner::default().advance(frame) {
            Ok(ReplyScan::Complete { len }) if len == frame.len() => {}
            Ok(_) | Err(_) => return Err(RoleError::Incomplete),
        }
        if is_error(frame) {
            return Err(RoleError::Refused);
        }
        let mut elements = array_elements(frame).ok_or(RoleError::Shape)?;
        let word = elements.next().and_then(bulk).ok_or(RoleError::Shape)?;
        let mut next = || elements.next().ok_or(RoleError::TooShort);
        match word {
            b"master" => {
                let offset = number(next()?)?.unwrap_or(0);
                Ok(Self::Master { offset, replicas: replicas(next()?)? })
            }
            b"slave" => {
                let host = bulk(next()?).ok_or(RoleError::Address(AddressError::Host))?;
                let port = parse_integer_reply(next()?).unwrap_or(0);
                let port = u16::try_from(port).unwrap_or(0);
                let host = std::str::from_utf8(host).unwrap_or_default();
                let master = Address::new(host, port).map_err(RoleError::Address)?;
                let link = link_state(bulk(next()?).ok_or(RoleError::Shape)?);
                Ok(Self::Replica { master, link, offset: number(next()?)? })
            }
            b"sentinel" => {
                let names = array_elements(next()?).ok_or(RoleError::Shape)?;
                let names = names.map(|name| bulk(name).ok_or(RoleError::Shape));
                let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
                Ok(Self::Sentinel(names.map(|name| name.map(text)).collect::<Result<_, _>>()?))
            }
            _ => Err(RoleError::UnknownRole),
        }
    }
}

fn replicas(frame: &[u8]) -> Result<Vec<(Address, u64)>, RoleError> {
    let list = array_elements(frame).ok_or(RoleError::Shape)?;
    if list.announced() > limits::REPLICAS_PER_MASTER_MAX {
        return Err(RoleError::TooManyReplicas);
    }
    list.map(|replica| {
        let mut fields = array_elements(replica).ok_or(RoleError::Shape)?;
        let mut next = || fields.next().and_then(bulk).ok_or(RoleError::TooShort);
        let address = Address::parse(next()?, next()?).map_err(RoleError::Address)?;
        let offset = super::info::parse_offset(next()?).ok_or(RoleError::Offset)?;
        Ok((address, offset.unwrap_or(0)))
    })
    .collect()
}

fn link_state(word: &[u8]) -> LinkState {
    match word {
        b"none" => LinkState::None,
        b"connect" => LinkState::Connect,
        b"connecting" => LinkState::Connecting,
        b"handshake" => LinkState::Handshake,
        b"sync" => LinkState::Sync,
        b"connected" => LinkState::Connected,
        _ => LinkState::Unknown,
    }
}

fn number(frame: &[u8]) -> Result<Option<u64>, RoleError> {
    parse_integer_reply(frame).map(|value| u64::try_from(value).ok()).ok_or(RoleError::Offset)
}

/// Returns the content of a whole bulk frame.
pub(super) fn bulk(frame: &[u8]) -> Option<&[u8]> {
    let body = frame.strip_prefix(b"$")?.strip_suffix(b"\r\n")?;
    let line = memchr::memmem::find(body, b"\r\n")?;
    body.get(line + 2..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_wrong_part_has_its_own_error() {
        let error = |frame: &[u8]| RoleReply::parse(frame).unwrap_err();
        assert_eq!(error(b"*1\r\n$6\r\nmas"), RoleError::Incomplete);
        assert_eq!(error(b"+OK\r\n+OK\r\n"), RoleError::Incomplete);
        assert_eq!(error(b"-NOAUTH Authentication required.\r\n"), RoleError::Refused);
        assert_eq!(error(b":1\r\n"), RoleError::Shape);
        assert_eq!(error(b"*1\r\n:1\r\n"), RoleError::Shape);
        assert_eq!(error(b"*1\r\n$4\r\nking\r\n"), RoleError::UnknownRole);
        assert_eq!(error(b"*1\r\n$6\r\nmaster\r\n"), RoleError::TooShort);
        assert_eq!(error(b"*3\r\n$6\r\nmaster\r\n+x\r\n*0\r\n"), RoleError::Offset);
        assert_eq!(
            error(b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:0\r\n$9\r\nconnected\r\n:1\r\n"),
            RoleError::Address(AddressError::Port)
        );
    }

    proptest! {
        #[test]
        fn no_frame_panics(bytes in proptest::collection::vec(
            prop_oneof![Just(b'*'), Just(b'$'), Just(b':'), Just(b'\r'), Just(b'\n'), b'0'..=b'9', any::<u8>()],
            0..60,
        )) {
            let _ = RoleReply::parse(&bytes);
        }
    }
}
