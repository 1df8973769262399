//! Programs that run, and how they are found again after they have replaced themselves.
#![cfg(target_os = "linux")]

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::Pid;

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

/// Tells whether a process has given up all that it had. Its arguments are gone before its sockets are,
/// and its first thread may end before others.
pub(super) fn has_ended(pid: Pid) -> bool {
    let place = format!("/proc/{}", pid.as_raw_nonzero());
    let Ok(stat) = fs::read_to_string(format!("{place}/stat")) else { return true };
    // Behind the name, which may have any character.
    let is_zombie = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'));
    let threads = fs::read_dir(format!("{place}/task")).map_or(0, Iterator::count);
    is_zombie && threads <= 1
}

/// Returns the time that all threads of a process have had of a processor; none if it has ended.
pub(super) fn spent(pid: Pid) -> Duration {
    let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    let threads = threads.into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
