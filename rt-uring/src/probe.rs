//! Whether io_uring can be used here, found out by using it, and what to do if not.

use std::fmt;
use std::fs;
use std::io;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::Socket;

use ringkeeper_core::id::ConnId;

use crate::ring::{Buffers, Completion, Options, Ring, SetupError};

/// How long the trial may take; it takes microseconds.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// What the ring will be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Entries of the submission queue.
    pub submission_entries: u32,
    /// Entries of the completion queue.
    pub completion_entries: u32,
    /// The receive buffers; incremental ones from Linux 6.12 on.
    pub buffers: Buffers,
    /// Whether the kernel could bundle buffers (Linux 6.10). Known, not used: incremental buffers
    /// are as fast.
    pub can_bundle: bool,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { submission_entries, completion_entries, buffers, can_bundle: _ } = self;
        let kind = if buffers.is_incremental { "incremental" } else { "plain" };
        write!(
            f,
            "io_uring with {submission_entries}/{completion_entries} entries, {} {kind} receive \
             buffers of {} bytes, multishot accept and receive",
            buffers.count, buffers.size
        )
    }
}

/// Why io_uring cannot be used. Displayed as one line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsuitable {
    /// The kernel does not have it.
    Absent,
    /// `kernel.io_uring_disabled` forbids it; the value is 1 or 2.
    Disabled(u8),
    /// A filter (seccomp, a security module) forbids it.
    Forbidden,
    /// RLIMIT_MEMLOCK is too small even for the smallest ring.
    LockedMemory,
    /// The process has too many files open.
    Descriptors,
    /// The kernel is older than 6.1; the value is its release.
    KernelTooOld(String),
    /// Ring-provided receive buffers were refused; the value is the error number.
    Buffers(i32),
    /// A trial on a socket pair did not bring what was sent.
    Trial,
    /// Another error number.
    Other(i32),
}

impl fmt::Display for Unsuitable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str(
                "this kernel has no io_uring; use Linux 6.1 or later, built with CONFIG_IO_URING",
            ),
            Self::Disabled(value @ 1) => write!(
                f,
                "the sysctl kernel.io_uring_disabled is {value}: only the group in \
                 kernel.io_uring_group and CAP_SYS_ADMIN may use io_uring; set it to 0, or put \
                 this process into the group"
            ),
            Self::Disabled(value) => write!(
                f,
                "the sysctl kernel.io_uring_disabled is {value}: nobody may use io_uring; set it \
                 to 0"
            ),
            Self::Forbidden => f.write_str(
                "io_uring is forbidden for this process, as container runtimes do by their \
                 default seccomp profile; allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the profile",
            ),
            Self::LockedMemory => f.write_str(
                "RLIMIT_MEMLOCK is too small for a ring; raise it (LimitMEMLOCK=8M in the unit, \
                 ulimit -l 8192), it is shared by all processes of the user",
            ),
            Self::Descriptors => f.write_str(
                "too many open files; raise RLIMIT_NOFILE (LimitNOFILE= in the unit, ulimit -n)",
            ),
            Self::KernelTooOld(release) => {
                write!(f, "Linux {release} is too old for this use of io_uring; 6.1 is the oldest")
            }
            Self::Buffers(errno) => write!(
                f,
                "the kernel refused rings of receive buffers: {}; use Linux 6.1 or later",
                io::Error::from_raw_os_error(*errno)
            ),
            Self::Trial => f.write_str(
                "io_uring is there but did not deliver on a socket pair (a sandbox or an emulated \
                 kernel?); use Linux 6.1 or later",
            ),
            Self::Other(errno) => {
                write!(f, "io_uring does not start: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl std::error::Error for Unsuitable {}

/// Makes a ring, tries it, and takes it down again.
///
/// # Errors
///
/// [`Unsuitable`] says what to tell the operator.
pub fn probe() -> Result<Capabilities, Unsuitable> {
    let (mut ring, Options { buffers, .. }) = Ring::best().map_err(explain)?;
    if !is_working(&mut ring).unwrap_or(false) {
        return Err(Unsuitable::Trial);
    }
    let (submission_entries, completion_entries) = ring.entries();
    let can_bundle = ring.can_bundle();
    Ok(Capabilities { submission_entries, completion_entries, buffers, can_bundle })
}

/// Receives twice by one operation from a socket pair.
fn is_working(ring: &mut Ring) -> io::Result<bool> {
    let (ours, mut theirs) = UnixStream::pair()?;
    let ours = Socket::from(OwnedFd::from(ours));
    ring.receive(ConnId::client(0, 0), &ours);
    for sent in [b"a", b"b"] {
        theirs.write_all(sent)?;
        ring.enter(TRIAL_TIMEOUT)?;
        let Some(Completion::Received { chunk: Some(chunk), has_more, .. }) = ring.next() else {
            return Ok(false);
        };
        let is_right = ring.bytes(&chunk) == sent && has_more;
        ring.give_back(chunk);
        if !is_right {
            return Ok(false);
        }
    }
    Ok(ring.quiesce())
}

fn explain(error: SetupError) -> Unsuitable {
    match error {
        SetupError::Operations => Unsuitable::KernelTooOld(release()),
        SetupError::Buffers(error) => match error.raw_os_error().unwrap_or(0) {
            libc::ENOMEM => Unsuitable::LockedMemory,
            errno => Unsuitable::Buffers(errno),
        },
        SetupError::Setup(error) => match error.raw_os_error().unwrap_or(0) {
            libc::ENOSYS => Unsuitable::Absent,
            libc::EPERM | libc::EACCES => match disabled() {
                0 => Unsuitable::Forbidden,
                value => Unsuitable::Disabled(value),
            },
            libc::ENOMEM => Unsuitable::LockedMemory,
            libc::EMFILE | libc::ENFILE => Unsuitable::Descriptors,
            // A flag that it does not know.
            libc::EINVAL => Unsuitable::KernelTooOld(release()),
            errno => Unsuitable::Other(errno),
        },
    }
}

fn disabled() -> u8 {
    let value = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    value.trim().parse().unwrap_or(0)
}

fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(errno: i32) -> Unsuitable {
        explain(SetupError::Setup(io::Error::from_raw_os_error(errno)))
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        let cases = [
            (setup(libc::ENOSYS), "6.1"),
            (setup(libc::ENOMEM), "LimitMEMLOCK"),
            (setup(libc::EMFILE), "LimitNOFILE"),
            (setup(libc::EINVAL), "6.1"),
            (Unsuitable::Disabled(1), "io_uring_group"),
            (Unsuitable::Disabled(2), "set it to 0"),
            (Unsuitable::Forbidden, "seccomp"),
            (explain(SetupError::Operations), "6.1"),
            (Unsuitable::Trial, "6.1"),
        ];
        for (why, what) in cases {
            let line = why.to_string();
            assert!(line.contains(what), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_probe_names_what_will_be_used_or_why_not() {
        match probe() {
            Ok(capabilities) => {
                println!("{capabilities}");
                assert!(capabilities.to_string().starts_with("io_uring with"));
            }
            Err(why) => println!("skipped: {why}"),
        }
    }
}
