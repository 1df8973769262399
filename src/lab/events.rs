//! What can be done to the deployment, and what then becomes of it.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::deployment::{Deployment, NODES, SERVERS, SHARDS};
use super::network::{Host, Kind};
use super::traffic::{Counts, Traffic, Verdict, Window};

/// How long anything may take to heal.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often is asked what is measured.
pub(super) const QUICKLY: Duration = Duration::from_millis(10);

/// How often is asked whether all is whole, which costs the machine something.
pub(super) const CALMLY: Duration = Duration::from_millis(100);

/// How long a cable is cut after others have taken over.
const CUT_FOR: Duration = Duration::from_millis(1000);

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Event {
    /// A master is killed: SIGKILL.
    KillMaster,
    /// The node that has the address is killed: SIGKILL.
    KillNode,
    /// The cable of the node that has the address is cut.
    CutNode,
    /// The cable of a master is cut.
    CutMaster,
    /// A master is replaced on purpose.
    Plan,
    /// Every node reads another configuration.
    Reload,
    /// Every node is replaced by a new process.
    Upgrade,
}

impl Event {
    /// All of them, as `--auto` plays them.
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
            Self::CutMaster => "cut a master's network",
            Self::Plan => "plan a failover",
            Self::Reload => "reload",
            Self::Upgrade => "upgrade",
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
            Self::CutMaster => {
                "nobody refuses connections: the master counts as down after a second of silence"
            }
            Self::Plan => "a short pause for its clients, no error, nothing lost",
            Self::Reload => "nothing that a client could notice",
            Self::Upgrade => {
                "the address moves away and every client is served on; nothing is lost"
            }
        }
    }

    /// Tells whether every acknowledged write has to survive it.
    const fn keeps_all(self) -> bool {
        match self {
            Self::KillMaster | Self::CutMaster => false,
            Self::KillNode | Self::CutNode | Self::Plan | Self::Reload | Self::Upgrade => true,
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
    /// The longest that a client waited.
    pub(super) pause: Duration,
    pub(super) counts: Counts,
    pub(super) verdict: Verdict,
    /// Until all was as before.
    pub(super) whole_after: Duration,
    /// Why it has not healed; none: it has.
    pub(super) problem: Option<String>,
}

/// The deployment and its clients.
pub(super) struct Lab {
    pub(super) deployment: Deployment,
    pub(super) traffic: Traffic,
    /// Shards are hit in turns.
    turn: usize,
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
        Self { deployment, traffic, turn: 0 }
    }

    /// Tells whether an event can happen on this network.
    pub(super) fn can_play(&self, event: Event) -> bool {
        let has_cables = self.deployment.network.kind == Kind::Namespaces;
        has_cables || !matches!(event, Event::CutNode | Event::CutMaster)
    }

    /// Has an event happen, waits until others have taken over, brings back what was taken away,
    /// waits until all is as before, and reads back every acknowledged write.
    pub(super) fn play(&mut self, event: Event) -> Outcome {
        let mut problem = None;
        let target = self.target(event).unwrap_or_else(|why| {
            problem = Some(why);
            Hit::All
        });
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
        let verdict = self.traffic.verify();
        problem = problem.or_else(|| complaint(event, verdict));
        outcome(event, target, window, verdict, whole_after, problem)
    }

    fn target(&mut self, event: Event) -> Result<Hit, String> {
        match event {
            Event::KillMaster | Event::CutMaster | Event::Plan => {
                let shard = self.turn % SHARDS.len();
                self.turn += 1;
                let master = self.deployment.master(shard).ok_or("nobody knows the master")?;
                Ok(Hit::Shard(shard, master))
            }
            Event::KillNode | Event::CutNode => {
                let holder = match self.deployment.network.kind {
                    Kind::Namespaces => self.deployment.network.holder(&NODES),
                    Kind::Loopback => NODES.first().copied(),
                };
                holder.map(Hit::Node).ok_or_else(|| "nobody has the address".to_owned())
            }
            Event::Reload | Event::Upgrade => Ok(Hit::All),
        }
    }

    /// Does it.
    fn strike(&mut self, event: Event, hit: Hit) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        match (event, hit) {
            (Event::KillMaster | Event::KillNode, Hit::Shard(_, host) | Hit::Node(host)) => {
                self.deployment.signal(host, Signal::KILL);
                self.traffic.mark();
                Ok(())
            }
            (Event::CutNode | Event::CutMaster, Hit::Shard(_, host) | Hit::Node(host)) => {
                self.deployment.network.set_cable(host, false).map_err(text)?;
                self.traffic.mark();
                Ok(())
            }
            (Event::Plan, Hit::Shard(shard, _)) => {
                self.traffic.mark();
                let name = SHARDS.get(shard).copied().unwrap_or_default();
                let ask = |node: &Host| {
                    let words = ["SENTINEL", "FAILOVER", name];
                    self.deployment.ask_sentinel(*node, &words).map_err(text)
                };
                let reply = NODES
                    .iter()
                    .map(ask)
                    .find(|reply| reply.as_ref().is_ok_and(|reply| reply.text() == "OK"));
                reply.map(|_| ()).ok_or_else(|| "no Sentinel begins a failover".to_owned())
            }
            (Event::Reload, _) => {
                self.deployment.change_configuration().map_err(text)?;
                self.traffic.mark();
                NODES.iter().try_for_each(|node| self.deployment.tell(*node, "reload"))
            }
            (Event::Upgrade, _) => {
                self.traffic.mark();
                NODES.iter().try_for_each(|node| {
                    self.deployment.tell(*node, "upgrade")?;
                    // The next one leaves when this one can stand in for it.
                    settle(PATIENCE, QUICKLY, || self.deployment.judge_nodes())
                })
            }
            _ => Err("this cannot happen to that".to_owned()),
        }
    }

    /// Waits until clients are served again.
    fn recover(&self, event: Event, hit: Hit) -> Result<(), String> {
        settle(PATIENCE, QUICKLY, || {
            if let Hit::Shard(shard, old) = hit {
                let master = self.deployment.master(shard);
                if master.is_none_or(|master| master == old) {
                    return Err(format!("{} is still said to be the master", old.name()));
                }
                let window = self.traffic.window();
                let write = window.and_then(|window| *window.writes.get(shard)?);
                return write.map(|_| ()).ok_or_else(|| "no write succeeds".to_owned());
            }
            let is_reached = self.traffic.window().is_some_and(|one| one.reached.is_some());
            if !is_reached {
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
                settle(PATIENCE, QUICKLY, || match self.deployment.is_running(host) {
                    true => Err(format!("{} is still there", host.name())),
                    false => Ok(()),
                })?;
                self.deployment.start(host).map_err(text)
            }
            (Event::CutNode | Event::CutMaster, Hit::Shard(_, host) | Hit::Node(host)) => {
                std::thread::sleep(CUT_FOR);
                self.deployment.network.set_cable(host, true).map_err(text)
            }
            _ => Ok(()),
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
fn complaint(event: Event, verdict: Verdict) -> Option<String> {
    if verdict.unread > 0 {
        return Some(format!("{} acknowledged writes cannot be read back", verdict.unread));
    }
    (event.keeps_all() && verdict.lost > 0)
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
    Outcome {
        event,
        target: hit.name(),
        // A planned failover has no silence before it; there the pause says it.
        failover: failover.filter(|_| event != Event::Plan),
        reached,
        pause: window.as_ref().map_or(Duration::ZERO, |window| window.pause),
        counts: window.map_or_else(Counts::default, |window| window.counts),
        verdict,
        whole_after,
        problem,
    }
}
