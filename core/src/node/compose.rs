//! What the parts of one process want of each other, by their file: pools of the Sentinel beside
//! them, and the other way round.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::failover::Fence;
use crate::config::native::Own;
use crate::config::nutcracker::{Address, Config, HostPort, Pool};
use crate::config::sentinel::{self as conf, MasterName, PORT_DEFAULT, RunId};
use crate::sentinel::machine::{self, Keeping, NameBase, Process, Setup};

/// How long a promise holds that this host may write to a master, under `fence: strict`.
pub const LEASE: Duration = Duration::from_millis(200);

/// What pools ask of the Sentinel beside them.
#[derive(Clone, Debug)]
pub struct Asked {
    min_copies: BTreeMap<MasterName, u32>,
    fence: machine::Fence,
}

impl Asked {
    /// Returns what these pools ask.
    pub fn by(config: Option<&Config>) -> Self {
        let min_copies = config.map(copies).unwrap_or_default();
        Self { min_copies, fence: config.map_or(machine::Fence::Off, fence) }
    }

    /// Adds it to what the Sentinel begins with.
    #[must_use]
    pub fn put_into(&self, setup: Setup) -> Setup {
        Setup { min_copies: self.min_copies.clone(), fence: self.fence, ..setup }
    }
}

/// Returns on how many replicas the writes of each master are, as its pools promise.
fn copies(config: &Config) -> BTreeMap<MasterName, u32> {
    let mut copies = BTreeMap::new();
    for pool in &config.pools {
        let Some(promised) = pool.failover.replicated else { continue };
        let shards = pool.servers.iter().filter_map(|server| server.shard.as_deref());
        for name in shards.filter_map(MasterName::new) {
            let most: &mut u32 = copies.entry(name).or_default();
            *most = promised.get().max(*most);
        }
    }
    copies
}

/// Returns what the strictest of the pools with shards wants of the Sentinel: it has one word for
/// all of them.
fn fence(config: &Config) -> machine::Fence {
    let has_shard = |pool: &&Pool| pool.servers.iter().any(|server| server.shard.is_some());
    let wanted = config.pools.iter().filter(has_shard).map(|pool| pool.failover.fence);
    wanted.fold(machine::Fence::Off, |strictest, fence| match (strictest, fence) {
        (machine::Fence::Strict(_), _) | (_, Fence::Strict) => machine::Fence::Strict(LEASE),
        (machine::Fence::BestEffort, _) | (_, Fence::BestEffort) => machine::Fence::BestEffort,
        (machine::Fence::Off, Fence::Off) => machine::Fence::Off,
    })
}

/// Returns what a Sentinel beside pools begins with, before its state is read and before it knows
/// of its process; `config_file` is the file as the operator named it.
pub fn setup(own: &Own, config_file: String) -> Setup {
    Setup {
        config: own.config.clone(),
        keeping: Keeping::Beside { path: PathBuf::new(), text: String::new() },
        process: Process {
            run_id: RunId::from_random([0; 20]),
            id: 1,
            port: own.config.server.port.unwrap_or(PORT_DEFAULT),
            config_file,
            executable: String::new(),
            os: String::new(),
            unix_micros_at_start: 0,
        },
        fast_down: own.fast_down.clone(),
        min_copies: BTreeMap::new(),
        users: None,
        names: NameBase::default(),
        tells_workers: false,
        fence: machine::Fence::Off,
        records: Vec::new(),
    }
}

/// Returns where each master is, by name; those with host names are left out.
pub fn places(config: &conf::Config) -> BTreeMap<String, SocketAddr> {
    let place = |master: &conf::Master| {
        let address = &master.monitor.address;
        let ip: IpAddr = address.host().parse().ok()?;
        Some((master.name.as_str().to_owned(), SocketAddr::new(ip, address.port())))
    };
    config.masters.iter().filter_map(place).collect()
}

/// Puts the masters where they were last known to be, so that nothing is sent to a former one
/// before the first news.
pub fn settle(config: &mut Config, known: &BTreeMap<String, SocketAddr>) {
    for server in config.pools.iter_mut().flat_map(|pool| &mut pool.servers) {
        let place = server.shard.as_ref().and_then(|shard| known.get(shard));
        if let Some(place) = place {
            let (host, port) = (place.ip().to_string(), place.port());
            server.address = Address::Tcp(HostPort { host, port });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{native, nutcracker};

    #[test]
    fn masters_are_looked_for_where_they_were_last() {
        let text = "alpha:\n  listen: 127.0.0.1:22121\n  redis: true\n  servers:\n    - \
                    192.168.223.131:6379:1\n";
        let sentinel = "sentinel monitor b 192.168.223.132 6379 2\nsentinel monitor c db 6379 2\n\
                        sentinel known-replica b 192.168.223.131 6379\n";
        let masters = conf::parse("s", sentinel).config.unwrap();
        let mut config = nutcracker::parse("n", text).config.unwrap();
        native::attach(&mut config, &masters.masters);
        let known = places(&masters);
        assert_eq!(known.len(), 1, "a host name is looked up later");
        settle(&mut config, &known);
        let server = &config.pools[0].servers[0];
        assert_eq!(server.name, "192.168.223.131:6379", "its place on the ring stays");
        let at = HostPort { host: "192.168.223.132".into(), port: 6379 };
        assert_eq!(server.address, Address::Tcp(at));
    }
}
