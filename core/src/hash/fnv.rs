//! `fnv1_64`, `fnv1a_64`, `fnv1_32`, `fnv1a_32`. Source: RFC 9923.
//!
//! Only 32 bits of the 64-bit functions are used, and no step carries anything from the upper half
//! into the lower one except the product, whose lower half depends on lower halves alone. So both
//! are computed in 32 bits, with the lower halves of the 64-bit offset and prime.

use super::widen_signed;

const OFFSET_64: u32 = 0x8422_2325;
const PRIME_64: u32 = 0x0000_01b3;
const OFFSET_32: u32 = 0x811c_9dc5;
const PRIME_32: u32 = 0x0100_0193;

#[inline]
pub(super) fn fnv1_64(key: &[u8]) -> u32 {
    fnv1::<OFFSET_64, PRIME_64>(key)
}

#[inline]
pub(super) fn fnv1a_64(key: &[u8]) -> u32 {
    fnv1a::<OFFSET_64, PRIME_64>(key)
}

#[inline]
pub(super) fn fnv1_32(key: &[u8]) -> u32 {
    fnv1::<OFFSET_32, PRIME_32>(key)
}

#[inline]
pub(super) fn fnv1a_32(key: &[u8]) -> u32 {
    fnv1a::<OFFSET_32, PRIME_32>(key)
}

#[inline]
fn fnv1<const OFFSET: u32, const PRIME: u32>(key: &[u8]) -> u32 {
    key.iter().fold(OFFSET, |hash, &byte| hash.wrapping_mul(PRIME) ^ widen_signed(byte))
}

#[inline]
fn fnv1a<const OFFSET: u32, const PRIME: u32>(key: &[u8]) -> u32 {
    key.iter().fold(OFFSET, |hash, &byte| (hash ^ widen_signed(byte)).wrapping_mul(PRIME))
}
