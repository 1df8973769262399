//! Names of things that cross the border. Integers of different meaning are different types.

use std::fmt;

/// Bits of a [`ConnId`] that hold the index into the worker's table.
pub const CONN_INDEX_BITS: u32 = 24;

/// Names one connection of one worker: a 24-bit index and a 32-bit generation.
///
/// The worker issues it; a completion that comes after the slot was used again finds nobody,
/// because the generation differs. The top byte of [`ConnId::to_bits`] is always zero, so a
/// runtime may keep its kind of operation there (io_uring's `user_data`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// The index bit that marks a connection to a server: clients and servers have tables of
    /// their own, so a full house of clients never takes the slot that reaches a server.
    const SERVER_BIT: u32 = 1 << (CONN_INDEX_BITS - 1);

    /// Most connections of one kind that a worker can name.
    pub const INDEX_MAX: u32 = Self::SERVER_BIT - 1;

    /// Names the client connection at `index`.
    pub const fn client(index: u32, generation: u32) -> Self {
        Self::new(index & Self::INDEX_MAX, generation)
    }

    /// Names the server connection at `index`.
    pub const fn server(index: u32, generation: u32) -> Self {
        Self::new(index & Self::INDEX_MAX | Self::SERVER_BIT, generation)
    }

    const fn new(index: u32, generation: u32) -> Self {
        Self((generation as u64) << CONN_INDEX_BITS | index as u64)
    }

    /// Takes the name back from [`ConnId::to_bits`]; the top byte is ignored.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & (u64::MAX >> 8))
    }

    /// Returns the name as 56 bits.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Tells whether this is a connection to a server.
    pub const fn is_server(self) -> bool {
        self.0 & Self::SERVER_BIT as u64 != 0
    }

    /// Returns the index in the table of its kind.
    #[expect(clippy::cast_possible_truncation, reason = "masked to 23 bits")]
    pub const fn index(self) -> u32 {
        (self.0 & Self::INDEX_MAX as u64) as u32
    }

    /// Returns an index that is unique over both kinds, below 2^24: what a runtime's own table
    /// may use.
    pub const fn slot(self) -> u32 {
        (self.0 & ((1 << CONN_INDEX_BITS) - 1)) as u32
    }

    /// Returns how often the slot had been used before.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the top byte is zero, so 32 bits are left"
    )]
    pub const fn generation(self) -> u32 {
        (self.0 >> CONN_INDEX_BITS) as u32
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_server() { "server" } else { "client" };
        write!(f, "{kind}#{}.{}", self.index(), self.generation())
    }
}

/// Names a listening socket; the host opens it and tells the worker which pool it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u16);

/// Names a question to the resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u32);

/// A pool's position in the configuration, pools sorted as twemproxy sorts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u16);

/// A server's position in its pool, servers sorted as twemproxy sorts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u16);

/// Names a change that has to become durable; a worker's tickets rise in the order in which it
/// asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names a channel: a socket or pipe without connections. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u32);

/// Names a program that runs for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Names a worker of this process; those with clients are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_way_through_user_data() {
        let names = [
            ConnId::client(0, 0),
            ConnId::client(ConnId::INDEX_MAX, u32::MAX),
            ConnId::server(7, 9),
        ];
        for name in names {
            assert_eq!(ConnId::from_bits(name.to_bits() | 0xab << 56), name);
            assert_eq!(name.to_bits() >> 56, 0);
        }
        assert!(!ConnId::client(ConnId::INDEX_MAX, 1).is_server());
        assert!(ConnId::server(0, 1).is_server());
        assert_ne!(ConnId::server(3, 1).slot(), ConnId::client(3, 1).slot());
    }
}
