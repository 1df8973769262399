//! Channels: sockets and pipes without connections, opened by the host.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::task::{Context, Poll, Waker};

use ringkeeper_core::id::ChannelId;
use ringkeeper_core::io::ChannelSpec;
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::unix::AsyncFd;

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
    /// So many bytes; zero is a datagram too small to be one.
    Bytes(usize),
    /// The kernel dropped some.
    Lost,
    /// Nothing more will come.
    Ended(i32),
}

enum Descriptor {
    Read(AsyncFd<OwnedFd>, Waker),
    Write(OwnedFd),
}

struct Channel {
    id: ChannelId,
    descriptor: Descriptor,
    is_over: bool,
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

    /// Opens a channel. `waker` is woken when something comes.
    pub(crate) fn open(
        &mut self,
        id: ChannelId,
        spec: &ChannelSpec,
        waker: Waker,
    ) -> Result<(), i32> {
        let Opener(open) = &mut self.opener;
        let number = |error: io::Error| error.raw_os_error().unwrap_or(libc::EOPNOTSUPP);
        let descriptor = open(spec).map_err(number)?;
        let descriptor = if spec.is_read() {
            #[expect(
                deprecated,
                reason = "sound for what owns its descriptor; the successor is unsafe"
            )]
            let descriptor = AsyncFd::new(descriptor).map_err(number)?;
            Descriptor::Read(descriptor, waker)
        } else {
            Descriptor::Write(descriptor)
        };
        self.list.push(Channel { id, descriptor, is_over: false });
        Ok(())
    }

    pub(crate) fn close(&mut self, id: ChannelId) {
        self.list.retain(|channel| channel.id != id);
    }

    /// Returns the channel at a position.
    pub(crate) fn at(&self, position: usize) -> Option<ChannelId> {
        self.list.get(position).map(|channel| channel.id)
    }

    fn find(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.list.iter_mut().find(|channel| channel.id == id)
    }

    /// Sends, or says why not.
    pub(crate) fn send(
        &mut self,
        id: ChannelId,
        to: Option<SocketAddr>,
        bytes: &[u8],
    ) -> Result<(), i32> {
        let Some(channel) = self.find(id) else { return Err(libc::EBADF) };
        let fd = match &channel.descriptor {
            Descriptor::Read(fd, _) => fd.get_ref().as_fd(),
            Descriptor::Write(fd) => fd.as_fd(),
        };
        let sent = match to {
            Some(to) => rustix::net::sendto(fd, bytes, SendFlags::NOSIGNAL, &to),
            None => rustix::io::write(fd, bytes),
        };
        sent.map(|_| ()).map_err(Errno::raw_os_error)
    }

    /// Reads a datagram, whether or not one was announced.
    pub(crate) fn read(&mut self, id: ChannelId, space: &mut [u8]) -> Look {
        let Some(channel) = self.find(id) else { return Look::Blocked };
        let Descriptor::Read(fd, _) = &channel.descriptor else { return Look::Blocked };
        if channel.is_over {
            return Look::Blocked;
        }
        loop {
            let errno = match rustix::io::read(fd.get_ref(), &mut *space) {
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
                    channel.is_over = true;
                    return Look::Ended(errno);
                }
            }
        }
    }

    /// Has the channel's waker woken by the next datagram; tells whether one waits already.
    pub(crate) fn arm(&mut self, id: ChannelId) -> bool {
        let Some(channel) = self.find(id).filter(|channel| !channel.is_over) else { return false };
        let Descriptor::Read(fd, waker) = &channel.descriptor else { return false };
        let mut context = Context::from_waker(waker);
        match fd.poll_read_ready(&mut context) {
            Poll::Pending | Poll::Ready(Err(_)) => false,
            Poll::Ready(Ok(mut guard)) => {
                guard.clear_ready();
                // Cleared: the second look leaves the waker there, or finds what came meanwhile.
                fd.poll_read_ready(&mut context).is_ready()
            }
        }
    }
}
