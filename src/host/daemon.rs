//! Leaving the terminal: two forks, a session of our own, standard streams to `/dev/null`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::process::ExitCode;

use rustix::fs::Mode;

use crate::host::sys::{self, Fork};

/// The byte that the daemon sends once it serves.
const READY: u8 = b'+';

/// What [`detach`] returns in each process that comes back from it.
pub(crate) enum Detached {
    /// The process that was called from the shell; it ends with this code.
    Caller(ExitCode),
    /// The daemon.
    Daemon(Readiness),
}

/// The daemon's line to the process that waits in the shell. Dropped without [`Readiness::report`]
/// it says that the start failed.
pub(crate) struct Readiness(File);

impl Readiness {
    /// Lets the waiting process end with success.
    pub(crate) fn report(mut self) {
        // The caller may have been killed meanwhile; the daemon serves all the same.
        let _ = self.0.write_all(&[READY]);
    }
}

/// Splits the process in two; call it before the first thread.
///
/// The caller waits until the daemon reports that it serves or ends: a script that starts the
/// daemon learns whether it started. Like twemproxy the daemon keeps its working directory and has
/// umask 0.
pub(crate) fn detach() -> io::Result<Detached> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    if sys::fork()? == Fork::Parent {
        drop(writer);
        return Ok(Detached::Caller(wait_for(File::from(reader))));
    }
    drop(reader);
    rustix::process::setsid()?;
    // The second fork: a process that leads no session never gets a controlling terminal back.
    if sys::fork()? == Fork::Parent {
        drop(writer);
        return Ok(Detached::Caller(ExitCode::SUCCESS));
    }
    rustix::process::umask(Mode::empty());
    redirect_standard_streams()?;
    Ok(Detached::Daemon(Readiness(File::from(writer))))
}

fn wait_for(mut reader: File) -> ExitCode {
    let mut byte = [0];
    match reader.read_exact(&mut byte) {
        Ok(()) if byte == [READY] => ExitCode::SUCCESS,
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}

fn redirect_standard_streams() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
