//! The programs of a black-box test: our binary under both names, genuine Redis servers, the
//! genuine twemproxy.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::resp::{Client, Place, Reply};
use super::{Process, Scratch, eventually};

/// What drives the sockets of our binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    Uring,
    Tokio,
}

impl Runtime {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Tokio => "tokio",
        }
    }
}

/// Makes of each function that takes a [`Runtime`] one test per runtime.
#[macro_export]
macro_rules! on_every_runtime {
    ($($(#[$attribute:meta])* $test:ident),* $(,)?) => {$(
        mod $test {
            $(#[$attribute])*
            #[test]
            fn uring() {
                $crate::support::lab::run_on($crate::support::lab::Runtime::Uring, super::$test);
            }
            $(#[$attribute])*
            #[test]
            fn tokio() {
                $crate::support::lab::run_on($crate::support::lab::Runtime::Tokio, super::$test);
            }
        }
    )*};
}

/// Runs a test on a runtime if this machine has it.
pub fn run_on(runtime: Runtime, test: impl FnOnce(Runtime)) {
    static HAS_URING: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if runtime == Runtime::Uring && !*HAS_URING.get_or_init(has_uring) {
        skip("io_uring can't be used on this machine");
        return;
    }
    test(runtime);
}

fn has_uring() -> bool {
    let scratch = Scratch::new();
    scratch.write_good("ok.yml");
    let port = free_address(Ipv4Addr::LOCALHOST.into()).port();
    let text = port.to_string();
    let arguments = ["run", "-c", "ok.yml", "--stats-port", &text, "--runtime", "uring"];
    let mut process = scratch.start("ringkeeper", &arguments);
    eventually("io_uring is there or not", || {
        let is_up = TcpStream::connect(("127.0.0.1", port)).is_ok();
        if is_up { Some(true) } else { process.status().map(|_| false) }
    })
}

/// Says why a test is not run; fails where everything has to be there.
pub fn skip(reason: &str) {
    let is_strict = std::env::var_os("RINGKEEPER_REQUIRE_PEERS").is_some();
    assert!(!is_strict, "RINGKEEPER_REQUIRE_PEERS is set and {reason}");
    eprintln!("skipped: {reason}");
}

/// Finds a program in the search path and the places for administrators' programs.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|place| place.join(name)).find(|at| at.is_file())
}

/// Ends the calling test, with the reason, when a program is not installed.
#[macro_export]
macro_rules! need {
    ($($program:expr),+) => {
        $(if !$crate::support::lab::has($program) { return; })+
    };
}

/// Whether a program is installed; says so when it is not.
pub fn has(name: &str) -> bool {
    let is_there = match name {
        "redis-server" => redis_binary().is_some(),
        other => program(other).is_some(),
    };
    if !is_there {
        skip(&format!("{name} is not installed"));
    }
    is_there
}

/// Finds the Redis server. Debian's redis-check-rdb is the same program under another name.
fn redis_binary() -> Option<PathBuf> {
    program("redis-server").or_else(|| program("redis-check-rdb"))
}

/// Returns an address on which nobody listens.
pub fn free_address(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, super::free_port_on(ip))
}

/// A genuine Redis server with nothing on disk.
pub struct Redis {
    pub place: Place,
    scratch: Scratch,
    options: Vec<String>,
    process: Option<Process>,
}

impl Redis {
    /// Starts a server on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::start_with(Ipv4Addr::LOCALHOST.into(), &[])
    }

    pub fn start_with(ip: IpAddr, options: &[&str]) -> Self {
        // Somebody may take the port between the look and the bind.
        for _ in 0..10 {
            let mut redis = Self::at(Place::Tcp(free_address(ip)), options);
            if redis.run() {
                return redis;
            }
        }
        panic!("no port for a Redis server");
    }

    /// Starts a server on a unix socket.
    pub fn start_unix(options: &[&str]) -> Self {
        let mut redis = Self::at(Place::Unix(PathBuf::new()), options);
        redis.place = Place::Unix(redis.scratch.path("redis.sock"));
        assert!(redis.run(), "a Redis server on a unix socket");
        redis
    }

    fn at(place: Place, options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Self { place, scratch: Scratch::new(), options, process: None }
    }

    /// Starts the server, or starts it again, at its place. Returns false when it ended instead.
    pub fn run(&mut self) -> bool {
        let binary = self.scratch.path("redis-server");
        if !binary.exists() {
            symlink(redis_binary().unwrap(), &binary).unwrap();
        }
        let mut command = Command::new(&binary);
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.arg("--dir").arg(self.scratch.path(""));
        match &self.place {
            Place::Tcp(at) => {
                command.args(["--bind", &at.ip().to_string()]);
                command.args(["--port", &at.port().to_string()]);
            }
            Place::Unix(path) => {
                command.args(["--port", "0", "--unixsocket"]).arg(path);
            }
        }
        command.args(&self.options).stdin(Stdio::null()).stderr(Stdio::null());
        command.stdout(fs::File::create(self.scratch.path("redis.log")).unwrap());
        let mut process = Process::new(command.spawn().unwrap());
        let is_up = eventually("a Redis server answers or ends", || {
            if process.status().is_some() {
                return Some(false);
            }
            let mut client = Client::connect(&self.place).ok()?;
            // With a password it says so, which is an answer.
            client.try_ask(&["PING"]).ok().map(|_| true)
        });
        self.process = is_up.then_some(process);
        is_up
    }

    /// Ends the server at once; its place stays its own.
    pub fn kill(&mut self) {
        self.process = None;
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.place).unwrap()
    }

    /// Returns all its keys.
    pub fn keys(&self) -> BTreeSet<Vec<u8>> {
        self.keys_of(&mut self.client())
    }

    pub fn keys_of(&self, client: &mut Client) -> BTreeSet<Vec<u8>> {
        let keys = client.ask(&["KEYS", "*"]);
        let bytes = |reply: &Reply| match reply {
            Reply::Bulk(bytes) => bytes.clone(),
            other => panic!("not a key: {other:?}"),
        };
        keys.items().iter().map(bytes).collect()
    }

    pub fn forget_all(&self) {
        assert_eq!(self.client().ask(&["FLUSHALL"]), Reply::ok());
    }

    /// Returns the line for a pool's list of servers.
    pub fn line(&self, name: &str) -> String {
        server_line(&self.place, name)
    }
}

/// Returns the line for a pool's list of servers; the name may be empty.
pub fn server_line(place: &Place, name: &str) -> String {
    format!("    - {place}:1 {name}").trim_end().to_owned()
}

/// Which program is the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours, by its own name.
    Ringkeeper(Runtime),
    /// Ours, by its own name, with so many threads.
    Threaded(Runtime, u16),
    /// Ours, by twemproxy's name.
    Nutcracker(Runtime),
    /// twemproxy itself.
    Genuine,
}

/// A running proxy with one pool, `alpha`.
pub struct Proxy {
    pub place: Place,
    pub scratch: Scratch,
    pub process: Process,
    stats_port: u16,
    admin_port: u16,
}

impl Proxy {
    /// Starts our binary by its own name; `pool` are the lines of the pool but `listen`.
    pub fn start(runtime: Runtime, pool: &str) -> Self {
        Self::start_as(Kind::Ringkeeper(runtime), pool)
    }

    pub fn start_as(kind: Kind, pool: &str) -> Self {
        Self::start_with(kind, pool, &[])
    }

    /// Starts a proxy with more options.
    pub fn start_with(kind: Kind, pool: &str, options: &[&str]) -> Self {
        for _ in 0..10 {
            let at = Place::Tcp(free_address(Ipv4Addr::LOCALHOST.into()));
            if let Some(proxy) = Self::try_start_with(kind, at, "", pool, options) {
                return proxy;
            }
        }
        panic!("no port for {kind:?}");
    }

    /// Starts at one place, or none when the process ends instead. `mode` are the permissions of
    /// a unix socket.
    pub fn try_start(kind: Kind, place: Place, mode: &str, pool: &str) -> Option<Self> {
        Self::try_start_with(kind, place, mode, pool, &[])
    }

    fn try_start_with(
        kind: Kind,
        place: Place,
        mode: &str,
        pool: &str,
        options: &[&str],
    ) -> Option<Self> {
        let scratch = Scratch::new();
        let text = format!("alpha:\n  listen: {place} {mode}\n{pool}\n");
        scratch.write("alpha.yml", &text.replace(" \n", "\n"));
        let stats_port = free_address(Ipv4Addr::LOCALHOST.into()).port();
        let admin_port = free_address(Ipv4Addr::LOCALHOST.into()).port();
        let mut command = Self::command(kind, &scratch, stats_port);
        if matches!(kind, Kind::Ringkeeper(_) | Kind::Threaded(..)) {
            if !options.contains(&"--admin") {
                command.args(["--admin", &format!("127.0.0.1:{admin_port}")]);
            }
            command.args(options);
        }
        command.current_dir(scratch.path("")).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(scratch.path("stderr")).unwrap());
        command.env("RUNTIME_DIRECTORY", scratch.path(""));
        let mut process = Process::new(command.spawn().unwrap());
        let is_up = eventually("the proxy takes clients or ends", || {
            if process.status().is_some() {
                return Some(false);
            }
            // Our pools listen before the statistics do; twemproxy's listen last.
            let is_up = TcpStream::connect(("127.0.0.1", stats_port)).is_ok();
            let is_up = is_up && (kind != Kind::Genuine || Client::connect(&place).is_ok());
            is_up.then_some(true)
        });
        if !is_up {
            let log = scratch.read("stderr") + &scratch.read("log");
            assert!(log.contains("in use"), "{kind:?} ended: {log}\n{text}");
            return None;
        }
        Some(Self { place, scratch, process, stats_port, admin_port })
    }

    fn command(kind: Kind, scratch: &Scratch, stats_port: u16) -> Command {
        let port = stats_port.to_string();
        let old = ["-c", "alpha.yml", "-a", "127.0.0.1", "-i", "100", "-o", "log", "-s", &port];
        match kind {
            Kind::Ringkeeper(runtime) => {
                let mut command = Command::new(scratch.path("ringkeeper"));
                command.args(["run", "-c", "alpha.yml", "--stats-port", &port]);
                command.args(["--runtime", runtime.name()]);
                command
            }
            Kind::Threaded(runtime, threads) => {
                let mut command = Self::command(Kind::Ringkeeper(runtime), scratch, stats_port);
                command.args(["--threads", &threads.to_string()]);
                command
            }
            Kind::Nutcracker(runtime) => {
                let mut command = Command::new(scratch.path("nutcracker"));
                command.args(old).env("RINGKEEPER_RUNTIME", runtime.name());
                command
            }
            Kind::Genuine => {
                let mut command = Command::new(program("nutcracker").unwrap());
                command.args(old);
                command
            }
        }
    }

    pub fn client(&self) -> Client {
        let said = || self.scratch.read("stderr") + &self.scratch.read("log");
        Client::connect(&self.place)
            .unwrap_or_else(|error| panic!("{} takes no client: {error}\n{}", self.place, said()))
    }

    /// Returns where metrics and administration are.
    pub fn admin(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.admin_port).into()
    }

    /// Returns what the statistics port tells.
    pub fn stats(&self) -> serde_json::Value {
        use std::io::Read;
        let mut text = String::new();
        let mut stream = TcpStream::connect(("127.0.0.1", self.stats_port)).unwrap();
        stream.read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Returns the resident memory, bytes.
    pub fn resident_bytes(&self) -> u64 {
        let id = self.process.id().to_string();
        let output = Command::new("ps").args(["-o", "rss=", "-p", &id]).output().unwrap();
        let kibibytes = String::from_utf8_lossy(&output.stdout);
        kibibytes.trim().parse::<u64>().unwrap() * 1024
    }
}

/// Reads a file that belongs to the tests.
pub fn test_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
