//! What is wrong with a `sentinel.conf`, and what is unwise.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::{Duration, Instant};

use ringkeeper_core::config::diagnostic::{Diagnostic, Severity};
use ringkeeper_core::config::render;
use ringkeeper_core::config::sentinel::{self as config, Config, Master};

use crate::host::{self, reason};

/// How long looking at the servers may take, all in all.
const LIVE_LIMIT: Duration = Duration::from_secs(2);

/// How often each master is asked, to see how much its answers vary.
const LIVE_PINGS: usize = 20;

/// How many times the slowest answer a master must be given.
const NOISE_FACTOR: u32 = 5;

/// What was found in one file.
pub(crate) struct Report {
    name: String,
    text: String,
    is_good: bool,
    masters: usize,
    diagnostics: Vec<Diagnostic>,
    /// What it says; none if it is not usable.
    pub(crate) config: Option<Config>,
}

/// Reads a file if it is for a Sentinel; `is_live` also looks at the servers that it names.
pub(crate) fn check(path: &Path, is_live: bool) -> Option<Report> {
    let text = std::fs::read_to_string(path).ok()?;
    let is_ours = |line: &str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        word.eq_ignore_ascii_case("sentinel")
    };
    if !text.lines().any(is_ours) {
        return None;
    }
    let name = path.display().to_string();
    let parsed = config::parse(&name, &text);
    let mut diagnostics = parsed.diagnostics;
    if let Some(config) = &parsed.config {
        diagnostics.extend(unwise(config, &text));
        if is_live {
            diagnostics.extend(look(config, &text));
        }
    }
    let masters = parsed.config.as_ref().map_or(0, |config| config.masters.len());
    let is_good = parsed.config.is_some();
    Some(Report { name, text, is_good, masters, diagnostics, config: parsed.config })
}

impl Report {
    pub(crate) fn human(&self) -> String {
        render::human(&self.name, &self.text, &self.diagnostics, host::has_colours())
    }

    pub(crate) fn json(&self) -> String {
        render::json(&self.name, &self.diagnostics) + "\n"
    }

    pub(crate) fn verdict(&self) -> String {
        let verdict = if self.is_good { "ok" } else { "not usable" };
        let (masters, found) = (self.masters, self.diagnostics.len());
        format!("{}: {verdict}, {masters} masters watched, {found} remarks\n", self.name)
    }

    pub(crate) const fn has_errors(&self) -> bool {
        !self.is_good
    }

    pub(crate) fn has_warnings(&self) -> bool {
        self.diagnostics.iter().any(|found| found.severity == Severity::Warning)
    }
}

/// Makes a warning about the line that says `words`.
fn warning(text: &str, words: &[&str], code: &'static str, message: String) -> Diagnostic {
    let mut start = 0;
    let mut place = (1, 0..0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let mut found = line.split_whitespace();
        if words.iter().all(|word| found.next().is_some_and(|f| f.eq_ignore_ascii_case(word))) {
            place = (number + 1, start..start + line.trim_end().len());
            break;
        }
        start += line.len();
    }
    let (line, span) = place;
    Diagnostic {
        severity: Severity::Warning,
        code,
        span,
        line,
        column: 1,
        message,
        expected: None,
        hint: hint_of(code).map(str::to_owned),
        related: None,
    }
}

fn hint_of(code: &str) -> Option<&'static str> {
    match code {
        "two-voters" => Some("run a third Sentinel on another host; a witness needs no pools"),
        "quorum-above-voters" => Some("a majority of the voters is the usual quorum"),
        _ => None,
    }
}

fn unwise(config: &Config, text: &str) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for master in &config.masters {
        let name = master.name.as_str();
        let at = ["sentinel", "monitor", name];
        let others = master.known_sentinels.len();
        let voters = u32::try_from(others + 1).unwrap_or(u32::MAX);
        let quorum = master.monitor.quorum.get();
        if others == 0 && quorum > 1 {
            let message = format!(
                "{quorum} Sentinels must agree about {name}, and the file does not know of others \
                 yet: two of them elect nobody when one host is gone"
            );
            found.push(warning(text, &at, "two-voters", message));
        }
        let needed = quorum.max(voters / 2 + 1);
        if others > 0 && quorum <= voters && voters - 1 < needed {
            let message = format!(
                "{name} has {voters} voters and the quorum {quorum}: when one is gone, nobody is \
                 elected"
            );
            found.push(warning(text, &at, "two-voters", message));
        }
        if others > 0 && quorum > voters {
            let message = format!("the quorum of {name} is more than its {voters} voters");
            found.push(warning(text, &at, "quorum-above-voters", message));
        }
    }
    let is_private = |host: &String| {
        let host = host.trim_start_matches('-');
        host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) || host == "localhost"
    };
    let bind = &config.server.bind;
    let is_open = bind.is_empty() || !bind.iter().all(is_private);
    if is_open && config.server.requirepass.is_none() {
        let message = "whoever can reach this Sentinel can tell it where masters are: it listens \
                       beyond this host without requirepass"
            .to_owned();
        found.push(warning(text, &["bind"], "open-without-password", message));
    }
    found
}

/// Asks every master what it is, and how fast.
fn look(config: &Config, text: &str) -> Vec<Diagnostic> {
    let until = Instant::now() + LIVE_LIMIT;
    let looks: Vec<_> = config
        .masters
        .iter()
        .map(|master| {
            let (copy, text) = (master.clone(), text.to_owned());
            std::thread::spawn(move || look_at(&copy, &text, until))
        })
        .collect();
    looks.into_iter().filter_map(|look| look.join().ok()).flatten().collect()
}

fn look_at(master: &Master, text: &str, until: Instant) -> Vec<Diagnostic> {
    let name = master.name.as_str();
    let at = ["sentinel", "monitor", name];
    let address = &master.monitor.address;
    match ask(master, until) {
        Err(error) => {
            let message = format!("{name} at {address} does not answer: {}", reason(&error));
            vec![warning(text, &at, "live-unreachable", message)]
        }
        Ok((is_replica, slowest)) => {
            let mut found = Vec::new();
            if is_replica {
                let message = format!("{name} at {address} says that it is a replica");
                found.push(warning(text, &at, "live-replica", message));
            }
            let least = slowest * NOISE_FACTOR;
            if Duration::from_millis(master.down_after_ms) < least {
                let message = format!(
                    "down-after-milliseconds of {name} is {}, and an answer took {} µs",
                    master.down_after_ms,
                    slowest.as_micros()
                );
                found.push(warning(text, &at, "live-noise", message));
            }
            found
        }
    }
}

/// Returns whether it says that it is a replica, and how long its slowest answer took.
fn ask(master: &Master, until: Instant) -> io::Result<(bool, Duration)> {
    let address = &master.monitor.address;
    let place: SocketAddr = (address.host(), address.port())
        .to_socket_addrs()?
        .next()
        .ok_or(io::ErrorKind::NotFound)?;
    let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let stream = TcpStream::connect_timeout(&place, left())?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(left()))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if let Some(password) = &master.auth_pass {
        let user = master.auth_user.as_deref().unwrap_or("default");
        let words = ["AUTH", user, password.expose()];
        let request: String =
            words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        write!(writer, "*3\r\n{request}")?;
        reader.read_line(&mut line)?;
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..LIVE_PINGS {
        let start = Instant::now();
        writer.write_all(b"PING\r\n")?;
        line.clear();
        reader.read_line(&mut line)?;
        slowest = slowest.max(start.elapsed());
    }
    writer.write_all(b"INFO replication\r\n")?;
    let mut is_replica = false;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.starts_with('-') {
            break;
        }
        is_replica |= line.trim() == "role:slave";
        if line.starts_with("repl_backlog_histlen") || line.starts_with("slave0") {
            break;
        }
    }
    Ok((is_replica, slowest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unwise_settings_are_told_with_their_line() {
        let id = "a".repeat(40);
        let text = format!(
            "port 26379\nsentinel monitor m 127.0.0.1 6379 3\nsentinel known-sentinel m 10.0.0.1 \
             26379 {id}\n"
        );
        let config = config::parse("s.conf", &text).config.unwrap();
        let found = unwise(&config, &text);
        let codes: Vec<(&str, usize)> = found.iter().map(|f| (f.code, f.line)).collect();
        assert_eq!(codes, [("quorum-above-voters", 2), ("open-without-password", 1)]);
        for (text, code) in [
            (text.replace("6379 3", "6379 2"), "two-voters"),
            ("bind 127.0.0.1\nsentinel monitor m 127.0.0.1 6379 2\n".to_owned(), "two-voters"),
        ] {
            let found = unwise(&config::parse("s.conf", &text).config.unwrap(), &text);
            let found = found.iter().find(|found| found.code == code).unwrap();
            assert!(found.hint.is_some(), "{found:?}");
        }
        let safe = "bind 127.0.0.1\nsentinel monitor m 127.0.0.1 6379 1\n";
        assert!(unwise(&config::parse("s.conf", safe).config.unwrap(), safe).is_empty());
    }
}
