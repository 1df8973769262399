//! Resident memory: idle clients, bursts of large values, a client that does not read.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use serde_json::{Value, json};

use crate::data::{HUGE, SMALL, Seen, key};
use crate::load::{Engine, Plan, write_get};
use crate::process::{LOAD_CPU, Resident, pin, raise_file_limit, resident, settle};
use crate::targets::{Kind, Target, build_ringkeeper, target_folder};
use crate::workload::{Requests, SATURATED, Workload};

/// Idle clients.
const IDLE_CLIENTS: usize = 10_000;
/// Bytes of our memory that one of them may take.
const IDLE_CLIENT_BYTES_MUST: f64 = 512.0;
/// Clients of a burst; each moves values of 1 MiB.
const BURST_CLIENTS: usize = 200;
/// Requests of each client of a burst: half of them SET, half GET, by chance.
const BURST_REQUESTS: u64 = 4;
/// How far from the start resident memory may be when the time after the bursts is over.
const BURST_LEFT_BYTES_MUST: u64 = 16 << 20;
/// That time.
const BURST_REST: Duration = Duration::from_secs(10);
/// Requests for 1 MiB that the client sends who never reads.
const SLOW_REQUESTS: u32 = 300;

const HELP: &str = "\
cargo bench --bench memory -- [OPTIONS]

  --targets A,B        of nutcracker, uring, tokio (default: all)
  --only idle,burst,slow
  --no-build           take target/release/ringkeeper as it is
";

/// Runs the benchmark with the options of the command line; prints lines, writes JSON.
pub fn main() -> Result<(), String> {
    let (mut kinds, mut only, mut build) =
        (vec![Kind::Nutcracker, Kind::Uring, Kind::Tokio], None, true);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--bench" => {} // Cargo adds it.
            "--no-build" => build = false,
            "--targets" => {
                let names = value()?;
                kinds.retain(|kind| names.split(',').any(|name| name == kind.name()));
            }
            "--only" => only = Some(value()?),
            _ => {
                println!("{HELP}");
                return Ok(());
            }
        }
    }
    let is_wanted =
        |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|other| other == name));
    run(&kinds, &is_wanted, build).map_err(|error| error.to_string())
}

fn run(kinds: &[Kind], is_wanted: &dyn Fn(&str) -> bool, build: bool) -> io::Result<()> {
    // The proxies need one descriptor per client as well and inherit the limit.
    raise_file_limit(IDLE_CLIENTS as u64 + 1000)?;
    if build && kinds.iter().any(|kind| *kind != Kind::Nutcracker) {
        build_ringkeeper()?;
    }
    pin(LOAD_CPU)?;
    let folder = target_folder().join("memory");
    fs::create_dir_all(&folder)?;
    let mut engine = Engine::new(2)?;
    let mut results = Vec::new();
    type Case = fn(&Target, &mut Engine) -> io::Result<Value>;
    let cases: [(&str, Case); 3] = [("idle", idle), ("burst", burst), ("slow", slow)];
    for (name, case) in cases {
        for kind in kinds.iter().filter(|_| is_wanted(name)) {
            // A fresh process each time: what one case leaves must not hide in the next.
            let result = Target::start(*kind, &engine.addresses(), &folder, &mut engine)
                .and_then(|target| case(&target, &mut engine));
            match result {
                Ok(value) => {
                    results.push(json!({ "case": name, "target": kind.name(), "result": value }))
                }
                Err(error) => {
                    println!("{name:<6} {kind:<11} failed: {error}");
                    results.push(json!({
                        "case": name, "target": kind.name(), "problem": error.to_string(),
                    }));
                }
            }
        }
    }
    let file = target_folder().join("memory.json");
    fs::write(&file, serde_json::to_string_pretty(&results)?)?;
    println!("written: {}", file.display());
    Ok(())
}

fn idle(target: &Target, engine: &mut Engine) -> io::Result<Value> {
    let id = process(target)?;
    rest(target, engine)?;
    let start = resident(id)?;
    let mut clients = Vec::with_capacity(IDLE_CLIENTS);
    for at in 0..IDLE_CLIENTS {
        clients.push(connect(target.addresses[0])?);
        if at % 128 == 127 {
            engine.pump(Duration::from_millis(2))?;
        }
    }
    rest(target, engine)?;
    let connected = resident(id)?;
    // One exchange each: buffers that a client leaves behind show only then.
    for batch in clients.chunks_mut(100) {
        exchange(batch, engine)?;
    }
    rest(target, engine)?;
    let used = resident(id)?;
    drop(clients);
    rest(target, engine)?;
    let closed = resident(id)?;
    let each = |now: Resident| (now.all as f64 - start.all as f64) / IDLE_CLIENTS as f64;
    let must = if each(used) <= IDLE_CLIENT_BYTES_MUST { "met" } else { "MISSED" };
    println!(
        "idle   {:<11} {IDLE_CLIENTS} clients: {:.0} B each connected, {:.0} B each after one GET \
         (must {IDLE_CLIENT_BYTES_MUST:.0}: {must}); resident {} -> {} -> {}, closed {}",
        target.kind,
        each(connected),
        each(used),
        mib(start.all),
        mib(connected.all),
        mib(used.all),
        mib(closed.all),
    );
    Ok(json!({
        "clients": IDLE_CLIENTS, "start": start.all, "connected": connected.all,
        "after_get": used.all, "closed": closed.all,
        "bytes_each_connected": each(connected), "bytes_each_after_get": each(used),
        "must": IDLE_CLIENT_BYTES_MUST,
    }))
}

/// Every client asks for one value, and all replies are read and checked.
fn exchange(clients: &mut [TcpStream], engine: &mut Engine) -> io::Result<()> {
    let key = key(SMALL.letter, 7);
    let mut request = Vec::new();
    write_get(&key, &mut request);
    for client in clients.iter_mut() {
        client.write_all(&request)?;
    }
    let end = Instant::now() + Duration::from_secs(10);
    for client in clients {
        let (mut reply, mut size) = ([0; 128], 0);
        loop {
            match client.read(&mut reply[size..]) {
                Ok(0) => return Err(io::Error::other("the target closed a client")),
                Ok(more) => size += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    engine.pump(Duration::from_millis(1))?;
                }
                Err(error) => return Err(error),
            }
            let frame = engine.frames().frame(SMALL.letter, 7).expect("a known space");
            match frame.check(&key, &reply[..size], true) {
                Seen::Whole(_) => break,
                Seen::Part if Instant::now() < end => {}
                Seen::Part | Seen::Wrong => return Err(io::Error::other("a wrong or late reply")),
            }
        }
    }
    Ok(())
}

fn burst(target: &Target, engine: &mut Engine) -> io::Result<Value> {
    let id = process(target)?;
    let workload = Workload {
        name: "burst",
        about: "200 clients, GET/SET 50/50, 1 MiB",
        clients: BURST_CLIENTS,
        requests: Requests::GetAndSet(50),
        space: HUGE,
        ..SATURATED[0]
    };
    let plan = Plan {
        warm_up: Duration::ZERO,
        window: Duration::from_secs(60),
        requests_max: BURST_CLIENTS as u64 * BURST_REQUESTS,
    };
    rest(target, engine)?;
    let start = resident(id)?;
    let mut after_burst = Vec::new();
    for _ in 0..2 {
        engine.run(&workload, &target.addresses, plan, &|| target.metered())?;
        after_burst.push(resident(id)?.all);
    }
    let peak = resident(id)?.peak;
    let mut each_second = Vec::new();
    let end = Instant::now() + BURST_REST;
    while Instant::now() < end {
        engine.pump(Duration::from_secs(1))?;
        each_second.push(resident(id)?.all);
    }
    let last = each_second.last().copied().unwrap_or(peak);
    let left = last.saturating_sub(start.all);
    let must = if left <= BURST_LEFT_BYTES_MUST { "met" } else { "MISSED" };
    println!(
        "burst  {:<11} start {}, after the bursts {}, peak {}, 10 s later {} (must be within {}: {must})",
        target.kind,
        mib(start.all),
        after_burst.iter().map(|bytes| mib(*bytes)).collect::<Vec<_>>().join(" and "),
        mib(peak),
        mib(last),
        mib(BURST_LEFT_BYTES_MUST),
    );
    Ok(json!({
        "start": start.all, "after_burst": after_burst, "peak": peak,
        "each_second": each_second, "left": left, "must": BURST_LEFT_BYTES_MUST,
    }))
}

fn slow(target: &Target, engine: &mut Engine) -> io::Result<Value> {
    let id = process(target)?;
    rest(target, engine)?;
    let start = resident(id)?;
    let mut client = connect(target.addresses[0])?;
    // What the kernel would hold for the client is not the proxy's to keep.
    set_socket_recv_buffer_size(&client, 64 << 10)?;
    let mut requests = Vec::new();
    for number in 0..SLOW_REQUESTS {
        write_get(&key(HUGE.letter, number), &mut requests);
    }
    client.set_nonblocking(false)?;
    client.set_write_timeout(Some(Duration::from_secs(5)))?;
    client.write_all(&requests)?;
    let mut stalled = resident(id)?;
    // The fake servers are asked for all of it at once; it takes as long as the proxy reads.
    for _ in 0..20 {
        engine.pump(Duration::from_secs(1))?;
        let before = std::mem::replace(&mut stalled, resident(id)?);
        if stalled.all == before.all {
            break;
        }
    }
    drop(client);
    rest(target, engine)?;
    engine.pump(BURST_REST)?;
    let after = resident(id)?;
    println!(
        "slow   {:<11} {SLOW_REQUESTS} x 1 MiB unread: start {}, stalled {}, peak {}, 10 s after the client left {}",
        target.kind,
        mib(start.all),
        mib(stalled.all),
        mib(after.peak),
        mib(after.all),
    );
    Ok(json!({
        "start": start.all, "stalled": stalled.all, "peak": after.peak, "after": after.all,
    }))
}

fn process(target: &Target) -> io::Result<u32> {
    target.ids().next().ok_or_else(|| io::Error::other("no process to look at"))
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    assert!(address.ip().is_loopback(), "load goes to this machine only");
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Waits until the target has nothing left to do, at most some seconds.
fn rest(target: &Target, engine: &mut Engine) -> io::Result<()> {
    settle(process(target)?, Duration::from_secs(3), &mut |time| engine.pump(time * 10))
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
