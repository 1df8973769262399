//! Which server a client had.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::service::ServerKey;
use crate::config::keepalived::Persistence;
use crate::limits;
use crate::time::Instant;

/// A client's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    server: ServerKey,
    /// Its connections.
    open: u32,
    /// When it is forgotten, unless it has connections then.
    until: Instant,
}

/// Clients and their servers.
#[derive(Debug)]
pub struct Persistent {
    rule: Persistence,
    entries: BTreeMap<IpAddr, Entry>,
    /// The same by their ends, the nearest first.
    order: BTreeSet<(Instant, IpAddr)>,
}

impl Persistent {
    /// Makes an empty table.
    pub const fn new(rule: Persistence) -> Self {
        Self { rule, entries: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Changes the rule; clients stay where they are.
    pub const fn set_rule(&mut self, rule: Persistence) {
        self.rule = rule;
    }

    /// Returns what of a client's address counts.
    pub fn mask(&self, ip: IpAddr) -> IpAddr {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let gone = 32_u32.saturating_sub(u32::from(self.rule.bits_v4));
                let mask = u32::MAX.checked_shl(gone).unwrap_or(0);
                std::net::Ipv4Addr::from_bits(ip.to_bits() & mask).into()
            }
            IpAddr::V6(ip) => {
                let gone = 128_u32.saturating_sub(u32::from(self.rule.bits_v6));
                let mask = u128::MAX.checked_shl(gone).unwrap_or(0);
                std::net::Ipv6Addr::from_bits(ip.to_bits() & mask).into()
            }
        }
    }

    /// Returns the server that a client had.
    pub fn find(&self, now: Instant, client: IpAddr) -> Option<ServerKey> {
        let entry = self.entries.get(&self.mask(client))?;
        (entry.open > 0 || entry.until > now).then_some(entry.server)
    }

    /// Notes that a client has one more connection, to this server.
    pub fn opened(&mut self, now: Instant, client: IpAddr, server: ServerKey) {
        let client = self.mask(client);
        let until = now + self.rule.timeout;
        let known = self.entries.get(&client).copied();
        if let Some(known) = known {
            self.order.remove(&(known.until, client));
        } else if self.entries.len() >= limits::PERSISTENT_CLIENTS_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
        let open = known.filter(|entry| entry.server == server).map_or(0, |entry| entry.open);
        self.entries.insert(client, Entry { server, open: open + 1, until });
        self.order.insert((until, client));
    }

    /// Notes that a client has one connection less to a server.
    pub fn closed(&mut self, now: Instant, client: IpAddr, server: ServerKey) {
        let client = self.mask(client);
        let timeout = self.rule.timeout;
        let Some(entry) = self.entries.get_mut(&client) else { return };
        // It may have moved to another server meanwhile.
        if entry.server != server {
            return;
        }
        self.order.remove(&(entry.until, client));
        entry.open = entry.open.saturating_sub(1);
        entry.until = now + timeout;
        self.order.insert((entry.until, client));
    }

    /// Forgets everybody who had a server.
    pub fn forget(&mut self, server: ServerKey) {
        self.entries.retain(|_, entry| entry.server != server);
        let entries = &self.entries;
        self.order.retain(|(_, client)| entries.contains_key(client));
    }

    /// Returns how many clients are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tells whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    fn table(bits_v4: u8) -> Persistent {
        let timeout = Duration::from_secs(50);
        Persistent::new(Persistence { timeout, bits_v4, bits_v6: 64 })
    }

    #[test]
    fn a_client_is_known_until_so_long_after_its_last_connection() {
        let client = IpAddr::from([10, 0, 0, 1]);
        let server = ServerKey(3);
        let mut table = table(32);
        assert_eq!(table.find(at(0), client), None);
        table.opened(at(0), client, server);
        assert_eq!(table.find(at(1000), client), Some(server), "it is still connected");
        table.closed(at(1000), client, server);
        assert_eq!(table.find(at(1049), client), Some(server));
        assert_eq!(table.find(at(1050), client), None);
        assert_eq!(table.find(at(1), IpAddr::from([10, 0, 0, 2])), None);
    }

    #[test]
    fn neighbours_share_a_server_as_far_as_the_mask_says() {
        let mut table = table(24);
        table.opened(at(0), IpAddr::from([10, 0, 0, 1]), ServerKey(1));
        assert_eq!(table.find(at(1), IpAddr::from([10, 0, 0, 99])), Some(ServerKey(1)));
        assert_eq!(table.find(at(1), "::ffff:10.0.0.7".parse().unwrap()), Some(ServerKey(1)));
        assert_eq!(table.find(at(1), IpAddr::from([10, 0, 1, 1])), None);
        table.opened(at(0), "2001:db8::1".parse().unwrap(), ServerKey(2));
        assert_eq!(table.find(at(1), "2001:db8::2".parse().unwrap()), Some(ServerKey(2)));
        assert_eq!(table.find(at(1), "2001:db8:0:1::2".parse().unwrap()), None);
        table.forget(ServerKey(2));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_full_table_forgets_whom_it_has_not_seen_for_longest() {
        let mut table = table(32);
        let client = |number: usize| {
            IpAddr::from(std::net::Ipv4Addr::from_bits(u32::try_from(number).unwrap()))
        };
        for number in 0..limits::PERSISTENT_CLIENTS_MAX {
            table.opened(Instant::from_nanos(number as u64), client(number), ServerKey(0));
        }
        table.opened(at(1), client(0), ServerKey(0));
        table.opened(at(2), client(limits::PERSISTENT_CLIENTS_MAX), ServerKey(0));
        assert_eq!(table.len(), limits::PERSISTENT_CLIENTS_MAX);
        assert_eq!(table.find(at(3), client(1)), None);
        assert_eq!(table.find(at(3), client(0)), Some(ServerKey(0)));
    }
}
