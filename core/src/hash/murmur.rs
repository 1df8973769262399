//! `murmur`: MurmurHash2. Source: Austin Appleby, smhasher.

use super::length;

const MULTIPLIER: u32 = 0x5bd1_e995;

#[inline]
pub(super) fn murmur(key: &[u8]) -> u32 {
    let length = length(key);
    let seed = 0xdead_beef_u32.wrapping_mul(length);
    let (blocks, tail) = key.as_chunks::<4>();
    let mut hash = seed ^ length;
    for &block in blocks {
        let mut word = u32::from_le_bytes(block).wrapping_mul(MULTIPLIER);
        word ^= word >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ word.wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        let rest = tail.iter().rev().fold(0, |rest, &byte| (rest << 8) | u32::from(byte));
        hash = (hash ^ rest).wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}
