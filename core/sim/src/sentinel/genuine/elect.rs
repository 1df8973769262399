//! Votes, and who has won.

use std::collections::BTreeMap;

use super::super::process::Context;
use super::table::{Id, State};
use super::{Genuine, MAX_DESYNC, Ms};

impl Genuine {
    /// Gives or repeats a vote; returns whom the last one was for and in which election.
    pub(super) fn vote(
        &mut self,
        id: Id,
        epoch: u64,
        candidate: &str,
        ctx: &mut Context<'_>,
    ) -> (Option<String>, u64) {
        if epoch > self.current_epoch {
            self.current_epoch = epoch;
            self.save(ctx);
            ctx.tell("+new-epoch", epoch.to_string());
        }
        if self.instances[id].leader_epoch < epoch && self.current_epoch <= epoch {
            let before = (self.instances[id].leader.clone(), self.instances[id].leader_epoch);
            self.instances[id].leader = Some(candidate.to_owned());
            self.instances[id].leader_epoch = self.current_epoch;
            let is_saved = self.defects.answers_before_disk || self.save(ctx);
            if !is_saved && !self.defects.votes_unsaved {
                (self.instances[id].leader, self.instances[id].leader_epoch) = before;
                return (None, self.instances[id].leader_epoch);
            }
            ctx.tell("+vote-for-leader", format!("{candidate} {}", self.current_epoch));
            if candidate != self.my_id {
                self.instances[id].failover_start = ctx.wall_ms + Self::desync(ctx);
            }
        }
        (self.instances[id].leader.clone(), self.instances[id].leader_epoch)
    }

    fn desync(ctx: &mut Context<'_>) -> Ms {
        ctx.rng.below(MAX_DESYNC) as Ms
    }

    /// Counts the votes of a master's election; returns the winner, if there is one.
    pub(super) fn leader(&mut self, id: Id, ctx: &mut Context<'_>) -> Option<String> {
        let master = &self.instances[id];
        let epoch = master.failover_epoch;
        let counted = if self.defects.counts_wrong_epoch { self.current_epoch } else { epoch };
        let mut votes: BTreeMap<String, u32> = BTreeMap::new();
        let mut voters = 1;
        for peer in &master.peers {
            let peer = &self.instances[*peer];
            if !(self.defects.forgets_dead_voters && peer.s_down) {
                voters += 1;
            }
            if peer.leader_epoch == counted
                && let Some(leader) = &peer.leader
            {
                *votes.entry(leader.clone()).or_default() += 1;
            }
        }
        let quorum = master.quorum;
        let front = most(&votes);
        let choice = front.clone().unwrap_or_else(|| self.my_id.clone());
        let (mine, mine_epoch) = self.vote(id, epoch, &choice, ctx);
        if let Some(mine) = mine
            && mine_epoch == epoch
        {
            *votes.entry(mine).or_default() += 1;
        }
        let winner = most(&votes)?;
        let count = votes.get(&winner).copied().unwrap_or(0);
        (count > voters / 2 && count >= quorum).then_some(winner)
    }

    pub(super) fn start_failover_if_needed(&mut self, id: Id, ctx: &mut Context<'_>) -> bool {
        let master = &self.instances[id];
        if !master.o_down
            || master.in_failover
            || ctx.wall_ms - master.failover_start < master.failover_timeout * 2
        {
            return false;
        }
        self.start_failover(id, ctx);
        true
    }

    pub(super) fn start_failover(&mut self, id: Id, ctx: &mut Context<'_>) {
        self.current_epoch += 1;
        ctx.tell("+new-epoch", self.current_epoch.to_string());
        self.event(id, "+try-failover", "", ctx);
        let start = ctx.wall_ms + Self::desync(ctx);
        let master = &mut self.instances[id];
        master.state = State::WaitStart;
        master.in_failover = true;
        master.failover_epoch = self.current_epoch;
        master.failover_start = start;
        master.state_change = ctx.wall_ms;
    }
}

/// Returns who has most votes; of equals the first, as good as any.
fn most(votes: &BTreeMap<String, u32>) -> Option<String> {
    let mut best: Option<(&String, u32)> = None;
    for (who, count) in votes {
        if best.is_none_or(|(_, most)| *count > most) {
            best = Some((who, *count));
        }
    }
    best.map(|(who, _)| who.clone())
}
