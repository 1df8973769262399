//! What is wrong with the files of one host together, though each is right by itself.

use ringkeeper_core::config::diagnostic::{Diagnostic, Severity};
use ringkeeper_core::config::native;
use ringkeeper_core::config::nutcracker::{
    Address, Config, HostPort, Listen, ListenAddress, Pool, Server,
};
use ringkeeper_core::config::sentinel as conf;

/// Returns what is wrong with pools beside the Sentinel of the same host; places are in `text`, the
/// pools' file.
pub(super) fn judge(text: &str, pools: &Config, sentinel: &conf::Config) -> Vec<Diagnostic> {
    let mut pools = pools.clone();
    native::attach(&mut pools, &sentinel.masters);
    let mut found = Vec::new();
    for pool in &pools.pools {
        found.extend(ports(text, pool, sentinel));
        found.extend(ejection(text, pool));
        let unwatched = pool.servers.iter().filter(|server| pool.redis && server.shard.is_none());
        found.extend(unwatched.map(|server| {
            let message = format!(
                "no monitored master is at {}: nobody follows this server when it fails",
                shown(server)
            );
            let hint = "sentinel monitor NAME HOST PORT QUORUM".to_owned();
            about(text, &server.literal, "unwatched-server", message, hint)
        }));
    }
    for master in &sentinel.masters {
        let name = master.name.as_str();
        let mut servers = pools.pools.iter().flat_map(|pool| &pool.servers);
        if !servers.any(|server| server.shard.as_deref() == Some(name)) {
            let at = &master.monitor.address;
            let message = format!("no server of a pool is the monitored master {name} at {at}");
            let hint = format!("one of the two addresses may be old: {at}");
            found.push(about(text, "servers", "master-without-server", message, hint));
        }
    }
    found
}

fn ports(text: &str, pool: &Pool, sentinel: &conf::Config) -> Vec<Diagnostic> {
    let port = sentinel.server.port.unwrap_or(conf::PORT_DEFAULT);
    let all = ["*".to_owned()];
    let bind = &sentinel.server.bind;
    let hosts = if bind.is_empty() { &all[..] } else { bind };
    let clash = hosts.iter().any(|host| {
        let host = host.trim_start_matches('-').to_owned();
        let address = ListenAddress::Tcp(HostPort { host, port });
        pool.listen.clashes_with(&Listen { literal: String::new(), address })
    });
    let message = format!("the pool {} and the Sentinel listen on the same port", pool.name);
    let hint = format!("another port than {port} for one of them");
    let code = "duplicate-listen";
    let mut found = about(text, &pool.listen.literal, code, message, hint);
    found.severity = Severity::Error;
    if clash && port != 0 { vec![found] } else { Vec::new() }
}

fn ejection(text: &str, pool: &Pool) -> Option<Diagnostic> {
    let has_shards = pool.servers.iter().any(|server| server.shard.is_some());
    let message = format!(
        "the pool {} ejects servers whose masters are replaced: its keys are looked for, and \
         written, on another shard",
        pool.name
    );
    let hint = "auto_eject_hosts: false".to_owned();
    (has_shards && pool.auto_eject_hosts)
        .then(|| about(text, "auto_eject_hosts", "eject-replicated", message, hint))
}

fn shown(server: &Server) -> String {
    match &server.address {
        Address::Tcp(HostPort { host, port }) => format!("{host}:{port}"),
        Address::Unix(path) => path.clone(),
    }
}

/// Makes a warning about the first place that says `words`.
pub(super) fn about(
    text: &str,
    words: &str,
    code: &'static str,
    message: String,
    hint: String,
) -> Diagnostic {
    let start = text.find(words);
    let span = start.map_or(0..0, |start| start..start + words.len());
    let before = text.get(..span.start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Diagnostic {
        severity: Severity::Warning,
        code,
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        span,
        message,
        expected: None,
        hint: Some(hint),
        related: None,
    }
}

#[cfg(test)]
mod tests {
    use ringkeeper_core::config::nutcracker;

    use super::*;

    fn found(listen: &str, server: &str, sentinel: &str) -> Vec<(&'static str, usize)> {
        let text = format!(
            "alpha:\n  listen: {listen}\n  redis: true\n  auto_eject_hosts: true\n  servers:\n    - \
             {server}:1\n"
        );
        let pools = nutcracker::parse("n", &text).config.unwrap();
        let sentinel = conf::parse("s", sentinel).config.unwrap();
        let found = judge(&text, &pools, &sentinel);
        assert!(found.iter().all(|one| one.hint.is_some()));
        found.iter().map(|one| (one.code, one.line)).collect()
    }

    #[test]
    fn files_that_do_not_fit_together_are_told() {
        let one = "sentinel monitor a 10.0.0.1 6379 2\n";
        assert_eq!(found("h:22121", "10.0.0.1:6379", one), [("eject-replicated", 4)]);
        let neither = [("unwatched-server", 6), ("master-without-server", 5)];
        assert_eq!(found("h:22121", "10.0.0.2:6379", one), neither);
        let clash = [("duplicate-listen", 2), ("eject-replicated", 4)];
        assert_eq!(found("127.0.0.1:26379", "10.0.0.1:6379", one), clash);
        let elsewhere = format!("bind 10.0.0.7\n{one}");
        let found = found("127.0.0.1:26379", "10.0.0.1:6379", &elsewhere);
        assert_eq!(found, [("eject-replicated", 4)]);
    }
}
