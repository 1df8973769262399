//! Clients: sessions good and bad, each request recorded, each reply judged.

use std::collections::VecDeque;
use std::time::Duration;

use ringkeeper_core::rng::Rng;

use crate::Check;
use crate::codec::{Bytes, Parsed, Reply, parse_reply};
use crate::memcache::{self, Form};
use crate::net::{Link, Peer, Phase};
use crate::request::{Ask, Asker, Request};
use crate::scenario::{Profile, Verb};
use crate::world::{Event, Stage, World};

/// Unanswered requests of one client above which it sends nothing more.
const PENDING_MAX: usize = 300;

/// Requests that every client must be served well with at the end.
const PROBES: u64 = 12;

/// One connection of a client.
#[derive(Debug)]
struct Session {
    link: usize,
    profile: Profile,
    /// Pipelines that it still sends.
    rounds_left: u64,
    /// Requests without a reply, in order.
    pending: VecDeque<u64>,
    /// How their replies are to be read, and which keys they name.
    forms: VecDeque<(Form, Ask, Vec<Vec<u8>>)>,
    input: Bytes,
    needs: usize,
    is_read_planned: bool,
    /// It has done what gives the machine a right to close: garbage, or its own end of stream.
    has_misbehaved: bool,
    is_half_closed: bool,
    began: u64,
}

impl Session {
    /// Reads the reply of a memcached to the oldest request.
    fn parse_memcache(&self) -> Parsed<Reply> {
        let input = self.input.as_slice();
        match self.forms.front() {
            Some((form, Ask::Verb(verb), keys)) => {
                memcache::parse_reply(input, *form, Some(*verb), keys)
            }
            _ => memcache::parse_reply(input, Form::Line, None, &[]),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    pub pool: usize,
    rng: Rng,
    session: Option<Session>,
    epoch: u64,
    probes_left: u64,
}

impl Client {
    pub(crate) const fn new(pool: usize, rng: Rng) -> Self {
        Self { pool, rng, session: None, epoch: 0, probes_left: 0 }
    }
}

impl World {
    /// Plans when a client acts next; what was planned before is void.
    pub(crate) fn client_plan_wake(&mut self, client: usize, within: Duration) {
        let own = &mut self.clients[client];
        own.epoch += 1;
        let delay = Duration::from_nanos(own.rng.below(within.as_nanos() as u64 + 1));
        let epoch = own.epoch;
        self.agenda.plan(self.now + delay, Event::ClientWake { client, epoch });
    }

    pub(crate) fn client_wake(&mut self, client: usize, epoch: u64) -> Check {
        if self.clients[client].epoch != epoch || self.stage >= Stage::Draining {
            return Ok(());
        }
        let think = match self.stage {
            Stage::Probing => Duration::from_millis(10),
            Stage::Settling => Duration::from_millis(400),
            _ => self.scenario.workload.think_max,
        };
        self.client_plan_wake(client, think);
        let Some(session) = &self.clients[client].session else {
            self.client_connect(client);
            return Ok(());
        };
        let link = session.link;
        let is_waiting = !session.pending.is_empty();
        if self.stage == Stage::Probing {
            self.client_probe(client, is_waiting);
            return Ok(());
        }
        if session.is_half_closed || session.has_misbehaved {
            return Ok(());
        }
        let patient = matches!(session.profile, Profile::Steady | Profile::Slow);
        if session.pending.len() > PENDING_MAX || (is_waiting && patient) {
            return Ok(());
        }
        if session.rounds_left > 0 {
            self.client_send_pipeline(client);
            if self.clients[client].session.as_ref().is_some_and(|session| session.rounds_left > 0)
            {
                return Ok(());
            }
        }
        self.client_end_session(client, link)
    }

    fn client_connect(&mut self, client: usize) {
        self.report.sessions += 1;
        let profiles = &self.scenario.workload.profiles;
        let own = &mut self.clients[client];
        let profile = match self.stage {
            Stage::Safety => profiles[own.rng.below(profiles.len() as u64) as usize],
            _ => Profile::Steady,
        };
        let rounds_left = match (self.stage, own.rng.below(3)) {
            (Stage::Probing, _) => u64::MAX,
            (_, 0) => 1 + own.rng.below(60),
            _ => 1 + own.rng.below(6),
        };
        let link = self.links.len();
        own.session = Some(Session {
            link,
            profile,
            rounds_left,
            pending: VecDeque::new(),
            forms: VecDeque::new(),
            input: Bytes::default(),
            needs: 0,
            is_read_planned: false,
            has_misbehaved: false,
            is_half_closed: false,
            began: self.checker.tick(),
        });
        let pool = own.pool;
        self.links.push(Link::new(&mut self.rng, Peer::Client(client), Phase::Backlog));
        self.note(format!("client {client} connects as {profile:?}"));
        self.wake_runtime(link);
        if let Some(password) = self.scenario.pools[pool].password.clone() {
            self.client_send(client, Request::auth(&password));
        }
    }

    /// Sends one request and records it.
    fn client_send(&mut self, client: usize, request: Request) {
        let seq = self.checker.next_seq(client as u32);
        let asker = self.asker(client, seq);
        let Some(session) = &mut self.clients[client].session else { return };
        let is_silent = request.form == Form::Silent && request.ask != Ask::Torn;
        if !is_silent {
            session.pending.push_back(seq);
            session.forms.push_back((request.form, request.ask, request.keys.clone()));
        }
        let link = session.link;
        self.report.requests += 1;
        let bytes = request.bytes.clone();
        self.checker.sent(self.now, asker, link, request);
        if is_silent {
            // Nobody waits for it; if it takes effect, then once.
            self.checker.lost(client as u32, seq);
        }
        self.peer_send(link, &bytes);
    }

    fn asker(&self, client: usize, seq: u64) -> Asker {
        let pool = self.clients[client].pool;
        let is_memcache = self.scenario.pools[pool].is_memcache;
        Asker { client: client as u32, pool, seq, is_memcache }
    }

    fn client_draw(&mut self, client: usize) -> Request {
        let seq = self.checker.next_seq(client as u32);
        let asker = self.asker(client, seq);
        let own = &mut self.clients[client];
        // What is sent to one who never reads must be his alone, so that it can be counted.
        let is_deaf = own.session.as_ref().is_some_and(|own| own.profile == Profile::Deaf);
        if is_deaf && self.scenario.workload.verbs.contains(&Verb::Echo) {
            return Request::draw_large(&mut own.rng, asker, &self.scenario.workload);
        }
        Request::draw(&mut own.rng, asker, &self.scenario.workload)
    }

    fn client_send_pipeline(&mut self, client: usize) {
        let own = &mut self.clients[client];
        let most = if own.rng.is_one_in(1, 2) { 2 } else { self.scenario.workload.pipeline_max };
        let count = 1 + own.rng.below(most);
        if let Some(session) = &mut own.session {
            session.rounds_left -= 1;
        }
        for _ in 0..count {
            let request = self.client_draw(client);
            self.client_send(client, request);
        }
    }

    fn client_probe(&mut self, client: usize, is_waiting: bool) {
        let left = self.clients[client].probes_left;
        if is_waiting {
            return;
        }
        let count = left.min(1 + self.clients[client].rng.below(5));
        self.clients[client].probes_left -= count;
        for _ in 0..count {
            let request = self.client_draw(client);
            self.client_send(client, request);
        }
        let all_done = self.clients.iter().all(|client| {
            let is_idle = client.session.as_ref().is_some_and(|own| own.pending.is_empty());
            client.probes_left == 0 && is_idle
        });
        if all_done {
            self.agenda.plan(self.now, Event::Stage(Stage::Draining));
        }
    }

    /// All pipelines are sent; what follows is the profile's business.
    fn client_end_session(&mut self, client: usize, link: usize) -> Check {
        let is_memcache = self.scenario.pools[self.clients[client].pool].is_memcache;
        let own = &mut self.clients[client];
        let Some(session) = &mut own.session else { return Ok(()) };
        let is_waiting = !session.pending.is_empty();
        match session.profile {
            Profile::Steady | Profile::Burst | Profile::Slow if is_waiting => Ok(()),
            Profile::Steady | Profile::Burst | Profile::Slow | Profile::Quitter => {
                self.client_leave(client, link);
                Ok(())
            }
            // It stays a while, so that what is sent to it piles up.
            Profile::Deaf if own.rng.is_one_in(7, 8) => Ok(()),
            Profile::Deaf => {
                self.client_leave(client, link);
                Ok(())
            }
            Profile::HalfCloser => {
                session.is_half_closed = true;
                self.note(format!("client {client} half-closes"));
                self.peer_finish(link);
                Ok(())
            }
            Profile::Vandal => {
                session.has_misbehaved = true;
                let request = Request::garbage(&mut own.rng, is_memcache);
                self.note(format!("client {client} sends {}", request.bytes.escape_ascii()));
                self.client_send(client, request);
                Ok(())
            }
            Profile::Torn => {
                let mut request = self.client_draw(client);
                let end = self.rng.below(request.bytes.len() as u64) as usize;
                request.ask = Ask::Torn;
                request.bytes.truncate(end);
                self.client_send(client, request);
                self.note(format!("client {client} tears a request off"));
                // Half of the time the end of the stream follows at once, else what was sent
                // has time to arrive.
                if self.rng.is_one_in(1, 2) {
                    self.client_leave(client, link);
                } else if let Some(session) = &mut self.clients[client].session {
                    session.has_misbehaved = true;
                    session.is_half_closed = true;
                    self.peer_finish(link);
                }
                Ok(())
            }
        }
    }

    /// The client goes away, with or without replies due.
    fn client_leave(&mut self, client: usize, link: usize) {
        self.client_abandon(client);
        if self.clients[client].rng.is_one_in(1, 2) {
            self.peer_close(link);
        } else {
            self.peer_reset(link);
        }
    }

    /// Forgets the session; nobody waits for its replies any more.
    fn client_abandon(&mut self, client: usize) {
        let Some(session) = self.clients[client].session.take() else { return };
        self.note(format!("client {client} is gone, {} replies due", session.pending.len()));
        for seq in session.pending {
            self.checker.lost(client as u32, seq);
        }
        let pause = self.scenario.workload.think_max;
        self.client_plan_wake(client, pause);
    }

    /// A fault broke the client's connection.
    pub(crate) fn client_cut_off(&mut self, link: usize) -> Check {
        if let Peer::Client(client) = self.links[link].peer
            && self.clients[client].session.as_ref().is_some_and(|own| own.link == link)
        {
            self.client_abandon(client);
        }
        Ok(())
    }

    pub(crate) fn client_readable(&mut self, client: usize, link: usize) -> Check {
        let is_broken = self.links[link].outbound.is_reset;
        let own = &mut self.clients[client];
        let Some(session) = own.session.as_mut().filter(|own| own.link == link) else {
            return Ok(());
        };
        match session.profile {
            Profile::Deaf if !is_broken => Ok(()),
            Profile::Slow if !is_broken => {
                if !session.is_read_planned {
                    session.is_read_planned = true;
                    let delay = Duration::from_nanos(own.rng.below(15_000_000));
                    self.agenda.plan(self.now + delay, Event::ClientRead { client, link });
                }
                Ok(())
            }
            _ => self.client_read(client, link, usize::MAX),
        }
    }

    pub(crate) fn client_read_due(&mut self, client: usize, link: usize) -> Check {
        let own = &mut self.clients[client];
        let Some(session) = own.session.as_mut().filter(|own| own.link == link) else {
            return Ok(());
        };
        session.is_read_planned = false;
        let most = 1 + own.rng.below(16 * 1024) as usize;
        self.client_read(client, link, most)?;
        if !self.links[link].outbound.readable.is_empty() {
            return self.client_readable(client, link);
        }
        Ok(())
    }

    /// Reads up to `most` bytes and judges the replies in them.
    fn client_read(&mut self, client: usize, link: usize, most: usize) -> Check {
        let Some(session) = &mut self.clients[client].session else { return Ok(()) };
        let pipe = &self.links[link].outbound;
        let count = pipe.readable.len().min(most);
        session.input.push(&pipe.readable.as_slice()[..count]);
        self.peer_has_read(link, count);
        while let Some(session) = &mut self.clients[client].session {
            if session.input.is_empty() || session.input.len() < session.needs {
                break;
            }
            let pool = self.clients[client].pool;
            let Some(session) = &mut self.clients[client].session else { break };
            let parsed = if self.scenario.pools[pool].is_memcache {
                session.parse_memcache()
            } else {
                parse_reply(session.input.as_slice())
            };
            match parsed {
                Parsed::Whole(reply, taken) => {
                    session.needs = 0;
                    session.input.skip(taken);
                    self.client_reply(client, &reply)?;
                }
                Parsed::Needs(needs) => session.needs = needs,
                Parsed::Broken(why) => {
                    if self.checker.is_tainted_since(session.began) {
                        self.client_leave(client, link);
                        return Ok(());
                    }
                    let head = session.input.as_slice();
                    let head = head[..head.len().min(80)].escape_ascii();
                    return Err(format!("client {client} was sent {why}: {head}"));
                }
            }
        }
        let pipe = &self.links[link].outbound;
        if pipe.is_reset || (pipe.is_ended && pipe.readable.is_empty()) {
            return self.client_closed(client, link);
        }
        Ok(())
    }

    fn client_reply(&mut self, client: usize, reply: &Reply) -> Check {
        let Some(session) = &mut self.clients[client].session else { return Ok(()) };
        session.forms.pop_front();
        let Some(seq) = session.pending.pop_front() else {
            if self.checker.is_tainted_since(session.began) {
                return Ok(());
            }
            return Err(format!("client {client} got {reply:?} for no request"));
        };
        self.checker.reply(client as u32, seq, reply)
    }

    /// The machine closed the connection; had it a right to?
    fn client_closed(&mut self, client: usize, link: usize) -> Check {
        let Some(session) = &self.clients[client].session else { return Ok(()) };
        let due = session.pending.len();
        let profile = session.profile;
        let is_streamed = session.pending.front().is_some_and(|seq| {
            let least = self.scenario.streamed_reply_bytes;
            let may_fail = !self.scenario.faults.is_empty() && self.stage < Stage::Probing;
            may_fail
                && least.is_some_and(|least| self.checker.may_be_long(client as u32, *seq, least))
        });
        let is_excused = session.has_misbehaved
            || is_streamed
            || (session.is_half_closed && due == 0)
            || self.links[link].is_broken_by_fault
            || self.checker.is_tainted_since(session.began)
            || matches!(profile, Profile::Deaf)
            || (profile == Profile::Slow && self.scenario.client_backlog_bytes_max.is_some())
            || (self.scenario.closes_on_failure && self.stage < Stage::Probing)
            || (self.scenario.drains && self.stage == Stage::Draining && due == 0);
        if !is_excused {
            let half = if session.is_half_closed { " half-closed" } else { "" };
            return Err(format!(
                "the{half} {profile:?} client {client} was closed with {due} replies due"
            ));
        }
        self.client_abandon(client);
        self.peer_close(link);
        Ok(())
    }

    /// Servers may be dead, but whoever reads has had an answer in time.
    pub(crate) fn clients_check_timely(&self) -> Check {
        let Some(limit) = self.scenario.reply_within else { return Ok(()) };
        if self.pace.stalled_until + limit > self.now {
            return Ok(());
        }
        self.checker.check_timely(self.now, limit, |link| {
            let end = &self.links[link];
            let Peer::Client(client) = end.peer else { return false };
            let profile = self.clients[client].session.as_ref().map(|own| own.profile);
            end.healed_at + limit < self.now
                && !end.is_cut
                && matches!(profile, Some(Profile::Steady | Profile::Burst | Profile::HalfCloser))
        })
    }

    /// Faults are over: bad sessions end, good ones go on.
    pub(crate) fn clients_calm_down(&mut self) -> Check {
        for client in 0..self.clients.len() {
            let Some(session) = &mut self.clients[client].session else { continue };
            let link = session.link;
            match session.profile {
                Profile::Deaf => self.client_leave(client, link),
                Profile::Vandal | Profile::Torn | Profile::HalfCloser
                    if session.has_misbehaved || session.is_half_closed => {}
                _ => {
                    session.profile = Profile::Steady;
                    self.client_readable(client, link)?;
                }
            }
        }
        Ok(())
    }

    /// Whoever gave the machine a reason to close must have been closed by now.
    pub(crate) fn clients_check_settled(&self) -> Check {
        for (client, own) in self.clients.iter().enumerate() {
            let Some(session) = &own.session else { continue };
            let sent_unserved = session
                .pending
                .front()
                .is_some_and(|seq| self.checker.ask(client as u32, *seq) == Ask::Garbage);
            if session.is_half_closed {
                return Err(format!("the half-closed client {client} was not closed"));
            }
            if session.has_misbehaved && sent_unserved {
                return Err(format!("client {client} sent garbage, got no error, was not closed"));
            }
        }
        Ok(())
    }

    pub(crate) fn clients_start_probing(&mut self) {
        for client in 0..self.clients.len() {
            let own = &mut self.clients[client];
            own.probes_left = PROBES;
            let vandal = own.session.as_ref().filter(|own| own.has_misbehaved).map(|own| own.link);
            if let Some(link) = vandal {
                self.client_leave(client, link);
            }
            self.client_plan_wake(client, Duration::from_millis(20));
        }
    }

    pub(crate) fn clients_check_probed(&self) -> Check {
        for (client, own) in self.clients.iter().enumerate() {
            let due = own.session.as_ref().map_or(0, |session| session.pending.len());
            if own.probes_left > 0 || due > 0 {
                let left = own.probes_left;
                return Err(format!(
                    "client {client} is not served: {due} replies due, {left} requests unsent"
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn clients_leave(&mut self) {
        for client in 0..self.clients.len() {
            if let Some(session) = &self.clients[client].session {
                let link = session.link;
                self.client_leave(client, link);
            }
        }
    }
}
