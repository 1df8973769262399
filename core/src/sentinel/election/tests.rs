#![allow(clippy::wildcard_enum_match_arm, reason = "tests look at what they are about")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

const fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn id(node: usize) -> RunId {
    RunId::parse(&[b'0' + u8::try_from(node).unwrap(); 40]).unwrap()
}

fn name(master: usize) -> MasterName {
    MasterName::new(&format!("m{master}")).unwrap()
}

fn epoch(value: u64) -> Epoch {
    Epoch::new(value).unwrap()
}

fn peers(of: usize, nodes: usize) -> Vec<Peer> {
    let others = (0..nodes).filter(|node| *node != of);
    others.map(|node| Peer { run_id: id(node), is_proven: true }).collect()
}

const VIEW: View = View { is_down: true, is_master_alive: false, may_vote: true };

fn voter(now: Instant) -> Elections {
    let mut voter = Elections::new(now, id(0), &Durable::default(), 1);
    voter.add_master(&name(0));
    voter
}

/// Takes all outputs; makes every record durable if wanted.
fn drain(elections: &mut Elections, now: Instant, sync: bool) -> Vec<Output> {
    let mut all = Vec::new();
    while let Some(output) = elections.poll_output() {
        if let (Output::Persist { ticket, .. }, true) = (&output, sync) {
            elections.handle_persisted(now, *ticket, true);
        }
        all.push(output);
    }
    all
}

/// Asks and returns the answer; everything is made durable at once.
fn ask(voter: &mut Elections, now: Instant, epoch_: u64, candidate: usize) -> (Option<RunId>, u64) {
    ask_with(voter, now, epoch_, candidate, VIEW)
}

fn ask_with(
    voter: &mut Elections,
    now: Instant,
    epoch_: u64,
    candidate: usize,
    view: View,
) -> (Option<RunId>, u64) {
    voter.handle_ask(now, AskId(7), &name(0), epoch(epoch_), id(candidate), view);
    let found = drain(voter, now, true).into_iter().find_map(|output| match output {
        Output::Reply { answer, .. } => Some((answer.leader, answer.epoch.get())),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn a_vote_is_durable_before_it_is_told() {
    let mut voter = voter(at(0));
    voter.handle_ask(at(0), AskId(1), &name(0), epoch(1), id(1), VIEW);
    let before = drain(&mut voter, at(0), false);
    let record = Record::Vote { master: name(0), epoch: epoch(1), leader: id(1) };
    assert!(before.contains(&Output::Persist { ticket: Ticket(1), record }));
    assert!(!before.iter().any(|output| matches!(output, Output::Reply { .. })));
    voter.handle_persisted(at(1), Ticket(1), true);
    let answer = Answer { is_down: true, leader: Some(id(1)), epoch: epoch(1) };
    assert_eq!(drain(&mut voter, at(1), false), [Output::Reply { ask: AskId(1), answer }]);
}

#[test]
fn a_vote_that_cannot_be_written_is_not_told_and_no_other_is_given() {
    let mut voter = voter(at(0));
    voter.handle_ask(at(0), AskId(1), &name(0), epoch(1), id(1), VIEW);
    voter.handle_persisted(at(1), Ticket(1), false);
    let outputs = drain(&mut voter, at(1), false);
    let answer = Answer { is_down: true, ..Answer::UNKNOWN };
    assert_eq!(outputs.last(), Some(&Output::Reply { ask: AskId(1), answer }));
    assert!(!voter.is_durable());
    assert_eq!(ask(&mut voter, at(2), 1, 2), (None, 1));
    // Writing is tried again, and works.
    voter.handle_timeout(voter.poll_timeout().unwrap());
    drain(&mut voter, at(1001), true);
    assert!(voter.is_durable());
    assert_eq!(ask(&mut voter, at(9000), 3, 2), (Some(id(2)), 3));
}

#[test]
fn there_is_one_vote_in_an_epoch_and_the_first_who_asks_has_it() {
    let mut voter = voter(at(0));
    assert_eq!(ask(&mut voter, at(0), 1, 1), (Some(id(1)), 1));
    assert_eq!(ask(&mut voter, at(1), 1, 2), (Some(id(1)), 1));
    assert_eq!(ask(&mut voter, at(9000), 1, 2), (Some(id(1)), 1));
    assert_eq!(ask(&mut voter, at(9001), 2, 2), (Some(id(2)), 2));
    // Elections of other masters have gone on; of this one there is no vote in this epoch yet.
    voter.handle_epoch(epoch(5));
    assert_eq!(ask(&mut voter, at(20_000), 4, 3), (Some(id(3)), 4));
    assert_eq!(ask(&mut voter, at(30_000), 3, 1), (Some(id(3)), 4));
}

#[test]
fn a_vote_binds_for_a_while_but_not_against_the_same_candidate() {
    let mut voter = voter(at(0));
    assert_eq!(ask(&mut voter, at(0), 1, 1), (Some(id(1)), 1));
    assert_eq!(ask(&mut voter, at(4999), 2, 2), (Some(id(1)), 1));
    assert_eq!(voter.current_epoch(), epoch(2));
    assert_eq!(ask(&mut voter, at(4999), 3, 1), (Some(id(1)), 3));
    assert_eq!(ask(&mut voter, at(9998), 4, 2), (Some(id(1)), 3));
    assert_eq!(ask(&mut voter, at(9999), 5, 2), (Some(id(2)), 5));
}

#[test]
fn who_hears_the_master_or_may_not_vote_does_not() {
    let mut voter = voter(at(0));
    let alive = View { is_master_alive: true, ..VIEW };
    assert_eq!(ask_with(&mut voter, at(0), 1, 1, alive), (None, 0));
    let tilt = View { may_vote: false, ..VIEW };
    assert_eq!(ask_with(&mut voter, at(0), 1, 1, tilt), (None, 0));
    // A copy of ourselves asks.
    assert_eq!(ask(&mut voter, at(0), 1, 0), (None, 0));
    assert_eq!(ask(&mut voter, at(0), 1, 1), (Some(id(1)), 1));
}

#[test]
fn an_epoch_that_is_too_far_ahead_is_refused() {
    let mut voter = voter(at(0));
    voter.handle_epoch(Epoch::MAX);
    assert_eq!(drain(&mut voter, at(0), true), [Output::EpochRefused(Epoch::MAX)]);
    assert_eq!(ask(&mut voter, at(0), Epoch::MAX.get(), 1), (None, 0));
    assert_eq!(voter.current_epoch(), Epoch::ZERO);
}

fn answer(epoch_: u64, leader: usize) -> Answer {
    Answer { is_down: true, leader: Some(id(leader)), epoch: epoch(epoch_) }
}

fn elected(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Elected { .. }))
}

#[test]
fn votes_of_another_epoch_do_not_count() {
    let mut me = voter(at(0));
    me.start(at(0), &name(0), peers(0, 3), 2, at(10_000)).unwrap();
    drain(&mut me, at(0), true);
    me.handle_epoch(epoch(2));
    me.handle_answer(&name(0), id(1), &answer(2, 0));
    me.handle_answer(&name(0), id(2), &answer(0, 0));
    assert!(!elected(&drain(&mut me, at(1), true)));
    me.handle_answer(&name(0), id(1), &answer(1, 0));
    assert!(elected(&drain(&mut me, at(2), true)));
    assert_eq!(me.leads(&name(0)), Some(epoch(1)));
}

#[test]
fn dead_and_unproven_peers_count_in_the_majority_only() {
    let mut me = voter(at(0));
    let mut five = peers(0, 5);
    five[3].is_proven = false;
    me.start(at(0), &name(0), five, 2, at(10_000)).unwrap();
    drain(&mut me, at(0), true);
    for peer in [1, 1, 4, 9] {
        me.handle_answer(&name(0), id(peer), &answer(1, 0));
        assert!(!elected(&drain(&mut me, at(1), true)), "{peer}");
    }
    me.handle_answer(&name(0), id(2), &answer(1, 0));
    assert!(elected(&drain(&mut me, at(1), true)));
}

#[test]
fn a_quorum_above_the_majority_is_needed_too() {
    let mut me = voter(at(0));
    me.start(at(0), &name(0), peers(0, 3), 3, at(10_000)).unwrap();
    drain(&mut me, at(0), true);
    me.handle_answer(&name(0), id(1), &answer(1, 0));
    assert!(!elected(&drain(&mut me, at(1), true)));
    me.handle_answer(&name(0), id(2), &answer(1, 0));
    assert!(elected(&drain(&mut me, at(1), true)));
}

#[test]
fn nobody_is_asked_before_our_own_vote_is_durable() {
    let mut me = voter(at(0));
    me.start(at(0), &name(0), peers(0, 1), 1, at(10_000)).unwrap();
    let before = drain(&mut me, at(0), false);
    assert!(!before.iter().any(|o| matches!(o, Output::AskPeers { .. } | Output::Elected { .. })));
    // Time passes, but no fresh epoch is used while the disk is slow.
    me.handle_timeout(at(5000));
    assert_eq!(me.current_epoch(), epoch(1));
    me.handle_persisted(at(5000), Ticket(1), true);
    assert!(elected(&drain(&mut me, at(5000), false)));
}

#[test]
fn a_candidate_without_votes_stands_again_and_gives_up_in_the_end() {
    let mut me = voter(at(0));
    me.start(at(0), &name(0), peers(0, 3), 2, at(3000)).unwrap();
    let busy = me.start(at(0), &name(0), peers(0, 3), 2, at(3000));
    assert_eq!(busy, Err(StartError::Busy));
    drain(&mut me, at(0), true);
    let mut asked = BTreeSet::new();
    let mut last = Vec::new();
    while let Some(due) = me.poll_timeout() {
        me.handle_timeout(due);
        last = drain(&mut me, due, true);
        asked.extend(last.iter().filter_map(|output| match output {
            Output::AskPeers { epoch, .. } => Some(epoch.get()),
            _ => None,
        }));
    }
    assert!(asked.len() >= 2, "{asked:?}");
    let why = NotElected::Timeout;
    assert_eq!(last, [Output::NotElected { master: name(0), why }]);
}

#[test]
fn a_vote_for_another_ends_the_own_candidacy() {
    let mut me = voter(at(0));
    me.start(at(0), &name(0), peers(0, 3), 2, at(10_000)).unwrap();
    drain(&mut me, at(0), true);
    assert_eq!(ask(&mut me, at(1), 2, 1), (Some(id(1)), 2));
    assert_eq!(me.poll_timeout(), None);
    let barred = me.start(at(2), &name(0), peers(0, 3), 2, at(10_000));
    assert_eq!(barred, Err(StartError::Barred(at(5001))));
    assert!(me.start(at(5001), &name(0), peers(0, 3), 2, at(10_000)).is_ok());
}

#[test]
fn who_leads_votes_for_nobody_until_it_is_done() {
    let mut me = voter(at(0));
    me.start(at(0), &name(0), peers(0, 1), 1, at(10_000)).unwrap();
    drain(&mut me, at(0), true);
    assert_eq!(ask(&mut me, at(1), 2, 1), (Some(id(0)), 1));
    me.finish(&name(0));
    assert_eq!(ask(&mut me, at(2), 3, 1), (Some(id(1)), 3));
}

#[test]
fn a_vote_from_before_a_restart_binds() {
    let mut durable = Durable::default();
    durable.apply(&Record::Vote { master: name(0), epoch: epoch(4), leader: id(1) });
    let mut me = Elections::new(at(0), id(0), &durable, 1);
    assert_eq!(ask(&mut me, at(1), 4, 2), (Some(id(1)), 4));
    assert_eq!(ask(&mut me, at(1), 5, 2), (Some(id(1)), 4));
    assert!(me.start(at(2), &name(0), peers(0, 3), 2, at(9000)).is_err());
    assert_eq!(ask(&mut me, at(5000), 6, 2), (Some(id(2)), 6));
}

/// How the driver of a node may break its contract; the simulation has to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sabotage {
    None,
    /// Says that records are durable as soon as it gets them.
    AcknowledgesEarly,
    /// Counts votes of any epoch, as if they were of the one that is stood in.
    MixesEpochs,
}

#[derive(Clone, Debug)]
enum Message {
    Ask { from: usize, to: usize, master: usize, epoch: Epoch },
    Answer { from: usize, to: usize, master: usize, answer: Answer },
    Hello { to: usize, epoch: Epoch },
}

struct Node {
    elections: Elections,
    /// What is on disk.
    journal: Vec<u8>,
    /// What is on its way there.
    writing: VecDeque<(Ticket, Record)>,
    asks: BTreeMap<u64, (usize, usize)>,
    next_ask: u64,
}

struct World {
    now: Instant,
    rng: Rng,
    sabotage: Sabotage,
    masters: usize,
    nodes: Vec<Node>,
    messages: Vec<Message>,
    /// Who was elected, by master and epoch.
    leaders: BTreeMap<(usize, Epoch), BTreeSet<usize>>,
    /// What a node said that it voted, by node, master and epoch.
    told: BTreeMap<(usize, usize, Epoch), BTreeSet<RunId>>,
    elected: Vec<usize>,
}

/// Writes a record as a line.
fn push_line(record: &Record, journal: &mut Vec<u8>) {
    journal.extend_from_slice(format!("{record}\n").as_bytes());
}

/// Reads lines up to the first that does not stand there whole; returns the bytes that count.
fn replay(durable: &mut Durable, journal: &[u8]) -> usize {
    let mut good = 0;
    for line in journal.split_inclusive(|byte| *byte == b'\n') {
        let text = std::str::from_utf8(line).unwrap();
        let Some(record) = text.strip_suffix('\n').and_then(Record::parse) else { break };
        durable.apply(&record);
        good += line.len();
    }
    good
}

impl World {
    fn new(seed: u64, nodes: usize, masters: usize, sabotage: Sabotage) -> Self {
        let mut world = Self {
            now: at(1),
            rng: Rng::new(seed),
            sabotage,
            masters,
            nodes: Vec::new(),
            messages: Vec::new(),
            leaders: BTreeMap::new(),
            told: BTreeMap::new(),
            elected: vec![0; masters],
        };
        for node in 0..nodes {
            let node = world.boot(node, Vec::new());
            world.nodes.push(node);
        }
        world
    }

    fn boot(&mut self, node: usize, mut journal: Vec<u8>) -> Node {
        let mut durable = Durable::default();
        let good = replay(&mut durable, &journal);
        journal.truncate(good);
        let mut elections = Elections::new(self.now, id(node), &durable, self.rng.next_u64());
        (0..self.masters).for_each(|master| elections.add_master(&name(master)));
        let writing = VecDeque::new();
        Node { elections, journal, writing, asks: BTreeMap::new(), next_ask: 0 }
    }

    fn pick(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(u64::try_from(bound).unwrap())).unwrap()
    }

    fn master(&self, wanted: &MasterName) -> usize {
        (0..self.masters).find(|master| name(*master) == *wanted).unwrap()
    }

    fn start(&mut self, node: usize, master: usize) {
        let list = peers(node, self.nodes.len());
        let ends = self.now + Duration::from_secs(10);
        let quorum = 1;
        let _ = self.nodes[node].elections.start(self.now, &name(master), list, quorum, ends);
        self.settle(node);
    }

    fn deliver(&mut self, message: Message) {
        let now = self.now;
        match message {
            Message::Ask { from, to, master, epoch } => {
                let node = &mut self.nodes[to];
                node.next_ask += 1;
                node.asks.insert(node.next_ask, (from, master));
                let ask = AskId(node.next_ask);
                node.elections.handle_ask(now, ask, &name(master), epoch, id(from), VIEW);
                self.settle(to);
            }
            Message::Answer { from, to, master, mut answer } => {
                if self.sabotage == Sabotage::MixesEpochs {
                    answer.epoch = self.nodes[to].elections.vote(&name(master)).1;
                }
                self.nodes[to].elections.handle_answer(&name(master), id(from), &answer);
                self.settle(to);
            }
            Message::Hello { to, epoch } => {
                self.nodes[to].elections.handle_epoch(epoch);
                self.settle(to);
            }
        }
    }

    fn settle(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].elections.poll_output() {
            match output {
                Output::Persist { ticket, record } => {
                    self.nodes[node].writing.push_back((ticket, record));
                    if self.sabotage == Sabotage::AcknowledgesEarly {
                        self.nodes[node].elections.handle_persisted(self.now, ticket, true);
                    }
                }
                Output::Reply { ask, answer } => {
                    let Some((to, master)) = self.nodes[node].asks.remove(&ask.0) else { continue };
                    if let Some(leader) = answer.leader {
                        self.told.entry((node, master, answer.epoch)).or_default().insert(leader);
                    }
                    self.messages.push(Message::Answer { from: node, to, master, answer });
                }
                Output::AskPeers { master, epoch } => {
                    let master = self.master(&master);
                    self.told.entry((node, master, epoch)).or_default().insert(id(node));
                    for to in (0..self.nodes.len()).filter(|to| *to != node) {
                        self.messages.push(Message::Ask { from: node, to, master, epoch });
                    }
                }
                Output::Elected { master, epoch } => {
                    let master = self.master(&master);
                    self.elected[master] += 1;
                    self.leaders.entry((master, epoch)).or_default().insert(node);
                }
                Output::NewEpoch(_)
                | Output::EpochRefused(_)
                | Output::Voted { .. }
                | Output::NotElected { .. } => {}
            }
        }
    }

    /// Makes the oldest record durable, or fails to, in which case it may still be on disk.
    fn sync(&mut self, node: usize, works: bool) {
        let is_written = works || self.rng.is_one_in(1, 2);
        let Some((ticket, record)) = self.nodes[node].writing.pop_front() else { return };
        if is_written {
            push_line(&record, &mut self.nodes[node].journal);
        }
        self.nodes[node].elections.handle_persisted(self.now, ticket, works);
        self.settle(node);
    }

    /// Ends a process; some of what was on its way is on disk, the last of it perhaps torn.
    fn crash(&mut self, node: usize) {
        let survivors = self.pick(self.nodes[node].writing.len() + 1);
        let mut journal = std::mem::take(&mut self.nodes[node].journal);
        for (_, record) in self.nodes[node].writing.iter().take(survivors) {
            push_line(record, &mut journal);
        }
        if let Some((_, record)) = self.nodes[node].writing.get(survivors) {
            let mut torn = Vec::new();
            push_line(record, &mut torn);
            let cut = self.pick(torn.len());
            journal.extend_from_slice(&torn[..cut]);
        }
        self.nodes[node] = self.boot(node, journal);
    }

    fn step(&mut self) {
        let node = self.pick(self.nodes.len());
        let master = self.pick(self.masters);
        match self.pick(100) {
            0..=9 => self.start(node, master),
            10..=49 if !self.messages.is_empty() => {
                let at = self.pick(self.messages.len());
                let message = self.messages.swap_remove(at);
                self.deliver(message);
            }
            50..=54 if !self.messages.is_empty() => {
                let at = self.pick(self.messages.len());
                self.messages.swap_remove(at);
            }
            55..=59 if !self.messages.is_empty() => {
                let at = self.pick(self.messages.len());
                self.messages.push(self.messages[at].clone());
            }
            60..=79 => self.sync(node, true),
            80 => self.sync(node, false),
            81..=83 => self.crash(node),
            84..=86 => {
                let epoch = self.nodes[node].elections.current_epoch();
                let to = self.pick(self.nodes.len());
                self.messages.push(Message::Hello { to, epoch });
            }
            87..=89 => {
                self.nodes[node].elections.finish(&name(master));
                self.settle(node);
            }
            _ => {
                self.now += Duration::from_millis(self.rng.below(1500));
                for node in 0..self.nodes.len() {
                    self.nodes[node].elections.handle_timeout(self.now);
                    self.settle(node);
                }
            }
        }
    }

    fn is_unsafe(&self) -> bool {
        self.leaders.values().any(|nodes| nodes.len() > 1)
            || self.told.values().any(|leaders| leaders.len() > 1)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn there_is_at_most_one_leader_and_one_vote_in_an_epoch(
        seed in any::<u64>(),
        nodes in 2..6_usize,
        masters in 1..3_usize,
    ) {
        let mut world = World::new(seed, nodes, masters, Sabotage::None);
        for _ in 0..600 {
            world.step();
            prop_assert!(!world.is_unsafe(), "{:?} {:?}", world.leaders, world.told);
        }
    }
}

/// Counts the seeds of which the simulation finds two leaders or two votes.
fn found(sabotage: Sabotage) -> usize {
    let is_found = |seed: &u64| {
        let mut world = World::new(*seed, 3, 2, sabotage);
        (0..1500).for_each(|_| world.step());
        world.is_unsafe()
    };
    (0..150).filter(is_found).count()
}

#[test]
fn the_simulation_elects_leaders() {
    let elected: usize = (0..50)
        .map(|seed| {
            let mut world = World::new(seed, 3, 2, Sabotage::None);
            (0..600).for_each(|_| world.step());
            world.leaders.len()
        })
        .sum();
    assert!(elected > 50, "{elected}");
}

#[test]
fn the_simulation_finds_votes_that_are_told_before_they_are_durable() {
    assert!(found(Sabotage::AcknowledgesEarly) > 0);
}

#[test]
fn the_simulation_finds_votes_counted_for_the_wrong_epoch() {
    assert!(found(Sabotage::MixesEpochs) > 0);
}

/// Runs without faults: every record and message takes a few milliseconds.
#[test]
fn many_masters_that_fail_together_each_get_one_leader() {
    for seed in 0..40 {
        let mut world = World::new(seed, 3, 20, Sabotage::None);
        let mut starts: Vec<(Instant, usize, usize)> = Vec::new();
        for node in 0..3 {
            for master in 0..20 {
                starts.push((at(10 + world.rng.below(400)), node, master));
            }
        }
        let mut flying: Vec<(Instant, Message)> = Vec::new();
        let mut led_at = [None; 20];
        for ms in 1..12_000 {
            world.now = at(ms);
            let now = world.now;
            for (when, node, master) in &mut starts {
                if *when <= now && led_at[*master].is_none() {
                    world.start(*node, *master);
                    *when = now + Duration::from_millis(100);
                }
            }
            for node in 0..3 {
                while !world.nodes[node].writing.is_empty() {
                    world.sync(node, true);
                }
                if world.nodes[node].elections.poll_timeout().is_some_and(|due| due <= now) {
                    world.nodes[node].elections.handle_timeout(now);
                    world.settle(node);
                }
            }
            for message in std::mem::take(&mut world.messages) {
                flying.push((now + Duration::from_millis(1 + world.rng.below(50)), message));
            }
            let (due, rest): (Vec<_>, Vec<_>) = flying.into_iter().partition(|(at, _)| *at <= now);
            flying = rest;
            due.into_iter().for_each(|(_, message)| world.deliver(message));
            for (master, _) in world.leaders.keys() {
                led_at[*master].get_or_insert(ms);
            }
            // Hellos with the new address end what the others still try.
            for master in (0..20).filter(|m| led_at[*m].is_some_and(|at| at + 1000 == ms)) {
                for node in 0..3 {
                    world.nodes[node].elections.finish(&name(master));
                    world.settle(node);
                }
            }
        }
        assert!(!world.is_unsafe());
        assert_eq!(world.elected, [1; 20], "seed {seed}");
    }
}
