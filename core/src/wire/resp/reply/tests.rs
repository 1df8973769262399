use proptest::prelude::*;

use super::*;

/// Ends of the frames in `bytes`, and the error that ended it, if any.
fn feed(bytes: &[u8], sizes: &[usize]) -> (Vec<usize>, Option<ReplyError>) {
    let mut ends = Vec::new();
    let mut scanner = ReplyScanner::default();
    let mut sizes = sizes.iter().copied();
    let mut size = bytes.len();
    let mut at = 0;
    while at < bytes.len() {
        size = sizes.next().unwrap_or(size).max(1);
        let chunk_end = bytes.len().min(at + size);
        while at < chunk_end {
            match scanner.advance(&bytes[at..chunk_end]) {
                Ok(ReplyScan::Incomplete) => {
                    assert!(scanner.is_started());
                    at = chunk_end;
                }
                Ok(ReplyScan::Complete { len }) => {
                    assert!(!scanner.is_started() && len > 0);
                    at += len;
                    ends.push(at);
                }
                Err(error) => return (ends, Some(error)),
            }
        }
    }
    (ends, None)
}

const FRAMES: &[&[u8]] = &[
    b"+OK\r\n",
    b"+\r\n",
    b"-ERR x y\r\n",
    b":1\r\n",
    b":-9223372036854775808\r\n",
    b":9223372036854775807\r\n",
    b"$0\r\n\r\n",
    b"$5\r\n\r\n\r\nx\r\n",
    b"$12\r\nabcdefghijkl\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*3\r\n:1\r\n*2\r\n$1\r\na\r\n$-1\r\n+x\r\n",
    b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*0\r\n",
    b"_\r\n",
    b"#t\r\n",
    b"#f\r\n",
    b",1.5e10\r\n",
    b",inf\r\n",
    b"(-3492890328409238509324850943850943825024385\r\n",
    b"!5\r\nERR x\r\n",
    b"=6\r\ntxt:ab\r\n",
    b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n",
    b"%0\r\n",
    b"~2\r\n:1\r\n:2\r\n",
    b">3\r\n+message\r\n+c\r\n$1\r\nm\r\n",
    b"|1\r\n+ttl\r\n:3\r\n$1\r\nx\r\n",
    b"|0\r\n+x\r\n",
    b"*2\r\n|1\r\n+k\r\n|1\r\n+a\r\n:1\r\n+v\r\n:5\r\n:6\r\n",
];

#[test]
fn each_type_ends_where_it_ends_whatever_the_cuts() {
    let bytes = FRAMES.concat();
    let ends: Vec<usize> = FRAMES
        .iter()
        .scan(0, |end, frame| {
            *end += frame.len();
            Some(*end)
        })
        .collect();
    for size in 1..=bytes.len() {
        assert_eq!(feed(&bytes, &[size]), (ends.clone(), None), "{size}");
    }
}

#[test]
fn what_no_server_sends_is_refused_whatever_the_cuts() {
    use ReplyError::{
        BulkTooLong, InvalidNumber, InvalidValue, MissingLineEnd, Streamed, TooManyElements,
        UnknownType,
    };
    let cases: &[(&[u8], ReplyError)] = &[
        (b"x", UnknownType(b'x')),
        (b"\r\n", UnknownType(b'\r')),
        (b"*1\r\nPING", UnknownType(b'P')),
        (b"$03\r\n", InvalidNumber),
        (b"$+3\r\n", InvalidNumber),
        (b"$-2\r\n", InvalidNumber),
        (b"$-0\r\n", InvalidNumber),
        (b"$-11\r\n", InvalidNumber),
        (b"$--1\r\n", InvalidNumber),
        (b"$\r\n", InvalidNumber),
        (b"$ 1\r\n", InvalidNumber),
        (b"$1\n", InvalidNumber),
        (b"$?\r\n", Streamed),
        (b"*?\r\n", Streamed),
        (b"%-1\r\n", InvalidNumber),
        (b"!-1\r\n", InvalidNumber),
        (b"~-1\r\n", InvalidNumber),
        (b"*99999999999\r\n", InvalidNumber),
        (b"$4294967296\r\n", BulkTooLong),
        (b"*4294967296\r\n", TooManyElements),
        (b"%3000000000\r\n", TooManyElements),
        (b"*4294967295\r\n*2\r\n", TooManyElements),
        (b":\r\n", InvalidNumber),
        (b":-\r\n", InvalidNumber),
        (b":?\r\n", InvalidNumber),
        (b":01\r\n", InvalidNumber),
        (b":9223372036854775808\r\n", InvalidNumber),
        (b":-9223372036854775809\r\n", InvalidNumber),
        (b":1.5\r\n", InvalidNumber),
        (b":1\rx", MissingLineEnd),
        (b"$1\r\nxx", MissingLineEnd),
        (b"$1\r\nx\rx", MissingLineEnd),
        (b"$1\rx", MissingLineEnd),
        (b"+a\nb\r\n", MissingLineEnd),
        (b"-a\rb\r\n", MissingLineEnd),
        (b"#x", InvalidValue),
        (b"_x", InvalidValue),
        (b"#tt", InvalidValue),
    ];
    for (bytes, error) in cases {
        for size in 1..=bytes.len() {
            assert_eq!(feed(bytes, &[size]), (vec![], Some(*error)), "{bytes:?} by {size}");
        }
    }
}

/// Arrays in one another, each with `leaves` before the next, and one after it.
fn nested(depth: usize, leaves: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 1..depth {
        bytes.extend_from_slice(format!("*{}\r\n", leaves + 2).as_bytes());
        bytes.extend_from_slice(&b":1\r\n".repeat(leaves));
    }
    bytes.extend_from_slice(b"*1\r\n$-1\r\n");
    bytes.extend_from_slice(&b"+x\r\n".repeat(depth - 1));
    bytes
}

#[test]
fn a_reply_is_as_deep_as_a_script_can_make_it_and_no_deeper() {
    let last_element = |depth| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
    for write in [&last_element as &dyn Fn(usize) -> Vec<u8>, &|depth| nested(depth, 2)] {
        let bytes = write(REPLY_DEPTH_MAX);
        assert_eq!(feed(&bytes, &[4096]), (vec![bytes.len()], None));
        for size in [1, 7, 1 << 20] {
            let bytes = write(REPLY_DEPTH_MAX + 1);
            assert_eq!(feed(&bytes, &[size]), (vec![], Some(ReplyError::TooDeep)));
        }
    }
}

#[test]
fn aggregates_beside_one_another_are_not_deep() {
    let count = 3 * REPLY_DEPTH_MAX;
    let mut bytes = format!("*{count}\r\n").into_bytes();
    (0..count).for_each(|at| bytes.extend_from_slice(&nested(1 + at % 4, at % 3)));
    assert_eq!(feed(&bytes, &[5]), (vec![bytes.len()], None));
}

#[test]
fn a_deep_reply_leaves_no_memory_behind() {
    let mut scanner = ReplyScanner::default();
    let bytes = nested(1000, 0);
    assert_eq!(scanner.advance(&bytes), Ok(ReplyScan::Complete { len: bytes.len() }));
    assert!(scanner.floors.capacity() <= REPLY_DEPTH_KEPT);
    assert_eq!((scanner.left, scanner.floor), (0, 0));
}

#[test]
fn the_announced_rest_of_a_bulk_is_known() {
    let mut scanner = ReplyScanner::default();
    assert_eq!(scanner.announced_bytes_left(), 0);
    assert_eq!(scanner.advance(b"$100\r\nabc"), Ok(ReplyScan::Incomplete));
    assert_eq!(scanner.announced_bytes_left(), 99);
}

#[test]
fn an_empty_chunk_changes_nothing() {
    let mut scanner = ReplyScanner::default();
    assert_eq!(scanner.advance(b""), Ok(ReplyScan::Incomplete));
    assert!(!scanner.is_started());
}

#[test]
fn integers_are_read_from_whole_replies_only() {
    assert_eq!(parse_integer_reply(b":12\r\n"), Some(12));
    assert_eq!(parse_integer_reply(b":-1\r\n"), Some(-1));
    for other in [&b":12"[..], b"+12\r\n", b":\r\n", b"", b":1\r\n:2\r\n"] {
        assert_eq!(parse_integer_reply(other), None, "{other:?}");
    }
}

#[test]
fn elements_of_an_array_are_whole_frames() {
    let elements = array_elements(b"*3\r\n$1\r\na\r\n$-1\r\n*1\r\n:1\r\n").unwrap();
    assert_eq!(elements.announced(), 3);
    let elements: Vec<_> = elements.collect();
    assert_eq!(elements, [&b"$1\r\na\r\n"[..], b"$-1\r\n", b"*1\r\n:1\r\n"]);
    assert_eq!(array_elements(b"*2\r\n:1\r\n").unwrap().count(), 1);
    assert_eq!(array_elements(b"*1\r\nx").unwrap().count(), 0);
    for other in [&b"*-1\r\n"[..], b"+OK\r\n", b"", b"*", b"*1"] {
        assert!(array_elements(other).is_none(), "{other:?}");
    }
}

fn reply() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop::sample::select(FRAMES).prop_map(<[u8]>::to_vec);
    let bulk = prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| {
        let mut out = Vec::new();
        crate::wire::resp::encode::bulk(&mut out, &bytes);
        out
    });
    prop_oneof![leaf, bulk].prop_recursive(6, 40, 5, |inner| {
        let kinds = prop::sample::select(b"*~>%|".to_vec());
        (kinds, prop::collection::vec(inner, 0..5)).prop_map(|(kind, elements)| {
            let count = match kind {
                b'%' => elements.len() / 2,
                b'|' => elements.len().saturating_sub(1) / 2,
                _ => elements.len(),
            };
            let used = usize::try_from(following(kind, count as u64)).unwrap();
            let mut out = format!("{}{count}\r\n", kind as char).into_bytes();
            elements.iter().take(used).for_each(|element| out.extend_from_slice(element));
            if used > elements.len() {
                out.extend_from_slice(b"+OK\r\n");
            }
            out
        })
    })
}

proptest! {
    #[test]
    fn any_reply_is_one_frame_whatever_the_cuts(
        reply in reply(),
        sizes in prop::collection::vec(1_usize..60, 0..40),
    ) {
        prop_assert_eq!(feed(&reply, &[]), (vec![reply.len()], None));
        prop_assert_eq!(feed(&reply, &sizes), (vec![reply.len()], None));
    }

    #[test]
    fn any_bytes_are_judged_alike_in_pieces(
        bytes in prop::collection::vec(prop::sample::select(b"*$+-:_,#!=(%~>|0123456789\r\nt?".to_vec()), 0..60),
        size in 1_usize..8,
    ) {
        prop_assert_eq!(feed(&bytes, &[size]), feed(&bytes, &[]));
    }
}
