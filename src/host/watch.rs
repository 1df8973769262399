//! Watches files and programs, each on a thread of its own, and says through a socket what it
//! finds.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How often it is looked at without being told: a folder can be replaced, a program be started.
const LOOK: Duration = Duration::from_secs(1);

/// Descriptors of one program's processes that are waited for.
const PROCESSES_MAX: usize = 64;

/// Makes two ends: one for the worker and one for a thread.
fn ends() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("rk-watch".to_owned()).spawn(body)?;
    Ok(())
}

/// Waits for one of the descriptors, or for the time to look again; false when the worker's end is
/// closed.
fn wait(end: &OwnedFd, others: &[&OwnedFd]) -> bool {
    let mut polled = vec![PollFd::new(end, PollFlags::empty())];
    polled.extend(others.iter().map(|other| PollFd::new(other, PollFlags::IN)));
    let limit = Timespec::try_from(LOOK).ok();
    // An error is a look too many.
    let _ = poll(&mut polled, limit.as_ref());
    !polled.first().is_some_and(|end| end.revents().contains(PollFlags::HUP))
}

/// Says what was found if it is news; false when nobody hears it.
fn say(end: &OwnedFd, found: Vec<u8>, last: &mut Option<Vec<u8>>) -> bool {
    if last.as_ref() == Some(&found) {
        return true;
    }
    // An empty one would look like the end.
    let bytes: &[u8] = if found.is_empty() { b"\n" } else { &found };
    match rustix::net::send(end.as_fd(), bytes, SendFlags::NOSIGNAL) {
        Ok(_) => *last = Some(found),
        // The worker is busy: said again at the next look.
        Err(rustix::io::Errno::AGAIN) => {}
        Err(_) => return false,
    }
    true
}

/// Watches a file: its first bytes, empty if there is none.
///
/// # Errors
///
/// The system refuses a thread or descriptors.
pub(crate) fn file(path: &str, bytes_max: u32) -> io::Result<OwnedFd> {
    let (ours, theirs) = ends()?;
    let path = PathBuf::from(path);
    let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    spawn(move || {
        let mut last = None;
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        };
        loop {
            // Again each time: the folder may be another one by now. Before the file is read, so
            // that no change falls between.
            let _ = inotify::add_watch(&changes, folder, flags);
            let mut drained = [0; 4096];
            while rustix::io::read(&changes, &mut drained[..]).is_ok_and(|count| count > 0) {}
            if !say(&theirs, content(&path, bytes_max), &mut last) || !wait(&theirs, &[&changes]) {
                return;
            }
        }
    })?;
    Ok(ours)
}

fn content(path: &Path, bytes_max: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(u64::from(bytes_max)).read_to_end(&mut bytes);
    }
    bytes
}

/// Watches a program: how many processes run it.
///
/// # Errors
///
/// The system refuses a thread or descriptors.
pub(crate) fn process(program: &str) -> io::Result<OwnedFd> {
    let (ours, theirs) = ends()?;
    let program = program.to_owned();
    spawn(move || {
        let mut last = None;
        loop {
            let processes = processes(&program);
            let count = processes.len().to_string().into_bytes();
            // Whoever ends makes its descriptor readable, at once.
            let open = |&pid: &Pid| pidfd_open(pid, PidfdFlags::empty()).ok();
            let ends: Vec<OwnedFd> =
                processes.iter().take(PROCESSES_MAX).filter_map(open).collect();
            let ends: Vec<&OwnedFd> = ends.iter().collect();
            if !say(&theirs, count, &mut last) || !wait(&theirs, &ends) {
                return;
            }
        }
    })?;
    Ok(ours)
}

/// Returns all processes of a program, told by its path or its name.
fn processes(program: &str) -> Vec<Pid> {
    let Ok(list) = std::fs::read_dir("/proc") else { return Vec::new() };
    list.flatten()
        .filter_map(|entry| {
            let number: i32 = entry.file_name().to_str()?.parse().ok()?;
            runs(&entry.path(), program).then(|| Pid::from_raw(number)).flatten()
        })
        .collect()
}

fn runs(folder: &Path, program: &str) -> bool {
    let Ok(words) = std::fs::read(folder.join("cmdline")) else { return false };
    let first = words.split(|&byte| byte == 0).next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    if first.is_empty() {
        // One that has ended and was not waited for, or a thread of the kernel.
        return false;
    }
    if program.contains('/') {
        return first == program;
    }
    first.rsplit('/').next() == Some(program)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    fn next(end: &OwnedFd) -> String {
        let mut polled = [PollFd::new(end, PollFlags::IN)];
        let limit = Timespec::try_from(Duration::from_secs(20)).unwrap();
        assert_eq!(poll(&mut polled, Some(&limit)), Ok(1), "nothing was said");
        let mut bytes = [0; 64];
        let count = rustix::io::read(end, &mut bytes[..]).unwrap();
        String::from_utf8_lossy(&bytes[..count]).trim().to_owned()
    }

    #[test]
    fn a_file_is_told_now_and_when_it_changes() {
        let name = format!("ringkeeper-watch-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, "5\n").unwrap();
        let end = file(path.to_str().unwrap(), 64).unwrap();
        assert_eq!(next(&end), "5");
        std::fs::write(&path, "-7\n").unwrap();
        // Cut and written: both may be seen.
        let mut told = next(&end);
        if told.is_empty() {
            told = next(&end);
        }
        assert_eq!(told, "-7");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(next(&end), "");
    }

    #[test]
    fn a_program_is_told_to_run_and_to_have_ended() {
        let mut sleeper = std::process::Command::new("sleep");
        let mut child = sleeper.arg0("rk-sleeper").arg("60").spawn().unwrap();
        // A program that is just starting has no arguments yet.
        let words = format!("/proc/{}/cmdline", child.id());
        while !std::fs::read(&words).unwrap().starts_with(b"rk-sleeper") {
            std::thread::yield_now();
        }
        let end = process("rk-sleeper").unwrap();
        assert_eq!(next(&end), "1");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(next(&end), "0");
    }
}
