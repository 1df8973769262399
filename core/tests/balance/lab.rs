//! A balancer with servers that do what a test says, in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringkeeper_core::balance::Plan;
use ringkeeper_core::buf::Buffer;
use ringkeeper_core::config::keepalived;
use ringkeeper_core::id::{ChannelId, ConnId, JobId, ListenerId};
use ringkeeper_core::io::{
    BalanceNews, ChannelSpec, CloseMode, CloseReason, Command, Drive, Endpoint, Errand, Event,
    Exit, Input, Output, Parcel, Program,
};
use ringkeeper_core::node::balance::BalanceWorker;
use ringkeeper_core::time::Instant;

/// What a server does when it is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Takes,
    Refuses,
    IsSilent,
}

/// What became of one connection.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) to: Option<SocketAddr>,
    pub(crate) written: Vec<u8>,
    pub(crate) is_open: bool,
    pub(crate) is_paused: bool,
    pub(crate) is_told: bool,
    pub(crate) closed: Option<CloseMode>,
    /// A write that the kernel has not taken yet.
    pub(crate) held: Option<Buffer>,
    deadline: Option<Instant>,
}

pub(crate) struct Lab {
    pub(crate) worker: BalanceWorker,
    pub(crate) now: Instant,
    pub(crate) moods: BTreeMap<SocketAddr, Mood>,
    pub(crate) wires: BTreeMap<ConnId, Wire>,
    /// Connections whose writes are not taken.
    pub(crate) stuck: BTreeSet<ConnId>,
    pub(crate) events: Vec<Event>,
    pub(crate) jobs: Vec<(JobId, Program)>,
    pub(crate) kills: Vec<(JobId, i32)>,
    pub(crate) channels: Vec<(ChannelId, ChannelSpec)>,
    pub(crate) datagrams: Vec<(ChannelId, Vec<u8>)>,
    /// When each server was connected to.
    pub(crate) attempts: Vec<(SocketAddr, Instant)>,
    plan: Arc<Plan>,
    next_port: u16,
}

pub(crate) fn server(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 6379))
}

pub(crate) fn plan(text: &str, before: Option<&Plan>) -> Plan {
    let parsed = keepalived::parse(text, "host");
    let config = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
    Plan::new(&config, before)
}

/// A virtual server on 10.0.0.100:6379 with the servers 10.0.0.1 and so on.
pub(crate) fn text(body: &str, servers: &[&str]) -> String {
    let one = |(number, extra): (usize, &&str)| {
        format!("real_server 10.0.0.{} 6379 {{\n {extra}\n }}\n", number + 1)
    };
    let servers: String = servers.iter().enumerate().map(one).collect();
    format!("virtual_server 10.0.0.100 6379 {{\n protocol TCP\n {body}\n {servers} }}\n")
}

impl Lab {
    pub(crate) fn new(text: &str) -> Self {
        let plan = Arc::new(plan(text, None));
        let worker = BalanceWorker::new(Arc::clone(&plan), 7, Instant::START);
        let mut lab = Self {
            worker,
            now: Instant::START,
            moods: BTreeMap::new(),
            wires: BTreeMap::new(),
            stuck: BTreeSet::new(),
            events: Vec::new(),
            jobs: Vec::new(),
            kills: Vec::new(),
            channels: Vec::new(),
            datagrams: Vec::new(),
            attempts: Vec::new(),
            plan,
            next_port: 40_000,
        };
        lab.settle();
        lab
    }

    pub(crate) fn reload(&mut self, text: &str) {
        let plan = Arc::new(plan(text, Some(&self.plan)));
        self.plan = Arc::clone(&plan);
        let plan = Parcel::new(plan);
        let limit = Duration::ZERO;
        self.give(Input::Command(Command::Reload { plan, limit }));
    }

    /// Hands one input over and carries out what follows.
    pub(crate) fn give(&mut self, input: Input<'_>) {
        self.worker.handle(self.now, input);
        self.settle();
    }

    /// Lets a client come; none if it is not taken in.
    pub(crate) fn try_client_from(&mut self, ip: [u8; 4]) -> Option<ConnId> {
        self.next_port += 1;
        let peer = Endpoint::Tcp(SocketAddr::from((ip, self.next_port)));
        let conn = self.worker.accept(self.now, ListenerId(0), peer).ok()?;
        self.wires.insert(conn, Wire { is_open: true, ..Wire::default() });
        self.settle();
        Some(conn)
    }

    pub(crate) fn client(&mut self) -> ConnId {
        self.try_client_from([192, 168, 0, 1]).expect("nobody takes the client")
    }

    /// The connection to a server that is open and was opened last.
    pub(crate) fn link_to(&self, at: SocketAddr) -> ConnId {
        let open = |(_, wire): &(&ConnId, &Wire)| wire.to == Some(at) && wire.closed.is_none();
        *self.wires.iter().rev().find(open).unwrap_or_else(|| panic!("no connection to {at}")).0
    }

    /// Which server a client got: the one that hears what it says.
    pub(crate) fn server_of(&mut self, client: ConnId) -> SocketAddr {
        let before: BTreeMap<ConnId, usize> =
            self.wires.iter().map(|(&conn, wire)| (conn, wire.written.len())).collect();
        self.give(Input::Received { conn: client, bytes: b"?" });
        let found = self.wires.iter().find(|(conn, wire)| wire.written.len() > before[*conn]);
        found.and_then(|(_, wire)| wire.to).expect("nobody heard it")
    }

    pub(crate) fn news(&self) -> Vec<&BalanceNews> {
        fn news(event: &Event) -> Option<&BalanceNews> {
            if let Event::Balance { news, .. } = event { Some(news) } else { None }
        }
        self.events.iter().filter_map(news).collect()
    }

    /// Lets time pass, and everything happen that is due meanwhile.
    pub(crate) fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        loop {
            let worker = self.worker.poll_timeout().map(|deadline| deadline.at);
            let connects = self.wires.values().filter_map(|wire| wire.deadline).min();
            let Some(next) = worker.into_iter().chain(connects).min().filter(|at| *at <= until)
            else {
                break;
            };
            self.now = self.now.max(next);
            let now = self.now;
            let late = |wire: &Wire| wire.deadline.is_some_and(|at| at <= now);
            let late = self.wires.iter().filter(|(_, wire)| late(wire)).map(|(conn, _)| *conn);
            for conn in late.collect::<Vec<_>>() {
                self.end(conn, CloseReason::ConnectTimedOut);
            }
            self.worker.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    /// Ends a connection from outside.
    pub(crate) fn end(&mut self, conn: ConnId, reason: CloseReason) {
        let wire = self.wires.get_mut(&conn).unwrap();
        wire.is_open = false;
        wire.deadline = None;
        wire.closed.get_or_insert(CloseMode::Abort);
        self.give(Input::Closed { conn, reason });
    }

    /// Takes a write that was held back.
    pub(crate) fn unstick(&mut self, conn: ConnId) {
        self.stuck.remove(&conn);
        if let Some(buffer) = self.wires.get_mut(&conn).unwrap().held.take() {
            self.give(Input::Sent { conn, buffer });
        }
    }

    fn settle(&mut self) {
        loop {
            let mut inputs = VecDeque::new();
            while let Some(output) = self.worker.poll_output() {
                self.perform(output, &mut inputs);
            }
            if inputs.is_empty() {
                return;
            }
            for input in inputs {
                self.worker.handle(self.now, input);
            }
        }
    }

    fn open_wire(&mut self, conn: ConnId, what: &str) -> &mut Wire {
        let wire = self.wires.get_mut(&conn).unwrap_or_else(|| panic!("{what} for {conn:?}"));
        assert!(wire.closed.is_none(), "{what} for {conn:?}, which is closed");
        wire
    }

    fn perform(&mut self, output: Output, inputs: &mut VecDeque<Input<'static>>) {
        match output {
            Output::Connect { conn, endpoint, timeout, .. } => {
                let Endpoint::Tcp(to) = endpoint else { panic!("no address") };
                let mood = self.moods.get(&to).copied().unwrap_or(Mood::Takes);
                let mut wire = Wire { to: Some(to), ..Wire::default() };
                self.attempts.push((to, self.now));
                match mood {
                    Mood::Takes => {
                        wire.is_open = true;
                        inputs.push_back(Input::Connected { conn, local: None });
                    }
                    Mood::Refuses => {
                        wire.closed = Some(CloseMode::Abort);
                        let reason = CloseReason::Refused;
                        inputs.push_back(Input::Closed { conn, reason });
                    }
                    Mood::IsSilent => wire.deadline = Some(self.now + timeout),
                }
                self.wires.insert(conn, wire);
            }
            Output::Transmit { conn, buffer } => {
                let is_stuck = self.stuck.contains(&conn);
                let wire = self.open_wire(conn, "Transmit");
                assert!(wire.is_open && wire.held.is_none() && !wire.is_told);
                assert!(!buffer.is_empty());
                wire.written.extend_from_slice(&buffer);
                if is_stuck {
                    wire.held = Some(buffer);
                } else {
                    inputs.push_back(Input::Sent { conn, buffer });
                }
            }
            Output::PauseRead(conn) => {
                let wire = self.open_wire(conn, "PauseRead");
                assert!(!std::mem::replace(&mut wire.is_paused, true));
            }
            Output::ResumeRead(conn) => {
                let wire = self.open_wire(conn, "ResumeRead");
                assert!(std::mem::replace(&mut wire.is_paused, false));
            }
            Output::EndWrite(conn) => {
                let wire = self.open_wire(conn, "EndWrite");
                assert!(wire.held.is_none() && !wire.is_told);
                wire.is_told = true;
            }
            Output::Close { conn, mode } => {
                let wire = self.open_wire(conn, "Close");
                wire.closed = Some(mode);
                wire.is_open = false;
                wire.deadline = None;
                inputs.push_back(Input::Closed { conn, reason: CloseReason::Requested });
            }
            Output::Event(event) => self.events.push(event),
            Output::Errand(Errand::Run { job, program }) => self.jobs.push((job, program)),
            Output::Errand(Errand::Kill { job, signal }) => self.kills.push((job, signal)),
            Output::OpenChannel { channel, spec } => {
                self.channels.push((channel, spec));
                inputs.push_back(Input::ChannelOpened { channel, result: Ok(()) });
            }
            Output::CloseChannel(channel) => self.channels.retain(|(one, _)| *one != channel),
            Output::Datagram { channel, bytes, .. } => self.datagrams.push((channel, bytes)),
            other @ (Output::Errand(Errand::Persist { .. } | Errand::Read { .. })
            | Output::Release { .. }
            | Output::Resolve { .. }
            | Output::Notice { .. }) => panic!("not expected here: {other:?}"),
        }
    }

    /// Ends the oldest program that runs.
    pub(crate) fn exit(&mut self, exit: Exit) -> String {
        let (job, program) = self.jobs.remove(0);
        let words = program.argv.iter().map(|word| String::from_utf8_lossy(word).into_owned());
        let words = words.collect::<Vec<_>>().join(" ");
        self.give(Input::Exited { job, exit });
        words
    }
}
