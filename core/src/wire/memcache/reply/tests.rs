use super::*;

/// Follows `bytes` in chunks of `size`; returns where replies end.
fn ends(bytes: &[u8], size: usize) -> Result<Vec<usize>, ReplyError> {
    let mut scanner = ReplyScanner::default();
    let (mut found, mut at) = (Vec::new(), 0);
    for chunk in bytes.chunks(size) {
        let mut rest = chunk;
        while !rest.is_empty() {
            match scanner.advance(rest)? {
                ReplyScan::Incomplete => {
                    at += rest.len();
                    rest = &[];
                }
                ReplyScan::Complete { len } => {
                    at += len;
                    found.push(at);
                    rest = &rest[len..];
                    assert!(!scanner.is_started());
                }
            }
        }
    }
    Ok(found)
}

#[test]
fn replies_end_where_memcached_ends_them_however_they_are_cut() {
    let replies = [
        "STORED\r\n",
        "END\r\n",
        "VALUE k 0 1\r\nv\r\nEND\r\n",
        "VALUE k 0 0\r\n\r\nVALUE l 5 12 99\r\nEND\r\nVALUE x\r\nEND\r\n",
        "VALUE k 0 1\r\nv\r\nSERVER_ERROR out of memory writing get response\r\n",
        "VA 2\r\n\r\n\r\n",
        "VA 0 W kk\r\n\r\n",
        "HD t-1 O1\r\n",
        "17\r\n",
        "ERROR: shutdown not enabled\r\n",
        "ME k exp=-1 la=0\r\n",
        "VERSION 1.6.18\r\n",
    ];
    let stream = replies.concat();
    let mut at = 0;
    let expected: Vec<usize> = replies
        .iter()
        .map(|reply| {
            at += reply.len();
            at
        })
        .collect();
    for size in 1..=stream.len() {
        assert_eq!(ends(stream.as_bytes(), size), Ok(expected.clone()), "chunks of {size}");
    }
}

#[test]
fn what_is_no_reply_is_an_error() {
    let long = format!("STORED{}\r\n", "x".repeat(MEMCACHE_REPLY_LINE_BYTES_MAX));
    for (bytes, error) in [
        ("+OK\r\n", ReplyError::UnknownLine),
        ("\r\n", ReplyError::UnknownLine),
        (">3\r\n", ReplyError::UnknownLine),
        ("HTTP/1.1 400 Bad Request\r\n", ReplyError::UnknownLine),
        ("STORED it\r\n", ReplyError::UnknownLine),
        ("STAT pid 1\r\n", ReplyError::UnknownLine),
        ("12a\r\n", ReplyError::UnknownLine),
        ("END\n", ReplyError::MissingLineEnd),
        ("VALUE k 0\r\n", ReplyError::InvalidLength),
        ("VALUE k 0 x\r\n", ReplyError::InvalidLength),
        ("VALUE k 0 99999999999\r\n", ReplyError::InvalidLength),
        ("VA -1\r\n", ReplyError::InvalidLength),
        ("VALUE k 0 1\r\nvv\r\n", ReplyError::MissingLineEnd),
        ("VALUE k 0 1\r\nv\r\nSTORED\r\n", ReplyError::Interrupted),
        (&long, ReplyError::LineTooLong),
    ] {
        for size in [1, 7, bytes.len()] {
            assert_eq!(ends(bytes.as_bytes(), size), Err(error), "{bytes:?} by {size}");
        }
    }
}

#[test]
fn an_announced_length_allocates_nothing() {
    let mut scanner = ReplyScanner::default();
    assert_eq!(scanner.advance(b"VALUE k 0 4000000000\r\n"), Ok(ReplyScan::Incomplete));
    assert_eq!(scanner.announced_bytes_left(), 4_000_000_002);
    assert_eq!(scanner.held.capacity(), 0);
}

#[test]
fn blocks_of_values_are_told_apart() {
    let reply = b"VALUE a 0 3 7\r\nEND\r\nVALUE b 1 0\r\n\r\nEND\r\n";
    let (key, len) = value_block(reply).unwrap();
    assert_eq!((key, len), (&b"a"[..], 20));
    let (key, next) = value_block(&reply[len..]).unwrap();
    assert_eq!((key, next), (&b"b"[..], 15));
    assert_eq!(value_block(&reply[len + next..]), None);
    assert_eq!(value_block(b"VALUE a 0 3\r\nEN"), None);
}
