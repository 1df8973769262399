//! What servers say of themselves, and what follows from it.

use std::net::SocketAddr;

use super::super::process::Context;
use super::table::{Id, Kind, Reconf, Role, State};
use super::{Genuine, INFO_PERIOD, Ms, PUBLISH_PERIOD};

impl Genuine {
    /// Reads the reply of INFO.
    pub(super) fn informed(&mut self, id: Id, text: &str, ctx: &mut Context<'_>) {
        if !self.instances[id].is_alive {
            return;
        }
        self.instances[id].link_down = 0;
        let mut role = None;
        for line in text.split("\r\n") {
            let Some((key, value)) = line.split_once(':') else { continue };
            match key {
                "run_id" => self.identified(id, value, ctx),
                "role" if value == "master" => role = Some(Role::Master),
                "role" => role = Some(Role::Replica),
                "master_link_down_since_seconds" => {
                    self.instances[id].link_down = value.parse::<Ms>().unwrap_or(0) * 1000;
                }
                _ if key.starts_with("slave")
                    && key.as_bytes().get(5).is_some_and(u8::is_ascii_digit) =>
                {
                    self.listed(id, value, ctx);
                }
                _ if role == Some(Role::Replica) => self.replica_said(id, key, value, ctx.wall_ms),
                _ => {}
            }
        }
        self.instances[id].info_refresh = ctx.wall_ms;
        if let Some(role) = role {
            self.act_on_role(id, role, ctx);
        }
    }

    fn identified(&mut self, id: Id, run_id: &str, ctx: &mut Context<'_>) {
        let known = self.instances[id].run_id.replace(run_id.to_owned());
        if known.is_some_and(|known| known != run_id) {
            self.event(id, "+reboot", "", ctx);
        }
    }

    /// A master lists a replica.
    fn listed(&mut self, id: Id, value: &str, ctx: &mut Context<'_>) {
        if self.instances[id].kind != Kind::Master {
            return;
        }
        let (mut ip, mut port) = (None, None);
        for part in value.split(',') {
            match part.split_once('=') {
                Some(("ip", value)) => ip = value.parse().ok(),
                Some(("port", value)) => port = value.parse().ok(),
                _ => {}
            }
        }
        if let (Some(ip), Some(port)) = (ip, port)
            && self.create_replica(id, SocketAddr::new(ip, port), ctx).is_some()
        {
            self.save(ctx);
        }
    }

    fn replica_said(&mut self, id: Id, key: &str, value: &str, now: Ms) {
        let one = &mut self.instances[id];
        match key {
            "master_host" => {
                let port = one.follows.map_or(0, |follows| follows.port());
                let follows = value.parse().ok().map(|ip| SocketAddr::new(ip, port));
                if one.follows.map(|follows| follows.ip()) != follows.map(|follows| follows.ip()) {
                    one.conf_change = now;
                }
                one.follows = follows;
            }
            "master_port" => {
                if let (Some(follows), Ok(port)) = (&mut one.follows, value.parse())
                    && follows.port() != port
                {
                    follows.set_port(port);
                    one.conf_change = now;
                }
            }
            "master_link_status" => one.is_link_up = value == "up",
            "slave_priority" => one.priority = value.parse().unwrap_or(100),
            "slave_repl_offset" => one.offset = value.parse().unwrap_or(0),
            _ => {}
        }
    }

    fn act_on_role(&mut self, id: Id, role: Role, ctx: &mut Context<'_>) {
        let now = ctx.wall_ms;
        let one = &mut self.instances[id];
        if one.role != role {
            one.role = role;
            one.role_time = now;
            if role == Role::Replica {
                one.conf_change = now;
            }
            let is_expected = (one.kind == Kind::Master) == (role == Role::Master);
            let name = if is_expected { "+role-change" } else { "-role-change" };
            let word = if role == Role::Master { "master" } else { "slave" };
            self.event(id, name, &format!(" new reported role is {word}"), ctx);
        }
        if self.is_tilted || self.instances[id].kind != Kind::Replica {
            return;
        }
        let Some(master) = self.instances[id].master else { return };
        if role == Role::Master {
            let waits = self.instances[master].in_failover
                && self.instances[master].state == State::WaitPromotion;
            if self.instances[id].is_promoted && waits {
                self.commit(master, id, ctx);
            } else {
                self.demote_if_due(id, master, ctx);
            }
            return;
        }
        self.redirect_if_due(id, master, ctx);
        self.follow_reconf(id, master, ctx);
    }

    /// The chosen replica says that it is a master: the election is won for good.
    fn commit(&mut self, master: Id, promoted: Id, ctx: &mut Context<'_>) {
        let one = &mut self.instances[master];
        one.config_epoch = one.failover_epoch;
        one.state = State::ReconfSlaves;
        one.state_change = ctx.wall_ms;
        self.save(ctx);
        self.event(promoted, "+promoted-slave", "", ctx);
        self.event(master, "+failover-state-reconf-slaves", "", ctx);
        self.force_hello(master);
    }

    fn demote_if_due(&mut self, id: Id, master: Id, ctx: &mut Context<'_>) {
        let wait = PUBLISH_PERIOD * 4;
        let one = &self.instances[id];
        if !one.is_promoted
            && self.looks_sane(master, ctx.wall_ms)
            && self.was_up_for(id, wait, ctx.wall_ms)
            && ctx.wall_ms - one.role_time > wait
        {
            self.send_slave_of(id, Some(self.instances[master].address), ctx);
            self.event(id, "+convert-to-slave", "", ctx);
        }
    }

    fn redirect_if_due(&mut self, id: Id, master: Id, ctx: &mut Context<'_>) {
        let one = &self.instances[id];
        let at = self.instances[master].address;
        let wait = self.instances[master].failover_timeout;
        if one.follows != Some(at)
            && self.looks_sane(master, ctx.wall_ms)
            && self.was_up_for(id, wait, ctx.wall_ms)
            && ctx.wall_ms - one.conf_change > wait
        {
            self.send_slave_of(id, Some(at), ctx);
            self.event(id, "+fix-slave-config", "", ctx);
        }
    }

    fn follow_reconf(&mut self, id: Id, master: Id, ctx: &mut Context<'_>) {
        let promoted = self.instances[master].promoted;
        let at = promoted.map(|promoted| self.instances[promoted].address);
        let one = &mut self.instances[id];
        if one.reconf == Reconf::Sent && at.is_some() && one.follows == at {
            one.reconf = Reconf::InProgress;
            self.event(id, "+slave-reconf-inprog", "", ctx);
        }
        let one = &mut self.instances[id];
        if one.reconf == Reconf::InProgress && one.is_link_up {
            one.reconf = Reconf::Done;
            self.event(id, "+slave-reconf-done", "", ctx);
        }
    }

    fn looks_sane(&self, master: Id, now: Ms) -> bool {
        let master = &self.instances[master];
        master.role == Role::Master
            && !master.s_down
            && !master.o_down
            && now - master.info_refresh < INFO_PERIOD * 2
    }

    fn was_up_for(&self, id: Id, wait: Ms, now: Ms) -> bool {
        let one = &self.instances[id];
        let last = one.s_down_since.max(one.o_down_since);
        last == 0 || now - last > wait
    }
}
