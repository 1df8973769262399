//! SENTINEL and its subcommands.

use std::time::Duration;

use super::clients::{ClientKey, Served};
use super::links::Node;
use super::master::{Master, Server, Voice};
use super::monitor::is_fast_down;
use super::ordinary::unknown_subcommand;
use super::pubsub::is_match;
use super::scripts::delay;
use super::{MasterId, Sentinel};
use crate::sentinel::election::StartError;
use crate::sentinel::failover::State;
use crate::sentinel::info::MasterLink;
use crate::sentinel::instance::{Address, Epoch, Flag, Flags, MasterName, RunId};
use crate::sentinel::reply::{
    self, Common, IN_PROGRESS, NO_GOOD_REPLICA, NO_SUCH_MASTER, Protocol, Reported, Usable,
};
use crate::time::Instant;
use crate::wire::resp::encode;

/// Every subcommand.
pub(super) const SUBCOMMANDS: [&str; 28] = [
    "ckquorum",
    "config",
    "debug",
    "explain",
    "failover",
    "flushconfig",
    "forget",
    "get-master-addr-by-name",
    "get-primary-addr-by-name",
    "help",
    "info-cache",
    "is-master-down-by-addr",
    "is-primary-down-by-addr",
    "lease",
    "master",
    "masters",
    "monitor",
    "myid",
    "pending-scripts",
    "primaries",
    "primary",
    "remove",
    "replicas",
    "reset",
    "sentinels",
    "set",
    "simulate-failure",
    "slaves",
];

/// Moments at which the process is to end, for tests of the others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SimulatedFailure {
    pub(super) after_election: bool,
    pub(super) after_promotion: bool,
}

impl Sentinel {
    pub(super) fn sentinel_command(
        &mut self,
        now: Instant,
        key: ClientKey,
        rest: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Served {
        let [sub, args @ ..] = rest else { return Served::Done };
        let word = String::from_utf8_lossy(sub).to_ascii_lowercase();
        let Some(known) = SUBCOMMANDS.iter().find(|known| **known == word) else {
            unknown_subcommand(out, "SENTINEL", sub);
            return Served::Done;
        };
        match (*known, args) {
            ("help", []) => super::help::encode(&super::help::SENTINEL, out),
            ("myid", []) => encode::bulk(out, self.myid.as_bytes()),
            ("masters" | "primaries", []) => self.masters_command(now, key, out),
            ("master" | "primary", [name]) => self.of_master(name, out, |this, id, out| {
                this.encode_master(now, id, this.protocol(key), out);
            }),
            ("replicas" | "slaves", [name]) => self.of_master(name, out, |this, id, out| {
                this.encode_replicas(now, id, this.protocol(key), out);
            }),
            ("sentinels", [name]) => self.of_master(name, out, |this, id, out| {
                this.encode_sentinels(now, id, this.protocol(key), out);
            }),
            ("get-master-addr-by-name" | "get-primary-addr-by-name", [name]) => {
                let master = self.find(name).and_then(|id| self.masters.get(&id));
                let address = master.map(|master| self.announced(master.belief().address));
                reply::encode_address(address.as_ref(), self.protocol(key), out);
            }
            ("is-master-down-by-addr" | "is-primary-down-by-addr", [_, _, _, _]) => {
                if self.handle_ask(now, key, args, out) {
                    return Served::Waits;
                }
            }
            ("ckquorum", [name]) => self.of_master(name, out, |this, id, out| {
                this.usable(id).encode(out);
            }),
            ("failover", [name]) => self.failover_command(now, name, out),
            // Valkey's word for what ours always is: nothing acknowledged is lost.
            ("failover", [name, how]) if how.eq_ignore_ascii_case(b"coordinated") => {
                self.failover_command(now, name, out);
            }
            ("reset", [glob]) => self.reset_command(now, glob, out),
            ("remove", [name]) => return self.remove_command(key, name, out),
            ("monitor", [name, host, port, quorum]) => {
                return self.monitor_command(now, key, [name, host, port, quorum], out);
            }
            ("set", [name, settings @ ..]) if settings.len() >= 2 => {
                return self.set_command(now, key, name, settings, out);
            }
            ("config", [_, _, ..]) => return self.config_command(now, key, args, out),
            ("debug", _) => self.debug_command(now, key, args, out),
            ("flushconfig", []) => {
                self.store.want_for(super::store::Waiter::Client(key));
                return Served::Waits;
            }
            ("info-cache", [_, ..]) => self.info_cache(now, args, out),
            ("pending-scripts", []) => self.pending_scripts(now, key, out),
            ("simulate-failure", [_, ..]) => self.simulate_failure(args, out),
            ("forget", [name, who]) => return self.forget_command(now, key, name, who, out),
            ("lease", [name, words @ ..]) => match self.find(name) {
                Some(id) if self.lease_command(now, id, words, out) => {}
                Some(_) => encode::error(out, "ERR Unknown words of a lease"),
                None => encode::error(out, NO_SUCH_MASTER),
            },
            ("explain", [name]) => self.of_master(name, out, |this, id, out| {
                this.explain(now, id, out);
            }),
            _ => {
                let text = format!("ERR wrong number of arguments for 'sentinel|{known}' command");
                encode::error(out, &text);
            }
        }
        Served::Done
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<MasterId> {
        let name = std::str::from_utf8(name).ok().and_then(MasterName::new)?;
        self.names.get(&name).copied()
    }

    fn of_master(
        &self,
        name: &[u8],
        out: &mut Vec<u8>,
        write: impl FnOnce(&Self, MasterId, &mut Vec<u8>),
    ) {
        match self.find(name) {
            Some(id) => write(self, id, out),
            None => encode::error(out, NO_SUCH_MASTER),
        }
    }

    fn masters_command(&self, now: Instant, key: ClientKey, out: &mut Vec<u8>) {
        encode::array_header(out, self.names.len());
        for (id, _) in self.each_master() {
            self.encode_master(now, id, self.protocol(key), out);
        }
    }

    /// Who could take part in a fail-over.
    pub(super) fn usable(&self, id: MasterId) -> Usable {
        let Some(master) = self.masters.get(&id) else {
            return Usable { usable: 0, voters: 0, quorum: 0 };
        };
        let up = master.voices.values().filter(|voice| !voice.watch.is_down()).count();
        Usable { usable: up + 1, voters: master.voices.len() + 1, quorum: master.quorum() }
    }

    fn common<'a>(
        &self,
        now: Instant,
        name: &'a str,
        address: &'a Address,
        run_id: Option<RunId>,
        link: super::links::LinkId,
        down_after: Duration,
    ) -> Common<'a> {
        let link = self.links.get(link);
        let since = |at: Option<Instant>| at.map(|at| now.since(at)).unwrap_or_default();
        Common {
            name,
            address,
            run_id,
            flags: Flags::EMPTY,
            pending_commands: link.map_or(0, super::links::Link::pending),
            link_refcount: 1,
            last_ping_sent: since(link.and_then(|link| link.pings.waiting_since)),
            last_ok_ping_reply: since(link.map(|link| link.pings.acceptable_at)),
            last_ping_reply: since(link.map(|link| link.pings.answered_at)),
            subjectively_down: None,
            objectively_down: None,
            down_after,
        }
    }

    fn reported(now: Instant, server: &Server) -> Reported {
        let at = server.info.as_ref().map(|(at, _)| *at);
        Reported {
            info_refresh: at.map(|at| now.since(at)).unwrap_or_default(),
            role: server.role,
            role_time: now.since(server.role_since),
        }
    }

    fn encode_master(&self, now: Instant, id: MasterId, protocol: Protocol, out: &mut Vec<u8>) {
        let Some(master) = self.masters.get(&id) else { return };
        let server = &master.server;
        let address = self.announced(&server.address);
        let name = master.name().as_str();
        let mut common =
            self.common(now, name, &address, server.run_id, server.commands, master.down_after());
        common.flags = master.flags(Node::Master, &self.links);
        common.subjectively_down = server.watch.down_since().map(|at| now.since(at));
        common.objectively_down = master.down_at.map(|at| now.since(at));
        let state = master.failover.state();
        let view = reply::Master {
            common,
            failover_state: (*state != State::None).then(|| state.word()),
            reported: Self::reported(now, server),
            config_epoch: master.belief().config_epoch,
            replicas: master.replicas.len(),
            other_sentinels: master.voices.len(),
            quorum: master.quorum(),
            failover_timeout: master.failover_timeout(),
            parallel_syncs: master.settings.parallel_syncs.get(),
            notification_script: master.settings.notification_script.as_deref(),
            client_reconfig_script: master.settings.client_reconfig_script.as_deref(),
        };
        view.encode(protocol, out);
    }

    fn encode_replicas(&self, now: Instant, id: MasterId, protocol: Protocol, out: &mut Vec<u8>) {
        let Some(master) = self.masters.get(&id) else { return };
        let is_shown =
            |server: &Server| server.replica_report().is_none_or(|(_, report)| report.is_announced);
        let shown: Vec<(&u32, &Server)> =
            master.replicas.iter().filter(|(_, server)| is_shown(server)).collect();
        encode::array_header(out, shown.len());
        for (at, server) in shown {
            self.encode_replica(now, master, *at, server, protocol, out);
        }
    }

    fn encode_replica(
        &self,
        now: Instant,
        master: &Master,
        at: u32,
        server: &Server,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) {
        let address = self.announced(&server.address);
        let name = address.to_string();
        let mut common =
            self.common(now, &name, &address, server.run_id, server.commands, master.down_after());
        common.flags = master.flags(Node::Replica(at), &self.links);
        common.subjectively_down = server.watch.down_since().map(|at| now.since(at));
        let report = server.replica_report().map(|(_, report)| report);
        let link = report.map(|report| report.link);
        let view = reply::Replica {
            common,
            reported: Self::reported(now, server),
            link_down: match link {
                Some(MasterLink::Down(since)) => since,
                Some(MasterLink::Up | MasterLink::NeverUp) | None => Duration::ZERO,
            },
            is_link_up: link == Some(MasterLink::Up),
            master: report.and_then(|report| report.master.as_ref()),
            priority: report.map_or(100, |report| report.priority),
            offset: report.map_or(0, |report| report.offset),
            is_announced: report.is_none_or(|report| report.is_announced),
        };
        view.encode(protocol, out);
    }

    fn encode_sentinels(&self, now: Instant, id: MasterId, protocol: Protocol, out: &mut Vec<u8>) {
        let Some(master) = self.masters.get(&id) else { return };
        let known: Vec<(&RunId, &Voice)> = master.voices.iter().collect();
        encode::array_header(out, known.len());
        for (peer, voice) in known {
            let Some(link) = self.peer_links.get(peer).map(|known| known.link) else { continue };
            let Some((_, address, hello)) = master.peers.iter().find(|(id, ..)| *id == peer) else {
                continue;
            };
            let name = peer.as_str();
            let mut common =
                self.common(now, name, address, Some(*peer), link, master.down_after());
            common.link_refcount =
                self.masters.values().filter(|m| m.voices.contains_key(peer)).count();
            let mut set = |is_set: bool, flag: Flag| {
                if is_set {
                    common.flags = common.flags.with(flag);
                }
            };
            set(voice.watch.is_down(), Flag::SubjectivelyDown);
            set(!self.links.is_open(link), Flag::Disconnected);
            let is_fresh = |at: Instant| now.since(at) <= self.periods.ask * 5;
            let says_down = voice.answer.is_some_and(|(at, answer)| answer.is_down && is_fresh(at));
            set(says_down && master.server.watch.is_down(), Flag::MasterDown);
            common.subjectively_down = voice.watch.down_since().map(|at| now.since(at));
            let view = reply::Sentinel {
                common,
                last_hello: hello.map(|at| now.since(at)).unwrap_or_default(),
                voted_leader: voice.vote.0,
                voted_leader_epoch: voice.vote.1,
            };
            view.encode(protocol, out);
        }
    }

    fn failover_command(&mut self, now: Instant, name: &[u8], out: &mut Vec<u8>) {
        let Some(id) = self.find(name) else {
            encode::error(out, NO_SUCH_MASTER);
            return;
        };
        if self.is_failing_over(id) {
            encode::error(out, IN_PROGRESS);
            return;
        }
        let selection = self.masters.get(&id).map(|master| self.selection(now, master));
        if selection.is_none_or(|selection| selection.chosen.is_none()) {
            encode::error(out, NO_GOOD_REPLICA);
            return;
        }
        match self.begin_forced(now, id) {
            Ok(()) => encode::simple(out, "OK"),
            Err(StartError::NotDurable) => {
                let text = "ERR Failed to save config file. Check server logs.";
                encode::error(out, text);
            }
            Err(_) => encode::error(out, IN_PROGRESS),
        }
    }

    fn reset_command(&mut self, now: Instant, glob: &[u8], out: &mut Vec<u8>) {
        let matching: Vec<MasterId> = self
            .each_master()
            .filter(|(_, master)| is_match(glob, master.name().as_str().as_bytes()))
            .map(|(id, _)| id)
            .collect();
        encode::integer(out, i64::try_from(matching.len()).unwrap_or(i64::MAX));
        for id in matching {
            self.reset(now, id);
        }
    }

    fn remove_command(&mut self, key: ClientKey, name: &[u8], out: &mut Vec<u8>) -> Served {
        let Some(id) = self.find(name) else {
            encode::error(out, NO_SUCH_MASTER);
            return Served::Done;
        };
        self.unmonitor(id);
        self.store.want_for(super::store::Waiter::Client(key));
        Served::Waits
    }

    /// Forgets a peer that is gone for good, unless too few of those that were would be left.
    fn forget_command(
        &mut self,
        now: Instant,
        key: ClientKey,
        name: &[u8],
        who: &[u8],
        out: &mut Vec<u8>,
    ) -> Served {
        let Some(id) = self.find(name) else {
            encode::error(out, NO_SUCH_MASTER);
            return Served::Done;
        };
        let Some(master) = self.masters.get(&id) else { return Served::Done };
        let found = master.peers.iter().find(|(peer, address, _)| {
            peer.as_bytes() == who || address.to_string().as_bytes() == who
        });
        let Some(peer) = found.map(|(peer, ..)| *peer) else {
            encode::error(out, "ERR No such Sentinel");
            return Served::Done;
        };
        let others = master.voices.iter().filter(|(id, _)| **id != peer);
        let alive = 1 + others.filter(|(_, voice)| !voice.watch.is_down()).count();
        let voters = master.voices.len() + 1;
        if alive <= voters / 2 {
            let text = format!(
                "ERR Only {alive} of {voters} Sentinels would be left, and that is no majority"
            );
            encode::error(out, &text);
            return Served::Done;
        }
        self.forget_peer(id, &peer);
        if let Some(master) = self.masters.get_mut(&id) {
            master.forgotten.retain(|_, at| now.since(*at) < super::hellos::TOMBSTONE);
            master.forgotten.insert(peer, now);
        }
        self.store.want_for(super::store::Waiter::Client(key));
        Served::Waits
    }

    fn info_cache(&self, now: Instant, names: &[&[u8]], out: &mut Vec<u8>) {
        let found: Vec<&Master> =
            names.iter().filter_map(|name| self.masters.get(&self.find(name)?)).collect();
        encode::array_header(out, found.len() * 2);
        for master in found {
            encode::bulk(out, master.name().as_str().as_bytes());
            encode::array_header(out, master.replicas.len() + 1);
            for server in std::iter::once(&master.server).chain(master.replicas.values()) {
                encode::array_header(out, 2);
                let age = server.info.as_ref().map(|(at, _)| now.since(*at).as_millis());
                let age = age.and_then(|age| i64::try_from(age).ok());
                encode::integer(out, age.unwrap_or(0));
                if server.info.is_some() {
                    encode::bulk(out, &server.info_text);
                } else {
                    encode::null_bulk(out);
                }
            }
        }
    }

    fn pending_scripts(&self, now: Instant, key: ClientKey, out: &mut Vec<u8>) {
        let protocol = self.protocol(key);
        let running = self.scripts.running.iter().map(|(job, running)| {
            (&running.script, Some(job.0), "run-time", now.since(running.since))
        });
        let waiting = self
            .scripts
            .waiting
            .iter()
            .map(|script| (script, None, "run-delay", delay(script, now)));
        let all: Vec<_> = running.chain(waiting).collect();
        encode::array_header(out, all.len());
        for (script, job, word, time) in all {
            match protocol {
                Protocol::Resp2 => encode::array_header(out, 10),
                Protocol::Resp3 => encode::map_header(out, 5),
            }
            encode::bulk(out, b"argv");
            encode::array_header(out, script.argv.len());
            script.argv.iter().for_each(|word| encode::bulk(out, word));
            let flags = if job.is_some() { "running" } else { "scheduled" };
            let fields = [
                ("flags", flags.to_owned()),
                ("pid", job.unwrap_or(0).to_string()),
                (word, time.as_millis().to_string()),
                ("retry-num", script.runs.to_string()),
            ];
            for (name, value) in fields {
                encode::bulk(out, name.as_bytes());
                encode::bulk(out, value.as_bytes());
            }
        }
    }

    fn simulate_failure(&mut self, args: &[&[u8]], out: &mut Vec<u8>) {
        let mut failure = SimulatedFailure::default();
        for arg in args {
            match arg.to_ascii_lowercase().as_slice() {
                b"crash-after-election" => failure.after_election = true,
                b"crash-after-promotion" => failure.after_promotion = true,
                b"help" => {
                    encode::array_header(out, 2);
                    encode::bulk(out, b"crash-after-election");
                    encode::bulk(out, b"crash-after-promotion");
                    return;
                }
                _ => {
                    encode::error(out, "ERR Unknown failure simulation specified");
                    return;
                }
            }
        }
        self.failure = failure;
        encode::simple(out, "OK");
    }

    /// Whether we see this master down, in whatever way.
    pub(super) fn sees_down(&self, now: Instant, master: &Master) -> bool {
        master.server.watch.is_down() || is_fast_down(master, now)
    }

    /// Returns where a master is, and since which election.
    pub fn master_address(&self, name: &MasterName) -> Option<(&Address, Epoch)> {
        let master = self.names.get(name).and_then(|id| self.masters.get(id))?;
        let belief = master.belief();
        Some((belief.address, belief.config_epoch))
    }
}
