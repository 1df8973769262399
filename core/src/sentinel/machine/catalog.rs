//! The commands of a Sentinel as COMMAND tells them, and COMMAND itself.
//!
//! The table and the documentation beside it are what the Sentinel of Redis 7.0.15 answers.

use std::borrow::Cow;

use super::pubsub::is_match;
use crate::sentinel::reply::Protocol;
use crate::wire::resp::encode;

/// One command, or one of its subcommands.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name; that of a subcommand has the command's before it.
    pub(super) name: &'static str,
    /// Number of words; negative means at least.
    pub(super) arity: i64,
    flags: &'static str,
    categories: &'static str,
    tips: &'static str,
}

/// A command's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CommandId(u8);

/// A set of commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CommandSet(u128);

/// All commands by their names, a command before its subcommands.
static TABLE: [Entry; 72] = [
    entry("acl", -2, "", "slow", ""),
    entry("acl|cat", -2, "noscript loading stale", "slow", ""),
    entry("acl|deluser", -3, "admin noscript loading stale", "admin slow dangerous", ""),
    entry("acl|dryrun", -4, "admin noscript loading stale", "admin slow dangerous", ""),
    entry("acl|genpass", -2, "noscript loading stale", "slow", ""),
    entry("acl|getuser", 3, "admin noscript loading stale", "admin slow dangerous", ""),
    entry("acl|help", 2, "loading stale", "slow", ""),
    entry("acl|list", 2, "admin noscript loading stale", "admin slow dangerous", ""),
    entry("acl|load", 2, "admin noscript loading stale", "admin slow dangerous", ""),
    entry("acl|log", -2, "admin noscript loading stale", "admin slow dangerous", ""),
    entry("acl|save", 2, "admin noscript loading stale", "admin slow dangerous", ""),
    entry("acl|setuser", -3, "admin noscript loading stale", "admin slow dangerous", ""),
    entry("acl|users", 2, "admin noscript loading stale", "admin slow dangerous", ""),
    entry("acl|whoami", 2, "noscript loading stale", "slow", ""),
    entry("auth", -2, "noscript loading stale fast no_auth allow_busy", "fast connection", ""),
    entry("client", -2, "", "slow", ""),
    entry("client|caching", 3, "noscript loading stale", "slow connection", ""),
    entry("client|getname", 2, "noscript loading stale", "slow connection", ""),
    entry("client|getredir", 2, "noscript loading stale", "slow connection", ""),
    entry("client|help", 2, "loading stale", "slow connection", ""),
    entry("client|id", 2, "noscript loading stale", "slow connection", ""),
    entry("client|info", 2, "noscript loading stale", "slow connection", "nondeterministic_output"),
    entry("client|kill", -3, "admin noscript loading stale", "admin slow dangerous connection", ""),
    entry(
        "client|list",
        -2,
        "admin noscript loading stale",
        "admin slow dangerous connection",
        "nondeterministic_output",
    ),
    entry(
        "client|no-evict",
        3,
        "admin noscript loading stale",
        "admin slow dangerous connection",
        "",
    ),
    entry(
        "client|pause",
        -3,
        "admin noscript loading stale",
        "admin slow dangerous connection",
        "",
    ),
    entry("client|reply", 3, "noscript loading stale", "slow connection", ""),
    entry("client|setname", 3, "noscript loading stale", "slow connection", ""),
    entry("client|tracking", -3, "noscript loading stale", "slow connection", ""),
    entry("client|trackinginfo", 2, "noscript loading stale", "slow connection", ""),
    entry(
        "client|unblock",
        -3,
        "admin noscript loading stale",
        "admin slow dangerous connection",
        "",
    ),
    entry(
        "client|unpause",
        2,
        "admin noscript loading stale",
        "admin slow dangerous connection",
        "",
    ),
    entry("command", -1, "loading stale", "slow connection", "nondeterministic_output_order"),
    entry("command|count", 2, "loading stale", "slow connection", ""),
    entry("command|docs", -2, "loading stale", "slow connection", "nondeterministic_output_order"),
    entry("command|getkeys", -4, "loading stale", "slow connection", ""),
    entry("command|getkeysandflags", -4, "loading stale", "slow connection", ""),
    entry("command|help", 2, "loading stale", "slow connection", ""),
    entry("command|info", -2, "loading stale", "slow connection", "nondeterministic_output_order"),
    entry("command|list", -2, "loading stale", "slow connection", "nondeterministic_output_order"),
    entry("hello", -1, "noscript loading stale fast no_auth allow_busy", "fast connection", ""),
    entry(
        "info",
        -1,
        "loading stale",
        "slow dangerous",
        "nondeterministic_output request_policy:all_shards response_policy:special",
    ),
    entry(
        "ping",
        -1,
        "fast",
        "fast connection",
        "request_policy:all_shards response_policy:all_succeeded",
    ),
    entry("psubscribe", -2, "pubsub noscript loading stale", "pubsub slow", ""),
    entry("publish", 3, "pubsub loading stale fast", "pubsub fast", ""),
    entry("punsubscribe", -1, "pubsub noscript loading stale", "pubsub slow", ""),
    entry("role", 1, "noscript loading stale fast", "admin fast dangerous", ""),
    entry("sentinel", -2, "admin", "admin slow dangerous", ""),
    entry("sentinel|ckquorum", 3, "admin", "admin slow dangerous", ""),
    entry("sentinel|config", -3, "admin", "admin slow dangerous", ""),
    entry("sentinel|debug", -2, "admin", "admin slow dangerous", ""),
    entry("sentinel|failover", 3, "admin", "admin slow dangerous", ""),
    entry("sentinel|flushconfig", 2, "admin", "admin slow dangerous", ""),
    entry("sentinel|get-master-addr-by-name", 3, "admin", "admin slow dangerous", ""),
    entry("sentinel|help", 2, "loading stale", "slow", ""),
    entry("sentinel|info-cache", -3, "admin", "admin slow dangerous", ""),
    entry("sentinel|is-master-down-by-addr", 6, "admin", "admin slow dangerous", ""),
    entry("sentinel|master", 3, "admin", "admin slow dangerous", ""),
    entry("sentinel|masters", 2, "admin", "admin slow dangerous", ""),
    entry("sentinel|monitor", 6, "admin", "admin slow dangerous", ""),
    entry("sentinel|myid", 2, "admin", "admin slow dangerous", ""),
    entry("sentinel|pending-scripts", 2, "admin", "admin slow dangerous", ""),
    entry("sentinel|remove", 3, "admin", "admin slow dangerous", ""),
    entry("sentinel|replicas", 3, "admin", "admin slow dangerous", ""),
    entry("sentinel|reset", 3, "admin", "admin slow dangerous", ""),
    entry("sentinel|sentinels", 3, "admin", "admin slow dangerous", ""),
    entry("sentinel|set", -5, "admin", "admin slow dangerous", ""),
    entry("sentinel|simulate-failure", -3, "admin", "admin slow dangerous", ""),
    entry("sentinel|slaves", 3, "admin", "admin slow dangerous", ""),
    entry(
        "shutdown",
        -1,
        "admin noscript loading stale no_multi allow_busy",
        "admin slow dangerous",
        "",
    ),
    entry("subscribe", -2, "pubsub noscript loading stale", "pubsub slow", ""),
    entry("unsubscribe", -1, "pubsub noscript loading stale", "pubsub slow", ""),
];

const _: () = assert!(TABLE.len() <= 128);

const fn entry(
    name: &'static str,
    arity: i64,
    flags: &'static str,
    categories: &'static str,
    tips: &'static str,
) -> Entry {
    Entry { name, arity, flags, categories, tips }
}

/// Categories of commands, in the order in which they are told.
pub(super) const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// What each command is for, name and description by turns, in RESP3.
static DOCUMENTS: &[u8] = include_bytes!("docs.resp3");

impl Entry {
    /// Returns the command's own name, without a subcommand's.
    fn command(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(command, _)| command)
    }

    fn is_subcommand(&self) -> bool {
        self.name.contains('|')
    }

    pub(super) fn has_flag(&self, flag: &str) -> bool {
        self.flags.split(' ').any(|known| known == flag)
    }

    fn is_in(&self, category: &str) -> bool {
        self.categories.split(' ').any(|known| known == category)
    }

    fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let words = |list: &'static str| list.split(' ').filter(|word| !word.is_empty());
        encode::array_header(out, 10);
        encode::bulk(out, self.name.as_bytes());
        encode::integer(out, self.arity);
        set_header(protocol, words(self.flags).count(), out);
        words(self.flags).for_each(|flag| encode::simple(out, flag));
        (0..3).for_each(|_| encode::integer(out, 0));
        set_header(protocol, words(self.categories).count(), out);
        words(self.categories).for_each(|name| encode::simple(out, &format!("@{name}")));
        set_header(protocol, words(self.tips).count(), out);
        words(self.tips).for_each(|tip| encode::bulk(out, tip.as_bytes()));
        set_header(protocol, 0, out);
        let is_mine = |other: &&Self| {
            !self.is_subcommand() && other.is_subcommand() && other.command() == self.name
        };
        set_header(protocol, TABLE.iter().filter(is_mine).count(), out);
        TABLE.iter().filter(is_mine).for_each(|sub| sub.encode(protocol, out));
    }
}

pub(super) fn set_header(protocol: Protocol, count: usize, out: &mut Vec<u8>) {
    match protocol {
        Protocol::Resp2 => encode::array_header(out, count),
        Protocol::Resp3 => {
            out.push(b'~');
            encode::decimal(out, count as u64);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Finds a command, or one of its subcommands by the name of both.
pub(super) fn find(name: &[u8]) -> Option<(CommandId, &'static Entry)> {
    let at = TABLE.iter().position(|entry| name.eq_ignore_ascii_case(entry.name.as_bytes()))?;
    Some((CommandId(u8::try_from(at).ok()?), TABLE.get(at)?))
}

/// Finds what a request asks for: the subcommand if it is one that is listed, else the command.
pub(super) fn resolve(words: &[&[u8]]) -> Option<(CommandId, &'static Entry)> {
    let [command, rest @ ..] = words else { return None };
    let sub = rest.first().and_then(|sub| find(&[command, &b"|"[..], sub].concat()));
    let found = find(command).filter(|(_, entry)| !entry.is_subcommand());
    found.and(sub).or(found)
}

impl CommandSet {
    /// Every command, also those that are not listed.
    pub(super) const ALL: Self = Self(u128::MAX);

    pub(super) const fn contains(self, id: CommandId) -> bool {
        self.0 & (1 << id.0) != 0
    }

    const fn set(&mut self, id: CommandId, is_in: bool) {
        if is_in { self.0 |= 1 << id.0 } else { self.0 &= !(1 << id.0) }
    }

    /// Adds or takes away what is chosen.
    fn choose(&mut self, is_in: bool, is_chosen: impl Fn(&Entry) -> bool) {
        for (id, _) in all().filter(|(_, entry)| is_chosen(entry)) {
            self.set(id, is_in);
        }
    }

    /// Adds or takes away a category. Returns false if there is none of that name.
    pub(super) fn put_category(&mut self, category: &str, is_in: bool) -> bool {
        let is_known = CATEGORIES.contains(&category);
        self.choose(is_in, |entry| entry.is_in(category));
        is_known
    }

    /// Adds or takes away a command with all its subcommands, or one of these. Returns false if
    /// there is none of that name.
    pub(super) fn put_command(&mut self, name: &str, is_in: bool) -> bool {
        let Some((id, found)) = find(name.as_bytes()) else { return false };
        if found.is_subcommand() {
            self.set(id, is_in);
        } else {
            self.choose(is_in, |entry| entry.command() == found.name);
        }
        true
    }

    /// Returns rules that make the set. Source: the form in which Redis 7.0 tells them, which it
    /// finds in the same way: all or nothing, then categories that fit better than not, then what
    /// is left over one by one.
    pub(super) fn describe(self) -> String {
        // The highest bit is no command: it tells whether all are meant, also those to come.
        let has_all = self.0 >> 127 != 0;
        let mut made = if has_all { Self::ALL } else { Self::default() };
        let mut text = if has_all { "+@all".to_owned() } else { "-@all".to_owned() };
        let mut left = CATEGORIES.to_vec();
        loop {
            let fit = |category: &&str| {
                let of_it = all().filter(|(_, entry)| entry.is_in(category));
                let (same, other): (Vec<_>, Vec<_>) =
                    of_it.partition(|(id, _)| self.contains(*id) != made.contains(*id));
                (same.len(), other.len())
            };
            let best = left
                .iter()
                .map(|category| (*category, fit(category)))
                .filter(|(_, (same, other))| same > other)
                .min_by_key(|(_, (same, other))| (*other, usize::MAX - same));
            let Some((category, _)) = best else { break };
            left.retain(|known| *known != category);
            made.put_category(category, !has_all);
            text.push_str(&format!(" {}@{category}", sign(!has_all)));
        }
        for (id, entry) in all() {
            if self.contains(id) != made.contains(id) {
                let is_in = self.contains(id);
                made.put_command(entry.name, is_in);
                text.push_str(&format!(" {}{}", sign(is_in), entry.name));
            }
        }
        text
    }
}

const fn sign(is_in: bool) -> char {
    if is_in { '+' } else { '-' }
}

fn all() -> impl Iterator<Item = (CommandId, &'static Entry)> {
    TABLE.iter().zip(0..).map(|(entry, at)| (CommandId(at), entry))
}

/// Returns the names of the commands of a category, subcommands too; none if there is no such.
pub(super) fn of_category(category: &[u8]) -> Option<Vec<&'static str>> {
    let name = CATEGORIES.iter().find(|name| category.eq_ignore_ascii_case(name.as_bytes()))?;
    Some(TABLE.iter().filter(|entry| entry.is_in(name)).map(|entry| entry.name).collect())
}

/// Serves COMMAND.
pub(super) fn command_command(words: &[&[u8]], protocol: Protocol, out: &mut Vec<u8>) {
    let commands = || TABLE.iter().filter(|entry| !entry.is_subcommand());
    let [sub, rest @ ..] = words else {
        encode::array_header(out, commands().count());
        commands().for_each(|entry| entry.encode(protocol, out));
        return;
    };
    let word = String::from_utf8_lossy(sub).to_ascii_lowercase();
    match (word.as_str(), rest) {
        ("count", []) => {
            encode::integer(out, i64::try_from(commands().count()).unwrap_or(i64::MAX));
        }
        ("list", rest) => list(rest, out),
        ("info", []) => command_command(&[], protocol, out),
        ("info", names) => {
            encode::array_header(out, names.len());
            for name in names {
                match (find(name), protocol) {
                    (Some((_, entry)), _) => entry.encode(protocol, out),
                    (None, Protocol::Resp2) => encode::null_bulk(out),
                    (None, Protocol::Resp3) => out.extend_from_slice(b"_\r\n"),
                }
            }
        }
        ("docs", names) => documents(names, protocol, out),
        ("getkeys" | "getkeysandflags", [_, ..]) => keys(&word, rest, out),
        ("help", []) => super::help::encode(&super::help::COMMAND, out),
        ("count" | "help" | "getkeys" | "getkeysandflags", _) => {
            super::ordinary::arity_error(out, &format!("command|{word}"));
        }
        _ => super::ordinary::unknown_subcommand(out, "COMMAND", sub),
    }
}

fn list(rest: &[&[u8]], out: &mut Vec<u8>) {
    let found: Vec<&str> = match rest {
        [] => TABLE.iter().map(|entry| entry.name).collect(),
        [by, kind, value] if by.eq_ignore_ascii_case(b"filterby") => {
            match kind.to_ascii_lowercase().as_slice() {
                b"module" => Vec::new(),
                b"aclcat" => of_category(value).unwrap_or_default(),
                b"pattern" => {
                    let names = TABLE.iter().map(|entry| entry.name);
                    names.filter(|name| is_match(value, name.as_bytes())).collect()
                }
                _ => return encode::error(out, "ERR syntax error"),
            }
        }
        _ => return encode::error(out, "ERR syntax error"),
    };
    encode::array_header(out, found.len());
    found.iter().for_each(|name| encode::bulk(out, name.as_bytes()));
}

/// No command of a Sentinel has keys.
fn keys(word: &str, request: &[&[u8]], out: &mut Vec<u8>) {
    match resolve(request) {
        _ if request.len() < 2 => super::ordinary::arity_error(out, &format!("command|{word}")),
        None => encode::error(out, "ERR Invalid command specified"),
        Some(_) => encode::error(out, "ERR The command has no key arguments"),
    }
}

/// Splits the documentation into names and what stands of them.
fn described() -> Vec<(&'static [u8], &'static [u8])> {
    let mut found = Vec::new();
    let mut rest = DOCUMENTS;
    while let (Some(name), behind) = take_frame(rest)
        && let (Some(text), behind) = take_frame(behind)
    {
        found.push((name, text));
        rest = behind;
    }
    found
}

/// Takes one frame off.
fn take_frame(bytes: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let mut end = 0;
    let mut owed = 1_usize;
    while owed > 0 {
        let Some((kind, count, line)) = bytes.get(end..).and_then(head) else {
            return (None, bytes);
        };
        owed -= 1;
        end += line;
        match kind {
            b'$' => end += count + 2,
            b'*' | b'~' => owed += count,
            b'%' => owed += count * 2,
            _ => {}
        }
    }
    bytes.split_at_checked(end).map_or((None, bytes), |(frame, rest)| (Some(frame), rest))
}

/// Returns what a line says: the kind of frame, its number, how long the line is.
fn head(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let (kind, number) = bytes.get(..end)?.split_first()?;
    let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
    Some((*kind, number.unwrap_or(0), end + 2))
}

/// Returns a frame as the protocol spells it.
fn spelt(frame: &[u8], protocol: Protocol) -> Cow<'_, [u8]> {
    if protocol == Protocol::Resp3 {
        return Cow::Borrowed(frame);
    }
    let mut out = Vec::with_capacity(frame.len());
    let mut rest = frame;
    while let Some((kind, count, line)) = head(rest) {
        let body = if kind == b'$' { count + 2 } else { 0 };
        let Some((part, behind)) = rest.split_at_checked(line + body) else { break };
        match kind {
            b'%' => encode::array_header(&mut out, count * 2),
            b'~' => encode::array_header(&mut out, count),
            _ => out.extend_from_slice(part),
        }
        rest = behind;
    }
    Cow::Owned(out)
}

/// Serves COMMAND DOCS.
fn documents(names: &[&[u8]], protocol: Protocol, out: &mut Vec<u8>) {
    let all = described();
    let is_it = |frame: &[u8], name: &[u8]| {
        head(frame).and_then(|(_, count, line)| frame.get(line..line + count)) == Some(name)
    };
    let mut found = Vec::new();
    if names.is_empty() {
        found = all;
    } else {
        for name in names {
            let Some((_, entry)) = find(name) else { continue };
            let command = entry.command();
            let Some((own, text)) = all.iter().find(|(known, _)| is_it(known, command.as_bytes()))
            else {
                continue;
            };
            if entry.is_subcommand() {
                found.extend(subcommand_of(text, entry.name));
            } else {
                found.push((own, text));
            }
        }
    }
    match protocol {
        Protocol::Resp2 => encode::array_header(out, found.len() * 2),
        Protocol::Resp3 => encode::map_header(out, found.len()),
    }
    for (name, text) in found {
        out.extend_from_slice(name);
        out.extend_from_slice(&spelt(text, protocol));
    }
}

/// Finds a subcommand in what stands of a command.
fn subcommand_of<'a>(text: &'a [u8], name: &str) -> Option<(&'a [u8], &'a [u8])> {
    let wanted = format!("${}\r\n{name}\r\n", name.len());
    let at = text.windows(wanted.len()).position(|window| window == wanted.as_bytes())?;
    let (own, behind) = take_frame(text.get(at..)?);
    Some((own?, take_frame(behind).0?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::resp::{ReplyScan, ReplyScanner};

    #[test]
    fn every_command_is_found_by_its_name_and_described() {
        assert!(TABLE.is_sorted_by_key(|entry| entry.name));
        for (id, entry) in all() {
            assert_eq!(find(entry.name.to_uppercase().as_bytes()).unwrap().0, id);
            for protocol in [Protocol::Resp2, Protocol::Resp3] {
                let mut out = Vec::new();
                documents(&[entry.name.as_bytes()], protocol, &mut out);
                let scan = ReplyScanner::default().advance(&out);
                assert_eq!(scan, Ok(ReplyScan::Complete { len: out.len() }));
                assert!(out.len() > 20, "{}", entry.name);
            }
        }
        assert_eq!(described().len(), 15);
    }

    #[test]
    fn a_set_is_told_as_redis_tells_it() {
        let made = |rules: &[(&str, bool)]| {
            let mut set = CommandSet::default();
            for (rule, is_in) in rules {
                match rule.strip_prefix('@') {
                    Some("all") => {
                        set = if *is_in { CommandSet::ALL } else { CommandSet::default() }
                    }
                    Some(category) => assert!(set.put_category(category, *is_in)),
                    None => assert!(set.put_command(rule, *is_in)),
                }
            }
            set.describe()
        };
        assert_eq!(made(&[]), "-@all");
        assert_eq!(made(&[("@all", true), ("@dangerous", false)]), "+@all -@dangerous");
        assert_eq!(
            made(&[
                ("ping", true),
                ("sentinel|master", true),
                ("@pubsub", true),
                ("publish", false)
            ]),
            "-@all +@pubsub +ping -publish +sentinel|master"
        );
        assert_eq!(
            made(&[("sentinel", true), ("sentinel|set", false), ("sentinel|remove", false)]),
            "-@all +sentinel -sentinel|remove -sentinel|set"
        );
        assert_eq!(
            made(&[("@all", true), ("shutdown", false), ("sentinel|set", false)]),
            "+@all -sentinel|set -shutdown"
        );
    }
}
