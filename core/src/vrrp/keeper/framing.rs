//! The programs that frame everything: one before the start, one behind the end. Whoever waits for
//! one does not wait longer than it may take.

use std::time::Duration;

use super::notify::program;
use super::{Keeper, Stage};
use crate::config::keepalived::Framed;
use crate::id::JobId;
use crate::io::{Errand, Event, Exit, Output};
use crate::limits;
use crate::time::Instant;

/// A program that is waited for.
#[derive(Debug)]
pub(super) struct Framing {
    name: &'static str,
    job: JobId,
    due: Instant,
    is_told_to_end: bool,
}

impl Framing {
    pub(super) fn next(&self) -> Option<Instant> {
        Some(self.due)
    }
}

impl Keeper {
    /// Starts the program before the start.
    pub(super) fn run_startup(&mut self) {
        self.frame("startup_script", self.config.global.startup.clone());
    }

    /// Starts the program behind the end; returns how long it may take.
    pub(super) fn run_shutdown(&mut self) -> Duration {
        let framed = self.config.global.shutdown.clone();
        let limit = framed.as_ref().map_or(Duration::ZERO, |framed| framed.limit);
        self.frame("shutdown_script", framed);
        limit
    }

    fn frame(&mut self, name: &'static str, framed: Option<Framed>) {
        let Some(framed) = framed else { return };
        let job = self.job();
        let user = self.config.global.script_user.as_ref();
        let program = program(&framed.command, &[], user);
        self.outputs.push_back(Output::Errand(Errand::Run { job, program }));
        let due = self.now + framed.limit;
        self.framing = Some(Framing { name, job, due, is_told_to_end: false });
    }

    /// Takes the end of a program in; tells whether it was this one.
    pub(super) fn framing_exited(&mut self, job: JobId, exit: &Exit) -> bool {
        let Some(framing) = self.framing.take_if(|framing| framing.job == job) else {
            return false;
        };
        let (is_up, detail) = match exit {
            Exit::Code(code) => (*code == 0, format!("exit code {code}")),
            Exit::Signal(signal) => (false, format!("ended by signal {signal}")),
            Exit::NotStarted(why) => (false, format!("it cannot be run: {why}")),
        };
        let check = framing.name.to_owned();
        self.outputs.push_back(Output::Event(Event::Check { check, is_up, detail }));
        true
    }

    /// Ends a program that takes too long, and goes on without it.
    pub(super) fn limit_framing(&mut self) {
        let now = self.now;
        let Some(framing) = self.framing.as_mut().filter(|framing| framing.due <= now) else {
            return;
        };
        let job = framing.job;
        if framing.is_told_to_end || self.stage == Stage::Over {
            self.framing = None;
            let signal = limits::SIGKILL;
            return self.outputs.push_back(Output::Errand(Errand::Kill { job, signal }));
        }
        framing.is_told_to_end = true;
        framing.due = now + limits::SCRIPT_KILL_DELAY;
        let signal = limits::SIGTERM;
        self.outputs.push_back(Output::Errand(Errand::Kill { job, signal }));
    }
}
