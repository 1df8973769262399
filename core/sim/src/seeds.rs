//! Many seeds: as many as fit into a time budget, one to see a failure again, or a number.

use std::time::Duration;

use crate::{Failure, Report};

/// Which seeds to run.
#[derive(Clone, Debug)]
pub struct Seeds {
    first: u64,
    count: Option<u64>,
    budget: Duration,
}

/// What many runs did together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Seeds that ran.
    pub seeds: u64,
    /// Requests that clients sent.
    pub requests: u64,
    /// Right replies.
    pub replies: u64,
    /// Error replies.
    pub errors: u64,
    /// Faults injected.
    pub faults: u64,
    /// Plans that the machine went on with.
    pub reloads: u64,
    /// Largest number of reply bytes held back for one client.
    pub backlog_bytes_max: usize,
}

impl Seeds {
    /// Reads the environment: `RINGKEEPER_SEED=n` runs that one, `RINGKEEPER_SEEDS=n` that many,
    /// `RINGKEEPER_SEED_FIRST=n` starts there, `RINGKEEPER_SIM_SECONDS=s` replaces `budget`, the
    /// time within which seeds are started.
    pub fn from_environment(first: u64, budget: Duration) -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        if let Some(seed) = number("RINGKEEPER_SEED") {
            return Self { first: seed, count: Some(1), budget };
        }
        let first = number("RINGKEEPER_SEED_FIRST").unwrap_or(first);
        let budget = number("RINGKEEPER_SIM_SECONDS").map_or(budget, Duration::from_secs);
        Self { first, count: number("RINGKEEPER_SEEDS"), budget }
    }

    /// Runs `run` for each seed until the first failure.
    ///
    /// # Errors
    ///
    /// The failure of the first seed that fails.
    pub fn run(
        &self,
        mut run: impl FnMut(u64) -> Result<Report, Box<Failure>>,
    ) -> Result<Summary, Box<Failure>> {
        let mut summary = Summary::default();
        summary.seeds = self.each(|seed| {
            let report = run(seed)?;
            summary.requests += report.requests;
            summary.replies += report.replies;
            summary.errors += report.errors;
            summary.faults += report.faults;
            summary.reloads += report.reloads;
            summary.backlog_bytes_max = summary.backlog_bytes_max.max(report.backlog_bytes_max);
            Ok::<(), Box<Failure>>(())
        })?;
        Ok(summary)
    }

    /// Runs `run` for each seed until the first failure; returns how many there were.
    ///
    /// # Errors
    ///
    /// The failure of the first seed that fails.
    #[allow(clippy::disallowed_types, reason = "how long tests may run is real time")]
    pub fn each<E>(&self, mut run: impl FnMut(u64) -> Result<(), E>) -> Result<u64, E> {
        let begun = std::time::Instant::now();
        let mut seeds = 0;
        loop {
            let is_over = match self.count {
                Some(count) => seeds >= count,
                None => begun.elapsed() >= self.budget,
            };
            if is_over {
                return Ok(seeds);
            }
            run(self.first.wrapping_add(seeds))?;
            seeds += 1;
        }
    }
}
