//! Log entries for systemd's journal: with their level in front when standard error goes there,
//! with fields of their own when they are sent to its socket.
//!
//! Source: sd-daemon(3), sd_journal_print(3), the journal's "Native Protocol"; fields by
//! systemd.journal-fields(7).

use std::fmt;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::host::log::{write_body, write_plain};

/// Where the journal listens, unless it is one of another namespace.
pub(crate) const SOCKET: &str = "/run/systemd/journal/socket";

/// What the journal calls the program's entries.
const IDENTIFIER: &str = "ringkeeper";

/// The journal's socket.
pub(crate) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// Finds the journal.
    ///
    /// # Errors
    ///
    /// Nobody listens at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(path)?;
        let socket = UnixDatagram::unbound()?;
        // Whoever logs must not wait for a journal that does not read.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Sends an entry. The journal may have been restarted, so its socket is looked up each time.
    ///
    /// # Errors
    ///
    /// The journal is gone, does not keep up, or takes no entry that is so long.
    pub(crate) fn send(&self, entry: &[u8]) -> io::Result<()> {
        self.socket.send_to(entry, &self.path).map(drop)
    }
}

const fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Formats an event as a line of standard error: its priority, message, fields.
pub(super) struct Numbered;

impl<S, N> FormatEvent<S, N> for Numbered
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
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        write_body(&mut writer, event)
    }
}

/// Formats an event as an entry: a field a line. Values have no line breaks, so none needs the
/// protocol's form with a length.
pub(super) struct JournalEntry;

impl<S, N> FormatEvent<S, N> for JournalEntry
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
        let level = priority(*metadata.level());
        write!(writer, "PRIORITY={level}\nSYSLOG_IDENTIFIER={IDENTIFIER}\n")?;
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            write!(writer, "CODE_FILE={file}\nCODE_LINE={line}\n")?;
        }
        let mut fields = EntryFields(String::new());
        event.record(&mut fields);
        writer.write_str(&fields.0)?;
        // The message has the values too: it is all that most ways to look at it show.
        writer.write_str("MESSAGE=")?;
        write_body(&mut writer, event)
    }
}

/// Lines for the values of an event.
struct EntryFields(String);

impl EntryFields {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            return;
        }
        self.0.push_str("RINGKEEPER_");
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        self.0.extend(field.name().chars().map(plain));
        self.0.push('=');
        // Writing to a String can't fail.
        let _ = write_plain(&mut self.0, value);
        self.0.push('\n');
    }
}

impl Visit for EntryFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }
}
