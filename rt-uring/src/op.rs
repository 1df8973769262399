//! What a completion is about: the kind of operation in the top byte of `user_data`, below it the
//! 56 bits that name whom it is for.

/// The kinds of operation that the ring knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    /// Multishot accept; the name is the listener's position.
    Accept = 1,
    /// Multishot receive; the name is the connection.
    Receive = 2,
    /// Send; the name is the place where the buffer is parked, which knows the connection.
    Send = 3,
    /// Connect; the name is the place where the address is parked, which knows the connection.
    Connect = 4,
    /// Multishot poll of the mailbox's event descriptor; no name.
    Wake = 5,
    /// Cancels operations of the connection that it names.
    Cancel = 6,
    /// Cancels everything; no name.
    CancelAll = 7,
    /// Cancels the accept of a listener; no name, for the accept's own completion tells.
    CancelAccept = 8,
    /// Multishot poll of a channel; the name is the channel.
    Channel = 9,
    /// Cancels the poll of a channel; no name.
    CancelChannel = 10,
}

const NAME_BITS: u32 = 56;
const NAME_MASK: u64 = (1 << NAME_BITS) - 1;

/// Packs an operation and a name; bits of the name above the 56th are dropped.
pub(crate) const fn user_data(op: Op, name: u64) -> u64 {
    (op as u64) << NAME_BITS | name & NAME_MASK
}

/// Unpacks what [`user_data`] packed; `None` when it did not.
pub(crate) const fn parse(user_data: u64) -> Option<(Op, u64)> {
    let op = match user_data >> NAME_BITS {
        1 => Op::Accept,
        2 => Op::Receive,
        3 => Op::Send,
        4 => Op::Connect,
        5 => Op::Wake,
        6 => Op::Cancel,
        7 => Op::CancelAll,
        8 => Op::CancelAccept,
        9 => Op::Channel,
        10 => Op::CancelChannel,
        _ => return None,
    };
    Some((op, user_data & NAME_MASK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_and_its_name_survive_the_kernel() {
        let ops = [
            Op::Accept,
            Op::Receive,
            Op::Send,
            Op::Connect,
            Op::Wake,
            Op::Cancel,
            Op::CancelAll,
            Op::CancelAccept,
            Op::Channel,
            Op::CancelChannel,
        ];
        for op in ops {
            for name in [0, 1, NAME_MASK] {
                assert_eq!(parse(user_data(op, name)), Some((op, name)));
            }
        }
        assert_eq!(parse(0), None);
        assert_eq!(parse(u64::MAX), None);
    }
}
