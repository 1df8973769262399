//! How a hash becomes a server: ketama, modula and random, as in twemproxy.
//!
//! A distribution is built from the live servers of a pool and is never changed; ejecting or
//! returning a server builds another one.

pub mod ketama;
pub mod modula;
pub mod random;

use std::num::NonZeroU32;

use crate::id::ServerId;

/// A way to spread keys over the servers of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Consistent hashing on a ring of points. The default of twemproxy.
    Ketama,
    /// The hash modulo the total weight.
    Modula,
    /// A server drawn for every request, whatever the key. For servers that hold the same data.
    Random,
}

impl Distribution {
    /// Every distribution.
    pub const ALL: [Self; 3] = [Self::Ketama, Self::Modula, Self::Random];

    /// Returns the name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ketama => "ketama",
            Self::Modula => "modula",
            Self::Random => "random",
        }
    }

    /// Finds a distribution by its name, which is case-sensitive.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|distribution| distribution.name() == name)
    }
}

/// A live server, as a distribution sees it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'n> {
    /// Its position in the pool, ejected servers counted.
    pub id: ServerId,
    /// The name that places it on a ring.
    pub name: &'n str,
    /// Its share of the keys, relative to the other weights.
    pub weight: NonZeroU32,
}

/// Returns the sum of all weights. It cannot overflow: 2^16 servers of less than 2^32 each.
fn total_weight(members: &[Member<'_>]) -> u64 {
    members.iter().map(|member| u64::from(member.weight.get())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_finds_its_distribution_and_case_matters() {
        for distribution in Distribution::ALL {
            assert_eq!(Distribution::from_name(distribution.name()), Some(distribution));
        }
        assert_eq!(Distribution::from_name("Ketama"), None);
    }
}
