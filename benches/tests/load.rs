//! The load generator against its own servers, and against one that lies.
#![allow(clippy::expect_used, reason = "a test may stop")]

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use ringkeeper_benches::data::Protocol;
use ringkeeper_benches::load::{Engine, Metered, Plan, Sample};
use ringkeeper_benches::workload::{MEMCACHED, SATURATED, Workload};

/// Ends by the count of requests; the time is only there for a test that hangs.
const PLAN: Plan =
    Plan { warm_up: Duration::ZERO, window: Duration::from_secs(60), requests_max: 2_000 };

#[test]
fn every_workload_runs_against_the_fake_servers() {
    let mut engine = Engine::new(1).expect("fake servers");
    for workload in &SATURATED {
        let target = engine.addresses();
        let sample = engine.run(workload, &target, PLAN, &no_meter).expect(workload.about);
        assert!(sample.requests >= PLAN.requests_max, "{}", workload.about);
        // An MGET is one command for a server without a proxy before it, as every request is.
        assert!(sample.commands >= sample.requests, "{}", workload.about);
        assert_eq!(sample.latency.len(), sample.requests, "{}", workload.about);
    }
    assert_eq!(engine.counts().faults, 0);
}

#[test]
fn every_workload_of_memcached_runs_against_the_fake_servers() {
    let mut engine = Engine::new(1).expect("fake servers");
    engine.speak(Protocol::Memcached);
    for workload in &MEMCACHED {
        let target = engine.addresses();
        let sample = engine.run(workload, &target, PLAN, &no_meter).expect(workload.about);
        assert!(sample.requests >= PLAN.requests_max, "{}", workload.about);
        assert_eq!(sample.latency.len(), sample.requests, "{}", workload.about);
    }
    assert_eq!(engine.counts().faults, 0);
}

#[test]
fn a_wrong_reply_ends_the_run() {
    for reply in
        [b"-ERR no such thing\r\n".as_slice(), b"+OK\r\n", b"$64\r\na:99999999", b"$-1\r\n"]
    {
        let error = run_against(reply).err().expect("an error");
        assert!(error.to_string().contains("wrong reply"), "{error}");
    }
}

#[test]
fn a_closed_client_ends_the_run() {
    let error = run_against(b"").err().expect("an error");
    let is_told =
        error.to_string().contains("closed") || error.kind() == io::ErrorKind::ConnectionReset;
    assert!(is_told, "{error}");
}

fn no_meter() -> io::Result<Metered> {
    Ok(Metered::default())
}

/// One client; whatever it asks, this is the answer, and then the end.
fn run_against(reply: &'static [u8]) -> io::Result<Sample> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let target = listener.local_addr()?;
    let server = std::thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let _ = stream.read(&mut [0; 1024])?;
        let mut value = reply.to_vec();
        if reply.starts_with(b"$64") {
            value.resize(5 + 64 + 2, b'x');
        }
        stream.write_all(&value)?;
        Ok(())
    });
    let [base, ..] = SATURATED;
    let result = Engine::new(1)?.run(&Workload { clients: 1, ..base }, &[target], PLAN, &no_meter);
    server.join().expect("the server's thread")?;
    result
}
