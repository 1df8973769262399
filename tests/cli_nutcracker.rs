//! The drop-in command line, compared with what the genuine nutcracker 0.5.0 did.
//!
//! `vectors/cli_matrix.json` and `vectors/signals.json` were recorded from the Debian 12 binary.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use support::{Process, Scratch, eventually, free_port, stderr};

/// Where we differ on purpose, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    ("--bogus", "the original prints a NUL byte where we name the option"),
    ("-p /nonexist/x -d", "the caller of a daemon that can't start learns it from the exit code"),
    ("-t missing", "the reason follows the verdict"),
    ("no args", "without the packaged log directory the reason goes to standard error"),
];

/// How long a process must live to count as running: it has logged by then that it serves.
const SERVING: &str = "run, rabbit run / ";

fn matrix() -> serde_json::Map<String, Value> {
    let text = include_str!("vectors/cli_matrix.json");
    serde_json::from_str::<Value>(text).unwrap().as_object().unwrap().clone()
}

/// The command line of a case: what was recorded, with a configuration, a log and a free
/// statistics port where the case does not bring its own.
fn arguments(case: &str) -> Vec<String> {
    let own: Vec<String> = match case {
        "no args" => return Vec::new(),
        "extra operand" => vec!["operand".into()],
        "-a bad" => vec!["-a".into(), "999.1.1.1".into()],
        "-t missing" => vec!["-t".into(), "-c".into(), "nope.yml".into()],
        "-c (missing arg)" | "-m (missing arg)" | "-a (missing arg)" => {
            vec![case.split(' ').next().unwrap().into()]
        }
        words => words.split(' ').map(Into::into).collect(),
    };
    let mut all: Vec<String> = Vec::new();
    for (flag, value) in [("-c", "ok.yml"), ("-o", "log"), ("-s", &free_port().to_string())] {
        if !own.contains(&flag.to_owned()) || case.contains("(missing arg)") {
            all.extend([flag.to_owned(), value.to_owned()]);
        }
    }
    all.extend(own);
    all
}

/// Takes `file:LINE ` or `[time] file:LINE ` off a log line, and the pid and release off the first.
fn message(line: &str) -> String {
    let line = line.strip_prefix('[').and_then(|l| l.split_once("] ")).map_or(line, |(_, l)| l);
    let text = line.split_once(' ').map_or("", |(_, text)| text);
    match text.split_once(" built for ") {
        Some((name, _)) => format!("{name} built for ... started on pid ..."),
        None => text.to_owned(),
    }
}

fn lines(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|line| line.as_str().unwrap().trim_end()).collect()
}

fn start(scratch: &Scratch, more: &[&str]) -> Process {
    scratch.write_good("ok.yml");
    let port = free_port().to_string();
    let mut arguments = vec!["-c", "ok.yml", "-o", "log", "-s", &port];
    arguments.extend(more);
    let process = scratch.start("nutcracker", &arguments);
    // The last thing that the start logs.
    scratch.wait_for("log", "statistics are served");
    process
}

#[test]
fn command_lines_end_as_with_twemproxy() {
    for (case, expected) in matrix() {
        if case == "no args" && Path::new("/etc/nutcracker/nutcracker.yml").exists() {
            eprintln!("skipped: 'no args' would serve this machine's own configuration");
            continue;
        }
        let scratch = Scratch::new();
        scratch.write_good("ok.yml");
        let arguments = arguments(&case);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let is_different = DIFFERENCES.iter().any(|(name, _)| *name == case);
        let mut process = scratch.start("nutcracker", &arguments);
        if expected["rc"] == "running" {
            scratch.wait_for("log", SERVING);
            scratch.wait_for("log", "statistics are served");
            assert!(process.status().is_none(), "{case}: should run");
        } else {
            let code = process.wait().code();
            let wanted = match case.as_str() {
                "-p /nonexist/x -d" => 1,
                _ => expected["rc"].as_i64().unwrap(),
            };
            assert_eq!(code.map(i64::from), Some(wanted), "{case}: {}", scratch.read("stderr"));
        }
        let got = scratch.read("stderr");
        for (line, wanted) in lines(&expected["stderr"]).iter().enumerate() {
            let got = got.lines().nth(line).unwrap_or_default();
            assert!(is_different || got == *wanted, "{case}: {got:?} instead of {wanted:?}");
        }
        let log = scratch.read("log");
        let got: Vec<String> = log.lines().map(message).collect();
        for wanted in lines(&expected["log"]) {
            let wanted = message(wanted);
            // The resolver's words depend on the machine, and our sentence says for what.
            let wanted = wanted.split(" of node").next().unwrap();
            assert!(got.iter().any(|line| line.starts_with(wanted)), "{case}: {wanted:?} in {log}");
        }
    }
}

#[test]
fn the_differences_are_what_the_table_says() {
    let scratch = Scratch::new();
    scratch.write_good("ok.yml");
    assert!(DIFFERENCES.iter().all(|(case, _)| matrix().contains_key(*case)));

    let output = scratch.run("nutcracker", &["--bogus"]);
    assert!(stderr(&output).starts_with("nutcracker: invalid option -- 'bogus'\nUsage: "));

    let output = scratch.run("nutcracker", &["-t", "-c", "nope.yml"]);
    let text = stderr(&output);
    let verdict = "nutcracker: configuration file 'nope.yml' syntax is invalid\n";
    assert!(text.starts_with(verdict), "{text}");
    assert!(text.contains("No such file"), "{text}");
}

#[test]
fn a_config_test_says_what_is_wrong() {
    let scratch = Scratch::new();
    scratch.write("bad.yml", "alpha:\n  lisen: 127.0.0.1:22121\n  servers:\n   - a:1:1\n");
    let output = scratch.run("nutcracker", &["-tc", "bad.yml"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    let verdict = "nutcracker: configuration file 'bad.yml' syntax is invalid\n";
    assert!(text.starts_with(verdict), "{text}");
    assert!(text.contains("bad.yml:2:3") && text.contains("listen"), "{text}");
}

#[test]
fn a_config_test_looks_listeners_up() {
    let scratch = Scratch::new();
    let text = "alpha:\n  listen: no.such.host.invalid:22121\n  servers:\n   - a:1:1 one\n";
    scratch.write("far.yml", text);
    let output = scratch.run("nutcracker", &["-t", "-c", "far.yml"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("syntax is invalid\n") && text.contains("pool 'alpha'"), "{text}");
}

#[test]
fn help_and_version_go_to_standard_error() {
    let scratch = Scratch::new();
    let output = scratch.run("nutcracker", &["-h"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty());
    let text = stderr(&output);
    assert!(text.starts_with("This is nutcracker-0.5.0\nasync event backend: epoll\n\nUsage: "));
    for option in ["--test-conf", "--describe-stats", "--mbuf-size=N", "Examples:"] {
        assert!(text.contains(option), "{option}");
    }
    let text = stderr(&scratch.run("nutcracker", &["-D"]));
    assert!(text.contains("server_ejected_at") && text.contains("fragments"));
}

#[test]
fn signals_are_logged_as_with_twemproxy() {
    let vectors: Value = serde_json::from_str(include_str!("vectors/signals.json")).unwrap();
    let scratch = Scratch::new();
    let process = start(&scratch, &[]);
    let steps = [
        (Signal::USR1, "(SIGUSR1)"),
        (Signal::USR2, "(SIGUSR2)"),
        (Signal::TTIN, "up log level"),
        (Signal::TTOU, "down log level"),
        (Signal::HUP, "(SIGHUP)"),
    ];
    for (signal, line) in steps {
        process.signal(signal);
        scratch.wait_for("log", line);
    }
    process.signal(Signal::HUP);
    eventually("the second SIGHUP", || {
        (scratch.read("log").matches("(SIGHUP)").count() == 2).then_some(())
    });
    let log = scratch.read("log");
    let got: Vec<&str> = log.lines().filter(|line| line.starts_with("[...")).collect();
    assert_eq!(got, lines(&vectors["signals_log"]));
}

#[test]
fn an_interrupt_is_logged_and_ends_with_1() {
    let scratch = Scratch::new();
    let mut process = start(&scratch, &[]);
    process.signal(Signal::INT);
    assert_eq!(process.wait().code(), Some(1));
    let log = scratch.read("log");
    assert!(log.ends_with("[.......................] signal 2 (SIGINT) received, exiting\n"));
}

#[test]
fn a_terminate_ends_by_the_signal_and_leaves_no_line() {
    let scratch = Scratch::new();
    let mut process = start(&scratch, &[]);
    let before = scratch.read("log");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().signal(), Some(15));
    assert_eq!(scratch.read("log"), before);
}

#[test]
fn a_crash_is_named_in_the_log() {
    let scratch = Scratch::new();
    let mut process = start(&scratch, &[]);
    process.signal(Signal::SEGV);
    assert_eq!(process.wait().signal(), Some(11));
    assert!(scratch.read("log").contains("signal 11 (SIGSEGV) received"));
}

#[test]
fn a_hang_up_moves_to_a_new_log_file() {
    let scratch = Scratch::new();
    let process = start(&scratch, &[]);
    std::fs::rename(scratch.path("log"), scratch.path("log.1")).unwrap();
    process.signal(Signal::HUP);
    eventually("the new file", || scratch.path("log").exists().then_some(()));
    process.signal(Signal::USR1);
    scratch.wait_for("log", "(SIGUSR1)");
    assert!(!scratch.read("log.1").contains("(SIGUSR1)"));
}

#[test]
fn log_lines_have_the_time_and_the_place() {
    let scratch = Scratch::new();
    let _process = start(&scratch, &["-v", "6"]);
    let log = scratch.read("log");
    let first = log.lines().next().unwrap();
    let shape: String =
        first.chars().take(26).map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape, "[9999-99-99 99:99:99.999] ");
    assert!(message(first).starts_with("nutcracker-0.5.0 built for"));
}

/// The process id of a daemon, killed at the end of its test.
struct Daemon(rustix::process::Pid);

impl Daemon {
    fn new(pid: &str) -> Self {
        Self(rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap())
    }

    /// Tells whether it runs; the init process may never collect a dead one.
    #[cfg(target_os = "linux")]
    fn is_alive(&self) -> bool {
        let path = format!("/proc/{}/stat", self.0.as_raw_nonzero());
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
    }

    /// Tells whether it runs.
    #[cfg(not(target_os = "linux"))]
    fn is_alive(&self) -> bool {
        rustix::process::test_kill_process(self.0).is_ok()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, Signal::KILL);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_daemon_serves_when_its_caller_returns_and_leaves_its_pid_file() {
    let scratch = Scratch::new();
    let port = scratch.write_good("ok.yml");
    let stats = free_port().to_string();
    let arguments = ["-dc", "ok.yml", "-o", "log", "-s", &stats, "-p", "pid"];
    let output = scratch.run("nutcracker", &arguments);
    assert_eq!(output.status.code(), Some(0), "{} {}", stderr(&output), scratch.read("log"));
    let pid = scratch.read("pid");
    assert!(!pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()), "{pid:?}");
    let daemon = Daemon::new(&pid);
    assert!(daemon.is_alive());
    assert!(scratch.read("log").contains(&format!("started on pid {pid}")));
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    for fd in 0..3 {
        let path = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        assert_eq!(path, Path::new("/dev/null"));
    }
    rustix::process::kill_process(daemon.0, Signal::INT).unwrap();
    eventually("the daemon ends", || (!daemon.is_alive()).then_some(()));
    assert!(scratch.read("log").contains("signal 2 (SIGINT) received, exiting"));
    assert_eq!(scratch.read("pid"), pid);
}

#[test]
fn a_daemon_that_cannot_serve_tells_its_caller() {
    let scratch = Scratch::new();
    let port = scratch.write_good("ok.yml");
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let stats = free_port().to_string();
    let output = scratch.run("nutcracker", &["-d", "-c", "ok.yml", "-o", "log", "-s", &stats]);
    assert_eq!(output.status.code(), Some(1));
    let log = scratch.read("log");
    assert!(log.contains("Address already in use") && log.contains("rabbit done"), "{log}");
}

#[test]
fn a_statistics_port_in_use_is_fatal() {
    let scratch = Scratch::new();
    scratch.write_good("ok.yml");
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let stats = taken.local_addr().unwrap().port().to_string();
    let output = scratch.run("nutcracker", &["-c", "ok.yml", "-o", "log", "-s", &stats]);
    assert_eq!(output.status.code(), Some(1));
    assert!(scratch.read("log").contains("bind for statistics"));
}
