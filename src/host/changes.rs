//! What is said of a configuration that was read again.

use ringkeeper_core::config::native::Settings;
use ringkeeper_core::config::nutcracker::Config;

/// Pools that are named when the configuration changes; of more the number is told.
const NAMES_SAID: usize = 10;

/// Says which changes wait for the next start.
pub(super) fn for_the_next_start(at_start: &Settings, new: &Settings) -> Option<String> {
    let changed = [
        ("threads", at_start.threads != new.threads),
        ("runtime", at_start.runtime != new.runtime),
        ("control", at_start.control != new.control),
        ("admin", at_start.admin != new.admin),
        ("stats", at_start.stats != new.stats),
        ("figures", at_start.figures != new.figures),
        ("log", at_start.log != new.log),
        ("sentinel", at_start.sentinel != new.sentinel),
    ];
    let keys: Vec<&str> =
        changed.iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| *key).collect();
    (!keys.is_empty()).then(|| format!("to be used at the next start: {}", keys.join(", ")))
}

/// Says how two configurations differ, by the names of pools.
pub(super) fn differences(before: &Config, after: &Config) -> String {
    let find =
        |config: &Config, name: &str| config.pools.iter().find(|pool| pool.name == name).cloned();
    let names = |mut names: Vec<&str>| {
        let more = names.len().saturating_sub(NAMES_SAID);
        names.truncate(NAMES_SAID);
        let mut text = names.join(", ");
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
        text
    };
    let mut parts = Vec::new();
    let added: Vec<&str> = (after.pools.iter().map(|pool| pool.name.as_str()))
        .filter(|name| find(before, name).is_none())
        .collect();
    let removed: Vec<&str> = (before.pools.iter().map(|pool| pool.name.as_str()))
        .filter(|name| find(after, name).is_none())
        .collect();
    let changed: Vec<&str> = (after.pools.iter())
        .filter(|pool| find(before, &pool.name).is_some_and(|old| old != **pool))
        .map(|pool| pool.name.as_str())
        .collect();
    for (what, list) in [("added", added), ("changed", changed), ("removed", removed)] {
        if !list.is_empty() {
            parts.push(format!("{what} {}", names(list)));
        }
    }
    if parts.is_empty() { "nothing has changed".to_owned() } else { parts.join("; ") }
}
