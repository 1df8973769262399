//! System calls without a safe wrapper. The only file of this package with `unsafe`.
//!
//! Each function is one call or a fixed little group of calls; whoever calls it needs no care.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
#[cfg(target_os = "linux")]
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// A moment of the local calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalTime {
    /// The year, such as 2026.
    pub(crate) year: i64,
    /// The month, 1 to 12.
    pub(crate) month: c_int,
    /// The day of the month, 1 to 31.
    pub(crate) day: c_int,
    /// The hour, 0 to 23.
    pub(crate) hour: c_int,
    /// The minute, 0 to 59.
    pub(crate) minute: c_int,
    /// The second, 0 to 60.
    pub(crate) second: c_int,
}

/// Converts seconds since 1970 (UTC) into the machine's local time; `None` if it has no such year.
pub(crate) fn local_time(unix_seconds: i64) -> Option<LocalTime> {
    let tm = calendar(libc::time_t::from(unix_seconds))?;
    Some(LocalTime {
        year: i64::from(tm.tm_year) + 1900,
        month: tm.tm_mon + 1,
        day: tm.tm_mday,
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
    })
}

fn calendar(seconds: libc::time_t) -> Option<libc::tm> {
    let mut parts = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are to live locals of the right type; localtime_r keeps neither.
    let filled = unsafe { libc::localtime_r(&raw const seconds, parts.as_mut_ptr()) };
    // SAFETY: a non-null answer means that localtime_r wrote every field of `parts`.
    (!filled.is_null()).then(|| unsafe { parts.assume_init() })
}

/// Which way a [`fork`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fork {
    /// In the process that called.
    Parent,
    /// In the new process.
    Child,
}

/// Makes a copy of the process. Refuses when there is more than this one thread, since locks that
/// another thread holds would stay locked for ever in the copy.
pub(crate) fn fork() -> io::Result<Fork> {
    if thread_count()? != 1 {
        return Err(io::Error::other("the process has threads already"));
    }
    // SAFETY: the process has one thread (checked above), so the child inherits no lock that
    // somebody else holds and may go on with ordinary code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        _ => Ok(Fork::Parent),
    }
}

/// Returns the number of threads of this process; 1 where the system does not tell.
#[cfg(target_os = "linux")]
fn thread_count() -> io::Result<usize> {
    match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) => Ok(tasks.count()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(1),
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn thread_count() -> io::Result<usize> {
    Ok(1)
}

/// A set of signals.
#[derive(Clone, Copy)]
pub(crate) struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// Makes a set of the given numbers; a number that is no signal is left out.
    pub(crate) fn new(signals: &[c_int]) -> Self {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset fills the whole set behind the pointer; it can't fail for a valid one.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for &signal in signals {
            // SAFETY: `set` is initialised; a wrong number is refused with EINVAL.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        Self(set)
    }

    /// Blocks these signals for this thread and for those it starts later.
    pub(crate) fn block(&self) -> io::Result<()> {
        // SAFETY: the set is initialised; a null old set means that it is not wanted.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const self.0, ptr::null_mut()) }
        {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Waits for one of these (blocked) signals; `None` when none came within `timeout`.
    #[cfg(target_os = "linux")]
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<Option<c_int>> {
        let limit = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
        };
        // SAFETY: set and limit are live and initialised; null means that no details are wanted.
        match unsafe { libc::sigtimedwait(&raw const self.0, ptr::null_mut(), &raw const limit) } {
            -1 => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EAGAIN) => Ok(None),
                error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
                error => Err(error),
            },
            signal => Ok(Some(signal)),
        }
    }

    /// Waits for one of these (blocked) signals. The time limit is not kept: this system has only
    /// `sigwait`, and whoever needs attention sends a signal.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn wait(&self, _timeout: Duration) -> io::Result<Option<c_int>> {
        let mut signal: c_int = 0;
        // SAFETY: both pointers are to live, initialised values.
        match unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } {
            0 => Ok(Some(signal)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Lets a program begin with no signal blocked, whatever whoever starts it has blocked: a program
/// that does not know of masks could never be ended by SIGTERM.
pub(crate) fn unblock_in(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;

    let SignalSet(none) = SignalSet::new(&[]);
    let unblock = move || {
        // SAFETY: the set is the closure's own and initialised; a null old set is not wanted.
        match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) }
        {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    };
    // SAFETY: what runs between fork and exec is one call that POSIX lists as async-signal-safe;
    // it takes no lock and allocates nothing, also when it fails.
    unsafe { command.pre_exec(unblock) };
}

/// Takes over a descriptor that this process was born with; none if there is no such one. To be
/// called once for a number, before anything else is opened by this program's own doing.
#[cfg(target_os = "linux")]
pub(crate) fn inherited(number: RawFd) -> Option<OwnedFd> {
    // Not the standard streams, which belong to the standard library.
    if number <= libc::STDERR_FILENO {
        return None;
    }
    // SAFETY: F_GETFD only asks whether the number is open, and changes nothing.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return None;
    }
    // SAFETY: the descriptor is open (asked above), and whoever started this process left it for
    // us under this number, so nobody else here owns it; CLOEXEC keeps it from our own children.
    unsafe {
        libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC);
        Some(OwnedFd::from_raw_fd(number))
    }
}

/// Lets the process ignore a signal.
pub(crate) fn ignore_signal(signal: c_int) {
    // SAFETY: SIG_IGN is a valid disposition and replaces whatever was there; no handler of ours
    // runs, so no code needs to be safe in a signal.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Where a crash line goes: the log's descriptor. Kept as a number because a signal handler may
/// not take a lock.
static CRASH_FD: AtomicI32 = AtomicI32::new(libc::STDERR_FILENO);

/// The line that a crash leaves.
const CRASH_LINE: &[u8] =
    b"[.......................] signal 11 (SIGSEGV) received, the process ends with a core dump\n";

/// Says where the line about a crash goes.
pub(crate) fn set_crash_fd(fd: RawFd) {
    CRASH_FD.store(fd, Ordering::Relaxed);
}

extern "C" fn log_crash(signal: c_int) {
    let fd = CRASH_FD.load(Ordering::Relaxed);
    // SAFETY: write and raise may be called in a handler (POSIX lists them as async-signal-safe),
    // the pointer and length are those of a static, and SA_RESETHAND has restored the default
    // action, so the raised signal ends the process when this handler returns.
    unsafe {
        libc::write(fd, CRASH_LINE.as_ptr().cast(), CRASH_LINE.len());
        libc::raise(signal);
    }
}

/// Makes SIGSEGV leave a line in the log before it ends the process.
pub(crate) fn log_crashes() -> io::Result<()> {
    let handler: extern "C" fn(c_int) = log_crash;
    // SAFETY: all-zero is a valid sigaction (no flags, empty mask); the handler has the signature
    // of a handler without SA_SIGINFO, lives as long as the program, and does only what is allowed
    // in a signal. SA_ONSTACK uses the alternate stack that the standard library gives threads.
    let status = unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESETHAND | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut())
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Largest allocation that comes from the heap, bytes; larger ones are mapped alone and go back to
/// the system when freed. Setting it also stops glibc from raising it after the first large one.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MMAP_THRESHOLD_BYTES: c_int = 1024 * 1024;

/// Free bytes at the top of the heap that glibc keeps, so that ordinary traffic does not move the
/// break up and down.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIM_THRESHOLD_BYTES: c_int = 4 * 1024 * 1024;

/// Tunes the allocator once, before the first thread, so that freed memory leaves the process.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn tune_allocator() {
    // SAFETY: mallopt only stores the value; a refused one (return 0) leaves the default.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES);
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn tune_allocator() {}

/// Gives free pages of the heap back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim_heap() {
    // SAFETY: malloc_trim takes the arenas' locks itself and moves nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim_heap() {}

/// Binds a packet socket to an interface and a protocol of Ethernet; protocol 0 hears nothing.
#[cfg(target_os = "linux")]
pub(crate) fn bind_packet(
    socket: std::os::fd::BorrowedFd<'_>,
    protocol: u16,
    interface: u32,
) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    let index = c_int::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    #[expect(clippy::cast_possible_truncation, reason = "families and sizes are small constants")]
    let (family, len) = (libc::AF_PACKET as u16, size_of::<libc::sockaddr_ll>() as u32);
    (address.sll_family, address.sll_protocol, address.sll_ifindex) =
        (family, protocol.to_be(), index);
    // SAFETY: the descriptor is borrowed for the call, the pointer and length are those of a live
    // local, and bind copies what they point to.
    let status = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the calling thread real-time priority, 1 to 99; first come, first served.
#[cfg(target_os = "linux")]
pub(crate) fn set_realtime(priority: u8) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: c_int::from(priority) };
    // SAFETY: 0 names the calling thread; the parameters are a live local that is copied.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_has_plausible_parts() {
        let time = local_time(1_700_000_000).unwrap();
        assert_eq!(time.year, 2023);
        assert_eq!(time.month, 11);
        assert!((13..=15).contains(&time.day));
        assert!(time.second <= 60);
    }

    #[test]
    fn fork_is_refused_while_threads_run() {
        // The test harness runs this in a thread of its own.
        assert!(fork().is_err());
    }

    #[test]
    fn waiting_ends_when_no_signal_comes() {
        let set = SignalSet::new(&[libc::SIGWINCH]);
        set.block().unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(set.wait(Duration::ZERO).unwrap(), None);
        }
    }

    #[test]
    fn programs_begin_with_no_signal_blocked() {
        // The mask belongs to this test's own thread.
        SignalSet::new(&[libc::SIGTERM, libc::SIGUSR1]).block().unwrap();
        let mut command = Command::new("sh");
        // TERM ends the shell before it can say anything.
        command.args(["-c", "kill -TERM $$; echo still here"]);
        unblock_in(&mut command);
        let output = command.output().unwrap();
        assert!(output.stdout.is_empty() && !output.status.success(), "{output:?}");
    }

    #[test]
    fn trimming_the_heap_is_harmless() {
        let held = vec![7_u8; 100_000];
        tune_allocator();
        trim_heap();
        assert!(held.iter().all(|&byte| byte == 7));
    }
}
