//! The files that genuine Sentinels wrote, and the one of the tutorial.

use ringkeeper_core::config::diagnostic::Severity;
use ringkeeper_core::config::sentinel::{Config, parse, rewrite};

use crate::recorded::{REDIS, VALKEY, section};

const TUTORIAL: &str = include_str!("../vectors/sentinel/tutorial.conf");

fn good(text: &str) -> Config {
    let parsed = parse("sentinel.conf", text);
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    parsed.config.unwrap()
}

#[test]
fn files_of_genuine_sentinels_are_read_without_a_word_and_kept_byte_by_byte() {
    for transcript in [REDIS, VALKEY] {
        for heading in ["config file right after discovery", "config file at the end"] {
            let text = section(transcript, heading);
            let config = good(text);
            assert_eq!(rewrite(text, &config), text);
            assert!(config.myid.is_some());
            assert_eq!(config.masters[0].down_after_ms, 2000);
            assert_eq!(config.masters[0].known_sentinels.len(), 1);
        }
    }
}

#[test]
fn what_a_failover_changes_is_what_a_genuine_sentinel_writes() {
    for transcript in [REDIS, VALKEY] {
        let before = section(transcript, "config file right after discovery");
        let after = good(section(transcript, "config file at the end"));
        let written = rewrite(before, &after);
        let changed: Vec<&str> =
            written.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
        let port = if transcript == REDIS { 28101 } else { 28201 };
        assert_eq!(
            changed,
            [
                &format!("sentinel monitor mymaster 127.0.0.1 {port} 2"),
                "sentinel config-epoch mymaster 1",
                "sentinel leader-epoch mymaster 1",
                "sentinel current-epoch 1",
            ]
        );
        assert!(!written.contains("known-replica"));
        assert_eq!(good(&written), after);
    }
}

#[test]
fn the_file_of_the_tutorial_runs_unchanged() {
    let config = good(TUTORIAL);
    assert_eq!(config.server.port, Some(26379));
    assert!(!config.server.daemonize);
    let [a, b] = config.masters.as_slice() else { panic!() };
    assert_eq!((a.name.as_str(), b.name.as_str()), ("nutcracker_a", "nutcracker_b"));
    assert_eq!(a.monitor.address.to_string(), "192.168.223.128:6379");
    assert_eq!((a.down_after_ms, a.failover_timeout_ms, a.monitor.quorum.get()), (5000, 60000, 2));
    assert_eq!(b.client_reconfig_script.as_deref(), Some("./client-reconfig.sh"));
    let written = rewrite(TUTORIAL, &config);
    assert!(written.starts_with(TUTORIAL));
    assert_eq!(good(&written), config);
    assert!(parse("x", &written).diagnostics.iter().all(|d| d.severity != Severity::Error));
}
