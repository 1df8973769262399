//! Small machines that the simulator is tested with, right and wrong ones.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod forwarder;
pub(crate) mod ponger;

/// What stands at the front of a stream.
pub(crate) enum Frame {
    Whole(usize),
    Partial,
    Broken,
}

fn line(bytes: &[u8], from: usize) -> Option<Result<(i64, u8, usize), ()>> {
    let rest = bytes.get(from..)?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    if end < 2 || rest[end - 1] != b'\r' {
        return Some(Err(()));
    }
    let number = std::str::from_utf8(&rest[1..end - 1]).ok().and_then(|text| text.parse().ok());
    Some(Ok((number.unwrap_or(i64::MIN), rest[0], from + end + 1)))
}

/// Measures one request and returns where its name and first key lie.
pub(crate) fn scan_request(bytes: &[u8]) -> (Frame, Vec<std::ops::Range<usize>>) {
    let mut words = Vec::new();
    let Some(head) = line(bytes, 0) else { return (Frame::Partial, words) };
    let Ok((count @ 1..=1024, b'*', mut at)) = head else { return (Frame::Broken, words) };
    for _ in 0..count {
        let Some(head) = line(bytes, at) else { return (Frame::Partial, words) };
        let Ok((length @ 0..=1_000_000, b'$', body)) = head else { return (Frame::Broken, words) };
        let end = body + length as usize;
        let Some(tail) = bytes.get(end..end + 2) else { return (Frame::Partial, words) };
        if tail != b"\r\n" {
            return (Frame::Broken, words);
        }
        words.push(body..end);
        at = end + 2;
    }
    (Frame::Whole(at), words)
}

/// Measures one reply.
pub(crate) fn scan_reply(bytes: &[u8], from: usize) -> Frame {
    let Some(head) = line(bytes, from) else {
        let known = bytes.get(from).is_none_or(|kind| b"+-:$*".contains(kind));
        return if known { Frame::Partial } else { Frame::Broken };
    };
    match head {
        Ok((_, b'+' | b'-' | b':', next)) | Ok((-1, b'$' | b'*', next)) => Frame::Whole(next),
        Ok((length @ 0..=1_000_000, b'$', body)) => {
            let end = body + length as usize;
            match bytes.get(end..end + 2) {
                Some(b"\r\n") => Frame::Whole(end + 2),
                Some(_) => Frame::Broken,
                None => Frame::Partial,
            }
        }
        Ok((count @ 0..=1024, b'*', mut at)) => {
            for _ in 0..count {
                match scan_reply(bytes, at) {
                    Frame::Whole(next) => at = next,
                    other => return other,
                }
            }
            Frame::Whole(at)
        }
        _ => Frame::Broken,
    }
}
