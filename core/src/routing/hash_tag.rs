//! Hash tags: the part of a key between two marks decides, so that related keys meet on a server.

/// The two marks of a hash tag; they may be the same byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashTag {
    /// The byte before the tag.
    pub open: u8,
    /// The byte after the tag.
    pub close: u8,
}

impl HashTag {
    /// Reads the two marks as the configuration writes them, for example `{}`; none unless the text
    /// has exactly two bytes.
    pub fn parse(text: &str) -> Option<Self> {
        match *text.as_bytes() {
            [open, close] => Some(Self { open, close }),
            _ => None,
        }
    }

    /// Returns the part of a key that is hashed: what stands between the first opening mark and the
    /// first closing mark after it; the whole key when one of them is missing or nothing stands
    /// between.
    ///
    /// An empty tag does not look for a later one: `a{}b{1}` is hashed whole, as in twemproxy.
    #[inline]
    pub fn tagged<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        self.find(key).unwrap_or(key)
    }

    #[inline]
    fn find<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let start = memchr::memchr(self.open, key)?;
        let after = key.get(start + 1..)?;
        let end = memchr::memchr(self.close, after)?;
        after.get(..end).filter(|tag| !tag.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_between_the_marks_decides() {
        let cases: [(&[u8], &[u8]); 11] = [
            (b"user:{42}:name", b"42"),
            (b"{42}", b"42"),
            (b"{}abc", b"{}abc"),
            (b"x{1", b"x{1"),
            (b"x}1{", b"x}1{"),
            (b"a{}b{1}", b"a{}b{1}"),
            (b"{{1}}", b"{1"),
            (b"}{1}", b"1"),
            (b"plain", b"plain"),
            (b"{", b"{"),
            (b"", b""),
        ];
        let tag = HashTag::parse("{}").expect("two bytes");
        for (key, tagged) in cases {
            assert_eq!(tag.tagged(key), tagged, "{}", key.escape_ascii());
        }
    }

    #[test]
    fn both_marks_may_be_the_same() {
        let tag = HashTag::parse("$$").expect("two bytes");
        assert_eq!(tag.tagged(b"a$b$c"), b"b");
        assert_eq!(tag.tagged(b"a$b"), b"a$b");
        assert_eq!(tag.tagged(b"a$$b$"), b"a$$b$");
    }

    #[test]
    fn marks_are_two_bytes_exactly() {
        for text in ["", "{", "{}}", "€"] {
            assert_eq!(HashTag::parse(text), None, "{text}");
        }
    }
}
