//! Questions over several workers: each answers for itself, whoever asked adds up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::{
    FoundKeys, Histogram, Name, PoolStats, SeenRow, ServerQueues, ServerStats, newest_first,
};
use crate::id::WorkerId;
use crate::limits::{SAMPLES_MAX, SLOW_ENTRIES_MAX};

/// Names a question of one asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Query(pub u64);

/// What a worker can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// All counters.
    Figures,
    /// All counters, and look after servers that nobody asks for: without clients nobody would learn
    /// that one is gone, or back.
    Health,
    /// The slow requests of a pool, or of all.
    Slow(Option<Name>),
    /// Forget the slow requests of a pool, or of all.
    ForgetSlow(Option<Name>),
    /// The clients of a pool, or of all, that match.
    Clients(Option<Name>, ClientFilter),
    /// End the connections of the clients that match.
    Kill(Option<Name>, ClientFilter),
    /// What watching keys has found.
    Keys,
    /// Begin to watch keys, or stop and forget.
    WatchKeys(bool),
    /// The examples after this moment, microseconds since 1970.
    Samples(u64),
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Question::Figures`] and [`Question::Health`]. One entry per worker that answered.
    Figures(Vec<Arc<WorkerFigures>>),
    /// To [`Question::Slow`] and [`Question::Samples`].
    Seen(Vec<SeenRow>),
    /// To [`Question::Clients`].
    Clients(Vec<ClientRow>),
    /// To [`Question::Keys`]; `None` if nothing is watched.
    Keys(Option<FoundKeys>),
    /// How many things the question changed.
    Done(u64),
}

impl Answer {
    /// Adds what another worker answered to the same question.
    pub fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::Figures(all), Self::Figures(more)) => all.extend(more),
            (Self::Seen(all), Self::Seen(more)) => {
                all.extend(more);
                newest_first(all, SLOW_ENTRIES_MAX.max(SAMPLES_MAX));
            }
            (Self::Clients(all), Self::Clients(more)) => all.extend(more),
            (Self::Keys(Some(all)), Self::Keys(Some(more))) => all.merge(more),
            (Self::Keys(none), Self::Keys(found)) if none.is_none() => *none = found,
            (Self::Done(count), Self::Done(more)) => *count += more,
            // An answer to another question is a mistake of the other worker; it is left out.
            (
                Self::Figures(_) | Self::Seen(_) | Self::Clients(_) | Self::Keys(_) | Self::Done(_),
                _,
            ) => {}
        }
    }
}

/// The answers to one question, as they come.
#[derive(Debug)]
pub struct Round {
    due: usize,
    sum: Option<Answer>,
    answered: Vec<WorkerId>,
}

impl Round {
    /// Begins to wait for so many answers.
    pub const fn new(workers: usize) -> Self {
        Self { due: workers, sum: None, answered: Vec::new() }
    }

    /// Takes an answer; a second one of the same worker is ignored. Returns whether it was the
    /// last.
    pub fn take(&mut self, from: WorkerId, answer: Answer) -> bool {
        if !self.answered.contains(&from) {
            self.answered.push(from);
            match &mut self.sum {
                Some(sum) => sum.merge(answer),
                None => self.sum = Some(answer),
            }
        }
        self.is_complete()
    }

    /// Tells whether everyone has answered.
    pub fn is_complete(&self) -> bool {
        self.answered.len() >= self.due
    }

    /// Returns who has answered.
    pub fn answered(&self) -> &[WorkerId] {
        &self.answered
    }

    /// Returns what came, added up; `None` if nothing did.
    pub fn finish(self) -> Option<Answer> {
        self.sum
    }
}

/// All counters of one worker.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerFigures {
    /// Which worker.
    pub worker: WorkerId,
    /// Microseconds since 1970 at the moment of counting.
    pub unix_micros: u64,
    /// Connections of either kind made so far.
    pub connections_made: u64,
    /// Connections of either kind open.
    pub connections_open: u64,
    /// Bytes received from clients and not served yet.
    pub input_bytes: u64,
    /// Bytes of replies that have not left.
    pub output_bytes: u64,
    /// No new clients are taken.
    pub is_draining: bool,
    /// The pools, in the order of the configuration.
    pub pools: Vec<PoolFigures>,
}

/// The counters of one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolFigures {
    /// Its name.
    pub name: Name,
    /// Rises with every change of the ring.
    pub epoch: u64,
    /// It takes no clients, and those that are there may finish.
    pub is_draining: bool,
    /// What happened; `servers` and `commands` are empty, see below.
    pub stats: PoolStats,
    /// How long each command took that was used.
    pub commands: BTreeMap<&'static str, Histogram>,
    /// The servers.
    pub servers: Vec<ServerFigures>,
}

/// The counters of one server.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerFigures {
    /// Its name.
    pub name: Name,
    /// Its part of the pool's hashes, millionths.
    pub ring_share: u32,
    /// Requests go to it.
    pub is_in_ring: bool,
    /// The last attempt to reach it failed.
    pub is_failing: bool,
    /// What happened.
    pub stats: ServerStats,
    /// What waits.
    pub queues: ServerQueues,
}

impl PoolFigures {
    /// Adds what another worker counted for the pool of the same name.
    fn merge(&mut self, other: &Self) {
        self.epoch = self.epoch.max(other.epoch);
        self.is_draining |= other.is_draining;
        self.stats.merge(&other.stats);
        for (command, more) in &other.commands {
            self.commands.entry(command).or_default().merge(more);
        }
        for more in &other.servers {
            match self.servers.iter_mut().find(|server| server.name == more.name) {
                Some(server) => {
                    // A server is in order if every worker finds it so.
                    server.is_in_ring &= more.is_in_ring;
                    server.is_failing |= more.is_failing;
                    server.stats.merge(&more.stats);
                    server.queues.merge(more.queues);
                }
                None => self.servers.push(more.clone()),
            }
        }
    }
}

impl WorkerFigures {
    /// Adds the workers' pools up by name. A pool that only some have, because a change of the
    /// configuration is on its way, counts all the same.
    pub fn sum_pools(workers: &[Arc<Self>]) -> Vec<PoolFigures> {
        let mut sums: Vec<PoolFigures> = Vec::new();
        for more in workers.iter().flat_map(|worker| &worker.pools) {
            match sums.iter_mut().find(|pool| pool.name == more.name) {
                Some(pool) => pool.merge(more),
                None => sums.push(more.clone()),
            }
        }
        sums
    }
}

/// How long the commands of a pool took, by their place in the protocol's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandTimes(Vec<Option<Box<Histogram>>>);

impl CommandTimes {
    /// Counts one request.
    #[inline]
    pub fn record(&mut self, command: u8, nanos: u64) {
        if let Some(Some(histogram)) = self.0.get_mut(usize::from(command)) {
            histogram.record(nanos);
        } else {
            self.record_first(command, nanos);
        }
    }

    /// Makes the histogram of a command that nobody has used yet: once each, not per request.
    #[cold]
    fn record_first(&mut self, command: u8, nanos: u64) {
        if self.0.len() <= usize::from(command) {
            self.0.resize(usize::from(command) + 1, None);
        }
        if let Some(place) = self.0.get_mut(usize::from(command)) {
            place.get_or_insert_with(Box::default).record(nanos);
        }
    }

    /// Returns the commands that were used, and how long they took.
    pub fn used(&self) -> impl Iterator<Item = (u8, &Histogram)> {
        (0..=u8::MAX).zip(&self.0).filter_map(|(at, place)| Some((at, place.as_deref()?)))
    }
}

/// One client, as `CLIENT LIST` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRow {
    /// Unique over all workers and times.
    pub id: u64,
    /// Its address and port, or the socket's path.
    pub address: String,
    /// The pool.
    pub pool: Name,
    /// The name that it gave itself.
    pub name: Option<Box<[u8]>>,
    /// Seconds since it came.
    pub age: u64,
    /// Seconds since it last sent something.
    pub idle: u64,
    /// Bytes received and not served.
    pub input_bytes: u64,
    /// Replies that it is owed.
    pub owed: u64,
    /// Bytes of replies that have not left.
    pub output_bytes: u64,
    /// Its last command.
    pub command: &'static str,
    /// 2 or 3.
    pub protocol: u8,
}

impl ClientRow {
    /// Appends the row in Redis' form: fields by name, and a line end.
    pub fn write(&self, out: &mut String) {
        let name = self.name.as_deref().unwrap_or_default();
        // Writing to a String can't fail.
        let _ = writeln!(
            out,
            "id={} addr={} name={} age={} idle={} flags=N db=0 sub=0 psub=0 multi=-1 qbuf={} \
             qbuf-free=0 obl=0 oll={} omem={} tot-mem={} events=r cmd={} user=default redir=-1 \
             resp={} pool={} owed={}",
            self.id,
            self.address,
            name.escape_ascii(),
            self.age,
            self.idle,
            self.input_bytes,
            u8::from(self.output_bytes > 0),
            self.output_bytes,
            self.input_bytes + self.output_bytes,
            self.command,
            self.protocol,
            self.pool,
            self.owed,
        );
    }
}

/// Which clients are meant; what is `None` is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFilter {
    /// These and no others; empty means any.
    pub ids: Vec<u64>,
    /// With this address and port.
    pub address: Option<String>,
    /// Not this one: whoever asks, unless it wants to go too.
    pub except: Option<u64>,
    /// Connected for at least this long, seconds.
    pub age_min: Option<u64>,
}

impl ClientFilter {
    /// Tells whether a client is meant.
    pub fn matches(&self, row: &ClientRow) -> bool {
        (self.ids.is_empty() || self.ids.contains(&row.id))
            && self.address.as_ref().is_none_or(|address| *address == row.address)
            && self.except != Some(row.id)
            && self.age_min.is_none_or(|least| row.age >= least)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::{Class, KeyHead};

    fn figures(worker: u16, requests: u64, is_in_ring: bool) -> Arc<WorkerFigures> {
        let stats = PoolStats { client_connections: 2, ..PoolStats::default() };
        let mut durations = Histogram::default();
        durations.record(1_000_000);
        let mut server = ServerStats { requests, ..ServerStats::default() };
        server.record(Class::Write, 5_000);
        Arc::new(WorkerFigures {
            worker: WorkerId(worker),
            unix_micros: 1,
            connections_made: 3,
            connections_open: 1,
            input_bytes: 0,
            output_bytes: 0,
            is_draining: false,
            pools: vec![PoolFigures {
                name: "alpha".into(),
                epoch: 1,
                is_draining: false,
                stats,
                commands: BTreeMap::from([("get", durations)]),
                servers: vec![ServerFigures {
                    name: "one".into(),
                    ring_share: 1_000_000,
                    is_in_ring,
                    is_failing: false,
                    stats: server,
                    queues: ServerQueues { in_queue: 4, ..ServerQueues::default() },
                }],
            }],
        })
    }

    #[test]
    fn pools_of_several_workers_add_up_by_name() {
        let sums = WorkerFigures::sum_pools(&[figures(0, 10, true), figures(1, 5, false)]);
        let [pool] = sums.as_slice() else { panic!("one pool: {sums:?}") };
        assert_eq!(pool.stats.client_connections, 4);
        assert_eq!(pool.commands.get("get").map(Histogram::count), Some(2));
        let [server] = pool.servers.as_slice() else { panic!("one server") };
        assert_eq!((server.stats.requests, server.queues.in_queue), (15, 8));
        assert!(!server.is_in_ring, "one worker has ejected it");
        let durations = server.stats.durations.as_deref().unwrap();
        assert_eq!(durations.each_ref().map(Histogram::count), [0, 2, 0]);
    }

    #[test]
    fn a_round_is_complete_when_each_worker_has_answered_once() {
        let mut round = Round::new(2);
        assert!(!round.take(WorkerId(0), Answer::Done(1)));
        assert!(!round.take(WorkerId(0), Answer::Done(5)));
        assert!(round.take(WorkerId(1), Answer::Done(2)));
        assert_eq!(round.finish(), Some(Answer::Done(3)));
        assert_eq!(Round::new(3).finish(), None);
    }

    #[test]
    fn what_several_workers_saw_is_ordered_by_time() {
        let row = |worker, unix_micros| SeenRow {
            worker: WorkerId(worker),
            number: 0,
            unix_micros,
            duration: Duration::ZERO,
            pool: "alpha".into(),
            server: "one".into(),
            command: "get",
            key: KeyHead::EMPTY,
            request_bytes: 0,
            reply_bytes: 0,
            client: String::new(),
            client_name: None,
        };
        let mut all = Answer::Seen(vec![row(0, 9), row(0, 1)]);
        all.merge(Answer::Seen(vec![row(1, 5)]));
        let Answer::Seen(rows) = all else { panic!("{all:?}") };
        assert_eq!(rows.iter().map(|row| row.unix_micros).collect::<Vec<_>>(), [9, 5, 1]);
    }

    #[test]
    fn an_answer_to_another_question_changes_nothing() {
        let mut answer = Answer::Done(1);
        answer.merge(Answer::Clients(Vec::new()));
        assert_eq!(answer, Answer::Done(1));
        let mut keys = Answer::Keys(None);
        keys.merge(Answer::Keys(Some(FoundKeys { requests: 3, ..FoundKeys::default() })));
        assert!(matches!(keys, Answer::Keys(Some(found)) if found.requests == 3));
    }
}
