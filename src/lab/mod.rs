//! A whole deployment on one machine: six Redis servers, three nodes that share an address, clients
//! at work; and everything that can be done to it.
//!
//! Each host is a network namespace on a bridge. The laboratory starts itself again inside of
//! namespaces, which end with it whatever ends it; only two or three listening sockets reach out,
//! on the loopback interface of whoever called. Where no namespaces are to be had, hosts are
//! addresses of the loopback interface.
#![cfg(target_os = "linux")]

mod chaos;
mod deployment;
mod enclosure;
mod events;
mod files;
mod network;
mod processes;
mod recipe;
mod report;
mod resp;
mod terminal;
mod traffic;
mod tunnel;

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

pub(crate) use self::events::Event;
pub(crate) use self::recipe::{Peer, Recipe};

use self::deployment::Deployment;
use self::enclosure::Doors;
use self::events::{CALMLY, Lab, QUICKLY, settle};
use self::network::{Kind, Network, REDIS_PORT};
use self::recipe::{NODES, SERVERS, SHARDS};
use self::report::Report;
use self::terminal::Terminal;
use self::traffic::Traffic;
use crate::host::signal::{Persona, Signal, Signals};
use crate::host::sys;

/// How long everything may take to come up.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How often what clients have written is read back while nothing happens.
const IDLE_ROUND: Duration = Duration::from_secs(20);

/// The first of the ports of 127.0.0.1 that lead inside, unless another is asked for.
const PORT_DEFAULT: u16 = 16379;

/// How many there are: clients, Sentinel, page.
const DOORS: u16 = 3;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What the keys say.
    Keys,
    /// Events one after the other, until one does not heal.
    Auto {
        /// Which.
        events: Vec<Event>,
        /// How often all of them.
        rounds: u32,
    },
    /// Faults by lot.
    Chaos {
        /// For how long.
        length: Duration,
        /// What they follow from.
        seed: u64,
    },
}

/// Which kind of network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NetworkChoice {
    /// Namespaces where they are to be had, else loopback.
    #[default]
    Auto,
    /// Namespaces or nothing.
    Namespaces,
    /// Addresses of the loopback interface: no address moves, no cable can be cut.
    Loopback,
}

/// What the caller wants.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What is to be done.
    pub(crate) mode: Mode,
    /// Where the result goes, for programs.
    pub(crate) json: Option<PathBuf>,
    /// Where files go while it runs.
    pub(crate) folder: PathBuf,
    /// Whether files stay there in any case, and not only when something has not healed.
    pub(crate) keeps_files: bool,
    /// What the deployment is made of.
    pub(crate) recipe: Recipe,
    /// Which network.
    pub(crate) network: NetworkChoice,
    /// The first of three ports of 127.0.0.1; 0: any. None: the default, or any if it is taken.
    pub(crate) port: Option<u16>,
    /// Inside: the descriptors of the sockets that listen outside.
    pub(crate) inside: Option<Vec<i32>>,
}

/// Runs the laboratory; the exit code is 0 if all has healed.
pub(crate) fn run(options: &Options) -> ExitCode {
    let result = match &options.inside {
        Some(descriptors) => inside(options, descriptors),
        None => outside(options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// Makes the place for files, finds out what can be had here, and goes there.
fn outside(options: &Options) -> io::Result<ExitCode> {
    let lock = claim(&options.folder)?;
    let doors = match options.port {
        Some(port) => Doors::open(port, DOORS)?,
        None => Doors::open(PORT_DEFAULT, DOORS).or_else(|_| Doors::open(0, DOORS))?,
    };
    let program = std::env::current_exe()?;
    let shape = match options.network {
        NetworkChoice::Loopback => Err("it was asked for".to_owned()),
        NetworkChoice::Auto | NetworkChoice::Namespaces => enclosure::find_shape(&program),
    };
    let code = match shape {
        Ok(shape) => enclosure::enter(shape, &program, doors)?,
        Err(why) if options.network == NetworkChoice::Namespaces => {
            return Err(io::Error::other(format!("no network namespaces: {why}")));
        }
        Err(why) => {
            println!(
                "Simulated segment: hosts are addresses of the loopback interface, no address \
                 moves and no cable can be cut ({why})."
            );
            experiment(options, Kind::Loopback, doors.into_listeners())?
        }
    };
    if code == ExitCode::SUCCESS && !options.keeps_files {
        fs::remove_dir_all(&options.folder)?;
    } else {
        eprintln!("The logs are in {}.", options.folder.display());
    }
    drop(lock);
    Ok(code)
}

/// Empties the place for files. Two laboratories must not share one.
fn claim(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let lock = File::create(folder.join("lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::other(format!("another laboratory uses {}", folder.display())))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == "lock" {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(lock)
}

fn inside(options: &Options, descriptors: &[i32]) -> io::Result<ExitCode> {
    let gone = || io::Error::other("a socket was not handed over");
    let listeners = descriptors
        .iter()
        .map(|number| sys::inherited(*number).map(TcpListener::from).ok_or_else(gone));
    let listeners = listeners.collect::<io::Result<_>>()?;
    experiment(options, Kind::Namespaces, listeners)
}

/// What wakes the one who does everything.
enum Wake {
    Key(char),
    Leave,
}

/// Starts everything, does what is wanted, and tells what came of it.
fn experiment(options: &Options, kind: Kind, doors: Vec<TcpListener>) -> io::Result<ExitCode> {
    // Before the first thread.
    let signals = Signals::hold(Persona::Ringkeeper)?;
    let (sender, wakes) = mpsc::channel();
    let leave = sender.clone();
    std::thread::Builder::new().name("rk-signals".to_owned()).spawn(move || {
        loop {
            match signals.wait(Duration::from_secs(60)) {
                Ok(Some(Signal::Interrupt | Signal::Terminate | Signal::Hangup)) => {
                    let _ = leave.send(Wake::Leave);
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    })?;
    let hosts: Vec<_> = NODES.iter().chain(SERVERS.as_flattened()).copied().collect();
    let network = Network::make(kind, &hosts)?;
    let deployment = Deployment::new(network, &options.folder, &options.recipe)?;
    let places = tunnel::open(&deployment.network, doors)?;
    let mut lab = start(deployment)?;
    let mut report = Report { network: kind_name(kind), ..Report::default() };
    match &options.mode {
        Mode::Keys => {
            let terminal = Terminal::keep();
            terminal.take_keys();
            terminal::listen(sender)?;
            println!("{}", introduction(&places, &options.folder));
            obey(&mut lab, &wakes, &mut report);
        }
        Mode::Auto { events, rounds } => {
            for &event in (0..*rounds).flat_map(|_| events) {
                let is_over = matches!(wakes.try_recv(), Ok(Wake::Leave)) || !report.is_good();
                if lab.can_play(event) && !is_over {
                    lab.await_willingness(event);
                    play(&mut lab, event, &mut report);
                }
            }
        }
        &Mode::Chaos { length, seed } => {
            chaos::run(&mut lab, length, seed, &mut report);
        }
    }
    finish(lab, &mut report, options)
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Namespaces => "namespaces",
        Kind::Loopback => "loopback",
    }
}

/// Starts all programs and, when they have found one another, the clients.
fn start(mut deployment: Deployment) -> io::Result<Lab> {
    for &server in SERVERS.as_flattened() {
        deployment.start(server)?;
    }
    // A Sentinel that finds replicas in their places need not look again.
    let in_step = settle(START_PATIENCE, QUICKLY, || deployment.judge_servers());
    in_step.map_err(|why| io::Error::other(format!("not every server came up: {why}")))?;
    for node in NODES {
        deployment.start(node)?;
    }
    let whole = settle(START_PATIENCE, CALMLY, || {
        deployment.judge_nodes()?;
        deployment.judge_priorities()?;
        (0..SHARDS.len()).try_for_each(|shard| deployment.judge_shard(shard))
    });
    whole.map_err(|why| io::Error::other(format!("not everything came up: {why}")))?;
    let entries = deployment.network.entries(&NODES, REDIS_PORT);
    let tags = deployment.find_tags(&entries)?;
    let traffic = Traffic::start(entries, tags)?;
    Ok(Lab::new(deployment, traffic))
}

/// Has an event happen and prints a line about it.
fn play(lab: &mut Lab, event: Event, report: &mut Report) {
    let outcome = lab.play(event);
    println!("{}", outcome.line());
    report.verdict.add(outcome.verdict);
    report.outcomes.push(outcome);
}

/// Does what the keys say until the end is wanted.
fn obey(lab: &mut Lab, wakes: &mpsc::Receiver<Wake>, report: &mut Report) {
    // Turns, so that both kinds of a thing are seen.
    let mut cuts = [Event::CutNode, Event::CutMaster].into_iter().cycle();
    loop {
        let key = match wakes.recv_timeout(IDLE_ROUND) {
            Ok(Wake::Key(key)) => key,
            Ok(Wake::Leave) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                report.verdict.add(lab.traffic.verify());
                continue;
            }
        };
        let event = match key {
            'k' => Event::KillMaster,
            'n' => Event::KillNode,
            'c' => cuts.next().unwrap_or(Event::CutNode),
            'p' => Event::Plan,
            'r' => Event::Reload,
            'u' => Event::Upgrade,
            'q' => return,
            _ => {
                println!("{KEYS}");
                continue;
            }
        };
        if !lab.can_play(event) {
            println!("{}: not on a simulated segment", event.name());
            continue;
        }
        println!("{}: {} ...", event.name(), event.expectation());
        play(lab, event, report);
    }
}

const KEYS: &str = "k kill a master   n kill a node   c cut a network   p plan a failover   \
                    r reload   u upgrade   q quit";

fn introduction(places: &[SocketAddr], folder: &Path) -> String {
    let port = |at: usize| places.get(at).map_or(0, SocketAddr::port);
    format!(
        "\nSix Redis servers (two shards, each a master and two replicas) and three nodes are up, \
         with {} clients at work.\n\n\
         clients       redis-cli -p {}            (leads to the address that the nodes share)\n\
         page          http://127.0.0.1:{}/\n\
         Sentinel      redis-cli -p {} sentinel master one\n\
         logs          {}/*/log\n\n{KEYS}\n",
        traffic::CLIENTS,
        port(0),
        port(2),
        port(1),
        folder.display(),
    )
}

/// Stops the clients, reads back what is left, and tells the sum.
fn finish(mut lab: Lab, report: &mut Report, options: &Options) -> io::Result<ExitCode> {
    lab.traffic.stop();
    let rest = lab.traffic.verify();
    report.verdict.add(rest);
    if rest.unread > 0 {
        report.problems.push(format!("{} writes cannot be read back", rest.unread));
    }
    report.counts = lab.traffic.counts();
    report.wrong = lab.traffic.wrong();
    report.errors = lab.traffic.errors();
    if report.wrong > 0 {
        report.problems.push(format!("{} replies had a value of something else", report.wrong));
    }
    print!("{}", report.summary());
    if let Some(path) = &options.json {
        fs::write(path, report.json())?;
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
