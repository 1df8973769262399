//! `xxh3_64`, an addition to twemproxy's list: fast on long keys, even over all 32 bits.

#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a ring has 32 bits; XXH3 is even in each half"
)]
pub(super) fn xxh3_64(key: &[u8]) -> u32 {
    xxhash_rust::xxh3::xxh3_64(key) as u32
}
