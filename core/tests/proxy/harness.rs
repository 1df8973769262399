//! A worker with virtual time, clients and servers played by the test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringkeeper_core::config::nutcracker;
use ringkeeper_core::id::{ConnId, ListenerId, QueryId};
use ringkeeper_core::io::{
    CloseReason, Command, Drive, Endpoint, Event, Input, Notice, Output, Parcel, Recipient,
};
use ringkeeper_core::node::Worker;
use ringkeeper_core::proxy::{ClientState, Plan, Policy};
use ringkeeper_core::time::Instant;

/// Where a connection to a server stands, as the test sees it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Wire {
    /// Bytes that the worker wrote and no test has taken yet.
    pub(crate) written: Vec<u8>,
    pub(crate) is_paused: bool,
    pub(crate) is_closed: bool,
    /// Writes whose `Sent` the test holds back.
    pub(crate) held: Option<Vec<u8>>,
    pub(crate) holds: bool,
}

pub(crate) struct Harness {
    pub(crate) worker: Worker,
    pub(crate) now: Instant,
    pub(crate) wires: BTreeMap<ConnId, Wire>,
    /// Server connections in the order in which they were asked for, with their endpoints.
    pub(crate) connects: Vec<(ConnId, String)>,
    pub(crate) queries: Vec<(QueryId, String)>,
    pub(crate) events: Vec<Event>,
    /// What the worker wants other workers to know.
    pub(crate) notices: Vec<(Recipient, Notice)>,
    /// Clients that were given away.
    pub(crate) released: Vec<(ConnId, ClientState)>,
    /// Connections are established as soon as they are asked for.
    pub(crate) is_connecting_at_once: bool,
}

impl Harness {
    pub(crate) fn new(config: &str) -> Self {
        Self::with_policy(config, Policy::RINGKEEPER)
    }

    /// Makes a worker whose plan `edit` has changed.
    pub(crate) fn with_edited(config: &str, edit: impl FnOnce(&mut Plan)) -> Self {
        let parsed = nutcracker::parse("test.yml", config);
        let config = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        let mut plan = Plan::new(&config, Policy::RINGKEEPER);
        plan.started_unix_seconds = 1_700_000_000;
        edit(&mut plan);
        Self::with_plan(plan)
    }

    pub(crate) fn with_policy(config: &str, policy: Policy) -> Self {
        let parsed = nutcracker::parse("test.yml", config);
        let config = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        let mut plan = Plan::new(&config, policy);
        plan.started_unix_seconds = 1_700_000_000;
        Self::with_plan(plan)
    }

    pub(crate) fn with_plan(plan: Plan) -> Self {
        let mut harness = Self {
            worker: Worker::new(Arc::new(plan), 1, Instant::START),
            now: Instant::START,
            wires: BTreeMap::new(),
            connects: Vec::new(),
            queries: Vec::new(),
            events: Vec::new(),
            notices: Vec::new(),
            released: Vec::new(),
            is_connecting_at_once: true,
        };
        harness.pump();
        harness
    }

    /// Goes on with another configuration.
    pub(crate) fn reload(&mut self, config: &str) {
        self.reload_with(config, |_| ());
    }

    /// Goes on with another configuration, its plan changed by `change`.
    pub(crate) fn reload_with(&mut self, config: &str, change: impl FnOnce(&mut Plan)) {
        let parsed = nutcracker::parse("test.yml", config);
        let config = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics));
        let mut plan = Plan::new(&config, Policy::RINGKEEPER);
        change(&mut plan);
        let plan = Parcel::new(Arc::new(plan));
        let limit = Duration::from_secs(5);
        self.input(Input::Command(Command::Reload { plan, limit }));
    }

    /// Connects a client to the pool at this place.
    pub(crate) fn client_of(&mut self, pool: u16) -> Option<ConnId> {
        let peer = Endpoint::Tcp(([127, 0, 0, 1], 4000).into());
        let conn = self.worker.accept(self.now, ListenerId(pool), peer).ok()?;
        self.wires.insert(conn, Wire::default());
        self.pump();
        Some(conn)
    }

    /// Connects a client to the first pool.
    pub(crate) fn client(&mut self) -> ConnId {
        self.try_client().expect("there is room for a client")
    }

    pub(crate) fn try_client(&mut self) -> Option<ConnId> {
        self.client_of(0)
    }

    pub(crate) fn send(&mut self, conn: ConnId, bytes: impl AsRef<[u8]>) {
        self.worker.handle(self.now, Input::Received { conn, bytes: bytes.as_ref() });
        self.pump();
    }

    /// Hands several pieces over in one turn.
    pub(crate) fn send_together(&mut self, pieces: &[(ConnId, &[u8])]) {
        for (conn, bytes) in pieces {
            self.worker.handle(self.now, Input::Received { conn: *conn, bytes });
        }
        self.pump();
    }

    pub(crate) fn eof(&mut self, conn: ConnId) {
        self.worker.handle(self.now, Input::Eof { conn });
        self.pump();
    }

    pub(crate) fn lose(&mut self, conn: ConnId, reason: CloseReason) {
        self.wires.entry(conn).or_default().is_closed = true;
        self.worker.handle(self.now, Input::Closed { conn, reason });
        self.pump();
    }

    pub(crate) fn connect(&mut self, conn: ConnId) {
        self.worker.handle(self.now, Input::Connected { conn, local: None });
        self.pump();
    }

    pub(crate) fn input(&mut self, input: Input<'_>) {
        self.worker.handle(self.now, input);
        self.pump();
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(deadline) = self.worker.poll_timeout() {
            if deadline.at > until {
                break;
            }
            self.now = self.now.max(deadline.at);
            self.worker.handle_timeout(self.now);
            self.pump();
        }
        self.now = until;
    }

    /// Stands still for so long; then bytes are read before the timers run, as in any turn.
    pub(crate) fn stand_still(&mut self, time: Duration, conn: ConnId, bytes: impl AsRef<[u8]>) {
        self.now += time;
        self.worker.handle(self.now, Input::Received { conn, bytes: bytes.as_ref() });
        if self.worker.poll_timeout().is_some_and(|deadline| deadline.at <= self.now) {
            self.worker.handle_timeout(self.now);
        }
        self.pump();
    }

    /// Returns the moment that lies so far ahead.
    pub(crate) fn later(&self, time: Duration) -> Instant {
        self.now + time
    }

    /// Holds the `Sent` of a connection back, as if its socket were full.
    pub(crate) fn hold(&mut self, conn: ConnId) {
        self.wires.entry(conn).or_default().holds = true;
    }

    /// Lets one held write through.
    pub(crate) fn release(&mut self, conn: ConnId) {
        let wire = self.wires.entry(conn).or_default();
        wire.holds = false;
        if let Some(buffer) = wire.held.take() {
            self.worker.handle(self.now, Input::Sent { conn, buffer });
            self.pump();
        }
    }

    /// Takes what the worker wrote to a connection.
    pub(crate) fn take(&mut self, conn: ConnId) -> String {
        let wire = self.wires.entry(conn).or_default();
        String::from_utf8_lossy(&std::mem::take(&mut wire.written)).into_owned()
    }

    pub(crate) fn is_closed(&self, conn: ConnId) -> bool {
        self.wires.get(&conn).is_some_and(|wire| wire.is_closed)
    }

    /// Returns the newest connection to the server at `address`.
    pub(crate) fn server(&self, address: &str) -> ConnId {
        let found = self.connects.iter().rev().find(|(_, to)| to == address);
        found.unwrap_or_else(|| panic!("no connection to {address}: {:?}", self.connects)).0
    }

    pub(crate) fn pump(&mut self) {
        while let Some(output) = self.worker.poll_output() {
            match output {
                Output::Connect { conn, endpoint, .. } => {
                    self.wires.insert(conn, Wire::default());
                    self.connects.push((conn, endpoint.to_string()));
                    if self.is_connecting_at_once {
                        self.worker.handle(self.now, Input::Connected { conn, local: None });
                    }
                }
                Output::Transmit { conn, buffer } => {
                    let wire = self.wires.get_mut(&conn).expect("a write to a known connection");
                    assert!(!buffer.is_empty(), "an empty write");
                    assert!(wire.held.is_none(), "two writes in flight on {conn:?}");
                    wire.written.extend_from_slice(&buffer);
                    if wire.holds {
                        wire.held = Some(buffer);
                    } else {
                        self.worker.handle(self.now, Input::Sent { conn, buffer });
                    }
                }
                Output::PauseRead(conn) => self.wires.entry(conn).or_default().is_paused = true,
                Output::ResumeRead(conn) => self.wires.entry(conn).or_default().is_paused = false,
                Output::Close { conn, .. } => {
                    self.wires.entry(conn).or_default().is_closed = true;
                    let reason = CloseReason::Requested;
                    self.worker.handle(self.now, Input::Closed { conn, reason });
                }
                Output::EndWrite(conn) => panic!("the proxy closes no half of {conn:?}"),
                Output::Release { conn, state } => {
                    self.wires.entry(conn).or_default().is_closed = true;
                    let state = state.open::<ClientState>().expect("a client's state");
                    self.released.push((conn, ClientState::clone(&state)));
                    self.worker.handle(self.now, Input::Released { conn });
                }
                Output::Resolve { query, host, .. } => self.queries.push((query, host)),
                Output::Event(event) => self.events.push(event),
                Output::Errand(errand) => panic!("the proxy has no errands, but gave {errand:?}"),
                Output::Notice { to, notice } => self.notices.push((to, notice)),
                Output::OpenChannel { .. } | Output::CloseChannel(_) | Output::Datagram { .. } => {
                    panic!("the proxy has no channels")
                }
            }
        }
    }
}

/// Encodes a request.
pub(crate) fn request(args: &[&str]) -> String {
    let mut text = format!("*{}\r\n", args.len());
    for arg in args {
        text.push_str(&format!("${}\r\n{arg}\r\n", arg.len()));
    }
    text
}
