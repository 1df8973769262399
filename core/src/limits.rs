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

/// Largest configuration file that is read, bytes: tens of thousands of pools. A larger file is an
/// error.
pub const CONFIG_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Keys, values and list items in one configuration file, about 100 bytes of memory each. More are
/// an error.
pub const CONFIG_NODES_MAX: usize = 1_000_000;

/// Errors and warnings of one file that are told; the rest is counted.
pub const CONFIG_DIAGNOSTICS_MAX: usize = 200;

/// Largest number in the configuration, as in twemproxy, whose numbers have 31 bits. As a time in
/// milliseconds it is 24 days.
pub const CONFIG_NUMBER_MAX: u32 = i32::MAX as u32;

/// Bytes of a Unix socket's path, which the kernel keeps in 108 bytes with a zero at the end.
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Largest request that a pool can be configured to take, bytes: Redis' own limit for a string.
pub const REQUEST_BYTES_MAX: u32 = 512 * 1024 * 1024;

/// Default of `request_bytes_max`, bytes. A request is stored whole before it leaves, so this is
/// what one client can make us hold.
pub const REQUEST_BYTES_DEFAULT: u32 = 64 * 1024 * 1024;

/// Smallest `request_bytes_max` and `client_output_bytes_max`, bytes; less could not carry what
/// ordinary clients send when they connect.
pub const CONFIG_BYTES_LIMIT_MIN: u32 = 1024;

/// Default of `client_output_bytes_max`, bytes: replies that a client has not read yet; then it is
/// closed. Room for several of the largest replies that are usual.
pub const CLIENT_OUTPUT_BYTES_DEFAULT: u32 = 256 * 1024 * 1024;

/// Default of `server_connect_timeout`, milliseconds.
pub const SERVER_CONNECT_TIMEOUT_MS_DEFAULT: u32 = 1000;

const _: () = assert!(REQUEST_BYTES_DEFAULT <= REQUEST_BYTES_MAX);
const _: () = assert!(REQUEST_BYTES_MAX <= CONFIG_NUMBER_MAX);

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
