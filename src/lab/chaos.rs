//! Faults drawn by lot, under load; in the end everything has to heal.

use std::time::{Duration, Instant};

use ringkeeper_core::rng::Rng;
use rustix::process::Signal;

use super::events::Lab;
use super::network::{Host, Kind, Way};
use super::recipe::{NODES, SERVERS};
use super::report::Report;

/// How long what has been broken may take to become whole.
const PATIENCE: Duration = Duration::from_secs(60);

/// From one look at the clock to the next.
const TICK: Duration = Duration::from_millis(20);

/// Hosts that may be broken at a time.
const BROKEN_MAX: usize = 2;

/// After how much time what was acknowledged is read back, everything being whole.
const ROUND: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// SIGKILL; undone by a new start.
    Kill,
    /// SIGSTOP; undone by SIGCONT.
    Stop,
    /// The cable.
    Cut,
    /// Packets in one direction.
    OneWay(Way),
}

struct Broken {
    host: Host,
    fault: Fault,
    until: Instant,
}

/// Breaks things for a time; what it did follows from the seed, what comes of it does not.
pub(super) fn run(lab: &mut Lab, length: Duration, seed: u64, report: &mut Report) {
    let mut rng = Rng::new(seed);
    let end = Instant::now() + length;
    while Instant::now() < end && report.problems.is_empty() {
        let round = ROUND.min(end.saturating_duration_since(Instant::now()));
        lab.traffic.open_window();
        play_round(lab, &mut rng, round, report);
        if let Err(why) = lab.restore(PATIENCE) {
            report.problems.push(format!("after {} faults: {why}", report.faults));
        }
        if let Some(window) = lab.traffic.close_window() {
            report.pause = report.pause.max(window.pause);
        }
        let verdict = lab.traffic.verify();
        println!("whole again; {} writes read back, {} lost", verdict.checked, verdict.lost);
        if verdict.lost > 0 && lab.deployment.recipe.keeps_promise() {
            report.problems.push(format!("{} acknowledged writes are lost", verdict.lost));
        }
        if verdict.unread > 0 {
            report.problems.push(format!("{} writes cannot be read back", verdict.unread));
        }
        report.verdict.add(verdict);
    }
}

fn play_round(lab: &mut Lab, rng: &mut Rng, length: Duration, report: &mut Report) {
    let end = Instant::now() + length;
    let mut broken: Vec<Broken> = Vec::new();
    let mut next = Instant::now();
    while Instant::now() < end {
        let now = Instant::now();
        while let Some(at) = broken.iter().position(|one| one.until <= now) {
            undo(lab, &broken.swap_remove(at), report);
        }
        if now >= next && broken.len() < BROKEN_MAX {
            next = now + Duration::from_millis(200 + rng.below(2500));
            if let Some(one) = draw(lab, rng, &broken) {
                println!("{:<10} {:?}", one.host.name(), one.fault);
                report.faults += 1;
                if let Err(why) = apply(lab, &one, true) {
                    println!("{:<10} {why}", one.host.name());
                }
                broken.push(one);
            }
        }
        std::thread::sleep(TICK);
    }
    for one in &broken {
        undo(lab, one, report);
    }
}

/// Draws a host that is whole, and what happens to it.
fn draw(lab: &Lab, rng: &mut Rng, broken: &[Broken]) -> Option<Broken> {
    let hosts: Vec<Host> = NODES.iter().chain(SERVERS.as_flattened()).copied().collect();
    let mut pick = |bound: usize| {
        usize::try_from(rng.below(u64::try_from(bound).unwrap_or_default())).unwrap_or_default()
    };
    let host = *hosts.get(pick(hosts.len()))?;
    let has_cables = lab.deployment.network.kind == Kind::Namespaces;
    let faults =
        [Fault::Kill, Fault::Stop, Fault::Cut, Fault::OneWay(Way::In), Fault::OneWay(Way::Out)];
    let fault = *faults.get(pick(if has_cables { faults.len() } else { 2 }))?;
    let lasts = u64::try_from(100 + pick(3000)).unwrap_or_default();
    let until = Instant::now() + Duration::from_millis(lasts);
    let is_whole = broken.iter().all(|one| one.host != host);
    (is_whole && is_within_promise(lab, host, broken)).then_some(Broken { host, fault, until })
}

/// Returns the shard of a server.
fn shard_of(host: Host) -> Option<usize> {
    SERVERS.iter().position(|group| group.contains(&host))
}

/// Tells whether what is promised about acknowledged writes holds beyond a fault of this host: it is
/// about one copy at a time, and a server that was killed has none until it is in step.
fn is_within_promise(lab: &Lab, host: Host, broken: &[Broken]) -> bool {
    let Some(shard) = shard_of(host) else { return true };
    if !lab.deployment.recipe.keeps_promise() {
        return true;
    }
    let is_alone = broken.iter().all(|one| shard_of(one.host) != Some(shard));
    is_alone && lab.deployment.judge_shard(shard).is_ok()
}

fn apply(lab: &mut Lab, one: &Broken, is_broken: bool) -> Result<(), String> {
    let deployment = &mut lab.deployment;
    let done = match (one.fault, is_broken) {
        (Fault::Kill, true) => {
            deployment.signal(one.host, Signal::KILL);
            Ok(())
        }
        (Fault::Kill, false) => {
            // A process that has much to give back takes a moment to end.
            let since = Instant::now();
            while deployment.is_running(one.host) && since.elapsed() < PATIENCE {
                std::thread::sleep(TICK);
            }
            // A master that comes back at once, with nothing on disk, would empty its replicas.
            let shard = shard_of(one.host);
            let is_master = |shard| deployment.master(shard).is_none_or(|at| at == one.host);
            while shard.is_some_and(is_master) && since.elapsed() < PATIENCE {
                std::thread::sleep(TICK);
            }
            deployment.start(one.host)
        }
        (Fault::Stop, is_broken) => {
            let signal = if is_broken { Signal::STOP } else { Signal::CONT };
            deployment.signal(one.host, signal);
            Ok(())
        }
        (Fault::Cut, is_broken) => deployment.network.set_cable(one.host, !is_broken),
        (Fault::OneWay(way), is_broken) => deployment.network.set_one_way(one.host, way, is_broken),
    };
    done.map_err(|error| error.to_string())
}

fn undo(lab: &mut Lab, one: &Broken, report: &mut Report) {
    if let Err(why) = apply(lab, one, false) {
        report.problems.push(format!("{}: {why}", one.host.name()));
    }
}
