//! Connections, what is sent over them from time to time, and whom their silence makes look down.

use std::collections::VecDeque;

use super::super::process::{Conn, Context, command};
use super::table::{Asked, Commands, Id, Instance, Kind, Role, Subscription};
use super::{
    ASK_PERIOD, Genuine, HELLO, INFO_PERIOD, LINK_AGE_MIN, Ms, PENDING_MAX, PING_PERIOD,
    PUBLISH_PERIOD,
};
use crate::codec::{Bytes, Parsed, Reply, scan_reply};

/// What a connection of ours is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    Commands(usize),
    /// Of an instance, whose hellos come here.
    Subscription(usize),
}

impl Genuine {
    pub(super) fn reconnect(&mut self, id: Id, ctx: &mut Context<'_>) {
        let one = &self.instances[id];
        let (index, kind, address) = (one.link, one.kind, one.address);
        let now = ctx.wall_ms;
        let link = &mut self.links[index];
        if !link.is_disconnected || now - link.last_reconnect < PING_PERIOD {
            return;
        }
        link.last_reconnect = now;
        let short = &self.my_id[..8];
        if link.commands.is_none() {
            let conn = ctx.connect(address);
            let name = format!("sentinel-{short}-cmd");
            link.commands = Some(Commands {
                conn,
                is_connected: false,
                since: now,
                input: Bytes::default(),
                asked: VecDeque::from([Asked::Nothing]),
            });
            link.pending = 0;
            self.owners.insert(conn, Owner::Commands(index));
            ctx.send(conn, command(&["CLIENT", "SETNAME", &name]));
            self.send_ping(id, ctx);
        }
        let link = &mut self.links[index];
        if kind != Kind::Sentinel && link.subscription.is_none() {
            let conn = ctx.connect(address);
            let name = format!("sentinel-{}-pubsub", &self.my_id[..8]);
            link.subscription = Some(Subscription {
                conn,
                since: now,
                last_activity: now,
                input: Bytes::default(),
            });
            self.owners.insert(conn, Owner::Subscription(index));
            ctx.send(conn, command(&["CLIENT", "SETNAME", &name]));
            ctx.send(conn, command(&["SUBSCRIBE", HELLO]));
        }
        self.links[index].is_disconnected = false;
    }

    pub(super) fn close_commands(&mut self, link: usize, ctx: &mut Context<'_>) {
        if let Some(commands) = self.links[link].commands.take() {
            self.owners.remove(&commands.conn);
            ctx.close(commands.conn);
            self.links[link].pending = 0;
            self.links[link].is_disconnected = true;
        }
    }

    pub(super) fn close_subscription(&mut self, link: usize, ctx: &mut Context<'_>) {
        if let Some(subscription) = self.links[link].subscription.take() {
            self.owners.remove(&subscription.conn);
            ctx.close(subscription.conn);
            self.links[link].is_disconnected = true;
        }
    }

    pub(super) fn link_connected(&mut self, conn: Conn) {
        if let Some(Owner::Commands(link)) = self.owners.get(&conn)
            && let Some(commands) = &mut self.links[*link].commands
        {
            commands.is_connected = true;
        }
    }

    pub(super) fn link_gone(&mut self, conn: Conn) {
        let link = match self.owners.remove(&conn) {
            Some(Owner::Commands(link)) => {
                self.links[link].commands = None;
                link
            }
            Some(Owner::Subscription(link)) => {
                self.links[link].subscription = None;
                link
            }
            None => return,
        };
        self.links[link].is_disconnected = true;
    }

    /// Sends a command whose reply is remembered for what it is.
    pub(super) fn send(&mut self, id: Id, words: &[&str], asked: Asked, ctx: &mut Context<'_>) {
        let link = &mut self.links[self.instances[id].link];
        if let Some(commands) = &mut link.commands {
            commands.asked.push_back(asked);
            link.pending += 1;
            ctx.send(commands.conn, command(words));
        }
    }

    fn send_ping(&mut self, id: Id, ctx: &mut Context<'_>) {
        self.send(id, &["PING"], Asked::Ping(id), ctx);
        let link = &mut self.links[self.instances[id].link];
        link.last_ping = ctx.wall_ms;
        if link.act_ping == 0 {
            link.act_ping = ctx.wall_ms;
        }
    }

    pub(super) fn send_periodic(&mut self, id: Id, ctx: &mut Context<'_>) {
        let now = ctx.wall_ms;
        let one = &self.instances[id];
        let link = &self.links[one.link];
        if link.is_disconnected || link.pending >= PENDING_MAX * link.users {
            return;
        }
        let info_period = if self.is_watched_closely(one) { 1_000 } else { INFO_PERIOD };
        let ping_period = one.down_after.min(PING_PERIOD);
        let wants_info = one.kind != Kind::Sentinel
            && (one.info_refresh == 0 || now - one.info_refresh > info_period);
        let wants_ping =
            now - link.last_pong > ping_period && now - link.last_ping > ping_period / 2;
        let wants_hello = now - one.last_pub > PUBLISH_PERIOD;
        if wants_info {
            self.send(id, &["INFO"], Asked::Info(id), ctx);
        }
        if wants_ping {
            self.send_ping(id, ctx);
        }
        if wants_hello {
            self.send_hello(id, ctx);
        }
    }

    fn is_watched_closely(&self, one: &Instance) -> bool {
        let master = one.master.map(|master| &self.instances[master]);
        one.kind == Kind::Replica
            && (one.link_down != 0
                || master.is_some_and(|master| master.o_down || master.in_failover))
    }

    fn send_hello(&mut self, id: Id, ctx: &mut Context<'_>) {
        let one = &self.instances[id];
        // The address is that of the socket, which only an established one has.
        if !self.links[one.link].commands.as_ref().is_some_and(|commands| commands.is_connected) {
            return;
        }
        let master = &self.instances[one.master.unwrap_or(id)];
        let at = self.current_address(master);
        let payload = format!(
            "{},{},{},{},{},{},{},{}",
            self.address.ip(),
            self.address.port(),
            self.my_id,
            self.current_epoch,
            master.name,
            at.ip(),
            at.port(),
            master.config_epoch
        );
        self.send(id, &["PUBLISH", HELLO, &payload], Asked::Hello(id), ctx);
    }

    pub(super) fn link_received(&mut self, conn: Conn, bytes: &[u8], ctx: &mut Context<'_>) {
        match self.owners.get(&conn).copied() {
            Some(Owner::Commands(link)) => self.replies(link, conn, bytes, ctx),
            Some(Owner::Subscription(link)) => self.messages(link, conn, bytes, ctx),
            None => {}
        }
    }

    fn replies(&mut self, link: usize, conn: Conn, bytes: &[u8], ctx: &mut Context<'_>) {
        let Some(commands) = &mut self.links[link].commands else { return };
        commands.input.push(bytes);
        let mut input = std::mem::take(&mut commands.input);
        while let Parsed::Whole(reply, used) = scan_reply(input.as_slice()) {
            // Handling a reply may close the link that it came by.
            let Some(commands) = &mut self.links[link].commands else { return };
            if commands.conn != conn {
                return;
            }
            let asked = commands.asked.pop_front().unwrap_or(Asked::Nothing);
            if asked != Asked::Nothing {
                self.links[link].pending = self.links[link].pending.saturating_sub(1);
            }
            match asked {
                Asked::Nothing => {}
                Asked::Ping(id) => self.ponged(id, &reply, ctx),
                Asked::Info(id) => {
                    if let Reply::Bulk(Some(text)) = reply {
                        self.informed(id, &String::from_utf8_lossy(text), ctx);
                    }
                }
                Asked::Hello(id) => {
                    if !matches!(reply, Reply::Error(_)) {
                        self.instances[id].last_pub = ctx.wall_ms;
                    }
                }
                Asked::Ask(id, about) => {
                    let master = self.instances[id].master;
                    let at = master.map(|master| self.instances[master].address);
                    // Whether it was about where the master is now is not looked at.
                    if self.defects.keeps_confirmations || at == Some(about) {
                        self.answered(id, &reply, ctx.wall_ms);
                    }
                }
            }
            input.skip(used);
        }
        if let Some(commands) = &mut self.links[link].commands
            && commands.conn == conn
        {
            commands.input = input;
        }
    }

    fn ponged(&mut self, id: Id, reply: &Reply<&[u8]>, ctx: &mut Context<'_>) {
        let link = self.instances[id].link;
        let text = match reply {
            Reply::Status(text) | Reply::Error(text) => *text,
            Reply::Integer(_) | Reply::Bulk(_) | Reply::Array(_) => &[],
        };
        let is_good = [&b"PONG"[..], b"LOADING", b"MASTERDOWN"].iter().any(|w| text.starts_with(w));
        self.links[link].last_pong = ctx.wall_ms;
        if is_good {
            self.links[link].last_available = ctx.wall_ms;
            self.links[link].act_ping = 0;
        }
    }

    fn answered(&mut self, id: Id, reply: &Reply<&[u8]>, now: Ms) {
        let Reply::Array(Some(items)) = reply else { return };
        let [Reply::Integer(down), Reply::Bulk(Some(leader)), Reply::Integer(epoch)] = &items[..]
        else {
            return;
        };
        let peer = &mut self.instances[id];
        peer.last_ask_reply = now;
        peer.master_down = *down == 1;
        if *leader != b"*" {
            peer.leader = Some(String::from_utf8_lossy(leader).into_owned());
            peer.leader_epoch = u64::try_from(*epoch).unwrap_or(0);
        }
    }

    fn messages(&mut self, link: usize, conn: Conn, bytes: &[u8], ctx: &mut Context<'_>) {
        let Some(subscription) = &mut self.links[link].subscription else { return };
        subscription.input.push(bytes);
        let mut input = std::mem::take(&mut subscription.input);
        while let Parsed::Whole(reply, used) = scan_reply(input.as_slice()) {
            let Some(subscription) = &mut self.links[link].subscription else { return };
            if subscription.conn != conn {
                return;
            }
            subscription.last_activity = ctx.wall_ms;
            if let Reply::Array(Some(items)) = reply
                && let [Reply::Bulk(Some(b"message")), _, Reply::Bulk(Some(payload))] = items[..]
            {
                let payload = String::from_utf8_lossy(payload);
                // The ID has no comma, and no word that is shorter has it.
                let mut words = payload.split(',').filter(|word| word.len() >= self.my_id.len());
                if !words.any(|word| word.contains(&self.my_id)) {
                    self.hello(&payload, ctx);
                }
            }
            input.skip(used);
        }
        if let Some(subscription) = &mut self.links[link].subscription
            && subscription.conn == conn
        {
            subscription.input = input;
        }
    }

    pub(super) fn check_subjectively_down(&mut self, id: Id, ctx: &mut Context<'_>) {
        let now = ctx.wall_ms;
        let one = &self.instances[id];
        let (index, down_after) = (one.link, one.down_after);
        let link = &self.links[index];
        let elapsed = if link.act_ping != 0 {
            now - link.act_ping
        } else if link.is_disconnected {
            now - link.last_available
        } else {
            0
        };
        let is_old = |since: Ms| now - since > LINK_AGE_MIN;
        let is_stuck = link.commands.as_ref().is_some_and(|commands| is_old(commands.since))
            && link.act_ping != 0
            && now - link.act_ping > down_after / 2
            && now - link.last_pong > down_after / 2;
        let is_deaf = link.subscription.as_ref().is_some_and(|subscription| {
            is_old(subscription.since) && now - subscription.last_activity > PUBLISH_PERIOD * 3
        });
        if is_stuck {
            self.close_commands(index, ctx);
        }
        if is_deaf {
            self.close_subscription(index, ctx);
        }
        let one = &self.instances[id];
        let is_demoted = one.kind == Kind::Master
            && one.role == Role::Replica
            && now - one.role_time > down_after + 2 * INFO_PERIOD;
        let is_down = elapsed > down_after || is_demoted;
        if is_down && !one.s_down {
            self.event(id, "+sdown", "", ctx);
            self.instances[id].s_down_since = now;
            self.instances[id].s_down = true;
        } else if !is_down && one.s_down {
            self.event(id, "-sdown", "", ctx);
            self.instances[id].s_down = false;
        }
    }

    pub(super) fn check_objectively_down(&mut self, id: Id, ctx: &mut Context<'_>) {
        let master = &self.instances[id];
        // What was said before a TILT, or before the process was stopped, is forgotten too late.
        let is_fresh = |peer: &Instance| {
            self.defects.keeps_confirmations || ctx.wall_ms - peer.last_ask_reply <= ASK_PERIOD * 5
        };
        let peers = master.peers.iter().map(|peer| &self.instances[*peer]);
        let peers = peers.filter(|peer| peer.master_down && is_fresh(peer)).count();
        let count = 1 + peers as u32;
        let is_down = master.s_down && count >= master.quorum;
        if is_down && !master.o_down {
            let behind = format!(" #quorum {count}/{}", master.quorum);
            self.event(id, "+odown", &behind, ctx);
            self.instances[id].o_down = true;
            self.instances[id].o_down_since = ctx.wall_ms;
        } else if !is_down && master.o_down {
            self.event(id, "-odown", "", ctx);
            self.instances[id].o_down = false;
        }
    }

    /// Asks peers what they think of a master that seems down, and for their votes if we stand.
    pub(super) fn ask_peers(&mut self, id: Id, is_forced: bool, ctx: &mut Context<'_>) {
        let now = ctx.wall_ms;
        for peer in self.instances[id].peers.clone() {
            let elapsed = now - self.instances[peer].last_ask_reply;
            if elapsed > ASK_PERIOD * 5 {
                self.instances[peer].master_down = false;
                self.instances[peer].leader = None;
            }
            let master = &self.instances[id];
            if !master.s_down
                || self.links[self.instances[peer].link].is_disconnected
                || (!is_forced && elapsed < ASK_PERIOD)
            {
                continue;
            }
            let about = master.address;
            let (ip, port) = (about.ip().to_string(), about.port().to_string());
            let stands = master.state > super::State::None;
            let epoch = if self.defects.counts_wrong_epoch || !stands {
                self.current_epoch
            } else {
                master.failover_epoch
            };
            let (epoch, me) = (epoch.to_string(), self.my_id.clone());
            let who = if stands { me.as_str() } else { "*" };
            let words = ["SENTINEL", "is-master-down-by-addr", &ip, &port, &epoch, who];
            self.send(peer, &words, Asked::Ask(peer, about), ctx);
        }
    }
}
