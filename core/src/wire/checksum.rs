//! The Internet checksum: one's complement sum of 16-bit words. Source: RFC 1071.

/// A sum under way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum(u64);

impl Checksum {
    /// Makes an empty sum.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds bytes as big-endian words. Only the last slice that is added may have an odd length;
    /// it counts as if a zero followed.
    #[must_use]
    pub fn plus(self, bytes: &[u8]) -> Self {
        let (words, odd) = bytes.as_chunks::<2>();
        let sum: u64 = words.iter().map(|&word| u64::from(u16::from_be_bytes(word))).sum();
        let last = odd.first().map_or(0, |&byte| u64::from(byte) << 8);
        // 64 bits hold the sum of more bytes than fit in memory.
        Self(self.0.wrapping_add(sum).wrapping_add(last))
    }

    /// Adds one word.
    #[must_use]
    pub const fn plus_word(self, word: u16) -> Self {
        Self(self.0.wrapping_add(word as u64))
    }

    /// Returns the checksum: the complement of the folded sum.
    pub const fn finish(self) -> u16 {
        !self.fold()
    }

    /// Tells whether a message that holds its own checksum is intact.
    pub const fn is_valid(self) -> bool {
        self.fold() == u16::MAX
    }

    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
    const fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_adds_up() {
        // RFC 1071 section 3: the folded sum is ddf2.
        let sum = Checksum::new().plus(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), !0xddf2);
    }

    #[test]
    fn an_odd_end_counts_as_padded() {
        assert_eq!(
            Checksum::new().plus(&[1, 2, 3]).finish(),
            Checksum::new().plus(&[1, 2, 3, 0]).finish()
        );
    }

    #[test]
    fn a_message_with_its_checksum_is_valid() {
        let sum = Checksum::new().plus(b"message!").finish();
        assert!(Checksum::new().plus(b"message!").plus_word(sum).is_valid());
        assert!(!Checksum::new().plus(b"massage!").plus_word(sum).is_valid());
    }
}
