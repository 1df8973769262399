//! Resets the TCP connections of an address that is about to go: the guardian does so when the
//! process has died, a thread when it is alive.
#![cfg(target_os = "linux")]

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ringkeeper_core::vrrp::keeper::Order;
use ringkeeper_core::wire::netlink::sockets::{
    Answer, Family, answers, dump_connections, probe_reset, reset_connection,
};
use rustix::io::Errno;
use rustix::net::netlink::SOCK_DIAG;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::host::reason;

/// Bytes of one answer of the kernel's: it fills what it is given, up to this.
const ANSWER_BYTES: usize = 32 * 1024;

/// How long addresses may stay for it: another router may answer for them by then. In this time some
/// thousand connections are reset.
pub(crate) const ENDING_MAX: Duration = Duration::from_millis(10);

/// Bytes of the largest order: hundreds of addresses.
const ORDER_BYTES_MAX: usize = 64 * 1024;

/// Two sockets of the kernel's list of sockets.
#[derive(Debug)]
pub(crate) struct Resets {
    list: OwnedFd,
    /// Refusals pile up here and are never read: a connection may end by itself meanwhile.
    orders: OwnedFd,
}

fn open() -> io::Result<OwnedFd> {
    // What is asked is answered within the call, so nobody ever waits.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let protocol = Some(SOCK_DIAG);
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol);
    Ok(socket?)
}

impl Resets {
    /// Opens them.
    ///
    /// # Errors
    ///
    /// The kernel was built without it (CONFIG_INET_DIAG_DESTROY), or the right to do so is missing
    /// (CAP_NET_ADMIN).
    pub(crate) fn open() -> io::Result<Self> {
        let resets = Self { list: open()?, orders: open()? };
        rustix::io::write(&resets.list, &probe_reset(1))?;
        let mut bytes = [0; 256];
        let count = rustix::io::read(&resets.list, &mut bytes)?;
        let answer = answers(bytes.get(..count).unwrap_or_default()).next();
        let Some(Answer::Result(error)) = answer else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let is_missing = error == Errno::NOENT.raw_os_error();
        if is_missing { Ok(resets) } else { Err(io::Error::from_raw_os_error(error)) }
    }

    /// Resets all connections whose address on this host is one of these, until there are no more
    /// or the time is over. Whose they are does not count: whoever waits at the other end waits in
    /// vain when the address is gone.
    pub(crate) fn reset(&self, addresses: &[IpAddr], until: Instant) -> io::Result<()> {
        let has_v4 = addresses.iter().any(IpAddr::is_ipv4);
        // A socket of IPv6 may have a connection of IPv4, not the other way round.
        for family in [Family::V4, Family::V6].into_iter().skip(usize::from(!has_v4)) {
            // A list is asked for in pieces; the next one is made while this one is read.
            rustix::io::write(&self.list, &dump_connections(1, family))?;
            self.reset_listed(addresses, until)?;
        }
        Ok(())
    }

    fn reset_listed(&self, addresses: &[IpAddr], until: Instant) -> io::Result<()> {
        let mut bytes = vec![0; ANSWER_BYTES];
        while Instant::now() < until {
            let count = rustix::io::read(&self.list, &mut bytes[..])?;
            let mut orders = Vec::new();
            let mut is_over = false;
            for answer in answers(bytes.get(..count).unwrap_or_default()) {
                match answer {
                    Answer::Connection(one) if addresses.contains(&one.own) => {
                        orders.extend(reset_connection(2, &one));
                    }
                    Answer::Done | Answer::Result(_) => is_over = true,
                    Answer::Connection(_) | Answer::Other => {}
                }
            }
            if !orders.is_empty() {
                rustix::io::write(&self.orders, &orders)?;
            }
            if is_over {
                return Ok(());
            }
            // Whoever sends adverts may have the same real-time priority, and one processor only.
            std::thread::yield_now();
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// Starts a thread that obeys orders; returns the end of the connection that they are given to. The
/// thread has the caller's priority: what it does is awaited with the address still here.
///
/// # Errors
///
/// The system refuses a thread or descriptors.
pub(crate) fn start() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let (ours, theirs) = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let body = move || obey(&theirs);
    std::thread::Builder::new().name("rk-resets".to_owned()).spawn(body)?;
    Ok(ours)
}

/// Obeys orders until the other end is closed.
fn obey(orders: &OwnedFd) {
    // Ready before it is needed.
    let mut resets = match Resets::open() {
        Ok(resets) => Some(resets),
        Err(error) => {
            let why = reason(&error);
            tracing::warn!(
                "connections of a virtual address that leaves can't be reset: {why}; clients that \
                 wait for replies learn by their own time-outs (CONFIG_INET_DIAG_DESTROY, \
                 CAP_NET_ADMIN)"
            );
            None
        }
    };
    let can_reset = resets.is_some();
    let mut bytes = vec![0; ORDER_BYTES_MAX];
    loop {
        let count = match rustix::io::read(orders, &mut bytes[..]) {
            Ok(0) => return,
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(_) => return,
        };
        let Some(order) = Order::parse(bytes.get(..count).unwrap_or_default()) else { continue };
        if let Some(resets) = &resets {
            // Those that are left when the time is over are told by the next router, when they send
            // something.
            let _ = resets.reset(&order.addresses, Instant::now() + ENDING_MAX);
        }
        if rustix::io::write(orders, &order.answer()).is_err() {
            return;
        }
        if can_reset {
            // A list that was not read to its end, and refusals, go with the sockets.
            resets = Resets::open().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Returns both ends of a connection to an address of this host.
    fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn is_reset(client: &mut TcpStream) -> bool {
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let error = client.read(&mut [0]).expect_err("nothing was sent");
        error.kind() == io::ErrorKind::ConnectionReset
    }

    fn has_rights() -> bool {
        Resets::open()
            .inspect_err(|error| eprintln!("skipped: connections can't be reset: {error}"))
            .is_ok()
    }

    #[test]
    fn an_order_resets_the_connections_of_its_addresses_and_no_others() {
        if !has_rights() {
            return;
        }
        let orders = start().unwrap();
        rustix::io::ioctl_fionbio(&orders, false).unwrap();
        // The second order is as good as the first.
        for number in [7, 8] {
            let (mut gone, _server) = pair("127.0.9.9");
            let (mut other, mut served) = pair("127.0.9.8");
            let addresses = vec!["127.0.9.9".parse().unwrap()];
            let order = Order { number, addresses };
            rustix::io::write(&orders, &order.encode()).unwrap();
            let mut answer = [0; 8];
            let count = rustix::io::read(&orders, &mut answer).unwrap();
            assert_eq!(answer[..count], order.answer());
            assert!(is_reset(&mut gone));
            io::Write::write_all(&mut served, b"x").unwrap();
            assert_eq!(other.read(&mut [0]).unwrap(), 1);
        }
    }
}
