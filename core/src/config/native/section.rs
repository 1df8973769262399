//! A mapping with known keys, and its values by kind. Each mistake is reported where it is; the
//! default stands in for it, so that the rest is read too.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::super::diagnostic::{Collector, quoted};
use super::super::nutcracker::address::{self, ListenSurprise};
use super::super::nutcracker::{Listen, pool};
use super::super::suggest;
use super::super::yaml::{Content, Document, NodeId};
use super::keys;
use super::value::{self, QuantityError};
use crate::limits;

/// The word that switches an optional thing off.
pub(super) const OFF: &str = "off";

/// Where a key and its value are.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: Range<usize>,
    pub(super) value: NodeId,
}

/// A mapping, its keys sorted out.
pub(super) struct Section<'a> {
    pub(super) document: &'a Document,
    /// Where its name is.
    pub(super) span: Range<usize>,
    /// Whether its end was seen; behind a syntax error it is not, and keys may be missing.
    pub(super) is_complete: bool,
    known: &'static [&'static str],
    found: BTreeMap<&'static str, Entry>,
}

impl<'a> Section<'a> {
    /// Makes a section in which nothing is set.
    pub(super) fn empty(document: &'a Document, known: &'static [&'static str]) -> Self {
        Self { document, span: 0..0, is_complete: true, known, found: BTreeMap::new() }
    }

    /// Reads the mapping `body` of what is called `name` at `span`; no value at all, as when every
    /// key is commented out, is an empty mapping. Reports what is none and unknown keys.
    pub(super) fn read(
        document: &'a Document,
        name: &str,
        span: Range<usize>,
        body: NodeId,
        known: &'static [&'static str],
        out: &mut Collector<'_>,
    ) -> Option<Self> {
        let node = document.node(body)?;
        let mut section =
            Self { span, is_complete: node.is_complete, ..Self::empty(document, known) };
        match &node.content {
            Content::Mapping(entries) => section.sort(entries, out),
            Content::Scalar(text) if text.is_empty() => {}
            Content::Scalar(_) | Content::Sequence(_) => {
                let message = format!("{} is not followed by keys", quoted(name));
                let error = out
                    .error("not-a-mapping", &section.span, message)
                    .expected(format!("lines such as \"{}: …\", indented below", first(known)));
                out.report(error);
                return None;
            }
            // Reported among the tokens that are not allowed.
            Content::Alias => return None,
        }
        Some(section)
    }

    fn sort(&mut self, entries: &[(NodeId, NodeId)], out: &mut Collector<'_>) {
        for &(key, value) in entries {
            let span = self.document.span(key);
            let Some(Content::Scalar(word)) = self.document.node(key).map(|node| &node.content)
            else {
                out.report(out.error("key-not-a-word", &span, "a key is not a word"));
                continue;
            };
            let Some(&name) = self.known.iter().find(|known| *known == word) else {
                let message = format!("{} is not a key here", quoted(word));
                let mut error = out.error("unknown-key", &span, message);
                error = match keys::elsewhere(word) {
                    Some(hint) => error.hint(hint),
                    None => error.did_you_mean(suggest::nearest(word, self.known.iter().copied())),
                };
                if error.hint.is_none() {
                    error = error.expected(format!("one of {}", self.known.join(", ")));
                }
                out.report(error);
                continue;
            };
            if let Some(first) = self.found.get(name) {
                let first = out.place(&first.key);
                let message = format!("{} is here a second time", quoted(word));
                let error = out.error("duplicate-key", &span, message);
                out.report(error.related(first, "first here"));
                continue;
            }
            self.found.insert(name, Entry { key: span, value });
        }
    }

    /// Tells whether nothing is set.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Tells whether anything but this key is set.
    pub(super) fn says_more_than(&self, key: &str) -> bool {
        self.found.keys().any(|found| *found != key)
    }

    /// Returns where a key is, if it is there.
    pub(super) fn entry(&self, key: &'static str) -> Option<&Entry> {
        debug_assert!(self.known.contains(&key), "{key} is listed");
        self.found.get(key)
    }

    /// Returns where a key's word is; the section's name when it is left out.
    pub(super) fn place(&self, key: &'static str) -> Range<usize> {
        self.entry(key).map_or_else(|| self.span.clone(), |entry| entry.key.clone())
    }

    /// Reads the mapping below a key; an empty one when the key is left out.
    pub(super) fn section(
        &self,
        key: &'static str,
        known: &'static [&'static str],
        out: &mut Collector<'_>,
    ) -> Self {
        let Some(Entry { key: span, value }) = self.entry(key).cloned() else {
            return Self::empty(self.document, known);
        };
        Self::read(self.document, key, span, value, known, out)
            .unwrap_or_else(|| Self::empty(self.document, known))
    }

    /// Returns the text of a key that has one, and where it is.
    pub(super) fn text(
        &self,
        key: &'static str,
        out: &mut Collector<'_>,
    ) -> Option<(&'a str, Range<usize>)> {
        let Entry { key: span, value } = self.entry(key)?;
        let node = self.document.node(*value)?;
        let name = quoted(key);
        match &node.content {
            Content::Scalar(text) if !text.is_empty() => Some((text, node.span.clone())),
            Content::Scalar(_) => {
                let error = out.error("empty-value", span, format!("{name} has no value"));
                out.report(error.hint("leave the key out to get its default"));
                None
            }
            Content::Sequence(_) | Content::Mapping(_) => {
                let message = format!("{name} takes one value, not several");
                out.report(out.error("unexpected-collection", span, message));
                None
            }
            Content::Alias => None,
        }
    }

    /// Reads a list of words, which may be empty; one alone is a list, too.
    pub(super) fn words(&self, key: &'static str, out: &mut Collector<'_>) -> Vec<String> {
        let node = self.entry(key).and_then(|entry| self.document.node(entry.value));
        let Some(Content::Sequence(items)) = node.map(|node| &node.content) else {
            return self.text(key, out).map(|(text, _)| text.to_owned()).into_iter().collect();
        };
        let mut words = Vec::new();
        for &item in items {
            match self.document.node(item).map(|node| &node.content) {
                Some(Content::Scalar(text)) if !text.is_empty() => words.push(text.clone()),
                _ => {
                    let message = format!("{} holds something that is no word", quoted(key));
                    out.report(out.error("not-a-word", &self.document.span(item), message));
                }
            }
        }
        words
    }

    pub(super) fn boolean(
        &self,
        key: &'static str,
        default: bool,
        out: &mut Collector<'_>,
    ) -> bool {
        let names = [("true", true), ("false", false)];
        self.choice(key, names, out).unwrap_or(default)
    }

    /// Reads one of a few words.
    pub(super) fn choice<T: Copy, const N: usize>(
        &self,
        key: &'static str,
        names: [(&'static str, T); N],
        out: &mut Collector<'_>,
    ) -> Option<T> {
        let (text, span) = self.text(key, out)?;
        let found = names.iter().find(|(name, _)| *name == text).map(|&(_, value)| value);
        if found.is_none() {
            let words = names.map(|(name, _)| name);
            let lower = text.to_ascii_lowercase();
            let meant = match lower.as_str() {
                "yes" | "on" | "1" | "y" if words.contains(&"true") => Some("true"),
                "no" | "off" | "0" | "n" if words.contains(&"false") => Some("false"),
                other => suggest::nearest(other, words),
            };
            let message = format!("{} cannot be {}", quoted(key), quoted(text));
            let error = out
                .error("unknown-value", &span, message)
                .expected(format!("one of {}", words.join(", ")))
                .did_you_mean(meant);
            out.report(error);
        }
        found
    }

    /// Reads a number without a unit.
    pub(super) fn number(
        &self,
        key: &'static str,
        range: RangeInclusive<u32>,
        out: &mut Collector<'_>,
    ) -> Option<u32> {
        let (text, span) = self.text(key, out)?;
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| is_number && range.contains(number));
        if number.is_none() {
            let (code, problem) = if is_number {
                ("number-out-of-range", "is out of range")
            } else {
                ("not-a-number", "is not a number")
            };
            let message = format!("{} is {}, which {problem}", quoted(key), quoted(text));
            let error = out.error(code, &span, message);
            let expected = format!("digits only, {} to {}", range.start(), range.end());
            out.report(error.expected(expected));
        }
        number
    }

    /// Reads a number, or `off` for none.
    pub(super) fn number_or_off(
        &self,
        key: &'static str,
        range: RangeInclusive<u32>,
        out: &mut Collector<'_>,
    ) -> Option<u32> {
        if self.is_off(key) { None } else { self.number(key, range, out) }
    }

    /// Tells whether a key is `off`.
    pub(super) fn is_off(&self, key: &'static str) -> bool {
        let node = self.entry(key).and_then(|entry| self.document.node(entry.value));
        matches!(node.map(|node| &node.content), Some(Content::Scalar(text)) if text == OFF)
    }

    /// Reads a time of at least `least`.
    pub(super) fn time(
        &self,
        key: &'static str,
        least: Duration,
        out: &mut Collector<'_>,
    ) -> Option<Duration> {
        let (text, span) = self.text(key, out)?;
        let error = match value::parse_time(text) {
            Ok(time) if time >= least => return Some(time),
            Ok(_) => QuantityError::TooLarge,
            Err(error) => error,
        };
        let (code, problem) = match error {
            QuantityError::NoUnit => ("time-without-unit", "has no unit"),
            QuantityError::NoNumber | QuantityError::UnknownUnit => ("not-a-time", "is no time"),
            QuantityError::TooLarge => ("time-out-of-range", "is out of range"),
        };
        let message = format!("{} is {}, which {problem}", quoted(key), quoted(text));
        let mut diagnostic = out.error(code, &span, message).expected(format!(
            "digits and one of ms, s, min, h, from {} ms to {} ms",
            least.as_millis(),
            limits::CONFIG_NUMBER_MAX
        ));
        if error == QuantityError::NoUnit {
            // In twemproxy's file a bare number is milliseconds.
            diagnostic = diagnostic.hint(format!("write \"{text} ms\" for milliseconds"));
        }
        out.report(diagnostic);
        None
    }

    /// Reads a size.
    pub(super) fn size(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
        out: &mut Collector<'_>,
    ) -> Option<u64> {
        let (text, span) = self.text(key, out)?;
        let (code, problem) = match value::parse_size(text) {
            Ok(bytes) if range.contains(&bytes) => return Some(bytes),
            Ok(_) | Err(QuantityError::TooLarge) => ("size-out-of-range", "is out of range"),
            Err(_) => ("not-a-size", "is no size"),
        };
        let message = format!("{} is {}, which {problem}", quoted(key), quoted(text));
        let error = out.error(code, &span, message);
        out.report(error.expected(format!(
            "digits and one of B, KiB, MiB, GiB, from {} to {}",
            value::format_size(*range.start()),
            value::format_size(*range.end())
        )));
        None
    }

    /// Reads where to listen, and where that stands.
    pub(super) fn listen(
        &self,
        key: &'static str,
        out: &mut Collector<'_>,
    ) -> Option<(Listen, Range<usize>)> {
        let (text, span) = self.text(key, out)?;
        match address::parse_listen(text) {
            Ok((address, None)) => Some((Listen { literal: text.to_owned(), address }, span)),
            Ok((_, Some(ListenSurprise::Mode(_)))) => {
                let message = format!("{} does not end with permissions", quoted(text));
                let error = out.error("invalid-listen-mode", &span, message);
                out.report(error.expected("an octal number up to 0777"));
                None
            }
            Ok((_, Some(ListenSurprise::PortWraps(_)))) => {
                let message = format!("{} does not end with a port", quoted(text));
                let error = out.error("invalid-listen-port", &span, message);
                out.report(error.expected("\"host:port\" with a port from 1 to 65535"));
                None
            }
            Err(error) => {
                let error = pool::listen_error(error, text, &span, out);
                out.report(error);
                None
            }
        }
    }
}

fn first(known: &[&'static str]) -> &'static str {
    known.first().copied().unwrap_or("key")
}
