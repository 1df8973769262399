//! What requests are counted by: what kind of command they are, and how they fail.

/// What a command does to data, by its name alone. Latencies are kept apart by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Reads.
    #[default]
    Read,
    /// Changes data, or may.
    Write,
    /// Neither: scripts that may do anything, and what is about no data.
    Other,
}

impl Class {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// All, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Read, Self::Write, Self::Other];

    /// Returns the label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Other => "other",
        }
    }
}

/// Why a request got an error from us instead of a server's reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ErrorKind {
    /// The server refused the connection, or no server is in the ring.
    Refused,
    /// No reply, or no connection, in time.
    TimedOut,
    /// The server reset the connection.
    Reset,
    /// The server closed the connection.
    ServerClosed,
    /// The server sent what is no reply.
    ServerProtocol,
    /// The server's host name has no address.
    Unresolved,
    /// The server cannot be reached.
    Unreachable,
    /// The server refused our greeting.
    Greeting,
    /// This host lacks descriptors, ports or memory.
    OutOfResources,
    /// The shard had no master for too long, or too many requests waited for one.
    NoMaster,
    /// This host must not write to the shard's master.
    Fenced,
    /// The shard's master was replaced with the write under way.
    Replaced,
    /// Too few replicas had the write in time.
    TooFewCopies,
    /// The request is well formed and cannot be served: unknown, malformed or unsupported command.
    BadRequest,
    /// The client's bytes are no request.
    ClientProtocol,
    /// The client has not said the password.
    Unauthenticated,
}

impl ErrorKind {
    /// How many there are.
    pub const COUNT: usize = 16;
    /// All, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Refused,
        Self::TimedOut,
        Self::Reset,
        Self::ServerClosed,
        Self::ServerProtocol,
        Self::Unresolved,
        Self::Unreachable,
        Self::Greeting,
        Self::OutOfResources,
        Self::NoMaster,
        Self::Fenced,
        Self::Replaced,
        Self::TooFewCopies,
        Self::BadRequest,
        Self::ClientProtocol,
        Self::Unauthenticated,
    ];

    /// Returns the label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Reset => "reset",
            Self::ServerClosed => "server_closed",
            Self::ServerProtocol => "server_protocol",
            Self::Unresolved => "unresolved",
            Self::Unreachable => "unreachable",
            Self::Greeting => "greeting",
            Self::OutOfResources => "out_of_resources",
            Self::NoMaster => "no_master",
            Self::Fenced => "fenced",
            Self::Replaced => "replaced",
            Self::TooFewCopies => "too_few_copies",
            Self::BadRequest => "bad_request",
            Self::ClientProtocol => "client_protocol",
            Self::Unauthenticated => "unauthenticated",
        }
    }
}

/// A bound that a client ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LimitKind {
    /// `client_connections`, or the descriptors: the client was not let in.
    Clients,
    /// `client_output_bytes_max`.
    ClientOutput,
    /// The budget for all clients' input; it held most.
    ClientsInput,
    /// The budget for all clients' output; it held most.
    ClientsOutput,
}

impl LimitKind {
    /// How many there are.
    pub const COUNT: usize = 4;
    /// All, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Clients, Self::ClientOutput, Self::ClientsInput, Self::ClientsOutput];

    /// Returns the label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::ClientOutput => "client_output",
            Self::ClientsInput => "clients_input",
            Self::ClientsOutput => "clients_output",
        }
    }
}

/// One counter per kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters<const N: usize>([u64; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> Counters<N> {
    /// Adds one to the counter at `kind`.
    #[inline]
    pub fn add(&mut self, kind: u8) {
        if let Some(counter) = self.0.get_mut(usize::from(kind)) {
            *counter += 1;
        }
    }

    /// Adds another worker's.
    pub fn merge(&mut self, other: &Self) {
        for (counter, more) in self.0.iter_mut().zip(&other.0) {
            *counter += more;
        }
    }

    /// Returns the counters in the order of the kinds' numbers.
    pub const fn all(&self) -> &[u64; N] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_listed_in_the_order_of_their_numbers() {
        for (at, class) in Class::ALL.iter().enumerate() {
            assert_eq!(*class as usize, at);
        }
        for (at, kind) in ErrorKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, at);
        }
        for (at, limit) in LimitKind::ALL.iter().enumerate() {
            assert_eq!(*limit as usize, at);
        }
    }
}
