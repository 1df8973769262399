//! Channels: sockets and pipes without connections, opened by the host.
//!
//! The ring tells when one becomes readable; it is read and written with plain calls. There are
//! few of them and they say little, and what they say has to leave in order.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ringkeeper_core::id::ChannelId;
use ringkeeper_core::io::ChannelSpec;
use rustix::io::Errno;
use rustix::net::SendFlags;

type Open = dyn FnMut(&ChannelSpec) -> io::Result<OwnedFd> + Send;

/// What opens channels: the host knows what a descriptor is made of. It must be non-blocking.
pub struct Opener(Box<Open>);

impl Opener {
    /// Takes the host's function.
    pub fn new(open: impl FnMut(&ChannelSpec) -> io::Result<OwnedFd> + Send + 'static) -> Self {
        Self(Box::new(open))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

impl Default for Opener {
    fn default() -> Self {
        Self::new(|_| Err(io::ErrorKind::Unsupported.into()))
    }
}

/// What came of a look at a channel.
pub(crate) enum Look {
    /// Nothing waits.
    Blocked,
    /// So many bytes.
    Bytes(usize),
    /// The kernel dropped some.
    Lost,
    /// Nothing more will come.
    Ended(i32),
}

struct Channel {
    id: ChannelId,
    descriptor: OwnedFd,
    is_read: bool,
}

/// All channels of a worker: a handful.
#[derive(Default)]
pub(crate) struct Channels {
    opener: Opener,
    list: Vec<Channel>,
}

impl Channels {
    pub(crate) fn new(opener: Opener) -> Self {
        Self { opener, list: Vec::new() }
    }

    /// Opens a channel; returns what is to be polled, if it is ever read.
    pub(crate) fn open(
        &mut self,
        id: ChannelId,
        spec: &ChannelSpec,
    ) -> Result<Option<BorrowedFd<'_>>, i32> {
        let Opener(open) = &mut self.opener;
        let number = |error: io::Error| error.raw_os_error().unwrap_or(libc::EOPNOTSUPP);
        let descriptor = open(spec).map_err(number)?;
        let is_read = spec.is_read();
        self.list.push(Channel { id, descriptor, is_read });
        Ok(self.polled(id))
    }

    /// Returns what is to be polled of a channel.
    pub(crate) fn polled(&self, id: ChannelId) -> Option<BorrowedFd<'_>> {
        let channel = self.list.iter().find(|channel| channel.id == id && channel.is_read)?;
        Some(channel.descriptor.as_fd())
    }

    /// Closes a channel; tells whether it was polled.
    pub(crate) fn close(&mut self, id: ChannelId) -> bool {
        let was_polled = self.polled(id).is_some();
        self.list.retain(|channel| channel.id != id);
        was_polled
    }

    /// Returns the channel at a position.
    pub(crate) fn at(&self, position: usize) -> Option<ChannelId> {
        self.list.get(position).map(|channel| channel.id)
    }

    /// Sends, or says why not.
    pub(crate) fn send(
        &self,
        id: ChannelId,
        to: Option<SocketAddr>,
        bytes: &[u8],
    ) -> Result<(), i32> {
        let found = self.list.iter().find(|channel| channel.id == id);
        let Some(Channel { descriptor, .. }) = found else { return Err(libc::EBADF) };
        let sent = match to {
            Some(to) => rustix::net::sendto(descriptor, bytes, SendFlags::NOSIGNAL, &to),
            None => rustix::io::write(descriptor, bytes),
        };
        sent.map(|_| ()).map_err(Errno::raw_os_error)
    }

    /// Reads a datagram if one waits.
    pub(crate) fn read(&mut self, id: ChannelId, space: &mut [u8]) -> Look {
        let found = self.list.iter_mut().find(|channel| channel.id == id && channel.is_read);
        let Some(channel) = found else { return Look::Blocked };
        loop {
            let errno = match rustix::io::read(&channel.descriptor, &mut *space) {
                Ok(0) => 0,
                Ok(count) => return Look::Bytes(count),
                Err(errno) => errno.raw_os_error(),
            };
            match errno {
                libc::EAGAIN => return Look::Blocked,
                libc::ENOBUFS => return Look::Lost,
                // News of the interface or of a peer; the socket is as good as before.
                libc::EINTR
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENODEV
                | libc::ENXIO
                | libc::ECONNREFUSED
                | libc::EMSGSIZE => {}
                errno => {
                    channel.is_read = false;
                    return Look::Ended(errno);
                }
            }
        }
    }
}
