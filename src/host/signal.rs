//! Signals, received one at a time by the main thread.
//!
//! They are blocked before the first thread starts, so no handler interrupts anybody; the one
//! exception, a crash, is in `sys`.

use std::ffi::c_int;
use std::io;
use std::time::Duration;

use crate::host::sys::{self, SignalSet};

/// The name that the program was started under decides what a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persona {
    /// As twemproxy does.
    Nutcracker,
    /// The product's own way.
    Ringkeeper,
}

/// A signal that the main thread acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGHUP.
    Hangup,
    /// SIGINT.
    Interrupt,
    /// SIGTERM, which the nutcracker leaves to the system.
    Terminate,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
    /// SIGTTIN: log more.
    Louder,
    /// SIGTTOU: log less.
    Quieter,
    /// SIGALRM: the process wants its own main thread to look around.
    Attention,
}

impl Signal {
    const ALL: [Self; 8] = [
        Self::Hangup,
        Self::Interrupt,
        Self::Terminate,
        Self::User1,
        Self::User2,
        Self::Louder,
        Self::Quieter,
        Self::Attention,
    ];

    /// Returns the number by which the system knows it.
    pub(crate) const fn number(self) -> c_int {
        match self {
            Self::Hangup => libc::SIGHUP,
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
            Self::User1 => libc::SIGUSR1,
            Self::User2 => libc::SIGUSR2,
            Self::Louder => libc::SIGTTIN,
            Self::Quieter => libc::SIGTTOU,
            Self::Attention => libc::SIGALRM,
        }
    }

    /// Returns its customary name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hangup => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::User1 => "SIGUSR1",
            Self::User2 => "SIGUSR2",
            Self::Louder => "SIGTTIN",
            Self::Quieter => "SIGTTOU",
            Self::Attention => "SIGALRM",
        }
    }
}

/// The signals held for the main thread.
pub(crate) struct Signals(SignalSet);

impl Signals {
    /// Holds the persona's signals from here on; call it before the first thread and before a
    /// fork, which both inherit it.
    ///
    /// # Errors
    ///
    /// The system refuses, which it has no reason to.
    pub(crate) fn hold(persona: Persona) -> io::Result<Self> {
        let numbers: Vec<c_int> = Signal::ALL
            .into_iter()
            .filter(|&signal| {
                // As nutcracker SIGTERM ends the process at once, by the system's default.
                signal != Signal::Terminate || persona == Persona::Ringkeeper
            })
            .map(Signal::number)
            .collect();
        let set = SignalSet::new(&numbers);
        set.block()?;
        // Writes to a closed connection are answered by an error, not by a signal.
        sys::ignore_signal(libc::SIGPIPE);
        // So are writes beyond the largest file that the process may have.
        sys::ignore_signal(libc::SIGXFSZ);
        sys::log_crashes()?;
        Ok(Self(set))
    }

    /// Waits for the next one; `None` when `timeout` went by first.
    ///
    /// # Errors
    ///
    /// The system refuses, which it has no reason to.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<Option<Signal>> {
        let number = self.0.wait(timeout)?;
        Ok(number.and_then(|number| Signal::ALL.into_iter().find(|s| s.number() == number)))
    }
}

/// Ends the process as if the operator had asked for it: clients have time to finish.
pub(crate) fn end_gently() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
}

/// Wakes the main thread out of [`Signals::wait`]; for the other threads of the process.
pub(crate) fn call_for_attention() {
    // Can't fail for one's own process; and the main thread looks around by itself now and then.
    let _ =
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::ALARM);
}
