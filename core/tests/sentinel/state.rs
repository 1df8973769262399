//! What a Sentinel has promised survives a crash at every byte of what it writes.

use std::time::Duration;

use ringkeeper_core::id::{ConnId, ListenerId, Ticket};
use ringkeeper_core::io::{Change, CloseReason, Drive, Endpoint, Errand, Input, Output};
use ringkeeper_core::node::sentinel::SentinelWorker;
use ringkeeper_core::sentinel::machine::Setup;
use ringkeeper_core::time::Instant;

const ME: &str = "1111111111111111111111111111111111111111";
const PEER: &str = "2222222222222222222222222222222222222222";
const OTHER: &str = "3333333333333333333333333333333333333333";

/// Where the state is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    InPlace,
    Beside,
}

fn text() -> String {
    let mut text = format!("port 26379\nsentinel myid {ME}\n");
    for number in 0..20 {
        let port = 7000 + number;
        text.push_str(&format!("sentinel monitor m{number} 127.0.0.1 {port} 2\n"));
        text.push_str(&format!("sentinel known-sentinel m{number} 127.0.0.1 7777 {PEER}\n"));
    }
    text
}

/// A Sentinel and its disk.
struct Bench {
    form: Form,
    worker: SentinelWorker,
    now: Instant,
    file: Option<Vec<u8>>,
    client: ConnId,
    got: String,
    writing: Option<(Ticket, Change)>,
    appended: usize,
}

impl Bench {
    /// Starts with what is on the disk.
    fn start(form: Form, file: Option<Vec<u8>>) -> Self {
        let setup = match (form, &file) {
            (Form::InPlace, Some(file)) => {
                let text = std::str::from_utf8(file).unwrap();
                Setup::from_text("s.conf".into(), text).unwrap()
            }
            (Form::InPlace, None) => Setup::from_text("s.conf".into(), &text()).unwrap(),
            (Form::Beside, state) => {
                let setup = Setup::from_text("s.conf".into(), &text()).unwrap();
                setup.with_state("s.conf.state".into(), state.as_deref()).unwrap()
            }
        };
        let now = Instant::from_nanos(1_000_000_000);
        let mut worker = SentinelWorker::new(setup, 7, now);
        let peer = Endpoint::Tcp("127.0.0.1:40000".parse().unwrap());
        let client = worker.accept(now, ListenerId(0), peer).unwrap();
        let got = String::new();
        let mut bench = Self { form, worker, now, file, client, got, writing: None, appended: 0 };
        bench.take();
        bench
    }

    fn take(&mut self) {
        while let Some(output) = self.worker.poll_output() {
            match output {
                Output::Transmit { conn, buffer } => {
                    if conn == self.client {
                        self.got.push_str(&String::from_utf8_lossy(&buffer));
                    }
                    self.worker.handle(self.now, Input::Sent { conn, buffer });
                }
                Output::Close { conn, .. } => {
                    let reason = CloseReason::Requested;
                    self.worker.handle(self.now, Input::Closed { conn, reason });
                }
                Output::Errand(Errand::Persist { ticket, change }) => {
                    assert!(self.writing.is_none(), "one write at a time");
                    self.writing = Some((ticket, change));
                }
                _ => {}
            }
        }
    }

    /// Returns what is on the disk if the process dies while it writes: every state that the disk
    /// may be in.
    fn crashes(&self) -> Vec<Option<Vec<u8>>> {
        let mut states = vec![self.file.clone()];
        match &self.writing {
            None => {}
            // Into another file, then renamed: there is no state between.
            Some((_, Change::Replace { bytes, .. })) => states.push(Some(bytes.clone())),
            Some((_, Change::Append { at, bytes, .. })) => {
                let mut file = self.file.clone().unwrap();
                assert_eq!(*at, file.len() as u64);
                for byte in bytes {
                    file.push(*byte);
                    states.push(Some(file.clone()));
                }
            }
        }
        states
    }

    /// Ends writes, and those that begin by that.
    fn write(&mut self) {
        while let Some((ticket, change)) = self.writing.take() {
            match change {
                Change::Replace { bytes, .. } => self.file = Some(bytes),
                Change::Append { at, bytes, .. } => {
                    let file = self.file.as_mut().unwrap();
                    file.truncate(usize::try_from(at).unwrap());
                    file.extend(bytes);
                    self.appended += 1;
                }
            }
            self.worker.handle(self.now, Input::Persisted { ticket, result: Ok(()) });
            self.take();
        }
    }

    /// Asks for a vote; the reply may have to wait for the disk.
    fn ask(&mut self, port: u16, epoch: u64, candidate: &str) {
        self.got.clear();
        let line =
            format!("SENTINEL is-master-down-by-addr 127.0.0.1 {port} {epoch} {candidate}\r\n");
        let (conn, bytes) = (self.client, line.as_bytes());
        self.worker.handle(self.now, Input::Received { conn, bytes });
        self.take();
    }

    /// Returns whom the last reply names, and for which election; none while there is none.
    fn vote(&self) -> Option<(String, u64)> {
        let lines: Vec<&str> = self.got.lines().collect();
        let [_, _, _, leader, epoch] = lines.as_slice() else { return None };
        Some(((*leader).to_owned(), epoch.trim_start_matches(':').parse().unwrap()))
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(deadline) = self.worker.poll_timeout().filter(|d| d.at <= until) {
            self.now = self.now.max(deadline.at);
            self.worker.handle_timeout(self.now);
            self.take();
        }
        self.now = until;
    }
}

/// Whoever starts with such a disk says what was said, and votes for nobody else.
fn holds(form: Form, disk: Option<Vec<u8>>, told: Option<&(u16, String, u64)>) {
    let mut again = Bench::start(form, disk);
    again.write();
    let Some((port, leader, epoch)) = told else { return };
    again.ask(*port, *epoch, OTHER);
    again.write();
    assert_eq!(again.vote(), Some((leader.clone(), *epoch)));
    again.ask(*port, epoch - 1, OTHER);
    again.write();
    assert_eq!(again.vote(), Some((leader.clone(), *epoch)), "an older election is over");
}

fn votes_survive(form: Form) {
    let mut bench = Bench::start(form, None);
    for disk in bench.crashes() {
        holds(form, disk, None);
    }
    bench.write();
    let mut told = None;
    for (round, epoch) in (5..13).enumerate() {
        // Whom we voted for is not forgotten for a while.
        bench.wait(Duration::from_secs(6));
        bench.write();
        let port = 7000 + u16::try_from(round % 3).unwrap();
        let candidate = if round % 2 == 0 { PEER } else { OTHER };
        bench.ask(port, epoch, candidate);
        assert_eq!(bench.vote(), None, "nothing is promised before it is on disk");
        for disk in bench.crashes() {
            holds(form, disk, told.as_ref());
        }
        bench.write();
        let (leader, voted) = bench.vote().unwrap();
        assert_eq!((leader.as_str(), voted), (candidate, epoch));
        told = Some((port, leader, voted));
        holds(form, bench.file.clone(), told.as_ref());
    }
    assert_eq!(bench.appended > 0, bench.form == Form::Beside, "{}", bench.appended);
}

#[test]
fn votes_survive_a_crash_at_every_byte_of_the_journal() {
    votes_survive(Form::Beside);
}

#[test]
fn votes_survive_a_crash_at_every_write_of_the_file_itself() {
    votes_survive(Form::InPlace);
}
