//! The section `sentinel`, and which server of a pool is which master.
//!
//! A server's name is its place on the ring and the Sentinels' name for the master at once, so a
//! file needs to say it once. `shard` tells the two apart where they differ: on the ring the
//! address of old has to stay, if that is what keys were placed by.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use super::super::diagnostic::{Collector, Place, quoted};
use super::super::nutcracker::{self, HostPort, ListenAddress, Pool, Secret, address};
use super::super::sentinel::{self as conf, Address, Config, Master, MasterName, Monitor};
use super::pool::ServerNote;
use super::section::{OFF, Section};
use super::{SecretFile, SecretOf, keys, scalar};
use crate::config::yaml::Content;
use crate::limits;

/// Default of `sentinel.down_after`.
const DOWN_AFTER_DEFAULT: Duration = Duration::from_secs(5);

/// Default of `sentinel.failover_timeout`.
const FAILOVER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// Default of `sentinel.quorum`: the majority of three.
const QUORUM_DEFAULT: u32 = 2;

/// Servers of one shard that may follow a new master at the same time, at most.
const PARALLEL_SYNCS_MAX: u32 = 1000;

/// How the process knows where the masters of its shards are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watch {
    /// It is a Sentinel itself.
    Own(Box<Own>),
    /// Sentinels that others run say so.
    Follow(Follow),
}

/// A Sentinel of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// What a `sentinel.conf` would say.
    pub config: Config,
    /// Masters that may be down as soon as they refuse connections.
    pub fast_down: BTreeSet<MasterName>,
    /// The file where what is learnt goes, as written; none: where the host finds a place.
    pub state: Option<String>,
    /// Hosts that run a Sentinel, as far as the file says.
    pub hosts: Vec<String>,
}

/// Sentinels that are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Where some of them are; they tell of the others.
    pub sentinels: Vec<HostPort>,
    /// Whom to be there.
    pub user: Option<String>,
    /// The password there.
    pub password: Option<Secret>,
    /// The masters to ask for.
    pub shards: Vec<MasterName>,
    /// Without answers of more than half of them for so long, nothing is written.
    pub fence: Duration,
}

/// What the section says of how masters are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Off,
    Own,
    Follow,
}

/// What holds for a master unless it says otherwise.
#[derive(Clone, Debug)]
struct Defaults {
    quorum: NonZeroU32,
    down_after: Duration,
    failover_timeout: Duration,
    parallel_syncs: NonZeroU32,
    is_fast_down: bool,
    auth_user: Option<String>,
}

/// Reads the section; sets which master each server of the pools is. `notes` say what the file has
/// about each pool's servers.
pub(super) fn read(
    top: &Section<'_>,
    pools: &mut [Pool],
    notes: &BTreeMap<String, Vec<ServerNote>>,
    secrets: &mut Vec<SecretFile>,
    out: &mut Collector<'_>,
) -> Option<Watch> {
    let section = top.section("sentinel", keys::SENTINEL, out);
    let modes = [(OFF, Mode::Off), ("own", Mode::Own), ("follow", Mode::Follow)];
    let mode = section.choice("mode", modes, out);
    let mode = mode.unwrap_or(Mode::Off);
    let listed = listed_masters(&section, out);
    // A list of masters of whom nothing is said is what a file of all keys has.
    let says =
        section.says_more_than("masters") || listed.iter().any(|one| !one.section.is_empty());
    if says && section.entry("mode").is_none() {
        let message = "the section says how to watch masters, and not whether to";
        let error = out.error("sentinel-without-mode", &top.place("sentinel"), message);
        out.report(error.expected("\"mode: own\", \"mode: follow\" or \"mode: off\""));
    }
    if mode != Mode::Off {
        name_shards(pools, notes, out);
    }
    let mut found = Vec::new();
    let mut reader = Reader { section: &section, notes, secrets: &mut found, out };
    let watch = match mode {
        Mode::Off => {
            // Its mistakes are told all the same; what a loss would do to it is nobody's worry.
            reader.own(&[], &listed);
            reader.follow(&[]);
            None
        }
        Mode::Own => {
            let own = reader.own(pools, &listed);
            reader.judge_quorum(&own.config, &own.hosts);
            Some(Watch::Own(Box::new(own)))
        }
        Mode::Follow => {
            reader.doubt_promises(pools);
            Some(Watch::Follow(reader.follow(pools)))
        }
    };
    if watch.is_some() {
        secrets.extend(found);
    }
    watch
}

/// Decides which master each server is, and warns of those that are none.
fn name_shards(
    pools: &mut [Pool],
    notes: &BTreeMap<String, Vec<ServerNote>>,
    out: &mut Collector<'_>,
) {
    for pool in pools.iter_mut().filter(|pool| pool.redis) {
        let notes = notes.get(&pool.name).map(Vec::as_slice).unwrap_or_default();
        let mut has_shards = false;
        for server in &mut pool.servers {
            let Some(note) = notes.iter().find(|note| note.name == server.name) else { continue };
            if note.is_unwatched {
                continue;
            }
            if server.shard.is_none() && server.is_named {
                server.shard = Some(server.name.clone());
            }
            let Some(shard) = &server.shard else {
                let message = "the server has no name: nobody follows it when its master fails, and \
                               keys move when its address changes";
                let name = &server.name;
                let warning = out.warning("unnamed-shard", &note.span, message);
                out.report(warning.hint(format!(
                    "write \"name: {name}\", \"shard: NAME\" and \"address: …\" with the \
                     Sentinels' name of the master, or \"shard: off\""
                )));
                continue;
            };
            if MasterName::new(shard).is_none() {
                let message = format!("{} cannot be the name of a master", quoted(shard));
                let most = limits::MASTER_NAME_BYTES_MAX;
                let error = out
                    .error("bad-master-name", &note.span, message)
                    .expected(format!("1 to {most} bytes without commas and spaces"));
                out.report(error.hint("\"shard\" may say another name than \"name\", or off"));
                continue;
            }
            has_shards = true;
        }
        if has_shards
            && pool.auto_eject_hosts
            && let Some(note) = notes.first()
        {
            let message = format!(
                "the pool {} ejects servers whose masters are replaced: its keys are looked for, \
                 and written, on another shard",
                quoted(&pool.name)
            );
            let warning = out.warning("eject-replicated", &note.pool_span, message);
            out.report(warning.hint("leave \"auto_eject_hosts\" out"));
        }
    }
}

/// A master as the section lists it.
struct Listed<'a> {
    name: MasterName,
    span: Range<usize>,
    section: Section<'a>,
}

fn listed_masters<'a>(section: &Section<'a>, out: &mut Collector<'_>) -> Vec<Listed<'a>> {
    let document = section.document;
    let node = section.entry("masters").and_then(|entry| document.node(entry.value));
    let entries = match node.map(|node| &node.content) {
        None => return Vec::new(),
        Some(Content::Scalar(text)) if text.is_empty() => return Vec::new(),
        Some(Content::Mapping(entries)) => entries,
        Some(_) => {
            let error = out.error("not-a-mapping", &section.place("masters"), "no masters here");
            out.report(error.expected("a master's name and a colon, indented below"));
            return Vec::new();
        }
    };
    let mut listed: Vec<Listed<'a>> = Vec::new();
    for &(key, value) in entries {
        let span = document.span(key);
        let word = scalar(document, key).unwrap_or_default();
        let Some(name) = MasterName::new(word) else {
            let message = format!("{} cannot be the name of a master", quoted(word));
            out.report(out.error("bad-master-name", &span, message));
            continue;
        };
        if listed.iter().any(|other| other.name == name) {
            let message = format!("the master {} is here a second time", quoted(word));
            out.report(out.error("duplicate-master", &span, message));
            continue;
        }
        let section = Section::read(document, word, span.clone(), value, keys::MASTER, out);
        listed.extend(section.map(|section| Listed { name, span, section }));
    }
    listed
}

struct Reader<'r, 'a, 'c> {
    section: &'r Section<'a>,
    notes: &'r BTreeMap<String, Vec<ServerNote>>,
    secrets: &'r mut Vec<SecretFile>,
    out: &'r mut Collector<'c>,
}

impl Reader<'_, '_, '_> {
    /// Warns of promises that Sentinels of others do not know of: they promote a replica that may
    /// not have what was acknowledged.
    fn doubt_promises(&mut self, pools: &[Pool]) {
        for pool in pools.iter().filter(|pool| pool.failover.replicated.is_some()) {
            let Some(note) = self.notes.get(&pool.name).and_then(|notes| notes.first()) else {
                continue;
            };
            let message = format!(
                "the pool {} promises that replicas have what was acknowledged, and Sentinels that \
                 this process only follows may promote one that has not",
                quoted(&pool.name)
            );
            let warning = self.out.warning("promise-void", &note.pool_span, message);
            self.out.report(
                warning.hint("\"mode: own\" on every host that votes, or leave \"replicated\" out"),
            );
        }
    }

    fn own(&mut self, pools: &[Pool], listed: &[Listed<'_>]) -> Own {
        let hosts = self.section.words("hosts", self.out);
        let defaults = self.defaults(&hosts);
        let mut config = Config::default();
        self.listen(&mut config);
        self.announce(&mut config);
        self.secret(self.section, "password_file", SecretOf::Sentinel);
        let mut fast_down = BTreeSet::new();
        let mut masters = BTreeMap::new();
        for one in listed {
            let Some((master, is_fast)) = self.listed(one, &defaults, pools) else { continue };
            if is_fast {
                fast_down.insert(master.name.clone());
            }
            masters.insert(master.name.clone(), master);
        }
        self.masters_of_pools(pools, &defaults, &mut masters, &mut fast_down);
        if self.section.entry("auth_password_file").is_some() {
            self.secret(self.section, "auth_password_file", SecretOf::Masters);
        }
        config.masters = masters.into_values().collect();
        if config.masters.len() > limits::MASTERS_MAX {
            let message = format!("there are more than {} masters", limits::MASTERS_MAX);
            self.out.report(self.out.error("too-many-masters", &self.section.span, message));
        }
        let is_name = |master: &Master| master.monitor.address.host().parse::<IpAddr>().is_err();
        config.resolve_hostnames = config.masters.iter().any(is_name);
        let state = self.section.text("state", self.out).map(|(text, _)| text);
        let state = state.filter(|&text| text != "auto").map(str::to_owned);
        Own { config, fast_down, state, hosts }
    }

    fn defaults(&mut self, hosts: &[String]) -> Defaults {
        let majority = u32::try_from(hosts.len() / 2 + 1).unwrap_or(u32::MAX);
        let quorum = if hosts.is_empty() { QUORUM_DEFAULT } else { majority };
        let built_in = Defaults {
            quorum: NonZeroU32::new(quorum).unwrap_or(NonZeroU32::MIN),
            down_after: DOWN_AFTER_DEFAULT,
            failover_timeout: FAILOVER_TIMEOUT_DEFAULT,
            parallel_syncs: NonZeroU32::MIN,
            is_fast_down: false,
            auth_user: None,
        };
        settings(self.section, &built_in, self.out)
    }

    fn listen(&mut self, config: &mut Config) {
        config.server.port = Some(conf::PORT_DEFAULT);
        if self.section.is_off("listen") {
            config.server.port = Some(0);
            return;
        }
        let Some((listen, span)) = self.section.listen("listen", self.out) else { return };
        match listen.address {
            ListenAddress::Tcp(at) => {
                config.server.port = Some(at.port);
                config.server.bind = vec![at.host];
            }
            ListenAddress::Unix { .. } => {
                let message = "Sentinels reach one another by TCP only";
                let error = self.out.error("invalid-listen", &span, message);
                self.out.report(error.expected("\"host:port\", or off"));
            }
        }
    }

    fn announce(&mut self, config: &mut Config) {
        if self.section.is_off("announce") {
            return;
        }
        let Some((text, span)) = self.section.text("announce", self.out) else { return };
        match address::parse_host_port(text) {
            Some(at) => {
                config.announce_ip = Some(at.host);
                config.announce_port = Some(at.port);
            }
            None => {
                let message = format!("{} is no address", quoted(text));
                let error = self.out.error("invalid-announce", &span, message);
                self.out.report(error.expected("\"host:port\", or off"));
            }
        }
    }

    /// Reads a master that the section lists. Without an address it is where a pool has it.
    fn listed(
        &mut self,
        one: &Listed<'_>,
        defaults: &Defaults,
        pools: &[Pool],
    ) -> Option<(Master, bool)> {
        let of_pool = shards(pools).find(|(name, _)| *name == one.name.as_str());
        let mut address = of_pool.and_then(|(_, server)| address_of(server));
        if let Some((text, span)) = one.section.text("address", self.out) {
            let found = address::parse_host_port(text);
            address = found.and_then(|at| Address::new(&at.host, at.port).ok());
            if address.is_none() {
                let message = format!("{} is not the address of a master", quoted(text));
                let error = self.out.error("invalid-server", &span, message);
                self.out.report(error.expected("\"host:port\" with a port from 1 to 65535"));
                return None;
            }
        }
        let own = settings(&one.section, defaults, self.out);
        let Some(address) = address else {
            // While the section is off the pools are not looked at.
            if !pools.is_empty() {
                let message = format!("nothing says where {} is", quoted(one.name.as_str()));
                let error = self.out.error("missing-address", &one.span, message);
                self.out.report(error.expected("\"address: host:port\", or a server of this name"));
            }
            return None;
        };
        let mut master = master(one.name.clone(), address, &own);
        let mut script = |key| {
            let text = one.section.text(key, self.out).map(|(text, _)| text);
            text.filter(|&text| text != OFF).map(str::to_owned)
        };
        master.notification_script = script("notification_script");
        master.client_reconfig_script = script("client_reconfig_script");
        let is_own = self.secret(
            &one.section,
            "auth_password_file",
            SecretOf::Master(one.name.as_str().to_owned()),
        );
        if !is_own {
            master.auth_pass = password_of(pools, one.name.as_str());
        }
        Some((master, own.is_fast_down))
    }

    /// Adds the masters that only pools name.
    fn masters_of_pools(
        &mut self,
        pools: &[Pool],
        defaults: &Defaults,
        masters: &mut BTreeMap<MasterName, Master>,
        fast_down: &mut BTreeSet<MasterName>,
    ) {
        for (shard, server) in shards(pools) {
            let Some(name) = MasterName::new(shard) else { continue };
            let note = self.notes.values().flatten().find(|note| note.name == server.name);
            let span = note.map_or(0..0, |note| note.span.clone());
            let Some(address) = address_of(server) else {
                let message = format!("the master {} has no TCP address", quoted(shard));
                let error = self.out.error("shard-without-port", &span, message);
                self.out
                    .report(error.hint("Sentinels reach servers by TCP only; or \"shard: off\""));
                continue;
            };
            match masters.get(&name) {
                Some(known) if !known.monitor.address.is_same(&address) => {
                    let message = format!(
                        "the master {} is said to be at {} and at {address}",
                        quoted(shard),
                        known.monitor.address
                    );
                    self.out.report(self.out.error("shard-at-two-places", &span, message));
                }
                Some(_) => {}
                None => {
                    let mut master = master(name.clone(), address, defaults);
                    master.auth_pass = password_of(pools, shard);
                    if defaults.is_fast_down {
                        fast_down.insert(name.clone());
                    }
                    masters.insert(name, master);
                }
            }
        }
    }

    /// Says what becomes of the quorum when a host is gone.
    fn judge_quorum(&mut self, config: &Config, hosts: &[String]) {
        let place = self.section.place("quorum");
        for master in &config.masters {
            let quorum = master.monitor.quorum.get();
            let name = quoted(master.name.as_str());
            let verdict = quorum_after_loss(quorum, hosts.len());
            let (code, message) = match verdict {
                Verdict::Holds => continue,
                Verdict::Unknown => (
                    "two-voters",
                    format!(
                        "{quorum} Sentinels must agree about {name}, and the file does not say how \
                         many there are: two of them elect nobody when one host is gone"
                    ),
                ),
                Verdict::Never => (
                    "quorum-above-voters",
                    format!(
                        "the quorum of {name}, {quorum}, is more than the {} hosts",
                        hosts.len()
                    ),
                ),
                Verdict::NotAfterLoss => (
                    "two-voters",
                    format!(
                        "{} hosts have Sentinels: when one is gone, nobody is elected for {name}",
                        hosts.len()
                    ),
                ),
            };
            let warning = self.out.warning(code, &place, message);
            self.out.report(warning.hint(
                "run a third Sentinel (a witness needs no pools), and list all under \"hosts\"",
            ));
            return;
        }
    }

    fn follow(&mut self, pools: &[Pool]) -> Follow {
        let mut sentinels = Vec::new();
        for word in self.section.words("follow", self.out) {
            match address::parse_host_port(&word) {
                Some(at) => sentinels.push(at),
                None => {
                    let message = format!("{} is not the address of a Sentinel", quoted(&word));
                    let place = self.section.place("follow");
                    let error = self.out.error("invalid-server", &place, message);
                    self.out.report(error.expected("\"host:port\" with a port from 1 to 65535"));
                }
            }
        }
        if sentinels.is_empty() && !pools.is_empty() && !self.out.has_errors() {
            let error =
                self.out.error("nobody-to-follow", &self.section.span, "nobody is to be followed");
            self.out.report(error.expected("\"follow:\" and a list of \"host:port\""));
        }
        let mut names: Vec<MasterName> =
            shards(pools).filter_map(|(shard, _)| MasterName::new(shard)).collect();
        names.sort();
        names.dedup();
        self.secret(self.section, "password_file", SecretOf::Sentinel);
        let user = self.section.text("user", self.out).map(|(text, _)| text);
        let user = user.filter(|&text| text != OFF).map(str::to_owned);
        let down_after = self.section.time("down_after", Duration::from_millis(1), self.out);
        let fence = down_after.unwrap_or(DOWN_AFTER_DEFAULT);
        Follow { sentinels, user, password: None, shards: names, fence }
    }

    /// Notes the file of a password; tells whether there is one.
    fn secret(&mut self, section: &Section<'_>, key: &'static str, of: SecretOf) -> bool {
        let Some((path, span)) = section.text(key, self.out) else { return false };
        if path == OFF {
            return false;
        }
        let place: Place = self.out.place(&span);
        self.secrets.push(SecretFile { of, path: path.to_owned(), place });
        true
    }
}

/// What is left of a vote when one host is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    Unknown,
    Never,
    NotAfterLoss,
}

/// Of `hosts` with a Sentinel each, one is gone: a majority of all and the quorum must be left.
const fn quorum_after_loss(quorum: u32, hosts: usize) -> Verdict {
    let quorum = quorum as usize;
    let needed = if quorum > hosts / 2 + 1 { quorum } else { hosts / 2 + 1 };
    match hosts {
        // Nobody said; one that decides alone needs nobody.
        0 if quorum == 1 => Verdict::Holds,
        0 => Verdict::Unknown,
        _ if quorum > hosts => Verdict::Never,
        _ if hosts - 1 < needed => Verdict::NotAfterLoss,
        _ => Verdict::Holds,
    }
}

fn settings(section: &Section<'_>, above: &Defaults, out: &mut Collector<'_>) -> Defaults {
    let least = Duration::from_millis(1);
    let most = limits::CONFIG_NUMBER_MAX;
    let quorum = section.number("quorum", 1..=most, out).and_then(NonZeroU32::new);
    let syncs = section.number("parallel_syncs", 1..=PARALLEL_SYNCS_MAX, out);
    let auth_user = section.text("auth_user", out).map(|(text, _)| text);
    let is_auth_off = auth_user == Some(OFF);
    let auth_user = auth_user.filter(|_| !is_auth_off).map(str::to_owned);
    Defaults {
        quorum: quorum.unwrap_or(above.quorum),
        down_after: section.time("down_after", least, out).unwrap_or(above.down_after),
        failover_timeout: section
            .time("failover_timeout", least, out)
            .unwrap_or(above.failover_timeout),
        parallel_syncs: syncs.and_then(NonZeroU32::new).unwrap_or(above.parallel_syncs),
        is_fast_down: section.boolean("fast_down", above.is_fast_down, out),
        auth_user: if is_auth_off { None } else { auth_user.or_else(|| above.auth_user.clone()) },
    }
}

fn master(name: MasterName, address: Address, says: &Defaults) -> Master {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut master = Master::new(name, Monitor { address, quorum: says.quorum });
    master.down_after_ms = ms(says.down_after);
    master.failover_timeout_ms = ms(says.failover_timeout);
    master.parallel_syncs = says.parallel_syncs;
    master.auth_user.clone_from(&says.auth_user);
    master
}

/// Returns every server that is a master by name.
fn shards(pools: &[Pool]) -> impl Iterator<Item = (&str, &nutcracker::Server)> {
    let servers = pools.iter().filter(|pool| pool.redis).flat_map(|pool| &pool.servers);
    servers.filter_map(|server| Some((server.shard.as_deref()?, server)))
}

fn address_of(server: &nutcracker::Server) -> Option<Address> {
    match &server.address {
        nutcracker::Address::Tcp(at) => Address::new(&at.host, at.port).ok(),
        nutcracker::Address::Unix(_) => None,
    }
}

/// Returns the password that the pool of a shard has for its servers.
fn password_of(pools: &[Pool], shard: &str) -> Option<Secret> {
    let is_its = |pool: &&Pool| {
        pool.redis && pool.servers.iter().any(|server| server.shard.as_deref() == Some(shard))
    };
    pools.iter().find(is_its).and_then(|pool| pool.redis_auth.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_must_outlive_the_loss_of_a_host() {
        let cases = [
            (2, 3, Verdict::Holds),
            (2, 2, Verdict::NotAfterLoss),
            (1, 2, Verdict::NotAfterLoss),
            (3, 3, Verdict::NotAfterLoss),
            (3, 5, Verdict::Holds),
            (4, 5, Verdict::Holds),
            (5, 5, Verdict::NotAfterLoss),
            (3, 2, Verdict::Never),
            (2, 0, Verdict::Unknown),
            (1, 0, Verdict::Holds),
        ];
        for (quorum, hosts, verdict) in cases {
            assert_eq!(quorum_after_loss(quorum, hosts), verdict, "{quorum} of {hosts}");
        }
    }
}
