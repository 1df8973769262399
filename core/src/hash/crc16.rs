//! `crc16`: the polynomial 0x1021, most significant bit first (XMODEM).

const TABLE: [u32; 256] = table();

/// Hashes a key.
///
/// The accumulator is never cut to 16 bits, so that for keys of more than two bytes the upper half
/// is not zero. It looks like a mistake, and it is what twemproxy routes by.
#[inline]
#[expect(clippy::indexing_slicing, reason = "eight bits cannot leave a table of 256")]
pub(super) fn crc16(key: &[u8]) -> u32 {
    key.iter().fold(0, |crc: u32, &byte| {
        (crc << 8) ^ TABLE[(((crc >> 8) ^ u32::from(byte)) & 0xff) as usize]
    })
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256_u32 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte as usize] = crc & 0xffff;
        byte += 1;
    }
    table
}
