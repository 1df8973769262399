//! Channels, and what is told of the virtual routers that need them.

use std::net::{IpAddr, SocketAddr};

/// What a channel is. Interfaces are told by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelSpec {
    /// Packets of one IP protocol. IPv4 packets come and go with their headers; those of IPv6 go
    /// without, and do not come ([`ChannelSpec::Overhear`] brings them).
    RawIp {
        /// The protocol.
        protocol: u8,
        /// The interface.
        interface: u32,
        /// Where they come from; decides on the family.
        source: IpAddr,
        /// A group to be a member of.
        group: Option<IpAddr>,
        /// Hop limit of IPv6.
        ttl: u8,
    },
    /// IPv6 packets of one protocol as they come to an interface, with their headers.
    Overhear {
        /// The protocol.
        protocol: u8,
        /// The interface.
        interface: u32,
    },
    /// Whole frames to be sent.
    Frames {
        /// The interface.
        interface: u32,
        /// If it has a MAC of its own: the interface that it lies on, which must not answer for
        /// its addresses.
        below: Option<u32>,
    },
    /// The kernel's routing netlink.
    Netlink {
        /// Bits of the groups whose news come unasked.
        groups: u32,
    },
    /// A named pipe to write lines to; made if it is not there.
    Fifo {
        /// Where it is.
        path: String,
    },
    /// The content of a file, now and whenever it changes; empty if there is none.
    WatchFile {
        /// Which file.
        path: String,
        /// Bytes of it that are looked at.
        bytes_max: u32,
    },
    /// How many processes run a program, in decimal, now and whenever it changes.
    WatchProcess {
        /// Its name, or its path.
        program: String,
    },
    /// Datagrams to and from one address.
    Udp {
        /// Which.
        to: SocketAddr,
    },
    /// Echo requests to a host and its replies, ICMP or ICMPv6 messages without their IP header. The
    /// kernel fills in identifier and checksum.
    Ping {
        /// Which.
        to: IpAddr,
    },
    /// Who resets the TCP connections of addresses: takes orders (`vrrp::keeper::Order`), and answers
    /// each with its number when it is carried out, or cannot be.
    Resets,
    /// A process that outlives this one and acts on the last datagram then.
    Guardian,
}

impl ChannelSpec {
    /// Tells whether anything comes from such a channel.
    pub const fn is_read(&self) -> bool {
        match self {
            Self::RawIp { source, .. } => source.is_ipv4(),
            Self::Overhear { .. }
            | Self::Netlink { .. }
            | Self::WatchFile { .. }
            | Self::WatchProcess { .. }
            | Self::Udp { .. }
            | Self::Ping { .. }
            | Self::Resets
            | Self::Guardian => true,
            Self::Frames { .. } | Self::Fifo { .. } => false,
        }
    }
}

/// What can be wrong with a channel. Numbers are the operating system's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The kernel dropped datagrams that nobody read in time.
    Lost,
    /// A datagram was not sent.
    Unsent(i32),
    /// Nothing more will come: the other end is gone (0), or an error. To be closed.
    Ended(i32),
}

/// What happened to a virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouterNews {
    /// Its state changed.
    State {
        /// The new state, as keepalived writes it.
        state: &'static str,
        /// Why.
        cause: &'static str,
        /// Its priority.
        priority: u8,
    },
    /// Its effective priority changed.
    Priority(u8),
    /// A router of lower priority was Active too, and heard of us.
    LowerPriority,
    /// An advert did not count; the first of its kind since the state changed.
    Refused {
        /// The kind.
        kind: &'static str,
        /// The details.
        message: String,
    },
    /// An advert counts although its addresses differ from ours.
    AddressesDiffer {
        /// Who sent it.
        from: IpAddr,
    },
    /// Somebody removed a virtual address; it is put back.
    AddressLost(IpAddr),
    /// The kernel refused to add or remove an address or route.
    ChangeFailed {
        /// Which.
        what: String,
        /// The operating system's error number.
        errno: i32,
    },
    /// The virtual addresses were there from a process before us, and stay.
    Adopted,
    /// Its settings cannot be used.
    Unusable(String),
    /// An advert or announcement was not sent.
    Unsent(i32),
}
