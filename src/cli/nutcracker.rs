//! The drop-in face: started under the name `nutcracker` the program takes twemproxy's command
//! line, prints what its users' scripts look for and answers with its exit codes.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::getopt::{self, Item, Spec};
use crate::cli::load;
use crate::host::admin::AdminLaunch;
use crate::host::daemon::{self, Detached, Readiness};
use crate::host::log::{Format, Log, Verbosity};
use crate::host::runtime::Choice;
use crate::host::service::{self, Launch, NUTCRACKER_VERSION as VERSION, Stats, Threads};
use crate::host::signal::{Persona, Signals};
use crate::host::{pidfile, reason};

/// Where the Debian package has its configuration file; used if it exists.
const PACKAGED_CONF: &str = "/etc/nutcracker/nutcracker.yml";
/// Where twemproxy itself looks, relative to the working directory.
const PLAIN_CONF: &str = "conf/nutcracker.yml";
/// Where the Debian package logs; used if the directory exists.
const PACKAGED_LOG: &str = "/var/log/nutcracker/nutcracker.log";
/// Where the Debian package keeps the process id of a daemon; used if the directory exists.
const PACKAGED_PID: &str = "/run/nutcracker/nutcracker.pid";

/// All interfaces, as twemproxy's.
const STATS_HOST: &str = "0.0.0.0";
const STATS_PORT: u16 = 22222;
/// The chunk sizes that twemproxy accepts, bytes.
const MBUF_BYTES: std::ops::RangeInclusive<u64> = 512..=16_777_216;

const SPECS: &[Spec] = &[
    flag(b'h', "help"),
    flag(b'V', "version"),
    flag(b't', "test-conf"),
    flag(b'd', "daemonize"),
    flag(b'D', "describe-stats"),
    valued(b'v', "verbose"),
    valued(b'o', "output"),
    valued(b'c', "conf-file"),
    valued(b's', "stats-port"),
    valued(b'i', "stats-interval"),
    valued(b'a', "stats-addr"),
    valued(b'p', "pid-file"),
    valued(b'm', "mbuf-size"),
];

const fn flag(short: u8, long: &'static str) -> Spec {
    Spec { short, long, takes_value: false }
}

const fn valued(short: u8, long: &'static str) -> Spec {
    Spec { short, long, takes_value: true }
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    help: bool,
    version: bool,
    describe_stats: bool,
    test_conf: bool,
    daemonize: bool,
    verbosity: Verbosity,
    output: Option<PathBuf>,
    conf: Option<PathBuf>,
    stats_host: String,
    stats_port: u16,
    pid_file: Option<PathBuf>,
    mbuf_bytes: Option<u64>,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            help: false,
            version: false,
            describe_stats: false,
            test_conf: false,
            daemonize: false,
            verbosity: Verbosity::NOTICE,
            output: None,
            conf: None,
            stats_host: STATS_HOST.to_owned(),
            stats_port: STATS_PORT,
            pid_file: None,
            mbuf_bytes: None,
        }
    }
}

impl Asked {
    fn conf(&self) -> PathBuf {
        let default = || {
            let packaged = Path::new(PACKAGED_CONF);
            if packaged.exists() { packaged } else { Path::new(PLAIN_CONF) }.to_owned()
        };
        self.conf.clone().unwrap_or_else(default)
    }

    fn output(&self) -> Option<PathBuf> {
        self.output.clone().or_else(|| in_existing_directory(PACKAGED_LOG))
    }

    fn pid_file(&self) -> Option<PathBuf> {
        // As the Debian build: the file is for daemons only.
        if !self.daemonize {
            return None;
        }
        self.pid_file.clone().or_else(|| in_existing_directory(PACKAGED_PID))
    }
}

fn in_existing_directory(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    path.parent().is_some_and(Path::is_dir).then(|| path.to_owned())
}

/// Runs the program as `nutcracker`; `arguments` come without the program's name.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let asked = match read(arguments) {
        Ok(asked) => asked,
        Err(problem) => {
            eprintln!("nutcracker: {problem}");
            eprint!("{}", usage());
            return ExitCode::FAILURE;
        }
    };
    if asked.help || asked.version || asked.describe_stats {
        show(&asked);
        return ExitCode::SUCCESS;
    }
    if asked.test_conf { test_conf(&asked.conf()) } else { run(&asked) }
}

fn read(arguments: &[OsString]) -> Result<Asked, String> {
    let mut asked = Asked::default();
    for item in getopt::parse(arguments, SPECS) {
        match item {
            Item::Option(letter, value) => asked.take(letter, &value.unwrap_or_default())?,
            Item::MissingValue(letter) => return Err(missing(letter)),
            Item::Unknown(name) => return Err(format!("invalid option -- '{name}'")),
        }
    }
    Ok(asked)
}

impl Asked {
    fn take(&mut self, letter: u8, value: &OsStr) -> Result<(), String> {
        match letter {
            b'h' => self.help = true,
            b'V' => self.version = true,
            b't' => self.test_conf = true,
            b'd' => self.daemonize = true,
            b'D' => self.describe_stats = true,
            b'v' => self.verbosity = Verbosity::clamped(number(letter, value)?),
            b'o' => self.output = Some(value.into()),
            b'c' => self.conf = Some(value.into()),
            b's' => self.stats_port = port(value)?,
            // Figures are fresh whenever they are asked for, so there is no interval to set.
            b'i' => drop(number(letter, value)?),
            b'a' => self.stats_host = value.to_string_lossy().into_owned(),
            b'p' => self.pid_file = Some(value.into()),
            b'm' => self.mbuf_bytes = Some(mbuf_bytes(value)?),
            other => return Err(format!("invalid option -- '{}'", char::from(other))),
        }
        Ok(())
    }
}

fn missing(letter: u8) -> String {
    let what = match letter {
        b'o' | b'c' | b'p' => "a file name",
        b'a' => "a string",
        _ => "a number",
    };
    format!("option -{} requires {what}", char::from(letter))
}

/// Reads decimal digits; a number that is too large counts as the largest.
fn digits(value: &OsStr) -> Option<u64> {
    let text = value.to_str()?;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

fn number(letter: u8, value: &OsStr) -> Result<u64, String> {
    digits(value).ok_or_else(|| format!("option -{} requires a number", char::from(letter)))
}

fn port(value: &OsStr) -> Result<u16, String> {
    let number = number(b's', value)?;
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(format!("option -s value {number} is not a valid port")),
    }
}

fn mbuf_bytes(value: &OsStr) -> Result<u64, String> {
    match digits(value) {
        None | Some(0) => Err("option -m requires a non-zero number".to_owned()),
        Some(bytes) if MBUF_BYTES.contains(&bytes) => Ok(bytes),
        Some(_) => Err(format!(
            "mbuf chunk size must be between {} and {} bytes",
            MBUF_BYTES.start(),
            MBUF_BYTES.end()
        )),
    }
}

/// The pool figures of the statistics port, and what they count.
const POOL_STATS: &[(&str, &str)] = &[
    ("client_eof", "clients that closed their connection in the ordinary way"),
    ("client_err", "client connections that ended in an error"),
    ("client_connections", "clients connected at the moment"),
    ("server_ejects", "times a server was taken out of the ring"),
    ("forward_error", "requests that could not be passed on to a server"),
    ("fragments", "parts made of requests with several keys"),
];

/// The server figures of the statistics port, and what they count.
const SERVER_STATS: &[(&str, &str)] = &[
    ("server_eof", "times the server closed a connection in the ordinary way"),
    ("server_err", "server connections that ended in an error"),
    ("server_timedout", "server connections closed because a reply was late"),
    ("server_connections", "connections to the server at the moment"),
    ("server_ejected_at", "last time it left the ring, microseconds since 1970"),
    ("requests", "requests sent to it"),
    ("request_bytes", "bytes of those requests"),
    ("responses", "replies that came from it"),
    ("response_bytes", "bytes of those replies"),
    ("in_queue", "requests that wait to be sent"),
    ("in_queue_bytes", "bytes of the requests that wait to be sent"),
    ("out_queue", "requests sent whose reply is awaited"),
    ("out_queue_bytes", "bytes of the requests whose reply is awaited"),
];

fn show(asked: &Asked) {
    let mut text = format!("This is nutcracker-{VERSION}\n");
    // Scripts compare this line; which mechanism is at work is in the log.
    text.push_str("async event backend: epoll\n\n");
    if asked.help {
        text.push_str(&usage());
    }
    if asked.describe_stats {
        for (title, stats) in [("pool stats", POOL_STATS), ("server stats", SERVER_STATS)] {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{title}:");
            for (name, meaning) in stats {
                let _ = writeln!(text, "  {name:<18}  \"{meaning}\"");
            }
            text.push('\n');
        }
    }
    eprint!("{text}");
}

fn usage() -> String {
    format!(
        "\
Usage: nutcracker [-?hVdDt] [-v verbosity level] [-o output file]
                  [-c conf file] [-s stats port] [-a stats addr]
                  [-i stats interval] [-p pid file] [-m mbuf size]

Ringkeeper {version}, under the name and with the options of twemproxy {VERSION}.

Options:
  -h, --help              print this and end
  -V, --version           print the version and end
  -t, --test-conf         check the configuration file, say what is wrong, and end
  -D, --describe-stats    print what the figures of the statistics port mean, and end
  -d, --daemonize         run in the background; returns once the service is up
  -v, --verbose=N         log level, 0 (nothing) to 11 (default 5)
  -o, --output=S          log file (default {PACKAGED_LOG}
                          if its directory exists, otherwise standard error)
  -c, --conf-file=S       configuration file (default {PACKAGED_CONF}
                          if it exists, otherwise {PLAIN_CONF})
  -s, --stats-port=N      port for statistics (default {STATS_PORT})
  -a, --stats-addr=S      address for statistics (default {STATS_HOST}, all interfaces)
  -i, --stats-interval=N  accepted; the figures are always fresh
  -p, --pid-file=S        with -d: file for the process id (default
                          {PACKAGED_PID} if its directory exists)
  -m, --mbuf-size=N       accepted, 512 to 16777216; buffers grow and shrink by themselves

Examples:
  nutcracker -t -c nutcracker.yml                 check a file before it goes live
  nutcracker -c nutcracker.yml -a 127.0.0.1       run; statistics for this host only
  nutcracker -d -c nutcracker.yml -o proxy.log    run in the background
",
        version = env!("CARGO_PKG_VERSION")
    )
}

fn test_conf(conf: &Path) -> ExitCode {
    let loaded = load::read(conf);
    // Names of listeners are looked up as part of the test, as twemproxy does.
    let unresolved = loaded.config.as_ref().map(service::unresolved_listeners).unwrap_or_default();
    let is_good = loaded.config.is_some() && unresolved.is_empty();
    let verdict = if is_good { "ok" } else { "invalid" };
    eprintln!("nutcracker: configuration file '{}' syntax is {verdict}", conf.display());
    eprint!("{}", loaded.human());
    for error in unresolved {
        eprintln!("error: {error}");
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(asked: &Asked) -> ExitCode {
    let signals = match Signals::hold(Persona::Nutcracker) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("nutcracker: signals can't be received: {}", reason(&error));
            return ExitCode::FAILURE;
        }
    };
    let output = asked.output();
    let log = match Log::open(output.as_deref(), Format::Nutcracker, asked.verbosity) {
        Ok(log) => log,
        Err(error) => {
            let path = output.unwrap_or_default();
            eprintln!("opening log file '{}' failed: {}", path.display(), reason(&error));
            return ExitCode::FAILURE;
        }
    };
    let mut readiness = if asked.daemonize {
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
    let code = serve(asked, &log, &signals, &mut readiness);
    log.always("done, rabbit done");
    // Only here, if it did not serve: whoever waits for the daemon finds the whole log.
    drop(readiness);
    code
}

fn serve(
    asked: &Asked,
    log: &Log,
    signals: &Signals,
    readiness: &mut Option<Readiness>,
) -> ExitCode {
    let pid = std::process::id();
    if let Some(path) = asked.pid_file()
        && let Err(error) = pidfile::write(&path, pid)
    {
        tracing::error!("opening pid file '{}' failed: {}", path.display(), reason(&error));
        return ExitCode::FAILURE;
    }
    greet(log, pid);
    if let Some(bytes) = asked.mbuf_bytes {
        tracing::info!("mbuf size {bytes} accepted and not used: buffers are managed differently");
    }
    let conf = asked.conf();
    let loaded = load::read(&conf);
    loaded.log();
    let Some(config) = loaded.config else { return ExitCode::FAILURE };
    let launch = Launch {
        config,
        reread: load::reread(&conf),
        persona: Persona::Nutcracker,
        runtime: runtime_of_environment(),
        threads: Threads::Count(NonZeroU16::MIN),
        control: None,
        // twemproxy has no such port, and the program may run beside others by this name.
        admin: AdminLaunch::default(),
        takeover: None,
        masters: None,
        stats: Some(Stats {
            host: asked.stats_host.clone(),
            port: asked.stats_port,
            required: true,
        }),
        settings: loaded.settings,
        routers: None,
    };
    match service::start(launch) {
        Ok(service) => {
            if let Some(readiness) = readiness.take() {
                readiness.report();
            }
            service::supervise(service, log, signals)
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// twemproxy has no option for it, so the environment decides: `RINGKEEPER_RUNTIME` is `tokio`,
/// `uring` or, as any other word, the best that works here.
fn runtime_of_environment() -> Choice {
    let word = std::env::var("RINGKEEPER_RUNTIME").unwrap_or_default();
    <Choice as clap::ValueEnum>::from_str(&word, true).unwrap_or_default()
}

fn greet(log: &Log, pid: u32) {
    let system = rustix::system::uname();
    log.always(&format!(
        "nutcracker-{VERSION} built for {} {} {} started on pid {pid}",
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
        system.machine().to_string_lossy()
    ));
    log.always(concat!(
        "run, rabbit run / this is ringkeeper ",
        env!("CARGO_PKG_VERSION"),
        ": every key keeps its place on the ring"
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Result<Asked, String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        read(&words)
    }

    #[test]
    fn flags_combine_and_the_first_mistake_is_told() {
        let got = asked(&["-dtc", "F", "--stats-port=99", "extra", "-v", "12"]).unwrap();
        assert!(got.daemonize && got.test_conf);
        assert_eq!(got.conf, Some("F".into()));
        assert_eq!(got.stats_port, 99);
        assert_eq!(got.verbosity, Verbosity::TRACE);
        assert_eq!(asked(&["-s", "0", "-x"]).unwrap_err(), "option -s value 0 is not a valid port");
    }

    #[test]
    fn numbers_are_digits_within_their_range() {
        assert!(asked(&["-i", "0"]).is_ok());
        assert_eq!(asked(&["-i", "-1"]).unwrap_err(), "option -i requires a number");
        assert_eq!(asked(&["-m", "0"]).unwrap_err(), "option -m requires a non-zero number");
        assert!(asked(&["-m", "512"]).is_ok() && asked(&["-m", "16777216"]).is_ok());
        assert!(asked(&["-s", "99999999999999999999999"]).is_err());
    }

    #[test]
    fn a_pid_file_is_for_daemons() {
        assert_eq!(asked(&["-p", "x"]).unwrap().pid_file(), None);
        assert_eq!(asked(&["-d", "-p", "x"]).unwrap().pid_file(), Some("x".into()));
    }
}
