//! What the black-box tests share: a place for files, free ports, processes that do not outlive
//! their test.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop where it broke"
)]

pub mod fake;
pub mod lab;
pub mod memcached;
pub mod net;
pub mod python;
pub mod quorum;
pub mod resp;
pub mod segment;
pub mod victim;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of one test, removed at its end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cli-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        symlink(env!("CARGO_BIN_EXE_ringkeeper"), path.join("nutcracker")).unwrap();
        symlink(env!("CARGO_BIN_EXE_ringkeeper"), path.join("ringkeeper")).unwrap();
        symlink(env!("CARGO_BIN_EXE_ringkeeper"), path.join("redis-sentinel")).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Returns the file's text, empty while there is no file.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Writes a good configuration whose pool listens on a free port; returns the port.
    pub fn write_good(&self, name: &str) -> u16 {
        let port = free_port();
        self.write(
            name,
            &format!(
                "alpha:\n  listen: 127.0.0.1:{port}\n  redis: true\n  servers:\n   - \
                 127.0.0.1:1:1 one\n   - 127.0.0.1:2:1 two\n"
            ),
        );
        port
    }

    /// Prepares the program under a name, in this directory.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path(name));
        command.args(arguments).current_dir(&self.0).stdin(Stdio::null());
        // Where commands are taken: each test has its own place.
        command.env("RUNTIME_DIRECTORY", &self.0);
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(name, arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        child.wait_with_output().unwrap()
    }

    /// Starts the program; its standard error goes to the file `stderr`.
    pub fn start(&self, name: &str, arguments: &[&str]) -> Process {
        let stderr = fs::File::create(self.path("stderr")).unwrap();
        let mut command = self.command(name, arguments);
        command.stdout(Stdio::null()).stderr(stderr);
        Process(command.spawn().unwrap())
    }

    /// Waits until a file holds `text`.
    pub fn wait_for(&self, file: &str, text: &str) {
        let has_it = || self.read(file).contains(text).then_some(());
        assert!(within_patience(has_it).is_some(), "no {text:?} in {file}: {:?}", self.read(file));
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running program that is killed with its test.
pub struct Process(Child);

impl Process {
    pub fn new(child: Child) -> Self {
        Self(child)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal; after one that stops, every thread has stopped.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
        // The call returns before the other threads have heard of it.
        #[cfg(target_os = "linux")]
        if signal == Signal::STOP {
            let tasks = format!("/proc/{}/task", self.0.id());
            eventually("every thread has stopped", || {
                let mut tasks = fs::read_dir(&tasks).ok()?;
                let has_stopped = |task: std::io::Result<fs::DirEntry>| {
                    let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
                    let state = stat.rsplit(") ").next()?.bytes().next()?;
                    matches!(state, b'T' | b'Z' | b'X').then_some(())
                };
                tasks.all(|task| has_stopped(task).is_some()).then_some(())
            });
        }
    }

    /// Returns the exit status, none while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    pub fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", || self.status())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process that serves after an upgrade, which is nobody's child; killed with its test.
#[derive(Default)]
pub struct Successor(Option<Pid>);

impl Successor {
    /// Takes what `ringkeeper upgrade` printed, `process 4711 has taken over 200 clients`; returns
    /// the number of clients. What was held before is let go.
    pub fn take(&mut self, said: &str) -> usize {
        let mut numbers = said.split(' ').filter_map(|word| word.parse::<i32>().ok());
        self.0 = Pid::from_raw(numbers.next().unwrap());
        usize::try_from(numbers.next().unwrap()).unwrap()
    }

    pub fn id(&self) -> Option<Pid> {
        self.0
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Asks again and again until there is an answer.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within_patience(ask).unwrap_or_else(|| panic!("waited in vain: {what}"))
}

/// Asks again and again until there is an answer or patience ends.
fn within_patience<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || start.elapsed() > PATIENCE {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ports below those that systems give to outgoing connections and to whoever binds port 0: what
/// is handed out here is taken by nobody by chance between the asking and the use.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// Returns a port of an address on which nobody listens. Each is handed out to one process at a
/// time, of all that test on this machine.
pub fn free_port_on(ip: IpAddr) -> u16 {
    static HANDED_OUT: AtomicU32 = AtomicU32::new(0);
    let span = PORTS.end - PORTS.start;
    let start = std::process::id().wrapping_mul(211);
    eventually("a free port", || {
        let step = HANDED_OUT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + start.wrapping_add(step) % span;
        let port = u16::try_from(port).unwrap();
        (claim(port) && TcpListener::bind((ip, port)).is_ok()).then_some(port)
    })
}

/// Says whether a port is this process's to hand out: between the asking and the use another
/// process may find it free too. The claim is a socket with a name that ends with the process, in
/// the same network namespace as the port.
fn claim(port: u16) -> bool {
    static CLAIMS: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());
    let name = SocketAddr::from_abstract_name(format!("ringkeeper-test-port-{port}")).unwrap();
    let Ok(claim) = UnixDatagram::bind_addr(&name) else { return false };
    CLAIMS.lock().unwrap().push(claim);
    true
}

/// Like [`free_port_on`], for 127.0.0.1.
pub fn free_port() -> u16 {
    free_port_on(Ipv4Addr::LOCALHOST.into())
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
