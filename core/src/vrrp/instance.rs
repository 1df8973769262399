//! One virtual router on one interface: adverts in, adverts out.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::accept::{self, Accepted, Arrival, Refusal};
use super::announce::Plan;
use super::fsm::{Action, Cause, Heard, Machine, Phase, Preempt, Rules};
use super::timing::DOWN_ADVERTS_DEFAULT;
use super::track::{Reading, TrackerId, Tracking, Weight};
use crate::limits;
use crate::time::Instant;
use crate::wire::ip::{CLASS_CONTROL, Ipv4Header, PROTOCOL_VRRP, Path};
use crate::wire::vrrp::{
    Addresses, Advert, AdvertInterval, Auth, Dialect, Family, Priority, TTL, Version, Vrid,
    encode_addresses,
};

/// A router that is told by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: IpAddr,
    /// Times to live that its adverts may arrive with.
    pub ttl: RangeInclusive<u8>,
}

/// How adverts find the other routers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everybody on the link.
    Multicast {
        /// The group.
        group: IpAddr,
    },
    /// Each peer by itself.
    Unicast {
        /// The peers; at most [`limits::VRRP_PEERS_MAX`].
        peers: Vec<Peer>,
        /// Time to live of what we send.
        ttl: u8,
        /// Whether adverts of strangers are refused. Without it anybody who reaches us can take
        /// the addresses away.
        checks_source: bool,
    },
}

/// Which lists of addresses are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lists {
    /// Any; a difference is told. As keepalived since 2.4.
    #[default]
    Any,
    /// Only the same as ours. As keepalived 2.2.
    Same,
    /// The same, but a sender that is already followed is not asked again: `skip_check_adv_addr`.
    SameOfNewSenders,
}

/// How the checksum of version 3 over IPv4 is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumRule {
    /// Always so.
    Fixed(Dialect),
    /// As the other router sends it, and so until one was heard.
    Learned(Dialect),
}

/// What an operator decides about a virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its number.
    pub vrid: Vrid,
    /// What its machine goes by.
    pub rules: Rules,
    /// The addresses that adverts list; at most 255.
    pub addresses: Vec<IpAddr>,
    /// Version 2 only.
    pub auth: Auth,
    /// How adverts find the other routers.
    pub reach: Reach,
    /// Which lists of addresses are taken.
    pub lists: Lists,
    /// How the checksum is sent.
    pub checksum: ChecksumRule,
    /// Its trackers; [`TrackerId`] is the place in this list.
    pub trackers: Vec<Weight>,
}

/// Why settings cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// Priority zero means that a router leaves.
    PriorityZero,
    /// Version 2 has no IPv6.
    VersionFamily,
    /// Version 3 has no authentication.
    VersionAuth,
    /// An address is not of the family of the source.
    Family(IpAddr),
    /// More than 255 addresses.
    Addresses(usize),
    /// More peers than [`limits::VRRP_PEERS_MAX`].
    Peers(usize),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PriorityZero => f.write_str("priority is zero"),
            Self::VersionFamily => f.write_str("version 2 does not carry IPv6"),
            Self::VersionAuth => f.write_str("version 3 has no authentication"),
            Self::Family(address) => write!(f, "{address} is of another address family"),
            Self::Addresses(count) => write!(f, "{count} addresses do not fit in an advert"),
            Self::Peers(count) => write!(f, "{count} peers are too many"),
        }
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// Makes keepalived's defaults: priority 100, preempting, multicast, no authentication.
    pub fn new(vrid: Vrid, interval: AdvertInterval, source: IpAddr, addresses: &[IpAddr]) -> Self {
        let rules = Rules {
            priority: Priority::DEFAULT,
            interval,
            source,
            preempt: Preempt::Always,
            down_adverts: DOWN_ADVERTS_DEFAULT,
            adverts_before_yielding: false,
            answers_lower: true,
            announces_source: false,
            is_grouped: false,
            uses_weights: true,
            announce: Plan::keepalived(),
        };
        Self {
            vrid,
            rules,
            addresses: addresses.to_vec(),
            auth: Auth::None,
            reach: Reach::Multicast { group: Family::of(source).group() },
            lists: Lists::Any,
            checksum: ChecksumRule::Learned(Dialect::PseudoHeader),
            trackers: Vec::new(),
        }
    }

    fn family(&self) -> Family {
        Family::of(self.rules.source)
    }

    fn validate(&self) -> Result<(), SettingsError> {
        if self.rules.priority == Priority::LEAVING {
            return Err(SettingsError::PriorityZero);
        }
        match (self.rules.interval.version(), self.family(), &self.auth) {
            (Version::V2, Family::V6, _) => return Err(SettingsError::VersionFamily),
            (Version::V3, _, Auth::Password(_)) => return Err(SettingsError::VersionAuth),
            (Version::V2, Family::V4, _) | (Version::V3, _, Auth::None) => {}
        }
        if self.addresses.len() > usize::from(u8::MAX) {
            return Err(SettingsError::Addresses(self.addresses.len()));
        }
        let reached = self.destinations();
        if reached.len() > limits::VRRP_PEERS_MAX {
            return Err(SettingsError::Peers(reached.len()));
        }
        let mut all = self.addresses.iter().chain(&reached);
        match all.find(|&&address| Family::of(address) != self.family()) {
            Some(&address) => Err(SettingsError::Family(address)),
            None => Ok(()),
        }
    }

    /// Returns where adverts go: the group, or each peer.
    pub fn destinations(&self) -> Vec<IpAddr> {
        (0..).map_while(|number| self.destination(number)).collect()
    }

    /// Returns one of these by its place; none behind the last.
    pub fn destination(&self, number: usize) -> Option<IpAddr> {
        match &self.reach {
            Reach::Multicast { group } => Some(*group).filter(|_| number == 0),
            Reach::Unicast { peers, .. } => peers.get(number).map(|peer| peer.address),
        }
    }
}

/// One virtual router on one interface.
#[derive(Debug)]
pub struct VirtualRouter {
    settings: Settings,
    address_bytes: Vec<u8>,
    machine: Machine,
    /// How peers made their last checksums; at most one entry for each destination.
    dialects: Vec<(IpAddr, Dialect)>,
    identification: u16,
}

impl VirtualRouter {
    /// Makes a virtual router that waits for its start.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        settings.validate()?;
        let mut address_bytes = Vec::new();
        encode_addresses(settings.addresses.iter().copied(), &mut address_bytes);
        let tracking = Tracking::new(settings.trackers.iter().copied());
        let machine = Machine::new(settings.rules.clone(), tracking);
        Ok(Self { settings, address_bytes, machine, dialects: Vec::new(), identification: 0 })
    }

    /// Returns what it was made from.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns its state.
    pub const fn phase(&self) -> Phase {
        self.machine.phase()
    }

    /// Returns why its state is what it is; none before the first change.
    pub const fn last_cause(&self) -> Option<Cause> {
        self.machine.last_cause()
    }

    /// Returns the priority that counts.
    pub const fn priority(&self) -> Priority {
        self.machine.priority()
    }

    /// Returns its machine, for what has no packets: its group.
    pub(super) const fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    pub(super) const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Tells it before its start that its addresses are there from a process before us.
    pub const fn handle_residue(&mut self) {
        self.machine.handle_residue();
    }

    /// Takes another address to send from.
    pub const fn set_source(&mut self, source: IpAddr) {
        self.settings.rules.source = source;
        self.machine.set_source(source);
    }

    /// Takes other settings over, and what is known of their trackers, in their order. The state
    /// changes only if these demand it. The number and the family must be the same.
    ///
    /// # Errors
    ///
    /// The settings cannot be used; the old ones stay.
    pub fn replace(
        &mut self,
        now: Instant,
        settings: Settings,
        readings: &[Reading],
    ) -> Result<(), SettingsError> {
        settings.validate()?;
        self.address_bytes.clear();
        encode_addresses(settings.addresses.iter().copied(), &mut self.address_bytes);
        let weights = settings.trackers.iter().copied();
        self.machine.replace(now, settings.rules.clone(), weights, readings);
        self.settings = settings;
        Ok(())
    }

    /// Starts it. A delay after boot is kept by calling this later.
    pub fn handle_start(&mut self, now: Instant) {
        self.machine.handle_start(now);
    }

    /// Stops it.
    pub fn handle_stop(&mut self, now: Instant) {
        self.machine.handle_stop(now);
    }

    /// Takes in what a tracker says.
    pub fn handle_reading(&mut self, now: Instant, tracker: TrackerId, reading: Reading) {
        self.machine.handle_reading(now, tracker, reading);
    }

    /// Takes in whether the interface carries frames.
    pub fn handle_link(&mut self, now: Instant, is_up: bool) {
        self.machine.handle_link(now, is_up);
    }

    /// Takes in whether the interface has the address that adverts come from.
    pub fn handle_source(&mut self, now: Instant, is_present: bool) {
        self.machine.handle_source(now, is_present);
    }

    /// Takes in that somebody removed a virtual address.
    pub fn handle_address_lost(&mut self, now: Instant) {
        self.machine.handle_address_lost(now);
    }

    /// Makes an Active router leave and stay a backup for at least `hold`.
    pub fn handle_demote(&mut self, now: Instant, hold: Duration) {
        self.machine.handle_demote(now, hold);
    }

    /// Makes an Active router leave at once; its priority was lowered before.
    pub fn handle_unwell(&mut self, now: Instant) {
        self.machine.handle_unwell(now);
    }

    /// Takes an advert in, if it counts.
    ///
    /// All adverts that wait are to be taken in before [`handle_timeout`](Self::handle_timeout).
    pub fn handle_advert(
        &mut self,
        now: Instant,
        arrival: &Arrival<'_>,
    ) -> Result<Accepted, Refusal> {
        let source = arrival.path.source();
        let is_known = self.machine.active_router().is_some_and(|active| active.sender == source);
        let ours = self.advertised();
        let accepted = accept::check(&self.settings, &ours, is_known, arrival)?;
        if let Some(dialect) = arrival.received.dialect {
            self.learn(source, dialect);
        }
        let advert = &arrival.received.advert;
        let (priority, interval) = (advert.priority, advert.interval);
        self.machine.handle_heard(now, Heard { priority, sender: source, interval });
        Ok(accepted)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    /// Tells whether nothing is due but the next advert of an Active router that nobody contests.
    pub fn is_beat(&self, now: Instant) -> bool {
        self.machine.is_beat(now)
    }

    /// Returns what must be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.machine.poll_action()
    }

    /// Appends an advert to one of [`Settings::destinations`]: a whole packet for IPv4, the message
    /// for IPv6, whose header the kernel writes. Nothing is appended for another family.
    pub fn encode_advert(&mut self, priority: Priority, to: IpAddr, out: &mut Vec<u8>) {
        let Some(path) = Path::new(self.settings.rules.source, to) else { return };
        let dialect = self.dialect(to);
        // Zero would be replaced by the kernel.
        self.identification = self.identification.checked_add(1).unwrap_or(1);
        let advert = Advert {
            vrid: self.settings.vrid,
            priority,
            interval: self.settings.rules.interval,
            auth: self.settings.auth,
            addresses: self.advertised(),
        };
        match path {
            Path::V4 { source, destination } => {
                let header = Ipv4Header {
                    class: CLASS_CONTROL,
                    identification: self.identification,
                    dont_fragment: false,
                    ttl: self.ttl(),
                    protocol: PROTOCOL_VRRP,
                    source,
                    destination,
                };
                advert.encode_ipv4(&header, dialect, out);
            }
            Path::V6 { .. } => advert.encode(&path, dialect, out),
        }
    }

    /// Returns the time to live, or hop limit, of what is sent.
    pub const fn ttl(&self) -> u8 {
        match &self.settings.reach {
            Reach::Multicast { .. } => TTL,
            Reach::Unicast { ttl, .. } => *ttl,
        }
    }

    fn advertised(&self) -> Addresses<'_> {
        let addresses = Addresses::new(self.settings.family(), &self.address_bytes);
        // Validated: whole addresses of one family, at most 255.
        addresses.unwrap_or_else(|| Addresses::none(self.settings.family()))
    }

    /// Remembers how somebody made a checksum: each peer's, or the last one's for the group.
    fn learn(&mut self, source: IpAddr, dialect: Dialect) {
        let key = match &self.settings.reach {
            Reach::Multicast { group } => *group,
            Reach::Unicast { peers, .. } => {
                // A stranger's is not remembered: nothing is sent to it.
                if !peers.iter().any(|peer| peer.address == source) {
                    return;
                }
                source
            }
        };
        match self.dialects.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = dialect,
            None => self.dialects.push((key, dialect)),
        }
    }

    fn dialect(&self, to: IpAddr) -> Dialect {
        match self.settings.checksum {
            ChecksumRule::Fixed(dialect) => dialect,
            ChecksumRule::Learned(first) => {
                let known = self.dialects.iter().find(|(known, _)| *known == to);
                known.map_or(first, |&(_, dialect)| dialect)
            }
        }
    }
}
