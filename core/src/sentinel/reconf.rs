//! Tells replicas to follow a new master, some at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::Plain;
use super::info::{MasterLink, ReplicaReport};
use super::instance::Address;
use crate::time::Instant;

/// How long a replica may take to say that it follows, unless configured otherwise.
pub const SENT_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of one replica.
#[derive(Clone, Copy, Debug)]
pub struct Replica<'a> {
    /// Where it is.
    pub address: &'a Address,
    /// Whether it is subjectively down: then nothing waits for it.
    pub is_down: bool,
    /// Whether our connection to it stands: else it cannot be told.
    pub is_connected: bool,
    /// Its last INFO that says that it is a replica, and when that came.
    pub report: Option<(Instant, &'a ReplicaReport)>,
}

/// What has to be done, or told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell this replica to follow the new master.
    Send(Address),
    /// Tell subscribers, about this replica.
    Event(Plain, Address),
}

/// How far a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It was told.
    Sent(Instant),
    /// It says that it follows the new master, but is not connected there.
    InProgress,
    /// It is connected there, or was given up.
    Done,
}

/// The replicas of one master on their way to a new one.
#[derive(Clone, Debug)]
pub struct Reconfiguration {
    master: Address,
    parallel: usize,
    sent_timeout: Duration,
    progress: BTreeMap<Address, Progress>,
}

impl Reconfiguration {
    /// Begins with nobody told. At most `parallel` are on their way at once.
    pub const fn new(master: Address, parallel: usize, sent_timeout: Duration) -> Self {
        Self { master, parallel, sent_timeout, progress: BTreeMap::new() }
    }

    /// Returns how far a replica is; none before it was told.
    pub fn progress(&self, replica: &Address) -> Option<Progress> {
        self.progress.get(replica).copied()
    }

    /// Looks at all replicas; the new master among them is passed over. Returns whether nothing is
    /// waited for any more.
    pub fn evaluate(
        &mut self,
        now: Instant,
        replicas: &[Replica<'_>],
        out: &mut Vec<Output>,
    ) -> bool {
        let master = self.master.clone();
        let others = || replicas.iter().filter(|replica| !replica.address.is_same(&master));
        for replica in others() {
            self.advance(now, replica, out);
        }
        let is_on_its_way =
            |progress: &&Progress| matches!(progress, Progress::Sent(_) | Progress::InProgress);
        let mut under_way = self.progress.values().filter(is_on_its_way).count();
        for replica in others() {
            if under_way >= self.parallel {
                break;
            }
            if replica.is_connected && !self.progress.contains_key(replica.address) {
                self.progress.insert(replica.address.clone(), Progress::Sent(now));
                out.push(Output::Send(replica.address.clone()));
                out.push(Output::Event(Plain::SlaveReconfSent, replica.address.clone()));
                under_way += 1;
            }
        }
        others().all(|replica| {
            replica.is_down || self.progress(replica.address) == Some(Progress::Done)
        })
    }

    fn advance(&mut self, now: Instant, replica: &Replica<'_>, out: &mut Vec<Output>) {
        let Some(progress) = self.progress.get_mut(replica.address) else { return };
        let mut say = |plain| out.push(Output::Event(plain, replica.address.clone()));
        if let Progress::Sent(at) = *progress {
            let follows = replica.report.is_some_and(|(reported_at, report)| {
                reported_at >= at
                    && report.master.as_ref().is_some_and(|master| master.is_same(&self.master))
            });
            if follows {
                *progress = Progress::InProgress;
                say(Plain::SlaveReconfInProgress);
            } else if now.since(at) > self.sent_timeout {
                *progress = Progress::Done;
                say(Plain::SlaveReconfSentTimeout);
            }
        }
        let is_up = replica.report.is_some_and(|(_, report)| report.link == MasterLink::Up);
        if *progress == Progress::InProgress && is_up {
            *progress = Progress::Done;
            say(Plain::SlaveReconfDone);
        }
    }

    /// Tells everybody who was not told yet and can be, without waiting for anything.
    pub fn finish(&mut self, replicas: &[Replica<'_>], out: &mut Vec<Output>) {
        for replica in replicas {
            let address = replica.address;
            let is_told = self.progress.contains_key(address) || address.is_same(&self.master);
            if replica.is_connected && !is_told {
                self.progress.insert(address.clone(), Progress::Done);
                out.push(Output::Send(address.clone()));
                out.push(Output::Event(Plain::SlaveReconfSentBestEffort, address.clone()));
            }
        }
    }

    /// Returns when [`evaluate`](Self::evaluate) finds something without news.
    pub fn deadline(&self) -> Option<Instant> {
        let sent = self.progress.values().filter_map(|progress| match progress {
            Progress::Sent(at) => Some(*at + self.sent_timeout + Duration::from_nanos(1)),
            Progress::InProgress | Progress::Done => None,
        });
        sent.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn address(port: u16) -> Address {
        Address::new("h", port).unwrap()
    }

    fn report(master: &Address, link: MasterLink) -> ReplicaReport {
        let master = Some(master.clone());
        ReplicaReport { master, link, priority: 100, offset: 0, is_announced: true }
    }

    fn replica(address: &Address) -> Replica<'_> {
        Replica { address, is_down: false, is_connected: true, report: None }
    }

    fn sent(out: &mut Vec<Output>) -> Vec<u16> {
        let ports = out.drain(..).filter_map(|output| match output {
            Output::Send(address) => Some(address.port()),
            Output::Event(..) => None,
        });
        ports.collect()
    }

    #[test]
    fn only_some_are_on_their_way_at_once_and_the_rest_follows() {
        let (new, a, b) = (address(1), address(2), address(3));
        let mut reconf = Reconfiguration::new(new.clone(), 1, SENT_TIMEOUT);
        let mut out = Vec::new();
        let mut all = [replica(&new), replica(&a), replica(&b)];
        assert!(!reconf.evaluate(at(0), &all, &mut out));
        assert_eq!(sent(&mut out), [2]);
        // INFO from before it was told says nothing.
        let up = report(&new, MasterLink::Up);
        all[1].report = None;
        assert!(!reconf.evaluate(at(1), &all, &mut out));
        assert_eq!(out, []);
        let syncing = report(&new, MasterLink::NeverUp);
        all[1].report = Some((at(2), &syncing));
        assert!(!reconf.evaluate(at(2), &all, &mut out));
        assert_eq!(out, [Output::Event(Plain::SlaveReconfInProgress, a.clone())]);
        out.clear();
        all[1].report = Some((at(3), &up));
        assert!(!reconf.evaluate(at(3), &all, &mut out));
        assert_eq!(out.first(), Some(&Output::Event(Plain::SlaveReconfDone, a.clone())));
        assert_eq!(sent(&mut out), [3]);
        all[2].report = Some((at(4), &up));
        assert!(reconf.evaluate(at(4), &all, &mut out));
    }

    #[test]
    fn who_is_down_or_silent_does_not_hold_the_others_up() {
        let (new, a, b) = (address(1), address(2), address(3));
        let mut reconf = Reconfiguration::new(new.clone(), 1, SENT_TIMEOUT);
        let mut out = Vec::new();
        let mut all = [replica(&a), replica(&b)];
        all[1].is_connected = false;
        assert!(!reconf.evaluate(at(0), &all, &mut out));
        assert_eq!(reconf.deadline(), Some(at(10_000) + Duration::from_nanos(1)));
        out.clear();
        assert!(!reconf.evaluate(at(10_001), &all, &mut out));
        assert_eq!(out, [Output::Event(Plain::SlaveReconfSentTimeout, a.clone())]);
        all[1].is_down = true;
        assert!(reconf.evaluate(at(10_002), &all, &mut out));
        // At the end everybody is told who can be.
        all[1].is_connected = true;
        out.clear();
        reconf.finish(&all, &mut out);
        assert_eq!(sent(&mut out), [3]);
    }
}
