//! What follows at once when a thread ends that clients depend on: the virtual routers leave, so
//! that another host has the clients, and the main thread looks around.

use std::cell::RefCell;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use ringkeeper_core::io::{Errand, Event, Host, Notice, Recipient};

use crate::host::routers::Line;
use crate::host::signal;

thread_local! {
    /// The calling thread's own.
    static MINE: RefCell<Option<Arc<Alarm>>> = const { RefCell::new(None) };
}

/// Who is told when a thread ends unasked.
#[derive(Default)]
pub(crate) struct Alarm {
    /// The way to the virtual routers; none: they are not told.
    line: Option<Line>,
    /// Nobody is to be told, or everybody has been.
    is_silent: AtomicBool,
    has_ended: AtomicBool,
}

impl Alarm {
    /// Makes one for a thread without which clients of this host are not served.
    pub(crate) fn new(line: Option<Line>) -> Arc<Self> {
        Arc::new(Self { line, ..Self::default() })
    }

    /// Tells whether the thread has ended. It is told before the main thread is called, so whoever
    /// looks then finds it.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Makes its end no reason to tell anybody; to be called before the thread is asked to end.
    pub(crate) fn expect_end(&self) {
        self.is_silent.store(true, Ordering::Release);
    }

    /// Does the calling thread's work, and tells of its end, also if it panics.
    pub(crate) fn run<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        watch_panics();
        let _farewell = Farewell(Arc::clone(self));
        MINE.with(|mine| mine.replace(Some(Arc::clone(self))));
        work()
    }

    /// Has the virtual routers leave.
    fn ring(&self) {
        if !self.is_silent.swap(true, Ordering::AcqRel)
            && let Some(line) = &self.line
        {
            line.leave();
        }
    }

    /// The same in the middle of anything, also of telling the virtual routers something else: then
    /// it is left to [`ring`](Self::ring).
    fn ring_if_possible(&self) {
        if !self.is_silent.load(Ordering::Acquire)
            && self.line.as_ref().is_some_and(Line::try_leave)
        {
            self.is_silent.store(true, Ordering::Release);
        }
    }
}

struct Farewell(Arc<Alarm>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let Self(alarm) = self;
        alarm.ring();
        alarm.has_ended.store(true, Ordering::Release);
        signal::call_for_attention();
    }
}

/// Has panics ring the alarm before they are reported, which may take long, and before what the
/// thread has is closed.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let mine = MINE.try_with(|mine| mine.try_borrow().ok()?.clone());
            if let Ok(Some(alarm)) = mine {
                alarm.ring_if_possible();
            }
            report(panic);
        }));
    });
}

/// A host that tells of the end of its thread when it is dropped: a runtime that fails does so
/// before it closes its connections, of which there may be thousands.
pub(crate) struct Watched<H> {
    host: H,
    alarm: Arc<Alarm>,
}

impl<H> Watched<H> {
    /// Wraps what the thread's worker has for a host.
    pub(crate) const fn new(host: H, alarm: Arc<Alarm>) -> Self {
        Self { host, alarm }
    }
}

impl<H> Drop for Watched<H> {
    fn drop(&mut self) {
        self.alarm.ring();
    }
}

impl<H: Host> Host for Watched<H> {
    fn event(&mut self, event: Event) {
        self.host.event(event);
    }

    fn errand(&mut self, errand: Errand) {
        self.host.errand(errand);
    }

    fn notice(&mut self, to: Recipient, notice: Notice) {
        self.host.notice(to, notice);
    }
}
