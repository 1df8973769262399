//! What a leader does: one replica becomes the master, the others follow it.
//!
//! Every way from one state to another is in [`Failover::handle`], every effect of it in one
//! function behind it; a test prints the whole table.
//!
//! Deviates from genuine Sentinels:
//! - transitions follow their causes at once, instead of one every tick;
//! - the promoted replica is asked for INFO at once, instead of within a second;
//! - a fail-over ends when the master comes back before a replica was told;
//! - the new address is durable before anybody hears of it.

use std::time::Duration;

use super::event::Plain;
use super::instance::{Address, Epoch};
use crate::time::Instant;

/// Where a fail-over is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// None is under way.
    None,
    /// We want to lead and ask for votes.
    WaitStart,
    /// We lead, and a replica is to be chosen.
    SelectSlave {
        /// The election that we won.
        epoch: Epoch,
    },
    /// A replica is to be told.
    SendSlaveofNoone(Chosen),
    /// It was told, and has not yet said that it is a master.
    WaitPromotion(Chosen),
    /// It said so; the new address is being written down. There is no way back.
    Commit(Chosen),
    /// The other replicas are told.
    ReconfSlaves(Chosen),
    /// Everything is told to the others; our own tables are to be switched.
    UpdateConfig(Chosen),
}

/// The replica that becomes the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The election that allows it.
    pub epoch: Epoch,
    /// Where it is.
    pub replica: Address,
}

impl State {
    /// Returns the word of the field `failover-state`, as genuine Sentinels have it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::WaitStart => "wait_start",
            Self::SelectSlave { .. } => "select_slave",
            Self::SendSlaveofNoone(_) => "send_slaveof_noone",
            // Seen from outside the promotion is awaited until it counts.
            Self::WaitPromotion(_) | Self::Commit(_) => "wait_promotion",
            Self::ReconfSlaves(_) => "reconf_slaves",
            Self::UpdateConfig(_) => "update_config",
        }
    }

    /// Returns the chosen replica from the moment on that it is chosen.
    pub const fn chosen(&self) -> Option<&Chosen> {
        match self {
            Self::None | Self::WaitStart | Self::SelectSlave { .. } => None,
            Self::SendSlaveofNoone(chosen)
            | Self::WaitPromotion(chosen)
            | Self::Commit(chosen)
            | Self::ReconfSlaves(chosen)
            | Self::UpdateConfig(chosen) => Some(chosen),
        }
    }

    /// Returns the address that clients and peers are told, if it is not the old one any more.
    pub const fn announced(&self) -> Option<&Chosen> {
        match self {
            Self::ReconfSlaves(chosen) | Self::UpdateConfig(chosen) => Some(chosen),
            Self::None
            | Self::WaitStart
            | Self::SelectSlave { .. }
            | Self::SendSlaveofNoone(_)
            | Self::WaitPromotion(_)
            | Self::Commit(_) => None,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A candidacy began.
    Started,
    /// It was won.
    Elected(Epoch),
    /// It was not.
    NotElected,
    /// The rule chose this replica.
    Selected(Address),
    /// The rule chose none.
    NoGoodSlave,
    /// The transaction that makes the chosen replica a master left.
    Sent,
    /// A replica says that it is a master.
    SaysMaster(Address),
    /// The new address is durable.
    Durable,
    /// It could not be written.
    NotDurable,
    /// All replicas that can be reached follow the new master.
    Reconfigured,
    /// Our own tables were switched.
    Switched,
    /// The master is not objectively down any more.
    MasterIsBack,
    /// A peer knows a later configuration, or the master is watched anew, or not any more.
    Superseded,
    /// The deadline passed.
    Timeout,
}

/// What has to be done, or told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell subscribers, about the master.
    Master(Plain),
    /// Tell subscribers, about the chosen replica.
    Replica(Plain, Address),
    /// Choose a replica; answer with [`Input::Selected`] or [`Input::NoGoodSlave`].
    Select,
    /// Send the transaction with `SLAVEOF NO ONE` as soon as the connection stands, and INFO
    /// behind it; answer with [`Input::Sent`].
    Promote(Address),
    /// Ask it for INFO at once and often.
    Watch(Address),
    /// Write the new address down; answer with [`Input::Durable`] or [`Input::NotDurable`].
    Commit(Chosen),
    /// Hello to everybody at once, and the client-reconfig-script.
    Announce(Chosen),
    /// Tell the other replicas, some at a time.
    Reconfigure(Chosen),
    /// Tell all others at once, whatever they answer.
    ReconfigureAll(Chosen),
    /// Switch our own tables; answer with [`Input::Switched`].
    Switch(Chosen),
    /// We do not lead, or stand, any more.
    Finish,
}

/// One fail-over of one master.
#[derive(Clone, Debug)]
pub struct Failover {
    state: State,
    since: Instant,
    timeout: Duration,
    /// Whether the chosen replica is down: then the others are not told to follow it.
    is_promoted_down: bool,
    /// When to try again to write the new address down.
    retry_at: Option<Instant>,
}

/// How long until it is tried again to write the new address down.
pub const COMMIT_RETRY: Duration = Duration::from_secs(1);

/// Where to go, and what is told on the way.
struct Step {
    to: State,
    says: Vec<Output>,
}

impl Failover {
    /// Begins with none under way. `timeout` is the master's failover-timeout.
    pub const fn new(now: Instant, timeout: Duration) -> Self {
        Self { state: State::None, since: now, timeout, is_promoted_down: false, retry_at: None }
    }

    /// Returns where it is.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Changes how long states may take.
    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Returns when [`Input::Timeout`] is due. The candidacy has a deadline of its own.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::SendSlaveofNoone(_) | State::WaitPromotion(_) => {}
            State::ReconfSlaves(_) if !self.is_promoted_down => {}
            State::Commit(_) => return self.retry_at,
            State::None
            | State::WaitStart
            | State::SelectSlave { .. }
            | State::ReconfSlaves(_)
            | State::UpdateConfig(_) => return None,
        }
        Some(self.since + self.timeout)
    }

    /// Takes in whether the chosen replica is subjectively down.
    pub const fn set_promoted_down(&mut self, is_down: bool) {
        self.is_promoted_down = is_down;
    }

    /// Takes in what happened. What does not concern the state changes nothing.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        if input == Input::Timeout && self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        if input == Input::NotDurable && matches!(self.state, State::Commit(_)) {
            self.retry_at = Some(now + COMMIT_RETRY);
            return;
        }
        let Some(Step { to, says }) = next(&self.state, input) else { return };
        out.extend(says);
        self.transition(now, to, out);
    }

    /// The one place that changes the state.
    fn transition(&mut self, now: Instant, to: State, out: &mut Vec<Output>) {
        let from = std::mem::replace(&mut self.state, to);
        if from.word() != self.state.word() {
            self.since = now;
        }
        self.retry_at = None;
        match &self.state {
            State::None => {
                self.is_promoted_down = false;
                out.push(Output::Finish);
            }
            State::WaitStart => out.push(Output::Master(Plain::TryFailover)),
            State::SelectSlave { .. } => {
                out.push(Output::Master(Plain::ElectedLeader));
                out.push(Output::Master(Plain::SelectSlave));
                out.push(Output::Select);
            }
            State::SendSlaveofNoone(Chosen { replica, .. }) => {
                out.push(Output::Replica(Plain::SelectedSlave, replica.clone()));
                out.push(Output::Replica(Plain::SendSlaveofNoone, replica.clone()));
                out.push(Output::Promote(replica.clone()));
            }
            State::WaitPromotion(Chosen { replica, .. }) => {
                out.push(Output::Replica(Plain::WaitPromotion, replica.clone()));
                out.push(Output::Watch(replica.clone()));
            }
            State::Commit(chosen) => out.push(Output::Commit(chosen.clone())),
            State::ReconfSlaves(chosen) => {
                out.push(Output::Replica(Plain::PromotedSlave, chosen.replica.clone()));
                out.push(Output::Master(Plain::ReconfSlaves));
                out.push(Output::Announce(chosen.clone()));
                out.push(Output::Reconfigure(chosen.clone()));
            }
            State::UpdateConfig(chosen) => {
                out.push(Output::Master(Plain::FailoverEnd));
                out.push(Output::Switch(chosen.clone()));
            }
        }
    }
}

/// Returns where an input leads; `None` when it changes nothing.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a state does not name changes nothing; the printed table shows every pair"
)]
fn next(state: &State, input: Input) -> Option<Step> {
    let step = |to| Some(Step { to, says: Vec::new() });
    let abort = |why| Some(Step { to: State::None, says: vec![Output::Master(why)] });
    match state {
        State::None => match input {
            Input::Started => step(State::WaitStart),
            _ => None,
        },
        State::WaitStart => match input {
            Input::Elected(epoch) => step(State::SelectSlave { epoch }),
            Input::NotElected => abort(Plain::AbortNotElected),
            // Not an abort that anybody waits to hear of: nothing was begun.
            Input::MasterIsBack | Input::Superseded => step(State::None),
            _ => None,
        },
        State::SelectSlave { epoch } => match input {
            Input::Selected(replica) => {
                step(State::SendSlaveofNoone(Chosen { epoch: *epoch, replica }))
            }
            Input::NoGoodSlave => abort(Plain::AbortNoGoodSlave),
            Input::MasterIsBack | Input::Superseded => step(State::None),
            _ => None,
        },
        State::SendSlaveofNoone(chosen) => match input {
            Input::Sent => step(State::WaitPromotion(chosen.clone())),
            Input::Timeout => abort(Plain::AbortSlaveTimeout),
            Input::MasterIsBack | Input::Superseded => step(State::None),
            _ => None,
        },
        State::WaitPromotion(chosen) => match input {
            Input::SaysMaster(replica) if replica == chosen.replica => {
                step(State::Commit(chosen.clone()))
            }
            Input::Timeout => abort(Plain::AbortSlaveTimeout),
            // The replica was told: from here on the master that came back is the one to give way.
            Input::Superseded => step(State::None),
            _ => None,
        },
        State::Commit(chosen) => match input {
            Input::Durable => step(State::ReconfSlaves(chosen.clone())),
            // Of the wait before the next attempt.
            Input::Timeout => step(State::Commit(chosen.clone())),
            Input::Superseded => step(State::None),
            _ => None,
        },
        State::ReconfSlaves(chosen) => match input {
            Input::Reconfigured => step(State::UpdateConfig(chosen.clone())),
            Input::Timeout => Some(Step {
                to: State::UpdateConfig(chosen.clone()),
                says: vec![
                    Output::Master(Plain::FailoverEndForTimeout),
                    Output::ReconfigureAll(chosen.clone()),
                ],
            }),
            // Others were told of this one: nobody hears of what was before it again.
            Input::Superseded => {
                Some(Step { to: State::None, says: vec![Output::Switch(chosen.clone())] })
            }
            _ => None,
        },
        State::UpdateConfig(_) => match input {
            Input::Switched | Input::Superseded => step(State::None),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests;
