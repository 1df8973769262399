//! A Rust source read just well enough to tell code from comments, strings and tests.

use std::collections::BTreeSet;

/// A file.
pub(crate) struct Source {
    /// Where it is, from the repository's root.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

/// A source of which parts are blanked out; the lines are where they were.
pub(crate) struct Code(String);

impl Source {
    /// Returns the code: comments and the insides of strings are blank.
    pub(crate) fn code(&self) -> Code {
        Code(blank(&self.text, true))
    }

    /// Returns code and strings: comments are blank.
    pub(crate) fn code_and_strings(&self) -> Code {
        Code(blank(&self.text, false))
    }

    /// Returns the code that ships: nothing of a file of tests, and of others what stands before
    /// their module of tests.
    pub(crate) fn product(&self) -> Code {
        if self.path.ends_with("tests.rs") {
            return Code(String::new());
        }
        let Code(code) = self.code();
        let lines: Vec<&str> = code.lines().take_while(|line| *line != "mod tests {").collect();
        Code(lines.join("\n"))
    }

    /// Returns the lines that are compiled on Linux only: the items that follow a
    /// `cfg(target_os = "linux")`, alone or with further conditions.
    pub(crate) fn linux_lines(&self) -> BTreeSet<usize> {
        let text = self.code_and_strings().0;
        if text.contains("#![cfg(target_os = \"linux\")]") {
            return (1..=text.lines().count()).collect();
        }
        let Code(code) = self.code();
        let mut lines = BTreeSet::new();
        for (start, _) in text.match_indices("#[cfg(") {
            let Some(length) = text[start..].find(")]") else { continue };
            let end = start + length + 2;
            let condition = &text[start..end];
            let is_linux = condition.contains("target_os = \"linux\"")
                && !condition.contains("not(")
                && !condition.contains("any(");
            if is_linux {
                let first = line_at(&code, start);
                let last = line_at(&code, end + item_length(&code[end..]));
                lines.extend(first..=last);
            }
        }
        lines
    }
}

impl Code {
    /// Returns the lines that have `text` anywhere.
    pub(crate) fn lines_with(&self, text: &str) -> Vec<usize> {
        self.matches(text, |_, _| true)
    }

    /// Returns the lines that have `word` as a whole name.
    pub(crate) fn lines_with_word(&self, word: &str) -> Vec<usize> {
        self.matches(word, |before, after| !is_name(before) && !is_name(after))
    }

    /// Returns the lines that use the path, written out or taken from a list in braces.
    pub(crate) fn lines_with_path(&self, path: &str) -> Vec<usize> {
        let mut lines = self.lines_with_word(path);
        if let Some((parent, name)) = path.rsplit_once("::") {
            let opening = format!("{parent}::{{");
            for (start, _) in self.0.match_indices(&opening) {
                let list = self.0[start..].split([';']).next().unwrap_or_default();
                if !Self(list.to_owned()).lines_with_word(name).is_empty() {
                    lines.push(line_at(&self.0, start));
                }
            }
        }
        lines
    }

    /// Returns each module of the crate that is named after `crate::`, with its line.
    pub(crate) fn crate_imports(&self) -> Vec<(usize, String)> {
        let mut imports = Vec::new();
        for (start, prefix) in self.0.match_indices("crate::") {
            let rest = &self.0[start + prefix.len()..];
            let line = line_at(&self.0, start);
            if let Some(list) = rest.strip_prefix('{') {
                let mut depth = 0;
                let mut expects_name = true;
                for (at, letter) in list.char_indices() {
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => expects_name = true,
                        _ if is_name(Some(letter)) && depth == 0 && expects_name => {
                            imports.push((line, name_at(&list[at..])));
                            expects_name = false;
                        }
                        _ => {}
                    }
                }
            } else {
                imports.push((line, name_at(rest)));
            }
        }
        imports
    }

    fn matches(
        &self,
        text: &str,
        is_wanted: impl Fn(Option<char>, Option<char>) -> bool,
    ) -> Vec<usize> {
        self.0
            .match_indices(text)
            .filter(|(start, found)| {
                let before = self.0[..*start].chars().next_back();
                let after = self.0[start + found.len()..].chars().next();
                is_wanted(before, after)
            })
            .map(|(start, _)| line_at(&self.0, start))
            .collect()
    }
}

fn is_name(letter: Option<char>) -> bool {
    letter.is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

fn name_at(text: &str) -> String {
    text.chars().take_while(|letter| is_name(Some(*letter))).collect()
}

fn line_at(text: &str, offset: usize) -> usize {
    text[..offset.min(text.len())].matches('\n').count() + 1
}

/// Returns the length of the item, statement, field or arm at the start of `code`.
fn item_length(code: &str) -> usize {
    const WITH_COMMAS: &[&str] = &[
        "pub",
        "fn",
        "unsafe",
        "async",
        "const",
        "static",
        "extern",
        "impl",
        "trait",
        "struct",
        "enum",
        "type",
        "mod",
        "use",
        "let",
        "macro_rules",
    ];
    let after_attributes =
        code.lines().map(str::trim_start).find(|line| !line.is_empty() && !line.starts_with("#["));
    let first = name_at(after_attributes.unwrap_or_default());
    let ends_at_comma = !WITH_COMMAS.contains(&first.as_str());
    let mut depth = 0_usize;
    for (at, letter) in code.char_indices() {
        match letter {
            '(' | '[' | '{' => depth += 1,
            // The end of what holds the item.
            ')' | ']' | '}' if depth == 0 => return at,
            ')' | ']' => depth -= 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            ';' if depth == 0 => return at,
            ',' if depth == 0 && ends_at_comma => return at,
            _ => {}
        }
    }
    code.len()
}

/// Blanks comments out, and if asked the insides of strings and characters.
fn blank(text: &str, blanks_strings: bool) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&letter) = letters.get(at) {
        let next = letters.get(at + 1).copied();
        let (end, is_blanked) = match (letter, next) {
            ('/', Some('/')) => (end_of_line(&letters, at), true),
            ('/', Some('*')) => (end_of_comment(&letters, at), true),
            ('"', _) => (end_of_string(&letters, at), blanks_strings),
            ('r', Some('"' | '#')) if !is_name(previous(&letters, at)) => {
                (end_of_raw_string(&letters, at), blanks_strings)
            }
            ('\'', Some('\\')) => (end_of_character(&letters, at), blanks_strings),
            ('\'', _) if letters.get(at + 2) == Some(&'\'') => (at + 3, blanks_strings),
            _ => (at + 1, false),
        };
        for &letter in letters.get(at..end.min(letters.len())).unwrap_or_default() {
            // One byte for each, or the offsets would differ from those of the same file with
            // its strings.
            let letter = if letter.is_ascii() { letter } else { '?' };
            out.push(if is_blanked && letter != '\n' { ' ' } else { letter });
        }
        at = end.max(at + 1);
    }
    out
}

/// Returns the letter before, past a `b` that makes a string one of bytes.
fn previous(letters: &[char], at: usize) -> Option<char> {
    let before = at.checked_sub(1).and_then(|at| letters.get(at)).copied();
    if before == Some('b') {
        at.checked_sub(2).and_then(|at| letters.get(at)).copied()
    } else {
        before
    }
}

fn end_of_line(letters: &[char], at: usize) -> usize {
    let rest = letters.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|letter| **letter != '\n').count()
}

fn end_of_comment(letters: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut here = at;
    while here < letters.len() {
        match (letters.get(here), letters.get(here + 1)) {
            (Some('/'), Some('*')) => (depth, here) = (depth + 1, here + 2),
            (Some('*'), Some('/')) => (depth, here) = (depth - 1, here + 2),
            _ => here += 1,
        }
        if depth == 0 {
            break;
        }
    }
    here
}

fn end_of_string(letters: &[char], at: usize) -> usize {
    let mut here = at + 1;
    while let Some(letter) = letters.get(here) {
        match letter {
            '\\' => here += 2,
            '"' => return here + 1,
            _ => here += 1,
        }
    }
    here
}

fn end_of_raw_string(letters: &[char], at: usize) -> usize {
    let rest = letters.get(at + 1..).unwrap_or_default();
    let signs = rest.iter().take_while(|letter| **letter == '#').count();
    if rest.get(signs) != Some(&'"') {
        return at + 1;
    }
    let mut here = at + signs + 2;
    while here < letters.len() {
        let closing = letters.get(here..here + signs + 1).unwrap_or_default();
        if closing.first() == Some(&'"') && closing.iter().skip(1).all(|letter| *letter == '#') {
            return here + signs + 1;
        }
        here += 1;
    }
    here
}

fn end_of_character(letters: &[char], at: usize) -> usize {
    // The letter after the backslash may be a quote itself.
    let rest = letters.get(at + 3..).unwrap_or_default();
    at + 3 + rest.iter().take_while(|letter| **letter != '\'').count() + 1
}
