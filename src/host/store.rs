//! Listening sockets that the service manager keeps while the service is restarted: clients that
//! connect meanwhile wait instead of being refused, also after a crash.
//!
//! The manager gives them back to the next process together with those that it opens itself
//! (`sockets::given`), under the names that they were stored by.
//!
//! Source: sd_pid_notify_with_fds(3), systemd.service(5) on `FileDescriptorStoreMax=`.

use std::collections::BTreeSet;

use socket2::Socket;

use crate::host::sockets::Inherited;

/// What the names of our sockets begin with; sockets of socket units have other names and belong
/// to their units.
const PREFIX: &str = "listen/";

/// Most bytes of a name. Source: sd_notify(3).
const NAME_BYTES_MAX: usize = 255;

/// Returns the name of the socket that listens at `place`: a colon would separate names.
pub(crate) fn name_of(place: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && c != ':' { c } else { '/' };
    let mut name: String = PREFIX.chars().chain(place.chars().map(plain)).collect();
    name.truncate(NAME_BYTES_MAX);
    name
}

/// What the service manager keeps.
#[derive(Debug)]
pub(crate) struct Store {
    is_kept: bool,
    /// Names that it has.
    held: BTreeSet<String>,
    /// Everything is to be sent again: who kept it may not have been told of all.
    is_unsure: bool,
}

impl Store {
    /// Begins with what came from before this process.
    pub(crate) fn new(inherited: &[Inherited]) -> Self {
        let name = |known: &Inherited| match &known.name {
            Some(name) => name.starts_with(PREFIX).then(|| name.clone()),
            // From a predecessor, which stored it.
            None => Some(name_of(&known.place)),
        };
        let held = inherited.iter().filter_map(name).collect();
        Self { is_kept: manager::keeps_sockets(), held, is_unsure: true }
    }

    /// Lets the manager keep these sockets and no others. To be called by the process that the
    /// manager listens to.
    pub(crate) fn sync<'a>(&mut self, open: impl Iterator<Item = (String, &'a Socket)>) {
        if !self.is_kept {
            return;
        }
        let open: Vec<(String, &Socket)> =
            open.map(|(place, socket)| (name_of(&place), socket)).collect();
        for (name, socket) in &open {
            // One that it has already is not stored twice: it compares them.
            if self.is_unsure || !self.held.contains(name) {
                manager::store(name, socket);
            }
        }
        let wanted: BTreeSet<String> = open.into_iter().map(|(name, _)| name).collect();
        let mut has_removed = false;
        for name in self.held.difference(&wanted) {
            manager::remove(name);
            has_removed = true;
        }
        if has_removed {
            // Until then it still listens, and nobody else can.
            manager::wait();
        }
        self.held = wanted;
        self.is_unsure = false;
    }
}

#[cfg(target_os = "linux")]
mod manager {
    use std::io::{self, IoSlice};
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use rustix::pipe::{PipeFlags, pipe_with};
    use socket2::Socket;

    /// How long the manager may take to let a socket go.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Tells whether there is a manager that keeps sockets. systemd says so since release 254;
    /// earlier ones keep them too, and are known by the name they give to each start. Others must
    /// not be sent descriptors: they might leave them open.
    pub(super) fn keeps_sockets() -> bool {
        let is_told = std::env::var_os("NOTIFY_SOCKET").is_some();
        is_told
            && match std::env::var("FDSTORE") {
                Ok(count) => count.parse::<u32>().is_ok_and(|count| count > 0),
                Err(_) => std::env::var_os("INVOCATION_ID").is_some(),
            }
    }

    pub(super) fn store(name: &str, socket: &Socket) {
        tell(&format!("FDSTORE=1\nFDNAME={name}"), Some(socket.as_fd()));
    }

    pub(super) fn remove(name: &str) {
        tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None);
    }

    /// Waits until everything that was said has been done: the manager closes the pipe then.
    pub(super) fn wait() {
        let Ok((ours, theirs)) = pipe_with(PipeFlags::CLOEXEC) else { return };
        tell("BARRIER=1", Some(theirs.as_fd()));
        drop(theirs);
        let Ok(patience) = Timespec::try_from(PATIENCE) else { return };
        // A signal or no answer: the sockets go a little later then.
        let _ = poll(&mut [PollFd::new(&ours, PollFlags::IN)], Some(&patience));
    }

    fn tell(text: &str, descriptor: Option<BorrowedFd<'_>>) {
        if let Err(error) = try_tell(text, descriptor) {
            tracing::debug!("the service manager does not keep sockets: {error}");
        }
    }

    fn try_tell(text: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        sendmsg(&socket, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Other systems have no such service manager.
#[cfg(not(target_os = "linux"))]
mod manager {
    use socket2::Socket;

    pub(super) const fn keeps_sockets() -> bool {
        false
    }

    pub(super) const fn store(_name: &str, _socket: &Socket) {}

    pub(super) const fn remove(_name: &str) {}

    pub(super) const fn wait() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_colon_and_are_told_from_those_of_socket_units() {
        assert_eq!(name_of("127.0.0.1:6379"), "listen/127.0.0.1/6379");
        assert_eq!(name_of("[::1]:6379"), "listen/[//1]/6379");
        assert_eq!(name_of("/run/ä b.sock"), "listen//run///b.sock");
        assert_eq!(name_of(&"x".repeat(300)).len(), NAME_BYTES_MAX);
        let socket = || Socket::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let inherited = |place: &str, name: Option<&str>| Inherited {
            place: place.to_owned(),
            name: name.map(str::to_owned),
            socket: socket(),
        };
        let store = Store::new(&[
            inherited("127.0.0.1:1", Some("listen/localhost/1")),
            inherited("127.0.0.1:2", Some("ringkeeper.socket")),
            inherited("127.0.0.1:3", None),
        ]);
        let held: Vec<&str> = store.held.iter().map(String::as_str).collect();
        assert_eq!(held, ["listen/127.0.0.1/3", "listen/localhost/1"]);
    }
}
