//! The promises of the Sentinels of a fleet, held against what they say and what they do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_core::time::Instant;

use super::process::{NodeId, address, split};
use super::server::word;
use super::slots::Slots;
use super::tap::{Answer, Ask};

/// Answers older than this confirm nothing: five seconds by a clock that may be slow.
const ANSWER_FRESH: Duration = Duration::from_millis(5_200);

/// A belief that changed a moment ago may still be on its way in an order.
const BELIEF_GRACE: Duration = Duration::from_millis(200);

/// Longer than any run.
const FOREVER: Duration = Duration::from_secs(1_000_000);

/// Where the proxies of a host may write, and until when.
#[derive(Clone, Copy, Debug)]
struct Leave {
    address: SocketAddr,
    until: Instant,
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Breach {
    /// When.
    pub at: Instant,
    /// Its name: `S1` and so on.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

/// An event that some Sentinel published.
#[derive(Clone, Debug)]
pub struct Told {
    /// When.
    pub at: Instant,
    /// Which Sentinel, by its number in the fleet.
    pub sentinel: usize,
    /// Its name.
    pub channel: String,
    /// What it says.
    pub payload: String,
}

/// What is known of one Sentinel, from its own words.
#[derive(Debug, Default)]
struct Sentinel {
    number: usize,
    run_id: String,
    /// Breaches of it are failures; those of genuine ones are only counted.
    is_ours: bool,
    is_tilted: bool,
    /// Its disk has failed since it was started; it can't be expected to remember.
    is_excused: bool,
    /// When it last said hello.
    last_hello: Instant,
    last_epoch: u64,
    /// What it said last of the current epoch, by whom it was said to.
    current_epochs: Slots<u64>,
}

/// What one Sentinel does about one master.
#[derive(Debug, Default)]
struct View {
    is_down: bool,
    tried: u64,
    asked: u64,
    /// The election that it leads, and when that was over.
    leads: Option<u64>,
    led_until: Option<Instant>,
    /// What it says next need not be more than what it said before.
    is_excused: bool,
    config_epoch: u64,
    /// What was said last of it, by whom it was said to.
    config_epochs: BTreeMap<NodeId, u64>,
    belief: Option<SocketAddr>,
    announced: Option<(u64, SocketAddr)>,
    before: Option<(Instant, SocketAddr)>,
    /// Answers of peers about an address: when, and whether it is down.
    heard: BTreeMap<NodeId, (Instant, SocketAddr, bool)>,
}

/// An order that can be judged once all that was said at the same time is known.
#[derive(Debug)]
struct Order {
    at: Instant,
    from: NodeId,
    master: usize,
    to: NodeId,
    target: Option<SocketAddr>,
}

/// Watches a fleet.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    /// Names of the masters.
    masters: Vec<String>,
    by_name: BTreeMap<String, usize>,
    /// Which master an address belongs to.
    groups: BTreeMap<SocketAddr, usize>,
    group_of: BTreeMap<NodeId, usize>,
    address_of: BTreeMap<NodeId, SocketAddr>,
    sentinels: Slots<Sentinel>,
    /// By Sentinel, and by master.
    views: Slots<Slots<View>>,
    quorum: u32,
    /// Who was voted for: by voter, master and election.
    votes: BTreeMap<(NodeId, usize, u64), String>,
    /// Votes as they reached the candidate.
    counted: BTreeMap<(NodeId, usize, u64), BTreeSet<NodeId>>,
    leaders: BTreeMap<(usize, u64), BTreeSet<NodeId>>,
    promoted: BTreeMap<(NodeId, usize, u64), NodeId>,
    addresses: BTreeMap<(usize, u64), SocketAddr>,
    orders: Vec<Order>,
    /// Whether all voters are ours, so that what only the whole fleet can break is a failure.
    is_uniform: bool,
    is_recording: bool,
    /// Whether the Sentinels were told different addresses to begin with.
    pub disagrees: bool,
    /// Whether genuine Sentinels are held to the promises too.
    pub blames_all: bool,
    /// Fail-overs that were ordered by an operator may start without reasons.
    pub is_forced: bool,
    /// Whether leases keep all but one address from being written to.
    pub is_strict: bool,
    /// By host and master: where its proxies may write.
    writes: BTreeMap<(NodeId, usize), Leave>,
    /// Hosts that stand still.
    stopped: BTreeSet<NodeId>,
    pub told: Vec<Told>,
    pub failure: Option<Breach>,
    /// Breaches by Sentinels that are known to break promises.
    pub shipped: BTreeMap<&'static str, u64>,
    pub tries: u64,
    pub switches: u64,
    pub aborts: u64,
    pub last_change: Instant,
}

impl Checker {
    pub(crate) fn new(quorum: u32, is_uniform: bool, is_recording: bool) -> Self {
        Self { quorum, is_uniform, is_recording, ..Self::default() }
    }

    pub(crate) fn add_master(&mut self, name: &str, servers: &[(NodeId, SocketAddr)]) {
        let index = self.masters.len();
        self.masters.push(name.to_owned());
        self.by_name.insert(name.to_owned(), index);
        for (node, address) in servers {
            self.groups.insert(*address, index);
            self.group_of.insert(*node, index);
            self.address_of.insert(*node, *address);
        }
        self.addresses.insert((index, 0), servers[0].1);
    }

    pub(crate) fn add_sentinel(&mut self, node: NodeId, run_id: &str, is_ours: bool) {
        let number = self.sentinels.len();
        let run_id = run_id.to_owned();
        self.sentinels.insert(node, Sentinel { number, run_id, is_ours, ..Sentinel::default() });
    }

    /// Tells where a Sentinel says that a master is, and since which election.
    pub(crate) fn belief(&self, node: NodeId, master: usize) -> Option<(u64, SocketAddr)> {
        let view = self.views.get(node)?.get(master)?;
        Some((view.config_epoch, view.belief?))
    }

    /// Tells when a Sentinel last said hello.
    pub(crate) fn last_hello(&self, node: NodeId) -> Option<Instant> {
        self.sentinels.get(node).map(|sentinel| sentinel.last_hello)
    }

    fn view(&mut self, node: NodeId, master: usize) -> &mut View {
        self.views.get_or_default(node).get_or_default(master)
    }

    /// Notes a broken promise of one Sentinel, or of the fleet.
    fn breach(&mut self, at: Instant, rule: &'static str, by: Option<NodeId>, what: String) {
        let is_blamed = match by {
            Some(node) => {
                self.blames_all || self.sentinels.get(node).is_some_and(|sentinel| sentinel.is_ours)
            }
            None => self.is_uniform,
        };
        if is_blamed {
            let by = by.map(|node| self.sentinels[node].number);
            let what = match by {
                Some(number) => format!("sentinel {number}: {what}"),
                None => what,
            };
            self.failure.get_or_insert(Breach { at, rule, what });
        } else {
            *self.shipped.entry(rule).or_default() += 1;
        }
    }

    pub(crate) fn started(&mut self, _at: Instant, node: NodeId) {
        let mut is_excused = false;
        if let Some(sentinel) = self.sentinels.get_mut(node) {
            sentinel.is_tilted = false;
            is_excused = std::mem::take(&mut sentinel.is_excused);
            sentinel.last_epoch = 0;
            // An election that was only heard of need not be remembered.
            sentinel.current_epochs.clear();
        }
        for view in self.views.get_mut(node).into_iter().flat_map(Slots::values_mut) {
            let config_epoch = view.config_epoch;
            let config_epochs = std::mem::take(&mut view.config_epochs);
            let is_excused = is_excused || view.is_excused;
            *view = View { config_epoch, config_epochs, is_excused, ..View::default() };
        }
    }

    /// A Sentinel's disk does not take what it writes.
    pub(crate) fn disk_failed(&mut self, node: NodeId) {
        if let Some(sentinel) = self.sentinels.get_mut(node) {
            sentinel.is_excused = true;
        }
    }

    /// A Sentinel published something.
    pub(crate) fn told(&mut self, at: Instant, node: NodeId, channel: &str, payload: &str) {
        let Some(sentinel) = self.sentinels.get_mut(node) else { return };
        if self.is_recording {
            let (channel, payload) = (channel.to_owned(), payload.to_owned());
            self.told.push(Told { at, sentinel: sentinel.number, channel, payload });
        }
        match channel {
            "+new-epoch" => sentinel.last_epoch = payload.parse().unwrap_or(0),
            "+tilt" => sentinel.is_tilted = true,
            "-tilt" => sentinel.is_tilted = false,
            "!news" => self.proxies_told(at, node, payload),
            "!unreadable" => {
                self.breach(at, "S9", Some(node), format!("does not read its files: {payload}"));
            }
            "+switch-master" => self.switched(at, node, payload),
            _ => self.told_of_master(at, node, channel, payload),
        }
    }

    /// What proxies on a host of ours are told: where to write, or not to.
    fn proxies_told(&mut self, at: Instant, node: NodeId, payload: &str) {
        let words: Vec<&str> = payload.split(' ').collect();
        let [name, _, address, condition, left] = words[..] else { return };
        let Some(master) = self.by_name.get(name).copied() else { return };
        self.writes.remove(&(node, master));
        if condition == "Serving"
            && let Ok(address) = address.parse()
        {
            // Clocks drift by less than leases leave room for.
            let left = left.parse().map_or(FOREVER, Duration::from_nanos);
            self.writes.insert((node, master), Leave { address, until: at + left });
            self.check_writes(at, node);
        }
    }

    /// S8: no two addresses of a master are written to at a time.
    fn check_writes(&mut self, at: Instant, node: NodeId) {
        if !self.is_strict {
            return;
        }
        let lasts = |(_, leave): &(&(NodeId, usize), &Leave)| leave.until > at;
        let of = |node| self.writes.range((node, 0)..=(node, usize::MAX)).filter(lasts);
        let others = self.writes.iter().filter(|((other, _), _)| !self.stopped.contains(other));
        let others = others.filter(lasts).map(|(other, leave)| (other, leave.address));
        let clash = others
            .flat_map(|(other, to)| of(node).map(move |(own, at)| (other, to, (own, at.address))))
            .find(|((_, master), to, ((_, own), own_to))| master == own && to != own_to);
        if let Some(((other, master), to, (_, own_to))) = clash {
            let other = self.sentinels[*other].number;
            let what = format!("{own_to} of master {master} is written to, and {to} by {other}");
            self.breach(at, "S8", Some(node), what);
        }
    }

    /// A host stands still, and writes nothing.
    pub(crate) fn stopped(&mut self, node: NodeId) {
        self.stopped.insert(node);
    }

    /// A host goes on. Its proxies may be the first to do so: they have nothing but their clock and
    /// what they were told before.
    pub(crate) fn went_on(&mut self, at: Instant, node: NodeId) {
        if self.stopped.remove(&node) {
            self.check_writes(at, node);
        }
    }

    /// A host's processes are gone.
    pub(crate) fn died(&mut self, node: NodeId) {
        self.writes.retain(|(of, _), _| *of != node);
        self.stopped.remove(&node);
    }

    /// Tells where the proxies of a host may write.
    pub(crate) fn writes(&self, node: NodeId, master: usize) -> Option<SocketAddr> {
        self.writes.get(&(node, master)).map(|leave| leave.address)
    }

    fn switched(&mut self, at: Instant, node: NodeId, payload: &str) {
        let words: Vec<&str> = payload.split(' ').collect();
        let [name, _, _, ip, port] = words[..] else { return };
        let Some(master) = self.by_name.get(name).copied() else { return };
        self.switches += 1;
        self.last_change = at;
        let address = address(ip, port);
        if let Some(address) = address {
            self.believe(at, node, master, address);
        }
    }

    fn believe(&mut self, at: Instant, node: NodeId, master: usize, address: SocketAddr) {
        let view = self.view(node, master);
        if view.belief != Some(address) {
            view.before = view.belief.map(|before| (at, before));
            // What was believed of the old address says nothing of the new one.
            view.is_down &= view.belief.is_none();
            view.belief = Some(address);
        }
    }

    fn told_of_master(&mut self, at: Instant, node: NodeId, channel: &str, payload: &str) {
        let words: Vec<&str> = payload.split(' ').collect();
        if let ["slave", _, ip, port, "@", name, ..] = words[..] {
            if channel == "+promoted-slave"
                && let Some(master) = self.by_name.get(name).copied()
                && let Some(address) = address(ip, port)
            {
                self.believe(at, node, master, address);
            }
            return;
        }
        let ["master", name, ..] = words[..] else { return };
        let Some(master) = self.by_name.get(name).copied() else { return };
        let last_epoch = self.sentinels[node].last_epoch;
        match channel {
            "+sdown" => self.view(node, master).is_down = true,
            "-sdown" => self.view(node, master).is_down = false,
            "+try-failover" => {
                self.tries += 1;
                self.last_change = at;
                self.view(node, master).tried = last_epoch;
                self.check_reasons(at, node, master);
            }
            "+elected-leader" => self.elected(at, node, master),
            "+failover-end" => self.view(node, master).led_until = Some(at),
            _ if channel.starts_with("-failover-abort") => {
                self.aborts += 1;
                self.view(node, master).led_until = Some(at);
            }
            _ => {}
        }
    }

    /// S6: nobody starts without having seen it, and having been told by enough.
    fn check_reasons(&mut self, at: Instant, node: NodeId, master: usize) {
        if self.is_forced {
            return;
        }
        let quorum = self.quorum;
        let is_tilted = self.sentinels[node].is_tilted;
        let view = self.view(node, master);
        let belief = view.belief;
        let fresh = view.heard.values().filter(|(when, about, is_down)| {
            at.since(*when) <= ANSWER_FRESH && *is_down && belief.is_none_or(|b| b == *about)
        });
        let confirmations = fresh.count() as u32 + 1;
        let is_down = view.is_down;
        if !is_down || confirmations < quorum {
            let what = format!(
                "starts a fail-over of master {master}, which it sees down: {is_down}, with \
                 {confirmations} of {quorum} opinions"
            );
            self.breach(at, "S6", Some(node), what);
        }
        if is_tilted {
            self.breach(at, "S7", Some(node), "starts a fail-over in TILT".into());
        }
    }

    /// S2: whoever leads was elected by a majority, in that election.
    fn elected(&mut self, at: Instant, node: NodeId, master: usize) {
        let is_ours = self.sentinels[node].is_ours;
        let view = self.view(node, master);
        let epoch = if is_ours { view.asked.max(view.tried) } else { view.tried };
        view.leads = Some(epoch);
        view.led_until = None;
        let votes = self.counted.get(&(node, master, epoch)).map_or(0, BTreeSet::len) as u32 + 1;
        let majority = self.sentinels.len() as u32 / 2 + 1;
        if votes < majority.max(self.quorum) && !self.is_forced {
            let what = format!("leads election {epoch} of master {master} with {votes} votes");
            self.breach(at, "S2", Some(node), what);
        }
        let leaders = self.leaders.entry((master, epoch)).or_default();
        leaders.insert(node);
        if leaders.len() > 1 {
            let what = format!("election {epoch} of master {master} has {} leaders", leaders.len());
            self.breach(at, "S2", None, what);
        }
    }

    /// A Sentinel has sent a command.
    pub(crate) fn said(
        &mut self,
        at: Instant,
        from: NodeId,
        to: NodeId,
        words: &[&[u8]],
        ask: Option<&Ask>,
    ) {
        if let Some(ask) = ask {
            self.asked(at, from, ask);
            return;
        }
        let name = words.first().copied().unwrap_or_default();
        if name.eq_ignore_ascii_case(b"PUBLISH") {
            self.hello(at, from, to, &word(words, 2));
        } else if name.eq_ignore_ascii_case(b"SLAVEOF") || name.eq_ignore_ascii_case(b"REPLICAOF") {
            let Some(master) = self.group_of.get(&to).copied() else { return };
            let target = address(&word(words, 1), &word(words, 2));
            self.orders.push(Order { at, from, master, to, target });
        }
    }

    /// D1: a master that came back by itself lacks what was written meanwhile.
    pub(crate) fn promoted_stale(&mut self, at: Instant, from: NodeId, to: NodeId) {
        let what = format!("promotes node {to}, which has been a master by itself");
        self.breach(at, "D1", Some(from), what);
    }

    fn asked(&mut self, at: Instant, from: NodeId, ask: &Ask) {
        let Some(master) = ask.about.and_then(|about| self.groups.get(&about).copied()) else {
            return;
        };
        let sentinel = &self.sentinels[from];
        if ask.run_id == sentinel.run_id {
            let is_tilted = sentinel.is_tilted;
            self.view(from, master).asked = ask.epoch;
            if is_tilted {
                self.breach(at, "S7", Some(from), "asks for votes in TILT".into());
            }
        }
    }

    /// S3 and S4, by what a Sentinel announces.
    ///
    /// Epochs are compared with those on the same link: what waits behind a write that is under way
    /// leaves after something newer on another.
    fn hello(&mut self, at: Instant, from: NodeId, to: NodeId, payload: &str) {
        let Some([_, _, run_id, epoch, name, ip, port, config_epoch]) = split(payload, ',') else {
            return;
        };
        let Some(sentinel) = self.sentinels.get_mut(from) else { return };
        let Some(master) = self.by_name.get(name).copied() else { return };
        let (Ok(epoch), Ok(config_epoch)) = (epoch.parse::<u64>(), config_epoch.parse::<u64>())
        else {
            return;
        };
        let Some(address) = address(ip, port) else {
            return;
        };
        sentinel.last_hello = at;
        if sentinel.run_id != run_id {
            sentinel.run_id = run_id.to_owned();
        }
        let before = sentinel.current_epochs.insert(to, epoch).unwrap_or(0);
        if epoch < before || config_epoch > epoch {
            let what =
                format!("is at epoch {epoch} after {before}, with a master's {config_epoch}");
            self.breach(at, "S3", Some(from), what);
        }
        let view = self.view(from, master);
        if std::mem::take(&mut view.is_excused) {
            view.config_epoch = 0;
            view.config_epochs.clear();
        }
        view.config_epoch = view.config_epoch.max(config_epoch);
        let before = view.config_epochs.insert(to, config_epoch).unwrap_or(0);
        let announced = view.announced.replace((config_epoch, address));
        if config_epoch < before {
            let what = format!("goes back from configuration {before} to {config_epoch}");
            self.breach(at, "S3", Some(from), what);
        }
        if announced.is_some_and(|(epoch, before)| epoch == config_epoch && before != address) {
            let what = format!("moves master {master} to {address} without an election");
            self.breach(at, "S4", Some(from), what);
        }
        self.believe(at, from, master, address);
        if config_epoch == 0 && self.disagrees {
            return;
        }
        let known = *self.addresses.entry((master, config_epoch)).or_insert(address);
        if known != address {
            let what =
                format!("configuration {config_epoch} of master {master} is {known} and {address}");
            self.breach(at, "S4", None, what);
        }
    }

    /// S1: a voter's answers for one election name one candidate.
    pub(crate) fn answered(&mut self, at: Instant, voter: NodeId, _to: NodeId, answer: &Answer) {
        let Some(master) = answer.ask.about.and_then(|about| self.groups.get(&about).copied())
        else {
            return;
        };
        if answer.leader == "*" {
            return;
        }
        let key = (voter, master, answer.epoch);
        let voted = self.votes.entry(key).or_insert_with(|| answer.leader.clone());
        if *voted != answer.leader {
            let what = format!(
                "voted twice in election {} of master {master}: for {voted} and {}",
                answer.epoch, answer.leader
            );
            self.breach(at, "S1", Some(voter), what);
        }
    }

    /// An answer has reached whoever asked.
    pub(crate) fn heard(&mut self, at: Instant, by: NodeId, from: NodeId, answer: &Answer) {
        let Some(about) = answer.ask.about else { return };
        let Some(master) = self.groups.get(&about).copied() else { return };
        self.view(by, master).heard.insert(from, (at, about, answer.is_down));
        if answer.leader == self.sentinels[by].run_id {
            self.counted.entry((by, master, answer.epoch)).or_default().insert(from);
        }
    }

    /// S5: who orders servers about, and by what right.
    pub(crate) fn judge_orders(&mut self, now: Instant) {
        while self
            .orders
            .first()
            .is_some_and(|order| now.since(order.at) > Duration::from_millis(1))
        {
            let order = self.orders.remove(0);
            self.judge(&order);
        }
    }

    /// Whether the latest election that anybody knows of made a server the master.
    fn is_elected(&self, master: usize, node: NodeId) -> bool {
        let views = self.views.values().filter_map(|views| views.get(master));
        let known = views.filter_map(|view| Some((view.config_epoch, view.belief?)));
        let latest = known.max_by_key(|(epoch, _)| *epoch);
        latest.is_some_and(|(epoch, at)| epoch > 0 && self.address_of.get(&node) == Some(&at))
    }

    fn judge(&mut self, order: &Order) {
        let (at, from, master) = (order.at, order.from, order.master);
        let is_tilted = self.sentinels[from].is_tilted;
        let view = self.view(from, master);
        let (belief, before) = (view.belief, view.before);
        let is_over = view.led_until.is_some_and(|until| order.at > until);
        let leads = view.leads.filter(|_| !is_over);
        if let Some(target) = order.target {
            let is_recent = before
                .is_some_and(|(when, before)| before == target && at.since(when) <= BELIEF_GRACE);
            if belief.is_some_and(|belief| belief != target) && !is_recent {
                let what = format!("has a server follow {target}, and believes in {belief:?}");
                self.breach(at, "S5", Some(from), what);
            }
        } else {
            match leads {
                // It came back with an old file, and is told to be what it has been elected to.
                _ if self.is_elected(master, order.to) => {}
                Some(epoch) => {
                    let first = *self.promoted.entry((from, master, epoch)).or_insert(order.to);
                    if first != order.to {
                        let what =
                            format!("promotes two servers of master {master} in election {epoch}");
                        self.breach(at, "S5", Some(from), what);
                    }
                }
                None => {
                    let what = format!("promotes a server of master {master} without leading");
                    return self.breach(at, "S5", Some(from), what);
                }
            }
        }
        if is_tilted {
            self.breach(at, "S7", Some(from), "orders a server about in TILT".into());
        }
    }
}
