//! The programs under test and the real servers behind them.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::data::{Frames, LARGE, MIXED, Protocol, SMALL, key};
use crate::load::{Engine, Metered, write_set};
use crate::process::{LOAD_CPU, PROXY_CPU, Program, find, free_address, metered};

/// Where the distribution's package puts twemproxy.
const NUTCRACKER: &str = "/usr/sbin/nutcracker";

/// How long a program may take until its first reply.
const READY_LIMIT: Duration = Duration::from_secs(5);

/// What the load is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A server itself, no proxy between.
    Direct,
    /// Twemproxy, the measure of all ratios.
    Nutcracker,
    /// Ringkeeper on io_uring.
    Uring,
    /// Ringkeeper on io_uring without latencies, slow log and examples: what those cost.
    UringBare,
    /// Ringkeeper on tokio.
    Tokio,
    /// Ringkeeper on io_uring with two workers on two cores, that of the load being one.
    UringPair,
    /// The same on tokio.
    TokioPair,
    /// Two processes on the same two cores with one io_uring worker each, half of the clients each:
    /// what two workers would cost if they had nothing in common.
    UringApart,
    /// The same on tokio.
    TokioApart,
    /// Two nutcrackers there: what the same cores cost a program that shares nothing at all.
    NutcrackerApart,
    /// One io_uring worker on the load's core, so that the two take turns.
    UringBeside,
    /// Two io_uring workers there.
    UringPairBeside,
    /// One nutcracker there.
    NutcrackerBeside,
    /// Any other program that reads the same file.
    Other(&'static Other),
}

/// A program that the command line names.
#[derive(Debug, PartialEq, Eq)]
pub struct Other {
    name: String,
    /// The program and its arguments; `{conf}` stands for the configuration file.
    words: Vec<String>,
}

impl Kind {
    /// The targets that need no telling, in the order of the tables.
    pub const ALL: [Self; 5] =
        [Self::Nutcracker, Self::Uring, Self::UringBare, Self::Tokio, Self::Direct];

    /// Those, and what is measured when it is asked for.
    pub const NAMED: [Self; 13] = [
        Self::Nutcracker,
        Self::Uring,
        Self::UringBare,
        Self::Tokio,
        Self::Direct,
        Self::UringPair,
        Self::TokioPair,
        Self::UringApart,
        Self::TokioApart,
        Self::NutcrackerApart,
        Self::UringBeside,
        Self::UringPairBeside,
        Self::NutcrackerBeside,
    ];

    /// The cores that the program may use.
    fn cores(self) -> &'static [usize] {
        match self {
            Self::UringPair
            | Self::TokioPair
            | Self::UringApart
            | Self::TokioApart
            | Self::NutcrackerApart => &[LOAD_CPU, PROXY_CPU],
            Self::UringBeside | Self::UringPairBeside | Self::NutcrackerBeside => &[LOAD_CPU],
            Self::Direct
            | Self::Nutcracker
            | Self::Uring
            | Self::UringBare
            | Self::Tokio
            | Self::Other(_) => &[PROXY_CPU],
        }
    }

    /// The name in options and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nutcracker => "nutcracker",
            Self::Uring => "uring",
            Self::UringBare => "uring-bare",
            Self::Tokio => "tokio",
            Self::UringPair => "uring-2",
            Self::TokioPair => "tokio-2",
            Self::UringApart => "uring-apart",
            Self::TokioApart => "tokio-apart",
            Self::NutcrackerApart => "nutcracker-apart",
            Self::UringBeside => "uring-beside",
            Self::UringPairBeside => "uring-2-beside",
            Self::NutcrackerBeside => "nutcracker-beside",
            Self::Other(other) => &other.name,
        }
    }

    /// How many processes it is.
    fn processes(self) -> usize {
        match self {
            Self::UringApart | Self::TokioApart | Self::NutcrackerApart => 2,
            Self::Direct
            | Self::Nutcracker
            | Self::Uring
            | Self::UringBare
            | Self::Tokio
            | Self::UringPair
            | Self::TokioPair
            | Self::UringBeside
            | Self::UringPairBeside
            | Self::NutcrackerBeside
            | Self::Other(_) => 1,
        }
    }

    /// Whether it is ringkeeper, which has to be built.
    pub fn is_ringkeeper(self) -> bool {
        !self.is_nutcracker() && !matches!(self, Self::Direct | Self::Other(_))
    }

    fn is_nutcracker(self) -> bool {
        matches!(self, Self::Nutcracker | Self::NutcrackerApart | Self::NutcrackerBeside)
    }

    /// Reads `NAME=PROGRAM ARGUMENT...`, words separated by blanks.
    ///
    /// The description stays in memory: it is one of a few and needed until the end.
    pub fn parse_other(text: &str) -> Result<Self, String> {
        let (name, command) = text.split_once('=').unwrap_or_default();
        let words: Vec<String> = command.split_ascii_whitespace().map(str::to_owned).collect();
        if name.is_empty() || words.is_empty() {
            return Err(format!("{text:?} is not NAME=COMMAND"));
        }
        // The name is also a file's and a key of the tables.
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        if !name.chars().all(is_plain) || Self::NAMED.iter().any(|kind| kind.name() == name) {
            return Err(format!("{name:?} is taken or has other characters than a-z, 0-9 and -"));
        }
        Ok(Self::Other(Box::leak(Box::new(Other { name: name.to_owned(), words }))))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One running target.
pub struct Target {
    /// What it is.
    pub kind: Kind,
    /// Where clients connect: in turn, if there is more than one.
    pub addresses: Vec<SocketAddr>,
    programs: Vec<Program>,
}

impl Target {
    /// Starts a target in front of these servers and waits for its first right reply.
    pub fn start(
        kind: Kind,
        servers: &[SocketAddr],
        folder: &Path,
        engine: &mut Engine,
    ) -> io::Result<Self> {
        if kind == Kind::Direct {
            let address = *servers.first().ok_or_else(|| io::Error::other("no server"))?;
            return Ok(Self { kind, addresses: vec![address], programs: Vec::new() });
        }
        let mut target = Self { kind, addresses: Vec::new(), programs: Vec::new() };
        for _ in 0..kind.processes() {
            let (address, program) = Self::start_one(kind, servers, folder, engine)?;
            target.addresses.push(address);
            target.programs.push(program);
        }
        Ok(target)
    }

    fn start_one(
        kind: Kind,
        servers: &[SocketAddr],
        folder: &Path,
        engine: &mut Engine,
    ) -> io::Result<(SocketAddr, Program)> {
        let mut problem = None;
        // Again, because a port found free may be taken by the time the program binds it.
        for _ in 0..3 {
            match Self::start_once(kind, servers, folder, engine) {
                Ok(started) => return Ok(started),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                Err(error) => problem = Some(error),
            }
        }
        let problem = problem.map_or_else(String::new, |error| error.to_string());
        Err(io::Error::other(format!("{kind} does not start: {problem}")))
    }

    fn start_once(
        kind: Kind,
        servers: &[SocketAddr],
        folder: &Path,
        engine: &mut Engine,
    ) -> io::Result<(SocketAddr, Program)> {
        let address = free_address()?;
        let file = folder.join(format!("{kind}.yml"));
        fs::write(&file, pool(address, servers, engine.protocol()))?;
        let mut command = command(kind, &file)?;
        let mut program =
            Program::start(&mut command, kind.cores(), &folder.join(format!("{kind}.log")))?;
        if let Err(error) = engine.wait_until_ready(address, READY_LIMIT) {
            program.check_alive()?;
            return Err(io::Error::other(format!("{error}\n{}", program.log_tail())));
        }
        program.check_alive()?;
        Ok((address, program))
    }

    /// The process ids; none without a proxy.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.programs.iter().map(Program::id)
    }

    /// CPU and waiting time so far; zero without a proxy.
    pub fn metered(&self) -> io::Result<Metered> {
        let mut sum = Metered::default();
        for id in self.ids() {
            let of_one = metered(id)?;
            sum.cpu_ns += of_one.cpu_ns;
            sum.wait_ns += of_one.wait_ns;
        }
        Ok(sum)
    }
}

/// The same pool for every proxy: what an operator would switch on, nothing left out.
pub fn pool(listen: SocketAddr, servers: &[SocketAddr], protocol: Protocol) -> String {
    let is_redis = protocol == Protocol::Resp;
    let mut text = format!(
        "bench:\n  listen: {listen}\n  hash: fnv1a_64\n  hash_tag: \"{{}}\"\n  \
         distribution: ketama\n  timeout: 10000\n  backlog: 1024\n  redis: {is_redis}\n  \
         preconnect: true\n  tcpkeepalive: true\n  auto_eject_hosts: true\n  \
         server_retry_timeout: 2000\n  server_failure_limit: 3\n  servers:\n"
    );
    for (at, server) in servers.iter().enumerate() {
        text.push_str(&format!("    - {server}:1 shard{at}\n"));
    }
    text
}

fn command(kind: Kind, file: &Path) -> io::Result<Command> {
    let missing = |what: &str| io::Error::new(io::ErrorKind::NotFound, what.to_owned());
    if kind.is_nutcracker() {
        let program = find(NUTCRACKER).ok_or_else(|| {
            missing("/usr/sbin/nutcracker is missing: install the package nutcracker")
        })?;
        let mut command = Command::new(program);
        let port = free_address()?.port().to_string();
        command.arg("-c").arg(file).args(["-a", "127.0.0.1", "-s", &port]);
        return Ok(command);
    }
    if let Kind::Other(other) = kind {
        let file = file.to_string_lossy();
        let mut words = other.words.iter().map(|word| word.replace("{conf}", &file));
        let program = words.next().ok_or_else(|| missing("no command"))?;
        let mut command = Command::new(program);
        command.args(words);
        return Ok(command);
    }
    let program = ringkeeper();
    if !program.exists() {
        return Err(missing("target/release/ringkeeper is missing"));
    }
    let mut command = Command::new(program);
    let (runtime, threads) = match kind {
        Kind::UringPair | Kind::UringPairBeside => ("uring", "2"),
        Kind::TokioPair => ("tokio", "2"),
        Kind::UringBare | Kind::UringApart | Kind::UringBeside => ("uring", "1"),
        Kind::TokioApart => ("tokio", "1"),
        Kind::Direct
        | Kind::Nutcracker
        | Kind::NutcrackerApart
        | Kind::NutcrackerBeside
        | Kind::Uring
        | Kind::Tokio
        | Kind::Other(_) => (kind.name(), "1"),
    };
    command.arg("run").arg("-c").arg(file).args(["--admin", "off"]);
    command.args(["--runtime", runtime, "--threads", threads]);
    if kind == Kind::UringBare {
        command.args(["--figures", "off"]);
    }
    Ok(command)
}

/// The folder that cargo builds into.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}

fn ringkeeper() -> PathBuf {
    target_folder().join("release/ringkeeper")
}

/// Brings the release binary up to date; cargo does nothing if it is.
pub fn build_ringkeeper() -> io::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = Command::new(cargo)
        .args(["build", "--release", "--package", "ringkeeper", "--bin", "ringkeeper"])
        .current_dir(root)
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("cargo build --release failed")) }
}

/// Returns the version line of a target for the record.
pub fn version(kind: Kind) -> String {
    let output = match kind {
        Kind::Direct | Kind::Other(_) => return String::new(),
        Kind::Nutcracker | Kind::NutcrackerApart | Kind::NutcrackerBeside => {
            Command::new(NUTCRACKER).arg("-V").output()
        }
        Kind::Uring
        | Kind::UringBare
        | Kind::Tokio
        | Kind::UringPair
        | Kind::TokioPair
        | Kind::UringApart
        | Kind::TokioApart
        | Kind::UringBeside
        | Kind::UringPairBeside => Command::new(ringkeeper()).arg("--version").output(),
    };
    let Ok(output) = output else { return "missing".to_owned() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

/// Real Redis servers on the load's core, filled with every key of the workloads.
pub struct RealServers {
    /// Where they listen.
    pub addresses: Vec<SocketAddr>,
    programs: Vec<Program>,
}

impl RealServers {
    /// Starts and fills this many servers.
    pub fn start(count: usize, folder: &Path, frames: &Frames) -> io::Result<Self> {
        let program = redis_server(folder)?;
        let mut servers = Self { addresses: Vec::new(), programs: Vec::new() };
        for at in 0..count {
            let address = free_address()?;
            let port = address.port().to_string();
            let mut command = Command::new(&program);
            command.args(["--bind", "127.0.0.1", "--port", &port, "--save", ""]);
            command.args(["--appendonly", "no", "--daemonize", "no", "--dir"]).arg(folder);
            let log = folder.join(format!("redis-{at}.log"));
            let mut program = Program::start(&mut command, &[LOAD_CPU], &log)?;
            let mut stream = connect(&mut program, address)?;
            // Every server holds every key, so that it does not matter where a key is sent.
            for space in [SMALL, LARGE, MIXED] {
                fill(&mut stream, space.letter, space.keys, frames)?;
            }
            servers.addresses.push(address);
            servers.programs.push(program);
        }
        Ok(servers)
    }

    /// Ends with an error if one of them has stopped.
    pub fn check_alive(&mut self) -> io::Result<()> {
        self.programs.iter_mut().try_for_each(Program::check_alive)
    }
}

/// Finds redis-server; the checker of dump files is the same program under another name.
fn redis_server(folder: &Path) -> io::Result<PathBuf> {
    if let Some(program) = find("redis-server") {
        return Ok(program);
    }
    let Some(checker) = find("redis-check-rdb") else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "redis-server is missing: install the package redis-server or redis-tools",
        ));
    };
    let link = folder.join("redis-server");
    if !link.exists() {
        std::os::unix::fs::symlink(checker, &link)?;
    }
    Ok(link)
}

fn connect(program: &mut Program, address: SocketAddr) -> io::Result<TcpStream> {
    for _ in 0..500 {
        program.check_alive()?;
        if let Ok(stream) = TcpStream::connect(address) {
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            return Ok(stream);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other(format!("redis-server at {address} does not answer")))
}

fn fill(stream: &mut TcpStream, letter: u8, keys: u32, frames: &Frames) -> io::Result<()> {
    let mut out = Vec::new();
    let mut reply = [0; 5 * 64];
    for first in (0..keys).step_by(64) {
        out.clear();
        let last = keys.min(first + 64);
        for number in first..last {
            let frame = frames.frame(letter, number).expect("a known space");
            write_set(&key(letter, number), frame, &mut out);
        }
        stream.write_all(&out)?;
        let replies = &mut reply[..5 * (last - first) as usize];
        stream.read_exact(replies)?;
        if !replies.chunks(5).all(|reply| reply == b"+OK\r\n") {
            return Err(io::Error::other("redis-server did not take a value"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_target_is_a_name_and_a_command_with_the_file_filled_in() {
        let kind = Kind::parse_other("other=/bin/proxy -c {conf}").expect("a target");
        assert_eq!(kind.name(), "other");
        let command = command(kind, Path::new("/tmp/pool.yml")).expect("a command");
        assert_eq!(command.get_program(), "/bin/proxy");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["-c", "/tmp/pool.yml"]);
    }

    #[test]
    fn a_name_in_use_and_a_missing_command_are_refused() {
        for text in ["uring=/bin/proxy", "other=", "=/bin/proxy", "/bin/proxy", "a/b=/bin/proxy"] {
            assert!(Kind::parse_other(text).is_err(), "{text}");
        }
    }
}
