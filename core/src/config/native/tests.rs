use super::super::diagnostic::Severity;
use super::super::failover::{Failover, Fence, Replay};
use super::super::render;
use super::*;
use crate::distribution::Distribution;
use crate::hash::Hash;
use crate::routing::HashTag;

const POOL: &str = "pools:\n  alpha:\n    listen: 127.0.0.1:22121\n";
const SERVERS: &str = "    servers:\n      - 127.0.0.1:6379\n";

fn with(lines: &str) -> String {
    format!("{POOL}{lines}{SERVERS}")
}

#[track_caller]
fn accepted(text: &str) -> Parsed {
    let parsed = parse("f.yml", text);
    assert!(
        parsed.config.is_some(),
        "{}",
        render::human("f.yml", text, &parsed.diagnostics, false)
    );
    parsed
}

#[track_caller]
fn pool(text: &str) -> Pool {
    accepted(text).config.unwrap().pools.remove(0)
}

fn codes(text: &str) -> Vec<&'static str> {
    parse("f.yml", text).diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

#[test]
fn two_keys_are_enough_for_a_pool() {
    let parsed = accepted(&with(""));
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    assert_eq!(parsed.settings, Settings::default());
    let pool = parsed.config.unwrap().pools.remove(0);
    assert_eq!((pool.redis, pool.tcpkeepalive), (true, true));
    assert_eq!(pool.timeout, Some(Duration::from_secs(5)));
    let server = pool.servers.first().unwrap();
    assert_eq!((server.name.as_str(), server.is_named), ("127.0.0.1:6379", false));
}

#[test]
fn every_key_is_read() {
    let text = "threads: 3\nruntime: tokio\ncontrol: /c\nadmin:\n  listen: /run/a.sock 0600\n  token_file: /t\n  host_names: [a, b]\n\
        stats:\n  listen: 0.0.0.0:1\nfigures:\n  enabled: false\n  slow_after: 1 s\n  watch_keys: true\nlog:\n  level: debug\n  format: json\n  file: /l\nlimits:\n  \
        clients_max: 7\n  clients_input_bytes_max: 32 MiB\n  clients_output_bytes_max: 64 MiB\n  \
        drain_timeout: 9 s\npools:\n  p:\n    listen: '[::1]:2'\n    protocol: redis\n    hash: md5\n    \
        hash_tag: \"{}\"\n    distribution: modula\n    timeout: 400 ms\n    backlog: 8\n    \
        client_connections: 9\n    tcp_keepalive: false\n    reuseport: true\n    redis_auth: s3cret\n    \
        redis_db: 4\n    preconnect: true\n    auto_eject_hosts: true\n    server_connections: 5\n    \
        server_connect_timeout: 6 ms\n    server_retry_timeout: 7 s\n    server_failure_limit: 8\n    \
        request_bytes_max: 2 MiB\n    client_output_bytes_max: 3 MiB\n    hold: 3 s\n    hold_bytes: 5 MiB\n    \
        replay: idempotent\n    fence: strict\n    replicated: 2\n    replicated_timeout: 80 ms\n    servers:\n      - name: s\n        \
        address: /s.sock\n        weight: 2\n";
    let parsed = accepted(text);
    let Settings { threads, runtime, control, admin, stats, figures, log, limits, sentinel, vrrp } =
        parsed.settings;
    assert_eq!((sentinel, vrrp), (None, None));
    assert_eq!(threads, Threads::Count(NonZeroU16::new(3).unwrap()));
    assert_eq!((runtime, admin.token_file.as_deref()), (Runtime::Tokio, Some("/t")));
    assert_eq!(control, Control::At("/c".into()));
    assert_eq!(admin.host_names, ["a", "b"]);
    let slow_after = Some(Duration::from_secs(1));
    assert_eq!(figures, Figures { is_on: false, slow_after, is_watching_keys: true });
    let socket = ListenAddress::Unix { path: "/run/a.sock".into(), mode: Some(0o600) };
    assert_eq!(admin.listen.map(|listen| listen.address), Some(socket));
    assert_eq!(stats, Some(HostPort { host: "0.0.0.0".into(), port: 1 }));
    assert_eq!(log, Log { level: Level::Debug, format: Format::Json, file: Some("/l".into()) });
    assert_eq!(limits.clients_max, NonZeroU32::new(7));
    assert_eq!(limits.clients_input_bytes_max, 32 << 20);
    assert_eq!(limits.clients_output_bytes_max, 64 << 20);
    assert_eq!(limits.drain_timeout, Duration::from_secs(9));
    let pool = parsed.config.unwrap().pools.remove(0);
    assert_eq!((pool.hash, pool.distribution), (Hash::Md5, Distribution::Modula));
    assert_eq!(pool.hash_tag, Some(HashTag { open: b'{', close: b'}' }));
    assert_eq!(pool.timeout, Some(Duration::from_millis(400)));
    assert_eq!((pool.backlog, pool.client_connections), (8, NonZeroU32::new(9)));
    assert!(!pool.tcpkeepalive && pool.reuseport && pool.preconnect && pool.auto_eject_hosts);
    assert_eq!(pool.redis_auth.as_ref().map(nutcracker::Secret::expose), Some("s3cret"));
    assert_eq!((pool.redis_db, pool.server_connections.get()), (4, 5));
    assert_eq!(pool.server_connect_timeout, Duration::from_millis(6));
    assert_eq!(pool.server_retry_timeout, Duration::from_secs(7));
    assert_eq!(pool.server_failure_limit.get(), 8);
    assert_eq!((pool.request_bytes_max, pool.client_output_bytes_max), (2 << 20, 3 << 20));
    let failover = Failover {
        hold: Some(Duration::from_secs(3)),
        hold_bytes: 5 << 20,
        replay: Replay::Idempotent,
        fence: Fence::Strict,
        replicated: NonZeroU32::new(2),
        replicated_timeout: Duration::from_millis(80),
    };
    assert_eq!(pool.failover, failover);
    let server = pool.servers.first().unwrap();
    assert_eq!((server.name.as_str(), server.weight.get(), server.is_named), ("s", 2, true));
}

#[test]
fn off_is_the_word_for_none() {
    let text = format!(
        "admin:\n  listen: off\n  token_file: off\nstats:\n  listen: off\nlimits:\n  clients_max: \
         off\n{}",
        with(
            "    timeout: off\n    hold: off\n    replicated: off\n    hash_tag: off\n    client_connections: off\n    redis_auth_file: \
             off\n"
        )
    );
    let parsed = accepted(&text);
    assert_eq!((parsed.settings.admin.listen, parsed.settings.stats), (None, None));
    let pool = parsed.config.unwrap().pools.remove(0);
    assert_eq!((pool.timeout, pool.hash_tag, pool.client_connections), (None, None, None));
    assert_eq!((pool.failover.hold, pool.failover.replicated), (None, None));
    assert!(parsed.secrets.is_empty());
}

#[test]
fn a_section_whose_keys_are_all_commented_out_is_empty() {
    let text = format!("admin:\n  # listen: off\nlog:\nlimits:\n{}", with(""));
    assert_eq!(accepted(&text).settings, Settings::default());
}

#[test]
fn other_ways_to_write_the_same_yaml_are_allowed() {
    let text = "---\npools: {p: {listen: 'h:1', servers: [a:1, {name: b, address: 'b:1'}]}}\n";
    let pool = pool(text);
    let names: Vec<&str> = pool.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["b", "a:1"]);
}

#[test]
fn a_server_is_named_by_its_address_as_written_or_by_its_name() {
    let lines = "    protocol: memcached\n    servers:\n      - h:11211\n      - name: x\n        \
                 address: h:11211\n      - address: '[::1]:1'\n      - /s\n      - name: ''\n        \
                 address: ':1'\n";
    let pool = pool(&format!("{POOL}{lines}"));
    let names: Vec<&str> = pool.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["", "x", "/s", "[::1]:1", "h:11211"]);
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let cases = [
        ("pool:\n  a:\n", "unknown-key"),
        ("threads: 0\n", "number-out-of-range"),
        ("threads: many\n", "not-a-number"),
        ("runtime: epoll\n", "unknown-value"),
        ("admin: 127.0.0.1:1\n", "not-a-mapping"),
        ("admin:\n  liste: off\n", "unknown-key"),
        ("admin:\n  listen: h\n", "invalid-listen"),
        ("admin:\n  listen: 127.0.0.1:22121\n", "duplicate-listen"),
        ("stats:\n  listen: /s\n", "invalid-listen"),
        ("log:\n  level: inf\n", "unknown-value"),
        ("limits:\n  drain_timeout: 5\n", "time-without-unit"),
        ("limits:\n  drain_timeout: 5 m\n", "not-a-time"),
        ("limits:\n  clients_input_bytes_max: 1\n", "size-out-of-range"),
        ("limits:\n  clients_input_bytes_max: 1 GB\n", "not-a-size"),
        ("limits: &a\n", "disallowed-token"),
        ("threads: auto\nthreads: auto\n", "duplicate-key"),
    ];
    for (lines, code) in cases {
        let text = format!("{lines}{}", with(""));
        assert!(codes(&text).contains(&code), "{lines}: {:?}", codes(&text));
        assert!(parse("f.yml", &text).config.is_none(), "{lines}");
    }
    let cases = [
        ("    timeout: 400\n", "time-without-unit"),
        ("    timeout: 0 ms\n", "time-out-of-range"),
        ("    timeout:\n", "empty-value"),
        ("    timeout: [1 s]\n", "unexpected-collection"),
        ("    redis: true\n", "unknown-key"),
        ("    tcpkeepalive: true\n", "unknown-key"),
        ("    hash: fnv1a64\n", "unknown-value"),
        ("    hash_tag: abc\n", "invalid-hash-tag"),
        ("    preconnect: yes\n", "unknown-value"),
        ("    protocol: memcached\n    redis_db: 1\n", "redis-key-without-redis"),
        ("    redis_auth: a\n    redis_auth_file: b\n", "two-passwords"),
        ("    server_connections: 0\n", "number-out-of-range"),
        ("    hold: 0 ms\n", "time-out-of-range"),
        ("    hold_bytes: 1 KiB\n", "size-out-of-range"),
        ("    replay: writes\n", "unknown-value"),
        ("    fence: on\n", "unknown-value"),
        ("    replicated: 33\n", "number-out-of-range"),
        ("    request_bytes_max: 1 GiB\n", "size-out-of-range"),
        ("    listen: a:1\n", "duplicate-key"),
    ];
    for (lines, code) in cases {
        assert!(codes(&with(lines)).contains(&code), "{lines}: {:?}", codes(&with(lines)));
    }
    let cases = [
        ("", "missing-servers"),
        ("    servers: a:1\n", "servers-not-a-list"),
        ("    servers: []\n", "servers-not-a-list"),
        ("    servers:\n      - a:1:1 x\n", "invalid-server"),
        ("    servers:\n      - a\n", "invalid-server"),
        ("    servers:\n      - a:1\n      - a:1\n", "duplicate-server"),
        ("    servers:\n      - name: x\n", "missing-address"),
        ("    servers:\n      - name: x\n        adress: a:1\n", "unknown-key"),
        ("    servers:\n      - address: a:1\n        weight: 0\n", "number-out-of-range"),
        ("    servers:\n      - name:\n        address: a:1\n", "empty-value"),
    ];
    for (lines, code) in cases {
        let text = format!("{POOL}{lines}");
        assert!(codes(&text).contains(&code), "{lines}: {:?}", codes(&text));
    }
    assert_eq!(codes(""), ["no-document"]);
    assert_eq!(codes("threads: auto\n"), ["no-pools"]);
    assert_eq!(codes("pools:\n"), ["no-pools"]);
}

#[test]
fn a_slip_gets_the_word_that_was_meant() {
    let hints = |text: &str| {
        let parsed = parse("f.yml", text);
        parsed.diagnostics.into_iter().filter_map(|one| one.hint).collect::<Vec<_>>()
    };
    assert_eq!(hints(&with("    timout: 1 s\n")), ["did you mean \"timeout\"?"]);
    assert_eq!(hints(&with("    tcpkeepalive: true\n")), ["did you mean \"tcp_keepalive\"?"]);
    assert_eq!(hints(&with("    timeout: 400\n")), ["write \"400 ms\" for milliseconds"]);
    assert_eq!(
        hints(&format!("{POOL}    servers:\n      - 10.0.0.1:6379:1 alpha\n")),
        ["write \"name: alpha\" and \"address: 10.0.0.1:6379\""]
    );
}

#[test]
fn a_password_is_shown_nowhere() {
    let text = with("    redis_auth: s3cret\n    redis_atuh: s3cret\n    redis_auth_file: /x\n");
    let parsed = parse("f.yml", &text);
    let shown = render::human("f.yml", &text, &parsed.diagnostics, false)
        + &render::json("f.yml", &parsed.diagnostics)
        + &format!("{parsed:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn the_file_of_a_password_is_the_callers_to_read() {
    let parsed = accepted(&with("    redis_auth_file: secrets/alpha\n"));
    let [secret] = parsed.secrets.as_slice() else { panic!("one secret") };
    assert_eq!(
        (&secret.of, secret.path.as_str()),
        (&SecretOf::Pool("alpha".into()), "secrets/alpha")
    );
    assert_eq!(secret.place.line, 4);
}

/// A file with a Sentinel whose pool has these lines below `servers:`.
fn watched(sentinel: &str, servers: &str) -> String {
    format!(
        "sentinel:\n  mode: own\n  hosts: [a, b, c]\n{sentinel}pools:\n  alpha:\n    listen: \
         127.0.0.1:22121\n    servers:\n{servers}"
    )
}

fn own(parsed: &Parsed) -> &Own {
    let Some(Watch::Own(own)) = &parsed.settings.sentinel else { panic!("a Sentinel of its own") };
    own
}

#[test]
fn a_named_server_is_a_master_by_its_name() {
    let servers = "    - {name: one, address: 10.0.0.1:6379}\n    - {name: '10.0.0.2:6379', shard: two, \
                   address: 10.0.0.3:6379}\n    - {shard: three, address: db:6379}\n    - {name: four, \
                   shard: off, address: 10.0.0.4:6379}\n";
    let text =
        watched("  fast_down: true\n  masters:\n    two: {quorum: 3, down_after: 1 s}\n", servers);
    let parsed = accepted(&text);
    let pool = parsed.config.as_ref().unwrap().pools.first().unwrap();
    let shards: Vec<(&str, Option<&str>)> =
        pool.servers.iter().map(|one| (one.name.as_str(), one.shard.as_deref())).collect();
    let expected = [
        ("one", Some("one")),
        ("four", None),
        ("three", Some("three")),
        ("10.0.0.2:6379", Some("two")),
    ];
    assert_eq!(shards, expected);
    let own = own(&parsed);
    let masters: Vec<(&str, String, u32, u64)> = (own.config.masters.iter())
        .map(|one| {
            let at = one.monitor.address.to_string();
            (one.name.as_str(), at, one.monitor.quorum.get(), one.down_after_ms)
        })
        .collect();
    let expected = [
        ("one", "10.0.0.1:6379".to_owned(), 2, 5000),
        ("three", "db:6379".to_owned(), 2, 5000),
        ("two", "10.0.0.3:6379".to_owned(), 3, 1000),
    ];
    assert_eq!(masters, expected);
    assert_eq!(own.fast_down.len(), 3);
    assert!(own.config.resolve_hostnames, "one of them has a host name");
    assert_eq!(own.config.server.port, Some(26379));
}

#[test]
fn others_are_followed_for_the_masters_of_the_pools() {
    let text = "sentinel:\n  mode: follow\n  follow: ['10.0.0.1:26379', 's2:26379']\n  password_file: \
                pw\npools:\n  alpha:\n    listen: 127.0.0.1:22121\n    servers:\n    - {name: one, \
                address: 10.0.0.1:6379}\n";
    let parsed = accepted(text);
    let Some(Watch::Follow(follow)) = &parsed.settings.sentinel else { panic!("they follow") };
    assert_eq!(follow.sentinels.len(), 2);
    let names: Vec<&str> = follow.shards.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["one"]);
    assert_eq!(parsed.secrets.first().map(|secret| &secret.of), Some(&SecretOf::Sentinel));
}

#[test]
fn a_witness_needs_no_pools() {
    let text = "sentinel:\n  mode: own\n  hosts: [a, b, c]\n  masters:\n    one: {address: \
                '10.0.0.1:6379'}\n";
    assert_eq!(own(&accepted(text)).config.masters.len(), 1);
    assert_eq!(codes("sentinel:\n  mode: off\n"), ["no-pools"]);
}

#[test]
fn what_would_fail_with_a_master_is_told_with_a_hint() {
    let one = "    - {name: one, address: 10.0.0.1:6379}\n";
    let cases = [
        // Placed by the address, and followed by nobody.
        (watched("", "    - 10.0.0.1:6379\n"), "unnamed-shard"),
        (watched("", one).replace("[a, b, c]", "[a, b]"), "two-voters"),
        (watched("", one).replace("  hosts: [a, b, c]\n", ""), "two-voters"),
        (watched("  quorum: 3\n", one), "two-voters"),
        (watched("  quorum: 4\n", one), "quorum-above-voters"),
        (watched("", &format!("{one}    auto_eject_hosts: true\n")), "eject-replicated"),
        (watched("", "    - {name: 'a b', address: h:1}\n"), "bad-master-name"),
        (watched("", "    - {name: one, address: /run/s}\n"), "shard-without-port"),
        (watched("  masters:\n    one: {address: 'h:1'}\n", one), "shard-at-two-places"),
        (watched("  masters:\n    two: {}\n", one), "missing-address"),
        (watched("  listen: 0.0.0.0:22121\n", one), "duplicate-listen"),
        (watched("", one).replace("  mode: own\n", ""), "sentinel-without-mode"),
        (watched("", one).replace("own", "follow"), "nobody-to-follow"),
        (
            watched("", &format!("{one}    replicated: 1\n")).replace("own", "follow"),
            "promise-void",
        ),
    ];
    for (text, code) in cases {
        assert!(codes(&text).contains(&code), "{code}: {:?} for\n{text}", codes(&text));
        let found = parse("f.yml", &text).diagnostics;
        let helps = |one: &Diagnostic| {
            one.hint.is_some() || one.expected.is_some() || one.related.is_some()
        };
        let found = found.iter().find(|one| one.code == code).unwrap();
        assert!(helps(found) || code == "shard-at-two-places", "{found:?}");
    }
}

#[test]
fn the_form_is_known_by_its_content() {
    assert!(is_native(with("").as_bytes()));
    assert!(is_native(b"threads: auto\n"));
    assert!(is_native(b"pools:\n  servers:\n    listen: a:1\n"));
    assert!(is_native(b"log:\n  level: info\nalpha:\n  listen: a:1\n"));
    assert!(!is_native(b"alpha:\n  listen: a:1\n  servers:\n    - a:1:1\n"));
    // Pools of twemproxy's that are called so.
    assert!(!is_native(b"pools:\n  listen: a:1\n  servers:\n    - a:1:1\n"));
    assert!(!is_native(b""));
    assert!(!is_native(b"\xff"));
}

#[test]
fn behind_a_syntax_error_nothing_is_called_missing() {
    let text = "pools:\n  alpha:\n    listen: a:1\n\tservers:\n";
    assert_eq!(codes(text), ["yaml-syntax"]);
}

#[test]
fn an_import_names_each_server_and_says_what_changed() {
    let old = "alpha:\n  listen: 127.0.0.1:22121\n  redis: true\n  client_connections: 5\n  servers:\n  \
               - 10.0.0.1:6379:1\n  - 10.0.0.2:6379:2 b\n";
    let new = write(Old { name: "nutcracker.yml", text: old }, None).unwrap();
    assert!(new.contains("    - name: 10.0.0.1:6379\n        address: 10.0.0.1:6379\n"), "{new}");
    assert!(new.contains("    - name: b\n        address: 10.0.0.2:6379\n        weight: 2\n"));
    assert!(new.contains("timeout: off") && new.contains("tcp_keepalive: false"));
    assert!(new.contains("line 4: \"client_connections\" limits the pool to 5 clients"), "{new}");
    let Parsed { settings, diagnostics: warnings, .. } = accepted(&new);
    assert_eq!(settings.threads, Threads::Count(NonZeroU16::MIN));
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn what_cannot_be_read_is_not_imported() {
    let diagnostics =
        write(Old { name: "f.yml", text: "alpha:\n  listen: a:1\n" }, None).unwrap_err();
    assert!(diagnostics.iter().any(|one| one.severity == Severity::Error));
}
