//! The scripts that operators want run: what waits, what runs, and what runs again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::periods::Periods;
use super::say::Said;
use super::{MasterId, Sentinel};
use crate::id::JobId;
use crate::io::{Errand, Exit, Output, Program};
use crate::limits;
use crate::sentinel::event::Event;
use crate::sentinel::instance::Address;
use crate::time::Instant;

/// The signal that ends a script which takes too long.
const SIGKILL: i32 = 9;

/// One run of a script.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) argv: Vec<Vec<u8>>,
    environment: Vec<(String, String)>,
    /// How often it ran before.
    pub(super) runs: u32,
    /// When it may begin.
    pub(super) not_before: Option<Instant>,
}

/// A script that runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) script: Script,
    pub(super) since: Instant,
    is_killed: bool,
}

/// All scripts.
#[derive(Debug, Default)]
pub(super) struct Scripts {
    pub(super) waiting: VecDeque<Script>,
    pub(super) running: BTreeMap<JobId, Running>,
    pub(super) last_job: u64,
}

impl Scripts {
    /// Has a script run; of too many the one that has waited longest is dropped.
    pub(super) fn queue(&mut self, argv: Vec<Vec<u8>>, environment: Vec<(String, String)>) {
        if self.waiting.len() >= limits::SENTINEL_SCRIPTS_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Script { argv, environment, runs: 0, not_before: None });
    }

    pub(super) fn next_due(&self, periods: &Periods) -> Option<Instant> {
        let begin = self.waiting.iter().filter_map(|script| script.not_before).min();
        let has_room = self.running.len() < limits::SENTINEL_SCRIPTS_RUNNING_MAX;
        let begin = begin.filter(|_| has_room);
        let end = self.running.values().filter(|running| !running.is_killed);
        let end = end.map(|running| running.since + periods.script_max_runtime).min();
        begin.into_iter().chain(end).min()
    }
}

impl Sentinel {
    /// Runs what may run.
    pub(super) fn start_scripts(&mut self, now: Instant) {
        while self.scripts.running.len() < limits::SENTINEL_SCRIPTS_RUNNING_MAX {
            let is_due = |script: &Script| script.not_before.is_none_or(|at| at <= now);
            let Some(at) = self.scripts.waiting.iter().position(is_due) else { return };
            let Some(script) = self.scripts.waiting.remove(at) else { return };
            self.scripts.last_job += 1;
            let job = JobId(self.scripts.last_job);
            let program = Program {
                argv: script.argv.clone(),
                environment: script.environment.clone(),
                user: None,
            };
            self.scripts.running.insert(job, Running { script, since: now, is_killed: false });
            self.out.push_back(Output::Errand(Errand::Run { job, program }));
        }
    }

    /// Ends scripts that take too long.
    pub(super) fn scripts_due(&mut self, now: Instant) {
        let most = self.periods.script_max_runtime;
        let late = |running: &Running| !running.is_killed && now.since(running.since) >= most;
        let mut killed = Vec::new();
        for (job, running) in self.scripts.running.iter_mut().filter(|(_, r)| late(r)) {
            running.is_killed = true;
            killed.push((*job, path_of(&running.script)));
        }
        for (job, path) in killed {
            let number = u32::try_from(job.0).unwrap_or(u32::MAX);
            self.say_own(&Event::ScriptTimeout(&path, number));
            self.out.push_back(Output::Errand(Errand::Kill { job, signal: SIGKILL }));
        }
    }

    /// Takes in how a script ended.
    pub(super) fn script_ended(&mut self, now: Instant, job: JobId, exit: Exit) {
        let Some(Running { mut script, .. }) = self.scripts.running.remove(&job) else { return };
        let (signal, code) = match exit {
            Exit::Code(code) => (0, code),
            Exit::Signal(signal) => (signal, 0),
            Exit::NotStarted(message) => {
                self.note(format!("{}: {message}", path_of(&script)));
                // As a shell says it of a program that is not there.
                (0, 127)
            }
        };
        script.runs += 1;
        if signal == 0 && code == 0 {
            return;
        }
        let asks_again = signal != 0 || code == 1;
        if asks_again && script.runs < limits::SENTINEL_SCRIPT_RUNS_MAX {
            let doubled = 2_u32.saturating_pow(script.runs - 1);
            script.not_before = Some(now + self.periods.script_retry_delay * doubled);
            if self.scripts.waiting.len() < limits::SENTINEL_SCRIPTS_MAX {
                self.scripts.waiting.push_back(script);
            }
            return;
        }
        let path = path_of(&script);
        let said = Said::of(&Event::ScriptError { path: &path, signal, exit: code });
        self.say(None, said);
    }

    /// Runs the script that tells clients where a master is.
    pub(super) fn run_reconfig_script(
        &mut self,
        id: MasterId,
        is_leader: bool,
        from: &Address,
        to: &Address,
    ) {
        let Some(master) = self.masters.get(&id) else { return };
        let Some(path) = &master.settings.client_reconfig_script else { return };
        let role = if is_leader { "leader" } else { "observer" };
        let (from_port, to_port) = (from.port().to_string(), to.port().to_string());
        let (from, to) = (self.announced(from), self.announced(to));
        let words = [
            path.as_str(),
            master.name().as_str(),
            role,
            "start",
            from.host(),
            &from_port,
            to.host(),
            &to_port,
        ];
        let argv = words.map(|word| word.as_bytes().to_vec()).to_vec();
        let epoch = master.failover.state().chosen().map(|chosen| chosen.epoch);
        let environment = epoch.map(|epoch| ("FAILOVER_EPOCH".to_owned(), epoch.to_string()));
        self.scripts.queue(argv, environment.into_iter().collect());
    }
}

fn path_of(script: &Script) -> String {
    script.argv.first().map(|word| String::from_utf8_lossy(word).into_owned()).unwrap_or_default()
}

/// Returns how long until a script that waits may begin.
pub(super) fn delay(script: &Script, now: Instant) -> Duration {
    script.not_before.map(|at| at.since(now)).unwrap_or_default()
}
