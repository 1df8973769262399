//! What is wrong or surprising in a configuration file, and exactly where.

use std::ops::Range;

use crate::limits;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is not used.
    Error,
    /// The file is used; its author may not expect what it does.
    Warning,
}

impl Severity {
    /// Returns the word for people and programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes of the text, from the first to behind the last. May be empty.
    pub span: Range<usize>,
    /// Line of the first byte, from 1. A line ends with a line feed.
    pub line: usize,
    /// Column of the first byte, from 1, in Unicode scalar values.
    pub column: usize,
}

/// A second place that explains a diagnostic, such as where a name was used first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Where.
    pub place: Place,
    /// What is there.
    pub message: String,
}

/// One mistake or surprise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name in kebab-case for programs, such as `unknown-directive`.
    pub code: &'static str,
    /// Bytes of the text that it is about. May be empty.
    pub span: Range<usize>,
    /// Line of the first byte, from 1.
    pub line: usize,
    /// Column of the first byte, from 1, in Unicode scalar values.
    pub column: usize,
    /// What is wrong, in one sentence without a full stop. Holds no control characters, and never
    /// a secret.
    pub message: String,
    /// What would be right.
    pub expected: Option<String>,
    /// What to do, such as `did you mean "hash"?`.
    pub hint: Option<String>,
    /// Another place that belongs to it.
    pub related: Option<Related>,
}

impl Diagnostic {
    pub(super) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the word that was probably meant, if there is one.
    pub(super) fn did_you_mean(mut self, word: Option<&str>) -> Self {
        self.hint = word.map(|word| format!("did you mean {}?", quoted(word))).or(self.hint);
        self
    }

    pub(super) fn related(mut self, place: Place, message: impl Into<String>) -> Self {
        self.related = Some(Related { place, message: message.into() });
        self
    }
}

/// Collects the diagnostics of one text.
pub(super) struct Collector<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
    list: Vec<Diagnostic>,
    has_errors: bool,
    dropped: usize,
}

impl<'a> Collector<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let line_starts = std::iter::once(0)
            .chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1))
            .collect();
        Self { text, line_starts, list: Vec::new(), has_errors: false, dropped: 0 }
    }

    /// Returns whether an error was reported.
    pub(super) const fn has_errors(&self) -> bool {
        self.has_errors
    }

    /// Finds line and column. A span beyond the text is cut to it.
    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let start = floor_boundary(self.text, span.start);
        let end = floor_boundary(self.text, span.end).max(start);
        let line = self.line_starts.partition_point(|&line_start| line_start <= start).max(1);
        let line_start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(line_start..start).unwrap_or_default();
        Place { span: start..end, line, column: before.chars().count() + 1 }
    }

    /// Makes an error to be completed and given to [`report`](Self::report).
    pub(super) fn error(
        &self,
        code: &'static str,
        span: &Range<usize>,
        message: impl Into<String>,
    ) -> Diagnostic {
        self.diagnostic(Severity::Error, code, span, message.into())
    }

    /// Makes a warning to be completed and given to [`report`](Self::report).
    pub(super) fn warning(
        &self,
        code: &'static str,
        span: &Range<usize>,
        message: impl Into<String>,
    ) -> Diagnostic {
        self.diagnostic(Severity::Warning, code, span, message.into())
    }

    /// Takes a diagnostic in. Beyond [`limits::CONFIG_DIAGNOSTICS_MAX`] they are only counted.
    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        self.has_errors |= diagnostic.severity == Severity::Error;
        if self.list.len() < limits::CONFIG_DIAGNOSTICS_MAX {
            self.list.push(diagnostic);
        } else {
            self.dropped += 1;
        }
    }

    /// Returns the diagnostics in the order of the text; the last one counts what did not fit.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.severity));
        if self.dropped > 0 {
            let severity = if self.has_errors { Severity::Error } else { Severity::Warning };
            let end = self.text.len();
            let message = format!("{} more problems are not shown", self.dropped);
            let more = self.diagnostic(severity, "too-many-problems", &(end..end), message);
            self.list.push(more);
        }
        self.list
    }

    fn diagnostic(
        &self,
        severity: Severity,
        code: &'static str,
        span: &Range<usize>,
        message: String,
    ) -> Diagnostic {
        let Place { span, line, column } = self.place(span);
        Diagnostic {
            severity,
            code,
            span,
            line,
            column,
            message,
            expected: None,
            hint: None,
            related: None,
        }
    }
}

/// Returns the nearest place at or before an offset where a character starts.
fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Quotes text of the file for a message: short, on one line, without control characters.
pub(super) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut shown: String = text.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    // A quotation mark inside needs no backslash: what stands between ours is for people.
    shown = shown.replace("\\\"", "\"").replace("\\'", "'");
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_end_with_a_line_feed() {
        let collector = Collector::new("a\r\né: x\n");
        assert_eq!(collector.place(&(0..1)), Place { span: 0..1, line: 1, column: 1 });
        assert_eq!(collector.place(&(7..8)), Place { span: 7..8, line: 2, column: 4 });
        assert_eq!(collector.place(&(9..9)), Place { span: 9..9, line: 3, column: 1 });
        assert_eq!(collector.place(&(90..99)), Place { span: 9..9, line: 3, column: 1 });
        // In the middle of a character.
        assert_eq!(collector.place(&(4..5)).span, 3..5);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_stays_an_error() {
        let mut collector = Collector::new("x");
        for _ in 0..limits::CONFIG_DIAGNOSTICS_MAX {
            collector.report(collector.warning("w", &(0..1), "w"));
        }
        assert!(!collector.has_errors());
        collector.report(collector.error("e", &(0..1), "e"));
        assert!(collector.has_errors());
        let list = collector.finish();
        assert_eq!(list.len(), limits::CONFIG_DIAGNOSTICS_MAX + 1);
        assert_eq!(list.last().map(|last| last.code), Some("too-many-problems"));
    }

    #[test]
    fn quoted_text_is_short_and_harmless() {
        assert_eq!(quoted("a'b\"c"), "\"a'b\"c\"");
        assert_eq!(quoted("\x1b[31m"), "\"\\u{1b}[31m\"");
        assert_eq!(quoted(&"a".repeat(61)), format!("\"{}…\"", "a".repeat(60)));
    }
}
