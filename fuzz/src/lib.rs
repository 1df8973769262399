//! Bodies of the fuzz targets: each takes any bytes and panics when a promise is broken.
//!
//! They are ordinary functions, so that stable builds compile them and the committed corpus is
//! replayed by `tests/replay.rs`. A body whose input has a first byte for the chunk size says so.
// A panic is how a body reports.
#![allow(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing)]

mod checked;
mod figures;
mod memcache;
mod nutcracker_yml;
mod sentinel;
mod vrrp;
pub mod worker;

use ringkeeper_core::command;
use ringkeeper_core::wire::resp::{
    ReplyError, ReplyScan, ReplyScanner, RequestError, RequestLimits, RequestScan, RequestScanner,
    array_elements, encode, encode_inline, is_error, parse_integer_reply,
};

/// What a target does with an input.
pub type Body = fn(&[u8]);

/// Every target, by the name of its directory in `corpus/`.
pub const TARGETS: &[(&str, Body)] = &[
    ("check_reply", check_reply),
    ("http", http),
    ("keepalived_conf", keepalived_conf),
    ("memcache_reply", memcache_reply),
    ("memcache_request", memcache_request),
    ("neighbour", neighbour),
    ("netlink", netlink),
    ("nutcracker_yml", nutcracker_yml),
    ("reply", reply),
    ("request", request),
    ("ringkeeper_yml", ringkeeper_yml),
    ("sentinel_answer", sentinel_answer),
    ("sentinel_conf", sentinel_conf),
    ("sentinel_hello", sentinel_hello),
    ("sentinel_info", sentinel_info),
    ("sentinel_machine", sentinel_machine),
    ("stats", stats),
    ("vrrp", vrrp),
    ("worker", worker),
    ("worker_memcache", worker_memcache),
];

/// The reader of `nutcracker.yml`: takes any bytes, points into the text, keeps passwords to
/// itself; what it accepts means the same when it is written as `ringkeeper.yml`.
pub fn nutcracker_yml(data: &[u8]) {
    nutcracker_yml::nutcracker_yml(data);
}

/// What checked servers answer: pages, Redis, Sentinels, names, echoes; the first byte is the chunk
/// size.
pub fn check_reply(data: &[u8]) {
    checked::check_reply(data);
}

/// The admin listener: HTTP requests, and the replies to them.
pub fn http(data: &[u8]) {
    figures::http(data);
}

/// Figures with any names and numbers, as they are shown.
pub fn stats(data: &[u8]) {
    figures::stats(data);
}

/// memcached's requests; the first byte is the chunk size.
pub fn memcache_request(data: &[u8]) {
    memcache::request(data);
}

/// memcached's replies; the first byte is the chunk size.
pub fn memcache_reply(data: &[u8]) {
    memcache::reply(data);
}

/// The reader of `ringkeeper.yml`, in the same way.
pub fn ringkeeper_yml(data: &[u8]) {
    nutcracker_yml::ringkeeper_yml(data);
}

/// The reader of `keepalived.conf`.
pub fn keepalived_conf(data: &[u8]) {
    vrrp::keepalived_conf(data);
}

/// Announcements of addresses: ARP and neighbour adverts.
pub fn neighbour(data: &[u8]) {
    vrrp::neighbours(data);
}

/// The kernel's answers about interfaces and addresses.
pub fn netlink(data: &[u8]) {
    vrrp::netlink(data);
}

/// Adverts of virtual routers, with their IP headers.
pub fn vrrp(data: &[u8]) {
    vrrp::adverts(data);
}

/// Answers of peers about a master that is down.
pub fn sentinel_answer(data: &[u8]) {
    sentinel::answer(data);
}

/// The reader and the writer of `sentinel.conf`.
pub fn sentinel_conf(data: &[u8]) {
    sentinel::conf(data);
}

/// Hellos of Sentinels.
pub fn sentinel_hello(data: &[u8]) {
    sentinel::hello(data);
}

/// INFO of servers, as a Sentinel reads it.
pub fn sentinel_info(data: &[u8]) {
    sentinel::info(data);
}

/// A whole Sentinel between servers, peers and clients that do what the input says.
pub fn sentinel_machine(data: &[u8]) {
    sentinel::machine(data);
}

/// A whole worker between clients and servers that do what the input says.
pub fn worker(data: &[u8]) {
    worker::worker(data);
}

/// The same with memcached's protocol on both sides.
pub fn worker_memcache(data: &[u8]) {
    worker::worker_memcache(data);
}

/// Requests: cuts change nothing; whatever is forwarded byte by byte is what our own encoder
/// writes for the same arguments; the command table takes any arguments.
///
/// The first byte is the chunk size.
pub fn request(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    for limits in [RequestLimits::AUTHENTICATED, RequestLimits::UNAUTHENTICATED] {
        let whole = requests(bytes, bytes.len(), &limits);
        assert_eq!(requests(bytes, usize::from(size), &limits), whole);
    }
}

/// Replies: cuts change nothing; an array's elements fill it.
///
/// The first byte is the chunk size.
pub fn reply(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let whole = replies(bytes, bytes.len());
    assert_eq!(replies(bytes, usize::from(size)), whole);
    let mut start = 0;
    for end in whole.0 {
        let frame = &bytes[start..end];
        start = end;
        parse_integer_reply(frame);
        is_error(frame);
        let Some(elements) = array_elements(frame) else { continue };
        let announced = elements.announced();
        let (mut count, mut len) = (0, 0);
        for element in elements {
            count += 1;
            len += element.len();
        }
        let head = frame.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert_eq!((count, head + len), (announced, frame.len()));
    }
    // Not frames, but no reason to panic either.
    parse_integer_reply(bytes);
    if let Some(elements) = array_elements(bytes) {
        elements.for_each(drop);
    }
}

fn requests(
    bytes: &[u8],
    size: usize,
    limits: &RequestLimits,
) -> (Vec<(RequestScan, usize)>, Option<RequestError>) {
    let mut found = Vec::new();
    let mut scanner = RequestScanner::default();
    let mut args = Vec::new();
    let (mut start, mut received) = (0, 0);
    while received < bytes.len() {
        received = bytes.len().min(received + size.max(1));
        while start < received {
            let buf = &bytes[start..received];
            let scan = match scanner.scan(buf, limits, &mut args) {
                Ok(scan) => scan,
                Err(error) => return (found, Some(error)),
            };
            let len = match scan {
                RequestScan::Incomplete => break,
                RequestScan::Complete { len } => {
                    check_request(&buf[..len], &args);
                    len
                }
                RequestScan::Inline { len, line_len } => {
                    check_inline(&buf[..line_len]);
                    len
                }
                RequestScan::Empty { len } => len,
            };
            assert!(len > 0 && len <= buf.len() && !scanner.is_started());
            found.push((scan, args.len()));
            start += len;
        }
    }
    (found, None)
}

fn check_request(frame: &[u8], args: &[ringkeeper_core::wire::resp::Span]) {
    let values: Vec<&[u8]> = args.iter().map(|arg| arg.of(frame)).collect();
    let mut encoded = Vec::new();
    encode::request(&mut encoded, &values);
    assert_eq!(encoded, frame);
    let mut keys = Vec::new();
    let Some(found) = command::lookup(values[0]) else {
        command::encode_unknown(frame, args, &mut encoded);
        return;
    };
    // Whether or not the number of arguments is right.
    if command::keys(found, frame, args, &mut keys).is_ok() {
        assert!(keys.iter().all(|key| args.contains(key)));
    }
    found.single_key(args);
}

fn check_inline(line: &[u8]) {
    let mut out = Vec::new();
    let Ok(count) = encode_inline(line, &mut out) else {
        assert!(out.is_empty());
        return;
    };
    let mut args = Vec::new();
    let scan = RequestScanner::default().scan(&out, &RequestLimits::AUTHENTICATED, &mut args);
    assert_eq!(scan, Ok(RequestScan::Complete { len: out.len() }));
    assert_eq!(args.len(), count);
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
