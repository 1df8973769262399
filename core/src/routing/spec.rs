//! What the configuration says about the routes of a pool.

use std::cmp::Ordering;
use std::num::NonZeroU32;

use super::HashTag;
use crate::distribution::{Distribution, Member};
use crate::hash::Hash;
use crate::id::ServerId;
use crate::limits::SERVERS_PER_POOL_MAX;

/// What the configuration says about the routes of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// The hash function for keys.
    pub hash: Hash,
    /// Which part of a key is hashed; none hashes all of it.
    pub hash_tag: Option<HashTag>,
    /// How a hash becomes a server.
    pub distribution: Distribution,
    /// The servers in [`server_order`], at most
    /// [`SERVERS_PER_POOL_MAX`](crate::limits::SERVERS_PER_POOL_MAX). The order in the
    /// configuration does not matter to twemproxy; this one decides.
    pub servers: Vec<RouteServer>,
}

/// A server, as far as routes depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteServer {
    /// What places it on the ring: its own name, else `host:port`, else just `host` when the port
    /// is 11211. It stays the same when the server's address changes.
    pub name: String,
    /// Its share of the keys.
    pub weight: NonZeroU32,
}

impl RouteSpec {
    /// Puts the servers into the order that decides.
    pub fn sort_servers(&mut self) {
        self.servers.sort_by(|a, b| server_order(&a.name, &b.name));
    }

    /// Returns a value that stands for the names of all servers, in order.
    pub(super) fn names(&self) -> u64 {
        self.servers.iter().fold(self.servers.len() as u64, |names, server| {
            xxhash_rust::xxh3::xxh3_64_with_seed(server.name.as_bytes(), names)
        })
    }

    /// Returns the live servers.
    pub(super) fn members(&self, live: &[bool]) -> Vec<Member<'_>> {
        assert!(self.servers.len() <= SERVERS_PER_POOL_MAX, "the configuration refuses more");
        debug_assert!(
            self.servers.is_sorted_by(|a, b| server_order(&a.name, &b.name).is_le()),
            "positions are those of the sorted list"
        );
        (0..)
            .zip(&self.servers)
            .zip(live)
            .filter(|(_, is_live)| **is_live)
            .map(|((id, server), _)| Member {
                id: ServerId(id),
                name: &server.name,
                weight: server.weight,
            })
            .collect()
    }
}

/// Compares two names of servers or of pools as twemproxy sorts them: the shorter first, then
/// bytewise.
pub fn server_order(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}
