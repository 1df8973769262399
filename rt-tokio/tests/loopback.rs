//! The runtime over real loopback sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod common;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::*;
use ringkeeper_core::id::{ConnId, ListenerId, QueryId};
use ringkeeper_core::io::{
    AtCapacity, CloseMode, CloseReason, Command, Endpoint, Input, Mail, Output,
};
use ringkeeper_core::time::Instant;
use rt_tokio::{Message, Stopped};
use socket2::SockRef;

#[test]
fn bytes_come_back_whatever_the_pieces() {
    let running = Running::start(Echo::default);
    let mut stream = running.connect();
    stream.set_nodelay(true).unwrap();
    let bytes = pattern(40_000);
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let thread = std::thread::spawn(move || {
        write_in_pieces(&mut writer, &sent, &[1, 2, 3, 1000, 1, 70, 4096, 7]);
    });
    assert_eq!(read_exactly(&mut stream, bytes.len()), bytes);
    thread.join().unwrap();
    running.stop();
}

#[test]
fn large_values_pass_both_ways_at_once() {
    let running = Running::start(Echo::default);
    let mut stream = running.connect();
    let bytes = pattern(8 * 1024 * 1024);
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let thread = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    assert!(read_to_end(&mut stream) == bytes);
    thread.join().unwrap();
}

#[test]
fn a_half_closed_client_still_gets_its_replies() {
    let running = Running::start(Echo::default);
    let mut stream = running.connect();
    let bytes = pattern(1024 * 1024);
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes[..200_000].to_vec();
    writer.write_all(&sent).unwrap();
    writer.shutdown(Shutdown::Write).unwrap();
    assert!(read_to_end(&mut stream) == sent);
}

#[test]
fn a_reader_that_waits_pauses_its_writer() {
    let running = Running::start(Echo::default);
    let mut stream = running.connect();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let bytes = pattern(64 * 1024 * 1024);
    // Nobody reads: sooner or later nothing more is taken. Echo asserts what it holds by then.
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) => {
                assert!(matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ));
                break;
            }
        }
    }
    assert!(written < bytes.len(), "nothing held the writer back");
    assert!(read_exactly(&mut stream, written) == bytes[..written]);
    // And it flows again.
    stream.write_all(&bytes[..100_000]).unwrap();
    assert!(read_exactly(&mut stream, 100_000) == bytes[..100_000]);
}

#[test]
fn two_hundred_clients_are_served() {
    let running = Running::start(Echo::default);
    let mut streams: Vec<_> = (0..200).map(|_| running.connect()).collect();
    for round in 0..20_usize {
        for (index, stream) in streams.iter_mut().enumerate() {
            stream.write_all(format!("{round}:{index};").as_bytes()).unwrap();
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            let expected = format!("{round}:{index};");
            assert_eq!(read_exactly(stream, expected.len()), expected.as_bytes());
        }
    }
    running.stop();
}

#[test]
fn slots_are_used_again_by_later_clients() {
    let running = Running::start(Echo::default);
    for round in 0..200_usize {
        let mut stream = running.connect();
        stream.write_all(&round.to_be_bytes()).unwrap();
        if round % 3 == 0 {
            // Reset instead of the orderly end.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            continue;
        }
        assert_eq!(read_exactly(&mut stream, size_of::<usize>()), round.to_be_bytes());
    }
    running.stop();
}

/// Reports how connections ended; tells the client that it was taken in.
fn end_reporter(sender: std::sync::mpsc::Sender<CloseReason>) -> impl Machine {
    Script(move |out: &mut Outbox, _, input: Input<'_>| match input {
        Input::Received { conn, .. } => out.transmit(conn, vec![b'!']).unwrap(),
        Input::Closed { reason, .. } => sender.send(reason).unwrap(),
        Input::Eof { conn } => out.close(conn, CloseMode::Flush),
        Input::Connected { .. }
        | Input::Sent { .. }
        | Input::Released { .. }
        | Input::Resolved { .. }
        | Input::Command(_)
        | Input::Notice(_)
        | Input::Persisted { .. }
        | Input::FileRead { .. }
        | Input::Exited { .. }
        | Input::ChannelOpened { .. }
        | Input::Datagram { .. }
        | Input::Trouble { .. } => {}
    })
}

#[test]
fn a_reset_by_the_client_closes_with_its_reason() {
    let (sender, reasons) = reports();
    let running = Running::start(move || end_reporter(sender));
    let mut stream = running.connect();
    stream.write_all(b"?").unwrap();
    assert_eq!(read_exactly(&mut stream, 1), b"!");
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(reasons.recv_timeout(PATIENCE).unwrap(), CloseReason::Reset);
}

#[test]
fn an_orderly_end_is_an_eof_and_then_what_the_worker_asks_for() {
    let (sender, reasons) = reports();
    let running = Running::start(move || end_reporter(sender));
    drop(running.connect());
    assert_eq!(reasons.recv_timeout(PATIENCE).unwrap(), CloseReason::Requested);
}

#[test]
fn a_unix_socket_serves_like_tcp() {
    let running = Running::start(Echo::default);
    let mut stream = UnixStream::connect(&running.path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let bytes = pattern(100_000);
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let thread = std::thread::spawn(move || {
        write_in_pieces(&mut writer, &sent, &[10_000, 1, 333]);
        writer.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(read_to_end(&mut stream), bytes);
    thread.join().unwrap();
}

/// Connects every client to `endpoint` and passes the bytes on both ways, one buffer each way.
struct Forwarder {
    endpoint: Endpoint,
    peers: HashMap<ConnId, ConnId>,
    waiting: HashMap<ConnId, Vec<u8>>,
    ended: HashMap<ConnId, bool>,
    timeout: Duration,
    reasons: std::sync::mpsc::Sender<CloseReason>,
}

impl Forwarder {
    fn advance(&mut self, out: &mut Outbox, conn: ConnId) {
        let Some(waiting) = self.waiting.get_mut(&conn) else { return };
        if let Err(kept) = out.transmit(conn, std::mem::take(waiting)) {
            *waiting = kept;
        } else {
            return;
        }
        if waiting.is_empty() && self.ended.get(&conn) == Some(&true) {
            out.close(conn, CloseMode::Flush);
        }
    }
}

impl Machine for Forwarder {
    fn accept(&mut self, out: &mut Outbox, id: ConnId, _: ListenerId) -> Result<(), AtCapacity> {
        let server = out.connect(self.endpoint.clone(), self.timeout);
        self.peers.insert(id, server);
        self.peers.insert(server, id);
        self.waiting.insert(id, Vec::new());
        self.waiting.insert(server, Vec::new());
        Ok(())
    }

    fn handle(&mut self, out: &mut Outbox, _: Instant, input: Input<'_>) {
        match input {
            Input::Received { conn, bytes } => {
                let Some(&peer) = self.peers.get(&conn) else { return };
                self.waiting.get_mut(&peer).unwrap().extend_from_slice(bytes);
                self.advance(out, peer);
            }
            // The replies of everything sent come before the client's end is passed on, so the
            // tests' servers answer and close first.
            Input::Eof { conn } if conn.is_server() => {
                let Some(&peer) = self.peers.get(&conn) else { return };
                self.ended.insert(peer, true);
                self.advance(out, peer);
                out.close(conn, CloseMode::Flush);
            }
            Input::Connected { conn, .. } | Input::Sent { conn, .. } => self.advance(out, conn),
            Input::Closed { conn, reason } => {
                if conn.is_server() {
                    self.reasons.send(reason).unwrap();
                }
                self.waiting.remove(&conn);
                if let Some(peer) = self.peers.remove(&conn)
                    && self.peers.remove(&peer).is_some()
                    && self.ended.get(&peer) != Some(&true)
                {
                    out.close(peer, CloseMode::Abort);
                }
            }
            Input::Eof { .. }
            | Input::Released { .. }
            | Input::Resolved { .. }
            | Input::Command(_)
            | Input::Notice(_)
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. }
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. } => {}
        }
    }
}

fn forward_to(
    endpoint: Endpoint,
    timeout: Duration,
) -> (Running, std::sync::mpsc::Receiver<CloseReason>) {
    let (reasons, receiver) = reports();
    let running = Running::start(move || Forwarder {
        endpoint,
        peers: HashMap::new(),
        waiting: HashMap::new(),
        ended: HashMap::new(),
        timeout,
        reasons,
    });
    (running, receiver)
}

/// Reads to the `#`, answers with the same bytes, ends.
fn answer_once(mut stream: impl Read + Write) {
    let mut bytes = Vec::new();
    while bytes.last() != Some(&b'#') {
        let mut piece = [0; 8192];
        let count = stream.read(&mut piece).unwrap();
        bytes.extend_from_slice(&piece[..count]);
    }
    stream.write_all(&bytes).unwrap();
}

fn question(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = pattern(length).into_iter().filter(|byte| *byte != b'#').collect();
    bytes.push(b'#');
    bytes
}

#[test]
fn bytes_pass_through_to_a_server_and_back() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (running, reasons) = forward_to(tcp(server.local_addr().unwrap()), PATIENCE);
    let thread = std::thread::spawn(move || answer_once(server.accept().unwrap().0));
    let mut stream = running.connect();
    let bytes = question(1024 * 1024);
    stream.write_all(&bytes).unwrap();
    assert!(read_to_end(&mut stream) == bytes);
    thread.join().unwrap();
    assert_eq!(reasons.recv_timeout(PATIENCE).unwrap(), CloseReason::Requested);
}

#[test]
fn bytes_pass_through_to_a_server_on_a_unix_socket() {
    let directory = fresh_directory();
    let path = directory.join("server.sock");
    let server = UnixListener::bind(&path).unwrap();
    let (running, _reasons) = forward_to(unix(&path), PATIENCE);
    let thread = std::thread::spawn(move || answer_once(server.accept().unwrap().0));
    let mut stream = UnixStream::connect(&running.path).unwrap();
    let bytes = question(300_000);
    stream.write_all(&bytes).unwrap();
    assert!(read_to_end(&mut stream) == bytes);
    thread.join().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_refused_connection_says_so() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let (running, reasons) = forward_to(tcp(address), PATIENCE);
    let mut stream = running.connect();
    assert_eq!(reasons.recv_timeout(PATIENCE).unwrap(), CloseReason::Refused);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn a_missing_unix_socket_says_so() {
    let directory = fresh_directory();
    let (running, reasons) = forward_to(unix(&directory.join("missing.sock")), PATIENCE);
    let _stream = running.connect();
    assert_eq!(reasons.recv_timeout(PATIENCE).unwrap(), CloseReason::NotFound);
    std::fs::remove_dir_all(directory).unwrap();
}

// How a full backlog is treated differs; only Linux drops the SYN for certain.
#[cfg(target_os = "linux")]
#[test]
fn a_server_that_does_not_answer_times_out() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    // A backlog of zero has room for one.
    let _first = TcpStream::connect(address).unwrap();
    let (running, reasons) = forward_to(tcp(address), Duration::from_millis(150));
    let asked = std::time::Instant::now();
    let _stream = running.connect();
    assert_eq!(reasons.recv_timeout(PATIENCE).unwrap(), CloseReason::ConnectTimedOut);
    assert!(asked.elapsed() >= Duration::from_millis(150));
}

#[test]
fn a_server_that_resets_closes_with_its_reason() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let (running, reasons) = forward_to(tcp(server.local_addr().unwrap()), PATIENCE);
    let mut stream = running.connect();
    stream.write_all(b"?").unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    assert_eq!(read_exactly(&mut accepted, 1), b"?");
    SockRef::from(&accepted).set_linger(Some(Duration::ZERO)).unwrap();
    drop(accepted);
    assert_eq!(reasons.recv_timeout(PATIENCE).unwrap(), CloseReason::Reset);
}

/// Answers the first byte with `length` bytes and closes at once.
fn say_and_close(length: usize, mode: CloseMode) -> impl Machine {
    Script(move |out: &mut Outbox, _, input: Input<'_>| {
        if let Input::Received { conn, .. } = input {
            out.transmit(conn, pattern(length)).unwrap();
            out.close(conn, mode);
        }
    })
}

#[test]
fn a_flushing_close_lets_the_last_write_arrive() {
    let length = 8 * 1024 * 1024;
    let running = Running::start(move || say_and_close(length, CloseMode::Flush));
    let mut stream = running.connect();
    stream.write_all(b"?").unwrap();
    assert!(read_to_end(&mut stream) == pattern(length));
}

#[test]
fn unread_requests_do_not_turn_a_flushing_close_into_a_reset() {
    let running = Running::start(|| {
        let mut held = None;
        Script(move |out: &mut Outbox, _, input: Input<'_>| match input {
            Input::Received { conn, .. } => {
                held = Some(conn);
                out.push(Output::PauseRead(conn));
                out.transmit(conn, b"!".to_vec()).unwrap();
            }
            Input::Notice(_)
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. }
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. } => {}
            Input::Command(_) => {
                let conn = held.unwrap();
                out.transmit(conn, pattern(10)).unwrap();
                out.close(conn, CloseMode::Flush);
            }
            Input::Connected { .. }
            | Input::Eof { .. }
            | Input::Closed { .. }
            | Input::Sent { .. }
            | Input::Released { .. }
            | Input::Resolved { .. } => {}
        })
    });
    let mut stream = running.connect();
    stream.write_all(b"?").unwrap();
    assert_eq!(read_exactly(&mut stream, 1), b"!");
    // Little enough to lie in the worker's socket whole, and nobody reads it there.
    stream.write_all(&pattern(10_000)).unwrap();
    running
        .mailbox
        .send(Message::Mail(Mail::Command(Command::Drain { limit: Duration::ZERO })))
        .unwrap();
    assert_eq!(read_to_end(&mut stream), pattern(10));
}

#[test]
fn an_aborting_close_does_not_wait_for_a_reader() {
    let (sender, reasons) = reports();
    let length = 64 * 1024 * 1024;
    let running = Running::start(move || {
        Script(move |out: &mut Outbox, _, input: Input<'_>| match input {
            Input::Received { conn, .. } => {
                out.transmit(conn, pattern(length)).unwrap();
                out.close(conn, CloseMode::Abort);
            }
            Input::Closed { reason, .. } => sender.send(reason).unwrap(),
            Input::Connected { .. }
            | Input::Eof { .. }
            | Input::Sent { .. }
            | Input::Released { .. }
            | Input::Resolved { .. }
            | Input::Command(_)
            | Input::Notice(_)
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. }
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. } => {}
        })
    });
    let mut stream = running.connect();
    stream.write_all(b"?").unwrap();
    assert_eq!(reasons.recv_timeout(PATIENCE).unwrap(), CloseReason::Requested);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(bytes.len() < length);
}

#[test]
fn an_abort_overtakes_a_flush_that_cannot_finish() {
    let (sender, reasons) = reports();
    let running = Running::start(move || {
        Script(move |out: &mut Outbox, _, input: Input<'_>| match input {
            Input::Received { conn, bytes } if bytes == b"?" => {
                out.transmit(conn, vec![0; 64 * 1024 * 1024]).unwrap();
                out.close(conn, CloseMode::Flush);
                out.close(conn, CloseMode::Abort);
            }
            Input::Closed { reason, .. } => sender.send(reason).unwrap(),
            Input::Connected { .. }
            | Input::Received { .. }
            | Input::Eof { .. }
            | Input::Sent { .. }
            | Input::Released { .. }
            | Input::Resolved { .. }
            | Input::Command(_)
            | Input::Notice(_)
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. }
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. } => {}
        })
    });
    let mut stream = running.connect();
    stream.write_all(b"?").unwrap();
    assert_eq!(reasons.recv_timeout(PATIENCE).unwrap(), CloseReason::Requested);
}

#[test]
fn nothing_is_read_while_paused() {
    let (sender, seen) = reports();
    let running = Running::start(move || {
        let mut held = None;
        Script(move |out: &mut Outbox, _, input: Input<'_>| match input {
            Input::Received { conn, bytes } => {
                sender.send(bytes.len()).unwrap();
                if held.is_none() {
                    held = Some(conn);
                    out.push(Output::PauseRead(conn));
                }
            }
            Input::Notice(_)
            | Input::Persisted { .. }
            | Input::FileRead { .. }
            | Input::Exited { .. }
            | Input::ChannelOpened { .. }
            | Input::Datagram { .. }
            | Input::Trouble { .. } => {}
            Input::Command(_) => out.push(Output::ResumeRead(held.unwrap())),
            Input::Connected { .. }
            | Input::Eof { .. }
            | Input::Closed { .. }
            | Input::Sent { .. }
            | Input::Released { .. }
            | Input::Resolved { .. } => {}
        })
    });
    let mut stream = running.connect();
    let mut witness = running.connect();
    stream.write_all(&[1; 10]).unwrap();
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), 10);
    stream.write_all(&[2; 20]).unwrap();
    // The witness wrote later; its bytes being seen shows that the others could have been.
    witness.write_all(&[3; 30]).unwrap();
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), 30);
    running
        .mailbox
        .send(Message::Mail(Mail::Command(Command::Drain { limit: Duration::ZERO })))
        .unwrap();
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), 20);
}

/// Goes off three times, then tells.
struct Alarm {
    next: Option<Instant>,
    rang: Vec<Instant>,
    sender: std::sync::mpsc::Sender<Vec<Instant>>,
}

const ALARM_INTERVAL: Duration = Duration::from_millis(30);

impl Machine for Alarm {
    fn handle(&mut self, _: &mut Outbox, _: Instant, _: Input<'_>) {}

    fn handle_timeout(&mut self, _: &mut Outbox, now: Instant) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        self.rang.push(now);
        self.next = (self.rang.len() < 3).then(|| now + ALARM_INTERVAL);
        if self.next.is_none() {
            self.sender.send(std::mem::take(&mut self.rang)).unwrap();
        }
    }

    fn timeout(&self) -> Option<Instant> {
        self.next
    }
}

#[test]
fn timers_go_off_in_time_without_any_traffic() {
    let (sender, receiver) = reports();
    let first = Instant::START + ALARM_INTERVAL;
    let _running = Running::start(move || Alarm { next: Some(first), rang: Vec::new(), sender });
    let rang = receiver.recv_timeout(PATIENCE).unwrap();
    assert!(rang[0] >= first);
    for pair in rang.windows(2) {
        assert!(pair[1].since(pair[0]) >= ALARM_INTERVAL);
    }
}

/// Every byte received moves the deadline: `-` far ahead, `+` near.
struct Snooze {
    next: Option<Instant>,
    sender: std::sync::mpsc::Sender<()>,
}

impl Machine for Snooze {
    fn handle(&mut self, out: &mut Outbox, now: Instant, input: Input<'_>) {
        if let Input::Received { conn, bytes } = input {
            let is_near = bytes.last() == Some(&b'+');
            self.next = Some(now + Duration::from_millis(if is_near { 20 } else { 600_000 }));
            out.transmit(conn, bytes.to_vec()).unwrap();
        }
    }

    fn handle_timeout(&mut self, _: &mut Outbox, now: Instant) {
        if self.next.take_if(|next| *next <= now).is_some() {
            self.sender.send(()).unwrap();
        }
    }

    fn timeout(&self) -> Option<Instant> {
        self.next
    }
}

#[test]
fn a_deadline_may_move_both_ways() {
    let (sender, receiver) = reports();
    let running = Running::start(move || Snooze { next: None, sender });
    let mut stream = running.connect();
    for _ in 0..3 {
        for byte in [b"-", b"+", b"-"] {
            stream.write_all(byte).unwrap();
            assert_eq!(read_exactly(&mut stream, 1), byte);
        }
        // The timer was left near while the deadline went far: it must not be lost on the way.
        stream.write_all(b"+").unwrap();
        assert_eq!(read_exactly(&mut stream, 1), b"+");
        receiver.recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn a_host_name_is_resolved_and_a_bad_one_is_not() {
    let (sender, answers) = reports();
    let _running = Running::start(move || {
        Started(
            Some(|out: &mut Outbox| {
                let host = "127.0.0.1".to_owned();
                out.push(Output::Resolve { query: QueryId(1), host, port: 7 });
                let host = "localhost".to_owned();
                out.push(Output::Resolve { query: QueryId(2), host, port: 7 });
                let host = "no host\0name".to_owned();
                out.push(Output::Resolve { query: QueryId(3), host, port: 7 });
            }),
            move |_: &mut Outbox, _, input: Input<'_>| {
                if let Input::Resolved { query, result } = input {
                    sender.send((query, result)).unwrap();
                }
            },
        )
    });
    let mut answers: Vec<_> = (0..3).map(|_| answers.recv_timeout(PATIENCE).unwrap()).collect();
    answers.sort_by_key(|(query, _)| *query);
    assert_eq!(answers[0].1, Ok(vec!["127.0.0.1:7".parse().unwrap()]));
    let addresses = answers[1].1.as_ref().unwrap();
    assert!(addresses.iter().all(|at| at.ip().is_loopback() && at.port() == 7));
    assert!(answers[2].1.is_err());
}

#[test]
fn the_resolver_answers_while_clients_keep_the_worker_busy() {
    let (sender, answers) = reports();
    let mut received = 0;
    let running = Running::start(move || {
        Script(move |out: &mut Outbox, _, input: Input<'_>| {
            if let Input::Received { conn, bytes } = input {
                received += 1;
                if received == 1000 {
                    let host = "localhost".to_owned();
                    out.push(Output::Resolve { query: QueryId(1), host, port: 7 });
                }
                // The client waits for its reply, so there is no other write.
                out.transmit(conn, bytes.to_vec()).unwrap();
            } else if let Input::Resolved { result, .. } = input {
                sender.send(result).unwrap();
            }
        })
    });
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut stream = running.connect();
                while !is_over.load(Ordering::Relaxed) {
                    stream.write_all(b"question").unwrap();
                    assert_eq!(read_exactly(&mut stream, 8), b"question");
                }
            });
        }
        let answer = answers.recv_timeout(PATIENCE);
        is_over.store(true, Ordering::Relaxed);
        assert!(answer.unwrap().is_ok());
    });
    running.stop();
}

/// Takes one client and no other.
struct Single(bool);

impl Machine for Single {
    fn accept(&mut self, _: &mut Outbox, _: ConnId, _: ListenerId) -> Result<(), AtCapacity> {
        if std::mem::replace(&mut self.0, true) { Err(AtCapacity) } else { Ok(()) }
    }

    fn handle(&mut self, out: &mut Outbox, _: Instant, input: Input<'_>) {
        if let Input::Received { conn, bytes } = input {
            out.transmit(conn, bytes.to_vec()).unwrap();
        }
    }
}

#[test]
fn a_client_above_the_capacity_is_closed_and_the_others_stay() {
    let running = Running::start(|| Single(false));
    let mut first = running.connect();
    first.write_all(b"?").unwrap();
    assert_eq!(read_exactly(&mut first, 1), b"?");
    let mut second = running.connect();
    assert!(matches!(second.read(&mut [0]), Ok(0) | Err(_)));
    first.write_all(b"!").unwrap();
    assert_eq!(read_exactly(&mut first, 1), b"!");
}

#[test]
fn commands_reach_the_worker_in_order_even_if_sent_before_it_runs() {
    let (sender, seen) = reports();
    let running = Running::start(move || {
        Script(move |_: &mut Outbox, _, input: Input<'_>| {
            if let Input::Command(Command::Drain { limit }) = input {
                sender.send(limit).unwrap();
            }
        })
    });
    for seconds in 0..10 {
        let limit = Duration::from_secs(seconds);
        running.mailbox.send(Message::Mail(Mail::Command(Command::Drain { limit }))).unwrap();
    }
    for seconds in 0..10 {
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), Duration::from_secs(seconds));
    }
}

#[test]
fn a_message_to_a_stopped_worker_is_refused() {
    let running = Running::start(Echo::default);
    let mailbox = running.mailbox.clone();
    running.stop();
    assert_eq!(mailbox.send(Message::Stop), Err(Stopped));
}
