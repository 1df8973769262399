//! The hash functions that place a key, named and computed as in twemproxy.
//!
//! Every function returns 32 bits and reproduces twemproxy 0.5 on x86-64 bit for bit, including
//! what other machines do differently: `char` is signed there, so `one_at_a_time`, the `fnv`
//! family and the tail of `hsieh` widen a byte from 0x80 up with its sign. The golden vectors are
//! in `tests/vectors/routing/hash_kat.json`.

mod crc16;
mod crc32;
mod fnv;
mod hsieh;
mod jenkins;
mod md5;
mod murmur;
mod one_at_a_time;
mod xxh3;

pub(crate) use self::md5::words as md5_words;

/// A hash function that a pool can be configured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the digits would run together without the underscore")]
pub enum Hash {
    /// Bob Jenkins' one-at-a-time hash.
    OneAtATime,
    /// The first four bytes of MD5, little-endian.
    Md5,
    /// CRC-16 with an accumulator of 32 bits, so that earlier bytes stay in the upper half.
    Crc16,
    /// Fifteen bits of CRC-32, as libmemcached cuts it.
    Crc32,
    /// CRC-32 whole.
    Crc32a,
    /// The lower half of 64-bit FNV-1.
    Fnv1_64,
    /// The lower half of 64-bit FNV-1a. The default of twemproxy.
    Fnv1a_64,
    /// 32-bit FNV-1.
    Fnv1_32,
    /// 32-bit FNV-1a.
    Fnv1a_32,
    /// Paul Hsieh's SuperFastHash.
    Hsieh,
    /// MurmurHash2, seeded with the length of the key.
    Murmur,
    /// Bob Jenkins' lookup3.
    Jenkins,
    /// The lower half of 64-bit XXH3, unseeded. twemproxy does not have it.
    Xxh3_64,
}

impl Hash {
    /// Every hash function, in the order of twemproxy's documentation, additions last.
    pub const ALL: [Self; 13] = [
        Self::OneAtATime,
        Self::Md5,
        Self::Crc16,
        Self::Crc32,
        Self::Crc32a,
        Self::Fnv1_64,
        Self::Fnv1a_64,
        Self::Fnv1_32,
        Self::Fnv1a_32,
        Self::Hsieh,
        Self::Murmur,
        Self::Jenkins,
        Self::Xxh3_64,
    ];

    /// Returns the name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneAtATime => "one_at_a_time",
            Self::Md5 => "md5",
            Self::Crc16 => "crc16",
            Self::Crc32 => "crc32",
            Self::Crc32a => "crc32a",
            Self::Fnv1_64 => "fnv1_64",
            Self::Fnv1a_64 => "fnv1a_64",
            Self::Fnv1_32 => "fnv1_32",
            Self::Fnv1a_32 => "fnv1a_32",
            Self::Hsieh => "hsieh",
            Self::Murmur => "murmur",
            Self::Jenkins => "jenkins",
            Self::Xxh3_64 => "xxh3_64",
        }
    }

    /// Finds a hash function by its name, which is case-sensitive.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.name() == name)
    }

    /// Hashes a key.
    ///
    /// An empty key gives what the function itself says; a pool sends it to hash 0 instead, which
    /// is [`RouteTable`](crate::routing::RouteTable)'s business.
    #[inline]
    pub fn hash(self, key: &[u8]) -> u32 {
        match self {
            Self::OneAtATime => one_at_a_time::one_at_a_time(key),
            Self::Md5 => md5::md5(key),
            Self::Crc16 => crc16::crc16(key),
            Self::Crc32 => crc32::crc32(key),
            Self::Crc32a => crc32::crc32a(key),
            Self::Fnv1_64 => fnv::fnv1_64(key),
            Self::Fnv1a_64 => fnv::fnv1a_64(key),
            Self::Fnv1_32 => fnv::fnv1_32(key),
            Self::Fnv1a_32 => fnv::fnv1a_32(key),
            Self::Hsieh => hsieh::hsieh(key),
            Self::Murmur => murmur::murmur(key),
            Self::Jenkins => jenkins::jenkins(key),
            Self::Xxh3_64 => xxh3::xxh3_64(key),
        }
    }
}

/// Widens a byte as x86-64 widens a `char`: 0x80 and above become negative.
#[inline]
const fn widen_signed(byte: u8) -> u32 {
    byte.cast_signed() as i32 as u32
}

/// Returns the length of a key as C code would keep it, in 32 bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the length is mixed in modulo 2^32")]
const fn length(key: &[u8]) -> u32 {
    key.len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_finds_its_hash_and_case_matters() {
        for hash in Hash::ALL {
            assert_eq!(Hash::from_name(hash.name()), Some(hash));
        }
        assert_eq!(Hash::from_name("FNV1A_64"), None);
        assert_eq!(Hash::from_name(""), None);
    }

    #[test]
    fn bytes_widen_with_their_sign() {
        assert_eq!(widen_signed(0x7f), 0x7f);
        assert_eq!(widen_signed(0x80), 0xffff_ff80);
        assert_eq!(widen_signed(0xff), 0xffff_ffff);
    }

    #[test]
    fn xxh3_is_the_lower_half_of_the_64_bit_value() {
        // The reference value of XXH3_64bits("") is 0x2d06800538d394c2.
        assert_eq!(Hash::Xxh3_64.hash(b""), 0x38d3_94c2);
    }
}
