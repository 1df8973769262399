//! Scripts that tell whether something is well.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::notify::program;
use crate::config::keepalived::{Probe, Script, User};
use crate::id::{ConnId, JobId, QueryId};
use crate::io::{CloseMode, CloseReason, Endpoint, Errand, Exit, Output, ResolveError};
use crate::limits;
use crate::time::Instant;

/// What a check is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Waiting for its next run.
    Resting,
    /// A program runs; how many signals it got, and when the next is due.
    Running { job: JobId, signals: u8, due: Instant },
    /// A name is looked up.
    Resolving(QueryId),
    /// A connection is tried.
    Connecting(ConnId),
}

/// A script and what came of it.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) script: Script,
    user: Option<User>,
    doing: Doing,
    /// When the next run may begin.
    next: Instant,
    /// What is known; none before the first result that counts.
    is_up: Option<bool>,
    /// Results in a row that speak against it.
    against: u32,
    generation: u32,
    place: u32,
}

/// A result that changed what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) is_up: bool,
    pub(super) detail: String,
}

impl Check {
    pub(super) fn new(script: Script, place: u32, user: Option<User>, now: Instant) -> Self {
        let is_up = script.starts_failed.then_some(false);
        Self {
            script,
            user,
            doing: Doing::Resting,
            next: now,
            is_up,
            against: 0,
            generation: 0,
            place,
        }
    }

    /// Returns what is known.
    pub(super) const fn is_up(&self) -> Option<bool> {
        self.is_up
    }

    /// Takes over what was known of a check by the same name.
    pub(super) fn knowing(mut self, is_up: Option<bool>) -> Self {
        self.is_up = self.is_up.or(is_up);
        self
    }

    /// Tells whether it does this, as this user.
    pub(super) fn is_same(&self, script: &Script, user: Option<&User>) -> bool {
        self.script == *script && self.user.as_ref() == user
    }

    /// Ends what is under way; nobody waits for it any more.
    pub(super) fn end(self) -> Option<Output> {
        match self.doing {
            Doing::Running { job, .. } => {
                Some(Output::Errand(Errand::Kill { job, signal: limits::SIGKILL }))
            }
            Doing::Connecting(conn) => Some(Output::Close { conn, mode: CloseMode::Abort }),
            Doing::Resting | Doing::Resolving(_) => None,
        }
    }

    fn patience(&self) -> Duration {
        self.script.timeout.unwrap_or(self.script.interval)
    }

    /// Starts what is due; ends what takes too long.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        job: impl FnOnce() -> JobId,
    ) -> Option<Output> {
        match &mut self.doing {
            Doing::Resting if self.next <= now => Some(self.start(now, job)),
            Doing::Running { job, signals, due } if *due <= now && *signals < 2 => {
                let signal = if *signals == 0 { limits::SIGTERM } else { limits::SIGKILL };
                *signals += 1;
                *due = now + limits::SCRIPT_KILL_DELAY;
                Some(Output::Errand(Errand::Kill { job: *job, signal }))
            }
            Doing::Resting | Doing::Running { .. } | Doing::Resolving(_) | Doing::Connecting(_) => {
                None
            }
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        match self.doing {
            Doing::Resting => Some(self.next),
            Doing::Running { signals, due, .. } => (signals < 2).then_some(due),
            Doing::Resolving(_) | Doing::Connecting(_) => None,
        }
    }

    fn start(&mut self, now: Instant, job: impl FnOnce() -> JobId) -> Output {
        self.next = now + self.script.interval;
        match &self.script.probe {
            Probe::Run(command) => {
                let job = job();
                self.doing = Doing::Running { job, signals: 0, due: now + self.patience() };
                let program = program(command, &[], self.user.as_ref());
                Output::Errand(Errand::Run { job, program })
            }
            Probe::Connect { host, port } => match host.parse::<IpAddr>() {
                Ok(address) => self.connect(SocketAddr::new(address, *port)),
                Err(_) => {
                    let query = QueryId(self.place);
                    let (host, port) = (host.clone(), *port);
                    self.doing = Doing::Resolving(query);
                    Output::Resolve { query, host, port }
                }
            },
        }
    }

    fn connect(&mut self, to: SocketAddr) -> Output {
        self.generation = self.generation.wrapping_add(1);
        let conn = ConnId::server(self.place, self.generation);
        self.doing = Doing::Connecting(conn);
        let (endpoint, timeout) = (Endpoint::Tcp(to), self.patience());
        Output::Connect { conn, endpoint, timeout, source: None }
    }

    /// Takes the answer to a look-up in.
    pub(super) fn resolved(
        &mut self,
        query: QueryId,
        result: &Result<Vec<SocketAddr>, ResolveError>,
    ) -> (Option<Output>, Option<Verdict>) {
        if self.doing != Doing::Resolving(query) {
            return (None, None);
        }
        self.doing = Doing::Resting;
        match result.as_ref().ok().and_then(|list| list.first()) {
            Some(&address) => (Some(self.connect(address)), None),
            None => (None, self.result(false, "the name has no address".to_owned())),
        }
    }

    /// Takes in that a connection is made: that is all that is asked.
    pub(super) fn connected(&mut self, conn: ConnId) -> (Option<Output>, Option<Verdict>) {
        if self.doing != Doing::Connecting(conn) {
            return (None, None);
        }
        self.doing = Doing::Resting;
        let close = Output::Close { conn, mode: CloseMode::Flush };
        (Some(close), self.result(true, "connected".to_owned()))
    }

    /// Takes the end of a connection in.
    pub(super) fn closed(&mut self, conn: ConnId, reason: CloseReason) -> Option<Verdict> {
        if self.doing != Doing::Connecting(conn) {
            return None;
        }
        self.doing = Doing::Resting;
        self.result(false, format!("not connected: {reason:?}"))
    }

    /// Takes the end of a program in.
    pub(super) fn exited(&mut self, job: JobId, exit: &Exit) -> Option<Verdict> {
        match self.doing {
            Doing::Running { job: known, .. } if known == job => {}
            Doing::Running { .. } | Doing::Resting | Doing::Resolving(_) | Doing::Connecting(_) => {
                return None;
            }
        }
        self.doing = Doing::Resting;
        let (is_good, detail) = match exit {
            Exit::Code(code) => (*code == 0, format!("exit code {code}")),
            Exit::Signal(signal) => (false, format!("ended by signal {signal}")),
            Exit::NotStarted(why) => (false, format!("it cannot be run: {why}")),
        };
        self.result(is_good, detail)
    }

    /// Counts a result; tells if it changes what is known.
    ///
    /// The first success counts at once, whatever `rise` is: as keepalived.
    fn result(&mut self, is_good: bool, detail: String) -> Option<Verdict> {
        if self.is_up == Some(is_good) {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = match (self.is_up, is_good) {
            (None, true) => 1,
            (_, true) => self.script.rise,
            (_, false) => self.script.fall,
        };
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.is_up = Some(is_good);
        Some(Verdict { is_up: is_good, detail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keepalived::Command;

    fn script(probe: Probe) -> Script {
        Script {
            name: "chk".to_owned(),
            probe,
            interval: Duration::from_secs(2),
            timeout: Some(Duration::from_secs(1)),
            weight: 0,
            is_reversed: false,
            rise: 2,
            fall: 3,
            starts_failed: false,
        }
    }

    fn program_check() -> Check {
        let command = Command { argv: vec!["/bin/check".to_owned()], user: None, span: 0..0 };
        Check::new(script(Probe::Run(command)), 0, None, Instant::START)
    }

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    fn run(check: &mut Check, number: u64, code: i32) -> Option<bool> {
        let now = check.next().unwrap();
        assert!(check.handle_timeout(now, || JobId(number)).is_some());
        check.exited(JobId(number), &Exit::Code(code)).map(|verdict| verdict.is_up)
    }

    #[test]
    fn one_success_is_enough_at_first_and_then_rise_and_fall_count() {
        let mut check = program_check();
        let codes = [0, 1, 1, 0, 1, 1, 1, 0, 0];
        let verdicts: Vec<_> =
            (0..).zip(codes).map(|(number, code)| run(&mut check, number, code)).collect();
        let (up, down) = (Some(true), Some(false));
        assert_eq!(verdicts, [up, None, None, None, None, None, down, None, up]);
    }

    #[test]
    fn runs_keep_the_beat_and_do_not_overlap() {
        let mut check = program_check();
        assert!(check.handle_timeout(at(0), || JobId(1)).is_some());
        assert!(check.handle_timeout(at(0), || JobId(2)).is_none());
        // Too slow: asked to end, then made to end, never started twice.
        let signals = |output| match output {
            Some(Output::Errand(Errand::Kill { signal, .. })) => Some(signal),
            _ => None,
        };
        assert_eq!(signals(check.handle_timeout(at(1), || JobId(3))), Some(limits::SIGTERM));
        assert_eq!(signals(check.handle_timeout(at(3), || JobId(3))), Some(limits::SIGKILL));
        assert!(check.handle_timeout(at(9), || JobId(3)).is_none());
        assert_eq!(check.exited(JobId(1), &Exit::Signal(9)), None);
        assert_eq!(check.next(), Some(at(2)));
    }

    #[test]
    fn a_connection_needs_no_program() {
        let host = "127.0.0.1".to_owned();
        let probe = Probe::Connect { host, port: 22121 };
        let mut check = Check::new(script(probe), 4, None, Instant::START);
        let Some(Output::Connect { conn, timeout, .. }) = check.handle_timeout(at(0), || JobId(1))
        else {
            panic!("no attempt")
        };
        assert_eq!(timeout, Duration::from_secs(1));
        let (close, verdict) = check.connected(conn);
        assert!(matches!(close, Some(Output::Close { .. })));
        assert!(verdict.unwrap().is_up);
        assert_eq!(check.closed(conn, CloseReason::Requested), None);
        assert!(check.handle_timeout(at(2), || JobId(1)).is_some());
        let conn = ConnId::server(4, 2);
        assert_eq!(check.closed(conn, CloseReason::Refused), None, "fall is 3");
    }
}
