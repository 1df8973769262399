//! Keys and values that both ends can compute, so that every reply can be checked.
//!
//! A key is `S:NNNNNNNN`: the letter of its key space and a decimal number. Its value starts with
//! the key and goes on with a fixed pattern; its size follows from the space and the number. A
//! reply that belongs to another request, is cut or is shifted is therefore recognised.

/// Bytes in every key.
pub const KEY_BYTES: usize = 10;

/// The shortest value: a key and some pattern.
pub const VALUE_BYTES_MIN: usize = 16;

/// The longest value.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// A key space: a letter, how many keys it has and how large their values are.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// First byte of every key in it.
    pub letter: u8,
    /// Keys are numbered from 0 up to this, exclusively.
    pub keys: u32,
    /// Value sizes in bytes; key `n` has `sizes[n % sizes.len()]`.
    pub sizes: &'static [usize],
}

/// 64-byte values.
pub const SMALL: Space = Space { letter: b'a', keys: 100_000, sizes: &[64] };
/// 16 KiB values; few, so that real servers hold them in 32 MiB.
pub const LARGE: Space = Space { letter: b'e', keys: 2_000, sizes: &[16 << 10] };
/// Values of 16 bytes to 4 KiB, in powers of two.
pub const MIXED: Space =
    Space { letter: b's', keys: 20_000, sizes: &[16, 32, 64, 128, 256, 512, 1024, 2048, 4096] };
/// 1 MiB values, for the memory benchmark.
pub const HUGE: Space = Space { letter: b'h', keys: 1_000, sizes: &[VALUE_BYTES_MAX] };

/// Every key space.
pub const SPACES: [Space; 4] = [SMALL, LARGE, MIXED, HUGE];

/// Returns the key with this number.
pub fn key(letter: u8, number: u32) -> [u8; KEY_BYTES] {
    let mut key = [b'0'; KEY_BYTES];
    key[0] = letter;
    key[1] = b':';
    let mut rest = number;
    for digit in key[2..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Returns the letter and the number of a key, or nothing if it is not one of ours.
pub fn parse_key(key: &[u8]) -> Option<(u8, u32)> {
    let key: &[u8; KEY_BYTES] = key.try_into().ok()?;
    if key[1] != b':' {
        return None;
    }
    let mut number = 0u32;
    for digit in &key[2..] {
        number = number * 10 + u32::from(digit.wrapping_sub(b'0') & 15);
    }
    Some((key[0], number))
}

/// What clients and servers speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Redis' own, version 2.
    #[default]
    Resp,
    /// memcached's text protocol.
    Memcached,
}

/// A value of one size as a bulk string or as memcached's `VALUE`, with a gap for the key.
pub struct Frame {
    bytes: Box<[u8]>,
    /// Where the value begins, with its key.
    key_at: usize,
    /// Where the header names the key, as memcached's does.
    name_at: Option<usize>,
}

/// What a look at the front of received bytes told.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// The frame is not complete yet.
    Part,
    /// The frame is there and right; it has this many bytes.
    Whole(usize),
    /// These bytes are not the frame that was due.
    Wrong,
}

impl Frame {
    fn new(protocol: Protocol, size: usize) -> Self {
        assert!((VALUE_BYTES_MIN..=VALUE_BYTES_MAX).contains(&size));
        let (mut bytes, name_at) = match protocol {
            Protocol::Resp => (format!("${size}\r\n").into_bytes(), None),
            Protocol::Memcached => {
                (format!("VALUE ?????????? 0 {size}\r\n").into_bytes(), Some("VALUE ".len()))
            }
        };
        let key_at = bytes.len();
        // The period is a prime, so that a shift by a power of two shows.
        bytes.extend((0..size).map(|at| b'a' + (at % 23) as u8));
        bytes.extend_from_slice(b"\r\n");
        Self { bytes: bytes.into(), key_at, name_at }
    }

    /// Bytes of the bulk string with its header and end.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the value alone.
    pub fn value_bytes(&self) -> usize {
        self.bytes.len() - self.key_at - 2
    }

    /// Appends the bulk string for this key.
    pub fn write(&self, key: &[u8; KEY_BYTES], out: &mut Vec<u8>) {
        let start = out.len() + self.key_at;
        if let Some(name_at) = self.name_at {
            let name = out.len() + name_at;
            out.extend_from_slice(&self.bytes);
            out[name..name + KEY_BYTES].copy_from_slice(key);
        } else {
            out.extend_from_slice(&self.bytes);
        }
        out[start..start + KEY_BYTES].copy_from_slice(key);
    }

    /// Appends the value alone, with its line end.
    pub fn write_value(&self, key: &[u8; KEY_BYTES], out: &mut Vec<u8>) {
        out.extend_from_slice(key);
        out.extend_from_slice(&self.bytes[self.key_at + KEY_BYTES..]);
    }

    /// Compares a value and its line end with what belongs to this key.
    pub fn is_value(&self, key: &[u8; KEY_BYTES], seen: &[u8]) -> bool {
        let value = &self.bytes[self.key_at..];
        seen.len() == value.len()
            && seen[..KEY_BYTES] == *key
            && seen[seen.len() - 6..] == value[value.len() - 6..]
    }

    /// Compares received bytes with the bulk string of this key.
    ///
    /// The header, the key, the end and the pattern beside them are always compared; all of a long
    /// pattern only if `every_byte`, because the generator shares its core with the servers.
    pub fn check(&self, key: &[u8; KEY_BYTES], seen: &[u8], every_byte: bool) -> Seen {
        let bytes = &*self.bytes;
        let head = self.key_at.min(seen.len());
        let is_head = match self.name_at {
            None => seen[..head] == bytes[..head],
            Some(at) => {
                let end = at + KEY_BYTES;
                let name = at.min(head)..end.min(head);
                seen[..name.start] == bytes[..name.start]
                    && key.starts_with(&seen[name.clone()])
                    && seen[name.end..head] == bytes[name.end..head]
            }
        };
        if !is_head {
            return Seen::Wrong;
        }
        if seen.len() < bytes.len() {
            return Seen::Part;
        }
        let seen = &seen[..bytes.len()];
        let after_key = self.key_at + KEY_BYTES;
        let from = if every_byte || bytes.len() < 128 { after_key } else { bytes.len() - 16 };
        if seen[self.key_at..after_key] == *key && seen[from..] == bytes[from..] {
            Seen::Whole(bytes.len())
        } else {
            Seen::Wrong
        }
    }
}

/// The frames of every key space.
pub struct Frames {
    by_letter: Vec<Vec<Frame>>,
}

impl Frames {
    /// Lays out the frames of all [`SPACES`] as bulk strings.
    pub fn new() -> Self {
        Self::of(Protocol::Resp)
    }

    /// Lays out the frames of all [`SPACES`].
    pub fn of(protocol: Protocol) -> Self {
        let mut by_letter: Vec<Vec<Frame>> = (0..256).map(|_| Vec::new()).collect();
        for space in SPACES {
            by_letter[usize::from(space.letter)] =
                space.sizes.iter().map(|size| Frame::new(protocol, *size)).collect();
        }
        Self { by_letter }
    }

    /// Returns the frame for the value of a key, or nothing for an unknown space.
    pub fn frame(&self, letter: u8, number: u32) -> Option<&Frame> {
        let frames = &self.by_letter[usize::from(letter)];
        if frames.len() == 1 {
            return frames.first();
        }
        frames.get((number as usize).checked_rem(frames.len())?)
    }
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back() {
        assert_eq!(&key(b'a', 4_207), b"a:00004207");
        assert_eq!(parse_key(b"a:00004207"), Some((b'a', 4_207)));
        assert_eq!(parse_key(b"a:0004207"), None);
    }

    #[test]
    fn a_frame_of_memcached_names_its_key_twice() {
        let frames = Frames::of(Protocol::Memcached);
        let frame = frames.frame(b's', 7).expect("space s");
        let (mine, other) = (key(b's', 7), key(b's', 16));
        let mut bytes = Vec::new();
        frame.write(&mine, &mut bytes);
        assert!(bytes.starts_with(b"VALUE s:00000007 0 2048\r\ns:00000007"));
        for cut in 0..bytes.len() {
            assert_eq!(frame.check(&mine, &bytes[..cut], true), Seen::Part, "{cut}");
        }
        assert_eq!(frame.check(&mine, &bytes, true), Seen::Whole(bytes.len()));
        assert_eq!(frame.check(&other, &bytes, true), Seen::Wrong);
        let mut value = Vec::new();
        frame.write_value(&mine, &mut value);
        assert!(bytes.ends_with(&value) && value.len() == 2050);
        assert!(frame.is_value(&mine, &value) && !frame.is_value(&other, &value));
    }

    #[test]
    fn a_frame_knows_its_own_key_and_no_other() {
        let frames = Frames::new();
        let frame = frames.frame(b's', 7).expect("space s");
        assert_eq!(frame.value_bytes(), 2048);
        let (mine, other) = (key(b's', 7), key(b's', 16));
        let mut bytes = Vec::new();
        frame.write(&mine, &mut bytes);
        assert_eq!(frame.check(&mine, &bytes, true), Seen::Whole(frame.bytes()));
        assert_eq!(frame.check(&mine, &bytes[..9], true), Seen::Part);
        assert_eq!(frame.check(&other, &bytes, true), Seen::Wrong);
        assert_eq!(frame.check(&mine, b"-ERR no\r\n", true), Seen::Wrong);
        bytes[100] ^= 1;
        assert_eq!(frame.check(&mine, &bytes, true), Seen::Wrong);
    }
}
