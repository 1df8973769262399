//! `md5`. Source: RFC 1321.

use md5::{Digest, Md5};

pub(super) fn md5(key: &[u8]) -> u32 {
    let [first, ..] = words(key);
    first
}

/// Returns the digest as four little-endian words: four points of a ketama ring.
pub(crate) fn words(bytes: &[u8]) -> [u32; 4] {
    let digest: [u8; 16] = Md5::digest(bytes).into();
    let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = digest;
    [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3], [d0, d1, d2, d3]].map(u32::from_le_bytes)
}
