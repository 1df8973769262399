//! Rules of iptables that take clients of a virtual address elsewhere, before any socket is asked.
//!
//! A REDIRECT leads to this host's own address. If a pool listens on that port all is well. If not,
//! nothing can be done about it from here: whoever listens there, a Redis server perhaps, gets the
//! clients. So it is told, with the command that removes the rule.
#![cfg(target_os = "linux")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use ringkeeper_core::config::keepalived::VirtualServer;
use ringkeeper_core::config::nutcracker::Config;

use crate::host::direct::place;
use crate::host::sys;

/// Prints all rules. Without a table's name it loads none that is not there.
const PROGRAM: &str = "iptables-save";

/// What is to be looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redirects {
    /// Where clients come in.
    virtual_addresses: Vec<SocketAddr>,
    /// Where pools listen.
    pools: Vec<SocketAddr>,
}

/// A rule that leads past all pools.
#[derive(Debug, PartialEq, Eq)]
struct Astray {
    at: SocketAddr,
    port: u16,
    /// As it was added, without the command.
    rule: String,
}

impl Redirects {
    /// Notes what to look at.
    pub(crate) fn new(services: &[VirtualServer], pools: &Config) -> Self {
        let addresses = services.iter().flat_map(|service| &service.listen).copied();
        Self {
            virtual_addresses: addresses.filter(SocketAddr::is_ipv4).collect(),
            pools: pools.pools.iter().filter_map(place).collect(),
        }
    }

    /// Looks, on a thread of its own, and tells what it finds. Where there is no iptables, or rules
    /// may not be read, nothing is told.
    pub(crate) fn look(&self) {
        if self.virtual_addresses.is_empty() {
            return;
        }
        let redirects = self.clone();
        let look = move || {
            let mut command = Command::new(PROGRAM);
            sys::unblock_in(&mut command);
            let Ok(output) = command.stdin(Stdio::null()).output() else { return };
            for Astray { at, port, rule } in
                redirects.astray(&String::from_utf8_lossy(&output.stdout))
            {
                tracing::warn!(
                    "clients of {at} do not come to a pool: a rule of iptables takes them to port \
                     {port} of this host's own address; remove it: iptables -t nat -D {rule}"
                );
            }
        };
        // Without a thread nothing is told.
        let _ = std::thread::Builder::new().name("rk-redirect".to_owned()).spawn(look);
    }

    /// Finds the rules that lead past all pools.
    fn astray(&self, saved: &str) -> Vec<Astray> {
        let nat = saved.split("*nat").nth(1).unwrap_or_default();
        let rules = nat.lines().take_while(|line| *line != "COMMIT");
        let rules: Vec<&str> = rules.filter_map(|line| line.strip_prefix("-A ")).collect();
        let mut found = Vec::new();
        for &at in &self.virtual_addresses {
            for rule in &rules {
                if let Some(port) = target(rule, at)
                    && !self.pools.iter().any(|pool| is_reached(*pool, port))
                {
                    found.push(Astray { at, port, rule: (*rule).to_owned() });
                }
            }
        }
        found
    }
}

/// Tells whether a redirect to a port leads to who listens here.
fn is_reached(pool: SocketAddr, port: u16) -> bool {
    pool.port() == port && !pool.ip().is_loopback()
}

/// Returns the port to which a rule takes clients of an address; none if it does not concern them.
fn target(rule: &str, at: SocketAddr) -> Option<u16> {
    let mut words = rule.split(' ');
    let (mut is_redirect, mut port) = (false, at.port());
    while let Some(word) = words.next() {
        match word {
            // Whom it does not concern is too much to find out for a warning.
            "!" => return None,
            "-d" if !covers(words.next()?, at.ip()) => return None,
            "-p" if !matches!(words.next()?, "tcp" | "all") => return None,
            "--dport" | "--dports" if !has_port(words.next()?, at.port()) => return None,
            "-j" => is_redirect = words.next()? == "REDIRECT",
            "--to-ports" => port = words.next()?.split('-').next()?.parse().ok()?,
            _ => {}
        }
    }
    is_redirect.then_some(port)
}

/// Tells whether `10.0.0.0/8` or `10.1.2.3` has an address.
fn covers(net: &str, address: IpAddr) -> bool {
    let (base, bits) = net.split_once('/').unwrap_or((net, "32"));
    let (Ok(base), Ok(bits), IpAddr::V4(address)) =
        (base.parse::<Ipv4Addr>(), bits.parse::<u32>(), address)
    else {
        return false;
    };
    let mask = u32::MAX.checked_shl(32u32.saturating_sub(bits)).unwrap_or(0);
    base.to_bits() & mask == address.to_bits() & mask
}

/// Tells whether `80`, `80:90` or `80,443` has a port.
fn has_port(list: &str, port: u16) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once(':').unwrap_or((part, part));
        matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last))
            if (first..=last).contains(&port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "PREROUTING -d 192.168.223.136/32 -p tcp -m tcp --dport 6379 -j REDIRECT";

    const NONE: [u16; 0] = [];

    fn astray(pool: &str, rules: &[&str]) -> Vec<u16> {
        let redirects = Redirects {
            virtual_addresses: vec!["192.168.223.136:6379".parse().unwrap()],
            pools: vec![pool.parse().unwrap()],
        };
        let rules: String = rules.iter().map(|rule| format!("-A {rule}\n")).collect();
        let saved = format!(
            "*filter\n-A {RULE}\nCOMMIT\n# a comment\n*nat\n:PREROUTING ACCEPT [0:0]\n{rules}COMMIT\n"
        );
        let found = redirects.astray(&saved);
        assert!(found.iter().all(|one| rules.contains(&one.rule)));
        found.into_iter().map(|one| one.port).collect()
    }

    #[test]
    fn a_redirect_past_the_pools_is_found() {
        assert_eq!(astray("0.0.0.0:22121", &[RULE]), [6379]);
        assert_eq!(astray("127.0.0.1:6379", &[RULE]), [6379]);
        let wide = "PREROUTING -d 192.168.0.0/16 -i eth0 -p tcp -m multiport --dports 80,6000:7000 \
                    -j REDIRECT --to-ports 22122";
        assert_eq!(astray("0.0.0.0:22121", &[wide]), [22122]);
    }

    #[test]
    fn a_redirect_to_a_pool_or_of_others_is_none() {
        let to_the_pool = format!("{RULE} --to-ports 22121");
        assert_eq!(astray("0.0.0.0:22121", &[&to_the_pool]), NONE);
        assert_eq!(astray("0.0.0.0:6379", &[RULE]), NONE);
        let others = [
            "PREROUTING -d 192.168.223.137/32 -p tcp -m tcp --dport 6379 -j REDIRECT",
            "PREROUTING -d 192.168.223.136/32 -p tcp -m tcp --dport 6380 -j REDIRECT",
            "PREROUTING -d 192.168.223.136/32 -p udp -m udp --dport 6379 -j REDIRECT",
            "PREROUTING ! -d 10.0.0.1/32 -p tcp -m tcp --dport 6379 -j REDIRECT",
            "PREROUTING -d 192.168.223.136/32 -p tcp -m tcp --dport 6379 -j ACCEPT",
        ];
        assert_eq!(astray("0.0.0.0:22121", &others), NONE);
    }
}
