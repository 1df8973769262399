//! Connections to servers: how they fail, and the resolver.
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

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use ringkeeper_core::id::{ConnId, QueryId};
use ringkeeper_core::io::{CloseMode, CloseReason, Endpoint, Output, ResolveError};
use ringkeeper_core::time::Instant;
use socket2::{Domain, SockAddr, Socket, Type};

use common::{Hands, Machine, Running, Seen, is_suitable, start};

/// Connects at the signal; greets who answers.
fn caller(endpoint: Endpoint, timeout: Duration) -> impl Machine {
    move |_: Instant, seen: &Seen, hands: &mut Hands| match seen {
        Seen::Signal(_) => {
            hands.connect(endpoint.clone(), timeout);
        }
        Seen::Connected(conn) => hands.transmit(*conn, b"hello"),
        _ => {}
    }
}

fn call(endpoint: Endpoint, timeout: Duration) -> (Running, CloseReason) {
    let running = start(None, caller(endpoint, timeout));
    running.signal(1);
    let reason = running.wait_closed().1;
    (running, reason)
}

const PATIENT: Duration = Duration::from_secs(10);

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("rt-uring-{name}-{}.sock", std::process::id()))
}

/// A listener that takes no more connections, and those that fill it.
fn full_listener(domain: Domain, address: &SockAddr) -> (Socket, Vec<Socket>) {
    let listener = Socket::new(domain, Type::STREAM, None).unwrap();
    listener.bind(address).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fill = Vec::new();
    loop {
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        let is_full = if domain == Domain::UNIX {
            socket.set_nonblocking(true).unwrap();
            socket.connect(&address).is_err()
        } else {
            socket.connect_timeout(&address, Duration::from_millis(300)).is_err()
        };
        fill.push(socket);
        if is_full {
            return (listener, fill);
        }
    }
}

#[test]
fn a_refused_connection_is_told_as_such() {
    if !is_suitable() {
        return;
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    // Bound and not listening: nobody else can listen there.
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let (running, reason) = call(Endpoint::Tcp(address), PATIENT);
    assert_eq!(reason, CloseReason::Refused);
    running.stop();
}

#[test]
fn a_missing_unix_socket_is_not_found() {
    if !is_suitable() {
        return;
    }
    let (running, reason) = call(Endpoint::Unix(path("missing")), PATIENT);
    assert_eq!(reason, CloseReason::NotFound);
    running.stop();
    let (running, reason) = call(Endpoint::Unix("x".repeat(500).into()), PATIENT);
    assert_eq!(reason, CloseReason::Other(36), "the name is too long");
    running.stop();
}

#[test]
fn a_server_on_a_unix_socket_is_reached() {
    if !is_suitable() {
        return;
    }
    let path = path("server");
    let _ = std::fs::remove_file(&path);
    let server = UnixListener::bind(&path).unwrap();
    let running = start(None, caller(Endpoint::Unix(path.clone()), PATIENT));
    running.signal(1);
    let (mut connection, _) = server.accept().unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut greeting = [0; 5];
    std::io::Read::read_exact(&mut connection, &mut greeting).unwrap();
    assert_eq!(&greeting, b"hello");
    drop(connection);
    running.wait(|seen| matches!(seen, Seen::Eof(_)).then_some(()));
    running.stop();
}

#[test]
fn a_server_that_does_not_answer_times_out() {
    if !is_suitable() {
        return;
    }
    let address = SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)));
    let (listener, _fill) = full_listener(Domain::IPV4, &address);
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let (running, reason) = call(Endpoint::Tcp(address), Duration::from_millis(50));
    assert_eq!(reason, CloseReason::ConnectTimedOut);
    running.stop();
}

#[test]
fn a_unix_server_with_a_full_queue_times_out_or_refuses() {
    if !is_suitable() {
        return;
    }
    let path = path("full");
    let _ = std::fs::remove_file(&path);
    let (_listener, _fill) = full_listener(Domain::UNIX, &SockAddr::unix(&path).unwrap());
    let (running, reason) = call(Endpoint::Unix(path.clone()), Duration::from_millis(50));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(reason, CloseReason::ConnectTimedOut | CloseReason::Other(_)), "{reason:?}");
    running.stop();
}

#[test]
fn a_connect_that_is_given_up_ends_as_requested() {
    if !is_suitable() {
        return;
    }
    let address = SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)));
    let (listener, _fill) = full_listener(Domain::IPV4, &address);
    let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().as_socket().unwrap());
    let mut conn: Option<ConnId> = None;
    let machine = move |_: Instant, seen: &Seen, hands: &mut Hands| {
        if let Seen::Signal(number) = seen {
            match conn {
                None => conn = Some(hands.connect(endpoint.clone(), PATIENT)),
                Some(conn) => {
                    let mode = if *number == 1 { CloseMode::Abort } else { CloseMode::Flush };
                    hands.close(conn, mode);
                }
            }
        }
    };
    let running = start(None, machine);
    running.signal(1);
    running.signal(1);
    assert_eq!(running.wait_closed().1, CloseReason::Requested);
    running.stop();
}

#[test]
fn names_are_resolved_without_the_worker_waiting() {
    if !is_suitable() {
        return;
    }
    let machine = |_: Instant, seen: &Seen, hands: &mut Hands| {
        if let Seen::Signal(number) = seen {
            let host = if *number == 1 { "localhost" } else { "name.invalid" };
            let query = QueryId(u32::try_from(*number).unwrap());
            hands.outputs.push_back(Output::Resolve { query, host: host.into(), port: 6379 });
        }
    };
    let running = start(None, machine);
    running.signal(1);
    running.signal(2);
    let mut results = Vec::new();
    running.wait(|seen| {
        if let Seen::Resolved(query, result) = seen {
            results.push((*query, result.clone()));
        }
        (results.len() == 2).then_some(())
    });
    let (first, second) = (results.remove(0), results.remove(0));
    assert_eq!(first.0, 1);
    let addresses = first.1.expect("localhost has an address");
    assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 6379));
    assert!(matches!(second, (2, Err(ResolveError::NotFound | ResolveError::Temporary))));
    running.stop();
}
