//! When neighbours are told who has the virtual addresses.

use std::time::Duration;

use crate::time::Instant;

/// Some copies of every announcement, a while after the router became Active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// How long after it became Active.
    pub after: Duration,
    /// Copies for every address, back to back.
    pub copies: u8,
}

/// When announcements are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// After the router became Active, the earliest first.
    pub bursts: Vec<Burst>,
    /// Again and again while it is Active; zero between them means never.
    pub refresh: Burst,
    /// Copies when another router claimed the addresses too; zero sends none.
    pub contested_copies: u8,
    /// Longest time from such a claim to the burst that ends it.
    pub contested_delay: Duration,
}

impl Plan {
    /// keepalived's defaults: five at once, five more after five seconds, no refresh.
    pub fn keepalived() -> Self {
        let delay = Duration::from_secs(5);
        let bursts =
            vec![Burst { after: Duration::ZERO, copies: 5 }, Burst { after: delay, copies: 5 }];
        let refresh = Burst { after: Duration::ZERO, copies: 1 };
        Self { bursts, refresh, contested_copies: 5, contested_delay: delay }
    }

    /// Our own defaults: one at once and after 1, 2 and 4 seconds, then every minute.
    ///
    /// Copies back to back are lost together; spaced ones are not.
    pub fn spaced() -> Self {
        let burst = |seconds| Burst { after: Duration::from_secs(seconds), copies: 1 };
        Self {
            bursts: [0, 1, 2, 4].map(burst).to_vec(),
            refresh: burst(60),
            contested_copies: 1,
            contested_delay: Duration::from_secs(5),
        }
    }
}

/// Follows a plan.
///
/// Claims of another router are answered by one burst when they begin and one when they end, however
/// many adverts there are; where a burst was sent a moment before they began, by a few copies soon
/// after instead of the first one. The last one must be ours: whoever spoke last has the neighbours,
/// and whoever claims speaks to them just after its advert. Deviates from keepalived, which sends two
/// bursts for every advert.
#[derive(Debug, Default)]
pub struct Announcer {
    started: Option<Instant>,
    next_burst: usize,
    refresh_at: Option<Instant>,
    last: Option<Instant>,
    contest: Option<Contest>,
}

#[derive(Clone, Copy, Debug)]
struct Contest {
    since: Instant,
    ends: Instant,
    /// When neighbours are told again before it ends, and how long after the time before.
    echo: Option<(Instant, Duration)>,
}

/// How long after a claim begins neighbours are told again. Two backups that take over at the same
/// moment claim both; the lower one has spoken to the neighbours by then, and yields.
const ECHO_FIRST: Duration = Duration::from_millis(2);

/// The longest wait for another time: who took over at the same moment has long yielded.
const ECHO_LAST: Duration = Duration::from_millis(32);

/// By how much each wait for the next time is longer than the one before.
const ECHO_FACTOR: u32 = 4;

impl Announcer {
    /// Begins: the router became Active. Bursts are due from now on.
    pub fn start(&mut self, now: Instant, plan: &Plan) {
        *self = Self { started: Some(now), ..Self::default() };
        self.arm_refresh(now, plan);
    }

    /// Ends: the router is no longer Active. Nothing is due.
    pub fn stop(&mut self) {
        *self = Self::default();
    }

    /// Takes in that another router claimed the addresses. It is silent once no claim came for
    /// `quiet`. Returns the copies to send at once.
    pub fn contested(&mut self, now: Instant, quiet: Duration, plan: &Plan) -> u8 {
        if self.started.is_none() {
            return 0;
        }
        let is_fresh = self.last.is_some_and(|last| now.since(last) < quiet);
        let is_new = self.contest.is_none();
        let since = self.contest.map_or(now, |contest| contest.since);
        let ends = (now + quiet).min(since + plan.contested_delay);
        let first = Some((now + ECHO_FIRST, ECHO_FIRST)).filter(|_| is_fresh && ECHO_FIRST < quiet);
        let echo = self.contest.map_or(first, |contest| contest.echo);
        self.contest = Some(Contest { since, ends, echo });
        if is_new && !is_fresh { self.sent(now, plan, plan.contested_copies) } else { 0 }
    }

    /// Returns the copies that are due, zero if none are. Bursts that were missed count as one.
    pub fn poll_due(&mut self, now: Instant, plan: &Plan) -> u8 {
        let Some(started) = self.started else { return 0 };
        let mut copies = 0;
        while let Some(burst) = plan.bursts.get(self.next_burst)
            && started + burst.after <= now
        {
            copies = copies.max(burst.copies);
            self.next_burst += 1;
        }
        if self.contest.is_some_and(|contest| contest.ends <= now) {
            copies = copies.max(plan.contested_copies);
            self.contest = None;
        }
        if let Some(contest) = &mut self.contest
            && let Some((_, wait)) = contest.echo.filter(|(at, _)| *at <= now)
        {
            copies = copies.max(plan.contested_copies.min(1));
            let wait = wait * ECHO_FACTOR;
            let is_next = |at: Instant| wait <= ECHO_LAST && at < contest.ends;
            contest.echo = Some((now + wait, wait)).filter(|(at, _)| is_next(*at));
        }
        if self.refresh_at.is_some_and(|at| at <= now) {
            copies = copies.max(plan.refresh.copies);
        }
        self.sent(now, plan, copies)
    }

    /// Returns when something is due next.
    pub fn next(&self, plan: &Plan) -> Option<Instant> {
        let started = self.started?;
        let burst = plan.bursts.get(self.next_burst).map(|burst| started + burst.after);
        let contest = self.contest.map(|contest| contest.ends);
        let echo = self.contest.and_then(|contest| contest.echo).map(|(at, _)| at);
        [burst, contest, echo, self.refresh_at].into_iter().flatten().min()
    }

    fn sent(&mut self, now: Instant, plan: &Plan, copies: u8) -> u8 {
        if copies > 0 {
            self.last = Some(now);
            self.arm_refresh(now, plan);
        }
        copies
    }

    fn arm_refresh(&mut self, now: Instant, plan: &Plan) {
        let is_wanted = !plan.refresh.after.is_zero() && plan.refresh.copies > 0;
        self.refresh_at = is_wanted.then(|| now + plan.refresh.after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(200);

    fn at(millis: u64) -> Instant {
        Instant::START + Duration::from_millis(millis)
    }

    /// Follows a plan to its end or 130 s: moments in milliseconds and copies.
    fn sends(announcer: &mut Announcer, plan: &Plan) -> Vec<(u64, u8)> {
        let mut sends = Vec::new();
        while let Some(next) = announcer.next(plan)
            && next < at(130_000)
        {
            sends.push((next.as_nanos() / 1_000_000, announcer.poll_due(next, plan)));
        }
        sends
    }

    #[test]
    fn keepalived_sends_five_and_five_after_five_seconds() {
        let (plan, mut announcer) = (Plan::keepalived(), Announcer::default());
        announcer.start(at(0), &plan);
        assert_eq!(sends(&mut announcer, &plan), [(0, 5), (5000, 5)]);
    }

    #[test]
    fn ours_are_spaced_and_refreshed_each_minute() {
        let (plan, mut announcer) = (Plan::spaced(), Announcer::default());
        announcer.start(at(0), &plan);
        let expected = [(0, 1), (1000, 1), (2000, 1), (4000, 1), (64_000, 1), (124_000, 1)];
        assert_eq!(sends(&mut announcer, &plan), expected);
    }

    #[test]
    fn eighteen_claims_cost_one_burst_at_their_begin_and_one_at_their_end() {
        let (plan, mut announcer) = (Plan::keepalived(), Announcer::default());
        announcer.start(at(0), &plan);
        assert_eq!(sends(&mut announcer, &plan).len(), 2);
        let mut copies = 0;
        for claim in 0..18 {
            let now = at(20_000 + claim * 110);
            copies += announcer.poll_due(now, &plan);
            copies += announcer.contested(now, QUIET, &plan);
        }
        assert_eq!(copies, 5);
        assert_eq!(sends(&mut announcer, &plan), [(20_000 + 17 * 110 + 200, 5)]);
    }

    #[test]
    fn who_claims_at_the_same_moment_has_the_neighbours_for_a_moment_only() {
        let (plan, mut announcer) = (Plan::keepalived(), Announcer::default());
        announcer.start(at(0), &plan);
        assert_eq!(announcer.poll_due(at(0), &plan), 5);
        assert_eq!(announcer.contested(at(1), Duration::from_millis(20), &plan), 0);
        assert_eq!(sends(&mut announcer, &plan), [(3, 1), (11, 1), (21, 5), (5000, 5)]);
    }

    #[test]
    fn a_claim_that_does_not_end_is_answered_now_and_then() {
        let (plan, mut announcer) = (Plan::spaced(), Announcer::default());
        announcer.start(at(0), &plan);
        let mut copies = 0;
        for claim in 0..100 {
            let now = at(claim * 100);
            copies += announcer.contested(now, QUIET, &plan) + announcer.poll_due(now, &plan);
        }
        assert!((5..18).contains(&copies), "{copies}");
    }

    #[test]
    fn nothing_is_due_before_the_start_and_after_the_end() {
        let (plan, mut announcer) = (Plan::keepalived(), Announcer::default());
        assert_eq!(announcer.contested(at(1), QUIET, &plan), 0);
        assert_eq!((announcer.poll_due(at(1), &plan), announcer.next(&plan)), (0, None));
        announcer.start(at(1), &plan);
        announcer.stop();
        assert_eq!((announcer.poll_due(at(9999), &plan), announcer.next(&plan)), (0, None));
    }

    #[test]
    fn missed_bursts_count_as_one() {
        let (plan, mut announcer) = (Plan::spaced(), Announcer::default());
        announcer.start(at(0), &plan);
        assert_eq!(announcer.poll_due(at(3000), &plan), 1);
        assert_eq!(announcer.next(&plan), Some(at(4000)));
    }
}
