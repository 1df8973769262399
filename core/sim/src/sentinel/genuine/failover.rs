//! What a leader does, step by step, one step per tick.

use std::net::SocketAddr;

use super::super::process::Context;
use super::table::{Asked, Id, Reconf, Role, State};
use super::{ELECTION_TIMEOUT, Genuine, INFO_PERIOD, Ms, PING_PERIOD, RECONF_TIMEOUT};

impl Genuine {
    pub(super) fn failover_step(&mut self, id: Id, ctx: &mut Context<'_>) {
        if !self.instances[id].in_failover {
            return;
        }
        match self.instances[id].state {
            State::WaitStart => self.wait_start(id, ctx),
            State::SelectSlave => self.select(id, ctx),
            State::SendSlaveofNoOne => self.promote(id, ctx),
            State::WaitPromotion => {
                let master = &self.instances[id];
                if ctx.wall_ms - master.state_change > master.failover_timeout {
                    self.abort(id, "-failover-abort-slave-timeout", ctx);
                }
            }
            State::ReconfSlaves => self.reconfigure(id, ctx),
            State::None | State::UpdateConfig => {}
        }
    }

    fn enter(&mut self, id: Id, state: State, ctx: &Context<'_>) {
        self.instances[id].state = state;
        self.instances[id].state_change = ctx.wall_ms;
    }

    fn abort(&mut self, id: Id, why: &str, ctx: &mut Context<'_>) {
        self.event(id, why, "", ctx);
        self.enter(id, State::None, ctx);
        let master = &mut self.instances[id];
        master.in_failover = false;
        master.is_forced = false;
        if let Some(promoted) = master.promoted.take() {
            self.instances[promoted].is_promoted = false;
        }
    }

    fn wait_start(&mut self, id: Id, ctx: &mut Context<'_>) {
        let is_leader = self.leader(id, ctx).is_some_and(|leader| leader == self.my_id);
        let master = &self.instances[id];
        if !is_leader && !master.is_forced {
            let limit = ELECTION_TIMEOUT.min(master.failover_timeout);
            if ctx.wall_ms - master.failover_start > limit {
                self.abort(id, "-failover-abort-not-elected", ctx);
            }
            return;
        }
        self.event(id, "+elected-leader", "", ctx);
        self.enter(id, State::SelectSlave, ctx);
        self.event(id, "+failover-state-select-slave", "", ctx);
    }

    fn select(&mut self, id: Id, ctx: &mut Context<'_>) {
        let Some(best) = self.best_replica(id, ctx.wall_ms) else {
            self.abort(id, "-failover-abort-no-good-slave", ctx);
            return;
        };
        self.event(best, "+selected-slave", "", ctx);
        self.instances[best].is_promoted = true;
        self.instances[id].promoted = Some(best);
        self.enter(id, State::SendSlaveofNoOne, ctx);
        self.event(best, "+failover-state-send-slaveof-noone", "", ctx);
    }

    pub(super) fn best_replica(&self, id: Id, now: Ms) -> Option<Id> {
        let master = &self.instances[id];
        let mut link_down_max = master.down_after * 10;
        if master.s_down {
            link_down_max += now - master.s_down_since;
        }
        let info_age = if master.s_down { PING_PERIOD * 5 } else { INFO_PERIOD * 3 };
        let good = master.replicas.iter().copied().filter(|replica| {
            let one = &self.instances[*replica];
            let link = &self.links[one.link];
            !one.s_down
                && !one.o_down
                && !link.is_disconnected
                && now - link.last_available <= PING_PERIOD * 5
                && one.priority != 0
                && now - one.info_refresh <= info_age
                && one.link_down <= link_down_max
                && (self.defects.promotes_stale_master || one.role == Role::Replica)
        });
        good.min_by_key(|replica| {
            let one = &self.instances[*replica];
            let run_id = one.run_id.clone();
            (one.priority, std::cmp::Reverse(one.offset), run_id.is_none(), run_id)
        })
    }

    fn promote(&mut self, id: Id, ctx: &mut Context<'_>) {
        let Some(promoted) = self.instances[id].promoted else { return };
        if self.links[self.instances[promoted].link].is_disconnected {
            let master = &self.instances[id];
            if ctx.wall_ms - master.state_change > master.failover_timeout {
                self.abort(id, "-failover-abort-slave-timeout", ctx);
            }
            return;
        }
        if !self.defects.keeps_confirmations && !self.instances[id].s_down {
            // The master has come back before anything was done about it.
            self.abort(id, "-failover-abort-slave-timeout", ctx);
            return;
        }
        self.send_slave_of(promoted, None, ctx);
        self.event(promoted, "+failover-state-wait-promotion", "", ctx);
        self.enter(id, State::WaitPromotion, ctx);
    }

    /// Sends the transaction that changes a server's role.
    pub(super) fn send_slave_of(&mut self, id: Id, to: Option<SocketAddr>, ctx: &mut Context<'_>) {
        let (host, port) = match to {
            Some(to) => (to.ip().to_string(), to.port().to_string()),
            None => ("NO".to_owned(), "ONE".to_owned()),
        };
        let parts: [&[&str]; 6] = [
            &["MULTI"],
            &["SLAVEOF", &host, &port],
            &["CONFIG", "REWRITE"],
            &["CLIENT", "KILL", "TYPE", "normal"],
            &["CLIENT", "KILL", "TYPE", "pubsub"],
            &["EXEC"],
        ];
        for words in parts {
            self.send(id, words, Asked::Nothing, ctx);
        }
        // Their replies are not counted down.
        let link = self.instances[id].link;
        self.links[link].pending = self.links[link].pending.saturating_sub(6);
    }

    fn reconfigure(&mut self, id: Id, ctx: &mut Context<'_>) {
        let Some(promoted) = self.instances[id].promoted else { return };
        let to = self.instances[promoted].address;
        let replicas = self.instances[id].replicas.clone();
        let is_under_way = |reconf| matches!(reconf, Reconf::Sent | Reconf::InProgress);
        let count =
            replicas.iter().filter(|one| is_under_way(self.instances[**one].reconf)).count();
        let mut room = (self.instances[id].parallel_syncs as usize).saturating_sub(count);
        for replica in replicas {
            if room == 0 {
                break;
            }
            let one = &mut self.instances[replica];
            if one.is_promoted || one.reconf == Reconf::Done {
                continue;
            }
            if one.reconf == Reconf::Sent && ctx.wall_ms - one.reconf_sent > RECONF_TIMEOUT {
                one.reconf = Reconf::Done;
                self.event(replica, "-slave-reconf-sent-timeout", "", ctx);
                continue;
            }
            let one = &self.instances[replica];
            if is_under_way(one.reconf) || self.links[one.link].is_disconnected {
                continue;
            }
            self.send_slave_of(replica, Some(to), ctx);
            self.instances[replica].reconf = Reconf::Sent;
            self.instances[replica].reconf_sent = ctx.wall_ms;
            self.event(replica, "+slave-reconf-sent", "", ctx);
            room -= 1;
        }
        self.detect_end(id, promoted, ctx);
    }

    fn detect_end(&mut self, id: Id, promoted: Id, ctx: &mut Context<'_>) {
        if self.instances[promoted].s_down {
            return;
        }
        let master = &self.instances[id];
        let replicas = master.replicas.clone();
        let is_late = ctx.wall_ms - master.state_change > master.failover_timeout;
        let is_waited_for = |one: &Id| {
            let one = &self.instances[*one];
            !one.is_promoted && one.reconf != Reconf::Done && !one.s_down
        };
        if !is_late && replicas.iter().any(is_waited_for) {
            return;
        }
        if is_late {
            self.event(id, "+failover-end-for-timeout", "", ctx);
        }
        self.event(id, "+failover-end", "", ctx);
        self.enter(id, State::UpdateConfig, ctx);
        if !is_late {
            return;
        }
        let to = self.instances[promoted].address;
        for replica in replicas {
            let one = &self.instances[replica];
            let is_told = matches!(one.reconf, Reconf::Sent | Reconf::Done) || one.is_promoted;
            if !is_told && !self.links[one.link].is_disconnected {
                self.send_slave_of(replica, Some(to), ctx);
                self.event(replica, "+slave-reconf-sent-be", "", ctx);
                self.instances[replica].reconf = Reconf::Sent;
            }
        }
    }

    pub(super) fn switch_to_promoted(&mut self, id: Id, ctx: &mut Context<'_>) {
        let master = &self.instances[id];
        let old = master.address;
        let new = master.promoted.map_or(old, |promoted| self.instances[promoted].address);
        let payload =
            format!("{} {} {} {} {}", master.name, old.ip(), old.port(), new.ip(), new.port());
        ctx.tell("+switch-master", payload);
        self.change_address(id, new, ctx);
    }
}
