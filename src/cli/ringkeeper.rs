//! The product's own command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use ringkeeper_core::config::native::{self, Settings};
use ringkeeper_core::stats::FiguresPlan;

use crate::cli::compose::{self, Parts};
use crate::cli::load::Loaded;
use crate::cli::{check, import, load, manual, route, sentinel, status, top};
#[cfg(target_os = "linux")]
use crate::cli::{keepalived, lab};
use crate::host::admin::{self, AdminLaunch, AdminPlace, SlowAfter};
use crate::host::control::{self, Answer, Control};
use crate::host::journal;
use crate::host::log::{Format, Log, Verbosity};
use crate::host::reason;
use crate::host::runtime::Choice;
use crate::host::service::{self, Launch, Stats, Threads};
use crate::host::signal::{Persona, Signals};
use crate::host::takeover::{self, Takeover};

const EXAMPLES: &str = "\
Examples:
  ringkeeper check nutcracker.yml
      Tell everything that is wrong with a configuration, and where.
  ringkeeper run -c ringkeeper.yml
      Serve its pools in the foreground; Ctrl-C lets clients finish, twice ends at once.
  ringkeeper import nutcracker.yml > ringkeeper.yml
      Write twemproxy's configuration in the form of our own; no key moves.
  ringkeeper route -c nutcracker.yml user:1 user:2
      Tell which server has these keys, and why. Needs no running service.

Started under the name `nutcracker` (a symbolic link will do) the program takes
twemproxy's options instead: `nutcracker --help`.";

const RUN_EXAMPLES: &str = "\
Examples:
  ringkeeper run -c ringkeeper.yml
  ringkeeper run -c nutcracker.yml --log-format json --stats-addr 0.0.0.0
  ringkeeper run -c nutcracker.yml --runtime tokio
  ringkeeper run --sentinel sentinel.conf
  ringkeeper run --nutcracker nutcracker.yml --sentinel sentinel.conf --keepalived keepalived.conf

Signals:
  INT, TERM    let clients finish for 5 s, then end with exit code 0; twice: end at once
  HUP          read the configuration again, and open the log file again (after rotation)
  TTIN, TTOU   log more, log less

Try it:
  redis-cli -p 22121 set hello world      (22121: the pool's `listen` port)
  curl -s http://127.0.0.1:22280/metrics  (everything that is counted; / lists more)
  curl -s telnet://127.0.0.1:22222        (twemproxy's figures, as JSON)";

const RELOAD_EXAMPLES: &str = "\
What both configurations have goes on untouched, connections included. Clients of pools that are
gone get what they asked for and are let go. If the file has errors, or a new address can't be
listened on, nothing changes. `kill -HUP` does the same and leaves the answer in the log.

Exit codes:
  0  the configuration is in use
  1  it is not; the reason is printed";

const UPGRADE_EXAMPLES: &str = "\
The new process has the arguments of the old one and reads the configuration again. If it does not
come to serving, the old one goes on as before. A client that is not between two requests within
30 s, since it does not read its replies, is cut off. Only on Linux.

Exit codes:
  0  the new process serves; its number is printed
  1  nothing has changed; the reason is printed";

const DRAIN_EXAMPLES: &str = "\
Examples:
  ringkeeper drain server alpha one      (before its host is shut down)
  ringkeeper undrain server alpha one
  ringkeeper drain pool alpha
  ringkeeper drain node

What is drained stays so when the configuration is read again, until it is taken up again or the
service ends.";

const CHECK_EXAMPLES: &str = "\
Examples:
  ringkeeper check nutcracker.yml
  ringkeeper check --strict --format json *.yml

Exit codes:
  0  no errors
  1  errors
  2  warnings, with --strict";

const IMPORT_EXAMPLES: &str = "\
Examples:
  ringkeeper import nutcracker.yml > ringkeeper.yml
  ringkeeper import nutcracker.yml --sentinel sentinel.conf > ringkeeper.yml
  ringkeeper check ringkeeper.yml

Comments in the result say what differs and why. The result holds the passwords of the original.";

const ROUTE_EXAMPLES: &str = "\
Examples:
  ringkeeper route -c nutcracker.yml user:1
  ringkeeper route -c nutcracker.yml --pool alpha user:1 '{cart}:7'

It shows the ring with all servers in it. A pool with auto_eject_hosts may route
otherwise while a server is ejected.";

/// One address that never goes away: shards a replicated Redis over its servers.
#[derive(Debug, Parser)]
#[command(name = "ringkeeper", version, after_help = EXAMPLES, subcommand_required = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve the pools of a configuration.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Let the running service read its configuration again; a bad one changes nothing.
    #[command(after_help = RELOAD_EXAMPLES)]
    Reload(ControlArgs),
    /// Start the program anew, as it is installed now, and give it everything: the listening
    /// sockets and every client, in between two of its requests.
    #[command(after_help = UPGRADE_EXAMPLES)]
    Upgrade(ControlArgs),
    /// Take something out of service gently: nothing that was accepted is lost.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Take what was drained into service again.
    #[command(after_help = DRAIN_EXAMPLES)]
    Undrain(DrainArgs),
    /// Tell how the running service is: pools, shards and their masters, who watches them.
    Status(StatusArgs),
    /// Tell why something is as it is.
    #[command(subcommand)]
    Explain(Explain),
    /// Show what happens now in a terminal, once a second: shards, servers, the virtual address and
    /// what became of masters. A browser shows the same at the admin address.
    Top(TopArgs),
    /// Tell what is wrong with configuration files; opens nothing else.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(check::Arguments),
    /// Tell which server a key belongs to, and why.
    #[command(after_help = ROUTE_EXAMPLES)]
    Route(RouteArgs),
    /// Write a nutcracker.yml in the form of ringkeeper.yml; every key stays where it is.
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(ImportArgs),
    /// Try it: a whole deployment on this machine, with keys to break things.
    #[cfg(target_os = "linux")]
    #[command(after_help = lab::EXAMPLES)]
    Lab(lab::LabArgs),
    /// Write man pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder; it is made if it is missing.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Print completions for a shell.
    #[command(hide = true)]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Configuration file: ringkeeper.yml, or twemproxy's nutcracker.yml. Options say more than it.
    #[arg(short, long = "config", visible_alias = "conf-file", value_name = "FILE")]
    #[arg(required_unless_present_any = ["nutcracker", "keepalived", "sentinel"])]
    config: Option<PathBuf>,
    /// Pools, in the format of nutcracker.yml; alone or with the two below. A server at the address
    /// of a monitored master is that master from then on, wherever it moves.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    nutcracker: Option<PathBuf>,
    /// Virtual routers, in the format of keepalived.conf; alone or beside the others (Linux).
    #[arg(long, value_name = "FILE")]
    keepalived: Option<PathBuf>,
    /// A Sentinel, with this sentinel.conf; alone or beside the others. What it learns goes into
    /// FILE.state.
    #[arg(long, value_name = "FILE")]
    sentinel: Option<PathBuf>,
    /// What drives the sockets [default: what the file says, else auto]
    #[arg(long, value_enum)]
    runtime: Option<Choice>,
    /// Threads that serve clients, each with connections of its own to every server: a number, or
    /// `auto` for one per processor, at most 8 [default: what ringkeeper.yml says, else auto; 1
    /// with a nutcracker.yml]
    #[arg(long, value_name = "N|auto")]
    threads: Option<Threads>,
    /// Take commands (reload, drain) at this unix socket [default: what the file says, else
    /// control.sock in the folder that systemd made, in /run/ringkeeper, or in the user's run
    /// folder]
    #[arg(long, value_name = "FILE")]
    control: Option<PathBuf>,
    /// Shape of log lines [default: what the file says, else text]
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
    /// How much to log [default: what the file says, else info]
    #[arg(long, value_enum)]
    log_level: Option<LogLevel>,
    /// Log here; opened again on HUP; with `--log-format journald` the journal's socket [default:
    /// what the file says, else standard error or the journal's usual socket]
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Address of the statistics port [default: what the file says, else 127.0.0.1]
    #[arg(long, value_name = "HOST")]
    stats_addr: Option<String>,
    /// Statistics port, 0 for any; given explicitly, it must be free [default: what the
    /// file says, else 22222]
    #[arg(long, value_name = "PORT")]
    stats_port: Option<u16>,
    #[command(flatten)]
    figures: FiguresArgs,
}

#[derive(Debug, Args)]
struct FiguresArgs {
    /// Where metrics, status and administration are: HOST:PORT, unix:PATH or off; given
    /// explicitly, it must be free [default: what the file says, else 127.0.0.1:22280]
    #[arg(long, value_name = "ADDR")]
    admin: Option<AdminPlace>,
    /// File with the token that whoever changes something there must know; without it nothing can
    /// be changed there
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Name by which this host may be asked there, besides its addresses and `localhost`
    #[arg(long, value_name = "NAME")]
    admin_host: Vec<String>,
    /// Keep requests that take longer for SLOWLOG: milliseconds, or off [default: what the file
    /// says, else 10]
    #[arg(long, value_name = "MS|off")]
    slow_ms: Option<SlowAfter>,
    /// Find the keys most asked for and the largest values from the start
    #[arg(long)]
    watch_keys: bool,
    /// Keep latencies, slow requests and examples; off saves their small cost
    /// [default: what the file says, else on]
    #[arg(long, value_enum)]
    figures: Option<OnOff>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnOff {
    /// Yes.
    On,
    /// No.
    Off,
}

#[derive(Debug, Args)]
struct ControlArgs {
    /// Where the service takes commands, as it was started with [default: its default]
    #[arg(long, value_name = "FILE")]
    control: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct DrainArgs {
    #[command(subcommand)]
    what: DrainWhat,
    /// Where the service takes commands, as it was started with [default: its default]
    #[arg(long, value_name = "FILE", global = true)]
    control: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum DrainWhat {
    /// Every pool: no new clients, those connected get what they asked for and are let go.
    Node,
    /// One pool, in the same way.
    Pool {
        /// Its name.
        name: String,
    },
    /// One server: it gets no new requests, and other servers of the pool get its keys.
    Server {
        /// The name of its pool.
        pool: String,
        /// Its name; `host:port` if the configuration gives it none.
        name: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// Entries with fields in systemd's journal.
    Journald,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogLevel {
    /// What failed.
    Error,
    /// Also what is odd.
    Warn,
    /// Also what changed.
    Info,
    /// Also what helps to find a fault.
    Debug,
    /// Also what happens per request.
    Trace,
}

#[derive(Debug, Args)]
struct AdminArgs {
    /// Where the service is administered: HOST:PORT or unix:PATH [default: 127.0.0.1:22280]
    #[arg(long, value_name = "ADDR")]
    admin: Option<AdminPlace>,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Everything, for programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: AdminArgs,
}

#[derive(Debug, Subcommand)]
enum Explain {
    /// What happened to a shard's master, and what stands in the way of a failover.
    Failover {
        /// The Sentinels' name of the master.
        name: String,
        #[command(flatten)]
        at: AdminArgs,
    },
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// twemproxy's configuration file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The sentinel.conf of the same host; servers at the addresses of its masters follow them.
    #[arg(long, value_name = "FILE")]
    sentinel: Option<PathBuf>,
    /// The keepalived.conf of the same host.
    #[arg(long, value_name = "FILE")]
    keepalived: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct TopArgs {
    #[command(flatten)]
    at: AdminArgs,
    /// Seconds from one look to the next.
    #[arg(long, value_name = "SECONDS", default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=60))]
    interval: u8,
}

#[derive(Debug, Args)]
struct RouteArgs {
    /// Configuration file.
    #[arg(short, long = "config", visible_alias = "conf-file", value_name = "FILE")]
    config: PathBuf,
    /// Only this pool [default: all]
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Keys, as the client sends them.
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,
}

/// Runs the program as `ringkeeper`; `arguments` start with its name.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    match Cli::try_parse_from(arguments) {
        Ok(Cli { command: Verb::Run(arguments) }) => run(arguments),
        Ok(Cli { command: Verb::Reload(arguments) }) => {
            command(arguments.control.as_deref(), &["reload"])
        }
        Ok(Cli { command: Verb::Upgrade(arguments) }) => {
            command(arguments.control.as_deref(), &["upgrade"])
        }
        Ok(Cli { command: Verb::Drain(arguments) }) => drain("drain", &arguments),
        Ok(Cli { command: Verb::Undrain(arguments) }) => drain("undrain", &arguments),
        Ok(Cli { command: Verb::Status(StatusArgs { json, at }) }) => {
            let path = if json { "/status.json" } else { "/status.txt" };
            tell(status::page(&at.admin.unwrap_or_default(), path))
        }
        Ok(Cli { command: Verb::Explain(Explain::Failover { name, at }) }) => {
            let page = status::page(&at.admin.unwrap_or_default(), "/failovers.txt");
            tell(page.and_then(|text| status::about(&text, &name)))
        }
        Ok(Cli { command: Verb::Top(TopArgs { at, interval }) }) => {
            let interval = Duration::from_secs(interval.into());
            match top::run(&at.admin.unwrap_or_default(), interval) {
                Ok(()) => ExitCode::SUCCESS,
                Err(problem) => {
                    eprintln!("error: {problem}");
                    ExitCode::FAILURE
                }
            }
        }
        Ok(Cli { command: Verb::Check(arguments) }) => check::run(&arguments),
        Ok(Cli { command: Verb::Route(arguments) }) => explain_routes(&arguments),
        Ok(Cli { command: Verb::Import(arguments) }) => import_file(&arguments),
        #[cfg(target_os = "linux")]
        Ok(Cli { command: Verb::Lab(arguments) }) => lab::main(arguments),
        Ok(Cli { command: Verb::Man { folder } }) => write_pages(&folder),
        Ok(Cli { command: Verb::Completions { shell } }) => {
            let text = manual::completions(Cli::command(), shell);
            say(&String::from_utf8_lossy(&text));
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Help and version are `errors` with exit code 0; the terminal may be gone already.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}

fn run(arguments: RunArgs) -> ExitCode {
    let signals = match Signals::hold(Persona::Ringkeeper) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("error: signals can't be received: {}", reason(&error));
            return ExitCode::FAILURE;
        }
    };
    let Some(file) = arguments.config.clone().or_else(|| arguments.nutcracker.clone()) else {
        return match &arguments.sentinel {
            Some(file) => watch(&arguments, file, &signals),
            None => run_routers(&arguments, &signals),
        };
    };
    let parts = match compose::read(&file, arguments.sentinel.as_deref()) {
        Ok(parts) => parts,
        Err(problem) => {
            eprint!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    let Parts { mut loaded, masters, reread } = parts;
    let log_file = loaded.settings.log.file.as_deref().map(|file| loaded.beside(file));
    let (format, verbosity, log_file) = log_settings(&arguments, &loaded.settings, log_file);
    let log = match Log::open(log_file.as_deref(), format, verbosity) {
        Ok(log) => log,
        Err(error) => {
            let path = log_file.unwrap_or_default();
            eprintln!("error: the log {} can't be opened: {}", path.display(), reason(&error));
            return ExitCode::FAILURE;
        }
    };
    let is_for_people = matches!(format, Format::Text) && log_file.is_none();
    if is_for_people {
        eprint!("{}", loaded.human());
    } else {
        loaded.log();
    }
    let Some(config) = loaded.config.take() else { return ExitCode::FAILURE };
    let path = arguments.keepalived.as_deref();
    let Ok(routers) = compose::routers(path, Some(&loaded), arguments.runtime) else {
        return ExitCode::FAILURE;
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        configuration = loaded.name,
        "ringkeeper starts"
    );
    let stats = stats(&arguments, &loaded.settings);
    let admin = match admin(&arguments.figures, &loaded) {
        Ok(admin) => admin,
        Err(error) => {
            tracing::error!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let Ok((takeover, control)) = open_control(&arguments, &loaded) else {
        return ExitCode::FAILURE;
    };
    let launch = Launch {
        config,
        reread,
        persona: Persona::Ringkeeper,
        runtime: arguments.runtime.unwrap_or_else(|| choice(loaded.settings.runtime)),
        threads: arguments.threads.unwrap_or(match loaded.settings.threads {
            // Who comes from twemproxy has as many server connections as before.
            _ if !loaded.is_native => Threads::Count(NonZeroU16::MIN),
            native::Threads::Auto => Threads::Auto,
            native::Threads::Count(count) => Threads::Count(count),
        }),
        stats,
        admin,
        settings: loaded.settings,
        control,
        takeover,
        masters,
        routers,
    };
    match service::start(launch) {
        Ok(service) => service::supervise(service, &log, &signals),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

const fn choice(runtime: native::Runtime) -> Choice {
    match runtime {
        native::Runtime::Auto => Choice::Auto,
        native::Runtime::Uring => Choice::Uring,
        native::Runtime::Tokio => Choice::Tokio,
    }
}

/// Runs virtual routers and nothing else.
#[cfg(target_os = "linux")]
fn run_routers(arguments: &RunArgs, signals: &Signals) -> ExitCode {
    let Some(path) = &arguments.keepalived else { return ExitCode::FAILURE };
    let (format, verbosity, log_file) = log_settings(arguments, &Settings::default(), None);
    let log = match Log::open(log_file.as_deref(), format, verbosity) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("error: the log can't be opened: {}", reason(&error));
            return ExitCode::FAILURE;
        }
    };
    let loaded = keepalived::read(path, None);
    if matches!(format, Format::Text) && log_file.is_none() {
        eprint!("{}", loaded.human());
    } else {
        loaded.log();
    }
    let runtime = arguments.runtime.unwrap_or_default();
    keepalived::serve(loaded, runtime, None, &log, signals, || ())
}

/// Virtual routers need what only Linux has.
#[cfg(not(target_os = "linux"))]
fn run_routers(_: &RunArgs, _: &Signals) -> ExitCode {
    eprintln!("error: virtual routers are for Linux only");
    ExitCode::FAILURE
}

/// Runs a Sentinel.
fn watch(arguments: &RunArgs, file: &Path, signals: &Signals) -> ExitCode {
    let (format, verbosity, log_file) = log_settings(arguments, &Settings::default(), None);
    let log = match Log::open(log_file.as_deref(), format, verbosity) {
        Ok(log) => log,
        Err(error) => {
            let path = log_file.unwrap_or_default();
            eprintln!("error: the log {} can't be opened: {}", path.display(), reason(&error));
            return ExitCode::FAILURE;
        }
    };
    match sentinel::read(file, "", sentinel::State::Beside) {
        Ok(loaded) => {
            // Dropped at the end: they leave in order.
            let (path, runtime) = (arguments.keepalived.as_deref(), arguments.runtime);
            let Ok(mut routers) = compose::routers(path, None, runtime) else {
                return ExitCode::FAILURE;
            };
            if let Some(routers) = &mut routers
                && let Err(error) = routers.begin(Vec::new())
            {
                tracing::error!("{error:#}");
                return ExitCode::FAILURE;
            }
            let runtime = arguments.runtime.unwrap_or_default();
            sentinel::serve(loaded, runtime, &log, signals, || {})
        }
        Err(problem) => {
            eprint!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Opens the way for commands: where the options say, else where the file does. Without either it
/// may be missing.
///
/// # Errors
///
/// The place that was asked for can't be used; the log says why.
fn open_control(
    arguments: &RunArgs,
    loaded: &Loaded,
) -> Result<(Option<Takeover>, Option<Control>), ()> {
    let asked_for = match (&arguments.control, &loaded.settings.control) {
        (Some(path), _) => Some(path.clone()),
        (None, native::Control::At(path)) => Some(loaded.beside(path)),
        // Without a socket there is no command that another process takes over.
        (None, native::Control::Off) => return Ok((None, None)),
        (None, native::Control::Auto) => None,
    };
    let is_wanted = asked_for.is_some();
    match Takeover::find(takeover::open_control(asked_for)) {
        Ok(takeover) => Ok((Some(takeover), None)),
        Err(open_control) => match open_control() {
            None if is_wanted => Err(()),
            control => Ok((None, control)),
        },
    }
}

/// Lets the running service do something, and prints what it says.
fn command(control: Option<&Path>, words: &[&str]) -> ExitCode {
    match control::ask(control, words) {
        Ok(Answer { is_ok: true, text }) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Ok(Answer { is_ok: false, text }) => {
            eprint!("{text}");
            ExitCode::FAILURE
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what was found out, or why nothing was.
fn tell(found: Result<String, String>) -> ExitCode {
    match found {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn drain(verb: &str, arguments: &DrainArgs) -> ExitCode {
    let control = arguments.control.as_deref();
    match &arguments.what {
        DrainWhat::Node => command(control, &[verb, "node"]),
        DrainWhat::Pool { name } => command(control, &[verb, "pool", name]),
        DrainWhat::Server { pool, name } => command(control, &[verb, "server", pool, name]),
    }
}

/// Returns where administration is and what is counted: as the options say, else as the file does.
fn admin(arguments: &FiguresArgs, loaded: &Loaded) -> anyhow::Result<AdminLaunch> {
    let Settings { admin, figures, .. } = &loaded.settings;
    let token_file = arguments.admin_token_file.clone();
    let token_file =
        token_file.or_else(|| admin.token_file.as_deref().map(|file| loaded.beside(file)));
    let of_file = AdminPlace::of(admin.listen.as_ref());
    let host_names = [admin.host_names.as_slice(), &arguments.admin_host].concat();
    Ok(AdminLaunch {
        // Nobody asked for the default place, so it may be missing.
        required: arguments.admin.is_some() || admin.listen != Settings::default().admin.listen,
        place: arguments.admin.clone().unwrap_or(of_file),
        token: token_file.as_deref().map(admin::read_token).transpose()?,
        host_names,
        figures: FiguresPlan {
            is_on: arguments.figures.map_or(figures.is_on, |on_off| on_off == OnOff::On),
            slow_after: arguments.slow_ms.map_or(figures.slow_after, |SlowAfter(after)| after),
            is_watching_keys: arguments.watch_keys || figures.is_watching_keys,
        },
    })
}

/// Returns how and where to log: as the options say, else as the file does.
fn log_settings(
    arguments: &RunArgs,
    settings: &Settings,
    file: Option<PathBuf>,
) -> (Format, Verbosity, Option<PathBuf>) {
    let format = match (arguments.log_format, settings.log.format) {
        (Some(LogFormat::Text), _) | (None, native::Format::Text) => Format::Text,
        (Some(LogFormat::Json), _) | (None, native::Format::Json) => Format::Json,
        (Some(LogFormat::Journald), _) | (None, native::Format::Journald) => Format::Journald,
    };
    let level = arguments.log_level.unwrap_or(match settings.log.level {
        native::Level::Error => LogLevel::Error,
        native::Level::Warn => LogLevel::Warn,
        native::Level::Info => LogLevel::Info,
        native::Level::Debug => LogLevel::Debug,
        native::Level::Trace => LogLevel::Trace,
    });
    let verbosity = match level {
        LogLevel::Error => Verbosity::ERROR,
        LogLevel::Warn => Verbosity::WARN,
        LogLevel::Info => Verbosity::NOTICE,
        LogLevel::Debug => Verbosity::DEBUG,
        LogLevel::Trace => Verbosity::TRACE,
    };
    let journal = || (format == Format::Journald).then(|| PathBuf::from(journal::SOCKET));
    (format, verbosity, arguments.log_file.clone().or(file).or_else(journal))
}

/// Returns where the statistics are: as the options say, else as the file does; none: nowhere.
fn stats(arguments: &RunArgs, settings: &Settings) -> Option<Stats> {
    let is_asked_for = arguments.stats_addr.is_some() || arguments.stats_port.is_some();
    let default = Settings::default().stats;
    // Nobody asked for the default by name, so it may be missing.
    let required = is_asked_for || settings.stats != default;
    let at = match (&settings.stats, is_asked_for) {
        (Some(at), _) => at.clone(),
        (None, true) => default?,
        (None, false) => return None,
    };
    Some(Stats {
        required,
        host: arguments.stats_addr.clone().unwrap_or(at.host),
        port: arguments.stats_port.unwrap_or(at.port),
    })
}

fn import_file(arguments: &ImportArgs) -> ExitCode {
    let (sentinel, keepalived) = (arguments.sentinel.as_deref(), arguments.keepalived.as_deref());
    match import::import(&arguments.file, sentinel, keepalived) {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprint!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn write_pages(folder: &Path) -> ExitCode {
    match manual::write_pages(Cli::command(), folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {} can't be written: {}", folder.display(), reason(&error));
            ExitCode::FAILURE
        }
    }
}

fn explain_routes(arguments: &RouteArgs) -> ExitCode {
    let loaded = load::check(&arguments.config);
    let Some(config) = &loaded.config else {
        eprint!("{}", loaded.human());
        return ExitCode::FAILURE;
    };
    match route::explain(config, arguments.pool.as_deref(), &arguments.keys) {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Prints to standard output; a reader that left early (`| head`) is no mistake.
pub(super) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
