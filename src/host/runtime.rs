//! Chooses between the runtimes and starts the worker; the only place that knows both.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use ringkeeper_core::id::ListenerId;
use ringkeeper_core::io::{Command, Drive, Errand, Event, Host, Mail, Notice, Recipient};
use socket2::Socket;

use crate::host::signal;

/// Which runtime the operator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// io_uring where the kernel allows it, else tokio.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// tokio (epoll, kqueue).
    Tokio,
}

/// Which runtime will run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selected {
    /// `rt-uring`.
    #[cfg(all(feature = "uring", target_os = "linux"))]
    Uring,
    /// `rt-tokio`.
    Tokio,
}

/// io_uring was demanded and can't be had.
#[derive(Debug)]
pub(crate) struct Unavailable(String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(reason) = self;
        write!(
            f,
            "io_uring can't be used here: {reason}; start with `--runtime auto` or \
             `--runtime tokio` to do without it"
        )
    }
}

impl std::error::Error for Unavailable {}

/// Decides on a runtime and leaves one line in the log that says which and why.
///
/// # Errors
///
/// [`Unavailable`] only if io_uring was demanded; `Auto` always finds one.
pub(crate) fn select(choice: Choice) -> Result<Selected, Unavailable> {
    if choice == Choice::Tokio {
        tracing::info!("runtime is tokio: asked for");
        return Ok(Selected::Tokio);
    }
    match (choice, probe()) {
        (_, Ok((selected, capabilities))) => {
            tracing::info!("runtime is {capabilities}");
            Ok(selected)
        }
        (Choice::Auto | Choice::Tokio, Err(reason)) => {
            tracing::info!("runtime is tokio: io_uring can't be used here: {reason}");
            Ok(Selected::Tokio)
        }
        (Choice::Uring, Err(reason)) => Err(Unavailable(reason)),
    }
}

/// Says what io_uring can do here, or why it can't be used.
#[cfg(all(feature = "uring", target_os = "linux"))]
fn probe() -> Result<(Selected, String), String> {
    match rt_uring::probe() {
        Ok(capabilities) => Ok((Selected::Uring, capabilities.to_string())),
        Err(unsuitable) => Err(unsuitable.to_string()),
    }
}

/// Says why io_uring can't be used.
#[cfg(not(all(feature = "uring", target_os = "linux")))]
fn probe() -> Result<(Selected, String), String> {
    if cfg!(target_os = "linux") {
        Err("this build has no support for it".to_owned())
    } else {
        Err("this system has none".to_owned())
    }
}

/// A socket for the worker.
#[derive(Debug)]
pub(crate) struct Listener {
    /// What the worker calls it.
    pub(crate) id: ListenerId,
    /// Bound, listening and non-blocking.
    pub(crate) socket: Socket,
    /// Whether accepted TCP connections send keepalive probes.
    pub(crate) tcp_keepalive: bool,
}

enum Sender {
    #[cfg(all(feature = "uring", target_os = "linux"))]
    Uring(rt_uring::MailboxSender),
    Tokio(rt_tokio::MailboxSender),
}

/// What one worker asks of the rest of the process.
struct Desk<F> {
    log_event: F,
    is_drained: Arc<AtomicBool>,
}

impl<F: FnMut(&Event)> Host for Desk<F> {
    fn event(&mut self, event: Event) {
        (self.log_event)(&event);
        if event == Event::Drained {
            self.is_drained.store(true, Ordering::Release);
            signal::call_for_attention();
        }
    }

    fn errand(&mut self, errand: Errand) {
        debug_assert!(false, "the proxy has no errands, but gave {errand:?}");
    }

    fn notice(&mut self, _: Recipient, notice: Notice) {
        match notice {}
    }
}

/// A worker on a thread of its own. Dropped, it goes on.
pub(crate) struct Running {
    thread: JoinHandle<io::Result<()>>,
    sender: Sender,
    is_drained: Arc<AtomicBool>,
}

impl Running {
    /// Gives the worker a command; one that has ended hears nothing.
    pub(crate) fn command(&self, command: Command) {
        // A worker that has ended is noticed by `has_ended`.
        match &self.sender {
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Sender::Uring(sender) => {
                let _ = sender.send(rt_uring::Message::Mail(Mail::Command(command)));
            }
            Sender::Tokio(sender) => {
                let _ = sender.send(rt_tokio::Message::Mail(Mail::Command(command)));
            }
        }
    }

    /// Returns whether [`Event::Drained`] came.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_drained.load(Ordering::Acquire)
    }

    /// Returns whether the thread has ended, which without [`Running::stop`] is a failure.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the worker at once and waits for its thread.
    ///
    /// # Errors
    ///
    /// What the runtime failed with, or that the thread panicked.
    pub(crate) fn stop(self) -> io::Result<()> {
        match &self.sender {
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Sender::Uring(sender) => {
                let _ = sender.send(rt_uring::Message::Stop);
            }
            Sender::Tokio(sender) => {
                let _ = sender.send(rt_tokio::Message::Stop);
            }
        }
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the worker panicked")))
    }
}

/// Starts the worker `drive` on a thread named `rk-data-0`; `start` is the zero of its clock.
///
/// # Errors
///
/// The system refuses a thread or the descriptors that the runtime needs.
pub(crate) fn start<D: Drive + Send + 'static>(
    selected: Selected,
    drive: D,
    start: Instant,
    listeners: Vec<Listener>,
    log_event: impl FnMut(&Event) + Send + 'static,
) -> io::Result<Running> {
    let is_drained = Arc::new(AtomicBool::new(false));
    let desk = Desk { log_event, is_drained: Arc::clone(&is_drained) };
    let (thread, sender) = match selected {
        #[cfg(all(feature = "uring", target_os = "linux"))]
        Selected::Uring => {
            let (sender, mailbox) = rt_uring::mailbox()?;
            let listeners = listeners
                .into_iter()
                .map(|Listener { id, socket, tcp_keepalive }| rt_uring::Listener {
                    id,
                    socket,
                    tcp_keepalive,
                })
                .collect();
            let body = move || rt_uring::run(drive, start, listeners, mailbox, desk);
            (spawn(body)?, Sender::Uring(sender))
        }
        Selected::Tokio => {
            let (sender, mailbox) = rt_tokio::mailbox()?;
            let listeners = listeners
                .into_iter()
                .map(|Listener { id, socket, tcp_keepalive }| rt_tokio::Listener {
                    id,
                    socket,
                    tcp_keepalive,
                })
                .collect();
            let body = move || rt_tokio::run(drive, start, listeners, mailbox, desk);
            (spawn(body)?, Sender::Tokio(sender))
        }
    };
    Ok(Running { thread, sender, is_drained })
}

fn spawn(
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name("rk-data-0".to_owned()).spawn(move || {
        // Also when `body` panics, so that the main thread does not wait for nobody.
        let _farewell = Farewell;
        body()
    })
}

struct Farewell;

impl Drop for Farewell {
    fn drop(&mut self) {
        signal::call_for_attention();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_always_finds_a_runtime() {
        assert!(select(Choice::Auto).is_ok());
        assert_eq!(select(Choice::Tokio).unwrap(), Selected::Tokio);
    }
}
