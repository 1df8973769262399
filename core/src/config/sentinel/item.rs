//! What one `sentinel …` line says, read and written.

use std::fmt;

use super::line::{push_quoted, push_word};
use super::value::{Address, Epoch, MasterName, RunId};
use super::{KnownSentinel, Monitor, RenamedCommand, Secret};

/// A `sentinel …` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    MyId(RunId),
    CurrentEpoch(Epoch),
    DenyScriptsReconfig(bool),
    ResolveHostnames(bool),
    AnnounceHostnames(bool),
    AnnounceIp(String),
    AnnouncePort(u16),
    SentinelUser(String),
    SentinelPass(Secret),
    /// About one master.
    Of(MasterName, Setting),
}

/// What a line says about one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    Monitor(Monitor),
    DownAfter(u64),
    FailoverTimeout(u64),
    ParallelSyncs(u32),
    NotificationScript(String),
    ClientReconfigScript(String),
    AuthPass(Secret),
    AuthUser(String),
    RebootDownAfter(u64),
    ConfigEpoch(Epoch),
    LeaderEpoch(Epoch),
    KnownReplica(Address),
    KnownSentinel(KnownSentinel),
    RenameCommand(RenamedCommand),
}

/// The words behind `sentinel`, for suggestions.
pub(super) const WORDS: [&str; 24] = [
    "myid",
    "current-epoch",
    "deny-scripts-reconfig",
    "resolve-hostnames",
    "announce-hostnames",
    "announce-ip",
    "announce-port",
    "sentinel-user",
    "sentinel-pass",
    "monitor",
    "down-after-milliseconds",
    "failover-timeout",
    "parallel-syncs",
    "notification-script",
    "client-reconfig-script",
    "auth-pass",
    "auth-user",
    "master-reboot-down-after-period",
    "config-epoch",
    "leader-epoch",
    "known-replica",
    "known-slave",
    "known-sentinel",
    "rename-command",
];

/// What two lines have in common that say the same thing with different values: the word, the
/// master, and what of it.
pub(super) type Key<'a> = (&'static str, Option<&'a MasterName>, OfWhat<'a>);

/// Which entry of a list a line is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OfWhat<'a> {
    /// There is but one.
    Single,
    Replica(&'a Address),
    Peer(&'a RunId),
    Command(String),
}

impl Item {
    /// Returns the word behind `sentinel` as it is written.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::MyId(_) => "myid",
            Self::CurrentEpoch(_) => "current-epoch",
            Self::DenyScriptsReconfig(_) => "deny-scripts-reconfig",
            Self::ResolveHostnames(_) => "resolve-hostnames",
            Self::AnnounceHostnames(_) => "announce-hostnames",
            Self::AnnounceIp(_) => "announce-ip",
            Self::AnnouncePort(_) => "announce-port",
            Self::SentinelUser(_) => "sentinel-user",
            Self::SentinelPass(_) => "sentinel-pass",
            Self::Of(_, setting) => setting.word(),
        }
    }

    /// Returns whom it is about; none for the Sentinel itself.
    pub(super) const fn master(&self) -> Option<&MasterName> {
        match self {
            Self::Of(name, _) => Some(name),
            Self::MyId(_)
            | Self::CurrentEpoch(_)
            | Self::DenyScriptsReconfig(_)
            | Self::ResolveHostnames(_)
            | Self::AnnounceHostnames(_)
            | Self::AnnounceIp(_)
            | Self::AnnouncePort(_)
            | Self::SentinelUser(_)
            | Self::SentinelPass(_) => None,
        }
    }

    /// Returns what it says something about.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all that is not named is no list")]
    pub(super) fn key(&self) -> Key<'_> {
        let of_what = match self {
            Self::Of(_, Setting::KnownReplica(address)) => OfWhat::Replica(address),
            Self::Of(_, Setting::KnownSentinel(peer)) => OfWhat::Peer(&peer.run_id),
            Self::Of(_, Setting::RenameCommand(renamed)) => {
                OfWhat::Command(renamed.from.to_ascii_lowercase())
            }
            _ => OfWhat::Single,
        };
        (self.word(), self.master(), of_what)
    }

    /// Whether it only says what holds without it. The writer adds no such line.
    pub(super) fn is_default(&self) -> bool {
        match self {
            Self::DenyScriptsReconfig(value) => *value,
            Self::ResolveHostnames(value) | Self::AnnounceHostnames(value) => !value,
            Self::AnnouncePort(port) => *port == 0,
            Self::AnnounceIp(text) | Self::SentinelUser(text) => text.is_empty(),
            Self::SentinelPass(secret) => secret.expose().is_empty(),
            Self::MyId(_) | Self::CurrentEpoch(_) => false,
            Self::Of(_, setting) => setting.is_default(),
        }
    }
}

impl Setting {
    const fn word(&self) -> &'static str {
        match self {
            Self::Monitor(_) => "monitor",
            Self::DownAfter(_) => "down-after-milliseconds",
            Self::FailoverTimeout(_) => "failover-timeout",
            Self::ParallelSyncs(_) => "parallel-syncs",
            Self::NotificationScript(_) => "notification-script",
            Self::ClientReconfigScript(_) => "client-reconfig-script",
            Self::AuthPass(_) => "auth-pass",
            Self::AuthUser(_) => "auth-user",
            Self::RebootDownAfter(_) => "master-reboot-down-after-period",
            Self::ConfigEpoch(_) => "config-epoch",
            Self::LeaderEpoch(_) => "leader-epoch",
            Self::KnownReplica(_) => "known-replica",
            Self::KnownSentinel(_) => "known-sentinel",
            Self::RenameCommand(_) => "rename-command",
        }
    }

    const fn is_default(&self) -> bool {
        match self {
            Self::DownAfter(ms) => *ms == super::DOWN_AFTER_MS_DEFAULT,
            Self::FailoverTimeout(ms) => *ms == super::FAILOVER_TIMEOUT_MS_DEFAULT,
            Self::ParallelSyncs(count) => *count == 1,
            Self::RebootDownAfter(ms) => *ms == 0,
            Self::Monitor(_)
            | Self::NotificationScript(_)
            | Self::ClientReconfigScript(_)
            | Self::AuthPass(_)
            | Self::AuthUser(_)
            | Self::ConfigEpoch(_)
            | Self::LeaderEpoch(_)
            | Self::KnownReplica(_)
            | Self::KnownSentinel(_)
            | Self::RenameCommand(_) => false,
        }
    }
}

/// The line, as a genuine Sentinel writes and reads it.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("sentinel {} ", self.word());
        match self {
            Self::MyId(id) => line.push_str(id.as_str()),
            Self::CurrentEpoch(epoch) => line.push_str(&epoch.to_string()),
            Self::DenyScriptsReconfig(value)
            | Self::ResolveHostnames(value)
            | Self::AnnounceHostnames(value) => line.push_str(if *value { "yes" } else { "no" }),
            // In quotes whatever it is, as genuine Sentinels have it.
            Self::AnnounceIp(ip) => push_quoted(&mut line, ip),
            Self::AnnouncePort(port) => line.push_str(&port.to_string()),
            Self::SentinelUser(user) => push_word(&mut line, user),
            Self::SentinelPass(secret) => push_word(&mut line, secret.expose()),
            Self::Of(name, setting) => {
                push_word(&mut line, name.as_str());
                line.push(' ');
                push_setting(&mut line, setting);
            }
        }
        f.write_str(&line)
    }
}

fn push_setting(line: &mut String, setting: &Setting) {
    match setting {
        Setting::Monitor(Monitor { address, quorum }) => {
            push_address(line, address);
            line.push(' ');
            line.push_str(&quorum.to_string());
        }
        Setting::DownAfter(ms) | Setting::FailoverTimeout(ms) | Setting::RebootDownAfter(ms) => {
            line.push_str(&ms.to_string());
        }
        Setting::ParallelSyncs(count) => line.push_str(&count.to_string()),
        Setting::NotificationScript(text)
        | Setting::ClientReconfigScript(text)
        | Setting::AuthUser(text) => push_word(line, text),
        Setting::AuthPass(secret) => push_word(line, secret.expose()),
        Setting::ConfigEpoch(epoch) | Setting::LeaderEpoch(epoch) => {
            line.push_str(&epoch.to_string());
        }
        Setting::KnownReplica(address) => push_address(line, address),
        Setting::KnownSentinel(peer) => {
            push_address(line, &peer.address);
            line.push(' ');
            line.push_str(peer.run_id.as_str());
        }
        Setting::RenameCommand(renamed) => {
            push_word(line, &renamed.from);
            line.push(' ');
            push_word(line, &renamed.to);
        }
    }
}

fn push_address(line: &mut String, address: &Address) {
    push_word(line, address.host());
    line.push(' ');
    line.push_str(&address.port().to_string());
}
