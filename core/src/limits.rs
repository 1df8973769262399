//! Every bound of the program, with its unit and its reason, and what happens when it is reached.
//!
//! One budget per purpose: what clients use can never take what servers need.

/// Inputs that a runtime hands over in one turn before it lets the worker speak. Larger batches
/// make larger writes and longer waits; 256 is a full turn of a busy ring.
pub const BATCH_MAX: usize = 256;

/// `Received` inputs that may still come after `PauseRead`: what the runtime had taken from the
/// kernel already.
pub const READS_IN_FLIGHT: usize = 64;

/// Largest slice of one `Received`, bytes: one buffer of the runtime.
pub const RECEIVE_BYTES_MAX: usize = 64 * 1024;

/// Largest buffer that the pool keeps, bytes. Larger ones go back to the allocator, so that a
/// burst of big values does not stay resident.
pub const POOLED_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Most buffers in the pool: with the size above at most 16 MiB per worker, in practice far less,
/// because a buffer is as large as its busiest use.
pub const POOLED_BUFFERS_MAX: usize = 256;

const _: () = assert!(POOLED_BUFFERS_MAX * POOLED_BUFFER_BYTES_MAX <= 16 * 1024 * 1024);

/// Servers in one pool, so that [`ServerId`](crate::id::ServerId) fits 16 bits and a point of a
/// ring eight bytes. The configuration refuses more.
pub const SERVERS_PER_POOL_MAX: usize = 65_535;

/// Slots of a modula pool that are laid out one by one (two bytes each, 128 KiB at most); a larger
/// total weight is searched instead, so that a weight of a billion costs no memory.
pub const MODULA_SLOTS_MAX: u64 = 65_536;

/// Bits of a hash that index the points of a ketama ring: at most 4 MiB of index, in the largest
/// pools only.
pub const KETAMA_INDEX_BITS_MAX: u32 = 20;

const _: () = assert!(SERVERS_PER_POOL_MAX <= u16::MAX as usize);
const _: () = assert!(KETAMA_INDEX_BITS_MAX < 32);
