//! Who is at the other end of a client's connection, in little memory.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

/// A client's address: 16 bytes, because each idle client has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Peer {
    /// IPv4.
    V4(Ipv4Addr, u16),
    /// IPv6.
    V6(Box<SocketAddrV6>),
    /// A unix socket; its other end has no name.
    #[default]
    Unix,
}

const _: () = assert!(size_of::<Peer>() <= 16);

impl Peer {
    /// Takes what is worth keeping of an address.
    pub fn tcp(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(at) => Self::V4(*at.ip(), at.port()),
            SocketAddr::V6(at) => match at.ip().to_canonical() {
                // As the client sees itself, though our socket speaks both.
                IpAddr::V4(ip) => Self::V4(ip, at.port()),
                IpAddr::V6(_) => Self::V6(Box::new(*at)),
            },
        }
    }
}

/// As Redis shows addresses in `CLIENT LIST`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(ip, port) => write!(f, "{ip}:{port}"),
            Self::V6(at) => write!(f, "[{}]:{}", at.ip(), at.port()),
            Self::Unix => f.write_str("unix:0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_clients_know_them() {
        let tcp = |text: &str| Peer::tcp(&text.parse().unwrap()).to_string();
        assert_eq!(tcp("10.1.2.3:5"), "10.1.2.3:5");
        assert_eq!(tcp("[::ffff:10.1.2.3]:5"), "10.1.2.3:5");
        assert_eq!(tcp("[fe80::1]:5"), "[fe80::1]:5");
        assert_eq!(Peer::Unix.to_string(), "unix:0");
    }
}
