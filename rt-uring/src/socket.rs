//! Sockets: how they are made, and what their errors mean.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use ringkeeper_core::io::{CloseReason, Endpoint};

/// Makes the socket of a connection to a server, and the address to connect it to.
///
/// # Errors
///
/// What the kernel says, or `ENAMETOOLONG` for a path that is too long for a unix socket.
pub(crate) fn prepare(endpoint: &Endpoint) -> Result<(Socket, SockAddr), CloseReason> {
    let result = match endpoint {
        Endpoint::Tcp(address) => prepare_tcp(*address),
        Endpoint::Unix(path) => prepare_unix(path),
    };
    result.map_err(|error| reason(error.raw_os_error().unwrap_or(0)))
}

fn prepare_tcp(address: SocketAddr) -> io::Result<(Socket, SockAddr)> {
    let address = SockAddr::from(address);
    let socket = Socket::new(address.domain(), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
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
