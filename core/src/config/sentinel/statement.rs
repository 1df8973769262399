//! Reads one `sentinel …` line: words to an [`Item`], and what is wrong with them.

use std::num::NonZeroU32;

use super::item::{Item, Setting, WORDS};
use super::line::{Line, Word};
use super::value::{Address, AddressError, Epoch, MasterName, RunId, canonical_number};
use super::{KnownSentinel, Monitor, RenamedCommand, Secret};
use crate::config::diagnostic::{Collector, quoted};
use crate::config::suggest;
use crate::limits;

/// Reads the line; `None` when it says nothing, or something wrong that has been reported.
pub(super) fn read(line: &Line, out: &mut Collector<'_>) -> Option<Item> {
    let Some(option) = line.words.get(1) else {
        let error = out
            .error("bad-arguments", &line.span, "\"sentinel\" stands alone")
            .expected("an option, such as \"sentinel monitor mymaster 127.0.0.1 6379 2\"");
        out.report(error);
        return None;
    };
    let word = option.text.to_ascii_lowercase();
    let arguments = line.words.get(2..).unwrap_or_default();
    match read_global(&word, line, arguments, out) {
        Found::Nothing => {}
        Found::Bad => return None,
        Found::Item(item) => return Some(item),
    }
    match read_master(&word, line, arguments, out) {
        Found::Item(item) => Some(item),
        Found::Bad => None,
        Found::Nothing => {
            let message = format!("sentinel has no option {}", quoted(&option.text));
            let error = out.error("unknown-directive", &option.span, message);
            out.report(error.did_you_mean(suggest::nearest(&word, WORDS)));
            None
        }
    }
}

enum Found {
    /// The word belongs to somebody else.
    Nothing,
    /// It has been reported.
    Bad,
    Item(Item),
}

impl From<Option<Item>> for Found {
    fn from(item: Option<Item>) -> Self {
        item.map_or(Self::Bad, Self::Item)
    }
}

fn read_global(word: &str, line: &Line, arguments: &[Word], out: &mut Collector<'_>) -> Found {
    let known = matches!(
        word,
        "myid"
            | "current-epoch"
            | "deny-scripts-reconfig"
            | "resolve-hostnames"
            | "announce-hostnames"
            | "announce-ip"
            | "announce-port"
            | "sentinel-user"
            | "sentinel-pass"
    );
    if !known {
        return Found::Nothing;
    }
    let [value] = arguments else {
        return report_count(line, word, "one value", out);
    };
    let item = match word {
        "myid" => run_id(value, out).map(Item::MyId),
        "current-epoch" => epoch(value, out).map(Item::CurrentEpoch),
        "deny-scripts-reconfig" => yes_no(value, out).map(Item::DenyScriptsReconfig),
        "resolve-hostnames" => yes_no(value, out).map(Item::ResolveHostnames),
        "announce-hostnames" => yes_no(value, out).map(Item::AnnounceHostnames),
        "announce-ip" => announce_ip(value, out).map(Item::AnnounceIp),
        "announce-port" => number(value, 0, u64::from(u16::MAX), "a port", out)
            .and_then(|port| u16::try_from(port).ok())
            .map(Item::AnnouncePort),
        "sentinel-user" => Some(Item::SentinelUser(value.text.clone())),
        _ => Some(Item::SentinelPass(Secret(value.text.clone()))),
    };
    item.into()
}

fn read_master(word: &str, line: &Line, arguments: &[Word], out: &mut Collector<'_>) -> Found {
    let Some(shape) = shape(word) else { return Found::Nothing };
    let [name, values @ ..] = arguments else { return report_count(line, word, shape.says, out) };
    // The oldest form of known-sentinel has no run ID; nothing can be done with it.
    if word == "known-sentinel" && values.len() == 2 {
        let message = "a known Sentinel without its ID is of no use and ignored";
        out.report(out.warning("known-sentinel-without-id", &line.span, message));
        return Found::Bad;
    }
    if values.len() != shape.values {
        return report_count(line, word, shape.says, out);
    }
    let Some(master) = MasterName::new(&name.text) else {
        let message = format!("{} cannot be the name of a master", quoted(&name.text));
        let most = limits::MASTER_NAME_BYTES_MAX;
        let error = out
            .error("bad-master-name", &name.span, message)
            .expected(format!("1 to {most} bytes without commas and spaces"));
        out.report(error);
        return Found::Bad;
    };
    let setting = match (word, values) {
        ("monitor", [host, port, quorum]) => {
            let place = address(host, port, out);
            let quorum = positive(quorum, "the quorum", out);
            place.zip(quorum).map(|(address, quorum)| Setting::Monitor(Monitor { address, quorum }))
        }
        ("known-sentinel", [host, port, id]) => {
            let place = address(host, port, out);
            place
                .zip(run_id(id, out))
                .map(|(address, run_id)| Setting::KnownSentinel(KnownSentinel { address, run_id }))
        }
        ("rename-command", [from, to]) => Some(Setting::RenameCommand(RenamedCommand {
            from: from.text.clone(),
            to: to.text.clone(),
        })),
        (_, [host, port]) => address(host, port, out).map(Setting::KnownReplica),
        (_, [value]) => setting_of_one(word, value, out),
        _ => None,
    };
    setting.map(|setting| Item::Of(master, setting)).into()
}

struct Shape {
    /// How many values stand behind the master's name.
    values: usize,
    says: &'static str,
}

fn shape(word: &str) -> Option<Shape> {
    let (values, says) = match word {
        "monitor" => (3, "a name, a host, a port and a quorum"),
        "known-sentinel" => (3, "a master's name, a host, a port and an ID"),
        "known-replica" | "known-slave" => (2, "a master's name, a host and a port"),
        "rename-command" => (2, "a master's name, a command and its new name"),
        "down-after-milliseconds"
        | "failover-timeout"
        | "master-reboot-down-after-period"
        | "primary-reboot-down-after-period" => (1, "a master's name and milliseconds"),
        "parallel-syncs" => (1, "a master's name and a number"),
        "notification-script" | "client-reconfig-script" => (1, "a master's name and a path"),
        "auth-pass" => (1, "a master's name and a password"),
        "auth-user" => (1, "a master's name and a user"),
        "config-epoch" | "leader-epoch" => (1, "a master's name and an epoch"),
        _ => return None,
    };
    Some(Shape { values, says })
}

fn setting_of_one(word: &str, value: &Word, out: &mut Collector<'_>) -> Option<Setting> {
    let most = limits::SENTINEL_TIME_MS_MAX;
    match word {
        "down-after-milliseconds" => {
            number(value, 1, most, "milliseconds", out).map(Setting::DownAfter)
        }
        "failover-timeout" => {
            number(value, 1, most, "milliseconds", out).map(Setting::FailoverTimeout)
        }
        "master-reboot-down-after-period" | "primary-reboot-down-after-period" => {
            number(value, 0, most, "milliseconds", out).map(Setting::RebootDownAfter)
        }
        "parallel-syncs" => {
            positive(value, "a number", out).map(|count| Setting::ParallelSyncs(count.get()))
        }
        "notification-script" => Some(Setting::NotificationScript(value.text.clone())),
        "client-reconfig-script" => Some(Setting::ClientReconfigScript(value.text.clone())),
        "auth-pass" => Some(Setting::AuthPass(Secret(value.text.clone()))),
        "auth-user" => Some(Setting::AuthUser(value.text.clone())),
        "config-epoch" => epoch(value, out).map(Setting::ConfigEpoch),
        "leader-epoch" => epoch(value, out).map(Setting::LeaderEpoch),
        _ => None,
    }
}

fn report_count(line: &Line, word: &str, says: &str, out: &mut Collector<'_>) -> Found {
    let message = format!("\"sentinel {word}\" has the wrong number of values");
    out.report(out.error("bad-arguments", &line.span, message).expected(says));
    Found::Bad
}

fn run_id(word: &Word, out: &mut Collector<'_>) -> Option<RunId> {
    let id = RunId::parse(word.text.as_bytes());
    if id.is_none() {
        let message = format!("{} is not the ID of a Sentinel", quoted(&word.text));
        let error = out.error("bad-id", &word.span, message).expected("40 hexadecimal digits");
        out.report(error);
    }
    id
}

fn epoch(word: &Word, out: &mut Collector<'_>) -> Option<Epoch> {
    let epoch = Epoch::parse(word.text.as_bytes());
    if epoch.is_none() {
        let message = format!("{} is not an epoch", quoted(&word.text));
        let most = Epoch::MAX;
        let error = out.error("bad-number", &word.span, message);
        out.report(error.expected(format!("a whole number of 0 to {most}")));
    }
    epoch
}

fn yes_no(word: &Word, out: &mut Collector<'_>) -> Option<bool> {
    let value = match word.text.to_ascii_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    if value.is_none() {
        let message = format!("{} is neither yes nor no", quoted(&word.text));
        out.report(out.error("bad-value", &word.span, message).expected("\"yes\" or \"no\""));
    }
    value
}

pub(super) fn number(
    word: &Word,
    least: u64,
    most: u64,
    what: &str,
    out: &mut Collector<'_>,
) -> Option<u64> {
    let value =
        canonical_number(word.text.as_bytes()).filter(|value| (least..=most).contains(value));
    if value.is_none() {
        let message = format!("{} is out of range or no number", quoted(&word.text));
        let expected = format!("{what}: a whole number of {least} to {most}");
        out.report(out.error("bad-number", &word.span, message).expected(expected));
    }
    value
}

fn positive(word: &Word, what: &str, out: &mut Collector<'_>) -> Option<NonZeroU32> {
    let most = u64::from(limits::CONFIG_NUMBER_MAX);
    let value = number(word, 1, most, what, out)?;
    u32::try_from(value).ok().and_then(NonZeroU32::new)
}

fn announce_ip(word: &Word, out: &mut Collector<'_>) -> Option<String> {
    if word.text.is_empty() || Address::new(&word.text, 1).is_ok() {
        return Some(word.text.clone());
    }
    report_host(word, out);
    None
}

fn address(host: &Word, port: &Word, out: &mut Collector<'_>) -> Option<Address> {
    match Address::parse(host.text.as_bytes(), port.text.as_bytes()) {
        Ok(address) => Some(address),
        Err(AddressError::Host) => {
            report_host(host, out);
            None
        }
        Err(AddressError::Port) => {
            number(port, 1, u64::from(u16::MAX), "a port", out);
            None
        }
    }
}

fn report_host(word: &Word, out: &mut Collector<'_>) {
    let message = format!("{} is neither a name nor an address", quoted(&word.text));
    let expected = "a host name or an IP address, without commas and spaces";
    out.report(out.error("bad-host", &word.span, message).expected(expected));
}
