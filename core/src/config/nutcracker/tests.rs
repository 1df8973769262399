use super::super::diagnostic::Severity;
use super::super::render;
use super::*;
use crate::limits;

const HEAD: &str = "alpha:\n  listen: 127.0.0.1:22121\n";
const SERVERS: &str = "  servers:\n    - 127.0.0.1:6379:1\n";

fn with(lines: &str) -> String {
    format!("{HEAD}{lines}{SERVERS}")
}

#[track_caller]
fn accepted(text: &str) -> Config {
    let parsed = parse("f.yml", text);
    parsed
        .config
        .unwrap_or_else(|| panic!("{}", render::human("f.yml", text, &parsed.diagnostics, false)))
}

#[track_caller]
fn pool(text: &str) -> Pool {
    accepted(text).pools.remove(0)
}

fn codes(text: &str) -> Vec<&'static str> {
    parse("f.yml", text).diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

fn shown(text: &str) -> String {
    render::human("f.yml", text, &parse("f.yml", text).diagnostics, false)
}

#[test]
fn a_pool_without_directives_has_the_defaults() {
    let pool = pool(&with(""));
    let expected = Pool {
        name: "alpha".into(),
        listen: Listen {
            literal: "127.0.0.1:22121".into(),
            address: ListenAddress::Tcp(HostPort { host: "127.0.0.1".into(), port: 22121 }),
        },
        hash: Hash::Fnv1a_64,
        hash_tag: None,
        distribution: Distribution::Ketama,
        timeout: None,
        backlog: 512,
        client_connections: None,
        tcpkeepalive: false,
        reuseport: false,
        redis: false,
        redis_auth: None,
        redis_db: 0,
        preconnect: false,
        auto_eject_hosts: false,
        server_connections: NonZeroU32::new(1).unwrap(),
        server_retry_timeout: Duration::from_secs(30),
        server_failure_limit: NonZeroU32::new(2).unwrap(),
        request_bytes_max: 64 << 20,
        failover: Failover::default(),
        client_output_bytes_max: 256 << 20,
        server_connect_timeout: Duration::from_secs(1),
        servers: vec![Server {
            name: "127.0.0.1:6379".into(),
            is_named: false,
            address: Address::Tcp(HostPort { host: "127.0.0.1".into(), port: 6379 }),
            weight: NonZeroU32::MIN,
            shard: None,
            literal: "127.0.0.1:6379:1".into(),
        }],
    };
    assert_eq!(pool, expected);
}

#[test]
fn every_directive_is_read() {
    let pool = pool(
        "p:\n  listen: /run/p.sock 0660\n  hash: md5\n  hash_tag: \"{}\"\n  distribution: modula\n  \
         timeout: 0400\n  backlog: 7\n  client_connections: 9\n  tcpkeepalive: true\n  reuseport: \
         true\n  redis: true\n  redis_auth: s3cret\n  redis_db: 3\n  preconnect: true\n  \
         auto_eject_hosts: true\n  server_connections: 4\n  server_retry_timeout: 5\n  \
         server_failure_limit: 6\n  request_bytes_max: 1048576\n  client_output_bytes_max: 2048\n  \
         server_connect_timeout: 250\n  servers:\n  - /s.sock:2 s\n",
    );
    let unix = ListenAddress::Unix { path: "/run/p.sock".into(), mode: Some(0o660) };
    assert_eq!(pool.listen.address, unix);
    assert_eq!((pool.hash, pool.distribution), (Hash::Md5, Distribution::Modula));
    assert_eq!(pool.hash_tag, Some(HashTag { open: b'{', close: b'}' }));
    assert_eq!(pool.timeout, Some(Duration::from_millis(400)));
    assert_eq!((pool.backlog, pool.client_connections), (7, NonZeroU32::new(9)));
    assert!(pool.tcpkeepalive && pool.reuseport && pool.redis && pool.preconnect);
    assert!(pool.auto_eject_hosts);
    assert_eq!(pool.redis_auth.as_ref().map(Secret::expose), Some("s3cret"));
    assert!(!format!("{pool:?}").contains("s3cret"));
    assert_eq!((pool.redis_db, pool.server_connections.get()), (3, 4));
    assert_eq!(pool.server_retry_timeout, Duration::from_millis(5));
    assert_eq!(pool.server_failure_limit.get(), 6);
    assert_eq!((pool.request_bytes_max, pool.client_output_bytes_max), (1_048_576, 2048));
    assert_eq!(pool.server_connect_timeout, Duration::from_millis(250));
    assert_eq!(pool.servers.first().map(|server| server.weight.get()), Some(2));
}

#[test]
fn servers_and_pools_are_in_the_order_that_decides_routing() {
    let text = "long:\n  listen: a:1\n  servers:\n    - h:1:1 zeta\n    - h:1:1 s10\n    - h:1:1 \
                s9\n    - h:1:1 alphabet\n    - h:1:1 beta\nb:\n  listen: a:2\n  servers:\n    - \
                h:1:1\n";
    let config = accepted(text);
    let names: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["b", "long"]);
    let servers: Vec<&str> =
        config.pools.iter().flat_map(|pool| &pool.servers).map(|s| s.name.as_str()).collect();
    assert_eq!(servers, ["h:1", "s9", "s10", "beta", "zeta", "alphabet"]);
}

/// What the genuine twemproxy runs with, beyond the cases of the matrix.
#[test]
fn odd_files_that_twemproxy_accepts_are_accepted() {
    let files = [
        with("  timeout: 0400\n"),
        with("  timeout: |-\n    5\n"),
        with("  timeout:\t5\n"),
        with("  timeout: 5 # comment\n"),
        with("  hash_tag: é\n"),
        with("  hash_tag: '''a'\n"),
        with("  hash_tag: \"\\0a\"\n"),
        with("  redis: true\n  redis_auth: \"\\x41\"\n"),
        with("  redis: true\n  redis_auth: a#b\n"),
        with("  redis: true\n  redis_auth: >\n   a\n   b\n"),
        with("  server_failure_limit: 4294967296\n"),
        format!("{HEAD}  servers:\n  - 127.0.0.1:6379:1\n"),
        format!("{HEAD}  servers:\n    - 127.0.0.1:6379:1\n      name\n"),
        format!("{HEAD}  servers:\n    - '127.0.0.1:6379:1 '\n"),
        format!("{HEAD}  servers:\n    - ':6379:1'\n"),
        format!("{HEAD}  servers:\n    - h:4294973675:1\n    - h:1:4294967297\n"),
        format!("\u{feff}{HEAD}{SERVERS}"),
        with("").replace('\n', "\r\n"),
        "? alpha\n: listen: 127.0.0.1:1\n  servers:\n    - 127.0.0.1:6379:1\n".to_owned(),
        format!("alpha:\n  listen: ::1:22121\n{SERVERS}"),
        format!("alpha:\n  listen: '/tmp/l.sock '\n{SERVERS}"),
    ];
    for text in files {
        accepted(&text);
    }
}

/// What the genuine twemproxy refuses, beyond the cases of the matrix.
#[test]
fn odd_files_that_twemproxy_refuses_are_refused() {
    let files = [
        (with("  timeout: 3000000000\n"), "number-out-of-range"),
        (with("  timeout:\n"), "empty-value"),
        (with("  timeout: |\n    5\n"), "not-a-number"),
        (with("  timeout: !!int 5\n"), "disallowed-token"),
        (with("  timeout: *a\n"), "disallowed-token"),
        (with("  timeout 5\n"), "yaml-syntax"),
        (with("   timeout: 5\n"), "yaml-syntax"),
        (with("\ttimeout: 5\n"), "yaml-syntax"),
        (with("  hash_tag: \"ab\n"), "yaml-syntax"),
        (with("  redis: true\n  redis_auth: @x\n"), "yaml-syntax"),
        (with("  redis: true\n  redis_auth: a\x01b\n"), "yaml-syntax"),
        (with("  redis: true\n  redis_auth: a\u{85}b\n"), "yaml-syntax"),
        (with("  # a\u{2028}comment\n"), "yaml-syntax"),
        (with("  server_connections: 4294967296\n"), "server-connections-zero"),
        (with("  hash:\n    - md5\n"), "unexpected-list"),
        (with("  ? a\n  : b\n"), "unknown-directive"),
        (format!("{HEAD}  servers:\n    - {{a: b}}\n"), "disallowed-token"),
        (format!("{HEAD}  servers:\n    - a: b\n"), "nested-too-deep"),
        (format!("{HEAD}  servers:\n    - - a\n"), "nested-too-deep"),
        (format!("{HEAD}  servers:\n    - \n"), "empty-value"),
        (format!("{HEAD}  servers: \"\"\n"), "servers-not-a-list"),
        (format!("{HEAD}  servers:\n    a: b\n"), "servers-not-a-list"),
        (format!("{HEAD}  servers:\n    - /tmp/a:b:1\n"), "invalid-server"),
        (format!("{HEAD}  servers:\n    - h:11211:1\n    - h:011211:1\n"), "duplicate-server"),
        (format!("{HEAD}{SERVERS}...\n"), "disallowed-token"),
        (format!("%YAML 1.1\n---\n{HEAD}{SERVERS}"), "disallowed-token"),
        (format!("{HEAD}{SERVERS}---\n{HEAD}{SERVERS}"), "disallowed-token"),
        (format!("{HEAD}{SERVERS}b\n"), "yaml-syntax"),
        (format!("'':\n  listen: a:1\n{SERVERS}"), "pool-name-empty"),
        (format!("{}:\n  listen: a:1\n{SERVERS}", "a".repeat(1100)), "yaml-syntax"),
        (format!("alpha:\n  listen: /tmp/{}\n{SERVERS}", "a".repeat(120)), "listen-path-too-long"),
        (format!("alpha:\n  listen: :22121\n{SERVERS}"), "listen-host-empty"),
        ("alpha: hello\n".to_owned(), "pool-not-a-mapping"),
        ("alpha:\n".to_owned(), "pool-not-a-mapping"),
        ("- a\n".to_owned(), "root-not-a-mapping"),
    ];
    for (text, code) in files {
        let parsed = parse("f.yml", &text);
        assert!(parsed.config.is_none(), "{text:?}");
        assert!(codes(&text).contains(&code), "{text:?}: {}", shown(&text));
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = "alpha:\n  lisen: a:1\n  redis: yes\n  timeout: -1\n  servers:\n    - h:1\n    - \
                h:1:0\nbeta:\n  listen: a\n  hash: fnv1a64\n  servers:\n    - h:1:1\n    - h:1:2\n";
    assert_eq!(
        codes(text),
        [
            "missing-listen",
            "unknown-directive",
            "not-a-boolean",
            "not-a-number",
            "invalid-server",
            "zero-server-weight",
            "invalid-listen",
            "unknown-hash",
            "duplicate-server",
        ]
    );
}

#[test]
fn a_syntax_error_does_not_make_directives_missing() {
    assert_eq!(codes("alpha:\n  redis: yes\n  hash: \"md5\n"), ["not-a-boolean", "yaml-syntax"]);
    assert_eq!(codes("alpha:\n  listen: a:1\n\tx: 1\n"), ["yaml-syntax"]);
}

#[test]
fn surprises_are_warnings() {
    let two = "  servers:\n    - h:1:1 a\n    - h:2:1 b\n";
    let cases = [
        (with("  listen_: 1\n"), vec!["unknown-directive"]),
        (format!("{HEAD}  redis: true\n{two}"), vec![]),
        (format!("{HEAD}  redis: true\n  auto_eject_hosts: true\n{two}"), vec!["eject-moves-keys"]),
        (format!("{HEAD}  auto_eject_hosts: true\n{two}"), vec![]),
        (format!("{HEAD}  distribution: random\n{two}"), vec!["random-distribution"]),
        (
            format!("{HEAD}  servers:\n    - h:1:100 a\n    - h:2:1 b\n"),
            vec!["server-without-keys"],
        ),
        (
            format!("{HEAD}  redis: true\n  servers:\n    - h:1:1 a\n    - h:2:1\n"),
            vec!["unnamed-server"],
        ),
        (
            format!("{HEAD}  servers:\n    - 'h:1:1 '\n    - :2:1\n"),
            vec!["empty-server-name", "server-host-empty"],
        ),
        (format!("{HEAD}  servers:\n    - h:4294973675:1\n"), vec!["number-wraps"]),
    ];
    for (text, expected) in cases {
        assert_eq!(codes(&text), expected, "{text}");
    }
}

#[test]
fn a_wrapped_number_is_kept_for_limits_and_wrapped_for_the_place_of_data() {
    let limits = pool(&with("  timeout: 99999999999\n  server_failure_limit: 4294967296\n"));
    assert_eq!(limits.timeout, Some(Duration::from_millis(2_147_483_647)));
    assert_eq!(limits.server_failure_limit.get(), 2_147_483_647);
    let data = pool(&format!(
        "{HEAD}  redis: true\n  redis_db: 4294967298\n  servers:\n    - h:4294973675:4294967299\n"
    ));
    assert_eq!(data.redis_db, 2);
    let server = data.servers.first().unwrap();
    assert_eq!(server.weight.get(), 3);
    assert_eq!(server.address, Address::Tcp(HostPort { host: "h".into(), port: 6379 }));
    assert_eq!(server.name, "h:4294973675");
}

#[test]
fn our_own_sizes_have_ranges() {
    for line in [
        "  request_bytes_max: 536870913\n",
        "  request_bytes_max: 1023\n",
        "  request_bytes_max: 4294968320\n",
        "  client_output_bytes_max: 0\n",
        "  server_connect_timeout: 0\n",
    ] {
        assert_eq!(codes(&with(line)), ["number-out-of-range"], "{line}");
    }
    assert_eq!(codes(&with("  request_bytes_max: 64M\n")), ["not-a-number"]);
    assert_eq!(pool(&with("  request_bytes_max: 536870912\n")).request_bytes_max, 512 << 20);
}

#[test]
fn the_tutorials_file_is_read_with_the_warnings_it_deserves() {
    let text = include_str!("../../../tests/vectors/config/tutorial.yml");
    let pool = pool(text);
    assert_eq!(pool.server_failure_limit.get(), 1);
    assert_eq!(pool.server_retry_timeout, Duration::from_secs(2));
    assert_eq!(pool.servers.len(), 2);
    assert_eq!(codes(text), ["eject-moves-keys", "unnamed-server"]);
}

#[test]
fn the_example_names_every_directive_and_is_valid() {
    let text = include_str!("../../../../conf/nutcracker.yml");
    assert_eq!(codes(text), Vec::<&str>::new(), "{}", shown(text));
    for directive in Directive::ALL {
        let word = format!("{}:", directive.name());
        assert!(
            text.lines().any(|line| line.trim_start_matches([' ', '#']).starts_with(&word)),
            "{word}"
        );
    }
    accepted(text);
}

#[test]
fn hostile_files_are_refused_quickly() {
    let brackets = "[".repeat(200_000);
    assert!(codes(&brackets).contains(&"nested-too-deep"));
    let braces = "{a: ".repeat(50_000);
    assert!(parse("f", &braces).config.is_none());
    let dashes = "- ".repeat(100_000);
    assert!(parse("f", &dashes).config.is_none());
    let deep: String = (0..2000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(codes(&deep).contains(&"nested-too-deep"));
    let keys = "a: b\n".repeat(100_000);
    let diagnostics = parse("f", &keys).diagnostics;
    assert_eq!(diagnostics.len(), limits::CONFIG_DIAGNOSTICS_MAX + 1);
    assert_eq!(diagnostics.last().map(|last| last.code), Some("too-many-problems"));
    let large = " ".repeat(limits::CONFIG_BYTES_MAX + 1);
    assert_eq!(codes(&large), ["file-too-large"]);
    let many = "-\n".repeat(limits::CONFIG_NODES_MAX + 10);
    assert!(codes(&many).contains(&"file-too-complex"));
}

#[test]
fn bytes_that_are_no_text_are_refused_where_they_are() {
    let parsed = parse_bytes("f", b"alpha:\n  x\xff");
    let first = parsed.diagnostics.first().unwrap();
    assert_eq!((first.code, first.line, first.column), ("not-utf8", 2, 4));
    assert!(parsed.config.is_none());
    assert!(parse_bytes("f", with("").as_bytes()).config.is_some());
}

#[test]
fn json_has_the_documented_shape() {
    let text = "alpha:\n  listen: a:1\n  listen: a:2\n  servers:\n    - h:1:1\n";
    let json = render::json("dir/\"f\".yml", &parse("f.yml", text).diagnostics);
    let expected = "{\"file\":\"dir/\\\"f\\\".yml\",\"errors\":1,\"warnings\":0,\"diagnostics\":[{\
                    \"severity\":\"error\",\"code\":\"duplicate-directive\",\"start\":23,\
                    \"end\":29,\"line\":3,\"column\":3,\"message\":\"\\\"listen\\\" is here a \
                    second time\",\"expected\":null,\"hint\":null,\"related\":{\"start\":9,\
                    \"end\":15,\"line\":2,\"column\":3,\"message\":\"first here\"}}]}";
    assert_eq!(json, expected);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["diagnostics"][0]["related"]["line"], 2);
}

#[test]
fn a_password_is_never_shown() {
    for text in [
        with("  redis_auth: hunter2\n"),
        with("  redis_atuh: hunter2\n"),
        with("  redis: true\n  redis_auth: @hunter2\n"),
        with("  redis: true\n  redis_auth: hunter2\n  redis_auth: hunter2\n"),
        with("  redis: true\n  redis_auth: [hunter2]\n"),
        with("  redis: true\n  redis_auth: \"hunter2\n"),
    ] {
        let parsed = parse("f.yml", &text);
        assert!(parsed.config.is_none(), "{text}");
        assert!(!shown(&text).contains("hunter"), "{}", shown(&text));
        assert!(!render::json("f.yml", &parsed.diagnostics).contains("hunter"));
    }
}

#[test]
fn colour_adds_only_escapes() {
    let text = with("  hsah: md5\n");
    let diagnostics = parse("f.yml", &text).diagnostics;
    assert!(render::human("f.yml", &text, &diagnostics, true).contains("\x1b["));
    assert!(!render::human("f.yml", &text, &diagnostics, false).contains('\x1b'));
    assert_eq!(diagnostics.first().map(|first| first.severity), Some(Severity::Error));
}

/// The human rendering of the usual mistakes, letter by letter.
#[test]
fn the_usual_mistakes_look_like_this() {
    let cases = [
        (
            with("  hsah: md5\n"),
            r#"error[unknown-directive]: "hsah" is not a directive
 --> f.yml:3:3
  |
3 |   hsah: md5
  |   ^^^^
  |
  = help: did you mean "hash"?
"#,
        ),
        (
            with("  redis: yes\n"),
            r#"error[not-a-boolean]: "redis" is "yes", which is not a boolean
 --> f.yml:3:10
  |
3 |   redis: yes
  |          ^^^
  |
  = note: expected true or false, in lower case
  = help: did you mean "true"?
"#,
        ),
        (
            with("  distribution: Ketama # as before\n"),
            r#"error[unknown-distribution]: "Ketama" is not a distribution
 --> f.yml:3:17
  |
3 |   distribution: Ketama # as before
  |                 ^^^^^^
  |
  = note: expected one of ketama, modula, random
  = help: did you mean "ketama"?
"#,
        ),
        (
            format!("{HEAD}  servers:\n    - 10.0.0.1:6379\n"),
            r#"error[invalid-server]: "10.0.0.1:6379" is not a server
 --> f.yml:4:7
  |
4 |     - 10.0.0.1:6379
  |       ^^^^^^^^^^^^^
  |
  = note: expected "host:port:weight name" or "/path:weight name"; the name may be left out
  = help: add a weight: "10.0.0.1:6379:1"
"#,
        ),
        (
            format!("{HEAD}{SERVERS}beta:\r\n  listen: 127.0.0.1:22121\r\n{SERVERS}"),
            r#"error[duplicate-listen]: the pools "alpha" and "beta" listen on the same address
 --> f.yml:6:11
  |
6 |   listen: 127.0.0.1:22121
  |           ^^^^^^^^^^^^^^^
  |
 ::: f.yml:2:11
  |
2 |   listen: 127.0.0.1:22121
  |           --------------- first here
"#,
        ),
        (
            with("\ttimeout: 5\n"),
            r#"error[yaml-syntax]: a tab cannot indent
 --> f.yml:3:1
  |
3 |     timeout: 5
  | ^
  |
  = help: indent with spaces
"#,
        ),
        (
            format!("alpha:\n{SERVERS}"),
            r#"error[missing-listen]: the pool "alpha" has no "listen"
 --> f.yml:1:1
  |
1 | alpha:
  | ^^^^^
  |
  = note: expected "listen: host:port"
"#,
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(shown(&text).trim_end(), expected.trim_end(), "{text}");
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Pieces that YAML and twemproxy care about, and some that they do not.
    const PIECES: [&str; 40] = [
        "\n",
        "\n  ",
        "\n    - ",
        " ",
        "\t",
        ":",
        ": ",
        "- ",
        "#",
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        "&a",
        "*a",
        "!t",
        "%",
        "@",
        "|\n",
        ">\n",
        "? ",
        "---\n",
        "...\n",
        "~",
        "alpha",
        "listen",
        "hash",
        "servers",
        "redis_auth",
        "true",
        "127.0.0.1:1",
        "h:1:1",
        "h:1:1 n",
        "0",
        "99999999999",
        "é",
        "\u{feff}",
        "\r\n",
    ];

    fn texts() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(PIECES.to_vec());
        let soup = prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat());
        let edited = (0usize..300, 0usize..12, prop::sample::select(PIECES.to_vec())).prop_map(
            |(at, cut, piece)| {
                let mut text: Vec<char> =
                    include_str!("../../../tests/vectors/config/tutorial.yml").chars().collect();
                let at = at.min(text.len());
                let end = (at + cut).min(text.len());
                text.splice(at..end, piece.chars());
                text.into_iter().collect()
            },
        );
        prop_oneof![soup, edited, any::<String>()]
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_rendered(text in texts()) {
            let parsed = parse("f", &text);
            let errors = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error);
            prop_assert_eq!(errors.count() == 0, parsed.config.is_some());
            for diagnostic in &parsed.diagnostics {
                prop_assert!(text.get(diagnostic.span.clone()).is_some());
                prop_assert!(!diagnostic.message.chars().any(char::is_control));
            }
            let _ = render::human("f", &text, &parsed.diagnostics, true);
            let json = render::json("f", &parsed.diagnostics);
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(
                value["diagnostics"].as_array().map(Vec::len),
                Some(parsed.diagnostics.len())
            );
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let parsed = parse_bytes("f", &bytes);
            prop_assert!(parsed.config.is_some() || !parsed.diagnostics.is_empty());
        }

        #[test]
        fn any_server_line_keeps_its_place(line in "[a-z0-9.:/ \\[\\]-]{1,24}") {
            if let Ok(server) = address::parse_server(&line) {
                prop_assert!(line.contains(&server.name));
            }
        }
    }
}
