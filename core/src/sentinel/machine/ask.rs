//! Answers peers that ask whether a master is down, and want votes.

use super::clients::ClientKey;
use super::monitor::is_fast_down;
use super::{MasterId, Sentinel};
use crate::sentinel::ask::{Answer, Ask, AskError};
use crate::sentinel::election::{AskId, View};
use crate::sentinel::instance::Address;
use crate::time::Instant;

impl Sentinel {
    /// Answers, at once or when our vote is durable. Returns whether the client has to wait.
    pub(super) fn handle_ask(
        &mut self,
        now: Instant,
        key: ClientKey,
        arguments: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> bool {
        let ask = match Ask::parse(arguments) {
            Ok(ask) => ask,
            Err(error) => {
                match error.reply() {
                    Some(text) => crate::wire::resp::encode::error(out, text),
                    None => self.answer_unasked(now, error, arguments, out),
                }
                return false;
            }
        };
        let found = self.find_by_address(&ask.address);
        let view = found.and_then(|id| self.view(now, id));
        let (Some(id), Some(mut view)) = (found, view) else {
            Answer::UNKNOWN.encode(out);
            return false;
        };
        // Whoever stands in an election that is over does not know where the master is.
        view.may_vote &=
            self.masters.get(&id).is_some_and(|m| m.latest_belief().config_epoch < ask.epoch);
        if view.is_down {
            self.hasten_asks(now, id);
        }
        let Some(candidate) = ask.candidate else {
            Answer { is_down: view.is_down, ..Answer::UNKNOWN }.encode(out);
            return false;
        };
        let Some(name) = self.masters.get(&id).map(|master| master.name().clone()) else {
            Answer::UNKNOWN.encode(out);
            return false;
        };
        self.next_ask += 1;
        let ask_id = AskId(self.next_ask);
        self.asks.insert(ask_id, key);
        self.elections.handle_ask(now, ask_id, &name, ask.epoch, candidate, view);
        true
    }

    /// A candidate that is no ID gets an answer without a vote.
    fn answer_unasked(
        &mut self,
        now: Instant,
        error: AskError,
        arguments: &[&[u8]],
        out: &mut Vec<u8>,
    ) {
        let address = match (error, arguments) {
            (AskError::Candidate, [host, port, ..]) => Address::parse(host, port).ok(),
            _ => None,
        };
        let found = address.and_then(|address| self.find_by_address(&address));
        let is_down = found.and_then(|id| self.view(now, id)).is_some_and(|view| view.is_down);
        Answer { is_down, ..Answer::UNKNOWN }.encode(out);
    }

    fn view(&self, now: Instant, id: MasterId) -> Option<View> {
        let master = self.masters.get(&id)?;
        let is_down = master.server.watch.is_down() || is_fast_down(master, now);
        let is_tilted = self.tilt.is_active();
        let half = master.down_after() / 2;
        Some(View {
            is_down: is_down && !is_tilted,
            is_master_alive: !is_down && master.server.watch.is_alive_within(now, half),
            may_vote: !is_tilted && !self.is_id_copied,
        })
    }

    fn find_by_address(&self, address: &Address) -> Option<MasterId> {
        let is_it =
            |master: &super::master::Master| self.is_same_place(&master.server.address, address);
        self.each_master().find(|(_, master)| is_it(master)).map(|(id, _)| id)
    }

    /// Who asks sees the master down: if we do too, we want to hear it from everybody soon.
    fn hasten_asks(&mut self, now: Instant, id: MasterId) {
        let Some(master) = self.masters.get_mut(&id) else { return };
        if master.agreement.is_down() {
            return;
        }
        let least = std::time::Duration::from_millis(2);
        for voice in master.voices.values_mut() {
            if voice.asked_at.is_none_or(|at| now.since(at) > least) {
                voice.asked_at = None;
            }
        }
        self.mark(id);
    }

    /// Gives the answer to whoever asked, if it is still there.
    pub(super) fn answer_ask(&mut self, now: Instant, ask: AskId, answer: &Answer) {
        let Some(key) = self.asks.remove(&ask) else { return };
        self.client_answered(now, key, |out| answer.encode(out));
    }
}
