//! The file beside a configuration that is only read: a text, and the changes that it has seen.
//!
//! A change is appended in one write, so that what a crash leaves is the text before it or after
//! it. Each part begins with a line that has its length and its checksum. A change that does not
//! stand there whole was never promised to anybody; anything else that is not what was written is
//! damage, and nobody can tell what was promised.

use super::setup::DamagedState;
use crate::hash::Hash;
use crate::limits;

/// How the line before the text begins.
const TEXT: &str = "# ringkeeper state ";

/// How the line before a change begins.
const CHANGE: &str = "# ringkeeper change ";

/// How much of a file is known to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Bytes of all.
    pub(super) length: u64,
    /// Bytes of the changes behind the text.
    changes: usize,
}

fn part(head: &str, body: &str) -> Vec<u8> {
    let sum = Hash::Xxh3_64.hash(body.as_bytes());
    format!("{head}{} {sum:08x}\n{body}", body.len()).into_bytes()
}

/// Returns a whole file with nothing but a text.
pub(super) fn whole(text: &str) -> (Vec<u8>, Extent) {
    let bytes = part(TEXT, text);
    let extent = Extent { length: bytes.len() as u64, changes: 0 };
    (bytes, extent)
}

/// Returns what to append so that the file says `new` in place of `old`, and how long it is then;
/// none where writing all anew is better.
pub(super) fn change(old: &str, new: &str, extent: Extent) -> Option<(Vec<u8>, Extent)> {
    if !old.ends_with('\n') || !new.ends_with('\n') {
        return None;
    }
    let body = splices(old, new);
    let bytes = part(CHANGE, &body);
    let changes = extent.changes + bytes.len();
    let is_worth_it = bytes.len() < new.len() && changes <= limits::SENTINEL_JOURNAL_BYTES_MAX;
    let length = extent.length + bytes.len() as u64;
    is_worth_it.then_some((bytes, Extent { length, changes }))
}

/// Returns the lines that differ, in runs: where a run begins, how many old lines it takes away,
/// how many new ones follow.
fn splices(old: &str, new: &str) -> String {
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    let mut body = String::new();
    let mut splice = |at: usize, removed: usize, lines: &[&str]| {
        body.push_str(&format!("{at} {removed} {}\n", lines.len()));
        lines.iter().for_each(|line| body.push_str(line));
    };
    if old.len() != new.len() {
        let same = |(a, b): &(&&str, &&str)| a == b;
        let head = old.iter().zip(&new).take_while(same).count();
        let rest = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
        let tail = rest.min(old.len() - head).min(new.len() - head);
        splice(head, old.len() - head - tail, new.get(head..new.len() - tail).unwrap_or_default());
        return body;
    }
    for (at, (before, after)) in old.iter().zip(&new).enumerate() {
        if before != after {
            splice(at, 1, std::slice::from_ref(after));
        }
    }
    body
}

fn apply(text: &str, body: &str) -> Option<String> {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut rest = body.split_inclusive('\n');
    while let Some(head) = rest.next() {
        let mut numbers = head.trim_end().split(' ').map(|word| word.parse::<usize>().ok());
        let (at, removed, added) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let end = at.checked_add(removed).filter(|end| *end <= lines.len())?;
        let new: Vec<&str> = rest.by_ref().take(added).collect();
        if new.len() != added {
            return None;
        }
        lines.splice(at..end, new);
    }
    Some(lines.concat())
}

/// What stands at the beginning of some bytes.
enum Found<'a> {
    /// A whole part, and what is behind it.
    Part(&'a str, &'a [u8]),
    /// A part is cut, or is not what was written.
    Broken,
}

fn find<'a>(head: &str, bytes: &'a [u8]) -> Found<'a> {
    let read = || {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = bytes.split_at_checked(end + 1)?;
        let line = std::str::from_utf8(line).ok()?.trim_end_matches('\n');
        let (length, sum) = line.strip_prefix(head)?.split_once(' ')?;
        let (body, rest) = rest.split_at_checked(length.parse().ok()?)?;
        // Any other spelling of the numbers was not written by us.
        let good = format!("{} {:08x}", body.len(), Hash::Xxh3_64.hash(body));
        (format!("{length} {sum}") == good).then_some((std::str::from_utf8(body).ok()?, rest))
    };
    read().map_or(Found::Broken, |(body, rest)| Found::Part(body, rest))
}

/// Returns what a file says. What a crash cut off at its end is left out.
///
/// # Errors
///
/// [`DamagedState`] when it is not what was written.
pub(super) fn read(bytes: &[u8]) -> Result<String, DamagedState> {
    let Found::Part(text, mut rest) = find(TEXT, bytes) else { return Err(DamagedState) };
    let mut text = text.to_owned();
    while !rest.is_empty() {
        let Found::Part(body, behind) = find(CHANGE, rest) else {
            // Nothing is appended behind what is cut, so if something is, it was not cut.
            let mut behind = rest.windows(CHANGE.len()).skip(1);
            let is_followed = behind.any(|at| at == CHANGE.as_bytes());
            return if is_followed { Err(DamagedState) } else { Ok(text) };
        };
        text = apply(&text, body).ok_or(DamagedState)?;
        rest = behind;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the file after each of the texts, and where each write began.
    fn written(texts: &[String]) -> (Vec<u8>, Vec<usize>) {
        let (mut file, mut extent) = whole(&texts[0]);
        let mut starts = vec![0];
        for pair in texts.windows(2) {
            match change(&pair[0], &pair[1], extent) {
                Some((bytes, after)) => {
                    starts.push(file.len());
                    file.extend(bytes);
                    extent = after;
                }
                None => {
                    (file, extent) = whole(&pair[1]);
                    starts = vec![0];
                }
            }
            assert_eq!(extent.length, file.len() as u64);
        }
        (file, starts)
    }

    fn text() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab]{0,3}", 1..12)
            .prop_map(|lines| lines.iter().map(|line| format!("{line}\n")).collect())
    }

    proptest! {
        #[test]
        fn a_file_says_what_was_written_last(
            texts in proptest::collection::vec(text(), 1..6),
            long in "[ab]{100,200}\n",
        ) {
            // Long enough that changes are worth it.
            let texts: Vec<String> = texts.into_iter().map(|text| text + &long).collect();
            let (file, _) = written(&texts);
            prop_assert_eq!(read(&file).unwrap(), texts.last().unwrap().clone());
        }

        #[test]
        fn a_file_cut_at_any_byte_says_what_was_promised_before(
            texts in proptest::collection::vec(text(), 1..5),
            long in "[ab]{100,200}\n",
        ) {
            let texts: Vec<String> = texts.into_iter().map(|text| text + &long).collect();
            let (file, starts) = written(&texts);
            let known = &texts[texts.len() - starts.len()..];
            for cut in starts.get(1).copied().unwrap_or(file.len())..file.len() {
                // Of the writes that are whole, the last counts.
                let ends = starts.iter().copied().skip(1).chain([file.len()]);
                let whole = ends.filter(|end| *end <= cut).count();
                prop_assert_eq!(&read(&file[..cut]).unwrap(), &known[whole - 1]);
                // A file system may have made the file longer before it wrote what is in it.
                let mut zeros = file[..cut].to_vec();
                zeros.resize(starts.iter().copied().find(|at| *at > cut).unwrap_or(file.len()), 0);
                prop_assert_eq!(&read(&zeros).unwrap(), &known[whole - 1]);
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed_or_in_what_was_written_last(
            texts in proptest::collection::vec(text(), 2..5),
            long in "[ab]{100,200}\n",
            at in any::<proptest::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let texts: Vec<String> = texts.into_iter().map(|text| text + &long).collect();
            let (mut file, starts) = written(&texts);
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
            let is_last = starts.len() > 1 && at >= *starts.last().unwrap();
            match read(&file) {
                Err(DamagedState) => {}
                Ok(text) => {
                    prop_assert!(is_last, "{}", String::from_utf8_lossy(&file));
                    prop_assert_eq!(&text, &texts[texts.len() - 2]);
                }
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }

    #[test]
    fn a_cut_text_is_damage_and_too_many_changes_are_written_anew() {
        let (file, extent) = whole("a\nb\n");
        for cut in 0..file.len() {
            assert_eq!(read(&file[..cut]), Err(DamagedState), "{cut}");
        }
        let long = "a".repeat(300) + "\n";
        let (old, new) = (format!("{long}b\n"), format!("{long}c\n"));
        let full = Extent { changes: limits::SENTINEL_JOURNAL_BYTES_MAX, ..extent };
        assert!(change(&old, &new, extent).is_some());
        assert!(change(&old, &new, full).is_none());
        assert!(change(&old, "no line feed", extent).is_none());
    }
}
