//! Clients that go on in another process, or come from one.
//!
//! A client leaves when nothing is under way for it: it is no longer read, what was read is
//! answered, and what is left of it, the beginning of a request and what the connection has been
//! told, is its [`ClientState`].

use std::time::Duration;

use crate::id::{ConnId, ListenerId};
use crate::io::{AtCapacity, Output, Parcel};
use crate::proxy::Proxy;
use crate::proxy::client::{Client, Phase};
use crate::proxy::figures::Ticks;
use crate::proxy::plan::ListenerRole;
use crate::proxy::shared::{Shared, Timer};
use crate::slab::SlabKey;
use crate::stats::Peer;
use crate::time::Instant;
use crate::wire::memcache;

/// What a client's connection has besides its socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientState {
    /// The pool's name.
    pub pool: String,
    /// The name given by `CLIENT SETNAME`.
    pub name: Option<Vec<u8>>,
    /// Who is at its other end.
    pub peer: Peer,
    /// What `CLIENT ID` says.
    pub number: u64,
    /// How long it has been here.
    pub age: Duration,
    /// How long it has said nothing.
    pub idle: Duration,
    /// It has asked for RESP3.
    pub is_resp3: bool,
    /// It has given the password, if there is one.
    pub is_authenticated: bool,
    /// Bytes still to come of a memcached client's value that was refused.
    pub skips: Option<u64>,
    /// Received and not yet served: the beginning of a request.
    pub input: Vec<u8>,
}

/// Tells the form of [`ClientState::encode`] from others: another release may have another.
const FORM: u8 = 3;

const RESP3: u8 = 1;
const AUTHENTICATED: u8 = 2;
const NAMED: u8 = 4;
const SKIPS: u8 = 8;

impl ClientState {
    /// Writes the state for another process.
    pub fn encode(&self) -> Vec<u8> {
        let mut flags = 0;
        for (is_set, flag) in [
            (self.is_resp3, RESP3),
            (self.is_authenticated, AUTHENTICATED),
            (self.name.is_some(), NAMED),
            (self.skips.is_some(), SKIPS),
        ] {
            if is_set {
                flags |= flag;
            }
        }
        let mut bytes = vec![FORM, flags];
        let peer = self.peer.to_string();
        let name = self.name.as_deref().unwrap_or_default();
        for part in [self.pool.as_bytes(), name, peer.as_bytes()] {
            // None is longer than a line of a configuration or a command.
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(part);
        }
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (age, idle) = (nanos(self.age), nanos(self.idle));
        for number in [self.number, age, idle, self.skips.unwrap_or(0)] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.input);
        bytes
    }

    /// Reads what [`ClientState::encode`] wrote; none if it did not.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let ([form, flags], mut rest) = bytes.split_first_chunk()?;
        if *form != FORM {
            return None;
        }
        let mut part = || {
            let (len, after) = rest.split_first_chunk()?;
            let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
            let (part, after) = after.split_at_checked(len)?;
            rest = after;
            Some(part)
        };
        let pool = String::from_utf8(part()?.to_vec()).ok()?;
        let name = part()?.to_vec();
        let peer = std::str::from_utf8(part()?).ok()?;
        let mut number = || {
            let (number, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u64::from_be_bytes(*number))
        };
        let (client, age, idle, skips) = (number()?, number()?, number()?, number()?);
        Some(Self {
            pool,
            peer: peer.parse().map_or(Peer::Unix, |address| Peer::tcp(&address)),
            number: client,
            age: Duration::from_nanos(age),
            idle: Duration::from_nanos(idle),
            skips: (flags & SKIPS != 0).then_some(skips),
            name: (flags & NAMED != 0).then_some(name),
            is_resp3: flags & RESP3 != 0,
            is_authenticated: flags & AUTHENTICATED != 0,
            input: rest.to_vec(),
        })
    }
}

impl Proxy {
    /// Gives every client away as soon as nothing is under way for it; those that are not ready
    /// within `limit` are cut off.
    pub(crate) fn hand_over(&mut self, limit: Duration) {
        self.shared.is_draining = true;
        self.shared.timers.arm(self.shared.now + limit, Timer::DrainLimit);
        let keys: Vec<SlabKey> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(client) = self.clients.get_mut(key) else { continue };
            // Who has said its last word is answered here.
            if client.phase != Phase::Open || client.is_at_eof {
                continue;
            }
            client.is_leaving = true;
            self.shared.pause(client);
            self.shared.mark_ready(client);
        }
        self.say_if_drained();
    }

    /// Goes on with a client of another process.
    ///
    /// # Errors
    ///
    /// [`AtCapacity`] when the listener's pool is gone, full or draining.
    pub fn adopt(
        &mut self,
        now: Instant,
        on: ListenerId,
        state: &ClientState,
    ) -> Result<ConnId, AtCapacity> {
        self.shared.now = now;
        let role = self.shared.plan.listeners.get(usize::from(on.0)).copied();
        let Some(ListenerRole::Pool(pool)) = role else { return Err(AtCapacity) };
        if self.shared.is_draining {
            return Err(AtCapacity);
        }
        let conn = self.accept_client(pool, state.peer.clone())?;
        let Some(client) = self.clients.get_mut(super::key_of(conn)) else {
            return Err(AtCapacity);
        };
        client.is_authenticated |= state.is_authenticated;
        client.is_resp3 = state.is_resp3;
        client.name = state.name.clone().map(Vec::into_boxed_slice);
        client.number = state.number;
        client.came_at = Ticks::ago(now, state.age);
        client.heard_at = Ticks::ago(now, state.idle);
        if let Some(left) = state.skips {
            client.memcache = memcache::RequestScanner::skipping(left);
        }
        client.keep(&state.input, &mut self.shared.buffers);
        self.shared.count(client);
        self.shared.mark_ready(client);
        Ok(conn)
    }
}

impl Shared {
    /// Returns the next number of a client: unique over the workers, the past, and the processes
    /// before this one. 48 bits are left for those of one process.
    pub(super) fn next_client_number(&self) -> u64 {
        let workers = u64::from(self.plan.workers.max(1));
        let own = self.connections_made * workers + u64::from(self.id.0) + 1;
        u64::from(self.plan.predecessors & 0x7fff) << 48 | own
    }

    /// Gives a client away if it is to go and nothing is under way for it.
    pub(crate) fn release_if_settled(&mut self, client: &mut Client) {
        let is_ready = client.is_leaving && client.phase == Phase::Open && !client.is_at_eof;
        if !is_ready || client.is_blocked || !client.is_settled() {
            return;
        }
        let state = ClientState {
            pool: self.pool_name(client.pool).to_string(),
            name: client.name.as_deref().map(<[u8]>::to_vec),
            peer: client.peer.clone(),
            number: client.number,
            age: client.came_at.since(self.now),
            idle: client.heard_at.since(self.now),
            skips: client.memcache.skips(),
            is_resp3: client.is_resp3,
            is_authenticated: client.is_authenticated,
            input: client.waiting_input().to_vec(),
        };
        client.phase = Phase::Closing;
        // Its end is not a failure.
        client.is_at_eof = true;
        let conn = client.id;
        self.outbox.push(Output::Release { conn, state: Parcel::new(std::sync::Arc::new(state)) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_the_way_and_a_mangled_one_is_refused() {
        let states = [
            ClientState::default(),
            ClientState {
                pool: "alpha".into(),
                name: Some(b"me".to_vec()),
                peer: Peer::tcp(&([10, 1, 2, 3], 4000).into()),
                number: 4711,
                age: Duration::from_secs(60),
                idle: Duration::from_millis(1500),
                is_resp3: true,
                is_authenticated: true,
                skips: Some(7),
                input: b"*2\r\n$3\r\nGE".to_vec(),
            },
        ];
        for state in states {
            let bytes = state.encode();
            assert_eq!(ClientState::decode(&bytes), Some(state.clone()));
            let shortest = bytes.len() - state.input.len();
            for len in 0..shortest {
                assert_eq!(ClientState::decode(&bytes[..len]), None);
            }
        }
        assert_eq!(ClientState::decode(&[9, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
