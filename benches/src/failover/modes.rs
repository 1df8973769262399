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

/// What is promised of a time, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// The median stays below.
    Median(f64),
    /// Each stays below.
    Each(f64),
    /// Each stays below the skew of the node that takes over and this.
    AboveSkew(f64),
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

    /// What is promised of this product.
    pub const fn limit(self) -> Option<Limit> {
        match self {
            Self::Fast => Some(Limit::Median(80.0)),
            Self::Silence => Some(Limit::Median(1180.0)),
            Self::Plan => Some(Limit::Each(30.0)),
            Self::Proxy => Some(Limit::AboveSkew(5.0)),
            Self::HostQuick => Some(Limit::Each(50.0)),
            Self::Host => Some(Limit::Each(370.0)),
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

    /// Its event: what a laboratory is told, and what it calls that.
    pub const fn event(self) -> [&'static str; 2] {
        match self {
            Self::Fast | Self::Silence | Self::Replicated => ["kill-master", "kill a master"],
            Self::Plan => ["plan", "plan a failover"],
            Self::Stop => ["stop-master", "stop a master"],
            Self::Proxy => ["kill-proxy", "kill the proxy"],
            Self::HostQuick | Self::Host => ["cut-node", "cut a node's network"],
            Self::Cost => ["calm", "nothing"],
        }
    }

    /// Under which settings it is measured of a stack; each is a table's line.
    fn settings(self, stack: Stack) -> Vec<Setting> {
        let plain = Setting { is_replicated: false, words: "" };
        let replicated = Setting { is_replicated: true, words: " --replicated 1" };
        let quick_adverts = " --advert 10";
        match (self, stack) {
            // It has neither.
            (Self::Fast | Self::Replicated, Stack::Glued) => Vec::new(),
            (Self::HostQuick, Stack::Glued) => vec![Setting { words: quick_adverts, ..plain }],
            (Self::Cost, Stack::Uring | Stack::Tokio) => vec![plain, replicated],
            (Self::Replicated, _) => vec![replicated],
            // How often is announced says nothing about masters, nor the other way round.
            (Self::Silence | Self::HostQuick, Stack::Uring | Stack::Tokio) => {
                vec![Setting { words: " --no-fast-down --advert 10", ..plain }]
            }
            _ => vec![plain],
        }
    }
}

/// What can be chosen of a laboratory, beside the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Setting {
    is_replicated: bool,
    words: &'static str,
}

/// One laboratory, in which everything happens that wants the same settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laboratory {
    /// Which programs.
    pub stack: Stack,
    /// Whether a replica has every write before it is acknowledged.
    pub is_replicated: bool,
    /// What happens, in turns.
    pub modes: Vec<Mode>,
    words: &'static str,
}

impl Laboratory {
    /// Returns the laboratories that some modes need of some stacks; the stacks take turns.
    pub fn all(modes: &[Mode], stacks: &[Stack]) -> Vec<Self> {
        let mut all: Vec<(Setting, Self)> = Vec::new();
        for &stack in stacks {
            for &mode in modes {
                for setting in mode.settings(stack) {
                    let is_it = |(known, one): &&mut (Setting, Self)| {
                        *known == setting && one.stack == stack
                    };
                    if let Some((_, one)) = all.iter_mut().find(is_it) {
                        one.modes.push(mode);
                        continue;
                    }
                    let Setting { is_replicated, words } = setting;
                    all.push((setting, Self { stack, is_replicated, modes: vec![mode], words }));
                }
            }
        }
        all.sort_by_key(|(setting, one)| (*setting, one.stack));
        all.into_iter().map(|(_, one)| one).collect()
    }

    /// Returns the words of its command.
    pub fn command(&self, rounds: usize) -> String {
        let events: Vec<&str> = self.modes.iter().map(|mode| mode.event()[0]).collect();
        let (events, words, stack) = (events.join(","), self.words, self.stack.words());
        format!("lab --auto --only {events} --rounds {rounds}{words}{stack}")
    }

    /// Returns which of its modes an event belongs to, by the name that the laboratory gives it.
    pub fn mode_of(&self, event: &str) -> Option<Mode> {
        self.modes.iter().copied().find(|mode| mode.event()[1] == event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wants_the_same_settings_shares_a_laboratory() {
        let all = Laboratory::all(&Mode::ALL, &[Stack::Uring, Stack::Glued]);
        let commands: Vec<String> = all.iter().map(|one| one.command(5)).collect();
        assert_eq!(
            commands,
            [
                "lab --auto --only kill-master,plan,stop-master,kill-proxy,cut-node,calm --rounds 5 \
                 --runtime uring",
                "lab --auto --only kill-master,plan,stop-master,kill-proxy,cut-node,calm --rounds 5 \
                 --glued",
                "lab --auto --only cut-node --rounds 5 --advert 10 --glued",
                "lab --auto --only kill-master,cut-node --rounds 5 --no-fast-down --advert 10 \
                 --runtime uring",
                "lab --auto --only kill-master,calm --rounds 5 --replicated 1 --runtime uring",
            ]
        );
        assert_eq!(all[0].mode_of("kill a master"), Some(Mode::Fast));
        assert_eq!(all[1].mode_of("kill a master"), Some(Mode::Silence));
        assert_eq!(all[3].mode_of("plan a failover"), None);
    }
}
