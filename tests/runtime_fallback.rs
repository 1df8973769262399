//! Where io_uring can't be used the daemon starts all the same, serves, and says why.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it broke")]

mod support;

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use support::{Process, Scratch, eventually};

/// Starts the binary behind `wrapper` and returns its log once it takes clients.
fn log_behind(wrapper: &[&str], runtime: &str) -> (String, bool) {
    let scratch = Scratch::new();
    let port = scratch.write_good("ok.yml");
    // For a wrapper that changes the user.
    std::fs::set_permissions(scratch.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let binary = scratch.path("ringkeeper-copy");
    std::fs::copy(env!("CARGO_BIN_EXE_ringkeeper"), &binary).unwrap();
    let mut words: Vec<&str> = wrapper.to_vec();
    let binary = binary.to_str().unwrap();
    words.extend([binary, "run", "-c", "ok.yml", "--runtime", runtime]);
    let mut command = Command::new(words.first().unwrap());
    command.args(words.get(1..).unwrap()).current_dir(scratch.path("")).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(File::create(scratch.path("stderr")).unwrap());
    let mut process = Process::new(command.spawn().unwrap());
    let serves = eventually("the daemon serves or ends", || {
        if process.status().is_some() {
            return Some(false);
        }
        TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(true)
    });
    (scratch.read("stderr"), serves)
}

fn filter() -> String {
    format!("{}/tests/support/without_io_uring.py", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_seccomp_filter_leads_to_tokio() {
    let filter = filter();
    let (log, serves) = log_behind(&["python3", &filter], "auto");
    assert!(serves, "{log}");
    assert!(log.contains("runtime is tokio"), "{log}");
    assert!(log.contains("seccomp"), "{log}");
}

#[test]
fn io_uring_by_demand_does_not_start_where_it_is_forbidden() {
    let filter = filter();
    let (log, serves) = log_behind(&["python3", &filter], "uring");
    assert!(!serves, "{log}");
    assert!(log.contains("--runtime auto"), "it says what to do: {log}");
}

#[test]
fn too_little_lockable_memory_leads_to_tokio() {
    // Root may lock what it likes, so this takes a user that has not that right.
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let wrapper = [
        "setpriv",
        "--reuid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "prlimit",
        "--memlock=0:0",
    ];
    let (log, serves) = log_behind(&wrapper, "auto");
    assert!(serves, "{log}");
    assert!(log.contains("runtime is tokio"), "{log}");
    assert!(log.contains("RLIMIT_MEMLOCK"), "{log}");
}
