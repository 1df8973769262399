//! Every state that every key had, on every server, and when.

use std::collections::BTreeMap;

use crate::Check;
use crate::checker::value::Digest;
use crate::scenario::Scenario;

/// What a command did to a key.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    Read,
    Wrote { argument: &'a [u8], after: Digest },
    Removed { existed: bool },
    Counted(i64),
}

/// The states of one key on one server, each with the tick at which it began.
#[derive(Debug, Default)]
struct States {
    server: usize,
    begun: Vec<(u64, Option<Digest>)>,
}

#[derive(Debug, Default)]
struct History {
    last_touch: u64,
    /// One entry unless a server was ejected.
    servers: Vec<States>,
    counts: Vec<(u64, i64)>,
}

#[derive(Debug)]
pub(crate) struct Histories {
    keys: BTreeMap<Vec<u8>, History>,
    ejects: Vec<bool>,
    /// Keys may live on several servers, so counters may give a count twice.
    pub may_repeat: bool,
}

impl Histories {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let ejects: Vec<bool> = scenario.pools.iter().map(|pool| pool.ejects).collect();
        let may_repeat = ejects.contains(&true);
        Self { keys: BTreeMap::new(), ejects, may_repeat }
    }

    /// Records what a server did; the key must belong to its pool and to no other server.
    pub(crate) fn effect(
        &mut self,
        tick: u64,
        server: usize,
        pool: usize,
        key: &[u8],
        change: &Change<'_>,
    ) -> Check {
        if !belongs(pool, key) {
            return Err(format!("key {} reached pool {pool}", key.escape_ascii()));
        }
        let history = match self.keys.get_mut(key) {
            Some(history) => history,
            None => self.keys.entry(key.to_vec()).or_default(),
        };
        history.last_touch = tick;
        let known = history.servers.iter().position(|states| states.server == server);
        let place = match known {
            Some(place) => place,
            None if history.servers.is_empty() || self.ejects[pool] => {
                history.servers.push(States { server, begun: Vec::new() });
                history.servers.len() - 1
            }
            None => {
                let key = key.escape_ascii();
                return Err(format!("key {key} went to server {server} and to another one"));
            }
        };
        let begun = &mut history.servers[place].begun;
        match change {
            Change::Read | Change::Removed { existed: false } => {}
            Change::Wrote { after, .. } => begun.push((tick, Some(*after))),
            Change::Removed { existed: true } => begun.push((tick, None)),
            Change::Counted(count) => {
                history.counts.push((tick, *count));
                begun.push((tick, Some(Digest::of(count.to_string().as_bytes()))));
            }
        }
        Ok(())
    }

    /// A successful reply needs a server that was asked.
    pub(crate) fn check_touched(&self, pool: usize, key: &[u8], sent: u64) -> Check {
        debug_assert!(belongs(pool, key), "clients use the keys of their pool");
        if self.keys.get(key).is_some_and(|history| history.last_touch > sent) {
            return Ok(());
        }
        Err(format!("no server was asked for key {}", key.escape_ascii()))
    }

    /// Looks for a state of the key that `fits`, from the tick `low` (by server) to `high`.
    pub(crate) fn find(
        &self,
        key: &[u8],
        low: &impl Fn(usize) -> u64,
        high: u64,
        fits: impl Fn(Option<Digest>) -> bool,
    ) -> Option<()> {
        let Some(history) = self.keys.get(key) else { return fits(None).then_some(()) };
        for states in &history.servers {
            let low = low(states.server);
            let first = states.begun.partition_point(|(tick, _)| *tick <= low);
            let before = first.checked_sub(1).and_then(|last| states.begun[last].1);
            let within = states.begun[first..].iter().take_while(|(tick, _)| *tick <= high);
            if fits(before) || within.into_iter().any(|(_, state)| fits(*state)) {
                return Some(());
            }
        }
        None
    }

    /// Returns the length of the longest value that the key ever had.
    pub(crate) fn longest(&self, key: &[u8]) -> usize {
        let states = self.keys.get(key).map_or(&[][..], |history| &history.servers);
        let all = states.iter().flat_map(|states| &states.begun);
        all.filter_map(|(_, state)| state.map(|digest| digest.len)).max().unwrap_or(0)
    }

    /// Tells whether a counter reached `count` between two ticks.
    pub(crate) fn counted(&self, key: &[u8], count: i64, low: u64, high: u64) -> bool {
        self.keys.get(key).is_some_and(|history| {
            let first = history.counts.partition_point(|(tick, _)| *tick <= low);
            history.counts[first..]
                .iter()
                .take_while(|(tick, _)| *tick <= high)
                .any(|(_, reached)| *reached == count)
        })
    }
}

/// Keys are a letter, the number of the pool, a colon and the rest.
fn belongs(pool: usize, key: &[u8]) -> bool {
    let Some(colon) = key.iter().position(|byte| *byte == b':') else { return false };
    let number = key.get(1..colon).and_then(|digits| std::str::from_utf8(digits).ok());
    number.and_then(|digits| digits.parse().ok()) == Some(pool)
}
