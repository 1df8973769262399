//! VRRP adverts: version 2 and 3, IPv4 and IPv6, and both forms of the version 3 checksum.
//!
//! Source: RFC 3768 section 5 (version 2), RFC 9568 section 5 (version 3), and what keepalived
//! 2.2.7 sends. A message is read for what it is; whether this router takes it is decided by
//! [`crate::vrrp::accept`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU8, NonZeroU16};
use std::time::Duration;

use super::checksum::Checksum;
use super::ip::{IpError, Ipv4Header, PROTOCOL_AH, PROTOCOL_VRRP, Path};
use super::take;

/// All VRRP routers on a link, IPv4.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// All VRRP routers on a link, IPv6.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// Time to live, or hop limit, that shows that an advert was not forwarded.
pub const TTL: u8 = 255;

const HEADER_BYTES: usize = 8;
const AUTH_BYTES: usize = 8;
const TYPE_ADVERTISEMENT: u8 = 1;
const INTERVAL_MASK: u16 = 0x0fff;

/// The family of the addresses of a virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Returns the family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Returns where adverts go when nothing else is configured.
    pub const fn group(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(GROUP_V4),
            Self::V6 => IpAddr::V6(GROUP_V6),
        }
    }

    const fn address_bytes(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }
}

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// RFC 3768: IPv4 only, seconds, optional password.
    V2,
    /// RFC 9568: IPv4 and IPv6, centiseconds.
    V3,
}

impl Version {
    /// Returns the number.
    pub const fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// Names a virtual router on a link, 1 to 255.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vrid(NonZeroU8);

impl Vrid {
    /// Makes a name; none for zero.
    pub const fn new(number: u8) -> Option<Self> {
        match NonZeroU8::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Returns the number.
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

impl fmt::Debug for Vrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vrid({})", self.0)
    }
}

impl fmt::Display for Vrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much a router wants to be Active, as it stands in an advert.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub u8);

impl Priority {
    /// The Active router leaves.
    pub const LEAVING: Self = Self(0);
    /// The lowest of a router that takes part.
    pub const MIN: Self = Self(1);
    /// What is used when nothing is configured. Source: RFC 9568 section 6.1.
    pub const DEFAULT: Self = Self(100);
    /// The highest of a router that does not own the addresses.
    pub const BACKUP_MAX: Self = Self(254);
    /// The router owns the addresses.
    pub const OWNER: Self = Self(255);

    /// Returns the number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Tells whether the router owns the addresses.
    pub const fn is_owner(self) -> bool {
        self.0 == Self::OWNER.0
    }
}

impl fmt::Debug for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Priority({})", self.0)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Time between adverts in hundredths of a second, 1 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Centiseconds(NonZeroU16);

impl Centiseconds {
    /// The longest: 40.95 s.
    pub const MAX: u16 = INTERVAL_MASK;

    /// Makes an interval; none if it is out of range.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) if number.get() <= Self::MAX => Some(Self(number)),
            Some(_) | None => None,
        }
    }

    /// Returns the number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// Time between the adverts of the Active router, in the unit of its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdvertInterval {
    /// Version 2.
    Seconds(NonZeroU8),
    /// Version 3.
    Centiseconds(Centiseconds),
}

impl AdvertInterval {
    /// Makes an interval of version 2; none for zero.
    pub const fn seconds(number: u8) -> Option<Self> {
        match NonZeroU8::new(number) {
            Some(number) => Some(Self::Seconds(number)),
            None => None,
        }
    }

    /// Makes an interval of version 3, 1 to 4095 hundredths of a second; none outside.
    pub const fn centiseconds(number: u16) -> Option<Self> {
        match Centiseconds::new(number) {
            Some(number) => Some(Self::Centiseconds(number)),
            None => None,
        }
    }

    /// Returns the version whose unit it has.
    pub const fn version(self) -> Version {
        match self {
            Self::Seconds(_) => Version::V2,
            Self::Centiseconds(_) => Version::V3,
        }
    }

    /// Returns it as a time.
    pub const fn duration(self) -> Duration {
        match self {
            Self::Seconds(number) => Duration::from_secs(number.get() as u64),
            Self::Centiseconds(number) => Duration::from_millis(number.get() as u64 * 10),
        }
    }
}

impl fmt::Display for AdvertInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(number) => write!(f, "{number} s"),
            Self::Centiseconds(number) => write!(f, "{} cs", number.get()),
        }
    }
}

/// The password of version 2: at most eight bytes, filled up with zeros. It is sent readable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password([u8; AUTH_BYTES]);

impl Password {
    /// Takes the first eight bytes of a text, as keepalived does.
    pub fn new(text: &[u8]) -> Self {
        let mut bytes = [0; AUTH_BYTES];
        for (to, &from) in bytes.iter_mut().zip(text) {
            *to = from;
        }
        Self(bytes)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// How an advert of version 2 proves itself. Version 3 has nothing of the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not at all. The eight bytes of authentication data are ignored, and sent as zeros.
    None,
    /// By a password that everybody on the link can read.
    Password(Password),
}

impl Auth {
    /// Returns the type as it stands in an advert.
    pub const fn number(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::Password(_) => 1,
        }
    }
}

/// The addresses of an advert, as they stand in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Addresses<'a> {
    family: Family,
    bytes: &'a [u8],
}

impl<'a> Addresses<'a> {
    /// Lends bytes made by [`encode_addresses`]; none if they are not whole addresses of this
    /// family, at most 255.
    pub fn new(family: Family, bytes: &'a [u8]) -> Option<Self> {
        let addresses = Self { family, bytes };
        let is_whole = bytes.len().is_multiple_of(family.address_bytes());
        (is_whole && addresses.len() <= usize::from(u8::MAX)).then_some(addresses)
    }

    /// Makes an empty list.
    pub const fn none(family: Family) -> Self {
        Self { family, bytes: &[] }
    }

    /// Returns how many there are, at most 255.
    pub const fn len(&self) -> usize {
        self.bytes.len() / self.family.address_bytes()
    }

    /// Tells whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns them in their order.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + 'a {
        let (v4, v6) = match self.family {
            Family::V4 => (self.bytes.as_chunks::<4>().0, &[][..]),
            Family::V6 => (&[][..], self.bytes.as_chunks::<16>().0),
        };
        let v4 = v4.iter().map(|&octets| IpAddr::V4(Ipv4Addr::from(octets)));
        v4.chain(v6.iter().map(|&octets| IpAddr::V6(Ipv6Addr::from(octets))))
    }

    /// Tells whether both hold the same addresses, in any order.
    pub fn is_same_set(&self, other: &Self) -> bool {
        // Lists are short and nearly always equal byte for byte.
        self == other
            || self.family == other.family
                && self.len() == other.len()
                && self.iter().all(|address| other.iter().any(|theirs| theirs == address))
                && other.iter().all(|address| self.iter().any(|ours| ours == address))
    }
}

impl fmt::Debug for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Appends addresses as they stand in an advert.
pub fn encode_addresses(addresses: impl IntoIterator<Item = IpAddr>, out: &mut Vec<u8>) {
    for address in addresses {
        match address {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
        }
    }
}

/// How the checksum of version 3 over IPv4 is made; for anything else there is one way only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// With the pseudo header of the packet: keepalived.
    #[default]
    PseudoHeader,
    /// Without: RFC 9568 section 5.2.8, and other vendors' routers.
    Plain,
    /// With a pseudo header whose destination is the group even for unicast: keepalived to 1.3.6.
    GroupPseudoHeader,
}

/// An advert. Its version is that of its [`interval`](Self::interval).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advert<'a> {
    /// Of which virtual router.
    pub vrid: Vrid,
    /// Priority of the sender; zero when it leaves.
    pub priority: Priority,
    /// Time between the adverts of the sender.
    pub interval: AdvertInterval,
    /// Proof of the sender; [`Auth::None`] in version 3.
    pub auth: Auth,
    /// Addresses of the virtual router.
    pub addresses: Addresses<'a>,
}

/// An advert that came, and how its checksum was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// The advert.
    pub advert: Advert<'a>,
    /// How the checksum was made; none where there is one way only.
    pub dialect: Option<Dialect>,
}

/// Why bytes are not an advert that we can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpError {
    /// Shorter than it says.
    TooShort {
        /// Bytes received.
        received: usize,
        /// Bytes that were expected.
        expected: usize,
    },
    /// Longer than it says. The trailer of keepalived's `auth_hmac` looks like this.
    TooLong {
        /// Bytes received.
        received: usize,
        /// Bytes that were expected.
        expected: usize,
    },
    /// Neither version 2 nor 3.
    Version(u8),
    /// Version 2 over IPv6, which does not exist.
    VersionFamily,
    /// Not an advertisement.
    Type(u8),
    /// Virtual router zero.
    Vrid,
    /// An interval of zero.
    Interval,
    /// An authentication type that does not exist.
    AuthType(u8),
    /// The authentication header, which is not supported. Deviates from keepalived: RFC 3768
    /// removed it in 2004, and its sequence numbers do not survive a fail-over.
    AuthHeader,
    /// The checksum is wrong in every form.
    Checksum,
}

impl fmt::Display for VrrpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { received, expected } => {
                write!(f, "advert is too short: {received} bytes of {expected}")
            }
            Self::TooLong { received, expected } => {
                write!(f, "advert is too long: {received} bytes for {expected}")
            }
            Self::Version(version) => write!(f, "VRRP version {version} is not known"),
            Self::VersionFamily => f.write_str("VRRP version 2 does not carry IPv6"),
            Self::Type(kind) => write!(f, "VRRP type {kind} is not an advertisement"),
            Self::Vrid => f.write_str("virtual router id is zero"),
            Self::Interval => f.write_str("advertisement interval is zero"),
            Self::AuthType(kind) => write!(f, "authentication type {kind} does not exist"),
            Self::AuthHeader => f.write_str("authentication header (AH) is not supported"),
            Self::Checksum => f.write_str("checksum is wrong"),
        }
    }
}

impl std::error::Error for VrrpError {}

impl VrrpError {
    /// Returns a short name to count by.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::TooShort { .. } | Self::TooLong { .. } => "length",
            Self::Version(_) | Self::VersionFamily => "version",
            Self::Type(_) => "type",
            Self::Vrid => "vrid",
            Self::Interval => "interval",
            Self::AuthType(_) => "auth-type",
            Self::AuthHeader => "auth-header",
            Self::Checksum => "checksum",
        }
    }
}

impl<'a> Advert<'a> {
    /// Reads a message that came along this path.
    ///
    /// Reserved bits are ignored. The bytes behind a message are an error: the padding of a frame
    /// is cut off by the IP header.
    pub fn parse(message: &'a [u8], path: &Path) -> Result<Received<'a>, VrrpError> {
        let received = message.len();
        let short = VrrpError::TooShort { received, expected: HEADER_BYTES };
        let (header, rest) = take::<HEADER_BYTES>(message).ok_or(short)?;
        let [start, vrid, priority, count, i0, i1, _, _] = header;
        let family = Family::of(path.source());
        let version = match start >> 4 {
            2 => Version::V2,
            3 => Version::V3,
            other => return Err(VrrpError::Version(other)),
        };
        if start & 0x0f != TYPE_ADVERTISEMENT {
            return Err(VrrpError::Type(start & 0x0f));
        }
        let address_bytes = usize::from(count) * family.address_bytes();
        let auth_bytes = if version == Version::V2 { AUTH_BYTES } else { 0 };
        let expected = HEADER_BYTES + address_bytes + auth_bytes;
        if received > expected {
            return Err(VrrpError::TooLong { received, expected });
        }
        let short = VrrpError::TooShort { received, expected };
        let (addresses, rest) = rest.split_at_checked(address_bytes).ok_or(short)?;
        let (interval, auth) = match version {
            Version::V2 => {
                let (data, _) = take::<AUTH_BYTES>(rest).ok_or(short)?;
                if family == Family::V6 {
                    return Err(VrrpError::VersionFamily);
                }
                (AdvertInterval::seconds(i1), parse_auth(i0, data)?)
            }
            Version::V3 => {
                let interval = u16::from_be_bytes([i0, i1]) & INTERVAL_MASK;
                (AdvertInterval::centiseconds(interval), Auth::None)
            }
        };
        let dialect = verify(message, path, version)?;
        let advert = Self {
            vrid: Vrid::new(vrid).ok_or(VrrpError::Vrid)?,
            priority: Priority(priority),
            interval: interval.ok_or(VrrpError::Interval)?,
            auth,
            addresses: Addresses { family, bytes: addresses },
        };
        Ok(Received { advert, dialect })
    }

    /// Returns the version.
    pub const fn version(&self) -> Version {
        self.interval.version()
    }

    /// Returns the bytes of the message.
    pub const fn message_bytes(&self) -> usize {
        let auth = match self.version() {
            Version::V2 => AUTH_BYTES,
            Version::V3 => 0,
        };
        HEADER_BYTES + self.addresses.bytes.len() + auth
    }

    /// Appends the message with its checksum for this path. The dialect counts for version 3 over
    /// IPv4 only.
    ///
    /// The addresses should be of the path's family; no receiver takes the message otherwise.
    pub fn encode(&self, path: &Path, dialect: Dialect, out: &mut Vec<u8>) {
        let [i0, i1] = match self.interval {
            AdvertInterval::Seconds(number) => [self.auth.number(), number.get()],
            AdvertInterval::Centiseconds(number) => number.get().to_be_bytes(),
        };
        let start = self.version().number() << 4 | TYPE_ADVERTISEMENT;
        // At most 255 by construction of `Addresses`.
        let count = u8::try_from(self.addresses.len()).unwrap_or(u8::MAX);
        let header = [start, self.vrid.get(), self.priority.0, count, i0, i1];
        let auth = match (self.version(), &self.auth) {
            (Version::V2, Auth::Password(password)) => &password.0[..],
            (Version::V2, Auth::None) => &[0; AUTH_BYTES],
            (Version::V3, _) => &[],
        };
        let length = u32::try_from(self.message_bytes()).unwrap_or(u32::MAX);
        let sum = sum_of_path(path, self.version(), dialect, length)
            .plus(&header)
            .plus(self.addresses.bytes)
            .plus(auth)
            .finish();
        out.extend_from_slice(&header);
        out.extend_from_slice(&sum.to_be_bytes());
        out.extend_from_slice(self.addresses.bytes);
        out.extend_from_slice(auth);
    }

    /// Appends a whole IPv4 packet with this header, for a raw socket that takes headers.
    pub fn encode_ipv4(&self, header: &Ipv4Header, dialect: Dialect, out: &mut Vec<u8>) {
        header.encode(self.message_bytes(), out);
        let Ipv4Header { source, destination, .. } = *header;
        self.encode(&Path::V4 { source, destination }, dialect, out);
    }
}

/// Why an IPv4 packet is not an advert that we can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// The fault is in the IP header.
    Ip(IpError),
    /// It holds another protocol.
    Protocol(u8),
    /// The fault is in the message.
    Vrrp(VrrpError),
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(error) => error.fmt(f),
            Self::Protocol(protocol) => write!(f, "IP protocol {protocol} is not VRRP"),
            Self::Vrrp(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PacketError {}

impl PacketError {
    /// Returns a short name to count by.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Ip(_) | Self::Protocol(_) => "ip-header",
            Self::Vrrp(error) => error.kind(),
        }
    }
}

/// Returns what a packet that cannot be read seems to say: who sent it, and of which virtual
/// router.
pub fn peek_ipv4(packet: &[u8]) -> (Option<Ipv4Addr>, Option<u8>) {
    let Some(&start) = packet.first() else { return (None, None) };
    let source = packet.get(12..16).and_then(|octets| octets.first_chunk().copied());
    let header_bytes = usize::from(start & 0x0f) * 4;
    let message = packet.get(header_bytes..).unwrap_or_default();
    let message = match packet.get(9) {
        // Its second octet counts words of four octets, less two.
        Some(&PROTOCOL_AH) => {
            let words = message.get(1).map_or(0, |&words| usize::from(words) + 2);
            message.get(words * 4..).unwrap_or_default()
        }
        Some(_) | None => message,
    };
    (source.map(Ipv4Addr::from), message.get(1).copied())
}

/// Reads a packet as a raw IPv4 socket gives it. One with an authentication header is refused by
/// name, [`VrrpError::AuthHeader`].
pub fn parse_ipv4(packet: &[u8]) -> Result<(Ipv4Header, Received<'_>), PacketError> {
    let (header, message) = Ipv4Header::parse(packet).map_err(PacketError::Ip)?;
    match header.protocol {
        PROTOCOL_VRRP => {}
        PROTOCOL_AH => return Err(PacketError::Vrrp(VrrpError::AuthHeader)),
        other => return Err(PacketError::Protocol(other)),
    }
    let path = Path::V4 { source: header.source, destination: header.destination };
    let received = Advert::parse(message, &path).map_err(PacketError::Vrrp)?;
    Ok((header, received))
}

fn parse_auth(kind: u8, data: [u8; AUTH_BYTES]) -> Result<Auth, VrrpError> {
    match kind {
        0 => Ok(Auth::None),
        1 => Ok(Auth::Password(Password(data))),
        2 => Err(VrrpError::AuthHeader),
        other => Err(VrrpError::AuthType(other)),
    }
}

/// Checks the sum of a message, its own checksum included.
fn verify(message: &[u8], path: &Path, version: Version) -> Result<Option<Dialect>, VrrpError> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let is_valid = |dialect| sum_of_path(path, version, dialect, length).plus(message).is_valid();
    match (version, path) {
        (Version::V2, _) | (Version::V3, Path::V6 { .. }) => {
            is_valid(Dialect::PseudoHeader).then_some(None).ok_or(VrrpError::Checksum)
        }
        (Version::V3, Path::V4 { .. }) => {
            [Dialect::PseudoHeader, Dialect::Plain, Dialect::GroupPseudoHeader]
                .into_iter()
                .find(|&dialect| is_valid(dialect))
                .map(Some)
                .ok_or(VrrpError::Checksum)
        }
    }
}

/// Starts the checksum of a message.
fn sum_of_path(path: &Path, version: Version, dialect: Dialect, length: u32) -> Checksum {
    match (version, *path, dialect) {
        (Version::V2, ..) | (Version::V3, Path::V4 { .. }, Dialect::Plain) => Checksum::new(),
        (Version::V3, Path::V4 { source, .. }, Dialect::GroupPseudoHeader) => {
            Path::V4 { source, destination: GROUP_V4 }.pseudo_header(PROTOCOL_VRRP, length)
        }
        (Version::V3, Path::V4 { .. }, Dialect::PseudoHeader)
        | (Version::V3, Path::V6 { .. }, _) => path.pseudo_header(PROTOCOL_VRRP, length),
    }
}

#[cfg(test)]
mod tests;
