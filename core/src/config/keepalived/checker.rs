//! Checkers of real servers: what their statements mean.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::diagnostic::quoted;
use super::grammar::Statement;
use super::model::Command;
use super::reader::{Reader, block, split_command};

/// When a server is checked, and how often before the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Time between checks. Default 60 s.
    pub delay_loop: Duration,
    /// Further attempts that must fail before a live server is down.
    pub retry: u32,
    /// Time between those.
    pub delay_before_retry: Duration,
    /// The first check begins within this, by chance.
    pub warmup: Duration,
    /// How long one attempt may take. Default 5 s.
    pub timeout: Duration,
}

/// A page that a server must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Its path.
    pub path: String,
    /// MD5 of its body.
    pub digest: Option<[u8; 16]>,
    /// Status codes that are good. Default 200 to 299.
    pub status: Vec<RangeInclusive<u16>>,
    /// Name of the host that is asked for.
    pub host: Option<String>,
    /// What its body must hold; it can be compiled.
    pub regex: Option<Pattern>,
}

/// A regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Its text.
    pub text: String,
    /// Whether upper and lower case are one.
    pub ignores_case: bool,
    /// Whether a match is a failure.
    pub is_negated: bool,
}

impl Pattern {
    /// Compiles it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, on one line.
    pub fn compile(&self) -> Result<regex::bytes::Regex, String> {
        let mut builder = regex::bytes::RegexBuilder::new(&self.text);
        builder.case_insensitive(self.ignores_case).size_limit(1 << 20).dfa_size_limit(1 << 20);
        builder
            .build()
            .map_err(|error| error.to_string().lines().last().unwrap_or_default().trim().to_owned())
    }
}

/// The version of HTTP that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// 1.0.
    #[default]
    V1_0,
    /// 1.0 with `Connection: close`.
    V1_0Close,
    /// 1.1.
    V1_1,
}

/// Whether what is said to a server is encrypted. Its certificate is not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cover {
    /// It is not.
    #[default]
    Plain,
    /// It is: `SSL_GET`.
    Tls,
    /// It is, and the server is told which host is asked for before that: `enable_sni`.
    TlsWithName,
}

/// Which role a Redis server must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisRole {
    /// Any.
    #[default]
    Any,
    /// Master.
    Master,
    /// Replica, connected to its master.
    Replica,
}

/// What a Redis server is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisCheck {
    /// The role that it must have.
    pub role: RedisRole,
    /// User, if it is not the default one.
    pub user: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Sentinels that are asked instead of the server, and the name of the master that it must be.
    pub sentinels: Vec<SocketAddr>,
    /// That name.
    pub master: String,
}

/// How a server is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// It takes a connection.
    Tcp,
    /// It has pages.
    Http {
        /// Which; all of them.
        urls: Vec<Url>,
        /// How it is asked.
        version: HttpVersion,
        /// Whether that is encrypted.
        cover: Cover,
    },
    /// A program says so.
    Misc {
        /// Which.
        command: Command,
        /// How long it may take; none means as long as `delay_loop`.
        timeout: Option<Duration>,
        /// Whether its exit code is the server's weight: `misc_dynamic`.
        is_dynamic: bool,
    },
    /// It answers an echo request.
    Ping,
    /// It answers a question for a name.
    Dns {
        /// Type of the record.
        kind: u16,
        /// The name.
        name: String,
    },
    /// A number in a file says so.
    File {
        /// Where the file is.
        path: String,
        /// What the number is multiplied with; at 0 another number than 0 is a failure.
        weight: i32,
    },
    /// It is a Redis server of a role. A keyword of our own.
    Redis(RedisCheck),
}

/// What finds out how a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checker {
    /// How it looks.
    pub check: Check,
    /// Where it looks.
    pub address: SocketAddr,
    /// When.
    pub timing: Timing,
    /// Whether the server is down until it has succeeded: `alpha`.
    pub starts_down: bool,
}

impl Checker {
    /// Returns the program that it runs.
    pub fn command(&self) -> Option<&Command> {
        match &self.check {
            Check::Misc { command, .. } => Some(command),
            Check::Tcp
            | Check::Http { .. }
            | Check::Ping
            | Check::Dns { .. }
            | Check::File { .. }
            | Check::Redis(_) => None,
        }
    }
}

/// What checkers start from; what is set closer to them wins.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    delay_loop: Option<Duration>,
    retry: Option<u32>,
    delay_before_retry: Option<Duration>,
    warmup: Option<Duration>,
    timeout: Option<Duration>,
    starts_down: bool,
    pub(super) is_inhibited: bool,
    host: Option<String>,
}

/// Blocks that check a server.
pub(super) const CHECKERS: &[&str] = &[
    "TCP_CHECK",
    "HTTP_GET",
    "SSL_GET",
    "MISC_CHECK",
    "PING_CHECK",
    "DNS_CHECK",
    "FILE_CHECK",
    "SMTP_CHECK",
    "UDP_CHECK",
    "BFD_CHECK",
    "REDIS_CHECK",
];

pub(super) fn is_checker(keyword: &str) -> bool {
    CHECKERS.contains(&keyword)
}

/// Keywords of checkers.
const KEYWORDS: &[&str] = &[
    "connect_ip",
    "connect_port",
    "connect_timeout",
    "retry",
    "delay_before_retry",
    "warmup",
    "delay_loop",
    "alpha",
    "http_protocol",
    "url",
    "virtualhost",
    "fast_recovery",
    "enable_sni",
    "misc_path",
    "misc_timeout",
    "misc_dynamic",
    "user",
    "type",
    "name",
    "track_file",
    "weight",
    "dynamic",
    "role",
    "auth_user",
    "auth_pass",
    "sentinel",
    "sentinel_master",
];

/// Keywords of checkers that keepalived knows and that do nothing here.
const UNUSED: &[&str] = &[
    "bindto",
    "bind_if",
    "bind_port",
    "fwmark",
    "log_all_failures",
    "fast_recovery",
    "nb_get_retry",
];

/// Longest time between checks, seconds: a year.
const SECONDS_MAX: u64 = 31_536_000;

/// What is known of a checker while its block is read.
#[derive(Default)]
struct Draft {
    ip: Option<IpAddr>,
    port: Option<u16>,
    urls: Vec<Url>,
    version: HttpVersion,
    sends_name: bool,
    command: Option<Command>,
    user: Option<super::model::User>,
    misc_timeout: Option<Duration>,
    is_dynamic: bool,
    record: Option<u16>,
    name: Option<String>,
    path: Option<String>,
    weight: i32,
    redis: RedisCheck,
}

impl Reader<'_, '_> {
    /// Reads a keyword that servers and checkers share; false if it is none.
    pub(super) fn default_keyword(&mut self, set: &mut Defaults, inner: &Statement) -> bool {
        match inner.keyword.text.as_str() {
            "delay_loop" => {
                let micros = self.micros(inner, 1..=SECONDS_MAX * 1_000_000, "it is ignored");
                set.delay_loop = micros.map(Duration::from_micros).or(set.delay_loop);
            }
            "retry" | "nb_get_retry" => {
                set.retry = self.small_count(inner, 0).or(set.retry);
            }
            "delay_before_retry" => {
                set.delay_before_retry = self.time(inner, SECONDS_MAX).or(set.delay_before_retry);
            }
            "warmup" => set.warmup = self.time(inner, SECONDS_MAX).or(set.warmup),
            "connect_timeout" => {
                let micros = self.micros(inner, 1..=SECONDS_MAX * 1_000_000, "it is ignored");
                set.timeout = micros.map(Duration::from_micros).or(set.timeout);
            }
            "alpha" => set.starts_down = self.flag(inner),
            "inhibit_on_failure" => set.is_inhibited = self.flag(inner),
            "virtualhost" => {
                set.host = inner.arguments.first().map(|word| word.text.clone());
            }
            _ => return false,
        }
        true
    }

    /// Reads a checker's block.
    pub(super) fn checker(
        &mut self,
        statement: &Statement,
        defaults: &Defaults,
        address: SocketAddr,
    ) -> Option<Checker> {
        let keyword = &statement.keyword;
        let mut set = defaults.clone();
        let mut draft = Draft::default();
        for inner in block(statement) {
            if !self.default_keyword(&mut set, inner) {
                self.checker_keyword(&mut draft, inner);
            }
        }
        // Any order will do inside the block.
        for url in &mut draft.urls {
            url.host = url.host.take().or_else(|| set.host.clone());
        }
        let ip = draft.ip.unwrap_or_else(|| address.ip());
        let address = SocketAddr::new(ip, draft.port.unwrap_or_else(|| address.port()));
        let (retry, before_retry) = match keyword.text.as_str() {
            "MISC_CHECK" => (0, 1),
            "DNS_CHECK" => (3, 0),
            "HTTP_GET" | "SSL_GET" => (1, 3),
            _ => (1, 1),
        };
        let delay_loop = set.delay_loop.unwrap_or(Duration::from_secs(60));
        let before_retry =
            if before_retry == 0 { delay_loop } else { Duration::from_secs(before_retry) };
        let timing = Timing {
            delay_loop,
            retry: set.retry.unwrap_or(retry),
            delay_before_retry: set.delay_before_retry.unwrap_or(before_retry),
            warmup: set.warmup.unwrap_or(delay_loop),
            timeout: set.timeout.unwrap_or(Duration::from_secs(5)),
        };
        let check = self.check(statement, draft)?;
        Some(Checker { check, address, timing, starts_down: set.starts_down })
    }

    fn check(&mut self, statement: &Statement, draft: Draft) -> Option<Check> {
        let keyword = &statement.keyword;
        match keyword.text.as_str() {
            "TCP_CHECK" => Some(Check::Tcp),
            "PING_CHECK" => Some(Check::Ping),
            "HTTP_GET" | "SSL_GET" if draft.urls.is_empty() => {
                self.warn("missing-url", &keyword.span, "there is no url, the check is ignored");
                None
            }
            "HTTP_GET" | "SSL_GET" => {
                let cover = match (keyword.text.as_str(), draft.sends_name) {
                    ("HTTP_GET", _) => Cover::Plain,
                    (_, false) => Cover::Tls,
                    (_, true) => Cover::TlsWithName,
                };
                Some(Check::Http { urls: draft.urls, version: draft.version, cover })
            }
            "DNS_CHECK" => Some(Check::Dns {
                kind: draft.record.unwrap_or(RECORD_SOA),
                name: draft.name.unwrap_or_else(|| ".".to_owned()),
            }),
            "MISC_CHECK" => {
                let Some(command) = draft.command else {
                    let message = "there is no misc_path, the check is ignored";
                    self.warn("missing-program", &keyword.span, message);
                    return None;
                };
                let command = Command { user: draft.user, ..command };
                let is_dynamic = draft.is_dynamic;
                Some(Check::Misc { command, timeout: draft.misc_timeout, is_dynamic })
            }
            "FILE_CHECK" => {
                let Some(path) = draft.path else {
                    let message = "there is no track_file, the check is ignored";
                    self.warn("file-without-path", &keyword.span, message);
                    return None;
                };
                Some(Check::File { path, weight: draft.weight })
            }
            "REDIS_CHECK" => self.redis_check(statement, draft.redis),
            "SMTP_CHECK" => {
                let message = format!(
                    "{} is not spoken here: the server is up if it takes a connection",
                    keyword.text
                );
                let hint = "MISC_CHECK can run a program that asks more";
                self.advise("check-replaced", &keyword.span, message, hint);
                Some(Check::Tcp)
            }
            _ => {
                let message = format!("{} has no effect here", quoted(&keyword.text));
                self.warn("check-without-effect", &keyword.span, message);
                None
            }
        }
    }

    fn redis_check(&mut self, statement: &Statement, redis: RedisCheck) -> Option<Check> {
        if redis.sentinels.is_empty() != redis.master.is_empty() {
            let message = "sentinel and sentinel_master belong together, the check is ignored";
            self.warn("sentinel-incomplete", &statement.keyword.span, message);
            return None;
        }
        Some(Check::Redis(redis))
    }

    fn checker_keyword(&mut self, draft: &mut Draft, inner: &Statement) {
        let first = inner.arguments.first();
        let text = || first.map(|word| word.text.clone());
        match inner.keyword.text.as_str() {
            "connect_ip" => draft.ip = first.and_then(|word| self.address(word)),
            "connect_port" => draft.port = first.and_then(|word| self.port(word)),
            "url" => {
                let url = self.url(inner);
                draft.urls.push(url);
            }
            "http_protocol" => match first.map(|word| word.text.as_str()) {
                Some("1.0" | "1.0k" | "1.0K") => draft.version = HttpVersion::V1_0,
                Some("1.0C" | "1.0c") => draft.version = HttpVersion::V1_0Close,
                Some("1.1" | "1.1k" | "1.1K") => draft.version = HttpVersion::V1_1,
                _ => {
                    let message = "this version of HTTP is not spoken, 1.0 is used";
                    self.warn("http-version", &inner.keyword.span, message);
                }
            },
            "enable_sni" => draft.sends_name = self.flag(inner),
            "misc_path" => {
                if let Some(word) = first {
                    let rest = inner.arguments.iter().skip(1).map(|word| word.text.clone());
                    let mut argv = split_command(&word.text);
                    argv.extend(rest);
                    let span = word.span.clone();
                    draft.command =
                        (!argv.is_empty()).then_some(Command { argv, user: None, span });
                }
            }
            "misc_timeout" => draft.misc_timeout = self.time(inner, SECONDS_MAX),
            "misc_dynamic" => draft.is_dynamic = self.flag(inner),
            "user" => draft.user = self.user(inner),
            "type" => draft.record = self.record(inner),
            "name" => draft.name = text(),
            "track_file" => draft.path = self.tracked_file(inner),
            "weight" => {
                let range = -i64::from(i32::MAX)..=i64::from(i32::MAX);
                let weight = self.number(inner, range, "0 is used");
                let weight = weight.and_then(|weight| i32::try_from(weight).ok()).unwrap_or(0);
                let is_reversed = inner.arguments.iter().any(|word| word.text == "reverse");
                draft.weight = if is_reversed { -weight } else { weight };
            }
            "dynamic" => draft.weight = if draft.weight == 0 { 1 } else { draft.weight },
            "role" | "auth_user" | "auth_pass" | "sentinel" | "sentinel_master" => {
                self.redis_keyword(&mut draft.redis, inner);
            }
            other if UNUSED.contains(&other) => self.unused(&inner.keyword),
            _ => self.unknown(&inner.keyword, KEYWORDS.iter().copied()),
        }
    }

    fn redis_keyword(&mut self, redis: &mut RedisCheck, inner: &Statement) {
        let words: Vec<&str> = inner.arguments.iter().map(|word| word.text.as_str()).collect();
        let span = &inner.keyword.span;
        match (inner.keyword.text.as_str(), words.as_slice()) {
            ("role", ["any"]) => redis.role = RedisRole::Any,
            ("role", ["master" | "primary"]) => redis.role = RedisRole::Master,
            ("role", ["replica" | "slave"]) => redis.role = RedisRole::Replica,
            ("auth_user", [user]) => redis.user = Some((*user).to_owned()),
            ("auth_pass", [password]) => redis.password = Some((*password).to_owned()),
            ("sentinel_master", [name]) => redis.master = (*name).to_owned(),
            ("sentinel", [ip, port]) => match (ip.parse(), port.parse()) {
                (Ok(ip), Ok(port)) => redis.sentinels.push(SocketAddr::new(ip, port)),
                _ => self.warn("invalid-address", span, "this is no address and port, ignored"),
            },
            _ => {
                let hint = "role any|master|replica, auth_pass PASSWORD, sentinel IP PORT";
                self.advise("redis-check", span, "this is not understood, ignored", hint);
            }
        }
    }

    fn record(&mut self, inner: &Statement) -> Option<u16> {
        let word = inner.arguments.first().unwrap_or(&inner.keyword);
        let kind = match word.text.to_ascii_uppercase().as_str() {
            "A" => 1,
            "NS" => 2,
            "CNAME" => 5,
            "SOA" => RECORD_SOA,
            "MX" => 15,
            "TXT" => 16,
            "AAAA" => 28,
            _ => {
                let message = format!("there is no record {}, SOA is used", quoted(&word.text));
                self.warn("unknown-record", &word.span, message);
                return None;
            }
        };
        Some(kind)
    }

    fn tracked_file(&mut self, inner: &Statement) -> Option<String> {
        let word = inner.arguments.first()?;
        let found = self.config.files.iter().find(|file| file.name == word.text);
        let path = found.map(|file| file.path.clone());
        if path.is_none() {
            let message = format!("there is no file {}, ignored", quoted(&word.text));
            self.warn("unknown-file", &word.span, message);
        }
        path
    }

    fn url(&mut self, statement: &Statement) -> Url {
        let mut url =
            Url { path: "/".to_owned(), digest: None, status: Vec::new(), host: None, regex: None };
        let (mut regex, mut is_negated, mut ignores_case) = (None, false, false);
        for inner in block(statement) {
            let first = inner.arguments.first();
            match inner.keyword.text.as_str() {
                "path" => {
                    // Blanks and controls would end the request's line.
                    let path = first.map(|word| word.text.as_str()).unwrap_or_default();
                    if path.is_empty() || path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
                        let message = "this is no path, / is used";
                        self.warn("invalid-path", &inner.keyword.span, message);
                    } else {
                        path.clone_into(&mut url.path);
                    }
                }
                "digest" => url.digest = self.digest(inner),
                "status_code" => {
                    let ranges = inner.arguments.iter().filter_map(|word| status(&word.text));
                    url.status = ranges.collect();
                    if url.status.len() != inner.arguments.len() || url.status.is_empty() {
                        let message = "not all of these are status codes; those are ignored";
                        self.warn("invalid-status", &inner.keyword.span, message);
                    }
                }
                "virtualhost" => url.host = first.map(|word| word.text.clone()),
                "regex" => regex = first.cloned(),
                "regex_no_match" => is_negated = true,
                "regex_options" => {
                    ignores_case = inner.arguments.iter().any(|word| word.text == "caseless");
                }
                "regex_stack" | "regex_min_offset" | "regex_max_offset" => {
                    self.unused(&inner.keyword);
                }
                _ => {
                    let known = ["path", "digest", "status_code", "virtualhost", "regex"];
                    self.unknown(&inner.keyword, known.into_iter());
                }
            }
        }
        if let Some(word) = regex {
            let pattern = Pattern { text: word.text.clone(), ignores_case, is_negated };
            match pattern.compile() {
                Ok(_) => url.regex = Some(pattern),
                Err(why) => {
                    let message = format!("the expression is not understood, ignored: {why}");
                    self.warn("regex-not-understood", &word.span, message);
                }
            }
        }
        if url.status.is_empty() {
            url.status.push(200..=299);
        }
        url
    }

    fn digest(&mut self, inner: &Statement) -> Option<[u8; 16]> {
        let word = inner.arguments.first().unwrap_or(&inner.keyword);
        let mut digest = [0; 16];
        let mut letters = word.text.chars();
        for byte in &mut digest {
            let mut digit = || letters.next().and_then(|letter| letter.to_digit(16));
            let value = digit().and_then(|high| Some(high * 16 + digit()?));
            let Some(value) = value.and_then(|value| u8::try_from(value).ok()) else {
                self.warn("invalid-digest", &word.span, "this is no MD5 digest, ignored");
                return None;
            };
            *byte = value;
        }
        Some(digest)
    }
}

/// RFC 1035 section 3.2.2.
const RECORD_SOA: u16 = 6;

/// Reads a status code or a range of them.
fn status(text: &str) -> Option<RangeInclusive<u16>> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (low.parse().ok()?, high.parse().ok()?);
    (100 <= low && low <= high && high <= 999).then_some(low..=high)
}
