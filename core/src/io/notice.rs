//! What workers tell each other, and what of the border is counted.

use super::{Endpoint, Failure, Limit, Recipient};
use crate::id::WorkerId;
use crate::stats::{Answer, ErrorKind, LimitKind, Peer, Query, Question};

/// News between workers: a value, never a shared lock.
#[derive(Clone, Debug)]
pub enum Notice {
    /// Somebody wants to know something of every worker with clients. Each answers once; who asks
    /// waits for at most [`ANSWER_DEADLINE`](crate::limits::ANSWER_DEADLINE).
    Question {
        /// Who asks, and gets the answer.
        from: Recipient,
        /// The question's name, of the asker's choice.
        query: Query,
        /// What is asked.
        question: Question,
    },
    /// The host has read the configuration again. For the control worker.
    ConfigRead {
        /// Whether it is in use now; if not, the one before is.
        is_good: bool,
    },
    /// What a worker says to a [`Notice::Question`].
    Answer {
        /// Which worker.
        from: WorkerId,
        /// The question's name.
        query: Query,
        /// The answer.
        answer: Answer,
    },
}

impl From<Failure> for ErrorKind {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused => Self::Refused,
            Failure::TimedOut => Self::TimedOut,
            Failure::Reset => Self::Reset,
            Failure::ServerClosed => Self::ServerClosed,
            Failure::Protocol => Self::ServerProtocol,
            Failure::Unresolved => Self::Unresolved,
            Failure::Unreachable => Self::Unreachable,
            Failure::Greeting => Self::Greeting,
            Failure::OutOfResources => Self::OutOfResources,
        }
    }
}

impl From<Limit> for LimitKind {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::ClientOutput => Self::ClientOutput,
            Limit::ClientsInput => Self::ClientsInput,
            Limit::ClientsOutput => Self::ClientsOutput,
        }
    }
}

impl From<&Endpoint> for Peer {
    fn from(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Tcp(address) => Self::tcp(address),
            Endpoint::Unix(_) => Self::Unix,
        }
    }
}
