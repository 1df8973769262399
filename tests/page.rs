//! The page at the admin address, as a browser shows it: Chromium without a window. Screenshots stay
//! in `target/page`. And `ringkeeper top`, which shows the same in a terminal.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use support::lab::{Proxy, Redis, Runtime, program};

#[test]
fn a_browser_shows_the_page_live_in_both_schemes_and_sizes() {
    need!("redis-server", "chromium-headless-shell", "python3");
    let (one, two) = (Redis::start(), Redis::start());
    let pool = format!(
        "  redis: true\n  timeout: 500\n  servers:\n{}\n{}",
        one.line("one"),
        two.line("two")
    );
    let proxy = Proxy::start(Runtime::Tokio, &pool);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = proxy.client();
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                number += 1;
                client.ask(&["SET", &format!("key:{number}"), "value"]);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let end = EndFlag(&is_over);
        let mut script = Command::new(program("python3").unwrap());
        script
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page.py"))
            .arg(program("chromium-headless-shell").unwrap())
            .arg(format!("http://{}/", proxy.admin()))
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut script = script.spawn().unwrap();
        let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
        let seen: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        examine(&seen);
        two.signal(Signal::KILL);
        script.stdin.take().unwrap().write_all(b"go on\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "down");
        assert!(script.wait().unwrap().success());
        drop(end);
    });
    for name in ["desk-light", "desk-dark", "phone-light", "phone-dark"] {
        let size = std::fs::metadata(folder.join(format!("{name}.png"))).unwrap().len();
        assert!(size > 10_000, "{name}: {size} bytes");
    }
}

#[test]
fn top_shows_it_in_a_terminal_and_leaves_the_terminal_as_it_was() {
    need!("redis-server", "script");
    let redis = Redis::start();
    let proxy = Proxy::start(
        Runtime::Tokio,
        &format!("  redis: true\n  timeout: 500\n  servers:\n{}", redis.line("one")),
    );
    proxy.client().ask(&["SET", "a", "1"]);
    // A screen that never comes ends, too.
    let top = format!(
        "timeout --foreground 60 {} top --admin {}",
        env!("CARGO_BIN_EXE_ringkeeper"),
        proxy.admin()
    );
    let mut script = Command::new(program("script").unwrap());
    script.args(["-qec", &format!("stty cols 100 rows 30; {top}"), "/dev/null"]);
    script.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut script = script.spawn().unwrap();
    let mut keys = script.stdin.take().unwrap();
    let mut out = script.stdout.take().unwrap();
    let mut seen = String::new();
    let mut bytes = [0; 4096];
    // Every part of the first screen is there once the last of it is.
    while !(seen.contains("alpha") && seen.contains("100.0") && seen.contains("waiting")) {
        let size = out.read(&mut bytes).unwrap();
        assert!(size > 0, "it has ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..size]));
    }
    assert!(seen.contains("ready"), "{seen}");
    keys.write_all(b"q").unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(script.wait().unwrap().success(), "{rest}");
    assert!(rest.contains("\u{1b}[?1049l"), "the other screen is shown again: {rest:?}");

    let aside = Command::new(env!("CARGO_BIN_EXE_ringkeeper")).arg("top").output().unwrap();
    assert!(!aside.status.success());
    assert!(String::from_utf8_lossy(&aside.stderr).contains("needs a terminal"), "{aside:?}");
}

/// Ends the traffic, also when an assertion fails.
struct EndFlag<'a>(&'a AtomicBool);

impl Drop for EndFlag<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn examine(seen: &Value) {
    assert_eq!(seen["complaints"], Value::Array(Vec::new()), "the browser has nothing to say");
    assert_eq!(seen["overflows"], Value::Array(Vec::new()), "nothing is wider than a phone");
    // The last look was in the dark.
    assert_eq!(seen["back"], "rgb(16, 21, 26)");
    let text = seen["text"].as_str().unwrap();
    for word in ["alpha", "one", "two", "Requests a second", "ready"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let stops: Vec<&str> =
        seen["stops"].as_array().unwrap().iter().map(|stop| stop.as_str().unwrap()).collect();
    assert_eq!(stops[0], "Skip to the content", "{stops:?}");
    assert!(stops.contains(&"metrics"), "{stops:?}");
    let roles: Vec<(&str, &str)> = seen["roles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node[0].as_str().unwrap(), node[1].as_str().unwrap()))
        .collect();
    assert!(roles.iter().any(|(role, _)| *role == "main"), "{roles:?}");
    assert!(roles.contains(&("heading", "Pools")), "{roles:?}");
    let ring = roles.iter().find(|(role, name)| *role == "image" && name.contains("ring"));
    assert!(
        ring.is_some_and(|(_, name)| name.contains("one ") && name.contains(" %")),
        "{roles:?}"
    );
    assert!(
        roles.iter().any(|(role, name)| *role == "table" && name.contains("1 client, ring epoch")),
        "{roles:?}"
    );
    assert!(roles.iter().any(|(role, _)| *role == "status"), "{roles:?}");
}
