//! What is known of shards' masters and of who watches them, for whoever shows it.

use std::collections::VecDeque;
use std::time::Duration;

/// What a Sentinel, or whoever follows some, knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WatchFigures {
    /// `own` for a Sentinel of this process, `follow` for somebody who follows others.
    pub mode: &'static str,
    /// Its own ID; empty if it has none.
    pub id: String,
    /// Whether nothing is decided, because the process was stopped a moment ago.
    pub is_in_tilt: bool,
    /// Scripts that run.
    pub scripts_running: u64,
    /// Scripts that run or wait.
    pub scripts_queued: u64,
    /// The masters, by name.
    pub masters: Vec<MasterFigures>,
}

/// What is known of one master.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MasterFigures {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// Since which election.
    pub config_epoch: u64,
    /// `ok`, `sdown` or `odown`.
    pub status: &'static str,
    /// Sentinels that must agree that it is down.
    pub quorum: u64,
    /// Whether enough Sentinels can be reached, and in words.
    pub has_quorum: bool,
    /// The same in the words of `SENTINEL CKQUORUM`.
    pub quorum_text: String,
    /// Silence after which it counts as down.
    pub down_after: Duration,
    /// What bounds a fail-over.
    pub failover_timeout: Duration,
    /// Replicas that may follow a new master at the same time.
    pub parallel_syncs: u64,
    /// How long ago it last answered acceptably; none: never.
    pub answered_ago: Option<Duration>,
    /// Its replicas.
    pub replicas: Vec<ReplicaFigures>,
    /// The other Sentinels that watch it.
    pub peers: Vec<PeerFigures>,
    /// Why no fail-over is under way, or how far it is; a sentence each.
    pub reasons: Vec<String>,
}

/// What is known of a replica.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaFigures {
    /// Where it is.
    pub address: String,
    /// Whether it is not seen down.
    pub is_up: bool,
    /// Bytes of its master's history that it has; none: it has not said.
    pub offset: Option<u64>,
}

/// What is known of another Sentinel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerFigures {
    /// Its ID.
    pub id: String,
    /// Where it is.
    pub address: String,
    /// Whether it is not seen down.
    pub is_up: bool,
}

/// What was told about masters, the latest last.
#[derive(Clone, Debug, Default)]
pub struct Chronicle {
    told: VecDeque<Told>,
}

/// One thing that was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When, microseconds since 1970.
    pub unix_micros: u64,
    /// What happened, in the Sentinels' word for it, such as `+switch-master`.
    pub name: &'static str,
    /// To whom.
    pub text: String,
}

impl Chronicle {
    /// Notes something; the oldest goes when there is too much.
    pub fn note(&mut self, told: Told) {
        if self.told.len() >= crate::limits::CHRONICLE_LEN_MAX {
            self.told.pop_front();
        }
        self.told.push_back(told);
    }

    /// Returns what was told about a master, in order.
    pub fn about<'a>(&'a self, master: &'a str) -> impl Iterator<Item = &'a Told> {
        self.told.iter().filter(move |told| told.is_about(master))
    }

    /// Returns when the master last moved, microseconds since 1970.
    pub fn last_switch(&self, master: &str) -> Option<u64> {
        let told = self.about(master).filter(|told| told.name == "+switch-master").last();
        told.map(|told| told.unix_micros)
    }
}

impl Told {
    /// Tells whether the master of this name is meant: its name is a word of the text, behind an
    /// `@` if another server is what happened to.
    fn is_about(&self, master: &str) -> bool {
        let mut words = self.text.split(' ');
        let first = words.next();
        if self.name == "+switch-master" {
            return first == Some(master);
        }
        if first == Some("master") {
            return words.next() == Some(master);
        }
        let mut words = words.skip_while(|word| *word != "@");
        words.next();
        words.next() == Some(master)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_found_by_the_master_it_is_about() {
        let mut chronicle = Chronicle::default();
        let all = [
            ("+sdown", "master m 127.0.0.1 1"),
            ("+sdown", "slave m 127.0.0.1 2 @ other 127.0.0.1 1"),
            ("+slave", "slave 127.0.0.1:2 127.0.0.1 2 @ m 127.0.0.1 1"),
            ("+switch-master", "m 127.0.0.1 1 127.0.0.1 2"),
            ("+switch-master", "mm 127.0.0.1 1 127.0.0.1 2"),
            ("+tilt", "#tilt mode entered"),
        ];
        for (at, (name, text)) in (0..).zip(all) {
            chronicle.note(Told { unix_micros: at, name, text: text.to_owned() });
        }
        let about: Vec<u64> = chronicle.about("m").map(|told| told.unix_micros).collect();
        assert_eq!(about, [0, 2, 3]);
        assert_eq!(chronicle.last_switch("mm"), Some(4));
        assert_eq!(chronicle.last_switch("other"), None);
        for at in 0..2000 {
            chronicle.note(Told { unix_micros: at, name: "+tilt", text: String::new() });
        }
        assert_eq!(chronicle.about("m").count(), 0, "the oldest are gone");
    }
}
