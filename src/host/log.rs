//! Where log lines go and what they look like.
//!
//! Everything in the program logs through `tracing`. The name it was started under decides the
//! form: as `nutcracker` the lines have the shape that twemproxy's log parsers know, as
//! `ringkeeper` they are text or JSON. A file can be opened again while other threads write.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::host::journal::{Journal, JournalEntry, Numbered};
use crate::host::{self, sys};

/// The shape of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `[YYYY-MM-DD HH:MM:SS.mmm] file:LINE message`, as twemproxy's.
    Nutcracker,
    /// `pid:X DD Mon YYYY hh:mm:ss.mmm # message`, as a genuine Sentinel's.
    Redis,
    /// One line of text with fields.
    Text,
    /// One JSON object a line.
    Json,
    /// An entry with fields for systemd's journal, by its own socket.
    Journald,
}

/// How much is logged, on twemproxy's scale from 0 to 11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verbosity(u8);

impl Verbosity {
    /// The loudest.
    const MAX: u8 = 11;
    /// Errors only.
    pub(crate) const ERROR: Self = Self(3);
    /// Errors and oddities.
    pub(crate) const WARN: Self = Self(4);
    /// Also transitions; what both names start with.
    pub(crate) const NOTICE: Self = Self(5);
    /// Also what helps to find a fault.
    pub(crate) const DEBUG: Self = Self(7);
    /// Everything, also what happens per request.
    pub(crate) const TRACE: Self = Self(Self::MAX);

    /// Makes the level `number`; what is above the scale means the loudest.
    pub(crate) fn clamped(number: u64) -> Self {
        Self(u8::try_from(number).map_or(Self::MAX, |level| level.min(Self::MAX)))
    }

    fn filter(self) -> LevelFilter {
        match self.0 {
            0 => LevelFilter::OFF,
            1..=3 => LevelFilter::ERROR,
            4 => LevelFilter::WARN,
            5 | 6 => LevelFilter::INFO,
            7 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        }
    }
}

/// The open log: what the main thread needs to steer it.
pub(crate) struct Log {
    sink: Sink,
    format: Format,
    level: AtomicU8,
    filter: reload::Handle<LevelFilter, Registry>,
}

impl Log {
    /// Opens `path` (standard error if there is none) and sends everything there. For the journal
    /// it is the path of its socket.
    ///
    /// # Errors
    ///
    /// The file can't be opened for appending, or nobody listens at the socket.
    pub(crate) fn open(
        path: Option<&Path>,
        format: Format,
        verbosity: Verbosity,
    ) -> io::Result<Self> {
        let sink = Sink::open(path, format)?;
        let (filter, handle) = reload::Layer::new(verbosity.filter());
        let lines = tracing_subscriber::fmt::layer().with_writer(sink.clone());
        let colours = path.is_none() && host::has_colours();
        let lines: Box<dyn Layer<_> + Send + Sync> = match format {
            Format::Nutcracker => lines.with_ansi(false).event_format(NutcrackerLine).boxed(),
            Format::Redis => lines.with_ansi(false).event_format(RedisLine).boxed(),
            // The journal keeps time and process itself, and tells levels by a number in front.
            Format::Text if path.is_none() && host::is_stderr_the_journal() => {
                lines.with_ansi(false).event_format(Numbered).boxed()
            }
            Format::Text => lines.with_ansi(colours).with_target(false).boxed(),
            Format::Json => lines.json().flatten_event(true).with_target(false).boxed(),
            Format::Journald => lines.with_ansi(false).event_format(JournalEntry).boxed(),
        };
        // A second call (tests only) keeps the first subscriber; nothing depends on which.
        let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
        Ok(Self { sink, format, level: AtomicU8::new(verbosity.0), filter: handle })
    }

    /// Writes a line whatever the level, for the start and the end of the process.
    #[track_caller]
    pub(crate) fn always(&self, text: &str) {
        match self.format {
            Format::Nutcracker => {
                let place = std::panic::Location::caller();
                let mut line = String::new();
                // Writing to a String can't fail.
                let _ = write_head(&mut line, Some(place.file()), Some(place.line()));
                line.push_str(text);
                line.push('\n');
                self.sink.write_line(line.as_bytes());
            }
            Format::Redis | Format::Text | Format::Json | Format::Journald => {
                tracing::info!("{text}");
            }
        }
    }

    /// Writes what a signal did. twemproxy's lines about signals have dots for the time.
    pub(crate) fn signal(&self, text: &str) {
        match self.format {
            Format::Nutcracker => {
                let line = format!("[.......................] {text}\n");
                self.sink.write_line(line.as_bytes());
            }
            Format::Redis | Format::Text | Format::Json | Format::Journald => {
                tracing::info!("{text}");
            }
        }
    }

    /// Opens the file anew, so that a rotated one is let go. Lines go to the old file until the
    /// new one is open, also when that fails.
    ///
    /// # Errors
    ///
    /// The file can't be opened; the old one stays in use.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        self.sink.reopen()
    }

    /// Says how many lines could not be written, once one can be. To be called now and then.
    pub(crate) fn tell_what_was_lost(&self) {
        let lost = &self.sink.0.lost;
        let lines = lost.swap(0, Ordering::Relaxed);
        if lines == 0 {
            return;
        }
        tracing::warn!(lines, "the log could not be written: lines are lost");
        // The line above was lost too, and counted.
        if lost.load(Ordering::Relaxed) > 0 {
            lost.fetch_add(lines - 1, Ordering::Relaxed);
        }
    }

    /// Logs one level more; returns the new level, `None` at the top.
    pub(crate) fn louder(&self) -> Option<u8> {
        let level = self.level.load(Ordering::Relaxed);
        (level < Verbosity::MAX).then(|| self.set(level + 1))
    }

    /// Logs one level less; returns the new level, `None` at the bottom.
    pub(crate) fn quieter(&self) -> Option<u8> {
        self.level.load(Ordering::Relaxed).checked_sub(1).map(|level| self.set(level))
    }

    fn set(&self, level: u8) -> u8 {
        self.level.store(level, Ordering::Relaxed);
        // Fails only when the subscriber is gone, and then there is nothing to filter.
        let _ = self.filter.reload(Verbosity(level).filter());
        level
    }
}

enum Output {
    Stderr,
    File(LogFile),
    Journal(Journal),
}

/// The file, standard error or the journal; one `write` call a line.
#[derive(Clone)]
struct Sink(Arc<SinkState>);

struct SinkState {
    path: Option<PathBuf>,
    output: Mutex<Output>,
    /// Lines that could not be written and were not told of yet.
    lost: AtomicU64,
}

impl Sink {
    fn open(path: Option<&Path>, format: Format) -> io::Result<Self> {
        let output = match (path, format) {
            (None, _) => Output::Stderr,
            (Some(path), Format::Journald) => Output::Journal(Journal::open(path)?),
            (Some(path), _) => {
                let file = open_file(path)?;
                sys::set_crash_fd(file.as_raw_fd());
                Output::File(LogFile::new(file))
            }
        };
        let (path, output) = (path.map(Path::to_owned), Mutex::new(output));
        Ok(Self(Arc::new(SinkState { path, output, lost: AtomicU64::new(0) })))
    }

    fn reopen(&self) -> io::Result<()> {
        let Some(path) = &self.0.path else { return Ok(()) };
        // The journal's socket is looked up for each entry.
        if matches!(*self.output(), Output::Stderr | Output::Journal(_)) {
            return Ok(());
        }
        let file = open_file(path)?;
        sys::set_crash_fd(file.as_raw_fd());
        *self.output() = Output::File(LogFile::new(file));
        Ok(())
    }

    fn write_line(&self, line: &[u8]) {
        let result = match &mut *self.output() {
            Output::File(file) => file.write_line(line),
            Output::Stderr => io::stderr().lock().write_all(line),
            Output::Journal(journal) => journal.send(line),
        };
        // A full disk or a closed terminal must not stop the service, and there is no other place
        // to complain to.
        if result.is_err() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.0.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file, and whether its last line is without an end because there was no room for it.
struct LogFile {
    file: File,
    is_torn: bool,
}

impl LogFile {
    const fn new(file: File) -> Self {
        Self { file, is_torn: false }
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    self.is_torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o644).open(path)
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter(self)
    }
}

/// Passes on whole lines: `tracing-subscriber` formats an event first and writes it at once.
struct LineWriter<'a>(&'a Sink);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats an event as twemproxy would: time, place in the source, message.
struct NutcrackerLine;

impl<S, N> FormatEvent<S, N> for NutcrackerLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        write_head(&mut writer, metadata.file(), metadata.line())?;
        write_body(&mut writer, event)
    }
}

/// Writes what every form of a line ends with: message, fields, end of line.
pub(super) fn write_body(writer: &mut Writer<'_>, event: &Event<'_>) -> fmt::Result {
    let mut fields = Fields::default();
    event.record(&mut fields);
    write_plain(writer, &fields.message)?;
    write_plain(writer, &fields.rest)?;
    writer.write_char('\n')
}

/// Formats an event as Redis would: process, role, time, how loud, message.
struct RedisLine;

impl<S, N> FormatEvent<S, N> for RedisLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        write!(writer, "{}:X ", std::process::id())?;
        if let Some(t) = sys::local_time(i64::try_from(since.as_secs()).unwrap_or(i64::MAX)) {
            let month = usize::try_from(t.month - 1).ok().and_then(|at| MONTHS.get(at));
            write!(
                writer,
                "{:02} {} {:04} {:02}:{:02}:{:02}.{:03} ",
                t.day,
                month.unwrap_or(&"---"),
                t.year,
                t.hour,
                t.minute,
                t.second,
                since.subsec_millis()
            )?;
        }
        let mark = match *event.metadata().level() {
            Level::ERROR | Level::WARN => '#',
            Level::INFO => '*',
            Level::DEBUG => '-',
            Level::TRACE => '.',
        };
        write!(writer, "{mark} ")?;
        write_body(&mut writer, event)
    }
}

/// The message of an event and ` name=value` for the rest.
#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String can't fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.rest, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.rest, " {name}={value}"),
        };
    }
}

/// Writes text with control characters escaped: a value from outside can't forge a line.
pub(super) fn write_plain(writer: &mut impl fmt::Write, text: &str) -> fmt::Result {
    for character in text.chars() {
        if character.is_control() {
            write!(writer, "{}", character.escape_default())?;
        } else {
            writer.write_char(character)?;
        }
    }
    Ok(())
}

fn write_head(writer: &mut impl fmt::Write, file: Option<&str>, line: Option<u32>) -> fmt::Result {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    match sys::local_time(seconds) {
        Some(t) => write!(
            writer,
            "[{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}] ",
            t.year,
            t.month,
            t.day,
            t.hour,
            t.minute,
            t.second,
            since.subsec_millis()
        )?,
        None => writer.write_str("[.......................] ")?,
    }
    let file = file.unwrap_or("-");
    let name = file.rsplit('/').next().unwrap_or(file);
    write!(writer, "{name}:{} ", line.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_the_time_to_the_millisecond_and_the_place() {
        let mut head = String::new();
        write_head(&mut head, Some("src/host/log.rs"), Some(7)).unwrap();
        let shape: String =
            head.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        assert_eq!(shape, "[9999-99-99 99:99:99.999] log.rs:9 ");
    }

    #[test]
    fn control_characters_cannot_forge_a_line() {
        let mut out = String::new();
        write_plain(&mut out, "a\n[b]\u{1b}[1m").unwrap();
        assert_eq!(out, "a\\n[b]\\u{1b}[1m");
    }

    #[test]
    fn levels_above_the_scale_mean_the_loudest() {
        assert_eq!(Verbosity::clamped(12), Verbosity::TRACE);
        assert_eq!(Verbosity::clamped(5), Verbosity::NOTICE);
        assert_eq!(Verbosity::clamped(0).filter(), LevelFilter::OFF);
    }
}
