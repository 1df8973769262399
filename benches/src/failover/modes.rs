//! What is measured, and of whom.

/// Which programs the nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stack {
    /// This product on io_uring.
    Uring,
    /// The same on tokio.
    Tokio,
    /// nutcracker, redis-sentinel, keepalived and a script, of the distribution.
    Glued,
}

impl Stack {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Uring, Self::Tokio, Self::Glued];

    /// Its name in tables and options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Tokio => "tokio",
            Self::Glued => "glued",
        }
    }

    /// What a laboratory is told.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Uring => " --runtime uring",
            Self::Tokio => " --runtime tokio",
            Self::Glued => " --glued",
        }
    }
}

/// What happens, and under which settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// A master is killed; a refused connection is enough.
    Fast,
    /// A master is killed and counts as down after a second of silence.
    Silence,
    /// A master is replaced on purpose.
    Plan,
    /// A master stands still and goes on when another is there.
    Stop,
    /// The program that clients talk to is killed.
    Proxy,
    /// A host with the address is lost, announcements every 0.01 s.
    HostQuick,
    /// The same every 0.1 s.
    Host,
    /// Masters are killed under the promise that one replica has every write.
    Replicated,
    /// What commands cost, with that promise and without.
    Cost,
}

/// Which time of an event counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// To the first write that the shard acknowledges.
    Failover,
    /// To the first answer on a new connection to the address.
    Address,
    /// The longest that a client waited.
    Pause,
}

impl Measure {
    /// Its name in what a laboratory tells.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Failover => "failover_ms",
            Self::Address => "address_ms",
            Self::Pause => "pause_ms",
        }
    }
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Fast,
        Self::Silence,
        Self::Plan,
        Self::Stop,
        Self::Proxy,
        Self::HostQuick,
        Self::Host,
        Self::Replicated,
        Self::Cost,
    ];

    /// Its name in options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Silence => "silence",
            Self::Plan => "plan",
            Self::Stop => "stop",
            Self::Proxy => "proxy",
            Self::HostQuick => "host-0.01",
            Self::Host => "host-0.1",
            Self::Replicated => "replicated",
            Self::Cost => "cost",
        }
    }

    /// What it is, for a table.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Fast => "master killed, fast-down: first write",
            Self::Silence => "master killed, down-after 1 s: first write",
            Self::Plan => "planned failover: longest pause",
            Self::Stop => "master stopped and continued: first write",
            Self::Proxy => "proxy killed, adverts 0.1 s: address answers",
            Self::HostQuick => "host cut off, adverts 0.01 s: address answers",
            Self::Host => "host cut off, adverts 0.1 s: address answers",
            Self::Replicated => "master killed, replicated 1: first write",
            Self::Cost => "nothing happens",
        }
    }

    /// What is promised of this product, milliseconds.
    pub const fn limit_ms(self) -> Option<f64> {
        match self {
            Self::Fast => Some(80.0),
            Self::Silence => Some(1180.0),
            Self::Plan => Some(30.0),
            // The skew of the last of the three priorities, 230, and 5 ms.
            Self::Proxy => Some(15.2),
            Self::HostQuick => Some(50.0),
            Self::Host => Some(370.0),
            Self::Stop | Self::Replicated | Self::Cost => None,
        }
    }

    /// Which time counts.
    pub const fn measure(self) -> Measure {
        match self {
            Self::Fast | Self::Silence | Self::Stop | Self::Replicated => Measure::Failover,
            Self::Proxy | Self::HostQuick | Self::Host => Measure::Address,
            Self::Plan | Self::Cost => Measure::Pause,
        }
    }

    /// Returns what is measured of a stack: with the promise of a replica, or without.
    pub fn cells(self, stack: Stack) -> Vec<(Stack, bool)> {
        match (self, stack) {
            // It has neither.
            (Self::Fast | Self::Replicated, Stack::Glued) => Vec::new(),
            (Self::Replicated, _) => vec![(stack, true)],
            (Self::Cost, Stack::Uring | Stack::Tokio) => vec![(stack, false), (stack, true)],
            _ => vec![(stack, false)],
        }
    }

    /// What a laboratory is told.
    pub fn words(self, stack: Stack) -> &'static str {
        match (self, stack) {
            (Self::Fast | Self::Replicated, _) | (Self::Silence, Stack::Glued) => {
                "--only kill-master"
            }
            (Self::Silence, _) => "--only kill-master --no-fast-down",
            (Self::Plan, _) => "--only plan",
            (Self::Stop, _) => "--only stop-master",
            (Self::Proxy, _) => "--only kill-proxy",
            (Self::HostQuick, _) => "--only cut-node --advert 10",
            (Self::Host, _) => "--only cut-node",
            (Self::Cost, _) => "--only calm",
        }
    }
}
