//! Threads of the process that die or stand still while it has a virtual address: hosts in network
//! namespaces, each with a pool, a Redis server, a virtual router and a virtual server.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use support::lab::{Runtime, program, skip};
use support::segment::{Host, Segment};
use support::{Process, eventually};

const ADDRESS: &str = "10.77.0.100";

/// Where the virtual server is, for which there is a relay.
const RELAYED: &str = "10.77.0.100:7000";

/// Ends a thread as the kernel would by taking its ring or its poller away.
const END: &str = include_str!("support/end_thread.py");

/// Stops a thread until it is told to go on.
const FREEZE: &str = include_str!("support/freeze.py");

fn letter(host: Host) -> char {
    if host == Host::A { 'a' } else { 'b' }
}

fn log(segment: &Segment, host: Host) -> String {
    segment.scratch.read(&format!("{}.log", letter(host)))
}

/// Starts a Redis server and the process on a host.
fn start(segment: &Segment, host: Host, runtime: Runtime) -> [Process; 2] {
    let server = program("redis-server").or_else(|| program("redis-check-rdb")).unwrap();
    // It is a Sentinel or a checker by its name.
    let name = segment.path("redis-server");
    let _ = std::os::unix::fs::symlink(server, &name);
    let mut redis = segment.command(host, &name.display().to_string());
    redis.args(["--port", "6379", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let redis = redis.stdout(Stdio::null()).current_dir(segment.path("")).spawn().unwrap();
    let redis = Process::new(redis);
    eventually("a server listens", || {
        segment.run(host, "ss -Hltn").contains("127.0.0.1:6379").then_some(())
    });
    let letter = letter(host);
    let path = |name: &str| segment.path(&format!("{letter}.{name}")).display().to_string();
    let pools = format!(
        "runtime: {}\ncontrol: {}\nadmin: {{listen: off}}\nstats: {{listen: off}}\npools:\n  \
         alpha:\n    listen: 0.0.0.0:22121\n    preconnect: true\n    servers:\n      - {{name: \
         one, address: '127.0.0.1:6379'}}\n",
        runtime.name(),
        path("sock")
    );
    let priority = if host == Host::A { 150 } else { 100 };
    let (at, port) = RELAYED.split_once(':').unwrap();
    let routers = format!(
        "vrrp_instance VI {{\n state BACKUP\n interface e0\n virtual_router_id 51\n priority \
         {priority}\n advert_int 0.1\n version 3\n virtual_ipaddress {{\n {ADDRESS}/24\n }}\n}}\n\
         virtual_server {at} {port} {{\n protocol TCP\n delay_loop 60\n real_server 127.0.0.1 6379 \
         {{\n TCP_CHECK {{\n }}\n }}\n}}\n"
    );
    fs::write(path("yml"), pools).unwrap();
    fs::write(path("keepalived"), routers).unwrap();
    let log = File::create(path("log")).unwrap();
    let mut command = segment.command(host, env!("CARGO_BIN_EXE_ringkeeper"));
    command.args(["run", "-c", &path("yml"), "--keepalived", &path("keepalived")]);
    command.stdout(log.try_clone().unwrap()).stderr(log);
    [redis, Process::new(command.spawn().unwrap())]
}

/// Starts both hosts; the first has the address.
fn start_both(segment: &Segment, runtime: Runtime) -> [[Process; 2]; 2] {
    let a = start(segment, Host::A, runtime);
    segment.wait_for(Host::A, ADDRESS);
    let b = start(segment, Host::B, runtime);
    eventually("the other host is a backup", || {
        log(segment, Host::B).contains("BACKUP").then_some(())
    });
    [a, b]
}

/// Returns the number of one thread of a process.
fn thread(process: &Process, name: &str) -> String {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let found = tasks.flatten().find(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|found| found.trim() == name)
    });
    found.unwrap().file_name().into_string().unwrap()
}

/// Somebody who traces threads of a process, until dropped.
struct Tracer {
    process: Process,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Tracer {
    /// Starts one; none, with the reason told, if that is not allowed here.
    fn start(script: &str, arguments: &[&str]) -> Option<Self> {
        let mut command = Command::new(program("python3").unwrap());
        command.args(["-c", script]).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        let mut tracer =
            Self { process: Process::new(child), input, output: BufReader::new(output) };
        let said = tracer.hear();
        if said.starts_with("refused") {
            skip(&format!("threads can't be traced: {said}"));
            return None;
        }
        Some(tracer)
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    /// Has the thread ended.
    fn end(&mut self) {
        self.input.as_mut().unwrap().write_all(b"go\n").unwrap();
        let said = self.hear();
        assert!(said.trim().parse::<u64>().is_ok(), "{said}");
    }

    /// Lets all threads go on that stand still.
    fn let_go(mut self) {
        self.input = None;
        self.process.wait();
    }
}

on_every_runtime!(
    a_worker_that_dies_gives_the_address_up_without_the_help_of_others,
    the_death_of_the_worker_that_watches_gives_the_address_up,
    a_virtual_server_that_dies_gives_the_address_up_and_comes_back,
    a_worker_that_stands_still_gives_the_address_up_until_it_turns,
);

fn a_worker_that_dies_gives_the_address_up_without_the_help_of_others(runtime: Runtime) {
    the_host_leaves_with("rk-data-0", runtime);
}

fn the_death_of_the_worker_that_watches_gives_the_address_up(runtime: Runtime) {
    the_host_leaves_with("rk-watch", runtime);
}

fn the_host_leaves_with(name: &str, runtime: Runtime) {
    need!("redis-server", "ss", "ip", "python3", "tcpdump", "tshark");
    let Some(mut segment) = Segment::make() else { return };
    let [[_redis, mut a], _b] = start_both(&segment, runtime);
    segment.record();
    // The main thread, which would look after everything, stands still: nobody but the dying
    // thread can have told the virtual routers.
    let id = a.id().to_string();
    let Some(mut tracer) = Tracer::start(END, &[&id, name, "--without-main"]) else { return };
    tracer.end();
    segment.wait_for(Host::B, ADDRESS);
    assert_eq!(a.status(), None, "the process has not ended by itself");
    tracer.let_go();
    assert!(!a.wait().success());
    let told = log(&segment, Host::A);
    assert!(told.contains("the worker"), "{told}");
    let goodbyes = segment.recorded("vrrp.prio == 0", &["ip.src"]);
    assert_eq!(goodbyes.first().map(|one| one[0].as_str()), Some("10.77.0.1"), "{goodbyes:?}");
}

fn a_virtual_server_that_dies_gives_the_address_up_and_comes_back(runtime: Runtime) {
    need!("redis-server", "ss", "ip", "python3");
    let Some(segment) = Segment::make() else { return };
    let [[_redis, a], _b] = start_both(&segment, runtime);
    let at = RELAYED.parse().unwrap();
    assert_eq!(segment.connect(Host::C, at).ask(&["SET", "key", "1"]).text(), "OK");
    let id = a.id().to_string();
    let arguments = [id.as_str(), "rk-balance", "--without-main"];
    let Some(mut tracer) = Tracer::start(END, &arguments) else { return };
    tracer.end();
    segment.wait_for(Host::B, ADDRESS);
    assert_eq!(segment.connect(Host::C, at).ask(&["SET", "key", "2"]).text(), "OK");
    tracer.let_go();
    // The rest of the process goes on, and puts it in order.
    eventually("virtual servers again", || {
        log(&segment, Host::A).contains("the virtual routers run again").then_some(())
    });
    segment.wait_for(Host::A, ADDRESS);
    assert_eq!(segment.connect(Host::C, at).ask(&["GET", "key"]).text(), "1");
}

fn a_worker_that_stands_still_gives_the_address_up_until_it_turns(runtime: Runtime) {
    need!("redis-server", "ss", "ip", "python3");
    let Some(segment) = Segment::make() else { return };
    let [[_redis, a], _b] = start_both(&segment, runtime);
    let Some(tracer) = Tracer::start(FREEZE, &[&thread(&a, "rk-data-0")]) else { return };
    segment.wait_for(Host::B, ADDRESS);
    let told = log(&segment, Host::A);
    assert!(told.contains("worker 0 does not turn"), "{told}");
    tracer.let_go();
    segment.wait_for(Host::A, ADDRESS);
    let pool = format!("{ADDRESS}:22121").parse().unwrap();
    assert_eq!(segment.connect(Host::C, pool).ask(&["SET", "key", "1"]).text(), "OK");
}
