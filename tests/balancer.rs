//! Virtual servers of a keepalived.conf: who gets which client, and what happens when servers die.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use support::lab::Runtime;
use support::{Process, Scratch, eventually, free_port};

/// How long a read may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that names itself on each line it gets, and says what came before its first line.
struct Server {
    at: SocketAddr,
    connections: Arc<Mutex<BTreeMap<usize, TcpStream>>>,
    is_over: Arc<std::sync::atomic::AtomicBool>,
}

impl Server {
    fn start(name: &str) -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], free_port())), name)
    }

    fn start_on(at: SocketAddr, name: &str) -> Self {
        let listener = eventually("the port", || TcpListener::bind(at).ok());
        let server = Self { at, connections: Arc::default(), is_over: Arc::default() };
        let (name, connections) = (name.to_owned(), Arc::clone(&server.connections));
        let is_over = Arc::clone(&server.is_over);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                if is_over.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                let Ok(clone) = stream.try_clone() else { continue };
                connections.lock().unwrap().insert(number, clone);
                let (name, connections) = (name.clone(), Arc::clone(&connections));
                thread::spawn(move || {
                    serve(stream, &name);
                    connections.lock().unwrap().remove(&number);
                });
            }
        });
        server
    }

    /// Ends the listener first, so that nobody gets in, then every connection.
    fn kill(&self) {
        self.is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        drop(TcpStream::connect(self.at));
        eventually("the end of the listener", || {
            TcpStream::connect(self.at).is_err().then_some(())
        });
        for stream in self.connections.lock().unwrap().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends the listener only: connections go on, checks fail.
    fn stop_listening(&self) {
        self.is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        drop(TcpStream::connect(self.at));
        eventually("the end of the listener", || {
            TcpStream::connect(self.at).is_err().then_some(())
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        drop(TcpStream::connect(self.at));
    }
}

/// Answers lines: `who`, `echo WORDS`, `push N` (N bytes of `x`), and at the end of input `bye`.
fn serve(stream: TcpStream, name: &str) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let mut header = String::new();
    if reader.fill_buf().is_ok_and(|bytes| bytes.starts_with(b"\r\n\r\n\0")) {
        let mut bytes = [0; 28];
        if reader.read_exact(&mut bytes).is_err() {
            return;
        }
        let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let (from, to) = (&bytes[16..20], &bytes[20..24]);
        header =
            format!("{:02x}{:02x} {from:?}:{} {to:?}:{}", bytes[12], bytes[13], port(24), port(26));
    }
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
        let said = match line.trim_end().split_once(' ') {
            Some(("echo", words)) => writeln!(writer, "{words}"),
            Some(("push", count)) => {
                let bytes = vec![b'x'; 64 * 1024];
                let count: usize = count.parse().unwrap();
                (0..count.div_ceil(bytes.len())).try_for_each(|_| writer.write_all(&bytes))
            }
            _ if line.starts_with("GET ") => {
                let _ = write!(writer, "HTTP/1.0 200 OK\r\n\r\nI am {name}\n");
                return;
            }
            _ if line.starts_with("from") => writeln!(writer, "{header}"),
            _ => writeln!(writer, "{name}"),
        };
        if said.is_err() {
            return;
        }
        line.clear();
    }
    let _ = writeln!(writer, "bye");
}

/// A client of a virtual server.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(at: SocketAddr) -> Self {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, line: &str) -> std::io::Result<String> {
        writeln!(self.0.get_mut(), "{line}")?;
        let mut answer = String::new();
        match self.0.read_line(&mut answer)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(answer.trim_end().to_owned()),
        }
    }
}

/// Asks a server's name on a connection of its own.
fn who(at: SocketAddr) -> std::io::Result<String> {
    let stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Client(BufReader::new(stream)).ask("who")
}

/// Breaks a connection.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// The program with a keepalived.conf.
struct Lab {
    scratch: Scratch,
    process: Process,
    at: SocketAddr,
}

fn real(server: &Server, extra: &str) -> String {
    let at = server.at;
    format!("real_server {} {} {{\n {extra}\n }}\n", at.ip(), at.port())
}

const CHECK: &str = "TCP_CHECK {\n connect_timeout 2\n retry 1\n delay_before_retry 0.05\n \
                     delay_loop 0.1\n warmup 0\n }";

fn text(at: SocketAddr, body: &str) -> String {
    format!(
        "global_defs {{\n script_user root\n enable_script_security\n}}\n\
         virtual_server {} {} {{\n protocol TCP\n {body} }}\n",
        at.ip(),
        at.port()
    )
}

impl Lab {
    fn start(runtime: Runtime, body: &str) -> Self {
        let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let scratch = Scratch::new();
        scratch.write("keepalived.conf", &text(at, body));
        let arguments = ["run", "--runtime", runtime.name(), "--keepalived", "keepalived.conf"];
        let process = scratch.start("ringkeeper", &arguments);
        eventually("the virtual server", || TcpStream::connect(at).ok());
        Self { scratch, process, at }
    }

    fn log(&self) -> String {
        self.scratch.read("stderr")
    }

    /// Asks many clients' servers and counts.
    fn shares(&self, count: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..count {
            *shares.entry(who(self.at).unwrap()).or_default() += 1;
        }
        shares
    }
}

fn connections_are_spread_by_turn_and_by_weight(runtime: Runtime) {
    let (a, b) = (Server::start("a"), Server::start("b"));
    let body = format!("lb_algo rr\n {}{}", real(&a, CHECK), real(&b, CHECK));
    let lab = Lab::start(runtime, &body);
    let shares = lab.shares(20);
    assert_eq!((shares["a"], shares["b"]), (10, 10));
    let heavy = format!("weight 3\n {CHECK}");
    let body = format!("lb_algo wrr\n {}{}", real(&a, &heavy), real(&b, CHECK));
    let lab = Lab::start(runtime, &body);
    let shares = lab.shares(40);
    assert_eq!((shares["a"], shares["b"]), (30, 10), "{runtime:?}");
}

fn a_dead_server_takes_its_connections_along_and_gets_no_new_ones(runtime: Runtime) {
    let (a, b) = (Server::start("a"), Server::start("b"));
    let body = format!("lb_algo rr\n {}{}", real(&a, CHECK), real(&b, CHECK));
    let lab = Lab::start(runtime, &body);
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(lab.at)).collect();
    let mut names: Vec<String> =
        clients.iter_mut().map(|client| client.ask("who").unwrap()).collect();
    // It accepts nobody any more, but its connections look alive: only the check can tell.
    a.stop_listening();
    lab.scratch.wait_for("stderr", "server is down");
    for (client, name) in clients.iter_mut().zip(&names) {
        match name.as_str() {
            "a" => {
                // Closed at once, not left to hang: nothing was asked.
                let mut byte = [0];
                let end = client.0.read(&mut byte);
                assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
                let error = end.err().map(|error| error.kind());
                assert_ne!(error, Some(std::io::ErrorKind::WouldBlock));
            }
            _ => assert_eq!(client.ask("echo on").unwrap(), "on"),
        }
    }
    names.clear();
    assert_eq!(lab.shares(6), BTreeMap::from([("b".to_owned(), 6)]));
    // Back again.
    let again = Server::start_on(a.at, "a");
    lab.scratch.wait_for("stderr", "server is up");
    let shares = lab.shares(10);
    assert_eq!((shares["a"], shares["b"]), (5, 5), "{}", lab.log());
    drop(again);
}

fn a_refused_connection_tries_the_next_server_and_no_client_notices(runtime: Runtime) {
    let (a, b) = (Server::start("a"), Server::start("b"));
    // Checked once a minute: the check does not know.
    let slow = "TCP_CHECK {\n delay_loop 60\n warmup 60\n retry 9\n }";
    let body = format!("lb_algo rr\n {}{}", real(&a, slow), real(&b, slow));
    let lab = Lab::start(runtime, &body);
    assert_eq!(lab.shares(4).len(), 2);
    a.kill();
    assert_eq!(lab.shares(10), BTreeMap::from([("b".to_owned(), 10)]));
}

fn a_sorry_server_serves_while_too_few_others_do(runtime: Runtime) {
    let (a, b) = (Server::start("a"), Server::start("b"));
    let sorry = Server::start("sorry");
    let scratch = Scratch::new();
    scratch.write("up", "#!/bin/sh\necho \"$1\" >> \"$(dirname \"$0\")/told\"\n");
    let script = scratch.path("up");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let script = script.display();
    let notify = format!("notify_down \"{script} down\"\n notify_up \"{script} up\"\n {CHECK}");
    let body = format!(
        "lb_algo rr\n quorum 2\n sorry_server 127.0.0.1 {}\n quorum_up \"{script} gained\"\n \
                 quorum_down \"{script} lost\"\n {}{}",
        sorry.at.port(),
        real(&a, &notify),
        real(&b, CHECK)
    );
    let lab = Lab::start(runtime, &body.replace("enable_script_security", ""));
    assert_eq!(lab.shares(4).len(), 2);
    let at = a.at;
    a.kill();
    lab.scratch.wait_for("stderr", "too few servers are up");
    assert_eq!(lab.shares(4), BTreeMap::from([("sorry".to_owned(), 4)]));
    let again = Server::start_on(at, "a");
    eventually("the quorum again", || {
        (lab.log().matches("enough servers are up").count() == 2).then_some(())
    });
    let shares = lab.shares(4);
    assert!(!shares.contains_key("sorry"), "{shares:?}");
    eventually("the programs", || {
        let mut told: Vec<String> = scratch.read("told").lines().map(str::to_owned).collect();
        told.sort();
        (told == ["down", "gained", "gained", "lost", "up"]).then_some(())
    });
    drop(again);
}

fn a_client_stays_with_its_server_where_that_is_asked_for(runtime: Runtime) {
    let (a, b) = (Server::start("a"), Server::start("b"));
    let servers = format!("{}{}", real(&a, CHECK), real(&b, CHECK));
    let lab = Lab::start(runtime, &format!("lb_algo rr\n persistence_timeout 50\n {servers}"));
    assert_eq!(lab.shares(10).len(), 1);
    // Unless that one dies.
    let first = who(lab.at).unwrap();
    if first == "a" {
        a.kill()
    } else {
        b.kill()
    }
    let shares = lab.shares(10);
    assert!(!shares.contains_key(&first), "{shares:?}");
}

fn half_a_connection_can_be_closed_and_the_rest_arrives(runtime: Runtime) {
    let a = Server::start("a");
    let lab = Lab::start(runtime, &real(&a, CHECK));
    let mut client = Client::connect(lab.at);
    client.0.get_mut().write_all(b"echo one\npush 1000000\n").unwrap();
    client.0.get_mut().shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    client.0.read_to_end(&mut all).unwrap();
    assert!(all.starts_with(b"one\nxxx") && all.ends_with(b"xxxbye\n"));
    assert_eq!(all.len(), 4 + 16 * 65_536 + 4, "{runtime:?}");
}

fn a_slow_reader_costs_little_memory_and_loses_nothing(runtime: Runtime) {
    let a = Server::start("a");
    let lab = Lab::start(runtime, &real(&a, CHECK));
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", lab.process.id()));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = resident();
    let count = 64 * 1024 * 1024;
    let mut client = Client::connect(lab.at);
    writeln!(client.0.get_mut(), "push {count}").unwrap();
    // The server's writes stop when every buffer on the way is full.
    let stream = &client.0.get_ref();
    let mut peeked = [0];
    eventually("the first byte", || stream.peek(&mut peeked).ok());
    // A second client is served meanwhile, many times.
    for _ in 0..50 {
        assert_eq!(who(lab.at).unwrap(), "a");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for one slow reader on {runtime:?}");
    let mut left = count;
    let mut space = vec![0; 1 << 20];
    while left > 0 {
        let read = client.0.read(&mut space).unwrap();
        assert!(read > 0 && space[..read].iter().all(|&byte| byte == b'x'));
        left -= read;
    }
}

fn servers_are_told_who_the_client_is_by_the_proxy_protocol(runtime: Runtime) {
    let a = Server::start("a");
    let lab = Lab::start(runtime, &format!("proxy_protocol v2\n {}", real(&a, "")));
    let mut client = Client::connect(lab.at);
    let from = client.0.get_ref().local_addr().unwrap();
    let expected = format!("2111 [127, 0, 0, 1]:{} [127, 0, 0, 1]:{}", from.port(), lab.at.port());
    assert_eq!(client.ask("from").unwrap(), expected);
}

fn a_reset_is_passed_on_both_ways(runtime: Runtime) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let lab = Lab::start(runtime, &format!("real_server 127.0.0.1 {port} {{\n }}\n"));
    // The one that found out whether the virtual server is there.
    drop(listener.accept().unwrap());
    let mut client = TcpStream::connect(lab.at).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let (server, _) = listener.accept().unwrap();
    reset(server);
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let client = TcpStream::connect(lab.at).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    reset(client);
    let error = server.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

fn a_reload_keeps_connections_to_servers_that_stay(runtime: Runtime) {
    let (a, b, c) = (Server::start("a"), Server::start("b"), Server::start("c"));
    let body = format!("lb_algo rr\n {}{}", real(&a, CHECK), real(&b, CHECK));
    let lab = Lab::start(runtime, &body);
    let mut clients = [Client::connect(lab.at), Client::connect(lab.at)];
    let names: Vec<_> = clients.iter_mut().map(|one| one.ask("who").unwrap()).collect();
    let body = format!("lb_algo rr\n {}{}", real(&a, CHECK), real(&c, CHECK));
    let other = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let second = format!("{}{}", text(lab.at, &body), text(other, &real(&b, CHECK)));
    lab.scratch.write("keepalived.conf", &second);
    lab.process.signal(Signal::HUP);
    eventually("the new virtual server", || who(other).ok());
    assert_eq!(lab.shares(4).keys().collect::<Vec<_>>(), ["a", "c"]);
    for (client, name) in clients.iter_mut().zip(&names) {
        let answer = client.ask("echo still");
        if name == "a" {
            assert_eq!(answer.unwrap(), "still");
        } else {
            assert!(answer.is_err(), "its server is gone");
        }
    }
    lab.scratch.write("keepalived.conf", &text(lab.at, &body));
    lab.process.signal(Signal::HUP);
    eventually("the end of a virtual server", || TcpStream::connect(other).err());
    assert_eq!(clients[usize::from(names[0] != "a")].ask("echo on").unwrap(), "on");
}

fn checkers_of_every_kind_find_out(runtime: Runtime) {
    let scratch = Scratch::new();
    scratch.write("state", "0\n");
    let servers: Vec<Server> =
        ["http", "misc", "file", "redis", "ping"].into_iter().map(Server::start).collect();
    let often = "delay_loop 0.1\n warmup 0\n retry 0\n";
    let path = scratch.path("state");
    let path = path.display();
    let checks = [
        format!(
            "HTTP_GET {{\n {often} url {{\n path /\n status_code 200\n regex \"I am http\"\n }}\n }}"
        ),
        format!("MISC_CHECK {{\n {often} misc_path \"/usr/bin/grep -q 0 {path}\"\n }}"),
        format!("FILE_CHECK {{\n track_file state\n }}\n TCP_CHECK {{\n {often} }}"),
        // It is no Redis, so it is never up.
        format!("REDIS_CHECK {{\n {often} role master\n }}"),
        format!("PING_CHECK {{\n {often} }}"),
    ];
    let mut body = "lb_algo rr\n alpha\n".to_owned();
    for (server, check) in servers.iter().zip(&checks) {
        body += &real(server, check);
    }
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let whole = format!("track_file state {{\n file {path}\n }}\n{}", text(at, &body));
    scratch.write("keepalived.conf", &whole);
    let arguments = ["run", "--runtime", runtime.name(), "--keepalived", "keepalived.conf"];
    let process = scratch.start("ringkeeper", &arguments);
    let seen = |expected: &[&str]| {
        eventually(&format!("{expected:?}: {}", scratch.read("stderr")), || {
            let names: Vec<String> = (0..8).filter_map(|_| who(at).ok()).collect();
            let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
            names.sort_unstable();
            names.dedup();
            (names == expected).then_some(())
        });
    };
    seen(&["file", "http", "misc", "ping"]);
    scratch.write("state", "1\n");
    seen(&["http", "ping"]);
    scratch.write("state", "0\n");
    seen(&["file", "http", "misc", "ping"]);
    drop(process);
}

fn the_address_may_come_later(runtime: Runtime) {
    // An address of documentation that no host has: only IP_FREEBIND can listen there.
    let a = Server::start("a");
    let scratch = Scratch::new();
    let at = SocketAddr::from(([192, 0, 2, 77], free_port()));
    scratch.write("keepalived.conf", &text(at, &real(&a, CHECK)));
    let arguments = ["run", "--runtime", runtime.name(), "--keepalived", "keepalived.conf"];
    let process = scratch.start("ringkeeper", &arguments);
    let hex = format!("4D0200C0:{:04X}", at.port());
    eventually("a socket on an address that is not here", || {
        std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&hex).then_some(())
    });
    drop(process);
}

on_every_runtime!(
    connections_are_spread_by_turn_and_by_weight,
    a_dead_server_takes_its_connections_along_and_gets_no_new_ones,
    a_refused_connection_tries_the_next_server_and_no_client_notices,
    a_sorry_server_serves_while_too_few_others_do,
    a_client_stays_with_its_server_where_that_is_asked_for,
    half_a_connection_can_be_closed_and_the_rest_arrives,
    a_slow_reader_costs_little_memory_and_loses_nothing,
    servers_are_told_who_the_client_is_by_the_proxy_protocol,
    a_reset_is_passed_on_both_ways,
    a_reload_keeps_connections_to_servers_that_stay,
    checkers_of_every_kind_find_out,
    the_address_may_come_later,
);
