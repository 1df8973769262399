//! `ringkeeper top`: what the admin page shows, in a terminal.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};
use serde_json::Value;

use super::status;
use crate::host::admin::AdminPlace;
use crate::host::reason;

/// Events shown at the bottom.
const EVENTS_SHOWN: usize = 12;

/// Requests of every pool and server so far, by name, when they were read.
type Counts = BTreeMap<String, u64>;

/// What was read last, and how fast it changes.
#[derive(Default)]
struct View {
    status: Value,
    /// Why there is nothing newer.
    problem: Option<String>,
    rates: BTreeMap<String, f64>,
    before: Option<(Instant, Counts)>,
}

/// Shows the status until somebody presses `q`.
///
/// # Errors
///
/// What to tell the operator.
pub(super) fn run(place: &AdminPlace, interval: Duration) -> Result<(), String> {
    if !io::stdout().is_terminal() {
        return Err("top needs a terminal; `ringkeeper status` prints the same once".to_owned());
    }
    // Before the screen is taken: a service that is not there is better told in the shell.
    let first = status::page(place, "/status.json")?;
    let mut view = View::default();
    view.take(Instant::now(), Ok(first));
    let mut terminal = ratatui::try_init().map_err(|error| reason(&error))?;
    let result = watch(&mut terminal, place, interval, &mut view);
    ratatui::restore();
    result.map_err(|error| reason(&error))
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    place: &AdminPlace,
    interval: Duration,
    view: &mut View,
) -> io::Result<()> {
    loop {
        terminal.draw(|frame| draw(frame, view))?;
        let due = Instant::now() + interval;
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            if !event::poll(left)? {
                break;
            }
            match event::read()? {
                Event::Key(key) if is_end(key.code, key.modifiers) => return Ok(()),
                Event::Resize(..) => {
                    terminal.draw(|frame| draw(frame, view))?;
                }
                Event::Key(_)
                | Event::FocusGained
                | Event::FocusLost
                | Event::Mouse(_)
                | Event::Paste(_) => {}
            }
        }
        view.take(Instant::now(), status::page(place, "/status.json"));
    }
}

fn is_end(code: KeyCode, modifiers: KeyModifiers) -> bool {
    matches!(code, KeyCode::Char('q') | KeyCode::Esc)
        || (code == KeyCode::Char('c') && modifiers.contains(KeyModifiers::CONTROL))
}

impl View {
    /// Takes what was read; what was there before stays if nothing could be.
    fn take(&mut self, now: Instant, page: Result<String, String>) {
        let read = page.and_then(|text| {
            serde_json::from_str(&text).map_err(|error| format!("that is no status: {error}"))
        });
        match read {
            Ok(status) => {
                self.status = status;
                self.problem = None;
            }
            Err(problem) => {
                self.problem = Some(problem);
                return;
            }
        }
        let counts = counts(&self.status);
        if let Some((then, before)) = &self.before {
            let seconds = now.saturating_duration_since(*then).as_secs_f64().max(0.001);
            let rate = |(name, count): (&String, &u64)| {
                // A figure that fell has begun anew: the process was replaced.
                let more = count.saturating_sub(before.get(name).copied().unwrap_or(*count));
                #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
                let rate = more as f64 / seconds;
                (name.clone(), rate)
            };
            self.rates = counts.iter().map(rate).collect();
        }
        self.before = Some((now, counts));
    }

    fn rate(&self, name: &str) -> String {
        self.rates.get(name).map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}"))
    }
}

fn counts(status: &Value) -> Counts {
    let mut counts = Counts::new();
    for pool in list(status, "pools") {
        let mut sum = number(pool, "local_replies");
        for server in list(pool, "servers") {
            let requests = number(server, "requests");
            sum += requests;
            counts.insert(server_key(pool, server), requests);
        }
        counts.insert(text(pool, "name").to_owned(), sum);
    }
    counts
}

fn server_key(pool: &Value, server: &Value) -> String {
    format!("{}\n{}", text(pool, "name"), text(server, "name"))
}

fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(of: &Value, name: &str) -> u64 {
    of.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn is(of: &Value, name: &str) -> bool {
    of.get(name).and_then(Value::as_bool).unwrap_or(false)
}

const GOOD: Color = Color::Green;
const DOUBTFUL: Color = Color::Yellow;
const BAD: Color = Color::Red;

fn coloured(word: impl Into<String>, colour: Color) -> Span<'static> {
    Span::styled(word.into(), Style::new().fg(colour).add_modifier(Modifier::BOLD))
}

fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn draw(frame: &mut Frame<'_>, view: &View) {
    let status = &view.status;
    let servers: usize = list(status, "pools").iter().map(|pool| list(pool, "servers").len()).sum();
    let parts = [
        (Constraint::Length(2), 2),
        (height(list(status, "routers").len()), list(status, "routers").len()),
        (height(list(status, "shards").len()), list(status, "shards").len()),
        (height(servers), servers),
        (Constraint::Min(0), 1),
    ];
    let areas = Layout::vertical(parts.map(|(constraint, _)| constraint)).split(frame.area());
    let draws: [fn(&mut Frame<'_>, Rect, &View); 5] =
        [draw_head, draw_routers, draw_shards, draw_servers, draw_events];
    for ((area, draw), (_, rows)) in areas.iter().zip(draws).zip(parts) {
        if rows > 0 && area.height > 0 {
            draw(frame, *area, view);
        }
    }
}

/// Room for a table of so many rows with its title and heads; none for an empty one.
fn height(rows: usize) -> Constraint {
    let rows = u16::try_from(rows).unwrap_or(u16::MAX);
    Constraint::Length(if rows == 0 { 0 } else { rows.saturating_add(2) })
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let status = &view.status;
    let ready = match (&view.problem, is(status, "is_ready")) {
        (Some(problem), _) => coloured(problem.as_str(), BAD),
        (None, true) => coloured("ready", GOOD),
        (None, false) => coloured(text(status, "problem").trim_end(), BAD),
    };
    let clients: u64 = list(status, "pools").iter().map(|pool| number(pool, "clients")).sum();
    let rates: f64 =
        list(status, "pools").iter().filter_map(|pool| view.rates.get(text(pool, "name"))).sum();
    let backend = status.get("io_backend").unwrap_or(&Value::Null);
    let first = Line::from(vec![
        Span::styled("Ringkeeper ", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("{} ", text(status, "host"))),
        ready,
    ]);
    let second = Line::styled(
        format!(
            "{rates:.0} requests/s, {clients} clients, {} {}, up {} s; q ends",
            text(status, "version"),
            text(backend, "name"),
            number(status, "uptime_seconds")
        ),
        faint(),
    );
    frame.render_widget(Paragraph::new(vec![first, second]), area);
}

fn table<'a>(title: &'a str, heads: &[&'a str], rows: Vec<Row<'a>>, widths: &[u16]) -> Table<'a> {
    let widths: Vec<Constraint> = widths.iter().map(|width| Constraint::Min(*width)).collect();
    Table::new(rows, widths)
        .header(Row::new(heads.iter().copied().map(Cell::from)).style(faint()))
        .block(Block::new().title(Span::styled(title, Style::new().add_modifier(Modifier::BOLD))))
}

fn draw_routers(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = list(&view.status, "routers").iter().map(|router| {
        let state = match text(router, "state") {
            "MASTER" => coloured("here", GOOD),
            "BACKUP" => coloured("on another node", GOOD),
            other => coloured(other.to_lowercase(), BAD),
        };
        let addresses: Vec<&str> =
            list(router, "addresses").iter().filter_map(Value::as_str).collect();
        Row::new([
            Cell::from(text(router, "name")),
            Cell::from(state),
            Cell::from(addresses.join(" ")),
            Cell::from(number(router, "priority").to_string()),
        ])
    });
    let heads = ["router", "state", "addresses", "priority"];
    frame.render_widget(table("Virtual address", &heads, rows.collect(), &[14, 16, 24, 8]), area);
}

fn draw_shards(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let sentinel = view.status.get("sentinel").unwrap_or(&Value::Null);
    let rows = list(&view.status, "shards").iter().map(|shard| {
        let name = text(shard, "name");
        let condition = text(shard, "condition");
        let colour = match condition {
            "serving" => GOOD,
            "suspected" | "moving" => DOUBTFUL,
            _ => BAD,
        };
        let master = list(sentinel, "masters").iter().find(|master| text(master, "name") == name);
        let up = |what: &str| {
            let Some(master) = master else { return "–".to_owned() };
            let all = list(master, what);
            format!("{}/{}", all.iter().filter(|each| is(each, "is_up")).count(), all.len())
        };
        Row::new([
            Cell::from(name),
            Cell::from(coloured(condition, colour)),
            Cell::from(text(shard, "address")),
            Cell::from(number(shard, "epoch").to_string()),
            Cell::from(up("replicas")),
            Cell::from(up("peers")),
        ])
    });
    let heads = ["shard", "state", "master", "epoch", "replicas", "Sentinels"];
    let widths = [14, 10, 21, 6, 8, 9];
    frame.render_widget(table("Shards", &heads, rows.collect(), &widths), area);
}

fn draw_servers(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let mut rows = Vec::new();
    for pool in list(&view.status, "pools") {
        for server in list(pool, "servers") {
            let state = match (is(server, "is_in_ring"), is(server, "is_up")) {
                (false, _) => coloured("out of the ring", BAD),
                (true, true) => coloured("up", GOOD),
                (true, false) => coloured("down", BAD),
            };
            let share = number(server, "ring_share_millionths");
            let waiting = number(server, "unanswered_requests") + number(server, "unsent_requests");
            let slowest = server
                .get("durations")
                .and_then(Value::as_object)
                .and_then(|classes| {
                    classes.values().filter_map(|of| of.get("p99_ms")?.as_f64()).reduce(f64::max)
                })
                .map_or_else(|| "–".to_owned(), |ms| format!("{ms:.2}"));
            rows.push(Row::new([
                Cell::from(text(pool, "name")),
                Cell::from(text(server, "name")),
                Cell::from(state),
                Cell::from(format!("{}.{} %", share / 10_000, share / 1_000 % 10)),
                Cell::from(view.rate(&server_key(pool, server))),
                Cell::from(slowest),
                Cell::from(waiting.to_string()),
            ]));
        }
    }
    let heads = ["pool", "server", "state", "share", "requests/s", "p99 ms", "waiting"];
    let widths = [10, 21, 15, 7, 10, 8, 7];
    frame.render_widget(table("Servers", &heads, rows, &widths), area);
}

/// The newest of what happened to any master, the newest last.
fn draw_events(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let sentinel = view.status.get("sentinel").unwrap_or(&Value::Null);
    let mut told: Vec<(u64, &str, &str, &str)> = Vec::new();
    for master in list(sentinel, "masters") {
        let name = text(master, "name");
        for event in list(master, "events") {
            let at = number(event, "unix_micros");
            told.push((at, name, text(event, "name"), text(event, "text")));
        }
    }
    if told.is_empty() {
        return;
    }
    told.sort_unstable();
    let shown = usize::from(area.height.saturating_sub(1)).min(EVENTS_SHOWN);
    let mut lines = vec![Line::styled("What happened", Style::new().add_modifier(Modifier::BOLD))];
    let skipped = told.len().saturating_sub(shown);
    let mut before = None;
    for (at, master, name, detail) in told.into_iter().skip(skipped) {
        let since = before.map_or(0, |before| at.saturating_sub(before));
        before = Some(at);
        let time = format!("+{}.{:03} ms", since / 1_000, since % 1_000);
        lines.push(Line::from(vec![
            Span::styled(format!("{time:>16} "), faint()),
            Span::raw(format!("{master:<12} {name:<24} ")),
            Span::styled(detail.to_owned(), faint()),
        ]));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    const STATUS: &str = r#"{"host":"a","version":"1","uptime_seconds":5,"is_ready":true,
        "io_backend":{"name":"io_uring"},
        "pools":[{"name":"cache","clients":3,"local_replies":0,"servers":[
            {"name":"one","is_in_ring":true,"is_up":true,"ring_share_millionths":497000,
             "requests":REQUESTS,"unanswered_requests":2,"unsent_requests":1,
             "durations":{"read":{"p99_ms":1.5},"write":{"p99_ms":2.25}}},
            {"name":"two","is_in_ring":true,"is_up":false,"ring_share_millionths":503000,
             "requests":1,"unanswered_requests":0,"unsent_requests":0,"durations":{}}]}],
        "routers":[{"name":"VI_1","state":"MASTER","priority":101,"addresses":["10.0.0.9"]}],
        "shards":[{"name":"one","epoch":7,"address":"10.0.0.1:6379","condition":"suspected"}],
        "sentinel":{"masters":[{"name":"one","replicas":[{"is_up":true},{"is_up":false}],
            "peers":[{"is_up":true}],
            "events":[{"unix_micros":1000000,"name":"+sdown","text":"master one"},
                      {"unix_micros":1002500,"name":"+odown","text":"master one"}]}]}}"#;

    fn screen(view: &View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer();
        let width = usize::from(buffer.area.width);
        let cells: Vec<&str> = buffer.content.iter().map(|cell| cell.symbol()).collect();
        cells.chunks(width).map(|line| line.concat().trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn everything_that_matters_is_on_the_screen() {
        let mut view = View::default();
        let start = Instant::now();
        view.take(start, Ok(STATUS.replace("REQUESTS", "100")));
        view.take(start + Duration::from_secs(2), Ok(STATUS.replace("REQUESTS", "300")));
        let screen = screen(&view);
        for line in [
            "Ringkeeper a ready",
            "100 requests/s, 3 clients, 1 io_uring, up 5 s; q ends",
            "VI_1",
            "here",
            "10.0.0.9",
            "suspected",
            "10.0.0.1:6379",
            "1/2",
            "1/1",
            "49.7 %",
            "2.25",
            "down",
            "+2.500 ms",
            "+odown",
        ] {
            assert!(screen.contains(line), "{line:?} in\n{screen}");
        }
    }

    #[test]
    fn what_was_known_stays_when_the_service_is_gone() {
        let mut view = View::default();
        view.take(Instant::now(), Ok(STATUS.replace("REQUESTS", "100")));
        view.take(Instant::now(), Err("the service can't be asked".to_owned()));
        let screen = screen(&view);
        assert!(screen.contains("Ringkeeper a the service can't be asked"), "{screen}");
        assert!(screen.contains("49.7 %"), "{screen}");
    }

    #[test]
    fn a_screen_of_any_size_and_an_empty_status_are_drawn() {
        for (width, height) in [(1, 1), (20, 3), (300, 100)] {
            for page in ["{}", &STATUS.replace("REQUESTS", "1")] {
                let mut view = View::default();
                view.take(Instant::now(), Ok(page.to_owned()));
                let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
                terminal.draw(|frame| draw(frame, &view)).unwrap();
            }
        }
    }
}
