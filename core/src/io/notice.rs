//! What workers tell each other, and what of the border is counted.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Endpoint, Failure, Limit, Recipient};
use crate::id::WorkerId;
use crate::stats::{
    Answer, ErrorKind, LimitKind, Peer, Query, Question, RouterFigures, ServiceFigures,
};
use crate::time::Instant;

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
    /// What is known of a shard's master: from whoever follows the Sentinels, to every worker with
    /// clients. Never dropped; at most one for each shard and turn is sent.
    Shard(ShardNews),
    /// What a worker with clients has seen of a shard's master. For the control worker.
    Sighting(Sighting),
    /// How something of this process is that virtual routers follow: for the worker that has them,
    /// from anybody, whenever it changes. Never dropped.
    Health(HealthNews),
    /// The figures of the virtual routers: from the worker that has them, when a state changes and
    /// otherwise once a second. For the control worker.
    Routers(Arc<[RouterFigures]>),
    /// The figures of the virtual servers: from the worker that has them, once a second while
    /// anything happens. For the control worker.
    Balance(Arc<[ServiceFigures]>),
}

/// How something of this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthNews {
    /// What it is about, as `pool alpha`. Each thing has a name of its own for as long as it is
    /// told of.
    pub source: Arc<str>,
    /// How it is.
    pub health: Health,
}

/// How a thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does what it is there for.
    Well,
    /// It does not, or is about to leave. Virtual routers draw the consequences in the same turn.
    Ill {
        /// What is wrong, for the log.
        why: Arc<str>,
    },
    /// There is no such thing any more; it is forgotten.
    Gone,
}

/// What is known of a shard's master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardNews {
    /// The shard: the Sentinels' name for the master, and [`ServerPlan::shard`] in the pools.
    ///
    /// [`ServerPlan::shard`]: crate::proxy::ServerPlan::shard
    pub shard: Arc<str>,
    /// Configuration epoch that `address` belongs to. News of a lower one are old: they change
    /// nothing.
    pub epoch: u64,
    /// The master by that epoch. Routing follows this pair, never a server's own word.
    pub address: SocketAddr,
    /// How it is.
    pub condition: ShardCondition,
    /// Where it serves: when that is over unless it is said again, such as a lease; `None` for as
    /// long as nothing else is said. Workers look at their own clock, so that one that stood still
    /// with the whole process writes nothing before it hears what was decided meanwhile.
    pub valid_until: Option<Instant>,
}

/// How a shard's master is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardCondition {
    /// Requests go there.
    Serving,
    /// It may be dead: requests wait, for as long as their pool lets them.
    Suspected,
    /// A planned failover is on its way: requests wait, as for one that may be dead.
    Moving,
    /// This host must not write to it: it is cut off from the other Sentinels, or its lease is over.
    Fenced,
}

/// What a worker with clients has seen of a shard's master: evidence for the Sentinel, no decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The shard.
    pub shard: Arc<str>,
    /// Whom it was seen of.
    pub address: SocketAddr,
    /// What.
    pub evidence: Evidence,
}

/// What a server can do that speaks against its being a live master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It refused a connection.
    Refused,
    /// It reset or closed a connection.
    Reset,
    /// It said `-READONLY`: it is a replica by now.
    ReadOnly,
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
            Failure::NoMaster => Self::NoMaster,
            Failure::Fenced => Self::Fenced,
            Failure::Replaced => Self::Replaced,
            Failure::TooFewCopies => Self::TooFewCopies,
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
