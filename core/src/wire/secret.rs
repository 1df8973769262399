//! Secrets that somebody has to know.

/// Compares without telling by the time taken how much was right.
pub fn is_same_secret(wanted: &[u8], given: &[u8]) -> bool {
    let mut difference = u8::from(wanted.len() != given.len());
    for (at, byte) in given.iter().enumerate() {
        let other = wanted.get(at % wanted.len().max(1)).copied().unwrap_or(0);
        difference |= byte ^ other;
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_bytes_are_the_same_secret() {
        assert!(is_same_secret(b"abc", b"abc"));
        for wrong in [b"".as_slice(), b"ab", b"abcabc", b"abd", b"abc\0"] {
            assert!(!is_same_secret(b"abc", wrong), "{wrong:?}");
        }
        assert!(!is_same_secret(b"", b"a"));
    }
}
