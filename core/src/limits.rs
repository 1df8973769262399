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

/// Largest request of an authenticated client by default, bytes. A request is stored whole before
/// its first byte goes to a server, so this is also what one client may make a worker hold.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Arguments of one request. Redis' documented bound for a multibulk; above it
/// `invalid multibulk length` and the connection ends.
pub const REQUEST_ARGS_MAX: u32 = 1024 * 1024;

/// Largest single argument, bytes: Redis' default `proto-max-bulk-len`. A server that takes more
/// is not asked to.
pub const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Longest inline request, bytes, without its line end: what Redis buffers before it gives up.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Arguments of one request before a required AUTH. As Redis: enough for HELLO with AUTH and
/// SETNAME.
pub const UNAUTHENTICATED_ARGS_MAX: u32 = 10;

/// Largest single argument before a required AUTH, bytes. As Redis.
pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;

/// Largest request before a required AUTH, bytes: every argument at its largest, and the headers.
pub const UNAUTHENTICATED_REQUEST_BYTES_MAX: usize = 192 * 1024;

/// Largest bulk, and longest line, in a reply, bytes. Far above what Redis takes in a request,
/// because a DUMP of a large value or a script's status line can be longer, and refusing a reply
/// ends a connection that other clients share. What a reply may hold in memory is bounded by the
/// budget of whom it is for.
pub const REPLY_BULK_BYTES_MAX: u64 = u32::MAX as u64;

/// Elements of one reply that may be announced and not yet received, nested ones included. Only a
/// broken server announces more.
pub const REPLY_ELEMENTS_MAX: u64 = u32::MAX as u64;

const _: () = assert!(
    UNAUTHENTICATED_ARGS_MAX as usize * (UNAUTHENTICATED_BULK_BYTES_MAX + 16)
        <= UNAUTHENTICATED_REQUEST_BYTES_MAX
);
// Offsets into a request are 32 bits wide.
const _: () = assert!(BULK_BYTES_MAX < u32::MAX as usize);
