//! The ring of buffers that the kernel receives into.
//!
//! The kernel takes buffers from the ring in the order in which they were put in. An incremental
//! ring (Linux 6.12) lets it fill one buffer with many receives, one behind the other; a plain one
//! gives a whole buffer to each. Either way a received chunk belongs to us until
//! [`BufferRing::give_back`].

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{Submitter, cqueue};

/// The one buffer group of a ring.
pub(crate) const GROUP: u16 = 0;

/// Both areas are aligned to the largest page size of the architectures that we run on, because
/// the kernel pins whole pages of the ring.
const ALIGNMENT: usize = 64 * 1024;

/// `IOU_PBUF_RING_INC` of the kernel's interface.
const INCREMENTAL: u16 = 2;

/// Received bytes that lie in the buffer ring. Not to be copied: whoever holds it owns the bytes.
#[derive(Debug)]
#[must_use = "a chunk that is not given back is lost for the ring"]
pub(crate) struct Chunk {
    buffer: u16,
    offset: u32,
    len: u32,
    /// Whether the kernel is done with the buffer.
    is_last: bool,
}

/// Page-aligned memory that the kernel knows the address of.
#[derive(Debug)]
struct Area {
    address: NonNull<u8>,
    layout: Layout,
    is_leaked: bool,
}

impl Area {
    fn new(len: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(len.max(1), ALIGNMENT)
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // SAFETY: the layout's size is not zero, by the `max` above.
        let address = unsafe { alloc_zeroed(layout) };
        let Some(address) = NonNull::new(address) else { handle_alloc_error(layout) };
        Ok(Self { address, layout, is_leaked: false })
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        if self.is_leaked {
            return;
        }
        // SAFETY: `address` came from `alloc_zeroed` with this very layout and is freed only
        // here. That the kernel is done with it is what `BufferRing::register` demands.
        unsafe { dealloc(self.address.as_ptr(), self.layout) }
    }
}

/// The buffers, the ring that offers them to the kernel, and who has which.
#[derive(Debug)]
pub(crate) struct BufferRing {
    entries: Area,
    data: Area,
    /// Buffers; a power of two.
    count: u16,
    /// Bytes of one buffer.
    size: u32,
    is_incremental: bool,
    /// Where the next buffer goes in; wraps, as the kernel's does.
    tail: u16,
    /// Bytes of each buffer that the kernel has filled since it was put in.
    filled: Box<[u32]>,
    /// A buffer that a failed receive named. Some kernels have taken it then and some have not;
    /// the next completion tells, because they are taken in order.
    suspect: Option<u16>,
}

impl BufferRing {
    /// Allocates `count` buffers of `size` bytes each. The count is rounded up to a power of two,
    /// at most 32768; the size is at least one byte.
    ///
    /// # Errors
    ///
    /// Only a layout that overflows the address space.
    pub(crate) fn new(count: u16, size: u32, is_incremental: bool) -> io::Result<Self> {
        let count = count.clamp(1, 1 << 15).next_power_of_two();
        let size = size.max(1);
        let entries = Area::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let data_len = usize::from(count)
            .checked_mul(size as usize)
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mut ring = Self {
            entries,
            data: Area::new(data_len)?,
            count,
            size,
            is_incremental,
            tail: 0,
            filled: vec![0; usize::from(count)].into_boxed_slice(),
            suspect: None,
        };
        for buffer in 0..count {
            ring.put_in(buffer);
        }
        ring.publish();
        Ok(ring)
    }

    /// Tells the kernel about the ring.
    ///
    /// # Safety
    ///
    /// The caller keeps this value alive (or leaks it) until the io_uring has no operation in
    /// flight that may receive into it, and the io_uring does not outlive it otherwise.
    ///
    /// # Errors
    ///
    /// What the kernel says: `EINVAL` where the kind of ring is unknown.
    pub(crate) unsafe fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let flags = if self.is_incremental { INCREMENTAL } else { 0 };
        let address = self.entries.address.as_ptr().expose_provenance() as u64;
        // SAFETY: `entries` holds `count` entries, aligned to pages, and lives long enough by
        // this function's own contract.
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, GROUP, flags) }
    }

    /// Shows the kernel the buffers that were given back. Once per turn is enough.
    pub(crate) fn publish(&mut self) {
        // SAFETY: the address is that of the first of `count` entries, zeroed at birth, and every
        // bit pattern is an entry; its last two bytes are the ring's tail by the interface.
        let tail = unsafe { BufRingEntry::tail(self.entries.address.as_ptr().cast()) }.cast_mut();
        // SAFETY: the pointer is aligned (offset 14 of a page), valid while `entries` lives, and
        // the kernel reads it atomically. Release: it must see the entries before the tail.
        unsafe { AtomicU16::from_ptr(tail) }.store(self.tail, Ordering::Release);
    }

    /// Reads what a completion says about a buffer; `None` when it brought no bytes.
    pub(crate) fn take(&mut self, result: i32, flags: u32) -> Option<Chunk> {
        let buffer = cqueue::buffer_select(flags).filter(|buffer| *buffer < self.count)?;
        if let Some(suspect) = self.suspect.take_if(|suspect| *suspect != buffer) {
            self.put_in(suspect);
        }
        let len = u32::try_from(result).unwrap_or(0);
        if len == 0 {
            self.suspect = Some(buffer);
            return None;
        }
        self.suspect = None;
        let filled = self.filled.get_mut(usize::from(buffer))?;
        let offset = *filled;
        // The kernel never fills more than there is; believing it must not be needed for safety.
        let len = len.min(self.size - offset);
        *filled = offset + len;
        let is_last = !self.is_incremental || !cqueue::buffer_more(flags);
        Some(Chunk { buffer, offset, len, is_last })
    }

    /// Returns the bytes of a chunk.
    pub(crate) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        let start = chunk.buffer as usize * self.size as usize + chunk.offset as usize;
        // SAFETY: `take` made the chunk, so `buffer < count` and `offset + len <= size`: the range
        // lies in `data`, which was zeroed at birth and is therefore initialised. The kernel
        // writes only behind what it reported as filled, or into buffers that were put in again,
        // and that takes `give_back`, which consumes the chunk; so nobody writes these bytes
        // while the slice lives.
        unsafe { slice::from_raw_parts(self.data.address.as_ptr().add(start), chunk.len as usize) }
    }

    /// Takes a chunk back; the kernel may use a finished buffer again after the next
    /// [`BufferRing::publish`].
    pub(crate) fn give_back(&mut self, chunk: Chunk) {
        if chunk.is_last {
            self.put_in(chunk.buffer);
        }
    }

    /// Leaves the memory to the kernel for good: it is not freed with this value.
    pub(crate) fn leak(&mut self) {
        self.entries.is_leaked = true;
        self.data.is_leaked = true;
    }

    /// Puts a whole buffer behind the last one in the ring.
    fn put_in(&mut self, buffer: u16) {
        let start = usize::from(buffer) * self.size as usize;
        let position = usize::from(self.tail & (self.count - 1));
        // SAFETY: `buffer < count`, so the buffer's first byte lies in `data`.
        let address = unsafe { self.data.address.as_ptr().add(start) }.expose_provenance() as u64;
        // SAFETY: `position < count`. At most `count` buffers exist and each is in the ring at
        // most once, so this entry's buffer was consumed and the kernel does not look at the
        // entry before the tail passes it; the tail inside the first entry is not written here.
        let entry =
            unsafe { &mut *self.entries.address.as_ptr().cast::<BufRingEntry>().add(position) };
        entry.set_addr(address);
        entry.set_len(self.size);
        entry.set_bid(buffer);
        if let Some(filled) = self.filled.get_mut(usize::from(buffer)) {
            *filled = 0;
        }
        self.tail = self.tail.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HAS_BUFFER: u32 = 1;
    const BUFFER_MORE: u32 = 1 << 4;

    fn flags(buffer: u16, more: bool) -> u32 {
        u32::from(buffer) << 16 | HAS_BUFFER | if more { BUFFER_MORE } else { 0 }
    }

    #[test]
    fn an_incremental_buffer_is_read_piece_by_piece() {
        let mut ring = BufferRing::new(2, 100, true).unwrap();
        let first = ring.take(60, flags(0, true)).unwrap();
        let second = ring.take(40, flags(0, false)).unwrap();
        assert_eq!((first.offset, first.len, first.is_last), (0, 60, false));
        assert_eq!((second.offset, second.len, second.is_last), (60, 40, true));
        assert_eq!(ring.bytes(&second).len(), 40);
        let tail = ring.tail;
        ring.give_back(first);
        assert_eq!(ring.tail, tail);
        ring.give_back(second);
        assert_eq!(ring.tail, tail + 1);
        assert_eq!(ring.take(1, flags(0, true)).unwrap().offset, 0);
    }

    #[test]
    fn a_chunk_never_reaches_beyond_its_buffer() {
        let mut ring = BufferRing::new(2, 100, true).unwrap();
        let chunk = ring.take(1000, flags(1, false)).unwrap();
        assert_eq!(ring.bytes(&chunk).len(), 100);
        assert!(ring.take(1, flags(2, false)).is_none());
    }

    #[test]
    fn a_buffer_of_a_failed_receive_goes_back_only_when_it_was_taken() {
        let mut ring = BufferRing::new(4, 100, false).unwrap();
        let tail = ring.tail;

        assert!(ring.take(0, flags(0, false)).is_none());
        let same = ring.take(5, flags(0, false)).unwrap();
        assert_eq!(ring.tail, tail, "it was not taken: the next receive used it");
        ring.give_back(same);
        assert_eq!(ring.tail, tail + 1);

        assert!(ring.take(-104, flags(1, false)).is_none());
        let next = ring.take(5, flags(2, false)).unwrap();
        assert_eq!(ring.tail, tail + 2, "it was taken: the next receive used the next");
        ring.give_back(next);
        assert_eq!(ring.tail, tail + 3);
    }
}
