//! What a Sentinel begins with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::acl::Users;
use super::acl_file;
use super::journal;
use super::lease::Fence;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::sentinel::{self as config, Config, MasterName, PORT_DEFAULT, Rewriter, RunId};
use crate::rng::Rng;
use crate::sentinel::names::NameBase;
use crate::sentinel::state::{Durable, Record};

/// What a Sentinel begins with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What the file says.
    pub config: Config,
    /// Where what is learnt goes.
    pub keeping: Keeping,
    /// What is told of the process.
    pub process: Process,
    /// Masters that may be down as soon as they refuse connections.
    pub fast_down: BTreeSet<MasterName>,
    /// What was promised or seen that a configuration has no words for.
    pub records: Vec<Record>,
    /// Masters for which clients were promised copies, and on how many replicas: then only a replica
    /// that has all that the furthest has is promoted, and none while fewer are seen than it takes
    /// to find a copy.
    pub min_copies: BTreeMap<MasterName, u32>,
    /// What the file with the users says, where the configuration names one.
    pub users: Option<String>,
    /// Where its names begin, if it shares a worker.
    pub names: NameBase,
    /// Whether workers with clients are told where masters are, by [`Notice::Shard`].
    ///
    /// [`Notice::Shard`]: crate::io::Notice::Shard
    pub tells_workers: bool,
    /// Whether they may write to a master while this host is cut off from the other Sentinels. The
    /// same for all hosts: a leader waits for leases only if it knows of them.
    pub fence: Fence,
}

/// Where what must not be forgotten is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// In the file that was read, as genuine Sentinels do.
    InPlace {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// In a file of its own beside one that is only read: what [`Setup::with_state`] takes.
    Beside {
        /// The file.
        path: PathBuf,
        /// What it says; empty before the first start.
        text: String,
    },
}

impl Keeping {
    /// Returns what the file says.
    pub(super) const fn text(&self) -> &String {
        match self {
            Self::InPlace { text, .. } | Self::Beside { text, .. } => text,
        }
    }

    /// Takes in what the file says.
    pub(super) fn set_text(&mut self, new: String) {
        match self {
            Self::InPlace { text, .. } | Self::Beside { text, .. } => *text = new,
        }
    }

    /// Returns what the file should say.
    pub(super) fn rewrite(
        &self,
        rewriter: &mut Rewriter,
        config: &Config,
        fast_down: &BTreeSet<MasterName>,
        min_copies: &BTreeMap<MasterName, u32>,
        records: &[Record],
        users: &Users,
    ) -> String {
        let text = match self {
            // Who stands in the file as the operator wrote it stays as it is.
            Self::InPlace { text, .. } if users.is_changed && config.server.aclfile.is_none() => {
                rewriter.rewrite(&with_users(text, &users.lines()), config)
            }
            Self::InPlace { text, .. } => rewriter.rewrite(text, config),
            Self::Beside { .. } => rewriter.rewrite("", config),
        };
        let text = with_min_copies(with_fast_down(text, fast_down), min_copies);
        with_records(text, records)
    }
}

/// How a line of ours begins that a genuine Sentinel takes for a comment.
const FAST_DOWN: &str = "# ringkeeper fast-down ";

/// How a line of ours begins that holds a record.
const RECORD: &str = "# ringkeeper record ";

/// How a line of ours begins that says on how many replicas a master's writes are.
const MIN_COPIES: &str = "# ringkeeper min-copies ";

/// Returns the masters for which the text says that a refused connection may be enough.
fn fast_down_of(text: &str) -> BTreeSet<MasterName> {
    let names = text.lines().filter_map(|line| line.trim().strip_prefix(FAST_DOWN));
    names.filter_map(|name| MasterName::new(name.trim())).collect()
}

/// Returns the text with these masters as the ones for which a refused connection may be enough.
fn with_fast_down(text: String, wanted: &BTreeSet<MasterName>) -> String {
    if fast_down_of(&text) == *wanted {
        return text;
    }
    let others = text.split_inclusive('\n').filter(|line| !line.trim().starts_with(FAST_DOWN));
    let mut text: String = others.collect();
    for name in wanted {
        text.push_str(&format!("{FAST_DOWN}{name}\n"));
    }
    text
}

/// Returns on how many replicas the text says that masters' writes are.
fn min_copies_of(text: &str) -> BTreeMap<MasterName, u32> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix(MIN_COPIES));
    let pairs = lines.filter_map(|line| line.trim().rsplit_once(' '));
    let read = |(name, copies): (&str, &str)| {
        Some((MasterName::new(name.trim())?, copies.parse().ok().filter(|copies| *copies > 0)?))
    };
    pairs.filter_map(read).collect()
}

/// Returns the text with these promises of copies.
fn with_min_copies(text: String, wanted: &BTreeMap<MasterName, u32>) -> String {
    if min_copies_of(&text) == *wanted {
        return text;
    }
    let others = text.split_inclusive('\n').filter(|line| !line.trim().starts_with(MIN_COPIES));
    let mut text: String = others.collect();
    for (name, copies) in wanted {
        text.push_str(&format!("{MIN_COPIES}{name} {copies}\n"));
    }
    text
}

/// Returns the records that stand in comments. One that is damaged says nothing: the configuration
/// has the epochs, without which nothing may be promised.
fn records_of(text: &str) -> Vec<Record> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix(RECORD));
    lines.filter_map(Record::parse).collect()
}

/// Returns the text with these records as the ones that stand in comments.
fn with_records(text: String, wanted: &[Record]) -> String {
    if records_of(&text) == wanted {
        return text;
    }
    let others = text.split_inclusive('\n').filter(|line| !line.trim().starts_with(RECORD));
    let mut text: String = others.collect();
    for record in wanted {
        text.push_str(&format!("{RECORD}{record}\n"));
    }
    text
}

/// A state file that is not what was written: nobody can tell what was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedState;

/// What INFO and HELLO tell of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Names this run of the process.
    pub run_id: RunId,
    /// The process' number.
    pub id: u32,
    /// Where clients reach it; what peers are told unless the file says otherwise.
    pub port: u16,
    /// The file as the operator named it.
    pub config_file: String,
    /// The program's file.
    pub executable: String,
    /// The operating system, its version and the processor.
    pub os: String,
    /// Microseconds from the Unix epoch to the start of the clock.
    pub unix_micros_at_start: u64,
}

impl Setup {
    /// Reads a file as it stands on disk, to be rewritten in place.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn from_text(path: PathBuf, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let name = path.display().to_string();
        let parsed = config::parse(&name, text);
        let config = parsed.config.ok_or(parsed.diagnostics)?;
        Users::from_file(&config.server).map_err(|(user, why)| vec![bad_user(text, &user, why)])?;
        if let (Some(file), Some(user)) = (&config.server.aclfile, config.server.users.first()) {
            let why = format!("users stand in the aclfile {file:?} too, and only one place counts");
            return Err(vec![bad_user(text, &user.name, why)]);
        }
        let port = config.server.port.unwrap_or(PORT_DEFAULT);
        Ok(Self {
            config,
            keeping: Keeping::InPlace { path, text: text.to_owned() },
            process: Process {
                run_id: RunId::from_random([0; 20]),
                id: 1,
                port,
                config_file: name,
                executable: String::new(),
                os: String::new(),
                unix_micros_at_start: 0,
            },
            fast_down: fast_down_of(text),
            records: records_of(text),
            min_copies: min_copies_of(text),
            users: None,
            names: NameBase::default(),
            tells_workers: false,
            fence: Fence::Off,
        })
    }

    /// Takes the users from the file that the configuration names, which says `text`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, in Redis' words.
    pub fn with_users(mut self, text: String) -> Result<Self, String> {
        self.users = Some(text);
        match self.read_users() {
            Ok(_) => Ok(self),
            Err(why) => Err(why),
        }
    }

    pub(super) fn read_users(&self) -> Result<Users, String> {
        let server = &self.config.server;
        match (&self.users, &server.aclfile) {
            (Some(text), Some(name)) => acl_file::parse(name, text),
            _ => Users::from_file(server).map_err(|(user, why)| format!("{user}: {why}")),
        }
    }

    /// Keeps what is learnt in a file beside the configuration, which is only read, and takes over
    /// what that file holds; none if it is not there yet. Settings are those of the configuration.
    ///
    /// # Errors
    ///
    /// [`DamagedState`] when the file is not what was written to it.
    pub fn with_state(mut self, path: PathBuf, state: Option<&[u8]>) -> Result<Self, DamagedState> {
        let mut text = String::new();
        if let Some(state) = state {
            text = journal::read(state)?;
            let known = config::parse("state", &text).config.ok_or(DamagedState)?;
            take_over(&mut self.config, known);
            self.fast_down.extend(fast_down_of(&text));
            self.min_copies.extend(min_copies_of(&text));
            self.records.extend(records_of(&text));
        }
        self.keeping = Keeping::Beside { path, text };
        Ok(self)
    }

    /// Puts together what must not be forgotten.
    pub(super) fn durable(&self) -> Durable {
        let mut durable = Durable::from_config(&self.config);
        self.records.iter().for_each(|record| durable.apply(record));
        durable
    }
}

/// Makes an error about the line of a user.
fn bad_user(text: &str, user: &str, message: String) -> Diagnostic {
    let mut start = 0;
    let mut place = (1, 0..0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_user(line) && line.split_whitespace().nth(1) == Some(user) {
            place = (number + 1, start..start + line.trim_end().len());
        }
        start += line.len();
    }
    let (line, span) = place;
    Diagnostic {
        severity: Severity::Error,
        code: "bad-user",
        span,
        line,
        column: 1,
        message,
        expected: None,
        hint: None,
        related: None,
    }
}

fn is_user(line: &str) -> bool {
    line.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("user"))
}

/// Returns the text with these lines as the ones about users.
fn with_users(text: &str, users: &[String]) -> String {
    let mut left = users.iter();
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if !is_user(line) {
            out.push_str(line);
        } else if let Some(user) = left.next() {
            out.push_str(&format!("{user}\n"));
        }
    }
    left.for_each(|user| out.push_str(&format!("{user}\n")));
    out
}

/// Adds what was learnt to what was configured.
fn take_over(config: &mut Config, known: Config) {
    config.myid = known.myid.or(config.myid);
    config.current_epoch = config.current_epoch.max(known.current_epoch);
    for old in known.masters {
        let Some(master) = config.masters.iter_mut().find(|master| master.name == old.name) else {
            // Monitored by a command.
            config.masters.push(old);
            continue;
        };
        master.leader_epoch = master.leader_epoch.max(old.leader_epoch);
        if old.config_epoch > master.config_epoch {
            master.config_epoch = old.config_epoch;
            master.monitor.address = old.monitor.address;
        }
        for replica in old.known_replicas {
            if !master.known_replicas.iter().any(|known| known.is_same(&replica)) {
                master.known_replicas.push(replica);
            }
        }
        for peer in old.known_sentinels {
            if !master.known_sentinels.iter().any(|known| known.run_id == peer.run_id) {
                master.known_sentinels.push(peer);
            }
        }
    }
}

/// Draws forty digits.
pub(super) fn draw_id(rng: &mut Rng) -> RunId {
    let mut bits = [0; 20];
    for chunk in bits.chunks_mut(8) {
        let drawn = rng.next_u64().to_le_bytes();
        for (bit, byte) in chunk.iter_mut().zip(drawn) {
            *bit = byte;
        }
    }
    RunId::from_random(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "sentinel monitor m 127.0.0.1 1 2\n# ringkeeper fast-down m\n";

    #[test]
    fn a_state_file_is_taken_over_whole_or_not_at_all() {
        let setup = || Setup::from_text("s.conf".into(), FILE).unwrap();
        let mut learnt = setup().config;
        learnt.current_epoch = crate::sentinel::instance::Epoch::new(7).unwrap();
        let keeping = Keeping::Beside { path: "s.state".into(), text: String::new() };
        let users = Users::from_file(&learnt.server).unwrap();
        let text = keeping.rewrite(
            &mut Rewriter::default(),
            &learnt,
            &setup().fast_down,
            &BTreeMap::new(),
            &[],
            &users,
        );
        let (text, _) = journal::whole(&text);
        let again = setup().with_state("s.state".into(), Some(&text)).unwrap();
        assert_eq!(again.config.current_epoch.get(), 7);
        assert_eq!(again.fast_down.len(), 1);
        for end in 0..text.len() {
            let cut = text.get(..end).unwrap();
            assert!(setup().with_state("s.state".into(), Some(cut)).is_err(), "{end}");
        }
        assert!(setup().with_state("s.state".into(), None).is_ok());
    }

    #[test]
    fn users_that_were_changed_take_the_place_of_those_in_the_file() {
        let text = "port 1\nuser alice on nopass +@all\n# kept\nuser bob off\n";
        let setup = Setup::from_text("s.conf".into(), text).unwrap();
        let mut users = Users::from_file(&setup.config.server).unwrap();
        let rewrite = |users: &Users| {
            setup.keeping.rewrite(
                &mut Rewriter::default(),
                &setup.config,
                &BTreeSet::new(),
                &BTreeMap::new(),
                &[],
                users,
            )
        };
        assert!(rewrite(&users).starts_with(text));
        users.set("alice", &[b"resetchannels", b"-@all"]).unwrap();
        assert!(users.remove("bob"));
        let expected = "port 1\nuser alice on nopass resetchannels -@all\n# kept\nuser default on \
                        nopass ~* &* +@all\n";
        let written = rewrite(&users);
        assert!(written.starts_with(expected), "{written}");
        let again = Setup::from_text("s.conf".into(), &written).unwrap();
        let lines = Users::from_file(&again.config.server).unwrap().lines();
        // The default user begins with a word more once the file names it, as in Redis.
        assert_eq!(lines.join(" ").replace(" sanitize-payload", ""), users.lines().join(" "));
        let bad = Setup::from_text("s.conf".into(), "port 1\nuser alice +get\n").unwrap_err();
        assert_eq!((bad[0].line, bad[0].code), (2, "bad-user"));
    }

    #[test]
    fn what_is_only_ours_stands_in_comments() {
        let names = fast_down_of(FILE);
        assert_eq!(with_fast_down(FILE.to_owned(), &names), FILE);
        let none = with_fast_down(FILE.to_owned(), &BTreeSet::new());
        assert_eq!(none, "sentinel monitor m 127.0.0.1 1 2\n");
        assert_eq!(with_fast_down(none, &names), FILE);
        let vote = Record::Vote {
            master: MasterName::new("m").unwrap(),
            epoch: crate::sentinel::instance::Epoch::new(3).unwrap(),
            leader: RunId::parse(&[b'a'; 40]).unwrap(),
        };
        let text = with_records(FILE.to_owned(), std::slice::from_ref(&vote));
        assert_eq!(records_of(&text), [vote]);
        assert_eq!(with_records(text.clone(), &records_of(&text)), text);
        assert_eq!(with_records(text, &[]), FILE);
        let copies = BTreeMap::from([(MasterName::new("m").unwrap(), 2)]);
        let text = with_min_copies(FILE.to_owned(), &copies);
        assert_eq!(text, format!("{FILE}# ringkeeper min-copies m 2\n"));
        assert_eq!(min_copies_of(&text), copies);
        assert_eq!(with_min_copies(text, &BTreeMap::new()), FILE);
    }
}
