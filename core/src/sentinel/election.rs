//! Votes and elections: at most one Sentinel acts for a master in one epoch.
//!
//! Safety rests on three rules. A Sentinel gives one vote per master and epoch, and its vote is
//! durable before anybody hears of it. A candidate counts only votes of exactly the epoch that it
//! stands in. It leads with the votes of a majority of all known Sentinels, dead ones included, and
//! never fewer than the quorum.
//!
//! Deviates, where genuine Sentinels count votes of whatever epoch is current:
//! - a candidate that is not elected in time stands again in a fresh epoch after a short random
//!   wait, instead of after twice the fail-over timeout;
//! - a vote for somebody else ends one's own candidacy and bars a new one, and a vote for a third,
//!   for [`STICKY`]; without this the previous rule makes several lead one after the other;
//! - an election stays open when those of other masters move the common epoch on meanwhile;
//! - who leads votes for nobody else; who heard from the master a moment ago votes for nobody;
//! - whose state cannot be made durable neither votes nor stands;
//! - a peer that was only just heard of counts in the majority, but its vote does not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::ask::Answer;
use super::instance::{Epoch, MasterName, RunId};
use super::state::{Durable, DurableMaster, Record};
use crate::id::Ticket;
use crate::limits;
use crate::rng::Rng;
use crate::time::Instant;

/// How long a vote for another binds: no vote for a third, no candidacy of one's own.
pub const STICKY: Duration = Duration::from_secs(5);

/// How long a candidate waits for votes before it stands in a fresh epoch.
pub const ROUND: Duration = Duration::from_millis(800);

/// Longest random wait before that.
pub const ROUND_DELAY_MAX: Duration = Duration::from_millis(400);

/// How long until it is tried again to make the state durable.
pub const PERSIST_RETRY: Duration = Duration::from_secs(1);

/// Names a question that waits for an answer; the caller's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// What a voter sees besides the question.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Whether it sees the master subjectively down, and is not in TILT: what it answers.
    pub is_down: bool,
    /// Whether the master answered it within half of down-after.
    pub is_master_alive: bool,
    /// Whether it may vote at all: not in TILT, and nobody else has its ID.
    pub may_vote: bool,
}

/// A peer that counts in the majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub run_id: RunId,
    /// Whether it was heard more than once and by more than one way, so that its vote counts.
    pub is_proven: bool,
}

/// Why nobody was elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotElected {
    /// Not enough votes until the deadline.
    Timeout,
    /// We voted for another.
    VotedForOther,
    /// Another has the votes of a majority.
    OtherWon,
    /// Our vote could not be made durable.
    NotDurable,
    /// The caller withdrew it.
    Withdrawn,
    /// No epoch is left.
    NoEpoch,
}

/// Why a candidacy does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// Nothing is known of the master.
    UnknownMaster,
    /// One is under way, or we lead.
    Busy,
    /// We voted for another, or were not elected, not long ago; until then.
    Barred(Instant),
    /// The state cannot be made durable.
    NotDurable,
    /// No epoch is left.
    NoEpoch,
}

/// What has to be done, or told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write this; answer with [`Elections::handle_persisted`].
    Persist {
        /// Names the record.
        ticket: Ticket,
        /// What to write.
        record: Record,
    },
    /// Answer a question.
    Reply {
        /// Which.
        ask: AskId,
        /// The answer.
        answer: Answer,
    },
    /// Ask all peers for their vote for us.
    AskPeers {
        /// About whom.
        master: MasterName,
        /// In which epoch.
        epoch: Epoch,
    },
    /// A later election became known (`+new-epoch`).
    NewEpoch(Epoch),
    /// An epoch is too far ahead to be true and was not taken over.
    EpochRefused(Epoch),
    /// We voted (`+vote-for-leader`).
    Voted {
        /// About whom.
        master: MasterName,
        /// For whom.
        leader: RunId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// We lead (`+elected-leader`).
    Elected {
        /// For whom.
        master: MasterName,
        /// In which epoch.
        epoch: Epoch,
    },
    /// Our candidacy ended otherwise.
    NotElected {
        /// For whom.
        master: MasterName,
        /// Why.
        why: NotElected,
    },
}

/// The elections of one Sentinel: one epoch for all, one ballot a master.
#[derive(Debug)]
pub struct Elections {
    myid: RunId,
    current_epoch: Epoch,
    ballots: BTreeMap<MasterName, Ballot>,
    ticket: u64,
    /// Records that are being written.
    writing: BTreeMap<Ticket, Record>,
    /// What waits for them, in the order in which it came.
    waiting: VecDeque<WaitingReply>,
    /// What is done about a failure of writing; none while writing works.
    mend: Option<Mend>,
    /// When which candidacy has something due: with hundreds of masters only those are looked at.
    due: BTreeSet<(Instant, MasterName)>,
    rng: Rng,
    out: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug)]
struct Mend {
    /// When to try again.
    at: Instant,
    /// The last record that was begun before the failure; only a later one can tell that it is
    /// over.
    after: Ticket,
}

#[derive(Debug)]
struct WaitingReply {
    ask: AskId,
    answer: Answer,
    /// All records up to this one have to be durable.
    after: Ticket,
    /// The record that holds the vote in it.
    vote: Option<Ticket>,
}

/// The votes for one master.
#[derive(Debug, Default)]
struct Ballot {
    /// The latest election that we voted in.
    epoch: Epoch,
    /// For whom; none when it is not known any more, or could not be written.
    leader: Option<RunId>,
    /// The record of it, while it is being written.
    vote: Option<Ticket>,
    /// When we last voted for somebody else.
    other_at: Option<Instant>,
    /// Until when we do not stand.
    barred_until: Option<Instant>,
    stand: Stand,
    /// Its entry in [`Elections::due`].
    due_at: Option<Instant>,
}

#[derive(Debug, Default)]
enum Stand {
    #[default]
    None,
    /// We want to lead.
    Candidate(Candidacy),
    /// We do, in this epoch.
    Leader(Epoch),
}

impl Stand {
    /// Returns when something has to be done without news.
    fn due_at(&self) -> Option<Instant> {
        match self {
            Self::Candidate(candidacy) if candidacy.own_vote.is_none() => {
                Some(candidacy.round_ends.min(candidacy.ends))
            }
            Self::Candidate(candidacy) => Some(candidacy.ends),
            Self::None | Self::Leader(_) => None,
        }
    }
}

#[derive(Debug)]
struct Candidacy {
    epoch: Epoch,
    peers: Vec<Peer>,
    quorum: u32,
    /// Our own vote; none once it is durable.
    own_vote: Option<Ticket>,
    votes: BTreeMap<RunId, RunId>,
    /// When to stand in a fresh epoch.
    round_ends: Instant,
    /// When to give up.
    ends: Instant,
}

impl Elections {
    /// Begins with what is durable.
    ///
    /// Nothing tells when a vote was given, so it binds from here on.
    pub fn new(now: Instant, myid: RunId, durable: &Durable, seed: u64) -> Self {
        let ballot = |known: &DurableMaster| Ballot {
            epoch: known.leader_epoch,
            leader: known.leader,
            other_at: known.leader.filter(|leader| *leader != myid).map(|_| now),
            barred_until: known.leader.filter(|leader| *leader != myid).map(|_| now + STICKY),
            ..Ballot::default()
        };
        let ballots =
            durable.masters.iter().map(|(name, known)| (name.clone(), ballot(known))).collect();
        Self {
            myid,
            current_epoch: durable.current_epoch,
            ballots,
            ticket: 0,
            writing: BTreeMap::new(),
            waiting: VecDeque::new(),
            mend: None,
            due: BTreeSet::new(),
            rng: Rng::new(seed),
            out: VecDeque::new(),
        }
    }

    /// Watches a master from here on; one that is known already stays as it is.
    pub fn add_master(&mut self, master: &MasterName) {
        if !self.ballots.contains_key(master) && self.ballots.len() < limits::MASTERS_MAX {
            self.ballots.insert(master.clone(), Ballot::default());
        }
    }

    /// Returns the latest election that is known of.
    pub const fn current_epoch(&self) -> Epoch {
        self.current_epoch
    }

    /// Returns our last vote for a master, whether durable or not.
    pub fn vote(&self, master: &MasterName) -> (Option<RunId>, Epoch) {
        self.ballots.get(master).map_or((None, Epoch::ZERO), |b| (b.leader, b.epoch))
    }

    /// Whether the state can be made durable, as far as is known.
    pub const fn is_durable(&self) -> bool {
        self.mend.is_none()
    }

    /// Returns the epoch in which we lead a fail-over of this master.
    pub fn leads(&self, master: &MasterName) -> Option<Epoch> {
        match self.ballots.get(master)?.stand {
            Stand::Leader(epoch) => Some(epoch),
            Stand::None | Stand::Candidate(_) => None,
        }
    }

    /// Returns the next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.due.first().map(|(at, _)| *at);
        due.into_iter().chain(self.mend.map(|mend| mend.at)).min()
    }

    /// Notes when a candidacy has something due. To be called whenever a stand changed.
    fn reschedule(&mut self, master: &MasterName) {
        let Some(ballot) = self.ballots.get_mut(master) else { return };
        let at = ballot.stand.due_at();
        if at == ballot.due_at {
            return;
        }
        if let Some(old) = std::mem::replace(&mut ballot.due_at, at) {
            self.due.remove(&(old, master.clone()));
        }
        self.due.extend(at.map(|at| (at, master.clone())));
    }

    /// Takes in an epoch from a peer's hello.
    pub fn handle_epoch(&mut self, epoch: Epoch) {
        if self.adopt(epoch) {
            self.persist(Record::Epoch(epoch));
        }
    }

    /// Takes over a later epoch, if it can be true; it still has to be written.
    fn adopt(&mut self, epoch: Epoch) -> bool {
        if epoch <= self.current_epoch {
            return false;
        }
        let has_room = self.writing.len() < limits::PERSISTS_IN_FLIGHT_MAX;
        if !epoch.is_plausible_after(self.current_epoch) || !has_room {
            self.out.push_back(Output::EpochRefused(epoch));
            return false;
        }
        self.current_epoch = epoch;
        self.out.push_back(Output::NewEpoch(epoch));
        true
    }

    fn persist(&mut self, record: Record) -> Ticket {
        self.ticket += 1;
        let ticket = Ticket(self.ticket);
        self.writing.insert(ticket, record.clone());
        self.out.push_back(Output::Persist { ticket, record });
        ticket
    }

    /// Takes in a question that wants a vote. It is answered once, perhaps later.
    pub fn handle_ask(
        &mut self,
        now: Instant,
        ask: AskId,
        master: &MasterName,
        epoch: Epoch,
        candidate: RunId,
        view: View,
    ) {
        let adopted = self.adopt(epoch);
        let may_vote = self.may_vote(now, master, epoch, candidate, view);
        if may_vote {
            self.give_vote(now, master, epoch, candidate);
        } else if adopted {
            self.persist(Record::Epoch(epoch));
        }
        let ballot = self.ballots.get(master);
        let (leader, epoch) = ballot.map_or((None, Epoch::ZERO), |b| (b.leader, b.epoch));
        let answer = Answer { is_down: view.is_down, leader, epoch };
        let reply = WaitingReply {
            ask,
            answer,
            after: Ticket(self.ticket),
            vote: ballot.and_then(|ballot| ballot.vote),
        };
        self.waiting.push_back(reply);
        self.release();
    }

    fn may_vote(
        &self,
        now: Instant,
        master: &MasterName,
        epoch: Epoch,
        candidate: RunId,
        view: View,
    ) -> bool {
        let Some(ballot) = self.ballots.get(master) else { return false };
        // An epoch that the elections of other masters have passed meanwhile is as good as before:
        // of this master there is still one vote in it.
        let is_open = ballot.epoch < epoch && epoch <= self.current_epoch;
        let is_bound = ballot.leader != Some(candidate)
            && ballot.other_at.is_some_and(|at| now.since(at) < STICKY);
        let leads = matches!(ballot.stand, Stand::Leader(_));
        is_open
            && !is_bound
            && !leads
            && !view.is_master_alive
            && view.may_vote
            // Nobody but we may say that we stand.
            && candidate != self.myid
            && self.is_durable()
            && self.writing.len() < limits::PERSISTS_IN_FLIGHT_MAX
    }

    fn give_vote(&mut self, now: Instant, master: &MasterName, epoch: Epoch, leader: RunId) {
        let ticket = self.persist(Record::Vote { master: master.clone(), epoch, leader });
        let Some(ballot) = self.ballots.get_mut(master) else { return };
        ballot.epoch = epoch;
        ballot.leader = Some(leader);
        ballot.vote = Some(ticket);
        self.out.push_back(Output::Voted { master: master.clone(), leader, epoch });
        if leader != self.myid {
            ballot.other_at = Some(now);
            ballot.barred_until = Some(now + STICKY);
            self.end(master, NotElected::VotedForOther);
        }
    }

    /// Stands for election. `peers` are all that are known, dead ones included; `ends` is when to
    /// give up.
    ///
    /// # Errors
    ///
    /// Why it cannot begin; nothing has changed then.
    pub fn start(
        &mut self,
        now: Instant,
        master: &MasterName,
        peers: Vec<Peer>,
        quorum: u32,
        ends: Instant,
    ) -> Result<Epoch, StartError> {
        let ballot = self.ballots.get(master).ok_or(StartError::UnknownMaster)?;
        if !matches!(ballot.stand, Stand::None) {
            return Err(StartError::Busy);
        }
        if let Some(until) = ballot.barred_until.filter(|until| now < *until) {
            return Err(StartError::Barred(until));
        }
        if !self.is_durable() || self.writing.len() >= limits::PERSISTS_IN_FLIGHT_MAX {
            return Err(StartError::NotDurable);
        }
        let epoch = self.current_epoch.next().ok_or(StartError::NoEpoch)?;
        self.stand(
            now,
            master,
            epoch,
            Candidacy {
                epoch,
                peers,
                quorum,
                own_vote: None,
                votes: BTreeMap::new(),
                round_ends: now,
                ends,
            },
        );
        Ok(epoch)
    }

    /// Stands in a fresh epoch: our own vote is given, and everybody is asked once it is durable.
    fn stand(&mut self, now: Instant, master: &MasterName, epoch: Epoch, candidacy: Candidacy) {
        self.current_epoch = epoch;
        self.out.push_back(Output::NewEpoch(epoch));
        self.give_vote(now, master, epoch, self.myid);
        let nanos = u64::try_from(ROUND_DELAY_MAX.as_nanos()).unwrap_or(u64::MAX);
        let delay = Duration::from_nanos(self.rng.below(nanos));
        if let Some(ballot) = self.ballots.get_mut(master) {
            ballot.stand = Stand::Candidate(Candidacy {
                epoch,
                own_vote: ballot.vote,
                votes: BTreeMap::new(),
                round_ends: now + ROUND + delay,
                ..candidacy
            });
        }
        self.reschedule(master);
    }

    /// Takes in a peer's answer. Answers of another epoch than the one that we stand in change
    /// nothing.
    pub fn handle_answer(&mut self, master: &MasterName, peer: RunId, answer: &Answer) {
        let Some(leader) = answer.leader else { return };
        let Some(ballot) = self.ballots.get_mut(master) else { return };
        let Stand::Candidate(candidacy) = &mut ballot.stand else { return };
        let is_known = candidacy.peers.iter().any(|known| known.run_id == peer);
        if answer.epoch != candidacy.epoch || !is_known {
            return;
        }
        // The first answer stands: a vote cannot be changed.
        candidacy.votes.entry(peer).or_insert(leader);
        self.count(master);
    }

    /// Replaces what a candidate knows of its peers.
    pub fn handle_peers(&mut self, master: &MasterName, peers: Vec<Peer>) {
        let Some(ballot) = self.ballots.get_mut(master) else { return };
        let Stand::Candidate(candidacy) = &mut ballot.stand else { return };
        candidacy.peers = peers;
        self.count(master);
    }

    fn count(&mut self, master: &MasterName) {
        let Some(ballot) = self.ballots.get_mut(master) else { return };
        let Stand::Candidate(candidacy) = &ballot.stand else { return };
        if candidacy.own_vote.is_some() {
            return;
        }
        // Of the peers and ourselves.
        let majority = candidacy.peers.len().div_ceil(2) + 1;
        let needed = majority.max(usize::try_from(candidacy.quorum).unwrap_or(usize::MAX));
        let is_proven = |peer: &RunId| {
            candidacy.peers.iter().any(|known| known.run_id == *peer && known.is_proven)
        };
        let mut tally: BTreeMap<RunId, usize> = BTreeMap::from([(self.myid, 1)]);
        for (_, leader) in candidacy.votes.iter().filter(|(peer, _)| is_proven(peer)) {
            *tally.entry(*leader).or_default() += 1;
        }
        let epoch = candidacy.epoch;
        let winner = tally.into_iter().find(|(_, votes)| *votes >= needed).map(|(id, _)| id);
        match winner {
            Some(id) if id == self.myid => {
                ballot.stand = Stand::Leader(epoch);
                self.reschedule(master);
                self.out.push_back(Output::Elected { master: master.clone(), epoch });
            }
            Some(_) => self.end(master, NotElected::OtherWon),
            None => {}
        }
    }

    /// Takes in whether a record is durable. Records may become so in any order.
    pub fn handle_persisted(&mut self, now: Instant, ticket: Ticket, is_durable: bool) {
        let Some(record) = self.writing.remove(&ticket) else { return };
        if is_durable {
            self.handle_durable(ticket, &record);
        } else {
            self.handle_not_durable(now, ticket, &record);
        }
        self.release();
    }

    fn handle_durable(&mut self, ticket: Ticket, record: &Record) {
        if self.mend.is_some_and(|mend| ticket > mend.after) {
            self.mend = None;
        }
        let Record::Vote { master, epoch, .. } = record else { return };
        let Some(ballot) = self.ballots.get_mut(master) else { return };
        if ballot.vote == Some(ticket) {
            ballot.vote = None;
        }
        let Stand::Candidate(candidacy) = &mut ballot.stand else { return };
        if candidacy.own_vote == Some(ticket) {
            candidacy.own_vote = None;
            self.reschedule(master);
            self.out.push_back(Output::AskPeers { master: master.clone(), epoch: *epoch });
            self.count(master);
        }
    }

    /// It may be on disk or not. So the vote is not told, and none is given to another either.
    fn handle_not_durable(&mut self, now: Instant, ticket: Ticket, record: &Record) {
        self.mend = Some(Mend { at: now + PERSIST_RETRY, after: Ticket(self.ticket) });
        for reply in self.waiting.iter_mut().filter(|reply| reply.vote == Some(ticket)) {
            reply.answer.leader = None;
            reply.answer.epoch = Epoch::ZERO;
            reply.vote = None;
        }
        let Record::Vote { master, .. } = record else { return };
        let Some(ballot) = self.ballots.get_mut(master) else { return };
        if ballot.vote == Some(ticket) {
            ballot.vote = None;
            ballot.leader = None;
        }
        if let Stand::Candidate(candidacy) = &ballot.stand
            && candidacy.own_vote == Some(ticket)
        {
            self.end(master, NotElected::NotDurable);
        }
    }

    /// Answers what waits for nothing any more, in order.
    fn release(&mut self) {
        let first = self.writing.keys().next().copied();
        while let Some(reply) = self.waiting.front() {
            if first.is_some_and(|first| first <= reply.after) {
                return;
            }
            let Some(reply) = self.waiting.pop_front() else { return };
            self.out.push_back(Output::Reply { ask: reply.ask, answer: reply.answer });
        }
    }

    /// Stands again, gives up, or tries to write again, if it is time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(mend) = self.mend.as_mut().filter(|mend| mend.at <= now) {
            mend.at = now + PERSIST_RETRY;
            self.persist(Record::Epoch(self.current_epoch));
        }
        let is_due = |(at, _): &&(Instant, MasterName)| *at <= now;
        let due: Vec<MasterName> =
            self.due.iter().take_while(is_due).map(|(_, master)| master.clone()).collect();
        for master in due {
            self.end_round(now, &master);
        }
    }

    fn end_round(&mut self, now: Instant, master: &MasterName) {
        let Some(ballot) = self.ballots.get_mut(master) else { return };
        let Stand::Candidate(candidacy) = std::mem::take(&mut ballot.stand) else { return };
        let why = match self.current_epoch.next() {
            _ if candidacy.ends <= now => NotElected::Timeout,
            None => NotElected::NoEpoch,
            Some(_) if !self.is_durable() => NotElected::NotDurable,
            Some(epoch) => {
                self.stand(now, master, epoch, candidacy);
                return;
            }
        };
        self.reschedule(master);
        self.out.push_back(Output::NotElected { master: master.clone(), why });
    }

    /// Returns the epoch in which we ask for votes for ourselves: our own is durable.
    pub fn asks(&self, master: &MasterName) -> Option<Epoch> {
        match &self.ballots.get(master)?.stand {
            Stand::Candidate(candidacy) if candidacy.own_vote.is_none() => Some(candidacy.epoch),
            Stand::Candidate(_) | Stand::None | Stand::Leader(_) => None,
        }
    }

    /// Returns until when we do not stand.
    pub fn barred_until(&self, master: &MasterName) -> Option<Instant> {
        self.ballots.get(master)?.barred_until
    }

    /// Lets us stand at once, because an operator says so.
    pub fn unbar(&mut self, master: &MasterName) {
        if let Some(ballot) = self.ballots.get_mut(master) {
            ballot.barred_until = None;
        }
    }

    /// Bars a new candidacy for a while, such as after an attempt that failed.
    pub fn bar(&mut self, master: &MasterName, until: Instant) {
        if let Some(ballot) = self.ballots.get_mut(master) {
            ballot.barred_until = ballot.barred_until.max(Some(until));
        }
    }

    /// Ends a candidacy, or leading: the fail-over is done, given up, or another has the master.
    pub fn finish(&mut self, master: &MasterName) {
        self.end(master, NotElected::Withdrawn);
    }

    fn end(&mut self, master: &MasterName, why: NotElected) {
        let Some(ballot) = self.ballots.get_mut(master) else { return };
        match std::mem::take(&mut ballot.stand) {
            Stand::Candidate(_) => {
                self.out.push_back(Output::NotElected { master: master.clone(), why });
            }
            Stand::None | Stand::Leader(_) => {}
        }
        self.reschedule(master);
    }
}

#[cfg(test)]
mod tests;
