//! Which server of an old file is which master.

use super::super::nutcracker::{Address, Config};
use super::super::sentinel as conf;

/// Finds out which server is which master: the one at its address, or at that of a replica of it,
/// because the master may have moved since the pools were written down. A server's place on the
/// ring stays what it was.
pub fn attach(config: &mut Config, masters: &[conf::Master]) {
    let address_of = |address: &Address| match address {
        Address::Tcp(at) => conf::Address::new(&at.host, at.port).ok(),
        Address::Unix(_) => None,
    };
    for pool in config.pools.iter_mut().filter(|pool| pool.redis) {
        for server in pool.servers.iter_mut().filter(|server| server.shard.is_none()) {
            let Some(address) = address_of(&server.address) else { continue };
            let is_it = |master: &&conf::Master| master.monitor.address.is_same(&address);
            let was_it = |master: &&conf::Master| {
                master.known_replicas.iter().any(|replica| replica.is_same(&address))
            };
            let found = masters.iter().find(is_it).or_else(|| masters.iter().find(was_it));
            server.shard = found.map(|master| master.name.as_str().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::nutcracker;

    #[test]
    fn an_old_server_is_the_master_at_its_address_or_at_a_replicas() {
        let text = "alpha:\n  listen: 127.0.0.1:22121\n  redis: true\n  servers:\n    - \
                    192.168.223.128:6379:1\n    - 192.168.223.131:6379:1\n    - 10.0.0.9:6379:1\n";
        let sentinel = "sentinel monitor a 192.168.223.128 6379 2\nsentinel monitor b \
                        192.168.223.132 6379 2\nsentinel known-replica b 192.168.223.131 6379\n";
        let masters = conf::parse("s", sentinel).config.unwrap().masters;
        let mut config = nutcracker::parse("n", text).config.unwrap();
        attach(&mut config, &masters);
        let servers = config.pools.iter().flat_map(|pool| &pool.servers);
        let found: Vec<(&str, Option<&str>)> =
            servers.map(|one| (one.name.as_str(), one.shard.as_deref())).collect();
        let expected = [
            ("10.0.0.9:6379", None),
            ("192.168.223.128:6379", Some("a")),
            ("192.168.223.131:6379", Some("b")),
        ];
        assert_eq!(found, expected);
    }
}
