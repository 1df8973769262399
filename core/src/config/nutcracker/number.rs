//! twemproxy's numbers: digits only, in 32 bits with a sign, which overflow silently.

use crate::limits;

/// A number as it is written and as twemproxy reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    /// What is written, at most [`limits::CONFIG_NUMBER_MAX`].
    pub(super) written: u32,
    /// What twemproxy makes of it.
    pub(super) wrapped: u32,
    /// Whether the two differ.
    pub(super) is_wrapped: bool,
}

/// Why a text is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotANumber {
    /// It is empty or has something else than digits.
    Word,
    /// It overflows to a negative number, which twemproxy refuses.
    TooLarge,
}

/// Reads digits.
pub(super) fn parse(text: &str) -> Result<Number, NotANumber> {
    if text.is_empty() {
        return Err(NotANumber::Word);
    }
    let mut exact: u64 = 0;
    let mut wrapped: i32 = 0;
    for byte in text.bytes() {
        if !byte.is_ascii_digit() {
            return Err(NotANumber::Word);
        }
        let digit = byte - b'0';
        exact = exact.saturating_mul(10).saturating_add(u64::from(digit));
        // twemproxy does not look for overflow, and the machine wraps.
        wrapped = wrapped.wrapping_mul(10).wrapping_add(i32::from(digit));
    }
    let wrapped = u32::try_from(wrapped).map_err(|_| NotANumber::TooLarge)?;
    let written = u32::try_from(exact).unwrap_or(u32::MAX).min(limits::CONFIG_NUMBER_MAX);
    Ok(Number { written, wrapped, is_wrapped: u64::from(wrapped) != exact })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_number_and_nothing_else_is() {
        let plain = |value| Ok(Number { written: value, wrapped: value, is_wrapped: false });
        assert_eq!(parse("0"), plain(0));
        assert_eq!(parse("0400"), plain(400));
        assert_eq!(parse("2147483647"), plain(2_147_483_647));
        for word in ["", "-1", "+1", "1.0", "0x1", " 1", "1\n", "١"] {
            assert_eq!(parse(word), Err(NotANumber::Word), "{word:?}");
        }
    }

    #[test]
    fn overflow_wraps_to_what_twemproxy_uses_or_to_a_refusal() {
        let wrapped =
            |value| Ok(Number { written: 2_147_483_647, wrapped: value, is_wrapped: true });
        assert_eq!(parse("99999999999"), wrapped(1_215_752_191));
        assert_eq!(parse("4294967296"), wrapped(0));
        assert_eq!(parse("4294967297"), wrapped(1));
        assert_eq!(parse("2147483648"), Err(NotANumber::TooLarge));
        assert_eq!(parse("3000000000"), Err(NotANumber::TooLarge));
        assert!(
            parse(&"9".repeat(10_000)).is_ok_and(|number| number.is_wrapped)
                || parse(&"9".repeat(10_000)) == Err(NotANumber::TooLarge)
        );
    }
}
