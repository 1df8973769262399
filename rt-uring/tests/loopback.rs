//! Clients: what comes, what goes, and how it ends, over real sockets and every kind of ring.
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

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use ringkeeper_core::id::{ConnId, ListenerId};
use ringkeeper_core::io::{CloseMode, CloseReason, Endpoint, Output};
use ringkeeper_core::time::Instant;
use rt_uring::{Buffers, Listener, Options};
use socket2::{SockRef, Socket};

use common::{
    Echo, Hands, Machine, Seen, is_suitable, listen, pattern, start, start_with, variants,
};

/// Writes `bytes` in odd pieces while another thread reads as many back; returns those.
fn exchange(client: &TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut back = vec![0; bytes.len()];
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut rest, mut len) = (bytes, 1);
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(len.min(rest.len()));
                (&*client).write_all(piece).unwrap();
                rest = after;
                len = len * 7 % 10_007;
            }
        });
        (&*client).read_exact(&mut back).unwrap();
    });
    back
}

/// Waits for the first byte and leaves it there.
fn wait_readable(client: &TcpStream) {
    while let Err(error) = client.peek(&mut [0]) {
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }
}

#[test]
fn an_echo_comes_back_whole_from_every_kind_of_ring() {
    if !is_suitable() {
        return;
    }
    for options in variants() {
        let running = start(Some(options), Echo::default());
        let bytes = pattern(300_000, 1);
        assert!(exchange(&running.client(), &bytes) == bytes, "{options:?}");
        running.stop();
    }
}

#[test]
fn large_values_and_a_client_that_reads_late_lose_nothing() {
    if !is_suitable() {
        return;
    }
    for options in [None, Some(variants()[0])] {
        let running = start(options, Echo::default());
        let client = running.client();
        let bytes = pattern(24 << 20, 2);
        thread::scope(|scope| {
            scope.spawn(|| (&client).write_all(&bytes).unwrap());
            // The echo has to stop reading before the first byte is taken from it.
            wait_readable(&client);
            let mut back = vec![0; bytes.len()];
            (&client).read_exact(&mut back).unwrap();
            assert!(back == bytes);
        });
        running.stop();
    }
}

#[test]
fn a_half_closed_client_gets_its_replies_and_then_the_end() {
    if !is_suitable() {
        return;
    }
    for options in variants() {
        let running = start(Some(options), Echo::default());
        let mut client = running.client();
        let bytes = pattern(50_000, 3);
        client.write_all(&bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert!(back == bytes);
        assert_eq!(running.wait_closed().1, CloseReason::Requested);
        running.stop();
    }
}

#[test]
fn a_reset_is_told_as_such() {
    if !is_suitable() {
        return;
    }
    let running = start(None, Echo::default());
    let mut client = running.client();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(running.wait_closed().1, CloseReason::Reset);
    running.stop();
}

#[test]
fn two_hundred_clients_are_served_side_by_side() {
    if !is_suitable() {
        return;
    }
    for options in variants() {
        let running = start(Some(options), Echo::default());
        let clients: Vec<_> = (0..200).map(|_| running.client()).collect();
        for round in 0..5 {
            for (mut client, seed) in clients.iter().zip(0..) {
                client.write_all(&pattern(500, seed + round * 1000)).unwrap();
            }
            for (mut client, seed) in clients.iter().zip(0..) {
                let mut back = [0; 500];
                client.read_exact(&mut back).unwrap();
                assert!(back[..] == pattern(500, seed + round * 1000), "{options:?}");
            }
        }
        drop(clients);
        for _ in 0..200 {
            running.wait_closed();
        }
        running.stop();
    }
}

#[test]
fn names_of_closed_connections_are_used_again_without_mix_up() {
    if !is_suitable() {
        return;
    }
    let running = start(Some(variants()[1]), Echo::default());
    for round in 0..300 {
        let mut client = running.client();
        let bytes = pattern(200, round);
        client.write_all(&bytes).unwrap();
        if round % 3 == 0 {
            // Gone with its reply under way.
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            continue;
        }
        let mut back = [0; 200];
        client.read_exact(&mut back).unwrap();
        assert!(back[..] == bytes);
    }
    running.stop();
}

#[test]
fn a_unix_client_is_served() {
    if !is_suitable() {
        return;
    }
    let path = std::env::temp_dir().join(format!("rt-uring-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let socket = Socket::from(std::os::fd::OwnedFd::from(listener));
    let listeners = vec![Listener { id: ListenerId(3), socket, tcp_keepalive: true }];
    let running = start_with(None, Echo::default(), listeners, ([127, 0, 0, 1], 0).into(), true);
    let mut client = UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    client.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    let peer = running.wait(|seen| match seen {
        Seen::Accepted(_, peer) => Some(peer.clone()),
        _ => None,
    });
    assert_eq!(peer, Endpoint::Unix("".into()));
    drop(client);
    running.wait_closed();
    running.stop();
}

struct Small(Echo);

impl Machine for Small {
    const CONNECTIONS_MAX: usize = 1;

    fn see(&mut self, now: Instant, seen: &Seen, hands: &mut Hands) {
        self.0.see(now, seen, hands);
    }
}

#[test]
fn a_client_beyond_capacity_is_closed_and_the_others_stay() {
    if !is_suitable() {
        return;
    }
    let running = start(None, Small(Echo::default()));
    let first = running.client();
    assert_eq!(exchange(&first, b"first"), b"first");
    assert_eq!(running.client().read(&mut [0]).unwrap(), 0);
    assert_eq!(exchange(&first, b"again"), b"again");
    drop(first);
    running.wait_closed();
    assert_eq!(exchange(&running.client(), b"next"), b"next");
    running.stop();
}

#[test]
fn a_paused_connection_holds_its_bytes_until_it_reads_again() {
    if !is_suitable() {
        return;
    }
    let tiny = Options {
        buffers: Buffers { count: 256, size: 64, is_incremental: false },
        ..Options::default()
    };
    let bytes = pattern(400_000, 5);
    for options in variants().into_iter().chain([tiny]) {
        // Pauses at its first bytes, reads again at the test's word, and pauses at the next.
        let mut conn = None;
        let machine = move |_: Instant, seen: &Seen, hands: &mut Hands| match seen {
            Seen::Received(from, _) if conn.is_none() => {
                conn = Some(*from);
                hands.outputs.push_back(Output::PauseRead(*from));
            }
            Seen::Signal(_) => {
                if let Some(conn) = conn.take() {
                    hands.outputs.push_back(Output::ResumeRead(conn));
                }
            }
            _ => {}
        };
        let running = start(Some(options), machine);
        let client = running.client();
        let mut back = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                (&client).write_all(&bytes).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            loop {
                let is_end = running.wait(|seen| match seen {
                    Seen::Received(_, piece) => {
                        back.extend_from_slice(piece);
                        Some(false)
                    }
                    Seen::Eof(_) => Some(true),
                    _ => None,
                });
                if is_end {
                    break;
                }
                running.signal(1);
            }
        });
        assert!(back == bytes, "{options:?}");
        running.stop();
    }
}

#[test]
fn pause_and_resume_in_one_breath_keep_the_stream_flowing() {
    if !is_suitable() {
        return;
    }
    for options in variants() {
        let mut echo = Echo::default();
        let mut count = 0;
        let machine = move |now: Instant, seen: &Seen, hands: &mut Hands| {
            if let Seen::Received(conn, _) = seen {
                count += 1;
                for _ in 0..count % 4 {
                    hands.outputs.push_back(Output::PauseRead(*conn));
                    hands.outputs.push_back(Output::ResumeRead(*conn));
                }
            }
            echo.see(now, seen, hands);
        };
        let running = start(Some(options), machine);
        let bytes = pattern(100_000, 6);
        assert!(exchange(&running.client(), &bytes) == bytes, "{options:?}");
        running.stop();
    }
}

/// Answers the first bytes with `len` more and closes at once.
fn farewell(len: usize, mode: CloseMode) -> impl Machine {
    move |_: Instant, seen: &Seen, hands: &mut Hands| {
        if let Seen::Received(conn, _) = seen {
            hands.transmit(*conn, &vec![7; len]);
            hands.close(*conn, mode);
        }
    }
}

#[test]
fn a_flushing_close_delivers_what_was_being_written() {
    if !is_suitable() {
        return;
    }
    let running = start(None, farewell(8 << 20, CloseMode::Flush));
    let mut client = running.client();
    client.write_all(b"x").unwrap();
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert!(back.len() == 8 << 20 && back.iter().all(|byte| *byte == 7));
    assert_eq!(running.wait_closed().1, CloseReason::Requested);
    running.stop();
}

#[test]
fn an_aborting_close_does_not_wait_for_a_client_that_does_not_read() {
    if !is_suitable() {
        return;
    }
    let running = start(None, farewell(64 << 20, CloseMode::Abort));
    let mut client = running.client();
    client.write_all(b"x").unwrap();
    // Not a byte was read until here.
    assert_eq!(running.wait_closed().1, CloseReason::Requested);
    let mut back = Vec::new();
    let error = client.read_to_end(&mut back).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(back.len() < 64 << 20);
    running.stop();
}

#[test]
fn a_flush_that_nobody_reads_can_be_aborted() {
    if !is_suitable() {
        return;
    }
    let mut conn = None;
    let machine = move |_: Instant, seen: &Seen, hands: &mut Hands| match seen {
        Seen::Received(from, _) => {
            conn = Some(*from);
            hands.transmit(*from, &vec![7; 64 << 20]);
            hands.close(*from, CloseMode::Flush);
        }
        Seen::Signal(_) => {
            if let Some(conn) = conn {
                hands.close(conn, CloseMode::Abort);
            }
        }
        _ => {}
    };
    let running = start(None, machine);
    let mut client = running.client();
    client.write_all(b"x").unwrap();
    wait_readable(&client);
    running.signal(1);
    assert_eq!(running.wait_closed().1, CloseReason::Requested);
    running.stop();
}

#[test]
fn a_client_that_is_reset_while_it_is_written_to_ends_once() {
    if !is_suitable() {
        return;
    }
    let machine = move |_: Instant, seen: &Seen, hands: &mut Hands| {
        if let Seen::Received(conn, _) = seen {
            hands.transmit(*conn, &vec![7; 64 << 20]);
        }
    };
    let running = start(None, machine);
    for _ in 0..5 {
        let mut client = running.client();
        client.write_all(b"x").unwrap();
        wait_readable(&client);
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(running.wait_closed().1, CloseReason::Reset);
    }
    running.stop();
}

#[test]
fn one_write_is_in_flight_and_the_rest_goes_with_the_next() {
    if !is_suitable() {
        return;
    }
    let running = start(None, Echo::default());
    let client = running.client();
    let bytes = pattern(10_000, 8);
    assert!(exchange(&client, &bytes) == bytes);
    drop(client);
    let (mut sent, mut count) = (0, 0);
    running.wait(|seen| match seen {
        Seen::Sent(_, len) => {
            (sent, count) = (sent + len, count + 1);
            None
        }
        Seen::Closed(..) => Some(()),
        _ => None,
    });
    assert_eq!(sent, 10_000);
    assert!(count > 0);
    running.stop();
}

#[test]
fn a_timer_fires_when_nothing_else_happens() {
    if !is_suitable() {
        return;
    }
    let mut asked = None;
    let machine = move |now: Instant, seen: &Seen, hands: &mut Hands| match seen {
        Seen::Signal(nanos) => {
            let at = now + Duration::from_nanos(*nanos);
            asked = Some(at);
            hands.deadline = Some(at);
        }
        Seen::TimedOut => assert!(asked.is_some_and(|at| at <= now)),
        _ => {}
    };
    let running = start(None, machine);
    for nanos in [1, 1_000_000, 30_000_000] {
        running.signal(nanos);
        running.wait(|seen| (*seen == Seen::TimedOut).then_some(()));
    }
    running.stop();
}

/// Two listeners, to see that the right one is named; the machine tells them apart by the reply.
#[test]
fn a_connection_knows_its_listener() {
    if !is_suitable() {
        return;
    }
    let (one, first) = listen();
    let (mut two, second) = listen();
    two.id = ListenerId(9);
    let running = start_with(None, Echo::default(), vec![one, two], first, true);
    assert_eq!(exchange(&TcpStream::connect(second).unwrap(), b"two"), b"two");
    assert_eq!(exchange(&TcpStream::connect(first).unwrap(), b"one"), b"one");
    running.stop();
}

/// Sends everything to a server of its own, and back.
#[derive(Default)]
struct Forward {
    server: Option<Endpoint>,
    partners: HashMap<ConnId, ConnId>,
    waiting: HashMap<ConnId, Vec<u8>>,
    is_busy: HashMap<ConnId, bool>,
}

impl Forward {
    fn flush(&mut self, conn: ConnId, hands: &mut Hands) {
        let Some(waiting) = self.waiting.get_mut(&conn).filter(|waiting| !waiting.is_empty())
        else {
            return;
        };
        if !std::mem::replace(self.is_busy.entry(conn).or_default(), true) {
            hands.outputs.push_back(Output::Transmit { conn, buffer: std::mem::take(waiting) });
        }
    }

    fn forget(&mut self, conn: ConnId) {
        self.partners.remove(&conn);
        self.waiting.remove(&conn);
        self.is_busy.remove(&conn);
    }
}

impl Machine for Forward {
    fn see(&mut self, _now: Instant, seen: &Seen, hands: &mut Hands) {
        match seen {
            Seen::Accepted(client, _) => {
                let endpoint = self.server.clone().unwrap();
                let server = hands.connect(endpoint, Duration::from_secs(5));
                self.is_busy.insert(server, true);
                self.partners.insert(*client, server);
                self.partners.insert(server, *client);
            }
            Seen::Received(from, bytes) => {
                let Some(to) = self.partners.get(from).copied() else { return };
                self.waiting.entry(to).or_default().extend_from_slice(bytes);
                self.flush(to, hands);
            }
            Seen::Connected(conn) | Seen::Sent(conn, _) => {
                self.is_busy.insert(*conn, false);
                self.flush(*conn, hands);
            }
            Seen::Eof(conn) => {
                let partner = self.partners.get(conn).copied();
                for conn in [Some(*conn), partner].into_iter().flatten() {
                    self.forget(conn);
                    hands.close(conn, CloseMode::Flush);
                }
            }
            Seen::Closed(conn, _) => self.forget(*conn),
            Seen::Resolved(..) | Seen::Signal(_) | Seen::TimedOut => {}
        }
    }
}

#[test]
fn bytes_travel_through_a_server_and_back() {
    if !is_suitable() {
        return;
    }
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::Tcp(server.local_addr().unwrap());
    thread::spawn(move || {
        for connection in server.incoming() {
            thread::spawn(move || {
                let connection = connection.unwrap();
                let _ = std::io::copy(&mut &connection, &mut &connection);
            });
        }
    });
    for options in variants() {
        let forward = Forward { server: Some(endpoint.clone()), ..Forward::default() };
        let running = start(Some(options), forward);
        thread::scope(|scope| {
            for seed in 0..8 {
                let client = running.client();
                scope.spawn(move || {
                    let bytes = pattern(200_000, seed);
                    assert!(exchange(&client, &bytes) == bytes);
                });
            }
        });
        for _ in 0..16 {
            running.wait_closed();
        }
        running.stop();
    }
}
