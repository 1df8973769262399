//! Opens the channels of the worker that has the virtual routers: raw and packet sockets, netlink,
//! pipes, watches, and the guardian.
#![cfg(target_os = "linux")]

use std::ffi::c_int;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd as _, OwnedFd};

use ringkeeper_core::io::ChannelSpec;
use ringkeeper_core::wire::ip::{PROTOCOL_AH, PROTOCOL_VRRP};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockFilter, Socket, Type};

use crate::host::{guardian, reset, sys, watch};

/// Ethernet's number of IPv6.
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Traffic class of adverts: internetwork control.
const CLASS_CONTROL: u32 = 0xc0;

/// Bytes of news that may wait while nobody reads: a few thousand addresses.
const NETLINK_BYTES: usize = 1024 * 1024;

/// Instructions of a socket's filter, as `linux/bpf_common.h` numbers them.
mod code {
    pub(super) const LOAD_WORD: u16 = 0x20;
    pub(super) const LOAD_BYTE: u16 = 0x30;
    pub(super) const LOAD_BYTE_AT_INDEX: u16 = 0x50;
    /// Four times the lower half of the first byte, as an index.
    pub(super) const LOAD_HEADER_LENGTH: u16 = 0xb1;
    pub(super) const JUMP_EQUAL: u16 = 0x15;
    pub(super) const RETURN: u16 = 0x06;
    /// Where the kernel tells whether a packet came or went.
    pub(super) const PACKET_TYPE: u32 = 0xffff_f004;
    pub(super) const OUTGOING: u32 = 4;
}

/// Opens channels.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    guardians: guardian::Nursery,
}

impl Channels {
    /// Opens one.
    ///
    /// # Errors
    ///
    /// The system's; most often the right to do so is missing (CAP_NET_RAW, CAP_NET_ADMIN).
    pub(crate) fn open(&mut self, spec: &ChannelSpec) -> io::Result<OwnedFd> {
        match spec {
            ChannelSpec::RawIp { protocol, interface, source, group, ttl } => {
                raw(*protocol, *interface, *source, *group, *ttl).map(OwnedFd::from)
            }
            ChannelSpec::Overhear { protocol, interface } => {
                overhear(*protocol, *interface).map(OwnedFd::from)
            }
            ChannelSpec::Frames { interface, below } => {
                if let Some(below) = below {
                    set_apart(*interface, *below)?;
                }
                let socket = packet(Type::RAW)?;
                sys::bind_packet(socket.as_fd(), 0, *interface)?;
                Ok(socket.into())
            }
            ChannelSpec::Netlink { groups } => netlink(*groups),
            ChannelSpec::Fifo { path } => fifo(path),
            ChannelSpec::WatchFile { path, bytes_max } => watch::file(path, *bytes_max),
            ChannelSpec::WatchProcess { program } => watch::process(program),
            ChannelSpec::Udp { to } => udp(*to).map(OwnedFd::from),
            ChannelSpec::Ping { to } => ping(*to).map(OwnedFd::from),
            ChannelSpec::Resets => reset::start(),
            ChannelSpec::Guardian => self.guardians.spawn(),
        }
    }
}

/// Opens a socket for one IP protocol on one interface.
pub(crate) fn raw(
    protocol: u8,
    interface: u32,
    source: IpAddr,
    group: Option<IpAddr>,
    ttl: u8,
) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(source, 0));
    let protocol_number = protocol;
    let protocol = Protocol::from(c_int::from(protocol));
    let socket = Socket::new_raw(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    let name = netdevice::index_to_name(&socket, interface)?;
    socket.bind_device(Some(name.as_bytes()))?;
    match source {
        IpAddr::V4(_) => {
            socket.set_header_included_v4(true)?;
            socket.set_multicast_all_v4(false)?;
            socket.set_multicast_loop_v4(false)?;
            if protocol_number == PROTOCOL_AH {
                // Of what is authenticated only adverts are of interest, not a whole tunnel.
                socket.attach_filter(&[
                    SockFilter::new(code::LOAD_HEADER_LENGTH, 0, 0, 0),
                    SockFilter::new(code::LOAD_BYTE_AT_INDEX, 0, 0, 0),
                    SockFilter::new(code::JUMP_EQUAL, 0, 1, u32::from(PROTOCOL_VRRP)),
                    SockFilter::new(code::RETURN, 0, 0, u32::MAX),
                    SockFilter::new(code::RETURN, 0, 0, 0),
                ])?;
            }
            if let Some(IpAddr::V4(group)) = group {
                socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface))?;
            }
        }
        IpAddr::V6(source) => {
            // What comes is heard with its header elsewhere.
            socket.attach_filter(&[SockFilter::new(code::RETURN, 0, 0, 0)])?;
            socket.set_multicast_all_v6(false)?;
            socket.set_multicast_loop_v6(false)?;
            socket.set_multicast_if_v6(interface)?;
            socket.set_multicast_hops_v6(u32::from(ttl))?;
            socket.set_unicast_hops_v6(u32::from(ttl))?;
            socket.set_tclass_v6(CLASS_CONTROL)?;
            if let Some(IpAddr::V6(group)) = group {
                socket.join_multicast_v6(&group, interface)?;
            }
            socket.bind(&SocketAddrV6::new(source, 0, 0, interface).into())?;
        }
    }
    Ok(socket)
}

fn packet(kind: Type) -> io::Result<Socket> {
    // Protocol 0: nothing comes before it is bound, and nothing at all if it is bound to none.
    let socket = Socket::new_raw(Domain::PACKET, kind, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn overhear(protocol: u8, interface: u32) -> io::Result<Socket> {
    let socket = packet(Type::DGRAM)?;
    socket.attach_filter(&[
        SockFilter::new(code::LOAD_WORD, 0, 0, code::PACKET_TYPE),
        SockFilter::new(code::JUMP_EQUAL, 3, 0, code::OUTGOING),
        // The next header of IPv6.
        SockFilter::new(code::LOAD_BYTE, 0, 0, 6),
        SockFilter::new(code::JUMP_EQUAL, 0, 1, u32::from(protocol)),
        SockFilter::new(code::RETURN, 0, 0, u32::MAX),
        SockFilter::new(code::RETURN, 0, 0, 0),
    ])?;
    sys::bind_packet(socket.as_fd(), ETHERTYPE_IPV6, interface)?;
    Ok(socket)
}

/// Opens a socket of the kernel's routing netlink.
pub(crate) fn netlink(groups: u32) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        // Its first protocol, which is routing.
        None,
    )?;
    // Less is no failure: what is lost is asked for again.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, NETLINK_BYTES)
        .or_else(|_| rustix::net::sockopt::set_socket_recv_buffer_size(&socket, NETLINK_BYTES));
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Opens a named pipe so that lines go into it whether or not somebody reads.
fn fifo(path: &str) -> io::Result<OwnedFd> {
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let pipe = rustix::fs::open(path, flags, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&pipe)?.st_mode);
    if kind != FileType::Fifo {
        return Err(io::Error::from_raw_os_error(libc::EEXIST));
    }
    Ok(pipe)
}

/// Opens a socket for datagrams to and from one address.
fn udp(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.connect(&to.into())?;
    Ok(socket)
}

/// Opens a socket for echo requests: one that needs no rights where the system lets this group
/// have it, else a raw one.
fn ping(to: IpAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(to, 0));
    let protocol = if to.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))
        .or_else(|_| Socket::new_raw(domain, Type::RAW, Some(protocol)))?;
    socket.set_nonblocking(true)?;
    socket.connect(&SocketAddr::new(to, 0).into())?;
    Ok(socket)
}

/// Has the addresses of an interface with a virtual MAC answered for by that interface alone.
fn set_apart(interface: u32, below: u32) -> io::Result<()> {
    let socket = packet(Type::RAW)?;
    let set = |index: u32, key: &str, value: &str| {
        let name = netdevice::index_to_name(&socket, index)?;
        fs::write(format!("/proc/sys/net/ipv4/conf/{name}/{key}"), value)
    };
    set(below, "arp_ignore", "1")?;
    set(interface, "arp_ignore", "1")?;
    set(interface, "arp_filter", "0")?;
    set(interface, "accept_local", "1")?;
    set(interface, "rp_filter", "0")
}
