//! The running binary between clients and a server of its own, once per runtime.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use support::{Process, Scratch, free_port};

/// The runtimes that this machine has.
fn runtimes() -> Vec<&'static str> {
    let scratch = Scratch::new();
    let port = scratch.write_good("ok.yml");
    let mut process = scratch
        .start("ringkeeper", &["run", "-c", "ok.yml", "--stats-port", "0", "--runtime", "uring"]);
    let has_uring = support::eventually("io_uring is there or not", || {
        let is_up = scratch.read("stderr").contains("statistics are served");
        if is_up { Some(true) } else { process.status().map(|_| false) }
    });
    assert_ne!(port, 0);
    if has_uring {
        vec!["tokio", "uring"]
    } else {
        eprintln!("only tokio: {}", scratch.read("stderr"));
        vec!["tokio"]
    }
}

/// Serves `SET` and `GET` to any number of connections until the test ends.
fn start_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let store = std::sync::Arc::new(std::sync::Mutex::new(BTreeMap::new()));
        for stream in listener.incoming().flatten() {
            let store = std::sync::Arc::clone(&store);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut writer = stream;
                while let Some(words) = read_request(&mut reader) {
                    let mut store = store.lock().unwrap();
                    let reply = match words.as_slice() {
                        [_, key, value] => {
                            store.insert(key.clone(), value.clone());
                            "+OK\r\n".to_owned()
                        }
                        [_, key] => match store.get(key) {
                            Some(value) => format!("${}\r\n{value}\r\n", value.len()),
                            None => "$-1\r\n".to_owned(),
                        },
                        _ => "-ERR unexpected\r\n".to_owned(),
                    };
                    writer.write_all(reply.as_bytes()).unwrap();
                }
            });
        }
    });
    port
}

fn read_request(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let number = |reader: &mut dyn BufRead| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.get(1..)?.trim_end().parse::<usize>().ok()
    };
    let count = number(reader)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let length = number(reader)?;
        let mut word = vec![0; length + 2];
        reader.read_exact(&mut word).ok()?;
        word.truncate(length);
        words.push(String::from_utf8(word).unwrap());
    }
    Some(words)
}

/// A running proxy in front of one server.
struct Proxy {
    scratch: Scratch,
    process: Process,
    port: u16,
}

fn start_proxy(runtime: &str) -> Proxy {
    let scratch = Scratch::new();
    let (port, server) = (free_port(), start_server());
    let text = format!(
        "alpha:\n  listen: 127.0.0.1:{port}\n  redis: true\n  servers:\n   - \
         127.0.0.1:{server}:1 one\n"
    );
    scratch.write("ok.yml", &text);
    let arguments = ["run", "-c", "ok.yml", "--stats-port", "0", "--runtime", runtime];
    let process = scratch.start("ringkeeper", &arguments);
    scratch.wait_for("stderr", "statistics are served");
    Proxy { scratch, process, port }
}

impl Proxy {
    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }
}

fn ask(client: &mut TcpStream, request: &str, reply: &str) {
    client.write_all(request.as_bytes()).unwrap();
    let mut got = vec![0; reply.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8_lossy(&got), reply);
}

const SET: &str = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhello\r\n";
const GET: &str = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";

#[test]
fn requests_reach_the_server_and_replies_come_back() {
    for runtime in runtimes() {
        let proxy = start_proxy(runtime);
        let mut client = proxy.client();
        ask(&mut client, SET, "+OK\r\n");
        ask(&mut client, &GET.repeat(100), &"$5\r\nhello\r\n".repeat(100));
    }
}

#[test]
fn the_statistics_port_gives_json() {
    for runtime in runtimes() {
        let proxy = start_proxy(runtime);
        ask(&mut proxy.client(), SET, "+OK\r\n");
        let log = proxy.scratch.read("stderr");
        let at = log.split("statistics are served address=").nth(1).unwrap();
        let at = at.split_whitespace().next().unwrap();
        let mut text = String::new();
        TcpStream::connect(at).unwrap().read_to_string(&mut text).unwrap();
        let figures: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(figures["alpha"]["one"]["requests"], 1, "{text}");
        assert_eq!(figures["version"], env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn a_connected_client_is_let_go_at_a_drain() {
    for runtime in runtimes() {
        let mut proxy = start_proxy(runtime);
        let mut client = proxy.client();
        ask(&mut client, SET, "+OK\r\n");
        proxy.process.signal(Signal::TERM);
        assert_eq!(proxy.process.wait().code(), Some(0), "{}", proxy.scratch.read("stderr"));
        let mut rest = Vec::new();
        // An end or a reset, but no bytes that nobody asked for.
        let _ = client.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
}
