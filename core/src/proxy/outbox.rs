//! Effects on their way out, and which connections have something to do before the turn ends.

use std::collections::VecDeque;

use crate::id::ConnId;
use crate::io::{CloseMode, Event, Output};

/// What the turn has produced so far.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    outputs: VecDeque<Output>,
    /// Server connections with requests to write.
    pub(crate) dirty_servers: Vec<ConnId>,
    /// Clients with replies to write.
    pub(crate) dirty_clients: Vec<ConnId>,
    /// Clients whose carried-over input should be looked at.
    pub(crate) ready: Vec<ConnId>,
    /// Clients whose wait for room in a server's queue is over.
    pub(crate) woken: Vec<ConnId>,
}

impl Outbox {
    pub(crate) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn close(&mut self, conn: ConnId, mode: CloseMode) {
        self.push(Output::Close { conn, mode });
    }

    /// Drops what was said in this turn about a connection that is gone meanwhile.
    pub(crate) fn forget(&mut self, gone: ConnId) {
        self.outputs.retain(|output| match output {
            Output::Close { conn, .. }
            | Output::Transmit { conn, .. }
            | Output::Release { conn, .. }
            | Output::PauseRead(conn)
            | Output::ResumeRead(conn)
            | Output::EndWrite(conn) => *conn != gone,
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

    pub(crate) fn event(&mut self, event: Event) {
        self.push(Output::Event(event));
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
