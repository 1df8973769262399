//! Telling programs of servers and quorums: one after the other for each, the newest winning.

use std::collections::BTreeMap;

use super::effects::{Effects, JobOwner};
use super::service::ServerKey;
use crate::config::keepalived::Command;
use crate::id::JobId;
use crate::io::Exit;
use crate::limits;
use crate::time::Instant;

/// What a program is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Server(ServerKey),
    /// A virtual server, by its number.
    Service(u32),
}

#[derive(Debug, Default)]
struct Queue {
    running: Option<Running>,
    next: Option<Command>,
}

#[derive(Debug)]
struct Running {
    job: JobId,
    program: String,
    due: Instant,
    signals: u8,
}

/// The queues of all subjects.
#[derive(Debug, Default)]
pub(super) struct Teller {
    queues: BTreeMap<Subject, Queue>,
}

impl Teller {
    /// Tells a program, at once or when the one before it has ended.
    pub(super) fn tell(
        &mut self,
        now: Instant,
        subject: Subject,
        command: Option<&Command>,
        effects: &mut Effects,
    ) {
        let Some(command) = command else {
            // An older change that waits is no news any more.
            if let Some(queue) = self.queues.get_mut(&subject) {
                queue.next = None;
            }
            return;
        };
        let queue = self.queues.entry(subject).or_default();
        queue.next = Some(command.clone());
        start(now, queue, effects);
    }

    /// Takes the end of a program in; returns what went wrong, if anything did.
    pub(super) fn exited(&mut self, job: JobId, exit: &Exit) -> Option<(String, String)> {
        let is_it = |queue: &Queue| queue.running.as_ref().is_some_and(|one| one.job == job);
        let (&subject, _) = self.queues.iter().find(|(_, queue)| is_it(queue))?;
        let queue = self.queues.get_mut(&subject)?;
        let program = queue.running.take().map(|one| one.program).unwrap_or_default();
        if queue.next.is_none() {
            self.queues.remove(&subject);
        }
        match exit {
            Exit::Code(0) => None,
            Exit::Code(code) => Some((program, format!("exit code {code}"))),
            Exit::Signal(signal) => Some((program, format!("ended by signal {signal}"))),
            Exit::NotStarted(why) => Some((program, format!("it cannot be run: {why}"))),
        }
    }

    /// Starts what waits, now that a program has ended.
    pub(super) fn go_on(&mut self, now: Instant, effects: &mut Effects) {
        for queue in self.queues.values_mut() {
            start(now, queue, effects);
        }
    }

    /// Ends what takes too long.
    pub(super) fn handle_timeout(&mut self, now: Instant, effects: &mut Effects) {
        for one in self.queues.values_mut().filter_map(|queue| queue.running.as_mut()) {
            if one.due <= now && one.signals < 2 {
                let signal = if one.signals == 0 { limits::SIGTERM } else { limits::SIGKILL };
                one.signals += 1;
                one.due = now + limits::SCRIPT_KILL_DELAY;
                effects.kill(one.job, signal);
            }
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let running = self.queues.values().filter_map(|queue| queue.running.as_ref());
        running.filter(|one| one.signals < 2).map(|one| one.due).min()
    }

    /// Tells whether everything was told.
    pub(super) fn is_idle(&self) -> bool {
        self.queues.is_empty()
    }
}

fn start(now: Instant, queue: &mut Queue, effects: &mut Effects) {
    if queue.running.is_some() || !effects.can_run() {
        return;
    }
    let Some(command) = queue.next.take() else { return };
    let job = effects.run(JobOwner::Teller, &command);
    let program = command.argv.join(" ");
    let due = now + limits::BALANCE_NOTIFY_TIME;
    queue.running = Some(Running { job, program, due, signals: 0 });
}
