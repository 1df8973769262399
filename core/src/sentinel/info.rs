//! What a server's INFO says about replication.

use std::time::Duration;

use super::instance::{Address, AddressError, Role, RunId};
use crate::limits;
use crate::wire::resp::parse_integer;

/// The fields of INFO that matter, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Names the run of the process: another one means that it restarted. None in
    /// `INFO replication`.
    pub run_id: Option<RunId>,
    /// Whether it reads its data from disk, and cannot serve yet.
    pub is_loading: bool,
    /// What it is.
    pub role: RoleReport,
    /// Which writes it has.
    pub history: History,
}

/// What a server is, and what only such a server reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleReport {
    /// A master.
    Master {
        /// Its replicas in the order of the lines.
        replicas: Vec<Address>,
        /// Replicas whose line could not be understood, or that are more than
        /// [`limits::REPLICAS_PER_MASTER_MAX`].
        replicas_dropped: usize,
    },
    /// A replica.
    Replica(ReplicaReport),
}

impl RoleReport {
    /// Returns the role without its details.
    pub const fn role(&self) -> Role {
        match self {
            Self::Master { .. } => Role::Master,
            Self::Replica(_) => Role::Replica,
        }
    }
}

/// What only a replica reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Whom it follows; none when it does not say.
    pub master: Option<Address>,
    /// Whether it is connected there.
    pub link: MasterLink,
    /// Its place in the choice of a new master, the lowest first; 0 is never chosen.
    pub priority: u32,
    /// Bytes of the master's history that it has.
    pub offset: u64,
    /// Whether clients may be told of it.
    pub is_announced: bool,
}

/// A replica's connection to its master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterLink {
    /// It is connected.
    Up,
    /// It was, until so long ago; a whole number of seconds.
    Down(Duration),
    /// It is not, and does not know for how long: it never was since it began to follow.
    NeverUp,
}

/// Which writes a server has: a history's name and how far it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The history that it continues.
    pub replid: Option<RunId>,
    /// The history that it continued before, as far as
    /// [`second_offset`](Self::second_offset).
    pub replid2: Option<RunId>,
    /// Bytes of the first history.
    pub offset: u64,
    /// Bytes from which on the second history is not its own.
    pub second_offset: Option<u64>,
}

impl History {
    /// Whether it has, or had, the history of this name.
    pub fn includes(&self, replid: RunId) -> bool {
        self.replid == Some(replid) || self.replid2 == Some(replid)
    }
}

/// Why a text is not the INFO of a server. The server's last report stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfoError {
    /// Longer than [`limits::INFO_BYTES_MAX`].
    TooLong,
    /// No line says the role: a Sentinel, or no server at all.
    NoRole,
    /// A role other than master and slave.
    UnknownRole,
    /// This field is no number, or out of range.
    Number(&'static str),
    /// This field is not forty hexadecimal digits.
    Id(&'static str),
    /// A replica's master has no address.
    Master(AddressError),
}

/// The lines as they were found.
#[derive(Default)]
struct Draft<'a> {
    run_id: Option<RunId>,
    is_loading: bool,
    role: Option<Role>,
    replicas: Vec<Address>,
    replicas_dropped: usize,
    master_host: Option<&'a [u8]>,
    master_port: Option<&'a [u8]>,
    is_link_up: bool,
    link_down_seconds: Option<i64>,
    priority: Option<u32>,
    offset: u64,
    is_hidden: bool,
    history: History,
}

impl Info {
    /// Reads a reply to `INFO` or `INFO replication`, the bulk's content only.
    ///
    /// Fields that are not there have the values that Sentinels assume for servers too old to
    /// send them; of a field that is there twice the last counts.
    ///
    /// # Errors
    ///
    /// The first line that is wrong; [`InfoError::NoRole`] if none is.
    pub fn parse(text: &[u8]) -> Result<Self, InfoError> {
        if text.len() > limits::INFO_BYTES_MAX {
            return Err(InfoError::TooLong);
        }
        let mut draft = Draft::default();
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let (key, value) = line.split_at_checked(colon).unwrap_or((line, b""));
            draft.take(key, value.get(1..).unwrap_or_default())?;
        }
        draft.finish()
    }
}

impl<'a> Draft<'a> {
    fn take(&mut self, key: &'a [u8], value: &'a [u8]) -> Result<(), InfoError> {
        match key {
            b"run_id" => self.run_id = Some(id(value, "run_id")?),
            b"loading" => self.is_loading = value != b"0",
            b"role" => {
                self.role = Some(match value {
                    b"master" => Role::Master,
                    b"slave" => Role::Replica,
                    _ => return Err(InfoError::UnknownRole),
                });
            }
            b"master_host" => self.master_host = Some(value),
            b"master_port" => self.master_port = Some(value),
            b"master_link_status" => self.is_link_up = value == b"up",
            b"master_link_down_since_seconds" => {
                let seconds = integer(value, "master_link_down_since_seconds")?;
                self.link_down_seconds = Some(seconds);
            }
            b"slave_priority" => {
                let priority = u32::try_from(integer(value, "slave_priority")?);
                self.priority = Some(priority.map_err(|_| InfoError::Number("slave_priority"))?);
            }
            b"slave_repl_offset" => self.offset = offset(value, "slave_repl_offset")?.unwrap_or(0),
            b"replica_announced" => self.is_hidden = value == b"0",
            b"master_replid" => self.history.replid = Some(id(value, "master_replid")?),
            b"master_replid2" => {
                // A server without a second history writes zeros.
                let second = id(value, "master_replid2")?;
                self.history.replid2 = (!second.is_zero()).then_some(second);
            }
            b"master_repl_offset" => {
                self.history.offset = offset(value, "master_repl_offset")?.unwrap_or(0);
            }
            b"second_repl_offset" => {
                self.history.second_offset = offset(value, "second_repl_offset")?;
            }
            _ => {
                if let Some(number) = key.strip_prefix(b"slave")
                    && !number.is_empty()
                    && number.iter().all(u8::is_ascii_digit)
                {
                    self.take_replica(value);
                }
            }
        }
        Ok(())
    }

    /// A line about a replica that makes no sense must not hide what the master says of itself.
    fn take_replica(&mut self, value: &[u8]) {
        match listed_replica(value) {
            Some(address) if self.replicas.len() < limits::REPLICAS_PER_MASTER_MAX => {
                self.replicas.push(address);
            }
            Some(_) | None => self.replicas_dropped += 1,
        }
    }

    fn finish(self) -> Result<Info, InfoError> {
        let role = match self.role.ok_or(InfoError::NoRole)? {
            Role::Master => RoleReport::Master {
                replicas: self.replicas,
                replicas_dropped: self.replicas_dropped,
            },
            Role::Replica => {
                let master = match (self.master_host, self.master_port) {
                    (Some(host), Some(port)) => {
                        Some(Address::parse(host, port).map_err(InfoError::Master)?)
                    }
                    _ => None,
                };
                let link = match self.link_down_seconds.map(u64::try_from) {
                    _ if self.is_link_up => MasterLink::Up,
                    Some(Ok(seconds)) => MasterLink::Down(Duration::from_secs(seconds)),
                    Some(Err(_)) | None => MasterLink::NeverUp,
                };
                RoleReport::Replica(ReplicaReport {
                    master,
                    link,
                    priority: self.priority.unwrap_or(100),
                    offset: self.offset,
                    is_announced: !self.is_hidden,
                })
            }
        };
        let Self { run_id, is_loading, history, .. } = self;
        Ok(Info { run_id, is_loading, role, history })
    }
}

/// Reads `ip=…,port=…,…`, or `ip,port,state` as servers before 2.8 had it.
fn listed_replica(value: &[u8]) -> Option<Address> {
    let mut fields = value.split(|byte| *byte == b',');
    let (host, port) = if value.starts_with(b"ip=") {
        let host = fields.next()?.strip_prefix(b"ip=")?;
        (host, fields.find_map(|field| field.strip_prefix(b"port="))?)
    } else {
        (fields.next()?, fields.next()?)
    };
    Address::parse(host, port).ok()
}

fn id(value: &[u8], field: &'static str) -> Result<RunId, InfoError> {
    RunId::parse(value).ok_or(InfoError::Id(field))
}

fn integer(value: &[u8], field: &'static str) -> Result<i64, InfoError> {
    parse_integer(value).ok_or(InfoError::Number(field))
}

fn offset(value: &[u8], field: &'static str) -> Result<Option<u64>, InfoError> {
    parse_offset(value).ok_or(InfoError::Number(field))
}

/// Reads an offset, `Some(None)` for a negative number, which stands for "none".
pub(super) fn parse_offset(value: &[u8]) -> Option<Option<u64>> {
    Some(u64::try_from(parse_integer(value)?).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_wrong_line_has_its_own_error() {
        let error = |text: &str| Info::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error(""), InfoError::NoRole);
        assert_eq!(error("# Sentinel\r\nsentinel_masters:1\r\n"), InfoError::NoRole);
        assert_eq!(error("role:king\r\n"), InfoError::UnknownRole);
        assert_eq!(error("role:master\nrun_id:x\n"), InfoError::Id("run_id"));
        assert_eq!(error("role:slave\nslave_priority:-1\n"), InfoError::Number("slave_priority"));
        assert_eq!(
            error("role:slave\nmaster_host:a\nmaster_port:0\n"),
            InfoError::Master(AddressError::Port)
        );
        let long = vec![b'a'; limits::INFO_BYTES_MAX + 1];
        assert_eq!(Info::parse(&long), Err(InfoError::TooLong));
    }

    #[test]
    fn replicas_are_listed_in_the_old_and_the_new_form() {
        let text = b"role:master\r\nslave0:10.0.0.1,6379,online\r\n\
            slave1:ip=::1,port=6380,state=online,offset=1,lag=0,type=replica\r\n\
            slave2:nonsense\r\nslave_expires_tracked_keys:0\r\nslaves_x:1\r\n";
        let info = Info::parse(text).unwrap();
        let RoleReport::Master { replicas, replicas_dropped } = info.role else { panic!() };
        let shown: Vec<String> = replicas.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.1:6379", "[::1]:6380"]);
        assert_eq!(replicas_dropped, 1);
    }

    #[test]
    fn a_replica_of_an_old_server_has_the_usual_defaults() {
        let info = Info::parse(b"role:slave\nmaster_link_status:up\n").unwrap();
        let RoleReport::Replica(report) = info.role else { panic!() };
        assert_eq!(
            report,
            ReplicaReport {
                master: None,
                link: MasterLink::Up,
                priority: 100,
                offset: 0,
                is_announced: true
            }
        );
        assert_eq!(info.history, History::default());
    }

    proptest! {
        #[test]
        fn no_text_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in "((role|slave[0-9]|master_(host|port|replid2?)|slave_(priority|repl_offset)):[a-z0-9=,:.-]{0,12}\r?\n){0,9}",
        ) {
            let _ = Info::parse(&bytes);
            let _ = Info::parse(text.as_bytes());
        }
    }
}
