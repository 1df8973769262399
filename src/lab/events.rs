//! What can be done to the deployment, and what then becomes of it.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::deployment::Deployment;
use super::network::{Host, Kind, Network, REDIS_PORT, Way};
use super::processes::has_ended;
use super::recipe::{NODES, SERVERS, SHARDS};
use super::resp::{self, Client, Reply};
use super::traffic::{Counts, Traffic, Verdict, Window};

/// How long anything may take to heal.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long nodes may take until they are all as willing to have the address as they may be: each
/// relapse within a minute doubles how long one has to be well before that counts.
const WILLING_PATIENCE: Duration = Duration::from_secs(70);

/// How often is asked what is measured.
pub(super) const QUICKLY: Duration = Duration::from_millis(10);

/// How often is asked whether all is whole, which costs the machine something.
pub(super) const CALMLY: Duration = Duration::from_millis(100);

/// How often is looked whether what was killed is gone.
const CLOSELY: Duration = Duration::from_micros(200);

/// How long a cable is cut after others have taken over.
const CUT_FOR: Duration = Duration::from_millis(1000);

/// How long a master stands still after another was made.
const STOPPED_FOR: Duration = Duration::from_secs(1);

/// How long somebody may go on writing to a former master.
const STALE_FOR: Duration = Duration::from_secs(15);

/// From one of these writes to the next.
const STALE_PACE: Duration = Duration::from_millis(10);

/// How long nothing happens, to see what commands cost.
const CALM_FOR: Duration = Duration::from_secs(2);

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Event {
    /// A master is killed: SIGKILL.
    KillMaster,
    /// The node that has the address is killed: SIGKILL.
    KillNode,
    /// The cable of the node that has the address is cut.
    CutNode,
    /// Nobody hears the node that has the address, which hears everybody.
    MuteNode,
    /// The cable of a master is cut.
    CutMaster,
    /// A master is replaced on purpose.
    Plan,
    /// Every node reads another configuration.
    Reload,
    /// Every node is replaced by a new process.
    Upgrade,
    /// A master stands still until another is made, and a second more: SIGSTOP, SIGCONT.
    StopMaster,
    /// The program that clients talk to is killed, and nothing else of its node.
    KillProxy,
    /// Nothing happens for two seconds, to see what commands cost.
    Calm,
}

impl Event {
    /// Those that `--auto` plays.
    pub(crate) const ALL: [Self; 7] = [
        Self::Reload,
        Self::Upgrade,
        Self::Plan,
        Self::KillMaster,
        Self::KillNode,
        Self::CutNode,
        Self::CutMaster,
    ];

    /// Returns its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::KillMaster => "kill a master",
            Self::KillNode => "kill a node",
            Self::CutNode => "cut a node's network",
            Self::MuteNode => "mute a node",
            Self::CutMaster => "cut a master's network",
            Self::Plan => "plan a failover",
            Self::Reload => "reload",
            Self::Upgrade => "upgrade",
            Self::StopMaster => "stop a master",
            Self::KillProxy => "kill the proxy",
            Self::Calm => "nothing",
        }
    }

    /// Tells what to expect, before it happens.
    pub(super) const fn expectation(self) -> &'static str {
        match self {
            Self::KillMaster => {
                "its clients wait until a replica is the master; what it had acknowledged and not \
                 yet copied is lost"
            }
            Self::KillNode => {
                "another node has the address within milliseconds; connections through the dead \
                 one end"
            }
            Self::CutNode => {
                "nobody says goodbye: another node takes the address after three silent \
                 announcements"
            }
            Self::MuteNode => {
                "another node takes the address, and the mute one gives it up when it notices"
            }
            Self::CutMaster => {
                "nobody refuses connections: the master counts as down after a second of silence"
            }
            Self::Plan => "a short pause for its clients, no error, nothing lost",
            Self::Reload => "nothing that a client could notice",
            Self::Upgrade => {
                "the address moves away and every client is served on; nothing is lost"
            }
            Self::StopMaster => {
                "whoever still takes it for the master when it goes on loses writes"
            }
            Self::KillProxy => "another node has the address as soon as somebody notices",
            Self::Calm => "what commands cost",
        }
    }

    /// Tells whether every acknowledged write has to survive it.
    const fn keeps_all(self) -> bool {
        match self {
            Self::KillMaster | Self::CutMaster | Self::StopMaster => false,
            Self::KillNode | Self::CutNode | Self::MuteNode | Self::Plan | Self::Reload => true,
            Self::Upgrade | Self::KillProxy | Self::Calm => true,
        }
    }
}

/// What became of an event.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) event: Event,
    /// What was hit.
    pub(super) target: String,
    /// From the event to the first good reply to a write to the shard that was hit.
    pub(super) failover: Option<Duration>,
    /// From the event to the first good reply on a new connection to the shared address.
    pub(super) reached: Option<Duration>,
    /// How long the best of the other nodes waits after a goodbye, where it was the address that had to
    /// move.
    pub(super) skew: Option<Duration>,
    /// Commands to the shard that were under way when its master was killed.
    pub(super) in_flight: Option<u64>,
    /// The longest that a client waited.
    pub(super) pause: Duration,
    pub(super) counts: Counts,
    pub(super) verdict: Verdict,
    /// Until all was as before.
    pub(super) whole_after: Duration,
    /// Why it has not healed; none: it has.
    pub(super) problem: Option<String>,
    /// How long good replies to writes took: the median, and 99 of 100.
    pub(super) latency: Option<[Duration; 2]>,
    /// What commands cost.
    pub(super) cost: Option<Cost>,
    /// What a former master took after another was made.
    pub(super) stale: Option<Stale>,
}

/// What a command costs, by the time that processes had of a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// All nodes, for each command.
    pub(super) nodes: Duration,
    /// All servers, for each command.
    pub(super) servers: Duration,
}

/// What became of one who writes to a former master directly and has not heard of another, as a proxy
/// does that nobody tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stale {
    /// Writes that it acknowledged.
    pub(super) acknowledged: u64,
    /// Those that are not there when all is whole.
    pub(super) lost: u64,
}

/// The deployment and its clients.
pub(super) struct Lab {
    pub(super) deployment: Deployment,
    pub(super) traffic: Traffic,
    /// Shards are hit in turns.
    turn: usize,
    /// What clients talked to when it was killed.
    killed: Vec<Pid>,
    cost: Option<Cost>,
    stale: Option<Stale>,
}

/// What an event has hit.
#[derive(Clone, Copy, Debug)]
enum Hit {
    Shard(usize, Host),
    Node(Host),
    All,
}

impl Hit {
    fn name(self) -> String {
        match self {
            Self::Shard(shard, host) => {
                format!("{}, the master of {}", host.name(), SHARDS.get(shard).unwrap_or(&""))
            }
            Self::Node(node) => node.name(),
            Self::All => "every node".to_owned(),
        }
    }
}

/// Asks again and again until there is no objection; returns the last one if there is no end.
pub(super) fn settle(
    patience: Duration,
    every: Duration,
    mut judge: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let since = Instant::now();
    loop {
        match judge() {
            Ok(()) => return Ok(()),
            Err(why) if since.elapsed() > patience => return Err(why),
            Err(_) => std::thread::sleep(every),
        }
    }
}

impl Lab {
    pub(super) const fn new(deployment: Deployment, traffic: Traffic) -> Self {
        Self { deployment, traffic, turn: 0, killed: Vec::new(), cost: None, stale: None }
    }

    /// Tells whether an event can happen on this network.
    pub(super) fn can_play(&self, event: Event) -> bool {
        let has_cables = self.deployment.network.kind == Kind::Namespaces;
        let is_glued = self.deployment.recipe.is_glued;
        match event {
            Event::CutNode | Event::MuteNode | Event::CutMaster => has_cables,
            Event::Reload | Event::Upgrade => !is_glued,
            Event::KillMaster | Event::KillNode | Event::Plan => true,
            Event::StopMaster | Event::KillProxy | Event::Calm => true,
        }
    }

    /// Waits before an event that takes the address from a node until all are willing to have it:
    /// those that were ill a moment ago wait longer, and two such ones take it at the same moment.
    pub(super) fn await_willingness(&self, event: Event) {
        let takes_it =
            matches!(event, Event::KillNode | Event::CutNode | Event::MuteNode | Event::KillProxy);
        if takes_it {
            // If it does not come about, what happens then shows it.
            let _ = settle(WILLING_PATIENCE, CALMLY, || self.deployment.judge_priorities());
        }
    }

    /// Has an event happen, waits until others have taken over, brings back what was taken away,
    /// waits until all is as before, and reads back every acknowledged write.
    pub(super) fn play(&mut self, event: Event) -> Outcome {
        let mut problem = None;
        let target = self.target(event).unwrap_or_else(|why| {
            problem = Some(why);
            Hit::All
        });
        let masters = self.masters();
        let skew = match target {
            Hit::Node(node) => self.deployment.skew_without(node),
            Hit::Shard(..) | Hit::All => None,
        };
        (self.cost, self.stale) = (None, None);
        self.traffic.open_window();
        let since = Instant::now();
        if problem.is_none() {
            let happened = self.strike(event, target).and_then(|()| self.recover(event, target));
            // What was taken away comes back in any case.
            let mended = self.mend(event, target);
            let whole = settle(PATIENCE, CALMLY, || self.judge());
            problem = happened.and(mended).and(whole).err();
        }
        let whole_after = since.elapsed();
        let window = self.traffic.close_window();
        self.count_stale(target);
        let verdict = self.traffic.verify();
        // On a machine that stands still for a second masters are replaced without an event, and
        // what they had not copied goes with them.
        let is_as_asked = event == Event::Plan || masters == self.masters();
        let recipe = &self.deployment.recipe;
        // What is put together of others promises nothing.
        let keeps_all = event.keeps_all() && is_as_asked && !recipe.is_glued;
        let is_promised = recipe.keeps_promise();
        problem = problem.or_else(|| complaint(keeps_all || is_promised, verdict));
        let outcome = outcome(event, target, window, verdict, whole_after, problem);
        Outcome { cost: self.cost, stale: self.stale, skew, ..outcome }
    }

    fn masters(&self) -> Vec<Option<Host>> {
        (0..SHARDS.len()).map(|shard| self.deployment.master(shard)).collect()
    }

    fn target(&mut self, event: Event) -> Result<Hit, String> {
        match event {
            Event::KillMaster | Event::CutMaster | Event::StopMaster | Event::Plan => {
                let shard = self.turn % SHARDS.len();
                self.turn += 1;
                let master = self.deployment.master(shard).ok_or("nobody knows the master")?;
                Ok(Hit::Shard(shard, master))
            }
            Event::KillNode | Event::CutNode | Event::MuteNode | Event::KillProxy => {
                let holder = match self.deployment.network.kind {
                    Kind::Namespaces => self.deployment.network.holder(&NODES),
                    Kind::Loopback => NODES.first().copied(),
                };
                holder.map(Hit::Node).ok_or_else(|| "nobody has the address".to_owned())
            }
            Event::Reload | Event::Upgrade | Event::Calm => Ok(Hit::All),
        }
    }

    /// Does it.
    fn strike(&mut self, event: Event, hit: Hit) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        match (event, hit) {
            (Event::KillMaster, Hit::Shard(_, host)) => {
                let before = Instant::now();
                self.deployment.signal(host, Signal::KILL);
                self.traffic.mark(before);
                // What it still gets until its sockets are closed is as good as under way.
                self.wait_for_end(host, CLOSELY)?;
                self.traffic.note_gone();
                Ok(())
            }
            (Event::MuteNode, Hit::Node(host)) => {
                let before = Instant::now();
                self.deployment.network.set_one_way(host, Way::Out, true).map_err(text)?;
                self.traffic.mark(before);
                Ok(())
            }
            (Event::KillNode | Event::StopMaster, Hit::Node(host) | Hit::Shard(_, host)) => {
                let is_kill = event == Event::KillNode;
                let before = Instant::now();
                self.deployment.signal(host, if is_kill { Signal::KILL } else { Signal::STOP });
                self.traffic.mark(before);
                Ok(())
            }
            (Event::KillProxy, Hit::Node(host)) => {
                self.killed = self.deployment.proxies(host);
                let before = Instant::now();
                for pid in &self.killed {
                    // It may have ended this instant.
                    let _ = kill_process(*pid, Signal::KILL);
                }
                self.traffic.mark(before);
                Ok(())
            }
            (Event::Calm, _) => {
                self.cost = Some(self.watch());
                Ok(())
            }
            (Event::CutNode | Event::CutMaster, Hit::Shard(_, host) | Hit::Node(host)) => {
                let cut = Network::prepare_cut(host).map_err(text)?;
                // If it is not up yet, its start is measured too.
                std::thread::sleep(CALMLY);
                let before = Instant::now();
                cut.finish().map_err(text)?;
                self.traffic.mark(before);
                Ok(())
            }
            (Event::Plan, Hit::Shard(shard, _)) => self.plan(shard),
            (Event::Reload, _) => {
                self.deployment.change_configuration().map_err(text)?;
                self.traffic.mark(Instant::now());
                NODES.iter().try_for_each(|node| self.deployment.tell(*node, "reload"))
            }
            (Event::Upgrade, _) => {
                self.traffic.mark(Instant::now());
                NODES.iter().try_for_each(|node| {
                    self.deployment.tell(*node, "upgrade")?;
                    // The next one leaves when this one can stand in for it.
                    settle(PATIENCE, QUICKLY, || self.deployment.judge_nodes())
                })
            }
            _ => Err("this cannot happen to that".to_owned()),
        }
    }

    /// Has a master replaced on purpose, by the first Sentinel that does it.
    fn plan(&self, shard: usize) -> Result<(), String> {
        self.traffic.mark(Instant::now());
        let name = SHARDS.get(shard).copied().unwrap_or_default();
        let words = ["SENTINEL", "FAILOVER", name];
        let is_begun = NODES.iter().any(|node| {
            let reply = self.deployment.ask_sentinel(*node, &words);
            reply.is_ok_and(|reply| reply.text() == "OK")
        });
        if is_begun { Ok(()) } else { Err("no Sentinel begins a failover".to_owned()) }
    }

    /// Waits until no process of a host is left.
    fn wait_for_end(&mut self, host: Host, every: Duration) -> Result<(), String> {
        settle(PATIENCE, every, || match self.deployment.is_running(host) {
            true => Err(format!("{} is still there", host.name())),
            false => Ok(()),
        })
    }

    /// Waits until clients are served again.
    fn recover(&self, event: Event, hit: Hit) -> Result<(), String> {
        settle(PATIENCE, QUICKLY, || {
            if let Hit::Shard(shard, old) = hit {
                let master = self.deployment.master(shard);
                if master.is_none_or(|master| master == old) {
                    return Err(format!("{} is still said to be the master", old.name()));
                }
                let write = self.traffic.first_write(shard);
                return write.map(|_| ()).ok_or_else(|| "no write succeeds".to_owned());
            }
            if !self.traffic.is_reached() {
                return Err(format!("after {} nobody answers", event.name()));
            }
            Ok(())
        })?;
        let now = Instant::now();
        settle(PATIENCE, QUICKLY, || match self.traffic.all_served_since(now) {
            true => Ok(()),
            false => Err("a client gets no good reply".to_owned()),
        })
    }

    /// Brings back what was taken away.
    fn mend(&mut self, event: Event, hit: Hit) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        match (event, hit) {
            (Event::KillMaster | Event::KillNode, Hit::Shard(_, host) | Hit::Node(host)) => {
                self.wait_for_end(host, QUICKLY)?;
                self.deployment.start(host).map_err(text)
            }
            (Event::StopMaster, Hit::Shard(shard, host)) => {
                std::thread::sleep(STOPPED_FOR);
                self.deployment.signal(host, Signal::CONT);
                self.stale = Some(self.write_stale(shard, host));
                Ok(())
            }
            (Event::KillProxy, Hit::Node(host)) => {
                settle(PATIENCE, QUICKLY, || {
                    match self.killed.iter().all(|pid| has_ended(*pid)) {
                        true => Ok(()),
                        false => Err(format!("the proxy of {} is still there", host.name())),
                    }
                })?;
                self.deployment.start_proxy(host).map_err(text)
            }
            (Event::CutNode | Event::CutMaster, Hit::Shard(_, host) | Hit::Node(host)) => {
                std::thread::sleep(CUT_FOR);
                self.deployment.network.set_cable(host, true).map_err(text)
            }
            (Event::MuteNode, Hit::Node(host)) => {
                std::thread::sleep(CUT_FOR);
                self.deployment.network.set_one_way(host, Way::Out, false).map_err(text)
            }
            _ => Ok(()),
        }
    }

    /// Lets the clients work for a while; returns what each of their commands cost.
    fn watch(&mut self) -> Cost {
        let (before, nodes) = (self.traffic.counts().sent, self.deployment.spent(&NODES));
        let servers = self.deployment.spent(SERVERS.as_flattened());
        std::thread::sleep(CALM_FOR);
        let sent = self.traffic.counts().sent.saturating_sub(before).max(1);
        let each = |all: Duration| all.div_f64(u32::try_from(sent).unwrap_or(u32::MAX).into());
        let nodes = self.deployment.spent(&NODES).saturating_sub(nodes);
        let servers = self.deployment.spent(SERVERS.as_flattened()).saturating_sub(servers);
        Cost { nodes: each(nodes), servers: each(servers) }
    }

    /// Writes to a former master until it refuses.
    fn write_stale(&self, shard: usize, former: Host) -> Stale {
        let at = self.deployment.network.socket(former, REDIS_PORT);
        let mut stale = Stale::default();
        let since = Instant::now();
        let Ok(mut client) = Client::connect(at, STALE_FOR, STALE_FOR) else { return stale };
        while since.elapsed() < STALE_FOR {
            let key = self.traffic.other_key(shard, &format!("stale:{}", stale.acknowledged));
            match client.ask(&["SET", &key, "1"]) {
                Ok(Reply::Text(_)) => stale.acknowledged += 1,
                Ok(Reply::Error(_) | Reply::Nil | Reply::List(_)) | Err(_) => break,
            }
            std::thread::sleep(STALE_PACE);
        }
        stale
    }

    /// Looks for what a former master took, and takes it away.
    fn count_stale(&mut self, hit: Hit) {
        let Hit::Shard(shard, _) = hit else { return };
        let Some(stale) = &mut self.stale else { return };
        let master = self.deployment.master(shard);
        let Some(at) = master.map(|host| self.deployment.network.socket(host, REDIS_PORT)) else {
            return;
        };
        for number in 0..stale.acknowledged {
            let key = self.traffic.other_key(shard, &format!("stale:{number}"));
            let there = resp::ask(at, &["DEL", &key]);
            stale.lost += u64::from(there.is_ok_and(|reply| reply.text() == "0"));
        }
    }

    /// Tells why not all is as it should be.
    ///
    /// # Errors
    ///
    /// It is not; the text says why.
    pub(super) fn judge(&self) -> Result<(), String> {
        self.deployment.judge_nodes()?;
        for shard in 0..SHARDS.len() {
            self.deployment.judge_shard(shard)?;
        }
        let now = Instant::now();
        settle(Duration::from_secs(1), QUICKLY, || match self.traffic.all_served_since(now) {
            true => Ok(()),
            false => Err("a client gets no good reply".to_owned()),
        })
    }

    /// Brings every host back, whatever was done to it; waits until all is whole.
    ///
    /// # Errors
    ///
    /// It does not become whole; the text says why.
    pub(super) fn restore(&mut self, patience: Duration) -> Result<(), String> {
        for &host in NODES.iter().chain(SERVERS.as_flattened()) {
            if !self.deployment.is_running(host) {
                self.deployment.start(host).map_err(|error| error.to_string())?;
            }
        }
        settle(patience, CALMLY, || self.judge())
    }
}

/// Returns what an event must not have done to acknowledged writes.
fn complaint(keeps_all: bool, verdict: Verdict) -> Option<String> {
    if verdict.unread > 0 {
        return Some(format!("{} acknowledged writes cannot be read back", verdict.unread));
    }
    (keeps_all && verdict.lost > 0)
        .then(|| format!("{} acknowledged writes are lost", verdict.lost))
}

fn outcome(
    event: Event,
    hit: Hit,
    window: Option<Window>,
    verdict: Verdict,
    whole_after: Duration,
    problem: Option<String>,
) -> Outcome {
    let failover = match (hit, &window) {
        (Hit::Shard(shard, _), Some(window)) => window.writes.get(shard).copied().flatten(),
        (Hit::Shard(..) | Hit::Node(_) | Hit::All, _) => None,
    };
    let reached = match (hit, &window) {
        (Hit::Node(_), Some(window)) => window.reached,
        (Hit::Shard(..) | Hit::Node(_) | Hit::All, _) => None,
    };
    let in_flight = match (hit, &window) {
        (Hit::Shard(shard, _), Some(window)) => window.in_flight(shard),
        (Hit::Shard(..) | Hit::Node(_) | Hit::All, _) => None,
    };
    Outcome {
        event,
        target: hit.name(),
        // A planned failover has no silence before it; there the pause says it.
        failover: failover.filter(|_| event != Event::Plan),
        reached,
        skew: None,
        in_flight,
        pause: window.as_ref().map_or(Duration::ZERO, |window| window.pause),
        counts: window.as_ref().map_or_else(Counts::default, |window| window.counts),
        verdict,
        whole_after,
        problem,
        latency: window.and_then(|window| latency(window.latencies)),
        cost: None,
        stale: None,
    }
}

/// Returns the median of some durations, and what 99 of 100 stay below.
fn latency(mut all: Vec<Duration>) -> Option<[Duration; 2]> {
    all.sort_unstable();
    let at = |percent: usize| all.get(all.len() * percent / 100).copied();
    Some([at(50)?, at(99)?])
}
