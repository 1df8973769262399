//! What is particular to the meta commands: flags, and keys in base64.

use super::request::token;
use crate::limits::MEMCACHE_KEY_BYTES_MAX;
use crate::wire::resp::Span;

/// Flags of a meta command that the proxy has to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// `q`: nothing is said about the ordinary outcome.
    pub(super) is_quiet: bool,
    /// `b`: the key is in base64.
    pub(super) is_base64: bool,
}

impl Flags {
    /// Reads flags; as in memcached the first byte of each token decides.
    pub(super) fn of(line: &[u8], tokens: &[Span]) -> Self {
        let mut flags = Self::default();
        for flag in tokens {
            match token(line, flag).first() {
                Some(b'q') => flags.is_quiet = true,
                Some(b'b') => flags.is_base64 = true,
                _ => {}
            }
        }
        flags
    }
}

/// Decodes a key in base64, with padding, into `room`. `None` when it is none or too long.
pub fn decode_key<'a>(
    encoded: &[u8],
    room: &'a mut [u8; MEMCACHE_KEY_BYTES_MAX],
) -> Option<&'a [u8]> {
    let text = match encoded {
        [text @ .., b'=', b'='] => text,
        [text @ .., b'='] => text,
        text => text,
    };
    if encoded.is_empty() || !encoded.len().is_multiple_of(4) {
        return None;
    }
    let (mut bits, mut count, mut len) = (0_u32, 0_u32, 0);
    for &byte in text {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            // The mask keeps it within a byte.
            *room.get_mut(len)? = ((bits >> count) & 0xff) as u8;
            bits &= (1 << count) - 1;
            len += 1;
        }
    }
    room.get(..len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_as_rfc_4648_has_it() {
        let mut room = [0; MEMCACHE_KEY_BYTES_MAX];
        for (encoded, key) in [
            ("Zg==", &b"f"[..]),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYmFy", b"foobar"),
            ("//79", b"\xff\xfe\xfd"),
        ] {
            assert_eq!(decode_key(encoded.as_bytes(), &mut room), Some(key), "{encoded}");
        }
        for wrong in ["", "a", "Zg=", "Zg", "Z===", "Zm 9", "Zm9v=", "====Zg=="] {
            assert_eq!(decode_key(wrong.as_bytes(), &mut room), None, "{wrong}");
        }
        let long = "A".repeat(400);
        assert_eq!(decode_key(long.as_bytes(), &mut room), None);
    }
}
