//! The admin listener and the statistics port, as a state machine.
//!
//! Whoever asks waits until all workers with clients have answered, or until the deadline; then the
//! page is written from what has come. One request of a connection is served at a time, so what a
//! connection costs is bounded by one page.

pub mod metrics;
mod page;
pub mod status;
pub mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use self::page::{Access, Page, ROUTES, Route};

use crate::buf::Buffer;
use crate::id::{ConnId, WorkerId};
use crate::io::{AtCapacity, CloseMode, Deadline, Notice, Output, Recipient, ShardNews};
use crate::limits::{
    ADMIN_CONNECTIONS_MAX, ADMIN_IDLE, ADMIN_UNSENT_BYTES_MAX, ANSWER_DEADLINE,
    HTTP_BODY_BYTES_MAX, HTTP_HEAD_BYTES_MAX, TAIL_INTERVAL, WATCH_INTERVAL,
};
use crate::slab::{Slab, SlabKey};
use crate::stats::json::{Header, stats_line};
use crate::stats::{
    Answer, PoolFigures, Query, Question, Round, RouterFigures, SeenRow, ServiceFigures, Told,
    WatchFigures, WorkerFigures, render_balance, render_routers,
};
use crate::time::Instant;
use crate::timer::Timers;
use crate::wire::http::{self, Body, Method, Request, Status};

use self::metrics::Gathered;
use self::watch::Watched;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const JSON_LINES: &str = "application/x-ndjson";
const EVENT_STREAM: &str = "text/event-stream";

/// The page for people: everything that it needs is in it.
const VIEW: &str = include_str!("view.html");

/// What is known of the process and does not change.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Our version.
    pub version: String,
    /// The version that the statistics port names.
    pub stats_version: String,
    /// The host's name.
    pub host_name: String,
    /// The process.
    pub process_id: u32,
    /// Seconds since 1970 at [`Instant::START`].
    pub started_unix_seconds: u64,
    /// What drives the sockets.
    pub backend: String,
    /// Why that was chosen.
    pub backend_reason: String,
    /// Sockets that listen, which the statistics port counts as connections.
    pub listeners: u64,
}

/// How the configuration was read the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Whether it came into use; if not, the one before is.
    pub is_good: bool,
    /// When, seconds since 1970.
    pub unix_seconds: u64,
}

/// What a listener of the control worker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminRole {
    /// The statistics port: one line, then the end.
    Stats,
    /// HTTP; over a unix socket, `is_unix`.
    Http {
        /// Browsers can't reach it.
        is_unix: bool,
    },
}

/// All that the machine needs to know at its birth.
#[derive(Clone, Debug, Default)]
pub struct AdminPlan {
    /// What does not change.
    pub facts: Facts,
    /// Who may do what.
    pub access: Access,
    /// Workers with clients.
    pub workers: u16,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request is awaited, or half there.
    Reading,
    /// The workers are being asked.
    Asking,
    /// Examples are sent as they come.
    Streaming,
    /// The status is sent again and again.
    Watching,
    /// The last reply is on its way.
    Ending,
    /// `Close` was said.
    Closing,
}

#[derive(Debug)]
struct Conn {
    id: ConnId,
    role: AdminRole,
    phase: Phase,
    input: Vec<u8>,
    out: Buffer,
    is_writing: bool,
    is_at_eof: bool,
    is_paused: bool,
    used_at: Instant,
    /// Examples up to this moment were sent, microseconds since 1970.
    shown_until: u64,
}

/// Who waits for answers, and what for.
#[derive(Debug)]
struct Waiting {
    conn: ConnId,
    page: Page,
    is_persistent: bool,
    is_to_head: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Answers(Query),
    Idle(ConnId),
    Tail,
    Watch,
}

/// The machine.
#[derive(Debug)]
pub struct Admin {
    plan: Arc<AdminPlan>,
    now: Instant,
    conns: Slab<Conn>,
    rounds: BTreeMap<Query, (Waiting, Round)>,
    next_query: u64,
    timers: Timers<Timer>,
    is_tail_armed: bool,
    is_watch_armed: bool,
    reload: Reload,
    /// Figures of the virtual routers, if this process has any.
    routers: Option<Arc<[RouterFigures]>>,
    /// Figures of virtual servers that are relayed.
    balance: Arc<[ServiceFigures]>,
    watched: Watched,
    outbox: VecDeque<Output>,
}

const fn key_of(conn: ConnId) -> SlabKey {
    SlabKey { index: conn.index(), generation: conn.generation() }
}

impl Admin {
    /// Makes the machine.
    pub fn new(plan: Arc<AdminPlan>, now: Instant) -> Self {
        let reload = Reload { is_good: true, unix_seconds: plan.facts.started_unix_seconds };
        Self {
            reload,
            routers: None,
            balance: Arc::default(),
            plan,
            now,
            conns: Slab::new(ADMIN_CONNECTIONS_MAX),
            rounds: BTreeMap::new(),
            next_query: 0,
            timers: Timers::new(),
            is_tail_armed: false,
            watched: Watched::default(),
            is_watch_armed: false,
            outbox: VecDeque::new(),
        }
    }

    /// Takes a connection in.
    ///
    /// # Errors
    ///
    /// [`AtCapacity`] when there are [`ADMIN_CONNECTIONS_MAX`] already.
    pub fn accept(&mut self, now: Instant, role: AdminRole) -> Result<ConnId, AtCapacity> {
        self.now = now;
        let name = |key: SlabKey| ConnId::client(key.index, key.generation);
        let key = self.conns.insert_with(|key| Conn {
            id: name(key),
            role,
            phase: Phase::Reading,
            input: Vec::new(),
            out: Buffer::new(),
            is_writing: false,
            is_at_eof: false,
            is_paused: false,
            used_at: now,
            shown_until: 0,
        });
        let id = name(key.ok_or(AtCapacity)?);
        match role {
            AdminRole::Stats => {
                let (page, is_persistent, is_to_head) = (Page::Stats, false, false);
                self.ask(Waiting { conn: id, page, is_persistent, is_to_head }, Question::Figures);
            }
            AdminRole::Http { .. } => self.timers.arm(now + ADMIN_IDLE, Timer::Idle(id)),
        }
        Ok(id)
    }

    /// Takes bytes of a connection.
    pub fn received(&mut self, now: Instant, id: ConnId, bytes: &[u8]) {
        self.now = now;
        let Some(conn) = self.conns.get_mut(key_of(id)) else { return };
        conn.used_at = now;
        match (conn.role, conn.phase) {
            // Whatever is said to the statistics port, and after the last request, is ignored.
            (AdminRole::Stats, _)
            | (_, Phase::Streaming | Phase::Watching | Phase::Ending | Phase::Closing) => {}
            (AdminRole::Http { .. }, Phase::Reading | Phase::Asking) => {
                conn.input.extend_from_slice(bytes);
                let is_long = conn.input.len() > HTTP_HEAD_BYTES_MAX + HTTP_BODY_BYTES_MAX;
                if is_long && !conn.is_paused && conn.phase == Phase::Asking {
                    conn.is_paused = true;
                    self.outbox.push_back(Output::PauseRead(id));
                }
                self.serve(id);
            }
        }
    }

    /// Takes the news that a connection sends nothing more.
    pub fn eof(&mut self, now: Instant, id: ConnId) {
        self.now = now;
        let Some(conn) = self.conns.get_mut(key_of(id)) else { return };
        conn.is_at_eof = true;
        match conn.phase {
            // A client that shuts its side down still wants the reply to what it asked.
            Phase::Asking | Phase::Ending | Phase::Closing => {}
            Phase::Reading | Phase::Streaming | Phase::Watching => {
                conn.phase = Phase::Ending;
                self.settle(id);
            }
        }
    }

    /// Takes a buffer back.
    pub fn sent(&mut self, now: Instant, id: ConnId, mut buffer: Buffer) {
        self.now = now;
        let Some(conn) = self.conns.get_mut(key_of(id)) else { return };
        conn.is_writing = false;
        conn.used_at = now;
        if conn.out.is_empty() && buffer.capacity() <= HTTP_HEAD_BYTES_MAX {
            buffer.clear();
            conn.out = buffer;
        }
        self.settle(id);
    }

    /// Takes the end of a connection.
    pub fn closed(&mut self, now: Instant, id: ConnId) {
        self.now = now;
        self.conns.remove(key_of(id));
        self.outbox.retain(|output| match output {
            Output::Transmit { conn, .. }
            | Output::PauseRead(conn)
            | Output::ResumeRead(conn)
            | Output::EndWrite(conn)
            | Output::Close { conn, .. }
            | Output::Release { conn, .. } => *conn != id,
            Output::Connect { .. }
            | Output::Resolve { .. }
            | Output::Event(_)
            | Output::Errand(_)
            | Output::OpenChannel { .. }
            | Output::CloseChannel(_)
            | Output::Datagram { .. }
            | Output::Notice { .. } => true,
        });
    }

    /// Takes the news that the configuration was read again.
    pub fn note_reload(&mut self, now: Instant, is_good: bool) {
        self.now = now;
        self.reload = Reload { is_good, unix_seconds: self.unix_micros() / 1_000_000 };
    }

    /// Takes the figures of the virtual routers.
    pub fn note_routers(&mut self, routers: Arc<[RouterFigures]>) {
        self.routers = Some(routers);
    }

    /// Takes the figures of the virtual servers.
    pub fn note_balance(&mut self, balance: Arc<[ServiceFigures]>) {
        self.balance = balance;
    }

    /// Tells whether somebody waits for a page.
    pub fn is_asked(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// Takes what is known of masters now.
    pub fn note_watch(&mut self, figures: WatchFigures) {
        self.watched.figures = Some(figures);
    }

    /// Takes what routing is told of a shard.
    pub fn note_shard(&mut self, now: Instant, news: &ShardNews) {
        self.now = now;
        self.watched.shards.insert(news.shard.to_string(), news.clone());
    }

    /// Takes what was told about a master.
    pub fn note_event(&mut self, now: Instant, name: &'static str, text: &str) {
        self.now = now;
        let unix_micros = self.unix_micros();
        self.watched.chronicle.note(Told { unix_micros, name, text: text.to_owned() });
    }

    /// Takes an answer of a worker.
    pub fn answered(&mut self, now: Instant, query: Query, from: WorkerId, answer: Answer) {
        self.now = now;
        // Late: whoever asked has had a reply.
        let Some((_, round)) = self.rounds.get_mut(&query) else { return };
        if round.take(from, answer) {
            self.end_round(query);
        }
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Answers(query) => self.end_round(query),
                Timer::Idle(id) => self.end_if_idle(id),
                Timer::Tail => self.ask_for_examples(),
                Timer::Watch => {
                    self.is_watch_armed = false;
                    self.ask_for_status();
                }
            }
        }
    }

    /// Gives the next effect out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// Returns when a timer is due.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let why = |timer| match timer {
            Timer::Answers(_) => "answers of workers",
            Timer::Idle(_) => "idle admin connection",
            Timer::Tail => "examples of requests",
            Timer::Watch => "status for those who watch",
        };
        self.timers.next().map(|(at, timer)| Deadline { at, why: why(timer) })
    }

    fn unix_micros(&self) -> u64 {
        self.plan.facts.started_unix_seconds * 1_000_000 + self.now.as_nanos() / 1_000
    }

    /// Serves the request at the start of a connection's input, if it is whole.
    fn serve(&mut self, id: ConnId) {
        let plan = Arc::clone(&self.plan);
        let Some(conn) = self.conns.get_mut(key_of(id)) else { return };
        let AdminRole::Http { is_unix } = conn.role else { return };
        if conn.phase != Phase::Reading || conn.input.is_empty() {
            return;
        }
        let input = std::mem::take(&mut conn.input);
        match http::request(&input) {
            Ok(None) => {
                conn.input = input;
            }
            Ok(Some(request)) => {
                let rest = input.get(request.len..).unwrap_or_default().to_vec();
                conn.input = rest;
                let admitted = plan.access.admit(&request, is_unix);
                self.serve_admitted(id, &request, admitted);
            }
            Err(refused) => {
                let why = "this is no request that is understood here\n";
                self.reply(id, refused.status(), TEXT, why.as_bytes(), false, false);
            }
        }
    }

    fn serve_admitted(
        &mut self,
        id: ConnId,
        request: &Request<'_>,
        admitted: Result<Page, (Status, &'static str)>,
    ) {
        let is_persistent = request.is_persistent;
        let is_to_head = request.method == Method::Head;
        let asked = admitted.and_then(|page| {
            let question = page.question(request.query);
            question.map(|it| (page, it)).map_err(|why| (Status::BadRequest, why))
        });
        match asked {
            Ok((page, Some(question))) => {
                if let Some(conn) = self.conns.get_mut(key_of(id)) {
                    conn.phase = Phase::Asking;
                }
                self.ask(Waiting { conn: id, page, is_persistent, is_to_head }, question);
            }
            Ok((Page::Tail, None)) if !is_to_head => self.begin_tail(id),
            Ok((Page::Events, None)) if !is_to_head => self.begin_watch(id),
            Ok((Page::View, None)) => {
                let text = VIEW.as_bytes();
                self.reply(id, Status::Ok, http::HTML, text, is_persistent, is_to_head);
            }
            Ok((_, None)) => {
                let text = index();
                self.reply(id, Status::Ok, TEXT, text.as_bytes(), is_persistent, is_to_head);
            }
            Err((status, why)) => {
                self.reply(id, status, TEXT, why.as_bytes(), is_persistent, is_to_head);
            }
        }
    }

    fn ask(&mut self, waiting: Waiting, question: Question) {
        let query = Query(self.next_query);
        self.next_query += 1;
        self.rounds.insert(query, (waiting, Round::new(usize::from(self.plan.workers))));
        let notice = Notice::Question { from: Recipient::Control, query, question };
        self.outbox.push_back(Output::Notice { to: Recipient::Data, notice });
        self.timers.arm(self.now + ANSWER_DEADLINE, Timer::Answers(query));
    }

    /// Writes the page from what has come.
    fn end_round(&mut self, query: Query) {
        let Some((waiting, round)) = self.rounds.remove(&query) else { return };
        if waiting.page == Page::Tail {
            if let Some(Answer::Seen(rows)) = round.finish() {
                self.show_examples(&rows);
            }
            return;
        }
        let (status, kind, body) = self.page(waiting.page, round);
        if waiting.page == Page::Events {
            self.show_status(&body);
            return;
        }
        let Waiting { conn, is_persistent, is_to_head, .. } = waiting;
        if waiting.page == Page::Stats
            && let Some(at) = self.conns.get_mut(key_of(conn))
            && at.role == AdminRole::Stats
        {
            at.out.extend_from_slice(body.as_bytes());
            at.phase = Phase::Ending;
            self.settle(conn);
            return;
        }
        self.reply(conn, status, kind, body.as_bytes(), is_persistent, is_to_head);
    }

    fn page(&self, page: Page, round: Round) -> (Status, &'static str, String) {
        let answer = round.finish();
        match (page, answer) {
            (
                Page::Metrics
                | Page::Status
                | Page::StatusText
                | Page::Explanation
                | Page::Events
                | Page::Stats
                | Page::Healthz
                | Page::Readyz,
                answer @ (None | Some(Answer::Figures(_))),
            ) => {
                let workers = match answer {
                    Some(Answer::Figures(workers)) => workers,
                    Some(_) | None => Vec::new(),
                };
                self.figures_page(page, &workers)
            }
            (Page::Slowlog, Some(Answer::Seen(rows))) => (Status::Ok, JSON, status::seen(&rows)),
            (Page::Keys, Some(Answer::Keys(found))) => {
                (Status::Ok, JSON, status::keys(found.as_ref()))
            }
            (Page::Clients, Some(Answer::Clients(rows))) => {
                (Status::Ok, JSON, status::clients(&rows))
            }
            (
                Page::ResetSlowlog | Page::WatchKeys | Page::UnwatchKeys | Page::KillClients,
                Some(Answer::Done(count)),
            ) => (Status::Ok, JSON, status::done(count)),
            (_, _) => (Status::Unavailable, TEXT, "no worker has answered in time\n".to_owned()),
        }
    }

    fn figures_page(
        &self,
        page: Page,
        workers: &[Arc<WorkerFigures>],
    ) -> (Status, &'static str, String) {
        let pools = WorkerFigures::sum_pools(workers);
        let (facts, workers_due) = (&self.plan.facts, self.plan.workers);
        let (reload, watched) = (self.reload, &self.watched);
        let routers = self.routers.as_deref().unwrap_or_default();
        let pools = pools.as_slice();
        let balance = &*self.balance;
        let all =
            Gathered { facts, reload, workers_due, workers, pools, watched, routers, balance };
        let verdict = |problem: Option<String>| match problem {
            Some(problem) => (Status::Unavailable, TEXT, problem),
            None => (Status::Ok, TEXT, "ok\n".to_owned()),
        };
        match page {
            Page::Metrics => {
                let mut text = metrics::render(&all);
                if let Some(routers) = &self.routers {
                    render_routers(routers, &mut text);
                }
                if !self.balance.is_empty() {
                    render_balance(&self.balance, &mut text);
                }
                (Status::Ok, metrics::KIND, text)
            }
            Page::Healthz => verdict(status::silent_worker(&all)),
            Page::Readyz => verdict(status::problem(&all)),
            Page::Explanation => (Status::Ok, TEXT, watch::explanation(&self.watched)),
            Page::StatusText => {
                let problem = status::problem(&all);
                let now = self.unix_micros() / 1_000_000;
                (Status::Ok, TEXT, watch::text(&all, problem.as_deref(), now))
            }
            Page::Stats => (Status::Ok, JSON, self.stats_line(workers, pools)),
            Page::Index
            | Page::View
            | Page::Status
            | Page::Events
            | Page::Slowlog
            | Page::Keys
            | Page::Clients
            | Page::Tail
            | Page::ResetSlowlog
            | Page::WatchKeys
            | Page::UnwatchKeys
            | Page::KillClients => {
                (Status::Ok, JSON, status::status(&all, self.unix_micros() / 1_000_000))
            }
        }
    }

    fn stats_line(&self, workers: &[Arc<WorkerFigures>], pools: &[PoolFigures]) -> String {
        let facts = &self.plan.facts;
        let uptime = self.now.as_nanos() / 1_000_000_000;
        let open: u64 = workers.iter().map(|worker| worker.connections_open).sum();
        let own = self.conns.len() as u64;
        let header = Header {
            source: &facts.host_name,
            version: &facts.stats_version,
            uptime,
            timestamp: facts.started_unix_seconds + uptime,
            total_connections: workers.iter().map(|worker| worker.connections_made).sum(),
            curr_connections: open + own + facts.listeners,
        };
        stats_line(&header, pools)
    }

    /// Appends a whole reply, and goes on with the connection.
    fn reply(
        &mut self,
        id: ConnId,
        status: Status,
        kind: &'static str,
        bytes: &[u8],
        is_persistent: bool,
        is_to_head: bool,
    ) {
        let Some(conn) = self.conns.get_mut(key_of(id)) else { return };
        if matches!(conn.phase, Phase::Closing | Phase::Ending) {
            return;
        }
        let is_persistent = is_persistent && !conn.is_at_eof;
        http::reply(&mut conn.out, status, Body { kind, bytes }, is_persistent, is_to_head);
        conn.phase = if is_persistent { Phase::Reading } else { Phase::Ending };
        self.settle(id);
    }

    /// Does what can be done for a connection: write, close, read on, serve the next request.
    fn settle(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(key_of(id)) else { return };
        if conn.phase == Phase::Closing || conn.is_writing {
            return;
        }
        if !conn.out.is_empty() {
            conn.is_writing = true;
            let buffer = std::mem::take(&mut conn.out);
            self.outbox.push_back(Output::Transmit { conn: id, buffer });
            return;
        }
        match conn.phase {
            Phase::Ending => {
                conn.phase = Phase::Closing;
                self.outbox.push_back(Output::Close { conn: id, mode: CloseMode::Flush });
            }
            Phase::Reading => {
                if std::mem::take(&mut conn.is_paused) {
                    self.outbox.push_back(Output::ResumeRead(id));
                }
                self.serve(id);
            }
            Phase::Asking | Phase::Streaming | Phase::Watching | Phase::Closing => {}
        }
    }

    fn end_if_idle(&mut self, id: ConnId) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(key_of(id)) else { return };
        let due = conn.used_at + ADMIN_IDLE;
        // A stream without examples is not idle: there may be no traffic.
        let is_stream = matches!(conn.phase, Phase::Streaming | Phase::Watching);
        let is_idle = due <= now && (!is_stream || conn.is_writing);
        if conn.phase == Phase::Closing {
            return;
        }
        if is_idle {
            conn.phase = Phase::Closing;
            self.outbox.push_back(Output::Close { conn: id, mode: CloseMode::Abort });
        } else {
            self.timers.arm(due.max(now + Duration::from_secs(1)), Timer::Idle(id));
        }
    }

    fn begin_tail(&mut self, id: ConnId) {
        let since = self.unix_micros();
        let Some(conn) = self.conns.get_mut(key_of(id)) else { return };
        conn.phase = Phase::Streaming;
        conn.shown_until = since;
        http::begin_stream(&mut conn.out, JSON_LINES);
        self.settle(id);
        self.arm_tail();
    }

    fn begin_watch(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(key_of(id)) else { return };
        conn.phase = Phase::Watching;
        http::begin_stream(&mut conn.out, EVENT_STREAM);
        self.settle(id);
        // The first one at once, for everybody; who watches already sees it a little early.
        self.ask_for_status();
    }

    /// Asks on behalf of all who watch, as long as there is one.
    fn ask_for_status(&mut self) {
        let watching = self.conns.iter().find(|(_, conn)| conn.phase == Phase::Watching);
        let Some(id) = watching.map(|(_, conn)| conn.id) else { return };
        let waiting =
            Waiting { conn: id, page: Page::Events, is_persistent: false, is_to_head: false };
        self.ask(waiting, Question::Figures);
        if !std::mem::replace(&mut self.is_watch_armed, true) {
            self.timers.arm(self.now + WATCH_INTERVAL, Timer::Watch);
        }
    }

    fn show_status(&mut self, status: &str) {
        let event = format!("data: {}\n\n", status.trim_end());
        let watching = self.conns.iter().filter(|(_, conn)| conn.phase == Phase::Watching);
        let watching: Vec<ConnId> = watching.map(|(_, conn)| conn.id).collect();
        for id in watching {
            let Some(conn) = self.conns.get_mut(key_of(id)) else { continue };
            // Who reads slower than this misses some: each event says everything.
            if conn.out.is_empty() {
                http::stream_piece(&mut conn.out, event.as_bytes());
                self.settle(id);
            }
        }
    }

    fn arm_tail(&mut self) {
        if !self.is_tail_armed {
            self.is_tail_armed = true;
            self.timers.arm(self.now + TAIL_INTERVAL, Timer::Tail);
        }
    }

    /// Asks for what nobody has seen yet, as long as somebody watches.
    fn ask_for_examples(&mut self) {
        self.is_tail_armed = false;
        let watching = self.conns.iter().filter(|(_, conn)| conn.phase == Phase::Streaming);
        let Some((id, since)) =
            watching.map(|(_, conn)| (conn.id, conn.shown_until)).min_by_key(|(_, since)| *since)
        else {
            return;
        };
        let waiting =
            Waiting { conn: id, page: Page::Tail, is_persistent: false, is_to_head: false };
        self.ask(waiting, Question::Samples(since));
        self.arm_tail();
    }

    fn show_examples(&mut self, rows: &[SeenRow]) {
        let watching = self.conns.iter().filter(|(_, conn)| conn.phase == Phase::Streaming);
        let watching: Vec<ConnId> = watching.map(|(_, conn)| conn.id).collect();
        for id in watching {
            let Some(conn) = self.conns.get_mut(key_of(id)) else { continue };
            if conn.out.len() > ADMIN_UNSENT_BYTES_MAX {
                // It reads slower than examples come, and misses some.
                continue;
            }
            // Answers have the newest first.
            for row in rows.iter().rev().filter(|row| row.unix_micros > conn.shown_until) {
                http::stream_piece(&mut conn.out, status::seen_line(row).as_bytes());
            }
            let newest = rows.first().map_or(0, |row| row.unix_micros);
            conn.shown_until = conn.shown_until.max(newest);
            self.settle(id);
        }
    }
}

/// Lists the pages.
fn index() -> String {
    let mut text = String::from("ringkeeper\n\n");
    for route in ROUTES {
        let method = if route.is_change { "POST" } else { "GET" };
        text.push_str(&format!("{method:<5}{:<18}{}\n", route.path, route.about));
    }
    text.push_str("\nPOST needs the token: Authorization: Bearer TOKEN\n");
    text
}
