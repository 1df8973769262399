//! Listeners that come and go while the worker runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test")]

mod common;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use common::*;
use ringkeeper_core::id::ListenerId;
use rt_tokio::{Listener, Message};
use socket2::Socket;

fn echo(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"ping").unwrap();
    assert_eq!(read_exactly(stream, 4), b"ping");
}

fn listen(running: &Running, id: u16) -> std::net::SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener { id: ListenerId(id), socket: socket.into(), tcp_keepalive: true };
    running.mailbox.send(Message::Listen(listener)).unwrap();
    address
}

#[test]
fn listeners_come_and_go_and_their_clients_stay() {
    let running = Running::start(Echo::default);
    let mut before = running.connect();
    for round in 0..50 {
        let address = listen(&running, 7);
        let mut clients: Vec<TcpStream> =
            (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        // Some of them may still wait in the kernel: none is lost.
        let (done, is_done) = std::sync::mpsc::channel();
        running.mailbox.send(Message::Unlisten(ListenerId(7), done)).unwrap();
        clients.iter_mut().for_each(echo);
        assert!(is_done.recv_timeout(PATIENCE).is_err(), "dropped, not sent to");
        assert!(TcpStream::connect(address).is_err(), "round {round}: nobody listens");
    }
    echo(&mut before);
    echo(&mut running.connect());
}

#[test]
fn clients_accepted_elsewhere_are_served() {
    let running = Running::start(Echo::default);
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(outside.local_addr().unwrap()).unwrap();
    let (accepted, _) = outside.accept().unwrap();
    running.mailbox.admit(ListenerId(0), accepted.into()).unwrap();
    echo(&mut client);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    running.mailbox.admit(ListenerId(1), ours.into()).unwrap();
    theirs.write_all(b"ping").unwrap();
    assert_eq!(read_exactly(&mut theirs, 4), b"ping");
    let mailbox = running.mailbox.clone();
    running.stop();
    let (ours, _) = UnixStream::pair().unwrap();
    assert!(mailbox.admit(ListenerId(1), Socket::from(ours)).is_err(), "it comes back");
}
