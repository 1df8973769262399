//! Echo requests and replies of ICMP and ICMPv6. Source: RFC 792, RFC 4443.

use std::net::IpAddr;

use super::checksum::Checksum;

const REPLY_V4: u8 = 0;
const REQUEST_V4: u8 = 8;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;

/// An echo request to `to`. Identifier and checksum may be replaced by the kernel; the checksum of
/// ICMPv6 is always its affair.
pub fn echo_request(to: IpAddr, identifier: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let kind = if to.is_ipv4() { REQUEST_V4 } else { REQUEST_V6 };
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend_from_slice(&identifier.to_be_bytes());
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(payload);
    if to.is_ipv4() {
        let sum = Checksum::new().plus(&bytes).finish().to_be_bytes();
        bytes.splice(2..4, sum);
    }
    bytes
}

/// Returns sequence and payload of an echo reply; none if it is something else. An IPv4 header
/// before it is passed over.
pub fn echo_reply(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let first = *bytes.first()?;
    let bytes = if first >> 4 == 4 { bytes.get(usize::from(first & 15) * 4..)? } else { bytes };
    let (head, payload) = bytes.split_first_chunk::<8>()?;
    let [kind, 0, _, _, _, _, high, low] = *head else { return None };
    matches!(kind, REPLY_V4 | REPLY_V6).then(|| (u16::from_be_bytes([high, low]), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_checksum_and_a_reply_its_payload() {
        let request = echo_request(IpAddr::from([10, 0, 0, 1]), 0x1234, 7, b"abcd");
        assert_eq!(request.get(..2), Some(&[8, 0][..]));
        assert!(Checksum::new().plus(&request).is_valid());
        let mut reply = request.clone();
        reply[0] = 0;
        assert_eq!(echo_reply(&reply), Some((7, &b"abcd"[..])));
        let behind_header = [&[0x45; 20][..], &reply].concat();
        assert_eq!(echo_reply(&behind_header), Some((7, &b"abcd"[..])));
        assert_eq!(echo_reply(&request), None, "our own request is no answer");
        assert_eq!(echo_reply(&reply[..7]), None);
    }
}
