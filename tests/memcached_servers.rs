//! Our binary in front of genuine memcached servers, with twemproxy and pymemcache beside it.
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

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use support::lab::{Kind, Proxy, Runtime, test_file};
use support::memcached::{Memcached, ask, say};
use support::resp::Client;
use support::{eventually, python};

on_every_runtime!(
    everything_is_answered_as_by_memcached,
    bad_lines_are_answered_and_the_stream_stays_in_step,
    requests_are_answered_as_recorded,
    a_dead_server_is_reported_as_recorded,
    keys_lie_where_twemproxy_puts_them,
    values_of_all_servers_come_in_the_order_of_the_keys,
    every_server_is_flushed_with_its_delay,
    values_up_to_the_servers_limit_pass,
    pymemcache_works,
    a_restarted_server_is_used_again,
    a_hung_server_costs_its_own_requests_only,
    a_dead_server_is_ejected_and_returns_after_a_probe,
);

/// Two servers and the pool's lines about them.
struct Pair {
    one: Memcached,
    two: Memcached,
}

impl Pair {
    fn start() -> Self {
        Self { one: Memcached::start(), two: Memcached::start() }
    }

    /// Returns a pool of both, with more directives.
    fn pool(&self, directives: &[&str]) -> String {
        pool(directives, &[self.one.line("one"), self.two.line("two")])
    }

    /// Returns a key that lives on the first server, and one that lives on the second.
    fn key_of_each(&self, client: &mut Client) -> [String; 2] {
        let keys: Vec<String> = (0..200).map(|number| format!("probe:{number}")).collect();
        store(client, &keys);
        let found = [&self.one, &self.two].map(|server| server.which_of(&keys)[0].clone());
        self.one.forget_all();
        self.two.forget_all();
        found
    }
}

fn pool(directives: &[&str], servers: &[String]) -> String {
    let lines: String = directives.iter().map(|directive| format!("  {directive}\n")).collect();
    lines + "  servers:\n" + &servers.join("\n")
}

/// Stores a value under each key, which names the key.
fn store(client: &mut Client, keys: &[String]) {
    let sets = keys.iter().map(|key| format!("set {key} 7 0 {}\r\n{key}\r\n", key.len()));
    client.send(sets.collect::<String>().as_bytes()).unwrap();
    for key in keys {
        assert_eq!(client.line().unwrap(), "STORED", "{key}");
    }
}

/// What a client may say, in this order: every command, every outcome that one server can show.
const SCRIPT: &[&str] = &[
    "set k 0 0 1\r\nv\r\n",
    "get k\r\n",
    "gets k\r\n",
    "get k none k\r\n",
    "gets none\r\n",
    "set k 4294967295 0 0\r\n\r\n",
    "get k\r\n",
    "set k 5 100 4 noreply\r\n\r\n\r\n\r\n",
    "get k\r\n",
    "gat 0 k\r\n",
    "gats 100 none k\r\n",
    "add k 0 0 1\r\nx\r\n",
    "add new 0 0 1\r\nx\r\n",
    "replace none 0 0 1\r\nx\r\n",
    "replace new 0 0 1\r\ny\r\n",
    "append new 0 0 2\r\n+a\r\n",
    "prepend new 0 0 2\r\nb+\r\n",
    "append none 0 0 1\r\nx\r\n",
    "get new\r\n",
    "cas new 0 0 1 999999\r\nz\r\n",
    "cas none 0 0 1 1\r\nz\r\n",
    "set n 0 0 1\r\n5\r\n",
    "incr n 3\r\n",
    "decr n 1\r\n",
    "decr n 100\r\n",
    "incr none 1\r\n",
    "incr k 1\r\n",
    "incr n x\r\n",
    "incr n 18446744073709551615\r\n",
    "incr n 1 noreply\r\n",
    "get n\r\n",
    "touch n 100\r\n",
    "touch none 100\r\n",
    "touch n x\r\n",
    "set gone 0 -1 1\r\nx\r\n",
    "get gone\r\n",
    "delete n\r\n",
    "delete n\r\n",
    "delete new 0\r\n",
    "delete k 5\r\n",
    "delete k noreply\r\n",
    "get k\r\n",
    // The meta commands.
    "mn\r\n",
    "ms k 2\r\nab\r\n",
    "ms k 2 T0 F5 I k O9\r\ncd\r\n",
    "mg k\r\n",
    "mg k v\r\n",
    "mg k s v t f k O123\r\n",
    "mg none k O1\r\n",
    "mg k v q\r\n",
    "mg none v q\r\n",
    "mg k v v\r\n",
    "mg k q q\r\n",
    "mg k %\r\n",
    "mg a2V5 b k v\r\n",
    "ms a2V5 3 b k\r\nabc\r\n",
    "get key\r\n",
    "mg a2V5 b k v q O5\r\n",
    "mg a b k v\r\n",
    "mg lease N30 v\r\n",
    "mg lease2 N30 q\r\n",
    "ms k 1 q\r\n1\r\n",
    "ms k 1 MA q\r\n2\r\n",
    "ms none 1 MR q\r\nx\r\n",
    "ms k 1 ME q\r\nx\r\n",
    "ms k 1 C999999 q O4\r\nx\r\n",
    "ms none 1 C1 q\r\nx\r\n",
    "ms k 1 MX\r\nx\r\n",
    "ms k 1 Fx q\r\nx\r\n",
    "ma k\r\n",
    "ma k v D5 q\r\n",
    "ma k MD v k\r\n",
    "ma none\r\n",
    "ma none q O3\r\n",
    "ma made N0 J13 v\r\n",
    "ma made MX q\r\n",
    "me none\r\n",
    "md k q O7\r\n",
    "md k q\r\n",
    "md k\r\n",
    "md made C999999 q\r\n",
    "md made I T30\r\n",
    // A value that looks like an end, and a pipeline of everything.
    "set end 0 0 10\r\nEND\r\nMN\r\nx\r\n",
    "get end\r\nmg end v\r\nmg none q\r\nget none\r\nincr none 1\r\n",
    "  get   end  \r\nget end\n",
    "verbosity 0\r\nversion\r\nflush_all 0\r\nflush_all noreply\r\nget end\r\n",
    "version and more\r\nmn and more\r\n",
];

fn everything_is_answered_as_by_memcached(runtime: Runtime) {
    need!("memcached");
    let (direct, behind) = (Memcached::start(), Memcached::start());
    let proxy = Proxy::start(runtime, &pool(&[], &[behind.line("one")]));
    let (mut direct, mut client) = (direct.client(), proxy.client());
    for request in SCRIPT {
        let (wanted, got) = (ask(&mut direct, request), ask(&mut client, request));
        assert_eq!(got, wanted, "{request:?}");
    }
    // With two servers the commands with one key go on as with one.
    let pair = Pair::start();
    let genuine = Memcached::start();
    let proxy = Proxy::start(runtime, &pair.pool(&[]));
    let (mut direct, mut client) = (genuine.client(), proxy.client());
    for request in SCRIPT.iter().filter(|request| !has_version(request)) {
        let (wanted, got) = (ask(&mut direct, request), ask(&mut client, request));
        assert_eq!(got, wanted, "{request:?}");
    }
}

/// Whether the reply may hold a number that counts the server's writes.
fn has_version(request: &str) -> bool {
    request.starts_with("gets") || request.starts_with("gats") || request.contains(" c ")
}

/// Lines that memcached refuses; where our answer is another, ours.
const BAD_LINES: &[(&str, Option<&str>)] = &[
    ("\r\n", None),
    ("GET k\r\n", None),
    ("bogus\r\n", None),
    ("get\r\n", None),
    ("get \r\n", None),
    ("gat\r\n", None),
    ("gat x k\r\n", None),
    ("set k\r\n", None),
    ("set k 0 0\r\n", None),
    ("set k 0 0 x\r\n", None),
    ("set k 0 0 -1\r\n", None),
    ("incr k\r\n", None),
    ("incr k 1 noreply x\r\n", None),
    ("incr k noreply\r\n", None),
    ("touch k noreply\r\n", None),
    ("delete k noreply noreply\r\n", None),
    ("touch k\r\n", None),
    ("delete\r\n", None),
    ("flush_all x\r\n", None),
    ("flush_all 1 2 3\r\n", None),
    ("verbosity\r\n", None),
    ("verbosity x\r\n", None),
    ("mg\r\n", None),
    ("ms\r\n", None),
    ("ms k\r\n", None),
    ("ms k x\r\n", None),
    ("mx k\r\n", None),
    // No key is no command.
    ("gat 0\r\n", Some("ERROR\r\n")),
    ("me\r\n", Some("ERROR\r\n")),
    // memcached takes the value of such a line for a command, and says so.
    ("set k x 0 1\r\nx\r\n", Some("CLIENT_ERROR bad command line format\r\n")),
    ("set k 0 x 1\r\nx\r\n", Some("CLIENT_ERROR bad command line format\r\n")),
    ("set k 0 0 1 noreply x\r\nx\r\n", Some("ERROR\r\n")),
    ("cas k 0 0 1\r\nx\r\n", Some("ERROR\r\n")),
    ("cas k 0 0 1 x\r\nx\r\n", Some("CLIENT_ERROR bad command line format\r\n")),
    ("set k 0 0 1\r\nabc\r\n", Some("CLIENT_ERROR bad data chunk\r\n")),
    ("ms k 1\r\nabc\r\n", Some("CLIENT_ERROR bad data chunk\r\n")),
    // A word too many is not passed over.
    ("set k 0 0 1 more\r\nx\r\n", Some("ERROR\r\n")),
    ("incr k 1 more\r\n", Some("ERROR\r\n")),
    ("touch k 0 more\r\n", Some("ERROR\r\n")),
    ("get a\tb\r\n", Some("CLIENT_ERROR bad command line format\r\n")),
    ("get a\rb\r\n", Some("CLIENT_ERROR bad command line format\r\n")),
];

fn bad_lines_are_answered_and_the_stream_stays_in_step(runtime: Runtime) {
    need!("memcached");
    let (direct, behind) = (Memcached::start(), Memcached::start());
    let proxy =
        Proxy::start(runtime, &pool(&["request_bytes_max: 2000000"], &[behind.line("one")]));
    let (mut direct, mut client) = (direct.client(), proxy.client());
    let mut other = proxy.client();
    let long = "k".repeat(251);
    let more = [
        (format!("get {long}\r\n"), None),
        (format!("delete {long} noreply\r\n"), Some("")),
        (
            format!("set {long} 0 0 5\r\nget k\r\n"),
            Some("CLIENT_ERROR bad command line format\r\n"),
        ),
        (
            format!("ms k 1{}\r\nx\r\n", " O1".repeat(17)),
            Some("CLIENT_ERROR options flags too long\r\n"),
        ),
        // Above the server's limit, and above ours.
        (format!("set k 0 0 1500000\r\n{}\r\n", "x\n".repeat(750_000)), None),
        (format!("set k 0 0 1500000 noreply\r\n{}\r\n", "x\n".repeat(750_000)), None),
        (format!("set k 0 0 3000000\r\n{}\r\n", "x\n".repeat(1_500_000)), None),
        (format!("set k 0 0 3000000 noreply\r\n{}\r\n", "x\n".repeat(1_500_000)), None),
    ];
    let lines = BAD_LINES.iter().map(|(line, ours)| ((*line).to_owned(), *ours)).chain(more);
    for (line, ours) in lines {
        let wanted = match ours {
            Some(ours) => ours.to_owned(),
            None => ask(&mut direct, &line),
        };
        let shown = &line[..line.len().min(80)];
        assert_eq!(ask(&mut client, &line), wanted, "{shown:?}");
        assert_eq!(ask(&mut other, "get none\r\n"), "END\r\n", "{shown:?} hurts another client");
    }
    client.send("x".repeat(3000).as_bytes()).unwrap();
    assert_eq!(client.line().unwrap(), "CLIENT_ERROR line too long");
    assert!(client.is_ended());
}

/// Where we differ from the record: entry, what we answer, why.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("delete_time0", "NOT_FOUND\r\n", "memcached takes a time of zero"),
    ("touch_noarg", "ERROR\r\n", "a bad line gets an error and the client stays"),
    ("neg_exptime", "STORED\r\n", "memcached takes a negative time"),
    ("upper", "ERROR\r\n", "a bad line gets an error and the client stays"),
    ("flush_all", "OK\r\n", "served"),
    ("verbosity", "OK\r\n", "served"),
    ("gat", "END\r\n", "served"),
    ("gats", "END\r\n", "served"),
    ("mg", "EN\r\n", "served"),
    ("ms", "HD\r\n", "served"),
    ("mn", "MN\r\n", "served"),
    ("md", "HD\r\n", "served"),
    ("me", "EN\r\n", "served"),
    ("lf_only", "END\r\n", "memcached takes a line feed alone"),
    ("key251", "CLIENT_ERROR bad command line format\r\n", "an error, and the client stays"),
    ("get_nokey", "ERROR\r\n", "as above"),
    ("get_nokey_sp", "ERROR\r\n", "as above"),
    ("crlf_only", "ERROR\r\n", "as above"),
    ("slabs", ADMIN, "as above"),
    ("watch", ADMIN, "as above"),
    ("badlen", "CLIENT_ERROR bad data chunk\r\n", "as above"),
    ("flags_neg", "CLIENT_ERROR bad command line format\r\n", "as above"),
    ("down.multi", "SERVER_ERROR Connection refused\r\n", "an error is no reason to close"),
];

const ADMIN: &str = "CLIENT_ERROR not supported by the proxy: this command manages one server; \
    connect to it directly\r\n";

/// What was sent for each entry of the record, in this order, to a fresh server.
fn recorded_requests() -> Vec<(&'static str, String)> {
    let of = |name, text: &str| (name, text.to_owned());
    vec![
        of("set", "set k 0 0 1\r\nv\r\n"),
        of("get", "get k\r\n"),
        of("gets", "gets k\r\n"),
        of("get_multi", "get k none\r\n"),
        of("get_multi_dup", "get k k\r\n"),
        of("get_miss", "get none\r\n"),
        of("set_noreply", "set k 0 0 1 noreply\r\nw\r\nget k\r\n"),
        of("add", "add k 0 0 1\r\nx\r\n"),
        of("replace", "replace k 0 0 1\r\nx\r\n"),
        of("append", "append k 0 0 1\r\ny\r\n"),
        of("prepend", "prepend k 0 0 1\r\nz\r\n"),
        of("cas", "cas k 0 0 1 1\r\nx\r\n"),
        of("incr", "set n 0 0 1\r\n5\r\nincr n 1\r\n"),
        of("incr_neg", "incr n -1\r\n"),
        of("decr", "decr n 1\r\n"),
        of("delete", "delete k\r\n"),
        of("delete_time0", "delete k 0\r\n"),
        of("delete_noreply", "delete k noreply\r\nget k\r\n"),
        of("touch", "touch n 0\r\n"),
        of("touch_neg", "touch n -1\r\n"),
        of("touch_noarg", "touch n\r\n"),
        of("neg_exptime", "set e 0 -1 1\r\nx\r\n"),
        of("upper", "GET k\r\n"),
        of("quit", "quit\r\n"),
        of("flush_all", "flush_all\r\n"),
        of("verbosity", "verbosity 0\r\n"),
        of("gat", "gat 0 none\r\n"),
        of("gats", "gats 0 none\r\n"),
        of("mg", "mg none v\r\n"),
        of("ms", "ms m 1\r\nx\r\n"),
        of("mn", "mn\r\n"),
        of("md", "md m\r\n"),
        of("me", "me none\r\n"),
        of("binary", "\u{80}"),
        of("lf_only", "get none\n"),
        ("key250", format!("get {}\r\n", "k".repeat(250))),
        ("key251", format!("get {}\r\n", "k".repeat(251))),
        of("get_nokey", "get\r\n"),
        of("get_nokey_sp", "get \r\n"),
        of("leading_sp", " get none\r\n"),
        of("trailing_sp", "get none \r\n"),
        of("crlf_only", "\r\n"),
        ("too_large", format!("set big 0 0 2000000\r\n{}\r\n", "x".repeat(2_000_000))),
        of("slabs", "slabs automove 0\r\n"),
        of("watch", "watch fetchers\r\n"),
        of("badlen", "set b 0 0 1\r\nabc\r\n"),
        of("flags_neg", "set f -1 0 1\r\nx\r\n"),
        of("val_empty", "set v 0 0 0\r\n\r\n"),
        of("space_key_ctrl", "get a\u{1}b\r\n"),
    ]
}

/// Returns the recorded reply, or what we say instead.
fn expected(kind: Kind, entry: &str) -> String {
    let difference = DIFFERENCES.iter().find(|(name, _, _)| *name == entry);
    match difference {
        Some((_, ours, _)) if kind != Kind::Genuine => (*ours).to_owned(),
        Some(_) | None => {
            let record: Value =
                serde_json::from_str(&test_file("vectors/behaviour_memcache.json")).unwrap();
            record[entry].as_str().unwrap_or_else(|| panic!("no entry {entry}")).to_owned()
        }
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

fn requests_are_answered_as_recorded(runtime: Runtime) {
    need!("memcached");
    for kind in kinds(runtime) {
        let server = Memcached::start();
        let proxy = Proxy::start_as(kind, &pool(&[], &[server.line("one")]));
        for (entry, request) in recorded_requests() {
            let request =
                if entry == "binary" { vec![0x80, 0, 0, 0] } else { request.into_bytes() };
            let mut client = proxy.client();
            let wanted = expected(kind, entry).replace("<RST>", "<CLOSED>");
            let _ = client.send(&request);
            let got = client.as_long_as(&wanted).replace("<RST>", "<CLOSED>");
            assert_eq!(got, wanted, "{entry} with {kind:?}");
        }
        let mut client = proxy.client();
        let version = say(&mut client, "version\r\n");
        assert_eq!(version, say(&mut server.client(), "version\r\n"), "{kind:?}");
        if kind != Kind::Genuine {
            let stats = say(&mut client, "stats\r\n");
            assert!(stats.starts_with("STAT pid ") && stats.ends_with("\r\nEND\r\n"), "{stats}");
            assert!(stats.contains("STAT pool alpha\r\n"), "{stats}");
        }
    }
}

fn a_dead_server_is_reported_as_recorded(runtime: Runtime) {
    need!("memcached");
    for kind in kinds(runtime) {
        let mut pair = Pair::start();
        let proxy = Proxy::start_as(kind, &pair.pool(&[]));
        let [lives, dies] = pair.key_of_each(&mut proxy.client());
        pair.two.kill();
        let get = |keys: &str, entry: &str| {
            let mut client = proxy.client();
            let wanted = expected(kind, entry);
            client.send(format!("get {keys}\r\n").as_bytes()).unwrap();
            assert_eq!(client.as_long_as(&wanted), wanted, "{entry} with {kind:?}");
        };
        // The first one finds the connection ended, which is another reason.
        let _ = say(&mut proxy.client(), format!("get {dies}\r\n"));
        get(&lives, "down.get k0");
        get(&dies, "down.get k1");
        get(&format!("{lives} {dies}"), "down.multi");
        get(&lives, "down.get k2");
    }
}

fn keys_lie_where_twemproxy_puts_them(runtime: Runtime) {
    need!("memcached", "nutcracker");
    let pair = Pair::start();
    let keys: Vec<String> = (0..1000)
        .map(|number| match number % 3 {
            0 => format!("user:{number}"),
            1 => format!("{{tag{}}}:{number}", number / 8),
            _ => format!("caf\u{e9}:\u{2603}:{number}"),
        })
        .collect();
    for (distribution, hash, tag) in [
        ("ketama", "fnv1a_64", ""),
        ("ketama", "md5", "hash_tag: \"{}\""),
        ("modula", "crc32", ""),
        ("modula", "jenkins", "hash_tag: \"{}\""),
    ] {
        let directives = [format!("distribution: {distribution}"), format!("hash: {hash}")];
        let mut directives: Vec<&str> = directives.iter().map(String::as_str).collect();
        directives.extend((!tag.is_empty()).then_some(tag));
        // Weighted, and the second without a name: its address is hashed.
        let servers =
            [format!("    - {}:3 one", pair.one.place), format!("    - {}:2", pair.two.place)];
        let text = pool(&directives, &servers);
        let places = |kind: Kind| {
            pair.one.forget_all();
            pair.two.forget_all();
            let proxy = Proxy::start_as(kind, &text);
            store(&mut proxy.client(), &keys);
            (pair.one.which_of(&keys), pair.two.which_of(&keys))
        };
        let genuine = places(Kind::Genuine);
        let ours = places(Kind::Ringkeeper(runtime));
        assert!(genuine == ours, "keys lie elsewhere with {distribution} and {hash}");
        assert_eq!(ours.0.len() + ours.1.len(), keys.len());
        assert!(!ours.0.is_empty() && !ours.1.is_empty(), "{distribution} {hash}");
    }
}

fn values_of_all_servers_come_in_the_order_of_the_keys(runtime: Runtime) {
    need!("memcached");
    let pair = Pair::start();
    let proxy = Proxy::start(runtime, &pair.pool(&[]));
    let mut client = proxy.client();
    let keys: Vec<String> = (0..1500).map(|number| format!("{number}:of-many")).collect();
    store(&mut client, &keys);
    assert!(pair.one.which_of(&keys).len() > 100 && pair.two.which_of(&keys).len() > 100);
    // Some are absent, one is named twice.
    let mut asked = vec!["absent".to_owned(), keys[7].clone()];
    asked.extend(keys.iter().rev().cloned());
    let words = asked.join(" ");
    let value = |key: &String| format!("VALUE {key} 7 {}\r\n{key}\r\n", key.len());
    let values: String = asked[1..].iter().map(value).collect();
    for command in ["get", "gat 100"] {
        let got = ask(&mut client, format!("{command} {words}\r\n"));
        assert!(got == values.clone() + "END\r\n", "{command}");
    }
    let got = ask(&mut client, format!("gets {} {} absent\r\n", keys[0], keys[1]));
    let lines: Vec<&str> = got.split("\r\n").collect();
    assert_eq!((lines[1], lines[3], lines[4]), (&*keys[0], &*keys[1], "END"), "{got}");
    let version = lines[0].rsplit(' ').next().unwrap();
    let cas = format!("cas {} 0 0 1 {version}\r\nx\r\n", keys[0]);
    assert_eq!(ask(&mut client, &cas), "STORED\r\n");
    assert_eq!(ask(&mut client, &cas), "EXISTS\r\n");
}

fn every_server_is_flushed_with_its_delay(runtime: Runtime) {
    need!("memcached");
    let pair = Pair::start();
    let proxy = Proxy::start(runtime, &pair.pool(&[]));
    let mut client = proxy.client();
    let keys: Vec<String> = (0..100).map(|number| format!("{number}:of-many")).collect();
    store(&mut client, &keys);
    assert_eq!(ask(&mut client, "flush_all 2\r\n"), "OK\r\n");
    let left = || pair.one.which_of(&keys).len() + pair.two.which_of(&keys).len();
    assert_eq!(left(), 100);
    eventually("both are flushed", || (left() == 0).then_some(()));
    store(&mut client, &keys);
    assert_eq!(ask(&mut client, "flush_all noreply\r\n"), "");
    eventually("both are flushed", || (left() == 0).then_some(()));
}

fn values_up_to_the_servers_limit_pass(runtime: Runtime) {
    need!("memcached");
    let pair = Pair::start();
    let proxy = Proxy::start(runtime, &pair.pool(&[]));
    let mut client = proxy.client();
    let keys: Vec<String> = (0..8).map(|number| format!("{number}:large")).collect();
    let value = "END\r\n".repeat(200_000);
    for key in &keys {
        let set = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
        assert!(value.len() < 1_048_576 || ask(&mut client, &set).starts_with("SERVER_ERROR"));
    }
    let value = &value[..1_000_000];
    for key in &keys {
        let set = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
        assert_eq!(ask(&mut client, set), "STORED\r\n");
        let got = ask(&mut client, format!("mg {key} v\r\n"));
        assert!(got == format!("VA 1000000\r\n{value}\r\n"), "{key}");
    }
    let expected: String =
        keys.iter().map(|key| format!("VALUE {key} 0 1000000\r\n{value}\r\n")).collect();
    let got = ask(&mut client, format!("get {}\r\n", keys.join(" ")));
    assert!(got == expected + "END\r\n", "values over two servers");
}

/// The release of pymemcache that the test was written for.
const PYMEMCACHE: &str = "pymemcache==4.0.0";

const PYMEMCACHE_SCRIPT: &str = r#"
import sys, threading
from pymemcache.client.base import Client, PooledClient
from pymemcache.exceptions import MemcacheClientError, MemcacheIllegalInputError
port = int(sys.argv[1])
c = Client(("127.0.0.1", port), default_noreply=False, timeout=20)
c.flush_all()
assert c.set("name", "laohu", expire=100, flags=5) is True
assert c.get("name") == b"laohu" and c.get("none") is None
many = {f"k{i}": str(i).encode() for i in range(200)}
assert c.set_many(many) == []
assert c.get_many(list(many)) == many and list(c.get_many(list(many))) == list(many)
assert c.get_many(["none", "k3", "k1"]) == {"k3": b"3", "k1": b"1"}
value, version = c.gets("name")
assert c.cas("name", "one", version) is True and c.cas("name", "two", version) is False
assert c.cas("none", "two", b"1") is None
assert len(c.gets_many(["k1", "k2", "none"])) == 2
assert c.add("name", "x") is False and c.replace("name", "mid") is True
assert c.append("name", "-end") is True and c.prepend("name", "start-") is True
assert c.incr("k5", 10) == 15 and c.decr("k5", 5) == 10 and c.incr("none", 1) is None
assert c.touch("k5", 100) is True and c.touch("none", 100) is False
assert c.delete("k5") is True and c.delete("k5") is False
assert c.delete_many(["k6", "k7"]) is True and c.get_many(["k6", "k7"]) == {}
assert c.set("gone", "x", expire=-1) is True and c.get("gone") is None
assert c.version().startswith(b"1.")
assert c.stats()[b"pool"] == b"alpha"
assert c.set("empty", b"") is True and c.get("empty") == b""
tricky = b"END\r\nVALUE k 0 1\r\n" * 5000
assert c.set("tricky", tricky) is True and c.get("tricky") == tricky
for bad in ("a b", "x" * 251, "a\r\nb", "a\tb"):
    try:
        c.get(bad)
        raise SystemExit(f"{bad!r} was taken")
    except MemcacheIllegalInputError:
        pass
try:
    c.incr("name", 1)
    raise SystemExit("no error")
except MemcacheClientError as error:
    assert "non-numeric" in str(error), error
assert c.raw_command("mg name v", b"\r\n").startswith(b"VA")
c.close()

quiet = Client(("127.0.0.1", port), default_noreply=True, timeout=20)
for i in range(3000):
    quiet.set(f"q{i % 50}", i)
assert quiet.get_many([f"q{i}" for i in range(50)]) == {f"q{i}": str(2950 + i).encode() for i in range(50)}
quiet.set_many({f"q{i}": "m" for i in range(50)})
quiet.delete("q1"); quiet.incr("q2", 1, noreply=True); quiet.touch("q3", 5)
assert quiet.get_many(["q0", "q1", "q2"]) == {"q0": b"m", "q2": b"m"}
quiet.quit()

pooled = PooledClient(("127.0.0.1", port), max_pool_size=4, timeout=20, default_noreply=False)
done = []
def work(number):
    for i in range(100):
        assert pooled.set(f"t{number}:{i}", i)
        assert pooled.get_many([f"t{number}:{i}", f"t{number}:{i - 1}"])[f"t{number}:{i}"] == str(i).encode()
    done.append(number)
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
assert len(done) == 4
pooled.flush_all()
assert pooled.get("t1:1") is None
print("all good")
"#;

fn pymemcache_works(runtime: Runtime) {
    need!("memcached", "python3");
    let Some(library) = python::package(PYMEMCACHE) else { return };
    let pair = Pair::start();
    for kind in [Kind::Ringkeeper(runtime), Kind::Nutcracker(runtime)] {
        let proxy = Proxy::start_as(kind, &pair.pool(&["timeout: 5000"]));
        let output = Command::new("python3")
            .args(["-c", PYMEMCACHE_SCRIPT, &proxy.place.port().to_string()])
            .env("PYTHONPATH", &library)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && text.contains("all good"), "{kind:?}: {text}");
    }
}

fn a_restarted_server_is_used_again(runtime: Runtime) {
    need!("memcached");
    let mut pair = Pair::start();
    let proxy = Proxy::start(runtime, &pair.pool(&[]));
    let mut client = proxy.client();
    let [one, two] = pair.key_of_each(&mut client);
    pair.one.kill();
    // noreply says nothing, whatever happens.
    assert_eq!(ask(&mut client, format!("set {one} 0 0 1 noreply\r\nx\r\n")), "");
    eventually("the death is told", || {
        let reply = ask(&mut client, format!("get {one}\r\n"));
        reply.starts_with("SERVER_ERROR ").then_some(())
    });
    assert_eq!(ask(&mut client, format!("get {two}\r\n")), "END\r\n");
    let reply = ask(&mut client, "flush_all\r\n");
    assert!(reply.starts_with("SERVER_ERROR Connection refused"), "{reply}");
    assert!(pair.one.run());
    eventually("the server is used again", || {
        let reply = ask(&mut client, format!("set {one} 0 0 1\r\nx\r\n"));
        (reply == "STORED\r\n").then_some(())
    });
}

fn a_hung_server_costs_its_own_requests_only(runtime: Runtime) {
    need!("memcached");
    let pair = Pair::start();
    let proxy = Proxy::start(runtime, &pair.pool(&["timeout: 2000"]));
    let mut client = proxy.client();
    let [one, two] = pair.key_of_each(&mut client);
    pair.one.signal(Signal::STOP);
    let start = Instant::now();
    client
        .send(format!("get {one}\r\nset {one} 0 0 1 noreply\r\nx\r\nmg {one} v q\r\n").as_bytes())
        .unwrap();
    let mut other = proxy.client();
    for _ in 0..20 {
        assert_eq!(ask(&mut other, format!("get {two}\r\n")), "END\r\n");
    }
    assert!(start.elapsed() < Duration::from_millis(2000), "the neighbour is not held up");
    let reply = ask(&mut client, format!("get {two}\r\n"));
    let timed_out = "SERVER_ERROR Connection timed out (server one; whether the request took \
        effect is unknown)\r\n";
    assert_eq!(reply, timed_out.repeat(2) + "END\r\n");
    pair.one.signal(Signal::CONT);
    eventually("the server is used again", || {
        (ask(&mut client, format!("get {one}\r\n")).ends_with("END\r\n")).then_some(())
    });
    // What it says late about the old requests is nobody's.
    for _ in 0..20 {
        assert_eq!(ask(&mut client, "get none\r\nmg none\r\n"), "END\r\nEN\r\n");
    }
}

fn a_dead_server_is_ejected_and_returns_after_a_probe(runtime: Runtime) {
    need!("memcached");
    let mut pair = Pair::start();
    let directives =
        ["auto_eject_hosts: true", "server_failure_limit: 1", "server_retry_timeout: 200"];
    let proxy = Proxy::start(runtime, &pair.pool(&directives));
    let mut client = proxy.client();
    let [one, _] = pair.key_of_each(&mut client);
    pair.one.kill();
    let keys = [one.clone()];
    eventually("the key moves to the other server", || {
        let reply = ask(&mut client, format!("set {one} 0 0 1\r\nx\r\n"));
        (reply == "STORED\r\n").then_some(())
    });
    assert_eq!(pair.two.which_of(&keys), keys);
    assert!(pair.one.run());
    eventually("the key is back", || {
        assert_eq!(ask(&mut client, format!("set {one} 0 0 1\r\nx\r\n")), "STORED\r\n");
        (pair.one.which_of(&keys) == keys).then_some(())
    });
}
