//! The commands of Redis: their names, argument counts and keys, and what the proxy does with
//! each.
//!
//! Every command of Redis 7.0 has an entry, also those that are refused, so that a name without
//! an entry is a name that the server would not know either.

mod keys;
mod message;
mod table;

pub use keys::{KeyError, keys};
pub use message::{encode_unknown, encode_wrong_arity};
pub use table::{all, lookup, lookup_at};

use crate::wire::resp::Span;

/// One command of Redis.
#[derive(Debug)]
pub struct Command {
    /// In lower case.
    pub name: &'static str,
    /// Arguments, the name included, as Redis counts: -N means at least N.
    pub arity: i16,
    /// What the server says about it.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: Keys,
    /// What the proxy does with it.
    pub treatment: Treatment,
}

impl Command {
    /// Tells whether a client may say it before it has said the right password.
    #[inline]
    pub const fn is_allowed_before_auth(&self) -> bool {
        matches!(
            self.treatment,
            Treatment::Local(Local::Auth | Local::Hello | Local::Quit | Local::Reset)
        )
    }

    /// Whether Redis takes the command with `argc` arguments, the name included.
    #[inline]
    pub fn accepts(&self, argc: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { argc >= arity } else { argc == arity }
    }

    /// Returns the only key of a command that has exactly one, at its fixed place: the usual case,
    /// which needs no list.
    ///
    /// `None` for every other command, and when the argument is missing.
    #[inline]
    pub fn single_key(&self, args: &[Span]) -> Option<Span> {
        match self.keys {
            Keys::Range { first, last, .. } if i16::from(first) == i16::from(last) => {
                args.get(usize::from(first)).copied()
            }
            Keys::Range { .. } | Keys::None | Keys::Counted { .. } | Keys::Special(_) => None,
        }
    }

    /// Whether the command may change data: it is a write, or runs a script that may write.
    #[inline]
    pub fn may_write(&self) -> bool {
        self.flags.intersects(Flags::WRITE.and(Flags::SCRIPT))
    }
}

/// Properties of a command, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u16);

impl Flags {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Changes data, or may, by its name alone.
    pub const WRITE: Self = Self(1);
    /// Never changes data; a replica may answer.
    pub const READONLY: Self = Self(1 << 1);
    /// Waits for other clients, at least with some arguments.
    pub const BLOCKING: Self = Self(1 << 2);
    /// For administrators.
    pub const ADMIN: Self = Self(1 << 3);
    /// May be called without any key although it can have keys.
    pub const KEYS_OPTIONAL: Self = Self(1 << 4);
    /// Runs a script or function that may write. Ours: Redis has no such flag.
    pub const SCRIPT: Self = Self(1 << 5);

    /// Returns the flags of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Where the keys of a command are. Positions count arguments; 0 is the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Nowhere.
    None,
    /// From `first` to `last`, every `step`; a negative `last` counts from the end, -1 is the last
    /// argument.
    Range {
        /// First key.
        first: u8,
        /// Last key.
        last: i8,
        /// From key to key.
        step: u8,
    },
    /// As many keys from `first` on as the argument at `count_at` says.
    Counted {
        /// The number of keys.
        count_at: u8,
        /// First key.
        first: u8,
        /// One key more, at a fixed place; 0 is none.
        destination: u8,
    },
    /// Depends on the other arguments.
    Special(Special),
}

/// Commands whose keys depend on their other arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// SORT: argument 1, and STORE; BY and GET may name more.
    Sort,
    /// SORT_RO: argument 1; BY and GET may name more.
    SortRo,
    /// GEORADIUS and GEORADIUSBYMEMBER: argument 1, and STORE or STOREDIST.
    GeoStore,
    /// XREAD and XREADGROUP: the first half of what follows STREAMS.
    Streams,
    /// OBJECT: argument 2 of the subcommands that have a key.
    Object,
    /// XINFO: as OBJECT.
    Xinfo,
    /// XGROUP: as OBJECT.
    Xgroup,
    /// MEMORY: argument 2 of USAGE; no other subcommand is about a key.
    Memory,
}

/// What the proxy does with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// To the server of its keys, byte by byte.
    Forward,
    /// By key to several servers, the replies joined; with one key as `Forward`.
    Split(Split),
    /// Answered by the proxy.
    Local(Local),
    /// To any server: the answer does not depend on the data.
    AnyServer,
    /// Answered with an error.
    Refuse(Refusal),
}

/// Commands that are split by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// Replies are arrays in the order of the keys.
    Mget,
    /// Replies are counts that add up.
    Del,
    /// As DEL.
    Unlink,
    /// As DEL.
    Touch,
    /// As DEL; a key that is named twice counts twice.
    Exists,
    /// Keys come with values; the reply is `+OK`.
    Mset,
}

/// Commands that the proxy answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Local {
    /// PING \[message\].
    Ping,
    /// ECHO message.
    Echo,
    /// QUIT: `+OK` behind the replies that are still to come, then close.
    Quit,
    /// SELECT database.
    Select,
    /// AUTH \[user\] password.
    Auth,
    /// HELLO \[version \[AUTH user password\] \[SETNAME name\]\].
    Hello,
    /// CLIENT subcommand.
    Client,
    /// TIME.
    Time,
    /// INFO \[section …\].
    Info,
    /// COMMAND \[subcommand …\]: COUNT is ours, the rest is the same on every server.
    Command,
    /// RESET: the connection as it was at its start.
    Reset,
    /// SLOWLOG GET | LEN | RESET: of the proxy.
    Slowlog,
    /// LATENCY HISTOGRAM: of the proxy.
    Latency,
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It waits on a connection that others use too.
    Blocking,
    /// It makes a transaction of the connection.
    Transaction,
    /// It is about channels.
    Subscribe,
    /// It turns the connection into a stream.
    Monitor,
    /// It belongs to Redis Cluster.
    Cluster,
    /// It manages one server.
    Admin,
    /// It is about all keys or all servers and has no key to choose a server by.
    NotSharded,
    /// It asks about earlier writes of the same connection.
    Wait,
}

impl Refusal {
    /// Returns the text after `-ERR `: what is refused, why, and what to do instead.
    pub fn message(self) -> &'static str {
        match self {
            Self::Blocking => {
                "blocking commands are not supported by the proxy: they would hold up a server \
                 connection that other clients share; use the command without blocking and ask \
                 again, or connect to the server directly"
            }
            Self::Transaction => {
                "transactions are not supported by the proxy: server connections are shared and \
                 keys live on several servers; use a script whose keys share a hash tag, or \
                 connect to the server directly"
            }
            Self::Subscribe => {
                "publish and subscribe are not supported by the proxy: channels belong to one \
                 server, not to the pool; connect to one server directly"
            }
            Self::Monitor => {
                "MONITOR is not supported by the proxy: it takes over a server connection that \
                 other clients share; connect to the server directly"
            }
            Self::Cluster => {
                "Redis Cluster commands are not supported by the proxy: it chooses the server \
                 itself; send commands as to a single server"
            }
            Self::Admin => {
                "administration commands are not supported by the proxy: they manage one server, \
                 not the pool; connect to that server directly"
            }
            Self::NotSharded => {
                "commands without a key are not supported by the proxy: their scope is one \
                 server and the pool may have several; connect to each server directly"
            }
            Self::Wait => {
                "WAIT is not supported by the proxy: server connections are shared, so it would \
                 wait for other clients' writes; connect to the server directly"
            }
        }
    }
}

/// Returns the commands that a client can use through the proxy.
pub fn served() -> impl Iterator<Item = &'static Command> {
    all().iter().filter(|command| !matches!(command.treatment, Treatment::Refuse(_)))
}
