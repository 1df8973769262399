//! Directives of an ordinary server: some are heeded, the rest is tolerated.

use std::net::IpAddr;

use super::line::{Line, Word};
use super::statement::number;
use super::{AuthClients, Secret, Server, User};
use crate::config::diagnostic::{Collector, quoted};
use crate::config::suggest;
use crate::limits;

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
const HEEDED: [&str; 9] = [
    "port",
    "bind",
    "bind-source-addr",
    "dir",
    "logfile",
    "daemonize",
    "pidfile",
    "requirepass",
    "aclfile",
];

/// Directives about encryption that are heeded.
const HEEDED_TLS: [&str; 10] = [
    "tls-port",
    "tls-replication",
    "tls-auth-clients",
    "tls-cert-file",
    "tls-key-file",
    "tls-client-cert-file",
    "tls-client-key-file",
    "tls-ca-cert-file",
    "tls-ca-cert-dir",
    "tls-protocols",
];

/// Versions of TLS that are spoken, and those that are not any more.
const PROTOCOLS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];
const OLD_PROTOCOLS: [&str; 2] = ["TLSv1", "TLSv1.1"];

/// First words of the other directives of Redis 7.0 and Valkey. What begins like one of them is
/// taken for one: a server has some two hundred, and what follows is not looked at.
const TOLERATED: [&str; 68] = [
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
    if HEEDED_TLS.contains(&word.as_str()) {
        read_tls(&word, line, server, out);
        return;
    }
    if word == "user" {
        read_user(line, server, out);
        return;
    }
    if TOLERATED.iter().any(|known| word.starts_with(known)) || word == "zset-max-listpack-entries"
    {
        let message = format!("{} is a directive for servers and ignored", quoted(&first.text));
        out.report(out.warning("server-directive-ignored", &first.span, message));
        return;
    }
    let message = format!("there is no directive {}", quoted(&first.text));
    let known = HEEDED.into_iter().chain(HEEDED_TLS).chain(SILENT).chain(["sentinel", "user"]);
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
        "bind-source-addr" => server.bind_source = text.and_then(|_| source(value, out)),
        "aclfile" => server.aclfile = text,
        "dir" => server.dir = text,
        "logfile" => server.logfile = text,
        "pidfile" => server.pidfile = text,
        "requirepass" => server.requirepass = text.map(Secret),
        _ => {
            server.daemonize = one_of(value, &[("yes", true), ("no", false)], out).unwrap_or(false);
        }
    }
}

/// Reads the address that connections come from.
///
/// Deviates: genuine Sentinels take a host name too, look it up for each connection, and reach
/// nobody when that fails.
fn source(value: &Word, out: &mut Collector<'_>) -> Option<IpAddr> {
    let parsed = value.text.parse().ok();
    if parsed.is_none() {
        let message = format!("{} is no address of this host", quoted(&value.text));
        let error = out.error("bad-value", &value.span, message);
        out.report(error.expected("an IPv4 or IPv6 address, such as \"192.0.2.7\""));
    }
    parsed
}

/// Takes a word for what it stands for, or reports that it is none of those.
fn one_of<T: Copy>(value: &Word, known: &[(&str, T)], out: &mut Collector<'_>) -> Option<T> {
    let found = known.iter().find(|(word, _)| value.text.eq_ignore_ascii_case(word));
    if found.is_none() {
        let words: Vec<String> = known.iter().map(|(word, _)| quoted(word)).collect();
        let expected = words.join(" or ");
        let message = format!("{} is not {expected}", quoted(&value.text));
        out.report(out.error("bad-value", &value.span, message).expected(expected));
    }
    found.map(|(_, meaning)| *meaning)
}

fn read_tls(word: &str, line: &Line, server: &mut Server, out: &mut Collector<'_>) {
    let tls = &mut server.tls;
    let [_, value] = line.words.as_slice() else {
        let message = format!("{} takes one value", quoted(word));
        out.report(out.error("bad-arguments", &line.span, message));
        return;
    };
    let text = (!value.text.is_empty()).then(|| value.text.clone());
    match word {
        "tls-port" => {
            tls.port = number(value, 0, u64::from(u16::MAX), "a port", out)
                .and_then(|port| u16::try_from(port).ok());
        }
        "tls-replication" => {
            tls.replication = one_of(value, &[("yes", true), ("no", false)], out).unwrap_or(false);
        }
        "tls-auth-clients" => {
            let known = [
                ("yes", AuthClients::Yes),
                ("no", AuthClients::No),
                ("optional", AuthClients::Optional),
            ];
            tls.auth_clients = one_of(value, &known, out).unwrap_or_default();
        }
        "tls-cert-file" => tls.cert_file = text,
        "tls-key-file" => tls.key_file = text,
        "tls-client-cert-file" => tls.client_cert_file = text,
        "tls-client-key-file" => tls.client_key_file = text,
        "tls-ca-cert-file" => tls.ca_cert_file = text,
        "tls-ca-cert-dir" => tls.ca_cert_dir = text,
        _ => read_protocols(value, &mut tls.protocols, out),
    }
}

fn read_protocols(value: &Word, protocols: &mut Vec<String>, out: &mut Collector<'_>) {
    protocols.clear();
    for word in value.text.split_whitespace() {
        let is_it = |known: &str| word.eq_ignore_ascii_case(known);
        if let Some(known) = PROTOCOLS.iter().find(|known| is_it(known)) {
            protocols.push((*known).to_owned());
        } else if OLD_PROTOCOLS.iter().any(|known| is_it(known)) {
            let message = format!("{word} is not spoken here, for it is not safe any more");
            out.report(out.warning("old-tls", &value.span, message));
        } else {
            let message = format!("{} is no version of TLS", quoted(word));
            let error = out.error("bad-value", &value.span, message);
            out.report(error.expected("\"TLSv1.2\" or \"TLSv1.3\""));
        }
    }
    if protocols.is_empty() && !value.text.is_empty() {
        let message = "no version of TLS is left that is spoken here";
        out.report(out.error("bad-value", &value.span, message));
    }
}

/// Reads a user. What its rules mean is not looked at here.
fn read_user(line: &Line, server: &mut Server, out: &mut Collector<'_>) {
    let Some([name, rules @ ..]) = line.words.get(1..) else {
        let error = out.error("bad-arguments", &line.span, "a user needs a name");
        out.report(error.expected("a name and rules, such as \"user alice on >secret +ping\""));
        return;
    };
    if server.users.len() >= limits::SENTINEL_USERS_MAX {
        let most = limits::SENTINEL_USERS_MAX;
        let message = format!("there are more than {most} users");
        out.report(out.error("too-many", &line.span, message));
        return;
    }
    if server.users.iter().any(|known| known.name == name.text) {
        let message = format!("the user {} is there already", quoted(&name.text));
        out.report(out.error("duplicate", &name.span, message));
        return;
    }
    let rules = rules.iter().map(|rule| rule.text.clone()).collect();
    server.users.push(User { name: name.text.clone(), rules });
}
