//! Under the name `nutcracker` the binary answers as twemproxy 0.5.0 does: the record of its
//! behaviour is replayed against ours and, where it is installed, against the genuine program,
//! which holds the record itself to the truth. Where we differ on purpose, a table says why.
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

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use support::eventually;
use support::fake::{Fake, Step, Words};
use support::lab::{Kind, Proxy, Runtime, free_address, server_line, test_file};
use support::resp::{Client, Place, request};

on_every_runtime!(
    single_requests_are_answered_as_recorded,
    long_keys_are_taken,
    what_servers_say_reaches_clients_as_recorded,
    split_requests_are_answered_as_recorded,
    authentication_goes_as_recorded,
    a_dead_server_is_reported_as_recorded,
    the_statistics_have_the_recorded_shape,
    each_request_has_its_own_time_out,
    an_ejected_server_returns_only_when_it_works,
);

/// Where we differ from the record: entry, what we answer, why.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("redis.move", "+OK16001\r\n", "it has one key, and the server says what it thinks of it"),
    ("redis.eval_nokeys", "+OK16001\r\n", "a script without keys can run on any server"),
    ("redis.keylen_16336", "+OK16001\r\n", "no limit that comes from a buffer's size"),
    ("redis.keylen_16337", "+OK16001\r\n", "no limit that comes from a buffer's size"),
    ("redis.keylen_16384", "+OK16001\r\n", "no limit that comes from a buffer's size"),
    (
        "backend.raw:-LOADING Redis is loading\\r\\n",
        "-LOADING Redis is loading\r\n",
        "the server's own words are kept",
    ),
    (
        "backend.raw:-OOM command not allowed\\r\\n",
        "-OOM command not allowed\r\n",
        "the server's own words are kept",
    ),
    ("backend.raw:-BUSY Redis is busy\\r\\n", "-BUSY Redis is busy\r\n", "as above"),
    ("backend.raw:_\\r\\n", "_\r\n", "well-formed RESP3 is no reason to fail everybody's requests"),
    ("backend.resp3map", "%1\r\n+a\r\n+b\r\n", "as above"),
    ("frag.mget_both_err", "-ERR of server\r\n", "the server's own words; the client stays"),
    ("frag.del_one_err", "-ERR of server\r\n", "the server's own words are kept"),
    ("frag.mset_one_err", "-ERR of server\r\n", "the server's own words are kept"),
    ("frag.exists_cross", ":2\r\n", "EXISTS is split, so it counts keys of every server"),
    ("frag.mget_one_hang", "-ERR Connection timed out\r\n", "an error is no reason to close"),
    ("down.mget_cross", "-ERR Connection refused\r\n", "an error is no reason to close"),
];

/// Entries of the record that other tests replay, or that cannot be replayed.
const ELSEWHERE: &[(&str, &str)] = &[
    ("log_tail_after_errors", "belongs to the limit of keys, which we do not have"),
    ("timeout.neighbour", "its scripted server left out a reply, so it shows the script's fault"),
    ("timeout.latency_s(300ms)", "each_request_has_its_own_time_out measures it"),
    ("eject.seq(limit2,retry1000)", "an_ejected_server_returns_only_when_it_works, differently"),
    ("eject.stats", "as above"),
    ("eject.all_down", "as above"),
    ("sigterm", "tests/cli_nutcracker.rs"),
    ("sigint", "tests/cli_nutcracker.rs"),
    ("signals_log", "tests/cli_nutcracker.rs"),
    ("reopen", "tests/cli_nutcracker.rs"),
];

fn record() -> Value {
    serde_json::from_str(&test_file("vectors/behaviour_redis.json")).unwrap()
}

/// Returns the recorded reply of an entry.
fn recorded(entry: &str) -> String {
    let record = record();
    let value = record.get(entry).unwrap_or_else(|| panic!("no entry {entry}"));
    value.as_str().or_else(|| value["reply"].as_str()).unwrap().to_owned()
}

fn expected(kind: Kind, entry: &str) -> String {
    let difference = DIFFERENCES.iter().find(|(name, _, _)| *name == entry);
    match difference {
        Some((_, ours, _)) if kind != Kind::Genuine => (*ours).to_owned(),
        Some(_) | None => recorded(entry),
    }
}

/// Ours, and the genuine one beside it where it is installed. It runs once, not once per runtime.
fn kinds(runtime: Runtime) -> Vec<Kind> {
    let mut kinds = vec![Kind::Nutcracker(runtime)];
    if runtime == Runtime::Tokio && support::lab::has("nutcracker") {
        kinds.push(Kind::Genuine);
    }
    kinds
}

/// Compares what a client gets with the record. How the kernel words an end does not count.
fn check(kind: Kind, entry: &str, client: &mut Client) {
    let wanted = expected(kind, entry).replace("<RST>", "<CLOSED>");
    let got = client.as_long_as(&wanted).replace("<RST>", "<CLOSED>");
    assert_eq!(got, wanted, "{entry} with {kind:?}");
}

fn pool(directives: &[&str], servers: &[(&Place, &str)]) -> String {
    let mut text = "  redis: true\n".to_owned();
    for directive in directives {
        text += &format!("  {directive}\n");
    }
    let lines: Vec<String> = servers.iter().map(|(place, name)| server_line(place, name)).collect();
    text + "  servers:\n" + &lines.join("\n")
}

fn ok(_: &Words) -> Step {
    Step::say("+OK16001\r\n")
}

/// The requests behind the entries `redis.…`.
fn single_requests() -> Vec<(&'static str, Vec<u8>)> {
    let r = |words: &[&str]| request(words);
    let two = |first: &[&str], second: &[&str]| [request(first), request(second)].concat();
    vec![
        ("redis.ping", r(&["PING"])),
        ("redis.ping_arg", r(&["PING", "x"])),
        ("redis.quit", r(&["QUIT"])),
        ("redis.quit_after_pipeline", two(&["GET", "a"], &["QUIT"])),
        ("redis.auth_nopool", r(&["AUTH", "pw"])),
        ("redis.auth2", r(&["AUTH", "user", "pw"])),
        ("redis.select", r(&["SELECT", "0"])),
        ("redis.hello3", r(&["HELLO", "3"])),
        ("redis.move", r(&["MOVE", "a", "1"])),
        ("redis.command", r(&["COMMAND"])),
        ("redis.command_count", r(&["COMMAND", "COUNT"])),
        ("redis.lolwut", r(&["LOLWUT"])),
        ("redis.lolwut5", r(&["LOLWUT", "VERSION", "5"])),
        ("redis.inline_ping", b"PING\r\n".to_vec()),
        ("redis.inline_get", b"GET a\r\n".to_vec()),
        ("redis.empty_line", b"\r\n".to_vec()),
        ("redis.star0", b"*0\r\n".to_vec()),
        ("redis.star_neg", b"*-1\r\n".to_vec()),
        ("redis.null_bulk", b"*2\r\n$3\r\nGET\r\n$-1\r\n".to_vec()),
        ("redis.unknown", r(&["FOO", "a"])),
        ("redis.good_then_unknown", two(&["GET", "a"], &["FOO", "a"])),
        ("redis.wrong_argc", r(&["GET", "a", "b"])),
        ("redis.eval_nokeys", r(&["EVAL", "return 1", "0"])),
        ("redis.eval_1key", r(&["EVAL", "return 1", "1", "k"])),
        ("redis.eval_key_missing", r(&["EVAL", "return 1", "1"])),
        ("redis.evalsha", r(&["EVALSHA", "abc", "2", "k1", "k2", "a"])),
        ("redis.empty_key", r(&["GET", ""])),
        ("redis.mset_odd", r(&["MSET", "a", "1", "b"])),
        ("redis.mset_ok", r(&["MSET", "a", "1"])),
        ("redis.lowercase", r(&["get", "a"])),
        ("redis.half_close", r(&["GET", "a"])),
    ]
}

fn single_requests_are_answered_as_recorded(runtime: Runtime) {
    let record = record();
    for kind in kinds(runtime) {
        let fake = Fake::start(ok);
        let proxy = Proxy::start_as(kind, &pool(&["timeout: 300"], &[(&fake.place, "a")]));
        for (entry, bytes) in single_requests() {
            let before = fake.seen().len();
            let mut client = proxy.client();
            client.send(&bytes).unwrap();
            if entry == "redis.half_close" {
                client.end_sending();
            }
            check(kind, entry, &mut client);
            let is_ours = kind != Kind::Genuine;
            if is_ours && DIFFERENCES.iter().any(|(name, _, _)| *name == entry) {
                continue;
            }
            let wanted = &record[entry]["backend_saw"];
            eventually(&format!("{entry}: the server saw {wanted}, {kind:?}"), || {
                let seen = serde_json::json!(fake.seen_text()[before..]);
                (seen == *wanted).then_some(())
            });
        }
    }
}

fn long_keys_are_taken(runtime: Runtime) {
    for kind in kinds(runtime) {
        let fake = Fake::start(ok);
        let proxy = Proxy::start_as(kind, &pool(&["timeout: 2000"], &[(&fake.place, "a")]));
        for length in [16300, 16319, 16320, 16335, 16336, 16337, 16384] {
            let mut client = proxy.client();
            // A reset may hit the sender.
            let _ = client.send(&request(&["GET", &"k".repeat(length)]));
            check(kind, &format!("redis.keylen_{length}"), &mut client);
        }
    }
}

/// What the scripted server does for the entries `backend.…`.
fn script_of(entry: &str) -> Step {
    match entry {
        "backend.hang" => Step::Hang,
        "backend.close" => Step::Close,
        "backend.stray" | "backend.stray_then_next" => Step::say("+A\r\n+B\r\n"),
        "backend.badproto" => Step::say("garbage\r\n"),
        "backend.resp3map" => Step::say("%1\r\n+a\r\n+b\r\n"),
        raw => {
            let text = raw.strip_prefix("backend.raw:").unwrap();
            Step::say(&text.replace("\\r\\n", "\r\n"))
        }
    }
}

fn what_servers_say_reaches_clients_as_recorded(runtime: Runtime) {
    let record = record();
    let entries: Vec<&String> =
        record.as_object().unwrap().keys().filter(|entry| entry.starts_with("backend.")).collect();
    assert!(entries.len() > 10);
    for kind in kinds(runtime) {
        for entry in &entries {
            let script = (*entry).clone();
            let fake = Fake::start(
                move |words: &Words| {
                    if words[1] == b"b" { ok(words) } else { script_of(&script) }
                },
            );
            let proxy = Proxy::start_as(kind, &pool(&["timeout: 300"], &[(&fake.place, "a")]));
            let mut client = proxy.client();
            client.send(&request(&["GET", "a"])).unwrap();
            if *entry != "backend.stray_then_next" {
                check(kind, entry, &mut client);
                continue;
            }
            expected_sequence(kind, &record, &mut client);
        }
    }
}

/// A reply to nothing costs the connection it came on, and the next request may be told so; it
/// never becomes somebody's reply.
fn expected_sequence(kind: Kind, record: &Value, client: &mut Client) {
    let wanted = &record["backend.stray_then_next"];
    assert_eq!(client.as_long_as("+A\r\n"), wanted[0].as_str().unwrap(), "{kind:?}");
    eventually("the next request is answered", || {
        let reply = client.ask(&["GET", "b"]);
        assert!(reply.is_error() || reply.text() == "OK16001", "{reply:?}");
        (!reply.is_error()).then_some(())
    });
}

/// Two servers, and a key of each.
struct Split {
    one: Fake,
    two: Fake,
}

impl Split {
    /// The script gets the number of the server, 0 or 1.
    fn start(script: impl Fn(usize, &Words) -> Step + Clone + Send + Sync + 'static) -> Self {
        let other = script.clone();
        Self {
            one: Fake::start(move |words: &Words| script(0, words)),
            two: Fake::start(move |words: &Words| other(1, words)),
        }
    }

    fn pool(&self) -> String {
        let servers = [(&self.one.place, "a"), (&self.two.place, "b")];
        pool(&["timeout: 300", "distribution: modula", "hash: fnv1a_64"], &servers)
    }

    fn seen_of(&self) -> [Vec<Vec<String>>; 2] {
        [&self.one, &self.two].map(|fake| {
            let lower = |mut words: Vec<String>| {
                words[0] = words[0].to_lowercase();
                words
            };
            fake.seen_text().into_iter().map(lower).collect()
        })
    }
}

/// Keys of the first and the second server of such a pool: a dead port tells which is which.
fn keys_of_each() -> [String; 2] {
    let split = Split::start(|_, _| Step::say("$-1\r\n"));
    let proxy = Proxy::start_as(Kind::Ringkeeper(Runtime::Tokio), &split.pool());
    let mut client = proxy.client();
    let mut found = [None, None];
    for number in 0.. {
        let key = format!("k{number}");
        let before = split.one.seen().len();
        client.ask(&["GET", &key]);
        found[usize::from(split.one.seen().len() == before)].get_or_insert(key);
        if let [Some(one), Some(two)] = &found {
            return [one.clone(), two.clone()];
        }
    }
    unreachable!()
}

fn split_requests_are_answered_as_recorded(runtime: Runtime) {
    let [k0, k1] = keys_of_each();
    let bad = || Step::say("-ERR of server\r\n");
    for kind in kinds(runtime) {
        let replay = |entry: &str, words: &[&str], script: &dyn Fn(usize) -> Step| {
            // The scripted server's thread needs its own copy of what to do.
            let steps: Vec<Vec<u8>> = [0, 1]
                .map(|at| match script(at) {
                    Step::Say(bytes) => bytes,
                    Step::SayAfter(..) | Step::Hang | Step::Close => Vec::new(),
                })
                .into();
            let split = Split::start(move |at, _| Step::Say(steps[at].clone()));
            let proxy = Proxy::start_as(kind, &split.pool());
            let mut client = proxy.client();
            client.send(&request(words)).unwrap();
            check(kind, entry, &mut client);
            split.seen_of()
        };
        let own = |text: &str| text.to_owned();
        replay("frag.mget_both_err", &["MGET", &k0, &k1], &|_| bad());
        let one_bad = |at: usize| if at == 0 { Step::say(":1\r\n") } else { bad() };
        replay("frag.del_one_err", &["DEL", &k0, &k1], &one_bad);
        let one_bad = |at: usize| if at == 0 { Step::say("+OK\r\n") } else { bad() };
        replay("frag.mset_one_err", &["MSET", &k0, "1", &k1, "2"], &one_bad);
        let seen = replay("frag.del_ok", &["DEL", &k0, &k1, &k0, &k1], &|_| Step::say(":1\r\n"));
        let del = |key: &str| vec![vec![own("del"), own(key), own(key)]];
        assert_eq!(seen, [del(&k0), del(&k1)]);
        replay("frag.exists_cross", &["EXISTS", &k0, &k1], &|_| Step::say(":1\r\n"));
        let seen = replay("frag.mset", &["MSET", &k0, "1", &k1, "2"], &|_| Step::say("+OK\r\n"));
        let mset = |key: &str, value: &str| vec![vec![own("mset"), own(key), own(value)]];
        assert_eq!(seen, [mset(&k0, "1"), mset(&k1, "2")]);
        let values = |at: usize| Step::say(["*1\r\n$-1\r\n", "*1\r\n$1\r\nA\r\n"][at]);
        let seen = replay("frag.mget_ok", &["MGET", &k0, &k1], &values);
        let mget = |key: &str| vec![vec![own("mget"), own(key)]];
        assert_eq!(seen, [mget(&k0), mget(&k1)]);
        let hang = |at: usize| if at == 0 { Step::say("*1\r\n$-1\r\n") } else { Step::Hang };
        replay("frag.mget_one_hang", &["MGET", &k0, &k1], &hang);
    }
}

fn authentication_goes_as_recorded(runtime: Runtime) {
    let is_auth = |words: &Words| words[0].eq_ignore_ascii_case(b"AUTH");
    for kind in kinds(runtime) {
        let fake = Fake::start(
            move |words: &Words| {
                if is_auth(words) { Step::say("+OK\r\n") } else { ok(words) }
            },
        );
        let text = pool(&["redis_auth: pw", "timeout: 300"], &[(&fake.place, "a")]);
        let proxy = Proxy::start_as(kind, &text);
        let replay = |entry: &str, requests: &[&[&str]]| {
            let mut client = proxy.client();
            let bytes: Vec<u8> = requests.iter().flat_map(|words| request(words)).collect();
            client.send(&bytes).unwrap();
            check(kind, entry, &mut client);
        };
        replay("auth.noauth_get", &[&["GET", "a"]]);
        replay("auth.noauth_ping", &[&["PING"]]);
        replay("auth.noauth_mget", &[&["MGET", "a", "b"]]);
        replay("auth.noauth_command", &[&["COMMAND"]]);
        replay("auth.noauth_quit", &[&["QUIT"]]);
        replay("auth.two_args", &[&["AUTH", "default", "pw"]]);
        replay("auth.bad", &[&["AUTH", "bad"]]);
        replay("auth.ok", &[&["AUTH", "pw"]]);
        assert!(fake.seen().is_empty(), "no server is bothered");
        replay("auth.ok_get", &[&["AUTH", "pw"], &["GET", "a"], &["PING"]]);
        assert_eq!(fake.seen_text(), [vec!["AUTH", "pw"], vec!["GET", "a"]]);
        replay("auth.ok_bad_get", &[&["AUTH", "pw"], &["AUTH", "bad"], &["GET", "a"]]);

        let fake = Fake::start(|_: &Words| Step::say("-ERR invalid password\r\n"));
        let text = pool(&["redis_auth: pw", "timeout: 300"], &[(&fake.place, "a")]);
        let proxy = Proxy::start_as(kind, &text);
        let mut client = proxy.client();
        client.send(&[request(&["AUTH", "pw"]), request(&["GET", "a"])].concat()).unwrap();
        check(kind, "auth.backend_rejects", &mut client);

        let fake = Fake::start(ok);
        let text = pool(&["redis_db: 3", "timeout: 300"], &[(&fake.place, "a")]);
        let proxy = Proxy::start_as(kind, &text);
        let mut client = proxy.client();
        client.send(&request(&["GET", "a"])).unwrap();
        check(kind, "db.get", &mut client);
        assert_eq!(fake.seen_text(), [vec!["SELECT", "3"], vec!["GET", "a"]]);
    }
}

fn a_dead_server_is_reported_as_recorded(runtime: Runtime) {
    let [k0, k1] = keys_of_each();
    for kind in kinds(runtime) {
        // Each part gets a reply of its kind, so that the dead server is all that is wrong.
        let fake = Fake::start(|words: &Words| match words[0].to_ascii_lowercase().as_slice() {
            b"mget" => Step::say("*1\r\n$-1\r\n"),
            b"del" => Step::say(":1\r\n"),
            _ => ok(words),
        });
        let dead = Place::Tcp(free_address(Ipv4Addr::LOCALHOST.into()));
        let directives = ["timeout: 300", "distribution: modula", "hash: fnv1a_64"];
        let text = pool(&directives, &[(&fake.place, "a"), (&dead, "b")]);
        let proxy = Proxy::start_as(kind, &text);
        let replay = |entry: &str, words: &[&str]| {
            let mut client = proxy.client();
            client.send(&request(words)).unwrap();
            check(kind, entry, &mut client);
        };
        replay("down.get", &["GET", &k1]);
        replay("down.other", &["GET", &k0]);
        replay("down.mget_cross", &["MGET", &k0, &k1]);
        replay("down.mset_cross", &["MSET", &k0, "1", &k1, "2"]);
        replay("down.del_cross", &["DEL", &k0, &k1]);
    }
}

/// The names of the figures, one set per level.
fn names(stats: &Value, pool: &str, server: &str) -> [BTreeSet<String>; 3] {
    let names = |value: &Value, without: &str| {
        let map = value.as_object().unwrap();
        map.keys().filter(|name| *name != without).cloned().collect::<BTreeSet<_>>()
    };
    let pool_stats = &stats[pool];
    [names(stats, pool), names(pool_stats, server), names(&pool_stats[server], "")]
}

fn the_statistics_have_the_recorded_shape(runtime: Runtime) {
    let raw: Value = serde_json::from_str(record()["stats_raw"].as_str().unwrap()).unwrap();
    for kind in kinds(runtime) {
        let fake = Fake::start(ok);
        let proxy = Proxy::start_as(kind, &pool(&[], &[(&fake.place, "a")]));
        assert_eq!(proxy.client().ask(&["GET", "k"]).text(), "OK16001");
        let stats = eventually("the request is counted", || {
            let stats = proxy.stats();
            (stats["alpha"]["a"]["responses"] == 1).then_some(stats)
        });
        assert_eq!(names(&stats, "alpha", "a"), names(&raw, "p", "a"), "{kind:?}");
        for name in ["service", "version"] {
            assert_eq!(stats[name], raw[name], "{kind:?}");
        }
        let server = &stats["alpha"]["a"];
        assert_eq!(server["requests"], 1);
        assert_eq!(server["request_bytes"], request(&["GET", "k"]).len());
        assert_eq!(server["response_bytes"], "+OK16001\r\n".len());
    }
}

/// twemproxy fails every request on a connection when one of them times out; here each has its own
/// time.
fn each_request_has_its_own_time_out(runtime: Runtime) {
    let fake = Fake::start(|_: &Words| Step::Hang);
    let text = pool(&["timeout: 300"], &[(&fake.place, "a")]);
    let proxy = Proxy::start_as(Kind::Nutcracker(runtime), &text);
    let place = proxy.place.clone();
    let asking = [0, 100, 200, 280].map(|delay| {
        let place = place.clone();
        thread::spawn(move || {
            // The requests are to be apart in time: that is the case at hand.
            thread::sleep(Duration::from_millis(delay));
            let start = Instant::now();
            let reply = Client::connect(&place).unwrap().ask(&["GET", "a"]);
            assert_eq!(reply.text(), "ERR Connection timed out");
            start.elapsed()
        })
    });
    for asking in asking {
        let took = asking.join().unwrap();
        assert!(took >= Duration::from_millis(299) && took < Duration::from_secs(2), "{took:?}");
    }
}

/// twemproxy puts a dead server back after the time, and two requests fail, again and again; here
/// a probe finds out.
fn an_ejected_server_returns_only_when_it_works(runtime: Runtime) {
    let [_, k1] = keys_of_each();
    let fake = Fake::start(ok);
    let dead = free_address(Ipv4Addr::LOCALHOST.into());
    let directives = [
        "timeout: 300",
        "distribution: modula",
        "auto_eject_hosts: true",
        "server_failure_limit: 2",
        "server_retry_timeout: 200",
    ];
    let text = pool(&directives, &[(&fake.place, "a"), (&Place::Tcp(dead), "b")]);
    let proxy = Proxy::start_as(Kind::Nutcracker(runtime), &text);
    let mut client = proxy.client();
    let mut errors = 0;
    eventually("the dead server is ejected", || {
        let reply = client.ask(&["GET", &k1]);
        if reply.is_error() {
            errors += 1;
            assert_eq!(reply.text(), "ERR Connection refused");
        }
        (!reply.is_error()).then_some(())
    });
    assert!(errors >= 2, "{errors} failures before the limit of 2");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(700) {
        assert_eq!(client.ask(&["GET", &k1]).text(), "OK16001");
    }
    assert_eq!(proxy.stats()["alpha"]["server_ejects"], 1);
    let back = Fake::start_on(dead, |_: &Words| Step::say("+back\r\n"));
    eventually("the server is back", || (client.ask(&["GET", &k1]).text() == "back").then_some(()));
    assert!(!back.seen().is_empty());

    let gone = [(); 2].map(|()| Place::Tcp(free_address(Ipv4Addr::LOCALHOST.into())));
    let text = pool(&directives, &[(&gone[0], "a"), (&gone[1], "b")]);
    let proxy = Proxy::start_as(Kind::Nutcracker(runtime), &text);
    let mut client = proxy.client();
    for _ in 0..50 {
        assert_eq!(client.ask(&["GET", &k1]).text(), "ERR Connection refused");
    }
}

/// Nothing in the record is forgotten: each entry is replayed, belongs to a replayed one or is
/// named with the reason why not.
#[test]
fn every_entry_of_the_record_is_replayed() {
    let source = test_file("nutcracker_behaviour.rs");
    for entry in record().as_object().unwrap().keys() {
        let is_elsewhere = ELSEWHERE.iter().any(|(name, _)| name == entry);
        let is_generated = ["backend.", "redis.keylen_"].iter().any(|part| entry.starts_with(part));
        // What servers saw is compared where the reply is.
        let is_view = entry.ends_with("saw");
        let is_named = source.contains(&format!("\"{entry}\""));
        assert!(is_elsewhere || is_generated || is_view || is_named, "{entry} is not replayed");
    }
    for (entry, _, reason) in DIFFERENCES {
        assert!(record().get(entry).is_some(), "{entry} is not in the record");
        assert!(!reason.is_empty());
    }
}
