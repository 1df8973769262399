//! The beginning of a key, kept so that a request can be named when its reply comes.

use std::fmt;

/// Bytes of a key that are kept: enough to recognise it, and few enough to be copied for each
/// request.
pub const HEAD_BYTES: usize = 32;
/// The same as a length.
const FULL: u8 = 32;
const _: () = assert!(FULL as usize == HEAD_BYTES);

/// The first bytes of a key and whether there were more. Costs one copy of fixed size.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHead {
    bytes: [u8; HEAD_BYTES],
    /// Bytes that are the key's; [`HEAD_BYTES`] + 1 when it goes on.
    len: u8,
}

impl KeyHead {
    /// No key, or one that was not kept.
    pub const EMPTY: Self = Self { bytes: [0; HEAD_BYTES], len: 0 };

    /// Keeps the beginning of `key`.
    #[inline]
    pub fn of(key: &[u8]) -> Self {
        if let Some(bytes) = key.first_chunk::<HEAD_BYTES>() {
            return Self { bytes: *bytes, len: FULL + u8::from(key.len() > HEAD_BYTES) };
        }
        let mut bytes = [0; HEAD_BYTES];
        if let Some(place) = bytes.get_mut(..key.len()) {
            place.copy_from_slice(key);
        }
        Self { bytes, len: u8::try_from(key.len()).unwrap_or(FULL) }
    }

    /// Returns what was kept.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len).min(HEAD_BYTES)).unwrap_or_default()
    }

    /// Tells whether the key had more bytes.
    pub const fn is_cut(&self) -> bool {
        self.len as usize > HEAD_BYTES
    }
}

impl Default for KeyHead {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for KeyHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text with everything but printable ASCII escaped, and three dots behind a key that was cut.
impl fmt::Display for KeyHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes().escape_ascii())?;
        if self.is_cut() { f.write_str("...") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_keys_are_whole_and_long_ones_say_that_they_go_on() {
        assert_eq!(KeyHead::of(b"").bytes(), b"");
        assert_eq!(KeyHead::of(b"user:1").bytes(), b"user:1");
        let exact = KeyHead::of(&[b'k'; HEAD_BYTES]);
        assert!(!exact.is_cut() && exact.bytes().len() == HEAD_BYTES);
        let longer = KeyHead::of(&[b'k'; HEAD_BYTES + 1]);
        assert!(longer.is_cut() && longer.bytes().len() == HEAD_BYTES);
        assert!(longer.to_string().ends_with("k..."));
        assert_eq!(KeyHead::of(b"a\n\xff").to_string(), "a\\n\\xff");
    }
}
