//! What finding the end of a request or of a reply costs.
//!
//! `cargo bench -p ringkeeper-benches --bench scan`
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::indexing_slicing, clippy::panic, reason = "a bench may stop")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringkeeper_benches::data::{Frames, LARGE, SMALL, key};
use ringkeeper_benches::load::{write_get, write_mget, write_set};
use ringkeeper_core::wire::resp::{
    ReplyScan, ReplyScanner, RequestLimits, RequestScan, RequestScanner,
};

criterion_group!(scan, requests, replies);
criterion_main!(scan);

/// A name, and what writes the frame with this number.
type Kind<'a> = (&'a str, &'a dyn Fn(u32, &mut Vec<u8>));

/// Frames of each kind in one buffer.
const COUNT: u32 = 64;

fn requests(criterion: &mut Criterion) {
    let frames = Frames::new();
    let small = frames.frame(SMALL.letter, 0).unwrap_or_else(|| panic!("a known space"));
    let mut group = criterion.benchmark_group("scan 64 requests");
    group.throughput(Throughput::Elements(u64::from(COUNT)));
    let kinds: [Kind<'_>; 3] = [
        ("GET", &|number, out| write_get(&key(SMALL.letter, number), out)),
        ("SET 64 B", &|number, out| write_set(&key(SMALL.letter, number), small, out)),
        ("MGET of 10", &|number, out| {
            let numbers: Vec<u32> = (number..number + 10).collect();
            write_mget(SMALL.letter, &numbers, out);
        }),
    ];
    for (name, write) in kinds {
        let mut bytes = Vec::new();
        (0..COUNT).for_each(|number| write(number, &mut bytes));
        group.bench_function(name, |bencher| {
            let mut scanner = RequestScanner::default();
            let mut args = Vec::new();
            bencher.iter(|| {
                let mut rest = black_box(bytes.as_slice());
                while !rest.is_empty() {
                    let seen = scanner.scan(rest, &RequestLimits::AUTHENTICATED, &mut args);
                    let Ok(RequestScan::Complete { len }) = seen else { panic!("{seen:?}") };
                    black_box(&args);
                    rest = &rest[len..];
                }
            });
        });
    }
    group.finish();
}

fn replies(criterion: &mut Criterion) {
    let frames = Frames::new();
    let mut group = criterion.benchmark_group("scan 64 replies");
    group.throughput(Throughput::Elements(u64::from(COUNT)));
    let value = |letter: u8, number: u32, out: &mut Vec<u8>| {
        let frame = frames.frame(letter, number).unwrap_or_else(|| panic!("a known space"));
        frame.write(&key(letter, number), out);
    };
    let kinds: [Kind<'_>; 4] = [
        ("OK", &|_, out| out.extend_from_slice(b"+OK\r\n")),
        ("64 B", &|number, out| value(SMALL.letter, number, out)),
        ("16 KiB", &|number, out| value(LARGE.letter, number, out)),
        ("array of 10 x 64 B", &|number, out| {
            out.extend_from_slice(b"*10\r\n");
            (number..number + 10).for_each(|number| value(SMALL.letter, number, out));
        }),
    ];
    for (name, write) in kinds {
        let mut bytes = Vec::new();
        (0..COUNT).for_each(|number| write(number, &mut bytes));
        group.bench_function(name, |bencher| {
            let mut scanner = ReplyScanner::default();
            bencher.iter(|| {
                let mut rest = black_box(bytes.as_slice());
                while !rest.is_empty() {
                    let seen = scanner.advance(rest);
                    let Ok(ReplyScan::Complete { len }) = seen else { panic!("{seen:?}") };
                    rest = &rest[len..];
                }
            });
        });
    }
    group.finish();
}
