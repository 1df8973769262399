//! The io_uring itself, and everything that the kernel may read or write while an operation is in
//! flight: the ring of receive buffers, the buffers being sent, the addresses being connected to.
//!
//! The one promise behind every `unsafe` here: memory that an operation names is owned by this
//! [`Ring`], does not move, and is not freed before the operation's last completion was read. A
//! ring that is dropped cancels and reaps what is in flight, and leaks the memory if the kernel
//! does not let go of it.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, squeue};
use socket2::{SockAddr, Socket};

use ringkeeper_core::buf::Buffer;
use ringkeeper_core::id::{ChannelId, ConnId};
use ringkeeper_core::limits::{BATCH_MAX, RECEIVE_BYTES_MAX};

use crate::buffer::{BufferRing, Chunk, GROUP};
use crate::op::{Op, parse, user_data};

/// Longest send of one operation, bytes; a longer buffer takes several. Keeps every length in the
/// kernel's signed 32 bits.
const SEND_BYTES_MAX: usize = 1 << 30;

/// How long a dropped ring waits for the kernel before it leaks the memory instead.
const QUIESCE_ROUNDS_MAX: usize = 50;

/// One round of that wait.
const QUIESCE_ROUND: Duration = Duration::from_millis(100);

/// Completions from which on a turn is not made larger before it begins. With replies of 16 KiB these
/// are all receive buffers; most of what more would save is saved by then.
const GATHER_UNTIL: usize = 64;

/// How often more is asked for before a turn begins. The kernel gives twenty at a time.
const GATHER_ROUNDS_MAX: usize = 8;

/// The buffers that the kernel receives into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// How many; a power of two, at most 32768.
    pub count: u16,
    /// Bytes of each, at most [`RECEIVE_BYTES_MAX`].
    pub size: u32,
    /// Whether the kernel may fill one with several receives (Linux 6.12).
    pub is_incremental: bool,
}

/// How a ring is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Entries of the submission queue; the completion queue has four times as many.
    pub entries: u32,
    /// The receive buffers.
    pub buffers: Buffers,
}

impl Options {
    /// Few and large: measured as fast as many, and they stay in the cache.
    const INCREMENTAL: Buffers = Buffers { count: 16, size: 64 * 1024, is_incremental: true };
    /// Before Linux 6.12 every receive takes a whole buffer, so they are small and many.
    const PLAIN: Buffers = Buffers { count: 256, size: 4 * 1024, is_incremental: false };

    /// Entries to try, best first. The smaller rings are for a small RLIMIT_MEMLOCK, against which
    /// some kernels count a ring.
    const ENTRIES: [u32; 3] = [1024, 256, 64];

    /// Buffers to try, best first.
    const BUFFERS: [Buffers; 2] = [Self::INCREMENTAL, Self::PLAIN];
}

impl Default for Options {
    fn default() -> Self {
        Self { entries: 1024, buffers: Self::INCREMENTAL }
    }
}

const _: () = assert!(Options::INCREMENTAL.size as usize <= RECEIVE_BYTES_MAX);
const _: () = assert!(Options::PLAIN.size as usize <= RECEIVE_BYTES_MAX);

/// The step at which a ring could not be made.
#[derive(Debug)]
pub(crate) enum SetupError {
    /// `io_uring_setup` refused.
    Setup(io::Error),
    /// An operation that we need is unknown.
    Operations,
    /// The buffer ring was refused.
    Buffers(io::Error),
}

impl From<SetupError> for io::Error {
    fn from(error: SetupError) -> Self {
        match error {
            SetupError::Setup(error) | SetupError::Buffers(error) => error,
            SetupError::Operations => Self::from(io::ErrorKind::Unsupported),
        }
    }
}

/// What an operation came to. `result` is the kernel's: negative is an error number.
#[derive(Debug)]
pub(crate) enum Completion {
    Accepted { listener: usize, result: Result<Socket, i32>, has_more: bool },
    Received { conn: ConnId, chunk: Option<Chunk>, result: i32, has_more: bool },
    Sent { conn: ConnId, buffer: Buffer, offset: usize, result: i32 },
    Connected { conn: ConnId, result: i32 },
    Woken { has_more: bool },
    Readable { channel: ChannelId, has_more: bool },
    Cancelled { conn: ConnId, result: i32 },
}

/// A completion as it lies in the queue.
#[derive(Clone, Copy, Debug)]
struct Raw {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// What an operation in flight points to.
#[derive(Debug)]
enum Parked {
    Free {
        next: Option<u32>,
    },
    Buffer {
        conn: ConnId,
        buffer: Buffer,
        offset: usize,
    },
    /// Boxed: the address must not move when the list grows.
    Address {
        conn: ConnId,
        _address: Box<SockAddr>,
    },
}

/// What is parked, by place.
#[derive(Debug, Default)]
struct Parking {
    places: Vec<Parked>,
    free: Option<u32>,
}

impl Parking {
    fn park(&mut self, parked: Parked) -> u32 {
        if let Some(place) = self.free
            && let Some(slot) = self.places.get_mut(place as usize)
            && let Parked::Free { next } = *slot
        {
            self.free = next;
            *slot = parked;
            return place;
        }
        let place = self.places.len();
        self.places.push(parked);
        // One place per connection at most, and those are below 2^24.
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    fn take(&mut self, place: u64) -> Option<Parked> {
        let place = u32::try_from(place).ok()?;
        let slot = self.places.get_mut(place as usize)?;
        if matches!(slot, Parked::Free { .. }) {
            return None;
        }
        let parked = mem::replace(slot, Parked::Free { next: self.free });
        self.free = Some(place);
        Some(parked)
    }
}

/// An io_uring with the memory that it works on.
pub(crate) struct Ring {
    // The order of the fields is the order of their drops: the io_uring goes before the memory.
    uring: IoUring,
    enter_flags: EnterFlags,
    parking: Parking,
    buffers: BufferRing,
    /// Operations that found the submission queue full; they keep their order.
    backlog: VecDeque<squeue::Entry>,
    batch: Vec<Raw>,
    position: usize,
    /// Operations whose last completion was not read yet.
    in_flight: usize,
}

impl Ring {
    /// Makes a ring for the current thread, which alone may use it.
    ///
    /// # Errors
    ///
    /// [`SetupError`] with the kernel's answer.
    pub(crate) fn new(options: &Options) -> Result<Self, SetupError> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            // The kernel says where we can see it that there is something for us.
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(options.entries.saturating_mul(4))
            .build(options.entries)
            .map_err(SetupError::Setup)?;
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe).map_err(SetupError::Setup)?;
        let needed = [
            opcode::AcceptMulti::CODE,
            opcode::RecvMulti::CODE,
            opcode::Send::CODE,
            opcode::Connect::CODE,
            opcode::PollAdd::CODE,
            opcode::AsyncCancel2::CODE,
        ];
        if !needed.iter().all(|code| probe.is_supported(*code)) {
            return Err(SetupError::Operations);
        }
        let Buffers { count, size, is_incremental } = options.buffers;
        let buffers = BufferRing::new(count, size, is_incremental).map_err(SetupError::Buffers)?;
        let mut enter_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if uring.params().is_feature_no_iowait() {
            // An idle proxy is not a machine that waits for its disks.
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        let ring = Self {
            uring,
            enter_flags,
            parking: Parking::default(),
            buffers,
            backlog: VecDeque::new(),
            batch: Vec::with_capacity(BATCH_MAX),
            position: 0,
            in_flight: 0,
        };
        // SAFETY: `ring` owns both the io_uring and the buffers, drops the io_uring first, and
        // `Drop` leaks the buffers if operations are still in flight then.
        unsafe { ring.buffers.register(&ring.uring.submitter()) }.map_err(SetupError::Buffers)?;
        Ok(ring)
    }

    /// Makes the best ring that this kernel and this process's limits allow.
    ///
    /// # Errors
    ///
    /// The [`SetupError`] of the last attempt.
    pub(crate) fn best() -> Result<(Self, Options), SetupError> {
        let mut last = SetupError::Operations;
        for entries in Options::ENTRIES {
            for buffers in Options::BUFFERS {
                let options = Options { entries, buffers };
                match Self::new(&options) {
                    Ok(ring) => return Ok((ring, options)),
                    // Another kind of buffers may do.
                    Err(error @ SetupError::Buffers(_)) => last = error,
                    // A smaller ring may do.
                    Err(SetupError::Setup(error)) if error.raw_os_error() == Some(libc::ENOMEM) => {
                        last = SetupError::Setup(error);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Err(last)
    }

    /// Returns the entries of the submission and of the completion queue.
    pub(crate) fn entries(&self) -> (u32, u32) {
        let params = self.uring.params();
        (params.sq_entries(), params.cq_entries())
    }

    /// Tells whether the kernel could bundle buffers (Linux 6.10).
    pub(crate) fn can_bundle(&self) -> bool {
        self.uring.params().is_feature_recvsend_bundle()
    }

    /// Returns how many operations have not had their last completion read.
    #[cfg(test)]
    const fn in_flight(&self) -> usize {
        self.in_flight
    }

    // Operations. All go out with the next `enter`.

    /// Accepts until the completion says that it has no more.
    pub(crate) fn accept(&mut self, listener: usize, socket: &Socket) {
        let entry = opcode::AcceptMulti::new(Fd(socket.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
            .build()
            .user_data(user_data(Op::Accept, listener as u64));
        // SAFETY: the operation names no memory: no address is asked for.
        unsafe { self.push(entry) }
    }

    /// Cancels an accept; its last completion says so.
    pub(crate) fn cancel_accept(&mut self, listener: usize) {
        let entry = opcode::AsyncCancel::new(user_data(Op::Accept, listener as u64))
            .build()
            .user_data(user_data(Op::CancelAccept, 0));
        // SAFETY: the operation names no memory.
        unsafe { self.push(entry) }
    }

    /// Receives into the buffer ring until the completion says that it has no more.
    pub(crate) fn receive(&mut self, conn: ConnId, socket: &Socket) {
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP)
            .build()
            .user_data(user_data(Op::Receive, conn.to_bits()));
        // SAFETY: the operation names the buffer ring only, which this ring owns.
        unsafe { self.push(entry) }
    }

    /// Sends the buffer from `offset` on; it comes back in the completion.
    pub(crate) fn send(&mut self, conn: ConnId, socket: &Socket, buffer: Buffer, offset: usize) {
        let rest = buffer.get(offset..).unwrap_or_default();
        let len = rest.len().min(SEND_BYTES_MAX);
        // The pointer goes to the heap, so it stays right when the buffer is moved to its place.
        let start = rest.as_ptr();
        let place = self.parking.park(Parked::Buffer { conn, buffer, offset });
        #[expect(clippy::cast_possible_truncation, reason = "SEND_BYTES_MAX fits")]
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), start, len as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(user_data(Op::Send, u64::from(place)));
        // SAFETY: `start..start + len` lies in the buffer parked above. Nobody touches a parked
        // buffer, and `Parking::take` gives it out only for this operation's own completion.
        unsafe { self.push(entry) }
    }

    /// Connects the socket.
    pub(crate) fn connect(&mut self, conn: ConnId, socket: &Socket, address: SockAddr) {
        let address = Box::new(address);
        let (start, len) = (address.as_ptr().cast(), address.len());
        let place = self.parking.park(Parked::Address { conn, _address: address });
        let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), start, len)
            .build()
            .user_data(user_data(Op::Connect, u64::from(place)));
        // SAFETY: the address lies in the box parked above, which does not move its content and
        // is taken out only for this operation's own completion.
        unsafe { self.push(entry) }
    }

    /// Tells when the descriptor becomes readable, until the completion says that it has no more.
    pub(crate) fn poll_wake(&mut self, descriptor: &impl AsFd) {
        let events = u32::from(libc::POLLIN.cast_unsigned());
        let entry = opcode::PollAdd::new(Fd(descriptor.as_fd().as_raw_fd()), events)
            .multi(true)
            .build()
            .user_data(user_data(Op::Wake, 0));
        // SAFETY: the operation names no memory.
        unsafe { self.push(entry) }
    }

    /// Tells when a channel becomes readable, until the completion says that it has no more.
    pub(crate) fn poll_channel(&mut self, channel: ChannelId, descriptor: &impl AsFd) {
        let events = u32::from(libc::POLLIN.cast_unsigned());
        let entry = opcode::PollAdd::new(Fd(descriptor.as_fd().as_raw_fd()), events)
            .multi(true)
            .build()
            .user_data(user_data(Op::Channel, u64::from(channel.0)));
        // SAFETY: the operation names no memory.
        unsafe { self.push(entry) }
    }

    /// Cancels the poll of a channel; whatever it still tells is for nobody.
    pub(crate) fn cancel_channel(&mut self, channel: ChannelId) {
        let entry = opcode::AsyncCancel::new(user_data(Op::Channel, u64::from(channel.0)))
            .build()
            .user_data(user_data(Op::CancelChannel, 0));
        // SAFETY: the operation names no memory.
        unsafe { self.push(entry) }
    }

    /// Cancels the receive of a connection.
    pub(crate) fn cancel_receive(&mut self, conn: ConnId) {
        let entry = opcode::AsyncCancel::new(user_data(Op::Receive, conn.to_bits()))
            .build()
            .user_data(user_data(Op::Cancel, conn.to_bits()));
        // SAFETY: the operation names no memory.
        unsafe { self.push(entry) }
    }

    /// Cancels everything that is in flight on the socket of a connection. The completion's
    /// result is how many operations were found.
    pub(crate) fn cancel_socket(&mut self, conn: ConnId, socket: &Socket) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(socket.as_raw_fd())).all())
            .build()
            .user_data(user_data(Op::Cancel, conn.to_bits()));
        // SAFETY: the operation names no memory.
        unsafe { self.push(entry) }
    }

    /// Puts an operation into the submission queue.
    ///
    /// # Safety
    ///
    /// All memory that the operation names belongs to `self.parking` or `self.buffers`, does not
    /// move, and stays until the operation's last completion was read.
    unsafe fn push(&mut self, entry: squeue::Entry) {
        self.in_flight += 1;
        if !self.backlog.is_empty() {
            self.backlog.push_back(entry);
            return;
        }
        // SAFETY: this function's own contract.
        if unsafe { self.uring.submission().push(&entry) }.is_ok() {
            return;
        }
        // Full: let the kernel take what is there. If it does not (its completion queue has
        // overflowed), the operation waits for the next turn, which drains that.
        self.buffers.publish();
        let _ = self.uring.submit();
        // SAFETY: this function's own contract.
        if unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }

    fn push_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: only `push` fills the backlog, and its contract still holds: the last
            // completion of an operation comes after its submission.
            if unsafe { self.uring.submission().push(entry) }.is_err() {
                if self.uring.submit().is_err() || self.uring.submission().is_full() {
                    return;
                }
                continue;
            }
            self.backlog.pop_front();
        }
    }

    // The turn.

    /// Hands the operations and the free buffers to the kernel and waits for a completion, at most
    /// for `timeout`.
    ///
    /// # Errors
    ///
    /// Only what leaves the ring unusable.
    pub(crate) fn enter(&mut self, timeout: Duration) -> io::Result<()> {
        self.push_backlog();
        self.buffers.publish();
        let timespec = Timespec::from(timeout);
        let arguments = SubmitArgs::new().timespec(&timespec);
        let (submitter, submissions, completions) = self.uring.split();
        let to_submit = u32::try_from(submissions.len()).unwrap_or(u32::MAX);
        drop((submissions, completions));
        // SAFETY: the operations were pushed under `push`'s contract; the arguments and the time
        // in them live until the call returns, and EXT_ARG says that they are of this type.
        match unsafe { submitter.enter(to_submit, 1, self.enter_flags.bits(), Some(&arguments)) } {
            Ok(_) => {
                // Without time there is a turn to be made already.
                if !timeout.is_zero() {
                    self.gather();
                }
                Ok(())
            }
            Err(error) => match error.raw_os_error() {
                // Time is up, a signal came, or the kernel wants its completions read first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Takes in what else has come, so that it is served in this turn and its writes leave with those
    /// of this turn.
    ///
    /// The kernel wakes us for one completion and makes only as many as we waited for: what came
    /// with it or while we were woken stays behind for the next call, and at the start of a call it
    /// makes twenty. So a burst would become a turn of one request, a turn of twenty, and a turn of
    /// the rest, each with writes of its own to the same servers.
    fn gather(&mut self) {
        for _ in 0..GATHER_ROUNDS_MAX {
            let (submitter, submissions, completions) = self.uring.split();
            if !submissions.taskrun() || completions.len() >= GATHER_UNTIL {
                return;
            }
            drop((submissions, completions));
            let flags = EnterFlags::GETEVENTS.bits();
            // SAFETY: nothing is submitted, and no argument is passed that the call could read.
            if unsafe { submitter.enter::<libc::sigset_t>(0, 0, flags, None) }.is_err() {
                // The next turn's call hears of it again.
                return;
            }
        }
    }

    /// Tells whether completions were taken from the queue and not given out yet.
    pub(crate) fn has_batch(&self) -> bool {
        self.position < self.batch.len()
    }

    /// Gives the next completion out.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Completion> {
        loop {
            let Some(raw) = self.batch.get(self.position).copied() else {
                if !self.harvest() {
                    return None;
                }
                continue;
            };
            self.position += 1;
            if let Some(completion) = self.complete(raw) {
                return Some(completion);
            }
        }
    }

    /// Takes a batch from the kernel's queue: one look at its shared indices per batch.
    fn harvest(&mut self) -> bool {
        self.batch.clear();
        self.position = 0;
        self.batch.extend(self.uring.completion().take(BATCH_MAX).map(|entry| Raw {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
        !self.batch.is_empty()
    }

    fn complete(&mut self, raw: Raw) -> Option<Completion> {
        let Raw { user_data, result, flags } = raw;
        let has_more = cqueue::more(flags);
        if !has_more {
            debug_assert!(self.in_flight > 0, "more last completions than operations");
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        let (op, name) = parse(user_data)?;
        match op {
            Op::Receive => {
                let chunk = self.buffers.take(result, flags);
                Some(Completion::Received {
                    conn: ConnId::from_bits(name),
                    chunk,
                    result,
                    has_more,
                })
            }
            Op::Send => match self.parking.take(name)? {
                Parked::Buffer { conn, buffer, offset } => {
                    Some(Completion::Sent { conn, buffer, offset, result })
                }
                Parked::Address { .. } | Parked::Free { .. } => None,
            },
            Op::Connect => match self.parking.take(name)? {
                Parked::Address { conn, .. } => Some(Completion::Connected { conn, result }),
                Parked::Buffer { .. } | Parked::Free { .. } => None,
            },
            Op::Accept => {
                let result = if result >= 0 {
                    // SAFETY: the kernel made this descriptor for this completion, and nobody
                    // else has heard of it.
                    Ok(Socket::from(unsafe { OwnedFd::from_raw_fd(result) }))
                } else {
                    Err(result.saturating_neg())
                };
                let listener = usize::try_from(name).unwrap_or(usize::MAX);
                Some(Completion::Accepted { listener, result, has_more })
            }
            Op::Wake => Some(Completion::Woken { has_more }),
            Op::Cancel => Some(Completion::Cancelled { conn: ConnId::from_bits(name), result }),
            Op::Channel => {
                let channel = ChannelId(u32::try_from(name).unwrap_or(u32::MAX));
                Some(Completion::Readable { channel, has_more })
            }
            Op::CancelAll | Op::CancelAccept | Op::CancelChannel => None,
        }
    }

    /// Returns the bytes of a chunk.
    #[inline]
    pub(crate) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        self.buffers.bytes(chunk)
    }

    /// Takes a chunk back.
    #[inline]
    pub(crate) fn give_back(&mut self, chunk: Chunk) {
        self.buffers.give_back(chunk);
    }

    /// Cancels everything and reads completions until nothing is in flight, for a bounded time.
    /// Accepted sockets and received bytes are dropped. Tells whether the kernel has let go.
    pub(crate) fn quiesce(&mut self) -> bool {
        for _ in 0..QUIESCE_ROUNDS_MAX {
            while let Some(completion) = self.next() {
                if let Completion::Received { chunk: Some(chunk), .. } = completion {
                    self.give_back(chunk);
                }
            }
            if self.in_flight == 0 {
                return true;
            }
            // Again in every round: an operation that was on the move may have been missed.
            let entry = opcode::AsyncCancel2::new(CancelBuilder::any().all())
                .build()
                .user_data(user_data(Op::CancelAll, 0));
            // SAFETY: the operation names no memory.
            unsafe { self.push(entry) }
            if self.enter(QUIESCE_ROUND).is_err() {
                return false;
            }
        }
        false
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.in_flight > 0 && !self.quiesce() {
            // The kernel may still use this memory. A leak is the lesser evil.
            mem::forget(mem::take(&mut self.parking));
            self.buffers.leak();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn ring() -> Option<Ring> {
        match Ring::best() {
            Ok((ring, _)) => Some(ring),
            Err(error) => {
                println!("skipped: no io_uring here: {error:?}");
                None
            }
        }
    }

    #[test]
    fn a_place_is_used_again() {
        let mut parking = Parking::default();
        let conn = ConnId::client(1, 1);
        let buffer = || Parked::Buffer { conn, buffer: Vec::new(), offset: 0 };
        assert_eq!((parking.park(buffer()), parking.park(buffer())), (0, 1));
        assert!(parking.take(0).is_some());
        assert!(parking.take(0).is_none());
        assert!(parking.take(7).is_none());
        assert_eq!((parking.park(buffer()), parking.park(buffer())), (0, 2));
    }

    #[test]
    fn a_dropped_ring_lets_no_operation_behind() {
        let Some(mut ring) = ring() else { return };
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ours = Socket::from(OwnedFd::from(ours));
        let conn = ConnId::client(0, 0);
        ring.receive(conn, &ours);
        // More than a socket takes, so that the send stays in flight.
        ring.send(conn, &ours, vec![7; 8 << 20], 0);
        ring.enter(Duration::ZERO).unwrap();
        assert_eq!(ring.in_flight(), 2);
        assert!(ring.quiesce());
        assert_eq!(ring.in_flight(), 0);
        drop((ring, ours));
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).unwrap();
        assert!(rest.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn what_has_come_by_the_end_of_a_sleep_is_one_turn() {
        let Some(mut ring) = ring() else { return };
        let mut pairs = Vec::new();
        for index in 0..50 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let ours = Socket::from(OwnedFd::from(ours));
            ring.receive(ConnId::client(index, 0), &ours);
            pairs.push((ours, theirs));
        }
        // The receives begin to wait.
        ring.enter(Duration::ZERO).unwrap();
        assert!(ring.next().is_none());
        for (_, theirs) in &mut pairs {
            theirs.write_all(b"a request").unwrap();
        }
        ring.enter(Duration::from_secs(5)).unwrap();
        let mut received = 0;
        while let Some(completion) = ring.next() {
            let Completion::Received { chunk: Some(chunk), .. } = completion else {
                panic!("{completion:?}");
            };
            ring.give_back(chunk);
            received += 1;
        }
        assert_eq!(received, 50);
    }

    #[test]
    fn a_full_submission_queue_loses_nothing() {
        let options = Options { entries: 4, buffers: Options::PLAIN };
        let Ok(mut ring) = Ring::new(&options) else { return };
        let mut pairs = Vec::new();
        for index in 0..50 {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let ours = Socket::from(OwnedFd::from(ours));
            theirs.write_all(&[index]).unwrap();
            ring.receive(ConnId::client(u32::from(index), 0), &ours);
            pairs.push((ours, theirs));
        }
        let mut seen = [false; 50];
        while seen.iter().any(|seen| !seen) {
            ring.enter(Duration::from_secs(5)).unwrap();
            let mut is_idle = true;
            while let Some(completion) = ring.next() {
                is_idle = false;
                let Completion::Received { conn, chunk, has_more, .. } = completion else {
                    panic!("{completion:?}");
                };
                if let Some(chunk) = chunk {
                    assert_eq!(u32::from(ring.bytes(&chunk)[0]), conn.index());
                    seen[conn.index() as usize] = true;
                    ring.give_back(chunk);
                }
                if !has_more {
                    // A completion queue this small ends multishots by overflowing.
                    ring.receive(conn, &pairs[conn.index() as usize].0);
                }
            }
            assert!(!is_idle, "nothing came for five seconds");
        }
    }
}
