//! Why no fail-over is under way, in words.

use super::{MasterId, Sentinel};
use crate::sentinel::failover::State;
use crate::sentinel::select::Unfit;
use crate::time::Instant;
use crate::wire::resp::encode;

impl Sentinel {
    /// Writes one line for each thing that a fail-over needs, and for each replica.
    pub(super) fn explain(&self, now: Instant, id: MasterId, out: &mut Vec<u8>) {
        let lines = self.reasons(now, id);
        encode::array_header(out, lines.len());
        lines.iter().for_each(|line| encode::bulk(out, line.as_bytes()));
    }

    /// Returns the same as sentences.
    pub(super) fn reasons(&self, now: Instant, id: MasterId) -> Vec<String> {
        let Some(master) = self.masters.get(&id) else { return Vec::new() };
        let mut lines = vec![format!("master {} is at {}", master.name(), master.belief().address)];
        let state = master.failover.state();
        if *state == State::None {
            lines.push("no fail-over is under way".to_owned());
        } else {
            let for_ms = now.since(master.failover_state_at).as_millis();
            lines.push(format!("a fail-over is in state {} for {for_ms} ms", state.word()));
        }
        lines.push(match master.server.watch.down_since() {
            Some(at) => format!("we see it down for {} ms", now.since(at).as_millis()),
            None => "we do not see it down".to_owned(),
        });
        let tally = master.agreement.tally(now, self.periods.ask * 5, master.quorum());
        if self.sees_down(now, master) {
            lines.push(format!("{} of {} needed see it down", tally.agree, tally.quorum));
        }
        let usable = self.usable(id);
        if !usable.reaches_quorum() {
            lines.push(format!(
                "only {} Sentinels can be reached, fewer than the quorum",
                usable.usable
            ));
        }
        if !usable.reaches_majority() {
            let (up, all) = (usable.usable, usable.voters);
            lines.push(format!("{up} of {all} Sentinels can be reached, which is no majority"));
        }
        if self.tilt.is_active() {
            lines.push("nothing is decided: the process was stopped a moment ago".to_owned());
        }
        if !self.elections.is_durable() {
            lines.push("we neither vote nor stand: our state cannot be written".to_owned());
        }
        if self.is_id_copied {
            lines.push("we neither vote nor stand: another Sentinel uses our ID".to_owned());
        }
        if let Some(until) = self.elections.barred_until(master.name()).filter(|at| *at > now) {
            lines.push(format!("we do not stand for another {} ms", until.since(now).as_millis()));
        }
        let unproven = master.peers.electors().iter().filter(|peer| !peer.is_proven).count();
        if unproven > 0 {
            lines.push(format!("the votes of {unproven} Sentinels do not count yet"));
        }
        let selection = self.selection(now, master);
        for (at, replica) in master.replicas.values().enumerate() {
            let unfit = selection.unfit.iter().find(|(unfit, _)| *unfit == at);
            let why = match unfit {
                Some((_, why)) => format!("is not fit: {}", in_words(*why)),
                None if selection.chosen == Some(at) => "would be promoted".to_owned(),
                None => "is fit".to_owned(),
            };
            lines.push(format!("replica {} {why}", replica.address));
        }
        lines
    }
}

const fn in_words(why: Unfit) -> &'static str {
    match why {
        Unfit::Down => "it is down",
        Unfit::Disconnected => "we are not connected to it",
        Unfit::NoPong => "it has not answered for too long",
        Unfit::NoInfo => "it has not told its state for too long",
        Unfit::SaysMaster => "it says that it is a master",
        Unfit::Priority => "its priority is 0",
        Unfit::LinkDownTooLong => "it lost its master long before we did",
        Unfit::NeverSynced => "it has never been in step with its master",
        Unfit::Lineage => "its data are of another history than the last master's",
        Unfit::Behind => "another has more, and copies were promised",
        Unfit::TooFewSeen => "too few replicas are seen to find the copies that were promised",
    }
}
