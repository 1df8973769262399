//! A service manager that keeps listening sockets while the service is restarted, played by the
//! test: it takes descriptors at the socket for notifications and gives them to the next process.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Signal;

use support::lab::{self, Redis, Runtime};
use support::resp::{Client, Place, Reply, request};
use support::{Process, Scratch, eventually, stderr};

on_every_runtime!(
    nobody_is_refused_while_the_service_is_restarted,
    nobody_is_refused_after_a_crash,
    what_is_no_longer_wanted_is_given_back,
);

/// Puts descriptors where service managers put them, and becomes another program.
const GIVE: &str = "
import os, sys
numbers = [int(word) for word in sys.argv[1].split(',') if word]
# Out of the way first: a number may be among the places.
numbers = [os.dup2(number, 200 + at) for at, number in enumerate(numbers)]
for at, number in enumerate(numbers):
    os.dup2(number, 3 + at)
os.closerange(3 + len(numbers), 1000)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)))
os.environ.update(LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
";

type Kept = Arc<Mutex<BTreeMap<String, OwnedFd>>>;

/// The manager: what it was told, and what it keeps.
struct Manager {
    scratch: Scratch,
    kept: Kept,
    said: Arc<Mutex<Vec<String>>>,
    runtime: Runtime,
}

impl Manager {
    fn start(runtime: Runtime, text: &str) -> Self {
        let scratch = Scratch::new();
        scratch.write("a.yml", text);
        let socket = UnixDatagram::bind(scratch.path("notify")).unwrap();
        let (kept, said) = (Kept::default(), Arc::new(Mutex::new(Vec::new())));
        let (keeping, hearing) = (Arc::clone(&kept), Arc::clone(&said));
        // Ends with the test's process; nothing is waited for.
        std::thread::spawn(move || {
            loop {
                let (text, descriptor) = receive(&socket);
                let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
                let mut keeping = keeping.lock().unwrap();
                match (name, descriptor) {
                    (Some(name), Some(socket)) if text.contains("FDSTORE=1") => {
                        keeping.insert(name.to_owned(), socket);
                    }
                    (Some(name), None) if text.contains("FDSTOREREMOVE=1") => {
                        keeping.remove(name).expect("it is kept");
                    }
                    // A barrier's pipe is closed.
                    _ => {}
                }
                hearing.lock().unwrap().push(text);
            }
        });
        Self { scratch, kept, said, runtime }
    }

    /// Starts the service with all that is kept.
    fn launch(&self) -> Process {
        self.said.lock().unwrap().clear();
        let kept = self.kept.lock().unwrap();
        let mut numbers = Vec::new();
        for socket in kept.values() {
            fcntl_setfd(socket, FdFlags::empty()).unwrap();
            numbers.push(socket.as_raw_fd().to_string());
        }
        let names: Vec<&str> = kept.keys().map(String::as_str).collect();
        let mut command = Command::new(lab::program("python3").unwrap());
        command.args(["-c", GIVE, &numbers.join(","), &names.join(":")]);
        command.arg(self.scratch.path("ringkeeper"));
        command.args(["run", "-c", "a.yml", "--stats-port", "0", "--admin", "off"]);
        command.args(["--runtime", self.runtime.name()]);
        command.current_dir(self.scratch.path("")).env("RUNTIME_DIRECTORY", self.scratch.path(""));
        command.env("NOTIFY_SOCKET", self.scratch.path("notify")).env("FDSTORE", "64");
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = Process::new(command.spawn().unwrap());
        for socket in kept.values() {
            fcntl_setfd(socket, FdFlags::CLOEXEC).unwrap();
        }
        drop(kept);
        eventually("the service is ready", || {
            self.said.lock().unwrap().iter().any(|text| text.contains("READY=1")).then_some(())
        });
        process
    }

    fn log(&self) -> std::path::PathBuf {
        self.scratch.path("stderr")
    }

    fn names(&self) -> Vec<String> {
        self.kept.lock().unwrap().keys().cloned().collect()
    }
}

fn receive(socket: &UnixDatagram) -> (String, Option<OwnedFd>) {
    let mut buffer = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let got = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.next().and_then(|mut all| all.next());
    (String::from_utf8_lossy(&buffer[..got]).into_owned(), descriptor)
}

fn pool(name: &str, listen: &str, redis: &Redis) -> String {
    format!("{name}:\n  listen: {listen}\n  redis: true\n  servers:\n{}\n", redis.line("one"))
}

/// Ends the service in some way, connects while there is none, and starts it again.
fn restart(runtime: Runtime, end: impl Fn(&mut Process)) {
    need!("redis-server", "python3");
    let redis = Redis::start();
    // By a name, which is not what the socket tells of itself.
    let port = support::free_port();
    let folder = Scratch::new();
    let unix = folder.path("beta.sock");
    let text = pool("alpha", &format!("localhost:{port}"), &redis)
        + &pool("beta", &unix.display().to_string(), &redis);
    let manager = Manager::start(runtime, &text);
    let mut process = manager.launch();
    eventually("both are kept", || {
        let names = manager.names();
        let is_there = |name: &str| names.iter().any(|known| known.starts_with(name));
        (is_there(&format!("listen/localhost/{port}")) && is_there("listen//")).then_some(())
    });
    for round in 0..3 {
        let places = [Place::Tcp(([127, 0, 0, 1], port).into()), Place::Unix(unix.clone())];
        let mut before: Vec<Client> =
            places.iter().map(|place| Client::connect(place).unwrap()).collect();
        for client in &mut before {
            assert_eq!(client.ask(&["SET", "k", &round.to_string()]), Reply::ok());
        }
        drop(before);
        end(&mut process);
        // Nobody serves, and nobody is refused.
        let mut early: Vec<Client> =
            places.iter().map(|place| Client::connect(place).expect("kept open")).collect();
        for client in &mut early {
            client.send(&request(&["GET", "k"])).unwrap();
        }
        process = manager.launch();
        for client in &mut early {
            assert_eq!(client.reply().unwrap(), Reply::bulk(round.to_string()));
        }
    }
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

fn nobody_is_refused_while_the_service_is_restarted(runtime: Runtime) {
    restart(runtime, |process| {
        process.signal(Signal::TERM);
        assert_eq!(process.wait().code(), Some(0));
    });
}

fn nobody_is_refused_after_a_crash(runtime: Runtime) {
    restart(runtime, |process| {
        process.signal(Signal::KILL);
        process.wait();
    });
}

fn what_is_no_longer_wanted_is_given_back(runtime: Runtime) {
    need!("redis-server", "python3");
    let redis = Redis::start();
    let (one, two) = (support::free_port(), support::free_port());
    let alpha = pool("alpha", &format!("127.0.0.1:{one}"), &redis);
    let both = alpha.clone() + &pool("beta", &format!("127.0.0.1:{two}"), &redis);
    let manager = Manager::start(runtime, &both);
    let mut process = manager.launch();
    let name = format!("listen/127.0.0.1/{two}");
    eventually("it is kept", || manager.names().contains(&name).then_some(()));
    let command = |words: &[&str]| {
        let output = manager.scratch.run("ringkeeper", words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    };
    let is_open = || TcpStream::connect(("127.0.0.1", two)).is_ok();
    // The command is done when the port is closed, and it can be had again at once.
    command(&["drain", "pool", "beta"]);
    assert!(!manager.names().contains(&name) && !is_open());
    command(&["undrain", "pool", "beta"]);
    assert!(is_open());
    eventually("it is kept again", || manager.names().contains(&name).then_some(()));
    manager.scratch.write("a.yml", &alpha);
    command(&["reload"]);
    assert!(!manager.names().contains(&name) && !is_open());
    manager.scratch.write("a.yml", &both);
    command(&["reload"]);
    assert!(is_open());
    eventually("it is kept again", || manager.names().contains(&name).then_some(()));
    // Removed while the service did not run.
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    assert!(is_open());
    manager.scratch.write("a.yml", &alpha);
    process = manager.launch();
    eventually("it is given back", || (!manager.names().contains(&name)).then_some(()));
    eventually("the port is closed", || (!is_open()).then_some(()));
    // Upgraded, the new process looks after what is kept.
    command(&["upgrade"]);
    process.wait();
    manager.scratch.write("a.yml", &both);
    eventually("the new process takes commands", || {
        let output = manager.scratch.run("ringkeeper", &["reload"]);
        eprintln!("{}", stderr(&output));
        output.status.success().then_some(())
    });
    eventually("it is kept once more", || manager.names().contains(&name).then_some(()));
    assert!(is_open());
    let pid = manager.said.lock().unwrap().iter().find_map(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MAINPID="))?;
        rustix::process::Pid::from_raw(line.parse().ok()?)
    });
    rustix::process::kill_process(pid.unwrap(), Signal::TERM).unwrap();
    eventually("the new process ends", || {
        Client::connect(&Place::Unix(manager.scratch.path("control.sock"))).err().map(drop)
    });
}
