//! What happens when something runs out: places in the queue of new connections, descriptors, room
//! for the log. Whoever is connected is served, and when there is room again so is everybody else.
#![cfg(target_os = "linux")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use support::eventually;
use support::lab::{Kind, Proxy, Redis, Runtime};
use support::resp::{Client, Place, Reply};
use support::victim::Victim;

on_every_runtime!(
    twenty_thousand_connects_in_a_burst_harm_nobody,
    twenty_thousand_connects_to_two_workers_harm_nobody,
    without_descriptors_those_connected_are_served,
    without_descriptors_two_workers_serve_those_connected,
    a_full_disk_for_the_log_harms_nobody,
    the_log_goes_to_the_journal_and_outlives_it,
    a_journal_that_does_not_read_holds_nobody_up,
);

/// Clients that connect at once.
const BURST: usize = 20_000;

/// Processes that they come from, so that none needs more descriptors than the proxy.
const CROWDS: usize = 4;

/// How long all of them together may take. Where the queue is full the kernel lets a client try
/// again after one, three, seven and fifteen seconds.
const BURST_PATIENCE: Duration = Duration::from_secs(120);

/// One storm at a time: a machine has two cores or so.
static STORM: Mutex<()> = Mutex::new(());

fn twenty_thousand_connects_in_a_burst_harm_nobody(runtime: Runtime) {
    storm(Kind::Ringkeeper(runtime));
}

fn twenty_thousand_connects_to_two_workers_harm_nobody(runtime: Runtime) {
    storm(Kind::Threaded(runtime, 2));
}

/// Lets this process, and those that it starts, open as many descriptors as they may; returns how
/// many.
fn raise_limit() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.unwrap_or(u64::MAX)
}

/// Connects many times; [`Crowd::wait`] tells how it went.
struct Crowd(Child);

impl Crowd {
    fn start(proxy: &Proxy, number: usize, count: usize) -> Self {
        let script = include_str!("support/storm.py");
        let mut command = Command::new(support::lab::program("python3").unwrap());
        let words = [
            usize::from(proxy.place.port()),
            1 + number * 4,
            count,
            BURST_PATIENCE.as_secs() as usize,
        ];
        command.args(["-c", script]).args(words.map(|word| word.to_string()));
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Returns how many were served, how many were refused, and after how many milliseconds.
    fn wait(&mut self) -> [usize; 3] {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let numbers: Vec<usize> =
            line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn storm(kind: Kind) {
    need!("redis-server", "python3");
    let _alone = STORM.lock().unwrap_or_else(PoisonError::into_inner);
    let limit = raise_limit();
    // The limit of descriptors leaves room for so many, and less than a hundred are kept for others.
    let room = usize::try_from(limit).unwrap_or(usize::MAX) - 100;
    let crowd = room.min(BURST / CROWDS);
    let burst = crowd * CROWDS;
    if burst < BURST {
        eprintln!("only {burst} clients: a process may have {limit} descriptors");
    }
    let redis = Redis::start();
    let lines = format!("  redis: true\n  backlog: 4096\n  servers:\n{}", redis.line("one"));
    let proxy = Proxy::start_as(kind, &lines);
    let victim = Victim::start(&proxy.place, "victim");
    let base = proxy.resident_bytes();
    let mut crowds: Vec<Crowd> =
        (0..CROWDS).map(|number| Crowd::start(&proxy, number, crowd)).collect();
    let (mut served, mut refused, mut slowest) = (0, 0, 0);
    for crowd in &mut crowds {
        let [more_served, more_refused, took] = crowd.wait();
        served += more_served;
        refused += more_refused;
        slowest = slowest.max(took);
    }
    eprintln!("{served} served and {refused} refused within {slowest} ms");
    assert_eq!(served + refused, burst, "each is served or refused");
    assert!(served >= burst.min(room), "{served} of {burst} with {limit} descriptors");
    let connected = proxy.stats()["alpha"]["client_connections"].as_u64();
    assert_eq!(connected, Some(served as u64 + 1));
    let each = proxy.resident_bytes().saturating_sub(base) / served as u64;
    assert!(each < 4096, "{each} bytes for a client");
    // All leave at once, too.
    drop(crowds);
    eventually("all have left", || {
        (proxy.stats()["alpha"]["client_connections"] == 1).then_some(())
    });
    victim.finish();
    let log = proxy.scratch.read("stderr");
    assert!(refused > 0 || !log.contains("WARN"), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

fn without_descriptors_those_connected_are_served(runtime: Runtime) {
    run_out_of_descriptors(Kind::Ringkeeper(runtime));
}

fn without_descriptors_two_workers_serve_those_connected(runtime: Runtime) {
    run_out_of_descriptors(Kind::Threaded(runtime, 2));
}

/// Sets how many descriptors another process may have, and returns how many it could have.
fn limit_descriptors(process: Pid, count: u64) -> u64 {
    let before = prlimit(
        Some(process),
        Resource::Nofile,
        Rlimit { current: Some(count), maximum: getrlimit(Resource::Nofile).maximum },
    );
    before.unwrap().current.unwrap()
}

/// Returns the time on a processor that a process has had.
fn processor_time(process: Pid) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap();
    let (_, rest) = text.rsplit_once(')').unwrap();
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn run_out_of_descriptors(kind: Kind) {
    need!("redis-server");
    let redis = Redis::start();
    let other = Redis::start();
    let beta = support::free_port();
    let lines = format!(
        "  redis: true\n  servers:\n{}\nbeta:\n  listen: 127.0.0.1:{beta}\n  redis: true\n  \
         server_retry_timeout: 100\n  servers:\n{}",
        redis.line("one"),
        other.line("two")
    );
    let proxy = Proxy::start_as(kind, &lines);
    let process = Pid::from_raw(proxy.process.id() as i32).unwrap();
    let beta = Place::Tcp(([127, 0, 0, 1], beta).into());
    // One has had a server's connection, the other has none yet.
    let mut old: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    for client in &mut old {
        assert_eq!(client.ask(&["SET", "k", "v"]), Reply::ok());
    }
    let mut late = Client::connect(&beta).unwrap();
    assert_eq!(late.ask(&["PING"]), Reply::Simple("PONG".to_owned()));

    let folder = format!("/proc/{}/fd", proxy.process.id());
    let open = |number: &u64| std::fs::symlink_metadata(format!("{folder}/{number}")).is_ok();
    let full = (0..).take_while(open).count() as u64;
    let before = limit_descriptors(process, full);
    let mut waiting: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    for client in &mut waiting {
        client.send(b"*1\r\n$4\r\nPING\r\n").unwrap();
    }
    let victims: Vec<Victim> = (old.drain(..).zip(["one", "two"]))
        .map(|(client, prefix)| Victim::start_with(client, prefix))
        .collect();
    // Whoever needs what is not to be had is told.
    let reply = late.ask(&["GET", "k"]);
    assert!(reply.is_error(), "{reply:?}");
    assert_eq!(late.ask(&["PING"]), Reply::Simple("PONG".to_owned()));
    for victim in victims {
        victim.finish();
    }
    // Nobody asks for anything: trying to accept in a circle would take a whole processor.
    let (start, used) = (Instant::now(), processor_time(process));
    std::thread::sleep(Duration::from_millis(800));
    let (took, used) = (start.elapsed(), processor_time(process).saturating_sub(used));
    assert!(used < took / 2, "{used:?} of {took:?} went into waiting");

    limit_descriptors(process, before);
    for client in &mut waiting {
        assert_eq!(client.reply().unwrap(), Reply::Simple("PONG".to_owned()));
    }
    eventually("the other server is reached", || {
        (late.ask(&["GET", "k"]) == Reply::Null).then_some(())
    });
    assert_eq!(proxy.client().ask(&["GET", "k"]), Reply::bulk("v"));
}

fn pool(redis: &Redis) -> String {
    format!("  redis: true\n  servers:\n{}", redis.line("one"))
}

/// Makes the process write lines.
fn make_it_talk(proxy: &Proxy) {
    let output = proxy.scratch.run("ringkeeper", &["reload"]);
    assert!(output.status.success(), "{}", support::stderr(&output));
}

fn a_full_disk_for_the_log_harms_nobody(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    // A disk that is full from the start.
    let proxy =
        Proxy::start_with(Kind::Ringkeeper(runtime), &pool(&redis), &["--log-file", "/dev/full"]);
    let victim = Victim::start(&proxy.place, "full");
    (0..5).for_each(|_| make_it_talk(&proxy));
    victim.finish();

    // One that fills up and is cleared.
    let folder = support::Scratch::new();
    let path = folder.path("log").display().to_string();
    let proxy = Proxy::start_with(Kind::Ringkeeper(runtime), &pool(&redis), &["--log-file", &path]);
    make_it_talk(&proxy);
    let victim = Victim::start(&proxy.place, "fills");
    let process = Pid::from_raw(proxy.process.id() as i32).unwrap();
    let limit = |bytes| {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(process), Resource::Fsize, limit).unwrap();
    };
    // In the middle of a line.
    let size = std::fs::metadata(&path).unwrap().len();
    limit(Some(size + 30));
    (0..5).for_each(|_| make_it_talk(&proxy));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), size + 30);
    limit(None);
    folder.wait_for("log", "the log could not be written: lines are lost");
    let log = folder.read("log");
    let told = log.lines().find(|line| line.contains("lines are lost")).unwrap();
    let lines: u64 = told.rsplit_once("lines=").unwrap().1.trim().parse().unwrap();
    assert!(lines >= 5, "{told}");
    // A line of its own, although the one before it is torn.
    assert!(!told.contains("configuration is read"), "{told}");
    make_it_talk(&proxy);
    folder.wait_for("log", "configuration is read again");
    victim.finish();
}

/// Reads what was sent to the journal until there is nothing more for a moment.
fn entries(journal: &UnixDatagram) -> Vec<String> {
    journal.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut buffer = [0; 65536];
    let mut entries = Vec::new();
    while let Ok(len) = journal.recv(&mut buffer) {
        entries.push(String::from_utf8(buffer[..len].to_vec()).unwrap());
    }
    entries
}

fn the_log_goes_to_the_journal_and_outlives_it(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let folder = support::Scratch::new();
    let path = folder.path("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    let options = ["--log-format", "journald", "--log-file", path.to_str().unwrap()];
    let proxy = Proxy::start_with(Kind::Ringkeeper(runtime), &pool(&redis), &options);
    let mut heard = Vec::new();
    let listening = eventually("the start is told", || {
        heard.extend(entries(&journal));
        heard.iter().find(|entry| entry.contains("MESSAGE=listening")).cloned()
    });
    let fields: Vec<&str> = listening.lines().collect();
    for field in ["PRIORITY=6", "SYSLOG_IDENTIFIER=ringkeeper", "RINGKEEPER_POOL=alpha"] {
        assert!(fields.contains(&field), "{field} in {listening}");
    }
    let message = format!("MESSAGE=listening pool=alpha address={}", proxy.place);
    assert!(fields.contains(&message.as_str()), "{message} in {listening}");
    for line in listening.lines() {
        let (name, _) = line.split_once('=').unwrap();
        let is_plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(is_plain) && !name.starts_with('_'), "{line}");
    }
    assert_eq!(proxy.scratch.read("stderr"), "");

    // The journal is restarted; what it missed is told.
    drop(journal);
    make_it_talk(&proxy);
    std::fs::remove_file(&path).unwrap();
    make_it_talk(&proxy);
    let journal = UnixDatagram::bind(&path).unwrap();
    let lost = eventually("what was lost is told", || {
        entries(&journal).into_iter().find(|entry| entry.contains("RINGKEEPER_LINES="))
    });
    assert!(lost.contains("PRIORITY=4\n"), "{lost}");
    assert_eq!(proxy.client().ask(&["PING"]), Reply::Simple("PONG".to_owned()));
}

fn a_journal_that_does_not_read_holds_nobody_up(runtime: Runtime) {
    need!("redis-server");
    let redis = Redis::start();
    let folder = support::Scratch::new();
    let path = folder.path("journal");
    let _journal = UnixDatagram::bind(&path).unwrap();
    let options = ["--log-format", "journald", "--log-file", path.to_str().unwrap()];
    let proxy = Proxy::start_with(Kind::Ringkeeper(runtime), &pool(&redis), &options);
    let victim = Victim::start(&proxy.place, "victim");
    // The queue of a datagram socket has some ten places.
    (0..20).for_each(|_| make_it_talk(&proxy));
    victim.finish();
    // Without a journal it does not start, and says where it looked.
    drop(proxy);
    let scratch = support::Scratch::new();
    scratch.write_good("a.yml");
    let arguments = ["run", "-c", "a.yml", "--log-format", "journald", "--log-file", "nowhere"];
    let output = scratch.run("ringkeeper", &arguments);
    assert!(!output.status.success());
    assert!(support::stderr(&output).contains("nowhere"), "{output:?}");
}
