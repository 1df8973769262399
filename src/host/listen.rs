//! Opens listening sockets, and says what to do when that fails.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringkeeper_core::io::Endpoint;
use rustix::fs::Mode;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::host::reason;

/// How long a port may stay in use by a process that has ended.
const LET_GO_WITHIN: Duration = Duration::from_secs(1);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A host name or address, and a port; 0 lets the system choose.
    Tcp {
        /// Name, IPv4 or IPv6 address (without brackets).
        host: String,
        /// The port.
        port: u16,
    },
    /// A unix socket.
    Unix {
        /// Its path; a socket that lies there is replaced.
        path: PathBuf,
        /// Its permission bits, at most 0777; `None` leaves them to the umask.
        mode: Option<u32>,
    },
    /// A virtual address, which this host need not have at the moment.
    Virtual(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { path, .. } => write!(f, "{}", path.display()),
            Self::Virtual(at) => write!(f, "{at}"),
        }
    }
}

/// What to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Whom it serves, for messages: `pool 'alpha'`, `statistics`.
    pub(crate) purpose: String,
    /// Where.
    pub(crate) address: Address,
    /// Connections that may wait to be accepted; the system may allow fewer.
    pub(crate) backlog: i32,
    /// Lets other processes listen on the same port.
    pub(crate) reuseport: bool,
}

/// Why a socket could not be opened.
#[derive(Debug)]
pub(crate) struct OpenError {
    purpose: String,
    address: Address,
    step: Step,
    cause: io::Error,
}

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Resolve,
    Replace,
    Socket,
    Bind,
    Listen,
}

impl OpenError {
    /// The process has no descriptor left for another handle on the socket.
    pub(crate) fn descriptors(request: &Request, cause: io::Error) -> Self {
        let Request { purpose, address, .. } = request.clone();
        Self { purpose, address, step: Step::Socket, cause }
    }

    fn advice(&self) -> String {
        use io::ErrorKind as Kind;
        match (self.step, self.cause.kind(), &self.address) {
            (Step::Resolve, _, _) => "write an IP address, or make the name resolve here".into(),
            (Step::Bind | Step::Listen, Kind::AddrInUse, Address::Tcp { port, .. }) => format!(
                "stop the process that has the port (`ss -ltnp sport = :{port}` shows it) or \
                 choose another"
            ),
            (Step::Bind | Step::Listen, Kind::AddrInUse, Address::Virtual(at)) => format!(
                "stop the process that has the port (`ss -ltnp sport = :{}` shows it), or let it \
                 listen on an address of its own and not on all",
                at.port()
            ),
            (Step::Bind, Kind::AddrNotAvailable, _) => {
                "give this host the address (`ip address` lists what it has) or listen on \
                 another"
                    .into()
            }
            (Step::Bind, Kind::PermissionDenied, Address::Tcp { .. } | Address::Virtual(_)) => {
                "choose a port of 1024 or above, or grant CAP_NET_BIND_SERVICE".into()
            }
            (Step::Replace, Kind::AlreadyExists, _) => {
                "a file that is no socket lies there: move it away or choose another path".into()
            }
            (_, Kind::PermissionDenied, Address::Unix { .. }) => {
                "let this user write to the directory or choose another".into()
            }
            (_, Kind::NotFound, Address::Unix { .. }) => "make the directory first".into(),
            (Step::Replace | Step::Socket | Step::Bind | Step::Listen, _, _) => {
                "look at the address and at the limits of this process".into()
            }
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { purpose, address, step, cause } = self;
        let failed = match step {
            Step::Resolve => "address resolution",
            Step::Replace => "replacing the old socket",
            Step::Socket => "opening a socket",
            Step::Bind => "bind",
            Step::Listen => "listen",
        };
        write!(
            f,
            "{failed} for {purpose} on '{address}' failed: {}; {}",
            reason(cause),
            self.advice()
        )
    }
}

// No `source`: the sentence holds the cause already.
impl std::error::Error for OpenError {}

/// Opens a listening socket that does not block.
///
/// # Errors
///
/// [`OpenError`] names the address, the cause and what to do.
pub(crate) fn open(request: &Request) -> Result<Socket, OpenError> {
    let attempt = match &request.address {
        Address::Tcp { host, port } => open_tcp(request, host, *port),
        Address::Unix { path, mode } => open_unix(request, path, *mode),
        Address::Virtual(at) => open_virtual(request, *at),
    };
    attempt.map_err(|(step, cause)| OpenError {
        purpose: request.purpose.clone(),
        address: request.address.clone(),
        step,
        cause,
    })
}

/// Looks up the request's host name and opens nothing.
///
/// # Errors
///
/// [`OpenError`] names the address, the cause and what to do.
pub(crate) fn check_name(request: &Request) -> Result<(), OpenError> {
    let Address::Tcp { host, port } = &request.address else { return Ok(()) };
    resolve(host, *port).map(drop).map_err(|cause| OpenError {
        purpose: request.purpose.clone(),
        address: request.address.clone(),
        step: Step::Resolve,
        cause,
    })
}

/// Returns where the socket listens, with the port that the system chose.
pub(crate) fn endpoint(socket: &Socket) -> io::Result<Endpoint> {
    let address = socket.local_addr()?;
    match (address.as_socket(), address.as_pathname()) {
        (Some(tcp), _) => Ok(Endpoint::Tcp(tcp)),
        (None, Some(path)) => Ok(Endpoint::Unix(path.to_owned())),
        (None, None) => Err(io::Error::from(io::ErrorKind::Unsupported)),
    }
}

type Attempt<T> = Result<T, (Step, io::Error)>;

fn open_tcp(request: &Request, host: &str, port: u16) -> Attempt<Socket> {
    let address = resolve(host, port).map_err(|cause| (Step::Resolve, cause))?;
    let socket = tcp_socket(address, request.reuseport).map_err(|cause| (Step::Socket, cause))?;
    bind(&socket, &address.into()).map_err(|cause| (Step::Bind, cause))?;
    listen(socket, request.backlog)
}

/// Binds; a port that is in use may be about to be free. What a process had open in an io_uring is
/// closed by a worker of the kernel after the process has ended, so whoever starts right after a
/// `kill -9` still finds its listening sockets.
fn bind(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match socket.bind(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < LET_GO_WITHIN =>
            {
                std::thread::sleep(LET_GO_WITHIN / 100);
            }
            result => return result,
        }
    }
}

fn open_virtual(request: &Request, at: SocketAddr) -> Attempt<Socket> {
    let socket = tcp_socket(at, request.reuseport).map_err(|cause| (Step::Socket, cause))?;
    allow_absence(&socket, at).map_err(|cause| (Step::Socket, cause))?;
    bind(&socket, &at.into()).map_err(|cause| (Step::Bind, cause))?;
    listen(socket, request.backlog)
}

/// Lets a socket be bound to an address that may come later.
#[cfg(target_os = "linux")]
pub(crate) fn allow_absence(socket: &Socket, at: SocketAddr) -> io::Result<()> {
    if at.is_ipv4() {
        return socket.set_freebind_v4(true);
    }
    socket.set_only_v6(true)?;
    socket.set_freebind_v6(true)
}

/// Virtual routers are for Linux only, so there is no such address.
#[cfg(not(target_os = "linux"))]
fn allow_absence(_: &Socket, _: SocketAddr) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    // The first answer, as twemproxy takes it.
    (host, port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}

fn tcp_socket(address: SocketAddr, reuseport: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if reuseport {
        socket.set_reuse_port(true)?;
    }
    // Accepted sockets inherit it: no system call per client.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn open_unix(request: &Request, path: &Path, mode: Option<u32>) -> Attempt<Socket> {
    remove_old_socket(path).map_err(|cause| (Step::Replace, cause))?;
    let address = SockAddr::unix(path).map_err(|cause| (Step::Bind, cause))?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
        .map_err(|cause| (Step::Socket, cause))?;
    match mode {
        Some(mode) => {
            let mode = Mode::from_raw_mode(rustix::fs::RawMode::try_from(mode).unwrap_or(0));
            bind_with_mode(&socket, &address, path, mode)
        }
        None => socket.bind(&address),
    }
    .map_err(|cause| (Step::Bind, cause))?;
    listen(socket, request.backlog)
}

/// Binds so that the file never has more permissions than `mode`. The umask belongs to the whole
/// process, other threads included, so it stays as it is.
#[cfg(target_os = "linux")]
fn bind_with_mode(socket: &Socket, address: &SockAddr, path: &Path, mode: Mode) -> io::Result<()> {
    // unix(7): the file gets the socket's permissions, less the umask.
    rustix::fs::fchmod(socket, mode)?;
    socket.bind(address)?;
    rustix::fs::chmod(path, mode)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn bind_with_mode(socket: &Socket, address: &SockAddr, path: &Path, mode: Mode) -> io::Result<()> {
    // Nobody can connect before `listen`, which comes after this.
    socket.bind(address)?;
    rustix::fs::chmod(path, mode)?;
    Ok(())
}

fn remove_old_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn listen(socket: Socket, backlog: i32) -> Attempt<Socket> {
    socket.listen(backlog).map_err(|cause| (Step::Listen, cause))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn tcp(host: &str, port: u16) -> Request {
        let address = Address::Tcp { host: host.to_owned(), port };
        Request { purpose: "pool 'alpha'".into(), address, backlog: 16, reuseport: false }
    }

    fn unix(path: &Path, mode: Option<u32>) -> Request {
        let address = Address::Unix { path: path.to_owned(), mode };
        Request { purpose: "pool 'alpha'".into(), address, backlog: 16, reuseport: false }
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ringkeeper-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn a_port_in_use_is_named_with_the_way_out() {
        let first = open(&tcp("127.0.0.1", 0)).unwrap();
        let Endpoint::Tcp(taken) = endpoint(&first).unwrap() else { panic!("not a TCP endpoint") };
        let error = open(&tcp("127.0.0.1", taken.port())).unwrap_err().to_string();
        let start = format!("bind for pool 'alpha' on '127.0.0.1:{}' failed", taken.port());
        assert!(error.starts_with(&start), "{error}");
        assert!(error.contains("ss -ltnp"), "{error}");
    }

    #[test]
    fn accepted_sockets_inherit_no_delay() {
        let listener = open(&tcp("localhost", 0)).unwrap();
        let Endpoint::Tcp(at) = endpoint(&listener).unwrap() else { panic!("not a TCP endpoint") };
        let client = std::net::TcpStream::connect(at).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(accepted.tcp_nodelay().unwrap(), cfg!(target_os = "linux"));
        drop(client);
    }

    #[test]
    fn ipv6_is_listened_on() {
        match open(&tcp("::1", 0)) {
            Ok(socket) => {
                let Endpoint::Tcp(at) = endpoint(&socket).unwrap() else { panic!("not TCP") };
                assert!(at.is_ipv6());
            }
            // A host without IPv6 can't listen on it; the message must say which address.
            Err(error) => assert!(error.to_string().contains("[::1]:0"), "{error}"),
        }
    }

    #[test]
    fn an_unresolvable_host_is_named() {
        let error = open(&tcp("no such host", 1)).unwrap_err().to_string();
        assert!(error.starts_with("address resolution for pool 'alpha'"), "{error}");
    }

    #[test]
    fn a_unix_socket_has_its_mode_and_replaces_only_a_socket() {
        let path = scratch("mode.sock");
        let first = open(&unix(&path, Some(0o620))).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
        drop(first);

        let second = open(&unix(&path, Some(0o666))).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        let mut client = UnixStream::connect(&path).unwrap();
        drop(second);
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
        std::fs::remove_file(&path).unwrap();

        std::fs::write(&path, "precious").unwrap();
        let error = open(&unix(&path, None)).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
    }
}
