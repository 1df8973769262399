//! Listeners that come and go while the worker runs.
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
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use common::{Echo, PATIENCE, is_suitable, listen, start};
use ringkeeper_core::id::ListenerId;
use rt_uring::Message;
use socket2::Socket;

fn echo(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"ping").unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ping");
}

#[test]
fn listeners_come_and_go_and_their_clients_stay() {
    if !is_suitable() {
        return;
    }
    let running = start(None, Echo::default());
    let mut before = running.client();
    for round in 0..50 {
        let (mut listener, address) = listen();
        listener.id = ListenerId(7);
        running.mailbox.send(Message::Listen(listener)).unwrap();
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
    echo(&mut running.client());
    running.stop();
}

#[test]
fn clients_accepted_elsewhere_are_served() {
    if !is_suitable() {
        return;
    }
    let running = start(None, Echo::default());
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(outside.local_addr().unwrap()).unwrap();
    let (accepted, _) = outside.accept().unwrap();
    running.mailbox.admit(ListenerId(0), accepted.into()).unwrap();
    echo(&mut client);
    let mailbox = running.mailbox.clone();
    running.stop();
    let (ours, _) = UnixStream::pair().unwrap();
    let socket = Socket::from(OwnedFd::from(ours));
    assert!(mailbox.admit(ListenerId(1), socket).is_err(), "it comes back");
}
