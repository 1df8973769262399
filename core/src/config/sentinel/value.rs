//! The values that Sentinels name things by. Each is checked once and then trusted.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::limits;

/// Forty hexadecimal digits that name a Sentinel, a server's run, or a replication history.
///
/// The letters keep the case they came in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId([u8; Self::LEN]);

impl RunId {
    /// Length, bytes.
    pub const LEN: usize = 40;

    /// Reads it; `None` unless the text is forty hexadecimal digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits: [u8; Self::LEN] = text.try_into().ok()?;
        digits.iter().all(u8::is_ascii_hexdigit).then_some(Self(digits))
    }

    /// Makes one from 160 random bits.
    pub fn from_random(bits: [u8; 20]) -> Self {
        let mut digits = [b'0'; Self::LEN];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bits) {
            for (digit, value) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
                *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
            }
        }
        Self(digits)
    }

    /// Returns the digits.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the digits as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether all digits are zero, which is how a server writes that it has no second history.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|digit| *digit == b'0')
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The number of an election or of the configuration that one produced.
///
/// At most 2^63 - 1, because replies carry it as a signed integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// Before the first election.
    pub const ZERO: Self = Self(0);
    /// The last one; no election can follow it.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// Makes an epoch, `None` above [`MAX`](Self::MAX).
    pub const fn new(value: u64) -> Option<Self> {
        if value <= Self::MAX.0 { Some(Self(value)) } else { None }
    }

    /// Reads decimal digits without leading zeros; `None` for anything else and above
    /// [`MAX`](Self::MAX).
    pub fn parse(text: &[u8]) -> Option<Self> {
        canonical_number(text).and_then(Self::new)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the number as replies carry it.
    #[expect(clippy::cast_possible_wrap, reason = "at most i64::MAX by construction")]
    pub const fn as_integer(self) -> i64 {
        self.0 as i64
    }

    /// Returns the epoch of the next election, `None` behind the last.
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// Whether a peer's epoch may be taken over by one whose own is `current`.
    ///
    /// Every election adds one, so a distance above [`limits::EPOCH_JUMP_MAX`] is no history but an
    /// attempt to use the numbers up.
    pub const fn is_plausible_after(self, current: Self) -> bool {
        self.0 <= current.0.saturating_add(limits::EPOCH_JUMP_MAX)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads decimal digits without sign and leading zeros.
pub(crate) fn canonical_number(text: &[u8]) -> Option<u64> {
    match text {
        [] | [b'0', _, ..] => None,
        digits if digits.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(digits).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// What operators call a master. Also the identity of its shard: it never changes at a fail-over.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MasterName(Arc<str>);

impl MasterName {
    /// Checks a name: 1 to [`limits::MASTER_NAME_BYTES_MAX`] bytes without commas, which separate
    /// the fields of a hello, and without spaces and control characters, which separate those of an
    /// event.
    pub fn new(name: &str) -> Option<Self> {
        is_field(name, limits::MASTER_NAME_BYTES_MAX).then(|| Self(name.into()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MasterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MasterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

fn is_field(text: &str, bytes_max: usize) -> bool {
    !text.is_empty()
        && text.len() <= bytes_max
        && !text.chars().any(|c| c == ',' || c.is_whitespace() || c.is_control())
}

/// A host, as a name or an IP address without brackets, and a port. Not resolved.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: Arc<str>,
    port: u16,
}

/// Why a host and a port are no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// The host is empty, longer than [`limits::HOST_BYTES_MAX`], or holds a comma, a space or a
    /// control character.
    Host,
    /// The port is no number of 1..=65535.
    Port,
}

impl Address {
    /// Checks a host and a port.
    ///
    /// # Errors
    ///
    /// The part that is wrong.
    pub fn new(host: &str, port: u16) -> Result<Self, AddressError> {
        if !is_field(host, limits::HOST_BYTES_MAX) {
            return Err(AddressError::Host);
        }
        if port == 0 {
            return Err(AddressError::Port);
        }
        Ok(Self { host: host.into(), port })
    }

    /// Reads both from the wire.
    ///
    /// # Errors
    ///
    /// The part that is wrong; the host first.
    pub fn parse(host: &[u8], port: &[u8]) -> Result<Self, AddressError> {
        let host = std::str::from_utf8(host).map_err(|_| AddressError::Host)?;
        let port = canonical_number(port).and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        Self::new(host, port)
    }

    /// Returns the host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, never 0.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether both name the same place: the ports are equal, and the hosts are the same IP
    /// address or the same name in any case.
    pub fn is_same(&self, other: &Self) -> bool {
        let same_ip = || {
            let ip = self.host.parse::<IpAddr>().ok()?;
            Some(ip == other.host.parse::<IpAddr>().ok()?)
        };
        self.port == other.port
            && (self.host.eq_ignore_ascii_case(&other.host) || same_ip() == Some(true))
    }
}

/// `host:port`, an IPv6 address in brackets: the name of a replica.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_is_forty_hexadecimal_digits() {
        let id = RunId::parse(&[b'a'; 40]).unwrap();
        assert_eq!(id.as_str(), "a".repeat(40));
        assert_eq!(RunId::parse(&[b'a'; 39]), None);
        assert_eq!(RunId::parse(&[b'g'; 40]), None);
        let mut bits = [0; 20];
        bits[0] = 0x1f;
        bits[19] = 0xa0;
        assert_eq!(RunId::from_random(bits).as_str(), format!("1f{}a0", "0".repeat(36)));
        assert!(RunId::from_random([0; 20]).is_zero());
    }

    #[test]
    fn epochs_end_where_a_reply_could_not_carry_them() {
        assert_eq!(Epoch::parse(b"9223372036854775807"), Some(Epoch::MAX));
        assert_eq!(Epoch::parse(b"9223372036854775808"), None);
        for text in ["", "01", "-1", "+1", " 1", "1 ", "18446744073709551616"] {
            assert_eq!(Epoch::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Epoch::MAX.next(), None);
        assert_eq!(Epoch::MAX.as_integer(), i64::MAX);
        let far = Epoch::new(limits::EPOCH_JUMP_MAX + 1).unwrap();
        assert!(!far.is_plausible_after(Epoch::ZERO));
        assert!(far.is_plausible_after(Epoch::ZERO.next().unwrap()));
    }

    #[test]
    fn addresses_are_the_same_by_ip_or_by_name() {
        let address = |host, port| Address::new(host, port).unwrap();
        assert!(address("::1", 1).is_same(&address("0:0::1", 1)));
        assert!(address("Redis-A", 1).is_same(&address("redis-a", 1)));
        assert!(!address("redis-a", 1).is_same(&address("redis-a", 2)));
        assert!(!address("a", 1).is_same(&address("b", 1)));
        assert_eq!(address("::1", 6379).to_string(), "[::1]:6379");
        assert_eq!(Address::new("a,b", 1), Err(AddressError::Host));
        assert_eq!(Address::new("a b", 1), Err(AddressError::Host));
        assert_eq!(Address::parse(b"a", b"0"), Err(AddressError::Port));
        assert_eq!(Address::parse(b"a", b"65536"), Err(AddressError::Port));
    }
}
