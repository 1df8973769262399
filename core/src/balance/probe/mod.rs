//! Checkers: each looks at one server, again and again, and says how it is.
//!
//! A checker that is content makes its server live at once; one that is not tries `retry` times
//! more before the server is down. While it is down it is looked at every `delay_before_retry`.

pub mod http;
pub mod redis;

use std::time::Duration;

use super::effects::{Effects, JobOwner, Owner};
use super::service::ServerKey;
use crate::buf::Buffer;
use crate::config::keepalived::{Check, Checker, Cover};
use crate::id::{ChannelId, ConnId, JobId};
use crate::io::{ChannelSpec, CloseMode, CloseReason, Exit, Output, Trouble};
use crate::limits;
use crate::rng::Rng;
use crate::time::Instant;
use crate::tls::Talk;
use crate::wire::{dns, icmp};

/// Names a checker; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeId(pub u32);

/// How a conversation goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More must come.
    More,
    /// This is to be asked next, on the same connection.
    Ask(Vec<u8>),
    /// This is to be asked next, on a new connection.
    Anew,
    /// It is over: what was found, or what is wrong.
    Over(Result<String, String>),
}

/// What a checker is doing.
#[derive(Debug)]
enum Doing {
    Resting,
    Connecting(ConnId),
    Talking(ConnId),
    Running {
        job: JobId,
        signals: u8,
        due: Instant,
    },
    /// A datagram is out, or its socket is being opened.
    Asking {
        channel: ChannelId,
        due: Instant,
    },
    /// A file is watched.
    Watching(ChannelId),
}

/// What asks a server questions over a connection.
#[derive(Debug)]
enum Speaker {
    Http(http::Pages),
    Redis(redis::Questions),
}

/// A checker and what it knows.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) id: ProbeId,
    pub(super) server: ServerKey,
    pub(super) plan: Checker,
    /// Whether the server is well as far as this one knows.
    pub(super) is_up: bool,
    /// The server's weight in the file.
    pub(super) base: u32,
    /// What it adds to the server's weight.
    pub(super) adjustment: i64,
    /// Attempts in a row that failed while the server was up.
    failures: u32,
    doing: Doing,
    speaker: Option<Speaker>,
    /// The cover of what is said, where there is one.
    talk: Option<Box<Talk>>,
    /// What waits behind the write in flight.
    out: Buffer,
    is_sending: bool,
    /// When the next attempt begins.
    next: Instant,
    /// When the last one began.
    began: Instant,
    /// Number of the question that is out.
    sequence: u16,
    /// Attempts that came to something, and those that failed.
    pub(super) attempts: u64,
    pub(super) failed: u64,
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether the server is well, as far as this checker knows.
    pub(super) is_up: bool,
    /// How that was found out.
    pub(super) detail: String,
}

impl Probe {
    pub(super) fn new(
        id: ProbeId,
        server: ServerKey,
        plan: Checker,
        now: Instant,
        rng: &mut Rng,
    ) -> Self {
        // A file is no load on anybody, and is looked at once.
        let warmup = match plan.check {
            Check::File { .. } => Duration::ZERO,
            Check::Tcp
            | Check::Http { .. }
            | Check::Misc { .. }
            | Check::Ping
            | Check::Dns { .. }
            | Check::Redis(_) => plan.timing.warmup,
        };
        let warmup = u64::try_from(warmup.as_nanos()).unwrap_or(u64::MAX);
        let speaker = match &plan.check {
            Check::Http { urls, version, cover } => {
                let pages = http::Pages::new(urls.clone(), *version, *cover, plan.address);
                Some(Speaker::Http(pages))
            }
            Check::Redis(asked) => {
                Some(Speaker::Redis(redis::Questions::new(asked.clone(), plan.address)))
            }
            Check::Tcp
            | Check::Misc { .. }
            | Check::Ping
            | Check::Dns { .. }
            | Check::File { .. } => None,
        };
        Self {
            id,
            server,
            is_up: !plan.starts_down,
            base: 0,
            adjustment: 0,
            failures: 0,
            doing: Doing::Resting,
            speaker,
            talk: None,
            out: Buffer::new(),
            is_sending: false,
            next: now + Duration::from_nanos(rng.below(warmup)),
            began: now,
            sequence: 0,
            attempts: 0,
            failed: 0,
            plan,
        }
    }

    /// Returns when [`Probe::handle_timeout`] wants to be called.
    pub(super) const fn next(&self) -> Option<Instant> {
        match self.doing {
            Doing::Resting => Some(self.next),
            Doing::Running { signals, due, .. } => {
                if signals < 2 {
                    Some(due)
                } else {
                    None
                }
            }
            Doing::Asking { due, .. } => Some(due),
            Doing::Connecting(_) | Doing::Watching(_) => None,
            Doing::Talking(_) => Some(self.patience()),
        }
    }

    /// When an attempt has taken too long.
    const fn patience(&self) -> Instant {
        Instant::from_nanos(self.began.as_nanos().saturating_add(nanos(self.plan.timing.timeout)))
    }

    /// Looks soon: a client could not reach the server.
    /// Returns whether it does.
    pub(super) fn hurry(&mut self, now: Instant) -> bool {
        let is_due = self.began + limits::CHECK_HURRY_INTERVAL <= now;
        let can = self.is_up && is_due && matches!(self.doing, Doing::Resting) && self.next > now;
        if can {
            self.next = now;
        }
        can
    }

    /// Begins what is due; ends what takes too long.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        effects: &mut Effects,
    ) -> Option<Verdict> {
        match &mut self.doing {
            Doing::Resting if self.next <= now => self.begin(now, effects),
            Doing::Running { job, signals, due } if *due <= now && *signals < 2 => {
                let signal = if *signals == 0 { limits::SIGTERM } else { limits::SIGKILL };
                *signals += 1;
                *due = now + limits::SCRIPT_KILL_DELAY;
                effects.kill(*job, signal);
                None
            }
            Doing::Asking { channel, due } if *due <= now => {
                effects.close_channel(*channel);
                self.finish(now, Err("no answer in time".to_owned()))
            }
            Doing::Talking(conn) if self.began + self.plan.timing.timeout <= now => {
                effects.close_link(*conn, CloseMode::Abort);
                self.failed_talk(now, "no answer in time", effects)
            }
            Doing::Resting
            | Doing::Running { .. }
            | Doing::Asking { .. }
            | Doing::Connecting(_)
            | Doing::Talking(_)
            | Doing::Watching(_) => None,
        }
    }

    fn begin(&mut self, now: Instant, effects: &mut Effects) -> Option<Verdict> {
        self.began = now;
        let address = self.plan.address;
        match &self.plan.check {
            Check::Tcp => self.connect(now, effects),
            Check::Http { .. } | Check::Redis(_) => {
                match &mut self.speaker {
                    Some(Speaker::Http(pages)) => pages.restart(),
                    Some(Speaker::Redis(questions)) => questions.restart(),
                    None => {}
                }
                self.connect(now, effects)
            }
            Check::Misc { .. } if !effects.can_run() => self.postpone(now),
            Check::Misc { command, timeout, .. } => {
                let due = now + timeout.unwrap_or(self.plan.timing.delay_loop);
                let job = effects.run(JobOwner::Probe(self.id), command);
                self.doing = Doing::Running { job, signals: 0, due };
                None
            }
            Check::Ping => self.ask(now, ChannelSpec::Ping { to: address.ip() }, effects),
            Check::Dns { .. } => self.ask(now, ChannelSpec::Udp { to: address }, effects),
            Check::File { path, .. } => {
                let bytes_max = limits::TRACKED_FILE_BYTES_MAX;
                let spec = ChannelSpec::WatchFile { path: path.clone(), bytes_max };
                self.doing = Doing::Watching(effects.open_channel(self.id, spec));
                None
            }
        }
    }

    fn ask(&mut self, now: Instant, spec: ChannelSpec, effects: &mut Effects) -> Option<Verdict> {
        self.sequence = self.sequence.wrapping_add(1);
        let channel = effects.open_channel(self.id, spec);
        self.doing = Doing::Asking { channel, due: now + self.plan.timing.timeout };
        None
    }

    /// Connects to whom the next question is for.
    fn connect(&mut self, now: Instant, effects: &mut Effects) -> Option<Verdict> {
        let to = match &self.speaker {
            Some(Speaker::Redis(questions)) => questions.target(),
            Some(Speaker::Http(_)) | None => self.plan.address,
        };
        match effects.connect(Owner::Probe(self.id), to, self.plan.timing.timeout) {
            Some(conn) => {
                self.doing = Doing::Connecting(conn);
                None
            }
            None => self.finish(now, Err("there are too many connections".to_owned())),
        }
    }

    /// Takes in that a connection is made.
    pub(super) fn connected(
        &mut self,
        now: Instant,
        conn: ConnId,
        effects: &mut Effects,
    ) -> Option<Verdict> {
        if !matches!(self.doing, Doing::Connecting(known) if known == conn) {
            return None;
        }
        let request = match &self.speaker {
            None => {
                effects.close_link(conn, CloseMode::Flush);
                return self.finish(now, Ok("connected".to_owned()));
            }
            Some(Speaker::Http(pages)) => pages.request(),
            Some(Speaker::Redis(questions)) => questions.request(),
        };
        self.doing = Doing::Talking(conn);
        (self.talk, self.is_sending) = (None, false);
        self.out.clear();
        if let Err(why) = self.take_cover(effects) {
            effects.close_link(conn, CloseMode::Abort);
            return self.finish(now, Err(why));
        }
        self.say(conn, &request, effects);
        None
    }

    /// Begins to encrypt what is said, if it is to be.
    fn take_cover(&mut self, effects: &Effects) -> Result<(), String> {
        let is_covered =
            matches!(&self.plan.check, Check::Http { cover, .. } if *cover != Cover::Plain);
        if !is_covered {
            return Ok(());
        }
        let config = effects.cover.clone().ok_or("nothing can be encrypted here")?;
        let name = match &self.speaker {
            Some(Speaker::Http(pages)) => pages.name(),
            Some(Speaker::Redis(_)) | None => None,
        };
        self.talk = Some(Box::new(Talk::begin(config, self.plan.address.ip(), name)?));
        Ok(())
    }

    fn say(&mut self, conn: ConnId, bytes: &[u8], effects: &mut Effects) {
        match &mut self.talk {
            Some(talk) => talk.say(bytes),
            None => self.out.extend_from_slice(bytes),
        }
        self.write(conn, effects);
    }

    /// Has what waits written, if nothing is being written.
    fn write(&mut self, conn: ConnId, effects: &mut Effects) {
        if self.is_sending {
            return;
        }
        if let Some(talk) = &mut self.talk {
            talk.write_to(&mut self.out);
        }
        if !self.out.is_empty() {
            self.is_sending = true;
            let buffer = std::mem::take(&mut self.out);
            effects.push(Output::Transmit { conn, buffer });
        }
    }

    /// Takes in that a write is done.
    pub(super) fn sent(&mut self, conn: ConnId, effects: &mut Effects) -> Option<Verdict> {
        if matches!(self.doing, Doing::Talking(known) if known == conn) {
            self.is_sending = false;
            self.write(conn, effects);
        }
        None
    }

    /// Takes what the server says; at its end nothing.
    pub(super) fn received(
        &mut self,
        now: Instant,
        conn: ConnId,
        bytes: Option<&[u8]>,
        effects: &mut Effects,
    ) -> Option<Verdict> {
        if !matches!(self.doing, Doing::Talking(known) if known == conn) {
            return None;
        }
        let mut plain = Vec::new();
        let heard = match (&mut self.talk, bytes) {
            (Some(talk), Some(bytes)) => talk.hear(bytes, &mut plain),
            (Some(_), None) | (None, _) => Ok(false),
        };
        let has_ended = match heard {
            Ok(has_ended) => has_ended,
            Err(why) => {
                effects.close_link(conn, CloseMode::Abort);
                return self.failed_talk(now, &why, effects);
            }
        };
        self.write(conn, effects);
        let bytes = if self.talk.is_some() { bytes.map(|_| plain.as_slice()) } else { bytes };
        let progress = match (&mut self.speaker, bytes) {
            (Some(Speaker::Http(pages)), Some(bytes)) => {
                let progress = pages.take(bytes);
                if has_ended && progress == Progress::More { pages.end() } else { progress }
            }
            (Some(Speaker::Http(pages)), None) => pages.end(),
            (Some(Speaker::Redis(questions)), Some(bytes)) => questions.take(bytes),
            (Some(Speaker::Redis(_)), None) => {
                Progress::Over(Err("it closed the connection".to_owned()))
            }
            (None, _) => Progress::More,
        };
        match progress {
            Progress::More => None,
            Progress::Ask(question) => {
                self.say(conn, &question, effects);
                None
            }
            Progress::Anew => {
                effects.close_link(conn, CloseMode::Flush);
                self.connect(now, effects)
            }
            Progress::Over(Ok(detail)) => {
                effects.close_link(conn, CloseMode::Flush);
                self.finish(now, Ok(detail))
            }
            Progress::Over(Err(why)) => {
                effects.close_link(conn, CloseMode::Flush);
                self.failed_talk(now, &why, effects)
            }
        }
    }

    /// A conversation came to nothing; with Sentinels the next one may know more.
    fn failed_talk(&mut self, now: Instant, why: &str, effects: &mut Effects) -> Option<Verdict> {
        if let Some(Speaker::Redis(questions)) = &mut self.speaker
            && questions.is_about_sentinels()
        {
            if questions.next_sentinel() {
                self.began = now;
                return self.connect(now, effects);
            }
            if !questions.has_verdict() {
                return self.postpone(now);
            }
        }
        self.finish(now, Err(why.to_owned()))
    }

    /// Nothing was found out: what is known stays.
    fn postpone(&mut self, now: Instant) -> Option<Verdict> {
        self.doing = Doing::Resting;
        self.next = now + self.plan.timing.delay_before_retry.max(Duration::from_millis(100));
        None
    }

    /// Takes the end of a connection.
    pub(super) fn closed(
        &mut self,
        now: Instant,
        conn: ConnId,
        reason: CloseReason,
        effects: &mut Effects,
    ) -> Option<Verdict> {
        match self.doing {
            Doing::Connecting(known) if known == conn => {
                self.failed_talk(now, words(reason), effects)
            }
            Doing::Talking(known) if known == conn => self.failed_talk(now, words(reason), effects),
            Doing::Connecting(_)
            | Doing::Talking(_)
            | Doing::Resting
            | Doing::Running { .. }
            | Doing::Asking { .. }
            | Doing::Watching(_) => None,
        }
    }

    /// Takes the end of a program.
    pub(super) fn exited(&mut self, now: Instant, job: JobId, exit: &Exit) -> Option<Verdict> {
        let signals = match self.doing {
            Doing::Running { job: known, signals, .. } if known == job => signals,
            Doing::Running { .. }
            | Doing::Connecting(_)
            | Doing::Talking(_)
            | Doing::Resting
            | Doing::Asking { .. }
            | Doing::Watching(_) => return None,
        };
        let is_dynamic = matches!(self.plan.check, Check::Misc { is_dynamic: true, .. });
        let result = match exit {
            _ if signals > 0 => Err("the program took too long".to_owned()),
            Exit::Code(0) => Ok("exit code 0".to_owned()),
            // The weight of the server is what the code says, less 2.
            Exit::Code(code @ 2..=255) if is_dynamic => {
                self.adjustment = i64::from(*code) - 2 - i64::from(self.base);
                Ok(format!("exit code {code}"))
            }
            Exit::Code(code) => Err(format!("exit code {code}")),
            Exit::Signal(signal) => Err(format!("ended by signal {signal}")),
            Exit::NotStarted(why) => Err(format!("it cannot be run: {why}")),
        };
        self.finish(now, result)
    }

    /// Takes in what became of a channel.
    pub(super) fn opened(
        &mut self,
        now: Instant,
        channel: ChannelId,
        result: Result<(), i32>,
        effects: &mut Effects,
    ) -> Option<Verdict> {
        match self.doing {
            Doing::Asking { channel: known, .. } if known == channel => {}
            Doing::Watching(known) if known == channel => {
                if result.is_err() {
                    effects.close_channel(channel);
                    return self.postpone(now);
                }
                return None;
            }
            Doing::Asking { .. }
            | Doing::Watching(_)
            | Doing::Running { .. }
            | Doing::Connecting(_)
            | Doing::Talking(_)
            | Doing::Resting => return None,
        }
        if let Err(errno) = result {
            effects.close_channel(channel);
            return self.finish(now, Err(format!("no socket for the question: error {errno}")));
        }
        let bytes = match &self.plan.check {
            Check::Ping => {
                let payload = self.began.as_nanos().to_be_bytes();
                icmp::echo_request(
                    self.plan.address.ip(),
                    self.identifier(),
                    self.sequence,
                    &payload,
                )
            }
            Check::Dns { kind, name } => match dns::question(self.sequence, name, *kind) {
                Some(bytes) => bytes,
                None => {
                    effects.close_channel(channel);
                    return self.finish(now, Err("the name cannot be asked for".to_owned()));
                }
            },
            Check::Tcp
            | Check::Http { .. }
            | Check::Misc { .. }
            | Check::File { .. }
            | Check::Redis(_) => return None,
        };
        effects.push(Output::Datagram { channel, to: None, bytes });
        None
    }

    /// Tells echo requests of different checkers apart where the kernel does not.
    fn identifier(&self) -> u16 {
        u16::try_from(self.id.0 & 0xffff).unwrap_or(0)
    }

    /// Takes what came through a channel.
    pub(super) fn datagram(
        &mut self,
        now: Instant,
        channel: ChannelId,
        bytes: &[u8],
        effects: &mut Effects,
    ) -> Option<Verdict> {
        match (&self.doing, &self.plan.check) {
            (Doing::Watching(known), Check::File { weight, .. }) if *known == channel => {
                let weight = i64::from(*weight);
                self.read_file(bytes, weight)
            }
            (Doing::Asking { channel: known, .. }, Check::Ping) if *known == channel => {
                let sent = self.began.as_nanos().to_be_bytes();
                if icmp::echo_reply(bytes) != Some((self.sequence, &sent[..])) {
                    return None;
                }
                effects.close_channel(channel);
                self.finish(now, Ok("it answers pings".to_owned()))
            }
            (Doing::Asking { channel: known, .. }, Check::Dns { .. }) if *known == channel => {
                let result = match dns::judge(bytes, self.sequence) {
                    Err(dns::Unfit::Foreign) => return None,
                    Err(dns::Unfit::Failed(code)) => Err(format!("it answers with code {code}")),
                    Ok(()) => Ok("it answers questions".to_owned()),
                };
                effects.close_channel(channel);
                self.finish(now, result)
            }
            _ => None,
        }
    }

    /// Takes a number that was written into a file; it counts at once.
    fn read_file(&mut self, bytes: &[u8], weight: i64) -> Option<Verdict> {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let value: i64 =
            text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let product = value.saturating_mul(weight);
        let is_good = if weight == 0 { value == 0 } else { product > -254 };
        self.adjustment = if is_good { product.clamp(-253, 253) } else { 0 };
        self.is_up = is_good;
        Some(Verdict { is_up: is_good, detail: format!("the file says {value}") })
    }

    /// Takes in that something is wrong with a channel.
    pub(super) fn trouble(
        &mut self,
        now: Instant,
        channel: ChannelId,
        trouble: Trouble,
        effects: &mut Effects,
    ) -> Option<Verdict> {
        match self.doing {
            Doing::Asking { channel: known, .. } if known == channel => {
                effects.close_channel(channel);
                self.finish(now, Err(format!("it cannot be asked: {trouble:?}")))
            }
            Doing::Watching(known) if known == channel => {
                effects.close_channel(channel);
                self.postpone(now)
            }
            Doing::Asking { .. }
            | Doing::Watching(_)
            | Doing::Running { .. }
            | Doing::Connecting(_)
            | Doing::Talking(_)
            | Doing::Resting => None,
        }
    }

    /// Ends an attempt; returns what is known after it, if it counts.
    fn finish(&mut self, now: Instant, result: Result<String, String>) -> Option<Verdict> {
        self.doing = Doing::Resting;
        self.talk = None;
        self.attempts += 1;
        self.failed += u64::from(result.is_err());
        let Timings { delay_loop, before_retry } = self.timings();
        match result {
            Ok(detail) => {
                self.failures = 0;
                self.next = (self.began + delay_loop).max(now);
                self.is_up = true;
                Some(Verdict { is_up: true, detail })
            }
            Err(_) if self.is_up && self.failures < self.plan.timing.retry => {
                self.failures += 1;
                self.next = now + before_retry;
                None
            }
            Err(detail) => {
                self.failures = 0;
                self.next = now + before_retry.min(delay_loop);
                self.is_up = false;
                Some(Verdict { is_up: false, detail })
            }
        }
    }

    fn timings(&self) -> Timings {
        // Nothing is looked at without a break, whatever the file says.
        let least = Duration::from_millis(1);
        let timing = &self.plan.timing;
        Timings {
            delay_loop: timing.delay_loop.max(least),
            before_retry: timing.delay_before_retry.max(least),
        }
    }

    /// Ends what is under way.
    pub(super) fn stop(&mut self, effects: &mut Effects) {
        match std::mem::replace(&mut self.doing, Doing::Resting) {
            Doing::Resting => {}
            Doing::Connecting(conn) | Doing::Talking(conn) => {
                effects.close_link(conn, CloseMode::Abort);
            }
            Doing::Running { job, .. } => {
                effects.forget_job(job);
                effects.kill(job, limits::SIGTERM);
            }
            Doing::Asking { channel, .. } | Doing::Watching(channel) => {
                effects.close_channel(channel);
            }
        }
    }
}

struct Timings {
    delay_loop: Duration,
    before_retry: Duration,
}

#[expect(clippy::cast_possible_truncation, reason = "584 years fit")]
const fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// Returns why a connection ended, for people.
pub(super) const fn words(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Requested => "closed",
        CloseReason::Refused => "connection refused",
        CloseReason::Reset => "connection reset",
        CloseReason::ConnectTimedOut => "no connection in time",
        CloseReason::Unreachable => "not reachable",
        CloseReason::NotFound => "not found",
        CloseReason::OutOfResources => "this host lacks descriptors, ports or memory",
        CloseReason::Other(_) => "connection failed",
    }
}
