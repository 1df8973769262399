//! Random work on several connections at once, compared with a model: every reply is the one that
//! a single Redis server would give, however the bytes are cut and whoever leaves in the middle.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use support::lab::{Proxy, Redis, Runtime};
use support::resp::{Client, Place, Reply, request};

on_every_runtime!(random_work_gets_the_replies_of_one_server);

const CONNECTIONS: u64 = 8;
const KEYS: u64 = 12;
const VALUE_BYTES_MAX: u64 = 70_000;
const PIPELINE_MAX: u64 = 40;
const TIME: Duration = Duration::from_millis(2500);

/// xorshift64*: enough to choose from.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn size(&mut self, bound: u64) -> usize {
        usize::try_from(self.below(bound)).unwrap()
    }
}

/// What one connection's keys hold.
#[derive(Default)]
struct Model(BTreeMap<String, Vec<u8>>);

impl Model {
    fn value(&self, key: &str) -> Reply {
        self.0.get(key).map_or(Reply::Null, Reply::bulk)
    }

    /// Makes up a command; returns it with the reply that is due.
    fn step(&mut self, random: &mut Random, prefix: &str) -> (Vec<u8>, Reply) {
        let key = |random: &mut Random| format!("{prefix}:{}", random.below(KEYS));
        let one = key(random);
        match random.below(10) {
            0..=3 => {
                // Small ones are the rule, as in life; some are numbers.
                let value = match random.below(4) {
                    0 => random.below(1000).to_string().into_bytes(),
                    1 => {
                        let fill = u8::try_from(random.below(256)).unwrap();
                        vec![fill; random.size(VALUE_BYTES_MAX + 1)]
                    }
                    _ => b"\r\n$5\r\n"[..random.size(7)].repeat(random.size(20)),
                };
                let command = request(&[b"SET".as_slice(), one.as_bytes(), &value]);
                self.0.insert(one, value);
                (command, Reply::ok())
            }
            4 | 5 => (request(&["GET", &one]), self.value(&one)),
            6 => {
                let counter = format!("{prefix}:counter");
                let old = self
                    .0
                    .get(&counter)
                    .map_or(0, |value| String::from_utf8_lossy(value).parse::<i64>().unwrap());
                self.0.insert(counter.clone(), (old + 1).to_string().into_bytes());
                (request(&["INCR", &counter]), Reply::Integer(old + 1))
            }
            7 => {
                let mut words = vec!["DEL".to_owned(), one];
                words.extend((0..random.below(4)).map(|_| key(random)));
                let gone = words[1..].iter().filter(|key| self.0.remove(*key).is_some()).count();
                (request(&words), Reply::Integer(i64::try_from(gone).unwrap()))
            }
            _ => {
                let mut words = vec!["MGET".to_owned(), one];
                words.extend((0..random.below(8)).map(|_| key(random)));
                let values = words[1..].iter().map(|key| self.value(key)).collect();
                (request(&words), Reply::Array(values))
            }
        }
    }
}

/// Cuts the bytes where nobody expects it, in a bounded number of pieces.
fn send_in_pieces(
    stream: &mut TcpStream,
    bytes: &[u8],
    random: &mut Random,
) -> std::io::Result<()> {
    let mut rest = bytes;
    for _ in 0..random.below(30) {
        let most = if random.below(2) == 0 { 20 } else { 30_000 };
        let (piece, after) = rest.split_at((1 + random.size(most)).min(rest.len()));
        stream.write_all(piece)?;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    stream.write_all(rest)
}

/// Works until the time is up; returns the number of replies compared.
fn work(place: &Place, number: u64, seed: u64) -> u64 {
    let mut random = Random(seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let Place::Tcp(at) = place else { panic!("listens on TCP") };
    let end = Instant::now() + TIME;
    let mut compared = 0;
    let mut life = 0;
    while Instant::now() < end {
        // Keys of a connection that broke off are never looked at again: what it had sent may or
        // may not have been done.
        let prefix = format!("{number}:{life}");
        let mut model = Model::default();
        life += 1;
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Client::from_stream(stream.try_clone().unwrap());
        while Instant::now() < end {
            let (mut bytes, mut due) = (Vec::new(), Vec::new());
            for _ in 0..1 + random.below(PIPELINE_MAX) {
                let (command, reply) = model.step(&mut random, &prefix);
                bytes.extend(command);
                due.push(reply);
            }
            if random.below(20) == 0 {
                // Leaves in the middle of a request.
                let cut = random.size(bytes.len() as u64);
                let _ = send_in_pieces(&mut stream, &bytes[..cut], &mut random);
                break;
            }
            // Replies are read while requests are still being sent.
            thread::scope(|scope| {
                let (stream, random) = (&mut stream, &mut random);
                let sending = scope.spawn(move || send_in_pieces(stream, &bytes, random));
                for reply in &due {
                    let got = client.reply().unwrap_or_else(|error| {
                        panic!("no reply on connection {number}, seed {seed:#x}: {error}")
                    });
                    assert!(got == *reply, "{got:?} is not {reply:?}; seed {seed:#x}");
                    compared += 1;
                }
                sending.join().unwrap().unwrap();
            });
        }
    }
    compared
}

fn random_work_gets_the_replies_of_one_server(runtime: Runtime) {
    need!("redis-server");
    let servers = [Redis::start(), Redis::start(), Redis::start()];
    let lines: Vec<String> =
        servers.iter().enumerate().map(|(at, server)| server.line(&format!("s{at}"))).collect();
    let pool = format!(
        "  redis: true\n  timeout: 10000\n  server_connections: 2\n  servers:\n{}",
        lines.join("\n")
    );
    let proxy = Proxy::start(runtime, &pool);
    let seed = std::env::var("RINGKEEPER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_micros() as u64
    });
    eprintln!("RINGKEEPER_SEED={seed}");
    let place = &proxy.place;
    let compared: u64 = thread::scope(|scope| {
        let working: Vec<_> =
            (0..CONNECTIONS).map(|number| scope.spawn(move || work(place, number, seed))).collect();
        working.into_iter().map(|working| working.join().unwrap()).sum()
    });
    assert!(compared > 500, "{compared} replies");
    let stats = proxy.stats();
    assert_eq!(stats["alpha"]["forward_error"], 0, "{stats}");
}
