//! Workers with a fault, to see that the judge finds it.

use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{
    AtCapacity, Deadline, Drive, Endpoint, Input, Notice, Output, ShardCondition,
};
use ringkeeper_core::time::Instant;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// News of another master are not heard.
    Deaf,
    /// Suspicion and fences are not heard.
    Careless,
    /// What is sent to a server is sent twice, now and then.
    Stutter,
    /// A write of unknown outcome is acknowledged.
    Optimist,
    /// Every `WAIT` counts enough replicas.
    Hasty,
    /// An error is swallowed.
    Mute,
}

/// A worker with a fault.
#[derive(Debug)]
pub struct Mutant<D> {
    inner: D,
    mutation: Mutation,
    writes: u64,
}

impl<D: Drive> Mutant<D> {
    /// Gives a worker a fault.
    pub const fn new(inner: D, mutation: Mutation) -> Self {
        Self { inner, mutation, writes: 0 }
    }

    fn replace(buffer: &mut Vec<u8>, from: &[u8], to: &[u8]) {
        let Some(start) = buffer.windows(from.len()).position(|part| part == from) else { return };
        let line = buffer[start..].iter().position(|byte| *byte == b'\n').unwrap_or(0);
        buffer.splice(start..=start + line, to.iter().copied());
    }
}

impl<D: Drive> Drive for Mutant<D> {
    fn accept(
        &mut self,
        now: Instant,
        on: ListenerId,
        peer: Endpoint,
    ) -> Result<ConnId, AtCapacity> {
        self.inner.accept(now, on, peer)
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        if let Input::Notice(Notice::Shard(news)) = &input {
            let is_calm = news.condition == ShardCondition::Serving;
            let is_first = news.epoch == 0;
            match self.mutation {
                Mutation::Deaf if !is_first => return,
                Mutation::Careless if !is_calm => return,
                _ => {}
            }
        }
        if let Input::Received { conn, bytes } = &input
            && self.mutation == Mutation::Hasty
            && conn.is_server()
            && *bytes == b":0\r\n"
        {
            return self.inner.handle(now, Input::Received { conn: *conn, bytes: b":1\r\n" });
        }
        self.inner.handle(now, input);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        let mut output = self.inner.poll_output()?;
        if let Output::Transmit { conn, buffer } = &mut output {
            self.writes += 1;
            match self.mutation {
                Mutation::Stutter if conn.is_server() && self.writes.is_multiple_of(16) => {
                    let twice = buffer.repeat(2);
                    *buffer = twice;
                }
                Mutation::Optimist if !conn.is_server() => {
                    Self::replace(buffer, b"-UNKNOWN", b"+OK\r\n");
                }
                Mutation::Mute if !conn.is_server() => Self::replace(buffer, b"-UNKNOWN", b""),
                _ => {}
            }
            if buffer.is_empty() {
                buffer.extend_from_slice(b"\r\n");
            }
        }
        Some(output)
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.inner.poll_timeout()
    }
}
