//! A whole worker between clients and servers that do what the input says, a list of steps.
//!
//! `steps.rs` has the steps, `play.rs` carries them out, `wire.rs` knows both ends of each
//! connection and what the border's contract allows on it, `speech.rs` what clients and servers
//! say to each other, `memcache.rs` the same in memcached's words: every request names itself in its key, and every reply its request.

mod memcache;
mod play;
mod speech;
mod steps;
mod wire;

use arbitrary::{Arbitrary, Unstructured};

pub use self::play::play;
pub use self::steps::{Ask, Op, Setup, Step};

/// Steps of one run: enough to fill every queue that small limits allow.
const STEPS_MAX: usize = 400;

/// Plays what the bytes spell.
pub(crate) fn worker(data: &[u8]) {
    if let Some((setup, steps)) = spell(data) {
        play(&setup, &steps);
    }
}

/// Plays the same with memcached's protocol.
pub(crate) fn worker_memcache(data: &[u8]) {
    if let Some((setup, steps)) = spell(data) {
        play(&Setup { is_memcache: true, ..setup }, &steps);
    }
}

/// Returns the run that the bytes spell; to see what an input does, print it.
pub fn spell(data: &[u8]) -> Option<(Setup, Vec<Step>)> {
    let mut bytes = Unstructured::new(data);
    let setup = Setup::arbitrary(&mut bytes).ok()?;
    let mut steps = Vec::new();
    while !bytes.is_empty() && steps.len() < STEPS_MAX {
        steps.push(Step::arbitrary(&mut bytes).ok()?);
    }
    Some((setup, steps))
}
