//! Directives of an ordinary server: some are heeded, the rest is tolerated.

use super::line::Line;
use super::statement::number;
use super::{Secret, Server};
use crate::config::diagnostic::{Collector, quoted};
use crate::config::suggest;

/// Directives that change nothing we promise; genuine Sentinels write some of them themselves.
const SILENT: [&str; 8] = [
    "protected-mode",
    "latency-tracking-info-percentiles",
    "loglevel",
    "supervised",
    "hz",
    "always-show-logo",
    "proc-title-template",
    "set-proc-title",
];

/// Directives that are heeded.
const HEEDED: [&str; 7] = ["port", "bind", "dir", "logfile", "daemonize", "pidfile", "requirepass"];

/// First words of the other directives of Redis 7.0 and Valkey. What begins like one of them is
/// taken for one: a server has some two hundred, and what follows is not looked at.
const TOLERATED: [&str; 69] = [
    "acl-",
    "acllog-",
    "active-",
    "activedefrag",
    "activerehashing",
    "aof-",
    "append",
    "auto-aof-",
    "availability-zone",
    "bgsave_cpulist",
    "bio_cpulist",
    "aof_rewrite_cpulist",
    "bind-source-addr",
    "busy-reply-threshold",
    "client-",
    "cluster-",
    "crash-",
    "databases",
    "dbfilename",
    "disable-thp",
    "dynamic-hz",
    "enable-",
    "events-",
    "hash-",
    "hll-",
    "hide-user-data-from-log",
    "ignore-warnings",
    "include",
    "io-threads",
    "jemalloc-",
    "key-load-delay",
    "latency-",
    "lazyfree-",
    "lfu-",
    "list-",
    "loadmodule",
    "locale-collate",
    "lua-time-limit",
    "masterauth",
    "masteruser",
    "max",
    "min-replicas-",
    "min-slaves-",
    "no-appendfsync-",
    "notify-keyspace-events",
    "oom-score-",
    "primaryauth",
    "primaryuser",
    "proto-max-bulk-len",
    "rdb",
    "rename-command",
    "repl",
    "sanitize-",
    "save",
    "server_cpulist",
    "server-cpulist",
    "set-max-",
    "shutdown-",
    "slave",
    "slowlog-",
    "socket-mark-id",
    "stop-writes-",
    "stream-",
    "syslog-",
    "tcp-",
    "timeout",
    "tls-",
    "tracking-",
    "unix",
];

/// Reads a line that does not begin with `sentinel`.
pub(super) fn read(line: &Line, server: &mut Server, out: &mut Collector<'_>) {
    let Some(first) = line.words.first() else { return };
    let word = first.text.to_ascii_lowercase();
    if SILENT.contains(&word.as_str()) {
        return;
    }
    if HEEDED.contains(&word.as_str()) {
        read_heeded(&word, line, server, out);
        return;
    }
    if word == "user" {
        read_user(line, out);
        return;
    }
    if TOLERATED.iter().any(|known| word.starts_with(known)) || word == "zset-max-listpack-entries"
    {
        let message = format!("{} is a directive for servers and ignored", quoted(&first.text));
        out.report(out.warning("server-directive-ignored", &first.span, message));
        return;
    }
    let message = format!("there is no directive {}", quoted(&first.text));
    let known = HEEDED.into_iter().chain(SILENT).chain(["sentinel", "user"]);
    let error = out.error("unknown-directive", &first.span, message);
    out.report(error.did_you_mean(suggest::nearest(&word, known)));
}

fn read_heeded(word: &str, line: &Line, server: &mut Server, out: &mut Collector<'_>) {
    if word == "bind" {
        let hosts = line.words.get(1..).unwrap_or_default();
        server.bind = hosts.iter().map(|host| host.text.clone()).collect();
        // An empty string is how Redis spells "on no address".
        server.bind.retain(|host| !host.is_empty());
        return;
    }
    let [_, value] = line.words.as_slice() else {
        let message = format!("{} takes one value", quoted(word));
        out.report(out.error("bad-arguments", &line.span, message));
        return;
    };
    let text = (!value.text.is_empty()).then(|| value.text.clone());
    match word {
        "port" => {
            server.port = number(value, 0, u64::from(u16::MAX), "a port", out)
                .and_then(|port| u16::try_from(port).ok());
        }
        "dir" => server.dir = text,
        "logfile" => server.logfile = text,
        "pidfile" => server.pidfile = text,
        "requirepass" => server.requirepass = text.map(Secret),
        _ => match value.text.to_ascii_lowercase().as_str() {
            "yes" => server.daemonize = true,
            "no" => server.daemonize = false,
            _ => {
                let message = format!("{} is neither yes nor no", quoted(&value.text));
                let error = out.error("bad-value", &value.span, message);
                out.report(error.expected("\"yes\" or \"no\""));
            }
        },
    }
}

/// A user line is heeded only as far as it says what holds without it.
fn read_user(line: &Line, out: &mut Collector<'_>) {
    let rules = line.words.get(1..).unwrap_or_default();
    let says_nothing = rules.first().is_some_and(|name| name.text == "default")
        && rules.iter().skip(1).all(|rule| {
            matches!(
                rule.text.as_str(),
                "on" | "nopass"
                    | "sanitize-payload"
                    | "~*"
                    | "&*"
                    | "+@all"
                    | "allkeys"
                    | "allchannels"
                    | "allcommands"
            )
        });
    if !says_nothing {
        let message = "rules of users are not applied: whoever may connect may do everything";
        out.report(out.warning("acl-ignored", &line.span, message));
    }
}
