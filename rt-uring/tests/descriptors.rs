//! Descriptors are counted for the whole process, so these tests have a binary of their own and
//! are one test.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that is surprised has failed"
)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use common::{Echo, Running, is_suitable, pattern, start};

fn count() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn highest() -> u64 {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap())
        .max()
        .unwrap()
}

fn echo(mut client: &TcpStream) {
    client.write_all(b"ping").unwrap();
    let mut back = [0; 4];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ping");
}

fn stop_while_busy(running: Running, clients: &[TcpStream]) {
    for client in clients {
        client.set_nonblocking(true).unwrap();
        // Nobody reads the echo, so sends and receives are in flight when the end comes.
        let _ = (&*client).write(&pattern(1 << 20, 1));
    }
    running.stop();
}

#[test]
fn descriptors_neither_leak_nor_run_out_for_good() {
    if !is_suitable() {
        return;
    }

    let before = count();
    for _ in 0..3 {
        let running = start(None, Echo::default());
        let clients: Vec<_> = (0..50).map(|_| running.client()).collect();
        clients.iter().for_each(echo);
        stop_while_busy(running, &clients);
        drop(clients);
    }
    assert_eq!(count(), before, "a stopped runtime leaves nothing open");

    let running = start(None, Echo::default());
    let first = running.client();
    echo(&first);
    let late = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let old = getrlimit(Resource::Nofile);
    // No hole below the highest descriptor may be left.
    let top = highest();
    let mut fill = Vec::new();
    let last = loop {
        let file = std::fs::File::open("/dev/null").unwrap();
        let descriptor = u64::try_from(file.as_raw_fd()).unwrap();
        fill.push(file);
        if descriptor > top {
            break descriptor;
        }
    };
    let limit = Rlimit { current: Some(last + 1), maximum: old.maximum };
    setrlimit(Resource::Nofile, limit).unwrap();
    late.connect(&SockAddr::from(running.address)).unwrap();
    // The one that is there is served while the other cannot be accepted.
    for _ in 0..100 {
        echo(&first);
    }
    let late = TcpStream::from(late);
    late.set_read_timeout(Some(common::PATIENCE)).unwrap();
    setrlimit(Resource::Nofile, old).unwrap();
    echo(&late);
    drop(late);
    running.wait_closed();
    drop(fill);
    running.stop();
}
