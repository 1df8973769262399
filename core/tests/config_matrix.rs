//! The verdict on 67 configurations against that of the genuine twemproxy 0.5.
//!
//! `vectors/config/conf_matrix.json` holds each file, twemproxy's exit code and what its log says.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use ringkeeper_core::config::diagnostic::Severity;
use ringkeeper_core::config::nutcracker;

/// Where our verdict differs, and why.
const DIFFERENCES: [(&str, &str); 2] = [
    ("reuseport", "the tested build is too old to know it; later ones do, and it works here"),
    ("listen_unresolv", "nothing is resolved here; the host reports the name when it listens"),
];

/// For each file that twemproxy refuses, the diagnostic that tells the same reason.
const REASONS: [(&str, &str); 42] = [
    ("no_listen", "missing-listen"),
    ("no_servers_key", "missing-servers"),
    ("empty_servers", "servers-not-a-list"),
    ("unknown_directive", "unknown-directive"),
    ("dup_directive_timeout", "duplicate-directive"),
    ("dup_listen", "duplicate-directive"),
    ("bad_timeout_word", "not-a-number"),
    ("timeout_neg", "not-a-number"),
    ("bool_yes", "not-a-boolean"),
    ("bool_True", "not-a-boolean"),
    ("bad_hash", "unknown-hash"),
    ("hash_upper", "unknown-hash"),
    ("bad_dist", "unknown-distribution"),
    ("hash_tag_1", "invalid-hash-tag"),
    ("hash_tag_3", "invalid-hash-tag"),
    ("hash_tag_empty", "empty-value"),
    ("server_connections_0", "server-connections-zero"),
    ("redis_auth_nonredis", "redis-auth-without-redis"),
    ("redis_auth_empty", "empty-value"),
    ("redis_db_neg", "not-a-number"),
    ("server_noweight", "invalid-server"),
    ("server_noport", "invalid-server"),
    ("weight_zero", "zero-server-weight"),
    ("weight_neg", "invalid-server-weight"),
    ("weight_word", "invalid-server-weight"),
    ("port_0", "invalid-server-port"),
    ("port_65536", "invalid-server-port"),
    ("dup_server", "duplicate-server"),
    ("dup_server_name", "duplicate-server"),
    ("dup_by_11211_rule", "duplicate-server"),
    ("name_two_spaces", "invalid-server-weight"),
    ("listen_noport", "invalid-listen"),
    ("listen_badport", "invalid-listen-port"),
    ("listen_unix_badperm", "invalid-listen-mode"),
    ("dup_pool_name", "duplicate-pool"),
    ("dup_pool_listen", "duplicate-listen"),
    ("empty_file", "no-document"),
    ("doc_start", "disallowed-token"),
    ("flow_seq", "disallowed-token"),
    ("anchor", "disallowed-token"),
    ("two_servers_lists", "duplicate-directive"),
    ("deep", "nested-too-deep"),
];

/// The same for files whose reason twemproxy only knows as a fault of the YAML or its shape.
const SHAPES: [(&str, &str); 3] = [
    ("tab", "yaml-syntax"),
    ("scalar_root", "root-not-a-mapping"),
    ("comment_only", "no-document"),
];

/// For files that both accept, what we warn about.
const WARNINGS: [(&str, &[&str]); 5] = [
    ("client_connections_5", &["client-connections-limits"]),
    ("timeout_huge", &["number-wraps"]),
    ("server_failure_limit_0", &["failure-limit-zero"]),
    ("redis_db_nonredis", &["redis-db-ignored"]),
    ("listen_unix_wordperm", &["listen-mode-not-octal"]),
];

struct Case {
    name: String,
    text: String,
    is_refused: bool,
}

/// Returns every case that is a file; one is about a file that does not exist.
fn cases() -> Vec<Case> {
    let matrix: serde_json::Value =
        serde_json::from_str(include_str!("vectors/config/conf_matrix.json")).unwrap();
    let cases = matrix["cases"].as_object().unwrap();
    assert_eq!(cases.len(), 67);
    cases
        .iter()
        .filter_map(|(name, case)| {
            let text = case["conf"].as_str()?.to_owned();
            Some(Case { name: name.clone(), text, is_refused: case["rc"] != 0 })
        })
        .collect()
}

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(case, _)| *case == name).map(|&(_, value)| value)
}

#[test]
fn the_verdict_is_that_of_twemproxy_or_differs_for_a_reason() {
    let cases = cases();
    assert_eq!(cases.len(), 66);
    for case in &cases {
        let parsed = nutcracker::parse("nutcracker.yml", &case.text);
        let is_refused = parsed.config.is_none();
        let differs = find(&DIFFERENCES, &case.name).is_some();
        assert_eq!(
            is_refused != case.is_refused,
            differs,
            "{}: {:?}",
            case.name,
            parsed.diagnostics
        );
        let has_errors = parsed.diagnostics.iter().any(|d| d.severity == Severity::Error);
        assert_eq!(has_errors, is_refused, "{}", case.name);
    }
}

#[test]
fn every_refusal_of_twemproxy_has_a_diagnostic_that_tells_it() {
    for case in cases() {
        if !case.is_refused || find(&DIFFERENCES, &case.name).is_some() {
            continue;
        }
        let code = find(&REASONS, &case.name).or_else(|| find(&SHAPES, &case.name));
        let code = code.unwrap_or_else(|| panic!("{} has no reason in the table", case.name));
        let parsed = nutcracker::parse("nutcracker.yml", &case.text);
        assert!(
            parsed.diagnostics.iter().any(|d| d.code == code && d.severity == Severity::Error),
            "{}: {:?}",
            case.name,
            parsed.diagnostics
        );
    }
}

#[test]
fn what_twemproxy_wraps_or_ignores_silently_is_a_warning() {
    for case in cases() {
        let parsed = nutcracker::parse("nutcracker.yml", &case.text);
        if parsed.config.is_none() {
            continue;
        }
        let codes: Vec<&str> = parsed.diagnostics.iter().map(|d| d.code).collect();
        let expected = find(&WARNINGS, &case.name).unwrap_or(&[]);
        assert_eq!(codes, expected, "{}", case.name);
    }
}

#[test]
fn every_diagnostic_points_into_the_text() {
    for case in cases() {
        for diagnostic in nutcracker::parse("nutcracker.yml", &case.text).diagnostics {
            assert!(case.text.get(diagnostic.span.clone()).is_some(), "{}", case.name);
            let line = case.text.lines().nth(diagnostic.line - 1).unwrap_or_default();
            assert!(diagnostic.column <= line.chars().count() + 1, "{}", case.name);
        }
    }
}

#[test]
fn every_prefix_of_every_case_is_read_without_a_panic() {
    for case in cases() {
        for end in 0..=case.text.len() {
            let Some(text) = case.text.get(..end) else { continue };
            let parsed = nutcracker::parse("nutcracker.yml", text);
            assert!(parsed.config.is_some() || !parsed.diagnostics.is_empty());
        }
    }
}
