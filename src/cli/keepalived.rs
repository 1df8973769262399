//! The drop-in face of VRRP: started under the name `keepalived` the program takes its options;
//! `ringkeeper run --keepalived` and `ringkeeper check` read its file.
#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ringkeeper_core::config::diagnostic::{Diagnostic, Severity};
use ringkeeper_core::config::keepalived::{
    self as config, Assembled, Command, Config, Matches, Probe, Source,
};
use ringkeeper_core::config::{native, render};
use ringkeeper_core::limits::CONFIG_BYTES_MAX;

use crate::cli::getopt::{self, Item, Spec};
use crate::cli::load;
use crate::host::daemon::{self, Detached};
use crate::host::log::{Format, Log, Verbosity};
use crate::host::routers::Routers;
use crate::host::runtime::Choice;
use crate::host::script;
use crate::host::signal::{Persona, Signals};
use crate::host::vrrp::{self, Launch};
use crate::host::{self, pidfile, reason};

/// The release of keepalived whose options and exit codes these are.
const KEEPALIVED_VERSION: &str = "2.2.7";

const DEFAULT_FILE: &str = "/etc/keepalived/keepalived.conf";
const DEFAULT_PID_FILE: &str = "/run/keepalived.pid";

/// Exit codes of `-t`, as keepalived has them.
const EXIT_CONFIG: u8 = 5;
const EXIT_SECURITY: u8 = 6;

const USAGE: &str = "\
Usage: keepalived [OPTION...]
  -f, --use-file=FILE        the configuration [/etc/keepalived/keepalived.conf]
  -t, --config-test[=FILE]   check it: 0 fine, 5 mistakes, 6 scripts without script security
  -i, --config-id=ID         what @ID lines are compared with [first label of the host's name]
  -n, --dont-fork            stay in the foreground
  -l, --log-console          log to standard error
  -D, --log-detail           log more
  -p, --pid=FILE             process id of the daemon [/run/keepalived.pid]
  -P, --vrrp                 virtual routers only
  -C, --check                virtual servers only
  -v, --version              -h, --help

These are taken and have no effect: -B --all -S -G -u -X -V -I -R -d -r -c -a -b -x -A -s -m -M
-e. Signals: TERM and INT leave in order, HUP reads the configuration again.
";

const fn flag(short: u8, long: &'static str) -> Spec {
    Spec { short, long, takes_value: false }
}

const fn value(short: u8, long: &'static str) -> Spec {
    Spec { short, long, takes_value: true }
}

const SPECS: &[Spec] = &[
    value(b'f', "use-file"),
    flag(b'P', "vrrp"),
    flag(b'C', "check"),
    flag(b'B', "no_bfd"),
    flag(b'1', "all"),
    flag(b'l', "log-console"),
    flag(b'D', "log-detail"),
    value(b'S', "log-facility"),
    flag(b'G', "no-syslog"),
    value(b'u', "umask"),
    flag(b'X', "release-vips"),
    flag(b'V', "dont-release-vrrp"),
    flag(b'I', "dont-release-ipvs"),
    flag(b'R', "dont-respawn"),
    flag(b'n', "dont-fork"),
    flag(b'd', "dump-conf"),
    value(b'p', "pid"),
    value(b'r', "vrrp_pid"),
    value(b'c', "checkers_pid"),
    flag(b'a', "address-monitoring"),
    value(b'b', "bfd_pid"),
    flag(b'x', "snmp"),
    value(b'A', "snmp-agent-socket"),
    value(b's', "namespace"),
    flag(b'm', "core-dump"),
    value(b'M', "core-dump-pattern"),
    flag(b'e', "all-config"),
    value(b'i', "config-id"),
    flag(b't', "config-test"),
    value(b'2', "signum"),
    flag(b'v', "version"),
    flag(b'h', "help"),
];

/// Which parts of a file are served; all if none is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    has_routers: bool,
    has_servers: bool,
}

impl Parts {
    /// Takes out what is not served.
    fn keep(self, mut config: Config) -> Config {
        match (self.has_routers, self.has_servers) {
            (true, false) => config.virtual_servers.clear(),
            (false, true) => {
                config.instances.clear();
                config.groups.clear();
            }
            (true, true) | (false, false) => {}
        }
        config
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    file: PathBuf,
    pid_file: PathBuf,
    id: Option<String>,
    signal: Option<String>,
    is_test: bool,
    stays: bool,
    is_detailed: bool,
    parts: Parts,
    shows_version: bool,
    shows_help: bool,
    unknown: Option<String>,
}

fn read_arguments(arguments: &[OsString]) -> Asked {
    let mut asked = Asked {
        file: PathBuf::from(DEFAULT_FILE),
        pid_file: PathBuf::from(DEFAULT_PID_FILE),
        id: None,
        signal: None,
        is_test: false,
        stays: false,
        is_detailed: false,
        parts: Parts::default(),
        shows_version: false,
        shows_help: false,
        unknown: None,
    };
    // Its value may follow in the same word only.
    let test = "--config-test=";
    let plain = |argument: &OsString| match argument.to_str() {
        Some(text) if text.starts_with(test) => OsString::from("--config-test"),
        Some(_) | None => argument.clone(),
    };
    let arguments: Vec<OsString> = arguments.iter().map(plain).collect();
    for item in getopt::parse(&arguments, SPECS) {
        match item {
            Item::Option(b'f', Some(path)) => asked.file = PathBuf::from(path),
            Item::Option(b'p', Some(path)) => asked.pid_file = PathBuf::from(path),
            Item::Option(b'i', Some(id)) => asked.id = Some(id.to_string_lossy().into_owned()),
            Item::Option(b'2', Some(name)) => {
                asked.signal = Some(name.to_string_lossy().into_owned());
            }
            Item::Option(b't', _) => asked.is_test = true,
            Item::Option(b'n', _) => asked.stays = true,
            Item::Option(b'D', _) => asked.is_detailed = true,
            Item::Option(b'P', _) => asked.parts.has_routers = true,
            Item::Option(b'C', _) => asked.parts.has_servers = true,
            Item::Option(b'v', _) => asked.shows_version = true,
            Item::Option(b'h', _) => asked.shows_help = true,
            Item::Option(..) => {}
            Item::MissingValue(letter) => {
                asked.unknown = Some(char::from(letter).to_string());
            }
            Item::Unknown(name) => asked.unknown = Some(name),
        }
    }
    asked
}

/// Runs the program as `keepalived`; `arguments` come without the program's name.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let asked = read_arguments(arguments);
    if let Some(name) = &asked.unknown {
        eprint!("keepalived: unknown or incomplete option '{name}'\n{USAGE}");
        return ExitCode::FAILURE;
    }
    if asked.shows_help {
        eprint!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if asked.shows_version {
        let version = env!("CARGO_PKG_VERSION");
        eprintln!("Keepalived v{KEEPALIVED_VERSION} (ringkeeper {version})");
        return ExitCode::SUCCESS;
    }
    if let Some(name) = &asked.signal {
        return show_signal(name);
    }
    if asked.is_test {
        return test(&asked);
    }
    run_daemon(&asked)
}

fn show_signal(name: &str) -> ExitCode {
    let number = match name {
        "STOP" => libc::SIGTERM,
        "RELOAD" => libc::SIGHUP,
        "DATA" => libc::SIGUSR1,
        "STATS" => libc::SIGUSR2,
        _ => {
            eprintln!("Unknown signal function {name}");
            return ExitCode::FAILURE;
        }
    };
    println!("{number}");
    ExitCode::SUCCESS
}

/// Checks the file; the exit code is keepalived's.
fn test(asked: &Asked) -> ExitCode {
    let loaded = read(&asked.file, asked.id.as_deref());
    eprint!("{}", loaded.human());
    ExitCode::from(loaded.test_code())
}

fn run_daemon(asked: &Asked) -> ExitCode {
    let signals = match Signals::hold(Persona::Ringkeeper) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("signals can't be received: {}", reason(&error));
            return ExitCode::FAILURE;
        }
    };
    let verbosity = if asked.is_detailed { Verbosity::DEBUG } else { Verbosity::NOTICE };
    let log = match Log::open(None, Format::Text, verbosity) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("the log can't be opened: {}", reason(&error));
            return ExitCode::FAILURE;
        }
    };
    let loaded = read(&asked.file, asked.id.as_deref());
    eprint!("{}", loaded.human());
    if loaded.config.is_none() {
        return ExitCode::FAILURE;
    }
    let loaded = Loaded { parts: asked.parts, ..loaded };
    let readiness = if asked.stays {
        None
    } else {
        match daemon::detach() {
            Ok(Detached::Caller(code)) => return code,
            Ok(Detached::Daemon(readiness)) => Some(readiness),
            Err(error) => {
                eprintln!("going into the background failed: {}", reason(&error));
                return ExitCode::FAILURE;
            }
        }
    };
    if let Err(error) = pidfile::write(&asked.pid_file, std::process::id()) {
        let path = asked.pid_file.display();
        tracing::warn!("the pid file {path} can't be written: {}", reason(&error));
    }
    let report = || {
        if let Some(readiness) = readiness {
            readiness.report();
        }
    };
    let runtime = runtime_of_environment();
    let code = serve(loaded, runtime, asked.id.as_deref(), &log, &signals, report);
    let _ = fs::remove_file(&asked.pid_file);
    code
}

/// keepalived has no option for it, so the environment decides: `RINGKEEPER_RUNTIME` is `tokio`,
/// `uring` or, as any other word, the best that works here.
fn runtime_of_environment() -> Choice {
    let word = std::env::var("RINGKEEPER_RUNTIME").unwrap_or_default();
    <Choice as clap::ValueEnum>::from_str(&word, true).unwrap_or_default()
}

/// Starts the virtual routers of a file that was read, and stays until they end.
pub(crate) fn serve(
    loaded: Loaded,
    runtime: Choice,
    id: Option<&str>,
    log: &Log,
    signals: &Signals,
    is_up: impl FnOnce(),
) -> ExitCode {
    let Loaded { path, config: Some(config), parts, .. } = loaded else {
        return ExitCode::FAILURE;
    };
    let config = parts.keep(config);
    match vrrp::start(Launch { config, runtime, has_guardian: true, line: None, lent: Vec::new() })
    {
        Ok(running) => {
            is_up();
            vrrp::supervise(running, log, signals, || {
                let loaded = read(&path, id);
                loaded.log();
                loaded.config.map(|config| parts.keep(config))
            })
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prepares what a file has of virtual routers and servers beside something else; none if it has
/// errors, which the log tells.
pub(crate) fn beside(path: &Path, runtime: Choice) -> Option<Routers> {
    let read_it = |path: &Path| {
        let loaded = read(path, None);
        loaded.log();
        loaded.config
    };
    let config = read_it(path)?;
    let path = path.to_owned();
    Some(Routers::new(config, runtime, Box::new(move || read_it(&path))))
}

/// Prepares the virtual routers of a `ringkeeper.yml` beside its pools.
pub(crate) fn beside_own(path: &Path, mut config: Config, runtime: Choice) -> Routers {
    drop_unusable(&mut config, |_, message| tracing::warn!("{message}"));
    let path = path.to_owned();
    // Whoever reads the pools again tells what is wrong with the file.
    let reread = move || {
        let loaded = load::read(&path);
        let is_good = loaded.config.is_some();
        let mut config = loaded.settings.vrrp.unwrap_or_default();
        drop_unusable(&mut config, |_, message| tracing::warn!("{message}"));
        is_good.then_some(config)
    };
    Routers::new(config, runtime, Box::new(reread))
}

/// Returns the virtual routers of a keepalived.conf as a section of a `ringkeeper.yml`.
///
/// # Errors
///
/// What is wrong with the file, for people.
pub(crate) fn import(path: &Path) -> Result<String, String> {
    let loaded = read(path, None);
    match &loaded.config {
        Some(config) if !config.instances.is_empty() => Ok(native::write_routers(config)),
        Some(_) => Err(format!("error: {} has no virtual routers\n", path.display())),
        None => Err(loaded.human()),
    }
}

/// The same for a file beside others; none if it has more than routers, which that section has no
/// words for.
///
/// # Errors
///
/// What is wrong with the file, for people.
pub(crate) fn section(path: &Path) -> Result<Option<String>, String> {
    let loaded = read(path, None);
    let Some(config) = &loaded.config else { return Err(loaded.human()) };
    let is_whole = !config.instances.is_empty() && config.virtual_servers.is_empty();
    Ok(is_whole.then(|| native::write_routers(config)))
}

// Reading.

/// A file with all that it includes, what it means, and what is to be said about it.
pub(crate) struct Loaded {
    path: PathBuf,
    /// What of it is served.
    parts: Parts,
    /// The configuration without what cannot be run; some when nothing is an error.
    pub(crate) config: Option<Config>,
    unreadable: Option<String>,
    /// Each file with what is to be said about it.
    files: Vec<(Source, Vec<Diagnostic>)>,
    is_insecure: bool,
}

/// Reads the file at `path` and what it includes; looks at the programs that it names.
pub(crate) fn read(path: &Path, id: Option<&str>) -> Loaded {
    let mut loaded = Loaded {
        path: path.to_owned(),
        parts: Parts::default(),
        config: None,
        unreadable: None,
        files: Vec::new(),
        is_insecure: false,
    };
    let root = match read_source(path) {
        Ok(root) => root,
        Err(why) => {
            loaded.unreadable = Some(why);
            return loaded;
        }
    };
    let assembled = config::assemble(root, &mut load);
    let own = own_id();
    let parsed = config::parse(assembled.text(), id.unwrap_or(&own));
    let mut diagnostics = parsed.diagnostics;
    loaded.config = parsed.config.filter(|_| !assembled.has_errors());
    if let Some(config) = &mut loaded.config {
        drop_unusable(config, |command, message| {
            let told = warning(&assembled, &command.span, "script-not-usable", message);
            diagnostics.push(told);
        });
        diagnostics.extend(missing_interfaces(config, &assembled));
        loaded.is_insecure = config.runs_programs() && !config.global.has_script_security;
    }
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    let files = assembled.by_source(diagnostics);
    loaded.files = files.into_iter().map(|(source, list)| (source.clone(), list)).collect();
    loaded
}

/// Tells whether a file looks like keepalived's.
pub(crate) fn is_one(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.contains("keepalived") {
        return true;
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    name.ends_with(".conf")
        && text.lines().any(|line| {
            let word = line.split_whitespace().next().unwrap_or_default();
            matches!(word, "vrrp_instance" | "vrrp_script" | "virtual_server" | "global_defs")
        })
}

/// The first label of the host's name.
fn own_id() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

fn read_source(path: &Path) -> Result<Source, String> {
    let bytes = fs::read(path).map_err(|error| reason(&error))?;
    if bytes.len() > CONFIG_BYTES_MAX {
        return Err("the file is too large".to_owned());
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Source { name: path.display().to_string(), text })
}

/// Reads what a pattern in a file matches; a relative one counts from the file's folder.
fn load(pattern: &str, from: &str) -> Matches {
    let base = Path::new(from).parent().unwrap_or_else(|| Path::new(""));
    let mut matches = Matches::default();
    for path in glob(&base.join(pattern)) {
        match read_source(&path) {
            Ok(source) => matches.sources.push(source),
            Err(why) => matches.unreadable.push((path.display().to_string(), why)),
        }
    }
    matches
}

/// Finds the files that a pattern with `*`, `?`, `[…]` and `{a,b}` matches, sorted.
fn glob(pattern: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for pattern in braces(&pattern.to_string_lossy()) {
        let mut places = vec![PathBuf::new()];
        for component in Path::new(&pattern).components() {
            let part = component.as_os_str().to_string_lossy().into_owned();
            if !part.contains(['*', '?', '[']) {
                places.iter_mut().for_each(|place| place.push(&part));
                continue;
            }
            places = places.iter().flat_map(|place| entries(place, &part)).collect();
        }
        let mut here: Vec<_> = places.into_iter().filter(|place| place.is_file()).collect();
        here.sort();
        found.append(&mut here);
    }
    found
}

fn entries(folder: &Path, part: &str) -> Vec<PathBuf> {
    let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let list = fs::read_dir(shown).into_iter().flatten().flatten();
    list.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // As in a shell, a leading dot is not matched by a wildcard.
        (!name.starts_with('.') || part.starts_with('.')) && is_match(part, &name)
    })
    .map(|entry| folder.join(entry.file_name()))
    .collect()
}

/// Expands the first `{a,b}`, and those in what comes of it.
fn braces(pattern: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut work = vec![pattern.to_owned()];
    while let Some(one) = work.pop() {
        let parts = one.split_once('{').and_then(|(before, rest)| {
            let (inside, after) = rest.split_once('}')?;
            Some((before.to_owned(), inside.to_owned(), after.to_owned()))
        });
        match parts {
            Some((before, inside, after)) if done.len() + work.len() < 1000 => {
                let each = inside.split(',').rev();
                work.extend(each.map(|word| format!("{before}{word}{after}")));
            }
            Some(_) | None => done.push(one),
        }
    }
    done
}

/// Tells whether a name matches a pattern of one path component.
fn is_match(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // Where to go on if a star has to take one more letter.
    let (mut at, mut letter, mut retry) = (0, 0, None);
    while let Some(&found) = name.get(letter) {
        let step = match pattern.get(at) {
            Some('*') => {
                retry = Some((at, letter));
                at += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => class(pattern.get(at + 1..).unwrap_or_default(), found),
            Some(&wanted) if wanted == found => Some(1),
            Some(_) | None => None,
        };
        match (step, retry) {
            (Some(step), _) => (at, letter) = (at + step, letter + 1),
            (None, Some((star, from))) => {
                (at, letter) = (star + 1, from + 1);
                retry = Some((star, from + 1));
            }
            (None, None) => return false,
        }
    }
    pattern.get(at..).is_none_or(|rest| rest.iter().all(|&letter| letter == '*'))
}

/// Returns the length of a `[…]` that a letter matches, from its bracket; none if it does not.
fn class(rest: &[char], letter: char) -> Option<usize> {
    let end = rest.iter().skip(1).position(|&one| one == ']')? + 1;
    let set = rest.get(..end)?;
    let (is_negated, set) = match set {
        ['!' | '^', set @ ..] => (true, set),
        set => (false, set),
    };
    let mut set = set;
    let mut is_in = false;
    while let [low, tail @ ..] = set {
        match tail {
            ['-', high, rest @ ..] => {
                is_in |= (*low..=*high).contains(&letter);
                set = rest;
            }
            rest => {
                is_in |= *low == letter;
                set = rest;
            }
        }
    }
    (is_in != is_negated).then_some(end + 2)
}

/// Takes out what cannot be run, as keepalived does, and tells.
fn drop_unusable(config: &mut Config, mut tell: impl FnMut(&Command, String)) {
    let is_secure = config.global.has_script_security;
    let mut is_usable = |command: &Command| {
        let program = command.argv.first().map_or("", String::as_str);
        let checked = script::check(program).and_then(|()| match is_secure {
            true => script::check_secure(program),
            false => Ok(()),
        });
        let Err(problem) = checked else { return true };
        let message = format!("{program}: {problem}; it is not used");
        tell(command, message);
        false
    };
    let mut gone = Vec::new();
    config.scripts.retain(|script| match &script.probe {
        Probe::Run(command) if !is_usable(command) => {
            gone.push(script.name.clone());
            false
        }
        Probe::Run(_) | Probe::Connect { .. } => true,
    });
    let groups = config.groups.iter_mut().map(|group| (&mut group.tracks, &mut group.notify));
    let instances = config.instances.iter_mut().map(|one| (&mut one.tracks, &mut one.notify));
    for (tracks, notify) in groups.chain(instances) {
        tracks.scripts.retain(|tracked| !gone.contains(&tracked.name));
        for command in [
            &mut notify.active,
            &mut notify.backup,
            &mut notify.fault,
            &mut notify.stop,
            &mut notify.deleted,
            &mut notify.lower,
            &mut notify.any,
        ] {
            command.take_if(|command| !is_usable(command));
        }
    }
    for framed in [&mut config.global.startup, &mut config.global.shutdown] {
        framed.take_if(|framed| !is_usable(&framed.command));
    }
    for server in &mut config.virtual_servers {
        for command in [&mut server.quorum_up, &mut server.quorum_down] {
            command.take_if(|command| !is_usable(command));
        }
        for real in &mut server.servers {
            for command in [&mut real.notify_up, &mut real.notify_down] {
                command.take_if(|command| !is_usable(command));
            }
        }
    }
    for fifo in &mut config.global.fifos {
        fifo.handler.take_if(|command| !is_usable(command));
    }
}

/// Tells which interfaces are not there; they may come later.
fn missing_interfaces(config: &Config, assembled: &Assembled) -> Vec<Diagnostic> {
    let is_there = |name: &str| Path::new("/sys/class/net").join(name).exists();
    let missing = config.instances.iter().filter(|instance| !is_there(&instance.interface));
    let tell = |instance: &config::Instance| {
        let message = format!("there is no interface {}; it is waited for", instance.interface);
        warning(assembled, &instance.span, "missing-interface", message)
    };
    missing.map(tell).collect()
}

fn warning(
    assembled: &Assembled,
    span: &Range<usize>,
    code: &'static str,
    message: String,
) -> Diagnostic {
    let before = assembled.text().get(..span.start).unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    Diagnostic {
        severity: Severity::Warning,
        code,
        span: span.clone(),
        line: before.matches('\n').count() + 1,
        column: before.get(start..).unwrap_or_default().chars().count() + 1,
        message,
        expected: None,
        hint: None,
        related: None,
    }
}

impl Loaded {
    /// Returns the text of the file itself, without what it includes.
    pub(crate) fn text(&self) -> &str {
        self.files.first().map_or("", |(source, _)| &source.text)
    }

    /// Returns everything that is to be said, for people; empty when all is well.
    pub(crate) fn human(&self) -> String {
        let name = self.path.display();
        if let Some(why) = &self.unreadable {
            return format!("error: {name} can't be read: {why}\n");
        }
        let shown = self.files.iter().map(|(source, list)| {
            render::human(&source.name, &source.text, list, host::has_colours())
        });
        shown.collect()
    }

    /// Returns a line of JSON for each file, for programs.
    pub(crate) fn json(&self) -> String {
        let lines = self.files.iter().map(|(source, list)| render::json(&source.name, list) + "\n");
        lines.collect()
    }

    /// Logs everything that is to be said.
    pub(crate) fn log(&self) {
        if let Some(why) = &self.unreadable {
            tracing::error!("{} can't be read: {why}", self.path.display());
        }
        for (source, one) in self.all() {
            let (name, line) = (&source.name, one.line);
            match one.severity {
                Severity::Error => tracing::error!("{name}:{line}: {}", one.message),
                Severity::Warning => tracing::warn!("{name}:{line}: {}", one.message),
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = (&Source, &Diagnostic)> {
        self.files.iter().flat_map(|(source, list)| list.iter().map(move |one| (source, one)))
    }

    /// Returns one line that sums up.
    pub(crate) fn verdict(&self) -> String {
        let name = self.path.display();
        let warnings = self.all().filter(|(_, one)| one.severity == Severity::Warning).count();
        match &self.config {
            Some(config) => {
                let (routers, servers) = (config.instances.len(), config.virtual_servers.len());
                format!(
                    "{name}: ok, virtual routers: {routers}, virtual servers: {servers}, warnings: \
                     {warnings}\n"
                )
            }
            None => format!("{name}: cannot be used, warnings: {warnings}\n"),
        }
    }

    /// Tells whether there is any warning.
    pub(crate) fn has_warnings(&self) -> bool {
        self.all().any(|(_, one)| one.severity == Severity::Warning)
    }

    /// Returns the exit code of `keepalived -t`.
    fn test_code(&self) -> u8 {
        let is_told = |one: &Diagnostic| {
            one.severity == Severity::Error || !config::is_silent_in_keepalived(one.code)
        };
        if self.unreadable.is_some() {
            EXIT_CONFIG
        } else if self.is_insecure && self.config.is_some() {
            EXIT_SECURITY
        } else if self.config.is_none() || self.all().any(|(_, one)| is_told(one)) {
            EXIT_CONFIG
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalived_options_are_understood() {
        let words =
            ["-nlD", "-P", "-f", "/x/k.conf", "--pid=/x/k.pid", "-r", "/x/v.pid", "-i", "a"];
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let asked = read_arguments(&words);
        assert!(asked.stays && asked.is_detailed && asked.unknown.is_none());
        assert_eq!(asked.parts, Parts { has_routers: true, has_servers: false });
        assert_eq!(asked.file, Path::new("/x/k.conf"));
        assert_eq!(asked.pid_file, Path::new("/x/k.pid"));
        assert_eq!(asked.id.as_deref(), Some("a"));
        let test = read_arguments(&[OsString::from("--config-test=/dev/null")]);
        assert!(test.is_test && test.unknown.is_none());
        assert_eq!(read_arguments(&[OsString::from("-Z")]).unknown.as_deref(), Some("Z"));
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.old", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
        ] {
            assert_eq!(is_match(pattern, name), expected, "{pattern} {name}");
        }
        assert_eq!(braces("x{a,b}{1,2}"), ["xa1", "xa2", "xb1", "xb2"]);
    }
}
