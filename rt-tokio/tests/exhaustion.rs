//! What happens when descriptors run out; the limit belongs to the whole process, so this is the
//! only test of its file.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod common;

use std::io::Write;
use std::net::TcpStream;

use common::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn thread_cpu_of_process() -> std::time::Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    std::time::Duration::new(
        u64::try_from(now.tv_sec).unwrap(),
        u32::try_from(now.tv_nsec).unwrap(),
    )
}

#[test]
fn a_process_without_descriptors_keeps_serving_and_does_not_spin() {
    let running = Running::start(Echo::default);
    let mut first = running.connect();
    first.write_all(b"?").unwrap();
    assert_eq!(read_exactly(&mut first, 1), b"?");

    let limit = getrlimit(Resource::Nofile);
    let mut ours: Vec<std::fs::File> = Vec::new();
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: limit.maximum }).unwrap();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        ours.push(file);
    }
    // One descriptor for our end, none for the other: the client waits in the backlog.
    ours.pop();
    let mut second = TcpStream::connect(running.address).unwrap();
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    second.write_all(b"!").unwrap();

    let cpu_before = thread_cpu_of_process();
    let started = std::time::Instant::now();
    let mut rounds = 0_u32;
    while started.elapsed() < std::time::Duration::from_millis(400) {
        first.write_all(b"?").unwrap();
        assert_eq!(read_exactly(&mut first, 1), b"?");
        rounds += 1;
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    let cpu = thread_cpu_of_process() - cpu_before;
    assert!(rounds > 1);
    assert!(cpu < started.elapsed() / 3, "{cpu:?} of the processor in {:?}", started.elapsed());

    drop(ours);
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(read_exactly(&mut second, 1), b"!");
    running.stop();
}
