//! Questions of clients about all workers: put to each of them, answered when all have answered or
//! the deadline has passed. The reply waits for its turn like that of any request.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use crate::id::{ConnId, PoolId, WorkerId};
use crate::io::{Notice, Output, Recipient};
use crate::limits::{ANSWER_DEADLINE, QUESTIONS_MAX, SLOW_ENTRIES_MAX};
use crate::proxy::Proxy;
use crate::proxy::client::{Client, Phase};
use crate::proxy::local::REDIS_VERSION;
use crate::proxy::replies::Sequence;
use crate::proxy::request::{Flow, Request};
use crate::proxy::shared::{Shared, Timer, key_of};
use crate::slab::SlabKey;
use crate::stats::{
    Answer, ClientFilter, Histogram, PoolFigures, Query, Question, Round, SeenRow, WorkerFigures,
};
use crate::wire::resp::{encode, parse_integer};

/// Entries that `SLOWLOG GET` shows unless it is told how many.
const SLOW_ENTRIES_SHOWN: usize = 10;

/// What a client of memcached is told when its question can't be answered.
const MEMCACHE_TRY_AGAIN: &[u8] = b"SERVER_ERROR the workers do not answer; try again\r\n";

/// What a client has asked about all workers.
#[derive(Debug)]
struct Waiting {
    client: ConnId,
    sequence: Sequence,
    question: Question,
    form: Form,
}

/// What the answer looks like.
#[derive(Debug)]
enum Form {
    /// At most so many entries.
    SlowGet(usize),
    SlowLen,
    Ok,
    ClientList,
    /// How many were killed.
    KillCount,
    /// `+OK`, or that there was none.
    KillOne,
    /// The commands that are wanted, all if there are none.
    Times {
        pool: PoolId,
        wanted: Vec<Vec<u8>>,
        is_resp3: bool,
    },
    Info {
        pool: PoolId,
    },
    /// As memcached's `stats`.
    MemcacheStats {
        pool: PoolId,
    },
}

/// The questions of a worker's clients.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    fresh: VecDeque<Waiting>,
    under_way: BTreeMap<Query, (Waiting, Round)>,
    next: u64,
}

impl Asked {
    /// Tells whether a client waits for an answer.
    pub(crate) fn is_asking(&self, client: SlabKey) -> bool {
        self.under_way.values().any(|(waiting, _)| key_of(waiting.client) == client)
    }

    /// Tells whether a question has not been put yet.
    pub(crate) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }
}

impl Shared {
    fn ask(&mut self, client: &mut Client, question: Question, form: Form) -> Flow {
        if self.asked.fresh.len() + self.asked.under_way.len() >= QUESTIONS_MAX {
            let reply = if client.is_memcache {
                MEMCACHE_TRY_AGAIN
            } else {
                b"-ERR too many clients ask about clients and figures; try again\r\n"
            };
            self.reply(client, reply);
            return Flow::Next;
        }
        let sequence = client.replies.push_split();
        let client = client.id;
        self.asked.fresh.push_back(Waiting { client, sequence, question, form });
        Flow::Next
    }

    /// `SLOWLOG GET [count] | LEN | RESET`, of the client's own pool.
    pub(crate) fn slowlog(&mut self, client: &mut Client, request: Request<'_>) -> Flow {
        let is = |name: &[u8]| request.arg(1).eq_ignore_ascii_case(name);
        let count = request.args.len();
        let pool = Some(self.pool_name(client.pool));
        if is(b"GET") && count <= 3 {
            let most = match (count, parse_integer(request.arg(2))) {
                (2, _) => SLOW_ENTRIES_SHOWN,
                (_, Some(-1)) => usize::MAX,
                (_, Some(most)) if most >= 0 => usize::try_from(most).unwrap_or(usize::MAX),
                (_, _) => {
                    let message = b"ERR count should be greater than or equal to -1";
                    return self.refuse(client, &[message]);
                }
            };
            self.ask(client, Question::Slow(pool), Form::SlowGet(most))
        } else if is(b"LEN") && count == 2 {
            self.ask(client, Question::Slow(pool), Form::SlowLen)
        } else if is(b"RESET") && count == 2 {
            self.ask(client, Question::ForgetSlow(pool), Form::Ok)
        } else {
            let message = b"ERR the proxy's SLOWLOG takes GET [count], LEN or RESET";
            self.refuse(client, &[message])
        }
    }

    /// `LATENCY HISTOGRAM [command …]`, of the client's own pool.
    pub(crate) fn latency(&mut self, client: &mut Client, request: Request<'_>) -> Flow {
        if !request.arg(1).eq_ignore_ascii_case(b"HISTOGRAM") {
            let message = b"ERR the proxy's LATENCY takes HISTOGRAM [command ...] only";
            return self.refuse(client, &[message]);
        }
        let wanted = (2..request.args.len()).map(|at| request.arg(at).to_ascii_lowercase());
        let form =
            Form::Times { pool: client.pool, wanted: wanted.collect(), is_resp3: client.is_resp3 };
        self.ask(client, Question::Figures, form)
    }

    /// `INFO`: the proxy's own state, in the form of Redis' `INFO`.
    pub(crate) fn info(&mut self, client: &mut Client) -> Flow {
        self.ask(client, Question::Figures, Form::Info { pool: client.pool })
    }

    /// memcached's `stats`.
    pub(crate) fn ask_memcache_stats(&mut self, client: &mut Client) -> Flow {
        self.ask(client, Question::Figures, Form::MemcacheStats { pool: client.pool })
    }

    /// `CLIENT LIST [TYPE normal] [ID id …]`, of the client's own pool.
    pub(crate) fn client_list(&mut self, client: &mut Client, request: Request<'_>) -> Flow {
        let mut filter = ClientFilter::default();
        let option = request.arg(2);
        if option.eq_ignore_ascii_case(b"ID") && request.args.len() > 3 {
            for at in 3..request.args.len() {
                let Some(id) = parse_integer(request.arg(at)).and_then(|id| u64::try_from(id).ok())
                else {
                    return self.refuse(client, &[b"ERR Invalid client ID"]);
                };
                filter.ids.push(id);
            }
        } else if option.eq_ignore_ascii_case(b"TYPE") && request.args.len() == 4 {
            if !request.arg(3).eq_ignore_ascii_case(b"normal") {
                // There are none of the other types.
                filter.ids.push(0);
            }
        } else if request.args.len() > 2 {
            return self.refuse(client, &[b"ERR syntax error"]);
        }
        let pool = Some(self.pool_name(client.pool));
        self.ask(client, Question::Clients(pool, filter), Form::ClientList)
    }

    /// `CLIENT KILL address` or `CLIENT KILL filter value …`, of the client's own pool.
    pub(crate) fn client_kill(&mut self, client: &mut Client, request: Request<'_>) -> Flow {
        let pool = Some(self.pool_name(client.pool));
        if request.args.len() == 3 {
            let address = String::from_utf8_lossy(request.arg(2)).into_owned();
            let filter = ClientFilter { address: Some(address), ..ClientFilter::default() };
            return self.ask(client, Question::Kill(pool, filter), Form::KillOne);
        }
        match self.kill_filter(client, request) {
            Ok(filter) => self.ask(client, Question::Kill(pool, filter), Form::KillCount),
            Err(message) => self.refuse(client, &[message]),
        }
    }

    fn kill_filter(
        &self,
        client: &Client,
        request: Request<'_>,
    ) -> Result<ClientFilter, &'static [u8]> {
        let own = client.number;
        let mut filter = ClientFilter { except: Some(own), ..ClientFilter::default() };
        let mut at = 2;
        while at < request.args.len() {
            if at + 1 >= request.args.len() {
                return Err(b"ERR syntax error");
            }
            let (option, value) = (request.arg(at), request.arg(at + 1));
            at += 2;
            let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
            let number = || parse_integer(value).and_then(|number| u64::try_from(number).ok());
            if is(b"ID") {
                let id = number().filter(|id| *id > 0);
                filter.ids = vec![id.ok_or(b"ERR client-id should be greater than 0".as_slice())?];
            } else if is(b"ADDR") {
                filter.address = Some(String::from_utf8_lossy(value).into_owned());
            } else if is(b"MAXAGE") {
                let age = number();
                filter.age_min = Some(age.ok_or(b"ERR maxage is not an integer".as_slice())?);
            } else if is(b"SKIPME") && value.eq_ignore_ascii_case(b"no") {
                filter.except = None;
            } else if is(b"SKIPME") && value.eq_ignore_ascii_case(b"yes") {
                filter.except = Some(own);
            } else if is(b"TYPE") && value.eq_ignore_ascii_case(b"normal")
                || is(b"USER") && value.eq_ignore_ascii_case(b"default")
            {
                // All are.
            } else {
                return Err(b"ERR syntax error");
            }
        }
        Ok(filter)
    }
}

impl Proxy {
    /// Puts the oldest question of a client that has not been put yet.
    pub(crate) fn put_question(&mut self) {
        let Some(waiting) = self.shared.asked.fresh.pop_front() else { return };
        let query = Query(self.shared.asked.next);
        self.shared.asked.next += 1;
        let question = waiting.question.clone();
        let workers = usize::from(self.shared.plan.workers).max(1);
        self.shared.asked.under_way.insert(query, (waiting, Round::new(workers)));
        if workers == 1 {
            let answer = self.answer_question(&question);
            self.take_answer(query, self.shared.id, answer);
            return;
        }
        let from = Recipient::Worker(self.shared.id);
        let notice = Notice::Question { from, query, question };
        self.shared.outbox.push(Output::Notice { to: Recipient::Data, notice });
        let deadline = self.shared.now + ANSWER_DEADLINE;
        self.shared.timers.arm(deadline, Timer::Answers(query));
    }

    /// Takes what a worker, perhaps this one, answers to a client's question.
    pub(crate) fn take_answer(&mut self, query: Query, from: WorkerId, answer: Answer) {
        // Late: the client has had its reply.
        let Some((_, round)) = self.shared.asked.under_way.get_mut(&query) else { return };
        if round.take(from, answer) {
            self.end_question(query);
        }
    }

    /// Answers a client with what has come so far.
    pub(crate) fn end_question(&mut self, query: Query) {
        let Some((waiting, round)) = self.shared.asked.under_way.remove(&query) else { return };
        let Some(client) = self.clients.get_mut(key_of(waiting.client)) else { return };
        if client.phase == Phase::Closing {
            return;
        }
        let shared = &mut self.shared;
        let mut text = shared.buffers.take();
        let workers = u64::from(shared.plan.workers.max(1));
        match round.finish() {
            Some(answer) => shared.encode_answer(&waiting.form, answer, workers, &mut text),
            None if client.is_memcache => text.extend_from_slice(MEMCACHE_TRY_AGAIN),
            None => encode::error(&mut text, "ERR no worker has answered in time; try again"),
        }
        client.replies.complete(waiting.sequence, &text, &mut client.out, &mut shared.buffers);
        shared.buffers.give(text);
        shared.after_reply(client);
        self.finish_look(key_of(waiting.client));
    }
}

impl Shared {
    fn encode_answer(&self, form: &Form, answer: Answer, workers: u64, out: &mut Vec<u8>) {
        match (form, answer) {
            (Form::SlowGet(most), Answer::Seen(rows)) => {
                let shown = rows.len().min(*most).min(SLOW_ENTRIES_MAX);
                encode::array_header(out, shown);
                rows.iter().take(shown).for_each(|row| encode_slow(row, workers, out));
            }
            (Form::SlowLen, Answer::Seen(rows)) => {
                encode::integer(out, integer(rows.len().min(SLOW_ENTRIES_MAX) as u64));
            }
            (Form::Ok, _) => encode::simple(out, "OK"),
            (Form::ClientList, Answer::Clients(rows)) => {
                let mut text = String::with_capacity(rows.len() * 256);
                rows.iter().for_each(|row| row.write(&mut text));
                encode::bulk(out, text.as_bytes());
            }
            (Form::KillCount, Answer::Done(count)) => encode::integer(out, integer(count)),
            (Form::KillOne, Answer::Done(0)) => encode::error(out, "ERR No such client"),
            (Form::KillOne, Answer::Done(_)) => encode::simple(out, "OK"),
            (Form::Times { pool, wanted, is_resp3 }, Answer::Figures(workers)) => {
                let pools = WorkerFigures::sum_pools(&workers);
                let own = self.pool_name(*pool);
                let pool = pools.iter().find(|pool| pool.name == own);
                encode_times(pool, wanted, *is_resp3, out);
            }
            (Form::Info { pool }, Answer::Figures(workers)) => {
                let pools = WorkerFigures::sum_pools(&workers);
                encode::bulk(out, self.info_text(*pool, &pools, &workers).as_bytes());
            }
            (Form::MemcacheStats { pool }, Answer::Figures(workers)) => {
                let pools = WorkerFigures::sum_pools(&workers);
                let name = self.pool_name(*pool);
                let pool = pools.iter().find(|pool| pool.name == name);
                let made = workers.iter().map(|worker| worker.connections_made).sum();
                out.extend_from_slice(self.memcache_stats(pool, made).as_bytes());
            }
            (Form::MemcacheStats { .. }, _) => out.extend_from_slice(MEMCACHE_TRY_AGAIN),
            (
                Form::SlowGet(_)
                | Form::SlowLen
                | Form::ClientList
                | Form::KillCount
                | Form::KillOne
                | Form::Times { .. }
                | Form::Info { .. },
                _,
            ) => encode::error(out, "ERR the workers have answered something else"),
        }
    }

    fn info_text(
        &self,
        pool: PoolId,
        pools: &[PoolFigures],
        workers: &[std::sync::Arc<WorkerFigures>],
    ) -> String {
        let mut text = String::with_capacity(2048);
        let uptime = self.now.as_nanos() / 1_000_000_000;
        // Writing to a String can't fail.
        let _ = write!(
            text,
            "# Server\r\nredis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\n\
             ringkeeper_version:{}\r\nprocess_id:{}\r\nuptime_in_seconds:{uptime}\r\n\
             workers:{}\r\nworkers_answering:{}\r\n\r\n# Replication\r\nrole:master\r\n",
            self.plan.version,
            self.plan.process_id,
            self.plan.workers.max(1),
            workers.len(),
        );
        let clients: u64 = pools.iter().map(|pool| pool.stats.client_connections).sum();
        let made: u64 = workers.iter().map(|worker| worker.connections_made).sum();
        let _ = write!(
            text,
            "\r\n# Clients\r\nconnected_clients:{clients}\r\n\r\n# Stats\r\n\
             total_connections_received:{made}\r\n",
        );
        let name = self.pool_name(pool);
        if let Some(pool) = pools.iter().find(|pool| pool.name == name) {
            write_pool(&mut text, pool);
        }
        text
    }
}

fn write_pool(text: &mut String, pool: &PoolFigures) {
    let stats = &pool.stats;
    let requests: u64 = pool.servers.iter().map(|server| server.stats.requests).sum();
    let _ = write!(
        text,
        "total_commands_processed:{}\r\ntotal_net_input_bytes:{}\r\n\
         total_net_output_bytes:{}\r\n\r\n# Pool\r\npool_name:{}\r\npool_epoch:{}\r\n\
         pool_clients:{}\r\npool_errors:{}\r\npool_ejections:{}\r\npool_fragments:{}\r\n\
         \r\n# Servers\r\n",
        requests + stats.local_replies,
        stats.client_received_bytes,
        stats.client_sent_bytes,
        pool.name,
        pool.epoch,
        stats.client_connections,
        stats.forward_error,
        stats.server_ejects,
        stats.fragments,
    );
    for (at, server) in pool.servers.iter().enumerate() {
        let _ = write!(
            text,
            "server{at}:name={},in_ring={},requests={},replies={},timeouts={}\r\n",
            server.name,
            u8::from(server.is_in_ring),
            server.stats.requests,
            server.stats.responses,
            server.stats.server_timedout,
        );
    }
}

/// Appends an entry as `SLOWLOG GET` has it. Arguments behind the first are not kept, and are
/// counted as bytes, as Redis does with long ones.
fn encode_slow(row: &SeenRow, workers: u64, out: &mut Vec<u8>) {
    encode::array_header(out, 6);
    encode::integer(out, integer(row.number * workers + u64::from(row.worker.0)));
    encode::integer(out, integer(row.unix_micros / 1_000_000));
    encode::integer(out, i64::try_from(row.duration.as_micros()).unwrap_or(i64::MAX));
    let key = row.key.bytes();
    let known = row.command.len() + key.len();
    let rest = usize::try_from(row.request_bytes).unwrap_or(usize::MAX).saturating_sub(known);
    let has_key = !key.is_empty();
    encode::array_header(out, 2 + usize::from(has_key));
    encode::bulk(out, row.command.as_bytes());
    if has_key {
        encode::bulk(out, key);
    }
    let shown =
        format!("... ({rest} more bytes, {} of the reply, {})", row.reply_bytes, row.server);
    encode::bulk(out, shown.as_bytes());
    encode::bulk(out, row.client.as_bytes());
    encode::bulk(out, row.client_name.as_deref().unwrap_or_default());
}

/// Appends what `LATENCY HISTOGRAM` says: for each command how often it was called, and how often
/// within each power of two of microseconds, those without a change left out.
fn encode_times(pool: Option<&PoolFigures>, wanted: &[Vec<u8>], is_resp3: bool, out: &mut Vec<u8>) {
    let map = |out: &mut Vec<u8>, pairs: usize| {
        if is_resp3 { encode::map_header(out, pairs) } else { encode::array_header(out, pairs * 2) }
    };
    let is_wanted =
        |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name.as_bytes());
    let used: Vec<(&str, &Histogram)> = pool
        .into_iter()
        .flat_map(|pool| &pool.commands)
        .filter(|(name, _)| is_wanted(name))
        .map(|(name, times)| (*name, times))
        .collect();
    map(out, used.len());
    for (name, times) in used {
        encode::bulk(out, name.as_bytes());
        map(out, 2);
        encode::bulk(out, b"calls");
        encode::integer(out, integer(times.count()));
        encode::bulk(out, b"histogram_usec");
        let steps = steps(times);
        map(out, steps.len());
        for (micros, count) in steps {
            encode::integer(out, integer(micros));
            encode::integer(out, integer(count));
        }
    }
}

/// Returns the powers of two of microseconds at which the count of times within them rises, up to
/// the one that holds all.
fn steps(times: &Histogram) -> Vec<(u64, u64)> {
    let mut steps = Vec::new();
    let mut before = 0;
    for power in 0..=LONGEST_POWER {
        let micros = 1_u64 << power;
        let count = if power == LONGEST_POWER {
            times.count()
        } else {
            times.count_within(std::time::Duration::from_micros(micros))
        };
        if count > before {
            steps.push((micros, count));
            before = count;
        }
    }
    steps
}

/// The last bound: 2^27 µs, 134 s; what took longer is counted there too.
const LONGEST_POWER: u32 = 27;

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
