//! keepalived's `keepalived.conf`, read in place: its grammar, and what it says about VRRP.
//!
//! Source: keepalived 2.2.7, as its users see it. What keepalived refuses to run with is an error
//! here. What it runs with after changing it, ignoring it or only complaining is a warning that
//! says so; nothing is changed silently.
//!
//! Deviates: `include` is reported and not followed, because nothing is opened here; whether
//! interfaces and scripts exist and are safe is the host's to say. `virtual_server` blocks are
//! known and not read yet.

mod grammar;
mod instance;
mod keywords;
mod lines;

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use super::diagnostic::{Collector, Diagnostic};
use crate::wire::vrrp::{AdvertInterval, Auth, Family, Priority, Vrid};

/// What a file says, as far as it can be understood.
#[derive(Debug)]
pub struct Parsed {
    /// The configuration; some exactly when no diagnostic is an error.
    pub config: Option<Config>,
    /// Every error and warning, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

/// What a file says about VRRP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Name of this router, for messages.
    pub router_id: Option<String>,
    /// Scripts that can be tracked.
    pub scripts: Vec<Script>,
    /// Virtual routers, in the order of the file; their names differ.
    pub instances: Vec<Instance>,
    /// Groups of them.
    pub groups: Vec<Group>,
}

/// A script whose success says that something is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its name.
    pub name: String,
    /// Program and arguments; empty if there are none.
    pub argv: Vec<String>,
    /// Time between runs. Default 1 s.
    pub interval: Duration,
    /// How long it may take; none means as long as its interval.
    pub timeout: Option<Duration>,
    /// What it is worth, -253 to 253. Default 0: its failure is a fault.
    pub weight: i16,
    /// Successes in a row that count as one. Default 1.
    pub rise: u32,
    /// Failures in a row that count as one. Default 1.
    pub fall: u32,
    pub(self) span: Range<usize>,
}

/// An address of a virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// Bits of its network; a host's if the file tells none.
    pub prefix: u8,
    /// Interface that it goes to, if not the router's.
    pub device: Option<String>,
}

/// A script that a virtual router tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedScript {
    /// Its name.
    pub name: String,
    /// Another weight than the script's own.
    pub weight: Option<i16>,
}

/// A virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Interface that it is on.
    pub interface: String,
    /// Its number.
    pub vrid: Vrid,
    /// Family of its addresses.
    pub family: Family,
    /// Its priority. Default 100, or 255 with `state MASTER`.
    pub priority: Priority,
    /// Time between adverts, in the unit of its version. Default 1 s.
    pub interval: AdvertInterval,
    /// Addresses that are advertised.
    pub addresses: Vec<VirtualAddress>,
    /// Addresses that only come and go with it.
    pub excluded: Vec<VirtualAddress>,
    /// Proof of its adverts.
    pub auth: Auth,
    /// When it takes over from a lower priority.
    pub preempt: Preempt,
    /// Address that adverts come from, if told.
    pub source: Option<IpAddr>,
    /// Peers that are told by name; none means multicast.
    pub peers: Vec<IpAddr>,
    /// Scripts that it tracks.
    pub scripts: Vec<TrackedScript>,
}

/// When a router of higher priority takes over from a lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preempt {
    /// When the lower one's last advert has aged.
    #[default]
    Always,
    /// Only when the lower one falls silent: `nopreempt`.
    Never,
    /// So long after the first advert of the lower one: `preempt_delay`, at most 1000 s.
    After(Duration),
}

/// Virtual routers that are Active together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Names of its members.
    pub members: Vec<String>,
}

/// Reads a file. `id` is what `@id` lines are compared with: keepalived's `-i`, or the first label
/// of the host's name.
pub fn parse(text: &str, id: &str) -> Parsed {
    let mut collector = Collector::new(text);
    if text.len() > crate::limits::CONFIG_BYTES_MAX {
        let message = "the file is too large";
        collector.report(collector.error("file-too-large", &(0..0), message));
        return Parsed { config: None, diagnostics: collector.finish() };
    }
    let statements = grammar::parse(text, id, &mut collector);
    let config = instance::read(&statements, &mut collector);
    let config = (!collector.has_errors()).then_some(config);
    Parsed { config, diagnostics: collector.finish() }
}
