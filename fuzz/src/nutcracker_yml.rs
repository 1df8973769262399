//! The readers of `nutcracker.yml` and `ringkeeper.yml`, the way from one to the other and the two
//! renderers, on any bytes.
//!
//! Time is libFuzzer's to watch (`-timeout`): nothing here has a clock.

use ringkeeper_core::config::diagnostic::{Diagnostic, Place, Severity};
use ringkeeper_core::config::native;
use ringkeeper_core::config::nutcracker::{self, Config, Listen, Pool};
use ringkeeper_core::config::render;

/// A word that no message, key or default of the reader holds.
const CANARY: &str = "Zq7Xw9Kp";

/// The directive whose value is secret.
const SECRET_KEY: &str = "redis_auth:";

/// Reads any bytes: there is a configuration exactly when there is no error, every place is in
/// the text and says where it is, reading again says the same, and no renderer panics.
pub(crate) fn nutcracker_yml(data: &[u8]) {
    reads(data, |bytes| {
        let nutcracker::Parsed { config, diagnostics } = nutcracker::parse_bytes("fuzz.yml", bytes);
        (config, diagnostics)
    });
    if let Ok(text) = std::str::from_utf8(data) {
        imports(text);
    }
}

/// The same for `ringkeeper.yml`.
pub(crate) fn ringkeeper_yml(data: &[u8]) {
    reads(data, |bytes| {
        let native::Parsed { config, diagnostics, .. } = native::parse_bytes("fuzz.yml", bytes);
        if config.is_some() {
            assert!(native::is_native(bytes), "what can be used is recognized");
        }
        (config, diagnostics)
    });
}

type Read = (Option<Config>, Vec<Diagnostic>);

fn reads(data: &[u8], read: impl Fn(&[u8]) -> Read) {
    let parsed = read(data);
    assert_eq!(parsed, read(data));
    let text = valid_prefix(data);
    check(text, &parsed);
    // What a caller shows that does not stop at the first byte that is no UTF-8.
    let lossy = String::from_utf8_lossy(data);
    render::human("fuzz.yml", &lossy, &parsed.1, true);
    if text.len() == data.len() {
        hides_passwords(text, read);
    }
}

/// Whatever twemproxy's form says the native form says, too.
fn imports(text: &str) {
    let parsed = nutcracker::parse("fuzz.yml", text);
    let imported = native::write(native::Old { name: "fuzz.yml", text }, None);
    assert_eq!(parsed.config.is_some(), imported.is_ok());
    let (Some(old), Ok(imported)) = (parsed.config, imported) else { return };
    let new = native::parse("fuzz.yml", &imported);
    let shown = render::human("fuzz.yml", &imported, &new.diagnostics, false);
    let new = new.config.unwrap_or_else(|| panic!("{imported}\n{shown}"));
    let old: Vec<Pool> = old.pools.iter().map(meaning).collect();
    let new: Vec<Pool> = new.pools.iter().map(meaning).collect();
    assert_eq!(old, new, "{imported}");
}

/// A pool without what the forms write differently.
fn meaning(pool: &Pool) -> Pool {
    let mut pool = pool.clone();
    pool.listen = Listen { literal: String::new(), ..pool.listen };
    pool.redis_db = if pool.redis { pool.redis_db } else { 0 };
    for server in &mut pool.servers {
        server.literal.clear();
        server.is_named = true;
    }
    pool
}

fn valid_prefix(data: &[u8]) -> &str {
    match std::str::from_utf8(data) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&data[..error.valid_up_to()]).unwrap(),
    }
}

fn check(text: &str, (config, diagnostics): &Read) {
    let has_errors = diagnostics.iter().any(|one| one.severity == Severity::Error);
    assert_eq!(config.is_some(), !has_errors, "a configuration or an error");
    for diagnostic in diagnostics {
        let Diagnostic { span, line, column, message, .. } = diagnostic;
        check_place(text, &Place { span: span.clone(), line: *line, column: *column });
        if let Some(related) = &diagnostic.related {
            check_place(text, &related.place);
        }
        assert!(!message.is_empty() && !message.contains(char::is_control), "{message:?}");
    }
    let shown = render::human("fuzz.yml", text, diagnostics, false);
    assert_eq!(shown.is_empty(), diagnostics.is_empty());
    let json: serde_json::Value =
        serde_json::from_str(&render::json("fuzz.yml", diagnostics)).unwrap();
    let listed = json["diagnostics"].as_array().map_or(0, Vec::len);
    assert_eq!(listed, diagnostics.len());
    if let Some(config) = config {
        assert!(!config.pools.is_empty(), "a configuration has a pool");
        for pool in &config.pools {
            assert!(!pool.servers.is_empty(), "a pool has a server");
        }
    }
}

/// Counts lines and columns anew, the slow way.
fn check_place(text: &str, place: &Place) {
    assert!(text.get(place.span.clone()).is_some(), "{:?} is in the text", place.span);
    let before = &text[..place.span.start];
    assert_eq!(place.line, before.matches('\n').count() + 1);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    assert_eq!(place.column, before[line_start..].chars().count() + 1);
}

/// Gives every `redis_auth` of a plain text the same unmistakable value, and looks for it in what
/// people and programs are shown.
///
/// Quotes, comments and the like would make the value part of something else, which may be shown.
fn hides_passwords(text: &str, read: impl Fn(&[u8]) -> Read) {
    if text.contains(CANARY) || text.contains(|sign: char| "\"'|>{}[]&*!?%@`#,\\".contains(sign)) {
        return;
    }
    let mut secret = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let key = line.trim_start();
        let Some(value) = key.strip_prefix(SECRET_KEY) else {
            secret.push_str(line);
            continue;
        };
        if value.trim().is_empty() || !value.starts_with(' ') {
            secret.push_str(line);
            continue;
        }
        secret.push_str(&line[..line.len() - key.len()]);
        secret.push_str(SECRET_KEY);
        secret.push_str(&format!(" {CANARY}\n"));
    }
    if !secret.contains(CANARY) {
        return;
    }
    let parsed = read(secret.as_bytes());
    check(&secret, &parsed);
    for shown in [
        render::human("fuzz.yml", &secret, &parsed.1, false),
        render::json("fuzz.yml", &parsed.1),
        format!("{parsed:?}"),
    ] {
        assert!(!shown.contains(CANARY), "the password is shown: {shown}");
    }
}
