//! Which server gets the next connection. The rules are those of Linux' IPVS; what IPVS calls
//! inactive connections does not exist here, because a connection that is over is gone.

use std::net::{IpAddr, SocketAddr};

use crate::config::keepalived::Scheduler;
use crate::limits;
use crate::rng::Rng;

/// A server as a scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub address: SocketAddr,
    /// Its weight; at 0 it gets nothing.
    pub weight: u32,
    /// Its connections.
    pub connections: u32,
    /// Whether it is up: hashes are laid out over these.
    pub is_up: bool,
    /// Whether it may be chosen now. False for one that is full or did not take this client.
    pub is_free: bool,
}

impl Candidate {
    const fn is_usable(&self) -> bool {
        self.is_up && self.is_free && self.weight > 0
    }
}

/// A scheduler and where it stands.
#[derive(Clone, Debug)]
pub struct Picker {
    scheduler: Scheduler,
    hashes_port: bool,
    falls_back: bool,
    /// The server chosen last; none at first.
    last: Option<usize>,
    /// The weight that a server must have in this round.
    current: u32,
    /// Places of servers by hash; empty while it has to be laid out again.
    table: Vec<usize>,
}

/// What a client is known by.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Where it comes from.
    pub client: SocketAddr,
    /// The address that it called.
    pub called: SocketAddr,
}

impl Picker {
    /// Makes one at its start.
    pub const fn new(scheduler: Scheduler, hashes_port: bool, falls_back: bool) -> Self {
        Self { scheduler, hashes_port, falls_back, last: None, current: 0, table: Vec::new() }
    }

    /// Notes that servers or weights have changed.
    pub fn forget_layout(&mut self) {
        self.table.clear();
    }

    /// Chooses a server's place; none if nobody can take the client.
    pub fn pick(&mut self, servers: &[Candidate], caller: &Caller, rng: &mut Rng) -> Option<usize> {
        let overhead = |one: &Candidate| u64::from(one.connections);
        match self.scheduler {
            Scheduler::RoundRobin => self.round_robin(servers),
            Scheduler::WeightedRoundRobin => self.weighted_round_robin(servers),
            Scheduler::LeastConnection => {
                best(servers, |one, other| overhead(one) < overhead(other))
            }
            Scheduler::WeightedLeastConnection => best(servers, |one, other| {
                is_less((overhead(one), one.weight), (overhead(other), other.weight))
            }),
            Scheduler::ShortestExpectedDelay => shortest_delay(servers),
            Scheduler::NeverQueue => servers
                .iter()
                .position(|one| one.is_usable() && one.connections == 0)
                .or_else(|| shortest_delay(servers)),
            Scheduler::FailOver => best(servers, |one, other| one.weight > other.weight),
            Scheduler::Overflow => overflow(servers),
            Scheduler::TwoChoices => two_choices(servers, rng),
            Scheduler::SourceHash => {
                let port = if self.hashes_port { caller.client.port() } else { 0 };
                self.hashed(servers, caller.client.ip(), port)
            }
            Scheduler::DestinationHash => self.hashed(servers, caller.called.ip(), 0),
            Scheduler::Maglev => {
                let port = if self.hashes_port { caller.client.port() } else { 0 };
                self.maglev(servers, caller.client.ip(), port)
            }
        }
    }

    fn round_robin(&mut self, servers: &[Candidate]) -> Option<usize> {
        let start = self.last.map_or(0, |last| last + 1);
        let order = (start..servers.len()).chain(0..start.min(servers.len()));
        let chosen = order.into_iter().find(|&place| is_usable(servers, place))?;
        self.last = Some(chosen);
        Some(chosen)
    }

    /// The classic of IPVS: rounds in which a server needs a weight that falls from the largest
    /// by the greatest common divisor.
    fn weighted_round_robin(&mut self, servers: &[Candidate]) -> Option<usize> {
        let weights = || servers.iter().filter(|one| one.is_usable()).map(|one| one.weight);
        let largest = weights().max()?;
        let step = weights().fold(0, common_divisor).max(1);
        // Each round visits every server once, and the last round takes every usable one.
        let rounds = largest / step + 1;
        let steps = u64::from(rounds) * (servers.len() as u64 + 1);
        for _ in 0..=steps {
            let place = self.last.map_or(0, |last| last + 1);
            let place = if place >= servers.len() { 0 } else { place };
            if place == 0 {
                self.current =
                    self.current.checked_sub(step).filter(|left| *left > 0).unwrap_or(largest);
            }
            self.last = Some(place);
            if servers.get(place).is_some_and(|one| one.is_usable() && one.weight >= self.current) {
                return Some(place);
            }
        }
        None
    }

    fn hashed(&mut self, servers: &[Candidate], ip: IpAddr, port: u16) -> Option<usize> {
        if self.table.is_empty() {
            let is_weighted = self.scheduler == Scheduler::SourceHash;
            self.table = lay_out_in_turn(servers, is_weighted);
        }
        let start = place_of(ip, port);
        self.walk(servers, start)
    }

    fn maglev(&mut self, servers: &[Candidate], ip: IpAddr, port: u16) -> Option<usize> {
        if self.table.is_empty() {
            self.table = lay_out_by_maglev(servers);
        }
        let hash = mix(folded(ip), u64::from(port));
        let places = limits::MAGLEV_PLACES as u64;
        self.walk(servers, usize::try_from(hash % places).unwrap_or(0))
    }

    /// Takes the server of a place, or the next one that can if that is allowed. One that did not
    /// take the client is passed over always.
    fn walk(&self, servers: &[Candidate], start: usize) -> Option<usize> {
        let chosen = *self.table.get(start)?;
        if is_usable(servers, chosen) {
            return Some(chosen);
        }
        if !self.falls_back {
            return None;
        }
        let order = (start..self.table.len()).chain(0..start);
        order
            .filter_map(|place| self.table.get(place).copied())
            .find(|&one| is_usable(servers, one))
    }

    /// Chooses somebody else for a client that its server did not take.
    pub fn pick_again(
        &mut self,
        servers: &[Candidate],
        caller: &Caller,
        rng: &mut Rng,
    ) -> Option<usize> {
        let falls_back = std::mem::replace(&mut self.falls_back, true);
        let chosen = self.pick(servers, caller, rng);
        self.falls_back = falls_back;
        chosen
    }
}

fn is_usable(servers: &[Candidate], place: usize) -> bool {
    servers.get(place).is_some_and(Candidate::is_usable)
}

/// Returns the usable server that no other is better than; the first of equals.
fn best(
    servers: &[Candidate],
    is_better: impl Fn(&Candidate, &Candidate) -> bool,
) -> Option<usize> {
    let mut chosen: Option<(usize, &Candidate)> = None;
    for (place, one) in servers.iter().enumerate().filter(|(_, one)| one.is_usable()) {
        if chosen.is_none_or(|(_, other)| is_better(one, other)) {
            chosen = Some((place, one));
        }
    }
    chosen.map(|(place, _)| place)
}

/// Compares connections for their weight without dividing.
fn is_less(one: (u64, u32), other: (u64, u32)) -> bool {
    one.0.saturating_mul(u64::from(other.1)) < other.0.saturating_mul(u64::from(one.1))
}

fn shortest_delay(servers: &[Candidate]) -> Option<usize> {
    let delay = |one: &Candidate| (u64::from(one.connections) + 1, one.weight);
    best(servers, |one, other| is_less(delay(one), delay(other)))
}

fn overflow(servers: &[Candidate]) -> Option<usize> {
    let has_room = |one: &Candidate| one.connections < one.weight;
    let mut chosen: Option<(usize, u32)> = None;
    for (place, one) in servers.iter().enumerate() {
        let fits = one.is_usable() && has_room(one);
        if fits && chosen.is_none_or(|(_, weight)| one.weight > weight) {
            chosen = Some((place, one.weight));
        }
    }
    chosen.map(|(place, _)| place)
}

/// Draws two servers by weight and takes the one with fewer connections for its weight.
fn two_choices(servers: &[Candidate], rng: &mut Rng) -> Option<usize> {
    let total: u64 =
        servers.iter().filter(|one| one.is_usable()).map(|one| u64::from(one.weight)).sum();
    if total == 0 {
        return None;
    }
    let mut draw = || {
        let mut left = rng.below(total);
        servers.iter().enumerate().filter(|(_, one)| one.is_usable()).find(|(_, one)| {
            let weight = u64::from(one.weight);
            let is_it = left < weight;
            left = left.saturating_sub(weight);
            is_it
        })
    };
    let (first, second) = (draw()?, draw()?);
    let load = |one: &Candidate| (u64::from(one.connections), one.weight);
    Some(if is_less(load(second.1), load(first.1)) { second.0 } else { first.0 })
}

const fn common_divisor(one: u32, other: u32) -> u32 {
    let (mut one, mut other) = (one, other);
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// Fills the table of `sh` (each server takes as many places in a row as its weight) and `dh` (one
/// place each).
fn lay_out_in_turn(servers: &[Candidate], is_weighted: bool) -> Vec<usize> {
    let turn = servers.iter().enumerate().filter(|(_, one)| one.is_up && one.weight > 0);
    let turn = turn.flat_map(|(place, one)| {
        let times = if is_weighted { one.weight as usize } else { 1 };
        std::iter::repeat_n(place, times.min(limits::HASH_TABLE_PLACES))
    });
    // `cycle` over nobody ends at once.
    turn.cycle().take(limits::HASH_TABLE_PLACES).collect()
}

/// Fills the table of `mh`: every server has an order of its own in which it would like the places,
/// and they take turns. Source: Eisenbud et al., "Maglev", NSDI 2016, section 3.4.
fn lay_out_by_maglev(servers: &[Candidate]) -> Vec<usize> {
    struct Taker {
        place: usize,
        next: u64,
        skip: u64,
        turns: u32,
    }
    let places = limits::MAGLEV_PLACES as u64;
    let up = || servers.iter().enumerate().filter(|(_, one)| one.is_up && one.weight > 0);
    let step = up().map(|(_, one)| one.weight).fold(0, common_divisor).max(1);
    let mut takers: Vec<Taker> = up()
        .map(|(place, one)| {
            let (ip, port) = (folded(one.address.ip()), u64::from(one.address.port()));
            let next = mix(ip, port) % places;
            let skip = mix(ip ^ SECOND, port) % (places - 1) + 1;
            Taker { place, next, skip, turns: one.weight / step }
        })
        .collect();
    if takers.is_empty() {
        return Vec::new();
    }
    let mut table = vec![usize::MAX; limits::MAGLEV_PLACES];
    let mut left = limits::MAGLEV_PLACES;
    loop {
        for taker in &mut takers {
            for _ in 0..taker.turns {
                // The skip and the number of places have no common divisor, so a free one is found.
                while let Some(place) =
                    usize::try_from(taker.next).ok().and_then(|at| table.get_mut(at))
                {
                    taker.next = (taker.next + taker.skip) % places;
                    if *place == usize::MAX {
                        *place = taker.place;
                        break;
                    }
                }
                left -= 1;
                if left == 0 {
                    return table;
                }
            }
        }
    }
}

const SECOND: u64 = 0x9e37_79b9_7f4a_7c15;

fn folded(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            let halves = [bits >> 64, bits & u128::from(u64::MAX)];
            halves
                .into_iter()
                .filter_map(|half| u64::try_from(half).ok())
                .fold(0, |sum, half| sum ^ half.rotate_left(17))
        }
    }
}

/// Mixes two words: the finish of SplitMix64.
const fn mix(one: u64, other: u64) -> u64 {
    let mut mixed = one ^ other.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ 0x2545_f491_4f6c_dd1d;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Returns the place of an address in a table of 256. As IPVS: 32-bit words of the address are
/// folded, the port is added, and the high bits of the product with the golden ratio are taken.
fn place_of(ip: IpAddr, port: u16) -> usize {
    let folded = match ip {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => {
            let words = ip.octets();
            let (words, _) = words.as_chunks::<4>();
            words.iter().fold(0, |sum, word| sum ^ u32::from_be_bytes(*word))
        }
    };
    let hash = folded.wrapping_add(u32::from(port)).wrapping_mul(0x61c8_8647);
    (hash >> 24) as usize
}

const _: () = assert!(limits::HASH_TABLE_PLACES == 256);

#[cfg(test)]
mod tests;
