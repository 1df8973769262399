//! What the scanners and the command table cost per frame.
#![allow(missing_docs, reason = "the macros of criterion write undocumented functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringkeeper_core::command;
use ringkeeper_core::wire::resp::{ReplyScanner, RequestLimits, RequestScanner, encode};

fn scan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    for (name, args) in [
        ("get", &[&b"GET"[..], b"key:000000001234"][..]),
        ("set64", &[b"SET", b"key:000000001234", &[b'x'; 64]]),
        ("mget10", &[b"MGET", b"k0", b"k1", b"k2", b"k3", b"k4", b"k5", b"k6", b"k7", b"k8"]),
    ] {
        let mut frame = Vec::new();
        encode::request(&mut frame, args);
        let mut scanner = RequestScanner::default();
        let mut spans = Vec::new();
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                scanner.scan(black_box(&frame), &RequestLimits::AUTHENTICATED, &mut spans)
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("reply");
    for (name, frame) in [
        ("ok", &b"+OK\r\n"[..]),
        ("integer", b":1\r\n"),
        ("null", b"$-1\r\n"),
        ("bulk12", b"$12\r\nabcdefghijkl\r\n"),
        ("array3", b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$-1\r\n"),
    ] {
        let mut scanner = ReplyScanner::default();
        group.bench_function(name, |bencher| {
            bencher.iter(|| scanner.advance(black_box(frame)));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("lookup");
    for name in ["get", "SET", "hgetall", "ZRANGEBYSCORE", "georadiusbymember_ro", "nosuch"] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| command::lookup(black_box(name.as_bytes())));
        });
    }
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
