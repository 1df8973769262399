//! Sockets toward servers, and what their error numbers mean.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use mio::net::{TcpStream, UnixStream};
use ringkeeper_core::io::{CloseReason, Endpoint};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::conn::Stream;

/// Starts to connect, from `source` if there is one. The socket becomes writable when the attempt has ended either way.
///
/// # Errors
///
/// The attempt ended at once; [`connect_reason`] translates.
pub(crate) fn start(endpoint: &Endpoint, source: Option<IpAddr>) -> io::Result<Stream> {
    match endpoint {
        Endpoint::Tcp(address) => start_tcp(*address, source),
        Endpoint::Unix(path) => start_unix(path),
    }
}

fn start_tcp(address: SocketAddr, source: Option<IpAddr>) -> io::Result<Stream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    connect(&socket, &address.into())?;
    Ok(Stream::Tcp(TcpStream::from_std(socket.into())))
}

fn start_unix(path: &Path) -> io::Result<Stream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    connect(&socket, &SockAddr::unix(path)?)?;
    Ok(Stream::Unix(UnixStream::from_std(socket.into())))
}

fn connect(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    match socket.connect(address) {
        // An interrupted connect goes on by itself, POSIX connect().
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
            Ok(())
        }
        result => result,
    }
}

/// Translates what ended an attempt to connect.
pub(crate) fn connect_reason(error: &io::Error) -> CloseReason {
    match error.raw_os_error() {
        Some(libc::ETIMEDOUT) => CloseReason::ConnectTimedOut,
        // A unix socket whose backlog is full; TCP has no such answer.
        Some(libc::EAGAIN) => CloseReason::OutOfResources,
        Some(_) | None => close_reason(error),
    }
}

/// Translates what ended an established connection.
pub(crate) fn close_reason(error: &io::Error) -> CloseReason {
    let Some(number) = error.raw_os_error() else {
        // Refused before the kernel saw it, as a unix path that is too long.
        return CloseReason::Other(libc::EINVAL);
    };
    match number {
        libc::ECONNREFUSED => CloseReason::Refused,
        libc::ECONNRESET | libc::ECONNABORTED | libc::EPIPE => CloseReason::Reset,
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
            CloseReason::Unreachable
        }
        libc::ENOENT | libc::ENOTDIR | libc::ENOTSOCK => CloseReason::NotFound,
        libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL => {
            CloseReason::OutOfResources
        }
        number => CloseReason::Other(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_become_reasons() {
        let cases = [
            (libc::ECONNREFUSED, CloseReason::Refused),
            (libc::EPIPE, CloseReason::Reset),
            (libc::EHOSTUNREACH, CloseReason::Unreachable),
            (libc::ENOENT, CloseReason::NotFound),
            (libc::EADDRNOTAVAIL, CloseReason::OutOfResources),
            (libc::EAGAIN, CloseReason::OutOfResources),
            (libc::ETIMEDOUT, CloseReason::ConnectTimedOut),
            (libc::EACCES, CloseReason::Other(libc::EACCES)),
        ];
        for (number, reason) in cases {
            assert_eq!(connect_reason(&io::Error::from_raw_os_error(number)), reason);
        }
        let keepalive_gave_up = io::Error::from_raw_os_error(libc::ETIMEDOUT);
        assert_eq!(close_reason(&keepalive_gave_up), CloseReason::Other(libc::ETIMEDOUT));
    }
}
