//! What the admin listener takes and what it shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary as _, Unstructured};
use ringkeeper_core::admin::metrics::{Gathered, render};
use ringkeeper_core::admin::status::{problem, status};
use ringkeeper_core::admin::watch::Watched;
use ringkeeper_core::admin::{Access, Admin, AdminPlan, AdminRole, Facts, Reload};
use ringkeeper_core::id::{ConnId, WorkerId};
use ringkeeper_core::io::{Notice, Output};
use ringkeeper_core::stats::json::{Header, stats_line};
use ringkeeper_core::stats::{
    Answer, Class, Histogram, PoolFigures, PoolStats, Question, ServerFigures, ServerQueues,
    ServerStats, WorkerFigures,
};
use ringkeeper_core::time::Instant;
use ringkeeper_core::wire::http;

/// Requests: cuts change nothing, what is read lies in the bytes, and the listener answers the same
/// however its bytes are cut.
///
/// The first byte is the chunk size.
pub(crate) fn http(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let whole = http::request(bytes);
    if let Ok(Some(request)) = &whole {
        assert!(request.len <= bytes.len() && request.body.len() <= request.len);
        assert_eq!(http::request(&bytes[..request.len]), whole, "what follows is another's");
        for end in 0..request.len {
            assert_eq!(http::request(&bytes[..end]), Ok(None), "{end}");
        }
        if let Some(host) = request.host {
            http::is_own_host(host, &[]);
            http::is_same_origin(request.origin.unwrap_or_default(), host);
        }
    }
    assert_eq!(served(bytes, usize::from(size).max(1)), served(bytes, bytes.len().max(1)));
}

/// Returns what the listener says to bytes that come in chunks.
fn served(bytes: &[u8], size: usize) -> (Vec<u8>, bool) {
    let access = Access { token: Some(b"token".to_vec()), host_names: Vec::new() };
    let plan = AdminPlan { facts: Facts::default(), access, workers: 1 };
    let now = Instant::START;
    let mut admin = Admin::new(Arc::new(plan), now);
    let id = admin.accept(now, AdminRole::Http { is_unix: false }).unwrap();
    let (mut said, mut is_closed) = (Vec::new(), false);
    for chunk in bytes.chunks(size) {
        if !is_closed {
            admin.received(now, id, chunk);
            pump(&mut admin, id, &mut said, &mut is_closed);
        }
    }
    if !is_closed {
        admin.eof(now, id);
        pump(&mut admin, id, &mut said, &mut is_closed);
    }
    assert!(is_closed, "all is answered at once, so nothing keeps the connection");
    (said, is_closed)
}

/// Carries out what the listener wants; the worker answers at once.
fn pump(admin: &mut Admin, id: ConnId, said: &mut Vec<u8>, is_closed: &mut bool) {
    let now = Instant::START;
    while let Some(output) = admin.poll_output() {
        match output {
            Output::Transmit { conn, buffer } => {
                assert!(conn == id && !buffer.is_empty() && !*is_closed);
                said.extend_from_slice(&buffer);
                admin.sent(now, id, buffer);
            }
            Output::Close { .. } => {
                *is_closed = true;
                admin.closed(now, id);
            }
            Output::Notice { notice: Notice::Question { query, question, .. }, .. } => {
                let answer = match question {
                    Question::Figures | Question::Health => Answer::Figures(Vec::new()),
                    Question::Slow(_) | Question::Samples(_) => Answer::Seen(Vec::new()),
                    Question::Clients(..) => Answer::Clients(Vec::new()),
                    Question::Keys => Answer::Keys(None),
                    Question::ForgetSlow(_) | Question::Kill(..) | Question::WatchKeys(_) => {
                        Answer::Done(1)
                    }
                };
                admin.answered(now, query, WorkerId(0), answer);
            }
            Output::PauseRead(_) | Output::ResumeRead(_) => {}
            other @ (Output::Connect { .. }
            | Output::Release { .. }
            | Output::EndWrite(_)
            | Output::Resolve { .. }
            | Output::OpenChannel { .. }
            | Output::CloseChannel(_)
            | Output::Datagram { .. }
            | Output::Event(_)
            | Output::Errand(_)
            | Output::Notice { .. }) => panic!("{other:?}"),
        }
    }
}

/// Figures of any workers, with any names and numbers: what is shown is well formed, and adding up
/// loses nothing.
pub(crate) fn stats(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let count = bytes.int_in_range(1..=4).unwrap_or(1);
    let workers: Vec<_> = (0..count).map(|at| Arc::new(worker(at, &mut bytes))).collect();
    let pools = WorkerFigures::sum_pools(&workers);
    let sum = |pools: &[PoolFigures]| {
        let servers = pools.iter().flat_map(|pool| &pool.servers);
        servers.map(|server| u128::from(server.stats.requests)).sum::<u128>()
    };
    assert_eq!(sum(&pools), workers.iter().map(|worker| sum(&worker.pools)).sum::<u128>());
    let facts = Facts { version: text(&mut bytes), ..Facts::default() };
    let reload = Reload { is_good: true, unix_seconds: 0 };
    let watched = Watched::default();
    let all = Gathered {
        facts: &facts,
        reload,
        workers_due: 4,
        workers: &workers,
        pools: &pools,
        watched: &watched,
        routers: &[],
        balance: &[],
    };
    render(&all).lines().for_each(check_line);
    problem(&all);
    let read: serde_json::Value = serde_json::from_str(&status(&all, 1)).unwrap();
    assert_eq!(read["pools"].as_array().unwrap().len(), pools.len());
    let header = Header {
        source: &facts.version,
        version: "0.5.0",
        uptime: 0,
        timestamp: 0,
        total_connections: 0,
        curr_connections: 0,
    };
    let line = stats_line(&header, &pools);
    let read: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(read.is_object() && line.matches('\n').count() == 1 && line.ends_with('\n'));
}

fn text(bytes: &mut Unstructured<'_>) -> String {
    String::arbitrary(bytes).unwrap_or_default()
}

fn number(bytes: &mut Unstructured<'_>) -> u64 {
    // Counters start at zero and no process lives long enough to fill one.
    u64::arbitrary(bytes).unwrap_or_default() >> 16
}

fn worker(at: u16, bytes: &mut Unstructured<'_>) -> WorkerFigures {
    let count = bytes.int_in_range(0..=3).unwrap_or(0);
    WorkerFigures {
        worker: WorkerId(at),
        unix_micros: number(bytes),
        connections_made: number(bytes),
        connections_open: number(bytes),
        input_bytes: number(bytes),
        output_bytes: number(bytes),
        is_draining: bool::arbitrary(bytes).unwrap_or(false),
        pools: (0..count).map(|_| pool(bytes)).collect(),
    }
}

fn pool(bytes: &mut Unstructured<'_>) -> PoolFigures {
    let count = bytes.int_in_range(0..=3).unwrap_or(0);
    PoolFigures {
        name: text(bytes).into(),
        epoch: number(bytes),
        is_draining: false,
        stats: PoolStats { client_eof: number(bytes), ..PoolStats::default() },
        commands: BTreeMap::from([("get", histogram(bytes))]),
        servers: (0..count).map(|_| server(bytes)).collect(),
    }
}

fn server(bytes: &mut Unstructured<'_>) -> ServerFigures {
    let durations: [Histogram; Class::COUNT] = std::array::from_fn(|_| histogram(bytes));
    ServerFigures {
        name: text(bytes).into(),
        ring_share: u32::arbitrary(bytes).unwrap_or(0),
        is_in_ring: bool::arbitrary(bytes).unwrap_or(false),
        is_failing: bool::arbitrary(bytes).unwrap_or(false),
        stats: ServerStats {
            requests: number(bytes),
            server_ejected_at: number(bytes),
            durations: Some(Box::new(durations)),
            ..ServerStats::default()
        },
        queues: ServerQueues { in_queue: number(bytes), ..ServerQueues::default() },
    }
}

fn histogram(bytes: &mut Unstructured<'_>) -> Histogram {
    let mut histogram = Histogram::default();
    let count = bytes.int_in_range(0..=5).unwrap_or(0);
    for _ in 0..count {
        histogram.record(u64::arbitrary(bytes).unwrap_or_default());
    }
    assert_eq!(histogram.count(), count);
    let (median, last) = (histogram.quantile(0.5), histogram.quantile(1.0));
    assert!(median <= last && last <= histogram.max());
    assert!(histogram.count_within(Duration::MAX) <= count);
    histogram
}

/// Checks a line of Prometheus' text format: a comment, or a name, labels and a number.
fn check_line(line: &str) {
    if line.starts_with("# HELP ") || line.starts_with("# TYPE ") {
        return;
    }
    let (name, value) = line.rsplit_once(' ').unwrap();
    assert!(value.parse::<f64>().is_ok(), "{line}");
    let Some((name, labels)) = name.split_once('{') else { return check_name(name) };
    check_name(name);
    let mut rest = labels.strip_suffix('}').unwrap();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").unwrap();
        check_name(label);
        let mut is_escaped = false;
        let end = after.find(|c| {
            let is_end = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        });
        let after = &after[end.unwrap() + 1..];
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

fn check_name(name: &str) {
    assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
}
