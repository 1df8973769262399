//! Buffers that travel across the border, and the pool they come home to.

use crate::limits::{POOLED_BUFFER_BYTES_MAX, POOLED_BYTES_MAX};

/// Bytes on their way out. The worker fills it, the runtime owns it while a write is in flight
/// and brings it home in [`Input::Sent`](crate::io::Input::Sent).
pub type Buffer = Vec<u8>;

/// Keeps empty buffers for the next use, so that a busy connection allocates nothing and an idle
/// one holds nothing.
///
/// Bounded: at most [`POOLED_BYTES_MAX`] in buffers of at most [`POOLED_BUFFER_BYTES_MAX`] each;
/// anything else goes back to the allocator.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: Vec<Buffer>,
    bytes: usize,
}

impl BufferPool {
    /// Takes an empty buffer.
    pub fn take(&mut self) -> Buffer {
        let buffer = self.free.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Takes a buffer back; its content is dropped.
    pub fn give(&mut self, mut buffer: Buffer) {
        let capacity = buffer.capacity();
        let is_small = capacity <= POOLED_BUFFER_BYTES_MAX;
        if capacity == 0 || !is_small || self.bytes + capacity > POOLED_BYTES_MAX {
            return;
        }
        buffer.clear();
        self.bytes += capacity;
        self.free.push(buffer);
    }
}
