//! Addresses and routes of a virtual router, in the words of `ip`.

use std::net::IpAddr;
use std::ops::Range;

use super::super::diagnostic::quoted;
use super::grammar::{Statement, Word};
use super::model::{Peer, Route, VirtualAddress};
use super::reader::{Reader, block};

/// Words behind an address that take a value.
const WITH_VALUE: &[&str] =
    &["dev", "brd", "broadcast", "label", "scope", "peer", "preferred_lft", "track_group"];

/// Words behind an address that stand alone and ask for nothing that is done otherwise here.
const ALONE: &[&str] = &["home", "-nodad", "nodad", "mngtmpaddr", "autojoin", "use_vmac"];

/// Returns the kernel's number of a scope.
fn scope(text: &str) -> Option<u8> {
    match text {
        "global" | "universe" => Some(0),
        "site" => Some(200),
        "link" => Some(253),
        "host" => Some(254),
        "nowhere" => Some(255),
        _ => text.parse().ok(),
    }
}

/// Reads an address and the bits of its network, if it tells them.
fn network(text: &str) -> Option<(IpAddr, Option<u8>)> {
    let (text, prefix) = match text.split_once('/') {
        Some((text, prefix)) => (text, Some(prefix.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = text.parse().ok()?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    prefix.is_none_or(|prefix| prefix <= bits).then_some((address, prefix))
}

const fn host_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Reader<'_, '_> {
    /// Reads a list of addresses.
    pub(super) fn addresses(
        &mut self,
        statement: &Statement,
        out: &mut Vec<(VirtualAddress, Range<usize>)>,
    ) {
        for item in block(statement) {
            let word = &item.keyword;
            let Some((address, prefix)) = network(&word.text) else {
                let message = format!("{} is not an address, ignored", quoted(&word.text));
                self.warn("invalid-address", &word.span, message);
                continue;
            };
            if prefix.is_none() {
                let message = format!("{address} has no mask, the address alone is meant");
                self.warn("missing-mask", &word.span, message);
            }
            let prefix = prefix.unwrap_or_else(|| host_bits(address));
            let mut made = VirtualAddress {
                address,
                prefix,
                device: None,
                label: None,
                broadcast: None,
                scope: 0,
                is_untracked: false,
                has_no_prefix_route: false,
            };
            self.address_words(&item.arguments, &mut made);
            if out.iter().any(|(known, _)| known.address == address) {
                let message = format!("{address} is listed twice, once is enough");
                self.warn("duplicate-address", &word.span, message);
                continue;
            }
            out.push((made, word.span.clone()));
        }
    }

    fn address_words(&mut self, words: &[Word], made: &mut VirtualAddress) {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = if WITH_VALUE.contains(&word.text.as_str()) { words.next() } else { None };
            let text = value.map(|value| value.text.clone());
            match word.text.as_str() {
                "dev" => made.device = text,
                "label" => made.label = text,
                "brd" | "broadcast" => {
                    made.broadcast = match text.as_deref() {
                        Some("+" | "-") | None => None,
                        Some(_) => value.and_then(|value| self.address(value)),
                    };
                }
                "scope" => match text.as_deref().and_then(scope) {
                    Some(number) => made.scope = number,
                    None => self.warn("unknown-scope", &word.span, "unknown scope, ignored"),
                },
                "no_track" => made.is_untracked = true,
                "noprefixroute" => made.has_no_prefix_route = true,
                "peer" | "preferred_lft" | "track_group" => self.unused(word),
                other if ALONE.contains(&other) => {}
                _ => {
                    let known = WITH_VALUE.iter().chain(ALONE).copied();
                    self.unknown(word, known.chain(["no_track", "noprefixroute"]));
                }
            }
        }
    }

    /// Reads a list of routes.
    pub(super) fn routes(&mut self, statement: &Statement) -> Vec<Route> {
        let mut routes = Vec::new();
        for item in block(statement) {
            let words: Vec<&Word> = std::iter::once(&item.keyword).chain(&item.arguments).collect();
            if let Some(route) = self.route(&words) {
                routes.push(route);
            }
        }
        routes
    }

    fn route(&mut self, words: &[&Word]) -> Option<Route> {
        let mut route = Route {
            destination: (IpAddr::from([0, 0, 0, 0]), 0),
            via: None,
            device: None,
            source: None,
            metric: None,
            table: None,
            scope: None,
            is_onlink: false,
        };
        let (mut has_destination, mut is_default) = (false, false);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.text.as_str() {
                "default" => (has_destination, is_default) = (true, true),
                "to" | "inet" | "inet6" | "unicast" => {}
                "onlink" => route.is_onlink = true,
                "no_track" => {}
                "via" | "gw" => {
                    let value = words.next().filter(|word| !word.text.starts_with("inet"));
                    route.via = value.or_else(|| words.next()).and_then(|word| self.address(word));
                }
                "dev" | "oif" => route.device = words.next().map(|word| word.text.clone()),
                "src" => route.source = words.next().and_then(|word| self.address(word)),
                "metric" | "priority" | "preference" => {
                    route.metric = words.next().and_then(|word| word.text.parse().ok());
                }
                "table" => {
                    let name = words.next().map(|word| word.text.as_str());
                    route.table = match name {
                        Some("main") | None => None,
                        Some("local") => Some(255),
                        Some("default") => Some(253),
                        Some(number) => number.parse().ok(),
                    };
                }
                "scope" => route.scope = words.next().and_then(|word| scope(&word.text)),
                other => match network(other).filter(|_| !has_destination) {
                    Some((address, prefix)) => {
                        has_destination = true;
                        route.destination = (address, prefix.unwrap_or_else(|| host_bits(address)));
                    }
                    None => {
                        let message = format!(
                            "{} is not understood, the route is ignored",
                            quoted(&word.text)
                        );
                        self.warn("route-not-understood", &word.span, message);
                        return None;
                    }
                },
            }
        }
        if is_default && route.via.is_some_and(|via| via.is_ipv6()) {
            route.destination = (IpAddr::from([0_u16; 8]), 0);
        }
        has_destination.then_some(route)
    }

    /// Reads a list of peers.
    pub(super) fn peers(&mut self, statement: &Statement, out: &mut Vec<(Peer, Range<usize>)>) {
        for item in block(statement) {
            let Some(address) = self.address(&item.keyword) else { continue };
            let (mut low, mut high) = (0, u8::MAX);
            let mut words = item.arguments.iter();
            while let Some(word) = words.next() {
                let value = words.next().and_then(|value| value.text.parse().ok());
                match (word.text.as_str(), value) {
                    ("min_ttl", Some(value)) => low = value,
                    ("max_ttl", Some(value)) => high = value,
                    _ => self.unknown(word, ["min_ttl", "max_ttl"].into_iter()),
                }
            }
            out.push((Peer { address, ttl: low..=high }, item.keyword.span.clone()));
        }
    }
}
