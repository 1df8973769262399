//! What the worker wants to end: a connection, or its own half of one.

use std::net::Shutdown;
use std::time::Duration;

use ringkeeper_core::id::ConnId;
use ringkeeper_core::io::{CloseMode, CloseReason, Drive, Host};

use super::Driver;
use crate::socket;
use crate::table::Phase;

impl<D: Drive, H: Host> Driver<D, H> {
    /// Says that nothing more is sent.
    pub(super) fn end_write(&mut self, conn: ConnId) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        if connection.phase != Phase::Open {
            return;
        }
        debug_assert!(!connection.is_sending, "a write is in flight on {conn:?}");
        if let Some(Err(error)) = connection.socket().map(|s| s.shutdown(Shutdown::Write)) {
            self.end(conn, socket::reason(error.raw_os_error().unwrap_or(libc::ENOTCONN)));
        }
    }

    /// Ends a connection.
    pub(super) fn close(&mut self, conn: ConnId, mode: CloseMode) {
        let Some(connection) = self.table.get_mut(conn) else { return };
        match (mode, connection.phase) {
            (CloseMode::Flush, Phase::Open) if connection.is_sending => {
                connection.phase = Phase::Flushing;
            }
            (_, Phase::Flushing) if mode == CloseMode::Flush => {}
            (_, Phase::Closing(_)) => {}
            (CloseMode::Flush, _) => self.end(conn, CloseReason::Requested),
            (CloseMode::Abort, _) => {
                if let Some(socket) = connection.socket() {
                    // What the other side has not read must not stay in the kernel for minutes.
                    let _ = socket.set_linger(Some(Duration::ZERO));
                }
                self.end(conn, CloseReason::Requested);
            }
        }
    }
}
