//! Telling the world: one program after the other for each subject, the newest state winning.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::config::keepalived::{Command, Notify, User};
use crate::id::JobId;
use crate::io::{Errand, Exit, Program};
use crate::limits;
use crate::time::Instant;

/// A state, as keepalived writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Active,
    Backup,
    Fault,
    Stop,
    Deleted,
    LowerPriority,
}

impl Told {
    /// Returns the word.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Active => "MASTER",
            Self::Backup => "BACKUP",
            Self::Fault => "FAULT",
            Self::Stop => "STOP",
            Self::Deleted => "DELETED",
            Self::LowerPriority => "MASTER_RX_LOWER_PRI",
        }
    }
}

/// Who has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    /// `INSTANCE` or `GROUP`.
    pub(super) kind: &'static str,
    pub(super) name: &'a str,
    pub(super) priority: u8,
}

/// Makes a program of a configured command and more arguments.
pub(super) fn program(command: &Command, more: &[&str], user: Option<&User>) -> Program {
    let words = command.argv.iter().map(String::as_str).chain(more.iter().copied());
    let user = command.user.as_ref().or(user);
    Program {
        argv: words.map(|word| word.as_bytes().to_vec()).collect(),
        environment: Vec::new(),
        user: user.map(|user| (user.name.clone(), user.group.clone())),
    }
}

/// Returns the programs that a change asks for, in their order.
fn programs(
    notify: &Notify,
    subject: &Subject<'_>,
    told: Told,
    user: Option<&User>,
) -> VecDeque<Program> {
    let own = match told {
        Told::Active => &notify.active,
        Told::Backup => &notify.backup,
        Told::Fault => &notify.fault,
        Told::Stop => &notify.stop,
        Told::Deleted => &notify.deleted,
        Told::LowerPriority => &notify.lower,
    };
    let priority = subject.priority.to_string();
    let more = [subject.kind, subject.name, told.text(), &priority];
    let own = own.iter().map(|command| program(command, &[], user));
    let any = notify.any.iter().map(|command| program(command, &more, user));
    own.chain(any).collect()
}

/// Names the queue of one subject; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueId(u32);

#[derive(Debug, Default)]
struct Queue {
    running: Option<(JobId, Instant, u8)>,
    /// What is left of the change that is told now.
    rest: VecDeque<Program>,
    /// The newest change after it.
    next: Option<VecDeque<Program>>,
}

/// The queues of all subjects.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    queues: BTreeMap<QueueId, Queue>,
    next: u32,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.running.is_none() && self.rest.is_empty() && self.next.is_none()
    }
}

impl Notifier {
    /// Returns the queue of a new subject.
    pub(super) fn queue(&mut self) -> QueueId {
        self.next = self.next.wrapping_add(1);
        QueueId(self.next)
    }

    /// Takes a change in.
    pub(super) fn tell(
        &mut self,
        queue: QueueId,
        notify: &Notify,
        subject: &Subject<'_>,
        told: Told,
        user: Option<&User>,
    ) {
        let programs = programs(notify, subject, told, user);
        if programs.is_empty() {
            return;
        }
        // Those of subjects that are gone go when they have told all.
        self.queues.retain(|_, queue| !queue.is_idle());
        let queue = self.queues.entry(queue).or_default();
        if queue.running.is_none() && queue.rest.is_empty() {
            queue.rest = programs;
        } else if told == Told::LowerPriority && queue.next.is_some() {
            // A new state is the greater news.
        } else {
            queue.next = Some(programs);
        }
    }

    /// Gives the next program out that may start.
    pub(super) fn poll(&mut self, now: Instant, job: impl FnOnce() -> JobId) -> Option<Errand> {
        for queue in self.queues.values_mut().filter(|queue| queue.running.is_none()) {
            if queue.rest.is_empty() {
                queue.rest = queue.next.take().unwrap_or_default();
            }
            if let Some(program) = queue.rest.pop_front() {
                let job = job();
                queue.running = Some((job, now + limits::VRRP_NOTIFY_TIME, 0));
                return Some(Errand::Run { job, program });
            }
        }
        None
    }

    /// Takes the end of a program in; tells whether it was one of these.
    pub(super) fn exited(&mut self, job: JobId, _: &Exit) -> bool {
        let is_it = |queue: &&mut Queue| queue.running.is_some_and(|(known, ..)| known == job);
        let Some(queue) = self.queues.values_mut().find(is_it) else { return false };
        queue.running = None;
        true
    }

    /// Returns the signal for a program that takes too long.
    pub(super) fn poll_kill(&mut self, now: Instant) -> Option<Errand> {
        for (job, due, step) in self.queues.values_mut().filter_map(|queue| queue.running.as_mut())
        {
            if *due <= now && *step < 2 {
                let signal = if *step == 0 { limits::SIGTERM } else { limits::SIGKILL };
                *step += 1;
                *due = now + limits::SCRIPT_KILL_DELAY;
                return Some(Errand::Kill { job: *job, signal });
            }
        }
        None
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let running = self.queues.values().filter_map(|queue| queue.running.as_ref());
        running.filter(|(_, _, step)| *step < 2).map(|&(_, due, _)| due).min()
    }

    /// Tells whether everything was told.
    pub(super) fn is_idle(&self) -> bool {
        self.queues.values().all(Queue::is_idle)
    }
}

/// Returns a line for a pipe.
pub(super) fn line(subject: &Subject<'_>, state: &str) -> Vec<u8> {
    format!("{} \"{}\" {state} {}\n", subject.kind, subject.name, subject.priority).into_bytes()
}

/// How long the last programs may take when everything ends.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn command(word: &str) -> Option<Command> {
        Some(Command { argv: vec![word.to_owned()], user: None, span: 0..0 })
    }

    fn started(notifier: &mut Notifier, number: u64) -> Option<String> {
        let errand = notifier.poll(Instant::START, || JobId(number))?;
        let Errand::Run { program, .. } = errand else { panic!("{errand:?}") };
        let words = program.argv.iter().map(|word| String::from_utf8_lossy(word));
        Some(words.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn programs_run_one_after_the_other_and_the_newest_state_wins() {
        let notify = Notify { active: command("up"), any: command("all"), ..Notify::default() };
        let subject = Subject { kind: "INSTANCE", name: "VI", priority: 150 };
        let mut notifier = Notifier::default();
        let queue = notifier.queue();
        notifier.tell(queue, &notify, &subject, Told::Active, None);
        notifier.tell(queue, &notify, &subject, Told::Backup, None);
        notifier.tell(queue, &notify, &subject, Told::Fault, None);
        assert_eq!(started(&mut notifier, 1).unwrap(), "up");
        assert_eq!(started(&mut notifier, 2), None);
        assert!(notifier.exited(JobId(1), &Exit::Code(0)));
        assert_eq!(started(&mut notifier, 2).unwrap(), "all INSTANCE VI MASTER 150");
        assert!(notifier.exited(JobId(2), &Exit::Code(1)));
        assert_eq!(started(&mut notifier, 3).unwrap(), "all INSTANCE VI FAULT 150");
        assert!(notifier.exited(JobId(3), &Exit::Code(0)));
        assert!(notifier.is_idle());
        assert!(!notifier.exited(JobId(4), &Exit::Code(0)));
    }

    #[test]
    fn a_program_that_does_not_end_is_told_to_and_then_made_to() {
        let notify = Notify { backup: command("sleeper"), ..Notify::default() };
        let subject = Subject { kind: "INSTANCE", name: "VI", priority: 1 };
        let mut notifier = Notifier::default();
        let queue = notifier.queue();
        notifier.tell(queue, &notify, &subject, Told::Backup, None);
        started(&mut notifier, 1).unwrap();
        let due = notifier.next().unwrap();
        assert_eq!(notifier.poll_kill(Instant::START), None);
        let job = JobId(1);
        let kill = |signal| Some(Errand::Kill { job, signal });
        assert_eq!(notifier.poll_kill(due), kill(limits::SIGTERM));
        let due = notifier.next().unwrap();
        assert_eq!(notifier.poll_kill(due), kill(limits::SIGKILL));
        assert_eq!(notifier.next(), None);
    }
}
