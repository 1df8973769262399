//! Listening sockets.

use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringkeeper_core::id::ListenerId;
use ringkeeper_core::io::Endpoint;
use ringkeeper_core::time::Instant;
use socket2::{SockRef, Socket};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::Listener;
use crate::conn::Stream;

/// How long a listener rests when the kernel has no descriptor for another connection. The error
/// costs microseconds and would repeat for as long as somebody waits in the backlog.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// A listening socket that tokio watches.
#[derive(Debug)]
pub(crate) struct Acceptor {
    id: ListenerId,
    socket: AcceptorSocket,
    waker: Waker,
    retry_at: Option<Instant>,
    #[cfg_attr(target_os = "linux", expect(dead_code, reason = "inherited from the listener"))]
    tcp_keepalive: bool,
}

#[derive(Debug)]
enum AcceptorSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What an accept gave.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A client, and where it is.
    Client(Stream, Endpoint),
    /// Nobody until the waker says so, or until [`Acceptor::retry_at`].
    Blocked,
    /// A client that was gone before we took it; ask again.
    Again,
}

impl Acceptor {
    /// Takes the host's listener over.
    pub(crate) fn new(listener: Listener, waker: Waker) -> io::Result<Self> {
        let Listener { id, socket, tcp_keepalive } = listener;
        socket.set_nonblocking(true)?;
        let socket = if socket.local_addr()?.is_unix() {
            AcceptorSocket::Unix(UnixListener::from_std(socket.into())?)
        } else {
            // Linux hands these down to every accepted socket: two system calls less for each.
            #[cfg(target_os = "linux")]
            {
                socket.set_tcp_nodelay(true)?;
                socket.set_keepalive(tcp_keepalive)?;
            }
            AcceptorSocket::Tcp(TcpListener::from_std(socket.into())?)
        };
        Ok(Self { id, socket, waker, retry_at: None, tcp_keepalive })
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
        let mut cx = Context::from_waker(&self.waker);
        let result = match &self.socket {
            AcceptorSocket::Tcp(listener) => listener
                .poll_accept(&mut cx)
                .map_ok(|(stream, peer)| (Stream::Tcp(stream), Endpoint::Tcp(peer))),
            AcceptorSocket::Unix(listener) => {
                listener.poll_accept(&mut cx).map_ok(|(stream, peer)| {
                    let path = peer.as_pathname().map(Into::into).unwrap_or_default();
                    (Stream::Unix(stream), Endpoint::Unix(path))
                })
            }
        };
        match result {
            Poll::Pending => Accepted::Blocked,
            Poll::Ready(Ok((stream, peer))) => match self.configure(&stream) {
                Ok(()) => Accepted::Client(stream, peer),
                // The socket does not take options: the client has reset it.
                Err(_) => Accepted::Again,
            },
            Poll::Ready(Err(error)) if is_about_the_client(&error) => Accepted::Again,
            Poll::Ready(Err(_)) => {
                self.retry_at = Some(now + ACCEPT_BACK_OFF);
                Accepted::Blocked
            }
        }
    }

    /// Takes a client that the kernel has accepted, whether tokio has heard of it or not.
    pub(crate) fn take_waiting(&self) -> Option<(Stream, Endpoint)> {
        let socket = match &self.socket {
            AcceptorSocket::Tcp(listener) => SockRef::from(listener).accept(),
            AcceptorSocket::Unix(listener) => SockRef::from(listener).accept(),
        };
        let (stream, peer) = stream(socket.ok()?.0).ok()?;
        self.configure(&stream).ok()?;
        Some((stream, peer))
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
        Some(peer) => Ok((Stream::Tcp(TcpStream::from_std(socket.into())?), Endpoint::Tcp(peer))),
        None => {
            let path = peer.as_pathname().map(Into::into).unwrap_or_default();
            Ok((Stream::Unix(UnixStream::from_std(socket.into())?), Endpoint::Unix(path)))
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
