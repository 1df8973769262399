//! Times and sizes with their units.

use std::time::Duration;

use crate::limits;

/// Units of time and their milliseconds, the largest first.
const TIMES: [(&str, u64); 4] = [("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)];

/// Units of size and their bytes, the largest first.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuantityError {
    /// It does not begin with digits.
    NoNumber,
    /// A time is only digits.
    NoUnit,
    /// What stands behind the digits is no unit.
    UnknownUnit,
    /// It is larger than can be.
    TooLarge,
}

/// Reads a time such as `400 ms`, at most [`limits::CONFIG_NUMBER_MAX`] milliseconds.
pub(super) fn parse_time(text: &str) -> Result<Duration, QuantityError> {
    let (number, unit) = split(text)?;
    if unit.is_empty() {
        return Err(QuantityError::NoUnit);
    }
    let milliseconds = quantity(number, unit, &TIMES)?;
    if milliseconds > u64::from(limits::CONFIG_NUMBER_MAX) {
        return Err(QuantityError::TooLarge);
    }
    Ok(Duration::from_millis(milliseconds))
}

/// Reads a size such as `64 MiB`; digits alone are bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, QuantityError> {
    let (number, unit) = split(text)?;
    quantity(number, if unit.is_empty() { "B" } else { unit }, &SIZES)
}

/// Writes a time in the largest unit that needs no fraction; below a millisecond nothing is kept.
pub fn format_time(time: Duration) -> String {
    format(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), "ms", &TIMES)
}

/// Writes a size in the largest unit that needs no fraction.
pub(super) fn format_size(bytes: u64) -> String {
    format(bytes, "B", &SIZES)
}

fn format(quantity: u64, smallest: &str, units: &[(&str, u64)]) -> String {
    let whole = units.iter().find(|(_, factor)| quantity > 0 && quantity.is_multiple_of(*factor));
    match whole {
        Some((unit, factor)) => format!("{} {unit}", quantity / factor),
        None => format!("{quantity} {smallest}"),
    }
}

fn split(text: &str) -> Result<(u64, &str), QuantityError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end).unwrap_or((text, ""));
    if digits.is_empty() {
        return Err(QuantityError::NoNumber);
    }
    let number = digits.parse().map_err(|_| QuantityError::TooLarge)?;
    Ok((number, unit.trim_start_matches(' ')))
}

fn quantity(number: u64, unit: &str, units: &[(&str, u64)]) -> Result<u64, QuantityError> {
    let (_, factor) =
        units.iter().find(|(name, _)| *name == unit).ok_or(QuantityError::UnknownUnit)?;
    number.checked_mul(*factor).ok_or(QuantityError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_and_a_size_may_have_one() {
        assert_eq!(parse_time("400 ms"), Ok(Duration::from_millis(400)));
        assert_eq!(parse_time("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_time("2 min"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_time("0 ms"), Ok(Duration::ZERO));
        assert_eq!(parse_time("400"), Err(QuantityError::NoUnit));
        assert_eq!(parse_time("5 m"), Err(QuantityError::UnknownUnit));
        assert_eq!(parse_time("s"), Err(QuantityError::NoNumber));
        assert_eq!(parse_time("-1 s"), Err(QuantityError::NoNumber));
        assert_eq!(parse_time("1.5 s"), Err(QuantityError::UnknownUnit));
        assert_eq!(parse_time("600 h"), Err(QuantityError::TooLarge));
        assert_eq!(parse_time("99999999999999999999 ms"), Err(QuantityError::TooLarge));
        assert_eq!(parse_size("64 MiB"), Ok(64 << 20));
        assert_eq!(parse_size("1024"), Ok(1024));
        assert_eq!(parse_size("1 MB"), Err(QuantityError::UnknownUnit));
        assert_eq!(parse_size("99999999999 GiB"), Err(QuantityError::TooLarge));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for ms in [0, 1, 400, 1000, 1500, 60_000, 90_000, 3_600_000, 2_147_483_647] {
            let time = Duration::from_millis(ms);
            assert_eq!(parse_time(&format_time(time)), Ok(time));
        }
        for bytes in [0, 1, 1023, 1024, 1 << 20, (1 << 20) + 1, 1 << 30, 3 << 30] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(format_time(Duration::from_secs(90)), "90 s");
        assert_eq!(format_size(64 << 20), "64 MiB");
    }
}
