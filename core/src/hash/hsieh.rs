//! `hsieh`: SuperFastHash. Source: Paul Hsieh, "Hash functions", 2004-2008.

use super::widen_signed;

/// Hashes a key from an initial value of 0 (the reference starts with the length).
#[inline]
pub(super) fn hsieh(key: &[u8]) -> u32 {
    if key.is_empty() {
        return 0;
    }
    let (blocks, tail) = key.as_chunks::<4>();
    let mut hash: u32 = 0;
    for &[a, b, c, d] in blocks {
        hash = hash.wrapping_add(half(a, b));
        hash = (hash << 16) ^ (half(c, d) << 11) ^ hash;
        hash = hash.wrapping_add(hash >> 11);
    }
    match *tail {
        [a, b, c] => {
            hash = hash.wrapping_add(half(a, b));
            hash ^= hash << 16;
            // Only this byte of the tail is read through a signed pointer.
            hash ^= widen_signed(c) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(half(a, b));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(u32::from(a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}

#[inline]
fn half(low: u8, high: u8) -> u32 {
    u32::from(u16::from_le_bytes([low, high]))
}
