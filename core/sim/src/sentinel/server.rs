//! A Redis server as Sentinels and clients see it: roles, asynchronous replication with histories
//! and offsets, transactions, publish and subscribe, a configuration that is rewritten.

mod info;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use ringkeeper_core::rng::Rng;
use ringkeeper_core::time::Instant;

use super::keyed::{ALARM_KEYED, Blocked, Keyed};
use super::process::{Conn, Context, Happening, address, command};
use crate::codec::{Bytes, Parsed, Reply, Words, encode_reply, push_bulk, push_head, scan_request};

/// The channel of hellos.
const HELLO: &str = "__sentinel__:hello";

/// Period of the server's own housekeeping.
const CRON: Duration = Duration::from_secs(1);

/// Between two PINGs to replicas, in periods of the housekeeping.
const PING_EVERY: u64 = 10;

/// A replication link that is silent for so long is given up, in whatever state it is; shorter
/// than by default, so that runs need not be longer.
const REPLICATION_TIMEOUT: Duration = Duration::from_secs(20);

/// Whoever asks has had time to see what a server is after its start.
const STALE: Duration = Duration::from_secs(3);

/// No name of a command is longer.
const NAME_MAX: usize = 16;

const ALARM_CRON: u64 = 1;
const ALARM_SYNCED: u64 = 2;
const ALARM_LOADED: u64 = 3;

/// How a client uses its connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Use {
    Normal,
    PubSub,
    /// A replica: where it listens and how far it is.
    Replica {
        port: u16,
        address: SocketAddr,
        acknowledged: u64,
    },
}

#[derive(Debug)]
pub(super) struct Client {
    input: Bytes,
    from: SocketAddr,
    pub kind: Use,
    transaction: Option<Vec<Vec<Vec<u8>>>>,
    /// What it waits for.
    pub blocked: Option<Blocked>,
    /// Where the history was after its last write.
    pub written: u64,
}

/// How far a replica is with its master.
#[derive(Debug)]
enum Upstream {
    /// To be tried at the next housekeeping.
    Idle,
    Connecting(Conn),
    /// Waits for the master's data to arrive and be loaded.
    Syncing {
        conn: Conn,
        input: Bytes,
        is_answered: bool,
    },
    Up {
        conn: Conn,
        input: Bytes,
        last_io: Instant,
    },
}

/// What a server keeps over a restart.
#[derive(Clone, Debug, Default)]
struct Disk {
    replica_of: Option<SocketAddr>,
}

/// What may be wrong with a server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Troubles {
    /// CONFIG REWRITE fails.
    pub cannot_rewrite: bool,
    /// It comes back without its data.
    pub loses_data: bool,
    /// It says LOADING for so long after a restart.
    pub loading: Duration,
    /// It answers everything with BUSY.
    pub is_busy: bool,
}

/// A model of one Redis server.
pub(crate) struct Server {
    pub address: SocketAddr,
    pub priority: u32,
    pub troubles: Troubles,
    run_id: String,
    replica_of: Option<SocketAddr>,
    /// Since when it is a master because it was started as one, and not by anybody's order.
    master_by_itself: Option<Instant>,
    upstream: Upstream,
    /// When the attempt to follow began.
    upstream_since: Instant,
    down_since: Option<Instant>,
    replid: String,
    /// The history before the last change of role, and up to where it is ours too.
    replid2: Option<(String, u64)>,
    pub(super) offset: u64,
    /// The writes that it holds.
    pub data: Vec<String>,
    pub keyed: Keyed,
    disk: Disk,
    pub(super) clients: BTreeMap<Conn, Client>,
    cron_runs: u64,
    loading_until: Instant,
    pub(super) out: Vec<u8>,
}

pub(crate) fn hex_id(rng: &mut Rng) -> String {
    let mut id = String::new();
    while id.len() < 40 {
        let _ = write!(id, "{:016x}", rng.next_u64());
    }
    id.truncate(40);
    id
}

impl Server {
    pub(crate) fn new(rng: &mut Rng, address: SocketAddr, replica_of: Option<SocketAddr>) -> Self {
        Self {
            address,
            priority: 100,
            troubles: Troubles::default(),
            run_id: hex_id(rng),
            replica_of,
            master_by_itself: None,
            upstream: Upstream::Idle,
            upstream_since: Instant::START,
            down_since: None,
            replid: hex_id(rng),
            replid2: None,
            offset: 0,
            data: Vec::new(),
            keyed: Keyed::default(),
            disk: Disk { replica_of },
            clients: BTreeMap::new(),
            cron_runs: 0,
            loading_until: Instant::START,
            out: Vec::new(),
        }
    }

    /// Tells whom it follows; none for a master.
    pub(crate) const fn follows(&self) -> Option<SocketAddr> {
        self.replica_of
    }

    /// Tells whether it follows a master and is in step.
    pub(crate) const fn is_in_step(&self) -> bool {
        matches!(self.upstream, Upstream::Up { .. })
    }

    /// Says what matters of it in one line.
    pub(crate) fn sketch(&self) -> String {
        let short = |id: &str| id[..6].to_owned();
        let before =
            self.replid2.as_ref().map(|(id, end)| format!(" before {} to {end}", short(id)));
        format!(
            "{} follows {:?}, in step: {}, history {} to {}{}",
            self.address,
            self.replica_of,
            self.is_in_step(),
            short(&self.replid),
            self.offset,
            before.unwrap_or_default()
        )
    }

    /// Tells whether it has been a master for a while without anybody having made it one.
    pub(crate) fn is_stale_master(&self, now: Instant) -> bool {
        self.master_by_itself.is_some_and(|since| now.since(since) > STALE)
    }

    pub(crate) const fn takes_writes(&self) -> bool {
        self.replica_of.is_none()
    }

    pub(crate) fn handle(&mut self, happening: Happening, ctx: &mut Context<'_>) {
        match happening {
            Happening::Started => self.started(ctx),
            Happening::Woken(ALARM_CRON) => self.cron(ctx),
            Happening::Woken(ALARM_SYNCED) => self.synced(ctx),
            Happening::Woken(ALARM_KEYED) => self.look_again(ctx),
            Happening::Accepted { conn, from } => {
                let client = Client {
                    input: Bytes::default(),
                    from,
                    kind: Use::Normal,
                    transaction: None,
                    blocked: None,
                    written: 0,
                };
                self.clients.insert(conn, client);
            }
            Happening::Connected(conn) => self.upstream_connected(conn, ctx),
            Happening::Received { conn, bytes } => self.received(conn, &bytes, ctx),
            Happening::Gone { conn, .. } => {
                self.clients.remove(&conn);
                self.upstream_gone(conn, ctx);
            }
            Happening::Woken(_)
            | Happening::Sent(_)
            | Happening::Ended(_)
            | Happening::Persisted { .. }
            | Happening::Exited { .. }
            | Happening::Mail(_)
            | Happening::Opened(_)
            | Happening::Datagram { .. } => {}
        }
    }

    fn started(&mut self, ctx: &mut Context<'_>) {
        self.clients.clear();
        self.keyed.started();
        self.upstream = Upstream::Idle;
        self.run_id = hex_id(ctx.rng);
        self.replica_of = self.disk.replica_of;
        self.master_by_itself = self.replica_of.is_none().then_some(ctx.now);
        if self.troubles.loses_data {
            self.data.clear();
            self.offset = 0;
        }
        // Without a saved snapshot a restart begins a history of its own.
        self.replid = hex_id(ctx.rng);
        self.replid2 = None;
        self.down_since = self.replica_of.map(|_| ctx.now);
        self.loading_until = ctx.now + self.troubles.loading;
        ctx.wake_in(self.troubles.loading, ALARM_LOADED);
        let first = Duration::from_nanos(ctx.rng.below(CRON.as_nanos() as u64));
        ctx.wake_in(first, ALARM_CRON);
    }

    fn cron(&mut self, ctx: &mut Context<'_>) {
        ctx.wake_in(CRON, ALARM_CRON);
        self.cron_runs += 1;
        if self.replica_of.is_none() && self.cron_runs.is_multiple_of(PING_EVERY) {
            self.replicate(&["PING"], ctx);
        }
        match &self.upstream {
            Upstream::Idle => self.connect_upstream(ctx),
            Upstream::Up { conn, last_io, .. } => {
                if ctx.now.since(*last_io) > REPLICATION_TIMEOUT {
                    let conn = *conn;
                    ctx.close(conn);
                    self.upstream_gone(conn, ctx);
                } else {
                    let offset = self.offset.to_string();
                    ctx.send(*conn, command(&["REPLCONF", "ACK", &offset]));
                }
            }
            Upstream::Connecting(conn) | Upstream::Syncing { conn, .. } => {
                if ctx.now.since(self.upstream_since) > REPLICATION_TIMEOUT {
                    let conn = *conn;
                    ctx.close(conn);
                    self.upstream = Upstream::Idle;
                }
            }
        }
    }

    fn connect_upstream(&mut self, ctx: &mut Context<'_>) {
        if let Some(master) = self.replica_of {
            if ctx.now < self.loading_until {
                return;
            }
            self.upstream = Upstream::Connecting(ctx.connect(master));
            self.upstream_since = ctx.now;
        }
    }

    fn upstream_connected(&mut self, conn: Conn, ctx: &mut Context<'_>) {
        if matches!(self.upstream, Upstream::Connecting(mine) if mine == conn) {
            let port = self.address.port().to_string();
            let next = (self.offset + 1).to_string();
            ctx.send(conn, command(&["PSYNC", &self.replid, &next, &port]));
            self.upstream = Upstream::Syncing { conn, input: Bytes::default(), is_answered: false };
        }
    }

    pub(super) const fn upstream_conn(&self) -> Option<Conn> {
        match self.upstream {
            Upstream::Idle => None,
            Upstream::Connecting(conn)
            | Upstream::Syncing { conn, .. }
            | Upstream::Up { conn, .. } => Some(conn),
        }
    }

    fn upstream_gone(&mut self, conn: Conn, ctx: &mut Context<'_>) {
        if self.upstream_conn() != Some(conn) {
            return;
        }
        let was_up = self.is_in_step();
        self.upstream = Upstream::Idle;
        if was_up {
            self.down_since = Some(ctx.now);
            // The first attempt comes at once, the others with the housekeeping.
            self.connect_upstream(ctx);
        }
    }

    fn received(&mut self, conn: Conn, bytes: &[u8], ctx: &mut Context<'_>) {
        if self.upstream_conn() == Some(conn) {
            return self.upstream_received(bytes, ctx);
        }
        let Some(client) = self.clients.get_mut(&conn) else { return };
        client.input.push(bytes);
        self.serve_all(conn, ctx);
    }

    /// Serves what a client has sent, up to what has to wait.
    pub(super) fn serve_all(&mut self, conn: Conn, ctx: &mut Context<'_>) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        // Whoever is served may go meanwhile.
        let mut input = std::mem::take(&mut client.input);
        // Another client's turn may have led here.
        let outer = std::mem::take(&mut self.out);
        while let Some(client) = self.clients.get(&conn) {
            if client.blocked.is_some() {
                break;
            }
            let used = match scan_request(input.as_slice()) {
                Parsed::Whole(words, used) => {
                    if client.kind == Use::Normal && self.keyed.postpones(&words, ctx.now) {
                        break;
                    }
                    self.serve(conn, &words, ctx);
                    used
                }
                Parsed::Needs(_) => break,
                Parsed::Broken(_) => {
                    self.clients.remove(&conn);
                    ctx.close(conn);
                    break;
                }
            };
            input.skip(used);
        }
        if let Some(client) = self.clients.get_mut(&conn) {
            client.input = input;
        }
        let out = std::mem::replace(&mut self.out, outer);
        if !out.is_empty() {
            ctx.send(conn, out);
        }
    }

    /// Sends a command of the replication stream to all replicas.
    pub(super) fn replicate(&mut self, words: &[&str], ctx: &mut Context<'_>) {
        let bytes = command(words);
        self.offset += bytes.len() as u64;
        self.pass_on(&bytes, ctx);
    }

    fn pass_on(&self, bytes: &[u8], ctx: &mut Context<'_>) {
        for (conn, client) in &self.clients {
            if matches!(client.kind, Use::Replica { .. }) {
                ctx.send(*conn, bytes.to_vec());
            }
        }
    }

    /// Takes a write of some client.
    pub(crate) fn write(&mut self, value: &str, ctx: &mut Context<'_>) {
        self.data.push(value.to_owned());
        self.replicate(&["SET", value], ctx);
    }

    fn upstream_received(&mut self, bytes: &[u8], ctx: &mut Context<'_>) {
        match &mut self.upstream {
            Upstream::Syncing { input, is_answered, .. } => {
                input.push(bytes);
                // The data is here when its last byte is; what follows waits until it is loaded.
                if !*is_answered && let Some((first, used)) = first_line(input.as_slice()) {
                    input.skip(used);
                    *is_answered = true;
                    self.sync_answered(&first, ctx);
                }
            }
            Upstream::Up { input, last_io, .. } => {
                input.push(bytes);
                *last_io = ctx.now;
                self.follow(ctx);
            }
            Upstream::Idle | Upstream::Connecting(_) => {}
        }
    }

    fn sync_answered(&mut self, line: &str, ctx: &mut Context<'_>) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["+CONTINUE", replid] => {
                if replid != self.replid {
                    self.replid2 = Some((self.replid.clone(), self.offset));
                    self.replid = replid.to_owned();
                }
                self.synced(ctx);
            }
            ["+FULLRESYNC", replid, offset, ref data @ ..] => {
                self.replid = replid.to_owned();
                self.replid2 = None;
                self.offset = offset.parse().unwrap_or(0);
                self.data = data.iter().map(|value| (*value).to_owned()).collect();
                self.keyed.forget();
                // Our own replicas have another data set now.
                self.drop_replicas(ctx);
                let taken = Duration::from_nanos(50_000_000 + ctx.rng.below(150_000_000));
                ctx.wake_in(taken, ALARM_SYNCED);
            }
            _ => {
                if let Some(conn) = self.upstream_conn() {
                    ctx.close(conn);
                }
                self.upstream = Upstream::Idle;
            }
        }
    }

    fn synced(&mut self, ctx: &mut Context<'_>) {
        match std::mem::replace(&mut self.upstream, Upstream::Idle) {
            // An alarm of a synchronization before this one finds it unanswered.
            Upstream::Syncing { conn, input, is_answered: true } => {
                self.upstream = Upstream::Up { conn, input, last_io: ctx.now };
                self.down_since = None;
                self.follow(ctx);
            }
            other => self.upstream = other,
        }
    }

    /// Applies what stands in the replication stream, and passes it on.
    fn follow(&mut self, ctx: &mut Context<'_>) {
        let Upstream::Up { input, .. } = &mut self.upstream else { return };
        let mut input = std::mem::take(input);
        while let Parsed::Whole(words, used) = scan_request(input.as_slice()) {
            self.offset += used as u64;
            self.pass_on(&input.as_slice()[..used], ctx);
            match words[..] {
                [b"SET", value] => self.data.extend(text(value).map(str::to_owned)),
                [b"REPLCONF", b"GETACK", _] => self.acknowledge(ctx),
                [b"PUBLISH", channel, payload] => {
                    if let (Some(channel), Some(payload)) = (text(channel), text(payload)) {
                        self.publish_here(channel, payload, None, ctx);
                    }
                }
                _ => {}
            }
            input.skip(used);
        }
        if let Upstream::Up { input: place, .. } = &mut self.upstream {
            *place = input;
        }
    }

    fn drop_replicas(&mut self, ctx: &mut Context<'_>) {
        self.clients.retain(|conn, client| {
            let is_replica = matches!(client.kind, Use::Replica { .. });
            if is_replica {
                ctx.close(*conn);
            }
            !is_replica
        });
    }

    /// Follows another master, or nobody.
    pub(crate) fn set_master(&mut self, master: Option<SocketAddr>, ctx: &mut Context<'_>) {
        if self.replica_of == master {
            return;
        }
        self.master_by_itself = None;
        if let Some(conn) = self.upstream_conn() {
            ctx.close(conn);
        }
        self.upstream = Upstream::Idle;
        self.replica_of = master;
        // Replicas have to ask again: what they follow is not what it was.
        self.drop_replicas(ctx);
        if master.is_some() {
            self.unblock_all(ctx);
            self.down_since = Some(ctx.now);
            self.connect_upstream(ctx);
        } else {
            self.down_since = None;
            let old = std::mem::replace(&mut self.replid, hex_id(ctx.rng));
            self.replid2 = Some((old, self.offset));
            self.keyed.promoted(self.address);
        }
    }

    fn serve(&mut self, conn: Conn, words: &Words<'_>, ctx: &mut Context<'_>) {
        let mut upper = [0; NAME_MAX];
        let name = name_of(words, &mut upper);
        if self.troubles.is_busy && name != "SHUTDOWN" {
            return self.error("BUSY Redis is busy running a script.");
        }
        let is_loading = ctx.now < self.loading_until;
        if is_loading
            && matches!(
                name,
                "PING" | "PUBLISH" | "PSYNC" | "SET" | "GET" | "APPEND" | "MGET" | "WAIT"
            )
        {
            return self.error("LOADING Redis is loading the dataset in memory");
        }
        let Some(client) = self.clients.get_mut(&conn) else { return };
        match name {
            "EXEC" => {
                let Some(queued) = client.transaction.take() else {
                    return self.error("ERR EXEC without MULTI");
                };
                push_head(b'*', queued.len(), &mut self.out);
                for words in queued {
                    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                    let name = name_of(&words, &mut upper);
                    self.execute(conn, name, &words, ctx);
                }
            }
            "MULTI" => {
                client.transaction = Some(Vec::new());
                self.status("OK");
            }
            _ if client.transaction.is_some() => {
                let words = words.iter().map(|word| word.to_vec()).collect();
                client.transaction.get_or_insert_default().push(words);
                self.status("QUEUED");
            }
            _ => self.execute(conn, name, words, ctx),
        }
    }

    fn execute(&mut self, conn: Conn, name: &str, words: &[&[u8]], ctx: &mut Context<'_>) {
        match name {
            "PING" => self.status("PONG"),
            "INFO" => {
                let text = self.info(ctx.now);
                push_bulk(&text, &mut self.out);
            }
            "ROLE" => self.role(),
            "AUTH" => self.status("OK"),
            "SLAVEOF" | "REPLICAOF" => self.slave_of(words, ctx),
            "CONFIG" => self.config(words),
            "CLIENT" => self.client(conn, words, ctx),
            "SUBSCRIBE" => {
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.kind = Use::PubSub;
                }
                let channel = words.get(1).map(|word| word.to_vec());
                self.reply(&Reply::Array(Some(vec![
                    Reply::Bulk(Some(b"subscribe".to_vec())),
                    Reply::Bulk(channel),
                    Reply::Integer(1),
                ])));
            }
            "PUBLISH" => self.publish(conn, words, ctx),
            "SET" | "APPEND" if self.replica_of.is_some() => {
                self.error("READONLY You can't write against a read only replica.");
            }
            "SET" if words.len() == 2 => {
                self.write(&word(words, 1), ctx);
                self.status("OK");
            }
            "SCRIPT" => self.error("NOTBUSY No scripts in execution right now."),
            "REPLCONF" => self.acknowledged(conn, words, ctx),
            "PSYNC" => self.psync(conn, words, ctx),
            _ => self.execute_keyed(conn, name, words, ctx),
        }
    }

    fn slave_of(&mut self, words: &[&[u8]], ctx: &mut Context<'_>) {
        let (host, port) = (word(words, 1), word(words, 2));
        let master = if host.eq_ignore_ascii_case("no") {
            None
        } else {
            let address = address(&host, &port);
            if address.is_none() {
                return self.error("ERR Invalid master port");
            }
            address
        };
        self.set_master(master, ctx);
        self.status("OK");
    }

    fn config(&mut self, words: &[&[u8]]) {
        if word(words, 1).eq_ignore_ascii_case("rewrite") {
            if self.troubles.cannot_rewrite {
                return self.error("ERR Rewriting config file: Read-only file system");
            }
            self.disk.replica_of = self.replica_of;
        }
        self.status("OK");
    }

    fn client(&mut self, conn: Conn, words: &[&[u8]], ctx: &mut Context<'_>) {
        let what = word(words, 1).to_ascii_uppercase();
        if what != "KILL" {
            self.status("OK");
            return self.pause_or_not(&what, words, ctx);
        }
        let kind = word(words, 3).to_ascii_lowercase();
        let mut killed = 0;
        self.clients.retain(|other, client| {
            let fits = match client.kind {
                Use::Normal => kind == "normal",
                Use::PubSub => kind == "pubsub",
                Use::Replica { .. } => kind == "replica" || kind == "slave",
            };
            if fits && *other != conn {
                ctx.close(*other);
                killed += 1;
                return false;
            }
            true
        });
        self.reply(&Reply::Integer(killed));
    }

    fn publish(&mut self, conn: Conn, words: &[&[u8]], ctx: &mut Context<'_>) {
        let (channel, payload) = (word(words, 1), word(words, 2));
        if self.replica_of.is_none() {
            self.replicate(&["PUBLISH", &channel, &payload], ctx);
        }
        let count = self.publish_here(&channel, &payload, Some(conn), ctx);
        self.reply(&Reply::Integer(count));
    }

    fn publish_here(
        &self,
        channel: &str,
        payload: &str,
        by: Option<Conn>,
        ctx: &mut Context<'_>,
    ) -> i64 {
        if channel != HELLO {
            return 0;
        }
        let mut count = 0;
        let mut bytes = None;
        for (conn, client) in &self.clients {
            if client.kind == Use::PubSub && Some(*conn) != by {
                let bytes = bytes.get_or_insert_with(|| command(&["message", channel, payload]));
                ctx.send(*conn, bytes.clone());
                count += 1;
            }
        }
        count
    }

    fn acknowledged(&mut self, conn: Conn, words: &[&[u8]], ctx: &mut Context<'_>) {
        if let Some(Client { kind: Use::Replica { acknowledged, .. }, .. }) =
            self.clients.get_mut(&conn)
        {
            *acknowledged = word(words, 2).parse().unwrap_or(0);
            self.count_copies(ctx);
        }
    }

    /// Answers a replica that wants to go on from somewhere.
    fn psync(&mut self, conn: Conn, words: &[&[u8]], ctx: &mut Context<'_>) {
        if self.replica_of.is_some() && !self.is_in_step() {
            return self.error("NOMASTERLINK Can't SYNC while not connected with my master");
        }
        let asked = word(words, 1);
        let done = word(words, 2).parse::<u64>().unwrap_or(1).saturating_sub(1);
        let is_ours = asked == self.replid && done <= self.offset
            || self.replid2.as_ref().is_some_and(|(id, end)| *id == asked && done <= *end);
        // The backlog holds what everybody has missed, unless the offsets differ: what the stream
        // held in between is not kept here.
        let answer = if is_ours && done == self.offset {
            format!("+CONTINUE {}\r\n", self.replid)
        } else {
            format!("+FULLRESYNC {} {} {}\r\n", self.replid, self.offset, self.data.join(" "))
        };
        let port = word(words, 3).parse().unwrap_or(0);
        if let Some(client) = self.clients.get_mut(&conn) {
            let address = client.from;
            client.kind = Use::Replica { port, address, acknowledged: done };
        }
        ctx.send(conn, answer.replace(" \r", "\r").into_bytes());
    }

    pub(super) fn status(&mut self, text: &str) {
        self.say(b'+', text);
    }

    pub(super) fn error(&mut self, text: &str) {
        self.say(b'-', text);
    }

    fn say(&mut self, kind: u8, text: &str) {
        self.out.push(kind);
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    pub(super) fn reply(&mut self, reply: &Reply) {
        encode_reply(reply, &mut self.out);
    }

    fn role(&mut self) {
        let text = |text: &str| Reply::Bulk(Some(text.as_bytes().to_vec()));
        let reply = match self.replica_of {
            None => {
                let replicas = self.clients.values().filter_map(|client| match &client.kind {
                    Use::Replica { port, address, acknowledged } => Some(Reply::Array(Some(vec![
                        text(&address.ip().to_string()),
                        text(&port.to_string()),
                        text(&acknowledged.to_string()),
                    ]))),
                    Use::Normal | Use::PubSub => None,
                });
                let replicas = Reply::Array(Some(replicas.collect()));
                vec![text("master"), Reply::Integer(self.offset as i64), replicas]
            }
            Some(master) => vec![
                text("slave"),
                text(&master.ip().to_string()),
                Reply::Integer(i64::from(master.port())),
                text(if self.is_in_step() { "connected" } else { "connect" }),
                Reply::Integer(self.offset as i64),
            ],
        };
        self.reply(&Reply::Array(Some(reply)));
    }
}

/// Returns the word of a command as text; empty if it is missing.
pub(crate) fn word<W: AsRef<[u8]>>(words: &[W], index: usize) -> Cow<'_, str> {
    words.get(index).map(|word| String::from_utf8_lossy(word.as_ref())).unwrap_or_default()
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Returns the name of a command in capitals; empty if it is longer than any.
fn name_of<'a>(words: &[&[u8]], upper: &'a mut [u8; NAME_MAX]) -> &'a str {
    let name = words.first().copied().unwrap_or_default();
    let Some(place) = upper.get_mut(..name.len()) else { return "" };
    place.copy_from_slice(name);
    place.make_ascii_uppercase();
    std::str::from_utf8(place).unwrap_or_default()
}

fn first_line(bytes: &[u8]) -> Option<(String, usize)> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    Some((String::from_utf8_lossy(&bytes[..end]).into_owned(), end + 2))
}
