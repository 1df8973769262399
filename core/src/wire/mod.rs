//! Bytes to values and back, without state beyond one frame.

pub mod arp;
pub mod checksum;
pub mod dns;
pub mod ethernet;
pub mod http;
pub mod icmp;
pub mod ip;
pub mod json;
pub mod memcache;
pub mod ndp;
pub mod netlink;
pub mod proxy;
pub mod resp;
pub mod secret;
pub mod vrrp;

/// Splits a fixed number of bytes off the front.
fn take<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
    bytes.split_first_chunk::<N>().map(|(head, rest)| (*head, rest))
}
