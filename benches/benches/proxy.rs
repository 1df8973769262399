//! What a request costs in the worker alone: no sockets, no kernel, both ends in memory.
//!
//! One iteration is one request. Only the calls into the worker are on the clock; the fake
//! servers that answer between them are not.
//!
//! `cargo bench -p ringkeeper-benches --bench proxy`
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]
#![allow(clippy::panic, clippy::expect_used, reason = "a bench may stop")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use criterion::{Criterion, criterion_group, criterion_main};
use ringkeeper_benches::data::{Frames, LARGE, MIXED, Protocol, SMALL, Space, key};
use ringkeeper_benches::load::{write_get, write_mget, write_set};
use ringkeeper_benches::servers::{Counts, answer_all};
use ringkeeper_benches::targets::pool;
use ringkeeper_core::config::nutcracker;
use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{Drive, Endpoint, Input, Output};
use ringkeeper_core::node::Worker;
use ringkeeper_core::proxy::{Plan, Policy};
use ringkeeper_core::time::Instant;

criterion_group!(proxy, requests);
criterion_main!(proxy);

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request in the worker");
    let get = |space: Space, number: u32, out: &mut Vec<u8>| {
        write_get(&key(space.letter, number % space.keys), out);
    };
    let frames = Frames::new();
    let set = |number: u32, out: &mut Vec<u8>| {
        let number = number % MIXED.keys;
        let frame = frames.frame(MIXED.letter, number).expect("a known space");
        write_set(&key(MIXED.letter, number), frame, out);
    };
    let kinds: [Kind<'_>; 5] = [
        ("50 clients, GET 64 B", 1, &|number, out| get(SMALL, number, out)),
        ("50 clients x 16, GET 64 B", 16, &|number, out| get(SMALL, number, out)),
        ("50 clients, GET 16 KiB", 1, &|number, out| get(LARGE, number, out)),
        ("50 clients, SET 16 B to 4 KiB", 1, &set),
        ("50 clients, MGET of 10", 1, &|number, out| {
            let numbers = [0u32, 1, 2, 3, 4, 5, 6, 7, 8, 9]
                .map(|at| number.wrapping_mul(10).wrapping_add(at * 7919) % SMALL.keys);
            write_mget(SMALL.letter, &numbers, out);
        }),
    ];
    for (name, depth, write) in kinds {
        let mut bench = Bench::new(50);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let (mut spent, mut done) = (Duration::ZERO, 0);
                while done < iterations {
                    spent += bench.turn(depth, write);
                    done += 50 * u64::from(depth);
                }
                // Whole turns were made, and are paid for by the requests asked for.
                spent.mul_f64(iterations as f64 / done as f64)
            });
        });
    }
    group.finish();
}

type Kind<'a> = (&'a str, u32, &'a dyn Fn(u32, &mut Vec<u8>));

/// A worker with clients and fake servers around it.
struct Bench {
    worker: Worker,
    clients: Vec<ConnId>,
    frames: Frames,
    numbers: u32,
    nanoseconds: u64,
    outputs: Vec<Output>,
    /// Per server connection: replies to hand in.
    replies: BTreeMap<ConnId, Vec<u8>>,
    /// Bytes that reached clients.
    delivered: u64,
}

impl Bench {
    fn new(clients: usize) -> Self {
        let at = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let text = pool(at(1), &[at(2), at(3)], Protocol::Resp);
        let parsed = nutcracker::parse("bench", &text);
        let config = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        let plan = Arc::new(Plan::new(&config, Policy::RINGKEEPER));
        let worker = Worker::new(plan, 1, Instant::default());
        let mut bench = Self {
            worker,
            clients: Vec::new(),
            frames: Frames::new(),
            numbers: 0,
            nanoseconds: 1,
            outputs: Vec::new(),
            replies: BTreeMap::new(),
            delivered: 0,
        };
        bench.settle();
        for _ in 0..clients {
            let now = bench.now();
            let client = bench.worker.accept(now, ListenerId(0), Endpoint::Tcp(at(4)));
            bench.clients.push(client.expect("there is room"));
        }
        bench
    }

    fn now(&mut self) -> Instant {
        self.nanoseconds += 1_000;
        Instant::from_duration(Duration::from_nanos(self.nanoseconds))
    }

    /// Every client sends `depth` requests and gets all its replies; returns the worker's time.
    fn turn(&mut self, depth: u32, write: &dyn Fn(u32, &mut Vec<u8>)) -> Duration {
        let mut requests = Vec::new();
        for _ in 0..self.clients.len() {
            let mut bytes = Vec::new();
            for _ in 0..depth {
                self.numbers = self.numbers.wrapping_add(7919);
                write(self.numbers, &mut bytes);
            }
            requests.push(bytes);
        }
        let now = self.now();
        let before = self.delivered;
        let begin = Clock::now();
        for (client, bytes) in self.clients.iter().zip(&requests) {
            self.worker.handle(now, Input::Received { conn: *client, bytes });
        }
        let spent = begin.elapsed() + self.settle();
        assert!(self.delivered > before, "no reply came");
        spent
    }

    /// Carries bytes between the worker and both sides until nothing moves.
    fn settle(&mut self) -> Duration {
        let mut spent = Duration::ZERO;
        loop {
            let now = self.now();
            let begin = Clock::now();
            while let Some(output) = self.worker.poll_output() {
                self.outputs.push(output);
            }
            spent += begin.elapsed();
            if self.outputs.is_empty() {
                return spent;
            }
            let mut inputs = Vec::new();
            for output in self.outputs.drain(..) {
                answer(&self.frames, output, &mut inputs, &mut self.replies, &mut self.delivered);
            }
            let begin = Clock::now();
            for input in inputs {
                self.worker.handle(now, input);
            }
            for (conn, bytes) in &self.replies {
                self.worker.handle(now, Input::Received { conn: *conn, bytes });
            }
            spent += begin.elapsed();
            self.replies.clear();
        }
    }
}

fn answer(
    frames: &Frames,
    output: Output,
    inputs: &mut Vec<Input<'static>>,
    replies: &mut BTreeMap<ConnId, Vec<u8>>,
    delivered: &mut u64,
) {
    match output {
        Output::Connect { conn, .. } => inputs.push(Input::Connected { conn, local: None }),
        Output::Transmit { conn, buffer } => {
            if conn.is_server() {
                let mut counts = Counts::default();
                let out = replies.entry(conn).or_default();
                let used = answer_all(frames, &buffer, out, &mut counts);
                assert!(used == buffer.len() && counts.faults == 0, "a wrong request");
            } else {
                *delivered += buffer.len() as u64;
            }
            inputs.push(Input::Sent { conn, buffer });
        }
        Output::Event(_) => {}
        other @ (Output::PauseRead(_)
        | Output::ResumeRead(_)
        | Output::Close { .. }
        | Output::Release { .. }
        | Output::EndWrite(_)
        | Output::Resolve { .. }
        | Output::Errand(_)
        | Output::Notice { .. }
        | Output::OpenChannel { .. }
        | Output::CloseChannel(_)
        | Output::Datagram { .. }) => panic!("not expected here: {other:?}"),
    }
}
