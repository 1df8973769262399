//! What all readers of blocks share.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::super::diagnostic::{Collector, Diagnostic, quoted};
use super::super::suggest;
use super::grammar::{Statement, Word};
use super::model::{Command, Config, Tracked, User};
use crate::wire::vrrp::{Family, Vrid};

/// Gathers the configuration and what is wrong with it.
pub(super) struct Reader<'r, 't> {
    pub(super) collector: &'r mut Collector<'t>,
    pub(super) config: Config,
    pub(super) defaults: super::global::Defaults,
    /// Interface, number and family of each virtual router, and where it is.
    pub(super) seen: BTreeMap<(String, Vrid, Family), Range<usize>>,
}

/// Returns the statements of a block; none if there is no block.
pub(super) fn block(statement: &Statement) -> &[Statement] {
    statement.block.as_deref().unwrap_or_default()
}

/// Returns all words of a block, for lists of names.
pub(super) fn items(statement: &Statement) -> impl Iterator<Item = &Word> {
    block(statement).iter().flat_map(|item| std::iter::once(&item.keyword).chain(&item.arguments))
}

impl Reader<'_, '_> {
    pub(super) fn warn(
        &mut self,
        code: &'static str,
        span: &Range<usize>,
        message: impl Into<String>,
    ) {
        self.collector.report(self.collector.warning(code, span, message));
    }

    pub(super) fn advise(
        &mut self,
        code: &'static str,
        span: &Range<usize>,
        message: impl Into<String>,
        hint: &str,
    ) {
        self.collector.report(self.collector.warning(code, span, message).hint(hint));
    }

    pub(super) fn error(
        &mut self,
        code: &'static str,
        span: &Range<usize>,
        message: impl Into<String>,
    ) {
        self.collector.report(self.collector.error(code, span, message));
    }

    pub(super) fn unused(&mut self, keyword: &Word) {
        let message = format!("{} has no effect here", quoted(&keyword.text));
        self.warn("keyword-without-effect", &keyword.span, message);
    }

    pub(super) fn unknown<'k>(&mut self, keyword: &Word, known: impl Iterator<Item = &'k str>) {
        let message = format!("unknown keyword {}, ignored", quoted(&keyword.text));
        let near = suggest::nearest(&keyword.text, known);
        let warning: Diagnostic =
            self.collector.warning("unknown-keyword", &keyword.span, message).did_you_mean(near);
        self.collector.report(warning);
    }

    /// Returns the first argument's number if it is in its range, or tells what is used instead.
    pub(super) fn number(
        &mut self,
        statement: &Statement,
        range: RangeInclusive<i64>,
        instead: &str,
    ) -> Option<i64> {
        let word = statement.arguments.first().unwrap_or(&statement.keyword);
        let number = word.text.parse::<i64>().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let message = format!("{} is not a number that fits; {instead}", quoted(&word.text));
            let expected = format!("{} to {}", range.start(), range.end());
            let warning = self.collector.warning("number-out-of-range", &word.span, message);
            self.collector.report(warning.expected(expected));
        }
        number
    }

    /// The same for a number of 8 bits.
    pub(super) fn small(
        &mut self,
        statement: &Statement,
        range: RangeInclusive<u8>,
        instead: &str,
    ) -> Option<u8> {
        let range = i64::from(*range.start())..=i64::from(*range.end());
        self.number(statement, range, instead).and_then(|number| u8::try_from(number).ok())
    }

    /// Returns the first argument's time in microseconds, if it is in its range.
    pub(super) fn micros(
        &mut self,
        statement: &Statement,
        range: RangeInclusive<u64>,
        instead: &str,
    ) -> Option<u64> {
        let word = statement.arguments.first().unwrap_or(&statement.keyword);
        let micros = parse_micros(&word.text).filter(|micros| range.contains(micros));
        if micros.is_none() {
            let message = format!("{} is not a time that fits; {instead}", quoted(&word.text));
            let (low, high) = (*range.start() as f64 / 1e6, *range.end() as f64 / 1e6);
            let warning = self.collector.warning("time-out-of-range", &word.span, message);
            self.collector.report(warning.expected(format!("{low} to {high} seconds")));
        }
        micros
    }

    /// The same as a duration of at most so many seconds.
    pub(super) fn time(&mut self, statement: &Statement, seconds_max: u64) -> Option<Duration> {
        self.micros(statement, 0..=seconds_max * 1_000_000, "ignored").map(Duration::from_micros)
    }

    /// Returns what a flag is set to: on if it stands alone.
    pub(super) fn flag(&mut self, statement: &Statement) -> bool {
        let Some(word) = statement.arguments.first() else { return true };
        match word.text.as_str() {
            "on" | "true" | "yes" | "1" => true,
            "off" | "false" | "no" | "0" => false,
            _ => {
                let message = format!("{} is neither on nor off; on is used", quoted(&word.text));
                self.warn("not-a-flag", &word.span, message);
                true
            }
        }
    }

    pub(super) fn address(&mut self, word: &Word) -> Option<IpAddr> {
        let address = word.text.parse().ok();
        if address.is_none() {
            let message = format!("{} is not an address, ignored", quoted(&word.text));
            self.warn("invalid-address", &word.span, message);
        }
        address
    }

    /// Reads a program that is told of something: its words in quotes, then user and group.
    pub(super) fn command(&mut self, statement: &Statement) -> Option<Command> {
        let mut words = statement.arguments.iter();
        let Some(first) = words.next() else {
            self.warn("missing-program", &statement.keyword.span, "there is no program, ignored");
            return None;
        };
        let argv =
            if first.is_quoted { split_command(&first.text) } else { vec![first.text.clone()] };
        if argv.is_empty() {
            self.warn("missing-program", &first.span, "there is no program, ignored");
            return None;
        }
        let name = words.next().map(|word| word.text.clone());
        let group = words.next().map(|word| word.text.clone());
        let user = name.map(|name| User { name, group });
        Some(Command { argv, user, span: first.span.clone() })
    }

    /// Reads a user and, if there is one, a group.
    pub(super) fn user(&mut self, statement: &Statement) -> Option<User> {
        let mut words = statement.arguments.iter().map(|word| word.text.clone());
        let Some(name) = words.next() else {
            self.warn("missing-user", &statement.keyword.span, "there is no user, ignored");
            return None;
        };
        Some(User { name, group: words.next().map(|group| group.trim_matches(':').to_owned()) })
    }

    /// Reads the names in a block that are tracked, and how.
    pub(super) fn tracked(
        &mut self,
        statement: &Statement,
        weight_max: i16,
        is_known: impl Fn(&Config, &str) -> bool,
        unknown: (&'static str, &str),
    ) -> Vec<Tracked> {
        let mut list = Vec::new();
        for item in block(statement) {
            let name = &item.keyword;
            if !is_known(&self.config, &name.text) {
                let message = format!("there is no {} {}, ignored", unknown.1, quoted(&name.text));
                self.warn(unknown.0, &name.span, message);
                continue;
            }
            let mut tracked = Tracked { name: name.text.clone(), weight: None, is_reversed: false };
            let mut words = item.arguments.iter();
            while let Some(word) = words.next() {
                match word.text.as_str() {
                    "weight" => {
                        let value = words.next();
                        let number = value.and_then(|value| value.text.parse::<i16>().ok());
                        tracked.weight =
                            number.filter(|number| (-weight_max..=weight_max).contains(number));
                        if tracked.weight.is_none() {
                            let span = value.map_or(&word.span, |value| &value.span);
                            self.warn("weight-out-of-range", span, "no weight that fits, ignored");
                        }
                    }
                    "reverse" => tracked.is_reversed = true,
                    "noreverse" => tracked.is_reversed = false,
                    _ => self.unknown(word, ["weight", "reverse", "noreverse"].into_iter()),
                }
            }
            list.push(tracked);
        }
        list
    }
}

/// Reads decimal seconds; what is finer than a microsecond is cut off.
fn parse_micros(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    whole.checked_mul(1_000_000)?.checked_add(digits.parse().ok()?)
}

/// Splits a command at blanks outside quotes.
pub(super) fn split_command(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in text.chars() {
        match (quote, letter) {
            (Some(open), letter) if open == letter => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}
