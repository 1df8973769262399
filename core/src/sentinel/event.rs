//! What a Sentinel tells its subscribers, its log and its scripts.

use std::fmt;

use super::instance::{Address, Epoch, Kind, MasterName, Role, RunId};

/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `-` in the log.
    Verbose,
    /// `*` in the log.
    Notice,
    /// `#` in the log. Runs the notification script, too.
    Warning,
}

/// Names an instance in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// What it is, and what tells it from others of its kind.
    pub who: Who<'a>,
    /// Where it is.
    pub address: &'a Address,
    /// The master that it is or belongs to.
    pub master: &'a MasterName,
    /// Where that master is.
    pub master_address: &'a Address,
}

/// What an instance is, and what tells it from others of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    /// The master itself.
    Master,
    /// A replica, named by its address.
    Replica,
    /// A peer.
    Sentinel(&'a RunId),
}

impl Who<'_> {
    const fn kind(self) -> Kind {
        match self {
            Self::Master => Kind::Master,
            Self::Replica => Kind::Replica,
            Self::Sentinel(_) => Kind::Sentinel,
        }
    }
}

/// `<kind> <name> <host> <port>`, and ` @ <master> <host> <port>` unless it is the master.
impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, address, master, master_address } = self;
        let (kind, host, port) = (who.kind().word(), address.host(), address.port());
        match who {
            Who::Master => return write!(f, "{kind} {master} {host} {port}"),
            Who::Replica => write!(f, "{kind} {address} {host} {port}")?,
            Who::Sentinel(id) => write!(f, "{kind} {id} {host} {port}")?,
        }
        let (host, port) = (master_address.host(), master_address.port());
        write!(f, " @ {master} {host} {port}")
    }
}

/// An event that says nothing but whom it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as their channels, which operators know")]
pub enum Plain {
    MonitorEnded,
    ResetMaster,
    Slave,
    Reboot,
    ConvertToSlave,
    FixSlaveConfig,
    Sentinel,
    SentinelInvalidAddress,
    SubjectivelyDown,
    SubjectivelyUp,
    ObjectivelyUp,
    TryFailover,
    ElectedLeader,
    SelectSlave,
    SelectedSlave,
    SendSlaveofNoone,
    WaitPromotion,
    PromotedSlave,
    ReconfSlaves,
    SlaveReconfSent,
    SlaveReconfInProgress,
    SlaveReconfDone,
    SlaveReconfSentBestEffort,
    SlaveReconfSentTimeout,
    FailoverEnd,
    FailoverEndForTimeout,
    AbortNotElected,
    AbortNoGoodSlave,
    AbortSlaveTimeout,
    ConfigUpdateFrom,
}

impl Plain {
    /// Every one, for tests and documentation.
    pub const ALL: [Self; 30] = [
        Self::MonitorEnded,
        Self::ResetMaster,
        Self::Slave,
        Self::Reboot,
        Self::ConvertToSlave,
        Self::FixSlaveConfig,
        Self::Sentinel,
        Self::SentinelInvalidAddress,
        Self::SubjectivelyDown,
        Self::SubjectivelyUp,
        Self::ObjectivelyUp,
        Self::TryFailover,
        Self::ElectedLeader,
        Self::SelectSlave,
        Self::SelectedSlave,
        Self::SendSlaveofNoone,
        Self::WaitPromotion,
        Self::PromotedSlave,
        Self::ReconfSlaves,
        Self::SlaveReconfSent,
        Self::SlaveReconfInProgress,
        Self::SlaveReconfDone,
        Self::SlaveReconfSentBestEffort,
        Self::SlaveReconfSentTimeout,
        Self::FailoverEnd,
        Self::FailoverEndForTimeout,
        Self::AbortNotElected,
        Self::AbortNoGoodSlave,
        Self::AbortSlaveTimeout,
        Self::ConfigUpdateFrom,
    ];

    /// Returns the channel.
    pub const fn channel(self) -> &'static str {
        match self {
            Self::MonitorEnded => "-monitor",
            Self::ResetMaster => "+reset-master",
            Self::Slave => "+slave",
            Self::Reboot => "+reboot",
            Self::ConvertToSlave => "+convert-to-slave",
            Self::FixSlaveConfig => "+fix-slave-config",
            Self::Sentinel => "+sentinel",
            Self::SentinelInvalidAddress => "+sentinel-invalid-addr",
            Self::SubjectivelyDown => "+sdown",
            Self::SubjectivelyUp => "-sdown",
            Self::ObjectivelyUp => "-odown",
            Self::TryFailover => "+try-failover",
            Self::ElectedLeader => "+elected-leader",
            Self::SelectSlave => "+failover-state-select-slave",
            Self::SelectedSlave => "+selected-slave",
            Self::SendSlaveofNoone => "+failover-state-send-slaveof-noone",
            Self::WaitPromotion => "+failover-state-wait-promotion",
            Self::PromotedSlave => "+promoted-slave",
            Self::ReconfSlaves => "+failover-state-reconf-slaves",
            Self::SlaveReconfSent => "+slave-reconf-sent",
            Self::SlaveReconfInProgress => "+slave-reconf-inprog",
            Self::SlaveReconfDone => "+slave-reconf-done",
            Self::SlaveReconfSentBestEffort => "+slave-reconf-sent-be",
            Self::SlaveReconfSentTimeout => "-slave-reconf-sent-timeout",
            Self::FailoverEnd => "+failover-end",
            Self::FailoverEndForTimeout => "+failover-end-for-timeout",
            Self::AbortNotElected => "-failover-abort-not-elected",
            Self::AbortNoGoodSlave => "-failover-abort-no-good-slave",
            Self::AbortSlaveTimeout => "-failover-abort-slave-timeout",
            Self::ConfigUpdateFrom => "+config-update-from",
        }
    }

    /// Returns how loud it is.
    pub const fn level(self) -> Level {
        match self {
            Self::Slave
            | Self::Reboot
            | Self::ConvertToSlave
            | Self::FixSlaveConfig
            | Self::Sentinel
            | Self::SentinelInvalidAddress
            | Self::SendSlaveofNoone
            | Self::WaitPromotion
            | Self::SlaveReconfSent
            | Self::SlaveReconfInProgress
            | Self::SlaveReconfDone
            | Self::SlaveReconfSentBestEffort
            | Self::SlaveReconfSentTimeout => Level::Notice,
            Self::MonitorEnded
            | Self::ResetMaster
            | Self::SubjectivelyDown
            | Self::SubjectivelyUp
            | Self::ObjectivelyUp
            | Self::TryFailover
            | Self::ElectedLeader
            | Self::SelectSlave
            | Self::SelectedSlave
            | Self::PromotedSlave
            | Self::ReconfSlaves
            | Self::FailoverEnd
            | Self::FailoverEndForTimeout
            | Self::AbortNotElected
            | Self::AbortNoGoodSlave
            | Self::AbortSlaveTimeout
            | Self::ConfigUpdateFrom => Level::Warning,
        }
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// It says nothing but whom it is about.
    Plain(Plain, Subject<'a>),
    /// A master is watched from now on.
    Monitor(Subject<'a>, u32),
    /// A setting changed. The value of a secret must not be given.
    Set(Subject<'a>, &'a str, &'a [&'a str]),
    /// A server says that it is something else than before, and whether that was expected.
    RoleChange {
        /// Who.
        subject: Subject<'a>,
        /// What it says.
        role: Role,
        /// Whether that is what it is believed to be.
        is_expected: bool,
    },
    /// A peer moved.
    SentinelAddressSwitch(Subject<'a>, &'a Address, &'a RunId),
    /// A peer moved, and this many other masters learnt of it.
    SentinelAddressUpdate(Subject<'a>, usize),
    /// A later election became known.
    NewEpoch(Epoch),
    /// We voted.
    VoteForLeader(&'a RunId, Epoch),
    /// Enough see the master down: who do, and who have to.
    ObjectivelyDown(Subject<'a>, usize, u32),
    /// Clients have to go elsewhere.
    SwitchMaster {
        /// Which master.
        master: &'a MasterName,
        /// Where it was.
        from: &'a Address,
        /// Where it is.
        to: &'a Address,
    },
    /// The process was stopped, or the clock moved: nothing is decided for a while.
    TiltEntered,
    /// Decisions are made again.
    TiltExited,
    /// A script ended badly.
    ScriptError {
        /// Which.
        path: &'a str,
        /// What killed it; 0 nothing.
        signal: i32,
        /// What it returned.
        exit: i32,
    },
    /// A script took too long.
    ScriptTimeout(&'a str, u32),
}

impl Event<'_> {
    /// Returns the channel, which is also the name.
    pub const fn channel(&self) -> &'static str {
        match self {
            Self::Plain(plain, _) => plain.channel(),
            Self::Monitor(..) => "+monitor",
            Self::Set(..) => "+set",
            Self::RoleChange { is_expected: true, .. } => "+role-change",
            Self::RoleChange { is_expected: false, .. } => "-role-change",
            Self::SentinelAddressSwitch(..) => "+sentinel-address-switch",
            Self::SentinelAddressUpdate(..) => "+sentinel-address-update",
            Self::NewEpoch(_) => "+new-epoch",
            Self::VoteForLeader(..) => "+vote-for-leader",
            Self::ObjectivelyDown(..) => "+odown",
            Self::SwitchMaster { .. } => "+switch-master",
            Self::TiltEntered => "+tilt",
            Self::TiltExited => "-tilt",
            Self::ScriptError { .. } => "-script-error",
            Self::ScriptTimeout(..) => "-script-timeout",
        }
    }

    /// Returns how loud it is.
    pub const fn level(&self) -> Level {
        match self {
            Self::Plain(plain, _) => plain.level(),
            Self::RoleChange { .. } => Level::Verbose,
            Self::SentinelAddressSwitch(..) | Self::SentinelAddressUpdate(..) => Level::Notice,
            Self::Monitor(..)
            | Self::Set(..)
            | Self::NewEpoch(_)
            | Self::VoteForLeader(..)
            | Self::ObjectivelyDown(..)
            | Self::SwitchMaster { .. }
            | Self::TiltEntered
            | Self::TiltExited
            | Self::ScriptError { .. }
            | Self::ScriptTimeout(..) => Level::Warning,
        }
    }
}

/// The payload: what subscribers get, and what stands behind the name in the log.
impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_, subject) => subject.fmt(f),
            Self::Monitor(subject, quorum) => write!(f, "{subject} quorum {quorum}"),
            Self::Set(subject, option, values) => {
                write!(f, "{subject} {option}")?;
                values.iter().try_for_each(|value| write!(f, " {value}"))
            }
            Self::RoleChange { subject, role, .. } => {
                write!(f, "{subject} new reported role is {}", role.word())
            }
            Self::SentinelAddressSwitch(subject, address, id) => {
                write!(f, "{subject} ip {} port {} for {id}", address.host(), address.port())
            }
            Self::SentinelAddressUpdate(subject, count) => {
                write!(f, "{subject} {count} additional matching instances")
            }
            Self::NewEpoch(epoch) => epoch.fmt(f),
            Self::VoteForLeader(id, epoch) => write!(f, "{id} {epoch}"),
            Self::ObjectivelyDown(subject, agree, quorum) => {
                write!(f, "{subject} #quorum {agree}/{quorum}")
            }
            Self::SwitchMaster { master, from, to } => {
                write!(f, "{master} {} {} ", from.host(), from.port())?;
                write!(f, "{} {}", to.host(), to.port())
            }
            Self::TiltEntered => f.write_str("#tilt mode entered"),
            Self::TiltExited => f.write_str("#tilt mode exited"),
            Self::ScriptError { path, signal, exit } => write!(f, "{path} {signal} {exit}"),
            Self::ScriptTimeout(path, process) => write!(f, "{path} {process}"),
        }
    }
}
