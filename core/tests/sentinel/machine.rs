//! The machine at its border, in virtual time: what it sends to whom, what has to be durable before
//! it speaks, and that no bytes from outside end it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use ringkeeper_core::id::{ConnId, ListenerId, QueryId, Ticket};
use ringkeeper_core::io::{
    Change, CloseReason, Drive, Endpoint, Errand, Event, Input, Notice, Output, PersistError,
    Recipient, ShardNews,
};
use ringkeeper_core::node::sentinel::SentinelWorker;
use ringkeeper_core::sentinel::machine::Setup;
use ringkeeper_core::time::Instant;

pub(crate) const ME: &str = "1111111111111111111111111111111111111111";
pub(crate) const PEER: &str = "2222222222222222222222222222222222222222";

/// The machine, and what came out of it.
pub(crate) struct Bench {
    pub(crate) worker: SentinelWorker,
    pub(crate) now: Instant,
    pub(crate) connects: VecDeque<(ConnId, SocketAddr)>,
    pub(crate) writes: Vec<(ConnId, String)>,
    pub(crate) files: VecDeque<(Ticket, String)>,
    pub(crate) reads: Vec<(Ticket, PathBuf)>,
    pub(crate) events: Vec<(String, String)>,
    pub(crate) closed: Vec<ConnId>,
    pub(crate) sources: Vec<Option<IpAddr>>,
    pub(crate) news: Vec<ShardNews>,
    pub(crate) queries: VecDeque<(QueryId, String)>,
}

impl Bench {
    pub(crate) fn new(more: &str) -> Self {
        let text = format!(
            "sentinel myid {ME}\nsentinel monitor m 127.0.0.1 7000 2\n\
             sentinel down-after-milliseconds m 1000\n{more}"
        );
        Self::with(Setup::from_text("s.conf".into(), &text).unwrap())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let mut bench = Self {
            worker: SentinelWorker::new(setup, 7, now),
            now,
            connects: VecDeque::new(),
            writes: Vec::new(),
            files: VecDeque::new(),
            reads: Vec::new(),
            events: Vec::new(),
            closed: Vec::new(),
            sources: Vec::new(),
            queries: VecDeque::new(),
            news: Vec::new(),
        };
        bench.take();
        bench
    }

    pub(crate) fn take(&mut self) {
        while let Some(output) = self.worker.poll_output() {
            match output {
                Output::Connect { conn, endpoint: Endpoint::Tcp(at), source, .. } => {
                    self.sources.push(source);
                    self.connects.push_back((conn, at));
                }
                Output::Transmit { conn, buffer } => {
                    let text = String::from_utf8_lossy(&buffer).into_owned();
                    self.writes.push((conn, text));
                    self.worker.handle(self.now, Input::Sent { conn, buffer });
                }
                Output::Close { conn, .. } => {
                    self.closed.push(conn);
                    let reason = CloseReason::Requested;
                    self.worker.handle(self.now, Input::Closed { conn, reason });
                }
                Output::Errand(Errand::Persist { ticket, change }) => {
                    let Change::Replace { bytes, .. } = change else { panic!("{change:?}") };
                    self.files.push_back((ticket, String::from_utf8(bytes).unwrap()));
                }
                Output::Errand(Errand::Read { ticket, path }) => self.reads.push((ticket, path)),
                Output::Resolve { query, host, .. } => self.queries.push_back((query, host)),
                Output::Event(Event::Sentinel { name, message, .. }) => {
                    self.events.push((name.to_owned(), message));
                }
                Output::Notice { to: Recipient::Data, notice: Notice::Shard(news) } => {
                    self.news.push(news);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn input(&mut self, input: Input<'_>) {
        self.worker.handle(self.now, input);
        self.take();
    }

    pub(crate) fn worker_deadline(&self) -> Option<Instant> {
        self.worker.poll_timeout().map(|deadline| deadline.at)
    }

    /// Lets time pass, timer by timer.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(deadline) = self.worker.poll_timeout().filter(|d| d.at <= until) {
            self.now = self.now.max(deadline.at);
            self.worker.handle_timeout(self.now);
            self.take();
        }
        self.now = until;
        self.worker.handle_timeout(self.now);
        self.take();
    }

    /// Lets all connections come about that are asked for; returns them.
    pub(crate) fn connect(&mut self) -> Vec<(ConnId, SocketAddr)> {
        let mut made = Vec::new();
        while let Some((conn, at)) = self.connects.pop_front() {
            let local = Some("127.0.0.1:50000".parse().unwrap());
            self.input(Input::Connected { conn, local });
            made.push((conn, at));
        }
        made
    }

    pub(crate) fn save(&mut self, is_durable: bool) {
        while let Some((ticket, _)) = self.files.pop_front() {
            let message = "disk full".to_owned();
            let result = if is_durable { Ok(()) } else { Err(PersistError { message }) };
            self.input(Input::Persisted { ticket, result });
        }
    }

    pub(crate) fn client(&mut self) -> ConnId {
        let peer = Endpoint::Tcp("127.0.0.1:40000".parse().unwrap());
        self.worker.accept(self.now, ListenerId(0), peer).unwrap()
    }

    /// Sends an inline request; returns what the client got meanwhile.
    pub(crate) fn ask(&mut self, conn: ConnId, line: &str) -> String {
        self.writes.clear();
        let bytes = format!("{line}\r\n");
        self.input(Input::Received { conn, bytes: bytes.as_bytes() });
        self.got(conn)
    }

    pub(crate) fn got(&self, conn: ConnId) -> String {
        let texts = self.writes.iter().filter(|(to, _)| *to == conn).map(|(_, text)| text.as_str());
        texts.collect()
    }

    pub(crate) fn heard(&self, name: &str) -> usize {
        self.events.iter().filter(|(heard, _)| heard == name).count()
    }
}

#[test]
fn servers_are_greeted_as_by_a_genuine_sentinel() {
    let mut bench = Bench::new("");
    let made = bench.connect();
    let [commands, channel] = &made[..] else { panic!("{made:?}") };
    let name = |kind| format!("$23\r\nsentinel-11111111-{kind}").replace("$23", "$21");
    let ping = format!("{}\r\n*1\r\n$4\r\nPING\r\n", name("cmd"));
    let greeting = bench.got(commands.0);
    let expected = format!("*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n{ping}");
    assert!(greeting.starts_with(&expected), "{greeting}");
    assert!(greeting.contains("*1\r\n$4\r\nINFO\r\n"), "{greeting}");
    assert!(greeting.contains(&format!("127.0.0.1,26379,{ME},0,m,127.0.0.1,7000,0")), "{greeting}");
    let subscribe = bench.got(channel.0);
    let expected = "*2\r\n$9\r\nSUBSCRIBE\r\n$18\r\n__sentinel__:hello\r\n";
    assert!(subscribe.ends_with(expected), "{subscribe}");
}

#[test]
fn connections_come_from_where_the_file_says() {
    let mut bench = Bench::new("bind-source-addr 127.0.0.9\n");
    let sources: Vec<_> = bench.sources.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(sources, ["127.0.0.9"; 1]);
    bench.connect();
    assert_eq!(bench.sources.len(), 2, "also for what is subscribed to");
    assert!(bench.sources.iter().all(Option::is_some));
    let plain = Bench::new("");
    assert_eq!(plain.sources, [None]);
}

#[test]
fn users_of_a_file_are_read_and_written_when_clients_say_so() {
    let text = format!("sentinel myid {ME}\nsentinel monitor m 127.0.0.1 7000 2\naclfile u.acl\n");
    let setup = Setup::from_text("s.conf".into(), &text).unwrap();
    let wrong = setup.clone().with_users("user bob on +nosuch\n".to_owned()).unwrap_err();
    assert!(wrong.starts_with("u.acl:1: Error in applying"), "{wrong}");
    let users = "user bob on nopass +ping\n".to_owned();
    let mut bench = Bench::with(setup.with_users(users).unwrap());
    bench.save(true);
    let (bob, client) = (bench.client(), bench.client());
    assert_eq!(bench.ask(bob, "AUTH bob x"), "+OK\r\n");
    assert_eq!(bench.ask(client, "ACL SETUSER eve off"), "+OK\r\n");
    assert!(bench.files.iter().all(|(_, text)| !text.contains("\nuser ")), "{:?}", bench.files);
    bench.save(true);
    assert_eq!(bench.ask(client, "ACL SAVE"), "");
    let (ticket, text) = bench.files.pop_front().unwrap();
    let saved = "user bob on nopass resetchannels -@all +ping\nuser default on nopass ~* &* \
                 +@all\nuser eve off resetchannels -@all\n";
    assert_eq!(text, saved);
    let result = Err(PersistError { message: "disk full".to_owned() });
    bench.writes.clear();
    bench.input(Input::Persisted { ticket, result });
    assert!(bench.got(client).starts_with("-ERR There was an error trying to save"));
    let mut load = |result: Result<Vec<u8>, String>| {
        assert_eq!(bench.ask(client, "ACL LOAD"), "");
        let (ticket, path) = bench.reads.pop().unwrap();
        assert_eq!(path, PathBuf::from("u.acl"));
        bench.input(Input::FileRead { ticket, result });
        (bench.got(client), bench.closed.contains(&bob), bench.ask(client, "ACL USERS"))
    };
    let (told, is_cut, users) = load(Err("No such file".to_owned()));
    assert_eq!(told, "-ERR Error loading ACLs, opening file 'u.acl': No such file\r\n");
    assert!(!is_cut && users.contains("eve"));
    let (told, is_cut, users) = load(Ok(b"user al off\n".to_vec()));
    assert_eq!((told.as_str(), is_cut), ("+OK\r\n", true));
    assert_eq!(users, "*2\r\n$2\r\nal\r\n$7\r\ndefault\r\n");
}

#[test]
fn servers_are_asked_by_the_names_that_commands_have_there() {
    let mut bench = Bench::new(
        "sentinel rename-command m PING knock\nsentinel rename-command m info tell\nsentinel \
         rename-command m CLIENT guest\nsentinel rename-command m SUBSCRIBE hark\nsentinel \
         rename-command m PUBLISH shout\nsentinel rename-command m AUTH badge\nsentinel auth-pass m \
         secret\n",
    );
    let made = bench.connect();
    let text: String = made.iter().map(|(conn, _)| bench.got(*conn)).collect();
    for name in ["knock", "tell", "guest", "hark", "shout", "badge"] {
        assert!(text.contains(&format!("\r\n{name}\r\n")), "{name} in {text}");
    }
    for name in ["PING", "INFO", "CLIENT", "SUBSCRIBE", "PUBLISH", "AUTH"] {
        assert!(!text.contains(&format!("\r\n{name}\r\n")), "{name} in {text}");
    }
}

#[test]
fn a_resolver_that_does_not_answer_holds_nobody_up() {
    let mut bench = Bench::new(
        "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\nsentinel monitor n \
         db.example 7002 1\nsentinel down-after-milliseconds n 1000\n",
    );
    bench.save(true);
    let (query, host) = bench.queries.pop_front().unwrap();
    assert_eq!(host, "db.example");
    let (commands, at) = bench.connect()[0];
    assert_eq!(at.port(), 7000);
    // The other master is looked after as ever, and the name is not asked for again meanwhile.
    bench.input(Input::Received { conn: commands, bytes: b"+OK\r\n+PONG\r\n" });
    for _ in 0..20 {
        bench.writes.clear();
        bench.pass(Duration::from_millis(300));
        assert!(bench.got(commands).contains("PING"));
        bench.input(Input::Received { conn: commands, bytes: b"+PONG\r\n" });
    }
    assert!(bench.queries.is_empty());
    // Who cannot be found is down.
    let down = bench.events.iter().filter(|(name, _)| name == "+sdown");
    assert!(down.clone().all(|(_, text)| text.starts_with("master n ")), "{:?}", bench.events);
    assert_eq!(down.count(), 1);
    let client = bench.client();
    let told = bench.ask(client, "SENTINEL get-master-addr-by-name n");
    assert!(told.contains("\r\ndb.example\r\n"), "{told}");
    bench.input(Input::Resolved { query, result: Ok(vec!["127.0.0.9:7002".parse().unwrap()]) });
    bench.pass(Duration::from_secs(1));
    let made = bench.connect();
    assert!(made.iter().any(|(_, at)| at.to_string() == "127.0.0.9:7002"), "{made:?}");
}

#[test]
fn a_vote_leaves_only_when_it_is_on_disk() {
    let mut bench = Bench::new("");
    bench.save(true);
    bench.pass(Duration::from_secs(2));
    let client = bench.client();
    let ask = format!("SENTINEL is-master-down-by-addr 127.0.0.1 7000 5 {PEER}");
    assert_eq!(bench.ask(client, &ask), "");
    // What is asked behind it waits as well.
    assert_eq!(bench.ask(client, "PING"), "");
    let (_, file) = bench.files.front().unwrap();
    assert!(file.contains("sentinel leader-epoch m 5\n"), "{file}");
    bench.writes.clear();
    bench.save(true);
    assert_eq!(bench.got(client), format!("*3\r\n:1\r\n$40\r\n{PEER}\r\n:5\r\n+PONG\r\n"));
}

#[test]
fn whose_state_cannot_be_written_neither_votes_nor_says_so() {
    let mut bench = Bench::new("");
    bench.save(true);
    let client = bench.client();
    let ask = format!("SENTINEL is-master-down-by-addr 127.0.0.1 7000 5 {PEER}");
    assert_eq!(bench.ask(client, &ask), "");
    bench.writes.clear();
    bench.save(false);
    assert_eq!(bench.got(client), "*3\r\n:0\r\n$1\r\n*\r\n:0\r\n");
    let set = bench.ask(client, "SENTINEL SET m quorum 1");
    assert_eq!(set, "");
    bench.writes.clear();
    bench.save(false);
    let refused = "-ERR Failed to save config file. Check server logs.\r\n";
    assert_eq!(bench.got(client), refused);
}

#[test]
fn who_heard_from_the_master_a_moment_ago_votes_for_nobody() {
    let mut bench = Bench::new("");
    bench.save(true);
    let (commands, _) = bench.connect()[0];
    bench.input(Input::Received { conn: commands, bytes: b"+OK\r\n+PONG\r\n" });
    let client = bench.client();
    let ask = format!("SENTINEL is-master-down-by-addr 127.0.0.1 7000 5 {PEER}");
    bench.ask(client, &ask);
    bench.save(true);
    assert_eq!(bench.got(client), "*3\r\n:0\r\n$1\r\n*\r\n:0\r\n");
    assert_eq!(bench.heard("+vote-for-leader"), 0);
    assert_eq!(bench.heard("+new-epoch"), 1);
}

#[test]
fn a_silent_master_goes_down_after_down_after_and_not_before() {
    let mut bench = Bench::new("");
    bench.save(true);
    bench.pass(Duration::from_millis(999));
    assert_eq!(bench.heard("+sdown"), 0);
    bench.pass(Duration::from_millis(10));
    assert_eq!(bench.heard("+sdown"), 1);
    // A quorum of two is not reached alone.
    bench.pass(Duration::from_secs(20));
    assert_eq!(bench.heard("+odown"), 0);
}

#[test]
fn a_stopped_process_decides_nothing_for_a_while() {
    let mut bench = Bench::new("");
    bench.save(true);
    let (commands, _) = bench.connect()[0];
    bench.input(Input::Received { conn: commands, bytes: b"+OK\r\n+PONG\r\n" });
    bench.now += Duration::from_secs(5);
    let client = bench.client();
    let text = bench.ask(client, "INFO sentinel");
    assert!(text.contains("sentinel_tilt:1"), "{text}");
    assert_eq!(bench.heard("+tilt"), 1);
    bench.pass(Duration::from_millis(2_900));
    assert_eq!(bench.heard("+sdown"), 0);
    bench.pass(Duration::from_secs(1));
    assert_eq!((bench.heard("-tilt"), bench.heard("+sdown")), (1, 1));
}

/// What clients, servers and peers may send, near what makes sense.
fn speech() -> impl Strategy<Value = Vec<u8>> {
    let commands = prop::sample::select(vec![
        "SENTINEL MASTERS\r\n".to_owned(),
        "SENTINEL RESET *\r\n".to_owned(),
        "SENTINEL FAILOVER m\r\n".to_owned(),
        "SENTINEL REMOVE m\r\n".to_owned(),
        "SENTINEL MONITOR m 127.0.0.1 7000 1\r\n".to_owned(),
        "SENTINEL SET m down-after-milliseconds 1\r\n".to_owned(),
        "SENTINEL DEBUG tilt-trigger 1\r\n".to_owned(),
        format!("SENTINEL is-master-down-by-addr 127.0.0.1 7000 9 {PEER}\r\n"),
        format!("PUBLISH __sentinel__:hello 127.0.0.1,1,{PEER},3,m,127.0.0.1,7001,3\r\n"),
        format!("PUBLISH __sentinel__:hello 127.0.0.1,1,{ME},3,m,127.0.0.1,7001,3\r\n"),
        "PSUBSCRIBE *\r\n".to_owned(),
        "HELLO 3\r\n".to_owned(),
        "+PONG\r\n".to_owned(),
        "-BUSY x\r\n".to_owned(),
        "-LOADING x\r\n".to_owned(),
        "$12\r\nrole:slave\r\n\r\n".to_owned(),
        "$67\r\nrole:master\r\nslave0:ip=127.0.0.1,port=7001,state=online\r\nrun_id:x\r\n\r\n"
            .to_owned(),
        format!("*3\r\n:1\r\n$40\r\n{PEER}\r\n:1\r\n"),
        format!("$40\r\n{PEER}\r\n"),
        ":1\r\n".to_owned(),
    ]);
    prop_oneof![
        8 => commands.prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 1..40),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_that_comes_in_ends_the_machine(
        script in prop::collection::vec((0..6_u8, speech(), 0..3000_u64), 1..60),
    ) {
        let peer = format!("sentinel known-sentinel m 127.0.0.1 26380 {PEER}\n");
        let mut bench = Bench::new(&(peer + "sentinel known-replica m 127.0.0.1 7001\n"));
        let mut open = Vec::new();
        let mut client = bench.client();
        for (what, bytes, ms) in script {
            open.extend(bench.connect().into_iter().map(|(conn, _)| conn));
            match what {
                0 | 1 => {
                    if bench.closed.contains(&client) {
                        client = bench.client();
                    }
                    bench.input(Input::Received { conn: client, bytes: &bytes });
                }
                2 | 3 => {
                    let at = usize::try_from(ms).unwrap() % open.len().max(1);
                    if let Some(conn) = open.get(at).copied() {
                        bench.input(Input::Received { conn, bytes: &bytes });
                    }
                }
                4 => bench.save(ms % 3 > 0),
                _ => {
                    let at = usize::try_from(ms).unwrap() % open.len().max(1);
                    if at < open.len() {
                        let conn = open.swap_remove(at);
                        if !bench.closed.contains(&conn) {
                            bench.input(Input::Closed { conn, reason: CloseReason::Reset });
                        }
                    }
                }
            }
            bench.pass(Duration::from_millis(ms % 700));
        }
    }
}
