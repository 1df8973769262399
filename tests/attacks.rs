//! While somebody attacks, everybody else is served: no error, no wrong reply, no memory lost.
//!
//! The inputs are those that made twemproxy 0.5.0 fail other clients' commands, grow without
//! bound or hang.
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

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use support::eventually;
use support::fake::{Fake, Step, Words};
use support::lab::{Kind, Proxy, Redis, Runtime};
use support::resp::{Client, Place, Reply, request};
use support::victim::Victim;

on_every_runtime!(
    bytes_that_are_no_request_harm_nobody,
    requests_that_never_end_harm_nobody,
    thousands_of_idle_clients_harm_nobody,
    clients_that_leave_before_their_replies_harm_nobody,
    a_client_that_does_not_read_costs_bounded_memory,
    servers_that_answer_strangely_harm_their_own_requests_only,
    late_replies_reach_nobody_else,
);

const MIB: u64 = 1024 * 1024;

/// Two Redis servers and the proxy in front of them.
struct Arena {
    _servers: [Redis; 2],
    proxy: Proxy,
}

impl Arena {
    fn start(kind: Kind) -> Self {
        let servers = [Redis::start(), Redis::start()];
        let text = format!(
            "  redis: true\n  timeout: 5000\n  auto_eject_hosts: true\n  servers:\n{}\n{}",
            servers[0].line("one"),
            servers[1].line("two")
        );
        let proxy = Proxy::start_as(kind, &text);
        Self { _servers: servers, proxy }
    }
}

fn bytes_that_are_no_request_harm_nobody(runtime: Runtime) {
    need!("redis-server");
    let get = request(&["GET", "k"]);
    let post = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n*1\r\n$8\r\nFLUSHALL\r\n".repeat(20);
    let frames: Vec<Vec<u8>> = vec![
        b"*2\r\n$03\r\nGET\r\n$01\r\nk\r\n".to_vec(),
        b"*02\r\n$3\r\nGET\r\n$1\r\nk\r\n".to_vec(),
        b"*+2\r\n$3\r\nGET\r\n$1\r\nk\r\n".to_vec(),
        b"*4294967298\r\n$3\r\nGET\r\n$1\r\nk\r\n".to_vec(),
        b"*2\r\n$3\r\nGET\r\n$4294967297\r\nk\r\n".to_vec(),
        b"*2\r\n$3\r\nGET\r\n$18446744073709551617\r\nk\r\n".to_vec(),
        b"*2147483647\r\n$3\r\nGET\r\n$1\r\nk\r\n".to_vec(),
        b"*-1\r\n".to_vec(),
        b"*2\r\n$3\r\nGET\r\n$-1\r\n".to_vec(),
        b"*2\n$3\nGET\n$1\nk\n".to_vec(),
        b"*2\r\n$3\r\nGET\r\n$1\r\nkk\r\n".to_vec(),
        b"\n\n\n\n".to_vec(),
        b"\x00\xff\xfe\r\n\x01*$+-:".repeat(30),
        post,
        [b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n".as_slice(), &get].concat(),
    ];
    for kind in [Kind::Ringkeeper(runtime), Kind::Nutcracker(runtime)] {
        let arena = Arena::start(kind);
        let victim = Victim::start(&arena.proxy.place, "victim");
        for frame in &frames {
            let end = Instant::now() + Duration::from_millis(100);
            let mut attacks = 0;
            while Instant::now() < end || attacks == 0 {
                let mut client = arena.proxy.client();
                // Good requests around it, so that it travels with them where it can.
                let _ = client.send(&[get.as_slice(), frame, &get].concat());
                client.end_sending();
                let _ = client.all_within(Duration::from_millis(20));
                attacks += 1;
            }
        }
        victim.finish();
        let stats = arena.proxy.stats();
        for server in ["one", "two"] {
            let figures = &stats["alpha"][server];
            for name in ["server_err", "server_eof", "server_timedout", "server_ejected_at"] {
                assert_eq!(figures[name], 0, "{server} {name}: it saw a bad request");
            }
        }
        assert_eq!(arena.proxy.client().ask(&["SET", "k", "v"]), Reply::ok());
    }
}

fn requests_that_never_end_harm_nobody(runtime: Runtime) {
    need!("redis-server");
    let arena = Arena::start(Kind::Ringkeeper(runtime));
    let victim = Victim::start(&arena.proxy.place, "victim");
    let base = arena.proxy.resident_bytes();

    let halves: Vec<Client> = (0..500)
        .map(|number| {
            let mut client = arena.proxy.client();
            let whole = request(&["SET", "half", "of a request"]);
            client.send(&whole[..1 + number % (whole.len() - 1)]).unwrap();
            client
        })
        .collect();

    // Larger than a request may be: refused by its announcement.
    let mut greedy = arena.proxy.client();
    greedy.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$104857600\r\n").unwrap();
    let answer = greedy.all_within(Duration::from_secs(10));
    assert!(answer.starts_with("-ERR "), "{answer}");
    assert!(answer.ends_with('>'), "{answer}");

    // As large as it may be, and never finished: kept, and given back when the client leaves.
    let mut large = arena.proxy.client();
    large.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$62914560\r\n").unwrap();
    let chunk = vec![b'x'; MIB as usize];
    for _ in 0..50 {
        large.send(&chunk).unwrap();
    }
    let grown = arena.proxy.resident_bytes().saturating_sub(base);
    assert!(grown < 150 * MIB, "{} MiB for a request of 60", grown / MIB);
    drop((large, halves));
    eventually("the memory is given back", || {
        let now = arena.proxy.resident_bytes().saturating_sub(base);
        (now < 8 * MIB).then_some(())
    });
    victim.finish();
}

fn thousands_of_idle_clients_harm_nobody(runtime: Runtime) {
    need!("redis-server");
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let most = limit.maximum.unwrap_or(u64::MAX);
    // Both runtimes' tests may run at once in this process.
    let count = 5000.min(most.saturating_sub(1000) / 3);
    if count < 5000 {
        eprintln!("only {count} idle clients: the limit of descriptors is {most}");
    }
    let arena = Arena::start(Kind::Ringkeeper(runtime));
    let victim = Victim::start(&arena.proxy.place, "victim");
    let base = arena.proxy.resident_bytes();
    let Place::Tcp(at) = arena.proxy.place else { panic!("listens on TCP") };
    let idle: Vec<TcpStream> = (0..count).map(|_| TcpStream::connect(at).unwrap()).collect();
    eventually("all are taken in", || {
        let stats = arena.proxy.stats();
        (stats["alpha"]["client_connections"].as_u64() > Some(count)).then_some(())
    });
    let each = arena.proxy.resident_bytes().saturating_sub(base) / count.max(1);
    assert!(each < 4096, "{each} bytes for an idle client");
    drop(idle);
    eventually("all have left", || {
        let stats = arena.proxy.stats();
        (stats["alpha"]["client_connections"] == 1).then_some(())
    });
    victim.finish();
}

fn clients_that_leave_before_their_replies_harm_nobody(runtime: Runtime) {
    need!("redis-server");
    let arena = Arena::start(Kind::Ringkeeper(runtime));
    let mut client = arena.proxy.client();
    for number in 0..8 {
        let value = vec![b'x'; 100_000];
        let key = format!("big:{number}").into_bytes();
        assert_eq!(client.ask(&[b"SET".to_vec(), key, value]), Reply::ok());
    }
    let victim = Victim::start(&arena.proxy.place, "victim");
    let base = arena.proxy.resident_bytes();
    let mget: Vec<String> =
        ["MGET".to_owned()].into_iter().chain((0..8).map(|n| format!("big:{n}"))).collect();
    let gets: Vec<u8> =
        (0..64).flat_map(|n| request(&["GET", &format!("big:{}", n % 8)])).collect();
    let requests = [gets, request(&mget), request(&["INCR", "count"])].concat();
    let end = Instant::now() + Duration::from_secs(1);
    let mut rounds = 0;
    while Instant::now() < end || rounds < 10 {
        let mut client = arena.proxy.client();
        client.send(&requests).unwrap();
        if rounds % 2 == 0 {
            // Half-way through a reply.
            let _ = client.reply();
        }
        drop(client);
        rounds += 1;
    }
    victim.finish();
    eventually("the memory is given back", || {
        let now = arena.proxy.resident_bytes().saturating_sub(base);
        (now < 16 * MIB).then_some(())
    });
}

fn a_client_that_does_not_read_costs_bounded_memory(runtime: Runtime) {
    need!("redis-server");
    const GETS: usize = 300;
    let arena = Arena::start(Kind::Ringkeeper(runtime));
    let value = vec![b'x'; MIB as usize];
    let mut reader = arena.proxy.client();
    assert_eq!(reader.ask(&[b"SET".as_slice(), b"big", &value]), Reply::ok());
    assert_eq!(reader.ask(&["GET", "big"]), Reply::bulk(&value));
    let victim = Victim::start(&arena.proxy.place, "victim");
    let base = arena.proxy.resident_bytes();

    let mut stalled = arena.proxy.client();
    stalled.send(&request(&["GET", "big"]).repeat(GETS)).unwrap();
    let mut most = 0;
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        most = most.max(arena.proxy.resident_bytes());
        thread::sleep(Duration::from_millis(10));
    }
    let grown = most.saturating_sub(base);
    assert!(grown <= 24 * MIB, "grew by {} MiB", grown / MIB);

    // Who reads, gets all, beside the one that does not.
    reader.send(&request(&["GET", "big"]).repeat(GETS)).unwrap();
    for number in 0..GETS {
        let reply = reader.reply().unwrap();
        assert!(reply == Reply::Bulk(value.clone()), "reply {number} is {reply:?}");
    }
    drop(stalled);
    eventually("the memory is given back", || {
        let now = arena.proxy.resident_bytes().saturating_sub(base);
        (now < 8 * MIB).then_some(())
    });
    victim.finish();
}

/// A good server and one with a script, in one pool; their keys are told apart by asking.
struct Mixed {
    _good: Redis,
    _bad: Fake,
    proxy: Proxy,
    bad_keys: Vec<String>,
    good_key: String,
}

impl Mixed {
    fn start(runtime: Runtime, script: impl Fn(&Words) -> Step + Send + Sync + 'static) -> Self {
        let good = Redis::start();
        let bad = Fake::start(move |words: &Words| {
            // Until the attack begins it is told by its silence about GETs of a probe.
            if words[0] == b"STRLEN" { Step::say(":99\r\n") } else { script(words) }
        });
        let text = format!(
            "  redis: true\n  timeout: 150\n  distribution: modula\n  servers:\n{}\n{}",
            good.line("a"),
            support::lab::server_line(&bad.place, "b")
        );
        let proxy = Proxy::start(runtime, &text);
        let mut client = proxy.client();
        let mut good_keys = Vec::new();
        let mut bad_keys = Vec::new();
        for number in 0..40 {
            let key = format!("k{number}");
            let is_bad = client.ask(&["STRLEN", &key]) == Reply::Integer(99);
            if is_bad { bad_keys.push(key) } else { good_keys.push(key) }
        }
        let good_key = good_keys.swap_remove(0);
        Self { _good: good, _bad: bad, proxy, bad_keys, good_key }
    }

    /// Serves a victim on the good server while `attack` goes on.
    fn watch(&self, attack: impl FnOnce()) {
        let (place, key) = (self.proxy.place.clone(), self.good_key.clone());
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let victim = thread::spawn(move || {
            let mut client = Client::connect(&place).unwrap();
            let mut served = 0;
            while !over.load(Ordering::Acquire) || served < 20 {
                let value = format!("v{served}");
                assert_eq!(client.ask(&["SET", &key, &value]), Reply::ok());
                assert_eq!(client.ask(&["GET", &key]), Reply::bulk(&value));
                served += 1;
            }
        });
        attack();
        is_over.store(true, Ordering::Release);
        victim.join().expect("the victim was served wrongly");
    }
}

fn servers_that_answer_strangely_harm_their_own_requests_only(runtime: Runtime) {
    need!("redis-server");
    let deep = b"*1\r\n".repeat(100_000);
    let answers: Vec<Vec<u8>> = vec![
        b"garbage\r\n".to_vec(),
        b"\x00\x01\x02".to_vec(),
        b"+one\r\n+two\r\n+three\r\n".to_vec(),
        b"$99999999999999999999\r\n".to_vec(),
        b"*2147483647\r\n".to_vec(),
        b"$-2\r\n".to_vec(),
        b"$3\r\nabcdef\r\n".to_vec(),
        deep,
        b"+QUEUED\r\n".to_vec(),
        b"*0\r\n".to_vec(),
        b"*1\r\n".to_vec(),
        b"*5\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n".to_vec(),
        b":1".to_vec(),
    ];
    for answer in answers {
        eprintln!("servers answer {:?}", answer[..answer.len().min(30)].escape_ascii().to_string());
        let shown = answer[..answer.len().min(30)].escape_ascii().to_string();
        let mixed = Mixed::start(runtime, move |_: &Words| Step::Say(answer.clone()));
        mixed.watch(|| {
            let end = Instant::now() + Duration::from_millis(100);
            while Instant::now() < end {
                let mut client = mixed.proxy.client();
                let (bad, other, good) = (&mixed.bad_keys[0], &mixed.bad_keys[1], &mixed.good_key);
                client.send(&request(&["GET", bad])).unwrap();
                client.send(&request(&["MGET", bad, good, other])).unwrap();
                client.send(&request(&["DEL", bad, other])).unwrap();
                // Whatever they get, it comes or the connection ends.
                let _ = client.all_within(Duration::from_millis(30));
                let mget = mixed.proxy.client().try_ask(&["MGET", bad, good, other]);
                if let Ok(Reply::Array(items)) = &mget {
                    assert_eq!(items.len(), 3, "{shown}");
                }
            }
        });
        assert_eq!(mixed.proxy.client().ask(&["PING"]), Reply::Simple("PONG".to_owned()));
    }
}

/// A reply that comes after its request has timed out is nobody's: each reply here names its key.
fn late_replies_reach_nobody_else(runtime: Runtime) {
    need!("redis-server");
    let mixed = Mixed::start(runtime, |words: &Words| {
        let key = words[1].clone();
        let reply =
            [format!("${}\r\n", key.len()).as_bytes(), key.as_slice(), b"\r\n".as_slice()].concat();
        if key.ends_with(b"0") {
            Step::SayAfter(Duration::from_millis(250), reply)
        } else {
            Step::Say(reply)
        }
    });
    mixed.watch(|| {
        let end = Instant::now() + Duration::from_millis(2000);
        let mut client = mixed.proxy.client();
        let (mut errors, mut replies) = (0, 0);
        while Instant::now() < end {
            let gets: Vec<u8> =
                mixed.bad_keys.iter().flat_map(|key| request(&["GET", key])).collect();
            client.send(&gets).unwrap();
            for key in &mixed.bad_keys {
                match client.reply().unwrap() {
                    Reply::Error(_) => errors += 1,
                    reply => {
                        assert_eq!(reply, Reply::bulk(key));
                        replies += 1;
                    }
                }
            }
        }
        assert!(errors > 0 && replies > 0, "{errors} errors, {replies} replies");
    });
}
