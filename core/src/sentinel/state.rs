//! What a Sentinel must not forget: written before anything that depends on it is said.

use std::collections::BTreeMap;
use std::fmt;

use super::instance::{Address, Epoch, MasterName, RunId};
use crate::config::sentinel::Config;
use crate::hash::Hash;

/// One fact that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An election is known of.
    Epoch(Epoch),
    /// Our vote in an election, which is known of by that.
    Vote {
        /// Whom it was about.
        master: MasterName,
        /// Which election.
        epoch: Epoch,
        /// Whom we voted for.
        leader: RunId,
    },
    /// Where a master is since an election.
    Config {
        /// Which master.
        master: MasterName,
        /// Which election.
        epoch: Epoch,
        /// Where.
        address: Address,
    },
    /// The history that a master had when it was last the master.
    Lineage {
        /// Which master.
        master: MasterName,
        /// What it had.
        lineage: Lineage,
    },
    /// A master is not watched any more.
    Forget(MasterName),
}

/// The history of a master. Only a replica that continues it has what the clients wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The election that made it the master.
    pub epoch: Epoch,
    /// The name of the history.
    pub replid: RunId,
    /// The name of the one that it continued.
    pub earlier: Option<RunId>,
}

/// Everything that was written, put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// The latest election of all.
    pub current_epoch: Epoch,
    /// What is known of each master.
    pub masters: BTreeMap<MasterName, DurableMaster>,
}

/// What is known of one master.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurableMaster {
    /// The latest election that we voted in.
    pub leader_epoch: Epoch,
    /// Whom we voted for; none if that was not kept, as in the file of a genuine Sentinel.
    pub leader: Option<RunId>,
    /// The election that gave it its address.
    pub config_epoch: Epoch,
    /// Where it is since; none as long as it is where the configuration says.
    pub address: Option<Address>,
    /// The history of its last master, as far as it was seen.
    pub lineage: Option<Lineage>,
}

impl Durable {
    /// Takes over what a genuine Sentinel's file remembers.
    ///
    /// The current epoch is at least every epoch that the file knows of.
    pub fn from_config(config: &Config) -> Self {
        let mut current_epoch = config.current_epoch;
        let mut masters = BTreeMap::new();
        for master in &config.masters {
            let (config_epoch, leader_epoch) = (master.config_epoch, master.leader_epoch);
            current_epoch = current_epoch.max(config_epoch).max(leader_epoch);
            let known = DurableMaster { leader_epoch, config_epoch, ..Default::default() };
            masters.insert(master.name.clone(), known);
        }
        Self { current_epoch, masters }
    }

    /// Adds a fact. Older facts than what is known change nothing.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Epoch(epoch) => self.current_epoch = self.current_epoch.max(*epoch),
            Record::Vote { master, epoch, leader } => {
                self.current_epoch = self.current_epoch.max(*epoch);
                let known = self.masters.entry(master.clone()).or_default();
                // A genuine Sentinel's file tells in which election we voted, not for whom.
                let is_name = *epoch == known.leader_epoch && known.leader.is_none();
                if *epoch > known.leader_epoch || is_name {
                    known.leader_epoch = *epoch;
                    known.leader = Some(*leader);
                }
            }
            Record::Config { master, epoch, address } => {
                self.current_epoch = self.current_epoch.max(*epoch);
                let known = self.masters.entry(master.clone()).or_default();
                if *epoch > known.config_epoch {
                    known.config_epoch = *epoch;
                    known.address = Some(address.clone());
                }
            }
            Record::Lineage { master, lineage } => {
                let known = self.masters.entry(master.clone()).or_default();
                // Of one epoch the last counts: a master may restart with another history.
                if known.lineage.is_none_or(|old| old.epoch <= lineage.epoch) {
                    known.lineage = Some(*lineage);
                }
            }
            Record::Forget(master) => {
                self.masters.remove(master);
            }
        }
    }
}

impl Record {
    /// Reads what [`Display`](fmt::Display) writes: a checksum of eight hexadecimal digits, a space,
    /// the words. `None` if it is cut, damaged or unknown.
    pub fn parse(line: &str) -> Option<Self> {
        let (sum, text) = line.split_once(' ')?;
        // Any other spelling of the number was not written by us.
        if sum != format!("{:08x}", Hash::Xxh3_64.hash(text.as_bytes())) {
            return None;
        }
        let mut words = text.split(' ');
        let mut next = || words.next();
        let epoch = |word: &str| Epoch::parse(word.as_bytes());
        let record = match next()? {
            "epoch" => Self::Epoch(epoch(next()?)?),
            "vote" => Self::Vote {
                epoch: epoch(next()?)?,
                leader: RunId::parse(next()?.as_bytes())?,
                master: MasterName::new(next()?)?,
            },
            "config" => {
                let epoch = epoch(next()?)?;
                let address = Address::parse(next()?.as_bytes(), next()?.as_bytes()).ok()?;
                Self::Config { epoch, address, master: MasterName::new(next()?)? }
            }
            "lineage" => {
                let epoch = epoch(next()?)?;
                let replid = RunId::parse(next()?.as_bytes())?;
                let earlier = match next()? {
                    "-" => None,
                    word => Some(RunId::parse(word.as_bytes())?),
                };
                let lineage = Lineage { epoch, replid, earlier };
                Self::Lineage { lineage, master: MasterName::new(next()?)? }
            }
            "forget" => Self::Forget(MasterName::new(next()?)?),
            _ => return None,
        };
        next().is_none().then_some(record)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Epoch(epoch) => format!("epoch {epoch}"),
            Self::Vote { master, epoch, leader } => format!("vote {epoch} {leader} {master}"),
            Self::Config { master, epoch, address } => {
                format!("config {epoch} {} {} {master}", address.host(), address.port())
            }
            Self::Lineage { master, lineage: Lineage { epoch, replid, earlier } } => {
                let earlier = earlier.map_or_else(|| "-".to_owned(), |id| id.to_string());
                format!("lineage {epoch} {replid} {earlier} {master}")
            }
            Self::Forget(master) => format!("forget {master}"),
        };
        write!(f, "{:08x} {text}", Hash::Xxh3_64.hash(text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        (0..5, 0..1000_u64, "[a-z]{1,3}", 1..9_u16, prop_oneof![Just(b'a'), Just(b'b')]).prop_map(
            |(kind, epoch, name, port, leader)| {
                let master = MasterName::new(&name).unwrap();
                let epoch = Epoch::new(epoch).unwrap();
                match kind {
                    0 => Record::Epoch(epoch),
                    1 => {
                        Record::Vote { master, epoch, leader: RunId::parse(&[leader; 40]).unwrap() }
                    }
                    2 => Record::Config {
                        master,
                        epoch,
                        address: Address::new("::1", port).unwrap(),
                    },
                    3 => {
                        let replid = RunId::parse(&[leader; 40]).unwrap();
                        let earlier = (port > 4).then_some(replid);
                        Record::Lineage { master, lineage: Lineage { epoch, replid, earlier } }
                    }
                    _ => Record::Forget(master),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_is_read_back_and_a_damaged_one_is_not(
            record in record(),
            cut in any::<proptest::sample::Index>(),
        ) {
            let line = record.to_string();
            prop_assert_eq!(Record::parse(&line), Some(record));
            prop_assert_eq!(Record::parse(&line[..cut.index(line.len())]), None);
        }

        #[test]
        fn the_order_of_facts_does_not_matter_to_what_was_promised(
            records in proptest::collection::vec(record(), 0..12),
        ) {
            let is_promise = |r: &&Record| matches!(r, Record::Epoch(_) | Record::Vote { .. });
            let mut state = Durable::default();
            records.iter().filter(is_promise).for_each(|record| state.apply(record));
            let again = state.clone();
            records.iter().filter(is_promise).rev().for_each(|record| state.apply(record));
            prop_assert_eq!(state, again);
        }

        #[test]
        fn no_line_panics(line in any::<String>()) {
            let _ = Record::parse(&line);
        }
    }

    #[test]
    fn no_fact_is_taken_back() {
        let master = MasterName::new("m").unwrap();
        let vote = |epoch, leader| Record::Vote {
            master: master.clone(),
            epoch: Epoch::new(epoch).unwrap(),
            leader: RunId::parse(&[leader; 40]).unwrap(),
        };
        let mut state = Durable::default();
        for record in [vote(2, b'a'), vote(2, b'b'), vote(1, b'b')] {
            state.apply(&record);
        }
        assert_eq!(state.current_epoch.get(), 2);
        assert_eq!(state.masters[&master].leader, RunId::parse(&[b'a'; 40]));
    }
}
