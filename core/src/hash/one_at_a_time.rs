//! `one_at_a_time`. Source: Bob Jenkins, "Hash Functions", Dr. Dobb's Journal, September 1997.

use super::widen_signed;

#[inline]
pub(super) fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash: u32 = 0;
    for &byte in key {
        hash = hash.wrapping_add(widen_signed(byte));
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}
