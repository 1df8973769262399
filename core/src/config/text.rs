//! What every reader asks of a file first: that it is text, and not too much of it.

use super::diagnostic::{Collector, Diagnostic, quoted};
use crate::limits;

/// Takes the bytes of a file for text. `name` only appears in the message.
///
/// # Errors
///
/// The one diagnostic to give instead: at the first byte that is no UTF-8.
pub(super) fn from_bytes<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, Vec<Diagnostic>> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let good = std::str::from_utf8(good).unwrap_or_default();
        let mut out = Collector::new(good);
        let end = good.len();
        let message = format!("{} is not UTF-8 text from here on", quoted(name));
        out.report(out.error("not-utf8", &(end..end), message));
        out.finish()
    })
}

/// Refuses a file above [`limits::CONFIG_BYTES_MAX`].
///
/// # Errors
///
/// The one diagnostic to give instead.
pub(super) fn check_size(name: &str, text: &str) -> Result<(), Vec<Diagnostic>> {
    let (size, most) = (text.len(), limits::CONFIG_BYTES_MAX);
    if size <= most {
        return Ok(());
    }
    let mut out = Collector::new("");
    let message = format!("{} has {size} bytes; at most {most} are read", quoted(name));
    out.report(out.error("file-too-large", &(0..0), message));
    Err(out.finish())
}
