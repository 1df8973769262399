//! A process that outlives the one that has the virtual routers, however that one ends.
//!
//! It holds sockets and packets that are ready. When the thread that started it is gone, or its
//! connection ends, it says goodbye for the dead, resets the connections of its addresses, removes
//! the addresses and ends. Whoever leaves in order sends an empty will before.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use ringkeeper_core::vrrp::keeper::{Goodbye, Will};
use ringkeeper_core::wire::ip::PROTOCOL_VRRP;
use ringkeeper_core::wire::netlink::{self, News};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::process::{PidfdFlags, Signal, getppid, pidfd_open, set_parent_process_death_signal};
use socket2::{SockFilter, Socket};

use crate::host::channels;
use crate::host::reset::{ENDING_MAX, Resets};
use crate::host::sys::SignalSet;

/// The name that the process goes by.
pub(crate) const NAME: &str = "ringkeeper-guardian";

/// Bytes of the largest will: hundreds of addresses.
const WILL_BYTES_MAX: usize = 256 * 1024;

/// Starts guardians, on a thread that does nothing else.
///
/// When this process is killed the kernel closes its sockets and rings one after the other, which
/// takes up to tens of milliseconds, and only then is the end of a connection heard. A thread that
/// has none of that is gone at once, and its children are told so.
#[derive(Debug, Default)]
pub(crate) struct Nursery {
    asked: Option<mpsc::Sender<mpsc::Sender<io::Result<OwnedFd>>>>,
}

impl Nursery {
    /// Starts a guardian; returns our end of the connection.
    ///
    /// # Errors
    ///
    /// The system refuses a process, a thread or descriptors.
    pub(crate) fn spawn(&mut self) -> io::Result<OwnedFd> {
        if self.asked.is_none() {
            let (sender, asked) = mpsc::channel::<mpsc::Sender<io::Result<OwnedFd>>>();
            std::thread::Builder::new().name("rk-nursery".to_owned()).spawn(move || {
                let mut guardians: Vec<Child> = Vec::new();
                while let Ok(answer) = asked.recv() {
                    guardians.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
                    let spawned = spawn().map(|(child, ours)| {
                        guardians.push(child);
                        ours
                    });
                    let _ = answer.send(spawned);
                }
            })?;
            self.asked = Some(sender);
        }
        let gone = || io::Error::other("the thread that starts guardians is gone");
        let (sender, answer) = mpsc::channel();
        self.asked.as_ref().ok_or_else(gone)?.send(sender).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

fn spawn() -> io::Result<(Child, OwnedFd)> {
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

/// Watches until the one that is guarded is gone.
pub(crate) fn main() -> ExitCode {
    // It ends when the one that it guards has ended, not before.
    let signals = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE];
    let _ = SignalSet::new(&signals).block();
    // As lists of processes show it; it was started through a link.
    let _ = std::fs::write("/proc/self/comm", "rk-guardian");
    let death = SignalSet::new(&[libc::SIGUSR2]);
    let _ = death.block();
    let _ = set_parent_process_death_signal(Some(Signal::USR2));
    let guarded = getppid().and_then(|parent| pidfd_open(parent, PidfdFlags::empty()).ok());
    let guardian = Guardian { guarded, ..Guardian::default() };
    let guardian = Arc::new(Mutex::new(guardian));
    let readers = Arc::clone(&guardian);
    let reader = std::thread::Builder::new().name("rk-will".to_owned());
    if reader.spawn(move || read_wills(&readers)).is_err() {
        return ExitCode::FAILURE;
    }
    loop {
        if let Ok(Some(_)) = death.wait(LONG) {
            leave(&guardian);
        }
    }
}

/// Any time: nothing depends on it.
const LONG: Duration = Duration::from_secs(3600);

fn lock(guardian: &Mutex<Guardian>) -> MutexGuard<'_, Guardian> {
    guardian.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does what is left to do by the last will, and ends.
fn leave(guardian: &Mutex<Guardian>) -> ! {
    let mut guardian = lock(guardian);
    // Whoever left in order said so, and may have been quicker to end than we to read.
    guardian.read();
    guardian.act();
    std::process::exit(0)
}

/// Takes wills in until the other end is closed.
fn read_wills(guardian: &Mutex<Guardian>) {
    let stdin = io::stdin();
    loop {
        let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
        let _ = poll(&mut polled, None);
        if lock(guardian).read() {
            leave(guardian);
        }
    }
}

#[derive(Default)]
struct Guardian {
    will: Will,
    sockets: BTreeMap<Exit, Socket>,
    netlink: Option<OwnedFd>,
    /// What tells other ends of connections; none where the kernel does not have it.
    resets: Option<Resets>,
    /// The process that is guarded.
    guarded: Option<OwnedFd>,
}

impl Guardian {
    /// Takes in what waits; tells whether nothing more will come.
    fn read(&mut self) -> bool {
        let stdin = io::stdin();
        let mut bytes = vec![0; WILL_BYTES_MAX];
        loop {
            match rustix::io::read(stdin.as_fd(), &mut bytes[..]) {
                Ok(0) => return true,
                Ok(count) => self.take(bytes.get(..count).unwrap_or_default()),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return false,
                Err(_) => return true,
            }
        }
    }

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
            self.resets = Resets::open().ok();
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
        self.end_connections();
        let Some(netlink) = &self.netlink else { return };
        for request in &self.will.requests {
            let _ = rustix::io::write(netlink, request);
        }
    }

    /// Has clients told that their connections have ended. It has to be before the addresses go:
    /// nothing leaves from an address that is not there, and whoever waits for a reply would wait
    /// for ever.
    fn end_connections(&self) {
        let gone = |news| {
            let News::AddressGone(one) = news else { return None };
            Some(one.address)
        };
        let requests = self.will.requests.iter();
        let messages = requests.flat_map(|request| netlink::messages(request));
        let addresses: Vec<IpAddr> = messages.filter_map(|one| gone(one.news)).collect();
        if addresses.is_empty() {
            return;
        }
        match (&self.resets, &self.guarded) {
            (Some(resets), _) => {
                // Those that are left when the time is over are told by the next router, when they
                // send something.
                let _ = resets.reset(&addresses, Instant::now() + ENDING_MAX);
            }
            (None, Some(guarded)) => {
                // At its end the kernel closes its connections, which is told, too.
                let limit = Timespec::try_from(ENDING_MAX).unwrap_or_default();
                let _ = poll(&mut [PollFd::new(guarded, PollFlags::IN)], Some(&limit));
            }
            (None, None) => {}
        }
    }
}

const fn exit(goodbye: &Goodbye) -> Exit {
    (goodbye.interface, goodbye.source, goodbye.ttl)
}
