//! Virtual servers of a `keepalived.conf` that need no relay: the pool that is their only server
//! listens on their address itself.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;

use ringkeeper_core::balance;
use ringkeeper_core::config::keepalived::VirtualServer;
use ringkeeper_core::config::nutcracker::{Config, ListenAddress, Pool};
use ringkeeper_core::wire::netlink::{News, dump_addresses, messages};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};

use crate::host::channels;
use crate::host::reason;
use crate::host::sockets::Direct;

/// Bytes of one answer of the kernel; it sends at most 32 KiB at a time.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How long the kernel may take for a part of its list. It needs microseconds.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Parts virtual servers into addresses at which pools listen themselves, and those that are
/// relayed.
pub(crate) fn part(
    services: Vec<VirtualServer>,
    pools: &Config,
) -> (Vec<Direct>, Vec<VirtualServer>) {
    if services.is_empty() {
        return (Vec::new(), services);
    }
    let here = match addresses() {
        Ok(here) => here,
        Err(error) => {
            let why = reason(&error);
            tracing::warn!("this host's addresses are not known, all is relayed: {why}");
            BTreeSet::new()
        }
    };
    let own = |at: SocketAddr| {
        let mut pools = pools.pools.iter();
        pools.find(|pool| listens_at(pool, at, &here)).map(|pool| pool.name.clone())
    };
    let (direct, relayed) = balance::part(services, own);
    // A pool that listens on all addresses has this one already.
    let is_new = |(at, name): &(SocketAddr, String)| {
        let pool = pools.pools.iter().find(|pool| pool.name == *name);
        !pool.is_some_and(|pool| covers(pool, *at))
    };
    let direct = direct.into_iter().filter(is_new).map(|(at, pool)| Direct { at, pool });
    (direct.collect(), relayed)
}

/// Tells whether who connects to an address gets to the pool.
fn listens_at(pool: &Pool, at: SocketAddr, here: &BTreeSet<IpAddr>) -> bool {
    let is_here = at.ip().is_loopback() || here.contains(&at.ip());
    covers(pool, at) && (is_here || place(pool) == Some(at))
}

/// Tells whether a pool listens on an address, if this host has it.
fn covers(pool: &Pool, at: SocketAddr) -> bool {
    let Some(place) = place(pool) else { return false };
    let is_every = match (place.ip(), at.ip()) {
        (IpAddr::V4(any), IpAddr::V4(_)) => any.is_unspecified(),
        (IpAddr::V6(any), _) => any.is_unspecified(),
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    };
    place.port() == at.port() && (is_every || place.ip() == at.ip())
}

/// Returns where a pool listens; none if that is a name or a path.
pub(super) fn place(pool: &Pool) -> Option<SocketAddr> {
    match &pool.listen.address {
        ListenAddress::Tcp(at) => Some(SocketAddr::new(at.host.parse().ok()?, at.port)),
        ListenAddress::Unix { .. } => None,
    }
}

/// Returns the addresses of this host.
fn addresses() -> io::Result<BTreeSet<IpAddr>> {
    const NUMBER: u32 = 1;
    let socket = channels::netlink(0)?;
    rustix::net::send(&socket, &dump_addresses(NUMBER), SendFlags::empty())?;
    let mut found = BTreeSet::new();
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let mut wanted = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
        if poll(&mut wanted, Some(&PATIENCE))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (length, _) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
        let part = answer.get(..length).unwrap_or_default();
        for message in messages(part).filter(|message| message.request == NUMBER) {
            match message.news {
                News::Address(address) => drop(found.insert(address.address)),
                News::Done(0) | News::Answer(0) => return Ok(found),
                News::Done(errno) | News::Answer(errno) => {
                    return Err(io::Error::from_raw_os_error(errno.abs()));
                }
                News::Link(_) | News::LinkGone(_) | News::AddressGone(_) | News::Other => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringkeeper_core::config::{keepalived, nutcracker};

    use super::*;

    fn parts(listen: &str, real: &str, more: &str) -> (Vec<SocketAddr>, usize) {
        let pools =
            format!("alpha:\n  listen: {listen}\n  redis: true\n  servers:\n   - 10.9.9.9:1:1\n");
        let pools = nutcracker::parse("n", &pools).config.unwrap();
        let text = format!(
            "virtual_server 192.0.2.9 6379 {{\n protocol TCP\n {more}\n real_server {real} {{\n \
             TCP_CHECK {{ }}\n }}\n}}\n"
        );
        let config = keepalived::parse(&text, "host").config.unwrap();
        let (direct, relayed) = part(config.virtual_servers, &pools);
        assert!(direct.iter().all(|one| one.pool == "alpha"));
        (direct.into_iter().map(|one| one.at).collect(), relayed.len())
    }

    #[test]
    fn the_addresses_of_this_host_are_known() {
        assert!(addresses().unwrap().contains(&IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn a_pool_that_is_the_only_server_has_the_virtual_address_itself() {
        let at = vec!["192.0.2.9:6379".parse().unwrap()];
        assert_eq!(parts("0.0.0.0:22121", "127.0.0.1 22121", ""), (at.clone(), 0));
        assert_eq!(parts("127.0.0.1:22121", "127.0.0.1 22121", ""), (at, 0));
        // Somebody else, another port, and what only a relay can do.
        assert_eq!(parts("0.0.0.0:22121", "192.0.2.1 22121", ""), (vec![], 1));
        assert_eq!(parts("0.0.0.0:22121", "127.0.0.1 22122", ""), (vec![], 1));
        let sorry = "sorry_server 192.0.2.7 1";
        assert_eq!(parts("0.0.0.0:22121", "127.0.0.1 22121", sorry), (vec![], 1));
    }

    #[test]
    fn a_pool_on_all_addresses_needs_no_other_socket() {
        assert_eq!(parts("0.0.0.0:6379", "127.0.0.1 6379", ""), (vec![], 0));
    }
}
