//! From logical lines to statements and blocks.

use std::ops::Range;

use super::super::diagnostic::{Collector, quoted};
use super::lines::{self, Line};
use crate::limits;

/// One word with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// What it says, without quotes and escapes.
    pub(super) text: String,
    /// Where it stands, its quotes included. The whole line if variables were expanded in it.
    pub(super) span: Range<usize>,
    /// Whether it stood in quotes.
    pub(super) is_quoted: bool,
}

/// A keyword, what follows it on its line, and its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) keyword: Word,
    pub(super) arguments: Vec<Word>,
    /// Statements between braces; for a list each is one item.
    pub(super) block: Option<Vec<Self>>,
}

/// Reads a text. Statements come back as far as they can be understood.
pub(super) fn parse(text: &str, id: &str, collector: &mut Collector<'_>) -> Vec<Statement> {
    let mut builder = Builder { open: Vec::new(), done: Vec::new() };
    for line in lines::read(text, id, collector) {
        let words = words(&line, collector);
        builder.take(words, collector);
    }
    builder.finish(text.len(), collector)
}

struct Builder {
    /// Blocks that are not closed yet, the outermost first: the statement that each belongs to, and
    /// what it holds so far.
    open: Vec<(Statement, Vec<Statement>)>,
    done: Vec<Statement>,
}

impl Builder {
    fn list(&mut self) -> &mut Vec<Statement> {
        match self.open.last_mut() {
            Some((_, list)) => list,
            None => &mut self.done,
        }
    }

    /// Takes the words of one line in.
    fn take(&mut self, words: Vec<Word>, collector: &mut Collector<'_>) {
        let mut current: Option<Statement> = None;
        let mut has_closed = false;
        for word in words {
            match word.text.as_str() {
                "{" if !word.is_quoted => {
                    // On the next line it belongs to the statement before.
                    let owner = current.take().or_else(|| self.list().pop_if(is_open_ended));
                    self.open_block(owner, &word, collector);
                    has_closed = false;
                }
                "}" if !word.is_quoted => {
                    if let Some(statement) = current.take() {
                        self.list().push(statement);
                    }
                    self.close_block(&word, collector);
                    has_closed = true;
                }
                _ if has_closed => {
                    let message = format!("{} behind a brace is ignored", quoted(&word.text));
                    let hint = "put it on a line of its own";
                    let warning = collector.warning("text-behind-brace", &word.span, message);
                    collector.report(warning.hint(hint));
                    return;
                }
                _ => match &mut current {
                    Some(statement) => statement.arguments.push(word),
                    None => {
                        let arguments = Vec::new();
                        current = Some(Statement { keyword: word, arguments, block: None });
                    }
                },
            }
        }
        if let Some(statement) = current {
            self.list().push(statement);
        }
    }

    fn open_block(
        &mut self,
        owner: Option<Statement>,
        brace: &Word,
        collector: &mut Collector<'_>,
    ) {
        if self.open.len() >= limits::KEEPALIVED_DEPTH_MAX {
            let message = "blocks are nested too deep";
            collector.report(collector.error("nested-too-deep", &brace.span, message));
        }
        let owner = owner.unwrap_or_else(|| {
            let message = "a block belongs to nothing";
            collector.report(collector.error("stray-open-brace", &brace.span, message));
            Statement { keyword: brace.clone(), arguments: Vec::new(), block: None }
        });
        self.open.push((owner, Vec::new()));
    }

    fn close_block(&mut self, brace: &Word, collector: &mut Collector<'_>) {
        let Some((mut owner, list)) = self.open.pop() else {
            let message = "a brace closes nothing";
            collector.report(collector.error("stray-close-brace", &brace.span, message));
            return;
        };
        owner.block = Some(list);
        // What is nested too deep is not kept, so that nothing deep is ever walked or dropped.
        if self.open.len() < limits::KEEPALIVED_DEPTH_MAX {
            self.list().push(owner);
        }
    }

    fn finish(mut self, end: usize, collector: &mut Collector<'_>) -> Vec<Statement> {
        while let Some((owner, _)) = self.open.last() {
            let message = format!("the block of {} is not closed", quoted(&owner.keyword.text));
            let place = collector.place(&owner.keyword.span);
            let error = collector.error("missing-close-brace", &(end..end), message);
            collector.report(error.related(place, "it begins here"));
            let brace = Word { text: String::from("}"), span: end..end, is_quoted: false };
            self.close_block(&brace, collector);
        }
        self.done
    }
}

/// Tells whether a block may still follow on the next line.
fn is_open_ended(statement: &mut Statement) -> bool {
    statement.block.is_none()
}

/// Splits a line into words: at blanks and braces, not inside quotes.
fn words(line: &Line, collector: &mut Collector<'_>) -> Vec<Word> {
    let mut words = Vec::new();
    let mut letters = line.text.char_indices().peekable();
    while let Some(&(start, letter)) = letters.peek() {
        if letter.is_whitespace() {
            letters.next();
            continue;
        }
        let mut text = String::new();
        let mut is_quoted = false;
        if matches!(letter, '{' | '}') && is_brace(&line.text, start) {
            letters.next();
            text.push(letter);
        } else {
            while let Some(&(at, letter)) = letters.peek() {
                let is_end = letter.is_whitespace()
                    || matches!(letter, '{' | '}') && is_brace(&line.text, at);
                if is_end {
                    break;
                }
                letters.next();
                match letter {
                    '"' | '\'' => {
                        is_quoted = true;
                        if !take_quoted(letter, &mut letters, &mut text) {
                            let span = place(line, start, line.text.len());
                            let message = "a quotation mark is missing at the end of the line";
                            collector.report(collector.error("unterminated-quote", &span, message));
                        }
                    }
                    '\\' => text.extend(letters.next().map(|(_, letter)| letter)),
                    letter => text.push(letter),
                }
            }
        }
        let end = letters.peek().map_or(line.text.len(), |&(at, _)| at);
        words.push(Word { text, span: place(line, start, end), is_quoted });
    }
    words
}

/// Tells whether a brace stands alone or at the end of a word; `${NAME}` and the like are no block.
fn is_brace(text: &str, at: usize) -> bool {
    let before = text.get(..at).and_then(|text| text.chars().next_back());
    let is_open = text.get(at..).is_some_and(|text| text.starts_with('{'));
    if is_open {
        before != Some('$')
    } else {
        let word = text.get(..at).and_then(|text| text.rsplit(char::is_whitespace).next());
        !word.is_some_and(|word| word.contains("${") && !word.ends_with('}'))
    }
}

/// Takes what stands between quotes; false if they do not end.
fn take_quoted(
    quote: char,
    letters: &mut std::iter::Peekable<std::str::CharIndices<'_>>,
    text: &mut String,
) -> bool {
    while let Some((_, letter)) = letters.next() {
        if letter == quote {
            return true;
        }
        // As in a shell, escapes count between double quotes only.
        if letter != '\\' || quote == '\'' {
            text.push(letter);
            continue;
        }
        match letters.next().map(|(_, letter)| letter) {
            None => return false,
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some('x') => text.extend(digits(16, 2, 0, letters)),
            Some('c') => {
                let control = letters.next().map(|(_, letter)| u32::from(letter) & 0x1f);
                text.extend(control.and_then(char::from_u32));
            }
            Some(digit @ '0'..='7') => {
                let first = digit.to_digit(8).unwrap_or(0);
                text.extend(digits(8, 2, first, letters));
            }
            Some(other) => text.push(other),
        }
    }
    false
}

/// Reads up to `count` more digits of a character's number.
fn digits(
    radix: u32,
    count: usize,
    first: u32,
    letters: &mut std::iter::Peekable<std::str::CharIndices<'_>>,
) -> Option<char> {
    let mut number = first;
    for _ in 0..count {
        let Some(digit) = letters.peek().and_then(|&(_, letter)| letter.to_digit(radix)) else {
            break;
        };
        letters.next();
        number = number * radix + digit;
    }
    char::from_u32(number & 0xff)
}

/// Finds a part of a line in the file.
fn place(line: &Line, start: usize, end: usize) -> Range<usize> {
    if line.is_verbatim {
        line.span.start + start..line.span.start + end
    } else {
        line.span.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// Prints statements on one line, and the codes of what was wrong.
    fn shown(text: &str) -> (String, Vec<&'static str>) {
        fn show(list: &[Statement], out: &mut String) {
            for statement in list {
                write!(out, "{}", statement.keyword.text).unwrap();
                for word in &statement.arguments {
                    write!(out, " <{}>", word.text).unwrap();
                }
                if let Some(block) = &statement.block {
                    out.push('{');
                    show(block, out);
                    out.push('}');
                }
                out.push(';');
            }
        }
        let mut collector = Collector::new(text);
        let list = parse(text, "", &mut collector);
        let mut out = String::new();
        show(&list, &mut out);
        (out, collector.finish().iter().map(|diagnostic| diagnostic.code).collect())
    }

    #[test]
    fn a_block_may_stand_on_one_line_or_its_brace_on_the_next() {
        let same = "a <x>{b <1>;c{d;};};";
        for text in [
            "a x {\n b 1\n c {\n d\n }\n}\n",
            "a x\n{\n b 1\n c\n {\n d\n }\n}",
            "a x { b 1\n c { d }\n}",
            "a x {b 1\nc{d}}",
        ] {
            assert_eq!(shown(text), (same.to_owned(), vec![]), "{text}");
        }
    }

    #[test]
    fn quotes_keep_blanks_and_braces_and_double_ones_know_escapes() {
        let text = r#"s "a {b}" 'c\n' "\x41\101\t\"" x"y z""#;
        assert_eq!(shown(text).0, "s <a {b}> <c\\n> <AA\t\"> <xy z>;");
    }

    #[test]
    fn every_mistake_of_form_has_its_code() {
        assert_eq!(shown("a {\n b\n").1, ["missing-close-brace"]);
        assert_eq!(shown("a {\n}\n}\nb").1, ["stray-close-brace"]);
        assert_eq!(shown("{\n b\n}").1, ["stray-open-brace"]);
        assert_eq!(shown("a {\n b\n} c 1\n").1, ["text-behind-brace"]);
        assert_eq!(shown("a \"b\nc").1, ["unterminated-quote"]);
        let deep = "a {\n".repeat(limits::KEEPALIVED_DEPTH_MAX + 1);
        assert!(shown(&deep).1.contains(&"nested-too-deep"));
    }

    #[test]
    fn an_unknown_variable_in_braces_is_a_word() {
        assert_eq!(shown("priority ${NO} x\nb").0, "priority <${NO}> <x>;b;");
    }

    #[test]
    fn words_know_their_place_in_the_file() {
        let text = "a {\n\tpriority  \"10\" # c\n}";
        let list = parse(text, "", &mut Collector::new(text));
        let inner = &list[0].block.as_ref().unwrap()[0];
        assert_eq!(&text[inner.keyword.span.clone()], "priority");
        assert_eq!(&text[inner.arguments[0].span.clone()], "\"10\"");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-c{}\"'\\\\ $~@#\n(),1=]{0,60}") {
            let _ = shown(&text);
        }
    }
}
