//! Both cores by turns: to the load and its servers, then to the program under test.
//!
//! On two cores a load that keeps two workers busy has to share their cores, and what it leaves
//! them comes in small pieces: each worker is woken for a request or two. That tells what sharing
//! costs, not what a second worker costs. So here the load first does all that it has to do, while
//! a thread that waits in a loop keeps the other core from the program; then both sleep, and each
//! worker finds its part of the requests, and a core of its own. Real-time priority makes it so:
//! nothing is stopped, and nobody notices but by the time that passes.

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::thread::gettid;

use crate::process::{PROXY_CPU, pin};

/// How long the program under test has both cores: more than it needs for any workload's clients.
const PROGRAM_TURN: Duration = Duration::from_millis(4);

/// Whose turn it is.
#[derive(Default)]
struct Turn {
    /// The load wants both cores.
    is_load: AtomicBool,
    /// The other core is kept.
    is_kept: AtomicBool,
    is_over: AtomicBool,
}

/// Both cores, kept for the calling thread or left to others; left for good when this is dropped.
pub struct Turns {
    turn: Arc<Turn>,
    keeper: Option<JoinHandle<io::Result<()>>>,
}

impl Turns {
    /// Gives the calling thread, on the load's core, and a keeper of the other core real-time
    /// priority. Needs the right to it and chrt.
    pub fn begin() -> io::Result<Self> {
        let turn = Arc::new(Turn::default());
        let shared = Arc::clone(&turn);
        let keeper = thread::spawn(move || keep(&shared));
        let turns = Self { turn, keeper: Some(keeper) };
        chrt(&["--fifo", "--reset-on-fork", "--pid", "10"])?;
        turns.take()?;
        turns.leave();
        Ok(turns)
    }

    /// Takes both cores.
    pub fn take(&self) -> io::Result<()> {
        self.turn.is_load.store(true, Ordering::SeqCst);
        let Some(keeper) = &self.keeper else { return Ok(()) };
        keeper.thread().unpark();
        while !self.turn.is_kept.load(Ordering::SeqCst) {
            if keeper.is_finished() {
                return Err(io::Error::other("no right to real-time priority, or chrt is missing"));
            }
            std::hint::spin_loop();
        }
        Ok(())
    }

    /// Leaves both cores to the program under test for as long as it needs.
    pub fn leave(&self) {
        self.turn.is_load.store(false, Ordering::SeqCst);
        thread::sleep(PROGRAM_TURN);
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.turn.is_over.store(true, Ordering::SeqCst);
        self.turn.is_load.store(false, Ordering::SeqCst);
        if let Some(keeper) = self.keeper.take() {
            keeper.thread().unpark();
            // What it could not do has been told by `take`.
            let _ = keeper.join();
        }
        // The process ends soon after; one that keeps its priority is a nuisance, not a fault.
        let _ = chrt(&["--other", "--pid", "0"]);
    }
}

fn keep(turn: &Turn) -> io::Result<()> {
    pin(PROXY_CPU)?;
    // Below the load, which may wait for it: they are on different cores.
    chrt(&["--fifo", "--pid", "9"])?;
    while !turn.is_over.load(Ordering::SeqCst) {
        while turn.is_load.load(Ordering::SeqCst) {
            turn.is_kept.store(true, Ordering::SeqCst);
            std::hint::spin_loop();
        }
        turn.is_kept.store(false, Ordering::SeqCst);
        thread::park();
    }
    Ok(())
}

/// Sets how the calling thread is scheduled.
fn chrt(arguments: &[&str]) -> io::Result<()> {
    let thread = gettid().as_raw_nonzero().to_string();
    let output = Command::new("chrt").args(arguments).arg(thread).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
