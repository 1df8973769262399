//! Listening sockets.

use std::io;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use ringkeeper_core::id::ListenerId;
use ringkeeper_core::io::Endpoint;
use ringkeeper_core::time::Instant;
use socket2::Socket;

use crate::Listener;
use crate::conn::Stream;
use crate::poller::{Poller, Watched};

/// How long a listener rests when the kernel has no descriptor for another connection. The error
/// costs microseconds and would repeat for as long as somebody waits in the backlog.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// A listening socket that the poller watches.
#[derive(Debug)]
pub(crate) struct Acceptor {
    id: ListenerId,
    socket: AcceptorSocket,
    retry_at: Option<Instant>,
    #[cfg_attr(target_os = "linux", expect(dead_code, reason = "inherited from the listener"))]
    tcp_keepalive: bool,
}

#[derive(Debug)]
enum AcceptorSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AcceptorSocket {
    fn accept(&self) -> io::Result<(Stream, Endpoint)> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().map(|(stream, peer)| (Stream::Tcp(stream), Endpoint::Tcp(peer)))
            }
            Self::Unix(listener) => listener.accept().map(|(stream, peer)| {
                let path = peer.as_pathname().map(Into::into).unwrap_or_default();
                (Stream::Unix(stream), Endpoint::Unix(path))
            }),
        }
    }
}

/// What an accept gave.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A client, and where it is.
    Client(Stream, Endpoint),
    /// Nobody until the poller says so, or until [`Acceptor::retry_at`].
    Blocked,
    /// A client that was gone before we took it; ask again.
    Again,
}

impl Acceptor {
    /// Takes the host's listener over, which is at position `index`.
    pub(crate) fn new(listener: Listener, index: u16, poller: &Poller) -> io::Result<Self> {
        let Listener { id, socket, tcp_keepalive } = listener;
        socket.set_nonblocking(true)?;
        let socket = if socket.local_addr()?.is_unix() {
            let mut listener = UnixListener::from_std(socket.into());
            poller.watch(&mut listener, Watched::Listener(index))?;
            AcceptorSocket::Unix(listener)
        } else {
            // Linux hands these down to every accepted socket: two system calls less for each.
            #[cfg(target_os = "linux")]
            {
                socket.set_tcp_nodelay(true)?;
                socket.set_keepalive(tcp_keepalive)?;
            }
            let mut listener = TcpListener::from_std(socket.into());
            poller.watch(&mut listener, Watched::Listener(index))?;
            AcceptorSocket::Tcp(listener)
        };
        Ok(Self { id, socket, retry_at: None, tcp_keepalive })
    }

    /// Returns the worker's name for it.
    pub(crate) const fn id(&self) -> ListenerId {
        self.id
    }

    /// Returns when a resting listener wants to be asked again.
    pub(crate) const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Ends the rest if it is over.
    pub(crate) fn wake_if_rested(&mut self, now: Instant) -> bool {
        self.retry_at.take_if(|at| *at <= now).is_some()
    }

    /// Takes one client.
    pub(crate) fn accept(&mut self, now: Instant) -> Accepted {
        if self.retry_at.is_some() {
            return Accepted::Blocked;
        }
        match self.socket.accept() {
            Ok((stream, peer)) => match self.configure(&stream) {
                Ok(()) => Accepted::Client(stream, peer),
                // The socket does not take options: the client has reset it.
                Err(_) => Accepted::Again,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Accepted::Blocked,
            Err(error) if is_about_the_client(&error) => Accepted::Again,
            Err(_) => {
                self.retry_at = Some(now + ACCEPT_BACK_OFF);
                Accepted::Blocked
            }
        }
    }

    /// Takes a client that the kernel has accepted, even of a listener that rests.
    pub(crate) fn take_waiting(&self) -> Option<(Stream, Endpoint)> {
        let (stream, peer) = self.socket.accept().ok()?;
        self.configure(&stream).ok()?;
        Some((stream, peer))
    }

    /// Ends the watch, before it is dropped: another process may have the socket as well.
    pub(crate) fn forget(&mut self, poller: &Poller) {
        match &mut self.socket {
            AcceptorSocket::Tcp(listener) => poller.forget(listener),
            AcceptorSocket::Unix(listener) => poller.forget(listener),
        }
    }

    #[cfg(target_os = "linux")]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "other systems need both")]
    const fn configure(&self, _: &Stream) -> io::Result<()> {
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn configure(&self, stream: &Stream) -> io::Result<()> {
        let Stream::Tcp(stream) = stream else { return Ok(()) };
        stream.set_nodelay(true)?;
        socket2::SockRef::from(stream).set_keepalive(self.tcp_keepalive)
    }
}

/// Takes over a client that was accepted elsewhere, and looks where it is.
pub(crate) fn stream(socket: Socket) -> io::Result<(Stream, Endpoint)> {
    socket.set_nonblocking(true)?;
    let peer = socket.peer_addr()?;
    match peer.as_socket() {
        Some(peer) => Ok((Stream::Tcp(TcpStream::from_std(socket.into())), Endpoint::Tcp(peer))),
        None => {
            let path = peer.as_pathname().map(Into::into).unwrap_or_default();
            Ok((Stream::Unix(UnixStream::from_std(socket.into())), Endpoint::Unix(path)))
        }
    }
}

/// Tells an error of the one connection that was accepted from one of the listener.
///
/// Source: accept(2), which passes on network errors that are pending on the new socket.
fn is_about_the_client(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EINTR
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
        )
    )
}
