//! modula: the hash modulo the total weight. Ejecting one server moves almost every key.

use super::{Member, total_weight};
use crate::id::ServerId;
use crate::limits::MODULA_SLOTS_MAX;

/// The slots of a pool: each live server as often as its weight says, in the servers' order.
#[derive(Clone, Debug)]
pub struct Slots {
    total: u64,
    layout: Layout,
}

#[derive(Clone, Debug)]
enum Layout {
    /// Slot by slot.
    Flat(Box<[ServerId]>),
    /// Where each server's slots end, ascending; for weights too large to lay out.
    Ends(Box<[(u64, ServerId)]>),
}

impl Slots {
    /// Lays the slots of the live servers out. Nobody live makes no slots.
    pub fn build(members: &[Member<'_>]) -> Self {
        let total = total_weight(members);
        let layout = if total <= MODULA_SLOTS_MAX {
            let slots =
                members.iter().flat_map(|member| (0..member.weight.get()).map(|_| member.id));
            Layout::Flat(slots.collect())
        } else {
            let ends = members.iter().scan(0, |end, member| {
                *end += u64::from(member.weight.get());
                Some((*end, member.id))
            });
            Layout::Ends(ends.collect())
        };
        Self { total, layout }
    }

    /// Returns the slot of a hash; none when there are no slots.
    #[inline]
    pub fn slot_at(&self, hash: u32) -> Option<u64> {
        u64::from(hash).checked_rem(self.total)
    }

    /// Returns the server of a hash; none when there are no slots.
    #[inline]
    pub fn server_at(&self, hash: u32) -> Option<ServerId> {
        let slot = self.slot_at(hash)?;
        match &self.layout {
            Layout::Flat(servers) => servers.get(usize::try_from(slot).ok()?).copied(),
            Layout::Ends(ends) => {
                let position = ends.partition_point(|&(end, _)| end <= slot);
                ends.get(position).map(|&(_, server)| server)
            }
        }
    }

    /// Calls `each` with every server and how many slots it has; with one server more than once.
    pub fn places(&self, mut each: impl FnMut(ServerId, u64)) {
        match &self.layout {
            Layout::Flat(servers) => servers.iter().for_each(|server| each(*server, 1)),
            Layout::Ends(ends) => {
                let mut from = 0;
                for &(end, server) in ends {
                    each(server, end - from);
                    from = end;
                }
            }
        }
    }

    /// Returns how many slots there are: the total weight.
    pub const fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_server_has_as_many_slots_as_weight() {
        let slots = slots_of(&[1, 3, 2]);
        let servers: Vec<u16> =
            (0..12).map(|hash| slots.server_at(hash).expect("servers are live").0).collect();
        assert_eq!(servers, [0, 1, 1, 1, 2, 2, 0, 1, 1, 1, 2, 2]);
    }

    #[test]
    fn nobody_live_has_no_slot() {
        assert_eq!(slots_of(&[]).server_at(7), None);
    }

    #[test]
    fn weights_too_large_to_lay_out_are_searched() {
        let slots = slots_of(&[2_000_000_000, 1, 2_000_000_000]);
        let server_at = |hash| slots.server_at(hash).map(|server| server.0);
        assert_eq!(server_at(0), Some(0));
        assert_eq!(server_at(1_999_999_999), Some(0));
        assert_eq!(server_at(2_000_000_000), Some(1));
        assert_eq!(server_at(2_000_000_001), Some(2));
        assert_eq!(server_at(4_000_000_000), Some(2));
        assert_eq!(server_at(4_000_000_001), Some(0));
    }

    #[test]
    fn a_total_above_32_bits_does_not_wrap() {
        let slots = slots_of(&[u32::MAX, u32::MAX]);
        assert_eq!(slots.server_at(u32::MAX), Some(ServerId(1)));
        assert_eq!(slots.server_at(u32::MAX - 1), Some(ServerId(0)));
    }

    #[test]
    fn both_layouts_agree() {
        let weights = [7, 1, 30, 12];
        let flat = slots_of(&weights);
        let mut end = 0;
        let ends = weights.iter().zip(0..).map(|(weight, id)| {
            end += u64::from(*weight);
            (end, ServerId(id))
        });
        let searched = Slots { total: 50, layout: Layout::Ends(ends.collect()) };
        for hash in 0..150 {
            assert_eq!(flat.server_at(hash), searched.server_at(hash), "hash {hash}");
        }
    }

    fn slots_of(weights: &[u32]) -> Slots {
        let members: Vec<Member<'_>> = weights
            .iter()
            .zip(0..)
            .map(|(&weight, id)| Member {
                id: ServerId(id),
                name: "",
                weight: NonZeroU32::new(weight).expect("not zero"),
            })
            .collect();
        Slots::build(&members)
    }
}
