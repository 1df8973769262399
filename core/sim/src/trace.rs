//! The last things that happened, kept cheaply and written out only for a failure.

use std::collections::VecDeque;
use std::fmt;

use ringkeeper_core::id::ConnId;
use ringkeeper_core::time::Instant;

#[derive(Debug)]
pub(crate) enum Line {
    /// A verb of the border, the connection, and a number of bytes where there is one.
    Border(&'static str, ConnId, usize),
    /// Anything rarer.
    Note(String),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Border(verb, conn, 0) => write!(f, "{verb} {conn:?}"),
            Self::Border(verb, conn, bytes) => write!(f, "{verb} {conn:?} {bytes} B"),
            Self::Note(note) => f.write_str(note),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Trace {
    lines_max: usize,
    lines: VecDeque<(Instant, Line)>,
}

impl Trace {
    /// Makes a trace of the last `lines_max` lines.
    pub(crate) const fn new(lines_max: usize) -> Self {
        Self { lines_max, lines: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, at: Instant, line: Line) {
        if self.lines.len() >= self.lines_max {
            self.lines.pop_front();
        }
        self.lines.push_back((at, line));
    }

    /// Writes the lines out, oldest first.
    pub(crate) fn render(&self) -> Vec<String> {
        let seconds = |at: &Instant| at.since(Instant::START).as_secs_f64();
        self.lines.iter().map(|(at, line)| format!("{:>12.6} {line}", seconds(at))).collect()
    }
}
