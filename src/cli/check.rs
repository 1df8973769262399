//! `ringkeeper check`: what is wrong with configuration files, each by itself and all together.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use ringkeeper_core::config::diagnostic::{Diagnostic, Severity};
use ringkeeper_core::config::render;
use ringkeeper_core::config::sentinel as conf;

#[cfg(target_os = "linux")]
use crate::cli::hosts::{self, Routers};
#[cfg(target_os = "linux")]
use crate::cli::keepalived;
use crate::cli::load::{self, Loaded};
use crate::cli::ringkeeper::say;
use crate::cli::{sentinel_check, together};
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
    let mut seen = Seen { format: arguments.format, ..Seen::default() };
    for file in &arguments.files {
        seen.judge(file, arguments.live);
    }
    seen.judge_host();
    #[cfg(target_os = "linux")]
    seen.judge_hosts();
    match (seen.has_errors, seen.has_warnings && arguments.strict) {
        (true, _) => ExitCode::from(1),
        (false, true) => ExitCode::from(2),
        (false, false) => ExitCode::SUCCESS,
    }
}

/// What all files said so far.
#[derive(Default)]
struct Seen {
    format: ReportFormat,
    has_errors: bool,
    has_warnings: bool,
    sentinels: Vec<(String, conf::Config)>,
    pools: Vec<Loaded>,
    #[cfg(target_os = "linux")]
    routers: Vec<Routers>,
}

impl Seen {
    /// Judges one file by itself.
    fn judge(&mut self, file: &Path, is_live: bool) {
        if let Some(report) = sentinel_check::check(file, is_live) {
            self.has_errors |= report.has_errors();
            self.has_warnings |= report.has_warnings();
            self.say(|| report.human(), &report.json(), &report.verdict());
            self.sentinels.extend(report.config.map(|one| (file.display().to_string(), one)));
            return;
        }
        #[cfg(target_os = "linux")]
        if keepalived::is_one(file) {
            let loaded = keepalived::read(file, None);
            self.has_errors |= loaded.config.is_none();
            self.has_warnings |= loaded.has_warnings();
            self.say(|| loaded.human(), &loaded.json(), &loaded.verdict());
            let text = loaded.text().to_owned();
            let name = file.display().to_string();
            self.routers.extend(loaded.config.map(|config| Routers { name, text, config }));
            return;
        }
        let loaded = load::check(file);
        self.has_errors |= loaded.has_errors();
        self.has_warnings |= loaded.has_warnings();
        self.say(|| loaded.human(), &loaded.json(), &loaded.verdict());
        #[cfg(target_os = "linux")]
        if let Some(config) = loaded.settings.vrrp.clone() {
            let (name, text) = (loaded.name.clone(), loaded.text().to_owned());
            self.routers.push(Routers { name, text, config });
        }
        self.pools.push(loaded);
    }

    fn say(&self, human: impl Fn() -> String, json: &str, verdict: &str) {
        match self.format {
            ReportFormat::Json => say(json),
            ReportFormat::Human => {
                eprint!("{}", human());
                say(verdict);
            }
        }
    }

    /// Takes in and tells what was found in a file beside others.
    fn add(&mut self, name: &str, text: &str, found: &[Diagnostic]) {
        self.has_errors |= found.iter().any(|one| one.severity == Severity::Error);
        self.has_warnings |= !found.is_empty();
        let human = || render::human(name, text, found, host::has_colours());
        let verdict = format!("together: {} remarks\n", found.len());
        if self.format == ReportFormat::Human || !found.is_empty() {
            self.say(human, &(render::json(name, found) + "\n"), &verdict);
        }
    }

    /// Judges an old file of pools beside an old file of a Sentinel. Of several hosts nobody knows
    /// which belong together.
    fn judge_host(&mut self) {
        let mut old = self.pools.iter().filter(|loaded| !loaded.is_native);
        let (Some(loaded), None) = (old.next(), old.next()) else { return };
        let ([(_, sentinel)], Some(config)) = (self.sentinels.as_slice(), &loaded.config) else {
            return;
        };
        let found = together::judge(loaded.text(), config, sentinel);
        let (name, text) = (loaded.name.clone(), loaded.text().to_owned());
        self.add(&name, &text, &found);
    }

    /// Judges what hosts have between them.
    #[cfg(target_os = "linux")]
    fn judge_hosts(&mut self) {
        let routers = std::mem::take(&mut self.routers);
        for (number, one) in hosts::judge_routers(&routers) {
            if let Some(file) = routers.get(number) {
                self.add(&file.name, &file.text, &[one]);
            }
        }
        let mut all = Vec::new();
        for loaded in self.pools.iter().filter(|loaded| loaded.is_native) {
            for (voter_file, voter) in &self.sentinels {
                let Some(config) = &loaded.config else { continue };
                let found = hosts::judge_promises(loaded.text(), config, voter, voter_file);
                all.push((loaded.name.clone(), loaded.text().to_owned(), found));
            }
        }
        for (name, text, found) in all.iter().filter(|(.., found)| !found.is_empty()) {
            self.add(name, text, found);
        }
    }
}
