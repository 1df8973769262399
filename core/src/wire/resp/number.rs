//! Decimal numbers in their only canonical form: no leading zero, no plus sign, no minus zero.

/// What a length line looks like so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LengthLine {
    /// A whole line: its value, and its bytes with the line end.
    Complete { value: u64, len: usize },
    /// Right as far as it goes.
    Partial,
    /// No continuation can make it right.
    Invalid,
}

/// Digits of the largest length that is looked at; above every limit.
const LENGTH_DIGITS_MAX: usize = 10;

/// Reads a canonical unsigned decimal and its CRLF from the start of `bytes`.
#[inline]
pub(super) fn length_line(bytes: &[u8]) -> LengthLine {
    // Nearly every length on the wire has one or two digits.
    match *bytes {
        [a @ b'0'..=b'9', b'\r', b'\n', ..] => {
            LengthLine::Complete { value: u64::from(a - b'0'), len: 3 }
        }
        [a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => {
            LengthLine::Complete { value: u64::from(a - b'0') * 10 + u64::from(b - b'0'), len: 4 }
        }
        _ => long_length_line(bytes),
    }
}

fn long_length_line(bytes: &[u8]) -> LengthLine {
    let mut value = 0_u64;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                if at >= LENGTH_DIGITS_MAX || (at > 0 && value == 0) {
                    return LengthLine::Invalid;
                }
                value = value * 10 + u64::from(byte - b'0');
            }
            b'\r' if at > 0 => {
                return match bytes.get(at + 1) {
                    Some(b'\n') => LengthLine::Complete { value, len: at + 2 },
                    Some(_) => LengthLine::Invalid,
                    None => LengthLine::Partial,
                };
            }
            _ => return LengthLine::Invalid,
        }
    }
    LengthLine::Partial
}

/// Reads a canonical signed decimal that fills `bytes`, as Redis reads integer arguments.
///
/// `None` for anything else: empty, spaces, a plus sign, leading zeros, out of range.
pub fn parse_integer(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] => return (!negative).then_some(0),
        [] | [b'0', ..] => return None,
        _ => {}
    }
    let mut value = 0_i64;
    for &byte in digits {
        let digit = i64::from(byte.checked_sub(b'0').filter(|digit| *digit <= 9)?);
        // Downward, because the smallest integer has no positive counterpart.
        value = value.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_lengths_are_read() {
        let complete = |value, len| LengthLine::Complete { value, len };
        assert_eq!(length_line(b"0\r\n"), complete(0, 3));
        assert_eq!(length_line(b"10\r\nrest"), complete(10, 4));
        assert_eq!(length_line(b"536870912\r\n"), complete(536_870_912, 11));
        assert_eq!(length_line(b"9999999999\r\n"), complete(9_999_999_999, 12));
        for partial in [&b""[..], b"1", b"12", b"123", b"1\r", b"12\r", b"123\r"] {
            assert_eq!(length_line(partial), LengthLine::Partial, "{partial:?}");
        }
        for invalid in [
            &b"\r\n"[..],
            b"\n",
            b"00",
            b"03\r\n",
            b"+1\r\n",
            b"-1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"1\n",
            b"1\rx",
            b"12\r\r",
            b"99999999999",
            b"x",
        ] {
            assert_eq!(length_line(invalid), LengthLine::Invalid, "{invalid:?}");
        }
    }

    #[test]
    fn integers_are_read_as_redis_reads_arguments() {
        for value in [0, 1, -1, 9, 10, -10, i64::MAX, i64::MIN] {
            assert_eq!(parse_integer(value.to_string().as_bytes()), Some(value));
        }
        for text in ["", "-", "+1", "-0", "00", "01", " 1", "1 ", "1x", "9223372036854775808"] {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_integer(b"-9223372036854775809"), None);
    }
}
