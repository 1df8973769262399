//! The operating system: what the process opens, asks and obeys.

pub(crate) mod acceptor;
pub(crate) mod admin;
mod alarm;
#[cfg(target_os = "linux")]
pub(crate) mod balance;
mod changes;
pub(crate) mod channels;
pub(crate) mod control;
pub(crate) mod daemon;
pub(crate) mod direct;
pub(crate) mod drained;
pub(crate) mod errands;
pub(crate) mod events;
pub(crate) mod fleet;
#[cfg(target_os = "linux")]
pub(crate) mod guardian;
pub(crate) mod journal;
pub(crate) mod listen;
pub(crate) mod log;
pub(crate) mod masters;
pub(crate) mod memory;
pub(crate) mod notify;
pub(crate) mod pidfile;
pub(crate) mod pulse;
#[cfg(target_os = "linux")]
mod redirect;
#[cfg(target_os = "linux")]
mod reset;
pub(crate) mod routers;
pub(crate) mod runtime;
#[cfg(target_os = "linux")]
pub(crate) mod script;
pub(crate) mod sentinel;
pub(crate) mod service;
pub(crate) mod signal;
pub(crate) mod sockets;
pub(crate) mod store;
pub(crate) mod sys;
pub(crate) mod takeover;
pub(crate) mod tls;
#[cfg(target_os = "linux")]
pub(crate) mod upgrade;
#[cfg(target_os = "linux")]
pub(crate) mod vrrp;
#[cfg(target_os = "linux")]
mod watch;

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};

use rustix::process::{Resource, getrlimit, setrlimit};

/// Returns a seed from the system's entropy.
///
/// # Errors
///
/// The system's source of entropy can't be read.
pub(crate) fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Tells whether lines on standard error may have colours: it is a terminal, and the operator did
/// not set `NO_COLOR`.
pub(crate) fn has_colours() -> bool {
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_unwanted && io::stderr().is_terminal()
}

/// Tells whether what is written to standard error goes to systemd's journal: it says so by the
/// device and inode of the stream, which is another one after a redirection.
pub(crate) fn is_stderr_the_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(status) = rustix::fs::fstat(io::stderr()) else { return false };
    stream == format!("{}:{}", status.st_dev, status.st_ino).as_str()
}

/// Lets the process open as many descriptors as the administrator allows: raises the soft limit
/// to the hard one. Returns the limit, `None` if there is none.
///
/// # Errors
///
/// The system refuses; the old limit stays.
pub(crate) fn raise_descriptor_limit() -> io::Result<Option<u64>> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(limit.current)
}

/// Returns the error's text without the number that the standard library adds, as `strerror`
/// would put it.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text.get(..end).unwrap_or(&text).to_owned(),
        None => text,
    }
}
