//! What the proxy keeps beside its plain counters, and what it says when somebody asks.

use std::sync::Arc;
use std::time::Duration;

use crate::command;
use crate::id::{PoolId, ServerId};
use crate::io::{Notice, Output, Recipient};
use crate::proxy::Proxy;
use crate::proxy::client::{Client, Phase};
use crate::proxy::server::{InFlight, ReplyTo, Standing};
use crate::proxy::shared::{Shared, key_of};
use crate::rng::Rng;
use crate::slab::SlabKey;
use crate::stats::{
    Answer, Class, ClientFilter, ClientRow, FiguresPlan, KeyHead, KeyWatch, Name, PoolFigures,
    PoolStats, Query, Question, Samples, Seen, SeenRow, ServerFigures, ServerStats, SlowLog,
    WorkerFigures,
};
use crate::time::Instant;
use crate::wire::memcache::Verb;

/// What a request is counted as; travels with it until its reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    /// The command's place in its protocol's table.
    pub(crate) command: u8,
    pub(crate) class: Class,
}

/// What is kept of a request until its reply comes.
#[derive(Clone, Copy)]
pub(crate) struct Mark<'a> {
    pub(crate) tag: Tag,
    /// Its first argument, as a rule its key.
    pub(crate) argument: &'a [u8],
}

/// Latencies, slow requests, examples and hot keys of a worker.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) is_on: bool,
    /// From how many nanoseconds on a request is slow.
    slow_nanos: u64,
    pub(crate) slow: SlowLog,
    pub(crate) samples: Samples,
    pub(crate) keys: Option<Box<KeyWatch>>,
}

impl Figures {
    pub(crate) fn new(plan: &FiguresPlan, rng: Rng) -> Self {
        let slow_nanos = match plan.slow_after {
            Some(time) if plan.is_on => u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            Some(_) | None => u64::MAX,
        };
        let mut samples = Samples::new(rng);
        if !plan.is_on {
            samples.stop();
        }
        let keys = (plan.is_on && plan.is_watching_keys).then(Box::default);
        Self { is_on: plan.is_on, slow_nanos, slow: SlowLog::default(), samples, keys }
    }
}

impl Proxy {
    /// Counts a request whose reply is complete or was given up.
    #[inline]
    pub(crate) fn note_done(&mut self, request: &InFlight, at: (PoolId, ServerId), bytes: u64) {
        let figures = &mut self.shared.figures;
        if !figures.is_on {
            return;
        }
        let now = self.shared.now;
        let nanos = now.as_nanos().saturating_sub(request.queued_at.as_nanos());
        let (pool, server) = at;
        let Some(stats) = self.shared.pools.get_mut(usize::from(pool.0)).map(|at| &mut at.stats)
        else {
            return;
        };
        if let Some(stats) = stats.servers.get_mut(usize::from(server.0)) {
            stats.record(request.tag.class, nanos);
        }
        stats.commands.record(request.tag.command, nanos);
        let is_slow = nanos >= figures.slow_nanos;
        if is_slow || figures.samples.wants(now) || figures.keys.is_some() {
            self.look_closer(request, at, bytes, Duration::from_nanos(nanos), is_slow);
        }
    }

    /// Keeps a request that is worth it.
    #[cold]
    fn look_closer(
        &mut self,
        request: &InFlight,
        (pool, server): (PoolId, ServerId),
        bytes: u64,
        duration: Duration,
        is_slow: bool,
    ) {
        let now = self.shared.now;
        let unix_micros = self.shared.unix_micros();
        if let Some(keys) = &mut self.shared.figures.keys {
            keys.note_size(pool, request.key, bytes.max(u64::from(request.bytes)));
        }
        let is_sample = self.shared.figures.samples.is_due(now);
        if !is_slow && !is_sample {
            return;
        }
        let client = match request.to {
            ReplyTo::Client { conn, .. }
            | ReplyTo::Silent { conn }
            | ReplyTo::Store { conn, .. }
            | ReplyTo::Quiet { conn, .. } => self.clients.get(key_of(conn)),
            ReplyTo::Split { split, .. } => {
                let split = self.shared.splits.get(split);
                split.and_then(|split| self.clients.get(key_of(split.client)))
            }
            ReplyTo::Nobody | ReplyTo::QuietNobody | ReplyTo::Barrier | ReplyTo::Copies => None,
        };
        let seen = Seen {
            number: 0,
            unix_micros,
            duration,
            pool,
            server,
            command: request.tag.command,
            key: request.key,
            request_bytes: request.bytes,
            reply_bytes: bytes,
            client: client.map(|client| client.peer.clone()),
            client_name: client.and_then(|client| client.name.clone()),
        };
        if is_sample {
            self.shared.figures.samples.push(now, seen.clone());
        }
        if is_slow {
            self.shared.figures.slow.push(seen);
        }
    }

    /// Takes a question or an answer of another worker.
    pub(crate) fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Question { from, query, question } => self.answer_to(from, query, &question),
            Notice::Answer { from, query, answer } => self.take_answer(query, from, answer),
            Notice::Shard(news) => self.shard_news(&news),
            // The control worker's.
            Notice::ConfigRead { .. }
            | Notice::Sighting(_)
            | Notice::Health(_)
            | Notice::Routers(_)
            | Notice::Balance(_) => {}
        }
    }

    fn answer_to(&mut self, to: Recipient, query: Query, question: &Question) {
        let answer = self.answer_question(question);
        let from = self.shared.id;
        self.shared
            .outbox
            .push(Output::Notice { to, notice: Notice::Answer { from, query, answer } });
    }

    /// Answers for this worker.
    pub(crate) fn answer_question(&mut self, question: &Question) -> Answer {
        match question {
            Question::Figures => Answer::Figures(vec![Arc::new(self.figures())]),
            Question::Health => {
                let figures = self.figures();
                self.shared.look_after_servers();
                Answer::Figures(vec![Arc::new(figures)])
            }
            Question::Slow(pool) => {
                let rows = self.shared.figures.slow.entries();
                Answer::Seen(self.rows(rows, pool.as_ref()))
            }
            Question::Samples(after) => {
                let rows = self.shared.figures.samples.after(*after);
                Answer::Seen(self.rows(rows, None))
            }
            Question::ForgetSlow(pool) => {
                let plan = Arc::clone(&self.shared.plan);
                let is_kept = |seen: &mut Seen| {
                    pool.as_ref().is_some_and(|pool| {
                        plan.pools
                            .get(usize::from(seen.pool.0))
                            .is_some_and(|of| *of.name != **pool)
                    })
                };
                Answer::Done(self.shared.figures.slow.retain(is_kept))
            }
            Question::Clients(pool, filter) => {
                let found = self.matching(pool.as_ref(), filter);
                Answer::Clients(found.into_iter().map(|(_, row)| row).collect())
            }
            Question::Kill(pool, filter) => Answer::Done(self.kill(pool.as_ref(), filter)),
            Question::Keys => {
                let name = |pool| self.shared.pool_name(pool);
                Answer::Keys(self.shared.figures.keys.as_ref().map(|keys| keys.found(name)))
            }
            Question::WatchKeys(is_wanted) => {
                let keys = &mut self.shared.figures.keys;
                let is_change = keys.is_some() != *is_wanted;
                if is_change {
                    *keys = is_wanted.then(Box::<KeyWatch>::default);
                }
                Answer::Done(u64::from(is_change))
            }
        }
    }

    fn matching(&self, pool: Option<&Name>, filter: &ClientFilter) -> Vec<(SlabKey, ClientRow)> {
        let open = self.clients.iter().filter(|(_, client)| client.phase != Phase::Closing);
        let rows = open.map(|(key, client)| (key, self.shared.client_row(client)));
        rows.filter(|(_, row)| pool.is_none_or(|pool| row.pool == *pool) && filter.matches(row))
            .collect()
    }

    fn kill(&mut self, pool: Option<&Name>, filter: &ClientFilter) -> u64 {
        let found = self.matching(pool, filter);
        for (key, _) in &found {
            let is_asking = self.shared.asked.is_asking(*key);
            let Some(client) = self.clients.get_mut(*key) else { continue };
            if is_asking {
                // It gets its answer first.
                client.phase = Phase::Finishing;
                self.shared.pause(client);
            } else {
                self.shared.abort_client(client);
            }
        }
        found.len() as u64
    }

    fn rows<'a>(&self, seen: impl Iterator<Item = &'a Seen>, pool: Option<&Name>) -> Vec<SeenRow> {
        let worker = self.shared.id;
        let rows = seen.map(|seen| SeenRow {
            worker,
            number: seen.number,
            unix_micros: seen.unix_micros,
            duration: seen.duration,
            pool: self.shared.pool_name(seen.pool),
            server: self.shared.server_name(seen.pool, seen.server),
            command: self.shared.command_name(seen.pool, seen.command),
            key: seen.key,
            request_bytes: seen.request_bytes,
            reply_bytes: seen.reply_bytes,
            client: seen.client.as_ref().map(ToString::to_string).unwrap_or_default(),
            client_name: seen.client_name.clone(),
        });
        rows.filter(|row| pool.is_none_or(|pool| row.pool == *pool)).collect()
    }

    /// Copies all counters.
    fn figures(&self) -> WorkerFigures {
        let shared = &self.shared;
        let pools = shared.pools.iter().zip(&shared.plan.pools).enumerate();
        let pools = pools.filter(|(_, (pool, _))| !pool.is_removed);
        WorkerFigures {
            worker: shared.id,
            unix_micros: shared.unix_micros(),
            connections_made: shared.connections_made,
            connections_open: (shared.conns.len() + self.clients.len()) as u64,
            input_bytes: shared.sums.input as u64,
            output_bytes: shared.sums.output as u64,
            is_draining: shared.is_draining,
            pools: pools
                .map(|(at, (pool, plan))| {
                    let queues = self.queues(at, plan.servers.len());
                    let servers = plan.servers.iter().zip(&pool.servers).zip(&pool.stats.servers);
                    let servers = servers.zip(queues).zip(pool.table.shares());
                    let servers = servers.map(|((((plan, server), stats), queues), ring_share)| {
                        ServerFigures {
                            name: plan.name.as_str().into(),
                            ring_share,
                            is_in_ring: server.standing == Standing::Serving && !plan.is_drained,
                            is_failing: server.last_failure.is_some(),
                            stats: ServerStats::clone(stats),
                            queues,
                        }
                    });
                    let used = pool.stats.commands.used();
                    let name = |at| command_name(plan.is_memcache, at);
                    PoolFigures {
                        name: plan.name.as_str().into(),
                        epoch: pool.table.epoch(),
                        is_draining: pool.drains_until.is_some(),
                        servers: servers.collect(),
                        commands: used
                            .map(|(command, times)| (name(command), times.clone()))
                            .collect(),
                        stats: PoolStats {
                            servers: Vec::new(),
                            commands: crate::stats::CommandTimes::default(),
                            ..pool.stats.clone()
                        },
                    }
                })
                .collect(),
        }
    }

    /// Renames what is kept by position after a change of the plan; what is gone is forgotten.
    pub(crate) fn rename_seen(
        &mut self,
        renamed: impl Fn(PoolId, ServerId) -> Option<(PoolId, ServerId)>,
    ) {
        let mut keep = |seen: &mut Seen| match renamed(seen.pool, seen.server) {
            Some((pool, server)) => {
                (seen.pool, seen.server) = (pool, server);
                true
            }
            None => false,
        };
        self.shared.figures.slow.retain(&mut keep);
        self.shared.figures.samples.retain(keep);
        // Keys are counted by pool, and there is no moving them; watching begins anew.
        if let Some(keys) = &mut self.shared.figures.keys {
            **keys = KeyWatch::default();
        }
    }
}

impl Shared {
    pub(crate) fn pool_name(&self, id: PoolId) -> Name {
        self.plan.pools.get(usize::from(id.0)).map_or("?", |plan| plan.name.as_str()).into()
    }

    fn server_name(&self, pool: PoolId, id: ServerId) -> Name {
        let plan = self.plan.pools.get(usize::from(pool.0));
        let server = plan.and_then(|plan| plan.servers.get(usize::from(id.0)));
        server.map_or("?", |server| server.name.as_str()).into()
    }

    fn command_name(&self, pool: PoolId, at: u8) -> &'static str {
        let plan = self.plan.pools.get(usize::from(pool.0));
        command_name(plan.is_some_and(|plan| plan.is_memcache), at)
    }

    /// Describes a client.
    pub(crate) fn client_row(&self, client: &Client) -> ClientRow {
        let since = |ticks: Ticks| ticks.since(self.now).as_secs();
        ClientRow {
            id: client.number,
            address: client.peer.to_string(),
            pool: self.pool_name(client.pool),
            name: client.name.clone(),
            age: since(client.came_at),
            idle: since(client.heard_at),
            input_bytes: client.waiting_input().len() as u64,
            owed: client.replies.len() as u64,
            output_bytes: client.unsent_bytes() as u64,
            command: if client.last_command == u8::MAX {
                "NULL"
            } else {
                command_name(client.is_memcache, client.last_command)
            },
            protocol: if client.is_resp3 { 3 } else { 2 },
        }
    }
}

/// Returns the name of the command at a place of its protocol's table.
fn command_name(is_memcache: bool, at: u8) -> &'static str {
    if is_memcache {
        return Verb::ALL.get(usize::from(at)).map_or("?", |verb| verb.name());
    }
    command::all().get(usize::from(at)).map_or("?", |command| command.name)
}

/// A moment in eighths of a second, roughly: 32 bits of it last 17 years, and each idle client has
/// two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticks(u32);

/// A tick is 2^27 ns, 0.134 s: no division for each look at the clock.
const TICK_BITS: u32 = 27;

impl Ticks {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "wraps after 17 years, and only shown")]
    pub(crate) const fn of(now: Instant) -> Self {
        Self((now.as_nanos() >> TICK_BITS) as u32)
    }

    /// Returns the moment that lies so far before `now`; it may lie before the worker's time.
    #[expect(clippy::cast_possible_truncation, reason = "wraps after 17 years, and only shown")]
    pub(crate) const fn ago(now: Instant, age: Duration) -> Self {
        Self(Self::of(now).0.wrapping_sub((age.as_nanos() >> TICK_BITS) as u32))
    }

    pub(crate) fn since(self, now: Instant) -> Duration {
        let ticks = Self::of(now).0.wrapping_sub(self.0);
        Duration::from_nanos(u64::from(ticks) << TICK_BITS)
    }
}

/// Returns the class of a Redis command.
#[inline]
pub(crate) const fn class_of(command: &command::Command) -> Class {
    if command.flags.contains(command::Flags::WRITE) {
        Class::Write
    } else if command.flags.contains(command::Flags::READONLY) {
        Class::Read
    } else {
        Class::Other
    }
}

/// Returns what a memcached command is counted as.
#[inline]
pub(crate) const fn tag_of(verb: Verb) -> Tag {
    let class = match verb {
        Verb::Get | Verb::Gets | Verb::MetaGet | Verb::MetaDebug => Class::Read,
        Verb::Gat
        | Verb::Gats
        | Verb::Set
        | Verb::Add
        | Verb::Replace
        | Verb::Append
        | Verb::Prepend
        | Verb::Cas
        | Verb::Incr
        | Verb::Decr
        | Verb::Touch
        | Verb::Delete
        | Verb::MetaSet
        | Verb::MetaDelete
        | Verb::MetaArithmetic
        | Verb::FlushAll => Class::Write,
        Verb::MetaNoop
        | Verb::Version
        | Verb::Verbosity
        | Verb::Stats
        | Verb::Quit
        | Verb::Admin => Class::Other,
    };
    Tag { command: verb as u8, class }
}

/// Keeps the beginning of what a request is about.
#[inline]
pub(crate) fn head_of(figures: &Figures, argument: &[u8]) -> KeyHead {
    if figures.is_on { KeyHead::of(argument) } else { KeyHead::EMPTY }
}
