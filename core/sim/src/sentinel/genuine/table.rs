//! Masters, replicas and peers, and the links to them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::super::process::{Conn, Context};
use super::{Genuine, Ms, Watched};
use crate::codec::Bytes;

/// An instance's place; never used again for another.
pub(super) type Id = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Master,
    Replica,
    Sentinel,
}

impl Kind {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "slave",
            Self::Sentinel => "sentinel",
        }
    }
}

/// The steps of a fail-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    None,
    WaitStart,
    SelectSlave,
    SendSlaveofNoOne,
    WaitPromotion,
    ReconfSlaves,
    UpdateConfig,
}

/// How far a replica is with following the new master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reconf {
    None,
    Sent,
    InProgress,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Master,
    Replica,
}

#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "flags, as in what it models")]
pub(super) struct Instance {
    pub kind: Kind,
    pub name: String,
    pub run_id: Option<String>,
    pub address: SocketAddr,
    pub master: Option<Id>,
    pub link: usize,
    pub is_alive: bool,
    pub s_down: bool,
    pub o_down: bool,
    pub s_down_since: Ms,
    pub o_down_since: Ms,
    pub down_after: Ms,
    pub last_pub: Ms,
    pub last_hello: Ms,
    /// Of peers: what they said of the master, and when.
    pub master_down: bool,
    pub last_ask_reply: Ms,
    pub leader: Option<String>,
    pub leader_epoch: u64,
    pub info_refresh: Ms,
    pub role: Role,
    pub role_time: Ms,
    pub conf_change: Ms,
    // Masters.
    pub quorum: u32,
    pub config_epoch: u64,
    pub failover_timeout: Ms,
    pub parallel_syncs: u32,
    pub replicas: Vec<Id>,
    pub peers: Vec<Id>,
    pub in_failover: bool,
    pub is_forced: bool,
    pub failover_epoch: u64,
    pub state: State,
    pub state_change: Ms,
    pub failover_start: Ms,
    pub promoted: Option<Id>,
    // Replicas.
    pub is_promoted: bool,
    pub reconf: Reconf,
    pub reconf_sent: Ms,
    pub link_down: Ms,
    pub priority: u32,
    pub follows: Option<SocketAddr>,
    pub is_link_up: bool,
    pub offset: u64,
}

/// What a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    Ping(Id),
    Info(Id),
    Hello(Id),
    /// And about which address.
    Ask(Id, SocketAddr),
}

#[derive(Debug)]
pub(super) struct Commands {
    pub conn: Conn,
    pub is_connected: bool,
    pub since: Ms,
    pub input: Bytes,
    pub asked: VecDeque<Asked>,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub conn: Conn,
    pub since: Ms,
    pub last_activity: Ms,
    pub input: Bytes,
}

#[derive(Debug)]
pub(super) struct Link {
    pub users: usize,
    pub commands: Option<Commands>,
    pub subscription: Option<Subscription>,
    pub is_disconnected: bool,
    pub pending: usize,
    pub last_reconnect: Ms,
    pub act_ping: Ms,
    pub last_ping: Ms,
    pub last_available: Ms,
    pub last_pong: Ms,
}

impl Genuine {
    fn create(&mut self, kind: Kind, name: String, address: SocketAddr, now: Ms) -> Id {
        self.links.push(Link {
            users: 1,
            commands: None,
            subscription: None,
            is_disconnected: true,
            pending: 0,
            last_reconnect: 0,
            act_ping: now,
            last_ping: 0,
            last_available: now,
            last_pong: now,
        });
        self.instances.push(Instance {
            kind,
            name,
            run_id: None,
            address,
            master: None,
            link: self.links.len() - 1,
            is_alive: true,
            s_down: false,
            o_down: false,
            s_down_since: 0,
            o_down_since: 0,
            down_after: 30_000,
            last_pub: now,
            last_hello: now,
            master_down: false,
            last_ask_reply: now,
            leader: None,
            leader_epoch: 0,
            info_refresh: 0,
            role: if kind == Kind::Master { Role::Master } else { Role::Replica },
            role_time: now,
            conf_change: now,
            quorum: 0,
            config_epoch: 0,
            failover_timeout: 180_000,
            parallel_syncs: 1,
            replicas: Vec::new(),
            peers: Vec::new(),
            in_failover: false,
            is_forced: false,
            failover_epoch: 0,
            state: State::None,
            state_change: 0,
            failover_start: 0,
            promoted: None,
            is_promoted: false,
            reconf: Reconf::None,
            reconf_sent: 0,
            link_down: 0,
            priority: 100,
            follows: None,
            is_link_up: false,
            offset: 0,
        });
        self.instances.len() - 1
    }

    pub(super) fn create_master(
        &mut self,
        watched: &Watched,
        address: SocketAddr,
        ctx: &Context<'_>,
    ) -> Id {
        let id = self.create(Kind::Master, watched.name.clone(), address, ctx.wall_ms);
        let master = &mut self.instances[id];
        master.quorum = watched.quorum;
        master.down_after = watched.down_after.as_millis() as Ms;
        master.failover_timeout = watched.failover_timeout.as_millis() as Ms;
        master.parallel_syncs = watched.parallel_syncs;
        self.masters.push(id);
        id
    }

    /// Adds a replica unless it is known.
    pub(super) fn create_replica(
        &mut self,
        master: Id,
        address: SocketAddr,
        ctx: &mut Context<'_>,
    ) -> Option<Id> {
        let known = &self.instances[master].replicas;
        if known.iter().any(|id| self.instances[*id].address == address) {
            return None;
        }
        let id = self.create(Kind::Replica, address.to_string(), address, ctx.wall_ms);
        self.instances[id].master = Some(master);
        self.instances[id].down_after = self.instances[master].down_after;
        self.instances[master].replicas.push(id);
        self.event(id, "+slave", "", ctx);
        Some(id)
    }

    pub(super) fn create_peer(
        &mut self,
        master: Id,
        run_id: &str,
        address: SocketAddr,
        ctx: &Context<'_>,
    ) -> Id {
        let id = self.create(Kind::Sentinel, run_id.to_owned(), address, ctx.wall_ms);
        self.instances[id].master = Some(master);
        self.instances[id].run_id = Some(run_id.to_owned());
        self.instances[id].down_after = self.instances[master].down_after;
        self.instances[master].peers.push(id);
        // One physical peer has one connection, however many masters it watches with us.
        let other = self.instances.iter().position(|other| {
            other.is_alive
                && other.kind == Kind::Sentinel
                && other.name == run_id
                && other.master != Some(master)
        });
        if let Some(other) = other {
            let link = self.instances[other].link;
            self.links[link].users += 1;
            self.instances[id].link = link;
        }
        id
    }

    /// Forgets an instance and what only it was connected by.
    pub(super) fn release(&mut self, id: Id, ctx: &mut Context<'_>) {
        self.instances[id].is_alive = false;
        let link = self.instances[id].link;
        self.links[link].users -= 1;
        if self.links[link].users == 0 {
            self.close_commands(link, ctx);
            self.close_subscription(link, ctx);
        } else if let Some(commands) = &mut self.links[link].commands {
            // What it asked for is answered to nobody.
            for asked in &mut commands.asked {
                let about = match *asked {
                    Asked::Nothing => continue,
                    Asked::Ping(id) | Asked::Info(id) | Asked::Hello(id) | Asked::Ask(id, _) => id,
                };
                if about == id {
                    *asked = Asked::Nothing;
                }
            }
        }
    }

    /// Where clients are sent to: after the promotion, to the new master.
    pub(super) fn current_address(&self, master: &Instance) -> SocketAddr {
        match master.promoted {
            Some(promoted) if master.in_failover && master.state >= State::ReconfSlaves => {
                self.instances[promoted].address
            }
            _ => master.address,
        }
    }

    /// Forgets what a master was, and closes its links.
    pub(super) fn reset_master(&mut self, id: Id, with_peers: bool, ctx: &mut Context<'_>) {
        for replica in std::mem::take(&mut self.instances[id].replicas) {
            self.release(replica, ctx);
        }
        if with_peers {
            for peer in std::mem::take(&mut self.instances[id].peers) {
                self.release(peer, ctx);
            }
        }
        let link = self.instances[id].link;
        self.close_commands(link, ctx);
        self.close_subscription(link, ctx);
        let now = ctx.wall_ms;
        let master = &mut self.instances[id];
        master.s_down = false;
        master.o_down = false;
        master.in_failover = false;
        master.is_forced = false;
        master.leader = None;
        master.state = State::None;
        master.state_change = 0;
        master.failover_start = 0;
        master.promoted = None;
        master.run_id = None;
        master.role_time = now;
        master.role = Role::Master;
        let link = &mut self.links[link];
        link.act_ping = now;
        link.last_ping = 0;
        link.last_available = now;
        link.last_pong = now;
    }

    /// Sends clients elsewhere: the replicas are known again under the new master, the old master
    /// among them.
    pub(super) fn change_address(&mut self, id: Id, to: SocketAddr, ctx: &mut Context<'_>) {
        let old = self.instances[id].address;
        let replicas = self.instances[id].replicas.iter().map(|id| self.instances[*id].address);
        let mut replicas: Vec<_> = replicas.filter(|address| *address != to).collect();
        if old != to {
            replicas.push(old);
        }
        self.reset_master(id, false, ctx);
        let master = &mut self.instances[id];
        master.address = to;
        master.s_down_since = 0;
        master.o_down_since = 0;
        for replica in replicas {
            self.create_replica(id, replica, ctx);
        }
        if !self.defects.keeps_confirmations {
            let link = self.instances[id].link;
            self.links[link].last_reconnect = 0;
            for peer in self.instances[id].peers.clone() {
                self.instances[peer].master_down = false;
                self.instances[peer].leader = None;
            }
        }
        self.save(ctx);
    }
}
