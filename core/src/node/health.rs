//! How the things are that virtual routers have their addresses for: the pools, the workers, and
//! Sentinels in sight. Changes are told at once; what only a worker knows is asked for now and then.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::id::WorkerId;
use crate::io::{
    Deadline, Health, HealthNews, Notice, Output, Recipient, ShardCondition, ShardNews,
};
use crate::limits::HEALTH_PERIOD;
use crate::stats::{Answer, PoolFigures, Query, Question, Round, WorkerFigures};
use crate::time::Instant;

/// Questions of ours have this bit; those of the admin machine begin at 0.
const QUERY_BIT: u64 = 1 << 63;

/// Watches over all of it.
#[derive(Debug)]
pub(super) struct Overseer {
    workers: u16,
    round: Option<(Query, Round)>,
    queries: u64,
    due: Instant,
    told: BTreeMap<Arc<str>, Health>,
    /// Shards whose masters are not there, or not to be written to.
    conditions: BTreeMap<Arc<str>, ShardCondition>,
    out: VecDeque<Output>,
}

impl Overseer {
    pub(super) const fn new(workers: u16, now: Instant) -> Self {
        Self {
            workers,
            round: None,
            queries: 0,
            due: now,
            told: BTreeMap::new(),
            conditions: BTreeMap::new(),
            out: VecDeque::new(),
        }
    }

    /// Takes what routing is told of a shard.
    pub(super) fn note_shard(&mut self, news: &ShardNews) {
        self.conditions.insert(Arc::clone(&news.shard), news.condition);
        let is_fenced =
            |(_, condition): &(&Arc<str>, &ShardCondition)| **condition == ShardCondition::Fenced;
        let fenced = self.conditions.iter().find(is_fenced).map(|(shard, _)| shard);
        let ill = fenced.map(|shard| format!("this host may not write to the master of {shard}"));
        self.tell("fence", ill);
    }

    /// Asks the workers if it is time; `short_of` is a master that too few Sentinels in sight could
    /// replace.
    pub(super) fn handle_timeout(&mut self, now: Instant, short_of: Option<String>) {
        if now < self.due {
            return;
        }
        self.due = now + HEALTH_PERIOD;
        let ill = short_of.map(|name| format!("too few Sentinels in sight for {name}"));
        self.tell("sentinels", ill);
        if let Some((_, round)) = self.round.take() {
            let all = (0..self.workers).map(WorkerId);
            let silent = all.into_iter().find(|worker| !round.answered().contains(worker));
            self.tell("workers", silent.map(|WorkerId(id)| format!("worker {id} does not turn")));
        }
        let query = Query(QUERY_BIT | self.queries);
        self.queries += 1;
        self.round = Some((query, Round::new(usize::from(self.workers))));
        let question = Question::Health;
        let notice = Notice::Question { from: Recipient::Control, query, question };
        self.out.push_back(Output::Notice { to: Recipient::Data, notice });
    }

    /// Takes an answer; gives it back if it is somebody else's.
    pub(super) fn answered(
        &mut self,
        query: Query,
        from: WorkerId,
        answer: Answer,
    ) -> Option<Answer> {
        if query.0 & QUERY_BIT == 0 {
            return Some(answer);
        }
        // One that comes after the next question says nothing new.
        let (_, mut round) = self.round.take_if(|(asked, _)| *asked == query)?;
        if !round.take(from, answer) {
            self.round = Some((query, round));
            return None;
        }
        self.tell("workers", None);
        if let Some(Answer::Figures(workers)) = round.finish() {
            self.judge(&WorkerFigures::sum_pools(&workers));
        }
        None
    }

    fn judge(&mut self, pools: &[PoolFigures]) {
        // Every host sees the same while a master is being replaced: no reason to move anything.
        let is_settled = self.conditions.values().all(|condition| match condition {
            ShardCondition::Serving | ShardCondition::Fenced => true,
            ShardCondition::Suspected | ShardCondition::Moving => false,
        });
        for pool in pools {
            let is_useful = pool.servers.iter().any(|one| one.is_in_ring && !one.is_failing);
            let ill = match (pool.is_draining, is_useful) {
                (true, _) => Some("it is drained".to_owned()),
                (false, false) if is_settled => Some("no server can be reached".to_owned()),
                (false, _) => None,
            };
            self.tell(&format!("pool {}", pool.name), ill);
        }
        let is_gone = |source: &str| {
            let name = source.strip_prefix("pool ");
            name.is_some_and(|name| pools.iter().all(|pool| &*pool.name != name))
        };
        let gone: Vec<Arc<str>> = self.told.keys().filter(|name| is_gone(name)).cloned().collect();
        for source in gone {
            self.told.remove(&source);
            self.push(source, Health::Gone);
        }
    }

    /// Tells how something is, if that is new.
    fn tell(&mut self, source: &str, ill: Option<String>) {
        let health = ill.map_or(Health::Well, |why| Health::Ill { why: why.into() });
        if self.told.get(source) == Some(&health) {
            return;
        }
        // What was never ill need not be called well.
        let is_first = !self.told.contains_key(source);
        let source: Arc<str> = source.into();
        self.told.insert(Arc::clone(&source), health.clone());
        if !(is_first && health == Health::Well) {
            self.push(source, health);
        }
    }

    fn push(&mut self, source: Arc<str>, health: Health) {
        let notice = Notice::Health(HealthNews { source, health });
        self.out.push_back(Output::Notice { to: Recipient::Routers, notice });
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(super) const fn poll_timeout(&self) -> Deadline {
        Deadline { at: self.due, why: "health of the pools" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{PoolStats, ServerFigures, ServerQueues, ServerStats};

    fn news(overseer: &mut Overseer) -> Vec<(String, Health)> {
        let mut all = Vec::new();
        while let Some(output) = overseer.poll_output() {
            if let Output::Notice { notice: Notice::Health(news), to } = output {
                assert_eq!(to, Recipient::Routers);
                all.push((news.source.to_string(), news.health));
            }
        }
        all
    }

    fn ill(source: &str, why: &str) -> (String, Health) {
        (source.to_owned(), Health::Ill { why: why.into() })
    }

    fn well(source: &str) -> (String, Health) {
        (source.to_owned(), Health::Well)
    }

    fn server(is_failing: bool) -> ServerFigures {
        ServerFigures {
            name: "one".into(),
            ring_share: 0,
            is_in_ring: true,
            is_failing,
            stats: ServerStats::default(),
            queues: ServerQueues::default(),
        }
    }

    fn figures(failing: bool, is_draining: bool) -> Answer {
        let pool = PoolFigures {
            name: "alpha".into(),
            epoch: 0,
            is_draining,
            stats: PoolStats::default(),
            servers: vec![server(failing)],
            commands: BTreeMap::new(),
        };
        Answer::Figures(vec![Arc::new(WorkerFigures {
            worker: WorkerId(0),
            unix_micros: 0,
            connections_made: 0,
            connections_open: 0,
            input_bytes: 0,
            output_bytes: 0,
            is_draining: false,
            pools: vec![pool],
        })])
    }

    /// Lets a period pass in which the worker answers this.
    fn period(
        overseer: &mut Overseer,
        number: u64,
        answer: Option<Answer>,
    ) -> Vec<(String, Health)> {
        let nth = u32::try_from(number).unwrap();
        overseer.handle_timeout(Instant::START + HEALTH_PERIOD * nth, None);
        if let Some(answer) = answer {
            let query = Query(QUERY_BIT | number);
            assert!(overseer.answered(query, WorkerId(0), answer).is_none());
        }
        news(overseer)
    }

    #[test]
    fn what_is_ill_is_told_once_and_when_it_is_well_again() {
        let mut overseer = Overseer::new(1, Instant::START);
        assert_eq!(period(&mut overseer, 0, Some(figures(false, false))), []);
        let unreachable = [ill("pool alpha", "no server can be reached")];
        assert_eq!(period(&mut overseer, 1, Some(figures(true, false))), unreachable);
        assert_eq!(period(&mut overseer, 2, Some(figures(true, false))), []);
        assert_eq!(period(&mut overseer, 3, Some(figures(false, false))), [well("pool alpha")]);
        let drained = [ill("pool alpha", "it is drained")];
        assert_eq!(period(&mut overseer, 4, Some(figures(false, true))), drained);
        assert_eq!(period(&mut overseer, 5, None), []);
        assert_eq!(period(&mut overseer, 6, None), [ill("workers", "worker 0 does not turn")]);
    }

    #[test]
    fn a_master_that_is_being_replaced_moves_no_address_and_a_fence_does() {
        let mut overseer = Overseer::new(1, Instant::START);
        let shard = |condition| ShardNews {
            shard: "one".into(),
            epoch: 1,
            address: ([127, 0, 0, 1], 1).into(),
            condition,
            valid_until: None,
        };
        overseer.note_shard(&shard(ShardCondition::Suspected));
        assert_eq!(period(&mut overseer, 0, Some(figures(true, false))), []);
        overseer.note_shard(&shard(ShardCondition::Fenced));
        let fenced = [ill("fence", "this host may not write to the master of one")];
        assert_eq!(news(&mut overseer), fenced);
        overseer.note_shard(&shard(ShardCondition::Serving));
        assert_eq!(news(&mut overseer), [well("fence")]);
    }

    #[test]
    fn too_few_sentinels_in_sight_are_told_and_other_answers_passed_by() {
        let mut overseer = Overseer::new(1, Instant::START);
        overseer.handle_timeout(Instant::START, Some("one".into()));
        let few = [ill("sentinels", "too few Sentinels in sight for one")];
        assert_eq!(news(&mut overseer), few);
        assert!(overseer.answered(Query(0), WorkerId(0), figures(false, false)).is_some());
    }
}
