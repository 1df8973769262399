//! What has to become durable, and who waits for it.
//!
//! One write is under way at a time; everything that is learnt meanwhile shares the next one, so
//! that a hundred elections at once cost a few writes.

use std::time::Duration;

use super::clients::ClientKey;
use super::journal::{self, Extent};
use super::setup::Keeping;
use super::{MasterId, Sentinel};
use crate::config::sentinel::{Config, Rewriter};
use crate::id::Ticket;
use crate::io::{Change, Errand, Output, PersistError};
use crate::sentinel::failover::Input;
use crate::sentinel::instance::Epoch;
use crate::time::Instant;

/// How long until a write that failed and that nobody waits for is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Who waits until what was known at a moment is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    /// An epoch or a vote.
    Election(Ticket),
    /// The address that a fail-over gave a master.
    Commit(MasterId, Epoch),
    /// The address that others told of.
    Learnt(MasterId, Epoch),
    /// A client that changed a setting, or wants to know that it could.
    Client(ClientKey),
}

#[derive(Debug)]
struct Writing {
    ticket: Ticket,
    text: String,
    /// How long the file is with it, where it is not replaced each time.
    extent: Option<Extent>,
    covers: Vec<Waiter>,
    since: Instant,
}

/// Keeps what must not be forgotten.
#[derive(Debug)]
pub(super) struct Store {
    keeping: Keeping,
    rewriter: Rewriter,
    is_wanted: bool,
    waiting: Vec<Waiter>,
    writing: Option<Writing>,
    first_ticket: u64,
    last_ticket: u64,
    retry_at: Option<Instant>,
    /// Whether the last write failed, so that nothing is known of the file.
    is_failing: bool,
    /// How much of a file with changes is known to be good; none before the first write.
    extent: Option<Extent>,
    /// How long the last write took.
    took: Duration,
}

impl Store {
    /// Tickets have higher numbers than `first_ticket`.
    pub(super) fn new(keeping: Keeping, first_ticket: u64) -> Self {
        Self {
            keeping,
            rewriter: Rewriter::default(),
            is_wanted: false,
            waiting: Vec::new(),
            writing: None,
            first_ticket,
            last_ticket: first_ticket,
            retry_at: None,
            is_failing: false,
            extent: None,
            took: Duration::ZERO,
        }
    }

    /// Returns how long a write takes, as far as is known: the last one, or the one that is under
    /// way if it takes longer.
    pub(super) fn write_time(&self, now: Instant) -> Duration {
        let under_way = self.writing.as_ref().map(|writing| now.since(writing.since));
        self.took.max(under_way.unwrap_or_default())
    }

    /// Has what is known written, for nobody in particular.
    pub(super) const fn want(&mut self) {
        self.is_wanted = true;
        self.retry_at = None;
    }

    /// Has what is known written, and tells the waiter when it is.
    pub(super) fn want_for(&mut self, waiter: Waiter) {
        self.is_wanted = true;
        self.waiting.push(waiter);
    }

    /// Returns the name of an errand that is somebody else's.
    pub(super) const fn draw_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at <= now)
    }

    pub(super) const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    const fn text(&self) -> &String {
        self.keeping.text()
    }

    /// Returns how the file comes to say `new`: as a whole where it has nothing but that, else by
    /// as little as possible.
    fn change(&self, new: &str) -> (Change, Option<Extent>) {
        match &self.keeping {
            Keeping::InPlace { path, .. } => {
                let (path, bytes) = (path.clone(), new.as_bytes().to_vec());
                (Change::Replace { path, bytes }, None)
            }
            Keeping::Beside { path, text } => {
                let path = path.clone();
                let known = self.extent.filter(|_| !self.is_failing);
                let added = known.and_then(|known| {
                    journal::change(text, new, known).map(|(bytes, extent)| (known, bytes, extent))
                });
                if let Some((known, bytes, extent)) = added {
                    return (Change::Append { path, at: known.length, bytes }, Some(extent));
                }
                let (bytes, extent) = journal::whole(new);
                (Change::Replace { path, bytes }, Some(extent))
            }
        }
    }
}

impl Sentinel {
    /// Begins the next write if one is wanted. Returns whether somebody was answered at once.
    pub(super) fn flush_store(&mut self, now: Instant) -> bool {
        if !self.store.is_wanted || self.store.writing.is_some() {
            return false;
        }
        self.store.is_wanted = false;
        let config: Config = self.snapshot();
        let fast_down = self.masters.values().filter(|master| master.is_fast_down);
        let fast_down = fast_down.map(|master| master.name().clone()).collect();
        let promising = self.masters.values().filter(|master| master.min_copies > 0);
        let copies = promising.map(|m| (m.name().clone(), m.min_copies)).collect();
        let records = self.records();
        let Store { keeping, rewriter, .. } = &mut self.store;
        let text = keeping.rewrite(rewriter, &config, &fast_down, &copies, &records, &self.users);
        let covers = std::mem::take(&mut self.store.waiting);
        // What the file says already is durable already.
        if text == *self.store.text()
            && !self.store.is_failing
            && self.store.last_ticket > self.store.first_ticket
        {
            let is_news = !covers.is_empty();
            self.tell_waiters(now, covers, true);
            return is_news;
        }
        let ticket = self.store.draw_ticket();
        let (change, extent) = self.store.change(&text);
        self.store.writing = Some(Writing { ticket, text, extent, covers, since: now });
        self.out.push_back(Output::Errand(Errand::Persist { ticket, change }));
        false
    }

    /// Takes in what became of a write.
    pub(super) fn persisted(
        &mut self,
        now: Instant,
        ticket: Ticket,
        result: Result<(), PersistError>,
    ) {
        if self.acl_saved(now, ticket, &result) {
            return;
        }
        let Some(writing) = self.store.writing.take_if(|writing| writing.ticket == ticket) else {
            return;
        };
        self.store.took = now.since(writing.since);
        let is_durable = result.is_ok();
        self.store.is_failing = !is_durable;
        match result {
            Ok(()) => {
                self.store.keeping.set_text(writing.text);
                self.store.extent = writing.extent;
                self.note_saved();
            }
            Err(error) => {
                self.note(format!(
                    "WARNING: Sentinel was not able to save the new configuration on disk!!!: {}",
                    error.message
                ));
                self.store.retry_at = Some(now + RETRY);
            }
        }
        self.tell_waiters(now, writing.covers, is_durable);
    }

    fn note_saved(&mut self) {
        let message = "Sentinel new configuration saved on disk".to_owned();
        let loudness = crate::io::Loudness::Notice;
        let event = crate::io::Event::Sentinel { loudness, name: "", message };
        self.out.push_back(Output::Event(event));
    }

    fn tell_waiters(&mut self, now: Instant, covers: Vec<Waiter>, is_durable: bool) {
        for waiter in covers {
            match waiter {
                Waiter::Election(ticket) => {
                    self.elections.handle_persisted(now, ticket, is_durable);
                }
                Waiter::Commit(id, epoch) => self.committed(id, epoch, is_durable),
                Waiter::Learnt(id, epoch) => self.learn(now, id, epoch),
                Waiter::Client(key) => self.client_saved(now, key, is_durable),
            }
        }
    }

    fn committed(&mut self, id: MasterId, epoch: Epoch, is_durable: bool) {
        let Some(master) = self.masters.get(&id) else { return };
        // Of an earlier fail-over otherwise.
        if master.failover.state().chosen().is_some_and(|chosen| chosen.epoch == epoch) {
            let input = if is_durable { Input::Durable } else { Input::NotDurable };
            self.inbox.push_back((id, input));
        }
    }
}
