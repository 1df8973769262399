//! A model Redis server: enough commands to judge a proxy, every effect logged, every way to
//! fail.

use std::collections::BTreeMap;
use std::time::Duration;

use ringkeeper_core::io::{CloseReason, Endpoint};

use crate::Check;
use crate::checker::{Change, Digest, synthetic_value};
use crate::codec::{Bytes, Parsed, Reply, encode_reply, parse_request};
use crate::memcache;
use crate::net::Phase;
use crate::world::{Event, World};

/// What the server does about its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Up,
    /// The kernel accepts, the process does not run.
    Hung,
    /// Connecting is refused.
    Down,
    /// Silence.
    Blackholed,
}

/// A connection as the server sees it.
#[derive(Debug, Default)]
struct Session {
    input: Bytes,
    needs: usize,
    database: u32,
    is_authenticated: bool,
    is_read_planned: bool,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub pool: usize,
    pub endpoint: Endpoint,
    pub mode: Mode,
    /// What every other command that touches data is answered with.
    pub error: Option<&'static str>,
    /// Time that each read takes.
    pub delay: Duration,
    sessions: BTreeMap<usize, Session>,
    databases: BTreeMap<u32, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Server {
    pub(crate) const fn new(pool: usize, endpoint: Endpoint) -> Self {
        Self {
            pool,
            endpoint,
            mode: Mode::Up,
            error: None,
            delay: Duration::ZERO,
            sessions: BTreeMap::new(),
            databases: BTreeMap::new(),
        }
    }

    /// Returns the links that are connected to it.
    pub(crate) fn links(&self) -> Vec<usize> {
        self.sessions.keys().copied().collect()
    }
}

fn status(text: &str) -> Reply {
    Reply::Status(text.as_bytes().to_vec())
}

fn error(text: &str) -> Reply {
    Reply::Error(text.as_bytes().to_vec())
}

fn integer(count: usize) -> Reply {
    Reply::Integer(count as i64)
}

impl World {
    /// Tells how an attempt to connect to `server` ends.
    pub(crate) fn server_answers_connect(&self, server: usize) -> Result<(), CloseReason> {
        match self.servers[server].mode {
            Mode::Up | Mode::Hung => Ok(()),
            Mode::Down => Err(CloseReason::Refused),
            Mode::Blackholed => Err(CloseReason::ConnectTimedOut),
        }
    }

    /// The handshake is over; the server died meanwhile or has a new connection.
    pub(crate) fn server_connected(&mut self, link: usize) {
        let crate::net::Peer::Server(server) = self.links[link].peer else { return };
        if self.links[link].phase != Phase::Connected(Ok(())) {
            return;
        }
        if self.servers[server].mode == Mode::Down {
            self.links[link].phase = Phase::Connected(Err(CloseReason::Refused));
            return;
        }
        self.links[link].is_cut = self.servers[server].mode == Mode::Blackholed;
        self.servers[server].sessions.insert(link, Session::default());
    }

    pub(crate) fn server_readable(&mut self, server: usize, link: usize) {
        let process = &mut self.servers[server];
        let delay = process.delay;
        let Some(session) = process.sessions.get_mut(&link) else { return };
        if session.is_read_planned {
            return;
        }
        session.is_read_planned = true;
        let delay = delay + Duration::from_nanos(self.rng.below(60_000));
        self.agenda.plan(self.now + delay, Event::ServerRead { server, link });
    }

    pub(crate) fn server_read(&mut self, server: usize, link: usize) -> Check {
        let process = &mut self.servers[server];
        let Some(session) = process.sessions.get_mut(&link) else { return Ok(()) };
        session.is_read_planned = false;
        if process.mode != Mode::Up {
            return Ok(());
        }
        let pipe = &mut self.links[link].outbound;
        let mut input = std::mem::take(&mut session.input);
        // What the process has not read may be lost in a reset, or may have been read just before.
        if !pipe.is_reset || self.rng.is_one_in(1, 2) {
            input.push(pipe.readable.as_slice());
        }
        let count = pipe.readable.len();
        self.peer_has_read(link, count);
        let most = if self.servers[server].delay.is_zero() { 1 + self.rng.below(64) } else { 2 };
        let is_more = self.server_work(server, link, &mut input, most)?;
        if let Some(session) = self.servers[server].sessions.get_mut(&link) {
            session.input = input;
        }
        let pipe = &self.links[link].outbound;
        let is_over = pipe.is_ended || pipe.is_reset;
        if is_more || !pipe.readable.is_empty() {
            self.server_readable(server, link);
        } else if is_over {
            self.server_forget(server, link);
            self.peer_close(link);
        }
        Ok(())
    }

    /// Executes up to `most` requests; tells whether there may be more.
    fn server_work(
        &mut self,
        server: usize,
        link: usize,
        input: &mut Bytes,
        most: u64,
    ) -> Result<bool, String> {
        let mut out = Vec::new();
        let mut is_more = true;
        for _ in 0..most {
            let Some(session) = self.servers[server].sessions.get_mut(&link) else {
                return Ok(false);
            };
            if input.is_empty() || input.len() < session.needs {
                is_more = false;
                break;
            }
            session.needs = 0;
            let is_memcache = self.scenario.pools[self.servers[server].pool].is_memcache;
            let parsed = if is_memcache {
                memcache::parse_request(input.as_slice())
            } else {
                parse_request(input.as_slice())
            };
            match parsed {
                Parsed::Whole(words, taken) => {
                    input.skip(taken);
                    let before = out.len();
                    if is_memcache {
                        self.server_memcache(server, &words, &mut out)?;
                    } else {
                        let reply = self.server_execute(server, link, &words)?;
                        encode_reply(&reply, &mut out);
                    }
                    let client = words.get(1).and_then(|key| self.checker.waiting_link(key));
                    self.links[link].meant_for.push_back((client, out.len() - before));
                }
                Parsed::Needs(needs) => {
                    if let Some(session) = self.servers[server].sessions.get_mut(&link) {
                        session.needs = needs;
                    }
                    is_more = false;
                    break;
                }
                Parsed::Broken(why) => {
                    let head = input.as_slice();
                    let head = head[..head.len().min(80)].escape_ascii();
                    return Err(format!("a server was sent {why}: {head}"));
                }
            }
        }
        if !out.is_empty() {
            self.peer_send(link, &out);
        }
        Ok(is_more)
    }

    fn server_execute(&mut self, server: usize, link: usize, words: &[Vec<u8>]) -> Check<Reply> {
        let name = words[0].to_ascii_uppercase();
        let process = &mut self.servers[server];
        let plan = &self.scenario.pools[process.pool];
        let Some(session) = process.sessions.get_mut(&link) else { return Ok(error("ERR gone")) };
        match (name.as_slice(), &words[1..]) {
            (b"AUTH", [password]) => {
                session.is_authenticated = plan.password.as_ref() == Some(password);
                return Ok(match &plan.password {
                    None => error("ERR AUTH called without any password configured"),
                    Some(_) if session.is_authenticated => status("OK"),
                    Some(_) => error("WRONGPASS invalid username-password pair"),
                });
            }
            _ if plan.password.is_some() && !session.is_authenticated => {
                return Ok(error("NOAUTH Authentication required."));
            }
            (b"PING", []) => return Ok(status("PONG")),
            (b"PING" | b"ECHO", [word]) => return Ok(Reply::Bulk(Some(word.clone()))),
            (b"SELECT", [number]) => {
                let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
                let Some(number) = number else { return Ok(error("ERR invalid DB index")) };
                session.database = number;
                return Ok(status("OK"));
            }
            // What a proxy may ask a server for its own sake; a real one answers in earnest.
            (b"HELLO" | b"CLIENT" | b"INFO" | b"ROLE" | b"READONLY", _) => {
                return Ok(error("ERR unknown command"));
            }
            _ => {}
        }
        if session.database != plan.database {
            let name = name.escape_ascii();
            return Err(format!("{name} reached database {}", session.database));
        }
        if let Some(text) = process.error
            && self.rng.is_one_in(1, 2)
        {
            return Ok(error(text));
        }
        self.server_data(server, &name, &words[1..])
    }

    pub(crate) fn server_data(
        &mut self,
        server: usize,
        name: &[u8],
        words: &[Vec<u8>],
    ) -> Check<Reply> {
        let pool = self.servers[server].pool;
        let number = self.scenario.pools[pool].database;
        let store = self.servers[server].databases.entry(number).or_default();
        let log = &mut self.checker;
        let mut effect = |key: &[u8], change: Change<'_>| log.effect(server, pool, key, &change);
        let read = |store: &BTreeMap<Vec<u8>, Vec<u8>>, key: &[u8]| {
            synthetic_value(key).or_else(|| store.get(key).cloned())
        };
        Ok(match (name, words) {
            (b"GET", [key]) => {
                effect(key, Change::Read)?;
                Reply::Bulk(read(store, key))
            }
            (b"MGET", [_, ..]) => {
                let mut items = Vec::new();
                for key in words {
                    effect(key, Change::Read)?;
                    items.push(Reply::Bulk(read(store, key)));
                }
                Reply::Array(Some(items))
            }
            (b"STRLEN", [key]) => {
                effect(key, Change::Read)?;
                integer(store.get(key).map_or(0, Vec::len))
            }
            (b"EXISTS" | b"TOUCH", [_, ..]) => {
                let mut count = 0;
                for key in words {
                    effect(key, Change::Read)?;
                    count += usize::from(store.contains_key(key));
                }
                integer(count)
            }
            (b"DEL" | b"UNLINK", [_, ..]) => {
                let mut count = 0;
                for key in words {
                    let existed = store.remove(key).is_some();
                    effect(key, Change::Removed { existed })?;
                    count += usize::from(existed);
                }
                integer(count)
            }
            (b"SET" | b"MSET", [_, _, ..]) if words.len().is_multiple_of(2) => {
                for pair in words.chunks(2) {
                    let after = Digest::of(&pair[1]);
                    store.insert(pair[0].clone(), pair[1].clone());
                    effect(&pair[0], Change::Wrote { argument: &pair[1], after })?;
                }
                status("OK")
            }
            (b"APPEND", [key, value]) => {
                let stored = store.entry(key.clone()).or_default();
                stored.extend_from_slice(value);
                let after = Digest::of(stored);
                effect(key, Change::Wrote { argument: value, after })?;
                integer(after.len)
            }
            (b"INCR", [key]) => {
                let stored = store.entry(key.clone()).or_default();
                let text = std::str::from_utf8(stored).unwrap_or("");
                let count = text.parse::<i64>().unwrap_or(0) + 1;
                *stored = count.to_string().into_bytes();
                effect(key, Change::Counted(count))?;
                Reply::Integer(count)
            }
            _ => {
                let name = name.escape_ascii();
                return Err(format!("a server was sent {name} with {} words", words.len()));
            }
        })
    }

    /// Forgets a connection from the server's side.
    pub(crate) fn server_forget(&mut self, server: usize, link: usize) {
        self.servers[server].sessions.remove(&link);
    }

    /// Marks a connection as one whose replies may be anybody's: one too many shifts them.
    pub(crate) fn taint(&mut self, link: usize) {
        if !self.links[link].is_tainted {
            self.links[link].is_tainted = true;
            self.checker.taint_begins();
        }
    }

    /// The machine takes no more replies from this connection.
    pub(crate) fn untaint(&mut self, link: usize) {
        if self.links[link].is_tainted {
            self.links[link].is_tainted = false;
            self.checker.taint_ends();
        }
    }

    /// Ends every connection of a server, each in its own way.
    pub(crate) fn server_drop_all(&mut self, server: usize) {
        for link in self.servers[server].links() {
            self.server_forget(server, link);
            if self.rng.is_one_in(1, 2) {
                self.peer_reset(link);
            } else {
                self.peer_close(link);
            }
        }
    }
}
