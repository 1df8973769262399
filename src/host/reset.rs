//! Resets the TCP connections of an address that is about to go.
#![cfg(target_os = "linux")]

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use ringkeeper_core::wire::netlink::sockets::{
    Answer, Family, answers, dump_connections, probe_reset, reset_connection,
};
use rustix::io::Errno;
use rustix::net::netlink::SOCK_DIAG;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Bytes of one answer of the kernel's: it fills what it is given, up to this.
const ANSWER_BYTES: usize = 32 * 1024;

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
        for family in [Family::V4, Family::V6] {
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
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}
