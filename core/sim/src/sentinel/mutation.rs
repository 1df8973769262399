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
}

/// The border with its switch.
pub(crate) struct Border {
    mutation: Option<Mutation>,
    /// Of each connection to a peer: the election that we asked for votes in.
    asked: BTreeMap<Conn, u64>,
}

impl Border {
    pub(crate) const fn new(mutation: Option<Mutation>) -> Self {
        Self { mutation, asked: BTreeMap::new() }
    }

    pub(crate) fn answers_before_disk(&self) -> bool {
        self.mutation == Some(Mutation::AnswersBeforeDisk)
    }

    pub(crate) fn hides_disk_errors(&self) -> bool {
        self.mutation == Some(Mutation::VotesUnsaved)
    }

    pub(crate) fn closed(&mut self, conn: Conn) {
        self.asked.remove(&conn);
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
        match self.mutation {
            Some(Mutation::CountsWrongEpoch) => self.with_our_epoch(conn, bytes),
            _ => bytes,
        }
    }

    /// What others hear instead of what it says.
    pub(crate) fn transmit(&mut self, conn: Conn, bytes: Vec<u8>) -> Vec<u8> {
        if self.mutation.is_some() {
            let text = String::from_utf8_lossy(&bytes);
            let words: Vec<&str> = text.split("\r\n").collect();
            for (index, word) in words.iter().enumerate() {
                if word.eq_ignore_ascii_case("is-master-down-by-addr")
                    && words.get(index + 8).is_some_and(|run_id| run_id.len() == 40)
                    && let Some(epoch) = words.get(index + 6).and_then(|word| word.parse().ok())
                {
                    self.asked.insert(conn, epoch);
                }
            }
        }
        bytes
    }

    /// A vote for another election looks like one for ours.
    fn with_our_epoch(&self, conn: Conn, bytes: Vec<u8>) -> Vec<u8> {
        let Some(epoch) = self.asked.get(&conn) else { return bytes };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
        for index in 0..lines.len().saturating_sub(4) {
            let is_vote = lines[index] == "*3" && lines[index + 2] == "$40";
            if is_vote && let Some(number) = lines[index + 4].strip_prefix(':') {
                let voted: u64 = number.parse().unwrap_or(0);
                if voted > *epoch {
                    lines[index + 4] = format!(":{epoch}");
                }
            }
        }
        lines.join("\r\n").into_bytes()
    }
}
