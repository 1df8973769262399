//! Lines to a configuration.

use std::collections::BTreeMap;
use std::ops::Range;

use super::item::{Item, Key, Setting};
use super::line::{self, Content, LineError};
use super::{
    Config, KnownSentinel, Master, MasterName, Monitor, RenamedCommand, Secret, server, statement,
};
use crate::config::diagnostic::{Collector, quoted};
use crate::config::suggest;
use crate::limits;

/// A statement and its line.
struct Found {
    item: Item,
    span: Range<usize>,
}

/// Reads all lines. The order of the lines does not matter, except that of two that say the same
/// the last wins.
pub(super) fn read(text: &str, out: &mut Collector<'_>) -> Config {
    let mut config = Config::default();
    let mut found = Vec::new();
    for span in line::line_spans(text) {
        match line::read(text, span) {
            Content::Nothing => {}
            Content::Broken(LineError::Quotes(span)) => {
                let error = out
                    .error("unbalanced-quotes", &span, "the quotation marks do not match")
                    .expected("a closing quotation mark, and a space or nothing behind it");
                out.report(error);
            }
            Content::Broken(LineError::NotUtf8(span)) => {
                let message = "the escapes do not spell UTF-8 text";
                out.report(out.error("not-utf8", &span, message));
            }
            Content::Says(line) => {
                let is_ours =
                    line.words.first().is_some_and(|w| w.text.eq_ignore_ascii_case("sentinel"));
                if is_ours {
                    let item = statement::read(&line, out);
                    found.extend(item.map(|item| Found { item, span: line.span }));
                } else {
                    server::read(&line, &mut config.server, out);
                }
            }
        }
    }
    read_monitors(&found, &mut config, out);
    report_repeated(&found, out);
    let index: BTreeMap<MasterName, usize> =
        config.masters.iter().enumerate().map(|(at, master)| (master.name.clone(), at)).collect();
    for Found { item, span } in found {
        apply(item, &span, &mut config, &index, out);
    }
    config
}

fn read_monitors(found: &[Found], config: &mut Config, out: &mut Collector<'_>) {
    let mut first: BTreeMap<&MasterName, &Range<usize>> = BTreeMap::new();
    for Found { item, span } in found {
        let Item::Of(name, Setting::Monitor(monitor)) = item else { continue };
        if let Some(before) = first.get(name) {
            let message = format!("the master {} is here a second time", quoted(name.as_str()));
            let before = out.place(before);
            let error = out.error("duplicate-master", span, message);
            out.report(error.related(before, "first here"));
            continue;
        }
        first.insert(name, span);
        if config.masters.len() == limits::MASTERS_MAX {
            report_too_many("masters", limits::MASTERS_MAX, span, out);
            return;
        }
        config.masters.push(Master::new(name.clone(), monitor.clone()));
    }
}

/// Warns of lines that a later one overrides. Lists are no settings: there it is an error.
#[expect(clippy::wildcard_enum_match_arm, reason = "all that is not named is a setting")]
fn report_repeated(found: &[Found], out: &mut Collector<'_>) {
    let mut first: BTreeMap<Key, &Range<usize>> = BTreeMap::new();
    for Found { item, span } in found {
        let key = item.key();
        let Some(before) = first.insert(key, span) else { continue };
        let (code, message) = match item {
            // Reported already; and of epochs the largest counts.
            Item::Of(_, Setting::Monitor(_)) | Item::CurrentEpoch(_) => continue,
            Item::Of(_, Setting::KnownReplica(address)) => {
                ("duplicate-replica", format!("the replica {address} is here a second time"))
            }
            Item::Of(_, Setting::KnownSentinel(peer)) => (
                "duplicate-sentinel",
                format!("the Sentinel {} is here a second time", peer.run_id),
            ),
            _ => {
                let message = format!("\"sentinel {}\" is here a second time", item.word());
                let before = out.place(before);
                let warning = out.warning("repeated-directive", span, message);
                out.report(warning.related(before, "this one has no effect"));
                continue;
            }
        };
        let before = out.place(before);
        let error = out.error(code, span, message);
        out.report(error.related(before, "first here"));
    }
}

fn apply(
    item: Item,
    span: &Range<usize>,
    config: &mut Config,
    index: &BTreeMap<MasterName, usize>,
    out: &mut Collector<'_>,
) {
    let some_text = |text: String| (!text.is_empty()).then_some(text);
    let some_secret = |secret: Secret| (!secret.expose().is_empty()).then_some(secret);
    match item {
        Item::MyId(id) => config.myid = Some(id),
        // The largest counts, so that no line can take an election back.
        Item::CurrentEpoch(epoch) => config.current_epoch = config.current_epoch.max(epoch),
        Item::DenyScriptsReconfig(value) => config.deny_scripts_reconfig = value,
        Item::ResolveHostnames(value) => config.resolve_hostnames = value,
        Item::AnnounceHostnames(value) => config.announce_hostnames = value,
        Item::AnnounceIp(ip) => config.announce_ip = some_text(ip),
        Item::AnnouncePort(port) => config.announce_port = (port != 0).then_some(port),
        Item::SentinelUser(user) => config.sentinel_user = some_text(user),
        Item::SentinelPass(secret) => config.sentinel_pass = some_secret(secret),
        Item::Of(name, setting) => {
            let master = index.get(&name).and_then(|at| config.masters.get_mut(*at));
            match master {
                Some(master) => set(master, setting, span, out),
                // More masters than there may be have been reported.
                None if index.len() == limits::MASTERS_MAX => {}
                None => {
                    let message = format!("no master is called {}", quoted(name.as_str()));
                    let error = out.error("unknown-master", span, message);
                    let names = index.keys().map(MasterName::as_str);
                    out.report(error.did_you_mean(suggest::nearest(name.as_str(), names)));
                }
            }
        }
    }
}

fn set(master: &mut Master, setting: Setting, span: &Range<usize>, out: &mut Collector<'_>) {
    let some_text = |text: String| (!text.is_empty()).then_some(text);
    match setting {
        Setting::Monitor(_) => {}
        Setting::DownAfter(ms) => master.down_after_ms = ms,
        Setting::FailoverTimeout(ms) => master.failover_timeout_ms = ms,
        Setting::ParallelSyncs(count) => {
            master.parallel_syncs =
                std::num::NonZeroU32::new(count).unwrap_or(master.parallel_syncs);
        }
        Setting::NotificationScript(path) => master.notification_script = some_text(path),
        Setting::ClientReconfigScript(path) => master.client_reconfig_script = some_text(path),
        Setting::AuthPass(secret) => {
            master.auth_pass = (!secret.expose().is_empty()).then_some(secret);
        }
        Setting::AuthUser(user) => master.auth_user = some_text(user),
        Setting::RebootDownAfter(ms) => master.reboot_down_after_ms = ms,
        Setting::ConfigEpoch(epoch) => master.config_epoch = epoch,
        Setting::LeaderEpoch(epoch) => master.leader_epoch = epoch,
        Setting::KnownReplica(address) => {
            if master.known_replicas.len() == limits::REPLICAS_PER_MASTER_MAX {
                report_too_many("replicas", limits::REPLICAS_PER_MASTER_MAX, span, out);
            } else {
                master.known_replicas.push(address);
            }
        }
        Setting::KnownSentinel(peer) => {
            if master.known_sentinels.len() == limits::PEERS_PER_MASTER_MAX {
                report_too_many("Sentinels", limits::PEERS_PER_MASTER_MAX, span, out);
            } else {
                master.known_sentinels.push(peer);
            }
        }
        Setting::RenameCommand(renamed) => {
            master.renamed_commands.retain(|old| !old.from.eq_ignore_ascii_case(&renamed.from));
            master.renamed_commands.push(renamed);
        }
    }
}

fn report_too_many(what: &str, most: usize, span: &Range<usize>, out: &mut Collector<'_>) {
    let message = format!("more than {most} {what}");
    out.report(out.error("too-many", span, message));
}

/// Returns the lines that say what the configuration says, in the order of genuine Sentinels.
pub(super) fn items(config: &Config) -> Vec<Item> {
    let mut items = Vec::new();
    items.extend(config.myid.map(Item::MyId));
    items.push(Item::DenyScriptsReconfig(config.deny_scripts_reconfig));
    items.push(Item::ResolveHostnames(config.resolve_hostnames));
    items.push(Item::AnnounceHostnames(config.announce_hostnames));
    for master in &config.masters {
        let settings = settings(master);
        items.extend(settings.into_iter().map(|setting| Item::Of(master.name.clone(), setting)));
    }
    items.push(Item::CurrentEpoch(config.current_epoch));
    items.extend(config.announce_ip.clone().map(Item::AnnounceIp));
    items.extend(config.announce_port.map(Item::AnnouncePort));
    items.extend(config.sentinel_user.clone().map(Item::SentinelUser));
    items.extend(config.sentinel_pass.clone().map(Item::SentinelPass));
    items
}

fn settings(master: &Master) -> Vec<Setting> {
    let Master {
        name: _,
        monitor: Monitor { address, quorum },
        down_after_ms,
        failover_timeout_ms,
        parallel_syncs,
        notification_script,
        client_reconfig_script,
        auth_pass,
        auth_user,
        reboot_down_after_ms,
        config_epoch,
        leader_epoch,
        known_replicas,
        known_sentinels,
        renamed_commands,
    } = master;
    let mut settings = vec![
        Setting::Monitor(Monitor { address: address.clone(), quorum: *quorum }),
        Setting::DownAfter(*down_after_ms),
        Setting::FailoverTimeout(*failover_timeout_ms),
        Setting::ParallelSyncs(parallel_syncs.get()),
    ];
    settings.extend(notification_script.clone().map(Setting::NotificationScript));
    settings.extend(client_reconfig_script.clone().map(Setting::ClientReconfigScript));
    settings.extend(auth_pass.clone().map(Setting::AuthPass));
    settings.extend(auth_user.clone().map(Setting::AuthUser));
    settings.push(Setting::RebootDownAfter(*reboot_down_after_ms));
    settings.push(Setting::ConfigEpoch(*config_epoch));
    settings.push(Setting::LeaderEpoch(*leader_epoch));
    settings.extend(known_replicas.iter().cloned().map(Setting::KnownReplica));
    let peers = known_sentinels.iter().map(KnownSentinel::clone);
    settings.extend(peers.map(Setting::KnownSentinel));
    let renamed = renamed_commands.iter().map(RenamedCommand::clone);
    settings.extend(renamed.map(Setting::RenameCommand));
    settings
}
