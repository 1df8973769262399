//! Which server of a pool a key belongs to.
//!
//! A [`RouteSpec`] is what the configuration says; a [`RouteTable`] is that with some servers
//! ejected, ready for lookups. A table is never changed: ejecting, returning or reloading makes
//! another one with a higher epoch.

mod explain;
mod hash_tag;
mod spec;

pub use self::explain::{RouteExplanation, RouteReason};
pub use self::hash_tag::HashTag;
pub use self::spec::{RouteServer, RouteSpec, server_order};

use crate::distribution::ketama::{Ring, point_counts};
use crate::distribution::modula::Slots;
use crate::distribution::random::Choices;
use crate::distribution::{Distribution, Member};
use crate::hash::Hash;
use crate::id::ServerId;
use crate::rng::Rng;

/// The routes of one pool at one moment, immutable; share it in an `Arc`.
#[derive(Clone, Debug)]
pub struct RouteTable {
    epoch: u64,
    hash: Hash,
    hash_tag: Option<HashTag>,
    dispatch: Dispatch,
    points_per_server: Box<[u32]>,
    /// Stands for the names of all servers, in order.
    names: u64,
}

#[derive(Clone, Debug)]
enum Dispatch {
    /// Nobody is live.
    Nobody,
    /// One server is live: every key is its, and nothing needs hashing.
    Only(ServerId),
    Ketama(Ring),
    Modula(Slots),
    Random(Choices),
}

impl RouteTable {
    /// Builds the table of a pool whose servers are live where `live` says so.
    ///
    /// `live` has one entry for each server of `spec`, in the same order. A ketama ring costs one
    /// MD5 per four points, so 40 per server.
    pub fn build(spec: &RouteSpec, live: &[bool], epoch: u64) -> Self {
        Self::assemble(spec, live, epoch, &Ring::default())
    }

    /// Returns what [`RouteTable::build`] would, cheaper when this table is of the same pool: what
    /// a worker calls in its turn when a server is ejected or returns.
    ///
    /// A table of other servers is noticed and costs as much as building. On a busy two-core
    /// machine `cargo bench -p ringkeeper-benches --bench routing build` gave 0.5 ms to build and
    /// 0.05 ms to rebuild for 40 servers, 13 ms and 2 ms for 1,000.
    pub fn rebuild(&self, spec: &RouteSpec, live: &[bool], epoch: u64) -> Self {
        if let Dispatch::Ketama(ring) = &self.dispatch
            && self.names == spec.names()
        {
            Self::assemble(spec, live, epoch, ring)
        } else {
            Self::build(spec, live, epoch)
        }
    }

    fn assemble(spec: &RouteSpec, live: &[bool], epoch: u64, before: &Ring) -> Self {
        assert_eq!(spec.servers.len(), live.len(), "one flag for each server");
        let members = spec.members(live);
        let dispatch = match (members.as_slice(), spec.distribution) {
            ([], _) => Dispatch::Nobody,
            ([only], _) => Dispatch::Only(only.id),
            (members, Distribution::Ketama) => Dispatch::Ketama(before.rebuild(members)),
            (members, Distribution::Modula) => Dispatch::Modula(Slots::build(members)),
            (members, Distribution::Random) => Dispatch::Random(Choices::build(members)),
        };
        Self {
            epoch,
            hash: spec.hash,
            hash_tag: spec.hash_tag,
            dispatch,
            points_per_server: points_per_server(spec, &members),
            names: spec.names(),
        }
    }

    /// Returns the epoch that the table was built with: of two tables of a pool the one with the
    /// higher epoch counts.
    #[inline]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the server of a key; none when nobody is live. Only the random distribution draws
    /// from `rng`.
    #[inline]
    pub fn route(&self, key: &[u8], rng: &mut Rng) -> Option<ServerId> {
        match &self.dispatch {
            Dispatch::Nobody => None,
            Dispatch::Only(server) => Some(*server),
            Dispatch::Ketama(ring) => ring.server_at(self.hash_of(self.hashed_part(key))),
            Dispatch::Modula(slots) => slots.server_at(self.hash_of(self.hashed_part(key))),
            Dispatch::Random(choices) => choices.draw(rng),
        }
    }

    /// Tells how [`RouteTable::route`] comes to its answer, for operators.
    pub fn explain<'k>(&self, key: &'k [u8]) -> RouteExplanation<'k> {
        let hashed = self.hashed_part(key);
        let hash = self.hash_of(hashed);
        let reason = match &self.dispatch {
            Dispatch::Nobody => RouteReason::Nobody,
            Dispatch::Only(server) => RouteReason::Only { server: *server },
            Dispatch::Ketama(ring) => match ring.point_at(hash) {
                Some(point) => RouteReason::Point { hash, point, points: ring.len() },
                None => RouteReason::Nobody,
            },
            Dispatch::Modula(slots) => match (slots.slot_at(hash), slots.server_at(hash)) {
                (Some(slot), Some(server)) => {
                    RouteReason::Slot { hash, slot, slots: slots.total(), server }
                }
                _ => RouteReason::Nobody,
            },
            Dispatch::Random(choices) => RouteReason::Chance { servers: choices.len() },
        };
        RouteExplanation { hashed, reason }
    }

    /// Returns how many places each server of the pool has, in the servers' order: points of the
    /// ring with ketama, slots with modula, 1 with random; 0 for an ejected server.
    ///
    /// A live server with 0 gets no key at all. ketama does that to a server that is some hundred
    /// times lighter than another.
    pub const fn points_per_server(&self) -> &[u32] {
        &self.points_per_server
    }

    /// Returns which part of all hashes each server of the pool has, in millionths and in the
    /// servers' order; 0 for one that is not live.
    pub fn shares(&self) -> Vec<u32> {
        let mut places = vec![0_u64; self.points_per_server.len()];
        let mut add = |server: ServerId, more: u64| {
            if let Some(place) = places.get_mut(usize::from(server.0)) {
                *place += more;
            }
        };
        match &self.dispatch {
            Dispatch::Nobody => {}
            Dispatch::Only(server) => add(*server, 1),
            Dispatch::Ketama(ring) => ring.arcs(add),
            Dispatch::Modula(slots) => slots.places(add),
            Dispatch::Random(choices) => choices.servers().for_each(|server| add(server, 1)),
        }
        let total = places.iter().sum::<u64>().max(1);
        let share = |place: &u64| u128::from(*place) * 1_000_000 / u128::from(total);
        places.iter().map(|place| u32::try_from(share(place)).unwrap_or(u32::MAX)).collect()
    }

    /// Returns the part of a key that decides.
    #[inline]
    fn hashed_part<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        match &self.hash_tag {
            Some(tag) => tag.tagged(key),
            None => key,
        }
    }

    /// Hashes what [`RouteTable::hashed_part`] gave. An empty key has hash 0 whatever the function
    /// says, as in twemproxy.
    #[inline]
    fn hash_of(&self, hashed: &[u8]) -> u32 {
        if hashed.is_empty() { 0 } else { self.hash.hash(hashed) }
    }
}

fn points_per_server(spec: &RouteSpec, members: &[Member<'_>]) -> Box<[u32]> {
    let mut counts = vec![0; spec.servers.len()];
    let mut set = |id: ServerId, count| {
        if let Some(slot) = counts.get_mut(usize::from(id.0)) {
            *slot = count;
        }
    };
    match spec.distribution {
        Distribution::Ketama => {
            for (member, count) in members.iter().zip(point_counts(members)) {
                set(member.id, count);
            }
        }
        Distribution::Modula => {
            members.iter().for_each(|member| set(member.id, member.weight.get()));
        }
        Distribution::Random => members.iter().for_each(|member| set(member.id, 1)),
    }
    counts.into_boxed_slice()
}

#[cfg(test)]
mod tests;
