//! Diagnostics as text for people and as JSON for programs.

use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::diagnostic::{Diagnostic, Place, Severity};
use super::suggest;

/// Longest source line that is shown, bytes; of a longer one only the place is told.
const LINE_BYTES_MAX: usize = 4096;

/// Renders diagnostics for people: the sentence, `file:line:column`, the source line, what was
/// expected and what to do.
///
/// `text` is the text that was parsed. The value of a line that looks like a password is masked,
/// so that the output can go to a log.
pub fn human(name: &str, text: &str, diagnostics: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&renderer.render(&[group(name, text, diagnostic)]));
        out.push_str("\n\n");
    }
    out
}

fn group<'a>(name: &'a str, text: &'a str, diagnostic: &'a Diagnostic) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code);
    let mut group = Group::with_title(title);
    let place =
        Place { span: diagnostic.span.clone(), line: diagnostic.line, column: diagnostic.column };
    group = element(group, name, text, &place, AnnotationKind::Primary, None);
    if let Some(related) = &diagnostic.related {
        let label = Some(related.message.as_str());
        group = element(group, name, text, &related.place, AnnotationKind::Context, label);
    }
    if let Some(expected) = &diagnostic.expected {
        group = group.element(Level::NOTE.message(format!("expected {expected}")));
    }
    if let Some(hint) = &diagnostic.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    group
}

/// Adds one place: its source line with the span underlined, or only its coordinates.
fn element<'a>(
    group: Group<'a>,
    name: &'a str,
    text: &'a str,
    place: &Place,
    kind: AnnotationKind,
    label: Option<&'a str>,
) -> Group<'a> {
    let line = line_around(text, place.span.start);
    let shown = text.get(line.clone()).unwrap_or_default();
    if shown.trim().is_empty() || shown.len() > LINE_BYTES_MAX {
        return group.element(Origin::path(name).line(place.line).char_column(place.column));
    }
    let start = place.span.start.saturating_sub(line.start).min(shown.len());
    let end = place.span.end.saturating_sub(line.start).clamp(start, shown.len());
    let annotation = kind.span(start..end).label(label);
    let snippet =
        Snippet::source(masked(shown)).path(name).line_start(place.line).annotation(annotation);
    group.element(snippet)
}

/// Returns the line that holds an offset, without its line break.
fn line_around(text: &str, offset: usize) -> Range<usize> {
    let bytes = text.as_bytes();
    let offset = offset.min(bytes.len());
    let start = bytes
        .get(..offset)
        .and_then(|before| memchr::memrchr(b'\n', before))
        .map_or(0, |at| at + 1);
    let end = bytes
        .get(offset..)
        .and_then(|behind| memchr::memchr(b'\n', behind))
        .map_or(bytes.len(), |at| offset + at);
    let end = if end > start && bytes.get(end - 1) == Some(&b'\r') { end - 1 } else { end };
    start..end
}

/// Hides the value of a line whose key looks like a password, one star a byte so that offsets on
/// the line stay what they are. Misspelt keys count: they are what gets reported.
fn masked(line: &str) -> String {
    if let Some(at) = secret_words(line) {
        let (shown, secret) = line.split_at_checked(at).unwrap_or((line, ""));
        return shown.to_owned() + &stars(secret);
    }
    // keepalived's `auth_pass` has no colon, and its value may have one.
    let mut end = 0;
    for word in line.split_inclusive(char::is_whitespace) {
        end += word.len();
        let word = word.trim().to_ascii_lowercase();
        if word.contains("_pass") || suggest::nearest(&word, ["auth_pass"]).is_some() {
            let (key, value) = line.split_at_checked(end).unwrap_or((line, ""));
            return key.to_owned() + &stars(value);
        }
    }
    let Some((key, value)) = line.split_once(':') else { return line.to_owned() };
    let word = key.trim().trim_matches(['"', '\'', '?']).trim().to_ascii_lowercase();
    let is_secret = word.contains("auth")
        || word.contains("pass")
        || suggest::nearest(&word, ["redis_auth", "requirepass"]).is_some();
    if !is_secret || value.trim().is_empty() {
        return line.to_owned();
    }
    format!("{key}:{}", stars(value))
}

fn stars(value: &str) -> String {
    value.bytes().map(|byte| if byte == b' ' { ' ' } else { '*' }).collect()
}

/// Returns where the secret begins on a line of words, such as `sentinel auth-pass mymaster x` or
/// `requirepass x`: behind the directive, none on a line that has no secret or is no line of words.
fn secret_words(line: &str) -> Option<usize> {
    let mut words = line.split_ascii_whitespace().map(str::to_ascii_lowercase);
    let first = words.next()?;
    let word = if first == "sentinel" { words.next()? } else { first };
    let is_secret = ["auth", "pass"].iter().any(|part| word.contains(part))
        || word == "user"
        || suggest::nearest(&word, ["requirepass", "auth-pass", "sentinel-pass"]).is_some();
    // A word with an underscore is keepalived's.
    if !is_secret || word.contains([':', '_']) {
        return None;
    }
    // Lowering ASCII letters moves no byte.
    let directive = line.to_ascii_lowercase().find(&word)? + word.len();
    (!line.get(directive..)?.trim_start().starts_with(':')).then_some(directive)
}

/// Renders diagnostics as one JSON object on one line, without a line break at its end.
///
/// The shape is stable; members may be added at the end of an object:
///
/// ```json
/// {"file":"nutcracker.yml","errors":1,"warnings":0,"diagnostics":[
///   {"severity":"error","code":"unknown-directive","start":8,"end":12,"line":2,"column":3,
///    "message":"…","expected":null,"hint":"did you mean \"hash\"?",
///    "related":{"start":0,"end":5,"line":1,"column":1,"message":"…"}}]}
/// ```
///
/// `severity` is `error` or `warning`; `start` and `end` are bytes of the file, `line` and
/// `column` count from 1; `expected`, `hint` and `related` may be `null`.
pub fn json(name: &str, diagnostics: &[Diagnostic]) -> String {
    let errors =
        diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    let warnings = diagnostics.len() - errors;
    let mut out = String::from("{\"file\":");
    push_string(&mut out, name);
    push(&mut out, format_args!(",\"errors\":{errors},\"warnings\":{warnings},\"diagnostics\":["));
    for (at, diagnostic) in diagnostics.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_diagnostic(&mut out, diagnostic);
    }
    out.push_str("]}");
    out
}

fn push_diagnostic(out: &mut String, diagnostic: &Diagnostic) {
    let Diagnostic { severity, code, span, line, column, message, expected, hint, related } =
        diagnostic;
    push(out, format_args!("{{\"severity\":\"{}\",\"code\":\"{code}\",", severity.name()));
    push_place(out, span, *line, *column);
    out.push_str(",\"message\":");
    push_string(out, message);
    out.push_str(",\"expected\":");
    push_optional(out, expected.as_deref());
    out.push_str(",\"hint\":");
    push_optional(out, hint.as_deref());
    out.push_str(",\"related\":");
    match related {
        None => out.push_str("null"),
        Some(related) => {
            out.push('{');
            push_place(out, &related.place.span, related.place.line, related.place.column);
            out.push_str(",\"message\":");
            push_string(out, &related.message);
            out.push('}');
        }
    }
    out.push('}');
}

fn push_place(out: &mut String, span: &Range<usize>, line: usize, column: usize) {
    let Range { start, end } = span;
    let place = format_args!("\"start\":{start},\"end\":{end},\"line\":{line},\"column\":{column}");
    push(out, place);
}

fn push_optional(out: &mut String, text: Option<&str>) {
    match text {
        None => out.push_str("null"),
        Some(text) => push_string(out, text),
    }
}

/// Appends a JSON string. Source: RFC 8259 section 7.
fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Line separators are legal in JSON, but not in every program that embeds it.
            control if control.is_control() || matches!(control, '\u{2028}' | '\u{2029}') => {
                push(out, format_args!("\\u{:04x}", u32::from(control)));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_are_escaped() {
        let mut out = String::new();
        push_string(&mut out, "a\"b\\c\n\x1b\u{2028}é");
        assert_eq!(out, r#""a\"b\\c\n\u001b\u2028é""#);
        let back: String = serde_json::from_str(&out).unwrap();
        assert_eq!(back, "a\"b\\c\n\x1b\u{2028}é");
    }

    #[test]
    fn a_password_is_masked_even_under_a_misspelt_key() {
        assert_eq!(masked("  redis_auth: a b"), "  redis_auth: * *");
        assert_eq!(masked("  redis_atuh: abc"), "  redis_atuh: ***");
        assert_eq!(masked("  \"redis_auth\": é"), "  \"redis_auth\": **");
        assert_eq!(masked("  listen: a:1"), "  listen: a:1");
        assert_eq!(masked("  redis_auth : a:b"), "  redis_auth : ***");
        assert_eq!(masked("sentinel auth-pass m a:b"), "sentinel auth-pass * ***");
        assert_eq!(masked("sentinel auht-pass m ab"), "sentinel auht-pass * **");
        assert_eq!(masked("requirepas ab"), "requirepas **");
        assert_eq!(masked("sentinel monitor m h 1"), "sentinel monitor m h 1");
        assert_eq!(masked("  auth_pass a:b"), "  auth_pass ***");
        assert_eq!(masked("a { auth_type PASS auth_pas x }"), "a { auth_type PASS auth_pas * *");
        assert_eq!(masked("auth_type PASS"), "auth_type PASS");
    }
}
