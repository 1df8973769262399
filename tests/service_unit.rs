//! What a service manager sees: the unit's hardening, which leaves the program all it needs, and
//! the messages that the program sends.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::lab;
use support::resp::{Client, Place};
use support::{Process, Scratch, eventually, stdout};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/ringkeeper.service");

/// Most that `systemd-analyze security` may say; redis-server's own unit has 1.2, twemproxy's 8.2.
const EXPOSURE_MAX: f64 = 1.2;

fn analyze(arguments: &[&str]) -> String {
    let output = Command::new("systemd-analyze").args(arguments).output().unwrap();
    stdout(&output)
}

#[test]
fn the_unit_exposes_as_little_as_is_promised() {
    need!("systemd-analyze");
    let text = analyze(&["security", "--no-pager", "--offline=yes", UNIT]);
    let score = text
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for ringkeeper.service: "))
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<f64>().ok());
    let score = score.unwrap_or_else(|| panic!("no score: {text}"));
    assert!(score <= EXPOSURE_MAX, "{score}: {text}");
}

/// Returns the system calls that the unit allows, its sets resolved.
fn allowed_calls(unit: &str) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    let filters = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter="));
    for filter in filters {
        let (is_denied, sets) = match filter.strip_prefix('~') {
            Some(sets) => (true, sets),
            None => (false, filter),
        };
        let mut waiting: Vec<String> = sets.split_whitespace().map(str::to_owned).collect();
        while let Some(word) = waiting.pop() {
            if word.starts_with('@') {
                let text = analyze(&["syscall-filter", "--no-pager", &word]);
                let inside = text.lines().skip(1).map(str::trim).filter(|l| !l.starts_with('#'));
                waiting.extend(inside.filter(|l| !l.is_empty()).map(str::to_owned));
            } else if is_denied {
                allowed.remove(&word);
            } else {
                allowed.insert(word);
            }
        }
    }
    allowed
}

#[test]
fn the_units_filter_allows_every_call_that_the_program_makes() {
    need!("systemd-analyze", "strace");
    let allowed = allowed_calls(&fs::read_to_string(UNIT).unwrap());
    assert!(allowed.contains("io_uring_enter") && allowed.contains("epoll_wait"));
    for runtime in ["auto", "tokio"] {
        let scratch = Scratch::new();
        let port = scratch.write_good("ok.yml");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "trace"]).arg(scratch.path("ringkeeper"));
        command.args(["run", "-c", "ok.yml", "--stats-port", "0", "--runtime", runtime]);
        command.current_dir(scratch.path("")).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(scratch.path("stderr")).unwrap());
        let mut process = Process::new(command.spawn().unwrap());
        scratch.wait_for("stderr", "statistics are served");
        let mut client = Client::connect(&Place::Tcp(([127, 0, 0, 1], port).into())).unwrap();
        assert!(!client.ask(&["PING"]).is_error());
        drop(client);
        // The traced process, not strace, is to end.
        let traced = eventually("the program runs", || {
            let path = format!("/proc/{0}/task/{0}/children", process.id());
            fs::read_to_string(path).ok()?.split_whitespace().next()?.parse::<i32>().ok()
        });
        let traced = rustix::process::Pid::from_raw(traced).unwrap();
        rustix::process::kill_process(traced, Signal::TERM).unwrap();
        process.wait();
        let trace = scratch.read("trace");
        let made: BTreeSet<&str> = trace
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1)?.split_once('('))
            .map(|(name, _)| name)
            .filter(|name| !name.starts_with('<'))
            .collect();
        assert!(made.contains("listen"), "{made:?}");
        let refused: Vec<&&str> = made.iter().filter(|name| !allowed.contains(**name)).collect();
        // The program goes on without these.
        assert!(refused.is_empty(), "{runtime}: {refused:?}");
    }
}

/// Collects messages until `text` is among them.
fn until(socket: &UnixDatagram, heard: &mut Vec<String>, text: &str) {
    let start = Instant::now();
    let mut buffer = [0; 4096];
    while !heard.iter().any(|message| message.contains(text)) {
        assert!(start.elapsed() < Duration::from_secs(20), "no {text} in {heard:?}");
        if let Ok(len) = socket.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(buffer.get(..len).unwrap()).into_owned());
        }
    }
}

/// Starts the program as a service manager does, which wants a sign of life every 300 ms.
fn start_watched(scratch: &Scratch, threads: &str) -> (UnixDatagram, Process) {
    let socket = UnixDatagram::bind(scratch.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    scratch.write_good("ok.yml");
    let arguments = ["run", "-c", "ok.yml", "--stats-port", "0", "--threads", threads];
    let mut command = scratch.command("ringkeeper", &arguments);
    command.env("NOTIFY_SOCKET", scratch.path("notify")).env("WATCHDOG_USEC", "300000");
    command.env_remove("WATCHDOG_PID").stdout(Stdio::null());
    command.stderr(fs::File::create(scratch.path("stderr")).unwrap());
    (socket, Process::new(command.spawn().unwrap()))
}

#[test]
fn the_service_manager_is_told_of_start_life_reload_and_end() {
    let scratch = Scratch::new();
    let (socket, mut process) = start_watched(&scratch, "1");
    let mut heard = Vec::new();
    until(&socket, &mut heard, "READY=1");
    assert!(heard.iter().any(|message| message.contains("STATUS=serving")), "{heard:?}");
    for _ in 0..3 {
        heard.clear();
        until(&socket, &mut heard, "WATCHDOG=1");
    }
    heard.clear();
    process.signal(Signal::HUP);
    until(&socket, &mut heard, "RELOADING=1");
    assert!(heard.iter().any(|message| message.contains("MONOTONIC_USEC=")), "{heard:?}");
    until(&socket, &mut heard, "READY=1");
    process.signal(Signal::TERM);
    until(&socket, &mut heard, "STOPPING=1");
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn no_sign_of_life_is_given_while_any_worker_does_not_turn() {
    need!("python3");
    let scratch = Scratch::new();
    let (socket, process) = start_watched(&scratch, "2");
    until(&socket, &mut Vec::new(), "WATCHDOG=1");
    let tasks = format!("/proc/{}/task", process.id());
    // A thread gives itself its name once it runs.
    let thread = eventually("the second worker has a thread", || {
        fs::read_dir(&tasks).unwrap().find_map(|task| {
            let task = task.unwrap();
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            (name.trim() == "rk-data-1").then(|| task.file_name().into_string().unwrap())
        })
    });
    let mut command = Command::new("python3");
    command.args(["-c", include_str!("support/freeze.py"), &thread]);
    let mut freezer = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (input, output) = (freezer.stdin.take(), freezer.stdout.take().unwrap());
    let _freezer = Process::new(freezer);
    let mut said = String::new();
    BufReader::new(output).read_line(&mut said).unwrap();
    if said.starts_with("refused") {
        return lab::skip(&format!("a thread can't be stopped: {said}"));
    }
    let mut buffer = [0; 4096];
    // Read all the while: a full socket would hold up whoever writes.
    eventually("the stall is noticed", || {
        let _ = socket.recv(&mut buffer);
        scratch.read("stderr").contains("a worker does not turn").then_some(())
    });
    // What was said before is read away; then a second, ten times what is between two signs.
    let start = Instant::now();
    let mut last_heard = start;
    while start.elapsed() < Duration::from_secs(1) {
        if socket.recv(&mut buffer).is_ok() {
            last_heard = Instant::now();
        }
    }
    assert!(
        last_heard.duration_since(start) < Duration::from_millis(500),
        "it gave a sign of life"
    );
    drop(input);
    until(&socket, &mut Vec::new(), "WATCHDOG=1");
}
