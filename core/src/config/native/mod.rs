//! `ringkeeper.yml`, the program's own file: everything of one node in one place, with units, few
//! mandatory keys and no surprises.
//!
//! It says the same things about pools as `nutcracker.yml`, in the same types, and more about the
//! process around them. What differs on purpose:
//! - a time has a unit (`400 ms`), a size may have one (`64 MiB`), and `off` is the word for none;
//! - numbers that do not fit are errors, they never wrap;
//! - a server has a name and an address apart, because the name is its place on the ring and
//!   outlives the address; without a name it is the address as written, also on port 11211;
//! - defaults are twemproxy's but for three: servers speak Redis' protocol, a request waits
//!   [`POOL_TIMEOUT_DEFAULT`] and not for ever, and the kernel probes idle clients;
//! - lists in brackets, mappings in braces and a leading `---` are allowed. Anchors, aliases, tags
//!   and a second document are not.

mod attach;
mod keys;
mod pool;
mod section;
mod sentinel;
mod value;
mod vrrp;
mod write;
mod write_sentinel;

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::Range;
use std::time::Duration;

use super::diagnostic::{Collector, Diagnostic, Place, quoted};
use super::keepalived;
use super::nutcracker::{self, Config, HostPort, Listen, ListenAddress, Pool};
use super::text;
use super::yaml::{Content, Document, NodeId};
use crate::limits;
use crate::routing::server_order;

use self::section::{Entry, Section};

pub use self::attach::attach;
pub use self::keys::keys;
pub use self::sentinel::{Follow, Own, Watch};
pub use self::value::format_time;
pub use self::vrrp::write_routers;
pub use self::write::{Old, write};

/// Default of a pool's `timeout`. Redis itself gives scripts five seconds before it calls itself
/// busy; whoever is silent for longer must not make its clients hang.
pub const POOL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// Default of `limits.drain_timeout`: shorter than the patience of service managers.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// Where the administration is by default; loopback, because it can change things.
pub const ADMIN_PORT_DEFAULT: u16 = 22280;

/// Where twemproxy's users look for figures.
pub const STATS_PORT_DEFAULT: u16 = 22222;

/// What a file says, as far as it can be understood.
#[derive(Debug)]
pub struct Parsed {
    /// The pools; some exactly when no diagnostic is an error.
    pub config: Option<Config>,
    /// What it says about the process; defaults in place of what is faulty.
    pub settings: Settings,
    /// Passwords that the caller is to fetch into [`config`](Self::config).
    pub secrets: Vec<SecretFile>,
    /// Every error and warning, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

/// A file that holds a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    /// What it is the password of.
    pub of: SecretOf,
    /// The file as written; a relative one is meant from the directory of the configuration.
    pub path: String,
    /// Where it is written.
    pub place: Place,
}

/// What a password is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretOf {
    /// The pool of this name.
    Pool(String),
    /// Sentinels: what clients of ours say, and what we say to others.
    Sentinel,
    /// The master of this name, and its replicas.
    Master(String),
    /// All masters that have no password of their own.
    Masters,
}

/// What a file says about the process rather than about a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Threads that serve clients.
    pub threads: Threads,
    /// What drives the sockets.
    pub runtime: Runtime,
    /// Where commands of the same host come in.
    pub control: Control,
    /// Metrics, state and commands by HTTP.
    pub admin: Admin,
    /// Where twemproxy's figures are; none: nowhere.
    pub stats: Option<HostPort>,
    /// What is counted and kept beyond that.
    pub figures: Figures,
    /// What is logged, and where.
    pub log: Log,
    /// Bounds of the whole process.
    pub limits: Limits,
    /// How it knows where the masters of shards are; none: servers stay where the file has them.
    pub sentinel: Option<Watch>,
    /// Virtual routers beside the pools; none: none.
    pub vrrp: Option<keepalived::Config>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: Threads::Auto,
            runtime: Runtime::Auto,
            control: Control::Auto,
            admin: Admin {
                listen: Some(loopback(ADMIN_PORT_DEFAULT)),
                token_file: None,
                host_names: Vec::new(),
            },
            stats: Some(HostPort { host: LOOPBACK.to_owned(), port: STATS_PORT_DEFAULT }),
            figures: Figures {
                is_on: true,
                slow_after: Some(limits::SLOW_AFTER_DEFAULT),
                is_watching_keys: false,
            },
            log: Log { level: Level::Info, format: Format::Text, file: None },
            limits: Limits {
                clients_max: None,
                clients_input_bytes_max: limits::CLIENTS_INPUT_BYTES_MAX,
                clients_output_bytes_max: limits::CLIENTS_OUTPUT_BYTES_MAX,
                drain_timeout: DRAIN_TIMEOUT_DEFAULT,
            },
            sentinel: None,
            vrrp: None,
        }
    }
}

const LOOPBACK: &str = "127.0.0.1";

fn loopback(port: u16) -> Listen {
    let at = HostPort { host: LOOPBACK.to_owned(), port };
    Listen { literal: format!("{LOOPBACK}:{port}"), address: ListenAddress::Tcp(at) }
}

/// How many threads serve clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// As many as there are processors, up to a bound of the host's.
    Auto,
    /// So many, at most [`limits::THREADS_MAX`].
    Count(NonZeroU16),
}

/// What drives the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// io_uring where the kernel allows it, else tokio.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// tokio.
    Tokio,
}

/// Where the commands of `ringkeeper reload` and its like come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Where the host finds a fit place.
    Auto,
    /// At the Unix socket with this path.
    At(String),
    /// Nowhere.
    Off,
}

/// Where the process is administered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens; none: nowhere.
    pub listen: Option<Listen>,
    /// The file with the word that changes need; none: what changes something is refused.
    pub token_file: Option<String>,
    /// Names by which it may be asked, besides addresses and `localhost`.
    pub host_names: Vec<String>,
}

/// What is counted and kept about requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Whether latencies, slow requests and examples are kept at all.
    pub is_on: bool,
    /// From which duration on a request is slow; none: never.
    pub slow_after: Option<Duration>,
    /// Whether the keys most asked for and the largest values are looked for from the start.
    pub is_watching_keys: bool,
}

/// What is logged, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe that is logged.
    pub level: Level,
    /// The shape of a line.
    pub format: Format,
    /// The file, or the journal's socket; none: standard error, or the journal's usual socket.
    pub file: Option<String>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What failed.
    Error,
    /// Also what is odd.
    Warn,
    /// Also what changed.
    Info,
    /// Also what helps to find a fault.
    Debug,
    /// Also what happens per request.
    Trace,
}

/// The shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// Entries with fields in systemd's journal.
    Journald,
}

/// Bounds of the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients of all pools at a time; none: what the limit of open files leaves.
    pub clients_max: Option<NonZeroU32>,
    /// Bytes of unfinished and waiting requests of all clients together.
    pub clients_input_bytes_max: usize,
    /// Bytes of unsent replies of all clients together.
    pub clients_output_bytes_max: usize,
    /// How long clients may take to finish when the process ends.
    pub drain_timeout: Duration,
}

/// Tells whether a text has this form rather than that of `nutcracker.yml`: one of its keys stands
/// at the top and is no pool.
pub fn is_native(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    if text::check_size("", text).is_err() {
        return false;
    }
    let document = Document::read(text);
    let Some(root) = document.root.and_then(|root| document.node(root)) else { return false };
    let Content::Mapping(entries) = &root.content else { return false };
    entries.iter().any(|&(key, value)| {
        scalar(&document, key).is_some_and(|key| keys::TOP.contains(&key))
            && !has_server_list(&document, value)
    })
}

/// Tells whether a mapping has a list of servers, as every pool of twemproxy's does.
fn has_server_list(document: &Document, id: NodeId) -> bool {
    let Some(Content::Mapping(entries)) = document.node(id).map(|node| &node.content) else {
        return false;
    };
    entries.iter().any(|&(key, value)| {
        let value = document.node(value).map(|node| &node.content);
        scalar(document, key) == Some("servers") && matches!(value, Some(Content::Sequence(_)))
    })
}

fn scalar(document: &Document, id: NodeId) -> Option<&str> {
    match document.node(id).map(|node| &node.content) {
        Some(Content::Scalar(text)) => Some(text),
        _ => None,
    }
}

/// Reads a file that is not known to be UTF-8 yet.
pub fn parse_bytes(name: &str, bytes: &[u8]) -> Parsed {
    match text::from_bytes(name, bytes) {
        Ok(text) => parse(name, text),
        Err(diagnostics) => faulty(diagnostics),
    }
}

/// Reads a file. `name` only appears in messages.
///
/// Time and memory are bounded by [`limits::CONFIG_BYTES_MAX`] and [`limits::CONFIG_NODES_MAX`].
pub fn parse(name: &str, text: &str) -> Parsed {
    if let Err(diagnostics) = text::check_size(name, text) {
        return faulty(diagnostics);
    }
    let document = Document::read(text);
    let mut out = Collector::new(text);
    let mut reader =
        Reader { out: &mut out, listens: Vec::new(), secrets: Vec::new(), notes: BTreeMap::new() };
    let (settings, pools) = reader.document(name, &document).unwrap_or_default();
    let secrets = reader.secrets;
    let config = if out.has_errors() { None } else { Some(Config { pools }) };
    Parsed { config, settings, secrets, diagnostics: out.finish() }
}

fn faulty(diagnostics: Vec<Diagnostic>) -> Parsed {
    Parsed { config: None, settings: Settings::default(), secrets: Vec::new(), diagnostics }
}

/// Reads one document.
struct Reader<'r, 'c> {
    out: &'r mut Collector<'c>,
    /// Whose each address is, and where it is written.
    listens: Vec<(Listen, (String, Range<usize>))>,
    secrets: Vec<SecretFile>,
    /// What the file has about the servers of each pool.
    notes: BTreeMap<String, Vec<pool::ServerNote>>,
}

impl Reader<'_, '_> {
    fn document(&mut self, name: &str, document: &Document) -> Option<(Settings, Vec<Pool>)> {
        let unwanted = document.refused.iter().filter(|refused| !refused.is_style);
        for refused in unwanted {
            let message = format!("{} is not allowed in this file", refused.what);
            let error = self.out.error("disallowed-token", &refused.span, message);
            self.out.report(error.expected("one document without anchors, aliases and tags"));
        }
        if let Some(error) = &document.error {
            nutcracker::report_syntax(error, self.out);
        }
        let Some(root) = document.root else {
            if document.error.is_none() {
                let message = format!("{} says nothing", quoted(name));
                let error = self.out.error("no-document", &(0..0), message);
                self.out.report(error.expected("\"pools:\", and below it a pool's name"));
            }
            return None;
        };
        if document.documents > 1 {
            let span = document.span(root);
            let message = "the file holds more than one document";
            self.out.report(self.out.error("many-documents", &span, message));
        }
        let span = document.span(root);
        let top = Section::read(document, name, span, root, keys::TOP, self.out)?;
        let mut settings = self.settings(&top);
        let mut pools = self.pools(&top);
        let (notes, secrets) = (&self.notes, &mut self.secrets);
        settings.sentinel = sentinel::read(&top, &mut pools, notes, secrets, self.out);
        settings.vrrp = top
            .entry("vrrp")
            .cloned()
            .map(|entry| vrrp::read(document, &entry.key, entry.value, self.out));
        self.claim_sentinel(&top, settings.sentinel.as_ref());
        // A witness watches masters and has no clients.
        let is_witness = matches!(settings.sentinel, Some(Watch::Own(_)));
        if top.entry("pools").is_none() && top.is_complete && !is_witness {
            let error = self.out.error("no-pools", &top.span, "the file has no pools");
            self.out.report(error.expected("\"pools:\", and below it a pool's name"));
        }
        Some((settings, pools))
    }

    fn settings(&mut self, top: &Section<'_>) -> Settings {
        let runtimes =
            [("auto", Runtime::Auto), ("uring", Runtime::Uring), ("tokio", Runtime::Tokio)];
        Settings {
            threads: self.threads(top),
            runtime: top.choice("runtime", runtimes, self.out).unwrap_or(Runtime::Auto),
            control: self.control(top),
            admin: self.admin(top),
            stats: self.stats(top),
            figures: self.figures(top),
            log: self.log(top),
            limits: self.limits(top),
            sentinel: None,
            vrrp: None,
        }
    }

    fn threads(&mut self, top: &Section<'_>) -> Threads {
        let is_auto = top.entry("threads").and_then(|entry| scalar(top.document, entry.value));
        if is_auto == Some("auto") {
            return Threads::Auto;
        }
        let count = top.number("threads", 1..=u32::from(limits::THREADS_MAX), self.out);
        let count = count.and_then(|count| u16::try_from(count).ok()).and_then(NonZeroU16::new);
        count.map_or(Threads::Auto, Threads::Count)
    }

    fn control(&mut self, top: &Section<'_>) -> Control {
        let Some((text, span)) = top.text("control", self.out) else { return Control::Auto };
        match text {
            "auto" => Control::Auto,
            section::OFF => Control::Off,
            path if path.len() <= limits::UNIX_PATH_BYTES_MAX => Control::At(path.to_owned()),
            _ => {
                let message = "the path is too long for a Unix socket";
                let error = self.out.error("path-too-long", &span, message);
                self.out.report(
                    error.expected(format!("at most {} bytes", limits::UNIX_PATH_BYTES_MAX)),
                );
                Control::Auto
            }
        }
    }

    fn admin(&mut self, top: &Section<'_>) -> Admin {
        let section = top.section("admin", keys::ADMIN, self.out);
        let mut admin = Settings::default().admin;
        if section.is_off("listen") {
            admin.listen = None;
        } else if let Some((listen, span)) = section.listen("listen", self.out) {
            self.claim(&listen, span, "the administration");
            admin.listen = Some(listen);
        }
        admin.token_file = self.path(&section, "token_file");
        admin.host_names = section.words("host_names", self.out);
        admin
    }

    fn figures(&mut self, top: &Section<'_>) -> Figures {
        let section = top.section("figures", keys::FIGURES, self.out);
        let default = Settings::default().figures;
        let is_off = section.is_off("slow_after");
        let slow_after = if is_off {
            None
        } else {
            section.time("slow_after", Duration::ZERO, self.out).or(default.slow_after)
        };
        Figures {
            is_on: section.boolean("enabled", default.is_on, self.out),
            slow_after,
            is_watching_keys: section.boolean("watch_keys", default.is_watching_keys, self.out),
        }
    }

    fn stats(&mut self, top: &Section<'_>) -> Option<HostPort> {
        let section = top.section("stats", keys::STATS, self.out);
        let default = Settings::default().stats;
        if section.is_off("listen") {
            return None;
        }
        let Some((listen, span)) = section.listen("listen", self.out) else { return default };
        self.claim(&listen, span.clone(), "the statistics");
        match listen.address {
            ListenAddress::Tcp(at) => Some(at),
            ListenAddress::Unix { .. } => {
                let message = "the statistics are served by TCP only";
                let error = self.out.error("invalid-listen", &span, message);
                self.out.report(error.expected("\"host:port\", or off"));
                default
            }
        }
    }

    fn log(&mut self, top: &Section<'_>) -> Log {
        let section = top.section("log", keys::LOG, self.out);
        let levels = [
            ("error", Level::Error),
            ("warn", Level::Warn),
            ("info", Level::Info),
            ("debug", Level::Debug),
            ("trace", Level::Trace),
        ];
        let formats =
            [("text", Format::Text), ("json", Format::Json), ("journald", Format::Journald)];
        let file = section.text("file", self.out).map(|(text, _)| text);
        Log {
            level: section.choice("level", levels, self.out).unwrap_or(Level::Info),
            format: section.choice("format", formats, self.out).unwrap_or(Format::Text),
            file: file.filter(|&file| file != "stderr").map(str::to_owned),
        }
    }

    fn limits(&mut self, top: &Section<'_>) -> Limits {
        let section = top.section("limits", keys::LIMITS, self.out);
        let mut set = Settings::default().limits;
        let clients = 1..=crate::id::ConnId::INDEX_MAX;
        set.clients_max =
            section.number_or_off("clients_max", clients, self.out).and_then(NonZeroU32::new);
        set.clients_input_bytes_max =
            self.budget(&section, "clients_input_bytes_max", set.clients_input_bytes_max);
        set.clients_output_bytes_max =
            self.budget(&section, "clients_output_bytes_max", set.clients_output_bytes_max);
        let drain = section.time("drain_timeout", Duration::ZERO, self.out);
        set.drain_timeout = drain.unwrap_or(set.drain_timeout);
        set
    }

    fn budget(&mut self, section: &Section<'_>, key: &'static str, default: usize) -> usize {
        let range = limits::CONFIG_BUDGET_BYTES_MIN..=limits::CONFIG_BUDGET_BYTES_MAX;
        let size = section.size(key, range, self.out);
        size.and_then(|size| usize::try_from(size).ok()).unwrap_or(default)
    }

    /// Reads the path of a file, none for `off`.
    fn path(&mut self, section: &Section<'_>, key: &'static str) -> Option<String> {
        let (text, _) = section.text(key, self.out)?;
        (text != section::OFF).then(|| text.to_owned())
    }

    /// Notes that an address is taken, and reports a second claim.
    fn claim(&mut self, listen: &Listen, span: Range<usize>, whose: &str) {
        let clash = self.listens.iter().find(|(other, _)| other.clashes_with(listen));
        if let Some((_, (other, first))) = clash {
            let message = format!("{other} and {whose} listen on the same address");
            let first = self.out.place(first);
            let error = self.out.error("duplicate-listen", &span, message);
            self.out.report(error.related(first, "first here"));
        } else {
            self.listens.push((listen.clone(), (whose.to_owned(), span)));
        }
    }

    /// Notes where the Sentinel listens.
    fn claim_sentinel(&mut self, top: &Section<'_>, watch: Option<&Watch>) {
        let Some(Watch::Own(own)) = watch else { return };
        let port = own.config.server.port.unwrap_or(0);
        if port == 0 {
            return;
        }
        let host = own.config.server.bind.first().map_or("0.0.0.0", String::as_str);
        let at = HostPort { host: host.to_owned(), port };
        let literal = format!("{host}:{port}");
        let listen = Listen { literal, address: ListenAddress::Tcp(at) };
        self.claim(&listen, top.place("sentinel"), "the Sentinel");
    }

    fn pools(&mut self, top: &Section<'_>) -> Vec<Pool> {
        let Some(Entry { key, value }) = top.entry("pools").cloned() else { return Vec::new() };
        let content = top.document.node(value).map(|node| &node.content);
        let Some(Content::Mapping(entries)) = content else {
            let error = self.out.error("no-pools", &key, "\"pools\" holds no pool");
            self.out.report(error.expected("a pool's name and a colon, indented below"));
            return Vec::new();
        };
        let mut names: BTreeMap<&str, Range<usize>> = BTreeMap::new();
        let mut pools = Vec::new();
        for &(key, value) in entries {
            let span = top.document.span(key);
            let Some(name) = scalar(top.document, key) else {
                let error = self.out.error("key-not-a-word", &span, "a pool's name is not a word");
                self.out.report(error);
                continue;
            };
            if name.is_empty() {
                let error = self.out.error("pool-name-empty", &span, "a pool has an empty name");
                self.out.report(error);
            }
            if let Some(first) = names.get(name) {
                let message = format!("the pool {} is here a second time", quoted(name));
                let first = self.out.place(first);
                let error = self.out.error("duplicate-pool", &span, message);
                self.out.report(error.related(first, "first here"));
            } else {
                names.insert(name, span.clone());
            }
            pools.extend(self.pool(top.document, name, span, value));
        }
        pools.sort_by(|a, b| server_order(&a.name, &b.name));
        pools
    }

    fn pool(
        &mut self,
        document: &Document,
        name: &str,
        span: Range<usize>,
        body: NodeId,
    ) -> Option<Pool> {
        let section = Section::read(document, name, span, body, keys::POOL, self.out)?;
        let draft = pool::read(name, &section, self.out);
        if let Some((listen, span)) = &draft.listen {
            self.claim(listen, span.clone(), &format!("the pool {}", quoted(name)));
        }
        if let Some((path, place)) = draft.auth_file {
            self.secrets.push(SecretFile { of: SecretOf::Pool(name.to_owned()), path, place });
        }
        self.notes.insert(name.to_owned(), draft.notes);
        draft.pool
    }
}

#[cfg(test)]
mod tests;
