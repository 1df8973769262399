//! Our binary in front of genuine Redis servers: the tutorial's pool, the same places for keys as
//! twemproxy's, every way to reach a server, servers that die, hang and come back.
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

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ringkeeper_core::command::{self, Flags, Keys};
use ringkeeper_core::limits::REPLY_DEPTH_MAX;
use rustix::process::Signal;

use support::eventually;
use support::lab::{Kind, Proxy, Redis, Runtime, test_file};
use support::resp::{Client, Place, Reply, request};

on_every_runtime!(
    the_pool_of_the_tutorial_answers,
    keys_lie_where_twemproxy_puts_them,
    commands_with_several_keys_work_over_shards,
    keys_of_one_command_on_different_servers_are_refused,
    the_deepest_replies_that_scripts_can_make_pass,
    a_password_is_asked_for_and_given,
    a_database_is_selected,
    clients_and_servers_are_reached_by_unix_sockets,
    clients_are_taken_over_ipv6_and_servers_found_by_name,
    servers_are_connected_at_start_when_the_pool_wants_it,
    a_restarted_server_is_used_again,
    a_dead_server_is_ejected_and_returns_after_a_probe,
    a_hung_server_costs_its_own_requests_only,
);

/// Two servers and the pool's lines about them.
struct Pair {
    one: Redis,
    two: Redis,
}

impl Pair {
    fn start() -> Self {
        Self { one: Redis::start(), two: Redis::start() }
    }

    /// Returns a pool of both, with more directives.
    fn pool(&self, directives: &[&str]) -> String {
        pool(directives, &[self.one.line("one"), self.two.line("two")])
    }

    /// Returns a key that lives on the first server, and one that lives on the second.
    fn key_of_each(&self, client: &mut Client) -> [String; 2] {
        let mut found = [None, None];
        for number in 0.. {
            let key = format!("probe:{number}");
            assert_eq!(client.ask(&["SET", &key, "x"]), Reply::ok());
            let is_on_one = self.one.client().ask(&["EXISTS", &key]) == Reply::Integer(1);
            assert_eq!(client.ask(&["DEL", &key]), Reply::Integer(1));
            found[usize::from(!is_on_one)].get_or_insert(key);
            if let [Some(one), Some(two)] = &found {
                return [one.clone(), two.clone()];
            }
        }
        unreachable!()
    }
}

fn pool(directives: &[&str], servers: &[String]) -> String {
    let mut text = "  redis: true\n".to_owned();
    for directive in directives {
        text += &format!("  {directive}\n");
    }
    text + "  servers:\n" + &servers.join("\n")
}

fn the_pool_of_the_tutorial_answers(runtime: Runtime) {
    need!("redis-server");
    let servers: Vec<Redis> =
        [1, 2].map(|last| Redis::start_with(Ipv4Addr::new(127, 0, 1, last).into(), &[])).into();
    // The file as it is; only addresses are this machine's.
    let mut text = test_file("tutorial/nutcracker.yml");
    for (old, server) in ["192.168.223.128:6379", "192.168.223.131:6379"].iter().zip(&servers) {
        assert!(text.contains(old), "{text}");
        text = text.replace(old, &server.place.to_string());
    }
    let pool: Vec<&str> = text.lines().filter(|line| !line.contains("listen:")).skip(1).collect();
    let proxy = Proxy::start(runtime, &pool.join("\n"));
    let mut client = proxy.client();
    assert_eq!(client.ask(&["set", "name", "laohu"]), Reply::ok());
    assert_eq!(client.ask(&["get", "name"]), Reply::bulk("laohu"));
    let holders = servers.iter().filter(|server| !server.keys().is_empty()).count();
    assert_eq!(holders, 1, "one server has the key");
}

/// Makes keys that spread: hashes of the FNV kind hardly tell keys apart that end differently.
fn keys(count: u32) -> Vec<String> {
    (0..count).map(|number| format!("{number}:of-many")).collect()
}

/// Writes many keys in one pipeline.
fn write_keys(client: &mut Client, keys: &[String]) {
    let requests: Vec<u8> = keys.iter().flat_map(|key| request(&["SET", key, "v"])).collect();
    client.send(&requests).unwrap();
    for key in keys {
        assert_eq!(client.reply().unwrap(), Reply::ok(), "{key}");
    }
}

fn keys_lie_where_twemproxy_puts_them(runtime: Runtime) {
    need!("redis-server", "nutcracker");
    let pair = Pair::start();
    let keys: Vec<String> = (0..1000)
        .map(|number| match number % 4 {
            0 => format!("user:{number}"),
            1 => format!("{{tag{}}}:{number}", number / 8),
            2 => format!("caf\u{e9}:\u{2603}:{number}"),
            _ => format!("a-rather-longer-key-with-some-structure:{number}:{number}"),
        })
        .collect();
    for (distribution, hash, tag) in [
        ("ketama", "fnv1a_64", ""),
        ("ketama", "murmur", "hash_tag: \"{}\""),
        ("ketama", "jenkins", ""),
        ("modula", "md5", ""),
        ("modula", "hsieh", "hash_tag: \"{}\""),
        ("modula", "one_at_a_time", ""),
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
            write_keys(&mut proxy.client(), &keys);
            (pair.one.keys(), pair.two.keys())
        };
        let genuine = places(Kind::Genuine);
        let ours = places(Kind::Ringkeeper(runtime));
        assert!(genuine == ours, "keys lie elsewhere with {distribution} and {hash}");
        assert_eq!(ours.0.len() + ours.1.len(), keys.len());
        assert!(!ours.0.is_empty() && !ours.1.is_empty(), "{distribution} {hash}");
    }
}

fn commands_with_several_keys_work_over_shards(runtime: Runtime) {
    need!("redis-server");
    let pair = Pair::start();
    let proxy = Proxy::start(runtime, &pair.pool(&[]));
    let mut client = proxy.client();
    let keys = keys(100);
    let mut mset = vec!["MSET".to_owned()];
    mset.extend(keys.iter().flat_map(|key| [key.clone(), format!("of {key}")]));
    assert_eq!(client.ask(&mset), Reply::ok());
    assert!(pair.one.keys().len() > 10 && pair.two.keys().len() > 10);

    let with = |command: &str| {
        let mut words = vec![command.to_owned(), "absent".to_owned()];
        words.extend(keys.iter().cloned());
        words.push(keys[0].clone());
        words
    };
    let mut expected = vec![Reply::Null];
    expected.extend(keys.iter().map(|key| Reply::bulk(format!("of {key}"))));
    expected.push(Reply::bulk(format!("of {}", keys[0])));
    assert_eq!(client.ask(&with("mget")), Reply::Array(expected));
    // A key that is named twice counts twice, as on one server.
    assert_eq!(client.ask(&with("EXISTS")), Reply::Integer(101));
    assert_eq!(client.ask(&with("TOUCH")), Reply::Integer(101));
    assert_eq!(client.ask(&["UNLINK", &keys[0], &keys[1], &keys[2], "nothing"]), Reply::Integer(3));
    assert_eq!(client.ask(&with("DEL")), Reply::Integer(97));
    assert!(pair.one.keys().is_empty() && pair.two.keys().is_empty());

    let [one, two] = pair.key_of_each(&mut client);
    assert_eq!(client.ask(&["LPUSH", &one, "a list"]), Reply::Integer(1));
    // MGET of a list is nothing, as Redis has it, and MSET replaces it.
    assert_eq!(client.ask(&["MGET", &one, &two]), Reply::Array(vec![Reply::Null, Reply::Null]));
    assert_eq!(client.ask(&["MSET", &one, "1", &two, "2"]), Reply::ok());
    assert_eq!(
        client.ask(&["MGET", &two, &one]),
        Reply::Array(vec![Reply::bulk("2"), Reply::bulk("1")])
    );
}

fn keys_of_one_command_on_different_servers_are_refused(runtime: Runtime) {
    need!("redis-server");
    let pair = Pair::start();
    let proxy = Proxy::start(runtime, &pair.pool(&["hash_tag: \"{}\""]));
    let mut client = proxy.client();
    let [one, two] = pair.key_of_each(&mut client);
    for words in [
        &["SUNION", &one, &two][..],
        &["ZUNION", "2", &one, &two],
        &["RPOPLPUSH", &one, &two],
        &["PFMERGE", &one, &two],
        &["RENAME", &one, &two],
        &["EVAL", "return 1", "2", &one, &two],
        &["SORT", &one, "STORE", &two],
        &["BITOP", "AND", &one, &one, &two],
    ] {
        let reply = client.ask(words);
        assert!(reply.is_error(), "{words:?}: {reply:?}");
        assert!(reply.text().starts_with("CROSSSLOT "), "{words:?}: {reply:?}");
    }
    let [left, right] = [format!("{{{one}}}:left"), format!("{{{one}}}:right")];
    assert_eq!(client.ask(&["SADD", &left, "a"]), Reply::Integer(1));
    assert_eq!(client.ask(&["SADD", &right, "b"]), Reply::Integer(1));
    assert_eq!(client.ask(&["SUNION", &left, &right]).items().len(), 2);
    assert_eq!(client.ask(&["SUNIONSTORE", &two, &two]), Reply::Integer(0));
    assert_eq!(client.ask(&["EVAL", "return KEYS[2]", "2", &left, &right]), Reply::bulk(&right));
    assert_eq!(client.ask(&["PING"]), Reply::Simple("PONG".to_owned()));
}

fn the_deepest_replies_that_scripts_can_make_pass(runtime: Runtime) {
    need!("redis-server");
    let server = Redis::start();
    let proxy = Proxy::start(runtime, &pool(&[], &[server.line("one")]));
    let (mut direct, mut client) = (server.client(), proxy.client());
    for client in [&mut direct, &mut client] {
        client.send(&request(&["HELLO", "3"])).unwrap();
        assert!(client.all_within(Duration::from_millis(200)).starts_with('%'));
    }
    // The server stops at the end of Lua's stack, long before these do.
    let build = "local t = {} local x = t for i = 1, 20000 do x[1] = {} x = x[1] end return t";
    let build_sets = "redis.setresp(3) local t = {set = {}} local x = t.set \
                      for i = 1, 20000 do local y = {set = {}} x[y] = true x = y.set end return t";
    for (script, head) in [(build, "*1\r\n"), (build_sets, "~1\r\n")] {
        let question = request(&["EVAL", script, "1", "key"]);
        direct.send(&question).unwrap();
        let expected = direct.all_within(Duration::from_millis(500));
        let depth = expected.matches(head).count();
        assert!((1000..REPLY_DEPTH_MAX).contains(&depth), "{depth}");
        assert!(expected.ends_with("-ERR reached lua stack limit\r\n"), "{depth}");
        client.send(&question).unwrap();
        assert!(client.as_long_as(&expected) == expected, "{depth} {head:?}");
    }
    // Both on the one connection to the server that speaks RESP3.
    assert_eq!(connections_of(&server), 2, "one is the test's own");
}

fn a_password_is_asked_for_and_given(runtime: Runtime) {
    need!("redis-server");
    let server = Redis::start_with(Ipv4Addr::LOCALHOST.into(), &["--requirepass", "sesame"]);
    let servers = [server.line("one")];
    let proxy = Proxy::start(runtime, &pool(&["redis_auth: sesame"], &servers));
    let mut client = proxy.client();
    assert!(client.ask(&["GET", "k"]).text().starts_with("NOAUTH "));
    assert!(client.ask(&["AUTH", "open"]).text().starts_with("WRONGPASS "));
    assert!(client.ask(&["GET", "k"]).text().starts_with("NOAUTH "));
    assert_eq!(client.ask(&["AUTH", "default", "sesame"]), Reply::ok());
    assert_eq!(client.ask(&["SET", "k", "v"]), Reply::ok());
    assert_eq!(client.ask(&["GET", "k"]), Reply::bulk("v"));
    assert!(proxy.client().ask(&["GET", "k"]).is_error(), "each connection for itself");

    let wrong = Proxy::start(runtime, &pool(&["redis_auth: simsim"], &servers));
    let mut client = wrong.client();
    assert_eq!(client.ask(&["AUTH", "simsim"]), Reply::ok());
    let reply = client.ask(&["GET", "k"]);
    assert!(reply.is_error(), "the server knows another password: {reply:?}");
}

fn a_database_is_selected(runtime: Runtime) {
    need!("redis-server");
    let server = Redis::start();
    let proxy = Proxy::start(runtime, &pool(&["redis_db: 3"], &[server.line("one")]));
    let mut client = proxy.client();
    assert_eq!(client.ask(&["SET", "k", "v"]), Reply::ok());
    assert_eq!(client.ask(&["SELECT", "3"]), Reply::ok());
    assert!(client.ask(&["SELECT", "0"]).is_error());
    assert!(server.keys().is_empty(), "database 0 is not touched");
    let mut direct = server.client();
    assert_eq!(direct.ask(&["SELECT", "3"]), Reply::ok());
    assert_eq!(direct.ask(&["GET", "k"]), Reply::bulk("v"));
}

fn clients_and_servers_are_reached_by_unix_sockets(runtime: Runtime) {
    need!("redis-server");
    let servers = [Redis::start_unix(&[]), Redis::start_unix(&[])];
    let text = pool(&[], &[servers[0].line("one"), servers[1].line("two")]);
    let place = support::Scratch::new();
    let path: PathBuf = place.path("proxy.sock");
    let proxy =
        Proxy::try_start(Kind::Ringkeeper(runtime), Place::Unix(path.clone()), "0620", &text)
            .unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o620);
    let keys = keys(50);
    write_keys(&mut proxy.client(), &keys);
    let counts = servers.each_ref().map(|server| server.keys().len());
    assert_eq!(counts.iter().sum::<usize>(), 50);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

fn clients_are_taken_over_ipv6_and_servers_found_by_name(runtime: Runtime) {
    need!("redis-server");
    let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    if std::net::TcpListener::bind((v6, 0)).is_err() {
        return support::lab::skip("this machine has no IPv6 loopback");
    }
    let (four, six) = (Redis::start(), Redis::start_with(v6, &[]));
    let servers = [format!("    - localhost:{}:1 four", four.place.port()), six.line("six")];
    let place = Place::Tcp(support::lab::free_address(v6));
    let proxy =
        Proxy::try_start(Kind::Ringkeeper(runtime), place, "", &pool(&[], &servers)).unwrap();
    let keys = keys(50);
    write_keys(&mut proxy.client(), &keys);
    assert_eq!(four.keys().len() + six.keys().len(), 50);
    assert!(!four.keys().is_empty() && !six.keys().is_empty());
}

/// Counts the connections of a server but the asking one.
fn connections_of(server: &Redis) -> usize {
    server.client().ask(&["CLIENT", "LIST"]).text().lines().count() - 1
}

fn servers_are_connected_at_start_when_the_pool_wants_it(runtime: Runtime) {
    need!("redis-server");
    let pair = Pair::start();
    let directives = ["preconnect: true", "server_connections: 2"];
    let _proxy = Proxy::start(runtime, &pair.pool(&directives));
    for server in [&pair.one, &pair.two] {
        eventually("both connections of each server are up", || {
            (connections_of(server) == 2).then_some(())
        });
    }
    let lazy = Pair::start();
    let proxy = Proxy::start(runtime, &lazy.pool(&[]));
    assert_eq!(proxy.client().ask(&["PING"]), Reply::Simple("PONG".to_owned()));
    assert_eq!(connections_of(&lazy.one) + connections_of(&lazy.two), 0);
}

fn a_restarted_server_is_used_again(runtime: Runtime) {
    need!("redis-server");
    let mut pair = Pair::start();
    let proxy = Proxy::start(runtime, &pair.pool(&["timeout: 2000"]));
    let mut client = proxy.client();
    let [one, two] = pair.key_of_each(&mut client);
    for round in 0..3 {
        pair.one.kill();
        let reply = eventually("a request fails", || {
            let reply = client.ask(&["SET", &one, "x"]);
            reply.is_error().then_some(reply)
        });
        assert!(reply.text().contains("one"), "the error names the server: {reply:?}");
        assert_eq!(client.ask(&["SET", &two, "y"]), Reply::ok(), "the other one serves");
        assert!(pair.one.run(), "round {round}");
        eventually("the server is used again", || {
            (client.ask(&["SET", &one, "z"]) == Reply::ok()).then_some(())
        });
        assert_eq!(client.ask(&["GET", &one]), Reply::bulk("z"));
    }
}

fn a_dead_server_is_ejected_and_returns_after_a_probe(runtime: Runtime) {
    need!("redis-server");
    let mut pair = Pair::start();
    let directives = [
        "auto_eject_hosts: true",
        "server_failure_limit: 2",
        "server_retry_timeout: 200",
        "timeout: 1000",
    ];
    let proxy = Proxy::start(runtime, &pair.pool(&directives));
    let mut client = proxy.client();
    let [one, _] = pair.key_of_each(&mut client);
    pair.one.kill();
    eventually("the key goes to the other server", || {
        (client.ask(&["SET", &one, "there"]) == Reply::ok()).then_some(())
    });
    assert_eq!(pair.two.client().ask(&["GET", &one]), Reply::bulk("there"));

    // twemproxy lets requests find out whether the server is back; here a probe does.
    let mut errors = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1000) {
        errors += u32::from(client.ask(&["GET", &one]).is_error());
    }
    assert_eq!(errors, 0, "no request is spent on a dead server");
    assert_eq!(proxy.stats()["alpha"]["server_ejects"], 1);

    assert!(pair.one.run());
    eventually("the server is back in the ring", || {
        let reply = client.ask(&["SET", &one, "here"]);
        assert_eq!(reply, Reply::ok(), "no error on the way back");
        (pair.one.client().ask(&["GET", &one]) == Reply::bulk("here")).then_some(())
    });
}

fn a_hung_server_costs_its_own_requests_only(runtime: Runtime) {
    need!("redis-server");
    let pair = Pair::start();
    let proxy = Proxy::start(runtime, &pair.pool(&["timeout: 1000"]));
    let mut client = proxy.client();
    let [one, two] = pair.key_of_each(&mut client);
    let mut neighbour = proxy.client();
    pair.one.signal(Signal::STOP);
    let start = Instant::now();
    client.send(&request(&["GET", &one])).unwrap();
    let mut slowest = Duration::ZERO;
    let mut served = 0;
    while start.elapsed() < Duration::from_millis(800) {
        let asked = Instant::now();
        assert_eq!(neighbour.ask(&["SET", &two, "y"]), Reply::ok());
        slowest = slowest.max(asked.elapsed());
        served += 1;
    }
    let reply = client.reply().unwrap();
    let took = start.elapsed();
    assert!(reply.text().starts_with("ERR Connection timed out"), "{reply:?}");
    assert!(took >= Duration::from_millis(995) && took < Duration::from_secs(10), "{took:?}");
    assert!(served > 10 && slowest < Duration::from_millis(800), "{served}, {slowest:?}");

    pair.one.signal(Signal::CONT);
    eventually("the server is used again", || {
        (client.ask(&["SET", &one, "z"]) == Reply::ok()).then_some(())
    });
    assert_eq!(client.ask(&["GET", &one]), Reply::bulk("z"), "no late reply is taken for ours");
}

/// What a server tells about a command.
struct Told {
    arity: i64,
    flags: BTreeSet<String>,
    /// First key, last key, step.
    keys: [i64; 3],
    /// Then the flags are the subcommands' own.
    has_subcommands: bool,
}

/// What the server says about each of its commands.
fn commands_of_the_server() -> BTreeMap<String, Told> {
    let number = |reply: &Reply| match reply {
        Reply::Integer(number) => *number,
        other => panic!("{other:?}"),
    };
    let reply = Redis::start().client().ask(&["COMMAND"]);
    let entry = |entry: &Reply| {
        let entry = entry.items();
        let flags = entry[2].items().iter().map(Reply::text).collect();
        let keys = [3, 4, 5].map(|at| number(&entry[at]));
        let has_subcommands = !entry[9].items().is_empty();
        (entry[0].text(), Told { arity: number(&entry[1]), flags, keys, has_subcommands })
    };
    reply.items().iter().map(entry).collect()
}

#[test]
fn the_command_table_is_the_servers_own() {
    need!("redis-server");
    let theirs = commands_of_the_server();
    let ours: BTreeMap<&str, &command::Command> =
        command::all().iter().map(|command| (command.name, command)).collect();
    let mut differences = Vec::new();
    for (name, Told { arity, flags, keys, has_subcommands }) in &theirs {
        let Some(command) = ours.get(name.as_str()) else {
            differences.push(format!("{name} is missing"));
            continue;
        };
        if i64::from(command.arity) != *arity {
            differences.push(format!("{name}: arity {} is not {arity}", command.arity));
        }
        for (flag, word) in [(Flags::WRITE, "write"), (Flags::READONLY, "readonly")] {
            if !has_subcommands && command.flags.contains(flag) != flags.contains(word) {
                differences.push(format!("{name}: flag {word}"));
            }
        }
        if let Keys::Range { first, last, step } = command.keys
            && !flags.contains("movablekeys")
        {
            let range = [i64::from(first), i64::from(last), i64::from(step)];
            if range != *keys {
                differences.push(format!("{name}: keys {range:?} are not {keys:?}"));
            }
        }
        if matches!(command.keys, Keys::None) && keys[0] != 0 {
            differences.push(format!("{name}: keys {keys:?} are not seen"));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
    assert!(theirs.len() > 200);
}
