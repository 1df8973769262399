//! Clients as people use them, with their default settings: redis-cli, redis-py, redis-rs.
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

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use redis::{Commands, TypedCommands};

use support::Scratch;
use support::lab::{Proxy, Redis, Runtime};
use support::python;
use support::resp::{Place, request};

on_every_runtime!(
    redis_cli_runs_commands,
    redis_cli_greets_and_completes_in_a_terminal,
    redis_cli_imports_a_pipe,
    redis_py_works_with_its_defaults_and_each_protocol,
    redis_rs_works_with_its_defaults,
);

/// Two servers and the proxy that the client meets.
struct House {
    servers: [Redis; 2],
    proxy: Proxy,
}

impl House {
    fn start(runtime: Runtime) -> Self {
        let servers = [Redis::start(), Redis::start()];
        let pool = format!(
            "  redis: true\n  timeout: 5000\n  servers:\n{}\n{}",
            servers[0].line("one"),
            servers[1].line("two")
        );
        let proxy = Proxy::start(runtime, &pool);
        Self { servers, proxy }
    }

    fn port(&self) -> String {
        self.proxy.place.port().to_string()
    }

    fn keys(&self) -> usize {
        self.servers.iter().map(|server| server.keys().len()).sum()
    }

    /// Runs redis-cli with arguments and returns what it prints.
    fn cli(&self, arguments: &[&str]) -> String {
        let port = self.port();
        let output = Command::new("redis-cli")
            .args(["-p", &port])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

fn redis_cli_runs_commands(runtime: Runtime) {
    need!("redis-server", "redis-cli");
    let house = House::start(runtime);
    assert_eq!(house.cli(&["set", "hello", "world"]), "OK\n");
    assert_eq!(house.cli(&["get", "hello"]), "world\n");
    assert_eq!(house.cli(&["mget", "hello", "nothing", "hello"]), "world\n\nworld\n");
    assert_eq!(house.cli(&["-n", "0", "get", "hello"]), "world\n");
    let info = house.cli(&["info"]);
    assert!(info.contains("redis_version:7.0.15") && info.contains("pool_name:alpha"), "{info}");
    let refused = house.cli(&["multi"]);
    assert!(refused.starts_with("ERR transactions are not supported by the proxy"), "{refused}");
    assert_eq!(house.cli(&["-3", "get", "hello"]), "world\n");
    assert_eq!(house.cli(&["-r", "20", "incr", "count"]).lines().last(), Some("20"));
    assert!(house.cli(&["command", "count"]).trim().parse::<u32>().is_ok());
}

/// In a terminal redis-cli asks for COMMAND DOCS first, a reply of hundreds of kilobytes.
fn redis_cli_greets_and_completes_in_a_terminal(runtime: Runtime) {
    need!("redis-server", "redis-cli", "script");
    let house = House::start(runtime);
    let cli = format!("redis-cli -p {}", house.port());
    let mut command = Command::new("script");
    command.args(["-qec", &cli, "/dev/null"]).env("TERM", "dumb");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    input.write_all(b"set typed here\nget typed\nquit\n").unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    drop(input);
    assert!(text.contains("OK") && text.contains("\"here\""), "{text}");
    assert!(!text.contains("ERR") && !text.contains("Error"), "{text}");
    assert_eq!(house.keys(), 1);
}

fn redis_cli_imports_a_pipe(runtime: Runtime) {
    need!("redis-server", "redis-cli");
    let house = House::start(runtime);
    let scratch = Scratch::new();
    let requests: Vec<u8> = (0..5000)
        .flat_map(|number| request(&["SET", &format!("k{number}"), &"v".repeat(number % 300)]))
        .collect();
    fs::write(scratch.path("import"), requests).unwrap();
    let output = Command::new("redis-cli")
        .args(["-p", &house.port(), "--pipe"])
        .stdin(fs::File::open(scratch.path("import")).unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("errors: 0, replies: 5000"), "{text}");
    assert_eq!(house.keys(), 5000);
}

const REDIS_PY_SCRIPT: &str = r#"
import sys, threading, redis
port = int(sys.argv[1])
# What the operator's programs do: default settings, and each protocol by name.
options = {"default": {}, "2": {"protocol": 2}, "3": {"protocol": 3}}[sys.argv[2]]
r = redis.Redis(port=port, **options)
r.delete("h", "z")
assert r.ping() is True
assert r.set("name", "laohu") is True
assert r.get("name") == b"laohu"
assert r.mset({f"k{i}": i for i in range(100)}) is True
assert r.mget([f"k{i}" for i in range(100)]) == [str(i).encode() for i in range(100)]
assert r.exists("k1", "k2", "none") == 2
assert r.delete("k1", "k2", "none") == 2
assert r.hset("h", mapping={"a": 1, "b": 2}) == 2
assert r.hgetall("h") == {b"a": b"1", b"b": b"2"}
assert r.zadd("z", {"x": 1.5}) == 1
assert r.zscore("z", "x") == 1.5
assert r.eval("return KEYS[1]", 1, "k") == b"k"

plain = r.pipeline(transaction=False)
for i in range(500):
    plain.set(f"p{i}", i)
    plain.get(f"p{i}")
replies = plain.execute()
assert len(replies) == 1000 and replies[1::2] == [str(i).encode() for i in range(500)]

try:
    r.pipeline(transaction=True).set("a", 1).execute()
    raise SystemExit("a transaction was not refused")
except redis.exceptions.ResponseError as error:
    assert "transactions are not supported by the proxy" in str(error), error
assert r.get("name") == b"laohu", "the connection is in step"

text = redis.Redis(port=port, **options, decode_responses=True, client_name="me", db=0)
assert text.get("name") == "laohu"
assert text.client_getname() == "me"
assert text.info()["pool_name"] == "alpha"
try:
    redis.Redis(port=port, **options, db=1).get("name")
    raise SystemExit("another database was not refused")
except redis.exceptions.RedisError as error:
    assert "database 0 only" in str(error), error
try:
    r.blpop("list", 1)
    raise SystemExit("a blocking command was not refused")
except redis.exceptions.ResponseError as error:
    assert "blocking" in str(error), error

def work(number):
    mine = redis.Redis(port=port, **options)
    for i in range(50):
        assert mine.set(f"t{number}:{i}", i)
        assert mine.get(f"t{number}:{i}") == str(i).encode()
    done.append(number)
done = []
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
assert len(done) == 4
print("all good")
"#;

fn redis_py_works_with_its_defaults_and_each_protocol(runtime: Runtime) {
    need!("redis-server", "python3");
    let Some(library) = python::package(python::REDIS_PY) else { return };
    let house = House::start(runtime);
    for options in ["default", "2", "3"] {
        let output = Command::new("python3")
            .args(["-c", REDIS_PY_SCRIPT, &house.port(), options])
            .env("PYTHONPATH", &library)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && text.contains("all good"), "{options}: {text}");
    }
}

fn redis_rs_works_with_its_defaults(runtime: Runtime) {
    need!("redis-server");
    let house = House::start(runtime);
    let Place::Tcp(at) = &house.proxy.place else { panic!("listens on TCP") };
    let client = redis::Client::open(format!("redis://{at}/")).unwrap();
    let mut connection = client.get_connection_with_timeout(Duration::from_secs(10)).unwrap();
    Commands::set::<_, _, ()>(&mut connection, "name", "laohu").unwrap();
    assert_eq!(TypedCommands::get(&mut connection, "name").unwrap(), Some("laohu".to_owned()));
    let pairs: Vec<(String, u32)> = (0..100).map(|number| (format!("k{number}"), number)).collect();
    Commands::mset::<_, _, ()>(&mut connection, &pairs).unwrap();
    let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
    let values: Vec<u32> = Commands::mget(&mut connection, &keys).unwrap();
    assert_eq!(values, (0..100).collect::<Vec<_>>());
    let gone: u32 = Commands::del(&mut connection, &keys).unwrap();
    assert_eq!(gone, 100);

    let mut pipe = redis::pipe();
    for number in 0..200 {
        pipe.cmd("SET").arg(format!("p{number}")).arg(number).ignore();
        pipe.cmd("GET").arg(format!("p{number}"));
    }
    let values: Vec<u32> = pipe.query(&mut connection).unwrap();
    assert_eq!(values, (0..200).collect::<Vec<_>>());

    let refused = redis::cmd("MULTI").query::<()>(&mut connection).unwrap_err();
    assert!(refused.to_string().contains("transactions are not supported"), "{refused}");
    let named = redis::Client::open(format!("redis://{at}/0")).unwrap();
    let pong: String = redis::cmd("PING").query(&mut named.get_connection().unwrap()).unwrap();
    assert_eq!(pong, "PONG");
}
