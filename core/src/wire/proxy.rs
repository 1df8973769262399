//! Version 2 of the PROXY protocol: tells a server who the client is. Source: the specification
//! "The PROXY protocol, versions 1 & 2", section 2.2.

use std::net::{IpAddr, SocketAddr};

/// What the header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, a connection made for somebody.
const PROXY: u8 = 0x21;

const TCP_V4: u8 = 0x11;
const TCP_V6: u8 = 0x21;

/// Writes the header of a TCP connection. Addresses of different families are written as IPv6.
pub fn encode(client: SocketAddr, called: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(&SIGNATURE);
    match (client.ip().to_canonical(), called.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&[PROXY, TCP_V4, 0, 12]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            out.extend_from_slice(&[PROXY, TCP_V6, 0, 36]);
            for ip in [from, to] {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                out.extend_from_slice(&ip.octets());
            }
        }
    }
    out.extend_from_slice(&client.port().to_be_bytes());
    out.extend_from_slice(&called.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_both_addresses() {
        let mut out = Vec::new();
        encode("192.0.2.1:258".parse().unwrap(), "10.0.0.9:6379".parse().unwrap(), &mut out);
        let expected =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x0a\0\0\x09\x01\x02\x18\xeb";
        assert_eq!(out, expected);
        out.clear();
        encode(
            "[::ffff:192.0.2.1]:258".parse().unwrap(),
            "10.0.0.9:6379".parse().unwrap(),
            &mut out,
        );
        assert_eq!(out, expected, "a mapped address is one of IPv4");
        out.clear();
        encode("[2001:db8::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap(), &mut out);
        assert_eq!(out.len(), 16 + 36);
        assert_eq!((out[13], out[15]), (0x21, 36));
    }
}
