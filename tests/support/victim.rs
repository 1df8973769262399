//! A client that does nothing wrong while others do.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::resp::{Client, Place, Reply};

/// The client, on a thread of its own.
pub struct Victim {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Duration)>,
}

impl Victim {
    /// Writes and reads back until the attack is over; every reply must be the right one.
    pub fn start(place: &Place, prefix: &'static str) -> Self {
        Self::start_with(Client::connect(place).unwrap(), prefix)
    }

    /// Does so on a connection that is there.
    pub fn start_with(mut client: Client, prefix: &'static str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut served = 0;
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::Acquire) || served < 20 {
                let (key, value) = (format!("{prefix}:{}", served % 50), format!("v{served}"));
                let start = Instant::now();
                assert_eq!(client.ask(&["SET", &key, &value]), Reply::ok());
                assert_eq!(client.ask(&["GET", &key]), Reply::bulk(&value));
                longest = longest.max(start.elapsed());
                served += 1;
            }
            (served, longest)
        });
        Self { is_over, thread }
    }

    /// Ends it; all it asked must have been answered rightly.
    pub fn finish(self) {
        self.is_over.store(true, Ordering::Release);
        let (served, longest) = self.thread.join().expect("the victim was served wrongly");
        eprintln!("the victim was served {served} times, at the slowest in {longest:?}");
    }
}
