//! `crc32` and `crc32a`: the polynomial 0x04c11db7, reflected (ISO-HDLC).

const TABLE: [u32; 256] = table();

/// Keeps fifteen bits of the checksum: libmemcached's cut, made so that the value fits a positive
/// 16-bit integer.
#[inline]
pub(super) fn crc32(key: &[u8]) -> u32 {
    (crc32a(key) >> 16) & 0x7fff
}

#[inline]
#[expect(clippy::indexing_slicing, reason = "eight bits cannot leave a table of 256")]
pub(super) fn crc32a(key: &[u8]) -> u32 {
    !key.iter()
        .fold(u32::MAX, |crc, &byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(byte)) & 0xff) as usize])
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256_u32 {
        let mut crc = byte;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0xedb8_8320 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
}
