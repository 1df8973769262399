use super::*;

const LIMITS: RequestLimits = RequestLimits { bytes_max: 4096, takes_control: false };

/// What a stream of requests is for its reader: for each the words and the value, or the error.
fn read(bytes: &[u8], size: usize) -> (Vec<String>, Option<RequestError>) {
    let mut scanner = RequestScanner::default();
    let (mut found, mut words) = (Vec::new(), Vec::new());
    let (mut start, mut received) = (0, 0);
    while received < bytes.len() {
        received = bytes.len().min(received + size);
        while start < received {
            let buf = &bytes[start..received];
            start += match scanner.scan(buf, &LIMITS, &mut words) {
                Ok(RequestScan::Incomplete) => break,
                Ok(RequestScan::Complete { len, request }) => {
                    let mut text = Vec::new();
                    request.encode(&buf[..len], &words, &mut text);
                    assert_eq!(request.is_canonical, text == buf[..len], "{request:?}");
                    let mut text = String::from_utf8_lossy(&text).replace("\r\n", "|");
                    if request.is_noreply {
                        text += "silent";
                    }
                    found.push(text);
                    len
                }
                Ok(RequestScan::Refused { len, error, is_silent }) => {
                    found.push(format!("{error:?}{}", if is_silent { " silent" } else { "" }));
                    len
                }
                Ok(RequestScan::Skipped { len }) => len,
                Err(error) => return (found, Some(error)),
            };
        }
    }
    (found, None)
}

/// Reads `bytes` whole and in every other way.
fn read_all_ways(bytes: &[u8]) -> (Vec<String>, Option<RequestError>) {
    let whole = read(bytes, bytes.len());
    for size in 1..bytes.len().min(100) {
        assert_eq!(read(bytes, size), whole, "chunks of {size}");
    }
    whole
}

fn assert_reads(bytes: &str, expected: &[&str]) {
    let (found, error) = read_all_ways(bytes.as_bytes());
    assert_eq!(found, expected, "{bytes:?}");
    assert_eq!(error, None, "{bytes:?}");
}

#[test]
fn every_command_is_taken_apart_however_it_is_cut() {
    assert_reads("get k\r\ngets a b c\r\n", &["get k|", "gets a b c|"]);
    assert_reads("gat 0 k\r\ngats -1 a b\r\n", &["gat 0 k|", "gats -1 a b|"]);
    assert_reads("set k 0 0 3\r\nabc\r\nget k\r\n", &["set k 0 0 3|abc|", "get k|"]);
    assert_reads("set k 0 -1 0\r\n\r\n", &["set k 0 -1 0||"]);
    assert_reads("add k 4294967295 5 2\r\n\r\n\r\n", &["add k 4294967295 5 2|||"]);
    assert_reads(
        "cas k 0 0 1 18446744073709551615\r\nx\r\n",
        &["cas k 0 0 1 18446744073709551615|x|"],
    );
    assert_reads("append k 0 0 1 noreply\r\nx\r\n", &["append k 0 0 1|x|silent"]);
    assert_reads("cas k 0 0 1 7 noreply\r\nx\r\n", &["cas k 0 0 1 7|x|silent"]);
    assert_reads("incr k 1\r\ndecr k 1 noreply\r\n", &["incr k 1|", "decr k 1|silent"]);
    assert_reads("delete k\r\ndelete k 0\r\n", &["delete k|", "delete k 0|"]);
    assert_reads(
        "delete k noreply\r\ndelete k 0 noreply\r\n",
        &["delete k|silent", "delete k 0|silent"],
    );
    assert_reads("touch k -1\r\n", &["touch k -1|"]);
    assert_reads("mg k v\r\nmn\r\nms k 2 q\r\nab\r\n", &["mg k v|", "mn|", "ms k 2 q|ab|"]);
    assert_reads(
        "flush_all\r\nflush_all 10\r\nflush_all noreply\r\n",
        &["flush_all|", "flush_all 10|", "flush_all|silent"],
    );
    assert_reads(
        "verbosity 1\r\nversion\r\nstats\r\nquit\r\n",
        &["verbosity 1|", "version|", "stats|", "quit|"],
    );
}

#[test]
fn a_request_has_one_form_whatever_its_spaces_and_line_ends() {
    assert_reads("  get   a  b \r\nget k\n", &["get a b|", "get k|"]);
    assert_reads("set  k 0 0 1\nx\r\n", &["set k 0 0 1|x|"]);
    assert_reads("get noreply\r\n", &["get noreply|"]);
    assert_reads("delete noreply\r\n", &["delete noreply|"]);
}

#[test]
fn a_bad_line_is_refused_and_the_next_is_read() {
    let long = "k".repeat(251);
    for (line, error) in [
        ("", "Unknown"),
        (" ", "Unknown"),
        ("GET k", "Unknown"),
        ("get", "Unknown"),
        ("gat 0", "Unknown"),
        ("gat x k", "BadTime"),
        ("set k", "Unknown"),
        ("set k 0 0", "Unknown"),
        ("set k 0 0 x", "BadFormat"),
        ("set k 0 0 -1", "BadFormat"),
        ("set k 0 0 2147483647", "BadFormat"),
        ("incr k", "Unknown"),
        ("incr k 1 2", "Unknown"),
        ("touch k", "Unknown"),
        ("delete", "Unknown"),
        ("delete k 0 0", "Unknown"),
        ("flush_all x", "BadTime"),
        ("flush_all 1 2", "Unknown"),
        ("verbosity", "Unknown"),
        ("verbosity x noreply", "BadFormat silent"),
        ("mg", "Unknown"),
        ("ms k", "BadFormat"),
        ("ms k S2", "BadFormat"),
        ("slabs reassign 1 2", "Admin"),
        ("bogus", "Unknown"),
        ("get a\tb", "BadFormat"),
        ("get a\0b", "BadFormat"),
        ("get a\rb", "BadFormat"),
        ("get a\x7fb", "BadFormat"),
        (&format!("get {long}"), "BadFormat"),
        (&format!("incr {long} 1 noreply"), "BadFormat silent"),
        (&format!("mg {long}"), "BadFormat"),
        (&format!("mg k{}", " O1".repeat(18)), "TooManyFlags"),
    ] {
        assert_reads(&format!("{line}\r\nget k\r\n"), &[error, "get k|"]);
    }
}

#[test]
fn nothing_reaches_a_server_that_it_would_not_answer() {
    for line in [
        "incr k noreply",
        "incr k noreply noreply",
        "touch k noreply",
        "delete k noreply noreply",
        "delete k 0 noreply",
        "flush_all noreply noreply",
        "verbosity noreply",
        "set k 0 0 1 noreply noreply\r\nx",
        "cas k 0 0 1 noreply\r\nx",
    ] {
        let (found, _) = read_all_ways(format!("{line}\r\n").as_bytes());
        let [found] = found.as_slice() else { panic!("{line}: {found:?}") };
        let sent = found.split('|').next().unwrap_or_default();
        assert!(!sent.ends_with("noreply"), "{line} becomes {found}");
    }
}

#[test]
fn the_value_of_a_bad_line_is_passed_over() {
    let long = "k".repeat(251);
    for (line, error) in [
        ("set k x 0 5", "BadFormat"),
        ("set k -1 0 5", "BadFormat"),
        ("set k 4294967296 0 5", "BadFormat"),
        ("set k 0 x 5", "BadFormat"),
        ("set k 0 2147483648 5 noreply", "BadFormat silent"),
        ("set k 0 0 5 other", "Unknown"),
        ("set k 0 0 5 noreply other", "Unknown"),
        ("cas k 0 0 5", "Unknown"),
        ("cas k 0 0 5 x", "BadFormat"),
        ("set \u{7f} 0 0 5", "BadFormat"),
        (&format!("set {long} 0 0 5"), "BadFormat"),
        (&format!("ms {long} 5"), "BadFormat"),
        (&format!("ms k 5{}", " O1".repeat(17)), "TooManyFlags"),
    ] {
        // A value that would be two lines for whoever takes it for commands.
        assert_reads(&format!("{line}\r\nget\r\n\r\nget k\r\n"), &[error, "get k|"]);
    }
}

#[test]
fn a_value_of_another_length_is_passed_over_to_the_end_of_its_line() {
    assert_reads("set k 0 0 3\r\nabcdef\r\nget k\r\n", &["BadChunk", "get k|"]);
    assert_reads("set k 0 0 3 noreply\r\nabcdef\r\nget k\r\n", &["BadChunk silent", "get k|"]);
    assert_reads("set k 0 0 6\r\nabc\r\nget k\r\nget l\r\n", &["BadChunk", "get l|"]);
}

#[test]
fn a_value_above_the_limit_is_passed_over() {
    let value = "x\n".repeat(3000);
    let text = format!("set k 0 0 6000\r\n{value}\r\nget k\r\n");
    assert_reads(&text, &["TooLarge", "get k|"]);
    let text = format!("ms k 6000 q\r\n{value}\r\nget k\r\n");
    assert_reads(&text, &["TooLarge", "get k|"]);
    let text = format!("set k 0 0 6000 noreply\r\n{value}\r\nget k\r\n");
    assert_reads(&text, &["TooLarge silent", "get k|"]);
}

#[test]
fn control_characters_are_taken_where_they_are_wanted() {
    let limits = RequestLimits { takes_control: true, ..LIMITS };
    let mut words = Vec::new();
    let mut scan = |bytes: &[u8]| RequestScanner::default().scan(bytes, &limits, &mut words);
    assert!(matches!(scan(b"get a\x01\tb\r\n"), Ok(RequestScan::Complete { len: 10, .. })));
    for bytes in [&b"get a\0b\r\n"[..], b"get a\rb\r\n"] {
        assert!(matches!(scan(bytes), Ok(RequestScan::Refused { .. })), "{bytes:?}");
    }
}

#[test]
fn only_lines_of_keys_may_be_long() {
    let keys = " key".repeat(600);
    assert_reads(&format!("get{keys}\r\n"), &[&format!("get{keys}|")]);
    assert_reads(&format!("gat 0{keys}\r\n"), &[&format!("gat 0{keys}|")]);
    for line in [format!("mg{keys}"), format!("  get{keys}"), "x".repeat(2047), "x".repeat(3000)] {
        let (found, error) = read_all_ways(format!("{line}\r\n").as_bytes());
        assert_eq!((found, error), (Vec::new(), Some(RequestError::LineTooLong)), "{line}");
    }
    let keys = " key".repeat(1100);
    let (_, error) = read_all_ways(format!("get{keys}\r\n").as_bytes());
    assert_eq!(error, Some(RequestError::LineTooLong));
}

#[test]
fn other_protocols_are_recognized() {
    for (bytes, error) in [
        (&b"\x80\x00\x00\x00"[..], RequestError::Binary),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", RequestError::CrossProtocol),
        (b"Host: x\r\n", RequestError::CrossProtocol),
    ] {
        assert_eq!(read_all_ways(bytes), (Vec::new(), Some(error)));
    }
}

#[test]
fn a_value_is_neither_searched_nor_allocated_for() {
    let mut scanner = RequestScanner::default();
    let mut words = Vec::new();
    let limits = RequestLimits { bytes_max: 1 << 30, ..LIMITS };
    let head = b"set k 0 0 1000000000\r\n";
    assert_eq!(scanner.scan(head, &limits, &mut words), Ok(RequestScan::Incomplete));
    assert!(words.capacity() < 16);
    assert!(scanner.is_started());
}
