//! What may make progress, and the queue of what other threads and tasks have for the worker.
//!
//! Each waker only writes its source down and, if the queue was empty, wakes the driver. A source
//! may be in the queue twice or in vain; whoever takes it looks again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use ringkeeper_core::id::ChannelId;

/// What may make progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The connection in this slot, whoever holds it by then.
    Conn(u32),
    /// The listener at this position.
    Listener(u16),
    /// The mailbox.
    Mailbox,
    /// The resolver's answers.
    Resolver,
    /// This channel.
    Channel(ChannelId),
}

/// Shared by the driver and its wakers. A lock, although all but the mailbox stay on one thread:
/// a waker has to be `Send`, and without contention it costs a few nanoseconds.
#[derive(Debug)]
pub(crate) struct ReadyQueue {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    sources: Vec<Source>,
    driver: Waker,
}

impl ReadyQueue {
    /// Makes an empty queue that wakes `driver`.
    pub(crate) fn new(driver: Waker) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new(Inner { sources: Vec::new(), driver }) })
    }

    /// Makes the waker that puts `source` into the queue.
    pub(crate) fn waker(self: &Arc<Self>, source: Source) -> Waker {
        Waker::from(Arc::new(Bell { queue: Arc::clone(self), source }))
    }

    /// Moves the queue's content into `batch`, which must be empty; its memory is used again.
    pub(crate) fn take(&self, batch: &mut Vec<Source>) {
        debug_assert!(batch.is_empty());
        std::mem::swap(&mut self.lock().sources, batch);
    }

    fn push(&self, source: Source) {
        let mut inner = self.lock();
        if inner.sources.is_empty() {
            inner.driver.wake_by_ref();
        }
        inner.sources.push(source);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Bell {
    queue: Arc<ReadyQueue>,
    source: Source,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.queue.push(self.source);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.queue.push(self.source);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_driver_is_woken_once_until_it_takes_the_queue() {
        let count = Arc::new(Count::default());
        let queue = ReadyQueue::new(Waker::from(Arc::clone(&count)));
        let mut batch = Vec::new();
        queue.waker(Source::Conn(1)).wake();
        queue.waker(Source::Mailbox).wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        queue.take(&mut batch);
        assert_eq!(batch, [Source::Conn(1), Source::Mailbox]);
        queue.waker(Source::Listener(0)).wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }
}
