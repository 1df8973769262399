//! A control worker and workers with clients, and the notices between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringkeeper_core::admin::{Access, AdminPlan, AdminRole, Facts};
use ringkeeper_core::config::nutcracker;
use ringkeeper_core::id::{ConnId, ListenerId, WorkerId};
use ringkeeper_core::io::{
    CloseReason, Command, Drive, Endpoint, Input, Notice, Output, Recipient,
};
use ringkeeper_core::node::{Control, ControlPlan, ControlRole, Worker};
use ringkeeper_core::proxy::{Plan, Policy};
use ringkeeper_core::stats::RouterFigures;
use ringkeeper_core::time::Instant;

const CONFIG: &str = "alpha:\n  listen: 127.0.0.1:1\n  redis: true\n  servers:\n   - \
    127.0.0.1:11:1 one\n";

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

pub(crate) fn post(path: &str, token: Option<&str>) -> String {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", token.unwrap_or_default())
}

/// A reply, taken apart.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

#[derive(Default)]
struct Wire {
    written: String,
    is_closed: bool,
}

/// A worker with one client and, after the first request, one server.
struct Data {
    worker: Worker,
    client: Option<ConnId>,
    server: Option<ConnId>,
    is_stalled: bool,
}

pub(crate) struct Desk {
    control: Control,
    now: Instant,
    wires: BTreeMap<ConnId, Wire>,
    data: Vec<Data>,
}

impl Desk {
    pub(crate) fn new(workers: u16) -> Self {
        Self::with_token(workers, Some(b"secret".to_vec()))
    }

    pub(crate) fn without_token(workers: u16) -> Self {
        Self::with_token(workers, None)
    }

    fn with_token(workers: u16, token: Option<Vec<u8>>) -> Self {
        let config = nutcracker::parse("test.yml", CONFIG).config.expect("a good configuration");
        let mut plan = Plan::new(&config, Policy::RINGKEEPER);
        plan.started_unix_seconds = 1_700_000_000;
        plan.workers = workers;
        let plan = Arc::new(plan);
        let facts = Facts {
            version: "1.2.3".to_owned(),
            stats_version: "0.5.0".to_owned(),
            host_name: "test-host".to_owned(),
            process_id: 7,
            started_unix_seconds: 1_700_000_000,
            backend: "tokio".to_owned(),
            backend_reason: "asked \"for\"".to_owned(),
            listeners: 1,
        };
        let access = Access { token, host_names: vec!["proxy-1.example".to_owned()] };
        let control = ControlPlan {
            listeners: BTreeMap::from([
                (ListenerId(0), ControlRole::Admin(AdminRole::Stats)),
                (ListenerId(1), ControlRole::Admin(AdminRole::Http { is_unix: false })),
                (ListenerId(2), ControlRole::Admin(AdminRole::Http { is_unix: true })),
            ]),
            admin: Some(Arc::new(AdminPlan { facts, access, workers })),
            watch: None,
            overseen: Default::default(),
        };
        let make = |id| Data {
            worker: Worker::new(Arc::clone(&plan), u64::from(id), Instant::START)
                .with_id(WorkerId(id)),
            client: None,
            server: None,
            is_stalled: false,
        };
        Self {
            control: Control::new(control, Instant::START),
            now: Instant::START,
            wires: BTreeMap::new(),
            data: (0..workers).map(make).collect(),
        }
    }

    pub(crate) fn connect(&mut self) -> ConnId {
        self.try_connect().expect("room for a connection")
    }

    pub(crate) fn try_connect(&mut self) -> Option<ConnId> {
        self.accept(1)
    }

    pub(crate) fn connect_unix(&mut self) -> ConnId {
        self.accept(2).expect("room for a connection")
    }

    pub(crate) fn connect_stats(&mut self) -> ConnId {
        self.accept(0).expect("room for a connection")
    }

    fn accept(&mut self, listener: u16) -> Option<ConnId> {
        let peer = Endpoint::Tcp(([127, 0, 0, 1], 5000).into());
        let conn = self.control.accept(self.now, ListenerId(listener), peer).ok()?;
        self.wires.insert(conn, Wire::default());
        self.pump();
        Some(conn)
    }

    pub(crate) fn send(&mut self, conn: ConnId, text: &str) {
        self.control.handle(self.now, Input::Received { conn, bytes: text.as_bytes() });
        self.pump();
    }

    pub(crate) fn eof(&mut self, conn: ConnId) {
        self.control.handle(self.now, Input::Eof { conn });
        self.pump();
    }

    /// Sends a request on a connection of its own and returns the reply.
    pub(crate) fn fetch(&mut self, request: &str) -> Reply {
        let conn = self.connect();
        self.send(conn, request);
        let reply = self.take_reply(conn);
        self.eof(conn);
        assert!(self.is_closed(conn));
        reply
    }

    pub(crate) fn take(&mut self, conn: ConnId) -> String {
        std::mem::take(&mut self.wires.get_mut(&conn).expect("a connection").written)
    }

    pub(crate) fn take_reply(&mut self, conn: ConnId) -> Reply {
        let text = self.take(conn);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        Reply { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn is_closed(&self, conn: ConnId) -> bool {
        self.wires[&conn].is_closed
    }

    /// Lets a worker answer nothing any more.
    pub(crate) fn stall(&mut self, worker: usize) {
        self.data[worker].is_stalled = true;
    }

    pub(crate) fn drain(&mut self) {
        self.client(0);
        let limit = Duration::from_secs(5);
        self.data[0].worker.handle(self.now, Input::Command(Command::Drain { limit }));
        self.pump();
    }

    /// Lets the worker of the virtual routers tell its figures.
    pub(crate) fn tell_routers(&mut self, routers: Vec<RouterFigures>) {
        self.deliver(Recipient::Control, &Notice::Routers(routers.into()));
        self.pump();
    }

    /// Tells whether the control worker is going to ask for the status by itself.
    pub(crate) fn is_watched(&self) -> bool {
        self.control.poll_timeout().is_some_and(|due| due.why == "status for those who watch")
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(deadline) = self.control.poll_timeout().filter(|due| due.at <= until) {
            self.now = self.now.max(deadline.at);
            self.control.handle_timeout(self.now);
            self.pump();
        }
        self.now = until;
    }

    fn client(&mut self, worker: usize) -> ConnId {
        let data = &mut self.data[worker];
        let peer = Endpoint::Tcp(([127, 0, 0, 1], 4000).into());
        let now = self.now;
        *data.client.get_or_insert_with(|| {
            data.worker.accept(now, ListenerId(0), peer).expect("room for a client")
        })
    }

    /// Lets the client of each worker do a GET and a SET, each answered after a millisecond.
    pub(crate) fn traffic(&mut self) {
        let requests: [&[u8]; 2] = [
            b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n",
            b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n",
        ];
        for bytes in requests {
            for worker in 0..self.data.len() {
                let conn = self.client(worker);
                self.data[worker].worker.handle(self.now, Input::Received { conn, bytes });
            }
            self.pump();
            self.pass(Duration::from_millis(1));
            for data in &mut self.data {
                let conn = data.server.expect("a server connection");
                data.worker.handle(self.now, Input::Received { conn, bytes: b"+OK\r\n" });
            }
            self.pump();
        }
    }

    /// Lets the server of the first worker refuse.
    pub(crate) fn lose_server(&mut self) {
        let conn = self.client(0);
        let bytes = b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n";
        self.data[0].worker.handle(self.now, Input::Received { conn, bytes });
        self.pump();
        let conn = self.data[0].server.take().expect("a server connection");
        let reason = CloseReason::Reset;
        self.data[0].worker.handle(self.now, Input::Closed { conn, reason });
        self.pump();
    }

    /// Carries out what the workers want until they want nothing.
    fn pump(&mut self) {
        loop {
            let mut notices = Vec::new();
            while let Some(output) = self.control.poll_output() {
                self.perform_control(output, &mut notices);
            }
            for data in &mut self.data {
                while let Some(output) = data.worker.poll_output() {
                    perform_data(data, self.now, output, &mut notices);
                }
            }
            if notices.is_empty() {
                return;
            }
            for (to, notice) in notices {
                self.deliver(to, &notice);
            }
        }
    }

    fn deliver(&mut self, to: Recipient, notice: &Notice) {
        for (at, data) in (0..).zip(&mut self.data) {
            let is_meant = to == Recipient::Data || to == Recipient::Worker(WorkerId(at));
            if is_meant && !data.is_stalled {
                data.worker.handle(self.now, Input::Notice(notice.clone()));
            }
        }
        if to == Recipient::Control {
            self.control.handle(self.now, Input::Notice(notice.clone()));
        }
    }

    fn perform_control(&mut self, output: Output, notices: &mut Vec<(Recipient, Notice)>) {
        match output {
            Output::Transmit { conn, buffer } => {
                let wire = self.wires.get_mut(&conn).expect("a known connection");
                assert!(!buffer.is_empty() && !wire.is_closed);
                wire.written.push_str(std::str::from_utf8(&buffer).expect("text"));
                self.control.handle(self.now, Input::Sent { conn, buffer });
            }
            Output::Close { conn, .. } => {
                self.wires.get_mut(&conn).expect("a known connection").is_closed = true;
                let reason = CloseReason::Requested;
                self.control.handle(self.now, Input::Closed { conn, reason });
            }
            Output::Notice { to, notice } => notices.push((to, notice)),
            Output::PauseRead(_) | Output::ResumeRead(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn perform_data(
    data: &mut Data,
    now: Instant,
    output: Output,
    notices: &mut Vec<(Recipient, Notice)>,
) {
    match output {
        Output::Connect { conn, .. } => {
            data.server = Some(conn);
            data.worker.handle(now, Input::Connected { conn, local: None });
        }
        Output::Transmit { conn, buffer } => {
            data.worker.handle(now, Input::Sent { conn, buffer });
        }
        Output::Close { conn, .. } => {
            if data.client == Some(conn) {
                data.client = None;
            }
            data.worker.handle(now, Input::Closed { conn, reason: CloseReason::Requested });
        }
        Output::Notice { to, notice } => notices.push((to, notice)),
        Output::Event(_) | Output::PauseRead(_) | Output::ResumeRead(_) => {}
        other => panic!("{other:?}"),
    }
}
