//! Our machine as one of the processes: the runtime's side of the border, a disk that is slow,
//! fails and loses what was not yet durable, and the switches that put known defects back.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ringkeeper_core::buf::Buffer;
use ringkeeper_core::id::{ConnId, ListenerId, Ticket};
use ringkeeper_core::io::{
    Change, CloseReason, Drive, Endpoint, Errand, Exit, Input, Notice, Output, PersistError,
    ShardNews,
};
use ringkeeper_core::limits::BATCH_MAX;
use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;

use super::keys::Keys;
use super::mutation::{Border, Mutation};
use super::process::{Conn, Context, Effect, Happening};

/// Outputs of one turn; more is a machine that never comes to rest.
const OUTPUTS_MAX: usize = 1 << 16;

/// From here on alarms are the machine's own deadlines, numbered; below, connections under way.
const ALARM_DEADLINES: u64 = 1 << 63;

/// What a machine is started from.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Its files, by path.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// What chance follows from.
    pub seed: u64,
    /// Its own time.
    pub now: Instant,
}

/// Makes a machine of its files, or says why they can't be read.
pub type Make = Rc<dyn Fn(&Boot) -> Result<Box<dyn Drive>, String>>;

/// What lies on the disk, and what is on its way there.
#[derive(Default)]
pub(crate) struct Disk {
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    pending: VecDeque<(Ticket, Change)>,
    last_done: Duration,
    pub is_broken: bool,
    pub delay: Duration,
}

/// One of our Sentinels, or another worker of ours.
pub(crate) struct Ours {
    make: Make,
    /// All that has happened already is taken in before timers run, as the contract has it.
    pub takes_all: bool,
    taken: usize,
    machine: Option<Box<dyn Drive>>,
    pub disk: Disk,
    pub border: Border,
    wires: Keys<Conn, Wire>,
    /// Which connection the machine means.
    named: Keys<ConnId, Conn>,
    planned: Option<Instant>,
    alarms: u64,
}

/// A connection as the runtime keeps it.
struct Wire {
    name: ConnId,
    is_connecting: bool,
    in_flight: Option<Buffer>,
    is_paused: bool,
    stash: VecDeque<Vec<u8>>,
    is_over: bool,
    is_closing: bool,
}

impl Ours {
    pub(crate) fn new(
        make: Make,
        files: BTreeMap<PathBuf, Vec<u8>>,
        mutation: Option<Mutation>,
    ) -> Self {
        Self {
            make,
            takes_all: false,
            taken: 0,
            machine: None,
            disk: Disk { files, delay: Duration::from_millis(2), ..Disk::default() },
            border: Border::new(mutation),
            wires: Keys::default(),
            named: Keys::default(),
            planned: None,
            alarms: 0,
        }
    }

    pub(crate) fn handle(&mut self, happening: Happening, ctx: &mut Context<'_>) {
        if matches!(happening, Happening::Started) {
            self.boot(ctx);
        } else if let Some(mut machine) = self.machine.take() {
            self.input(&mut *machine, happening, ctx);
            self.machine = Some(machine);
        }
        self.turn(ctx);
    }

    /// What was to happen next is of a connection that is gone: the turn may end with what was taken
    /// in before it.
    pub(crate) fn pass_over(&mut self, ctx: &mut Context<'_>) {
        if self.takes_all {
            self.turn(ctx);
        }
    }

    /// Lets the machine act, unless more has happened that it takes in first.
    fn turn(&mut self, ctx: &mut Context<'_>) {
        if ctx.has_more && self.takes_all && self.taken < BATCH_MAX {
            self.taken += 1;
            return;
        }
        self.taken = 0;
        if let Some(mut machine) = self.machine.take() {
            if machine.poll_timeout().is_some_and(|deadline| deadline.at <= ctx.now) {
                machine.handle_timeout(ctx.now);
            }
            self.take_outputs(&mut *machine, ctx);
            self.sleep(&*machine, ctx);
            self.machine = Some(machine);
        }
    }

    fn boot(&mut self, ctx: &mut Context<'_>) {
        self.wires.clear();
        self.named.clear();
        self.planned = None;
        let boot = Boot { files: self.disk.files.clone(), seed: ctx.rng.next_u64(), now: ctx.now };
        match (self.make)(&boot) {
            Ok(machine) => self.machine = Some(machine),
            Err(why) => {
                self.machine = None;
                ctx.tell("!unreadable", why);
            }
        }
    }

    /// The process has died: what was on its way to the disk has arrived up to some byte.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        self.machine = None;
        let whole = rng.below(self.disk.pending.len() as u64 + 1);
        for _ in 0..whole {
            if let Some((_, change)) = self.disk.pending.pop_front() {
                self.disk.apply(&change, None);
            }
        }
        if let Some((_, change)) = self.disk.pending.pop_front() {
            self.disk.apply(&change, Some(rng));
        }
        self.disk.pending.clear();
        self.border.crashed(rng, &mut self.disk.files);
    }

    fn input(&mut self, machine: &mut dyn Drive, happening: Happening, ctx: &mut Context<'_>) {
        let now = ctx.now;
        match happening {
            Happening::Started => {}
            Happening::Woken(alarm) if alarm >= ALARM_DEADLINES => {
                // One that was replaced by an earlier one means nothing.
                if alarm == ALARM_DEADLINES + self.alarms {
                    self.planned = None;
                }
            }
            Happening::Woken(alarm) => self.connect_expired(machine, (alarm - 1) as Conn, ctx),
            Happening::Accepted { conn, from } => {
                match machine.accept(now, ListenerId(0), Endpoint::Tcp(from)) {
                    Ok(name) => self.name(name, conn, false),
                    Err(_) => ctx.close(conn),
                }
            }
            Happening::Connected(conn) => {
                if let Some(wire) = self.wires.get_mut(&conn) {
                    wire.is_connecting = false;
                    let local = SocketAddr::new(ctx.address.ip(), 40_000 + (conn % 20_000) as u16);
                    machine.handle(now, Input::Connected { conn: wire.name, local: Some(local) });
                }
            }
            Happening::Received { conn, bytes } => self.received(machine, conn, bytes, ctx),
            Happening::Gone { conn, why } => self.gone(machine, conn, why, ctx),
            Happening::Sent(conn) => {
                if let Some(wire) = self.wires.get_mut(&conn)
                    && let Some(buffer) = wire.in_flight.take()
                {
                    machine.handle(now, Input::Sent { conn: wire.name, buffer });
                }
            }
            Happening::Ended(conn) => self.closed(machine, conn, CloseReason::Requested, now),
            Happening::Persisted { ticket, result } => {
                self.persisted(ticket, &result, ctx.rng);
                machine.handle(now, Input::Persisted { ticket, result });
            }
            Happening::Exited { job, exit } => machine.handle(now, Input::Exited { job, exit }),
            Happening::Mail(mail) => machine.handle(now, mail.into()),
            Happening::Opened(channel) => {
                machine.handle(now, Input::ChannelOpened { channel, result: Ok(()) });
            }
            Happening::Datagram { channel, bytes } => {
                machine.handle(now, Input::Datagram { channel, bytes: &bytes });
            }
        }
    }

    fn name(&mut self, name: ConnId, conn: Conn, is_connecting: bool) {
        let wire = Wire {
            name,
            is_connecting,
            in_flight: None,
            is_paused: false,
            stash: VecDeque::new(),
            is_over: false,
            is_closing: false,
        };
        self.wires.insert(conn, wire);
        assert!(self.named.insert(name, conn).is_none(), "{name:?} was issued twice");
    }

    fn received(
        &mut self,
        machine: &mut dyn Drive,
        conn: Conn,
        bytes: Vec<u8>,
        ctx: &mut Context<'_>,
    ) {
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        let bytes = self.border.received(conn, bytes);
        if wire.is_paused {
            wire.stash.push_back(bytes);
        } else if !bytes.is_empty() {
            machine.handle(ctx.now, Input::Received { conn: wire.name, bytes: &bytes });
        }
    }

    fn gone(
        &mut self,
        machine: &mut dyn Drive,
        conn: Conn,
        why: CloseReason,
        ctx: &mut Context<'_>,
    ) {
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        let is_orderly = why == CloseReason::Requested || ctx.rng.is_one_in(1, 2);
        if is_orderly && !wire.is_connecting && !wire.is_closing && why != CloseReason::Refused {
            // The far end closed its socket: first that shows as the end of its stream.
            wire.is_over = true;
            machine.handle(ctx.now, Input::Eof { conn: wire.name });
            return;
        }
        self.closed(machine, conn, why, ctx.now);
    }

    fn closed(&mut self, machine: &mut dyn Drive, conn: Conn, reason: CloseReason, now: Instant) {
        if let Some(Wire { name, .. }) = self.wires.remove(&conn) {
            self.named.remove(&name);
            self.border.closed(conn);
            machine.handle(now, Input::Closed { conn: name, reason });
        }
    }

    fn connect_expired(&mut self, machine: &mut dyn Drive, conn: Conn, ctx: &mut Context<'_>) {
        let wire = self.wires.get(&conn);
        if wire.is_some_and(|wire| wire.is_connecting && !wire.is_closing) {
            ctx.close(conn);
            self.closed(machine, conn, CloseReason::ConnectTimedOut, ctx.now);
        }
    }

    fn sleep(&mut self, machine: &dyn Drive, ctx: &mut Context<'_>) {
        let Some(deadline) = machine.poll_timeout() else { return };
        if self.planned.is_none_or(|planned| deadline.at < planned) {
            // A deadline that has passed and is asked for again would be a busy loop.
            let at = deadline.at.max(ctx.now + Duration::from_micros(1));
            self.planned = Some(at);
            self.alarms += 1;
            ctx.effects.push(Effect::Wake { at, alarm: ALARM_DEADLINES + self.alarms });
        }
    }

    fn take_outputs(&mut self, machine: &mut dyn Drive, ctx: &mut Context<'_>) {
        for _ in 0..OUTPUTS_MAX {
            let Some(output) = machine.poll_output() else { return };
            self.apply(machine, output, ctx);
        }
        panic!("more than {OUTPUTS_MAX} outputs in one turn");
    }

    fn apply(&mut self, machine: &mut dyn Drive, output: Output, ctx: &mut Context<'_>) {
        match output {
            Output::Connect { conn: name, endpoint, timeout, source } => {
                let Endpoint::Tcp(to) = endpoint else { panic!("a connection to {endpoint}") };
                let own = ctx.address.ip();
                assert!(source.is_none_or(|source| source == own), "{own} is not {source:?}");
                let conn = ctx.connect(to);
                self.name(name, conn, true);
                ctx.wake_in(timeout, conn as u64 + 1);
            }
            Output::Transmit { conn, buffer } => self.transmit(conn, buffer, ctx),
            Output::PauseRead(name) => self.wire(name, "PauseRead").1.is_paused = true,
            Output::ResumeRead(name) => {
                let (_, wire) = self.wire(name, "ResumeRead");
                wire.is_paused = false;
                for bytes in std::mem::take(&mut wire.stash) {
                    machine.handle(ctx.now, Input::Received { conn: name, bytes: &bytes });
                }
            }
            Output::EndWrite(conn) => panic!("a Sentinel closes no half of {conn:?}"),
            Output::Release { conn, .. } => panic!("a Sentinel gives no client away: {conn:?}"),
            Output::Close { conn: name, .. } => {
                let (conn, wire) = self.wire(name, "Close");
                wire.is_closing = true;
                ctx.close(conn);
                let after = Duration::from_micros(5);
                ctx.effects.push(Effect::Later { after, happening: Happening::Ended(conn) });
            }
            Output::Errand(errand) => self.errand(errand, ctx),
            Output::Resolve { query, host, port } => {
                let address = host.parse().map(|ip| vec![SocketAddr::new(ip, port)]);
                let result = address.map_err(|_| ringkeeper_core::io::ResolveError::NotFound);
                machine.handle(ctx.now, Input::Resolved { query, result });
            }
            Output::Notice { to, notice } => {
                if let Notice::Shard(news) = &notice {
                    let ShardNews { shard, epoch, address, condition, valid_until } = news;
                    let valid_until = valid_until.filter(|_| !self.border.hides_ends());
                    let left = valid_until.map_or(u128::MAX, |at| at.since(ctx.now).as_nanos());
                    ctx.tell("!news", format!("{shard} {epoch} {address} {condition:?} {left}"));
                }
                ctx.effects.push(Effect::Notify { to, notice });
            }
            Output::OpenChannel { .. } | Output::CloseChannel(_) | Output::Datagram { .. } => {
                ctx.effects.push(Effect::Kernel(output));
            }
            Output::Event(_) => {}
        }
    }

    fn wire(&mut self, name: ConnId, verb: &str) -> (Conn, &mut Wire) {
        let conn = self.named.get(&name).copied();
        let wire = conn.and_then(|conn| Some((conn, self.wires.get_mut(&conn)?)));
        wire.unwrap_or_else(|| panic!("{verb} for {name:?}, which does not exist"))
    }

    fn transmit(&mut self, name: ConnId, buffer: Buffer, ctx: &mut Context<'_>) {
        let (conn, wire) = self.wire(name, "Transmit");
        assert!(!wire.is_connecting, "Transmit for {name:?}, which is not connected");
        assert!(wire.in_flight.is_none(), "two writes in flight for {name:?}");
        let is_over = wire.is_over;
        let bytes = buffer.as_slice().to_vec();
        wire.in_flight = Some(buffer);
        if is_over {
            // Whoever closed its socket answers with a reset.
            let happening = Happening::Gone { conn, why: CloseReason::Reset };
            ctx.effects.push(Effect::Later { after: Duration::from_micros(50), happening });
            return;
        }
        let bytes = self.border.transmit(conn, bytes);
        ctx.send(conn, bytes);
        let after = Duration::from_micros(1 + ctx.rng.below(20));
        ctx.effects.push(Effect::Later { after, happening: Happening::Sent(conn) });
    }

    fn errand(&mut self, errand: Errand, ctx: &mut Context<'_>) {
        match errand {
            Errand::Persist { ticket, change } => {
                self.disk.pending.push_back((ticket, change));
                let is_early = self.border.answers_before_disk();
                let result = if self.disk.is_broken && !self.border.hides_disk_errors() {
                    Err(PersistError { message: "write: Input/output error".into() })
                } else {
                    Ok(())
                };
                let now = Duration::from_nanos(ctx.now.as_nanos());
                let taken = Duration::from_nanos(ctx.rng.below(self.disk.delay.as_nanos() as u64));
                let done = (now + taken).max(self.disk.last_done + Duration::from_nanos(1));
                let done = if is_early { now } else { done };
                self.disk.last_done = done.max(self.disk.last_done);
                let happening = Happening::Persisted { ticket, result };
                ctx.effects.push(Effect::Later { after: done.saturating_sub(now), happening });
            }
            Errand::Run { job, .. } => {
                let after = Duration::from_millis(1 + ctx.rng.below(50));
                let happening = Happening::Exited { job, exit: Exit::Code(0) };
                ctx.effects.push(Effect::Later { after, happening });
            }
            Errand::Read { path, .. } => panic!("nobody named {}", path.display()),
            Errand::Kill { .. } => {}
        }
    }

    fn persisted(&mut self, ticket: Ticket, result: &Result<(), PersistError>, rng: &mut Rng) {
        if self.border.answers_before_disk() {
            // What was promised is written when somebody feels like it, perhaps never.
            if self.disk.pending.len() < 4 {
                return;
            }
            if let Some((_, change)) = self.disk.pending.pop_front() {
                self.disk.apply(&change, None);
            }
            return;
        }
        while let Some((done, change)) = self.disk.pending.pop_front() {
            let is_it = done == ticket;
            match result {
                Ok(()) if !self.disk.is_broken => self.disk.apply(&change, None),
                // Nobody knows what the file holds: the old, the new, or a part of it.
                _ => self.disk.apply(&change, Some(rng)),
            }
            if is_it {
                return;
            }
        }
    }
}

impl Disk {
    /// Makes a change; with chance, only as much of it as a crash leaves.
    fn apply(&mut self, change: &Change, cut: Option<&mut Rng>) {
        match change {
            Change::Replace { path, bytes } => {
                // The rename happens or does not.
                if cut.is_none_or(|rng| rng.is_one_in(1, 2)) {
                    self.files.insert(path.clone(), bytes.clone());
                }
            }
            Change::Append { path, at, bytes } => {
                let file = self.files.entry(path.clone()).or_default();
                file.truncate(*at as usize);
                let len = cut.map_or(bytes.len(), |rng| rng.below(bytes.len() as u64 + 1) as usize);
                file.extend_from_slice(&bytes[..len]);
            }
        }
    }
}
