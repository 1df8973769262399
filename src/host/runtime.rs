//! Chooses between the runtimes and starts workers; the only place that knows both.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use ringkeeper_core::id::{ListenerId, WorkerId};
use ringkeeper_core::io::{Drive, Errand, Event, Host, Mail, Notice, Parcel, Recipient};
use socket2::Socket;

use crate::host::alarm::{Alarm, Watched};
use crate::host::errands::Errands;
use crate::host::events::{self, EventLog};
use crate::host::routers::Line;
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

impl Selected {
    /// Returns its name in figures.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Self::Uring => "io_uring",
            Self::Tokio => "tokio",
        }
    }
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

/// Decides on a runtime and leaves one line in the log that says which and why. Returns also the
/// reason.
///
/// # Errors
///
/// [`Unavailable`] only if io_uring was demanded; `Auto` always finds one.
pub(crate) fn select(choice: Choice) -> Result<(Selected, String), Unavailable> {
    if choice == Choice::Tokio {
        tracing::info!("runtime is tokio: asked for");
        return Ok((Selected::Tokio, "asked for".to_owned()));
    }
    match (choice, probe()) {
        (_, Ok((selected, capabilities))) => {
            tracing::info!("runtime is {capabilities}");
            Ok((selected, capabilities))
        }
        (Choice::Auto | Choice::Tokio, Err(reason)) => {
            tracing::info!("runtime is tokio: io_uring can't be used here: {reason}");
            Ok((Selected::Tokio, format!("io_uring can't be used here: {reason}")))
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

/// Reaches one worker; clones reach the same one.
#[derive(Clone)]
pub(crate) enum Sender {
    #[cfg(all(feature = "uring", target_os = "linux"))]
    Uring(rt_uring::MailboxSender),
    Tokio(rt_tokio::MailboxSender),
}

// A worker that has ended hears nothing; `Running::has_ended` notices it.
impl Sender {
    /// Leaves mail for the worker.
    pub(crate) fn mail(&self, mail: Mail) {
        match self {
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Self::Uring(sender) => {
                let _ = sender.send(rt_uring::Message::Mail(mail));
            }
            Self::Tokio(sender) => {
                let _ = sender.send(rt_tokio::Message::Mail(mail));
            }
        }
    }

    /// Lets the worker take clients from a listener.
    pub(crate) fn listen(&self, listener: Listener) {
        let Listener { id, socket, tcp_keepalive } = listener;
        match self {
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Self::Uring(sender) => {
                let listener = rt_uring::Listener { id, socket, tcp_keepalive };
                let _ = sender.send(rt_uring::Message::Listen(listener));
            }
            Self::Tokio(sender) => {
                let listener = rt_tokio::Listener { id, socket, tcp_keepalive };
                let _ = sender.send(rt_tokio::Message::Listen(listener));
            }
        }
    }

    /// Lets the worker close a listener, after it has taken in who waits there. The returned end
    /// hangs up when nobody can come in there any more.
    pub(crate) fn unlisten(&self, id: ListenerId) -> mpsc::Receiver<()> {
        let (done, is_done) = mpsc::channel();
        match self {
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Self::Uring(sender) => {
                let _ = sender.send(rt_uring::Message::Unlisten(id, done));
            }
            Self::Tokio(sender) => {
                let _ = sender.send(rt_tokio::Message::Unlisten(id, done));
            }
        }
        is_done
    }

    /// Gives the worker a client; it comes back when the worker is too busy or has ended.
    pub(crate) fn admit(&self, listener: ListenerId, client: Socket) -> Result<(), Socket> {
        match self {
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Self::Uring(sender) => sender.admit(listener, client),
            Self::Tokio(sender) => sender.admit(listener, client),
        }
    }

    /// Gives the worker a client of another process; it comes back when the worker is too busy or
    /// has ended.
    pub(crate) fn adopt(
        &self,
        listener: ListenerId,
        client: Socket,
        state: Parcel,
    ) -> Result<(), Socket> {
        match self {
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Self::Uring(sender) => sender.adopt(listener, client, state),
            Self::Tokio(sender) => sender.adopt(listener, client, state),
        }
    }

    /// Returns where the clients arrive that the worker gives away from here on.
    pub(crate) fn releases(&self) -> Releases {
        match self {
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Self::Uring(sender) => {
                let (to, releases) = mpsc::channel();
                let _ = sender.send(rt_uring::Message::Releases(to));
                Releases::Uring(releases)
            }
            Self::Tokio(sender) => {
                let (to, releases) = mpsc::channel();
                let _ = sender.send(rt_tokio::Message::Releases(to));
                Releases::Tokio(releases)
            }
        }
    }

    /// Makes the worker take a turn, even if there is nothing to do.
    pub(crate) fn nudge(&self) {
        match self {
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Self::Uring(sender) => sender.nudge(),
            Self::Tokio(sender) => sender.nudge(),
        }
    }

    /// Ends the worker at once.
    pub(crate) fn stop(&self) {
        match self {
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Self::Uring(sender) => {
                let _ = sender.send(rt_uring::Message::Stop);
            }
            Self::Tokio(sender) => {
                let _ = sender.send(rt_tokio::Message::Stop);
            }
        }
    }
}

/// Where the clients arrive that a worker gives away.
pub(crate) enum Releases {
    #[cfg(all(feature = "uring", target_os = "linux"))]
    Uring(mpsc::Receiver<rt_uring::Handed>),
    Tokio(mpsc::Receiver<rt_tokio::Handed>),
}

impl Releases {
    /// Returns the next one, if it is there: the socket, what the worker knows of it, and bytes
    /// that the worker has not seen.
    pub(crate) fn next(&self) -> Option<(Socket, Parcel, Vec<u8>)> {
        match self {
            #[cfg(all(feature = "uring", target_os = "linux"))]
            Self::Uring(releases) => {
                let rt_uring::Handed { socket, state, late } = releases.try_recv().ok()?;
                Some((socket, state, late))
            }
            Self::Tokio(releases) => {
                let rt_tokio::Handed { socket, state, late } = releases.try_recv().ok()?;
                Some((socket, state, late))
            }
        }
    }
}

/// What a worker has to say to the main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// [`Event::Drained`] came.
    Drained(WorkerId),
    /// [`Event::Reloaded`] came.
    Reloaded(WorkerId),
}

/// Passes notices on between workers. Filled when they have started; the worker without clients
/// starts when those with clients can be reached, because news of a shard are never dropped.
#[derive(Default)]
pub(crate) struct Switchboard {
    data: OnceLock<Vec<Sender>>,
    control: OnceLock<Sender>,
    routers: Line,
}

impl Switchboard {
    /// Tells how the workers with clients are reached, in the order of their numbers.
    pub(crate) fn connect(&self, data: Vec<Sender>) {
        let _ = self.data.set(data);
    }

    /// Makes one that reaches the virtual routers.
    pub(crate) fn new(routers: Line) -> Self {
        Self { routers, ..Self::default() }
    }

    /// Tells how the worker without clients is reached.
    pub(crate) fn connect_control(&self, control: Sender) {
        let _ = self.control.set(control);
    }

    /// Leaves mail for the worker without clients; waits until it can be reached.
    pub(crate) fn mail_control(&self, mail: Mail) {
        self.control.wait().mail(mail);
    }

    fn pass(&self, to: Recipient, notice: &Notice) {
        let data = self.data.get().map(Vec::as_slice).unwrap_or_default();
        match to {
            Recipient::Worker(WorkerId(worker)) => {
                if let Some(sender) = data.get(usize::from(worker)) {
                    sender.mail(Mail::Notice(notice.clone()));
                }
            }
            Recipient::Data => {
                data.iter().for_each(|sender| sender.mail(Mail::Notice(notice.clone())));
            }
            Recipient::Control => {
                if let Some(sender) = self.control.get() {
                    sender.mail(Mail::Notice(notice.clone()));
                }
            }
            Recipient::Routers => self.routers.pass(notice),
        }
    }
}

/// What one worker asks of the rest of the process.
pub(crate) struct Desk {
    /// Which worker.
    pub(crate) worker: WorkerId,
    /// Writes the lines about its events.
    pub(crate) log: EventLog,
    /// Where the main thread listens.
    pub(crate) news: mpsc::Sender<News>,
    /// How other workers are reached.
    pub(crate) switchboard: Arc<Switchboard>,
}

impl Host for Desk {
    fn event(&mut self, event: Event) {
        self.log.log(&event);
        let news = if event == Event::Drained {
            News::Drained(self.worker)
        } else if matches!(event, Event::Reloaded(_)) {
            News::Reloaded(self.worker)
        } else {
            return;
        };
        // Nobody listens any more when the process ends.
        let _ = self.news.send(news);
        signal::call_for_attention();
    }

    fn errand(&mut self, errand: Errand) {
        debug_assert!(false, "the proxy has no errands, but gave {errand:?}");
    }

    fn notice(&mut self, to: Recipient, notice: Notice) {
        self.switchboard.pass(to, &notice);
    }
}

/// What the worker without clients asks of the rest of the process.
pub(crate) struct ControlDesk {
    /// How other workers are reached.
    pub(crate) switchboard: Arc<Switchboard>,
    /// Writes files and runs programs for it.
    pub(crate) errands: Errands,
}

impl Host for ControlDesk {
    fn event(&mut self, event: Event) {
        match event {
            Event::Sentinel { loudness, name, message } => events::say(loudness, name, &message),
            Event::TlsFailed { peer, is_server, reason } => {
                events::tls_failed(&peer, is_server, &reason);
            }
            Event::Exit { .. } => {
                tracing::warn!("a client of the Sentinel asked the process to end");
                signal::end_gently();
            }
            // Whoever takes over has the Sentinel now.
            Event::Drained => {}
            other @ (Event::Reloaded(_)
            | Event::ServerDown { .. }
            | Event::ServerUp { .. }
            | Event::ServerSilent { .. }
            | Event::Ejected { .. }
            | Event::Returned { .. }
            | Event::Switched { .. }
            | Event::HoldBegan { .. }
            | Event::HoldEnded { .. }
            | Event::GreetingRefused { .. }
            | Event::ServerProtocolError { .. }
            | Event::ClientRefused { .. }
            | Event::ClientOverLimit { .. }
            | Event::Router { .. }
            | Event::Check { .. }
            | Event::ChannelFailed { .. }
            | Event::Balance { .. }) => {
                debug_assert!(false, "it has no pools and no routers, but told {other:?}");
            }
        }
    }

    fn errand(&mut self, errand: Errand) {
        self.errands.take(errand);
    }

    fn notice(&mut self, to: Recipient, notice: Notice) {
        self.switchboard.pass(to, &notice);
    }
}

/// A worker on a thread of its own. Dropped, it goes on.
pub(crate) struct Running {
    thread: JoinHandle<io::Result<()>>,
    sender: Sender,
    alarm: Arc<Alarm>,
}

impl Running {
    /// Returns how the worker is reached.
    pub(crate) const fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Returns whether the thread has ended, which without [`Running::stop`] is a failure.
    pub(crate) fn has_ended(&self) -> bool {
        self.alarm.has_ended()
    }

    /// Ends the worker at once and waits for its thread.
    ///
    /// # Errors
    ///
    /// What the runtime failed with, or that the thread panicked.
    pub(crate) fn stop(self) -> io::Result<()> {
        self.alarm.expect_end();
        self.sender.stop();
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the worker panicked")))
    }
}

/// Starts the worker `drive` on a thread of this name; `start` is the zero of its clock. `routers`
/// is the way to the virtual routers, which leave if the thread ends unasked.
///
/// # Errors
///
/// The system refuses a thread or the descriptors that the runtime needs.
pub(crate) fn start<D: Drive + Send + 'static>(
    selected: Selected,
    name: String,
    drive: D,
    start: Instant,
    desk: impl Host + Send + 'static,
    routers: Line,
) -> io::Result<Running> {
    let alarm = Alarm::new(Some(routers));
    let desk = Watched::new(desk, Arc::clone(&alarm));
    let (thread, sender) = match selected {
        #[cfg(all(feature = "uring", target_os = "linux"))]
        Selected::Uring => {
            let (sender, mailbox) = rt_uring::mailbox()?;
            let body = move || rt_uring::run(drive, start, Vec::new(), mailbox, desk);
            (spawn(name, &alarm, body)?, Sender::Uring(sender))
        }
        Selected::Tokio => {
            let (sender, mailbox) = rt_tokio::mailbox()?;
            let body = move || rt_tokio::run(drive, start, Vec::new(), mailbox, desk);
            (spawn(name, &alarm, body)?, Sender::Tokio(sender))
        }
    };
    Ok(Running { thread, sender, alarm })
}

fn spawn(
    name: String,
    alarm: &Arc<Alarm>,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let alarm = Arc::clone(alarm);
    std::thread::Builder::new().name(name).spawn(move || alarm.run(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_always_finds_a_runtime() {
        assert!(select(Choice::Auto).is_ok());
        assert_eq!(select(Choice::Tokio).unwrap().0, Selected::Tokio);
    }
}
