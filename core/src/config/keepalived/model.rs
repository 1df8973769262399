//! What a file says, as values.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use super::virtual_server::VirtualServer;
use crate::wire::vrrp::{AdvertInterval, Auth, Family, Priority, Vrid};

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What counts for all routers.
    pub global: Global,
    /// Scripts that can be tracked.
    pub scripts: Vec<Script>,
    /// Files that can be tracked.
    pub files: Vec<File>,
    /// Programs that can be tracked.
    pub processes: Vec<Process>,
    /// Virtual routers, in the order of the file; their names differ.
    pub instances: Vec<Instance>,
    /// Groups of them.
    pub groups: Vec<Group>,
    /// Virtual servers, in the order of the file; their addresses differ.
    pub virtual_servers: Vec<VirtualServer>,
}

impl Config {
    /// Tells whether programs are run, be it as trackers or to notify.
    pub fn runs_programs(&self) -> bool {
        let runs = |script: &Script| matches!(script.probe, Probe::Run(_));
        self.scripts.iter().any(runs)
            || self.instances.iter().any(|instance| instance.notify.has_command())
            || self.groups.iter().any(|group| group.notify.has_command())
            || self.global.fifos.iter().any(|fifo| fifo.handler.is_some())
            || self.global.startup.is_some()
            || self.global.shutdown.is_some()
            || self.virtual_servers.iter().any(|server| server.commands().next().is_some())
    }

    /// Returns every program that may be run.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        let probes = self.scripts.iter().filter_map(|script| match &script.probe {
            Probe::Run(command) => Some(command),
            Probe::Connect { .. } => None,
        });
        let instances = self.instances.iter().flat_map(|instance| instance.notify.commands());
        let groups = self.groups.iter().flat_map(|group| group.notify.commands());
        let handlers = self.global.fifos.iter().filter_map(|fifo| fifo.handler.as_ref());
        let framing = [&self.global.startup, &self.global.shutdown].into_iter().flatten();
        let framing = framing.map(|framed| &framed.command);
        let servers = self.virtual_servers.iter().flat_map(VirtualServer::commands);
        probes.chain(instances).chain(groups).chain(handlers).chain(framing).chain(servers)
    }
}

/// What `global_defs` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Global {
    /// Name of this router, for messages.
    pub router_id: Option<String>,
    /// Who runs scripts that name nobody.
    pub script_user: Option<User>,
    /// Whether scripts that others could change are refused: `enable_script_security`.
    pub has_script_security: bool,
    /// Pipes that transitions are written to.
    pub fifos: Vec<Fifo>,
    /// How long adverts and timers rest after the start.
    pub startup_delay: Duration,
    /// How the thread is scheduled.
    pub scheduling: Scheduling,
    /// What is run before the start, and waited for: `startup_script`.
    pub startup: Option<Framed>,
    /// What is run behind the end, and waited for: `shutdown_script`.
    pub shutdown: Option<Framed>,
}

/// A program that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed {
    /// Which.
    pub command: Command,
    /// How long it may take. Default 10 s.
    pub limit: Duration,
}

/// How the checksum of version 3 over IPv4 is made for sending. All forms are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumForm {
    /// As the peer makes it; with a pseudo header, as keepalived, until one was heard.
    #[default]
    Learned,
    /// Without a pseudo header, as RFC 9568 says: `v3_checksum_as_v2`.
    Plain,
    /// With the group in the pseudo header even for unicast: `old_unicast_checksum`.
    Group,
}

/// How the thread of the virtual routers is scheduled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// Real-time priority, 1 to 99: `vrrp_rt_priority`.
    pub realtime: Option<u8>,
    /// Nice value, -20 to 19: `vrrp_priority`.
    pub nice: Option<i8>,
    /// Longest time without a system call while real-time: `vrrp_rlimit_rttime`.
    pub runtime_max: Option<Duration>,
    /// Whether memory is locked: `vrrp_no_swap`.
    pub is_locked: bool,
}

/// A pipe that transitions are written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fifo {
    /// Where it is; made if it is not there.
    pub path: String,
    /// What reads it; started with the path as its last argument.
    pub handler: Option<Command>,
}

/// Who runs a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name or number.
    pub name: String,
    /// Group, if not the user's own.
    pub group: Option<String>,
}

/// A program to be run without a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// Who runs it; none means `script_user`.
    pub user: Option<User>,
    /// Where it stands in the text.
    pub span: Range<usize>,
}

/// How a script finds out whether something is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A program's exit code.
    Run(Command),
    /// Whether a TCP connection can be made; what `</dev/tcp/HOST/PORT` asks a shell for. It needs
    /// no program.
    Connect {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

/// A script whose success says that something is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its name.
    pub name: String,
    /// What it does.
    pub probe: Probe,
    /// Time between runs. Default 1 s.
    pub interval: Duration,
    /// How long it may take; none means as long as its interval.
    pub timeout: Option<Duration>,
    /// What it is worth, -253 to 253. Default 0: its failure is a fault.
    pub weight: i16,
    /// Whether success and failure change places.
    pub is_reversed: bool,
    /// Successes in a row that count as one. Default 1.
    pub rise: u32,
    /// Failures in a row that count as one. Default 1.
    pub fall: u32,
    /// Whether it counts as failed until it has succeeded: `init_fail`.
    pub starts_failed: bool,
}

/// A file with a number in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// What the number is multiplied with, -254 to 254. Default 1.
    pub weight: i16,
    /// Whether the sign changes.
    pub is_reversed: bool,
}

/// A program that should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its name.
    pub name: String,
    /// The program's name or path.
    pub program: String,
    /// How many of it there must be. Default 1.
    pub quorum: u32,
    /// What it is worth, -253 to 253. Default 0: its failure is a fault.
    pub weight: i16,
    /// Whether success and failure change places.
    pub is_reversed: bool,
    /// How long a change must last before it counts.
    pub delay: Duration,
}

/// Something tracked by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Its name.
    pub name: String,
    /// Another weight than its own.
    pub weight: Option<i16>,
    /// Whether success and failure change places.
    pub is_reversed: bool,
}

/// All that a virtual router, or a group, tracks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracks {
    /// Scripts.
    pub scripts: Vec<Tracked>,
    /// Interfaces.
    pub interfaces: Vec<Tracked>,
    /// Files.
    pub files: Vec<Tracked>,
    /// Programs.
    pub processes: Vec<Tracked>,
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
    /// Label of the address.
    pub label: Option<String>,
    /// Broadcast address.
    pub broadcast: Option<IpAddr>,
    /// Scope as the kernel numbers it.
    pub scope: u8,
    /// Whether its removal by somebody else is nobody's business: `no_track`.
    pub is_untracked: bool,
    /// Whether the kernel adds no route for its network.
    pub has_no_prefix_route: bool,
}

/// A route that comes and goes with a virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its network; zero bits for the default route.
    pub destination: (IpAddr, u8),
    /// Next router.
    pub via: Option<IpAddr>,
    /// Interface.
    pub device: Option<String>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Metric.
    pub metric: Option<u32>,
    /// Table; none means the main one.
    pub table: Option<u32>,
    /// Scope as the kernel numbers it; none means as the rest demands.
    pub scope: Option<u8>,
    /// Whether the next router is taken to be on the link.
    pub is_onlink: bool,
}

/// A router that is told by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: IpAddr,
    /// Times to live that its adverts may have.
    pub ttl: std::ops::RangeInclusive<u8>,
}

/// When neighbours are told who has the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcing {
    /// Time to the second burst; zero for none. Default 5 s.
    pub delay: Duration,
    /// Copies in a burst. Default 5.
    pub repeat: u8,
    /// Time between refreshing announcements; zero for none. Default zero.
    pub refresh: Duration,
    /// Copies of them. Default 1.
    pub refresh_repeat: u8,
    /// Time to the second burst after a lower priority was heard.
    pub lower_delay: Option<Duration>,
    /// Copies after a lower priority was heard.
    pub lower_repeat: Option<u8>,
    /// Time between two gratuitous ARP packets on an interface.
    pub arp_gap: Duration,
    /// Time between two neighbour adverts on an interface.
    pub neighbour_gap: Duration,
}

impl Default for Announcing {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(5),
            repeat: 5,
            refresh: Duration::ZERO,
            refresh_repeat: 1,
            lower_delay: None,
            lower_repeat: None,
            arp_gap: Duration::ZERO,
            neighbour_gap: Duration::ZERO,
        }
    }
}

/// Programs that are told of transitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// When it becomes Active.
    pub active: Option<Command>,
    /// When it becomes a backup.
    pub backup: Option<Command>,
    /// When it has a fault.
    pub fault: Option<Command>,
    /// When it is stopped.
    pub stop: Option<Command>,
    /// When a reload removes it.
    pub deleted: Option<Command>,
    /// When it stays Active against a lower priority.
    pub lower: Option<Command>,
    /// Always, with four more arguments: kind, name, state and priority.
    pub any: Option<Command>,
}

impl Notify {
    fn commands(&self) -> impl Iterator<Item = &Command> {
        let Self { active, backup, fault, stop, deleted, lower, any } = self;
        [active, backup, fault, stop, deleted, lower, any].into_iter().flatten()
    }

    /// Tells whether there is any.
    pub fn has_command(&self) -> bool {
        self.commands().next().is_some()
    }
}

/// An interface of its own for the virtual addresses, with the MAC of the virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualMac {
    /// Name of the interface.
    pub name: String,
    /// Whether adverts leave from the interface below it.
    pub sends_below: bool,
}

/// Which lists of addresses are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListCheck {
    /// Any; a difference is told.
    #[default]
    Told,
    /// As [`ListCheck::Told`]; the file asked for fewer checks: `skip_check_adv_addr`.
    Skipped,
}

/// A virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Where its name stands in the text.
    pub span: Range<usize>,
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
    /// Routes that come and go with it.
    pub routes: Vec<Route>,
    /// Proof of its adverts.
    pub auth: Auth,
    /// When it takes over from a lower priority.
    pub preempt: Preempt,
    /// Address that adverts come from, if told.
    pub source: Option<IpAddr>,
    /// Another group than the usual one.
    pub group: Option<IpAddr>,
    /// Peers that are told by name; none means multicast.
    pub peers: Vec<Peer>,
    /// Time to live of adverts to peers. Default 255.
    pub unicast_ttl: u8,
    /// Whether adverts of strangers are refused: `check_unicast_src`.
    pub checks_source: bool,
    /// Which lists of addresses are taken.
    pub lists: ListCheck,
    /// Whether losing the source address is a fault.
    pub tracks_source: bool,
    /// Whether the interface's own state counts.
    pub tracks_primary: bool,
    /// Adverts missed before it takes over. Default 3.
    pub down_adverts: u8,
    /// Whether a last advert tells the one who outranks us.
    pub adverts_before_yielding: bool,
    /// Whether a lower priority is answered.
    pub answers_lower: bool,
    /// When neighbours are told.
    pub announcing: Announcing,
    /// What it tracks.
    pub tracks: Tracks,
    /// What is told of its transitions.
    pub notify: Notify,
    /// An interface of its own.
    pub virtual_mac: Option<VirtualMac>,
    /// How checksums are made.
    pub checksum: ChecksumForm,
    /// What of this process it follows; none: nothing.
    pub health: Option<HealthRule>,
}

/// What of this process a virtual router follows besides its trackers: the pools that it has its
/// addresses for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthRule {
    /// Names of what is followed, as `pool alpha`; none means everything that is told of.
    pub sources: Option<Vec<String>>,
    /// What follows from being ill.
    pub effect: HealthEffect,
}

impl HealthRule {
    /// Tells whether something of this name is followed.
    pub fn names(&self, source: &str) -> bool {
        self.sources.as_ref().is_none_or(|list| list.iter().any(|name| name == source))
    }

    /// Tells whether an Active router leaves at once when something is ill.
    pub fn leaves(&self) -> bool {
        self.effect == HealthEffect::Leave
    }
}

/// What follows for a virtual router from something being ill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthEffect {
    /// It leaves at once, and takes over again only if nobody else does: its priority is 1. An
    /// owner, or a member of a group without weights, has a fault.
    #[default]
    Leave,
    /// Its priority changes by this, -253 to 253; others take over when they have heard of it.
    Weight(i16),
    /// A fault.
    Fault,
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
    /// What its members track besides their own.
    pub tracks: Tracks,
    /// What is told of its transitions.
    pub notify: Notify,
    /// Whether weights count: `sync_group_tracking_weight`.
    pub uses_weights: bool,
}
