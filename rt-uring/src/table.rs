//! The connections of a ring, found by name without hashing.

use socket2::Socket;

use ringkeeper_core::id::ConnId;
use ringkeeper_core::io::CloseReason;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A connect is in flight.
    Connecting,
    /// Reading and writing.
    Open,
    /// The worker wants it closed after the send in flight.
    Flushing,
    /// The worker gives it away; gone as soon as nothing is in flight.
    Releasing,
    /// What is in flight was cancelled; closed as soon as all of it has come back.
    Closing(CloseReason),
}

/// What the multishot receive is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receive {
    /// Not in the kernel.
    Idle,
    /// In the kernel.
    Armed,
    /// In the kernel, and a cancellation is on its way to it.
    Cancelling,
}

/// One connection. An idle one costs this and nothing else in the runtime.
#[derive(Debug)]
pub(crate) struct Connection {
    /// `None` in a free slot.
    socket: Option<Socket>,
    generation: u32,
    pub(crate) phase: Phase,
    pub(crate) receive: Receive,
    /// Whether a connect is in flight, also when it was given up.
    pub(crate) is_connecting: bool,
    /// Whether a send is in flight.
    pub(crate) is_sending: bool,
    /// Whether the worker wants to read.
    pub(crate) is_reading: bool,
    /// Whether the other side's end of stream was told.
    pub(crate) is_eof: bool,
    /// Whether the stash holds bytes of this connection.
    pub(crate) is_stashed: bool,
    /// Receives since the worker paused reading.
    pub(crate) late: u8,
    /// Operations that were in flight when their cancellation went out.
    pub(crate) cancelled: u8,
}

const _: () = assert!(size_of::<Connection>() <= 32);

impl Connection {
    /// Returns the socket. `None` cannot happen to an entry that the table gave out.
    pub(crate) const fn socket(&self) -> Option<&Socket> {
        self.socket.as_ref()
    }

    /// Returns how many operations are in the kernel, at most three.
    pub(crate) fn in_flight(&self) -> u8 {
        u8::from(self.is_connecting)
            + u8::from(self.is_sending)
            + u8::from(self.receive != Receive::Idle)
    }

    const FREE: Self = Self {
        socket: None,
        generation: 0,
        phase: Phase::Open,
        receive: Receive::Idle,
        is_connecting: false,
        is_sending: false,
        is_reading: true,
        is_eof: false,
        is_stashed: false,
        late: 0,
        cancelled: 0,
    };
}

/// All connections: two dense tables, one per kind, as the names have it.
#[derive(Debug, Default)]
pub(crate) struct Table {
    clients: Vec<Connection>,
    servers: Vec<Connection>,
}

impl Table {
    /// Stores a connection; gives the socket back when the slot is taken, which only a worker's
    /// bug can bring about.
    pub(crate) fn insert(
        &mut self,
        conn: ConnId,
        socket: Socket,
        phase: Phase,
    ) -> Result<(), Socket> {
        let slots = if conn.is_server() { &mut self.servers } else { &mut self.clients };
        let index = conn.index() as usize;
        if slots.len() <= index {
            slots.resize_with(index + 1, || Connection::FREE);
        }
        let Some(slot) = slots.get_mut(index).filter(|slot| slot.socket.is_none()) else {
            return Err(socket);
        };
        *slot = Connection {
            socket: Some(socket),
            generation: conn.generation(),
            is_connecting: phase == Phase::Connecting,
            phase,
            ..Connection::FREE
        };
        Ok(())
    }

    /// Finds a connection, if its name is still the one.
    #[inline]
    pub(crate) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Connection> {
        let slots = if conn.is_server() { &mut self.servers } else { &mut self.clients };
        let slot = slots.get_mut(conn.index() as usize)?;
        if slot.generation == conn.generation() && slot.socket.is_some() {
            Some(slot)
        } else {
            None
        }
    }

    /// Frees the slot and gives the socket out.
    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<Socket> {
        self.get_mut(conn)?.socket.take()
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Type};

    use super::*;

    fn socket() -> Socket {
        Socket::new(Domain::UNIX, Type::STREAM, None).unwrap()
    }

    #[test]
    fn an_old_name_finds_nobody_after_the_slot_is_used_again() {
        let mut table = Table::default();
        let (old, new) = (ConnId::client(3, 1), ConnId::client(3, 2));
        table.insert(old, socket(), Phase::Open).unwrap();
        assert!(table.insert(new, socket(), Phase::Open).is_err(), "still taken");
        assert!(table.remove(old).is_some());
        table.insert(new, socket(), Phase::Open).unwrap();
        assert!(table.get_mut(old).is_none());
        assert!(table.remove(old).is_none());
        assert!(table.get_mut(new).is_some());
    }

    #[test]
    fn clients_and_servers_do_not_share_slots() {
        let mut table = Table::default();
        table.insert(ConnId::client(0, 0), socket(), Phase::Open).unwrap();
        table.insert(ConnId::server(0, 0), socket(), Phase::Connecting).unwrap();
        assert_eq!(table.get_mut(ConnId::client(0, 0)).unwrap().in_flight(), 0);
        assert_eq!(table.get_mut(ConnId::server(0, 0)).unwrap().in_flight(), 1);
        assert!(table.get_mut(ConnId::client(1, 0)).is_none());
    }
}
