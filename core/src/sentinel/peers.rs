//! Who else watches a master, learnt from hellos.
//!
//! A peer counts as a voter from its first hello on and is forgotten only when an operator says
//! so: a majority that shrank with the peers that cannot be reached would be no majority. Its own
//! vote counts once it is proven, see [`Peers::is_proven`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::election::Peer;
use super::hello::Hello;
use super::instance::{Address, Epoch, RunId};
use crate::limits;
use crate::time::Instant;

/// By which way a hello came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Through the channel of the master.
    Master,
    /// Through the channel of a replica, by its position in the table.
    Replica(usize),
    /// Published to us by whoever connected to our port.
    Direct,
}

impl Way {
    /// Ways that are told apart: directly, by the master, by each of five replicas, by the rest.
    fn bit(self) -> u8 {
        match self {
            Self::Direct => 1,
            Self::Master => 1 << 1,
            Self::Replica(at) => 1 << (2 + at.min(5)),
        }
    }
}

/// What a hello changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A peer was not known (`+sentinel`).
    Added(RunId, Address),
    /// A peer moved (`+sentinel-address-switch`).
    Moved(RunId, Address),
    /// Another peer had this address; that one is gone from every master
    /// (`+sentinel-invalid-addr`).
    Replaced(RunId, Address),
    /// There are as many as may be; this one is not taken in.
    Refused(RunId),
    /// Somebody else has our ID: no more votes until an operator has looked.
    CopiedId(Address),
    /// An election that may be news; for all masters.
    Epoch(Epoch),
    /// The master moved, by an election that we had not heard of.
    ConfigUpdate {
        /// Who told.
        from: RunId,
        /// Which election.
        epoch: Epoch,
        /// Where it is; perhaps where it was.
        address: Address,
    },
    /// Two addresses are told for one election: some Sentinel counted votes wrongly. Only a fresh
    /// election can settle it.
    Conflict {
        /// Who told.
        from: RunId,
        /// The other address.
        address: Address,
    },
}

#[derive(Clone, Debug)]
struct Known {
    address: Address,
    last_hello: Option<Instant>,
    /// The first hello in this process.
    first_hello: Option<Instant>,
    ways: u8,
    is_proven: bool,
}

impl Known {
    const fn new(address: Address) -> Self {
        Self { address, last_hello: None, first_hello: None, ways: 0, is_proven: false }
    }
}

/// What is believed of the master that a hello is about.
#[derive(Clone, Copy, Debug)]
pub struct Belief<'a> {
    /// Where it is.
    pub address: &'a Address,
    /// The election that gave it that address.
    pub config_epoch: Epoch,
}

/// The peers of one master.
#[derive(Clone, Debug)]
pub struct Peers {
    myid: RunId,
    /// Where we can be reached, as far as we know: our own hellos come from there.
    own: Vec<Address>,
    known: BTreeMap<RunId, Known>,
}

impl Peers {
    /// Begins with the peers that the configuration remembers; they are proven.
    pub fn new(
        myid: RunId,
        own: Vec<Address>,
        remembered: impl IntoIterator<Item = (RunId, Address)>,
    ) -> Self {
        let known = remembered
            .into_iter()
            .filter(|(id, _)| *id != myid)
            .take(limits::PEERS_PER_MASTER_MAX)
            .map(|(id, address)| (id, Known { is_proven: true, ..Known::new(address) }))
            .collect();
        Self { myid, own, known }
    }

    /// Takes in a hello about this master. `round` is the period of hellos.
    ///
    /// Deviates: where the master is, is believed of a proven peer only; genuine Sentinels believe
    /// whoever can reach them.
    pub fn handle_hello(
        &mut self,
        now: Instant,
        way: Way,
        hello: &Hello,
        belief: Belief<'_>,
        round: Duration,
        out: &mut Vec<Output>,
    ) {
        if hello.run_id == self.myid {
            if !self.own.iter().any(|own| own.is_same(&hello.from)) {
                out.push(Output::CopiedId(hello.from.clone()));
            }
            return;
        }
        if !self.take_in(hello, out) {
            return;
        }
        let is_proven = self.note(now, way, hello.run_id, round, out);
        out.push(Output::Epoch(hello.current_epoch.max(hello.config_epoch)));
        if !is_proven {
            return;
        }
        let Belief { address, config_epoch } = belief;
        let (from, told) = (hello.run_id, hello.address.clone());
        if hello.config_epoch > config_epoch {
            let epoch = hello.config_epoch;
            out.push(Output::ConfigUpdate { from, epoch, address: told });
        } else if hello.config_epoch == config_epoch && !told.is_same(address) {
            out.push(Output::Conflict { from, address: told });
        }
    }

    /// Adds the sender, or moves it. Returns whether it is known then.
    fn take_in(&mut self, hello: &Hello, out: &mut Vec<Output>) -> bool {
        let (id, address) = (hello.run_id, hello.from.clone());
        let has_room = self.known.len() < limits::PEERS_PER_MASTER_MAX;
        match self.known.get_mut(&id) {
            Some(known) if known.address.is_same(&address) => {}
            Some(known) => {
                // Who took over an ID has to prove itself anew.
                *known = Known::new(address.clone());
                out.push(Output::Moved(id, address));
            }
            None if has_room => {
                self.known.insert(id, Known::new(address.clone()));
                out.push(Output::Added(id, address));
            }
            None => {
                out.push(Output::Refused(id));
                return false;
            }
        }
        true
    }

    /// Notes when and how a hello came. Returns whether its sender is proven.
    fn note(
        &mut self,
        now: Instant,
        way: Way,
        id: RunId,
        round: Duration,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(known) = self.known.get_mut(&id) else { return false };
        known.last_hello = Some(now);
        let first = *known.first_hello.get_or_insert(now);
        known.ways |= way.bit();
        if known.is_proven {
            return true;
        }
        known.is_proven = known.ways.count_ones() >= 2 && now.since(first) >= round;
        if !known.is_proven {
            return false;
        }
        self.replace_others(&id, out);
        true
    }

    /// Of two with one address the one that answers there is the one that is proven.
    fn replace_others(&mut self, id: &RunId, out: &mut Vec<Output>) {
        let Some(address) = self.address(id).cloned() else { return };
        let is_replaced = |(other, known): (&RunId, &Known)| {
            (other != id && known.address.is_same(&address)).then_some(*other)
        };
        let replaced: Vec<RunId> = self.known.iter().filter_map(is_replaced).collect();
        for other in replaced {
            self.known.remove(&other);
            out.push(Output::Replaced(other, address.clone()));
        }
    }

    /// Takes in that a peer was asked for its ID where it says it is, and gave the right one.
    pub fn handle_verified(&mut self, id: &RunId, out: &mut Vec<Output>) {
        if let Some(known) = self.known.get_mut(id) {
            known.is_proven = true;
            self.replace_others(id, out);
        }
    }

    /// Returns where a peer is.
    pub fn address(&self, id: &RunId) -> Option<&Address> {
        self.known.get(id).map(|known| &known.address)
    }

    /// Takes in where a peer is, from a hello about another master. Returns whether that is news.
    pub fn relocate(&mut self, id: &RunId, address: &Address) -> bool {
        match self.known.get_mut(id) {
            Some(known) if !known.address.is_same(address) => {
                known.address = address.clone();
                true
            }
            Some(_) | None => false,
        }
    }

    /// Forgets a peer because an operator says so, or because another master's hellos replaced it.
    pub fn forget(&mut self, id: &RunId) {
        self.known.remove(id);
    }

    /// Whether a peer was heard by more than one way and over more than one round of hellos, or was
    /// remembered from before.
    pub fn is_proven(&self, id: &RunId) -> bool {
        self.known.get(id).is_some_and(|known| known.is_proven)
    }

    /// Returns all peers as an election counts them.
    pub fn electors(&self) -> Vec<Peer> {
        let peer = |(id, known): (&RunId, &Known)| Peer { run_id: *id, is_proven: known.is_proven };
        self.known.iter().map(peer).collect()
    }

    /// Returns all peers, where they are, and when they were heard last.
    pub fn iter(&self) -> impl Iterator<Item = (&RunId, &Address, Option<Instant>)> {
        self.known.iter().map(|(id, known)| (id, &known.address, known.last_hello))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sentinel::instance::MasterName;

    const ROUND: Duration = Duration::from_secs(2);

    const fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn id(digit: u8) -> RunId {
        RunId::parse(&[digit; 40]).unwrap()
    }

    fn address(port: u16) -> Address {
        Address::new("h", port).unwrap()
    }

    fn epoch(value: u64) -> Epoch {
        Epoch::new(value).unwrap()
    }

    fn hello(from: u8, port: u16, config_epoch: u64, master_port: u16) -> Hello {
        Hello {
            from: address(port),
            run_id: id(from),
            current_epoch: epoch(1),
            master: MasterName::new("m").unwrap(),
            address: address(master_port),
            config_epoch: epoch(config_epoch),
        }
    }

    /// Says hello to who believes in port 6379 and epoch 0.
    fn heard(peers: &mut Peers, ms: u64, way: Way, hello: &Hello) -> Vec<Output> {
        let mut out = Vec::new();
        let own = address(6379);
        let belief = Belief { address: &own, config_epoch: Epoch::ZERO };
        peers.handle_hello(at(ms), way, hello, belief, ROUND, &mut out);
        out.retain(|output| !matches!(output, Output::Epoch(_)));
        out
    }

    fn peers() -> Peers {
        Peers::new(id(b'0'), vec![address(26379)], [(id(b'1'), address(1))])
    }

    #[test]
    fn a_new_peer_counts_at_once_and_its_vote_when_it_is_proven() {
        let mut peers = peers();
        let hello = hello(b'2', 2, 0, 6379);
        assert_eq!(
            heard(&mut peers, 0, Way::Direct, &hello),
            [Output::Added(id(b'2'), address(2))]
        );
        assert_eq!(peers.electors().len(), 2);
        heard(&mut peers, 5000, Way::Direct, &hello);
        assert!(!peers.is_proven(&id(b'2')));
        heard(&mut peers, 5000, Way::Replica(0), &hello);
        assert!(peers.is_proven(&id(b'2')));
        assert!(peers.is_proven(&id(b'1')));
    }

    #[test]
    fn a_later_configuration_is_believed_of_a_proven_peer_only() {
        let mut peers = peers();
        heard(&mut peers, 0, Way::Master, &hello(b'2', 2, 9, 666));
        let update = |from| Output::ConfigUpdate { from, epoch: epoch(9), address: address(666) };
        assert_eq!(heard(&mut peers, 1, Way::Direct, &hello(b'2', 2, 9, 666)), []);
        assert_eq!(heard(&mut peers, 2, Way::Direct, &hello(b'1', 1, 9, 666)), [update(id(b'1'))]);
        assert_eq!(
            heard(&mut peers, 2001, Way::Direct, &hello(b'2', 2, 9, 666)),
            [update(id(b'2'))]
        );
    }

    #[test]
    fn two_addresses_of_one_epoch_are_a_conflict_and_an_older_one_is_nothing() {
        let mut peers = peers();
        let conflict = Output::Conflict { from: id(b'1'), address: address(666) };
        assert_eq!(heard(&mut peers, 0, Way::Master, &hello(b'1', 1, 0, 666)), [conflict]);
        let mut out = Vec::new();
        let own = address(6379);
        let belief = Belief { address: &own, config_epoch: epoch(3) };
        let old = hello(b'1', 1, 2, 666);
        peers.handle_hello(at(1), Way::Master, &old, belief, ROUND, &mut out);
        assert_eq!(out, [Output::Epoch(epoch(2))]);
    }

    #[test]
    fn our_own_hello_is_nothing_and_a_copy_of_ours_is_an_alarm() {
        let mut peers = peers();
        assert_eq!(heard(&mut peers, 0, Way::Master, &hello(b'0', 26379, 0, 6379)), []);
        let copied = Output::CopiedId(address(5));
        assert_eq!(heard(&mut peers, 0, Way::Master, &hello(b'0', 5, 0, 6379)), [copied]);
        assert_eq!(peers.electors().len(), 1);
    }

    #[test]
    fn who_moves_has_to_prove_itself_anew() {
        let mut peers = peers();
        let moved = Output::Moved(id(b'1'), address(7));
        assert_eq!(heard(&mut peers, 0, Way::Master, &hello(b'1', 7, 0, 6379)), [moved]);
        assert!(!peers.is_proven(&id(b'1')));
    }

    #[test]
    fn a_proven_peer_replaces_another_with_its_address() {
        let mut peers = peers();
        let hello = hello(b'2', 1, 0, 6379);
        heard(&mut peers, 0, Way::Master, &hello);
        assert_eq!(peers.electors().len(), 2);
        let replaced = Output::Replaced(id(b'1'), address(1));
        assert_eq!(heard(&mut peers, 2000, Way::Direct, &hello), [replaced]);
        assert_eq!(peers.electors().len(), 1);
    }

    #[test]
    fn there_are_never_more_than_may_be() {
        let mut peers = Peers::new(id(b'0'), Vec::new(), []);
        for at in 0..=limits::PEERS_PER_MASTER_MAX {
            let mut bits = [0xff; 20];
            bits[..8].copy_from_slice(&at.to_be_bytes());
            let from = RunId::from_random(bits);
            let hello = Hello { run_id: from, ..hello(b'1', 1, 0, 6379) };
            let out = heard(&mut peers, 0, Way::Direct, &hello);
            let is_refused = out == [Output::Refused(from)];
            assert_eq!(is_refused, at == limits::PEERS_PER_MASTER_MAX);
        }
    }
}
