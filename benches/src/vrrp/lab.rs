//! Two routers, a client and the bridge between them, in network namespaces of their own.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::probe::PROBE;

/// Ends one thread of a process by taking away what it waits on, which works with any program.
const END: &str = include_str!("../../../tests/support/end_thread.py");

/// The virtual address.
pub const ADDRESS: &str = "10.77.0.100";

/// Which program is a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `target/release/ringkeeper` on io_uring.
    Uring,
    /// The same on tokio.
    Tokio,
    /// keepalived of the distribution.
    Genuine,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Uring, Self::Tokio, Self::Genuine];

    /// Its name in tables and options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Tokio => "tokio",
            Self::Genuine => "keepalived",
        }
    }
}

/// The protocol and its timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mode {
    /// Its name in tables and options.
    pub name: &'static str,
    /// Version 2 or 3.
    pub version: u8,
    /// Time between adverts, milliseconds.
    pub interval_ms: u32,
}

impl Mode {
    /// Those of the tables.
    pub const ALL: [Self; 3] = [
        Self { name: "v2-1", version: 2, interval_ms: 1000 },
        Self { name: "v3-0.1", version: 3, interval_ms: 100 },
        Self { name: "v3-0.01", version: 3, interval_ms: 10 },
    ];

    /// Time between adverts.
    pub fn interval(self) -> Duration {
        Duration::from_millis(u64::from(self.interval_ms))
    }

    /// How long the backup of priority 100 waits after a goodbye, milliseconds. Source: RFC 9568
    /// section 6.1, RFC 3768 section 6.1.
    pub fn skew_ms(self) -> f64 {
        let unit = if self.version == 2 { 1000.0 } else { f64::from(self.interval_ms) };
        f64::from(256 - 100) * unit / 256.0
    }

    /// How long it waits after the last advert, milliseconds.
    pub fn down_ms(self) -> f64 {
        3.0 * f64::from(self.interval_ms) + self.skew_ms()
    }
}

/// A program that ends with this value.
pub struct Job(Child);

impl Job {
    /// The process that was started.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// Tells whether it is this product.
    pub fn is_ours(&self) -> bool {
        self.about("comm").starts_with("ringkeeper")
    }

    /// It and all that came of it, parents first.
    pub fn family(&self) -> Vec<Pid> {
        let mut family = vec![self.pid()];
        let mut at = 0;
        while let Some(pid) = family.get(at) {
            family.extend(children(*pid));
            at += 1;
        }
        family
    }

    /// Waits for its end.
    pub fn wait(&mut self) {
        let _ = self.0.wait();
    }

    /// Tells whether it is over.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Reads one of its files under `/proc`; empty when it is gone.
    fn about(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.pid().as_raw_nonzero());
        fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Its number may be somebody else's by now.
        if self.has_ended() {
            return;
        }
        let family = self.family();
        // Children first: a guardian that is left alone speaks.
        for pid in family.iter().rev() {
            let _ = kill_process(*pid, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

fn children(pid: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    let tasks = tasks.into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let numbers: Vec<i32> = lists
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|word| word.parse().ok())
        .collect();
    numbers.into_iter().filter_map(Pid::from_raw).collect()
}

/// Somebody who can end a thread, until dropped.
pub struct Ender {
    _job: Job,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Ender {
    /// Makes one for a thread of a process by its name.
    pub fn new(process: Pid, thread: &str) -> io::Result<Self> {
        let mut command = Command::new("python3");
        command.args(["-c", END, &process.as_raw_nonzero().to_string(), thread]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let gone = || io::Error::other("python3 has no pipe");
        let input = child.stdin.take().ok_or_else(gone)?;
        let output = BufReader::new(child.stdout.take().ok_or_else(gone)?);
        let mut ender = Self { _job: Job(child), input, output };
        match ender.hear()?.as_str() {
            "ready" => Ok(ender),
            other => Err(io::Error::other(format!("a thread can't be ended: {other}"))),
        }
    }

    fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Ends the thread; returns when, nanoseconds of the clock that all processes share.
    pub fn end(&mut self) -> io::Result<i64> {
        self.input.write_all(b"go\n")?;
        let said = self.hear()?;
        said.parse().map_err(|_| io::Error::other(format!("a thread was not ended: {said}")))
    }
}

/// The namespaces; they go with this value.
pub struct Lab {
    prefix: String,
    folder: PathBuf,
    ringkeeper: PathBuf,
    /// Whoever starts programs holds it, so that what the other labs wait for has a core.
    hands: Arc<Mutex<()>>,
    /// The echo of each router, which is there all the time.
    echoes: Vec<(&'static str, Job)>,
}

/// The echo's socket, as the kernel lists it: 10.77.0.100, port 7777.
const ECHO_PLACE: &str = "64004D0A:1E61";

/// The service's: 127.0.0.1, port 7778, listening.
const SERVICE_PLACE: &str = "0100007F:1E62 00000000:0000 0A";

/// What a router is to do besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Seconds between checks of the service; zero for none.
    pub check_every: u32,
    /// Whether the process has a pool too, which a virtual server is for. Only with ours.
    pub has_pool: bool,
}

impl Lab {
    /// Makes them. `folder` gets configurations, logs and captures, in a folder for each number;
    /// labs that share `hands` start programs one at a time.
    pub fn new(
        folder: &Path,
        ringkeeper: &Path,
        number: usize,
        hands: &Arc<Mutex<()>>,
    ) -> io::Result<Self> {
        let prefix = format!("rkb{}n{number}", std::process::id());
        let folder = folder.join(number.to_string());
        fs::create_dir_all(&folder)?;
        let (ringkeeper, hands) = (ringkeeper.to_owned(), Arc::clone(hands));
        let mut lab = Self { prefix, folder, ringkeeper, hands, echoes: Vec::new() };
        for letter in ["x", "a", "b", "c"] {
            run("ip", &format!("netns add {}{letter}", lab.prefix))?;
            lab.ip(letter, "link set lo up")?;
        }
        lab.ip("x", "link add br0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0")?;
        lab.ip("x", "link set br0 up")?;
        for (letter, number) in [("a", 1), ("b", 2), ("c", 9)] {
            let there = format!("{}{letter}", lab.prefix);
            lab.ip("x", &format!("link add p{letter} type veth peer name e0 netns {there}"))?;
            lab.ip("x", &format!("link set p{letter} master br0 up"))?;
            lab.ip(letter, &format!("link set e0 address 02:77:00:00:00:0{number}"))?;
            lab.ip(letter, &format!("addr add 10.77.0.{number}/24 dev e0"))?;
            lab.ip(letter, "link set e0 up")?;
            // An echo waits for the address to come.
            let sysctl = "sysctl -qw net.ipv4.ip_nonlocal_bind=1 net.ipv6.conf.all.accept_dad=0";
            run("ip", &format!("netns exec {there} {sysctl}"))?;
        }
        for (letter, answer) in [("a", "echo A"), ("b", "echo B")] {
            let echo = lab.probe(letter, answer, None)?;
            lab.echoes.push((letter, echo));
        }
        let is_inside = |(_, echo): &(&str, Job)| echo.about("net/udp").contains(ECHO_PLACE);
        wait("the echoes", Duration::from_secs(10), || lab.echoes.iter().all(is_inside))?;
        Ok(lab)
    }

    /// Waits until no other lab starts programs; they wait until the returned value is dropped.
    pub fn hands(&self) -> MutexGuard<'_, ()> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path of a file of this run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn control(&self, letter: &str) -> PathBuf {
        self.path(&format!("{letter}.sock"))
    }

    /// Gives the process on a router a command, without waiting for what comes of it.
    pub fn tell(&self, letter: &str, words: &str) -> io::Result<()> {
        let mut stream = UnixStream::connect(self.control(letter))?;
        writeln!(stream, "{words}")?;
        // Whoever asks and leaves is not obeyed.
        std::thread::spawn(move || io::copy(&mut stream, &mut io::sink()));
        Ok(())
    }

    /// Runs `ip` in a namespace.
    pub fn ip(&self, letter: &str, words: &str) -> io::Result<String> {
        run("ip", &format!("-n {}{letter} {words}", self.prefix))
    }

    /// Tells whether a router has the virtual address.
    pub fn has(&self, letter: &str) -> bool {
        // Asked again and again: starting a program for it would load the machine.
        let echo = self.echoes.iter().find(|(one, _)| *one == letter);
        let table = echo.map(|(_, echo)| echo.about("net/fib_trie")).unwrap_or_default();
        let place = format!("|-- {ADDRESS}");
        let mut lines = table.lines();
        while let Some(line) = lines.next() {
            if line.trim_start() == place {
                return lines.next().is_some_and(|kind| kind.contains("host LOCAL"));
            }
        }
        false
    }

    /// Tells whether a router has said in its log what it has to say before it counts as a backup.
    pub fn is_backup(&self, letter: &str) -> bool {
        self.log(letter).contains("BACKUP")
    }

    /// Returns what a router has logged.
    pub fn log(&self, letter: &str) -> String {
        fs::read_to_string(self.path(&format!("{letter}.log"))).unwrap_or_default()
    }

    /// Starts the service that a router tracks, and waits until it listens.
    pub fn serve(&self, letter: &str) -> io::Result<Job> {
        let service = self.probe(letter, "serve", None)?;
        wait("the service", Duration::from_secs(10), || {
            service.about("net/tcp").contains(SERVICE_PLACE)
        })?;
        Ok(service)
    }

    /// Removes what the last run left behind.
    pub fn clean(&self) -> io::Result<()> {
        for letter in ["a", "b"] {
            if self.has(letter) {
                self.ip(letter, &format!("addr del {ADDRESS}/24 dev e0"))?;
            }
        }
        self.ip("c", "neigh flush all").map(drop)
    }

    fn command(&self, letter: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}{letter}", self.prefix)]).arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// Starts one of the probes; what it prints goes into the file.
    pub fn probe(&self, letter: &str, words: &str, output: Option<&str>) -> io::Result<Job> {
        let mut command = self.command(letter, &std::env::current_exe()?);
        command.arg(PROBE).args(words.split_whitespace()).stderr(Stdio::null());
        match output {
            Some(name) => command.stdout(File::create(self.path(name))?),
            None => command.stdout(Stdio::null()),
        };
        command.spawn().map(Job)
    }

    /// Starts a probe with the priority of the routers' threads, where that is granted.
    pub fn least(&self, letter: &str, words: &str) -> io::Result<Job> {
        let mut command = self.command(letter, Path::new("sh"));
        let line = "chrt -f -p 50 $$ >&2; exec \"$0\" \"$@\"";
        command.args(["-c", line]).arg(std::env::current_exe()?);
        command.arg(PROBE).args(words.split_whitespace());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Job)
    }

    /// Starts to record the adverts that a router sees, and waits until it does.
    pub fn record(&self, letter: &str, name: &str) -> io::Result<Job> {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        let mut command = self.command(letter, Path::new("tcpdump"));
        command.args(["-i", "e0", "-n", "-U", "--immediate-mode", "-Z", "root"]);
        command.args(["--time-stamp-precision=nano", "-w"]).arg(&path).args(["ip proto 112"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let job = command.spawn().map(Job)?;
        wait("tcpdump", Duration::from_secs(10), || {
            fs::metadata(&path).is_ok_and(|found| found.len() >= 24)
        })?;
        Ok(job)
    }

    /// Returns how many bytes a recording has.
    pub fn recorded(&self, name: &str) -> u64 {
        fs::metadata(self.path(name)).map_or(0, |found| found.len())
    }

    /// Starts a router: `a` has priority 150, `b` 100.
    pub fn router(&self, letter: &str, kind: Kind, mode: Mode, extras: Extras) -> io::Result<Job> {
        let config = self.path(&format!("{letter}.conf"));
        fs::write(&config, text(letter, mode, extras)?)?;
        let mut command = match kind {
            Kind::Uring | Kind::Tokio => {
                let mut command = self.command(letter, &self.ringkeeper);
                command.args(["run", "--runtime", kind.name(), "--keepalived"]).arg(&config);
                if extras.has_pool {
                    let pools = self.path(&format!("{letter}.yml"));
                    fs::write(&pools, POOLS)?;
                    command.arg("-c").arg(pools).arg("--control").arg(self.control(letter));
                }
                command
            }
            Kind::Genuine => {
                let mut command = self.command(letter, Path::new("keepalived"));
                command.args(["-n", "-l", "-D", "-P", "-f"]).arg(&config);
                for (option, name) in [("-p", ""), ("-r", "v")] {
                    let path = self.path(&format!("{letter}{name}.pid"));
                    // One that was killed left its number, which may be another program's by now.
                    let _ = fs::remove_file(&path);
                    command.arg(option).arg(path);
                }
                command
            }
        };
        let log = File::create(self.path(&format!("{letter}.log")))?;
        command.stdout(log.try_clone()?).stderr(log);
        command.spawn().map(Job)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for letter in ["a", "b", "c", "x"] {
            let _ = run("ip", &format!("netns del {}{letter}", self.prefix));
        }
    }
}

/// The same file for every program. The timers are the protocol's own.
fn text(letter: &str, mode: Mode, extras: Extras) -> io::Result<String> {
    let priority = if letter == "a" { 150 } else { 100 };
    let interval = f64::from(mode.interval_ms) / 1000.0;
    let own = std::env::current_exe()?;
    let (script, track) = match extras.check_every {
        0 => (String::new(), ""),
        every => (
            format!(
                "vrrp_script service {{\n script \"{} {PROBE} check\"\n interval {every}\n \
                 timeout 1\n}}\n",
                own.display()
            ),
            " track_script {\n service\n }\n",
        ),
    };
    let Mode { version, .. } = mode;
    let number = if letter == "a" { 1 } else { 2 };
    let served = match extras.has_pool {
        true => format!(
            "virtual_server {ADDRESS} 6379 {{\n protocol TCP\n delay_loop 60\n real_server \
             10.77.0.{number} 22121 {{\n TCP_CHECK {{ }}\n }}\n}}\n"
        ),
        false => String::new(),
    };
    Ok(format!(
        "global_defs {{\n router_id {letter}\n vrrp_version {version}\n script_user root\n \
         vrrp_rt_priority 50\n vrrp_rlimit_rttime 1000000\n}}\n{script}vrrp_instance VI {{\n \
         state BACKUP\n interface e0\n virtual_router_id 51\n priority {priority}\n advert_int \
         {interval}\n virtual_ipaddress {{\n {ADDRESS}/24\n }}\n{track}}}\n{served}"
    ))
}

/// A pool with the service as its server, which takes connections and says nothing.
const POOLS: &str = "alpha:\n  listen: 0.0.0.0:22121\n  redis: true\n  servers:\n   - \
                     127.0.0.1:7778:1 one\n";

/// Runs a program to its end; returns what it printed.
fn run(program: &str, words: &str) -> io::Result<String> {
    let output = Command::new(program).args(words.split_whitespace()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{program} {words}: {why}")))
}

/// Waits for something to be so.
pub fn wait(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> io::Result<()> {
    let end = Instant::now() + limit;
    while !is_so() {
        if Instant::now() > end {
            return Err(io::Error::other(format!("waited in vain for {what}")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
