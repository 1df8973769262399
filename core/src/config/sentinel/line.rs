//! Lines of a `redis.conf` and the words on them, with their places.

use std::ops::Range;

/// One line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its words; at least one.
    pub(super) words: Vec<Word>,
    /// From its first word to its last.
    pub(super) span: Range<usize>,
}

/// A word as it is meant, quotes and escapes undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// Where it stands, quotes included.
    pub(super) span: Range<usize>,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    /// A quotation mark is not closed, or something stands right behind a closing one.
    Quotes(Range<usize>),
    /// Escapes spell something that is not UTF-8.
    NotUtf8(Range<usize>),
}

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Blank, or a comment.
    Nothing,
    /// Words.
    Says(Line),
    /// Neither.
    Broken(LineError),
}

/// Returns the place of each line, without its line feed; the rest behind the last line feed is
/// a line if it is not empty.
pub(super) fn line_spans(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    text.split_inclusive('\n').map(move |line| {
        let from = start;
        start += line.len();
        from..from + line.strip_suffix('\n').unwrap_or(line).len()
    })
}

/// Reads the line at `span` of `text`.
pub(super) fn read(text: &str, span: Range<usize>) -> Content {
    let raw = text.get(span.clone()).unwrap_or_default();
    let trimmed = raw.trim_matches([' ', '\t', '\r']);
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Content::Nothing;
    }
    match split(raw.as_bytes(), span.start) {
        Ok(words) => match (words.first(), words.last()) {
            (Some(first), Some(last)) => {
                let span = first.span.start..last.span.end;
                Content::Says(Line { words, span })
            }
            _ => Content::Nothing,
        },
        Err(error) => Content::Broken(error),
    }
}

/// Splits a line as Redis does. Double quotes know `\n \r \t \b \a \xHH` and take any other
/// escaped byte as itself; single quotes know `\'` only; a closing quote ends the word.
fn split(line: &[u8], base: usize) -> Result<Vec<Word>, LineError> {
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|byte| is_space(*byte)) {
            at += 1;
        }
        if at >= line.len() {
            return Ok(words);
        }
        let start = at;
        let mut bytes = Vec::new();
        at = word(line, at, &mut bytes)
            .ok_or_else(|| LineError::Quotes(base + start..base + line.len()))?;
        let span = base + start..base + at;
        let text = String::from_utf8(bytes).map_err(|_| LineError::NotUtf8(span.clone()))?;
        words.push(Word { text, span });
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)
}

/// Takes the word at `at` and returns where it ends; `None` when its quotes do not match.
fn word(line: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<usize> {
    while let Some(&byte) = line.get(at) {
        match byte {
            b' ' | b'\t' | b'\r' => break,
            b'"' | b'\'' => {
                at = quoted_part(line, at + 1, byte, out)?;
                return line.get(at).is_none_or(|byte| is_space(*byte)).then_some(at);
            }
            plain => {
                out.push(plain);
                at += 1;
            }
        }
    }
    Some(at)
}

/// Takes what stands in quotes and returns the place behind the closing one.
fn quoted_part(line: &[u8], mut at: usize, quote: u8, out: &mut Vec<u8>) -> Option<usize> {
    loop {
        let rest = line.get(at..)?;
        let (byte, taken) = match *rest {
            [] => return None,
            [end, ..] if end == quote => return Some(at + 1),
            [b'\\', b'\'', ..] if quote == b'\'' => (b'\'', 2),
            [b'\\', b'x', high, low, ..] if quote == b'"' && hex(high, low).is_some() => {
                (hex(high, low)?, 4)
            }
            [b'\\', escaped, ..] if quote == b'"' => (unescape(escaped), 2),
            [plain, ..] => (plain, 1),
        };
        out.push(byte);
        at += taken;
    }
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

const fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// Appends a word so that [`read`] takes it back, in quotes only where it needs them.
pub(super) fn push_word(out: &mut String, text: &str) {
    let is_plain = !text.is_empty()
        && !text.starts_with('#')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\'));
    if is_plain {
        out.push_str(text);
    } else {
        push_quoted(out, text);
    }
}

/// Appends a word in double quotes.
pub(super) fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x20..=0x7e => out.push(char::from(byte)),
            other => out.push_str(&format!("\\x{other:02x}")),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        match read(line, 0..line.len()) {
            Content::Nothing => Vec::new(),
            Content::Says(line) => line.words.into_iter().map(|word| word.text).collect(),
            Content::Broken(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn quotes_and_escapes_are_undone() {
        assert_eq!(
            words(r#"  dir "/a b" 'c\'d' "\x41\n\q" e"#),
            ["dir", "/a b", "c'd", "A\nq", "e"]
        );
        assert_eq!(words("a\tb\r"), ["a", "b"]);
        assert_eq!(words("# a"), [""; 0]);
        assert_eq!(words("\r"), [""; 0]);
        assert_eq!(words("a \"\""), ["a", ""]);
    }

    #[test]
    fn unmatched_quotes_and_strange_bytes_have_a_place() {
        let broken = |line: &str| match read(line, 0..line.len()) {
            Content::Broken(error) => error,
            Content::Nothing | Content::Says(_) => panic!("{line}"),
        };
        assert_eq!(broken("a \"b"), LineError::Quotes(2..4));
        assert_eq!(broken("a \"b\"c"), LineError::Quotes(2..6));
        assert_eq!(broken(r#"a "\xff""#), LineError::NotUtf8(2..8));
    }

    #[test]
    fn spans_name_lines_and_words_in_the_whole_text() {
        let text = "a b\n\n  c\r\nd";
        assert_eq!(line_spans(text).collect::<Vec<_>>(), [0..3, 4..4, 5..9, 10..11]);
        let Content::Says(line) = read(text, 5..9) else { panic!() };
        assert_eq!(line.words[0].span, 7..8);
    }

    proptest! {
        #[test]
        fn a_written_word_is_read_back(text in any::<String>()) {
            let mut line = String::from("x ");
            push_word(&mut line, &text);
            prop_assert_eq!(words(&line), ["x".to_owned(), text]);
        }

        #[test]
        fn no_line_panics(text in any::<String>()) {
            for span in line_spans(&text) {
                let _ = read(&text, span);
            }
        }
    }
}
