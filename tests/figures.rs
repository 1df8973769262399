//! What operators see: metrics, health and status over HTTP, the slow log, latencies and clients on
//! the proxy port. With genuine Redis servers behind, and `redis-cli` and `promtool` in front.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use support::eventually;
use support::lab::{Kind, Proxy, Redis, Runtime, program};
use support::resp::{Client, Place, Reply};

on_every_runtime!(
    metrics_are_good_by_the_rules_of_prometheus,
    what_alerts_and_dashboard_ask_for_is_served,
    figures_of_two_workers_are_one_whole,
    the_slow_log_and_latencies_are_read_with_redis_cli,
    clients_of_all_workers_are_listed_and_killed,
    health_follows_the_servers,
    only_the_token_changes_something,
    foreign_pages_get_nothing,
    a_failed_reload_is_a_figure,
    keys_are_watched_on_demand,
    examples_are_streamed,
    by_its_old_name_the_program_has_no_admin_port,
);

/// A reply over HTTP.
struct Page {
    status: u16,
    body: String,
}

impl Page {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Sends a request with the given lines between its first and its end, and reads the reply.
fn ask(mut stream: impl Read + Write, request: &str, fields: &[&str]) -> Page {
    let mut text = format!("{request} HTTP/1.1\r\nConnection: close\r\n");
    for field in fields {
        text += &format!("{field}\r\n");
    }
    stream.write_all((text + "\r\n").as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{reply}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Page { status, body: body.to_owned() }
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.admin()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn get(proxy: &Proxy, path: &str) -> Page {
    ask(connect(proxy), &format!("GET {path}"), &["Host: localhost"])
}

/// The value of every sample, by its name and labels.
fn metrics(proxy: &Proxy) -> BTreeMap<String, f64> {
    let page = get(proxy, "/metrics");
    assert_eq!(page.status, 200);
    let samples = page.body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn pool(redis: &Redis) -> String {
    format!("  redis: true\n  timeout: 2000\n  servers:\n{}", redis.line("one"))
}

fn redis_cli(place: &Place, arguments: &[&str]) -> String {
    let port = place.port().to_string();
    let output = Command::new(program("redis-cli").unwrap())
        .args(["-p", &port])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn metrics_are_good_by_the_rules_of_prometheus(runtime: Runtime) {
    need!("redis-server", "promtool");
    let redis = Redis::start();
    let proxy = Proxy::start(runtime, &pool(&redis));
    let mut client = proxy.client();
    client.ask(&["SET", "a", "1"]);
    client.ask(&["GET", "a"]);
    client.ask(&["EVAL", "return 1", "0"]);
    let page = get(&proxy, "/metrics");
    let mut promtool = Command::new(program("promtool").unwrap())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(page.body.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for class in ["read", "write", "other"] {
        let count = format!(
            "ringkeeper_request_duration_seconds_count{{pool=\"alpha\",server=\"one\",\
             class=\"{class}\"}} 1\n"
        );
        assert!(page.body.contains(&count), "{count} in {}", page.body);
    }
    let backend = match runtime {
        Runtime::Uring => "ringkeeper_io_backend_info{backend=\"io_uring\",",
        Runtime::Tokio => "ringkeeper_io_backend_info{backend=\"tokio\",reason=\"asked for\"} 1\n",
    };
    assert!(page.body.contains(backend));
}

/// Returns the names of our metrics in a text.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).filter(|word| word.starts_with("ringkeeper_")).collect()
}

fn what_alerts_and_dashboard_ask_for_is_served(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let dead = Place::Tcp(([127, 0, 0, 1], 1).into());
    let lines = format!("{}\n{}", pool(&redis), support::lab::server_line(&dead, "dead"));
    let proxy = Proxy::start(runtime, &lines);
    // Something of everything: replies, an error, a client.
    let mut client = proxy.client();
    for number in 0..20 {
        let _ = client.ask(&["GET", &format!("k{number}")]);
    }
    let page = get(&proxy, "/metrics").body;
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let served: BTreeSet<&str> = samples.filter_map(|line| line.split(['{', ' ']).next()).collect();
    let conf = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    for file in ["alerts.yml", "grafana-dashboard.json"] {
        let text = std::fs::read_to_string(conf.join(file)).unwrap();
        let asked = metric_names(&text);
        assert!(asked.len() > 8, "{asked:?}");
        for name in asked {
            // Told once there is one: this server has not been ejected, nobody was refused.
            let is_declared = page.contains(&format!("# TYPE {name} "));
            assert!(served.contains(name) || is_declared, "{file} asks for {name}");
        }
    }
    // Those that an alert compares with a number are there before anything happens.
    for name in ["worker_up", "server_up", "server_in_ring", "pool_draining", "io_backend_info"] {
        assert!(served.contains(format!("ringkeeper_{name}").as_str()), "{name}");
    }
}

fn figures_of_two_workers_are_one_whole(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let proxy = Proxy::start_as(Kind::Threaded(runtime, 2), &pool(&redis));
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let key = format!("key:{number}");
        for _ in 0..5 {
            assert_eq!(client.ask(&["SET", &key, "x"]), Reply::ok());
        }
    }
    let metrics = metrics(&proxy);
    assert_eq!(metrics["ringkeeper_server_requests_total{pool=\"alpha\",server=\"one\"}"], 20.0);
    assert_eq!(metrics["ringkeeper_pool_clients{pool=\"alpha\"}"], 4.0);
    assert_eq!(metrics["ringkeeper_worker_clients{worker=\"0\"}"], 2.0);
    assert_eq!(metrics["ringkeeper_worker_clients{worker=\"1\"}"], 2.0);
    let stats = proxy.stats();
    assert_eq!(stats["alpha"]["one"]["requests"], 20);
    assert_eq!(stats["alpha"]["client_connections"], 4);
    assert_eq!(get(&proxy, "/stats.json").json()["alpha"]["one"]["responses"], 20);
    let status = get(&proxy, "/status.json").json();
    assert_eq!(status["workers"].as_array().unwrap().len(), 2);
    let durations = &status["pools"][0]["servers"][0]["durations"]["write"];
    assert_eq!(durations["count"], 20);
    assert!(durations["p99_ms"].as_f64() <= durations["max_ms"].as_f64());
    // A connection asks one worker, and all are added up.
    let info = clients[0].ask(&["INFO"]);
    let Reply::Bulk(info) = info else { panic!("{info:?}") };
    let info = String::from_utf8(info).unwrap();
    assert!(info.contains("workers_answering:2\r\n") && info.contains("requests=20,"), "{info}");
}

fn the_slow_log_and_latencies_are_read_with_redis_cli(runtime: Runtime) {
    need!("redis-server", "redis-cli");
    let redis = Redis::start();
    let kind = Kind::Threaded(runtime, 2);
    let proxy = Proxy::start_with(kind, &pool(&redis), &["--slow-ms", "20"]);
    let mut clients = [proxy.client(), proxy.client()];
    for client in &mut clients {
        client.ask(&["SET", "quick", "1"]);
        redis.client().ask(&["CLIENT", "PAUSE", "60", "ALL"]);
        client.ask(&["GET", "slow:key"]);
    }
    let place = &proxy.place;
    assert_eq!(redis_cli(place, &["SLOWLOG", "LEN"]).trim(), "2");
    let log = redis_cli(place, &["SLOWLOG", "GET"]);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.iter().filter(|line| **line == "slow:key").count(), 2, "{log}");
    assert!(!log.contains("quick") && log.contains("127.0.0.1:"), "{log}");
    assert_eq!(lines[1].len(), 10, "seconds since 1970: {log}");
    assert!(lines[2].parse::<u64>().unwrap() >= 20_000, "microseconds: {log}");
    let rows = get(&proxy, "/slowlog.json").json();
    assert_eq!(rows[0]["server"], "one");
    assert_eq!(redis_cli(place, &["SLOWLOG", "RESET"]).trim(), "OK");
    assert_eq!(redis_cli(place, &["SLOWLOG", "LEN"]).trim(), "0");
    let histogram = redis_cli(place, &["LATENCY", "HISTOGRAM", "get"]);
    let lines: Vec<&str> = histogram.lines().collect();
    assert_eq!(lines[..4], ["get", "calls", "2", "histogram_usec"], "{histogram}");
    assert!(redis_cli(place, &["-3", "LATENCY", "HISTOGRAM"]).contains("set"));
}

fn clients_of_all_workers_are_listed_and_killed(runtime: Runtime) {
    need!("redis-server", "redis-cli");
    let redis = Redis::start();
    let proxy = Proxy::start_as(Kind::Threaded(runtime, 2), &pool(&redis));
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.ask(&["CLIENT", "SETNAME", &format!("client-{number}")]);
    }
    let list = redis_cli(&proxy.place, &["CLIENT", "LIST"]);
    assert_eq!(list.lines().filter(|line| line.contains(" name=client-")).count(), 4, "{list}");
    let id_of = |name: &str| {
        let row = list.lines().find(|line| line.contains(name)).unwrap();
        row.strip_prefix("id=").unwrap().split(' ').next().unwrap().to_owned()
    };
    for number in 0..2 {
        let id = id_of(&format!("name=client-{number} "));
        assert_eq!(redis_cli(&proxy.place, &["CLIENT", "KILL", "ID", &id]).trim(), "1");
    }
    for client in &mut clients[..2] {
        assert!(client.try_ask(&["PING"]).is_err());
    }
    for client in &mut clients[2..] {
        assert_eq!(client.ask(&["PING"]), Reply::Simple("PONG".to_owned()));
    }
    assert_eq!(redis_cli(&proxy.place, &["CLIENT", "KILL", "TYPE", "normal"]).trim(), "2");
}

fn health_follows_the_servers(runtime: Runtime) {
    need!("redis-server");
    let mut redis = Redis::start();
    let proxy = Proxy::start(runtime, &pool(&redis));
    assert_eq!(proxy.client().ask(&["PING"]), Reply::Simple("PONG".to_owned()));
    assert_eq!((get(&proxy, "/healthz").status, get(&proxy, "/readyz").status), (200, 200));
    proxy.client().ask(&["GET", "a"]);
    redis.kill();
    eventually("the pool is found useless", || {
        let _ = proxy.client().try_ask(&["GET", "a"]);
        (get(&proxy, "/readyz").status == 503).then_some(())
    });
    assert_eq!(get(&proxy, "/healthz").status, 200);
    let up = "ringkeeper_server_up{pool=\"alpha\",server=\"one\"}";
    assert_eq!(metrics(&proxy)[up], 0.0);
    assert!(metrics(&proxy)["ringkeeper_pool_errors_total{pool=\"alpha\",kind=\"refused\"}"] > 0.0);
    assert!(redis.run());
    eventually("the pool is in order again", || {
        let _ = proxy.client().try_ask(&["GET", "a"]);
        (get(&proxy, "/readyz").status == 200).then_some(())
    });
}

fn only_the_token_changes_something(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let token = support::Scratch::new();
    token.write("token", "0123456789abcdef\n");
    let token_file = token.path("token").display().to_string();
    let socket = token.path("admin.sock");
    let admin = format!("unix:{}", socket.display());
    let options = ["--admin", &admin, "--admin-token-file", &token_file, "--slow-ms", "0"];
    let proxy = Proxy::start_with(Kind::Ringkeeper(runtime), &pool(&redis), &options);
    proxy.client().ask(&["GET", "a"]);
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ask = |request: &str, fields: &[&str]| {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        ask(stream, request, &[&["Host: x"], fields].concat())
    };
    let count = || ask("GET /slowlog.json", &[]).json().as_array().unwrap().len();
    assert_eq!(count(), 1);
    assert_eq!(ask("POST /slowlog/reset", &[]).status, 401);
    assert_eq!(ask("POST /slowlog/reset", &["Authorization: Bearer 0"]).status, 401);
    assert_eq!(count(), 1);
    let right = ["Authorization: Bearer 0123456789abcdef"];
    assert_eq!(ask("POST /slowlog/reset", &right).status, 200);
    assert_eq!(count(), 0);
}

fn foreign_pages_get_nothing(runtime: Runtime) {
    let redis = Place::Tcp(([127, 0, 0, 1], 1).into());
    let line = support::lab::server_line(&redis, "one");
    let pool = format!("  redis: true\n  servers:\n{line}");
    let options = ["--admin-host", "proxy.example"];
    let proxy = Proxy::start_with(Kind::Ringkeeper(runtime), &pool, &options);
    for (fields, status) in [
        (["Host: attacker.example", "Accept: */*"], 421),
        (["Host: localhost:1", "Origin: http://attacker.example"], 403),
        (["Host: proxy.example", "Accept: */*"], 200),
    ] {
        let page = ask(connect(&proxy), "GET /metrics", &fields);
        assert_eq!(page.status, status, "{fields:?}");
        assert_eq!(page.body.contains("ringkeeper_pool"), status == 200);
    }
}

fn a_failed_reload_is_a_figure(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let proxy = Proxy::start(runtime, &pool(&redis));
    let success = "ringkeeper_config_last_reload_success";
    assert_eq!(metrics(&proxy)[success], 1.0);
    let good = proxy.scratch.read("alpha.yml");
    proxy.scratch.write("alpha.yml", "alpha:\n  listen: nonsense\n");
    proxy.process.signal(Signal::HUP);
    eventually("the failure is seen", || (metrics(&proxy)[success] == 0.0).then_some(()));
    proxy.scratch.write("alpha.yml", &good);
    proxy.process.signal(Signal::HUP);
    eventually("the success is seen", || (metrics(&proxy)[success] == 1.0).then_some(()));
}

fn keys_are_watched_on_demand(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let kind = Kind::Threaded(runtime, 2);
    let proxy = Proxy::start_with(kind, &pool(&redis), &["--watch-keys"]);
    let mut clients = [proxy.client(), proxy.client()];
    for client in &mut clients {
        for _ in 0..10 {
            client.ask(&["GET", "hot"]);
        }
        client.ask(&["SET", "big", &"x".repeat(10_000)]);
    }
    let found = get(&proxy, "/keys.json").json();
    assert_eq!(
        (&found["hot"][0]["key"], &found["hot"][0]["requests"]),
        (&"hot".into(), &20.into())
    );
    assert_eq!(found["big"][0]["key"], "big");
    assert!(found["big"][0]["bytes"].as_u64() > Some(10_000));
}

fn examples_are_streamed(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let proxy = Proxy::start(runtime, &pool(&redis));
    let mut stream = connect(&proxy);
    stream.write_all(b"GET /tail HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut client = proxy.client();
    let mut text = String::new();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    eventually("an example comes", || {
        for _ in 0..50 {
            client.ask(&["GET", "sampled"]);
        }
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).unwrap_or(0);
        text.push_str(&String::from_utf8_lossy(&piece[..count]));
        text.contains("\"key\":\"sampled\"").then_some(())
    });
    let line = text.lines().find(|line| line.starts_with('{')).unwrap();
    let row: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&row["pool"], &row["command"]), (&"alpha".into(), &"get".into()));
}

fn by_its_old_name_the_program_has_no_admin_port(runtime: Runtime) {
    let redis = Place::Tcp(([127, 0, 0, 1], 1).into());
    let line = support::lab::server_line(&redis, "one");
    let proxy =
        Proxy::start_as(Kind::Nutcracker(runtime), &format!("  redis: true\n  servers:\n{line}"));
    assert!(TcpStream::connect(proxy.admin()).is_err());
    assert_eq!(proxy.stats()["alpha"]["one"]["requests"], 0);
    assert_eq!(proxy.stats()["version"], "0.5.0");
    let log = proxy.scratch.read("log");
    assert!(!log.contains("administration"), "{log}");
}

#[test]
fn each_alert_fires_once() {
    need!("promtool");
    let conf = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let read = |name: &str| std::fs::read_to_string(conf.join(name)).unwrap();
    let (rules, tests) = (read("alerts.yml"), read("alerts.test.yml"));
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 8, "{alerts:?}");
    for alert in alerts {
        let of_alert = tests.split("\n  - name: ").find(|test| test.starts_with(alert));
        let fires = of_alert.is_some_and(|test| test.contains("\n          - exp_labels: "));
        assert!(fires, "{alert} is never made to fire");
    }
    let output = Command::new(program("promtool").unwrap())
        .args(["test", "rules", "alerts.test.yml"])
        .current_dir(&conf)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
