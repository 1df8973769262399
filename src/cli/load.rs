//! Reads configuration files and reports what is wrong with them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ringkeeper_core::config::diagnostic::{Diagnostic, Severity};
use ringkeeper_core::config::native::{self, SecretFile, Settings};
use ringkeeper_core::config::nutcracker::{self, Config};
use ringkeeper_core::config::render;
use ringkeeper_core::limits::CONFIG_BYTES_MAX;

use super::secrets;
use crate::host::service::{Reading, Reread};
use crate::host::{self, reason};

/// A file, what it means, and what is to be said about it.
pub(crate) struct Loaded {
    /// The file's name as the operator gave it.
    pub(crate) name: String,
    /// The configuration; some when the file could be read and has no error.
    pub(crate) config: Option<Config>,
    /// What the file says about the process; defaults if it is twemproxy's.
    pub(crate) settings: Settings,
    /// Whether it has the form of `ringkeeper.yml`.
    pub(crate) is_native: bool,
    /// Errors and warnings in the order of the text.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Why the file could not be read.
    pub(crate) unreadable: Option<String>,
    text: String,
    secrets: Vec<SecretFile>,
}

/// Reads the file at `path`, in whichever form it is, and the passwords that it keeps elsewhere.
pub(crate) fn read(path: &Path) -> Loaded {
    let mut loaded = check(path);
    if let Some(config) = &mut loaded.config {
        loaded.diagnostics.extend(secrets::fetch(
            path,
            &loaded.secrets,
            config,
            &mut loaded.settings,
        ));
        if loaded.diagnostics.iter().any(|one| one.severity == Severity::Error) {
            loaded.config = None;
        }
    }
    loaded
}

/// Reads the file at `path`, in whichever form it is; opens and resolves nothing else.
pub(crate) fn check(path: &Path) -> Loaded {
    let name = path.display().to_string();
    let mut loaded = Loaded {
        name,
        config: None,
        settings: Settings::default(),
        is_native: false,
        diagnostics: Vec::new(),
        unreadable: None,
        text: String::new(),
        secrets: Vec::new(),
    };
    let bytes = match read_bytes(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            loaded.unreadable = Some(reason(&error));
            return loaded;
        }
    };
    loaded.text = String::from_utf8_lossy(&bytes).into_owned();
    loaded.is_native = native::is_native(&bytes);
    if loaded.is_native {
        let parsed = native::parse_bytes(&loaded.name, &bytes);
        loaded.config = parsed.config;
        loaded.settings = parsed.settings;
        loaded.secrets = parsed.secrets;
        loaded.diagnostics = parsed.diagnostics;
    } else {
        let parsed = nutcracker::parse_bytes(&loaded.name, &bytes);
        loaded.config = parsed.config;
        loaded.diagnostics = parsed.diagnostics;
    }
    loaded
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed, so that the parser sees that there is too much.
    let most = u64::try_from(CONFIG_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns how the service reads the file at `path` again.
pub(crate) fn reread(path: &Path) -> Reread {
    let path = path.to_owned();
    Box::new(move || {
        let loaded = read(&path);
        loaded.log();
        Reading { text: loaded.human(), config: loaded.config, settings: loaded.settings }
    })
}

impl Loaded {
    /// Returns where a file is that the configuration names: a relative path is meant from the
    /// folder of the configuration.
    pub(crate) fn beside(&self, path: &str) -> PathBuf {
        Path::new(&self.name).parent().unwrap_or_else(|| Path::new("")).join(path)
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.name)
    }

    /// Returns the text of the file.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns everything that is to be said, for people; empty when all is well.
    pub(crate) fn human(&self) -> String {
        match &self.unreadable {
            Some(reason) => format!("error: {} can't be read: {reason}\n", self.name),
            None => render::human(&self.name, &self.text, &self.diagnostics, host::has_colours()),
        }
    }

    /// Logs everything that is to be said, a line each.
    pub(crate) fn log(&self) {
        if let Some(reason) = &self.unreadable {
            tracing::error!("conf: failed to open configuration '{}': {reason}", self.name);
        }
        for diagnostic in &self.diagnostics {
            let line = self.line(diagnostic);
            match diagnostic.severity {
                Severity::Error => tracing::error!("{line}"),
                Severity::Warning => tracing::warn!("{line}"),
            }
        }
    }

    fn line(&self, diagnostic: &Diagnostic) -> String {
        let Diagnostic { line, column, message, expected, hint, .. } = diagnostic;
        let mut text = format!("conf: {}:{line}:{column}: {message}", self.name);
        if let Some(expected) = expected {
            text.push_str("; expected ");
            text.push_str(expected);
        }
        if let Some(hint) = hint {
            text.push_str("; ");
            text.push_str(hint);
        }
        text
    }

    /// Returns one line of JSON, for programs.
    pub(crate) fn json(&self) -> String {
        let mut line = match &self.unreadable {
            Some(reason) => {
                let unreadable = Diagnostic {
                    severity: Severity::Error,
                    code: "unreadable",
                    span: 0..0,
                    line: 1,
                    column: 1,
                    message: format!("the file can't be read: {reason}"),
                    expected: None,
                    hint: None,
                    related: None,
                };
                render::json(&self.name, &[unreadable])
            }
            None => render::json(&self.name, &self.diagnostics),
        };
        line.push('\n');
        line
    }

    /// Returns one line that sums up.
    pub(crate) fn verdict(&self) -> String {
        let count = |severity| self.diagnostics.iter().filter(|d| d.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        match &self.config {
            Some(config) => {
                let servers: usize = config.pools.iter().map(|pool| pool.servers.len()).sum();
                format!(
                    "{}: ok, {}, {}, {}\n",
                    self.name,
                    counted(config.pools.len(), "pool"),
                    counted(servers, "server"),
                    counted(warnings, "warning")
                )
            }
            None if self.unreadable.is_some() => format!("{}: unreadable\n", self.name),
            None => format!(
                "{}: {}, {}\n",
                self.name,
                counted(errors, "error"),
                counted(warnings, "warning")
            ),
        }
    }

    /// Returns whether anything is an error.
    pub(crate) const fn has_errors(&self) -> bool {
        self.config.is_none()
    }

    /// Returns whether anything is a warning.
    pub(crate) fn has_warnings(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Warning)
    }
}

/// Returns `1 pool`, `2 pools`.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
