//! `SENTINEL is-master-down-by-addr`: suspicion and vote in one question.

use super::instance::{Address, AddressError, Epoch, RunId};
use super::role::bulk;
use crate::wire::resp::{
    ReplyScan, ReplyScanner, array_elements, encode, is_error, parse_integer, parse_integer_reply,
};

/// What one Sentinel asks another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The master, by address and not by name.
    pub address: Address,
    /// The election in which a vote is wanted; otherwise the asker's current epoch.
    pub epoch: Epoch,
    /// Whom to vote for; none asks only whether the master is down.
    pub candidate: Option<RunId>,
}

/// Why the arguments are no question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskError {
    /// Not four arguments.
    Arity,
    /// The port or the epoch is no integer, or out of range.
    NotAnInteger,
    /// No master can have this address: it is answered like one that is not watched.
    Address(AddressError),
    /// The candidate is neither `*` nor an ID. It is answered as if no vote was wanted.
    Candidate,
}

impl AskError {
    /// Returns the error reply of genuine Sentinels; none where they answer that they know nothing.
    pub const fn reply(self) -> Option<&'static str> {
        match self {
            Self::Arity => {
                Some("ERR wrong number of arguments for 'sentinel|is-master-down-by-addr' command")
            }
            Self::NotAnInteger => Some("ERR value is not an integer or out of range"),
            Self::Address(_) | Self::Candidate => None,
        }
    }
}

impl Ask {
    /// Reads what follows the subcommand.
    ///
    /// # Errors
    ///
    /// The first argument that is wrong, the numbers before the rest.
    ///
    /// Deviates: a negative epoch is refused; genuine Sentinels take it for a huge one, after which
    /// no election is possible.
    pub fn parse(arguments: &[&[u8]]) -> Result<Self, AskError> {
        let [host, port, epoch, candidate] = *arguments else { return Err(AskError::Arity) };
        let port = parse_integer(port).ok_or(AskError::NotAnInteger)?;
        let epoch = Epoch::parse(epoch).ok_or(AskError::NotAnInteger)?;
        let host = std::str::from_utf8(host).unwrap_or_default();
        let port = u16::try_from(port).unwrap_or(0);
        let address = Address::new(host, port).map_err(AskError::Address)?;
        let candidate = match candidate {
            b"*" => None,
            id => Some(RunId::parse(id).ok_or(AskError::Candidate)?),
        };
        Ok(Self { address, epoch, candidate })
    }

    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (port, epoch) = (self.address.port().to_string(), self.epoch.to_string());
        let candidate = self.candidate.as_ref().map_or(&b"*"[..], |id| id.as_bytes());
        let args: [&[u8]; 6] = [
            b"SENTINEL",
            b"is-master-down-by-addr",
            self.address.host().as_bytes(),
            port.as_bytes(),
            epoch.as_bytes(),
            candidate,
        ];
        encode::request(out, &args);
    }
}

/// What the other answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it sees the master subjectively down.
    pub is_down: bool,
    /// Whom it voted for in [`epoch`](Self::epoch), if it tells.
    pub leader: Option<RunId>,
    /// The election of that vote; 0 where it tells none.
    pub epoch: Epoch,
}

/// Why a frame is no answer. The peer's last answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// Not one whole frame.
    Incomplete,
    /// The peer refused, for instance because it wants a password.
    Refused,
    /// Not an array of three.
    Shape,
    /// The first element is no integer.
    IsDown,
    /// The second element is neither `*` nor an ID.
    Leader,
    /// The third element is no epoch.
    Epoch,
}

impl Answer {
    /// The answer about a master that is not watched.
    pub const UNKNOWN: Self = Self { is_down: false, leader: None, epoch: Epoch::ZERO };

    /// Reads a whole frame.
    ///
    /// # Errors
    ///
    /// The first part that is wrong.
    pub fn parse(frame: &[u8]) -> Result<Self, AnswerError> {
        match ReplyScanner::default().advance(frame) {
            Ok(ReplyScan::Complete { len }) if len == frame.len() => {}
            Ok(_) | Err(_) => return Err(AnswerError::Incomplete),
        }
        if is_error(frame) {
            return Err(AnswerError::Refused);
        }
        let mut elements = array_elements(frame).ok_or(AnswerError::Shape)?;
        if elements.announced() != 3 {
            return Err(AnswerError::Shape);
        }
        let mut next = || elements.next().ok_or(AnswerError::Shape);
        let is_down = parse_integer_reply(next()?).ok_or(AnswerError::IsDown)? != 0;
        let leader = match bulk(next()?).ok_or(AnswerError::Leader)? {
            b"*" => None,
            id => Some(RunId::parse(id).ok_or(AnswerError::Leader)?),
        };
        let epoch = parse_integer_reply(next()?).and_then(|epoch| u64::try_from(epoch).ok());
        let epoch = epoch.and_then(Epoch::new).ok_or(AnswerError::Epoch)?;
        Ok(Self { is_down, leader, epoch })
    }

    /// Appends the reply.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode::array_header(out, 3);
        encode::integer(out, i64::from(self.is_down));
        encode::bulk(out, self.leader.as_ref().map_or(&b"*"[..], |id| id.as_bytes()));
        encode::integer(out, self.epoch.as_integer());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &[u8; 40] = b"ed876f246f47abe4498cf4d7717a90ad6aedc381";

    #[test]
    fn arguments_are_judged_as_genuine_sentinels_judge_them() {
        let parse = |args: [&str; 4]| Ask::parse(&args.map(str::as_bytes));
        assert_eq!(parse(["h", "x", "0", "*"]), Err(AskError::NotAnInteger));
        assert_eq!(parse(["h", "1", "y", "*"]), Err(AskError::NotAnInteger));
        assert_eq!(parse(["h", "1", "-1", "*"]), Err(AskError::NotAnInteger));
        assert_eq!(parse(["h", "0", "1", "*"]), Err(AskError::Address(AddressError::Port)));
        assert_eq!(parse(["", "1", "1", "*"]), Err(AskError::Address(AddressError::Host)));
        assert_eq!(parse(["h", "1", "1", "me"]), Err(AskError::Candidate));
        assert_eq!(Ask::parse(&[b"h", b"1", b"1"]), Err(AskError::Arity));
        assert_eq!(parse(["h", "1", "2", "*"]).unwrap().candidate, None);
    }

    #[test]
    fn each_wrong_part_of_an_answer_has_its_own_error() {
        let error = |frame: &str| Answer::parse(frame.as_bytes()).unwrap_err();
        assert_eq!(error("*3\r\n:1\r\n"), AnswerError::Incomplete);
        assert_eq!(error("-NOAUTH\r\n"), AnswerError::Refused);
        assert_eq!(error("*2\r\n:1\r\n:1\r\n"), AnswerError::Shape);
        assert_eq!(error("*3\r\n+x\r\n$1\r\n*\r\n:0\r\n"), AnswerError::IsDown);
        assert_eq!(error("*3\r\n:1\r\n$1\r\nx\r\n:0\r\n"), AnswerError::Leader);
        assert_eq!(error("*3\r\n:1\r\n$1\r\n*\r\n:-1\r\n"), AnswerError::Epoch);
    }

    proptest! {
        #[test]
        fn both_directions_agree(
            is_down in any::<bool>(),
            votes in any::<bool>(),
            epoch in 0..=Epoch::MAX.get(),
            port in 1..=u16::MAX,
        ) {
            let (epoch, id) = (Epoch::new(epoch).unwrap(), votes.then(|| RunId::parse(ID).unwrap()));
            let answer = Answer { is_down, leader: id, epoch };
            let mut out = Vec::new();
            answer.encode(&mut out);
            prop_assert_eq!(Answer::parse(&out), Ok(answer));

            let address = Address::new("::1", port).unwrap();
            let ask = Ask { address, epoch, candidate: id };
            out.clear();
            ask.encode(&mut out);
            let args: Vec<&[u8]> = array_elements(&out).unwrap().filter_map(bulk).skip(2).collect();
            prop_assert_eq!(Ask::parse(&args), Ok(ask));
        }
    }
}
