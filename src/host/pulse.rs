//! What other threads see of a worker: that it turns, and how many clients it has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{AtCapacity, Deadline, Drive, Endpoint, Input, Output, Parcel};
use ringkeeper_core::time::Instant as WorkerInstant;

use crate::host::runtime::Sender;

/// How long a worker that has something to do may not turn before it is reported. A turn takes
/// microseconds, building the ring of a thousand servers some milliseconds.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// How often the main thread looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What one worker shows. The worker alone writes `turns`.
#[derive(Debug)]
pub(crate) struct Pulse {
    turns: AtomicU64,
    is_stalled: AtomicBool,
    clients: Mutex<BTreeMap<ListenerId, u32>>,
    /// How many it takes in all.
    clients_max: AtomicU32,
}

impl Pulse {
    /// Shows a worker that takes this many clients.
    pub(crate) const fn new(clients_max: u32) -> Self {
        Self {
            turns: AtomicU64::new(0),
            is_stalled: AtomicBool::new(false),
            clients: Mutex::new(BTreeMap::new()),
            clients_max: AtomicU32::new(clients_max),
        }
    }

    /// Sets how many clients it takes.
    pub(crate) fn set_clients_max(&self, most: u32) {
        self.clients_max.store(most, Ordering::Relaxed);
    }

    /// Tells whether it would refuse another client, with those that are on their way to it.
    pub(crate) fn is_full(&self) -> bool {
        self.clients().values().sum::<u32>() >= self.clients_max.load(Ordering::Relaxed)
    }

    /// Tells whether the worker has been found not to turn.
    pub(crate) fn is_stalled(&self) -> bool {
        self.is_stalled.load(Ordering::Relaxed)
    }

    /// Returns how many clients of a listener it has, and how many in all.
    pub(crate) fn load(&self, listener: ListenerId) -> (u32, u32) {
        let clients = self.clients();
        (clients.get(&listener).copied().unwrap_or(0), clients.values().sum())
    }

    /// Counts a client that the worker is about to get.
    pub(crate) fn add(&self, listener: ListenerId) {
        *self.clients().entry(listener).or_insert(0) += 1;
    }

    /// Counts a client off.
    pub(crate) fn remove(&self, listener: ListenerId) {
        let mut clients = self.clients();
        let Some(count) = clients.get_mut(&listener) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            clients.remove(&listener);
        }
    }

    // Locked when a client comes or goes, never for a request.
    fn clients(&self) -> MutexGuard<'_, BTreeMap<ListenerId, u32>> {
        // No foreign code runs under the lock, so a poisoned one holds a sound value.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker that shows its pulse.
pub(crate) struct Shown<D> {
    drive: D,
    pulse: Arc<Pulse>,
    /// Where each client came from, by the index of its name; kept only if somebody else counts
    /// the clients in.
    origins: Option<Vec<ListenerId>>,
}

impl<D> Shown<D> {
    /// Wraps a worker; with `is_given_clients` its clients come from an acceptor, which counts
    /// them in.
    pub(crate) fn new(drive: D, pulse: Arc<Pulse>, is_given_clients: bool) -> Self {
        Self { drive, pulse, origins: is_given_clients.then(Vec::new) }
    }

    fn note_origin(&mut self, conn: ConnId, from: ListenerId) {
        let Some(origins) = &mut self.origins else { return };
        let at = conn.index() as usize;
        if origins.len() <= at {
            origins.resize(at + 1, from);
        }
        if let Some(origin) = origins.get_mut(at) {
            *origin = from;
        }
    }

    fn count_off(&self, conn: ConnId) {
        let origins = self.origins.as_ref();
        if let Some(origin) = origins.and_then(|origins| origins.get(conn.index() as usize)) {
            self.pulse.remove(*origin);
        }
    }
}

impl<D: Drive> Drive for Shown<D> {
    fn accept(
        &mut self,
        now: WorkerInstant,
        on: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        let result = self.drive.accept(now, on, peer);
        match &result {
            Ok(conn) => self.note_origin(*conn, on),
            Err(AtCapacity) if self.origins.is_some() => self.pulse.remove(on),
            Err(AtCapacity) => {}
        }
        result
    }

    fn adopt(
        &mut self,
        now: WorkerInstant,
        on: ListenerId,
        state: &Parcel,
    ) -> Result<ConnId, AtCapacity> {
        let result = self.drive.adopt(now, on, state);
        match &result {
            Ok(conn) => self.note_origin(*conn, on),
            Err(AtCapacity) if self.origins.is_some() => self.pulse.remove(on),
            Err(AtCapacity) => {}
        }
        result
    }

    #[inline]
    fn handle(&mut self, now: WorkerInstant, input: Input<'_>) {
        if let Input::Closed { conn, .. } | Input::Released { conn } = &input
            && !conn.is_server()
        {
            self.count_off(*conn);
        }
        self.drive.handle(now, input);
    }

    fn handle_timeout(&mut self, now: WorkerInstant) {
        self.drive.handle_timeout(now);
    }

    #[inline]
    fn poll_output(&mut self) -> Option<Output> {
        self.drive.poll_output()
    }

    /// Every turn ends with this question.
    #[inline]
    fn poll_timeout(&self) -> Option<Deadline> {
        // Nobody else writes it, so that no locked instruction is needed.
        let turns = self.pulse.turns.load(Ordering::Relaxed);
        self.pulse.turns.store(turns.wrapping_add(1), Ordering::Relaxed);
        self.drive.poll_timeout()
    }
}

/// Watches one worker's pulse.
#[derive(Debug)]
pub(crate) struct Watch {
    pulse: Arc<Pulse>,
    turns: u64,
    /// When the worker was last seen to have turned.
    turned_at: Instant,
}

/// What a look at a worker tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It turns, or has not been quiet for long.
    Well,
    /// It has begun to be late by this much; said once.
    Stalled(Duration),
    /// It turns again, after this long; said once.
    Recovered(Duration),
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn new(pulse: Arc<Pulse>, now: Instant) -> Self {
        Self { pulse, turns: 0, turned_at: now }
    }

    /// Returns what is watched.
    pub(crate) const fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Looks, and gives the worker something to do, so that quiet means stalled the next time.
    pub(crate) fn look(&mut self, now: Instant, worker: &Sender) -> Finding {
        let finding = self.judge(now);
        worker.nudge();
        finding
    }

    /// Tells whether the worker was found not to turn.
    pub(crate) fn is_stalled(&self) -> bool {
        self.pulse.is_stalled()
    }

    fn judge(&mut self, now: Instant) -> Finding {
        let turns = self.pulse.turns.load(Ordering::Relaxed);
        let late = now.saturating_duration_since(self.turned_at);
        if turns != self.turns {
            self.turns = turns;
            self.turned_at = now;
            return if self.pulse.is_stalled.swap(false, Ordering::Relaxed) {
                Finding::Recovered(late)
            } else {
                Finding::Well
            };
        }
        if late >= STALLED_AFTER && !self.pulse.is_stalled.swap(true, Ordering::Relaxed) {
            return Finding::Stalled(late);
        }
        Finding::Well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_told_once_and_so_is_its_end() {
        let pulse = Arc::new(Pulse::new(u32::MAX));
        let start = Instant::now();
        let mut watch = Watch::new(Arc::clone(&pulse), start);
        pulse.turns.store(1, Ordering::Relaxed);
        assert_eq!(watch.judge(start), Finding::Well);
        let second = Duration::from_secs(1);
        assert_eq!(watch.judge(start + second), Finding::Well);
        assert_eq!(watch.judge(start + 2 * second), Finding::Stalled(2 * second));
        assert!(pulse.is_stalled());
        assert_eq!(watch.judge(start + 3 * second), Finding::Well);
        pulse.turns.store(2, Ordering::Relaxed);
        assert_eq!(watch.judge(start + 4 * second), Finding::Recovered(4 * second));
        assert!(!pulse.is_stalled());
        assert_eq!(watch.judge(start + 5 * second), Finding::Well);
    }

    #[test]
    fn clients_are_counted_by_listener() {
        let pulse = Pulse::new(3);
        let (one, two) = (ListenerId(1), ListenerId(2));
        pulse.add(one);
        pulse.add(one);
        pulse.add(two);
        assert_eq!(pulse.load(one), (2, 3));
        assert!(pulse.is_full());
        pulse.remove(one);
        pulse.remove(two);
        pulse.remove(two);
        assert_eq!(pulse.load(one), (1, 1));
        assert!(!pulse.is_full());
        assert_eq!(pulse.load(two), (0, 1));
    }
}
