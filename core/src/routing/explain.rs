//! Why a key goes where it goes, for operators.

use crate::distribution::ketama::Point;
use crate::id::ServerId;

/// How a key found its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteExplanation<'k> {
    /// The part of the key that is hashed.
    pub hashed: &'k [u8],
    /// What decided.
    pub reason: RouteReason,
}

/// What decided on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteReason {
    /// No server of the pool is live.
    Nobody,
    /// One server of the pool is live; nothing is hashed.
    Only {
        /// That server.
        server: ServerId,
    },
    /// ketama: the first point at or after the hash, or the first one of all when there is none.
    Point {
        /// The hash of the hashed part.
        hash: u32,
        /// The point and its owner.
        point: Point,
        /// How many points the ring has.
        points: usize,
    },
    /// modula: the remainder of the hash.
    Slot {
        /// The hash of the hashed part.
        hash: u32,
        /// The remainder.
        slot: u64,
        /// The divisor: the total weight of the live servers.
        slots: u64,
        /// Whose slot it is.
        server: ServerId,
    },
    /// random: each request draws one of the live servers.
    Chance {
        /// How many are live.
        servers: usize,
    },
}

impl RouteExplanation<'_> {
    /// Returns the server; none when nobody is live or chance decides.
    pub const fn server(&self) -> Option<ServerId> {
        match self.reason {
            RouteReason::Nobody | RouteReason::Chance { .. } => None,
            RouteReason::Only { server } | RouteReason::Slot { server, .. } => Some(server),
            RouteReason::Point { point, .. } => Some(point.server),
        }
    }

    /// Returns the hash; none when the decision needs none.
    pub const fn hash(&self) -> Option<u32> {
        match self.reason {
            RouteReason::Nobody | RouteReason::Only { .. } | RouteReason::Chance { .. } => None,
            RouteReason::Point { hash, .. } | RouteReason::Slot { hash, .. } => Some(hash),
        }
    }
}
