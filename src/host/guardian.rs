//! A process that outlives the one that has the virtual routers, however that one ends.
//!
//! It holds sockets and packets that are ready. When its connection ends, nobody is left at the
//! other end: it says goodbye for the dead, removes the addresses and ends. Whoever leaves in
//! order sends an empty will before.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};

use ringkeeper_core::vrrp::keeper::{Goodbye, Will};
use ringkeeper_core::wire::ip::PROTOCOL_VRRP;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use socket2::{SockFilter, Socket};

use crate::host::channels;
use crate::host::sys::SignalSet;

/// The name that the process goes by.
pub(crate) const NAME: &str = "ringkeeper-guardian";

/// Bytes of the largest will: hundreds of addresses.
const WILL_BYTES_MAX: usize = 256 * 1024;

/// Starts a guardian; returns it and our end of the connection.
///
/// # Errors
///
/// The system refuses a process or descriptors.
pub(crate) fn spawn() -> io::Result<(Child, OwnedFd)> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&ours, 2 * WILL_BYTES_MAX);
    let child = Command::new("/proc/self/exe")
        .arg0(NAME)
        .stdin(Stdio::from(theirs))
        // What ends our group, such as a key of a terminal, is not meant for it.
        .process_group(0)
        .spawn()?;
    Ok((child, ours))
}

/// The instruction of a socket's filter that ends it; nothing is taken then.
const RETURN: u16 = 0x06;

/// Where a goodbye leaves from.
type Exit = (u32, IpAddr, u8);

/// Watches until the other end is gone.
pub(crate) fn main() -> ExitCode {
    // It ends when the one that it guards has ended, not before.
    let signals = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE];
    let _ = SignalSet::new(&signals).block();
    // As lists of processes show it; it was started through a link.
    let _ = std::fs::write("/proc/self/comm", "rk-guardian");
    let stdin = io::stdin();
    let mut guardian = Guardian::default();
    let mut bytes = vec![0; WILL_BYTES_MAX];
    loop {
        let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
        let _ = poll(&mut polled, None);
        match rustix::io::read(stdin.as_fd(), &mut bytes[..]) {
            Ok(0) => break,
            Ok(count) => guardian.take(bytes.get(..count).unwrap_or_default()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    guardian.act();
    ExitCode::SUCCESS
}

#[derive(Default)]
struct Guardian {
    will: Will,
    sockets: BTreeMap<Exit, Socket>,
    netlink: Option<OwnedFd>,
}

impl Guardian {
    /// Takes a new will, and makes ready what it needs.
    fn take(&mut self, bytes: &[u8]) {
        let Some(will) = Will::parse(bytes) else { return };
        self.will = will;
        let wanted: Vec<Exit> = self.will.goodbyes.iter().map(exit).collect();
        self.sockets.retain(|exit, _| wanted.contains(exit));
        for exit in wanted {
            if self.sockets.contains_key(&exit) {
                continue;
            }
            let (interface, source, ttl) = exit;
            if let Ok(socket) = channels::raw(PROTOCOL_VRRP, interface, source, None, ttl) {
                // It only speaks.
                let _ = socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)]);
                self.sockets.insert(exit, socket);
            }
        }
        if self.netlink.is_none() {
            self.netlink = channels::netlink(0).ok();
        }
    }

    /// Does what is left to do. Goodbyes first: another router waits for them.
    fn act(&self) {
        for goodbye in &self.will.goodbyes {
            let Some(socket) = self.sockets.get(&exit(goodbye)) else { continue };
            let to = match goodbye.to {
                IpAddr::V4(to) => SocketAddr::V4(SocketAddrV4::new(to, 0)),
                IpAddr::V6(to) => SocketAddr::V6(SocketAddrV6::new(to, 0, 0, goodbye.interface)),
            };
            let _ = rustix::net::sendto(socket, &goodbye.bytes, SendFlags::NOSIGNAL, &to);
        }
        let Some(netlink) = &self.netlink else { return };
        for request in &self.will.requests {
            let _ = rustix::io::write(netlink, request);
        }
    }
}

const fn exit(goodbye: &Goodbye) -> Exit {
    (goodbye.interface, goodbye.source, goodbye.ttl)
}
