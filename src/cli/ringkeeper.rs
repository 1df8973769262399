//! The product's own command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli::{load, route, sentinel};
use crate::host::log::{Format, Log, Verbosity};
use crate::host::reason;
use crate::host::runtime::Choice;
use crate::host::service::{self, Launch, Stats};
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
  ringkeeper run --sentinel sentinel.conf

Signals:
  INT, TERM    let clients finish for 5 s, then end with exit code 0; twice: end at once
  HUP          open the log file again (after rotation)
  TTIN, TTOU   log more, log less

Try it:
  redis-cli -p 22121 set hello world      (22121: the pool's `listen` port)
  curl -s telnet://127.0.0.1:22222        (the figures, as JSON)";

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
    #[arg(required_unless_present = "sentinel")]
    config: Option<PathBuf>,
    /// Run a Sentinel instead, with this sentinel.conf, in which it keeps what it learns.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "stats_addr", "stats_port"])]
    sentinel: Option<PathBuf>,
    /// What drives the sockets.
    #[arg(long, value_enum, default_value_t)]
    runtime: Choice,
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
    if let Some(file) = &arguments.sentinel {
        return watch(file, arguments.runtime, &log, &signals);
    }
    let loaded = load::read(&arguments.config.unwrap_or_default());
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
    let launch = Launch { config, persona: Persona::Ringkeeper, runtime: arguments.runtime, stats };
    match service::start(launch) {
        Ok(running) => service::supervise(running, Persona::Ringkeeper, &log, &signals),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn watch(file: &Path, runtime: Choice, log: &Log, signals: &Signals) -> ExitCode {
    match sentinel::read(file, "") {
        Ok(loaded) => sentinel::serve(loaded, runtime, log, signals, || {}),
        Err(problem) => {
            eprint!("{problem}");
            ExitCode::FAILURE
        }
    }
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
