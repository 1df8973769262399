//! memcached's text protocol: what clients ask and fake servers answer.

use crate::data::{Frame, Frames, KEY_BYTES, key, parse_key};
use crate::servers::Counts;

/// Longest line that a fake server waits for.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Appends a `get` of these keys.
pub fn write_get(letter: u8, numbers: &[u32], out: &mut Vec<u8>) {
    out.extend_from_slice(b"get");
    for number in numbers {
        out.push(b' ');
        out.extend_from_slice(&key(letter, *number));
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a `set` of the value that belongs to the key.
pub fn write_set(key: &[u8; KEY_BYTES], frame: &Frame, out: &mut Vec<u8>) {
    out.extend_from_slice(b"set ");
    out.extend_from_slice(key);
    out.extend_from_slice(format!(" 0 0 {}\r\n", frame.value_bytes()).as_bytes());
    frame.write_value(key, out);
}

/// Answers the request at the front of `bytes` if it is whole; returns how many bytes it took.
/// `None`: it is no request.
pub fn answer(
    frames: &Frames,
    bytes: &[u8],
    out: &mut Vec<u8>,
    counts: &mut Counts,
) -> Option<usize> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return (bytes.len() < LINE_BYTES_MAX).then_some(0);
    };
    let line = bytes[..end].strip_suffix(b"\r")?;
    if let Some(keys) = line.strip_prefix(b"get ") {
        for key in keys.split(|byte| *byte == b' ') {
            if let (Some(frame), Ok(key)) = (frame(frames, key), key.try_into()) {
                frame.write(key, out);
            }
        }
        out.extend_from_slice(b"END\r\n");
        counts.commands += 1;
        return Some(end + 1);
    }
    if line == b"version" {
        out.extend_from_slice(b"VERSION 1.6.0\r\n");
        return Some(end + 1);
    }
    let words = line.strip_prefix(b"set ")?;
    let key = words.get(..KEY_BYTES)?;
    let size = std::str::from_utf8(words.rsplit(|byte| *byte == b' ').next()?).ok()?;
    let whole = end + 1 + size.parse::<usize>().ok()? + 2;
    let Some(value) = bytes.get(end + 1..whole) else { return Some(0) };
    counts.commands += 1;
    match (frame(frames, key), key.try_into()) {
        (Some(frame), Ok(key)) if frame.is_value(key, value) => {}
        _ => counts.faults += 1,
    }
    out.extend_from_slice(b"STORED\r\n");
    Some(whole)
}

fn frame<'a>(frames: &'a Frames, key: &[u8]) -> Option<&'a Frame> {
    let (letter, number) = parse_key(key)?;
    frames.frame(letter, number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Protocol;

    #[test]
    fn a_cut_request_waits_and_a_whole_one_is_answered() {
        let frames = Frames::of(Protocol::Memcached);
        let mut request = Vec::new();
        let name = key(b's', 3);
        write_set(&name, frames.frame(b's', 3).expect("space s"), &mut request);
        let set = request.len();
        write_get(b's', &[3, 4], &mut request);
        let (mut out, mut counts) = (Vec::new(), Counts::default());
        for cut in 0..set {
            assert_eq!(answer(&frames, &request[..cut], &mut out, &mut counts), Some(0));
        }
        assert_eq!(answer(&frames, &request, &mut out, &mut counts), Some(set));
        let get = answer(&frames, &request[set..], &mut out, &mut counts);
        assert_eq!(get, Some(request.len() - set));
        assert_eq!((counts.commands, counts.faults), (2, 0));
        let text = String::from_utf8(out).expect("letters");
        assert!(text.starts_with("STORED\r\nVALUE s:00000003 0 128\r\ns:00000003"), "{text}");
        assert!(text.contains("\r\nVALUE s:00000004 0 256\r\n") && text.ends_with("\r\nEND\r\n"));
        assert_eq!(answer(&frames, b"bogus\r\n", &mut Vec::new(), &mut counts), None);
    }
}
