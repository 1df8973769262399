//! Work for the host that is the same on every runtime.

use std::path::PathBuf;

use crate::id::{JobId, Ticket};

/// What a worker has done outside the event loop. A worker may have at most
/// [`ERRANDS_MAX`](crate::limits::ERRANDS_MAX) of them under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Make a change of a file durable. Answered by [`Input::Persisted`], in the order asked.
    Persist {
        /// Names the answer.
        ticket: Ticket,
        /// What to write, and where.
        change: Change,
    },
    /// Read a file. Answered by [`Input::FileRead`], after the changes asked for before.
    Read {
        /// Names the answer.
        ticket: Ticket,
        /// Which file; one of more than [`FILE_BYTES_MAX`](crate::limits::FILE_BYTES_MAX) is
        /// not read.
        path: PathBuf,
    },
    /// Run a program. Answered by [`Input::Exited`].
    Run {
        /// Names the program.
        job: JobId,
        /// What to run.
        program: Program,
    },
    /// Send a signal to a program that runs; one that has ended hears nothing.
    Kill {
        /// The program.
        job: JobId,
        /// The signal's number.
        signal: i32,
    },
}

/// A change of a file that survives a crash at any moment: whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The file holds exactly these bytes afterwards: a temporary file beside it, fsync, rename,
    /// fsync of the folder.
    Replace {
        /// Which file.
        path: PathBuf,
        /// What it holds.
        bytes: Vec<u8>,
    },
    /// The file is cut to `at` bytes and these follow, then fsync.
    Append {
        /// Which file.
        path: PathBuf,
        /// Length of what is known to be good, bytes.
        at: u64,
        /// What follows.
        bytes: Vec<u8>,
    },
}

/// A program to run, without a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Path and arguments; the first is what is executed.
    pub argv: Vec<Vec<u8>>,
    /// Added to the environment of the process.
    pub environment: Vec<(String, String)>,
    /// Who runs it, and optionally as which group; `None` is the user of this process.
    pub user: Option<(String, Option<String>)>,
}
