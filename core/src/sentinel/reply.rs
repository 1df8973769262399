//! The replies to SENTINEL's subcommands.
//!
//! Clients read the maps of instances by name and by position, so the order of the fields is part
//! of the protocol. Source: recordings of Redis 7.0 and Valkey.

use std::time::Duration;

use super::instance::{Address, Epoch, Flags, Kind, MasterName, Role, RunId};
use crate::wire::resp::encode;

/// The protocol of the asking client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Maps are flat arrays.
    Resp2,
    /// Maps are maps.
    Resp3,
}

/// The error about a name that nobody has.
pub const NO_SUCH_MASTER: &str = "ERR No such master with that name";
/// The error of FAILOVER while one is under way.
pub const IN_PROGRESS: &str = "INPROG Failover already in progress";
/// The error of FAILOVER without a replica that is fit.
pub const NO_GOOD_REPLICA: &str = "NOGOODSLAVE No suitable replica to promote";

/// What every instance has.
#[derive(Clone, Debug)]
pub struct Common<'a> {
    /// What it is called: the master's name, `host:port`, or the peer's ID.
    pub name: &'a str,
    /// Where it is.
    pub address: &'a Address,
    /// Its ID; none is shown as nothing.
    pub run_id: Option<RunId>,
    /// What is true of it.
    pub flags: Flags,
    /// Commands without a reply.
    pub pending_commands: usize,
    /// Masters that share its connection.
    pub link_refcount: usize,
    /// Since when a PING waits for its answer.
    pub last_ping_sent: Duration,
    /// Since the last acceptable answer.
    pub last_ok_ping_reply: Duration,
    /// Since the last answer.
    pub last_ping_reply: Duration,
    /// Since when it is subjectively down.
    pub subjectively_down: Option<Duration>,
    /// Since when it is objectively down.
    pub objectively_down: Option<Duration>,
    /// When it counts as down.
    pub down_after: Duration,
}

/// What INFO says about a master or replica.
#[derive(Clone, Copy, Debug)]
pub struct Reported {
    /// Since the last INFO.
    pub info_refresh: Duration,
    /// What it says it is.
    pub role: Role,
    /// For how long.
    pub role_time: Duration,
}

/// A master.
#[derive(Clone, Debug)]
pub struct Master<'a> {
    /// What every instance has.
    pub common: Common<'a>,
    /// Where its fail-over is; none when there is none.
    pub failover_state: Option<&'a str>,
    /// What it says.
    pub reported: Reported,
    /// The election that gave it its address.
    pub config_epoch: Epoch,
    /// How many replicas are known.
    pub replicas: usize,
    /// How many peers are known.
    pub other_sentinels: usize,
    /// How many must agree that it is down.
    pub quorum: u32,
    /// What bounds a fail-over.
    pub failover_timeout: Duration,
    /// Replicas that are told at a time.
    pub parallel_syncs: u32,
    /// What runs at events.
    pub notification_script: Option<&'a str>,
    /// What runs when it moves.
    pub client_reconfig_script: Option<&'a str>,
}

/// A replica.
#[derive(Clone, Debug)]
pub struct Replica<'a> {
    /// What every instance has.
    pub common: Common<'a>,
    /// What it says.
    pub reported: Reported,
    /// How long its connection to its master is down.
    pub link_down: Duration,
    /// Whether it stands.
    pub is_link_up: bool,
    /// Whom it follows.
    pub master: Option<&'a Address>,
    /// Its place in the choice of a new master.
    pub priority: u32,
    /// What it has of the history.
    pub offset: u64,
    /// Whether clients are told of it.
    pub is_announced: bool,
}

/// A peer.
#[derive(Clone, Debug)]
pub struct Sentinel<'a> {
    /// What every instance has.
    pub common: Common<'a>,
    /// Since its last hello.
    pub last_hello: Duration,
    /// Whom it voted for.
    pub voted_leader: Option<RunId>,
    /// In which election.
    pub voted_leader_epoch: Epoch,
}

/// Collects the fields of a map.
#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    count: usize,
}

impl Fields {
    fn text(&mut self, name: &str, value: &str) {
        encode::bulk(&mut self.bytes, name.as_bytes());
        encode::bulk(&mut self.bytes, value.as_bytes());
        self.count += 1;
    }

    fn number(&mut self, name: &str, value: impl ToString) {
        self.text(name, &value.to_string());
    }

    fn milliseconds(&mut self, name: &str, value: Duration) {
        self.number(name, value.as_millis());
    }

    fn finish(self, protocol: Protocol, out: &mut Vec<u8>) {
        match protocol {
            Protocol::Resp2 => encode::array_header(out, self.count * 2),
            Protocol::Resp3 => encode::map_header(out, self.count),
        }
        out.extend_from_slice(&self.bytes);
    }

    fn common(&mut self, common: &Common<'_>, kind: Kind, failover_state: Option<&str>) {
        self.text("name", common.name);
        self.text("ip", common.address.host());
        self.number("port", common.address.port());
        self.text("runid", common.run_id.as_ref().map_or("", RunId::as_str));
        self.text("flags", &common.flags.names(kind));
        self.number("link-pending-commands", common.pending_commands);
        self.number("link-refcount", common.link_refcount);
        if let Some(state) = failover_state {
            self.text("failover-state", state);
        }
        self.milliseconds("last-ping-sent", common.last_ping_sent);
        self.milliseconds("last-ok-ping-reply", common.last_ok_ping_reply);
        self.milliseconds("last-ping-reply", common.last_ping_reply);
        if let Some(since) = common.subjectively_down {
            self.milliseconds("s-down-time", since);
        }
        if let Some(since) = common.objectively_down {
            self.milliseconds("o-down-time", since);
        }
        self.milliseconds("down-after-milliseconds", common.down_after);
    }

    fn reported(&mut self, reported: &Reported) {
        self.milliseconds("info-refresh", reported.info_refresh);
        self.text("role-reported", reported.role.word());
        self.milliseconds("role-reported-time", reported.role_time);
    }
}

impl Master<'_> {
    /// Appends the map: the reply to MASTER, and one element of MASTERS.
    pub fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let mut fields = Fields::default();
        fields.common(&self.common, Kind::Master, self.failover_state);
        fields.reported(&self.reported);
        fields.number("config-epoch", self.config_epoch);
        fields.number("num-slaves", self.replicas);
        fields.number("num-other-sentinels", self.other_sentinels);
        fields.number("quorum", self.quorum);
        fields.milliseconds("failover-timeout", self.failover_timeout);
        fields.number("parallel-syncs", self.parallel_syncs);
        if let Some(path) = self.notification_script {
            fields.text("notification-script", path);
        }
        if let Some(path) = self.client_reconfig_script {
            fields.text("client-reconfig-script", path);
        }
        fields.finish(protocol, out);
    }
}

impl Replica<'_> {
    /// Appends the map: one element of REPLICAS, from which the caller leaves out those that are
    /// not announced.
    pub fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let mut fields = Fields::default();
        fields.common(&self.common, Kind::Replica, None);
        fields.reported(&self.reported);
        fields.milliseconds("master-link-down-time", self.link_down);
        fields.text("master-link-status", if self.is_link_up { "ok" } else { "err" });
        fields.text("master-host", self.master.map_or("?", Address::host));
        fields.number("master-port", self.master.map_or(0, Address::port));
        fields.number("slave-priority", self.priority);
        fields.number("slave-repl-offset", self.offset);
        fields.number("replica-announced", u8::from(self.is_announced));
        fields.finish(protocol, out);
    }
}

impl Sentinel<'_> {
    /// Appends the map: one element of SENTINELS.
    pub fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let mut fields = Fields::default();
        fields.common(&self.common, Kind::Sentinel, None);
        fields.milliseconds("last-hello-message", self.last_hello);
        fields.text("voted-leader", self.voted_leader.as_ref().map_or("?", RunId::as_str));
        fields.number("voted-leader-epoch", self.voted_leader_epoch);
        fields.finish(protocol, out);
    }
}

/// Appends the reply to GET-MASTER-ADDR-BY-NAME; none is a name that nobody has.
pub fn encode_address(address: Option<&Address>, protocol: Protocol, out: &mut Vec<u8>) {
    match (address, protocol) {
        (Some(address), _) => {
            encode::array_header(out, 2);
            encode::bulk(out, address.host().as_bytes());
            encode::bulk(out, address.port().to_string().as_bytes());
        }
        (None, Protocol::Resp2) => encode::null_array(out),
        (None, Protocol::Resp3) => out.extend_from_slice(b"_\r\n"),
    }
}

/// Who could take part in a fail-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usable {
    /// Sentinels that can be reached, we among them.
    pub usable: usize,
    /// Sentinels that are known, we among them.
    pub voters: usize,
    /// Sentinels that must see the master down.
    pub quorum: u32,
}

impl Usable {
    /// Whether enough are there to agree that the master is down.
    pub fn reaches_quorum(self) -> bool {
        u32::try_from(self.usable).is_ok_and(|usable| usable >= self.quorum)
    }

    /// Whether enough are there to elect who acts.
    pub const fn reaches_majority(self) -> bool {
        self.usable > self.voters / 2
    }

    /// Appends the reply to CKQUORUM.
    pub fn encode(self, out: &mut Vec<u8>) {
        const NOT: &str = "Not enough available Sentinels to reach the";
        let usable = self.usable;
        let (quorum, majority) = (self.reaches_quorum(), self.reaches_majority());
        if quorum && majority {
            let can = "Quorum and failover authorization can be reached";
            encode::simple(out, &format!("OK {usable} usable Sentinels. {can}"));
            return;
        }
        let mut text = format!("NOQUORUM {usable} usable Sentinels. ");
        if !quorum {
            text.push_str(&format!("{NOT} specified quorum for this master"));
        }
        if !majority {
            text.push_str(if quorum { "" } else { ". " });
            text.push_str(&format!("{NOT} majority and authorize a failover"));
        }
        encode::error(out, &text);
    }
}

/// Appends the reply to ROLE: the names of the masters.
pub fn encode_role<'a>(names: impl ExactSizeIterator<Item = &'a MasterName>, out: &mut Vec<u8>) {
    encode::array_header(out, 2);
    encode::bulk(out, b"sentinel");
    encode::array_header(out, names.len());
    for name in names {
        encode::bulk(out, name.as_str().as_bytes());
    }
}

/// How a master is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As far as is known it serves.
    Ok,
    /// Subjectively down.
    SubjectivelyDown,
    /// Objectively down.
    ObjectivelyDown,
}

/// One master in the section.
#[derive(Clone, Copy, Debug)]
pub struct InfoMaster<'a> {
    /// What it is called.
    pub name: &'a MasterName,
    /// How it is.
    pub status: Status,
    /// Where it is.
    pub address: &'a Address,
    /// How many replicas are known.
    pub replicas: usize,
    /// How many Sentinels watch it, we among them.
    pub sentinels: usize,
}

/// What the section `# Sentinel` of INFO says.
#[derive(Clone, Debug)]
pub struct InfoSection<'a> {
    /// For how long nothing is decided; none while decisions are made.
    pub tilt_for: Option<Duration>,
    /// Scripts that run.
    pub running_scripts: usize,
    /// Scripts that wait.
    pub queued_scripts: usize,
    /// The masters.
    pub masters: &'a [InfoMaster<'a>],
}

impl InfoSection<'_> {
    /// Returns the text with its heading.
    pub fn text(&self) -> String {
        let is_tilted = u8::from(self.tilt_for.is_some());
        let since = self.tilt_for.map_or_else(|| "-1".to_owned(), |d| d.as_secs().to_string());
        let mut text = format!("# Sentinel\r\nsentinel_masters:{}\r\n", self.masters.len());
        text.push_str(&format!("sentinel_tilt:{is_tilted}\r\n"));
        text.push_str(&format!("sentinel_tilt_since_seconds:{since}\r\n"));
        text.push_str(&format!("sentinel_running_scripts:{}\r\n", self.running_scripts));
        text.push_str(&format!("sentinel_scripts_queue_length:{}\r\n", self.queued_scripts));
        text.push_str("sentinel_simulate_failure_flags:0\r\n");
        for (at, master) in self.masters.iter().enumerate() {
            let InfoMaster { name, status, address, replicas, sentinels } = master;
            let status = match status {
                Status::Ok => "ok",
                Status::SubjectivelyDown => "sdown",
                Status::ObjectivelyDown => "odown",
            };
            text.push_str(&format!(
                "master{at}:name={name},status={status},address={address},slaves={replicas},\
                 sentinels={sentinels}\r\n"
            ));
        }
        text
    }
}
