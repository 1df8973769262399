//! Values that say whose they are.

/// Length and hash of a value: enough to tell two values apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub len: usize,
    hash: u64,
}

impl Digest {
    pub(crate) fn of(value: &[u8]) -> Self {
        let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
        let mut words = value.chunks_exact(8);
        for word in &mut words {
            let word = word.try_into().map_or(0, u64::from_le_bytes);
            hash = (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
        }
        for byte in words.remainder() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self { len: value.len(), hash }
    }
}

/// Who wrote a value: client, number of the request, position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub client: u32,
    pub seq: u64,
    pub index: usize,
}

impl Tag {
    /// Reads the tag at the front of a value; short values have none.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let head = &value[..value.len().min(48)];
        let end = head.iter().position(|byte| *byte == b'|')?;
        let mut parts = std::str::from_utf8(&head[..end]).ok()?.strip_prefix('v')?.split('.');
        let tag = Self {
            client: parts.next()?.parse().ok()?,
            seq: parts.next()?.parse().ok()?,
            index: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(tag)
    }
}

/// What fills values up: bytes that look like protocol to a careless reader.
const FILLER: &[u8] = b"\r\n$-1\r\n*3\r\n+OK\r\n:1\r\n-ERR\r\n\0\xff\r\r\n\n";

/// Makes the value of `len` bytes that carries `tag`, as far as it fits.
pub(crate) fn make_value(tag: Tag, len: usize) -> Vec<u8> {
    let mut value = format!("v{}.{}.{}|", tag.client, tag.seq, tag.index).into_bytes();
    while value.len() < len {
        let rest = len - value.len();
        value.extend_from_slice(&FILLER[..rest.min(FILLER.len())]);
    }
    value.truncate(len);
    value
}

/// Returns the value that a server makes up for a key of the form
/// `e<pool>:<client>.<seq>.<len>`: a reply that only one request can have.
pub(crate) fn synthetic_value(key: &[u8]) -> Option<Vec<u8>> {
    let (tag, len) = synthetic(key)?;
    Some(make_value(tag, len))
}

/// Returns the request that such a key names.
pub(crate) fn synthetic_tag(key: &[u8]) -> Option<Tag> {
    synthetic(key).map(|(tag, _)| tag)
}

fn synthetic(key: &[u8]) -> Option<(Tag, usize)> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix('e')?;
    let (_, name) = text.split_once(':')?;
    let mut parts = name.split('.');
    let client = parts.next()?.parse().ok()?;
    let seq = parts.next()?.parse().ok()?;
    let len = parts.next()?.parse().ok()?;
    Some((Tag { client, seq, index: 99 }, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_writer_when_it_is_long_enough() {
        let tag = Tag { client: 3, seq: 70, index: 2 };
        assert_eq!(Tag::parse(&make_value(tag, 500)), Some(tag));
        assert_eq!(Tag::parse(&make_value(tag, 5)), None);
        assert_eq!(make_value(tag, 70_000).len(), 70_000);
    }

    #[test]
    fn a_made_up_value_follows_from_its_key() {
        assert_eq!(synthetic_value(b"e0:1.2.30").map(|value| value.len()), Some(30));
        assert_eq!(synthetic_value(b"k0:1"), None);
    }
}
