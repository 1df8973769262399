//! What a key costs on its way to a server, and what ejecting a server costs its worker.
//!
//! `cargo bench -p ringkeeper-benches --bench routing`
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::indexing_slicing, reason = "a bench may stop")]

use std::hint::black_box;
use std::num::NonZeroU32;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringkeeper_core::distribution::Distribution;
use ringkeeper_core::hash::Hash;
use ringkeeper_core::rng::Rng;
use ringkeeper_core::routing::{HashTag, RouteServer, RouteSpec, RouteTable};

criterion_group!(routing, hashes, routes, builds);
criterion_main!(routing);

/// One key of 16 bytes through each hash function.
fn hashes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hash");
    for hash in Hash::ALL {
        group.bench_function(hash.name(), |bencher| {
            bencher.iter(|| hash.hash(black_box(b"user:1000:avatar")));
        });
    }
    group.finish();
}

/// 4,096 different keys, so that neither the branches nor the lines of the cache are learnt.
fn routes(criterion: &mut Criterion) {
    let keys: Vec<Vec<u8>> =
        (0..4096).map(|key| format!("user:{:08}:name", key * 7919).into_bytes()).collect();
    let mut group = criterion.benchmark_group("route 4096 keys");
    for distribution in Distribution::ALL {
        for servers in [4, 40] {
            for (hash, tag) in [
                (Hash::Fnv1a_64, None),
                (Hash::Fnv1a_64, HashTag::parse("{}")),
                (Hash::Murmur, None),
            ] {
                let spec = RouteSpec { hash, hash_tag: tag, ..spec(distribution, servers) };
                let table = RouteTable::build(&spec, &vec![true; servers], 1);
                let mut rng = Rng::new(1);
                let tag = if tag.is_some() { " hash_tag" } else { "" };
                let name = format!("{} {}{tag}", distribution.name(), hash.name());
                group.bench_function(BenchmarkId::new(name, servers), |bencher| {
                    bencher.iter(|| {
                        for key in &keys {
                            black_box(table.route(black_box(key), &mut rng));
                        }
                    });
                });
            }
        }
    }
    group.finish();
}

/// What a worker does in its turn when a server is ejected or returns.
fn builds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    group.sample_size(20);
    for servers in [4, 40, 1000] {
        let spec = spec(Distribution::Ketama, servers);
        let live = vec![true; servers];
        group.bench_function(BenchmarkId::new("ketama", servers), |bencher| {
            bencher.iter(|| RouteTable::build(black_box(&spec), &live, 1));
        });
        let mut ejected = live.clone();
        ejected[servers / 2] = false;
        let all = RouteTable::build(&spec, &live, 1);
        let fewer = RouteTable::build(&spec, &ejected, 1);
        group.bench_function(BenchmarkId::new("ketama eject", servers), |bencher| {
            bencher.iter(|| all.rebuild(black_box(&spec), &ejected, 2));
        });
        group.bench_function(BenchmarkId::new("ketama return", servers), |bencher| {
            bencher.iter(|| fewer.rebuild(black_box(&spec), &live, 2));
        });
    }
    group.finish();
}

fn spec(distribution: Distribution, servers: usize) -> RouteSpec {
    let server =
        |number| RouteServer { name: format!("server{number:04}"), weight: NonZeroU32::MIN };
    RouteSpec {
        hash: Hash::Fnv1a_64,
        hash_tag: None,
        distribution,
        servers: (0..servers).map(server).collect(),
    }
}
