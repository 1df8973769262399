//! Brings back servers that follow nobody, or somebody else.

use std::time::Duration;

use super::links::Node;
use super::master::{Master, Server};
use super::monitor::Due;
use super::{MasterId, Sentinel};
use crate::sentinel::event::Plain;
use crate::sentinel::failover::State;
use crate::sentinel::instance::{Epoch, Role};
use crate::time::Instant;

/// How long a server has that was told whom to follow before it is told again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Sentinel {
    /// Tells strays whom to follow, once it is certain that nobody else has other plans.
    pub(super) fn repair(&mut self, now: Instant, id: MasterId, due: &mut Due) {
        self.note_followers(id);
        let Some(master) = self.masters.get_mut(&id) else { return };
        if master.server.role == Role::Master {
            master.circle_since = None;
        }
        let is_idle = *master.failover.state() == State::None;
        if is_idle && master.server.role == Role::Replica {
            self.break_circle(now, id, due);
            return;
        }
        if !is_idle || !master.looks_sane(now, self.periods.info) {
            return;
        }
        let mut strays = Vec::new();
        if let Some(master) = self.masters.get(&id) {
            let found = master.replicas.iter();
            let found = found.filter(|(_, server)| self.is_stray(now, master, server, due));
            strays.extend(found.map(|(at, _)| Node::Replica(*at)));
        }
        for node in strays {
            self.bring_back(now, id, node);
        }
    }

    /// Makes a master a master again that came back with an old file and follows those who follow
    /// it. Nobody of them gets data from anybody, so a fail-over finds nobody who could replace it.
    fn break_circle(&mut self, now: Instant, id: MasterId, due: &mut Due) {
        let is_circle = self.is_circle(id, |_| true);
        let Some(master) = self.masters.get_mut(&id) else { return };
        if !is_circle {
            master.circle_since = None;
            return;
        }
        let since = *master.circle_since.get_or_insert(now);
        // What was asked for before, or long ago, may have lain about while this process stood
        // still: somebody may have been promoted since.
        let fresh = self.periods.ping * 3;
        let is_fresh = |asked: Instant| asked > since && now.since(asked) < fresh;
        let is_agreed = self.masters.get(&id).is_some_and(|known| self.is_agreed(known, since));
        if !self.is_circle(id, is_fresh) || !is_agreed {
            return;
        }
        let Some(master) = self.masters.get_mut(&id) else { return };
        if let Some(repaired) = master.server.repaired_at {
            let again = repaired + AGAIN_AFTER;
            if now < again {
                due.at(again);
                return;
            }
        }
        master.server.repaired_at = Some(now);
        let address = master.server.address.clone();
        if self.send_slaveof(id, Node::Master, None) {
            self.note(format!(
                "The master at {address} followed its own replicas: it is told to be a master again"
            ));
        }
    }

    /// Whether a master follows itself by way of its replicas, by what each of them said when asked
    /// at a time that counts. One that is being promoted says otherwise: that comes before others
    /// are told to follow it.
    fn is_circle(&self, id: MasterId, counts: impl Fn(Instant) -> bool) -> bool {
        let upstream = |server: &Server| {
            let is_heard =
                self.links.is_open(server.commands) && server.info_of.is_some_and(&counts);
            let (_, report) = server.replica_report().filter(|_| is_heard)?;
            report.master.clone()
        };
        let Some(master) = self.masters.get(&id) else { return false };
        let mut at = &master.server;
        for _ in 0..=master.replicas.len() {
            let Some(to) = upstream(at) else { return false };
            if self.is_same_place(&to, &master.server.address) {
                return true;
            }
            let mut replicas = master.replicas.values();
            let Some(next) = replicas.find(|server| self.is_same_place(&to, &server.address))
            else {
                return false;
            };
            at = next;
        }
        false
    }

    /// Notes who follows the master: what their files said does not matter any more.
    fn note_followers(&mut self, id: MasterId) {
        let Some(Master { server: known, replicas, .. }) = self.masters.get_mut(&id) else {
            return;
        };
        for server in replicas.values_mut().filter(|server| server.is_restarted) {
            let follows = server.replica_report().and_then(|(_, r)| r.master.as_ref());
            server.is_restarted = !follows.is_some_and(|of| of.is_same(&known.address));
        }
    }

    /// Whether a replica says that it is a master, or follows somebody else, for long enough.
    fn is_stray(&self, now: Instant, master: &Master, server: &Server, due: &mut Due) -> bool {
        if server.watch.is_down() || !self.links.is_open(server.commands) || server.info.is_none() {
            return false;
        }
        let (since, patience) = match server.role {
            // Nobody promotes it: that would begin with its following somebody.
            Role::Master
                if server.is_former_master && self.is_agreed(master, server.role_since) =>
            {
                (server.role_since, Duration::ZERO)
            }
            Role::Master => (server.role_since, self.periods.publish * 4),
            Role::Replica => {
                let follows = server.replica_report().and_then(|(_, r)| r.master.as_ref());
                let is_right =
                    follows.is_some_and(|of| self.is_same_place(of, &master.server.address));
                if is_right {
                    return false;
                }
                // Nobody else has plans with what came back with an old file; of others, the
                // leader of a fail-over may still have to tell them.
                if server.is_restarted && self.is_agreed(master, server.follows_since) {
                    (server.follows_since, Duration::ZERO)
                } else {
                    (server.follows_since, master.failover_timeout())
                }
            }
        };
        let last_down = server.down_until.map_or(since, |at| since.max(at));
        let repaired = server.repaired_at.map_or(last_down, |at| last_down.max(at));
        // Told once, it has a while to do it.
        let patience = if server.repaired_at.is_some_and(|at| at >= last_down) {
            patience.max(AGAIN_AFTER)
        } else {
            patience
        };
        let at = repaired + patience;
        if now < at {
            due.at(at);
            return false;
        }
        true
    }

    /// Whether a majority says, as we do, that the master is where it is since an election: then
    /// nobody has to wait for a newer one to become known.
    ///
    /// What was said before the other server became a master says nothing about that: it may have
    /// been promoted a moment ago, by a leader whose hello is still on its way.
    fn is_agreed(&self, master: &Master, other_since: Instant) -> bool {
        if master.config_epoch == Epoch::ZERO || master.voices.is_empty() {
            return false;
        }
        let settled = other_since + self.periods.publish / 2;
        let agrees = |told: &Option<(Instant, Epoch, _)>| {
            told.as_ref().is_some_and(|(at, epoch, address)| {
                *at >= settled
                    && *epoch == master.config_epoch
                    && self.is_same_place(address, &master.server.address)
            })
        };
        let agree = 1 + master.voices.values().filter(|voice| agrees(&voice.told)).count();
        agree > master.voices.len().div_ceil(2)
    }

    fn bring_back(&mut self, now: Instant, id: MasterId, node: Node) {
        let Some(master) = self.masters.get(&id) else { return };
        let (to, role) = (master.server.address.clone(), master.server(node).map(|s| s.role));
        if !self.send_slaveof(id, node, Some(&to)) {
            return;
        }
        let plain = match role {
            Some(Role::Master) => Plain::ConvertToSlave,
            Some(Role::Replica) | None => Plain::FixSlaveConfig,
        };
        if let Some(server) = self.masters.get_mut(&id).and_then(|m| m.server_mut(node)) {
            server.repaired_at = Some(now);
            server.wants_info = true;
        }
        self.say_plain(id, plain, node);
    }
}
