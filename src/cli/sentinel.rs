//! The drop-in face of a Sentinel: started under the name `redis-sentinel`, or as `redis-server …
//! --sentinel`, the program takes Redis' command line.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ringkeeper_core::config::diagnostic::{Diagnostic, Severity};
use ringkeeper_core::config::sentinel as config;
use ringkeeper_core::sentinel::machine::{DamagedState, Keeping, Setup};

use crate::host::daemon::{self, Detached};
use crate::host::log::{Format, Log, Verbosity};
use crate::host::runtime::Choice;
use crate::host::sentinel::{self, Launch};
use crate::host::signal::{Persona, Signals};
use crate::host::{pidfile, reason};

/// The version of Redis whose Sentinel this stands in for.
const REDIS_VERSION: &str = "7.0.15";

const USAGE: &str = "\
Usage: redis-sentinel FILE [--key value ...]
       redis-server FILE --sentinel [--key value ...]
       redis-sentinel -v | --version
       redis-sentinel -h | --help

A Sentinel that watches the masters of FILE, and keeps what it learns in it.
Directives on the command line count as if they stood at the end of FILE.

Examples:
       redis-sentinel /etc/redis/sentinel.conf
       redis-sentinel sentinel.conf --port 26380 --loglevel verbose
";

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    file: Option<String>,
    /// As lines of a configuration.
    options: String,
    is_sentinel: bool,
    shows_version: bool,
    shows_help: bool,
}

fn read_arguments(arguments: &[String]) -> Asked {
    let mut asked = Asked::default();
    let mut rest = arguments;
    match rest {
        [only] if only == "-v" || only == "--version" => asked.shows_version = true,
        [only] if only == "-h" || only == "--help" => asked.shows_help = true,
        [file, tail @ ..] if !file.starts_with('-') => {
            asked.file = Some(file.clone());
            rest = tail;
        }
        _ => {}
    }
    while let [word, tail @ ..] = rest {
        let is_option = |word: &String| word.starts_with("--");
        let values = tail.iter().take_while(|word| !is_option(word)).count();
        let (values, after) = tail.split_at(values);
        rest = after;
        let Some(key) = word.strip_prefix("--") else { continue };
        if key == "sentinel" && values.is_empty() {
            asked.is_sentinel = true;
            continue;
        }
        asked.options.push_str(key);
        for value in values {
            asked.options.push(' ');
            push_quoted(&mut asked.options, value);
        }
        asked.options.push('\n');
    }
    asked
}

/// One argument may hold several words, as in `--sentinel "monitor m 127.0.0.1 6379 2"`.
fn push_quoted(out: &mut String, value: &str) {
    if value.is_empty() {
        out.push_str("\"\"");
    } else {
        out.push_str(value);
    }
}

/// Whether `redis-server` was called for a Sentinel.
pub(crate) fn is_wanted(arguments: &[OsString]) -> bool {
    arguments.iter().any(|word| word == "--sentinel")
}

/// Runs the program as `redis-sentinel`; `arguments` come without the program's name.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let words: Vec<String> =
        arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let asked = read_arguments(&words);
    if asked.shows_version {
        println!(
            "Redis server v={REDIS_VERSION} sha=00000000:0 malloc=libc bits={} build=0 \
             (ringkeeper {})",
            usize::BITS,
            env!("CARGO_PKG_VERSION")
        );
        return ExitCode::SUCCESS;
    }
    if asked.shows_help {
        eprint!("{USAGE}");
        return ExitCode::FAILURE;
    }
    let Some(file) = &asked.file else {
        eprintln!("Sentinel needs config file on disk to save state. Exiting...");
        return ExitCode::FAILURE;
    };
    match read(Path::new(file), &asked.options, State::InPlace) {
        Ok(loaded) => run(loaded),
        Err(problem) => {
            eprint!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// A file that can be served.
pub(crate) struct Loaded {
    /// What the Sentinel begins with.
    pub(crate) setup: Setup,
    name: String,
    warnings: Vec<Diagnostic>,
}

impl Loaded {
    /// Logs what is to be said about the file.
    pub(crate) fn log(&self) {
        for warning in &self.warnings {
            tracing::info!("{}:{}: {}", self.name, warning.line, warning.message);
        }
    }
}

/// Reads the file and what the command line adds to it.
///
/// # Errors
///
/// What to tell the operator.
pub(crate) fn read(file: &Path, options: &str, state: State) -> Result<Loaded, String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        format!("Fatal error, can't open config file '{shown}': {}\n", reason(&error))
    })?;
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let whole = format!("{text}{gap}{options}");
    let warnings = config::parse(&shown.to_string(), &whole).diagnostics;
    let mut setup = Setup::from_text(path.clone(), &whole).map_err(|found| {
        let first = found.iter().find(|d| d.severity == Severity::Error);
        first.map(|found| fatal(&whole, found)).unwrap_or_default()
    })?;
    let config = &setup.config;
    if !config.resolve_hostnames {
        let is_name = |host: &str| host.parse::<IpAddr>().is_err();
        let named = config.masters.iter().find(|m| is_name(m.monitor.address.host()));
        if let Some(master) = named {
            let (name, host) = (&master.name, master.monitor.address.host());
            return Err(format!(
                "\n*** FATAL CONFIG FILE ERROR (Redis {REDIS_VERSION}) ***\n>>> 'sentinel monitor \
                 {name} {host}'\nCan't resolve instance hostname.\n"
            ));
        }
    }
    match state {
        State::InPlace => {
            sentinel::check_writable(&path).map_err(|error| {
                let why = reason(&error);
                format!("Sentinel config file {shown} is not writable: {why}. Exiting...\n")
            })?;
            setup.keeping = Keeping::InPlace { path, text };
        }
        State::Beside => setup = with_state(setup, state_beside(&path))?,
    }
    Ok(Loaded { setup, name: shown.to_string(), warnings })
}

/// Returns the file beside another one where a Sentinel keeps what it learns.
pub(crate) fn state_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".state");
    path.with_file_name(name)
}

/// Takes over what a state file holds.
///
/// # Errors
///
/// What to tell the operator.
pub(crate) fn with_state(setup: Setup, path: PathBuf) -> Result<Setup, String> {
    let shown = path.display().to_string();
    let state = match std::fs::read(&path) {
        Ok(state) => Some(state),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("error: {shown} can't be read: {}\n", reason(&error))),
    };
    setup.with_state(path, state.as_deref()).map_err(|DamagedState| {
        format!(
            "error: {shown} is damaged, so nobody can tell what this Sentinel has promised; move \
             it away only if a majority of the others runs\n"
        )
    })
}

/// Where what is learnt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Into the file itself, as genuine Sentinels do.
    InPlace,
    /// Into a file beside it.
    Beside,
}

/// Returns what Redis prints of a mistake.
fn fatal(text: &str, found: &Diagnostic) -> String {
    let line = text.lines().nth(found.line.saturating_sub(1)).unwrap_or_default();
    let mut told = format!(
        "\n*** FATAL CONFIG FILE ERROR (Redis {REDIS_VERSION}) ***\nReading the configuration \
         file, at line {}\n>>> '{}'\n{}",
        found.line,
        line.trim(),
        found.message
    );
    for more in [&found.expected, &found.hint].into_iter().flatten() {
        told.push_str("; ");
        told.push_str(more);
    }
    told.push('\n');
    told
}

fn run(loaded: Loaded) -> ExitCode {
    let signals = match Signals::hold(Persona::Ringkeeper) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("signals can't be received: {}", reason(&error));
            return ExitCode::FAILURE;
        }
    };
    let server = &loaded.setup.config.server;
    if let Some(dir) = &server.dir
        && let Err(error) = std::env::set_current_dir(dir)
    {
        eprintln!("Can't chdir to '{dir}': {}", reason(&error));
        return ExitCode::FAILURE;
    }
    let logfile = server.logfile.clone().filter(|path| !path.is_empty()).map(PathBuf::from);
    // Redis logs to standard output.
    let stdout = (!server.daemonize).then(|| PathBuf::from("/dev/stdout"));
    let target = logfile.or(stdout);
    let log = match Log::open(target.as_deref(), Format::Redis, Verbosity::NOTICE) {
        Ok(log) => log,
        // Standard output may be a socket, which cannot be opened a second time.
        Err(_) if server.logfile.is_none() => {
            match Log::open(None, Format::Redis, Verbosity::NOTICE) {
                Ok(log) => log,
                Err(_) => return ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("Can't open the log file: {}", reason(&error));
            return ExitCode::FAILURE;
        }
    };
    let readiness = if server.daemonize {
        match daemon::detach() {
            Ok(Detached::Caller(code)) => return code,
            Ok(Detached::Daemon(readiness)) => Some(readiness),
            Err(error) => {
                tracing::error!("going into the background failed: {}", reason(&error));
                return ExitCode::FAILURE;
            }
        }
    } else {
        None
    };
    let pid_file = server.pidfile.clone().filter(|path| !path.is_empty()).map(PathBuf::from);
    let code = serve(loaded, runtime_of_environment(), &log, &signals, || {
        if let Some(path) = &pid_file
            && let Err(error) = pidfile::write(path, std::process::id())
        {
            tracing::warn!("Can't write the pid file {}: {}", path.display(), reason(&error));
        }
        if let Some(readiness) = readiness {
            readiness.report();
        }
    });
    if let Some(path) = pid_file {
        let _ = std::fs::remove_file(path);
    }
    code
}

/// Starts the Sentinel and stays until it ends.
pub(crate) fn serve(
    loaded: Loaded,
    runtime: Choice,
    log: &Log,
    signals: &Signals,
    is_up: impl FnOnce(),
) -> ExitCode {
    loaded.log();
    let port = loaded.setup.config.server.port.unwrap_or(config::PORT_DEFAULT);
    tracing::info!("Running mode=sentinel, port={port}.");
    match sentinel::start(Launch { setup: loaded.setup, runtime }) {
        Ok(running) => {
            is_up();
            sentinel::supervise(running, log, signals)
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Redis has no option for it, so the environment decides: `RINGKEEPER_RUNTIME` is `tokio`,
/// `uring` or, as any other word, the best that works here.
fn runtime_of_environment() -> Choice {
    let word = std::env::var("RINGKEEPER_RUNTIME").unwrap_or_default();
    <Choice as clap::ValueEnum>::from_str(&word, true).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_words(words: &[&str]) -> Asked {
        read_arguments(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_become_lines_of_the_file() {
        let asked = read_words(&[
            "s.conf",
            "--port",
            "26380",
            "--sentinel",
            "--sentinel",
            "monitor",
            "m",
            "127.0.0.1",
            "6379",
            "2",
        ]);
        assert_eq!(asked.file.as_deref(), Some("s.conf"));
        assert!(asked.is_sentinel);
        assert_eq!(asked.options, "port 26380\nsentinel monitor m 127.0.0.1 6379 2\n");
    }

    #[test]
    fn version_and_help_stand_alone() {
        assert!(read_words(&["--version"]).shows_version);
        assert!(read_words(&["-h"]).shows_help);
        assert_eq!(read_words(&["--sentinel"]).file, None);
    }
}
