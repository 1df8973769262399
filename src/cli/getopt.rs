//! Reads an argument list the way the C library's `getopt_long` does: short flags may be combined
//! (`-dc FILE`), a value may follow in the same word (`-cFILE`, `--conf-file=FILE`), long names
//! may be cut short where that is clear, operands may stand anywhere, and `--` ends the options.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// One option of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// The letter after one dash.
    pub(crate) short: u8,
    /// The word after two dashes.
    pub(crate) long: &'static str,
    /// Whether it takes a value.
    pub(crate) takes_value: bool,
}

/// What the argument list says next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// An option by its short letter, and its value if it takes one.
    Option(u8, Option<OsString>),
    /// The option with this letter lacks its value.
    MissingValue(u8),
    /// No option has this name (without the dashes), several do, or it takes no value.
    Unknown(String),
}

/// Reads `arguments` (without the program's name) into items; operands are left out.
pub(crate) fn parse(arguments: &[OsString], specs: &[Spec]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_bytes() {
            b"--" => break,
            [b'-', b'-', long @ ..] => items.push(parse_long(long, specs, &mut rest)),
            [b'-', shorts @ ..] if !shorts.is_empty() => {
                parse_shorts(shorts, specs, &mut rest, &mut items);
            }
            _ => {}
        }
    }
    items
}

type Rest<'a> = std::slice::Iter<'a, OsString>;

fn parse_shorts(mut word: &[u8], specs: &[Spec], rest: &mut Rest<'_>, items: &mut Vec<Item>) {
    while let Some((&letter, tail)) = word.split_first() {
        let Some(spec) = specs.iter().find(|spec| spec.short == letter) else {
            items.push(Item::Unknown(char::from(letter).to_string()));
            word = tail;
            continue;
        };
        if !spec.takes_value {
            items.push(Item::Option(letter, None));
            word = tail;
            continue;
        }
        let value = match tail {
            [] => rest.next().cloned(),
            value => Some(OsString::from_vec(value.to_vec())),
        };
        items.push(with_value(letter, value));
        return;
    }
}

fn parse_long(word: &[u8], specs: &[Spec], rest: &mut Rest<'_>) -> Item {
    let mut parts = word.splitn(2, |&byte| byte == b'=');
    let name = parts.next().unwrap_or_default();
    let inline = parts.next().map(|value| OsStr::from_bytes(value).to_owned());
    let unknown = || Item::Unknown(String::from_utf8_lossy(name).into_owned());
    let Some(spec) = find_long(name, specs) else { return unknown() };
    match (spec.takes_value, inline) {
        (false, None) => Item::Option(spec.short, None),
        (false, Some(_)) => unknown(),
        (true, Some(value)) => Item::Option(spec.short, Some(value)),
        (true, None) => with_value(spec.short, rest.next().cloned()),
    }
}

/// Finds the option with that name, or the only one that starts with it.
fn find_long<'a>(name: &[u8], specs: &'a [Spec]) -> Option<&'a Spec> {
    if let Some(spec) = specs.iter().find(|spec| spec.long.as_bytes() == name) {
        return Some(spec);
    }
    let mut candidates = specs.iter().filter(|spec| spec.long.as_bytes().starts_with(name));
    let first = candidates.next()?;
    candidates.next().is_none().then_some(first)
}

fn with_value(letter: u8, value: Option<OsString>) -> Item {
    match value {
        Some(value) => Item::Option(letter, Some(value)),
        None => Item::MissingValue(letter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: [Spec; 4] = [
        Spec { short: b'd', long: "daemonize", takes_value: false },
        Spec { short: b'c', long: "conf-file", takes_value: true },
        Spec { short: b's', long: "stats-port", takes_value: true },
        Spec { short: b'a', long: "stats-addr", takes_value: true },
    ];

    fn read(words: &[&str]) -> Vec<Item> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        parse(&words, &SPECS)
    }

    fn option(letter: u8, value: &str) -> Item {
        Item::Option(letter, Some(value.into()))
    }

    #[test]
    fn values_follow_in_the_same_or_the_next_word() {
        let expected = vec![option(b'c', "F")];
        assert_eq!(read(&["-c", "F"]), expected);
        assert_eq!(read(&["-cF"]), expected);
        assert_eq!(read(&["--conf-file", "F"]), expected);
        assert_eq!(read(&["--conf-file=F"]), expected);
        assert_eq!(read(&["--conf=F"]), expected);
        assert_eq!(read(&["--conf-file="]), vec![option(b'c', "")]);
        assert_eq!(read(&["-c", "-d"]), vec![option(b'c', "-d")]);
    }

    #[test]
    fn short_flags_combine() {
        let expected = vec![Item::Option(b'd', None), option(b'c', "F")];
        assert_eq!(read(&["-dc", "F"]), expected);
        assert_eq!(read(&["-dcF"]), expected);
        assert_eq!(read(&["-dc"]), vec![Item::Option(b'd', None), Item::MissingValue(b'c')]);
    }

    #[test]
    fn operands_stand_anywhere_and_two_dashes_end_the_options() {
        assert_eq!(read(&["x", "-d", "-", "y"]), vec![Item::Option(b'd', None)]);
        assert_eq!(read(&["--", "-d"]), vec![]);
    }

    #[test]
    fn unknown_ambiguous_and_overfed_names_are_told() {
        assert_eq!(read(&["-x"]), vec![Item::Unknown("x".into())]);
        assert_eq!(read(&["--stats"]), vec![Item::Unknown("stats".into())]);
        assert_eq!(read(&["--bogus=1"]), vec![Item::Unknown("bogus".into())]);
        assert_eq!(read(&["--daemonize=1"]), vec![Item::Unknown("daemonize".into())]);
    }
}
