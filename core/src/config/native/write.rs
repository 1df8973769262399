//! A `nutcracker.yml` in our own form: the same pools, every key at the same place of the ring, and
//! a comment for each thing that changed.

use std::fmt::Write as _;
use std::ops::Range;

use super::super::diagnostic::{Diagnostic, quoted};
use super::super::nutcracker::{
    self, Address, Directive, HostPort, Listen, ListenAddress, Pool, Server,
};
use super::super::yaml::{Content, Document, NodeId};
use super::section::OFF;
use super::value::{format_size, format_time};
use super::{POOL_TIMEOUT_DEFAULT, pool, scalar, write_sentinel};

/// Longest quoted key that may stand before its colon on one line, bytes; YAML has 1024 characters.
const SIMPLE_KEY_BYTES_MAX: usize = 1000;

/// Columns of a comment line.
const COMMENT_COLUMNS: usize = 96;

/// A file of another program.
#[derive(Clone, Copy, Debug)]
pub struct Old<'a> {
    /// Its name, for comments.
    pub name: &'a str,
    /// What it says.
    pub text: &'a str,
}

/// Turns a `nutcracker.yml`, and the `sentinel.conf` beside it if there is one, into a
/// `ringkeeper.yml`.
///
/// The result holds the passwords of the original.
///
/// # Errors
///
/// What is wrong with the first of the files that has an error.
pub fn write(pools: Old<'_>, sentinel: Option<Old<'_>>) -> Result<String, Vec<Diagnostic>> {
    let Old { name, text } = pools;
    let nutcracker::Parsed { config, diagnostics } = nutcracker::parse(name, text);
    let Some(mut config) = config else { return Err(diagnostics) };
    let document = Document::read(text);
    let origins = origins(&document);
    let mut writer = Writer { out: String::new(), name, is_watched: sentinel.is_some() };
    writer.head();
    if let Some(sentinel) = sentinel {
        write_sentinel::write(&mut writer, sentinel, &mut config)?;
    }
    writer.out.push_str("pools:\n");
    for (at, origin) in origins.iter().enumerate() {
        let Some(pool) = config.pools.iter().find(|pool| pool.name == origin.name) else {
            continue;
        };
        if at > 0 {
            writer.out.push('\n');
        }
        let end = origins.get(at + 1).map_or(text.len(), |next| next.span.start);
        let about =
            diagnostics.iter().filter(|one| (origin.span.start..end).contains(&one.span.start));
        writer.pool(pool, origin, about);
    }
    Ok(writer.out)
}

/// A pool as the original has it.
struct Origin<'a> {
    name: &'a str,
    span: Range<usize>,
    /// The directives that it sets.
    set: Vec<Directive>,
    /// The lines of its servers, in its order.
    servers: Vec<&'a str>,
}

fn origins(document: &Document) -> Vec<Origin<'_>> {
    let entries = |id: NodeId| match document.node(id).map(|node| &node.content) {
        Some(Content::Mapping(entries)) => entries.as_slice(),
        _ => &[],
    };
    let pools = document.root.map_or(&[][..], entries);
    pools
        .iter()
        .map(|&(key, body)| {
            let mut origin = Origin {
                name: scalar(document, key).unwrap_or_default(),
                span: document.span(key),
                set: Vec::new(),
                servers: Vec::new(),
            };
            for &(key, value) in entries(body) {
                let directive = scalar(document, key).and_then(Directive::from_name);
                origin.set.extend(directive);
                if let Some(Content::Sequence(items)) =
                    document.node(value).map(|node| &node.content)
                {
                    origin.servers.extend(items.iter().filter_map(|&item| scalar(document, item)));
                }
            }
            origin
        })
        .collect()
}

/// Writes a file.
pub(super) struct Writer<'a> {
    pub(super) out: String,
    name: &'a str,
    /// Whether masters are watched.
    is_watched: bool,
}

impl Writer<'_> {
    fn head(&mut self) {
        let name = quoted(self.name);
        self.comment(0, &format!("Written by `ringkeeper import` from {name}."));
        self.comment(
            0,
            "Every key stays on the server that has it. Comments of the original are not carried \
             over. conf/ringkeeper.yml explains each key and those that are left at their default.",
        );
        self.out.push('\n');
        self.comment(
            0,
            "twemproxy serves its figures on all addresses, port 22222, unless its command line \
             says otherwise; the default here is the loopback address. To have them as before:",
        );
        self.out.push_str("#stats:\n#  listen: 0.0.0.0:22222\n\n");
        self.comment(
            0,
            "As twemproxy has it. The default here is one for each processor, and each has \
             connections of its own to every server.",
        );
        self.out.push_str("threads: 1\n\n");
    }

    fn pool<'d>(
        &mut self,
        pool: &Pool,
        origin: &Origin<'_>,
        about: impl Iterator<Item = &'d Diagnostic>,
    ) {
        for Diagnostic { line, message, .. } in about.filter(|one| one.code != "unnamed-server") {
            self.comment(2, &format!("{}, line {line}: {message}.", quoted(self.name)));
        }
        let key = scalar_text(&pool.name);
        let colon = if key.len() > SIMPLE_KEY_BYTES_MAX { "\n  :" } else { ":" };
        let question = if key.len() > SIMPLE_KEY_BYTES_MAX { "? " } else { "" };
        let _ = writeln!(self.out, "  {question}{key}{colon}");
        self.key("listen", &scalar_text(&listen_text(&pool.listen)));
        self.key("protocol", if pool.redis { "redis" } else { "memcached" });
        self.settings(pool, origin);
        self.servers(pool, origin);
    }

    /// Writes what the original sets and what differs from our defaults.
    fn settings(&mut self, pool: &Pool, origin: &Origin<'_>) {
        let default = pool::default_pool("", pool.listen.clone());
        let is_set = |directive| origin.set.contains(&directive);
        if is_set(Directive::Hash) {
            self.key("hash", pool.hash.name());
        }
        if let Some(tag) = pool.hash_tag {
            let bytes = [tag.open, tag.close];
            self.key("hash_tag", &scalar_text(&String::from_utf8_lossy(&bytes)));
        }
        if is_set(Directive::Distribution) {
            self.key("distribution", pool.distribution.name());
        }
        self.timeout(pool);
        if is_set(Directive::Backlog) {
            self.key("backlog", &pool.backlog.to_string());
        }
        if let Some(most) = pool.client_connections {
            self.key("client_connections", &most.to_string());
        }
        if !pool.tcpkeepalive && !is_set(Directive::TcpKeepalive) {
            self.comment(4, "twemproxy's default; here it is true.");
        }
        if is_set(Directive::TcpKeepalive) || pool.tcpkeepalive != default.tcpkeepalive {
            self.key("tcp_keepalive", boolean(pool.tcpkeepalive));
        }
        if is_set(Directive::ReusePort) {
            self.key("reuseport", boolean(pool.reuseport));
        }
        self.credentials(pool, origin);
        if is_set(Directive::Preconnect) {
            self.key("preconnect", boolean(pool.preconnect));
        }
        self.ejection(pool, origin);
        if is_set(Directive::ServerConnections) {
            self.key("server_connections", &pool.server_connections.to_string());
        }
        if is_set(Directive::ServerConnectTimeout) {
            self.key("server_connect_timeout", &format_time(pool.server_connect_timeout));
        }
        if is_set(Directive::ServerRetryTimeout) {
            self.key("server_retry_timeout", &format_time(pool.server_retry_timeout));
        }
        if is_set(Directive::ServerFailureLimit) {
            self.key("server_failure_limit", &pool.server_failure_limit.to_string());
        }
        if is_set(Directive::RequestBytesMax) {
            self.key("request_bytes_max", &format_size(pool.request_bytes_max.into()));
        }
        if is_set(Directive::ClientOutputBytesMax) {
            self.key("client_output_bytes_max", &format_size(pool.client_output_bytes_max.into()));
        }
    }

    fn ejection(&mut self, pool: &Pool, origin: &Origin<'_>) {
        let has_shards = pool.servers.iter().any(|server| server.shard.is_some());
        if pool.auto_eject_hosts && has_shards {
            self.comment(
                4,
                "Was true. A failed master is replaced here; ejected, its keys would be looked for, \
                 and written, on another shard meanwhile.",
            );
            self.key("auto_eject_hosts", "false");
        } else if origin.set.contains(&Directive::AutoEjectHosts) {
            self.key("auto_eject_hosts", boolean(pool.auto_eject_hosts));
        }
    }

    fn timeout(&mut self, pool: &Pool) {
        match pool.timeout {
            Some(timeout) => self.key("timeout", &format_time(timeout)),
            None => {
                self.comment(
                    4,
                    &format!(
                        "As before, a server that hangs makes its clients hang. The default here \
                         is {}.",
                        format_time(POOL_TIMEOUT_DEFAULT)
                    ),
                );
                self.key("timeout", OFF);
            }
        }
    }

    fn credentials(&mut self, pool: &Pool, origin: &Origin<'_>) {
        if let Some(secret) = &pool.redis_auth {
            self.comment(
                4,
                "Better in a file that only the service may read: redis_auth_file: /path",
            );
            self.key("redis_auth", &double_quoted(secret.expose()));
        }
        // Without Redis it had no effect, and here it is a mistake.
        if pool.redis && origin.set.contains(&Directive::RedisDb) {
            self.key("redis_db", &pool.redis_db.to_string());
        }
    }

    fn servers(&mut self, pool: &Pool, origin: &Origin<'_>) {
        if pool.servers.iter().any(|server| !server.is_named) {
            self.comment(
                4,
                "A server without a name was placed on the ring by its address as written. That \
                 text is its name now: leave it, so that no key moves when the address changes.",
            );
        }
        self.out.push_str("    servers:\n");
        for literal in &origin.servers {
            let Some(server) = pool.servers.iter().find(|server| server.literal == *literal) else {
                continue;
            };
            self.server(pool, server);
        }
    }

    fn server(&mut self, pool: &Pool, server: &Server) {
        let (name, address) =
            (scalar_text(&server.name), scalar_text(&address_text(&server.address)));
        let _ = writeln!(self.out, "      - name: {name}");
        match &server.shard {
            Some(shard) => {
                let _ = writeln!(self.out, "        shard: {}", scalar_text(shard));
            }
            None if self.is_watched && pool.redis => {
                self.comment(8, "No monitored master has this address: nobody follows it.");
                let _ = writeln!(self.out, "        shard: {OFF}");
            }
            None => {}
        }
        let _ = writeln!(self.out, "        address: {address}");
        if server.weight.get() != 1 {
            let _ = writeln!(self.out, "        weight: {}", server.weight);
        }
    }

    fn key(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.out, "    {key}: {value}");
    }

    /// Writes a comment in lines that fit a screen.
    pub(super) fn comment(&mut self, indent: usize, text: &str) {
        let mut column = 0;
        for word in text.split(' ') {
            if column > 0 && column + 1 + word.len() <= COMMENT_COLUMNS {
                self.out.push(' ');
                column += 1;
            } else {
                if column > 0 {
                    self.out.push('\n');
                }
                let _ = write!(self.out, "{:indent$}# ", "");
                column = indent + 2;
            }
            self.out.push_str(word);
            column += word.len();
        }
        self.out.push('\n');
    }
}

pub(super) const fn boolean(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

pub(super) fn host_port(at: &HostPort) -> String {
    let HostPort { host, port } = at;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn address_text(address: &Address) -> String {
    match address {
        Address::Tcp(at) => host_port(at),
        Address::Unix(path) => path.clone(),
    }
}

fn listen_text(listen: &Listen) -> String {
    match &listen.address {
        ListenAddress::Tcp(at) => host_port(at),
        ListenAddress::Unix { path, mode: Some(mode) } => format!("{path} {mode:04o}"),
        // What stands behind a space is taken for permissions; 0 sets none.
        ListenAddress::Unix { path, mode: None } if path.contains(' ') => format!("{path} 0"),
        ListenAddress::Unix { path, mode: None } => path.clone(),
    }
}

/// Writes a scalar: plain where every reader of YAML takes it for the same text, else quoted.
pub(super) fn scalar_text(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | ':' | '-');
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    // Some readers take digits with colons or points for a number.
    let is_word = text.contains(|c: char| c.is_ascii_alphabetic() || c == '/')
        || (text.contains('.') && text.matches('.').count() >= 3);
    let is_plain = begins_well
        && is_word
        && text.chars().all(is_safe)
        && !text.ends_with(':')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { double_quoted(text) }
}

/// Writes a scalar in quotation marks, everything odd escaped.
fn double_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            // Of other scripts the letters stay readable.
            _ if c.is_alphanumeric() => out.push(c),
            _ => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02X}"),
                    0x100..=0xffff => write!(out, "\\u{code:04X}"),
                    _ => write!(out, "\\U{code:08X}"),
                };
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_plain_only_where_nobody_can_take_them_for_anything_else() {
        for plain in ["127.0.0.1:6379", "/run/s.sock", "a:b", "redis-1.example.com:6379"] {
            assert_eq!(scalar_text(plain), plain);
        }
        for (text, quoted) in [
            ("", "\"\""),
            ("off", "\"off\""),
            ("1:2", "\"1:2\""),
            ("[::1]:1", "\"[::1]:1\""),
            ("/s:", "\"/s:\""),
            ("a b", "\"a b\""),
            ("{}", "\"{}\""),
            ("é\"\\\n", "\"é\\\"\\\\\\x0A\""),
            ("\u{2028}\u{1f600}", "\"\\u2028\\U0001F600\""),
        ] {
            assert_eq!(scalar_text(text), quoted);
        }
    }
}
