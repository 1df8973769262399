//! Effects on their way out, and the names of what they begin.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::probe::ProbeId;
use crate::config::keepalived::{Command, User};
use crate::id::{ChannelId, ConnId, JobId};
use crate::io::{BalanceNews, ChannelSpec, CloseMode, Endpoint, Errand, Event, Output, Program};
use crate::limits;
use crate::slab::{Slab, SlabKey};

/// Whose a connection to a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A client's.
    Relay(SlabKey),
    /// A checker's.
    Probe(ProbeId),
    /// Nobody's any more; its end is waited for.
    Nobody,
}

/// Whom a program runs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobOwner {
    Probe(ProbeId),
    Teller,
}

/// What the turn has produced so far.
#[derive(Debug)]
pub(super) struct Effects {
    pub(super) outputs: VecDeque<Output>,
    links: Slab<Owner>,
    jobs: BTreeMap<JobId, JobOwner>,
    channels: BTreeMap<ChannelId, ProbeId>,
    next_job: u64,
    next_channel: u32,
    pub(super) user: Option<User>,
    /// What encrypted checks need.
    pub(super) cover: Option<Arc<ClientConfig>>,
}

/// Names the connection to a server in a slot.
const fn name(key: SlabKey) -> ConnId {
    ConnId::server(key.index, key.generation)
}

/// Returns the slot of a connection.
pub(super) const fn key_of(conn: ConnId) -> SlabKey {
    SlabKey { index: conn.index(), generation: conn.generation() }
}

impl Effects {
    pub(super) fn new(user: Option<User>) -> Self {
        Self {
            outputs: VecDeque::new(),
            links: Slab::new(limits::RELAYS_MAX),
            jobs: BTreeMap::new(),
            channels: BTreeMap::new(),
            next_job: 1,
            next_channel: 1,
            user,
            cover: None,
        }
    }

    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn news(&mut self, service: &str, news: BalanceNews) {
        let service = service.to_owned();
        self.push(Output::Event(Event::Balance { service, news }));
    }

    /// Begins a connection; none if there are too many.
    pub(super) fn connect(
        &mut self,
        owner: Owner,
        to: SocketAddr,
        timeout: Duration,
    ) -> Option<ConnId> {
        let conn = name(self.links.insert_with(|_| owner)?);
        let endpoint = Endpoint::Tcp(to);
        self.push(Output::Connect { conn, endpoint, timeout, source: None });
        Some(conn)
    }

    /// Returns whose a connection to a server is.
    pub(super) fn owner(&self, conn: ConnId) -> Option<Owner> {
        self.links.get(key_of(conn)).copied()
    }

    /// Ends a connection to a server; its owner hears nothing of it any more.
    pub(super) fn close_link(&mut self, conn: ConnId, mode: CloseMode) {
        let Some(owner) = self.links.get_mut(key_of(conn)) else { return };
        // A client that no other server can take lets go of the one that was just given up.
        if std::mem::replace(owner, Owner::Nobody) != Owner::Nobody {
            self.push(Output::Close { conn, mode });
        }
    }

    /// Takes in that a connection to a server is gone; returns whose it was.
    pub(super) fn forget_link(&mut self, conn: ConnId) -> Option<Owner> {
        self.links.remove(key_of(conn))
    }

    /// Drops what was said in this turn about a connection that is gone meanwhile.
    pub(super) fn forget(&mut self, gone: ConnId) {
        self.outputs.retain(|output| match output {
            Output::Close { conn, .. }
            | Output::Transmit { conn, .. }
            | Output::Release { conn, .. }
            | Output::PauseRead(conn)
            | Output::EndWrite(conn)
            | Output::ResumeRead(conn) => *conn != gone,
            Output::Connect { .. }
            | Output::Resolve { .. }
            | Output::Event(_)
            | Output::Errand(_)
            | Output::OpenChannel { .. }
            | Output::CloseChannel(_)
            | Output::Datagram { .. }
            | Output::Notice { .. } => true,
        });
    }

    pub(super) fn open_channel(&mut self, probe: ProbeId, spec: ChannelSpec) -> ChannelId {
        let channel = ChannelId(self.next_channel);
        self.next_channel = self.next_channel.wrapping_add(1);
        self.channels.insert(channel, probe);
        self.push(Output::OpenChannel { channel, spec });
        channel
    }

    pub(super) fn close_channel(&mut self, channel: ChannelId) {
        if self.channels.remove(&channel).is_some() {
            self.push(Output::CloseChannel(channel));
        }
    }

    pub(super) fn channel_owner(&self, channel: ChannelId) -> Option<ProbeId> {
        self.channels.get(&channel).copied()
    }

    /// Tells whether another program may be run.
    pub(super) fn can_run(&self) -> bool {
        self.jobs.len() < limits::ERRANDS_MAX
    }

    /// Runs a program.
    pub(super) fn run(&mut self, owner: JobOwner, command: &Command) -> JobId {
        let job = JobId(self.next_job);
        self.next_job += 1;
        self.jobs.insert(job, owner);
        let user = command.user.as_ref().or(self.user.as_ref());
        let program = Program {
            argv: command.argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
            environment: Vec::new(),
            user: user.map(|user| (user.name.clone(), user.group.clone())),
        };
        self.push(Output::Errand(Errand::Run { job, program }));
        job
    }

    pub(super) fn kill(&mut self, job: JobId, signal: i32) {
        self.push(Output::Errand(Errand::Kill { job, signal }));
    }

    /// Takes in that a program has ended; returns whose it was.
    pub(super) fn forget_job(&mut self, job: JobId) -> Option<JobOwner> {
        self.jobs.remove(&job)
    }
}
