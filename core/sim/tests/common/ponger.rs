//! The smallest machine that serves anybody: it answers PING itself.

use std::collections::{BTreeMap, VecDeque};

use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{AtCapacity, CloseMode, Deadline, Drive, Endpoint, Input, Output};
use ringkeeper_core::time::Instant;

use super::{Frame, scan_request};

#[derive(Default)]
struct Client {
    input: Vec<u8>,
    out: Vec<u8>,
    is_writing: bool,
    is_ended: bool,
    is_closing: bool,
}

/// Answers every request with PONG.
#[derive(Default)]
pub(crate) struct Ponger {
    clients: BTreeMap<ConnId, Client>,
    outputs: VecDeque<Output>,
    accepted: u32,
}

impl Ponger {
    fn pump(&mut self, conn: ConnId) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        while let (Frame::Whole(taken), _) = scan_request(&client.input) {
            client.input.drain(..taken);
            client.out.extend_from_slice(b"+PONG\r\n");
        }
        if client.is_writing || client.is_closing {
            return;
        }
        if !client.out.is_empty() {
            client.is_writing = true;
            let buffer = std::mem::take(&mut client.out);
            self.outputs.push_back(Output::Transmit { conn, buffer });
        } else if client.is_ended {
            client.is_closing = true;
            self.outputs.push_back(Output::Close { conn, mode: CloseMode::Flush });
        }
    }
}

impl Drive for Ponger {
    fn accept(&mut self, _: Instant, _: ListenerId, _: Endpoint) -> Result<ConnId, AtCapacity> {
        let conn = ConnId::client(self.accepted, 0);
        self.accepted += 1;
        self.clients.insert(conn, Client::default());
        Ok(conn)
    }

    fn handle(&mut self, _: Instant, input: Input<'_>) {
        let conn = match input {
            Input::Received { conn, bytes } => {
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.input.extend_from_slice(bytes);
                }
                conn
            }
            Input::Eof { conn } => {
                self.clients.get_mut(&conn).expect("known").is_ended = true;
                conn
            }
            Input::Sent { conn, .. } => {
                self.clients.get_mut(&conn).expect("known").is_writing = false;
                conn
            }
            Input::Closed { conn, .. } => {
                self.clients.remove(&conn);
                self.outputs.retain(|output| {
                    !matches!(output, Output::Transmit { conn: of, .. } | Output::Close { conn: of, .. } if *of == conn)
                });
                return;
            }
            _ => return,
        };
        self.pump(conn);
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        None
    }
}
