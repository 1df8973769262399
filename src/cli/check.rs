//! `ringkeeper check`: what is wrong with configuration files, each by itself and all together.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use ringkeeper_core::config::diagnostic::Severity;
use ringkeeper_core::config::render;

#[cfg(target_os = "linux")]
use crate::cli::keepalived;
use crate::cli::ringkeeper::say;
use crate::cli::{load, sentinel_check, together};
use crate::host;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Configuration files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Of a sentinel.conf: also ask the masters that it names, for 2 s at most.
    #[arg(long)]
    live: bool,
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

/// Tells what is wrong.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let mut has_errors = false;
    let mut has_warnings = false;
    let mut sentinels = Vec::new();
    let mut pools = Vec::new();
    for file in &arguments.files {
        if let Some(report) = sentinel_check::check(file, arguments.live) {
            has_errors |= report.has_errors();
            has_warnings |= report.has_warnings();
            match arguments.format {
                ReportFormat::Json => say(&report.json()),
                ReportFormat::Human => {
                    eprint!("{}", report.human());
                    say(&report.verdict());
                }
            }
            sentinels.extend(report.config);
            continue;
        }
        #[cfg(target_os = "linux")]
        if keepalived::is_one(file) {
            let loaded = keepalived::read(file, None);
            has_errors |= loaded.config.is_none();
            has_warnings |= loaded.has_warnings();
            match arguments.format {
                ReportFormat::Json => say(&loaded.json()),
                ReportFormat::Human => {
                    eprint!("{}", loaded.human());
                    say(&loaded.verdict());
                }
            }
            continue;
        }
        let loaded = load::check(file);
        has_errors |= loaded.has_errors();
        has_warnings |= loaded.has_warnings();
        match arguments.format {
            ReportFormat::Json => say(&loaded.json()),
            ReportFormat::Human => {
                eprint!("{}", loaded.human());
                say(&loaded.verdict());
            }
        }
        if !loaded.is_native {
            pools.push(loaded);
        }
    }
    // Of several hosts nobody knows which belong together.
    if let ([loaded], [sentinel]) = (pools.as_slice(), sentinels.as_slice())
        && let Some(config) = &loaded.config
    {
        let found = together::judge(loaded.text(), config, sentinel);
        has_errors |= found.iter().any(|one| one.severity == Severity::Error);
        has_warnings |= !found.is_empty();
        match arguments.format {
            ReportFormat::Json if found.is_empty() => {}
            ReportFormat::Json => say(&(render::json(&loaded.name, &found) + "\n")),
            ReportFormat::Human => {
                let colours = host::has_colours();
                eprint!("{}", render::human(&loaded.name, loaded.text(), &found, colours));
                say(&format!("together: {} remarks\n", found.len()));
            }
        }
    }
    match (has_errors, has_warnings && arguments.strict) {
        (true, _) => ExitCode::from(1),
        (false, true) => ExitCode::from(2),
        (false, false) => ExitCode::SUCCESS,
    }
}
