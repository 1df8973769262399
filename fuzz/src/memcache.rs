//! memcached's requests and replies.

use ringkeeper_core::wire::memcache::{
    LineError, ReplyError, ReplyScanner, RequestError, RequestLimits, RequestScan, RequestScanner,
    Verb, decode_key, value_block,
};
use ringkeeper_core::wire::resp::ReplyScan;

/// What a stream of requests is: what each becomes for a server, or why it is refused; then how
/// the stream ends.
type Requests = (Vec<Result<Vec<u8>, (LineError, bool)>>, Option<RequestError>);

/// Requests: cuts change nothing; what a server would get is read as the same request again, and
/// is one that memcached takes; a refused value is passed over to the end of its line.
pub(crate) fn request(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    for limits in [
        RequestLimits { bytes_max: 1024, takes_control: false },
        RequestLimits { bytes_max: 64 * 1024 * 1024, takes_control: true },
    ] {
        let whole = requests(bytes, bytes.len(), &limits);
        assert_eq!(requests(bytes, usize::from(size), &limits), whole);
    }
}

fn requests(bytes: &[u8], size: usize, limits: &RequestLimits) -> Requests {
    let mut found = Vec::new();
    let mut scanner = RequestScanner::default();
    let mut words = Vec::new();
    let (mut start, mut received) = (0, 0);
    while received < bytes.len() {
        received = bytes.len().min(received + size.max(1));
        while start < received {
            let buf = &bytes[start..received];
            let len = match scanner.scan(buf, limits, &mut words) {
                Err(error) => return (found, Some(error)),
                Ok(RequestScan::Incomplete) => break,
                Ok(RequestScan::Complete { len, request }) => {
                    assert!(!scanner.is_started());
                    let mut text = Vec::new();
                    request.encode(&buf[..len], &words, &mut text);
                    assert_eq!(request.is_canonical, text == buf[..len]);
                    check_encoded(&text, request.verb, limits);
                    found.push(Ok(text));
                    len
                }
                Ok(RequestScan::Refused { len, error, is_silent }) => {
                    found.push(Err((error, is_silent)));
                    len
                }
                Ok(RequestScan::Skipped { len }) => {
                    assert!(scanner.is_started() || buf[len - 1] == b'\n');
                    len
                }
            };
            assert!(len > 0 && len <= buf.len());
            start += len;
        }
    }
    (found, None)
}

/// What a server gets is one whole request, and the only form of it.
fn check_encoded(text: &[u8], verb: Verb, limits: &RequestLimits) {
    let mut words = Vec::new();
    let scan = RequestScanner::default().scan(text, limits, &mut words);
    let Ok(RequestScan::Complete { len, request }) = scan else {
        panic!("{} is read as {scan:?}", text.escape_ascii())
    };
    assert_eq!((len, request.verb), (text.len(), verb));
    // Without `noreply` nothing is left that could be one, but for a key of that name.
    assert!(request.is_canonical || request.is_noreply);
    let line = text.iter().position(|byte| *byte == b'\n').unwrap();
    assert!(text[..line].ends_with(b"\r") && !text[..line - 1].contains(&b'\r'));
    assert!(verb.is_retrieval() || line < 2048);
    let key = words.get(verb.key_at()).map(|word| word.of(text)).unwrap_or_default();
    assert!(key.len() <= 250);
    if let Some(decoded) = decode_key(key, &mut [0; 250]) {
        assert_eq!(
            decoded.len(),
            key.len() / 4 * 3 - key.iter().rev().take(2).filter(|byte| **byte == b'=').count()
        );
    }
}

/// Replies: cuts change nothing; blocks of values fill a reply up to its last line.
pub(crate) fn reply(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let (whole, error) = replies(bytes, bytes.len());
    let (ends, cut_error) = replies(bytes, usize::from(size));
    assert_eq!((&ends, cut_error.is_some()), (&whole, error.is_some()));
    let mut start = 0;
    for end in whole {
        let mut rest = &bytes[start..end];
        start = end;
        while let Some((key, len)) = value_block(rest) {
            assert!(!key.contains(&b' ') && rest[..len].ends_with(b"\r\n"));
            rest = &rest[len..];
        }
        assert!(rest.ends_with(b"\r\n") && !rest.starts_with(b"VALUE "));
    }
    // Not a reply, but no reason to panic either.
    value_block(bytes);
}

fn replies(bytes: &[u8], size: usize) -> (Vec<usize>, Option<ReplyError>) {
    let mut ends = Vec::new();
    let mut scanner = ReplyScanner::default();
    let mut at = 0;
    while at < bytes.len() {
        let chunk_end = bytes.len().min(at + size.max(1));
        while at < chunk_end {
            match scanner.advance(&bytes[at..chunk_end]) {
                Ok(ReplyScan::Incomplete) => at = chunk_end,
                Ok(ReplyScan::Complete { len }) => {
                    assert!(len > 0 && !scanner.is_started());
                    at += len;
                    ends.push(at);
                }
                Err(error) => return (ends, Some(error)),
            }
        }
    }
    (ends, None)
}
