//! The laboratory plays its events on a whole deployment, and all heals.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::process::{Command, Output, Stdio};

use support::lab::{Runtime, skip};
use support::{Scratch, stderr, stdout};

/// Runs the laboratory in a folder of its own.
fn lab(scratch: &Scratch, runtime: Runtime, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringkeeper"));
    command.args(["lab", "--folder", "lab", "--port", "0", "--json", "result.json"]);
    command.args(["--runtime", runtime.name()]).args(arguments);
    command.current_dir(scratch.path("")).stdin(Stdio::null()).output().unwrap()
}

/// Returns the result for programs, and fails with what was said unless all has healed.
fn healed(scratch: &Scratch, output: &Output) -> serde_json::Value {
    let said = format!("{}{}", stdout(output), stderr(output));
    assert!(output.status.success(), "{said}");
    let result: serde_json::Value = serde_json::from_str(&scratch.read("result.json")).unwrap();
    assert_eq!(result.get("healed"), Some(&true.into()), "{said}");
    assert_eq!(result.get("wrong"), Some(&0.into()), "{said}");
    assert!(!scratch.path("lab").exists(), "nothing is left behind");
    result
}

/// Tells whether namespaces can be made here; says why not.
fn has_namespaces(output: &Output) -> bool {
    let text = stderr(output);
    let reason = text.lines().find(|line| line.contains("no network namespaces"));
    if let Some(reason) = reason {
        skip(reason);
    }
    reason.is_none()
}

fn every_event_heals(runtime: Runtime) {
    need!("redis-server", "ip", "unshare", "setpriv");
    let scratch = Scratch::new();
    let output = lab(&scratch, runtime, &["--auto", "--network", "namespaces"]);
    if !has_namespaces(&output) {
        return;
    }
    let result = healed(&scratch, &output);
    let events = result.get("events").unwrap().as_array().unwrap();
    assert_eq!(events.len(), 7, "{}", stdout(&output));
}

fn events_heal_on_a_simulated_segment(runtime: Runtime) {
    need!("redis-server", "setpriv");
    let scratch = Scratch::new();
    let output = lab(&scratch, runtime, &["--auto", "--network", "loopback"]);
    let said = stdout(&output);
    assert!(said.contains("Simulated segment"), "{said}");
    let result = healed(&scratch, &output);
    assert_eq!(result.get("events").unwrap().as_array().unwrap().len(), 5, "{said}");
}

fn a_node_that_nobody_hears_gives_the_address_up(runtime: Runtime) {
    need!("redis-server", "ip", "iptables", "unshare", "setpriv");
    let scratch = Scratch::new();
    let events = ["--auto", "--only", "mute-node,mute-node", "--network", "namespaces"];
    let output = lab(&scratch, runtime, &events);
    if has_namespaces(&output) {
        let result = healed(&scratch, &output);
        assert_eq!(result.get("lost"), Some(&0.into()), "{}", stdout(&output));
    }
}

fn break_by_lot(runtime: Runtime, options: &[&str]) {
    need!("redis-server", "ip", "iptables", "unshare", "setpriv");
    let scratch = Scratch::new();
    let seconds = std::env::var("RINGKEEPER_CHAOS_SECONDS").unwrap_or_else(|_| "15".to_owned());
    let chaos = ["--chaos", &seconds, "--network", "namespaces"];
    let output = lab(&scratch, runtime, &[&chaos[..], options].concat());
    if has_namespaces(&output) {
        healed(&scratch, &output);
    }
}

fn what_is_broken_by_lot_heals(runtime: Runtime) {
    break_by_lot(runtime, &[]);
}

fn what_is_broken_by_lot_heals_beside_genuine_programs(runtime: Runtime) {
    need!("redis-sentinel", "keepalived");
    let peer = match runtime {
        Runtime::Uring => "sentinel",
        Runtime::Tokio => "keepalived",
    };
    break_by_lot(runtime, &["--genuine", peer]);
}

fn what_replicas_have_outlives_masters(runtime: Runtime) {
    need!("redis-server", "ip", "unshare", "setpriv");
    let scratch = Scratch::new();
    let events = ["--auto", "--only", "kill-master,stop-master,kill-master"];
    let promise = ["--replicated", "1", "--network", "namespaces"];
    let output = lab(&scratch, runtime, &[&events[..], &promise].concat());
    if !has_namespaces(&output) {
        return;
    }
    let result = healed(&scratch, &output);
    assert!(result.get("acknowledged").unwrap().as_u64().unwrap() > 0);
    assert_eq!(result.get("lost"), Some(&0.into()), "{}", stdout(&output));
}

on_every_runtime! {
    every_event_heals,
    what_replicas_have_outlives_masters,
    events_heal_on_a_simulated_segment,
    a_node_that_nobody_hears_gives_the_address_up,
    what_is_broken_by_lot_heals,
    what_is_broken_by_lot_heals_beside_genuine_programs,
}

#[test]
fn keys_do_things_and_the_end_of_the_input_is_the_end() {
    need!("redis-server", "setpriv");
    let scratch = Scratch::new();
    scratch.write("keys", "?r");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringkeeper"));
    command.args(["lab", "--folder", "lab", "--port", "0", "--network", "loopback"]);
    let keys = std::fs::File::open(scratch.path("keys")).unwrap();
    let output = command.current_dir(scratch.path("")).stdin(keys).output().unwrap();
    let said = format!("{}{}", stdout(&output), stderr(&output));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("redis-cli -p ") && said.contains("http://127.0.0.1:"), "{said}");
    assert!(
        said.contains("q quit") && said.contains("nothing that a client could notice"),
        "{said}"
    );
}
