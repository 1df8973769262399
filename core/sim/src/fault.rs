//! What goes wrong, when, and when it is over.

use std::time::Duration;

use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;

use crate::Check;
use crate::memcache;
use crate::net::{Peer, Phase};
use crate::redis::Mode;
use crate::scenario::{FaultKind, Scenario};
use crate::world::{Event, Stage, World};

/// Replies that are none, each broken at its own place.
const GARBAGE: [&[u8]; 7] = [
    b"?what\r\n",
    b"\x00\x01\x02\x03",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"$3\r\nabcde\r\n",
    b"$-2\r\n",
    b"$99999999999999999999\r\n",
    b"*-7\r\n",
];

/// Replies that break off.
const HALVES: [&[u8]; 4] = [b"$10\r\nabc", b"*3\r\n$1\r\nx\r\n", b"+O", b"$"];

/// Replies that nobody asked for.
const STRAYS: [&[u8]; 4] = [b"+OK\r\n", b"$-1\r\n", b":1\r\n", b"-ERR stray\r\n"];

/// What a server in trouble answers.
const ERRORS: [&str; 5] = [
    "LOADING Redis is loading the dataset in memory",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "BUSY Redis is busy running a script.",
    "READONLY You can't write against a read only replica.",
    "ERR something else",
];

/// What ends a fault.
#[derive(Debug)]
pub(crate) enum Relief {
    Server(usize),
    Link(usize),
}

#[derive(Debug)]
pub(crate) struct Injector {
    kinds: Vec<FaultKind>,
    /// Between two faults, on average.
    pause: Duration,
    /// How long a fault lasts, at most.
    lasting: Duration,
}

impl Injector {
    /// Draws which faults this seed knows: fewer kinds at once reach deeper than all of them.
    pub(crate) fn new(rng: &mut Rng, scenario: &Scenario) -> Self {
        let mut kinds = scenario.faults.clone();
        if rng.is_one_in(3, 4) {
            let rate = 1 + rng.below(3);
            kinds.retain(|_| rng.is_one_in(rate, 4));
        }
        let pause = Duration::from_millis([10, 40, 150, 400][rng.below(4) as usize]);
        let pause = scenario.faults_every.unwrap_or(pause);
        let lasting = Duration::from_millis([5, 60, 500, 1500, 20_000][rng.below(5) as usize]);
        Self { kinds, pause, lasting }
    }
}

impl World {
    pub(crate) fn plan_strike(&mut self) {
        if self.injector.kinds.is_empty() {
            return;
        }
        let most = self.injector.pause.as_nanos() as u64 * 2;
        let at = self.now + Duration::from_nanos(self.rng.below(most));
        self.agenda.plan(at, Event::Strike);
    }

    pub(crate) fn strike(&mut self) -> Check {
        if self.stage != Stage::Safety {
            return Ok(());
        }
        self.plan_strike();
        let kind = self.injector.kinds[self.rng.below(self.injector.kinds.len() as u64) as usize];
        let server = self.rng.below(self.servers.len() as u64) as usize;
        let end = self.now + Duration::from_nanos(self.rng.below(self.lasting_nanos()));
        self.note(format!("!! {kind:?}"));
        self.report.faults += 1;
        match kind {
            FaultKind::Hang | FaultKind::Stop | FaultKind::Blackhole => {
                return self.strike_server(kind, server, end);
            }
            FaultKind::ErrorReplies => {
                self.servers[server].error = Some(ERRORS[self.rng.below(5) as usize]);
                self.agenda.plan(end, Event::Relieve(Relief::Server(server)));
            }
            FaultKind::Sluggish => {
                let delay = Duration::from_nanos(self.rng.below(20_000_000));
                self.servers[server].delay = delay;
                self.agenda.plan(end, Event::Relieve(Relief::Server(server)));
            }
            FaultKind::Stall => self.pace.stalled_until = self.pace.stalled_until.max(end),
            FaultKind::Cut => {
                if let Some(link) = self.pick_link(|_| true) {
                    self.note(format!("   of link {:?}", self.links[link].conn));
                    self.set_cut(link, true)?;
                    self.agenda.plan(end, Event::Relieve(Relief::Link(link)));
                }
            }
            FaultKind::ClientReset => {
                if let Some(link) = self.pick_link(|peer| matches!(peer, Peer::Client(_))) {
                    self.note(format!("   of {:?}", self.links[link].conn));
                    self.links[link].is_broken_by_fault = true;
                    self.peer_reset(link);
                    return self.client_cut_off(link);
                }
            }
            FaultKind::ServerReset
            | FaultKind::ServerClose
            | FaultKind::HalfReply
            | FaultKind::Garbage
            | FaultKind::ExtraReply => self.strike_connection(kind),
        }
        Ok(())
    }

    fn lasting_nanos(&self) -> u64 {
        self.injector.lasting.as_nanos() as u64
    }

    fn strike_server(&mut self, kind: FaultKind, server: usize, end: Instant) -> Check {
        self.note(format!("   of server {}", self.servers[server].endpoint));
        if self.servers[server].mode != Mode::Up {
            return Ok(());
        }
        self.agenda.plan(end, Event::Relieve(Relief::Server(server)));
        match kind {
            FaultKind::Hang => self.servers[server].mode = Mode::Hung,
            FaultKind::Stop => {
                self.servers[server].mode = Mode::Down;
                self.server_drop_all(server);
            }
            _ => {
                self.servers[server].mode = Mode::Blackholed;
                for link in self.servers[server].links() {
                    self.set_cut(link, true)?;
                }
            }
        }
        Ok(())
    }

    /// Draws an open link whose far end fits.
    fn pick_link(&mut self, fits: impl Fn(Peer) -> bool) -> Option<usize> {
        let open: Vec<usize> = self
            .conns
            .values()
            .copied()
            .filter(|link| {
                let end = &self.links[*link];
                end.phase == Phase::Open && end.is_alive() && fits(end.peer)
            })
            .collect();
        if open.is_empty() {
            return None;
        }
        Some(open[self.rng.below(open.len() as u64) as usize])
    }

    fn strike_connection(&mut self, kind: FaultKind) {
        let Some(link) = self.pick_link(|peer| matches!(peer, Peer::Server(_))) else { return };
        let Peer::Server(server) = self.links[link].peer else { return };
        self.note(format!("   of {:?}", self.links[link].conn));
        let is_memcache = self.scenario.pools[self.servers[server].pool].is_memcache;
        let said = |redis: &'static [&[u8]], memcache: &'static [&[u8]], rng: &mut Rng| {
            let all = if is_memcache { memcache } else { redis };
            all[rng.below(all.len() as u64) as usize]
        };
        match kind {
            FaultKind::ServerReset => {
                self.server_forget(server, link);
                self.peer_reset(link);
            }
            FaultKind::ServerClose => {
                self.server_forget(server, link);
                // In order: what was answered before still arrives.
                self.peer_finish(link);
            }
            FaultKind::HalfReply => {
                let half = said(&HALVES, &memcache::HALVES, &mut self.rng);
                self.server_send(link, half, None);
                self.server_forget(server, link);
                self.peer_finish(link);
            }
            FaultKind::Garbage => {
                // It stands between whole replies, where a scanner cannot miss it; the process
                // goes on answering as if nothing had happened.
                let garbage = said(&GARBAGE, &memcache::SERVER_GARBAGE, &mut self.rng);
                self.server_send(link, garbage, None);
            }
            _ => {
                self.taint(link);
                let stray = said(&STRAYS, &memcache::STRAYS, &mut self.rng);
                self.server_send(link, stray, None);
            }
        }
    }

    pub(crate) fn relieve(&mut self, relief: &Relief) -> Check {
        match *relief {
            Relief::Link(link) => {
                if self.links[link].is_cut {
                    self.set_cut(link, false)?;
                }
                Ok(())
            }
            Relief::Server(server) => self.relieve_server(server),
        }
    }

    fn relieve_server(&mut self, server: usize) -> Check {
        let process = &mut self.servers[server];
        process.mode = Mode::Up;
        process.error = None;
        process.delay = Duration::ZERO;
        for link in process.links() {
            self.set_cut(link, false)?;
            self.server_readable(server, link);
        }
        Ok(())
    }

    /// Ends every fault.
    pub(crate) fn heal(&mut self) -> Check {
        for link in 0..self.links.len() {
            if self.links[link].is_cut {
                self.set_cut(link, false)?;
            }
        }
        for server in 0..self.servers.len() {
            self.relieve_server(server)?;
            // Only a new connection can put shifted replies right.
            for link in self.servers[server].links() {
                if self.links[link].is_tainted {
                    self.server_forget(server, link);
                    self.peer_reset(link);
                }
            }
        }
        self.pace.stalled_until = self.now;
        self.plan_turn(self.now);
        Ok(())
    }
}
