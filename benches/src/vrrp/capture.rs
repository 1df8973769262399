//! Adverts in a capture of tcpdump.

use std::fs;
use std::io;
use std::path::Path;

/// An advert as it was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// When, milliseconds of the capture's clock.
    pub at_ms: f64,
    /// Last octet of who sent it.
    pub from: u8,
    /// Its priority.
    pub priority: u8,
}

/// Magic number of a file with nanoseconds, as this machine writes it.
const MAGIC: [u8; 4] = 0xa1b2_3c4d_u32.to_ne_bytes();

/// Reads all adverts of a file.
pub fn adverts(path: &Path) -> io::Result<Vec<Seen>> {
    let bytes = fs::read(path)?;
    if !bytes.starts_with(&MAGIC) {
        return Err(io::Error::other("not a capture with nanoseconds"));
    }
    let mut rest = &bytes[24..];
    let mut seen = Vec::new();
    // A frame that is not whole yet ends the file.
    while rest.len() >= 16 {
        let word =
            |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let (seconds, nanos, length) = (word(0), word(4), word(8) as usize);
        let Some(frame) = rest.get(16..16 + length) else { break };
        // Ethernet, then IPv4 without options: the source's last octet, then the priority.
        if let (Some(&from), Some(&priority)) = (frame.get(14 + 15), frame.get(14 + 22)) {
            let at_ms = f64::from(seconds % 100_000) * 1e3 + f64::from(nanos) / 1e6;
            seen.push(Seen { at_ms, from, priority });
        }
        rest = &rest[16 + length..];
    }
    Ok(seen)
}

/// What one takeover looked like on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Takeover {
    /// From the last advert of the first router to the first one of the second, milliseconds.
    pub waited_ms: f64,
    /// Whether that last advert was a goodbye.
    pub after_goodbye: bool,
}

/// Finds the first takeover by `second` of what `first` had.
pub fn takeover(adverts: &[Seen], first: u8, second: u8) -> Option<Takeover> {
    let claim = adverts.iter().position(|seen| seen.from == second && seen.priority > 0)?;
    let last = adverts[..claim].iter().rev().find(|seen| seen.from == first)?;
    // Goodbyes come in pairs: the backup counts from the first.
    let counted = adverts[..claim].iter().find(|seen| seen.from == first && seen.priority == 0);
    let from = counted.filter(|goodbye| last.at_ms - goodbye.at_ms < 5.0).unwrap_or(last);
    let waited_ms = adverts[claim].at_ms - from.at_ms;
    Some(Takeover { waited_ms, after_goodbye: last.priority == 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_counts_from_the_last_advert() {
        let seen = |at_ms, from, priority| Seen { at_ms, from, priority };
        let silent = [seen(0.0, 1, 150), seen(10.0, 1, 150), seen(46.1, 2, 100)];
        let takeover = takeover(&silent, 1, 2).unwrap();
        assert!((takeover.waited_ms - 36.1).abs() < 1e-9 && !takeover.after_goodbye);
        let polite = [seen(0.0, 1, 150), seen(4.0, 1, 0), seen(4.1, 1, 0), seen(10.1, 2, 100)];
        let takeover = super::takeover(&polite, 1, 2).unwrap();
        assert!((takeover.waited_ms - 6.1).abs() < 1e-9 && takeover.after_goodbye);
    }
}
