//! Inline requests: a line of words, for people with telnet and for health checks.

use super::encode;
use super::request::RequestError;

/// What separates words before they begin.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Splits `line` (without its line end) as Redis does and appends it to `out` as a canonical
/// request array. Returns the number of arguments; 0 appends nothing.
///
/// Double quotes know `\n \r \t \b \a \xHH` and take any other escaped byte as itself; single
/// quotes know `\'` only.
///
/// # Errors
///
/// [`RequestError::UnbalancedQuotes`] and [`RequestError::CrossProtocol`]; `out` is unchanged.
pub fn encode_inline(line: &[u8], out: &mut Vec<u8>) -> Result<usize, RequestError> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.iter().position(|byte| !is_space(*byte)) {
        let mut word = Vec::new();
        rest = take_word(rest.get(start..).unwrap_or_default(), &mut word)?;
        if words.is_empty() && is_cross_protocol(&word) {
            return Err(RequestError::CrossProtocol);
        }
        words.push(word);
    }
    if !words.is_empty() {
        encode::array_header(out, words.len());
        for word in &words {
            encode::bulk(out, word);
        }
    }
    Ok(words.len())
}

/// Whether a command name is the first word of an HTTP request rather than a command.
///
/// Redis closes without a reply when it meets one, inline or not: a page in a browser may post
/// anything to a port, and each line of its body would be a command.
pub fn is_cross_protocol(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// Takes one word off the start of `rest` and returns what follows it.
fn take_word<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], RequestError> {
    loop {
        match rest {
            [] => return Ok(rest),
            // Narrower than is_space: Redis lets the vertical tab and the form feed into a word.
            [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok(rest),
            [b'"', tail @ ..] => return close_quote(take_double_quoted(tail, word)?),
            [b'\'', tail @ ..] => return close_quote(take_single_quoted(tail, word)?),
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

/// A closing quote must end the word.
fn close_quote(rest: &[u8]) -> Result<&[u8], RequestError> {
    match rest.first() {
        Some(byte) if !is_space(*byte) => Err(RequestError::UnbalancedQuotes),
        _ => Ok(rest),
    }
}

fn take_double_quoted<'a>(
    mut rest: &'a [u8],
    word: &mut Vec<u8>,
) -> Result<&'a [u8], RequestError> {
    loop {
        let (byte, tail) = match rest {
            [] => return Err(RequestError::UnbalancedQuotes),
            [b'"', tail @ ..] => return Ok(tail),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_digit(*high) << 4 | hex_digit(*low), tail)
            }
            [b'\\', escaped, tail @ ..] => {
                let byte = match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                };
                (byte, tail)
            }
            [byte, tail @ ..] => (*byte, tail),
        };
        word.push(byte);
        rest = tail;
    }
}

fn take_single_quoted<'a>(
    mut rest: &'a [u8],
    word: &mut Vec<u8>,
) -> Result<&'a [u8], RequestError> {
    loop {
        let (byte, tail) = match rest {
            [] => return Err(RequestError::UnbalancedQuotes),
            [b'\'', tail @ ..] => return Ok(tail),
            [b'\\', b'\'', tail @ ..] => (b'\'', tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        word.push(byte);
        rest = tail;
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Result<Vec<u8>, RequestError> {
        let mut out = Vec::new();
        encode_inline(line, &mut out).map(|_| out)
    }

    #[test]
    fn words_become_a_canonical_request() {
        assert_eq!(words(b"PING").unwrap(), b"*1\r\n$4\r\nPING\r\n");
        assert_eq!(
            words(b"  SET\tkey  value ").unwrap(),
            b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n"
        );
        assert_eq!(words(b" \t ").unwrap(), b"");
        assert_eq!(words(b"PING\x0b\x0cab").unwrap(), b"*1\r\n$8\r\nPING\x0b\x0cab\r\n");
    }

    #[test]
    fn quotes_and_escapes_are_those_of_redis() {
        assert_eq!(
            words(br#"ECHO "a b\x41\x4a\n\r\t\b\a\q\"""#).unwrap(),
            b"*2\r\n$4\r\nECHO\r\n$12\r\na bAJ\n\r\t\x08\x07q\"\r\n"
        );
        assert_eq!(words(br"ECHO 'a\'b\n'").unwrap(), b"*2\r\n$4\r\nECHO\r\n$5\r\na'b\\n\r\n");
        assert_eq!(words(br#""" a"#).unwrap(), b"*2\r\n$0\r\n\r\n$1\r\na\r\n");
        assert_eq!(words(br#"ECHO "\xzz""#).unwrap(), b"*2\r\n$4\r\nECHO\r\n$3\r\nxzz\r\n");
    }

    #[test]
    fn unbalanced_quotes_leave_the_output_alone() {
        for line in [&br#"PING "a"#[..], br#"PING "a"b"#, br"PING 'a", br"PING 'a'b", br#"PING "\"#]
        {
            let mut out = b"kept".to_vec();
            assert_eq!(encode_inline(line, &mut out), Err(RequestError::UnbalancedQuotes));
            assert_eq!(out, b"kept");
        }
        assert_eq!(words(br#"a"b"c"#), Err(RequestError::UnbalancedQuotes));
    }

    #[test]
    fn http_is_recognised_by_its_first_word() {
        for line in [&b"POST / HTTP/1.1"[..], b"post", b"Host: localhost", b"hOST: x"] {
            assert_eq!(words(line), Err(RequestError::CrossProtocol), "{line:?}");
        }
        assert!(words(b"POSTx /").is_ok());
        assert!(words(b"Host:x").is_ok());
        assert!(words(b"GET / HTTP/1.1").is_ok());
    }
}
