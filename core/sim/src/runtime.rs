//! The runtime's side of the border, played against the machine: batches of any size, writes
//! that finish late, reads after a pause, deadlines that fire late or early. And the machine's
//! side of the contract, checked output by output.

use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_core::id::ConnId;
use ringkeeper_core::io::{CloseMode, CloseReason, Drive, Endpoint, Event as Told, Input, Output};
use ringkeeper_core::io::{Deadline, ResolveError};
use ringkeeper_core::limits::{BATCH_MAX, READS_IN_FLIGHT, RECEIVE_BYTES_MAX};
use ringkeeper_core::time::Instant;

use crate::Check;
use crate::net::{Link, Peer, Phase, Write};
use crate::trace::Line;
use crate::world::{Event, Stage, World};

/// Outputs of one turn; more is a machine that never comes to rest.
const OUTPUTS_MAX: usize = 1 << 20;

/// Turns without input and output at one moment; more is a busy loop.
const IDLE_TURNS_MAX: u32 = 8;

/// Longest connect timeout that makes sense.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// Where the runtime keeps count of itself.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When the runtime wakes, if at all.
    pub next_turn: Option<Instant>,
    /// The runtime does not run before this.
    pub stalled_until: Instant,
    idle_turns: u32,
    idle_at: Instant,
    /// Questions to the resolver whose answer is under way.
    pub answers: Vec<(ringkeeper_core::id::QueryId, String, u16)>,
}

impl World {
    /// Something about `link` may interest the machine.
    pub(crate) fn wake_runtime(&mut self, link: usize) {
        if self.links[link].phase == Phase::Closed {
            return;
        }
        self.ready.insert(link);
        let delay = match self.rng.below(8) {
            0 => self.rng.below(400_000),
            _ => self.rng.below(8_000),
        };
        self.plan_turn(self.now + Duration::from_nanos(delay));
    }

    pub(crate) fn plan_turn(&mut self, at: Instant) {
        let at = at.max(self.pace.stalled_until).max(self.now);
        if self.pace.next_turn.is_none_or(|planned| at < planned) {
            self.pace.next_turn = Some(at);
            self.agenda.plan(at, Event::Turn);
        }
    }

    /// One turn: inputs, timers, outputs, deadline.
    pub(crate) fn turn<D: Drive>(&mut self, machine: &mut D) -> Check {
        if self.pace.next_turn != Some(self.now) {
            return Ok(());
        }
        self.pace.next_turn = None;
        if self.now < self.pace.stalled_until {
            self.plan_turn(self.pace.stalled_until);
            return Ok(());
        }
        self.report.turns += 1;
        if self.rng.is_one_in(1, 32) {
            // A new machine may have something to say already.
            self.take_outputs(machine)?;
            self.call_early(machine)?;
        }
        let inputs = self.hand_over(machine)?;
        if machine.poll_timeout().is_some_and(|deadline| deadline.at <= self.now) {
            machine.handle_timeout(self.now);
        }
        let outputs = self.take_outputs(machine)?;
        self.check_backlogs()?;
        self.report.inputs += inputs as u64;
        self.report.outputs += outputs as u64;
        let deadline = machine.poll_timeout();
        if inputs + outputs > 0 || self.pace.idle_at != self.now {
            self.pace.idle_turns = 0;
            self.pace.idle_at = self.now;
        } else {
            self.pace.idle_turns += 1;
        }
        self.sleep(deadline)
    }

    fn sleep(&mut self, deadline: Option<Deadline>) -> Check {
        if !self.ready.is_empty() {
            let delay = Duration::from_nanos(self.rng.below(20_000));
            self.plan_turn(self.now + delay);
        }
        let Some(deadline) = deadline else { return Ok(()) };
        if deadline.at <= self.now && self.pace.idle_turns > IDLE_TURNS_MAX {
            return Err(format!("busy loop: the deadline of '{}' never passes", deadline.why));
        }
        // Timers fire late, never early.
        let late = match self.rng.below(8) {
            0 => self.rng.below(2_000_000),
            _ => 0,
        };
        let late = if deadline.at <= self.now { 0 } else { late };
        self.plan_turn(deadline.at + Duration::from_nanos(late));
        Ok(())
    }

    /// A call of `handle_timeout` before its time must do nothing.
    fn call_early<D: Drive>(&mut self, machine: &mut D) -> Check {
        if machine.poll_timeout().is_some_and(|deadline| deadline.at <= self.now) {
            return Ok(());
        }
        machine.handle_timeout(self.now);
        match machine.poll_output() {
            None => Ok(()),
            Some(output) => Err(format!("an early handle_timeout made {output:?}")),
        }
    }

    fn hand_over<D: Drive>(&mut self, machine: &mut D) -> Result<usize, String> {
        let most = match self.rng.below(4) {
            0 => 1,
            1 => 1 + self.rng.below(8) as usize,
            _ => BATCH_MAX,
        };
        let mut inputs = 0;
        let answers = std::mem::take(&mut self.pace.answers);
        for (query, host, port) in answers {
            let known = self.scenario.hosts.iter().filter(|(name, _)| *name == host);
            let addresses: Vec<_> = known.map(|(_, address)| (*address, port).into()).collect();
            let may_fail = self.stage == Stage::Safety && !self.scenario.faults.is_empty();
            let result = if may_fail && self.rng.is_one_in(1, 8) {
                Err(ResolveError::Temporary)
            } else if addresses.is_empty() {
                Err(ResolveError::NotFound)
            } else {
                Ok(addresses)
            };
            machine.handle(self.now, Input::Resolved { query, result });
            inputs += 1;
        }
        if let Some(command) = self.command.take() {
            machine.handle(self.now, Input::Command(command));
            inputs += 1;
        }
        let mut ready: Vec<usize> = self.ready.iter().copied().collect();
        while inputs < most && !ready.is_empty() {
            let pick = self.rng.below(ready.len() as u64) as usize;
            if self.deliver(machine, ready[pick])? {
                inputs += 1;
            } else {
                self.ready.remove(&ready[pick]);
                ready.swap_remove(pick);
            }
        }
        Ok(inputs)
    }

    /// Hands one input of `link` over; `false` when it has none.
    fn deliver<D: Drive>(&mut self, machine: &mut D, link: usize) -> Result<bool, String> {
        match self.links[link].phase {
            Phase::Backlog => return self.deliver_accept(machine, link),
            Phase::Connecting | Phase::Closed => return Ok(false),
            Phase::Connected(Ok(())) => {
                self.links[link].phase = Phase::Open;
                let conn = self.conn(link)?;
                self.trace.push(self.now, Line::Border("> connected", conn, 0));
                machine.handle(self.now, Input::Connected { conn, local: None });
                return Ok(true);
            }
            Phase::Connected(Err(reason)) => {
                return self.deliver_closed(machine, link, reason).map(|()| true);
            }
            Phase::Open | Phase::Closing(_) => {}
        }
        let end = &self.links[link];
        let is_sent = end.write.as_ref().is_some_and(|write| write.is_reportable);
        let is_over = match end.phase {
            Phase::Closing(CloseMode::Abort) => true,
            Phase::Closing(CloseMode::Flush) => end.write.is_none() || is_sent,
            _ => false,
        };
        let is_reset = end.inbound.is_reset;
        if is_reset && self.rng.is_one_in(1, 2) {
            return self.deliver_closed(machine, link, CloseReason::Reset).map(|()| true);
        }
        if is_over && self.rng.is_one_in(1, 2) {
            return self.deliver_closed(machine, link, CloseReason::Requested).map(|()| true);
        }
        if is_sent && self.rng.is_one_in(1, 2) {
            self.deliver_sent(machine, link)?;
            return Ok(true);
        }
        if self.deliver_read(machine, link)? {
            return Ok(true);
        }
        if is_sent {
            self.deliver_sent(machine, link)?;
            return Ok(true);
        }
        if is_reset {
            return self.deliver_closed(machine, link, CloseReason::Reset).map(|()| true);
        }
        if is_over {
            return self.deliver_closed(machine, link, CloseReason::Requested).map(|()| true);
        }
        Ok(false)
    }

    fn conn(&self, link: usize) -> Result<ConnId, String> {
        self.links[link].conn.ok_or_else(|| format!("link {link} has no name"))
    }

    fn deliver_accept<D: Drive>(&mut self, machine: &mut D, link: usize) -> Result<bool, String> {
        let Peer::Client(client) = self.links[link].peer else {
            return Err("a server in the backlog".into());
        };
        let pool = self.clients[client].pool;
        let address = ([192, 168, 0, 1], 20_000 + (link % 40_000) as u16).into();
        let listener = self.scenario.pools[pool].listener;
        match machine.accept(self.now, listener, Endpoint::Tcp(address)) {
            Ok(conn) if conn.is_server() => Err(format!("accept issued the server name {conn:?}")),
            Ok(conn) => {
                self.trace.push(self.now, Line::Border("> accept", conn, 0));
                self.name(link, conn)?;
                self.links[link].phase = Phase::Open;
                Ok(true)
            }
            Err(_) => {
                self.trace.push(self.now, Line::Note(format!("client {client} refused")));
                if self.stage < Stage::Draining {
                    return Err(format!("client {client} was refused with few clients connected"));
                }
                self.machine_close(link, CloseMode::Abort);
                self.links[link].phase = Phase::Closed;
                Ok(true)
            }
        }
    }

    /// Records a name that the machine issued; its slot must be free.
    fn name(&mut self, link: usize, conn: ConnId) -> Check {
        if let Some(holder) = self.slots.get(&conn.slot()) {
            return Err(format!("{conn:?} was issued while {holder:?} has the slot"));
        }
        if self.names_used.contains(&conn) {
            return Err(format!("{conn:?} was issued twice"));
        }
        self.names_used.insert(conn);
        self.slots.insert(conn.slot(), conn);
        self.conns.insert(conn, link);
        self.links[link].conn = Some(conn);
        Ok(())
    }

    fn deliver_closed<D: Drive>(
        &mut self,
        machine: &mut D,
        link: usize,
        reason: CloseReason,
    ) -> Check {
        let conn = self.conn(link)?;
        self.trace.push(self.now, Line::Note(format!("> closed {conn:?} {reason:?}")));
        self.untaint(link);
        self.slots.remove(&conn.slot());
        self.conns.remove(&conn);
        let end = &mut self.links[link];
        end.phase = Phase::Closed;
        end.write = None;
        end.inbound.readable.clear();
        machine.handle(self.now, Input::Closed { conn, reason });
        Ok(())
    }

    fn deliver_sent<D: Drive>(&mut self, machine: &mut D, link: usize) -> Check {
        let conn = self.conn(link)?;
        let Some(write) = self.links[link].write.take() else { return Ok(()) };
        self.trace.push(self.now, Line::Border("> sent", conn, write.buffer.len()));
        machine.handle(self.now, Input::Sent { conn, buffer: write.buffer });
        Ok(())
    }

    /// Hands over bytes or the end of the stream.
    fn deliver_read<D: Drive>(&mut self, machine: &mut D, link: usize) -> Result<bool, String> {
        let conn = self.conn(link)?;
        let end = &mut self.links[link];
        if end.paused == Some(0) || end.is_eof_told {
            return Ok(false);
        }
        if end.inbound.is_reset && self.rng.is_one_in(1, 2) {
            // A reset throws away what was not read.
            end.inbound.readable.clear();
        }
        let available = end.inbound.readable.len();
        if available == 0 {
            if !end.inbound.is_ended || end.inbound.is_reset {
                return Ok(false);
            }
            end.is_eof_told = true;
            self.trace.push(self.now, Line::Border("> eof", conn, 0));
            machine.handle(self.now, Input::Eof { conn });
            return Ok(true);
        }
        if let Some(left) = &mut end.paused {
            *left -= 1;
        }
        let grain = end.read_grain;
        // Crumbs of a large value would make a run of nothing else.
        let least = available / 256;
        let len = grain.cut(&mut self.rng, available).max(least).min(RECEIVE_BYTES_MAX);
        let bytes = end.inbound.readable.as_slice()[..len].to_vec();
        end.inbound.readable.skip(len);
        self.trace.push(self.now, Line::Border("> received", conn, len));
        machine.handle(self.now, Input::Received { conn, bytes: &bytes });
        self.attribute(link, len);
        self.pump_peer(link);
        Ok(true)
    }

    fn take_outputs<D: Drive>(&mut self, machine: &mut D) -> Result<usize, String> {
        for count in 0..OUTPUTS_MAX {
            let Some(output) = machine.poll_output() else { return Ok(count) };
            self.apply(output)?;
        }
        Err(format!("more than {OUTPUTS_MAX} outputs in one turn"))
    }

    /// Looks up the link that an output names; it must be open and not being closed.
    fn open_link(&self, conn: ConnId, verb: &str) -> Result<usize, String> {
        let Some(link) = self.conns.get(&conn).copied() else {
            return Err(format!("{verb} for {conn:?}, which does not exist"));
        };
        match self.links[link].phase {
            Phase::Closing(_) => Err(format!("{verb} for {conn:?} after Close")),
            _ => Ok(link),
        }
    }

    fn apply(&mut self, output: Output) -> Check {
        match output {
            Output::Connect { conn, source: Some(source), .. } => {
                Err(format!("{conn:?} is to come from {source}"))
            }
            Output::Connect { conn, endpoint, timeout, source: None } => {
                self.connect(conn, endpoint, timeout)
            }
            Output::Transmit { conn, buffer } => self.transmit(conn, buffer),
            Output::PauseRead(conn) => {
                self.trace.push(self.now, Line::Border("< pause", conn, 0));
                let link = self.open_link(conn, "PauseRead")?;
                if self.links[link].paused.is_some() {
                    return Err(format!("PauseRead for {conn:?}, which is paused"));
                }
                let more = match self.rng.below(3) {
                    0 => 0,
                    1 => self.rng.below(3) as usize,
                    _ => READS_IN_FLIGHT,
                };
                self.links[link].paused = Some(more);
                Ok(())
            }
            Output::ResumeRead(conn) => {
                self.trace.push(self.now, Line::Border("< resume", conn, 0));
                let link = self.open_link(conn, "ResumeRead")?;
                if self.links[link].paused.take().is_none() {
                    return Err(format!("ResumeRead for {conn:?}, which is not paused"));
                }
                self.wake_runtime(link);
                Ok(())
            }
            Output::Close { conn, mode } => self.close(conn, mode),
            Output::Release { conn, .. } => Err(format!("{conn:?} is given away unasked")),
            Output::EndWrite(conn) => Err(format!("the proxy closes no half of {conn:?}")),
            Output::Resolve { query, host, port } => {
                self.trace.push(self.now, Line::Note(format!("< resolve {host}:{port}")));
                let delay = Duration::from_nanos(self.rng.below(30_000_000));
                self.agenda.plan(self.now + delay, Event::Answer { query, host, port });
                Ok(())
            }
            Output::Event(event) => self.told(&event),
            Output::Errand(errand) => Err(format!("the proxy has no errands, but gave {errand:?}")),
            Output::Notice { notice, .. } => Err(format!("the only worker told {notice:?}")),
            Output::OpenChannel { .. } | Output::CloseChannel(_) | Output::Datagram { .. } => {
                panic!("the proxy has no channels")
            }
        }
    }

    /// An event for the operator: only the end of a drain is the simulator's business.
    fn told(&mut self, event: &Told) -> Check {
        if *event != Told::Drained {
            return Ok(());
        }
        if self.stage != Stage::Draining {
            return Err("Drained without a Drain".into());
        }
        if let Some(client) = self.conns.keys().find(|conn| !conn.is_server()) {
            return Err(format!("Drained, but {client:?} is there"));
        }
        self.is_drained = true;
        Ok(())
    }

    fn close(&mut self, conn: ConnId, mode: CloseMode) -> Check {
        self.trace.push(self.now, Line::Note(format!("< close {conn:?} {mode:?}")));
        let Some(link) = self.conns.get(&conn).copied() else {
            return Err(format!("Close for {conn:?}, which does not exist"));
        };
        match (self.links[link].phase, mode) {
            // A flush that takes too long may be cut short.
            (Phase::Closing(CloseMode::Flush), CloseMode::Abort) => {}
            (Phase::Closing(_), _) => return Err(format!("Close for {conn:?} twice")),
            _ => {}
        }
        self.untaint(link);
        let was_open = !matches!(self.links[link].phase, Phase::Connecting);
        self.links[link].phase = Phase::Closing(mode);
        if was_open {
            self.machine_close(link, mode);
        }
        let delay = Duration::from_nanos(self.rng.below(300_000));
        self.agenda.plan(self.now + delay, Event::Notice { link });
        Ok(())
    }

    fn transmit(&mut self, conn: ConnId, buffer: Vec<u8>) -> Check {
        self.trace.push(self.now, Line::Border("< transmit", conn, buffer.len()));
        let link = self.open_link(conn, "Transmit")?;
        if buffer.is_empty() {
            return Err(format!("an empty Transmit for {conn:?}"));
        }
        let end = &mut self.links[link];
        if end.phase != Phase::Open {
            return Err(format!("Transmit for {conn:?} before Connected"));
        }
        if end.write.is_some() {
            return Err(format!("two writes in flight for {conn:?}"));
        }
        self.report.transmit_bytes_max = self.report.transmit_bytes_max.max(buffer.len());
        if buffer.len() > self.scenario.transmit_bytes_max {
            return Err(format!("a Transmit of {} bytes for {conn:?}", buffer.len()));
        }
        end.write = Some(Write { buffer, taken: 0, is_reportable: false });
        self.pump_machine(link);
        Ok(())
    }

    fn connect(&mut self, conn: ConnId, endpoint: Endpoint, timeout: Duration) -> Check {
        self.trace.push(self.now, Line::Note(format!("< connect {conn:?} {endpoint}")));
        if !conn.is_server() {
            return Err(format!("Connect issued the client name {conn:?}"));
        }
        if timeout.is_zero() || timeout > CONNECT_TIMEOUT_MAX {
            return Err(format!("a connect timeout of {timeout:?}"));
        }
        let server = self.servers.iter().position(|server| server.endpoint == endpoint);
        let is_known = |address: &SocketAddr| {
            self.scenario.hosts.iter().any(|(_, known)| *known == address.ip())
        };
        let is_dead_end = matches!(&endpoint, Endpoint::Tcp(address) if is_known(address));
        let (server, result) = match server {
            Some(server) => (server, self.server_answers_connect(server)),
            // Nobody listens there, so whose end it is does not matter.
            None if is_dead_end => (0, Err(CloseReason::Refused)),
            None => return Err(format!("Connect to {endpoint}, where nobody is configured")),
        };
        let link = self.links.len();
        self.links.push(Link::new(&mut self.rng, Peer::Server(server), Phase::Connecting));
        self.name(link, conn)?;
        let delay = match result {
            Err(CloseReason::ConnectTimedOut) => timeout,
            _ => Duration::from_nanos(20_000 + self.rng.below(2_000_000)).min(timeout),
        };
        self.agenda.plan(self.now + delay, Event::ConnectDone { link, result });
        Ok(())
    }
}
