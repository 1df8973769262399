//! CPU per request and per GB of a virtual server, beside HAProxy's TCP mode on the same core in
//! the same minute.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::data::{HUGE, LARGE};
use crate::load::{Engine, Plan, Sample};
use crate::process::{
    LOAD_CPU, PROXY_CPU, Priority, Program, find, free_address, metered, pin, raise_file_limit,
    wait_for_quiet,
};
use crate::targets::{build_ringkeeper, target_folder};
use crate::workload::{SATURATED, Workload};

const HELP: &str = "\
cargo bench --bench balancer -- [OPTIONS]

  --rounds N     rounds of all programs, one after the other (5)
  --seconds S    measured window of each run (2)
  --no-build     take target/release/ringkeeper as it is
";

/// CPU of the io_uring runtime as a share of HAProxy's, at most.
const MUST: f64 = 1.10;

/// How long a program may take until it answers.
const READY_LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Haproxy,
    HaproxySplice,
    Uring,
    Tokio,
}

const KINDS: [Kind; 4] = [Kind::Haproxy, Kind::HaproxySplice, Kind::Uring, Kind::Tokio];

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy with splice",
            Self::Uring => "io_uring",
            Self::Tokio => "tokio",
        }
    }
}

/// The workloads: small requests alone and in batches, and two sizes of bulk.
fn workloads() -> Vec<Workload> {
    let [base, _, pipelined, large, ..] = SATURATED;
    let bulk = Workload {
        name: "h",
        about: "8 clients, GET 1 MiB",
        clients: 8,
        space: HUGE,
        must: None,
        aim: None,
        ..base
    };
    vec![base, pipelined, Workload { space: LARGE, ..large }, bulk]
}

struct Options {
    rounds: usize,
    window: Duration,
    builds: bool,
}

fn options() -> Result<Option<Options>, String> {
    let mut options = Options { rounds: 5, window: Duration::from_secs(2), builds: true };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut number = || {
            let value = arguments.next().and_then(|text| text.parse::<u32>().ok());
            value.filter(|value| *value > 0).ok_or_else(|| format!("{name} needs a number"))
        };
        match name.as_str() {
            "--bench" => {} // Cargo adds it.
            "--no-build" => options.builds = false,
            "--rounds" => options.rounds = number()? as usize,
            "--seconds" => options.window = Duration::from_secs(number()?.into()),
            _ => {
                println!("{HELP}");
                return Ok(None);
            }
        }
    }
    Ok(Some(options))
}

/// Runs the benchmark with the options of the command line; prints a table.
///
/// # Errors
///
/// A program does not start or answers wrongly.
pub fn main() -> Result<(), String> {
    let Some(options) = options()? else { return Ok(()) };
    if find("haproxy").is_none() {
        return Err("there is no haproxy to compare with".to_owned());
    }
    let told = |error: io::Error| error.to_string();
    if options.builds {
        build_ringkeeper().map_err(told)?;
    }
    raise_file_limit(4096).map_err(told)?;
    pin(LOAD_CPU).map_err(told)?;
    let _priority = Priority::raise();
    let folder = target_folder().join("bench-balancer");
    fs::create_dir_all(&folder).map_err(told)?;
    let mut disturbed = 0;
    for workload in workloads() {
        let costs = measure(&workload, &options, &folder, &mut disturbed).map_err(told)?;
        print(&workload, &costs);
    }
    if disturbed > 0 {
        println!("{disturbed} runs waited for their core for more than 5 % of their time");
    }
    Ok(())
}

/// Nanoseconds of CPU per request, of each kind and round.
fn measure(
    workload: &Workload,
    options: &Options,
    folder: &Path,
    disturbed: &mut usize,
) -> io::Result<Vec<(Kind, Vec<f64>)>> {
    let mut engine = Engine::new(2)?;
    let servers = engine.addresses();
    let mut targets = Vec::new();
    for kind in KINDS {
        targets.push((kind, start(kind, &servers, folder, &mut engine)?, Vec::new()));
    }
    let plan = Plan {
        warm_up: Duration::from_millis(500),
        window: options.window,
        requests_max: u64::MAX,
    };
    for _ in 0..options.rounds {
        for (_, (address, program), costs) in &mut targets {
            wait_for_quiet(Duration::from_secs(2), &mut |time| engine.pump(time))?;
            let id = program.id();
            let sample: Sample = engine.run(workload, &[*address], plan, &|| metered(id))?;
            program.check_alive()?;
            *disturbed += usize::from(sample.disturbance() > 0.05);
            costs.push(sample.metered.cpu_ns as f64 / sample.requests.max(1) as f64);
        }
    }
    Ok(targets.into_iter().map(|(kind, _, costs)| (kind, costs)).collect())
}

fn print(workload: &Workload, costs: &[(Kind, Vec<f64>)]) {
    let median = |costs: &[f64]| {
        let mut sorted = costs.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let bytes = workload.space.sizes[0] as f64;
    println!("{}: {}", workload.name, workload.about);
    let reference = costs.first().map_or(f64::NAN, |(_, costs)| median(costs));
    for (kind, costs) in costs {
        let cost = median(costs);
        let share = cost / reference;
        let low = costs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = costs.iter().copied().fold(0.0, f64::max);
        let verdict = match *kind == Kind::Uring {
            true if share <= MUST => " ok",
            true => " too much",
            false => "",
        };
        println!(
            "  {:20} {:8.2} us/request ({:.2} to {:.2})  {:6.2} s/GB  {share:.2}{verdict}",
            kind.name(),
            cost / 1e3,
            low / 1e3,
            high / 1e3,
            cost / bytes,
        );
    }
}

fn start(
    kind: Kind,
    servers: &[SocketAddr],
    folder: &Path,
    engine: &mut Engine,
) -> io::Result<(SocketAddr, Program)> {
    let address = free_address()?;
    let mut command = match kind {
        Kind::Haproxy | Kind::HaproxySplice => {
            let file = folder.join("haproxy.cfg");
            fs::write(&file, haproxy(address, servers, kind == Kind::HaproxySplice))?;
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(file);
            command
        }
        Kind::Uring | Kind::Tokio => {
            let file = folder.join("keepalived.conf");
            fs::write(&file, keepalived(address, servers))?;
            let runtime = if kind == Kind::Uring { "uring" } else { "tokio" };
            let mut command = Command::new(target_folder().join("release/ringkeeper"));
            command.args(["run", "--runtime", runtime, "--keepalived"]).arg(file);
            command
        }
    };
    let log = folder.join(format!("{}.log", kind.name()));
    let mut program = Program::start(&mut command, &[PROXY_CPU], &log)?;
    if let Err(error) = engine.wait_until_ready(address, READY_LIMIT) {
        program.check_alive()?;
        return Err(io::Error::other(format!("{}: {error}\n{}", kind.name(), program.log_tail())));
    }
    Ok((address, program))
}

fn haproxy(address: SocketAddr, servers: &[SocketAddr], splices: bool) -> String {
    let server = |(number, at): (usize, &SocketAddr)| format!(" server s{number} {at} check\n");
    let servers: String = servers.iter().enumerate().map(server).collect();
    let splice = if splices { " option splice-auto\n" } else { "" };
    format!(
        "global\n nbthread 1\n maxconn 2000\ndefaults\n mode tcp\n timeout connect 3s\n timeout \
         client 1h\n timeout server 1h\n{splice}listen l\n bind {address}\n balance roundrobin\n\
         {servers}"
    )
}

fn keepalived(address: SocketAddr, servers: &[SocketAddr]) -> String {
    let server = |at: &SocketAddr| {
        let (ip, port) = (at.ip(), at.port());
        format!(" real_server {ip} {port} {{\n TCP_CHECK {{\n delay_loop 2\n }}\n }}\n")
    };
    let servers: String = servers.iter().map(server).collect();
    let (ip, port) = (address.ip(), address.port());
    format!("virtual_server {ip} {port} {{\n lb_algo rr\n protocol TCP\n{servers}}}\n")
}
