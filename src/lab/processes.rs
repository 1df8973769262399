//! Programs that run, and how they are found again after they have replaced themselves.
#![cfg(target_os = "linux")]

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};

/// Starts a program whose lines go to the end of a file.
///
/// # Errors
///
/// It cannot be started, or the file cannot be written.
pub(super) fn start(mut command: Command, log: &Path) -> io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    command.stdout(log.try_clone()?).stderr(log);
    command.spawn()
}

/// Returns the processes one of whose arguments contains a text. A program that was replaced by a
/// newer one goes on as another process with the same arguments.
pub(super) fn find(part: &str) -> Vec<Pid> {
    let own = rustix::process::getpid();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has = |pid: &Pid| {
        // Of a process that has ended nothing is left to read.
        let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
        let line = fs::read(path).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).skip(1);
        words.any(|word| String::from_utf8_lossy(word).contains(part))
    };
    numbers.filter_map(Pid::from_raw).filter(|pid| *pid != own).filter(has).collect()
}

/// Sends a signal to every process that is found; returns how many there were.
pub(super) fn signal(part: &str, signal: Signal) -> usize {
    let found = find(part);
    found.iter().filter(|pid| kill_process(**pid, signal).is_ok()).count()
}
