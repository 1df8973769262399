//! Known defects, put back at the border of our machine: what it is told or what it says is changed
//! on the way, so that it behaves as if it had them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ringkeeper_core::rng::Rng;

use super::process::Conn;

/// A defect to put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Votes for any election count for one's own.
    CountsWrongEpoch,
    /// Answers leave before what they say is on disk.
    AnswersBeforeDisk,
    /// A disk that fails is not noticed.
    VotesUnsaved,
    /// Peers are forgotten with a restart, so that few look like a majority.
    ForgetsVoters,
    /// A hello of the same configuration epoch is believed.
    BelievesEqualEpochs,
    /// Whoever wants a lease gets it, whatever was promised to others.
    PromisesAlways,
    /// Workers are not told when a lease ends, only that it has ended.
    HidesEnds,
}

/// The border with its switch.
pub(crate) struct Border {
    mutation: Option<Mutation>,
    /// Of each connection to a peer: the election that we stand in.
    stands: BTreeMap<Conn, u64>,
    /// The latest election that anybody mentioned.
    latest: u64,
    /// Where we said that each master is, and since which election.
    announced: BTreeMap<String, (u64, String)>,
}

impl Border {
    pub(crate) const fn new(mutation: Option<Mutation>) -> Self {
        Self { mutation, stands: BTreeMap::new(), latest: 0, announced: BTreeMap::new() }
    }

    pub(crate) fn answers_before_disk(&self) -> bool {
        self.mutation == Some(Mutation::AnswersBeforeDisk)
    }

    pub(crate) fn hides_disk_errors(&self) -> bool {
        self.mutation == Some(Mutation::VotesUnsaved)
    }

    pub(crate) fn hides_ends(&self) -> bool {
        self.mutation == Some(Mutation::HidesEnds)
    }

    pub(crate) fn closed(&mut self, conn: Conn) {
        self.stands.remove(&conn);
    }

    /// After a crash: what is left on the disk may be changed.
    pub(crate) fn crashed(&self, _rng: &mut Rng, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        if self.mutation != Some(Mutation::ForgetsVoters) {
            return;
        }
        for bytes in files.values_mut() {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let kept = text.split_inclusive('\n').filter(|line| !line.contains("known-sentinel"));
            *bytes = kept.collect::<String>().into_bytes();
        }
    }

    /// What the machine is told instead of what came.
    pub(crate) fn received(&mut self, conn: Conn, bytes: Vec<u8>) -> Vec<u8> {
        if self.mutation.is_none() {
            return bytes;
        }
        let mut lines = lines(&bytes);
        self.note_epochs(&lines);
        match self.mutation {
            Some(Mutation::CountsWrongEpoch) => self.votes_for_ours(conn, &mut lines),
            Some(Mutation::BelievesEqualEpochs) => self.newer_hellos(&mut lines),
            _ => return bytes,
        }
        lines.join("\r\n").into_bytes()
    }

    /// What others hear instead of what it says.
    pub(crate) fn transmit(&mut self, conn: Conn, bytes: Vec<u8>) -> Vec<u8> {
        if self.mutation.is_none() {
            return bytes;
        }
        let mut lines = lines(&bytes);
        self.note_epochs(&lines);
        for line in &lines {
            if let Some((name, place)) = hello_place(line) {
                self.announced.insert(name, place);
            }
        }
        if self.mutation == Some(Mutation::PromisesAlways) {
            for index in 0..lines.len() {
                // The answer about a master begins like this too, inside an array.
                let is_inside = index > 0 && lines[index - 1].starts_with('*');
                if lines[index] == ":0" && !is_inside {
                    lines[index] = ":1".to_owned();
                }
            }
            return lines.join("\r\n").into_bytes();
        }
        if self.mutation != Some(Mutation::CountsWrongEpoch) {
            return bytes;
        }
        for index in 0..lines.len() {
            let is_vote_wanted = lines[index].eq_ignore_ascii_case("is-master-down-by-addr")
                && lines.get(index + 8).is_some_and(|run_id| run_id.len() == 40);
            if is_vote_wanted && let Ok(epoch) = lines[index + 6].parse::<u64>() {
                // The vote is asked for in the latest election of all, not in our own.
                let asked = epoch.max(self.latest).to_string();
                self.stands.insert(conn, epoch);
                lines[index + 5] = format!("${}", asked.len());
                lines[index + 6] = asked;
            }
        }
        lines.join("\r\n").into_bytes()
    }

    /// Remembers the latest election that anybody has mentioned.
    fn note_epochs(&mut self, lines: &[String]) {
        for line in lines {
            let fields: Vec<&str> = line.split(',').collect();
            if let [_, _, _, epoch, ..] = fields[..]
                && fields.len() == 8
            {
                self.latest = self.latest.max(epoch.parse().unwrap_or(0));
            }
        }
    }

    /// Votes for a later election look like votes for ours.
    fn votes_for_ours(&self, conn: Conn, lines: &mut [String]) {
        let Some(epoch) = self.stands.get(&conn) else { return };
        for index in 0..lines.len().saturating_sub(4) {
            let is_vote = lines[index] == "*3" && lines[index + 2] == "$40";
            if is_vote && let Some(number) = lines[index + 4].strip_prefix(':') {
                let voted: u64 = number.parse().unwrap_or(0);
                lines[index + 4] = format!(":{}", voted.min(*epoch));
            }
        }
    }

    /// A hello of the epoch that we have, with another address, looks like a newer one.
    fn newer_hellos(&self, lines: &mut [String]) {
        for index in 1..lines.len() {
            let Some((name, (epoch, address))) = hello_place(&lines[index]) else { continue };
            let known = self.announced.get(&name);
            if known.is_some_and(|known| known.0 == epoch && known.1 != address) {
                let fields: Vec<&str> = lines[index].split(',').collect();
                let current = fields[3].parse::<u64>().unwrap_or(0).max(epoch + 1);
                let (head, tail) = (fields[..3].join(","), fields[4..7].join(","));
                lines[index] = format!("{head},{current},{tail},{}", epoch + 1);
                lines[index - 1] = format!("${}", lines[index].len());
            }
        }
    }
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).split("\r\n").map(str::to_owned).collect()
}

/// Returns of which master a hello speaks, since which election it is where it is, and where.
fn hello_place(line: &str) -> Option<(String, (u64, String))> {
    let fields: Vec<&str> = line.split(',').collect();
    let [_, _, _, _, name, ip, port, epoch] = fields[..] else { return None };
    Some((name.to_owned(), (epoch.parse().ok()?, format!("{ip}:{port}"))))
}
