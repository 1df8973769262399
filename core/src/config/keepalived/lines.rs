//! From text to logical lines: comments, continuation, conditions, variables, repetitions.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::diagnostic::{Collector, quoted};
use crate::limits;

/// One line to be split into words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its text without comment and surrounding blanks; never empty.
    pub(super) text: String,
    /// Where it stands in the file.
    pub(super) span: Range<usize>,
    /// Whether `text` stands in the file as it is, so that offsets in it are offsets in the file.
    pub(super) is_verbatim: bool,
}

/// Reads all lines. `id` is what `@id` lines are compared with.
pub(super) fn read(text: &str, id: &str, collector: &mut Collector<'_>) -> Vec<Line> {
    let mut reader = Reader { id, variables: BTreeMap::new(), lines: Vec::new(), is_full: false };
    let mut start = 0;
    while start < text.len() && !reader.is_full {
        let (line, end) = logical_line(text, start);
        reader.take(line, collector);
        start = end;
    }
    reader.lines
}

/// Returns the logical line that starts at an offset, and where the next one starts. A backslash at
/// its end continues the definition of a variable.
fn logical_line(text: &str, start: usize) -> (Line, usize) {
    let mut joined = String::new();
    let mut at = start;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let length = memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len());
        let line = rest.get(..length).unwrap_or_default();
        let next = at + length + 1;
        let line = line.strip_suffix('\r').unwrap_or(line);
        let is_definition =
            text.get(start..).is_some_and(|text| text.trim_start().starts_with('$'));
        let more = is_definition && next < text.len() && line.trim_end().ends_with('\\');
        if !more {
            let is_verbatim = at == start;
            let line = if is_verbatim {
                line
            } else {
                joined += line;
                joined.as_str()
            };
            let uncommented = without_comment(line);
            let trimmed = uncommented.trim();
            let lead = uncommented.len() - uncommented.trim_start().len();
            let end = if is_verbatim { start + lead + trimmed.len() } else { at + length };
            let span = start + lead..end;
            return (Line { text: trimmed.to_owned(), span, is_verbatim }, next);
        }
        joined += line.trim_end().trim_end_matches('\\');
        joined.push('\n');
        at = next;
    }
}

/// Cuts off a comment: from `!` or `#` outside quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut is_escaped = false;
    for (at, byte) in line.bytes().enumerate() {
        match (quote, byte) {
            _ if is_escaped => is_escaped = false,
            (Some(b'"'), b'\\') => is_escaped = true,
            (Some(open), byte) if open == byte => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'!' | b'#') => return line.get(..at).unwrap_or_default(),
            _ => {}
        }
    }
    line
}

struct Reader<'a> {
    id: &'a str,
    variables: BTreeMap<String, String>,
    lines: Vec<Line>,
    is_full: bool,
}

impl Reader<'_> {
    /// Takes a logical line in: it becomes none, one or many.
    fn take(&mut self, line: Line, collector: &mut Collector<'_>) {
        let Some(line) = self.condition(line) else { return };
        if let Some((name, value)) = definition(&line.text) {
            self.variables.insert(name.to_owned(), value.to_owned());
            return;
        }
        // Work instead of recursion: an expanded line may hold further repetitions and lines.
        let mut work = vec![line];
        let mut steps = 0;
        while let Some(line) = work.pop() {
            steps += 1;
            if steps > limits::KEEPALIVED_LINES_MAX
                || self.lines.len() >= limits::KEEPALIVED_LINES_MAX
                || line.text.len() > limits::KEEPALIVED_LINE_BYTES_MAX
            {
                self.is_full = true;
                let message = "the file is too large when it is expanded";
                collector.report(collector.error("expansion-too-large", &line.span, message));
                return;
            }
            match repeated(&line.text) {
                Repeat::No => {}
                Repeat::Lines(lines) => {
                    let span = &line.span;
                    let made = lines.into_iter().rev().map(|text| Line {
                        text,
                        span: span.clone(),
                        is_verbatim: false,
                    });
                    work.extend(made);
                    continue;
                }
                Repeat::Malformed => {
                    let message = format!("{} is not a repetition", quoted(&line.text));
                    let expected = "~SEQ(name, start, step, end) or ~LST(name, value, …)";
                    collector.report(
                        collector
                            .warning("malformed-repetition", &line.span, message)
                            .expected(expected),
                    );
                    continue;
                }
            }
            let expanded = self.expand(&line, collector);
            if expanded.text.contains('\n') {
                let parts = expanded.text.lines().rev().map(|text| Line {
                    text: text.trim().to_owned(),
                    span: expanded.span.clone(),
                    is_verbatim: false,
                });
                work.extend(parts);
            } else if !expanded.text.is_empty() {
                self.lines.push(expanded);
            }
        }
    }

    /// Applies `@id` and `@^id`.
    fn condition(&self, line: Line) -> Option<Line> {
        let Some(rest) = line.text.strip_prefix('@') else {
            return (!line.text.is_empty()).then_some(line);
        };
        let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let (is_negated, word) = match word.strip_prefix('^') {
            Some(word) => (true, word),
            None => (false, word),
        };
        let rest = rest.trim();
        if (word == self.id) == is_negated || rest.is_empty() {
            return None;
        }
        let start = line.span.end - rest.len().min(line.span.len());
        Some(Line { text: rest.to_owned(), span: start..line.span.end, ..line })
    }

    /// Replaces `$NAME` and `${NAME}`; unknown ones stay as they are.
    fn expand(&self, line: &Line, collector: &mut Collector<'_>) -> Line {
        let mut line = line.clone();
        for _ in 0..limits::KEEPALIVED_EXPANSIONS_MAX {
            if line.text.len() > limits::KEEPALIVED_LINE_BYTES_MAX {
                break;
            }
            match self.expand_once(&line.text) {
                None => {
                    // These stand for characters that would begin a comment.
                    if line.text.contains("${_") {
                        line.text = line.text.replace("${_HASH}", "#").replace("${_BANG}", "!");
                        line.is_verbatim = false;
                    }
                    return line;
                }
                Some(text) => {
                    line.text = text;
                    line.is_verbatim = false;
                }
            }
        }
        let message = "variables refer to each other without end";
        collector.report(collector.error("endless-variable", &line.span, message));
        Line { text: String::new(), ..line }
    }

    fn expand_once(&self, text: &str) -> Option<String> {
        for (at, _) in text.match_indices('$') {
            let after = text.get(at + 1..)?;
            let (name, end) = match after.strip_prefix('{') {
                Some(inner) => match inner.find('}') {
                    Some(close) => (inner.get(..close)?, at + close + 3),
                    None => continue,
                },
                None => {
                    let is_end = |letter: char| !(letter.is_alphanumeric() || letter == '_');
                    let length = after.find(is_end).unwrap_or(after.len());
                    (after.get(..length)?, at + 1 + length)
                }
            };
            if let Some(value) = self.variables.get(name) {
                return Some([text.get(..at)?, value, text.get(end..)?].concat());
            }
        }
        None
    }
}

/// Reads `$NAME=value`.
fn definition(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.strip_prefix('$')?.split_once('=')?;
    let name = name.trim_end();
    let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    (!name.is_empty() && name.chars().all(is_name)).then(|| (name, value.trim()))
}

enum Repeat {
    No,
    Lines(Vec<String>),
    Malformed,
}

/// Repeats a line that begins with `~SEQ(…)` or `~LST(…)` for each value of its variable.
fn repeated(text: &str) -> Repeat {
    let Some(rest) = text.strip_prefix('~') else { return Repeat::No };
    let parsed = rest.split_once('(').and_then(|(kind, rest)| {
        let (arguments, line) = rest.split_once(')')?;
        let mut arguments = arguments.split(',').map(str::trim);
        let name = arguments.next().filter(|name| !name.is_empty())?;
        let values: Vec<String> = match kind {
            "SEQ" => sequence(&arguments.collect::<Vec<_>>(), false)?,
            "SEQx" => sequence(&arguments.collect::<Vec<_>>(), true)?,
            "LST" => arguments.map(str::to_owned).collect(),
            _ => return None,
        };
        Some((name, values, line.trim()))
    });
    let Some((name, values, line)) = parsed else { return Repeat::Malformed };
    let (plain, braced) = (format!("${name}"), format!("${{{name}}}"));
    let one = |value: &String| line.replace(&braced, value).replace(&plain, value);
    Repeat::Lines(values.iter().map(one).collect())
}

/// Counts from a start by a step, 1 if there is none, to an end.
fn sequence(arguments: &[&str], is_hexadecimal: bool) -> Option<Vec<String>> {
    let number = |text: &str| text.parse::<i64>().ok();
    let (start, step, end) = match *arguments {
        [start, step, end] => (number(start)?, number(step)?, number(end)?),
        [start, end] => (number(start)?, 1, number(end)?),
        _ => return None,
    };
    if step == 0 {
        return None;
    }
    let mut values = Vec::new();
    let mut at = start;
    while (step > 0 && at <= end) || (step < 0 && at >= end) {
        if values.len() >= limits::KEEPALIVED_LINES_MAX {
            return None;
        }
        values.push(if is_hexadecimal { format!("{at:x}") } else { at.to_string() });
        at = at.checked_add(step)?;
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let mut collector = Collector::new(text);
        read(text, "node1", &mut collector).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn comments_end_a_line_outside_quotes() {
        let text = "a b ! c\n# all\n  script \"x # y\" # z\n\nd\r\n";
        assert_eq!(texts(text), ["a b", "script \"x # y\"", "d"]);
        assert_eq!(texts("a \"\\\"#\" b#"), ["a \"\\\"#\" b"]);
    }

    #[test]
    fn conditions_depend_on_the_id() {
        assert_eq!(texts("@node1 a 1\n@node2 b 2\n@^node1 c\n@^node2 d\n@node1"), ["a 1", "d"]);
    }

    #[test]
    fn variables_are_expanded_late_and_inside_each_other_and_unknown_ones_stay() {
        let text = "$A=1${B}\npriority $A\n$B=5\npriority ${A}0 $NO ${_HASH}\n";
        assert_eq!(texts(text), ["priority 1${B}", "priority 150 $NO #"]);
    }

    #[test]
    fn a_variable_may_hold_lines() {
        assert_eq!(texts("$V=a 1 \\\n b 2\n$V\nc"), ["a 1", "b 2", "c"]);
    }

    #[test]
    fn repetitions_nest() {
        assert_eq!(texts("~SEQ(i,1,2,5) a $i"), ["a 1", "a 3", "a 5"]);
        let nested = texts("~LST(x,p,q) ~SEQ(i,9,10) $x${i}");
        assert_eq!(nested, ["p9", "p10", "q9", "q10"]);
        assert_eq!(texts("~SEQx(i,9,10) $i"), ["9", "a"]);
    }

    #[test]
    fn what_grows_without_end_is_an_error() {
        for text in ["$A=$A$A\n$A", "~SEQ(i,1,1000) ~SEQ(j,1,1000) $i", "$A=${A}\nx $A"] {
            let mut collector = Collector::new(text);
            read(text, "", &mut collector);
            assert!(collector.has_errors(), "{text}");
        }
    }

    #[test]
    fn a_verbatim_line_knows_its_place() {
        let text = "x\n\t@node1  foo bar # c\n";
        let mut collector = Collector::new(text);
        for line in read(text, "node1", &mut collector) {
            assert!(line.is_verbatim);
            assert_eq!(&text[line.span], line.text);
        }
    }
}
