//! What is wrong with the files of several hosts together, though each is right by itself.
#![cfg(target_os = "linux")]

use ringkeeper_core::config::diagnostic::Diagnostic;
use ringkeeper_core::config::keepalived::{self as conf, Instance};
use ringkeeper_core::config::nutcracker::Config;
use ringkeeper_core::config::sentinel;

use crate::cli::together::about;

/// A file that has virtual routers.
pub(super) struct Routers {
    /// Its name.
    pub(super) name: String,
    /// What it says, to find places in.
    pub(super) text: String,
    /// What it means.
    pub(super) config: conf::Config,
}

/// Returns what does not fit between virtual routers of different files, each with the number of the
/// file that it is about. On which links interfaces of the same name are nobody knows; here they are
/// taken to be on one.
pub(super) fn judge_routers(files: &[Routers]) -> Vec<(usize, Diagnostic)> {
    let mut found = Vec::new();
    for (number, file) in files.iter().enumerate() {
        for one in &file.config.instances {
            for before in files.iter().take(number) {
                let others = before.config.instances.iter();
                let objections = others.filter_map(|other| objection(one, other, &before.name));
                found.extend(objections.map(|(code, message, hint)| {
                    (number, about(&file.text, &one.name, code, message, hint))
                }));
            }
        }
    }
    found
}

/// Tells why two routers cannot stand on one link.
fn objection(
    one: &Instance,
    other: &Instance,
    other_file: &str,
) -> Option<(&'static str, String, String)> {
    if one.family != other.family || one.interface != other.interface {
        return None;
    }
    let is_at = |router: &Instance, at| router.addresses.iter().any(|one| one.address == at);
    let shared = one.addresses.iter().map(|one| one.address).find(|at| is_at(other, *at));
    let (name, id) = (&one.name, one.vrid);
    let (other_name, other_id) = (&other.name, other.vrid);
    // Who only speaks to peers that are named disturbs nobody else.
    let meets = one.peers.is_empty() || other.peers.is_empty();
    match shared {
        None if id == other_id && meets => Some((
            "router-id-clash",
            format!(
                "the virtual router {name} has the number {id} of {other_name} in {other_file}, and \
                 none of its addresses: each takes the other's adverts for its own"
            ),
            "another number for one of them, the same on all hosts that share the addresses"
                .to_owned(),
        )),
        Some(address) if id != other_id => Some((
            "address-of-two-routers",
            format!(
                "the virtual router {name} has the address {address} and the number {id}; in \
                 {other_file} it is {other_name}'s, with the number {other_id}: two hosts will have \
                 the address"
            ),
            "the same number on all hosts that share an address".to_owned(),
        )),
        Some(_) if one.interval != other.interval => Some((
            "adverts-of-two-kinds",
            format!(
                "the virtual router {name} announces itself every {}, and {other_name} in \
                 {other_file} every {}",
                one.interval, other.interval
            ),
            "the same version and the same interval on all hosts".to_owned(),
        )),
        None | Some(_) => None,
    }
}

/// Returns what is wrong with promises of pools beside a Sentinel of another host, which reads a file
/// of its own that says nothing of them.
pub(super) fn judge_promises(
    text: &str,
    pools: &Config,
    voter: &sentinel::Config,
    voter_file: &str,
) -> Vec<Diagnostic> {
    let promised = pools.pools.iter().filter(|pool| pool.failover.replicated.is_some());
    let shards = promised.flat_map(|pool| pool.servers.iter().map(move |server| (pool, server)));
    let mut found = Vec::new();
    for (pool, server) in shards {
        let Some(shard) = server.shard.as_deref() else { continue };
        let is_voted_on = voter.masters.iter().any(|master| master.name.as_str() == shard);
        if !is_voted_on {
            continue;
        }
        let message = format!(
            "the pool {} promises that replicas have what was acknowledged, and a Sentinel that \
             reads {voter_file} votes about {shard} and does not know of it",
            pool.name
        );
        let hint = "\"mode: own\" on every host that votes".to_owned();
        found.push(about(text, "replicated", "promise-void", message, hint));
    }
    // One place in the text stands for all of them.
    found.truncate(1);
    found
}

#[cfg(test)]
mod tests {
    use ringkeeper_core::config::native;

    use super::*;

    fn routers(name: &str, id: u8, address: &str, interval: &str) -> Routers {
        let text = format!(
            "vrrp:\n  main:\n    interface: eth0\n    id: {id}\n    addresses: {address}\n    \
             interval: {interval}\n"
        );
        let parsed = native::parse(name, &text);
        let config = parsed.settings.vrrp.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        Routers { name: name.to_owned(), text, config }
    }

    fn codes(files: &[Routers]) -> Vec<(usize, &'static str, usize)> {
        let found = judge_routers(files);
        found.iter().map(|(file, one)| (*file, one.code, one.line)).collect()
    }

    #[test]
    fn routers_of_several_hosts_have_to_fit_together() {
        let first = || routers("a.yml", 51, "192.0.2.10/24", "1 s");
        let with = |other| codes(&[first(), first(), other]);
        assert_eq!(with(routers("c.yml", 52, "192.0.2.11/24", "1 s")), []);
        let clash = with(routers("c.yml", 51, "192.0.2.11/24", "1 s"));
        assert_eq!(clash, [(2, "router-id-clash", 2), (2, "router-id-clash", 2)]);
        let stolen = codes(&[first(), routers("b.yml", 52, "192.0.2.10/24", "1 s")]);
        assert_eq!(stolen, [(1, "address-of-two-routers", 2)]);
        let slow = codes(&[first(), routers("b.yml", 51, "192.0.2.10/24", "2 s")]);
        assert_eq!(slow, [(1, "adverts-of-two-kinds", 2)]);
    }

    #[test]
    fn a_voter_that_knows_nothing_of_a_promise_makes_it_void() {
        let text = "sentinel:\n  mode: own\n  hosts: [a, b, c]\npools:\n  p:\n    listen: h:1\n    \
                    replicated: 1\n    servers:\n      - {name: one, address: 'h:6379'}\n";
        let parsed = native::parse("n", text);
        let pools = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        let voter = |line: &str| sentinel::parse("s", line).config.unwrap();
        let found = |line: &str| judge_promises(text, &pools, &voter(line), "s.conf");
        let [one] = found("sentinel monitor one h 6379 2\n").try_into().unwrap();
        assert_eq!((one.code, one.line), ("promise-void", 7));
        assert_eq!(found("sentinel monitor two h 6380 2\n"), []);
    }
}
