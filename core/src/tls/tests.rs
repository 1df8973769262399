#![expect(clippy::wildcard_enum_match_arm, reason = "a test names what it expects")]

use std::net::Ipv4Addr;

use rustls::crypto::ring;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use super::*;
use crate::buf::Buffer;

const CA: &[u8] = include_bytes!("testdata/ca.pem");
const OTHER_CA: &[u8] = include_bytes!("testdata/other-ca.pem");
const HOST: &[u8] = include_bytes!("testdata/host.pem");
const HOST_KEY: &[u8] = include_bytes!("testdata/host.key");
const ALONE: &[u8] = include_bytes!("testdata/alone.pem");
const ALONE_KEY: &[u8] = include_bytes!("testdata/alone.key");

/// Seconds since 1970 at a moment in 2030, when all of them are valid.
const IN_2030: u64 = 1_893_456_000;

#[derive(Debug)]
struct Stopped(u64);

impl TimeProvider for Stopped {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

fn ground(seconds: u64) -> Ground {
    Ground {
        provider: Arc::new(ring::default_provider()),
        clock: Arc::new(Stopped(seconds)),
        versions: Versions::default(),
    }
}

fn trusting(ca: &[u8]) -> Trust {
    let mut trust = Trust::default();
    assert_eq!(trust.add_pem(ca), Ok(1));
    trust
}

fn host() -> Identity {
    Identity::from_pem(HOST, HOST_KEY).unwrap()
}

/// A worker that sends what it is given as soon as it may, and keeps what comes.
#[derive(Debug, Default)]
struct Talker {
    text: Vec<u8>,
    closes: Option<CloseMode>,
    asks: bool,
    conns: u32,
    heard: BTreeMap<ConnId, Vec<u8>>,
    news: Vec<String>,
    out: VecDeque<Output>,
}

impl Talker {
    fn speak(&mut self, conn: ConnId) {
        if !self.text.is_empty() {
            self.out.push_back(Output::Transmit { conn, buffer: self.text.clone() });
        }
    }
}

impl Drive for Talker {
    fn accept(&mut self, _: Instant, _: ListenerId, _: Endpoint) -> Result<ConnId, AtCapacity> {
        self.conns += 1;
        let conn = ConnId::client(self.conns, 0);
        self.speak(conn);
        Ok(conn)
    }

    fn handle(&mut self, _: Instant, input: Input<'_>) {
        match input {
            Input::Connected { conn, .. } => {
                self.news.push("connected".to_owned());
                self.speak(conn);
            }
            Input::Received { conn, bytes } => {
                assert!(!bytes.is_empty());
                self.heard.entry(conn).or_default().extend_from_slice(bytes);
            }
            Input::Eof { .. } => self.news.push("end".to_owned()),
            Input::Sent { conn, buffer } => {
                assert_eq!(buffer, self.text, "the buffer comes home");
                self.news.push("sent".to_owned());
                if let Some(mode) = self.closes {
                    self.out.push_back(Output::Close { conn, mode });
                }
            }
            Input::Closed { reason, .. } => self.news.push(format!("closed {reason:?}")),
            other => panic!("{other:?}"),
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_output(&mut self) -> Option<Output> {
        if std::mem::take(&mut self.asks) {
            let endpoint = Endpoint::Tcp((Ipv4Addr::LOCALHOST, 6379).into());
            let timeout = Duration::from_secs(5);
            let conn = ConnId::server(0, 0);
            return Some(Output::Connect { conn, endpoint, timeout, source: None });
        }
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        None
    }
}

/// One end of a connection as a runtime sees it.
#[derive(Debug, Default)]
struct End {
    in_flight: Option<Buffer>,
    is_closing: bool,
    is_gone: bool,
}

/// A client and a server, and a wire between them that holds both to the border's contract.
struct Wire {
    sides: [Tls<Talker>; 2],
    ends: [End; 2],
    conns: [ConnId; 2],
    told: Vec<String>,
    /// Bytes that are delivered at once.
    piece: usize,
    now: Instant,
}

impl Wire {
    fn new(client: Option<Plan>, server: Plan, texts: [&[u8]; 2]) -> Self {
        let now = Instant::START;
        let talker = |text: &[u8], asks| Talker { text: text.to_vec(), asks, ..Talker::default() };
        let client = Tls::new(talker(texts[0], true), client.unwrap_or_default(), now);
        let server = Tls::new(talker(texts[1], false), server, now);
        Self {
            sides: [client, server],
            ends: [End::default(), End::default()],
            conns: [ConnId::server(0, 0), ConnId::client(1, 0)],
            told: Vec::new(),
            piece: usize::MAX,
            now,
        }
    }

    /// Takes what one side wants done. Returns whether it wanted anything.
    fn take_outputs(&mut self, side: usize) -> bool {
        let mut has_any = false;
        while let Some(output) = self.sides[side].poll_output() {
            has_any = true;
            let end = &mut self.ends[side];
            match output {
                Output::Connect { .. } => {
                    let (now, conn) = (self.now, self.conns[0]);
                    let from = Endpoint::Tcp((Ipv4Addr::LOCALHOST, 5555).into());
                    let accepted = self.sides[1].accept(now, ListenerId(1), from).unwrap();
                    assert_eq!(accepted, self.conns[1]);
                    self.sides[0].handle(now, Input::Connected { conn, local: None });
                }
                Output::Transmit { conn, buffer } => {
                    assert_eq!(conn, self.conns[side]);
                    assert!(!buffer.is_empty() && end.in_flight.is_none() && !end.is_closing);
                    end.in_flight = Some(buffer);
                }
                Output::Close { conn, mode } => {
                    assert_eq!(conn, self.conns[side]);
                    assert!(!end.is_closing || mode == CloseMode::Abort);
                    end.is_closing = true;
                    if mode == CloseMode::Abort {
                        end.in_flight = None;
                    }
                }
                Output::Event(Event::TlsFailed { is_server, reason, .. }) => {
                    self.told.push(format!("{}: {reason}", if is_server { "to" } else { "from" }));
                }
                other => panic!("{other:?}"),
            }
        }
        has_any
    }

    /// Delivers what one side has written. Returns whether there was anything.
    fn deliver(&mut self, side: usize) -> bool {
        let (now, conn, other) = (self.now, self.conns[side], 1 - side);
        if let Some(buffer) = self.ends[side].in_flight.take() {
            for piece in buffer.chunks(self.piece) {
                if !self.ends[other].is_gone {
                    let conn = self.conns[other];
                    self.sides[other].handle(now, Input::Received { conn, bytes: piece });
                }
            }
            self.sides[side].handle(now, Input::Sent { conn, buffer });
            return true;
        }
        if self.ends[side].is_closing && !self.ends[side].is_gone {
            self.ends[side].is_gone = true;
            let reason = CloseReason::Requested;
            self.sides[side].handle(now, Input::Closed { conn, reason });
            if !self.ends[other].is_gone {
                self.sides[other].handle(now, Input::Eof { conn: self.conns[other] });
            }
            return true;
        }
        false
    }

    fn run(&mut self) {
        for _ in 0..100_000 {
            let mut is_busy = false;
            for side in 0..2 {
                if self.sides[side].poll_timeout().is_some_and(|due| due.at <= self.now) {
                    self.sides[side].handle_timeout(self.now);
                    is_busy = true;
                }
                is_busy |= self.take_outputs(side);
                is_busy |= self.deliver(side);
            }
            if !is_busy {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn news(&self, side: usize) -> Vec<&str> {
        self.sides[side].inner().news.iter().map(String::as_str).collect()
    }

    fn heard(&self, side: usize) -> &[u8] {
        self.sides[side].inner().heard.get(&self.conns[side]).map_or(&[], Vec::as_slice)
    }
}

fn server_plan(trust: &[u8], auth: ClientAuth) -> Plan {
    let config = server(&ground(IN_2030), &host(), &trusting(trust), auth).unwrap();
    Plan { clients: Some((BTreeSet::from([ListenerId(1)]), config)), servers: None }
}

fn client_plan(trust: &[u8], identity: Option<&Identity>, seconds: u64) -> Option<Plan> {
    let config = client(&ground(seconds), identity, &trusting(trust)).unwrap();
    Some(Plan { clients: None, servers: Some(config) })
}

fn good(texts: [&[u8]; 2]) -> Wire {
    Wire::new(client_plan(CA, Some(&host()), IN_2030), server_plan(CA, ClientAuth::Required), texts)
}

#[test]
fn bytes_arrive_whole_and_in_order_however_they_are_cut() {
    let long: Vec<u8> = (0..700_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    for piece in [1, 7, 1000, 65_536] {
        let (small, large) = (&b"PING\r\n"[..], &long[..if piece == 1 { 5_000 } else { 700_000 }]);
        let mut wire = good([small, large]);
        wire.piece = piece;
        wire.run();
        assert_eq!(wire.heard(0), large, "{piece}");
        assert_eq!(wire.heard(1), small);
        assert_eq!(wire.news(0), ["connected", "sent"]);
        assert_eq!(wire.news(1), ["sent"]);
        assert_eq!(wire.told, [""; 0]);
    }
}

#[test]
fn both_versions_are_spoken_and_one_that_is_off_is_not() {
    let tls_1_2 = Versions { has_1_2: true, has_1_3: false };
    let ground = Ground { versions: tls_1_2, ..ground(IN_2030) };
    let config = server(&ground, &host(), &trusting(CA), ClientAuth::Required).unwrap();
    let plan = |config| Plan { clients: Some(([ListenerId(1)].into(), config)), servers: None };
    let both = client_plan(CA, Some(&host()), IN_2030);
    let mut wire = Wire::new(both, plan(config.clone()), [b"a", b"b"]);
    wire.run();
    assert_eq!((wire.heard(0), wire.heard(1)), (&b"b"[..], &b"a"[..]));
    let tls_1_3 = Ground { versions: Versions { has_1_2: false, has_1_3: true }, ..ground };
    let newer = client(&tls_1_3, Some(&host()), &trusting(CA)).unwrap();
    let newer = Plan { clients: None, servers: Some(newer) };
    let mut wire = Wire::new(Some(newer), plan(config), [b"a", b"b"]);
    wire.run();
    assert!(wire.told.iter().any(|told| told.contains("no version of TLS that both speak")));
    let none = Versions { has_1_2: false, has_1_3: false };
    let none = Ground { versions: none, ..self::ground(IN_2030) };
    assert!(client(&none, None, &trusting(CA)).is_err());
}

#[test]
fn whoever_is_signed_by_somebody_else_is_refused_and_the_log_says_why() {
    let mut wire = Wire::new(
        client_plan(OTHER_CA, Some(&host()), IN_2030),
        server_plan(CA, ClientAuth::Required),
        [b"secret", b""],
    );
    wire.run();
    assert!(
        wire.told[0].starts_with("to: its certificate is signed by no CA of"),
        "{:?}",
        wire.told
    );
    assert!(wire.told[1].starts_with("from: it does not trust the CA of our"), "{:?}", wire.told);
    assert_eq!(wire.heard(1), b"");
    assert_eq!(wire.news(0), ["closed Other(71)"]);
    assert_eq!(wire.news(1), ["closed Other(71)"]);
}

#[test]
fn clients_need_a_certificate_where_the_plan_says_so() {
    for (auth, is_let_in) in
        [(ClientAuth::Required, false), (ClientAuth::Optional, true), (ClientAuth::Off, true)]
    {
        let client = client_plan(CA, None, IN_2030);
        let mut wire = Wire::new(client, server_plan(CA, auth), [b"a", b"b"]);
        wire.run();
        assert_eq!(wire.heard(1) == b"a", is_let_in, "{auth:?}");
        let told = wire.told.join("\n");
        assert_eq!(told.contains("it has no certificate, and tls-auth-clients"), !is_let_in);
    }
    // One of a stranger is worse than none.
    let client = client_plan(CA, Some(&host()), IN_2030);
    let mut wire = Wire::new(client, server_plan(OTHER_CA, ClientAuth::Optional), [b"a", b"b"]);
    wire.run();
    assert_eq!(wire.heard(1), b"");
}

#[test]
fn the_dates_of_certificates_count_by_the_hosts_clock() {
    for (seconds, words) in [(IN_2030 * 4, "has expired"), (1, "is not valid yet")] {
        let client = client_plan(CA, Some(&host()), seconds);
        let mut wire = Wire::new(client, server_plan(CA, ClientAuth::Required), [b"a", b"b"]);
        wire.run();
        assert!(wire.told[0].contains(words), "{:?}", wire.told);
    }
}

#[test]
fn a_certificate_that_signed_itself_is_trusted_where_it_is_named_and_nowhere_else() {
    let alone = Identity::from_pem(ALONE, ALONE_KEY).unwrap();
    for (trusted, is_good) in [(ALONE, true), (CA, false)] {
        let config = server(&ground(IN_2030), &alone, &trusting(trusted), ClientAuth::Required);
        let plan = Plan { clients: Some(([ListenerId(1)].into(), config.unwrap())), servers: None };
        let client = client_plan(trusted, Some(&alone), IN_2030);
        let mut wire = Wire::new(client, plan, [b"a", b"b"]);
        wire.run();
        assert_eq!(wire.heard(1) == b"a", is_good, "{:?}", wire.told);
    }
    let client = client_plan(ALONE, Some(&alone), IN_2030 * 4);
    let config = server(&ground(IN_2030), &alone, &trusting(ALONE), ClientAuth::Off).unwrap();
    let plan = Plan { clients: Some(([ListenerId(1)].into(), config)), servers: None };
    let mut wire = Wire::new(client, plan, [b"a", b"b"]);
    wire.run();
    assert!(wire.told[0].contains("has expired"), "{:?}", wire.told);
}

#[test]
fn a_connection_ends_with_a_goodbye() {
    let mut wire = good([b"last words", b""]);
    wire.sides[0].inner.closes = Some(CloseMode::Flush);
    wire.run();
    assert_eq!(wire.heard(1), b"last words");
    // Once by the goodbye; that the stream ended behind it is no news.
    assert_eq!(wire.news(1), ["end"]);
    assert_eq!(wire.news(0), ["connected", "sent", "closed Requested"]);
    let mut wire = good([b"last words", b""]);
    wire.sides[0].inner.closes = Some(CloseMode::Abort);
    wire.run();
    assert_eq!(wire.news(0), ["connected", "sent", "closed Requested"]);
    assert_eq!(wire.told, [""; 0]);
}

#[test]
fn who_does_not_speak_tls_is_told_of_once() {
    let mut wire = Wire::new(None, server_plan(CA, ClientAuth::Off), [b"PING\r\n", b""]);
    wire.run();
    assert_eq!(wire.told.len(), 1);
    assert!(wire.told[0].starts_with("from: what it sends is not TLS"), "{:?}", wire.told);
    assert_eq!(wire.news(1), ["closed Other(71)"]);
    // From the same host for the same reason.
    let server = &mut wire.sides[1];
    let from = Endpoint::Tcp((Ipv4Addr::LOCALHOST, 5556).into());
    let conn = server.accept(Instant::START, ListenerId(1), from).unwrap();
    server.handle(Instant::START, Input::Received { conn, bytes: b"PING\r\n" });
    let outputs: Vec<Output> = std::iter::from_fn(|| server.poll_output()).collect();
    assert!(!outputs.iter().any(|output| matches!(output, Output::Event(_))), "{outputs:?}");
    assert!(matches!(outputs.last(), Some(Output::Close { .. })), "{outputs:?}");
}

#[test]
fn other_listeners_are_not_encrypted() {
    let server = server_plan(CA, ClientAuth::Off);
    let mut side = Tls::new(Talker::default(), server, Instant::START);
    let from = Endpoint::Tcp((Ipv4Addr::LOCALHOST, 5556).into());
    let conn = side.accept(Instant::START, ListenerId(0), from).unwrap();
    side.handle(Instant::START, Input::Received { conn, bytes: b"PING\r\n" });
    assert_eq!(side.inner().heard[&conn], b"PING\r\n");
}

/// The first flight of a client.
fn hello() -> Vec<u8> {
    let plan = client_plan(CA, None, IN_2030);
    let mut side =
        Tls::new(Talker { asks: true, ..Talker::default() }, plan.unwrap(), Instant::START);
    let Some(Output::Connect { conn, .. }) = side.poll_output() else { panic!() };
    side.handle(Instant::START, Input::Connected { conn, local: None });
    let Some(Output::Transmit { buffer, .. }) = side.poll_output() else { panic!() };
    buffer
}

#[test]
fn only_so_many_hands_are_shaken_in_one_turn() {
    let mut side = Tls::new(Talker::default(), server_plan(CA, ClientAuth::Off), Instant::START);
    let (now, hello) = (Instant::START, hello());
    let most = limits::TLS_HANDSHAKES_PER_TURN;
    let from = || Endpoint::Tcp((Ipv4Addr::LOCALHOST, 5556).into());
    let count = most * 2 + 1;
    for _ in 0..count {
        let conn = side.accept(now, ListenerId(1), from()).unwrap();
        // In two pieces: what waits is put together.
        let (one, two) = hello.split_at(10);
        side.handle(now, Input::Received { conn, bytes: one });
        side.handle(now, Input::Received { conn, bytes: two });
    }
    let mut answered = Vec::new();
    for _ in 0..10 {
        if side.poll_timeout().is_some_and(|due| due.at <= now) {
            side.handle_timeout(now);
        }
        let outputs = std::iter::from_fn(|| side.poll_output());
        answered.push(outputs.filter(|o| matches!(o, Output::Transmit { .. })).count());
    }
    assert!(answered.iter().all(|count| *count <= most), "{answered:?}");
    assert_eq!(answered.iter().sum::<usize>(), count);
    // Whoever sends on and on without shaking hands is sent away.
    let (one, conn) = (vec![22; limits::TLS_WAITING_BYTES_MAX], side.conns_of_a_crowd(now, &hello));
    side.handle(now, Input::Received { conn, bytes: &one });
    side.handle(now, Input::Received { conn, bytes: &one });
    let outputs: Vec<Output> = std::iter::from_fn(|| side.poll_output()).collect();
    let is_close = |o: &Output| matches!(o, Output::Close { conn: closed, .. } if *closed == conn);
    assert!(outputs.iter().any(is_close));
}

impl Tls<Talker> {
    /// Fills a turn with handshakes; returns another client.
    fn conns_of_a_crowd(&mut self, now: Instant, hello: &[u8]) -> ConnId {
        let from = || Endpoint::Tcp((Ipv4Addr::LOCALHOST, 5556).into());
        for _ in 0..limits::TLS_HANDSHAKES_PER_TURN {
            let conn = self.accept(now, ListenerId(1), from()).unwrap();
            self.handle(now, Input::Received { conn, bytes: hello });
        }
        self.accept(now, ListenerId(1), from()).unwrap()
    }
}

#[test]
fn a_handshake_has_its_time() {
    let mut side = Tls::new(Talker::default(), server_plan(CA, ClientAuth::Off), Instant::START);
    let from = Endpoint::Tcp((Ipv4Addr::LOCALHOST, 5556).into());
    let conn = side.accept(Instant::START, ListenerId(1), from).unwrap();
    assert!(side.poll_output().is_none());
    let due = side.poll_timeout().unwrap().at;
    assert_eq!(due, Instant::START + limits::TLS_HANDSHAKE_LIMIT);
    side.handle_timeout(due);
    assert!(matches!(side.poll_output(), Some(Output::Event(Event::TlsFailed { .. }))));
    assert!(matches!(side.poll_output(), Some(Output::Close { .. })));
    assert!(side.poll_output().is_none());
    side.handle(due, Input::Closed { conn, reason: CloseReason::Requested });
    assert_eq!(side.inner().news, ["closed ConnectTimedOut"]);
}

#[test]
fn bad_material_is_called_by_its_name() {
    assert_eq!(
        Identity::from_pem(HOST_KEY, HOST_KEY).unwrap_err(),
        BadMaterial::Certificate("nothing of the kind stands in it".to_owned())
    );
    assert!(matches!(Identity::from_pem(HOST, HOST).unwrap_err(), BadMaterial::Key(_)));
    let encrypted =
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert_eq!(Identity::from_pem(HOST, encrypted).unwrap_err(), BadMaterial::EncryptedKey);
    let mixed = Identity::from_pem(HOST, ALONE_KEY).unwrap();
    let refused = server(&ground(IN_2030), &mixed, &trusting(CA), ClientAuth::Off);
    assert!(matches!(refused.unwrap_err(), BadMaterial::Together(_)));
    let nobody = Trust::default();
    assert_eq!(client(&ground(IN_2030), None, &nobody).unwrap_err(), BadMaterial::NobodyTrusted);
    let refused = server(&ground(IN_2030), &host(), &nobody, ClientAuth::Required);
    assert_eq!(refused.unwrap_err(), BadMaterial::NobodyTrusted);
    assert!(Trust::default().add_pem(b"-----BEGIN CERTIFICATE-----\n!\n").is_err());
}
