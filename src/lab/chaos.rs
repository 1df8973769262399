//! Faults drawn by lot, under load; in the end everything has to heal.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringkeeper_core::rng::Rng;
use rustix::process::Signal;

use super::events::Lab;
use super::network::{Host, Kind, Way};
use super::recipe::{NODES, SERVERS, SHARDS};
use super::report::Report;

/// How long what has been broken may take to become whole.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest that a client may go without a good reply. Two hosts are broken at a time, each for
/// three seconds at most, and a client that waits for a reply which nobody sends tries again after
/// five: this is several of these, one after the other.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// From one look at the clock to the next.
const TICK: Duration = Duration::from_millis(20);

/// From one question whether a killed master was replaced to the next.
const ASK_PAUSE: Duration = Duration::from_millis(100);

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Broken {
    host: Host,
    fault: Fault,
    /// When it is to be mended.
    until: Instant,
    /// When it is mended in any case.
    at_last: Instant,
}

/// Breaks things for a time; what it did follows from the seed, what comes of it does not.
pub(super) fn run(lab: &mut Lab, length: Duration, seed: u64, report: &mut Report) {
    // Logs have the time of day.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    println!("seed {seed}, {} s from {:.3} on (Unix time)", length.as_secs(), now.as_secs_f64());
    let mut chaos = Chaos { lab, rng: Rng::new(seed), report, begin: Instant::now() };
    let end = chaos.begin + length;
    while Instant::now() < end && chaos.report.problems.is_empty() {
        chaos.play_round(ROUND.min(end.saturating_duration_since(Instant::now())));
    }
}

struct Chaos<'a> {
    lab: &'a mut Lab,
    rng: Rng,
    report: &'a mut Report,
    begin: Instant,
}

impl Chaos<'_> {
    /// Breaks things, waits until all is whole, and reads back what was acknowledged.
    fn play_round(&mut self, length: Duration) {
        self.lab.traffic.open_window();
        self.break_things(length);
        if let Err(why) = self.lab.restore(PATIENCE) {
            self.report.problems.push(format!("after {} faults: {why}", self.report.faults));
        }
        if let Some(window) = self.lab.traffic.close_window() {
            self.report.pause = self.report.pause.max(window.pause);
        }
        let verdict = self.lab.traffic.verify();
        self.tell_waits();
        for loss in self.lab.traffic.take_losses() {
            let shard = SHARDS.get(loss.shard).unwrap_or(&"");
            let (from, to) = (self.clock(loss.from), self.clock(loss.to));
            println!(
                "{:>8}   {} writes to {shard} lost, acknowledged from {from} to {to}",
                "", loss.count
            );
        }
        let clock = self.clock(Instant::now());
        println!(
            "{clock}   whole again; {} writes read back, {} lost",
            verdict.checked, verdict.lost
        );
        if verdict.lost > 0 && self.lab.deployment.recipe.keeps_promise() {
            self.report.problems.push(format!("{} acknowledged writes are lost", verdict.lost));
        }
        if verdict.unread > 0 {
            self.report.problems.push(format!("{} writes cannot be read back", verdict.unread));
        }
        self.report.verdict.add(verdict);
    }

    fn tell_waits(&mut self) {
        for wait in self.lab.traffic.take_waits() {
            let shard = SHARDS.get(wait.client % 2).unwrap_or(&"");
            println!(
                "{:>8}   client {} of {shard} waited {} ms from {} on, {} times in vain",
                "",
                wait.client,
                wait.lasted.as_millis(),
                self.clock(wait.from),
                wait.attempts,
            );
            if wait.lasted > WAIT_MAX {
                let why = format!("a client of {shard} waited {} s", wait.lasted.as_secs());
                self.report.problems.push(why);
            }
        }
    }

    /// Returns a moment as seconds from the begin.
    fn clock(&self, moment: Instant) -> String {
        format!("{:8.3}", moment.saturating_duration_since(self.begin).as_secs_f64())
    }

    /// Breaks things; in the end everything is mended.
    fn break_things(&mut self, length: Duration) {
        let end = Instant::now() + length;
        let mut broken: Vec<Broken> = Vec::new();
        let mut next = Instant::now();
        while Instant::now() < end {
            self.mend(&mut broken);
            let now = Instant::now();
            if now >= next && broken.len() < BROKEN_MAX {
                next = now + Duration::from_millis(200 + self.rng.below(2500));
                if let Some(one) = draw(self.lab, &mut self.rng, &broken) {
                    self.strike(&one);
                    broken.push(one);
                }
            }
            std::thread::sleep(TICK);
        }
        let now = Instant::now();
        for one in &mut broken {
            (one.until, one.at_last) = (now, now + PATIENCE);
        }
        while !broken.is_empty() {
            self.mend(&mut broken);
            std::thread::sleep(TICK);
        }
    }

    fn strike(&mut self, one: &Broken) {
        let now = Instant::now();
        let lasts = one.until.saturating_duration_since(now).as_millis();
        let (clock, name) = (self.clock(now), one.host.name());
        println!("{clock}   {name:<10} {:?} for {lasts} ms", one.fault);
        self.report.faults += 1;
        if let Err(why) = apply(self.lab, one, true) {
            println!("{clock}   {name:<10} {why}");
        }
    }

    /// Mends what has been broken long enough. Nothing waits for anything else.
    fn mend(&mut self, broken: &mut Vec<Broken>) {
        let now = Instant::now();
        let due = take_due(broken, now, |one| may_return(self.lab, one));
        for one in due {
            let name = one.host.name();
            if one.at_last <= now {
                let patience = PATIENCE.as_secs();
                self.report.problems.push(format!("{name} was not replaced within {patience} s"));
            }
            if let Err(why) = apply(self.lab, &one, false) {
                self.report.problems.push(format!("{name}: {why}"));
            }
        }
    }
}

/// Takes out what is to be mended: what has been broken long enough, if it may return or its time is
/// up. Of what may not is asked again a little later.
fn take_due(
    broken: &mut Vec<Broken>,
    now: Instant,
    mut may_return: impl FnMut(&Broken) -> bool,
) -> Vec<Broken> {
    let mut due = Vec::new();
    for mut one in std::mem::take(broken) {
        if one.until > now {
            broken.push(one);
        } else if one.at_last <= now || may_return(&one) {
            due.push(one);
        } else {
            one.until = now + ASK_PAUSE;
            broken.push(one);
        }
    }
    due
}

/// Tells whether a host can be mended. A process that has much to give back takes a moment to end.
/// And a master that comes back at once, with nothing on disk, would empty its replicas: it stays
/// away until another was made.
fn may_return(lab: &mut Lab, one: &Broken) -> bool {
    if one.fault != Fault::Kill {
        return true;
    }
    let is_replaced = |shard| lab.deployment.master(shard).is_some_and(|at| at != one.host);
    shard_of(one.host).is_none_or(is_replaced) && !lab.deployment.is_running(one.host)
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
    let is_whole = broken.iter().all(|one| one.host != host);
    if !is_whole || !is_within_promise(lab, host, fault, broken) {
        return None;
    }
    let until = Instant::now() + Duration::from_millis(lasts);
    Some(Broken { host, fault, until, at_last: until + PATIENCE })
}

/// Returns the shard of a server.
fn shard_of(host: Host) -> Option<usize> {
    SERVERS.iter().position(|group| group.contains(&host))
}

/// Tells whether what is promised holds beyond a fault of this host. What is promised about
/// acknowledged writes is about one copy at a time, and a server that was killed has none until it
/// is in step. Without that promise everything may happen but that nobody is left with the data:
/// who was a master before is not made one again, so the shard would wait for the one that died.
fn is_within_promise(lab: &Lab, host: Host, fault: Fault, broken: &[Broken]) -> bool {
    let Some(shard) = shard_of(host) else { return true };
    let deployment = &lab.deployment;
    if deployment.recipe.keeps_promise() {
        let is_alone = broken.iter().all(|one| shard_of(one.host) != Some(shard));
        return is_alone && deployment.judge_shard(shard).is_ok();
    }
    if fault != Fault::Kill {
        return true;
    }
    let Some(master) = deployment.master(shard) else { return false };
    is_left_to_another(shard, host, broken, |other| deployment.has_data(other, master))
}

/// Tells whether another server of the shard, which is whole, has the data.
fn is_left_to_another(
    shard: usize,
    host: Host,
    broken: &[Broken],
    has_data: impl Fn(Host) -> bool,
) -> bool {
    let others = SERVERS.get(shard).into_iter().flatten().filter(|other| **other != host);
    let is_whole = |other: &Host| broken.iter().all(|one| one.host != *other);
    others.copied().filter(is_whole).any(has_data)
}

fn apply(lab: &mut Lab, one: &Broken, is_broken: bool) -> Result<(), String> {
    let deployment = &mut lab.deployment;
    let done = match (one.fault, is_broken) {
        (Fault::Kill, true) => {
            deployment.signal(one.host, Signal::KILL);
            Ok(())
        }
        (Fault::Kill, false) => deployment.start(one.host),
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn broken(host: Host, fault: Fault, until: Instant) -> Broken {
        Broken { host, fault, until, at_last: until + PATIENCE }
    }

    #[test]
    fn a_master_that_nobody_replaces_keeps_nobody_else_broken() {
        let now = Instant::now();
        let [master, replica, other] = SERVERS[0];
        let killed = broken(master, Fault::Kill, now);
        let deaf = broken(replica, Fault::OneWay(Way::In), now);
        let cut = broken(other, Fault::Cut, now + SECOND);
        let mut all = vec![killed, deaf, cut];
        let due = take_due(&mut all, now, |one| one.host != master);
        assert_eq!(due, [deaf]);
        assert_eq!(all, [Broken { until: now + ASK_PAUSE, ..killed }, cut]);
        let due = take_due(&mut all, now + SECOND, |one| one.host != master);
        assert_eq!(due, [cut]);
        let at_last = killed.at_last;
        assert_eq!(take_due(&mut all, at_last, |_| false).len(), 1, "there is an end to it");
        assert_eq!(all, []);
    }

    #[test]
    fn nobody_is_killed_who_alone_has_the_data() {
        let now = Instant::now();
        let [former, dead, master] = SERVERS[0];
        let killed = [broken(dead, Fault::Kill, now)];
        let is_left = |broken: &[Broken], with_data: &[Host]| {
            is_left_to_another(0, master, broken, |other| with_data.contains(&other))
        };
        assert!(!is_left(&killed, &[master]), "who was the master before is not made one again");
        assert!(is_left(&killed, &[master, former]));
        let stopped = [killed[0], broken(former, Fault::Stop, now)];
        assert!(!is_left(&stopped, &[master, former]));
        assert!(!is_left(&[], &[master]) && is_left(&[], &[master, dead]));
    }
}
