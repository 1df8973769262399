//! Files that include files: one text to be read, and where each part of it came from.
//!
//! keepalived puts included text in place before it looks at `@` and `$`, so this is done with
//! text. Nothing is opened here; whoever can, hands in what a pattern matches.

use std::ops::Range;

use super::super::diagnostic::{Collector, Diagnostic, Place, Severity, quoted};
use crate::limits;

/// A file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name, for messages.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// What a pattern matches.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// Files in the order of their names.
    pub sources: Vec<Source>,
    /// Names of files that could not be read, and why.
    pub unreadable: Vec<(String, String)>,
}

/// Part of the assembled text.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Where it begins in the assembled text.
    start: usize,
    /// Which file it is of.
    source: usize,
    /// Where it begins in that file.
    offset: usize,
    /// Lines of that file before it.
    lines: usize,
}

/// One text made of files.
#[derive(Debug)]
pub struct Assembled {
    text: String,
    sources: Vec<Source>,
    pieces: Vec<Piece>,
    diagnostics: Vec<Diagnostic>,
}

/// How strict an `include` is: letters behind the word, as in keepalived's documentation.
#[derive(Clone, Copy)]
struct Demands {
    must_be_readable: bool,
    must_match: bool,
    wildcards_too: bool,
}

/// A file that is not worked off to its end.
struct Open {
    source: usize,
    at: usize,
    line: usize,
}

/// Puts included files in their place. `load` gets the pattern and the name of the file that it
/// stands in.
pub fn assemble(root: Source, load: &mut dyn FnMut(&str, &str) -> Matches) -> Assembled {
    let mut assembled = Assembled {
        text: String::new(),
        sources: vec![root],
        pieces: Vec::new(),
        diagnostics: Vec::new(),
    };
    let mut open = vec![Open { source: 0, at: 0, line: 0 }];
    while let Some(file) = open.last_mut() {
        let (source, at, lines) = (file.source, file.at, file.line);
        let Some(rest) = assembled.sources.get(source).and_then(|source| source.text.get(at..))
        else {
            open.pop();
            continue;
        };
        if rest.is_empty() {
            open.pop();
            continue;
        }
        let length = memchr::memchr(b'\n', rest.as_bytes()).map_or(rest.len(), |end| end + 1);
        let line = rest.get(..length).unwrap_or_default().to_owned();
        file.at = at + length;
        file.line += 1;
        match request(&line) {
            None => assembled.push(source, at, lines, &line),
            Some((demands, pattern)) => {
                let span = at..at + line.trim_end().len();
                let depth = open.len();
                let children = assembled.include(source, &span, demands, pattern, depth, load);
                // The last one opened is read first.
                for child in children.rev() {
                    open.push(Open { source: child, at: 0, line: 0 });
                }
            }
        }
    }
    assembled
}

impl Assembled {
    /// Returns the text to be parsed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Tells whether a file that is asked for is missing.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Parts diagnostics of the assembled text by the file that they are about. The main file
    /// comes first, and is there even if nothing is wrong with it.
    pub fn by_source(&self, diagnostics: Vec<Diagnostic>) -> Vec<(&Source, Vec<Diagnostic>)> {
        let mut lists: Vec<Vec<Diagnostic>> = vec![Vec::new(); self.sources.len()];
        for (source, diagnostic) in
            diagnostics.into_iter().map(|diagnostic| self.locate(diagnostic))
        {
            if let Some(list) = lists.get_mut(source) {
                list.push(diagnostic);
            }
        }
        for diagnostic in &self.diagnostics {
            // The message names another file than the main one.
            if let Some(list) = lists.first_mut() {
                list.push(diagnostic.clone());
            }
        }
        let lists = self.sources.iter().zip(lists).enumerate();
        lists
            .filter(|(index, (_, list))| *index == 0 || !list.is_empty())
            .map(|(_, pair)| pair)
            .collect()
    }

    fn push(&mut self, source: usize, offset: usize, lines: usize, line: &str) {
        if self.text.len() > limits::CONFIG_BYTES_MAX {
            return;
        }
        let start = self.text.len();
        // A line that goes on where the last piece ended belongs to it.
        let continues = self.pieces.last().is_some_and(|piece| {
            piece.source == source && piece.offset + (start - piece.start) == offset
        });
        if !continues {
            self.pieces.push(Piece { start, source, offset, lines });
        }
        self.text.push_str(line);
        if !line.ends_with('\n') {
            self.text.push('\n');
        }
    }

    /// Takes in what a pattern matches; returns the new sources.
    fn include(
        &mut self,
        source: usize,
        span: &Range<usize>,
        demands: Demands,
        pattern: &str,
        depth: usize,
        load: &mut dyn FnMut(&str, &str) -> Matches,
    ) -> Range<usize> {
        let first = self.sources.len();
        let Some(Source { name, text }) = self.sources.get(source).cloned() else {
            return first..first;
        };
        let mut say = |severity, code, message: String| {
            let collector = Collector::new(&text);
            let place = collector.place(span);
            let message = if source == 0 { message } else { format!("{name}: {message}") };
            self.diagnostics.push(diagnostic(severity, code, &place, message));
        };
        if depth >= limits::KEEPALIVED_INCLUDES_MAX || first >= limits::KEEPALIVED_FILES_MAX {
            let message = "files include each other too deep";
            say(Severity::Error, "include-too-deep", message.to_owned());
            return first..first;
        }
        let matches = load(pattern, &name);
        let has_wildcard = pattern.contains(['*', '?', '[', '{']);
        if matches.sources.is_empty() && matches.unreadable.is_empty() {
            let is_error = demands.must_match && (!has_wildcard || demands.wildcards_too);
            let severity = if is_error { Severity::Error } else { Severity::Warning };
            let message = format!("no file matches {}", quoted(pattern));
            say(severity, "include-missing", message);
        }
        for (file, why) in &matches.unreadable {
            let severity =
                if demands.must_be_readable { Severity::Error } else { Severity::Warning };
            say(severity, "include-unreadable", format!("{file} can't be read: {why}"));
        }
        self.sources.extend(matches.sources);
        first..self.sources.len()
    }

    /// Finds the file that a diagnostic is about.
    fn locate(&self, mut diagnostic: Diagnostic) -> (usize, Diagnostic) {
        let (source, place) = self.place(diagnostic.span.clone(), diagnostic.column);
        (diagnostic.span, diagnostic.line) = (place.span, place.line);
        if let Some(related) = &mut diagnostic.related {
            let (other, place) = self.place(related.place.span.clone(), related.place.column);
            related.place = place;
            if other != source {
                let name = self.sources.get(other).map_or("", |source| source.name.as_str());
                related.message = format!("{} (in {name})", related.message);
            }
        }
        (source, diagnostic)
    }

    fn place(&self, span: Range<usize>, column: usize) -> (usize, Place) {
        let index = self.pieces.partition_point(|piece| piece.start <= span.start);
        let Some(piece) = index.checked_sub(1).and_then(|index| self.pieces.get(index)) else {
            return (0, Place { span: 0..0, line: 1, column });
        };
        let before = self.text.get(piece.start..span.start).unwrap_or_default();
        let line = piece.lines + memchr::memchr_iter(b'\n', before.as_bytes()).count() + 1;
        let moved = |at: usize| piece.offset + (at.max(piece.start) - piece.start);
        let text = self.sources.get(piece.source).map_or(0, |source| source.text.len());
        let span = moved(span.start).min(text)..moved(span.end).min(text);
        (piece.source, Place { span, line, column })
    }
}

fn diagnostic(
    severity: Severity,
    code: &'static str,
    place: &Place,
    message: String,
) -> Diagnostic {
    Diagnostic {
        severity,
        code,
        span: place.span.clone(),
        line: place.line,
        column: place.column,
        message,
        expected: None,
        hint: None,
        related: None,
    }
}

/// Reads an `include` line.
fn request(line: &str) -> Option<(Demands, &str)> {
    let line = line.trim();
    let (word, pattern) = line.split_once(char::is_whitespace)?;
    let kind = word.strip_prefix("include")?;
    let (must_be_readable, must_match, wildcards_too) = match kind {
        "" => (false, false, false),
        "r" => (true, false, false),
        "m" => (false, true, false),
        "w" | "b" => (false, true, true),
        "a" => (true, true, true),
        _ => return None,
    };
    let pattern = pattern.split(['!', '#']).next().unwrap_or_default().trim();
    let pattern = pattern.trim_matches(['"', '\'']);
    let demands = Demands { must_be_readable, must_match, wildcards_too };
    (!pattern.is_empty()).then_some((demands, pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, text: &str) -> Source {
        Source { name: name.to_owned(), text: text.to_owned() }
    }

    fn load(pattern: &str, _: &str) -> Matches {
        let text = match pattern {
            "one" => "in one {\n}\n",
            "two" => "x\ninclude one\ny",
            "loop" => "include loop\n",
            _ => return Matches::default(),
        };
        Matches { sources: vec![source(pattern, text)], unreadable: Vec::new() }
    }

    #[test]
    fn included_text_stands_where_it_is_asked_for() {
        let made = assemble(source("main", "a\n include two # note\nb\n"), &mut load);
        assert_eq!(made.text(), "a\nx\nin one {\n}\ny\nb\n");
    }

    #[test]
    fn a_diagnostic_finds_its_file_and_line() {
        let made = assemble(source("main", "a\ninclude two\nb\n"), &mut load);
        for (word, name, line) in [
            ("a", "main", 1),
            ("x", "two", 1),
            ("}", "one", 2),
            ("y", "two", 3),
            ("b\n", "main", 3),
        ] {
            let at = made.text().find(word).unwrap();
            let collector = Collector::new(made.text());
            let warning = collector.warning("w", &(at..at + 1), "w");
            let all = made.by_source(vec![warning]);
            let (source, list) = all.iter().find(|(_, list)| !list.is_empty()).unwrap();
            assert_eq!((source.name.as_str(), list[0].line), (name, line), "{word}");
            assert_eq!(&source.text[list[0].span.clone()], &word[..1]);
        }
    }

    #[test]
    fn missing_files_are_told_and_endless_ones_end() {
        let codes = |text: &str| {
            let made = assemble(source("main", text), &mut load);
            let all = made.by_source(Vec::new());
            let list = all.into_iter().flat_map(|(_, list)| list);
            list.map(|one| (one.severity, one.code)).collect::<Vec<_>>()
        };
        assert_eq!(codes("include no\n"), [(Severity::Warning, "include-missing")]);
        assert_eq!(codes("includem no\n"), [(Severity::Error, "include-missing")]);
        assert_eq!(codes("includem no*\n"), [(Severity::Warning, "include-missing")]);
        assert_eq!(codes("include loop\n"), [(Severity::Error, "include-too-deep")]);
    }
}
