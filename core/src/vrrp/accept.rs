//! Which adverts count, in keepalived's order of checks.
//!
//! Deviates: a version 3 checksum is taken in every form; a list of addresses that differs from
//! ours is told and not refused unless that is asked for, because refusing it makes two routers
//! Active.

use std::fmt;
use std::net::IpAddr;

use super::instance::{Lists, Reach, Settings};
use crate::wire::ip::Path;
use crate::wire::vrrp::{Addresses, AdvertInterval, Auth, Received, TTL, Version, Vrid};

/// An advert and how it came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// What was read.
    pub received: Received<'a>,
    /// From whom to whom.
    pub path: Path,
    /// Time to live, or hop limit.
    pub ttl: u8,
}

/// An advert that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Whether its addresses differ from ours: a mistake of the operators.
    pub addresses_differ: bool,
    /// Whether its interval differs from ours, which version 3 learns.
    pub interval_differs: bool,
}

/// Why an advert does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Of another virtual router.
    Vrid(Vrid),
    /// We sent it, or somebody uses our address.
    OwnAddress,
    /// It was forwarded: a multicast advert with another time to live than 255.
    Ttl(u8),
    /// The other version.
    Version(Version),
    /// Another type of authentication.
    AuthType {
        /// Ours.
        ours: u8,
        /// Theirs.
        theirs: u8,
    },
    /// Another password.
    Password,
    /// Another interval, which version 2 does not allow.
    Interval(AdvertInterval),
    /// Multicast, and we use unicast.
    Multicast,
    /// Unicast, and we use multicast.
    Unicast,
    /// Other addresses than ours, where that is refused.
    Addresses {
        /// How many we have.
        ours: usize,
        /// How many it has.
        theirs: usize,
    },
    /// Not from one of our peers.
    Stranger(IpAddr),
    /// From a peer, too near or too far away.
    PeerTtl(u8),
}

impl Refusal {
    /// Returns a stable name of the kind, for counters.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Vrid(_) => "vrid",
            Self::OwnAddress => "own-address",
            Self::Ttl(_) => "ttl",
            Self::Version(_) => "version",
            Self::AuthType { .. } => "auth-type",
            Self::Password => "password",
            Self::Interval(_) => "interval",
            Self::Multicast => "multicast",
            Self::Unicast => "unicast",
            Self::Addresses { .. } => "addresses",
            Self::Stranger(_) => "stranger",
            Self::PeerTtl(_) => "peer-ttl",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vrid(vrid) => write!(f, "virtual router id is {vrid}"),
            Self::OwnAddress => f.write_str("sent from our own address"),
            Self::Ttl(ttl) => write!(f, "time to live is {ttl}, not 255"),
            Self::Version(version) => write!(f, "version is {}", version.number()),
            Self::AuthType { ours, theirs } => {
                write!(f, "authentication type is {theirs}, ours is {ours}")
            }
            Self::Password => f.write_str("password differs"),
            Self::Interval(interval) => write!(f, "advertisement interval is {interval}"),
            Self::Multicast => f.write_str("multicast, unicast expected"),
            Self::Unicast => f.write_str("unicast, multicast expected"),
            Self::Addresses { ours, theirs } => {
                write!(f, "addresses differ: {theirs} of theirs, {ours} of ours")
            }
            Self::Stranger(source) => write!(f, "{source} is not a unicast peer"),
            Self::PeerTtl(ttl) => write!(f, "time to live is {ttl}, out of the peer's range"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Decides whether an advert counts. `ours` are the addresses that we advertise; `is_known` tells
/// whether the sender is the Active router that we follow, whose list was compared before.
pub(super) fn check(
    settings: &Settings,
    ours: &Addresses<'_>,
    is_known: bool,
    arrival: &Arrival<'_>,
) -> Result<Accepted, Refusal> {
    let advert = &arrival.received.advert;
    let source = arrival.path.source();
    if advert.vrid != settings.vrid {
        return Err(Refusal::Vrid(advert.vrid));
    }
    if source == settings.rules.source {
        return Err(Refusal::OwnAddress);
    }
    let is_multicast = arrival.path.destination().is_multicast();
    if is_multicast && arrival.ttl != TTL {
        return Err(Refusal::Ttl(arrival.ttl));
    }
    if advert.version() != settings.rules.interval.version() {
        return Err(Refusal::Version(advert.version()));
    }
    check_auth(&settings.auth, &advert.auth)?;
    let interval_differs = advert.interval != settings.rules.interval;
    if interval_differs && advert.version() == Version::V2 {
        return Err(Refusal::Interval(advert.interval));
    }
    match (&settings.reach, is_multicast) {
        (Reach::Multicast { .. }, true) | (Reach::Unicast { .. }, false) => {}
        (Reach::Multicast { .. }, false) => return Err(Refusal::Unicast),
        (Reach::Unicast { .. }, true) => return Err(Refusal::Multicast),
    }
    let addresses_differ = !advert.addresses.is_same_set(ours);
    let refuses = match settings.lists {
        Lists::Any => false,
        Lists::Same => true,
        Lists::SameOfNewSenders => !is_known,
    };
    if addresses_differ && refuses {
        let (ours, theirs) = (ours.len(), advert.addresses.len());
        return Err(Refusal::Addresses { ours, theirs });
    }
    check_peer(&settings.reach, source, arrival.ttl)?;
    Ok(Accepted { addresses_differ, interval_differs })
}

fn check_auth(ours: &Auth, theirs: &Auth) -> Result<(), Refusal> {
    match (ours, theirs) {
        (Auth::None, Auth::None) => Ok(()),
        (Auth::Password(ours), Auth::Password(theirs)) if ours == theirs => Ok(()),
        (Auth::Password(_), Auth::Password(_)) => Err(Refusal::Password),
        (Auth::None, Auth::Password(_)) | (Auth::Password(_), Auth::None) => {
            Err(Refusal::AuthType { ours: ours.number(), theirs: theirs.number() })
        }
    }
}

fn check_peer(reach: &Reach, source: IpAddr, ttl: u8) -> Result<(), Refusal> {
    let Reach::Unicast { peers, checks_source: true, .. } = reach else { return Ok(()) };
    let peer = peers.iter().find(|peer| peer.address == source);
    let peer = peer.ok_or(Refusal::Stranger(source))?;
    if peer.ttl.contains(&ttl) { Ok(()) } else { Err(Refusal::PeerTtl(ttl)) }
}
