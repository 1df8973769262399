//! What a Sentinel reads, and a whole one among servers, peers and clients that say anything.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ringkeeper_core::buf::Buffer;
use ringkeeper_core::config::diagnostic::Severity;
use ringkeeper_core::config::render;
use ringkeeper_core::config::sentinel as conf;
use ringkeeper_core::id::{ConnId, JobId, ListenerId, QueryId, Ticket};
use ringkeeper_core::io::{
    Change, CloseMode, CloseReason, Drive, Endpoint, Errand, Exit, Input, Output, PersistError,
    ResolveError,
};
use ringkeeper_core::node::sentinel::SentinelWorker;
use ringkeeper_core::sentinel::ask::Answer;
use ringkeeper_core::sentinel::hello::Hello;
use ringkeeper_core::sentinel::info::Info;
use ringkeeper_core::sentinel::machine::Setup;
use ringkeeper_core::time::Instant;

/// Hellos: what is taken is written again byte by byte.
pub(crate) fn hello(data: &[u8]) {
    if let Ok(hello) = Hello::parse(data) {
        assert_eq!(hello.encode().as_bytes(), data);
    }
}

/// INFO of servers: what is behind the end of a line changes nothing in the lines before it.
pub(crate) fn info(data: &[u8]) {
    let read = Info::parse(data);
    assert_eq!(read, Info::parse(data));
    let Ok(info) = read else { return };
    // A line's end that is half there is completed, or it would be part of the line.
    let end: &[u8] = if data.ends_with(b"\r") { b"\n" } else { b"\r\n" };
    let more = [data, end, b"# Nothing\r\nno_such_field:1\r\n"].concat();
    assert_eq!(Info::parse(&more), Ok(info));
}

/// Answers of peers: what is taken is the same after it was written and read.
pub(crate) fn answer(data: &[u8]) {
    if let Ok(answer) = Answer::parse(data) {
        let mut bytes = Vec::new();
        answer.encode(&mut bytes);
        assert_eq!(Answer::parse(&bytes), Ok(answer));
    }
}

/// `sentinel.conf`: there is a configuration exactly when there is no error, every place is in the
/// text, and what is written back says the same.
pub(crate) fn conf(data: &[u8]) {
    let parsed = conf::parse_bytes("fuzz.conf", data);
    let has_errors = parsed.diagnostics.iter().any(|one| one.severity == Severity::Error);
    assert_eq!(parsed.config.is_none(), has_errors);
    let Ok(text) = std::str::from_utf8(data) else { return };
    for one in &parsed.diagnostics {
        assert!(text.get(one.span.clone()).is_some(), "{one:?}");
    }
    let _ = render::human("fuzz.conf", text, &parsed.diagnostics, false);
    let _ = render::json("fuzz.conf", &parsed.diagnostics);
    let Some(config) = parsed.config else { return };
    let written = conf::rewrite(text, &config);
    let again = conf::parse("fuzz.conf", &written).config;
    assert_eq!(again.as_ref(), Some(&config), "{written}");
    assert_eq!(conf::rewrite(&written, &config), written);
    // Rules of users are judged by whoever applies them.
    if let Err(found) = Setup::from_text("s.conf".into(), text) {
        assert!(found.iter().all(|one| one.code == "bad-user"), "{found:?}");
    }
}

const ME: &str = "1111111111111111111111111111111111111111";
const PEER: &str = "2222222222222222222222222222222222222222";

/// What servers and peers may say as they should.
const SPEECHES: [&str; 9] = [
    "+PONG\r\n",
    "+OK\r\n",
    ":1\r\n",
    "-BUSY x\r\n",
    "$51\r\nrun_id:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n#\r\n\r\n",
    "$78\r\nrole:master\r\nslave0:ip=127.0.0.1,port=7001,state=online,offset=1,lag=0\r\n#\r\n#\r\n\r\n",
    "$99\r\nrole:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:7000\r\nmaster_link_status:up\r\nslave_repl_offset:1\r\n\r\n",
    "*3\r\n:1\r\n$40\r\n2222222222222222222222222222222222222222\r\n:1\r\n",
    "$40\r\n2222222222222222222222222222222222222222\r\n",
];

/// One connection as a runtime sees it.
#[derive(Debug, Default)]
struct Line {
    in_flight: Option<Buffer>,
    is_open: bool,
    closing: Option<CloseMode>,
}

/// Runs one Sentinel.
struct Stage {
    worker: SentinelWorker,
    now: Instant,
    lines: BTreeMap<ConnId, Line>,
    files: VecDeque<Ticket>,
    queries: VecDeque<QueryId>,
    jobs: VecDeque<JobId>,
    clients: u16,
}

/// A stream of commands, replies, losses and time: nobody may make the machine panic, spin or
/// break the contract of the border.
pub(crate) fn machine(data: &[u8]) {
    let text = format!(
        "sentinel myid {ME}\nsentinel resolve-hostnames yes\nsentinel monitor m 127.0.0.1 7000 1\n\
         sentinel down-after-milliseconds m 1000\nsentinel known-replica m 127.0.0.1 7001\n\
         sentinel known-sentinel m 127.0.0.1 7777 {PEER}\nsentinel monitor n host.example 7002 2\n"
    );
    let setup = Setup::from_text("s.conf".into(), &text).unwrap();
    let now = Instant::from_nanos(1_000_000_000);
    let mut stage = Stage {
        worker: SentinelWorker::new(setup, 7, now),
        now,
        lines: BTreeMap::new(),
        files: VecDeque::new(),
        queries: VecDeque::new(),
        jobs: VecDeque::new(),
        clients: 0,
    };
    stage.take();
    let mut rest = data;
    while let [step, which, tail @ ..] = rest {
        let length = match step % 16 {
            2 | 6 => tail.len().min(usize::from(*step)),
            _ => 0,
        };
        let (bytes, tail) = tail.split_at(length);
        rest = tail;
        stage.step(*step, *which, bytes);
        stage.take();
    }
    // Whatever happened, it comes to rest in between.
    stage.pass(Duration::from_secs(20));
}

impl Stage {
    fn pick(&self, which: u8, is_wanted: impl Fn(ConnId, &Line) -> bool) -> Option<ConnId> {
        let found = self.lines.iter().filter(|(conn, line)| is_wanted(**conn, line));
        let found: Vec<ConnId> = found.map(|(conn, _)| *conn).collect();
        found.get(usize::from(which) % found.len().max(1)).copied()
    }

    fn step(&mut self, step: u8, which: u8, bytes: &[u8]) {
        let is_open = |_: ConnId, line: &Line| line.is_open && line.closing.is_none();
        let now = self.now;
        match step % 16 {
            0 => self.accept(),
            // A client.
            1 | 2 => {
                let is_client =
                    |conn: ConnId, line: &Line| is_open(conn, line) && !conn.is_server();
                let Some(conn) = self.pick(which, is_client) else { return };
                let words = bytes.to_vec();
                if !words.is_empty() {
                    self.worker.handle(now, Input::Received { conn, bytes: &words });
                }
            }
            3 | 4 => {
                let Some(conn) = self.pick(which, |_, line| !line.is_open) else { return };
                if self.lines[&conn].closing.is_some() {
                    return;
                }
                self.lines.get_mut(&conn).unwrap().is_open = true;
                let local = Some("127.0.0.1:50000".parse().unwrap());
                self.worker.handle(now, Input::Connected { conn, local });
            }
            // A server or a peer, as it should or not.
            5 | 7 | 8 => {
                let is_server = |conn: ConnId, line: &Line| is_open(conn, line) && conn.is_server();
                let Some(conn) = self.pick(which, is_server) else { return };
                let speech = SPEECHES[usize::from(which) % SPEECHES.len()];
                self.worker.handle(now, Input::Received { conn, bytes: speech.as_bytes() });
            }
            6 => {
                let is_server = |conn: ConnId, line: &Line| is_open(conn, line) && conn.is_server();
                let Some(conn) = self.pick(which, is_server) else { return };
                if !bytes.is_empty() {
                    self.worker.handle(now, Input::Received { conn, bytes });
                }
            }
            9 => {
                let Some(conn) = self.pick(which, is_open) else { return };
                self.worker.handle(now, Input::Eof { conn });
            }
            10 | 11 => {
                let Some(conn) = self.pick(which, |_, _| true) else { return };
                let reason =
                    [CloseReason::Refused, CloseReason::Reset, CloseReason::ConnectTimedOut];
                self.close(conn, reason[usize::from(which) % reason.len()]);
            }
            12 => {
                let Some(conn) = self.pick(which, |_, line| line.in_flight.is_some()) else {
                    return;
                };
                self.sent(conn);
            }
            13 => self.answer(which),
            14 => self.pass(Duration::from_millis(u64::from(which) * 10)),
            _ => self.pass(Duration::from_millis(u64::from(which) / 8)),
        }
    }

    fn accept(&mut self) {
        self.clients = self.clients.wrapping_add(1);
        let peer = Endpoint::Tcp(([127, 0, 0, 1], self.clients).into());
        if let Ok(conn) = self.worker.accept(self.now, ListenerId(0), peer) {
            let line = Line { is_open: true, ..Line::default() };
            assert!(self.lines.insert(conn, line).is_none(), "{conn:?} is taken");
        }
    }

    fn close(&mut self, conn: ConnId, reason: CloseReason) {
        if self.lines.remove(&conn).is_some() {
            self.worker.handle(self.now, Input::Closed { conn, reason });
        }
    }

    fn sent(&mut self, conn: ConnId) {
        let line = self.lines.get_mut(&conn).unwrap();
        let Some(buffer) = line.in_flight.take() else { return };
        self.worker.handle(self.now, Input::Sent { conn, buffer });
    }

    /// Answers what was asked of the host.
    fn answer(&mut self, which: u8) {
        let is_good = !which.is_multiple_of(4);
        if let Some(ticket) = self.files.pop_front() {
            let error = || PersistError { message: "disk full".to_owned() };
            let result = if is_good { Ok(()) } else { Err(error()) };
            self.worker.handle(self.now, Input::Persisted { ticket, result });
        }
        if let Some(query) = self.queries.pop_front() {
            let found = vec![([127, 0, 0, 1], 7002).into()];
            let result = if is_good { Ok(found) } else { Err(ResolveError::Temporary) };
            self.worker.handle(self.now, Input::Resolved { query, result });
        }
        if let Some(job) = self.jobs.pop_front() {
            let exit = Exit::Code(i32::from(which % 3));
            self.worker.handle(self.now, Input::Exited { job, exit });
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut rounds = 0;
        while let Some(due) = self.worker.poll_timeout().filter(|due| due.at <= until) {
            rounds = if due.at > self.now { 0 } else { rounds + 1 };
            assert!(rounds < 1000, "{} is due again and again", due.why);
            self.now = self.now.max(due.at);
            self.worker.handle_timeout(self.now);
            self.take();
        }
        self.now = until;
        self.worker.handle_timeout(self.now);
        self.take();
    }

    fn take(&mut self) {
        while let Some(output) = self.worker.poll_output() {
            match output {
                Output::Connect { conn, .. } => {
                    assert!(conn.is_server());
                    assert!(
                        self.lines.insert(conn, Line::default()).is_none(),
                        "{conn:?} is taken"
                    );
                }
                Output::Transmit { conn, buffer } => {
                    let line = self.lines.get_mut(&conn).unwrap();
                    assert!(line.is_open && line.closing.is_none() && line.in_flight.is_none());
                    assert!(!buffer.is_empty());
                    line.in_flight = Some(buffer);
                }
                Output::Close { conn, mode } => {
                    let line = self.lines.get_mut(&conn).unwrap();
                    assert!(line.closing.is_none() || mode == CloseMode::Abort);
                    line.closing = Some(mode);
                    if mode == CloseMode::Abort {
                        self.close(conn, CloseReason::Requested);
                    }
                }
                Output::Errand(Errand::Persist { ticket, change }) => {
                    if let Change::Replace { bytes, .. } = change {
                        let parsed = conf::parse_bytes("s.conf", &bytes);
                        assert!(parsed.config.is_some(), "{}", String::from_utf8_lossy(&bytes));
                    }
                    self.files.push_back(ticket);
                }
                Output::Errand(Errand::Run { job, .. }) => self.jobs.push_back(job),
                Output::Resolve { query, .. } => self.queries.push_back(query),
                // Who waits for a file waits until the end.
                Output::Event(_)
                | Output::Errand(Errand::Kill { .. } | Errand::Read { .. })
                | Output::Notice { .. } => {}
                other @ (Output::PauseRead(_)
                | Output::ResumeRead(_)
                | Output::EndWrite(_)
                | Output::Release { .. }
                | Output::OpenChannel { .. }
                | Output::CloseChannel(_)
                | Output::Datagram { .. }) => {
                    panic!("{other:?}")
                }
            }
        }
    }
}
