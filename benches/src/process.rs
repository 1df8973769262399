//! Child processes: start on a core, CPU accounting, resident memory, and the end.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::load::Metered;

/// The core of the generator and of every server.
pub const LOAD_CPU: usize = 0;
/// The core of the program under test, which has it for itself.
pub const PROXY_CPU: usize = 1;

/// A program that runs until this value is dropped.
pub struct Program {
    child: Child,
    log: PathBuf,
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resident {
    /// All of it.
    pub all: u64,
    /// Without pages of files.
    pub anonymous: u64,
    /// The highest so far, of all of it.
    pub peak: u64,
}

impl Program {
    /// Starts a program on these cores; its output goes to `log`.
    pub fn start(command: &mut Command, cores: &[usize], log: &Path) -> io::Result<Self> {
        let output = File::create(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // A child inherits the cores of the thread that starts it, so no thread of the child ever
        // runs elsewhere and a program that counts its cores sees these.
        let before = sched_getaffinity(None)?;
        pin_to(cores)?;
        let child = command.spawn();
        sched_setaffinity(None, &before)?;
        let child = child.map_err(|error| {
            io::Error::new(error.kind(), format!("{:?}: {error}", command.get_program()))
        })?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends with an error that holds the last lines of the log if the program has stopped.
    pub fn check_alive(&mut self) -> io::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        Err(io::Error::other(format!("stopped with {status}:\n{}", self.log_tail())))
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A program that has already stopped needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Binds the calling thread, and what it starts from then on, to one core.
pub fn pin(cpu: usize) -> io::Result<()> {
    pin_to(&[cpu])
}

fn pin_to(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set)?;
    Ok(())
}

/// Raises the limit of open files of this process and of its children.
pub fn raise_file_limit(files: u64) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= files) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(files));
    let raised = Rlimit { current: Some(files), maximum };
    setrlimit(Resource::Nofile, raised).map_err(|error| {
        io::Error::other(format!("{files} open files are needed (see ulimit -n): {error}"))
    })
}

/// Niceness of -20 for this process and all it starts, until this value is dropped.
///
/// It keeps other programs off the cores and changes nothing on a quiet machine. Linux weighs
/// sessions against each other first where autogroups are on, so the session is raised too.
pub struct Priority {
    session_before: Option<String>,
}

/// The niceness of the session of this process.
const AUTOGROUP: &str = "/proc/self/autogroup";

impl Priority {
    /// Raises it; needs the right to.
    pub fn raise() -> io::Result<Self> {
        setpriority_process(None, -20)?;
        let text = fs::read_to_string(AUTOGROUP).unwrap_or_default();
        let session_before = text.split_ascii_whitespace().last().map(str::to_owned);
        if session_before.is_some() {
            fs::write(AUTOGROUP, "-20")?;
        }
        Ok(Self { session_before })
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        if let Some(before) = &self.session_before {
            // The process ends next; a session left raised is a nuisance, not a fault.
            let _ = fs::write(AUTOGROUP, before);
        }
    }
}

/// Sums the time of all threads of a process.
pub fn metered(id: u32) -> io::Result<Metered> {
    let mut sum = Metered::default();
    for thread in fs::read_dir(format!("/proc/{id}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let mut fields = text.split_ascii_whitespace().map_while(|field| field.parse::<u64>().ok());
        sum.cpu_ns += fields.next().unwrap_or(0);
        sum.wait_ns += fields.next().unwrap_or(0);
    }
    Ok(sum)
}

/// Reads the resident memory of a process.
pub fn resident(id: u32) -> io::Result<Resident> {
    let text = fs::read_to_string(format!("/proc/{id}/status"))?;
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_ascii_whitespace().next());
        number.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Ok(Resident { all: field("VmRSS:"), anonymous: field("RssAnon:"), peak: field("VmHWM:") })
}

/// Waits until a process has used next to no CPU for a moment, at most `limit`.
pub fn settle(
    id: u32,
    limit: Duration,
    pump: &mut dyn FnMut(Duration) -> io::Result<()>,
) -> io::Result<()> {
    let end = Instant::now() + limit;
    let mut before = metered(id)?.cpu_ns;
    while Instant::now() < end {
        pump(Duration::from_millis(10))?;
        let after = metered(id)?.cpu_ns;
        if after - before < 200_000 {
            return Ok(());
        }
        before = after;
    }
    Ok(())
}

/// Waits until all programs together leave the cores idle for a moment, at most `limit`.
pub fn wait_for_quiet(
    limit: Duration,
    pump: &mut dyn FnMut(Duration) -> io::Result<()>,
) -> io::Result<()> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        let before = busy_and_all_ticks()?;
        pump(Duration::from_millis(60))?;
        let after = busy_and_all_ticks()?;
        // A tick is 10 ms and a moment has few of them: one may be ours.
        if after.0.saturating_sub(before.0) <= 1 && after.1 > before.1 {
            return Ok(());
        }
    }
    Ok(())
}

/// Ticks that this process has used, with all its children that have ended.
pub(crate) fn own_ticks() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    // What follows the name, which may have spaces: the eleventh field is the first of four times.
    let rest = text.rsplit(')').next().unwrap_or_default();
    let times = rest.split_ascii_whitespace().skip(11).take(4);
    Ok(times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum())
}

/// Ticks of all cores since boot: those that were not idle, and all.
pub(crate) fn busy_and_all_ticks() -> io::Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> =
        line.split_ascii_whitespace().skip(1).take(8).map_while(|tick| tick.parse().ok()).collect();
    let all: u64 = ticks.iter().sum();
    // Fourth and fifth: idle, and idle with a disk at work.
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

/// Finds a loopback port that was free a moment ago.
///
/// Another program may take it first; whoever starts a program on it tries again then.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// Finds a program by its full path or along PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    let fixed = Path::new(name);
    if fixed.is_absolute() {
        return fixed.exists().then(|| fixed.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.exists())
}
