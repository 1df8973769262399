//! What runs in the namespaces besides the routers: a client that asks all the time, an echo on each
//! router that answers with its letter, a service to be tracked, and the check of it; and in place of
//! the routers, loops that do the least that can be done.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, netdevice};
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

/// The word that makes this program one of these.
pub const PROBE: &str = "--probe";

/// The virtual address and the port of the echo.
pub const ECHO: &str = "10.77.0.100:7777";

/// Where the service listens on each router.
pub const SERVICE: &str = "127.0.0.1:7778";

/// Time between two questions.
const EVERY_NS: i64 = 1_000_000;

/// Nanoseconds of the clock that all processes share.
pub fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Runs one of them by its name.
pub fn main(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["echo", letter] => echo(letter.as_bytes()),
        ["ask", seconds] => ask(seconds.parse().unwrap_or(1)),
        ["serve"] => serve(),
        ["check"] => {
            let address: SocketAddr = SERVICE.parse().expect("an address");
            TcpStream::connect_timeout(&address, Duration::from_millis(500)).map(drop)
        }
        ["beat"] => beat(None),
        ["beat", "send"] => adverts().and_then(|socket| beat(Some(&socket))),
        ["hear"] => adverts().and_then(|socket| hear(&socket)),
        ["burn"] => loop {
            std::hint::spin_loop();
        },
        _ => Err(io::Error::other("no such probe")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Answers every question with this router's letter behind it. The address need not be here yet.
fn echo(letter: &[u8]) -> io::Result<()> {
    let socket = UdpSocket::bind(ECHO)?;
    let mut bytes = [0; 64];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut bytes[..48]) else { continue };
        bytes[length..length + letter.len()].copy_from_slice(letter);
        let _ = socket.send_to(&bytes[..length + letter.len()], from);
    }
}

/// Asks once a millisecond; prints when an answer came, when it was asked for, and who answered,
/// for the first answer and whenever somebody else answers than before.
fn ask(seconds: i64) -> io::Result<()> {
    let socket = UdpSocket::bind("10.77.0.9:0")?;
    socket.set_nonblocking(true)?;
    let to: SocketAddr = ECHO.parse().expect("an address");
    let mut out = io::stdout().lock();
    let start = now_ns();
    let mut next = start;
    let mut bytes = [0; 64];
    let mut known = 0;
    while now_ns() - start < seconds * 1_000_000_000 {
        let now = now_ns();
        if now >= next {
            // What was missed is not made up for: an answer's time is that of its own question.
            next = (next + EVERY_NS).max(now);
            let _ = socket.send_to(&now.to_ne_bytes(), to);
        }
        let wait = Timespec { tv_sec: 0, tv_nsec: (next - now_ns()).max(0) };
        let _ = poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&wait));
        while let Ok(length) = socket.recv(&mut bytes) {
            let [asked @ .., letter] = &bytes[..length] else { continue };
            let Ok(asked) = asked.try_into().map(i64::from_ne_bytes) else { continue };
            if std::mem::replace(&mut known, *letter) == *letter {
                continue;
            }
            writeln!(out, "{} {asked} {}", now_ns(), char::from(*letter))?;
        }
    }
    Ok(())
}

/// Where adverts go.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// Between two adverts of the quickest mode, nanoseconds.
const BEAT_NS: i64 = 10_000_000;

/// The advert of the first router: priority 150, number 51, the virtual address. The kernel fills in
/// the length and the checksum of the header.
const ADVERT: [u8; 32] = [
    0x45, 0xc0, 0, 0, 0, 1, 0, 0, 255, 112, 0, 0, 10, 77, 0, 1, 224, 0, 0, 18, 0x31, 51, 150, 1, 0,
    1, 0x43, 0x3c, 10, 77, 0, 100,
];

/// Opens a socket for adverts.
fn adverts() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(112)))?;
    let interface = netdevice::name_to_index(&socket, "e0")?;
    socket.set_header_included_v4(true)?;
    socket.bind_device(Some(b"e0"))?;
    socket.set_multicast_loop_v4(false)?;
    socket.join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Index(interface))?;
    Ok(socket)
}

/// Sends the advert at every beat, or only sleeps until the next. It does nothing else, so it costs
/// what the machine asks for a sleep, a send and the way of the packet.
fn beat(socket: Option<&Socket>) -> io::Result<()> {
    let to = SockAddr::from(SocketAddrV4::new(GROUP, 0));
    let mut next = now_ns();
    loop {
        next += BEAT_NS;
        let at = Timespec { tv_sec: next / 1_000_000_000, tv_nsec: next % 1_000_000_000 };
        clock_nanosleep_absolute(ClockId::Monotonic, &at)?;
        if let Some(socket) = socket {
            socket.send_to(&ADVERT, &to)?;
        }
    }
}

/// Takes in what comes, and waits no longer for it than a backup does.
fn hear(socket: &Socket) -> io::Result<()> {
    let wait = Timespec { tv_sec: 0, tv_nsec: BEAT_NS * 4 };
    let mut bytes = [0; 64];
    loop {
        poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait))?;
        let _ = rustix::net::recv(socket, &mut bytes, RecvFlags::DONTWAIT);
    }
}

/// Connections of the service that stay open.
const CONNECTIONS_KEPT: usize = 8;

fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(SERVICE)?;
    // Who asks whether it is there need not be kept; a pool's connection goes on.
    let mut kept = VecDeque::new();
    loop {
        kept.push_back(listener.accept());
        if kept.len() > CONNECTIONS_KEPT {
            kept.pop_front();
        }
    }
}
