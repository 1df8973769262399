//! Buffers that travel across the border, and the pool they come home to.

use crate::limits::{POOLED_BUFFER_BYTES_MAX, POOLED_BUFFERS_MAX};

/// Bytes on their way out. The worker fills it, the runtime owns it while a write is in flight
/// and brings it home in [`Input::Sent`](crate::io::Input::Sent).
pub type Buffer = Vec<u8>;

/// Keeps empty buffers for the next use, so that a busy connection allocates nothing and an idle
/// one holds nothing.
///
/// Bounded: at most [`POOLED_BUFFERS_MAX`] buffers of at most [`POOLED_BUFFER_BYTES_MAX`] each;
/// anything else goes back to the allocator.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: Vec<Buffer>,
}

impl BufferPool {
    /// Takes an empty buffer.
    pub fn take(&mut self) -> Buffer {
        self.free.pop().unwrap_or_default()
    }

    /// Takes a buffer back; its content is dropped.
    pub fn give(&mut self, mut buffer: Buffer) {
        let capacity = buffer.capacity();
        if capacity == 0
            || capacity > POOLED_BUFFER_BYTES_MAX
            || self.free.len() >= POOLED_BUFFERS_MAX
        {
            return;
        }
        buffer.clear();
        self.free.push(buffer);
    }
}
