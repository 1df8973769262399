//! Writes requests and replies. Every function appends to `out` and nothing else.
//!
//! Our own replies go through here only, so no reply of ours can carry a line end inside a line.

/// Appends a simple string; line ends in `text` become spaces.
#[inline]
pub fn simple(out: &mut Vec<u8>, text: &str) {
    line(out, b'+', text.as_bytes());
}

/// Appends an error; `text` begins with its code (`ERR …`). Line ends in it become spaces.
pub fn error(out: &mut Vec<u8>, text: &str) {
    line(out, b'-', text.as_bytes());
}

/// Appends an error from pieces, some of which a client sent; line ends in them become spaces.
pub fn error_parts(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.push(b'-');
    for part in parts {
        push_sanitized(out, part);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends an integer.
#[inline]
pub fn integer(out: &mut Vec<u8>, value: i64) {
    out.push(b':');
    if value < 0 {
        out.push(b'-');
    }
    decimal(out, value.unsigned_abs());
    out.extend_from_slice(b"\r\n");
}

/// Appends a bulk string; also one argument of a request.
#[inline]
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 16);
    header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends the RESP2 null bulk string.
#[inline]
pub fn null_bulk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"$-1\r\n");
}

/// Appends the RESP2 null array.
#[inline]
pub fn null_array(out: &mut Vec<u8>) {
    out.extend_from_slice(b"*-1\r\n");
}

/// Appends the head of an array; `count` elements must follow. Also the head of a request.
#[inline]
pub fn array_header(out: &mut Vec<u8>, count: usize) {
    header(out, b'*', count);
}

/// Appends the head of a RESP3 map; `pairs` keys and values must follow.
#[inline]
pub fn map_header(out: &mut Vec<u8>, pairs: usize) {
    header(out, b'%', pairs);
}

/// Appends a whole request.
pub fn request(out: &mut Vec<u8>, args: &[&[u8]]) {
    array_header(out, args.len());
    for arg in args {
        bulk(out, arg);
    }
}

/// Appends a decimal number without anything around it.
#[inline]
pub fn decimal(out: &mut Vec<u8>, mut value: u64) {
    if let Ok(digit @ 0..=9) = u8::try_from(value) {
        out.push(b'0' + digit);
        return;
    }
    let mut digits = [0_u8; 20];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        // A remainder of ten fits any type.
        *slot = b'0' + (value % 10) as u8;
        value /= 10;
        used += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - used..).unwrap_or_default());
}

#[inline]
fn header(out: &mut Vec<u8>, kind: u8, value: usize) {
    if let Ok(digit @ 0..=9) = u8::try_from(value) {
        out.extend_from_slice(&[kind, b'0' + digit, b'\r', b'\n']);
        return;
    }
    out.push(kind);
    decimal(out, value as u64);
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.reserve(text.len() + 3);
    out.push(kind);
    push_sanitized(out, text);
    out.extend_from_slice(b"\r\n");
}

fn push_sanitized(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_form_is_canonical() {
        assert_eq!(encoded(|out| simple(out, "OK")), "+OK\r\n");
        assert_eq!(encoded(|out| integer(out, 0)), ":0\r\n");
        assert_eq!(encoded(|out| integer(out, -1)), ":-1\r\n");
        assert_eq!(encoded(|out| integer(out, i64::MIN)), ":-9223372036854775808\r\n");
        assert_eq!(encoded(|out| integer(out, i64::MAX)), ":9223372036854775807\r\n");
        assert_eq!(encoded(|out| bulk(out, b"")), "$0\r\n\r\n");
        assert_eq!(encoded(|out| bulk(out, &[b'x'; 10])), "$10\r\nxxxxxxxxxx\r\n");
        assert_eq!(encoded(null_bulk), "$-1\r\n");
        assert_eq!(encoded(null_array), "*-1\r\n");
        assert_eq!(encoded(|out| map_header(out, 3)), "%3\r\n");
        assert_eq!(encoded(|out| request(out, &[b"GET", b"k"])), "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
        for value in [0, 9, 10, 99, 100, 12_345, u64::MAX] {
            assert_eq!(encoded(|out| decimal(out, value)), value.to_string());
        }
    }

    #[test]
    fn no_line_end_gets_into_a_line() {
        assert_eq!(encoded(|out| error(out, "ERR a\r\n+OK")), "-ERR a  +OK\r\n");
        assert_eq!(encoded(|out| simple(out, "a\nb")), "+a b\r\n");
        assert_eq!(
            encoded(|out| error_parts(out, &[b"ERR unknown command '", b"x\r\ny", b"'"])),
            "-ERR unknown command 'x  y'\r\n"
        );
    }
}
