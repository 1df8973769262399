//! ketama: consistent hashing. Each server owns about 160 points of a ring of 2^32; a key belongs
//! to the first point at or after its hash.
//!
//! Source: twemproxy 0.5, which follows libmemcached's weighted ketama.

use std::io::Write as _;

use super::{Member, total_weight};
use crate::hash::md5_words;
use crate::id::ServerId;
use crate::limits::KETAMA_INDEX_BITS_MAX;

/// Points of a server of average weight.
const POINTS_PER_SERVER: f32 = 160.0;

/// Points that one MD5 digest gives.
const POINTS_PER_DIGEST: u32 = 4;

/// Digests of a server that a point can tell apart: the lower 16 bits of a point count them.
const DIGESTS_TOLD_APART: u32 = 1 << 16;

/// A ring of points, immutable.
///
/// A lookup takes the upper bits of the hash to an index, which names a point at most a few steps
/// before the right one, and compares on from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// The value in bits 32..64, the server in bits 16..32, the digest's number in bits 0..16;
    /// ascending. After the last point the first server stands again with the highest value, so
    /// that a lookup never wraps. Empty when there is no server.
    points: Box<[u64]>,
    /// For each value of the upper bits of a hash, the first point that is not before it.
    index: Box<[u32]>,
    /// How far right a hash goes to become a position in the index, 12..=31.
    shift: u32,
    /// How many digests each server has on the ring, by its position in the pool.
    digests: Box<[u32]>,
}

/// A point of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its position in the ring, points in ascending order of their values.
    pub position: usize,
    /// Where it is on the ring of 2^32.
    pub value: u32,
    /// Who owns it.
    pub server: ServerId,
}

impl Ring {
    /// Lays the points of the live servers out. Nobody live makes a ring on which nothing is found.
    ///
    /// Costs one MD5 per four points and a sort.
    pub fn build(members: &[Member<'_>]) -> Self {
        Self::default().rebuild(members)
    }

    /// Returns what [`Ring::build`] would, cheaper: points that stay on the ring are copied, in
    /// order, and only new ones cost an MD5.
    ///
    /// A member of the same position must have had the same name when this ring was built.
    pub fn rebuild(&self, members: &[Member<'_>]) -> Self {
        let nothing = Self::default();
        let before = if self.is_every_digest_told_apart() { self } else { &nothing };
        let servers = members.iter().map(|member| usize::from(member.id.0) + 1).max();
        let mut digests = vec![0; servers.unwrap_or(0)].into_boxed_slice();
        let mut added = Vec::new();
        let mut label = Vec::new();
        for (member, count) in members.iter().zip(point_counts(members)) {
            let wanted = count / POINTS_PER_DIGEST;
            if let Some(digests) = digests.get_mut(usize::from(member.id.0)) {
                *digests = wanted;
            }
            for digest in before.digests_of(member.id)..wanted {
                label.clear();
                // Writing into a vector cannot fail.
                let _ = write!(label, "{}-{digest}", member.name);
                added.extend(md5_words(&label).map(|value| pack(value, member.id, digest)));
            }
        }
        added.sort_unstable();
        let after = Self { digests, ..Self::default() };
        let kept = before.points.iter().take(before.len()).copied();
        let kept = kept.filter(|&point| digest_of(point) < after.digests_of(server_of(point)));
        Self::over(merge(before.len(), kept, added), after.digests)
    }

    /// Closes the ring over ascending points.
    fn over(mut points: Vec<u64>, digests: Box<[u32]>) -> Self {
        let shift = 32 - index_bits(points.len());
        let index = index(&points, shift);
        if let Some(&first) = points.first() {
            points.push(pack(u32::MAX, server_of(first), u32::MAX));
        }
        Self { points: points.into_boxed_slice(), index, shift, digests }
    }

    fn digests_of(&self, server: ServerId) -> u32 {
        self.digests.get(usize::from(server.0)).copied().unwrap_or(0)
    }

    /// Tells whether each point names its digest. Above 262,144 points a server has more digests
    /// than 16 bits count.
    fn is_every_digest_told_apart(&self) -> bool {
        self.digests.iter().all(|&digests| digests <= DIGESTS_TOLD_APART)
    }

    /// Calls `each` with every point's server and how many hashes are its.
    pub fn arcs(&self, mut each: impl FnMut(ServerId, u64)) {
        let mut points = self.points().peekable();
        let Some(first) = points.peek().copied() else { return };
        let mut before = None;
        for point in points {
            let arc = before.map_or(0, |before| u64::from(point.value - before));
            each(point.server, arc);
            before = Some(point.value);
        }
        // What is after the last point is the first one's.
        let last = u64::from(before.unwrap_or(first.value));
        each(first.server, (1 << 32) - last + u64::from(first.value));
    }

    /// Returns the server of a hash; none when the ring is empty.
    #[inline]
    pub fn server_at(&self, hash: u32) -> Option<ServerId> {
        self.tail(hash)?.iter().find(|&&point| is_at_or_after(point, hash)).copied().map(server_of)
    }

    /// Returns the point of a hash; none when the ring is empty.
    pub fn point_at(&self, hash: u32) -> Option<Point> {
        let tail = self.tail(hash)?;
        let steps = tail.iter().position(|&point| is_at_or_after(point, hash))?;
        let position = self.points.len() - tail.len() + steps;
        // The closing copy of the first point stands for it.
        let position = if position < self.len() { position } else { 0 };
        let point = *self.points.get(position)?;
        Some(Point { position, value: value_of(point), server: server_of(point) })
    }

    /// Returns how many points the ring has.
    pub const fn len(&self) -> usize {
        self.points.len().saturating_sub(1)
    }

    /// Tells whether nobody is on the ring.
    pub const fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Gives all points in ascending order of their values.
    pub fn points(&self) -> impl Iterator<Item = Point> + '_ {
        self.points.iter().take(self.len()).enumerate().map(|(position, &point)| Point {
            position,
            value: value_of(point),
            server: server_of(point),
        })
    }

    /// Returns the points from the one on that the index names for a hash.
    #[inline]
    fn tail(&self, hash: u32) -> Option<&[u64]> {
        let start = *self.index.get((hash >> self.shift) as usize)?;
        self.points.get(start as usize..)
    }
}

/// Returns how many points each member gets, in their order; possibly none, beside a far heavier
/// server.
///
/// The sequence of 32-bit roundings is twemproxy's: a wider float gives 25 equal servers 160 points
/// each instead of 156, and routes keys elsewhere.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounds where twemproxy rounds; at most 2^24 points, which an f32 holds exactly"
)]
pub fn point_counts(members: &[Member<'_>]) -> impl Iterator<Item = u32> {
    let total = total_weight(members) as f32;
    let live = members.len() as f32;
    members.iter().map(move |member| {
        let share = member.weight.get() as f32 / total;
        let digests = share * POINTS_PER_SERVER / POINTS_PER_DIGEST as f32 * live;
        let nudged = (f64::from(digests) + 1e-10) as f32;
        nudged.floor() as u32 * POINTS_PER_DIGEST
    })
}

/// Returns how many upper bits of a hash an index for so many points takes: one entry for each one
/// or two points.
fn index_bits(points: usize) -> u32 {
    points.checked_ilog2().unwrap_or(0).clamp(1, KETAMA_INDEX_BITS_MAX)
}

/// Makes the index over ascending points.
fn index(points: &[u64], shift: u32) -> Box<[u32]> {
    let mut position = 0_u32;
    let mut rest = points.iter().peekable();
    (0..1_u32 << (32 - shift))
        .map(|upper| {
            while rest.next_if(|&&point| !is_at_or_after(point, upper << shift)).is_some() {
                position += 1;
            }
            position
        })
        .collect()
}

/// Merges two ascending sequences.
fn merge(kept_max: usize, kept: impl Iterator<Item = u64>, added: Vec<u64>) -> Vec<u64> {
    // One more for the closing point.
    let mut merged = Vec::with_capacity(kept_max + added.len() + 1);
    let mut added = added.into_iter().peekable();
    for point in kept {
        while let Some(earlier) = added.next_if(|&added| added < point) {
            merged.push(earlier);
        }
        merged.push(point);
    }
    merged.extend(added);
    merged
}

/// Makes a point. Points of equal value go by their servers' order, as twemproxy's stable sort
/// leaves them.
#[inline]
fn pack(value: u32, server: ServerId, digest: u32) -> u64 {
    let digest = digest.min(DIGESTS_TOLD_APART - 1);
    u64::from(value) << 32 | u64::from(server.0) << 16 | u64::from(digest)
}

#[inline]
const fn value_of(point: u64) -> u32 {
    (point >> 32) as u32
}

#[inline]
const fn server_of(point: u64) -> ServerId {
    ServerId((point >> 16 & 0xffff) as u16)
}

#[inline]
const fn digest_of(point: u64) -> u32 {
    (point & 0xffff) as u32
}

/// Compares without unpacking: what is below the value cannot turn the comparison around.
#[inline]
fn is_at_or_after(point: u64, hash: u32) -> bool {
    point >= u64::from(hash) << 32
}
