//! The native configuration: what `import` makes of every file that twemproxy takes routes as
//! before, and the files of `conf/` say what the code does.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use ringkeeper_core::config::native::{self, Settings};
use ringkeeper_core::config::nutcracker::{self, Config, Listen, Pool};
use ringkeeper_core::config::render;
use ringkeeper_core::config::sentinel;
use ringkeeper_core::routing::RouteTable;
use serde_json::Value;

const ALL: &str = include_str!("../../conf/ringkeeper.yml");
const MINIMAL: &str = include_str!("../../conf/minimal.yml");

/// Keys of each pool whose place is compared.
const KEYS: usize = 2000;

#[track_caller]
fn read(name: &str, text: &str) -> (Settings, Config) {
    let parsed = native::parse(name, text);
    let shown = render::human(name, text, &parsed.diagnostics, false);
    (parsed.settings, parsed.config.unwrap_or_else(|| panic!("{text}\n{shown}")))
}

/// A pool without the words that the file has for things, which differ between the forms.
fn meaning(pool: &Pool) -> Pool {
    let mut pool = pool.clone();
    pool.listen = Listen { literal: String::new(), ..pool.listen };
    // Without Redis the number means nothing, and the native form refuses it.
    pool.redis_db = if pool.redis { pool.redis_db } else { 0 };
    for server in &mut pool.servers {
        server.literal.clear();
        server.is_named = true;
    }
    pool
}

fn places(pool: &Pool) -> Vec<String> {
    let table = RouteTable::build(&pool.route_spec(), &vec![true; pool.servers.len()], 0);
    (0..KEYS).map(|n| format!("{:?}", table.explain(format!("key:{{{n}}}:x").as_bytes()))).collect()
}

/// Imports a file and compares; `what` appears when something differs.
fn imports_alike(what: &str, old: &Config, text: &str) {
    let imported = native::write(native::Old { name: what, text }, None).unwrap();
    assert!(native::is_native(imported.as_bytes()), "{what}:\n{imported}");
    let (_, new) = read(what, &imported);
    assert_eq!(old.pools.len(), new.pools.len(), "{what}");
    for (old, new) in old.pools.iter().zip(&new.pools) {
        assert_eq!(meaning(old), meaning(new), "{what}:\n{imported}");
        assert_eq!(places(old), places(new), "{what}:\n{imported}");
    }
}

#[test]
fn an_import_of_every_file_that_twemproxy_takes_routes_as_before() {
    let cases: Value =
        serde_json::from_str(include_str!("vectors/config/conf_matrix.json")).unwrap();
    let mut texts: Vec<(String, String)> = cases["cases"]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(name, case)| Some((name.clone(), case["conf"].as_str()?.to_owned())))
        .collect();
    texts.push(("tutorial".into(), include_str!("vectors/config/tutorial.yml").into()));
    texts.push(("conf".into(), include_str!("../../conf/nutcracker.yml").into()));
    let mut imported = 0;
    for (name, text) in &texts {
        let Some(old) = nutcracker::parse(name, text).config else { continue };
        imports_alike(name, &old, text);
        imported += 1;
    }
    assert!(imported >= 20, "only {imported} files are good");
}

#[test]
fn an_import_with_a_sentinel_names_the_masters_and_leaves_the_ring_as_it_was() {
    let text = include_str!("../../tests/tutorial/nutcracker.yml");
    let sentinel = include_str!("../../tests/tutorial/sentinel.conf");
    let old = nutcracker::parse("nutcracker.yml", text).config.unwrap();
    let imported = native::write(
        native::Old { name: "nutcracker.yml", text },
        Some(native::Old { name: "sentinel.conf", text: sentinel }),
    )
    .unwrap();
    let (settings, new) = read("ringkeeper.yml", &imported);
    let (old, new) = (&old.pools[0], &new.pools[0]);
    assert_eq!(places(old), places(new), "{imported}");
    let shards: Vec<(&str, Option<&str>)> =
        new.servers.iter().map(|one| (one.name.as_str(), one.shard.as_deref())).collect();
    let expected = [
        ("192.168.223.128:6379", Some("nutcracker_a")),
        ("192.168.223.131:6379", Some("nutcracker_b")),
    ];
    assert_eq!(shards, expected);
    assert!(!new.auto_eject_hosts, "a failed master is replaced instead");
    let Some(native::Watch::Own(own)) = settings.sentinel else { panic!("{imported}") };
    let before = sentinel::parse("sentinel.conf", sentinel).config.unwrap();
    for (old, new) in before.masters.iter().zip(&own.config.masters) {
        let mut expected = old.clone();
        // Said in a comment: it would restart the proxy.
        expected.client_reconfig_script = None;
        assert_eq!(*new, expected);
    }
    for word in ["#client_reconfig_script: \"./client-reconfig.sh\"", "Was true.", "#hosts: []"] {
        assert!(imported.contains(word), "{word} in\n{imported}");
    }
}

#[test]
fn an_import_keeps_odd_names_and_addresses() {
    let texts = [
        "a:\n  listen: h:1\n  servers:\n    - h:11211:1\n    - h:06379:2\n    - ::1:5:1\n    - \
         '[::1]:6:1'\n    - /s.sock:3\n",
        "a:\n  listen: '/l a 600'\n  servers:\n    - 'h x:1:1 a:b'\n    - 'h:1:1 '\n    - ':7:1'\n",
        "a:\n  listen: '/l a 0'\n  servers:\n    - h:1:1 off\n    - h:2:1 12\n    - h:3:1 é\n",
        "off:\n  listen: ::1:22121\n  redis: true\n  redis_auth: \"\\x41 'b\\\" # \\e\"\n  hash_tag: \
         '\"\\'\n  servers:\n    - h:1:4294967297\n",
        "? \"a: b\\n\"\n: listen: a:1\n  hash_tag: é\n  servers:\n    - h:1:1\n",
        "z:\n  listen: a:1\n  servers:\n    - h:1:1\nb:\n  listen: a:2\n  timeout: 0400\n  \
         server_retry_timeout: 90000\n  servers:\n    - h:1:1\n",
    ];
    for text in texts {
        let parsed = nutcracker::parse("f.yml", text);
        let old = parsed.config.unwrap_or_else(|| panic!("{text}: {:?}", parsed.diagnostics));
        imports_alike(text, &old, text);
    }
    let long = format!("? {}\n: listen: a:1\n  servers:\n    - h:1:1\n", "a".repeat(1500));
    let old = nutcracker::parse("f.yml", &long).config.unwrap();
    imports_alike("a long name", &old, &long);
}

/// Takes away the `#` of every key that is commented out with its default.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let body = line.trim_start();
        let is_default = body.strip_prefix('#').is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains(": ")
        });
        if is_default { line.replacen('#', "", 1) } else { line.to_owned() }
    });
    lines.map(|line| line + "\n").collect()
}

#[test]
fn the_file_of_all_keys_shows_their_defaults() {
    let (minimal_settings, minimal) = read("minimal.yml", MINIMAL);
    let (as_shipped_settings, as_shipped) = read("ringkeeper.yml", ALL);
    let text = uncommented(ALL);
    assert_ne!(text, ALL);
    let (all_settings, all) = read("ringkeeper.yml", &text);
    assert_eq!(minimal_settings, Settings::default());
    assert_eq!(as_shipped_settings, minimal_settings);
    assert_eq!(all_settings, minimal_settings);
    assert_eq!(as_shipped, minimal);
    assert_eq!(all, minimal);
    for text in [MINIMAL, ALL, text.as_str()] {
        let diagnostics = native::parse("f.yml", text).diagnostics;
        assert!(
            diagnostics.is_empty(),
            "nothing to warn about, but\n{}",
            render::human("f.yml", text, &diagnostics, false)
        );
    }
}

#[test]
fn every_key_is_in_the_file_of_all_keys_once_with_its_reason() {
    let lines: Vec<&str> = ALL.lines().collect();
    for key in native::keys() {
        let word = key.rsplit('.').next().unwrap();
        // Keys of the same name differ in depth.
        let indent = match (key.matches('.').count(), key.starts_with("sentinel.")) {
            (0, _) => 0,
            (1, _) => 2,
            (2, _) => 4,
            (_, true) => 6,
            (_, false) => 8,
        };
        let places: Vec<usize> = (0..lines.len())
            .filter(|&at| {
                let line = lines[at].replacen("- ", "  ", 1);
                let body = line.trim_start();
                let depth = line.len() - body.len();
                let body = body.strip_prefix("# ").or_else(|| body.strip_prefix('#'));
                let body = body.unwrap_or_else(|| line.trim_start());
                depth == indent && body.starts_with(&format!("{word}:"))
            })
            .collect();
        assert!(!places.is_empty(), "{key} is not in conf/ringkeeper.yml");
        let is_explained =
            places.iter().any(|&at| at > 0 && lines[at - 1].trim_start().starts_with("# "));
        let is_section =
            ["admin", "stats", "figures", "log", "limits", "sentinel", "vrrp", "pools"]
                .contains(&key.as_str());
        assert!(is_explained || is_section, "{key} has no comment above it");
    }
}
