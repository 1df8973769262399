//! The product's own command line.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use rustix::process::Signal;
use serde_json::Value;

use support::{Process, Scratch, free_port, stderr, stdout};

const GOOD: &str = "\
alpha:
  listen: 127.0.0.1:22121
  hash: fnv1a_64
  distribution: ketama
  redis: true
  servers:
   - 127.0.0.1:6379:1 one
   - 127.0.0.1:6380:1 two
";

const BAD: &str = "\
alpha:
  lisen: 127.0.0.1:22121
  hahs: fnv1a_64
  servers:
   - 127.0.0.1:6379:1 one
";

/// A pool whose servers have no names: their keys move when an address changes.
const SURPRISING: &str = "\
alpha:
  listen: 127.0.0.1:22121
  redis: true
  servers:
   - 127.0.0.1:6379:1
   - 127.0.0.1:6380:1
";

fn start(scratch: &Scratch, more: &[&str]) -> Process {
    scratch.write_good("ok.yml");
    let mut arguments = vec!["run", "-c", "ok.yml", "--stats-port", "0"];
    arguments.extend(more);
    let process = scratch.start("ringkeeper", &arguments);
    scratch.wait_for("stderr", "statistics are served");
    process
}

#[test]
fn help_teaches_by_examples() {
    let scratch = Scratch::new();
    let output = scratch.run("ringkeeper", &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for text in ["run", "check", "route", "Examples:", "ringkeeper check nutcracker.yml"] {
        assert!(stdout(&output).contains(text), "{text}");
    }
    for verb in ["run", "check", "route"] {
        let output = scratch.run("ringkeeper", &[verb, "--help"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("Examples:"), "{verb}");
    }
    let output = scratch.run("ringkeeper", &["--version"]);
    assert_eq!(stdout(&output), format!("ringkeeper {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(scratch.run("ringkeeper", &["bogus"]).status.code(), Some(2));
}

#[test]
fn check_ends_with_0_1_or_2() {
    let scratch = Scratch::new();
    scratch.write("good.yml", GOOD);
    scratch.write("bad.yml", BAD);
    scratch.write("surprising.yml", SURPRISING);
    let code = |arguments: &[&str]| scratch.run("ringkeeper", arguments).status.code();
    assert_eq!(code(&["check", "good.yml"]), Some(0));
    assert_eq!(code(&["check", "--strict", "good.yml"]), Some(0));
    assert_eq!(code(&["check", "bad.yml"]), Some(1));
    assert_eq!(code(&["check", "--strict", "good.yml", "bad.yml"]), Some(1));
    assert_eq!(code(&["check", "nope.yml"]), Some(1));
    assert_eq!(code(&["check", "surprising.yml"]), Some(0));
    assert_eq!(code(&["check", "--strict", "surprising.yml"]), Some(2));
}

#[test]
fn check_tells_every_mistake_with_its_place() {
    let scratch = Scratch::new();
    scratch.write("bad.yml", BAD);
    let text = stderr(&scratch.run("ringkeeper", &["check", "bad.yml"]));
    assert!(text.contains("bad.yml:2:3") && text.contains("bad.yml:3:3"), "{text}");
    assert!(text.contains("did you mean"), "{text}");
}

#[test]
fn check_speaks_json_a_line_a_file() {
    let scratch = Scratch::new();
    scratch.write("good.yml", GOOD);
    scratch.write("bad.yml", BAD);
    let files = ["good.yml", "bad.yml", "nope.yml"];
    let arguments = ["check", "--format", "json", files[0], files[1], files[2]];
    let output = scratch.run("ringkeeper", &arguments);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    let reports: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reports.len(), files.len());
    for (report, file) in reports.iter().zip(files) {
        assert_eq!(report["file"], file);
    }
    assert_eq!(reports[0]["errors"], 0);
    assert!(reports[1]["errors"].as_u64().unwrap() >= 2);
    assert_eq!(reports[2]["diagnostics"][0]["code"], "unreadable");
}

#[cfg(target_os = "linux")]
#[test]
fn check_compares_the_routers_of_several_hosts() {
    let scratch = Scratch::new();
    for (name, id, address) in [("a", 51, 10), ("b", 51, 10), ("c", 51, 11), ("d", 52, 10)] {
        let text = format!(
            "vrrp_instance VI_{name} {{\n interface eth0\n virtual_router_id {id}\n \
             virtual_ipaddress {{\n 192.0.2.{address}/24\n }}\n}}\n"
        );
        scratch.write(&format!("{name}.conf"), &text);
    }
    let check = |other: &str| {
        let output = scratch.run("ringkeeper", &["check", "--strict", "a.conf", other]);
        (output.status.code(), stderr(&output))
    };
    let (code, said) = check("b.conf");
    assert_eq!(code, Some(0), "{said}");
    for (other, wrong) in [("c.conf", "router-id-clash"), ("d.conf", "address-of-two-routers")] {
        let (code, said) = check(other);
        assert!(code == Some(2) && said.contains(wrong) && said.contains(other), "{said}");
    }
}

#[test]
fn route_tells_the_server_and_why() {
    let scratch = Scratch::new();
    scratch.write("good.yml", GOOD);
    let output = scratch.run("ringkeeper", &["route", "-c", "good.yml", "user:1", "user:2"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for line in ["key      user:1", "pool     alpha", "hash     fnv1a_64 ", "point    ketama "] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert_eq!(text.matches("\nserver   127.0.0.1:63").count(), 2, "{text}");
    assert_eq!(text.matches("\nshard    ").count(), 2, "{text}");

    let arguments = ["route", "-c", "good.yml", "--pool", "beta", "user:1"];
    let output = scratch.run("ringkeeper", &arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("alpha"));
}

#[test]
fn termination_drains_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let scratch = Scratch::new();
        let mut process = start(&scratch, &[]);
        process.signal(signal);
        assert_eq!(process.wait().code(), Some(0), "{}", scratch.read("stderr"));
        assert!(scratch.read("stderr").contains("no new clients"));
    }
}

#[test]
fn a_hang_up_reads_the_configuration_again() {
    let scratch = Scratch::new();
    let process = start(&scratch, &[]);
    process.signal(Signal::HUP);
    scratch.wait_for("stderr", "configuration is read again: nothing has changed");
}

#[test]
fn json_logs_are_objects() {
    let scratch = Scratch::new();
    let _process = start(&scratch, &["--log-format", "json"]);
    for line in scratch.read("stderr").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
    }
}

#[test]
fn one_line_says_which_runtime_and_why() {
    for choice in ["auto", "tokio"] {
        let scratch = Scratch::new();
        let _process = start(&scratch, &["--runtime", choice]);
        assert_eq!(scratch.read("stderr").matches("runtime is ").count(), 1);
    }
}

#[test]
fn a_port_in_use_is_named_with_the_way_out() {
    let scratch = Scratch::new();
    let port = scratch.write_good("ok.yml");
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let output = scratch.run("ringkeeper", &["run", "-c", "ok.yml", "--stats-port", "0"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("ss -ltnp"), "{text}");
}

#[test]
fn statistics_that_were_asked_for_must_be_had() {
    let scratch = Scratch::new();
    scratch.write_good("ok.yml");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = scratch.run("ringkeeper", &["run", "-c", "ok.yml", "--stats-port", &port]);
    assert_eq!(output.status.code(), Some(1));
    assert_ne!(free_port(), 0);
}

#[test]
fn lines_for_the_journal_have_a_priority_and_no_time() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new();
    scratch.write_good("ok.yml");
    scratch.write("log", "");
    let log = std::fs::OpenOptions::new().append(true).open(scratch.path("log")).unwrap();
    let file = log.metadata().unwrap();
    let arguments = ["run", "-c", "ok.yml", "--stats-port", "0", "--admin", "off"];
    let mut command = scratch.command("ringkeeper", &arguments);
    command.env("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino())).stderr(log);
    let process = Process::new(command.spawn().unwrap());
    scratch.wait_for("log", "statistics are served");
    drop(process);
    let text = scratch.read("log");
    let line = text.lines().find(|line| line.contains("statistics are served")).unwrap();
    assert!(line.starts_with("<6>statistics are served address=127.0.0.1:"), "{line}");
    // A redirected stream is not the one that the variable, which is inherited, tells of.
    let mut command = scratch.command("ringkeeper", &arguments);
    let stderr = std::fs::File::create(scratch.path("stderr")).unwrap();
    command.env("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino())).stderr(stderr);
    let process = Process::new(command.spawn().unwrap());
    scratch.wait_for("stderr", "statistics are served");
    drop(process);
    assert!(!scratch.read("stderr").contains("<6>"));
}
