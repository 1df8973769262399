//! The admin listener and the statistics port, with workers behind them, in virtual time.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod desk;

use std::time::Duration;

use desk::{Desk, get, post};
use ringkeeper_core::admin::metrics::{FAMILIES, Gathered, Kind, render};
use ringkeeper_core::admin::watch::Watched;
use ringkeeper_core::admin::{Facts, ROUTES, Reload};
use ringkeeper_core::io::{ShardCondition, ShardNews};
use ringkeeper_core::limits::{ADMIN_CONNECTIONS_MAX, ADMIN_IDLE, ANSWER_DEADLINE};
use ringkeeper_core::stats::{
    MasterFigures, ReplicaFigures, RouterFigures, RouterState, Told, WatchFigures,
};

#[test]
fn every_page_answers_and_the_index_lists_it() {
    let mut desk = Desk::new(2);
    let index = desk.fetch(&get("/"));
    for route in ROUTES {
        assert!(index.body.contains(route.path), "{} in {}", route.path, index.body);
        if route.is_change || ["/tail", "/events"].contains(&route.path) {
            continue;
        }
        let reply = desk.fetch(&get(route.path));
        assert_eq!(reply.status, 200, "{}: {}", route.path, reply.body);
        let is_json = reply.head.contains("application/json");
        assert_eq!(is_json, route.path.ends_with(".json"), "{}", reply.head);
        if is_json {
            let _: serde_json::Value = serde_json::from_str(&reply.body).expect(route.path);
        }
    }
}

#[test]
fn metrics_have_every_family_once_with_help_and_type() {
    let mut desk = Desk::new(2);
    desk.traffic();
    let of_pools = desk.fetch(&get("/metrics")).body;
    let of_masters = metrics_of_masters();
    for family in FAMILIES {
        let name = family.name;
        // Those of redis_exporter's names and of shards have samples only where masters are watched.
        let is_of_masters =
            name.starts_with("redis_sentinel_") || name.starts_with("ringkeeper_shard_");
        assert!(is_of_masters || name.starts_with("ringkeeper_"), "{name}");
        let text = if is_of_masters { &of_masters } else { &of_pools };
        assert_eq!(family.kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert_eq!(text.matches(&format!("# HELP {name} ")).count(), 1, "{name}");
        assert_eq!(text.matches(&format!("# TYPE {name} {}\n", family.kind.name())).count(), 1);
        let suffix = if family.kind == Kind::Histogram { "_bucket" } else { "" };
        let sample = text.lines().find(|line| {
            let rest = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(suffix));
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let sample = sample.unwrap_or_else(|| panic!("no sample of {name}"));
        for label in family.labels.split(", ").filter(|label| !label.is_empty()) {
            assert!(sample.contains(&format!("{label}=\"")), "{label} in {sample}");
        }
        assert_eq!(sample.contains('{'), !family.labels.is_empty(), "{sample}");
    }
}

/// The metrics of a process that watches one master, which has moved once.
fn metrics_of_masters() -> String {
    let replica = |is_up| ReplicaFigures { address: "10.0.0.2:1".to_owned(), is_up, offset: None };
    let master = MasterFigures {
        name: "m".to_owned(),
        address: "10.0.0.1:1".to_owned(),
        status: "ok",
        answered_ago: Some(Duration::from_millis(20)),
        replicas: vec![replica(true), replica(false)],
        ..MasterFigures::default()
    };
    let mut watched = Watched {
        figures: Some(WatchFigures { masters: vec![master], ..WatchFigures::default() }),
        ..Watched::default()
    };
    let news = ShardNews {
        shard: "m".into(),
        epoch: 3,
        address: ([10, 0, 0, 1], 1).into(),
        condition: ShardCondition::Serving,
        valid_until: None,
    };
    watched.shards.insert("m".to_owned(), news);
    let text = "m 10.0.0.9 1 10.0.0.1 1".to_owned();
    watched.chronicle.note(Told { unix_micros: 5_000_000, name: "+switch-master", text });
    let facts = Facts::default();
    let reload = Reload { is_good: true, unix_seconds: 0 };
    let (workers, pools) = (&[], &[]);
    let text = render(&Gathered {
        facts: &facts,
        reload,
        workers_due: 0,
        workers,
        pools,
        watched: &watched,
        routers: &[],
        balance: &[],
    });
    assert!(text.contains("\nringkeeper_shard_epoch{shard=\"m\",address=\"10.0.0.1:1\"} 3\n"));
    assert!(text.contains("\nringkeeper_shard_condition{shard=\"m\",condition=\"serving\"} 1\n"));
    let ok = "redis_sentinel_master_ok_slaves{master_name=\"m\",master_address=\"10.0.0.1:1\"} 1";
    assert!(text.lines().any(|line| line == ok), "{text}");
    text
}

#[test]
fn figures_of_all_workers_are_added_up() {
    let mut desk = Desk::new(2);
    desk.traffic();
    let text = desk.fetch(&get("/metrics")).body;
    let sample = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("{name} in {text}")).rsplit(' ').next().unwrap()
    };
    // Each of the two workers has served one GET and one SET of its own client.
    assert_eq!(sample("ringkeeper_pool_clients{pool=\"alpha\"}"), "2");
    assert_eq!(sample("ringkeeper_server_requests_total{pool=\"alpha\",server=\"one\"}"), "4");
    assert_eq!(
        sample(
            "ringkeeper_request_duration_seconds_bucket{pool=\"alpha\",server=\"one\",\
             class=\"read\",le=\"0.001024\"}"
        ),
        "2"
    );
    assert_eq!(
        sample(
            "ringkeeper_request_duration_seconds_sum{pool=\"alpha\",server=\"one\",\
             class=\"write\"}"
        ),
        "0.002000"
    );
    assert_eq!(sample("ringkeeper_worker_up{worker=\"1\"}"), "1");
}

#[test]
fn the_statistics_port_sends_the_line_of_twemproxy_and_closes() {
    let mut desk = Desk::new(2);
    desk.traffic();
    let conn = desk.connect_stats();
    let line = desk.take(conn);
    assert!(desk.is_closed(conn));
    let start = "{\"service\":\"nutcracker\", \"source\":\"test-host\", \"version\":\"0.5.0\", \
        \"uptime\":0, \"timestamp\":1700000000, \"total_connections\":4, \"curr_connections\":6, \
        \"alpha\": {\"client_eof\":0, \"client_err\":0, \"client_connections\":2, \
        \"server_ejects\":0, \"forward_error\":0, \"fragments\":0, \"one\": {\"server_eof\":0";
    assert!(line.starts_with(start), "{line}");
    assert!(line.ends_with("}}}\n"), "{line}");
    assert_eq!(desk.fetch(&get("/stats.json")).status, 200);
}

#[test]
fn a_worker_that_does_not_answer_makes_the_node_unhealthy() {
    let mut desk = Desk::new(2);
    assert_eq!(desk.fetch(&get("/healthz")).status, 200);
    desk.stall(1);
    let conn = desk.connect();
    desk.send(conn, &get("/healthz"));
    assert_eq!(desk.take(conn), "", "it may still answer");
    desk.pass(ANSWER_DEADLINE);
    let reply = desk.take_reply(conn);
    assert_eq!((reply.status, reply.body.as_str()), (503, "worker 1 does not answer\n"));
    desk.send(conn, &get("/metrics"));
    desk.pass(ANSWER_DEADLINE);
    assert!(desk.take_reply(conn).body.contains("ringkeeper_worker_up{worker=\"1\"} 0\n"));
}

#[test]
fn a_pool_without_a_server_that_can_be_reached_is_not_ready() {
    let mut desk = Desk::new(1);
    assert_eq!(desk.fetch(&get("/readyz")).status, 200);
    desk.lose_server();
    let reply = desk.fetch(&get("/readyz"));
    assert_eq!(reply.status, 503);
    assert_eq!(reply.body, "pool alpha has no server that can be reached\n");
    assert_eq!(desk.fetch(&get("/healthz")).status, 200, "the process itself is well");
}

#[test]
fn a_draining_node_is_not_ready() {
    let mut desk = Desk::new(1);
    desk.drain();
    let reply = desk.fetch(&get("/readyz"));
    assert_eq!((reply.status, reply.body.starts_with("draining")), (503, true));
}

#[test]
fn nothing_changes_without_the_token() {
    let mut desk = Desk::new(1);
    for (request, status) in [
        (post("/slowlog/reset", None), 401),
        (post("/slowlog/reset", Some("wrong")), 401),
        (post("/slowlog/reset", Some("")), 401),
        (get("/slowlog/reset"), 405),
        (post("/metrics", Some("secret")), 405),
        (post("/slowlog/reset", Some("secret")), 200),
        (post("/clients/kill", Some("secret")), 400),
        (post("/clients/kill?id=x", Some("secret")), 400),
        (get("/nowhere"), 404),
    ] {
        assert_eq!(desk.fetch(&request).status, status, "{request}");
    }
    let mut closed = Desk::without_token(1);
    assert_eq!(closed.fetch(&post("/slowlog/reset", Some(""))).status, 403);
    for (mut desk, status) in [(closed, 200), (desk, 401)] {
        let conn = desk.connect_unix();
        desk.send(conn, &post("/slowlog/reset", None));
        assert_eq!(desk.take_reply(conn).status, status, "over a unix socket");
    }
}

#[test]
fn only_who_names_this_host_and_comes_from_its_own_pages_is_answered() {
    let mut desk = Desk::new(1);
    let with = |fields: &str| format!("GET /metrics HTTP/1.1\r\n{fields}\r\n\r\n");
    for (fields, status) in [
        ("Host: localhost:22280", 200),
        ("Host: 127.0.0.1:22280", 200),
        ("Host: proxy-1.example", 200),
        ("Host: attacker.example", 421),
        ("Host: localhost:1\r\nOrigin: http://attacker.example", 403),
        ("Host: localhost:1\r\nOrigin: null", 403),
        ("Host: localhost:1\r\nOrigin: http://localhost:1", 200),
        ("Accept: */*", 400),
    ] {
        assert_eq!(desk.fetch(&with(fields)).status, status, "{fields}");
    }
    let conn = desk.connect_unix();
    desk.send(conn, &with("Host: anything"));
    assert_eq!(desk.take_reply(conn).status, 200, "no browser reaches a unix socket");
}

#[test]
fn keys_are_watched_when_wanted() {
    let mut desk = Desk::new(2);
    assert_eq!(desk.fetch(&get("/keys.json")).json()["is_watching"], false);
    let reply = desk.fetch(&post("/keys/watch", Some("secret")));
    assert_eq!(reply.json()["changed"], 2);
    desk.traffic();
    let found = desk.fetch(&get("/keys.json")).json();
    assert_eq!(found["requests"], 4);
    assert_eq!(found["hot"][0]["key"], "key");
    assert_eq!(found["hot"][0]["requests"], 4);
    desk.fetch(&post("/keys/unwatch", Some("secret")));
    assert_eq!(desk.fetch(&get("/keys.json")).json()["is_watching"], false);
}

#[test]
fn clients_are_listed_and_ended() {
    let mut desk = Desk::new(2);
    desk.traffic();
    let list = desk.fetch(&get("/clients.json?pool=alpha")).json();
    let ids: Vec<u64> =
        list.as_array().unwrap().iter().map(|row| row["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1], "numbers are unique over workers");
    assert_eq!(list[0]["last_command"], "set");
    let path = format!("/clients/kill?id={}", ids[1]);
    assert_eq!(desk.fetch(&post(&path, Some("secret"))).json()["changed"], 1);
    assert_eq!(desk.fetch(&get("/clients.json")).json().as_array().unwrap().len(), 1);
    assert_eq!(desk.fetch(&get("/clients.json?pool=none")).json().as_array().unwrap().len(), 0);
}

#[test]
fn examples_are_sent_as_they_come() {
    let mut desk = Desk::new(2);
    desk.traffic();
    let conn = desk.connect();
    desk.send(conn, &get("/tail"));
    assert!(desk.take(conn).contains("Transfer-Encoding: chunked\r\n"));
    desk.pass(Duration::from_secs(1));
    assert_eq!(desk.take(conn), "", "what was before is not shown");
    for _ in 0..100 {
        desk.traffic();
        desk.pass(Duration::from_millis(20));
    }
    let text = desk.take(conn);
    let rows: Vec<serde_json::Value> = text
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(rows.len() >= 4, "{text}");
    assert_eq!((&rows[0]["pool"], &rows[0]["key"]), (&"alpha".into(), &"key".into()));
    let times: Vec<u64> = rows.iter().map(|row| row["unix_micros"].as_u64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    desk.eof(conn);
    assert!(desk.is_closed(conn));
}

#[test]
fn the_status_is_streamed_to_all_who_watch_once_a_second() {
    let mut desk = Desk::new(2);
    let first = desk.connect();
    desk.send(first, &get("/events"));
    let head = desk.take(first);
    assert!(head.contains("Content-Type: text/event-stream\r\n"), "{head}");
    assert_eq!(head.matches("data: ").count(), 1, "the first one comes at once: {head}");
    desk.pass(Duration::from_millis(500));
    let second = desk.connect();
    desk.send(second, &get("/events"));
    desk.pass(Duration::from_secs(10));
    for conn in [first, second] {
        let text = desk.take(conn);
        let events: Vec<serde_json::Value> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!((10..=12).contains(&events.len()), "{}", events.len());
        assert_eq!(events[0]["pools"][0]["name"], "alpha");
        assert_eq!(events[0]["pools"][0]["servers"][0]["ring_share_millionths"], 1_000_000);
        desk.eof(conn);
        assert!(desk.is_closed(conn));
    }
    assert!(desk.is_watched());
    desk.pass(Duration::from_secs(5));
    assert!(!desk.is_watched(), "nobody watches, so nobody is asked");
}

#[test]
fn virtual_routers_are_part_of_the_status_and_of_the_metrics() {
    let mut desk = Desk::new(1);
    desk.traffic();
    assert_eq!(desk.fetch(&get("/status.json")).json()["routers"], serde_json::json!([]));
    desk.tell_routers(vec![RouterFigures {
        name: "VI_1".to_owned(),
        interface: "eth0".to_owned(),
        vrid: 51,
        state: RouterState::Active,
        priority: 101,
        addresses: vec![[10, 0, 0, 9].into()],
        excluded: Vec::new(),
        received: 0,
        goodbyes_received: 0,
        sent: 7,
        goodbyes_sent: 0,
        announced: 5,
        became_active: 1,
        left_active: 0,
        refused: vec![("ttl", 2), ("length", 1)],
    }]);
    let status = desk.fetch(&get("/status.json")).json();
    let router = &status["routers"][0];
    assert_eq!((&router["name"], &router["state"]), (&"VI_1".into(), &"MASTER".into()));
    assert_eq!(
        (&router["addresses"][0], &router["adverts_refused"]),
        (&"10.0.0.9".into(), &3.into())
    );
    let text = desk.fetch(&get("/status.txt")).body;
    assert!(text.contains("router VI_1: MASTER, priority 101, 10.0.0.9\n"), "{text}");
    assert!(desk.fetch(&get("/metrics")).body.contains("VI_1"));
}

#[test]
fn a_browser_gets_the_page_and_may_run_only_what_is_in_it() {
    let mut desk = Desk::new(1);
    let browser = get("/").replace("Host", "Accept: text/html,*/*;q=0.8\r\nHost");
    let page = desk.fetch(&browser);
    assert!(page.head.contains("Content-Type: text/html; charset=utf-8\r\n"), "{}", page.head);
    assert!(page.head.contains("default-src 'none'; "), "{}", page.head);
    assert!(page.head.contains("connect-src 'self'"), "{}", page.head);
    assert!(page.body.starts_with("<!doctype html>"));
    // One file: nothing is fetched from anywhere but the figures themselves.
    for fetched in ["<script src", "<link rel=\"stylesheet\"", "@import", "url(", "innerHTML"] {
        assert!(!page.body.contains(fetched), "{fetched}");
    }
    let other = desk.fetch(&get("/")).head;
    assert!(other.contains("default-src 'none'; frame-ancestors 'none'\r\n"), "{other}");
}

#[test]
fn the_page_can_be_read_in_both_colour_schemes() {
    let mut desk = Desk::new(1);
    let browser = get("/").replace("Host", "Accept: text/html\r\nHost");
    let page = desk.fetch(&browser).body;
    let schemes: Vec<&str> =
        page.split(":root {").skip(1).map(|it| it.split('}').next().unwrap()).collect();
    assert_eq!(schemes.len(), 2, "light and dark");
    for scheme in schemes {
        let colour = |name: &str| {
            let at = scheme.find(&format!("--{name}: #")).unwrap_or_else(|| panic!("{name}"));
            let digits = scheme[at..].split(['#', ';']).nth(1).unwrap();
            luminance(digits)
        };
        for (ink, back) in [
            ("ink", "page"),
            ("ink", "card"),
            ("faint", "page"),
            ("faint", "card"),
            ("good", "good-back"),
            ("warn", "warn-back"),
            ("bad", "bad-back"),
            ("accent", "card"),
            ("accent", "page"),
        ] {
            let contrast = contrast(colour(ink), colour(back));
            // WCAG 2.1, 1.4.3.
            assert!(contrast >= 4.5, "{ink} on {back}: {contrast:.2} in {scheme}");
        }
        for ring in 0..8 {
            let contrast = contrast(colour(&format!("ring-{ring}")), colour("card"));
            // WCAG 2.1, 1.4.11.
            assert!(contrast >= 3.0, "ring-{ring}: {contrast:.2} in {scheme}");
        }
    }
}

/// Relative luminance as WCAG 2.1 defines it.
fn luminance(digits: &str) -> f64 {
    let digits = match digits.len() {
        3 => digits.chars().flat_map(|digit| [digit, digit]).collect(),
        _ => digits.to_owned(),
    };
    let part = |at: usize| {
        let part = f64::from(u8::from_str_radix(&digits[at..at + 2], 16).unwrap()) / 255.0;
        if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
}

fn contrast(one: f64, other: f64) -> f64 {
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

#[test]
fn requests_of_one_connection_are_answered_one_after_the_other() {
    let mut desk = Desk::new(1);
    let conn = desk.connect();
    let mut both = get("/healthz");
    both.push_str(&get("/nowhere"));
    both.push_str(&get("/readyz").replace("Host", "Connection: close\r\nHost"));
    both.push_str(&get("/metrics"));
    desk.send(conn, &both);
    let text = desk.take(conn);
    let statuses: Vec<&str> = text.matches("HTTP/1.1 ").collect();
    assert_eq!(statuses.len(), 3, "{text}");
    assert!(desk.is_closed(conn), "nothing is served after the request that was the last");
}

#[test]
fn any_chunking_gives_the_same_replies() {
    let mut both = get("/healthz");
    both.push_str(&post("/slowlog/reset", Some("secret")));
    for size in [1, 2, 3, 7, 50] {
        let mut desk = Desk::new(1);
        let conn = desk.connect();
        for piece in both.as_bytes().chunks(size) {
            desk.send(conn, std::str::from_utf8(piece).unwrap());
        }
        let text = desk.take(conn);
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{size}: {text}");
    }
}

#[test]
fn what_is_no_http_is_told_so_and_closed() {
    let mut desk = Desk::new(1);
    for text in
        ["PING\r\n\r\n", "\x16\x03\x01\x02", "GET / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n"]
    {
        let conn = desk.connect();
        desk.send(conn, text);
        let reply = desk.take_reply(conn);
        assert!(matches!(reply.status, 400 | 501), "{text}: {}", reply.status);
        assert!(desk.is_closed(conn));
    }
}

#[test]
fn a_head_has_the_length_of_the_body_and_no_body() {
    let mut desk = Desk::new(1);
    let reply = desk.fetch(&get("/healthz").replace("GET", "HEAD"));
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    assert!(reply.head.contains("Content-Length: 3"), "{}", reply.head);
}

#[test]
fn connections_are_bounded_and_idle_ones_end() {
    let mut desk = Desk::new(1);
    let conns: Vec<_> = (0..ADMIN_CONNECTIONS_MAX).map(|_| desk.connect()).collect();
    assert!(desk.try_connect().is_none());
    desk.pass(ADMIN_IDLE);
    assert!(conns.iter().all(|conn| desk.is_closed(*conn)));
    desk.connect();
}

#[test]
fn whoever_shuts_its_side_down_still_gets_the_page() {
    let mut desk = Desk::new(1);
    desk.stall(0);
    let conn = desk.connect();
    desk.send(conn, &get("/metrics"));
    desk.eof(conn);
    assert!(!desk.is_closed(conn));
    desk.pass(ANSWER_DEADLINE);
    assert_eq!(desk.take_reply(conn).status, 200);
    assert!(desk.is_closed(conn));
}
