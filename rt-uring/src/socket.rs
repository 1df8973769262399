//! Sockets: how they are made, and what their errors mean.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use ringkeeper_core::io::{CloseReason, Endpoint};

/// Makes the socket of a connection to a server, bound to `source` if there is one, and the address to
/// connect it to.
///
/// # Errors
///
/// What the kernel says, or `ENAMETOOLONG` for a path that is too long for a unix socket.
pub(crate) fn prepare(
    endpoint: &Endpoint,
    source: Option<IpAddr>,
) -> Result<(Socket, SockAddr), CloseReason> {
    let result = match endpoint {
        Endpoint::Tcp(address) => prepare_tcp(*address, source),
        Endpoint::Unix(path) => prepare_unix(path),
    };
    result.map_err(|error| reason(error.raw_os_error().unwrap_or(0)))
}

fn prepare_tcp(address: SocketAddr, source: Option<IpAddr>) -> io::Result<(Socket, SockAddr)> {
    let address = SockAddr::from(address);
    let socket = Socket::new(address.domain(), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok((socket, address))
}

fn prepare_unix(path: &Path) -> io::Result<(Socket, SockAddr)> {
    let address =
        SockAddr::unix(path).map_err(|_| io::Error::from_raw_os_error(libc::ENAMETOOLONG))?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Sets what accepted sockets inherit from their listener.
///
/// # Errors
///
/// What the kernel says; not for a unix socket, which has nothing to set.
pub(crate) fn prepare_listener(socket: &Socket, tcp_keepalive: bool) -> io::Result<()> {
    let is_tcp = matches!(socket.domain()?, Domain::IPV4 | Domain::IPV6);
    if is_tcp {
        socket.set_tcp_nodelay(true)?;
        socket.set_keepalive(tcp_keepalive)?;
    }
    Ok(())
}

/// Returns who is at the other end. `None` when it is gone already.
pub(crate) fn peer(socket: &Socket) -> Option<Endpoint> {
    let address = socket.peer_addr().ok()?;
    match address.as_socket() {
        Some(address) => Some(Endpoint::Tcp(address)),
        None => Some(Endpoint::Unix(address.as_pathname().map(Into::into).unwrap_or_default())),
    }
}

/// Returns our end. `None` for a unix socket.
pub(crate) fn local(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

/// Says what an error number means for a connection.
pub(crate) const fn reason(errno: i32) -> CloseReason {
    match errno {
        libc::ECONNREFUSED => CloseReason::Refused,
        libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED => CloseReason::Reset,
        libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
            CloseReason::Unreachable
        }
        libc::ENOENT | libc::ENOTDIR | libc::ENOTSOCK => CloseReason::NotFound,
        libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EADDRNOTAVAIL => {
            CloseReason::OutOfResources
        }
        other => CloseReason::Other(other),
    }
}

/// Like [`reason`], for a connect: there a time-out of the kernel's own is one, too.
pub(crate) const fn connect_reason(errno: i32) -> CloseReason {
    match errno {
        libc::ETIMEDOUT => CloseReason::ConnectTimedOut,
        other => reason(other),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn accepted_sockets_inherit_what_the_listener_was_given() {
        for keepalive in [false, true] {
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            listener.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
            listener.listen(1).unwrap();
            prepare_listener(&listener, keepalive).unwrap();
            let address = listener.local_addr().unwrap().as_socket().unwrap();
            let client = TcpStream::connect(address).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert!(accepted.tcp_nodelay().unwrap());
            assert_eq!(accepted.keepalive().unwrap(), keepalive);
            assert_eq!(peer(&accepted), Some(Endpoint::Tcp(client.local_addr().unwrap())));
        }
    }

    #[test]
    fn errors_have_a_meaning() {
        assert_eq!(reason(libc::ECONNREFUSED), CloseReason::Refused);
        assert_eq!(reason(libc::EPIPE), CloseReason::Reset);
        assert_eq!(reason(libc::ENETUNREACH), CloseReason::Unreachable);
        assert_eq!(reason(libc::EMFILE), CloseReason::OutOfResources);
        assert_eq!(reason(libc::ETIMEDOUT), CloseReason::Other(libc::ETIMEDOUT));
        assert_eq!(connect_reason(libc::ETIMEDOUT), CloseReason::ConnectTimedOut);
    }
}
