//! A genuine memcached.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::lab::{free_address, program, server_line};
use super::resp::{Client, Place};
use super::{Process, Scratch, eventually};

/// How long nothing may come until an answer counts as ended.
const QUIET: Duration = Duration::from_millis(150);

/// A genuine memcached with 64 MiB.
pub struct Memcached {
    pub place: Place,
    scratch: Scratch,
    process: Option<Process>,
}

impl Memcached {
    /// Starts a server on a free port of 127.0.0.1.
    pub fn start() -> Self {
        // Somebody may take the port between the look and the bind.
        for _ in 0..10 {
            let place = Place::Tcp(free_address(Ipv4Addr::LOCALHOST.into()));
            let mut server = Self { place, scratch: Scratch::new(), process: None };
            if server.run() {
                return server;
            }
        }
        panic!("no port for a memcached");
    }

    /// Starts the server, or starts it again, at its place. Returns false when it ended instead.
    pub fn run(&mut self) -> bool {
        let Place::Tcp(SocketAddr::V4(at)) = &self.place else { panic!("listens on IPv4") };
        let mut command = Command::new(program("memcached").unwrap());
        command.args(["-l", &at.ip().to_string(), "-p", &at.port().to_string(), "-U", "0"]);
        command.args(["-m", "64", "-t", "1", "-c", "512"]);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(self.scratch.path("log")).unwrap());
        let mut process = Process::new(command.spawn().unwrap());
        let is_up = eventually("a memcached answers or ends", || {
            if process.status().is_some() {
                return Some(false);
            }
            let mut client = Client::connect(&self.place).ok()?;
            client.send(b"mn\r\n").ok()?;
            (client.as_long_as("MN\r\n") == "MN\r\n").then_some(true)
        });
        self.process = is_up.then_some(process);
        is_up
    }

    /// Ends the server at once; its place stays its own.
    pub fn kill(&mut self) {
        self.process = None;
    }

    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().unwrap().signal(signal);
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.place).unwrap()
    }

    /// Returns which of `keys` it has.
    pub fn which_of(&self, keys: &[String]) -> Vec<String> {
        let mut client = self.client();
        let mut found = Vec::new();
        for keys in keys.chunks(20) {
            let asked = keys.iter().map(|key| format!("mg {key} k q\r\n")).collect::<String>();
            client.send((asked + "mn\r\n").as_bytes()).unwrap();
            loop {
                let line = client.line().unwrap();
                if line == "MN" {
                    break;
                }
                found.push(line.strip_prefix("HD k").unwrap().to_owned());
            }
        }
        found
    }

    /// Forgets everything, also how often it was told something.
    pub fn forget_all(&self) {
        assert_eq!(say(&mut self.client(), "flush_all\r\n"), "OK\r\n");
    }

    /// Returns the line for a pool's list of servers.
    pub fn line(&self, name: &str) -> String {
        server_line(&self.place, name)
    }
}

/// Sends anything and returns what comes for it. An `mn` behind it would show its end, but not
/// every proxy knows that: the answer ends when nothing more comes.
pub fn say(client: &mut Client, text: impl AsRef<[u8]>) -> String {
    // Whoever is told too much may end the connection before all is read.
    let _ = client.send(text.as_ref());
    client.all_within(QUIET)
}

/// Sends anything that is not the end, with an `mn` behind it, and returns what comes before the
/// answer to that.
pub fn ask(client: &mut Client, text: impl AsRef<[u8]>) -> String {
    client.send(text.as_ref()).unwrap();
    client.send(b"mn\r\n").unwrap();
    let mut reply = String::new();
    loop {
        let line = client.line().unwrap_or_else(|error| {
            panic!("{error} behind {reply:?} for {:?}", String::from_utf8_lossy(text.as_ref()))
        });
        if line == "MN" {
            return reply;
        }
        reply += &line;
        reply += "\r\n";
    }
}
