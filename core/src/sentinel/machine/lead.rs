//! Carries a fail-over out: stands for election, chooses, promotes, and has the others follow.

use std::time::Duration;

use super::copies::TooFewSeen;
use super::links::{Expect, LinkId, Node, Owner};
use super::master::{Master, Planned};
use super::monitor::{Due, is_fast_down};
use super::say::Said;
use super::store::Waiter;
use super::{MasterId, Sentinel};
use crate::io::Output as Effect;
use crate::sentinel::ask::Ask;
use crate::sentinel::down::Asked;
use crate::sentinel::election::{self, NotElected, STICKY, StartError};
use crate::sentinel::event::{Event, Plain};
use crate::sentinel::failover::{Chosen, Input, Output, State};
use crate::sentinel::info::MasterLink;
use crate::sentinel::instance::{Address, Epoch, MasterName, Role, RunId};
use crate::sentinel::reconf::{self, Reconfiguration};
use crate::sentinel::select::{Candidate, Rule, Selection, Unfit, select};
use crate::time::Instant;
use crate::wire::resp::encode;

/// How long a choice waits for INFO of replicas that are connected.
const FRESH_INFO_WAIT: Duration = Duration::from_millis(150);

/// How far apart Sentinels that see the same at the same time stand for election. More than a vote
/// takes to be written and told, and little beside any down-after.
const STAGGER: Duration = Duration::from_millis(20);

/// How many writes it takes until a vote is written and told: the candidate's own and the voter's,
/// each of which may have to wait for one that is under way.
const STAGGER_WRITES: u32 = 4;

/// The longest that Sentinels stand apart because of slow disks.
const STAGGER_MAX: Duration = Duration::from_millis(400);

/// How much further apart for each master that is down.
const STAGGER_PER_MASTER: Duration = Duration::from_millis(4);

/// The first wait after an attempt that led nowhere; it doubles each time.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Longer than any replica that is worth anything has been without a master.
const DAYS: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long until somebody is looked for again when no replica was fit.
const CANDIDATE_RETRY: Duration = Duration::from_secs(1);

impl Sentinel {
    /// Asks peers whether they see the master down, and for their votes while we want to lead.
    pub(super) fn ask_peers(&mut self, now: Instant, id: MasterId, due: &mut Due) {
        let Some(master) = self.masters.get(&id) else { return };
        let suspects = master.server.watch.is_down()
            || (master.is_fast_down && master.server.is_refused)
            || *master.failover.state() == State::WaitStart;
        if !suspects {
            return;
        }
        // Peers that are not as far yet are asked again soon, but not without end.
        let shortest = Duration::from_millis(20);
        let period = (master.down_after() / 20).clamp(shortest, self.periods.ask.max(shortest));
        let period = if master.is_fast_down { shortest } else { period };
        // Whoever votes for nobody yet may do so a moment later, in the same election.
        let period = match self.elections.asks(master.name()) {
            Some(_) => shortest * 2,
            None if master.agreement.is_down() => self.periods.ask,
            None => period,
        };
        let asks: Vec<RunId> = master
            .voices
            .iter()
            .filter(|(_, voice)| !voice.is_asked)
            .filter(|(_, voice)| {
                let at = voice.asked_at.map(|at| at + period);
                due.maybe(at.filter(|at| *at > now));
                at.is_none_or(|at| at <= now)
            })
            .map(|(peer, _)| *peer)
            .collect();
        let standing = self.elections.asks(master.name());
        let candidate = standing.map(|_| self.myid);
        let epoch = standing.unwrap_or_else(|| self.elections.current_epoch());
        for peer in asks {
            if self.ask(now, id, &peer, epoch, candidate) {
                due.at(now + period);
            }
        }
    }

    fn ask(
        &mut self,
        now: Instant,
        id: MasterId,
        peer: &RunId,
        epoch: Epoch,
        candidate: Option<RunId>,
    ) -> bool {
        let Some(link) = self.peer_links.get(peer).map(|known| known.link) else { return false };
        let Some(master) = self.masters.get(&id) else { return false };
        let (address, config_epoch) = (master.server.address.clone(), master.config_epoch);
        let ask = Ask { address: self.announced(&address), epoch, candidate };
        let expect = Expect::Answer(id, Asked { address, config_epoch, at: now });
        let is_sent = self.links.send(link, Some(expect), |out| ask.encode(out));
        let voice = self.masters.get_mut(&id).and_then(|m| m.voices.get_mut(peer));
        if let Some(voice) = voice
            && is_sent
        {
            voice.asked_at = Some(now);
            voice.is_asked = true;
        }
        is_sent
    }

    /// Stands for election if there is cause, and goes on with what is under way.
    pub(super) fn consider_failover(&mut self, now: Instant, id: MasterId, due: &mut Due) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        let is_promoted_down = master
            .promoted()
            .and_then(|at| master.replicas.get(&at))
            .is_some_and(|server| server.watch.is_down());
        master.failover.set_promoted_down(is_promoted_down);
        if let Some(deadline) = master.failover.deadline() {
            if deadline <= now {
                self.inbox.push_back((id, Input::Timeout));
            } else {
                due.at(deadline);
            }
        }
        match master.failover.state() {
            State::None => self.consider_standing(now, id, due),
            State::SelectSlave { .. } => self.choose(now, id, due),
            State::SendSlaveofNoone(_) => self.promote(now, id, due),
            State::ReconfSlaves(_) => self.reconfigure(now, id, due),
            State::WaitStart
            | State::WaitPromotion(_)
            | State::Commit(_)
            | State::UpdateConfig(_) => {}
        }
    }

    fn consider_standing(&mut self, now: Instant, id: MasterId, due: &mut Due) {
        let Some(master) = self.masters.get(&id) else { return };
        if !master.agreement.is_down() || self.is_id_copied {
            return;
        }
        if master.waits_for_replica && self.selection(now, master).chosen.is_none() {
            due.at(now + CANDIDATE_RETRY);
            return;
        }
        let place = master.voices.keys().filter(|peer| **peer < self.myid).count();
        let place = u32::try_from(place).unwrap_or(u32::MAX).min(8);
        // Who stands for many masters at once takes longer to write it all down.
        let down = self.masters.values().filter(|master| master.server.watch.is_down()).count();
        // All of them may have a disk like ours: hosts that are busy are often busy together.
        let writes = (self.store.write_time(now) * STAGGER_WRITES).clamp(STAGGER, STAGGER_MAX);
        let wait = writes + STAGGER_PER_MASTER * u32::try_from(down).unwrap_or(u32::MAX).min(200);
        let jitter = self.rng.below(u64::try_from(STAGGER.as_micros() / 4).unwrap_or(1));
        let Some(master) = self.masters.get_mut(&id) else { return };
        let since = *master.stands_at.get_or_insert_with(|| now + Duration::from_micros(jitter));
        let at = since + wait * place;
        if at > now {
            due.at(at);
            return;
        }
        let peers = master.peers.electors();
        let (quorum, timeout) = (master.quorum(), master.failover_timeout());
        let name = master.name().clone();
        let ends = now + self.periods.election_timeout.min(timeout);
        match self.elections.start(now, &name, peers, quorum, ends) {
            Ok(_) => {
                master.stands_at = None;
                self.begin(now, id);
            }
            Err(StartError::Barred(until)) => {
                master.stands_at = None;
                due.at(until);
            }
            Err(StartError::NotDurable) => due.at(now + election::PERSIST_RETRY),
            Err(StartError::UnknownMaster | StartError::Busy | StartError::NoEpoch) => {}
        }
    }

    /// Tells of the new epoch before the attempt that it belongs to.
    fn begin(&mut self, now: Instant, id: MasterId) {
        if let Some(election::Output::NewEpoch(epoch)) = self.elections.poll_output() {
            self.say_own(&Event::NewEpoch(epoch));
        }
        self.lead(now, id, Input::Started);
    }

    /// Begins a fail-over that an operator wants, without asking anybody.
    pub(super) fn begin_forced(&mut self, now: Instant, id: MasterId) -> Result<(), StartError> {
        let Some(master) = self.masters.get_mut(&id) else {
            return Err(StartError::UnknownMaster);
        };
        if master.learnt.is_some() {
            return Err(StartError::Busy);
        }
        let name = master.name().clone();
        let ends = now + self.periods.election_timeout.min(master.failover_timeout());
        // An operator's word ends whatever kept us from standing.
        self.elections.unbar(&name);
        self.elections.start(now, &name, Vec::new(), 1, ends)?;
        master.is_forced = true;
        let message = format!("Executing user requested FAILOVER of '{name}'");
        self.note(message);
        self.begin(now, id);
        self.mark(id);
        Ok(())
    }

    /// Takes in what the elections say.
    pub(super) fn drain_elections(&mut self, now: Instant) {
        while let Some(output) = self.elections.poll_output() {
            match output {
                election::Output::Persist { ticket, record: _ } => {
                    self.store.want_for(Waiter::Election(ticket));
                }
                election::Output::Reply { ask, answer } => self.answer_ask(now, ask, &answer),
                election::Output::AskPeers { master, epoch: _ } => self.ask_for_votes(&master),
                election::Output::NewEpoch(epoch) => self.say_own(&Event::NewEpoch(epoch)),
                election::Output::EpochRefused(epoch) => {
                    self.note(format!("Refused epoch {epoch}: no history is that long"));
                }
                election::Output::Voted { master, leader, epoch } => {
                    let id = self.names.get(&master).copied();
                    if let Some(master) = id.and_then(|id| self.masters.get_mut(&id)) {
                        master.lease.bind(now, epoch);
                    }
                    self.say(id, Said::of(&Event::VoteForLeader(&leader, epoch)));
                }
                election::Output::Elected { master, epoch } => {
                    if let Some(id) = self.names.get(&master).copied() {
                        self.inbox.push_back((id, Input::Elected(epoch)));
                    }
                }
                election::Output::NotElected { master, why } => {
                    self.not_elected(now, &master, why);
                }
            }
        }
    }

    fn ask_for_votes(&mut self, master: &MasterName) {
        let Some(id) = self.names.get(master).copied() else { return };
        if let Some(master) = self.masters.get_mut(&id) {
            for voice in master.voices.values_mut() {
                voice.asked_at = None;
                // A question of the round before may still be on its way; this one is another.
                voice.is_asked = false;
            }
        }
        self.mark(id);
    }

    fn not_elected(&mut self, now: Instant, name: &MasterName, why: NotElected) {
        let Some(id) = self.names.get(name).copied() else { return };
        let Some(master) = self.masters.get_mut(&id) else { return };
        match why {
            // It was not ours to begin with.
            NotElected::Withdrawn => {}
            NotElected::VotedForOther => self.inbox.push_back((id, Input::Superseded)),
            NotElected::OtherWon => {
                self.elections.bar(name, now + STICKY);
                self.inbox.push_back((id, Input::Superseded));
            }
            NotElected::Timeout | NotElected::NotDurable | NotElected::NoEpoch => {
                let doubled = RETRY_FIRST * 2_u32.saturating_pow(master.attempts.min(12));
                let wait = doubled.min(master.failover_timeout() * 2);
                master.attempts = master.attempts.saturating_add(1);
                let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
                let jitter = Duration::from_nanos(self.rng.below(nanos));
                self.elections.bar(name, now + wait / 2 + jitter);
                self.inbox.push_back((id, Input::NotElected));
            }
        }
        self.mark(id);
    }

    /// Takes one step of a fail-over.
    pub(super) fn lead(&mut self, now: Instant, id: MasterId, input: Input) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        let mut outputs = Vec::new();
        let before = master.failover.state().word();
        master.failover.handle(now, input, &mut outputs);
        if master.failover.state().word() != before {
            master.failover_state_at = now;
        }
        for output in outputs {
            self.carry_out(now, id, output);
        }
        self.mark(id);
    }

    fn carry_out(&mut self, now: Instant, id: MasterId, output: Output) {
        match output {
            Output::Master(plain) => {
                if plain == Plain::AbortNoGoodSlave
                    && let Some(master) = self.masters.get_mut(&id)
                {
                    master.waits_for_replica = true;
                }
                self.say_plain(id, plain, Node::Master);
                self.crash_if_wanted(plain);
            }
            Output::Replica(plain, replica) => {
                let at = self.masters.get(&id).and_then(|m| m.find_replica(&replica));
                if let Some(at) = at {
                    self.say_plain(id, plain, Node::Replica(at));
                }
                self.crash_if_wanted(plain);
            }
            Output::Select => self.begin_choice(now, id),
            Output::Promote(replica) => self.begin_promotion(now, id, replica),
            Output::Watch(replica) => {
                let Some(master) = self.masters.get_mut(&id) else { return };
                let at = master.find_replica(&replica);
                if let Some(server) = at.and_then(|at| master.replicas.get_mut(&at)) {
                    server.wants_info = true;
                }
            }
            Output::Commit(chosen) => {
                self.store.want_for(Waiter::Commit(id, chosen.epoch));
            }
            Output::Announce(chosen) => self.announce(id, &chosen),
            Output::Reconfigure(chosen) => self.begin_reconfiguration(id, &chosen),
            Output::ReconfigureAll(chosen) => self.reconfigure_all(id, &chosen),
            Output::Switch(chosen) => {
                self.switch(now, id, &chosen.replica, chosen.epoch);
                self.inbox.push_back((id, Input::Switched));
            }
            Output::Finish => self.finish(id),
        }
    }

    fn finish(&mut self, id: MasterId) {
        self.resume_writes(id);
        let Some(master) = self.masters.get_mut(&id) else { return };
        master.reconfiguration = None;
        master.lease.finish();
        master.is_forced = false;
        master.planned = None;
        master.promote = None;
        master.selecting_since = None;
        master.stands_at = None;
        let name = master.name().clone();
        self.elections.finish(&name);
    }

    fn begin_choice(&mut self, now: Instant, id: MasterId) {
        self.ask_what_is_left(now, id);
        let Some(master) = self.masters.get_mut(&id) else { return };
        master.selecting_since = Some(now);
        for replica in master.replicas.values_mut() {
            replica.wants_info = true;
        }
        self.mark(id);
    }

    /// Chooses once every replica that can has said how far it is.
    fn choose(&mut self, now: Instant, id: MasterId, due: &mut Due) {
        let Some(master) = self.masters.get(&id) else { return };
        let Some(since) = master.selecting_since else { return };
        let is_fresh = master.replicas.values().all(|replica| {
            let is_there = self.links.is_open(replica.commands) && !replica.watch.is_down();
            !is_there || replica.info.as_ref().is_some_and(|(at, _)| *at >= since)
        });
        // Where the master serves, nobody should meet the end of its writes unprepared.
        let is_told = !master.is_forced || master.lease.is_told();
        let until = since + FRESH_INFO_WAIT;
        if !(is_fresh && is_told) && now < until {
            due.at(until);
            return;
        }
        let selection = self.selection(now, master);
        let candidates: Vec<&Address> = master.replicas.values().map(|r| &r.address).collect();
        let chosen = selection.chosen.and_then(|at| candidates.get(at).copied()).cloned();
        let input = chosen.map_or(Input::NoGoodSlave, Input::Selected);
        if let Some(master) = self.masters.get_mut(&id) {
            master.selecting_since = None;
            master.last_selection = Some(selection);
            master.waits_for_replica = false;
        }
        self.inbox.push_back((id, input));
    }

    /// Applies the rule: first to replicas of the last master's own history, then to those that
    /// still have the one before.
    pub(super) fn selection(&self, now: Instant, master: &Master) -> Selection {
        let candidates: Vec<Candidate<'_>> = master
            .replicas
            .values()
            .map(|replica| {
                let link = self.links.get(replica.commands);
                Candidate {
                    address: &replica.address,
                    run_id: replica.run_id,
                    is_down: replica.watch.is_down(),
                    is_connected: link.is_some_and(super::links::Link::is_open),
                    last_pong: link.map(|link| link.pings.acceptable_at),
                    report: replica.info.as_ref().map(|(at, info)| (*at, info)),
                }
            })
            .collect();
        let is_down = master.server.watch.is_down() || is_fast_down(master, now);
        let down_since = master.server.watch.down_since().unwrap_or(now);
        let offset_min = match self.furthest(now, master).filter(|_| is_down) {
            None => 0,
            Some(Ok(offset)) => offset,
            Some(Err(TooFewSeen)) => {
                let all = 0..candidates.len();
                let unfit = all.map(|at| (at, Unfit::TooFewSeen)).collect();
                return Selection { chosen: None, is_stale: false, unfit };
            }
        };
        let rule = Rule {
            master_down_for: is_down.then(|| now.since(down_since)),
            down_after: master.down_after(),
            ping_period: self.periods.ping,
            info_period: self.periods.info,
            lineage: master.lineage.replid,
            allows_stale: false,
            offset_min,
        };
        if let Some(chosen) = self.followed_by_master(master) {
            return Selection { chosen: Some(chosen), is_stale: false, unfit: Vec::new() };
        }
        let mut first = None;
        for is_patient in [false, true] {
            for lineage in [master.lineage.replid, master.lineage.replid2] {
                // Where all replicas have been without a master for long, as after a stall or a
                // restart of ours, their history still says whether they lack anything.
                let is_due = lineage.is_some() || (!is_patient && first.is_none());
                if !is_due {
                    continue;
                }
                let long = rule.master_down_for.map(|time| if is_patient { DAYS } else { time });
                let rule = Rule { lineage, master_down_for: long, ..rule };
                let selection = select(now, &candidates, &rule);
                if selection.chosen.is_some() {
                    return selection;
                }
                first.get_or_insert(selection);
            }
        }
        first.unwrap_or_else(|| select(now, &candidates, &rule))
    }

    /// Returns the replica that is followed by the server that should be its master, and says that
    /// it is one: whatever it lacks is lost already, and nobody else has more.
    fn followed_by_master(&self, master: &Master) -> Option<usize> {
        let (at, report) = master.server.replica_report()?;
        let down_since = master.server.watch.down_since();
        if at < master.server.role_since || down_since.is_some_and(|since| at < since) {
            // From before it became the master, or from before it was down: it may have been the
            // master since, and then the one that it followed lacks what was written to it.
            return None;
        }
        let of = report.master.as_ref().filter(|_| report.link == MasterLink::Up)?;
        master.replicas.values().position(|replica| {
            self.is_same_place(of, &replica.address)
                && replica.info.is_some()
                && replica.role == Role::Master
                && !replica.watch.is_down()
                && self.links.is_open(replica.commands)
        })
    }

    fn begin_promotion(&mut self, now: Instant, id: MasterId, replica: Address) {
        let timeout = self.masters.get(&id).map(Master::failover_timeout).unwrap_or_default();
        let Some(master) = self.masters.get_mut(&id) else { return };
        let serves = !master.server.watch.is_down() && !master.agreement.is_down();
        if master.is_forced && serves {
            let until = now + timeout.min(PLANNED_MAX);
            master.planned = Some(Planned::Pausing { replica: replica.clone(), until });
        }
        master.promote = Some(replica);
        self.pause_writes(id);
        self.mark(id);
    }

    /// Tells the chosen replica that it is the master, as soon as it can be told.
    fn promote(&mut self, now: Instant, id: MasterId, due: &mut Due) {
        if !self.is_caught_up(now, id, due) || !self.are_leases_over(now, id, due) {
            return;
        }
        if self.is_too_late(now, id) {
            self.inbox.push_back((id, Input::Superseded));
            return;
        }
        let Some(master) = self.masters.get(&id) else { return };
        let Some(replica) = master.promote.clone() else { return };
        let Some(at) = master.find_replica(&replica) else { return };
        let Some(link) = master.replicas.get(&at).map(|server| server.commands) else { return };
        if !self.send_slaveof(id, Node::Replica(at), None) {
            return;
        }
        self.send_info(now, id, Node::Replica(at), link);
        if let Some(master) = self.masters.get_mut(&id) {
            master.promote = None;
        }
        self.inbox.push_back((id, Input::Sent));
    }

    /// Sends the transaction that makes a server a replica of `of`, or a master; its clients are
    /// cut off, so that they ask where the master is.
    pub(super) fn send_slaveof(&mut self, id: MasterId, node: Node, of: Option<&Address>) -> bool {
        self.send_transaction(id, node, of, true)
    }

    /// Sends the transaction that makes a master that serves still a replica of `of`. Its clients
    /// stay: what they wrote while writes were paused is answered with `-READONLY`, so they know
    /// that it had no effect and can send it to the new master. Cut off, they would not know.
    fn send_handover(&mut self, id: MasterId, of: &Address) {
        self.send_transaction(id, Node::Master, Some(of), false);
    }

    fn send_transaction(
        &mut self,
        id: MasterId,
        node: Node,
        of: Option<&Address>,
        cuts_clients: bool,
    ) -> bool {
        let Some(link) = self.masters.get(&id).and_then(|m| m.server(node)).map(|s| s.commands)
        else {
            return false;
        };
        let port = of.map(|of| of.port().to_string());
        let announced = of.map(|of| self.announced(of));
        let target = match (&announced, &port) {
            (Some(of), Some(port)) => [of.host(), port.as_str()],
            _ => ["NO", "ONE"],
        };
        let name = |command| self.renamed(Owner::Commands(id, node), command);
        let [multi, slaveof, config, client, exec] =
            ["MULTI", "SLAVEOF", "CONFIG", "CLIENT", "EXEC"].map(name);
        let [host, port] = target;
        let lines: [&[&str]; 6] = [
            &[&multi],
            &[&slaveof, host, port],
            &[&config, "REWRITE"],
            &[&client, "KILL", "TYPE", "normal"],
            &[&client, "KILL", "TYPE", "pubsub"],
            &[&exec],
        ];
        let is_cut = |line: &[&str]| line.get(1) == Some(&"KILL");
        let mut lines = lines.into_iter().filter(|line| cuts_clients || !is_cut(line));
        lines.all(|line| self.send_words(link, Expect::Ignored, line))
    }

    pub(super) fn send_words(&mut self, link: LinkId, expect: Expect, words: &[&str]) -> bool {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.links.send(link, Some(expect), |out| encode::request(out, &words))
    }

    /// Tells clients and peers where the master is.
    ///
    /// Deviates: genuine leaders tell +switch-master when all replicas follow; everybody else has
    /// told it a second before.
    fn announce(&mut self, id: MasterId, chosen: &Chosen) {
        let Some(old) = self.masters.get(&id).map(|m| m.server.address.clone()) else { return };
        self.say_switch(id, &old, &chosen.replica);
        self.run_reconfig_script(id, true, &old, &chosen.replica);
        self.tell_all(id);
    }

    fn begin_reconfiguration(&mut self, id: MasterId, chosen: &Chosen) {
        let timeout = self.periods.slave_reconf_timeout;
        let is_planned = self.masters.get(&id).is_some_and(|m| m.planned.is_some());
        if is_planned {
            // The master that was serves still; it follows before anybody writes to it again.
            self.send_handover(id, &chosen.replica);
            self.resume_writes(id);
        }
        let Some(master) = self.masters.get_mut(&id) else { return };
        master.planned = None;
        let parallel = usize::try_from(master.settings.parallel_syncs.get()).unwrap_or(1);
        let reconfiguration = Reconfiguration::new(chosen.replica.clone(), parallel, timeout);
        master.reconfiguration = Some(reconfiguration);
        for replica in master.replicas.values_mut() {
            replica.wants_info = true;
        }
        self.mark(id);
    }

    /// Tells the other replicas, some at a time, until all that can be reached follow.
    fn reconfigure(&mut self, now: Instant, id: MasterId, due: &mut Due) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        let Some(mut all) = master.reconfiguration.take() else { return };
        let mut outputs = Vec::new();
        let Some(master) = self.masters.get(&id) else { return };
        let replicas = self.reconf_view(master);
        let is_done = all.evaluate(now, &replicas, &mut outputs);
        due.maybe(all.deadline());
        let is_promoted_down = master
            .promoted()
            .and_then(|at| master.replicas.get(&at))
            .is_some_and(|server| server.watch.is_down());
        if let Some(master) = self.masters.get_mut(&id) {
            master.reconfiguration = Some(all);
        }
        self.carry_out_reconf(id, outputs);
        if is_done && !is_promoted_down {
            self.inbox.push_back((id, Input::Reconfigured));
        }
    }

    fn reconf_view<'a>(&self, master: &'a Master) -> Vec<reconf::Replica<'a>> {
        let view = |server: &'a super::master::Server| reconf::Replica {
            address: &server.address,
            is_down: server.watch.is_down(),
            is_connected: self.links.is_open(server.commands),
            report: server.replica_report(),
        };
        master.replicas.values().map(view).collect()
    }

    fn reconfigure_all(&mut self, id: MasterId, _chosen: &Chosen) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        let Some(mut all) = master.reconfiguration.take() else { return };
        let mut outputs = Vec::new();
        let Some(master) = self.masters.get(&id) else { return };
        all.finish(&self.reconf_view(master), &mut outputs);
        if let Some(master) = self.masters.get_mut(&id) {
            master.reconfiguration = Some(all);
        }
        self.carry_out_reconf(id, outputs);
    }

    fn carry_out_reconf(&mut self, id: MasterId, outputs: Vec<reconf::Output>) {
        for output in outputs {
            let Some(master) = self.masters.get(&id) else { return };
            let to = master.failover.state().chosen().map(|chosen| chosen.replica.clone());
            match (output, to) {
                (reconf::Output::Send(address), Some(to)) => {
                    let Some(at) = master.find_replica(&address) else { continue };
                    self.send_slaveof(id, Node::Replica(at), Some(&to));
                    let replica = self.masters.get_mut(&id).and_then(|m| m.replicas.get_mut(&at));
                    if let Some(replica) = replica {
                        replica.wants_info = true;
                    }
                }
                (reconf::Output::Event(plain, address), _) => {
                    if let Some(at) = master.find_replica(&address) {
                        self.say_plain(id, plain, Node::Replica(at));
                    }
                }
                (reconf::Output::Send(_), None) => {}
            }
        }
    }

    /// Stops writes on a master that serves, so that the replica can reach it.
    fn pause_writes(&mut self, id: MasterId) {
        let Some(master) = self.masters.get(&id) else { return };
        let Some(Planned::Pausing { .. }) = master.planned else { return };
        let link = master.server.commands;
        let client = self.renamed(Owner::Commands(id, Node::Master), "CLIENT");
        let most = PLANNED_MAX.as_millis().to_string();
        self.send_words(link, Expect::Paused, &[&client, "PAUSE", &most, "WRITE"]);
    }

    /// Lets clients write again that were stopped.
    fn resume_writes(&mut self, id: MasterId) {
        let Some(master) = self.masters.get(&id) else { return };
        if master.planned.is_none() {
            return;
        }
        let link = master.server.commands;
        let client = self.renamed(Owner::Commands(id, Node::Master), "CLIENT");
        self.send_words(link, Expect::Ignored, &[&client, "UNPAUSE"]);
    }

    /// Takes in that writes are stopped, or that the master does not know how.
    pub(super) fn handle_paused(&mut self, now: Instant, id: MasterId, frame: &[u8]) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        let Some(Planned::Pausing { replica, until }) = master.planned.clone() else { return };
        let at = master.find_replica(&replica);
        if let Some(server) = at.and_then(|at| master.replicas.get_mut(&at)) {
            server.wants_info = true;
        }
        master.planned = Some(if frame.starts_with(b"+OK") {
            Planned::CatchingUp { replica, offset: None, since: now, until }
        } else {
            // A server before 6.2, or one that does not let us: then as genuine Sentinels do it.
            Planned::Ready
        });
        master.server.wants_info = true;
        self.mark(id);
    }

    /// Takes INFO in: how far the master is since its writes are stopped, and the replica.
    pub(super) fn catch_up(&mut self, now: Instant, id: MasterId) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        let Some(Planned::CatchingUp { replica, offset, since, until }) = master.planned.clone()
        else {
            return;
        };
        let info = master.server.info.as_ref().filter(|(at, _)| *at > since);
        let offset = offset.or_else(|| info.map(|(_, info)| info.history.offset));
        let at = master.find_replica(&replica);
        let report = at.and_then(|at| master.replicas.get(&at)).and_then(|s| s.replica_report());
        let is_there = match (offset, report) {
            (Some(offset), Some((at, report))) => at > since && report.offset >= offset,
            _ => false,
        };
        master.planned = Some(if is_there {
            Planned::Ready
        } else {
            Planned::CatchingUp { replica, offset, since, until }
        });
        let _ = now;
        self.mark(id);
    }

    /// Whether nothing would be lost, or nobody waits for that.
    fn is_caught_up(&mut self, now: Instant, id: MasterId, due: &mut Due) -> bool {
        let Some(master) = self.masters.get_mut(&id) else { return false };
        let until = match &master.planned {
            None | Some(Planned::Ready) => return true,
            Some(Planned::Pausing { until, .. } | Planned::CatchingUp { until, .. }) => *until,
        };
        // The master died meanwhile: then it is no plan any more.
        if master.agreement.is_down() {
            master.planned = None;
            return true;
        }
        if now < until {
            due.at(until);
            return false;
        }
        // It cannot be done without loss, so it is not done.
        self.say_plain(id, Plain::AbortSlaveTimeout, Node::Master);
        self.inbox.push_back((id, Input::Superseded));
        false
    }

    fn crash_if_wanted(&mut self, plain: Plain) {
        let wanted = (plain == Plain::ElectedLeader && self.failure.after_election)
            || (plain == Plain::PromotedSlave && self.failure.after_promotion);
        if wanted {
            self.out.push_back(Effect::Event(crate::io::Event::Exit { code: 99 }));
        }
    }
}

/// How long writes may be stopped for a planned fail-over; then it is given up.
const PLANNED_MAX: Duration = Duration::from_secs(5);
