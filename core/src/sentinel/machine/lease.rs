//! Leases: until when this host may write to a master, and what we promised to other hosts.
//!
//! A host may write under an election while a majority of Sentinels, its own among them, promise
//! that they let nobody write under another. Whoever promises neither promises anything for another
//! election until the promise is over, nor promises again once it has voted in a later one. So two
//! majorities can't be had for two addresses at a time, and a leader that waits until a majority
//! has nothing promised any more promotes when nobody writes to the old master. No clocks are
//! compared: a holder counts from its question, a promise from its answer, and both leave room for
//! clocks that run 1 % fast or slow.
//!
//! The words travel as `SENTINEL LEASE <name> …` between our programs only:
//!
//! | words | reply |
//! | --- | --- |
//! | `KEEP <ID> <life> <serial> <epoch> <host> <port> <ms>` | 1 promised, 0 refused |
//! | `GIVE <ID> <life> <serial>` | 1: what was promised to it is over |
//! | `LEFT <epoch>` | milliseconds until all promises are over; there are no new ones for a while |
//!
//! A life is a number that a process draws when it starts, and serials rise in it: so words that
//! were held up on a connection that is gone give back nothing that was promised since.
//!
//! A genuine Sentinel knows none of them. Where so many are genuine that the others are no majority
//! nobody can promise anything, and a lease is what it is without `strict`: that more than half of
//! the Sentinels were heard within down-after.

use std::collections::BTreeMap;
use std::time::Duration;

use super::links::{Expect, LinkId};
use super::monitor::Due;
use super::{MasterId, Sentinel, ms};
use crate::io::{ShardCondition, ShardNews};
use crate::limits;
use crate::sentinel::election::STICKY;
use crate::sentinel::instance::{Address, Epoch, RunId};
use crate::time::Instant;
use crate::wire::resp::{encode, parse_integer_reply};

/// The longest lease that is promised. A Sentinel that was started promises nothing for so long,
/// because it does not remember what it promised before.
pub const LEASE_MAX: Duration = Duration::from_secs(2);

/// How long requests wait for whoever was elected: a switch takes much less.
const MOVING_MAX: Duration = Duration::from_secs(1);

/// Whether a host that is cut off from the other Sentinels may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fence {
    /// It may.
    #[default]
    Off,
    /// Not once it has heard no majority of the Sentinels for most of down-after.
    BestEffort,
    /// Only as long as a majority promises it, for this long at a time and at most [`LEASE_MAX`].
    Strict(Duration),
}

impl Fence {
    const fn lease(self) -> Option<Duration> {
        match self {
            Self::Strict(lease) => Some(lease),
            Self::Off | Self::BestEffort => None,
        }
    }
}

/// How long a lease is believed: less than it is promised for, by any clock, and by as much as it
/// takes workers to hear that it is over.
fn shorter(time: Duration) -> Duration {
    time - time / 10
}

/// Returns a time by a clock that may be slow, so that it is over by any other.
fn longer(time: Duration) -> Duration {
    time + time / 50
}

/// That nobody may write under another election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Promise {
    epoch: Epoch,
    until: Instant,
    /// Which of the holder's questions it answers.
    serial: (u64, u64),
}

/// What is promised, and what is held.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// By holder.
    promises: BTreeMap<RunId, Promise>,
    /// The last later election that we had part in, and when.
    bound: Option<(Epoch, Instant)>,
    /// By Sentinel, our own included: until when it promised us, for `held_for`.
    held: BTreeMap<RunId, Instant>,
    held_for: Option<(Epoch, Address)>,
    asked_at: Option<Instant>,
    /// Since when we want a lease that we did not have before.
    wanted_since: Option<Instant>,
    serial: u64,
    /// It was given back; nothing is asked for until the master answers again.
    is_given: bool,
    /// While we lead: when what each Sentinel promised is over.
    left: BTreeMap<RunId, Instant>,
    /// How many were asked that, and have not said that they do not understand.
    left_asked: usize,
    /// When we were elected; none while we do not lead.
    leads_since: Option<Instant>,
}

impl Lease {
    /// Takes in that we voted, or lead.
    pub(super) fn bind(&mut self, now: Instant, epoch: Epoch) {
        if self.bound.is_none_or(|(bound, _)| bound <= epoch) {
            self.bound = Some((epoch, now));
        }
    }

    /// Forgets that we led.
    pub(super) fn finish(&mut self) {
        self.leads_since = None;
        self.left.clear();
        self.left_asked = 0;
    }

    /// Whether every peer that understands has been told that a master moves, so that requests wait
    /// on its host.
    pub(super) fn is_told(&self) -> bool {
        self.left.len() >= self.left_asked
    }

    /// Whether somebody was elected a moment ago to move a master that is since `epoch` where it
    /// is.
    pub(super) fn is_moving(&self, now: Instant, epoch: Epoch) -> bool {
        self.bound.is_some_and(|(later, at)| later > epoch && now.since(at) < MOVING_MAX)
    }

    /// Returns when everything that we promised is over.
    fn promised_until(&self, now: Instant) -> Instant {
        self.promises.values().map(|promise| promise.until).max().unwrap_or(now).max(now)
    }

    fn give_up(&mut self, now: Instant) {
        // One that was never asked for is not on its way.
        self.wanted_since = (self.serial > 0).then_some(now);
        self.held.clear();
        self.held_for = None;
        self.asked_at = None;
    }
}

impl Sentinel {
    /// Answers `SENTINEL LEASE`. Returns false where the words are wrong.
    pub(super) fn lease_command(
        &mut self,
        now: Instant,
        id: MasterId,
        words: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> bool {
        let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<u64>().ok();
        let answer = match *words {
            [verb, holder, life, serial, epoch, host, port, time]
                if verb.eq_ignore_ascii_case(b"keep") =>
            {
                let (Some(holder), Some(serial)) =
                    (RunId::parse(holder), number(life).zip(number(serial)))
                else {
                    return false;
                };
                let (Some(epoch), Ok(address), Some(time)) =
                    (number(epoch).and_then(Epoch::new), Address::parse(host, port), number(time))
                else {
                    return false;
                };
                let promise = Promise { epoch, until: now + longer(ms(time)), serial };
                i64::from(ms(time) <= LEASE_MAX && self.promise(now, id, holder, promise, &address))
            }
            [verb, holder, life, serial] if verb.eq_ignore_ascii_case(b"give") => {
                let (Some(holder), Some((life, serial))) =
                    (RunId::parse(holder), number(life).zip(number(serial)))
                else {
                    return false;
                };
                let promises = self.masters.get_mut(&id).map(|m| &mut m.lease.promises);
                let is_it =
                    |promise: &Promise| promise.serial.0 == life && promise.serial.1 <= serial;
                if let Some(promises) = promises
                    && promises.get(&holder).is_some_and(is_it)
                {
                    promises.remove(&holder);
                }
                1
            }
            [verb, epoch] if verb.eq_ignore_ascii_case(b"left") => {
                let Some(epoch) = number(epoch).and_then(Epoch::new) else { return false };
                let Some(master) = self.masters.get_mut(&id) else { return false };
                if epoch > master.config_epoch {
                    master.lease.bind(now, epoch);
                    self.dirty.insert(id);
                }
                let left = master.lease.promised_until(now).max(self.promises_from()).since(now);
                // Rounded up.
                i64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i64::MAX)
            }
            _ => return false,
        };
        encode::integer(out, answer);
        true
    }

    /// Returns from when on we know everything that we promised.
    fn promises_from(&self) -> Instant {
        self.started + longer(LEASE_MAX)
    }

    fn promise(
        &mut self,
        now: Instant,
        id: MasterId,
        holder: RunId,
        promise: Promise,
        address: &Address,
    ) -> bool {
        let epoch = promise.epoch;
        let is_ready = !self.tilt.is_active() && now >= self.promises_from();
        let Some(master) = self.masters.get(&id) else { return false };
        let belief = master.belief();
        let is_current = master.learnt.is_none()
            && belief.config_epoch == epoch
            && self.is_same_place(belief.address, address);
        let is_bound = master
            .lease
            .bound
            .is_some_and(|(later, at)| later > epoch && now.since(at) <= longer(STICKY));
        let Some(master) = self.masters.get_mut(&id) else { return false };
        let promises = &mut master.lease.promises;
        promises.retain(|_, promise| promise.until > now);
        let is_free = promises.values().all(|promise| promise.epoch == epoch);
        let has_room =
            promises.contains_key(&holder) || promises.len() < limits::PEERS_PER_MASTER_MAX;
        let is_promised = is_ready && is_current && !is_bound && is_free && has_room;
        if is_promised {
            promises.insert(holder, promise);
        }
        is_promised
    }

    /// Keeps our own lease: asks for what runs out.
    pub(super) fn keep_lease(&mut self, now: Instant, id: MasterId, due: &mut Due) {
        let Some(lease) = self.fence.lease().filter(|_| self.tells_workers) else { return };
        self.give_back_if_refused(now, id);
        let Some(master) = self.masters.get_mut(&id) else { return };
        let belief = master.latest_belief();
        let of = (belief.config_epoch, belief.address.clone());
        if master.lease.held_for.as_ref() != Some(&of) {
            master.lease.give_up(now);
            master.lease.held_for = Some(of.clone());
        }
        if master.lease.is_given || master.learnt.is_some() {
            return;
        }
        let at = master.lease.asked_at.map(|at| at + lease / 3);
        if let Some(at) = at.filter(|at| now < *at) {
            due.at(at);
            return;
        }
        if master.lease.asked_at.replace(now).is_none() && master.lease.serial > 0 {
            master.lease.wanted_since = Some(now);
        }
        master.lease.serial += 1;
        due.at(now + lease / 3);
        let (epoch, address) = of;
        let myid = self.myid;
        let serial = (self.life, master.lease.serial);
        let promise = Promise { epoch, until: now + longer(lease), serial };
        if self.promise(now, id, myid, promise, &address)
            && let Some(master) = self.masters.get_mut(&id)
        {
            master.lease.held.insert(myid, now + shorter(lease));
        }
        let announced = self.announced(&address);
        let words = [
            "KEEP".to_owned(),
            myid.as_str().to_owned(),
            serial.0.to_string(),
            serial.1.to_string(),
            epoch.to_string(),
            announced.host().to_owned(),
            announced.port().to_string(),
            lease.as_millis().to_string(),
        ];
        self.tell_peers_of_lease(id, &words, Expect::Promise(id, epoch, now));
    }

    /// Sends words about a lease to every peer that may know them; returns to how many.
    fn tell_peers_of_lease(&mut self, id: MasterId, words: &[String], expect: Expect) -> usize {
        let Some(master) = self.masters.get(&id) else { return 0 };
        let name = master.name().as_str().to_owned();
        let peers = master.voices.keys().filter_map(|peer| self.peer_links.get(peer));
        let links: Vec<LinkId> =
            peers.filter(|known| !known.is_leaseless).map(|known| known.link).collect();
        let mut all: Vec<&str> = vec!["SENTINEL", "LEASE", &name];
        all.extend(words.iter().map(String::as_str));
        let mut told = 0;
        for link in links {
            let is_free = self.links.get(link).is_some_and(|link| link.pending() < PENDING_MAX);
            if is_free && self.send_words(link, expect.clone(), &all) {
                told += 1;
            }
        }
        told
    }

    /// Gives the lease back where the master has refused us: nobody here writes to it.
    fn give_back_if_refused(&mut self, now: Instant, id: MasterId) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        let is_refused = master.server.is_refused && master.failover.state().announced().is_none();
        if !is_refused {
            master.lease.is_given = false;
            return;
        }
        if std::mem::replace(&mut master.lease.is_given, true) {
            return;
        }
        master.lease.give_up(now);
        let myid = self.myid;
        master.lease.promises.remove(&myid);
        // Workers hear of it before the others do: notices leave first.
        let (life, serial) = (self.life.to_string(), master.lease.serial.to_string());
        let words = ["GIVE".to_owned(), myid.as_str().to_owned(), life, serial];
        self.tell_peers_of_lease(id, &words, Expect::Ignored);
    }

    /// Takes in that a peer promised, or did not.
    pub(super) fn handle_promise(
        &mut self,
        now: Instant,
        id: MasterId,
        peer: RunId,
        (epoch, asked_at): (Epoch, Instant),
        frame: &[u8],
    ) {
        let Some(lease) = self.fence.lease() else { return };
        if self.is_unknown_word(&peer, frame) || parse_integer_reply(frame) != Some(1) {
            return;
        }
        let Some(master) = self.masters.get_mut(&id) else { return };
        let held_for = master.lease.held_for.as_ref().map(|(epoch, _)| *epoch);
        let until = asked_at + shorter(lease);
        if held_for == Some(epoch) && !master.lease.is_given && until > now {
            let held = master.lease.held.entry(peer).or_insert(until);
            *held = until.max(*held);
            self.mark(id);
        }
    }

    /// Takes in how long a peer is bound by what it promised.
    pub(super) fn handle_left(
        &mut self,
        now: Instant,
        id: MasterId,
        peer: RunId,
        epoch: Epoch,
        frame: &[u8],
    ) {
        if self.is_unknown_word(&peer, frame) {
            if let Some(master) = self.masters.get_mut(&id) {
                master.lease.left_asked = master.lease.left_asked.saturating_sub(1);
            }
            self.mark(id);
            return;
        }
        let left = parse_integer_reply(frame).and_then(|left| u64::try_from(left).ok());
        let Some(left) = left else { return };
        let Some(master) = self.masters.get_mut(&id) else { return };
        if self.elections.leads(master.name()) == Some(epoch) {
            master.lease.left.insert(peer, now + longer(ms(left)));
            self.mark(id);
        }
    }

    /// Whether a peer does not know of leases, as genuine ones do not.
    fn is_unknown_word(&mut self, peer: &RunId, frame: &[u8]) -> bool {
        let is_unknown = frame.starts_with(b"-");
        if is_unknown && let Some(known) = self.peer_links.get_mut(peer) {
            known.is_leaseless = true;
        }
        is_unknown
    }

    /// Whether so many know of leases that they can promise anything.
    fn has_lenders(&self, id: MasterId) -> bool {
        let Some(master) = self.masters.get(&id) else { return false };
        let knows = |peer: &&RunId| self.peer_links.get(*peer).is_some_and(|k| !k.is_leaseless);
        1 + master.voices.keys().filter(knows).count() >= majority(master.voices.len())
    }

    /// Begins to wait for the end of all leases, having been elected.
    pub(super) fn ask_what_is_left(&mut self, now: Instant, id: MasterId) {
        // Also where nothing is fenced: requests on the hosts of peers wait from here on.
        if !self.tells_workers {
            return;
        }
        let Some(master) = self.masters.get_mut(&id) else { return };
        let Some(epoch) = self.elections.leads(master.name()) else { return };
        master.lease.left.clear();
        master.lease.leads_since = Some(now);
        master.lease.bind(now, epoch);
        let words = ["LEFT".to_owned(), epoch.to_string()];
        let asked = self.tell_peers_of_lease(id, &words, Expect::Left(id, epoch));
        if let Some(master) = self.masters.get_mut(&id) {
            master.lease.left_asked = asked;
        }
    }

    /// Whether nobody has a lease on the old master any more, as far as a majority can tell.
    pub(super) fn are_leases_over(&self, now: Instant, id: MasterId, due: &mut Due) -> bool {
        if self.fence.lease().is_none() || !self.has_lenders(id) {
            return true;
        }
        let Some(master) = self.masters.get(&id) else { return true };
        let Some(since) = master.lease.leads_since else { return true };
        let own = master.lease.promised_until(now).max(self.promises_from());
        let mut over: Vec<Instant> = master.lease.left.values().copied().collect();
        over.push(own);
        over.sort_unstable();
        // Those who voted for us promise nothing since, so nothing lasts longer than this.
        let latest = since + longer(longer(LEASE_MAX));
        let at = over.get(majority(master.voices.len()) - 1).map_or(latest, |at| latest.min(*at));
        if at > now {
            due.at(at);
        }
        at <= now
    }

    /// Whether it is too late to promote: voters are bound for a while only, then they promise
    /// again.
    pub(super) fn is_too_late(&self, now: Instant, id: MasterId) -> bool {
        let Some(master) = self.masters.get(&id) else { return false };
        let since = master.lease.leads_since.filter(|_| self.fence.lease().is_some());
        since.is_some_and(|since| now.since(since) > STICKY / 2)
    }

    /// Returns how the master is, with what the fence makes of it, and until when that is true
    /// without being said again.
    pub(super) fn fenced(
        &self,
        now: Instant,
        id: MasterId,
        is: ShardCondition,
        due: &mut Due,
    ) -> (ShardCondition, Option<Instant>) {
        match is {
            // Nobody writes as it is.
            ShardCondition::Suspected | ShardCondition::Moving | ShardCondition::Fenced => {
                return (is, None);
            }
            ShardCondition::Serving => {}
        }
        let until = match (self.may_write_until(id, now), self.fence) {
            (None, _) => return (is, None),
            // What was heard of others moves with every answer: too often to be told each time.
            (Some(until), Fence::Off | Fence::BestEffort) => (until, None),
            (Some(until), Fence::Strict(_)) => (until, Some(until)),
        };
        let (until, told) = until;
        if until <= now {
            // Every switch begins without a lease: nobody is cut off, and nobody need leave.
            let wanted = self.masters.get(&id).and_then(|master| master.lease.wanted_since);
            let soon = wanted.map(|since| since + MOVING_MAX).filter(|soon| *soon > now);
            due.maybe(soon);
            return (soon.map_or(ShardCondition::Fenced, |_| ShardCondition::Moving), None);
        }
        due.at(until);
        (is, told)
    }

    /// Returns until when this host may write to the master, if there is an end to it.
    fn may_write_until(&self, id: MasterId, now: Instant) -> Option<Instant> {
        let master = self.masters.get(&id)?;
        let needed = majority(master.voices.len());
        let mut until: Vec<Instant> = match self.fence {
            Fence::Off => return None,
            Fence::Strict(_) if self.has_lenders(id) => {
                let of = master.latest_belief();
                let is_it = |(epoch, address): &&(Epoch, Address)| {
                    *epoch == of.config_epoch && address == of.address
                };
                let is_held = master.lease.held_for.as_ref().filter(is_it).is_some();
                if is_held { master.lease.held.values().copied().collect() } else { Vec::new() }
            }
            Fence::Strict(_) | Fence::BestEffort => {
                let patience = master.down_after() - master.down_after() / 5;
                let links = master.voices.keys().filter_map(|peer| self.peer_links.get(peer));
                let heard = links.filter_map(|known| self.links.get(known.link));
                let heard = heard.map(|link| link.heard_at() + patience);
                // We hear ourselves.
                std::iter::once(now + patience).chain(heard).collect()
            }
        };
        until.sort_unstable_by(|one, other| other.cmp(one));
        Some(until.get(needed - 1).copied().unwrap_or(now))
    }

    /// Returns what workers are told where we know that the master is elsewhere, but not where.
    pub(super) fn stranded(&self, id: MasterId) -> Option<ShardNews> {
        let latest = self.masters.get(&id)?.news.latest()?;
        let is_fenced = self.fence != Fence::Off;
        is_fenced.then(|| ShardNews {
            condition: ShardCondition::Fenced,
            valid_until: None,
            ..latest.clone()
        })
    }
}

/// Questions about leases that a peer may owe us answers to; more are not sent.
const PENDING_MAX: usize = 1000;

/// Returns how many of a number of peers and ourselves are a majority.
const fn majority(peers: usize) -> usize {
    peers.div_ceil(2) + 1
}
