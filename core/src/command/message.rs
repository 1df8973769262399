//! What Redis says about a call that names no command or has too few or too many arguments.

use super::Command;
use crate::wire::resp::{Span, encode};

/// Bytes of the name, and of all arguments together, that an error repeats. As Redis.
const SHOWN_BYTES_MAX: usize = 128;

/// Appends the reply to a call of a command that does not exist, in Redis' words.
pub fn encode_unknown(frame: &[u8], args: &[Span], out: &mut Vec<u8>) {
    let (name, rest) =
        args.split_first().map_or((&b""[..], args), |(name, rest)| (name.of(frame), rest));
    let mut shown = Vec::new();
    for arg in rest {
        if shown.len() >= SHOWN_BYTES_MAX {
            break;
        }
        let arg = prefix(arg.of(frame), SHOWN_BYTES_MAX - shown.len());
        shown.push(b'\'');
        shown.extend_from_slice(arg);
        shown.extend_from_slice(b"' ");
    }
    let name = prefix(name, SHOWN_BYTES_MAX);
    encode::error_parts(
        out,
        &[b"ERR unknown command '", name, b"', with args beginning with: ", &shown],
    );
}

/// Appends the reply to a call with too few or too many arguments, in Redis' words.
pub fn encode_wrong_arity(command: &Command, out: &mut Vec<u8>) {
    let name = command.name.as_bytes();
    encode::error_parts(out, &[b"ERR wrong number of arguments for '", name, b"' command"]);
}

fn prefix(bytes: &[u8], len_max: usize) -> &[u8] {
    bytes.get(..len_max).unwrap_or(bytes)
}
