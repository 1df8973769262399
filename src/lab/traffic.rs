//! Clients at work, and the memory of everything that they were promised.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringkeeper_core::rng::Rng;

use super::resp::{Client, Reply};

/// Clients, half of them for each shard.
pub(super) const CLIENTS: usize = 8;

/// From one request of a client to its next.
const PACE: Duration = Duration::from_millis(4);

/// A reply that takes longer during an event was held back.
const HELD_AFTER: Duration = Duration::from_millis(20);

/// How long a client waits for a connection. Whoever does not answer here at once is not there.
const CONNECT_PATIENCE: Duration = Duration::from_millis(50);

/// How long a client waits for a reply.
const REPLY_PATIENCE: Duration = Duration::from_secs(5);

/// How long whoever only looks for the address waits for a connection: less than until it is its turn
/// again.
const LOOK_PATIENCE: Duration = Duration::from_millis(10);

/// How long it then waits for the answer.
const LOOK_REPLY_PATIENCE: Duration = Duration::from_millis(50);

/// Those who look for the address, so that one of them looks while another waits in vain.
const LOOKERS: u32 = 6;

/// From one of them to the next.
const LOOK_STEP: Duration = Duration::from_millis(2);

/// Latencies that are kept of one event.
const LATENCIES_MAX: usize = 200_000;

/// How long reading back may take while servers come and go.
const VERIFY_PATIENCE: Duration = Duration::from_secs(15);

/// Keys that are read back by one command.
const VERIFY_KEYS: usize = 100;

/// Acknowledged writes that one client remembers. Beyond that nothing is written until they have
/// been read back.
const WRITTEN_MAX: usize = 200_000;

/// A wait for a good reply of which is told.
const LONG_WAIT: Duration = Duration::from_secs(2);

/// Lost writes that were acknowledged closer to each other are told of together.
const LOSS_GAP: Duration = Duration::from_millis(100);

/// Waits, and losses, that are remembered until somebody asks for them.
const TOLD_MAX: usize = 100_000;

/// What became of commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Commands sent.
    pub(super) sent: u64,
    /// Those with a good reply.
    pub(super) answered: u64,
    /// Those with an error, or whose connection ended.
    pub(super) failed: u64,
    /// Good replies that took longer than 20 ms during an event.
    pub(super) held: u64,
}

/// What clients saw of one event.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// The moment from which times count: just before it happened.
    mark: Instant,
    /// The moment from which what is sent counts: just after.
    after: Instant,
    /// When what was killed had given everything up; none while it has not.
    gone: Option<Instant>,
    /// Commands that were sent before that and ended after the mark, per shard.
    in_flight: [u64; 2],
    pub(super) counts: Counts,
    /// The longest that a client waited for a good reply, repetitions included.
    pub(super) pause: Duration,
    /// From the mark to the first good reply to a write that was sent after it, per shard.
    pub(super) writes: [Option<Duration>; 2],
    /// From the mark to the first good reply on a new connection.
    pub(super) reached: Option<Duration>,
    /// How long good replies to writes took.
    pub(super) latencies: Vec<Duration>,
}

impl Window {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            mark: now,
            after: now,
            gone: None,
            in_flight: [0; 2],
            counts: Counts::default(),
            pause: Duration::ZERO,
            writes: [None; 2],
            reached: None,
            latencies: Vec::new(),
        }
    }

    /// Returns how many commands to a shard were under way when its master died, if one did.
    pub(super) fn in_flight(&self, shard: usize) -> Option<u64> {
        self.gone.and_then(|_| self.in_flight.get(shard).copied())
    }
}

/// What reading back found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Acknowledged writes that were looked at.
    pub(super) checked: u64,
    /// Those that are not there.
    pub(super) lost: u64,
    /// Those that could not be looked at.
    pub(super) unread: u64,
}

impl Verdict {
    /// Adds what was found another time.
    pub(super) const fn add(&mut self, more: Self) {
        self.checked += more.checked;
        self.lost += more.lost;
        self.unread += more.unread;
    }
}

/// A client that had no good reply for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) client: usize,
    /// When it first wanted the reply.
    pub(super) from: Instant,
    pub(super) lasted: Duration,
    /// Commands and connections that it tried in vain.
    pub(super) attempts: u32,
}

/// Acknowledged writes to one shard that are not there, one soon after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) shard: usize,
    /// When the first of them was acknowledged.
    pub(super) from: Instant,
    /// When the last was.
    pub(super) to: Instant,
    pub(super) count: u64,
}

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Written {
    number: u64,
    at: Instant,
}

#[derive(Debug)]
struct Tally {
    counts: Counts,
    window: Option<Window>,
    waits: Vec<Wait>,
    /// The shards of lost writes, and when these were acknowledged.
    lost: Vec<(usize, Instant)>,
    /// Replies with a value that was never written there.
    wrong: u64,
    errors: BTreeMap<String, u64>,
    /// When each client last had a good reply.
    last_good: Vec<Instant>,
}

#[derive(Debug)]
struct Shared {
    entries: Vec<SocketAddr>,
    /// What makes a key belong to each shard.
    tags: [String; 2],
    is_over: AtomicBool,
    tally: Mutex<Tally>,
    /// The acknowledged writes of each client that nobody has read back yet.
    written: Vec<Mutex<Vec<Written>>>,
}

/// The clients.
pub(super) struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One command that has come to its end.
struct Done {
    client: usize,
    is_write: bool,
    sent_at: Instant,
    /// When the client first wanted a reply that it did not get until now.
    wanted_at: Instant,
    /// What it has tried in vain since.
    attempts: u32,
    result: Result<(), String>,
}

impl Tally {
    fn note(&mut self, done: Done) {
        let now = Instant::now();
        let took = now.saturating_duration_since(done.sent_at);
        let mut counts = Counts { sent: 1, ..Counts::default() };
        match &done.result {
            Ok(()) => {
                counts.answered = 1;
                counts.held = u64::from(self.window.is_some() && took > HELD_AFTER);
                if let Some(last) = self.last_good.get_mut(done.client) {
                    *last = now;
                }
            }
            Err(why) => {
                counts.failed = 1;
                *self.errors.entry(why.clone()).or_default() += 1;
            }
        }
        self.counts.add(counts);
        let waited = now.saturating_duration_since(done.wanted_at);
        if counts.answered > 0 && waited >= LONG_WAIT && self.waits.len() < TOLD_MAX {
            let Done { client, wanted_at: from, attempts, .. } = done;
            self.waits.push(Wait { client, from, lasted: waited, attempts });
        }
        let Some(window) = &mut self.window else { return };
        window.counts.add(counts);
        if let Some(count) = window.in_flight.get_mut(done.client % 2)
            && window.gone.is_none_or(|gone| done.sent_at <= gone)
        {
            *count += 1;
        }
        if counts.answered == 0 {
            return;
        }
        window.pause = window.pause.max(waited);
        if done.is_write && window.latencies.len() < LATENCIES_MAX {
            window.latencies.push(took);
        }
        if done.is_write && done.sent_at >= window.after {
            let since = now.saturating_duration_since(window.mark);
            if let Some(first) = window.writes.get_mut(done.client % 2) {
                first.get_or_insert(since);
            }
        }
    }
}

impl Tally {
    fn lose(&mut self, client: usize, at: Instant) {
        if self.lost.len() < TOLD_MAX {
            self.lost.push((client % 2, at));
        }
    }
}

/// Puts lost writes together that were acknowledged soon after each other.
fn group(mut lost: Vec<(usize, Instant)>) -> Vec<Loss> {
    lost.sort_unstable();
    let mut losses: Vec<Loss> = Vec::new();
    for (shard, at) in lost {
        match losses.last_mut() {
            Some(loss) if loss.shard == shard && at.duration_since(loss.to) <= LOSS_GAP => {
                (loss.to, loss.count) = (at, loss.count + 1);
            }
            Some(_) | None => losses.push(Loss { shard, from: at, to: at, count: 1 }),
        }
    }
    losses
}

impl Counts {
    const fn add(&mut self, more: Self) {
        self.sent += more.sent;
        self.answered += more.answered;
        self.failed += more.failed;
        self.held += more.held;
    }
}

impl Traffic {
    /// Starts the clients. `entries` are where they may go, the best first; a key with the tag of a
    /// shard in braces belongs to that shard.
    ///
    /// # Errors
    ///
    /// The system refuses threads.
    pub(super) fn start(entries: Vec<SocketAddr>, tags: [String; 2]) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            entries,
            tags,
            is_over: AtomicBool::new(false),
            tally: Mutex::new(Tally {
                counts: Counts::default(),
                window: None,
                waits: Vec::new(),
                lost: Vec::new(),
                wrong: 0,
                errors: BTreeMap::new(),
                last_good: vec![Instant::now(); CLIENTS],
            }),
            written: (0..CLIENTS).map(|_| Mutex::default()).collect(),
        });
        let mut traffic = Self { shared, threads: Vec::new() };
        for number in 0..CLIENTS {
            let shared = Arc::clone(&traffic.shared);
            let name = format!("rk-client-{number}");
            let thread = std::thread::Builder::new().name(name);
            traffic.threads.push(thread.spawn(move || Worker::new(&shared, number).run())?);
        }
        for number in 0..LOOKERS {
            let shared = Arc::clone(&traffic.shared);
            let thread = std::thread::Builder::new().name("rk-look".to_owned());
            traffic.threads.push(thread.spawn(move || look(&shared, number))?);
        }
        Ok(traffic)
    }

    /// Begins to count for an event.
    pub(super) fn open_window(&self) {
        let mut tally = lock(&self.shared.tally);
        tally.window = Some(Window::new());
    }

    /// Says that the event has happened: times count from `before`, and what is sent from here on.
    pub(super) fn mark(&self, before: Instant) {
        let mut tally = lock(&self.shared.tally);
        if let Some(window) = &mut tally.window {
            (window.mark, window.after) = (before, Instant::now());
            window.writes = [None; 2];
            window.in_flight = [0; 2];
            window.reached = None;
        }
    }

    /// Says that what was killed has given up its connections: whatever is sent from here on was not
    /// under way.
    pub(super) fn note_gone(&self) {
        if let Some(window) = &mut lock(&self.shared.tally).window {
            window.gone = Some(Instant::now());
        }
    }

    /// Returns how long after the event a write to a shard was first acknowledged, if one was.
    pub(super) fn first_write(&self, shard: usize) -> Option<Duration> {
        lock(&self.shared.tally).window.as_ref()?.writes.get(shard).copied().flatten()
    }

    /// Tells whether somebody was answered on a new connection after the event.
    pub(super) fn is_reached(&self) -> bool {
        lock(&self.shared.tally).window.as_ref().is_some_and(|window| window.reached.is_some())
    }

    /// Returns a key that belongs to a shard and to no client.
    pub(super) fn other_key(&self, shard: usize, name: &str) -> String {
        format!("lab:{{{}}}:{name}", self.shared.tags.get(shard).map_or("", String::as_str))
    }

    /// Ends counting for the event.
    pub(super) fn close_window(&self) -> Option<Window> {
        lock(&self.shared.tally).window.take()
    }

    /// Tells whether every client has had a good reply since a moment.
    pub(super) fn all_served_since(&self, moment: Instant) -> bool {
        lock(&self.shared.tally).last_good.iter().all(|last| *last >= moment)
    }

    /// Returns the sum of everything.
    pub(super) fn counts(&self) -> Counts {
        lock(&self.shared.tally).counts
    }

    /// Returns how many replies had a value that was never written there.
    pub(super) fn wrong(&self) -> u64 {
        lock(&self.shared.tally).wrong
    }

    /// Returns the errors that clients got, with how often.
    pub(super) fn errors(&self) -> BTreeMap<String, u64> {
        lock(&self.shared.tally).errors.clone()
    }

    /// Returns who waited long, in the order of the ends, and forgets it.
    pub(super) fn take_waits(&self) -> Vec<Wait> {
        std::mem::take(&mut lock(&self.shared.tally).waits)
    }

    /// Returns the losses that reading back has found, and forgets them.
    pub(super) fn take_losses(&self) -> Vec<Loss> {
        group(std::mem::take(&mut lock(&self.shared.tally).lost))
    }

    /// Reads back every write that was acknowledged and not yet looked at, and removes it.
    pub(super) fn verify(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let mut reader = Reader { entries: &self.shared.entries, connection: None, turn: 0 };
        for (client, written) in self.shared.written.iter().enumerate() {
            let all = std::mem::take(&mut *lock(written));
            for chunk in all.chunks(VERIFY_KEYS) {
                let keys: Vec<String> =
                    chunk.iter().map(|one| self.shared.key(client, one.number)).collect();
                let asked = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                // Where nobody has answered for so long the rest is not asked for either.
                let values = if verdict.unread == 0 { reader.ask("MGET", &keys) } else { None };
                let Some(values) = values else {
                    verdict.unread += asked;
                    continue;
                };
                verdict.checked += asked;
                for (at, one) in chunk.iter().enumerate() {
                    match values.items().get(at) {
                        Some(Reply::Text(text)) if *text == value(client, one.number) => {}
                        Some(Reply::Text(_)) => lock(&self.shared.tally).wrong += 1,
                        Some(Reply::Error(_) | Reply::Nil | Reply::List(_)) | None => {
                            verdict.lost += 1;
                            lock(&self.shared.tally).lose(client, one.at);
                        }
                    }
                }
                reader.ask("UNLINK", &keys);
            }
        }
        verdict
    }

    /// Ends the clients.
    pub(super) fn stop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn key(&self, client: usize, number: u64) -> String {
        let [even, odd] = &self.tags;
        let tag = if client.is_multiple_of(2) { even } else { odd };
        format!("lab:{{{tag}}}:{client}:{number}")
    }
}

fn value(client: usize, number: u64) -> String {
    format!("{client}/{number}")
}

/// One client: it writes each key once, and now and then reads one that it has written.
struct Worker<'a> {
    shared: &'a Shared,
    number: usize,
    connection: Option<Client>,
    /// Which entry is used.
    turn: usize,
    next_key: u64,
    wanted_at: Option<Instant>,
    /// What was tried in vain since then.
    attempts: u32,
    rng: Rng,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared, number: usize) -> Self {
        let seed = u64::try_from(number).unwrap_or_default();
        let rng = Rng::new(seed);
        let (connection, wanted_at) = (None, None);
        Self { shared, number, connection, turn: 0, next_key: 0, wanted_at, attempts: 0, rng }
    }

    fn run(mut self) {
        while !self.shared.is_over() {
            let began = Instant::now();
            self.step(began);
            std::thread::sleep(PACE.saturating_sub(began.elapsed()));
        }
    }

    fn step(&mut self, now: Instant) {
        let wanted_at = *self.wanted_at.get_or_insert(now);
        if self.connection.is_none() {
            let count = self.shared.entries.len().max(1);
            let Some(&at) = self.shared.entries.get(self.turn % count) else { return };
            match Client::connect(at, CONNECT_PATIENCE, REPLY_PATIENCE) {
                Ok(connection) => self.connection = Some(connection),
                Err(_) => {
                    self.turn += 1;
                    self.attempts += 1;
                    return;
                }
            }
        }
        let sent_at = Instant::now();
        let read = self.choose_read();
        let is_write = read.is_none();
        let result = match read {
            Some(number) => self.read(number),
            None => self.write(),
        };
        let is_good = result.is_ok();
        let (client, attempts) = (self.number, self.attempts);
        let done = Done { client, is_write, sent_at, wanted_at, attempts, result };
        lock(&self.shared.tally).note(done);
        self.attempts += 1;
        if is_good {
            (self.wanted_at, self.attempts) = (None, 0);
        }
    }

    /// Returns a number that was written, if it is time to read.
    fn choose_read(&mut self) -> Option<u64> {
        let written = lock(self.shared.written.get(self.number)?);
        if written.len() < WRITTEN_MAX && !self.rng.is_one_in(1, 4) {
            return None;
        }
        let at = self.rng.below(u64::try_from(written.len()).unwrap_or_default());
        written.get(usize::try_from(at).unwrap_or_default()).map(|one| one.number)
    }

    fn write(&mut self) -> Result<(), String> {
        let number = self.next_key;
        self.next_key += 1;
        let key = self.shared.key(self.number, number);
        self.ask(&["SET", &key, &value(self.number, number)])?;
        if let Some(written) = self.shared.written.get(self.number) {
            lock(written).push(Written { number, at: Instant::now() });
        }
        Ok(())
    }

    fn read(&mut self, number: u64) -> Result<(), String> {
        let key = self.shared.key(self.number, number);
        let reply = self.ask(&["GET", &key])?;
        // Nothing is found out when all is read back: a lost write stays lost.
        if matches!(&reply, Reply::Text(text) if *text != value(self.number, number)) {
            lock(&self.shared.tally).wrong += 1;
        }
        Ok(())
    }

    fn ask(&mut self, words: &[&str]) -> Result<Reply, String> {
        let Some(connection) = &mut self.connection else { return Err("not connected".into()) };
        match connection.ask(words) {
            Ok(Reply::Error(text)) => Err(text),
            Ok(reply) => Ok(reply),
            Err(error) => {
                self.connection = None;
                self.turn += 1;
                Err(crate::host::reason(&error))
            }
        }
    }
}

/// Connects anew all the time while an event waits for the first good reply. All who look take
/// turns: their attempts begin at even distances from the event.
fn look(shared: &Shared, number: u32) {
    let mut turn = 0;
    while !shared.is_over() {
        let mark = match &lock(&shared.tally).window {
            Some(Window { mark, reached: None, .. }) => Some(*mark),
            Some(_) | None => None,
        };
        let Some(mark) = mark else {
            std::thread::sleep(LOOK_STEP);
            continue;
        };
        std::thread::sleep(until_turn(mark.elapsed(), number));
        let Some(&at) = shared.entries.get(turn % shared.entries.len().max(1)) else { return };
        turn += 1;
        let began = Instant::now();
        let reply = Client::connect(at, LOOK_PATIENCE, LOOK_REPLY_PATIENCE)
            .and_then(|mut client| client.ask(&["PING"]));
        let is_good = matches!(reply, Ok(Reply::Text(_)));
        if let Some(window) = &mut lock(&shared.tally).window
            && is_good
            && window.mark == mark
            && began >= window.after
        {
            let since = mark.elapsed();
            window.reached.get_or_insert(since);
        }
    }
}

/// Returns how long one who looks waits for its next turn, so long after an event.
fn until_turn(since: Duration, number: u32) -> Duration {
    let (round, first) = ((LOOK_STEP * LOOKERS).as_nanos(), (LOOK_STEP * number).as_nanos());
    let late = since.as_nanos().saturating_sub(first) % round;
    let wait = match since.as_nanos().checked_sub(first) {
        None => first - since.as_nanos(),
        Some(_) if late == 0 => 0,
        Some(_) => round - late,
    };
    Duration::from_nanos(u64::try_from(wait).unwrap_or_default())
}

/// Whoever reads back.
struct Reader<'a> {
    entries: &'a [SocketAddr],
    connection: Option<Client>,
    turn: usize,
}

impl Reader<'_> {
    /// Asks until there is a good reply; none if that takes too long.
    fn ask(&mut self, command: &str, keys: &[String]) -> Option<Reply> {
        let words: Vec<&str> =
            std::iter::once(command).chain(keys.iter().map(String::as_str)).collect();
        let since = Instant::now();
        while since.elapsed() < VERIFY_PATIENCE {
            let at = *self.entries.get(self.turn % self.entries.len().max(1))?;
            let connection = match self.connection.take() {
                Some(connection) => Ok(connection),
                None => Client::connect(at, CONNECT_PATIENCE, REPLY_PATIENCE),
            };
            let asked = connection.and_then(|mut one| one.ask(&words).map(|reply| (one, reply)));
            match asked {
                Ok((connection, Reply::Error(_))) => {
                    self.connection = Some(connection);
                }
                Ok((connection, reply)) => {
                    self.connection = Some(connection);
                    return Some(reply);
                }
                Err(_) => self.turn += 1,
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        let now = Instant::now();
        Tally {
            counts: Counts::default(),
            window: Some(Window { mark: now, after: now, ..Window::new() }),
            waits: Vec::new(),
            lost: Vec::new(),
            wrong: 0,
            errors: BTreeMap::new(),
            last_good: vec![now; CLIENTS],
        }
    }

    fn write(client: usize, sent_at: Instant, result: Result<(), String>) -> Done {
        Done { client, is_write: true, sent_at, wanted_at: sent_at, attempts: 0, result }
    }

    #[test]
    fn only_a_write_sent_after_the_event_ends_a_failover() {
        let mut tally = tally();
        let mark = tally.window.as_ref().unwrap().mark;
        let before = mark.checked_sub(Duration::from_millis(50)).unwrap();
        tally.note(write(1, before, Ok(())));
        tally.note(write(1, mark, Err("gone".to_owned())));
        assert_eq!(tally.window.as_ref().unwrap().writes, [None; 2]);
        tally.note(write(1, mark, Ok(())));
        let window = tally.window.unwrap();
        assert!(window.writes[0].is_none() && window.writes[1].is_some());
        assert_eq!(window.counts, Counts { sent: 3, answered: 2, failed: 1, held: 1 });
        assert!(window.pause >= Duration::from_millis(50));
    }

    #[test]
    fn in_flight_is_what_was_sent_before_the_end_and_ended_after_the_begin() {
        let mut tally = tally();
        let mark = tally.window.as_ref().unwrap().mark;
        let before = mark.checked_sub(Duration::from_millis(1)).unwrap();
        tally.note(write(2, before, Err("outcome unknown".to_owned())));
        assert_eq!(tally.window.as_ref().unwrap().in_flight(0), None, "nobody was killed");
        tally.window.as_mut().unwrap().gone = Some(mark);
        tally.note(write(4, before, Ok(())));
        tally.note(write(6, Instant::now(), Ok(())));
        tally.note(write(1, before, Ok(())));
        let window = tally.window.unwrap();
        assert_eq!([0, 1].map(|shard| window.in_flight(shard)), [Some(2), Some(1)]);
    }

    #[test]
    fn those_who_look_take_turns() {
        let ms = Duration::from_millis;
        assert_eq!(until_turn(ms(0), 0), ms(0));
        assert_eq!(until_turn(ms(1), 2), ms(3));
        assert_eq!(until_turn(ms(5), 2), ms(11));
        assert_eq!(until_turn(ms(16), 2), ms(0));
        assert_eq!(until_turn(ms(17), 5), ms(5));
    }

    #[test]
    fn long_waits_are_told_of_when_they_are_over() {
        let mut tally = tally();
        let from = Instant::now().checked_sub(LONG_WAIT).unwrap();
        let done = |result| Done { wanted_at: from, attempts: 3, ..write(5, from, result) };
        tally.note(done(Err("late".to_owned())));
        tally.note(write(5, Instant::now(), Ok(())));
        assert_eq!(tally.waits, []);
        tally.note(done(Ok(())));
        let [wait] = tally.waits[..] else { panic!("{:?}", tally.waits) };
        assert_eq!((wait.client, wait.from, wait.attempts), (5, from, 3));
        assert!(wait.lasted >= LONG_WAIT);
    }

    #[test]
    fn writes_that_were_lost_together_are_one_loss() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let lost = vec![(1, at(0)), (0, at(80)), (0, at(0)), (0, at(150)), (0, at(251))];
        let loss = |shard, from, to, count| Loss { shard, from: at(from), to: at(to), count };
        let expected = [loss(0, 0, 150, 3), loss(0, 251, 251, 1), loss(1, 0, 0, 1)];
        assert_eq!(group(lost), expected);
    }

    #[test]
    fn what_is_slow_counts_as_held_during_an_event_only() {
        let mut tally = tally();
        tally.window = None;
        let long_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        tally.note(write(0, long_ago, Ok(())));
        assert_eq!(tally.counts, Counts { sent: 1, answered: 1, failed: 0, held: 0 });
    }
}
