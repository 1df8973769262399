//! The promise of copies: a master whose clients were told that a write is on `k` replicas is
//! replaced only by one that has all of them.
//!
//! Of `n` replicas any `n - k + 1` include one that has a write which `k` have. So the furthest of
//! that many lacks nothing that was promised, as long as fewer than `k` were lost with the master.

use std::time::Duration;

use super::Sentinel;
use super::master::{Master, Server};
use crate::sentinel::info::RoleReport;
use crate::time::Instant;

/// Before a choice is made, INFO that is older than this tells too little of how far a replica is.
const FRESH: Duration = Duration::from_secs(2);

/// Fewer replicas are seen than it takes to find a copy of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooFewSeen;

impl Sentinel {
    /// Returns how far the furthest replica is, if enough of them are seen; `None` without a
    /// promise.
    pub(super) fn furthest(
        &self,
        now: Instant,
        master: &Master,
    ) -> Option<Result<u64, TooFewSeen>> {
        if master.min_copies == 0 {
            return None;
        }
        let offsets: Vec<u64> =
            master.replicas.values().filter_map(|one| self.seen_offset(now, master, one)).collect();
        let copies = usize::try_from(master.min_copies).unwrap_or(usize::MAX);
        let needed = (master.replicas.len() + 1).saturating_sub(copies).max(1);
        let best = offsets.iter().max().copied().filter(|_| offsets.len() >= needed);
        Some(best.ok_or(TooFewSeen))
    }

    /// Returns how far a replica is in the history of the last master, if it told just now.
    fn seen_offset(&self, now: Instant, master: &Master, replica: &Server) -> Option<u64> {
        let (at, info) = replica.info.as_ref()?;
        let is_there = self.links.is_open(replica.commands) && !replica.watch.is_down();
        let RoleReport::Replica(report) = &info.role else { return None };
        // Once elected, everybody is asked anew.
        let is_fresh = match master.selecting_since {
            Some(since) => *at >= since,
            None => now.since(*at) <= FRESH,
        };
        // Whoever does not know the last master's history can't tell a copy from anything else.
        let is_ours = master.lineage.replid.is_some_and(|replid| info.history.includes(replid));
        (is_there && is_fresh && is_ours).then_some(report.offset)
    }
}
