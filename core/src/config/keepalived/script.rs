//! What can be tracked: scripts, files and programs.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::grammar::{Statement, Word};
use super::keywords;
use super::model::{Command, File, Probe, Process, Script};
use super::reader::{Reader, block, split_command};

/// Longest interval and time-out, in microseconds.
const MICROS: RangeInclusive<u64> = 1..=u32::MAX as u64 * 1_000_000;

impl Reader<'_, '_> {
    /// Reads a `vrrp_script`.
    pub(super) fn script(&mut self, statement: &Statement) {
        let Some(name) = statement.arguments.first() else {
            return self.error("missing-name", &statement.keyword.span, "the script has no name");
        };
        let second = Duration::from_secs(1);
        let mut command: Option<Command> = None;
        let mut user = None;
        let mut script = Script {
            name: name.text.clone(),
            probe: Probe::Connect { host: String::new(), port: 0 },
            interval: second,
            timeout: None,
            weight: 0,
            is_reversed: false,
            rise: 1,
            fall: 1,
            starts_failed: false,
        };
        for inner in block(statement) {
            match inner.keyword.text.as_str() {
                "script" => command = program(inner),
                "interval" => {
                    let micros = self.micros(inner, MICROS, "1 is used");
                    script.interval = micros.map_or(second, Duration::from_micros);
                }
                "timeout" => {
                    let micros = self.micros(inner, MICROS, "ignored");
                    script.timeout = micros.map(Duration::from_micros);
                }
                "weight" => {
                    script.weight = self.weight(inner, 253, 0);
                    script.is_reversed = is_reversed(inner);
                }
                "rise" => script.rise = self.count(inner),
                "fall" => script.fall = self.count(inner),
                "user" => user = self.user(inner),
                "init_fail" => script.starts_failed = true,
                _ => self.unknown(&inner.keyword, keywords::SCRIPT.iter().copied()),
            }
        }
        let Some(command) = command else {
            self.warn("script-without-program", &name.span, "the script has no program, ignored");
            return;
        };
        script.probe = match connection(&command.argv) {
            Some((host, port)) => Probe::Connect { host, port },
            None => Probe::Run(Command { user, ..command }),
        };
        if self.config.scripts.iter().any(|known| known.name == script.name) {
            let message = "the script is defined already, ignored";
            return self.warn("duplicate-script", &name.span, message);
        }
        self.config.scripts.push(script);
    }

    fn weight(&mut self, statement: &Statement, max: i16, default: i16) -> i16 {
        let range = -i64::from(max)..=i64::from(max);
        let weight = self.number(statement, range, &format!("{default} is used"));
        weight.and_then(|weight| i16::try_from(weight).ok()).unwrap_or(default)
    }

    fn count(&mut self, statement: &Statement) -> u32 {
        let count = self.number(statement, 1..=i64::from(i32::MAX), "1 is used");
        count.and_then(|count| u32::try_from(count).ok()).unwrap_or(1)
    }

    /// Reads a `vrrp_track_file`.
    pub(super) fn file(&mut self, statement: &Statement) {
        let Some(name) = statement.arguments.first() else {
            return self.error("missing-name", &statement.keyword.span, "the file has no name");
        };
        let (mut path, mut weight, mut reversed) = (None, 1, false);
        for inner in block(statement) {
            match inner.keyword.text.as_str() {
                "file" => path = inner.arguments.first().map(|word| word.text.clone()),
                "weight" => {
                    weight = self.weight(inner, 254, 1);
                    reversed = is_reversed(inner);
                }
                "init_file" => self.unused(&inner.keyword),
                _ => self.unknown(&inner.keyword, keywords::FILE.iter().copied()),
            }
        }
        let Some(path) = path else {
            return self.warn("file-without-path", &name.span, "there is no file, ignored");
        };
        let name = name.text.clone();
        self.config.files.push(File { name, path, weight, is_reversed: reversed });
    }

    /// Reads a `vrrp_track_process`.
    pub(super) fn process(&mut self, statement: &Statement) {
        let Some(name) = statement.arguments.first() else {
            return self.error("missing-name", &statement.keyword.span, "the process has no name");
        };
        let mut process = Process {
            name: name.text.clone(),
            program: String::new(),
            quorum: 1,
            weight: 0,
            is_reversed: false,
            delay: Duration::ZERO,
        };
        for inner in block(statement) {
            match inner.keyword.text.as_str() {
                "process" => {
                    process.program =
                        inner.arguments.first().map(|word| word.text.clone()).unwrap_or_default();
                    if let Some(word) = inner.arguments.get(1) {
                        let message = "arguments of a process are not compared";
                        self.warn("process-arguments", &word.span, message);
                    }
                }
                "weight" => {
                    process.weight = self.weight(inner, 253, 0);
                    process.is_reversed = is_reversed(inner);
                }
                "quorum" => process.quorum = self.count(inner),
                "delay" | "terminate_delay" | "fork_delay" => {
                    let delay = self.time(inner, 3600).unwrap_or_default();
                    process.delay = process.delay.max(delay);
                }
                other if keywords::PROCESS.contains(&other) => self.unused(&inner.keyword),
                _ => self.unknown(&inner.keyword, keywords::PROCESS.iter().copied()),
            }
        }
        if process.program.is_empty() {
            let message = "there is no program, ignored";
            return self.warn("process-without-program", &name.span, message);
        }
        self.config.processes.push(process);
    }
}

fn is_reversed(statement: &Statement) -> bool {
    statement.arguments.get(1).is_some_and(|word| word.text == "reverse")
}

/// Reads all words behind `script`; what stands in quotes has words of its own.
fn program(statement: &Statement) -> Option<Command> {
    let words = |word: &Word| match word.is_quoted {
        true => split_command(&word.text),
        false => vec![word.text.clone()],
    };
    let argv: Vec<String> = statement.arguments.iter().flat_map(words).collect();
    let span = statement.arguments.first()?.span.clone();
    (!argv.is_empty()).then_some(Command { argv, user: None, span })
}

/// Finds out that all a script does is to try a connection: `</dev/tcp/HOST/PORT`, alone or as the
/// command of a shell.
fn connection(argv: &[String]) -> Option<(String, u16)> {
    let text = match argv {
        [only] => only.as_str(),
        [arrow, path] if arrow == "<" => path.as_str(),
        [shell, option, command] if option == "-c" && shell.ends_with("sh") => command.trim(),
        _ => return None,
    };
    let path = text.trim_start_matches(':').trim_start().trim_start_matches('<').trim_start();
    let (host, port) = path.strip_prefix("/dev/tcp/")?.split_once('/')?;
    let is_host = |letter: char| letter.is_ascii_alphanumeric() || ".:-_".contains(letter);
    let is_plain = !host.is_empty() && host.chars().all(is_host);
    let port = port.parse().ok().filter(|&port| port != 0)?;
    is_plain.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(argv: &[&str]) -> Option<(String, u16)> {
        connection(&argv.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_redirection_from_a_port_is_a_connection() {
        let expected = Some(("127.0.0.1".to_owned(), 22121));
        assert_eq!(found(&["</dev/tcp/127.0.0.1/22121"]), expected);
        assert_eq!(found(&["<", "/dev/tcp/127.0.0.1/22121"]), expected);
        assert_eq!(found(&["/bin/bash", "-c", "</dev/tcp/127.0.0.1/22121"]), expected);
        assert_eq!(found(&["bash", "-c", ": < /dev/tcp/127.0.0.1/22121"]), expected);
    }

    #[test]
    fn anything_more_is_a_program() {
        for argv in [
            &["/bin/true"][..],
            &["bash", "-c", "</dev/tcp/h/1 && rm x"],
            &["</dev/tcp/h/0"],
            &["</dev/tcp/h"],
            &["</dev/tcp/$(x)/1"],
            &["cat", "</dev/tcp/h/1"],
        ] {
            assert_eq!(found(argv), None, "{argv:?}");
        }
    }
}
