//! Reads the classic pcap format, little-endian, Ethernet: just what the vectors use.

use std::path::Path;

fn word(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize
}

/// Returns the frames of a capture.
pub(crate) fn frames(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/vrrp").join(name);
    let file = std::fs::read(path).unwrap();
    assert_eq!(file[..4], [0xd4, 0xc3, 0xb2, 0xa1], "{name}: byte order");
    assert_eq!(word(&file[20..]), 1, "{name}: link type");
    let mut frames = Vec::new();
    let mut rest = &file[24..];
    while !rest.is_empty() {
        let (captured, sent) = (word(&rest[8..]), word(&rest[12..]));
        assert_eq!(captured, sent, "{name}: a frame is cut");
        frames.push(rest[16..16 + captured].to_vec());
        rest = &rest[16 + captured..];
    }
    frames
}
