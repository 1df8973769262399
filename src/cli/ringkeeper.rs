//! The product's own command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use ringkeeper_core::stats::FiguresPlan;

use crate::cli::{load, route};
use crate::host::admin::{self, AdminLaunch, AdminPlace, SlowAfter};
use crate::host::control::{self, Answer, Control};
use crate::host::log::{Format, Log, Verbosity};
use crate::host::reason;
use crate::host::runtime::Choice;
use crate::host::service::{self, Launch, Stats, Threads};
use crate::host::signal::{Persona, Signals};

/// Loopback: the figures are nobody else's business unless the operator says so.
const STATS_HOST: &str = "127.0.0.1";
/// Where twemproxy's users look for figures.
const STATS_PORT: u16 = 22222;

const EXAMPLES: &str = "\
Examples:
  ringkeeper check nutcracker.yml
      Tell everything that is wrong with a configuration, and where.
  ringkeeper run -c nutcracker.yml
      Serve its pools in the foreground; Ctrl-C lets clients finish, twice ends at once.
  ringkeeper route -c nutcracker.yml user:1 user:2
      Tell which server has these keys, and why. Needs no running service.

Started under the name `nutcracker` (a symbolic link will do) the program takes
twemproxy's options instead: `nutcracker --help`.";

const RUN_EXAMPLES: &str = "\
Examples:
  ringkeeper run -c nutcracker.yml
  ringkeeper run -c nutcracker.yml --log-format json --stats-addr 0.0.0.0
  ringkeeper run -c nutcracker.yml --runtime tokio

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
    /// Take something out of service gently: nothing that was accepted is lost.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Take what was drained into service again.
    #[command(after_help = DRAIN_EXAMPLES)]
    Undrain(DrainArgs),
    /// Tell what is wrong with configuration files; opens nothing else.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Tell which server a key belongs to, and why.
    #[command(after_help = ROUTE_EXAMPLES)]
    Route(RouteArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Configuration file, in the format of twemproxy's nutcracker.yml.
    #[arg(short, long = "config", visible_alias = "conf-file", value_name = "FILE")]
    config: PathBuf,
    /// What drives the sockets.
    #[arg(long, value_enum, default_value_t)]
    runtime: Choice,
    /// Threads that serve clients, each with connections of its own to every server: a number, or
    /// `auto` for one per processor, at most 8.
    #[arg(long, value_name = "N|auto", default_value = "1")]
    threads: Threads,
    /// Take commands (reload, drain) at this unix socket [default: control.sock in the folder
    /// that systemd made, in /run/ringkeeper, or in the user's run folder]
    #[arg(long, value_name = "FILE")]
    control: Option<PathBuf>,
    /// Shape of log lines.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// How much to log.
    #[arg(long, value_enum, default_value_t)]
    log_level: LogLevel,
    /// Log here instead of to standard error; opened again on HUP.
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Address of the statistics port [default: 127.0.0.1]
    #[arg(long, value_name = "HOST")]
    stats_addr: Option<String>,
    /// Statistics port, 0 for any; given explicitly, it must be free [default: 22222]
    #[arg(long, value_name = "PORT")]
    stats_port: Option<u16>,
    #[command(flatten)]
    figures: FiguresArgs,
}

#[derive(Debug, Args)]
struct FiguresArgs {
    /// Where metrics, status and administration are: HOST:PORT, unix:PATH or off; given
    /// explicitly, it must be free [default: 127.0.0.1:22280]
    #[arg(long, value_name = "ADDR")]
    admin: Option<AdminPlace>,
    /// File with the token that whoever changes something there must know; without it nothing can
    /// be changed there
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Name by which this host may be asked there, besides its addresses and `localhost`
    #[arg(long, value_name = "NAME")]
    admin_host: Vec<String>,
    /// Keep requests that take longer for SLOWLOG: milliseconds, or off
    #[arg(long, value_name = "MS|off", default_value = "10")]
    slow_ms: SlowAfter,
    /// Find the keys most asked for and the largest values from the start
    #[arg(long)]
    watch_keys: bool,
    /// Keep latencies, slow requests and examples; off saves their small cost
    #[arg(long, value_enum, default_value_t)]
    figures: OnOff,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum OnOff {
    /// Yes.
    #[default]
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

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogLevel {
    /// What failed.
    Error,
    /// Also what is odd.
    Warn,
    /// Also what changed.
    #[default]
    Info,
    /// Also what helps to find a fault.
    Debug,
    /// Also what happens per request.
    Trace,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Configuration files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Treat warnings as a failure.
    #[arg(long)]
    strict: bool,
    /// For people, or for programs.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// Sentences, with the lines of the file that they are about.
    #[default]
    Human,
    /// One JSON object a file, each on its line.
    Json,
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
        Ok(Cli { command: Verb::Drain(arguments) }) => drain("drain", &arguments),
        Ok(Cli { command: Verb::Undrain(arguments) }) => drain("undrain", &arguments),
        Ok(Cli { command: Verb::Check(arguments) }) => check(&arguments),
        Ok(Cli { command: Verb::Route(arguments) }) => explain_routes(&arguments),
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
    let format = match arguments.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let verbosity = match arguments.log_level {
        LogLevel::Error => Verbosity::ERROR,
        LogLevel::Warn => Verbosity::WARN,
        LogLevel::Info => Verbosity::NOTICE,
        LogLevel::Debug => Verbosity::DEBUG,
        LogLevel::Trace => Verbosity::TRACE,
    };
    let log = match Log::open(arguments.log_file.as_deref(), format, verbosity) {
        Ok(log) => log,
        Err(error) => {
            let path = arguments.log_file.unwrap_or_default();
            eprintln!("error: the log {} can't be opened: {}", path.display(), reason(&error));
            return ExitCode::FAILURE;
        }
    };
    let loaded = load::read(&arguments.config);
    let is_for_people = matches!(format, Format::Text) && arguments.log_file.is_none();
    if is_for_people {
        eprint!("{}", loaded.human());
    } else {
        loaded.log();
    }
    let Some(config) = loaded.config else { return ExitCode::FAILURE };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        configuration = loaded.name,
        "ringkeeper starts"
    );
    let stats = Stats {
        // Nobody asked for the port by name, so it may be missing.
        required: arguments.stats_addr.is_some() || arguments.stats_port.is_some(),
        host: arguments.stats_addr.unwrap_or_else(|| STATS_HOST.to_owned()),
        port: arguments.stats_port.unwrap_or(STATS_PORT),
    };
    let admin = match admin(&arguments.figures) {
        Ok(admin) => admin,
        Err(error) => {
            tracing::error!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let control = match Control::open(arguments.control.as_deref()) {
        Ok(control) => Some(control),
        Err(error) if arguments.control.is_some() => {
            tracing::error!("commands can't be taken: {}", reason(&error));
            return ExitCode::FAILURE;
        }
        Err(error) => {
            tracing::warn!(
                "no commands are taken: {}; `--control FILE` chooses another place",
                reason(&error)
            );
            None
        }
    };
    let launch = Launch {
        config,
        reread: load::reread(&arguments.config),
        persona: Persona::Ringkeeper,
        runtime: arguments.runtime,
        threads: arguments.threads,
        stats,
        admin,
        control,
    };
    match service::start(launch) {
        Ok(service) => service::supervise(service, &log, &signals),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
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

fn drain(verb: &str, arguments: &DrainArgs) -> ExitCode {
    let control = arguments.control.as_deref();
    match &arguments.what {
        DrainWhat::Node => command(control, &[verb, "node"]),
        DrainWhat::Pool { name } => command(control, &[verb, "pool", name]),
        DrainWhat::Server { pool, name } => command(control, &[verb, "server", pool, name]),
    }
}

fn admin(arguments: &FiguresArgs) -> anyhow::Result<AdminLaunch> {
    let token = arguments.admin_token_file.as_deref().map(admin::read_token).transpose()?;
    Ok(AdminLaunch {
        // Nobody asked for the default place, so it may be missing.
        required: arguments.admin.is_some(),
        place: arguments.admin.clone().unwrap_or_default(),
        token,
        host_names: arguments.admin_host.clone(),
        figures: FiguresPlan {
            is_on: arguments.figures == OnOff::On,
            slow_after: arguments.slow_ms.0,
            is_watching_keys: arguments.watch_keys,
        },
    })
}

fn check(arguments: &CheckArgs) -> ExitCode {
    let mut has_errors = false;
    let mut has_warnings = false;
    for file in &arguments.files {
        let loaded = load::read(file);
        has_errors |= loaded.has_errors();
        has_warnings |= loaded.has_warnings();
        match arguments.format {
            ReportFormat::Json => say(&loaded.json()),
            ReportFormat::Human => {
                eprint!("{}", loaded.human());
                say(&loaded.verdict());
            }
        }
    }
    match (has_errors, has_warnings && arguments.strict) {
        (true, _) => ExitCode::from(1),
        (false, true) => ExitCode::from(2),
        (false, false) => ExitCode::SUCCESS,
    }
}

fn explain_routes(arguments: &RouteArgs) -> ExitCode {
    let loaded = load::read(&arguments.config);
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
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
