//! random: a server drawn for every request. Neither the key nor the weight matters.

use super::Member;
use crate::id::ServerId;
use crate::rng::Rng;

/// The live servers to draw from.
#[derive(Clone, Debug)]
pub struct Choices(Box<[ServerId]>);

impl Choices {
    /// Takes the live servers in.
    pub fn build(members: &[Member<'_>]) -> Self {
        Self(members.iter().map(|member| member.id).collect())
    }

    /// Draws a server; none when nobody is live.
    #[inline]
    pub fn draw(&self, rng: &mut Rng) -> Option<ServerId> {
        let drawn = rng.below(self.0.len() as u64);
        self.0.get(usize::try_from(drawn).ok()?).copied()
    }

    /// Returns the servers to draw from.
    pub fn servers(&self) -> impl Iterator<Item = ServerId> {
        self.0.iter().copied()
    }

    /// Returns how many servers there are to draw from.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether nobody is live.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
