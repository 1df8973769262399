use proptest::prelude::*;

use super::*;
use crate::wire::resp::encode;

const LIMITS: RequestLimits = RequestLimits::AUTHENTICATED;

/// Everything a connection would see: frames with their arguments, and how it ended.
#[derive(Debug, PartialEq)]
enum Seen {
    Request(Vec<Vec<u8>>),
    Inline(Vec<u8>),
    Empty(usize),
    Refused(RequestError),
    Cut,
}

/// Feeds `bytes` in chunks of the given sizes (the last size repeats; none is all at once).
fn feed(bytes: &[u8], sizes: &[usize], limits: &RequestLimits) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut scanner = RequestScanner::default();
    let mut args = Vec::new();
    let mut frame_start = 0;
    let mut received = 0;
    let mut sizes = sizes.iter().copied();
    let mut size = bytes.len();
    while received < bytes.len() {
        size = sizes.next().unwrap_or(size).max(1);
        received = bytes.len().min(received + size);
        loop {
            let buf = &bytes[frame_start..received];
            let used = match scanner.scan(buf, limits, &mut args) {
                Ok(RequestScan::Incomplete) => break,
                Ok(RequestScan::Complete { len }) => {
                    let frame = &buf[..len];
                    seen.push(Seen::Request(args.iter().map(|a| a.of(frame).to_vec()).collect()));
                    len
                }
                Ok(RequestScan::Inline { len, line_len }) => {
                    seen.push(Seen::Inline(buf[..line_len].to_vec()));
                    len
                }
                Ok(RequestScan::Empty { len }) => {
                    seen.push(Seen::Empty(len));
                    len
                }
                Err(error) => {
                    seen.push(Seen::Refused(error));
                    return seen;
                }
            };
            assert!(!scanner.is_started());
            frame_start += used;
            if frame_start == received {
                break;
            }
        }
    }
    if frame_start < bytes.len() {
        seen.push(Seen::Cut);
    }
    seen
}

fn refused(bytes: &[u8]) -> RequestError {
    let seen = feed(bytes, &[], &LIMITS);
    assert_eq!(seen, feed(bytes, &[1], &LIMITS), "{bytes:?}");
    match seen.as_slice() {
        [Seen::Refused(error)] => *error,
        other => panic!("{bytes:?}: {other:?}"),
    }
}

fn request(args: &[&[u8]]) -> Seen {
    Seen::Request(args.iter().map(|arg| arg.to_vec()).collect())
}

#[test]
fn arguments_are_found_whatever_the_cuts() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n*1\r\n$12\r\nPINGPINGPI\r\n\r\n*1\r\n$1\r\nx\r\n";
    let expected = vec![request(&[b"GET", b""]), request(&[b"PINGPINGPI\r\n"]), request(&[b"x"])];
    assert_eq!(feed(bytes, &[], &LIMITS), expected);
    for size in 1..bytes.len() {
        assert_eq!(feed(bytes, &[size], &LIMITS), expected, "{size}");
        assert_eq!(feed(bytes, &[size, bytes.len()], &LIMITS), expected, "{size}");
    }
}

#[test]
fn what_redis_ignores_is_empty() {
    let bytes = b"*0\r\n*-1\r\n*-10\r\n\r\n\n  \t\r\nPING\r\n";
    let empty = [4, 5, 6, 2, 1, 5].map(Seen::Empty);
    let mut expected = Vec::from(empty);
    expected.push(Seen::Inline(b"PING".to_vec()));
    assert_eq!(feed(bytes, &[], &LIMITS), expected);
    assert_eq!(feed(bytes, &[1], &LIMITS), expected);
}

#[test]
fn lengths_that_are_not_canonical_are_refused() {
    use RequestError::{InvalidBulkLength, InvalidMultibulkLength};
    for head in [
        "*01\r\n",
        "*+1\r\n",
        "*-0\r\n",
        "*-01\r\n",
        "* 1\r\n",
        "*1 \r\n",
        "*1x\r\n",
        "*\r\n",
        "*a\r\n",
        "*1\n",
        "*4294967298\r\n",
        "*1048577\r\n",
        "*18446744073709551617\r\n",
        "*-2147483648\r\n",
        "*-\r\n",
        "*--1\r\n",
        "*1\r\r",
    ] {
        assert_eq!(refused(head.as_bytes()), InvalidMultibulkLength, "{head:?}");
    }
    for bulk in [
        "$03\r\n",
        "$+3\r\n",
        "$-1\r\n",
        "$-0\r\n",
        "$ 3\r\n",
        "$3 \r\n",
        "$\r\n",
        "$3\n",
        "$4294967297\r\n",
        "$536870913\r\n",
        "$18446744073709551617\r\n",
        "$0x3\r\n",
    ] {
        assert_eq!(refused(format!("*2\r\n{bulk}").as_bytes()), InvalidBulkLength, "{bulk:?}");
    }
}

#[test]
fn other_faults_have_their_own_errors() {
    assert_eq!(refused(b"*1\r\n+PING\r\n"), RequestError::ExpectedBulk(b'+'));
    assert_eq!(refused(b"*1\r\n\r\n"), RequestError::ExpectedBulk(b'\r'));
    assert_eq!(refused(b"*1\r\n*1\r\n"), RequestError::ExpectedBulk(b'*'));
    for bytes in [&b"*1\r\n$4\r\nPINGxx"[..], b"*1\r\n$4\r\nPING\n\n", b"*1\r\n$4\r\nPING\rx"] {
        assert_eq!(refused(bytes), RequestError::MissingLineEnd, "{bytes:?}");
    }
    assert_eq!(refused(&[b'a'; INLINE_BYTES_MAX + 1]), RequestError::InlineTooBig);
}

#[test]
fn a_request_larger_than_the_limit_is_refused_when_it_is_announced() {
    let limits = RequestLimits { bytes_max: 100, ..LIMITS };
    let fits = format!("*2\r\n$3\r\nGET\r\n$80\r\n{:80}\r\n", "");
    assert_eq!(fits.len(), 100);
    assert_eq!(feed(fits.as_bytes(), &[], &limits).len(), 1);
    for announced in ["$81\r\n", "$200\r\n"] {
        let bytes = format!("*2\r\n$3\r\nGET\r\n{announced}");
        assert_eq!(
            feed(bytes.as_bytes(), &[3], &limits),
            [Seen::Refused(RequestError::RequestTooLarge)]
        );
    }
}

#[test]
fn before_auth_less_is_allowed() {
    let limits = RequestLimits::UNAUTHENTICATED;
    assert_eq!(feed(b"*10\r\n$16384\r\n", &[], &limits), [Seen::Cut]);
    assert_eq!(
        feed(b"*11\r\n", &[], &limits),
        [Seen::Refused(RequestError::UnauthenticatedMultibulkLength)]
    );
    assert_eq!(
        feed(b"*2\r\n$16385\r\n", &[], &limits),
        [Seen::Refused(RequestError::UnauthenticatedBulkLength)]
    );
    assert_eq!(
        feed(b"*1048577\r\n", &[], &limits),
        [Seen::Refused(RequestError::InvalidMultibulkLength)]
    );
    assert_eq!(
        feed(b"*2\r\n$536870913\r\n", &[], &limits),
        [Seen::Refused(RequestError::InvalidBulkLength)]
    );
    let mut largest = Vec::new();
    encode::request(&mut largest, &[&[b'x'; UNAUTHENTICATED_BULK_BYTES_MAX][..]; 10]);
    assert_eq!(feed(&largest, &[1000], &limits).len(), 1);
}

#[test]
fn an_announced_count_reserves_nothing() {
    let mut scanner = RequestScanner::default();
    let mut args = Vec::new();
    let found = scanner.scan(b"*1048576\r\n$1\r\nx\r\n", &LIMITS, &mut args);
    assert_eq!(found, Ok(RequestScan::Incomplete));
    assert!(args.capacity() < 64);
}

#[test]
fn a_span_of_another_frame_is_empty() {
    let span = Span { start: 4, len: u32::MAX };
    assert_eq!(span.of(b"short"), b"");
    assert_eq!(Span { start: u32::MAX, len: 1 }.of(b""), b"");
}

#[test]
fn errors_are_worded_as_by_redis() {
    let mut out = Vec::new();
    RequestError::ExpectedBulk(b'+').encode_message(&mut out);
    RequestError::ExpectedBulk(b'\r').encode_message(&mut out);
    RequestError::InvalidBulkLength.encode_message(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "-ERR Protocol error: expected '$', got '+'\r\n\
         -ERR Protocol error: expected '$', got ' '\r\n\
         -ERR Protocol error: invalid bulk length\r\n"
    );
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::collection::vec(any::<u8>(), 0..40);
    let whole = prop::collection::vec(word, 1..8).prop_map(|words| {
        let mut out = Vec::new();
        encode::request(&mut out, &words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        out
    });
    let odd = prop::sample::select(vec![
        &b"PING\r\n"[..],
        b"\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$01\r\nx\r\n",
        b"*2\r\n$1\r\nx\r\n+",
        b"*1\r\n$1\r\nxyz",
        b"*",
        b"$",
        b"a b c\n",
        b"*1\r\n$1\r\nx\r",
    ]);
    prop_oneof![4 => whole, 1 => odd.prop_map(<[u8]>::to_vec)]
}

proptest! {
    #[test]
    fn cuts_change_nothing(
        frames in prop::collection::vec(frame(), 1..8),
        sizes in prop::collection::vec(1_usize..50, 0..40),
    ) {
        let bytes = frames.concat();
        prop_assert_eq!(feed(&bytes, &sizes, &LIMITS), feed(&bytes, &[], &LIMITS));
    }

    #[test]
    fn any_bytes_are_judged_alike_in_pieces(
        bytes in prop::collection::vec(prop::sample::select(b"*$+-0123456789\r\nab \"".to_vec()), 0..60),
        size in 1_usize..10,
    ) {
        prop_assert_eq!(feed(&bytes, &[size], &LIMITS), feed(&bytes, &[], &LIMITS));
    }

    #[test]
    fn what_is_accepted_is_canonical(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20)) {
        let mut bytes = Vec::new();
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        encode::request(&mut bytes, &words);
        prop_assert_eq!(feed(&bytes, &[], &LIMITS), [request(&words)]);
    }
}
