//! Virtual routers beside pools, in one process, and the way to them.

#[cfg(not(target_os = "linux"))]
mod absent;
#[cfg(target_os = "linux")]
mod beside;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use ringkeeper_core::io::{Command, Health, HealthNews, Mail, Notice};
use ringkeeper_core::limits::VRRP_HEALTH_SOURCES_MAX;

#[cfg(not(target_os = "linux"))]
pub(crate) use absent::Routers;
#[cfg(target_os = "linux")]
pub(crate) use beside::Routers;

/// How often the way is tried before it counts as barred. Others have it for microseconds.
const TRIES_MAX: u32 = 100;

/// How their worker is reached: leaves mail; none ends its thread.
pub(crate) type Post = Arc<dyn Fn(Option<Mail>) + Send + Sync>;

/// How the control worker is told something.
type Back = Arc<dyn Fn(Notice) + Send + Sync>;

/// The way to the virtual routers from any thread, also while there are none.
///
/// What was told last of each thing is kept: who is started again has to know it.
#[derive(Clone, Default)]
pub(crate) struct Line(Arc<Mutex<Wire>>);

#[derive(Default)]
struct Wire {
    post: Option<Post>,
    /// Where their own notices go.
    back: Option<Back>,
    health: BTreeMap<Arc<str>, Health>,
}

impl Wire {
    fn leave(&self) {
        if let Some(post) = &self.post {
            post(Some(Mail::Command(Command::Drain { limit: Duration::ZERO })));
        }
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a notice on.
    pub(crate) fn pass(&self, notice: &Notice) {
        let mut wire = self.lock();
        if let Notice::Health(HealthNews { source, health }) = notice {
            if *health == Health::Gone {
                wire.health.remove(source);
            } else if wire.health.len() < VRRP_HEALTH_SOURCES_MAX
                || wire.health.contains_key(source)
            {
                wire.health.insert(Arc::clone(source), health.clone());
            }
        }
        if let Some(post) = &wire.post {
            post(Some(Mail::Notice(notice.clone())));
        }
    }

    /// Has the virtual routers leave, whatever else they follow: the process can not serve.
    pub(crate) fn leave(&self) {
        self.lock().leave();
    }

    /// Does the same on a thread that may have the way barred itself; tells whether it could.
    pub(crate) fn try_leave(&self) -> bool {
        for _ in 0..TRIES_MAX {
            match self.0.try_lock() {
                Ok(wire) => wire.leave(),
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().leave(),
                Err(TryLockError::WouldBlock) => {
                    std::thread::yield_now();
                    continue;
                }
            }
            return true;
        }
        false
    }

    /// Tells where notices of the virtual routers go.
    pub(crate) fn set_back(&self, back: impl Fn(Notice) + Send + Sync + 'static) {
        self.lock().back = Some(Arc::new(back));
    }

    /// Passes a notice of the virtual routers on.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there are none"))]
    pub(crate) fn pass_back(&self, notice: Notice) {
        let back = self.lock().back.clone();
        if let Some(back) = back {
            back(notice);
        }
    }

    /// Connects it, and tells what was told before.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there are none to reach"))]
    fn connect(&self, post: Post) {
        let mut wire = self.lock();
        for (source, health) in &wire.health {
            let news = HealthNews { source: Arc::clone(source), health: health.clone() };
            post(Some(Mail::Notice(Notice::Health(news))));
        }
        wire.post = Some(post);
    }

    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there are none to reach"))]
    fn cut(&self) {
        self.lock().post = None;
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn the_order_to_leave_waits_for_nobody_who_may_be_oneself() {
        let (sender, told) = std::sync::mpsc::channel();
        let line = Line::default();
        line.connect(Arc::new(move |mail| drop(sender.send(mail))));
        let barred = line.lock();
        assert!(!line.try_leave());
        drop(barred);
        assert!(told.try_recv().is_err());
        assert!(line.try_leave());
        line.leave();
        for _ in 0..2 {
            let mail = told.try_recv().unwrap();
            assert!(matches!(mail, Some(Mail::Command(Command::Drain { .. }))));
        }
    }
}
