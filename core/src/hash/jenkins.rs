//! `jenkins`: lookup3's `hashlittle`. Source: Bob Jenkins, lookup3.c, May 2006.

use super::length;

const INITIAL: u32 = 13;

#[inline]
pub(super) fn jenkins(key: &[u8]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(length(key)).wrapping_add(INITIAL);
    let mut state = [start; 3];
    let (blocks, rest) = key.as_chunks::<12>();
    // The last block, whole or not, is closed by another mix than those before it.
    let (last, before) = match blocks.split_last() {
        Some((last, before)) if rest.is_empty() => (*last, before),
        Some(_) | None if rest.is_empty() => return start,
        Some(_) | None => {
            let mut padded = [0; 12];
            for (to, from) in padded.iter_mut().zip(rest) {
                *to = *from;
            }
            (padded, blocks)
        }
    };
    for &block in before {
        state = mix(add(state, block));
    }
    close(add(state, last))
}

#[inline]
fn add([a, b, c]: [u32; 3], block: [u8; 12]) -> [u32; 3] {
    let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = block;
    [
        a.wrapping_add(u32::from_le_bytes([a0, a1, a2, a3])),
        b.wrapping_add(u32::from_le_bytes([b0, b1, b2, b3])),
        c.wrapping_add(u32::from_le_bytes([c0, c1, c2, c3])),
    ]
}

#[inline]
fn mix([mut a, mut b, mut c]: [u32; 3]) -> [u32; 3] {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    [a, b, c]
}

#[inline]
fn close([mut a, mut b, mut c]: [u32; 3]) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}
