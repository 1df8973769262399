//! What Sentinels watch: masters, replicas and each other.

use std::fmt;

pub use crate::config::sentinel::{Address, AddressError, Epoch, MasterName, RunId};

/// What an instance is believed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The master that clients are sent to.
    Master,
    /// One of its replicas.
    Replica,
    /// A peer.
    Sentinel,
}

impl Kind {
    /// Returns the word of flags and events.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "slave",
            Self::Sentinel => "sentinel",
        }
    }
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It takes writes.
    Master,
    /// It follows another.
    Replica,
}

impl Role {
    /// Returns the word of INFO and events.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "slave",
        }
    }
}

/// What is true of an instance besides its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Flag {
    /// Subjectively down.
    SubjectivelyDown = 1,
    /// Objectively down.
    ObjectivelyDown = 1 << 1,
    /// A connection that belongs to it is missing.
    Disconnected = 1 << 2,
    /// This peer sees the master down.
    MasterDown = 1 << 3,
    /// A fail-over of this master is under way.
    FailoverInProgress = 1 << 4,
    /// This replica was chosen.
    Promoted = 1 << 5,
    /// This replica was told to follow the new master.
    ReconfSent = 1 << 6,
    /// This replica follows the new master, but is not in step.
    ReconfInProgress = 1 << 7,
    /// This replica is in step with the new master.
    ReconfDone = 1 << 8,
    /// An operator asked for the fail-over.
    ForceFailover = 1 << 9,
    /// A script that blocks it was told to end.
    ScriptKillSent = 1 << 10,
    /// It restarted, and has not served since.
    MasterReboot = 1 << 11,
}

/// A set of [`Flag`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// No flag.
    pub const EMPTY: Self = Self(0);

    /// Returns the set with this flag.
    #[must_use]
    pub const fn with(self, flag: Flag) -> Self {
        Self(self.0 | flag as u16)
    }

    /// Returns the set without this flag.
    #[must_use]
    pub const fn without(self, flag: Flag) -> Self {
        Self(self.0 & !(flag as u16))
    }

    /// Whether the flag is in the set.
    pub const fn has(self, flag: Flag) -> bool {
        self.0 & flag as u16 != 0
    }

    /// Returns the value of the field `flags`: the names with commas, the kind among them, in the
    /// order of genuine Sentinels.
    pub fn names(self, kind: Kind) -> String {
        use Flag::{
            Disconnected, FailoverInProgress, ForceFailover, MasterDown, MasterReboot,
            ObjectivelyDown, Promoted, ReconfDone, ReconfInProgress, ReconfSent, ScriptKillSent,
            SubjectivelyDown,
        };
        let before = [(SubjectivelyDown, "s_down"), (ObjectivelyDown, "o_down")];
        let behind = [
            (Disconnected, "disconnected"),
            (MasterDown, "master_down"),
            (FailoverInProgress, "failover_in_progress"),
            (Promoted, "promoted"),
            (ReconfSent, "reconf_sent"),
            (ReconfInProgress, "reconf_inprog"),
            (ReconfDone, "reconf_done"),
            (ForceFailover, "force_failover"),
            (ScriptKillSent, "script_kill_sent"),
            (MasterReboot, "master_reboot"),
        ];
        let present = |(flag, name)| self.has(flag).then_some(name);
        let mut names: Vec<&str> = before.into_iter().filter_map(present).collect();
        names.push(kind.word());
        names.extend(behind.into_iter().filter_map(present));
        names.join(",")
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#05x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_named_in_the_order_of_genuine_sentinels() {
        assert_eq!(Flags::EMPTY.names(Kind::Replica), "slave");
        let flags = Flags::EMPTY.with(Flag::ForceFailover).with(Flag::FailoverInProgress);
        assert_eq!(flags.names(Kind::Master), "master,failover_in_progress,force_failover");
        let down = flags.with(Flag::ObjectivelyDown).with(Flag::SubjectivelyDown);
        let down = down.without(Flag::ForceFailover).with(Flag::Disconnected);
        assert_eq!(
            down.names(Kind::Master),
            "s_down,o_down,master,disconnected,failover_in_progress"
        );
        assert!(!down.has(Flag::ForceFailover));
    }
}
