//! What several Sentinels say of one shard, and what follows from it.

use std::net::SocketAddr;

use crate::io::ShardCondition;
use crate::time::Instant;

/// What one Sentinel says.
#[derive(Clone, Debug, Default)]
pub(super) struct Opinion {
    /// Where it sends clients, and since which election; and when it said so.
    pub(super) said: Option<(Instant, u64, SocketAddr)>,
    /// Whom it sees down, alone.
    pub(super) down: Option<SocketAddr>,
    /// Whom it sees down, as enough others do.
    pub(super) surely_down: Option<SocketAddr>,
    /// Whose planned fail-over it carries out.
    pub(super) moving: Option<SocketAddr>,
}

impl Opinion {
    /// Forgets what may have changed since it could be heard last; where the master was stays.
    pub(super) const fn fade(&mut self) {
        self.down = None;
        self.surely_down = None;
        self.moving = None;
    }
}

/// Returns the address of the latest election; where that has several, what most say, and of those
/// what is known already.
///
/// An election that is known is never left for an earlier one, whoever is there to be asked.
pub(super) fn latest(
    known: Option<(u64, SocketAddr)>,
    opinions: &[Opinion],
) -> Option<(u64, SocketAddr)> {
    let said = || opinions.iter().filter_map(|one| one.said).map(|(_, epoch, at)| (epoch, at));
    let epoch = said().map(|(epoch, _)| epoch).max()?;
    if known.is_some_and(|(known, _)| known >= epoch) {
        return known;
    }
    let votes = |address| said().filter(|one| *one == (epoch, address)).count();
    let addresses = said().filter(|(of, _)| *of == epoch).map(|(_, address)| address);
    // The last of equals is what the last Sentinel says; which one does not matter, only that
    // everybody who hears the same decides the same.
    let best = addresses.max_by_key(|address| (votes(*address), *address))?;
    Some((epoch, best))
}

/// Returns how the master at `address` is. One Sentinel alone may be cut off from it, so more than
/// half of those that are heard have to see it down, or one that others agree with.
pub(super) fn condition(address: SocketAddr, opinions: &[Opinion]) -> ShardCondition {
    let count = |of: fn(&Opinion) -> Option<SocketAddr>| {
        opinions.iter().filter(|one| of(one) == Some(address)).count()
    };
    if count(|one| one.moving) > 0 {
        return ShardCondition::Moving;
    }
    let heard = opinions.iter().filter(|one| one.said.is_some()).count();
    if count(|one| one.surely_down) > 0 || count(|one| one.down) * 2 > heard {
        ShardCondition::Suspected
    } else {
        ShardCondition::Serving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn says(epoch: u64, port: u16) -> Opinion {
        Opinion { said: Some((Instant::START, epoch, at(port))), ..Opinion::default() }
    }

    #[test]
    fn the_latest_election_wins_and_is_never_left() {
        assert_eq!(latest(None, &[Opinion::default()]), None);
        assert_eq!(latest(None, &[says(3, 1), says(5, 2), says(4, 1)]), Some((5, at(2))));
        assert_eq!(latest(Some((5, at(2))), &[says(3, 1)]), Some((5, at(2))));
        // Another address for an election that is known is somebody's mistake.
        assert_eq!(latest(Some((5, at(2))), &[says(5, 1)]), Some((5, at(2))));
        assert_eq!(latest(None, &[says(0, 1), says(0, 2), says(0, 1)]), Some((0, at(1))));
    }

    #[test]
    fn one_sentinel_alone_makes_nobody_wait() {
        let sees_down = |port| Opinion { down: Some(at(port)), ..says(1, 1) };
        let all = [sees_down(1), says(1, 1), says(1, 1)];
        assert_eq!(condition(at(1), &all), ShardCondition::Serving);
        let all = [sees_down(1), sees_down(1), says(1, 1)];
        assert_eq!(condition(at(1), &all), ShardCondition::Suspected);
        // What is said of another address says nothing of this one.
        assert_eq!(condition(at(2), &all), ShardCondition::Serving);
        let sure = Opinion { surely_down: Some(at(1)), ..says(1, 1) };
        assert_eq!(condition(at(1), &[sure, says(1, 1), says(1, 1)]), ShardCondition::Suspected);
        let moving = Opinion { moving: Some(at(1)), ..says(1, 1) };
        assert_eq!(condition(at(1), &[moving, says(1, 1)]), ShardCondition::Moving);
    }
}
